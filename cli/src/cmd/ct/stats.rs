//! `sluice ct stats`.

use super::chosen;
use super::ofctl;
use super::show::proto_name;
use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use crate::watch::Watch;
use clap::Args;
use serde::Serialize;
use sluice_proto::v1::{ConnectionCounters, GetConnectionStatsReply, GetConnectionStatsRequest, ProtocolStats};
use std::collections::BTreeMap;

/// Arguments of `sluice ct stats`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice ct stats
  sluice ct stats -w                   again every second
  sluice ct stats zone=5               what there is in zone 5, by protocol and state
  sluice ct stats -o ofctl -m          as `ovs-appctl dpctl/ct-stats-show -m` prints them")]
pub(super) struct Stats {
    /// Count only these, in the words of `sluice ct --help`, by protocol and state
    #[arg(value_name = "MATCH")]
    matches: Vec<String>,
    /// TCP's states, with -o ofctl
    #[arg(short, long)]
    more: bool,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    target: Target,
}

#[derive(Serialize)]
struct Answer {
    connections: u64,
    limit: u64,
    zones: Vec<Zone>,
    protocols: Vec<Protocol>,
    counters: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct Zone {
    zone: u32,
    connections: u64,
    limit: u64,
}

#[derive(Serialize)]
struct Protocol {
    proto: u32,
    connections: u64,
    states: BTreeMap<String, u64>,
}

/// Runs the verb.
pub(super) fn run(args: &Stats, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json, Format::Ofctl])?;
    let client = Client::connect(&args.target)?;
    let filter = chosen(&args.matches, &client)?;
    args.watch.run(out, |out| {
        let stats = ask(&client, filter.clone())?;
        match format {
            Format::Json => out.json(&answer(stats))?,
            Format::Ofctl => out.line(ofctl::stats(&stats, args.more))?,
            _ => {
                if !args.matches.is_empty() {
                    out.table(&of_protocols(&stats))?;
                    return Ok(Exit::Yes);
                }
                out.table(&numbers(&stats))?;
                out.line("")?;
                out.table(&counters_table(&stats.counters.unwrap_or_default()))?;
            }
        }
        Ok(Exit::Yes)
    })
}

/// The numbers now, with those by protocol of the connections that `filter` selects.
pub(super) fn ask(client: &Client, filter: String) -> Result<GetConnectionStatsReply, Failure> {
    client.call(client.connections().get_connection_stats(GetConnectionStatsRequest { filter }))
}

fn answer(stats: GetConnectionStatsReply) -> Answer {
    let zones = stats.zones.into_iter().map(|z| Zone { zone: z.zone, connections: z.connections, limit: z.limit });
    let protocols = stats.protocols.into_iter().map(|p| Protocol {
        proto: p.proto,
        connections: p.connections,
        states: p.states.into_iter().map(|s| (s.state, s.connections)).collect(),
    });
    Answer {
        connections: stats.connections,
        limit: stats.limit,
        zones: zones.collect(),
        protocols: protocols.collect(),
        counters: counters(&stats.counters.unwrap_or_default()).into_iter().map(|(name, _, n)| (name, n)).collect(),
    }
}

/// Name, meaning and number.
fn counters(c: &ConnectionCounters) -> [(&'static str, &'static str, u64); 14] {
    [
        ("committed", "connections begun", c.committed),
        ("expired", "ended without packets for too long", c.expired),
        ("early_dropped", "unreplied ones that made room for others", c.early_dropped),
        ("flushed", "ended on request", c.flushed),
        ("replaced", "begun anew by a packet", c.replaced),
        ("full", "packets dropped: the table was full", c.full),
        ("zone_full", "packets dropped: their zone was at its limit", c.zone_full),
        ("nat_exhausted", "packets dropped: nothing left to translate them to", c.nat_exhausted),
        ("collided", "packets dropped: their answers would be another connection's", c.collided),
        ("invalid", "packets that fitted no connection and could begin none", c.invalid),
        ("fragments_held", "fragments that wait for others now", c.fragments_held),
        ("fragments_completed", "fragments sent on with their whole packet", c.fragments_completed),
        ("fragments_dropped", "fragments given up", c.fragments_dropped),
        ("fragments_refused", "fragments that were invalid", c.fragments_refused),
    ]
}

fn counters_table(c: &ConnectionCounters) -> Table {
    let mut table = Table::new(["COUNTER".into(), Cell::right("N"), "".into()]);
    for (name, meaning, n) in counters(c) {
        let is_bad = n > 0 && matches!(name, "full" | "zone_full" | "nat_exhausted" | "collided" | "fragments_dropped");
        let tone = if is_bad { Tone::Warn } else { Tone::Plain };
        table.row([Cell::from(name), Cell::right(n.to_string()).tone(tone), meaning.into()]);
    }
    table
}

fn numbers(stats: &GetConnectionStatsReply) -> Table {
    let header = ["OF".into(), Cell::right("CONNECTIONS"), Cell::right("LIMIT"), Cell::right("FULL"), "STATES".into()];
    let mut table = Table::new(header);
    table.row(filled("all zones", stats.connections, stats.limit));
    for zone in &stats.zones {
        table.row(filled(&format!("zone {}", zone.zone), zone.connections, zone.limit));
    }
    for protocol in &stats.protocols {
        let [name, count, states] = of_protocol(protocol);
        table.row([name, count, Cell::right("-"), "".into(), states]);
    }
    table
}

/// Those by protocol alone.
fn of_protocols(stats: &GetConnectionStatsReply) -> Table {
    let mut table = Table::new(["OF".into(), Cell::right("CONNECTIONS"), "STATES".into()]);
    stats.protocols.iter().for_each(|protocol| table.row(of_protocol(protocol)));
    table
}

fn of_protocol(protocol: &ProtocolStats) -> [Cell; 3] {
    let states: Vec<_> = protocol.states.iter().map(|s| format!("{} {}", s.state, s.connections)).collect();
    [proto_name(protocol.proto).into(), Cell::right(protocol.connections.to_string()), states.join(", ").into()]
}

/// A row with how full something is.
pub(super) fn filled(name: &str, connections: u64, limit: u64) -> [Cell; 4] {
    let (shown, percent, tone) = match limit {
        0 => ("-".to_owned(), String::new(), Tone::Plain),
        limit => {
            let percent = connections as f64 * 100.0 / limit as f64;
            let tone = if percent >= 85.0 { Tone::Bad } else { Tone::Plain };
            (limit.to_string(), format!("{percent:.1} %"), tone)
        }
    };
    [name.into(), Cell::right(connections.to_string()), Cell::right(shown), Cell::right(percent).tone(tone)]
}
