//! `sluice ct settings`.

use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table};
use clap::Args;
use serde::Serialize;
use sluice_proto::v1::{ConnectionSettings, FragmentSettings, GetConnectionSettingsRequest};
use std::collections::BTreeMap;

/// Arguments of `sluice ct settings`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice ct settings
  sluice ct settings -o json           with timeouts
  sluice ct set --max 500000           changes them")]
pub(super) struct Settings {
    #[command(flatten)]
    target: Target,
}

#[derive(Serialize)]
struct Answer {
    max_connections: u32,
    default_zone_limit: u32,
    timeouts_s: BTreeMap<String, u32>,
    tcp_liberal: bool,
    zones: Vec<Zone>,
    fragments: Fragments,
}

#[derive(Serialize)]
struct Zone {
    zone: u32,
    limit: Option<u32>,
    timeouts_s: BTreeMap<String, u32>,
    tcp_liberal: Option<bool>,
}

#[derive(Serialize)]
struct Fragments {
    v4: bool,
    v6: bool,
    v4_min_size_bytes: u32,
    v6_min_size_bytes: u32,
    max_fragments: u32,
    timeout_ms: u64,
}

/// The settings there are.
pub(super) fn ask(client: &Client) -> Result<ConnectionSettings, Failure> {
    client.call(client.connections().get_connection_settings(GetConnectionSettingsRequest {}))
}

/// Runs the verb.
pub(super) fn run(args: &Settings, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let settings = ask(&Client::connect(&args.target)?)?;
    if format == Format::Json {
        out.json(&answer(settings))?;
    } else {
        out.table(&table(&settings))?;
    }
    Ok(Exit::Yes)
}

fn answer(settings: ConnectionSettings) -> Answer {
    let FragmentSettings { ipv4, ipv6, ipv4_min_size, ipv6_min_size, max_fragments, timeout_ms } =
        settings.fragments.unwrap_or_default();
    let zones = settings.zones.into_iter().map(|z| Zone {
        zone: z.zone,
        limit: z.limit,
        timeouts_s: z.timeouts_s.into_iter().collect(),
        tcp_liberal: z.tcp_liberal,
    });
    Answer {
        max_connections: settings.max_connections,
        default_zone_limit: settings.default_zone_limit,
        timeouts_s: settings.timeouts_s.into_iter().collect(),
        tcp_liberal: settings.tcp_liberal,
        zones: zones.collect(),
        fragments: Fragments {
            v4: ipv4,
            v6: ipv6,
            v4_min_size_bytes: ipv4_min_size,
            v6_min_size_bytes: ipv6_min_size,
            max_fragments,
            timeout_ms,
        },
    }
}

/// The option of `ct set` that changes it, and its value.
fn table(settings: &ConnectionSettings) -> Table {
    let mut table = Table::new(["SETTING".into(), Cell::right("VALUE")]);
    let mut row = |name: &str, value: String| table.row([Cell::from(name), Cell::right(value)]);
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    row("max", settings.max_connections.to_string());
    row("default-zone-limit", settings.default_zone_limit.to_string());
    for zone in &settings.zones {
        if let Some(limit) = zone.limit {
            row(&format!("zone-limit {}", zone.zone), limit.to_string());
        }
    }
    row("tcp-liberal", yes_no(settings.tcp_liberal));
    for zone in &settings.zones {
        if let Some(liberal) = zone.tcp_liberal {
            row(&format!("tcp-liberal of zone {}", zone.zone), yes_no(liberal));
        }
    }
    let fragments = settings.fragments.unwrap_or_default();
    row("fragments-v4", yes_no(fragments.ipv4));
    row("fragments-v6", yes_no(fragments.ipv6));
    row("min-fragment-v4", format!("{} bytes", fragments.ipv4_min_size));
    row("min-fragment-v6", format!("{} bytes", fragments.ipv6_min_size));
    row("max-fragments", fragments.max_fragments.to_string());
    row("fragment-timeout", format!("{} ms", fragments.timeout_ms));
    table
}
