//! Changes to flows, groups, meters and tables on their way to the switch: all of them are made, or none.

use crate::client::{BridgeArg, Client, Target};
use crate::failure::Failure;
use crate::output::{Exit, Format, Output};
use clap::Args;
use serde::Serialize;
use sluice_flows::bridge::{TableMiss, TableMod};
use sluice_flows::text::{Names, ParseError, flow_lines, parse_table_mod};
use sluice_proto::MAX_MESSAGE_LEN;
use sluice_proto::v1::bridge_mod::Change;
use sluice_proto::v1::{
    self as proto, ApplyBundleReply, ApplyBundleRequest, BridgeMod, BundleHeader, FlowFilter, FlowLines, FlowMod,
    GroupMod, MeterMod, flow_mod, group_mod, meter_mod,
};
use std::fs::File;
use std::io::Read;

/// Changes in one message: large enough not to matter.
const CHUNK: usize = 2000;
/// Bytes of text in one message, and of one change: half of what a message may have.
const MAX_TEXT_LEN: usize = MAX_MESSAGE_LEN / 2;
/// Bytes of lines in one message, more or less.
const LINES_LEN: usize = 256 << 10;
/// Largest file that is read, in bytes. A bundle has a million changes at most.
const MAX_FILE_LEN: u64 = 512 << 20;

/// What verbs that change things share.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Owner of what does not name one: KIND:NAME
    #[arg(long, value_name = "OWNER")]
    pub(crate) owner: Option<String>,
    /// Only check the changes and say what would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    bridge: BridgeArg,
    #[command(flatten)]
    target: Target,
}

impl Common {
    /// For this bridge of this switch.
    pub(crate) fn new(bridge: BridgeArg, target: Target) -> Self {
        Self { owner: None, dry_run: false, bridge, target }
    }
}

/// What a verb's texts are, and what those of a file are that do not say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Flows.
    Flow,
    /// Groups, with this command.
    Group(group_mod::Command),
    /// Meters, with this command.
    Meter(meter_mod::Command),
    /// What is said of tables.
    Table,
}

impl Kind {
    /// The change that a text asks for.
    ///
    /// # Errors
    /// What the text says of a table is wrong. The switch reads the other texts.
    pub(crate) fn change(self, text: &str, owner: &str) -> Result<BridgeMod, ParseError> {
        let (text, owner) = (text.to_owned(), owner.to_owned());
        let change = match self {
            Self::Table => Change::Table(table(parse_table_mod(&text, Names::NONE)?)),
            Self::Flow => Change::Flow(FlowMod {
                command: flow_mod::Command::AsWritten.into(),
                flow: text,
                owner,
                generation: None,
                drop_reason: String::new(),
            }),
            Self::Group(command) => Change::Group(GroupMod { command: command.into(), group: text, owner }),
            Self::Meter(command) => Change::Meter(MeterMod { command: command.into(), meter: text, owner }),
        };
        Ok(BridgeMod { change: Some(change) })
    }

    /// The change that a line of a file asks for, which may begin with `flow`, `group`, `meter` or `table`, as in the files that
    /// `ovs-ofctl bundle` reads.
    fn line(self, line: &str, owner: &str) -> Result<BridgeMod, ParseError> {
        let line = line.trim();
        let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        match word {
            "flow" => Self::Flow.change(rest.trim_start(), owner),
            "group" => Self::Group(group_mod::Command::AsWritten).change(rest.trim_start(), owner),
            "meter" => meter(rest.trim_start(), owner),
            "table" => Self::Table.change(rest.trim_start(), owner),
            _ if matches!(self, Self::Meter(meter_mod::Command::Add)) => meter(line, owner),
            _ => self.change(line, owner),
        }
    }
}

/// A meter, or a change to one behind `add`, `modify` or `delete`.
fn meter(line: &str, owner: &str) -> Result<BridgeMod, ParseError> {
    let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let (command, text) = match word {
        "add" => (meter_mod::Command::Add, rest),
        "modify" => (meter_mod::Command::Modify, rest),
        "delete" => (meter_mod::Command::Delete, rest),
        _ => (meter_mod::Command::Add, line),
    };
    Kind::Meter(command).change(text.trim(), owner)
}

/// A change to a table as the switch takes it.
fn table(change: TableMod) -> proto::TableMod {
    let miss = match change.miss {
        None => proto::TableMiss::Unspecified,
        Some(TableMiss::Drop) => proto::TableMiss::Drop,
        Some(TableMiss::Controller) => proto::TableMiss::Controller,
        Some(TableMiss::Continue) => proto::TableMiss::Continue,
    };
    proto::TableMod {
        table: change.table.map(|table| table.get().into()),
        name: change.name.map(|name| name.to_string()),
        miss: miss.into(),
        max_flows: change.max_flows,
        evict: change.evict,
    }
}

/// The text of a file, or of standard input for `-`; at most [`MAX_FILE_LEN`] bytes.
pub(crate) fn read(file: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if file == "-" {
        std::io::stdin().take(MAX_FILE_LEN + 1).read_to_string(&mut text)
    } else {
        File::open(file).and_then(|f| f.take(MAX_FILE_LEN + 1).read_to_string(&mut text))
    };
    match read {
        Ok(len) if len as u64 > MAX_FILE_LEN => {
            Err(Failure::usage(format!("{file} has more than {} MiB", MAX_FILE_LEN >> 20)).next("split it"))
        }
        Ok(_) => Ok(text),
        Err(e) => Err(Failure::usage(format!("cannot read {file}: {e}"))),
    }
}

/// What owners and messages call a file.
pub(crate) fn label(file: &str) -> &str {
    if file == "-" { "stdin" } else { file }
}

/// What a bundle is to change.
pub(crate) enum Changes {
    /// One by one.
    Single(Vec<BridgeMod>),
    /// Lines of a file of flows.
    Lines {
        /// What owners and messages call the file.
        file: String,
        /// The whole text.
        text: String,
        /// Owner of flows that do not name one; empty if it is their place in the file.
        owner: String,
    },
}

impl From<Vec<BridgeMod>> for Changes {
    fn from(changes: Vec<BridgeMod>) -> Self {
        Self::Single(changes)
    }
}

/// The changes that a file of flows asks for; each is its place's in the file unless an owner is given. The switch cuts
/// the lines itself if all of them are flows and changes to flows.
pub(crate) fn flows(file: &str, owner: Option<&str>) -> Result<Changes, Failure> {
    let text = read(file)?;
    if text.split('\n').any(|line| line.len() > MAX_TEXT_LEN || is_of_bundle(line)) {
        return Ok(Changes::Single(lines_of(&text, file, Kind::Flow, owner)?));
    }
    Ok(Changes::Lines { file: label(file).to_owned(), text, owner: owner.unwrap_or_default().to_owned() })
}

/// Whether a line begins as those do that say what they are.
fn is_of_bundle(line: &str) -> bool {
    let line = line.trim_start();
    ["flow", "group", "meter", "table"].iter().any(|word| {
        line.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
    })
}

/// The changes that the lines of a file ask for; each is its place's in the file unless an owner is given.
pub(crate) fn lines(file: &str, kind: Kind, owner: Option<&str>) -> Result<Vec<BridgeMod>, Failure> {
    lines_of(&read(file)?, file, kind, owner)
}

fn lines_of(text: &str, file: &str, kind: Kind, owner: Option<&str>) -> Result<Vec<BridgeMod>, Failure> {
    let label = label(file);
    let mut changes = Vec::new();
    for (number, line) in flow_lines(text) {
        if line.len() > MAX_TEXT_LEN {
            let len = line.len();
            let what = format!("{label}:{number}: the line has {len} bytes; it may have {MAX_TEXT_LEN}");
            return Err(Failure::usage(what));
        }
        let change = match owner {
            Some(owner) => kind.line(line, owner),
            None => kind.line(line, &format!("file:{label}:{number}")),
        };
        changes.push(change.map_err(|e| Failure::usage(format!("{label}:{number}: {e:#}")))?);
    }
    Ok(changes)
}

/// The changes that these texts ask for.
pub(crate) fn texts(texts: &[String], kind: Kind) -> Result<Vec<BridgeMod>, Failure> {
    texts.iter().map(|text| kind.change(text, "").map_err(|e| Failure::usage(format!("{e:#}")))).collect()
}

#[derive(Serialize)]
struct Changed {
    added: u64,
    modified: u64,
    deleted: u64,
    unchanged: u64,
    others: Others,
    dry_run: bool,
}

/// Groups, meters and tables.
#[derive(Serialize)]
struct Others {
    added: u64,
    modified: u64,
    deleted: u64,
}

impl Changed {
    fn new(reply: &ApplyBundleReply, dry_run: bool) -> Self {
        let ApplyBundleReply { added, modified, deleted, unchanged, .. } = *reply;
        let others =
            Others { added: reply.others_added, modified: reply.others_modified, deleted: reply.others_deleted };
        Self { added, modified, deleted, unchanged, others, dry_run }
    }

    /// For a person. Of flows and the rest, what the verb is not about is said only if there is something to say.
    fn text(&self, kind: Kind) -> String {
        let Self { added, modified, deleted, unchanged, .. } = self;
        let flows = format!("{added} added, {modified} modified, {deleted} deleted, {unchanged} unchanged");
        let Others { added, modified, deleted } = self.others;
        let others = format!("{added} added, {modified} modified, {deleted} deleted");
        let (flows_changed, others_changed) =
            (self.added + self.modified + self.deleted > 0, added + modified + deleted > 0);
        let text = match kind {
            Kind::Flow if others_changed => format!("{flows}; groups, meters and tables: {others}"),
            Kind::Flow => flows,
            _ if flows_changed => format!("{others}; flows: {flows}"),
            _ => others,
        };
        if self.dry_run { format!("would be: {text}") } else { text }
    }
}

/// Has the switch make the changes, and says what it did.
pub(crate) fn apply(
    common: Common,
    kind: Kind,
    changes: impl Into<Changes>,
    replace: Option<FlowFilter>,
    out: &mut Output,
) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let client = Client::connect(&common.target)?;
    let header = BundleHeader {
        bridge: common.bridge.bridge,
        owner: common.owner.unwrap_or_else(|| "user".to_owned()),
        generation: 0,
        replace,
        dry_run: common.dry_run,
    };
    let requests: Box<dyn Iterator<Item = ApplyBundleRequest> + Send> = match changes.into() {
        Changes::Single(changes) => Box::new(requests(header, changes).into_iter()),
        Changes::Lines { file, text, owner } => Box::new(requests_of_lines(header, file, text, owner)),
    };
    let reply = client.call(client.flows().apply_bundle(tokio_stream::iter(requests)))?;
    for warning in &reply.warnings {
        eprintln!("warning: {warning}");
    }
    let changed = Changed::new(&reply, common.dry_run);
    if format == Format::Json {
        out.json(&changed)?;
    } else {
        out.line(changed.text(kind))?;
    }
    Ok(Exit::Yes)
}

/// The messages of a bundle.
fn requests(header: BundleHeader, changes: Vec<BridgeMod>) -> Vec<ApplyBundleRequest> {
    let mut requests = vec![ApplyBundleRequest { header: Some(header), ..ApplyBundleRequest::default() }];
    let mut part = ApplyBundleRequest::default();
    let mut len = 0;
    for change in changes {
        let more = text_len(&change);
        if part.mods.len() + part.changes.len() == CHUNK || len + more > MAX_TEXT_LEN {
            requests.push(std::mem::take(&mut part));
            len = 0;
        }
        len += more;
        match change.change {
            // Smaller, and in order as long as nothing else came before.
            Some(Change::Flow(flow)) if part.changes.is_empty() => part.mods.push(flow),
            _ => part.changes.push(change),
        }
    }
    requests.push(ApplyBundleRequest { commit: true, ..part });
    requests
}

/// The messages of a bundle of lines, made as they are sent.
fn requests_of_lines(
    header: BundleHeader,
    file: String,
    text: String,
    owner: String,
) -> impl Iterator<Item = ApplyBundleRequest> + Send {
    let (mut begin, mut next) = (0, 1);
    let lines = std::iter::from_fn(move || {
        let rest = text.get(begin..).filter(|rest| !rest.is_empty())?;
        let near = rest.as_bytes().get(LINES_LEN..).and_then(|after| after.iter().position(|b| *b == b'\n'));
        let part = &rest[..near.map_or(rest.len(), |at| LINES_LEN + at + 1)];
        let first = next;
        next += part.bytes().filter(|b| *b == b'\n').count() as u64;
        begin += part.len();
        let lines = FlowLines { file: file.clone(), first, text: part.to_owned(), owner: owner.clone() };
        Some(ApplyBundleRequest { lines: vec![lines], ..ApplyBundleRequest::default() })
    });
    let first = ApplyBundleRequest { header: Some(header), ..ApplyBundleRequest::default() };
    let last = ApplyBundleRequest { commit: true, ..ApplyBundleRequest::default() };
    std::iter::once(first).chain(lines).chain([last])
}

fn text_len(change: &BridgeMod) -> usize {
    match &change.change {
        Some(Change::Flow(flow)) => flow.flow.len() + flow.owner.len(),
        Some(Change::Group(group)) => group.group.len() + group.owner.len(),
        Some(Change::Meter(meter)) => meter.meter.len() + meter.owner.len(),
        Some(Change::Table(_)) | None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_bundle_file_say_what_they_are() {
        let flow = |line| match Kind::Flow.line(line, "o").unwrap().change {
            Some(Change::Flow(flow)) => format!("flow {}", flow.flow),
            Some(Change::Group(group)) => format!("group {}", group.group),
            Some(Change::Meter(meter)) => format!("meter {} {}", meter.command, meter.meter),
            Some(Change::Table(table)) => format!("table {:?} {:?}", table.table, table.name),
            None => String::new(),
        };
        assert_eq!(flow("table 1 name:acl"), "table Some(1) Some(\"acl\")");
        assert_eq!(flow("table=1 actions=drop"), "flow table=1 actions=drop");
        assert_eq!(flow("flow add tcp,actions=drop"), "flow add tcp,actions=drop");
        assert_eq!(flow(" delete table=1"), "flow delete table=1");
        assert_eq!(flow("group  insert_bucket group_id=1"), "group insert_bucket group_id=1");
        assert_eq!(flow("meter delete meter=1"), "meter 2 meter=1");
        assert_eq!(flow("meter meter=1,kbps"), "meter 0 meter=1,kbps");
    }

    #[test]
    fn a_bundle_is_cut_at_its_size_and_keeps_its_order() {
        let flow = |len: usize| Kind::Flow.change(&"x".repeat(len), "").unwrap();
        let group = || Kind::Group(group_mod::Command::Add).change("g", "").unwrap();
        let changes = vec![flow(1), group(), flow(2), flow(MAX_TEXT_LEN - 3), flow(MAX_TEXT_LEN), flow(1)];
        let requests = requests(BundleHeader::default(), changes);
        let sizes: Vec<_> = requests.iter().map(|r| (r.mods.len(), r.changes.len(), r.commit)).collect();
        assert_eq!(sizes, [(0, 0, false), (1, 2, false), (1, 0, false), (1, 0, false), (1, 0, true)]);
    }
}
