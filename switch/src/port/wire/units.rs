//! How settings are written: times, percentages and rates.

use super::super::{parse_bits, show_bits};
use std::fmt;
use std::time::Duration;

/// Longest time, in nanoseconds: a minute.
pub(super) const MAX_TIME: u64 = 60_000_000_000;
/// Least and greatest rate, in bits a second.
const RATES: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000;
/// Digits of a percentage behind its point.
const PERCENT_DIGITS: usize = 6;

/// A decimal number as a whole one in units of its last possible digit, of which there are `digits` behind the point.
fn parse_decimal(number: &str, digits: usize) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) || fraction.len() > digits {
        return None;
    }
    let fraction = fraction.parse::<u64>().ok()? * 10_u64.pow((digits - fraction.len()) as u32);
    whole.parse::<u64>().ok()?.checked_mul(10_u64.pow(digits as u32))?.checked_add(fraction)
}

/// The number as [`parse_decimal`] reads it.
fn show_decimal(number: u64, digits: usize) -> String {
    let size = 10_u64.pow(digits as u32);
    let fraction = format!("{:0digits$}", number % size);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{}{point}{fraction}", number / size)
}

/// A time as topologies and options write it: a decimal number with `us`, `ms` or `s` behind it, up to 60 s.
pub fn parse_time(text: &str) -> Option<Duration> {
    let units = [("us", 3), ("ms", 6), ("s", 9)];
    let (number, digits) = units.iter().find_map(|(unit, digits)| Some((text.strip_suffix(unit)?, *digits)))?;
    let nanos = parse_decimal(number, digits)?;
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
    format!("{}{unit}", show_decimal(nanos, digits))
}

/// A rate in bits a second: as options of limits write it, or with a unit in lower case as tc does; `0` is none.
pub(super) fn parse_rate(text: &str) -> Option<u64> {
    let units = [("tbit", "T"), ("gbit", "G"), ("mbit", "M"), ("kbit", "k")];
    let of_tc = units.iter().find_map(|(of_tc, own)| Some(format!("{}{own}", text.strip_suffix(of_tc)?)));
    let bits = parse_bits(of_tc.as_deref().unwrap_or(text))?;
    (bits == 0 || RATES.contains(&bits)).then_some(bits)
}

/// The rate as [`parse_rate`] reads it: `50mbit`, `1.5gbit`, `0`.
pub(super) fn show_rate(bits: u64) -> String {
    match bits {
        0 => "0".to_owned(),
        _ => format!("{}bit", show_bits(bits).to_ascii_lowercase()),
    }
}

/// A share of all frames, to six digits behind the point of a percentage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u32);

impl Percent {
    /// No frame.
    pub const NONE: Self = Self(0);
    const ALL: u32 = 100 * 10_u32.pow(PERCENT_DIGITS as u32);

    /// A percentage as topologies and options write it: a decimal number from 0 to 100 with `%` behind it.
    pub fn parse(text: &str) -> Option<Self> {
        let parts = u32::try_from(parse_decimal(text.strip_suffix('%')?, PERCENT_DIGITS)?).ok()?;
        (parts <= Self::ALL).then_some(Self(parts))
    }

    /// The share, from 0 to 1.
    pub fn ratio(self) -> f64 {
        f64::from(self.0) / f64::from(Self::ALL)
    }

    /// Whether a frame that drew this is one of the share. Of all that can be drawn, this share is.
    #[inline]
    pub(super) fn has(self, draw: u64) -> bool {
        ((draw >> 32) * u64::from(Self::ALL)) >> 32 < u64::from(self.0)
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}%", show_decimal(self.0.into(), PERCENT_DIGITS)))
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
    fn percentages_read_back_and_what_is_none_is_refused() {
        for text in ["0%", "0.5%", "5%", "12.25%", "0.000001%", "99.999999%", "100%"] {
            assert_eq!(Percent::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Percent::parse("5.50%"), Percent::parse("5.5%"));
        for text in ["", "%", "5", "-1%", "+1%", ".5%", "5.%", "0.0000001%", "100.000001%", "101%", "5 %", "1e1%"] {
            assert_eq!(Percent::parse(text), None, "{text}");
        }
    }

    #[test]
    fn nothing_is_of_no_share_and_everything_of_the_whole() {
        let [none, all, half] = ["0%", "100%", "50%"].map(|text| Percent::parse(text).unwrap());
        for draw in [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
            assert!(!none.has(draw) && all.has(draw), "{draw}");
        }
        assert!(half.has(u64::MAX / 2) && !half.has(u64::MAX / 2 + 1));
    }

    #[test]
    fn rates_are_read_as_tc_and_as_limits_write_them() {
        for (text, bits) in [
            ("50mbit", 50_000_000),
            ("64kbit", 64_000),
            ("1gbit", 1_000_000_000),
            ("1.5gbit", 1_500_000_000),
            ("1tbit", 1_000_000_000_000),
            ("0", 0),
        ] {
            assert_eq!(parse_rate(text), Some(bits), "{text}");
            assert_eq!(show_rate(bits), text);
        }
        for (text, bits) in [("50M", 50_000_000), ("50Mbit", 50_000_000), ("64000", 64_000), ("64000bit", 64_000)] {
            assert_eq!(parse_rate(text), Some(bits), "{text}");
        }
        for text in ["", "mbit", "50m", "fast", "999", "1.1tbit", "-1mbit", "50 mbit"] {
            assert_eq!(parse_rate(text), None, "{text}");
        }
    }
}
