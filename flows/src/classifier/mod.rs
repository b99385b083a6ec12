//! Which rule of a table a packet matches.
//!
//! [`Classifier`] is a tuple space search. Rules that look at the same bits form a subtable; within it a rule is found
//! by a hash of those bits, so a lookup costs one hash lookup a subtable, however many rules there are. Three things
//! spare subtables, and with them bits of the packet's mask:
//!
//! - **Priorities.** Subtables are searched by their highest priority. When what is left cannot beat what was found, the
//!   search ends; what was not looked at does not matter.
//! - **Stages.** A subtable is looked up stage by stage: ports, metadata and registers, then Ethernet, then IP, then
//!   transport. When no rule has the packet's bits up to the end of a stage, the later ones are not looked at.
//! - **Prefixes.** For addresses and transport ports a tree of all prefixes in the table tells which prefix lengths the
//!   packet can match at all, and the few bits that prove it for the others.
//!
//! # Conjunctive matches
//! A rule whose actions are `conjunction(..)` is a soft match (ovs-fields(7), "Conjunctive Match Fields"). Of the soft
//! matches above the best ordinary rule, those of the highest priority are asked first which conjunctions they satisfy
//! together. For each of these, the smallest identifier first, the packet is looked up again with `conj_id` set and
//! soft matches left out; the first rule that is found wins. If none is, the soft matches of the next lower priority
//! are asked, and in the end the ordinary rule wins. What OVS leaves open is settled so: an ordinary rule wins over
//! soft matches of its own priority; clauses whose numbers of clauses differ belong to different conjunctions; and soft
//! matches hide no ordinary rule of a lower priority with the same match (OVS 3.1 does not see such a rule in the second
//! lookup, though its manual says that conjunctive flows are ignored there).
//!
//! # The mask
//! A lookup adds to the mask enough bits to prove its answer: the bits of the winner, and for every subtable that could
//! hold a better rule a proof that it does not. Any packet that agrees under those bits gets the same answer. It need
//! not be the smallest such mask, and it may depend on which other rules there are.
//!
//! # Sharing
//! Every part is persistent: a clone shares all of it, and a change copies only the way to what it changes. Nothing is
//! copied that no clone holds.
//!
//! # Limits
//! A table with very many different masks is slow: a lookup visits each that the three measures above do not spare. The
//! hash has no secret, so who can choose thousands of matches can make one subtable slow for all who share its table.

mod conjunction;
pub(crate) mod hash_trie;
mod linear;
mod prefix_trie;
mod prefixes;
mod subtable;

pub use linear::Linear;

use crate::action::Action;
use crate::key::{FlowKey, FlowMask, slot};
use crate::matching::Match;
use crate::rule::Rule;
use conjunction::{Clauses, Lists, next_satisfied};
use prefixes::{Prefixes, Walks};
use smallvec::SmallVec;
use std::cmp::{Ordering, Reverse};
use std::sync::Arc;
use subtable::{Entry, Subtable};

/// Which of two rules wins when a packet matches both: the greater.
///
/// Priority decides. Between rules of one priority, which OpenFlow leaves undefined, the one that looks at more bits
/// wins; between those the one whose mask is greater, compared word by word from the first word of the key. Two rules
/// with one mask and one priority that match one packet have the same match, so a table holds only one of them: the
/// winner never depends on the order in which rules were added.
pub fn precedence(a: &Rule, b: &Rule) -> Ordering {
    let bits = |m: &Match| m.words().map(|(_, _, mask)| mask.count_ones()).sum::<u32>();
    let (a, b) = (&a.spec, &b.spec);
    let order = a.priority.cmp(&b.priority).then_with(|| bits(&a.matches).cmp(&bits(&b.matches)));
    order.then_with(|| a.matches.mask().0.cmp(&b.matches.mask().0))
}

/// The rules of a table.
#[derive(Clone, Debug, Default)]
pub struct Classifier {
    /// In the order in which they are searched: the highest priority first, of equal ones the more specific first.
    subtables: Vec<Ranked>,
    prefixes: Prefixes,
    /// The action lists of soft matches.
    lists: Lists,
    len: usize,
}

/// What a lookup found.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The rule that wins.
    pub rule: &'a Arc<Rule>,
    /// The conjunction that led to it, if one did.
    pub conjunction: Option<Satisfied>,
}

/// A conjunction of which the packet has every clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Satisfied {
    /// Its identifier: what `conj_id` was in the second lookup.
    pub id: u32,
    /// The priority of the soft matches.
    pub priority: u16,
}

/// The soft matches of a packet; few tables have more masks with soft matches.
type Soft<'a> = SmallVec<[&'a Entry; 8]>;

/// A subtable, with what is needed to find it and to skip it.
#[derive(Clone, Debug)]
struct Ranked {
    max_priority: u16,
    /// A hash of its mask.
    fingerprint: u32,
    subtable: Arc<Subtable>,
}

impl Ranked {
    /// The order of the search: the greater comes first.
    fn cmp_rank(&self, other: &Self) -> Ordering {
        let order = self.max_priority.cmp(&other.max_priority);
        order.then_with(|| self.subtable.cmp_specificity(&other.subtable))
    }

    /// Whether a rule of this subtable could beat one of priority `priority` in another.
    #[inline]
    fn may_beat(&self, priority: u16, other: &Subtable) -> bool {
        self.max_priority > priority
            || self.max_priority == priority && self.subtable.cmp_specificity(other) == Ordering::Greater
    }
}

impl Classifier {
    /// The rule that wins among those that match `key`; see [`precedence`]. Adds to `mask` every bit that the answer
    /// depends on: any key that agrees with `key` under the bits added gets the same answer.
    pub fn lookup(&self, key: &FlowKey, mask: &mut FlowMask) -> Option<&Arc<Rule>> {
        self.find(key, mask).map(|found| found.rule)
    }

    /// As [`lookup`](Self::lookup), and which conjunction led to the rule.
    pub fn find(&self, key: &FlowKey, mask: &mut FlowMask) -> Option<Found<'_>> {
        if self.lists.is_empty() {
            let rule = self.search_hard(key, mask)?;
            return Some(Found { rule, conjunction: None });
        }
        let mut soft = Soft::new();
        let hard = self.search(key, mask, |entry| soft.push(entry));
        soft.retain(|entry| hard.is_none_or(|rule| entry.priority > rule.spec.priority));
        let joined = self.conjoin(&mut soft, key, mask);
        joined.or_else(|| Some(Found { rule: hard?, conjunction: None }))
    }

    /// The soft matches that gave `key` the clauses of a conjunction, in no particular order.
    pub fn clauses(&self, key: &FlowKey, conjunction: Satisfied) -> Vec<&Arc<Rule>> {
        let Satisfied { id, priority } = conjunction;
        let mut soft = Soft::new();
        self.search(key, &mut FlowMask::default(), |entry| soft.push(entry));
        let has_id = |a: &Action| matches!(a, Action::Conjunction(c) if c.id == id);
        let of_it = soft.iter().filter(|e| e.priority == priority && e.rule.spec.actions.iter().any(has_id));
        of_it.map(|e| &e.rule).collect()
    }

    /// The ordinary rule that wins, with no look at soft matches.
    fn search_hard(&self, key: &FlowKey, mask: &mut FlowMask) -> Option<&Arc<Rule>> {
        self.search_among(self.subtables.iter().filter(|r| !r.subtable.is_all_soft()), key, mask, |_| {})
    }

    /// The ordinary rule that wins; `on_soft` gets the soft matches that may come before it, and perhaps more.
    fn search<'a>(
        &'a self,
        key: &FlowKey,
        mask: &mut FlowMask,
        on_soft: impl FnMut(&'a Entry),
    ) -> Option<&'a Arc<Rule>> {
        self.search_among(self.subtables.iter(), key, mask, on_soft)
    }

    #[inline]
    fn search_among<'a>(
        &'a self,
        subtables: impl Iterator<Item = &'a Ranked>,
        key: &FlowKey,
        mask: &mut FlowMask,
        mut on_soft: impl FnMut(&'a Entry),
    ) -> Option<&'a Arc<Rule>> {
        let mut walks = Walks::new(&self.prefixes, key);
        let mut best: Option<(&Entry, &Subtable)> = None;
        for ranked in subtables {
            if best.is_some_and(|(entry, of)| !ranked.may_beat(entry.priority, of)) {
                break;
            }
            let subtable = &*ranked.subtable;
            subtable.lookup(key, &mut walks, mask, |found| {
                let order = |(entry, of): (&Entry, &Subtable)| {
                    found.priority.cmp(&entry.priority).then_with(|| subtable.cmp_specificity(of))
                };
                if found.soft {
                    on_soft(found);
                } else if best.is_none_or(|best| order(best) == Ordering::Greater) {
                    best = Some((found, subtable));
                }
            });
        }
        best.map(|(entry, _)| &entry.rule)
    }

    /// The rule that the first conjunction leads to that these soft matches satisfy.
    fn conjoin<'a>(&'a self, soft: &mut Soft<'a>, key: &FlowKey, mask: &mut FlowMask) -> Option<Found<'a>> {
        soft.sort_unstable_by_key(|entry| Reverse(entry.priority));
        for soft in soft.chunk_by(|a, b| a.priority == b.priority) {
            let lists: SmallVec<[&Clauses; 8]> =
                soft.iter().filter_map(|entry| self.lists.get(&entry.rule.spec.actions)).collect();
            let mut from = Some(0);
            while let Some(id) = from.and_then(|from| next_satisfied(&lists, from)) {
                if let Some(rule) = self.search_joined(id, key, mask) {
                    return Some(Found { rule, conjunction: Some(Satisfied { id, priority: soft[0].priority }) });
                }
                from = id.checked_add(1);
            }
        }
        None
    }

    /// The ordinary rule that wins when `conj_id` is `id`.
    fn search_joined(&self, id: u32, key: &FlowKey, mask: &mut FlowMask) -> Option<&Arc<Rule>> {
        let mut joined = *key;
        joined.set(slot::CONJ_ID, id.into());
        // The identifier follows from what the mask holds already, so it is no bit of the key that matters.
        let own = mask.get(slot::CONJ_ID);
        let rule = self.search_hard(&joined, mask);
        mask.set(slot::CONJ_ID, own);
        rule
    }

    /// The rule with this priority and this very match.
    pub fn get(&self, priority: u16, matches: &Match) -> Option<&Arc<Rule>> {
        self.subtables.get(self.position(matches)?)?.subtable.get(priority, matches)
    }

    /// Adds a rule; one with the same priority and match is replaced and returned.
    pub fn insert(&mut self, rule: Arc<Rule>) -> Option<Arc<Rule>> {
        self.place(rule, Prefixes::insert)
    }

    /// As [`insert`](Self::insert), for one of many rules: faster, but lookups look at more bits than they have to until
    /// [`settle`](Self::settle).
    pub fn insert_unsettled(&mut self, rule: Arc<Rule>) -> Option<Arc<Rule>> {
        self.place(rule, Prefixes::insert_later)
    }

    /// Ends a row of [`insert_unsettled`](Self::insert_unsettled).
    pub fn settle(&mut self) {
        self.prefixes.settle();
    }

    /// Whether there is nothing to [`settle`](Self::settle).
    pub fn is_settled(&self) -> bool {
        self.prefixes.is_settled()
    }

    fn place(&mut self, rule: Arc<Rule>, track: fn(&mut Prefixes, u8, u8, &Match)) -> Option<Arc<Rule>> {
        let (matches, priority) = (&rule.spec.matches, rule.spec.priority);
        let at = self.position(matches).unwrap_or_else(|| {
            let (subtable, fingerprint) = (Arc::new(Subtable::new(matches)), fingerprint(matches));
            self.subtables.push(Ranked { max_priority: 0, fingerprint, subtable });
            self.subtables.len() - 1
        });
        let ranked = &mut self.subtables[at];
        let is_new = ranked.subtable.is_empty();
        let subtable = Arc::make_mut(&mut ranked.subtable);
        let old = subtable.insert(rule.clone());
        self.lists.insert(&rule.spec.actions);
        old.iter().for_each(|old| self.lists.remove(&old.spec.actions));
        if old.is_none() {
            self.len += 1;
            for &(index, len) in subtable.prefixes() {
                track(&mut self.prefixes, index, len, &rule.spec.matches);
            }
        }
        if is_new || priority > ranked.max_priority {
            ranked.max_priority = priority;
            self.rank(at);
        }
        old
    }

    /// Removes the rule with this priority and this very match.
    pub fn remove(&mut self, priority: u16, matches: &Match) -> Option<Arc<Rule>> {
        let at = self.position(matches)?;
        let ranked = &mut self.subtables[at];
        // Looked for first, so that nothing is copied for a rule that is not there.
        ranked.subtable.get(priority, matches)?;
        let subtable = Arc::make_mut(&mut ranked.subtable);
        let rule = subtable.remove(priority, matches)?;
        self.lists.remove(&rule.spec.actions);
        self.len -= 1;
        for &(index, len) in subtable.prefixes() {
            self.prefixes.remove(index, len, matches);
        }
        match subtable.max_priority() {
            None => drop(self.subtables.remove(at)),
            Some(max) if max != ranked.max_priority => {
                ranked.max_priority = max;
                self.rank(at);
            }
            Some(_) => {}
        }
        Some(rule)
    }

    /// Every rule, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.subtables.iter().flat_map(|r| r.subtable.iter())
    }

    /// Every rule whose match is `matches` or narrower, in no particular order.
    pub fn within<'a>(&'a self, matches: &'a Match) -> impl Iterator<Item = &'a Arc<Rule>> {
        let subtables = self.subtables.iter().filter(|r| r.subtable.may_be_within(matches));
        let all = matches.is_any();
        subtables.flat_map(|r| r.subtable.iter()).filter(move |r| all || r.spec.matches.is_within(matches))
    }

    /// A rule of this priority, other than the one with this very match, that some packet could match besides this
    /// match.
    pub fn overlapping(&self, priority: u16, matches: &Match) -> Option<&Arc<Rule>> {
        let subtables = self.subtables.iter().take_while(|r| r.max_priority >= priority);
        let mut rules = subtables.flat_map(|r| r.subtable.iter());
        rules.find(|r| r.spec.priority == priority && r.spec.matches != *matches && r.spec.matches.overlaps(matches))
    }

    /// Number of rules.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of subtables: of different masks.
    pub fn subtables(&self) -> usize {
        self.subtables.len()
    }

    /// Estimate of the bytes of memory that the index takes, rules not included.
    pub fn heap_size(&self) -> usize {
        let subtables: usize = self.subtables.iter().map(|r| size_of::<Subtable>() + r.subtable.heap_size()).sum();
        self.subtables.capacity() * size_of::<Ranked>() + subtables + self.prefixes.heap_size() + self.lists.heap_size()
    }

    /// Where the subtable of matches with this mask is.
    fn position(&self, matches: &Match) -> Option<usize> {
        let fingerprint = fingerprint(matches);
        self.subtables.iter().position(|r| r.fingerprint == fingerprint && r.subtable.fits(matches))
    }

    /// Moves the subtable at `at`, whose highest priority has changed, to its place.
    fn rank(&mut self, at: usize) {
        let moved = self.subtables.remove(at);
        let to = self.subtables.partition_point(|r| r.cmp_rank(&moved) == Ordering::Greater);
        self.subtables.insert(to, moved);
    }
}

/// A hash of a match's mask.
fn fingerprint(matches: &Match) -> u32 {
    let hash = matches.words().fold(0u64, |hash, (index, _, mask)| {
        (hash.rotate_left(5) ^ mask ^ index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests;
