//! How many ICMP errors a router sends: so many in all, and so many to one destination (RFC 1812, 4.3.2.8; RFC 4443, 2.4).
//!
//! The figures are those of Linux (`icmp_msgs_per_sec`, `icmp_msgs_burst`, `icmp_ratelimit`). "Too big" is told without a
//! limit of the destination's, as there, since a sender that does not hear it sends into a hole.

use super::packets::error::Problem;
use sluice_flows::rule::Millis;
use std::collections::HashMap;
use std::net::IpAddr;

/// Errors a second, in all.
const RATE: u64 = 1000;
/// Errors at a time, in all.
const BURST: u64 = 50;
/// Milliseconds after which a destination may be told again.
const DESTINATION_EVERY: u64 = 1000;
/// Errors at a time to one destination.
const DESTINATION_BURST: u64 = 6;
/// Destinations that are remembered; one more has those forgotten that could be told a whole burst again, or all of them.
const MAX_DESTINATIONS: usize = 4096;

/// A token bucket: `tokens` are millionths.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: u64,
    filled: Millis,
}

/// One token.
const TOKEN: u64 = 1_000_000;

impl Bucket {
    const fn full(burst: u64, now: Millis) -> Self {
        Self { tokens: burst * TOKEN, filled: now }
    }

    /// Fills it, `rate` tokens a second up to `burst`.
    fn fill(&mut self, rate_per_s: u64, burst: u64, now: Millis) {
        let gained = now.since(self.filled).saturating_mul(rate_per_s * (TOKEN / 1000));
        self.tokens = self.tokens.saturating_add(gained).min(burst * TOKEN);
        self.filled = self.filled.max(now);
    }

    fn take(&mut self) -> bool {
        let has_one = self.tokens >= TOKEN;
        if has_one {
            self.tokens -= TOKEN;
        }
        has_one
    }
}

/// What limits a router's errors.
#[derive(Debug)]
pub(super) struct Limits {
    all: Bucket,
    destinations: HashMap<IpAddr, Bucket>,
}

impl Limits {
    /// Nothing was sent yet.
    pub(super) fn new(now: Millis) -> Self {
        Self { all: Bucket::full(BURST, now), destinations: HashMap::new() }
    }

    /// Whether `to` may be told of the problem now; counts it if so.
    pub(super) fn admit(&mut self, to: IpAddr, problem: Problem, now: Millis) -> bool {
        self.all.fill(RATE, BURST, now);
        if self.all.tokens < TOKEN {
            return false;
        }
        if !matches!(problem, Problem::TooBig { .. }) && !self.destination(to, now).take() {
            return false;
        }
        self.all.take()
    }

    fn destination(&mut self, to: IpAddr, now: Millis) -> &mut Bucket {
        if self.destinations.len() >= MAX_DESTINATIONS && !self.destinations.contains_key(&to) {
            let forgotten = DESTINATION_EVERY * DESTINATION_BURST;
            self.destinations.retain(|_, bucket| now.since(bucket.filled) < forgotten);
            if self.destinations.len() >= MAX_DESTINATIONS {
                self.destinations.clear();
            }
        }
        let bucket = self.destinations.entry(to).or_insert_with(|| Bucket::full(DESTINATION_BURST, now));
        bucket.fill(1000 / DESTINATION_EVERY, DESTINATION_BURST, now);
        bucket
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn host(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + n).into()
    }

    #[test]
    fn a_destination_is_told_a_burst_and_then_once_a_second() {
        let mut limits = Limits::new(Millis(0));
        let mut told = |n, now| limits.admit(host(n), Problem::TimeExceeded, Millis(now));
        assert_eq!((0..20).filter(|_| told(1, 0)).count(), 6);
        assert!(told(2, 0), "another destination has its own");
        assert!(!told(1, 900));
        assert!(told(1, 1000) && !told(1, 1000));
        assert_eq!((0..20).filter(|_| told(1, 100_000)).count(), 6);
    }

    #[test]
    fn a_router_sends_a_burst_and_then_so_many_a_second() {
        let mut limits = Limits::new(Millis(0));
        let mut told = |n, now| limits.admit(host(n), Problem::NoRoute, Millis(now));
        assert_eq!((0..1000).filter(|n| told(*n, 0)).count(), 50);
        assert_eq!((2000..3000).filter(|n| told(*n, 10)).count(), 10);
        assert_eq!((3000..4000).filter(|n| told(*n, 10_000)).count(), 50);
    }

    #[test]
    fn too_big_is_told_beyond_the_destinations_limit_but_not_beyond_the_routers() {
        let mut limits = Limits::new(Millis(0));
        let to: IpAddr = Ipv6Addr::LOCALHOST.into();
        let told = (0..100).filter(|_| limits.admit(to, Problem::TooBig { mtu: 1280 }, Millis(0))).count();
        assert_eq!(told, 50);
    }

    #[test]
    fn destinations_are_forgotten_before_there_are_too_many() {
        let mut limits = Limits::new(Millis(0));
        for n in 0..100_000 {
            limits.admit(host(n), Problem::NoRoute, Millis(n.into()));
            assert!(limits.destinations.len() <= MAX_DESTINATIONS);
        }
    }
}
