//! A port that receives nothing and discards what is sent to it: the far end of a bench.

use super::{Port, PortCaps, PortError, PortKind, PortQueue, TxOutcome, fit};
use sluice_flows::DropReason;
use sluice_flows::packet::Frame;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A port that discards what is sent to it.
#[derive(Debug)]
pub struct NullPort {
    name: String,
    mtu: Arc<AtomicU32>,
}

impl NullPort {
    /// A null port that takes frames up to `mtu` bytes behind their link header.
    pub fn new(name: &str, mtu: u32) -> Self {
        Self { name: name.to_owned(), mtu: Arc::new(AtomicU32::new(mtu.min(fit::MAX_MTU))) }
    }
}

impl Port for NullPort {
    fn kind(&self) -> PortKind {
        PortKind::Null
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn mac(&self) -> Option<[u8; 6]> {
        None
    }

    fn mtu(&self) -> u32 {
        self.mtu.load(Ordering::Relaxed)
    }

    fn set_mtu(&self, mtu: u32) -> Result<(), PortError> {
        if mtu > fit::MAX_MTU {
            return Err(PortError::Mtu { port: self.name.clone(), mtu, range: fit::MTU_RANGE });
        }
        self.mtu.store(mtu, Ordering::Relaxed);
        Ok(())
    }

    fn link_up(&self) -> bool {
        true
    }

    fn caps(&self) -> PortCaps {
        PortCaps::ALL
    }

    fn queues(&self, count: usize) -> Result<Vec<Box<dyn PortQueue>>, PortError> {
        let queue = || Box::new(NullQueue { mtu: Arc::clone(&self.mtu) }) as Box<dyn PortQueue>;
        Ok((0..count).map(|_| queue()).collect())
    }
}

/// One worker's queue of a [`NullPort`].
struct NullQueue {
    mtu: Arc<AtomicU32>,
}

impl PortQueue for NullQueue {
    fn rx_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn rx_burst(&mut self, _frames: &mut [Frame]) -> io::Result<usize> {
        Ok(0)
    }

    fn tx_burst(&mut self, frames: &[&Frame], outcomes: &mut [TxOutcome]) {
        let mtu = self.mtu.load(Ordering::Relaxed);
        for (frame, outcome) in frames.iter().zip(outcomes) {
            *outcome =
                if fit::too_long(frame, mtu) { TxOutcome::Dropped(DropReason::MtuExceeded) } else { TxOutcome::Sent };
        }
    }
}
