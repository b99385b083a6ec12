use super::{DESTINATION, HOP_BY_HOP, L3, L4, Layers, extract};
use crate::key::{FRAG_ANY, FRAG_LATER, PACKET_WORDS, PacketKey, Slot, slot};
use crate::packet::testing::*;

/// What [`extract`] makes of a frame that came in by port 7, into a key that held something else.
fn read(frame: &[u8]) -> (PacketKey, Layers) {
    let mut key = PacketKey([u64::MAX; PACKET_WORDS]);
    let layers = extract(frame, 7, &mut key);
    (key, layers)
}

/// A key with these slots set besides the port and the MAC addresses of [`eth`].
fn key(slots: &[(Slot, u128)]) -> PacketKey {
    let mut key = PacketKey::ZERO;
    key.set(slot::IN_PORT, 7);
    key.set(slot::ETH_DST, 0x0200_0000_0001);
    key.set(slot::ETH_SRC, 0x0200_0000_0002);
    for (slot, value) in slots {
        key.set(*slot, *value);
    }
    key
}

/// [`key`] for the packets of [`ipv4_frag`].
fn key4(proto: u8, frag: u8, slots: &[(Slot, u128)]) -> PacketKey {
    let l3 = [
        (slot::ETH_TYPE, 0x0800),
        (slot::IP_SRC, 0x0a00_0001),
        (slot::IP_DST, 0x0a00_0002),
        (slot::IP_PROTO, u128::from(proto)),
        (slot::IP_TOS, 0xb9),
        (slot::IP_TTL, 64),
        (slot::IP_FRAG, u128::from(frag)),
    ];
    key(&[&l3, slots].concat())
}

const ADDRESSES6: [(Slot, u128); 3] =
    [(slot::ETH_TYPE, 0x86dd), (slot::IPV6_SRC, u128::from_be_bytes(A6)), (slot::IPV6_DST, u128::from_be_bytes(B6))];

/// [`key`] for the packets of [`ipv6`].
fn key6(proto: u8, frag: u8, slots: &[(Slot, u128)]) -> PacketKey {
    let l3 = [
        (slot::IP_PROTO, u128::from(proto)),
        (slot::IP_TOS, 0xab),
        (slot::IP_TTL, 63),
        (slot::IP_FRAG, u128::from(frag)),
        (slot::IPV6_LABEL, 0x12345),
    ];
    key(&[&ADDRESSES6[..], &l3, slots].concat())
}

const PORTS: [(Slot, u128); 2] = [(slot::TP_SRC, 1000), (slot::TP_DST, 2000)];

#[test]
fn a_frame_without_an_ethernet_header_has_only_its_port() {
    for len in 0..14 {
        let mut only_port = PacketKey::ZERO;
        only_port.set(slot::IN_PORT, 7);
        assert_eq!(read(&[0xff; 14][..len]), (only_port, Layers::NONE));
    }
}

#[test]
fn tcp_over_ipv4_gives_ports_and_twelve_flag_bits() {
    let frame = eth(&[], 0x0800, &ipv4(6, &tcp(0xf12, &[1, 1, 1, 0], b"payload")));
    let want = key4(6, 0, &[PORTS[0], PORTS[1], (slot::TCP_FLAGS, 0xf12)]);
    let layers = Layers { l3_ofs: 14, l4_ofs: 34, payload_ofs: 58, vlans: 0, l3: L3::Ipv4, l4: L4::Tcp, routed: false };
    assert_eq!(read(&frame), (want, layers));
}

#[test]
fn two_vlan_tags_are_taken_off_and_a_third_is_the_type() {
    let body = ipv4(17, &udp(b""));
    let one = read(&eth(&[(0x8100, 0x2005)], 0x0800, &body));
    assert_eq!(one.0, key4(17, 0, &[PORTS[0], PORTS[1], (slot::VLAN_TCI, 0x3005), (slot::VLAN_TPID, 0x8100)]));
    assert_eq!((one.1.vlans, one.1.l3_ofs), (1, 18));

    let both = [
        (slot::VLAN_TCI, 0x1064),
        (slot::VLAN_TPID, 0x88a8),
        (slot::INNER_VLAN_TCI, 0xf005),
        (slot::INNER_VLAN_TPID, 0x8100),
    ];
    let two = read(&eth(&[(0x88a8, 0x0064), (0x8100, 0xe005)], 0x0800, &body));
    assert_eq!(two.0, key4(17, 0, &[&both[..], &PORTS].concat()));
    assert_eq!((two.1.vlans, two.1.l3_ofs), (2, 22));

    let three = read(&eth(&[(0x88a8, 0x0064), (0x8100, 0xe005), (0x8100, 9)], 0x0800, &body));
    assert_eq!(three.0, key(&[&both[..], &[(slot::ETH_TYPE, 0x8100)]].concat()));
    assert_eq!((three.1.vlans, three.1.l3_ofs, three.1.l3), (2, 22, L3::None));
}

#[test]
fn a_tag_without_the_type_behind_it_is_the_type() {
    let whole = eth(&[(0x8100, 5)], 0x0800, &[]);
    for len in 14..18 {
        assert_eq!(read(&whole[..len]).0, key(&[(slot::ETH_TYPE, 0x8100)]), "{len} bytes");
    }
    let tag = [(slot::ETH_TYPE, 0x0800), (slot::VLAN_TCI, 0x1005), (slot::VLAN_TPID, 0x8100)];
    assert_eq!(read(&whole).0, key(&tag));
}

#[test]
fn a_length_instead_of_a_type_is_snap_or_nothing() {
    let snap = |oui: u8, eth_type: u16| {
        let mut llc = vec![0xaa, 0xaa, 3, 0, 0, oui];
        llc.extend(eth_type.to_be_bytes());
        llc.extend(ipv4(17, &udp(b"")));
        eth(&[], llc.len() as u16, &llc)
    };
    let none = key(&[(slot::ETH_TYPE, 0x05ff)]);
    assert_eq!(read(&snap(0, 0x0800)).0, key4(17, 0, &PORTS));
    assert_eq!(read(&snap(0, 0x0800)).1.l3_ofs, 22);
    assert_eq!(read(&snap(1, 0x0800)).0, none);
    assert_eq!(read(&snap(0, 0x05ff)).0, none);
    assert_eq!(read(&snap(0, 0x0800)[..21]).0, none);
    assert_eq!(read(&eth(&[], 38, &[0x42; 38])).0, none);
}

#[test]
fn arp_keeps_only_opcodes_that_fit_in_eight_bits() {
    let want = |op: u128| {
        key(&[
            (slot::ETH_TYPE, 0x0806),
            (slot::IP_SRC, 0x0a00_0001),
            (slot::IP_DST, 0x0a00_0002),
            (slot::IP_PROTO, op),
            (slot::ARP_SHA, 0x0a00_0000_0001),
            (slot::ARP_THA, 0x0a00_0000_0002),
        ])
    };
    assert_eq!(read(&eth(&[], 0x0806, &arp(2))).0, want(2));
    assert_eq!(read(&eth(&[], 0x0806, &arp(255))).0, want(255));
    assert_eq!(read(&eth(&[], 0x0806, &arp(256))).0, want(0));
    assert_eq!(read(&eth(&[], 0x0806, &arp(257))).0, want(0));
    assert_eq!(read(&eth(&[], 0x0806, &arp(2))).1.l3, L3::Arp);
    let mut rarp = want(3);
    rarp.set(slot::ETH_TYPE, 0x8035);
    assert_eq!(read(&eth(&[], 0x8035, &arp(3))).0, rarp);
}

#[test]
fn arp_for_other_hardware_or_cut_short_has_no_fields() {
    let none = key(&[(slot::ETH_TYPE, 0x0806)]);
    for (at, byte) in [(1, 6), (2, 0x86), (3, 1), (4, 8), (5, 16)] {
        let mut body = arp(1);
        body[at] = byte;
        assert_eq!(read(&eth(&[], 0x0806, &body)).0, none);
    }
    assert_eq!(read(&eth(&[], 0x0806, &arp(1)[..27])).0, none);
}

#[test]
fn an_ipv4_header_whose_lengths_do_not_fit_has_no_fields() {
    let good = ipv4(17, &udp(b"data"));
    let none = (key(&[(slot::ETH_TYPE, 0x0800)]), Layers { l3_ofs: 14, ..Layers::NONE });
    let mut cases = vec![good[..19].to_vec(), good[..good.len() - 1].to_vec()];
    for (at, byte) in [(0, 0x44), (0, 0x4f), (3, 0), (3, 19), (3, 33)] {
        let mut bad = good.clone();
        bad[at] = byte;
        cases.push(bad);
    }
    for case in cases {
        assert_eq!(read(&eth(&[], 0x0800, &case)), none, "{case:02x?}");
    }
}

#[test]
fn padding_behind_an_ipv4_datagram_is_not_read() {
    let mut packet = ipv4(17, &[]);
    packet.extend(udp(b""));
    let (got, layers) = read(&eth(&[], 0x0800, &packet));
    assert_eq!(got, key4(17, 0, &[]));
    assert_eq!((layers.l3, layers.l4, layers.l4_ofs, layers.payload_ofs), (L3::Ipv4, L4::None, 34, 0));
}

#[test]
fn only_the_first_ipv4_fragment_has_ports() {
    let frame = |flags_offset| read(&eth(&[], 0x0800, &ipv4_frag(17, flags_offset, &[], &udp(b"")))).0;
    assert_eq!(frame(0x4000), key4(17, 0, &PORTS));
    assert_eq!(frame(0x8000), key4(17, 0, &PORTS));
    assert_eq!(frame(0x2000), key4(17, FRAG_ANY, &PORTS));
    assert_eq!(frame(0x2001), key4(17, FRAG_ANY | FRAG_LATER, &[]));
    assert_eq!(frame(0x0001), key4(17, FRAG_ANY | FRAG_LATER, &[]));
}

#[test]
fn ipv4_options_move_the_transport_header() {
    let (got, layers) = read(&eth(&[], 0x0800, &ipv4_frag(17, 0, &[1; 40], &udp(b""))));
    assert_eq!(got, key4(17, 0, &PORTS));
    assert_eq!((layers.l4_ofs, layers.payload_ofs), (74, 82));
}

#[test]
fn a_tcp_header_needs_all_the_bytes_it_claims() {
    let none = key4(6, 0, &[]);
    for len in [0, 19, 20, 23] {
        let segment = tcp(2, &[1, 1, 1, 1], b"");
        assert_eq!(read(&eth(&[], 0x0800, &ipv4(6, &segment[..len]))).0, none, "{len} bytes");
    }
    let mut short = tcp(2, &[], b"");
    short[12] = 0x40;
    assert_eq!(read(&eth(&[], 0x0800, &ipv4(6, &short))).0, none);
}

#[test]
fn transport_headers_need_their_fixed_length() {
    let type_code = [(slot::TP_SRC, 8), (slot::TP_DST, 1)];
    for (proto, body, len, slots) in
        [(17, udp(b""), 8, PORTS), (132, sctp(b""), 12, PORTS), (1, vec![8, 1, 0, 0, 0, 0, 0, 0], 8, type_code)]
    {
        assert_eq!(read(&eth(&[], 0x0800, &ipv4(proto, &body))).0, key4(proto, 0, &slots));
        assert_eq!(read(&eth(&[], 0x0800, &ipv4(proto, &body[..len - 1]))).0, key4(proto, 0, &[]));
    }
}

#[test]
fn an_icmp_of_the_other_ip_version_is_not_read() {
    let message = [128, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(read(&eth(&[], 0x0800, &ipv4(58, &message))).0, key4(58, 0, &[]));
    assert_eq!(read(&eth(&[], 0x86dd, &ipv6(1, &message))).0, key6(1, 0, &[]));
}

#[test]
fn ipv6_gives_addresses_class_label_and_hop_limit() {
    let (got, layers) = read(&eth(&[(0x8100, 1)], 0x86dd, &ipv6(17, &udp(b"x"))));
    let tag = [(slot::VLAN_TCI, 0x1001), (slot::VLAN_TPID, 0x8100)];
    assert_eq!(got, key6(17, 0, &[&PORTS[..], &tag].concat()));
    let want = Layers { l3_ofs: 18, l4_ofs: 58, payload_ofs: 66, vlans: 1, l3: L3::Ipv6, l4: L4::Udp, routed: false };
    assert_eq!(layers, want);
}

#[test]
fn an_ipv6_payload_longer_than_the_frame_leaves_no_fields() {
    let mut packet = ipv6(17, &udp(b""));
    packet[5] += 1;
    assert_eq!(read(&eth(&[], 0x86dd, &packet)).0, key(&[(slot::ETH_TYPE, 0x86dd)]));
}

#[test]
fn an_ipv6_payload_length_of_zero_is_no_payload() {
    let mut packet = ipv6(17, &udp(b""));
    packet[5] = 0;
    assert_eq!(read(&eth(&[], 0x86dd, &packet)).0, key6(17, 0, &[]));
    packet[6] = HOP_BY_HOP;
    assert_eq!(read(&eth(&[], 0x86dd, &packet)).0, key(&ADDRESSES6));
}

#[test]
fn extension_headers_are_walked_to_the_last_one() {
    let header = |next: u8, len_field: u8, len: usize| {
        let mut header = vec![0; len];
        (header[0], header[1]) = (next, len_field);
        header
    };
    let hop_by_hop = header(60, 0, 8);
    let destination = header(43, 1, 16);
    let routing = header(44, 2, 24);
    let fragment = header(51, 0, 8);
    let authentication = header(17, 2, 16);
    let packet = [hop_by_hop, destination, routing, fragment, authentication, udp(b"")].concat();
    let (got, layers) = read(&eth(&[], 0x86dd, &ipv6(0, &packet)));
    assert_eq!(got, key6(17, 0, &PORTS));
    assert_eq!((layers.l4_ofs, layers.l4, layers.routed), (14 + 40 + 72, L4::Udp, false));
}

#[test]
fn a_routing_header_with_segments_left_is_noted() {
    let mut packet = vec![17, 0, 0, 1, 0, 0, 0, 0];
    packet.extend(udp(b""));
    assert!(read(&eth(&[], 0x86dd, &ipv6(43, &packet))).1.routed);
}

#[test]
fn an_extension_header_that_runs_out_leaves_the_addresses_only() {
    for (next, header) in [
        (0, vec![17, 0, 0, 0, 0, 0, 0]),
        (60, vec![17, 1, 0, 0, 0, 0, 0, 0]),
        (51, vec![17, 1, 0, 0, 0, 0, 0, 0]),
        (44, vec![17, 0, 0, 0, 0, 0, 0]),
        (43, vec![60, 0, 0, 0, 0, 0, 0, 0]),
    ] {
        let (got, layers) = read(&eth(&[], 0x86dd, &ipv6(next, &header)));
        assert_eq!(got, key(&ADDRESSES6), "next header {next}");
        assert_eq!(layers, Layers { l3_ofs: 14, l3: L3::Ipv6, ..Layers::NONE });
    }
}

#[test]
fn a_later_ipv6_fragment_has_protocol_44_and_no_ports() {
    let frame = |offset_flags: u16| {
        let mut packet = vec![17, 0];
        packet.extend(offset_flags.to_be_bytes());
        packet.extend([0, 0, 0, 1]);
        packet.extend(udp(b""));
        read(&eth(&[], 0x86dd, &ipv6(44, &packet))).0
    };
    assert_eq!(frame(0x0000), key6(17, 0, &PORTS));
    assert_eq!(frame(0x0001), key6(17, FRAG_ANY, &PORTS));
    assert_eq!(frame(0x0002), key6(17, FRAG_ANY, &PORTS));
    assert_eq!(frame(0x0008), key6(44, FRAG_ANY | FRAG_LATER, &[]));
    assert_eq!(frame(0x0009), key6(44, FRAG_ANY | FRAG_LATER, &[]));
}

const SLL: [u8; 8] = [1, 1, 0x0b, 0, 0, 0, 0, 1];
const TLL: [u8; 8] = [2, 1, 0x0c, 0, 0, 0, 0, 2];

/// The key of a neighbour discovery message of [`nd`].
fn key_nd(kind: u8, target: u128, sll: u128, tll: u128) -> PacketKey {
    let kind = (slot::TP_SRC, u128::from(kind));
    key6(58, 0, &[kind, (slot::ND_TARGET, target), (slot::ARP_SHA, sll), (slot::ARP_THA, tll)])
}

#[test]
fn neighbour_discovery_gives_target_and_link_layer_addresses() {
    const TARGET: u128 = 0x2001_0db8_0000_0000_0000_0000_0000_0009;
    let read = |kind, options: &[&[u8]]| {
        let mut key = read(&eth(&[], 0x86dd, &ipv6(58, &nd(kind, 0, &options.concat())))).0;
        key.set(slot::ND_OPTIONS_TYPE, 0);
        key
    };
    let (sll, tll) = (0x0b00_0000_0001, 0x0c00_0000_0002);
    assert_eq!(read(135, &[&SLL]), key_nd(135, TARGET, sll, 0));
    assert_eq!(read(136, &[&TLL]), key_nd(136, TARGET, 0, tll));
    assert_eq!(read(136, &[&SLL, &TLL]), key_nd(136, TARGET, sll, tll));
    // An option of another size is passed over; one of length 0 or past the end stops the walk.
    assert_eq!(read(135, &[&[1, 2], &[5; 14], &SLL]), key_nd(135, TARGET, sll, 0));
    assert_eq!(read(135, &[&[14, 0, 0, 0, 0, 0, 0, 0], &SLL]), key_nd(135, TARGET, 0, 0));
    assert_eq!(read(135, &[&SLL, &[2, 2, 9, 9, 9, 9, 9, 9]]), key_nd(135, TARGET, sll, 0));
    assert_eq!(read(135, &[&SLL[..7]]), key_nd(135, TARGET, 0, 0));
    // An empty address counts as not given, a second one makes the message invalid.
    assert_eq!(read(135, &[&[1, 1, 0, 0, 0, 0, 0, 0], &SLL]), key_nd(135, TARGET, sll, 0));
    assert_eq!(read(135, &[&SLL, &SLL]), key_nd(135, 0, 0, 0));
    assert_eq!(read(135, &[&TLL, &SLL, &TLL]), key_nd(135, 0, 0, 0));
}

#[test]
fn icmpv6_that_is_no_whole_neighbour_message_has_type_and_code_only() {
    let read = |body: &[u8]| read(&eth(&[], 0x86dd, &ipv6(58, body))).0;
    let want = |kind, code| key6(58, 0, &[(slot::TP_SRC, kind), (slot::TP_DST, code)]);
    assert_eq!(read(&nd(135, 1, &SLL)), want(135, 1));
    assert_eq!(read(&nd(134, 0, &SLL)), want(134, 0));
    assert_eq!(read(&nd(135, 0, &[])[..23]), want(135, 0));
    assert_eq!(read(&nd(135, 0, &[])[..7]), key6(58, 0, &[]));
}

#[test]
fn a_super_frame_of_full_length_is_read_like_any_other() {
    let body = tcp(0x10, &[], &vec![0; 65_535 - 20]);
    assert_eq!(read(&eth(&[], 0x86dd, &ipv6(6, &body))).1.payload_ofs, 74);
    let body = tcp(0x10, &[], &vec![0; 65_535 - 40]);
    assert_eq!(read(&eth(&[], 0x0800, &ipv4(6, &body))).1.payload_ofs, 54);
}

#[test]
fn a_chain_of_extension_headers_longer_than_an_offset_can_tell_ends_the_walk() {
    let mut chain = vec![0; 65_535];
    for header in chain.chunks_mut(8) {
        header[0] = DESTINATION;
    }
    chain[65_520] = 17;
    let (got, layers) = read(&eth(&[(0x8100, 1), (0x8100, 2)], 0x86dd, &ipv6(60, &chain)));
    assert_eq!(got.get(slot::IPV6_SRC), u128::from_be_bytes(A6));
    assert_eq!((got.get(slot::IP_PROTO), layers.l4_ofs), (0, 0));
}
