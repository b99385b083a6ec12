//! A private Open vSwitch on its dummy datapath: no kernel module, no device, nothing outside a temporary directory.

use crate::unixctl::Unixctl;
use sluice_tests::generate::language::Version;
use sluice_tests::generate::program::{METERS, Program};
use sluice_tests::generate::{PATCH, PORTS};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Bridges, as in a generated model.
pub(crate) const BRIDGES: u16 = 2;
/// Passes through the connection tracker that a trace follows.
const STAGES: usize = sluice_tests::events::STAGES;
/// Times that a starting daemon is looked for, 5 ms apart.
const PATIENCE: usize = 2_000;

/// A running OVS. Its daemons are killed, by their ids, when it is dropped.
pub(crate) struct Ovs {
    ctl: Unixctl,
    /// Datapath port numbers of a generated model by those of OVS.
    ports: BTreeMap<u32, u32>,
    vswitchd: Daemon,
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

/// Runs a program to its end: what it printed, or what it complained about.
fn run(mut command: Command) -> Result<String, String> {
    let output = command.output().expect("OVS's programs are installed together");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
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

    /// Starts OVS with the bridges and ports of a generated model.
    pub(crate) fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("sluice-ovs-").tempdir().expect("a temporary directory");
        let path = dir.path();
        let schema = "/usr/share/openvswitch/vswitch.ovsschema";
        let mut create = program(path, "ovsdb-tool");
        create.args(["create", "conf.db", schema]);
        run(create).expect("a new database");
        let ovsdb = daemon(path, "ovsdb-server", &["--remote=punix:db.sock", "--unixctl=ovsdb.ctl", "conf.db"]);
        wait_for(&path.join("db.sock"));
        let mut init = program(path, "ovs-vsctl");
        init.args(["--db=unix:db.sock", "--no-wait", "init"]);
        // Two tags, as many as we read; OVS reads it when its daemon starts to work.
        init.args(["--", "set", "Open_vSwitch", ".", "other_config:vlan-limit=2"]);
        run(init).expect("the database takes changes");
        let options =
            ["--enable-dummy=override", "--disable-system", "--disable-system-route", "--unixctl=vswitchd.ctl"];
        let vswitchd = daemon(path, "ovs-vswitchd", &[&options[..], &["unix:db.sock"]].concat());
        let mut make = program(path, "ovs-vsctl");
        make.args(["--db=unix:db.sock", "--timeout=10"]).args(bridges());
        if let Err(error) = run(make) {
            panic!("OVS does not make bridges: {error}{}", log(path));
        }
        let mut ctl = Unixctl::connect(&path.join("vswitchd.ctl")).expect("the daemon listens");
        let ports = port_numbers(&ctl.ask("dpif/show", &[]).expect("a command of the daemon"));
        let mut ovs = Self { ctl, ports, vswitchd, _ovsdb: ovsdb, dir };
        for bridge in 0..BRIDGES {
            let name = format!("br{bridge}");
            ovs.ofctl(&["mod-port", &name, &format!("b{bridge}p3"), "no-flood"]).expect("a port");
            for meter in 1..=METERS {
                let meter = format!("meter={meter},pktps,bands=type=drop,rate=1000");
                ovs.ofctl(&["-O", "OpenFlow15", "add-meter", &name, &meter]).expect("a meter");
            }
            let down = format!("b{bridge}p{PORTS}");
            ovs.ctl.ask("netdev-dummy/set-admin-state", &[&down, "down"]).expect("a dummy port");
        }
        ovs
    }

    fn ofctl(&mut self, args: &[&str]) -> Result<String, String> {
        let mut command = program(self.dir.path(), "ovs-ofctl");
        command.args(args);
        run(command)
    }

    /// Replaces the flows and the groups of both bridges.
    ///
    /// # Errors
    /// The bridge and what `ovs-ofctl` says when it refuses something; other changes may have been made then.
    pub(crate) fn install(&mut self, version: Version, program: &Program) -> Result<(), (usize, String)> {
        let modern = version == Version::OpenFlow15;
        for (bridge, (flows, groups)) in program.flows.iter().zip(&program.groups).enumerate() {
            let name = format!("br{bridge}");
            if modern {
                // A group may name one with a greater number.
                let groups =
                    groups.iter().rev().map(|group| format!("group add {}", without_dp_hash(&group.to_string())));
                let start = ["flow delete".to_owned(), "group delete group_id=all".to_owned()];
                let all = start.into_iter().chain(groups);
                self.change("OpenFlow15", &["bundle", &name], all).map_err(|error| (bridge, error))?;
            }
            // Not in the bundle: of one that deletes and adds, OVS 3.1 does not always find all flows afterwards.
            let start = ["delete".to_owned()].into_iter().filter(|_| !modern);
            let lines = start.chain(flows.iter().map(|flow| format!("add {flow}")));
            self.change(&format!("{version:?}"), &["add-flows", &name], lines).map_err(|error| (bridge, error))?;
        }
        Ok(())
    }

    fn change(&mut self, version: &str, args: &[&str], lines: impl Iterator<Item = String>) -> Result<(), String> {
        let file = self.dir.path().join("changes.txt");
        fs::write(&file, lines.map(|line| line + "\n").collect::<String>()).expect("the directory is writable");
        self.ofctl(&[&["-O", version], args, &[&*file.to_string_lossy()]].concat()).map(drop)
    }

    /// Whether OVS takes a flow, as text.
    ///
    /// # Errors
    /// What it says against it.
    pub(crate) fn reads(&mut self, version: Version, flow: &str) -> Result<String, String> {
        let version = format!("{version:?}");
        self.ofctl(&["-O", &version, "parse-flow", flow])
    }

    /// The lines of `ofproto/trace` for a packet that comes in by `br0`: an OVS flow string, and the frame if it is to be
    /// read from one, or `-generate` if OVS is to do what it would do for a packet. The connection tracker says
    /// `ct_state` of every packet.
    ///
    /// # Errors
    /// What OVS says when it cannot read the packet.
    pub(crate) fn trace(&mut self, flow: &str, ct_state: &str, frame: Option<&str>) -> Result<String, String> {
        if !matches!(self.vswitchd.0.try_wait(), Ok(None)) {
            return Err(format!("OVS died: {}", log(self.dir.path())));
        }
        let mut args = vec!["br0", flow];
        for _ in 0..STAGES {
            args.extend(["--ct-next", ct_state]);
        }
        args.extend(frame);
        self.ctl.ask("ofproto/trace", &args)
    }

    /// Whether the daemon that answers is there.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.vswitchd.0.try_wait(), Ok(None))
    }

    /// The bridge and the number of a meter that the datapath's is: they were made in order.
    pub(crate) fn meter(number: u32) -> (u32, u32) {
        (number / METERS, number % METERS + 1)
    }

    /// The port of a generated model that the datapath port of OVS is.
    pub(crate) fn port(&self, number: u32) -> Option<u32> {
        self.ports.get(&number).copied()
    }
}

/// A trace of OVS stops where the datapath hashes: where our groups do not ask for another hash, OVS is asked for one that
/// it computes itself.
fn without_dp_hash(group: &str) -> String {
    let chosen = group.contains("selection_method=");
    let group = group.replace("selection_method=dp_hash", "selection_method=hash");
    if chosen { group } else { group.replacen("type=select", "type=select,selection_method=hash", 1) }
}

/// The end of the log of a daemon that died.
fn log(dir: &Path) -> String {
    let text = fs::read_to_string(dir.join("ovs-vswitchd.log")).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(20).collect();
    lines.into_iter().rev().map(|line| format!("\n{line}")).collect()
}

/// Arguments of `ovs-vsctl` that make the bridges and ports of a generated model. Port P of bridge B is `bBpP`.
fn bridges() -> Vec<String> {
    let mut args = Vec::new();
    // NORMAL would learn from frames, before it looks up their destination; here every address is unknown.
    let vlans: Vec<_> = (0..4096).map(|vlan| vlan.to_string()).collect();
    let vlans = vlans.join(",");
    for bridge in 0..BRIDGES {
        args.push(format!("-- add-br br{bridge}"));
        args.push(format!("-- set bridge br{bridge} datapath-type=dummy fail-mode=secure"));
        args.push(format!("flood-vlans={vlans}"));
        args.push(format!("protocols=OpenFlow10,OpenFlow15 other-config:hwaddr=aa:55:aa:55:01:0{bridge}"));
        for no in 1..=PORTS {
            let kind = match (bridge, no) {
                (0, PATCH) => "type=patch options:peer=b1p1".to_owned(),
                (1, 1) => format!("type=patch options:peer=b0p{PATCH}"),
                _ => "type=dummy".to_owned(),
            };
            args.push(format!("-- add-port br{bridge} b{bridge}p{no}"));
            args.push(format!("-- set interface b{bridge}p{no} {kind} ofport_request={no}"));
        }
    }
    args.join(" ").split(' ').map(str::to_owned).collect()
}

/// Reads `dpif/show`: lines such as `b0p1 1/1: (dummy)`, by name, OpenFlow number and datapath number.
fn port_numbers(show: &str) -> BTreeMap<u32, u32> {
    let mut numbers = BTreeMap::new();
    let mut bridge = 0;
    for line in show.lines() {
        if let Some(rest) = line.trim().strip_prefix("br")
            && let Some(number) = rest.strip_suffix(':')
        {
            bridge = number.parse().expect("bridges are numbered");
        }
        let Some((no, dp)) = line.trim().split(' ').nth(1).and_then(|pair| pair.split_once('/')) else { continue };
        let (Ok(no), Ok(dp)) = (no.parse::<u16>(), dp.trim_end_matches(':').parse()) else { continue };
        numbers.insert(dp, sluice_tests::generate::dp_port(bridge, no).0);
    }
    numbers
}
