//! A wire: two ports joined inside the switch, with a delay on the way.
//!
//! # Why
//! A link of a lab has a delay. The kernel's netem may not be there, is set per interface and loses what was set before;
//! a wire needs no privilege, no device and no module. What is sent into one end comes out of the other, later, in order
//! and whole: a super-frame stays one, and its offload metadata travels with it.
//!
//! # How a frame crosses
//! Each end has one *lane* per worker, and worker N sends into lane N of the other end. So the thread that puts a frame
//! on a lane is the one that takes it off again: like a patch, a wire moves no work between threads, and a conversation
//! stays in order because all its frames take one lane. A lane is a [`line`](super::line): bytes and due times in two rings that grow
//! to what was once under way. Nothing is allocated for a frame, and a wire that never carried any holds no buffers.
//!
//! A lane's lock is there because the borrow checker cannot see that both ends are one thread's. It is taken once a
//! burst, never waited for by a worker that sends and receives as above, and still right when somebody else sends.
//!
//! The descriptor of an end's queue is a timer that is set to when its lane's first frame is due, so an idle worker
//! sleeps until then. Timer and due times are of one clock (`CLOCK_MONOTONIC`): when the timer says so, the frame is due.
//!
//! # Direction
//! What is set on an end (delay, jitter, limit) is for what *it sends*; the other way is set on the other end. Each
//! may be changed while frames are under way; those keep the time they were given, and later ones never overtake them.
//! Jitter of frame N of a direction follows from the seed, the names of both ends in that order, and N alone: equal
//! traffic has equal jitter. Times themselves are the machine's and are not reproducible. Keeping order makes frames
//! that are closer together than the jitter wait for one another, so their mean delay is above the one set.
//!
//! # Limit
//! At most so many frames and bytes are under way in a direction; what comes above it is dropped as `queue_full`. A
//! delay of 100 ms at 1 Gbit/s is 12 MB under way: the limit is part of the link, not of the machine.
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

mod settings;

pub use settings::{WireSettings, parse_time, show_time};

use super::alarm::{Alarm, now};
use super::line::Line;
use super::{Device, Port, PortCaps, PortError, PortKind, PortQueue, TxOutcome, fit};
use arc_swap::ArcSwapOption;
use settings::{Course, Shape};
use sluice_flows::DropReason;
use sluice_flows::packet::{Frame, MAX_FRAME_LEN};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How to make one end of a wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireOptions {
    /// Name of the other end.
    pub peer: String,
    /// MTU in bytes, up to 65,535.
    pub mtu: u32,
    /// What the jitter's draws follow from, with the names of both ends.
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

struct Lane {
    /// Set to when the first frame is due, as soon as a receiver came for nothing.
    alarm: Alarm,
    state: Mutex<LaneState>,
}

#[derive(Default)]
struct LaneState {
    line: Line,
    /// What the timer is set to; it stays readable from then on until it is set anew.
    set: Option<u64>,
}

impl Wire {
    /// One end, which is down until it is [joined](Self::join).
    ///
    /// # Errors
    /// The system's, when it has no descriptor left for a timer.
    pub fn new(name: &str, options: &WireOptions) -> Result<Self, PortError> {
        let lane = || {
            let alarm = Alarm::new().map_err(|error| PortError::from_io(name, "make a timer", error))?;
            Ok(Lane { alarm, state: Mutex::default() })
        };
        let end = End {
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
        for (option, value) in options {
            settings.take(option, value).map_err(|why| PortError::Option { port: self.name().to_owned(), why })?;
        }
        self.set(&settings);
        Ok(())
    }

    fn queues(&self, count: usize) -> Result<Vec<Box<dyn PortQueue>>, PortError> {
        let queue = |index| WireQueue { end: Arc::clone(&self.end), mtu: self.device.shared_mtu(), index };
        Ok((0..count).map(|index| Box::new(queue(index)) as Box<dyn PortQueue>).collect())
    }
}

impl UnderWay {
    fn read(&self) -> (u32, u64) {
        (self.frames.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Takes room for a frame. Returns whether there was some: both limits are kept, whoever else sends.
    fn enter(&self, len: u64, (most_frames, most_bytes): (u32, u64)) -> bool {
        let frames = self.frames.fetch_add(1, Ordering::Relaxed);
        let bytes = self.bytes.fetch_add(len, Ordering::Relaxed);
        let fits = frames < most_frames && bytes.saturating_add(len) <= most_bytes;
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

impl Lane {
    fn lock(&self) -> MutexGuard<'_, LaneState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the descriptor readable at `due`, or not at all.
    fn set(&self, state: &mut LaneState, due: Option<u64>) {
        self.alarm.set(&mut state.set, due);
    }
}

/// One worker's queue of an end.
struct WireQueue {
    end: Arc<End>,
    mtu: Arc<AtomicU32>,
    index: usize,
}

impl PortQueue for WireQueue {
    fn rx_fd(&self) -> Option<BorrowedFd<'_>> {
        self.end.lanes.get(self.index).map(|lane| lane.alarm.as_fd())
    }

    fn rx_burst(&mut self, frames: &mut [Frame]) -> io::Result<usize> {
        let Some(lane) = self.end.lanes.get(self.index) else { return Ok(0) };
        let mut state = lane.lock();
        if state.line.is_empty() {
            lane.set(&mut state, None);
            return Ok(0);
        }
        let now = now();
        let (mut count, mut bytes) = (0, 0);
        while let Some(frame) = frames.get_mut(count)
            && let Some(len) = state.line.pop(now, frame)
        {
            count += 1;
            bytes += u64::from(len);
        }
        if count == 0 {
            // Who receives nothing waits for the descriptor.
            let due = state.line.due();
            lane.set(&mut state, due);
        } else {
            self.end.under_way.leave(count as u32, bytes);
        }
        Ok(count)
    }

    fn tx_burst(&mut self, frames: &[&Frame], outcomes: &mut [TxOutcome]) {
        let peer = self.end.peer.load();
        let Some(peer) = peer.as_ref() else {
            return outcomes.iter_mut().take(frames.len()).for_each(|o| *o = TxOutcome::Dropped(DropReason::PortDown));
        };
        // There is at least one lane.
        let Some(lane) = peer.lanes.get(self.index % peer.lanes.len().max(1)) else { return };
        let mut shape = self.end.shape.begin(now(), frames.len() as u64);
        let mut state = lane.lock();
        fit::send_each(frames, outcomes, &self.mtu, |frame| {
            let due = shape.next_due();
            if frame.len() > MAX_FRAME_LEN {
                return TxOutcome::Dropped(DropReason::MtuExceeded);
            }
            let len = frame.len() as u64;
            if !peer.under_way.enter(len, shape.limit) {
                return TxOutcome::Dropped(DropReason::QueueFull);
            }
            state.line.push(frame, due);
            TxOutcome::Sent
        });
        if state.set.is_none() {
            let due = state.line.due();
            lane.set(&mut state, due);
        }
    }
}
