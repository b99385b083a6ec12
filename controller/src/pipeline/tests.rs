//! What parts have to be whatever the facts are: readable, of one owner, apart from each other, the same each time.

use super::{Ids, ROUTER_MAC, Stage, base, learned_of, peer, pod, service, table_names};
use crate::facts::{Endpoint, Frontend, HostPort, Node, Peer, Pod, Protocol, Scope, Service, ServicePort, Way};
use crate::flow::{Flow, LEARNED, Part};
use ipnet::IpNet;
use sluice_flows::text::{Names, parse_flow_mod, parse_group};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn node(families: &[bool]) -> Node {
    let pick = |v4: &str, v6: &str| {
        families.iter().map(|is_v4| if *is_v4 { v4.to_owned() } else { v6.to_owned() }).collect::<Vec<_>>()
    };
    let ips = |v4, v6| pick(v4, v6).iter().map(|text| ip(text)).collect::<Vec<_>>();
    let nets = |v4, v6| pick(v4, v6).iter().map(|text| net(text)).collect::<Vec<_>>();
    Node {
        name: "a".into(),
        pod_cidrs: nets("10.244.1.0/24", "fd00:10:244:1::/64"),
        gateways: ips("10.244.1.1", "fd00:10:244:1::1"),
        addresses: vec![ip("127.0.0.1"), ip("::1"), ip("172.30.0.1"), ip("fd00:30::1"), ip("fe80::1")],
        known: ips("172.30.0.1", "fd00:30::1"),
        gateway_mac: 0x0a00_0000_0001,
        link: ips("169.254.77.2", "fd73:6c75:6963::2"),
        incoming: ips("169.254.77.3", "fd73:6c75:6963::3"),
        tunnel: Some(100),
        service_cidrs: nets("10.96.0.0/16", "fd00:10:96::/112"),
        masquerade: true,
        masquerade_except: vec![net("192.0.2.0/24"), net("2001:db8::/32")],
    }
}

fn endpoint(address: &str, port: u16) -> Endpoint {
    Endpoint { address: ip(address), port }
}

/// A Service with every kind of frontend, for both families.
fn web(number: u8, affinity_s: Option<u16>) -> Service {
    let port = |v6: bool, protocol| {
        let pick = |v4: String, six: String| ip(if v6 { &six } else { &v4 });
        let at = |last: u8| pick(format!("10.244.1.{last}"), format!("fd00:10:244:1::{last:x}"));
        let frontend = |address, port, outside, sources: &[&str]| Frontend {
            address,
            port,
            inside: Scope::Cluster,
            outside,
            sources: sources.iter().map(|text| net(text)).collect(),
        };
        let sources: &[&str] = if v6 { &["2001:db8:1::/48"] } else { &["198.51.100.0/24", "203.0.113.7/32"] };
        ServicePort {
            name: "http".into(),
            protocol,
            v6,
            frontends: vec![
                frontend(
                    pick(format!("10.96.0.{number}"), format!("fd00:10:96::{number:x}")),
                    80,
                    Some(Scope::Cluster),
                    &[],
                ),
                frontend(
                    pick("169.254.77.3".into(), "fd73:6c75:6963::3".into()),
                    30_000 + u16::from(number),
                    Some(Scope::Local),
                    &[],
                ),
                frontend(
                    pick(format!("192.0.2.{number}"), format!("2001:db8::{number:x}")),
                    80,
                    Some(Scope::Local),
                    sources,
                ),
            ],
            cluster: vec![Endpoint { address: at(10), port: 8080 }, Endpoint { address: at(11), port: 8080 }],
            local: vec![Endpoint { address: at(10), port: 8080 }],
        }
    };
    let ports = [(false, Protocol::Tcp), (true, Protocol::Tcp), (false, Protocol::Udp), (true, Protocol::Sctp)];
    Service {
        name: format!("default/web{number}"),
        ports: ports.into_iter().map(|(v6, protocol)| port(v6, protocol)).collect(),
        affinity_s,
    }
}

fn peers() -> Vec<Peer> {
    let peer = |name: &str, n: u8, way: fn(u8, bool) -> Way| Peer {
        name: name.into(),
        addresses: vec![ip(&format!("172.30.0.{n}")), ip(&format!("fd00:30::{n}"))],
        pod_cidrs: vec![
            (net(&format!("10.244.{n}.0/24")), way(n, true)),
            (net(&format!("fd00:10:244:{n}::/64")), way(n, false)),
        ],
    };
    let tunnel = |n, v4: bool| Way::Tunnel(ip(&if v4 { format!("172.30.0.{n}") } else { format!("fd00:30::{n}") }));
    vec![peer("b", 2, tunnel), peer("c", 3, |_, _| Way::Host)]
}

fn pods() -> Vec<Pod> {
    let host_port = |protocol, incoming, to| HostPort { protocol, incoming: (ip(incoming), 40_000), to: (ip(to), 80) };
    let pod = |n: u32, host_ports| Pod {
        owner: format!("pod:default/p{n}"),
        port: n,
        mac: 0x0a00_0000_1000 + u64::from(n),
        addresses: vec![ip(&format!("10.244.1.{n}")), ip(&format!("fd00:10:244:1::{n:x}"))],
        host_ports,
    };
    let host_ports = vec![
        host_port(Protocol::Udp, "169.254.77.3", "10.244.1.10"),
        host_port(Protocol::Sctp, "fd73:6c75:6963::3", "fd00:10:244:1::a"),
    ];
    vec![pod(10, host_ports), pod(11, Vec::new())]
}

/// The parts of a whole cluster, and what each is of.
fn everything(node: &Node) -> Vec<(String, Part)> {
    let mut ids = Ids::new();
    let mut all = vec![("base".to_owned(), base(node))];
    all.extend(peers().iter().map(|p| (p.name.clone(), peer(node, p))));
    all.extend(pods().iter().map(|p| (p.owner.clone(), pod(node, p))));
    for number in 1..4 {
        let web = web(number, (number == 2).then_some(10_800));
        all.push((web.name.clone(), service(node, &web, &mut ids)));
    }
    all
}

fn line(flow: &Flow) -> String {
    let comma = if flow.matching.is_empty() { "" } else { "," };
    let reason = flow.drop_reason.map(|reason| format!(",drop_reason={reason}")).unwrap_or_default();
    let actions = if flow.actions.is_empty() { "drop" } else { &flow.actions };
    let head = format!("table={},priority={}{reason},owner={}", flow.table, flow.priority, flow.owner);
    format!("{head}{comma}{} actions={actions}", flow.matching)
}

const FAMILIES: [&[bool]; 3] = [&[true], &[false], &[true, false]];

#[test]
fn every_flow_and_group_is_read_without_a_warning() {
    for families in FAMILIES {
        for (of, part) in everything(&node(families)) {
            for flow in &part.flows {
                let text = line(flow);
                let parsed = parse_flow_mod(&text, Names::NONE).unwrap_or_else(|e| panic!("{of}: {text}\n{e}"));
                assert!(parsed.warnings.is_empty(), "{of}: {text}\n{:?}", parsed.warnings);
            }
            for group in &part.groups {
                let text = format!("group_id={},{}", group.id, group.text);
                parse_group(&text, Names::NONE).unwrap_or_else(|e| panic!("{of}: {text}\n{e}"));
            }
        }
    }
}

#[test]
fn no_two_parts_have_a_flow_or_a_group_in_common() {
    let (mut flows, mut groups) = (BTreeMap::new(), BTreeMap::new());
    for (of, part) in everything(&node(&[true, false])) {
        for flow in part.flows {
            let parsed = parse_flow_mod(&line(&flow), Names::NONE).unwrap().value;
            let sluice_flows::flow_mod::FlowMod::Add { spec, .. } = parsed else { panic!("{flow:?} adds no flow") };
            let key = format!("{} {} {:?}", flow.table, flow.priority, spec.matches);
            if let Some(other) = flows.insert(key, of.clone()) {
                panic!("{of} and {other} have {flow:?}");
            }
        }
        for group in part.groups {
            assert_eq!(groups.insert(group.id, of.clone()), None, "{of}: {group:?}");
        }
    }
}

#[test]
fn the_same_facts_give_the_same_text() {
    let node = node(&[true, false]);
    assert_eq!(everything(&node), everything(&node));
}

#[test]
fn a_node_of_one_family_has_no_word_of_the_other() {
    for (is_v4, foreign) in [(true, ["ipv6", "icmp6"]), (false, ["arp", "nw_dst"])] {
        for (of, part) in everything(&node(&[is_v4])) {
            for flow in part.flows {
                let text = format!("{} {}", flow.matching, flow.actions);
                for word in foreign {
                    assert!(!text.contains(word), "{of}: {text}");
                }
            }
        }
    }
}

#[test]
fn every_flow_is_of_a_table_of_the_pipeline() {
    let names: BTreeMap<u8, &str> = table_names().collect();
    assert_eq!(names.len(), Stage::ALL.len());
    assert_eq!(names.values().collect::<BTreeSet<_>>().len(), names.len(), "names are unique");
    for (of, part) in everything(&node(&[true, false])) {
        for flow in part.flows {
            assert!(flow.table == 0 || names.contains_key(&flow.table), "{of}: {flow:?}");
        }
    }
}

#[test]
fn a_service_that_goes_changes_nothing_of_others_and_comes_back_the_same() {
    let node = node(&[true, false]);
    let mut ids = Ids::new();
    let parts: Vec<_> = (1..20).map(|n| service(&node, &web(n, None), &mut ids)).collect();
    ids.release("default/web7");
    for n in (1..20).rev() {
        assert_eq!(service(&node, &web(n, None), &mut ids), parts[usize::from(n) - 1]);
    }
    assert_eq!(ids.len(), parts.iter().map(|part| part.groups.len()).sum::<usize>());
}

#[test]
fn an_endpoint_that_goes_leaves_the_buckets_of_others_as_they_are() {
    let node = node(&[true]);
    let mut web = web(1, None);
    web.ports.truncate(1);
    web.ports[0].cluster = (10..20).map(|n| endpoint(&format!("10.244.1.{n}"), 8080)).collect();
    let mut ids = Ids::new();
    let buckets = |part: &Part| -> BTreeSet<String> {
        part.groups[0].text.split(",bucket=").skip(1).map(str::to_owned).collect()
    };
    let before = service(&node, &web, &mut ids);
    web.ports[0].cluster.remove(3);
    let after = service(&node, &web, &mut ids);
    assert_eq!(before.groups[0].id, after.groups[0].id);
    assert!(buckets(&after).is_subset(&buckets(&before)));
    assert_eq!((buckets(&before).len(), buckets(&after).len()), (10, 9));
    assert_eq!(before.flows, after.flows, "no flow says which endpoints there are");
}

#[test]
fn without_endpoints_clients_are_told_and_without_local_ones_outsiders_are_not() {
    let node = node(&[true]);
    let mut web = web(1, None);
    web.ports.truncate(1);
    web.ports[0].local.clear();
    let mut ids = Ids::new();
    let local = service(&node, &web, &mut ids);
    let drops: Vec<_> = local.flows.iter().filter(|flow| flow.actions.is_empty()).collect();
    assert_eq!(drops.iter().filter(|flow| flow.drop_reason == Some("service_no_endpoint")).count(), 3, "{drops:#?}");
    web.ports[0].cluster.clear();
    let none = service(&node, &web, &mut ids);
    assert_eq!(none.groups, []);
    assert!(ids.is_empty(), "{ids:?}");
    let rejects = none.flows.iter().filter(|flow| flow.drop_reason == Some("service_no_endpoint"));
    assert_eq!(rejects.filter(|flow| flow.actions == super::text::REJECT).count(), 7);
}

#[test]
fn learned_flows_of_a_service_are_named_by_its_groups() {
    let node = node(&[true]);
    let mut ids = Ids::new();
    let sticky = web(1, Some(60));
    let part = service(&node, &sticky, &mut ids);
    let texts: Vec<String> = learned_of(&sticky, &part).collect();
    assert_eq!(texts.len(), part.groups.len());
    for (text, group) in texts.iter().zip(&part.groups) {
        assert!(text.ends_with(&format!("reg7={:#x}", group.id)));
        let learns = |flow: &&Flow| {
            flow.actions.contains(&format!("cookie={LEARNED:#x}"))
                && flow.matching.ends_with(&format!("reg7={:#x}", group.id))
        };
        assert_eq!(part.flows.iter().filter(learns).count(), group.text.matches("bucket=").count(), "one an endpoint");
        parse_flow_mod(&format!("{text},actions=drop"), Names::NONE).unwrap();
    }
    assert_eq!(learned_of(&web(1, None), &part).count(), 0);
}

#[test]
fn names_with_the_same_hash_get_different_numbers_and_keep_them() {
    let mut ids = Ids::new();
    let first: Vec<u32> = (0..2000).flat_map(|n| ids.of(&format!("s{n}"), ["g".to_owned()]).into_values()).collect();
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 2000);
    // Whoever comes to a number that is taken gets the next one.
    let mut crowded = Ids::new();
    crowded.taken_for_test(first.iter().copied());
    let second: Vec<u32> =
        (0..2000).flat_map(|n| crowded.of(&format!("s{n}"), ["g".to_owned()]).into_values()).collect();
    let taken: BTreeSet<u32> = first.iter().copied().collect();
    assert!(second.iter().all(|id| !taken.contains(id)));
    assert_eq!(second.iter().collect::<BTreeSet<_>>().len(), 2000);
    assert!(
        first.iter().zip(&second).all(|(a, b)| super::ids::next(*a) == *b || taken.contains(&super::ids::next(*a)))
    );
}

#[test]
fn the_router_is_of_no_station() {
    assert_eq!(ROUTER_MAC >> 40 & 3, 2, "locally administered, and of one");
}

#[test]
fn ten_thousand_services_have_groups_with_numbers_of_their_own() {
    const SERVICES: usize = 10_000;
    let node = node(&[true]);
    let mut ids = Ids::new();
    let mut numbers = BTreeSet::new();
    let mut flows = 0;
    for n in 0..SERVICES {
        let (high, low) = (n / 250, n % 250);
        let frontend = Frontend {
            address: ip(&format!("10.96.{high}.{low}")),
            port: 80,
            inside: Scope::Cluster,
            outside: Some(Scope::Cluster),
            sources: Vec::new(),
        };
        let port = ServicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            v6: false,
            frontends: vec![frontend],
            cluster: (1..=10).map(|end| endpoint(&format!("10.{end}.{high}.{low}"), 8080)).collect(),
            local: Vec::new(),
        };
        let web = Service { name: format!("ns{high}/web{low}"), ports: vec![port], affinity_s: None };
        let part = service(&node, &web, &mut ids);
        flows += part.flows.len();
        numbers.extend(part.groups.iter().map(|group| group.id));
    }
    assert_eq!((numbers.len(), flows), (SERVICES, SERVICES), "one flow and one group each");
}
