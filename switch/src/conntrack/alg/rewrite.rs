//! Changes to a TCP segment: its numbers, and a text in its payload.
//!
//! The checksum follows from what changed (RFC 1624), so that one that was wrong stays wrong, and one that is partial
//! stays partial. A super-frame is changed whole; it is cut later, with the numbers that it then has. A segment that
//! grows beyond the MTU of the port that it leaves by is lost there: lines that name an address are short, and only one
//! that shares a full segment with other lines can grow so far. Open vSwitch has the same limit.

use super::ftp::Replacement;
use sluice_flows::packet::{Frame, L3, L4, Layers, checksum};
use std::ops::Range;

/// Length of an IPv4 header without options.
const IPV4_LEN: usize = 20;
/// Length of an IPv6 header, which its payload length does not count.
const IPV6_LEN: usize = 40;
/// Length of a TCP header without options.
const TCP_LEN: usize = 20;
/// TCP's flag for a valid acknowledgement number, in the header's byte 13.
const ACK: u8 = 0x10;
/// TCP options (RFC 9293, 3.1; RFC 2018, 3).
const END: u8 = 0;
const NOTHING: u8 = 1;
const SACK: u8 = 5;

/// Where in a frame its TCP segment is, as far as the IP header says that it goes on. `None` if there is none.
pub(super) fn segment(frame: &Frame, layers: &Layers) -> Option<Range<usize>> {
    let (bytes, l3) = (frame.bytes(), usize::from(layers.l3_ofs));
    let (header, end) = match layers.l3 {
        L3::Ipv4 => (IPV4_LEN, l3 + usize::from(be16(bytes, l3 + 2)?)),
        L3::Ipv6 => (IPV6_LEN, l3 + IPV6_LEN + usize::from(be16(bytes, l3 + 4)?)),
        _ => return None,
    };
    let (start, payload) = (usize::from(layers.l4_ofs), usize::from(layers.payload_ofs));
    let whole = l3 + header <= start && start + TCP_LEN <= payload && payload <= end && end <= bytes.len();
    (layers.l4 == L4::Tcp && whole).then_some(start..end)
}

/// The sequence number of the segment that begins `at`.
pub(super) fn sequence(frame: &Frame, at: usize) -> Option<u32> {
    be32(frame.bytes(), at + 4)
}

/// Gives a segment the sequence number `sequence`, what `acknowledged` makes of its acknowledgement numbers (selective
/// ones too), and `replacement` in its payload. False, and nothing changes, if there is no segment, or no room.
pub(super) fn rewrite(
    frame: &mut Frame,
    layers: &Layers,
    sequence: u32,
    acknowledged: impl Fn(u32) -> u32,
    replacement: Option<&Replacement>,
) -> bool {
    let Some(old) = segment(frame, layers) else { return false };
    let before = checksum::sum(&frame.bytes()[old.clone()]);
    let new_len = match replacement {
        None => old.len(),
        Some(replacement) => match replace(frame, layers, &old, replacement) {
            Some(new_len) => new_len,
            None => return false,
        },
    };
    let new = old.start..old.start + new_len;
    let header = frame.bytes_mut().get_mut(old.start..usize::from(layers.payload_ofs)).unwrap_or_default();
    put(header, 4, |_| sequence);
    if header.get(13).is_some_and(|flags| flags & ACK != 0) {
        put(header, 8, &acknowledged);
    }
    each_sack(header, |header, at| put(header, at, &acknowledged));
    let after = checksum::sum(&frame.bytes()[new.clone()]);
    let length = checksum::diff(old.len() as u128, new.len() as u128);
    fix_checksum(frame, layers, (before, after), length);
    true
}

/// Replaces a text in the payload of `segment`, and fixes the lengths in the IP header. Returns the length of the
/// segment.
fn replace(frame: &mut Frame, layers: &Layers, segment: &Range<usize>, replacement: &Replacement) -> Option<usize> {
    let Replacement { at, text } = replacement;
    let (start, l3) = (usize::from(layers.payload_ofs) + at.start, usize::from(layers.l3_ofs));
    if at.start > at.end || start + at.len() > segment.end {
        return None;
    }
    let new_len = segment.len() - at.len() + text.len();
    let counted_from = if layers.l3 == L3::Ipv4 { l3 } else { l3 + IPV6_LEN };
    let ip_len = u16::try_from(segment.start - counted_from + new_len).ok()?;
    match text.len().checked_sub(at.len()) {
        Some(more) => drop(frame.open_gap(start, more)?),
        None => frame.close_gap(start, at.len() - text.len()).then_some(())?,
    }
    let bytes = frame.bytes_mut();
    bytes[start..start + text.len()].copy_from_slice(text);
    let length_at = if layers.l3 == L3::Ipv4 { l3 + 2 } else { l3 + 4 };
    let old_ip_len = be16(bytes, length_at).unwrap_or_default();
    bytes[length_at..length_at + 2].copy_from_slice(&ip_len.to_be_bytes());
    if layers.l3 == L3::Ipv4 {
        let diff = checksum::diff(old_ip_len.into(), ip_len.into());
        let field = &mut bytes[l3 + 10..l3 + 12];
        let fixed = checksum::update(u16::from_be_bytes([field[0], field[1]]), diff);
        field.copy_from_slice(&fixed.to_be_bytes());
    }
    Some(new_len)
}

/// Fixes the TCP checksum after the sum over the segment and the length in the pseudo-header changed.
fn fix_checksum(frame: &mut Frame, layers: &Layers, (before, after): (u16, u16), length: u16) {
    let partial = frame.offload.csum_partial && frame.offload.csum_start == layers.l4_ofs;
    let Some(field) = frame.bytes_mut().get_mut(usize::from(layers.l4_ofs) + 16..).and_then(|b| b.first_chunk_mut())
    else {
        return;
    };
    let old = u16::from_be_bytes(*field);
    let new = match partial {
        true => checksum::add(old, length),
        false if before == after => checksum::update(old, length),
        false => checksum::update(old, checksum::add(length, checksum::add(!before, after))),
    };
    *field = new.to_be_bytes();
}

/// Calls `each` with the header and the place of each number in selective acknowledgements.
fn each_sack(header: &mut [u8], mut each: impl FnMut(&mut [u8], usize)) {
    let mut at = TCP_LEN;
    while let Some(kind) = header.get(at).copied() {
        let len = match kind {
            END => return,
            NOTHING => 1,
            _ => header.get(at + 1).map_or(0, |len| usize::from(*len)),
        };
        if len == 0 || kind != NOTHING && len < 2 || at + len > header.len() {
            return;
        }
        if kind == SACK {
            for number in 0..(len - 2) / 4 {
                each(header, at + 2 + number * 4);
            }
        }
        at += len;
    }
}

/// Replaces the number at `at`, if it is there.
fn put(header: &mut [u8], at: usize, new: impl FnOnce(u32) -> u32) {
    if let Some(number) = header.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *number = new(u32::from_be_bytes(*number)).to_be_bytes();
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{TestSegment, is_sound, parts, verify};
    use super::*;
    use proptest::prelude::*;

    /// A SACK option with two blocks, at an odd place.
    const SACK_AT_21: [u8; 20] = [1, 5, 18, 0, 0, 0, 100, 0, 0, 0, 120, 0, 0, 0, 200, 0, 0, 0, 220, 0];

    #[test]
    fn acknowledgements_move_and_selective_ones_with_them() {
        let (mut frame, layers) = TestSegment { options: &SACK_AT_21, ..TestSegment::v4(b"QUIT\r\n") }.frame();
        assert!(rewrite(&mut frame, &layers, 77, |ack| ack + 1000, None));
        let header = &frame.bytes()[usize::from(layers.l4_ofs)..usize::from(layers.payload_ofs)];
        let numbers: Vec<u32> = [4, 8, 23, 27, 31, 35].map(|at| be32(header, at).unwrap()).into();
        assert_eq!(numbers, [77, 1000 + TestSegment::v4(b"").ack, 1100, 1120, 1200, 1220]);
        verify(&frame);
    }

    #[test]
    fn options_that_end_too_early_are_left_alone() {
        for options in [[5, 18, 0, 0], [5, 0, 0, 0], [5, 1, 0, 0], [0, 5, 10, 0], [1, 1, 1, 5], [5, 4, 9, 9]] {
            let (mut frame, layers) = TestSegment { options: &options, ..TestSegment::v4(b"QUIT\r\n") }.frame();
            let before = frame.bytes().to_vec();
            assert!(rewrite(&mut frame, &layers, TestSegment::v4(b"").seq, |ack| ack, None));
            assert_eq!(frame.bytes(), before, "{options:?}");
            assert!(rewrite(&mut frame, &layers, 1, |ack| ack + 1, None));
            assert_eq!(parts(&frame).options, options);
        }
    }

    #[test]
    fn a_datagram_never_grows_beyond_what_its_length_can_say() {
        let payload = vec![b'x'; 65_535 - 40];
        let (mut frame, layers) = TestSegment::v4(&payload).frame();
        let before = frame.bytes().to_vec();
        let longer = Replacement { at: 0..1, text: b"yy".into() };
        assert!(!rewrite(&mut frame, &layers, 1, |ack| ack, Some(&longer)));
        assert_eq!(frame.bytes(), before);
        let behind = Replacement { at: payload.len()..payload.len() + 1, text: b"y".into() };
        assert!(!rewrite(&mut frame, &layers, 1, |ack| ack, Some(&behind)));
        let shorter = Replacement { at: 0..2, text: b"y".into() };
        assert!(rewrite(&mut frame, &layers, 1, |ack| ack, Some(&shorter)));
        verify(&frame);
    }

    proptest! {
        #[test]
        fn a_text_is_replaced_and_every_checksum_and_length_is_right(
            v6: bool, partial: bool, padding in 0usize..20, seq: u32, ack: u32,
            payload in proptest::collection::vec(any::<u8>(), 1..60), at in (0usize..60, 0usize..20),
            text in proptest::collection::vec(any::<u8>(), 0..50),
        ) {
            let at = at.0 % payload.len()..(at.0 % payload.len() + at.1).min(payload.len());
            let mut wanted = payload.clone();
            wanted.splice(at.clone(), text.iter().copied());
            let test = TestSegment { v6, partial, padding, ..TestSegment::v4(&payload) };
            let (mut frame, layers) = test.frame();
            let link = frame.bytes()[..14].to_vec();
            let replacement = Replacement { at, text };
            prop_assert!(rewrite(&mut frame, &layers, seq, |_| ack, Some(&replacement)));
            verify(&frame);
            let parts = parts(&frame);
            prop_assert_eq!((parts.seq, parts.ack, parts.payload), (seq, ack, wanted));
            prop_assert_eq!(&frame.bytes()[..14], link);
            prop_assert_eq!(frame.offload.csum_partial, partial);
        }

        #[test]
        fn a_wrong_checksum_stays_wrong(seq: u32, ack: u32, text in proptest::collection::vec(any::<u8>(), 0..50)) {
            let (mut frame, layers) = TestSegment::v4(b"PORT 10,0,0,1,4,210\r\n").frame();
            let at = usize::from(layers.l4_ofs) + 16;
            frame.bytes_mut()[at] ^= 0x40;
            let replacement = Replacement { at: 5..13, text };
            prop_assert!(rewrite(&mut frame, &layers, seq, |_| ack, Some(&replacement)));
            prop_assert!(!is_sound(&frame));
        }
    }
}
