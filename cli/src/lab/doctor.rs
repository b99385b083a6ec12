//! `sluice lab doctor`: what keeps this machine from having labs, or good ones, and what to do about it.

mod examine;

use super::runtime::Runtime;
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use clap::Args;
pub(super) use examine::{VERB, examine};
use nix::sys::resource::{Resource, getrlimit};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Name of the lab for which the runtime folder is tried: as long as names are at most.
const LONGEST_NAME: &str = "xxxxxxxxxxxxxxxxxxxx";
/// Files that a lab opens for itself and for each host, rounded up from those of labs of 2 and of 100 hosts.
const FILES_OF_LAB: u64 = 64;
const FILES_OF_HOST: u64 = 4;
/// Hosts for which the limits should be enough.
const HOSTS: u64 = 200;
/// Bytes that a lab of so many hosts takes, rounded up.
const MEMORY: u64 = 256 << 20;
/// Entries of the kernel's table of neighbours for some 30 hosts that all talk with each other.
const NEIGHBOURS: u64 = 1024;

/// Arguments of `sluice lab doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice lab doctor
  sluice lab doctor -o json

Namespaces and interfaces are made for a moment, to see that it works, and are gone again. Exit code
5 if no lab can be made here.")]
pub(crate) struct Doctor {}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    /// Labs work, but not as well or as large as they could.
    Warn,
    /// No lab can be made.
    Bad,
}

/// Something that a lab needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Check {
    name: String,
    state: State,
    /// How it is.
    said: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Check {
    fn ok(name: &str, said: impl Into<String>) -> Self {
        Self { name: name.to_owned(), state: State::Ok, said: said.into(), fix: None }
    }

    fn not(state: State, name: &str, said: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name: name.to_owned(), state, said: said.into(), fix: Some(fix.into()) }
    }
}

/// Looks at the machine.
pub(crate) fn run(_args: &Doctor, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let mut checks = examine::in_child()?;
    checks.extend([folder(), files(), memory(), neighbours()]);
    let usable = checks.iter().all(|check| check.state != State::Bad);
    match format {
        Format::Json => out.json(&json!({"usable": usable, "checks": checks}))?,
        _ => {
            out.table(&table(&checks))?;
            for check in &checks {
                if let Some(fix) = &check.fix {
                    out.line(format!("fix for {}: {fix}", check.name))?;
                }
            }
            out.line(if usable { "labs can be made here" } else { "no lab can be made here" })?;
        }
    }
    Ok(if usable { Exit::Yes } else { Exit::Unhealthy })
}

fn table(checks: &[Check]) -> Table {
    let mut table = Table::default();
    for check in checks {
        let word = match check.state {
            State::Ok => Cell::from("ok").tone(Tone::Good),
            State::Warn => Cell::from("warn").tone(Tone::Warn),
            State::Bad => Cell::from("bad").tone(Tone::Bad),
        };
        table.row([word, Cell::from(check.name.as_str()), Cell::from(check.said.as_str())]);
    }
    table
}

/// The folder that keeps running labs.
fn folder() -> Check {
    const NAME: &str = "runtime folder";
    let runtime = Runtime::of_user();
    match runtime.create(LONGEST_NAME) {
        Ok(()) => Check::ok(NAME, runtime.path().display().to_string()),
        Err(failure) => Check::not(State::Bad, NAME, failure.what(), failure.next_step()),
    }
}

fn files() -> Check {
    const NAME: &str = "open files";
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, most)) => room(NAME, most.saturating_sub(FILES_OF_LAB) / FILES_OF_HOST, most),
        Err(errno) => Check::not(State::Warn, NAME, errno.to_string(), "ulimit -Hn"),
    }
}

/// Room for so many hosts, by a limit.
fn room(name: &str, hosts: u64, limit: u64) -> Check {
    let said = format!("at most {limit}, enough for {hosts} hosts");
    match hosts {
        0..2 => Check::not(State::Bad, name, said, "ulimit -Hn 65536, as root"),
        2..HOSTS => Check::not(State::Warn, name, said, "ulimit -Hn 65536, as root"),
        _ => Check::ok(name, format!("at most {limit}")),
    }
}

/// What the control groups that this process is in leave of memory, or the machine.
fn memory() -> Check {
    const NAME: &str = "memory";
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let group = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let group = group.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default().to_owned();
    let folders = Path::new(&group).ancestors().map(|folder| PathBuf::from("/sys/fs/cgroup").join(folder));
    let left = folders.filter_map(|folder| {
        let number = |file: &str| read(&folder.join(file))?.trim().parse::<u64>().ok();
        let most = number("memory.max")?;
        Some((most.saturating_sub(number("memory.current").unwrap_or(0)), folder.join("memory.max")))
    });
    let available = read(Path::new("/proc/meminfo")).and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    });
    let machine = available.map(|kilobytes| (kilobytes << 10, PathBuf::from("/proc/meminfo")));
    match left.chain(machine).min() {
        Some((left, by)) if left < MEMORY => Check::not(
            State::Warn,
            NAME,
            format!("{} MiB are left ({}); {HOSTS} hosts take up to {}", left >> 20, by.display(), MEMORY >> 20),
            format!("end other programs, or raise the limit that {} says", by.display()),
        ),
        Some((left, _)) => Check::ok(NAME, format!("{} MiB are left", left >> 20)),
        None => Check::ok(NAME, "no limit is known"),
    }
}

/// The kernel's table of neighbours, which all namespaces share.
fn neighbours() -> Check {
    const NAME: &str = "neighbours";
    let limit = |version: &str| -> Option<u64> {
        let path = format!("/proc/sys/net/{version}/neigh/default/gc_thresh3");
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    let Some(most) = ["ipv4", "ipv6"].into_iter().filter_map(limit).min() else {
        return Check::ok(NAME, "the kernel tells no limit here");
    };
    let said = format!("the kernel has room for {most}, as for all namespaces together");
    if most < NEIGHBOURS {
        let fix = "sudo sysctl -w net.ipv4.neigh.default.gc_thresh3=8192 net.ipv6.neigh.default.gc_thresh3=8192";
        return Check::not(State::Warn, NAME, said, fix);
    }
    Check::ok(NAME, said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_files_is_told_in_hosts() {
        let states = [60, 70, 500, 100_000]
            .map(|most: u64| room("open files", most.saturating_sub(FILES_OF_LAB) / FILES_OF_HOST, most).state);
        assert_eq!(states, [State::Bad, State::Bad, State::Warn, State::Ok]);
    }
}
