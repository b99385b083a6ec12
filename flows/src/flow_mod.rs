//! Changes to flow tables: OpenFlow's flow mods, one at a time or as a bundle.
//!
//! The semantics are those of Open vSwitch 3.1 under OpenFlow 1.0, which is what `ovs-ofctl` speaks unless told
//! otherwise:
//!
//! - An add replaces the flow with the same table, priority and match, and counts from 0.
//! - A modify gives its actions to every flow selected, which keep their priorities, timeouts and counters; the hard
//!   timeout starts anew. When it selects none, it adds the flow, unless it asked for a cookie. Unlike under
//!   OpenFlow 1.0, the cookie changes only when the modify says one.
//! - A delete that selects none is no error.
//!
//! What concerns more than the flows themselves (groups, meters, limits of tables) is [`bridge_mod`](crate::bridge_mod)'s.
//!
//! Whoever modifies a flow owns it from then on, because its owner is who to ask about its actions.

use crate::action::{GroupId, MeterId};
use crate::bridge_mod::Touched;
use crate::consistency::{self, ConsistencyError};
use crate::filter::FlowFilter;
use crate::matching::Match;
use crate::owner::Owner;
use crate::rule::{FlowSpec, Millis, Rule, TableId};
use crate::table::{RemovedReason, Tables};
use std::sync::Arc;
use thiserror::Error;

/// One change to the flow tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowMod {
    /// Add a flow, in place of the one with the same table, priority and match.
    Add {
        /// The flow.
        spec: FlowSpec,
        /// Refuse it when it overlaps another flow of its priority.
        check_overlap: bool,
        /// Count from 0 even if it replaces a flow.
        reset_counts: bool,
    },
    /// Change the actions of flows.
    Modify {
        /// Which flows.
        filter: FlowFilter,
        /// Where actions, owner, generation and drop reason come from; added when no flow is selected.
        spec: FlowSpec,
        /// Take the cookie from `spec` too.
        set_cookie: bool,
        /// Count from 0.
        reset_counts: bool,
    },
    /// Delete flows.
    Delete {
        /// Which flows.
        filter: FlowFilter,
    },
}

impl FlowMod {
    /// Adds a flow, which counts from 0.
    pub fn add(spec: FlowSpec) -> Self {
        Self::Add { spec, check_overlap: false, reset_counts: true }
    }

    /// Modifies the flows of the table of `spec` whose match is that of `spec` or narrower; cookies stay.
    pub fn modify(spec: FlowSpec) -> Self {
        Self::Modify { filter: FlowFilter::within(&spec), spec, set_cookie: false, reset_counts: false }
    }

    /// Modifies the flow with the table, priority and match of `spec`; its cookie stays.
    pub fn modify_strict(spec: FlowSpec) -> Self {
        Self::Modify { filter: FlowFilter::strictly(&spec), spec, set_cookie: false, reset_counts: false }
    }

    /// Deletes flows.
    pub fn delete(filter: FlowFilter) -> Self {
        Self::Delete { filter }
    }
}

/// What a change did: a [`FlowMod`], or a [`BridgeMod`](crate::bridge_mod::BridgeMod), which may touch more.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// The flow added.
    pub added: Option<Arc<Rule>>,
    /// The flow whose place it took.
    pub replaced: Option<Arc<Rule>>,
    /// The flows modified, as they are now.
    pub modified: Vec<Arc<Rule>>,
    /// The flows removed, and why.
    pub removed: Vec<(Arc<Rule>, RemovedReason)>,
    /// What beside flows was changed.
    pub touched: Vec<Touched>,
}

impl Applied {
    /// A change of something that is no flow.
    pub(crate) fn touching(what: Touched) -> Self {
        Self { touched: vec![what], ..Self::default() }
    }

    /// Whether it changed anything.
    pub fn changed(&self) -> bool {
        self.added.is_some() || !self.modified.is_empty() || !self.removed.is_empty() || !self.touched.is_empty()
    }
}

/// Why a [`FlowMod`] was refused. Nothing was changed then.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FlowModError {
    /// `check_overlap` was asked for.
    #[error(
        "the flow overlaps a flow of table {table} with the same priority, {priority} (owner {owner}): give it another \
         priority, or leave out check_overlap"
    )]
    Overlap {
        /// The table.
        table: TableId,
        /// The priority of both.
        priority: u16,
        /// Owner of the flow that is there.
        owner: Owner,
        /// Match of the flow that is there.
        matches: Match,
    },
    /// It names a group that does not exist.
    #[error("there is no group {group} to send to; add it first")]
    NoGroup {
        /// The group.
        group: GroupId,
    },
    /// It names a meter that does not exist.
    #[error("there is no meter {meter} to go through; add it first")]
    NoMeter {
        /// The meter.
        meter: MeterId,
    },
    /// The table has as many flows as it may have.
    #[error(
        "table {table} is full: it may have {max} flows{why}; delete some, or raise its limit",
        why = if *evicts { " and none of them has a timeout that it could be evicted for" } else { "" }
    )]
    TableFull {
        /// The table.
        table: TableId,
        /// How many flows it may have.
        max: u32,
        /// Whether it removes flows to make room.
        evicts: bool,
    },
    /// The actions do not fit the table or the match.
    #[error(transparent)]
    Inconsistent(#[from] ConsistencyError),
}

impl Tables {
    /// Makes one change at `now`. Whether what the flow names exists, and whether its table has room, is not looked at:
    /// [`Bridge::apply`](crate::bridge::Bridge::apply) does that.
    ///
    /// # Errors
    /// When the change is refused; the tables are then as they were.
    pub fn apply(&mut self, change: &FlowMod, now: Millis) -> Result<Applied, FlowModError> {
        self.make(change.clone(), now)
    }

    /// As [`apply`](Self::apply), without a copy of the change.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn make(&mut self, change: FlowMod, now: Millis) -> Result<Applied, FlowModError> {
        match change {
            FlowMod::Add { spec, check_overlap, reset_counts } => self.add(spec, check_overlap, reset_counts, now),
            FlowMod::Modify { filter, spec, set_cookie, reset_counts } => {
                self.modify(&filter, spec, set_cookie, reset_counts, now)
            }
            FlowMod::Delete { filter } => Ok(self.delete(&filter)),
        }
    }

    /// Removes the flows whose time is up at `now`.
    pub fn expire(&mut self, now: Millis) -> Vec<(Arc<Rule>, RemovedReason)> {
        let expired = self.expired(now);
        for (rule, _) in &expired {
            self.remove(rule.spec.table, rule.spec.priority, &rule.spec.matches);
        }
        expired
    }

    fn add(
        &mut self,
        spec: FlowSpec,
        check_overlap: bool,
        reset_counts: bool,
        now: Millis,
    ) -> Result<Applied, FlowModError> {
        consistency::check(spec.table, &spec.matches, &spec.actions)?;
        let mut stats = None;
        if check_overlap || !reset_counts {
            match self.get_strict(spec.table, spec.priority, &spec.matches) {
                Some(old) if !reset_counts => stats = Some(old.stats.clone()),
                None if check_overlap => self.refuse_overlap(&spec)?,
                _ => {}
            }
        }
        let mut rule = Rule::new(spec, now);
        if let Some(stats) = stats {
            rule.stats = stats;
        }
        let (rule, replaced) = self.insert_new(rule);
        Ok(Applied { added: Some(rule), replaced, ..Applied::default() })
    }

    fn refuse_overlap(&self, spec: &FlowSpec) -> Result<(), FlowModError> {
        match self.overlapping(spec.table, spec.priority, &spec.matches) {
            None => Ok(()),
            Some(there) => Err(FlowModError::Overlap {
                table: spec.table,
                priority: spec.priority,
                owner: there.spec.owner.clone(),
                matches: there.spec.matches.clone(),
            }),
        }
    }

    fn modify(
        &mut self,
        filter: &FlowFilter,
        spec: FlowSpec,
        set_cookie: bool,
        reset_counts: bool,
        now: Millis,
    ) -> Result<Applied, FlowModError> {
        let old: Vec<_> = self.select(filter).cloned().collect();
        if old.is_empty() {
            let may_add = filter.cookie_mask == 0;
            return if may_add { self.add(spec, false, true, now) } else { Ok(Applied::default()) };
        }
        for rule in &old {
            consistency::check(rule.spec.table, &rule.spec.matches, &spec.actions)?;
        }
        let modified = old.iter().map(|old| {
            let rule = Rule {
                spec: FlowSpec {
                    cookie: if set_cookie { spec.cookie } else { old.spec.cookie },
                    actions: spec.actions.clone(),
                    owner: spec.owner.clone(),
                    generation: spec.generation,
                    drop_reason: spec.drop_reason,
                    ..old.spec.clone()
                },
                created: old.created,
                modified: now,
                stats: if reset_counts { Arc::default() } else { old.stats.clone() },
            };
            self.insert_new(rule).0
        });
        Ok(Applied { modified: modified.collect(), ..Applied::default() })
    }

    fn delete(&mut self, filter: &FlowFilter) -> Applied {
        let selected: Vec<_> = self.select(filter).map(|r| (r.clone(), RemovedReason::Delete)).collect();
        self.remove_all(selected.iter().map(|(rule, _)| rule));
        Applied { removed: selected, ..Applied::default() }
    }
}

#[cfg(test)]
mod tests;
