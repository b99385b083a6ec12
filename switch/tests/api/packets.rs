//! Traces, packet-out and packet-in, drops, learned addresses, ports.

use crate::{Switch, eventually, syn};
use sluice_proto::v1::fdb_service_client::FdbServiceClient;
use sluice_proto::v1::packet_service_client::PacketServiceClient;
use sluice_proto::v1::port_service_client::PortServiceClient;
use sluice_proto::v1::stats_service_client::StatsServiceClient;
use sluice_proto::v1::trace_packet::Packet;
use sluice_proto::v1::trace_service_client::TraceServiceClient;
use sluice_proto::v1::{
    AddPortRequest, Drop, FlushFdbRequest, GetStatsRequest, ListDropsRequest, ListFdbRequest, ListPortsRequest,
    PacketOutRequest, PortSpec, TracePacket, TraceReply, TraceRequest, WatchPacketInsRequest,
};
use tonic::{Code, Status};

async fn trace(switch: &Switch, packet: TracePacket) -> Result<TraceReply, Status> {
    let request = TraceRequest { packets: vec![packet], ..Default::default() };
    let mut stream = TraceServiceClient::new(switch.channel().await).trace(request).await?.into_inner();
    stream.message().await.map(|reply| reply.expect("one reply for one packet"))
}

fn flow(text: &str) -> TracePacket {
    TracePacket { packet: Some(Packet::Flow(text.to_owned())), ..Default::default() }
}

#[tokio::test]
async fn a_trace_tells_rule_outputs_and_changes_and_counts_nothing() {
    let switch = Switch::start();
    switch.add(&["owner=np:shop/web,tcp actions=dec_ttl,mod_vlan_vid:10,output:p2"]).await.unwrap();
    let frame = TracePacket { packet: Some(Packet::Frame(syn())), in_port: "p1".into() };
    let reply = trace(&switch, frame).await.unwrap();
    assert_eq!((reply.verdict.as_str(), reply.reason.as_str()), ("forward", ""));
    assert_eq!(reply.rule.as_ref().unwrap().owner, "np:shop/web");
    let out = &reply.outputs[0];
    assert_eq!((out.port, out.port_name.as_str(), out.bridge.as_str()), (2, "p2", "br0"));
    assert_eq!((out.set[0].field.as_str(), out.set[0].value.as_str()), ("nw_ttl", "63"));
    assert_eq!((out.vlans[0].vid, out.vlans[0].tpid), (10, 0x8100));
    assert_eq!(reply.datapath_actions, "set(ipv4(ttl=63)),push_vlan(vid=10,pcp=0),p2");
    assert_eq!(reply.walk.lines().last(), Some("Datapath actions: set(ipv4(ttl=63)),push_vlan(vid=10,pcp=0),p2"));
    assert_eq!(switch.dump().await[0].packets, 0);
    assert!(switch.ends[1].take().is_none());
}

#[tokio::test]
async fn a_trace_without_a_known_port_lists_those_there_are() {
    let switch = Switch::start();
    let error = trace(&switch, flow("in_port=9,ip")).await.unwrap_err();
    let want = "there is no port 9; ports of bridge br0: 1 (p1), 2 (p2), 3 (p3)";
    assert_eq!((error.code(), error.message()), (Code::InvalidArgument, want));
    let error = trace(&switch, flow("ip")).await.unwrap_err();
    assert!(error.message().starts_with("say by which port the packet comes in"), "{error}");
}

#[tokio::test]
async fn a_packet_out_leaves_by_the_port_that_its_actions_name() {
    let switch = Switch::start();
    let mut client = PacketServiceClient::new(switch.channel().await);
    let request = |actions: &str, frame: Vec<u8>| PacketOutRequest {
        actions: actions.to_owned(),
        in_port: "p1".into(),
        frame,
        ..Default::default()
    };
    client.packet_out(request("output:p3", syn())).await.unwrap();
    assert_eq!(eventually(|| switch.ends[2].take()).await.bytes(), syn());
    // Through the tables, when no actions are given.
    switch.add(&["in_port=1 actions=output:2"]).await.unwrap();
    client.packet_out(request("", syn())).await.unwrap();
    eventually(|| switch.ends[1].take()).await;
    for bad in [request("output:nowhere", syn()), request("", vec![0; 13]), request("", vec![0; 70_000])] {
        assert_eq!(client.packet_out(bad).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn a_packet_out_comes_in_by_a_port_of_the_bridge_or_by_none() {
    let switch = Switch::start();
    let mut client = PacketServiceClient::new(switch.channel().await);
    let request = |in_port: &str| PacketOutRequest {
        actions: "output:3".into(),
        in_port: in_port.to_owned(),
        frame: syn(),
        ..Default::default()
    };
    let error = client.packet_out(request("99")).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.message().starts_with("bridge br0 has no port \"99\"; its ports: p1, p2, p3"), "{error}");
    for in_port in ["", "2", "NONE"] {
        client.packet_out(request(in_port)).await.unwrap();
        eventually(|| switch.ends[2].take()).await;
    }
}

#[tokio::test]
async fn the_controller_action_hands_packets_to_whoever_watches() {
    let switch = Switch::start();
    switch.add(&["cookie=0x7,owner=test:punt,tcp actions=controller(max_len=20,id=5)"]).await.unwrap();
    let mut client = PacketServiceClient::new(switch.channel().await);
    let request = WatchPacketInsRequest { controller_id: Some(5), ..Default::default() };
    let mut stream = client.watch_packet_ins(request).await.unwrap().into_inner();
    assert!(switch.ends[0].inject(&syn()));
    let packet = stream.message().await.unwrap().unwrap();
    assert_eq!((packet.in_port.as_str(), packet.cookie, packet.owner.as_str()), ("p1", 7, "test:punt"));
    assert_eq!((packet.frame.as_slice(), packet.frame_len), (&syn()[..20], 54));
    assert_eq!((packet.bridge.as_str(), packet.reason.as_str()), ("br0", "action"));
}

async fn drops(switch: &Switch) -> Vec<Drop> {
    let mut client = StatsServiceClient::new(switch.channel().await);
    let mut stream = client.list_drops(ListDropsRequest::default()).await.unwrap().into_inner();
    let mut all = Vec::new();
    while let Some(part) = stream.message().await.unwrap() {
        all.extend(part.drops);
    }
    all
}

#[tokio::test]
async fn drops_name_reason_port_owner_and_a_packet_that_can_be_traced() {
    let switch = Switch::start();
    switch.add(&["owner=np:shop/deny,priority=5,tcp actions=drop"]).await.unwrap();
    for _ in 0..3 {
        assert!(switch.ends[1].inject(&syn()));
    }
    let mut client = StatsServiceClient::new(switch.channel().await);
    let mut stats = client.get_stats(GetStatsRequest {}).await.unwrap().into_inner();
    for _ in 0..10_000 {
        if stats.dropped_packets == 3 {
            break;
        }
        stats = client.get_stats(GetStatsRequest {}).await.unwrap().into_inner();
    }
    assert_eq!((stats.received_packets, stats.dropped_packets), (3, 3));
    assert_eq!((stats.drops[0].reason.as_str(), stats.drops[0].packets), ("rule_drop", 3));
    let drops = drops(&switch).await;
    let [drop] = &drops[..] else { panic!("one kind of drop: {drops:?}") };
    assert_eq!((drop.reason.as_str(), drop.port.as_str(), drop.packets), ("rule_drop", "p2", 3));
    assert_eq!((drop.owner.as_str(), drop.rule.as_str()), ("np:shop/deny", "table=0,priority=5,tcp"));
    let again = trace(&switch, flow(&drop.last_packet)).await.unwrap();
    assert_eq!((again.verdict.as_str(), again.rule.unwrap().owner.as_str()), ("drop", "np:shop/deny"));
}

#[tokio::test]
async fn learned_addresses_are_listed_and_forgotten() {
    let switch = Switch::start();
    switch.add(&["actions=NORMAL"]).await.unwrap();
    assert!(switch.ends[0].inject(&syn()));
    eventually(|| switch.ends[2].take()).await;
    let mut client = FdbServiceClient::new(switch.channel().await);
    let mut stream = client.list_fdb(ListFdbRequest::default()).await.unwrap().into_inner();
    let entry = stream.message().await.unwrap().unwrap().entries.remove(0);
    assert_eq!((entry.mac.as_str(), entry.port.as_str(), entry.vlan), ("02:00:00:00:00:01", "p1", 0));
    let flushed = client.flush_fdb(FlushFdbRequest::default()).await.unwrap().into_inner().flushed;
    assert_eq!(flushed, 1);
    let mut stream = client.list_fdb(ListFdbRequest::default()).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_none());
}

#[tokio::test]
async fn ports_are_added_listed_and_refused_with_a_reason() {
    let switch = Switch::start();
    let mut client = PortServiceClient::new(switch.channel().await);
    let spec = |name: &str, kind: &str| PortSpec { name: name.into(), r#type: kind.into(), ..Default::default() };
    let added = client.add_port(AddPortRequest { spec: Some(spec("n1", "null")) }).await.unwrap().into_inner();
    assert_eq!(added.port.unwrap().spec.unwrap().number, 4);
    for (spec, code, text) in [
        (spec("n1", "null"), Code::AlreadyExists, "there is a port \"n1\" already"),
        (spec("x", "tapp"), Code::InvalidArgument, "unknown port type `tapp`; types: tap, "),
        (spec("x", "local"), Code::InvalidArgument, "unknown port type `local`"),
        (spec("nowhere", "af-packet"), Code::NotFound, "port nowhere: no such interface"),
        (PortSpec { number: 70_000, ..spec("x", "null") }, Code::InvalidArgument, "port x: 70000 cannot be"),
        (
            PortSpec { options: [("mtuu".into(), "1".into())].into(), ..spec("x", "null") },
            Code::InvalidArgument,
            "port x: ",
        ),
        (PortSpec { bridge: "br9".into(), ..spec("x", "null") }, Code::NotFound, "there is no bridge \"br9\""),
    ] {
        let error = client.add_port(AddPortRequest { spec: Some(spec) }).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().starts_with(text), "{}", error.message());
    }
    let mut stream = client.list_ports(ListPortsRequest::default()).await.unwrap().into_inner();
    let ports = stream.message().await.unwrap().unwrap().ports;
    let names: Vec<_> = ports.iter().map(|p| p.spec.as_ref().unwrap().name.as_str()).collect();
    assert_eq!(names, ["p1", "p2", "p3", "n1"]);
}
