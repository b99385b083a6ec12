//! How long a worker goes on asking its ports before it sleeps.
//!
//! # The rule
//! To be woken costs a frame 10 to 30 us, most of it because the CPU sleeps too. So a worker goes on asking for as long as the
//! next frame can be expected, by what the last pause was: after one no longer than the limit it asks for up to twice as long,
//! after a longer one for [`LEAST`] alone. A request and its answer then meet an awake worker, and a switch that has nothing to
//! do sleeps. The governors of KVM's and of Linux's own polling before a halt work alike.
//!
//! Programs that want the CPU go first. When more than [`TAKEN`] pass between two looks at ports that have nothing, and the kernel
//! says that the worker was made to leave its CPU meanwhile, somebody else had it. Then the worker sleeps at once, and for
//! [`MODEST`] asks for [`LEAST`] alone. What the clock says alone may be the machine's doing: under a hypervisor a CPU stands
//! still at times.

use std::time::{Duration, Instant};

/// What it asks for at least, if the limit allows it.
const LEAST: Duration = Duration::from_micros(10);
/// A look at the ports takes a microsecond, and no interrupt so long.
const TAKEN: Duration = Duration::from_micros(20);
/// For how long a CPU that was wanted counts as wanted.
const MODEST: Duration = Duration::from_millis(5);

/// What a worker expects.
#[derive(Debug)]
pub(super) struct Spin {
    limit: Duration,
    least: Duration,
    /// For how long to ask after the last frame.
    window: Duration,
    /// When the last round with frames began.
    last: Option<Instant>,
    /// When the last round began, if it had no frames and was not followed by sleep.
    looked: Option<Instant>,
    /// Until when the CPU counts as wanted.
    modest: Option<Instant>,
    /// How often the worker was made to leave its CPU, when it was last asked.
    left: u64,
}

impl Spin {
    /// Asks for no longer than `limit`.
    pub(super) fn new(limit: Duration) -> Self {
        let least = LEAST.min(limit);
        Self { limit, least, window: least, last: None, looked: None, modest: None, left: 0 }
    }

    /// The round that began at `start` had frames.
    pub(super) fn came(&mut self, start: Instant) {
        if let Some(last) = self.last {
            let pause = start.duration_since(last);
            let modest = self.modest.is_some_and(|until| start < until);
            self.window =
                if modest || pause > self.limit { self.least } else { self.window.max(pause * 2).min(self.limit) };
        }
        self.last = Some(start);
        self.looked = None;
    }

    /// Whether to go on asking in the round that began at `start`, after which no queue has frames. `left` is how often the
    /// worker was made to leave its CPU so far; it is seldom asked.
    pub(super) fn goes_on(&mut self, start: Instant, left: impl FnOnce() -> u64) -> bool {
        let Some(last) = self.last else { return false };
        let late = self.looked.replace(start).is_some_and(|looked| start.duration_since(looked) > TAKEN);
        if late && self.was_made_to_leave(left()) {
            self.window = self.least;
            self.modest = Some(start + MODEST);
            return false;
        }
        start.duration_since(last) < self.window
    }

    fn was_made_to_leave(&mut self, left: u64) -> bool {
        std::mem::replace(&mut self.left, left) != left
    }

    /// It slept, which says nothing about other programs.
    pub(super) fn slept(&mut self) {
        self.looked = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(100);

    /// Asks every microsecond from `from` on; after how many it slept.
    fn asked(spin: &mut Spin, from: Instant) -> u64 {
        let us = (0..1000).find(|us| !spin.goes_on(from + Duration::from_micros(*us), || 0)).unwrap();
        spin.slept();
        us
    }

    fn after(pauses: &[u64], limit: Duration) -> (Spin, Instant) {
        let (mut spin, mut now) = (Spin::new(limit), Instant::now());
        spin.came(now);
        for pause in pauses {
            now += Duration::from_micros(*pause);
            spin.came(now);
        }
        (spin, now)
    }

    #[test]
    fn it_asks_for_as_long_as_the_next_frame_is_expected() {
        for (pauses, expected) in
            [(&[][..], 10), (&[2], 10), (&[30], 60), (&[30, 5], 60), (&[80], 100), (&[30, 101], 10), (&[500, 30], 60)]
        {
            let (mut spin, now) = after(pauses, LIMIT);
            assert_eq!(asked(&mut spin, now), expected, "{pauses:?}");
        }
    }

    #[test]
    fn the_limit_holds() {
        for limit in [0, 5, 15] {
            let (mut spin, now) = after(&[3, 4, 5, 6, 9], Duration::from_micros(limit));
            assert!(asked(&mut spin, now) <= limit);
        }
    }

    #[test]
    fn a_worker_that_has_had_no_frame_sleeps() {
        assert_eq!(asked(&mut Spin::new(LIMIT), Instant::now()), 0);
    }

    #[test]
    fn it_makes_way_for_others_for_a_while() {
        let (mut spin, mut now) = after(&[40], LIMIT);
        assert!(spin.goes_on(now + Duration::from_micros(1), || 1));
        assert!(!spin.goes_on(now + Duration::from_micros(30), || 1), "somebody else had the CPU");
        spin.slept();
        now += Duration::from_micros(60);
        spin.came(now);
        assert_eq!(asked(&mut spin, now), 10);
        now += MODEST;
        spin.came(now);
        now += Duration::from_micros(40);
        spin.came(now);
        assert_eq!(asked(&mut spin, now), 80, "nobody wants the CPU any more");
    }

    #[test]
    fn sleep_and_work_are_not_taken_for_others() {
        let (mut spin, now) = after(&[40], LIMIT);
        assert!(spin.goes_on(now, || 1));
        spin.slept();
        assert!(spin.goes_on(now + Duration::from_micros(70), || 1));
        spin.came(now + Duration::from_micros(75));
        assert!(spin.goes_on(now + Duration::from_micros(105), || 1), "the round before had frames");
    }

    #[test]
    fn a_cpu_that_stood_still_is_not_taken_for_others() {
        let (mut spin, now) = after(&[40, 40], LIMIT);
        let at = |us| now + Duration::from_micros(us);
        assert!(spin.goes_on(at(1), || 0));
        assert!(spin.goes_on(at(30), || 0), "nobody was made to leave");
        assert!(spin.goes_on(at(55), || 0));
        assert!(!spin.goes_on(at(78), || 1), "the worker was made to leave");
    }
}
