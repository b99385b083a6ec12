//! Tracked connections: listed, filtered, removed, counted, limited, watched and traced.

use crate::{Switch, eventually};
use sluice_proto::v1::connection_event::Kind;
use sluice_proto::v1::connection_service_client::ConnectionServiceClient;
use sluice_proto::v1::trace_service_client::TraceServiceClient;
use sluice_proto::v1::{
    Connection, ConnectionEvent, ConnectionLabel, ConnectionTuple, FlushConnectionsRequest,
    GetConnectionSettingsRequest, GetConnectionStatsRequest, LabelConnectionsRequest, ListConnectionsRequest,
    SetConnectionSettingsRequest, TracePacket, TraceReply, TraceRequest, WatchConnectionsRequest, ZoneChange,
    trace_packet,
};
use tonic::Code;
use tonic::transport::Channel;

/// Commits what comes in by port 1 in zone 5; lets answers back in.
const FLOWS: [&str; 4] = [
    "priority=9,in_port=1,udp actions=ct(commit,zone=5,exec(set_field:0x17->ct_mark)),output:2",
    "priority=9,in_port=2,udp actions=ct(zone=5,table=1)",
    "priority=9,in_port=3,udp actions=ct(table=1)",
    "table=1,ct_state=+trk+est,udp actions=output:1",
];

/// A UDP packet over IPv4 with four bytes of payload.
fn udp(src: [u8; 4], dst: [u8; 4], src_port: u16, dst_port: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    let mut header = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0];
    header.extend(src);
    header.extend(dst);
    let sum: u32 = header.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(header);
    frame.extend([src_port, dst_port].iter().flat_map(|port| port.to_be_bytes()));
    // Without a checksum (RFC 768).
    frame.extend([0, 12, 0, 0, 1, 2, 3, 4]);
    frame
}

const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 0, 0, 2];

async fn client(switch: &Switch) -> ConnectionServiceClient<Channel> {
    ConnectionServiceClient::new(switch.channel().await)
}

/// The connections that the filter selects, by source port.
async fn list(switch: &Switch, filter: &str) -> Vec<Connection> {
    let request = ListConnectionsRequest { filter: filter.to_owned() };
    let mut stream = client(switch).await.list_connections(request).await.expect("a list").into_inner();
    let mut all = Vec::new();
    while let Some(part) = stream.message().await.expect("the next part") {
        all.extend(part.connections);
    }
    all.sort_by_key(|c: &Connection| c.original.clone().map(|tuple| tuple.src_port));
    all
}

/// A switch with connections from 10.0.0.1 to port 53 of 10.0.0.2, from as many source ports, from 1000 on.
async fn with_connections(count: u16) -> Switch {
    let switch = Switch::start();
    switch.add(&FLOWS).await.expect("good flows");
    for port in 1000..1000 + count {
        assert!(switch.ends[0].inject(&udp(A, B, port, 53)));
        eventually(|| switch.ends[1].take()).await;
    }
    switch
}

#[tokio::test]
async fn connections_are_listed_with_what_is_known_of_them() {
    let switch = with_connections(2).await;
    assert!(switch.ends[1].inject(&udp(B, A, 53, 1000)));
    eventually(|| switch.ends[0].take()).await;
    let all = list(&switch, "").await;
    let [one, other] = &all[..] else { panic!("{all:?}") };
    assert_eq!((one.zone, one.proto, one.state.as_str(), one.replied), (5, 17, "BIDIR", true));
    assert_eq!((other.state.as_str(), other.replied), ("FIRST", false));
    let (original, reply) = (one.original.clone().unwrap(), one.reply.clone().unwrap());
    assert_eq!((original.src.as_str(), original.src_port, original.dst_port), ("10.0.0.1", 1000, 53));
    assert_eq!((reply.src.as_str(), reply.src_port, reply.dst_port), ("10.0.0.2", 53, 1000));
    assert_eq!((one.snat, one.dnat, original.icmp_type, one.label.as_str()), (false, false, None, "0x0"));
    assert!((1..=60_000).contains(&one.expires_ms), "{}", one.expires_ms);
}

#[tokio::test]
async fn packets_that_caches_answer_are_counted_too() {
    let switch = with_connections(1).await;
    assert!(switch.ends[1].inject(&udp(B, A, 53, 1000)));
    eventually(|| switch.ends[0].take()).await;
    for _ in 0..10 {
        assert!(switch.ends[0].inject(&udp(A, B, 1000, 53)));
        eventually(|| switch.ends[1].take()).await;
    }
    let all = list(&switch, "").await;
    let [one] = &all[..] else { panic!("{all:?}") };
    let (sent, answered) = (one.original_count.unwrap(), one.reply_count.unwrap());
    let len = udp(A, B, 0, 0).len() as u64;
    assert_eq!((sent.packets, sent.bytes, answered.packets, answered.bytes), (11, 11 * len, 1, len));
}

#[tokio::test]
async fn a_filter_selects_and_a_bad_one_is_refused() {
    let switch = with_connections(3).await;
    let ports = |all: Vec<Connection>| all.iter().map(|c| c.original.clone().unwrap().src_port).collect::<Vec<_>>();
    assert_eq!(ports(list(&switch, "zone=5,udp,tp_src=1001").await), [1001]);
    assert_eq!(ports(list(&switch, "!tp_src=1001").await), [1000, 1002]);
    assert_eq!(ports(list(&switch, "zone=6").await), Vec::<u32>::new());
    let request = ListConnectionsRequest { filter: "zoen=5".to_owned() };
    let error = client(&switch).await.list_connections(request).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("did you mean `zone`?"), "{}", error.message());
}

#[tokio::test]
async fn a_flush_removes_what_the_filter_selects_and_says_how_many() {
    let switch = with_connections(3).await;
    let mut client = client(&switch).await;
    let flush = |filter: &str, all, dry_run| FlushConnectionsRequest { filter: filter.to_owned(), all, dry_run };
    let mut flushed = async |request| client.flush_connections(request).await.map(|reply| reply.into_inner().flushed);
    assert_eq!(flushed(flush("tp_src=1000", false, true)).await.unwrap(), 1);
    assert_eq!(list(&switch, "").await.len(), 3, "that was a dry run");
    assert_eq!(flushed(flush("tp_src=1000", false, false)).await.unwrap(), 1);
    assert_eq!(list(&switch, "").await.len(), 2);
    let error = flushed(flush("", false, false)).await.unwrap_err();
    assert!(error.message().contains("a filter is missing"), "{}", error.message());
    let error = flushed(flush("tcp", true, false)).await.unwrap_err();
    assert!(error.message().contains("leave out the filter"), "{}", error.message());
    assert_eq!(flushed(flush("", true, false)).await.unwrap(), 2);
    assert!(list(&switch, "").await.is_empty());
}

#[tokio::test]
async fn labels_are_written_to_the_connections_that_are_named_and_to_no_others() {
    let switch = with_connections(3).await;
    let mut client = client(&switch).await;
    let original = |src_port| ConnectionTuple {
        src: "10.0.0.1".to_owned(),
        dst: "10.0.0.2".to_owned(),
        src_port,
        dst_port: 53,
        ..ConnectionTuple::default()
    };
    let label = |src_port, label: &str, mask: &str| ConnectionLabel {
        zone: 5,
        proto: 17,
        original: Some(original(src_port)),
        label: label.to_owned(),
        mask: mask.to_owned(),
    };
    let mut write = async |labels| client.label_connections(LabelConnectionsRequest { labels }).await;
    let cut = "0x10000000000000000";
    let reply = write(vec![label(1001, cut, cut), label(1002, "7", "0xf"), label(4444, cut, cut)]).await.unwrap();
    assert_eq!(reply.into_inner().changed, 2, "one is not there");
    let labels: Vec<_> = list(&switch, "").await.into_iter().map(|connection| connection.label).collect();
    assert_eq!(labels, ["0x0", cut, "0x7"]);
    assert_eq!(write(vec![label(1001, "0", "1"), label(1002, "0x20", "0xf0")]).await.unwrap().into_inner().changed, 1);
    let labels: Vec<_> = list(&switch, "").await.into_iter().map(|connection| connection.label).collect();
    assert_eq!(labels, ["0x0", cut, "0x27"]);
    let error = write(vec![label(1000, "0xff", "0xff"), label(1001, "red", "1")]).await.unwrap_err();
    assert!(error.message().contains("128 bits"), "{}", error.message());
    assert_eq!(list(&switch, "ct_label=0xff/0xff").await.len(), 0, "nothing of a bad request is done");
}

#[tokio::test]
async fn numbers_are_by_zone_protocol_and_state() {
    let switch = with_connections(3).await;
    let mut client = client(&switch).await;
    let zones = vec![ZoneChange { zone: 9, limit: Some(7), ..Default::default() }];
    let request = SetConnectionSettingsRequest {
        zones,
        default_zone_limit: Some(100),
        ..SetConnectionSettingsRequest::default()
    };
    client.set_connection_settings(request).await.unwrap();
    client
        .flush_connections(FlushConnectionsRequest { filter: "tp_src=1002".into(), ..Default::default() })
        .await
        .unwrap();
    let stats = client.get_connection_stats(GetConnectionStatsRequest::default()).await.unwrap().into_inner();
    assert_eq!((stats.connections, stats.limit), (2, 3_000_000));
    let zones: Vec<_> = stats.zones.iter().map(|z| (z.zone, z.connections, z.limit)).collect();
    assert_eq!(zones, [(5, 2, 100), (9, 0, 7)]);
    let [udp] = &stats.protocols[..] else { panic!("{:?}", stats.protocols) };
    assert_eq!((udp.proto, udp.connections), (17, 2));
    assert_eq!((udp.states[0].state.as_str(), udp.states[0].connections), ("FIRST", 2));
    let counters = stats.counters.unwrap();
    assert_eq!((counters.committed, counters.flushed, counters.expired), (3, 1, 0));
}

#[tokio::test]
async fn settings_change_together_or_not_at_all() {
    let switch = Switch::start();
    let mut client = client(&switch).await;
    let five = ZoneChange {
        zone: 5,
        limit: Some(2),
        timeouts_s: [("udp_first".to_owned(), 10)].into(),
        ..ZoneChange::default()
    };
    let request = SetConnectionSettingsRequest {
        max_connections: Some(50),
        timeouts_s: [("tcp_established".to_owned(), 3600)].into(),
        tcp_liberal: Some(true),
        zones: vec![five],
        ..Default::default()
    };
    let settings = client.set_connection_settings(request.clone()).await.unwrap().into_inner();
    assert_eq!((settings.max_connections, settings.tcp_liberal), (50, true));
    assert_eq!((settings.timeouts_s["tcp_established"], settings.timeouts_s["udp_first"]), (3600, 60));
    assert_eq!((settings.zones[0].limit, settings.zones[0].timeouts_s["udp_first"]), (Some(2), 10));
    for (fault, message) in [
        (("udp_frist", 5), "there is no timeout `udp_frist`: did you mean `udp_first`?"),
        (("udp_first", 0), "timeout udp_first of all zones is 0"),
        (("tcp_unack", 5), "one of the Linux kernel's tracker"),
    ] {
        let (name, seconds) = fault;
        let timeouts_s = [(name.to_owned(), seconds)].into();
        let bad = SetConnectionSettingsRequest { max_connections: Some(9), timeouts_s, ..Default::default() };
        let error = client.set_connection_settings(bad).await.unwrap_err();
        assert!(error.message().contains(message), "{}", error.message());
    }
    let now = client.get_connection_settings(GetConnectionSettingsRequest {}).await.unwrap().into_inner();
    assert_eq!(now.max_connections, 50, "nothing of what was refused");
    let clear = ZoneChange { zone: 5, clear_limit: true, clear_timeouts: true, ..ZoneChange::default() };
    let request = SetConnectionSettingsRequest { zones: vec![clear], ..Default::default() };
    assert!(client.set_connection_settings(request).await.unwrap().into_inner().zones.is_empty());
}

/// The next event.
async fn next(stream: &mut tonic::Streaming<ConnectionEvent>) -> ConnectionEvent {
    stream.message().await.expect("an event").expect("the stream goes on")
}

#[tokio::test]
async fn a_watcher_is_told_of_the_connections_that_it_asked_for() {
    let switch = with_connections(2).await;
    let mut client = client(&switch).await;
    let request = WatchConnectionsRequest { filter: "tp_src=1001".to_owned() };
    let mut stream = client.watch_connections(request).await.unwrap().into_inner();
    client.flush_connections(FlushConnectionsRequest { all: true, ..Default::default() }).await.unwrap();
    let event = next(&mut stream).await;
    let Some(Kind::Ended(ended)) = event.kind else { panic!("{event:?}") };
    assert_eq!(ended.reason, "flushed");
    let connection = event.connection.unwrap();
    assert_eq!((connection.original.unwrap().src_port, connection.expires_ms), (1001, 0));
}

#[tokio::test]
async fn a_watcher_is_told_when_a_connection_begins_and_is_answered() {
    let switch = with_connections(0).await;
    let mut client = client(&switch).await;
    let mut stream = client.watch_connections(WatchConnectionsRequest::default()).await.unwrap().into_inner();
    assert!(switch.ends[0].inject(&udp(A, B, 1000, 53)));
    eventually(|| switch.ends[1].take()).await;
    assert!(switch.ends[1].inject(&udp(B, A, 53, 1000)));
    eventually(|| switch.ends[0].take()).await;
    let mut told = Vec::new();
    let mut sequences = Vec::new();
    for _ in 0..3 {
        let event = next(&mut stream).await;
        sequences.push(event.sequence);
        told.push(match event.kind {
            Some(Kind::Added(_)) => "new".to_owned(),
            Some(Kind::Replied(_)) => "replied".to_owned(),
            Some(Kind::Marked(marked)) => format!("mark {:#x}", marked.mark),
            other => format!("{other:?}"),
        });
        if told.last().is_some_and(|last| last == "replied") {
            break;
        }
    }
    assert_eq!((told.first().map(String::as_str), told.last().map(String::as_str)), (Some("new"), Some("replied")));
    assert!(sequences.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{sequences:?}");
}

#[tokio::test]
async fn a_trace_translates_as_the_connection_does() {
    let switch = Switch::start();
    let flows = [
        "priority=9,in_port=1,udp actions=ct(commit,zone=5,nat(dst=10.0.0.9:5353),exec(set_field:0x17->ct_mark),table=1)",
        "priority=9,in_port=2,udp actions=ct(zone=5,nat,table=1)",
        "table=1,in_port=1,udp actions=output:2",
        "table=1,in_port=2,ct_state=+est+rpl,ct_mark=0x17,ct_nw_dst=10.0.0.2,udp actions=output:1",
    ];
    switch.add(&flows).await.unwrap();
    assert!(switch.ends[0].inject(&udp(A, B, 1000, 53)));
    eventually(|| switch.ends[1].take()).await;
    let [one] = &list(&switch, "dnat").await[..] else { panic!("one is translated") };
    assert_eq!((one.mark, one.mark_owners.as_slice(), one.owner.as_str()), (0x17, &["user".to_owned()][..], "user"));
    let set = |reply: &TraceReply| {
        let [output] = &reply.outputs[..] else { panic!("{}", reply.walk) };
        output.set.iter().map(|set| format!("{}={}", set.field, set.value)).collect::<Vec<_>>()
    };
    let there = trace(&switch, "in_port=1,udp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=1000,tp_dst=53", &[]).await;
    assert_eq!(set(&there), ["nw_dst=10.0.0.9", "tp_dst=5353"], "{}", there.walk);
    let back = trace(&switch, "in_port=2,udp,nw_src=10.0.0.9,nw_dst=10.0.0.1,tp_src=5353,tp_dst=1000", &[]).await;
    assert_eq!(set(&back), ["nw_src=10.0.0.2", "tp_src=53"], "{}", back.walk);
    assert!(back.walk.contains("ct_state=est|rpl|trk|snat, as the tracker says"), "{}", back.walk);
}

async fn trace(switch: &Switch, flow: &str, ct_next: &[&str]) -> TraceReply {
    let packet = TracePacket { packet: Some(trace_packet::Packet::Flow(flow.to_owned())), in_port: String::new() };
    let request = TraceRequest {
        packets: vec![packet],
        ct_next: ct_next.iter().map(ToString::to_string).collect(),
        ..TraceRequest::default()
    };
    let mut client = TraceServiceClient::new(switch.channel().await);
    client.trace(request).await.expect("a trace").into_inner().message().await.unwrap().expect("a reply")
}

#[tokio::test]
async fn a_trace_asks_the_tracker_unless_it_is_told_what_to_say() {
    let switch = with_connections(1).await;
    let answer = "in_port=2,udp,nw_src=10.0.0.2,nw_dst=10.0.0.1,tp_src=53,tp_dst=1000";
    let known = trace(&switch, answer, &[]).await;
    assert_eq!((known.verdict.as_str(), known.outputs.len()), ("forward", 1), "{}", known.walk);
    assert!(known.walk.contains("ct_state=est|rpl|trk, as the tracker says"), "{}", known.walk);
    let words = "Connection: zone 5, protocol 17, 10.0.0.1:1000 > 10.0.0.2:53, answered as 10.0.0.2:53 > 10.0.0.1:1000";
    assert!(known.walk.contains(words), "{}", known.walk);
    assert_eq!(list(&switch, "unreplied").await.len(), 1, "the tracker was not told of the packet");
    let other_zone = trace(&switch, &answer.replace("in_port=2", "in_port=3"), &[]).await;
    assert!(other_zone.walk.contains("ct_state=new|trk: the tracker knows no such"), "{}", other_zone.walk);
    assert_eq!(other_zone.verdict, "drop");
    let told = trace(&switch, &answer.replace("in_port=2", "in_port=3"), &["trk,est"]).await;
    assert_eq!(told.verdict, "forward", "{}", told.walk);
}
