//! Flows of policies: readable, apart from each other, and the same however what is told came about.

use super::{LocalPod, Policies};
use crate::facts::policy::{
    Action, Direction, Group, GroupKey, Member, Peer, Policy, PolicyKind, PolicyName, Port, Rule, State, Tier, Update,
};
use crate::facts::{Node, Protocol};
use crate::flow::{Flow, FlowName, Object, Part};
use crate::policy::{Because, Connection, Judge};
use proptest::prelude::*;
use sluice_flows::field::Field;
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::key::{FlowKey, FlowMask, slot};
use sluice_flows::rule::{Millis, Rule as FlowRule, TableId};
use sluice_flows::table::Tables;
use sluice_flows::text::{Names, parse_flow_mod};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

const BOTH: [Direction; 2] = [Direction::Egress, Direction::Ingress];

fn node() -> Node {
    let nets = |texts: [&str; 2]| texts.map(|text| text.parse().unwrap()).to_vec();
    Node { name: "a".into(), pod_cidrs: nets(["10.244.1.0/24", "fd00:10:244:1::/64"]), ..Node::default() }
}

fn key(n: usize) -> GroupKey {
    GroupKey(format!("pods(ns=shop;g{n})").into())
}

fn pod_name(n: usize) -> Arc<str> {
    format!("shop/p{n}").into()
}

fn local(n: usize) -> LocalPod {
    LocalPod { port: 10 + n as u32, addresses: addresses(n) }
}

fn addresses(n: usize) -> Vec<IpAddr> {
    [format!("10.244.1.{n}"), format!("fd00:10:244:1::{n:x}")].map(|text| text.parse().unwrap()).to_vec()
}

/// With a port `http` that differs between Pods.
fn member(n: usize, http: Option<u16>, is_addressed: bool) -> Member {
    let ports = http.map(|port| ("http".to_owned(), Protocol::Tcp, port)).into_iter().collect();
    Member { node: "a".into(), addresses: if is_addressed { addresses(n) } else { Vec::new() }, ports }
}

fn rule(direction: Direction, index: u32, peers: Option<Vec<Peer>>, ports: Option<Vec<Port>>) -> Rule {
    Rule { direction, index, name: String::new(), action: Action::Accept, peers, ports }
}

fn policy(name: &str, tier: Tier, subject: usize, rules: Vec<Rule>) -> Policy {
    let kind = match tier {
        Tier::Network => PolicyKind::NetworkPolicy,
        _ => PolicyKind::ClusterNetworkPolicy,
    };
    Policy {
        name: PolicyName { kind, namespace: "shop".into(), name: name.into() },
        generation: 1,
        tier,
        priority: 0,
        subject: key(subject),
        isolates: if tier == Tier::Network { BOTH.to_vec() } else { Vec::new() },
        is_audit: false,
        logs: false,
        rules,
    }
}

fn put(policy: &Policy) -> Update {
    Update::Policy(policy.name.clone(), Some(Arc::new(policy.clone())))
}

fn group(n: usize, members: &[(usize, Member)]) -> Update {
    let members = members.iter().map(|(n, member)| (pod_name(*n), Arc::new(member.clone()))).collect();
    Update::Group(key(n), Group { members })
}

/// What the switch has.
#[derive(Default)]
struct Switch(BTreeMap<FlowName, Flow>);

impl Switch {
    fn of(policies: &mut Policies) -> Self {
        let mut switch = Self::default();
        switch.take(policies);
        switch
    }

    /// Takes in what has changed; how many flows that were.
    fn take(&mut self, policies: &mut Policies) -> usize {
        let changes = policies.take();
        for (object, part) in &changes {
            let Object::Policy(name) = object else { panic!("{object:?}") };
            match part {
                Some(Part { flows, groups }) => {
                    let ([flow], []) = (&flows[..], &groups[..]) else { panic!("{flows:?}") };
                    let own = (flow.table, flow.priority, &flow.matching);
                    assert_eq!(own, (name.table, name.priority, &name.matching));
                    let old = self.0.insert((**name).clone(), flow.clone());
                    assert_ne!(old.as_ref(), Some(flow), "told again");
                }
                None => assert!(self.0.remove(&**name).is_some(), "{name:?} was not there"),
            }
        }
        assert_eq!(self.0.len(), policies.flows());
        changes.len()
    }

    /// The flows of a table whose match has this in it.
    fn with(&self, table: u8, text: &str) -> Vec<&Flow> {
        self.0.values().filter(|flow| flow.table == table && flow.matching.contains(text)).collect()
    }
}

fn line(flow: &Flow) -> String {
    let reason = flow.drop_reason.map(|reason| format!(",drop_reason={reason}")).unwrap_or_default();
    let actions = if flow.actions.is_empty() { "drop" } else { &flow.actions };
    let head = format!("table={},priority={}{reason},owner={}", flow.table, flow.priority, flow.owner);
    format!("{head},{} actions={actions}", flow.matching)
}

/// Every kind of rule.
fn all_kinds() -> Vec<Update> {
    let net = |text: &str, except: &[&str]| Peer::Net {
        net: text.parse().unwrap(),
        except: except.iter().map(|text| text.parse().unwrap()).collect(),
    };
    let peers = [
        None,
        Some(vec![Peer::Group(key(2))]),
        Some(vec![
            net("10.0.0.0/8", &["10.1.0.0/16", "10.2.3.4/32"]),
            net("::/0", &["fd00::/8"]),
            net("0.0.0.0/0", &[]),
        ]),
    ];
    let ports = [
        None,
        Some(vec![Port::All(Protocol::Udp), Port::Range(Protocol::Sctp, 7, 300), Port::Range(Protocol::Tcp, 80, 80)]),
        Some(vec![Port::Named(None, "http".into()), Port::Range(Protocol::Tcp, 1, 1)]),
    ];
    let mut updates = vec![
        group(1, &[(1, member(1, Some(8080), true)), (2, member(2, Some(9090), false))]),
        group(2, &[(2, member(2, Some(9090), false)), (7, member(7, Some(7070), true))]),
    ];
    for (n, tier) in [Tier::Admin, Tier::Network, Tier::Baseline].into_iter().enumerate() {
        let mut rules = Vec::new();
        for direction in BOTH {
            let kinds = peers.iter().flat_map(|peers| ports.iter().map(move |ports| (peers.clone(), ports.clone())));
            rules.extend((0..).zip(kinds).map(|(index, (peers, ports))| {
                let actions = [Action::Accept, Action::Deny, Action::Pass];
                let action = if tier == Tier::Network { Action::Accept } else { actions[index as usize % 3] };
                Rule { action, ..rule(direction, index, peers, ports) }
            }));
        }
        for (copy, is_audit) in [("a", false), ("b", false), ("c", true)] {
            updates.push(put(&Policy { is_audit, ..policy(&format!("{copy}{n}"), tier, 1, rules.clone()) }));
        }
    }
    updates
}

fn told(updates: &[Update], pods: impl IntoIterator<Item = usize>) -> Policies {
    let mut policies = Policies::new(&node());
    pods.into_iter().for_each(|n| policies.put_pod(&pod_name(n), local(n)));
    policies.update(updates);
    policies
}

#[test]
fn every_flow_is_read_without_a_warning_and_none_is_of_two_objects() {
    let mut keys = BTreeSet::new();
    let mut flows: Vec<Flow> = Switch::of(&mut told(&all_kinds(), 1..4)).0.into_values().collect();
    assert!(flows.len() > 500, "{}", flows.len());
    flows.extend(super::stages(&node()).all);
    for flow in flows {
        let text = line(&flow);
        let parsed = parse_flow_mod(&text, Names::NONE).unwrap_or_else(|e| panic!("{text}\n{e}"));
        assert!(parsed.warnings.is_empty(), "{text}\n{:?}", parsed.warnings);
        let FlowMod::Add { spec, .. } = parsed.value else { panic!("{text} adds no flow") };
        assert!(keys.insert(format!("{} {} {:?}", flow.table, flow.priority, spec.matches)), "{text} is there twice");
    }
}

#[test]
fn a_member_is_one_flow_for_each_address_however_many_rules_name_its_group() {
    let rules = |n: u32| {
        let ports = Some(vec![Port::Range(Protocol::Tcp, n as u16, n as u16 + 5)]);
        vec![rule(Direction::Ingress, 0, Some(vec![Peer::Group(key(2))]), ports)]
    };
    let mut updates = vec![group(1, &[(1, member(1, None, true))]), group(2, &[])];
    updates.extend((0..50).map(|n| put(&policy(&format!("p{n}"), Tier::Network, 1, rules(n)))));
    let mut policies = told(&updates, [1]);
    let mut switch = Switch::of(&mut policies);
    let one = |n: usize, member: Option<Member>| {
        Update::Members(key(2), BTreeMap::from([(pod_name(n), member.map(Arc::new))]))
    };
    policies.update(&[one(7, Some(member(7, None, true)))]);
    assert_eq!(switch.take(&mut policies), 2, "one for each family");
    let flows = switch.with(34, "nw_src=10.244.1.7");
    assert_eq!(flows[0].actions.matches("conjunction(").count(), 50);
    policies.update(&[one(7, Some(member(7, Some(80), true)))]);
    assert_eq!(switch.take(&mut policies), 0, "nobody asks for its port's name");
    policies.update(&[one(7, None)]);
    assert_eq!(switch.take(&mut policies), 2);
    assert!(switch.with(34, "nw_src=10.244.1.7").is_empty());
}

#[test]
fn a_pod_that_comes_to_be_a_subject_looks_at_no_other_end() {
    let rules = vec![rule(Direction::Ingress, 0, Some(vec![Peer::Group(key(2))]), None)];
    let members: Vec<_> = (20..200).map(|n| (n, member(n, None, true))).collect();
    let subjects = [(1, member(1, None, true)), (2, member(2, None, true))];
    let updates = [group(1, &subjects), group(2, &members), put(&policy("p", Tier::Network, 1, rules))];
    let mut policies = told(&updates, [1]);
    let mut switch = Switch::of(&mut policies);
    policies.put_pod(&pod_name(2), local(2));
    assert_eq!(switch.take(&mut policies), 3, "its clause, and its isolation both ways");
    policies.remove_pod("shop/p2");
    assert_eq!(switch.take(&mut policies), 3);
}

#[test]
fn a_name_of_a_port_splits_a_rule_by_what_it_says_on_each_pod() {
    let by_name = || Some(vec![Port::Named(Some(Protocol::Tcp), "http".into())]);
    let to_group = || Some(vec![Peer::Group(key(2))]);
    let rules = vec![
        rule(Direction::Ingress, 0, None, by_name()),
        rule(Direction::Egress, 0, to_group(), by_name()),
        rule(Direction::Egress, 1, None, by_name()),
    ];
    let mut policies = told(
        &[
            group(1, &[(1, member(1, Some(8080), true)), (2, member(2, Some(9090), true))]),
            group(2, &[(7, member(7, Some(7070), true)), (8, member(8, None, true))]),
            put(&policy("p", Tier::Network, 1, rules)),
        ],
        [1, 2],
    );
    let switch = Switch::of(&mut policies);
    let ports = |table| -> BTreeSet<&str> {
        switch.with(table, "tcp,tp_dst").iter().map(|flow| flow.matching.as_str()).collect()
    };
    assert_eq!(ports(34), BTreeSet::from(["tcp,tp_dst=8080", "tcp,tp_dst=9090"]));
    assert_eq!(ports(24), BTreeSet::from(["tcp,tp_dst=7070"]), "of nobody in particular there is no name");
    assert!(switch.with(24, "nw_dst=10.244.1.8").is_empty());
    // Each Pod is in the conjunction of its own port alone.
    for (port, number) in [("reg1=0xb", "tp_dst=8080"), ("reg1=0xc", "tp_dst=9090")] {
        let id = |text: &str| {
            let flow = switch.with(34, text).into_iter().find(|flow| flow.actions.starts_with("conj")).unwrap();
            flow.actions.split(',').next().unwrap().to_owned()
        };
        assert_eq!(id(port), id(number), "{port}");
    }
}

#[test]
fn policies_that_isolate_a_pod_are_named_together_and_audit_drops_nothing() {
    let members = [(1, member(1, None, true))];
    let audit = Policy { is_audit: true, ..policy("c", Tier::Network, 1, Vec::new()) };
    let both = [policy("a", Tier::Network, 1, Vec::new()), policy("b", Tier::Network, 1, Vec::new())];
    let mut policies = told(&[group(1, &members), put(&both[0]), put(&both[1]), put(&audit)], [1]);
    let mut switch = Switch::of(&mut policies);
    let [flow] = switch.with(34, "reg1=0xb")[..] else { panic!("one flow isolates it") };
    assert_eq!((&*flow.owner, flow.drop_reason), ("np:shop/a+shop/b/ingress/default", Some("policy_default_deny")));
    assert_eq!(flow.actions, "");
    let gone = both.map(|policy| Update::Policy(policy.name, None));
    policies.update(&gone);
    switch.take(&mut policies);
    let [flow] = switch.with(34, "reg1=0xb")[..] else { panic!("one flow counts") };
    assert_eq!((&*flow.owner, flow.drop_reason), ("np:shop/c/ingress/default", None));
    assert_eq!(flow.actions, "goto_table:35");
}

#[test]
fn a_rule_is_known_by_the_number_that_connections_keep_of_it() {
    let rules = vec![rule(Direction::Ingress, 3, None, None)];
    let mut policies =
        told(&[group(1, &[(1, member(1, None, true))]), put(&policy("p", Tier::Network, 1, rules))], [1]);
    let switch = Switch::of(&mut policies);
    let plain = switch.with(34, "reg1=0xb").into_iter().find(|flow| flow.priority == super::PLAIN).unwrap();
    let number = plain.actions.strip_prefix("load:0x").unwrap().split_once("->").unwrap().0;
    let number = u32::from_str_radix(number, 16).unwrap();
    let rule = policies.rule(number).unwrap();
    assert_eq!((rule.policy.name.as_str(), rule.direction, rule.index), ("p", Direction::Ingress, 3));
    policies.remove_pod("shop/p1");
    assert_eq!(policies.rule(number), None);
}

#[test]
fn what_goes_leaves_nothing_behind() {
    let mut policies = told(&all_kinds(), 1..4);
    let mut switch = Switch::of(&mut policies);
    let all = policies.state().clone();
    policies.update(&State::default().since(&all));
    switch.take(&mut policies);
    assert_eq!((switch.0.len(), policies.state()), (0, &State::default()));
    assert!(policies.shared.ids.is_empty() && policies.shared.rules.is_empty() && policies.users.is_empty());
}

/// Something that happens, from a few numbers.
type Step = (u8, u8, u8, u16);

fn ports_of(bits: u16) -> Option<Vec<Port>> {
    match bits % 6 {
        0 => None,
        1 => Some(Vec::new()),
        2 => Some(vec![Port::Range(Protocol::Tcp, 80, 80 + bits % 7)]),
        3 => Some(vec![Port::Named(None, "http".into())]),
        4 => Some(vec![Port::Named(None, "http".into()), Port::All(Protocol::Udp)]),
        _ => Some(vec![Port::Range(Protocol::Tcp, 8080, 8080), Port::Named(Some(Protocol::Tcp), "http".into())]),
    }
}

fn peers_of(bits: u16) -> Option<Vec<Peer>> {
    let net = || Peer::Net { net: "10.244.1.0/28".parse().unwrap(), except: vec!["10.244.1.3/32".parse().unwrap()] };
    let group = |n: u16| Peer::Group(key(usize::from(n % 3)));
    match bits % 6 {
        0 => None,
        1 => Some(Vec::new()),
        2 => Some(vec![group(bits / 6)]),
        3 => Some(vec![group(bits / 6), group(bits / 18)]),
        4 => Some(vec![net()]),
        _ => Some(vec![net(), group(bits / 6)]),
    }
}

fn policy_of(a: u8, b: u8, bits: u16) -> Policy {
    let tier = [Tier::Admin, Tier::Network, Tier::Baseline][usize::from(a) % 3];
    let rules = (0..u32::from(b) % 4).map(|n| {
        let turned = bits.rotate_left(n * 5);
        let action =
            [Action::Accept, Action::Deny, Action::Pass][if tier == Tier::Network { 0 } else { n as usize % 3 }];
        Rule { action, ..rule(BOTH[usize::from(turned % 2)], n, peers_of(turned / 2), ports_of(turned / 5)) }
    });
    let mut policy = policy(&format!("p{}", a % 6), tier, usize::from(b / 4) % 3, rules.collect());
    policy.priority = if tier == Tier::Network { 0 } else { bits % 3 };
    policy.is_audit = bits.is_multiple_of(11);
    policy
}

fn happen(policies: &mut Policies, (what, a, b, bits): Step) {
    let pod = usize::from(a) % 6;
    let group_no = usize::from(b) % 3;
    let who = member(pod, [None, Some(8080), Some(9090)][usize::from(bits) % 3], !bits.is_multiple_of(5));
    let one =
        |who: Option<Member>| Update::Members(key(group_no), BTreeMap::from([(pod_name(pod), who.map(Arc::new))]));
    match what % 8 {
        0 | 1 => policies.update(&[put(&policy_of(a, b, bits))]),
        2 => policies.update(&[Update::Policy(policy_of(a, b, bits).name, None)]),
        3 | 4 => policies.update(&[one(Some(who))]),
        5 => policies.update(&[one(None)]),
        6 if bits.is_multiple_of(4) => policies.remove_pod(&pod_name(pod)),
        6 => policies
            .put_pod(&pod_name(pod), LocalPod { port: 10 + pod as u32 + u32::from(bits % 2) * 10, ..local(pod) }),
        _ if bits.is_multiple_of(4) => {
            policies.update(&[Update::GroupGone(key(group_no)), put(&policy_of(a, b, bits))])
        }
        _ => policies.update(&[group(group_no, &[(pod, who.clone()), (pod + 1, who)])]),
    }
}

/// What the flows of a way make of a packet of (or for) a Pod's port: none if it passes, and who drops it if not.
fn dropped(switch: &Switch, direction: Direction, port: u32, connection: &Connection) -> Option<String> {
    let flows: Vec<Flow> = switch.0.values().cloned().chain(super::stages(&node()).all).collect();
    let mut tables = Tables::new();
    for (cookie, flow) in (0..).zip(&flows) {
        let parsed = parse_flow_mod(&format!("cookie={cookie},{}", line(flow)), Names::NONE).unwrap().value;
        let FlowMod::Add { spec, .. } = parsed else { panic!("{flow:?} adds no flow") };
        tables.insert(Arc::new(FlowRule::new(spec, Millis(0))));
    }
    let mut key = FlowKey::default();
    let (ether_type, fields) = match connection.source {
        IpAddr::V4(_) => (0x800, [Field::IpSrc, Field::IpDst]),
        IpAddr::V6(_) => (0x86dd, [Field::Ipv6Src, Field::Ipv6Dst]),
    };
    key.set(Field::EthType.slot(), ether_type);
    for (field, address) in fields.into_iter().zip([connection.source, connection.destination]) {
        let bits = match address {
            IpAddr::V4(v4) => v4.to_bits().into(),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        key.set(field.slot(), bits);
    }
    let number = connection.protocol.map_or(1, |protocol| match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    });
    key.set(Field::IpProto.slot(), number);
    key.set(slot::TP_DST, connection.port.into());
    key.set(Field::Reg0.slot(), 1);
    let mut table = match direction {
        Direction::Egress => 23,
        Direction::Ingress => 33,
    };
    key.set(if direction == Direction::Egress { Field::InPort } else { Field::Reg1 }.slot(), port.into());
    loop {
        let found = tables.lookup(TableId::new(table).unwrap(), &key, &mut FlowMask::default()).unwrap();
        let flow = &flows[found.spec.cookie as usize];
        if flow.actions.is_empty() {
            return Some(flow.owner.to_string());
        }
        table = flow.actions.rsplit("goto_table:").next().unwrap().parse().unwrap();
        if matches!(table, 30 | 40) {
            return None;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn flows_say_what_is_said_of_a_connection_without_them(
        steps in proptest::collection::vec(any::<Step>(), 1..40),
        ends in proptest::collection::vec((0_usize..6, 0_usize..8, any::<bool>(), any::<u8>()), 1..8),
    ) {
        let mut policies = Policies::new(&node());
        policies.update(&[group(0, &[]), group(1, &[]), group(2, &[])]);
        steps.into_iter().for_each(|step| happen(&mut policies, step));
        let switch = Switch::of(&mut policies);
        let judge = Judge::new(policies.state());
        for (pod, other, is_egress, kind) in ends {
            let Some(local) = policies.shared.pods.get(&pod_name(pod)) else { continue };
            let (own, far) = (addresses(pod)[usize::from(kind % 2)], addresses(other)[usize::from(kind % 2)]);
            let ports = [(None, 0), (Some(Protocol::Tcp), 80), (Some(Protocol::Tcp), 8080), (Some(Protocol::Tcp), 9090)];
            let (protocol, port) = [&ports[..], &[(Some(Protocol::Udp), 53)]].concat()[usize::from(kind / 2) % 5];
            let direction = BOTH[usize::from(!is_egress)];
            let (source, destination) = if is_egress { (own, far) } else { (far, own) };
            let connection = Connection { source, destination, protocol, port, is_with_own_node: false };
            if source == destination || policies.shared.pods.contains_key(&pod_name(other)) {
                continue;
            }
            let verdict = judge.subject(&pod_name(pod)).verdict(direction, &connection);
            let owner = dropped(&switch, direction, local.port, &connection);
            prop_assert_eq!(verdict.is_accepted, owner.is_none(), "{:?}: {:?}, dropped by {:?}", connection, verdict, owner);
            if let (Because::Rule(rule), Some(owner)) = (&verdict.because, owner) {
                prop_assert_eq!(rule.to_string(), owner);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn what_has_become_is_what_would_be_made_anew(
        steps in proptest::collection::vec(any::<Step>(), 1..60),
        every in 1_usize..5,
    ) {
        let mut policies = Policies::new(&node());
        policies.update(&[group(0, &[]), group(1, &[]), group(2, &[])]);
        let mut switch = Switch::default();
        for (n, step) in steps.into_iter().enumerate() {
            happen(&mut policies, step);
            if n % every == 0 {
                switch.take(&mut policies);
            }
        }
        switch.take(&mut policies);
        let mut anew = Policies::new(&node());
        anew.update(&policies.state().since(&State::default()));
        for (name, pod) in &policies.shared.pods {
            anew.put_pod(name, pod.clone());
        }
        let made = Switch::of(&mut anew);
        prop_assert_eq!(&switch.0, &made.0);
        prop_assert_eq!(policies.shared.ids.len(), anew.shared.ids.len());
        prop_assert_eq!(policies.shared.rules.len(), anew.shared.rules.len());
    }
}
