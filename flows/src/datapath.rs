//! What translation makes of a packet: a flat list of datapath actions, valid for every packet under a mask.

use crate::action::PacketInReason;
use crate::bridge::{BridgeId, VlanId};
use crate::field::Field;
use crate::key::PacketMask;
use crate::owner::Owner;
use crate::port::{DpPort, PortNo};
use crate::rule::{Rule, TableId};
use crate::verdict::Verdict;
use smallvec::SmallVec;
use std::sync::Arc;

/// New bits for one header field of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// The field; a field of the packet part.
    pub field: Field,
    /// Its new bits, right-aligned.
    pub value: u128,
    /// Which bits are new.
    pub mask: u128,
}

/// One step of what is done to a packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DpAction {
    /// Send the packet as it now is.
    Output(DpPort),
    /// Rewrite fields of one header.
    Set(SmallVec<[Change; 2]>),
    /// Put a VLAN tag in front of those there are.
    PushVlan {
        /// TPID of the new tag.
        tpid: u16,
        /// TCI of the new tag, without the tag-present bit of the key.
        tci: u16,
    },
    /// Take the outer VLAN tag off.
    PopVlan,
    /// Hand the packet to the controllers.
    Controller(Box<PacketIn>),
}

/// What goes with a packet to the controllers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PacketIn {
    /// Why.
    pub reason: PacketInReason,
    /// Which controller.
    pub controller_id: u16,
    /// Bytes of the packet to send, 65,535 for all.
    pub max_len: u16,
    /// The bridge whose rule sent it.
    pub bridge: BridgeId,
    /// The port it came in by, in that bridge.
    pub in_port: PortNo,
    /// The table of the rule.
    pub table: TableId,
    /// The rule's cookie.
    pub cookie: u64,
    /// The rule's owner.
    pub owner: Owner,
}

/// A MAC address seen by NORMAL on a port: to be learned, and refreshed as long as packets come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MacSighting {
    /// The bridge.
    pub bridge: BridgeId,
    /// The VLAN.
    pub vlan: VlanId,
    /// The source address, in the low 48 bits.
    pub mac: u64,
    /// The port it is behind.
    pub port: PortNo,
}

/// A read of the MAC table that the result depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MacQuery {
    /// The bridge.
    pub bridge: BridgeId,
    /// The VLAN.
    pub vlan: VlanId,
    /// The address, in the low 48 bits.
    pub mac: u64,
}

/// The result of translating one packet: holds for every packet that agrees with it under `mask`.
#[derive(Clone, Debug)]
pub struct Translation {
    /// The bits of the packet key that the result depends on. The ingress port is always among them.
    pub mask: PacketMask,
    /// What to do, in order.
    pub actions: Vec<DpAction>,
    /// What becomes of the packet if every output takes it.
    pub verdict: Verdict,
    /// Rules that matched, in order, each as often as it matched: to be credited.
    pub rules: Vec<Arc<Rule>>,
    /// MAC addresses seen.
    pub sightings: SmallVec<[MacSighting; 1]>,
    /// MAC table reads that the result depends on.
    pub mac_queries: SmallVec<[MacQuery; 1]>,
    /// Patch ports crossed, in order: the port left by in one bridge, then the port entered by in the next.
    pub patched: SmallVec<[DpPort; 2]>,
}

impl Translation {
    /// The rule that decided: the last that matched.
    pub fn decider(&self) -> Option<&Arc<Rule>> {
        self.rules.last()
    }
}
