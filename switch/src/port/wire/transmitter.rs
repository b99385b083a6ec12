//! The rate of a direction, and the queue in front of it.
//!
//! A link sends one frame after the other. When the last of them will have been sent is one number, and a frame that comes
//! is sent from then on, or at once if that has passed: so each frame's time is exact whenever anybody looks, and several
//! workers send by one link without a lock. Time is an argument.
//!
//! The queue is what was accepted and is not sent yet, the frame that is being sent among it. As many frames as it has
//! places are remembered with when they will have been sent: the place of the frame that came that many before is free
//! when that one is sent.

use super::super::pace::{TICKS, per_bit, takes};
use super::settings::Queue;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A rate, and the queue in front of it.
#[derive(Debug)]
pub(super) struct Pacing {
    per_bit: u64,
    room: Room,
}

#[derive(Clone, Debug)]
enum Room {
    /// When the frame in each place will have been sent, in ticks.
    Places(Arc<[AtomicU64]>),
    /// How many ticks a frame may wait.
    Wait(u64),
}

impl Pacing {
    /// `None` for a rate of 0, which is no limit. What waits goes on waiting when the queue is the one of `before`.
    pub(super) fn new(bits_per_s: u64, queue: Queue, before: Option<&Self>) -> Option<Self> {
        if bits_per_s == 0 {
            return None;
        }
        let room = match (queue, before.map(|before| &before.room)) {
            (Queue::Packets(places), Some(Room::Places(same))) if same.len() == places as usize => {
                Room::Places(Arc::clone(same))
            }
            (Queue::Packets(places), _) => Room::Places((0..places).map(|_| AtomicU64::default()).collect()),
            (Queue::Time(time), _) => Room::Wait(nanos(time).saturating_mul(TICKS)),
        };
        Some(Self { per_bit: per_bit(bits_per_s), room })
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What waits for its turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireQueue {
    /// Frames, where the queue is counted in frames.
    pub packets: u32,
    /// How long a frame that came now would wait.
    pub wait: Duration,
}

/// A direction as it sends.
#[derive(Debug, Default)]
pub(super) struct Transmitter {
    /// When all that was accepted will have been sent, in ticks.
    free: AtomicU64,
    /// Frames that were accepted.
    accepted: AtomicU64,
}

impl Transmitter {
    /// Accepts a frame of so many bits at `now`. Returns when it will have been sent; `None` when the queue is full.
    #[inline]
    pub(super) fn send(&self, pacing: &Pacing, bits: u32, now: u64) -> Option<u64> {
        let now = now.saturating_mul(TICKS);
        if let Room::Places(places) = &pacing.room {
            let mut number = self.accepted.load(Ordering::Acquire);
            while place(places, number)?.load(Ordering::Acquire) > now {
                // Another worker may have taken that place meanwhile, and then it is the next one that counts.
                let next = self.accepted.load(Ordering::Acquire);
                if next == number {
                    return None;
                }
                number = next;
            }
        }
        let takes = takes(bits.into(), pacing.per_bit);
        let accept = |free: u64| {
            let start = free.max(now);
            match pacing.room {
                Room::Wait(longest) if start - now > longest => None,
                _ => Some(start.saturating_add(takes)),
            }
        };
        let before = self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, accept).ok()?;
        let sent = before.max(now).saturating_add(takes);
        if let Room::Places(places) = &pacing.room {
            // Workers that come at once may each find the last place free; then it is theirs together.
            place(places, self.accepted.fetch_add(1, Ordering::AcqRel))?.store(sent, Ordering::Release);
        }
        Some(sent.div_ceil(TICKS))
    }

    /// What waits at `now`.
    pub(super) fn waiting(&self, pacing: &Pacing, now: u64) -> WireQueue {
        let now = now.saturating_mul(TICKS);
        let wait = self.free.load(Ordering::Relaxed).saturating_sub(now) / TICKS;
        let packets = match &pacing.room {
            Room::Places(places) => places.iter().filter(|sent| sent.load(Ordering::Relaxed) > now).count(),
            Room::Wait(_) => 0,
        };
        WireQueue { packets: packets as u32, wait: Duration::from_nanos(wait) }
    }
}

/// The place of frame `number`.
fn place(places: &[AtomicU64], number: u64) -> Option<&AtomicU64> {
    places.get((number % places.len().max(1) as u64) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const SECOND: u64 = 1_000 * MS;

    fn pacing(bits_per_s: u64, queue: Queue) -> Pacing {
        Pacing::new(bits_per_s, queue, None).unwrap()
    }

    #[test]
    fn frames_are_sent_one_behind_the_other_at_the_rate() {
        // 1,000 bits at 1 Mbit/s are 1 ms.
        let (link, pacing) = (Transmitter::default(), pacing(1_000_000, Queue::Packets(10)));
        assert_eq!(link.send(&pacing, 1_000, 5 * MS), Some(6 * MS + 1), "rounded up");
        assert_eq!(link.send(&pacing, 2_000, 5 * MS), Some(8 * MS + 1));
        assert_eq!(link.send(&pacing, 1_000, 7 * MS), Some(9 * MS + 1));
        assert_eq!(link.waiting(&pacing, 7 * MS).packets, 2, "the first was sent");
        // What was not used is not saved.
        assert_eq!(link.send(&pacing, 1_000, SECOND), Some(SECOND + MS + 1));
    }

    #[test]
    fn what_goes_in_a_minute_is_what_the_rate_says() {
        for rate in [64_000, 1_000_000, 50_000_000, 1_000_000_000, 10_000_000_000, 100_000_000_000] {
            let (link, pacing) = (Transmitter::default(), pacing(rate, Queue::Packets(100)));
            let (mut now, mut sent, mut last) = (SECOND, 0_u64, 0);
            // Bursts of 32 frames, each as soon as there is room.
            while sent < rate.min(200_000 * 12_144) {
                let accepted =
                    (0..32).map_while(|_| link.send(&pacing, 12_144, now)).inspect(|due| last = *due).count();
                sent += accepted as u64 * 12_144;
                now += if accepted == 0 { 12_144 * SECOND / rate / 2 + 1 } else { 0 };
            }
            let took = (last - SECOND) as f64 / SECOND as f64;
            let measured = sent as f64 / took;
            assert!((measured / rate as f64 - 1.0).abs() < 0.001, "{measured} instead of {rate}");
        }
    }

    #[test]
    fn the_queue_has_as_many_places_as_it_says() {
        let (link, pacing) = (Transmitter::default(), pacing(1_000_000, Queue::Packets(3)));
        for _ in 0..3 {
            assert!(link.send(&pacing, 1_000, MS).is_some());
        }
        assert_eq!(link.send(&pacing, 1_000, MS), None);
        assert_eq!(link.waiting(&pacing, MS), WireQueue { packets: 3, wait: Duration::from_millis(3) });
        // One is sent, so one has room.
        assert!(link.send(&pacing, 1_000, 2 * MS + 1).is_some());
        assert_eq!(link.send(&pacing, 1_000, 2 * MS + 1), None);
        assert_eq!(link.waiting(&pacing, SECOND), WireQueue::default());
    }

    #[test]
    fn a_queue_of_time_takes_what_does_not_wait_longer() {
        let (link, pacing) = (Transmitter::default(), pacing(1_000_000, Queue::Time(Duration::from_millis(2))));
        // The third would wait 2 ms and a tick.
        let accepted = (0..10).filter(|_| link.send(&pacing, 1_000, MS).is_some()).count();
        assert_eq!(accepted, 2);
        assert_eq!(link.send(&pacing, 1_000, 2 * MS).map(|sent| sent / MS), Some(4));
    }

    #[test]
    fn a_new_rate_holds_for_new_frames_and_the_queue_is_remembered() {
        let (link, slow) = (Transmitter::default(), pacing(1_000_000, Queue::Packets(2)));
        assert!(link.send(&slow, 1_000, MS).is_some() && link.send(&slow, 1_000, MS).is_some());
        let fast = Pacing::new(1_000_000_000, Queue::Packets(2), Some(&slow)).unwrap();
        assert_eq!(link.send(&fast, 1_000, MS), None);
        let sent = link.send(&fast, 1_000, 2 * MS + 1).unwrap();
        assert!((3_001_000..3_001_010).contains(&sent), "it is sent behind those that wait: {sent}");
    }

    #[test]
    fn many_workers_share_one_rate() {
        const EACH: u64 = 20_000;
        let (link, pacing) = (Transmitter::default(), pacing(1_000_000_000, Queue::Packets(1_000_000)));
        let last = std::thread::scope(|scope| {
            let send = || (0..EACH).filter_map(|_| link.send(&pacing, 12_144, SECOND)).max();
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(send)).collect();
            workers.into_iter().filter_map(|worker| worker.join().unwrap()).max().unwrap()
        });
        let wanted = 4 * EACH * 12_144;
        assert!((wanted..wanted + 4 * EACH).contains(&(last - SECOND)), "{last}");
    }
}
