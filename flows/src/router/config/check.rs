//! What does not fit together in a router's configuration.

use super::{
    Interface, InterfaceId, MIN_MTU_V6, NextHop, Route, RouteKey, RouteKind, RouterAdvertisement, RouterConfig, VrfId,
};
use crate::bridge::VlanId;
use crate::port::PortNo;
use ipnet::IpNet;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use thiserror::Error;

/// Most next hops of one route.
const MAX_NEXT_HOPS: usize = 256;
/// Longest name, in bytes, so that owners that name it are not cut.
const MAX_NAME_LEN: usize = 64;
/// Least MTU that IPv4 works with (RFC 791).
const MIN_MTU_V4: u16 = 68;

/// A fault of a router's configuration: where it is, and what.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{place}: {fault}")]
pub struct ConfigError {
    /// Which part: `router r1, interface eth0`.
    pub place: String,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a part of a router's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Fault {
    /// A name is empty or too long.
    #[error("a name has 1 to {MAX_NAME_LEN} characters, none of them a control character: give it another")]
    Name,
    /// A name or a number stands for two things.
    #[error("{what} is taken already: give one of the two another")]
    Taken {
        /// The name or number.
        what: String,
    },
    /// The number of an interface.
    #[error("interface numbers begin at 1: 0 stands for none")]
    ZeroInterface,
    /// A port that frames cannot come by.
    #[error("{0:?} is no port that frames come in by: name a port of the bridge")]
    Port(PortNo),
    /// A VLAN that a tag cannot carry.
    #[error("VLAN {} cannot be in a tag: choose one of 1 to 4094, or none for untagged frames", .0.get())]
    Vlan(VlanId),
    /// Two interfaces take the same frames.
    #[error("interface {other} has the same port and VLAN: give one of the two another")]
    SamePlace {
        /// The other interface.
        other: String,
    },
    /// A VRF that is not there.
    #[error("there is no VRF {0}: add it, or name another")]
    NoVrf(VrfId),
    /// An interface that is not there.
    #[error("there is no interface {0}: add it, or name another")]
    NoInterface(InterfaceId),
    /// A MAC address that is none of a single station.
    #[error("{} is no address of one station: set an individual address other than 0, or make the interface one of layer 3", mac(*.0))]
    Mac(u64),
    /// An interface without Ethernet that has a MAC address.
    #[error("an interface of layer 3 has no MAC address: leave it 0")]
    MacOfLayer3,
    /// An address that no interface can have.
    #[error("{0} is not the address of one host: list unicast addresses only")]
    Address(IpNet),
    /// Two interfaces of a VRF have the same address.
    #[error("{address} is an address of interface {other} in the same VRF: remove one, or use another VRF")]
    SameAddress {
        /// The address.
        address: IpAddr,
        /// The other interface.
        other: String,
    },
    /// The MTU is too small.
    #[error("an MTU of {mtu} is too small for {family}, which needs {least}: raise it{advice}", advice = if *.least == MIN_MTU_V6 { ", or remove the IPv6 addresses" } else { "" })]
    Mtu {
        /// The MTU.
        mtu: u16,
        /// IPv4 or IPv6.
        family: &'static str,
        /// The least that works.
        least: u16,
    },
    /// A setting of router advertisements.
    #[error("router advertisements: {what} is {is}, but has to be {want}")]
    Advertisement {
        /// The setting.
        what: &'static str,
        /// Its value.
        is: u32,
        /// What it may be.
        want: &'static str,
    },
    /// A destination with host bits or of a group.
    #[error("{0} is no network of hosts: write {net}, and route unicast addresses only", net = .0.trunc())]
    Destination(IpNet),
    /// Two routes of one key.
    #[error(
        "there is another route to the same destination with distance {0}, listed or connected: give one of the two \
             another distance, or make them one with several next hops"
    )]
    SameRoute(u8),
    /// A unicast route that leads nowhere.
    #[error("a unicast route needs a next hop: name one, or make it a blackhole")]
    NoNextHop,
    /// A next hop of a route that drops.
    #[error("a {0} route has no next hops: remove them, or make it unicast")]
    NextHopOfDrop(&'static str),
    /// More next hops than a route can have.
    #[error("a route has at most {MAX_NEXT_HOPS} next hops, not {0}")]
    NextHops(usize),
    /// A next hop twice.
    #[error("next hop {0} is listed twice: list it once, with the weight of both")]
    SameNextHop(String),
    /// A next hop that would get nothing.
    #[error("next hop {0} has weight 0: give it 1 or more, or remove it")]
    Weight(String),
    /// A next hop in another VRF.
    #[error("interface {0} belongs to another VRF: name one of the route's own")]
    OtherVrf(String),
    /// A next hop of the other family.
    #[error("next hop {0} is not of the destination's family: name an address of the same family")]
    Family(IpAddr),
    /// A next hop that no frame can be sent to.
    #[error("next hop {via} is on no network of interface {interface}: give the interface an address next to it")]
    NotOnLink {
        /// The next hop.
        via: IpAddr,
        /// The interface.
        interface: String,
    },
    /// A next hop that is the router itself.
    #[error("next hop {0} is an address of the router itself: name the next router")]
    Itself(IpAddr),
}

fn mac(mac: u64) -> String {
    let octets = mac.to_be_bytes();
    octets[2..].iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(":")
}

fn hop_text(hop: &NextHop) -> String {
    match hop.via {
        Some(via) => format!("{via} on interface {}", hop.interface),
        None => format!("interface {}", hop.interface),
    }
}

impl RouterConfig {
    /// Looks for what does not fit together.
    ///
    /// # Errors
    /// The first fault, with its place.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_name(&self.name, String::new)?;
        self.check_vrfs()?;
        self.check_interfaces()?;
        let mut keys = HashSet::new();
        keys.extend(self.interfaces.iter().flat_map(Interface::connected).map(|route| route.key()));
        let index = Index::of(self);
        for route in &self.routes {
            self.check_route_in(&index, route)?;
            self.check_key(route.key(), &mut keys)?;
        }
        self.check_neighbors(&index)
    }

    fn at(&self, part: impl AsRef<str>) -> String {
        format!("router {}{}", self.name, part.as_ref())
    }

    fn fault(&self, part: impl AsRef<str>, fault: Fault) -> ConfigError {
        ConfigError { place: self.at(part), fault }
    }

    fn check_name(&self, name: &str, part: impl Fn() -> String) -> Result<(), ConfigError> {
        let fits = (1..=MAX_NAME_LEN).contains(&name.len()) && !name.chars().any(char::is_control);
        if fits { Ok(()) } else { Err(self.fault(part(), Fault::Name)) }
    }

    fn check_vrfs(&self) -> Result<(), ConfigError> {
        let (mut names, mut ids) = (HashSet::new(), HashSet::new());
        for vrf in &self.vrfs {
            let part = || format!(", VRF {}", vrf.name);
            self.check_name(&vrf.name, part)?;
            if !names.insert(&vrf.name) {
                return Err(self.fault(part(), Fault::Taken { what: format!("the name {}", vrf.name) }));
            }
            if !ids.insert(vrf.id) {
                return Err(self.fault(part(), Fault::Taken { what: format!("the number {}", vrf.id) }));
            }
        }
        Ok(())
    }

    fn check_interfaces(&self) -> Result<(), ConfigError> {
        let mut keys = HashSet::new();
        let (mut names, mut ids) = (HashSet::new(), HashSet::new());
        let (mut places, mut addresses) = (HashMap::new(), HashMap::new());
        for interface in &self.interfaces {
            let fault = |fault| Err(self.fault(format!(", interface {}", interface.name), fault));
            self.check_interface(interface)?;
            if !names.insert(&interface.name) {
                return fault(Fault::Taken { what: format!("the name {}", interface.name) });
            }
            if !ids.insert(interface.id) {
                return fault(Fault::Taken { what: format!("the number {}", interface.id) });
            }
            if let Some(other) = places.insert((interface.port, interface.vlan), &interface.name) {
                return fault(Fault::SamePlace { other: other.clone() });
            }
            for address in interface.addresses.iter().map(IpNet::addr).filter(|a| !is_link_local(*a)) {
                if let Some(other) = addresses.insert((interface.vrf, address), &interface.name) {
                    return fault(Fault::SameAddress { address, other: other.clone() });
                }
            }
            for route in interface.connected() {
                self.check_key(route.key(), &mut keys)?;
            }
        }
        Ok(())
    }

    /// Looks for what is wrong with one interface, whatever the others are.
    ///
    /// # Errors
    /// The first fault.
    pub fn check_interface(&self, interface: &Interface) -> Result<(), ConfigError> {
        let part = || format!(", interface {}", interface.name);
        self.check_name(&interface.name, part)?;
        match self.fault_of(interface) {
            Some(fault) => Err(self.fault(part(), fault)),
            None => Ok(()),
        }
    }

    fn fault_of(&self, interface: &Interface) -> Option<Fault> {
        let Interface { id, port, vlan, vrf, mac, mtu, .. } = *interface;
        if id.0 == 0 {
            return Some(Fault::ZeroInterface);
        }
        if port.0 == 0 || port > PortNo::MAX && port != PortNo::LOCAL {
            return Some(Fault::Port(port));
        }
        if let Some(vlan) = vlan.filter(|vlan| !(1..=4094).contains(&vlan.get())) {
            return Some(Fault::Vlan(vlan));
        }
        if self.vrf(vrf).is_none() {
            return Some(Fault::NoVrf(vrf));
        }
        let individual = mac != 0 && mac >> 40 & 1 == 0 && mac >> 48 == 0;
        match interface.layer3 {
            true if mac != 0 => return Some(Fault::MacOfLayer3),
            false if !individual => return Some(Fault::Mac(mac)),
            _ => {}
        }
        if let Some(net) = interface.addresses.iter().find(|net| !is_host(net.addr())) {
            return Some(Fault::Address(*net));
        }
        let v6 = interface.addresses.iter().any(|net| net.addr().is_ipv6());
        if mtu < MIN_MTU_V4 {
            return Some(Fault::Mtu { mtu, family: "IPv4", least: MIN_MTU_V4 });
        }
        if v6 && mtu < MIN_MTU_V6 {
            return Some(Fault::Mtu { mtu, family: "IPv6", least: MIN_MTU_V6 });
        }
        interface.ra.as_ref().and_then(fault_of_ra)
    }

    /// Looks for what is wrong with one route, whatever the others are.
    ///
    /// # Errors
    /// The first fault.
    pub fn check_route(&self, route: &Route) -> Result<(), ConfigError> {
        self.check_route_in(&Index::of(self), route)
    }

    fn check_route_in(&self, index: &Index<'_>, route: &Route) -> Result<(), ConfigError> {
        let fault = |fault| Err(self.fault(format!(", route {} of VRF {}", route.destination, route.vrf), fault));
        if !index.vrfs.contains(&route.vrf) {
            return fault(Fault::NoVrf(route.vrf));
        }
        let net = route.destination;
        let group = net.prefix_len() > 0 && net.addr().is_multicast();
        if net.trunc() != net || group {
            return fault(Fault::Destination(net));
        }
        match (route.kind, route.next_hops.len()) {
            (RouteKind::Unicast, 0) => return fault(Fault::NoNextHop),
            (RouteKind::Unicast, 1..=MAX_NEXT_HOPS) => {}
            (RouteKind::Unicast, count) => return fault(Fault::NextHops(count)),
            (_, 0) => {}
            (kind, _) => return fault(Fault::NextHopOfDrop(kind.name())),
        }
        let mut seen = HashSet::new();
        for hop in &route.next_hops {
            if !seen.insert((hop.interface, hop.via)) {
                return fault(Fault::SameNextHop(hop_text(hop)));
            }
            if let Some(wrong) = index.fault_of_hop(route, hop) {
                return fault(wrong);
            }
        }
        Ok(())
    }

    fn check_key(&self, key: RouteKey, keys: &mut HashSet<RouteKey>) -> Result<(), ConfigError> {
        if keys.insert(key) {
            return Ok(());
        }
        Err(self.fault(format!(", route {} of VRF {}", key.destination, key.vrf), Fault::SameRoute(key.distance)))
    }

    fn check_neighbors(&self, index: &Index<'_>) -> Result<(), ConfigError> {
        let mut seen = HashSet::new();
        for neighbor in &self.neighbors {
            let fault = |fault| Err(self.fault(format!(", neighbor {}", neighbor.address), fault));
            if !index.interfaces.contains_key(&neighbor.interface) {
                return fault(Fault::NoInterface(neighbor.interface));
            }
            if neighbor.mac == 0 || neighbor.mac >> 40 & 1 != 0 || neighbor.mac >> 48 != 0 {
                return fault(Fault::Mac(neighbor.mac));
            }
            if !seen.insert((neighbor.interface, neighbor.address)) {
                return fault(Fault::Taken { what: format!("the address on interface {}", neighbor.interface) });
            }
        }
        Ok(())
    }
}

/// The parts of a configuration that routes refer to, by number.
struct Index<'a> {
    vrfs: HashSet<VrfId>,
    interfaces: HashMap<InterfaceId, &'a Interface>,
}

impl<'a> Index<'a> {
    fn of(config: &'a RouterConfig) -> Self {
        Self {
            vrfs: config.vrfs.iter().map(|vrf| vrf.id).collect(),
            interfaces: config.interfaces.iter().map(|interface| (interface.id, interface)).collect(),
        }
    }

    fn fault_of_hop(&self, route: &Route, hop: &NextHop) -> Option<Fault> {
        let Some(interface) = self.interfaces.get(&hop.interface) else {
            return Some(Fault::NoInterface(hop.interface));
        };
        if interface.vrf != route.vrf {
            return Some(Fault::OtherVrf(interface.name.clone()));
        }
        if hop.weight == 0 {
            return Some(Fault::Weight(hop_text(hop)));
        }
        let via = hop.via?;
        if via.is_ipv4() != route.destination.addr().is_ipv4() {
            return Some(Fault::Family(via));
        }
        if interface.own_addresses().any(|own| own == via) {
            return Some(Fault::Itself(via));
        }
        let reached = interface.layer3 || interface.is_on_link(via);
        (!reached).then(|| Fault::NotOnLink { via, interface: interface.name.clone() })
    }
}

fn fault_of_ra(ra: &RouterAdvertisement) -> Option<Fault> {
    let fault = |what, is: u32, want| Some(Fault::Advertisement { what, is, want });
    if !(4..=1800).contains(&ra.max_interval) {
        return fault("the longest interval", ra.max_interval.into(), "4 to 1800 seconds");
    }
    if ra.lifetime != 0 && !(ra.max_interval..=9000).contains(&ra.lifetime) {
        return fault("the router's lifetime", ra.lifetime.into(), "0, or from the longest interval to 9000 seconds");
    }
    let longer = ra.prefixes.iter().find(|prefix| prefix.preferred > prefix.valid);
    longer.and_then(|prefix| {
        fault("the preferred lifetime of a prefix", prefix.preferred, "no longer than its valid lifetime")
    })
}

/// Whether an interface can have the address.
fn is_host(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast)
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
