//! What a router is asked to be: its VRFs, interfaces, routes and neighbours, as plain data.
//!
//! Everything refers to VRFs and interfaces by number, because numbers are what the flows carry; names are for people.
//! Routes to the networks of an interface's addresses are derived and not listed ([`Interface::connected`]). Of the
//! routes to a destination the longest prefix wins, then the lowest distance among those that have a next hop alive.
//! [`RouterConfig::check`] says what does not fit together; the stages take only what passed it.

mod check;

pub use check::{ConfigError, Fault};

use crate::bridge::VlanId;
use crate::port::PortNo;
use ipnet::{IpNet, Ipv6Net};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// Least MTU that IPv6 works with, in bytes (RFC 8200, 5).
pub const MIN_MTU_V6: u16 = 1280;

/// Number of a VRF: a routing table of its own, whose addresses may overlap with those of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VrfId(pub u16);

/// Number of an interface of a router, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceId(pub u16);

impl fmt::Display for VrfId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for InterfaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A router: what its flows are made of, but for what it finds out while it runs
/// ([`RouterState`](super::RouterState)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterConfig {
    /// Its name, for owners and messages.
    pub name: String,
    /// Its VRFs; at least those that interfaces and routes name.
    pub vrfs: Vec<Vrf>,
    /// Its interfaces.
    pub interfaces: Vec<Interface>,
    /// Its routes, without the connected ones.
    pub routes: Vec<Route>,
    /// Neighbours that need no resolution.
    pub neighbors: Vec<StaticNeighbor>,
}

/// A routing table with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vrf {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: VrfId,
}

/// An interface of a router: a port, or one VLAN of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its number.
    pub id: InterfaceId,
    /// Its name.
    pub name: String,
    /// The bridge's port that it is on.
    pub port: PortNo,
    /// The VLAN whose tag its frames carry; untagged frames if none.
    pub vlan: Option<VlanId>,
    /// The VRF it belongs to.
    pub vrf: VrfId,
    /// Its MAC address, in the low 48 bits; 0 for an interface of layer 3.
    pub mac: u64,
    /// Its addresses, each with the length of its network's prefix. A link-local IPv6 address is made of the MAC address
    /// where none is listed, see [`Self::link_local`].
    pub addresses: Vec<IpNet>,
    /// Longest IP packet that leaves by it, in bytes: at least 68 (RFC 791), and 1280 for IPv6 (RFC 8200, 5).
    pub mtu: u16,
    /// Networks whose addresses it answers ARP and neighbour solicitations for, with its own MAC address.
    pub proxied: Vec<IpNet>,
    /// Its port carries IP and nothing else, as tunnels of layer 3 do: nothing is resolved, and Ethernet addresses are 0.
    pub layer3: bool,
    /// What it advertises to hosts (RFC 4861, 6.2); nothing if none.
    pub ra: Option<RouterAdvertisement>,
}

/// Router advertisements of an interface (RFC 4861, 4.2 and 6.2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterAdvertisement {
    /// Longest time between two that nobody asked for, in seconds: 4 to 1800.
    pub max_interval: u16,
    /// Seconds that hosts keep the router as a default router: 0 for not at all, else at least `max_interval`.
    pub lifetime: u16,
    /// Hop limit that hosts are to use; 0 says nothing.
    pub hop_limit: u8,
    /// Addresses come by DHCPv6.
    pub managed: bool,
    /// Other things come by DHCPv6.
    pub other: bool,
    /// Tell hosts the interface's MTU.
    pub mtu: bool,
    /// Prefixes told; those of the interface's own addresses, on-link and autonomous, if empty.
    pub prefixes: Vec<AdvertisedPrefix>,
    /// Name servers told (RFC 8106).
    pub dns_servers: Vec<Ipv6Addr>,
    /// Domains told to search in (RFC 8106).
    pub dns_search: Vec<String>,
}

impl Default for RouterAdvertisement {
    /// A default router, the interface's prefixes, every 600 seconds.
    fn default() -> Self {
        Self {
            max_interval: 600,
            lifetime: 1800,
            hop_limit: 64,
            managed: false,
            other: false,
            mtu: true,
            prefixes: Vec::new(),
            dns_servers: Vec::new(),
            dns_search: Vec::new(),
        }
    }
}

/// A prefix that hosts are told (RFC 4861, 4.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdvertisedPrefix {
    /// The prefix.
    pub prefix: Ipv6Net,
    /// Hosts of the prefix are on the link.
    pub on_link: bool,
    /// Hosts may make addresses of it.
    pub autonomous: bool,
    /// Seconds that such addresses are valid.
    pub valid: u32,
    /// Seconds that such addresses are preferred, at most `valid`.
    pub preferred: u32,
}

impl AdvertisedPrefix {
    /// The prefix, on-link and autonomous, with the lifetimes that RFC 4861, 6.2.1 has: 30 and 7 days.
    pub fn new(prefix: Ipv6Net) -> Self {
        const DAY: u32 = 86_400;
        Self { prefix: prefix.trunc(), on_link: true, autonomous: true, valid: 30 * DAY, preferred: 7 * DAY }
    }
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The VRF it stands in.
    pub vrf: VrfId,
    /// Where it leads: a network, without host bits.
    pub destination: IpNet,
    /// What becomes of the packets.
    pub kind: RouteKind,
    /// For a unicast route, where they go next; flows are spread over several. Empty for the other kinds.
    pub next_hops: Vec<NextHop>,
    /// Its rank among routes to the same destination: the lowest that has a next hop alive is taken. Connected routes
    /// have 0.
    pub distance: u8,
}

impl Route {
    /// What tells it from other routes: a router has one route of each key.
    pub fn key(&self) -> RouteKey {
        RouteKey { vrf: self.vrf, destination: self.destination, distance: self.distance }
    }
}

/// What tells routes apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteKey {
    /// The VRF.
    pub vrf: VrfId,
    /// The destination.
    pub destination: IpNet,
    /// The distance.
    pub distance: u8,
}

/// What becomes of the packets of a route; as Linux has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    /// They go to a next hop.
    #[default]
    Unicast,
    /// They are dropped silently.
    Blackhole,
    /// They are dropped, and the sender is told that the host is unreachable.
    Unreachable,
    /// They are dropped, and the sender is told that it is not allowed.
    Prohibit,
}

impl RouteKind {
    /// Every kind, with its name.
    pub const NAMES: [(Self, &'static str); 4] = [
        (Self::Unicast, "unicast"),
        (Self::Blackhole, "blackhole"),
        (Self::Unreachable, "unreachable"),
        (Self::Prohibit, "prohibit"),
    ];

    /// Its name, as every output spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unicast => "unicast",
            Self::Blackhole => "blackhole",
            Self::Unreachable => "unreachable",
            Self::Prohibit => "prohibit",
        }
    }
}

/// Where the packets of a route go next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NextHop {
    /// The interface they leave by.
    pub interface: InterfaceId,
    /// The router that they go to, of the destination's family; straight to their destination if none.
    pub via: Option<IpAddr>,
    /// Its share among several, at least 1.
    pub weight: u16,
}

/// A neighbour that needs no resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StaticNeighbor {
    /// The interface it is behind.
    pub interface: InterfaceId,
    /// Its address.
    pub address: IpAddr,
    /// Its MAC address, in the low 48 bits.
    pub mac: u64,
}

impl RouterConfig {
    /// The interface with this number.
    pub fn interface(&self, id: InterfaceId) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.id == id)
    }

    /// The interface with this name.
    pub fn interface_named(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }

    /// The VRF with this number.
    pub fn vrf(&self, id: VrfId) -> Option<&Vrf> {
        self.vrfs.iter().find(|vrf| vrf.id == id)
    }

    /// The VRF with this name.
    pub fn vrf_named(&self, name: &str) -> Option<&Vrf> {
        self.vrfs.iter().find(|vrf| vrf.name == name)
    }
}

impl Interface {
    /// Its link-local IPv6 address: the first listed, or the one made of the MAC address (RFC 4291, appendix A). None
    /// for an interface that lists none and has no MAC address, or an MTU that IPv6 does not work with.
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        let listed = self.addresses.iter().find_map(|net| match net.addr() {
            IpAddr::V6(address) if address.is_unicast_link_local() => Some(address),
            _ => None,
        });
        listed.or_else(|| (!self.layer3 && self.mtu >= MIN_MTU_V6).then(|| link_local_of(self.mac)))
    }

    /// Every address it has: those listed, then the link-local one if it is not among them.
    pub fn own_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let implied = self.link_local().map(IpAddr::V6).filter(|a| !self.addresses.iter().any(|n| n.addr() == *a));
        self.addresses.iter().map(IpNet::addr).chain(implied)
    }

    /// The routes to the networks of its addresses. A network of a single address and the link-local one have none: the
    /// former has no other hosts, the latter is there on every link.
    pub fn connected(&self) -> impl Iterator<Item = Route> + '_ {
        let shared = self.addresses.iter().filter(|net| net.prefix_len() < net.max_prefix_len());
        let routed = shared.filter(|net| !matches!(net.addr(), IpAddr::V6(a) if a.is_unicast_link_local()));
        let mut networks: Vec<IpNet> = routed.map(IpNet::trunc).collect();
        networks.sort_unstable();
        networks.dedup();
        networks.into_iter().map(|destination| Route {
            vrf: self.vrf,
            destination,
            kind: RouteKind::Unicast,
            next_hops: vec![NextHop { interface: self.id, via: None, weight: 1 }],
            distance: 0,
        })
    }

    /// Whether the address is one of a host on its link.
    pub fn is_on_link(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V6(address) if address.is_unicast_link_local() => true,
            _ => self.addresses.iter().any(|net| net.contains(&address)),
        }
    }
}

/// The link-local address made of a MAC address (RFC 4291, appendix A).
pub fn link_local_of(mac: u64) -> Ipv6Addr {
    let (high, low) = (mac >> 24 & 0xff_ffff, mac & 0xff_ffff);
    let identifier = (high ^ 0x02_0000) << 40 | 0xff_fe00_0000 | low;
    Ipv6Addr::from(0xfe80_u128 << 112 | u128::from(identifier))
}

#[cfg(test)]
mod tests;
