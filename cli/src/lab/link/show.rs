//! `sluice lab link show`.

use super::{find, is_down, ports, ports_of, set_on};
use crate::client::Client;
use crate::failure::Failure;
use crate::lab::Target;
use crate::lab::topology::resolved::{Impairment, Link};
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use clap::Args;
use serde::Serialize;
use serde_json::json;
use sluice_proto::v1::{Port, WireCounters};
use sluice_switch::port::{Queue, show_time};
use std::collections::HashMap;
use std::time::Duration;

/// Arguments of `sluice lab link show`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice lab link show
  sluice lab link show wan -o wide    with duplicated, corrupted and reordered frames
  sluice lab link show wan -o json")]
pub(crate) struct Show {
    /// The link; all that have impairments or are down if not given
    link: Option<String>,
    #[command(flatten)]
    target: Target,
}

/// One way of a link. What is only of wires is not there on other links.
struct Way<'a> {
    link: &'a Link,
    from: &'a str,
    to: &'a str,
    wire: Option<(Impairment, WireCounters)>,
    up: bool,
}

/// The same for programs.
#[derive(Serialize)]
struct Row<'a> {
    link: &'a str,
    from: &'a str,
    to: &'a str,
    up: bool,
    #[serde(flatten)]
    wire: Option<WireRow>,
}

impl<'a> Row<'a> {
    fn new(way: &Way<'a>) -> Self {
        let wire = way.wire.as_ref().map(|(set, counters)| WireRow::new(set, counters));
        Self { link: &way.link.name, from: way.from, to: way.to, up: way.up, wire }
    }
}

#[derive(Serialize)]
struct WireRow {
    delay_ns: u64,
    jitter_ns: u64,
    loss_ratio: f64,
    /// 0 is no limit.
    rate_bits_per_s: u64,
    queue_packets: Option<u32>,
    queue_ns: Option<u64>,
    duplicate_ratio: f64,
    corrupt_ratio: f64,
    reorder_ratio: f64,
    queued_packets: u32,
    queued_ns: u64,
    sent_packets: u64,
    lost_packets: u64,
    queue_full_packets: u64,
    duplicated_packets: u64,
    corrupted_packets: u64,
    reordered_packets: u64,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl WireRow {
    fn new(set: &Impairment, counters: &WireCounters) -> Self {
        let (queue_packets, queue_ns) = match set.queue {
            Queue::Packets(packets) => (Some(packets), None),
            Queue::Time(time) => (None, Some(nanos(time))),
        };
        Self {
            delay_ns: nanos(set.delay),
            jitter_ns: nanos(set.jitter),
            loss_ratio: set.loss.ratio(),
            rate_bits_per_s: set.rate,
            queue_packets,
            queue_ns,
            duplicate_ratio: set.duplicate.ratio(),
            corrupt_ratio: set.corrupt.ratio(),
            reorder_ratio: set.reorder.ratio(),
            queued_packets: counters.queued_packets,
            queued_ns: counters.queued_ns,
            sent_packets: counters.sent,
            lost_packets: counters.lost,
            queue_full_packets: counters.queue_full,
            duplicated_packets: counters.duplicated,
            corrupted_packets: counters.corrupted,
            reordered_packets: counters.reordered,
        }
    }
}

/// Runs the verb.
pub(super) fn run(args: &Show, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Wide, Format::Json])?;
    let (_, state) = crate::lab::running(args.target.lab.as_deref())?;
    let topology = &state.topology;
    let named = args.link.as_deref().map(|name| find(topology, name)).transpose()?;
    let ports = ports(&Client::connect_to(state.socket.clone())?)?;
    let links = topology.links.iter().filter(|link| named.is_none_or(|named| std::ptr::eq(named, *link)));
    let ways: Vec<_> = links.flat_map(|link| ways(link, &ports)).collect();
    let shown = |way: &&Way<'_>| named.is_some() || way.link.is_wire() || !way.up;
    let ways = ways.iter().filter(shown);
    if format == Format::Json {
        out.json(&json!({"links": ways.map(Row::new).collect::<Vec<_>>()}))?;
        return Ok(Exit::Yes);
    }
    let wide = format == Format::Wide;
    let mut header: Vec<Cell> = vec!["LINK".into(), "DIR".into()];
    header.extend(["DELAY", "JITTER", "LOSS", "RATE", "QUEUE"].map(Cell::right));
    if wide {
        header.extend(["DUPLICATE", "CORRUPT", "REORDER"].map(Cell::right));
    }
    header.extend(["SENT", "LOST"].map(Cell::right));
    if wide {
        header.extend(["DUPLICATED", "CORRUPTED", "REORDERED"].map(Cell::right));
    }
    header.push("STATE".into());
    let mut table = Table::new(header);
    ways.for_each(|way| table.row(row(way, wide)));
    out.table(&table)?;
    Ok(Exit::Yes)
}

/// Both ways of a link. A link is up when its ports are.
fn ways<'a>(link: &'a Link, ports: &HashMap<String, Port>) -> [Way<'a>; 2] {
    let at = ports_of(link).map(|name| name.and_then(|name| ports.get(&name)));
    let up = at.iter().flatten().all(|port| port.link_up && !is_down(port));
    [(0, 1), (1, 0)].map(|(from, to)| {
        let wire = at[from].filter(|_| link.is_wire());
        Way {
            link,
            from: link.ends[from].node(),
            to: link.ends[to].node(),
            wire: wire.map(|port| (set_on(port), port.wire.unwrap_or_default())),
            up,
        }
    })
}

fn row(way: &Way<'_>, wide: bool) -> Vec<Cell> {
    let mut row: Vec<Cell> = vec![way.link.name.as_str().into(), format!("{}>{}", way.from, way.to).into()];
    let mut put = |cells: &[String]| row.extend(cells.iter().map(|cell| Cell::right(cell.as_str())));
    match &way.wire {
        Some((set, counters)) => {
            let [delay, jitter, loss, rate, queue, duplicate, corrupt, reorder, _] =
                set.options().map(|(_, value)| value);
            let waits = match set.queue {
                Queue::Packets(_) => counters.queued_packets.to_string(),
                Queue::Time(_) => show_time(Duration::from_micros(counters.queued_ns / 1_000)),
            };
            // Without a rate there is no queue.
            let (rate, queue) =
                if set.rate == 0 { ("-".to_owned(), "-".to_owned()) } else { (rate, format!("{waits}/{queue}")) };
            put(&[delay, jitter, loss, rate, queue]);
            if wide {
                put(&[duplicate, corrupt, reorder]);
            }
            put(&[counters.sent, counters.lost + counters.queue_full].map(|count| count.to_string()));
            if wide {
                let counts = [counters.duplicated, counters.corrupted, counters.reordered];
                put(&counts.map(|count| count.to_string()));
            }
        }
        None => put(&vec!["-".to_owned(); if wide { 13 } else { 7 }]),
    }
    row.push(if way.up { Cell::from("up").tone(Tone::Good) } else { Cell::from("down").tone(Tone::Bad) });
    row
}
