//! `sluice lab exec` and `sluice lab sh`: commands inside hosts.

use super::enter::{self, Door};
use super::state::State;
use super::{Target, known_namespace};
use crate::failure::Failure;
use crate::output::Exit;
use clap::Args;
use nix::sys::signal::{SigSet, Signal};
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{ExitStatus, Stdio};
use std::sync::Mutex;
use std::thread;

/// The name that stands for every host.
pub(super) const ALL: &str = "all";

/// Arguments of `sluice lab exec`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice lab exec h1 -- ip route
  sluice lab exec h2 -- iperf3 -s
  sluice lab exec all -- cat /sys/class/net/eth0/address    every line with its host's name in front

The exit code is the command's; of several, the first that is not 0.")]
pub(crate) struct Exec {
    /// The host, or `all`; or a switch at which a routed link ends
    host: String,
    #[command(flatten)]
    target: Target,
    /// The command
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Arguments of `sluice lab sh`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  sluice lab sh h1     the shell is $SHELL, or /bin/sh; leave it with `exit`")]
pub(crate) struct Sh {
    /// The host
    host: String,
    #[command(flatten)]
    target: Target,
}

/// Runs a command in one host or in all of them.
pub(crate) fn run(args: &Exec) -> Result<Exit, Failure> {
    let (_, state) = super::joined(args.target.lab.as_deref())?;
    if args.host == ALL { run_all(&state, &args.command) } else { run_one(&state, &args.host, &args.command) }
}

/// Runs a shell in a host.
pub(crate) fn shell(args: &Sh) -> Result<Exit, Failure> {
    let (_, state) = super::joined(args.target.lab.as_deref())?;
    let shell = std::env::var_os("SHELL").filter(|s| !s.is_empty()).unwrap_or_else(|| OsString::from("/bin/sh"));
    run_one(&state, &args.host, &[shell])
}

fn run_one(state: &State, host: &str, command: &[OsString]) -> Result<Exit, Failure> {
    known_namespace(state, host)?;
    let namespace = state.open_namespace(host)?;
    let failed = |error: io::Error| Failure::new(format!("cannot run a command in {host}: {error}"));
    Door::open(state)?.enter(namespace).map_err(failed)?;
    // The terminal's keys go to the command, which shares our process group and clears the mask; we only wait.
    let keys = SigSet::from_iter([Signal::SIGINT, Signal::SIGQUIT]);
    keys.thread_block().map_err(|errno| failed(errno.into()))?;
    let status = enter::inside(state, host, command).status().map_err(failed)?;
    Ok(enter::exit(status))
}

/// Runs the command in every host at once.
///
/// A thread that has entered a PID namespace can start no thread any more, so all threads are started first: for each
/// host one that enters and starts the command, and two that pass its output on.
fn run_all(state: &State, command: &[OsString]) -> Result<Exit, Failure> {
    let failed = |error: io::Error| Failure::new(format!("cannot run a command in every host: {error}"));
    let hosts = state.topology.hosts.iter().map(|h| h.name.as_str());
    let hosts: Vec<_> = hosts.filter(|name| state.is_there(name)).collect();
    let namespaces = hosts.iter().map(|h| state.open_namespace(h)).collect::<Result<Vec<_>, _>>()?;
    let door = Door::open(state)?;
    let (stdout, stderr) = (Mutex::new(io::stdout()), Mutex::new(io::stderr()));
    let mut pipes = Vec::new();
    for _ in &hosts {
        pipes.push((io::pipe().map_err(failed)?, io::pipe().map_err(failed)?));
    }
    let statuses: Vec<_> = thread::scope(|scope| {
        let mut threads = Vec::new();
        for ((host, namespace), (out, err)) in hosts.iter().copied().zip(namespaces).zip(pipes) {
            let (door, stdout, stderr) = (&door, &stdout, &stderr);
            scope.spawn(move || pass_on(host, out.0, stdout));
            scope.spawn(move || pass_on(host, err.0, stderr));
            threads.push(scope.spawn(move || -> io::Result<ExitStatus> {
                door.enter(namespace)?;
                enter::inside(state, host, command).stdin(Stdio::null()).stdout(out.1).stderr(err.1).status()
            }));
        }
        threads.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let mut first = Exit::Yes;
    for (host, status) in hosts.iter().zip(statuses) {
        let status = status.map_err(|error| Failure::new(format!("cannot run a command in {host}: {error}")))?;
        if first.code() == 0 {
            first = enter::exit(status);
        }
    }
    Ok(first)
}

/// Copies lines, each with the host's name in front.
fn pass_on(host: &str, from: impl Read, to: &Mutex<impl Write>) {
    let mut lines = BufReader::new(from);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let newline: &[u8] = if line.ends_with(b"\n") { b"" } else { b"\n" };
        let whole = [host.as_bytes(), b": ", &line, newline].concat();
        let written = match to.lock() {
            Ok(mut to) => to.write_all(&whole),
            Err(poisoned) => poisoned.into_inner().write_all(&whole),
        };
        // Nobody reads any more; the command finds out by its closed pipe.
        if written.is_err() {
            return;
        }
        line.clear();
    }
}
