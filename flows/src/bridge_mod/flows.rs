//! Flows of a bridge: what they name must exist, and their table must have room.

use super::ModError;
use crate::action::Action;
use crate::bridge::{Bridge, TableConfig};
use crate::flow_mod::{Applied, FlowMod, FlowModError};
use crate::reference::{Reference, each};
use crate::rule::{FlowSpec, Millis, Rule, TableId};
use crate::table::RemovedReason;
use std::sync::Arc;

impl Bridge {
    pub(super) fn apply_flow(&mut self, change: FlowMod, now: Millis) -> Result<Applied, ModError> {
        let spec = match &change {
            FlowMod::Add { spec, .. } => spec,
            FlowMod::Modify { spec, filter, .. } => {
                self.check_references(&spec.actions)?;
                if self.tables.select(filter).next().is_some() {
                    return Ok(self.tables.make(change, now)?);
                }
                spec
            }
            FlowMod::Delete { .. } => return Ok(self.tables.make(change, now)?),
        };
        self.check_references(&spec.actions)?;
        let evicted = self.make_room(spec)?;
        match self.tables.make(change, now) {
            Ok(mut applied) => {
                applied.removed.extend(evicted.into_iter().map(|rule| (rule, RemovedReason::Evicted)));
                Ok(applied)
            }
            Err(error) => {
                for rule in evicted {
                    self.tables.insert(rule);
                }
                Err(error.into())
            }
        }
    }

    /// Checks that every group and meter that the actions name is there.
    ///
    /// # Errors
    /// The first one that is not.
    pub fn check_references(&self, actions: &[Action]) -> Result<(), FlowModError> {
        let mut missing = None;
        each(actions, &mut |what| {
            let error = match what {
                Reference::Group(group) if !self.groups.contains_key(&group) => FlowModError::NoGroup { group },
                Reference::Meter(meter) if !self.meters.contains_key(&meter) => FlowModError::NoMeter { meter },
                _ => return,
            };
            missing.get_or_insert(error);
        });
        missing.map_or(Ok(()), Err)
    }

    /// Takes out of a full table what has to go for a new flow; nothing when the flow replaces another.
    fn make_room(&mut self, spec: &FlowSpec) -> Result<Vec<Arc<Rule>>, FlowModError> {
        let Some(&TableConfig { max_flows: Some(max), evict, .. }) = self.table_configs.get(&spec.table) else {
            return Ok(Vec::new());
        };
        let full = self.tables.table_len(spec.table) >= max as usize;
        if !full || self.tables.get_strict(spec.table, spec.priority, &spec.matches).is_some() {
            return Ok(Vec::new());
        }
        let room = (max as usize).checked_sub(1);
        let evicted = match room {
            Some(left) if evict => self.evict(spec.table, left),
            _ => Vec::new(),
        };
        if room.is_some_and(|left| self.tables.table_len(spec.table) <= left) {
            return Ok(evicted);
        }
        for rule in evicted {
            self.tables.insert(rule);
        }
        Err(FlowModError::TableFull { table: spec.table, max, evicts: evict })
    }

    /// Removes flows that may go from a table until it has at most `left`, or none that may go.
    pub(super) fn evict(&mut self, table: TableId, left: usize) -> Vec<Arc<Rule>> {
        let mut evicted = Vec::new();
        while self.tables.table_len(table) > left {
            let Some(rule) = self.tables.evictable(table).cloned() else { break };
            evicted.extend(self.tables.remove(table, rule.spec.priority, &rule.spec.matches));
        }
        evicted
    }
}
