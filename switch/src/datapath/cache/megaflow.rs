//! The megaflow cache of one worker: for each translated packet, the bits that its translation looked at and what came
//! of it. A packet that agrees in those bits gets the same.
//!
//! # Layout
//! Entries live in two arrays by number: [`Hot`], what a hit touches (two cache lines), and `Rest`. Action lists are
//! kept apart, each once ([`lists`](super::lists)). Per distinct mask there is a [`Subtable`], a hash table of entry
//! numbers; a lookup tries the subtables in the order of their recent hits. Entries carry no priorities: where two fit
//! a packet and are up to date, both give the right answer.
//!
//! # Up to date
//! Each entry notes the model's generation and the versions of the MAC table answers that it was made with. A worker
//! numbers the states of the two that it has seen (its *epoch*); an entry that was checked in this epoch needs no
//! further look. Otherwise it is compared once, and translated anew by the next packet that hits it if anything
//! changed. Nothing walks the cache because a rule changed.
//!
//! Flows that packets learn, or that time takes away, come and go often; they change their tables and nothing else, so that an
//! entry whose translation did not read those is up to date all the same.
//!
//! # The union of masks
//! The cache keeps the union of all its masks. The hash for the [exact cache](super::exact) covers those bits and no
//! others; when the union changes, old slots of the exact cache are simply not found any more.
//!
//! # Limits
//! [`MegaflowCache::limit`] entries; a full cache evicts the least recently used of a sample. Lookups cost a probe per
//! distinct mask, so traffic made to provoke many masks slows misses down, not hits of the exact cache.

use super::lens::{INLINE, Key, Lens, Secret, Words};
use super::lists::{List, Lists, Steps};
use crate::conntrack::Guard;
use crate::datapath::passes::Continuation;
use crate::mac_table::MacTable;
use hashbrown::HashTable;
use sluice_flows::bridge::Model;
use sluice_flows::datapath::{DpAction, Effect, MacSighting};
use sluice_flows::key::PacketKey;
use sluice_flows::rule::{Millis, Rule, RuleStats, TableSet};
use sluice_flows::{DpPort, DropReason, Verdict};
use smallvec::SmallVec;
use std::sync::Arc;

/// Entries looked at to find one to evict.
const EVICT_SAMPLE: usize = 16;

/// What a hit does, for the cases that need no list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Send the packet as it is to one port.
    Output(DpPort),
    /// Do nothing and count a drop.
    Drop(DropReason),
    /// Change headers and send the packet by one port, as the list of this number says.
    Hop(u32),
    /// Work through the list of this number.
    List(u32),
    /// The same for a list that asks connection tracking, or goes on in other passes.
    Passes(u32),
}

/// What a hit touches.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(crate) struct Hot {
    /// Packets since they were last credited.
    pub(crate) packets: u64,
    /// Bytes since they were last credited.
    pub(crate) bytes: u64,
    /// When it was last hit.
    pub(crate) used: Millis,
    /// The worker's epoch in which the entry was last known to be up to date.
    pub(crate) epoch: u64,
    pub(crate) plan: Plan,
    /// Number of what must hold besides; [`UNGUARDED`] for nothing.
    pub(crate) guards: u32,
    /// [`FREE`] in an entry that is not in use.
    subtable: u32,
    /// What the subtable's lens shows of the packet, the first words.
    words: [u64; INLINE],
}

const _: () = assert!(size_of::<Hot>() == 128, "a hit touches two cache lines");

/// Stands for no subtable.
const FREE: u32 = u32::MAX;
/// Stands for no guards.
pub(crate) const UNGUARDED: u32 = u32::MAX;

/// What must hold of connections for an entry to be used. Nearly always it is one; room for more lies elsewhere, so
/// that those of many entries fit the CPU's caches.
#[derive(Debug)]
struct Kept {
    first: Guard,
    others: Option<Box<[Guard]>>,
}

/// What must hold of connections for an entry to be made.
pub(crate) type Guards = SmallVec<[Guard; 2]>;

impl Kept {
    #[inline]
    fn all(&self, mut holds: impl FnMut(&Guard) -> bool) -> bool {
        holds(&self.first) && self.others.as_ref().is_none_or(|others| others.iter().all(holds))
    }
}

/// The guards of an entry, if it has any.
#[derive(Clone, Copy)]
pub(crate) struct Guarded<'a>(Option<&'a Kept>);

impl Guarded<'_> {
    /// Whether all of them agree to `holds`.
    pub(crate) fn all(self, holds: impl FnMut(&Guard) -> bool) -> bool {
        self.0.is_none_or(|kept| kept.all(holds))
    }
}

/// An entry, part by part.
pub(crate) struct Parts<'a> {
    pub(crate) hot: &'a mut Hot,
    pub(crate) flow: &'a mut Flow,
    pub(crate) guards: Guarded<'a>,
}

/// An entry to install.
pub(crate) struct Draft<'a, K: Key> {
    pub(crate) mask: &'a K::Mask,
    /// It is for this one, and everything like it under the mask.
    pub(crate) key: &'a K,
    pub(crate) flow: Flow,
    pub(crate) steps: Steps,
    pub(crate) guards: Guards,
}

/// What crediting, checking and dumping touch.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) verdict: Verdict,
    /// Generation of the model that it was made from, or was found to say the same as.
    pub(crate) generation: u64,
    /// Tables that it depends on.
    pub(crate) tables: TableSet,
    /// MAC table counters that it depends on, with the values they had.
    pub(crate) macs: SmallVec<[(u16, u32); 2]>,
    pub(crate) sightings: SmallVec<[MacSighting; 1]>,
    /// Rules to credit, each as often as it matched.
    pub(crate) rules: Vec<Arc<Rule>>,
    /// What else its packets do.
    pub(crate) side: Side,
    pub(crate) patched: SmallVec<[DpPort; 2]>,
    /// The packet that it was made for.
    pub(crate) example: PacketKey,
    /// Packets credited so far.
    pub(crate) packets: u64,
    /// Bytes credited so far.
    pub(crate) bytes: u64,
    /// Packets not yet credited whose effects on the tables were brought about already: that of the translation.
    pub(crate) effected: u64,
}

impl Flow {
    /// Whether it still says what the model's tables and the MAC table say.
    pub(crate) fn is_fresh(&self, model: &Model, macs: &MacTable) -> bool {
        model.is_unchanged_since(self.generation, &self.tables)
            && self.macs.iter().all(|(slot, version)| macs.version(*slot) == *version)
    }
}

/// What packets do beside being sent, that few flows have: groups to credit, and changes to the tables.
#[derive(Clone, Debug, Default)]
pub(crate) struct Side(Option<Box<SideInner>>);

#[derive(Clone, Debug)]
struct SideInner {
    buckets: Vec<Arc<RuleStats>>,
    effects: Vec<Effect>,
}

impl Side {
    pub(crate) fn new(buckets: Vec<Arc<RuleStats>>, effects: Vec<Effect>) -> Self {
        let any = !buckets.is_empty() || !effects.is_empty();
        Self(any.then(|| Box::new(SideInner { buckets, effects })))
    }

    /// Counters of groups and buckets, each as often as it was taken.
    pub(crate) fn buckets(&self) -> &[Arc<RuleStats>] {
        self.0.as_ref().map_or(&[], |side| &side.buckets)
    }

    /// What each packet does to the tables.
    pub(crate) fn effects(&self) -> &[Effect] {
        self.0.as_ref().map_or(&[], |side| &side.effects)
    }
}

/// What only the cache itself needs of an entry.
#[derive(Clone, Debug)]
struct Rest {
    /// Hash of the packet under the subtable's mask.
    hash: u64,
    /// What the lens shows behind [`Hot::words`].
    words: Box<[u64]>,
    flow: Flow,
}

/// The entries under one mask.
#[derive(Debug)]
struct Subtable<M> {
    mask: M,
    /// Its entries have guards.
    guarded: bool,
    lens: Lens,
    table: HashTable<u32>,
    /// Lookups answered since the order was last made.
    hits: u64,
}

/// The megaflow cache of one worker.
#[derive(Debug)]
pub(crate) struct MegaflowCache<K: Key = PacketKey> {
    hot: Vec<Hot>,
    rest: Vec<Rest>,
    guards: Slots<Kept>,
    lists: Lists,
    free: Vec<u32>,
    subtables: Vec<Subtable<K::Mask>>,
    /// Numbers of the subtables in use, most hit first.
    order: Vec<u32>,
    /// Numbers of those not in use.
    idle: Vec<u32>,
    union: K::Mask,
    lens: Lens,
    secret: Secret,
    limit: usize,
    hand: usize,
}

impl<K: Key> MegaflowCache<K> {
    /// An empty cache of at most `limit` entries (at least 1).
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            hot: Vec::new(),
            rest: Vec::new(),
            guards: Slots::default(),
            lists: Lists::default(),
            free: Vec::new(),
            subtables: Vec::new(),
            order: Vec::new(),
            idle: Vec::new(),
            union: K::Mask::ZERO,
            lens: Lens::new(&K::Mask::ZERO),
            secret: Secret::random(),
            limit: limit.clamp(1, u32::MAX as usize),
            hand: 0,
        }
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.hot.len() - self.free.len()
    }

    /// Whether no entry can be added without evicting one.
    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    /// Number of distinct masks.
    pub(crate) fn masks(&self) -> usize {
        self.order.len()
    }

    /// Hash of `key` over every bit that some entry looks at.
    #[inline]
    pub(crate) fn hash(&self, key: &K) -> u64 {
        self.lens.hash(key, &self.secret)
    }

    /// Whether `key` agrees with the entry `index`, which need not be in use.
    #[inline]
    pub(crate) fn agrees(&self, index: u32, key: &K) -> bool {
        let Some(hot) = self.hot.get(index as usize) else { return false };
        let Some(subtable) = self.subtables.get(hot.subtable as usize) else { return false };
        subtable.lens.shows_first(key, &hot.words)
            && (!subtable.lens.is_wide() || subtable.lens.shows_rest(key, &self.rest[index as usize].words))
    }

    /// Whether what agrees with the entry `index`, which need not be in use, has to go through other passes.
    #[inline]
    pub(crate) fn takes_passes(&self, index: u32) -> bool {
        self.hot.get(index as usize).is_some_and(|hot| matches!(hot.plan, Plan::Passes(_)))
    }

    /// Number of an entry that `key` agrees with; one that has guards, if there is one and the packet would have to take
    /// other passes without.
    pub(crate) fn find(&mut self, key: &K) -> Option<u32> {
        let mut long = None;
        for &number in &self.order {
            let subtable = &self.subtables[number as usize];
            if long.is_some() && !subtable.guarded {
                continue;
            }
            let Some(index) = self.find_in(subtable, key) else { continue };
            self.subtables[number as usize].hits += 1;
            if !matches!(self.hot[index as usize].plan, Plan::Passes(_)) {
                return Some(index);
            }
            long = Some(index);
        }
        long
    }

    /// Number of an entry without guards that `key` agrees with.
    pub(crate) fn find_unguarded(&mut self, key: &K) -> Option<u32> {
        for &number in &self.order {
            let subtable = &self.subtables[number as usize];
            if !subtable.guarded
                && let Some(index) = self.find_in(subtable, key)
            {
                self.subtables[number as usize].hits += 1;
                return Some(index);
            }
        }
        None
    }

    fn find_in(&self, subtable: &Subtable<K::Mask>, key: &K) -> Option<u32> {
        let hash = subtable.lens.hash(key, &self.secret);
        subtable.table.find(hash, |&i| self.agrees(i, key)).copied()
    }

    /// Looks at the connections of the entry `index`, which is in use, so that the CPU has them when they are needed.
    #[inline]
    pub(crate) fn touch(&self, index: u32) {
        let guards = self.hot[index as usize].guards;
        if let Some(kept) = self.guards.get(guards) {
            kept.all(Guard::is_current);
        }
    }

    /// Whether everything that must hold for the entry with this [`Hot::guards`] does, by `holds`. If so, `pass` takes the
    /// packet in.
    #[inline]
    pub(crate) fn admit(&self, number: u32, holds: impl Fn(&Guard) -> bool, pass: impl Fn(&Guard)) -> bool {
        let Some(Kept { first, others }) = self.guards.get(number) else { return true };
        if !holds(first) || others.as_ref().is_some_and(|others| !others.iter().all(holds)) {
            return false;
        }
        pass(first);
        if let Some(others) = others {
            others.iter().for_each(pass);
        }
        true
    }

    /// The entry `index`, which is in use.
    #[inline]
    pub(crate) fn hot(&mut self, index: u32) -> &mut Hot {
        &mut self.hot[index as usize]
    }

    /// All parts of the entry `index`, which is in use.
    pub(crate) fn parts(&mut self, index: u32) -> Parts<'_> {
        let hot = &mut self.hot[index as usize];
        let guards = self.guards.get(hot.guards);
        Parts { flow: &mut self.rest[index as usize].flow, guards: Guarded(guards), hot }
    }

    /// The action list `number`, which some entry has.
    #[inline]
    pub(crate) fn list(&self, number: u32) -> &List {
        self.lists.get(number)
    }

    /// The actions of a plan, for a dump.
    fn actions(&self, plan: Plan) -> Vec<DpAction> {
        match plan {
            Plan::Output(port) => vec![DpAction::Output(port)],
            Plan::Drop(_) => Vec::new(),
            Plan::Hop(number) | Plan::List(number) => self.lists.get(number).actions.to_vec(),
            Plan::Passes(number) => {
                let list = self.lists.get(number);
                list.actions.iter().map(|action| numbered(action, &list.resumes)).collect()
            }
        }
    }

    /// The mask of the entry `index`.
    pub(crate) fn mask(&self, index: u32) -> Option<&K::Mask> {
        let subtable = self.hot.get(index as usize).and_then(|hot| self.subtables.get(hot.subtable as usize));
        subtable.map(|s| &s.mask)
    }

    /// Adds an entry and returns its number. One with the same mask and key, and guards or none alike, is replaced:
    /// `settle` sees it before it goes, as it does one that is evicted because the cache is full. Says whether one was
    /// evicted.
    pub(crate) fn install(
        &mut self,
        draft: Draft<'_, K>,
        epoch: u64,
        now: Millis,
        mut settle: impl FnMut(Parts<'_>),
    ) -> (u32, bool) {
        let Draft { mask, key, flow, steps, guards } = draft;
        let number = self.subtable(mask, !guards.is_empty());
        let subtable = &self.subtables[number as usize];
        let hash = subtable.lens.hash(key, &self.secret);
        let view = subtable.lens.view(key);
        let old = self.find_in(subtable, key);
        let plan = self.plan(steps, flow.verdict);
        let guards = self.keep(guards);
        let fresh = Hot { packets: 0, bytes: 0, used: now, epoch, plan, guards, subtable: number, words: view.first };
        let rest = Rest { hash, words: view.rest, flow };
        if let Some(index) = old {
            let Hot { plan, guards, .. } = self.hot[index as usize];
            settle(self.parts(index));
            self.release(plan, guards);
            self.hot[index as usize] = fresh;
            self.rest[index as usize] = rest;
            return (index, false);
        }
        let evicted = self.is_full() && self.evict(&mut settle);
        let index = match self.free.pop() {
            Some(index) => {
                self.hot[index as usize] = fresh;
                self.rest[index as usize] = rest;
                index
            }
            None => {
                self.hot.push(fresh);
                self.rest.push(rest);
                (self.hot.len() - 1) as u32
            }
        };
        let rest = &self.rest;
        self.subtables[number as usize].table.insert_unique(hash, index, |&i| rest[i as usize].hash);
        (index, evicted)
    }

    /// Number of the guards; [`UNGUARDED`] for none.
    fn keep(&mut self, guards: Guards) -> u32 {
        let mut all = guards.into_iter();
        let Some(first) = all.next() else { return UNGUARDED };
        let others = (all.len() > 0).then(|| all.collect());
        self.guards.insert(Kept { first, others })
    }

    /// The plan that does what the list says.
    fn plan(&mut self, steps: Steps, verdict: Verdict) -> Plan {
        match (steps.actions.as_slice(), verdict) {
            ([], Verdict::Drop(reason)) => Plan::Drop(reason),
            ([DpAction::Output(port)], Verdict::Forward) => Plan::Output(*port),
            _ if has_passes(&steps) => Plan::Passes(self.lists.intern(steps, verdict)),
            _ => {
                let number = self.lists.intern(steps, verdict);
                if self.lists.get(number).hop.is_some() { Plan::Hop(number) } else { Plan::List(number) }
            }
        }
    }

    fn release(&mut self, plan: Plan, guards: u32) {
        if let Plan::Hop(number) | Plan::List(number) | Plan::Passes(number) = plan {
            self.lists.release(number);
        }
        self.guards.remove(guards);
    }

    /// Removes the entry `index`, which is in use. It was settled before.
    pub(crate) fn remove(&mut self, index: u32) {
        let hot = &mut self.hot[index as usize];
        let (plan, guards, subtable) = (hot.plan, hot.guards, std::mem::replace(&mut hot.subtable, FREE));
        let rest = &mut self.rest[index as usize];
        rest.flow.rules = Vec::new();
        rest.flow.side = Side::default();
        rest.words = Box::default();
        if let Ok(found) = self.subtables[subtable as usize].table.find_entry(rest.hash, |&i| i == index) {
            found.remove();
        }
        self.release(plan, guards);
        self.free.push(index);
    }

    /// Forgets everything. It was settled before.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.limit);
    }

    /// Whether the entry number `index` is in use.
    fn in_use(&self, index: usize) -> bool {
        self.hot[index].subtable != FREE
    }

    /// Shows `visit` the next `count` entry numbers in use, or fewer when it has been round once; those for which it
    /// returns false are removed. Returns how many were removed.
    pub(crate) fn sweep(&mut self, count: usize, mut visit: impl FnMut(Parts<'_>) -> bool) -> usize {
        let mut removed = 0;
        for _ in 0..count.min(self.hot.len()) {
            self.hand = if self.hand + 1 < self.hot.len() { self.hand + 1 } else { 0 };
            if !self.in_use(self.hand) {
                continue;
            }
            if !visit(self.parts(self.hand as u32)) {
                self.remove(self.hand as u32);
                removed += 1;
            }
        }
        removed
    }

    /// Shows `visit` every entry with its key under the mask, its mask and its actions.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Hot, &Flow, &K, &K::Mask, Vec<DpAction>)) {
        for (hot, rest) in self.hot.iter().zip(&self.rest) {
            if let Some(subtable) = self.subtables.get(hot.subtable as usize) {
                let key = subtable.lens.key(&hot.words, &rest.words);
                visit(hot, &rest.flow, &key, &subtable.mask, self.actions(hot.plan));
            }
        }
    }

    /// Room for entries, those free included: what one round of [`Self::sweep`] visits.
    pub(crate) fn size(&self) -> usize {
        self.hot.len()
    }

    /// Sorts the subtables by their hits since the last time, forgets empty ones, and shrinks the union of masks to
    /// what is left.
    pub(crate) fn sort(&mut self) {
        let (subtables, idle) = (&self.subtables, &mut self.idle);
        self.order.retain(|&n| {
            let used = !subtables[n as usize].table.is_empty();
            if !used {
                idle.push(n);
            }
            used
        });
        self.order.sort_by_key(|&n| std::cmp::Reverse(self.subtables[n as usize].hits));
        let mut union = K::Mask::ZERO;
        for &number in &self.order {
            let subtable = &mut self.subtables[number as usize];
            // Halved and not cleared: a pause does not lose the order.
            subtable.hits /= 2;
            widen(&mut union, &subtable.mask);
        }
        self.set_union(union);
    }

    /// Number of the subtable for `mask` and entries with guards or without; a new one if there is none.
    fn subtable(&mut self, mask: &K::Mask, guarded: bool) -> u32 {
        let same = |s: &Subtable<K::Mask>| s.guarded == guarded && s.mask == *mask;
        if let Some(&number) = self.order.iter().find(|&&n| same(&self.subtables[n as usize])) {
            return number;
        }
        let fresh = Subtable { mask: *mask, guarded, lens: Lens::new(mask), table: HashTable::new(), hits: 0 };
        let number = match self.idle.pop() {
            Some(number) => {
                self.subtables[number as usize] = fresh;
                number
            }
            None => {
                self.subtables.push(fresh);
                (self.subtables.len() - 1) as u32
            }
        };
        self.order.push(number);
        let mut union = self.union;
        widen(&mut union, mask);
        self.set_union(union);
        number
    }

    fn set_union(&mut self, union: K::Mask) {
        if union != self.union {
            self.lens = Lens::new(&union);
            self.union = union;
        }
    }

    /// Removes the least recently used of the next few entries.
    fn evict(&mut self, settle: &mut impl FnMut(Parts<'_>)) -> bool {
        let mut oldest = None;
        let mut seen = 0;
        for _ in 0..self.hot.len() {
            self.hand = if self.hand + 1 < self.hot.len() { self.hand + 1 } else { 0 };
            if !self.in_use(self.hand) {
                continue;
            }
            let used = self.hot[self.hand].used;
            if oldest.is_none_or(|(_, other)| used < other) {
                oldest = Some((self.hand, used));
            }
            seen += 1;
            if seen == EVICT_SAMPLE {
                break;
            }
        }
        let Some((index, _)) = oldest else { return false };
        settle(self.parts(index as u32));
        self.remove(index as u32);
        true
    }
}

/// Adds the bits of `mask` to `union`.
pub(crate) fn widen<M: Words>(union: &mut M, mask: &M) {
    for (u, m) in union.words_mut().iter_mut().zip(mask.words()) {
        *u |= m;
    }
}

/// The action with the numbers that the keys of the passes have, which printing raises by one.
fn numbered(action: &DpAction, resumes: &[Arc<Continuation>]) -> DpAction {
    let all = |list: &[DpAction]| list.iter().map(|action| numbered(action, resumes)).collect();
    match action {
        DpAction::Recirculate(index) => {
            let place = resumes.get(*index as usize);
            DpAction::Recirculate(place.map_or(*index, |place| place.number.wrapping_sub(1)))
        }
        DpAction::Clone(list) => DpAction::Clone(all(list)),
        DpAction::CheckPktLen { len, larger, otherwise } => {
            DpAction::CheckPktLen { len: *len, larger: all(larger), otherwise: all(otherwise) }
        }
        other => other.clone(),
    }
}

/// Whether the packet goes on in other passes, or connection tracking is asked.
fn has_passes(steps: &Steps) -> bool {
    !steps.resumes.is_empty() || steps.actions.iter().any(tracks)
}

/// Whether the action asks connection tracking.
fn tracks(action: &DpAction) -> bool {
    match action {
        DpAction::Ct(_) => true,
        DpAction::Clone(list) => list.iter().any(tracks),
        DpAction::CheckPktLen { larger, otherwise, .. } => larger.iter().chain(otherwise.iter()).any(tracks),
        _ => false,
    }
}

/// Values by number; numbers of those removed are used again.
#[derive(Debug)]
struct Slots<T> {
    values: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { values: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    #[inline]
    fn get(&self, number: u32) -> Option<&T> {
        self.values.get(number as usize)?.as_ref()
    }

    fn insert(&mut self, value: T) -> u32 {
        match self.free.pop() {
            Some(number) => {
                self.values[number as usize] = Some(value);
                number
            }
            None => {
                self.values.push(Some(value));
                (self.values.len() - 1) as u32
            }
        }
    }

    /// Removes the value `number`, if there is one.
    fn remove(&mut self, number: u32) {
        if self.values.get_mut(number as usize).and_then(Option::take).is_some() {
            self.free.push(number);
        }
    }
}

#[cfg(test)]
mod tests;
