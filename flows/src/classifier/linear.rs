//! The oracle: every rule looked at, one after the other.

use super::precedence;
use crate::action::{Action, Conjunction};
use crate::key::{FlowKey, FlowMask, slot};
use crate::matching::Match;
use crate::rule::Rule;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A classifier that compares a packet with every rule, and says that every bit of every rule mattered.
///
/// It is right because it is simple; what it is for is to tell whether the real classifier is.
#[derive(Clone, Debug, Default)]
pub struct Linear {
    rules: Vec<Arc<Rule>>,
}

impl Linear {
    /// The rule that wins among those that match `key`, conjunctions included. Adds to `mask` every bit that some rule looks at.
    pub fn lookup(&self, key: &FlowKey, mask: &mut FlowMask) -> Option<&Arc<Rule>> {
        for rule in &self.rules {
            mask.union(&rule.spec.matches.mask());
        }
        let hard = self.best_hard(key);
        let is_soft = |r: &&Arc<Rule>| r.spec.matches.matches(key) && conjunctions(r).next().is_some();
        let soft = self.rules.iter().filter(is_soft).filter(|r| hard.is_none_or(|h| r.spec.priority > h.spec.priority));
        let mut by_priority: BTreeMap<Reverse<u16>, BTreeSet<(u32, u8, u8)>> = BTreeMap::new();
        for rule in soft {
            let clauses = conjunctions(rule).map(|c| (c.id, c.clauses, c.clause));
            by_priority.entry(Reverse(rule.spec.priority)).or_default().extend(clauses);
        }
        let satisfied = by_priority.values().flat_map(|clauses| {
            let has_all = |id, n| (2..=64).contains(&n) && (0..n).all(|k| clauses.contains(&(id, n, k)));
            let ids: BTreeSet<u32> = clauses.iter().filter(|(id, n, _)| has_all(*id, *n)).map(|(id, ..)| *id).collect();
            ids
        });
        let mut joined = satisfied.filter_map(|id| {
            let mut key = *key;
            key.set(slot::CONJ_ID, id.into());
            self.best_hard(&key)
        });
        joined.next().or(hard)
    }

    /// The rule that wins among those that match `key` and are no part of a conjunction.
    fn best_hard(&self, key: &FlowKey) -> Option<&Arc<Rule>> {
        let hard = self.rules.iter().filter(|r| conjunctions(r).next().is_none());
        hard.filter(|r| r.spec.matches.matches(key)).max_by(|a, b| precedence(a, b))
    }

    /// The rule with this priority and this very match.
    pub fn get(&self, priority: u16, matches: &Match) -> Option<&Arc<Rule>> {
        self.position(priority, matches).and_then(|i| self.rules.get(i))
    }

    /// Adds a rule; one with the same priority and match is replaced and returned.
    pub fn insert(&mut self, rule: Arc<Rule>) -> Option<Arc<Rule>> {
        if let Some(i) = self.position(rule.spec.priority, &rule.spec.matches) {
            return Some(std::mem::replace(&mut self.rules[i], rule));
        }
        self.rules.push(rule);
        None
    }

    /// Removes the rule with this priority and this very match.
    pub fn remove(&mut self, priority: u16, matches: &Match) -> Option<Arc<Rule>> {
        self.position(priority, matches).map(|i| self.rules.swap_remove(i))
    }

    /// Every rule, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules.iter()
    }

    /// Number of rules.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    fn position(&self, priority: u16, matches: &Match) -> Option<usize> {
        self.rules.iter().position(|r| r.spec.priority == priority && r.spec.matches == *matches)
    }
}

fn conjunctions(rule: &Rule) -> impl Iterator<Item = &Conjunction> {
    rule.spec.actions.iter().filter_map(|a| if let Action::Conjunction(c) = a { Some(c) } else { None })
}
