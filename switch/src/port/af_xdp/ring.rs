//! The two ends of a ring that is shared with the kernel.
//!
//! Indexes count up for ever and wrap at 2^32; an entry's place is its index modulo the ring's size, a power of two. The
//! producer writes entries and then its index, the consumer reads the index and then entries (`Release` and `Acquire`), and
//! each keeps a copy of the other's index that it renews only when that says there is nothing to do.

use super::sys::{Entry, Ring};
use std::sync::atomic::Ordering;

/// The end that writes: of the fill and the transmit ring.
#[derive(Debug)]
pub(super) struct Producer<T> {
    ring: Ring<T>,
    /// Where the next entry goes. The kernel sees those before what was published.
    next: u32,
    /// How far the kernel had read when we last looked.
    consumed: u32,
}

/// The end that reads: of the receive and the completion ring.
#[derive(Debug)]
pub(super) struct Consumer<T> {
    ring: Ring<T>,
    /// The next entry to read.
    next: u32,
    /// How far the kernel had written when we last looked.
    produced: u32,
}

impl<T: Entry> Producer<T> {
    pub(super) fn new(ring: Ring<T>) -> Self {
        let (next, consumed) = (ring.producer().load(Ordering::Relaxed), ring.consumer().load(Ordering::Acquire));
        Self { ring, next, consumed }
    }

    /// Entries that it has room for, `wanted` at least if there are as many.
    #[inline]
    pub(super) fn room(&mut self, wanted: u32) -> u32 {
        let room = |end: &Self| end.ring.size() - end.next.wrapping_sub(end.consumed);
        if room(self) < wanted {
            self.consumed = self.ring.consumer().load(Ordering::Acquire);
        }
        room(self)
    }

    /// Writes an entry behind the others; the kernel does not see it before [`Self::publish`]. False, and nothing happens,
    /// when there is no room.
    #[inline]
    pub(super) fn push(&mut self, entry: T) -> bool {
        if self.room(1) == 0 {
            return false;
        }
        self.ring.set(self.next, entry);
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Shows the kernel all that was pushed.
    #[inline]
    pub(super) fn publish(&mut self) {
        self.ring.producer().store(self.next, Ordering::Release);
    }

    /// Entries that the kernel has not read yet.
    #[inline]
    pub(super) fn waiting(&mut self) -> u32 {
        self.consumed = self.ring.consumer().load(Ordering::Acquire);
        self.next.wrapping_sub(self.consumed)
    }

    /// Whether the kernel waits to be told of new entries.
    #[inline]
    pub(super) fn needs_wakeup(&self) -> bool {
        self.ring.flags().load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

impl<T: Entry> Consumer<T> {
    pub(super) fn new(ring: Ring<T>) -> Self {
        let (next, produced) = (ring.consumer().load(Ordering::Relaxed), ring.producer().load(Ordering::Acquire));
        Self { ring, next, produced }
    }

    /// The entry `ahead` of the next one, if the kernel has written it.
    #[inline]
    pub(super) fn peek(&mut self, ahead: u32) -> Option<T> {
        if self.produced.wrapping_sub(self.next) <= ahead {
            self.produced = self.ring.producer().load(Ordering::Acquire);
            if self.produced.wrapping_sub(self.next) <= ahead {
                return None;
            }
        }
        Some(self.ring.get(self.next.wrapping_add(ahead)))
    }

    /// Takes `count` entries off, which were peeked at. The kernel does not know before [`Self::release`].
    #[inline]
    pub(super) fn take(&mut self, count: u32) {
        self.next = self.next.wrapping_add(count);
    }

    /// Gives the kernel the room of all that was taken.
    #[inline]
    pub(super) fn release(&mut self) {
        self.ring.consumer().store(self.next, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn ends(size: u32, start: u32) -> (Producer<u64>, Consumer<u64>) {
        let [ours, theirs] = Ring::pair(size, start);
        (Producer::new(ours), Consumer::new(theirs))
    }

    #[test]
    fn nothing_is_seen_before_it_is_published() {
        let (mut producer, mut consumer) = ends(4, 0);
        assert!(producer.push(7));
        assert_eq!(consumer.peek(0), None);
        producer.publish();
        assert_eq!((consumer.peek(0), consumer.peek(1)), (Some(7), None));
        assert_eq!(producer.waiting(), 1);
    }

    #[test]
    fn a_full_ring_takes_nothing_until_room_is_given_back() {
        let (mut producer, mut consumer) = ends(4, 0);
        assert!((0..4).all(|entry| producer.push(entry)));
        assert!(!producer.push(4));
        producer.publish();
        assert_eq!(consumer.peek(0), Some(0));
        consumer.take(1);
        assert_eq!(producer.room(1), 0, "taken, and not yet released");
        consumer.release();
        assert_eq!(producer.room(1), 1);
        assert!(producer.push(4) && !producer.push(5));
    }

    #[test]
    fn several_entries_are_looked_at_before_any_is_taken() {
        let (mut producer, mut consumer) = ends(8, u32::MAX - 1);
        assert!((0..3).all(|entry| producer.push(entry)));
        producer.publish();
        assert_eq!([0, 1, 2, 3].map(|ahead| consumer.peek(ahead)), [Some(0), Some(1), Some(2), None]);
        consumer.take(3);
        assert_eq!(consumer.peek(0), None);
    }

    #[test]
    fn the_kernel_says_when_it_waits() {
        let [ours, theirs] = Ring::<u64>::pair(4, 0);
        let producer = Producer::new(ours);
        assert!(!producer.needs_wakeup());
        theirs.flags().store(libc::XDP_RING_NEED_WAKEUP, Ordering::Relaxed);
        assert!(producer.needs_wakeup());
    }

    proptest! {
        /// Whatever the order of pushing, publishing, taking and releasing, entries come out once and in order, also where
        /// indexes wrap, and never more than the ring has are under way.
        #[test]
        fn a_ring_is_a_bounded_queue(
            steps in proptest::collection::vec(0_u8..4, 1..400),
            bits in 0_u32..5,
            start in prop_oneof![Just(0_u32), Just(u32::MAX), u32::MAX - 40..u32::MAX, any::<u32>()],
        ) {
            let size = 1 << bits;
            let (mut producer, mut consumer) = ends(size, start);
            let (mut hidden, mut shown, mut taken) = (VecDeque::new(), VecDeque::new(), 0);
            let mut number = 0_u64;
            for step in steps {
                match step {
                    0 => {
                        let room = hidden.len() + shown.len() + taken < size as usize;
                        prop_assert_eq!(producer.push(number), room);
                        if room {
                            hidden.push_back(number);
                            number += 1;
                        }
                    }
                    1 => {
                        producer.publish();
                        shown.append(&mut hidden);
                    }
                    2 => {
                        prop_assert_eq!(consumer.peek(0), shown.front().copied());
                        prop_assert_eq!(consumer.peek(shown.len() as u32), None);
                        if shown.pop_front().is_some() {
                            consumer.take(1);
                            taken += 1;
                        }
                    }
                    _ => {
                        consumer.release();
                        taken = 0;
                    }
                }
            }
        }
    }
}
