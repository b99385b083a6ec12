//! One worker's side of the ports: for each, the frames that wait for it and its counters.
//!
//! An output only notes the frame's number in the port's list; frames are sent together at the end of the burst, or
//! when a list is full.

use super::BURST;
use super::capture::Probe;
use super::witness::Witness;
use crate::port::{PortQueue, TxOutcome};
use crate::stats::{PortCells, PortCounters};
use sluice_flows::packet::Frame;
use sluice_flows::{DpPort, DropReason};
use std::sync::Arc;

/// Frames that wait for one port; the next one sends them first.
const LIST: usize = 64;

/// What became of a received frame so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is to go out, and has not yet.
    Waiting,
    /// It, or a copy, left or was handed over.
    Done,
    /// Nothing of it left so far, for this reason.
    Lost(DropReason),
    /// The verdict was to drop it.
    Dropped(DropReason),
    /// It waits for the rest of its datagram. Set when the burst is counted, and not before: what leaves meanwhile is
    /// of no account.
    Held,
}

/// A frame in a port's list.
#[derive(Clone, Copy, Debug)]
struct Queued {
    frame: u16,
    /// The received frame that it is or is a copy of.
    origin: u16,
}

/// One worker's side of a port.
pub(super) struct Lane {
    /// `None` for a patch port, which no frame is sent to.
    pub(super) queue: Option<Box<dyn PortQueue>>,
    counters: Arc<PortCounters>,
    list: Vec<Queued>,
    /// Its queue is watched: the port is in the worker's model.
    pub(super) armed: bool,
    /// It gave frames, or may have some: it is polled without being asked for.
    pub(super) hot: bool,
    /// Times it was reported as readable and gave nothing, since it last gave something.
    pub(super) empty_wakes: u32,
    /// Who sees copies of what crosses it.
    pub(super) probes: Vec<Probe>,
}

/// One worker's side of all ports, by number.
pub(super) struct Lanes {
    lanes: Vec<Option<Lane>>,
    /// Ports whose list is not empty.
    waiting: Vec<DpPort>,
    worker: usize,
    /// What captures are told of the burst.
    pub(super) witness: Witness,
}

impl Lanes {
    pub(super) fn new(worker: usize) -> Self {
        Self { lanes: Vec::new(), waiting: Vec::new(), worker, witness: Witness::default() }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, port: DpPort) -> Option<&mut Lane> {
        self.lanes.get_mut(port.0 as usize)?.as_mut()
    }

    /// The worker's number.
    pub(super) fn worker(&self) -> usize {
        self.worker
    }

    /// This worker's counters of a port.
    #[inline]
    pub(super) fn cells(&self, port: DpPort) -> Option<&PortCells> {
        self.lanes.get(port.0 as usize)?.as_ref()?.counters.cells(self.worker)
    }

    pub(super) fn insert(&mut self, port: DpPort, queue: Option<Box<dyn PortQueue>>, counters: Arc<PortCounters>) {
        let index = port.0 as usize;
        if self.lanes.len() <= index {
            self.lanes.resize_with(index + 1, || None);
        }
        let list = Vec::with_capacity(LIST);
        self.lanes[index] =
            Some(Lane { queue, counters, list, armed: false, hot: false, empty_wakes: 0, probes: Vec::new() });
        // Room for every port, so that a burst never allocates.
        self.waiting.reserve(self.lanes.len());
        self.look();
    }

    pub(super) fn remove(&mut self, port: DpPort) -> Option<Lane> {
        let lane = self.lanes.get_mut(port.0 as usize)?.take();
        self.look();
        lane
    }

    /// Whether frames wait in queues for their turn.
    pub(super) fn has_waiting(&self) -> bool {
        let mut queues = self.lanes.iter().flatten().filter_map(|lane| lane.queue.as_ref());
        queues.any(|queue| queue.is_waiting())
    }

    /// Has the witness know of all captures.
    fn look(&mut self) {
        self.witness.look(self.lanes.iter().flatten().flat_map(|lane| &lane.probes));
    }

    /// Shows captures what `port` has received.
    #[cold]
    pub(super) fn received(&mut self, port: DpPort, frames: &[Frame]) {
        if let Some(Some(lane)) = self.lanes.get(port.0 as usize) {
            self.witness.received(&lane.probes, frames);
        }
    }

    /// Has a capture see what crosses `port`.
    pub(super) fn add_probe(&mut self, port: DpPort, probe: Probe) {
        if let Some(lane) = self.get_mut(port) {
            lane.probes.push(probe);
        }
        self.look();
    }

    /// Ends a capture at all ports.
    pub(super) fn remove_probes(&mut self, id: u64) {
        for lane in self.lanes.iter_mut().flatten() {
            lane.probes.retain(|probe| probe.writer.id != id);
        }
        self.look();
    }

    /// Puts a frame into the list of `port`. False when there is no such port.
    #[inline]
    pub(super) fn queue(
        &mut self,
        port: DpPort,
        frame: usize,
        origin: usize,
        frames: &[Frame],
        fates: &mut [Fate],
    ) -> bool {
        let Some(lane) = self.lanes.get_mut(port.0 as usize).and_then(Option::as_mut) else { return false };
        if lane.queue.is_none() {
            return false;
        }
        if lane.list.is_empty() {
            self.waiting.push(port);
        } else if lane.list.len() == LIST {
            lane.send(port, frames, fates, (self.worker, &mut self.witness));
        }
        lane.list.push(Queued { frame: frame as u16, origin: origin as u16 });
        true
    }

    /// Sends everything that waits.
    #[inline]
    pub(super) fn flush(&mut self, frames: &[Frame], fates: &mut [Fate]) {
        for port in self.waiting.drain(..) {
            if let Some(Some(lane)) = self.lanes.get_mut(port.0 as usize) {
                lane.send(port, frames, fates, (self.worker, &mut self.witness));
            }
        }
    }
}

impl Lane {
    /// Sends its list and notes what became of each frame.
    fn send(&mut self, port: DpPort, frames: &[Frame], fates: &mut [Fate], (worker, witness): (usize, &mut Witness)) {
        let (Some(queue), Some(first), Some(cells)) = (&mut self.queue, frames.first(), self.counters.cells(worker))
        else {
            return self.list.clear();
        };
        let (mut packets, mut bytes) = (0, 0);
        for chunk in self.list.chunks(BURST) {
            let mut refs = [first; BURST];
            for (place, queued) in refs.iter_mut().zip(chunk) {
                *place = &frames[usize::from(queued.frame)];
            }
            let mut outcomes = [TxOutcome::Sent; BURST];
            let (refs, outcomes) = (&refs[..chunk.len()], &mut outcomes[..chunk.len()]);
            queue.tx_burst(refs, outcomes);
            if witness.is_on() {
                let origins = chunk.iter().map(|queued| queued.origin.into());
                witness.sent(port, &self.probes, origins, refs, outcomes);
            }
            for ((queued, frame), outcome) in chunk.iter().zip(refs).zip(outcomes) {
                let fate = &mut fates[usize::from(queued.origin)];
                match *outcome {
                    TxOutcome::Sent => {
                        packets += 1;
                        bytes += frame.len() as u64;
                        *fate = Fate::Done;
                    }
                    TxOutcome::Held => *fate = Fate::Done,
                    TxOutcome::Dropped(reason) => {
                        let counter =
                            if reason == DropReason::QueueFull { &cells.tx_dropped } else { &cells.tx_errors };
                        counter.add(1);
                        fate.lose(reason);
                    }
                }
            }
        }
        cells.tx_packets.add(packets);
        cells.tx_bytes.add(bytes);
        self.list.clear();
    }
}

impl Fate {
    /// One way out failed; the first failure counts if nothing leaves.
    pub(super) fn lose(&mut self, reason: DropReason) {
        if *self == Self::Waiting {
            *self = Self::Lost(reason);
        }
    }
}
