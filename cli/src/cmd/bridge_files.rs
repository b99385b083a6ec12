//! Files of flows, groups and meters that make a bridge where no switch is asked: for a trace and for a bench.

use super::bundle::{label, read};
use crate::failure::Failure;
use sluice_flows::bridge_mod::{BridgeMod, ModError};
use sluice_flows::flow_mod::FlowModError;
use sluice_flows::text::{MeterCommand, Names, flow_lines, parse_flow_file, parse_group_file, parse_meter_mod};

/// The files that make a bridge.
#[derive(Debug)]
pub(crate) struct Files<'a> {
    pub(crate) flows: &'a str,
    pub(crate) groups: Option<&'a str>,
    pub(crate) meters: Option<&'a str>,
}

/// A change that a file asks for.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    pub(crate) change: BridgeMod,
    file: &'a str,
    /// Which one of the file's.
    what: String,
}

impl Change<'_> {
    /// Why the change was refused, with the option that might be missing.
    pub(crate) fn refused(&self, error: &ModError) -> Failure {
        let failure = Failure::usage(format!("{}, {}: {error}", label(self.file), self.what));
        match error {
            ModError::Flow(FlowModError::NoGroup { .. }) => failure.next("--groups FILE"),
            ModError::Flow(FlowModError::NoMeter { .. }) => failure.next("--meters FILE"),
            _ => failure,
        }
    }
}

impl<'a> Files<'a> {
    /// The changes that make the bridge, in order: meters, groups, flows. Warnings go to standard error.
    pub(crate) fn changes(&self, names: &Names) -> Result<Vec<Change<'a>>, Failure> {
        let mut changes = Vec::new();
        if let Some(file) = self.meters {
            let text = read(file)?;
            for (line, words) in flow_lines(&text) {
                let meter = parse_meter_mod(words, MeterCommand::Add);
                let meter = meter.map_err(|e| Failure::usage(format!("{}:{line}: {e:#}", label(file))))?;
                changes.push(Change { change: meter.into(), file, what: format!("line {line}") });
            }
        }
        if let Some(file) = self.groups {
            let text = read(file)?;
            let groups = parse_group_file(label(file), &text, names).map_err(|e| Failure::usage(format!("{e:#}")))?;
            let groups = groups.into_iter().zip(1..);
            changes.extend(groups.map(|(group, n)| Change { change: group.into(), file, what: format!("group {n}") }));
        }
        let file = self.flows;
        let text = read(file)?;
        let parsed = parse_flow_file(label(file), &text, names).map_err(|e| Failure::usage(format!("{e:#}")))?;
        for warning in &parsed.warnings {
            eprintln!("warning: {warning}");
        }
        let flows = parsed.value.into_iter().zip(1..);
        changes.extend(flows.map(|(flow, n)| Change { change: flow.into(), file, what: format!("flow {n}") }));
        Ok(changes)
    }
}
