//! The passes of a packet behind the first: where it goes on, and a cache of what comes of it there.
//!
//! A pass begins with what connection tracking said, or with headers that had to be read anew, so it depends on more
//! than the frame: on the tables' registers and on the connection. Its key is a whole [`FlowKey`]. What the tables had
//! written when the packet was suspended is not compared word by word but by the number of its [`Continuation`]:
//! places to go on at which all of that is equal are one.

use super::cache::lists::Steps;
use super::cache::megaflow::{Draft, Flow, Guards, MegaflowCache, Parts, Plan};
use crate::mac_table::MacTable;
use hashbrown::HashTable;
use sluice_flows::DropReason;
use sluice_flows::bridge::Model;
use sluice_flows::datapath::{DpAction, Resume};
use sluice_flows::key::{FRAME_WORDS, FlowKey, FlowMask, slot};
use sluice_flows::rule::{Millis, Rule};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// Where a packet goes on.
#[derive(Debug)]
pub(crate) struct Continuation {
    /// Its number in the keys of this worker's passes.
    pub(in crate::datapath) number: u32,
    /// The words of the frame in its key are zero: they are read anew.
    pub(crate) resume: Resume,
}

impl Continuation {
    /// One that no cache is asked about.
    pub(super) fn unnumbered(resume: Resume) -> Arc<Self> {
        Arc::new(Self { number: 0, resume })
    }

    /// The key of a pass that begins with the packet `key`.
    fn numbered(&self, key: &FlowKey) -> FlowKey {
        let mut numbered = *key;
        numbered.set(slot::RECIRC_ID, self.number.into());
        numbered
    }
}

/// What is done in one pass.
pub(super) struct Cached {
    pub(super) actions: Arc<[DpAction]>,
    pub(super) resumes: Arc<[Arc<Continuation>]>,
    /// Why the packet is dropped, if it is.
    pub(super) drop: Option<DropReason>,
    /// The rule that says so.
    pub(super) rule: Option<Arc<Rule>>,
}

impl Cached {
    pub(super) fn new(flow: &Flow, actions: Arc<[DpAction]>, resumes: Arc<[Arc<Continuation>]>) -> Self {
        let drop = flow.verdict.drop_reason();
        Self { actions, resumes, drop, rule: drop.and(flow.rules.last().cloned()) }
    }
}

/// One worker's passes.
#[derive(Debug)]
pub(super) struct Passes {
    pub(super) cache: MegaflowCache<FlowKey>,
    known: HashTable<Arc<Continuation>>,
    hasher: RandomState,
    next: u32,
    /// Places known at which those that nothing leads to any more are looked for.
    crowded: usize,
}

/// Least number of places at which it is worth to look for those that nothing leads to.
const CROWD: usize = 1024;

impl Passes {
    /// Without entries; at most `limit` later.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            cache: MegaflowCache::new(limit),
            known: HashTable::new(),
            hasher: RandomState::new(),
            next: 1,
            crowded: CROWD,
        }
    }

    /// The places of a translation as this worker numbers them.
    pub(super) fn number(&mut self, resumes: Vec<Resume>) -> Vec<Arc<Continuation>> {
        resumes.into_iter().map(|resume| self.number_one(resume)).collect()
    }

    fn number_one(&mut self, mut resume: Resume) -> Arc<Continuation> {
        // The first word is the ingress port and the mark, which no frame has.
        resume.key.0[1..FRAME_WORDS].fill(0);
        for (word, written) in resume.key.0[FRAME_WORDS..].iter_mut().zip(resume.tunnel_written.0) {
            *word &= written;
        }
        let hash = self.hash(&resume);
        if let Some(known) = self.known.find(hash, |known| same(&known.resume, &resume)) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.crowded {
            self.forget();
            self.crowded = (2 * self.known.len()).max(CROWD);
        }
        let continuation = Arc::new(Continuation { number: self.next, resume });
        self.next = self.next.checked_add(1).unwrap_or(1);
        let hasher = &self.hasher;
        self.known.insert_unique(hash, Arc::clone(&continuation), |known| hash_of(hasher, &known.resume));
        continuation
    }

    fn hash(&self, resume: &Resume) -> u64 {
        hash_of(&self.hasher, resume)
    }

    /// Number of the entry for a packet that goes on at `place` as `key`; one that is out of date is none.
    pub(super) fn find(
        &mut self,
        place: &Continuation,
        key: &FlowKey,
        (model, epoch, macs): (&Model, u64, &MacTable),
    ) -> Option<u32> {
        let index = self.cache.find(&place.numbered(key))?;
        let Parts { hot, flow, .. } = self.cache.parts(index);
        if hot.epoch != epoch {
            if !flow.is_fresh(model, macs) {
                return None;
            }
            (hot.epoch, flow.generation) = (epoch, model.generation);
        }
        Some(index)
    }

    /// Adds an entry for packets that go on at `place`, and returns its number.
    pub(super) fn install(
        &mut self,
        place: &Continuation,
        (key, mask): (&FlowKey, &FlowMask),
        (flow, steps): (Flow, Steps),
        (epoch, now): (u64, Millis),
        settle: impl FnMut(Parts<'_>),
    ) -> u32 {
        let mut mask = mask.without_pipeline();
        mask.add(slot::RECIRC_ID);
        let key = &place.numbered(key);
        self.cache.install(Draft { mask: &mask, key, flow, steps, guards: Guards::new() }, epoch, now, settle).0
    }

    /// Counts a packet for the entry `index`, and tells what to do with it.
    pub(super) fn hit(&mut self, index: u32, len: u64, now: Millis) -> Cached {
        let hot = self.cache.hot(index);
        hot.packets += 1;
        hot.bytes += len;
        hot.used = now;
        let (actions, resumes) = match hot.plan {
            Plan::Output(port) => ([DpAction::Output(port)].into(), Arc::default()),
            Plan::Drop(_) => Default::default(),
            Plan::Hop(number) | Plan::List(number) | Plan::Passes(number) => {
                let list = self.cache.list(number);
                (Arc::clone(&list.actions), Arc::clone(&list.resumes))
            }
        };
        Cached::new(self.cache.parts(index).flow, actions, resumes)
    }

    /// Sorts the cache, and keeps only the places that something leads to.
    pub(super) fn sort(&mut self) {
        self.cache.sort();
        self.forget();
    }

    /// Forgets the places that nothing leads to.
    fn forget(&mut self) {
        self.known.retain(|known| Arc::strong_count(known) > 1);
    }

    /// Forgets everything. It was settled before.
    pub(super) fn clear(&mut self) {
        self.cache.clear();
        self.known.clear();
    }
}

/// Whether a packet that goes on at either has the same before it. Suspended lists are compared by where they are.
fn same(a: &Resume, b: &Resume) -> bool {
    a.bridge == b.bridge
        && a.table == b.table
        && a.key == b.key
        && a.ct_zone == b.ct_zone
        && a.mirrored == b.mirrored
        && a.tunnel_written == b.tunnel_written
        && a.stack == b.stack
        && a.action_set == b.action_set
        && a.lists.is_empty()
        && b.lists.is_empty()
}

fn hash_of(hasher: &RandomState, resume: &Resume) -> u64 {
    hasher.hash_one((resume.bridge, resume.table, resume.key, resume.ct_zone, &resume.stack))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_flows::bridge::BridgeId;
    use sluice_flows::rule::TableId;

    fn resume(register: u128, source: u128) -> Resume {
        let mut key = FlowKey::ZERO;
        key.set(slot::reg(0), register);
        key.set(slot::IP_SRC, source);
        let (lists, stack, action_set, tunnel_written) = Default::default();
        Resume {
            bridge: BridgeId(0),
            table: TableId::FIRST,
            lists,
            key,
            tunnel_written,
            stack,
            action_set,
            ct_zone: Some(1),
            mirrored: 0,
        }
    }

    #[test]
    fn places_with_the_same_before_them_are_one_whatever_the_frame() {
        let mut passes = Passes::new(16);
        let places = passes.number(vec![resume(1, 7), resume(1, 8), resume(2, 7)]);
        let numbers: Vec<_> = places.iter().map(|place| place.number).collect();
        assert_eq!(numbers, [1, 1, 2]);
    }

    #[test]
    fn places_that_nothing_leads_to_do_not_pile_up() {
        let mut passes = Passes::new(16);
        let kept = passes.number(vec![resume(0, 0)]);
        for register in 1..10 * CROWD as u128 {
            passes.number(vec![resume(register, 0)]);
        }
        assert!(passes.known.len() <= CROWD + 1, "{}", passes.known.len());
        assert_eq!(passes.number(vec![resume(0, 0)])[0].number, kept[0].number, "one in use keeps its number");
    }
}
