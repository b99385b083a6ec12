//! Bundles of flow changes, as they arrive and as they are done: all or nothing.

use super::{error, find_bridge, flow};
use crate::{ControlError, Datapath};
use sluice_flows::bridge::Bridge;
use sluice_flows::filter::FlowFilter;
use sluice_flows::flow_mod::{Applied, FlowMod, FlowModError};
use sluice_flows::rule::{FlowSpec, Millis};
use sluice_flows::table::Tables;
use sluice_flows::text::{Names, parse_flow_mod_of};
use sluice_flows::{DropReason, Match, Owner};
use sluice_proto::v1::flow_mod::Command;
use sluice_proto::v1::{self as proto, ApplyBundleReply, ApplyBundleRequest, BundleHeader};
use std::collections::HashSet;
use tonic::{Status, Streaming};

/// Most changes in a bundle.
const MAX_MODS: usize = 1_000_000;
/// Longest flow, in bytes.
const MAX_FLOW_LEN: usize = 64 << 10;
/// Warnings that are sent back.
const MAX_WARNINGS: usize = 100;

/// A bundle that has arrived whole.
pub(super) struct Bundle {
    header: BundleHeader,
    mods: Vec<proto::FlowMod>,
}

impl Bundle {
    /// Receives a bundle.
    pub(super) async fn receive(mut stream: Streaming<ApplyBundleRequest>) -> Result<Self, Status> {
        let mut header = None;
        let mut mods = Vec::new();
        while let Some(part) = stream.message().await? {
            match (header.is_some(), part.header) {
                (false, Some(first)) => header = Some(first),
                (false, None) => return Err(Status::invalid_argument("a bundle's first message must hold its header")),
                (true, Some(_)) => {
                    return Err(Status::invalid_argument("a bundle has one header, in its first message"));
                }
                (true, None) => {}
            }
            mods.extend(part.mods);
            if mods.len() > MAX_MODS {
                return Err(Status::resource_exhausted(format!(
                    "a bundle has at most {MAX_MODS} changes; send several"
                )));
            }
            if part.commit {
                return Ok(Self { header: header.unwrap_or_default(), mods });
            }
        }
        Err(Status::aborted("the bundle ended without `commit`; nothing was changed"))
    }

    /// Does it, or, for a dry run, finds out what it would do.
    pub(super) fn apply(self, datapath: &Datapath) -> Result<ApplyBundleReply, Status> {
        let bridge = find_bridge(datapath, &self.header.bridge)?;
        let mut reply = ApplyBundleReply { model_generation: datapath.model().generation, ..Default::default() };
        let mods = self.read(&bridge, &mut reply.warnings)?;
        let replaced = match &self.header.replace {
            Some(asked) => Some(flow::filter(asked, &bridge)?),
            None => None,
        };
        let mut totals = Totals::default();
        let mut change = |tables: &mut Tables, now: Millis| match &replaced {
            Some(filter) => replace(tables, filter, &mods, now, &mut totals),
            None => in_order(tables, &mods, now, &mut totals),
        };
        if self.header.dry_run {
            change(&mut bridge.tables.clone(), datapath.clock().now()).map_err(|e| self.refused(e))?;
        } else {
            let done = datapath.edit_flows(&bridge.name, change).map_err(|e| self.refused(e))?;
            reply.model_generation = done.generation;
        }
        let Totals { added, modified, deleted, unchanged } = totals;
        Ok(ApplyBundleReply { added, modified, deleted, unchanged, ..reply })
    }

    /// Reads the text of every change.
    fn read(&self, bridge: &Bridge, warnings: &mut Vec<String>) -> Result<Vec<FlowMod>, Status> {
        let names = Names::of_bridge(bridge);
        let owner = if self.header.owner.is_empty() { Owner::user() } else { Owner::new(&self.header.owner) };
        let mut mods = Vec::with_capacity(self.mods.len());
        for (index, asked) in self.mods.iter().enumerate() {
            let owner = if asked.owner.is_empty() { owner.clone() } else { Owner::new(&asked.owner) };
            let wrong = |why: String| Status::invalid_argument(format!("{}: {why}", self.place(index)));
            if asked.flow.len() > MAX_FLOW_LEN {
                return Err(wrong(format!("the flow has {} bytes, more than {MAX_FLOW_LEN}", asked.flow.len())));
            }
            let reason = match asked.drop_reason.as_str() {
                "" => None,
                name => Some(
                    DropReason::from_name(name)
                        .ok_or_else(|| wrong(format!("`{name}` is no drop reason: {}", reasons())))?,
                ),
            };
            let text = verb(asked.command()) + &asked.flow;
            let read = parse_flow_mod_of(&owner, &text, &names).map_err(|e| wrong(format!("{e:#}")))?;
            for warning in read.warnings.iter().take(MAX_WARNINGS.saturating_sub(warnings.len())) {
                warnings.push(format!("{}: {warning}", self.place(index)));
            }
            let mut change = read.value;
            if let FlowMod::Add { spec, .. } | FlowMod::Modify { spec, .. } = &mut change {
                spec.generation = asked.generation.unwrap_or(self.header.generation);
                spec.drop_reason = reason;
            }
            if self.header.replace.is_some() && !matches!(change, FlowMod::Add { .. }) {
                return Err(wrong("flows that replace others are all adds".to_owned()));
            }
            mods.push(change);
        }
        Ok(mods)
    }

    /// Names a change: its number, and where it stands if its owner tells.
    fn place(&self, index: usize) -> String {
        let owner = self.mods.get(index).map_or("", |m| m.owner.as_str());
        match owner.strip_prefix("file:") {
            Some(place) => place.to_owned(),
            None => format!("flow {} of {}", index + 1, self.mods.len()),
        }
    }

    fn refused(&self, error: Refused) -> Status {
        match error {
            Refused::Control(error) => error::status(error),
            Refused::Mod(index, error) => {
                let flow = self.mods.get(index).map_or("", |m| m.flow.as_str());
                Status::invalid_argument(format!("{}: {error}\n  {}", self.place(index), flow.trim()))
            }
        }
    }
}

/// What a change's text is to begin with.
fn verb(command: Command) -> String {
    match command {
        Command::AsWritten => "",
        Command::Add => "add ",
        Command::Modify => "modify ",
        Command::ModifyStrict => "modify_strict ",
        Command::Delete => "delete ",
        Command::DeleteStrict => "delete_strict ",
    }
    .to_owned()
}

fn reasons() -> String {
    DropReason::ALL.iter().map(|r| r.name()).collect::<Vec<_>>().join(", ")
}

/// Why a bundle was not done.
enum Refused {
    Control(ControlError),
    /// Which change, counted from 0.
    Mod(usize, FlowModError),
}

impl From<ControlError> for Refused {
    fn from(error: ControlError) -> Self {
        Self::Control(error)
    }
}

/// What a bundle did.
#[derive(Default)]
struct Totals {
    added: u64,
    modified: u64,
    deleted: u64,
    unchanged: u64,
}

impl Totals {
    fn count(&mut self, applied: &Applied) {
        match (&applied.added, &applied.replaced) {
            (Some(_), None) => self.added += 1,
            (Some(_), Some(_)) => self.modified += 1,
            (None, _) => {}
        }
        self.modified += applied.modified.len() as u64;
        self.deleted += applied.removed.len() as u64;
    }
}

/// Makes the changes one after the other.
fn in_order(tables: &mut Tables, mods: &[FlowMod], now: Millis, totals: &mut Totals) -> Result<Vec<Applied>, Refused> {
    let mut all = Vec::with_capacity(mods.len());
    for (index, change) in mods.iter().enumerate() {
        let applied = tables.apply(change, now).map_err(|e| Refused::Mod(index, e))?;
        totals.count(&applied);
        all.push(applied);
    }
    Ok(all)
}

/// Puts the flows that `adds` add in the place of those that `filter` selects. Flows in both stay and keep their
/// counters, even if their owner or generation changes.
fn replace(
    tables: &mut Tables,
    filter: &FlowFilter,
    adds: &[FlowMod],
    now: Millis,
    totals: &mut Totals,
) -> Result<Vec<Applied>, Refused> {
    let specs =
        || adds.iter().filter_map(|change| if let FlowMod::Add { spec, .. } = change { Some(spec) } else { None });
    let wanted: HashSet<(u8, u16, &Match)> = specs().map(|s| (s.table.get(), s.priority, &s.matches)).collect();
    let leaving: Vec<_> = tables
        .select(filter)
        .filter(|rule| !wanted.contains(&(rule.spec.table.get(), rule.spec.priority, &rule.spec.matches)))
        .map(|rule| FlowMod::delete(FlowFilter::strictly(&rule.spec)))
        .collect();
    let mut all = in_order(tables, &leaving, now, totals)?;
    for (index, spec) in specs().enumerate() {
        let there = tables.get_strict(spec.table, spec.priority, &spec.matches);
        match there.map(|rule| compare(&rule.spec, spec)) {
            Some(Alike::Wholly) => totals.unchanged += 1,
            Some(Alike::ButOwner) => {
                let keep = FlowMod::Add { spec: spec.clone(), check_overlap: false, reset_counts: false };
                all.push(tables.apply(&keep, now).map_err(|e| Refused::Mod(index, e))?);
                totals.unchanged += 1;
            }
            Some(Alike::No) | None => {
                let change = adds.get(index).map_or(&[][..], std::slice::from_ref);
                all.extend(in_order(tables, change, now, totals).map_err(|e| at(e, index))?);
            }
        }
    }
    Ok(all)
}

fn at(error: Refused, index: usize) -> Refused {
    match error {
        Refused::Mod(_, error) => Refused::Mod(index, error),
        other => other,
    }
}

/// How alike two flows of the same table, priority and match are.
enum Alike {
    Wholly,
    /// They differ in owner or generation only.
    ButOwner,
    No,
}

fn compare(old: &FlowSpec, new: &FlowSpec) -> Alike {
    if old == new {
        return Alike::Wholly;
    }
    let renamed = FlowSpec { owner: new.owner.clone(), generation: new.generation, ..old.clone() };
    if renamed == *new { Alike::ButOwner } else { Alike::No }
}
