//! Limits of a port's rate: what comes in and goes out faster waits its turn, and what waits too long is dropped.
//!
//! # Why here
//! A container's bandwidth and a lab's link have a rate. The kernel's tbf needs an interface to hang on, sees what
//! the switch sends past it only with a penalty, and a policer (a meter) drops whatever is above the rate at once, at
//! which TCP fares badly. A queue of the switch's own does for every kind of port, and is set and changed with it.
//!
//! # How
//! A port that is limited has a [`Shaper`], shared by its queues, with a [`bucket`] for each way; and each worker's queue
//! is wrapped in a [`Shaped`], which holds back what there are no tokens for. Several workers take from one bucket, so
//! the rate is the port's whatever worker its frames are with; each flow stays with one worker and so in order.
//!
//! - *tx*, towards the device: what has tokens goes to the device at once. What has none is copied into a queue, and
//!   goes from there when a timer says so: a worker with nothing else to do sleeps until then. `tx_packets` counts a
//!   frame when it leaves.
//! - *rx*, from the device: frames are read as fast as they come and handed to the worker as fast as they may. Left in
//!   the device they would wait for minutes: a packet socket's buffer is 8 MB, and its sender would not notice.
//!
//! What waits is bounded: what goes in 50 ms at the rate, and at least two super-frames. What comes above that is
//! dropped as `queue_full`: plain FIFO with tail drop, no marking. With several workers each has its share of that even
//! when the others fill it, so up to twice as much waits. A burst after a pause goes unhindered.
//!
//! A super-frame that would take more than 4 ms is cut into its segments first, so that others need not wait for the
//! whole; a faster port keeps it whole.
//!
//! # Cost
//! None for ports without limits: they have no wrapper. With one, a burst costs a look at the clock, a frame one atomic
//! exchange, and one that has to wait two copies. Nothing is allocated once the rings have grown to what was once in
//! them.
//!
//! # Limits
//! The rate is met over times much longer than the burst; a frame goes when the bucket is not empty, so over any time
//! T at most `rate * T + burst + one frame` go. A worker that is not scheduled for longer than the burst lasts loses what
//! it did not send. Workers with frames waiting get equal chances, not equal shares. What waits when a port is removed is
//! lost.

mod backlog;
mod bucket;
mod limits;
mod queue;
#[cfg(test)]
mod tests;

pub(super) use backlog::bits_of;
pub(crate) use limits::is_limit;
pub use limits::{Limits, Rate, parse_bits, show_bits};
pub(crate) use queue::{Shaped, Shaping};

use super::Port;
use super::alarm::now;
use crate::stats::PortCounters;
use bucket::Bucket;
use sluice_flows::DpPort;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// What the queues of a limited port share.
#[derive(Debug)]
pub(crate) struct Shaper {
    port: DpPort,
    rx: Bucket,
    tx: Bucket,
    mtu: Arc<AtomicU32>,
    counters: Arc<PortCounters>,
}

impl Shaper {
    /// For `device`, which has the number `port`.
    pub(crate) fn new(device: &dyn Port, port: DpPort, counters: &Arc<PortCounters>, limits: Limits) -> Arc<Self> {
        let workers = counters.workers();
        let shaper = Self {
            port,
            rx: Bucket::new(workers),
            tx: Bucket::new(workers),
            mtu: device.device().shared_mtu(),
            counters: Arc::clone(counters),
        };
        shaper.set(limits);
        Arc::new(shaper)
    }

    /// Goes by these limits from now on. A worker that sleeps until a time by the old ones has to be told.
    pub(crate) fn set(&self, limits: Limits) {
        let now = now();
        self.rx.set(limits.rx, now);
        self.tx.set(limits.tx, now);
    }

    /// What the queue of each worker is wrapped with.
    ///
    /// # Errors
    /// The system's, when it has no descriptors left.
    pub(crate) fn shapings(self: &Arc<Self>) -> io::Result<Vec<Shaping>> {
        (0..self.counters.workers()).map(|worker| Shaping::new(Arc::clone(self), worker)).collect()
    }
}
