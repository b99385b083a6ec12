//! Bridges: added, removed, listed.

use super::changes::refused;
use super::{ControlError, Datapath, Inner, State};
use crate::event::EventKind;
use crate::mac_table::GroupMember;
use sluice_flows::action::Action;
use sluice_flows::bridge::{Bridge, BridgeId, is_name};
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::rule::FlowSpec;
use sluice_flows::{Match, Owner, PortNo};
use std::sync::Arc;

/// Whether a bridge starts with a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailMode {
    /// It starts as a learning switch: `priority=0 actions=NORMAL`, owner `builtin:default`.
    #[default]
    Standalone,
    /// It starts with empty tables, which drops everything.
    Secure,
}

impl Datapath {
    /// Makes a bridge without ports.
    ///
    /// # Errors
    /// When the name is taken or cannot be one.
    pub fn add_bridge(&self, name: &str, fail_mode: FailMode) -> Result<BridgeId, ControlError> {
        let mut state = self.inner.lock_for_change()?;
        let id = self.inner.make_bridge(&mut state, name, fail_mode)?;
        self.inner.publish(&mut state);
        Ok(id)
    }

    /// Removes a bridge with its ports and flows.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn remove_bridge(&self, name: &str) -> Result<(), ControlError> {
        let mut state = self.inner.lock_for_change()?;
        let bridge = state.bridge(name)?;
        let ports: Vec<_> = bridge.ports.values().cloned().collect();
        let closing = self.inner.remove_from(&mut state, &bridge, &ports);
        state.model.bridges.remove(&bridge.id);
        state.numbers.remove(&bridge.id);
        self.inner.publish(&mut state);
        drop(state);
        drop(closing);
        self.inner.shared.macs.flush(bridge.id, None);
        self.inner.shared.macs.flush_groups(bridge.id, None);
        self.inner.shared.events.publish(Some(bridge.id), EventKind::BridgeRemoved { name: Arc::clone(&bridge.name) });
        Ok(())
    }

    /// Whether NORMAL sends multicast packets of this bridge only to those who want them.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn set_mcast_snooping(&self, name: &str, on: bool) -> Result<(), ControlError> {
        let mut state = self.inner.lock_for_change()?;
        let id = state.bridge(name)?.id;
        if let Some(bridge) = state.bridge_mut(id) {
            bridge.mcast_snooping = on;
        }
        self.inner.publish(&mut state);
        drop(state);
        // What was heard while it was on is of no use later.
        self.inner.shared.macs.flush_groups(id, None);
        Ok(())
    }

    /// The ports behind which somebody wants multicast groups.
    ///
    /// # Errors
    /// When there is no such bridge.
    pub fn group_members(&self, bridge: &str) -> Result<Vec<GroupMember>, ControlError> {
        Ok(self.inner.shared.macs.group_members(self.bridge(bridge)?.id))
    }

    /// Every bridge, sorted by name.
    pub fn bridges(&self) -> Vec<Arc<Bridge>> {
        let mut all: Vec<_> = self.model().bridges.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The bridge of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn bridge(&self, name: &str) -> Result<Arc<Bridge>, ControlError> {
        self.inner.lock().bridge(name)
    }
}

impl Inner {
    /// Makes a bridge without ports: the caller publishes.
    pub(super) fn make_bridge(
        &self,
        state: &mut State,
        name: &str,
        fail_mode: FailMode,
    ) -> Result<BridgeId, ControlError> {
        check_name(name)?;
        if state.model.bridge_named(name).is_some() {
            return Err(ControlError::BridgeExists { name: name.to_owned() });
        }
        let free = (0..=u16::MAX).map(BridgeId).find(|id| state.model.bridge(*id).is_none());
        let id = free.ok_or(ControlError::TooManyBridges)?;
        let mut bridge = Bridge::new(id, name);
        if fail_mode == FailMode::Standalone {
            let flow = FlowMod::add(default_flow()).into();
            bridge.make(flow, self.shared.clock.now()).map_err(|source| refused(name, 1, source))?;
        }
        state.model.bridges.insert(id, Arc::new(bridge));
        self.shared.events.publish(Some(id), EventKind::BridgeAdded { name: name.into() });
        Ok(id)
    }
}

impl State {
    pub(super) fn bridge(&self, name: &str) -> Result<Arc<Bridge>, ControlError> {
        self.model.bridge_named(name).cloned().ok_or_else(|| {
            let known = self.model.bridges.values().map(|b| &*b.name);
            ControlError::NoBridge { name: name.to_owned(), known: list(known) }
        })
    }

    /// The bridge, to change: the caller publishes.
    pub(super) fn bridge_mut(&mut self, id: BridgeId) -> Option<&mut Bridge> {
        self.model.bridges.get_mut(&id).map(Arc::make_mut)
    }
}

/// Names for a message.
pub(super) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Checks that `name` can be a bridge's or port's.
pub(super) fn check_name(name: &str) -> Result<(), ControlError> {
    if is_name(name) { Ok(()) } else { Err(ControlError::BadName { name: name.to_owned() }) }
}

/// What makes a bridge a learning switch.
fn default_flow() -> FlowSpec {
    let actions = [Action::Output(PortNo::NORMAL)];
    FlowSpec { priority: 0, ..FlowSpec::new(Match::any(), actions, Owner::new("builtin:default")) }
}
