//! One worker's queue of a limited port, wrapped around the device's.

use super::Shaper;
use super::backlog::{Backlog, bits_of};
use super::bucket::Bucket;
use crate::port::alarm::{Alarm, now};
use crate::port::{PortQueue, TxOutcome, fit};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use sluice_flows::packet::segment::Segmenter;
use sluice_flows::packet::{Frame, GsoKind, MAX_FRAME_LEN};
use sluice_flows::{DpPort, DropReason};
use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Frames that leave a backlog together.
const BATCH: usize = 32;
/// Batches that leave before the worker looks at its other ports.
const BATCHES: usize = 8;

thread_local! {
    /// Where frames are put for the device to send, and segments on their way into a backlog: a worker's, for all its
    /// queues, since such frames have room for the longest.
    static SCRATCH: Cell<Option<Box<[Frame]>>> = const { Cell::new(None) };
}

/// What a worker's queue is wrapped with.
#[derive(Debug)]
pub(crate) struct Shaping {
    shaper: Arc<Shaper>,
    worker: usize,
    /// Readable when the device's queue is, and when it is time.
    ready: Epoll,
    alarm: Alarm,
}

impl Shaping {
    pub(super) fn new(shaper: Arc<Shaper>, worker: usize) -> io::Result<Self> {
        let ready = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let alarm = Alarm::new()?;
        ready.add(&alarm, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        Ok(Self { shaper, worker, ready, alarm })
    }
}

/// A queue that holds back what there are no tokens for.
pub(crate) struct Shaped {
    /// `None` once it has been given back.
    inner: Option<Box<dyn PortQueue>>,
    shaping: Shaping,
    /// What the alarm is set to.
    set: Option<u64>,
    rx: Backlog,
    tx: Backlog,
    /// Received frames that were dropped since the worker asked.
    rx_lost: u32,
    worked: bool,
}

impl Shaped {
    /// Wraps `inner`.
    ///
    /// # Errors
    /// The system's, when it cannot watch the descriptor of `inner`, which is given back.
    pub(crate) fn wrap(
        inner: Box<dyn PortQueue>,
        shaping: Shaping,
    ) -> Result<Box<dyn PortQueue>, (Box<dyn PortQueue>, io::Error)> {
        let watched = match inner.rx_fd() {
            Some(fd) => shaping.ready.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, 1)),
            None => Ok(()),
        };
        match watched {
            Ok(()) => Ok(Box::new(Self::new(inner, shaping))),
            Err(errno) => Err((inner, errno.into())),
        }
    }

    pub(super) fn new(inner: Box<dyn PortQueue>, shaping: Shaping) -> Self {
        let (rx, tx) = (Backlog::default(), Backlog::default());
        Self { inner: Some(inner), shaping, set: None, rx, tx, rx_lost: 0, worked: false }
    }

    /// Receives at `now`: what waited and may come, then what the device has.
    pub(super) fn receive(&mut self, now: u64, frames: &mut [Frame]) -> io::Result<usize> {
        self.worked = self.drain(now);
        let shaper = Arc::clone(&self.shaping.shaper);
        let mut count = self.release(now, frames, 0, &shaper.rx);
        let Some(inner) = &mut self.inner else { return Ok(count) };
        let room = &mut frames[count..];
        let received = match inner.rx_burst(room) {
            Ok(received) => received.min(room.len()),
            // The next call meets the error again.
            Err(_) if count > 0 => 0,
            Err(error) => return Err(error),
        };
        self.worked |= received > 0;
        if !shaper.rx.is_limited() && self.rx.is_empty() {
            return Ok(count + received);
        }
        let came = count..count + received;
        for i in came {
            let bits = bits_of(&frames[i]);
            let whole = frames[i].offload.gso == GsoKind::None || !shaper.rx.is_long(bits);
            if self.rx.is_empty() && whole && shaper.rx.take(bits, now) {
                // Those in between were dropped.
                frames.swap(count, i);
                count += 1;
            } else {
                self.hold_received(&frames[i], whole, &shaper);
            }
        }
        Ok(self.release(now, frames, count, &shaper.rx))
    }

    /// Puts frames that waited behind the first `count` of `frames`. Returns how many there are then.
    fn release(&mut self, now: u64, frames: &mut [Frame], mut count: usize, bucket: &Bucket) -> usize {
        while let Some(frame) = frames.get_mut(count)
            && self.rx.pop(frame, bucket, now)
        {
            count += 1;
        }
        count
    }

    fn hold_received(&mut self, frame: &Frame, whole: bool, shaper: &Shaper) {
        let lost = hold(frame, whole, &mut self.rx, &shaper.rx);
        if lost.frames == 0 {
            return;
        }
        self.rx_lost = self.rx_lost.saturating_add(lost.frames);
        if let Some(cells) = shaper.counters.cells(self.shaping.worker) {
            cells.rx_packets.add(lost.frames.into());
            cells.rx_bytes.add(lost.bytes);
            cells.rx_dropped.add(lost.frames.into());
        }
    }

    /// Sends at `now`: what waited first.
    pub(super) fn send(&mut self, now: u64, frames: &[&Frame], outcomes: &mut [TxOutcome]) {
        self.drain(now);
        let Some(inner) = &mut self.inner else {
            return outcomes.iter_mut().take(frames.len()).for_each(|o| *o = TxOutcome::Dropped(DropReason::PortDown));
        };
        let shaper = &*self.shaping.shaper;
        let count = frames.len().min(outcomes.len());
        let (frames, outcomes) = (&frames[..count], &mut outcomes[..count]);
        let may_go = |frame: &&&Frame| {
            let bits = bits_of(frame);
            (frame.offload.gso == GsoKind::None || !shaper.tx.is_long(bits)) && shaper.tx.take(bits, now)
        };
        let at_once = if !self.tx.is_empty() {
            0
        } else if shaper.tx.is_limited() {
            frames.iter().take_while(may_go).count()
        } else {
            count
        };
        if at_once > 0 {
            inner.tx_burst(&frames[..at_once], &mut outcomes[..at_once]);
        }
        if at_once == count {
            return;
        }
        let mtu = shaper.mtu.load(Ordering::Relaxed);
        for (frame, outcome) in frames.iter().zip(outcomes).skip(at_once) {
            let whole = frame.offload.gso == GsoKind::None || !shaper.tx.is_long(bits_of(frame));
            *outcome = if fit::too_long(frame, mtu) {
                TxOutcome::Dropped(DropReason::MtuExceeded)
            } else if hold(frame, whole, &mut self.tx, &shaper.tx).frames == 0 {
                TxOutcome::Held
            } else {
                TxOutcome::Dropped(DropReason::QueueFull)
            };
        }
        // Of a super-frame that was cut, some may go at once.
        self.drain(now);
        if let Some(due) = self.due(false).filter(|due| self.set.is_none_or(|set| *due < set)) {
            self.shaping.alarm.set(&mut self.set, Some(due));
        }
    }

    /// Sends what waited and may go now, some batches of it. Returns whether there was some.
    fn drain(&mut self, now: u64) -> bool {
        let mut batches = 0;
        while batches < BATCHES && self.send_batch(now) {
            batches += 1;
        }
        batches > 0
    }

    /// Sends a batch of what waited and may go now. Returns whether there was some.
    fn send_batch(&mut self, now: u64) -> bool {
        let Some(inner) = self.inner.as_mut().filter(|_| !self.tx.is_empty()) else { return false };
        let Shaper { tx: bucket, counters, .. } = &*self.shaping.shaper;
        with_scratch(|scratch| {
            let mut count = 0;
            while let Some(frame) = scratch.get_mut(count)
                && self.tx.pop(frame, bucket, now)
            {
                count += 1;
            }
            let Some(first) = scratch.first().filter(|_| count > 0) else { return false };
            let mut refs = [first; BATCH];
            for (place, frame) in refs.iter_mut().zip(&*scratch) {
                *place = frame;
            }
            let mut outcomes = [TxOutcome::Sent; BATCH];
            let (refs, outcomes) = (&refs[..count], &mut outcomes[..count]);
            inner.tx_burst(refs, outcomes);
            let Some(cells) = counters.cells(self.shaping.worker) else { return true };
            for (frame, outcome) in refs.iter().zip(outcomes) {
                match *outcome {
                    TxOutcome::Sent | TxOutcome::Held => {
                        cells.tx_packets.add(1);
                        cells.tx_bytes.add(frame.len() as u64);
                    }
                    TxOutcome::Dropped(DropReason::QueueFull) => cells.tx_dropped.add(1),
                    TxOutcome::Dropped(_) => cells.tx_errors.add(1),
                }
            }
            true
        })
    }

    /// When to look again whether frames that wait may leave. `beaten`: it was time, and another worker was quicker.
    pub(super) fn due(&self, beaten: bool) -> Option<u64> {
        let Shaper { rx, tx, .. } = &*self.shaping.shaper;
        let due = |backlog: &Backlog, bucket: &Bucket| (!backlog.is_empty()).then(|| bucket.due(beaten));
        due(&self.rx, rx).into_iter().chain(due(&self.tx, tx)).min()
    }
}

/// What there was no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lost {
    frames: u32,
    bytes: u64,
}

/// Has a copy of the frame wait, in segments unless it is to stay `whole`, as far as there is room. Returns what is lost.
fn hold(frame: &Frame, whole: bool, backlog: &mut Backlog, bucket: &Bucket) -> Lost {
    let len = frame.len() as u64;
    // What cannot be cut is for the output to refuse.
    let Some(mut segments) = (!whole).then(|| Segmenter::new(frame).ok()).flatten() else {
        let fits = backlog.push(frame, bucket);
        return if fits { Lost::default() } else { Lost { frames: 1, bytes: len } };
    };
    with_scratch(|scratch| {
        let Some(segment) = scratch.first_mut() else { return Lost { frames: 1, bytes: len } };
        let (all, mut held, mut payload) = (segments.segments(), 0, 0);
        while matches!(segments.next_into(segment), Ok(true)) {
            if !backlog.push(segment, bucket) {
                return Lost { frames: (all - held) as u32, bytes: len.saturating_sub(payload) };
            }
            held += 1;
            payload += segment.len().saturating_sub(segments.headers_len()) as u64;
        }
        Lost::default()
    })
}

/// Lends the worker's scratch frames.
fn with_scratch<T>(work: impl FnOnce(&mut [Frame]) -> T) -> T {
    let make = || (0..BATCH).map(|_| Frame::with_capacity(MAX_FRAME_LEN)).collect();
    let mut scratch = SCRATCH.take().unwrap_or_else(make);
    let done = work(&mut scratch);
    SCRATCH.set(Some(scratch));
    done
}

impl PortQueue for Shaped {
    fn rx_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.shaping.ready.0.as_fd())
    }

    fn rx_burst(&mut self, frames: &mut [Frame]) -> io::Result<usize> {
        let now = now();
        let count = self.receive(now, frames)?;
        if count == 0 {
            // Who receives nothing waits for the descriptor.
            let beaten = !self.worked && self.set.is_some_and(|set| set <= now);
            let due = self.due(beaten);
            self.worked |= due.is_some();
            self.shaping.alarm.set(&mut self.set, due);
        }
        Ok(count)
    }

    fn ingress(&self) -> Option<DpPort> {
        self.inner.as_ref()?.ingress()
    }

    fn rx_dropped(&mut self) -> Option<(DpPort, DropReason, u32)> {
        if self.rx_lost > 0 {
            return Some((self.shaping.shaper.port, DropReason::QueueFull, std::mem::take(&mut self.rx_lost)));
        }
        self.inner.as_mut()?.rx_dropped()
    }

    fn worked(&self) -> bool {
        self.worked
    }

    fn tx_burst(&mut self, frames: &[&Frame], outcomes: &mut [TxOutcome]) {
        self.send(now(), frames, outcomes);
    }

    fn is_waiting(&self) -> bool {
        !self.rx.is_empty() || !self.tx.is_empty()
    }

    fn take_inner(&mut self) -> Option<Box<dyn PortQueue>> {
        let inner = self.inner.take()?;
        if let Some(fd) = inner.rx_fd() {
            // It was added, so there is nothing that could fail.
            _ = self.shaping.ready.delete(fd);
        }
        Some(inner)
    }
}
