//! Frames on their way from the worker that received them to the one that does the rest.
//!
//! Each worker has a ring to each other one for batches of frames, and a ring by which the batches come back when all of their
//! frames are done. A frame is swapped into a batch and out of it, and its bytes stay where they are; so a batch always has as
//! many buffers as it was made with, and nothing is allocated but the first time that two workers have to do with each other.
//!
//! A batch that is back is done: whatever its frames were sent to has them. By that the sender knows when nothing is under way.

use super::BURST;
use super::poll::Wake;
use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use sluice_flows::DpPort;
use sluice_flows::packet::{Frame, MAX_FRAME_LEN};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Batches that one worker has for another: a worker that is woken meanwhile has had time to look.
const BATCHES: usize = 16;

/// Frames of one burst for one worker.
pub(super) struct Batch {
    /// Buffers for a whole burst.
    frames: Vec<Frame>,
    /// How many of them are frames. A batch without any asks whether frames wait.
    count: usize,
    /// The port that they came in by.
    ingress: DpPort,
    /// The answer: in queues of the worker that it was sent to, frames wait for their turn.
    pub(super) waits: bool,
}

impl Batch {
    fn new() -> Self {
        let frames = (0..BURST).map(|_| Frame::with_capacity(MAX_FRAME_LEN)).collect();
        Self { frames, count: 0, ingress: DpPort(0), waits: false }
    }

    /// The port that its frames came in by.
    pub(super) fn ingress(&self) -> DpPort {
        self.ingress
    }

    /// Swaps its frames with the first of `frames`. Returns how many they are.
    pub(super) fn take(&mut self, frames: &mut [Frame]) -> usize {
        for (theirs, ours) in self.frames.iter_mut().zip(frames).take(self.count) {
            std::mem::swap(theirs, ours);
        }
        self.count
    }

    /// Whether it only asks.
    pub(super) fn is_question(&self) -> bool {
        self.count == 0
    }
}

/// From one worker to another.
struct Way {
    there: ArrayQueue<Box<Batch>>,
    back: ArrayQueue<Box<Batch>>,
}

/// How a worker is woken.
#[derive(Default)]
struct Sleeper {
    asleep: AtomicBool,
    wake: OnceLock<Wake>,
}

/// The ways between all workers.
pub(crate) struct Handover {
    workers: usize,
    /// From worker `a` to worker `b` at `a * workers + b`.
    ways: Box<[Way]>,
    sleepers: Box<[CachePadded<Sleeper>]>,
}

impl Handover {
    pub(crate) fn new(workers: usize) -> Self {
        let way = |_| Way { there: ArrayQueue::new(BATCHES), back: ArrayQueue::new(BATCHES) };
        let ways = if workers > 1 { (0..workers * workers).map(way).collect() } else { Box::default() };
        Self { workers, ways, sleepers: (0..workers).map(|_| CachePadded::default()).collect() }
    }

    /// Number of workers.
    pub(super) fn workers(&self) -> usize {
        self.workers
    }

    /// How `worker` is woken from now on.
    pub(super) fn wake_by(&self, worker: usize, wake: Wake) {
        if let Some(sleeper) = self.sleepers.get(worker) {
            // A worker is started once.
            _ = sleeper.wake.set(wake);
        }
    }

    fn way(&self, from: usize, to: usize) -> Option<&Way> {
        self.ways.get(from * self.workers + to)
    }

    /// The next batch that worker `from` has for worker `to`.
    #[inline]
    pub(super) fn take(&self, from: usize, to: usize) -> Option<Box<Batch>> {
        self.way(from, to)?.there.pop()
    }

    /// Gives a batch from `from` back, whose frames worker `to` has done all there is to do with.
    pub(super) fn give_back(&self, from: usize, to: usize, batch: Box<Batch>) {
        if let Some(way) = self.way(from, to) {
            // It has room for all batches that there are.
            _ = way.back.push(batch);
        }
    }

    /// Says that `worker` is about to sleep. False when it may not: there are batches for it.
    pub(super) fn falls_asleep(&self, worker: usize) -> bool {
        let Some(sleeper) = self.sleepers.get(worker) else { return true };
        sleeper.asleep.store(true, Ordering::Relaxed);
        // Either the sender sees that it sleeps, or it sees here what was sent.
        fence(Ordering::SeqCst);
        let has_none = (0..self.workers).all(|from| self.way(from, worker).is_none_or(|way| way.there.is_empty()));
        if !has_none {
            self.awakes(worker);
        }
        has_none
    }

    /// Says that `worker` does not sleep any more.
    pub(super) fn awakes(&self, worker: usize) {
        if let Some(sleeper) = self.sleepers.get(worker) {
            sleeper.asleep.store(false, Ordering::Relaxed);
        }
    }

    fn rouse(&self, worker: usize) {
        let Some(sleeper) = self.sleepers.get(worker) else { return };
        fence(Ordering::SeqCst);
        if sleeper.asleep.load(Ordering::Relaxed)
            && sleeper.asleep.swap(false, Ordering::Relaxed)
            && let Some(wake) = sleeper.wake.get()
        {
            wake.wake();
        }
    }
}

/// A worker's side of its way to another one.
pub(super) struct Outbox {
    from: usize,
    to: usize,
    /// Batches at hand; the one that was used last is used next, because its memory is warm.
    #[expect(clippy::vec_box, reason = "batches cross rings by their addresses")]
    free: Vec<Box<Batch>>,
    /// The batch that is being filled.
    open: Option<Box<Batch>>,
    sent: u64,
    back: u64,
    /// The last answer to a question.
    waits: bool,
}

impl Outbox {
    /// From worker `from` to worker `to`, without batches.
    pub(super) fn new(from: usize, to: usize) -> Self {
        Self { from, to, free: Vec::new(), open: None, sent: 0, back: 0, waits: false }
    }

    /// Makes its batches, if there are none yet.
    pub(super) fn prepare(&mut self) {
        if self.free.capacity() == 0 {
            self.free = (0..BATCHES).map(|_| Box::new(Batch::new())).collect();
        }
    }

    /// Takes back what is done.
    #[inline]
    pub(super) fn collect(&mut self, handover: &Handover) {
        if self.sent == self.back {
            return;
        }
        while let Some(batch) = handover.way(self.from, self.to).and_then(|way| way.back.pop()) {
            self.back += 1;
            self.waits = batch.waits;
            self.free.push(batch);
        }
    }

    /// Whether a batch is at hand.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Batches sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether the first `sent` batches are back.
    pub(super) fn is_back(&self, sent: u64) -> bool {
        self.back >= sent
    }

    /// Whether frames waited in queues of the other worker when it gave the last batch back.
    pub(super) fn waits(&self) -> bool {
        self.waits
    }

    /// Puts a frame into the batch that is being filled, and another buffer in its place. False when there is no batch.
    #[inline]
    pub(super) fn put(&mut self, frame: &mut Frame, ingress: DpPort) -> bool {
        if self.open.is_none() {
            let Some(mut batch) = self.free.pop() else { return false };
            (batch.count, batch.ingress, batch.waits) = (0, ingress, false);
            self.open = Some(batch);
        }
        let Some(batch) = &mut self.open else { return false };
        let Some(place) = batch.frames.get_mut(batch.count) else { return false };
        std::mem::swap(place, frame);
        batch.count += 1;
        true
    }

    /// Sends the batch that was filled, if there is one. Returns how many frames are in it.
    #[inline]
    pub(super) fn send(&mut self, handover: &Handover) -> usize {
        let Some(batch) = self.open.take() else { return 0 };
        let count = batch.count;
        self.push(batch, handover);
        count
    }

    /// Asks whether frames wait in queues of the other worker. False when there is no batch to ask with.
    pub(super) fn ask(&mut self, handover: &Handover) -> bool {
        let Some(mut batch) = self.free.pop() else { return false };
        (batch.count, batch.waits) = (0, false);
        self.push(batch, handover);
        true
    }

    fn push(&mut self, batch: Box<Batch>, handover: &Handover) {
        self.sent += 1;
        if let Some(way) = handover.way(self.from, self.to) {
            // It has room for all batches that there are.
            _ = way.there.push(batch);
        }
        handover.rouse(self.to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn frames() -> Vec<Frame> {
        (0..BURST).map(|_| Frame::with_capacity(MAX_FRAME_LEN)).collect()
    }

    fn number(frame: &Frame) -> u32 {
        u32::from_be_bytes(frame.bytes().try_into().unwrap())
    }

    #[test]
    fn every_frame_comes_once_and_in_order_and_every_buffer_comes_back() {
        const FRAMES: u32 = 100_000;
        let handover = Handover::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut outbox, mut at_hand, mut next) = (Outbox::new(0, 1), frames(), 0);
                outbox.prepare();
                while next < FRAMES {
                    outbox.collect(&handover);
                    if !outbox.has_room() {
                        thread::yield_now();
                        continue;
                    }
                    for frame in &mut at_hand[..1 + next as usize % BURST] {
                        frame.copy_from(&next.to_be_bytes());
                        assert!(outbox.put(frame, DpPort(7)));
                        next += 1;
                    }
                    assert!(outbox.send(&handover) > 0);
                }
                while !outbox.is_back(outbox.sent()) {
                    outbox.collect(&handover);
                    thread::yield_now();
                }
                assert_eq!(outbox.free.len(), BATCHES);
                let all = outbox.free.iter().flat_map(|batch| &batch.frames).chain(&at_hand);
                assert!(all.clone().all(|frame| frame.capacity() == MAX_FRAME_LEN), "a buffer was lost");
                assert_eq!(all.count(), (BATCHES + 1) * BURST);
            });
            let (mut at_hand, mut next) = (frames(), 0);
            while next < FRAMES {
                let Some(mut batch) = handover.take(0, 1) else {
                    thread::yield_now();
                    continue;
                };
                assert_eq!(batch.ingress(), DpPort(7));
                let count = batch.take(&mut at_hand);
                for frame in &at_hand[..count] {
                    assert_eq!(number(frame), next);
                    next += 1;
                }
                handover.give_back(0, 1, batch);
            }
        });
    }

    #[test]
    fn a_worker_with_batches_does_not_sleep() {
        let handover = Handover::new(2);
        assert!(handover.falls_asleep(1));
        let mut outbox = Outbox::new(0, 1);
        outbox.prepare();
        assert!(outbox.ask(&handover));
        assert!(!handover.sleepers[1].asleep.load(Ordering::Relaxed), "it was woken");
        assert!(!handover.falls_asleep(1) && handover.falls_asleep(0));
        let mut batch = handover.take(0, 1).unwrap();
        assert!(batch.is_question() && handover.falls_asleep(1));
        batch.waits = true;
        handover.give_back(0, 1, batch);
        assert!(!outbox.is_back(outbox.sent()));
        outbox.collect(&handover);
        assert!(outbox.is_back(outbox.sent()) && outbox.waits());
    }

    #[test]
    fn a_worker_without_batches_at_hand_puts_nothing() {
        let handover = Handover::new(2);
        let mut outbox = Outbox::new(0, 1);
        let mut frame = Frame::from_bytes(b"frame");
        assert!(!outbox.put(&mut frame, DpPort(1)) && !outbox.ask(&handover));
        outbox.prepare();
        for _ in 0..BATCHES {
            assert!(outbox.put(&mut frame, DpPort(1)));
            assert_eq!(outbox.send(&handover), 1);
        }
        assert!(!outbox.has_room() && !outbox.put(&mut frame, DpPort(1)));
        assert_eq!(outbox.send(&handover), 0);
    }
}
