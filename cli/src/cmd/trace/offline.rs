//! Traces through the flows of a file: one bridge, `br0`, no switch, nothing learned.

use super::Traced;
use crate::cmd::bundle::{label, read};
use crate::failure::Failure;
use sluice_flows::action::Action;
use sluice_flows::bridge::{Bridge, BridgeId, BridgePort, Model, VlanMode};
use sluice_flows::explain::Report;
use sluice_flows::field::Field;
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::key::slot;
use sluice_flows::rule::{FlowSpec, Millis};
use sluice_flows::table::Tables;
use sluice_flows::text::{Names, parse_flow_file, parse_packet};
use sluice_flows::translate::NoMacs;
use sluice_flows::{DpPort, PortNo};
use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::Arc;

/// A port of the command line: its number, and its name if it has one.
#[derive(Clone, Debug)]
pub(crate) struct PortArg {
    no: PortNo,
    name: Option<String>,
}

impl FromStr for PortArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, name) = match text.split_once('=') {
            Some((number, name)) => (number, Some(name.to_owned())),
            None => (text, None),
        };
        let no = number.trim().parse().ok().map(PortNo).filter(|no| no.is_ordinary() || *no == PortNo::LOCAL);
        let no = no.or_else(|| PortNo::from_reserved_name(number).filter(|no| *no == PortNo::LOCAL));
        match no {
            Some(no) => Ok(Self { no, name }),
            None => Err("a port's number is 1 to 65279, or LOCAL".to_owned()),
        }
    }
}

/// The bridge that the flows are in.
const BRIDGE: BridgeId = BridgeId(0);

/// Traces each packet through the flows of `file`.
pub(super) fn trace(file: &str, ports: &[PortArg], packets: &[String]) -> Result<Vec<Traced>, Failure> {
    let mut names = Names::new();
    for port in ports {
        if let Some(name) = &port.name {
            names.add_port(port.no, name.as_str());
        }
    }
    let (tables, mut numbers) = tables(file, &names)?;
    let mut keys = Vec::with_capacity(packets.len());
    for (index, packet) in packets.iter().enumerate() {
        let key = parse_packet(packet, &names)
            .map_err(|e| Failure::usage(format!("packet {} of {}: {e:#}", index + 1, packets.len())))?;
        let no = PortNo(u16::try_from(key.get(slot::IN_PORT)).unwrap_or(PortNo::NONE.0));
        numbers.insert(no);
        keys.push((key, no));
    }
    if !ports.is_empty() {
        numbers = ports.iter().map(|p| p.no).collect();
    }
    numbers.retain(|no| no.is_ordinary());
    numbers.insert(PortNo::LOCAL);
    let mut model = model(tables, &numbers, &names);
    // As in OVS, a packet without a port, or by one that the bridge does not have, meets the tables all the same.
    for (_, no) in &keys {
        model.ports.insert(DpPort(no.0.into()), (BRIDGE, *no));
    }
    let traced = keys.iter().zip(packets).map(|((key, no), packet)| {
        Traced::offline(packet, &Report::trace(&model, &NoMacs, DpPort(no.0.into()), key, !ports_are_numbers(ports)))
    });
    Ok(traced.collect())
}

fn ports_are_numbers(ports: &[PortArg]) -> bool {
    ports.iter().all(|p| p.name.is_none())
}

/// The tables that the file makes, and the ports that its flows name.
fn tables(file: &str, names: &Names) -> Result<(Tables, BTreeSet<PortNo>), Failure> {
    let text = read(file)?;
    let parsed = parse_flow_file(label(file), &text, names).map_err(|e| Failure::usage(format!("{e:#}")))?;
    for warning in &parsed.warnings {
        eprintln!("warning: {warning}");
    }
    let mut tables = Tables::new();
    let mut numbers = BTreeSet::new();
    for (index, change) in parsed.value.iter().enumerate() {
        tables
            .apply(change, Millis(0))
            .map_err(|e| Failure::usage(format!("{}, flow {}: {e}", label(file), index + 1)))?;
        if let FlowMod::Add { spec, .. } | FlowMod::Modify { spec, .. } = change {
            named_ports(spec, &mut numbers);
        }
    }
    Ok((tables, numbers))
}

fn named_ports(spec: &FlowSpec, numbers: &mut BTreeSet<PortNo>) {
    let (value, mask) = spec.matches.field(Field::InPort);
    if mask != 0 {
        numbers.insert(PortNo(value as u16));
    }
    for action in spec.actions.iter() {
        match action {
            Action::Output(no) | Action::Resubmit { port: Some(no), .. } => drop(numbers.insert(*no)),
            _ => {}
        }
    }
}

/// A bridge with these tables and ports; datapath numbers are port numbers, as in OVS's own tests.
fn model(tables: Tables, numbers: &BTreeSet<PortNo>, names: &Names) -> Model {
    let id = BRIDGE;
    let mut model = Model::default();
    let mut bridge = Bridge { tables, ..Bridge::new(id, "br0") };
    for &no in numbers {
        let dp = DpPort(no.0.into());
        let name = names.port_name(no).map_or_else(|| no.to_string(), str::to_owned).into();
        let port = BridgePort { no, name, dp, vlan: VlanMode::default(), up: true, no_flood: false, peer: None };
        bridge.ports.insert(no, Arc::new(port));
        model.ports.insert(dp, (id, no));
    }
    model.bridges.insert(id, Arc::new(bridge));
    model
}
