//! The fields whose prefixes are tracked, and what is known of one packet's values of them.

use super::prefix_trie::{PrefixTrie, Walk};
use crate::key::{FlowKey, FlowMask, Slot, slot};
use crate::matching::Match;

/// The slots whose prefixes are tracked, by stage. Fields that share them (ARP addresses) are tracked with them.
pub(super) const PREFIX_SLOTS: [Slot; 6] =
    [slot::IP_SRC, slot::IP_DST, slot::IPV6_SRC, slot::IPV6_DST, slot::TP_SRC, slot::TP_DST];

/// Length of the run of ones at the start of a mask on `slot`. Bits behind the run are no part of the prefix: a rule
/// with such a mask has the prefix none the less.
pub(super) fn prefix_len(mask: u128, slot: Slot) -> u8 {
    align(mask, slot).leading_ones() as u8
}

/// A value of `slot`, left-aligned.
fn align(value: u128, slot: Slot) -> u128 {
    value << (128 - u32::from(slot.bits))
}

/// The prefixes that the rules of a table look at.
///
/// Prefixes may be added later than their rules, many of them at once, which is several times faster. As long as some
/// are missing no lookup asks for any: it finds the same, and looks at more bits than it would have to.
#[derive(Clone, Debug, Default)]
pub(super) struct Prefixes {
    tries: [PrefixTrie; PREFIX_SLOTS.len()],
    /// By slot, those that are to be added: left-aligned, and their lengths.
    missing: [Vec<(u128, u8)>; PREFIX_SLOTS.len()],
    len_missing: usize,
}

/// Most prefixes that may be missing, which bounds the memory that they take.
const MAX_MISSING: usize = 1 << 18;

impl Prefixes {
    /// Counts the prefix of length `len` in slot number `index` of a match.
    pub(super) fn insert(&mut self, index: u8, len: u8, matches: &Match) {
        let (trie, slot) = (&mut self.tries[usize::from(index)], PREFIX_SLOTS[usize::from(index)]);
        trie.insert_often(align(matches.get(slot).0, slot), len, 1);
    }

    /// As [`insert`](Self::insert), but not before [`settle`](Self::settle) unless too many wait for that.
    pub(super) fn insert_later(&mut self, index: u8, len: u8, matches: &Match) {
        let slot = PREFIX_SLOTS[usize::from(index)];
        let value = align(matches.get(slot).0, slot);
        self.missing[usize::from(index)].push((value & u128::MAX << (128 - u32::from(len)), len));
        self.len_missing += 1;
        if self.len_missing >= MAX_MISSING {
            self.settle();
        }
    }

    /// Adds what is missing.
    pub(super) fn settle(&mut self) {
        for (trie, missing) in self.tries.iter_mut().zip(&mut self.missing) {
            // Neighbours are near each other in the tree too.
            let mut missing = std::mem::take(missing);
            missing.sort_unstable();
            for same in missing.chunk_by(|a, b| a == b) {
                let (value, len) = same[0];
                trie.insert_often(value, len, u32::try_from(same.len()).unwrap_or(u32::MAX));
            }
        }
        self.len_missing = 0;
    }

    /// Whether none is missing.
    pub(super) fn is_settled(&self) -> bool {
        self.len_missing == 0
    }

    /// Takes back one [`insert`](Self::insert).
    pub(super) fn remove(&mut self, index: u8, len: u8, matches: &Match) {
        if !self.is_settled() {
            self.settle();
        }
        let (trie, slot) = (&mut self.tries[usize::from(index)], PREFIX_SLOTS[usize::from(index)]);
        trie.remove(align(matches.get(slot).0, slot), len);
    }

    /// Bytes of heap memory.
    pub(super) fn heap_size(&self) -> usize {
        let missing = self.missing.iter().map(|m| m.capacity() * size_of::<(u128, u8)>()).sum::<usize>();
        missing + self.tries.iter().map(PrefixTrie::heap_size).sum::<usize>()
    }
}

/// What is known of one packet: each field is followed down its tree at most once in a lookup, and only when asked for.
pub(super) struct Walks<'a> {
    prefixes: &'a Prefixes,
    key: &'a FlowKey,
    fields: [Option<Known>; PREFIX_SLOTS.len()],
}

#[derive(Clone, Copy)]
struct Known {
    walk: Walk,
    /// How many bits of the prefix are in the mask for sure.
    in_mask: u8,
}

impl<'a> Walks<'a> {
    pub(super) fn new(prefixes: &'a Prefixes, key: &'a FlowKey) -> Self {
        Self { prefixes, key, fields: [None; PREFIX_SLOTS.len()] }
    }

    /// Whether one of these prefixes (slot number and length) of the packet is in no rule at all. If so, adds to `mask`
    /// the bits that prove it; of several proofs the one that adds the fewest.
    #[inline]
    pub(super) fn refute(&mut self, prefixes: &[(u8, u8)], mask: &mut FlowMask) -> bool {
        let mut best: Option<(u8, usize, u8)> = None;
        if !self.prefixes.is_settled() {
            return false;
        }
        for &(index, len) in prefixes {
            let index = usize::from(index);
            let Known { walk, in_mask } = self.known(index, mask);
            if !walk.has(len) {
                let bits = walk.bits_to_refute(len);
                let added = bits.saturating_sub(in_mask);
                if added == 0 {
                    return true;
                }
                if best.is_none_or(|(least, ..)| added < least) {
                    best = Some((added, index, bits));
                }
            }
        }
        let Some((_, index, bits)) = best else { return false };
        self.show(index, bits, mask);
        true
    }

    /// Adds the first `bits` bits of a field to `mask`.
    fn show(&mut self, index: usize, bits: u8, mask: &mut FlowMask) {
        let slot = PREFIX_SLOTS[index];
        mask.set_masked(slot, u128::MAX, u128::MAX.unbounded_shl(u32::from(slot.bits - bits)));
        if let Some(known) = &mut self.fields[index] {
            known.in_mask = bits;
        }
    }

    #[inline]
    fn known(&mut self, index: usize, mask: &FlowMask) -> Known {
        let (prefixes, key) = (self.prefixes, self.key);
        *self.fields[index].get_or_insert_with(|| {
            let slot = PREFIX_SLOTS[index];
            let walk = prefixes.tries[index].walk(align(key.get(slot), slot));
            Known { walk, in_mask: prefix_len(mask.get(slot), slot) }
        })
    }
}
