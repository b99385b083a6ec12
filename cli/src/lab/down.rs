//! `sluice lab down` and `sluice lab gc`: taking labs away.

use super::runtime::Runtime;
use super::state::{Identity, Lab, Life};
use super::view::counted;
use crate::failure::Failure;
use crate::output::{Exit, Format, Output};
use clap::Args;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Signal, pidfd_send_signal};
use serde::Serialize;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// How long a supervisor may take to end before it is killed, in milliseconds.
const PATIENCE_MS: u16 = 5_000;

/// Arguments of `sluice lab down`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice lab down            the only lab that runs
  sluice lab down office
  sluice lab down --all")]
pub(crate) struct Down {
    /// The lab; may be left out when one is running
    #[arg(conflicts_with = "all")]
    name: Option<String>,
    /// The lab, as every other verb of the lab takes it
    #[arg(long, value_name = "NAME", conflicts_with_all = ["name", "all"])]
    lab: Option<String>,
    /// Every lab of this user
    #[arg(long)]
    all: bool,
}

/// Arguments of `sluice lab gc`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice lab gc
  sluice lab gc --dry-run     say what would be removed")]
pub(crate) struct Gc {
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Removed {
    removed: Vec<String>,
}

/// Takes a lab down and waits until it is gone.
pub(crate) fn down(args: &Down, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let runtime = Runtime::of_user();
    let labs = if args.all {
        Lab::all(&runtime)?.into_iter().filter(|lab| lab.life != Life::Elsewhere).collect()
    } else {
        vec![wanted(&runtime, args.name.as_deref().or(args.lab.as_deref()))?]
    };
    let mut removed = Vec::new();
    for lab in labs {
        let _lock = runtime.lock()?;
        if let Some(supervisor) = lab.state.as_ref().map(|s| &s.supervisor) {
            end(&lab.name, supervisor)?;
        }
        runtime.remove(&lab.name)?;
        if format == Format::Table {
            let size = lab.state.as_ref().map_or("a lab that was not whole".to_owned(), |state| {
                let t = &state.topology;
                let namespaces = t.hosts.len() + t.stacks().len() + t.dhcp.len();
                let always = [(namespaces, "namespace"), (t.links.len(), "link"), (t.switches.len(), "switch")];
                let sometimes = [(t.routers.len(), "router"), (t.tunnels.len(), "tunnel")];
                let parts = always.into_iter().chain(sometimes.into_iter().filter(|(count, _)| *count > 0));
                parts.map(|(count, what)| counted(count, what)).collect::<Vec<_>>().join(", ")
            });
            out.line(format!("{}: removed {size}; nothing left behind", lab.name))?;
        }
        removed.push(lab.name);
    }
    if format == Format::Json {
        out.json(&Removed { removed })?;
    } else if removed.is_empty() {
        out.talk("no labs")?;
    }
    Ok(Exit::Yes)
}

fn wanted(runtime: &Runtime, name: Option<&str>) -> Result<Lab, Failure> {
    let name = match name {
        Some(name) => name.to_owned(),
        None => Lab::running(runtime, None)?.0,
    };
    let lab = Lab::find(runtime, &name);
    let lab = lab.ok_or_else(|| {
        Failure::new(format!("there is no lab named {name}")).exit(Exit::NoDaemon).next("sluice lab ls")
    })?;
    match lab.life {
        Life::Elsewhere => Err(Failure::new(format!("the lab {name} belongs to another PID namespace"))
            .why("it was started in another container, or outside of this one")
            .next("take it down there")),
        _ => Ok(lab),
    }
}

/// Ends a supervisor and waits until the kernel has ended everything in its PID namespace.
fn end(lab: &str, supervisor: &Identity) -> Result<(), Failure> {
    let failed = |what: &str, error: io::Error| {
        Failure::new(format!("cannot {what} the supervisor of {lab} (process {}): {error}", supervisor.pid))
    };
    let Some(process) = supervisor.open().map_err(|error| failed("find", error))? else { return Ok(()) };
    for signal in [Signal::TERM, Signal::KILL] {
        match pidfd_send_signal(&process, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(failed("end", error.into())),
        }
        if ended(&process).map_err(|error| failed("wait for", error))? {
            return Ok(());
        }
    }
    Err(failed("end", io::ErrorKind::TimedOut.into()))
}

/// Waits until a process has ended, at most [`PATIENCE_MS`]. The first process of a PID namespace ends after all others.
fn ended(process: &OwnedFd) -> io::Result<bool> {
    loop {
        let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(PATIENCE_MS)) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Whether nothing of a lab runs by now.
fn is_dead(lab: &Lab) -> bool {
    lab.state.as_ref().map_or(lab.life, |state| state.supervisor.life()) == Life::Dead
}

/// Waits for the end of a supervisor that has just been killed: it is there until the kernel is done with what it held.
fn wait_if_ending(lab: &Lab) {
    let Some(supervisor) = lab.state.as_ref().map(|s| &s.supervisor).filter(|s| s.is_ending()) else { return };
    // One that does not end in time is found another time.
    if let Ok(Some(process)) = supervisor.open() {
        _ = ended(&process);
    }
}

/// Removes what dead supervisors left: their folders, because everything else died with them.
pub(crate) fn gc(args: &Gc, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let runtime = Runtime::of_user();
    let mut removed = Vec::new();
    if runtime.path().exists() {
        let _lock = runtime.lock()?;
        let labs = Lab::all(&runtime)?;
        labs.iter().filter(|lab| lab.life == Life::Alive).for_each(wait_if_ending);
        for lab in labs.into_iter().filter(is_dead) {
            if !args.dry_run {
                runtime.remove(&lab.name)?;
            }
            if format == Format::Table {
                let pid = lab.state.map_or(String::new(), |s| format!(" (process {})", s.supervisor.pid));
                let did = if args.dry_run { "its folder would be removed" } else { "its folder is removed" };
                let text = "is gone and the kernel took back its namespaces with it";
                out.line(format!("{}: the supervisor{pid} {text}; {did}", lab.name))?;
            }
            removed.push(lab.name);
        }
    }
    if format == Format::Json {
        out.json(&Removed { removed })?;
    } else if removed.is_empty() {
        out.talk("nothing to clean up")?;
    }
    Ok(Exit::Yes)
}
