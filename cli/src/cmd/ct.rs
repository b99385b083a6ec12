//! `sluice ct`: the tracked connections.

mod dump;
mod events;
mod limits;
mod ofctl;
mod set;
mod settings;
mod show;
mod stats;
mod timeouts;

pub(crate) use show::{end, proto_name};

use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::matching;
use crate::output::{Exit, Format, Output};
use clap::{Args, Subcommand};
use sluice_proto::v1::FlushConnectionsRequest;

/// Arguments of `sluice ct`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  sluice ct                                    every connection
  sluice ct dump zone=5,tcp,tp_dst=80          those to port 80 in zone 5
  sluice ct flush addr=10.0.0.7                forget those of a host
  sluice ct stats                              how many there are, and what came of the others
  sluice ct set --zone-limit 5=1000            at most so many in zone 5
  sluice ct events -f                          what happens to them

A MATCH is a list of words, all of which have to be true; ! in front of one negates it:
  zone=5  tcp udp sctp icmp (tcp6 ... for IPv6)  nw_proto=47  state=ESTABLISHED  unreplied  nat
  nw_src=10.0.0.0/8  nw_dst=...  tp_src=...  tp_dst=80   of the packet that began the connection
  reply_nw_src=...  reply_tp_dst=...                     of its answers, as they arrive
  src=h1  dst=svc:shop/db  host=shop/web-7f9  port=80    an address, a network, a node of the
                                                         lab, a Pod or a Service; either end
  ct_mark=0x10/0xf0  ct_label=1  owner=np:*"
)]
pub(crate) struct Ct {
    #[command(flatten)]
    dump: dump::Dump,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show connections
    Dump(dump::Dump),
    /// Forget connections; their next packets begin anew
    Flush(Flush),
    /// How many there are, by zone, protocol and state, and what came of the others
    Stats(stats::Stats),
    /// Limits of the table and of zones, with how full they are
    Limits(limits::Limits),
    /// After how many seconds without a packet a connection ends
    Timeouts(timeouts::Timeouts),
    /// What can be set but timeouts
    Settings(settings::Settings),
    /// Change limits, timeouts and what is checked
    Set(set::Set),
    /// What happens to connections, as it happens
    Events(events::Events),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice ct flush zone=5 --dry-run          how many that would be
  sluice ct flush zone=5
  sluice ct flush 'tcp,nw_dst=10.0.0.2,tp_dst=80'
  sluice ct flush --all -y                  every connection of every zone")]
struct Flush {
    /// Which, in the words of `sluice ct --help`
    #[arg(value_name = "MATCH", required_unless_present = "all", conflicts_with = "all")]
    matches: Vec<String>,
    /// Every connection of every zone; needs -y
    #[arg(long)]
    all: bool,
    /// Yes, all of them
    #[arg(short, long)]
    yes: bool,
    /// Only say how many that would be
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    target: Target,
}

/// Runs the verb.
pub(crate) fn run(args: Ct, out: &mut Output) -> Result<Exit, Failure> {
    match args.verb {
        None => dump::run(&args.dump, out),
        Some(Verb::Dump(args)) => dump::run(&args, out),
        Some(Verb::Flush(args)) => flush(&args, out),
        Some(Verb::Stats(args)) => stats::run(&args, out),
        Some(Verb::Limits(args)) => limits::run(&args, out),
        Some(Verb::Timeouts(args)) => timeouts::run(&args, out),
        Some(Verb::Settings(args)) => settings::run(&args, out),
        Some(Verb::Set(args)) => set::run(args, out),
        Some(Verb::Events(args)) => events::run(&args, out),
    }
}

/// The connections that a MATCH is about, in the switch's words.
fn chosen(matches: &[String], client: &Client) -> Result<String, Failure> {
    matching::read(&matches.join(","), client).map(|words| words.of_connections())
}

fn flush(args: &Flush, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    if args.all && !args.yes && !args.dry_run {
        return Err(Failure::usage("this would forget every connection of every zone")
            .next("sluice ct flush --all -y, or --dry-run to see how many there are"));
    }
    let client = Client::connect(&args.target)?;
    let request =
        FlushConnectionsRequest { filter: chosen(&args.matches, &client)?, all: args.all, dry_run: args.dry_run };
    let flushed = client.call(client.connections().flush_connections(request))?.flushed;
    if format == Format::Json {
        out.json(&serde_json::json!({"flushed": flushed, "dry_run": args.dry_run}))?;
    } else {
        let noun = if flushed == 1 { "connection" } else { "connections" };
        out.line(format!("{flushed} {noun} {}", if args.dry_run { "would be removed" } else { "removed" }))?;
    }
    Ok(Exit::Yes)
}
