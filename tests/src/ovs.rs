//! A private Open vSwitch on its dummy datapath: no kernel module, no device, nothing outside a temporary directory.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Times that a starting daemon is looked for, 5 ms apart.
const PATIENCE: usize = 2_000;

/// The daemons of a running OVS, without any bridge. They are killed, by their ids, when this is dropped.
#[derive(Debug)]
pub struct Daemons {
    vswitchd: Daemon,
    _ovsdb: Daemon,
    dir: TempDir,
}

/// A child process that does not outlive its value.
#[derive(Debug)]
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Daemons {
    /// Whether OVS is installed.
    pub fn are_installed() -> bool {
        ["ovsdb-server", "ovs-vswitchd", "ovs-ofctl"]
            .iter()
            .all(|name| program(Path::new("/"), name).arg("--version").stdout(Stdio::null()).status().is_ok())
    }

    /// Starts OVS. Its database is told `settings`, arguments of `ovs-vsctl`, before its switch starts to work.
    pub fn start(settings: &[&str]) -> Self {
        Self::start_with(settings, &["--enable-dummy=override", "--disable-system", "--disable-system-route"])
    }

    /// Starts OVS with its user-space datapath on real devices: those of the network namespace that it is started in.
    pub fn start_on_devices() -> Self {
        Self::start_with(&[], &["--disable-system"])
    }

    fn start_with(settings: &[&str], mode: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("sluice-ovs-").tempdir().expect("a temporary directory");
        let path = dir.path();
        let make = ["create", "conf.db", "/usr/share/openvswitch/vswitch.ovsschema"];
        run(path, "ovsdb-tool", &make).expect("a new database");
        let remotes = ["--remote=punix:db.sock", "--unixctl=ovsdb.ctl", "conf.db"];
        let ovsdb = daemon(path, "ovsdb-server", &remotes, "db.sock");
        let init = ["--db=unix:db.sock", "--no-wait", "init"];
        run(path, "ovs-vsctl", &[&init, settings].concat()).expect("the database takes changes");
        let options = [mode, &["--unixctl=vswitchd.ctl", "unix:db.sock"]].concat();
        let vswitchd = daemon(path, "ovs-vswitchd", &options, "vswitchd.ctl");
        Self { vswitchd, _ovsdb: ovsdb, dir }
    }

    /// The directory that has all its files; the switch answers commands on `vswitchd.ctl` in it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs a program of OVS to its end: what it printed.
    ///
    /// # Errors
    /// What it complained about.
    pub fn run(&self, name: &str, args: &[&str]) -> Result<String, String> {
        run(self.dir(), name, args)
    }

    /// Changes the database by `ovs-vsctl`, and waits until the switch has followed.
    #[track_caller]
    pub fn vsctl(&self, args: &[&str]) {
        let all = [&["--db=unix:db.sock", "--timeout=10"], args].concat();
        if let Err(error) = self.run("ovs-vsctl", &all) {
            panic!("ovs-vsctl {args:?}: {error}{}", self.log());
        }
    }

    /// What the switch answers to a command.
    #[track_caller]
    pub fn appctl(&self, args: &[&str]) -> String {
        let target = self.dir().join("vswitchd.ctl");
        let target = target.to_string_lossy();
        let all = [&["-t", &*target], args].concat();
        self.run("ovs-appctl", &all).unwrap_or_else(|error| panic!("{args:?}: {error}"))
    }

    /// Whether the switch is there.
    pub fn are_alive(&mut self) -> bool {
        matches!(self.vswitchd.0.try_wait(), Ok(None))
    }

    /// The end of the switch's log.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.dir().join("ovs-vswitchd.log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(20).collect();
        lines.into_iter().rev().map(|line| format!("\n{line}")).collect()
    }
}

/// A program of OVS that finds all its files in `dir`.
fn program(dir: &Path, name: &str) -> Command {
    let mut command = Command::new(name);
    for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
        command.env(variable, dir);
    }
    // Debian puts the daemons where not every user looks.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).current_dir(dir).stdin(Stdio::null());
    command
}

fn run(dir: &Path, name: &str, args: &[&str]) -> Result<String, String> {
    let output = program(dir, name).args(args).output().expect("OVS's programs are installed together");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Starts a daemon and waits until it has made its socket.
fn daemon(dir: &Path, name: &str, args: &[&str], socket: &str) -> Daemon {
    let log = File::create(dir.join(format!("{name}.log"))).expect("the directory is writable");
    let mut command = program(dir, name);
    command.args(["--no-chdir", "-vsyslog:off", "-vfile:off"]).args(args);
    let daemon =
        Daemon(command.stdout(Stdio::null()).stderr(log).spawn().expect("OVS's daemons are installed together"));
    for _ in 0..PATIENCE {
        if dir.join(socket).exists() {
            return daemon;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{name} has not made {socket} in time");
}
