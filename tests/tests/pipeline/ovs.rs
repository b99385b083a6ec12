//! A private Open vSwitch on its dummy datapath, with the ports of the example.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Times that a starting daemon is looked for, 5 ms apart.
const PATIENCE: usize = 2_000;
/// The version that has everything the example uses.
const OPENFLOW: &str = "OpenFlow15";

/// A running OVS with the bridge `br0`. Its daemons are killed, by their ids, when it is dropped.
pub(crate) struct Ovs {
    _vswitchd: Daemon,
    _ovsdb: Daemon,
    dir: TempDir,
}

/// A child process that does not outlive its value.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One pass of a packet through the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    /// The tables that it was looked up in, in order.
    pub(crate) tables: Vec<u8>,
    /// What the datapath is to do with it.
    pub(crate) actions: String,
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

/// What a program prints that has to succeed.
#[track_caller]
fn run(mut command: Command) -> String {
    let output = command.output().expect("OVS's programs are installed together");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn daemon(dir: &Path, name: &str, args: &[&str]) -> Daemon {
    let log = File::create(dir.join(format!("{name}.log"))).expect("the directory is writable");
    let mut command = program(dir, name);
    command.args(["--no-chdir", "-vsyslog:off", "-vfile:off"]).args(args);
    Daemon(command.stdout(Stdio::null()).stderr(log).spawn().expect("OVS's daemons are installed together"))
}

/// Waits until a daemon has made its socket.
fn wait_for(path: &Path) {
    for _ in 0..PATIENCE {
        if path.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("OVS has not made {} in time", path.display());
}

impl Ovs {
    /// Whether OVS is installed.
    pub(crate) fn is_installed() -> bool {
        ["ovsdb-server", "ovs-vswitchd", "ovs-ofctl"]
            .iter()
            .all(|name| program(Path::new("/"), name).arg("--version").stdout(Stdio::null()).status().is_ok())
    }

    /// Starts OVS with these ports, of which the last is a tunnel.
    pub(crate) fn start(ports: &[(&str, u16, u32)]) -> Self {
        let dir = tempfile::Builder::new().prefix("sluice-ovs-").tempdir().expect("a temporary directory");
        let path = dir.path();
        let mut create = program(path, "ovsdb-tool");
        create.args(["create", "conf.db", "/usr/share/openvswitch/vswitch.ovsschema"]);
        run(create);
        let ovsdb = daemon(path, "ovsdb-server", &["--remote=punix:db.sock", "--unixctl=ovsdb.ctl", "conf.db"]);
        wait_for(&path.join("db.sock"));
        let mut init = program(path, "ovs-vsctl");
        init.args(["--db=unix:db.sock", "--no-wait", "init"]);
        run(init);
        let options =
            ["--enable-dummy=override", "--disable-system", "--disable-system-route", "--unixctl=vswitchd.ctl"];
        let vswitchd = daemon(path, "ovs-vswitchd", &[&options[..], &["unix:db.sock"]].concat());
        let ovs = Self { _vswitchd: vswitchd, _ovsdb: ovsdb, dir };
        let bridge =
            format!("-- add-br br0 -- set bridge br0 datapath-type=dummy fail-mode=secure protocols={OPENFLOW}");
        ovs.vsctl(&bridge);
        // One by one, so that their numbers in the datapath are known.
        for (index, (name, no, _)) in ports.iter().enumerate() {
            let tunnel = "geneve options:remote_ip=flow options:key=flow";
            let kind = if index + 1 == ports.len() { tunnel } else { "dummy" };
            ovs.vsctl(&format!("-- add-port br0 {name} -- set interface {name} type={kind} ofport_request={no}"));
        }
        ovs
    }

    #[track_caller]
    fn vsctl(&self, args: &str) {
        let mut command = program(self.dir.path(), "ovs-vsctl");
        command.args(["--db=unix:db.sock", "--timeout=10"]).args(args.split(' '));
        run(command);
    }

    /// What `ovs-ofctl` prints.
    #[track_caller]
    pub(crate) fn ofctl(&self, args: &[&str]) -> String {
        let mut command = program(self.dir.path(), "ovs-ofctl");
        command.args(["-O", OPENFLOW]).args(args);
        run(command)
    }

    /// Has `ovs-ofctl VERB br0 FILE` read `text`.
    #[track_caller]
    pub(crate) fn feed(&self, verb: &[&str], text: &str) {
        let file = self.dir.path().join("input.txt");
        std::fs::write(&file, text).expect("the directory is writable");
        self.ofctl(&[verb, &["br0", &file.to_string_lossy()]].concat());
    }

    #[track_caller]
    fn appctl(&self, args: &[&str]) -> String {
        let mut command = program(self.dir.path(), "ovs-appctl");
        command.arg("-t").arg(self.dir.path().join("vswitchd.ctl")).args(args);
        run(command)
    }

    /// The passes of a packet, one more than there are states: what the tracker says after each pass but the last.
    #[track_caller]
    pub(crate) fn trace(&self, packet: &str, states: &[&str]) -> Vec<Pass> {
        let mut args = vec!["ofproto/trace", "br0", packet];
        args.extend(states.iter().flat_map(|state| ["--ct-next", state]));
        passes(&self.appctl(&args))
    }

    /// One pass of a packet, from a table on.
    #[track_caller]
    pub(crate) fn resume(&self, packet: &str, table: u8) -> Pass {
        let actions = format!("resubmit(,{table})");
        let mut passes = passes(&self.appctl(&["ofproto/trace-packet-out", "br0", packet, &actions]));
        passes.swap_remove(0)
    }
}

/// Reads what `ofproto/trace` prints.
fn passes(text: &str) -> Vec<Pass> {
    let mut passes = Vec::new();
    let mut tables = Vec::new();
    for line in text.lines() {
        if let Some(table) = line.trim_start().split_once(". ").and_then(|(number, _)| number.parse().ok()) {
            tables.push(table);
        }
        if let Some(actions) = line.strip_prefix("Datapath actions: ") {
            passes.push(Pass { tables: std::mem::take(&mut tables), actions: actions.to_owned() });
        }
    }
    passes
}
