//! A port that gives the same frames over and over from memory, as fast as they are taken.

use sluice_flows::packet::Frame;
use sluice_switch::port::{Device, Port, PortCaps, PortError, PortKind, PortQueue, TxOutcome};
use std::io::{self, PipeReader, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// A port that gives the same frames over and over.
#[derive(Debug)]
pub struct ReplayPort {
    device: Device,
    frames: Arc<[Box<[u8]>]>,
    /// Always readable.
    ready: Arc<PipeReader>,
}

impl ReplayPort {
    /// A port that gives `frames` in turn.
    ///
    /// # Errors
    /// The system's, when it has no descriptor left.
    pub fn new(name: &str, frames: Vec<Box<[u8]>>) -> io::Result<Self> {
        let (reader, mut writer) = io::pipe()?;
        writer.write_all(&[0])?;
        Ok(Self { device: Device::without_link(name, None, 1500), frames: frames.into(), ready: Arc::new(reader) })
    }
}

impl Port for ReplayPort {
    fn kind(&self) -> PortKind {
        PortKind::Memory
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn caps(&self) -> PortCaps {
        PortCaps::ALL
    }

    fn queues(&self, count: usize) -> Result<Vec<Box<dyn PortQueue>>, PortError> {
        let queue = || ReplayQueue { frames: Arc::clone(&self.frames), ready: Arc::clone(&self.ready), next: 0 };
        Ok((0..count).map(|_| Box::new(queue()) as Box<dyn PortQueue>).collect())
    }
}

struct ReplayQueue {
    frames: Arc<[Box<[u8]>]>,
    ready: Arc<PipeReader>,
    next: usize,
}

impl PortQueue for ReplayQueue {
    fn rx_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.ready.as_fd())
    }

    fn rx_burst(&mut self, frames: &mut [Frame]) -> io::Result<usize> {
        for frame in frames.iter_mut() {
            let Some(bytes) = self.frames.get(self.next) else { return Ok(0) };
            frame.copy_from(bytes);
            self.next = if self.next + 1 < self.frames.len() { self.next + 1 } else { 0 };
        }
        Ok(frames.len())
    }

    fn tx_burst(&mut self, frames: &[&Frame], outcomes: &mut [TxOutcome]) {
        outcomes[..frames.len()].fill(TxOutcome::Sent);
    }
}
