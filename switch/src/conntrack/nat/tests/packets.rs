//! Packets through a tracker that translates. Where an expectation is not plain, it is what Open vSwitch 3.1 sent.

use crate::conntrack::testing::{Ends, Tcp, V4, V6, commit, look, pass, words};
use crate::conntrack::tuple::icmp_answer;
use crate::conntrack::{Repeat, Tracked, Tracker};
use proptest::prelude::*;
use sluice_flows::DropReason;
use sluice_flows::action::{Nat, NatDirection};
use sluice_flows::datapath::DpCt;
use sluice_flows::packet::Frame;
use sluice_flows::rule::Millis;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Commits with a translation to one address.
fn to(zone: u16, side: NatDirection, address: IpAddr, ports: Option<(u16, u16)>) -> DpCt {
    let nat = Nat { direction: Some(side), addresses: Some((address, address)), ports, ..Nat::default() };
    DpCt { nat: Some(nat), ..commit(zone) }
}

/// Translates what is known.
fn apply(zone: u16) -> DpCt {
    DpCt { nat: Some(Nat::default()), ..look(zone) }
}

/// Puts a frame through one zone after the other: the frame as it is then, and what the last zone said.
fn through(tracker: &Tracker, mut frame: Frame, asks: &[DpCt]) -> (Vec<u8>, String) {
    let mut tracked = Tracked::default();
    for ask in asks {
        pass(tracker, &mut frame, ask, &mut tracked, Millis(0)).unwrap();
    }
    (frame.bytes().to_vec(), words(tracked.state))
}

/// An ICMP or ICMPv6 error from `router` to the source of a packet between `sent`, which it quotes up to `len` bytes.
fn error(router: IpAddr, sent: Ends, kind: u8, packet: &[u8], len: usize) -> Frame {
    let quoted = &packet[..packet.len().min(len)];
    Ends { src: router, dst: sent.src, ..sent }.icmp(kind, 0, [0; 4], quoted)
}

/// The kind of an error: time exceeded.
fn time_exceeded(ends: &Ends) -> u8 {
    if ends.src.is_ipv4() { 11 } else { 3 }
}

#[test]
fn a_hairpin_through_two_zones_comes_back_to_where_it_began() {
    // A client reaches itself by the address of a service: its destination becomes the client in one zone, its source
    // the service in another, so that the answer does not stay at the client.
    let tracker = Tracker::default();
    let (client, service) = (ip("10.0.0.1"), ip("10.96.0.1"));
    let sent = Ends { src: client, dst: service, src_port: 40_000, dst_port: 80 };
    let asks =
        [to(1, NatDirection::Dst, client, Some((8080, 8080))), to(2, NatDirection::Src, ip("169.254.0.1"), None)];
    let arrives = Ends { src: ip("169.254.0.1"), dst: client, src_port: 40_000, dst_port: 8080 };
    let (bytes, state) = through(&tracker, sent.udp(9), &asks);
    assert_eq!((&bytes[..], state.as_str()), (arrives.udp(9).bytes(), "new snat"));
    // The answer passes the zones the other way round.
    let back = [apply(2), apply(1)];
    let (bytes, state) = through(&tracker, arrives.back().udp(5), &back);
    assert_eq!((&bytes[..], state.as_str()), (sent.back().udp(5).bytes(), "est rpl snat"));
    let (bytes, state) = through(&tracker, sent.udp(3), &[apply(1), apply(2)]);
    assert_eq!((&bytes[..], state.as_str()), (arrives.udp(3).bytes(), "est snat"));
    // An error about the packet as it arrived quotes it as it was sent.
    let about = arrives.packet(17, &arrives.udp_message(9));
    let (bytes, state) = through(&tracker, error(client, arrives, 3, &about, 28), &back);
    let wanted = error(service, sent, 3, &sent.packet(17, &sent.udp_message(9)), 28);
    assert_eq!((&bytes[..], state.as_str()), (wanted.bytes(), "rel rpl snat"));
}

#[test]
fn both_sides_are_translated_by_two_zones_but_not_by_one() {
    let tracker = Tracker::default();
    let (inside, outside) = (ip("10.0.0.77"), ip("192.0.2.9"));
    let dnat = to(1, NatDirection::Dst, inside, None);
    let (_, state) = through(&tracker, V4.udp(4), &[dnat.clone(), to(1, NatDirection::Src, outside, None)]);
    assert_eq!(state, "new dnat", "the connection is there already, with its translation");
    let tracker = Tracker::default();
    let (bytes, state) = through(&tracker, V4.udp(4), &[dnat, to(2, NatDirection::Src, outside, None)]);
    let sent = Ends { src: outside, dst: inside, ..V4 };
    assert_eq!((&bytes[..], state.as_str()), (sent.udp(4).bytes(), "new snat"));
    let (bytes, _) = through(&tracker, sent.back().udp(4), &[apply(2), apply(1)]);
    assert_eq!(bytes, V4.back().udp(4).bytes());
}

#[test]
fn nat_without_a_side_translates_nothing_new() {
    let tracker = Tracker::default();
    let ask = DpCt { nat: Some(Nat::default()), ..commit(5) };
    assert_eq!(through(&tracker, V4.udp(4), &[ask]), (V4.udp(4).bytes().to_vec(), "new".to_owned()));
    // Open vSwitch 3.1 does not know the answer again: it looks for one from address 0.0.0.0.
    let answer = V4.back().udp(4);
    assert_eq!(through(&tracker, V4.back().udp(4), &[apply(5)]), (answer.bytes().to_vec(), "est rpl".to_owned()));
}

#[test]
fn errors_hide_who_sent_them_on_the_side_that_is_translated() {
    let router = ip("172.16.0.1");
    // Source translation. An error about a packet that went out keeps its source; its destination is the client.
    let tracker = Tracker::default();
    let out = Ends { src: ip("192.0.2.1"), src_port: 5000, ..V4 };
    through(&tracker, V4.udp(30), &[to(5, NatDirection::Src, out.src, Some((5000, 5000)))]);
    let got = through(&tracker, error(router, out, 11, &out.packet(17, &out.udp_message(30)), 28), &[apply(5)]);
    let wanted = error(router, V4, 11, &V4.packet(17, &V4.udp_message(30)), 28);
    assert_eq!(got, (wanted.bytes().to_vec(), "rel rpl dnat".to_owned()));
    // One from inside, about a packet that came in, seems to come from the translated address, whoever sent it.
    let (seen, came) = (V4.back(), out.back());
    let got = through(&tracker, error(router, seen, 3, &seen.packet(17, &seen.udp_message(8)), 28), &[apply(5)]);
    let wanted = error(out.src, came, 3, &came.packet(17, &came.udp_message(8)), 28);
    assert_eq!(got, (wanted.bytes().to_vec(), "rel snat".to_owned()));
    // Destination translation: an error from behind it seems to come from the address that was asked.
    let tracker = Tracker::default();
    let arrives = Ends { dst: ip("10.9.9.9"), dst_port: 8080, ..V4 };
    through(&tracker, V4.udp(30), &[to(5, NatDirection::Dst, arrives.dst, Some((8080, 8080)))]);
    let about = arrives.packet(17, &arrives.udp_message(30));
    let got = through(&tracker, error(router, arrives, 11, &about, 28), &[apply(5)]);
    let wanted = error(V4.dst, V4, 11, &V4.packet(17, &V4.udp_message(30)), 28);
    assert_eq!(got, (wanted.bytes().to_vec(), "rel rpl snat".to_owned()));
}

#[test]
fn pings_of_two_hosts_with_one_identifier_share_an_address() {
    for (ends, outside) in [(V4, "192.0.2.1"), (V6, "2001:db8:9::1")] {
        let (tracker, outside) = (Tracker::default(), ip(outside));
        let snat = to(5, NatDirection::Src, outside, None);
        let other = Ends { src: if ends.src.is_ipv4() { ip("10.0.0.3") } else { ip("2001:db8::3") }, ..ends };
        for (host, n) in [(ends, 0), (other, 1)] {
            let (bytes, _) = through(&tracker, host.echo(false, 777), std::slice::from_ref(&snat));
            let at = if ends.src.is_ipv4() { 38 } else { 58 };
            let id = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            assert_eq!(id == 777, n == 0);
            let out = Ends { src: outside, ..ends };
            assert_eq!(bytes, out.echo(false, id).bytes());
            let (bytes, state) = through(&tracker, out.back().echo(true, id), &[apply(5)]);
            assert_eq!((&bytes[..], state.as_str()), (host.back().echo(true, 777).bytes(), "est rpl dnat"));
        }
    }
}

#[test]
fn what_comes_for_a_port_that_nobody_was_given_stays_as_it_is() {
    let tracker = Tracker::default();
    let out = Ends { src: ip("192.0.2.1"), src_port: 5000, ..V4 };
    through(&tracker, V4.udp(30), &[to(5, NatDirection::Src, out.src, Some((5000, 5000)))]);
    for stranger in [Ends { dst_port: 5001, ..out.back() }, Ends { src: ip("10.0.0.9"), ..out.back() }] {
        let sent = stranger.udp(3).bytes().to_vec();
        assert_eq!(through(&tracker, stranger.udp(3), &[apply(5)]), (sent, "new".to_owned()));
    }
    // The zone next door knows nothing of it.
    let answer = out.back().udp(3).bytes().to_vec();
    assert_eq!(through(&tracker, out.back().udp(3), &[apply(6)]), (answer, "new".to_owned()));
}

#[test]
fn a_plain_connection_whose_answers_are_those_of_a_translated_one_is_refused_and_counted() {
    let tracker = Tracker::default();
    let outside = Ends { src: ip("192.0.2.1"), ..V4 };
    through(&tracker, V4.udp(4), &[to(5, NatDirection::Src, outside.src, None)]);
    let refused = pass(&tracker, &mut outside.udp(4), &commit(5), &mut Tracked::default(), Millis(0));
    assert_eq!(refused.unwrap_err(), DropReason::CtFull);
    assert_eq!((tracker.collided.load(Ordering::Relaxed), tracker.chooser.exhausted()), (1, 0));
    let (_, state) = through(&tracker, outside.udp(4), &[commit(6)]);
    assert_eq!(state, "new", "another zone has other connections");
}

#[test]
fn a_flood_of_connections_against_one_port_costs_the_others_nothing() {
    let tracker = Tracker::default();
    let full = to(5, NatDirection::Src, ip("192.0.2.1"), Some((5000, 5000)));
    let roomy = to(5, NatDirection::Src, ip("192.0.2.2"), Some((1000, 60_000)));
    through(&tracker, V4.udp(4), std::slice::from_ref(&full));
    for n in 0..500u16 {
        let ends = Ends { src_port: 2000 + n, ..V4 };
        let refused = pass(&tracker, &mut ends.udp(4), &full, &mut Tracked::default(), Millis(0));
        assert_eq!(refused.unwrap_err(), DropReason::CtFull);
        let (_, state) = through(&tracker, ends.udp(4), std::slice::from_ref(&roomy));
        assert_eq!(state, "new snat");
    }
    assert_eq!(tracker.chooser.exhausted(), 500);
}

/// A protocol to send by, its frames and messages.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Tcp,
    Udp,
    Sctp,
    Echo,
    /// Protocol 47, without ports.
    Gre,
}

impl Kind {
    fn proto(self, v6: bool) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
            Self::Echo if v6 => 58,
            Self::Echo => 1,
            Self::Gre => 47,
        }
    }

    /// A message, without its checksum; `first` says that it begins a connection, `back` that it answers.
    fn message(self, ends: &Ends, (first, back): (bool, bool), len: usize) -> Vec<u8> {
        let v6 = ends.src.is_ipv6();
        match self {
            Self::Tcp if first => ends.tcp_message(&Tcp { len, ..Tcp::new(2, 100, 0) }),
            Self::Tcp => ends.tcp_message(&Tcp { len, ..Tcp::new(0x12, 500, 101) }),
            Self::Udp => ends.udp_message(len),
            Self::Sctp => {
                let chunk: &[u8] = if first { &[1, 0, 0, 20] } else { &[2, 0, 0, 20] };
                let tag: u32 = if first { 0 } else { 9 };
                let ports = [ends.src_port.to_be_bytes(), ends.dst_port.to_be_bytes()].concat();
                let value = [0, 0, 0, 9, 0, 0, 16, 0, 0, 1, 0, 1, 0, 0, 0, 1];
                [&ports[..], &tag.to_be_bytes(), &[0; 4], chunk, &value].concat()
            }
            Self::Echo => {
                let ask = if v6 { 128 } else { 8 };
                let kind = if back { icmp_answer(self.proto(v6), ask).unwrap() } else { ask };
                // The identifier is at the end that asks.
                let id = if back { ends.dst_port } else { ends.src_port };
                [&[kind, 0, 0, 0][..], &id.to_be_bytes(), &[0, 1], &vec![b'e'; len]].concat()
            }
            Self::Gre => vec![0x55; 4 + len],
        }
    }

    /// The ends that a packet of this kind can show.
    fn shown(self, ends: Ends) -> Ends {
        match self {
            Self::Gre => Ends { src_port: 0, dst_port: 0, ..ends },
            Self::Echo => Ends { dst_port: 0, ..ends },
            _ => ends,
        }
    }
}

fn some_kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(vec![Kind::Tcp, Kind::Udp, Kind::Sctp, Kind::Echo, Kind::Gre])
}

fn some_ends() -> impl Strategy<Value = (Ends, IpAddr)> {
    (any::<bool>(), any::<[u32; 3]>(), any::<[u16; 2]>()).prop_map(|(v6, bits, ports)| {
        let address = |bits: u32| match v6 {
            true => IpAddr::from(Ipv6Addr::from_bits(0x2001_0db8_u128 << 96 | u128::from(bits))),
            false => Ipv4Addr::from_bits(bits).into(),
        };
        let [src_port, dst_port] = ports.map(|port| port.max(1));
        (Ends { src: address(bits[0]), dst: address(bits[1]), src_port, dst_port }, address(bits[2]))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn answers_and_errors_come_back_as_if_nothing_had_been_translated(
        kind in some_kind(), (ends, address) in some_ends(), source: bool, ports in prop::option::of((1u16.., 0u16..9)),
        len in 0usize..40, quoted_len in 28usize..100
    ) {
        prop_assume!(ends.src != ends.dst);
        let ends = kind.shown(ends);
        let v6 = ends.src.is_ipv6();
        let proto = kind.proto(v6);
        let tracker = Tracker::default();
        let side = if source { NatDirection::Src } else { NatDirection::Dst };
        let ports = ports.map(|(low, more)| (low, low.saturating_add(more)));
        let packet = |ends: &Ends, how| ends.packet(proto, &kind.message(ends, how, len));
        let frame = |ends: &Ends, how| ends.frame(proto, &kind.message(ends, how, len));
        let frame_bytes = |ends: &Ends, how| frame(ends, how).bytes().to_vec();
        let (bytes, state) =
            through(&tracker, frame(&ends, (true, false)), &[to(5, side, address, ports)]);
        prop_assert_eq!(state, if source { "new snat" } else { "new dnat" });
        // What it became is read off the frame, and then has to be the whole difference.
        let out = became(&bytes, &ends, kind);
        prop_assert_eq!(if source { out.src } else { out.dst }, address);
        prop_assert_eq!(bytes, frame_bytes(&out, (true, false)));
        let (bytes, state) = through(&tracker, frame(&out.back(), (false, true)), &[apply(5)]);
        prop_assert_eq!(bytes, frame_bytes(&ends.back(), (false, true)));
        prop_assert_eq!(state, if source { "est rpl dnat" } else { "est rpl snat" });
        // An error from behind the translation.
        let router = if v6 { ip("2001:db8:f::f") } else { ip("203.0.113.99") };
        // ICMPv6 errors quote a whole transport header, or they are invalid.
        let quoted_len = if v6 { quoted_len + 32 } else { quoted_len };
        let about = packet(&out, (true, false));
        prop_assume!(whole_checksum(kind, about.len(), quoted_len - if v6 { 40 } else { 20 }, v6));
        let sent = error(router, out, time_exceeded(&ends), &about, quoted_len);
        let (bytes, state) = through(&tracker, sent, &[apply(5)]);
        let from = if source { router } else { ends.dst };
        let wanted = error(from, ends, time_exceeded(&ends), &packet(&ends, (true, false)), quoted_len);
        prop_assert_eq!(&bytes[..], wanted.bytes());
        prop_assert_eq!(state, if source { "rel rpl dnat" } else { "rel rpl snat" });
    }
}

/// Whether the quoted part has all of the transport checksum, or nothing of it; of a CRC, all that it covers.
fn whole_checksum(kind: Kind, packet_len: usize, quoted: usize, v6: bool) -> bool {
    match kind {
        Kind::Tcp => quoted != 17,
        Kind::Sctp => quoted <= 8 || quoted + if v6 { 40 } else { 20 } >= packet_len,
        _ => true,
    }
}

/// The ends that a frame shows which has become of one between `ends`.
fn became(bytes: &[u8], ends: &Ends, kind: Kind) -> Ends {
    let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let (src, dst, l4): (IpAddr, IpAddr, usize) = match ends.src {
        IpAddr::V4(_) => (
            bytes[26..].first_chunk::<4>().copied().unwrap().into(),
            bytes[30..].first_chunk::<4>().copied().unwrap().into(),
            34,
        ),
        IpAddr::V6(_) => (
            bytes[22..].first_chunk::<16>().copied().unwrap().into(),
            bytes[38..].first_chunk::<16>().copied().unwrap().into(),
            54,
        ),
    };
    let ends = Ends { src, dst, ..*ends };
    match kind {
        Kind::Gre => ends,
        Kind::Echo => Ends { src_port: number(l4 + 4), ..ends },
        _ => Ends { src_port: number(l4), dst_port: number(l4 + 2), ..ends },
    }
}

#[test]
fn packets_of_a_translated_connection_are_answered_by_caches() {
    let tracker = Tracker::default();
    let out = Ends { src: ip("192.0.2.1"), src_port: 5000, ..V4 };
    through(&tracker, V4.udp(30), &[to(5, NatDirection::Src, out.src, Some((5000, 5000)))]);
    through(&tracker, out.back().udp(3), &[apply(5)]);
    for ends in [V4, out.back()] {
        let repeat = pass(&tracker, &mut ends.udp(3), &apply(5), &mut Tracked::default(), Millis(0));
        assert!(matches!(repeat, Ok(Repeat::Guarded(_))));
    }
}
