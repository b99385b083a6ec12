//! Packets meet a Service at every moment, while it is changed and while the controller starts again.

use super::*;
use sluice_proto::v1::trace_service_client::TraceServiceClient;
use sluice_proto::v1::{TracePacket, TraceRequest, trace_packet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A Service whose group has another number each time, with flows that come and go beside the one that stays.
fn part(step: u32) -> Part {
    let owner = "svc:shop/s1";
    let id = 500 + step % 3;
    let text = format!("type=select,bucket=bucket_id:{},actions=output:2", 1 + step % 5);
    let mut flows = vec![flow(18, "tcp,nw_dst=10.96.0.1,tp_dst=80", &format!("group:{id}"), owner)];
    if step.is_multiple_of(2) {
        flows.push(flow(18, "udp,nw_dst=10.96.0.1,tp_dst=80", &format!("group:{id}"), owner));
    }
    Part { flows, groups: vec![Group { id, text, owner: owner.into() }] }
}

fn base() -> Part {
    Part { flows: vec![flow(0, "", "resubmit(,18)", "builtin:entry")], groups: vec![] }
}

/// Traces until it is told to stop; how many packets it traced.
async fn trace(switch: Switch, stop: Arc<AtomicBool>) -> usize {
    let mut client = TraceServiceClient::new(switch.channel().unwrap());
    let flow = "in_port=1,tcp,nw_src=10.0.9.9,nw_dst=10.96.0.1,tp_dst=80".to_owned();
    let packets = vec![TracePacket { packet: Some(trace_packet::Packet::Flow(flow)), ..TracePacket::default() }];
    let mut traced = 0;
    while !stop.load(Relaxed) {
        let request = TraceRequest { packets: packets.clone(), ..TraceRequest::default() };
        let reply = client.trace(request).await.unwrap().into_inner().message().await.unwrap().unwrap();
        assert_eq!((reply.verdict.as_str(), reply.outputs.len()), ("forward", 1), "{}", reply.walk);
        traced += 1;
    }
    traced
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_packet_is_never_without_the_flow_that_it_had_and_will_have() {
    let mut node = Node::new();
    let _daemon = Daemon::start(node.path());
    node.program.change([(Object::Base, Some(base())), (service("shop/s1"), Some(part(0)))]);
    node.program.ready();
    node.settled().await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    // It has a connection of its own, which outlives the controller's.
    let (tracer, watched, _events) = start(Config {
        socket: node.path().join("s.sock"),
        bridge: "br0".to_owned(),
        round_file: node.path().join("tracer"),
    })
    .unwrap();
    while watched.channel().is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let traces = tokio::spawn(trace(watched, Arc::clone(&stop)));
    for step in 1..=60 {
        if step % 20 == 0 {
            node = node.again();
            node.program.set(Object::Base, base());
            node.program.set(service("shop/s1"), part(step));
            node.program.ready();
        } else if step % 7 == 0 {
            // Another object takes over, in one step.
            let moved = step % 14 == 0;
            let (from, to) = if moved { ("shop/s0", "shop/s1") } else { ("shop/s1", "shop/s0") };
            node.program.change([(service(to), Some(part(step))), (service(from), None)]);
        } else {
            let has = if step % 14 > 7 { "shop/s0" } else { "shop/s1" };
            node.program.change([
                (service(has), Some(part(step))),
                (service(if has == "shop/s0" { "shop/s1" } else { "shop/s0" }), None),
            ]);
        }
        node.settled().await.unwrap();
        assert_eq!(node.groups().await.len(), 1, "step {step}");
    }
    stop.store(true, Relaxed);
    assert!(traces.await.unwrap() > 50);
    drop(tracer);
}
