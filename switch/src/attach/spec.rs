//! What networks and attachments are to be, as plain data: what the API takes, and what is kept on disk.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// A network of containers on a bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Its name, as CNI's network names.
    pub name: String,
    /// Its bridge.
    pub bridge: String,
    /// Whether the bridge is made when it is not there, and goes with the last network that wanted it so.
    pub make_bridge: bool,
    /// The addresses of the host's interface on the bridge; none for a network without a gateway.
    pub gateway: Vec<IpNet>,
    /// The VLAN of the gateway.
    pub vlan: Option<u16>,
    /// Networks whose addresses are hidden behind the host's when they leave it.
    pub masquerade: Vec<IpNet>,
    /// Destinations that are reached with the container's own address all the same.
    pub masquerade_except: Vec<IpNet>,
    /// Longest network-layer packet, in bytes; the bridge's if none.
    pub mtu: Option<u32>,
    /// Whether it stays when it has no attachment.
    pub keep: bool,
    /// Whether nothing is forwarded between its gateway and the host's other interfaces.
    pub internal: bool,
    /// Who declared it: `cni`, `docker` or `kubernetes`.
    pub kind: String,
    /// Networks that the host reaches by other ways than its own routes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<NetworkRoute>,
    /// Ports of the host that lead to the gateway's incoming addresses, where flows of somebody else's decide.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_ports: Vec<ServicePort>,
    /// Whether each attachment waits until a controller has confirmed it.
    #[serde(default)]
    pub confirm: bool,
}

/// A route of the host that belongs to a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRoute {
    /// Where it leads.
    pub to: IpNet,
    /// The next hop; the switch if none.
    pub via: Option<IpAddr>,
}

/// A port of the host that leads to a network's flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServicePort {
    /// Its protocol.
    pub protocol: Protocol,
    /// The host's address that it is a port of; all of one family if none.
    pub address: Option<IpAddr>,
    /// The port; not 0.
    pub port: u16,
    /// Of IPv6 addresses; as the address says, if there is one.
    pub v6: bool,
}

/// What a frame that a container sends is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Guard {
    /// Nothing.
    None,
    /// The source MAC address.
    Mac,
    /// The source MAC and IP addresses, and those in ARP and neighbour discovery.
    #[default]
    Full,
}

/// Limits of what an interface carries, as the container sees it; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// Towards the container, in bits a second.
    pub ingress_rate: u64,
    /// Towards the container: bits that may go at once after a pause.
    pub ingress_burst: u64,
    /// From the container, in bits a second.
    pub egress_rate: u64,
    /// From the container: bits that may go at once after a pause.
    pub egress_burst: u64,
}

/// A transport protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

/// A port of the host that leads to a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// The port of the host; not 0.
    pub host_port: u16,
    /// The port of the container; not 0.
    pub container_port: u16,
    /// Of both.
    pub protocol: Protocol,
    /// The host's address that it is a port of: all of them if none, all of one family if unspecified.
    pub host_address: Option<IpAddr>,
}

/// What an attachment's port is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// A veth pair's end in the switch's network namespace.
    Veth {
        /// The interface.
        interface: String,
    },
    /// A persistent TAP in the container.
    Tap {
        /// The container's network namespace.
        netns: PathBuf,
        /// The interface there.
        interface: String,
    },
    /// Another program's interface in the switch's network namespace, which the switch puts itself in front of.
    Inline {
        /// The interface.
        interface: String,
    },
}

/// What names an attachment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttachmentKey {
    /// The network's name.
    pub network: String,
    /// The container's ID.
    pub container_id: String,
    /// The interface's name in the container.
    pub ifname: String,
}

/// An interface of a container, attached to a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentSpec {
    /// Its name.
    #[serde(flatten)]
    pub key: AttachmentKey,
    /// The port's name in the switch.
    pub port: String,
    /// What the port is made of.
    pub device: Device,
    /// The hardware address in the container.
    pub mac: [u8; 6],
    /// The addresses in the container.
    pub addresses: Vec<IpNet>,
    /// Which VLANs it carries.
    pub vlan: Vlans,
    /// What its frames are compared with.
    pub guard: Guard,
    /// Whether it reaches only what is not isolated.
    pub isolated: bool,
    /// Whether frames to its own MAC address are sent back to it.
    pub hairpin: bool,
    /// Limits of its rate.
    pub bandwidth: Bandwidth,
    /// Ports of the host that lead to it.
    pub port_mappings: Vec<PortMapping>,
    /// What else is known of it.
    pub labels: BTreeMap<String, String>,
    /// The container's network namespace, if known.
    pub netns: Option<PathBuf>,
}

/// Which VLANs an attachment carries, as the disk has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vlans {
    /// All, tagged.
    #[default]
    All,
    /// One, untagged.
    Access(u16),
    /// These, tagged; and perhaps one untagged.
    Trunk {
        /// Tagged; all if empty.
        trunks: Vec<u16>,
        /// Untagged.
        native: Option<u16>,
    },
}

impl NetworkSpec {
    /// The host's interface that is the gateway, if there is one: the bridge's own, or that of the VLAN.
    pub fn gateway_interface(&self) -> Option<String> {
        let name = || self.vlan.map_or_else(|| self.bridge.clone(), |vlan| format!("{}.{vlan}", self.bridge));
        (!self.gateway.is_empty()).then(name)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl fmt::Display for AttachmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.network, self.container_id, self.ifname)
    }
}
