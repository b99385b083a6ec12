//! `sluice lab inspect` and `sluice lab ls`: what runs.

use super::runtime::Runtime;
use super::state::{Attachment, Lab, Life, Phase, State};
use super::{Target, view, wiring};
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use clap::Args;
use serde::Serialize;

/// Arguments of `sluice lab inspect`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice lab inspect
  sluice lab inspect office -o wide     with what each host is made of
  sluice lab inspect -o json            everything, for a program")]
pub(crate) struct Inspect {
    /// The lab; may be left out when one is running
    #[arg(conflicts_with = "lab")]
    name: Option<String>,
    #[command(flatten)]
    target: Target,
}

/// Arguments of `sluice lab ls`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  sluice lab ls -o json")]
pub(crate) struct Ls {}

/// Shows a lab.
pub(crate) fn inspect(args: &Inspect, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Wide, Format::Json])?;
    let wanted = args.name.as_deref().or(args.target.lab.as_deref());
    let (_, state) = super::joined(wanted)?;
    match format {
        Format::Json => out.json(&Inspected { uptime_s: state.age_s(), state: &state })?,
        format => {
            let size = view::size(&state.topology);
            let mode = if state.rootless { "   rootless" } else { "" };
            let seed = state.topology.seed;
            out.line(format!("{}: up for {}   {size}   seed {seed}{mode}", state.topology.name, age(state.age_s())))?;
            view::tables(&state.topology, out)?;
            if format == Format::Wide {
                wide(&state, out)?;
            }
        }
    }
    Ok(Exit::Yes)
}

#[derive(Serialize)]
struct Inspected<'a> {
    uptime_s: u64,
    #[serde(flatten)]
    state: &'a State,
}

fn wide(state: &State, out: &mut Output) -> Result<(), Failure> {
    let mut table = Table::new(["HOST", "NAMESPACE", "ATTACHED BY", "MTU"]);
    let attached = match state.attachment {
        Attachment::Tap => "tap",
        Attachment::Veth => "veth",
        Attachment::AfXdp => "af-xdp",
    };
    for (host, namespace) in wiring::namespaces(&state.topology).iter().zip(&state.namespaces) {
        let mtu: Vec<_> = host.interfaces.iter().map(|i| i.mtu.to_string()).collect();
        table.row([host.name.as_str(), &format!("net:[{}]", namespace.inode), attached, &mtu.join(",")]);
    }
    out.line("")?;
    out.table(&table)?;
    out.line("")?;
    out.line(format!("from        {}", state.topology.source))?;
    out.line(format!("supervisor  process {}", state.supervisor.pid))?;
    out.line(format!("socket      {}", state.socket.display()))?;
    let log = state.folder().join("supervisor.log");
    out.line(format!("log         {}", log.display()))?;
    Ok(())
}

#[derive(Serialize)]
struct Listed {
    labs: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    state: &'static str,
    hosts: Option<usize>,
    switches: Option<usize>,
    links: Option<usize>,
    uptime_s: Option<u64>,
    pid: Option<i32>,
    source: Option<String>,
}

impl From<Lab> for Entry {
    fn from(lab: Lab) -> Self {
        let state = match (lab.life, lab.state.as_ref().map(|s| s.phase)) {
            (Life::Alive, Some(Phase::Running)) => "running",
            (Life::Alive, _) => "starting",
            (Life::Dead, _) => "dead",
            (Life::Elsewhere, _) => "elsewhere",
        };
        let topology = lab.state.as_ref().map(|s| &s.topology);
        Self {
            state,
            hosts: topology.map(|t| t.hosts.len()),
            switches: topology.map(|t| t.switches.len()),
            links: topology.map(|t| t.links.len()),
            uptime_s: lab.state.as_ref().filter(|_| lab.life == Life::Alive).map(State::age_s),
            pid: lab.state.as_ref().map(|s| s.supervisor.pid),
            source: topology.map(|t| t.source.clone()),
            name: lab.name,
        }
    }
}

/// Lists labs, running and dead.
pub(crate) fn list(_args: &Ls, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let labs: Vec<Entry> = Lab::all(&Runtime::of_user())?.into_iter().map(Entry::from).collect();
    if format == Format::Json {
        out.json(&Listed { labs })?;
        return Ok(Exit::Yes);
    }
    if labs.is_empty() {
        out.talk("no labs; start one with: sluice lab up --topo single,2")?;
        return Ok(Exit::Yes);
    }
    let mut table = Table::new([
        Cell::from("NAME"),
        Cell::from("STATE"),
        Cell::right("HOSTS"),
        Cell::right("SWITCHES"),
        Cell::right("LINKS"),
        Cell::right("UP"),
        Cell::right("PID"),
        Cell::from("FROM"),
    ]);
    let dead = labs.iter().filter(|lab| lab.state == "dead").count();
    for lab in labs {
        let tone = match lab.state {
            "running" => Tone::Good,
            "dead" => Tone::Bad,
            _ => Tone::Warn,
        };
        let number = |n: Option<usize>| Cell::right(n.map_or("-".to_owned(), |n| n.to_string()));
        table.row([
            Cell::from(lab.name),
            Cell::from(lab.state).tone(tone),
            number(lab.hosts),
            number(lab.switches),
            number(lab.links),
            Cell::right(lab.uptime_s.map_or("-".to_owned(), age)),
            Cell::right(lab.pid.map_or("-".to_owned(), |pid| pid.to_string())),
            Cell::from(lab.source.unwrap_or_else(|| "-".to_owned())),
        ]);
    }
    out.table(&table)?;
    if dead > 0 {
        out.talk("next: sluice lab gc")?;
    }
    Ok(Exit::Yes)
}

/// Seconds as a person says them: `42s`, `7m3s`, `3h12m`, `2d4h`.
pub(super) fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        assert_eq!([0, 61, 3720, 100_000].map(age), ["0s", "1m1s", "1h2m", "1d3h"]);
    }
}
