//! Clusters of few names, so that everything meets everything.

mod random;
mod scale;
mod spans;

use super::Cluster;
use super::objects::{self, Fact};
use super::read::{self, Reading};
use super::selector::{Labels, Scope, Selector};
use crate::facts::policy::{Group, Member, Peer, State, Update};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) fn of<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

/// A Pod that runs.
pub(super) fn pod(namespace: &str, name: &str, labels: &Value, node: &str, addresses: &[&str]) -> Value {
    let ips: Vec<Value> = addresses.iter().map(|address| json!({ "ip": address })).collect();
    json!({
        "kind": "Pod", "metadata": { "namespace": namespace, "name": name, "labels": labels },
        "spec": { "nodeName": node, "containers": [] }, "status": { "phase": "Running", "podIPs": ips },
    })
}

pub(super) fn namespace(name: &str, labels: &Value) -> Value {
    json!({ "kind": "Namespace", "metadata": { "name": name, "labels": labels } })
}

pub(super) fn network_policy(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({ "kind": "NetworkPolicy", "metadata": { "namespace": namespace, "name": name }, "spec": spec })
}

/// Kind, namespace and name.
pub(super) fn key(object: &Value) -> (String, String, String) {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    (word(&object["kind"]), word(&metadata["namespace"]), word(&metadata["name"]))
}

pub(super) fn put(cluster: &mut Cluster, object: &Value) {
    match object["kind"].as_str().unwrap() {
        "Pod" => cluster.put_pod(&of(object)),
        "Namespace" => cluster.put_namespace(&of(object)),
        "Node" => cluster.put_node(&of(object)),
        "NetworkPolicy" => cluster.put_network_policy(&of(object)),
        "ClusterNetworkPolicy" => cluster.put_cluster_network_policy(&of(object)),
        "AdminNetworkPolicy" => cluster.put_admin_network_policy(&of(object)),
        "BaselineAdminNetworkPolicy" => cluster.put_baseline_admin_network_policy(&of(object)),
        kind => panic!("{kind}"),
    }
}

pub(super) fn read_policy(object: &Value) -> Option<Reading> {
    Some(match object["kind"].as_str().unwrap() {
        "NetworkPolicy" => read::network(&of(object)),
        "ClusterNetworkPolicy" => read::cluster(&of(object)),
        "AdminNetworkPolicy" => read::admin(&of(object)),
        "BaselineAdminNetworkPolicy" => read::baseline(&of(object)),
        _ => return None,
    })
}

pub(super) fn cluster_of(objects: &[Value]) -> Cluster {
    let mut cluster = Cluster::new();
    objects.iter().for_each(|object| put(&mut cluster, object));
    cluster
}

/// Puts updates in, and looks that no policy is there without its groups at any time.
pub(super) fn apply(state: &mut State, updates: &[Update]) {
    for update in updates {
        if let Update::Members(key, _) = update {
            assert!(state.groups.contains_key(key), "members of a group that is not known: {update:?}");
        }
        state.apply(update);
        for policy in state.policies.values() {
            let peers = policy.rules.iter().flat_map(|rule| rule.peers.iter().flatten());
            let named = peers.filter_map(|peer| match peer {
                Peer::Group(key) => Some(key),
                Peer::Net { .. } => None,
            });
            for key in named.chain([&policy.subject]) {
                assert!(state.groups.contains_key(key), "{} is there without {key:?} after {update:?}", policy.name);
            }
        }
    }
}

/// What nodes have to know, by looking at every object for every policy.
pub(super) fn plain(objects: &BTreeMap<(String, String, String), Value>, node: &str) -> State {
    let mut namespaces = BTreeMap::new();
    let mut things: Vec<(String, Option<String>, Fact)> = Vec::new();
    for ((kind, namespace, name), object) in objects {
        match kind.as_str() {
            "Namespace" => {
                let labels = of::<k8s_openapi::api::core::v1::Namespace>(object).metadata.labels;
                namespaces.insert(name.clone(), Labels::of_namespace(name, labels.as_ref()));
            }
            "Pod" => {
                let fact = objects::pod(&of(object));
                things.extend(fact.map(|fact| (format!("{namespace}/{name}"), Some(namespace.clone()), fact)));
            }
            "Node" => things.push((name.clone(), None, objects::node(&of(object)))),
            _ => {}
        }
    }
    let selects = |selector: &Selector, namespace: &Option<String>, fact: &Fact| {
        let in_scope = match (&selector.scope, namespace) {
            (Scope::Nodes, None) => true,
            (Scope::Namespace(name), Some(namespace)) => **name == **namespace,
            (Scope::Namespaces(of), Some(namespace)) => namespaces.get(namespace).is_some_and(|all| of.matches(all)),
            _ => false,
        };
        in_scope && selector.matches(&fact.labels, &fact.addresses)
    };
    let members = |selector: &Selector| {
        let mut group = Group::default();
        for (name, namespace, fact) in &things {
            if selects(selector, namespace, fact) && (!selector.is_subject || fact.node == node) {
                let mut addresses = fact.addresses.clone();
                addresses.retain(|address| selector.block.as_ref().is_none_or(|block| block.contains(address)));
                let member = Member { node: fact.node.as_str().into(), addresses, ports: fact.ports.clone() };
                group.members.insert(name.as_str().into(), Arc::new(member));
            }
        }
        group
    };
    let mut state = State::default();
    for reading in objects.values().filter_map(read_policy) {
        let Some(policy) = reading.policy else { continue };
        if !members(&reading.groups[&policy.subject]).members.is_empty() {
            state.policies.insert(policy.name.clone(), Arc::new(policy));
            state.groups.extend(reading.groups.iter().map(|(key, selector)| (key.clone(), members(selector))));
        }
    }
    state
}
