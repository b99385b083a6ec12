//! Captures: what is copied, what is not, and what is refused. And the options of a wire.

use crate::{Switch, eventually, syn};
use sluice_flows::packet::{Frame, GsoKind, Offload};
use sluice_proto::v1::capture_service_client::CaptureServiceClient;
use sluice_proto::v1::captured_frame::Direction;
use sluice_proto::v1::port_service_client::PortServiceClient;
use sluice_proto::v1::{
    AddPortRequest, CaptureReply, CaptureRequest, CapturedFrame, PortSpec, SetPortRequest, WireCounters,
};
use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};
use tonic::{Code, Status, Streaming};

async fn capture(switch: &Switch, ports: &[&str], matches: &str) -> Result<Streaming<CaptureReply>, Status> {
    let ports = ports.iter().map(|p| (*p).to_owned()).collect();
    let request = CaptureRequest { ports, r#match: matches.to_owned(), ..Default::default() };
    CaptureServiceClient::new(switch.channel().await).capture(request).await.map(tonic::Response::into_inner)
}

/// The first reply's ports, then so many frames.
async fn frames(stream: &mut Streaming<CaptureReply>, count: usize) -> Vec<CapturedFrame> {
    let mut all = Vec::new();
    while all.len() < count {
        let reply = stream.message().await.unwrap().expect("the capture goes on");
        assert_eq!(reply.lost, 0);
        all.extend(reply.frames);
    }
    all
}

#[tokio::test]
async fn a_capture_sees_both_directions_of_its_ports_and_no_other() {
    let switch = Switch::start();
    switch.add(&["in_port=1 actions=mod_dl_src:02:00:00:00:00:07,output:2,output:3"]).await.unwrap();
    let mut stream = capture(&switch, &["p2", "p1"], "").await.unwrap();
    let first = stream.message().await.unwrap().unwrap();
    let told: Vec<_> = first.ports.iter().map(|p| (p.name.as_str(), p.bridge.as_str(), p.number)).collect();
    assert_eq!(told, [("p2", "br0", 2), ("p1", "br0", 1)]);
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    assert!(switch.ends[0].inject(&syn()));
    let got = frames(&mut stream, 2).await;
    let at = |port: u32| got.iter().find(|f| f.port == port).unwrap();
    assert_eq!((at(1).direction(), at(1).frame.as_slice()), (Direction::Received, &syn()[..]), "as it came");
    let mut rewritten = syn();
    rewritten[11] = 7;
    assert_eq!((at(0).direction(), at(0).frame.as_slice()), (Direction::Sent, &rewritten[..]), "as it left");
    assert!(got.iter().all(|f| f.time_unix_ns >= before && f.frame_len == 54 && f.segment_len == 0));
    // A frame that nothing is done with was received all the same; one that crosses p3 alone is not seen.
    assert!(switch.ends[2].inject(&syn()));
    assert!(switch.ends[1].inject(&syn()));
    let got = frames(&mut stream, 1).await;
    assert_eq!((got.len(), got[0].port, got[0].direction()), (1, 0, Direction::Received));
}

#[tokio::test]
async fn a_super_frame_is_copied_as_it_is() {
    let switch = Switch::start();
    switch.add(&["in_port=1 actions=output:2"]).await.unwrap();
    let mut stream = capture(&switch, &["p2"], "tcp,tcp_dst=80").await.unwrap();
    let mut bytes = syn();
    bytes.resize(5000, 7);
    // The IP header's length, or it would be none of TCP's.
    bytes[16..18].copy_from_slice(&(5000_u16 - 14).to_be_bytes());
    let mut frame = Frame::from_bytes(&bytes);
    frame.offload = Offload {
        gso: GsoKind::Tcp4,
        gso_size: 1400,
        csum_partial: true,
        csum_start: 34,
        csum_offset: 16,
        ..Offload::NONE
    };
    assert!(switch.ends[0].inject_frame(0, frame));
    let got = frames(&mut stream, 1).await;
    assert_eq!((&got[0].frame, got[0].frame_len, got[0].segment_len), (&bytes, 5000, 1400));
    assert!(got[0].partial_checksum);
}

#[tokio::test]
async fn a_match_selects_packets_and_may_look_at_nothing_else() {
    let switch = Switch::start();
    let mut stream = capture(&switch, &["p1"], "tcp,tcp_dst=443").await.unwrap();
    let mut other = syn();
    other[36..38].copy_from_slice(&443_u16.to_be_bytes());
    assert!(switch.ends[0].inject(&syn()) && switch.ends[0].inject(&other));
    assert_eq!(frames(&mut stream, 1).await[0].frame, other);
    for (ports, matches, code, text) in [
        (&["p1"][..], "in_port=1", Code::InvalidArgument, "cannot capture: its match may only look at what is in the"),
        (&["p1"], "reg0=1", Code::InvalidArgument, "cannot capture: its match may only look at what is in the"),
        (&["p1"], "tun_id=1", Code::InvalidArgument, "cannot capture: its match may only look at what is in the"),
        (&["p1"], "tpc", Code::InvalidArgument, ""),
        (&["p1", "p9"], "", Code::NotFound, "there is no port \"p9\"; `sluice ports` lists those there are"),
        (&[], "", Code::InvalidArgument, "cannot capture: it takes 1 to 256 ports, not 0"),
        (&["p1"; 257], "", Code::InvalidArgument, "cannot capture: it takes 1 to 256 ports, not 257"),
    ] {
        let error = capture(&switch, ports, matches).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().starts_with(text), "{}", error.message());
    }
}

#[tokio::test]
async fn a_patch_that_leads_nowhere_is_refused() {
    let switch = Switch::start();
    let spec = PortSpec {
        name: "x".into(),
        r#type: "patch".into(),
        options: [("peer".to_owned(), "y".to_owned())].into(),
        ..Default::default()
    };
    PortServiceClient::new(switch.channel().await).add_port(AddPortRequest { spec: Some(spec) }).await.unwrap();
    let error = capture(&switch, &["p1", "x"], "").await.unwrap_err();
    let want = "cannot capture: a patch leads nowhere: its other end is not there";
    assert_eq!((error.code(), error.message()), (Code::InvalidArgument, want));
    // What had begun at p1 has ended: the switch goes on.
    let mut stream = capture(&switch, &["p1"], "").await.unwrap();
    assert!(switch.ends[0].inject(&syn()));
    assert_eq!(frames(&mut stream, 1).await.len(), 1);
}

#[tokio::test]
async fn captures_end_with_their_readers_and_the_next_reader_finds_room() {
    let switch = Switch::start();
    // More than there may be watchers at a time.
    for _ in 0..66 {
        let mut stream = None;
        for _ in 0..1000 {
            match capture(&switch, &["p1"], "").await {
                Ok(begun) => {
                    stream = Some(begun);
                    break;
                }
                Err(error) => assert_eq!(error.code(), Code::ResourceExhausted),
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert!(stream.is_some(), "a capture that has ended still takes a place");
    }
    let mut last = capture(&switch, &["p1"], "").await;
    for _ in 0..1000 {
        if last.is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        last = capture(&switch, &["p1"], "").await;
    }
    let mut stream = last.unwrap();
    assert!(switch.ends[0].inject(&syn()));
    assert_eq!(frames(&mut stream, 1).await.len(), 1);
}

#[tokio::test]
async fn a_port_that_is_removed_takes_its_captures_along() {
    let switch = Switch::start();
    switch.add(&["in_port=1 actions=output:2"]).await.unwrap();
    let mut stream = capture(&switch, &["p1", "p2"], "").await.unwrap();
    switch.datapath.remove_port("br0", "p1").unwrap();
    switch.add(&["in_port=3 actions=output:2"]).await.unwrap();
    assert!(switch.ends[2].inject(&syn()));
    let got = frames(&mut stream, 1).await;
    assert_eq!((got[0].port, got[0].direction()), (1, Direction::Sent));
}

#[tokio::test]
async fn the_options_of_a_wire_are_listed_and_changed() {
    let switch = Switch::start();
    let mut client = PortServiceClient::new(switch.channel().await);
    let options = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    };
    for (name, peer) in [("w0", "w1"), ("w1", "w0")] {
        let spec = PortSpec {
            name: name.into(),
            r#type: "wire".into(),
            options: options(&[("peer", peer), ("delay", "1ms")]),
            ..Default::default()
        };
        client.add_port(AddPortRequest { spec: Some(spec) }).await.unwrap();
    }
    let set = |pairs| SetPortRequest { name: "w0".into(), options: options(pairs), ..Default::default() };
    let port = client
        .set_port(set(&[("delay", "20ms"), ("queue", "50p"), ("loss", "0%")]))
        .await
        .unwrap()
        .into_inner()
        .port
        .unwrap();
    assert!(port.link_up);
    let told = port.spec.unwrap().options;
    assert_eq!((told["delay"].as_str(), told["queue"].as_str(), told["peer"].as_str()), ("20ms", "50p", "w1"));
    let error = client.set_port(set(&[("seed", "2")])).await.unwrap_err();
    let want = "port w0: option `seed` cannot be changed while the port runs; delay, jitter, loss, rate, queue, \
                duplicate, corrupt, reorder, under_way, rx_rate, rx_burst, tx_rate, tx_burst can";
    assert_eq!((error.code(), error.message()), (Code::InvalidArgument, want));
    switch.add(&["in_port=1 actions=output:4"]).await.unwrap();
    switch.add(&["in_port=5 actions=output:2"]).await.unwrap();
    assert!(switch.ends[0].inject(&syn()));
    assert_eq!(eventually(|| switch.ends[1].take()).await.bytes(), syn());
    let port = client.set_port(set(&[("loss", "100%")])).await.unwrap().into_inner().port.unwrap();
    assert_eq!(port.wire.unwrap(), WireCounters { sent: 1, ..Default::default() });
    assert!(switch.ends[0].inject(&syn()));
    let counters = eventually(|| {
        let ports = switch.datapath.ports(None).unwrap();
        let (counts, _) = ports.iter().find(|port| &*port.port.name == "w0")?.wire?;
        (counts.lost > 0).then_some(counts)
    });
    assert_eq!((counters.await.sent, switch.ends[1].take().is_none()), (2, true));
}
