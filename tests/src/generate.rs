//! Seeded random flow tables and packets, with value pools small enough that packets match rules.

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, RngExt, SeedableRng};
use sluice_flows::action::{Action, ControllerAction, ModAction, Subfield};
use sluice_flows::bridge::{Bridge, BridgeId, Model};
use sluice_flows::field::{FIELDS, Field, Format, Maskable};
use sluice_flows::key::{FRAG_ANY, FRAG_LATER, FlowKey, VLAN_PRESENT, slot};
use sluice_flows::rule::{FlowSpec, Millis, Rule, TableId};
use sluice_flows::{DpPort, Match, Owner, PortNo};
use std::sync::Arc;

mod actions;
mod dialect;
pub mod language;
pub mod program;
pub mod words;

/// Ports of a generated bridge: 1 to this; the last is down.
pub const PORTS: u16 = 5;
/// Tables of a generated bridge: 0 to this, not included.
pub const TABLES: u8 = 4;

const MACS: [u128; 5] = [0x0200_0000_0001, 0x0200_0000_0002, 0x0200_0000_0003, 0xffff_ffff_ffff, 0x0180_c200_0000];
const IPV4: [u128; 5] = [0x0a00_0001, 0x0a00_0002, 0x0a00_0102, 0x0a01_0001, 0xe000_0001];
const IPV6: [u128; 4] = [0xfd00 << 112 | 1, 0xfd00 << 112 | 2, 0xfd01 << 112 | 1, 0xff02 << 112 | 1];
const PORT_NUMBERS: [u128; 6] = [53, 80, 81, 443, 1000, 40_000];
const VLANS: [u16; 4] = [0, 10, 20, 4095];

/// A generator with this seed: equal seeds give equal tables and packets.
pub fn seeded(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

pub(crate) fn pick<T: Copy>(rng: &mut StdRng, of: &[T]) -> T {
    *of.choose(rng).expect("pools are not empty")
}

/// The port of the first bridge that leads to port 1 of the second.
pub const PATCH: u16 = 4;

/// The datapath number of a port of a generated model.
pub fn dp_port(bridge: u16, no: u16) -> DpPort {
    DpPort((bridge * 10 + if no == PortNo::LOCAL.0 { 9 } else { no }).into())
}

/// A model of two bridges with [`PORTS`] trunk ports each, joined by a patch, with `rules` random rules of distinct
/// priorities in each. The datapath number of port P of bridge B is 10 x B + P.
pub fn model(rng: &mut StdRng, rules: usize) -> Model {
    let flows = [(); 2].map(|()| prioritised(rng, rules, rule));
    model_of(&flows)
}

/// A model as of [`model`] with these flows.
pub fn model_of(flows: &[Vec<FlowSpec>; 2]) -> Model {
    let mut model = program::bare_model(false);
    for (id, flows) in [BridgeId(0), BridgeId(1)].into_iter().zip(flows) {
        let mut bridge = Bridge::clone(model.bridge(id).expect("bridges are there"));
        for flow in flows {
            bridge.tables.insert(Arc::new(Rule::new(flow.clone(), Millis(0))));
        }
        model.bridges.insert(id, Arc::new(bridge));
    }
    model
}

/// As many flows as `count`, with the priorities 1 to `count` in random order.
pub fn prioritised(rng: &mut StdRng, count: usize, flow: impl Fn(&mut StdRng) -> FlowSpec) -> Vec<FlowSpec> {
    let mut priorities: Vec<u16> = (1..=count as u16).collect();
    priorities.shuffle(rng);
    priorities.into_iter().map(|priority| FlowSpec { priority, ..flow(rng) }).collect()
}

/// A random rule in one of [`TABLES`] tables.
pub fn rule(rng: &mut StdRng) -> FlowSpec {
    let table = if rng.random_bool(0.4) { 0 } else { rng.random_range(0..TABLES) };
    let template = packet(rng);
    let mut matches = Match::any();
    for _ in 0..rng.random_range(0..3) {
        match_something(rng, &template, &mut matches);
    }
    let actions: Vec<_> = (0..rng.random_range(0..5)).map(|_| action(rng, table)).collect();
    // A goto ends its list, as the language demands.
    let end = actions.iter().position(|a| matches!(a, Action::GotoTable(_))).map_or(actions.len(), |i| i + 1);
    let mut spec = FlowSpec::new(matches, &actions[..end], Owner::user());
    spec.table = TableId::new(table).expect("a small number");
    spec
}

/// Adds a requirement that `template` satisfies, on a random field that it has.
fn match_something(rng: &mut StdRng, template: &FlowKey, matches: &mut Match) {
    let info = FIELDS.choose(rng).expect("the registry is not empty");
    if !info.prereq.holds(template, &mut Default::default()) {
        return;
    }
    let mask = match info.maskable {
        Maskable::Bitwise if rng.random_bool(0.5) => random_mask(rng, info.slot.bits),
        _ => info.slot.max(),
    };
    let value = match info.format {
        _ if info.field.in_packet() => template.get(info.slot),
        _ => rng.random_range(0..4),
    };
    if info.slot.word >= slot::IP_SRC.word && info.field.in_packet() {
        // A match on L3 or L4 says which protocol it means.
        for field in [Field::EthType, Field::IpProto] {
            matches.set_field(field, template.get(field.slot()));
        }
    }
    matches.set(info.slot, value, mask);
}

/// A mask: a prefix, or random bits.
fn random_mask(rng: &mut StdRng, bits: u8) -> u128 {
    let ones = if bits == 128 { u128::MAX } else { (1 << bits) - 1 };
    if rng.random_bool(0.6) {
        let wild = u32::from(rng.random_range(0..bits));
        ones << wild & ones
    } else {
        (u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64())) & ones
    }
}

fn action(rng: &mut StdRng, table: u8) -> Action {
    let tables = |n: u8| TableId::new(n).expect("a small number");
    match rng.random_range(0..20) {
        0..=4 => Action::Output(PortNo(rng.random_range(1..=PORTS + 1))),
        5 => Action::Output(pick(
            rng,
            &[PortNo::IN_PORT, PortNo::FLOOD, PortNo::ALL, PortNo::NORMAL, PortNo::LOCAL, PortNo::CONTROLLER],
        )),
        6 => Action::OutputField(Subfield { field: random_register(rng), ofs: 0, bits: 16 }),
        7 | 8 if table + 1 < TABLES => Action::GotoTable(tables(rng.random_range(table + 1..TABLES))),
        7..=9 => Action::Resubmit {
            port: rng.random_bool(0.3).then(|| PortNo(rng.random_range(1..=PORTS))),
            table: Some(tables(rng.random_range(0..TABLES))),
            ct: false,
            extended: true,
        },
        10 | 11 => set_field(rng),
        12 => {
            let dst = random_subfield(rng);
            let value = random_value(rng, dst.field) & (dst.mask() >> dst.ofs);
            Action::Load { value, dst }
        }
        13 | 14 => {
            let (a, b) = (random_subfield(rng), random_subfield(rng));
            let bits = a.bits.min(b.bits);
            Action::Move { src: Subfield { bits, ..a }, dst: Subfield { bits, ..b } }
        }
        15 => Action::Mod(modification(rng)),
        16 => Action::PushVlan(pick(rng, &[0x8100, 0x88a8])),
        17 => Action::PopVlan { modern: true },
        18 => Action::DecTtl(Box::default()),
        _ if rng.random_bool(0.5) => Action::Note([1, 2, 3].into()),
        _ => Action::Controller(Box::new(ControllerAction {
            max_len: 128,
            extended: true,
            ..ControllerAction::default()
        })),
    }
}

fn modification(rng: &mut StdRng) -> ModAction {
    match rng.random_range(0..10) {
        0 => ModAction::DlSrc(pick(rng, &MACS) as u64),
        1 => ModAction::DlDst(pick(rng, &MACS) as u64),
        2 => ModAction::NwSrc(pick(rng, &IPV4) as u32),
        3 => ModAction::NwDst(pick(rng, &IPV4) as u32),
        4 => ModAction::NwTos(rng.random::<u8>() & 0xfc),
        5 => ModAction::NwEcn(rng.random_range(0..4)),
        6 => ModAction::NwTtl(rng.random()),
        7 => ModAction::TpDst(pick(rng, &PORT_NUMBERS) as u16),
        8 => ModAction::VlanVid(pick(rng, &VLANS)),
        _ => ModAction::VlanPcp(rng.random_range(0..8)),
    }
}

fn random_register(rng: &mut StdRng) -> Field {
    Field::reg(rng.random_range(0..3)).expect("a small number")
}

fn writable_field(rng: &mut StdRng) -> Field {
    let writable: Vec<_> = FIELDS.iter().filter(|i| i.writable && i.field != Field::PktMark).collect();
    if rng.random_bool(0.3) { random_register(rng) } else { pick(rng, &writable).field }
}

fn random_subfield(rng: &mut StdRng) -> Subfield {
    let field = writable_field(rng);
    let ofs = rng.random_range(0..field.slot().bits);
    let bits = rng.random_range(1..=field.slot().bits - ofs);
    if rng.random_bool(0.5) { Subfield::whole(field) } else { Subfield { field, ofs, bits } }
}

/// A `set_field` as the language allows it: masks only where the field takes them.
fn set_field(rng: &mut StdRng) -> Action {
    let field = writable_field(rng);
    let mask = match field.info().maskable {
        Maskable::Bitwise if rng.random_bool(0.4) => random_mask(rng, field.slot().bits),
        _ => field.slot().max(),
    };
    Action::SetField { field, value: random_value(rng, field) & mask, mask }
}

fn random_value(rng: &mut StdRng, field: Field) -> u128 {
    let value = match (field, field.info().format) {
        (Field::InPort, _) => rng.random_range(0..=PORTS.into()),
        (Field::NwTos, _) => u128::from(rng.random::<u8>() & 0xfc),
        (Field::VlanTci | Field::VlanVid, _) => u128::from(pick(rng, &VLANS) | VLAN_PRESENT),
        (_, Format::Mac) => pick(rng, &MACS),
        (_, Format::Ipv4) => pick(rng, &IPV4),
        (_, Format::Ipv6) => pick(rng, &IPV6),
        _ if !field.in_packet() => rng.random_range(0..8),
        _ => pick(rng, &PORT_NUMBERS),
    };
    value & field.slot().max()
}

/// A random packet that some frame could have, come in by one of the first bridge's ports that are up.
pub fn packet(rng: &mut StdRng) -> FlowKey {
    let mut key = FlowKey::ZERO;
    key.set(slot::IN_PORT, rng.random_range(1..PATCH).into());
    key.set(slot::ETH_SRC, pick(rng, &MACS[..3]));
    key.set(slot::ETH_DST, pick(rng, &MACS));
    tag(rng, &mut key);
    match rng.random_range(0..10) {
        0 => key.set(slot::ETH_TYPE, pick(rng, &[0x88cc, 0x9000])),
        1 => arp(rng, &mut key),
        2..=6 => {
            key.set(slot::ETH_TYPE, 0x0800);
            key.set(slot::IP_SRC, pick(rng, &IPV4));
            key.set(slot::IP_DST, pick(rng, &IPV4));
            ip(rng, &mut key, 1);
        }
        _ => {
            key.set(slot::ETH_TYPE, 0x86dd);
            key.set(slot::IPV6_SRC, pick(rng, &IPV6));
            key.set(slot::IPV6_DST, pick(rng, &IPV6));
            key.set(slot::IPV6_LABEL, pick(rng, &[0, 1, 0xf_ffff]));
            ip(rng, &mut key, 58);
        }
    }
    key
}

fn tag(rng: &mut StdRng, key: &mut FlowKey) {
    let tags = pick(rng, &[0, 0, 0, 1, 1, 2]);
    let slots = [(slot::VLAN_TPID, slot::VLAN_TCI), (slot::INNER_VLAN_TPID, slot::INNER_VLAN_TCI)];
    for (tpid, tci) in slots.into_iter().take(tags) {
        key.set(tpid, pick(rng, &[0x8100, 0x88a8]));
        let pcp = rng.random_range(0..8u16) << 13;
        key.set(tci, (pick(rng, &VLANS) | VLAN_PRESENT | pcp).into());
    }
}

fn arp(rng: &mut StdRng, key: &mut FlowKey) {
    key.set(slot::ETH_TYPE, 0x0806);
    key.set(slot::IP_PROTO, rng.random_range(1..3));
    key.set(slot::IP_SRC, pick(rng, &IPV4));
    key.set(slot::IP_DST, pick(rng, &IPV4));
    key.set(slot::ARP_SHA, pick(rng, &MACS));
    key.set(slot::ARP_THA, pick(rng, &MACS));
}

fn ip(rng: &mut StdRng, key: &mut FlowKey, icmp: u128) {
    key.set(slot::IP_TOS, rng.random::<u8>().into());
    key.set(slot::IP_TTL, pick(rng, &[0, 1, 2, 64, 255]));
    let frag = pick(rng, &[0, 0, 0, 0, FRAG_ANY, FRAG_ANY | FRAG_LATER]);
    key.set(slot::IP_FRAG, frag.into());
    let proto = pick(rng, &[6, 17, 132, icmp, 47]);
    key.set(slot::IP_PROTO, proto);
    if frag & FRAG_LATER != 0 || proto == 47 {
        return;
    }
    if proto != icmp {
        key.set(slot::TP_SRC, pick(rng, &PORT_NUMBERS));
        key.set(slot::TP_DST, pick(rng, &PORT_NUMBERS));
        if proto == 6 {
            key.set(slot::TCP_FLAGS, pick(rng, &[0x02, 0x12, 0x10, 0x11]));
        }
        return;
    }
    let kind = if icmp == 1 { pick(rng, &[0, 3, 8]) } else { pick(rng, &[128, 135, 136]) };
    key.set(slot::TP_SRC, kind);
    if kind > 128 {
        key.set(slot::ND_TARGET, pick(rng, &IPV6));
        let option = if kind == 135 { slot::ARP_SHA } else { slot::ARP_THA };
        key.set(option, pick(rng, &MACS));
    }
}
