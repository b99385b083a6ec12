//! Flow tables.

use crate::key::{FlowKey, FlowMask};
use crate::rule::{Rule, TableId};
use imbl::OrdMap;
use std::sync::Arc;

/// The flow tables of a bridge. A clone shares everything with the original until one of them changes.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    rules: OrdMap<u8, imbl::Vector<Arc<Rule>>>,
}

impl Tables {
    /// The rule of `table` with the highest priority that matches `key`. Adds to `mask` every bit that the answer
    /// depends on.
    pub fn lookup(&self, table: TableId, key: &FlowKey, mask: &mut FlowMask) -> Option<&Arc<Rule>> {
        let mut best: Option<&Arc<Rule>> = None;
        for rule in self.rules.get(&table.get())? {
            mask.union(&rule.spec.matches.mask());
            if rule.spec.matches.matches(key) && best.is_none_or(|b| rule.spec.priority > b.spec.priority) {
                best = Some(rule);
            }
        }
        best
    }

    /// Every rule, by table; the order within a table is not specified.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules.values().flatten()
    }

    /// Adds a rule; one with the same table, priority and match is replaced and returned.
    pub fn insert(&mut self, rule: Arc<Rule>) -> Option<Arc<Rule>> {
        let table = self.rules.entry(rule.spec.table.get()).or_default();
        for old in table.iter_mut() {
            if old.spec.priority == rule.spec.priority && old.spec.matches == rule.spec.matches {
                return Some(std::mem::replace(old, rule));
            }
        }
        table.push_back(rule);
        None
    }
}
