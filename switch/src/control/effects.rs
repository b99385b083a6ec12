//! What packets do to the tables: flows learned, timeouts shortened.
//!
//! Workers call [`Shared::apply_effects`] for the packets that they translate, and again when they credit what cache
//! entries have counted. Mostly the flow is there already, which the published model tells without a lock. Otherwise the
//! change is made and published at once, so that the next burst finds the flow.
//!
//! A worker never waits here: the control side may hold the lock while it waits for that very worker. An effect that
//! finds the lock taken is queued for the maintenance thread, in a queue of bounded length; what does not fit is counted
//! and lost, and comes again with the next packet. For the same reason events of flows removed, whose counters have to
//! be final, are left to the maintenance thread.

use super::changes::{Made, Removed};
use super::{Datapath, State};
use crate::datapath::{Notice, Shared};
use crossbeam::queue::ArrayQueue;
use sluice_flows::bridge::{BridgeId, Model};
use sluice_flows::bridge_mod::Learning;
use sluice_flows::datapath::Effect;
use sluice_flows::flow_mod::Applied;
use sluice_flows::rule::{Millis, TableId};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};

/// Effects that wait for the maintenance thread.
const WAITING: usize = 4096;

/// What waits for the maintenance thread.
pub(crate) struct Waiting {
    effects: ArrayQueue<Effect>,
    removed: Mutex<Vec<(BridgeId, Removed)>>,
    lost: AtomicU64,
    /// The maintenance thread has been told and has not looked yet.
    told: AtomicBool,
}

impl Default for Waiting {
    fn default() -> Self {
        Self {
            effects: ArrayQueue::new(WAITING),
            removed: Mutex::default(),
            lost: AtomicU64::new(0),
            told: AtomicBool::new(false),
        }
    }
}

impl Shared {
    /// Does what packets do to the tables, the last of them at `now`. Never waits; see the module's documentation.
    pub(crate) fn apply_effects(&self, effects: &[Effect], now: Millis) {
        let model = self.model.load();
        if effects.iter().all(|effect| is_done(&model, effect, now)) {
            return;
        }
        drop(model);
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => {
                for effect in effects {
                    if self.waiting.effects.push(effect.clone()).is_err() {
                        self.waiting.lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
                self.tell_maintenance();
                return;
            }
        };
        self.make(&mut state, effects, now);
    }

    /// Does what waited, then `effects`, and publishes what changed.
    fn make(&self, state: &mut State, effects: &[Effect], now: Millis) {
        if state.ended {
            return;
        }
        let mut all = Vec::new();
        // No more than fit into the queue: workers may go on filling it meanwhile.
        for effect in (0..WAITING).map_while(|_| self.waiting.effects.pop()) {
            all.extend(state.make(&effect, now));
        }
        for effect in effects {
            all.extend(state.make(effect, now));
        }
        if all.is_empty() {
            return;
        }
        let tables = all.iter().flat_map(|(_, applied)| tables_of(applied));
        let generation = self.publish_tables(state, tables);
        let mut removed = Vec::new();
        for (bridge, applied) in all {
            let made = Made::from(vec![applied]);
            self.tell_changes(bridge, &made, generation);
            let gone = made.into_removed();
            if !gone.is_empty() {
                removed.push((bridge, gone));
            }
        }
        if !removed.is_empty() {
            self.waiting.removed.lock().unwrap_or_else(PoisonError::into_inner).extend(removed);
            self.tell_maintenance();
        }
    }

    fn tell_maintenance(&self) {
        if !self.waiting.told.swap(true, Ordering::AcqRel) {
            // Without a receiver the switch is ending.
            _ = self.notices.send(Notice::Effects);
        }
    }
}

impl Datapath {
    /// Does what workers could not do themselves.
    pub(super) fn apply_waiting(&self) {
        let shared = &self.inner.shared;
        shared.waiting.told.store(false, Ordering::Release);
        if !shared.waiting.effects.is_empty() {
            shared.make(&mut self.inner.lock(), &[], self.clock().now());
        }
        let removed = std::mem::take(&mut *shared.waiting.removed.lock().unwrap_or_else(PoisonError::into_inner));
        self.tell_removed(removed);
    }

    /// Flows that packets wanted to make, or timeouts that they wanted to shorten, that were lost because too many
    /// waited.
    pub fn effects_lost(&self) -> u64 {
        self.inner.shared.waiting.lost.load(Ordering::Relaxed)
    }
}

impl State {
    /// Does what a packet does to the tables; what changed, if anything.
    fn make(&mut self, effect: &Effect, now: Millis) -> Option<(BridgeId, Applied)> {
        if is_done(&self.model, effect, now) {
            return None;
        }
        match effect {
            Effect::Learn(learned) => match self.bridge_mut(learned.bridge)?.learn(learned, now) {
                Ok(Learning::Changed(applied)) => Some((learned.bridge, applied)),
                Ok(Learning::Refreshed | Learning::Limited) => None,
                Err(error) => {
                    tracing::debug!(bridge = learned.bridge.0, %error, "a packet's flow was refused");
                    None
                }
            },
            Effect::FinTimeout { bridge, rule, idle, hard } => {
                let rule = self.bridge_mut(*bridge)?.shorten(rule, *idle, *hard)?;
                Some((*bridge, Applied { modified: vec![rule], ..Applied::default() }))
            }
        }
    }
}

/// The tables whose flows a packet changed.
fn tables_of(applied: &Applied) -> impl Iterator<Item = TableId> {
    let come = applied.added.iter().chain(&applied.modified);
    come.chain(applied.removed.iter().map(|(rule, _)| rule)).map(|rule| rule.spec.table)
}

/// Whether the model is already as the effect would make it; a flow that is there is refreshed.
fn is_done(model: &Model, effect: &Effect, now: Millis) -> bool {
    match effect {
        Effect::Learn(learned) => {
            let there = model.bridge(learned.bridge).and_then(|bridge| bridge.learned(&learned.spec));
            if let Some(rule) = there {
                rule.stats.refresh(now);
            }
            there.is_some()
        }
        Effect::FinTimeout { bridge, rule, idle, hard } => {
            model.bridge(*bridge).is_none_or(|bridge| bridge.shortened(rule, *idle, *hard).is_none())
        }
    }
}

#[cfg(test)]
mod tests;
