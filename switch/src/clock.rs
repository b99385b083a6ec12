//! The clock that the switch's threads read, and nobody below them.

use nix::time::{ClockId, clock_gettime};
use sluice_flows::rule::Millis;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A monotonic clock in milliseconds. Clones tell the same time.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// Since when, and what the time was then.
    Monotonic(Instant, u64),
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The system's monotonic clock, counted from now.
    pub fn monotonic() -> Self {
        Self(Kind::Monotonic(Instant::now(), 0))
    }

    /// The same, counted from the machine's boot: times mean the same to the next process.
    pub fn since_boot() -> Self {
        let since = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
        Self(Kind::Monotonic(Instant::now(), millis(since)))
    }

    /// A clock that moves only by [`Clock::advance`]: for tests of what time does.
    pub fn manual() -> Self {
        Self(Kind::Manual(Arc::default()))
    }

    /// The time.
    pub fn now(&self) -> Millis {
        self.at(Instant::now())
    }

    /// The time at `instant`, which is now: for a caller that has just asked the system.
    pub(crate) fn at(&self, instant: Instant) -> Millis {
        match &self.0 {
            Kind::Monotonic(zero, then) => {
                Millis(then.saturating_add(millis(instant.saturating_duration_since(*zero))))
            }
            Kind::Manual(now) => Millis(now.load(Ordering::Acquire)),
        }
    }

    /// Moves a manual clock forward; the system's is not ours to move.
    pub fn advance(&self, millis: u64) {
        if let Kind::Manual(now) = &self.0 {
            now.fetch_add(millis, Ordering::AcqRel);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Default for Clock {
    fn default() -> Self {
        Self::monotonic()
    }
}
