//! `sluice ct limits`.

use super::settings;
use super::stats::{self, filled};
use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table};
use clap::Args;
use serde::Serialize;
use sluice_proto::v1::{ConnectionSettings, GetConnectionStatsReply};

/// Arguments of `sluice ct limits`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice ct limits
  sluice ct limits -o ofctl            as `ovs-appctl dpctl/ct-get-limits` prints them
  sluice ct set --zone-limit 5=100     changes them")]
pub(super) struct Limits {
    #[command(flatten)]
    target: Target,
}

#[derive(Serialize)]
struct Answer {
    connections: u64,
    max_connections: u32,
    default_zone_limit: u32,
    zones: Vec<Zone>,
}

/// A zone that has connections or a limit of its own.
#[derive(Serialize)]
struct Zone {
    zone: u32,
    connections: u64,
    limit: u64,
    is_own_limit: bool,
}

/// Runs the verb.
pub(super) fn run(args: &Limits, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json, Format::Ofctl])?;
    let client = Client::connect(&args.target)?;
    let answer = answer(settings::ask(&client)?, stats::ask(&client, String::new())?);
    match format {
        Format::Json => out.json(&answer)?,
        Format::Ofctl => {
            out.line(format!("default limit={}", answer.default_zone_limit))?;
            for zone in answer.zones.iter().filter(|zone| zone.is_own_limit) {
                out.line(format!("zone={},limit={},count={}", zone.zone, zone.limit, zone.connections))?;
            }
        }
        _ => out.table(&table(&answer))?,
    }
    Ok(Exit::Yes)
}

fn answer(settings: ConnectionSettings, stats: GetConnectionStatsReply) -> Answer {
    let is_own = |zone| settings.zones.iter().any(|z| z.zone == zone && z.limit.is_some());
    let zones = stats.zones.into_iter().map(|z| Zone {
        zone: z.zone,
        connections: z.connections,
        limit: z.limit,
        is_own_limit: is_own(z.zone),
    });
    Answer {
        connections: stats.connections,
        max_connections: settings.max_connections,
        default_zone_limit: settings.default_zone_limit,
        zones: zones.collect(),
    }
}

fn table(answer: &Answer) -> Table {
    let header = ["OF".into(), Cell::right("CONNECTIONS"), Cell::right("LIMIT"), Cell::right("FULL"), "".into()];
    let mut table = Table::new(header);
    let noted = |row: [Cell; 4], note: &str| row.into_iter().chain([note.into()]).collect::<Vec<Cell>>();
    table.row(noted(filled("all zones", answer.connections, answer.max_connections.into()), ""));
    for zone in &answer.zones {
        let note = if zone.is_own_limit { "its own limit" } else { "the default limit" };
        table.row(noted(filled(&format!("zone {}", zone.zone), zone.connections, zone.limit), note));
    }
    let limit = match answer.default_zone_limit {
        0 => "-".to_owned(),
        limit => limit.to_string(),
    };
    let row = ["other zones".into(), Cell::right("0"), Cell::right(limit), "".into(), "the default limit".into()];
    table.row(row);
    table
}
