//! A router by names and text, as files and the API have it, and how that becomes numbers.
//!
//! What is left out is filled in: an interface's hardware address is made of the names of router and interface, so that
//! it is the same next time; its MTU is its port's; the VRF is `main`; the interface of a next hop is the one that has
//! the next hop on a network of its own.

use super::{ProbeSpec, RouterSpec};
use crate::Datapath;
use ipnet::IpNet;
use serde::Deserialize;
use sluice_flows::bridge::{Bridge, VlanId};
use sluice_flows::router::{
    AdvertisedPrefix, Interface, InterfaceId, NextHop, Route, RouteKind, RouterAdvertisement, RouterConfig,
    StaticNeighbor, Vrf, VrfId,
};
use std::net::{IpAddr, Ipv6Addr};
use thiserror::Error;

/// The VRF of whatever names none.
pub const DEFAULT_VRF: &str = "main";
/// Rank of a route that says none, as that of static routes is elsewhere.
const STATIC_DISTANCE: u8 = 1;
/// MTU of an interface whose port has none of its own.
const DEFAULT_MTU: u16 = 1500;

/// A router.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedRouter {
    /// Its name.
    pub name: String,
    /// The bridge that it is in.
    pub bridge: String,
    /// The first of its tables.
    #[serde(default)]
    pub table: u8,
    /// Its VRFs; `main` need not be listed.
    #[serde(default)]
    pub vrfs: Vec<String>,
    /// Its interfaces.
    #[serde(default, rename = "interface")]
    pub interfaces: Vec<NamedInterface>,
    /// Its routes.
    #[serde(default, rename = "route")]
    pub routes: Vec<NamedRoute>,
    /// Neighbours that need no resolution.
    #[serde(default, rename = "neighbor")]
    pub neighbors: Vec<NamedNeighbor>,
    /// Next hops that are pinged.
    #[serde(default, rename = "probe")]
    pub probes: Vec<NamedProbe>,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedInterface {
    /// Its name.
    pub name: String,
    /// The port that it is on; the one of its own name if empty.
    #[serde(default)]
    pub port: String,
    /// The VLAN whose tag its frames carry; none if 0.
    #[serde(default)]
    pub vlan: u16,
    /// Its VRF; `main` if empty.
    #[serde(default)]
    pub vrf: String,
    /// Its hardware address; made of names if empty.
    #[serde(default)]
    pub mac: String,
    /// Its addresses with the lengths of their prefixes.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Longest IP packet that leaves by it; its port's MTU if 0.
    #[serde(default)]
    pub mtu: u16,
    /// Networks that it answers ARP and neighbour solicitations for.
    #[serde(default)]
    pub proxied: Vec<String>,
    /// Its port carries IP and nothing else.
    #[serde(default)]
    pub layer3: bool,
    /// What it advertises to hosts.
    #[serde(default)]
    pub ra: Option<NamedAdvertisement>,
}

/// Router advertisements.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NamedAdvertisement {
    /// Longest time between two, in seconds.
    pub max_interval: Option<u16>,
    /// Seconds that the router may be used as a default router.
    pub lifetime: Option<u16>,
    /// Hop limit that hosts are to use.
    pub hop_limit: Option<u8>,
    /// Addresses come by DHCPv6.
    pub managed: bool,
    /// Other settings come by DHCPv6.
    pub other: bool,
    /// Do not tell the MTU.
    pub no_mtu: bool,
    /// Prefixes; those of the interface's addresses if empty.
    pub prefixes: Vec<String>,
    /// DNS servers.
    pub dns: Vec<String>,
    /// Domains to search names in.
    pub search: Vec<String>,
}

/// A route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedRoute {
    /// Where it leads: a network, an address, or `default` or `default6`.
    pub to: String,
    /// Its VRF; `main` if empty.
    #[serde(default)]
    pub vrf: String,
    /// Next hops.
    #[serde(default)]
    pub via: Vec<NamedHop>,
    /// `unicast`, `blackhole`, `unreachable` or `prohibit`; empty for the first.
    #[serde(default)]
    pub kind: String,
    /// Its rank among routes to the same destination; 1 if none.
    #[serde(default)]
    pub distance: Option<u8>,
}

/// A next hop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "HopText")]
pub struct NamedHop {
    /// The router that packets go to; straight to their destination if empty.
    pub address: String,
    /// The interface; found by the address if empty.
    pub interface: String,
    /// Its share among several; 1 if 0.
    pub weight: u16,
}

/// A next hop in a file: its address alone, or a table.
#[derive(Deserialize)]
#[serde(untagged, expecting = "an address, or a table with `address`, `interface` and `weight`")]
enum HopText {
    Address(String),
    #[serde(rename_all = "snake_case")]
    Table {
        #[serde(default)]
        address: String,
        #[serde(default)]
        interface: String,
        #[serde(default)]
        weight: u16,
    },
}

impl From<HopText> for NamedHop {
    fn from(text: HopText) -> Self {
        match text {
            HopText::Address(address) => Self { address, ..Self::default() },
            HopText::Table { address, interface, weight } => Self { address, interface, weight },
        }
    }
}

/// A neighbour that needs no resolution.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedNeighbor {
    /// The interface that it is behind.
    pub interface: String,
    /// Its address.
    pub address: String,
    /// Its hardware address.
    pub mac: String,
}

/// A next hop that is pinged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedProbe {
    /// Its address.
    pub address: String,
    /// The interface; found by the address if empty.
    #[serde(default)]
    pub interface: String,
    /// The VRF to look in for the interface.
    #[serde(default)]
    pub vrf: String,
    /// Milliseconds between two pings; 1000 if 0.
    #[serde(default)]
    pub interval_ms: u32,
    /// Pings in a row that have to be lost; 3 if 0.
    #[serde(default)]
    pub losses: u8,
}

/// What a name or text does not mean.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("router {router}, {place}: {what}")]
pub struct NameError {
    /// The router.
    pub router: String,
    /// Which part of it.
    pub place: String,
    /// What is wrong, and what may stand there.
    pub what: String,
}

impl NamedRouter {
    /// The router by numbers.
    ///
    /// # Errors
    /// A name that is not there, or text that means nothing.
    pub fn resolve(&self, datapath: &Datapath, bridge: &Bridge) -> Result<RouterSpec, NameError> {
        let ports = datapath.ports(Some(&bridge.name)).unwrap_or_default();
        let port = |name: &str| {
            let found = ports.iter().find(|port| *port.port.name == *name);
            found.map(|port| (port.port.no, u16::try_from(port.mtu).unwrap_or(u16::MAX)))
        };
        self.resolve_with(&port)
    }

    /// The same with a port's number and MTU by its name, so that a file can be checked without a bridge.
    pub(crate) fn resolve_with(
        &self,
        port: &dyn Fn(&str) -> Option<(sluice_flows::PortNo, u16)>,
    ) -> Result<RouterSpec, NameError> {
        let names = [DEFAULT_VRF.to_owned()].into_iter().chain(self.vrfs.iter().filter(|v| *v != DEFAULT_VRF).cloned());
        let mut config = RouterConfig {
            name: self.name.clone(),
            vrfs: names.zip(0..).map(|(name, id)| Vrf { name, id: VrfId(id) }).collect(),
            ..RouterConfig::default()
        };
        for (named, id) in self.interfaces.iter().zip(1..) {
            let fault = |what: String| self.fault(format!("interface {}", named.name), what);
            let interface = self.interface(&config, named, InterfaceId(id), port).map_err(fault)?;
            config.interfaces.push(interface);
        }
        for named in &self.routes {
            let route = named.resolve(&config).map_err(|what| self.fault(format!("route {}", named.to), what))?;
            config.routes.push(route);
        }
        for named in &self.neighbors {
            let neighbor = named.resolve(&config);
            let neighbor = neighbor.map_err(|what| self.fault(format!("neighbour {}", named.address), what))?;
            config.neighbors.push(neighbor);
        }
        let probe = |named: &NamedProbe| {
            named.resolve(&config).map_err(|what| self.fault(format!("probe {}", named.address), what))
        };
        let probes = self.probes.iter().map(probe).collect::<Result<_, _>>()?;
        Ok(RouterSpec { bridge: self.bridge.clone(), first_table: self.table, config, probes })
    }

    fn fault(&self, place: String, what: String) -> NameError {
        NameError { router: self.name.clone(), place, what }
    }

    fn interface(
        &self,
        config: &RouterConfig,
        named: &NamedInterface,
        id: InterfaceId,
        port: &dyn Fn(&str) -> Option<(sluice_flows::PortNo, u16)>,
    ) -> Result<Interface, String> {
        let name = if named.port.is_empty() { &named.name } else { &named.port };
        let (no, port_mtu) = port(name)
            .ok_or_else(|| format!("bridge {} has no port {name:?}; `sluice ports` shows those it has", self.bridge))?;
        let port_mtu = if port_mtu == 0 { DEFAULT_MTU } else { port_mtu };
        let mac = match named.mac.as_str() {
            _ if named.layer3 => 0,
            "" => made_mac(&self.name, &named.name),
            text => mac_of(text)?,
        };
        let vlan = match named.vlan {
            0 => None,
            vlan => Some(VlanId::new(vlan).ok_or_else(|| format!("there is no VLAN {vlan}; they are 1 to 4094"))?),
        };
        Ok(Interface {
            id,
            name: named.name.clone(),
            port: no,
            vlan,
            vrf: vrf_of(config, &named.vrf)?,
            mac,
            addresses: named.addresses.iter().map(|text| network(text)).collect::<Result<_, _>>()?,
            mtu: if named.mtu == 0 { port_mtu } else { named.mtu },
            proxied: named.proxied.iter().map(|text| network(text)).collect::<Result<_, _>>()?,
            layer3: named.layer3,
            ra: named.ra.as_ref().map(NamedAdvertisement::resolve).transpose()?,
        })
    }
}

impl NamedAdvertisement {
    fn resolve(&self) -> Result<RouterAdvertisement, String> {
        let default = RouterAdvertisement::default();
        let prefix = |text: &String| match network(text)? {
            IpNet::V6(net) => Ok(AdvertisedPrefix::new(net)),
            IpNet::V4(_) => Err(format!("{text} is no IPv6 prefix")),
        };
        let server = |text: &String| {
            text.parse::<Ipv6Addr>().map_err(|_| format!("{text:?} is no IPv6 address of a DNS server"))
        };
        let max_interval = self.max_interval.unwrap_or(default.max_interval);
        Ok(RouterAdvertisement {
            max_interval,
            lifetime: self.lifetime.unwrap_or_else(|| max_interval.saturating_mul(3)),
            hop_limit: self.hop_limit.unwrap_or(default.hop_limit),
            managed: self.managed,
            other: self.other,
            mtu: !self.no_mtu,
            prefixes: self.prefixes.iter().map(prefix).collect::<Result<_, String>>()?,
            dns_servers: self.dns.iter().map(server).collect::<Result<_, _>>()?,
            dns_search: self.search.clone(),
        })
    }
}

impl NamedRoute {
    /// The route by numbers, for a router that is configured so.
    ///
    /// # Errors
    /// What means nothing, in words.
    pub fn resolve(&self, config: &RouterConfig) -> Result<Route, String> {
        let vrf = vrf_of(config, &self.vrf)?;
        let kind = match self.kind.as_str() {
            "" => RouteKind::Unicast,
            word => {
                RouteKind::NAMES.iter().find(|(_, name)| *name == word).map(|(kind, _)| *kind).ok_or_else(|| {
                    format!(
                        "there is no kind {word:?} of routes; there are unicast, blackhole, unreachable and prohibit"
                    )
                })?
            }
        };
        let next_hops = self.via.iter().map(|hop| hop.resolve(config, vrf)).collect::<Result<_, _>>()?;
        let destination = destination(&self.to)?;
        Ok(Route { vrf, destination, kind, next_hops, distance: self.distance.unwrap_or(STATIC_DISTANCE) })
    }
}

impl NamedHop {
    fn resolve(&self, config: &RouterConfig, vrf: VrfId) -> Result<NextHop, String> {
        let via = match self.address.as_str() {
            "" => None,
            text => Some(address(text)?),
        };
        let interface = interface_of(config, &self.interface, vrf, via)?;
        Ok(NextHop { interface, via, weight: self.weight.max(1) })
    }
}

impl NamedNeighbor {
    fn resolve(&self, config: &RouterConfig) -> Result<StaticNeighbor, String> {
        let interface = named_interface(config, &self.interface)?;
        Ok(StaticNeighbor { interface, address: address(&self.address)?, mac: mac_of(&self.mac)? })
    }
}

impl NamedProbe {
    fn resolve(&self, config: &RouterConfig) -> Result<ProbeSpec, String> {
        let address = address(&self.address)?;
        let interface = interface_of(config, &self.interface, vrf_of(config, &self.vrf)?, Some(address))?;
        Ok(ProbeSpec {
            next_hop: (interface, address),
            interval_ms: if self.interval_ms == 0 { 1000 } else { self.interval_ms },
            losses: if self.losses == 0 { 3 } else { self.losses },
        })
    }
}

/// The VRF of this name.
///
/// # Errors
/// There is none, with those that there are.
pub(crate) fn vrf_of(config: &RouterConfig, name: &str) -> Result<VrfId, String> {
    let name = if name.is_empty() { DEFAULT_VRF } else { name };
    let known = || config.vrfs.iter().map(|vrf| vrf.name.as_str()).collect::<Vec<_>>().join(", ");
    config.vrf_named(name).map(|vrf| vrf.id).ok_or_else(|| format!("there is no VRF {name:?}; VRFs: {}", known()))
}

/// The interface of this name.
///
/// # Errors
/// There is none, with those that there are.
pub(crate) fn named_interface(config: &RouterConfig, name: &str) -> Result<InterfaceId, String> {
    let known = || config.interfaces.iter().map(|i| i.name.as_str()).collect::<Vec<_>>().join(", ");
    let found = config.interface_named(name).map(|interface| interface.id);
    found.ok_or_else(|| format!("there is no interface {name:?}; interfaces: {}", known()))
}

/// The interface of this name, or the one of the VRF that has the address on a network of its own.
fn interface_of(config: &RouterConfig, name: &str, vrf: VrfId, via: Option<IpAddr>) -> Result<InterfaceId, String> {
    if !name.is_empty() {
        return named_interface(config, name);
    }
    let Some(via) = via else { return Err("a next hop needs an address or an interface".to_owned()) };
    let on_link = |interface: &&Interface| interface.vrf == vrf && interface.addresses.iter().any(|n| n.contains(&via));
    let mut found = config.interfaces.iter().filter(on_link);
    match (found.next(), found.next()) {
        (Some(interface), None) => Ok(interface.id),
        (None, _) => Err(format!("no interface of the VRF has a network that {via} is in; name the interface")),
        (Some(a), Some(b)) => Err(format!("{via} may be behind {} or {}; name the interface", a.name, b.name)),
    }
}

/// The network that a route leads to.
///
/// # Errors
/// The text is none.
pub(crate) fn destination(text: &str) -> Result<IpNet, String> {
    match text {
        "default" => Ok(IpNet::V4(ipnet::Ipv4Net::default())),
        "default6" => Ok(IpNet::V6(ipnet::Ipv6Net::default())),
        _ => network(text),
    }
}

/// A network, or an address as a network of its own.
fn network(text: &str) -> Result<IpNet, String> {
    let host = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse::<IpNet>()
        .or_else(|_| host())
        .map_err(|_| format!("{text:?} is no address and no network such as 10.0.0.0/24"))
}

/// An address.
///
/// # Errors
/// The text is none.
pub(crate) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is no address"))
}

/// A hardware address as flows have it.
///
/// # Errors
/// The text is none.
pub(crate) fn mac_of(text: &str) -> Result<u64, String> {
    let parts: Vec<_> = text.split(':').collect();
    let byte = |part: &&str| (1..=2).contains(&part.len()).then(|| u64::from_str_radix(part, 16).ok()).flatten();
    let bytes: Option<Vec<_>> = parts.iter().map(byte).collect();
    let bytes = bytes.filter(|bytes| bytes.len() == 6);
    let bytes = bytes.ok_or_else(|| format!("{text:?} is no hardware address such as 02:00:00:00:00:01"))?;
    Ok(bytes.iter().fold(0, |mac, byte| mac << 8 | byte))
}

/// A locally administered address that stays the same as long as the names do.
fn made_mac(router: &str, interface: &str) -> u64 {
    // FNV-1a, which is the same everywhere and always.
    let bytes = router.bytes().chain([0]).chain(interface.bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    0x0200_0000_0000 | (hash ^ hash >> 40) & 0xff_ffff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_flows::PortNo;

    fn port(name: &str) -> Option<(PortNo, u16)> {
        match name {
            "lan" => Some((PortNo(1), 9000)),
            "wan" => Some((PortNo(2), 0)),
            _ => None,
        }
    }

    fn router(text: &str) -> Result<RouterSpec, String> {
        let named: NamedRouter = toml::from_str(text).map_err(|error| error.to_string())?;
        named.resolve_with(&port).map_err(|error| error.to_string())
    }

    const BASE: &str = r#"
        name = "r1"
        bridge = "br0"
        vrfs = ["blue"]
        interface = [
          { name = "lan", addresses = ["10.0.1.1/24", "fd00:1::1/64"], ra = {} },
          { name = "up", port = "wan", mac = "02:00:00:00:00:0a", addresses = ["192.0.2.1/30"], vlan = 7, mtu = 1400 },
          { name = "b", port = "wan", vrf = "blue", vlan = 8, addresses = ["10.0.1.1/24"] },
        ]
    "#;

    #[test]
    fn names_become_numbers_and_what_is_left_out_is_filled_in() {
        let more = r#"
            route = [
              { to = "default", via = ["192.0.2.2"] },
              { to = "10.9.0.0/16", via = [{ interface = "up", weight = 3 }, "10.0.1.7"], distance = 9 },
              { to = "10.0.0.0/8", kind = "blackhole", vrf = "blue" },
            ]
            probe = [{ address = "192.0.2.2" }]
            neighbor = [{ interface = "lan", address = "10.0.1.5", mac = "02:00:00:00:00:05" }]
        "#;
        let spec = router(&format!("{BASE}{more}")).unwrap();
        let config = &spec.config;
        config.check().unwrap();
        let lan = &config.interfaces[0];
        assert_eq!((lan.port, lan.mtu, lan.vlan, lan.vrf), (PortNo(1), 9000, None, VrfId(0)));
        assert_eq!(lan.mac >> 40, 2, "locally administered");
        let up = &config.interfaces[1];
        assert_eq!((up.mac, up.mtu, up.vlan.map(VlanId::get)), (0x0200_0000_000a, 1400, Some(7)));
        assert_eq!(config.interfaces[2].mtu, 1500);
        let hop = |interface, via: &str, weight| NextHop {
            interface: InterfaceId(interface),
            via: Some(via).filter(|v| !v.is_empty()).map(|via| via.parse().unwrap()),
            weight,
        };
        assert_eq!(config.routes[0].next_hops, [hop(2, "192.0.2.2", 1)]);
        assert_eq!(config.routes[1].next_hops, [hop(2, "", 3), hop(1, "10.0.1.7", 1)]);
        assert_eq!((config.routes[1].distance, config.routes[2].vrf), (9, VrfId(1)));
        assert_eq!((spec.probes[0].interval_ms, spec.probes[0].losses), (1000, 3));
    }

    #[test]
    fn what_means_nothing_is_told_with_its_place() {
        let cases = [
            ("route = [{ to = '10.0.0.0/33' }]", "router r1, route 10.0.0.0/33: \"10.0.0.0/33\" is no address"),
            (
                "route = [{ to = 'default', via = ['10.0.7.1'] }]",
                "no interface of the VRF has a network that 10.0.7.1 is in",
            ),
            (
                "route = [{ to = 'default', via = [{ interface = 'x' }] }]",
                "there is no interface \"x\"; interfaces: lan, up, b",
            ),
            ("route = [{ to = 'default', via = [{ weight = 2 }] }]", "a next hop needs an address or an interface"),
            ("route = [{ to = 'default', vrf = 'red' }]", "there is no VRF \"red\"; VRFs: main, blue"),
            ("route = [{ to = 'default', kind = 'dark' }]", "there is no kind \"dark\" of routes"),
            (
                "neighbor = [{ interface = 'lan', address = '10.0.1.5', mac = '02:00' }]",
                "\"02:00\" is no hardware address",
            ),
        ];
        for (more, want) in cases {
            let said = router(&format!("{BASE}{more}")).unwrap_err();
            assert!(said.contains(want), "{said}");
        }
        let said = router("name = 'r1'\nbridge = 'br0'\ninterface = [{ name = 'x' }]").unwrap_err();
        assert!(said.contains("bridge br0 has no port \"x\""), "{said}");
        let said = router("name = 'r1'\nbridge = 'br0'\nroutes = []").unwrap_err();
        assert!(said.contains("unknown field `routes`"), "{said}");
    }

    #[test]
    fn a_made_hardware_address_depends_on_both_names() {
        assert_eq!(made_mac("r1", "lan"), made_mac("r1", "lan"));
        assert_ne!(made_mac("r1", "lan"), made_mac("r1", "wan"));
        assert_ne!(made_mac("r1", "lan"), made_mac("r2", "lan"));
    }
}
