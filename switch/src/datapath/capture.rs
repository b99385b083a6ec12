//! Copies of the frames that cross a port, for whoever asked to see them.
//!
//! A worker knows of the captures of its ports by a list that each lane has; empty, it costs one branch a burst. A frame
//! is copied as it crosses: what a port received before anything was done with it, what it sent after all was done.
//! A super-frame is one frame, a partial checksum is not yet filled in.
//!
//! Copies wait in a queue that is bounded in frames and bytes. When the reader is too slow, the switch is not: frames
//! are not copied then, and counted as lost by the capture.

use crate::port::TxOutcome;
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use sluice_flows::Match;
use sluice_flows::key::{FlowKey, PacketKey};
use sluice_flows::packet::{Frame, Offload, extract};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Frames that wait for the reader.
const DEPTH: usize = 8192;
/// Bytes of them.
const ROOM: u64 = 16 << 20;

/// Which way a frame crossed its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The port received it.
    Received,
    /// The port sent it.
    Sent,
}

/// A copy of a frame.
#[derive(Clone, Debug)]
pub struct Captured {
    /// Which of the ports that were asked for.
    pub port: usize,
    /// Which way it went.
    pub direction: Direction,
    /// Since the Unix epoch, by the system's clock; one time for a burst.
    pub time: Duration,
    /// Its bytes, cut at the length that was asked for.
    pub bytes: Box<[u8]>,
    /// Length of the whole frame, in bytes.
    pub len: usize,
    /// What was left for the output to do.
    pub offload: Offload,
}

/// The reader's end.
#[derive(Debug)]
pub(crate) struct Copies {
    receiver: Receiver<Captured>,
    shared: Arc<Shared>,
}

/// What a worker does for one capture at one port.
#[derive(Debug)]
pub(crate) struct Probe {
    /// Which of the ports that were asked for.
    pub(crate) port: usize,
    pub(crate) writer: Arc<Writer>,
}

/// The workers' end.
#[derive(Debug)]
pub(crate) struct Writer {
    /// Tells captures apart.
    pub(crate) id: u64,
    matches: Match,
    /// Bytes copied of each frame at most.
    snaplen: usize,
    sender: Sender<Captured>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Bytes that wait.
    bytes: AtomicU64,
    lost: AtomicU64,
}

/// Both ends of a capture of the packets that `matches` matches.
pub(crate) fn capture(id: u64, matches: Match, snaplen: usize) -> (Arc<Writer>, Copies) {
    let (sender, receiver) = bounded(DEPTH);
    let shared = Arc::<Shared>::default();
    let writer = Writer { id, matches, snaplen, sender, shared: Arc::clone(&shared) };
    (Arc::new(writer), Copies { receiver, shared })
}

impl Copies {
    /// The next copy; `None` when none came for so long.
    pub(crate) fn next(&self, patience: Duration) -> Option<Captured> {
        let copy = self.receiver.recv_timeout(patience).ok()?;
        self.shared.bytes.fetch_sub(copy.bytes.len() as u64, Ordering::Relaxed);
        Some(copy)
    }

    /// Frames that matched and were not copied because too many waited, since the start.
    pub(crate) fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

impl Probe {
    /// Copies what the port has received.
    #[cold]
    pub(super) fn received(&self, frames: &[Frame]) {
        let time = now();
        frames.iter().for_each(|frame| self.writer.copy(frame, self.port, Direction::Received, time));
    }

    /// Copies what the port has sent.
    #[cold]
    pub(super) fn sent(&self, frames: &[&Frame], outcomes: &[TxOutcome]) {
        let time = now();
        let went = |outcome: &TxOutcome| matches!(outcome, TxOutcome::Sent | TxOutcome::Held);
        for (frame, _) in frames.iter().zip(outcomes).filter(|(_, outcome)| went(outcome)) {
            self.writer.copy(frame, self.port, Direction::Sent, time);
        }
    }
}

impl Writer {
    fn copy(&self, frame: &Frame, port: usize, direction: Direction, time: Duration) {
        if !self.matches.is_any() {
            let mut key = PacketKey::ZERO;
            extract(frame.bytes(), 0, &mut key);
            if !self.matches.matches(&FlowKey::from(&key)) {
                return;
            }
        }
        let bytes = &frame.bytes()[..frame.len().min(self.snaplen)];
        let len = bytes.len() as u64;
        if self.shared.bytes.fetch_add(len, Ordering::Relaxed) + len <= ROOM {
            let bytes = Box::from(bytes);
            let copy = Captured { port, direction, time, bytes, len: frame.len(), offload: frame.offload };
            match self.sender.try_send(copy) {
                Ok(()) => return,
                Err(TrySendError::Full(_)) => {}
                // Nobody looks any more; the workers are about to be told.
                Err(TrySendError::Disconnected(_)) => return,
            }
        }
        self.shared.bytes.fetch_sub(len, Ordering::Relaxed);
        self.shared.lost.fetch_add(1, Ordering::Relaxed);
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::ZERO;

    #[test]
    fn a_reader_that_is_too_slow_loses_frames_and_knows_how_many() {
        let (writer, copies) = capture(1, Match::any(), 100);
        let frame = Frame::from_bytes(&[7; 200]);
        for _ in 0..DEPTH + 5 {
            writer.copy(&frame, 3, Direction::Sent, Duration::from_secs(1));
        }
        assert_eq!(copies.lost(), 5);
        let first = copies.next(PATIENCE).unwrap();
        assert_eq!((first.port, first.direction, first.len), (3, Direction::Sent, 200));
        assert_eq!(*first.bytes, [7; 100]);
        assert_eq!(std::iter::from_fn(|| copies.next(PATIENCE)).count(), DEPTH - 1);
        writer.copy(&frame, 3, Direction::Sent, Duration::from_secs(2));
        assert!(copies.next(PATIENCE).is_some() && copies.lost() == 5, "there is room again");
    }

    #[test]
    fn super_frames_fill_the_queue_by_their_bytes() {
        let (writer, copies) = capture(1, Match::any(), usize::MAX);
        let frame = Frame::from_bytes(&vec![7; 60_000]);
        for _ in 0..1000 {
            writer.copy(&frame, 0, Direction::Received, Duration::ZERO);
        }
        let fitting = ROOM / 60_000;
        assert_eq!(copies.lost(), 1000 - fitting);
        assert_eq!(std::iter::from_fn(|| copies.next(PATIENCE)).count() as u64, fitting);
    }
}
