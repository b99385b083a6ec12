//! What is set on one direction of a wire.

use super::super::{Limits, SpecError};
use super::units::{MAX_TIME, Percent, parse_rate, parse_time, show_rate, show_time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Most frames that may wait.
const MAX_PACKETS: u32 = 1_000_000;
/// Most bytes under way: 1 GiB.
const MAX_BYTES: u64 = 1 << 30;
/// Least: one super-frame.
const LEAST_BYTES: u64 = 65_567;
const TIME: &str = "a time like 20ms, 1.5ms, 300us or 2s, up to 60s";
const SHARE: &str = "a percentage like 0.5% or 12%, from 0% to 100%";
const RATE: &str = "a rate like 50mbit, 64kbit or 1.5gbit, from 1kbit to 1tbit; 0 is no limit";
const QUEUE: &str = "a number of packets like 100p, from 1p to 1000000p, or a time like 50ms";
const BYTES: &str = "a number of bytes from 65567, which is one super-frame, to 1073741824";

/// How much may wait for its turn at the rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Frames, 1 to 1,000,000, the one that is being sent among them.
    Packets(u32),
    /// A frame may wait so long, 0 to 60 s.
    Time(Duration),
}

impl Queue {
    fn parse(text: &str) -> Option<Self> {
        if let Some(time) = parse_time(text) {
            return Some(Self::Time(time));
        }
        let packets = text.strip_suffix('p').unwrap_or(text).parse().ok();
        packets.filter(|n| (1..=MAX_PACKETS).contains(n)).map(Self::Packets)
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packets(packets) => write!(f, "{packets}p"),
            Self::Time(time) => f.write_str(&show_time(*time)),
        }
    }
}

/// What is set on one direction of a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "BTreeMap<String, String>", try_from = "BTreeMap<String, String>")]
pub struct WireSettings {
    /// From one end to the other, 0 to 60 s.
    pub delay: Duration,
    /// The delay of a frame is the one set, plus or minus up to this much, each value as likely as the other; 0 to 60 s.
    pub jitter: Duration,
    /// Frames that never arrive.
    pub loss: Percent,
    /// In bits a second, of frames with their check sequences, from 1,000 to 10^12; 0 is no limit.
    pub rate: u64,
    /// What may wait for its turn at the rate. Without a rate nothing waits.
    pub queue: Queue,
    /// Frames that arrive twice.
    pub duplicate: Percent,
    /// Frames that arrive with one bit changed, which is one behind the Ethernet header and its tags.
    pub corrupt: Percent,
    /// Frames that do not wait for the delay, and so overtake those that do.
    pub reorder: Percent,
    /// Bytes on their way at most, whatever the reason: one super-frame to 1 GiB.
    pub under_way: u64,
}

impl Default for WireSettings {
    /// Frames cross whole and at once; 32 MiB of them.
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: Percent::NONE,
            rate: 0,
            queue: Queue::Packets(1_000),
            duplicate: Percent::NONE,
            corrupt: Percent::NONE,
            reorder: Percent::NONE,
            under_way: 32 << 20,
        }
    }
}

impl WireSettings {
    /// What [`Self::take`] knows.
    pub const NAMES: &[&str] =
        &["delay", "jitter", "loss", "rate", "queue", "duplicate", "corrupt", "reorder", "under_way"];

    /// Those of [`Self::NAMES`] that say what happens to frames; the last one is a bound of the wire itself.
    pub const IMPAIRMENTS: &[&str] = match Self::NAMES {
        [impairments @ .., _] => impairments,
        [] => &[],
    };

    /// Sets one by its name.
    ///
    /// # Errors
    /// [`SpecError::BadValue`], and [`SpecError::Fixed`] for what cannot be changed while the port runs. Nothing has
    /// changed then.
    pub fn take(&mut self, option: &str, value: &str) -> Result<(), SpecError> {
        let Some(option) = Self::NAMES.iter().copied().find(|name| *name == option) else {
            let known = [Self::NAMES, &Limits::NAMES].concat().join(", ");
            return Err(SpecError::Fixed { option: option.to_owned(), known });
        };
        let bad = |wanted| SpecError::BadValue { option, value: value.to_owned(), wanted };
        let time = || parse_time(value).ok_or_else(|| bad(TIME));
        let share = || Percent::parse(value).ok_or_else(|| bad(SHARE));
        match option {
            "delay" => self.delay = time()?,
            "jitter" => self.jitter = time()?,
            "loss" => self.loss = share()?,
            "rate" => self.rate = parse_rate(value).ok_or_else(|| bad(RATE))?,
            "queue" => self.queue = Queue::parse(value).ok_or_else(|| bad(QUEUE))?,
            "duplicate" => self.duplicate = share()?,
            "corrupt" => self.corrupt = share()?,
            "reorder" => self.reorder = share()?,
            _ => {
                let bytes = value.parse().ok().filter(|n| (LEAST_BYTES..=MAX_BYTES).contains(n));
                self.under_way = bytes.ok_or_else(|| bad(BYTES))?;
            }
        }
        Ok(())
    }

    /// Makes sure that each makes sense beside the others.
    ///
    /// # Errors
    /// [`SpecError::BadOption`].
    pub fn check(&self) -> Result<(), SpecError> {
        if self.reorder != Percent::NONE && self.delay.is_zero() {
            let why = "without a delay there is nothing to overtake; set delay too".into();
            return Err(SpecError::BadOption { option: "reorder".to_owned(), why });
        }
        Ok(())
    }

    /// All of them as [`Self::take`] reads them, in the order of [`Self::NAMES`].
    pub fn options(&self) -> [(&'static str, String); 9] {
        [
            ("delay", show_time(self.delay)),
            ("jitter", show_time(self.jitter)),
            ("loss", self.loss.to_string()),
            ("rate", show_rate(self.rate)),
            ("queue", self.queue.to_string()),
            ("duplicate", self.duplicate.to_string()),
            ("corrupt", self.corrupt.to_string()),
            ("reorder", self.reorder.to_string()),
            ("under_way", self.under_way.to_string()),
        ]
    }

    /// Those of the options that are not as in `other`.
    pub fn differing(&self, other: &Self) -> Vec<(&'static str, String)> {
        let pairs = self.options().into_iter().zip(other.options());
        pairs.filter(|(own, other)| own != other).map(|(own, _)| own).collect()
    }

    /// Whether no frame needs to be looked at by itself: super-frames cross whole.
    pub(super) fn is_plain(&self) -> bool {
        self.rate == 0 && [self.loss, self.duplicate, self.corrupt, self.reorder] == [Percent::NONE; 4]
    }

    /// The same, within the bounds that options have.
    pub(super) fn bounded(self) -> Self {
        let time = |time: Duration| time.min(Duration::from_nanos(MAX_TIME));
        let queue = match self.queue {
            Queue::Packets(packets) => Queue::Packets(packets.clamp(1, MAX_PACKETS)),
            Queue::Time(wait) => Queue::Time(time(wait)),
        };
        let under_way = self.under_way.min(MAX_BYTES);
        Self { delay: time(self.delay), jitter: time(self.jitter), queue, under_way, ..self }
    }
}

/// What differs from the default, by name.
impl From<WireSettings> for BTreeMap<String, String> {
    fn from(settings: WireSettings) -> Self {
        let options = settings.differing(&WireSettings::default()).into_iter();
        options.map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

impl TryFrom<BTreeMap<String, String>> for WireSettings {
    type Error = SpecError;

    fn try_from(options: BTreeMap<String, String>) -> Result<Self, SpecError> {
        let mut settings = Self::default();
        options.iter().try_for_each(|(name, value)| settings.take(name, value))?;
        settings.check().map(|()| settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [(&str, &str); 9] = [
        ("delay", "20ms"),
        ("jitter", "3ms"),
        ("loss", "0.5%"),
        ("rate", "50mbit"),
        ("queue", "100p"),
        ("duplicate", "1%"),
        ("corrupt", "0.01%"),
        ("reorder", "25%"),
        ("under_way", "70000"),
    ];

    fn taken(options: &[(&str, &str)]) -> WireSettings {
        let mut settings = WireSettings::default();
        options.iter().for_each(|(option, value)| settings.take(option, value).unwrap());
        settings
    }

    #[test]
    fn settings_read_back_and_what_they_are_not_is_named() {
        let mut settings = taken(&ALL);
        assert_eq!(settings.options(), ALL.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(settings.queue, Queue::Packets(100));
        let before = settings;
        for (option, value) in [
            ("delay", "20"),
            ("jitter", "-1ms"),
            ("loss", "101%"),
            ("rate", "fast"),
            ("queue", "0p"),
            ("queue", "61s"),
            ("duplicate", "1"),
            ("corrupt", "-1%"),
            ("reorder", ""),
            ("under_way", "100"),
        ] {
            let error = settings.take(option, value).unwrap_err();
            assert!(matches!(error, SpecError::BadValue { option: o, .. } if o == option), "{error}");
        }
        let error = settings.take("peer", "x").unwrap_err().to_string();
        let known = "delay, jitter, loss, rate, queue, duplicate, corrupt, reorder, under_way, \
                     rx_rate, rx_burst, tx_rate, tx_burst can";
        assert_eq!(error, format!("option `peer` cannot be changed while the port runs; {known}"));
        assert_eq!(settings, before, "what is refused changes nothing");
    }

    #[test]
    fn a_queue_is_a_number_of_packets_or_a_time() {
        for (text, queue, shown) in [
            ("100p", Queue::Packets(100), "100p"),
            ("100", Queue::Packets(100), "100p"),
            ("50ms", Queue::Time(Duration::from_millis(50)), "50ms"),
        ] {
            let settings = taken(&[("queue", text)]);
            assert_eq!((settings.queue, settings.queue.to_string().as_str()), (queue, shown));
        }
    }

    #[test]
    fn reorder_needs_something_to_overtake() {
        let error = taken(&[("reorder", "1%")]).check().unwrap_err().to_string();
        assert_eq!(error, "option `reorder`: without a delay there is nothing to overtake; set delay too");
        taken(&[("reorder", "1%"), ("delay", "1ms")]).check().unwrap();
    }

    #[test]
    fn what_is_kept_in_a_file_is_what_differs_from_the_default() {
        let settings = taken(&[("loss", "5%"), ("rate", "1gbit")]);
        let text = serde_json::to_string(&settings).unwrap();
        assert_eq!(text, r#"{"loss":"5%","rate":"1gbit"}"#);
        assert_eq!(serde_json::from_str::<WireSettings>(&text).unwrap(), settings);
        assert!(serde_json::from_str::<WireSettings>(r#"{"loss":"much"}"#).is_err());
    }
}
