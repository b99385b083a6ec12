//! What is set: rates and bursts, and how options write them.

use super::super::{PortKind, SpecError};

const RATE: &str = "a rate in bits a second like 10M, 1500k, 2.5G or 64000; 0 is no limit";
const BURST: &str = "a number of bits like 100k, 1M or 15000; 0 is what goes in 10 ms at the rate";
/// Units of a thousand each, with how many digits they stand for.
const UNITS: [(&str, usize); 4] = [("T", 12), ("G", 9), ("M", 6), ("k", 3)];

/// A rate, and how much may go at once after a pause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Bits a second; 0 is no limit.
    pub bits_per_s: u64,
    /// Bits that may go at once after a pause; 0 takes what goes in 10 ms at the rate. Less than 2 ms of the rate, or
    /// than one frame of 1518 bytes, counts as that.
    pub burst_bits: u64,
}

/// Limits of what a port carries, each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Of what the switch receives by the port: from a container.
    pub rx: Option<Rate>,
    /// Of what the switch sends by the port: to a container.
    pub tx: Option<Rate>,
}

impl Limits {
    /// The options that [`Self::with`] knows.
    pub(crate) const NAMES: [&str; 4] = ["rx_rate", "rx_burst", "tx_rate", "tx_burst"];

    /// Whether ports of this kind can be limited: those that frames are received from and sent to one by one. A tunnel
    /// receives by a socket that it shares with others; limit the ports behind it.
    pub fn are_for(kind: PortKind) -> bool {
        !matches!(kind, PortKind::Patch | PortKind::Tunnel(_))
    }

    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        self.in_force() == Self::default()
    }

    /// These, without those that are no limit.
    pub(crate) fn in_force(self) -> Self {
        let real = |rate: Option<Rate>| rate.filter(|rate| rate.bits_per_s != 0);
        Self { rx: real(self.rx), tx: real(self.tx) }
    }

    /// These, changed as those of `options` say that are [theirs](Self::NAMES). The others are not looked at. A new rate
    /// without a burst has the burst that follows from it.
    ///
    /// # Errors
    /// [`SpecError::BadValue`], and [`SpecError::BadOption`] for a burst without a rate.
    pub(crate) fn with<'a>(self, options: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, SpecError> {
        let mut asked = [None; 4];
        for (name, value) in options {
            let Some(index) = Self::NAMES.iter().position(|known| *known == name) else { continue };
            let wanted = if index % 2 == 0 { RATE } else { BURST };
            let bad = || SpecError::BadValue { option: Self::NAMES[index], value: value.to_owned(), wanted };
            asked[index] = Some(parse_bits(value).ok_or_else(bad)?);
        }
        let [rx_rate, rx_burst, tx_rate, tx_burst] = asked;
        Ok(Self { rx: way(self.rx, rx_rate, rx_burst, "rx")?, tx: way(self.tx, tx_rate, tx_burst, "tx")? }.in_force())
    }

    /// All that is limited, as [`Self::with`] reads it; each burst as it counts.
    pub(crate) fn options(&self) -> Vec<(&'static str, String)> {
        let Self { rx, tx } = self.in_force();
        let [rx_rate, rx_burst, tx_rate, tx_burst] = Self::NAMES;
        let ways = [(rx, rx_rate, rx_burst), (tx, tx_rate, tx_burst)];
        let of = |(rate, name, burst): (Option<Rate>, _, _)| {
            rate.map(|rate| [(name, show_bits(rate.bits_per_s)), (burst, show_bits(super::bucket::burst(rate)))])
        };
        ways.into_iter().filter_map(of).flatten().collect()
    }
}

/// Whether the option is one of limits.
pub(crate) fn is_limit(option: &str) -> bool {
    Limits::NAMES.contains(&option)
}

/// One way's rate with what was asked of it.
fn way(
    now: Option<Rate>,
    rate: Option<u64>,
    burst: Option<u64>,
    name: &'static str,
) -> Result<Option<Rate>, SpecError> {
    match (rate, burst, now) {
        (Some(bits_per_s), burst, _) => Ok(Some(Rate { bits_per_s, burst_bits: burst.unwrap_or(0) })),
        (None, Some(burst_bits), Some(now)) => Ok(Some(Rate { burst_bits, ..now })),
        (None, Some(_), None) => {
            let why = format!("there is no rate that it belongs to; set {name}_rate too");
            Err(SpecError::BadOption { option: format!("{name}_burst"), why: why.into() })
        }
        (None, None, now) => Ok(now),
    }
}

/// A number of bits as options write it: decimal, with `k`, `M`, `G` or `T` for a thousand of the one before, and `bit`
/// behind it if one likes. `None` for anything else, more than 64 bits hold among it.
pub fn parse_bits(text: &str) -> Option<u64> {
    let text = text.strip_suffix("bit").unwrap_or(text);
    let unit = UNITS.iter().find_map(|(unit, digits)| {
        let number = text.strip_suffix(unit).or_else(|| text.strip_suffix('K').filter(|_| *unit == "k"))?;
        Some((number, *digits))
    });
    let (number, digits) = unit.unwrap_or((text, 0));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) || (fraction.len() > digits && fraction != "0") {
        return None;
    }
    let size = 10_u64.checked_pow(digits as u32)?;
    let fraction =
        fraction.parse::<u64>().ok()?.checked_mul(10_u64.pow(digits.saturating_sub(fraction.len()) as u32))?;
    whole.parse::<u64>().ok()?.checked_mul(size)?.checked_add(fraction)
}

/// The number as [`parse_bits`] reads it, in the largest unit of which it is at least one: `10M`, `1.5G`, `800`.
pub fn show_bits(bits: u64) -> String {
    let unit = UNITS.iter().find(|(_, digits)| bits >= 10_u64.pow(*digits as u32));
    let Some((unit, digits)) = unit else { return bits.to_string() };
    let size = 10_u64.pow(*digits as u32);
    let fraction = format!("{:0width$}", bits % size, width = *digits);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{}{point}{fraction}{unit}", bits / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_bits_read_back_as_they_were_written() {
        for (text, bits) in [
            ("0", 0),
            ("8", 8),
            ("64k", 64_000),
            ("1.5M", 1_500_000),
            ("10M", 10_000_000),
            ("2.5G", 2_500_000_000),
            ("1T", 1_000_000_000_000),
            ("1.000000001G", 1_000_000_001),
            ("18446744.073709551615T", u64::MAX),
        ] {
            assert_eq!(parse_bits(text), Some(bits), "{text}");
            assert_eq!(show_bits(bits), text);
        }
        for (text, bits) in [("1500k", 1_500_000), ("1500K", 1_500_000), ("10Mbit", 10_000_000), ("64000bit", 64_000)] {
            assert_eq!(parse_bits(text), Some(bits), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_of_bits_is_refused() {
        for text in
            ["", "M", "-1", "+1", "1.M", ".5M", "1.5", "1e6", "10 M", "10MM", "bit", "18446744073709551616", "1m"]
        {
            assert_eq!(parse_bits(text), None, "{text}");
        }
        assert_eq!(parse_bits("18446745T"), None);
        assert_eq!(parse_bits("99999999999999999999999T"), None);
    }

    #[test]
    fn options_change_one_way_and_leave_the_other() {
        let limits = Limits::default().with([("rx_rate", "10M"), ("mtu", "9000"), ("tx_rate", "1G")]).unwrap();
        assert_eq!(limits.rx, Some(Rate { bits_per_s: 10_000_000, burst_bits: 0 }));
        let changed = limits.with([("tx_rate", "0")]).unwrap();
        assert_eq!(changed, Limits { tx: None, ..limits });
        let burst = changed.with([("rx_burst", "1M")]).unwrap();
        assert_eq!(burst.rx, Some(Rate { bits_per_s: 10_000_000, burst_bits: 1_000_000 }));
        assert!(changed.with([("rx_rate", "0")]).unwrap().is_none());
    }

    #[test]
    fn options_read_back_with_the_burst_that_counts() {
        let limits = Limits::default().with([("rx_rate", "10M"), ("tx_rate", "1G"), ("tx_burst", "40M")]).unwrap();
        let said = limits.options();
        let text: Vec<_> = said.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(text, ["rx_rate=10M", "rx_burst=100k", "tx_rate=1G", "tx_burst=40M"]);
        let again = Limits::default().with(said.iter().map(|(name, value)| (*name, value.as_str()))).unwrap();
        assert_eq!(again.options(), said);
    }

    #[test]
    fn wrong_values_are_refused_with_what_is_wanted() {
        let refused = |option, value| Limits::default().with([(option, value)]).unwrap_err().to_string();
        assert_eq!(
            refused("rx_rate", "fast"),
            "option `rx_rate`: `fast` is not a rate in bits a second like 10M, 1500k, 2.5G or 64000; 0 is no limit"
        );
        assert_eq!(
            refused("tx_burst", "1M"),
            "option `tx_burst`: there is no rate that it belongs to; set tx_rate too"
        );
    }
}
