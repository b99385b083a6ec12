//! A cluster as policies see it, to ask what becomes of connections.
//!
//! All Pods are put on one node of that policies' computation, so that one share of the cluster answers for all of them; where they
//! really are only says who is with its own node. A Pod without an address, or on no node yet, is taken as if it had one, of the networks
//! for benchmarks ([RFC 2544](https://www.rfc-editor.org/rfc/rfc2544), [RFC 5180](https://www.rfc-editor.org/rfc/rfc5180)).

use crate::failure::Failure;
use crate::kube::Objects;
use k8s_openapi::api::core::v1::{Pod, PodIP, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_controller::facts::Protocol;
use sluice_controller::facts::policy::{Direction, PolicyKind, PolicyName, State};
use sluice_controller::policy::{Cluster, Connection};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The node that all Pods are on.
const EVERYWHERE: &str = "*";

/// A cluster.
pub(super) struct World {
    pub(super) objects: Objects,
    pub(super) cluster: Cluster,
    pub(super) state: State,
    /// By `NAMESPACE/NAME`.
    pub(super) pods: BTreeMap<String, PodPlace>,
    /// By name, with their addresses.
    pub(super) nodes: BTreeMap<String, Vec<IpAddr>>,
}

/// A Pod, and where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PodPlace {
    /// Empty if it is on no node yet.
    pub(super) node: String,
    pub(super) addresses: Vec<IpAddr>,
    /// It has the network of its node.
    pub(super) is_host: bool,
    /// It has ended.
    pub(super) is_over: bool,
    /// Its addresses are not its own: it has none yet.
    pub(super) is_made_up: bool,
}

/// One end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    /// As people call it.
    pub(super) name: String,
    /// The Pod, if policies can be about it: `NAMESPACE/NAME`.
    pub(super) pod: Option<String>,
    /// The node that it is: its host, or a Pod of the host's network.
    pub(super) host: Option<String>,
    /// The node that it is on.
    pub(super) node: String,
    pub(super) addresses: Vec<IpAddr>,
}

/// Where a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct To {
    /// None for what has no ports.
    pub(super) protocol: Option<Protocol>,
    pub(super) port: u16,
}

impl To {
    /// As it stands behind a destination: `:80/tcp`, or nothing.
    pub(super) fn suffix(self) -> String {
        self.protocol.map_or(String::new(), |protocol| format!(":{}/{}", self.port, protocol.name()))
    }

    /// As it stands alone.
    pub(super) fn text(self) -> String {
        match self.protocol {
            Some(protocol) => format!("port {}/{}", self.port, protocol.name()),
            None => "what has no ports".to_owned(),
        }
    }
}

/// Whether a Service's selector, which selects nothing when it is empty, selects a Pod of its namespace.
pub(super) fn is_selected(selector: Option<&BTreeMap<String, String>>, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    selector.is_some_and(|selector| {
        !selector.is_empty()
            && selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
    })
}

/// `NAMESPACE/NAME` of a Pod.
pub(super) fn pod_name(pod: &Pod) -> String {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    format!("{namespace}/{}", pod.metadata.name.as_deref().unwrap_or_default())
}

fn place(pod: &Pod, number: u32) -> PodPlace {
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    let listed = status.into_iter().flat_map(|status| {
        let all = status.pod_ips.iter().flatten().map(|of| of.ip.as_str());
        all.chain(status.pod_ip.as_deref())
    });
    let mut addresses: Vec<IpAddr> = listed.filter_map(|of| of.parse().ok()).collect();
    addresses.sort();
    addresses.dedup();
    let is_host = spec.and_then(|spec| spec.host_network) == Some(true);
    let is_made_up = addresses.is_empty() && !is_host;
    if is_made_up {
        // 198.18.0.0/15 and 2001:2::/48; a number that is too large begins anew.
        let v4 = u32::from(Ipv4Addr::new(198, 18, 0, 0)) | (number % ((1 << 17) - 1) + 1);
        let v6 = u128::from(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0)) | u128::from(number.saturating_add(1));
        addresses = vec![Ipv4Addr::from(v4).into(), Ipv6Addr::from(v6).into()];
    }
    let phase = status.and_then(|status| status.phase.as_deref());
    PodPlace {
        node: spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        addresses,
        is_host,
        is_over: matches!(phase, Some("Succeeded" | "Failed")),
        is_made_up,
    }
}

/// The Pod as policies' computation takes it: on the one node, with addresses.
fn placed(pod: &Pod, place: &PodPlace) -> Pod {
    let mut pod = pod.clone();
    if let Some(spec) = &mut pod.spec {
        spec.node_name = Some(EVERYWHERE.to_owned());
    }
    if place.is_made_up {
        let ips = place.addresses.iter().map(|address| PodIP { ip: address.to_string() });
        pod.status.get_or_insert_default().pod_ips = Some(ips.collect());
    }
    pod
}

impl World {
    /// A cluster with these objects; of two of one name, the later.
    pub(super) fn new(objects: Objects) -> Self {
        let mut cluster = Cluster::for_nodes(Some(EVERYWHERE));
        let mut pods = BTreeMap::new();
        for (number, pod) in (0..).zip(&objects.pods) {
            let place = place(pod, number);
            cluster.put_pod(&placed(pod, &place));
            pods.insert(pod_name(pod), place);
        }
        objects.namespaces.iter().for_each(|of| cluster.put_namespace(of));
        let mut nodes = BTreeMap::new();
        for node in &objects.nodes {
            cluster.put_node(node);
            let listed = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
            let addresses = listed.iter().filter_map(|of| of.address.parse().ok()).collect();
            nodes.insert(node.metadata.name.clone().unwrap_or_default(), addresses);
        }
        objects.network.iter().for_each(|of| cluster.put_network_policy(of));
        objects.cluster.iter().for_each(|of| cluster.put_cluster_network_policy(of));
        objects.admin.iter().for_each(|of| cluster.put_admin_network_policy(of));
        objects.baseline.iter().for_each(|of| cluster.put_baseline_admin_network_policy(of));
        let mut state = State::default();
        cluster.take_node(EVERYWHERE).iter().for_each(|update| state.apply(update));
        Self { objects, cluster, state, pods, nodes }
    }

    /// The Pods that a policy is about, in order.
    pub(super) fn subjects(&self, policy: &PolicyName) -> impl Iterator<Item = &str> {
        let group = self.cluster.policy(policy).and_then(|policy| self.state.groups.get(&policy.subject));
        group.into_iter().flat_map(|group| group.members.keys()).map(|name| &**name)
    }

    /// A Pod as an end.
    pub(super) fn pod(&self, name: &str) -> Option<End> {
        let place = self.pods.get(name)?;
        let of_node = || self.nodes.get(&place.node).cloned().unwrap_or_default();
        Some(End {
            name: name.to_owned(),
            pod: (!place.is_host).then(|| name.to_owned()),
            host: place.is_host.then(|| place.node.clone()),
            node: place.node.clone(),
            addresses: if place.addresses.is_empty() { of_node() } else { place.addresses.clone() },
        })
    }

    /// A node as an end.
    pub(super) fn node(&self, name: &str) -> Option<End> {
        let addresses = self.nodes.get(name)?.clone();
        let (node, host) = (name.to_owned(), Some(name.to_owned()));
        Some(End { name: format!("node/{name}"), pod: None, host, node, addresses })
    }

    /// Who has an address: a Pod, a node, or somebody outside.
    pub(super) fn address(&self, address: IpAddr) -> End {
        let has = |(_, place): &(&String, &PodPlace)| {
            !place.is_host && !place.is_over && !place.is_made_up && place.addresses.contains(&address)
        };
        if let Some(end) = self.pods.iter().find(has).and_then(|(name, _)| self.pod(name)) {
            return End { addresses: vec![address], ..end };
        }
        let node = self.nodes.iter().find(|(_, addresses)| addresses.contains(&address));
        if let Some(end) = node.and_then(|(name, _)| self.node(name)) {
            return End { addresses: vec![address], ..end };
        }
        End { name: address.to_string(), addresses: vec![address], ..End::default() }
    }

    /// Where a port of a Service leads at a Pod; nowhere if the Pod has no port of that name.
    pub(super) fn target(&self, pod: &str, port: &ServicePort) -> Option<(Protocol, u16)> {
        let protocol = Protocol::of_object(port.protocol.as_deref())?;
        let number = match &port.target_port {
            Some(IntOrString::String(wanted)) => {
                let is_it = |(has, of, _): &&(String, Protocol, u16)| has == wanted && *of == protocol;
                self.cluster.named_ports(pod).iter().find(is_it).map(|(_, _, number)| *number)
            }
            Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
            None => u16::try_from(port.port).ok(),
        };
        Some((protocol, number?))
    }

    /// A policy by the name that somebody types: `NAMESPACE/NAME`, or `np:`, `cnp:`, `anp:` or `banp:` and its name.
    pub(super) fn policy(&self, text: &str) -> Result<PolicyName, Failure> {
        let (kind, rest) = PolicyKind::of_prefix(text).map_or((None, text), |(kind, rest)| (Some(kind), rest));
        let (namespace, name) = rest.split_once('/').unwrap_or(("", rest));
        let is_it =
            |of: &&PolicyName| kind.is_none_or(|kind| of.kind == kind) && of.namespace == namespace && of.name == name;
        let mut names: Vec<&PolicyName> = self.cluster.policies().collect();
        names.sort();
        if let Some(found) = names.iter().copied().find(is_it) {
            return Ok(found.clone());
        }
        let near = names.iter().map(ToString::to_string);
        let near =
            near.min_by_key(|near| strsim::damerau_levenshtein(near.split(':').next_back().unwrap_or(near), rest));
        let failure = Failure::new(format!("there is no policy {text}"));
        Err(match near {
            Some(near) => failure.next(format!("did you mean {near}? `sluice policy list` shows all")),
            None => failure.why("there are no policies at all"),
        })
    }
}

/// The pairs of addresses that two ends can speak by: one of each family that both have.
pub(super) fn pairs(from: &End, to: &End) -> Vec<(IpAddr, IpAddr)> {
    let of = |end: &End, v4: bool| end.addresses.iter().copied().find(|address| address.is_ipv4() == v4);
    let pairs = [true, false].into_iter().filter_map(|v4| of(from, v4).zip(of(to, v4)));
    pairs.collect()
}

/// The connection as it is judged at the end for which it goes this way.
pub(super) fn connection(direction: Direction, from: &End, to: &End, pair: (IpAddr, IpAddr), at: To) -> Connection {
    let (own, other) = match direction {
        Direction::Ingress => (to, from),
        Direction::Egress => (from, to),
    };
    Connection {
        source: pair.0,
        destination: pair.1,
        protocol: at.protocol,
        port: at.port,
        is_with_own_node: other.host.as_ref().is_some_and(|host| *host == own.node && !host.is_empty()),
    }
}
