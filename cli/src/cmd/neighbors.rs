//! `sluice neighbors`: who has which address on the links of routers.

use super::routes::RouterArg;
use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use crate::watch::Watch;
use clap::{Args, Subcommand};
use serde::Serialize;
use sluice_proto::v1::{
    DeleteNeighborRequest, FlushNeighborsRequest, ListNeighborsRequest, Neighbor, SetNeighborRequest, StaticNeighbor,
};

/// Arguments of `sluice neighbors`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
STATE: incomplete (being asked for; packets wait), reachable (has answered a while ago at most),
stale (not heard of for longer), probe (asked whether it is still there), failed (does not answer),
permanent (set by somebody).

Examples:
  sluice neighbors                                        who is known, and who is asked for
  sluice neighbors flush                                  forget those that were found
  sluice neighbors set lan 10.0.1.9 02:00:00:00:00:09     no need to ask
  sluice neighbors del lan 10.0.1.9"
)]
pub(crate) struct Neighbors {
    #[command(flatten)]
    list: List,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    router: RouterArg,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Forget the neighbours that were found; those that were set stay
    #[command(after_help = "Examples:
  sluice neighbors flush
  sluice neighbors flush lan            those of one interface")]
    Flush {
        /// Only those behind this interface
        #[arg(default_value = "", hide_default_value = true)]
        interface: String,
        #[command(flatten)]
        router: RouterArg,
        #[command(flatten)]
        target: Target,
    },
    /// Make a neighbour known for good
    #[command(after_help = "Example:
  sluice neighbors set lan 10.0.1.9 02:00:00:00:00:09")]
    Set {
        /// The interface that it is behind
        interface: String,
        /// Its address
        address: String,
        /// Its hardware address
        mac: String,
        #[command(flatten)]
        router: RouterArg,
        #[command(flatten)]
        target: Target,
    },
    /// Forget a neighbour
    #[command(after_help = "Example:
  sluice neighbors del lan 10.0.1.9")]
    Del {
        /// The interface that it is behind
        interface: String,
        /// Its address
        address: String,
        #[command(flatten)]
        router: RouterArg,
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Serialize)]
struct Answer {
    neighbors: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    router: String,
    interface: String,
    address: String,
    mac: Option<String>,
    state: String,
    age_ms: u64,
    waiting: u64,
}

impl From<Neighbor> for Row {
    fn from(n: Neighbor) -> Self {
        let Neighbor { router, interface, address, mac, state, age_ms, waiting } = n;
        Self { router, interface, address, mac: Some(mac).filter(|mac| !mac.is_empty()), state, age_ms, waiting }
    }
}

/// Runs the verb.
pub(crate) fn run(args: Neighbors, out: &mut Output) -> Result<Exit, Failure> {
    match args.verb {
        None => list(args.list, out),
        Some(Verb::Flush { interface, router, target }) => {
            let format = out.format(&[Format::Table, Format::Json])?;
            let client = Client::connect(&target)?;
            let request = FlushNeighborsRequest { router: router.router, interface };
            let flushed = client.call(client.routers().flush_neighbors(request))?.flushed;
            if format == Format::Json {
                out.json(&serde_json::json!({"flushed": flushed}))?;
            } else {
                out.line(format!("{flushed} neighbours forgotten"))?;
            }
            Ok(Exit::Yes)
        }
        Some(Verb::Set { interface, address, mac, router, target }) => {
            let client = Client::connect(&target)?;
            let done = serde_json::json!({"interface": interface, "address": address, "mac": mac});
            let neighbor = Some(StaticNeighbor { interface, address, mac });
            client.call(client.routers().set_neighbor(SetNeighborRequest { router: router.router, neighbor }))?;
            out.done(&done)
        }
        Some(Verb::Del { interface, address, router, target }) => {
            let client = Client::connect(&target)?;
            let done = serde_json::json!({"interface": interface, "address": address});
            let request = DeleteNeighborRequest { router: router.router, interface, address };
            client.call(client.routers().delete_neighbor(request))?;
            out.done(&done)
        }
    }
}

fn list(args: List, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Wide, Format::Json])?;
    let client = Client::connect(&args.target)?;
    args.watch.run(out, |out| {
        let request = ListNeighborsRequest { router: args.router.router.clone() };
        let parts = client.collect(client.routers().list_neighbors(request))?;
        let all: Vec<_> = parts.into_iter().flat_map(|part| part.neighbors).collect();
        if all.is_empty() {
            out.talk("no router knows a neighbour")?;
        }
        if format == Format::Json {
            out.json(&Answer { neighbors: all.into_iter().map(Row::from).collect() })?;
        } else {
            out.table(&table(&all, format == Format::Wide))?;
        }
        Ok(Exit::Yes)
    })
}

fn table(all: &[Neighbor], wide: bool) -> Table {
    let routers = wide || all.windows(2).any(|pair| pair[0].router != pair[1].router);
    let mut header: Vec<Cell> = Vec::new();
    if routers {
        header.push("ROUTER".into());
    }
    header.extend(["INTERFACE", "ADDRESS", "MAC", "STATE"].map(Cell::from));
    header.push(Cell::right("AGE"));
    if wide {
        header.push(Cell::right("WAITING"));
    }
    let mut table = Table::new(header);
    for n in all {
        let mut row: Vec<Cell> = Vec::new();
        if routers {
            row.push(n.router.as_str().into());
        }
        let mac = if n.mac.is_empty() { "-" } else { &n.mac };
        let tone = match n.state.as_str() {
            "reachable" | "permanent" => Tone::Good,
            "failed" => Tone::Bad,
            "incomplete" | "probe" => Tone::Warn,
            _ => Tone::Plain,
        };
        row.extend([n.interface.as_str(), n.address.as_str(), mac].map(Cell::from));
        row.push(Cell::from(n.state.as_str()).tone(tone));
        row.push(Cell::right(format!("{} s", n.age_ms / 1000)));
        if wide {
            row.push(Cell::right(n.waiting.to_string()));
        }
        table.row(row);
    }
    table
}
