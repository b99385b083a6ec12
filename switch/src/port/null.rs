//! A port that receives nothing and discards what is sent to it: the far end of a bench.

use super::{Device, Port, PortCaps, PortError, PortKind, PortQueue, TxOutcome, fit};
use sluice_flows::packet::Frame;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// A port that discards what is sent to it.
#[derive(Debug)]
pub struct NullPort {
    device: Device,
}

impl NullPort {
    /// A null port that takes frames up to `mtu` bytes behind their link header.
    pub fn new(name: &str, mtu: u32) -> Self {
        Self { device: Device::without_link(name, None, mtu) }
    }
}

impl Port for NullPort {
    fn kind(&self) -> PortKind {
        PortKind::Null
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn caps(&self) -> PortCaps {
        PortCaps::ALL
    }

    fn queues(&self, count: usize) -> Result<Vec<Box<dyn PortQueue>>, PortError> {
        let queue = || Box::new(NullQueue { mtu: self.device.shared_mtu() }) as Box<dyn PortQueue>;
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
        fit::send_each(frames, outcomes, &self.mtu, |_| TxOutcome::Sent);
    }
}
