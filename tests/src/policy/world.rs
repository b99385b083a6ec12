//! A cluster, as far as policy sees it.

use super::objects::{AdminNetworkPolicy, BaselineAdminNetworkPolicy, ClusterNetworkPolicy, Object};
use super::selector::Labels;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};
use std::fmt;
use std::net::IpAddr;

/// A cluster's objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct World {
    /// In the order in which they were made. There is one of each kind, namespace and name.
    pub objects: Vec<Object>,
}

/// Where a packet comes from or goes to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// A Pod, by one of its addresses. A Pod with hostNetwork is the host of its node.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Which of its addresses.
        address: IpAddr,
    },
    /// A node's host, by any address that it has: also one that the Node does not list, as a bridge's.
    Host {
        /// The node's name.
        node: String,
        /// Which of its addresses.
        address: IpAddr,
    },
    /// Whatever has this address: a Pod that lives, a node that lists it, or something outside.
    Address(IpAddr),
}

impl End {
    /// Its address.
    pub fn address(&self) -> IpAddr {
        match self {
            Self::Pod { address, .. } | Self::Host { address, .. } | Self::Address(address) => *address,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { namespace, name, address } => write!(f, "{namespace}/{name} ({address})"),
            Self::Host { node, address } => write!(f, "host of {node} ({address})"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// What an end is for policy.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a> {
    Pod { pod: &'a Pod, address: IpAddr },
    Host { node: &'a str, address: IpAddr },
    Outside(IpAddr),
}

impl<'a> Place<'a> {
    pub(super) fn address(self) -> IpAddr {
        match self {
            Self::Pod { address, .. } | Self::Host { address, .. } | Self::Outside(address) => address,
        }
    }

    /// The Pod, if it is one of the Pod network.
    pub(super) fn pod(self) -> Option<&'a Pod> {
        if let Self::Pod { pod, .. } = self { Some(pod) } else { None }
    }
}

pub(super) fn name_of(name: &Option<String>) -> &str {
    name.as_deref().unwrap_or_default()
}

/// Whether a Pod's address is its own: it has not ended, and it is no host's.
pub(super) fn is_on_pod_network(pod: &Pod) -> bool {
    !has_ended(pod) && !is_on_host_network(pod)
}

pub(super) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

pub(super) fn is_on_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true))
}

pub(super) fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().map_or("", |spec| name_of(&spec.node_name))
}

/// A Pod's addresses: `podIPs`, and `podIP` where that is all there is.
pub(super) fn pod_addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    let listed: Vec<&str> = status.pod_ips.iter().flatten().map(|of| of.ip.as_str()).collect();
    let texts = if listed.is_empty() { status.pod_ip.iter().map(String::as_str).collect() } else { listed };
    texts.into_iter().filter_map(|text| text.parse().ok()).collect()
}

/// The addresses that a Node lists; its names are none.
pub(super) fn node_addresses(node: &Node) -> Vec<IpAddr> {
    let listed = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    listed.filter_map(|of| of.address.parse().ok()).collect()
}

impl World {
    /// Reads objects: single ones, and lists of them.
    ///
    /// # Errors
    ///
    /// An object that cannot be read.
    pub fn read(values: Vec<Value>) -> Result<Self, String> {
        let mut world = Self::default();
        for value in values {
            match value.get("items") {
                Some(Value::Array(items)) => {
                    for item in items {
                        world.apply(Object::read(item.clone())?);
                    }
                }
                _ => world.apply(Object::read(value)?),
            }
        }
        Ok(world)
    }

    /// All objects as one list that `kubectl apply` takes (statuses apart).
    pub fn write(&self) -> Value {
        let items: Vec<Value> = self.objects.iter().map(Object::write).collect();
        json!({ "apiVersion": "v1", "kind": "List", "items": items })
    }

    /// Adds an object, or replaces the one of its kind, namespace and name.
    pub fn apply(&mut self, object: Object) {
        match self.objects.iter_mut().find(|of| of.key() == object.key()) {
            Some(old) => *old = object,
            None => self.objects.push(object),
        }
    }

    /// An object by kind, namespace (empty for objects of the whole cluster) and name, to be changed.
    pub fn object_mut(&mut self, kind: &str, namespace: &str, name: &str) -> Option<&mut Object> {
        self.objects.iter_mut().find(|of| {
            let key = of.key();
            (key.0, key.1.as_str(), key.2.as_str()) == (kind, namespace, name)
        })
    }

    /// Takes an object away. Says whether there was one.
    pub fn delete(&mut self, kind: &str, namespace: &str, name: &str) -> bool {
        let before = self.objects.len();
        self.objects.retain(|of| {
            let key = of.key();
            (key.0, key.1.as_str(), key.2.as_str()) != (kind, namespace, name)
        });
        self.objects.len() < before
    }

    /// Its namespaces.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.objects.iter().filter_map(|of| if let Object::Namespace(of) = of { Some(of) } else { None })
    }

    /// Its Pods.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.objects.iter().filter_map(|of| if let Object::Pod(of) = of { Some(of) } else { None })
    }

    /// Its nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.objects.iter().filter_map(|of| if let Object::Node(of) = of { Some(of) } else { None })
    }

    /// Its NetworkPolicies.
    pub fn network_policies(&self) -> impl Iterator<Item = &NetworkPolicy> {
        self.objects.iter().filter_map(|of| if let Object::NetworkPolicy(of) = of { Some(of) } else { None })
    }

    /// Its ClusterNetworkPolicies.
    pub fn cluster_network_policies(&self) -> impl Iterator<Item = &ClusterNetworkPolicy> {
        self.objects.iter().filter_map(|of| if let Object::ClusterNetworkPolicy(of) = of { Some(of) } else { None })
    }

    /// Its AdminNetworkPolicies.
    pub fn admin_network_policies(&self) -> impl Iterator<Item = &AdminNetworkPolicy> {
        self.objects.iter().filter_map(|of| if let Object::AdminNetworkPolicy(of) = of { Some(of) } else { None })
    }

    /// Its BaselineAdminNetworkPolicies.
    pub fn baseline_admin_network_policies(&self) -> impl Iterator<Item = &BaselineAdminNetworkPolicy> {
        self.objects.iter().filter_map(|of| match of {
            Object::BaselineAdminNetworkPolicy(of) => Some(of),
            _ => None,
        })
    }

    /// All ends of Pods that are somewhere: each by each of its addresses.
    pub fn pod_ends(&self) -> Vec<End> {
        let mut ends = Vec::new();
        for pod in self.pods().filter(|pod| !has_ended(pod)) {
            for address in pod_addresses(pod) {
                let namespace = name_of(&pod.metadata.namespace).to_owned();
                ends.push(End::Pod { namespace, name: name_of(&pod.metadata.name).to_owned(), address });
            }
        }
        ends
    }

    /// The labels of a namespace, with the one that the API server gives each; none if there is no such namespace.
    pub(super) fn namespace_labels(&self, name: &str) -> Option<Labels> {
        let namespace = self.namespaces().find(|of| name_of(&of.metadata.name) == name)?;
        let mut labels = namespace.metadata.labels.clone().unwrap_or_default();
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
        Some(labels)
    }

    /// What an end is for policy.
    ///
    /// # Panics
    ///
    /// If there is no such Pod or node, or the Pod does not have the address: the question makes no sense.
    pub(super) fn place<'a>(&'a self, end: &'a End) -> Place<'a> {
        match end {
            End::Pod { namespace, name, address } => {
                let is =
                    |pod: &&Pod| name_of(&pod.metadata.namespace) == namespace && name_of(&pod.metadata.name) == name;
                let pod = self.pods().find(is).unwrap_or_else(|| panic!("there is no Pod {namespace}/{name}"));
                assert!(pod_addresses(pod).contains(address), "{namespace}/{name} does not have {address}");
                if has_ended(pod) {
                    self.place_of_address(*address)
                } else if is_on_host_network(pod) {
                    Place::Host { node: node_of(pod), address: *address }
                } else {
                    Place::Pod { pod, address: *address }
                }
            }
            End::Host { node, address } => Place::Host { node, address: *address },
            End::Address(address) => self.place_of_address(*address),
        }
    }

    fn place_of_address(&self, address: IpAddr) -> Place<'_> {
        let pod = self.pods().find(|pod| is_on_pod_network(pod) && pod_addresses(pod).contains(&address));
        if let Some(pod) = pod {
            return Place::Pod { pod, address };
        }
        match self.nodes().find(|node| node_addresses(node).contains(&address)) {
            Some(node) => Place::Host { node: name_of(&node.metadata.name), address },
            None => Place::Outside(address),
        }
    }
}
