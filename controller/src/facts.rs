//! What flows are made from: the cluster as one node sees it, in plain data, without Kubernetes' types.

pub mod policy;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The node that the switch is on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The networks of its Pods, at most one of each family.
    pub pod_cidrs: Vec<IpNet>,
    /// Its own addresses in them: the gateway of its Pods.
    pub gateways: Vec<IpAddr>,
    /// All other addresses of the host, in no order.
    pub addresses: Vec<IpAddr>,
    /// Those of them that the other nodes know it by: [`Peer::addresses`] there.
    pub known: Vec<IpAddr>,
    /// The hardware address of the host's interface on the bridge, in the low 48 bits.
    pub gateway_mac: u64,
    /// The switch's addresses on the link to the host, at most one of each family: the source of what is masqueraded.
    pub link: Vec<IpAddr>,
    /// The addresses that the host sends to what is for its ports, at most one of each family.
    pub incoming: Vec<IpAddr>,
    /// The bridge's port that is the tunnel to all peers; none where nothing is encapsulated.
    pub tunnel: Option<u32>,
    /// The networks of the addresses of Services; what of them is no Service's is rejected.
    pub service_cidrs: Vec<IpNet>,
    /// Whether what Pods send to the outside gets an address of the node.
    pub masquerade: bool,
    /// Destinations outside that see the addresses of Pods all the same; the Pods' networks of all nodes need not be among them.
    pub masquerade_except: Vec<IpNet>,
}

/// How another node is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// By the tunnel, with this other end.
    Tunnel(IpAddr),
    /// By the host's own routes: no encapsulation.
    Host,
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// The addresses that its cluster knows it by. What it sends to Pods by the tunnel may come from them.
    pub addresses: Vec<IpAddr>,
    /// The networks of its Pods, and how each is reached.
    pub pod_cidrs: Vec<(IpNet, Way)>,
}

/// A Pod's interface on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Who owns its flows: `pod:NAMESPACE/NAME`.
    pub owner: String,
    /// Its port on the bridge.
    pub port: u32,
    /// Its hardware address, in the low 48 bits.
    pub mac: u64,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Ports of the host that lead to it.
    pub host_ports: Vec<HostPort>,
}

/// A port of the host that leads to a Pod, for one family of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Its protocol.
    pub protocol: Protocol,
    /// The incoming address and port that the host sends to what comes for it.
    pub incoming: (IpAddr, u16),
    /// The Pod's address and port that it leads to.
    pub to: (IpAddr, u16),
}

/// A transport protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// Its name, as the switch's API and its flows have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// A protocol by its number in IP (IANA's protocol numbers).
    #[must_use]
    pub const fn numbered(number: u32) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }

    /// A protocol by the name that Kubernetes' objects have for it; TCP if nothing is said, none for one without ports.
    #[must_use]
    pub fn of_object(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("" | "TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }

    /// The protocol of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name)
    }
}

/// A Service, for one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `NAMESPACE/NAME`.
    pub name: String,
    /// Its ports, each for one family of addresses.
    pub ports: Vec<ServicePort>,
    /// Seconds for which a client keeps its endpoint after its last packet (`ClientIP` affinity); none for no affinity.
    pub affinity_s: Option<u16>,
}

/// A port of a Service, for one family of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name in the Service; empty if it has none.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Of IPv6.
    pub v6: bool,
    /// The addresses and ports that clients use.
    pub frontends: Vec<Frontend>,
    /// The endpoints of [`Scope::Cluster`]: all, or those that topology prefers. Sorted, each once.
    pub cluster: Vec<Endpoint>,
    /// The endpoints of [`Scope::Local`]: those on this node. Sorted, each once.
    pub local: Vec<Endpoint>,
}

/// An address and port that clients use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// The address: of the Service, or a node's incoming address for what the host sends there (node ports).
    pub address: IpAddr,
    /// The port there.
    pub port: u16,
    /// Which endpoints clients inside the cluster get: Pods, and the node itself.
    pub inside: Scope,
    /// Which endpoints others get; none where others have no business.
    pub outside: Option<Scope>,
    /// Networks that clients may come from, inside the cluster too (`loadBalancerSourceRanges`); everywhere if empty.
    pub sources: Vec<IpNet>,
}

/// Which endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Those of the whole cluster. Without any, a connection is rejected.
    Cluster,
    /// Those of the node (traffic policy `Local`). Without any, a connection is dropped, or rejected if there are none in the whole cluster.
    Local,
}

/// Where connections go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}
