//! `sluice ct timeouts`.

use super::settings;
use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table};
use clap::Args;
use serde::Serialize;
use sluice_proto::v1::ConnectionSettings;
use std::collections::BTreeMap;

/// Arguments of `sluice ct timeouts`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice ct timeouts
  sluice ct set --timeout udp_multiple=120               changes one
  sluice ct set --zone 5 --timeout tcp_established=600   in one zone")]
pub(super) struct Timeouts {
    #[command(flatten)]
    target: Target,
}

#[derive(Serialize)]
struct Answer {
    timeouts_s: BTreeMap<String, u32>,
    zones: Vec<Zone>,
}

#[derive(Serialize)]
struct Zone {
    zone: u32,
    timeouts_s: BTreeMap<String, u32>,
}

/// Runs the verb.
pub(super) fn run(args: &Timeouts, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let client = Client::connect(&args.target)?;
    let answer = answer(settings::ask(&client)?);
    match format {
        Format::Json => out.json(&answer)?,
        _ => out.table(&table(&answer))?,
    }
    Ok(Exit::Yes)
}

/// The timeouts, and the zones that have some of their own.
fn answer(settings: ConnectionSettings) -> Answer {
    let zones = settings.zones.into_iter().filter(|zone| !zone.timeouts_s.is_empty());
    Answer {
        timeouts_s: settings.timeouts_s.into_iter().collect(),
        zones: zones.map(|z| Zone { zone: z.zone, timeouts_s: z.timeouts_s.into_iter().collect() }).collect(),
    }
}

/// One row for each state, one column for each zone that differs; `-` where it does not.
fn table(answer: &Answer) -> Table {
    let zones = answer.zones.iter().map(|z| Cell::right(format!("ZONE {}", z.zone)));
    let mut table = Table::new(["STATE".into(), Cell::right("SECONDS")].into_iter().chain(zones));
    for (state, seconds) in &answer.timeouts_s {
        let own = |zone: &Zone| zone.timeouts_s.get(state).map_or_else(|| "-".to_owned(), u32::to_string);
        let row = [state.as_str().into(), Cell::right(seconds.to_string())];
        table.row(row.into_iter().chain(answer.zones.iter().map(|zone| Cell::right(own(zone)))));
    }
    table
}
