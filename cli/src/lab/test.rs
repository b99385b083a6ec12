//! `sluice lab test`: the tests of a lab's file.
//!
//! All tests run at once, one thread for each, in the network namespace of the host that asks. What is not answered is
//! traced, by what `sluice trace` uses, so that the answer says whose rule dropped it.

mod junit;
mod probe;
mod verdict;

use super::enter::{Door, enter_network};
use super::runtime::Runtime;
use super::state::{Lab, State};
use super::topology::Topology;
use super::topology::nearest;
use super::topology::resolved::test::{Probe, Target as Asked, Test as Wanted, Want};
use crate::client::Client;
use crate::cmd::trace::{Fate, Sent, decide};
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use clap::Args;
use probe::Observed;
use serde::Serialize;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};
use verdict::Verdict;

/// Tests that run at one time.
const AT_ONCE: usize = 64;
/// How long to wait for an answer on links without delay.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest time to wait for an answer.
const PATIENCE_MAX: Duration = Duration::from_secs(60);
/// From one attempt at a test that has time to the next.
const AGAIN: Duration = Duration::from_millis(100);
/// Packets that cross the lab, both ways, until a first answer is there: two ask for MAC addresses, one is the answer.
const CROSSINGS: u32 = 3;

/// Arguments of `sluice lab test`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice lab test                       every test of the running lab's file
  sluice lab test -t routed -t blocked  these two
  sluice lab test --junit report.xml    also for a CI system

Tests stand in the topology file:
  tests:
    - {name: near, ping: [h1, h2], rtt: 74..90ms, max_loss: 20%}
    - {name: web, tcp: [h1, \"h2:80\"]}
    - {name: ssh, tcp: [h1, \"h2:22\"], want: drop, by: no-ssh}

Exit code 1 if a test failed.")]
pub(crate) struct Test {
    /// The lab; may be left out when one is running
    #[arg(conflicts_with = "lab")]
    name: Option<String>,
    /// Only the test of this name; may be given several times
    #[arg(short, long = "test", value_name = "NAME")]
    tests: Vec<String>,
    /// Write what came of it to this file as JUnit XML, too
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    #[command(flatten)]
    target: super::Target,
}

#[derive(Serialize)]
struct Report<'a> {
    lab: &'a str,
    seed: u64,
    passed: usize,
    failed: usize,
    tests: &'a [Verdict],
}

/// Runs the tests.
pub(crate) fn run(args: &Test, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let wanted = args.name.as_deref().or(args.target.lab.as_deref());
    let (lab, mut state) = Lab::running(&Runtime::of_user(), wanted)?;
    let tests = chosen(&state.topology, &args.tests)?;
    super::link::refresh(&mut state.topology, state.socket.clone())?;
    let runs = tests.iter().map(|test| Run::new(&state, test)).collect::<Result<Vec<_>, _>>()?;
    // Only the user namespace is joined here; each thread joins its host's network namespace.
    let _door = Door::open(&state)?;
    let seen = observe(&runs, &state.topology)?;
    let client = Client::connect_to(state.socket.clone())?;
    let mut verdicts = Vec::new();
    for (run, (seen, took)) in runs.iter().zip(seen) {
        let fate = if is_silent(&seen) { fate(&client, &state, run)? } else { None };
        verdicts.push(Verdict::of(&state.topology, run.test, &seen, fate.as_ref(), took));
    }
    let (seed, failed) = (state.topology.seed, verdicts.iter().filter(|verdict| !verdict.passed).count());
    if let Some(path) = &args.junit {
        std::fs::write(path, junit::xml(&lab, seed, &verdicts))
            .map_err(|error| Failure::usage(format!("cannot write {}: {error}", path.display())))?;
    }
    let passed = verdicts.len() - failed;
    match format {
        Format::Json => out.json(&Report { lab: &lab, seed, passed, failed, tests: &verdicts })?,
        _ => {
            out.table(&table(&verdicts))?;
            out.line(format!("{passed} passed, {failed} failed   seed {seed}"))?;
        }
    }
    Ok(if failed == 0 { Exit::Yes } else { Exit::No })
}

/// The tests of these names, in the order of the file; all of them without names.
fn chosen(topology: &Topology, names: &[String]) -> Result<Vec<Wanted>, Failure> {
    if topology.tests.is_empty() {
        return Err(Failure::usage(format!("the lab {} has no tests", topology.name))
            .why(format!("{} has no `tests:`", topology.source))
            .next("sluice lab test --help shows some; or sluice lab ping"));
    }
    if let Some(unknown) = names.iter().find(|name| topology.tests.iter().all(|test| test.name != **name)) {
        let near = nearest(unknown, topology.tests.iter().map(|test| test.name.as_str()));
        return Err(Failure::usage(format!("the lab {} has no test named {unknown}{near}", topology.name)));
    }
    let is_chosen = |test: &&Wanted| names.is_empty() || names.contains(&test.name);
    Ok(topology.tests.iter().filter(is_chosen).cloned().collect())
}

/// A test with what it needs.
struct Run<'a> {
    test: &'a Wanted,
    to: IpAddr,
    namespace: OwnedFd,
}

impl<'a> Run<'a> {
    fn new(state: &State, test: &'a Wanted) -> Result<Self, Failure> {
        let to = address(&state.topology, test).ok_or_else(|| {
            Failure::usage(format!(
                "the test {}: {} and {} have no addresses of one IP version",
                test.name, test.from, test.to
            ))
        })?;
        Ok(Self { test, to, namespace: state.open_namespace(&test.from)? })
    }

    /// Runs it in the calling thread, which is in the host's namespace afterwards; again and again if it has the time.
    fn observe(&self, topology: &Topology, patience: Duration) -> io::Result<(Observed, Duration)> {
        enter_network(&self.namespace)?;
        let begin = Instant::now();
        loop {
            let seen = self.observe_once(patience)?;
            let took = begin.elapsed();
            let passed = || Verdict::of(topology, self.test, &seen, None, took).passed;
            if self.test.within.is_none_or(|within| took >= within) || passed() {
                return Ok((seen, took));
            }
            thread::sleep(AGAIN);
        }
    }

    fn observe_once(&self, patience: Duration) -> io::Result<Observed> {
        match self.test.probe {
            Probe::Ping { .. } => probe::ping(self.to, patience),
            Probe::Tcp { port } => probe::connect(SocketAddr::new(self.to, port), patience, self.test.want == Want::Ok),
        }
    }
}

/// The address that a test asks: one of the other host's first interface, of IPv4 if both have one.
fn address(topology: &Topology, test: &Wanted) -> Option<IpAddr> {
    let host = match &test.to {
        Asked::Address(ip) => return Some(*ip),
        Asked::Host(host) => host,
    };
    let of = |host: &str, v4: bool| {
        let first = topology.host(host)?.interfaces.first()?;
        first.addresses.iter().map(|net| net.addr()).find(|ip| ip.is_ipv4() == v4)
    };
    [true, false].into_iter().find_map(|v4| of(&test.from, v4).and_then(|_| of(host, v4)))
}

/// How long to wait for an answer: longer where links have delays.
fn patience(topology: &Topology) -> Duration {
    let ways = topology.links.iter().flat_map(|link| link.impairment);
    let once: Duration = ways.map(|way| way.delay + way.jitter).sum();
    (PATIENCE + once * CROSSINGS).min(PATIENCE_MAX)
}

fn observe(runs: &[Run<'_>], topology: &Topology) -> Result<Vec<(Observed, Duration)>, Failure> {
    let patience = patience(topology);
    let mut seen = Vec::new();
    for some in runs.chunks(AT_ONCE) {
        let results: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = some.iter().map(|run| scope.spawn(move || run.observe(topology, patience))).collect();
            threads.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        for (run, result) in some.iter().zip(results) {
            seen.push(result.map_err(|error| Failure::new(format!("cannot run the test {}: {error}", run.test.name)))?);
        }
    }
    Ok(seen)
}

fn is_silent(seen: &Observed) -> bool {
    match seen {
        Observed::Ping { rtts, .. } => rtts.is_empty(),
        Observed::Silent { .. } => true,
        Observed::Connected(_) | Observed::Refused(_) => false,
    }
}

/// What a trace says of the packet; nothing where it is for an address that no host has first.
fn fate(client: &Client, state: &State, Run { test, to: asked, .. }: &Run<'_>) -> Result<Option<Fate>, Failure> {
    let to = match &test.to {
        Asked::Host(host) => host.as_str(),
        Asked::Address(ip) => {
            let has_it = |host: &&super::topology::resolved::Host| {
                host.interfaces.first().is_some_and(|first| first.addresses.iter().any(|net| net.addr() == *ip))
            };
            let Some(host) = state.topology.hosts.iter().find(has_it) else { return Ok(None) };
            host.name.as_str()
        }
    };
    let port = if let Probe::Tcp { port } = test.probe { Some(port) } else { None };
    decide(client, state, Sent { from: &test.from, to, v6: asked.is_ipv6(), port }).map(Some)
}

fn table(verdicts: &[Verdict]) -> Table {
    let mut table = Table::default();
    for (index, verdict) in verdicts.iter().enumerate() {
        let (word, tone) = if verdict.passed { ("ok", Tone::Good) } else { ("not ok", Tone::Bad) };
        table.row([
            Cell::from(format!("{word} {} {}", index + 1, verdict.name)).tone(tone),
            Cell::from(format!("{} -> {}", verdict.from, verdict.to)),
            Cell::from(verdict.kind),
            Cell::from(verdict.said.as_str()),
        ]);
    }
    table
}
