//! Meters: limits to the rate of packets or bits.
//!
//! A meter has one token bucket a band. Time comes in with each packet; the state is atomic, so that every worker
//! draws from the same buckets without a lock. Only bands that drop exist, as in Open vSwitch.

use crate::action::MeterId;
use crate::owner::Owner;
use crate::rule::Millis;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a meter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MeterUnit {
    /// Kilobits (1000 bits) a second.
    Kbps,
    /// Packets a second.
    Pktps,
}

/// A band: packets above its rate are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MeterBand {
    /// In the meter's unit.
    pub rate: u32,
    /// In kilobits or packets; 0 for what passes in one second at the band's rate.
    pub burst_size: u32,
}

/// A meter as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MeterSpec {
    /// Its number.
    pub id: MeterId,
    /// What it counts.
    pub unit: MeterUnit,
    /// The bands' burst sizes count.
    pub burst: bool,
    /// Counters are asked for; they are kept anyway.
    pub stats: bool,
    /// Its bands.
    pub bands: Vec<MeterBand>,
    /// Who asked for it.
    pub owner: Owner,
}

/// One change to a bridge's meters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeterMod {
    /// Add a meter; refused when its number is taken.
    Add(MeterSpec),
    /// Give a meter other bands; it counts from 0.
    Modify(MeterSpec),
    /// Delete one meter or all of them, and the flows that go through them.
    Delete(Option<MeterId>),
}

/// A meter of a bridge.
#[derive(Debug)]
pub struct Meter {
    /// What it is.
    pub spec: MeterSpec,
    /// When it was added.
    pub created: Millis,
    count: Count,
    bands: Box<[Band]>,
}

/// State of a band: a token bucket kept as the moment, in nanoseconds, at which it will be full again (the generic
/// cell rate algorithm of ITU-T I.371), so that one word holds all of it.
#[derive(Debug, Default)]
struct Band {
    full_at: AtomicU64,
    dropped: Count,
}

/// Packets and bytes.
#[derive(Debug, Default)]
struct Count {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Count {
    fn add(&self, bytes: u64) {
        self.packets.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn get(&self) -> (u64, u64) {
        (self.packets.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

impl Meter {
    /// A meter added at `now`, its buckets full.
    pub fn new(spec: MeterSpec, now: Millis) -> Self {
        let bands = spec.bands.iter().map(|_| Band::default()).collect();
        Self { spec, created: now, count: Count::default(), bands }
    }

    /// Whether a packet of `bytes` bytes may pass at `now`. Counts it either way.
    ///
    /// A packet that exceeds several bands is counted by the one with the highest rate.
    pub fn admit(&self, bytes: u64, now: Millis) -> bool {
        self.count.add(bytes);
        let mut exceeded: Option<(u32, &Band)> = None;
        for (band, state) in self.spec.bands.iter().zip(&self.bands) {
            let takes = state.take(self.cost(band, bytes), self.tolerance(band), now);
            if !takes && exceeded.is_none_or(|(rate, _)| band.rate > rate) {
                exceeded = Some((band.rate, state));
            }
        }
        if let Some((_, band)) = exceeded {
            band.dropped.add(bytes);
        }
        exceeded.is_none()
    }

    /// Packets and bytes that came to it.
    pub fn came(&self) -> (u64, u64) {
        self.count.get()
    }

    /// Packets and bytes that each band dropped.
    pub fn dropped(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.bands.iter().map(|band| band.dropped.get())
    }

    /// Nanoseconds of the band's rate that a packet takes; `None` when nothing may pass.
    fn cost(&self, band: &MeterBand, bytes: u64) -> Option<u64> {
        let units = match self.spec.unit {
            // Bits at thousands of bits a second.
            MeterUnit::Kbps => bytes.saturating_mul(8_000_000),
            MeterUnit::Pktps => 1_000_000_000,
        };
        units.checked_div(band.rate.into())
    }

    /// Nanoseconds of the band's rate that its bucket holds.
    fn tolerance(&self, band: &MeterBand) -> u64 {
        let size = if self.spec.burst && band.burst_size != 0 { band.burst_size } else { band.rate };
        (u64::from(size) * 1_000_000_000).checked_div(band.rate.into()).unwrap_or(0)
    }
}

impl Band {
    /// Takes what a packet costs, if it is there.
    fn take(&self, cost: Option<u64>, tolerance: u64, now: Millis) -> bool {
        let Some(cost) = cost else { return false };
        let now = now.0.saturating_mul(1_000_000);
        let take = |full_at: u64| {
            let full_at = full_at.max(now).saturating_add(cost);
            (full_at - now <= tolerance).then_some(full_at)
        };
        self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(unit: MeterUnit, bands: &[(u32, u32)]) -> Meter {
        let bands = bands.iter().map(|&(rate, burst_size)| MeterBand { rate, burst_size }).collect();
        let spec = MeterSpec { id: MeterId(1), unit, burst: true, stats: true, bands, owner: Owner::user() };
        Meter::new(spec, Millis(1000))
    }

    fn passed(meter: &Meter, packets: usize, bytes: u64, now: u64) -> usize {
        (0..packets).filter(|_| meter.admit(bytes, Millis(now))).count()
    }

    #[test]
    fn a_full_bucket_passes_its_burst_then_its_rate() {
        let meter = meter(MeterUnit::Pktps, &[(100, 20)]);
        assert_eq!(passed(&meter, 50, 64, 1000), 20);
        assert_eq!(passed(&meter, 50, 64, 1050), 5);
        assert_eq!(passed(&meter, 50, 64, 9000), 20);
        assert_eq!(meter.came(), (150, 150 * 64));
        assert_eq!(meter.dropped().collect::<Vec<_>>(), [(105, 105 * 64)]);
    }

    #[test]
    fn without_a_burst_size_one_second_of_the_rate_passes_at_once() {
        let meter = meter(MeterUnit::Kbps, &[(80, 0)]);
        assert_eq!(passed(&meter, 20, 1000, 1000), 10);
    }

    #[test]
    fn the_band_with_the_highest_rate_that_is_exceeded_counts_the_packet() {
        let meter = meter(MeterUnit::Pktps, &[(10, 1), (100, 3)]);
        assert_eq!(passed(&meter, 5, 64, 1000), 1);
        assert_eq!(meter.dropped().map(|(packets, _)| packets).collect::<Vec<_>>(), [2, 2]);
    }

    #[test]
    fn nothing_passes_at_rate_zero() {
        assert_eq!(passed(&meter(MeterUnit::Pktps, &[(0, 5)]), 3, 64, 1000), 0);
    }
}
