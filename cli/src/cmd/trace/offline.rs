//! Traces through the flows of a file: one bridge, `br0`, no switch, nothing learned.

use super::Traced;
use crate::cmd::bridge_files::Files;
use crate::failure::Failure;
use sluice_flows::action::Action;
use sluice_flows::bridge::{Bridge, BridgeId, BridgePort, Model};
use sluice_flows::bridge_mod::BridgeMod;
use sluice_flows::explain::{Options, Report};
use sluice_flows::field::Field;
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::group::GroupMod;
use sluice_flows::key::slot;
use sluice_flows::rule::Millis;
use sluice_flows::text::{Names, parse_packet};
use sluice_flows::translate::NoMacs;
use sluice_flows::{DpPort, PortNo};
use sluice_switch::api::trace_reply;
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

impl PortArg {
    /// Whether the port was given a name.
    pub(super) fn is_named(&self) -> bool {
        self.name.is_some()
    }
}

/// The bridge that the flows are in.
const BRIDGE: BridgeId = BridgeId(0);

/// Traces each packet through the flows of a file.
pub(super) fn trace(
    files: &Files<'_>,
    ports: &[PortArg],
    packets: &[String],
    options: &Options,
) -> Result<Vec<Traced>, Failure> {
    let mut names = Names::new();
    for port in ports {
        if let Some(name) = &port.name {
            names.add_port(port.no, name.as_str());
        }
    }
    let (mut bridge, mut numbers) = bridge(files, &names)?;
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
    // A bridge of OVS always has its own port.
    numbers.insert(PortNo::LOCAL);
    add_ports(&mut bridge, &numbers, &names);
    let mut model = Model::default();
    // As in OVS, a packet without a port, or by one that the bridge does not have, meets the tables all the same.
    for no in numbers.iter().chain(keys.iter().map(|(_, no)| no)) {
        model.ports.insert(DpPort(no.0.into()), (BRIDGE, *no));
    }
    model.bridges.insert(BRIDGE, Arc::new(bridge));
    let traced = keys.iter().zip(packets).map(|((key, no), packet)| {
        let report = Report::trace(&model, &NoMacs, DpPort(no.0.into()), key, options);
        Traced::new(packet, trace_reply(&report, model.generation)).without_names()
    });
    Ok(traced.collect())
}

/// The bridge that the files make, without ports, and the ports that its flows and groups name.
fn bridge(files: &Files<'_>, names: &Names) -> Result<(Bridge, BTreeSet<PortNo>), Failure> {
    let mut bridge = Bridge::new(BRIDGE, "br0");
    let mut numbers = BTreeSet::new();
    for change in files.changes(names)? {
        match &change.change {
            BridgeMod::Group(GroupMod::Add(spec) | GroupMod::Modify { spec, .. }) => {
                for bucket in &spec.buckets {
                    numbers.extend(bucket.watch_port);
                    named_ports(&bucket.actions, &mut numbers);
                }
            }
            BridgeMod::Flow(FlowMod::Add { spec, .. } | FlowMod::Modify { spec, .. }) => {
                let (value, mask) = spec.matches.field(Field::InPort);
                if mask != 0 {
                    numbers.insert(PortNo(value as u16));
                }
                named_ports(&spec.actions, &mut numbers);
            }
            _ => {}
        }
        bridge.apply(&change.change, Millis(0)).map_err(|error| change.refused(&error))?;
    }
    Ok((bridge, numbers))
}

/// The ports that actions name.
fn named_ports(actions: &[Action], numbers: &mut BTreeSet<PortNo>) {
    for action in actions {
        match action {
            Action::Output(no)
            | Action::OutputTruncated { port: no, .. }
            | Action::Enqueue { port: no, .. }
            | Action::Resubmit { port: Some(no), .. } => drop(numbers.insert(*no)),
            Action::Bundle(bundle) => numbers.extend(&bundle.members),
            Action::Clone(nested) | Action::WriteActions(nested) => named_ports(nested, numbers),
            _ => {}
        }
    }
}

/// Gives the bridge these ports; datapath numbers are port numbers, as in OVS's own tests.
fn add_ports(bridge: &mut Bridge, numbers: &BTreeSet<PortNo>, names: &Names) {
    for &no in numbers {
        let dp = DpPort(no.0.into());
        let name = match names.port_name(no) {
            Some(name) => name.into(),
            None if no == PortNo::LOCAL => Arc::clone(&bridge.name),
            None => no.to_string().into(),
        };
        let port = BridgePort::new(no, name, dp);
        bridge.ports.insert(no, Arc::new(port));
    }
}
