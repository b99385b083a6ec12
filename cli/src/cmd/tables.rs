//! `sluice tables`: the flow tables as such.

use super::bundle::{self, Common, Kind, lines};
use crate::client::{BridgeArg, Client, Target};
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use crate::watch::Watch;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use sluice_proto::v1::{ListTablesRequest, SetTableRequest, TableMiss, TableMod};

/// Arguments of `sluice tables`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  sluice tables                                 tables with flows or settings
  sluice tables --all                           all 255
  sluice tables set 1 --name acl --miss continue
  sluice tables set 10 --max-flows 1000 --evict yes"
)]
pub(crate) struct Tables {
    /// Those too that have neither flows nor settings
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    bridge: BridgeArg,
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Change a table's name, limit, or what happens without a match
    Set(Set),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice tables set 1 --name acl                flows and dumps may then say table=acl
  sluice tables set 1 --name ''                 no name
  sluice tables set 1 --miss continue           what matches nothing goes on in table 2
  sluice tables set 10 --max-flows 1000 --evict yes
  sluice tables set --all --miss controller
  sluice tables set --file pipeline.tables      lines such as `1 name:acl continue`")]
struct Set {
    /// Its number, 0 to 254
    #[arg(
        required_unless_present_any = ["all", "file"],
        conflicts_with_all = ["all", "file"],
        value_parser = clap::value_parser!(u32).range(0..=254)
    )]
    table: Option<u32>,
    /// Every table
    #[arg(long, conflicts_with_all = ["name", "file"])]
    all: bool,
    /// What a file says of tables in OVS's syntax, or standard input if it is `-`; all or nothing of it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "miss", "max_flows", "evict"])]
    file: Option<String>,
    /// Its name; empty takes it away
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What happens to a packet that no flow matches: drop, controller, or continue in the next table
    #[arg(long, value_enum, value_name = "WHAT", hide_possible_values = true)]
    miss: Option<Miss>,
    /// How many flows it may hold; `any` for any number
    #[arg(long, value_name = "N", value_parser = limit)]
    max_flows: Option<u32>,
    /// When it is full, whether a new flow takes the place of one with a timeout
    #[arg(long, value_name = "yes|no", value_parser = super::ports::yes_no)]
    evict: Option<bool>,
    #[command(flatten)]
    bridge: BridgeArg,
    #[command(flatten)]
    target: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Miss {
    Drop,
    Controller,
    Continue,
}

fn limit(text: &str) -> Result<u32, String> {
    match text {
        "any" => Ok(0),
        _ => text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "want a number from 1 on, or `any`".to_owned()),
    }
}

#[derive(Serialize)]
struct Answer {
    tables: Vec<Row>,
}

/// A table in JSON.
#[derive(Serialize)]
struct Row {
    table: u32,
    name: Option<String>,
    flows: u64,
    max_flows: Option<u32>,
    evict: bool,
    miss: &'static str,
}

/// Runs the verb.
pub(crate) fn run(args: Tables, out: &mut Output) -> Result<Exit, Failure> {
    match args.verb {
        None => show(&args, out),
        Some(Verb::Set(Set { file: Some(file), bridge, target, .. })) => {
            let changes = lines(&file, Kind::Table, None)?;
            bundle::apply(Common::new(bridge, target), Kind::Table, changes, None, out)
        }
        Some(Verb::Set(args)) => set(args, out),
    }
}

fn show(args: &Tables, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let client = Client::connect(&args.target)?;
    args.watch.run(out, |out| {
        let request = ListTablesRequest { bridge: args.bridge.bridge.clone(), all: args.all };
        let tables = client.call(client.tables().list_tables(request))?.tables;
        let rows: Vec<Row> = tables.into_iter().map(row).collect();
        if format == Format::Json {
            out.json(&Answer { tables: rows })?;
            return Ok(Exit::Yes);
        }
        if rows.is_empty() {
            out.talk("no table has flows or settings: every packet is dropped")?;
        }
        let mut table = Table::new([
            Cell::right("TABLE"),
            "NAME".into(),
            Cell::right("FLOWS"),
            Cell::right("LIMIT"),
            "MISS".into(),
        ]);
        for row in rows {
            let limit = match (row.max_flows, row.evict) {
                (None, _) => "-".to_owned(),
                (Some(limit), false) => limit.to_string(),
                (Some(limit), true) => format!("{limit}, evicts"),
            };
            let full = row.max_flows.is_some_and(|limit| row.flows >= limit.into());
            let tone = if full { Tone::Warn } else { Tone::Plain };
            let flows = Cell::right(row.flows.to_string()).tone(tone);
            let name = row.name.unwrap_or_else(|| "-".to_owned());
            table.row([Cell::right(row.table.to_string()), name.into(), flows, Cell::right(limit), row.miss.into()]);
        }
        out.table(&table)?;
        Ok(Exit::Yes)
    })
}

fn row(table: sluice_proto::v1::Table) -> Row {
    let miss = match table.miss() {
        TableMiss::Controller => "controller",
        TableMiss::Continue => "continue",
        TableMiss::Drop | TableMiss::Unspecified => "drop",
    };
    Row {
        table: table.table,
        miss,
        flows: table.flows,
        max_flows: Some(table.max_flows).filter(|n| *n > 0),
        evict: table.evict,
        name: Some(table.name).filter(|name| !name.is_empty()),
    }
}

fn set(args: Set, out: &mut Output) -> Result<Exit, Failure> {
    if (&args.name, args.miss, args.max_flows, args.evict) == (&None, None, None, None) {
        return Err(Failure::usage("nothing to change").next("sluice tables set --help"));
    }
    out.format(&[Format::Table, Format::Json])?;
    let client = Client::connect(&args.target)?;
    let miss = match args.miss {
        None => TableMiss::Unspecified,
        Some(Miss::Drop) => TableMiss::Drop,
        Some(Miss::Controller) => TableMiss::Controller,
        Some(Miss::Continue) => TableMiss::Continue,
    };
    let change = TableMod {
        table: args.table,
        name: args.name,
        miss: miss.into(),
        max_flows: args.max_flows,
        evict: args.evict,
    };
    let request = SetTableRequest { bridge: args.bridge.bridge, change: Some(change) };
    let reply = client.call(client.tables().set_table(request))?;
    if reply.evicted > 0 {
        out.talk(format!("{} flows were evicted: the table may hold fewer now", reply.evicted))?;
    }
    out.done(&serde_json::json!({"evicted": reply.evicted}))
}
