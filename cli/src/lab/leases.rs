//! `sluice lab leases`: who has which address by DHCP, and for how long.

use super::Target;
use super::dhcp::{Held, held, now};
use super::inspect::age;
use super::topology::resolved::dhcp::DhcpServer;
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table};
use clap::Args;
use serde::Serialize;

/// Arguments of `sluice lab leases`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice lab leases
  sluice lab leases office -o json")]
pub(crate) struct Leases {
    /// The lab; may be left out when one is running
    #[arg(conflicts_with = "lab")]
    name: Option<String>,
    #[command(flatten)]
    target: Target,
}

#[derive(Serialize)]
struct Answer<'a> {
    leases: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    vlan: &'a str,
    #[serde(flatten)]
    held: Held,
    left_s: u64,
}

/// Shows them.
pub(crate) fn run(args: &Leases, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let (name, state) = super::running(args.name.as_deref().or(args.target.lab.as_deref()))?;
    let (folder, now) = (state.folder(), now());
    let of_server = |server: &'_ DhcpServer| {
        let failed = |error| Failure::new(format!("cannot read the leases of the VLAN {}: {error}", server.vlan));
        held(folder, &server.vlan).map_err(failed)
    };
    let mut leases = Vec::new();
    for server in &state.topology.dhcp {
        let row = |held: Held| Row { vlan: &server.vlan, left_s: held.until_unix_s.saturating_sub(now), held };
        leases.extend(of_server(server)?.into_iter().map(row));
    }
    if format == Format::Json {
        out.json(&Answer { leases })?;
        return Ok(Exit::Yes);
    }
    if leases.is_empty() {
        out.talk(match state.topology.dhcp.is_empty() {
            true => format!("the lab {name} has no DHCP server; `dhcp: true` of a VLAN is one"),
            false => "nobody has an address by DHCP".to_owned(),
        })?;
        return Ok(Exit::Yes);
    }
    let mut table = Table::new([
        Cell::from("VLAN"),
        Cell::from("ADDRESS"),
        Cell::from("MAC"),
        Cell::from("NODE"),
        Cell::right("LEFT"),
    ]);
    for row in leases {
        table.row([
            Cell::from(row.vlan),
            Cell::from(row.held.address.to_string()),
            Cell::from(row.held.mac.to_string()),
            Cell::from(row.held.node.unwrap_or_else(|| "-".to_owned())),
            Cell::right(age(row.left_s)),
        ]);
    }
    out.table(&table)?;
    Ok(Exit::Yes)
}
