//! Going into a running lab, as `exec`, `sh` and `ping` do.
//!
//! In two steps. The verb's process joins the lab's user namespace (while it still has one thread, as the kernel asks),
//! and then its PID, IPC and the host's network namespace. A PID namespace holds for children only, so the command is
//! started through this program's own verb `lab inside`, which gives the host its name, its own `/proc` and its
//! own `/sys`, the lab's names, and then becomes the command.

use super::names;
use super::state::State;
use crate::failure::Failure;
use crate::output::Exit;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus};

/// The verb that this program starts itself as, inside a host.
pub(crate) const VERB: &str = "inside";

/// A lab that this process may go into.
pub(crate) struct Door {
    supervisor: OwnedFd,
}

impl Door {
    /// Joins the lab's user namespace, if it has one of its own. The process must have one thread.
    ///
    /// # Errors
    /// The lab has ended, or belongs to somebody else.
    pub(crate) fn open(state: &State) -> Result<Self, Failure> {
        let name = &state.topology.name;
        let failed = |why: String| Failure::new(format!("cannot enter the lab {name}")).why(why).next("sluice lab ls");
        let supervisor = match state.supervisor.open() {
            Ok(Some(fd)) => fd,
            Ok(None) => return Err(failed("it has ended meanwhile".to_owned()).exit(Exit::NoDaemon)),
            Err(error) => return Err(failed(error.to_string())),
        };
        let user = |pid: &str| std::fs::metadata(format!("/proc/{pid}/ns/user")).map(|m| m.ino());
        let theirs = user(&state.supervisor.pid.to_string())
            .map_err(|error| failed(format!("its supervisor may not be looked into: {error}")))?;
        if user("self").is_ok_and(|ours| ours != theirs) {
            setns(&supervisor, CloneFlags::CLONE_NEWUSER)
                .map_err(|errno| failed(format!("its user namespace: {errno}")).exit(Exit::NoPrivilege))?;
        }
        Ok(Self { supervisor })
    }

    /// Makes the calling thread's children processes of this host.
    ///
    /// # Errors
    /// The kernel does not allow it.
    pub(crate) fn enter(&self, network: impl AsFd) -> io::Result<()> {
        setns(&self.supervisor, CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWPID)?;
        enter_network(network)
    }
}

/// Moves the calling thread into a network namespace.
///
/// # Errors
/// The kernel does not allow it.
pub(crate) fn enter_network(network: impl AsFd) -> io::Result<()> {
    Ok(setns(network, CloneFlags::CLONE_NEWNET)?)
}

/// This program's own verb that becomes `command` inside `host`; to be started by a thread that has entered it.
pub(crate) fn inside(state: &State, host: &str, command: &[OsString]) -> Command {
    let mut inside = Command::new("/proc/self/exe");
    inside.arg0("sluice").args(["lab", VERB, host]).arg(state.folder()).arg("--").args(command);
    if let Some(host) = state.topology.host(host) {
        inside.envs(&host.env);
    }
    inside
}

/// A child's code as a shell would say it: its own, or 128 and the signal that ended it.
pub(crate) fn exit(status: ExitStatus) -> Exit {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Exit::Child(u8::try_from(code & 0xff).unwrap_or(1))
}

/// Becomes the command in a host of the lab that has this folder. Returns only if that fails: 127 when it is not found, 126 when it cannot be started.
pub(crate) fn become_command(host: &OsStr, folder: &Path, command: &[OsString]) -> Failure {
    let name = host.display();
    let failed = |what: &str, error: io::Error| Failure::new(format!("{name}: cannot {what}: {error}"));
    // The command ends with the verb that started it, even if that is killed.
    if let Err(errno) = set_pdeathsig(Signal::SIGKILL) {
        return failed("tie the command to this one", errno.into());
    }
    // A mask outlives exec: with the verb's, the keys of the terminal would not reach the command.
    if let Err(errno) = SigSet::all().thread_unblock() {
        return failed("give the command a clean signal mask", errno.into());
    }
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS) {
        return failed("make a mount namespace", errno.into());
    }
    if let Err(errno) = nix::unistd::sethostname(host) {
        return failed("set the host's name", errno.into());
    }
    if let Err(error) = mount_views() {
        // A container that hides parts of its own /proc or /sys refuses this; the command itself works without.
        eprintln!("warning: {name}: /proc and /sys show the machine, not the host: {error}");
    }
    if let Err(error) = mount_names(&name.to_string(), folder) {
        eprintln!("warning: {name}: the lab's names are not known here: {error}");
    }
    let Some((program, rest)) = command.split_first() else {
        return Failure::usage("no command");
    };
    let error = Command::new(program).args(rest).exec();
    if error.kind() == ErrorKind::NotFound || !is_anywhere(program) {
        return Failure::new(format!("{name}: there is no command {}", program.display())).exit(Exit::Child(127));
    }
    Failure::new(format!("{name}: cannot start {}: {error}", program.display())).exit(Exit::Child(126))
}

/// Whether a command is found at all: a folder of PATH that may not be looked into makes the kernel say "permission
/// denied" for a command that is nowhere.
fn is_anywhere(program: &OsStr) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    Path::new(program).components().count() > 1 || std::env::split_paths(&path).any(|dir| dir.join(program).exists())
}

/// Puts the host's own `/proc` and `/sys` over the machine's, for the calling process.
fn mount_views() -> io::Result<()> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, none)?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), flags, none)?;
    Ok(())
}

/// Puts the lab's names over the machine's, for the calling process.
fn mount_names(host: &str, folder: &Path) -> io::Result<()> {
    let files = [(names::hosts_file(folder), names::HOSTS), (names::resolver_file(folder, host), names::RESOLVER)];
    // A machine without such a file has nothing to put it over, and a host may have none of its own.
    let both = files.iter().filter(|(own, machine)| own.exists() && Path::new(machine).exists());
    let none: Option<&str> = None;
    both.into_iter().try_for_each(|(own, machine)| Ok(mount(Some(own), *machine, none, MsFlags::MS_BIND, none)?))
}
