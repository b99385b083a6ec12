//! What runs: the state file that a lab's supervisor writes and every other verb reads.
//!
//! A state file says *which process* it belongs to: process number, the time that process started, and the boot. A
//! process that differs in one of them is not the lab's and is never touched.

use super::runtime::Runtime;
use super::topology::{self, Topology};
use crate::failure::Failure;
use crate::output::Exit;
use clap::ValueEnum;
use nix::sys::stat::fstat;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use sluice_cni::lab::FORMAT;
use sluice_cni::process;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// How far a lab is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Being made.
    Starting,
    /// Ready.
    Running,
}

/// A process, told apart from every other that had or will have its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Process number, as the process that started the lab sees it.
    pub(crate) pid: i32,
    /// When it started, in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub(crate) start_ticks: u64,
    /// Which boot (`/proc/sys/kernel/random/boot_id`).
    pub(crate) boot_id: String,
    /// The PID namespace that the number belongs to, as its inode.
    pub(crate) pid_namespace: u64,
}

/// Whether a process is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Life {
    /// It runs.
    Alive,
    /// It does not.
    Dead,
    /// Its number means something only in another PID namespace (another container, say): it cannot be told from here.
    Elsewhere,
}

impl Identity {
    /// The identity of the process with this number in a PID namespace (see [`pid_namespace`]).
    ///
    /// # Errors
    /// There is none, or `/proc` is not readable.
    pub(crate) fn of(pid: i32, pid_namespace: u64) -> io::Result<Self> {
        let start_ticks = process::stat(pid)?.ticks;
        Ok(Self { pid, start_ticks, boot_id: process::boot_id()?, pid_namespace })
    }

    /// Whether the process runs.
    pub(crate) fn life(&self) -> Life {
        if process::boot_id().is_ok_and(|id| id != self.boot_id) {
            return Life::Dead;
        }
        if pid_namespace().is_ok_and(|inode| inode != self.pid_namespace) {
            return Life::Elsewhere;
        }
        match process::stat(self.pid) {
            Ok(stat) if stat.lives && stat.ticks == self.start_ticks => Life::Alive,
            _ => Life::Dead,
        }
    }

    /// Whether the process has been killed and is not gone yet.
    pub(crate) fn is_ending(&self) -> bool {
        self.life() == Life::Alive
            && (process::stat(self.pid).is_ok_and(|stat| stat.ending) || is_to_be_killed(self.pid))
    }

    /// A descriptor of the process that can never come to mean another one; `None` when it does not run.
    ///
    /// # Errors
    /// The kernel gives no descriptor.
    pub(crate) fn open(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        match pidfd_open(pid, PidfdFlags::empty()) {
            // Compared after opening: from here on the number is held.
            Ok(fd) => Ok((self.life() == Life::Alive).then_some(fd)),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether a process was sent the signal that kills it and has not got round to it: signal 9 is pending.
fn is_to_be_killed(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pending = status.lines().filter_map(|line| line.strip_prefix("SigPnd:").or(line.strip_prefix("ShdPnd:")));
    let masks = pending.filter_map(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    masks.fold(0, |all, mask| all | mask) >> 8 & 1 == 1
}

/// The PID namespace that this process is in, and its numbers in `/proc` belong to, as its inode.
///
/// # Errors
/// `/proc` is not readable.
pub(crate) fn pid_namespace() -> io::Result<u64> {
    Ok(std::fs::metadata("/proc/self/ns/pid")?.ino())
}

/// Where a host's namespace is: a descriptor of the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Namespace {
    /// The host.
    pub(crate) host: String,
    /// Number of the supervisor's descriptor that keeps it.
    pub(crate) fd: i32,
    /// Its inode, to be sure.
    pub(crate) inode: u64,
}

/// What joins a host to its switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Attachment {
    /// A TAP inside the host's namespace
    Tap,
    /// A veth pair with a packet socket at the switch's end
    Veth,
    /// A veth pair with an AF_XDP socket at the switch's end
    AfXdp,
}

/// A running lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    /// Version of this file.
    pub(crate) format: u32,
    /// Version of the program that runs it.
    pub(crate) version: String,
    /// How far it is.
    pub(crate) phase: Phase,
    /// Its supervisor.
    pub(crate) supervisor: Identity,
    /// When it was started, in seconds since 1970.
    pub(crate) started_s: u64,
    /// Whether it runs in a user namespace.
    pub(crate) rootless: bool,
    /// What joins hosts to switches.
    pub(crate) attachment: Attachment,
    /// The control API's socket.
    pub(crate) socket: PathBuf,
    /// Where each host's namespace is, and then each of a switch's; empty while starting.
    pub(crate) namespaces: Vec<Namespace>,
    /// What was made.
    pub(crate) topology: Topology,
    /// The network namespaces of containers that have [joined](super::containers::join).
    #[serde(skip)]
    pub(crate) containers: BTreeMap<String, PathBuf>,
}

impl State {
    /// The state of a lab that is being made by this process.
    pub(crate) fn starting(supervisor: Identity, topology: Topology, socket: PathBuf, rootless: bool) -> Self {
        let started_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            phase: Phase::Starting,
            supervisor,
            started_s,
            rootless,
            attachment: Attachment::Tap,
            socket,
            namespaces: Vec::new(),
            topology,
            containers: BTreeMap::new(),
        }
    }

    /// How long the lab has been up, in seconds.
    pub(crate) fn age_s(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
        now.saturating_sub(self.started_s)
    }

    /// Writes the file whole or not at all.
    ///
    /// # Errors
    /// As the file system says.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        let new = folder.join("state.json.new");
        std::fs::write(&new, serde_json::to_vec(self)?)?;
        std::fs::rename(new, folder.join("state.json"))
    }

    /// The lab's folder.
    pub(crate) fn folder(&self) -> &Path {
        self.socket.parent().unwrap_or(Path::new(""))
    }

    /// Whether a host can be entered: it is no container that has ended without a word to the lab.
    pub(crate) fn is_there(&self, host: &str) -> bool {
        self.containers.get(host).is_none_or(|path| path.exists())
    }

    /// Opens the namespace of a host, through the supervisor that keeps it.
    ///
    /// # Errors
    /// The supervisor has ended meanwhile, or may not be looked into.
    pub(crate) fn open_namespace(&self, host: &str) -> Result<OwnedFd, Failure> {
        if let Some(path) = self.containers.get(host) {
            let opened = std::fs::File::open(path);
            return opened.map(OwnedFd::from).map_err(|error| {
                Failure::new(format!("cannot open the namespace of {host}: {}: {error}", path.display()))
                    .why("its container has ended")
                    .next(format!("sluice lab detach {host}"))
            });
        }
        let unknown = || Failure::new(format!("the lab {} keeps no namespace for {host}", self.topology.name));
        let namespace = self.namespaces.iter().find(|n| n.host == host).ok_or_else(unknown)?;
        let path = format!("/proc/{}/fd/{}", self.supervisor.pid, namespace.fd);
        let failed =
            |why: String| Failure::new(format!("cannot open the namespace of {host}")).why(why).next("sluice lab ls");
        let file = std::fs::File::open(&path).map_err(|error| failed(format!("{path}: {error}")))?;
        match fstat(&file) {
            Ok(stat) if stat.st_ino == namespace.inode => Ok(file.into()),
            _ => Err(failed(format!("{path} is not what the state file says: the lab has ended meanwhile"))),
        }
    }
}

/// A lab's folder and what it says.
#[derive(Debug)]
pub(crate) struct Lab {
    /// The lab's name.
    pub(crate) name: String,
    /// Its state; `None` when there is no readable state file.
    pub(crate) state: Option<State>,
    /// Whether its supervisor runs.
    pub(crate) life: Life,
}

impl Lab {
    /// The lab that has this name, running or dead; `None` when there is no such folder.
    pub(crate) fn find(runtime: &Runtime, name: &str) -> Option<Self> {
        let folder = runtime.lab(name);
        if !topology::is_name(name) || !folder.is_dir() {
            return None;
        }
        let text = std::fs::read(folder.join("state.json")).unwrap_or_default();
        let state: Option<State> = serde_json::from_slice(&text).ok();
        // Another version's file may have another form, but says who it belongs to in the same place.
        let supervisor = state.as_ref().map(|s| s.supervisor.clone()).or_else(|| {
            let value: serde_json::Value = serde_json::from_slice(&text).ok()?;
            serde_json::from_value(value.get("supervisor")?.clone()).ok()
        });
        let life = supervisor.map_or(Life::Dead, |s| s.life());
        Some(Self { name: name.to_owned(), state, life })
    }

    /// Every lab that has a folder.
    ///
    /// # Errors
    /// The runtime folder cannot be read.
    pub(crate) fn all(runtime: &Runtime) -> Result<Vec<Self>, Failure> {
        Ok(runtime.labs()?.iter().filter_map(|name| Self::find(runtime, name)).collect())
    }

    /// Every lab that runs, with its state.
    ///
    /// # Errors
    /// As [`Self::all`].
    pub(crate) fn all_running(runtime: &Runtime) -> Result<Vec<(String, State)>, Failure> {
        let alive = Self::all(runtime)?.into_iter().filter(|lab| lab.life == Life::Alive);
        let ready = alive.filter_map(|lab| Some((lab.name, lab.state.filter(|s| s.phase == Phase::Running)?)));
        Ok(ready.collect())
    }

    /// The running lab with this name, or the only one there is.
    ///
    /// # Errors
    /// [`Exit::NoDaemon`] when there is none, [`Exit::Usage`] when a name is needed.
    pub(crate) fn running(runtime: &Runtime, name: Option<&str>) -> Result<(String, State), Failure> {
        let mut running = Self::all_running(runtime)?;
        let names = || running.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        let Some(name) = name else {
            return match running.len() {
                0 => Err(Failure::new("no lab is running").exit(Exit::NoDaemon).next("sluice lab up --topo single,2")),
                1 => Ok(running.remove(0)),
                _ => Err(Failure::usage(format!("more than one lab is running: {}", names()))
                    .next("say which with --lab NAME")),
            };
        };
        match running.iter().position(|(n, _)| n == name) {
            Some(at) => Ok(running.remove(at)),
            None => {
                let others = if running.is_empty() { "no lab is".to_owned() } else { format!("running: {}", names()) };
                Err(Failure::new(format!("no lab named {name} is running"))
                    .exit(Exit::NoDaemon)
                    .why(others)
                    .next("sluice lab ls"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_itself_and_nobody_with_its_number() {
        let me = Identity::of(std::process::id().cast_signed(), pid_namespace().unwrap()).unwrap();
        assert_eq!(me.life(), Life::Alive);
        assert!(me.open().unwrap().is_some());
        let other = Identity { start_ticks: me.start_ticks + 1, ..me.clone() };
        assert_eq!(other.life(), Life::Dead);
        assert!(other.open().unwrap().is_none());
        assert_eq!(Identity { boot_id: "x".to_owned(), ..me.clone() }.life(), Life::Dead);
        assert_eq!(Identity { pid_namespace: 1, ..me }.life(), Life::Elsewhere);
    }
}
