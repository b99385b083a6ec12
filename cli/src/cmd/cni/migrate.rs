//! `sluice cni migrate`.

use super::networks::NetworksArg;
use super::places::{failed, ipam};
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use clap::Args;
use serde::Serialize;
use sluice_cni::ipam::Migration;

/// Arguments of `sluice cni migrate`.
#[derive(Debug, Args)]
#[command(after_help = "\
Before: the network's addresses were given by the reference plugin host-local, which keeps a file
for each in /var/lib/cni/networks/NETWORK. After: the store of sluice-cni has them, with their
owners, and the files are gone. Until then both are honoured, so nothing is in a hurry.

Examples:
  sluice cni migrate --dry-run        say what would be taken over
  sluice cni migrate pods             take it over

Exit code 1 if something was left where it is.")]
pub(crate) struct MigrateArgs {
    #[command(flatten)]
    networks: NetworksArg,
    /// Only say what would be taken over
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Answer {
    dry_run: bool,
    networks: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    network: String,
    directory: String,
    directory_removed: bool,
    addresses: Vec<Address>,
}

#[derive(Serialize)]
struct Address {
    address: String,
    container_id: Option<String>,
    /// `moved`, `already` or `left`.
    fate: &'static str,
    /// Why it was left, or what else is to be known.
    note: Option<String>,
}

/// Runs the verb.
pub(crate) fn run(args: &MigrateArgs, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let path = args.networks.path();
    let mut networks = Vec::new();
    for network in args.networks.read()? {
        let migration = ipam(&network, &path)?.migrate(args.dry_run).map_err(|error| failed(&network, error))?;
        networks.extend(migration.map(|migration| row(network.base.name.clone(), migration)));
    }
    let left = networks.iter().flat_map(|row| &row.addresses).any(|address| address.fate == "left");
    match format {
        Format::Json => out.json(&Answer { dry_run: args.dry_run, networks })?,
        _ if networks.iter().all(|row| row.addresses.is_empty()) => {
            let places: Vec<_> = networks.iter().map(|row| row.directory.as_str()).collect();
            out.line(format!("nothing to take over in {}", places.join(", ")))?;
        }
        _ => out.table(&table(&networks))?,
    }
    Ok(if left { Exit::No } else { Exit::Yes })
}

fn row(network: String, migration: Migration) -> Row {
    let Migration { directory, moved, outside, already, left, directory_removed } = migration;
    let moved = moved.into_iter().map(|(address, record)| Address {
        note: outside.contains(&address).then(|| "in no range: kept until it is released".to_owned()),
        address: address.to_string(),
        container_id: Some(record.container_id),
        fate: "moved",
    });
    let plain = |address: std::net::IpAddr, fate, note| Address {
        address: address.to_string(),
        container_id: None,
        fate,
        note,
    };
    let already = already.into_iter().map(|address| plain(address, "already", None));
    let left = left.into_iter().map(|(address, why)| plain(address, "left", Some(why)));
    let addresses = moved.chain(already).chain(left).collect();
    Row { network, directory: directory.display().to_string(), directory_removed, addresses }
}

fn table(networks: &[Row]) -> Table {
    let mut table = Table::new(["NETWORK", "ADDRESS", "CONTAINER", "FATE", "NOTE"]);
    for row in networks {
        for address in &row.addresses {
            let tone = if address.fate == "left" { Tone::Warn } else { Tone::Plain };
            let owner = address.container_id.as_deref().unwrap_or("-");
            let names = [row.network.as_str(), &address.address, owner].map(Cell::from);
            let fate = [Cell::from(address.fate).tone(tone), Cell::from(address.note.as_deref().unwrap_or("-"))];
            table.row(names.into_iter().chain(fate));
        }
    }
    table
}
