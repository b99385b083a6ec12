//! What of an object is kept: less memory, less to write, and no change where nothing that counts has changed.
//!
//! A Node's status changes every few minutes by its heartbeat and its images; none of that is ours. Annotations are kept if
//! they steer how Services are balanced, or are our own.

use k8s_openapi::api::core::v1::{Node, NodeAddress, NodeSpec, NodeStatus, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{ServiceCIDR, ServiceCIDRStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

/// Annotations and labels that count, by how their keys begin.
const KEPT: [&str; 4] = ["sluice.", "service.kubernetes.io/", "kubernetes.io/", "topology.kubernetes.io/"];

fn kept(map: Option<BTreeMap<String, String>>) -> Option<BTreeMap<String, String>> {
    let mut map = map?;
    map.retain(|key, _| KEPT.iter().any(|prefix| key.starts_with(prefix)));
    (!map.is_empty()).then_some(map)
}

fn metadata(metadata: ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        name: metadata.name,
        namespace: metadata.namespace,
        labels: kept(metadata.labels),
        annotations: kept(metadata.annotations),
        creation_timestamp: metadata.creation_timestamp,
        deletion_timestamp: metadata.deletion_timestamp,
        ..ObjectMeta::default()
    }
}

/// A Node: its Pods' networks, its addresses, its place, its taints.
#[must_use]
pub fn node(node: Node) -> Node {
    let spec = node.spec.unwrap_or_default();
    let addresses = node.status.and_then(|status| status.addresses);
    let counts = |address: &NodeAddress| matches!(address.type_.as_str(), "InternalIP" | "ExternalIP");
    let addresses = addresses.map(|all| all.into_iter().filter(counts).collect::<Vec<_>>());
    Node {
        metadata: metadata(node.metadata),
        spec: Some(NodeSpec {
            pod_cidr: spec.pod_cidr,
            pod_cidrs: spec.pod_cidrs,
            taints: spec.taints,
            ..NodeSpec::default()
        }),
        status: Some(NodeStatus { addresses, ..NodeStatus::default() }),
    }
}

/// A Service: all of its specification, and the addresses of its load balancer.
#[must_use]
pub fn service(mut service: Service) -> Service {
    service.metadata = metadata(service.metadata);
    if let Some(spec) = &mut service.spec {
        spec.selector = None;
    }
    if let Some(status) = &mut service.status {
        status.conditions = None;
    }
    service
}

/// An EndpointSlice: its endpoints without the names of what is behind them.
#[must_use]
pub fn slice(mut slice: EndpointSlice) -> EndpointSlice {
    slice.metadata = metadata(slice.metadata);
    for endpoint in &mut slice.endpoints {
        endpoint.target_ref = None;
        endpoint.hostname = None;
        endpoint.deprecated_topology = None;
    }
    slice
}

/// A ServiceCIDR: its networks.
#[must_use]
pub fn service_cidr(mut cidr: ServiceCIDR) -> ServiceCIDR {
    cidr.metadata = metadata(cidr.metadata);
    cidr.status = None::<ServiceCIDRStatus>;
    cidr
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
    use serde_json::json;

    #[test]
    fn a_heartbeat_is_no_change() {
        let at = |time: &str, version: &str| -> Node {
            serde_json::from_value(json!({
                "metadata": {"name": "n", "resourceVersion": version,
                    "labels": {"topology.kubernetes.io/zone": "a", "shop/color": "red"}},
                "spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"], "unschedulable": true},
                "status": {
                    "addresses": [{"type": "InternalIP", "address": "1.2.3.4"}, {"type": "Hostname", "address": "n"}],
                    "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": time}],
                },
            }))
            .unwrap()
        };
        let first = node(at("2026-01-01T00:00:00Z", "1"));
        assert_eq!(first, node(at("2026-01-01T00:05:00Z", "2")));
        let labels = first.metadata.labels.unwrap();
        assert_eq!(labels.keys().collect::<Vec<_>>(), ["topology.kubernetes.io/zone"]);
        assert_eq!(first.status.unwrap().addresses.unwrap().len(), 1);
        assert_eq!(first.spec.unwrap().pod_cidrs.unwrap(), ["10.244.0.0/24"]);
    }

    #[test]
    fn annotations_of_others_go_and_those_about_topology_stay() {
        let annotations = [("service.kubernetes.io/topology-mode", "Auto"), ("kubectl.kubernetes.io/last", "...")];
        let metadata = ObjectMeta {
            annotations: Some(annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            managed_fields: Some(vec![ManagedFieldsEntry::default()]),
            ..ObjectMeta::default()
        };
        let trimmed = service(Service { metadata, ..Service::default() }).metadata;
        assert_eq!(trimmed.managed_fields, None);
        let annotations = trimmed.annotations.unwrap();
        assert_eq!(annotations.keys().collect::<Vec<_>>(), ["service.kubernetes.io/topology-mode"]);
    }
}
