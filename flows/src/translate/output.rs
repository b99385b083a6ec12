//! Sending: ordinary ports, reserved ports, and patch ports, behind which another bridge goes on.

use super::{Flow, MacLookup, TraceEvent, TraceSink, Walk, Work};
use crate::action::ControllerAction;
use crate::bridge::{BridgeId, BridgePort};
use crate::datapath::DpAction;
use crate::field::Field;
use crate::key::PIPELINE_WORD;
use crate::port::PortNo;
use crate::rule::{Rule, TableId};
use crate::verdict::DropReason;
use std::sync::Arc;

/// A port to send to.
pub(super) struct Target<'a> {
    pub(super) port: &'a Arc<BridgePort>,
    /// The outer VLAN TCI to send with (0 for no tag), or as the packet is.
    pub(super) tci: Option<u16>,
}

impl<'a, M: MacLookup, S: TraceSink> Walk<'a, M, S> {
    pub(super) fn output(&mut self, port: PortNo, rule: Option<&'a Arc<Rule>>, table: TableId) {
        match port {
            PortNo::NORMAL => self.normal(),
            PortNo::FLOOD => self.flood(|port| !port.no_flood),
            PortNo::ALL => self.flood(|_| true),
            PortNo::IN_PORT => {
                let port = self.in_port();
                self.output_number(port);
            }
            PortNo::TABLE => self.jump(TableId::FIRST, None, true),
            PortNo::CONTROLLER => {
                self.send_to_controller(&ControllerAction::default(), rule, table);
                self.forwarded = true;
            }
            PortNo::NONE => {}
            port if port == self.in_port() => {
                self.note("output to the ingress port is skipped; use in_port to hairpin")
            }
            port => self.output_number(port),
        }
    }

    fn output_number(&mut self, port: PortNo) {
        match self.bridge.ports.get(&port) {
            Some(port) => self.send(Target { port, tci: None }),
            None => {
                self.reason = DropReason::NoPort;
                self.note("the bridge has no such port");
            }
        }
    }

    /// Sends to every port but the ingress port that `wanted` picks, in the order of their numbers.
    fn flood(&mut self, wanted: impl Fn(&BridgePort) -> bool) {
        let in_port = self.in_port();
        let ports = self.bridge.ports.iter().rev();
        let targets: Vec<_> = ports
            .filter(|(no, port)| **no != in_port && wanted(port))
            .map(|(_, port)| Target { port, tci: None })
            .collect();
        self.send_all(targets);
    }

    /// Sends to the targets, last first.
    pub(super) fn send_all(&mut self, targets: Vec<Target<'a>>) {
        if targets.is_empty() {
            self.reason = DropReason::NoPort;
            self.note("there is no port to send to");
        }
        self.stack.push(Work::Outputs(targets));
    }

    /// Sends to one port, or goes on in the bridge behind it.
    pub(super) fn send(&mut self, Target { port, tci }: Target<'a>) {
        if !port.up {
            self.reason = DropReason::PortDown;
            return self.note("the output port is down");
        }
        let before = self.flow;
        if let Some(tci) = tci {
            self.put_vlan(tci);
        }
        match port.peer {
            Some((bridge, no)) => self.cross(port, bridge, no, before),
            None => {
                self.commit();
                if S::ACTIVE {
                    self.sink.event(self.stack.len(), TraceEvent::Output(port));
                }
                self.out.actions.push(DpAction::Output(port.dp));
                self.forwarded = true;
                self.flow = before;
            }
        }
    }

    /// Goes on in the bridge at the other end of a patch port; `before` is what the packet is when it comes back.
    fn cross(&mut self, port: &BridgePort, bridge: BridgeId, no: PortNo, before: Flow) {
        let Some(next) = self.model.bridge(bridge) else {
            self.flow = before;
            self.reason = DropReason::NoPort;
            return self.note("the patch port's peer bridge does not exist");
        };
        let Some(peer) = next.ports.get(&no).filter(|peer| peer.up) else {
            self.flow = before;
            self.reason = DropReason::PortDown;
            return self.note("the patch port's peer is gone or down");
        };
        self.out.patched.extend([port.dp, peer.dp]);
        self.stack.push(Work::Return { bridge: self.bridge, flow: Box::new(before) });
        self.bridge = next;
        self.flow.key.0[PIPELINE_WORD..].fill(0);
        self.flow.key.set(Field::InPort.slot(), no.0.into());
        self.enter_bridge();
    }
}
