//! A translation told to a person: the walk through the tables, what leaves by which port, and what it was made into.
//!
//! Offline and live traces use the same code, so they say the same about the same tables.
//!
//! A [`Report`] is the whole account. It follows a packet through every pass: what connection tracking says of it, which
//! only a datapath could know, comes from a script ([`CtNext`]) or from the datapath ([`CtKnown`]).

mod conntrack;
mod report;
mod walk;

#[cfg(test)]
mod tests;

pub use conntrack::{CtKnown, CtNext, CtNextError};
pub use report::{MAX_PASSES, Options, Pass, Report, Translator};
pub use walk::{Kind, Step, show_steps};

use crate::bridge::{Bridge, BridgePort, Model};
use crate::datapath::{Change, DpAction};
use crate::field::{FIELDS, Field, Prereq};
use crate::key::{FlowKey, FlowMask, VLAN_PRESENT, slot};
use std::sync::Arc;

/// A packet as it leaves by one port.
#[derive(Clone, Debug)]
pub struct Exit {
    /// The bridge that the port belongs to.
    pub bridge: Arc<Bridge>,
    /// The port.
    pub port: Arc<BridgePort>,
    /// The packet as it is there.
    pub packet: FlowKey,
    /// It leaves there only if all of this is true of its length.
    pub when: Vec<LenBound>,
    /// At most this many bytes of it leave.
    pub cut: Option<u32>,
}

/// What has to be true of a packet's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LenBound {
    /// It is longer than this many bytes.
    Above(u16),
    /// It is not.
    AtMost(u16),
}

impl std::fmt::Display for LenBound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Above(len) => write!(f, "pkt_len>{len}"),
            Self::AtMost(len) => write!(f, "pkt_len<={len}"),
        }
    }
}

/// What leaves when `actions` are done to `packet`, in order. Ports that the model does not have any more are left out.
/// Where actions depend on the packet's length, which a flow does not say, both ways are gone.
pub fn exits(model: &Model, actions: &[DpAction], packet: &FlowKey) -> Vec<Exit> {
    let mut exits = Vec::new();
    leave(model, actions, *packet, &mut Vec::new(), &mut exits);
    exits
}

fn leave(model: &Model, actions: &[DpAction], mut packet: FlowKey, when: &mut Vec<LenBound>, exits: &mut Vec<Exit>) {
    let mut cut = None;
    for action in actions {
        match action {
            DpAction::Truncate(len) => cut = Some(*len),
            DpAction::Output(dp) => {
                let cut = cut.take();
                exits.extend(model.port(*dp).map(|(bridge, port)| Exit {
                    bridge: Arc::clone(bridge),
                    port: Arc::clone(port),
                    packet,
                    when: when.clone(),
                    cut,
                }));
            }
            DpAction::Clone(actions) => leave(model, actions, packet, when, exits),
            DpAction::CheckPktLen { len, larger, otherwise } => {
                for (bound, actions) in [(LenBound::Above(*len), larger), (LenBound::AtMost(*len), otherwise)] {
                    when.push(bound);
                    leave(model, actions, packet, when, exits);
                    when.pop();
                }
            }
            _ => action.rewrite(&mut packet),
        }
    }
}

/// The actions without the changes that change nothing in this very packet. A translation is made for every packet
/// under its mask, so it sets fields that some of them have already. As in OVS, what is set in a header right after it
/// was pushed is pushed with it.
pub fn effective(actions: &[DpAction], packet: &FlowKey) -> Vec<DpAction> {
    let mut packet = *packet;
    let mut kept = Vec::with_capacity(actions.len());
    for action in actions {
        match action {
            DpAction::Set(changes) => {
                let real = changes.iter().filter(|c| packet.get(c.field.slot()) & c.mask != c.value & c.mask);
                let real: smallvec::SmallVec<[Change; 2]> = real.copied().collect();
                if !real.is_empty() && !kept.last_mut().is_some_and(|pushed| absorb(pushed, &real)) {
                    kept.push(DpAction::Set(real));
                }
            }
            DpAction::Clone(actions) => kept.push(DpAction::Clone(effective(actions, &packet).into())),
            DpAction::CheckPktLen { len, larger, otherwise } => kept.push(DpAction::CheckPktLen {
                len: *len,
                larger: effective(larger, &packet).into(),
                otherwise: effective(otherwise, &packet).into(),
            }),
            _ => kept.push(action.clone()),
        }
        action.rewrite(&mut packet);
    }
    kept
}

/// Pushes a header with these changes, if all of them are to the header that `pushed` pushes.
fn absorb(pushed: &mut DpAction, changes: &[Change]) -> bool {
    let is_own = |change: &Change| match pushed {
        DpAction::PushNsh(_) => change.field.info().prereq == Prereq::Nsh,
        DpAction::PushEthernet { .. } => matches!(change.field, Field::EthSrc | Field::EthDst),
        _ => false,
    };
    if !changes.iter().all(is_own) {
        return false;
    }
    let mut after = FlowKey::ZERO;
    pushed.rewrite(&mut after);
    DpAction::Set(changes.into()).rewrite(&mut after);
    match pushed {
        DpAction::PushNsh(header) => {
            let context = after.get(slot::NSH_CONTEXT);
            header.flags = after.get(slot::NSH_FLAGS) as u8;
            header.ttl = after.get(slot::NSH_TTL) as u8;
            header.path = after.get(slot::NSH_PATH) as u32;
            header.context = [96, 64, 32, 0].map(|shift| (context >> shift) as u32);
        }
        DpAction::PushEthernet { src, dst, .. } => {
            (*src, *dst) = (after.get(slot::ETH_SRC) as u64, after.get(slot::ETH_DST) as u64);
        }
        _ => {}
    }
    true
}

impl Exit {
    /// Header fields that differ from `before`, with their values here. VLAN tags are not among them: see
    /// [`Exit::tags`].
    pub fn changes(&self, before: &FlowKey) -> Vec<(Field, u128)> {
        let key = self.packet;
        let mut unread = FlowMask::ZERO;
        FIELDS
            .iter()
            .filter(|info| info.field.in_packet() && info.writable)
            .filter(|info| {
                !matches!(
                    info.field,
                    Field::InPort
                        | Field::PktMark
                        | Field::VlanTci
                        | Field::VlanVid
                        | Field::VlanPcp
                        // The same bits as NwTos.
                        | Field::IpDscp
                )
            })
            .filter(|info| info.prereq.holds(&key, &mut unread))
            .filter_map(|info| {
                // The slot of NwTos holds the ECN bits too, which are a field of their own.
                let mask = if info.field == Field::NwTos { 0xfc } else { u128::MAX };
                let value = key.get(info.slot) & mask;
                (value != before.get(info.slot) & mask).then_some((info.field, value))
            })
            .collect()
    }

    /// VLAN tags as (TPID, TCI without the tag-present bit), the outer one first.
    pub fn tags(&self) -> Vec<(u16, u16)> {
        tags(&self.packet)
    }
}

/// A packet's VLAN tags as (TPID, TCI without the tag-present bit), the outer one first.
pub fn tags(packet: &FlowKey) -> Vec<(u16, u16)> {
    [(slot::VLAN_TPID, slot::VLAN_TCI), (slot::INNER_VLAN_TPID, slot::INNER_VLAN_TCI)]
        .into_iter()
        .map(|(tpid, tci)| (packet.get(tpid) as u16, packet.get(tci) as u16))
        .take_while(|(_, tci)| tci & VLAN_PRESENT != 0)
        .map(|(tpid, tci)| (tpid, tci & !VLAN_PRESENT))
        .collect()
}
