//! `sluice flows`: the flow tables of a running switch.

mod diff;
mod dump;

use crate::client::{BridgeArg, Client, Target};
use crate::failure::Failure;
use crate::output::{Exit, Format, Output};
use clap::{Args, Subcommand};
use serde::Serialize;
use sluice_flows::text::flow_lines;
use sluice_proto::v1::{
    ApplyBundleReply, ApplyBundleRequest, BundleHeader, DeleteFlowsRequest, FlowFilter, FlowMod, flow_mod::Command,
};
use std::io::Read;

/// Flows in one message of a bundle: far below the limit of 16 MiB, large enough not to matter.
const CHUNK: usize = 2000;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show flows with their owners and counters
    Dump(dump::Dump),
    /// Add flows, all or none
    Add(Add),
    /// Delete flows
    Del(Del),
    /// Make the tables hold a file's flows and no others, at once
    Replace(Replace),
    /// Compare the tables with a file; exit 1 when they differ
    Diff(diff::Diff),
}

/// Arguments of `sluice flows add`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice flows add 'priority=100,tcp,tp_dst=22 actions=drop'
  sluice flows add 'table=1,ip,nw_dst=10.0.0.0/8 actions=output:2' 'table=1 actions=NORMAL'
  sluice flows add --file pipeline.flows        one a line; `delete ...` and `modify ...` work too
  generate | sluice flows add --file -")]
pub(crate) struct Add {
    /// Flows in OVS's syntax
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    flows: Vec<String>,
    /// Read them from a file, or from standard input if it is `-`
    #[arg(long, value_name = "FILE")]
    file: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `sluice flows replace`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice flows replace --file pipeline.flows
  sluice flows replace --file acl.flows --only 'owner=file:acl.flows*'
Flows that stay keep their counters. No packet meets a table that is half old and half new.")]
pub(crate) struct Replace {
    /// The flows, one a line; `-` for standard input
    #[arg(long, value_name = "FILE")]
    file: String,
    /// Replace only the flows that this selects, and leave the others alone
    #[arg(long, value_name = "MATCH", default_value = "", hide_default_value = true)]
    only: String,
    #[command(flatten)]
    common: Common,
}

/// What verbs that change flows share.
#[derive(Debug, Args)]
struct Common {
    /// Owner of flows that do not name one: KIND:NAME
    #[arg(long, value_name = "OWNER")]
    owner: Option<String>,
    /// Only check the flows and say what would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    bridge: BridgeArg,
    #[command(flatten)]
    target: Target,
}

/// Arguments of `sluice flows del`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice flows del tcp,tp_dst=22                every flow within this match, in any table
  sluice flows del table=1
  sluice flows del cookie=0x5/-1
  sluice flows del owner=file:acl.flows*
  sluice flows del --strict priority=100,tcp,tp_dst=22
  sluice flows del --all")]
pub(crate) struct Del {
    /// Which flows, in OVS's syntax
    #[arg(value_name = "MATCH", required_unless_present = "all", conflicts_with = "all")]
    matches: Option<String>,
    /// Only the flow with this very match and priority
    #[arg(long, conflicts_with = "all")]
    strict: bool,
    /// Every flow of the bridge
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    bridge: BridgeArg,
    #[command(flatten)]
    target: Target,
}

/// Runs the verb.
pub(crate) fn run(verb: Verb, out: &mut Output) -> Result<Exit, Failure> {
    match verb {
        Verb::Dump(args) => dump::run(args, out),
        Verb::Add(args) => {
            let mods = match &args.file {
                Some(file) => lines(file, args.common.owner.as_deref())?,
                None => args.flows.iter().map(|f| flow_mod(f, "")).collect(),
            };
            apply(args.common, mods, None, out)
        }
        Verb::Replace(args) => {
            let mods = lines(&args.file, args.common.owner.as_deref())?;
            let filter = FlowFilter { r#match: args.only, ..FlowFilter::default() };
            apply(args.common, mods, Some(filter), out)
        }
        Verb::Del(args) => del(args, out),
        Verb::Diff(args) => diff::run(&args, out),
    }
}

/// The text of a file, or of standard input for `-`.
pub(crate) fn read(file: &str) -> Result<String, Failure> {
    let text = if file == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    text.map_err(|e| Failure::usage(format!("cannot read {file}: {e}")))
}

/// What owners and messages call a file.
pub(crate) fn label(file: &str) -> &str {
    if file == "-" { "stdin" } else { file }
}

fn flow_mod(flow: &str, owner: &str) -> FlowMod {
    let command = Command::AsWritten.into();
    FlowMod { command, flow: flow.to_owned(), owner: owner.to_owned(), generation: None, drop_reason: String::new() }
}

/// The lines of a flow file that say something; each is its place's in the file unless an owner is given.
fn lines(file: &str, owner: Option<&str>) -> Result<Vec<FlowMod>, Failure> {
    let text = read(file)?;
    let label = label(file);
    Ok(flow_lines(&text)
        .map(|(number, line)| match owner {
            Some(owner) => flow_mod(line, owner),
            None => flow_mod(line, &format!("file:{label}:{number}")),
        })
        .collect())
}

#[derive(Serialize)]
struct Changed {
    added: u64,
    modified: u64,
    deleted: u64,
    unchanged: u64,
    dry_run: bool,
}

fn apply(common: Common, mods: Vec<FlowMod>, replace: Option<FlowFilter>, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let client = Client::connect(&common.target)?;
    let header = BundleHeader {
        bridge: common.bridge.bridge,
        owner: common.owner.unwrap_or_else(|| "user".to_owned()),
        generation: 0,
        replace,
        dry_run: common.dry_run,
    };
    let reply = bundle(&client, header, mods)?;
    for warning in &reply.warnings {
        eprintln!("warning: {warning}");
    }
    let ApplyBundleReply { added, modified, deleted, unchanged, .. } = reply;
    let changed = Changed { added, modified, deleted, unchanged, dry_run: common.dry_run };
    if format == Format::Json {
        out.json(&changed)?;
    } else {
        let would = if common.dry_run { "would be: " } else { "" };
        out.line(format!("{would}{added} added, {modified} modified, {deleted} deleted, {unchanged} unchanged"))?;
    }
    Ok(Exit::Yes)
}

/// Sends a bundle in parts and has it done.
fn bundle(client: &Client, header: BundleHeader, mods: Vec<FlowMod>) -> Result<ApplyBundleReply, Failure> {
    let mut parts = vec![ApplyBundleRequest { header: Some(header), ..ApplyBundleRequest::default() }];
    let mut mods = mods.into_iter();
    loop {
        let mods: Vec<_> = mods.by_ref().take(CHUNK).collect();
        if mods.is_empty() {
            break;
        }
        parts.push(ApplyBundleRequest { mods, ..ApplyBundleRequest::default() });
    }
    parts.push(ApplyBundleRequest { commit: true, ..ApplyBundleRequest::default() });
    client.call(client.flows().apply_bundle(tokio_stream::iter(parts)))
}

fn del(args: Del, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let client = Client::connect(&args.target)?;
    let filter = FlowFilter { r#match: args.matches.unwrap_or_default(), strict: args.strict, ..FlowFilter::default() };
    let request = DeleteFlowsRequest { bridge: args.bridge.bridge, filter: Some(filter) };
    let reply = client.call(client.flows().delete_flows(request))?;
    if format == Format::Json {
        out.json(&serde_json::json!({"deleted": reply.deleted}))?;
    } else {
        out.line(format!("{} deleted", reply.deleted))?;
    }
    Ok(Exit::Yes)
}
