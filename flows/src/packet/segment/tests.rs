use super::{SegmentError, Segmenter, fill_checksum};
use crate::key::{PacketKey, slot};
use crate::packet::testing::*;
use crate::packet::{Frame, GsoKind, Layers, Offload, checksum, extract};
use proptest::prelude::*;

fn read(frame: &[u8]) -> (PacketKey, Layers) {
    let mut key = PacketKey::ZERO;
    let layers = extract(frame, 0, &mut key);
    (key, layers)
}

/// All segments; panics when there are more than payload bytes.
fn cut(frame: &Frame) -> Result<Vec<Vec<u8>>, SegmentError> {
    let mut segmenter = Segmenter::new(frame)?;
    let mut out = Frame::with_capacity(segmenter.max_len());
    let mut all = Vec::new();
    while segmenter.next_into(&mut out)? {
        assert_eq!(out.offload.gso, GsoKind::None);
        assert!(!out.offload.csum_partial);
        all.push(out.bytes().to_vec());
        assert!(all.len() <= frame.len() + 1, "the cutting does not end");
    }
    assert!(!segmenter.next_into(&mut out)?);
    Ok(all)
}

#[test]
fn tcp_segments_count_on_and_keep_their_flags_where_they_belong() {
    // CWR, ACK, PSH, FIN on ten bytes of payload, cut by four.
    let packet = ipv4(6, &tcp(0x099, &[1, 1, 1, 1], b"0123456789"));
    let bytes = eth(&[(0x8100, 5)], 0x0800, &packet);
    let all = cut(&super_frame(&bytes, GsoKind::Tcp4, 4)).unwrap();
    let seen: Vec<_> = all
        .iter()
        .map(|s| {
            let (key, layers) = read(s);
            assert_eq!(check(s, &layers), Ok(()));
            assert_eq!(key.get(slot::VLAN_TCI), 0x1005);
            let id = u16::from_be_bytes([s[22], s[23]]);
            let seq = s[45];
            (id, seq, key.get(slot::TCP_FLAGS), s[usize::from(layers.payload_ofs)..].to_vec())
        })
        .collect();
    let want = [
        (0x1234, 1, 0x090, b"0123".to_vec()),
        (0x1235, 5, 0x010, b"4567".to_vec()),
        (0x1236, 9, 0x019, b"89".to_vec()),
    ];
    assert_eq!(seen, want);
}

#[test]
fn a_sequence_number_and_an_identification_may_wrap() {
    let mut packet = ipv4(6, &tcp(0x10, &[], b"abcd"));
    packet[4..6].copy_from_slice(&[0xff; 2]);
    packet[24..28].copy_from_slice(&[0xff; 4]);
    let all = cut(&super_frame(&eth(&[], 0x0800, &packet), GsoKind::Tcp4, 3)).unwrap();
    assert_eq!(all[1][18..20], [0, 0]);
    assert_eq!(all[1][38..42], [0, 0, 0, 2]);
    assert_eq!(check(&all[1], &read(&all[1]).1), Ok(()));
}

#[test]
fn udp_segments_have_their_own_length() {
    let all = cut(&super_frame(&eth(&[], 0x86dd, &ipv6(17, &udp(b"0123456"))), GsoKind::Udp, 5)).unwrap();
    let lens: Vec<_> = all.iter().map(|s| (s[18..20].to_vec(), s[58..60].to_vec())).collect();
    assert_eq!(lens, [(vec![0, 13], vec![0, 13]), (vec![0, 10], vec![0, 10])]);
    assert!(all.iter().all(|s| check(s, &read(s).1) == Ok(()) && s[60..62] != [0, 0]));
}

#[test]
fn udp_without_a_checksum_stays_without() {
    let mut frame = super_frame(&eth(&[], 0x0800, &ipv4(17, &udp(b"0123456"))), GsoKind::Udp, 5);
    frame.offload.csum_partial = false;
    frame.bytes_mut()[40..42].copy_from_slice(&[0, 0]);
    assert!(cut(&frame).unwrap().iter().all(|s| s[40..42] == [0, 0]));
}

#[test]
fn padding_behind_the_datagram_is_dropped() {
    let mut bytes = eth(&[], 0x0800, &ipv4(6, &tcp(0x10, &[], b"abcd")));
    bytes.extend([0xee; 9]);
    let all = cut(&super_frame(&bytes, GsoKind::Tcp4, 1000)).unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0][54..], *b"abcd");
}

#[test]
fn a_super_frame_without_payload_is_one_segment() {
    let all = cut(&super_frame(&eth(&[], 0x86dd, &ipv6(6, &tcp(0x11, &[], b""))), GsoKind::Tcp6, 10)).unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(read(&all[0]).0.get(slot::TCP_FLAGS), 0x11);
}

#[test]
fn the_destination_in_a_routing_header_keeps_its_place_in_the_checksum() {
    let mut packet = vec![6, 0, 0, 1, 0, 0, 0, 0];
    packet.extend(tcp(0x10, &[], b"0123456789"));
    let bytes = eth(&[], 0x86dd, &ipv6(43, &packet));
    let mut frame = super_frame(&bytes, GsoKind::Tcp6, 6);
    let (last_hop, len) = ([7; 16], 30);
    let sum = checksum::pseudo_v6(A6, last_hop, 6, len);
    frame.bytes_mut()[78..80].copy_from_slice(&sum.to_be_bytes());
    let all = cut(&frame).unwrap();
    assert_eq!(all.len(), 2);
    for segment in &all {
        let message = &segment[62..];
        assert!(checksum::verify(message, checksum::pseudo_v6(A6, last_hop, 6, message.len() as u32)));
    }
    frame.offload.csum_partial = false;
    assert_eq!(cut(&frame), Err(SegmentError::Headers));
}

#[test]
fn metadata_that_does_not_fit_the_bytes_is_refused() {
    let tcp4 = eth(&[], 0x0800, &ipv4(6, &tcp(0x10, &[], b"data")));
    let refused = |bytes: &[u8], gso, size| cut(&super_frame(bytes, gso, size));
    assert_eq!(refused(&tcp4, GsoKind::Tcp4, 0), Err(SegmentError::Size));
    assert_eq!(refused(&tcp4, GsoKind::Tcp6, 2), Err(SegmentError::Headers));
    assert_eq!(refused(&tcp4, GsoKind::Udp, 2), Err(SegmentError::Headers));
    assert_eq!(refused(&tcp4[..50], GsoKind::Tcp4, 2), Err(SegmentError::Headers));
    assert_eq!(refused(&[], GsoKind::Tcp4, 2), Err(SegmentError::Headers));
    let fragment = eth(&[], 0x0800, &ipv4_frag(6, 0x2000, &[], &tcp(0x10, &[], b"data")));
    assert_eq!(refused(&fragment, GsoKind::Tcp4, 2), Err(SegmentError::Headers));
}

#[test]
fn a_segment_that_does_not_fit_can_be_asked_for_again() {
    let frame = super_frame(&eth(&[], 0x0800, &ipv4(6, &tcp(0x10, &[], b"data"))), GsoKind::Tcp4, 3);
    let mut segmenter = Segmenter::new(&frame).unwrap();
    let mut small = Frame::from_bytes(b"untouched");
    assert_eq!(segmenter.next_into(&mut small), Err(SegmentError::NoRoom));
    assert_eq!(small.bytes(), b"untouched");
    let mut large = Frame::with_capacity(segmenter.max_len());
    assert_eq!(segmenter.next_into(&mut large), Ok(true));
    assert_eq!(large.bytes()[54..], *b"dat");
}

#[test]
fn a_frame_that_is_no_super_frame_comes_out_once_with_its_checksum() {
    let mut frame = super_frame(&eth(&[], 0x0800, &ipv4(17, &udp(b"data"))), GsoKind::Udp, 9);
    frame.offload.gso = GsoKind::None;
    let all = cut(&frame).unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(check(&all[0], &read(&all[0]).1), Ok(()));
}

#[test]
fn padding_is_not_summed() {
    let mut bytes = eth(&[], 0x0800, &ipv4(17, &udp(b"data")));
    bytes.extend([0xee; 18]);
    let mut frame = super_frame(&bytes, GsoKind::Udp, 9);
    assert_eq!(fill_checksum(&mut frame), Ok(()));
    assert_eq!(check(frame.bytes(), &read(&bytes).1), Ok(()));
    assert_eq!(frame.len(), bytes.len());
}

#[test]
fn a_partial_checksum_outside_the_frame_is_refused() {
    let good = super_frame(&eth(&[], 0x0800, &ipv4(6, &tcp(0x10, &[], b""))), GsoKind::None, 0);
    for (start, offset) in [(34, 19), (34, u16::MAX), (54, 0), (55, 0), (u16::MAX, 0)] {
        let mut frame = Frame::with_capacity(100);
        frame.clone_from_frame(&good);
        (frame.offload.csum_start, frame.offload.csum_offset) = (start, offset);
        assert_eq!(fill_checksum(&mut frame), Err(SegmentError::Checksum));
        assert_eq!(frame.bytes(), good.bytes());
    }
}

#[test]
fn a_partial_sctp_checksum_is_a_crc() {
    let whole = eth(&[], 0x0800, &ipv4(132, &sctp(b"chunk")));
    let mut frame = Frame::from_bytes(&whole);
    frame.bytes_mut()[42..46].copy_from_slice(&[1, 2, 3, 4]);
    frame.offload = Offload { csum_partial: true, csum_start: 34, csum_offset: 8, ..Offload::NONE };
    assert_eq!(fill_checksum(&mut frame), Ok(()));
    assert_eq!(frame.bytes(), whole);
    assert_eq!(frame.offload, Offload::NONE);
}

proptest! {
    #[test]
    fn segments_carry_the_whole_payload_and_right_checksums((frame, payload) in some_super_frame()) {
        let all = cut(&frame).unwrap();
        let whole = read(frame.bytes()).0;
        let mut joined: Vec<u8> = Vec::new();
        for (i, segment) in all.iter().enumerate() {
            let (mut key, layers) = read(segment);
            prop_assert_eq!(check(segment, &layers), Ok(()));
            let body = &segment[usize::from(layers.payload_ofs)..];
            prop_assert!(body.len() == usize::from(frame.offload.gso_size) || i + 1 == all.len());
            joined.extend(body);
            key.set_masked(slot::TCP_FLAGS, whole.get(slot::TCP_FLAGS), 0x89);
            prop_assert_eq!(key, whole);
        }
        prop_assert_eq!(joined, payload);
    }

    #[test]
    fn segments_are_what_another_decoder_calls_valid((frame, _) in some_super_frame()) {
        for segment in cut(&frame).unwrap() {
            prop_assert_eq!(valid(&segment), Ok(()));
        }
    }

    #[test]
    fn any_metadata_on_any_bytes_ends(
        (frame, _) in some_super_frame(),
        damage in proptest::collection::vec((0usize..80, any::<u8>()), 0..6),
        len in 0usize..5000,
        (kind, size, partial, start, offset) in (0..4u8, prop_oneof![Just(0u16), 1..9u16, any::<u16>()], any::<bool>(), any::<u16>(), any::<u16>()),
    ) {
        let mut bytes = frame.bytes().to_vec();
        for (at, byte) in damage {
            if let Some(b) = bytes.get_mut(at) { *b = byte; }
        }
        bytes.truncate(len);
        let mut frame = Frame::from_bytes(&bytes);
        frame.offload = Offload {
            gso: [GsoKind::None, GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp][usize::from(kind)],
            gso_size: size, csum_partial: partial, csum_start: start, csum_offset: offset, ..Offload::NONE
        };
        if let Ok(all) = cut(&frame) {
            prop_assert!(!all.is_empty());
        }
    }
}
