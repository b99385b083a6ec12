//! `sluice perf`: where the workers' time goes.

use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table};
use crate::watch::Watch;
use clap::Args;
use serde::Serialize;
use sluice_proto::v1::{GetStatsRequest, WorkerStats};
use std::time::Duration;

/// Arguments of `sluice perf`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice perf                          since the switch has started
  sluice perf --seconds 5              in the next five seconds
  sluice perf --seconds 1 --watch      again and again, of a second each
  sluice perf --worker 0 -o json

Stages are timed for one burst in eight. A cycle is a tick of the CPU's time-stamp counter. `send`
is the ports' part of the way out, `receive` of the way in: system calls are there. What a
translation takes, which only packets have that no cache knows, is in no stage.")]
pub(crate) struct Perf {
    /// What happens in so many seconds from now on, instead of all since the start
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: Option<u32>,
    /// Only this worker
    #[arg(long, value_name = "NUMBER")]
    worker: Option<u32>,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    target: Target,
}

/// Sizes of bursts, as the switch counts them.
const SIZES: [&str; 6] = ["1", "2-3", "4-7", "8-15", "16-31", "32"];

#[derive(Serialize)]
struct Answer {
    /// None for all since the start.
    seconds: Option<u32>,
    workers: Vec<Worker>,
}

/// A worker in JSON.
#[derive(Debug, Serialize)]
struct Worker {
    worker: u32,
    /// Share of its time in which it moved frames, 0 to 1.
    busy: f64,
    parks: u64,
    packets: u64,
    /// Packets that other workers did for it, and that it did for others.
    handed_on: u64,
    taken_over: u64,
    bursts: u64,
    bursts_by_size: Vec<Bursts>,
    caches: Caches,
    /// None on a machine without a counter of ticks.
    cycles_hz: Option<f64>,
    stages: Vec<Stage>,
    translations: u64,
    ns_per_translation: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Bursts {
    size: &'static str,
    bursts: u64,
}

/// Who answered, as shares of the packets, 0 to 1; and what the caches hold now.
#[derive(Debug, Serialize)]
struct Caches {
    exact: f64,
    megaflow: f64,
    /// Of the two above, those of connections.
    connection: f64,
    translated: f64,
    exact_entries: u64,
    megaflow_entries: u64,
    masks: u32,
}

#[derive(Debug, Serialize)]
struct Stage {
    stage: String,
    ns_per_packet: f64,
    cycles_per_packet: f64,
}

/// Runs the verb.
pub(crate) fn run(args: &Perf, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let client = Client::connect(&args.target)?;
    let ask = || Ok::<_, Failure>(client.call(client.stats().get_stats(GetStatsRequest {}))?.workers);
    args.watch.run(out, |out| {
        let mut before = Vec::new();
        if let Some(seconds) = args.seconds {
            before = ask()?;
            std::thread::sleep(Duration::from_secs(seconds.into()));
        }
        let now = ask()?;
        let known = now.len();
        let wanted = now.into_iter().filter(|of| args.worker.is_none_or(|number| number == of.worker));
        let since = |of: &WorkerStats| before.iter().find(|then| then.worker == of.worker);
        let workers: Vec<Worker> = wanted.map(|of| Worker::new(&of, since(&of))).collect();
        if workers.is_empty() {
            return Err(Failure::usage("there is no such worker").next(format!("0 to {}", known.saturating_sub(1))));
        }
        if format == Format::Json {
            out.json(&Answer { seconds: args.seconds, workers })?;
        } else {
            tables(&workers, out)?;
        }
        Ok(Exit::Yes)
    })
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl Worker {
    /// What a worker has done, since `before` if that is given.
    fn new(now: &WorkerStats, before: Option<&WorkerStats>) -> Self {
        let grown = |of: fn(&WorkerStats) -> u64| of(now).saturating_sub(before.map_or(0, of));
        let packets = grown(|of| of.packets);
        let timed = grown(|of| of.timed_packets);
        let translations = grown(|of| of.misses.saturating_add(of.pass_misses));
        let hz = (now.ticks_hz > 0.0).then_some(now.ticks_hz);
        let stage = |(at, of): (usize, &sluice_proto::v1::StageTime)| {
            let then = before.and_then(|before| before.stages.get(at)).map_or(0, |then| then.ticks);
            let cycles = share(of.ticks.saturating_sub(then), timed);
            let ns = hz.map_or(0.0, |hz| cycles * 1e9 / hz);
            Stage { stage: of.stage.clone(), ns_per_packet: ns, cycles_per_packet: cycles }
        };
        let bursts = |(at, (size, now)): (usize, (&'static str, &u64))| {
            let then = before.and_then(|before| before.bursts_by_size.get(at)).copied().unwrap_or_default();
            Bursts { size, bursts: now.saturating_sub(then) }
        };
        let ticks = grown(|of| of.translation_ticks) as f64;
        Self {
            worker: now.worker,
            busy: share(grown(|of| of.busy_us), grown(|of| of.uptime_us)),
            parks: grown(|of| of.parks),
            packets,
            handed_on: grown(|of| of.handed_on_packets),
            taken_over: grown(|of| of.taken_over_packets),
            bursts: grown(|of| of.bursts),
            bursts_by_size: SIZES.into_iter().zip(&now.bursts_by_size).enumerate().map(bursts).collect(),
            caches: Caches {
                exact: share(grown(|of| of.exact_hits), packets),
                megaflow: share(grown(|of| of.megaflow_hits), packets),
                connection: share(grown(|of| of.connection_hits), packets),
                translated: share(grown(|of| of.misses), packets),
                exact_entries: now.exact_entries,
                megaflow_entries: now.megaflow_entries,
                masks: now.megaflow_masks,
            },
            cycles_hz: hz,
            stages: now.stages.iter().enumerate().filter(|_| hz.is_some()).map(stage).collect(),
            translations,
            ns_per_translation: hz.filter(|_| translations > 0).map(|hz| ticks * 1e9 / hz / translations as f64),
        }
    }
}

fn percent(share: f64) -> Cell {
    Cell::right(format!("{:.1} %", share * 100.0))
}

fn tables(workers: &[Worker], out: &mut Output) -> Result<(), Failure> {
    let right = |text: &str| Cell::right(text.to_owned());
    let steers = workers.iter().any(|of| of.handed_on > 0 || of.taken_over > 0);
    let mut header = vec![
        right("WORKER"),
        right("BUSY"),
        right("PACKETS"),
        right("A BURST"),
        right("EXACT"),
        right("MEGAFLOW"),
        right("CONNECTION"),
        right("TRANSLATED"),
        right("MEGAFLOWS"),
        right("MASKS"),
    ];
    if steers {
        header.extend([right("HANDED ON"), right("TAKEN OVER")]);
    }
    let mut table = Table::new(header);
    for of in workers {
        let mut row = vec![
            Cell::right(of.worker.to_string()),
            percent(of.busy),
            Cell::right(of.packets.to_string()),
            Cell::right(format!("{:.1}", share(of.packets, of.bursts))),
            percent(of.caches.exact),
            percent(of.caches.megaflow),
            percent(of.caches.connection),
            percent(of.caches.translated),
            Cell::right(of.caches.megaflow_entries.to_string()),
            Cell::right(of.caches.masks.to_string()),
        ];
        if steers {
            row.extend([of.handed_on, of.taken_over].map(|packets| Cell::right(packets.to_string())));
        }
        table.row(row);
    }
    out.table(&table)?;
    for of in workers {
        out.line("")?;
        out.table(&stages(of))?;
        out.line("")?;
        out.table(&bursts(of))?;
    }
    Ok(())
}

fn stages(of: &Worker) -> Table {
    let header = format!("WORKER {}", of.worker);
    let mut table = Table::new([
        Cell::from(header.as_str()),
        Cell::right("NS A PACKET"),
        Cell::right("CYCLES A PACKET"),
        Cell::right("SHARE"),
    ]);
    let cycles: f64 = of.stages.iter().map(|stage| stage.cycles_per_packet).sum();
    let ns: f64 = of.stages.iter().map(|stage| stage.ns_per_packet).sum();
    let number = |number: f64| Cell::right(format!("{number:.1}"));
    for stage in &of.stages {
        let part = if cycles > 0.0 { stage.cycles_per_packet / cycles } else { 0.0 };
        table.row([
            Cell::from(stage.stage.as_str()),
            number(stage.ns_per_packet),
            number(stage.cycles_per_packet),
            percent(part),
        ]);
    }
    table.row([Cell::from("together"), number(ns), number(cycles), Cell::right("")]);
    let each = of.ns_per_translation.map_or_else(|| Cell::right("-"), number);
    let count = format!("{} of them", of.translations);
    table.row([Cell::from("a translation"), each, Cell::right(""), Cell::right(count)]);
    table
}

fn bursts(of: &Worker) -> Table {
    let mut table = Table::new([Cell::from("FRAMES A BURST"), Cell::right("BURSTS"), Cell::right("SHARE")]);
    for bursts in &of.bursts_by_size {
        let part = share(bursts.bursts, of.bursts);
        table.row([Cell::from(bursts.size), Cell::right(bursts.bursts.to_string()), percent(part)]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_proto::v1::StageTime;

    fn stats(packets: u64, ticks: u64) -> WorkerStats {
        WorkerStats {
            packets,
            bursts: packets / 4,
            exact_hits: packets / 2,
            misses: packets / 10,
            translation_ticks: ticks * 10,
            timed_packets: packets / 8,
            ticks_hz: 2e9,
            bursts_by_size: vec![0, 0, packets / 4],
            stages: vec![StageTime { stage: "receive".to_owned(), ticks }],
            busy_us: packets,
            uptime_us: packets * 4,
            ..WorkerStats::default()
        }
    }

    #[test]
    fn what_was_before_does_not_count() {
        let now = Worker::new(&stats(1000, 25_000), Some(&stats(200, 5_000)));
        assert_eq!((now.packets, now.bursts, now.translations), (800, 200, 80));
        assert_eq!(
            now.bursts_by_size.iter().map(|of| (of.size, of.bursts)).collect::<Vec<_>>(),
            [("1", 0), ("2-3", 0), ("4-7", 200)]
        );
        assert_eq!((now.busy, now.caches.exact, now.caches.translated), (0.25, 0.5, 0.1));
        // 20,000 ticks of a half nanosecond each for 100 packets that were timed.
        assert_eq!(
            now.stages.iter().map(|of| (of.cycles_per_packet, of.ns_per_packet)).collect::<Vec<_>>(),
            [(200.0, 100.0)]
        );
        assert_eq!(now.ns_per_translation, Some(1250.0));
    }

    #[test]
    fn a_switch_without_traffic_and_a_machine_without_ticks_are_told() {
        let now = Worker::new(&WorkerStats::default(), None);
        assert_eq!((now.busy, now.packets, now.cycles_hz, now.ns_per_translation), (0.0, 0, None, None));
        assert!(now.stages.is_empty(), "{:?}", now.stages);
    }
}
