//! Bundles of changes, as they arrive and as they are done: all or nothing.

use super::{error, find_bridge, flow, table};
use crate::control::apply;
use crate::{ChangeError, ControlError, Datapath};
use sluice_flows::bridge::Bridge;
use sluice_flows::bridge_mod::{BridgeMod, Fate, Touched};
use sluice_flows::filter::FlowFilter;
use sluice_flows::flow_mod::{Applied, FlowMod};
use sluice_flows::group::GroupMod;
use sluice_flows::meter::MeterMod;
use sluice_flows::rule::{FlowSpec, Millis, TableId};
use sluice_flows::text::{
    GroupCommand, MeterCommand, Names, parse_flow_mod_of, parse_group_line, parse_group_mod, parse_meter_mod,
};
use sluice_flows::{DropReason, Match, Owner};
use sluice_proto::v1::bridge_mod::Change;
use sluice_proto::v1::flow_mod::Command;
use sluice_proto::v1::{self as proto, ApplyBundleReply, ApplyBundleRequest, BundleHeader, group_mod, meter_mod};
use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::mpsc::sync_channel;
use tonic::{Status, Streaming};

/// Most changes in a bundle.
const MAX_MODS: usize = 1_000_000;
/// Longest flow or meter, in bytes.
const MAX_FLOW_LEN: usize = 64 << 10;
/// Longest group, in bytes.
const MAX_GROUP_LEN: usize = 8 << 20;
/// Warnings that are sent back.
const MAX_WARNINGS: usize = 100;
/// Changes that are read at a time: while some are made, the next are read.
const CHUNK: usize = 1_000;
/// Chunks that may have been read before the first of them is made, which bounds the memory that they take.
const CHUNKS_AHEAD: usize = 4;

/// A bundle that has arrived whole.
pub(super) struct Bundle {
    header: BundleHeader,
    changes: Vec<Change>,
}

impl Bundle {
    /// Receives a bundle.
    pub(super) async fn receive(mut stream: Streaming<ApplyBundleRequest>) -> Result<Self, Status> {
        let mut header = None;
        let mut changes = Vec::new();
        while let Some(part) = stream.message().await? {
            match (header.is_some(), part.header) {
                (false, Some(first)) => header = Some(first),
                (false, None) => return Err(Status::invalid_argument("a bundle's first message must hold its header")),
                (true, Some(_)) => {
                    return Err(Status::invalid_argument("a bundle has one header, in its first message"));
                }
                (true, None) => {}
            }
            changes.extend(part.mods.into_iter().map(Change::Flow));
            // A kind of change that this version does not know must not be passed over.
            let others = part.changes.into_iter().map(|change| {
                change.change.ok_or_else(|| Status::invalid_argument("the bundle holds a change of an unknown kind"))
            });
            changes.extend(others.collect::<Result<Vec<_>, _>>()?);
            if changes.len() > MAX_MODS {
                return Err(Status::resource_exhausted(format!(
                    "a bundle has at most {MAX_MODS} changes; send several"
                )));
            }
            if part.commit {
                return Ok(Self { header: header.unwrap_or_default(), changes });
            }
        }
        Err(Status::aborted("the bundle ended without `commit`; nothing was changed"))
    }

    /// Does it, or, for a dry run, finds out what it would do.
    pub(super) fn apply(self, datapath: &Datapath) -> Result<ApplyBundleReply, Status> {
        let bridge = find_bridge(datapath, &self.header.bridge)?;
        let mut reply = ApplyBundleReply { model_generation: datapath.model().generation, ..Default::default() };
        let reader = Reader::new(&self, &bridge);
        let mut totals = Totals::default();
        let replaced = match &self.header.replace {
            Some(asked) => Some((flow::filter(asked, &bridge)?, reader.read_all(&bridge, &mut reply.warnings)?)),
            None => None,
        };
        let warnings = &mut reply.warnings;
        let mut change = |bridge: &mut Bridge, now: Millis| match &replaced {
            Some((filter, mods)) => replace(bridge, filter, mods, now, &mut totals),
            None => reader.make(bridge, now, &mut totals, warnings),
        };
        if self.header.dry_run {
            change(&mut (*bridge).clone(), datapath.clock().now()).map_err(|e| self.refused(e))?;
        } else {
            let done = datapath.edit(&bridge.name, change).map_err(|e| self.refused(e))?;
            reply.model_generation = done.generation;
        }
        let Totals { added, modified, deleted, unchanged, others: [others_added, others_modified, others_deleted] } =
            totals;
        let others = ApplyBundleReply { others_added, others_modified, others_deleted, ..reply };
        Ok(ApplyBundleReply { added, modified, deleted, unchanged, ..others })
    }

    /// Names a change: its number, and where it stands if its owner tells.
    fn place(&self, index: usize) -> String {
        let (what, owner) = match self.changes.get(index) {
            Some(Change::Flow(flow)) => ("flow", flow.owner.as_str()),
            Some(Change::Group(group)) => ("group", group.owner.as_str()),
            Some(Change::Meter(meter)) => ("meter", meter.owner.as_str()),
            Some(Change::Table(_)) | None => ("table", ""),
        };
        match owner.strip_prefix("file:") {
            Some(place) => place.to_owned(),
            None if self.changes.iter().all(|c| matches!(c, Change::Flow(_))) => {
                format!("flow {} of {}", index + 1, self.changes.len())
            }
            None => format!("change {} of {}, a {what}", index + 1, self.changes.len()),
        }
    }

    fn refused(&self, error: Refused) -> Status {
        match error {
            Refused::Control(error) => error::status(error),
            Refused::Text(status) => status,
            Refused::Change(index, error) => {
                let text = match self.changes.get(index) {
                    Some(Change::Flow(flow)) => flow.flow.trim(),
                    Some(Change::Group(group)) => group.group.trim(),
                    Some(Change::Meter(meter)) => meter.meter.trim(),
                    Some(Change::Table(_)) | None => "",
                };
                let below = if text.is_empty() { String::new() } else { format!("\n  {text}") };
                Status::invalid_argument(format!("{}: {error}{below}", self.place(index)))
            }
        }
    }
}

/// Reads the texts of a bundle's changes.
struct Reader<'a> {
    bundle: &'a Bundle,
    names: Names,
    /// Owner of what does not name one.
    owner: Owner,
}

impl<'a> Reader<'a> {
    fn new(bundle: &'a Bundle, bridge: &Bridge) -> Self {
        let owner = bundle.header.owner.as_str();
        let owner = if owner.is_empty() { Owner::user() } else { Owner::new(owner) };
        let mut names = Names::of_bridge(bridge);
        // Flows may use the names that the bundle gives to tables.
        for change in &bundle.changes {
            if let Change::Table(proto::TableMod { table: Some(id), name: Some(name), .. }) = change
                && let Some(id) = u8::try_from(*id).ok().and_then(TableId::new)
                && !name.is_empty()
            {
                names.add_table(id, name.as_str());
            }
        }
        Self { bundle, names, owner }
    }

    /// Makes the changes one after the other. They are read on a thread of their own meanwhile, if there are many.
    fn make(
        &self,
        bridge: &mut Bridge,
        now: Millis,
        totals: &mut Totals,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<Applied>, Refused> {
        let changes = &self.bundle.changes;
        let mut all = Vec::with_capacity(changes.len());
        let mut make = |mods: Vec<BridgeMod>| -> Result<(), Refused> {
            for change in &mods {
                let applied = one(bridge, all.len(), change, now, totals)?;
                all.push(applied);
            }
            Ok(())
        };
        if changes.len() <= CHUNK {
            make(self.read(0, changes, warnings).map_err(Refused::Text)?)?;
            return Ok(all);
        }
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(CHUNKS_AHEAD);
            let read = move || {
                for (first, chunk) in (0..).step_by(CHUNK).zip(changes.chunks(CHUNK)) {
                    let read = self.read(first, chunk, warnings);
                    let last = read.is_err();
                    // Nobody takes them any more when a change was refused.
                    if sender.send(read).is_err() || last {
                        break;
                    }
                }
            };
            let spawned = std::thread::Builder::new().name("sluice-read".to_owned()).spawn_scoped(scope, read);
            spawned.map_err(|e| Refused::Text(Status::resource_exhausted(format!("no thread to read flows: {e}"))))?;
            receiver.iter().try_for_each(|mods| make(mods.map_err(Refused::Text)?))
        })?;
        Ok(all)
    }

    /// Reads every change; equal lists of actions are shared from the start.
    fn read_all(&self, bridge: &Bridge, warnings: &mut Vec<String>) -> Result<Vec<BridgeMod>, Status> {
        let mut lists = bridge.tables.action_lists().clone();
        let mut all = Vec::with_capacity(self.bundle.changes.len());
        for (first, chunk) in (0..).step_by(CHUNK).zip(self.bundle.changes.chunks(CHUNK)) {
            let mut mods = self.read(first, chunk, warnings)?;
            for change in &mut mods {
                if let BridgeMod::Flow(FlowMod::Add { spec, .. }) = change {
                    spec.actions = lists.hold(&spec.actions);
                }
            }
            all.append(&mut mods);
        }
        Ok(all)
    }

    /// Reads some changes, the first of which has this number, counted from 0.
    fn read(&self, first: usize, changes: &[Change], warnings: &mut Vec<String>) -> Result<Vec<BridgeMod>, Status> {
        let (owner, names) = (&self.owner, &self.names);
        let mut mods = Vec::with_capacity(changes.len());
        for (index, asked) in (first..).zip(changes) {
            let wrong = |why: String| Status::invalid_argument(format!("{}: {why}", self.bundle.place(index)));
            mods.push(match asked {
                Change::Flow(asked) => self.read_flow(index, asked, warnings).map_err(wrong)?.into(),
                Change::Group(asked) => read_group(asked, owner, names).map_err(wrong)?.into(),
                Change::Meter(asked) => read_meter(asked, owner).map_err(wrong)?.into(),
                Change::Table(asked) => table::change(asked).map_err(wrong)?.into(),
            });
        }
        Ok(mods)
    }

    fn read_flow(&self, index: usize, asked: &proto::FlowMod, warnings: &mut Vec<String>) -> Result<FlowMod, String> {
        fits("flow", &asked.flow, MAX_FLOW_LEN)?;
        let header = &self.bundle.header;
        let reason = match asked.drop_reason.as_str() {
            "" => None,
            name => {
                Some(DropReason::from_name(name).ok_or_else(|| format!("`{name}` is no drop reason: {}", reasons()))?)
            }
        };
        let text = match verb(asked.command()) {
            "" => Cow::Borrowed(asked.flow.as_str()),
            verb => Cow::Owned(format!("{verb}{}", asked.flow)),
        };
        let owner = owner_of(&asked.owner, &self.owner);
        let read = parse_flow_mod_of(&owner, &text, &self.names).map_err(|e| format!("{e:#}"))?;
        for warning in read.warnings.iter().take(MAX_WARNINGS.saturating_sub(warnings.len())) {
            warnings.push(format!("{}: {warning}", self.bundle.place(index)));
        }
        let mut change = read.value;
        if let FlowMod::Add { spec, .. } | FlowMod::Modify { spec, .. } = &mut change {
            spec.generation = asked.generation.unwrap_or(header.generation);
            spec.drop_reason = reason.or(spec.drop_reason);
        }
        if header.replace.is_some() && !matches!(change, FlowMod::Add { .. }) {
            return Err("flows that replace others are all adds".to_owned());
        }
        Ok(change)
    }
}

/// The owner that a change names for itself, or the bundle's.
fn owner_of(own: &str, bundle: &Owner) -> Owner {
    if own.is_empty() { bundle.clone() } else { Owner::new(own) }
}

fn fits(what: &str, text: &str, most: usize) -> Result<(), String> {
    if text.len() <= most { Ok(()) } else { Err(format!("the {what} has {} bytes, more than {most}", text.len())) }
}

fn read_group(asked: &proto::GroupMod, owner: &Owner, names: &Names) -> Result<GroupMod, String> {
    fits("group", &asked.group, MAX_GROUP_LEN)?;
    let owner = owner_of(&asked.owner, owner);
    let command = match asked.command() {
        group_mod::Command::AsWritten => {
            return parse_group_line(&owner, &asked.group, names).map_err(|e| format!("{e:#}"));
        }
        group_mod::Command::Add => GroupCommand::Add,
        group_mod::Command::Modify => GroupCommand::Modify,
        group_mod::Command::AddOrModify => GroupCommand::AddOrModify,
        group_mod::Command::Delete => GroupCommand::Delete,
        group_mod::Command::InsertBuckets => GroupCommand::InsertBuckets,
        group_mod::Command::RemoveBuckets => GroupCommand::RemoveBuckets,
    };
    let mut change = parse_group_mod(&asked.group, command, names).map_err(|e| format!("{e:#}"))?;
    if let GroupMod::Add(spec) | GroupMod::Modify { spec, .. } = &mut change
        && spec.owner == Owner::user()
    {
        spec.owner = owner;
    }
    Ok(change)
}

fn read_meter(asked: &proto::MeterMod, owner: &Owner) -> Result<MeterMod, String> {
    fits("meter", &asked.meter, MAX_FLOW_LEN)?;
    let command = match asked.command() {
        meter_mod::Command::Add => MeterCommand::Add,
        meter_mod::Command::Modify => MeterCommand::Modify,
        meter_mod::Command::Delete => MeterCommand::Delete,
    };
    let mut change = parse_meter_mod(&asked.meter, command).map_err(|e| format!("{e:#}"))?;
    if let MeterMod::Add(spec) | MeterMod::Modify(spec) = &mut change
        && spec.owner == Owner::user()
    {
        spec.owner = owner_of(&asked.owner, owner);
    }
    Ok(change)
}

/// What a change's text is to begin with.
fn verb(command: Command) -> &'static str {
    match command {
        Command::AsWritten => "",
        Command::Add => "add ",
        Command::Modify => "modify ",
        Command::ModifyStrict => "modify_strict ",
        Command::Delete => "delete ",
        Command::DeleteStrict => "delete_strict ",
    }
}

fn reasons() -> String {
    DropReason::ALL.iter().map(|r| r.name()).collect::<Vec<_>>().join(", ")
}

/// Why a bundle was not done.
enum Refused {
    Control(ControlError),
    /// A text is wrong.
    Text(Status),
    /// Which change, counted from 0.
    Change(usize, ChangeError),
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
    /// Groups and meters: added, changed and deleted.
    others: [u64; 3],
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
        for touched in &applied.touched {
            let fate = match touched {
                Touched::Group(_, fate) | Touched::Meter(_, fate) => *fate,
                Touched::Table(_) => Fate::Modified,
            };
            self.others[fate as usize] += 1;
        }
    }
}

/// Makes the changes one after the other.
fn in_order(
    bridge: &mut Bridge,
    mods: &[BridgeMod],
    now: Millis,
    totals: &mut Totals,
) -> Result<Vec<Applied>, Refused> {
    let mut all = Vec::with_capacity(mods.len());
    for (index, change) in mods.iter().enumerate() {
        all.push(one(bridge, index, change, now, totals)?);
    }
    Ok(all)
}

fn one(
    bridge: &mut Bridge,
    index: usize,
    change: &BridgeMod,
    now: Millis,
    totals: &mut Totals,
) -> Result<Applied, Refused> {
    let applied = apply(bridge, change, now).map_err(|e| Refused::Change(index, e))?;
    totals.count(&applied);
    Ok(applied)
}

/// Puts the flows that `mods` add in the place of those that `filter` selects. Flows in both stay and keep their
/// counters, even if their owner or generation changes. Changes that are not to flows are made in their turn.
fn replace(
    bridge: &mut Bridge,
    filter: &FlowFilter,
    mods: &[BridgeMod],
    now: Millis,
    totals: &mut Totals,
) -> Result<Vec<Applied>, Refused> {
    let specs = mods.iter().filter_map(|change| match change {
        BridgeMod::Flow(FlowMod::Add { spec, .. }) => Some(spec),
        _ => None,
    });
    let wanted: HashSet<(u8, u16, &Match)> = specs.map(|s| (s.table.get(), s.priority, &s.matches)).collect();
    let leaving: Vec<_> = bridge
        .tables
        .select(filter)
        .filter(|rule| !wanted.contains(&(rule.spec.table.get(), rule.spec.priority, &rule.spec.matches)))
        .map(|rule| FlowMod::delete(FlowFilter::strictly(&rule.spec)).into())
        .collect();
    let mut all = in_order(bridge, &leaving, now, totals)?;
    for (index, change) in mods.iter().enumerate() {
        let there = match change {
            BridgeMod::Flow(FlowMod::Add { spec, .. }) => {
                let rule = bridge.tables.get_strict(spec.table, spec.priority, &spec.matches);
                rule.map(|rule| (compare(&rule.spec, spec), spec))
            }
            _ => None,
        };
        match there {
            Some((Alike::Wholly, _)) => totals.unchanged += 1,
            Some((Alike::ButOwner, spec)) => {
                let keep = FlowMod::Add { spec: spec.clone(), check_overlap: false, reset_counts: false };
                all.push(apply(bridge, &keep.into(), now).map_err(|e| Refused::Change(index, e))?);
                totals.unchanged += 1;
            }
            Some((Alike::No, _)) | None => all.push(one(bridge, index, change, now, totals)?),
        }
    }
    Ok(all)
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
