//! What rewriting a payload does to TCP's numbers: bytes that came or went move every later sequence number of that
//! direction, and every acknowledgement of them.
//!
//! [`Skew`] is kept for each direction, in the numbers of the sender as well as those of the receiver: the sender counts
//! what it sent, the receiver what it got. A retransmission is older than what it comes after, so it is moved as far as
//! it was the first time: each change of size is remembered with its place, the last few of them.
//!
//! Limits: a segment that begins or ends within a text that was replaced has no right place in the other's numbers.
//! Senders repeat what they sent, so that there are none in practice. A segment that overtakes one whose text will be
//! replaced is not moved; FTP's clients wait for an answer before they go on.

use super::super::tcp::after;

/// Changes of size that are remembered with their place.
const REMEMBERED: usize = 8;
/// Bytes behind the newest sequence number at which a change is taken for settled: half of the space of numbers would
/// be ahead of it. Windows are at most half as large.
const SETTLED: u32 = 1 << 30;

/// One text that was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    /// Number of its first byte, as the sender counts.
    at: u32,
    old_len: u32,
    new_len: u32,
    /// What was added to sequence numbers before it.
    before: u32,
}

impl Change {
    /// What is added to sequence numbers behind it.
    const fn behind(&self) -> u32 {
        self.before.wrapping_add(self.new_len).wrapping_sub(self.old_len)
    }
}

/// The changes of size in one direction. Offsets are numbers modulo 2^32, as sequence numbers are.
#[derive(Clone, Debug, Default)]
pub(super) struct Skew {
    /// Oldest first, each behind the one before.
    changes: Vec<Change>,
    /// What was added before the oldest.
    base: u32,
}

impl Skew {
    /// Whether nothing ever changed in size.
    pub(super) fn is_none(&self) -> bool {
        self.changes.is_empty() && self.base == 0
    }

    /// Remembers that `old_len` bytes at `at`, in the sender's numbers, are now `new_len`. False if that cannot be
    /// said: another text was there before, or it is older than what is remembered.
    pub(super) fn replaced(&mut self, at: u32, old_len: u32, new_len: u32) -> bool {
        if let Some(known) = self.changes.iter().find(|change| change.at == at) {
            return (known.old_len, known.new_len) == (old_len, new_len);
        }
        let mut before = self.base;
        if let Some(newest) = self.changes.last() {
            if after(newest.at.wrapping_add(newest.old_len), at) {
                return false;
            }
            before = newest.behind();
        }
        if self.changes.len() == REMEMBERED {
            self.base = self.changes.remove(0).behind();
        }
        self.changes.push(Change { at, old_len, new_len, before });
        true
    }

    /// The sequence number that the receiver knows the sender's `seq` by.
    pub(super) fn shift(&mut self, seq: u32) -> u32 {
        while let Some(oldest) = self.changes.first()
            && (SETTLED..SETTLED << 1).contains(&seq.wrapping_sub(oldest.at))
        {
            self.base = self.changes.remove(0).behind();
        }
        let behind = self.changes.iter().rev().find(|c| !after(c.at.wrapping_add(c.old_len), seq));
        seq.wrapping_add(behind.map_or(self.base, Change::behind))
    }

    /// The sequence number that the sender knows the receiver's acknowledgement `ack` by. What is in the middle of a
    /// replaced text acknowledges nothing of it.
    pub(super) fn unshift(&self, ack: u32) -> u32 {
        for change in self.changes.iter().rev() {
            let start = change.at.wrapping_add(change.before);
            if !after(start.wrapping_add(change.new_len), ack) {
                return ack.wrapping_sub(change.behind());
            }
            if after(ack, start) {
                return change.at;
            }
        }
        ack.wrapping_sub(self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_behind_a_change_move_and_those_before_stay() {
        let mut skew = Skew::default();
        assert!(skew.is_none());
        assert!(skew.replaced(105, 8, 12));
        assert_eq!((skew.shift(100), skew.shift(105)), (100, 105));
        assert_eq!((skew.shift(113), skew.shift(200)), (117, 204));
        assert_eq!((skew.unshift(105), skew.unshift(117), skew.unshift(204)), (105, 113, 200));
        assert_eq!(skew.unshift(110), 105, "half a text is nothing");
        assert!(skew.replaced(105, 8, 12), "a retransmission");
        assert_eq!(skew.shift(200), 204);
        assert!(!skew.replaced(105, 8, 11), "but not of another text");
        assert!(!skew.replaced(100, 8, 11), "nor something older");
        assert!(skew.replaced(300, 10, 4));
        assert_eq!((skew.shift(200), skew.shift(310)), (204, 308));
        assert_eq!((skew.unshift(204), skew.unshift(308)), (200, 310));
    }

    #[test]
    fn a_change_long_ago_is_not_taken_for_one_to_come() {
        let mut skew = Skew::default();
        assert!(skew.replaced(0, 8, 12));
        let mut seq = 8u32;
        for _ in 0..16 {
            seq = seq.wrapping_add(1 << 29);
            assert_eq!(skew.shift(seq), seq.wrapping_add(4));
            assert_eq!(skew.unshift(seq.wrapping_add(4)), seq);
        }
    }

    proptest! {
        /// The sender's bytes are numbered; what the receiver gets is built by replacing texts in them.
        #[test]
        fn numbers_on_both_sides_mean_the_same_byte(
            start: u32, texts in proptest::collection::vec((0u32..50, 1u32..40, 0u32..40), 0..20)
        ) {
            let mut skew = Skew::default();
            let (mut sent, mut got) = (start, start);
            for (plain, old_len, new_len) in texts {
                for _ in 0..=plain {
                    prop_assert_eq!((skew.shift(sent), skew.unshift(got)), (got, sent));
                    (sent, got) = (sent.wrapping_add(1), got.wrapping_add(1));
                }
                prop_assert!(skew.replaced(sent, old_len, new_len));
                prop_assert!(skew.replaced(sent, old_len, new_len));
                prop_assert_eq!(skew.shift(sent), got);
                (sent, got) = (sent.wrapping_add(old_len), got.wrapping_add(new_len));
                prop_assert_eq!((skew.shift(sent), skew.unshift(got)), (got, sent));
            }
        }

        #[test]
        fn acknowledgements_never_go_back(start: u32, texts in proptest::collection::vec((1u32..50, 1u32..40, 1u32..40), 1..8)) {
            let mut skew = Skew::default();
            let (mut sent, mut got) = (start, start);
            for (plain, old_len, new_len) in texts {
                prop_assert!(skew.replaced(sent.wrapping_add(plain), old_len, new_len));
                sent = sent.wrapping_add(plain + old_len);
                got = got.wrapping_add(plain + new_len);
            }
            let mut last = skew.unshift(start);
            for offset in 0..=got.wrapping_sub(start) {
                let acked = skew.unshift(start.wrapping_add(offset));
                prop_assert!(!after(last, acked), "{offset}");
                last = acked;
            }
            prop_assert_eq!(last, sent);
        }
    }
}
