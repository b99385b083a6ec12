//! The example in our own model, and packets followed through it pass by pass.

use crate::ovs::Pass;
use crate::walks::{Leg, Walk};
use crate::{PORTS, file, lines};
use sluice_flows::action::{Nat, NatDirection};
use sluice_flows::bridge::{Bridge, BridgeId, BridgePort, Model};
use sluice_flows::bridge_mod::BridgeMod;
use sluice_flows::datapath::{DpAction, DpCt, PacketIn, Resume, Translation};
use sluice_flows::explain::effective;
use sluice_flows::field::Field;
use sluice_flows::key::{FlowKey, slot};
use sluice_flows::meter::MeterMod;
use sluice_flows::rule::Millis;
use sluice_flows::text::{
    Names, parse_flow_file, parse_group_file, parse_meter, parse_packet, parse_table_mod, show_datapath_actions,
    show_packet,
};
use sluice_flows::translate::{NoMacs, TraceLog, TraceStep, translate, translate_resumed};
use sluice_flows::{DpPort, PortNo};
use std::net::IpAddr;
use std::sync::Arc;

/// A pass as we make it.
pub(crate) struct Ours {
    /// The table that it begins in, and the packet there as a flow; nothing for the first one.
    pub(crate) from: Option<(u8, String)>,
    pub(crate) pass: Pass,
    pub(crate) translation: Translation,
}

/// The changes that the example's files ask for, in the order in which they must be made.
fn changes() -> Vec<BridgeMod> {
    let names = Names::new();
    let mut changes: Vec<BridgeMod> = Vec::new();
    for line in lines(&file("pipeline.tables")) {
        changes.push(parse_table_mod(line, &names).unwrap_or_else(|e| panic!("{e:#}")).into());
    }
    for line in lines(&file("pipeline.meters")) {
        changes.push(MeterMod::Add(parse_meter(line).unwrap_or_else(|e| panic!("{e:#}"))).into());
    }
    let groups = parse_group_file("pipeline.groups", &file("pipeline.groups"), &names);
    changes.extend(groups.unwrap_or_else(|e| panic!("{e:#}")).into_iter().map(BridgeMod::from));
    let flows = parse_flow_file("pipeline.flows", &file("pipeline.flows"), &names);
    let flows = flows.unwrap_or_else(|e| panic!("{e:#}"));
    assert!(flows.warnings.is_empty(), "{:?}", flows.warnings);
    changes.extend(flows.value.into_iter().map(BridgeMod::from));
    changes
}

/// The example on a bridge `br0`. Datapath numbers are those that OVS gives.
pub(crate) fn model() -> Model {
    let id = BridgeId(0);
    let mut bridge = Bridge::new(id, "br0");
    let mut model = Model::default();
    for (name, no, dp) in PORTS {
        let (name, no, dp) = (name, PortNo(no), DpPort(dp));
        let port = BridgePort::new(no, name, dp);
        bridge.ports.insert(no, Arc::new(port));
        model.ports.insert(dp, (id, no));
    }
    for change in changes() {
        bridge.apply(&change, Millis(0)).unwrap_or_else(|e| panic!("{change:?}: {e}"));
    }
    model.bridges.insert(id, Arc::new(bridge));
    model
}

/// What a trace of the translation says.
fn pass(key: &FlowKey, log: &TraceLog, translation: &Translation) -> Pass {
    let tables = log.steps.iter().filter_map(|(_, step)| match step {
        TraceStep::Lookup { table, .. } => Some(table.get()),
        _ => None,
    });
    let actions = effective(&translation.actions, key);
    Pass { tables: tables.collect(), actions: show_datapath_actions(&actions, key, |_| None).to_string() }
}

/// The packet as the tracker hands it on.
fn tracked(resume: &Resume, ct: &DpCt, leg: &Leg) -> FlowKey {
    let mut key = resume.key;
    // A zone has connections of its own, with marks of their own.
    if key.get(slot::CT_ZONE) != u128::from(ct.zone) {
        key.set(Field::CtMark.slot(), 0);
        key.set(Field::CtLabel.slot(), 0);
    }
    key.set(slot::CT_ZONE, ct.zone.into());
    if let Some((value, mask)) = ct.mark {
        key.set_masked(Field::CtMark.slot(), value.into(), mask.into());
    }
    if let Some((value, mask)) = ct.label {
        key.set_masked(Field::CtLabel.slot(), value, mask);
    }
    if let Some(nat) = &ct.nat {
        translate_address(&mut key, nat);
    }
    let state = format!("ct_state={}", leg.state.replace(',', "|"));
    for change in leg.known.split(',').filter(|c| !c.is_empty()).chain([state.as_str()]) {
        let name = change.split('=').next().expect("the part before the first");
        let field = Field::from_name(name).expect("a field");
        let given = parse_packet(&format!("tcp,{change}"), &Names::new()).unwrap_or_else(|e| panic!("{e:#}"));
        key.set(field.slot(), given.get(field.slot()));
    }
    key
}

/// The packet as OVS reads it. It prints a tunnel's fields that are 0 by names that it does not read.
fn packet(key: &FlowKey) -> String {
    let text = show_packet(key, &Names::new()).to_string();
    let is_empty = |word: &&str| {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        (name.starts_with("tun_") || name.starts_with("gtpu_")) && matches!(value, "0" | "::" | "0.0.0.0")
    };
    text.split(',').filter(|word| !is_empty(word)).collect::<Vec<_>>().join(",")
}

/// The first address and port of a range, as OVS's trace takes them.
fn translate_address(key: &mut FlowKey, nat: &Nat) {
    let Some(direction) = nat.direction else { return };
    let (v4, v6, port) = match direction {
        NatDirection::Src => (Field::IpSrc, Field::Ipv6Src, Field::TcpSrc),
        NatDirection::Dst => (Field::IpDst, Field::Ipv6Dst, Field::TcpDst),
    };
    match nat.addresses {
        Some((IpAddr::V4(first), _)) => key.set(v4.slot(), u32::from(first).into()),
        Some((IpAddr::V6(first), _)) => key.set(v6.slot(), first.into()),
        None => {}
    }
    if let Some((first, _)) = nat.ports {
        key.set(port.slot(), first.into());
    }
}

/// What the tracker is asked for.
fn tracker(actions: &[DpAction]) -> Option<&DpCt> {
    actions.iter().find_map(|action| match action {
        DpAction::Ct(ct) => Some(&**ct),
        DpAction::Clone(actions) => tracker(actions),
        _ => None,
    })
}

/// What goes to the controller.
pub(crate) fn to_controller(actions: &[DpAction]) -> Box<dyn Iterator<Item = &PacketIn> + '_> {
    Box::new(actions.iter().flat_map(|action| match action {
        DpAction::Controller(packet) => Box::new(std::iter::once(&**packet)) as Box<dyn Iterator<Item = _>>,
        DpAction::Clone(actions) => to_controller(actions),
        _ => Box::new(std::iter::empty()),
    }))
}

/// Follows a packet through its passes.
pub(crate) fn follow(model: &Model, walk: &Walk) -> Vec<Ours> {
    let key = parse_packet(walk.packet, &Names::new()).unwrap_or_else(|e| panic!("{}: {e:#}", walk.name));
    let in_port = PortNo(key.get(slot::IN_PORT) as u16);
    let bridge = model.bridge(BridgeId(0)).expect("the only one");
    let ingress = bridge.ports.get(&in_port).expect("a port of the example").dp;
    let mut log = TraceLog::default();
    let first = translate(model, &NoMacs, ingress, &key, &mut log);
    let mut all = vec![Ours { from: None, pass: pass(&key, &log, &first), translation: first }];
    for leg in &walk.passes[1..] {
        let before = &all[all.len() - 1].translation;
        let (Some(ct), [resume]) = (tracker(&before.actions), &before.resumes[..]) else {
            panic!("{}: pass {} goes on in {} places", walk.name, all.len(), before.resumes.len());
        };
        let key = tracked(resume, ct, leg);
        let mut log = TraceLog::default();
        let next = translate_resumed(model, &NoMacs, resume, &key, &mut log).expect("the bridge is there");
        let from = Some((resume.table.get(), packet(&key)));
        all.push(Ours { from, pass: pass(&key, &log, &next), translation: next });
    }
    all
}
