//! Flows that Open vSwitch takes too.

use super::{PORTS, TABLES, action, match_something, packet, pick, random_mask, random_value};
use rand::RngExt;
use rand::rngs::StdRng;
use sluice_flows::action::{Action, ModAction, Subfield};
use sluice_flows::consistency;
use sluice_flows::field::{FIELDS, Field, Format, Maskable, Prereq};
use sluice_flows::key::{FlowKey, Slot, VLAN_PRESENT, slot};
use sluice_flows::rule::{FlowSpec, TableId};
use sluice_flows::text::{Names, parse_match, show_match};
use sluice_flows::{Match, Owner, PortNo};

/// The version of OpenFlow that flows are handed to OVS in: it decides which actions there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// 1.0 with Nicira's extensions: `mod_vlan_vid` makes a tag, `push_vlan` does not exist.
    OpenFlow10,
    /// 1.4: setters need their protocol in the match.
    OpenFlow14,
}

/// A random packet, more often than not one of `few` come in by some port: where flows match the same few, packets go on
/// through several tables.
pub fn packet_like(rng: &mut StdRng, few: &[FlowKey]) -> FlowKey {
    let mut key = packet(rng);
    if rng.random_bool(0.6) {
        let in_port = key.get(slot::IN_PORT);
        key = pick(rng, few);
        key.set(slot::IN_PORT, in_port);
    }
    key
}

/// A random flow that both OVS, in this dialect, and we take, as the text of flows can say it. It matches packets as of
/// [`packet_like`].
pub fn flow(rng: &mut StdRng, dialect: Dialect, few: &[FlowKey]) -> FlowSpec {
    let table = if rng.random_bool(0.4) { 0 } else { rng.random_range(0..TABLES) };
    let template = packet_like(rng, few);
    let mut matches = Match::any();
    if rng.random_bool(0.6) {
        protocol(rng, &template, &mut matches);
    }
    for _ in 0..rng.random_range(0..3) {
        match_something(rng, &template, &mut matches);
    }
    for field in [Field::Ipv6Src, Field::Ipv6Dst, Field::NdTarget] {
        if !ovs_reads(field, matches.field(field).1) {
            matches = without(&matches, field.slot());
        }
    }
    let (tci, tci_mask) = matches.get(slot::VLAN_TCI);
    if !dialect.says_tag(tci, tci_mask) {
        matches = without(&matches, slot::VLAN_TCI);
    }
    // Text says less than a match can: what it cannot say goes.
    let text = show_match(&matches, Names::NONE).to_string();
    let matches = parse_match(&text, Names::NONE).expect("what is printed reads back").value;
    let id = TableId::new(table).expect("a small number");
    let mut actions = Vec::new();
    for n in (0..rng.random_range(0..7)).rev() {
        // What is done to a packet shows when it leaves.
        let shown = n == 0 && rng.random_bool(0.6);
        let next = if shown {
            output(rng)
        } else if rng.random_bool(0.35) {
            fitting_set(rng, &matches)
        } else {
            less_loops(rng, table)
        };
        actions.push(next);
        let fits = consistency::check(id, &matches, &actions).is_ok() && dialect.takes(&matches, &actions);
        if !fits {
            actions.pop();
        }
        if matches!(actions.last(), Some(Action::GotoTable(_))) {
            break;
        }
    }
    let mut spec = FlowSpec::new(matches, actions, Owner::user());
    spec.table = id;
    spec
}

/// The match without what it requires of `slot`.
pub fn without(matches: &Match, slot: Slot) -> Match {
    let mut mask = matches.mask();
    mask.set(slot, 0);
    Match::new(&matches.value(), &mask)
}

/// Fields that OpenFlow 1.0 has actions for.
const OLD_SETTERS: [Field; 10] = [
    Field::EthSrc,
    Field::EthDst,
    Field::IpSrc,
    Field::IpDst,
    Field::VlanTci,
    Field::TcpSrc,
    Field::TcpDst,
    Field::UdpSrc,
    Field::UdpDst,
    Field::SctpSrc,
];

/// Whether OVS reads the mask as one: an IPv6 mask that begins with a decimal digit is a prefix length to it.
fn ovs_reads(field: Field, mask: u128) -> bool {
    let prefix = mask.leading_ones() + mask.trailing_zeros() >= 128;
    let first = format!("{:x}", mask >> 112);
    field.info().format != Format::Ipv6
        || prefix
        || first.len() == 4 && !first.starts_with(|c: char| c.is_ascii_digit())
}

/// Requires the protocols of `template`, or the outer ones of them.
fn protocol(rng: &mut StdRng, template: &FlowKey, matches: &mut Match) {
    matches.set_field(Field::EthType, template.get(slot::ETH_TYPE));
    if Prereq::Ip.holds(template, &mut Default::default()) && rng.random_bool(0.7) {
        matches.set_field(Field::IpProto, template.get(slot::IP_PROTO));
        let icmp6 = Prereq::Icmpv6.holds(template, &mut Default::default());
        if icmp6 && rng.random_bool(0.7) {
            matches.set_field(Field::Icmpv6Type, template.get(slot::TP_SRC));
            matches.set_field(Field::Icmpv6Code, 0);
        }
    }
    if template.get(slot::VLAN_TCI) != 0 && rng.random_bool(0.5) {
        matches.set(slot::VLAN_TCI, template.get(slot::VLAN_TCI), pick(rng, &[0x1000, 0x1fff, 0xffff]));
    }
}

/// A random action that seldom goes back to an earlier table: round trips of thousands of jumps are slow to trace.
fn less_loops(rng: &mut StdRng, table: u8) -> Action {
    match action(rng, table) {
        Action::Resubmit { port, table: Some(to), ct, extended } if to.get() <= table && rng.random_bool(0.7) => {
            let to = rng.random_range(table.min(TABLES - 2) + 1..TABLES);
            Action::Resubmit { port, table: TableId::new(to), ct, extended }
        }
        other => other,
    }
}

fn output(rng: &mut StdRng) -> Action {
    Action::Output(if rng.random_bool(0.8) { PortNo(rng.random_range(1..=PORTS)) } else { PortNo::IN_PORT })
}

/// Sets a field that the packets of the flow have.
fn fitting_set(rng: &mut StdRng, matches: &Match) -> Action {
    let key = matches.value();
    let there = |prereq: Prereq| prereq != Prereq::None && prereq.holds(&key, &mut Default::default());
    let mut fields: Vec<_> = FIELDS.iter().filter(|i| i.writable && there(i.prereq)).map(|i| i.field).collect();
    fields.extend([Field::EthSrc, Field::EthDst]);
    let field = pick(rng, &fields);
    let whole = Subfield::whole(field);
    let part = Subfield { ofs: rng.random_range(0..whole.bits), bits: 1, ..whole };
    match rng.random_range(0..6) {
        0 => Action::Load { value: rng.random_range(0..2), dst: part },
        1 => {
            let register = Subfield { field: Field::Reg0, ofs: 0, bits: whole.bits.min(32) };
            let part = Subfield { bits: register.bits, ..whole };
            let (src, dst) = if rng.random_bool(0.5) { (part, register) } else { (register, part) };
            Action::Move { src, dst }
        }
        _ => {
            let bitwise = field.info().maskable == Maskable::Bitwise;
            let mask = if bitwise && rng.random_bool(0.4) { random_mask(rng, whole.bits) } else { field.slot().max() };
            Action::SetField { field, value: random_value(rng, field) & mask, mask }
        }
    }
}

impl Dialect {
    /// Whether OVS hands this match on a tag over as it is. OpenFlow 1.4 has the priority as a whole, of tagged packets;
    /// OVS lets other matches on priority bits fall.
    fn says_tag(self, tci: u128, mask: u128) -> bool {
        let tagged = tci & mask & u128::from(VLAN_PRESENT) != 0;
        self == Self::OpenFlow10 || mask & 0xe000 == 0 || mask & 0xe000 == 0xe000 && tagged
    }

    /// Whether OVS takes the last of these actions, of a flow with this match, in this dialect.
    fn takes(self, matches: &Match, actions: &[Action]) -> bool {
        let key = matches.value();
        let has = |prereq: Prereq| prereq.holds(&key, &mut Default::default());
        let known = |field: Field| self == Self::OpenFlow14 || field.info().nxm.iter().any(|n| n.starts_with("NXM"));
        let modern = self == Self::OpenFlow14;
        let tags = |list: &[Action]| {
            list.iter().fold(i32::from(has(Prereq::Vlan)), |tags, action| match action {
                Action::PushVlan(_) => tags + 1,
                Action::PopVlan { .. } => tags - 1,
                _ => tags,
            })
        };
        let Some((last, before)) = actions.split_last() else { return true };
        match last {
            Action::PushVlan(_) => modern && tags(actions) <= 2,
            Action::PopVlan { .. } => !modern || tags(before) > 0,
            Action::DecTtl(_) => !modern || has(Prereq::Ip),
            Action::Mod(change) => match change {
                _ if !modern => !matches!(change, ModAction::NwEcn(_) | ModAction::NwTtl(_)),
                ModAction::DlSrc(_) | ModAction::DlDst(_) => true,
                ModAction::NwSrc(_) | ModAction::NwDst(_) => has(Prereq::Ipv4),
                ModAction::NwTos(_) | ModAction::NwEcn(_) | ModAction::NwTtl(_) => has(Prereq::Ip),
                ModAction::TpSrc(_) | ModAction::TpDst(_) => has(Prereq::Tcp) || has(Prereq::Udp) || has(Prereq::Sctp),
                ModAction::VlanVid(_) | ModAction::VlanPcp(_) | ModAction::SetVlanVid(_) | ModAction::SetVlanPcp(_) => {
                    tags(before) > 0
                }
            },
            Action::SetField { field: Field::VlanVid, mask, .. } => known(Field::VlanVid) && *mask & 0xfff == 0xfff,
            Action::SetField { field, mask, .. } => {
                // OVS forgets the mask when OpenFlow 1.0 has an action of its own for the field.
                let whole = *mask & field.slot().max() == field.slot().max();
                known(*field) && ovs_reads(*field, *mask) && (modern || whole || !OLD_SETTERS.contains(field))
            }
            Action::Load { dst, .. } => known(dst.field),
            Action::Move { src, dst } => known(src.field) && known(dst.field),
            Action::OutputField(src) => known(src.field),
            _ => true,
        }
    }
}
