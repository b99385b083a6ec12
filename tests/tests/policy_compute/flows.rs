//! What becomes of the first packet of a connection in the flows of all nodes: whether it leaves its Pod, and whether it comes to its
//! Pod, there or on another node; by whose rule, and what the connection remembers of that.

use crate::node::{Fate, LOCAL, NodeFlows, TUNNEL, asks, facts, pod_cidrs, tunnel_end};
use crate::shares::{Who, computed, is_reason, protocol, who, whos};
use crate::worlds;
use sluice_controller::facts::policy::{Direction, State};
use sluice_controller::facts::{Endpoint, Frontend, Node, Peer, Pod, Scope, Service, ServicePort, Way};
use sluice_controller::pipeline::{self, ROUTER_MAC};
use sluice_controller::policy::{Because, RuleName};
use sluice_flows::key::{FRAME_WORDS, FlowKey, slot};
use sluice_tests::policy as oracle;
use sluice_tests::policy::{Half, Probe, World};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The port that clients use of every Service.
const SERVICE_PORT: u16 = 7;
/// Of the questions about a cluster, so many are asked of a Service, too.
const SERVICES: usize = 4;

/// The nodes of a cluster.
struct Network {
    nodes: BTreeMap<String, NodeFlows>,
    states: BTreeMap<String, State>,
    whos: Vec<(IpAddr, Who)>,
    /// The ports of Pods, by their names.
    ports: BTreeMap<String, u16>,
    is_encapsulated: bool,
}

/// What became of the two halves of a way.
struct Halves {
    /// At the source, if it is a Pod.
    egress: Option<Ours>,
    /// At the destination, if it is a Pod, and if it got there.
    ingress: Option<Ours>,
}

/// What the flows of a node say at one end.
struct Ours {
    node: String,
    /// Who denied it; none if it passed.
    denied: Option<String>,
    /// The rule that the connection remembers, if there is a connection.
    rule: Option<Option<pipeline::RuleName>>,
    walk: String,
}

impl Network {
    fn new(world: &World, services: &[Service], is_encapsulated: bool) -> Self {
        let (states, whos) = (computed(world), whos(world));
        let mut addresses: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
        let mut pods: BTreeMap<&str, BTreeMap<&str, Vec<IpAddr>>> = BTreeMap::new();
        for (address, who) in &whos {
            match who {
                Who::Host(node) => addresses.entry(node).or_default().push(*address),
                Who::Pod(pod, node) => pods.entry(node).or_default().entry(pod).or_default().push(*address),
                Who::Outside => {}
            }
        }
        let mut names: Vec<&str> = addresses.keys().chain(pods.keys()).copied().collect();
        names.sort_unstable();
        names.dedup();
        let all: Vec<Node> = names
            .iter()
            .map(|name| facts(name, addresses.get(name).cloned().unwrap_or_default(), is_encapsulated))
            .collect();
        let peers: Vec<Peer> = all.iter().map(|node| peer(node, is_encapsulated)).collect();
        let (mut nodes, mut ports) = (BTreeMap::new(), BTreeMap::new());
        for facts in all {
            let name = facts.name.clone();
            let own: Vec<Pod> = (10..)
                .zip(pods.remove(name.as_str()).into_iter().flatten())
                .map(|(port, (pod, addresses))| {
                    ports.insert(pod.to_owned(), port as u16);
                    Pod { owner: format!("pod:{pod}"), port, mac: mac(port as u16), addresses, host_ports: Vec::new() }
                })
                .collect();
            let others: Vec<Peer> = peers.iter().filter(|peer| peer.name != name).cloned().collect();
            let state = states.get(&name).cloned().unwrap_or_default();
            nodes.insert(name, NodeFlows::new(&facts, &others, &own, services, &state));
        }
        Self { nodes, states, whos, ports, is_encapsulated }
    }

    /// Sends the packet of a question, to an address and port that are its own or a Service's that leads there, and says what became
    /// of it.
    fn halves(&self, probe: &Probe, address: IpAddr, port: u16) -> Halves {
        let (from, to) = (who(&self.whos, &probe.from), who(&self.whos, &probe.to));
        let own = match &from {
            Who::Pod(pod, _) => Some(self.ports[pod]),
            _ => None,
        };
        let first = |address, port| packet(own, probe.from.address(), address, probe.protocol, port);
        let packet = &first(address, port);
        let home = match &to {
            Who::Pod(_, node) => Some(node),
            _ => None,
        };
        let (fate, node) = match (&from, home) {
            (Who::Pod(pod, node), _) => (self.nodes[node].send(self.ports[pod], packet), node),
            // Without encapsulation hosts have ways of their own to each other.
            (Who::Host(node), Some(_)) if self.is_encapsulated => (self.nodes[node].send(LOCAL, packet), node),
            (_, Some(home)) => (self.nodes[home].send(LOCAL, packet), home),
            _ => panic!("{probe} is of no Pod"),
        };
        let mut halves = Halves { egress: None, ingress: None };
        let is_of_egress = |fate: &Fate| matches!(&fate.dropped, Some((table, ..)) if asks(*table, true));
        if matches!(from, Who::Pod(..)) {
            halves.egress = Some(Ours::new(node, &fate, Direction::Egress));
        } else {
            assert!(!is_of_egress(&fate), "{probe}: policies hold back who is no Pod\n{}", fate.walk);
        }
        let Some(home) = home else {
            // Of some addresses in the Pods' networks nobody is there.
            let is_nowhere = matches!(&fate.dropped, Some((_, "no_route", _)));
            assert!(is_of_egress(&fate) || fate.left.is_some() || is_nowhere, "{probe}: {}", fate.walk);
            return halves;
        };
        if home == node {
            if !is_of_egress(&fate) {
                halves.ingress = Some(Ours::new(home, &fate, Direction::Ingress));
                self.check_arrival(&fate, home, probe);
            }
            return halves;
        }
        // As it arrives; also if it did not leave, so that there is an answer of that end.
        let (port, packet) = match &fate.left {
            Some((port, sent)) => (*port, arriving(sent)),
            None if is_of_egress(&fate) => {
                (if self.is_encapsulated { TUNNEL } else { LOCAL }, arriving(&first(probe.to.address(), probe.port)))
            }
            None => panic!("{probe}: {}", fate.walk),
        };
        assert_eq!(port == TUNNEL, self.is_encapsulated, "{probe}: {}", fate.walk);
        let fate = self.nodes[home].send(port, &packet);
        halves.ingress = Some(Ours::new(home, &fate, Direction::Ingress));
        self.check_arrival(&fate, home, probe);
        halves
    }

    /// What is not denied leaves by the Pod's port with the Pod's address and port.
    fn check_arrival(&self, fate: &Fate, home: &str, probe: &Probe) {
        match (&fate.left, &fate.dropped) {
            (Some((port, packet)), _) => {
                let Who::Pod(pod, _) = who(&self.whos, &probe.to) else { return };
                assert_eq!(*port, self.ports[&pod], "{probe}: {}", fate.walk);
                assert_eq!((destination(packet), packet.get(slot::TP_DST)), (probe.to.address(), probe.port.into()));
            }
            (_, dropped) => {
                let is_of_ingress = matches!(dropped, Some((table, ..)) if asks(*table, false));
                assert!(is_of_ingress, "{probe}: dropped on {home} otherwise: {}", fate.walk);
            }
        }
    }

    /// Whether what the flows say of an end is what the evaluator says of it.
    fn is_right(&self, half: &Half, ours: &Ours, direction: Direction) -> bool {
        if half.allowed != ours.denied.is_none() {
            return false;
        }
        let state = self.states.get(&ours.node);
        let is_rule = |name: &pipeline::RuleName| {
            let index = Some(name.index);
            let rule = RuleName { policy: &name.policy, direction: name.direction, index };
            is_reason(state, &half.because, &Because::Rule(rule))
        };
        match (&ours.denied, &ours.rule) {
            (Some(owner), _) => match &half.because {
                oracle::Because::DefaultDeny(policies) => *owner == default_owner(policies, direction),
                _ => state.is_some_and(|state| {
                    let Some((policy, index)) = owner.split_once(&format!("/{}/", direction.name())) else {
                        return false;
                    };
                    let policy = state.policies.keys().find(|name| name.to_string() == policy);
                    let name = policy.zip(index.parse().ok());
                    name.is_some_and(|(policy, index)| {
                        is_rule(&pipeline::RuleName { policy: policy.clone(), direction, index })
                    })
                }),
            },
            (None, Some(Some(rule))) => is_rule(rule),
            (None, Some(None)) => !matches!(half.because, oracle::Because::Rules(_) | oracle::Because::DefaultDeny(_)),
            // It did not come so far that anybody would remember.
            (None, None) => true,
        }
    }
}

impl Ours {
    fn new(node: &str, fate: &Fate, direction: Direction) -> Self {
        let is_egress = direction == Direction::Egress;
        let denied = fate.dropped.as_ref().filter(|(table, ..)| asks(*table, is_egress));
        let rules = fate.rules.as_ref();
        Self {
            node: node.to_owned(),
            denied: denied.map(|(_, _, owner)| owner.clone()),
            rule: rules.map(|rules| rules[usize::from(!is_egress)].clone()),
            walk: fate.walk.clone(),
        }
    }
}

/// Another node, as all know it.
fn peer(node: &Node, is_encapsulated: bool) -> Peer {
    let way = if is_encapsulated { Way::Tunnel(tunnel_end(&node.name)) } else { Way::Host };
    let pod_cidrs = pod_cidrs(&node.name).into_iter().map(|cidr| (cidr, way)).collect();
    Peer { name: node.name.clone(), addresses: node.known.clone(), pod_cidrs }
}

fn mac(port: u16) -> u64 {
    0x0a00_0000_0100 + u64::from(port)
}

/// What a NetworkPolicy's isolation has as its owner: four names, and how many there are beside them.
fn default_owner(policies: &[oracle::PolicyName], direction: Direction) -> String {
    let names: Vec<String> = policies.iter().map(|of| format!("{}/{}", of.namespace, of.name)).collect();
    let shown = names.len().min(4);
    let more = match names.len() - shown {
        0 => String::new(),
        more => format!("+{more}more"),
    };
    format!("np:{}{more}/{}/default", names[..shown].join("+"), direction.name())
}

/// The first packet of a connection, as it comes out of a Pod's interface or a host's.
fn packet(port: Option<u16>, source: IpAddr, destination: IpAddr, protocol: oracle::Protocol, to_port: u16) -> FlowKey {
    let mut key = FlowKey::ZERO;
    let (eth_type, src, dst) = match source {
        IpAddr::V4(_) => (0x0800, slot::IP_SRC, slot::IP_DST),
        IpAddr::V6(_) => (0x86dd, slot::IPV6_SRC, slot::IPV6_DST),
    };
    let bits = |address| match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    for (slot, value) in [
        (slot::ETH_SRC, port.map_or(0x0a00_0000_0001, mac).into()),
        (slot::ETH_DST, ROUTER_MAC.into()),
        (slot::ETH_TYPE, eth_type),
        (slot::IP_PROTO, protocol.number().into()),
        (slot::IP_TTL, 64),
        (src, bits(source)),
        (dst, bits(destination)),
        (slot::TP_SRC, 40_000),
        (slot::TP_DST, to_port.into()),
        (slot::TCP_FLAGS, if protocol == oracle::Protocol::Tcp { 2 } else { 0 }),
    ] {
        key.set(slot, value);
    }
    key
}

/// A packet that has left a node as it comes to another one: its headers are all that there is of it.
fn arriving(sent: &FlowKey) -> FlowKey {
    let mut key = FlowKey::ZERO;
    key.0[..FRAME_WORDS].copy_from_slice(&sent.0[..FRAME_WORDS]);
    key.set(slot::IN_PORT, 0);
    key
}

fn destination(packet: &FlowKey) -> IpAddr {
    match packet.get(slot::ETH_TYPE) {
        0x0800 => std::net::Ipv4Addr::from_bits(packet.get(slot::IP_DST) as u32).into(),
        _ => std::net::Ipv6Addr::from_bits(packet.get(slot::IPV6_DST)).into(),
    }
}

/// A Service's own address.
fn cluster_ip(number: usize, is_ipv4: bool) -> IpAddr {
    let text = if is_ipv4 { format!("10.96.0.{}", number + 10) } else { format!("fd00:10:96::{:x}", number + 10) };
    text.parse().unwrap()
}

/// A Service with one endpoint, where a question leads.
fn service(number: usize, probe: &Probe) -> Service {
    let address = probe.to.address();
    let end = Endpoint { address, port: probe.port };
    let frontend = Frontend {
        address: cluster_ip(number, address.is_ipv4()),
        port: SERVICE_PORT,
        inside: Scope::Cluster,
        outside: None,
        sources: Vec::new(),
    };
    let port = ServicePort {
        name: String::new(),
        protocol: protocol(probe.protocol),
        v6: address.is_ipv6(),
        frontends: vec![frontend],
        cluster: vec![end],
        local: Vec::new(),
    };
    Service { name: format!("x/s-{number}"), ports: vec![port], affinity_s: None }
}

/// How many answers were compared, and how many of them deny.
#[derive(Debug, Default)]
struct Compared {
    answers: usize,
    denied: usize,
    /// Of these, where a Service chose the destination.
    by_service: usize,
}

/// Holds a cluster's flows against the evaluator; the first difference in words if there is any.
fn differs(world: &World, seed: u64, probes: &[Probe], compared: &mut Compared) -> Option<(Probe, String)> {
    let is_pod = |whos: &[(IpAddr, Who)], end| matches!(who(whos, end), Who::Pod(..));
    let all = whos(world);
    let of_services: Vec<&Probe> =
        probes.iter().filter(|probe| is_pod(&all, &probe.from) && is_pod(&all, &probe.to)).take(SERVICES).collect();
    let services: Vec<Service> = (0..).zip(&of_services).map(|(number, probe)| service(number, probe)).collect();
    let network = Network::new(world, &services, seed.is_multiple_of(2));
    let direct = probes.iter().map(|probe| (probe, probe.to.address(), probe.port));
    let by_service = (0..).zip(of_services).map(|(number, probe)| {
        let is_ipv4 = probe.to.address().is_ipv4();
        (probe, cluster_ip(number, is_ipv4), SERVICE_PORT)
    });
    let count = probes.len();
    for (index, (probe, to, port)) in direct.chain(by_service).enumerate() {
        let verdict = probe.verdict(world);
        let halves = network.halves(probe, to, port);
        for (direction, half, ours) in [
            (Direction::Egress, &verdict.egress, halves.egress),
            (Direction::Ingress, &verdict.ingress, halves.ingress),
        ] {
            let Some(ours) = ours else { continue };
            // A Pod that some NetworkPolicy isolates gets its answer there, also about its own node; we ask the next tier.
            let is_decided = ours.denied.is_some() || matches!(ours.rule, Some(Some(_)));
            let is_later = half.because == oracle::Because::OwnNode && direction == Direction::Egress && is_decided;
            if half.ambiguous || is_later {
                continue;
            }
            compared.answers += 1;
            compared.denied += usize::from(!half.allowed);
            compared.by_service += usize::from(index >= count);
            if !network.is_right(half, &ours, direction) {
                let way = if index < count { "" } else { " by a Service" };
                let (said, walk) = (&ours.denied, &ours.walk);
                let told = format!("{probe}{way}, {}: {half}, but {said:?} {:?}\n{walk}", direction.name(), ours.rule);
                return Some((probe.clone(), told));
            }
        }
    }
    None
}

#[test]
fn packets_of_random_clusters_pass_where_the_reference_evaluator_says_so() {
    let mut compared = Compared::default();
    let seeds = worlds();
    let count = seeds.end as usize;
    for seed in seeds {
        let world = World::random(seed, 1 + (seed % 10) as usize);
        let probes = world.probes(seed, 40);
        let Some((probe, told)) = differs(&world, seed, &probes, &mut compared) else { continue };
        let one = std::slice::from_ref(&probe);
        let small = world.shrunk(&probe, |small| differs(small, seed, one, &mut Compared::default()).is_some());
        let told = differs(&small, seed, one, &mut Compared::default()).map_or(told, |(_, told)| told);
        panic!("seed {seed}: {told}\n{}", small.write());
    }
    println!("{count} clusters: {compared:?}");
    let few = compared.answers < 10 * count || compared.denied < count || compared.by_service < count;
    assert!(!few, "{compared:?} are too few to show anything");
}
