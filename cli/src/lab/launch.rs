//! Starting a supervisor, from the side of the verb that waits for it.
//!
//! The verb leaves for a user namespace of its own if it is not allowed to make namespaces otherwise, then for a PID
//! namespace, and starts this program's own verb `lab supervise` there: that process is the PID namespace's first, so
//! whatever it starts dies with it. Both talk over a socket pair that is the supervisor's standard input: an [`Order`]
//! goes in, a [`Word`] a line comes out. The verb returns when the supervisor says that everything is ready, or shows
//! the reason that it gives; if the verb dies meanwhile, the supervisor notices and undoes everything.

use super::runtime::Runtime;
use super::state::{self, Attachment, Lab, Life, State};
use super::supervisor;
use super::topology::Topology;
use crate::failure::Failure;
use crate::output::Exit;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a supervisor is to make.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The runtime folder.
    pub(crate) runtime: PathBuf,
    /// The PID namespace in which the supervisor's number is known, as its inode.
    pub(crate) pid_namespace: u64,
    /// The folder in which commands of hosts are started: the one of `lab up`.
    pub(crate) working: PathBuf,
    /// What to make.
    pub(crate) topology: Topology,
    /// Whether it runs in a user namespace.
    pub(crate) rootless: bool,
    /// How hosts are joined to switches; the supervisor finds out if `None`.
    pub(crate) attachment: Option<Attachment>,
    /// The switch's workers.
    pub(crate) workers: usize,
}

/// What a supervisor says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word {
    /// The state file is there: the name is taken.
    Claimed,
    /// Everything is there.
    Ready,
    /// It could not be made, and nothing of it is left.
    Failed(Failure),
}

/// What the kernel allows this process.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

/// Starts a lab and waits until it is ready. The calling process must have one thread and should end soon after: its
/// later children would be born in the lab's PID namespace.
///
/// # Errors
/// The name is taken, the kernel allows no namespaces, or what the supervisor says. Nothing is left of the lab then.
pub(crate) fn start(topology: &Topology, attachment: Option<Attachment>, workers: usize) -> Result<State, Failure> {
    let runtime = Runtime::of_user();
    let name = &topology.name;
    runtime.create(name)?;
    let lock = runtime.lock()?;
    free_name(&runtime, name)?;
    let folder = runtime.lab(name);
    let made = std::fs::DirBuilder::new().mode(0o700).create(&folder);
    made.map_err(|error| Failure::new(format!("cannot make {}: {error}", folder.display())))?;
    let started = spawn(&runtime, topology, attachment, workers).and_then(|mut words| {
        match words.next()? {
            Word::Claimed => {}
            Word::Failed(failure) => return Err(failure),
            Word::Ready => return Err(Failure::new("the supervisor was ready before it began")),
        }
        // From here on the state file guards the name.
        drop(lock);
        match words.next()? {
            Word::Ready => Ok(()),
            Word::Failed(failure) => Err(failure),
            Word::Claimed => Err(Failure::new("the supervisor claimed the name twice")),
        }
    });
    let result = started.and_then(|()| {
        let state = Lab::find(&runtime, name).and_then(|lab| lab.state);
        state.ok_or_else(|| Failure::new(format!("the state file in {} is not readable", folder.display())))
    });
    // A supervisor that was killed could not clean up; one that failed has done so already.
    if result.is_err() && Lab::find(&runtime, name).is_some_and(|lab| lab.life == Life::Dead) {
        runtime.remove(name)?;
    }
    result
}

/// Makes sure that no lab has the name; one whose supervisor is dead is cleaned away.
fn free_name(runtime: &Runtime, name: &str) -> Result<(), Failure> {
    let Some(lab) = Lab::find(runtime, name) else { return Ok(()) };
    match lab.life {
        Life::Dead => runtime.remove(name),
        Life::Alive => {
            let pid = lab.state.map(|s| s.supervisor.pid).unwrap_or_default();
            Err(Failure::new(format!("the name {name} is taken"))
                .why(format!(
                    "a lab of this name runs (process {pid}); changing it is not supported yet by this version"
                ))
                .next(format!("sluice lab down {name}, or sluice lab up --name OTHER")))
        }
        Life::Elsewhere => Err(Failure::new(format!("the name {name} is taken"))
            .why("a lab of this name was started in another PID namespace, so it cannot be told whether it runs")
            .next(format!("sluice lab up --name OTHER, or remove {}", runtime.lab(name).display()))),
    }
}

/// The supervisor's end of the conversation.
struct Words {
    from: BufReader<UnixStream>,
    log: PathBuf,
}

impl Words {
    fn next(&mut self) -> Result<Word, Failure> {
        let mut line = String::new();
        let read = self.from.read_line(&mut line);
        match read.ok().and_then(|_| serde_json::from_str(&line).ok()) {
            Some(word) => Ok(word),
            None => Err(Failure::new("the lab's supervisor ended without a word").why(last_lines(&self.log))),
        }
    }
}

/// The end of a log, or the reason of a panic without its backtrace.
fn last_lines(log: &Path) -> String {
    const SHOWN: usize = 5;
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let panic = lines.iter().position(|line| line.contains("panicked at"));
    let shown = match panic {
        Some(at) => &lines[at..lines.len().min(at + 2)],
        None => &lines[lines.len().saturating_sub(SHOWN)..],
    };
    if shown.is_empty() { "its log is empty".to_owned() } else { shown.join("\n       ") }
}

fn spawn(
    runtime: &Runtime,
    topology: &Topology,
    attachment: Option<Attachment>,
    workers: usize,
) -> Result<Words, Failure> {
    let failed = |what: &'static str| move |error: io::Error| Failure::new(format!("cannot {what}: {error}"));
    let path = runtime.lab(&topology.name).join("supervisor.log");
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(failed("make the log"))?;
    let (mut ours, theirs) = UnixStream::pair().map_err(failed("make a socket pair"))?;
    let pid_namespace = state::pid_namespace().map_err(failed("read /proc"))?;
    let rootless = !may_make_namespaces();
    if rootless {
        enter_user_namespace()?;
    }
    unshare(CloneFlags::CLONE_NEWPID).map_err(|errno| no_namespace("a PID namespace", errno))?;
    Command::new("/proc/self/exe")
        .arg0("sluice")
        .args(["lab", supervisor::VERB, &topology.name])
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::from(log.try_clone().map_err(failed("share the log"))?))
        .stderr(Stdio::from(log))
        .spawn()
        .map_err(failed("start the supervisor"))?;
    let runtime = runtime.path().to_owned();
    // One that was removed is of no use to a command.
    let working = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let order = Order { runtime, pid_namespace, working, topology: topology.clone(), rootless, attachment, workers };
    let order = serde_json::to_vec(&order).map_err(|error| failed("write the order")(error.into()))?;
    // A supervisor that died before reading says why in its log.
    let _ = ours.write_all(&order).and_then(|()| ours.write_all(b"\n"));
    Ok(Words { from: BufReader::new(ours), log: path })
}

/// Whether this process may make namespaces and devices as it is.
pub(crate) fn may_make_namespaces() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    [CAP_NET_ADMIN, CAP_SYS_ADMIN].iter().all(|bit| bits >> bit & 1 == 1)
}

/// Makes this process the root of a user namespace in which only its own user exists.
///
/// # Errors
/// The kernel gives none, or does not let this process fill it.
pub(crate) fn enter_user_namespace() -> Result<(), Failure> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| no_namespace("a user namespace", errno))?;
    let write = |file: &str, text: String| {
        std::fs::write(format!("/proc/self/{file}"), text).map_err(|error| {
            Failure::new(format!("cannot write /proc/self/{file}: {error}"))
                .why("the kernel gave a user namespace but does not let this process fill it")
                .next("run it as root with CAP_NET_ADMIN and CAP_SYS_ADMIN, or as an ordinary user")
                .exit(Exit::NoPrivilege)
        })
    };
    write("uid_map", format!("0 {uid} 1"))?;
    // Without this the kernel allows no group map to a user without privilege.
    write("setgroups", "deny".to_owned())?;
    write("gid_map", format!("0 {gid} 1"))
}

/// Says why the kernel gives no namespace, and what to change.
pub(crate) fn no_namespace(what: &str, errno: Errno) -> Failure {
    let failure = Failure::new(format!("the kernel does not give {what}: {}", errno.desc()));
    let is = |path: &str, value: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    let (why, next) = if is("/proc/sys/user/max_user_namespaces", "0") {
        (
            "user namespaces are turned off (user.max_user_namespaces = 0)",
            "sudo sysctl -w user.max_user_namespaces=10000",
        )
    } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        (
            "users without privilege may not make them (kernel.unprivileged_userns_clone = 0)",
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        )
    } else if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        (
            "AppArmor restricts them (kernel.apparmor_restrict_unprivileged_userns = 1)",
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        )
    } else if errno == Errno::ENOSPC || errno == Errno::EUSERS {
        ("a limit in /proc/sys/user is reached", "sluice lab ls, and take down what is not needed")
    } else {
        (
            "this user has no CAP_SYS_ADMIN, and a container's seccomp filter or a sysctl forbids user namespaces",
            "run it with sudo; in a container, add the capabilities SYS_ADMIN and NET_ADMIN",
        )
    };
    failure.why(why).next(next).exit(Exit::NoPrivilege)
}
