//! What rules name outside the tables: the groups that they send to, the meters that they go through.
//!
//! The index answers "which rules name this" without a walk through all rules, so that deleting ten thousand groups one
//! by one costs what their own rules cost. Rules that name nothing are not in it.

use crate::action::{Action, GroupId, MeterId};
use crate::rule::Rule;
use imbl::OrdMap;
use std::sync::Arc;

/// Something that a rule names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// A group that it sends to.
    Group(GroupId),
    /// A meter that it goes through.
    Meter(MeterId),
}

/// What is named, and the rule's address to tell rules apart.
type Key = (Reference, usize);

/// Which rules name what.
#[derive(Clone, Debug, Default)]
pub struct References {
    rules: OrdMap<Key, Arc<Rule>>,
}

impl References {
    /// The rules that name `what`.
    pub fn of(&self, what: Reference) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules.range((what, 0)..=(what, usize::MAX)).map(|(_, rule)| rule)
    }

    pub(crate) fn insert(&mut self, rule: &Arc<Rule>) {
        each(&rule.spec.actions, &mut |what| {
            self.rules.insert((what, Arc::as_ptr(rule).addr()), Arc::clone(rule));
        });
    }

    pub(crate) fn remove(&mut self, rule: &Arc<Rule>) {
        each(&rule.spec.actions, &mut |what| {
            self.rules.remove(&(what, Arc::as_ptr(rule).addr()));
        });
    }

    /// Estimate of the bytes of memory that the index takes.
    pub(crate) fn heap_size(&self) -> usize {
        self.rules.len() * (size_of::<Key>() + size_of::<Arc<Rule>>()) * 3 / 2
    }
}

/// Tells everything that the actions name, those within other actions included; how deep those nest is bounded where
/// they are read.
pub(crate) fn each(actions: &[Action], tell: &mut dyn FnMut(Reference)) {
    for action in actions {
        match action {
            Action::Group(id) => tell(Reference::Group(*id)),
            Action::Meter(id) => tell(Reference::Meter(*id)),
            Action::Clone(inner) | Action::WriteActions(inner) => each(inner, tell),
            _ => {}
        }
    }
}
