//! Flows, groups, meters and what is said of tables: bundles of changes, all or nothing.

use super::{ControlError, Datapath, State};
use crate::datapath::Shared;
use crate::event::{EventKind, FlowChanges};
use sluice_flows::bridge::{Bridge, BridgeId};
use sluice_flows::bridge_mod::{BridgeMod, Fate, ModError, Touched};
use sluice_flows::flow_mod::Applied;
use sluice_flows::rule::{Millis, Rule, TableId};
use sluice_flows::table::{RemovedReason, Tables};
use std::sync::{Arc, MutexGuard};

/// What a bundle did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BundleResult {
    /// How many flows it touched.
    pub changes: FlowChanges,
    /// How many groups and meters it touched.
    pub others: OtherChanges,
    /// Generation of the model that holds the change.
    pub generation: u64,
}

/// How many groups and meters a bundle touched; tables whose settings it changed count as modified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OtherChanges {
    /// Groups and meters added.
    pub added: u64,
    /// Groups, meters and tables changed.
    pub modified: u64,
    /// Groups and meters deleted.
    pub deleted: u64,
}

/// Flows that are gone, and why.
pub(crate) type Removed = Vec<(Arc<Rule>, RemovedReason)>;

/// What changes to a bridge did, as far as it is to be made known: a large bundle would take much memory if what became
/// of each change were kept.
#[derive(Debug, Default)]
pub struct Made {
    changes: FlowChanges,
    others: OtherChanges,
    removed: Removed,
}

impl Made {
    /// Adds what one change did.
    pub fn add(&mut self, applied: Applied) {
        self.changes.added += u64::from(applied.added.is_some());
        self.changes.modified += applied.modified.len() as u64;
        self.changes.deleted += applied.removed.len() as u64;
        self.others.count(&applied.touched);
        self.removed.extend(applied.removed);
    }

    /// Whether anything was changed.
    fn changed(&self) -> bool {
        self.changes != FlowChanges::default() || self.others != OtherChanges::default()
    }

    /// The flows that are gone.
    pub(super) fn into_removed(self) -> Removed {
        self.removed
    }
}

impl From<Vec<Applied>> for Made {
    fn from(all: Vec<Applied>) -> Self {
        let mut made = Self::default();
        all.into_iter().for_each(|applied| made.add(applied));
        made
    }
}

impl Datapath {
    /// Makes all the changes to one bridge, in order, or none of them.
    ///
    /// # Errors
    /// When there is no such bridge, or a change is refused.
    pub fn apply_bundle<M>(&self, bridge: &str, changes: &[M]) -> Result<BundleResult, ControlError>
    where
        M: Clone + Into<BridgeMod>,
    {
        self.apply_bundles(&[(bridge, changes)])
    }

    /// Makes all the changes to several bridges, or none of them: no packet sees a part of them.
    ///
    /// # Errors
    /// When a bridge does not exist, or a change is refused.
    pub fn apply_bundles<M>(&self, bundles: &[(&str, &[M])]) -> Result<BundleResult, ControlError>
    where
        M: Clone + Into<BridgeMod>,
    {
        let now = self.clock().now();
        let mut state = self.inner.lock_for_change()?;
        let before = state.model.clone();
        let mut all = Vec::with_capacity(bundles.len());
        for (name, changes) in bundles {
            let result = state.edit(name, |bridge| {
                let mut made = Made::default();
                for (number, change) in (1..).zip(changes.iter()) {
                    let applied = bridge.make(change.clone().into(), now);
                    made.add(applied.map_err(|source| refused(name, number, source))?);
                }
                Ok(made)
            });
            match result {
                Ok(applied) => all.push(applied),
                Err(error) => {
                    state.model = before;
                    return Err(error);
                }
            }
        }
        Ok(self.commit(state, all))
    }

    /// Changes a bridge as `edit` does, in one step. The bridge is not changed if it fails; `edit` says what it did so
    /// that it can be made known.
    ///
    /// # Errors
    /// When there is no such bridge, or what `edit` returns.
    pub fn edit<M: Into<Made>, E: From<ControlError>>(
        &self,
        bridge: &str,
        edit: impl FnOnce(&mut Bridge, Millis) -> Result<M, E>,
    ) -> Result<BundleResult, E> {
        let now = self.clock().now();
        let mut state = self.inner.lock_for_change()?;
        let made = state.edit(bridge, |bridge| edit(bridge, now).map(Into::into))?;
        Ok(self.commit(state, vec![made]))
    }

    /// Publishes the changes and tells of them.
    fn commit(&self, mut state: MutexGuard<'_, State>, all: Vec<(BridgeId, Made)>) -> BundleResult {
        let mut total = BundleResult { generation: state.model.generation, ..BundleResult::default() };
        if !all.iter().any(|(_, made)| made.changed()) {
            return total;
        }
        let shared = &self.inner.shared;
        total.generation = shared.publish(&mut state);
        drop(state);
        for (bridge, made) in &all {
            shared.tell_changes(*bridge, made, total.generation);
            total.changes.added += made.changes.added;
            total.changes.modified += made.changes.modified;
            total.changes.deleted += made.changes.deleted;
            total.others.added += made.others.added;
            total.others.modified += made.others.modified;
            total.others.deleted += made.others.deleted;
        }
        let removed = all.into_iter().map(|(bridge, made)| (bridge, made.into_removed()));
        self.tell_removed(removed.filter(|(_, removed)| !removed.is_empty()).collect());
        total
    }

    /// Removes the flows whose time is up, and tells of them.
    pub(super) fn expire_flows(&self) {
        let now = self.clock().now();
        let due = |t: &Tables| !t.expired(now).is_empty();
        if !self.model().bridges.values().any(|b| due(&b.tables)) {
            return;
        }
        // A flow may look idle only because its packets were not credited yet.
        self.sync_stats();
        let mut all: Vec<(BridgeId, Removed)> = Vec::new();
        {
            let mut state = self.inner.lock();
            let bridges: Vec<_> =
                state.model.bridges.iter().filter(|(_, b)| due(&b.tables)).map(|(id, _)| *id).collect();
            for id in bridges {
                if let Some(bridge) = state.bridge_mut(id) {
                    all.push((id, bridge.expire(now)));
                }
            }
            if all.iter().all(|(_, removed)| removed.is_empty()) {
                return;
            }
            let tables = all.iter().flat_map(|(_, removed)| removed.iter().map(|(rule, _)| rule.spec.table));
            self.inner.shared.publish_tables(&mut state, tables);
        }
        self.tell_removed(all);
    }

    /// Tells of flows that are gone: of those that timed out, and of others that asked for it.
    pub(super) fn tell_removed(&self, all: Vec<(BridgeId, Removed)>) {
        let told = |rule: &Rule, reason| {
            rule.spec.send_flow_rem || matches!(reason, RemovedReason::IdleTimeout | RemovedReason::HardTimeout)
        };
        let told = |(bridge, removed): (BridgeId, Removed)| {
            removed.into_iter().filter(|(rule, why)| told(rule, *why)).map(move |(rule, why)| (bridge, rule, why))
        };
        let mut synced = false;
        for (bridge, rule, reason) in all.into_iter().flat_map(told) {
            if !std::mem::replace(&mut synced, true) {
                // What workers have not credited yet belongs to the final counters.
                self.sync_stats();
            }
            self.inner.shared.events.publish(Some(bridge), EventKind::FlowRemoved { rule, reason });
        }
    }
}

impl State {
    /// Changes a bridge; the caller publishes. It is as before if `edit` fails.
    fn edit<E: From<ControlError>>(
        &mut self,
        bridge: &str,
        edit: impl FnOnce(&mut Bridge) -> Result<Made, E>,
    ) -> Result<(BridgeId, Made), E> {
        let mut next = (*self.bridge(bridge)?).clone();
        let made = edit(&mut next)?;
        let id = next.id;
        self.model.bridges.insert(id, Arc::new(next));
        Ok((id, made))
    }
}

impl Shared {
    /// Makes the changed model the one in force. Returns its generation.
    pub(super) fn publish(&self, state: &mut State) -> u64 {
        state.model.advance();
        self.model.store(Arc::new(state.model.clone()));
        state.model.generation
    }

    /// The same where nothing but flows of these tables changed: what does not depend on them stays in the caches.
    pub(super) fn publish_tables(&self, state: &mut State, tables: impl IntoIterator<Item = TableId>) -> u64 {
        state.model.advance_tables(tables);
        self.model.store(Arc::new(state.model.clone()));
        state.model.generation
    }

    /// Tells that flows were changed, if any were.
    pub(super) fn tell_changes(&self, bridge: BridgeId, made: &Made, generation: u64) {
        let changes = made.changes;
        if changes != FlowChanges::default() {
            self.events.publish(Some(bridge), EventKind::FlowsChanged { changes, generation });
        }
    }
}

impl OtherChanges {
    fn count(&mut self, touched: &[Touched]) {
        for touched in touched {
            match touched {
                Touched::Group(_, Fate::Added) | Touched::Meter(_, Fate::Added) => self.added += 1,
                Touched::Group(_, Fate::Deleted) | Touched::Meter(_, Fate::Deleted) => self.deleted += 1,
                Touched::Group(..) | Touched::Meter(..) | Touched::Table(_) => self.modified += 1,
            }
        }
    }
}

pub(super) fn refused(bridge: &str, number: usize, source: ModError) -> ControlError {
    ControlError::Change { bridge: bridge.to_owned(), number, source }
}
