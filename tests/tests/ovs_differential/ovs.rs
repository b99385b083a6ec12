//! Open vSwitch with the bridges of a generated model.

use sluice_tests::generate::language::Version;
use sluice_tests::generate::program::{METERS, Program, is_protected};
use sluice_tests::generate::{PATCH, PORTS};
use sluice_tests::ovs::Daemons;
use sluice_tests::unixctl::Unixctl;
use std::collections::BTreeMap;
use std::fs;

/// Bridges, as in a generated model.
pub(crate) const BRIDGES: u16 = 2;
/// Passes through the connection tracker that a trace follows.
const STAGES: usize = sluice_tests::events::STAGES;

/// A running OVS.
pub(crate) struct Ovs {
    ctl: Unixctl,
    /// Datapath port numbers of a generated model by those of OVS.
    ports: BTreeMap<u32, u32>,
    daemons: Daemons,
}

impl Ovs {
    /// Starts OVS with the bridges and ports of a generated model.
    pub(crate) fn start() -> Self {
        // Two tags, as many as we read; OVS reads it when its daemon starts to work.
        let daemons = Daemons::start(&["--", "set", "Open_vSwitch", ".", "other_config:vlan-limit=2"]);
        let bridges = bridges();
        daemons.vsctl(&bridges.iter().map(String::as_str).collect::<Vec<_>>());
        let mut ctl = Unixctl::connect(&daemons.dir().join("vswitchd.ctl")).expect("the daemon listens");
        let ports = port_numbers(&ctl.ask("dpif/show", &[]).expect("a command of the daemon"));
        let mut ovs = Self { ctl, ports, daemons };
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

    /// Changes what OVS is configured as, and waits until it is.
    pub(crate) fn vsctl(&mut self, args: &[String]) {
        self.daemons.vsctl(&args.iter().map(String::as_str).collect::<Vec<_>>());
    }

    fn ofctl(&mut self, args: &[&str]) -> Result<String, String> {
        self.daemons.run("ovs-ofctl", args)
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
        let file = self.daemons.dir().join("changes.txt");
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
        if !self.is_alive() {
            return Err(format!("OVS died: {}", self.daemons.log()));
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
        self.daemons.are_alive()
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
            args.push(format!("-- set port b{bridge}p{no} protected={}", is_protected(no)));
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
