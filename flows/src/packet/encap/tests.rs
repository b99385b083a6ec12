use super::*;
use crate::action::NshTlv;
use crate::field::Field;
use crate::key::{FlowKey, slot};
use crate::packet::Offload;
use crate::packet::compose::compose;
use crate::packet::rewrite::{push_vlan, set_field};
use crate::packet::segment::{Segmenter, fill_checksum, wire_len};
use crate::packet::testing::*;
use proptest::prelude::*;

fn read(bytes: &[u8]) -> (PacketKey, Layers) {
    let mut key = PacketKey::ZERO;
    let layers = extract(bytes, 0, &mut key);
    (key, layers)
}

fn frame(bytes: &[u8]) -> (Frame, Layers) {
    (Frame::from_bytes(bytes), read(bytes).1)
}

fn nsh(md_type: u8, np: u8) -> NshHeader {
    let tlv = |len: usize| NshTlv { class: 0x1234, ty: 0x56, value: vec![7; len].into() };
    NshHeader {
        flags: 2,
        ttl: 63,
        md_type,
        np,
        path: 0x0000_0aff,
        context: [1, 2, 3, 4],
        tlvs: if md_type == 2 { [tlv(5), tlv(0), tlv(4)].into() } else { Box::default() },
    }
}

#[test]
fn a_label_goes_behind_the_tags_and_comes_off_again() {
    let packet = ipv4(17, &udp(b"data"));
    let tagged = eth(&[(0x88a8, 5), (0x8100, 6)], 0x0800, &packet);
    let (mut frame, mut layers) = frame(&tagged);
    frame.offload = Offload { csum_partial: true, csum_start: 42, csum_offset: 6, ..Offload::NONE };
    let (before, offload) = (layers, frame.offload);
    assert!(push_mpls(&mut frame, &mut layers, 0x8847, 0x0006_4140));
    let one = [&[0, 6, 0x41, 0x40][..], &packet].concat();
    assert_eq!(frame.bytes(), eth(&[(0x88a8, 5), (0x8100, 6)], 0x8847, &one));
    assert!(push_mpls(&mut frame, &mut layers, 0x8848, 0x0007_0040));
    assert_eq!(frame.bytes(), eth(&[(0x88a8, 5), (0x8100, 6)], 0x8848, &[&[0, 7, 0, 0x40], &one[..]].concat()));
    assert_eq!(layers, read(frame.bytes()).1);
    assert_eq!(frame.offload.csum_start, 50);
    assert!(pop_mpls(&mut frame, &mut layers, 0x8847));
    assert!(pop_mpls(&mut frame, &mut layers, 0x0800));
    assert_eq!((frame.bytes(), layers, frame.offload), (&tagged[..], before, offload));
    assert!(!pop_mpls(&mut frame, &mut layers, 0x0800));
    assert!(!push_mpls(&mut frame, &mut layers, 0x0800, 0));
    assert_eq!(frame.bytes(), tagged);
}

#[test]
fn the_fields_of_a_pushed_label_are_those_of_its_entry() {
    let (mut frame, mut layers) = frame(&eth(&[], 0x0800, &ipv4(17, &udp(b"data"))));
    assert!(push_mpls(&mut frame, &mut layers, 0x8847, 0x100));
    for (field, value) in [(Field::MplsLabel, 100), (Field::MplsTc, 5), (Field::MplsTtl, 64)] {
        assert!(set_field(&mut frame, &layers, field, value, u128::MAX));
    }
    assert_eq!(read(frame.bytes()).0.get(slot::MPLS_LSE), 100 << 12 | 5 << 9 | 1 << 8 | 64);
}

#[test]
fn a_frame_goes_into_nsh_whole_and_comes_out_whole() {
    for md_type in [1, 2] {
        let inner = eth(&[(0x8100, 6)], 0x0800, &ipv4(6, &tcp(2, &[], b"data")));
        let (mut frame, mut layers) = frame(&inner);
        let before = layers;
        assert!(push_nsh(&mut frame, &mut layers, &nsh(md_type, 3)));
        assert!(set_field(&mut frame, &layers, Field::NshSi, 0xfe, u128::MAX));
        assert!(push_ethernet(&mut frame, &mut layers, 0x0a, 0x0b, 0x894f));
        let (key, read_layers) = read(frame.bytes());
        assert_eq!(layers, read_layers);
        assert_eq!((key.get(slot::ETH_SRC), key.get(slot::ETH_DST), key.get(slot::NSH_PATH)), (0x0a, 0x0b, 0x0afe));
        assert_eq!((key.get(slot::NSH_FLAGS), key.get(slot::NSH_TTL)), (2, 63));
        assert_eq!(key.get(slot::NSH_CONTEXT) & 0xffff_ffff, if md_type == 1 { 4 } else { 0 });
        assert!(!pop_nsh(&mut frame, &mut layers), "the Ethernet header is in front");
        assert!(pop_ethernet(&mut frame, &mut layers));
        assert!(pop_nsh(&mut frame, &mut layers));
        assert_eq!((frame.bytes(), layers), (&inner[..], before));
    }
}

#[test]
fn metadata_is_padded_and_its_lengths_are_those_of_the_values() {
    let (mut frame, mut layers) = frame(&eth(&[], 0x0800, b"x"));
    assert!(push_nsh(&mut frame, &mut layers, &nsh(2, 3)));
    let tlvs = [&[0x12, 0x34, 0x56, 5][..], &[7; 5], &[0; 3], &[0x12, 0x34, 0x56, 0, 0x12, 0x34, 0x56, 4], &[7; 4]];
    assert_eq!(frame.bytes()[..2], [0x2f, 0xc0 | 8]);
    assert_eq!(frame.bytes()[8..32], tlvs.concat());
    let mut long = nsh(2, 3);
    long.tlvs = vec![NshTlv { class: 0, ty: 0, value: vec![0; 124].into() }; 2].into();
    let before = frame.bytes().to_vec();
    assert!(!push_nsh(&mut frame, &mut layers, &long));
    assert_eq!(frame.bytes(), before);
}

#[test]
fn an_ip_packet_changes_its_link_header() {
    let packet = ipv4(17, &udp(b"data"));
    let (mut frame, mut layers) = frame(&eth(&[(0x8100, 6)], 0x0800, &packet));
    assert!(pop_ethernet(&mut frame, &mut layers));
    assert_eq!(frame.bytes(), packet);
    assert!(!pop_ethernet(&mut frame, &mut layers));
    assert!(set_field(&mut frame, &layers, Field::IpTtl, 9, u128::MAX));
    assert!(!set_field(&mut frame, &layers, Field::EthDst, 9, u128::MAX));
    assert!(push_nsh(&mut frame, &mut layers, &nsh(1, 1)));
    assert!(pop_nsh(&mut frame, &mut layers));
    assert!(push_ethernet(&mut frame, &mut layers, 1, 2, 0x0800));
    assert_eq!(layers, read(frame.bytes()).1);
    assert_eq!(check(frame.bytes(), &layers), Ok(()));
    assert_eq!(read(frame.bytes()).0.get(slot::IP_TTL), 9);
}

/// A TCP super-frame of three segments, its checksum partial.
fn super_frame(v6: bool) -> (Frame, Layers) {
    let mut key = FlowKey::ZERO;
    key.set(slot::ETH_TYPE, if v6 { 0x86dd } else { 0x0800 });
    key.set(slot::IP_PROTO, 6);
    key.set(slot::IPV6_DST, 9);
    let bytes = compose(&key, &[0x5a; 250]);
    let (mut frame, layers) = frame(&bytes);
    frame.offload = Offload {
        gso: if v6 { GsoKind::Tcp6 } else { GsoKind::Tcp4 },
        gso_size: 100,
        csum_partial: true,
        csum_start: layers.l4_ofs,
        csum_offset: 16,
        ..Offload::NONE
    };
    set_partial(frame.bytes_mut(), &layers);
    (frame, layers)
}

fn segments(frame: &Frame) -> Vec<Vec<u8>> {
    let (mut out, mut all) = (Frame::with_capacity(2000), Vec::new());
    let mut segments = Segmenter::new(frame).unwrap();
    while segments.next_into(&mut out).unwrap() {
        all.push(out.bytes().to_vec());
    }
    all
}

#[test]
fn a_super_frame_under_new_headers_is_cut_into_segments_under_them() {
    for v6 in [false, true] {
        let (plain, plain_layers) = super_frame(v6);
        assert!(is_plain(&plain, &plain_layers));
        let want = segments(&plain);
        assert_eq!(want.len(), 3);
        for seg in &want {
            assert_eq!(check(seg, &read(seg).1), Ok(()));
        }
        let (mut frame, mut layers) = super_frame(v6);
        assert!(push_mpls(&mut frame, &mut layers, 0x8847, 0x0006_4140));
        assert!(push_mpls(&mut frame, &mut layers, 0x8847, 0x0007_4040));
        assert!(!is_plain(&frame, &layers));
        assert_eq!(wire_len(&frame), wire_len(&plain) + 8);
        let under_labels: Vec<_> = want
            .iter()
            .map(|s| [&s[..12], &[0x88, 0x47, 0, 7, 0x40, 0x40, 0, 6, 0x41, 0x40], &s[14..]].concat())
            .collect();
        assert_eq!(segments(&frame), under_labels);
        let (mut frame, mut layers) = super_frame(v6);
        assert!(push_vlan(&mut frame, &mut layers, 0x8100, 5));
        assert!(push_nsh(&mut frame, &mut layers, &nsh(1, 3)));
        assert!(push_ethernet(&mut frame, &mut layers, 1, 2, 0x894f));
        let in_nsh = segments(&frame);
        assert_eq!(in_nsh.len(), 3);
        for (seg, want) in in_nsh.iter().zip(&want) {
            assert_eq!(seg[14 + 24 + 16..], want[12..]);
        }
    }
}

#[test]
fn a_partial_checksum_under_a_label_is_completed_over_its_datagram_only() {
    let (mut frame, mut layers) = super_frame(false);
    frame.offload.gso = GsoKind::None;
    let mut want = frame.bytes().to_vec();
    let mut plain = Frame::from_bytes(&want);
    plain.offload = frame.offload;
    fill_checksum(&mut plain).unwrap();
    want[34 + 16..34 + 18].copy_from_slice(&plain.bytes()[34 + 16..34 + 18]);
    // Padding behind the datagram is not summed.
    let mut padded = Frame::with_capacity(500);
    padded.copy_from(&[frame.bytes(), &[0xff; 7]].concat());
    padded.offload = frame.offload;
    assert!(push_mpls(&mut padded, &mut layers, 0x8847, 0x100));
    fill_checksum(&mut padded).unwrap();
    assert_eq!(padded.bytes()[18..18 + want.len() - 14], want[14..]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_is_put_on_comes_off_without_a_trace(
        key in canonical_key(), payload in canonical_payload(), lse: u32, multicast: bool, md_type in 1..3u8
    ) {
        let bytes = compose(&key, &payload);
        let (mut frame, mut layers) = frame(&bytes);
        let (before, before_layers) = read(&bytes);
        let eth_type = before.get(slot::ETH_TYPE) as u16;
        if eth_type >= 0x600 {
            let mpls = if multicast { 0x8848 } else { 0x8847 };
            prop_assert!(push_mpls(&mut frame, &mut layers, mpls, lse));
            let (labelled, labelled_layers) = read(frame.bytes());
            prop_assert_eq!(layers, labelled_layers);
            prop_assert_eq!(labelled.get(slot::MPLS_LSE), lse.into());
            prop_assert_eq!(labelled.get(slot::ETH_TYPE), mpls.into());
            for same in [slot::ETH_DST, slot::ETH_SRC, slot::VLAN_TCI, slot::INNER_VLAN_TCI] {
                prop_assert_eq!(labelled.get(same), before.get(same));
            }
            prop_assert!(pop_mpls(&mut frame, &mut layers, eth_type));
            prop_assert_eq!(frame.bytes(), &bytes[..]);
            prop_assert_eq!(layers, before_layers);
        }
        prop_assert!(push_nsh(&mut frame, &mut layers, &nsh(md_type, 3)));
        prop_assert!(push_ethernet(&mut frame, &mut layers, 1, 2, 0x894f));
        prop_assert_eq!(layers, read(frame.bytes()).1);
        prop_assert!(pop_ethernet(&mut frame, &mut layers));
        prop_assert!(pop_nsh(&mut frame, &mut layers));
        prop_assert_eq!(frame.bytes(), &bytes[..]);
        prop_assert_eq!(layers, before_layers);
    }

    #[test]
    fn any_bytes_take_any_headers_and_give_any_back(
        bytes in proptest::collection::vec(any::<u8>(), 0..120),
        eth_type in prop_oneof![Just(0x8847u16), Just(0x894f), Just(0x8100), Just(0x0800)],
        steps in proptest::collection::vec(0..8u8, 1..12), start: u16, gso_size: u16
    ) {
        let bytes = eth(&[], eth_type, &bytes);
        let (mut frame, mut layers) = frame(&bytes);
        frame.offload = Offload { gso: GsoKind::Tcp4, gso_size, csum_partial: true, csum_start: start, ..Offload::NONE };
        for step in steps {
            match step {
                0 => _ = push_mpls(&mut frame, &mut layers, 0x8847, start.into()),
                1 => _ = pop_mpls(&mut frame, &mut layers, gso_size),
                2 => _ = push_nsh(&mut frame, &mut layers, &nsh(start as u8 % 3, gso_size as u8 % 6)),
                3 => _ = pop_nsh(&mut frame, &mut layers),
                4 => _ = push_ethernet(&mut frame, &mut layers, 1, 2, eth_type),
                5 => _ = pop_ethernet(&mut frame, &mut layers),
                6 => _ = push_vlan(&mut frame, &mut layers, 0x8100, 1),
                _ => _ = set_field(&mut frame, &layers, Field::NshC4, 1, u128::MAX),
            }
            prop_assert!(usize::from(layers.l3_ofs) <= frame.len());
            _ = wire_len(&frame);
        }
        _ = fill_checksum(&mut frame);
    }
}
