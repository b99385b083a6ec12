//! Flow tables: the rules of a bridge, found by packet, by match, by filter and by timeout.
//!
//! [`Tables`] is a value. A clone shares everything with the original, and a change to one of them copies only what
//! lies on the way to the change, so translation reads a snapshot while the next one is made. What nobody else holds
//! is changed in place, so a bundle that starts from a fresh clone copies each part at most once.
//!
//! Beside the classifiers there are indexes that cost nothing for rules that are not in them: the rules with a timeout,
//! by the earliest moment at which they can expire and by which would be evicted first; and what flows the rules learn
//! that are to go with them. Rules that do the same share one list of actions, wherever they came from.

mod learned;
mod lists;
mod timeouts;

pub use learned::deletes_learned;
pub use lists::ActionLists;

use crate::classifier::{Classifier, Found, Satisfied};
use crate::filter::FlowFilter;
use crate::key::{FlowKey, FlowMask};
use crate::matching::Match;
use crate::reference::References;
use crate::rule::{Millis, Rule, RuleStats, TableId};
use learned::Learners;
use std::fmt;
use std::sync::Arc;
use timeouts::Timeouts;

/// The flow tables of a bridge, 0 to 254.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// By table number; shorter than 255 when the last tables are empty.
    tables: Vec<Option<Arc<Classifier>>>,
    timeouts: Timeouts,
    learners: Learners,
    lists: ActionLists,
    references: References,
    len: usize,
    /// Whether many rules are being added.
    unsettled: bool,
}

/// Why a rule was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RemovedReason {
    /// No packet matched it for its idle timeout.
    IdleTimeout,
    /// Its hard timeout passed.
    HardTimeout,
    /// It was deleted, or what had learned it is gone.
    Delete,
    /// A group that it sends to was deleted.
    GroupDelete,
    /// A meter that it goes through was deleted.
    MeterDelete,
    /// Its full table made room for another.
    Evicted,
}

impl RemovedReason {
    /// The reason's name, as every output spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::IdleTimeout => "idle",
            Self::HardTimeout => "hard",
            Self::Delete => "delete",
            Self::GroupDelete => "group_delete",
            Self::MeterDelete => "meter_delete",
            Self::Evicted => "eviction",
        }
    }
}

impl fmt::Display for RemovedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Tables {
    /// No rules.
    pub fn new() -> Self {
        Self::default()
    }

    /// The rule of `table` that wins among those that match `key`; see [`precedence`](crate::classifier::precedence).
    /// Adds to `mask` every bit that the answer depends on: any key that agrees with `key` under the bits added gets
    /// the same answer.
    pub fn lookup(&self, table: TableId, key: &FlowKey, mask: &mut FlowMask) -> Option<&Arc<Rule>> {
        self.table(table)?.lookup(key, mask)
    }

    /// As [`lookup`](Self::lookup), and which conjunction led to the rule.
    pub fn find(&self, table: TableId, key: &FlowKey, mask: &mut FlowMask) -> Option<Found<'_>> {
        self.table(table)?.find(key, mask)
    }

    /// The soft matches of `table` that gave `key` the clauses of a conjunction, in no particular order.
    pub fn clauses(&self, table: TableId, key: &FlowKey, conjunction: Satisfied) -> Vec<&Arc<Rule>> {
        self.table(table).map_or_else(Vec::new, |t| t.clauses(key, conjunction))
    }

    /// The rule of `table` with this priority and this very match.
    pub fn get_strict(&self, table: TableId, priority: u16, matches: &Match) -> Option<&Arc<Rule>> {
        self.table(table)?.get(priority, matches)
    }

    /// Adds a rule; one with the same table, priority and match is replaced and returned. The rule gets to share its
    /// list of actions if nobody else holds it yet.
    pub fn insert(&mut self, mut rule: Arc<Rule>) -> Option<Arc<Rule>> {
        let actions = self.lists.hold(&rule.spec.actions);
        if let Some(rule) = Arc::get_mut(&mut rule) {
            rule.spec.actions = actions;
        }
        self.place(rule)
    }

    /// As [`insert`](Self::insert), for a rule that shares its list of actions for sure; it is returned first.
    pub fn insert_new(&mut self, mut rule: Rule) -> (Arc<Rule>, Option<Arc<Rule>>) {
        rule.spec.actions = self.lists.hold(&rule.spec.actions);
        let rule = Arc::new(rule);
        let old = self.place(rule.clone());
        (rule, old)
    }

    /// Tells that many rules are going to be added, which is faster until [`settle`](Self::settle). Lookups meanwhile
    /// are right, but look at more bits than they have to.
    pub fn unsettle(&mut self) {
        self.unsettled = true;
    }

    /// Ends what [`unsettle`](Self::unsettle) began.
    pub fn settle(&mut self) {
        self.unsettled = false;
        for table in self.tables.iter_mut().flatten().filter(|table| !table.is_settled()) {
            Arc::make_mut(table).settle();
        }
    }

    /// The lists of actions that the rules share.
    pub fn action_lists(&self) -> &ActionLists {
        &self.lists
    }

    /// Adds a rule whose list of actions is held.
    fn place(&mut self, rule: Arc<Rule>) -> Option<Arc<Rule>> {
        let index = usize::from(rule.spec.table.get());
        if self.tables.len() <= index {
            self.tables.resize(index + 1, None);
        }
        let table = Arc::make_mut(self.tables[index].get_or_insert_default());
        let old = if self.unsettled { table.insert_unsettled(rule.clone()) } else { table.insert(rule.clone()) };
        match &old {
            Some(old) => self.forget(old),
            None => self.len += 1,
        }
        self.timeouts.insert(&rule);
        self.learners.insert(&rule.spec.actions);
        self.references.insert(&rule);
        old
    }

    /// Removes the rule of `table` with this priority and this very match.
    pub fn remove(&mut self, table: TableId, priority: u16, matches: &Match) -> Option<Arc<Rule>> {
        let slot = self.tables.get_mut(usize::from(table.get()))?;
        slot.as_ref()?.get(priority, matches)?;
        let rule = Arc::make_mut(slot.as_mut()?).remove(priority, matches)?;
        if slot.as_ref().is_some_and(|t| t.is_empty()) {
            *slot = None;
        }
        self.forget(&rule);
        self.len -= 1;
        Some(rule)
    }

    /// Removes rules, each of which stands in its table. A table that keeps none is dropped as a whole, which is much
    /// cheaper than taking its rules out one by one.
    pub fn remove_all<'a>(&mut self, rules: impl Iterator<Item = &'a Arc<Rule>> + Clone) {
        let mut leaving = [0; 256];
        rules.clone().for_each(|rule| leaving[usize::from(rule.spec.table.get())] += 1);
        let is_emptied = |(table, leaving)| TableId::new(table).is_some_and(|t| self.table_len(t) == leaving);
        let emptied: Vec<bool> = (0..=u8::MAX).zip(leaving).map(is_emptied).collect();
        for rule in rules {
            if emptied[usize::from(rule.spec.table.get())] {
                self.forget(rule);
                self.len -= 1;
            } else {
                self.remove(rule.spec.table, rule.spec.priority, &rule.spec.matches);
            }
        }
        for (slot, _) in self.tables.iter_mut().zip(emptied).filter(|(_, emptied)| *emptied) {
            *slot = None;
        }
    }

    /// Every rule, by table; the order within a table is not specified.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.tables.iter().flatten().flat_map(|t| t.iter())
    }

    /// Every rule of one table, in no particular order.
    pub fn iter_table(&self, table: TableId) -> impl Iterator<Item = &Arc<Rule>> {
        self.table(table).into_iter().flat_map(Classifier::iter)
    }

    /// Every rule that `filter` selects, by table; the order within a table is not specified.
    pub fn select<'a>(&'a self, filter: &'a FlowFilter) -> impl Iterator<Item = &'a Arc<Rule>> {
        let numbered = (0u8..).zip(&self.tables).filter_map(|(no, table)| Some((no, table.as_deref()?)));
        let tables = numbered.filter(|(no, _)| filter.table.is_none_or(|t| t.get() == *no)).map(|(_, table)| table);
        let candidates = tables.flat_map(|table| {
            let strict = filter.strict.map(|priority| table.get(priority, &filter.matches));
            let loose = if strict.is_none() { Some(table.within(&filter.matches)) } else { None };
            strict.flatten().into_iter().chain(loose.into_iter().flatten())
        });
        candidates.filter(|r| filter.selects_besides_match(r))
    }

    /// A rule of `table` with this priority, other than the one with this very match, that some packet could match
    /// besides this match.
    pub fn overlapping(&self, table: TableId, priority: u16, matches: &Match) -> Option<&Arc<Rule>> {
        self.table(table)?.overlapping(priority, matches)
    }

    /// Which rules name a group or a meter.
    pub fn references(&self) -> &References {
        &self.references
    }

    /// Number of rules.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of rules in one table.
    pub fn table_len(&self, table: TableId) -> usize {
        self.table(table).map_or(0, Classifier::len)
    }

    /// The rules whose time is up at `now`, and which timeout it was; the hard one if both.
    pub fn expired(&self, now: Millis) -> Vec<(Arc<Rule>, RemovedReason)> {
        self.timeouts.expired(now)
    }

    /// The rule of `table` to remove when room is needed: among those with a timeout, which are the only ones that OVS
    /// evicts, the one of lowest importance, and of those the one closest to expiry.
    pub fn evictable(&self, table: TableId) -> Option<&Arc<Rule>> {
        self.timeouts.evictable(table)
    }

    /// Whether a rule of any table learns flows of `table` with this cookie that are to be deleted with the last such
    /// rule; see [`deletes_learned`].
    pub fn learns(&self, table: TableId, cookie: u64) -> bool {
        self.learners.has(table, cookie)
    }

    /// Estimate of the bytes of memory that the rules and their indexes take; what clones share counts in each.
    pub fn heap_size(&self) -> usize {
        let index: usize = self.tables.iter().flatten().map(|t| size_of::<Classifier>() + t.heap_size()).sum();
        self.tables.capacity() * size_of::<Option<Arc<Classifier>>>()
            + index
            + self.timeouts.heap_size()
            + self.learners.heap_size()
            + self.lists.heap_size()
            + self.references.heap_size()
            + self.iter().map(rule_size).sum::<usize>()
    }

    fn table(&self, table: TableId) -> Option<&Classifier> {
        self.tables.get(usize::from(table.get()))?.as_deref()
    }

    /// Takes a rule that is gone out of the indexes.
    fn forget(&mut self, rule: &Arc<Rule>) {
        self.timeouts.remove(rule);
        self.learners.remove(&rule.spec.actions);
        self.lists.release(&rule.spec.actions);
        self.references.remove(rule);
    }
}

/// Bytes of memory that a rule takes; its owner and its list of actions are shared and do not count.
fn rule_size(rule: &Arc<Rule>) -> usize {
    // Two counters stand before what an Arc holds.
    const COUNTERS: usize = 2 * size_of::<usize>();
    2 * COUNTERS + size_of::<Rule>() + size_of::<RuleStats>() + rule.spec.matches.heap_size()
}

#[cfg(test)]
mod tests;
