//! A learning switch: ping, datagrams, streams, broadcasts.

use crate::STREAM;
use sluice_flows::bridge::VlanMode;
use sluice_switch::FailMode;
use sluice_tests::host::{Host, Kind, LINK};
use sluice_tests::lan::Lan;
use sluice_tests::netns::skipped;
use sluice_tests::traffic::{
    a_batch_of_datagrams, a_closed_port_is_told, count_until, datagrams, ping, ping_until_answered, stream,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::thread;

/// Room for the headers of UDP and ICMP, after those of IPv4 and IPv6.
const V4_HEADERS: usize = 28;
const V6_HEADERS: usize = 48;

fn everything_crosses(test: &str, kind: Kind, mtu: usize) {
    if skipped(test) {
        return;
    }
    let lan = Lan::learning(&[kind; 3], mtu as u32);
    let [a, b, c] = [1, 2, 3].map(|n| lan.host(n));
    for (from, to) in [(a, b), (b, a), (a, c), (c, b)] {
        ping_until_answered(from, to.v4);
        ping_until_answered(from, to.v6);
        for len in [0, 56, mtu - V4_HEADERS, 3 * mtu] {
            ping(from, to.v4, len);
        }
        for len in [0, 56, mtu - V6_HEADERS, 3 * mtu] {
            ping(from, to.v6, len);
        }
    }
    a_closed_port_is_told(a, b.v4);
    a_closed_port_is_told(b, c.v6);
    // In one packet up to the MTU, then in fragments.
    let lengths = |headers| {
        let whole = mtu - headers;
        let fitting = (0..64).chain((64..whole).step_by(whole / 40)).chain([whole - 1, whole]);
        fitting.chain([whole + 1, 2 * mtu, 20_000, 60_000])
    };
    datagrams(a, b, b.v4, lengths(V4_HEADERS));
    datagrams(b, c, c.v6, lengths(V6_HEADERS));
    a_batch_of_datagrams(a, c);
    stream(a, b, b.v4, STREAM);
    stream(b, c, c.v6, STREAM);
    for n in 1..=3 {
        assert_eq!(lan.seen(n).super_frames() > 0, kind.offloads(), "{:?}", lan.seen(n));
    }
    lan.check_accounts(&[]);
}

#[test]
fn taps_carry_everything() {
    everything_crosses("taps_carry_everything", Kind::Tap, 1500);
}

#[test]
fn plain_taps_carry_everything() {
    everything_crosses("plain_taps_carry_everything", Kind::TapPlain, 1500);
}

#[test]
fn packet_sockets_carry_everything() {
    everything_crosses("packet_sockets_carry_everything", Kind::AfPacket, 1500);
}

#[test]
fn taps_carry_jumbo_frames() {
    everything_crosses("taps_carry_jumbo_frames", Kind::Tap, 9000);
}

#[test]
fn plain_taps_carry_jumbo_frames() {
    everything_crosses("plain_taps_carry_jumbo_frames", Kind::TapPlain, 9000);
}

#[test]
fn packet_sockets_carry_jumbo_frames() {
    everything_crosses("packet_sockets_carry_jumbo_frames", Kind::AfPacket, 9000);
}

#[test]
fn hosts_behind_different_kinds_reach_each_other() {
    if skipped("hosts_behind_different_kinds_reach_each_other") {
        return;
    }
    let lan = Lan::learning(&Kind::ALL, 1500);
    for (from, to) in [(1, 2), (2, 3), (3, 1)].map(|(a, b)| (lan.host(a), lan.host(b))) {
        datagrams(from, to, to.v4, [0, 1400, 20_000]);
        stream(from, to, to.v4, STREAM);
        stream(to, from, from.v6, STREAM);
    }
    lan.check_accounts(&[]);
}

#[test]
fn two_workers_carry_several_streams_at_once() {
    if skipped("two_workers_carry_several_streams_at_once") {
        return;
    }
    for kind in Kind::ALL {
        let mut lan = Lan::new(&["br0"], FailMode::Standalone, 2);
        for n in 1..=2 {
            lan.add_host("br0", n, kind, 1500, VlanMode::default());
        }
        let (a, b) = (lan.host(1), lan.host(2));
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| stream(a, b, b.v4, STREAM / 2));
                scope.spawn(|| stream(b, a, a.v6, STREAM / 2));
            }
        });
        lan.check_accounts(&[]);
    }
}

#[test]
fn a_broadcast_reaches_every_host_once() {
    if skipped("a_broadcast_reaches_every_host_once") {
        return;
    }
    for kind in Kind::ALL {
        let lan = Lan::learning(&[kind; 3], 1500);
        let others = [lan.host(2), lan.host(3)];
        let every_v4 = SocketAddr::from((Ipv4Addr::new(10, 99, 0, 255), 7000));
        let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let every_v6 = SocketAddr::V6(SocketAddrV6::new(all_nodes, 7000, 0, index(lan.host(1))));
        once(lan.host(1), &others, every_v4, Ipv4Addr::UNSPECIFIED.into());
        once(lan.host(1), &others, every_v6, Ipv6Addr::UNSPECIFIED.into());
        lan.check_accounts(&[]);
    }
}

fn index(host: &Host) -> u32 {
    let link = host.netns.run(|| sluice_switch::port::link::Link::open(LINK)).unwrap();
    link.index().unsigned_abs()
}

/// A datagram to `every` comes to each of `others`, once: not before a datagram to it alone that was sent later, and not
/// after it a second time.
fn once(from: &Host, others: &[&Host], every: SocketAddr, any: IpAddr) {
    let receivers: Vec<_> = others.iter().map(|host| host.udp_at((any, 7000).into())).collect();
    let sender = from.udp(any);
    sender.set_broadcast(true).unwrap();
    for host in others {
        ping_until_answered(from, host.address_like(any));
    }
    sender.send_to(b"everyone", every).unwrap();
    for (host, receiver) in others.iter().zip(receivers) {
        sender.send_to(b"you", (host.address_like(any), 7000)).unwrap();
        assert_eq!(count_until(&receiver, b"you", 1), 1);
    }
}
