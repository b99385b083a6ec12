use super::super::Tracker;
use super::super::tcp::{ACK, FIN, RST, SYN};
use super::super::testing::{Ends, Tcp, V4, V6, commit, look, said};
use super::*;
use proptest::prelude::*;
use sluice_flows::datapath::DpCt;
use sluice_flows::packet::Frame;

fn tcp(ends: Ends, flags: u8, seq: u32, ack: u32, len: usize) -> Frame {
    ends.tcp(&Tcp { len, ..Tcp::new(flags, seq, ack) })
}

/// A tracker with what is kept of another, by way of JSON.
fn restarted(tracker: &Tracker) -> Tracker {
    let again = Tracker::default();
    tracker.table.for_each(Millis(0), |conn| {
        if let Some(kept) = KeptConn::of(&conn) {
            let text = serde_json::to_string(&kept).unwrap();
            assert!(again.table.resume(&serde_json::from_str(&text).unwrap(), Millis(0)), "{text}");
        }
        true
    });
    again
}

fn establish(tracker: &Tracker, ends: Ends) {
    let back = ends.back();
    for (frame, expected) in [
        (tcp(ends, SYN, 100, 0, 0), "new"),
        (tcp(back, SYN | ACK, 500, 101, 0), "est rpl"),
        (tcp(ends, ACK, 101, 501, 0), "est"),
    ] {
        assert_eq!(said(tracker, frame, &commit(5)), expected);
    }
}

#[test]
fn a_connection_goes_on_wherever_its_numbers_have_got_and_whoever_speaks_first() {
    for ends in [V4, V6] {
        let tracker = Tracker::default();
        establish(&tracker, ends);
        for answers_first in [false, true] {
            let again = restarted(&tracker);
            // Both are far beyond what was seen before.
            let forth = (tcp(ends, ACK, 2_000_000, 9_000_000, 10), "est");
            let back = (tcp(ends.back(), ACK, 9_000_000, 2_000_010, 500), "est rpl");
            let steps = if answers_first { [back, forth] } else { [forth, back] };
            for (frame, expected) in steps {
                assert_eq!(said(&again, frame, &look(5)), expected, "answers first: {answers_first}");
            }
            // From then on they are judged.
            assert_eq!(said(&again, tcp(ends, ACK, 2_000_010, 9_000_500, 10), &look(5)), "est");
            assert_eq!(said(&again, tcp(ends, ACK, 700_000_000, 9_000_500, 10), &look(5)), "inv");
        }
    }
}

#[test]
fn an_end_may_close_or_reset_it_first_but_not_begin_anew() {
    let tracker = Tracker::default();
    establish(&tracker, V4);
    let again = restarted(&tracker);
    assert_eq!(said(&again, tcp(V4, SYN, 7, 0, 0), &look(5)), "inv");
    assert_eq!(said(&again, tcp(V4, FIN | ACK, 5000, 6000, 0), &look(5)), "est");
    assert_eq!(said(&again, tcp(V4.back(), FIN | ACK, 6000, 5001, 0), &look(5)), "est rpl");
    assert_eq!(said(&again, tcp(V4, ACK, 5001, 6001, 0), &look(5)), "est");
    let again = restarted(&tracker);
    assert_eq!(said(&again, tcp(V4.back(), RST, 6000, 0, 0), &look(5)), "est rpl");
    assert_eq!(said(&again, tcp(V4, SYN, 7, 0, 0), &commit(5)), "new", "it is over, and another may begin");
}

#[test]
fn its_answers_are_translated_and_its_mark_is_there() {
    let tracker = Tracker::default();
    let server = Ends { src: "10.0.0.9".parse().unwrap(), src_port: 8080, ..V4.back() };
    let nat = sluice_flows::action::Nat {
        direction: Some(NatDirection::Dst),
        addresses: Some((server.src, server.src)),
        ports: Some((8080, 8080)),
        ..Default::default()
    };
    let ask = DpCt { mark: Some((7, u32::MAX)), nat: Some(nat), ..commit(5) };
    said(&tracker, V4.udp(4), &ask);
    let again = restarted(&tracker);
    let apply = DpCt { nat: Some(sluice_flows::action::Nat::default()), ..look(5) };
    assert_eq!(said(&again, server.udp(4), &apply), said(&tracker, server.udp(4), &apply));
    assert!(said(&again, server.udp(4), &apply).contains("rpl"));
    let mut found = Vec::new();
    again.table.for_each(Millis(0), |conn| {
        found.push((conn.nat, conn.marks().mark, conn.reply.src(), conn.reply.src_port));
        true
    });
    assert_eq!(found, [(Some(NatDirection::Dst), 7, server.src, 8080)]);
}

#[test]
fn what_is_over_or_half_open_is_not_kept() {
    let tracker = Tracker::default();
    said(&tracker, tcp(V4, SYN, 100, 0, 0), &commit(5));
    establish(&tracker, V6);
    said(&tracker, tcp(V6, RST, 101, 0, 0), &commit(5));
    assert_eq!(tracker.table.len(), 2);
    assert_eq!(restarted(&tracker).table.len(), 0);
}

/// An end of a connection that goes on, as it is kept.
fn end(states: std::ops::RangeInclusive<u8>) -> impl Strategy<Value = (u8, u8, u32)> {
    let scale = prop_oneof![Just(0), Just(0x40), (0..=14_u8).prop_map(|scale| 0x80 | scale)];
    (states, scale, 1..=0xffff_u32)
}

fn state() -> impl Strategy<Value = (u8, KeptState)> {
    prop_oneof![
        // Established, or closed by one end.
        (end(4..=10), end(4..=6)).prop_map(|(a, b)| (6, KeptState::Tcp([a, b]))),
        any::<[u32; 2]>().prop_map(|tags| (132, KeptState::Sctp(tags))),
        (prop_oneof![Just(17), Just(47)], 0..=2_u8).prop_map(|(proto, seen)| (proto, KeptState::Plain(seen))),
    ]
}

fn kept() -> impl Strategy<Value = KeptConn> {
    let v4 = any::<[u32; 3]>().prop_map(|all| all.map(|bits| IpAddr::from(std::net::Ipv4Addr::from_bits(bits))));
    let v6 = any::<[u128; 3]>().prop_map(|all| all.map(|bits| IpAddr::from(std::net::Ipv6Addr::from_bits(bits))));
    let nat = prop_oneof![Just(None), Just(Some(Nat::Src)), Just(Some(Nat::Dst))];
    let rest = (any::<u32>(), any::<[u64; 2]>(), any::<u64>());
    (any::<u16>(), prop_oneof![v4, v6], any::<[u16; 3]>(), nat, rest, state()).prop_map(
        |(zone, [a, b, c], [p, q, r], nat, (mark, label, seen), (proto, state))| {
            let (client, server, other) = ((a, p), (b, q), (c, r));
            let reply = match nat {
                None => (server, client),
                Some(Nat::Src) => (server, other),
                Some(Nat::Dst) => (other, client),
            };
            KeptConn { zone, proto, original: (client, server), reply, nat, mark, label, seen, state }
        },
    )
}

proptest! {
    #[test]
    fn what_is_kept_is_what_is_kept_of_it_again(kept in kept()) {
        let table = Table::default();
        prop_assert!(table.resume(&kept, Millis(u64::MAX)));
        let mut again = Vec::new();
        // At time 0 none has expired.
        table.for_each(Millis(0), |conn| {
            again.push(KeptConn::of(&conn).unwrap());
            true
        });
        prop_assert_eq!(&again[..], std::slice::from_ref(&kept));
        let text = serde_json::to_string(&kept).unwrap();
        prop_assert!(text.len() < 450, "{}", text);
        prop_assert_eq!(serde_json::from_str::<KeptConn>(&text).unwrap(), kept);
    }
}

#[test]
fn connections_that_cannot_be_are_passed_over() {
    let tracker = Tracker::default();
    said(&tracker, V4.udp(4), &commit(5));
    let mut text = String::new();
    tracker.table.for_each(Millis(0), |conn| {
        text = serde_json::to_string(&KeptConn::of(&conn).unwrap()).unwrap();
        true
    });
    let resumes = |text: &str| Table::default().resume(&serde_json::from_str(text).unwrap(), Millis(0));
    assert!(resumes(&text));
    for (from, to) in [
        ("\"reply\":[[\"10.0.0.2\"", "\"reply\":[[\"10.0.0.3\""),
        ("\"reply\":[[\"10.0.0.2\"", "\"nat\":\"dst\",\"reply\":[[\"::2\""),
        ("\"reply\":[[\"10.0.0.2\"", "\"nat\":\"src\",\"reply\":[[\"10.0.0.3\""),
        ("\"proto\":17", "\"proto\":6"),
        ("\"proto\":17", "\"proto\":1"),
    ] {
        let other = text.replace(from, to);
        assert_ne!(text, other, "{from}");
        assert!(!resumes(&other), "{other}");
    }
}

#[test]
fn numbers_that_cannot_be_do_no_harm() {
    let tracker = Tracker::default();
    establish(&tracker, V4);
    let mut text = String::new();
    tracker.table.for_each(Millis(0), |conn| {
        text = serde_json::to_string(&KeptConn::of(&conn).unwrap()).unwrap();
        true
    });
    let from = text.find("\"tcp\":").unwrap();
    for numbers in ["[255,255,4294967295],[255,255,4294967295]", "[4,255,4294967295],[4,64,0]", "[0,0,0],[0,255,0]"] {
        let again = Tracker::default();
        let kept: KeptConn = serde_json::from_str(&format!("{}\"tcp\":[{numbers}]}}}}", &text[..from])).unwrap();
        assert!(again.table.resume(&kept, Millis(0)), "{numbers}");
        for (ends, flags) in [(V4, SYN), (V4, ACK), (V4.back(), SYN | ACK), (V4.back(), ACK), (V4, FIN | ACK)] {
            said(&again, tcp(ends, flags, u32::MAX, 77, 1000), &look(5));
        }
    }
    let foreign = text.replace("\"proto\":6", "\"proto\":17");
    assert!(!Tracker::default().table.resume(&serde_json::from_str(&foreign).unwrap(), Millis(0)));
}
