//! Copies of the frames that cross a port, for whoever asked to see them.
//!
//! A worker knows of the captures of its ports by a list that each lane has. A frame is copied as it crosses: what a port
//! received before anything was done with it, what it sent after all was done. A super-frame is one frame, a partial
//! checksum is not yet filled in. What became of the packet is known at the end of its burst; until then a
//! [`Witness`](super::witness::Witness) keeps the copies.
//!
//! Copies wait in a queue that is bounded in frames and bytes. When the reader is too slow, the switch is not: frames
//! are not copied then, and counted as lost by the capture.

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use sluice_flows::Match;
use sluice_flows::key::{FlowKey, PacketKey};
use sluice_flows::packet::{Frame, Offload, extract};
use sluice_flows::rule::Rule;
use sluice_flows::{DpPort, DropReason};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Frames that wait for the reader.
const DEPTH: usize = 8192;
/// Bytes of them.
pub(super) const ROOM: u64 = 16 << 20;

/// Which way a frame crossed its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The port received it.
    Received,
    /// The port sent it.
    Sent,
}

/// Which frames of its ports a capture sees.
#[derive(Clone, Debug)]
pub struct Sight {
    /// Only packets that this matches. It may only look at what is in the packet.
    pub matches: Match,
    /// What has to hold beside that.
    pub conditions: Box<[Condition]>,
    /// Bytes copied of each frame at most.
    pub snaplen: usize,
    /// Those that the ports receive.
    pub received: bool,
    /// Those that the ports send.
    pub sent: bool,
    /// Of these only packets that are dropped: received and then sent nowhere, or to be sent by the port and lost there.
    pub dropped: bool,
}

impl Sight {
    /// Every packet that `matches` matches, whole, both ways.
    pub fn of(matches: Match) -> Self {
        let conditions = Box::default();
        Self { matches, conditions, snaplen: usize::MAX, received: true, sent: true, dropped: false }
    }

    /// Every match in it.
    pub(crate) fn all_matches(&self) -> impl Iterator<Item = &Match> {
        std::iter::once(&self.matches).chain(self.conditions.iter().flat_map(|condition| &condition.any))
    }
}

/// A condition on packets.
#[derive(Clone, Debug)]
pub struct Condition {
    /// One of these matches it.
    pub any: Box<[Match]>,
    /// None of them does instead.
    pub not: bool,
}

/// What became of a packet as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapturedVerdict {
    /// It, or a copy, left by a port or was handed to a controller.
    Forwarded,
    /// Nothing of it left, for this reason.
    Dropped(DropReason),
    /// It waits for the rest of its datagram.
    Waits,
    /// It is the switch's own answer to a packet that was rejected.
    Answer,
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
    /// What became of the packet.
    pub verdict: CapturedVerdict,
    /// The ports that it was sent to, in order, each once; with why, where it was lost there.
    pub outputs: Box<[(DpPort, Option<DropReason>)]>,
    /// The rules that it matched, in order; the last one decided.
    pub rules: Box<[Arc<Rule>]>,
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
    pub(super) sight: Sight,
    sender: Sender<Captured>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Bytes that wait.
    bytes: AtomicU64,
    /// Frames lost, of each port.
    lost: Box<[AtomicU64]>,
}

/// Both ends of a capture of what `sight` says, at so many ports.
pub(crate) fn capture(id: u64, sight: Sight, ports: usize) -> (Arc<Writer>, Copies) {
    let (sender, receiver) = bounded(DEPTH);
    let lost = (0..ports).map(|_| AtomicU64::new(0)).collect();
    let shared = Arc::new(Shared { bytes: AtomicU64::new(0), lost });
    let writer = Writer { id, sight, sender, shared: Arc::clone(&shared) };
    (Arc::new(writer), Copies { receiver, shared })
}

impl Copies {
    /// The next copy; `None` when none came for so long.
    pub(crate) fn next(&self, patience: Duration) -> Option<Captured> {
        let copy = self.receiver.recv_timeout(patience).ok()?;
        self.shared.bytes.fetch_sub(copy.bytes.len() as u64, Ordering::Relaxed);
        Some(copy)
    }

    /// Frames of each port that were to be copied and were not because too many waited, since the start.
    pub(crate) fn lost(&self) -> impl Iterator<Item = u64> {
        self.shared.lost.iter().map(|lost| lost.load(Ordering::Relaxed))
    }
}

impl Writer {
    /// Whether the frame is one of those to copy.
    pub(super) fn wants(&self, frame: &Frame) -> bool {
        let Sight { matches, conditions, .. } = &self.sight;
        if matches.is_any() && conditions.is_empty() {
            return true;
        }
        let mut key = PacketKey::ZERO;
        extract(frame.bytes(), 0, &mut key);
        let key = FlowKey::from(&key);
        let holds = |condition: &Condition| condition.any.iter().any(|one| one.matches(&key)) != condition.not;
        matches.matches(&key) && conditions.iter().all(holds)
    }

    /// Takes room for a copy of so many bytes. Without room the frame is lost.
    pub(super) fn reserve(&self, port: usize, len: usize) -> bool {
        let len = len as u64;
        let fits = self.shared.bytes.fetch_add(len, Ordering::Relaxed) + len <= ROOM && !self.sender.is_full();
        if !fits {
            self.shared.bytes.fetch_sub(len, Ordering::Relaxed);
            self.lose(port);
        }
        fits
    }

    /// Hands over a copy that there was room for.
    pub(super) fn put(&self, copy: Captured) {
        let (port, len) = (copy.port, copy.bytes.len() as u64);
        match self.sender.try_send(copy) {
            // Nobody looks any more; the workers are about to be told.
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => {
                self.shared.bytes.fetch_sub(len, Ordering::Relaxed);
                self.lose(port);
            }
        }
    }

    /// Counts a frame that is not copied.
    pub(super) fn lose(&self, port: usize) {
        if let Some(lost) = self.shared.lost.get(port) {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::BURST;
    use super::super::lanes::Fate;
    use super::super::witness::Witness;
    use super::*;
    use crate::port::TxOutcome;

    const PATIENCE: Duration = Duration::ZERO;

    /// Has the port send the frame in a burst of its own.
    fn send(witness: &mut Witness, probe: &Probe, frame: &Frame) {
        let probes = std::slice::from_ref(probe);
        witness.sent(DpPort(9), probes, [0].into_iter(), &[frame], &[TxOutcome::Sent]);
        witness.finish(&[Fate::Done; BURST + 1]);
    }

    fn begin(snaplen: usize) -> (Witness, Probe, Copies) {
        let (writer, copies) = capture(1, Sight { snaplen, ..Sight::of(Match::any()) }, 4);
        let probe = Probe { port: 3, writer };
        let mut witness = Witness::default();
        witness.look([&probe].into_iter());
        (witness, probe, copies)
    }

    #[test]
    fn a_reader_that_is_too_slow_loses_frames_and_knows_how_many() {
        let (mut witness, probe, copies) = begin(100);
        let frame = Frame::from_bytes(&[7; 200]);
        for _ in 0..DEPTH + 5 {
            send(&mut witness, &probe, &frame);
        }
        assert_eq!(copies.lost().collect::<Vec<_>>(), [0, 0, 0, 5]);
        let first = copies.next(PATIENCE).unwrap();
        assert_eq!((first.port, first.direction, first.len), (3, Direction::Sent, 200));
        assert_eq!((&*first.bytes, &*first.outputs), (&[7; 100][..], &[(DpPort(9), None)][..]));
        assert_eq!(std::iter::from_fn(|| copies.next(PATIENCE)).count(), DEPTH - 1);
        send(&mut witness, &probe, &frame);
        assert!(copies.next(PATIENCE).is_some() && copies.lost().sum::<u64>() == 5, "there is room again");
    }

    #[test]
    fn super_frames_fill_the_queue_by_their_bytes() {
        let (mut witness, probe, copies) = begin(usize::MAX);
        let frame = Frame::from_bytes(&vec![7; 60_000]);
        for _ in 0..1000 {
            send(&mut witness, &probe, &frame);
        }
        let fitting = ROOM / 60_000;
        assert_eq!(copies.lost().sum::<u64>(), 1000 - fitting);
        assert_eq!(std::iter::from_fn(|| copies.next(PATIENCE)).count() as u64, fitting);
    }
}
