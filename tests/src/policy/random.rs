//! Seeded random clusters. Labels, addresses and ports come from pools so small that selectors, blocks and ranges hit.
//! Every object is one that the API server takes.

use super::objects::Object;
use super::world::World;
use crate::generate::{pick, seeded};
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};

mod rules;

/// Which families the cluster's Pods have.
#[derive(Clone, Copy, Debug)]
struct Families {
    ipv4: bool,
    ipv6: bool,
}

/// What a Pod's label, or a namespace's, may be.
const LABELS: [(&str, [&str; 2]); 3] = [("app", ["web", "db"]), ("team", ["red", "blue"]), ("env", ["prod", "test"])];
const NAMESPACES: [&str; 3] = ["x", "y", "z"];
const PODS: usize = 12;
const POLICIES: usize = 8;

impl World {
    /// A random cluster: equal seeds and sizes give equal clusters. It has 3 to 12 Pods on two nodes, in up to three
    /// namespaces, and of each kind of policy none to `size`, at most 8 (one BaselineAdminNetworkPolicy).
    pub fn random(seed: u64, size: usize) -> Self {
        let rng = &mut seeded(seed);
        let mut values = nodes(rng);
        let namespaces = &NAMESPACES[..rng.random_range(1..=NAMESPACES.len())];
        values.extend(namespaces.iter().map(|name| namespace(rng, name)));
        values.extend(pods(rng, namespaces, size));
        let most = size.min(POLICIES);
        // Most clusters have one generation of the cluster's policies; some have no NetworkPolicy, and so a Baseline
        // that is asked more often.
        let (namespaced, new, old) = match rng.random_range(0..10) {
            0 => (false, true, false),
            1..3 => (false, false, true),
            3..5 => (true, false, true),
            5..7 => (true, true, true),
            _ => (true, true, false),
        };
        let mut upto = |some: bool| if some { rng.random_range(0..=most) } else { 0 };
        let (namespaced, new, admin) = (upto(namespaced), upto(new), upto(old));
        for index in 0..namespaced {
            let namespace = pick(rng, namespaces);
            values.push(rules::network_policy(rng, namespace, &format!("np-{index}")));
        }
        values.extend((0..new).map(|index| rules::cluster_policy(rng, &format!("cnp-{index}"))));
        values.extend((0..admin).map(|index| rules::admin_policy(rng, &format!("anp-{index}"))));
        if old && most > 0 && rng.random_bool(0.8) {
            values.push(rules::baseline_policy(rng));
        }
        let mut world = Self::default();
        for value in values {
            world.apply(Object::read(value).expect("what is generated can be read"));
        }
        world
    }
}

fn nodes(rng: &mut StdRng) -> Vec<Value> {
    let node = |rng: &mut StdRng, index: usize| {
        let mut addresses = vec![
            json!({ "type": "Hostname", "address": format!("node-{index}") }),
            json!({ "type": "InternalIP", "address": format!("172.30.0.1{index}") }),
            json!({ "type": "InternalIP", "address": format!("fd00:30::1{index}") }),
        ];
        if rng.random_bool(0.2) {
            addresses.push(json!({ "type": "ExternalIP", "address": format!("192.0.2.{index}") }));
        }
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": format!("node-{index}"), "labels": labels(rng) },
            "status": { "addresses": addresses },
        })
    };
    vec![node(rng, 1), node(rng, 2)]
}

fn namespace(rng: &mut StdRng, name: &str) -> Value {
    let mut labels = labels(rng);
    labels["kubernetes.io/metadata.name"] = name.into();
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } })
}

fn labels(rng: &mut StdRng) -> Value {
    let mut labels = json!({});
    for (key, values) in LABELS {
        if rng.random_bool(0.6) {
            labels[key] = pick(rng, &values).into();
        }
    }
    labels
}

fn pods(rng: &mut StdRng, namespaces: &[&str], size: usize) -> Vec<Value> {
    let families = match rng.random_range(0..10) {
        0..2 => Families { ipv4: true, ipv6: false },
        2..4 => Families { ipv4: false, ipv6: true },
        _ => Families { ipv4: true, ipv6: true },
    };
    let count = rng.random_range(3..=PODS.min(4 + size));
    let mut pods = Vec::new();
    for index in 0..count {
        let namespace = pick(rng, namespaces);
        pods.push(pod(rng, namespace, index, families));
    }
    pods
}

fn pod(rng: &mut StdRng, namespace: &str, index: usize, families: Families) -> Value {
    let node = rng.random_range(1..=2);
    // The first two always live, so that there is someone to ask about.
    let (phase, host) = match rng.random_range(0..20) {
        0 if index > 1 => ("Succeeded", false),
        1 if index > 1 => ("Failed", false),
        2 if index > 1 => ("Pending", false),
        3..5 if index > 1 => ("Running", true),
        _ => ("Running", false),
    };
    let ended = matches!(phase, "Succeeded" | "Failed");
    // An ended Pod's address may be another's by now: the one before it in the order of making.
    let number = if ended && rng.random_bool(0.7) { index + 1 } else { index + 2 };
    let mut addresses = Vec::new();
    let one = rng.random_bool(0.1);
    if families.ipv4 {
        addresses.push(if host { format!("172.30.0.1{node}") } else { format!("10.244.{node}.{number}") });
    }
    if families.ipv6 && !(one && families.ipv4) {
        addresses.push(if host { format!("fd00:30::1{node}") } else { format!("fd00:244:0:{node}::{number}") });
    }
    let mut status = json!({ "phase": phase });
    if phase != "Pending" {
        status["podIP"] = addresses[0].clone().into();
        status["podIPs"] = addresses.iter().map(|address| json!({ "ip": address })).collect();
    }
    let mut spec = json!({ "nodeName": format!("node-{node}"), "containers": containers(rng) });
    if host {
        spec["hostNetwork"] = true.into();
    }
    if rng.random_bool(0.1) {
        let restart = if rng.random_bool(0.5) { json!("Always") } else { Value::Null };
        let port = json!({ "name": "side", "containerPort": pick(rng, &rules::PORTS) });
        let sidecar = json!({ "name": "init", "image": "none", "restartPolicy": restart, "ports": [port] });
        spec["initContainers"] = json!([sidecar]);
    }
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": format!("pod-{index}"), "namespace": namespace, "labels": labels(rng) },
        "spec": spec,
        "status": status,
    })
}

/// One or two containers; a name is that of one port of the Pod.
fn containers(rng: &mut StdRng) -> Value {
    // The last is a sidecar's.
    let mut names = rules::NAMES[..rules::NAMES.len() - 1].to_vec();
    let mut containers = Vec::new();
    for index in 0..rng.random_range(1..=2) {
        let mut ports = Vec::new();
        for _ in 0..rng.random_range(0..=2) {
            let mut port = json!({ "containerPort": pick(rng, &rules::PORTS) });
            if rng.random_bool(0.6) {
                port["protocol"] = pick(rng, &rules::PROTOCOLS).into();
            }
            if rng.random_bool(0.8) && !names.is_empty() {
                port["name"] = names.swap_remove(rng.random_range(0..names.len())).into();
            }
            ports.push(port);
        }
        containers.push(json!({ "name": format!("c{index}"), "image": "none", "ports": ports }));
    }
    containers.into()
}
