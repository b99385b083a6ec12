//! A port that tells what came in by it.

use sluice_flows::packet::{Frame, GsoKind};
use sluice_switch::port::{Device, Port, PortCaps, PortError, PortKind, PortQueue, RxLoss, TxOutcome};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What came in by a port.
#[derive(Debug, Default)]
pub struct Seen {
    frames: AtomicU64,
    super_frames: AtomicU64,
    partial_checksums: AtomicU64,
}

impl Seen {
    /// All frames.
    pub fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// TCP super-frames with partial checksums.
    pub fn super_frames(&self) -> u64 {
        self.super_frames.load(Ordering::Relaxed)
    }

    /// Frames with partial checksums.
    pub fn partial_checksums(&self) -> u64 {
        self.partial_checksums.load(Ordering::Relaxed)
    }

    fn note(&self, frames: &[Frame]) {
        let count = |counter: &AtomicU64, which: fn(&Frame) -> bool| {
            counter.fetch_add(frames.iter().filter(|f| which(f)).count() as u64, Ordering::Relaxed);
        };
        count(&self.frames, |_| true);
        count(&self.partial_checksums, |f| f.offload.csum_partial);
        count(&self.super_frames, |f| matches!(f.offload.gso, GsoKind::Tcp4 | GsoKind::Tcp6) && f.offload.csum_partial);
    }
}

/// Another port, and what came in by it.
pub(crate) struct Watched {
    port: Box<dyn Port>,
    seen: Arc<Seen>,
}

impl Watched {
    pub(crate) fn new(port: Box<dyn Port>, seen: Arc<Seen>) -> Self {
        Self { port, seen }
    }
}

impl Port for Watched {
    fn device(&self) -> &Device {
        self.port.device()
    }

    fn kind(&self) -> PortKind {
        self.port.kind()
    }

    fn name(&self) -> &str {
        self.port.name()
    }

    fn mac(&self) -> Option<[u8; 6]> {
        self.port.mac()
    }

    fn mtu(&self) -> u32 {
        self.port.mtu()
    }

    fn set_mtu(&self, mtu: u32) -> Result<(), PortError> {
        self.port.set_mtu(mtu)
    }

    fn link_up(&self) -> bool {
        self.port.link_up()
    }

    fn caps(&self) -> PortCaps {
        self.port.caps()
    }

    fn rx_loss(&self) -> RxLoss {
        self.port.rx_loss()
    }

    fn queues(&self, count: usize) -> Result<Vec<Box<dyn PortQueue>>, PortError> {
        let watch = |queue| Box::new(WatchedQueue { queue, seen: Arc::clone(&self.seen) }) as Box<dyn PortQueue>;
        Ok(self.port.queues(count)?.into_iter().map(watch).collect())
    }
}

struct WatchedQueue {
    queue: Box<dyn PortQueue>,
    seen: Arc<Seen>,
}

impl PortQueue for WatchedQueue {
    fn rx_fd(&self) -> Option<BorrowedFd<'_>> {
        self.queue.rx_fd()
    }

    fn rx_burst(&mut self, frames: &mut [Frame]) -> io::Result<usize> {
        let count = self.queue.rx_burst(frames)?;
        self.seen.note(&frames[..count]);
        Ok(count)
    }

    fn tx_burst(&mut self, frames: &[&Frame], outcomes: &mut [TxOutcome]) {
        self.queue.tx_burst(frames, outcomes);
    }
}
