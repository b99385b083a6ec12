//! TCP: the states of the two ends and the windows that segments must be in (van Rooij, "Real Stateful TCP Packet
//! Filtering in IP Filter", 2000), as Open vSwitch's user-space tracker has them.
//!
//! # Sharing
//! Each end's numbers only ever move forward. A segment that moves no state (data and acknowledgements of an
//! established connection) does so by compare-and-swap, without the connection's lock; two workers that see segments of
//! one connection at the same time may each see the other's a little late, as if it had arrived a little later.

use super::timeouts::TimeoutClass;
use super::tuple::Direction;
use sluice_flows::packet::rewrite::datagram_end;
use sluice_flows::packet::{L4, Layers};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

/// TCP header flags (RFC 9293, 3.1).
pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const URG: u8 = 0x20;

/// What the tracker reads of a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    /// As it stands in the header, not scaled.
    pub(crate) window: u16,
    /// [`FIN`] to [`URG`].
    pub(crate) flags: u8,
    /// Bytes of payload; of a super-frame all.
    pub(crate) len: u32,
}

impl Segment {
    /// Of a frame with these layers; `None` if it has no TCP header.
    #[inline]
    pub(crate) fn read(bytes: &[u8], layers: &Layers) -> Option<Self> {
        if layers.l4 != L4::Tcp {
            return None;
        }
        let header = bytes.get(usize::from(layers.l4_ofs)..)?.first_chunk::<20>()?;
        let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        Some(Self {
            seq: word(4),
            ack: word(8),
            window: u16::from_be_bytes([header[14], header[15]]),
            flags: header[13] & 0x3f,
            len: datagram_end(bytes, layers).saturating_sub(layers.payload_ofs.into()) as u32,
        })
    }
}

/// State of one end, in the order in which it goes through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum TcpEnd {
    /// Nothing was sent yet.
    Closed = 0,
    /// Listening; not used by a tracker, but part of the list.
    Listen = 1,
    /// A SYN was sent.
    SynSent = 2,
    /// A SYN was received.
    SynReceived = 3,
    /// Its SYN was acknowledged.
    Established = 4,
    /// The other end's FIN came first.
    CloseWait = 5,
    /// A FIN was sent.
    FinWait1 = 6,
    /// Both sent a FIN.
    Closing = 7,
    /// The last acknowledgement is missing.
    LastAck = 8,
    /// Its FIN was acknowledged.
    FinWait2 = 9,
    /// All is over.
    TimeWait = 10,
}

/// What is known of one end.
#[derive(Debug, Default)]
pub(crate) struct End {
    /// The highest sequence number sent, plus length.
    pub(crate) seq_lo: AtomicU32,
    /// The highest that the other end allows.
    pub(crate) seq_hi: AtomicU32,
    /// The largest window that it advertised, not scaled.
    pub(crate) max_window: AtomicU32,
    /// Window scale, with [`SCALE_KNOWN`].
    pub(crate) scale: AtomicU8,
    /// A [`TcpEnd`] by number.
    pub(crate) state: AtomicU8,
}

/// Bit of [`End::scale`]: the end's SYN said what its scale is.
pub(crate) const SCALE_KNOWN: u8 = 0x80;

/// What is known of a TCP connection.
#[derive(Debug, Default)]
pub(crate) struct TcpState {
    /// By direction: the end that sends the packets of that direction.
    pub(crate) ends: [End; 2],
    /// Sequence numbers are not looked at.
    pub(crate) liberal: AtomicBool,
}

impl TcpState {
    /// Whether the segment is plain data or acknowledgement within the windows of an established connection.
    #[inline]
    pub(crate) fn admits(&self, direction: Direction, segment: &Segment) -> bool {
        let (src, dst) = self.ends(direction);
        let established = TcpEnd::Established as u8;
        segment.flags & (SYN | FIN | RST | URG | ACK) == ACK
            && src.state.load(Ordering::Relaxed) == established
            && dst.state.load(Ordering::Relaxed) == established
            && (self.liberal.load(Ordering::Relaxed) || fits(src, dst, segment))
    }

    /// Moves the windows for a segment that was admitted.
    #[inline]
    pub(crate) fn advance(&self, direction: Direction, segment: &Segment) {
        let (src, dst) = self.ends(direction);
        let end = segment.seq.wrapping_add(segment.len);
        let window = u32::from(segment.window);
        raise(&src.max_window, window, |new, old| new > old);
        raise(&src.seq_lo, end, after);
        let allowed = segment.ack.wrapping_add((window << scale(src)).max(1));
        raise(&dst.seq_hi, allowed, after);
    }

    /// What decides how long the connection lives without packets, as OVS has it.
    pub(crate) fn timeout_class(&self) -> TimeoutClass {
        let [a, b] = self.ends.each_ref().map(|end| end.state.load(Ordering::Relaxed));
        let (least, most) = (a.min(b), a.max(b));
        if least >= TcpEnd::FinWait2 as u8 {
            TimeoutClass::TcpClose
        } else if least >= TcpEnd::Closing as u8 {
            TimeoutClass::TcpTimeWait
        } else if least == TcpEnd::Closed as u8 && most <= TcpEnd::SynSent as u8 {
            TimeoutClass::TcpSynSent
        } else if least < TcpEnd::Established as u8 {
            TimeoutClass::TcpSynRecv
        } else if most >= TcpEnd::Closing as u8 {
            TimeoutClass::TcpFinWait
        } else {
            TimeoutClass::TcpEstablished
        }
    }

    /// The end that sends packets of `direction`, and the other.
    #[inline]
    pub(crate) fn ends(&self, direction: Direction) -> (&End, &End) {
        let [original, reply] = &self.ends;
        match direction {
            Direction::Original => (original, reply),
            Direction::Reply => (reply, original),
        }
    }
}

/// The shift that the end's windows are scaled by.
#[inline]
pub(crate) fn scale(end: &End) -> u32 {
    u32::from(end.scale.load(Ordering::Relaxed) & !SCALE_KNOWN).min(14)
}

/// How far an acknowledgement may be off.
const ACK_SLACK: i32 = 0xffff + 1500;

/// Whether a segment with an acknowledgement lies in the windows.
#[inline]
fn fits(src: &End, dst: &End, segment: &Segment) -> bool {
    let lo = src.seq_lo.load(Ordering::Relaxed);
    let (seq, end) = match segment.len {
        // Without data the number is not looked at: keep-alives repeat an old one.
        0 => (lo, lo),
        len => (segment.seq, segment.seq.wrapping_add(len)),
    };
    let behind = dst.max_window.load(Ordering::Relaxed) << scale(dst);
    let skew = dst.seq_lo.load(Ordering::Relaxed).wrapping_sub(segment.ack).cast_signed();
    !after(end, src.seq_hi.load(Ordering::Relaxed))
        && !after(lo.wrapping_sub(behind), seq)
        && skew >= -ACK_SLACK
        && i64::from(skew) <= i64::from(ACK_SLACK) << scale(src)
}

/// Whether sequence number `a` comes after `b` (RFC 9293, 3.4).
#[inline]
pub(crate) const fn after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

/// Replaces the number by `new` as long as `new` is ahead of it.
#[inline]
fn raise(number: &AtomicU32, new: u32, ahead: impl Fn(u32, u32) -> bool) {
    let mut old = number.load(Ordering::Relaxed);
    while ahead(new, old) {
        match number.compare_exchange_weak(old, new, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => old = now,
        }
    }
}
