//! Bundles of changes, as they arrive and as they are done: all or nothing.

mod parts;

use super::{error, find_bridge, flow, table};
use crate::control::Made;
use crate::{ControlError, Datapath};
use parts::{Parts, Piece};
use sluice_flows::bridge::Bridge;
use sluice_flows::bridge_mod::{BridgeMod, Fate, ModError, Touched};
use sluice_flows::filter::FlowFilter;
use sluice_flows::flow_mod::{Applied, FlowMod};
use sluice_flows::group::GroupMod;
use sluice_flows::meter::MeterMod;
use sluice_flows::rule::{FlowSpec, Millis, TableId};
use sluice_flows::text::{
    GroupCommand, MeterCommand, Names, flow_lines, parse_flow_mod_of, parse_group_line, parse_group_mod,
    parse_meter_mod,
};
use sluice_flows::{DropReason, FileLines, Match, Owner};
use sluice_proto::v1::bridge_mod::Change;
use sluice_proto::v1::flow_mod::Command;
use sluice_proto::v1::{
    self as proto, ApplyBundleReply, ApplyBundleRequest, BundleHeader, FlowLines, group_mod, meter_mod,
};
use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::mpsc::sync_channel;
use tonic::{Status, Streaming};

/// Longest flow or meter, in bytes: a flow may be a clause of tens of thousands of conjunctions.
const MAX_FLOW_LEN: usize = 1 << 20;
/// Longest group, in bytes.
const MAX_GROUP_LEN: usize = 8 << 20;
/// Warnings that are sent back.
const MAX_WARNINGS: usize = 100;
/// About how long a line of a flow file is, in bytes.
const LIKELY_LINE_LEN: usize = 80;
/// Pieces that may have been read before the first of them is made, which bounds the memory that they take.
const PIECES_AHEAD: usize = 8;

/// A bundle that has arrived whole.
pub(super) struct Bundle {
    header: BundleHeader,
    parts: Parts,
}

/// What a piece of a bundle asks for.
type Piecewise<'a> = (Piece<'a>, Vec<BridgeMod>);

impl Bundle {
    /// Receives a bundle.
    pub(super) async fn receive(mut stream: Streaming<ApplyBundleRequest>) -> Result<Self, Status> {
        let mut header = None;
        let mut parts = Parts::default();
        while let Some(part) = stream.message().await? {
            match (header.is_some(), part.header) {
                (false, Some(first)) => header = Some(first),
                (false, None) => return Err(Status::invalid_argument("a bundle's first message must hold its header")),
                (true, Some(_)) => {
                    return Err(Status::invalid_argument("a bundle has one header, in its first message"));
                }
                (true, None) => {}
            }
            let mut changes: Vec<_> = part.mods.into_iter().map(Change::Flow).collect();
            // A kind of change that this version does not know must not be passed over.
            let others = part.changes.into_iter().map(|change| {
                change.change.ok_or_else(|| Status::invalid_argument("the bundle holds a change of an unknown kind"))
            });
            changes.extend(others.collect::<Result<Vec<_>, _>>()?);
            parts.add(changes)?;
            part.lines.into_iter().try_for_each(|lines| parts.add_lines(lines))?;
            if part.commit {
                return Ok(Self { header: header.unwrap_or_default(), parts });
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
        let change = |bridge: &mut Bridge, now: Millis| match replaced {
            Some((filter, mods)) => reader.replace(bridge, &filter, mods, now, &mut totals),
            None => reader.make(bridge, now, &mut totals, warnings),
        };
        if self.header.dry_run {
            change(&mut (*bridge).clone(), datapath.clock().now()).map_err(Refused::status)?;
        } else {
            let done = datapath.edit(&bridge.name, change).map_err(Refused::status)?;
            reply.model_generation = done.generation;
        }
        let Totals { added, modified, deleted, unchanged, others: [others_added, others_modified, others_deleted] } =
            totals;
        let others = ApplyBundleReply { others_added, others_modified, others_deleted, ..reply };
        Ok(ApplyBundleReply { added, modified, deleted, unchanged, ..others })
    }

    /// Why a change was refused.
    fn refused(&self, piece: Piece<'_>, index: usize, error: ModError) -> Refused {
        let text = piece.text(index);
        let below = if text.is_empty() { String::new() } else { format!("\n  {text}") };
        Refused::Text(Status::invalid_argument(format!("{}: {error}{below}", self.parts.place(piece, index))))
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
        for change in bundle.parts.single() {
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
    ) -> Result<Made, Refused> {
        let parts = &self.bundle.parts;
        let mut made = Made::default();
        if !parts.are_few() {
            bridge.tables.unsettle();
        }
        let mut make = |piece, mods: Vec<BridgeMod>| -> Result<(), Refused> {
            for (index, change) in mods.into_iter().enumerate() {
                made.add(self.one(bridge, (piece, index), change, now, totals)?);
            }
            Ok(())
        };
        if parts.are_few() {
            for piece in parts.pieces() {
                make(piece, self.read(piece, warnings).map_err(Refused::Text)?)?;
            }
            return Ok(made);
        }
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(PIECES_AHEAD);
            let read = move || {
                for piece in parts.pieces() {
                    let read = self.read(piece, warnings);
                    let last = read.is_err();
                    // Nobody takes them any more when a change was refused.
                    if sender.send((piece, read)).is_err() || last {
                        break;
                    }
                }
            };
            let spawned = std::thread::Builder::new().name("sluice-read".to_owned()).spawn_scoped(scope, read);
            spawned.map_err(|e| Refused::Text(Status::resource_exhausted(format!("no thread to read flows: {e}"))))?;
            receiver.iter().try_for_each(|(piece, mods)| make(piece, mods.map_err(Refused::Text)?))
        })?;
        bridge.tables.settle();
        Ok(made)
    }

    /// Makes one change.
    fn one(
        &self,
        bridge: &mut Bridge,
        (piece, index): (Piece<'_>, usize),
        change: BridgeMod,
        now: Millis,
        totals: &mut Totals,
    ) -> Result<Applied, Refused> {
        let applied = bridge.make(change, now).map_err(|e| self.bundle.refused(piece, index, e))?;
        totals.count(&applied);
        Ok(applied)
    }

    /// Reads every change; equal lists of actions are shared from the start.
    fn read_all(&self, bridge: &Bridge, warnings: &mut Vec<String>) -> Result<Vec<Piecewise<'a>>, Status> {
        let mut lists = bridge.tables.action_lists().clone();
        let mut all = Vec::new();
        for piece in self.bundle.parts.pieces() {
            let mut mods = self.read(piece, warnings)?;
            for change in &mut mods {
                if let BridgeMod::Flow(FlowMod::Add { spec, .. }) = change {
                    spec.actions = lists.hold(&spec.actions);
                }
            }
            all.push((piece, mods));
        }
        Ok(all)
    }

    /// Reads some changes.
    fn read(&self, piece: Piece<'_>, warnings: &mut Vec<String>) -> Result<Vec<BridgeMod>, Status> {
        let changes = match piece {
            Piece::Changes { changes, .. } => changes,
            Piece::Lines { of, first, text } => return self.read_lines(piece, (of, first, text), warnings),
        };
        let (owner, names) = (&self.owner, &self.names);
        let mut mods = Vec::with_capacity(changes.len());
        for (index, asked) in changes.iter().enumerate() {
            let wrong = |why: String| self.wrong(piece, index, &why);
            mods.push(match asked {
                Change::Flow(asked) => self.read_flow((piece, index), asked, warnings).map_err(wrong)?.into(),
                Change::Group(asked) => read_group(asked, owner, names).map_err(wrong)?.into(),
                Change::Meter(asked) => read_meter(asked, owner).map_err(wrong)?.into(),
                Change::Table(asked) => table::change(asked).map_err(wrong)?.into(),
            });
        }
        Ok(mods)
    }

    /// Reads lines of a flow file, the first of which has this number.
    fn read_lines(
        &self,
        piece: Piece<'_>,
        (of, first, text): (&FlowLines, usize, &str),
        warnings: &mut Vec<String>,
    ) -> Result<Vec<BridgeMod>, Status> {
        let given = Some(of.owner.as_str()).filter(|o| !o.is_empty()).map(Owner::new);
        let owners = FileLines::new(&of.file);
        let mut mods = Vec::with_capacity(text.len() / LIKELY_LINE_LEN);
        for (index, (number, line)) in flow_lines(text).enumerate() {
            let owner = given.clone().unwrap_or_else(|| owners.line(first + number - 1));
            let at = (piece, index);
            let read = self
                .read_text(at, line, &owner, warnings)
                .and_then(|change| self.finish(change, self.bundle.header.generation, None));
            mods.push(read.map_err(|why| self.wrong(piece, index, &why))?.into());
        }
        Ok(mods)
    }

    fn wrong(&self, piece: Piece<'_>, index: usize, why: &str) -> Status {
        Status::invalid_argument(format!("{}: {why}", self.bundle.parts.place(piece, index)))
    }

    fn read_flow(
        &self,
        at: (Piece<'_>, usize),
        asked: &proto::FlowMod,
        warnings: &mut Vec<String>,
    ) -> Result<FlowMod, String> {
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
        let change = self.read_text(at, &text, &owner_of(&asked.owner, &self.owner), warnings)?;
        self.finish(change, asked.generation.unwrap_or(self.bundle.header.generation), reason)
    }

    /// Reads a flow or a change to flows.
    fn read_text(
        &self,
        (piece, index): (Piece<'_>, usize),
        text: &str,
        owner: &Owner,
        warnings: &mut Vec<String>,
    ) -> Result<FlowMod, String> {
        fits("flow", text, MAX_FLOW_LEN)?;
        let read = parse_flow_mod_of(owner, text, &self.names).map_err(|e| format!("{e:#}"))?;
        for warning in read.warnings.iter().take(MAX_WARNINGS.saturating_sub(warnings.len())) {
            warnings.push(format!("{}: {warning}", self.bundle.parts.place(piece, index)));
        }
        Ok(read.value)
    }

    /// Gives a change to flows what its text does not say.
    fn finish(&self, mut change: FlowMod, generation: u64, reason: Option<DropReason>) -> Result<FlowMod, String> {
        if let FlowMod::Add { spec, .. } | FlowMod::Modify { spec, .. } = &mut change {
            spec.generation = generation;
            spec.drop_reason = reason.or(spec.drop_reason);
        }
        if self.bundle.header.replace.is_some() && !matches!(change, FlowMod::Add { .. }) {
            return Err("flows that replace others are all adds".to_owned());
        }
        Ok(change)
    }

    /// Puts the flows that `all` adds in the place of those that `filter` selects. Flows in both stay and keep their
    /// counters, even if their owner or generation changes. Changes that are not to flows are made in their turn.
    fn replace(
        &self,
        bridge: &mut Bridge,
        filter: &FlowFilter,
        all: Vec<Piecewise<'_>>,
        now: Millis,
        totals: &mut Totals,
    ) -> Result<Made, Refused> {
        let mut made = Made::default();
        for deletion in leaving(bridge, filter, &all) {
            let applied = bridge.make(deletion, now).map_err(|e| Refused::Text(Status::internal(e.to_string())))?;
            totals.count(&applied);
            made.add(applied);
        }
        for (piece, mods) in all {
            for (index, change) in mods.into_iter().enumerate() {
                let there = match &change {
                    BridgeMod::Flow(FlowMod::Add { spec, .. }) => {
                        let rule = bridge.tables.get_strict(spec.table, spec.priority, &spec.matches);
                        rule.map_or(Alike::No, |rule| compare(&rule.spec, spec))
                    }
                    _ => Alike::No,
                };
                match (there, change) {
                    (Alike::Wholly, _) => totals.unchanged += 1,
                    (Alike::ButOwner, BridgeMod::Flow(FlowMod::Add { spec, .. })) => {
                        let keep = FlowMod::Add { spec, check_overlap: false, reset_counts: false };
                        let kept = bridge.make(keep.into(), now);
                        made.add(kept.map_err(|e| self.bundle.refused(piece, index, e))?);
                        totals.unchanged += 1;
                    }
                    (_, change) => made.add(self.one(bridge, (piece, index), change, now, totals)?),
                }
            }
        }
        Ok(made)
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
    /// A text is wrong, or what it asks for.
    Text(Status),
}

impl Refused {
    fn status(self) -> Status {
        match self {
            Self::Control(error) => error::status(error),
            Self::Text(status) => status,
        }
    }
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

/// Deletions of the flows that `filter` selects and nothing adds.
fn leaving(bridge: &Bridge, filter: &FlowFilter, all: &[Piecewise<'_>]) -> Vec<BridgeMod> {
    let specs = all.iter().flat_map(|(_, mods)| mods).filter_map(|change| match change {
        BridgeMod::Flow(FlowMod::Add { spec, .. }) => Some(spec),
        _ => None,
    });
    let wanted: HashSet<(u8, u16, &Match)> = specs.map(|s| (s.table.get(), s.priority, &s.matches)).collect();
    let leaving = bridge.tables.select(filter).filter(|rule| {
        let spec = &rule.spec;
        !wanted.contains(&(spec.table.get(), spec.priority, &spec.matches))
    });
    leaving.map(|rule| FlowMod::delete(FlowFilter::strictly(&rule.spec)).into()).collect()
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
