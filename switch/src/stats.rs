//! Counters: who counts what, and how they are read.
//!
//! Each worker writes its own cells and nobody else's, so counting is a plain add, not an atomic one; readers add the
//! cells of all workers up. Per burst and not per packet where that is the same. A reader may see one counter of a
//! burst and not yet another; after [`Datapath::sync_stats`](crate::Datapath::sync_stats) on a quiet switch all agree.

use crossbeam::utils::CachePadded;
use sluice_flows::key::PacketKey;
use sluice_flows::rule::{Millis, Rule};
use sluice_flows::{DpPort, DropReason};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that one thread writes and any thread reads.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`. Only the owning thread calls it.
    #[inline]
    pub(crate) fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Replaces the value. Only the owning thread calls it.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of one port since it was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Frames received; a super-frame is one.
    pub rx_packets: u64,
    /// Bytes received, Ethernet header included.
    pub rx_bytes: u64,
    /// Frames that came in by this port and were dropped by the switch, whatever the reason.
    pub rx_dropped: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames that were to go out by this port and did not because its queue was full.
    pub tx_dropped: u64,
    /// Frames that were to go out by this port and did not for another reason: too long, port down.
    pub tx_errors: u64,
}

/// One worker's cells for one port.
#[derive(Debug, Default)]
pub(crate) struct PortCells {
    pub(crate) rx_packets: Counter,
    pub(crate) rx_bytes: Counter,
    pub(crate) rx_dropped: Counter,
    pub(crate) tx_packets: Counter,
    pub(crate) tx_bytes: Counter,
    pub(crate) tx_dropped: Counter,
    pub(crate) tx_errors: Counter,
}

/// The cells of one port, one set for each worker.
#[derive(Debug)]
pub(crate) struct PortCounters {
    workers: Box<[CachePadded<PortCells>]>,
}

impl PortCounters {
    pub(crate) fn new(workers: usize) -> Self {
        Self { workers: (0..workers).map(|_| CachePadded::default()).collect() }
    }

    /// How many workers count.
    pub(crate) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// The cells of one worker, by its number.
    pub(crate) fn cells(&self, worker: usize) -> Option<&PortCells> {
        self.workers.get(worker).map(|c| &**c)
    }

    pub(crate) fn total(&self) -> PortStats {
        let mut out = PortStats::default();
        for cells in &self.workers {
            out.rx_packets += cells.rx_packets.get();
            out.rx_bytes += cells.rx_bytes.get();
            out.rx_dropped += cells.rx_dropped.get();
            out.tx_packets += cells.tx_packets.get();
            out.tx_bytes += cells.tx_bytes.get();
            out.tx_dropped += cells.tx_dropped.get();
            out.tx_errors += cells.tx_errors.get();
        }
        out
    }
}

/// What a worker does with a burst, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Takes frames from the port.
    Receive,
    /// Reads keys and offsets of headers from the bytes.
    Read,
    /// Asks the caches.
    LookUp,
    /// Does the actions. Translations are counted apart.
    Act,
    /// Hands frames to ports, and counts.
    Send,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::Receive, Self::Read, Self::LookUp, Self::Act, Self::Send];

    /// What people and programs call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Read => "read",
            Self::LookUp => "look up",
            Self::Act => "act",
            Self::Send => "send",
        }
    }
}

/// Kinds of bursts by size: 1, 2 to 3, 4 to 7, 8 to 15, 16 to 31 frames, and more.
pub const BURST_SIZES: usize = 6;

/// Of which kind, by size, a burst of `count` frames is; at least one.
pub(crate) fn burst_size(count: usize) -> usize {
    (count.max(1).ilog2() as usize).min(BURST_SIZES - 1)
}

/// Where a worker's time went, in ticks of the CPU's counter. All are 0 on a machine without one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timing {
    /// How fast the counter is, in ticks a second.
    pub ticks_hz: f64,
    /// Frames of the bursts that were timed stage by stage, one burst in eight.
    pub packets: u64,
    /// Ticks of these bursts, by [`Stage`].
    pub stages: [u64; Stage::ALL.len()],
    /// Ticks of all translations.
    pub translation: u64,
}

/// Counters of one worker since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkerStats {
    /// The worker's number, from 0.
    pub worker: usize,
    /// Frames received, those of packet-outs included.
    pub received: u64,
    /// Of these, frames that left by at least one port or were handed to the controller.
    pub forwarded: u64,
    /// Of these, frames dropped, by [`DropReason`] number.
    pub dropped: [u64; DropReason::COUNT],
    /// Of these and of those released, fragments that were put away until their datagram is whole.
    pub held: u64,
    /// Fragments that this worker sent on or dropped after they had waited; whichever worker put them away.
    /// `received + released = forwarded + dropped + held`.
    pub released: u64,
    /// Frames that it took from a port and gave to other workers to do the rest, who count them as received.
    pub handed_on: u64,
    /// Of the frames received, those that other workers took from a port.
    pub taken_over: u64,
    /// Bursts that held at least one frame.
    pub bursts: u64,
    /// The same by size: bursts of 1, 2 to 3, 4 to 7, 8 to 15, 16 to 31 frames, and of more.
    pub bursts_by_size: [u64; BURST_SIZES],
    /// Where its time went.
    pub timing: Timing,
    /// Turns of the poll loop.
    pub rounds: u64,
    /// Times it slept because there was nothing to do.
    pub parks: u64,
    /// Microseconds spent on rounds that moved frames.
    pub busy_us: u64,
    /// Microseconds since it started.
    pub uptime_us: u64,
    /// Packets handed to the controllers that were lost because nobody took them or their rate was exceeded.
    pub packet_ins_lost: u64,
    /// Its caches.
    pub cache: CacheStats,
}

impl WorkerStats {
    /// Share of its time in which the worker moved frames, 0 to 1.
    pub fn busy_ratio(&self) -> f64 {
        if self.uptime_us == 0 { 0.0 } else { self.busy_us as f64 / self.uptime_us as f64 }
    }

    /// Frames dropped, for whatever reason.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }
}

/// Counters of one worker's caches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Frames answered by the exact cache.
    pub exact_hits: u64,
    /// Frames answered by the megaflow cache.
    pub megaflow_hits: u64,
    /// Frames that were translated because no cache had an answer.
    pub misses: u64,
    /// Frames that were translated because the cached answer was out of date.
    pub stale: u64,
    /// Frames answered by an entry of a connection: all of its passes, in one lookup. They are among the hits above.
    pub connection_hits: u64,
    /// Passes behind the first that were answered by the cache of passes.
    pub pass_hits: u64,
    /// Passes behind the first that were translated.
    pub pass_misses: u64,
    /// Entries in the cache of passes.
    pub pass_entries: u64,
    /// Entries in the exact cache.
    pub exact_entries: u64,
    /// Entries in the megaflow cache.
    pub megaflow_entries: u64,
    /// Distinct masks in the megaflow cache.
    pub megaflow_masks: u64,
    /// Megaflows pushed out because the cache was full.
    pub evictions: u64,
    /// Megaflows removed because no packet used them.
    pub expired: u64,
}

/// The cells behind [`WorkerStats`].
#[derive(Debug, Default)]
pub(crate) struct WorkerCells {
    pub(crate) received: Counter,
    pub(crate) forwarded: Counter,
    pub(crate) dropped: [Counter; DropReason::COUNT],
    pub(crate) held: Counter,
    pub(crate) released: Counter,
    pub(crate) handed_on: Counter,
    pub(crate) taken_over: Counter,
    pub(crate) bursts: Counter,
    pub(crate) bursts_by_size: [Counter; BURST_SIZES],
    pub(crate) timed_packets: Counter,
    pub(crate) stages: [Counter; Stage::ALL.len()],
    pub(crate) translation: Counter,
    pub(crate) rounds: Counter,
    pub(crate) parks: Counter,
    pub(crate) busy_us: Counter,
    pub(crate) packet_ins_lost: Counter,
    pub(crate) exact_hits: Counter,
    pub(crate) megaflow_hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) stale: Counter,
    pub(crate) connection_hits: Counter,
    pub(crate) pass_hits: Counter,
    pub(crate) pass_misses: Counter,
    pub(crate) pass_entries: Counter,
    pub(crate) exact_entries: Counter,
    pub(crate) megaflow_entries: Counter,
    pub(crate) megaflow_masks: Counter,
    pub(crate) evictions: Counter,
    pub(crate) expired: Counter,
}

impl WorkerCells {
    pub(crate) fn read(&self, worker: usize) -> WorkerStats {
        WorkerStats {
            worker,
            received: self.received.get(),
            forwarded: self.forwarded.get(),
            dropped: std::array::from_fn(|i| self.dropped[i].get()),
            held: self.held.get(),
            released: self.released.get(),
            handed_on: self.handed_on.get(),
            taken_over: self.taken_over.get(),
            bursts: self.bursts.get(),
            bursts_by_size: std::array::from_fn(|i| self.bursts_by_size[i].get()),
            timing: Timing {
                ticks_hz: 0.0,
                packets: self.timed_packets.get(),
                stages: std::array::from_fn(|i| self.stages[i].get()),
                translation: self.translation.get(),
            },
            rounds: self.rounds.get(),
            parks: self.parks.get(),
            busy_us: self.busy_us.get(),
            uptime_us: 0,
            packet_ins_lost: self.packet_ins_lost.get(),
            cache: CacheStats {
                exact_hits: self.exact_hits.get(),
                megaflow_hits: self.megaflow_hits.get(),
                misses: self.misses.get(),
                stale: self.stale.get(),
                connection_hits: self.connection_hits.get(),
                pass_hits: self.pass_hits.get(),
                pass_misses: self.pass_misses.get(),
                pass_entries: self.pass_entries.get(),
                exact_entries: self.exact_entries.get(),
                megaflow_entries: self.megaflow_entries.get(),
                megaflow_masks: self.megaflow_masks.get(),
                evictions: self.evictions.get(),
                expired: self.expired.get(),
            },
        }
    }
}

/// Drops of one kind: one reason, one ingress port, one deciding rule.
#[derive(Clone, Debug)]
pub struct DropGroup {
    /// Why.
    pub reason: DropReason,
    /// The port that the packets came in by.
    pub ingress: DpPort,
    /// The last rule that matched; `None` when none did, or when they were lost on the way out.
    pub rule: Option<Arc<Rule>>,
    /// Packets dropped.
    pub packets: u64,
    /// When the last of them was.
    pub last: Millis,
    /// Key of a recent one of them, `in_port` being the ingress port's datapath number; `None` when none was kept.
    pub example: Option<PacketKey>,
}
