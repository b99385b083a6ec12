//! Packets on their way to the controllers.
//!
//! A packet is copied for each subscriber that asked, into a bounded queue. Two things keep a flood of them from
//! harming the switch: each worker hands over at most [`Budget`] packets a second, and a subscriber that reads too
//! slowly loses packets and is told how many. A packet that nobody took counts as lost.

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use sluice_flows::packet::{Frame, Offload};
use sluice_flows::{datapath, rule::Millis};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A packet handed to the controllers.
#[derive(Clone, Debug)]
pub struct PacketIn {
    /// Why it was handed over, and by which rule.
    pub about: datapath::PacketIn,
    /// The frame, cut at [`datapath::PacketIn::max_len`].
    pub frame: Arc<[u8]>,
    /// Length of the whole frame, in bytes.
    pub frame_len: usize,
    /// What its sender left to be done with it.
    pub offload: Offload,
    /// Packets that this subscriber lost just before this one.
    pub lost: u64,
}

/// Which packets a subscriber wants.
pub(crate) type Wanted = fn(&datapath::PacketIn) -> bool;

struct Subscriber {
    sender: Sender<PacketIn>,
    wanted: Wanted,
    lost: u64,
}

/// Where packets are handed over.
#[derive(Default)]
pub(crate) struct Punts {
    subscribers: Mutex<Vec<Subscriber>>,
}

impl Punts {
    /// Packets from now on, at most `depth` of them waiting.
    pub(crate) fn subscribe(&self, depth: usize) -> Receiver<PacketIn> {
        self.subscribe_to(depth, |_| true)
    }

    /// The same for some packets only: others neither count as taken nor as lost by this subscriber.
    pub(crate) fn subscribe_to(&self, depth: usize, wanted: Wanted) -> Receiver<PacketIn> {
        let (sender, receiver) = bounded(depth.max(1));
        self.lock().push(Subscriber { sender, wanted, lost: 0 });
        receiver
    }

    /// Hands a packet over. Returns whether anybody took it.
    pub(crate) fn hand_over(&self, about: &datapath::PacketIn, frame: &Frame) -> bool {
        let mut subscribers = self.lock();
        if subscribers.is_empty() {
            return false;
        }
        let bytes = frame.bytes();
        let packet = PacketIn {
            about: about.clone(),
            frame: bytes
                .get(..usize::from(about.max_len))
                .filter(|_| about.max_len != u16::MAX)
                .unwrap_or(bytes)
                .into(),
            frame_len: bytes.len(),
            offload: frame.offload,
            lost: 0,
        };
        let mut taken = false;
        subscribers.retain_mut(|s| {
            !(s.wanted)(about)
                || match s.sender.try_send(PacketIn { lost: s.lost, ..packet.clone() }) {
                    Ok(()) => {
                        s.lost = 0;
                        taken = true;
                        true
                    }
                    Err(TrySendError::Full(_)) => {
                        s.lost += 1;
                        true
                    }
                    Err(TrySendError::Disconnected(_)) => false,
                }
        });
        taken
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Subscriber>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token bucket that holds one second's worth.
#[derive(Debug)]
pub(crate) struct Budget {
    rate: u64,
    left: u64,
    filled: Millis,
}

impl Budget {
    /// `rate` packets a second.
    pub(crate) fn new(rate: u64, now: Millis) -> Self {
        Self { rate, left: rate, filled: now }
    }

    /// Takes one token. Returns whether there was one.
    pub(crate) fn take(&mut self, now: Millis) -> bool {
        let ok = self.has(now);
        self.left = self.left.saturating_sub(1);
        ok
    }

    /// Whether there is a token.
    pub(crate) fn has(&mut self, now: Millis) -> bool {
        let gained = now.since(self.filled).min(1000).saturating_mul(self.rate) / 1000;
        if gained > 0 {
            self.left = self.left.saturating_add(gained).min(self.rate);
            self.filled = now;
        }
        self.left > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_lasts_a_second_and_comes_back() {
        let mut budget = Budget::new(10, Millis(0));
        assert_eq!((0..20).filter(|_| budget.take(Millis(5))).count(), 10);
        assert_eq!((0..20).filter(|_| budget.take(Millis(300))).count(), 3);
        assert_eq!((0..20).filter(|_| budget.take(Millis(9000))).count(), 10);
    }
}
