//! Datagrams of one flow that follow each other leave as one super-frame, as the kernel's own receive offload would join them:
//! it then allocates, routes, finds the socket and wakes its reader once for all of them.
//!
//! # Rules
//! - What a receiver reads is the same. Only datagrams that cutting the super-frame gives back bit for bit are joined: their
//!   headers differ in nothing but lengths, checksums and the IPv4 identification, which counts up, and all are as long as the
//!   first but the last, which may be shorter. Order is kept, and nothing waits for more to come.
//! - Only datagrams whose checksum is left to the output are joined: then their content needs neither check nor sum. Those are
//!   the ones that hosts and containers on the same machine send.
//!
//! # Limits
//! UDP alone: of TCP, hosts make super-frames themselves. No VLAN tags, IP options or extension headers.

use sluice_flows::packet::{Frame, GsoKind, Offload, checksum};

const ETH: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;
/// The longest headers of a super-frame.
const MAX_HEAD: usize = ETH + IPV6 + UDP;
/// Most datagrams in one: what every Linux that takes any takes (`UDP_MAX_SEGMENTS`).
pub(super) const MOST: usize = 64;
/// Where the checksum is in the UDP header.
const CSUM_OFFSET: u16 = 6;

/// What leaves in front of the payloads of joined datagrams.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    bytes: [u8; MAX_HEAD],
    len: usize,
    /// Length of the super-frame.
    pub(super) total: usize,
    /// What is left to do with it.
    pub(super) offload: Offload,
}

impl Head {
    pub(super) const EMPTY: Self = Self { bytes: [0; MAX_HEAD], len: 0, total: 0, offload: Offload::NONE };

    /// The super-frame's headers.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// What a joined datagram adds to them.
    pub(super) fn payload<'a>(&self, frame: &'a Frame) -> &'a [u8] {
        &frame.bytes()[self.len..]
    }
}

/// How many of the first `frames` leave as one, at least 1. If they are several, `head` becomes their headers.
#[inline]
pub(super) fn coalesce(frames: &[&Frame], head: &mut Head) -> usize {
    match frames {
        [first, second, ..] if first.offload.csum_offset == CSUM_OFFSET && first.offload == second.offload => {
            join(first, &frames[1..], head)
        }
        _ => 1,
    }
}

fn join(first: &Frame, others: &[&Frame], head: &mut Head) -> usize {
    let Some(len) = head_len(first) else { return 1 };
    let size = first.len() - len;
    let (mut count, mut total) = (1, first.len());
    for frame in others.iter().take(MOST - 1) {
        let more = frame.len().saturating_sub(len);
        if more > size || total + more > usize::from(u16::MAX) || !follows(first, frame, len, count as u16) {
            break;
        }
        (count, total) = (count + 1, total + more);
        if more < size {
            break;
        }
    }
    if count > 1 {
        head.bytes[..len].copy_from_slice(&first.bytes()[..len]);
        (head.len, head.total) = (len, total);
        head.offload = Offload { gso: GsoKind::Udp, gso_size: size as u16, hdr_len: len as u16, ..first.offload };
        grow(&mut head.bytes[..len], first.len(), total);
    }
    count
}

/// Length of the headers of a datagram that may be joined with others: a whole one with a payload, and nothing behind it.
fn head_len(frame: &Frame) -> Option<usize> {
    let (bytes, offload) = (frame.bytes(), frame.offload);
    let len = match bytes.get(..ETH + IPV4)?[12..] {
        // Neither a fragment nor with the reserved bit set.
        [0x08, 0x00, 0x45, _, _, _, _, _, 0x00 | 0x40, 0, _, 17, ..] => ETH + IPV4 + UDP,
        [0x86, 0xdd, first, _, _, _, _, _, 17, ..] if first >> 4 == 6 => MAX_HEAD,
        _ => return None,
    };
    let plain = offload.gso == GsoKind::None && offload.csum_partial && usize::from(offload.csum_start) == len - UDP;
    (plain && is_whole(bytes, len)).then_some(len)
}

/// Whether the lengths and the sum in headers of this length are those of the frame, which has a payload.
fn is_whole(bytes: &[u8], len: usize) -> bool {
    let udp = len - UDP;
    let ip = if len == MAX_HEAD {
        bytes.len() > len && be16(bytes, 18) == bytes.len() - ETH - IPV6
    } else {
        bytes.len() > len && be16(bytes, 16) == bytes.len() - ETH && checksum::verify(&bytes[ETH..udp], 0)
    };
    ip && be16(bytes, udp + 4) == bytes.len() - udp
}

/// Whether a datagram is one that cutting gives, `count` datagrams after `first`.
fn follows(first: &Frame, frame: &Frame, len: usize, count: u16) -> bool {
    let (a, b) = (first.bytes(), frame.bytes());
    let udp = len - UDP;
    if frame.offload != first.offload || !is_whole(b, len) || a[udp..udp + 4] != b[udp..udp + 4] {
        return false;
    }
    // The sums of the pseudo headers, which the lengths are in.
    let sum = checksum::add(be16(b, udp + 6) as u16, (a.len() - b.len()) as u16);
    if usize::from(sum) != be16(a, udp + 6) {
        return false;
    }
    if len == MAX_HEAD {
        a[..18] == b[..18] && a[20..udp] == b[20..udp]
    } else {
        let id = (be16(a, 18) as u16).wrapping_add(count);
        a[..16] == b[..16] && be16(b, 18) == usize::from(id) && a[20..24] == b[20..24] && a[26..udp] == b[26..udp]
    }
}

/// Turns the headers of a datagram of `was` bytes into those of a super-frame of `total`.
fn grow(head: &mut [u8], was: usize, total: usize) {
    let udp = head.len() - UDP;
    if head.len() == MAX_HEAD {
        put16(head, 18, total - ETH - IPV6);
    } else {
        put16(head, 16, total - ETH);
        put16(head, 24, 0);
        let sum = checksum::checksum(&head[ETH..udp]);
        put16(head, 24, sum.into());
    }
    put16(head, udp + 4, total - udp);
    let sum = checksum::add(be16(head, udp + 6) as u16, (total - was) as u16);
    put16(head, udp + 6, sum.into());
}

fn be16(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

fn put16(bytes: &mut [u8], at: usize, value: usize) {
    bytes[at..at + 2].copy_from_slice(&(value as u16).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_flows::packet::MAX_FRAME_LEN;
    use sluice_flows::packet::segment::{Segmenter, fill_checksum};

    /// A datagram as a host sends it: the UDP checksum is that of the pseudo header alone.
    fn datagram(v6: bool, id: u16, payload: usize) -> Frame {
        let len = UDP + payload;
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        let pseudo = if v6 {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, (len >> 8) as u8, len as u8, 17, 64]);
            let (src, dst) = ([1_u8; 16], [2_u8; 16]);
            bytes.extend(src.iter().chain(&dst));
            checksum::pseudo_v6(src, dst, 17, len as u32)
        } else {
            let (total, id) = ((IPV4 + len) as u16, id.to_be_bytes());
            bytes.extend([8, 0, 0x45, 0, (total >> 8) as u8, total as u8, id[0], id[1], 0x40, 0, 64, 17, 0, 0]);
            bytes.extend([10, 0, 0, 1, 10, 0, 0, 2]);
            let sum = checksum::checksum(&bytes[ETH..]);
            put16(&mut bytes, 24, sum.into());
            checksum::pseudo_v4([10, 0, 0, 1], [10, 0, 0, 2], 17, len as u16)
        };
        let start = bytes.len();
        bytes.extend([0x30, 0x39, 0, 53, (len >> 8) as u8, len as u8]);
        bytes.extend(pseudo.to_be_bytes());
        bytes.extend((0..payload).map(|i| (i as u8) ^ (id as u8)));
        let mut frame = Frame::from_bytes(&bytes);
        frame.offload = Offload { csum_partial: true, csum_start: start as u16, csum_offset: 6, ..Offload::NONE };
        frame
    }

    fn joined(frames: &[Frame]) -> (usize, Head) {
        let mut head = Head::EMPTY;
        let refs: Vec<&Frame> = frames.iter().collect();
        (coalesce(&refs, &mut head), head)
    }

    #[test]
    fn cutting_gives_the_datagrams_back() {
        for v6 in [false, true] {
            for last in [1, 63, 64] {
                let mut frames: Vec<Frame> = (0..9).map(|i| datagram(v6, 65_530_u16.wrapping_add(i), 64)).collect();
                frames.push(datagram(v6, 65_530_u16.wrapping_add(9), last));
                let (count, head) = joined(&frames);
                assert_eq!(count, 10);
                let mut bytes = head.bytes().to_vec();
                frames.iter().for_each(|frame| bytes.extend(head.payload(frame)));
                assert_eq!(bytes.len(), head.total);
                let mut whole = Frame::from_bytes(&bytes);
                whole.offload = head.offload;
                let mut segments = Segmenter::new(&whole).unwrap();
                let mut segment = Frame::with_capacity(MAX_FRAME_LEN);
                for frame in &mut frames {
                    assert!(segments.next_into(&mut segment).unwrap());
                    fill_checksum(frame).unwrap();
                    assert_eq!(segment.bytes(), frame.bytes());
                }
                assert!(!segments.next_into(&mut segment).unwrap());
            }
        }
    }

    /// Each change of the second of three datagrams leaves the first alone.
    #[test]
    fn what_cutting_would_not_give_back_is_left_alone() {
        for v6 in [false, true] {
            let frames = || vec![datagram(v6, 7, 64), datagram(v6, 8, 64), datagram(v6, 9, 64)];
            assert_eq!(joined(&frames()).0, 3);
            let len = if v6 { MAX_HEAD } else { ETH + IPV4 + UDP };
            for at in 0..len {
                let mut frames = frames();
                frames[1].bytes_mut()[at] ^= 0x10;
                assert_eq!(joined(&frames).0, 1, "byte {at}");
                frames.swap(0, 1);
                assert_eq!(joined(&frames).0, 1, "byte {at} of the first");
            }
            let mut padded = frames();
            let offload = padded[1].offload;
            padded[1] = Frame::from_bytes(&[padded[1].bytes(), &[0; 2]].concat());
            padded[1].offload = offload;
            assert_eq!(joined(&padded).0, 1);
            let mut finished = frames();
            finished[1].offload = Offload::NONE;
            assert_eq!(joined(&finished).0, 1);
        }
        assert_eq!(joined(&[datagram(false, 7, 64), datagram(false, 8, 65)]).0, 1, "longer than the first");
        assert_eq!(joined(&[datagram(false, 7, 64), datagram(false, 8, 63), datagram(false, 9, 63)]).0, 2);
        assert_eq!(joined(&[datagram(false, 7, 64), datagram(false, 7, 64)]).0, 1, "the identification stays");
        assert_eq!(joined(&[datagram(true, 7, 0), datagram(true, 8, 0)]).0, 1, "nothing to cut");
    }

    #[test]
    fn a_super_frame_is_no_longer_than_the_kernel_takes() {
        let many: Vec<Frame> = (0..70).map(|i| datagram(false, i, 8)).collect();
        assert_eq!(joined(&many).0, MOST);
        let long: Vec<Frame> = (0..60).map(|i| datagram(false, i, 1472)).collect();
        let (count, head) = joined(&long);
        assert!(head.total <= usize::from(u16::MAX) && head.total + 1472 > usize::from(u16::MAX), "{count}");
    }
}
