//! Handing frames on to workers that have time, and doing those of others.
//!
//! A worker whose table ([`Indirection`]) says so puts frames that it has received into batches for other workers
//! ([`handover`](super::handover)). Those do them as if they had received them, after what they receive themselves, with their own
//! caches and their own queues of all ports.
//!
//! # Order
//! Frames of a flow are in one bucket, so one worker does them, in order. A bucket moves between two bursts:
//!
//! - away from this worker when nothing of what it has done waits in its queues (for a limited rate, on a wire): all else
//!   has left when the burst is over;
//! - back to it when the other worker has said, behind the last frames that it was sent, that nothing waits in its queues either.
//!   Until it says so, this worker receives nothing.
//!
//! From one worker to a third a bucket goes by way of this one.
//!
//! # When the other worker does not keep up
//! A worker receives nothing while it has no batch at hand for one that it hands on to. Frames are lost where they are lost
//! otherwise, in front of the switch; and the rule takes buckets back.

use super::BURST;
use super::handover::{Batch, Handover, Outbox};
use super::indirection::{INTERVAL, Indirection, Move, Steering};
use super::worker::Worker;
use crossbeam::channel::Sender;
use sluice_flows::DpPort;
use sluice_flows::packet::Frame;
use sluice_flows::packet::tunnel::{Payload, entropy::flow_hash};
use sluice_flows::rule::Millis;
use std::thread;
use std::time::{Duration, Instant};

/// One worker's part.
pub(super) struct Hands {
    own: usize,
    table: Indirection,
    /// To each worker.
    outboxes: Vec<Outbox>,
    /// From each worker: what waits until commands are obeyed.
    put_off: Vec<Option<Box<Batch>>>,
    /// Buckets that are coming back, and whether the other worker has been asked.
    coming: Option<(Move, bool)>,
    /// Who waits until what was sent before is done: so many batches to each worker.
    settling: Vec<(Vec<u64>, Sender<()>)>,
    /// Workers that the last round waited for, and for how long rounds of this interval did.
    slow: Vec<bool>,
    waited: Vec<Duration>,
    /// When the last round began.
    round: Instant,
    /// When this interval began, and what workers had been busy for until then, in microseconds.
    since: Instant,
    busy: Vec<u64>,
    loads: Vec<f32>,
}

impl Hands {
    /// Those of worker `own` of so many. `None` if there is nobody else, or frames are not to be handed on.
    pub(super) fn new(own: usize, workers: usize, steering: Steering) -> Option<Box<Self>> {
        (workers > 1 && steering != Steering::Off).then(|| {
            Box::new(Self {
                own,
                table: Indirection::new(own, workers, steering),
                outboxes: (0..workers).map(|to| Outbox::new(own, to)).collect(),
                put_off: (0..workers).map(|_| None).collect(),
                coming: None,
                settling: Vec::new(),
                slow: vec![false; workers],
                waited: vec![Duration::ZERO; workers],
                round: Instant::now(),
                since: Instant::now(),
                busy: vec![0; workers],
                loads: vec![0.0; workers],
            })
        })
    }

    /// Takes back what is done. Returns whether the worker may receive.
    fn may_receive(&mut self, handover: &Handover) -> bool {
        if !self.table.is_on() {
            return true;
        }
        let mut may = self.coming.is_none();
        for (outbox, slow) in self.outboxes.iter_mut().zip(&mut self.slow) {
            outbox.collect(handover);
            if outbox.sent() > 0 && !outbox.has_room() {
                (*slow, may) = (true, false);
            }
        }
        may
    }

    /// Puts those of the first `count` frames, which came in by `ingress`, on their way that other workers do. The others are the
    /// first then, in order; returns how many they are.
    fn sort(&mut self, frames: &mut [Frame], count: usize, ingress: DpPort, handover: &Handover) -> usize {
        let mut kept = 0;
        for i in 0..count.min(frames.len()) {
            let to = self.table.look_up(flow_hash(frames[i].bytes(), Payload::Ethernet));
            // Room for a burst was there before it was received.
            if to != self.own && self.outboxes[to].put(&mut frames[i], ingress) {
                continue;
            }
            frames.swap(kept, i);
            kept += 1;
        }
        for outbox in &mut self.outboxes {
            outbox.send(handover);
        }
        kept
    }

    /// Goes on with what waits for other workers: buckets that come back, and those who wait until all is done.
    fn go_on(&mut self, handover: &Handover) {
        if let Some((what, asked)) = &mut self.coming
            && let Some(outbox) = self.outboxes.get_mut(what.worker)
        {
            outbox.collect(handover);
            if !*asked {
                *asked = outbox.ask(handover);
            } else if outbox.is_back(outbox.sent()) {
                if !outbox.waits() {
                    self.table.carry_out(what);
                }
                self.coming = None;
            }
        }
        if !self.settling.is_empty() {
            self.outboxes.iter_mut().for_each(|outbox| outbox.collect(handover));
            let outboxes = &self.outboxes;
            self.settling.retain(|(sent, done)| {
                let settled = outboxes.iter().zip(sent).all(|(outbox, sent)| outbox.is_back(*sent));
                if settled {
                    _ = done.send(());
                }
                !settled
            });
        }
    }
}

impl Worker<'_> {
    /// Whether the worker may receive: there is room for what it hands on.
    #[inline]
    pub(super) fn may_receive(&mut self) -> bool {
        self.hands.as_mut().is_none_or(|hands| hands.may_receive(&self.shared.handover))
    }

    /// Hands those of the received frames on that other workers do. Returns how many are left to do. What patches have that are
    /// lent stays: it is on its way through this worker.
    #[inline]
    pub(super) fn hand_on(&mut self, port: DpPort, ingress: DpPort, received: usize) -> usize {
        match &mut self.hands {
            Some(hands) if hands.table.is_on() && !self.lent.contains(&port) => {
                let frames = &mut self.egress.frames[..BURST];
                let kept = hands.sort(frames, received, ingress, &self.shared.handover);
                self.cells.handed_on.add((received - kept) as u64);
                kept
            }
            _ => received,
        }
    }

    /// Does a batch of each other worker. Returns how many frames there were, and how many in the largest.
    #[cold]
    pub(super) fn take_over(&mut self, now: Millis) -> (usize, usize) {
        let (mut total, mut most) = (0, 0);
        for from in 0..self.shared.handover.workers() {
            let put_off = self.hands.as_mut().and_then(|hands| hands.put_off[from].take());
            let Some(mut batch) = put_off.or_else(|| self.shared.handover.take(from, self.index)) else { continue };
            if !self.commands.is_empty() {
                // The sender may know ports that this worker is still to be told of.
                if let Some(hands) = &mut self.hands {
                    hands.put_off[from] = Some(batch);
                }
                continue;
            }
            if batch.is_question() {
                batch.waits = !self.lent.is_empty() || self.egress.lanes.has_waiting();
            } else {
                self.catch_up();
                self.egress.laps.begin(self.cells);
                let count = batch.take(&mut self.egress.frames);
                self.process(batch.ingress(), count, now);
                self.cells.taken_over.add(count as u64);
                total += count;
                most = most.max(count);
            }
            self.shared.handover.give_back(from, self.index, batch);
        }
        (total, most)
    }

    /// Goes on with what waits for other workers, and looks at the loads if it is time. `idle`: the round brought no frame.
    pub(super) fn steer(&mut self, start: Instant, idle: bool) {
        let Some(hands) = &mut self.hands else { return };
        let handover = &self.shared.handover;
        hands.go_on(handover);
        let passed = start.saturating_duration_since(std::mem::replace(&mut hands.round, start));
        for (slow, waited) in hands.slow.iter_mut().zip(&mut hands.waited) {
            if std::mem::take(slow) && idle {
                *waited += passed;
            }
        }
        let elapsed = start.saturating_duration_since(hands.since);
        if elapsed >= INTERVAL {
            hands.since = start;
            let micros = elapsed.as_secs_f32() * 1e6;
            for (worker, cells) in self.shared.cells.iter().enumerate() {
                let busy = cells.busy_us.get();
                let grown = busy.wrapping_sub(std::mem::replace(&mut hands.busy[worker], busy));
                // Who is waited for has no time, whatever it does with it: others may have its CPU.
                let waited = std::mem::take(&mut hands.waited[worker]).as_secs_f32() * 1e6;
                hands.loads[worker] = ((grown as f32).max(2.0 * waited) / micros).min(1.0);
            }
            let may_move = hands.coming.is_none();
            match hands.table.decide(&hands.loads).filter(|_| may_move) {
                Some(what) if what.back => hands.coming = Some((what, false)),
                Some(what) if self.lent.is_empty() && !self.egress.lanes.has_waiting() => {
                    hands.outboxes[what.worker].prepare();
                    hands.table.carry_out(&what);
                }
                _ => {}
            }
        }
        if idle && !hands.may_receive(handover) {
            // The other worker may want this CPU.
            thread::yield_now();
        }
    }

    /// Has `done` told when all frames that were handed on so far are done, and receives no more from `ports`.
    pub(super) fn settle(&mut self, ports: &[DpPort], done: Sender<()>) {
        for port in ports {
            self.ignore(*port);
        }
        match &mut self.hands {
            Some(hands) => {
                let sent = hands.outboxes.iter().map(Outbox::sent).collect();
                hands.settling.push((sent, done));
                hands.go_on(&self.shared.handover);
            }
            None => _ = done.send(()),
        }
    }

    /// Says that the worker is about to sleep. False when it may not.
    pub(super) fn falls_asleep(&mut self) -> bool {
        self.hands.as_ref().is_none_or(|hands| {
            hands.coming.is_none()
                && hands.settling.is_empty()
                && hands.put_off.iter().all(Option::is_none)
                && self.shared.handover.falls_asleep(self.index)
        })
    }
}
