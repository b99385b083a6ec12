//! `sluice status`.

use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use clap::Args;
use serde::Serialize;
use sluice_proto::v1::{GetStatsRequest, GetStatusRequest};
use std::collections::BTreeMap;

/// Arguments of `sluice status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice status                   one line for each part; exit 5 when one is not well
  sluice status -o json")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    target: Target,
}

#[derive(Serialize)]
struct Answer {
    version: String,
    pid: u32,
    uptime_ms: u64,
    workers: u32,
    bridges: u32,
    ports: u32,
    flows: u64,
    fdb_entries: u64,
    connections: u64,
    max_connections: u64,
    model_generation: u64,
    received_packets: u64,
    forwarded_packets: u64,
    dropped_packets: u64,
    drops: BTreeMap<String, u64>,
    caches: Vec<Worker>,
    parts: Vec<Part>,
}

#[derive(Serialize)]
struct Worker {
    worker: u32,
    packets: u64,
    bursts: u64,
    exact_hits: u64,
    megaflow_hits: u64,
    misses: u64,
    exact_entries: u64,
    megaflow_entries: u64,
    megaflow_masks: u32,
    connection_hits: u64,
    pass_hits: u64,
    pass_misses: u64,
    pass_entries: u64,
    held_packets: u64,
    released_packets: u64,
    parks: u64,
}

#[derive(Serialize)]
struct Part {
    name: String,
    ok: bool,
    detail: String,
}

/// Runs the verb.
pub(crate) fn run(args: &StatusArgs, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let client = Client::connect(&args.target)?;
    let answer = ask(&client)?;
    let exit = if answer.parts.iter().all(|p| p.ok) { Exit::Yes } else { Exit::Unhealthy };
    match format {
        Format::Json => out.json(&answer)?,
        _ => out.table(&table(&answer))?,
    }
    Ok(exit)
}

fn ask(client: &Client) -> Result<Answer, Failure> {
    let status = client.call(client.status().get_status(GetStatusRequest {}))?;
    let stats = client.call(client.stats().get_stats(GetStatsRequest {}))?;
    let caches = stats.workers.into_iter().map(|w| Worker {
        worker: w.worker,
        packets: w.packets,
        bursts: w.bursts,
        exact_hits: w.exact_hits,
        megaflow_hits: w.megaflow_hits,
        misses: w.misses,
        exact_entries: w.exact_entries,
        megaflow_entries: w.megaflow_entries,
        megaflow_masks: w.megaflow_masks,
        connection_hits: w.connection_hits,
        pass_hits: w.pass_hits,
        pass_misses: w.pass_misses,
        pass_entries: w.pass_entries,
        held_packets: w.held_packets,
        released_packets: w.released_packets,
        parks: w.parks,
    });
    Ok(Answer {
        version: status.version,
        pid: status.pid,
        uptime_ms: status.uptime_ms,
        workers: status.workers,
        bridges: status.bridges,
        ports: status.ports,
        flows: status.flows,
        fdb_entries: status.fdb_entries,
        connections: status.connections,
        max_connections: status.max_connections,
        model_generation: status.model_generation,
        received_packets: stats.received_packets,
        forwarded_packets: stats.forwarded_packets,
        dropped_packets: stats.dropped_packets,
        drops: stats.drops.into_iter().map(|d| (d.reason, d.packets)).collect(),
        caches: caches.collect(),
        parts: status.parts.into_iter().map(|p| Part { name: p.name, ok: p.ok, detail: p.detail }).collect(),
    })
}

fn table(a: &Answer) -> Table {
    let mut table = Table::new(["PART", "STATE", ""]);
    for p in &a.parts {
        let state = if p.ok { Cell::from("ok").tone(Tone::Good) } else { Cell::from("bad").tone(Tone::Bad) };
        table.row([Cell::from(p.name.as_str()), state, p.detail.as_str().into()]);
    }
    let mut fact = |name: &str, detail: String| table.row([name.to_owned(), String::new(), detail]);
    fact("switch", format!("version {}, pid {}, up {}", a.version, a.pid, duration(a.uptime_ms)));
    let (bridges, ports, flows, learned) = (a.bridges, a.ports, a.flows, a.fdb_entries);
    fact("model", format!("bridges: {bridges}, ports: {ports}, flows: {flows}, learned addresses: {learned}"));
    let (hits, misses) = a.caches.iter().fold((0, 0), |(h, m), w| (h + w.exact_hits + w.megaflow_hits, m + w.misses));
    let rate = if hits + misses == 0 {
        "-".to_owned()
    } else {
        format!("{:.1} %", hits as f64 * 100.0 / (hits + misses) as f64)
    };
    let megaflows: u64 = a.caches.iter().map(|w| w.megaflow_entries).sum();
    fact("caches", format!("workers: {}, hits: {rate}, megaflows: {megaflows}", a.workers));
    let drops: Vec<_> = a.drops.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
    let drops = if drops.is_empty() { String::new() } else { format!(" ({})", drops.join(", ")) };
    fact(
        "packets",
        format!(
            "{} received, {} forwarded, {} dropped{drops}",
            a.received_packets, a.forwarded_packets, a.dropped_packets
        ),
    );
    table
}

/// `2 d 3 h`, `4 min`, `12 s`: the two largest units.
fn duration(ms: u64) -> String {
    let s = ms / 1000;
    match (s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_show_the_two_largest_units() {
        assert_eq!(duration(12_345), "12 s");
        assert_eq!(duration(125_000), "2 min 5 s");
        assert_eq!(duration(3_600_000), "1 h 0 min");
        assert_eq!(duration(90_000_000), "1 d 1 h");
    }
}
