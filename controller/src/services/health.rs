//! The health checks of load balancers, and of the proxy itself.
//!
//! A load balancer whose Service has the external traffic policy `Local` asks every node at the Service's `healthCheckNodePort`
//! whether it has endpoints. A load balancer of any other Service asks at [`PROXY_PORT`] whether the node takes connections.
//!
//! Answers are those of kube-proxy, so that load balancers need not know the difference: 200 or 503, whatever the path.

use super::read::Spec;
use super::{Here, select};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::{HashMap, HashSet};

pub use server::{HEALTHY_FOR, HealthChecks, PROXY_PORT, ProxyHealth};

mod server;
#[cfg(test)]
mod tests;

/// The taint of a node that the cluster's autoscaler is about to delete.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// What a Service's health check says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Where it is asked for.
    pub port: u16,
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub name: String,
    /// Its ready endpoints on this node, by address; of two families, those of the one that has more.
    pub local: usize,
}

/// The health check of a Service; none if it has none.
#[must_use]
pub fn health(service: &Service, slices: &[&EndpointSlice], here: &Here) -> Option<Check> {
    let spec = Spec::of(service)?;
    let port = spec.health_check()?;
    let (namespace, name) = spec.name.split_once('/')?;
    let ports: HashSet<_> = spec.ports().iter().map(|port| (port.name, port.protocol)).collect();
    let mut addresses: HashMap<bool, HashSet<_>> = HashMap::new();
    for ((port_name, protocol, v6), found) in select::candidates(&spec.name, slices, &here.node) {
        if ports.contains(&(port_name, protocol)) && spec.families().iter().any(|(family, _)| *family == v6) {
            let ready = found.iter().filter(|c| c.local && c.ready);
            addresses.entry(v6).or_default().extend(ready.map(|c| c.endpoint.address));
        }
    }
    let local = addresses.values().map(HashSet::len).max().unwrap_or(0);
    Some(Check { port, namespace: namespace.to_owned(), name: name.to_owned(), local })
}

/// Whether load balancers may go on sending connections to a node: not to one that is being deleted.
#[must_use]
pub fn is_eligible(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    node.metadata.deletion_timestamp.is_none() && taints.into_iter().all(|taint| taint.key != TO_BE_DELETED)
}
