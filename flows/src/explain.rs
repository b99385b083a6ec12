//! A translation told to a person: the walk through the tables, what leaves by which port, and what it was made into.
//!
//! Offline and live traces use the same code, so they say the same about the same tables.

mod report;

pub use report::Report;

use crate::bridge::{Bridge, BridgePort, Model};
use crate::datapath::{Change, DpAction};
use crate::field::{FIELDS, Field};
use crate::key::{FlowKey, FlowMask, VLAN_PRESENT, slot};
use crate::text::{Names, show_action, show_match};
use crate::translate::{TraceLog, TraceStep};
use std::fmt::{self, Write};
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
}

/// What leaves when `actions` are done to `packet`, in order. Ports that the model does not have any more are left out.
pub fn exits(model: &Model, actions: &[DpAction], packet: &FlowKey) -> Vec<Exit> {
    let mut packet = *packet;
    let mut exits = Vec::new();
    for action in actions {
        match action {
            DpAction::Output(dp) => {
                exits.extend(model.port(*dp).map(|(bridge, port)| Exit {
                    bridge: Arc::clone(bridge),
                    port: Arc::clone(port),
                    packet,
                }));
            }
            _ => apply(action, &mut packet),
        }
    }
    exits
}

/// The actions without the changes that change nothing in this very packet. A translation is made for every packet
/// under its mask, so it sets fields that some of them have already.
pub fn effective(actions: &[DpAction], packet: &FlowKey) -> Vec<DpAction> {
    let mut packet = *packet;
    let mut kept = Vec::with_capacity(actions.len());
    for action in actions {
        match action {
            DpAction::Set(changes) => {
                let real = changes.iter().filter(|c| packet.get(c.field.slot()) & c.mask != c.value & c.mask);
                let real: smallvec::SmallVec<[Change; 2]> = real.copied().collect();
                if !real.is_empty() {
                    kept.push(DpAction::Set(real));
                }
            }
            _ => kept.push(action.clone()),
        }
        apply(action, &mut packet);
    }
    kept
}

/// Does to a key what a datapath action does to a packet.
fn apply(action: &DpAction, packet: &mut FlowKey) {
    let outer = (slot::VLAN_TPID, slot::VLAN_TCI);
    let inner = (slot::INNER_VLAN_TPID, slot::INNER_VLAN_TCI);
    match action {
        DpAction::Set(changes) => {
            for change in changes {
                packet.set_masked(change.field.slot(), change.value, change.mask);
            }
        }
        DpAction::PushVlan { tpid, tci } => {
            packet.set(inner.0, packet.get(outer.0));
            packet.set(inner.1, packet.get(outer.1));
            packet.set(outer.0, (*tpid).into());
            packet.set(outer.1, (tci | VLAN_PRESENT).into());
        }
        DpAction::PopVlan => {
            packet.set(outer.0, packet.get(inner.0));
            packet.set(outer.1, packet.get(inner.1));
            packet.set(inner.0, 0);
            packet.set(inner.1, 0);
        }
        _ => {}
    }
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
        [(slot::VLAN_TPID, slot::VLAN_TCI), (slot::INNER_VLAN_TPID, slot::INNER_VLAN_TCI)]
            .into_iter()
            .map(|(tpid, tci)| (self.packet.get(tpid) as u16, self.packet.get(tci) as u16))
            .take_while(|(_, tci)| tci & VLAN_PRESENT != 0)
            .map(|(tpid, tci)| (tpid, tci & !VLAN_PRESENT))
            .collect()
    }
}

/// The walk through the tables as lines, in the shape of OVS's `ofproto/trace`: each bridge, each table with the rule
/// that matched and its owner, and the rule's actions under it. Ports are printed by name where `names` is true.
pub fn show_walk<'a>(model: &'a Model, log: &'a TraceLog, names: bool) -> impl fmt::Display + 'a {
    fmt::from_fn(move |f| {
        let mut words = Names::new();
        for (depth, step) in &log.steps {
            let indent = depth.saturating_sub(1) * 4;
            match step {
                TraceStep::Bridge { name, in_port } => {
                    if names && let Some(bridge) = model.bridge_named(name) {
                        words = Names::of_bridge(bridge);
                    }
                    let title = format!("bridge(\"{name}\")");
                    writeln!(f, "\n{title}  entered by port {in_port}\n{:-<width$}", "", width = title.len())?;
                }
                TraceStep::Lookup { table, rule: Some(rule) } => {
                    let spec = &rule.spec;
                    let indent = depth * 4;
                    write!(f, "{:indent$}{table:>2}. ", "")?;
                    if !spec.matches.is_any() {
                        write!(f, "{}, ", show_match(&spec.matches, &words))?;
                    }
                    write!(f, "priority {}", spec.priority)?;
                    if spec.cookie != 0 {
                        write!(f, ", cookie {:#x}", spec.cookie)?;
                    }
                    writeln!(f, "  [{}]", spec.owner)?;
                    if spec.actions.is_empty() {
                        writeln!(f, "{:indent$}    drop", "")?;
                    }
                }
                TraceStep::Lookup { table, rule: None } => {
                    writeln!(f, "{:1$}{table:>2}. no rule matches", "", depth * 4)?;
                }
                TraceStep::Action(action) => writeln!(f, "{:indent$}    {}", "", show_action(action, &words))?,
                TraceStep::Output { no, name } => writeln!(f, "{:indent$}     >> port {no} ({name})", "")?,
                TraceStep::Group { .. } => {}
                TraceStep::Bucket(bucket) => writeln!(f, "{:indent$}     -> using bucket {}", "", bucket.id)?,
                TraceStep::Learned(_) => {}
                TraceStep::Note(text) => writeln!(f, "{:indent$}     -> {text}", "")?,
            }
        }
        f.write_char('\n')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::{DpPort, PortNo};
    use smallvec::smallvec;

    fn change(field: Field, value: u128) -> DpAction {
        DpAction::Set(smallvec![Change { field, value, mask: field.slot().max() }])
    }

    fn tcp() -> FlowKey {
        let mut key = FlowKey::ZERO;
        key.set(slot::ETH_TYPE, 0x0800);
        key.set(slot::IP_PROTO, 6);
        key.set(slot::IP_TTL, 64);
        key.set(slot::TP_DST, 80);
        key
    }

    fn exit(packet: FlowKey) -> Exit {
        let port = BridgePort {
            no: PortNo(1),
            name: "p1".into(),
            dp: DpPort(1),
            vlan: Default::default(),
            up: true,
            no_flood: false,
            peer: None,
        };
        let bridge = Bridge::new(crate::bridge::BridgeId(0), "br0");
        Exit { bridge: Arc::new(bridge), port: Arc::new(port), packet }
    }

    #[test]
    fn changes_are_named_as_flows_print_them() {
        let mut packet = tcp();
        packet.set(slot::IP_TTL, 63);
        packet.set(slot::TP_DST, 8080);
        packet.set(slot::IP_TOS, 0xb9);
        let named: Vec<_> = exit(packet).changes(&tcp()).into_iter().map(|(f, v)| (f.info().match_name, v)).collect();
        assert_eq!(named, [("nw_tos", 0xb8), ("nw_ecn", 1), ("nw_ttl", 63), ("tp_dst", 8080)]);
    }

    #[test]
    fn setting_what_is_there_already_is_left_out() {
        let actions = [
            change(Field::IpTtl, 64),
            change(Field::TcpDst, 81),
            DpAction::Output(DpPort(1)),
            change(Field::TcpDst, 81),
            DpAction::Output(DpPort(2)),
        ];
        let kept = effective(&actions, &tcp());
        assert_eq!(kept, [actions[1].clone(), actions[2].clone(), actions[4].clone()]);
    }

    #[test]
    fn tags_are_listed_outer_first() {
        let mut packet = tcp();
        apply(&DpAction::PushVlan { tpid: 0x8100, tci: 10 }, &mut packet);
        apply(&DpAction::PushVlan { tpid: 0x88a8, tci: 0x6014 }, &mut packet);
        assert_eq!(exit(packet).tags(), [(0x88a8, 0x6014), (0x8100, 10)]);
        apply(&DpAction::PopVlan, &mut packet);
        assert_eq!(exit(packet).tags(), [(0x8100, 10)]);
    }
}
