//! Changes to a bridge: flows, groups, meters and what is said of tables, one at a time or as a bundle.
//!
//! The semantics are those of Open vSwitch 3.1. Flows are changed as [`flow_mod`](crate::flow_mod) says; what is here
//! beside it concerns what flows share:
//!
//! - A flow that names a group or meter that does not exist is refused. When a group or meter is deleted, the flows that
//!   name it go too.
//! - A table may have a limit. A new flow that exceeds it is refused, or, if the table evicts, takes the place of a flow
//!   that has a timeout: the least important one, and of those the one that expires first.
//! - When the last flow with `learn(delete_learned)` for a table and cookie is gone, so are the flows of that table with
//!   that cookie.
//!
//! A bundle is made on a copy, which costs little because a [`Bridge`] shares what does not change.

mod flows;
mod groups;
mod learn;
mod meters;
mod tables;

pub use groups::GroupModError;
pub use learn::Learning;
pub use meters::{MAX_BANDS, MAX_METERS, MeterModError};
pub use tables::{MAX_TABLE_NAME_LEN, TableModError, check_table_name};

use crate::action::{GroupId, MeterId};
use crate::bridge::{Bridge, TableMod};
use crate::filter::FlowFilter;
use crate::flow_mod::{Applied, FlowMod, FlowModError};
use crate::group::GroupMod;
use crate::meter::MeterMod;
use crate::rule::{Millis, Rule, TableId};
use crate::table::{RemovedReason, deletes_learned};
use std::sync::Arc;
use thiserror::Error;

/// One change to a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BridgeMod {
    /// To its flows.
    Flow(FlowMod),
    /// To its groups.
    Group(GroupMod),
    /// To its meters.
    Meter(MeterMod),
    /// To what is said of its tables.
    Table(TableMod),
}

impl From<FlowMod> for BridgeMod {
    fn from(change: FlowMod) -> Self {
        Self::Flow(change)
    }
}

impl From<GroupMod> for BridgeMod {
    fn from(change: GroupMod) -> Self {
        Self::Group(change)
    }
}

impl From<MeterMod> for BridgeMod {
    fn from(change: MeterMod) -> Self {
        Self::Meter(change)
    }
}

impl From<TableMod> for BridgeMod {
    fn from(change: TableMod) -> Self {
        Self::Table(change)
    }
}

/// What became of a group or meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It was added.
    Added,
    /// It was changed.
    Modified,
    /// It was deleted.
    Deleted,
}

/// Something beside the flows that a change touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Touched {
    /// A group.
    Group(GroupId, Fate),
    /// A meter.
    Meter(MeterId, Fate),
    /// What is said of a table.
    Table(TableId),
}

/// Why a [`BridgeMod`] was refused. Nothing was changed then.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ModError {
    /// A change to flows.
    #[error(transparent)]
    Flow(#[from] FlowModError),
    /// A change to groups.
    #[error(transparent)]
    Group(#[from] GroupModError),
    /// A change to meters.
    #[error(transparent)]
    Meter(#[from] MeterModError),
    /// A change to what is said of tables.
    #[error(transparent)]
    Table(#[from] TableModError),
}

impl Bridge {
    /// Makes one change at `now`.
    ///
    /// # Errors
    /// When the change is refused; the bridge is then as it was.
    pub fn apply(&mut self, change: &BridgeMod, now: Millis) -> Result<Applied, ModError> {
        self.make(change.clone(), now)
    }

    /// As [`apply`](Self::apply), without a copy of the change.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn make(&mut self, change: BridgeMod, now: Millis) -> Result<Applied, ModError> {
        let mut orphans = self.may_orphan(&change);
        let mut applied = match change {
            BridgeMod::Flow(change) => self.apply_flow(change, now)?,
            BridgeMod::Group(change) => self.apply_group(&change, now)?,
            BridgeMod::Meter(change) => self.apply_meter(&change, now)?,
            BridgeMod::Table(change) => self.apply_table(&change)?,
        };
        orphans.extend(applied.replaced.iter().flat_map(|rule| deletes_learned(&rule.spec.actions)));
        self.delete_orphans(orphans, &mut applied.removed);
        Ok(applied)
    }

    /// Removes the flows whose time is up at `now`, and those that go with them; says which, and why.
    pub fn expire(&mut self, now: Millis) -> Vec<(Arc<Rule>, RemovedReason)> {
        let mut removed = self.tables.expire(now);
        self.delete_orphans(Vec::new(), &mut removed);
        removed
    }

    /// The learned flows that could lose their last learning flow by a modify, of which [`Applied`] tells only what
    /// flows became.
    fn may_orphan(&self, change: &BridgeMod) -> Vec<(TableId, u64)> {
        let BridgeMod::Flow(FlowMod::Modify { filter, .. }) = change else { return Vec::new() };
        self.tables.select(filter).flat_map(|rule| deletes_learned(&rule.spec.actions)).collect()
    }

    /// Deletes the learned flows whose last learning flow went, as long as that makes others go. `candidates` are to be
    /// looked at besides what the removed flows have learned.
    fn delete_orphans(&mut self, mut candidates: Vec<(TableId, u64)>, removed: &mut Vec<(Arc<Rule>, RemovedReason)>) {
        let mut seen = 0;
        loop {
            candidates.extend(removed[seen..].iter().flat_map(|(rule, _)| deletes_learned(&rule.spec.actions)));
            seen = removed.len();
            candidates.sort_unstable();
            candidates.dedup();
            if candidates.is_empty() {
                return;
            }
            for (table, cookie) in std::mem::take(&mut candidates) {
                if self.tables.learns(table, cookie) {
                    continue;
                }
                let filter = FlowFilter { table: Some(table), cookie, cookie_mask: u64::MAX, ..FlowFilter::all() };
                let rules: Vec<_> = self.tables.select(&filter).cloned().collect();
                self.remove_rules(rules, RemovedReason::Delete, removed);
            }
        }
    }

    /// Removes rules, for one reason; one that is named twice goes once.
    fn remove_rules(
        &mut self,
        rules: impl IntoIterator<Item = Arc<Rule>>,
        reason: RemovedReason,
        removed: &mut Vec<(Arc<Rule>, RemovedReason)>,
    ) {
        for rule in rules {
            if let Some(rule) = self.tables.remove(rule.spec.table, rule.spec.priority, &rule.spec.matches) {
                removed.push((rule, reason));
            }
        }
    }
}

/// Makes all the changes at `now`, in order, or none of them.
///
/// # Errors
/// The index of the change that was refused, and why; the bridge is then as it was.
pub fn apply_bundle(
    bridge: &mut Bridge,
    changes: &[BridgeMod],
    now: Millis,
) -> Result<Vec<Applied>, (usize, ModError)> {
    let mut next = bridge.clone();
    let applied = changes.iter().enumerate().map(|(i, change)| next.apply(change, now).map_err(|e| (i, e)));
    let applied = applied.collect::<Result<_, _>>()?;
    *bridge = next;
    Ok(applied)
}

#[cfg(test)]
mod tests;
