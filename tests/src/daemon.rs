//! A running `sluiced` that a suite has started.

use crate::netns::Netns;
use crate::switch::wait_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Where the daemon is: beside the folder of the suites.
pub fn sluiced() -> PathBuf {
    let suite = std::env::current_exe().expect("a suite has a file");
    suite.parent().and_then(Path::parent).expect("it is in a folder of folders").join("sluiced")
}

/// A running `sluiced`; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it in a namespace, with what it says in the file `log`, and waits until it is ready.
    pub fn start(netns: &Netns, mut command: Command, log: PathBuf) -> Self {
        command.stdout(Stdio::null()).stderr(File::create(&log).expect("a file for what it says"));
        let daemon = Self { child: netns.run(|| command.spawn()).expect("sluiced starts"), log };
        wait_until("sluiced is ready", || daemon.log().contains("ready socket="));
        daemon
    }

    /// What it said.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("its log is readable")
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("it is running");
    }

    /// Has it read its file again, and returns what it says to that.
    pub fn reload(&self) -> String {
        let before = self.log().len();
        self.signal(Signal::SIGHUP);
        let said = || self.log().split_off(before);
        wait_until("the file was read again", || said().contains(" reloaded changes="));
        said()
    }

    /// Ends it as an operator would; returns its log.
    pub fn end(mut self) -> String {
        self.signal(Signal::SIGTERM);
        assert!(self.child.wait().expect("it is waited for once").success(), "{}", self.log());
        self.log()
    }

    /// Kills it without a warning.
    pub fn crash(self) {
        self.signal(Signal::SIGKILL);
        drop(self);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
