//! The oracle: every rule looked at, one after the other.

use super::precedence;
use crate::key::{FlowKey, FlowMask};
use crate::matching::Match;
use crate::rule::Rule;
use std::sync::Arc;

/// A classifier that compares a packet with every rule, and says that every bit of every rule mattered.
///
/// It is right because it is simple; what it is for is to tell whether the real classifier is.
#[derive(Clone, Debug, Default)]
pub struct Linear {
    rules: Vec<Arc<Rule>>,
}

impl Linear {
    /// The rule that wins among those that match `key`. Adds to `mask` every bit that some rule looks at.
    pub fn lookup(&self, key: &FlowKey, mask: &mut FlowMask) -> Option<&Arc<Rule>> {
        for rule in &self.rules {
            mask.union(&rule.spec.matches.mask());
        }
        self.rules.iter().filter(|r| r.spec.matches.matches(key)).max_by(|a, b| precedence(a, b))
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
