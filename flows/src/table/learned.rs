//! Which flows are to go when the flows that learned them are gone: `learn(..)` with `delete_learned`.

use crate::action::Action;
use crate::rule::TableId;
use imbl::OrdMap;

/// How many rules have an action that learns flows of which table and cookie, to be deleted with the last such rule.
#[derive(Clone, Debug, Default)]
pub(super) struct Learners {
    rules: OrdMap<(TableId, u64), u32>,
}

impl Learners {
    /// Counts the actions of a rule.
    pub(super) fn insert(&mut self, actions: &[Action]) {
        for learned in deletes_learned(actions) {
            *self.rules.entry(learned).or_insert(0) += 1;
        }
    }

    /// Takes back one [`insert`](Self::insert) of these actions.
    pub(super) fn remove(&mut self, actions: &[Action]) {
        for learned in deletes_learned(actions) {
            let rules = self.rules.get(&learned).copied().unwrap_or(0);
            if rules > 1 {
                self.rules.insert(learned, rules - 1);
            } else {
                self.rules.remove(&learned);
            }
        }
    }

    /// Whether a rule learns such flows.
    pub(super) fn has(&self, table: TableId, cookie: u64) -> bool {
        self.rules.contains_key(&(table, cookie))
    }

    /// Estimate of the bytes of memory.
    pub(super) fn heap_size(&self) -> usize {
        self.rules.len() * size_of::<((TableId, u64), u32)>() * 3 / 2
    }
}

/// Table and cookie of the flows that are to go when no flow with these actions is left, each once: those of every
/// `learn(..)` with `delete_learned`, in a `clone(..)` too.
pub fn deletes_learned(actions: &[Action]) -> Vec<(TableId, u64)> {
    let mut all = Vec::new();
    collect(actions, &mut all);
    all.sort_unstable();
    all.dedup();
    all
}

/// The parser bounds how deep actions nest, and with it this recursion.
fn collect(actions: &[Action], all: &mut Vec<(TableId, u64)>) {
    for action in actions {
        match action {
            Action::Learn(learn) if learn.delete_learned => all.push((learn.table, learn.cookie)),
            Action::Clone(inner) => collect(inner, all),
            _ => {}
        }
    }
}
