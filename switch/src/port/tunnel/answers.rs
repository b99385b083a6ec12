//! Frames that a tunnel port puts into the switch itself: what it answers packets with that are too long for the path.

use crate::port::sys::eventfd;
use crossbeam::queue::ArrayQueue;
use sluice_flows::DpPort;
use sluice_flows::packet::Frame;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

/// Answers that wait for one worker; more are not given.
const LIMIT: usize = 64;

/// The answers that wait for one worker.
#[derive(Debug)]
pub(crate) struct Answers {
    frames: ArrayQueue<(DpPort, Frame)>,
    /// Readable while there are some.
    event: File,
}

impl Answers {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { frames: ArrayQueue::new(LIMIT), event: eventfd()? })
    }

    /// Has `frame` come in by `port`; lost if too many wait already.
    pub(crate) fn push(&self, port: DpPort, frame: Frame) {
        if self.frames.push((port, frame)).is_ok() {
            // A full counter means that it is readable already.
            _ = (&self.event).write(&1_u64.to_ne_bytes());
        }
    }

    /// The next one. After `None` the descriptor is not readable until there is another.
    pub(crate) fn pop(&self) -> Option<(DpPort, Frame)> {
        if self.frames.is_empty() {
            return None;
        }
        // Cleared before the look, so that what is added after it is told.
        _ = (&self.event).read(&mut [0; 8]);
        let next = self.frames.pop();
        if !self.frames.is_empty() {
            _ = (&self.event).write(&1_u64.to_ne_bytes());
        }
        next
    }
}

impl AsFd for Answers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
