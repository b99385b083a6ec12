//! `sluice flows`: the flow tables of a running switch.

mod diff;
mod dump;
mod of;

use super::bundle::{Changes, Common, Kind, apply, flows, texts};
use crate::client::{BridgeArg, Client, Target};
use crate::failure::Failure;
use crate::output::{Exit, Format, Output};
use clap::{Args, Subcommand};
use sluice_proto::v1::{DeleteFlowsRequest, FlowFilter};

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
  sluice flows add --file bundle.txt            lines of `flow`, `group`, `meter` and `table`
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

/// The matches of an owner's flows, in a switch of one bridge.
///
/// # Errors
/// What the switch says.
pub(crate) fn owned(client: &Client, owner: &str) -> Result<Vec<String>, Failure> {
    let flows = dump::flows(client, String::new(), format!("owner={owner}"), false)?;
    Ok(flows.into_iter().map(|flow| flow.r#match).collect())
}

/// Runs the verb.
pub(crate) fn run(verb: Verb, out: &mut Output) -> Result<Exit, Failure> {
    match verb {
        Verb::Dump(args) => dump::run(&args, out),
        Verb::Add(args) => {
            let mods = match &args.file {
                Some(file) => flows(file, args.common.owner.as_deref())?,
                None => Changes::Single(texts(&args.flows, Kind::Flow)?),
            };
            apply(args.common, Kind::Flow, mods, None, out)
        }
        Verb::Replace(args) => {
            let mods = flows(&args.file, args.common.owner.as_deref())?;
            let filter = FlowFilter { r#match: args.only, ..FlowFilter::default() };
            apply(args.common, Kind::Flow, mods, Some(filter), out)
        }
        Verb::Del(args) => del(args, out),
        Verb::Diff(args) => diff::run(&args, out),
    }
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
