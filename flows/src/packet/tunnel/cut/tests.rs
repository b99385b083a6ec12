use super::*;
use crate::packet::segment::fill_checksum;
use crate::packet::testing::*;
use crate::packet::{GsoKind, Offload};
use proptest::prelude::*;

/// The datagrams of all segments, and the length that all but the last are said to have.
fn cut(frame: &Frame, header: &[u8], payload: Payload) -> Result<(Vec<Vec<u8>>, usize), SegmentError> {
    let mut cutter = Cutter::new(frame, header, payload)?;
    let (len, count, mut scratch) = (cutter.segment_len(), cutter.segments(), vec![0; cutter.headers_len()]);
    let mut all = Vec::new();
    while let Some((headers, payload)) = cutter.next(&mut scratch)? {
        all.push([&scratch[..headers], payload].concat());
        assert!(all.len() <= count, "more segments than were said");
    }
    assert_eq!(all.len(), count);
    Ok((all, len))
}

/// The segments, as frames.
fn frames(frame: &Frame) -> Vec<Vec<u8>> {
    let mut segmenter = Segmenter::new(frame).unwrap();
    let mut out = Frame::with_capacity(segmenter.max_len());
    let mut all = Vec::new();
    while segmenter.next_into(&mut out).unwrap() {
        all.push(out.bytes().to_vec());
    }
    all
}

#[test]
fn a_frame_that_is_not_cut_has_its_checksum_completed() {
    let mut frame = super_frame(&eth(&[], 0x86dd, &ipv6(17, &udp(b"data"))), GsoKind::Udp, 9);
    frame.offload.gso = GsoKind::None;
    let (pieces, len) = cut(&frame, b"header", Payload::Ethernet).unwrap();
    fill_checksum(&mut frame).unwrap();
    assert_eq!((pieces, len), (vec![[b"header", frame.bytes()].concat()], 6 + frame.len()));
    let (bare, _) = cut(&frame, b"", Payload::Ipv6).unwrap();
    assert_eq!(bare, [frame.bytes()[14..].to_vec()]);
}

#[test]
fn a_checksum_outside_of_what_is_sent_is_not_written() {
    let bytes = eth(&[], 0x0800, &ipv4(17, &udp(b"data")));
    let mut frame = Frame::from_bytes(&bytes);
    for (start, offset, want) in [(2, 4, Ok(())), (2, 4000, Err(SegmentError::Checksum))] {
        frame.offload = Offload { csum_partial: true, csum_start: start, csum_offset: offset, ..Offload::NONE };
        let cut = cut(&frame, b"", Payload::Ipv4);
        assert_eq!(cut, want.map(|()| (vec![bytes[14..].to_vec()], bytes.len() - 14)));
    }
}

#[test]
fn scratch_that_is_too_short_can_be_made_longer() {
    let frame = super_frame(&eth(&[], 0x0800, &ipv4(6, &tcp(0x10, &[], b"0123456789"))), GsoKind::Tcp4, 4);
    let mut cutter = Cutter::new(&frame, b"shim", Payload::Ethernet).unwrap();
    let mut scratch = [0; 58];
    for len in [0, 3, 4, 57] {
        assert_eq!(cutter.next(&mut scratch[..len]), Err(SegmentError::NoRoom));
    }
    assert_eq!(cutter.next(&mut scratch), Ok(Some((58, &b"0123"[..]))));
}

#[test]
fn only_ip_without_tags_can_lose_its_ethernet_header() {
    assert_eq!(ip_payload(&eth(&[], 0x0800, &ipv4(6, b""))), Some(Payload::Ipv4));
    assert_eq!(ip_payload(&eth(&[], 0x86dd, &ipv6(6, b""))), Some(Payload::Ipv6));
    assert_eq!(ip_payload(&eth(&[(0x8100, 1)], 0x0800, &ipv4(6, b""))), None);
    assert_eq!(ip_payload(&eth(&[], 0x0806, &[0; 28])), None);
    assert_eq!(cut(&Frame::from_bytes(&[0; 13]), b"", Payload::Ipv4), Err(SegmentError::Headers));
}

proptest! {
    #[test]
    fn pieces_are_the_segments_behind_a_header((frame, _) in some_super_frame(), header: [u8; 8]) {
        let whole = frames(&frame);
        let (pieces, len) = cut(&frame, &header, Payload::Ethernet).unwrap();
        let want: Vec<_> = whole.iter().map(|segment| [&header[..], segment].concat()).collect();
        prop_assert_eq!(&pieces, &want);
        let (last, others) = pieces.split_last().unwrap();
        prop_assert!(others.iter().all(|piece| piece.len() == len) && last.len() <= len);
        if let Some(payload) = ip_payload(frame.bytes()) {
            let want: Vec<_> = whole.iter().map(|segment| segment[14..].to_vec()).collect();
            prop_assert_eq!(cut(&frame, &[], payload).unwrap().0, want);
        }
    }
}
