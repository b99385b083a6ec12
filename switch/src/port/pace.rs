//! How long bits take at a rate, in whole numbers.
//!
//! A tick is 1/32 ns, and what a frame takes is rounded up to one: 0.2 per mille of a minimal frame at 10 Gbit/s. Ticks in
//! 64 bits last for 17 years of the machine's uptime.

/// Ticks of a nanosecond.
pub(super) const TICKS: u64 = 32;
const SECOND: u64 = 1_000_000_000;
/// Binary digits of a tick that are kept of what a bit takes.
const DIGITS: u32 = 24;

/// Ticks that a bit takes at a rate above 0, with [`DIGITS`] binary digits behind the point.
pub(super) fn per_bit(bits_per_s: u64) -> u64 {
    let second = u128::from(SECOND * TICKS) << DIGITS;
    u64::try_from(second.div_ceil(u128::from(bits_per_s.max(1)))).unwrap_or(u64::MAX)
}

/// Ticks that so many bits take; none where there is no limit, of which `per_bit` is 0.
pub(super) fn takes(bits: u64, per_bit: u64) -> u64 {
    let ticks = (u128::from(bits) * u128::from(per_bit)) >> DIGITS;
    u64::try_from(ticks).unwrap_or(u64::MAX).saturating_add(u64::from(per_bit != 0))
}
