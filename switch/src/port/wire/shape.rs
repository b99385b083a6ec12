//! One direction of a wire: its settings where workers read them and the control side changes them, and how far it is.

use super::fate::{Course, Draw, Fate};
use super::settings::WireSettings;
use super::transmitter::{Pacing, Transmitter, WireQueue};
use arc_swap::{ArcSwap, Guard};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a direction does.
#[derive(Debug)]
pub(super) struct Shape {
    course: Course,
    plan: ArcSwap<Plan>,
    /// Frames that were given to this direction: the number of the next.
    number: AtomicU64,
    transmitter: Transmitter,
    counts: Counts,
}

/// Settings, and what follows from them.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) settings: WireSettings,
    pub(super) plain: bool,
    delay: u64,
    jitter: u64,
    pacing: Option<Pacing>,
}

impl Plan {
    fn new(settings: &WireSettings, before: Option<&Self>) -> Self {
        let settings = settings.bounded();
        let nanos = |time: Duration| time.as_nanos() as u64;
        let before = before.and_then(|plan| plan.pacing.as_ref());
        Self {
            plain: settings.is_plain(),
            delay: nanos(settings.delay),
            jitter: nanos(settings.jitter),
            pacing: Pacing::new(settings.rate, settings.queue, before),
            settings,
        }
    }

    /// Whether frames have a rate.
    pub(super) fn is_paced(&self) -> bool {
        self.pacing.is_some()
    }
}

/// What became of the frames of a direction, since it was made. Of a direction without impairments but delay and jitter,
/// a super-frame is one; of others it is as many as it has segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireCounts {
    /// Frames that this end sent into the wire, whatever became of them.
    pub sent: u64,
    /// Of these, frames that were lost on the way.
    pub lost: u64,
    /// Of these, frames for which the queue had no room.
    pub queue_full: u64,
    /// Frames that arrived twice, or are about to.
    pub duplicated: u64,
    /// Frames that arrived with a bit changed.
    pub corrupted: u64,
    /// Frames that overtook others.
    pub reordered: u64,
}

impl WireCounts {
    fn fields(&self) -> [u64; 6] {
        [self.sent, self.lost, self.queue_full, self.duplicated, self.corrupted, self.reordered]
    }
}

/// The same where workers add to it.
#[derive(Debug, Default)]
struct Counts([AtomicU64; 6]);

impl Counts {
    fn add(&self, counts: &WireCounts) {
        for (cell, count) in self.0.iter().zip(counts.fields()).filter(|(_, count)| *count > 0) {
            cell.fetch_add(count, Ordering::Relaxed);
        }
    }

    fn read(&self) -> WireCounts {
        let [sent, lost, queue_full, duplicated, corrupted, reordered] =
            self.0.each_ref().map(|cell| cell.load(Ordering::Relaxed));
        WireCounts { sent, lost, queue_full, duplicated, corrupted, reordered }
    }
}

impl Shape {
    pub(super) fn new(course: Course, settings: &WireSettings) -> Self {
        Self {
            course,
            plan: ArcSwap::from_pointee(Plan::new(settings, None)),
            number: AtomicU64::default(),
            transmitter: Transmitter::default(),
            counts: Counts::default(),
        }
    }

    pub(super) fn set(&self, settings: &WireSettings) {
        self.plan.store(Arc::new(Plan::new(settings, Some(&self.plan.load()))));
    }

    pub(super) fn settings(&self) -> WireSettings {
        self.plan.load().settings
    }

    /// What is in force now; it holds for a burst.
    #[inline]
    pub(super) fn plan(&self) -> Guard<Arc<Plan>> {
        self.plan.load()
    }

    /// The number of the first of `frames` frames.
    #[inline]
    pub(super) fn take_numbers(&self, frames: u64) -> u64 {
        self.number.fetch_add(frames, Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn fate(&self, plan: &Plan, number: u64) -> Fate {
        self.course.fate(number, &plan.settings)
    }

    /// Which bit of `bits` is changed in frame `number`.
    pub(super) fn bit(&self, number: u64, bits: u64) -> u64 {
        ((u128::from(self.course.draw(Draw::Bit, number)) * u128::from(bits)) >> 64) as u64
    }

    /// When a frame of so many bits that comes at `now` will have been sent; `None` when there is no room for it.
    #[inline]
    pub(super) fn departure(&self, plan: &Plan, now: u64, bits: impl FnOnce() -> u32) -> Option<u64> {
        match &plan.pacing {
            Some(pacing) => self.transmitter.send(pacing, bits(), now),
            None => Some(now),
        }
    }

    /// When frame `number` arrives that has been sent at `departure`.
    #[inline]
    pub(super) fn due(&self, plan: &Plan, number: u64, departure: u64) -> u64 {
        let due = departure.saturating_add(plan.delay);
        if plan.jitter == 0 {
            return due;
        }
        let range = u128::from(plan.jitter) * 2 + 1;
        let drawn = ((u128::from(self.course.draw(Draw::Jitter, number)) * range) >> 64) as u64;
        due.saturating_add(drawn).saturating_sub(plan.jitter).max(departure)
    }

    /// Adds to what became of frames.
    pub(super) fn count(&self, counts: &WireCounts) {
        self.counts.add(counts);
    }

    pub(super) fn counts(&self) -> WireCounts {
        self.counts.read()
    }

    /// What waits at `now` for its turn.
    pub(super) fn waiting(&self, now: u64) -> WireQueue {
        let plan = self.plan.load();
        plan.pacing.as_ref().map_or_else(WireQueue::default, |pacing| self.transmitter.waiting(pacing, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: u64 = 1_000_000_000;

    /// The due times of `count` frames sent at 1 s by 20 ms and 3 ms jitter.
    fn dues(course: Course, count: u64) -> Vec<u64> {
        let ms = Duration::from_millis;
        let shape = Shape::new(course, &WireSettings { delay: ms(20), jitter: ms(3), ..WireSettings::default() });
        let plan = shape.plan();
        (0..count).map(|number| shape.due(&plan, number, SENT)).collect()
    }

    #[test]
    fn jitter_follows_from_seed_names_and_number_alone() {
        let course = Course::new(42, "a", "b");
        assert_eq!(dues(course, 64), dues(course, 64));
        for other in [Course::new(43, "a", "b"), Course::new(42, "b", "a"), Course::new(42, "ab", "")] {
            let same = dues(course, 64).iter().zip(dues(other, 64)).filter(|(a, b)| **a == *b).count();
            assert!(same < 4, "{same} of 64 are alike");
        }
    }

    #[test]
    fn jitter_stays_within_its_bounds_and_uses_them() {
        let dues = dues(Course::new(1, "a", "b"), 10_000);
        let (least, most) = (*dues.iter().min().unwrap(), *dues.iter().max().unwrap());
        assert!((1_017_000_000..1_017_100_000).contains(&least), "{least}");
        assert!((1_022_900_000..=1_023_000_000).contains(&most), "{most}");
        let mean = dues.iter().sum::<u64>() / dues.len() as u64;
        assert!((1_019_900_000..1_020_100_000).contains(&mean), "{mean}");
    }

    #[test]
    fn jitter_above_the_delay_makes_no_frame_arrive_before_it_was_sent() {
        let ms = Duration::from_millis;
        let settings = WireSettings { delay: ms(1), jitter: ms(5), ..WireSettings::default() };
        let shape = Shape::new(Course::new(1, "a", "b"), &settings);
        let plan = shape.plan();
        assert!((0..100).all(|number| (SENT..=SENT + 6_000_000).contains(&shape.due(&plan, number, SENT))));
    }

    #[test]
    fn a_delay_without_jitter_is_exact_behind_a_rate_too() {
        let settings = WireSettings { delay: Duration::from_millis(20), rate: 1_000_000, ..WireSettings::default() };
        let shape = Shape::new(Course::new(1, "a", "b"), &settings);
        let plan = shape.plan();
        let departure = shape.departure(&plan, SENT, || 1_000).unwrap();
        assert!((SENT + 1_000_000..SENT + 1_000_002).contains(&departure), "{departure}");
        assert_eq!(shape.due(&plan, 0, departure), departure + 20_000_000);
    }
}
