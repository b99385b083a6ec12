//! Flows that rewrite what crosses, super-frames with partial checksums too.

use crate::{PAIRS, STREAM};
use sluice_flows::DropReason;
use sluice_flows::bridge::VlanMode;
use sluice_switch::FailMode;
use sluice_tests::host::{Host, Kind, LINK};
use sluice_tests::lan::Lan;
use sluice_tests::netns::skipped;
use sluice_tests::switch::wait_until;
use sluice_tests::traffic::{datagrams, ping, ping_until_answered, stream, stream_to};
use std::fmt::Write as _;
use std::net::IpAddr;

/// Where the client connects to, and where that leads.
const SERVICE: u16 = 80;
const SERVER: u16 = 8080;
const SERVICE_V4: &str = "10.99.0.100";
const SERVICE_V6: &str = "fd99::100";
/// The router's hardware address.
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];

fn text(mac: [u8; 6]) -> String {
    let mut text = String::new();
    for byte in mac {
        write!(text, ":{byte:02x}").unwrap();
    }
    text.split_off(1)
}

/// A bridge without flows, hosts 1 and 2 behind these kinds.
fn two_hosts(kinds: [Kind; 2]) -> Lan {
    let mut lan = Lan::new(&["br0"], FailMode::Secure, 1);
    for (n, kind) in (1..).zip(kinds) {
        lan.add_host("br0", n, kind, 1500, VlanMode::default());
    }
    lan
}

/// The hosts gave super-frames with partial checksums if they could.
fn gave_super_frames(lan: &Lan, kinds: [Kind; 2]) {
    for (n, kind) in (1..).zip(kinds) {
        assert_eq!(lan.seen(n).super_frames() > 0, kind.offloads(), "host {n} of {kinds:?}: {:?}", lan.seen(n));
    }
}

/// The client's `service` is the server's own address and another port, both ways.
fn a_stream_survives_nat(kinds: [Kind; 2], service: &str, [ip, src, dst]: [&str; 3], of: fn(&Host) -> IpAddr) {
    let lan = two_hosts(kinds);
    let (client, server) = (lan.host(1), lan.host(2));
    let own = of(server);
    let there = format!(
        "priority=2,{ip},in_port=1,{dst}={service},tp_dst={SERVICE} \
         actions=set_field:{own}->{dst},set_field:{SERVER}->tcp_dst,output:2"
    );
    let back = format!(
        "priority=2,{ip},in_port=2,{src}={own},tp_src={SERVER} \
         actions=set_field:{service}->{src},set_field:{SERVICE}->tcp_src,output:1"
    );
    lan.add_flows("br0", &[&there, &back, "priority=1,arp actions=normal", "priority=1,icmp6 actions=normal"]);
    let address: IpAddr = service.parse().unwrap();
    client.netns.add_neighbour(LINK, address, server.mac).unwrap();
    stream_to(client, (address, SERVICE).into(), server.listen(own, SERVER), STREAM);
    gave_super_frames(&lan, kinds);
    lan.check_accounts(&[DropReason::NoRule]);
}

#[test]
fn a_stream_survives_rewritten_ipv4_addresses_and_ports() {
    if skipped("a_stream_survives_rewritten_ipv4_addresses_and_ports") {
        return;
    }
    for kinds in PAIRS {
        a_stream_survives_nat(kinds, SERVICE_V4, ["tcp", "ip_src", "ip_dst"], |host| host.v4);
    }
}

#[test]
fn a_stream_survives_rewritten_ipv6_addresses_and_ports() {
    if skipped("a_stream_survives_rewritten_ipv6_addresses_and_ports") {
        return;
    }
    for kinds in PAIRS {
        a_stream_survives_nat(kinds, SERVICE_V6, ["tcp6", "ipv6_src", "ipv6_dst"], |host| host.v6);
    }
}

#[test]
fn a_router_of_flows_carries_everything() {
    if skipped("a_router_of_flows_carries_everything") {
        return;
    }
    for kinds in PAIRS {
        let lan = two_hosts(kinds);
        let (a, b) = (lan.host(1), lan.host(2));
        let router = text(ROUTER);
        for (port, to) in [(1, a), (2, b)] {
            let mac = text(to.mac);
            let route = |matches: String| {
                format!(
                    "{matches},dl_dst={router} actions=dec_ttl,set_field:{router}->eth_src,set_field:{mac}->eth_dst,\
                     output:{port}"
                )
            };
            let (v4, v6) = (to.v4, to.v6);
            lan.add_flows("br0", &[&route(format!("ip,nw_dst={v4}")), &route(format!("ipv6,ipv6_dst={v6}"))]);
        }
        for (host, far) in [(a, b), (b, a)] {
            host.netns.add_neighbour(LINK, far.v4, ROUTER).unwrap();
            host.netns.add_neighbour(LINK, far.v6, ROUTER).unwrap();
        }
        for (host, far) in [(a, b), (b, a)] {
            routed(host, far);
        }
        datagrams(a, b, b.v4, [0, 1472, 1473, 20_000]);
        datagrams(b, a, a.v6, [0, 1452, 1453, 20_000]);
        stream(a, b, b.v4, STREAM);
        stream(b, a, a.v6, STREAM);
        gave_super_frames(&lan, kinds);
        expires(&lan);
        lan.check_accounts(&[DropReason::NoRule, DropReason::TtlExpired]);
    }
}

/// What comes to the far host is from the router, and has one hop less to go.
fn routed(from: &Host, to: &Host) {
    for (address, eth_type, ttl_at) in [(to.v4, [0x08, 0x00], 22), (to.v6, [0x86, 0xdd], 21)] {
        ping_until_answered(from, address);
        let mut capture = to.capture();
        ping(from, address, 56);
        let frames = capture.take();
        let ours: Vec<_> =
            frames.iter().map(|f| f.bytes()).filter(|b| b[12..14] == eth_type && b[..6] == to.mac).collect();
        assert!(!ours.is_empty(), "the capture saw the ping");
        for bytes in ours {
            assert_eq!((&bytes[6..12], bytes[ttl_at]), (&ROUTER[..], 63));
        }
    }
}

/// A packet at its last hop goes no further.
fn expires(lan: &Lan) {
    let (a, b) = (lan.host(1), lan.host(2));
    let sender = a.udp(b.v4);
    sender.set_ttl(1).unwrap();
    sender.send_to(b"the last hop", (b.v4, 7000)).unwrap();
    wait_until("the packet is dropped", || lan.dropped(DropReason::TtlExpired) == 1);
}

/// Tags what host 1 of `br0` sends with VLAN 10, and takes the tag off before host 2 of `br1`; and back.
fn add_tagging_flows(lan: &Lan) {
    let flows = |own: u8| {
        [
            format!("in_port={own} actions=push_vlan:0x8100,set_field:4106->vlan_vid,output:9"),
            format!("in_port=9,dl_vlan=10 actions=pop_vlan,output:{own}"),
        ]
    };
    for (bridge, own) in [("br0", 1), ("br1", 2)] {
        lan.add_flows(bridge, &flows(own).each_ref().map(String::as_str));
    }
}

fn everything_crosses(lan: &Lan, kinds: [Kind; 2]) {
    let (a, b) = (lan.host(1), lan.host(2));
    ping_until_answered(a, b.v4);
    ping_until_answered(b, a.v6);
    // The tag does not count against the MTU.
    datagrams(a, b, b.v4, [0, 1472, 1473, 20_000]);
    datagrams(b, a, a.v6, [0, 1452, 1453, 20_000]);
    stream(a, b, b.v4, STREAM);
    stream(b, a, a.v6, STREAM);
    gave_super_frames(lan, kinds);
}

#[test]
fn a_tag_pushed_on_one_bridge_is_popped_on_the_next_over_a_wire() {
    if skipped("a_tag_pushed_on_one_bridge_is_popped_on_the_next_over_a_wire") {
        return;
    }
    for kinds in PAIRS {
        let mut lan = Lan::new(&["br0", "br1"], FailMode::Secure, 1);
        lan.wire("br0", "br1", 9);
        for (n, (bridge, kind)) in (1..).zip(["br0", "br1"].into_iter().zip(kinds)) {
            lan.add_host(bridge, n, kind, 1500, VlanMode::default());
        }
        add_tagging_flows(&lan);
        everything_crosses(&lan, kinds);
        lan.check_accounts(&[DropReason::NoRule]);
    }
}

#[test]
fn a_tag_pushed_on_one_bridge_is_popped_on_the_next_over_a_patch() {
    if skipped("a_tag_pushed_on_one_bridge_is_popped_on_the_next_over_a_patch") {
        return;
    }
    for kinds in PAIRS {
        let mut lan = Lan::new(&["br0", "br1"], FailMode::Secure, 1);
        for (n, (bridge, kind)) in (1..).zip(["br0", "br1"].into_iter().zip(kinds)) {
            lan.add_host(bridge, n, kind, 1500, VlanMode::default());
        }
        lan.patch("br0", "br1", 9);
        add_tagging_flows(&lan);
        everything_crosses(&lan, kinds);
        lan.check_accounts(&[DropReason::NoRule]);
    }
}
