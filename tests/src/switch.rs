//! A running data path with memory ports: put frames in, wait until each has had its verdict, take frames out.

use crate::variant;
use sluice_flows::bridge::{Model, VlanMode};
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::packet::Frame;
use sluice_flows::rule::FlowSpec;
use sluice_flows::tunnel::Tunnel;
use sluice_flows::{DropReason, PortNo};
use sluice_switch::port::{MemHandle, MemOptions, MemPort};
use sluice_switch::stats::WorkerStats;
use sluice_switch::{Config, Datapath, FailMode, PortDevice, PortRequest};
use std::collections::BTreeMap;
use std::time::Duration;

/// Times that a condition is looked at without sleeping.
const EAGER: usize = 1_000;
/// Times that it is looked at after that, 1 ms apart, before the test fails.
const PATIENCE: usize = 20_000;

/// Depth of the rings of a port that was asked for.
const LONG: usize = 8192;
/// Depth of the rings of a generated model's ports: suites start thousands of those.
const SHORT: usize = 1024;

/// A data path with memory ports.
pub struct Switch {
    /// The data path.
    pub datapath: Datapath,
    /// The program's ends of the memory ports, by bridge name and port number.
    pub ends: BTreeMap<(String, u16), MemHandle>,
    sent: u64,
    /// Receive queues of each port: one for each worker.
    queues: usize,
}

impl Switch {
    /// A switch without bridges.
    pub fn start(config: Config) -> Self {
        let queues = variant::workers(config.workers);
        let datapath = Datapath::start(Config { workers: queues, ..config }).expect("the data path starts");
        Self { datapath, ends: BTreeMap::new(), sent: 0, queues }
    }

    /// A switch with the bridge `br0`, a learning switch, with `ports` ports of jumbo MTU.
    pub fn learning(config: Config, ports: u16) -> Self {
        let mut switch = Self::start(config);
        switch.bridge("br0", ports, FailMode::Standalone);
        switch
    }

    /// A switch that is a model made by [`generate`](crate::generate): its bridges, ports, patches and rules.
    pub fn of_model(config: Config, model: &Model) -> Self {
        let mut switch = Self::start(config);
        for bridge in model.bridges.values() {
            switch.datapath.add_bridge(&bridge.name, FailMode::Secure).expect("a new bridge");
            for port in bridge.ports.values() {
                let name = format!("{}-{}", bridge.name, port.no);
                let device = match port.peer {
                    Some((far, no)) => PortDevice::Patch { peer: format!("br{}-{no}", far.0) },
                    None => PortDevice::Device(switch.memory(&bridge.name, port.no.0, &name, SHORT)),
                };
                let request = PortRequest {
                    number: Some(port.no),
                    no_flood: port.no_flood,
                    protected: port.protected,
                    up: port.up,
                    ..PortRequest::new(&name, device)
                };
                switch.datapath.add_port(&bridge.name, request).expect("a new port");
            }
            let mods: Vec<_> = bridge.tables.iter().map(|r| FlowMod::add(r.spec.clone())).collect();
            switch.apply_unchecked(&bridge.name, &mods);
        }
        switch
    }

    /// Adds a bridge with memory ports 1 to `ports`.
    pub fn bridge(&mut self, name: &str, ports: u16, fail_mode: FailMode) {
        self.datapath.add_bridge(name, fail_mode).expect("a new bridge");
        for no in 1..=ports {
            self.port(name, no, VlanMode::default());
        }
    }

    /// Adds a memory port.
    pub fn port(&mut self, bridge: &str, no: u16, vlan: VlanMode) {
        let name = format!("{bridge}-{no}");
        let device = PortDevice::Device(self.memory(bridge, no, &name, LONG));
        let request = PortRequest { number: Some(PortNo(no)), vlan, ..PortRequest::new(&name, device) };
        self.datapath.add_port(bridge, request).expect("a new port");
    }

    /// Adds a memory port that is one of a tunnel to `br0`.
    pub fn tunnel_port(&mut self, no: u16, tunnel: Tunnel) {
        let name = format!("br0-{no}");
        let options =
            MemOptions { mtu: 65_535, depth: LONG, queues: self.queues, tunnel: Some(tunnel), ..MemOptions::default() };
        let (port, end) = MemPort::new(&name, &options).expect("a memory port");
        self.ends.insert(("br0".to_owned(), no), end);
        let device = PortDevice::Device(Box::new(port));
        let request = PortRequest { number: Some(PortNo(no)), ..PortRequest::new(&name, device) };
        self.datapath.add_port("br0", request).expect("a new port");
    }

    fn memory(&mut self, bridge: &str, no: u16, name: &str, depth: usize) -> Box<MemPort> {
        let options = MemOptions { mtu: 65_535, depth, queues: self.queues, ..MemOptions::default() };
        let (port, end) = MemPort::new(name, &options).expect("a memory port");
        self.ends.insert((bridge.to_owned(), no), end);
        Box::new(port)
    }

    /// The program's end of a port of `br0`.
    pub fn end(&self, no: u16) -> &MemHandle {
        &self.ends[&("br0".to_owned(), no)]
    }

    /// Adds flows to `br0`.
    pub fn add_flows(&self, flows: impl IntoIterator<Item = FlowSpec>) {
        let mods: Vec<_> = flows.into_iter().map(FlowMod::add).collect();
        self.datapath.apply_bundle("br0", &mods).expect("good flows");
    }

    /// Adds flows without the check that their actions fit their match, which random ones need not.
    fn apply_unchecked(&self, bridge: &str, mods: &[FlowMod]) {
        let edit = |bridge: &mut sluice_flows::bridge::Bridge, now| {
            let mut all = Vec::new();
            for change in mods {
                if let FlowMod::Add { spec, .. } = change {
                    let rule = std::sync::Arc::new(sluice_flows::rule::Rule::new(spec.clone(), now));
                    bridge.tables.insert(rule.clone());
                    all.push(sluice_flows::flow_mod::Applied { added: Some(rule), ..Default::default() });
                }
            }
            Ok::<_, sluice_switch::ControlError>(all)
        };
        self.datapath.edit(bridge, edit).expect("the bridge is there");
    }

    /// Puts a frame into a port of `br0`.
    pub fn send(&mut self, no: u16, bytes: &[u8]) {
        self.send_frame(no, Frame::from_bytes(bytes));
    }

    /// Puts a frame with its metadata into a port of `br0`.
    pub fn send_frame(&mut self, no: u16, frame: Frame) {
        self.send_to(0, no, frame);
    }

    /// Puts a frame into a port of `br0`, for this worker to receive, or the last if there are not so many.
    pub fn send_to(&mut self, worker: usize, no: u16, frame: Frame) {
        let queue = worker.min(self.queues.saturating_sub(1));
        assert!(self.end(no).inject_frame(queue, frame), "the port's ring is full");
        self.sent += 1;
    }

    /// Counts a frame that was put in by other ways, a packet-out.
    pub fn expect_one_more(&mut self) {
        self.sent += 1;
    }

    /// Waits until every frame put in has had its verdict.
    pub fn wait(&self) {
        wait_until("every frame has its verdict", || self.received() == self.sent);
    }

    fn received(&self) -> u64 {
        self.datapath.worker_stats().iter().map(|w| w.received).sum()
    }

    /// Takes all frames that came out of a port of `br0`.
    pub fn take(&self, no: u16) -> Vec<Frame> {
        take_all(self.end(no))
    }

    /// Puts a frame in, waits, and says by which ports of `br0` it came out, in order.
    pub fn send_and_see(&mut self, no: u16, bytes: &[u8]) -> Vec<u16> {
        self.send(no, bytes);
        self.wait();
        let br0 = self.ends.iter().filter(|((bridge, _), _)| bridge == "br0");
        br0.flat_map(|((_, no), end)| take_all(end).into_iter().map(|_| *no)).collect()
    }

    /// The counters of all workers, added up.
    pub fn totals(&self) -> WorkerStats {
        let mut sum = WorkerStats::default();
        for w in self.datapath.worker_stats() {
            sum.received += w.received;
            sum.forwarded += w.forwarded;
            sum.held += w.held;
            sum.released += w.released;
            for (a, b) in sum.dropped.iter_mut().zip(w.dropped) {
                *a += b;
            }
            sum.cache.exact_hits += w.cache.exact_hits;
            sum.cache.megaflow_hits += w.cache.megaflow_hits;
            sum.cache.misses += w.cache.misses;
            sum.cache.stale += w.cache.stale;
        }
        sum
    }

    /// Frames dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.totals().dropped[reason as usize]
    }

    /// Has the workers credit what they counted, and waits until they have.
    pub fn sync(&self) {
        wait_until("the workers have credited what they counted", || self.datapath.sync_stats());
    }

    /// Fragments that wait for the rest of their datagrams.
    pub fn waiting(&self) -> u64 {
        let sum = self.totals();
        sum.held - sum.released
    }

    /// Checks that every frame received was counted once.
    pub fn check_accounts(&self) {
        let sum = self.totals();
        assert_eq!(sum.received, self.sent, "every frame was received");
        for w in self.datapath.worker_stats() {
            let (came, went) = (w.received + w.released, w.forwarded + w.dropped_total() + w.held);
            assert_eq!(came, went, "every frame has one verdict, or waits: {w:?}");
        }
        self.sync();
        let grouped: u64 = self.datapath.drops().iter().map(|g| g.packets).sum();
        assert_eq!(grouped, sum.dropped_total(), "every drop is in one group");
    }
}

/// Waits until `holds`, for at least 20 seconds.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    for turn in 0..EAGER + PATIENCE {
        if holds() {
            return;
        }
        if turn < EAGER {
            std::thread::yield_now();
        } else {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    panic!("waited in vain until {what}");
}

/// Takes all frames that the switch sent by a port.
pub fn take_all(end: &MemHandle) -> Vec<Frame> {
    std::iter::from_fn(|| end.take()).collect()
}
