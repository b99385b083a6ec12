//! Action lists, each kept once however many megaflows have it.
//!
//! Thousands of megaflows usually share a handful of lists. Kept once, those stay in the CPU's first-level cache; kept
//! per megaflow, working through them costs two cache misses a packet (measured: 100 ns of 170 with 10,000 flows).

use crate::datapath::passes::Continuation;
use hashbrown::HashTable;
use sluice_flows::datapath::DpAction;
use sluice_flows::packet::hop::Hop;
use sluice_flows::{DpPort, Verdict};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// What is done to a packet in one pass.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steps {
    pub(crate) actions: Vec<DpAction>,
    /// Where it goes on in other passes; `Recirculate` counts them.
    pub(crate) resumes: Vec<Arc<Continuation>>,
}

/// An action list with what it comes to.
#[derive(Debug)]
pub(crate) struct List {
    pub(crate) actions: Arc<[DpAction]>,
    pub(crate) resumes: Arc<[Arc<Continuation>]>,
    pub(crate) verdict: Verdict,
    /// If that is all that the actions are: headers to change, and a port to send the packet by.
    pub(crate) hop: Option<(Hop, DpPort)>,
    users: u32,
}

impl List {
    fn new(Steps { actions, resumes }: Steps, verdict: Verdict) -> Self {
        let hop = match actions.as_slice() {
            [changes @ .., DpAction::Output(port)] if verdict == Verdict::Forward => Hop::of(changes).zip(Some(*port)),
            _ => None,
        };
        Self { actions: actions.into(), resumes: resumes.into(), verdict, hop, users: 1 }
    }
}

/// The action lists in use, by number.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    lists: Vec<List>,
    free: Vec<u32>,
    table: HashTable<u32>,
    hasher: RandomState,
}

impl Lists {
    /// Number of the list; one user more. A list with other passes is not shared: they are a packet's own.
    pub(crate) fn intern(&mut self, steps: Steps, verdict: Verdict) -> u32 {
        if !steps.resumes.is_empty() {
            return self.add(List::new(steps, verdict));
        }
        let hash = self.hasher.hash_one((&*steps.actions, verdict));
        let same = |l: &List| *l.actions == *steps.actions && l.verdict == verdict;
        if let Some(&number) = self.table.find(hash, |&n| same(&self.lists[n as usize])) {
            self.lists[number as usize].users += 1;
            return number;
        }
        let number = self.add(List::new(steps, verdict));
        let (lists, hasher) = (&self.lists, &self.hasher);
        self.table.insert_unique(hash, number, |&n| {
            let List { actions, verdict, .. } = &lists[n as usize];
            hasher.hash_one((&**actions, *verdict))
        });
        number
    }

    fn add(&mut self, list: List) -> u32 {
        match self.free.pop() {
            Some(number) => {
                self.lists[number as usize] = list;
                number
            }
            None => {
                self.lists.push(list);
                (self.lists.len() - 1) as u32
            }
        }
    }

    /// One user less; a list without users goes.
    pub(crate) fn release(&mut self, number: u32) {
        let list = &mut self.lists[number as usize];
        list.users -= 1;
        if list.users > 0 {
            return;
        }
        let hash = self.hasher.hash_one((&*list.actions, list.verdict));
        if let Ok(found) = self.table.find_entry(hash, |&n| n == number) {
            found.remove();
        }
        (list.actions, list.resumes, list.hop) = (Arc::default(), Arc::default(), None);
        self.free.push(number);
    }

    /// The list `number`, which is in use.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> &List {
        &self.lists[number as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(ports: &[u32]) -> Steps {
        Steps { actions: ports.iter().map(|p| DpAction::Output(DpPort(*p))).collect(), resumes: Vec::new() }
    }

    #[test]
    fn equal_lists_are_one_until_the_last_user_is_gone() {
        let mut lists = Lists::default();
        let a = lists.intern(outputs(&[1, 2]), Verdict::Forward);
        let b = lists.intern(outputs(&[2, 1]), Verdict::Forward);
        assert_ne!(a, b);
        assert_eq!(lists.intern(outputs(&[1, 2]), Verdict::Forward), a);
        lists.release(a);
        assert_eq!(*lists.get(a).actions, *outputs(&[1, 2]).actions);
        assert_eq!(lists.intern(outputs(&[1, 2]), Verdict::Forward), a);
        lists.release(a);
        lists.release(a);
        assert_eq!(lists.intern(outputs(&[3]), Verdict::Forward), a, "its number is free");
        assert_eq!(*lists.get(b).actions, *outputs(&[2, 1]).actions);
    }
}
