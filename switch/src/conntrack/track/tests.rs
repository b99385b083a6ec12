use super::super::conn::Protocol;
use super::super::tcp::{ACK, FIN, PSH, RST, SYN};
use super::super::testing::{Ends, Tcp, V4, V6, commit, look, once, pass, said, words};
use super::*;
use crate::conntrack::{ConnEvent, CtSettings};
use sluice_flows::Owner;
use sluice_flows::action::{CtAlg, Nat, NatDirection};
use sluice_flows::key::{FlowKey, slot};
use sluice_flows::packet::extract;
use std::net::IpAddr;

/// Puts frames through a tracker, each with what it is to say, all with one action.
fn play(tracker: &Tracker, ask: &DpCt, steps: impl IntoIterator<Item = (&'static str, Frame, &'static str)>) {
    for (what, frame, expected) in steps {
        assert_eq!(said(tracker, frame, ask), expected, "{what}");
    }
}

fn tcp(ends: Ends, flags: u8, seq: u32, ack: u32, len: usize) -> Frame {
    ends.tcp(&Tcp { len, ..Tcp::new(flags, seq, ack) })
}

/// A connection in zone 5 that is established from 101 and 501 on.
fn established(tracker: &Tracker, ends: Ends) {
    let back = ends.back();
    play(
        tracker,
        &commit(5),
        [
            ("SYN", tcp(ends, SYN, 100, 0, 0), "new"),
            ("SYN ACK", tcp(back, SYN | ACK, 500, 101, 0), "est rpl"),
            ("ACK", tcp(ends, ACK, 101, 501, 0), "est"),
        ],
    );
}

fn is_guarded(repeat: &Repeat) -> bool {
    matches!(repeat, Repeat::Guarded(_))
}

#[test]
fn nothing_is_known_before_it_is_committed() {
    let tracker = Tracker::default();
    for ends in [V4, V6] {
        play(
            &tracker,
            &look(5),
            [("first", ends.udp(4), "new"), ("again", ends.udp(4), "new"), ("answer", ends.back().udp(4), "new")],
        );
        let (tracked, repeat) = once(&tracker, ends.udp(4), &look(5));
        assert!(tracked.conn.is_none() && matches!(repeat, Repeat::Never));
    }
}

#[test]
fn a_udp_connection_is_new_until_it_is_answered() {
    for ends in [V4, V6] {
        let tracker = Tracker::default();
        play(
            &tracker,
            &commit(5),
            [
                ("first", ends.udp(4), "new"),
                ("second", ends.udp(4), "new"),
                ("answer", ends.back().udp(4), "est rpl"),
                ("third", ends.udp(4), "est"),
            ],
        );
    }
}

#[test]
fn zones_know_nothing_of_each_other() {
    let tracker = Tracker::default();
    play(&tracker, &commit(5), [("first", V4.udp(4), "new"), ("answer", V4.back().udp(4), "est rpl")]);
    play(&tracker, &look(6), [("elsewhere", V4.udp(4), "new"), ("answer elsewhere", V4.back().udp(4), "new")]);
}

#[test]
fn a_tcp_connection_goes_from_syn_to_rst() {
    for ends in [V4, V6] {
        let tracker = Tracker::default();
        established(&tracker, ends);
        let back = ends.back();
        play(
            &tracker,
            &look(5),
            [
                ("data", tcp(ends, PSH | ACK, 101, 501, 10), "est"),
                ("its acknowledgement", tcp(back, ACK, 501, 111, 0), "est rpl"),
                ("data far outside", tcp(ends, ACK, 1_000_000, 501, 10), "inv"),
                ("FIN", tcp(ends, FIN | ACK, 111, 501, 0), "est"),
                ("its acknowledgement", tcp(back, ACK, 501, 112, 0), "est rpl"),
                ("FIN of the other end", tcp(back, FIN | ACK, 501, 112, 0), "est rpl"),
                ("last acknowledgement", tcp(ends, ACK, 112, 502, 0), "est"),
                ("RST after the end", tcp(back, RST, 502, 0, 0), "est rpl"),
            ],
        );
    }
}

#[test]
fn a_syn_on_a_closed_pair_begins_another_connection() {
    let tracker = Tracker::default();
    established(&tracker, V4);
    let (first, _) = once(&tracker, tcp(V4, ACK, 101, 501, 0), &DpCt { mark: Some((7, !0)), ..commit(5) });
    play(
        &tracker,
        &commit(5),
        [
            ("RST", tcp(V4, RST, 101, 0, 0), "est"),
            ("SYN from the other side", tcp(V4.back(), SYN, 9000, 0, 0), "new"),
            ("its answer", tcp(V4, SYN | ACK, 77, 9001, 0), "est rpl"),
        ],
    );
    let (now, _) = once(&tracker, tcp(V4.back(), ACK, 9001, 78, 0), &look(5));
    assert_eq!((words(now.state).as_str(), now.mark), ("est", 0));
    assert!(!first.conn.unwrap().0.is_alive());
    assert_eq!(now.original.unwrap().src(), V4.dst);
}

#[test]
fn a_syn_that_is_not_committed_ends_a_closed_connection() {
    let tracker = Tracker::default();
    established(&tracker, V4);
    play(
        &tracker,
        &look(5),
        [
            ("RST", tcp(V4, RST, 101, 0, 0), "est"),
            ("SYN", tcp(V4, SYN, 9000, 0, 0), "new"),
            ("SYN ACK of nothing", tcp(V4.back(), SYN | ACK, 1, 9001, 0), "inv"),
        ],
    );
}

#[test]
fn what_cannot_begin_a_connection_is_invalid() {
    let kinds: [(&str, Frame, &str); 16] = [
        ("SYN", tcp(V4, SYN, 1, 0, 0), "new"),
        ("ACK in the middle", tcp(V4, ACK, 1, 1, 0), "new"),
        ("RST", tcp(V4, RST, 1, 1, 0), "new"),
        ("SYN ACK", tcp(V4, SYN | ACK, 1, 1, 0), "inv"),
        ("SYN FIN", tcp(V4, SYN | FIN, 1, 1, 0), "inv"),
        ("SYN RST", tcp(V4, SYN | RST, 1, 1, 0), "inv"),
        ("FIN", tcp(V4, FIN, 1, 1, 0), "inv"),
        ("PSH", tcp(V4, PSH, 1, 1, 0), "inv"),
        ("nothing", tcp(V4, 0, 1, 1, 0), "inv"),
        ("echo reply", V4.echo(true, 9), "inv"),
        ("echo reply, IPv6", V6.echo(true, 9), "inv"),
        ("port 0", Ends { src_port: 0, ..V4 }.udp(1), "inv"),
        ("echo with a code", V4.icmp(8, 1, [0; 4], &[]), "inv"),
        ("router solicitation", V6.icmp(133, 0, [0; 4], &[]), "inv"),
        ("DATA", V4.sctp(7, &[(0, 3, &[0; 13])]), "inv"),
        ("anything without ports", V4.frame(89, b"hello"), "new"),
    ];
    for (what, frame, expected) in kinds {
        assert_eq!(said(&Tracker::default(), frame, &commit(5)), expected, "{what}");
    }
}

#[test]
fn a_ping_is_known_by_its_identifier() {
    for ends in [V4, V6] {
        let tracker = Tracker::default();
        play(
            &tracker,
            &commit(5),
            [
                ("ping", ends.echo(false, 9), "new"),
                ("again", ends.echo(false, 9), "new"),
                ("pong of another", ends.back().echo(true, 8), "inv"),
                ("pong", ends.back().echo(true, 9), "est rpl"),
                ("ping", ends.echo(false, 9), "est"),
                ("ping the other way", ends.back().echo(false, 9), "new"),
            ],
        );
        let (tracked, repeat) = once(&tracker, ends.echo(false, 9), &look(5));
        assert!(matches!(repeat, Repeat::Never), "the key has no identifier");
        let mut key = FlowKey::ZERO;
        tracked.write(&mut key);
        let kind = if ends.src.is_ipv4() { 8 } else { 128 };
        assert_eq!((key.get(slot::CT_TP_SRC), key.get(slot::CT_TP_DST)), (kind, 0), "type and code");
    }
}

#[test]
fn a_wrong_checksum_makes_a_packet_invalid_unless_a_cache_would_answer() {
    let broken = |mut frame: Frame| {
        *frame.bytes_mut().last_mut().unwrap() ^= 1;
        frame
    };
    let tracker = Tracker::default();
    play(
        &tracker,
        &commit(5),
        [
            ("first", broken(V4.udp(4)), "inv"),
            ("first", V4.udp(4), "new"),
            ("answer", broken(V4.back().udp(4)), "inv"),
            ("answer", V4.back().udp(4), "est rpl"),
            ("settled", broken(V4.udp(4)), "est"),
            ("ping", broken(V4.echo(false, 1)), "inv"),
            ("ping, IPv6", broken(V6.echo(false, 1)), "inv"),
            ("INIT", broken(V4.sctp(0, &[(1, 0, &[1; 16])])), "inv"),
            ("SYN", broken(tcp(V6, SYN, 1, 0, 1)), "inv"),
        ],
    );
    let mut partial = broken(tcp(V4, SYN, 1, 0, 1));
    partial.offload.csum_partial = true;
    assert_eq!(said(&tracker, partial, &look(5)), "new", "still to be filled in");
    let mut header = tcp(V4, SYN, 1, 0, 1);
    header.bytes_mut()[14 + 8] ^= 1;
    assert_eq!(said(&tracker, header, &look(5)), "inv", "IPv4 header");
}

#[test]
fn fragments_are_left_to_whoever_puts_them_together() {
    let mut frame = V4.udp(8);
    frame.bytes_mut()[14 + 6] = 0x20;
    assert_eq!(said(&Tracker::default(), frame, &commit(5)), "inv");
}

#[test]
fn force_turns_a_connection_round() {
    let tracker = Tracker::default();
    play(&tracker, &commit(5), [("first", V4.udp(4), "new"), ("answer", V4.back().udp(4), "est rpl")]);
    let force = DpCt { force: true, ..commit(5) };
    let (before, _) = once(&tracker, V4.udp(4), &force);
    assert_eq!(words(before.state), "est", "the direction is right");
    assert_eq!(said(&tracker, V4.back().udp(4), &force), "new");
    assert!(!before.conn.unwrap().0.is_alive());
    play(&tracker, &look(5), [("the other way", V4.udp(4), "est rpl"), ("answer", V4.back().udp(4), "est")]);
}

#[test]
fn mark_and_label_are_kept_with_who_wrote_them() {
    let tracker = Tracker::default();
    let ask = DpCt { mark: Some((0x55, 0xff)), owner: Some(Owner::new("np:a/b#1")), ..commit(5) };
    let (tracked, _) = once(&tracker, V4.udp(4), &ask);
    assert_eq!((tracked.mark, tracked.label), (0x55, 0));
    let ask =
        DpCt { mark: Some((0x300, 0xf00)), label: Some((1 << 100, 1 << 100)), owner: Some(Owner::user()), ..look(5) };
    let (tracked, repeat) = once(&tracker, V4.back().udp(4), &ask);
    assert_eq!((tracked.mark, tracked.label), (0x355, 1 << 100));
    assert!(matches!(repeat, Repeat::Never));
    let conn = tracked.conn.unwrap().0;
    assert_eq!(conn.marks().owner, Some(Owner::user()));
    let (_, repeat) = once(&tracker, V4.back().udp(4), &DpCt { owner: None, ..ask });
    assert!(is_guarded(&repeat), "nothing was written that was not there");
    assert_eq!(conn.marks().owner, Some(Owner::user()));
}

#[test]
fn writing_voids_what_caches_know() {
    let tracker = Tracker::default();
    play(&tracker, &commit(5), [("first", V4.udp(4), "new"), ("answer", V4.back().udp(4), "est rpl")]);
    let (_, Repeat::Guarded(guard)) = once(&tracker, V4.udp(4), &look(5)) else { panic!("settled") };
    assert!(guard.conn.admits(guard.direction, guard.version, None, Millis(0)));
    once(&tracker, V4.back().udp(4), &DpCt { mark: Some((1, 1)), ..look(5) });
    assert!(!guard.conn.admits(guard.direction, guard.version, None, Millis(0)));
}

#[test]
fn the_first_answer_voids_what_caches_know() {
    let tracker = Tracker::default();
    play(&tracker, &commit(5), [("first", V4.udp(4), "new"), ("second", V4.udp(4), "new")]);
    let (_, Repeat::Guarded(guard)) = once(&tracker, V4.udp(4), &look(5)) else { panic!("nothing changes") };
    assert!(guard.conn.admits(guard.direction, guard.version, None, Millis(0)));
    assert_eq!(said(&tracker, V4.back().udp(4), &look(5)), "est rpl");
    assert!(!guard.conn.admits(guard.direction, guard.version, None, Millis(0)));
}

#[test]
fn only_what_changes_nothing_is_repeated() {
    let tracker = Tracker::default();
    established(&tracker, V4);
    let repeat = |frame| once(&tracker, frame, &look(5)).1;
    assert!(is_guarded(&repeat(tcp(V4, ACK, 101, 501, 10))));
    assert!(is_guarded(&repeat(tcp(V4.back(), ACK, 501, 111, 10))));
    assert!(!is_guarded(&repeat(tcp(V4, ACK, 500_000, 501, 10))), "invalid");
    assert!(!is_guarded(&repeat(tcp(V4, FIN | ACK, 111, 511, 0))));
    assert!(!is_guarded(&repeat(tcp(V4.back(), ACK, 511, 112, 0))), "closing");
}

#[test]
fn a_second_pass_in_the_zone_moves_nothing_but_writes() {
    let tracker = Tracker::default();
    once(&tracker, V4.udp(4), &commit(5));
    let (mut frame, mut tracked) = (V4.udp(4), Tracked::default());
    pass(&tracker, &mut frame, &look(5), &mut tracked, Millis(1)).unwrap();
    let conn = Arc::clone(&tracked.conn.as_ref().unwrap().0);
    let counted = conn.counted(Direction::Original);
    let repeat = pass(&tracker, &mut frame, &look(5), &mut tracked, Millis(1)).unwrap();
    assert!(matches!(repeat, Repeat::Same));
    assert_eq!((conn.counted(Direction::Original), words(tracked.state).as_str()), (counted, "new"));
    let ask = DpCt { mark: Some((9, !0)), ..commit(5) };
    let repeat = pass(&tracker, &mut frame, &ask, &mut tracked, Millis(1)).unwrap();
    assert!(matches!(repeat, Repeat::Never));
    assert_eq!((tracked.mark, conn.marks().mark), (9, 9));
    // Another zone begins anew.
    pass(&tracker, &mut frame, &look(6), &mut tracked, Millis(1)).unwrap();
    assert_eq!((words(tracked.state).as_str(), tracked.zone, tracked.mark), ("new", 6, 0));
    assert!(tracked.conn.is_none());
}

#[test]
fn an_invalid_packet_shows_its_connection_and_may_write() {
    let tracker = Tracker::default();
    established(&tracker, V4);
    let (tracked, _) = once(&tracker, tcp(V4.back(), ACK, 1 << 30, 101, 10), &DpCt { mark: Some((3, 3)), ..look(5) });
    assert_eq!((words(tracked.state).as_str(), tracked.mark), ("inv", 3));
    let mut key = FlowKey::ZERO;
    tracked.write(&mut key);
    assert_eq!((key.get(slot::CT_MARK), key.get(slot::CT_NW_SRC), key.get(slot::CT_TP_SRC)), (3, 0, 0));
    let counted = tracked.conn.unwrap().0.counted(Direction::Reply);
    assert_eq!(counted.0, 1, "only the SYN ACK is counted");
}

#[test]
fn valid_packets_are_seen_and_counted() {
    let tracker = Tracker::default();
    established(&tracker, V4);
    let mut tracked = Tracked::default();
    pass(&tracker, &mut tcp(V4, ACK, 101, 501, 10), &look(5), &mut tracked, Millis(500)).unwrap();
    let conn = Arc::clone(&tracked.conn.take().unwrap().0);
    assert_eq!((conn.counted(Direction::Original), conn.seen()), ((3, 54 + 54 + 64), Millis(500)));
    pass(&tracker, &mut tcp(V4, ACK, 1 << 30, 501, 10), &look(5), &mut tracked, Millis(900)).unwrap();
    assert_eq!((conn.counted(Direction::Original).0, conn.seen()), (3, Millis(500)), "not a stray");
}

/// An error from `router` about `quoted`, to the sender of that.
fn error(router: IpAddr, ends: Ends, kind: u8, code: u8, quoted: &[u8]) -> Frame {
    Ends { src: router, dst: ends.src, ..ends }.icmp(kind, code, [0; 4], quoted)
}

#[test]
fn an_error_is_related_to_what_it_quotes() {
    let router4 = "192.0.2.1".parse().unwrap();
    let router6 = "2001:db8:9::1".parse().unwrap();
    for (ends, router, kind) in [(V4, router4, 3), (V6, router6, 1)] {
        let tracker = Tracker::default();
        let quoted = ends.packet(17, &ends.udp_message(30));
        assert_eq!(said(&tracker, error(router, ends, kind, 3, &quoted), &commit(5)), "inv", "of nothing known");
        once(&tracker, ends.udp(30), &DpCt { mark: Some((4, 4)), ..commit(5) });
        let (tracked, repeat) = once(&tracker, error(router, ends, kind, 3, &quoted), &commit(5));
        assert_eq!((words(tracked.state).as_str(), tracked.mark), ("rel rpl", 4));
        assert!(matches!(repeat, Repeat::Never));
        assert_eq!(tracked.original.unwrap().src(), ends.src);
        let answer = ends.back().packet(17, &ends.back().udp_message(30));
        assert_eq!(said(&tracker, error(router, ends.back(), kind, 3, &answer), &look(5)), "rel");
        assert_eq!(said(&tracker, ends.udp(30), &look(5)), "new", "an error is no answer");
        let elsewhere = Ends { src: ends.dst, ..ends };
        assert_eq!(said(&tracker, error(router, elsewhere, kind, 3, &quoted), &look(5)), "inv", "not to the sender");
    }
}

#[test]
fn connections_whose_answers_would_be_mixed_up_are_refused() {
    let tracker = Tracker::default();
    // What a translated connection looks like: its answers come from elsewhere.
    let original = Tuple::new(5, 17, V4.src, V4.dst).with_ports(1000, 80);
    let answers = Tuple::new(5, 17, "10.0.0.9".parse().unwrap(), V4.src).with_ports(80, 1000);
    let conn = Conn::new(original, answers, Protocol::default(), None, Millis(0));
    tracker.table.insert(conn, Millis(0)).unwrap();
    let mut tracked = Tracked::default();
    let refused = pass(&tracker, &mut V4.back().udp(4), &commit(5), &mut tracked, Millis(0));
    assert_eq!(refused.unwrap_err(), DropReason::CtFull);
    assert_eq!(said(&tracker, V4.back().udp(4), &look(5)), "new");
}

fn nat(direction: NatDirection, address: IpAddr, ports: Option<(u16, u16)>) -> Option<Nat> {
    Some(Nat { direction: Some(direction), addresses: Some((address, address)), ports, ..Nat::default() })
}

/// Addresses and ports of a frame.
fn shown(frame: &Frame) -> (IpAddr, u16, IpAddr, u16) {
    let mut key = PacketKey::ZERO;
    let layers = extract(frame.bytes(), 0, &mut key);
    let packet = Packet::read(frame, &layers, &key, 0).unwrap();
    assert!(packet.is_sound(), "checksums are wrong");
    (packet.tuple.src(), packet.tuple.src_port, packet.tuple.dst(), packet.tuple.dst_port)
}

#[test]
fn a_source_is_translated_there_and_back() {
    for (ends, outside) in [(V4, "192.0.2.9"), (V6, "2001:db8:9::9")] {
        let outside: IpAddr = outside.parse().unwrap();
        let tracker = Tracker::default();
        let ask = DpCt { nat: nat(NatDirection::Src, outside, Some((5000, 5000))), ..commit(5) };
        let apply = DpCt { nat: Some(Nat::default()), ..look(5) };
        let go = |mut frame: Frame, ask: &DpCt| {
            let mut tracked = Tracked::default();
            let repeat = pass(&tracker, &mut frame, ask, &mut tracked, Millis(0)).unwrap();
            (words(tracked.state), shown(&frame), repeat)
        };
        let (state, sent, _) = go(ends.udp(4), &ask);
        assert_eq!((state.as_str(), sent), ("new snat", (outside, 5000, ends.dst, 80)));
        let answer = Ends { src: ends.dst, dst: outside, src_port: 80, dst_port: 5000 };
        let (state, sent, _) = go(answer.udp(4), &look(5));
        assert_eq!((state.as_str(), sent), ("est rpl", (ends.dst, 80, outside, 5000)), "only if nat is asked for");
        let (state, sent, repeat) = go(answer.udp(4), &apply);
        assert_eq!((state.as_str(), sent), ("est rpl dnat", (ends.dst, 80, ends.src, 1000)));
        assert!(is_guarded(&repeat));
        let (state, sent, repeat) = go(ends.udp(4), &apply);
        assert_eq!((state.as_str(), sent), ("est snat", (outside, 5000, ends.dst, 80)));
        assert!(is_guarded(&repeat));
    }
}

#[test]
fn a_packet_is_translated_once_in_a_zone() {
    let tracker = Tracker::default();
    let inside: IpAddr = "10.0.0.77".parse().unwrap();
    let ask = DpCt { nat: nat(NatDirection::Dst, inside, None), ..commit(5) };
    let (mut frame, mut tracked) = (V4.udp(4), Tracked::default());
    pass(&tracker, &mut frame, &ask, &mut tracked, Millis(0)).unwrap();
    assert_eq!((words(tracked.state).as_str(), shown(&frame).2), ("new dnat", inside));
    let repeat = pass(&tracker, &mut frame, &DpCt { nat: Some(Nat::default()), ..look(5) }, &mut tracked, Millis(0));
    assert!(matches!(repeat, Ok(Repeat::Same)));
    assert_eq!((words(tracked.state).as_str(), shown(&frame).2), ("new dnat", inside));
    // In another zone it is a packet like any other, as it is now.
    let ask = DpCt { nat: nat(NatDirection::Src, "10.0.0.88".parse().unwrap(), None), ..commit(6) };
    pass(&tracker, &mut frame, &ask, &mut tracked, Millis(0)).unwrap();
    assert_eq!(words(tracked.state), "new snat");
    let (src, _, dst, _) = shown(&frame);
    assert_eq!((src, dst), ("10.0.0.88".parse().unwrap(), inside));
    assert_eq!(tracked.original.unwrap().dst(), inside);
}

#[test]
fn a_pass_without_nat_then_one_with_it_gives_the_same_as_one() {
    let tracker = Tracker::default();
    let outside: IpAddr = "192.0.2.9".parse().unwrap();
    once(&tracker, V4.udp(4), &DpCt { nat: nat(NatDirection::Src, outside, None), ..commit(5) });
    let (mut frame, mut tracked) = (V4.udp(4), Tracked::default());
    pass(&tracker, &mut frame, &look(5), &mut tracked, Millis(0)).unwrap();
    let apply = DpCt { nat: Some(Nat::default()), ..look(5) };
    pass(&tracker, &mut frame, &apply, &mut tracked, Millis(0)).unwrap();
    assert_eq!((words(tracked.state).as_str(), shown(&frame).0), ("new snat", outside));
}

#[test]
fn an_error_about_a_translated_packet_is_translated_inside_and_out() {
    let (outside, router): (IpAddr, IpAddr) = ("192.0.2.9".parse().unwrap(), "198.51.100.1".parse().unwrap());
    let tracker = Tracker::default();
    once(&tracker, V4.udp(30), &DpCt { nat: nat(NatDirection::Src, outside, Some((5000, 5000))), ..commit(5) });
    let sent = Ends { src: outside, src_port: 5000, ..V4 };
    let mut frame = error(router, sent, 3, 4, &sent.packet(17, &sent.udp_message(30)));
    let mut tracked = Tracked::default();
    let apply = DpCt { nat: Some(Nat::default()), ..look(5) };
    pass(&tracker, &mut frame, &apply, &mut tracked, Millis(0)).unwrap();
    assert_eq!(words(tracked.state), "rel rpl dnat");
    // Who sent the packet sees the error as if nothing had been translated: it is known by its own tuple.
    assert_eq!(shown(&frame), (V4.dst, 80, V4.src, 1000));
    assert_eq!(frame.bytes()[14 + 16..14 + 20], [10, 0, 0, 1], "the outer address too");
}

#[test]
fn no_port_left_is_a_full_table() {
    let tracker = Tracker::default();
    let outside: IpAddr = "192.0.2.9".parse().unwrap();
    let ask = DpCt { nat: nat(NatDirection::Src, outside, Some((5000, 5000))), ..commit(5) };
    once(&tracker, V4.udp(4), &ask);
    let mut tracked = Tracked::default();
    let mut second = Ends { src_port: 1001, ..V4 }.udp(4);
    assert_eq!(pass(&tracker, &mut second, &ask, &mut tracked, Millis(0)).unwrap_err(), DropReason::CtFull);
}

#[test]
fn an_ftp_data_connection_is_related_and_inherits() {
    let tracker = Tracker::default();
    let control = Ends { dst_port: 21, ..V4 };
    let ask = DpCt { alg: Some(CtAlg::Ftp), mark: Some((6, !0)), ..commit(5) };
    play(
        &tracker,
        &ask,
        [
            ("SYN", tcp(control, SYN, 100, 0, 0), "new"),
            ("SYN ACK", tcp(control.back(), SYN | ACK, 500, 101, 0), "est rpl"),
        ],
    );
    let mut message = control.tcp_message(&Tcp::new(PSH | ACK, 101, 501));
    message.extend(b"PORT 10,0,0,1,19,137\r\n");
    let (_, repeat) = once(&tracker, control.frame(6, &message), &ask);
    assert!(matches!(repeat, Repeat::Never), "no cache answers for a control connection");
    let data = Ends { src_port: 20, dst_port: 19 * 256 + 137, ..V4.back() };
    for ask in [look(5), DpCt { mark: Some((1, 1)), ..commit(5) }] {
        let (tracked, _) = once(&tracker, tcp(data, SYN, 1, 0, 0), &ask);
        assert_eq!((words(tracked.state).as_str(), tracked.mark), ("new rel", 6));
        let original = tracked.original.unwrap();
        assert_eq!((original.src(), original.dst_port), (V4.src, 21), "the tuple of the control connection");
    }
    let (tracked, _) = once(&tracker, tcp(data.back(), SYN | ACK, 9, 2, 0), &DpCt { mark: Some((1, 1)), ..look(5) });
    assert_eq!((words(tracked.state).as_str(), tracked.mark), ("est rel rpl", 6), "what it inherited stays");
}

#[test]
fn a_liberal_zone_does_not_look_at_sequence_numbers() {
    let tracker = Tracker::default();
    established(&tracker, V4);
    let stray = || tcp(V4, ACK, 1 << 30, 501, 10);
    assert_eq!(said(&tracker, stray(), &look(5)), "inv");
    let settings = CtSettings { tcp_liberal: true, ..CtSettings::default() };
    tracker.set(settings).unwrap();
    let acknowledged = tcp(V4.back(), ACK, 501, (1 << 30) + 10, 0);
    play(&tracker, &look(5), [("now", stray(), "est"), ("quickly", stray(), "est"), ("back", acknowledged, "est rpl")]);
    tracker.set(CtSettings::default()).unwrap();
    play(
        &tracker,
        &look(5),
        [
            ("within the windows", tcp(V4, ACK, (1 << 30) + 10, 501, 10), "est"),
            ("outside", tcp(V4, ACK, 77, 501, 10), "inv"),
        ],
    );
}

#[test]
fn force_turns_a_translated_connection_round_too() {
    let tracker = Tracker::default();
    let outside: IpAddr = "192.0.2.9".parse().unwrap();
    let ask = DpCt { nat: nat(NatDirection::Src, outside, Some((5000, 5000))), ..commit(5) };
    let (first, _) = once(&tracker, V4.udp(4), &ask);
    let answer = Ends { src: V4.dst, dst: outside, src_port: 80, dst_port: 5000 };
    let (mut frame, mut tracked) = (answer.udp(4), Tracked::default());
    pass(&tracker, &mut frame, &DpCt { nat: Some(Nat::default()), ..look(5) }, &mut tracked, Millis(0)).unwrap();
    assert_eq!(words(tracked.state), "est rpl dnat");
    let force = DpCt { force: true, ..commit(5) };
    pass(&tracker, &mut frame, &force, &mut tracked, Millis(0)).unwrap();
    assert_eq!((words(tracked.state).as_str(), tracker.table.len()), ("new", 1));
    assert!(!first.conn.unwrap().0.is_alive());
    assert_eq!(tracked.original.unwrap().dst(), V4.src, "the packet as it is by now");
}

#[test]
fn acknowledgements_of_rewritten_text_are_understood() {
    let tracker = Tracker::default();
    let (outside, control): (IpAddr, _) = ("192.168.100.200".parse().unwrap(), Ends { dst_port: 21, ..V4 });
    let ask = DpCt { alg: Some(CtAlg::Ftp), nat: nat(NatDirection::Src, outside, Some((5000, 5000))), ..commit(5) };
    let answering = Ends { src: control.dst, dst: outside, src_port: 21, dst_port: 5000 };
    let said = |frame: Frame| said(&tracker, frame, &ask);
    assert_eq!(said(tcp(control, SYN, 100, 0, 0)), "new snat");
    assert_eq!(said(tcp(answering, SYN | ACK, 500, 101, 0)), "est rpl dnat");
    let line = b"PORT 10,0,0,1,19,137\r\n";
    let mut message = control.tcp_message(&Tcp { window: 10, ..Tcp::new(PSH | ACK, 101, 501) });
    message.extend(line);
    let (mut frame, mut tracked) = (control.frame(6, &message), Tracked::default());
    pass(&tracker, &mut frame, &ask, &mut tracked, Millis(0)).unwrap();
    let rewritten = b"PORT 192,168,100,200,19,137\r\n";
    assert!(frame.bytes().ends_with(rewritten));
    // The window is small, and grows with what is acknowledged: a byte too many would show.
    let acknowledged = 101 + rewritten.len() as u32;
    let Protocol::Tcp(state) = &tracked.conn.unwrap().0.protocol else { panic!("TCP") };
    assert_eq!(said(answering.tcp(&Tcp { window: 2000, ..Tcp::new(ACK, 501, acknowledged) })), "est rpl dnat");
    assert_eq!(state.ends[0].seq_hi(), 101 + line.len() as u32 + 2000);
}

#[test]
fn an_sctp_association_is_told_apart_by_ports_and_tags() {
    let tracker = Tracker::default();
    let announced = |tag: u32| [&tag.to_be_bytes()[..], &[0; 12]].concat();
    for ends in [V4, Ends { src_port: 2000, ..V4 }, V6] {
        let back = ends.back();
        play(
            &tracker,
            &commit(5),
            [
                ("INIT", ends.sctp(0, &[(1, 0, &announced(7))]), "new"),
                ("INIT again", ends.sctp(0, &[(1, 0, &announced(7))]), "new"),
                ("INIT ACK", back.sctp(7, &[(2, 0, &announced(9))]), "est rpl"),
                ("COOKIE ECHO", ends.sctp(9, &[(10, 0, &[1; 20])]), "est"),
                ("COOKIE ACK", back.sctp(7, &[(11, 0, &[])]), "est rpl"),
                ("DATA with a wrong tag", ends.sctp(7, &[(0, 3, &[0; 13])]), "inv"),
            ],
        );
        let (tracked, repeat) = once(&tracker, ends.sctp(9, &[(3, 0, &[0; 12]), (0, 3, &[0; 13])]), &look(5));
        assert_eq!(words(tracked.state), "est");
        assert!(is_guarded(&repeat));
        let (_, repeat) = once(&tracker, ends.sctp(9, &[(3, 0, &[0; 12]), (7, 0, &[0; 4])]), &look(5));
        assert!(matches!(repeat, Repeat::Never), "SHUTDOWN");
        play(
            &tracker,
            &commit(5),
            [
                ("SHUTDOWN ACK", back.sctp(7, &[(8, 0, &[])]), "est rpl"),
                ("SHUTDOWN COMPLETE", ends.sctp(9, &[(14, 0, &[])]), "est"),
                ("the next association, from the other end", back.sctp(0, &[(1, 0, &announced(1))]), "new"),
            ],
        );
    }
    assert_eq!(tracker.table.len(), 3);
}

#[test]
fn what_happens_to_connections_is_told_once() {
    let tracker = Tracker::default();
    let events = tracker.events.subscribe(100);
    established(&tracker, V4);
    play(&tracker, &look(5), [("data", tcp(V4, ACK, 101, 501, 10), "est"), ("RST", tcp(V4, RST, 111, 0, 0), "est")]);
    play(&tracker, &commit(5), [("SYN", tcp(V4, SYN, 9000, 0, 0), "new")]);
    let mark = DpCt { mark: Some((5, !0)), ..commit(5) };
    for _ in 0..2 {
        once(&tracker, V4.udp(4), &mark);
        once(&tracker, V4.back().udp(4), &mark);
    }
    once(&tracker, V4.udp(4), &DpCt { mark: Some((6, !0)), ..look(5) });
    let told: Vec<_> = events
        .try_iter()
        .map(|event| match event {
            ConnEvent::Changed { conn, change, .. } => (conn.original.proto, change),
            lost @ ConnEvent::Lost { .. } => panic!("{lost:?}"),
        })
        .collect();
    assert_eq!(
        told,
        [
            (6, ConnChange::New),
            (6, ConnChange::Replied),
            (6, ConnChange::Ended(EndReason::Replaced)),
            (6, ConnChange::New),
            (17, ConnChange::New),
            (17, ConnChange::Replied),
            (17, ConnChange::Marked { mark: 6, label: 0 }),
        ]
    );
}
