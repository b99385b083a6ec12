//! How long it takes for a cluster of 5,000 nodes, and how much memory: `--ignored --nocapture scale`, in a release build.

use super::*;
use crate::facts::policy::Policy;
use crate::stream::digests::{Digests, hello};
use crate::stream::{PART_SIZE, words};
use k8s_openapi::api::core::v1::Pod;
use prost::Message;
use std::time::{Duration, Instant};

const NODES: usize = 5_000;
const NAMESPACES: usize = 25_000;
const PODS_OF_NAMESPACE: usize = 4;

/// What the process has in memory, in MiB.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

fn pod_of(namespace: usize, index: usize, app: &str) -> Pod {
    let number = namespace * PODS_OF_NAMESPACE + index;
    let address = format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255);
    let labels =
        json!({ "app": app, "pod-template-hash": format!("{number:08x}"), "team": format!("t{}", namespace % 50) });
    let node = format!("node-{}", number % NODES);
    of(&pod(&format!("ns-{namespace}"), &format!("pod-{index}"), &labels, &node, &[&address]))
}

/// Three for each namespace: nobody gets anything; within the namespace; from the namespaces of a label, and to a network.
fn put_policies(cluster: &mut Cluster, namespace: usize) {
    let name = format!("ns-{namespace}");
    let within = json!({ "podSelector": { "matchLabels": { "app": "a1" } },
        "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": "a0" } } }], "ports": [{ "port": 80 }] }] });
    let monitoring = json!({ "matchLabels": { "role": "monitoring" } });
    let outside = json!({ "podSelector": { "matchLabels": { "app": "a2" } }, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{ "from": [{ "namespaceSelector": monitoring }], "ports": [{ "port": 9090 }] }],
        "egress": [{ "to": [{ "ipBlock": { "cidr": "192.0.2.0/24" } }] }] });
    let specs = [("default", json!({ "podSelector": {} })), ("within", within), ("outside", outside)];
    for (policy, spec) in specs {
        cluster.put_network_policy(&of(&network_policy(&name, policy, &spec)));
    }
}

/// Bytes of the messages by which a node is told of updates.
fn sent(updates: &[Update]) -> usize {
    let words = updates.iter().flat_map(|update| words::write(update, PART_SIZE));
    words.map(|word| word.encoded_len()).sum()
}

/// Bytes and updates of what nodes were sent.
#[derive(Default)]
struct Sent {
    nodes: usize,
    updates: usize,
    bytes: usize,
    most: usize,
}

impl Sent {
    fn add(&mut self, told: &BTreeMap<Arc<str>, Vec<Update>>) {
        for updates in told.values() {
            let bytes = sent(updates);
            self.nodes += 1;
            self.updates += updates.len();
            self.bytes += bytes;
            self.most = self.most.max(bytes);
        }
    }
}

/// Every node begins another stream with all that it was told: what it says, and what it is sent.
fn come_back(cluster: &mut Cluster, told: &BTreeMap<Arc<str>, Vec<Update>>) {
    let (mut said, mut lacks) = (0, 0);
    for (node, updates) in told {
        let mut state = State::default();
        updates.iter().for_each(|update| state.apply(update));
        let hello = hello(&state);
        said += hello.encoded_len();
        cluster.restart(node);
        lacks += sent(&Digests::read(hello).unwrap().lack(cluster.take_node(node)));
    }
    println!(
        "a node that comes back says {} bytes, and is sent {} if nothing has changed",
        said / NODES,
        lacks / NODES
    );
    assert_eq!(lacks, 0);
}

#[test]
#[ignore = "it measures, and takes a minute"]
fn a_large_cluster_is_computed_in_seconds() {
    let before = resident_mib();
    let mut cluster = Cluster::new();
    let start = Instant::now();
    for index in 0..NAMESPACES {
        let role = if index % 5_000 == 0 { json!({ "role": "monitoring" }) } else { json!({ "team": "t" }) };
        cluster.put_namespace(&of(&namespace(&format!("ns-{index}"), &role)));
    }
    for index in 0..NAMESPACES * PODS_OF_NAMESPACE {
        let (namespace, index) = (index / PODS_OF_NAMESPACE, index % PODS_OF_NAMESPACE);
        cluster.put_pod(&pod_of(namespace, index, &format!("a{index}")));
    }
    println!("objects read and put in {:?}, {} MiB", start.elapsed(), resident_mib() - before);
    let start = Instant::now();
    for index in 0..NAMESPACES {
        put_policies(&mut cluster, index);
    }
    println!("policies read and put in {:?}, {} MiB", start.elapsed(), resident_mib() - before);
    let start = Instant::now();
    let pending = cluster.pending();
    println!("computed in {:?} for {} nodes, {} MiB", start.elapsed(), pending.len(), resident_mib() - before);
    let start = Instant::now();
    let told = cluster.take();
    println!("told in {:?}, {} MiB with all that is told", start.elapsed(), resident_mib() - before);
    let mut first = Sent::default();
    first.add(&told);
    let Sent { nodes, updates, bytes, most } = first;
    println!("a node is sent {} bytes at first, in {} updates, and {most} at most", bytes / nodes, updates / nodes);
    come_back(&mut cluster, &told);
    drop(told);
    println!("{} MiB when it is told", resident_mib() - before);
    println!("objects, namespaces, groups, policies, nodes: {:?}", cluster.sizes());
    let mut timed = |what: &str, times: u32, change: &mut dyn FnMut(&mut Cluster, usize)| {
        let (mut took, mut sent) = (Duration::ZERO, Sent::default());
        for index in 0..times as usize {
            let start = Instant::now();
            change(&mut cluster, index);
            let told = cluster.take();
            took += start.elapsed();
            sent.add(&told);
        }
        let (nodes, bytes) = (sent.nodes, sent.bytes / sent.nodes.max(1));
        println!("{what}: {:?} each, {nodes} nodes told in {times}, {bytes} bytes each", took / times);
    };
    timed("a Pod's label", 1000, &mut |cluster, index| cluster.put_pod(&pod_of(index + 1, 3, "a0")));
    timed("a Pod's label that nobody asks for", 1000, &mut |cluster, index| {
        cluster.put_pod(&pod_of(5_000, index % 4, if index % 8 < 4 { "b" } else { "c" }));
    });
    timed("a Pod more that all look at", 20, &mut |cluster, index| {
        cluster.put_pod(&of(&pod("ns-0", &format!("more-{index}"), &json!({}), "node-7", &["10.9.9.9"])));
    });
    timed("a policy more", 1000, &mut |cluster, index| {
        let spec = json!({ "podSelector": { "matchLabels": { "app": "a3" } }, "ingress": [{}] });
        cluster.put_network_policy(&of(&network_policy(&format!("ns-{index}"), "more", &spec)));
    });
    println!("{} MiB at the end", resident_mib() - before);
    let state = cluster.state("node-7");
    let subjects = |policy: &Arc<Policy>| !state.groups[&policy.subject].members.is_empty();
    assert!(state.policies.len() > 20 && state.policies.values().all(subjects));
}
