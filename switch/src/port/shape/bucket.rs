//! A token bucket that several workers take from without a lock.
//!
//! It is one number: the time until which all that went is paid for. A frame may go when that time is not in the future,
//! and moves it on by what the frame takes at the rate; a time further in the past than the burst counts as that. So
//! every frame that finds the bucket not empty goes, however long it is, and leaves a debt: over any time T, what goes is
//! at most `rate * T + burst + one frame`, whichever workers send it. Time is an argument.
//!
//! Its unit is a tick of [`pace`](crate::port::pace).

use super::Rate;
use crate::port::pace::{TICKS, per_bit, takes};
use sluice_flows::packet::MAX_FRAME_LEN;
use std::sync::atomic::{AtomicU64, Ordering};

const MS: u64 = 1_000_000;
/// Where time begins, in ticks, so that a burst can lie before the start of the clock; the longest burst.
const START: u64 = 1 << 60;
/// A whole frame of a link with MTU 1500.
const FRAME_BITS: u64 = 1518 * 8;
/// The burst when none is set, in ms of the rate.
const BURST_MS: u64 = 10;
/// The least burst, in ms of the rate: a sleeping worker is woken so late at times, and what it missed must fit.
const LEAST_BURST_MS: u64 = 2;
/// Who waits is woken when this much may go at once, or half the burst: a wake costs more than a frame.
const WAKE: u64 = MS;
/// A super-frame that takes longer than this is cut.
const CUT: u64 = 4 * MS;
/// What may wait, in ms of the rate.
const WAIT_MS: u64 = 50;
/// Two super-frames: what may wait at least, so that a large UDP datagram passes whole at any rate.
const LEAST_WAIT: u64 = 2 * 8 * MAX_FRAME_LEN as u64;
/// 16 MiB: what may wait at most.
const MOST_WAIT: u64 = 8 << 24;

/// What goes at `rate` in so many ms, in bits.
fn in_ms(rate: Rate, ms: u64) -> u64 {
    u64::try_from(u128::from(rate.bits_per_s) * u128::from(ms) / 1000).unwrap_or(u64::MAX)
}

/// The burst of `rate` that counts, in bits.
pub(super) fn burst(rate: Rate) -> u64 {
    let asked = if rate.burst_bits == 0 { in_ms(rate, BURST_MS) } else { rate.burst_bits };
    asked.max(in_ms(rate, LEAST_BURST_MS)).max(FRAME_BITS)
}

#[derive(Debug)]
pub(super) struct Bucket {
    /// Ticks that a bit takes, as [`per_bit`] says; 0 is no limit.
    per_bit: AtomicU64,
    /// The burst in ticks.
    burst: AtomicU64,
    /// When what went is paid for, in ticks.
    paid: AtomicU64,
    /// Bits that may wait.
    room: AtomicU64,
    /// Bits that wait, with all workers.
    waiting: AtomicU64,
    /// How many workers there are.
    workers: u64,
}

impl Bucket {
    /// Without a limit, for so many workers.
    pub(super) fn new(workers: usize) -> Self {
        Self {
            per_bit: AtomicU64::default(),
            burst: AtomicU64::default(),
            paid: AtomicU64::default(),
            room: AtomicU64::default(),
            waiting: AtomicU64::default(),
            workers: workers.max(1) as u64,
        }
    }

    /// Goes by `rate` from `now` on. What is owed is forgiven, and what was saved stays, as far as the new burst allows.
    pub(super) fn set(&self, rate: Option<Rate>, now: u64) {
        let Some(rate) = rate.filter(|rate| rate.bits_per_s != 0) else {
            return self.per_bit.store(0, Ordering::Relaxed);
        };
        let per_bit = per_bit(rate.bits_per_s);
        self.room.store(in_ms(rate, WAIT_MS).clamp(LEAST_WAIT, MOST_WAIT), Ordering::Relaxed);
        self.burst.store(takes(burst(rate), per_bit).min(START), Ordering::Relaxed);
        self.paid.fetch_min(ticks(now), Ordering::Relaxed);
        self.per_bit.store(per_bit, Ordering::Relaxed);
    }

    /// Whether there is a limit.
    #[inline]
    pub(super) fn is_limited(&self) -> bool {
        self.per_bit.load(Ordering::Relaxed) != 0
    }

    /// Whether a frame of so many bits may go at `now`; if so, it has.
    #[inline]
    pub(super) fn take(&self, bits: u32, now: u64) -> bool {
        let per_bit = self.per_bit.load(Ordering::Relaxed);
        if per_bit == 0 {
            return true;
        }
        let now = ticks(now);
        let (takes, least) = (takes(bits.into(), per_bit), now.saturating_sub(self.burst.load(Ordering::Relaxed)));
        let pay = |paid: u64| (paid <= now).then(|| paid.max(least).saturating_add(takes));
        self.paid.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).is_ok()
    }

    /// When to look again if nothing may go now, in nanoseconds: so late that several frames may go then, unless somebody
    /// else was quicker last time.
    pub(super) fn due(&self, beaten: bool) -> u64 {
        if !self.is_limited() {
            return 0;
        }
        let later = if beaten { 0 } else { (self.burst.load(Ordering::Relaxed) / 2).min(WAKE * TICKS) };
        let due = self.paid.load(Ordering::Relaxed).saturating_add(later);
        due.saturating_sub(START).div_ceil(TICKS)
    }

    /// Whether a frame of so many bits takes so long that it had better be cut.
    #[inline]
    pub(super) fn is_long(&self, bits: u32) -> bool {
        takes(bits.into(), self.per_bit.load(Ordering::Relaxed)) > CUT * TICKS
    }

    /// Takes room for a frame that is to wait where `own` bits do already, with this worker. Returns whether there was
    /// some. A worker has its share of the room even when others took it all, and a frame that nothing waits before
    /// always has.
    pub(super) fn enter(&self, bits: u32, own: u64) -> bool {
        let waiting = self.waiting.fetch_add(bits.into(), Ordering::Relaxed);
        let room = self.room.load(Ordering::Relaxed);
        let fits = |waiting: u64, room: u64| waiting == 0 || waiting.saturating_add(bits.into()) <= room;
        let fits = fits(waiting, room) || fits(own, room / self.workers);
        if !fits {
            self.leave(bits);
        }
        fits
    }

    /// Gives the room back.
    pub(super) fn leave(&self, bits: u32) {
        self.waiting.fetch_sub(bits.into(), Ordering::Relaxed);
    }
}

/// A time of the clock in ticks.
fn ticks(now: u64) -> u64 {
    now.saturating_mul(TICKS).saturating_add(START)
}
