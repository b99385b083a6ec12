//! What is killed, and what is changed meanwhile.

mod killed;
mod traffic;

pub(crate) use killed::{end, kubelet, node_role, others, rolling_update, switch, without_api_server};

use crate::cluster::{Cluster, within};
use crate::pods::{ask, make_server};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// The program of the node role.
const ROLE: &str = "sluice-controller";
/// Kills a program of Sluice on both nodes at once and waits until its containers run again.
fn kill_and_await(cluster: &Cluster, program: &str, container: &str) {
    let before: Vec<u32> = cluster.nodes.iter().map(|node| cluster.restarts(node, container)).collect();
    cluster.nodes.iter().for_each(|node| cluster.kill(node, program));
    for (node, before) in cluster.nodes.iter().zip(before) {
        within(90, "the container to run again", || match cluster.restarts(node, container) {
            now if now > before => Ok(()),
            now => Err(format!("{now} restarts on {node}")),
        });
    }
    cluster.await_agents();
}

/// The flows of a node's switch without what counts and ages, sorted.
fn flows(cluster: &Cluster, node: &str) -> BTreeSet<String> {
    printed(cluster, node, &["flows", "dump", "-o", "ofctl"])
}

/// Lines with actions that a verb prints, without what counts and ages.
fn printed(cluster: &Cluster, node: &str, words: &[&str]) -> BTreeSet<String> {
    let said = cluster.sluice(node, words);
    assert!(said.good, "{}", said.text);
    let volatile = ["duration=", "n_packets=", "n_bytes=", "idle_age=", "hard_age=", "cookie="];
    let steady = |line: &str| {
        let words = line.split([' ', ',']).filter(|word| !volatile.iter().any(|v| word.starts_with(v)));
        words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    };
    said.text.lines().filter(|line| line.contains("actions=")).map(steady).collect()
}

pub(crate) fn same_flows(cluster: &Cluster) {
    let node = &cluster.nodes[0];
    let look = || {
        let groups = printed(cluster, node, &["groups", "dump", "-o", "ofctl"]);
        assert!(!groups.is_empty(), "no Service has a group");
        flows(cluster, node).into_iter().chain(groups).collect::<BTreeSet<_>>()
    };
    let before = look();
    let restarts = cluster.restarts(node, "node");
    cluster.kill(node, ROLE);
    within(60, "the node role to run again", || {
        let now = cluster.restarts(node, "node");
        if now > restarts { Ok(()) } else { Err(format!("{now} restarts")) }
    });
    cluster.await_agents();
    let after = look();
    let differ: Vec<_> = before.symmetric_difference(&after).collect();
    assert!(differ.is_empty(), "{} flows before, {} after; these differ: {differ:#?}", before.len(), after.len());
}

pub(crate) fn deleted_meanwhile(cluster: &Cluster) {
    let node = &cluster.nodes[0];
    cluster.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: brief}, spec: {selector: {app: web}, ports: [{port: 80}]}}",
    );
    make_server(cluster, "brief", node);
    let pod = &cluster.addresses("brief")[0];
    let address = &cluster.cluster_ips("brief")[0];
    within(20, "the Service to answer", || ask(cluster, "a2", address, 80).map(drop));
    // The kubelet waits before it starts again what has just died twice.
    let restarts = cluster.restarts(node, "node");
    cluster.kill(node, ROLE);
    within(60, "the node role to run again", || {
        let now = cluster.restarts(node, "node");
        if now > restarts { Ok(()) } else { Err(format!("{now} restarts")) }
    });
    _ = cluster.try_node(node, &["pkill", "-KILL", "-x", &ROLE[..15]]);
    cluster.kubectl(&["delete", "service/brief", "pod/brief", "--timeout=60s"]);
    within(60, "the flows of the Service and of the Pod to go", || {
        let gone = [address, pod].map(|address| format!("nw_dst={address} "));
        let is_left = |flow: &String| gone.iter().any(|gone| flow.contains(gone));
        let left: Vec<_> = flows(cluster, node).into_iter().filter(is_left).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
    });
    assert!(ask(cluster, "a2", address, 80).is_err(), "{address} is no Service's any more");
    cluster.await_agents();
}

pub(crate) fn no_denied_call(cluster: &Cluster) {
    let log = fs::read_to_string(cluster.folder().join("control/audit.log")).unwrap();
    let calls: Vec<serde_json::Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(calls.len() > 5, "the audit log has {} calls of the controllers", calls.len());
    // An API server that has just started denies everything until it has read its rules: what counts is how each call ended last.
    let mut last = BTreeMap::new();
    for call in &calls {
        let path = call["requestURI"].as_str().unwrap_or_default().split('?').next().unwrap_or_default();
        if let Some(code) = call["responseStatus"]["code"].as_u64() {
            last.insert(format!("{} {path} by {}", call["verb"], call["user"]["username"]), code);
        }
    }
    let denied: Vec<_> = last.into_iter().filter(|(_, code)| *code == 403).collect();
    assert!(denied.is_empty(), "{denied:#?}");
}
