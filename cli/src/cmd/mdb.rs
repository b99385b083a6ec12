//! `sluice mdb`.

use crate::client::{BridgeArg, Client, Target};
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table};
use crate::watch::Watch;
use clap::Args;
use serde::Serialize;
use sluice_proto::v1::{ListMdbRequest, MdbEntry};

/// Arguments of `sluice mdb`.
#[derive(Debug, Args)]
#[command(after_help = "\
Known only to bridges that snoop: `sluice bridges set br0 --mcast-snooping yes`. A port without a
group has a multicast router behind it, and gets every group.

Examples:
  sluice mdb                     who wants which group
  sluice mdb --watch")]
pub(crate) struct Mdb {
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    bridge: BridgeArg,
    #[command(flatten)]
    target: Target,
}

#[derive(Serialize)]
struct Answer {
    entries: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    bridge: String,
    vlan: u32,
    group: Option<String>,
    port: String,
    port_number: u32,
    age_ms: u64,
}

impl From<MdbEntry> for Entry {
    fn from(entry: MdbEntry) -> Self {
        Self {
            bridge: entry.bridge,
            vlan: entry.vlan,
            group: Some(entry.group).filter(|group| !group.is_empty()),
            port: entry.port,
            port_number: entry.port_number,
            age_ms: entry.age_ms,
        }
    }
}

/// Runs the verb.
pub(crate) fn run(args: Mdb, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let client = Client::connect(&args.target)?;
    args.watch.run(out, |out| {
        let parts = client.collect(client.fdb().list_mdb(ListMdbRequest { bridge: args.bridge.bridge.clone() }))?;
        let entries: Vec<Entry> = parts.into_iter().flat_map(|part| part.entries).map(Entry::from).collect();
        if format == Format::Json {
            out.json(&Answer { entries })?;
            return Ok(Exit::Yes);
        }
        let header = ["BRIDGE".into(), Cell::right("VLAN"), "GROUP".into(), "PORT".into(), Cell::right("AGE")];
        let mut table = Table::new(header);
        for e in entries {
            let port = if e.port.is_empty() { e.port_number.to_string() } else { e.port };
            let group = e.group.unwrap_or_else(|| "router".to_owned());
            let age = Cell::right(format!("{} s", e.age_ms / 1000));
            table.row([e.bridge.into(), Cell::right(e.vlan.to_string()), group.into(), port.into(), age]);
        }
        out.table(&table)?;
        Ok(Exit::Yes)
    })
}
