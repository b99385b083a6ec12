//! Services: what of them concerns this node, as plain facts.
//!
//! Everything here is a pure function of what is listed: a Service, the EndpointSlices that are labelled with its name, and the node
//! ([`Here`]). The order of slices and endpoints never matters, and what comes out is sorted and has everything once, so that the
//! same cluster gives the same flows after a restart.
//!
//! # Rules
//! What becomes of a Service is what kube-proxy 1.34 makes of it:
//! - Headless Services, `ExternalName` and those labelled `service.kubernetes.io/service-proxy-name` are none of ours.
//! - [`frontends`]: the addresses and ports that clients use, and which endpoints they get there.
//! - [`select`]: the endpoints, by readiness, termination, traffic policy and topology hints.
//! - [`claims`]: an address and port that several Services claim is the first one's.
//! - [`stale`]: connections that have to end when endpoints or addresses go.
//! - [`health`]: the health checks of load balancers.
//!
//! # Limits
//! A client keeps its endpoint for 65,535 seconds at most; Services may ask for 86,400. [`notes`] says so.

pub mod claims;
mod frontends;
pub mod health;
mod read;
mod select;
pub mod stale;
#[cfg(test)]
mod tests;

use crate::facts::{self, Endpoint, Protocol};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use read::Spec;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

/// The label of a Service that another proxy looks after, and of its slices.
pub const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// The label of an EndpointSlice that names its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// The label of a node that names its zone.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// How long a client keeps its endpoint if nothing is said, in seconds.
const AFFINITY_S: i32 = 10_800;

/// The node, as far as Services are concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Here {
    /// The node's name.
    pub node: String,
    /// Its zone, by [`ZONE_LABEL`].
    pub zone: Option<String>,
    /// All addresses of the host, the gateway's among them.
    pub addresses: HashSet<IpAddr>,
    /// The host's addresses that answer to node ports, by family (`true` for IPv6); of a family that is not here, all.
    pub node_port_addresses: BTreeMap<bool, BTreeSet<IpAddr>>,
    /// The addresses of all other nodes: the host must go on reaching them by itself.
    pub other_nodes: HashSet<IpAddr>,
    /// The addresses that the host sends to what is for its ports, at most one of each family.
    pub incoming: Vec<IpAddr>,
    /// Where ports of single addresses of the host arrive, as the switch says (`Network.incoming_ports`). Ports of all addresses
    /// arrive at the same port and need not be here.
    pub incoming_ports: HashMap<PublishedPort, u16>,
}

/// A port of the host that leads to a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublishedPort {
    /// Its protocol.
    pub protocol: Protocol,
    /// The host's address; none for all of one family.
    pub address: Option<IpAddr>,
    /// Of IPv6.
    pub v6: bool,
    /// The port.
    pub port: u16,
}

/// What the host has to do for a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Addresses that the host has to route to the switch.
    pub routes: BTreeSet<IpAddr>,
    /// Ports of the host that lead to the switch: node ports, and ports of external addresses that are a node's own.
    pub ports: BTreeSet<PublishedPort>,
}

impl Here {
    /// Where a port of the host arrives: the incoming address of its family, and the port there. None as long as the switch has not
    /// said so.
    #[must_use]
    pub fn incoming(&self, port: &PublishedPort) -> Option<(IpAddr, u16)> {
        let address = *self.incoming.iter().find(|address| address.is_ipv6() == port.v6)?;
        let at = match port.address {
            None => port.port,
            Some(_) => *self.incoming_ports.get(port)?,
        };
        Some((address, at))
    }

    /// Whether an address is a node's: then only the Service's ports of it may be led to the switch, never all of it.
    fn is_node(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address) || self.other_nodes.contains(&address)
    }
}

/// `NAMESPACE/NAME` of a Service.
#[must_use]
pub fn name(service: &Service) -> String {
    read::name(&service.metadata)
}

/// `NAMESPACE/NAME` of the Service that a slice is of; none for a slice of no Service that concerns us.
#[must_use]
pub fn service_of(slice: &EndpointSlice) -> Option<String> {
    read::service_of(slice)
}

/// A Service as this node has to program it; none for one that is none of ours. Slices of other Services are passed over.
#[must_use]
pub fn service(service: &Service, slices: &[&EndpointSlice], here: &Here) -> Option<facts::Service> {
    let spec = Spec::of(service)?;
    let candidates = select::candidates(&spec.name, slices, &here.node);
    let none = Vec::new();
    let mut ports = Vec::new();
    for (v6, cluster_ip) in spec.families() {
        for port in spec.ports() {
            let frontends = frontends::frontends(&spec, &port, cluster_ip, here);
            let found = candidates.get(&(port.name, port.protocol, v6)).unwrap_or(&none);
            let local =
                frontends.iter().any(|f| f.inside == facts::Scope::Local || f.outside == Some(facts::Scope::Local));
            ports.push(facts::ServicePort {
                name: port.name.to_owned(),
                protocol: port.protocol,
                v6,
                frontends,
                cluster: select::cluster(found, here),
                local: if local { select::local(found) } else { Vec::new() },
            });
        }
    }
    ports.sort_by(|a, b| (&a.name, a.protocol, a.v6).cmp(&(&b.name, b.protocol, b.v6)));
    let affinity_s = spec.affinity_s().map(|seconds| u16::try_from(seconds).unwrap_or(u16::MAX));
    Some(facts::Service { name: spec.name, ports, affinity_s })
}

/// What the host has to do for a Service, whether it has endpoints or not.
#[must_use]
pub fn published(service: &Service, here: &Here) -> Published {
    Spec::of(service).map(|spec| frontends::published(&spec, here)).unwrap_or_default()
}

/// The endpoints of a Service that still serve, with those that get no new connections: terminating ones, and those that topology
/// passes over. Connections to them go on.
#[must_use]
pub fn serving(service: &Service, slices: &[&EndpointSlice], here: &Here) -> BTreeSet<(Protocol, Endpoint)> {
    let Some(spec) = Spec::of(service) else { return BTreeSet::new() };
    let candidates = select::candidates(&spec.name, slices, &here.node);
    let mut serving = BTreeSet::new();
    for ((_, protocol, _), found) in &candidates {
        serving.extend(found.iter().filter(|c| c.serving).map(|c| (*protocol, c.endpoint)));
    }
    serving
}

/// What of a Service cannot be done as it says, in words for its owner.
#[must_use]
pub fn notes(service: &Service) -> Vec<String> {
    let Some(spec) = Spec::of(service) else { return Vec::new() };
    let mut notes = Vec::new();
    if let Some(seconds) = spec.affinity_s()
        && seconds > u32::from(u16::MAX)
    {
        notes.push(format!(
            "Service {}: a client keeps its endpoint for {} s after its last packet, not {seconds} s; set \
             sessionAffinityConfig.clientIP.timeoutSeconds to {} or less",
            spec.name,
            u16::MAX,
            u16::MAX,
        ));
    }
    notes
}
