//! The commands that hosts run for as long as the lab is up (`run:` in its file).
//!
//! Each is given to a shell in its host once everything is there, and writes to a file in the lab's folder. As every
//! process of the lab it ends with the supervisor, at the latest.

use super::enter::{self, enter_network};
use super::state::State;
use crate::failure::Failure;
use nix::sys::wait::WaitStatus;
use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::thread;

/// The file with the output of a host's command, in the folder of its lab.
pub(crate) fn log(folder: &Path, host: &str) -> PathBuf {
    folder.join("logs").join(format!("{host}.log"))
}

/// A command that was started.
struct Started {
    pid: i32,
    log: File,
}

/// The commands of a lab's hosts.
pub(crate) struct Commands(Vec<Started>);

/// A command to be started.
struct Job {
    host: String,
    command: String,
    namespace: OwnedFd,
    log: File,
}

impl Commands {
    /// Starts the commands of all hosts in `working`; `folder` is the lab's. `namespaces` are in the order of the hosts.
    ///
    /// # Errors
    /// One could not be started. That a shell does not find what it is to run stands in the log.
    pub(crate) fn start(state: &State, namespaces: &[OwnedFd], folder: &Path, working: &Path) -> Result<Self, Failure> {
        let hosts = state.topology.hosts.iter().zip(namespaces);
        let commands = hosts.filter_map(|(host, namespace)| Some((host, host.run.as_ref()?, namespace)));
        let mut jobs = Vec::new();
        for (host, command, namespace) in commands {
            let failed = |error: io::Error| Failure::new(format!("cannot run the command of {}: {error}", host.name));
            let path = log(folder, &host.name);
            if let Some(logs) = path.parent() {
                DirBuilder::new().recursive(true).mode(0o700).create(logs).map_err(failed)?;
            }
            let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(failed)?;
            let namespace = namespace.try_clone().map_err(failed)?;
            jobs.push(Job { host: host.name.clone(), command: command.clone(), namespace, log });
        }
        if jobs.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let (state, working) = (state.clone(), working.to_owned());
        let (told, result) = channel();
        let work = move || {
            let started = jobs.into_iter().map(|job| job.start(&state, &working)).collect();
            // Gone only if the lab is given up.
            _ = told.send(started);
            // A command ends with the thread that started it (see `enter::become_command`), so this one stays.
            let (_kept, never) = channel::<()>();
            _ = never.recv();
        };
        let failed =
            |error: &dyn std::fmt::Display| Failure::new(format!("cannot start the thread of commands: {error}"));
        thread::Builder::new().name("sluice-run".to_owned()).spawn(work).map_err(|error| failed(&error))?;
        let started: Result<Vec<_>, Failure> = result.recv().map_err(|error| failed(&error))?;
        started.map(Self)
    }

    /// Notes in its log that a command has ended, if the process was one.
    pub(crate) fn ended(&mut self, status: WaitStatus) {
        let how = match status {
            WaitStatus::Exited(_, code) => format!("ended with {code}"),
            WaitStatus::Signaled(_, signal, _) => format!("ended by {signal}"),
            _ => return,
        };
        let Some(at) = self.0.iter().position(|started| status.pid().is_some_and(|pid| pid.as_raw() == started.pid))
        else {
            return;
        };
        // A full disk does not end the lab.
        _ = writeln!(self.0.swap_remove(at).log, "sluice: the command {how}");
    }
}

impl Job {
    /// Starts the command from the calling thread, which is in the host's network namespace afterwards.
    fn start(self, state: &State, working: &Path) -> Result<Started, Failure> {
        let failed = |error: io::Error| Failure::new(format!("cannot run the command of {}: {error}", self.host));
        enter_network(&self.namespace).map_err(failed)?;
        let shell = ["/bin/sh", "-c", &self.command].map(OsString::from);
        let mut command = enter::inside(state, &self.host, &shell);
        command.env("PATH", path()).env("LAB_DIR", folder(state, working)).current_dir(working).stdin(Stdio::null());
        command.stdout(self.log.try_clone().map_err(failed)?).stderr(self.log.try_clone().map_err(failed)?);
        let child = command.spawn().map_err(failed)?;
        Ok(Started { pid: child.id().cast_signed(), log: self.log })
    }
}

/// The folder of the lab's file.
fn folder(state: &State, working: &Path) -> PathBuf {
    working.join(&state.topology.source).parent().map_or_else(|| working.to_owned(), Path::to_owned)
}

/// The folders where commands are, with this program's own behind them: `sluice lab serve 80` works wherever it is.
fn path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    if let Some(folder) = std::env::current_exe().ok().as_deref().and_then(Path::parent) {
        path.push(":");
        path.push(folder);
    }
    path
}
