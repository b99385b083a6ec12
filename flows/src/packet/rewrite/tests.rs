use super::{pop_vlan, push_vlan, set_field};
use crate::field::{FIELDS, Field, Prereq};
use crate::key::{FRAME_WORDS, FlowMask, PacketKey, VLAN_PRESENT, slot};
use crate::packet::compose::compose;
use crate::packet::segment::fill_checksum;
use crate::packet::testing::*;
use crate::packet::{Frame, HEADROOM, L4, Layers, Offload, extract};
use proptest::prelude::*;

const ALL: u128 = u128::MAX;

fn read(bytes: &[u8]) -> (PacketKey, Layers) {
    let mut key = PacketKey::ZERO;
    let layers = extract(bytes, 1, &mut key);
    (key, layers)
}

/// The frame after one [`set_field`], or `None` when it said that the header is not there (and changed nothing).
fn with(bytes: &[u8], field: Field, value: u128, mask: u128) -> Option<Vec<u8>> {
    let mut frame = Frame::from_bytes(bytes);
    let there = set_field(&mut frame, &read(bytes).1, field, value, mask);
    assert!(there || frame.bytes() == bytes);
    there.then(|| frame.bytes().to_vec())
}

/// Offsets at which two frames of equal length differ.
fn changed(a: &[u8], b: &[u8]) -> Vec<usize> {
    assert_eq!(a.len(), b.len());
    (0..a.len()).filter(|i| a[*i] != b[*i]).collect()
}

/// `frame` with its transport checksum filled in.
fn finished(bytes: &[u8]) -> Vec<u8> {
    let mut frame = partial(bytes);
    fill_checksum(&mut frame).unwrap();
    frame.bytes().to_vec()
}

/// `frame` with a partial transport checksum, as a kernel hands it over.
fn partial(bytes: &[u8]) -> Frame {
    let mut frame = Frame::from_bytes(bytes);
    let (_, layers) = read(bytes);
    let offset = match layers.l4 {
        L4::Tcp => 16,
        L4::Udp => 6,
        L4::Icmpv6 => 2,
        L4::Sctp => 8,
        _ => return frame,
    };
    frame.offload = Offload { csum_partial: true, csum_start: layers.l4_ofs, csum_offset: offset, ..Offload::NONE };
    set_partial(frame.bytes_mut(), &layers);
    frame
}

#[test]
fn tags_come_and_go_in_front_and_take_offsets_along() {
    let packet = ipv4(17, &udp(b"data"));
    let mut frame = Frame::from_bytes(&eth(&[], 0x0800, &packet));
    frame.offload.csum_partial = true;
    frame.offload.csum_start = 34;
    let (bare, offload) = (read(frame.bytes()).1, frame.offload);
    let mut at = bare;
    assert!(push_vlan(&mut frame, &mut at, 0x8100, 0x3005));
    assert!(push_vlan(&mut frame, &mut at, 0x88a8, 0x0064));
    assert_eq!(frame.bytes(), eth(&[(0x88a8, 0x0064), (0x8100, 0x2005)], 0x0800, &packet));
    assert_eq!(at, read(frame.bytes()).1);
    assert_eq!(frame.offload.csum_start, 42);
    assert!(pop_vlan(&mut frame, &mut at));
    assert!(pop_vlan(&mut frame, &mut at));
    assert_eq!(frame.bytes(), eth(&[], 0x0800, &packet));
    assert_eq!((at, frame.offload), (bare, offload));
    assert!(!pop_vlan(&mut frame, &mut at));
}

#[test]
fn tags_are_pushed_until_the_headroom_is_used_up() {
    let mut frame = Frame::from_bytes(&eth(&[], 0x0800, &[]));
    let mut at = read(frame.bytes()).1;
    let pushed = (0..HEADROOM).take_while(|_| push_vlan(&mut frame, &mut at, 0x8100, 1)).count();
    assert_eq!(pushed, HEADROOM / 4);
    let before = frame.bytes().to_vec();
    assert!(!push_vlan(&mut frame, &mut at, 0x8100, 1));
    assert_eq!(frame.bytes(), before);
    assert!((0..pushed).all(|_| pop_vlan(&mut frame, &mut at)));
    assert_eq!(frame.bytes(), eth(&[], 0x0800, &[]));
}

#[test]
fn a_frame_without_an_ethernet_header_takes_neither_tag_nor_address() {
    let mut frame = Frame::from_bytes(&[0; 13]);
    assert!(!push_vlan(&mut frame, &mut Layers::default(), 0x8100, 1));
    assert_eq!(with(&[0; 13], Field::EthSrc, 1, ALL), None);
}

#[test]
fn an_address_changes_with_both_checksums() {
    let frame = finished(&eth(&[(0x8100, 1)], 0x0800, &ipv4(6, &tcp(2, &[], b"data"))));
    let got = with(&frame, Field::IpDst, 0xc0a8_0107, ALL).unwrap();
    assert_eq!(got[34..38], [192, 168, 1, 7]);
    assert_eq!(changed(&frame, &got), [28, 29, 34, 35, 36, 37, 54, 55]);
    assert_eq!(check(&got, &read(&got).1), Ok(()));
}

#[test]
fn only_the_masked_bits_of_a_field_change() {
    let frame = finished(&eth(&[], 0x86dd, &ipv6(17, &udp(b"data"))));
    let got = with(&frame, Field::Ipv6Src, 0xff << 64 | 0xffff, 0x0f << 64 | 0xff).unwrap();
    assert_eq!(got[22..38], [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0x0f, 0, 0, 0, 0, 0, 0, 0, 0xff]);
    assert_eq!(check(&got, &read(&got).1), Ok(()));
}

#[test]
fn a_damaged_frame_stays_damaged() {
    let mut frame = finished(&eth(&[], 0x0800, &ipv4(17, &udp(b"data"))));
    frame[45] ^= 0x40;
    let got = with(&frame, Field::UdpSrc, 53, ALL).unwrap();
    assert_eq!(check(&got, &read(&got).1), Err(Wrong::Transport(L4::Udp)));
}

#[test]
fn udp_without_a_checksum_gets_none() {
    let frame = eth(&[], 0x0800, &ipv4(17, &udp(b"data")));
    for (field, value) in [(Field::IpSrc, 7), (Field::UdpDst, 7)] {
        assert_eq!(with(&frame, field, value, ALL).unwrap()[40..42], [0, 0]);
    }
}

#[test]
fn an_udp_checksum_that_becomes_zero_is_written_as_ffff() {
    let frame = finished(&eth(&[], 0x0800, &ipv4(17, &udp(b""))));
    // A port that absorbs the checksum: the sum grows by what was missing to 0xffff.
    let missing = u128::from(u16::from_be_bytes([frame[40], frame[41]]));
    let got = with(&frame, Field::UdpSrc, 1000 + missing, ALL).unwrap();
    assert_eq!(got[40..42], [0xff, 0xff]);
    assert_eq!(check(&got, &read(&got).1), Ok(()));
}

#[test]
fn ports_leave_a_partial_checksum_alone_and_addresses_do_not() {
    let mut frame = partial(&eth(&[], 0x0800, &ipv4(17, &udp(b"data"))));
    let (before, layers) = (frame.bytes().to_vec(), read(frame.bytes()).1);
    assert!(set_field(&mut frame, &layers, Field::UdpSrc, 53, ALL));
    assert_eq!(frame.bytes()[40..42], before[40..42]);
    assert!(set_field(&mut frame, &layers, Field::IpSrc, 0x0a00_00ff, ALL));
    let sum = |bytes: &[u8]| u16::from_be_bytes([bytes[40], bytes[41]]);
    assert_eq!(sum(frame.bytes()), sum(&before) + 0xfe);
}

#[test]
fn a_partial_checksum_of_an_inner_header_leaves_the_outer_one_complete() {
    let bytes = finished(&eth(&[], 0x0800, &ipv4(17, &udp(&[0; 60]))));
    let mut frame = Frame::from_bytes(&bytes);
    frame.offload = Offload { csum_partial: true, csum_start: 84, csum_offset: 16, ..Offload::NONE };
    assert!(set_field(&mut frame, &read(&bytes).1, Field::UdpSrc, 53, ALL));
    assert_eq!(check(frame.bytes(), &read(&bytes).1), Ok(()));
}

#[test]
fn a_later_fragment_changes_in_its_ip_header_only() {
    let frame = eth(&[], 0x0800, &ipv4_frag(17, 0x0002, &[], &udp(b"data")));
    let got = with(&frame, Field::IpSrc, 0x0b00_0001, ALL).unwrap();
    assert_eq!(changed(&frame, &got), [24, 26]);
    assert_eq!(check(&got, &read(&got).1), Ok(()));
    assert_eq!(with(&frame, Field::UdpSrc, 53, ALL), None);
}

#[test]
fn a_first_fragment_carries_the_checksum_of_the_whole() {
    let whole = finished(&eth(&[], 0x0800, &ipv4(17, &udp(b"datamore"))));
    let want = with(&whole, Field::IpSrc, 0x0b00_0001, ALL).unwrap();
    // The same datagram, of which the first fragment holds four bytes.
    let first = eth(&[], 0x0800, &ipv4_frag(17, 0x2000, &[], &whole[34..46]));
    let got = with(&first, Field::IpSrc, 0x0b00_0001, ALL).unwrap();
    assert_eq!(got[34..46], want[34..46]);
}

#[test]
fn the_destination_ahead_of_a_routing_header_is_not_in_the_checksum() {
    let mut packet = vec![17, 0, 0, 1, 0, 0, 0, 0];
    packet.extend(udp(b"data"));
    let frame = finished(&eth(&[], 0x86dd, &ipv6(43, &packet)));
    let got = with(&frame, Field::Ipv6Dst, 7, ALL).unwrap();
    assert!(changed(&frame, &got).iter().all(|at| (38..54).contains(at)));
    let got = with(&frame, Field::Ipv6Src, 7, ALL).unwrap();
    assert!(changed(&frame, &got).contains(&69));
}

#[test]
fn tos_dscp_and_ecn_share_a_byte() {
    for frame in [eth(&[], 0x0800, &ipv4(17, &udp(b""))), eth(&[], 0x86dd, &ipv6(17, &udp(b"")))] {
        let tos = |field, value, mask| {
            let got = with(&frame, field, value, mask).unwrap();
            assert_eq!(check(&got, &read(&got).1), Ok(()));
            read(&got).0.get(slot::IP_TOS)
        };
        let old = read(&frame).0.get(slot::IP_TOS);
        assert_eq!(tos(Field::NwTos, 0x44, 0xfc), 0x44 | old & 3);
        assert_eq!(tos(Field::NwTos, 0x47, ALL), 0x47);
        assert_eq!(tos(Field::IpDscp, 0x11, ALL), 0x44 | old & 3);
        assert_eq!(tos(Field::IpEcn, 0x2, ALL), 2 | old & 0xfc);
    }
}

#[test]
fn vlan_fields_keep_the_drop_eligible_bit() {
    let frame = eth(&[(0x8100, 0x5005), (0x8100, 0x0006)], 0x0800, &[]);
    let tci = |field, value| with(&frame, field, value, ALL).unwrap()[14..16].to_vec();
    assert_eq!(tci(Field::VlanVid, 0x1abc), [0x5a, 0xbc]);
    assert_eq!(tci(Field::VlanPcp, 7), [0xf0, 0x05]);
    assert_eq!(tci(Field::VlanTci, 0), [0x10, 0x00]);
    assert_eq!(with(&eth(&[], 0x0800, &[]), Field::VlanVid, 5, ALL), None);
}

#[test]
fn an_arp_opcode_of_sixteen_bits_is_replaced_whole() {
    let frame = eth(&[], 0x0806, &arp(0x0102));
    assert_eq!(with(&frame, Field::ArpOp, 2, ALL).unwrap()[20..22], [0, 2]);
    assert_eq!(with(&frame, Field::ArpOp, 0xff, 0x01).unwrap()[20..22], [0, 1]);
}

#[test]
fn a_neighbour_address_is_written_only_into_an_option_that_is_there() {
    const SLL: [u8; 8] = [1, 1, 0x0b, 0, 0, 0, 0, 1];
    let frame = |kind, code, options: &[u8]| finished(&eth(&[], 0x86dd, &ipv6(58, &nd(kind, code, options))));
    let solicit = frame(135, 0, &SLL);
    let got = with(&solicit, Field::NdSll, 0x0c0c_0c0c_0c0c, ALL).unwrap();
    assert_eq!(got[78..86], [1, 1, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c]);
    assert_eq!(check(&got, &read(&got).1), Ok(()));
    assert_eq!(with(&solicit, Field::NdTll, 1, ALL), None);
    assert_eq!(with(&frame(135, 1, &SLL), Field::NdSll, 1, ALL), None);
    assert_eq!(with(&frame(135, 0, &[SLL, SLL].concat()), Field::NdSll, 1, ALL), None);
    assert_eq!(with(&frame(134, 0, &SLL), Field::NdTarget, 1, ALL), None);
}

#[test]
fn reserved_field_and_option_type_are_written_where_open_vswitch_has_them() {
    const NONCE: [u8; 8] = [14, 1, 0x0b, 0, 0, 0, 0, 1];
    let frame = |kind, options: &[u8]| finished(&eth(&[], 0x86dd, &ipv6(58, &nd(kind, 0, options))));
    let advert = frame(136, &NONCE);
    let got = with(&advert, Field::NdReserved, 0xe000_0001, ALL).unwrap();
    assert_eq!(got[58..62], [0xe0, 0, 0, 1]);
    assert_eq!(read(&got).0.get(slot::ND_RESERVED), 0xe000_0001);
    let got = with(&advert, Field::NdOptionsType, 2, ALL).unwrap();
    assert_eq!((got[78], check(&got, &read(&got).1)), (2, Ok(())));
    assert_eq!(read(&got).0.get(slot::ARP_THA), 0x0b00_0000_0001);
    assert_eq!(with(&frame(136, &[]), Field::NdOptionsType, 2, ALL), None);
    assert!(with(&frame(136, &[]), Field::NdReserved, 2, ALL).is_some());
}

#[test]
fn labels_and_nsh_have_fields_of_their_own() {
    let mpls = eth(&[], 0x8847, &[0, 6, 0x40, 0x40, 0, 7, 0x41, 0x40]);
    assert_eq!(with(&mpls, Field::MplsLabel, 0xf_ffff, ALL).unwrap()[14..], [0xff, 0xff, 0xf0, 0x40, 0, 7, 0x41, 0x40]);
    assert_eq!(with(&mpls, Field::MplsTc, 7, ALL).unwrap()[14..18], [0, 6, 0x4e, 0x40]);
    assert_eq!(with(&mpls, Field::MplsBos, 1, ALL), None);
    let nsh = |first: &[u8; 4], rest: usize| [&eth(&[], 0x894f, first)[..], &vec![0; rest]].concat();
    let type1 = nsh(&[0x0f, 0xc6, 1, 1], 20);
    assert_eq!(with(&type1, Field::NshTtl, 0, ALL).unwrap()[14..16], [0, 6]);
    assert_eq!(with(&type1, Field::NshFlags, 0xff, ALL).unwrap()[14..16], [0x3f, 0xc6]);
    assert_eq!(with(&type1, Field::NshC4, 1, ALL).unwrap()[34..38], [0, 0, 0, 1]);
    assert_eq!(with(&nsh(&[0x0f, 0xc6, 2, 1], 20), Field::NshC1, 1, ALL), None);
    assert_eq!(with(&nsh(&[0x0f, 0xc6, 1, 1], 19), Field::NshTtl, 1, ALL), None, "it is cut off");
}

#[test]
fn an_sctp_port_changes_with_the_crc_unless_that_is_partial() {
    let bytes = eth(&[], 0x0800, &ipv4(132, &sctp(b"chunk")));
    let got = with(&bytes, Field::SctpDst, 7, ALL).unwrap();
    assert_eq!(check(&got, &read(&got).1), Ok(()));
    assert_ne!(got[42..46], bytes[42..46]);
    let mut frame = partial(&bytes);
    assert!(set_field(&mut frame, &read(&bytes).1, Field::SctpDst, 7, ALL));
    assert_eq!(frame.bytes()[42..46], bytes[42..46]);
}

#[test]
fn a_field_that_no_frame_holds_is_not_written() {
    let frame = eth(&[], 0x0800, &ipv4(6, &tcp(2, &[], b"")));
    for field in [Field::Reg0, Field::Metadata, Field::PktMark, Field::InPort, Field::EthType, Field::IpProto] {
        assert_eq!(with(&frame, field, 1, ALL), None, "{field:?}");
    }
    assert_eq!(with(&frame, Field::TcpFlags, 1, ALL), None);
    assert_eq!(with(&frame, Field::UdpSrc, 1, ALL), None);
    assert_eq!(with(&frame, Field::Ipv6Src, 1, ALL), None);
}

fn any_field() -> impl Strategy<Value = Field> {
    (0..FIELDS.len()).prop_map(|i| FIELDS[i].field)
}

/// Whether a frame with this key, composed by us, has `field` in its bytes in a place that actions may change.
fn is_there(field: Field, key: &PacketKey) -> bool {
    let info = field.info();
    let in_frame = usize::from(info.slot.word) < FRAME_WORDS;
    if !info.writable || !in_frame || matches!(field, Field::InPort | Field::PktMark) {
        return false;
    }
    let mut unused = FlowMask::ZERO;
    let first = key.get(slot::ND_OPTIONS_TYPE);
    match field {
        Field::VlanTci | Field::VlanVid => key.get(slot::VLAN_TCI) != 0,
        // An option is composed when its address is not zero or it is the first, and may be written whatever the
        // message's type.
        Field::NdSll | Field::NdTll => {
            let kind = if field == Field::NdSll { 1 } else { 2 };
            Prereq::Nd.holds(&key.into(), &mut unused) && (key.get(info.slot) != 0 || first == kind)
        }
        Field::NdOptionsType => Prereq::Nd.holds(&key.into(), &mut unused) && first != 0,
        Field::NshC1 | Field::NshC2 | Field::NshC3 | Field::NshC4 => {
            info.prereq.holds(&key.into(), &mut unused) && key.get(slot::NSH_MDTYPE) == 1
        }
        _ => info.prereq.holds(&key.into(), &mut unused),
    }
}

/// What `key` should be after `field` was set.
fn expected(mut key: PacketKey, field: Field, value: u128, mask: u128) -> PacketKey {
    let present = if field.slot().word == slot::VLAN_TCI.word && field.slot().shift == 0 { VLAN_PRESENT } else { 0 };
    let on_wire = match field {
        Field::NshFlags => 0x3,
        Field::NshTtl => 0x3f,
        _ => ALL,
    };
    key.set_masked(field.slot(), value, mask & on_wire & !u128::from(present));
    key
}

/// Whether setting the field can turn an ICMPv6 message into, or out of, neighbour discovery.
fn changes_kind(field: Field) -> bool {
    matches!(field, Field::Icmpv6Type | Field::Icmpv6Code)
}

/// Whether setting the field can make one neighbour discovery option another, so that it reads back as none.
fn changes_option(field: Field) -> bool {
    field == Field::NdOptionsType
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_set_field_reads_back_and_every_checksum_verifies(
        key in canonical_key(), payload in canonical_payload(), field in any_field(), value: u128, mask: u128,
        whole: bool
    ) {
        let mask = if whole { ALL } else { mask };
        let bytes = compose(&key, &payload);
        let (before, _) = read(&bytes);
        let got = with(&bytes, field, value, mask);
        prop_assert_eq!(got.is_some(), is_there(field, &before), "{:?}", field);
        if let Some(got) = got {
            let (after, layers) = read(&got);
            prop_assert_eq!(check(&got, &layers), Ok(()));
            let want = expected(before, field, value, mask);
            if changes_option(field) {
                let at = usize::from(layers.l4_ofs) + 24;
                let old = bytes[at];
                prop_assert_eq!(got[at], old & !(mask as u8) | value as u8 & mask as u8);
            } else if changes_kind(field) {
                prop_assert_eq!(after.get(field.slot()), want.get(field.slot()));
            } else {
                prop_assert_eq!(after, want);
            }
        }
    }

    #[test]
    fn a_partial_checksum_completed_later_is_the_complete_one_updated(
        key in canonical_key(), payload in canonical_payload(), changes in proptest::collection::vec((any_field(), any::<u128>()), 1..4)
    ) {
        let bytes = compose(&key, &payload);
        let layers = read(&bytes).1;
        let mut complete = Frame::from_bytes(&bytes);
        let mut later = partial(&bytes);
        for (field, value) in changes {
            let there = set_field(&mut complete, &layers, field, value, ALL);
            prop_assert_eq!(set_field(&mut later, &layers, field, value, ALL), there);
        }
        // In a fragment the sum over the rest is somebody else's.
        if key.get(slot::IP_FRAG) == 0 {
            fill_checksum(&mut later).unwrap();
            prop_assert_eq!(check(later.bytes(), &layers), Ok(()));
            prop_assert_eq!(check(complete.bytes(), &layers), Ok(()));
            let differ = changed(later.bytes(), complete.bytes());
            prop_assert!(differ.is_empty() || differ.iter().all(|i| matches!(later.bytes()[*i], 0 | 0xff)), "{:?}", differ);
        }
    }

    #[test]
    fn layers_of_another_frame_do_no_more_than_change_wrong_bytes(
        bytes in proptest::collection::vec(any::<u8>(), 0..120), other in canonical_key(), field in any_field(),
        value: u128, start: u16
    ) {
        let layers = read(&compose(&other, &[])).1;
        let mut frame = Frame::from_bytes(&bytes);
        frame.offload = Offload { csum_partial: start & 1 == 0, csum_start: start, ..Offload::NONE };
        set_field(&mut frame, &layers, field, value, ALL);
        prop_assert_eq!(frame.len(), bytes.len());
        let mut moved = layers;
        pop_vlan(&mut frame, &mut moved);
        push_vlan(&mut frame, &mut moved, 0x8100, 1);
        set_field(&mut frame, &moved, field, value, ALL);
    }

    #[test]
    fn any_frame_takes_any_field(
        bytes in proptest::collection::vec(any::<u8>(), 0..120),
        eth_type in prop_oneof![Just(0x0800u16), Just(0x86dd), Just(0x0806), Just(0x8847), Just(0x894f)],
        field in any_field(), value: u128
    ) {
        let frame = eth(&[], eth_type, &bytes);
        if let Some(got) = with(&frame, field, value, ALL) {
            prop_assert_eq!(read(&got).1.l3_ofs, read(&frame).1.l3_ofs);
        }
    }
}
