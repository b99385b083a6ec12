//! Conjunctive matches (ovs-fields(7)): which conjunctions the rules that a packet matches satisfy together.
//!
//! A rule whose actions are `conjunction(ID,K/N)` is a **soft** match: it says that the packet has clause K of N of a
//! conjunction, and does nothing by itself. Thousands of rules may share one list of hundreds of such actions, so a
//! list is sorted once, when the first rule with it comes, and kept for all of them, by the list's address.
//!
//! Sorted, the identifiers of one clause lie side by side. A conjunction that is satisfied is found by skipping through
//! the clauses in turn to the next identifier that none of them has passed yet, so the shortest clause bounds the work
//! and the others cost a binary search for each of its entries.

use super::hash_trie::{HashTrie, Hashed};
use crate::action::{Action, Conjunction};
use smallvec::SmallVec;
use std::sync::Arc;

/// Most clauses of a conjunction, as in OVS.
const MAX_CLAUSES: u8 = 64;

/// Whether a rule with these actions is a soft match.
pub(super) fn is_soft(actions: &[Action]) -> bool {
    actions.iter().any(|a| matches!(a, Action::Conjunction(_)))
}

/// The clauses that one list of actions stands for.
#[derive(Debug)]
pub(super) struct Clauses {
    /// By number of clauses, then clause.
    groups: Box<[Group]>,
    /// The identifiers, group by group, ascending in each.
    ids: Box<[u32]>,
}

/// The conjunctions of `clauses` clauses of which a list has clause `clause`.
#[derive(Clone, Copy, Debug)]
struct Group {
    clauses: u8,
    clause: u8,
    /// Where its identifiers end; they start where those of the group before end.
    end: u32,
}

impl Clauses {
    fn of(actions: &[Action]) -> Self {
        let conjunctions = actions.iter().filter_map(|a| if let Action::Conjunction(c) = a { Some(*c) } else { None });
        let mut all: Vec<_> = conjunctions.filter(is_valid).map(|c| (c.clauses, c.clause, c.id)).collect();
        all.sort_unstable();
        all.dedup();
        let mut end = 0;
        let groups = all.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)).map(|group| {
            end += group.len() as u32;
            Group { clauses: group[0].0, clause: group[0].1, end }
        });
        Self { groups: groups.collect(), ids: all.iter().map(|(.., id)| *id).collect() }
    }

    /// The conjunctions of `clauses` clauses of which this list has clause `clause`, ascending.
    fn group(&self, clauses: u8, clause: u8) -> &[u32] {
        let Ok(at) = self.groups.binary_search_by_key(&(clauses, clause), |g| (g.clauses, g.clause)) else {
            return &[];
        };
        let start = if at == 0 { 0 } else { self.groups[at - 1].end };
        &self.ids[start as usize..self.groups[at].end as usize]
    }

    fn heap_size(&self) -> usize {
        size_of_val::<[Group]>(&self.groups) + size_of_val::<[u32]>(&self.ids)
    }
}

/// Whether a conjunction can ever be satisfied by such clauses.
fn is_valid(conjunction: &Conjunction) -> bool {
    (2..=MAX_CLAUSES).contains(&conjunction.clauses) && conjunction.clause < conjunction.clauses
}

/// The smallest identifier from `from` on of which these lists have every clause. Clauses of different numbers of
/// clauses belong to different conjunctions, even if the identifier is the same.
pub(super) fn next_satisfied(lists: &[&Clauses], from: u32) -> Option<u32> {
    let sizes = lists.iter().flat_map(|l| l.groups.iter()).fold(0u128, |sizes, g| sizes | 1 << g.clauses);
    let sizes = (2..=MAX_CLAUSES).filter(|size| sizes & 1 << size != 0);
    sizes.filter_map(|size| next_of_size(lists, size, from)).min()
}

fn next_of_size(lists: &[&Clauses], clauses: u8, from: u32) -> Option<u32> {
    // One clause that no list has ends the search before it begins.
    let mut of_clauses: SmallVec<[SmallVec<[&[u32]; 4]>; 4]> = SmallVec::new();
    for clause in 0..clauses {
        let groups: SmallVec<[&[u32]; 4]> =
            lists.iter().map(|l| l.group(clauses, clause)).filter(|ids| !ids.is_empty()).collect();
        if groups.is_empty() {
            return None;
        }
        of_clauses.push(groups);
    }
    let (mut candidate, mut agreed) = (from, 0);
    for groups in of_clauses.iter().cycle() {
        let next = groups.iter().filter_map(|ids| first_from(ids, candidate)).min()?;
        agreed = if next == candidate { agreed + 1 } else { 1 };
        if agreed == clauses {
            return Some(next);
        }
        candidate = next;
    }
    None
}

/// The first identifier that is not below `from`.
fn first_from(ids: &[u32], from: u32) -> Option<u32> {
    #[cfg(test)]
    work::done();
    ids.get(ids.partition_point(|id| *id < from)).copied()
}

/// The lists of the soft matches of a table.
#[derive(Clone, Debug, Default)]
pub(super) struct Lists {
    lists: HashTrie<List>,
}

#[derive(Clone, Debug)]
struct List {
    /// Where the list is: rules hold it there as long as it is known here.
    address: usize,
    /// How many rules have it.
    rules: u32,
    clauses: Arc<Clauses>,
}

impl Hashed for List {
    fn hash(&self) -> u32 {
        hash(self.address)
    }
}

fn hash(address: usize) -> u32 {
    ((address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

impl Lists {
    /// Counts a rule with this list, if that makes it a soft match.
    pub(super) fn insert(&mut self, actions: &[Action]) {
        if !is_soft(actions) {
            return;
        }
        let address = actions.as_ptr().addr();
        match self.lists.find_mut(hash(address), |l| l.address == address) {
            Some(list) => list.rules += 1,
            None => self.lists.insert(List { address, rules: 1, clauses: Arc::new(Clauses::of(actions)) }),
        }
    }

    /// Takes back one [`insert`](Self::insert) of this list.
    pub(super) fn remove(&mut self, actions: &[Action]) {
        if self.is_empty() || !is_soft(actions) {
            return;
        }
        let address = actions.as_ptr().addr();
        let Some(list) = self.lists.find_mut(hash(address), |l| l.address == address) else { return };
        list.rules -= 1;
        if list.rules == 0 {
            self.lists.remove(hash(address), |l| l.address == address);
        }
    }

    /// The clauses of a list of some rule.
    pub(super) fn get(&self, actions: &[Action]) -> Option<&Clauses> {
        let address = actions.as_ptr().addr();
        let list = self.lists.find(hash(address)).iter().find(|l| l.address == address)?;
        Some(&*list.clauses)
    }

    /// Whether there are no soft matches.
    pub(super) fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    /// Bytes of heap memory.
    pub(super) fn heap_size(&self) -> usize {
        self.lists.heap_size() + self.lists.iter().map(|l| size_of::<Clauses>() + l.clauses.heap_size()).sum::<usize>()
    }
}

/// Counts the searches for an identifier, so that tests need no clock.
#[cfg(test)]
pub(super) mod work {
    use std::cell::Cell;

    thread_local! {
        static DONE: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn done() {
        DONE.set(DONE.get() + 1);
    }

    /// How many there were since the last call.
    pub(in crate::classifier) fn take() -> usize {
        DONE.take()
    }
}
