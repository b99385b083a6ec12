//! Flows: bundles of changes, all or nothing.

use super::{ControlError, Datapath, State};
use crate::event::{EventKind, FlowChanges};
use sluice_flows::bridge::BridgeId;
use sluice_flows::flow_mod::{Applied, FlowMod, apply_bundle};
use sluice_flows::rule::Millis;
use sluice_flows::table::{RemovedReason, Tables};
use std::sync::Arc;

/// What a bundle did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BundleResult {
    /// How many flows it touched.
    pub changes: FlowChanges,
    /// Generation of the model that holds the change.
    pub generation: u64,
}

impl Datapath {
    /// Makes all the changes to the flows of one bridge, in order, or none of them.
    ///
    /// # Errors
    /// When there is no such bridge, or a change is refused.
    pub fn apply_bundle(&self, bridge: &str, changes: &[FlowMod]) -> Result<BundleResult, ControlError> {
        self.apply_bundles(&[(bridge, changes)])
    }

    /// Makes all the changes to the flows of several bridges, or none of them: no packet sees a part of them.
    ///
    /// # Errors
    /// When a bridge does not exist, or a change is refused.
    pub fn apply_bundles(&self, bundles: &[(&str, &[FlowMod])]) -> Result<BundleResult, ControlError> {
        let now = self.clock().now();
        let mut state = self.inner.lock_for_change()?;
        let before = state.model.clone();
        let mut all = Vec::with_capacity(bundles.len());
        for (name, changes) in bundles {
            let result = state.edit(name, |tables| {
                apply_bundle(tables, changes, now).map_err(|(index, source)| ControlError::Flow {
                    bridge: (*name).to_owned(),
                    number: index + 1,
                    source,
                })
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

    /// Changes the flow tables of a bridge as `edit` does, in one step. The tables are not changed if it fails; `edit`
    /// says what it did so that it can be made known.
    ///
    /// # Errors
    /// When there is no such bridge, or what `edit` returns.
    pub fn edit_flows<E: From<ControlError>>(
        &self,
        bridge: &str,
        edit: impl FnOnce(&mut Tables, Millis) -> Result<Vec<Applied>, E>,
    ) -> Result<BundleResult, E> {
        let now = self.clock().now();
        let mut state = self.inner.lock_for_change()?;
        let applied = state.edit(bridge, |tables| edit(tables, now))?;
        Ok(self.commit(state, vec![applied]))
    }

    /// Publishes the changes and tells of them.
    fn commit(&self, mut state: std::sync::MutexGuard<'_, State>, all: Vec<(BridgeId, Vec<Applied>)>) -> BundleResult {
        let mut total = BundleResult { generation: state.model.generation, ..BundleResult::default() };
        let counted: Vec<_> = all.iter().map(|(bridge, applied)| (*bridge, count(applied))).collect();
        if counted.iter().all(|(_, c)| *c == FlowChanges::default()) {
            return total;
        }
        total.generation = self.inner.publish(&mut state);
        drop(state);
        for (bridge, changes) in counted {
            total.changes.added += changes.added;
            total.changes.modified += changes.modified;
            total.changes.deleted += changes.deleted;
            let kind = EventKind::FlowsChanged { changes, generation: total.generation };
            self.inner.shared.events.publish(Some(bridge), kind);
        }
        let removed = all.iter().flat_map(|(bridge, applied)| {
            let removed = applied.iter().flat_map(|a| &a.removed);
            removed.filter(|(rule, _)| rule.spec.send_flow_rem).map(|(rule, reason)| (*bridge, rule, *reason))
        });
        let mut synced = false;
        for (bridge, rule, reason) in removed {
            if !std::mem::replace(&mut synced, true) {
                // What workers have not credited yet belongs to the final counters.
                self.sync_stats();
            }
            let kind = EventKind::FlowRemoved { rule: Arc::clone(rule), reason };
            self.inner.shared.events.publish(Some(bridge), kind);
        }
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
        let mut removed: Vec<(BridgeId, Arc<_>, RemovedReason)> = Vec::new();
        {
            let mut state = self.inner.lock();
            let bridges: Vec<_> =
                state.model.bridges.iter().filter(|(_, b)| due(&b.tables)).map(|(id, _)| *id).collect();
            for id in bridges {
                if let Some(bridge) = state.bridge_mut(id) {
                    removed.extend(bridge.tables.expire(now).into_iter().map(|(rule, why)| (id, rule, why)));
                }
            }
            if removed.is_empty() {
                return;
            }
            self.inner.publish(&mut state);
        }
        self.sync_stats();
        for (bridge, rule, reason) in removed {
            self.inner.shared.events.publish(Some(bridge), EventKind::FlowRemoved { rule, reason });
        }
    }
}

impl State {
    /// Changes the tables of a bridge; the caller publishes. They are as before if `edit` fails.
    fn edit<E: From<ControlError>>(
        &mut self,
        bridge: &str,
        edit: impl FnOnce(&mut Tables) -> Result<Vec<Applied>, E>,
    ) -> Result<(BridgeId, Vec<Applied>), E> {
        let mut next = (*self.bridge(bridge)?).clone();
        let applied = edit(&mut next.tables)?;
        let id = next.id;
        self.model.bridges.insert(id, Arc::new(next));
        Ok((id, applied))
    }
}

fn count(applied: &[Applied]) -> FlowChanges {
    FlowChanges {
        added: applied.iter().filter(|a| a.added.is_some()).count() as u64,
        modified: applied.iter().map(|a| a.modified.len() as u64).sum(),
        deleted: applied.iter().map(|a| a.removed.len() as u64).sum(),
    }
}
