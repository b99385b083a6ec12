//! A wire: two ports joined inside the switch, with a delay, losses or a rate on the way.
//!
//! # Why
//! A link of a lab is slow and loses frames. The kernel's netem may not be there, is set per interface and loses what was
//! set before; a wire needs no privilege, no device and no module. What is sent into one end comes out of the other,
//! later and in order, and its offload metadata travels with it.
//!
//! # How a frame crosses
//! Each end has one [`lane`] per worker, and worker N sends into lane N of the other end. So the thread that puts a frame
//! on a lane is the one that takes it off again: like a patch, a wire moves no work between threads, and a conversation
//! stays in order because all its frames take one lane. A lane is a [`line`](super::line): bytes and due times in two
//! rings that grow to what was once under way, and a second one for frames that overtake. Nothing is allocated for a
//! frame, and a wire that never carried any holds no buffers.
//!
//! A lane's lock is there because the borrow checker cannot see that both ends are one thread's. It is taken once a
//! burst, never waited for by a worker that sends and receives as above, and still right when somebody else sends.
//!
//! The descriptor of an end's queue is a timer that is set to when its lane's first frame is due, so an idle worker
//! sleeps until then. Timer and due times are of one clock (`CLOCK_MONOTONIC`): when the timer says so, the frame is due.
//!
//! # Direction
//! What is set on an end ([`WireSettings`]) is for what *it sends*; the other way is set on the other end. Each may be
//! changed while frames are under way; those keep the time they were given, and later ones never overtake them. What
//! happens to frame N of a direction follows from the seed, the names of both ends in that order, and N alone ([`fate`]):
//! equal traffic has equal losses. Times themselves are the machine's and are not reproducible. Keeping order makes frames
//! that are closer together than the jitter wait for one another, so their mean delay is above the one set.
//!
//! # A frame's way, in this order
//! 1. Number: a super-frame is cut into its segments first, and each has a number. With nothing set but delay and jitter
//!    it stays whole and has one.
//! 2. [Rate](transmitter): it waits until those before it are sent, in a queue of frames or of time. What finds that full
//!    is dropped as `queue_full`.
//! 3. Loss: what is lost took its time of the link. It is counted as `link_loss` at the port where it would have arrived.
//! 4. Corruption: a partial checksum is filled in, then one bit behind the Ethernet header is changed.
//! 5. Delay and jitter, in order; a frame that is reordered skips them.
//! 6. Duplication: the second copy comes right behind the first.
//!
//! Besides, at most so many bytes are under way in a direction, whatever for; what comes above that is dropped as
//! `queue_full`, too. A delay of 100 ms at 1 Gbit/s is 12 MB under way.
//!
//! # Joining
//! Each end names the other, as patch ports do; the control side joins those that name each other, whatever came first,
//! and an end without the other is down. A program may also take both ends at once from [`Wire::pair`].
//!
//! - Two switches that are bridges of one data path: one end in each, both trunks.
//! - A host and a switch: the host's TAP and one end in a small bridge of their own, the other end in the switch.
//! - A routed link of two network namespaces: a TAP in each, each in a small bridge with one end. Offloads cross whole:
//!   TAPs take what TAPs gave. Such a bridge of two ports floods from the one to the other by NORMAL; nothing is to be
//!   configured.
//!
//! Without a delay, leave the wire out: a patch, or one bridge with both TAPs, costs less.

mod fate;
mod lane;
mod sending;
mod settings;
mod shape;
mod transmitter;
mod units;

pub use settings::{Queue, WireSettings};
pub use shape::WireCounts;
pub use transmitter::WireQueue;
pub use units::{Percent, parse_time, show_time};

use super::alarm::now;
use super::{Device, Port, PortCaps, PortError, PortKind, PortQueue, TxOutcome, fit};
use arc_swap::ArcSwapOption;
use fate::Course;
use lane::Lane;
use sending::Sending;
use shape::Shape;
use sluice_flows::packet::Frame;
use sluice_flows::{DpPort, DropReason};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// How to make one end of a wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireOptions {
    /// Name of the other end.
    pub peer: String,
    /// MTU in bytes, up to 65,535.
    pub mtu: u32,
    /// What the fates of frames follow from, with the names of both ends.
    pub seed: u64,
    /// Of what this end sends.
    pub settings: WireSettings,
    /// Lanes, at least 1: as many as there are workers.
    pub queues: usize,
}

impl WireOptions {
    /// No delay, MTU 1500, seed 1, one lane.
    pub fn to(peer: &str) -> Self {
        Self { peer: peer.to_owned(), mtu: 1500, seed: 1, settings: WireSettings::default(), queues: 1 }
    }
}

/// One end of a wire.
pub struct Wire {
    device: Device,
    peer: String,
    seed: u64,
    end: Arc<End>,
}

/// What an end's queues share with those of the other end.
struct End {
    /// Its number in the switch.
    number: AtomicU32,
    /// What is on its way to this end, one lane for each worker.
    lanes: Box<[Lane]>,
    under_way: UnderWay,
    /// Of what this end sends.
    shape: Shape,
    /// The other end. Two that are joined hold each other; [`Wire::part`] lets go of both.
    peer: ArcSwapOption<End>,
}

/// Frames and bytes on all lanes of an end.
#[derive(Debug, Default)]
struct UnderWay {
    frames: AtomicU32,
    bytes: AtomicU64,
}

impl Wire {
    /// One end, which is down until it is [joined](Self::join).
    ///
    /// # Errors
    /// The system's, when it has no descriptor left for a timer.
    pub fn new(name: &str, options: &WireOptions) -> Result<Self, PortError> {
        let lane = || Lane::new().map_err(|error| PortError::from_io(name, "make a timer", error));
        let end = End {
            number: AtomicU32::default(),
            lanes: (0..options.queues.max(1)).map(|_| lane()).collect::<Result<_, PortError>>()?,
            under_way: UnderWay::default(),
            shape: Shape::new(Course::new(options.seed, name, &options.peer), &options.settings),
            peer: ArcSwapOption::empty(),
        };
        Ok(Self {
            device: Device::without_link(name, None, options.mtu),
            peer: options.peer.clone(),
            seed: options.seed,
            end: Arc::new(end),
        })
    }

    /// Both ends, joined; each sends as its `options` say, and the peers in them do not count.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn pair(names: [&str; 2], options: [&WireOptions; 2]) -> Result<[Self; 2], PortError> {
        let end = |own: usize, other: usize| {
            Self::new(names[own], &WireOptions { peer: names[other].to_owned(), ..options[own].clone() })
        };
        let ends = [end(0, 1)?, end(1, 0)?];
        ends[0].join(&ends[1]);
        Ok(ends)
    }

    /// Name of the other end.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Joins two ends; frames cross from then on. An end that was joined with a third is parted from it.
    pub fn join(&self, other: &Self) {
        let joined = |a: &Self, b: &Self| a.end.peer.load().as_ref().is_some_and(|peer| Arc::ptr_eq(peer, &b.end));
        if joined(self, other) && joined(other, self) {
            return;
        }
        self.part();
        other.part();
        self.end.peer.store(Some(Arc::clone(&other.end)));
        other.end.peer.store(Some(Arc::clone(&self.end)));
    }

    /// Takes the wire off both its ends. What is under way still arrives.
    pub fn part(&self) {
        let Some(peer) = self.end.peer.swap(None) else { return };
        // Unless it was joined with another meanwhile.
        peer.peer.rcu(|back| back.as_ref().filter(|end| !Arc::ptr_eq(end, &self.end)).cloned());
    }

    /// How it sends now.
    pub fn settings(&self) -> WireSettings {
        self.end.shape.settings()
    }

    /// Changes how it sends; frames under way keep the time they were given.
    pub fn set(&self, settings: &WireSettings) {
        self.end.shape.set(settings);
    }

    /// What became of the frames that it sent.
    pub fn counts(&self) -> WireCounts {
        self.end.shape.counts()
    }

    /// What waits for its turn at the rate.
    pub fn waiting(&self) -> WireQueue {
        self.end.shape.waiting(now())
    }

    /// Frames and bytes that are on their way to the other end.
    pub fn under_way(&self) -> (u32, u64) {
        self.end.peer.load().as_ref().map_or((0, 0), |peer| peer.under_way.read())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.part();
    }
}

impl Port for Wire {
    fn kind(&self) -> PortKind {
        PortKind::Wire
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn link_up(&self) -> bool {
        self.end.peer.load().is_some()
    }

    fn caps(&self) -> PortCaps {
        PortCaps::ALL
    }

    fn joined(&self, number: DpPort) {
        self.end.number.store(number.0, Ordering::Relaxed);
    }

    fn wire(&self) -> Option<&Wire> {
        Some(self)
    }

    fn options(&self) -> Vec<(&'static str, String)> {
        let mut all = vec![("peer", self.peer.clone()), ("seed", self.seed.to_string())];
        all.extend(self.settings().options());
        all
    }

    fn set_options(&self, options: &[(String, String)]) -> Result<(), PortError> {
        let mut settings = self.settings();
        let taken = options.iter().try_for_each(|(option, value)| settings.take(option, value));
        taken.and_then(|()| settings.check()).map_err(|why| PortError::Option { port: self.name().to_owned(), why })?;
        self.set(&settings);
        Ok(())
    }

    fn queues(&self, count: usize) -> Result<Vec<Box<dyn PortQueue>>, PortError> {
        let queue = |index| {
            let (end, mtu) = (Arc::clone(&self.end), self.device.shared_mtu());
            EndQueue { end, mtu, index, scratch: None, lost: 0, worked: false }
        };
        Ok((0..count).map(|index| Box::new(queue(index)) as Box<dyn PortQueue>).collect())
    }
}

impl UnderWay {
    fn read(&self) -> (u32, u64) {
        (self.frames.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Takes room for a frame. Returns whether there was some: the limit is kept, whoever else sends.
    #[inline]
    fn enter(&self, len: u64, most: u64) -> bool {
        self.frames.fetch_add(1, Ordering::Relaxed);
        let bytes = self.bytes.fetch_add(len, Ordering::Relaxed);
        let fits = bytes.saturating_add(len) <= most;
        if !fits {
            self.leave(1, len);
        }
        fits
    }

    fn leave(&self, frames: u32, bytes: u64) {
        self.frames.fetch_sub(frames, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// One worker's queue of an end.
struct EndQueue {
    end: Arc<End>,
    mtu: Arc<AtomicU32>,
    index: usize,
    /// Where segments and changed frames are made; none until one is.
    scratch: Option<Frame>,
    /// Frames that were lost on their way here since the worker asked.
    lost: u32,
    worked: bool,
}

impl PortQueue for EndQueue {
    fn rx_fd(&self) -> Option<BorrowedFd<'_>> {
        self.end.lanes.get(self.index).map(|lane| lane.alarm.as_fd())
    }

    fn rx_burst(&mut self, frames: &mut [Frame]) -> io::Result<usize> {
        let Some(lane) = self.end.lanes.get(self.index) else { return Ok(0) };
        let mut state = lane.lock();
        let lost = state.take_lost();
        self.lost = self.lost.saturating_add(lost);
        self.worked = lost > 0;
        if state.is_empty() {
            lane.wait(&mut state, 0);
            return Ok(0);
        }
        let now = now();
        let (count, bytes) = state.receive(now, frames);
        if count == 0 {
            // Who receives nothing waits for the descriptor.
            lane.wait(&mut state, now);
        } else {
            self.end.under_way.leave(count as u32, bytes);
        }
        Ok(count)
    }

    fn rx_dropped(&mut self) -> Option<(DpPort, DropReason, u32)> {
        let lost = std::mem::take(&mut self.lost);
        (lost > 0).then(|| (DpPort(self.end.number.load(Ordering::Relaxed)), DropReason::LinkLoss, lost))
    }

    fn worked(&self) -> bool {
        self.worked
    }

    fn is_waiting(&self) -> bool {
        self.end.lanes.get(self.index).is_some_and(|lane| !lane.lock().is_empty())
    }

    fn tx_burst(&mut self, frames: &[&Frame], outcomes: &mut [TxOutcome]) {
        let peer = self.end.peer.load();
        let Some(peer) = peer.as_ref() else {
            return outcomes.iter_mut().take(frames.len()).for_each(|o| *o = TxOutcome::Dropped(DropReason::PortDown));
        };
        // There is at least one lane.
        let Some(lane) = peer.lanes.get(self.index % peer.lanes.len().max(1)) else { return };
        let shape = &self.end.shape;
        let (plan, now) = (shape.plan(), now());
        let mut state = lane.lock();
        state.paced = plan.is_paced();
        let mut sending = Sending {
            shape,
            plan: &plan,
            under_way: &peer.under_way,
            lane: &mut state,
            now,
            number: 0,
            counts: WireCounts::default(),
        };
        if plan.plain {
            sending.number = shape.take_numbers(frames.len() as u64);
            fit::send_each(frames, outcomes, &self.mtu, |frame| sending.whole(frame));
        } else {
            fit::send_each(frames, outcomes, &self.mtu, |frame| sending.each(frame, &mut self.scratch));
        }
        shape.count(&sending.counts);
        lane.wake(&mut state, now);
    }
}
