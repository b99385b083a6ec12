//! Sending: ordinary ports, reserved ports, and patch ports, behind which another bridge goes on.

use super::{At, Flow, MacLookup, TraceEvent, TraceSink, Walk, Work};
use crate::action::ControllerAction;
use crate::bridge::{BridgeId, BridgePort};
use crate::datapath::DpAction;
use crate::field::Field;
use crate::key::{FRAME_WORDS, slot};
use crate::mirror::Way;
use crate::port::PortNo;
use crate::rule::TableId;
use crate::verdict::DropReason;
use std::sync::Arc;

/// A port to send to.
pub(super) struct Target<'a> {
    pub(super) port: &'a Arc<BridgePort>,
    /// The outer VLAN TCI to send with (0 for no tag), or as the packet is.
    pub(super) tci: Option<u16>,
    /// What is sent is a copy for a mirror.
    pub(super) copy: bool,
}

impl<'a, M: MacLookup, S: TraceSink> Walk<'a, M, S> {
    pub(super) fn output(&mut self, port: PortNo, at: At<'a>) {
        match port {
            PortNo::NORMAL => self.normal(),
            PortNo::FLOOD => self.flood(|port| !port.no_flood),
            PortNo::ALL => self.flood(|_| true),
            PortNo::IN_PORT => {
                let port = self.in_port();
                self.output_number(port);
            }
            PortNo::TABLE => self.jump(TableId::FIRST, None, false, true),
            PortNo::CONTROLLER => {
                self.send_to_controller(&ControllerAction::default(), None, at);
                self.forwarded = true;
            }
            PortNo::NONE => {}
            port if port == self.in_port() => self.warn("skipping output to input port"),
            port => self.output_number(port),
        }
    }

    /// Sends at most `max_len` bytes of the packet.
    pub(super) fn output_truncated(&mut self, port: PortNo, max_len: u32, at: At<'a>) {
        // As in OVS, a packet is cut for ports that lead out of the switch only.
        if self.bridge.ports.get(&port).is_none_or(|port| port.peer.is_some()) {
            return self.note("only a port that leads out of the switch takes a part of a packet");
        }
        let sent = self.out.actions.len();
        self.output(port, at);
        // Only a port takes a part; whatever else comes of the packet is whole.
        self.truncate_output_since(sent, max_len);
    }

    /// Sends by a queue of the port.
    pub(super) fn enqueue(&mut self, port: PortNo, queue: u32, at: At<'a>) {
        // A patch port is gone through later: the queue is put back when that is done.
        self.save_until_sent(self.flow);
        self.write(slot::SKB_PRIORITY, queue.into(), u128::MAX);
        self.output(if port == PortNo::IN_PORT { self.in_port() } else { port }, at);
    }

    fn output_number(&mut self, port: PortNo) {
        match self.bridge.ports.get(&port) {
            Some(port) => self.send(Target { port, tci: None, copy: false }),
            None => {
                self.reason = DropReason::NoPort;
                self.warn("Nonexistent output port");
            }
        }
    }

    /// Sends to every port but the ingress port that `wanted` picks, in the order of their numbers.
    fn flood(&mut self, wanted: impl Fn(&BridgePort) -> bool) {
        let in_port = self.in_port();
        let ports = self.bridge.ports.iter().rev();
        let targets: Vec<_> = ports
            .filter(|(no, port)| **no != in_port && wanted(port))
            .map(|(_, port)| Target { port, tci: None, copy: false })
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
    pub(super) fn send(&mut self, Target { port, tci, copy }: Target<'a>) {
        if !port.up {
            self.reason = DropReason::PortDown;
            return self.note("the output port is down");
        }
        if port.protected && self.bridge.ports.get(&self.in_port()).is_some_and(|from| from.protected) {
            self.reason = DropReason::NoPort;
            return self.warn("Flow is between protected ports, skipping output.");
        }
        let before = self.flow;
        if let Some(tci) = tci {
            self.put_vlan(tci);
        }
        match port.peer {
            Some((bridge, no)) => self.cross(port, bridge, no, before),
            None if self.flow.key.get(slot::PACKET_TYPE) != 0 => {
                self.flow = before;
                self.note("the port carries Ethernet: a packet without an Ethernet header is not sent");
            }
            None if port.tunnel.as_deref().is_some_and(|tunnel| !self.set_tunnel(tunnel)) => self.flow = before,
            None => {
                self.commit();
                if S::ACTIVE {
                    self.tell(TraceEvent::Output(port));
                }
                self.out.actions.push(if copy { DpAction::Mirror(port.dp) } else { DpAction::Output(port.dp) });
                self.forwarded = true;
                self.mirror(port, Way::Out);
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
        self.mirror(port, Way::Out);
        // What a meter or the tracker does in that bridge is not the business of this one.
        self.save_until_sent(before);
        let (values, action_set) = (std::mem::take(&mut self.values), std::mem::take(&mut self.action_set));
        let mirrored = self.mirrored;
        if next.id != self.bridge.id {
            self.mirrored = 0;
        }
        self.stack.push(Work::Return { bridge: self.bridge, flow: Box::new(before), values, action_set, mirrored });
        self.stack.push(Work::ActionSet);
        self.bridge = next;
        // Tunnel, connection, metadata and registers end with the bridge; priority and type are the packet's.
        let kept = [slot::SKB_PRIORITY, slot::PACKET_TYPE];
        let kept = kept.map(|slot| (slot, self.flow.key.get(slot), self.flow.written.get(slot)));
        self.flow.key.0[FRAME_WORDS..].fill(0);
        self.flow.written.0[FRAME_WORDS..].fill(u64::MAX);
        for (slot, value, written) in kept {
            self.flow.key.set(slot, value);
            self.flow.written.set(slot, written);
        }
        self.flow.key.set(slot::ACTSET_OUTPUT, PortNo::UNSET.0.into());
        self.flow.key.set(Field::InPort.slot(), no.0.into());
        self.enter_bridge();
    }
}
