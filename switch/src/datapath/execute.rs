//! Doing what a translation said to a frame of the burst, and sending what came of it.
//!
//! An output only notes the frame's number in the port's list; frames are sent together at the end of the burst. So a
//! rewrite behind an output must not touch what is waiting: it goes on with a copy. A flood of N ports with nothing
//! rewritten in between copies nothing.
//!
//! Frames `0..BURST` are those received, the others are for copies. When copies run out, everything waiting is sent
//! and they are free again.

use super::BURST;
use super::punt::{Budget, Punts};
use crate::port::{PortQueue, TxOutcome};
use crate::stats::{PortCells, PortCounters, WorkerCells};
use sluice_flows::datapath::DpAction;
use sluice_flows::packet::{Frame, Layers, MAX_FRAME_LEN, rewrite};
use sluice_flows::rule::Millis;
use sluice_flows::{DpPort, DropReason};
use std::sync::Arc;

/// Frames for copies.
const COPIES: usize = 64;
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
}

/// One worker's side of all ports, by number.
pub(super) struct Lanes {
    lanes: Vec<Option<Lane>>,
    /// Ports whose list is not empty.
    waiting: Vec<DpPort>,
    worker: usize,
}

impl Lanes {
    pub(super) fn new(worker: usize) -> Self {
        Self { lanes: Vec::new(), waiting: Vec::new(), worker }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, port: DpPort) -> Option<&mut Lane> {
        self.lanes.get_mut(port.0 as usize)?.as_mut()
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
        self.lanes[index] = Some(Lane { queue, counters, list, armed: false, hot: false, empty_wakes: 0 });
        // Room for every port, so that a burst never allocates.
        self.waiting.reserve(self.lanes.len());
    }

    pub(super) fn remove(&mut self, port: DpPort) -> Option<Lane> {
        self.lanes.get_mut(port.0 as usize)?.take()
    }

    /// Puts a frame into the list of `port`. False when there is no such port.
    #[inline]
    fn queue(&mut self, port: DpPort, frame: usize, origin: usize, frames: &[Frame], fates: &mut [Fate]) -> bool {
        let Some(lane) = self.lanes.get_mut(port.0 as usize).and_then(Option::as_mut) else { return false };
        if lane.queue.is_none() {
            return false;
        }
        if lane.list.is_empty() {
            self.waiting.push(port);
        } else if lane.list.len() == LIST {
            lane.send(frames, fates, self.worker);
        }
        lane.list.push(Queued { frame: frame as u16, origin: origin as u16 });
        true
    }

    /// Sends everything that waits.
    #[inline]
    fn flush(&mut self, frames: &[Frame], fates: &mut [Fate]) {
        for port in self.waiting.drain(..) {
            if let Some(Some(lane)) = self.lanes.get_mut(port.0 as usize) {
                lane.send(frames, fates, self.worker);
            }
        }
    }
}

impl Lane {
    /// Sends its list and notes what became of each frame.
    fn send(&mut self, frames: &[Frame], fates: &mut [Fate], worker: usize) {
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
            for ((queued, frame), outcome) in chunk.iter().zip(refs).zip(outcomes) {
                let fate = &mut fates[usize::from(queued.origin)];
                match *outcome {
                    TxOutcome::Sent => {
                        packets += 1;
                        bytes += frame.len() as u64;
                        *fate = Fate::Done;
                    }
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
    fn lose(&mut self, reason: DropReason) {
        if *self == Self::Waiting {
            *self = Self::Lost(reason);
        }
    }
}

/// Where packets for the controllers go.
pub(super) struct PuntTo<'a> {
    pub(super) punts: &'a Punts,
    pub(super) cells: &'a WorkerCells,
    pub(super) now: Millis,
}

/// The frames of a burst on their way out.
pub(super) struct Egress {
    pub(super) lanes: Lanes,
    /// Those received, then copies.
    pub(super) frames: Vec<Frame>,
    pub(super) fates: [Fate; BURST],
    next_copy: usize,
    pub(super) budget: Budget,
}

impl Egress {
    pub(super) fn new(worker: usize, budget: Budget) -> Self {
        Self {
            lanes: Lanes::new(worker),
            frames: (0..BURST + COPIES).map(|_| Frame::with_capacity(MAX_FRAME_LEN)).collect(),
            fates: [Fate::Waiting; BURST],
            next_copy: BURST,
            budget,
        }
    }

    /// Sends frame `index` as it is to `port`, at the end of the burst.
    #[inline]
    pub(super) fn output(&mut self, port: DpPort, index: usize) {
        self.output_as(port, index, index);
    }

    #[inline]
    fn output_as(&mut self, port: DpPort, frame: usize, origin: usize) {
        if !self.lanes.queue(port, frame, origin, &self.frames, &mut self.fates) {
            self.fates[origin].lose(DropReason::NoPort);
        }
    }

    /// Works through a list of actions with the received frame `origin`.
    pub(super) fn run(&mut self, actions: &[DpAction], origin: usize, mut layers: Layers, to: &PuntTo<'_>) {
        let mut current = origin;
        let mut waiting = false;
        for action in actions {
            match action {
                DpAction::Output(port) => {
                    self.output_as(*port, current, origin);
                    waiting = true;
                }
                DpAction::Controller(about) => {
                    let taken = self.budget.take(to.now) && to.punts.hand_over(about, &self.frames[current]);
                    let fate = &mut self.fates[origin];
                    if !taken {
                        to.cells.packet_ins_lost.add(1);
                        fate.lose(DropReason::Overload);
                    } else if !matches!(fate, Fate::Dropped(_)) {
                        *fate = Fate::Done;
                    }
                }
                rewrite => {
                    if waiting {
                        current = self.copy(current);
                        waiting = false;
                    }
                    change(rewrite, &mut self.frames[current], &mut layers);
                }
            }
        }
    }

    /// Sends everything that waits. Copies are free again.
    #[inline]
    pub(super) fn flush(&mut self) {
        self.lanes.flush(&self.frames, &mut self.fates);
        self.next_copy = BURST;
    }

    /// A frame like `index` that nothing waits for, to go on with.
    fn copy(&mut self, index: usize) -> usize {
        if self.next_copy == self.frames.len() {
            self.flush();
            if index < BURST {
                return index;
            }
            // It is a copy itself: it keeps its bytes by taking the first copy's place.
            self.frames.swap(index, BURST);
            self.next_copy = BURST + 1;
            return BURST;
        }
        let (front, back) = self.frames.split_at_mut(self.next_copy);
        back[0].clone_from_frame(&front[index]);
        self.next_copy += 1;
        self.next_copy - 1
    }
}

/// Applies one rewrite. A header that is not there is left alone, as OVS does.
fn change(action: &DpAction, frame: &mut Frame, layers: &mut Layers) {
    match action {
        DpAction::Set(changes) => {
            for c in changes {
                rewrite::set_field(frame, layers, c.field, c.value, c.mask);
            }
        }
        DpAction::PushVlan { tpid, tci } => _ = rewrite::push_vlan(frame, layers, *tpid, *tci),
        DpAction::PopVlan => _ = rewrite::pop_vlan(frame, layers),
        _ => {}
    }
}
