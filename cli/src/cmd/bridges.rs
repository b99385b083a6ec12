//! `sluice bridges`.

use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;
use sluice_proto::v1::{AddBridgeRequest, DeleteBridgeRequest, ListBridgesRequest, SetBridgeRequest};

/// Arguments of `sluice bridges`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  sluice bridges                 every bridge
  sluice bridges add br1         a learning switch with an interface of its own
  sluice bridges set br1 --mcast-snooping yes
  sluice bridges del br1"
)]
pub(crate) struct Bridges {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a bridge
    #[command(after_help = "Example:
  sluice bridges add br1 --no-local-port")]
    Add {
        /// Its name
        name: String,
        /// Without the host's interface of that name
        #[arg(long)]
        no_local_port: bool,
        /// With an empty flow table, which drops everything, instead of a learning switch's
        #[arg(long)]
        no_default_flow: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Change a bridge
    #[command(after_help = "Example:
  sluice bridges set br0 --mcast-snooping yes     then see `sluice mdb`")]
    Set {
        /// Its name
        name: String,
        /// Whether multicast packets go only to ports behind which somebody asked for them (IGMP, MLD)
        #[arg(long, value_name = "yes|no", value_parser = super::ports::yes_no, required = true)]
        mcast_snooping: Option<bool>,
        #[command(flatten)]
        target: Target,
    },
    /// Remove a bridge with its ports and flows
    #[command(after_help = "Example:
  sluice bridges del br1")]
    Del {
        /// Its name
        name: String,
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Serialize)]
struct Answer {
    bridges: Vec<Bridge>,
}

#[derive(Serialize)]
struct Bridge {
    name: String,
    ports: u32,
    flows: u64,
    fdb_entries: u64,
    mcast_snooping: bool,
}

/// Runs the verb.
pub(crate) fn run(args: Bridges, out: &mut Output) -> Result<Exit, Failure> {
    match args.verb {
        None => list(&args.target, out),
        Some(Verb::Add { name, no_local_port, no_default_flow, target }) => {
            out.format(&[Format::Table, Format::Json])?;
            let client = Client::connect(&target)?;
            let added = json!({"added": name});
            client.call(client.bridges().add_bridge(AddBridgeRequest { name, no_default_flow, no_local_port }))?;
            out.done(&added)
        }
        Some(Verb::Set { name, mcast_snooping, target }) => {
            out.format(&[Format::Table, Format::Json])?;
            let client = Client::connect(&target)?;
            let changed = json!({"changed": name});
            client.call(client.bridges().set_bridge(SetBridgeRequest { name, mcast_snooping }))?;
            out.done(&changed)
        }
        Some(Verb::Del { name, target }) => {
            out.format(&[Format::Table, Format::Json])?;
            let client = Client::connect(&target)?;
            let deleted = json!({"deleted": name});
            client.call(client.bridges().delete_bridge(DeleteBridgeRequest { name }))?;
            out.done(&deleted)
        }
    }
}

fn list(target: &Target, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let client = Client::connect(target)?;
    let reply = client.call(client.bridges().list_bridges(ListBridgesRequest {}))?;
    if format == Format::Json {
        let bridges = reply.bridges.into_iter();
        let bridges = bridges
            .map(|b| Bridge {
                name: b.name,
                ports: b.ports,
                flows: b.flows,
                fdb_entries: b.fdb_entries,
                mcast_snooping: b.mcast_snooping,
            })
            .collect();
        out.json(&Answer { bridges })?;
        return Ok(Exit::Yes);
    }
    let mut table = Table::new(["BRIDGE".into(), Cell::right("PORTS"), Cell::right("FLOWS"), Cell::right("FDB")]);
    for b in reply.bridges {
        table.row([
            b.name.into(),
            Cell::right(b.ports.to_string()),
            Cell::right(b.flows.to_string()),
            Cell::right(b.fdb_entries.to_string()),
        ]);
    }
    out.table(&table)?;
    Ok(Exit::Yes)
}
