//! What is set on one direction of a wire, and what follows from it for each frame.

use super::super::{Limits, SpecError};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Longest delay and jitter, in nanoseconds: a minute.
const MAX_TIME: u64 = 60_000_000_000;
/// Most frames under way.
const MAX_FRAMES: u32 = 1_000_000;
/// Most bytes under way: 1 GiB.
const MAX_BYTES: u64 = 1 << 30;
const TIME: &str = "a time like 20ms, 1.5ms, 300us or 2s, up to 60s";
const FRAMES: &str = "a number of packets from 1 to 1000000";
const BYTES: &str = "a number of bytes from 65567, which is one super-frame, to 1073741824";

/// What is set on one direction of a wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireSettings {
    /// From one end to the other, 0 to 60 s.
    pub delay: Duration,
    /// The delay of a frame is the one set, plus or minus up to this much, each value as likely as the other; 0 to 60 s.
    pub jitter: Duration,
    /// Frames under way at most, 1 to 1,000,000. A super-frame is one.
    pub queue_packets: u32,
    /// Bytes under way at most, one super-frame to 1 GiB.
    pub queue_bytes: u64,
}

impl Default for WireSettings {
    /// No delay; 10,000 frames of 32 MiB.
    fn default() -> Self {
        Self { delay: Duration::ZERO, jitter: Duration::ZERO, queue_packets: 10_000, queue_bytes: 32 << 20 }
    }
}

impl WireSettings {
    /// The options that [`Self::take`] knows.
    pub(crate) const NAMES: &[&str] = &["delay", "jitter", "queue", "queue_bytes"];

    /// Sets one by its name.
    ///
    /// # Errors
    /// [`SpecError::BadValue`], and [`SpecError::Fixed`] for what cannot be changed while the port runs.
    pub(crate) fn take(&mut self, option: &str, value: &str) -> Result<(), SpecError> {
        let Some(option) = Self::NAMES.iter().copied().find(|name| *name == option) else {
            let known = [Self::NAMES, &Limits::NAMES].concat().join(", ");
            return Err(SpecError::Fixed { option: option.to_owned(), known });
        };
        let bad = |wanted| SpecError::BadValue { option, value: value.to_owned(), wanted };
        let time = || parse_time(value).ok_or_else(|| bad(TIME));
        match option {
            "delay" => self.delay = time()?,
            "jitter" => self.jitter = time()?,
            "queue" => {
                let frames = value.strip_suffix('p').unwrap_or(value).parse().ok();
                self.queue_packets = frames.filter(|n| (1..=MAX_FRAMES).contains(n)).ok_or_else(|| bad(FRAMES))?;
            }
            _ => {
                let bytes = value.parse().ok().filter(|n| (65_567..=MAX_BYTES).contains(n));
                self.queue_bytes = bytes.ok_or_else(|| bad(BYTES))?;
            }
        }
        Ok(())
    }

    /// All of them as [`Self::take`] reads them.
    pub(crate) fn options(&self) -> [(&'static str, String); 4] {
        [
            ("delay", show_time(self.delay)),
            ("jitter", show_time(self.jitter)),
            ("queue", self.queue_packets.to_string()),
            ("queue_bytes", self.queue_bytes.to_string()),
        ]
    }
}

/// A time as topologies and options write it: a decimal number with `us`, `ms` or `s` behind it, up to 60 s.
pub fn parse_time(text: &str) -> Option<Duration> {
    let units = [("us", 3), ("ms", 6), ("s", 9)];
    let (number, digits) = units.iter().find_map(|(unit, digits)| Some((text.strip_suffix(unit)?, *digits)))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) || fraction.len() > digits {
        return None;
    }
    let unit = 10_u64.pow(digits as u32);
    let fraction = fraction.parse::<u64>().ok()? * 10_u64.pow((digits - fraction.len()) as u32);
    let nanos = whole.parse::<u64>().ok()?.checked_mul(unit)?.checked_add(fraction)?;
    (nanos <= MAX_TIME).then(|| Duration::from_nanos(nanos))
}

/// The time as [`parse_time`] reads it, in the largest unit of which it is at least one: `20ms`, `1.5s`, `0ms`.
pub fn show_time(time: Duration) -> String {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let (unit, digits) = match nanos {
        0 => ("ms", 6),
        1..1_000_000 => ("us", 3),
        1_000_000..1_000_000_000 => ("ms", 6),
        _ => ("s", 9),
    };
    let size = 10_u64.pow(digits);
    let fraction = format!("{:0width$}", nanos % size, width = digits as usize);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{}{point}{fraction}{unit}", nanos / size)
}

/// One direction of one wire, of which every draw is told apart: a seed, and the names of the ends in the order in which
/// frames go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course(u64);

impl Course {
    pub(super) fn new(seed: u64, from: &str, to: &str) -> Self {
        // FNV-1a: the same in every version of this program, unlike the standard library's hashes.
        let bytes = from.bytes().chain([0]).chain(to.bytes());
        let names = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(mix(names.wrapping_add(mix(seed))))
    }

    /// What frame `number` draws: each value of 64 bits as likely as the other.
    pub(super) fn draw(self, number: u64) -> u64 {
        mix(self.0.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }
}

/// The finalizer of SplitMix64: every bit of the result depends on every bit of `x`.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The settings of a direction where workers read them and the control side changes them; a worker may see one of them
/// changed a burst before another.
#[derive(Debug)]
pub(super) struct Shape {
    course: Course,
    delay: AtomicU64,
    jitter: AtomicU64,
    frames: AtomicU32,
    bytes: AtomicU64,
    /// Frames that were given to this direction.
    number: AtomicU64,
}

/// The settings for one burst.
#[derive(Debug)]
pub(super) struct Burst {
    /// Frames and bytes under way at most.
    pub(super) limit: (u32, u64),
    course: Course,
    /// When a frame without jitter is due.
    due: u64,
    jitter: u64,
    number: u64,
}

impl Shape {
    pub(super) fn new(course: Course, settings: &WireSettings) -> Self {
        let shape = Self {
            course,
            delay: AtomicU64::default(),
            jitter: AtomicU64::default(),
            frames: AtomicU32::default(),
            bytes: AtomicU64::default(),
            number: AtomicU64::default(),
        };
        shape.set(settings);
        shape
    }

    pub(super) fn set(&self, settings: &WireSettings) {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).min(MAX_TIME);
        self.delay.store(nanos(settings.delay), Ordering::Relaxed);
        self.jitter.store(nanos(settings.jitter), Ordering::Relaxed);
        self.frames.store(settings.queue_packets.clamp(1, MAX_FRAMES), Ordering::Relaxed);
        self.bytes.store(settings.queue_bytes.min(MAX_BYTES), Ordering::Relaxed);
    }

    pub(super) fn settings(&self) -> WireSettings {
        WireSettings {
            delay: Duration::from_nanos(self.delay.load(Ordering::Relaxed)),
            jitter: Duration::from_nanos(self.jitter.load(Ordering::Relaxed)),
            queue_packets: self.frames.load(Ordering::Relaxed),
            queue_bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    /// What holds for `frames` frames that are sent at `now`.
    #[inline]
    pub(super) fn begin(&self, now: u64, frames: u64) -> Burst {
        Burst {
            limit: (self.frames.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed)),
            course: self.course,
            due: now.saturating_add(self.delay.load(Ordering::Relaxed)),
            jitter: self.jitter.load(Ordering::Relaxed),
            number: self.number.fetch_add(frames, Ordering::Relaxed),
        }
    }
}

impl Burst {
    /// When the next frame of the burst is due.
    #[inline]
    pub(super) fn next_due(&mut self) -> u64 {
        let number = self.number;
        self.number = number.wrapping_add(1);
        if self.jitter == 0 {
            return self.due;
        }
        let range = u128::from(self.jitter) * 2 + 1;
        let drawn = ((u128::from(self.course.draw(number)) * range) >> 64) as u64;
        self.due.saturating_add(drawn).saturating_sub(self.jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_back_as_they_were_written() {
        for (text, nanos) in [
            ("0ms", 0),
            ("20ms", 20_000_000),
            ("1.5ms", 1_500_000),
            ("300us", 300_000),
            ("0.001us", 1),
            ("2s", 2_000_000_000),
            ("1.25s", 1_250_000_000),
            ("60s", MAX_TIME),
        ] {
            assert_eq!(parse_time(text), Some(Duration::from_nanos(nanos)), "{text}");
            assert_eq!(show_time(Duration::from_nanos(nanos)), text);
        }
        assert_eq!(parse_time("1500us"), Some(Duration::from_micros(1500)));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in
            ["", "20", "ms", "-1ms", "+1ms", ".5ms", "1.ms", "1e3ms", "0.0001us", "61s", "99999999999999999999s"]
        {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn settings_read_back_and_what_they_are_not_is_named() {
        let mut settings = WireSettings::default();
        for (option, value) in [("delay", "20ms"), ("jitter", "3ms"), ("queue", "100p"), ("queue_bytes", "70000")] {
            settings.take(option, value).unwrap();
        }
        let mut again = WireSettings::default();
        for (option, value) in settings.options() {
            again.take(option, &value).unwrap();
        }
        assert_eq!(again, settings);
        assert_eq!(settings.queue_packets, 100);
        for (option, value) in [("delay", "20"), ("jitter", "-1ms"), ("queue", "0"), ("queue_bytes", "100")] {
            let error = settings.take(option, value).unwrap_err();
            assert!(matches!(error, SpecError::BadValue { option: o, .. } if o == option), "{error}");
        }
        let error = settings.take("peer", "x").unwrap_err().to_string();
        let known = "delay, jitter, queue, queue_bytes, rx_rate, rx_burst, tx_rate, tx_burst can";
        assert_eq!(error, format!("option `peer` cannot be changed while the port runs; {known}"));
        assert_eq!(again, settings, "what is refused changes nothing");
    }

    /// The due times of `count` frames sent at 1 s by 20 ms and 3 ms jitter, in bursts of `burst`.
    fn dues(course: Course, count: u64, burst: u64) -> Vec<u64> {
        let ms = Duration::from_millis;
        let shape = Shape::new(course, &WireSettings { delay: ms(20), jitter: ms(3), ..WireSettings::default() });
        let mut dues = Vec::new();
        while (dues.len() as u64) < count {
            let mut begun = shape.begin(1_000_000_000, burst);
            dues.extend((0..burst).map(|_| begun.next_due()));
        }
        dues
    }

    #[test]
    fn jitter_follows_from_seed_names_and_number_alone() {
        let course = Course::new(42, "a", "b");
        assert_eq!(dues(course, 64, 1), dues(course, 64, 32));
        for other in [Course::new(43, "a", "b"), Course::new(42, "b", "a"), Course::new(42, "ab", "")] {
            let same = dues(course, 64, 1).iter().zip(dues(other, 64, 1)).filter(|(a, b)| **a == *b).count();
            assert!(same < 4, "{same} of 64 are alike");
        }
    }

    #[test]
    fn jitter_stays_within_its_bounds_and_uses_them() {
        let dues = dues(Course::new(1, "a", "b"), 10_000, 32);
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
        let mut burst = Shape::new(Course::new(1, "a", "b"), &settings).begin(0, 100);
        assert!((0..100).all(|_| burst.next_due() <= 6_000_000));
    }
}
