//! Random policies.

use super::LABELS;
use crate::generate::pick;
use ipnet::IpNet;
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};

pub(super) const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
pub(super) const PORTS: [u16; 6] = [53, 80, 81, 443, 8080, 65535];
pub(super) const NAMES: [&str; 4] = ["web", "admin", "query", "side"];

/// The Pods of a node, Pods, everything, nodes, and what is outside; blocks within blocks.
const NETWORKS: [&str; 22] = [
    "0.0.0.0/0",
    "10.244.0.0/16",
    "10.244.1.0/24",
    "10.244.2.0/24",
    "10.244.1.0/29",
    "10.244.1.2/32",
    "10.244.1.3/32",
    "10.244.2.2/31",
    "172.30.0.0/24",
    "172.30.0.11/32",
    "192.0.2.0/24",
    "192.0.2.128/25",
    "192.0.2.7/32",
    "::/0",
    "fd00:244::/48",
    "fd00:244:0:1::/64",
    "fd00:244:0:2::/64",
    "fd00:244:0:1::2/128",
    "fd00:244:0:2::2/127",
    "fd00:30::/64",
    "fd00:30::12/128",
    "2001:db8::/32",
];

pub(super) fn network_policy(rng: &mut StdRng, namespace: &str, name: &str) -> Value {
    let mut spec = json!({});
    if rng.random_bool(0.9) {
        spec["podSelector"] = selector(rng, 0.35);
    }
    match rng.random_range(0..4) {
        0 => {}
        1 => spec["policyTypes"] = json!(["Ingress"]),
        2 => spec["policyTypes"] = json!(["Egress"]),
        _ => spec["policyTypes"] = json!(["Ingress", "Egress"]),
    }
    for (section, peers) in [("ingress", "from"), ("egress", "to")] {
        if rng.random_bool(0.7) {
            spec[section] = list(rng, 0, 3, |rng| namespaced_rule(rng, peers));
        }
    }
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": name, "namespace": namespace }, "spec": spec,
    })
}

fn namespaced_rule(rng: &mut StdRng, peers: &str) -> Value {
    let mut rule = json!({});
    if rng.random_bool(0.8) {
        rule[peers] = list(rng, 0, 3, namespaced_peer);
    }
    if rng.random_bool(0.6) {
        rule["ports"] = list(rng, 0, 3, namespaced_port);
    }
    rule
}

fn namespaced_peer(rng: &mut StdRng) -> Value {
    match rng.random_range(0..10) {
        0..3 => json!({ "podSelector": selector(rng, 0.2) }),
        3..5 => json!({ "namespaceSelector": namespace_selector(rng) }),
        5..7 => json!({ "namespaceSelector": namespace_selector(rng), "podSelector": selector(rng, 0.2) }),
        _ => {
            let cidr = pick(rng, &NETWORKS);
            let mut block = json!({ "cidr": cidr });
            let within = networks_within(cidr);
            if !within.is_empty() && rng.random_bool(0.6) {
                block["except"] = list(rng, 1, 2, |rng| pick(rng, &within).into());
            }
            json!({ "ipBlock": block })
        }
    }
}

/// The networks of the pool that an `except` of this block may have: they are smaller than it.
fn networks_within(cidr: &str) -> Vec<&'static str> {
    let parsed = |text: &str| text.parse::<IpNet>().expect("the pool has networks");
    let outer = parsed(cidr);
    NETWORKS.into_iter().filter(|text| parsed(text) != outer && outer.contains(&parsed(text))).collect()
}

fn namespaced_port(rng: &mut StdRng) -> Value {
    let mut port = json!({});
    if rng.random_bool(0.7) {
        port["protocol"] = pick(rng, &PROTOCOLS).into();
    }
    match rng.random_range(0..10) {
        0 => {}
        1..4 => port["port"] = pick(rng, &NAMES).into(),
        4..7 => port["port"] = pick(rng, &PORTS).into(),
        _ => {
            let (first, last) = range(rng);
            port["port"] = first.into();
            port["endPort"] = if rng.random_bool(0.1) { first } else { last }.into();
        }
    }
    port
}

/// Two ports of the pool, the lower first.
fn range(rng: &mut StdRng) -> (u16, u16) {
    let first = rng.random_range(0..PORTS.len() - 1);
    (PORTS[first], PORTS[rng.random_range(first + 1..PORTS.len())])
}

pub(super) fn cluster_policy(rng: &mut StdRng, name: &str) -> Value {
    let tier = pick(rng, &["Admin", "Baseline"]);
    let mut spec = json!({ "tier": tier, "priority": priority(rng), "subject": subject(rng) });
    for section in ["ingress", "egress"] {
        if rng.random_bool(0.7) {
            spec[section] = list(rng, 1, 3, |rng| cluster_rule(rng, section));
        }
    }
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": { "name": name }, "spec": spec,
    })
}

pub(super) fn admin_policy(rng: &mut StdRng, name: &str) -> Value {
    let mut spec = json!({ "priority": priority(rng), "subject": subject(rng) });
    for section in ["ingress", "egress"] {
        if rng.random_bool(0.7) {
            spec[section] = list(rng, 1, 3, |rng| admin_rule(rng, section, &["Allow", "Deny", "Pass"]));
        }
    }
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "AdminNetworkPolicy",
        "metadata": { "name": name }, "spec": spec,
    })
}

pub(super) fn baseline_policy(rng: &mut StdRng) -> Value {
    let mut spec = json!({ "subject": subject(rng) });
    for section in ["ingress", "egress"] {
        if rng.random_bool(0.7) {
            spec[section] = list(rng, 1, 3, |rng| admin_rule(rng, section, &["Allow", "Deny"]));
        }
    }
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "BaselineAdminNetworkPolicy",
        "metadata": { "name": "default" }, "spec": spec,
    })
}

/// Seldom equal to another's.
fn priority(rng: &mut StdRng) -> i32 {
    match rng.random_range(0..10) {
        0 => 0,
        1 => 1000,
        _ => rng.random_range(1..100),
    }
}

fn subject(rng: &mut StdRng) -> Value {
    if rng.random_bool(0.5) {
        json!({ "namespaces": namespace_selector(rng) })
    } else {
        json!({ "pods": { "namespaceSelector": namespace_selector(rng), "podSelector": selector(rng, 0.3) } })
    }
}

fn cluster_rule(rng: &mut StdRng, section: &str) -> Value {
    let action = pick(rng, &["Accept", "Deny", "Pass"]);
    let (mut rule, named) = rule(rng, section, action, "Accept");
    if rng.random_bool(0.6) {
        rule["protocols"] = list(rng, 1, 3, |rng| cluster_protocol(rng, named));
    }
    rule
}

fn admin_rule(rng: &mut StdRng, section: &str, actions: &[&str]) -> Value {
    let action = pick(rng, actions);
    // The baseline, which does not pass, has no names of domains.
    let accept = if actions.contains(&"Pass") { "Allow" } else { "" };
    let (mut rule, named) = rule(rng, section, action, accept);
    if rng.random_bool(0.6) {
        rule["ports"] = list(rng, 1, 3, |rng| admin_port(rng, named));
    }
    rule
}

/// A rule without ports, and whether it may have named ones: not beside peers that are no Pods.
fn rule(rng: &mut StdRng, section: &str, action: &str, accept: &str) -> (Value, bool) {
    let pods_only = section == "ingress" || rng.random_bool(0.5);
    // Only rules that accept may name domains.
    let domains = !pods_only && action == accept;
    let peers = list(rng, 1, 3, |rng| cluster_peer(rng, pods_only, domains));
    let mut rule = json!({ "action": action });
    rule[if section == "ingress" { "from" } else { "to" }] = peers;
    if rng.random_bool(0.2) {
        rule["name"] = "named".into();
    }
    (rule, pods_only)
}

fn cluster_peer(rng: &mut StdRng, pods_only: bool, domains: bool) -> Value {
    match rng.random_range(0..if pods_only { 6 } else { 12 }) {
        0..3 => json!({ "namespaces": namespace_selector(rng) }),
        3..6 => json!({ "pods": { "namespaceSelector": namespace_selector(rng), "podSelector": selector(rng, 0.3) } }),
        6..8 => json!({ "nodes": selector(rng, 0.3) }),
        8 if domains && rng.random_bool(0.3) => json!({ "domainNames": ["*.example.org"] }),
        _ => {
            // A set: the API server refuses what is there twice.
            let first = rng.random_range(0..NETWORKS.len());
            let second = (first + rng.random_range(1..NETWORKS.len())) % NETWORKS.len();
            let networks = &[NETWORKS[first], NETWORKS[second]][..rng.random_range(1..=2)];
            json!({ "networks": networks })
        }
    }
}

fn cluster_protocol(rng: &mut StdRng, named: bool) -> Value {
    if named && rng.random_bool(0.3) {
        return json!({ "destinationNamedPort": pick(rng, &NAMES) });
    }
    let mut ports = json!({});
    if rng.random_bool(0.5) {
        ports["destinationPort"] = json!({ "number": pick(rng, &PORTS) });
    } else {
        let (first, last) = range(rng);
        ports["destinationPort"] = json!({ "range": { "start": first, "end": last } });
    }
    let mut protocol = json!({});
    protocol[pick(rng, &["tcp", "udp", "sctp"])] = ports;
    protocol
}

fn admin_port(rng: &mut StdRng, named: bool) -> Value {
    if named && rng.random_bool(0.3) {
        return json!({ "namedPort": pick(rng, &NAMES) });
    }
    let protocol = pick(rng, &PROTOCOLS);
    if rng.random_bool(0.5) {
        json!({ "portNumber": { "protocol": protocol, "port": pick(rng, &PORTS) } })
    } else {
        let (first, last) = range(rng);
        json!({ "portRange": { "protocol": protocol, "start": first, "end": last } })
    }
}

/// A selector of Pods, nodes or namespaces by the pool's labels; `all` is how often it asks for nothing.
fn selector(rng: &mut StdRng, all: f64) -> Value {
    let mut selector = json!({});
    if rng.random_bool(all) {
        return selector;
    }
    if rng.random_bool(0.6) {
        let (key, values) = pick(rng, &LABELS);
        selector["matchLabels"] = json!({ key: pick(rng, &values) });
    }
    if rng.random_bool(0.5) {
        selector["matchExpressions"] = list(rng, 1, 2, requirement);
    }
    selector
}

/// The same for namespaces, which have their name as a label as well.
fn namespace_selector(rng: &mut StdRng) -> Value {
    match rng.random_range(0..10) {
        0..2 => json!({ "matchLabels": { "kubernetes.io/metadata.name": pick(rng, &super::NAMESPACES) } }),
        2 => {
            let requirement = json!({
                "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [pick(rng, &super::NAMESPACES)],
            });
            json!({ "matchExpressions": [requirement] })
        }
        _ => selector(rng, 0.3),
    }
}

fn requirement(rng: &mut StdRng) -> Value {
    let (key, values) = pick(rng, &LABELS);
    let some = if rng.random_bool(0.8) { vec![pick(rng, &values)] } else { values.to_vec() };
    match rng.random_range(0..4) {
        0 => json!({ "key": key, "operator": "In", "values": some }),
        1 => json!({ "key": key, "operator": "NotIn", "values": some }),
        2 => json!({ "key": key, "operator": "Exists" }),
        _ => json!({ "key": key, "operator": "DoesNotExist" }),
    }
}

fn list(rng: &mut StdRng, least: usize, most: usize, mut one: impl FnMut(&mut StdRng) -> Value) -> Value {
    let count = rng.random_range(least..=most);
    (0..count).map(|_| one(rng)).collect()
}
