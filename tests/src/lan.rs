//! A running switch with hosts: namespaces behind real ports.

use crate::host::{Host, Kind, wait_for_carrier};
use crate::netns::Netns;
use crate::variant;
use crate::watched::{Seen, Watched};
use sluice_flows::bridge::VlanMode;
use sluice_flows::bridge_mod::BridgeMod;
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::text::{Names, parse_flow, parse_flow_file, parse_group_file};
use sluice_flows::{DropReason, PortNo};
use sluice_switch::port::{AfPacket, AfPacketOptions, Port};
use sluice_switch::stats::WorkerStats;
use sluice_switch::{Config, Datapath, FailMode, PortDevice, PortRequest};
use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Times that the counters are looked at until they agree.
const ATTEMPTS: usize = 2000;
/// Drops that may happen to anyone.
const ALWAYS: [DropReason; 2] = [DropReason::NoPort, DropReason::QueueFull];

/// What a file of the folder `examples` asks for: groups if it ends in `.groups`, otherwise flows.
pub fn example_mods(file: &str) -> Vec<BridgeMod> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/");
    let text = fs::read_to_string(format!("{folder}{file}")).unwrap_or_else(|e| panic!("{file}: {e}"));
    let names = Names::default();
    if file.ends_with(".groups") {
        let groups = parse_group_file(file, &text, &names).unwrap_or_else(|e| panic!("{e:#}"));
        return groups.into_iter().map(BridgeMod::from).collect();
    }
    let flows = parse_flow_file(file, &text, &names).unwrap_or_else(|e| panic!("{e:#}"));
    assert!(flows.warnings.is_empty(), "{:?}", flows.warnings);
    flows.value.into_iter().map(BridgeMod::from).collect()
}

/// A data path with hosts. Host N is behind the port of number N of its bridge, which is named `hN`.
pub struct Lan {
    /// The data path.
    pub datapath: Datapath,
    hosts: BTreeMap<u8, Place>,
    workers: usize,
}

struct Place {
    bridge: String,
    host: Host,
    seen: Arc<Seen>,
}

impl Lan {
    /// A switch with these bridges and so many workers.
    pub fn new(bridges: &[&str], fail_mode: FailMode, workers: usize) -> Self {
        Self::with_config(bridges, fail_mode, Config { workers, ..Config::default() })
    }

    /// A switch with these bridges, configured like this.
    pub fn with_config(bridges: &[&str], fail_mode: FailMode, config: Config) -> Self {
        let workers = variant::workers(config.workers);
        let datapath = Datapath::start(Config { workers, ..config }).expect("the data path starts");
        for bridge in bridges {
            datapath.add_bridge(bridge, fail_mode).expect("a new bridge");
        }
        Self { datapath, hosts: BTreeMap::new(), workers }
    }

    /// A learning switch `br0` with hosts 1, 2, ... behind ports of these kinds, trunks.
    pub fn learning(kinds: &[Kind], mtu: u32) -> Self {
        let mut lan = Self::new(&["br0"], FailMode::Standalone, 1);
        for (n, kind) in (1..).zip(kinds) {
            lan.add_host("br0", n, *kind, mtu, VlanMode::default());
        }
        lan
    }

    /// How many workers there are, and so queues of each port.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Adds host `n` to a bridge.
    pub fn add_host(&mut self, bridge: &str, n: u8, kind: Kind, mtu: u32, vlan: VlanMode) {
        let (host, port) = Host::with_queues(n, kind, mtu, self.workers);
        self.join(bridge, n, host, port, vlan);
    }

    /// Adds a host that was made elsewhere, with a queue for each worker.
    pub fn join(&mut self, bridge: &str, n: u8, host: Host, port: Box<dyn Port>, vlan: VlanMode) {
        let seen = Arc::<Seen>::default();
        let port = Box::new(Watched::new(port, Arc::clone(&seen)));
        self.add_port(bridge, n, &format!("h{n}"), PortDevice::Device(port), vlan);
        self.hosts.insert(n, Place { bridge: bridge.to_owned(), host, seen });
    }

    /// Adds a port that leads to no host.
    pub fn add_port(&self, bridge: &str, no: u8, name: &str, device: PortDevice, vlan: VlanMode) {
        let request = PortRequest { number: Some(PortNo(no.into())), vlan, ..PortRequest::new(name, device) };
        self.datapath.add_port(bridge, request).expect("a new port");
    }

    /// Joins two bridges by a patch; each side has this port number.
    pub fn patch(&self, a: &str, b: &str, no: u8) {
        for (near, far) in [(a, b), (b, a)] {
            let device = PortDevice::Patch { peer: format!("to-{near}") };
            self.add_port(near, no, &format!("to-{far}"), device, VlanMode::default());
        }
    }

    /// Joins two bridges by a veth pair with a packet socket on each end; each side has this port number.
    pub fn wire(&self, a: &str, b: &str, no: u8) {
        let wire = Netns::without_ipv6().expect("a namespace");
        wire.add_veth("left", &wire, "right").expect("a veth pair");
        let ends = ["left", "right"];
        let options = AfPacketOptions::default();
        let ports = ends.map(|end| wire.run(|| AfPacket::open(end, &options)).expect("a packet socket"));
        wait_for_carrier(&ends.map(|end| (&wire, end)));
        for ((bridge, end), port) in [a, b].into_iter().zip(ends).zip(ports) {
            self.add_port(bridge, no, end, PortDevice::Device(Box::new(port)), VlanMode::default());
        }
    }

    /// Removes the port of host `n`.
    pub fn unplug(&self, n: u8) {
        let place = &self.hosts[&n];
        self.datapath.remove_port(&place.bridge, &format!("h{n}")).expect("the port is there");
    }

    /// Adds the port of host `n` again.
    pub fn plug(&self, n: u8) {
        let place = &self.hosts[&n];
        let port: Box<dyn Port> = Box::new(Watched::new(place.host.plug(), Arc::clone(&place.seen)));
        self.add_port(&place.bridge, n, &format!("h{n}"), PortDevice::Device(port), VlanMode::default());
    }

    /// Host `n`.
    pub fn host(&self, n: u8) -> &Host {
        &self.hosts[&n].host
    }

    /// What came in from host `n`.
    pub fn seen(&self, n: u8) -> &Seen {
        &self.hosts[&n].seen
    }

    /// Adds flows to a bridge.
    pub fn add_flows(&self, bridge: &str, flows: &[&str]) {
        let parse = |flow: &&str| parse_flow(flow, &Names::default()).unwrap_or_else(|e| panic!("{e}")).value;
        let mods: Vec<_> = flows.iter().map(parse).map(FlowMod::add).collect();
        self.datapath.apply_bundle(bridge, &mods).expect("good flows");
    }

    /// Adds groups and flows to a bridge from files of the folder `examples`, in this order. Their owners are the
    /// files' lines, as with `sluice flows add --file`.
    pub fn add_files(&self, bridge: &str, files: &[&str]) {
        let mods = files.iter().flat_map(|file| example_mods(file));
        self.datapath.apply_bundle(bridge, &mods.collect::<Vec<_>>()).expect("good flows");
    }

    /// Frames dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.datapath.worker_stats().iter().map(|w| w.dropped[reason as usize]).sum()
    }

    /// Checks that every frame received has one verdict, and that nothing was lost for a reason that is not among
    /// `expected`. Always to be expected: what a host says before there is another one, and queues that are full on a
    /// busy machine. The hosts may still say a word now and then.
    pub fn check_accounts(&self, expected: &[DropReason]) {
        let mut last = Vec::new();
        let one_verdict = |w: &WorkerStats| w.forwarded + w.dropped_total() == w.received;
        let agreed = (0..ATTEMPTS).any(|_| {
            thread::sleep(Duration::from_millis(1));
            self.datapath.sync_stats();
            last = self.datapath.worker_stats();
            last.iter().all(one_verdict)
        });
        assert!(agreed, "a frame received is not counted once: {last:?}");
        let unexpected: Vec<_> = DropReason::ALL
            .iter()
            .filter(|reason| !expected.contains(reason) && !ALWAYS.contains(reason))
            .map(|reason| (reason, last.iter().map(|w| w.dropped[*reason as usize]).sum::<u64>()))
            .filter(|(_, count)| *count > 0)
            .collect();
        let unexpected_drops = || {
            let groups = self.datapath.drops().into_iter().filter(|g| unexpected.iter().any(|(r, _)| **r == g.reason));
            groups.map(|g| (g.reason, g.packets, g.rule.map(|r| r.spec.owner.text().into_owned()), g.example))
        };
        assert!(unexpected.is_empty(), "{unexpected:?}: {:?}", unexpected_drops().collect::<Vec<_>>());
        let received: u64 = last.iter().map(|w| w.received).sum();
        assert!(received > 0, "nothing was received");
    }
}
