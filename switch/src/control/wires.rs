//! Wires: their ends are joined as soon as both are there and each names the other, as patches are connected.
//!
//! Unlike a patch, a wire has its own way to the other end; the model only says whether it is up.

use super::State;
use crate::port::Port;
use sluice_flows::DpPort;
use sluice_flows::bridge::BridgePort;
use std::collections::HashMap;
use std::sync::Arc;

impl State {
    /// Joins every wire's end with the other if each names the other, and parts those that have lost it.
    pub(super) fn link_wires(&mut self) {
        let ends: Vec<(DpPort, Arc<str>, Arc<dyn Port>)> = self.wires().collect();
        if ends.is_empty() {
            return;
        }
        let by_name: HashMap<&str, _> = ends.iter().map(|(_, name, port)| (&**name, port)).collect();
        for (dp, name, port) in &ends {
            let Some(wire) = port.wire() else { continue };
            let other = by_name.get(wire.peer()).and_then(|other| other.wire());
            match other.filter(|other| other.peer() == &**name) {
                Some(other) => wire.join(other),
                None => wire.part(),
            }
            self.note_link(*dp, port.link_up());
        }
    }

    /// Notes whether a port's device is up, here and in the model.
    fn note_link(&mut self, dp: DpPort, link_up: bool) {
        let Some(up) = self.set_link(dp, link_up) else { return };
        let Some((bridge, no)) = self.model.ports.get(&dp).copied() else { return };
        let Some(bridge) = self.bridge_mut(bridge) else { return };
        if let Some(port) = bridge.ports.get(&no).filter(|port| port.up != up) {
            let port = BridgePort { up, ..(**port).clone() };
            bridge.ports.insert(no, Arc::new(port));
        }
    }
}
