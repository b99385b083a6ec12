//! Items that are found under two tuples each, in many small tables that are locked one by one.
//!
//! # One entry for both directions
//! The hash is that of both ends, smaller end first. A tuple and its reverse have the same, so a connection without
//! translation is one entry, in one shard, found in either direction. A translated one has two entries, mostly in two
//! shards; these are locked together, lower index first.
//!
//! # Ending
//! An item ends once: whoever sets its flag takes its entries out. In between, the entries are there but are not found,
//! and another item may already stand under the same tuples.
//!
//! # Pauses
//! A lock is held for one lookup, one insertion or removal, or [`STEP`] slots of a walk. Shards are many, so that each
//! is small and grows fast: entries carry their hash, growing touches no item.
//!
//! # Limits
//! Generic over the item for the model checker (`shards/model.rs`), which cannot carry a connection's atomics.

use super::sync::{Arc, Mutex, MutexGuard, PoisonError, yield_now};
use crate::conntrack::tuple::{Direction, Tuple};
use foldhash::quality::SeedableRandomState;
use hashbrown::HashTable;
use std::hash::{BuildHasher, Hasher};

/// Slots of a shard that are looked at under one hold of its lock.
pub(crate) const STEP: usize = 256;

/// How often a walk of a shard begins again because its entries have moved, before it is done in one step.
const RESTARTS: usize = 8;

/// Something that is known by two tuples.
pub(crate) trait TwoKeyed {
    /// What packets of `direction` show on arrival. Never changes.
    fn tuple(&self, direction: Direction) -> &Tuple;

    /// Whether it has not ended.
    fn is_alive(&self) -> bool;

    /// Ends it. False if it had ended before.
    fn end(&self) -> bool;
}

/// What became of an insertion.
#[derive(Debug)]
pub(crate) enum Put<T> {
    /// It is in.
    Done,
    /// Another is known by its original tuple, in this direction.
    Exists(Arc<T>, Direction),
    /// Another is known by its reply tuple.
    Taken,
    /// This one is in the way, but is of no use any more: remove it and try again.
    Stale(Arc<T>),
}

/// The items.
#[derive(Debug)]
pub(crate) struct Shards<T> {
    shards: Box<[Mutex<Shard<T>>]>,
    hasher: SeedableRandomState,
}

#[derive(Debug)]
struct Shard<T> {
    entries: HashTable<Entry<T>>,
    /// Raised when entries may have moved to other slots.
    moves: u32,
}

#[derive(Debug)]
struct Entry<T> {
    item: Arc<T>,
    hash: u64,
}

/// One or two locked shards.
struct Locked<'a, T> {
    low: MutexGuard<'a, Shard<T>>,
    low_index: usize,
    high: Option<MutexGuard<'a, Shard<T>>>,
}

impl<T: TwoKeyed> Shards<T> {
    /// Empty shards, at least `count` of them.
    pub(crate) fn new(count: usize, hasher: SeedableRandomState) -> Self {
        let shard = || Mutex::new(Shard { entries: HashTable::new(), moves: 0 });
        Self { shards: (0..count.next_power_of_two()).map(|_| shard()).collect(), hasher }
    }

    /// Number of shards; a power of two.
    pub(crate) fn count(&self) -> usize {
        self.shards.len()
    }

    /// The hash of a tuple, and of its reverse.
    #[inline]
    pub(crate) fn hash(&self, tuple: &Tuple) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        let (ends, rest) = tuple.both_ways();
        for end in ends {
            if tuple.is_v6() {
                hasher.write_u64(end[0]);
            }
            hasher.write_u64(end[1]);
        }
        hasher.write_u64(rest);
        hasher.finish()
    }

    /// The shard for a hash. A table takes its slot from the low bits and a tag from the highest seven.
    #[inline]
    pub(crate) fn index(&self, hash: u64) -> usize {
        (hash >> 40) as usize & (self.shards.len() - 1)
    }

    /// The item that is known by `tuple`, and in which direction.
    #[inline]
    pub(crate) fn find(&self, tuple: &Tuple) -> Option<(Arc<T>, Direction)> {
        let hash = self.hash(tuple);
        let shard = self.lock(self.index(hash));
        let (item, direction) = shard.find(hash, tuple)?;
        Some((Arc::clone(item), direction))
    }

    /// Puts an item in under both tuples, or neither. One that `is_stale` is not left in its way.
    pub(crate) fn insert(&self, item: &Arc<T>, is_stale: impl Fn(&T) -> bool) -> Put<T> {
        let hashes = [Direction::Original, Direction::Reply].map(|d| (d, self.hash(item.tuple(d))));
        let [(_, original), (_, reply)] = hashes;
        let mut locked = self.lock_both(self.index(original), self.index(reply));
        for (direction, hash) in hashes {
            match locked.at(self.index(hash)).find(hash, item.tuple(direction)) {
                None => {}
                Some((other, _)) if is_stale(other) => return Put::Stale(Arc::clone(other)),
                Some((other, seen_as)) if direction == Direction::Original => {
                    return Put::Exists(Arc::clone(other), seen_as);
                }
                Some(_) => return Put::Taken,
            }
        }
        locked.at(self.index(original)).insert(Entry { item: Arc::clone(item), hash: original });
        if reply != original {
            locked.at(self.index(reply)).insert(Entry { item: Arc::clone(item), hash: reply });
        }
        Put::Done
    }

    /// Ends an item and takes it out. False if somebody else did, or does at this moment.
    pub(crate) fn remove(&self, item: &Arc<T>) -> bool {
        if !item.end() {
            return false;
        }
        let [original, reply] = [Direction::Original, Direction::Reply].map(|d| self.hash(item.tuple(d)));
        let mut locked = self.lock_both(self.index(original), self.index(reply));
        locked.at(self.index(original)).remove(item, original);
        if reply != original {
            locked.at(self.index(reply)).remove(item, reply);
        }
        true
    }

    /// Adds the items of one shard that are `wanted` to `found`, each item of the table once: with its original tuple's
    /// shard. An item that is there from beginning to end is not missed. `wanted` runs under the shard's lock, so it
    /// takes none itself.
    pub(crate) fn collect(&self, index: usize, found: &mut Vec<Arc<T>>, wanted: impl Fn(&T) -> bool) {
        let (start, mut from, mut moves, mut restarts) = (found.len(), 0, None, 0);
        loop {
            let shard = self.lock(index);
            if moves.replace(shard.moves).is_some_and(|moves| moves != shard.moves) {
                found.truncate(start);
                (from, restarts) = (0, restarts + 1);
            }
            let slots = shard.entries.num_buckets();
            let to = if restarts < RESTARTS { slots.min(from + STEP) } else { slots };
            let entries = (from..to).filter_map(|slot| shard.entries.get_bucket(slot));
            let is_first = |entry: &Entry<T>| self.hash(entry.item.tuple(Direction::Original)) == entry.hash;
            let entries = entries.filter(|e| is_first(e) && e.item.is_alive() && wanted(&e.item));
            found.extend(entries.map(|e| Arc::clone(&e.item)));
            if to == slots {
                return;
            }
            from = to;
            drop(shard);
            // A lock that is taken again at once is never left to those who wait for it.
            yield_now();
        }
    }

    /// Shows `look` some items of one shard, at most `most`, from a place that `hash` says.
    pub(crate) fn sample(&self, index: usize, hash: u64, most: usize, look: impl FnMut(&Arc<T>)) {
        let shard = self.lock(index);
        let slots = shard.entries.num_buckets();
        let places = (0..slots.min(STEP)).map(|i| (hash as usize).wrapping_add(i) & (slots - 1));
        let items = places.filter_map(|slot| shard.entries.get_bucket(slot)).map(|entry| &entry.item);
        items.filter(|item| item.is_alive()).take(most).for_each(look);
    }

    /// The item with this hash that is `wanted`.
    pub(crate) fn find_by_hash(&self, hash: u64, wanted: impl Fn(&T) -> bool) -> Option<Arc<T>> {
        let shard = self.lock(self.index(hash));
        let found = shard.entries.find(hash, |e| e.hash == hash && e.item.is_alive() && wanted(&e.item))?;
        Some(Arc::clone(&found.item))
    }

    /// Gives memory back where a shard has much more than it needs.
    pub(crate) fn trim(&self, index: usize) {
        self.lock(index).trim();
    }

    /// Entries of one shard: two of an item with two hashes.
    #[cfg(test)]
    pub(crate) fn entries(&self, index: usize) -> usize {
        self.lock(index).entries.len()
    }

    /// Entries that one shard has room for.
    #[cfg(test)]
    pub(crate) fn capacity(&self, index: usize) -> usize {
        self.lock(index).entries.capacity()
    }

    fn lock(&self, index: usize) -> MutexGuard<'_, Shard<T>> {
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_both(&self, a: usize, b: usize) -> Locked<'_, T> {
        let (low_index, high) = (a.min(b), a.max(b));
        let low = self.lock(low_index);
        Locked { low, low_index, high: (low_index != high).then(|| self.lock(high)) }
    }
}

impl<T: TwoKeyed> Locked<'_, T> {
    /// The shard with this index, which is one of those that were locked.
    fn at(&mut self, index: usize) -> &mut Shard<T> {
        match &mut self.high {
            Some(high) if index != self.low_index => high,
            _ => &mut self.low,
        }
    }
}

impl<T: TwoKeyed> Shard<T> {
    #[inline]
    fn find(&self, hash: u64, tuple: &Tuple) -> Option<(&Arc<T>, Direction)> {
        let is = |item: &T, direction| item.tuple(direction) == tuple;
        let known = |item: &T| is(item, Direction::Original) || is(item, Direction::Reply);
        let item = &self.entries.find(hash, |e| e.hash == hash && known(&e.item) && e.item.is_alive())?.item;
        let original = is(item, Direction::Original);
        Some((item, if original { Direction::Original } else { Direction::Reply }))
    }

    fn insert(&mut self, entry: Entry<T>) {
        if self.entries.capacity() == self.entries.len() {
            self.moves = self.moves.wrapping_add(1);
        }
        self.entries.insert_unique(entry.hash, entry, |entry| entry.hash);
    }

    fn remove(&mut self, item: &Arc<T>, hash: u64) {
        if let Ok(found) = self.entries.find_entry(hash, |entry| Arc::ptr_eq(&entry.item, item)) {
            found.remove();
        }
    }

    fn trim(&mut self) {
        let len = self.entries.len();
        if self.entries.capacity() / 8 > len.max(STEP / 8) {
            self.moves = self.moves.wrapping_add(1);
            self.entries.shrink_to(2 * len, |entry| entry.hash);
        }
    }
}
