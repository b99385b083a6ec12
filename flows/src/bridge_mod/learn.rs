//! Flows that packets make.

use super::ModError;
use crate::bridge::Bridge;
use crate::datapath::Learned;
use crate::filter::FlowFilter;
use crate::flow_mod::{Applied, FlowMod};
use crate::rule::{FlowSpec, Millis, Rule};
use std::sync::Arc;

/// What came of a flow that a packet wanted to make.
#[derive(Clone, Debug)]
pub enum Learning {
    /// It is there as it was to be made; its hard timeout starts anew.
    Refreshed,
    /// Its table has as many flows with its cookie as may be.
    Limited,
    /// It was added, or one with its match and priority was changed.
    Changed(Applied),
}

impl Bridge {
    /// The flow that is there already as `spec` says, whoever owns it.
    pub fn learned(&self, spec: &FlowSpec) -> Option<&Arc<Rule>> {
        let there = self.tables.get_strict(spec.table, spec.priority, &spec.matches)?;
        let old = &there.spec;
        let same = old.cookie == spec.cookie
            && old.idle_timeout == spec.idle_timeout
            && old.hard_timeout == spec.hard_timeout
            && old.importance == spec.importance
            && old.send_flow_rem == spec.send_flow_rem
            && old.actions == spec.actions;
        same.then_some(there)
    }

    /// The flow that `rule` was, as it would be if its timeouts were at most `idle` and `hard` seconds, 0
    /// for no such limit; `None` when they are, or it is gone.
    pub fn shortened(&self, rule: &Rule, idle: u16, hard: u16) -> Option<Rule> {
        let spec = &rule.spec;
        let there = self.tables.get_strict(spec.table, spec.priority, &spec.matches)?;
        if !Arc::ptr_eq(&there.stats, &rule.stats) {
            return None;
        }
        let shorter = |most: u16, now: u16| if most != 0 && (now == 0 || now > most) { most } else { now };
        let spec = FlowSpec {
            idle_timeout: shorter(idle, there.spec.idle_timeout),
            hard_timeout: shorter(hard, there.spec.hard_timeout),
            ..there.spec.clone()
        };
        let changed = (spec.idle_timeout, spec.hard_timeout) != (there.spec.idle_timeout, there.spec.hard_timeout);
        changed.then(|| Rule {
            spec,
            created: there.created,
            modified: there.modified,
            stats: Arc::clone(&there.stats),
        })
    }

    /// Makes the timeouts of a flow at most `idle` and `hard` seconds. Returns the flow as it then is, if that changes
    /// it.
    pub fn shorten(&mut self, rule: &Rule, idle: u16, hard: u16) -> Option<Arc<Rule>> {
        let (rule, _) = self.tables.insert_new(self.shortened(rule, idle, hard)?);
        Some(rule)
    }

    /// Makes the flow that a packet asks for, unless it is there: as a strict modify that sets the cookie.
    ///
    /// # Errors
    /// When the flow is refused; the bridge is then as it was.
    pub fn learn(&mut self, learned: &Learned, now: Millis) -> Result<Learning, ModError> {
        let spec = &learned.spec;
        if let Some(there) = self.learned(spec) {
            there.stats.refresh(now);
            return Ok(Learning::Refreshed);
        }
        if learned.limit != 0 {
            let cookie =
                FlowFilter { table: Some(spec.table), cookie: spec.cookie, cookie_mask: u64::MAX, ..FlowFilter::all() };
            let limit = learned.limit as usize;
            if self.tables.select(&cookie).take(limit).count() >= limit {
                return Ok(Learning::Limited);
            }
        }
        let change = FlowMod::Modify {
            filter: FlowFilter::strictly(spec),
            spec: spec.clone(),
            set_cookie: true,
            reset_counts: false,
        };
        self.apply(&change.into(), now).map(Learning::Changed)
    }
}
