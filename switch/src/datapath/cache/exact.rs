//! The exact cache: from a packet's hash straight to its megaflow, in one cache line.
//!
//! It stores no keys. A slot holds 32 bits of the hash and the number of a megaflow; whoever looks up then compares the
//! packet with that megaflow under the megaflow's mask, which proves the answer whatever the slot said. So a slot costs
//! 8 bytes instead of a key's 120, a set of [`WAYS`] is one cache line, and no entry ever needs to be removed: one that
//! has gone out of date fails the comparison and is overwritten.
//!
//! The hash covers the bits that some megaflow looks at and no others (see [`megaflow`](super::megaflow)), so packets
//! that no rule could tell apart share a slot: ten thousand connections through a plain learning switch need as many
//! slots as there are pairs of addresses.
//!
//! It begins small and doubles while it is more than half full, up to a limit. A larger one begins empty: what it had is asked of the
//! megaflows once more.

/// Slots in a set.
pub(crate) const WAYS: usize = 8;
/// Slots to begin with: 512 KB.
const FEW: usize = 1 << 16;

#[derive(Clone, Debug)]
#[repr(align(64))]
struct Set {
    /// Bits of the hash; 0 marks an empty slot.
    tags: [u32; WAYS],
    flows: [u32; WAYS],
}

/// The exact cache of one worker.
#[derive(Debug)]
pub(crate) struct ExactCache {
    sets: Box<[Set]>,
    /// Slots in use.
    len: usize,
    /// Where the next slot to overwrite in a full set comes from.
    turn: usize,
    /// Most sets.
    limit: usize,
}

impl ExactCache {
    /// A cache that grows to `slots` slots, rounded up to a power of two, at least [`WAYS`].
    pub(crate) fn new(slots: usize) -> Self {
        let sets = |slots: usize| slots.div_ceil(WAYS).max(1).next_power_of_two();
        Self { sets: empty(sets(slots.min(FEW))), len: 0, turn: 0, limit: sets(slots) }
    }

    /// The megaflow that packets with this hash had.
    #[inline]
    pub(crate) fn get(&self, hash: u64) -> Option<u32> {
        let set = &self.sets[self.set(hash)];
        let tag = tag(hash);
        // All slots are compared, so that no branch depends on which one it is: a wrong guess would keep the CPU from
        // fetching the sets of the next frames meanwhile.
        let hits = set.tags.iter().zip(0..).fold(0_u32, |hits, (t, way)| hits | u32::from(*t == tag) << way);
        set.flows.get(hits.trailing_zeros() as usize).copied()
    }

    /// Notes the megaflow of packets with this hash.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u64, flow: u32) {
        // Sets fill unevenly: with more, one in ten would be full.
        if self.len > self.sets.len() * WAYS / 2 && self.sets.len() < self.limit {
            (self.sets, self.len) = (empty(self.sets.len() * 2), 0);
        }
        let index = self.set(hash);
        let set = &mut self.sets[index];
        let tag = tag(hash);
        let way = set.tags.iter().position(|t| *t == tag).or_else(|| set.tags.iter().position(|t| *t == 0));
        let way = way.unwrap_or_else(|| {
            self.turn = self.turn.wrapping_add(1);
            self.turn % WAYS
        });
        self.len += usize::from(set.tags[way] == 0);
        set.tags[way] = tag;
        set.flows[way] = flow;
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        for set in &mut self.sets {
            set.tags = [0; WAYS];
        }
        self.len = 0;
    }

    /// Slots in use, those gone out of date included.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn set(&self, hash: u64) -> usize {
        hash as usize & (self.sets.len() - 1)
    }
}

fn empty(sets: usize) -> Box<[Set]> {
    vec![Set { tags: [0; WAYS], flows: [0; WAYS] }; sets].into_boxed_slice()
}

/// The part of the hash that a slot keeps, never 0.
#[inline]
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32 | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_inserted_last_is_found() {
        let mut cache = ExactCache::new(64);
        cache.insert(0x1234_5678_0000_0003, 7);
        cache.insert(0x1234_5678_0000_0003, 8);
        assert_eq!(cache.get(0x1234_5678_0000_0003), Some(8));
        assert_eq!(cache.get(0x9999_5678_0000_0003), None);
        assert_eq!(cache.len(), 1);
        cache.clear();
        assert_eq!((cache.get(0x1234_5678_0000_0003), cache.len()), (None, 0));
    }

    #[test]
    fn it_grows_while_it_is_half_full_up_to_its_limit() {
        let mut cache = ExactCache::new(4 * FEW);
        let hash = |i: u64| i << 32 | i;
        assert_eq!(cache.sets.len() * WAYS, FEW);
        // What it loses when it grows comes again.
        for _ in 0..4 {
            (1..=2 * FEW as u64).for_each(|i| cache.insert(hash(i), i as u32));
        }
        assert_eq!(cache.sets.len() * WAYS, 4 * FEW);
        assert!((1..=2 * FEW as u64).all(|i| cache.get(hash(i)) == Some(i as u32)));
        for i in 1..=8 * FEW as u64 {
            cache.insert(hash(i), i as u32);
        }
        assert_eq!(cache.sets.len() * WAYS, 4 * FEW, "its limit");
    }

    #[test]
    fn a_full_set_gives_up_one_slot_at_a_time() {
        let mut cache = ExactCache::new(WAYS);
        let hash = |i: u64| (i + 1) << 33;
        for i in 0..WAYS as u64 + 1 {
            cache.insert(hash(i), i as u32);
        }
        let kept = (0..WAYS as u64 + 1).filter(|i| cache.get(hash(*i)) == Some(*i as u32)).count();
        assert_eq!((kept, cache.len()), (WAYS, WAYS));
    }
}
