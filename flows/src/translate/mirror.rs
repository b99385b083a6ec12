//! Copies for mirrors: made where a packet first passes a selected port, of the packet as it is there, once for each place
//! that they go to.
//!
//! What becomes of the copies says nothing of what becomes of the packet: it may be dropped, for whatever reason, with a copy
//! made. A copy that goes on in another bridge, through a patch port, is the packet itself there.

use super::normal::is_reserved;
use super::output::Target;
use super::{MacLookup, TraceSink, Walk, Work};
use crate::bridge::{BridgePort, VlanId};
use crate::datapath::DpAction;
use crate::key::slot;
use crate::mirror::{Mirror, MirrorOutput, Way};
use std::sync::Arc;

/// A copy to be made.
pub(super) struct Copied<'a> {
    target: Target<'a>,
    /// Bytes of the packet, if not all.
    snaplen: Option<u16>,
}

impl<'a, M: MacLookup, S: TraceSink> Walk<'a, M, S> {
    /// Has copies made of the packet, which has just entered by its ingress port.
    pub(super) fn mirror_ingress(&mut self) {
        if self.bridge.mirrors.is_empty() {
            return;
        }
        if let Some(port) = self.bridge.ports.get(&self.in_port()) {
            self.mirror(port, Way::In);
        }
    }

    /// Has copies made of the packet, which passes a port; they are made when what is begun is done.
    pub(super) fn mirror(&mut self, port: &BridgePort, way: Way) {
        let bridge = self.bridge;
        if !bridge.mirrors.iter().any(|mirror| mirror.watches(way, port.no)) {
            return;
        }
        let tci = self.read(slot::VLAN_TCI) as u16;
        let Some(vlan) = port.vlan.ingress(VlanId::from_tci(tci)) else { return };
        let mut left = Vec::new();
        for (place, mirror) in bridge.mirrors.iter().enumerate() {
            if self.mirrored >> place & 1 != 0 || !mirror.selects(way, port.no, vlan) {
                continue;
            }
            self.mirrored |= mirror.same_output();
            self.out.buckets.push(Arc::clone(&mirror.stats));
            self.copy_for(mirror, vlan, tci, &mut left);
        }
        left.reverse();
        self.stack.push(Work::Copies(left));
    }

    /// Adds the copies that go to the output of a mirror.
    fn copy_for(&mut self, mirror: &'a Mirror, vlan: VlanId, tci: u16, into: &mut Vec<Copied<'a>>) {
        let bridge = self.bridge;
        let priority = tci & 0xe000;
        let snaplen = mirror.spec.snaplen;
        match mirror.spec.output {
            MirrorOutput::Port(_) => {
                let port = mirror.port().and_then(|no| bridge.ports.get(&no));
                into.extend(port.map(|port| {
                    // As in OVS, the port need not carry the VLAN.
                    let tci = Some(port.vlan.leaving(vlan, priority));
                    Copied { target: Target { port, tci, copy: true }, snaplen }
                }));
            }
            MirrorOutput::Vlan(out) => {
                if vlan == out || is_reserved(self.read(slot::ETH_DST) as u64) {
                    return;
                }
                let in_port = self.in_port();
                let others = bridge.ports.values().filter(|port| port.no != in_port);
                let targets = others.filter_map(|port| self.tagged(port, out, priority));
                into.extend(targets.map(|target| Copied { target: Target { copy: true, ..target }, snaplen }));
            }
        }
    }

    /// Makes a copy.
    pub(super) fn copy(&mut self, Copied { target, snaplen }: Copied<'a>) {
        self.note("a copy for a mirror");
        if target.port.peer.is_some() {
            return match snaplen {
                None => self.send(target),
                Some(_) => self.note("only a port that leads out of the switch takes a part of a packet"),
            };
        }
        let (sent, before) = (self.out.actions.len(), (self.forwarded, self.reason));
        self.send(target);
        (self.forwarded, self.reason) = before;
        if let Some(len) = snaplen {
            self.truncate_output_since(sent, len.into());
        }
    }

    /// If the last action emitted since there were `sent` of them is an output, it sends at most `max_len` bytes.
    pub(super) fn truncate_output_since(&mut self, sent: usize, max_len: u32) {
        let last = self.out.actions.get_mut(sent..).and_then(|new| new.last_mut());
        if let Some(last @ (DpAction::Output(_) | DpAction::Mirror(_))) = last {
            let output = std::mem::replace(last, DpAction::Truncate(max_len));
            self.out.actions.push(output);
        }
    }
}
