//! What is looked at of Pods and nodes.

use super::selector::Labels;
use crate::facts::Protocol;
use k8s_openapi::api::core::v1::{Container, Node, Pod};
use std::net::IpAddr;

/// A Pod or a node, as it may be a member of groups.
pub(super) struct Fact {
    pub(super) labels: Labels,
    /// The node that it is on.
    pub(super) node: String,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ports: Vec<(String, Protocol, u16)>,
    /// Which of all Pods of its name it is.
    pub(super) uid: Option<u128>,
}

/// What the kubelet puts on the Pod that stands for a static one: the UID by which container runtimes know it.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";

/// A UID as a number: an RFC 9562 UUID, or as many digits without hyphens, as static Pods have.
pub(super) fn uid(text: &str) -> Option<u128> {
    u128::from_str_radix(&text.replace('-', ""), 16).ok()
}

/// None for a Pod that is no member of anything: it is nowhere yet, it has ended, or it is its node's host.
pub(super) fn pod(pod: &Pod) -> Option<Fact> {
    let spec = pod.spec.as_ref()?;
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    let node = spec.node_name.as_deref().unwrap_or_default();
    if node.is_empty() || spec.host_network == Some(true) || matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let listed = status.and_then(|status| status.pod_ips.as_ref()).filter(|listed| !listed.is_empty());
    let addresses = match listed {
        Some(listed) => listed.iter().filter_map(|of| address(&of.ip)).collect(),
        None => status.and_then(|status| status.pod_ip.as_deref()).and_then(address).into_iter().collect(),
    };
    // Init containers that go on beside the others have ports like those.
    let goes_on = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(goes_on);
    let mut ports: Vec<_> = spec.containers.iter().chain(sidecars).flat_map(named_ports).collect();
    ports.sort();
    ports.dedup();
    let metadata = &pod.metadata;
    let hash = metadata.annotations.as_ref().and_then(|annotations| annotations.get(CONFIG_HASH));
    let uid = hash.or(metadata.uid.as_ref()).and_then(|text| uid(text));
    Some(Fact { labels: Labels::of(metadata.labels.as_ref()), node: node.to_owned(), addresses, ports, uid })
}

/// A node, with all addresses that it lists: its names among them are none.
pub(super) fn node(node: &Node) -> Fact {
    let listed = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    let mut addresses: Vec<IpAddr> = listed.iter().filter_map(|of| address(&of.address)).collect();
    addresses.sort();
    addresses.dedup();
    let name = node.metadata.name.clone().unwrap_or_default();
    Fact { labels: Labels::of(node.metadata.labels.as_ref()), node: name, addresses, ports: Vec::new(), uid: None }
}

fn address(text: &str) -> Option<IpAddr> {
    text.trim().parse().ok()
}

fn named_ports(container: &Container) -> impl Iterator<Item = (String, Protocol, u16)> {
    container.ports.iter().flatten().filter_map(|port| {
        let name = port.name.clone().filter(|name| !name.is_empty())?;
        let number = u16::try_from(port.container_port).ok().filter(|&number| number != 0)?;
        Some((name, Protocol::of_object(port.protocol.as_deref())?, number))
    })
}
