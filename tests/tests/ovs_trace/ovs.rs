//! A private Open vSwitch with one bridge on its dummy datapath, everything in a temporary directory.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Times that a starting daemon is looked for, 5 ms apart.
const PATIENCE: usize = 2_000;
/// Ports of the bridge `br0`: `p1` to `p5`. The last one is down.
pub(crate) const PORTS: u16 = 5;

/// A running OVS. Its daemons are killed, by their ids, when it is dropped.
pub(crate) struct Ovs {
    _daemons: [Daemon; 2],
    dir: TempDir,
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
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

impl Ovs {
    /// Whether OVS is installed.
    pub(crate) fn is_installed() -> bool {
        ["ovsdb-server", "ovs-vswitchd", "ovs-ofctl"]
            .iter()
            .all(|name| program(Path::new("/"), name).arg("--version").stdout(Stdio::null()).status().is_ok())
    }

    /// Starts OVS.
    pub(crate) fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("sluice-ovs-").tempdir().expect("a temporary directory");
        let path = dir.path();
        let run = |name: &str, args: &[&str]| run(path, name, args).expect("a program of OVS");
        run("ovsdb-tool", &["create", "conf.db", "/usr/share/openvswitch/vswitch.ovsschema"]);
        let ovsdb =
            daemon(path, "ovsdb-server", &["--remote=punix:db.sock", "--unixctl=ovsdb.ctl", "conf.db"], "db.sock");
        let init = "--db=unix:db.sock --no-wait init -- set Open_vSwitch . other_config:vlan-limit=2";
        run("ovs-vsctl", &words(init));
        let options =
            "--enable-dummy=override --disable-system --disable-system-route --unixctl=vswitchd.ctl unix:db.sock";
        let vswitchd = daemon(path, "ovs-vswitchd", &words(options), "vswitchd.ctl");
        let mut make =
            "--db=unix:db.sock --timeout=10 add-br br0 -- set bridge br0 datapath-type=dummy fail-mode=secure \
                        protocols=OpenFlow15"
                .to_owned();
        for no in 1..=PORTS {
            make += &format!(" -- add-port br0 p{no} -- set interface p{no} type=dummy ofport_request={no}");
        }
        run("ovs-vsctl", &words(&make));
        let ovs = Self { _daemons: [vswitchd, ovsdb], dir };
        ovs.ask(&["netdev-dummy/set-admin-state", "up"]);
        ovs.ask(&["netdev-dummy/set-admin-state", &format!("p{PORTS}"), "down"]);
        ovs.ofctl(&["add-meter", "br0", "meter=1,pktps,bands=type=drop,rate=10"]);
        ovs
    }

    /// What the daemon answers.
    fn ask(&self, args: &[&str]) -> String {
        let target = self.dir.path().join("vswitchd.ctl");
        let target = target.to_string_lossy();
        run(self.dir.path(), "ovs-appctl", &[&["-t", &*target], args].concat())
            .unwrap_or_else(|e| panic!("{args:?}: {e}"))
    }

    fn ofctl(&self, args: &[&str]) {
        let all = [&["-O", "OpenFlow15"], args].concat();
        run(self.dir.path(), "ovs-ofctl", &all).unwrap_or_else(|e| panic!("{args:?}: {e}"));
    }

    /// Gives the bridge these flows and groups, each one a line, and no others.
    pub(crate) fn replace(&self, flows: &str, groups: &str) {
        self.ofctl(&["del-flows", "br0"]);
        self.ofctl(&["del-groups", "br0"]);
        for (command, text) in [("add-groups", groups), ("add-flows", flows)] {
            fs::write(self.dir.path().join("lines"), text).expect("the directory is writable");
            self.ofctl(&[command, "br0", "lines"]);
        }
    }

    /// The lines of `ofproto/trace`, with the names of ports.
    pub(crate) fn trace(&self, packet: &str, ct_next: &[&str]) -> String {
        let mut args = vec!["ofproto/trace", "--names", "br0", packet];
        ct_next.iter().for_each(|state| args.extend(["--ct-next", state]));
        self.ask(&args)
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split_ascii_whitespace().collect()
}

/// Runs a program to its end: what it printed, or what it complained about.
fn run(dir: &Path, name: &str, args: &[&str]) -> Result<String, String> {
    let output = program(dir, name).args(args).output().expect("OVS's programs are installed together");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
