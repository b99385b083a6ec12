//! Sending to ports and to the controllers.

use super::{At, Run, TooFar};
use crate::events::{Event, reason_number};
use sluice_flows::PortNo;
use sluice_flows::action::{ControllerAction, PacketInReason};
use sluice_flows::field::Field;
use sluice_flows::key::{VLAN_PRESENT, slot};

impl Run<'_> {
    fn in_port(&self) -> PortNo {
        PortNo(self.key().get(Field::InPort.slot()) as u16)
    }

    pub(super) fn output(&mut self, port: PortNo, at: At<'_>) -> Result<(), TooFar> {
        match port {
            PortNo::IN_PORT => self.send_by(self.in_port(), None)?,
            PortNo::CONTROLLER => self.send_to_controller(&ControllerAction::default(), at),
            PortNo::TABLE => self.table(0, None, true)?,
            PortNo::FLOOD => self.send_by_all(|no_flood| !no_flood)?,
            PortNo::ALL => self.send_by_all(|_| true)?,
            PortNo::NORMAL => self.normal()?,
            port if port == self.in_port() => {}
            port => self.send_by(port, None)?,
        }
        Ok(())
    }

    /// Cuts the packet only for ports that lead out of the switch; sends it to no others.
    pub(super) fn output_truncated(&mut self, port: PortNo, max_len: u32) {
        let leads_out = self.bridge.ports.get(&port).is_some_and(|port| port.peer.is_none());
        if leads_out && port != self.in_port() {
            let _ = self.send_by(port, Some(max_len));
        }
    }

    pub(super) fn enqueue(&mut self, port: PortNo, queue: u32, at: At<'_>) -> Result<(), TooFar> {
        let before = self.key().get(slot::SKB_PRIORITY);
        self.packet.key.set(slot::SKB_PRIORITY, queue.into());
        self.output(port, at)?;
        self.packet.key.set(slot::SKB_PRIORITY, before);
        Ok(())
    }

    pub(super) fn send_to_controller(&mut self, options: &ControllerAction, at: At<'_>) {
        let given = reason_number(options.reason);
        let reason = if options.reason == PacketInReason::Action { at.reason.unwrap_or(given) } else { given };
        self.fate.events.push(Event::Controller {
            reason,
            controller: options.controller_id,
            max_len: options.max_len,
            cookie: at.rule.map_or(0, |rule| rule.cookie),
            meter: options.meter.filter(|id| self.bridge.meters.contains_key(id)).map(|id| id.0),
            packet: self.packet.wire(),
        });
    }

    /// The TTL ran out: these controllers are told, and the list ends.
    pub(super) fn ttl_expired(&mut self, controllers: &[u16], at: At<'_>) -> Result<(), TooFar> {
        let all: &[u16] = if controllers.is_empty() { &[0] } else { controllers };
        for id in all {
            let reason = PacketInReason::InvalidTtl;
            self.send_to_controller(
                &ControllerAction { reason, controller_id: *id, ..ControllerAction::default() },
                at,
            );
        }
        Ok(())
    }

    fn send_by(&mut self, port: PortNo, max_len: Option<u32>) -> Result<(), TooFar> {
        let Some(port) = self.bridge.ports.get(&port).filter(|p| p.up) else { return Ok(()) };
        if port.protected && self.bridge.ports.get(&self.in_port()).is_some_and(|from| from.protected) {
            return Ok(());
        }
        let Some((bridge, no)) = port.peer else {
            self.fate.events.push(Event::Output { port: port.dp, max_len, packet: self.packet.wire() });
            return Ok(());
        };
        let stack = std::mem::take(&mut self.stack);
        let action_set = std::mem::take(&mut self.action_set);
        let here = (self.bridge, self.packet.clone(), stack, action_set);
        let before = std::mem::take(&mut self.fate.events);
        self.bridge = self.model.bridge(bridge).expect("patch ports lead to bridges that are there");
        self.forget_pipeline();
        self.packet.key.set(Field::InPort.slot(), no.0.into());
        self.pipeline()?;
        let inner = std::mem::replace(&mut self.fate.events, before);
        crate::events::copy(&mut self.fate.events, inner);
        (self.bridge, self.packet, self.stack, self.action_set) = here;
        self.exit = false;
        Ok(())
    }

    fn send_by_all(&mut self, wanted: impl Fn(bool) -> bool) -> Result<(), TooFar> {
        let in_port = self.in_port();
        let bridge = self.bridge;
        for port in bridge.ports.values() {
            if port.no != in_port && wanted(port.no_flood) {
                self.send_by(port.no, None)?;
            }
        }
        Ok(())
    }

    /// A learning switch that has learned nothing, with trunk ports only.
    fn normal(&mut self) -> Result<(), TooFar> {
        self.implied_pops.push(*self.key());
        let reserved = self.key().get(slot::ETH_DST) >> 4 == 0x0180_c200_0000 >> 4;
        if reserved || !self.bridge.ports.contains_key(&self.in_port()) {
            return Ok(());
        }
        let before = self.packet.clone();
        // A tag that says neither a VLAN nor a priority goes.
        if self.key().get(slot::VLAN_TCI) == VLAN_PRESENT.into() {
            self.packet.pop_vlan();
        }
        self.send_by_all(|no_flood| !no_flood)?;
        self.packet = before;
        Ok(())
    }
}
