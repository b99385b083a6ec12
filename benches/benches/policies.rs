//! A node's switch with few and with many NetworkPolicies in force: what a packet costs, the first one of a connection and a new
//! connection, what the flows take, and how long one more policy takes until it is in force.
//!
//! The flows are those of the whole pipeline with 110 Pods, made and programmed over the control socket by the code of the node role.
//! Packets go from the first Pod to the second. A runner of its own and not criterion, as most of what is measured happens once or
//! in another thread. Memory is what the process's own allocator has handed out.

use sluice_benches::alloc::CountingAlloc;
use sluice_controller::facts::policy::{
    Action, Direction, Group, GroupKey, Member, Peer, Policy, PolicyKind, PolicyName, Port, Rule, Tier, Update,
};
use sluice_controller::facts::{self, Node, Protocol, Way};
use sluice_controller::flow::Object;
use sluice_controller::pipeline::{self, LocalPod, Policies, ROUTER_MAC};
use sluice_controller::program::{self, Program};
use sluice_flows::bridge::Model;
use sluice_flows::datapath::{DpAction, Translation};
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::key::{CT_NEW, CT_TRK, FlowKey, slot};
use sluice_flows::packet::compose::compose;
use sluice_flows::station::{Guard, Station};
use sluice_flows::text::{Names, parse_flow_mod};
use sluice_flows::translate::{NoMacs, NoTrace, translate, translate_resumed};
use sluice_flows::{DpPort, Owner, PortNo};
use sluice_switch::api;
use sluice_switch::port::Recording;
use sluice_switch::replay::{BRIDGE, IN_PORT, Measured, OUT_PORT, Replay};
use std::error::Error;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOC: CountingAlloc = CountingAlloc::new();

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Pods of the node, as many as a kubelet takes; the first two are the ports of the replay.
const PODS: u16 = 110;
/// Groups of Pods of other nodes that policies name, and members of each.
const GROUPS: usize = 500;
const MEMBERS: usize = 10;
/// Policies that come and go, of which median and 99th percentile are told.
const CHANGES: usize = 200;
/// By then a worker has all that it takes in memory by itself.
const STARTED: Duration = Duration::from_millis(200);
/// Connections whose packets are measured.
const FLOWS: u16 = 1_000;
/// Packets that each begin a connection.
const NEW: u32 = 400_000;
/// The first of the ports that policies let the first Pod use of the second, and the last.
const ALLOWED: u16 = 80;
const LAST_ALLOWED: u16 = 95;
/// One that they do not.
const DENIED: u16 = 96;

fn main() -> Outcome<()> {
    // `cargo bench` passes flags of criterion's; words that are not flags are numbers of policies.
    let wanted = std::env::args().skip(1).filter(|a| !a.starts_with('-')).map(|a| a.parse());
    let mut sizes: Vec<usize> = wanted.collect::<Result<_, _>>()?;
    if sizes.is_empty() {
        sizes = vec![0, 1, 250, 5_000];
    }
    let rows: Vec<Row> = sizes.into_iter().map(run).collect::<Outcome<_>>()?;
    let Some(first) = rows.first() else { return Ok(()) };
    println!("In brackets: ratio to the first row.\n");
    println!(
        "| policies | flows of theirs | packet, cached | one denied, cached | first packet, translated | one denied, translated | \
         new connection |\n|---|---|---|---|---|---|---|"
    );
    for row in &rows {
        let cell = |of: fn(&Row) -> f64| format!("{:.0} ns ({:.2}x)", of(row), of(row) / of(first));
        println!(
            "| {} | {} | {} | {} | {} | {} | {} |",
            row.policies,
            row.flows,
            cell(|row| row.hit),
            cell(|row| row.denied_hit),
            cell(|row| row.lookup),
            cell(|row| row.denied_lookup),
            cell(|row| row.connection),
        );
    }
    println!(
        "\n| policies | in force after | memory of the switch | of the controller | one policy more, p50 | p99 | one policy less, p50 | \
         p99 |\n|---|---|---|---|---|---|---|---|"
    );
    for row in &rows {
        let mb = |bytes: usize| bytes as f64 / 1e6;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let [more, more_99, less, less_99] = row.changes.map(ms);
        println!(
            "| {} | {:.0} ms | {:.1} MB | {:.1} MB | {more:.2} ms | {more_99:.2} ms | {less:.2} ms | {less_99:.2} ms |",
            row.policies,
            ms(row.in_force),
            mb(row.switch),
            mb(row.controller),
        );
    }
    Ok(())
}

/// Figures with so many policies.
struct Row {
    policies: usize,
    /// Flows that are there because of policies.
    flows: usize,
    /// A packet of a connection that is there, and one that is denied, by the worker's CPU time, in ns.
    hit: f64,
    denied_hit: f64,
    /// All passes of the first packet of a connection through the tables, in ns.
    lookup: f64,
    denied_lookup: f64,
    /// A packet that begins a connection, by the worker's CPU time, in ns.
    connection: f64,
    /// From when the node role was told until all was in force.
    in_force: Duration,
    /// Bytes that policies took, in the switch and in the node role.
    switch: usize,
    controller: usize,
    /// One more, median and 99th percentile, and one less.
    changes: [Duration; 4],
}

/// A switch with the pipeline and without policies, and the node role's way to it.
struct Rig {
    replay: Replay,
    runtime: Runtime,
    program: Program,
    policies: Policies,
    _server: api::Running,
    _folder: tempfile::TempDir,
}

impl Rig {
    fn start() -> Outcome<Self> {
        let replay = Replay::start(Some(1))?;
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("s.sock");
        let server = api::spawn(replay.datapath().clone(), &socket)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let round_file = folder.path().join("round");
        let config = program::Config { socket, bridge: BRIDGE.into(), round_file };
        let (program, _, _) = runtime.block_on(async { program::start(config) })?;
        let node = node()?;
        let mut policies = Policies::new(&node);
        program.set(Object::Base, pipeline::base(&node));
        let peer = facts::Peer {
            name: "n2".into(),
            addresses: vec!["172.30.0.12".parse()?],
            pod_cidrs: vec![("10.244.2.0/24".parse()?, Way::Host)],
        };
        program.set(Object::Peer("n2".into()), pipeline::peer(&node, &peer));
        for port in 1..=PODS {
            let mac = 0x0a00_0000_0100 + u64::from(port);
            let pod = facts::Pod {
                owner: format!("pod:{}", pod_name(port)),
                port: port.into(),
                mac,
                addresses: vec![address(port)],
                host_ports: Vec::new(),
            };
            policies.put_pod(&pod_name(port), LocalPod { port: port.into(), addresses: pod.addresses.clone() });
            program.set(Object::Pod(port.into()), pipeline::pod(&node, &pod));
            let station = Station {
                port: PortNo(port),
                mac,
                addresses: pod.addresses,
                guard: Guard::Full,
                hairpin: false,
                held: false,
                owner: Owner::new(&pod.owner),
            };
            let flows: Vec<FlowMod> = station.flows().into_iter().map(FlowMod::add).collect();
            replay.datapath().apply_bundle(BRIDGE, &flows)?;
        }
        program.ready();
        let rig = Self { replay, runtime, program, policies, _server: server, _folder: folder };
        rig.settle()?;
        rig.replay.measure(STARTED);
        Ok(rig)
    }

    /// Waits until the switch has all that was set.
    fn settle(&self) -> Outcome<()> {
        Ok(self.runtime.block_on(self.program.settled())?)
    }

    /// Takes in what has changed, until it is in force; how long that took.
    fn tell(&mut self, updates: &[Update]) -> Outcome<Duration> {
        let start = Instant::now();
        self.policies.update(updates);
        self.program.change(self.policies.take());
        self.settle()?;
        Ok(start.elapsed())
    }
}

fn node() -> Outcome<Node> {
    Ok(Node {
        name: "n1".into(),
        pod_cidrs: vec!["10.244.1.0/24".parse()?],
        gateways: vec!["10.244.1.1".parse()?],
        addresses: vec!["172.30.0.11".parse()?],
        known: vec!["172.30.0.11".parse()?],
        gateway_mac: 0x0a00_0000_0001,
        link: vec!["169.254.77.2".parse()?],
        incoming: vec!["169.254.77.3".parse()?],
        tunnel: None,
        service_cidrs: vec!["10.96.0.0/12".parse()?],
        masquerade: true,
        masquerade_except: Vec::new(),
    })
}

fn pod_name(port: u16) -> Arc<str> {
    format!("shop/pod-{port}").into()
}

fn address(port: u16) -> IpAddr {
    [10, 244, 1, port as u8 + 1].into()
}

fn key(of: &str, number: usize) -> GroupKey {
    GroupKey(format!("pods(ns=shop;{of}={number})").into())
}

fn member(node: &str, addresses: Vec<IpAddr>) -> Arc<Member> {
    Arc::new(Member { node: node.into(), addresses, ports: Vec::new() })
}

fn group(key: GroupKey, members: impl Iterator<Item = (Arc<str>, Arc<Member>)>) -> Update {
    Update::Group(key, Group { members: members.collect() })
}

/// The groups that policies are about, one for each Pod and one of the first two; and those that they name.
fn groups() -> Vec<Update> {
    let local = |port| (pod_name(port), member("n1", vec![address(port)]));
    let mut all: Vec<Update> =
        (1..=PODS).map(|port| group(key("own", port.into()), [local(port)].into_iter())).collect();
    all.push(group(key("both", 0), [local(1), local(2)].into_iter()));
    all.extend((0..GROUPS).map(|number| {
        let members = (0..MEMBERS).map(|index| {
            let nth = number * MEMBERS + index;
            let address = IpAddr::from([10, 244, 2 + (nth / 250) as u8, (nth % 250) as u8 + 2]);
            (Arc::from(format!("shop/far-{nth}")), member(&format!("n{}", 2 + nth / 250), vec![address]))
        });
        group(key("far", number), members)
    }));
    all
}

fn rule(direction: Direction, peers: Vec<Peer>, ports: Vec<Port>) -> Rule {
    Rule { direction, index: 0, name: String::new(), action: Action::Accept, peers: Some(peers), ports: Some(ports) }
}

/// A NetworkPolicy for both ways. The first is about the Pods whose packets are measured; each of the others is about one Pod in
/// turn, these two among them: so many Pods of others on one port of fifty, and one network in four.
fn policy(number: usize) -> Update {
    let name = PolicyName { kind: PolicyKind::NetworkPolicy, namespace: "shop".into(), name: format!("p-{number}") };
    let (subject, rules) = if number == 0 {
        let rules = [Direction::Ingress, Direction::Egress].map(|direction| {
            let ports = vec![Port::Range(Protocol::Udp, ALLOWED, LAST_ALLOWED)];
            rule(direction, vec![Peer::Group(key("both", 0))], ports)
        });
        (key("both", 0), rules.to_vec())
    } else {
        let port = 1_000 + (number % 50) as u16;
        let mut from = vec![Peer::Group(key("far", number % GROUPS))];
        if number.is_multiple_of(4) {
            let bytes = [192, (number / 250) as u8, (number % 250) as u8, 0];
            let net = ipnet::Ipv4Net::new_assert(bytes.into(), 24).into();
            from.push(Peer::Net { net, except: Vec::new() });
        }
        let to = vec![Peer::Group(key("far", (number + 7) % GROUPS))];
        let rules = vec![
            rule(Direction::Ingress, from, vec![Port::Range(Protocol::Tcp, port, port)]),
            rule(Direction::Egress, to, vec![Port::Range(Protocol::Tcp, 5_432, 5_432)]),
        ];
        (key("own", 1 + number % usize::from(PODS)), rules)
    };
    let policy = Policy {
        name: name.clone(),
        generation: 1,
        tier: Tier::Network,
        priority: 0,
        subject,
        isolates: vec![Direction::Ingress, Direction::Egress],
        is_audit: false,
        logs: false,
        rules,
    };
    Update::Policy(name, Some(Arc::new(policy)))
}

fn gone(update: &Update) -> Update {
    match update {
        Update::Policy(name, _) => Update::Policy(name.clone(), None),
        other => other.clone(),
    }
}

/// A packet of the first Pod's to the second.
fn packet(from_port: u32, to_port: u16) -> FlowKey {
    let mut key = FlowKey::ZERO;
    let bits = |address| match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    for (slot, value) in [
        (slot::ETH_SRC, 0x0a00_0000_0100 + u128::from(IN_PORT.0)),
        (slot::ETH_DST, ROUTER_MAC.into()),
        (slot::ETH_TYPE, 0x0800),
        (slot::IP_PROTO, 17),
        (slot::IP_TTL, 64),
        (slot::IP_SRC, bits(address(IN_PORT.0))),
        (slot::IP_DST, bits(address(OUT_PORT.0))),
        (slot::TP_SRC, u128::from(from_port) & 0xffff),
        (slot::TP_DST, to_port.into()),
    ] {
        key.set(slot, value);
    }
    key
}

/// A rig with so many policies, and from when the node role was told until they were in force.
fn with_policies(count: usize) -> Outcome<(Rig, Duration)> {
    let mut rig = Rig::start()?;
    let took = rig.tell(&updates(count))?;
    Ok((rig, took))
}

fn updates(count: usize) -> Vec<Update> {
    groups().into_iter().chain((0..count).map(policy)).collect()
}

fn run(count: usize) -> Outcome<Row> {
    let before = ALLOC.in_use();
    let (empty, _) = with_policies(0)?;
    let without = ALLOC.in_use().saturating_sub(before);
    drop(empty);
    let before = ALLOC.in_use();
    let (mut rig, in_force) = with_policies(count)?;
    let both = ALLOC.in_use().saturating_sub(before).saturating_sub(without);
    let switch = memory_of_flows(count)?;
    let changes = changes(&mut rig, count)?;
    let flows = rig.policies.flows();
    let hit = traffic(&rig.replay, (0..FLOWS.into()).map(|n| packet(1_024 + n, ALLOWED)), true)?;
    let model = rig.replay.datapath().model();
    let lookup = lookups(&model, ALLOWED, true)?;
    let denied_lookup = lookups(&model, DENIED, count == 0)?;
    rig.replay.shutdown();
    drop(rig);
    let (rig, _) = with_policies(count)?;
    let denied_hit = traffic(&rig.replay, (0..FLOWS.into()).map(|n| packet(1_024 + n, DENIED)), count == 0)?;
    rig.replay.shutdown();
    drop(rig);
    let (rig, _) = with_policies(count)?;
    let connection = beginnings(&rig.replay)?;
    rig.replay.shutdown();
    let controller = both.saturating_sub(switch);
    Ok(Row {
        policies: count,
        flows,
        hit,
        denied_hit,
        lookup,
        denied_lookup,
        connection,
        in_force,
        switch,
        controller,
        changes,
    })
}

/// What the flows of policies alone take in a switch.
fn memory_of_flows(count: usize) -> Outcome<usize> {
    let replay = Replay::start(Some(1))?;
    replay.measure(STARTED);
    let before = ALLOC.in_use();
    {
        let mut policies = Policies::new(&node()?);
        (1..=PODS).for_each(|port| {
            policies.put_pod(&pod_name(port), LocalPod { port: port.into(), addresses: vec![address(port)] });
        });
        policies.update(&updates(count));
        let flows = policies.take().into_iter().filter_map(|(_, part)| part).flat_map(|part| part.flows);
        let texts = flows.map(|flow| {
            let reason = flow.drop_reason.map(|reason| format!("drop_reason={reason},")).unwrap_or_default();
            let actions = if flow.actions.is_empty() { "drop" } else { &flow.actions };
            let head = format!("table={},priority={},{reason}owner={}", flow.table, flow.priority, flow.owner);
            format!("{head},{} actions={actions}", flow.matching)
        });
        let mods = texts.map(|text| Ok(parse_flow_mod(&text, Names::NONE)?.value)).collect::<Outcome<Vec<_>>>()?;
        replay.datapath().apply_bundle(BRIDGE, &mods)?;
    }
    let used = ALLOC.in_use().saturating_sub(before);
    replay.shutdown();
    Ok(used)
}

/// One policy more, and one less, over and over: median and 99th percentile of both.
fn changes(rig: &mut Rig, count: usize) -> Outcome<[Duration; 4]> {
    let mut times = [Vec::new(), Vec::new()];
    for number in count.max(1)..count.max(1) + CHANGES {
        let one = policy(number);
        times[0].push(rig.tell(std::slice::from_ref(&one))?);
        times[1].push(rig.tell(&[gone(&one)])?);
    }
    let [[more, more_99], [less, less_99]] = times.map(|mut times| {
        times.sort_unstable();
        [50, 99].map(|percent| times.get(times.len() * percent / 100).copied().unwrap_or_default())
    });
    Ok([more, more_99, less, less_99])
}

/// Packets over and over; what one costs when it is cached. They all pass, or none does.
fn traffic(replay: &Replay, packets: impl Iterator<Item = FlowKey>, do_pass: bool) -> Outcome<f64> {
    replay.begin(Recording::from_frames(packets.map(|key| compose(&key, &[b'x'; 18]))))?;
    replay.measure(Duration::from_millis(500));
    let windows = (0..8).map(|_| replay.measure(Duration::from_millis(250)));
    let rate = |measured: &Measured| measured.packets_per_cpu_second().unwrap_or_default();
    let best = windows.max_by(|a, b| rate(a).total_cmp(&rate(b))).ok_or("no windows")?;
    let (passed, missed) = (best.forwarded(), best.share(|stats| stats.cache.misses + stats.cache.stale));
    if passed != if do_pass { best.packets() } else { 0 } || missed > 0.001 {
        return Err(format!("{passed} of {} passed, {missed:.3} were not cached", best.packets()).into());
    }
    Ok(1e9 / rate(&best))
}

/// What a packet costs that begins a connection.
fn beginnings(replay: &Replay) -> Outcome<f64> {
    let packets = (0..NEW).map(|n| packet(1_024 + n % 60_000, ALLOWED + (n / 60_000) as u16));
    replay.begin(Recording::from_frames(packets.map(|key| compose(&key, &[b'x'; 18]))))?;
    let measured = replay.measure(Duration::from_millis(100));
    let (seen, known) = (measured.packets(), replay.datapath().connections_len());
    if known >= NEW || measured.forwarded() != seen {
        return Err(format!("{known} connections of {seen} packets, {:?}", measured.dropped()).into());
    }
    Ok(1e9 / measured.packets_per_cpu_second().unwrap_or_default())
}

/// What all passes of a connection's first packet through the tables take.
fn lookups(model: &Model, port: u16, do_pass: bool) -> Outcome<f64> {
    let bridge = model.bridge_named(BRIDGE).ok_or("no bridge")?;
    let ingress = bridge.ports.get(&IN_PORT).ok_or("no port")?.dp;
    let keys: Vec<FlowKey> = (0..2_000).map(|n| packet(1_024 + n, port)).collect();
    let mut best = f64::MAX;
    for _ in 0..10 {
        let start = Instant::now();
        let mut passed = 0;
        for key in &keys {
            passed += usize::from(black_box(passes(model, ingress, key)));
        }
        best = best.min(start.elapsed().as_nanos() as f64 / keys.len() as f64);
        if passed != if do_pass { keys.len() } else { 0 } {
            return Err(format!("{passed} of {} pass", keys.len()).into());
        }
    }
    Ok(best)
}

/// Whether the first packet of a connection leaves.
fn passes(model: &Model, ingress: DpPort, key: &FlowKey) -> bool {
    let leaves = |made: &Translation| made.actions.iter().any(|action| matches!(action, DpAction::Output(_)));
    let mut made = translate(model, &NoMacs, ingress, key, &mut NoTrace);
    while let Some(resume) = made.resumes.first() {
        let mut key = resume.key;
        key.set(slot::CT_STATE, (CT_TRK | CT_NEW).into());
        key.set(slot::CT_ZONE, resume.ct_zone.unwrap_or_default().into());
        let Some(next) = translate_resumed(model, &NoMacs, resume, &key, &mut NoTrace) else { return false };
        made = next;
    }
    leaves(&made)
}
