//! `sluice lab logs`: what the command of a host has written.

use super::run::log;
use super::runtime::Runtime;
use super::state::{Lab, Life, State};
use crate::failure::Failure;
use crate::output::{Exit, Format, Output};
use clap::Args;
use serde_json::json;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::thread::sleep;
use std::time::Duration;

/// From one look at a file that is followed to the next.
const EVERY: Duration = Duration::from_millis(100);

/// Arguments of `sluice lab logs`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice lab logs web
  sluice lab logs web -f     and what it writes from now on, until the lab ends

A host has a command if its file says so: hosts: {web: {run: \"sluice lab serve 80\"}}")]
pub(crate) struct Logs {
    /// The host
    #[arg(value_name = "NODE")]
    host: String,
    /// Go on with what is written from now on
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    target: super::Target,
}

/// Prints the log of a host.
pub(crate) fn run(args: &Logs, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let runtime = Runtime::of_user();
    let (lab, state) = Lab::running(&runtime, args.target.lab.as_deref())?;
    known_command(&state, &args.host)?;
    let path = log(&runtime.lab(&lab), &args.host);
    let failed = |error| Failure::new(format!("cannot read {}: {error}", path.display()));
    let mut file = BufReader::new(File::open(&path).map_err(failed)?);
    if !args.follow && format == Format::Json {
        let lines = lines(&mut file, &mut Vec::new(), true).map_err(failed)?;
        out.json(&json!({"lab": lab, "node": args.host, "lines": lines}))?;
        return Ok(Exit::Yes);
    }
    let mut rest = Vec::new();
    loop {
        // Asked before: what was written last is read after it.
        let over = !args.follow || state.supervisor.life() != Life::Alive;
        for line in lines(&mut file, &mut rest, over).map_err(failed)? {
            match format {
                Format::Json => out.json(&json!({"node": args.host, "line": line}))?,
                _ => out.line(line)?,
            }
        }
        out.flush()?;
        if over {
            return Ok(Exit::Yes);
        }
        sleep(EVERY);
    }
}

fn known_command(state: &State, host: &str) -> Result<(), Failure> {
    super::known_host(state, host)?;
    if state.topology.host(host).is_some_and(|host| host.run.is_some()) {
        return Ok(());
    }
    let with: Vec<_> = state.topology.hosts.iter().filter(|h| h.run.is_some()).map(|h| h.name.as_str()).collect();
    let next = match with.as_slice() {
        [] => format!("hosts: {{{host}: {{run: \"sluice lab serve 80\"}}}} in the topology file"),
        with => format!("one of: {}", with.join(", ")),
    };
    Err(Failure::usage(format!("{host} runs no command")).next(next))
}

/// The lines that are there now. The last one, if it has no end yet, waits in `rest` for it, unless this is `all`.
fn lines(file: &mut impl BufRead, rest: &mut Vec<u8>, all: bool) -> std::io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        file.read_until(b'\n', rest)?;
        if rest.pop_if(|last| *last == b'\n').is_none() {
            if all && !rest.is_empty() {
                lines.push(String::from_utf8_lossy(rest).into_owned());
            }
            return Ok(lines);
        }
        lines.push(String::from_utf8_lossy(rest).into_owned());
        rest.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_told_when_it_is_whole() {
        let mut rest = Vec::new();
        assert_eq!(lines(&mut &b"one\ntw"[..], &mut rest, false).unwrap(), ["one"]);
        assert_eq!(lines(&mut &b"o\n\nthr"[..], &mut rest, false).unwrap(), ["two", ""]);
        assert_eq!(lines(&mut &b"ee"[..], &mut rest, true).unwrap(), ["three"]);
    }
}
