use super::super::testing::{Ends, Tcp, V4, V6};
use super::*;
use proptest::prelude::*;

/// A message to the sender of what it quotes.
fn error(kind: u8, quoted: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 0, 0, 0][..], quoted].concat()
}

/// What an error is known by that a router sends to `ends.src`.
fn read_error(ends: Ends, kind: u8, quoted: &[u8]) -> Option<(Tuple, Option<Quoted>)> {
    let (proto, router) =
        if ends.src.is_ipv4() { (1, "192.0.2.1".parse().unwrap()) } else { (58, "2001:db8:9::1".parse().unwrap()) };
    read(&Tuple::new(3, proto, router, ends.src), &error(kind, quoted), 34)
}

#[test]
fn an_error_is_known_by_the_answer_to_what_it_quotes() {
    for (ends, header_len) in [(V4, 20), (V6, 40)] {
        let kind = if ends.src.is_ipv4() { 11 } else { 2 };
        for (proto, message) in
            [(6, ends.tcp_message(&Tcp::new(0x10, 1, 1))), (17, ends.udp_message(12)), (132, ends.udp_message(12))]
        {
            let (tuple, quoted) = read_error(ends, kind, &ends.packet(proto, &message)).unwrap();
            let sent = Tuple::new(3, proto, ends.src, ends.dst).with_ports(1000, 80);
            assert_eq!(Some(tuple), sent.reversed(), "{proto}");
            assert_eq!(quoted, Some(Quoted { l3_ofs: 42, l4_ofs: 42 + header_len }), "{proto}");
        }
        let (tuple, _) = read_error(ends, kind, &ends.packet(89, b"abc")).unwrap();
        assert_eq!((tuple.proto, tuple.src_port, tuple.dst_port), (89, 0, 0));
    }
}

#[test]
fn a_quoted_ping_is_known_by_its_identifier() {
    let (tuple, _) = read_error(V4, 3, &V4.packet(1, &[8, 0, 0, 0, 0x12, 0x34, 0, 1])).unwrap();
    assert_eq!((tuple.src_port, tuple.icmp_type(), tuple.src()), (0x1234, 0, V4.dst));
    let (tuple, _) = read_error(V6, 3, &V6.packet(58, &[128, 0, 0, 0, 0x12, 0x34, 0, 1])).unwrap();
    assert_eq!((tuple.src_port, tuple.icmp_type(), tuple.src()), (0x1234, 129, V6.dst));
    assert_eq!(read_error(V4, 3, &V4.packet(1, &error(3, &V4.packet(17, &V4.udp_message(8))))), None, "an error");
}

#[test]
fn of_ipv4_eight_bytes_of_transport_header_are_enough() {
    let whole = V4.packet(6, &V4.tcp_message(&Tcp::new(0x10, 1, 1)));
    for len in 0..whole.len() {
        assert_eq!(read_error(V4, 3, &whole[..len]).is_some(), len >= 28, "{len}");
    }
    let whole = V6.packet(6, &V6.tcp_message(&Tcp::new(0x10, 1, 1)));
    for len in 0..=whole.len() {
        assert_eq!(read_error(V6, 3, &whole[..len]).is_some(), len >= 60, "{len}");
    }
}

#[test]
fn a_quoted_packet_has_to_be_whole_and_from_who_is_told() {
    let good = V4.packet(17, &V4.udp_message(8));
    assert!(read_error(V4, 3, &good).is_some());
    let changed = |at: usize, to: u8| {
        let mut packet = good.clone();
        packet[at] = to;
        packet
    };
    for (what, packet) in [
        ("more fragments", changed(6, 0x20)),
        ("a later fragment", changed(7, 1)),
        ("a short header", changed(0, 0x44)),
        ("a header that is not there", changed(0, 0x4f)),
        ("another sender", changed(15, 99)),
        ("port 0", {
            let mut packet = changed(20, 0);
            packet[21] = 0;
            packet
        }),
    ] {
        assert_eq!(read_error(V4, 3, &packet), None, "{what}");
    }
    let mut options = good.clone();
    options[0] = 0x46;
    options.splice(20..20, [1; 4]);
    assert_eq!(read_error(V4, 3, &options).unwrap().1, Some(Quoted { l3_ofs: 42, l4_ofs: 66 }));
}

#[test]
fn extension_headers_of_a_quoted_packet_are_walked() {
    let udp = V6.udp_message(8);
    let quoted = |first: u8, extensions: &[u8]| V6.packet(first, &[extensions, &udp].concat());
    for (what, packet, ofs) in [
        ("destination options", quoted(60, &[17, 0, 1, 4, 0, 0, 0, 0]), Some(48)),
        ("two", quoted(0, &[60, 0, 1, 4, 0, 0, 0, 0, 17, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Some(64)),
        ("an atomic fragment", quoted(44, &[17, 0, 0, 0, 0, 0, 0, 1]), Some(48)),
        ("a fragment", quoted(44, &[17, 0, 0, 1, 0, 0, 0, 1]), None),
        ("one that is too long", quoted(60, &[17, 9, 1, 4, 0, 0, 0, 0]), None),
    ] {
        let found = read_error(V6, 3, &packet).map(|(_, quoted)| quoted.unwrap().l4_ofs - 42);
        assert_eq!(found, ofs, "{what}");
    }
}

#[test]
fn types_are_questions_answers_errors_or_unknown() {
    for kind in 0..=255_u8 {
        for (proto, ends) in [(1, V4), (58, V6)] {
            let tuple = Tuple::new(0, proto, ends.src, ends.dst);
            let query = read(&tuple, &[kind, 0, 0, 0, 0, 9, 0, 0], 0);
            let answered = icmp_answer(proto, kind);
            assert_eq!(query.is_some(), answered.is_some(), "{proto} {kind}");
            assert!(read(&tuple, &[kind, 1, 0, 0, 0, 9, 0, 0], 0).is_none(), "with a code");
            if is_question(proto, kind) {
                assert!(answered.is_some_and(|answer| !is_question(proto, answer)), "{proto} {kind}");
            }
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_taken_in(bytes in proptest::collection::vec(any::<u8>(), 0..120), kind in 0..13_u8) {
        for (proto, ends) in [(1, V4), (58, V6)] {
            let tuple = Tuple::new(0, proto, ends.dst, ends.src);
            read(&tuple, &error(kind, &bytes), 0);
            read(&tuple, &bytes, 0);
        }
    }
}
