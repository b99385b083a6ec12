//! Frames that are too long for the path: which may be fragmented on the way, and what the sender of the others is told.
//!
//! As on Linux: IPv4 with "do not fragment" is answered with "fragmentation needed" (RFC 1191), IPv6 with "packet too
//! big" (RFC 8201), from the address that the packet was for. IPv4 without it, what is not IP, and IPv6 packets no
//! longer than what every link must carry go out without "do not fragment" in the outer header, and the host fragments
//! that.

use sluice_flows::key::PacketKey;
use sluice_flows::packet::answer::{About, CONTROL, Headers, IcmpError, LinkHeader};
use sluice_flows::packet::rewrite::datagram_end;
use sluice_flows::packet::{Frame, GsoKind, extract};
use std::net::IpAddr;
use std::time::{Duration, Instant};

const ETH_LEN: usize = 14;
const TAG_LEN: usize = 4;
const MAX_TAGS: usize = 2;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
/// The MTU that every IPv6 link has at least (RFC 8200, 5).
const IPV6_MIN_MTU: usize = 1280;
/// More than is quoted of any packet.
const QUOTED: usize = 1280;

/// Where the IP header of a frame is.
#[derive(Clone, Copy, Debug)]
enum Ip {
    V4(usize),
    V6(usize),
}

fn ip(bytes: &[u8]) -> Option<Ip> {
    let mut at = ETH_LEN;
    for _ in 0..MAX_TAGS {
        if let Some([0x81, 0x00] | [0x88, 0xa8]) = bytes.get(at - 2..at) {
            at += TAG_LEN;
        }
    }
    match bytes.get(at - 2..at) {
        Some([0x08, 0x00]) if bytes.len() >= at + IPV4_LEN => Some(Ip::V4(at)),
        Some([0x86, 0xdd]) if bytes.len() >= at + IPV6_LEN => Some(Ip::V6(at)),
        _ => None,
    }
}

/// Whether a frame, `longest` bytes on the wire, may be fragmented on the way.
pub(super) fn may_be_cut(frame: &Frame, longest: usize) -> bool {
    match ip(frame.bytes()) {
        Some(Ip::V4(at)) => frame.bytes()[at + 6] & 0x40 == 0,
        Some(Ip::V6(at)) => longest <= at + IPV6_MIN_MTU,
        None => true,
    }
}

/// The answer to a frame of which `room` bytes fit the path; `None` when there is nobody to tell.
pub(super) fn answer(frame: &Frame, room: usize) -> Option<Frame> {
    let bytes = frame.bytes();
    let mut key = PacketKey::ZERO;
    let layers = extract(bytes, 0, &mut key);
    let about = About::read(&key, &layers).filter(|about| about.may_tell(false))?;
    let start = usize::from(layers.l3_ofs);
    let mtu = room.saturating_sub(start);
    let error = match about.src {
        IpAddr::V4(_) => {
            let [high, low] = (mtu.min(u16::MAX.into()) as u16).to_be_bytes();
            IcmpError { kind: 3, code: 4, word: [0, 0, high, low] }
        }
        IpAddr::V6(_) => IcmpError { kind: 2, code: 0, word: (mtu.max(IPV6_MIN_MTU) as u32).to_be_bytes() },
    };
    let whole = if frame.offload.gso == GsoKind::None { datagram_end(bytes, &layers) } else { bytes.len() };
    let end = whole.min(bytes.len()).min(start + QUOTED);
    let mut answer = Frame::from_bytes(bytes.get(start..end)?);
    let link = LinkHeader::back(&key);
    let headers = Headers { link, src: about.dst, dst: about.src, tos: CONTROL, identification: None };
    headers.error(error, &mut answer).then_some(answer)
}

/// How many answers may be given (RFC 1812, 4.3.2.8): so many a second, and as many at once.
const RATE: u32 = 100;

/// What is left of the answers that may be given.
#[derive(Debug)]
pub(super) struct Budget {
    left: u32,
    filled: Instant,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { left: RATE, filled: Instant::now() }
    }

    /// Takes one, if there is one left.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let each = Duration::from_secs(1) / RATE;
        let earned = now.saturating_duration_since(self.filled).as_nanos() / each.as_nanos();
        if earned > 0 {
            self.left = self.left.saturating_add(earned.min(RATE.into()) as u32).min(RATE);
            self.filled = now;
        }
        let some = self.left > 0;
        self.left = self.left.saturating_sub(1);
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_flows::packet::checksum;

    fn packet_v4(flags: u8, src: [u8; 4], payload: usize) -> Frame {
        let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x81, 0, 0, 7, 0x08, 0x00];
        let [high, low] = (20 + payload as u16).to_be_bytes();
        bytes.extend([0x45, 0, high, low, 0, 0, flags, 0, 64, 17, 0, 0]);
        bytes.extend(src);
        bytes.extend([10, 0, 0, 2]);
        bytes.resize(bytes.len() + payload, 0xaa);
        Frame::from_bytes(&bytes)
    }

    #[test]
    fn an_ipv4_sender_is_told_the_mtu_from_the_address_it_sent_to() {
        let answer = answer(&packet_v4(0x40, [10, 0, 0, 1], 1500), 1468).unwrap();
        let bytes = answer.bytes();
        assert_eq!(bytes[..18], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0, 0, 7, 0x08, 0x00]);
        assert_eq!((&bytes[30..34], &bytes[34..38]), (&[10, 0, 0, 2][..], &[10, 0, 0, 1][..]));
        assert_eq!((bytes[38], bytes[39], u16::from_be_bytes([bytes[44], bytes[45]])), (3, 4, 1450));
        assert!(checksum::verify(&bytes[18..38], 0) && checksum::verify(&bytes[38..], 0));
        assert_eq!(bytes.len(), 18 + 576);
    }

    #[test]
    fn nobody_is_told_about_what_nobody_sent() {
        assert!(answer(&packet_v4(0x40, [224, 0, 0, 1], 1500), 1000).is_none());
        assert!(answer(&packet_v4(0x40, [0, 0, 0, 0], 1500), 1000).is_none());
        assert!(answer(&Frame::from_bytes(&[2; 10]), 1000).is_none());
        let mut error = packet_v4(0x40, [10, 0, 0, 1], 1500);
        (error.bytes_mut()[18 + 9], error.bytes_mut()[18 + 20]) = (1, 3);
        assert!(answer(&error, 1000).is_none(), "an ICMP error is not answered");
    }

    #[test]
    fn an_ipv6_sender_is_told_with_a_right_checksum() {
        let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd];
        bytes.extend([0x60, 0, 0, 0, 0x05, 0xdc, 17, 64]);
        bytes.extend([[0xfd; 16], [0xfc; 16]].concat());
        bytes.resize(bytes.len() + 1500, 0xaa);
        let answer = answer(&Frame::from_bytes(&bytes), 1414).unwrap();
        let out = answer.bytes();
        assert_eq!((out[54], out[55], u32::from_be_bytes([out[58], out[59], out[60], out[61]])), (2, 0, 1400));
        let pseudo = checksum::pseudo_v6([0xfc; 16], [0xfd; 16], 58, (out.len() - 54) as u32);
        assert!(checksum::verify(&out[54..], pseudo));
        assert_eq!(out.len(), 14 + 1280);
    }

    #[test]
    fn only_what_the_sender_wants_whole_is_answered() {
        assert!(may_be_cut(&packet_v4(0, [10, 0, 0, 1], 1500), 1538));
        assert!(!may_be_cut(&packet_v4(0x40, [10, 0, 0, 1], 1500), 1538));
        assert!(may_be_cut(&Frame::from_bytes(&[2; 1600]), 1600), "it is not IP");
    }

    #[test]
    fn answers_are_limited_and_come_back_with_time() {
        let mut budget = Budget::new();
        let now = budget.filled;
        assert_eq!((0..1000).filter(|_| budget.take(now)).count(), RATE as usize);
        let later = now + Duration::from_millis(100);
        assert_eq!((0..1000).filter(|_| budget.take(later)).count(), RATE as usize / 10);
    }
}
