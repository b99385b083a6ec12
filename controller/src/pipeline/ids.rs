//! Numbers of groups and endpoints: hashes of what they are of, so that they are the same after a restart.
//!
//! With 31 bits, 20,000 groups have a pair with the same hash once in ten clusters, so [`Ids`] looks for the next free number.
//! Which of two such names gives way depends on who came first; a restart that takes them in sorted order may change that, and then
//! one group gets another number, as if it were new.

use std::collections::{BTreeMap, HashMap, HashSet};

/// Numbers are from 1 to this.
const LAST: u32 = 0x7fff_ffff;

/// A hash of bytes that is the same for ever: FNV-1a, and a mixing step behind it so that all bits depend on all bytes.
pub(super) fn stable_hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}

/// A number from 1 to [`LAST`] for a name, if nobody else has it.
pub(super) fn preferred(bytes: &[u8]) -> u32 {
    // At most LAST - 1 by the remainder, so the sum fits.
    (stable_hash(bytes) % u64::from(LAST)) as u32 + 1
}

/// The number behind another one, round in a circle.
pub(super) const fn next(id: u32) -> u32 {
    if id >= LAST { 1 } else { id + 1 }
}

/// The numbers of the groups of all Services: no two groups have the same, and each keeps its own as long as its Service has it.
///
/// A number that was given back may be another Service's next time: delete what is gone before what is new is added.
#[derive(Clone, Debug, Default)]
pub struct Ids {
    /// Of each Service, its groups by name.
    services: HashMap<String, BTreeMap<String, u32>, foldhash::fast::RandomState>,
    /// The numbers that somebody has.
    taken: HashSet<u32, foldhash::fast::RandomState>,
}

impl Ids {
    /// No numbers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives back the numbers of a Service that is gone.
    pub fn release(&mut self, service: &str) {
        for id in self.services.remove(service).unwrap_or_default().into_values() {
            self.taken.remove(&id);
        }
    }

    /// How many numbers are given.
    pub fn len(&self) -> usize {
        self.taken.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// The numbers of a Service's groups, by their names in it. Those that it had and does not name any more are given back.
    pub(super) fn of(&mut self, service: &str, groups: impl IntoIterator<Item = String>) -> BTreeMap<String, u32> {
        let mut had = self.services.remove(service).unwrap_or_default();
        let mut has = BTreeMap::new();
        let mut new = Vec::new();
        for group in groups {
            match had.remove_entry(&group) {
                Some((group, id)) => has.extend([(group, id)]),
                None => new.push(group),
            }
        }
        for id in had.into_values() {
            self.taken.remove(&id);
        }
        for group in new {
            let name = format!("{service}/{group}");
            has.entry(group).or_insert_with(|| self.take(&name));
        }
        if !has.is_empty() {
            self.services.insert(service.to_owned(), has.clone());
        }
        has
    }

    fn take(&mut self, name: &str) -> u32 {
        let mut id = preferred(name.as_bytes());
        // There are fewer groups than numbers by far: memory ends before these do.
        while self.taken.contains(&id) {
            id = next(id);
        }
        self.taken.insert(id);
        id
    }
}

#[cfg(test)]
impl Ids {
    /// Marks numbers as somebody's.
    pub(super) fn taken_for_test(&mut self, ids: impl Iterator<Item = u32>) {
        self.taken.extend(ids);
    }
}
