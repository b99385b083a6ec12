//! `sluice status`: how a switch is, and on a node of a cluster what belongs to it ([`node`]); from elsewhere, how every node is
//! ([`cluster`]).

mod cluster;
mod node;

use crate::client::{Client, Reach, Target};
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use clap::Args;
use serde::{Deserialize, Serialize};
use sluice_proto::v1::{GetStatsRequest, GetStatusRequest};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long to wait between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Arguments of `sluice status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice status                   one line for each part; exit 5 when one is not well
  sluice status --wait 60s        until all is well; exit 5 if it is not by then
  sluice status --node all        a line for each node of a cluster, by a kubeconfig
  sluice status -o json

On a node of a cluster the parts are also those of its controller: the API server, the network,
Pods, flows, tunnels. Where there is no switch but a kubeconfig, every node is asked. Exit 4 if some
nodes do not answer, 5 if a part is not well.")]
pub(crate) struct StatusArgs {
    /// Wait until all is well, at most so long: 60s, 2m
    #[arg(long, value_name = "TIME", value_parser = time)]
    wait: Option<Duration>,
    /// Ask every node of the cluster: --node all
    #[arg(long, conflicts_with_all = ["node", "socket", "lab"])]
    all_nodes: bool,
    /// Only the switch itself, not what belongs to a node of a cluster
    #[arg(long)]
    switch: bool,
    /// Where a node's controller answers
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9477", hide = true)]
    controller: SocketAddr,
    #[command(flatten)]
    target: Target,
}

#[derive(Serialize, Deserialize)]
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

#[derive(Serialize, Deserialize)]
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

#[derive(Debug, Serialize, Deserialize)]
struct Part {
    name: String,
    ok: bool,
    detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Part {
    fn well(name: &str, detail: String) -> Self {
        Self { name: name.to_owned(), ok: true, detail, next: None }
    }

    fn bad(name: &str, detail: String, next: &str) -> Self {
        Self { name: name.to_owned(), ok: false, detail, next: Some(next.to_owned()) }
    }

    /// Name, what there is to say, and what to do.
    #[cfg(test)]
    fn told(&self) -> String {
        let next = self.next.as_ref().map_or(String::new(), |next| format!(" (next: {next})"));
        format!("{}: {}{next}", self.name, self.detail)
    }
}

impl Answer {
    fn is_well(&self) -> bool {
        self.parts.iter().all(|part| part.ok)
    }
}

/// Runs the verb.
pub(crate) fn run(args: &StatusArgs, out: &mut Output) -> Result<Exit, Failure> {
    out.format(&[Format::Table, Format::Json])?;
    if let Some(wait) = args.wait {
        let until = Instant::now() + wait;
        while Instant::now() < until && !is_well(args) {
            std::thread::sleep(LOOK_EVERY.min(until.saturating_duration_since(Instant::now())));
        }
    }
    look(args, out)
}

/// Whether all is well; a switch that does not answer is not.
fn is_well(args: &StatusArgs) -> bool {
    let look = || -> Result<bool, Failure> {
        Ok(match place(args)? {
            Place::Here(client) => ask(&client, args)?.is_well(),
            Place::Node(answer) => answer.is_well(),
            Place::All(cluster) => cluster::Look::at(args, &cluster)?.is_well(),
        })
    };
    look().unwrap_or(false)
}

/// Whom to ask.
enum Place {
    Here(Client),
    /// A node of a cluster, which has answered.
    Node(Box<Answer>),
    All(crate::kube::Cluster),
}

fn place(args: &StatusArgs) -> Result<Place, Failure> {
    let mut target = args.target.clone();
    if args.all_nodes {
        target.cluster.node = Some("all".to_owned());
    }
    match target.reach()? {
        Reach::Socket(socket) => Client::connect_to(socket).map(Place::Here),
        Reach::Cluster(cluster) => match target.cluster.node.as_deref() {
            None | Some("all") => Ok(Place::All(cluster)),
            Some(node) => {
                let member = cluster.member(Some(node))?;
                Ok(Place::Node(Box::new(cluster::ask(&cluster, &member)?)))
            }
        },
    }
}

fn look(args: &StatusArgs, out: &mut Output) -> Result<Exit, Failure> {
    let answer = match place(args)? {
        Place::Here(client) => ask(&client, args)?,
        Place::Node(answer) => *answer,
        Place::All(cluster) => return cluster::Look::at(args, &cluster)?.tell(out),
    };
    match out.format(&[Format::Table, Format::Json])? {
        Format::Json => out.json(&answer)?,
        _ => out.table(&table(&answer))?,
    }
    Ok(if answer.is_well() { Exit::Yes } else { Exit::Unhealthy })
}

/// `60s`, `2m`, `1h`, or seconds.
fn time(text: &str) -> Result<Duration, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let scale = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("want a time such as 60s or 2m".to_owned()),
    };
    let seconds = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(scale)).filter(|s| *s <= 86_400);
    seconds.map(Duration::from_secs).ok_or_else(|| "want a time such as 60s or 2m, a day at most".to_owned())
}

fn ask(client: &Client, args: &StatusArgs) -> Result<Answer, Failure> {
    let status = client.call(client.status().get_status(GetStatusRequest {}))?;
    let mut parts: Vec<_> = status
        .parts
        .iter()
        .map(|p| Part { name: p.name.clone(), ok: p.ok, detail: p.detail.clone(), next: None })
        .collect();
    if !args.switch && node::is_one(client, args.target.is_default(client))? {
        parts.extend(node::parts(client, args.controller, &status)?);
    }
    parts.sort_by_key(|part| part.ok);
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
        parts,
    })
}

fn table(a: &Answer) -> Table {
    let mut table = Table::new(["PART", "STATE", ""]);
    for p in &a.parts {
        let state = if p.ok { Cell::from("ok").tone(Tone::Good) } else { Cell::from("bad").tone(Tone::Bad) };
        table.row([Cell::from(p.name.as_str()), state, p.detail.as_str().into()]);
        if let Some(next) = &p.next {
            table.row(["".to_owned(), String::new(), format!("next: {next}")]);
        }
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
