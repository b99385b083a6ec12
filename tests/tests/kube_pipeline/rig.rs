//! Two nodes with the pipeline on real switches, joined by a tunnel of memory: what is sent into a port is followed until it leaves
//! by one that is no tunnel.

use crate::packet::{Packet, Proto, Seen, error};
use ipnet::IpNet;
use sluice_controller::facts::{Endpoint, Frontend, Node, Peer, Pod, Protocol, Scope, Service, ServicePort, Way};
use sluice_controller::flow::{COOKIE, Part};
use sluice_controller::pipeline::{self, Ids, ROUTER_MAC};
use sluice_flows::DropReason;
use sluice_flows::bridge::VlanMode;
use sluice_flows::bridge_mod::BridgeMod;
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::packet::Frame;
use sluice_flows::station::{Guard, Station};
use sluice_flows::text::{GroupCommand, Names, parse_filter, parse_flow_mod, parse_group_mod};
use sluice_flows::tunnel::{Byte, Part as Decides, Tunnel, TunnelKey, TunnelKind};
use sluice_flows::{Owner, PortNo};
use sluice_switch::{Config, FailMode};
use sluice_tests::switch::Switch;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

pub(crate) const LOCAL: u16 = 0xfffe;
pub(crate) const TUNNEL: u16 = 100;
/// Pods of each node, by their ports; the number is the last part of the address too.
pub(crate) const PODS: [u16; 2] = [10, 11];

/// How nodes reach each other's Pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Encap,
    Routed,
}

/// A place: the node, 0 or 1, and the port of its switch.
pub(crate) type Place = (usize, u16);

/// What came out, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Out {
    pub(crate) at: Place,
    pub(crate) seen: Seen,
    /// Whether it took the tunnel.
    pub(crate) tunnelled: bool,
}

pub(crate) struct Net {
    pub(crate) v6: bool,
    pub(crate) nodes: Vec<NodeRig>,
}

pub(crate) struct NodeRig {
    pub(crate) facts: Node,
    pub(crate) switch: Switch,
    ids: Ids,
    cookies: BTreeMap<String, (u64, BTreeSet<u32>)>,
}

impl Net {
    pub(crate) fn new(mode: Mode, v6: bool) -> Self {
        Self::with(mode, v6, Config::default(), |_| {})
    }

    /// With other facts about the nodes.
    pub(crate) fn with(mode: Mode, v6: bool, config: Config, change: impl Fn(&mut Node)) -> Self {
        let nodes = [0, 1].map(|n| NodeRig::new(n, mode, config.clone(), &change));
        Self { v6, nodes: nodes.into() }
    }

    fn pick(&self, v4: String, v6: String) -> IpAddr {
        pick(self.v6, &v4, &v6)
    }

    pub(crate) fn pod(&self, place: Place) -> IpAddr {
        let (n, port) = (place.0 + 1, place.1);
        self.pick(format!("10.244.{n}.{port}"), format!("fd00:10:244:{n}::{port:x}"))
    }

    pub(crate) fn gateway(&self, n: usize) -> IpAddr {
        self.nodes[n].facts.gateways[usize::from(self.v6)]
    }

    pub(crate) fn address(&self, n: usize) -> IpAddr {
        self.nodes[n].facts.addresses[usize::from(self.v6)]
    }

    pub(crate) fn link(&self, n: usize) -> IpAddr {
        self.nodes[n].facts.link[usize::from(self.v6)]
    }

    pub(crate) fn incoming(&self, n: usize) -> IpAddr {
        self.nodes[n].facts.incoming[usize::from(self.v6)]
    }

    /// Somebody outside the cluster.
    pub(crate) fn outsider(&self) -> IpAddr {
        self.pick("198.51.100.7".into(), "2001:db8:51::7".into())
    }

    /// An address of a Service.
    pub(crate) fn cluster_ip(&self, number: u8) -> IpAddr {
        self.pick(format!("10.96.0.{number}"), format!("fd00:10:96::{number:x}"))
    }

    /// An address of a load balancer.
    pub(crate) fn balanced(&self) -> IpAddr {
        self.pick("203.0.113.80".into(), "2001:db8:113::80".into())
    }

    /// Gives both nodes a Service, in the place of the one with its name. Each node knows which endpoints are its own.
    pub(crate) fn put(&mut self, service: &Service) {
        for node in &mut self.nodes {
            let mut own = service.clone();
            for port in &mut own.ports {
                let nets = &node.facts.pod_cidrs;
                let is_local = |end: &Endpoint| {
                    nets.iter().any(|net| net.contains(&end.address)) || node.facts.addresses.contains(&end.address)
                };
                port.local = port.cluster.iter().copied().filter(is_local).collect();
                for frontend in &mut port.frontends {
                    // The address that each node's own host sends to.
                    if let Some(own) = node.facts.incoming.iter().find(|own| own.is_ipv6() == port.v6)
                        && frontend.address == placeholder(port.v6)
                    {
                        frontend.address = *own;
                    }
                }
            }
            let part = pipeline::service(&node.facts, &own, &mut node.ids);
            node.apply(&service.name, &part);
        }
    }

    /// Takes a Service from both nodes.
    pub(crate) fn remove(&mut self, name: &str) {
        for node in &mut self.nodes {
            node.ids.release(name);
            node.apply(name, &Part::default());
        }
    }

    /// A Service with one port for `proto`, 80 at its own address, 30080 at each node's incoming address, 80 at the load balancer's;
    /// these two with the endpoints of `outside` for others than Pods and nodes.
    pub(crate) fn service(&self, proto: Proto, outside: Scope, ends: &[SocketAddr]) -> Service {
        let frontend = |address, port, outside| Frontend {
            address,
            port,
            inside: Scope::Cluster,
            outside: Some(outside),
            sources: Vec::new(),
        };
        let mut cluster: Vec<Endpoint> =
            ends.iter().map(|end| Endpoint { address: end.ip(), port: end.port() }).collect();
        cluster.sort();
        let port = ServicePort {
            name: "p".into(),
            protocol: match proto {
                Proto::Tcp => Protocol::Tcp,
                Proto::Udp => Protocol::Udp,
                _ => Protocol::Sctp,
            },
            v6: self.v6,
            frontends: vec![
                frontend(self.cluster_ip(10), 80, Scope::Cluster),
                frontend(placeholder(self.v6), 30_080, outside),
                frontend(self.balanced(), 80, outside),
            ],
            cluster,
            local: Vec::new(),
        };
        Service { name: "default/web".into(), ports: vec![port], affinity_s: None }
    }

    /// Sends an IP packet into a port, from the station there, and says what leaves by others than tunnels.
    pub(crate) fn send(&mut self, at: Place, ip: &[u8]) -> Vec<Out> {
        let src = if at.1 == LOCAL { self.nodes[at.0].facts.gateway_mac } else { mac_of(at) };
        let out = self.send_frame(at, &[&ethernet(ROUTER_MAC, src, ip[0] >> 4 == 6), ip].concat());
        out.into_iter().map(|(at, tunnelled, frame)| self.judge(at, tunnelled, &frame)).collect()
    }

    fn judge(&self, at: Place, tunnelled: bool, frame: &[u8]) -> Out {
        let to = if at.1 == LOCAL { self.nodes[at.0].facts.gateway_mac } else { mac_of(at) };
        let v6 = frame[14] >> 4 == 6;
        assert_eq!(frame[..14], ethernet(to, ROUTER_MAC, v6), "the switch routes: {at:?}");
        Out { at, seen: Seen::read(&frame[14..]), tunnelled }
    }

    /// Sends a frame, and follows it through the tunnel.
    pub(crate) fn send_frame(&mut self, at: Place, frame: &[u8]) -> Vec<(Place, bool, Vec<u8>)> {
        let mut out = Vec::new();
        let mut waiting = vec![(at, Frame::from_bytes(frame), false)];
        for _ in 0..10 {
            let Some(((n, port), frame, tunnelled)) = waiting.pop() else { return out };
            let node = &mut self.nodes[n];
            node.switch.send_frame(port, frame);
            node.switch.wait();
            for left in [LOCAL, TUNNEL].into_iter().chain(PODS) {
                for frame in node.switch.take(left) {
                    if left != TUNNEL {
                        out.push(((n, left), tunnelled, frame.bytes().to_vec()));
                        continue;
                    }
                    let (here, there) = (node.facts.addresses[0], other(n));
                    let to = frame.tunnel.and_then(|key| key.dst());
                    assert_eq!(to, Some(pick(false, &format!("172.30.0.{}", there + 1), "")), "the tunnel's far end");
                    let mut arrives = Frame::from_bytes(frame.bytes());
                    let mut key = TunnelKey::NONE;
                    key.set_src(here);
                    key.set_dst(to.unwrap());
                    arrives.tunnel = Some(key);
                    waiting.push(((there, TUNNEL), arrives, true));
                }
            }
        }
        panic!("a packet goes round between the nodes");
    }

    /// The one packet that comes of a packet.
    pub(crate) fn one(&mut self, at: Place, packet: &Packet) -> (Place, Packet, bool) {
        let out = self.send(at, &packet.ip());
        match &out[..] {
            [Out { at, seen: Seen::Packet(packet), tunnelled }] => (*at, packet.clone(), *tunnelled),
            _ => panic!("{packet:?} at {at:?} became {out:?}\n{}", self.drops()),
        }
    }

    /// Nothing comes of a packet, and this reason is counted once more.
    pub(crate) fn dropped(&mut self, at: Place, packet: &Packet, reason: DropReason) {
        let before: u64 = self.nodes.iter().map(|node| node.switch.dropped(reason)).sum();
        let out = self.send(at, &packet.ip());
        assert_eq!(out, [], "{packet:?}");
        let after: u64 = self.nodes.iter().map(|node| node.switch.dropped(reason)).sum();
        assert_eq!(after, before + 1, "{packet:?}: {}", self.drops());
    }

    /// Its sender is told that it went nowhere, and nothing else comes of it.
    pub(crate) fn answered_with_an_error(&mut self, at: Place, packet: &Packet, reason: DropReason) {
        let count = |net: &Self| -> u64 { net.nodes.iter().map(|node| node.switch.dropped(reason)).sum() };
        let before = count(self);
        let src = if at.1 == LOCAL { self.nodes[at.0].facts.gateway_mac } else { mac_of(at) };
        let ip = packet.ip();
        let out = self.send_frame(at, &[&ethernet(ROUTER_MAC, src, self.v6)[..], &ip].concat());
        let [(place, false, frame)] = &out[..] else { panic!("{packet:?} became {out:?}\n{}", self.drops()) };
        assert_eq!(*place, at);
        assert_eq!(count(self), before + 1, "{packet:?}: {}", self.drops());
        match (packet.proto, frame[14] >> 4, frame[23], frame[20]) {
            // A reset, or an ABORT.
            (Proto::Tcp, 4, 6, _) | (Proto::Tcp, 6, _, 6) | (Proto::Sctp, 4, 132, _) | (Proto::Sctp, 6, _, 132) => {}
            _ => match Seen::read(&frame[14..]) {
                Seen::Error { dst, about, .. } => assert_eq!((dst, &about), (packet.src.ip(), packet)),
                Seen::Packet(other) => panic!("{other:?} is no error"),
            },
        }
    }

    /// What was dropped so far.
    pub(crate) fn drops(&self) -> String {
        let mut text = String::new();
        for (n, node) in self.nodes.iter().enumerate() {
            node.switch.sync();
            for drop in node.switch.datapath.drops() {
                let rule = drop.rule.as_ref().map(|rule| format!("{:?} {:?}", rule.spec.table, rule.spec.matches));
                text += &format!("node {n}: {} x {} {rule:?}\n", drop.packets, drop.reason.name());
            }
        }
        text
    }

    /// A conversation of a client with a server's address: what is said there and back arrives as it has to, errors about it
    /// too. Gives who answers, where, and whom it sees.
    pub(crate) fn talk(&mut self, proto: Proto, at: Place, client: SocketAddr, server: SocketAddr) -> Talk {
        let (far, first, tunnelled) = self.one(at, &Packet::new(proto, 0, client, server));
        let seen = Talk { at: far, client: first.src, server: first.dst, tunnelled };
        self.go_on(proto, at, client, server, &seen);
        self.complain(proto, at, client, server, &seen);
        seen
    }

    /// The same again, from the answer on.
    pub(crate) fn go_on(&mut self, proto: Proto, at: Place, client: SocketAddr, server: SocketAddr, seen: &Talk) {
        for step in [1, 2, 3, 4, 4] {
            let (from, ends, to, wanted) = if step % 2 == 0 {
                (at, (client, server), seen.at, (seen.client, seen.server))
            } else {
                (seen.at, (seen.server, seen.client), at, (server, client))
            };
            let (out, packet, tunnelled) = self.one(from, &Packet::new(proto, step, ends.0, ends.1));
            assert_eq!(out, to, "step {step} of {client} to {server}, seen as {seen:?}");
            assert_eq!(packet, Packet::new(proto, step, wanted.0, wanted.1));
            assert_eq!(tunnelled, seen.tunnelled);
        }
    }

    /// Both ends send an error about what they got last.
    fn complain(&mut self, proto: Proto, at: Place, client: SocketAddr, server: SocketAddr, seen: &Talk) {
        if proto == Proto::Ping {
            return;
        }
        let got = Packet::new(proto, 4, seen.client, seen.server);
        let out = self.send(seen.at, &error(seen.server.ip(), seen.client.ip(), &got));
        let about = Packet::new(proto, 4, client, server);
        let wanted = Seen::Error { src: server.ip(), dst: client.ip(), about };
        assert_eq!(
            out,
            [Out { at, seen: wanted, tunnelled: seen.tunnelled }],
            "an error about {got:?} {}",
            self.drops()
        );
        let got = Packet::new(proto, 3, server, client);
        let out = self.send(at, &error(client.ip(), server.ip(), &got));
        let about = Packet::new(proto, 3, seen.server, seen.client);
        let wanted = Seen::Error { src: seen.client.ip(), dst: seen.server.ip(), about };
        assert_eq!(out, [Out { at: seen.at, seen: wanted, tunnelled: seen.tunnelled }], "an error about {got:?}");
    }
}

/// Who answers, where, and whom it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Talk {
    pub(crate) at: Place,
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
    pub(crate) tunnelled: bool,
}

pub(crate) fn other(n: usize) -> usize {
    1 - n
}

/// In a frontend, the incoming address of whichever node.
fn placeholder(v6: bool) -> IpAddr {
    pick(v6, "0.0.0.0", "::")
}

pub(crate) fn pick(v6: bool, v4: &str, six: &str) -> IpAddr {
    if v6 { six.parse().unwrap() } else { v4.parse().unwrap() }
}

pub(crate) fn mac_of(place: Place) -> u64 {
    0x0a00_0000_0000 + (place.0 as u64 + 1) * 0x100 + u64::from(place.1)
}

pub(crate) fn ethernet(dst: u64, src: u64, v6: bool) -> [u8; 14] {
    let mut out = [0; 14];
    out[..6].copy_from_slice(&dst.to_be_bytes()[2..]);
    out[6..12].copy_from_slice(&src.to_be_bytes()[2..]);
    out[12..].copy_from_slice(if v6 { &[0x86, 0xdd] } else { &[8, 0] });
    out
}

impl NodeRig {
    fn new(n: usize, mode: Mode, config: Config, change: &impl Fn(&mut Node)) -> Self {
        let number = n + 1;
        let mut facts = node_facts(number, mode);
        change(&mut facts);
        let mut switch = Switch::start(config);
        switch.bridge("br0", 0, FailMode::Secure);
        for port in [LOCAL].into_iter().chain(PODS) {
            switch.port("br0", port, VlanMode::default());
        }
        switch.tunnel_port(
            TUNNEL,
            Tunnel {
                kind: TunnelKind::Geneve,
                layer3: false,
                remote: Decides::Flow,
                local: Decides::Flow,
                out_key: Decides::Flow,
                tos: Byte::Inherit,
                ttl: Byte::Fixed(64),
            },
        );
        let pods = PODS.map(|port| pod_facts(n, port));
        switch.add_flows(pods.iter().flat_map(|pod| {
            let station = Station {
                port: PortNo(pod.port as u16),
                mac: pod.mac,
                addresses: pod.addresses.clone(),
                guard: Guard::Full,
                hairpin: false,
                held: false,
                owner: Owner::new(&pod.owner),
            };
            station.flows()
        }));
        let mut rig = Self { facts, switch, ids: Ids::new(), cookies: BTreeMap::new() };
        rig.apply("base", &pipeline::base(&rig.facts));
        for pod in &pods {
            rig.apply(&pod.owner, &pipeline::pod(&rig.facts, pod));
        }
        rig.apply("peer", &pipeline::peer(&rig.facts, &peer_facts(other(n) + 1, mode)));
        rig
    }

    /// Puts a part in the place of what has its name.
    pub(crate) fn apply(&mut self, name: &str, part: &Part) {
        // Of this suite: a cookie for each part, and none of them that of learned flows.
        let next = COOKIE + 0x100 + self.cookies.len() as u64;
        let (cookie, groups) = self.cookies.entry(name.to_owned()).or_insert((next, BTreeSet::new()));
        let filter = parse_filter(&format!("cookie={cookie:#x}/-1"), Names::NONE).unwrap().value;
        let mut changes = vec![BridgeMod::from(FlowMod::delete(filter))];
        let group = |text: String, command| {
            BridgeMod::from(parse_group_mod(&text, command, Names::NONE).unwrap_or_else(|e| panic!("{text}: {e}")))
        };
        for group_of in &part.groups {
            changes.push(group(format!("group_id={},{}", group_of.id, group_of.text), GroupCommand::AddOrModify));
            groups.remove(&group_of.id);
        }
        changes.extend(groups.iter().map(|id| group(format!("group_id={id}"), GroupCommand::Delete)));
        *groups = part.groups.iter().map(|group| group.id).collect();
        for flow in &part.flows {
            let reason = flow.drop_reason.map(|reason| format!("drop_reason={reason},")).unwrap_or_default();
            let actions = if flow.actions.is_empty() { "drop" } else { &flow.actions };
            let head = format!("cookie={cookie:#x},table={},priority={},{reason}", flow.table, flow.priority);
            let text = format!("{head}owner={},{} actions={actions}", flow.owner, flow.matching);
            let parsed = parse_flow_mod(&text, Names::NONE).unwrap_or_else(|e| panic!("{text}: {e}"));
            changes.push(BridgeMod::from(parsed.value));
        }
        self.switch.datapath.apply_bundle("br0", &changes).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

fn nets(v4: &str, v6: &str) -> Vec<IpNet> {
    vec![v4.parse().unwrap(), v6.parse().unwrap()]
}

fn ips(v4: &str, v6: &str) -> Vec<IpAddr> {
    vec![v4.parse().unwrap(), v6.parse().unwrap()]
}

fn node_facts(number: usize, mode: Mode) -> Node {
    Node {
        name: format!("n{number}"),
        pod_cidrs: nets(&format!("10.244.{number}.0/24"), &format!("fd00:10:244:{number}::/64")),
        gateways: ips(&format!("10.244.{number}.1"), &format!("fd00:10:244:{number}::1")),
        addresses: [
            ips(&format!("172.30.0.{number}"), &format!("fd00:30::{number}")),
            ips(&format!("172.17.0.{number}"), &format!("fd00:17::{number}")),
        ]
        .concat(),
        known: ips(&format!("172.30.0.{number}"), &format!("fd00:30::{number}")),
        gateway_mac: 0x0a00_0000_0001,
        link: ips("169.254.77.2", "fd73:6c75:6963::2"),
        incoming: ips("169.254.77.3", "fd73:6c75:6963::3"),
        tunnel: (mode == Mode::Encap).then_some(TUNNEL.into()),
        service_cidrs: nets("10.96.0.0/16", "fd00:10:96::/112"),
        masquerade: true,
        masquerade_except: nets("192.0.2.0/24", "2001:db8:192::/48"),
    }
}

fn peer_facts(number: usize, mode: Mode) -> Peer {
    let way = match mode {
        Mode::Encap => Way::Tunnel(pick(false, &format!("172.30.0.{number}"), "")),
        Mode::Routed => Way::Host,
    };
    let cidrs = nets(&format!("10.244.{number}.0/24"), &format!("fd00:10:244:{number}::/64"));
    let addresses = ips(&format!("172.30.0.{number}"), &format!("fd00:30::{number}"));
    Peer { name: format!("n{number}"), addresses, pod_cidrs: cidrs.into_iter().map(|cidr| (cidr, way)).collect() }
}

fn pod_facts(n: usize, port: u16) -> Pod {
    let number = n + 1;
    Pod {
        owner: format!("pod:default/p{number}-{port}"),
        port: port.into(),
        mac: mac_of((n, port)),
        addresses: ips(&format!("10.244.{number}.{port}"), &format!("fd00:10:244:{number}::{port:x}")),
        host_ports: Vec::new(),
    }
}
