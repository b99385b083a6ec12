//! `sluice bench`: how fast the data path is, without a switch, a device or a privilege.

use super::bridge_files::Files;
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table};
use clap::{Args, Subcommand};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use serde::Serialize;
use sluice_flows::text::Names;
use sluice_switch::port::Recording;
use sluice_switch::replay::{BRIDGE, Measured, Replay};
use sluice_switch::{ControlError, Made};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Verbs of `sluice bench`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Replay a capture file through flows from memory, on one core: packets a second, cycles a packet, and which cache
    /// answered
    Replay(ReplayArgs),
}

/// Arguments of `sluice bench replay`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice bench replay --pcap 64b.pcap --flows l2.flows
  sluice bench replay --pcap 64b.pcap --flows acl.flows --seconds 10 --warmup 2 --cpu 1
  sluice bench replay --pcap 64b.pcap --flows conntrack.flows -o json

The frames are kept in memory and come in by port 1 over and over, each copied into a buffer as
a driver would; port 2 discards what is sent to it. Flows that forward send to port 2.
Exit code 1 means that no frame was forwarded.")]
pub(crate) struct ReplayArgs {
    /// Frames to replay, a pcap or pcapng file
    #[arg(long, value_name = "FILE")]
    pcap: PathBuf,
    /// Flows that they go through, one a line
    #[arg(long, value_name = "FILE")]
    flows: String,
    /// Groups that the flows send to, one a line as `ovs-ofctl add-groups` takes them
    #[arg(long, value_name = "FILE")]
    groups: Option<String>,
    /// Meters that the flows go through, one a line as `ovs-ofctl add-meter` takes them
    #[arg(long, value_name = "FILE")]
    meters: Option<String>,
    /// How long to measure
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    seconds: Duration,
    /// How long to run before that, so that caches and connections are there
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    warmup: Duration,
    /// CPU to run on; the last one that this process may use if not given
    #[arg(long, value_name = "NUMBER")]
    cpu: Option<usize>,
}

/// Seconds of the command line: 0 to a day, with a fraction if wanted.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds is wanted".to_owned())?;
    if (0.0..=86_400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("it may be 0 to 86400 seconds".to_owned())
    }
}

/// Runs a verb.
pub(crate) fn run(verb: Verb, out: &mut Output) -> Result<Exit, Failure> {
    match verb {
        Verb::Replay(args) => replay(&args, out),
    }
}

fn replay(args: &ReplayArgs, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    if args.seconds < Duration::from_millis(10) {
        return Err(Failure::usage("--seconds is too short to measure anything").next("--seconds 5"));
    }
    let frames = Recording::load("in", &args.pcap).map_err(|e| Failure::usage(format!("{e}")))?;
    let count = frames.len();
    if count == 0 {
        return Err(Failure::usage(format!("{} has no frames", args.pcap.display())));
    }
    let failed = |e: ControlError| Failure::new(format!("cannot start the data path: {e}"));
    let replay = Replay::start(args.cpu.or_else(last_cpu)).map_err(failed)?;
    fill(&replay, args)?;
    replay.begin(frames).map_err(failed)?;
    replay.measure(args.warmup);
    let measured = replay.measure(args.seconds);
    replay.shutdown();
    let answer = Answer::new(count, &measured);
    if format == Format::Json {
        out.json(&answer)?;
    } else {
        out.table(&table(&answer))?;
    }
    if answer.forwarded_packets > 0 {
        return Ok(Exit::Yes);
    }
    out.talk("no frame was forwarded; flows that forward match in_port=1 and send to port 2")?;
    Ok(Exit::No)
}

/// Puts the flows into the bridge.
fn fill(replay: &Replay, args: &ReplayArgs) -> Result<(), Failure> {
    let files = Files { flows: &args.flows, groups: args.groups.as_deref(), meters: args.meters.as_deref() };
    let changes = files.changes(&Names::new())?;
    let edited = replay.datapath().edit(BRIDGE, |bridge, now| {
        let mut made = Made::default();
        for change in &changes {
            made.add(bridge.apply(&change.change, now).map_err(|error| Refused::File(change.refused(&error)))?);
        }
        Ok(made)
    });
    edited.map(drop).map_err(|error| match error {
        Refused::File(failure) => failure,
        Refused::Switch(error) => Failure::new(format!("cannot make the flows: {error}")),
    })
}

/// Why flows were not made.
enum Refused {
    File(Failure),
    Switch(ControlError),
}

impl From<ControlError> for Refused {
    fn from(error: ControlError) -> Self {
        Self::Switch(error)
    }
}

/// The last CPU that this process may use: the first is where most interrupts are.
fn last_cpu() -> Option<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).ok()?;
    (0..CpuSet::count()).rev().find(|&cpu| allowed.is_set(cpu).unwrap_or(false))
}

#[derive(Serialize)]
struct Answer {
    /// Frames of the capture file.
    frames: usize,
    seconds: f64,
    packets: u64,
    packets_per_second: f64,
    /// Where others used the CPU too, this is what the worker did while it was on it.
    packets_per_cpu_second: Option<f64>,
    cycles_per_packet: Option<f64>,
    tsc_hz: Option<f64>,
    forwarded_packets: u64,
    dropped_packets: u64,
    drops: BTreeMap<&'static str, u64>,
    /// Shares of the packets by who answered, 0 to 1.
    shares: Shares,
    /// Passes behind the first for each packet.
    passes_per_packet: f64,
}

#[derive(Serialize)]
struct Shares {
    exact: f64,
    megaflow: f64,
    /// Of the two above, those by an entry of a connection, which takes no other pass.
    connection: f64,
    miss: f64,
    stale: f64,
}

impl Answer {
    fn new(frames: usize, measured: &Measured) -> Self {
        let drops: BTreeMap<_, _> = measured.dropped().into_iter().map(|(reason, n)| (reason.name(), n)).collect();
        Self {
            frames,
            seconds: measured.wall().as_secs_f64(),
            packets: measured.packets(),
            packets_per_second: measured.packets_per_second(),
            packets_per_cpu_second: measured.packets_per_cpu_second(),
            cycles_per_packet: measured.cycles_per_packet(),
            tsc_hz: measured.tsc_hz(),
            forwarded_packets: measured.forwarded(),
            dropped_packets: drops.values().sum(),
            drops,
            shares: Shares {
                exact: measured.share(|s| s.cache.exact_hits),
                megaflow: measured.share(|s| s.cache.megaflow_hits),
                connection: measured.share(|s| s.cache.connection_hits),
                miss: measured.share(|s| s.cache.misses),
                stale: measured.share(|s| s.cache.stale),
            },
            passes_per_packet: measured.share(|s| s.cache.pass_hits + s.cache.pass_misses),
        }
    }
}

fn table(answer: &Answer) -> Table {
    let mut table = Table::new([Cell::from("FIGURE"), Cell::right("VALUE")]);
    let mut row = |name: &str, value: String| table.row([Cell::from(name), Cell::right(value)]);
    let millions = |rate: f64| format!("{:.2} M", rate / 1e6);
    let percent = |share: f64| format!("{:.2} %", share * 100.0);
    let unknown = || "unknown".to_owned();
    row("packets/s", millions(answer.packets_per_second));
    row("packets/s of CPU time", answer.packets_per_cpu_second.map_or_else(unknown, millions));
    row("cycles/packet", answer.cycles_per_packet.map_or_else(unknown, |cycles| format!("{cycles:.1}")));
    row("packets", answer.packets.to_string());
    row("forwarded", answer.forwarded_packets.to_string());
    for (reason, packets) in &answer.drops {
        row(&format!("dropped, {reason}"), packets.to_string());
    }
    let Shares { exact, megaflow, connection, miss, stale } = answer.shares;
    row("exact cache", percent(exact));
    row("megaflow cache", percent(megaflow));
    row("  of these, connections", percent(connection));
    row("translated", percent(miss));
    row("translated, out of date", percent(stale));
    row("other passes/packet", format!("{:.2}", answer.passes_per_packet));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_may_have_a_fraction_and_have_bounds() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for wrong in ["-1", "86401", "NaN", "inf", "five", ""] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
