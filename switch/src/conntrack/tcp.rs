//! TCP: the states of the two ends and the windows that segments must be in (van Rooij, "Real Stateful TCP Packet
//! Filtering in IP Filter", 2000), with the tolerances of Open vSwitch's user-space tracker.
//!
//! # Sharing
//! Each end's numbers only ever move forward once it has sent something. A segment that moves no state (data and
//! acknowledgements of an established connection) moves them by compare-and-swap, without the connection's lock
//! ([`TcpState::admits`], [`TcpState::advance`]); two workers that see segments of one connection at the same time may
//! each see the other's a little late, as if it had arrived a little later. Everything else goes through
//! [`TcpState::update`] under the lock. Both ways judge with the same [`Check`], so that they agree.
//!
//! # Differences from Open vSwitch
//! - The SYN of the second end in a simultaneous open sets that end's numbers; there they stay 0 and what follows is
//!   invalid.
//! - A SYN with another sequence number, before the other end has said anything, begins again with that number: the
//!   sender has given up its first try. There the old number stays, and the handshake that follows may be invalid.

use super::conn::Update;
use super::timeouts::TimeoutClass;
use super::tuple::Direction;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

#[cfg(test)]
mod tests;

/// TCP header flags (RFC 9293, 3.1).
pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const URG: u8 = 0x20;

/// What the tracker reads of a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TcpSegment {
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    /// As it stands in the header, not scaled.
    pub(crate) window: u16,
    /// [`FIN`] to [`URG`].
    pub(crate) flags: u8,
    /// Bytes of payload; of a super-frame all.
    pub(crate) len: u32,
}

impl TcpSegment {
    /// Length of a TCP header without options.
    pub(crate) const HEADER_LEN: usize = 20;

    /// Of a segment whose header is at the start of `bytes`, with `len` bytes of payload. `None` if it is shorter than
    /// a header.
    #[inline]
    pub(crate) fn read(bytes: &[u8], len: u32) -> Option<Self> {
        let header = bytes.first_chunk::<{ Self::HEADER_LEN }>()?;
        let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        Some(Self {
            seq: word(4),
            ack: word(8),
            window: u16::from_be_bytes([header[14], header[15]]),
            flags: header[13] & 0x3f,
            len,
        })
    }

    /// Whether its flags may stand together.
    pub(crate) const fn is_sound(&self) -> bool {
        match self.flags & (SYN | ACK) {
            SYN => self.flags & (RST | FIN | PSH | URG) == 0,
            0 => self.flags & RST != 0 && self.flags & (FIN | PSH | URG) == 0,
            ACK => true,
            _ => self.flags & (RST | FIN) == 0,
        }
    }

    /// Whether it may begin a connection: a SYN, or a segment from the middle of a connection that was not seen from
    /// its start, but never the answer to a SYN.
    pub(crate) const fn may_begin(&self) -> bool {
        self.is_sound() && self.flags & (SYN | ACK) != SYN | ACK
    }

    /// The sequence number behind it: SYN and FIN count as a byte each.
    const fn end(&self) -> u32 {
        let flags = (self.flags & SYN != 0) as u32 + (self.flags & FIN != 0) as u32;
        self.seq.wrapping_add(self.len).wrapping_add(flags)
    }
}

/// The window scale that the options of a SYN give, with [`SCALE_KNOWN`]; 0 if there is none (RFC 7323, 2.2). More than
/// 14 counts as 14.
pub(crate) fn window_scale(mut options: &[u8]) -> u8 {
    let mut scale = 0;
    // Each turn takes at least one byte off.
    while let [kind, len, value, ..] = *options {
        let skip = match kind {
            0 => break,
            1 => 1,
            3 => {
                scale = value.min(MAX_SCALE) | SCALE_KNOWN;
                usize::from(len).max(2)
            }
            _ => usize::from(len).max(2),
        };
        options = options.get(skip..).unwrap_or_default();
    }
    scale
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
    /// A FIN was sent, and waits for its acknowledgement.
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
    seq_lo: AtomicU32,
    /// The highest that the other end allows.
    seq_hi: AtomicU32,
    /// The largest window that it advertised, not scaled.
    max_window: AtomicU32,
    /// Window scale, with [`SCALE_KNOWN`] or [`SCALE_GUESSED`].
    scale: AtomicU8,
    /// A [`TcpEnd`] by number, perhaps with [`RESUMED`].
    state: AtomicU8,
}

/// Bit of [`End::state`]: its sequence numbers are not known, and are taken from its next segment.
const RESUMED: u8 = 0x80;

/// Bit of [`End::scale`]: the end's SYN said what its scale is.
const SCALE_KNOWN: u8 = 0x80;
/// Bit of [`End::scale`]: the SYNs were not seen, so the largest scale is assumed.
const SCALE_GUESSED: u8 = 0x40;
/// The largest window scale (RFC 7323, 2.3).
const MAX_SCALE: u8 = 14;
/// [`End::seq_hi`] of an end that was not heard of.
const NOT_HEARD: u32 = 1;

impl End {
    /// Its state.
    #[inline]
    pub(crate) fn state(&self) -> TcpEnd {
        TcpEnd::from_number(self.state.load(Ordering::Relaxed) & !RESUMED)
    }

    pub(crate) fn set_state(&self, state: TcpEnd) {
        let resumed = self.state.load(Ordering::Relaxed) & RESUMED;
        self.state.store(state as u8 | resumed, Ordering::Relaxed);
    }

    /// State, window scale and largest window: what [`Self::resumed`] makes it of again.
    pub(super) fn kept(&self) -> (u8, u8, u32) {
        (self.state() as u8, self.raw_scale(), self.max_window())
    }

    /// An end of a connection that was there before this process. Numbers that no end can have are brought into their ranges.
    pub(super) fn resumed((state, scale, max_window): (u8, u8, u32)) -> Self {
        let scale = match scale & SCALE_KNOWN {
            0 => scale & SCALE_GUESSED,
            _ => SCALE_KNOWN | (scale & !SCALE_KNOWN).min(MAX_SCALE),
        };
        Self {
            max_window: AtomicU32::new(max_window.clamp(1, 0xffff)),
            scale: AtomicU8::new(scale),
            state: AtomicU8::new(TcpEnd::from_number(state) as u8 | RESUMED),
            ..Self::default()
        }
    }

    fn is_resumed(&self) -> bool {
        self.state.load(Ordering::Relaxed) & RESUMED != 0
    }

    /// Takes its numbers from a segment.
    fn resume(&self, dst: &Self, segment: &TcpSegment) -> Check {
        let shifts = shifts(self, dst);
        self.seq_lo.store(segment.seq, Ordering::Relaxed);
        let room = segment.end().wrapping_add((dst.max_window() << shifts[1]).max(1));
        self.seq_hi.store(room, Ordering::Relaxed);
        self.state.store(self.state() as u8, Ordering::Relaxed);
        Check { skew_matters: false, ..Check::of(self, dst, segment, shifts) }
    }

    #[inline]
    pub(super) fn seq_lo(&self) -> u32 {
        self.seq_lo.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn seq_hi(&self) -> u32 {
        self.seq_hi.load(Ordering::Relaxed)
    }

    #[inline]
    fn max_window(&self) -> u32 {
        self.max_window.load(Ordering::Relaxed)
    }

    #[inline]
    fn raw_scale(&self) -> u8 {
        self.scale.load(Ordering::Relaxed)
    }

    /// The window scale that its SYN gave, if it was seen and gave one.
    pub(crate) fn scale(&self) -> Option<u8> {
        let scale = self.raw_scale();
        (scale & SCALE_KNOWN != 0).then_some(scale & !SCALE_KNOWN)
    }
}

/// What is known of a TCP connection.
#[derive(Debug, Default)]
pub(crate) struct TcpState {
    /// By direction: the end that sends the packets of that direction.
    pub(crate) ends: [End; 2],
    /// Sequence numbers are not looked at.
    pub(crate) liberal: AtomicBool,
}

/// What a segment is judged by.
#[derive(Clone, Copy, Debug)]
struct Check {
    /// Its first sequence number, and the one behind it. Of a segment that takes no room both are where its end is:
    /// keep-alives repeat an old number.
    seq: u32,
    end: u32,
    ack: u32,
    /// The window that it advertises, not scaled.
    window: u32,
    /// By how much the windows of its end and of the other are scaled.
    shifts: [u32; 2],
    /// How far its acknowledgement is off is looked at.
    skew_matters: bool,
}

impl Check {
    #[inline]
    fn of(src: &End, dst: &End, segment: &TcpSegment, shifts: [u32; 2]) -> Self {
        let (mut seq, mut end) = (segment.seq, segment.end());
        if seq == end {
            seq = src.seq_lo();
            end = seq;
        }
        // An end that gives up on its SYN sends a RST that acknowledges 0.
        let has_ack = segment.flags & ACK != 0 && (segment.ack != 0 || segment.flags & RST == 0);
        let ack = if has_ack { segment.ack } else { dst.seq_lo() };
        Self { seq, end, ack, window: segment.window.into(), shifts, skew_matters: true }
    }

    /// Whether the segment lies in the windows.
    #[inline]
    fn fits(&self, src: &End, dst: &End) -> bool {
        let behind = dst.max_window() << self.shifts[1];
        let skew = if self.skew_matters { dst.seq_lo().wrapping_sub(self.ack).cast_signed() } else { 0 };
        reaches(src.seq_hi(), self.end)
            && reaches(self.seq, src.seq_lo().wrapping_sub(behind))
            && skew >= -ACK_SLACK
            && skew <= ACK_SLACK << self.shifts[0]
    }

    /// Whether the segment lies where strays of a connection that just began or ended may lie.
    fn is_near(&self, src: &End) -> bool {
        const SLACK: u32 = ACK_SLACK as u32;
        reaches(src.seq_hi().wrapping_add(SLACK), self.end) && reaches(self.seq, src.seq_lo().wrapping_sub(SLACK))
    }

    /// Moves the windows for a segment that was taken.
    #[inline]
    fn slide(&self, src: &End, dst: &End) {
        raise(&src.max_window, self.window, |old| self.window > old);
        raise(&src.seq_lo, self.end, |old| after(self.end, old));
        let window = self.window << self.shifts[0];
        let allowed = self.ack.wrapping_add(window);
        raise(&dst.seq_hi, self.ack.wrapping_add(window.max(1)), |old| reaches(allowed, old));
    }
}

/// How far an acknowledgement may be off, and a stray segment: a window, and a packet more.
const ACK_SLACK: i32 = 0xffff + 1500;

impl TcpState {
    /// A connection that `segment` begins, with the options of its header.
    pub(crate) fn begin(segment: &TcpSegment, options: &[u8], liberal: bool) -> Self {
        let begun = Self { liberal: AtomicBool::new(liberal), ..Self::default() };
        let [src, dst] = &begun.ends;
        let scale = if segment.flags & SYN != 0 { window_scale(options) } else { SCALE_GUESSED };
        dst.scale.store(scale & SCALE_GUESSED, Ordering::Relaxed);
        dst.max_window.store(1, Ordering::Relaxed);
        dst.seq_hi.store(NOT_HEARD, Ordering::Relaxed);
        src.opens_with(segment, scale);
        begun
    }

    /// Whether the segment is plain data or acknowledgement within the windows of an established connection.
    #[inline]
    pub(crate) fn admits(&self, direction: Direction, segment: &TcpSegment) -> bool {
        let (src, dst) = self.ends(direction);
        segment.flags & (SYN | FIN | RST | URG | ACK) == ACK
            && src.state.load(Ordering::Relaxed) == TcpEnd::Established as u8
            && dst.state.load(Ordering::Relaxed) == TcpEnd::Established as u8
            && (self.is_liberal() || Check::of(src, dst, segment, shifts(src, dst)).fits(src, dst))
    }

    /// Moves the windows for a segment that was admitted.
    #[inline]
    pub(crate) fn advance(&self, direction: Direction, segment: &TcpSegment) {
        let (src, dst) = self.ends(direction);
        Check::of(src, dst, segment, shifts(src, dst)).slide(src, dst);
    }

    /// Takes in any segment of a connection that is known, with the options of its header. To be called under the
    /// connection's lock.
    pub(crate) fn update(&self, direction: Direction, segment: &TcpSegment, options: &[u8]) -> Update {
        if !segment.is_sound() {
            return Update::Invalid;
        }
        let (src, dst) = self.ends(direction);
        if segment.flags & (SYN | ACK) == SYN {
            if src.state().min(dst.state()) >= TcpEnd::FinWait2 {
                return Update::Replaced;
            }
            if src.state() <= TcpEnd::SynSent {
                syn(src, dst, segment, options);
                return Update::New;
            }
        }
        let check = if src.state() < TcpEnd::SynSent {
            first(src, dst, segment, options)
        } else if src.is_resumed() {
            if segment.flags & SYN != 0 {
                return Update::Invalid;
            }
            src.resume(dst, segment)
        } else {
            let shifts = if segment.flags & SYN == 0 { shifts(src, dst) } else { [0, 0] };
            let skew_matters = !dst.is_resumed();
            Check { skew_matters, ..Check::of(src, dst, segment, shifts) }
        };
        let exact = segment.flags & RST == 0 || segment.seq.wrapping_sub(src.seq_lo()).wrapping_add(1) <= 2;
        if self.is_liberal() || exact && check.fits(src, dst) {
            check.slide(src, dst);
            moves(src, dst, segment.flags);
            return Update::Valid;
        }
        let loose = dst.state() < TcpEnd::SynSent || src.state().max(dst.state()) >= TcpEnd::FinWait2;
        if loose && check.is_near(src) {
            check.slide(src, dst);
            moves(src, dst, segment.flags & !ACK);
            return Update::Tolerated;
        }
        Update::Invalid
    }

    /// What decides how long the connection lives without packets, as OVS has it.
    pub(crate) fn timeout_class(&self) -> TimeoutClass {
        let [a, b] = self.ends.each_ref().map(|end| end.state() as u8);
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

    #[inline]
    fn is_liberal(&self) -> bool {
        self.liberal.load(Ordering::Relaxed)
    }
}

impl End {
    /// Begins with a segment, while nothing of the other end matters yet.
    fn opens_with(&self, segment: &TcpSegment, scale: u8) {
        let room = segment.end().wrapping_add(1);
        self.seq_lo.store(segment.seq, Ordering::Relaxed);
        self.seq_hi.store(room, Ordering::Relaxed);
        self.max_window.store(unscaled(segment.window, scale).max(1), Ordering::Relaxed);
        self.scale.store(scale, Ordering::Relaxed);
        self.set_state(TcpEnd::SynSent);
    }
}

/// The window of a SYN, which is not scaled (RFC 7323, 2.2), as if it were.
fn unscaled(window: u16, scale: u8) -> u32 {
    let shift = if scale & SCALE_KNOWN == 0 { 0 } else { scale & !SCALE_KNOWN };
    u32::from(window).div_ceil(1 << shift.min(MAX_SCALE))
}

/// A SYN without ACK, from an end that has sent nothing but SYNs.
fn syn(src: &End, dst: &End, segment: &TcpSegment, options: &[u8]) {
    if src.state() < TcpEnd::SynSent {
        first(src, dst, segment, options);
    } else if dst.state() < TcpEnd::SynSent && segment.seq != src.seq_lo() {
        src.opens_with(segment, window_scale(options));
    }
}

/// The first segment of an end whose peer was there before.
fn first(src: &End, dst: &End, segment: &TcpSegment, options: &[u8]) -> Check {
    let has_syn = segment.flags & SYN != 0;
    let mut shifts = if has_syn { [0, 0] } else { shifts(src, dst) };
    let mut window = u32::from(segment.window);
    if has_syn && let Some(scale) = dst.scale() {
        let own = window_scale(options);
        if own & SCALE_KNOWN != 0 {
            window = unscaled(segment.window, own);
            shifts = [u32::from(own & !SCALE_KNOWN), scale.into()];
        } else {
            // The other end's offer was not taken up, so its window is what it said (RFC 7323, 2.2).
            dst.max_window.store((dst.max_window() << scale).min(0xffff), Ordering::Relaxed);
            dst.scale.store(0, Ordering::Relaxed);
        }
        src.scale.store(own, Ordering::Relaxed);
    }
    src.seq_lo.store(segment.seq, Ordering::Relaxed);
    src.set_state(TcpEnd::SynSent);
    let room = segment.end().wrapping_add((dst.max_window() << shifts[1]).max(1));
    // Where the other end has allowed less, a connection is being picked up, and its acknowledgements say little.
    let picked_up = src.seq_hi() == NOT_HEARD || reaches(room, src.seq_hi());
    if picked_up {
        src.seq_hi.store(room, Ordering::Relaxed);
    }
    raise(&src.max_window, window, |old| window > old);
    Check { window, skew_matters: !picked_up, ..Check::of(src, dst, segment, shifts) }
}

/// The states after a segment with these flags.
fn moves(src: &End, dst: &End, flags: u8) {
    if flags & FIN != 0 && src.state() < TcpEnd::Closing {
        src.set_state(TcpEnd::Closing);
    }
    if flags & ACK != 0 {
        match dst.state() {
            TcpEnd::SynSent => dst.set_state(TcpEnd::Established),
            TcpEnd::Closing => dst.set_state(TcpEnd::FinWait2),
            _ => {}
        }
    }
    if flags & RST != 0 {
        src.set_state(TcpEnd::TimeWait);
        dst.set_state(TcpEnd::TimeWait);
    }
}

/// By how much the windows of the two ends are scaled, outside SYNs. Scaling needs both ends (RFC 7323, 2.2).
#[inline]
fn shifts(src: &End, dst: &End) -> [u32; 2] {
    let (own, other) = (src.raw_scale(), dst.raw_scale());
    match own & other & (SCALE_KNOWN | SCALE_GUESSED) {
        0 => [0, 0],
        SCALE_KNOWN => [own, other].map(|scale| u32::from(scale & 0xf)),
        _ => [MAX_SCALE.into(); 2],
    }
}

/// Whether sequence number `a` comes after `b` (RFC 9293, 3.4).
#[inline]
pub(crate) const fn after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

/// Whether sequence number `a` is `b` or comes after it.
#[inline]
const fn reaches(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() >= 0
}

/// Replaces the number by `new` as long as `ahead` says so of the old one.
#[inline]
fn raise(number: &AtomicU32, new: u32, ahead: impl Fn(u32) -> bool) {
    let mut old = number.load(Ordering::Relaxed);
    while ahead(old) {
        match number.compare_exchange_weak(old, new, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => old = now,
        }
    }
}
