//! `sluice fdb`.

use crate::client::{BridgeArg, Client, Target};
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table};
use clap::{Args, Subcommand};
use serde::Serialize;
use sluice_proto::v1::{FlushFdbRequest, ListFdbRequest};

/// Arguments of `sluice fdb`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  sluice fdb              which MAC address is behind which port
  sluice fdb flush        forget them"
)]
pub(crate) struct Fdb {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    bridge: BridgeArg,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Forget learned addresses
    #[command(after_help = "Example:
  sluice fdb flush --bridge br0")]
    Flush {
        #[command(flatten)]
        bridge: BridgeArg,
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Serialize)]
struct Answer {
    entries: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    bridge: String,
    port: String,
    port_number: u32,
    vlan: u32,
    mac: String,
    age_ms: u64,
}

/// Runs the verb.
pub(crate) fn run(args: Fdb, out: &mut Output) -> Result<Exit, Failure> {
    match args.verb {
        None => list(&args.target, args.bridge.bridge, out),
        Some(Verb::Flush { bridge, target }) => {
            let format = out.format(&[Format::Table, Format::Json])?;
            let client = Client::connect(&target)?;
            let reply = client.call(client.fdb().flush_fdb(FlushFdbRequest { bridge: bridge.bridge }))?;
            if format == Format::Json {
                out.json(&serde_json::json!({"flushed": reply.flushed}))?;
            } else {
                out.line(format!("{} addresses forgotten", reply.flushed))?;
            }
            Ok(Exit::Yes)
        }
    }
}

fn list(target: &Target, bridge: String, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let client = Client::connect(target)?;
    let parts = client.collect(client.fdb().list_fdb(ListFdbRequest { bridge }))?;
    let entries = parts.into_iter().flat_map(|p| p.entries).map(|e| Entry {
        bridge: e.bridge,
        port: e.port,
        port_number: e.port_number,
        vlan: e.vlan,
        mac: e.mac,
        age_ms: e.age_ms,
    });
    let entries: Vec<_> = entries.collect();
    if entries.is_empty() {
        eprintln!("no address is learned");
    }
    if format == Format::Json {
        out.json(&Answer { entries })?;
        return Ok(Exit::Yes);
    }
    let header = ["BRIDGE".into(), "PORT".into(), Cell::right("VLAN"), "MAC".into(), Cell::right("AGE")];
    let mut table = Table::new(header);
    for e in entries {
        let age = format!("{} s", e.age_ms / 1000);
        let port = if e.port.is_empty() { e.port_number.to_string() } else { e.port };
        table.row([e.bridge.into(), port.into(), Cell::right(e.vlan.to_string()), e.mac.into(), Cell::right(age)]);
    }
    out.table(&table)?;
    Ok(Exit::Yes)
}
