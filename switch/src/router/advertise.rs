//! When a router advertises itself (RFC 4861, 6.2.4 and 6.2.6).
//!
//! An interface is advertised three times within half a minute of its start, then at random intervals between a third of
//! the longest and the longest. Who asks is answered within half a second, to all nodes, and never more often than once
//! in three seconds.

use sluice_flows::router::InterfaceId;
use sluice_flows::rule::Millis;
use std::collections::BTreeMap;

/// Advertisements at the start that come sooner, and the longest time between them.
const INITIAL: u8 = 3;
const INITIAL_INTERVAL: u64 = 16_000;
/// Longest time until an answer.
const ANSWER_WITHIN: u64 = 500;
/// Shortest time between two.
const AT_LEAST: u64 = 3000;

/// Random numbers: no secret depends on them, only that routers do not all talk at once.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// With this seed.
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`; 0 if that is 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31).checked_rem(end).unwrap_or(0)
    }
}

#[derive(Clone, Copy, Debug)]
struct Timer {
    due: Millis,
    last: Option<Millis>,
    sent: u8,
    /// Longest time between two, in milliseconds.
    max_interval: u64,
}

/// When each interface of a router is to be advertised.
#[derive(Debug, Default)]
pub(super) struct Advertiser {
    timers: BTreeMap<InterfaceId, Timer>,
}

impl Advertiser {
    /// An interface is up, with this longest interval in seconds: it is advertised now.
    pub(super) fn start(&mut self, interface: InterfaceId, max_interval: u16, now: Millis) {
        let max_interval = u64::from(max_interval.max(4)) * 1000;
        self.timers.insert(interface, Timer { due: now, last: None, sent: 0, max_interval });
    }

    /// An interface is down, or does not advertise any more. Returns whether it did.
    pub(super) fn stop(&mut self, interface: InterfaceId) -> bool {
        self.timers.remove(&interface).is_some()
    }

    /// Somebody asked on an interface.
    pub(super) fn asked(&mut self, interface: InterfaceId, dice: &mut Dice, now: Millis) {
        if let Some(timer) = self.timers.get_mut(&interface) {
            let answer = Millis(now.0 + dice.below(ANSWER_WITHIN));
            let earliest = timer.last.map_or(answer, |last| answer.max(Millis(last.0 + AT_LEAST)));
            timer.due = timer.due.min(earliest);
        }
    }

    /// The interfaces to be advertised now.
    pub(super) fn due(&mut self, dice: &mut Dice, now: Millis) -> Vec<InterfaceId> {
        let mut due = Vec::new();
        for (interface, timer) in &mut self.timers {
            if timer.due > now {
                continue;
            }
            due.push(*interface);
            let min = (timer.max_interval / 3).max(AT_LEAST);
            let mut wait = min + dice.below(timer.max_interval.saturating_sub(min));
            timer.sent = timer.sent.saturating_add(1);
            if timer.sent < INITIAL {
                wait = wait.min(INITIAL_INTERVAL);
            }
            timer.last = Some(now);
            timer.due = Millis(now.0 + wait);
        }
        due
    }

    /// When [`due`](Self::due) says something.
    pub(super) fn next(&self) -> Option<Millis> {
        self.timers.values().map(|timer| timer.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: InterfaceId = InterfaceId(1);

    /// When the interface is advertised, in the first `seconds`.
    fn times(advertiser: &mut Advertiser, dice: &mut Dice, from: u64, seconds: u64) -> Vec<u64> {
        (from..from + seconds * 1000).filter(|t| !advertiser.due(dice, Millis(*t)).is_empty()).collect()
    }

    #[test]
    fn three_come_soon_and_the_others_at_random_intervals_within_the_bounds() {
        for seed in 0..20 {
            let (mut advertiser, mut dice) = (Advertiser::default(), Dice::new(seed));
            advertiser.start(ONE, 600, Millis(0));
            let times = times(&mut advertiser, &mut dice, 0, 4000);
            let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert_eq!(times[0], 0);
            assert!(gaps[..2].iter().all(|gap| *gap <= 16_000), "{gaps:?}");
            assert!(gaps[2..].iter().all(|gap| (200_000..=600_000).contains(gap)), "{gaps:?}");
        }
    }

    #[test]
    fn who_asks_is_answered_soon_but_not_sooner_than_three_seconds_after_the_last() {
        let (mut advertiser, mut dice) = (Advertiser::default(), Dice::new(7));
        advertiser.start(ONE, 600, Millis(0));
        assert_eq!(times(&mut advertiser, &mut dice, 0, 1), [0]);
        for now in 1000..1100 {
            advertiser.asked(ONE, &mut dice, Millis(now));
        }
        let answers = times(&mut advertiser, &mut dice, 1000, 10);
        assert_eq!(answers, [3000]);
        advertiser.asked(ONE, &mut dice, Millis(12_000));
        let answers = times(&mut advertiser, &mut dice, 12_000, 2);
        assert!(matches!(answers[..], [at] if at <= 12_500), "{answers:?}");
    }

    #[test]
    fn an_interface_that_stopped_says_nothing_when_asked() {
        let (mut advertiser, mut dice) = (Advertiser::default(), Dice::new(7));
        advertiser.start(ONE, 4, Millis(0));
        assert!(advertiser.stop(ONE) && !advertiser.stop(ONE));
        advertiser.asked(ONE, &mut dice, Millis(1));
        assert_eq!((advertiser.due(&mut dice, Millis(9000)), advertiser.next()), (vec![], None));
    }
}
