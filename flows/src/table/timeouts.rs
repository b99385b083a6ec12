//! The rules with a timeout, by when they can expire and by which would be evicted first.
//!
//! Both indexes hold the earliest moment at which a rule can expire, which traffic only puts off; so a rule that
//! stands later in an index cannot really come first by more than that. A table without timeouts costs nothing.

use super::RemovedReason;
use crate::rule::{Millis, Rule, TableId};
use imbl::OrdMap;
use std::sync::Arc;

/// The indexes.
#[derive(Clone, Debug, Default)]
pub(super) struct Timeouts {
    /// By the earliest moment, then by address to tell rules apart.
    due: OrdMap<(Millis, usize), Arc<Rule>>,
    /// By table and importance first.
    weights: OrdMap<(TableId, u16, Millis, usize), Arc<Rule>>,
}

/// Most rules that are looked at for one to evict. Only where more than these are kept alive by traffic beyond their
/// first timeout may the choice among rules of one importance not be the closest to expiry.
const EVICTION_LOOKS: usize = 1_000;

impl Timeouts {
    /// Takes a rule in, if it has a timeout.
    pub(super) fn insert(&mut self, rule: &Arc<Rule>) {
        if let Some((first, address)) = place(rule) {
            self.due.insert((first, address), rule.clone());
            self.weights.insert((rule.spec.table, rule.spec.importance, first, address), rule.clone());
        }
    }

    /// Takes a rule out.
    pub(super) fn remove(&mut self, rule: &Arc<Rule>) {
        if let Some((first, address)) = place(rule) {
            self.due.remove(&(first, address));
            self.weights.remove(&(rule.spec.table, rule.spec.importance, first, address));
        }
    }

    /// The rules whose time is up at `now`, and which timeout it was; the hard one if both.
    pub(super) fn expired(&self, now: Millis) -> Vec<(Arc<Rule>, RemovedReason)> {
        let due = self.due.range(..=(now, usize::MAX));
        due.filter_map(|(_, rule)| Some((rule.clone(), passed(rule, now)?))).collect()
    }

    /// The rule of `table` to remove first when room is needed.
    pub(super) fn evictable(&self, table: TableId) -> Option<&Arc<Rule>> {
        let mut best: Option<(u16, Millis, &Arc<Rule>)> = None;
        let rules = self.weights.range((table, 0, Millis(0), 0)..=(table, u16::MAX, Millis(u64::MAX), usize::MAX));
        for ((_, importance, earliest, _), rule) in rules.take(EVICTION_LOOKS) {
            if best.is_some_and(|(least, when, _)| (least, when) <= (*importance, *earliest)) {
                break;
            }
            let when = expiry(rule)?;
            if best.is_none_or(|(least, first, _)| (*importance, when) < (least, first)) {
                best = Some((*importance, when, rule));
            }
        }
        best.map(|(_, _, rule)| rule)
    }

    /// Estimate of the bytes of memory that the indexes take.
    pub(super) fn heap_size(&self) -> usize {
        const DUE: usize = size_of::<((Millis, usize), Arc<Rule>)>();
        const WEIGHT: usize = size_of::<((TableId, u16, Millis, usize), Arc<Rule>)>();
        self.due.len() * (DUE + WEIGHT) * 3 / 2
    }
}

/// `seconds` after `from`; never for 0 seconds.
fn after(from: Millis, seconds: u16) -> Option<Millis> {
    (seconds != 0).then(|| Millis(from.0.saturating_add(u64::from(seconds) * 1000)))
}

/// The earlier of two moments that may never come.
fn first(a: Option<Millis>, b: Option<Millis>) -> Option<Millis> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Where the rule stands among those with a timeout, if it has one: its fields decide, not its counters.
fn place(rule: &Arc<Rule>) -> Option<(Millis, usize)> {
    let spec = &rule.spec;
    let earliest = first(after(rule.created, spec.idle_timeout), after(rule.modified, spec.hard_timeout))?;
    Some((earliest, Arc::as_ptr(rule).addr()))
}

/// When the hard timeout passes.
fn hard_expiry(rule: &Rule) -> Option<Millis> {
    after(rule.modified.max(rule.stats.refreshed()), rule.spec.hard_timeout)
}

/// When the idle timeout passes if no packet comes.
fn idle_expiry(rule: &Rule) -> Option<Millis> {
    after(rule.stats.used().max(rule.created), rule.spec.idle_timeout)
}

/// When the rule expires if no packet comes.
fn expiry(rule: &Rule) -> Option<Millis> {
    first(hard_expiry(rule), idle_expiry(rule))
}

/// Which timeout of the rule has passed at `now`.
fn passed(rule: &Rule, now: Millis) -> Option<RemovedReason> {
    let hard = hard_expiry(rule).filter(|at| *at <= now).map(|_| RemovedReason::HardTimeout);
    hard.or_else(|| idle_expiry(rule).filter(|at| *at <= now).map(|_| RemovedReason::IdleTimeout))
}
