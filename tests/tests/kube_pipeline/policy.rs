//! Packets under policies: what may pass and what may not, by whose rule, and what becomes of connections when policies change.

use crate::packet::{Packet, Proto, Seen};
use crate::rig::{LOCAL, Mode, Net, PODS, Place, Talk};
use ipnet::IpNet;
use sluice_controller::facts::policy::{
    Action, Direction, Group, GroupKey, Member, Peer, Policy, PolicyKind, PolicyName, Port, Rule, Tier, Update,
};
use sluice_controller::facts::{Protocol, Scope};
use sluice_controller::flow::{Flow, Part};
use sluice_controller::pipeline::{LocalPod, Policies, Stage};
use sluice_flows::DropReason;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

const PROTOCOLS: [Proto; 4] = [Proto::Tcp, Proto::Udp, Proto::Sctp, Proto::Ping];
/// A client, the server beside it, and the one on the other node.
const CLIENT: Place = (0, 10);
const NEAR: Place = (0, 11);
const FAR: Place = (1, 11);

/// Two nodes that know policies.
struct Cluster {
    net: Net,
    policies: Vec<Policies>,
}

impl Cluster {
    fn new(mode: Mode, v6: bool) -> Self {
        let net = Net::new(mode, v6);
        let policies = (0..2).map(|n| {
            let mut policies = Policies::new(&net.nodes[n].facts);
            for port in PODS {
                policies.put_pod(&name((n, port)), LocalPod { port: port.into(), addresses: addresses((n, port)) });
            }
            policies
        });
        let policies = policies.collect();
        Self { net, policies }
    }

    /// Both nodes are told.
    fn tell(&mut self, updates: &[Update]) {
        for (node, policies) in self.net.nodes.iter_mut().zip(&mut self.policies) {
            policies.update(updates);
            for (object, part) in policies.take() {
                node.apply(&format!("{object:?}"), &part.unwrap_or_default());
            }
        }
    }

    fn at(&self, place: Place, port: u16) -> SocketAddr {
        (self.net.pod(place), port).into()
    }

    /// The first packet of a connection of the client with a Pod.
    fn first(&self, proto: Proto, client: u16, to: Place, port: u16) -> Packet {
        let port = if proto == Proto::Ping { 0 } else { port };
        Packet::new(proto, 0, self.at(CLIENT, client), self.at(to, port))
    }

    /// The client can talk with a Pod: there and back, errors too.
    fn allows(&mut self, proto: Proto, client: u16, to: Place, port: u16) {
        let first = self.first(proto, client, to, port);
        let talk = self.net.talk(proto, CLIENT, first.src, first.dst);
        assert_eq!(talk, Talk { at: to, client: first.src, server: first.dst, tunnelled: to.0 == 1 });
    }

    /// It cannot, for this reason, of this owner.
    fn denies(&mut self, packet: &Packet, at: Place, reason: DropReason, owner: &str) {
        let before = self.dropped_by(reason, owner);
        self.net.dropped(at, packet, reason);
        assert_eq!(self.dropped_by(reason, owner), before + 1, "{packet:?}: not by {owner}\n{}", self.net.drops());
    }

    fn dropped_by(&self, reason: DropReason, owner: &str) -> u64 {
        let drops = self.net.nodes.iter().flat_map(|node| {
            node.switch.sync();
            node.switch.datapath.drops()
        });
        let is_of = |rule: &sluice_flows::rule::Rule| rule.spec.owner.text() == owner;
        let of_owner = drops.filter(|drop| drop.reason == reason && drop.rule.as_ref().is_some_and(|rule| is_of(rule)));
        of_owner.map(|drop| drop.packets).sum()
    }
}

fn name(place: Place) -> Arc<str> {
    format!("default/p{}-{}", place.0 + 1, place.1).into()
}

fn addresses(place: Place) -> Vec<IpAddr> {
    let (n, port) = (place.0 + 1, place.1);
    vec![format!("10.244.{n}.{port}").parse().unwrap(), format!("fd00:10:244:{n}::{port:x}").parse().unwrap()]
}

fn key(name: &str) -> GroupKey {
    GroupKey(name.into())
}

/// A Pod with a port `http`.
fn member(place: Place, http: u16) -> Arc<Member> {
    let ports = Protocol::ALL.map(|protocol| ("http".to_owned(), protocol, http)).to_vec();
    Arc::new(Member { node: format!("n{}", place.0 + 1).into(), addresses: addresses(place), ports })
}

fn group(of: &str, places: &[Place]) -> Update {
    let members = places.iter().map(|place| (name(*place), member(*place, 80))).collect();
    Update::Group(key(of), Group { members })
}

fn rule(direction: Direction, index: u32, action: Action) -> Rule {
    Rule { direction, index, name: String::new(), action, peers: None, ports: None }
}

fn accept(direction: Direction, peers: Option<Vec<Peer>>, ports: Option<Vec<Port>>) -> Rule {
    Rule { peers, ports, ..rule(direction, 0, Action::Accept) }
}

fn from_group(of: &str) -> Option<Vec<Peer>> {
    Some(vec![Peer::Group(key(of))])
}

fn nets(nets: &[&str], except: &[&str]) -> Option<Vec<Peer>> {
    let read = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNet>>();
    let all = read(except);
    let of = |net: IpNet| Peer::Net { net, except: all.iter().copied().filter(|part| net.contains(part)).collect() };
    Some(read(nets).into_iter().map(of).collect())
}

/// Every protocol with ports.
fn ports(first: u16, last: u16) -> Option<Vec<Port>> {
    Some(Protocol::ALL.map(|protocol| Port::Range(protocol, first, last)).to_vec())
}

/// A NetworkPolicy `shop/NAME` about the Pods of a group, which isolates them as it has rules, or both ways.
fn policy(name: &str, subject: &str, isolates: &[Direction], rules: Vec<Rule>) -> Policy {
    Policy {
        name: PolicyName { kind: PolicyKind::NetworkPolicy, namespace: "shop".into(), name: name.into() },
        generation: 1,
        tier: Tier::Network,
        priority: 0,
        subject: key(subject),
        isolates: isolates.to_vec(),
        is_audit: false,
        logs: false,
        rules,
    }
}

/// A ClusterNetworkPolicy.
fn cluster_policy(name: &str, tier: Tier, priority: u16, subject: &str, rules: Vec<Rule>) -> Policy {
    let kind = PolicyKind::ClusterNetworkPolicy;
    let name = PolicyName { kind, namespace: String::new(), name: name.into() };
    Policy { name, tier, priority, ..policy("", subject, &[], rules) }
}

fn put(policy: Policy) -> Update {
    Update::Policy(policy.name.clone(), Some(Arc::new(policy)))
}

fn gone(kind: PolicyKind, name: &str) -> Update {
    let namespace = if kind == PolicyKind::NetworkPolicy { "shop" } else { "" };
    Update::Policy(PolicyName { kind, namespace: namespace.into(), name: name.into() }, None)
}

const IN: &[Direction] = &[Direction::Ingress];
const OUT: &[Direction] = &[Direction::Egress];
const IN_DEFAULT: &str = "np:shop/p/ingress/default";
const OUT_DEFAULT: &str = "np:shop/p/egress/default";
use DropReason::{PolicyDefaultDeny, PolicyDeny};

/// Calls with every protocol and family.
fn everywhere(mut test: impl FnMut(&mut Cluster, Proto)) {
    for v6 in [false, true] {
        for proto in PROTOCOLS {
            test(&mut Cluster::new(Mode::Encap, v6), proto);
        }
    }
}

#[test]
fn an_isolated_pod_gets_nothing_but_answers() {
    everywhere(|cluster, proto| {
        cluster.tell(&[group("servers", &[NEAR, FAR]), put(policy("p", "servers", IN, Vec::new()))]);
        for (client, to) in [(40_001, NEAR), (40_002, FAR)] {
            let first = cluster.first(proto, client, to, 80);
            cluster.denies(&first, CLIENT, PolicyDefaultDeny, IN_DEFAULT);
            // It may call by itself, and is answered, with errors too.
            let (own, other) = (cluster.at(to, 41_000), cluster.at(CLIENT, if proto == Proto::Ping { 0 } else { 80 }));
            let talk = cluster.net.talk(proto, to, own, other);
            assert_eq!((talk.at, talk.client), (CLIENT, own));
        }
        cluster.tell(&[gone(PolicyKind::NetworkPolicy, "p")]);
        cluster.allows(proto, 40_003, NEAR, 80);
        cluster.allows(proto, 40_004, FAR, 80);
    });
}

#[test]
fn a_pod_isolated_for_egress_sends_nothing_but_answers() {
    everywhere(|cluster, proto| {
        cluster.tell(&[group("clients", &[CLIENT]), put(policy("p", "clients", OUT, Vec::new()))]);
        for (client, to) in [(40_001, NEAR), (40_002, FAR)] {
            let first = cluster.first(proto, client, to, 80);
            cluster.denies(&first, CLIENT, PolicyDefaultDeny, OUT_DEFAULT);
            let (other, own) = (cluster.at(to, 41_000), cluster.at(CLIENT, if proto == Proto::Ping { 0 } else { 80 }));
            assert_eq!(cluster.net.talk(proto, to, other, own).at, CLIENT);
        }
        let outside = SocketAddr::from((cluster.net.outsider(), if proto == Proto::Ping { 0 } else { 53 }));
        let out = Packet::new(proto, 0, cluster.at(CLIENT, 40_003), outside);
        cluster.denies(&out, CLIENT, PolicyDefaultDeny, OUT_DEFAULT);
        // Its own node is not kept from it.
        let host = SocketAddr::from((cluster.net.gateway(0), if proto == Proto::Ping { 0 } else { 10_250 }));
        let own = cluster.at(CLIENT, 40_004);
        assert_eq!(cluster.net.talk(proto, CLIENT, own, host).at, (0, LOCAL));
    });
}

#[test]
fn rules_let_pass_whom_and_what_they_name_and_nothing_else() {
    everywhere(|cluster, proto| {
        let to_80 = accept(Direction::Ingress, from_group("clients"), ports(80, 80));
        let all = [group("clients", &[CLIENT]), group("servers", &[NEAR, FAR])];
        cluster.tell(&all);
        cluster.tell(&[put(policy("p", "servers", IN, vec![to_80]))]);
        for (client, to) in [(40_001, NEAR), (40_002, FAR)] {
            let (other, first) = (cluster.first(proto, client, to, 81), cluster.first(proto, client + 10, to, 80));
            if proto == Proto::Ping {
                cluster.denies(&first, CLIENT, PolicyDefaultDeny, IN_DEFAULT);
                continue;
            }
            cluster.allows(proto, client, to, 80);
            cluster.denies(&other, CLIENT, PolicyDefaultDeny, IN_DEFAULT);
            let stranger = Packet { src: cluster.at((1, 10), 40_000), ..first };
            cluster.denies(&stranger, (1, 10), PolicyDefaultDeny, IN_DEFAULT);
        }
        // Whom alone, and what alone.
        let anything = accept(Direction::Ingress, from_group("clients"), None);
        cluster.tell(&[put(policy("p", "servers", IN, vec![anything]))]);
        cluster.allows(proto, 40_021, NEAR, 9);
        cluster.allows(proto, 40_022, FAR, 9);
        let anybody = accept(Direction::Ingress, None, ports(80, 80));
        cluster.tell(&[put(policy("p", "servers", IN, vec![anybody]))]);
        if proto != Proto::Ping {
            cluster.allows(proto, 40_031, NEAR, 80);
            cluster.allows(proto, 40_032, FAR, 80);
        }
        // One of several policies is enough.
        cluster.tell(&[put(policy("q", "servers", IN, vec![accept(Direction::Ingress, None, None)]))]);
        cluster.allows(proto, 40_041, NEAR, 9);
    });
}

#[test]
fn egress_is_judged_by_the_other_end_too() {
    everywhere(|cluster, proto| {
        let range = accept(Direction::Egress, from_group("servers"), ports(8_000, 8_090));
        cluster.tell(&[group("clients", &[CLIENT]), group("servers", &[FAR])]);
        cluster.tell(&[put(policy("p", "clients", OUT, vec![range]))]);
        let near = cluster.first(proto, 40_001, NEAR, 8_000);
        cluster.denies(&near, CLIENT, PolicyDefaultDeny, OUT_DEFAULT);
        if proto == Proto::Ping {
            return;
        }
        for (client, port) in [(40_002, 8_000), (40_003, 8_063), (40_004, 8_090)] {
            cluster.allows(proto, client, FAR, port);
        }
        for port in [7_999, 8_091] {
            let beside = cluster.first(proto, 40_005, FAR, port);
            cluster.denies(&beside, CLIENT, PolicyDefaultDeny, OUT_DEFAULT);
        }
    });
}

#[test]
fn networks_count_without_what_is_left_out() {
    everywhere(|cluster, proto| {
        let all_but = nets(&["0.0.0.0/0", "::/0"], &["198.51.100.0/24", "2001:db8:51::/48"]);
        cluster.tell(&[group("servers", &[NEAR, CLIENT])]);
        let rules = vec![accept(Direction::Ingress, all_but.clone(), None), accept(Direction::Egress, all_but, None)];
        cluster.tell(&[put(policy("p", "servers", &[Direction::Ingress, Direction::Egress], rules))]);
        cluster.allows(proto, 40_001, NEAR, 9);
        let server = cluster.first(proto, 0, NEAR, 80).dst;
        let outsider = (cluster.net.outsider(), 40_000).into();
        cluster.denies(&Packet::new(proto, 0, outsider, server), (0, LOCAL), PolicyDefaultDeny, IN_DEFAULT);
        let other = crate::rig::pick(cluster.net.v6, "198.51.101.7", "2001:db8:52::7");
        let talk = cluster.net.talk(proto, (0, LOCAL), (other, 40_000).into(), server);
        assert_eq!(talk.at, NEAR);
        let outside = (cluster.net.outsider(), if proto == Proto::Ping { 0 } else { 53 }).into();
        let to_outsider = Packet::new(proto, 0, cluster.at(CLIENT, 40_002), outside);
        cluster.denies(&to_outsider, CLIENT, PolicyDefaultDeny, OUT_DEFAULT);
    });
}

#[test]
fn the_node_reaches_its_pods_whatever_policies_say_and_others_by_it_do_not() {
    everywhere(|cluster, proto| {
        cluster.tell(&[group("servers", &[NEAR])]);
        let deny = cluster_policy("c", Tier::Admin, 0, "servers", vec![rule(Direction::Ingress, 0, Action::Deny)]);
        cluster.tell(&[put(deny), put(policy("p", "servers", IN, Vec::new()))]);
        let server = cluster.first(proto, 0, NEAR, 80).dst;
        for client in [cluster.net.gateway(0), cluster.net.address(0)] {
            let talk = cluster.net.talk(proto, (0, LOCAL), (client, 40_000).into(), server);
            assert_eq!(talk.at, NEAR);
        }
        for client in [cluster.net.outsider(), cluster.net.address(1), cluster.net.pod(FAR)] {
            let first = Packet::new(proto, 0, (client, 40_000).into(), server);
            cluster.denies(&first, (0, LOCAL), PolicyDeny, "cnp:c/ingress/0");
        }
    });
}

#[test]
fn names_of_ports_are_what_the_destination_calls_them() {
    for direction in [Direction::Ingress, Direction::Egress] {
        everywhere(|cluster, proto| {
            if proto == Proto::Ping {
                return;
            }
            let servers = [(name(NEAR), member(NEAR, 8_080)), (name(FAR), member(FAR, 9_090))];
            let servers = Update::Group(key("servers"), Group { members: servers.into() });
            cluster.tell(&[group("clients", &[CLIENT]), servers]);
            let (subject, peer) = match direction {
                Direction::Ingress => ("servers", "clients"),
                Direction::Egress => ("clients", "servers"),
            };
            let http = Some(vec![Port::Named(None, "http".into())]);
            let rules = vec![accept(direction, from_group(peer), http)];
            cluster.tell(&[put(policy("p", subject, &[direction], rules))]);
            let owner = if direction == Direction::Ingress { IN_DEFAULT } else { OUT_DEFAULT };
            for (client, to, own, other) in [(40_001, NEAR, 8_080, 9_090), (40_002, FAR, 9_090, 8_080)] {
                cluster.allows(proto, client, to, own);
                let wrong = cluster.first(proto, client + 10, to, other);
                cluster.denies(&wrong, CLIENT, PolicyDefaultDeny, owner);
            }
            // The Pod calls it something else from now on.
            let moved = BTreeMap::from([(name(NEAR), Some(member(NEAR, 7_070)))]);
            cluster.tell(&[Update::Members(key("servers"), moved)]);
            cluster.allows(proto, 40_021, NEAR, 7_070);
            let old = cluster.first(proto, 40_022, NEAR, 8_080);
            cluster.denies(&old, CLIENT, PolicyDefaultDeny, owner);
        });
    }
}

#[test]
fn of_a_service_the_endpoint_is_judged_and_not_its_address() {
    for v6 in [false, true] {
        for proto in &PROTOCOLS[..3] {
            let mut cluster = Cluster::new(Mode::Encap, v6);
            cluster.tell(&[group("clients", &[CLIENT]), group("servers", &[NEAR, FAR])]);
            let to_endpoint = accept(Direction::Egress, from_group("servers"), ports(8_080, 8_080));
            let in_80 = accept(Direction::Ingress, from_group("clients"), ports(80, 8_080));
            cluster.tell(&[
                put(policy("p", "clients", OUT, vec![to_endpoint])),
                put(policy("q", "servers", IN, vec![in_80])),
            ]);
            for (client, to) in [(40_001, NEAR), (40_002, FAR)] {
                let end = cluster.at(to, 8_080);
                let service = cluster.net.service(*proto, Scope::Cluster, &[end]);
                cluster.net.put(&service);
                let server = (cluster.net.cluster_ip(10), 80).into();
                let own = cluster.at(CLIENT, client);
                let talk = cluster.net.talk(*proto, CLIENT, own, server);
                assert_eq!((talk.at, talk.server), (to, end));
            }
            // What is allowed is the Service's address: nobody has it.
            let to_address = accept(Direction::Egress, nets(&["10.96.0.0/16", "fd00:10:96::/112"], &[]), None);
            cluster.tell(&[put(policy("p", "clients", OUT, vec![to_address]))]);
            let server = (cluster.net.cluster_ip(10), 80).into();
            let first = Packet::new(*proto, 0, cluster.at(CLIENT, 40_003), server);
            cluster.denies(&first, CLIENT, PolicyDefaultDeny, OUT_DEFAULT);
            cluster.denies(&first, CLIENT, PolicyDefaultDeny, OUT_DEFAULT);
        }
    }
}

#[test]
fn clients_of_a_node_port_are_judged_by_their_own_addresses() {
    for v6 in [false, true] {
        let mut cluster = Cluster::new(Mode::Encap, v6);
        let end = cluster.at(NEAR, 8_080);
        let service = cluster.net.service(Proto::Tcp, Scope::Cluster, &[end]);
        cluster.net.put(&service);
        let own = accept(Direction::Ingress, nets(&["198.51.100.7/32", "2001:db8:51::7/128"], &[]), None);
        cluster.tell(&[group("servers", &[NEAR]), put(policy("p", "servers", IN, vec![own]))]);
        let server = (cluster.net.incoming(0), 30_080).into();
        let outsider = (cluster.net.outsider(), 40_000).into();
        assert_eq!(cluster.net.talk(Proto::Tcp, (0, LOCAL), outsider, server).at, NEAR);
        let other = crate::rig::pick(v6, "198.51.100.8", "2001:db8:51::8");
        let first = Packet::new(Proto::Tcp, 0, (other, 40_000).into(), server);
        cluster.denies(&first, (0, LOCAL), PolicyDefaultDeny, IN_DEFAULT);
    }
}

#[test]
fn a_pod_reaches_itself_by_a_service_whatever_policies_say() {
    for v6 in [false, true] {
        for proto in &PROTOCOLS[..3] {
            let mut cluster = Cluster::new(Mode::Encap, v6);
            let end = cluster.at(CLIENT, 8_080);
            let service = cluster.net.service(*proto, Scope::Cluster, &[end]);
            cluster.net.put(&service);
            let both = &[Direction::Ingress, Direction::Egress];
            cluster.tell(&[group("clients", &[CLIENT]), put(policy("p", "clients", both, Vec::new()))]);
            let (own, server) = (cluster.at(CLIENT, 40_001), (cluster.net.cluster_ip(10), 80).into());
            assert_eq!(cluster.net.talk(*proto, CLIENT, own, server).at, CLIENT);
        }
    }
}

#[test]
fn tiers_and_priorities_decide_in_order() {
    for v6 in [false, true] {
        for way in [Direction::Ingress, Direction::Egress] {
            let mut cluster = Cluster::new(Mode::Encap, v6);
            let subject = if way == Direction::Ingress { "servers" } else { "clients" };
            let text = way.name();
            let one = |name: &str, tier, priority, action| {
                put(cluster_policy(name, tier, priority, subject, vec![rule(way, 0, action)]))
            };
            cluster.tell(&[group("clients", &[CLIENT]), group("servers", &[NEAR])]);
            let mut client = 40_000;
            let mut expect = |cluster: &mut Cluster, denied: Option<(DropReason, &str)>| {
                client += 1;
                let first = cluster.first(Proto::Udp, client, NEAR, 53);
                match denied {
                    None => cluster.allows(Proto::Udp, client, NEAR, 53),
                    Some((reason, owner)) => cluster.denies(&first, CLIENT, reason, &format!("{owner}/{text}/0")),
                }
            };
            cluster.tell(&[one("last", Tier::Baseline, 0, Action::Deny)]);
            expect(&mut cluster, Some((PolicyDeny, "cnp:last")));
            // NetworkPolicies come before.
            cluster.tell(&[put(policy("p", subject, &[way], vec![accept(way, None, None)]))]);
            expect(&mut cluster, None);
            cluster.tell(&[one("deny", Tier::Admin, 20, Action::Deny)]);
            expect(&mut cluster, Some((PolicyDeny, "cnp:deny")));
            // A lower number is asked first.
            cluster.tell(&[one("pass", Tier::Admin, 10, Action::Pass)]);
            expect(&mut cluster, None);
            cluster.tell(&[one("first", Tier::Admin, 5, Action::Deny)]);
            expect(&mut cluster, Some((PolicyDeny, "cnp:first")));
            cluster.tell(&[one("first", Tier::Admin, 30, Action::Deny)]);
            expect(&mut cluster, None);
            cluster.tell(&[gone(PolicyKind::NetworkPolicy, "p")]);
            expect(&mut cluster, Some((PolicyDeny, "cnp:last")));
            cluster.tell(&[one("accept", Tier::Admin, 1, Action::Accept)]);
            expect(&mut cluster, None);
            // By name, where numbers are equal; by place, in one policy.
            cluster.tell(&[one("aaa", Tier::Admin, 1, Action::Deny)]);
            expect(&mut cluster, Some((PolicyDeny, "cnp:aaa")));
            let to_53 = Some(vec![Port::Range(Protocol::Udp, 50, 60)]);
            let two = vec![Rule { ports: to_53, ..rule(way, 0, Action::Accept) }, rule(way, 1, Action::Deny)];
            cluster.tell(&[put(cluster_policy("aaa", Tier::Admin, 1, subject, two))]);
            expect(&mut cluster, None);
        }
    }
}

#[test]
fn under_audit_nothing_is_dropped() {
    everywhere(|cluster, proto| {
        cluster.tell(&[group("servers", &[NEAR, FAR])]);
        let deny = cluster_policy("c", Tier::Admin, 0, "servers", vec![rule(Direction::Ingress, 0, Action::Deny)]);
        let isolate = policy("p", "servers", IN, Vec::new());
        let audit = |policy: Policy| put(Policy { is_audit: true, ..policy });
        cluster.tell(&[audit(deny), audit(isolate.clone())]);
        cluster.allows(proto, 40_001, NEAR, 80);
        cluster.allows(proto, 40_002, FAR, 80);
        cluster.tell(&[put(isolate)]);
        let first = cluster.first(proto, 40_003, NEAR, 80);
        cluster.denies(&first, CLIENT, PolicyDefaultDeny, IN_DEFAULT);
    });
}

/// A conversation that has begun goes on, or not, as policies change.
#[test]
fn connections_follow_policies_at_once_and_answers_end_when_they_are_cut() {
    for (v6, to) in [(false, NEAR), (false, FAR), (true, NEAR), (true, FAR)] {
        for proto in &PROTOCOLS[..3] {
            let mut cluster = Cluster::new(Mode::Encap, v6);
            cluster.tell(&[group("servers", &[NEAR, FAR]), group("clients", &[CLIENT])]);
            cluster.allows(*proto, 40_001, to, 80);
            let (client, server) = (cluster.at(CLIENT, 40_001), cluster.at(to, 80));
            let seen = Talk { at: to, client, server, tunnelled: to.0 == 1 };
            let allowed = || vec![accept(Direction::Ingress, from_group("clients"), None)];
            cluster.tell(&[put(policy("p", "servers", IN, allowed()))]);
            cluster.net.go_on(*proto, CLIENT, client, server, &seen);
            cluster.tell(&[put(policy("p", "servers", IN, Vec::new()))]);
            let data = Packet::new(*proto, 4, client, server);
            cluster.denies(&data, CLIENT, PolicyDefaultDeny, IN_DEFAULT);
            let answer = Packet::new(*proto, 3, server, client);
            assert_eq!(cluster.net.one(to, &answer).0, CLIENT, "answers pass until it is cut");
            cut(&mut cluster, to, (&answer, true));
            cluster.net.dropped(to, &answer, PolicyDeny);
            cut(&mut cluster, to, (&answer, false));
            cluster.tell(&[put(policy("p", "servers", IN, allowed()))]);
            cluster.net.go_on(*proto, CLIENT, client, server, &seen);
        }
    }
}

/// Sets or clears the bit of cut connections on that of a packet, as the node role does by the switch's list of them.
fn cut(cluster: &mut Cluster, at: Place, (packet, is_cut): (&Packet, bool)) {
    let family = if packet.src.is_ipv6() { "ipv6" } else { "ip" };
    let flow = Flow {
        table: Stage::State.table(),
        priority: 1000,
        matching: format!("{family},in_port={},ct_state=+rpl+trk", at.1),
        actions: format!("ct(commit,zone=65000,exec(load:{}->NXM_NX_CT_LABEL[64]))", u8::from(is_cut)),
        owner: "test".into(),
        drop_reason: None,
    };
    let node = &mut cluster.net.nodes[at.0];
    node.apply("cut", &Part { flows: vec![flow], groups: Vec::new() });
    assert_eq!(cluster.net.send(at, &packet.ip()), []);
    cluster.net.nodes[at.0].apply("cut", &Part::default());
}

#[test]
fn members_and_pods_come_and_go() {
    everywhere(|cluster, proto| {
        let rules = vec![accept(Direction::Ingress, from_group("clients"), None)];
        cluster.tell(&[group("clients", &[]), group("servers", &[NEAR, FAR])]);
        cluster.tell(&[put(policy("p", "servers", IN, rules))]);
        let mut client = 40_000;
        for is_member in [false, true, false, true] {
            let one = is_member.then(|| member(CLIENT, 80));
            cluster.tell(&[Update::Members(key("clients"), BTreeMap::from([(name(CLIENT), one)]))]);
            for to in [NEAR, FAR] {
                client += 1;
                let first = cluster.first(proto, client, to, 80);
                match is_member {
                    true => cluster.allows(proto, client, to, 80),
                    false => cluster.denies(&first, CLIENT, PolicyDefaultDeny, IN_DEFAULT),
                }
            }
        }
        // A Pod of this node whose address the group does not know yet.
        let bare = Arc::new(Member { addresses: Vec::new(), ..(*member(CLIENT, 80)).clone() });
        cluster.tell(&[Update::Members(key("clients"), BTreeMap::from([(name(CLIENT), Some(bare))]))]);
        cluster.allows(proto, 40_050, NEAR, 80);
        let far = cluster.first(proto, 40_051, FAR, 80);
        cluster.denies(&far, CLIENT, PolicyDefaultDeny, IN_DEFAULT);
    });
}

#[test]
fn errors_about_connections_pass_and_others_do_not() {
    for v6 in [false, true] {
        let mut cluster = Cluster::new(Mode::Encap, v6);
        let both = &[Direction::Ingress, Direction::Egress];
        let rules = vec![accept(Direction::Ingress, None, ports(80, 80))];
        cluster.tell(&[group("all", &[NEAR]), put(policy("p", "all", both, rules))]);
        // The conversation has errors about packets of either end.
        cluster.allows(Proto::Udp, 40_001, NEAR, 80);
        let about = Packet::new(Proto::Udp, 4, cluster.at(NEAR, 81), cluster.at(CLIENT, 40_002));
        let out = cluster.net.send(CLIENT, &crate::packet::error(about.dst.ip(), about.src.ip(), &about));
        assert!(!out.iter().any(|out| matches!(out.seen, Seen::Error { .. })), "{out:?}");
    }
}
