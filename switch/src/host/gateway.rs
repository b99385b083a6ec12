//! A bridge's gateway: the host's side of the port, and the flows that hide the inside behind one address.
//!
//! [`start`] makes both, [`stop`] takes both away, [`drift`] tells what differs on the host by now. The port itself is the
//! bridge's; its interface goes when the switch ends, whatever way that comes.

use super::desired::{HostSide, NeighbourSpec, RouteSpec, RuleSpec, Sysctl};
use super::{HostError, apply as host};
use crate::{ControlError, Datapath};
use ipnet::IpNet;
use sluice_flows::PortNo;
use sluice_flows::bridge::TableMod;
use sluice_flows::bridge_mod::BridgeMod;
use sluice_flows::filter::{FlowFilter, OwnerFilter};
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::gateway::{Gateway, Masquerade};
use sluice_flows::rule::TableId;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use thiserror::Error;

/// A gateway as a configuration asks for it, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    /// The bridge's port with the host behind it.
    pub port: String,
    /// The host's interface there.
    pub link: String,
    /// The host's interfaces that other ports of the bridge are packet sockets on.
    pub packet_links: Vec<String>,
    /// The interface's addresses.
    pub addresses: Vec<IpNet>,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Longest network-layer packet, in bytes; as it is if none.
    pub mtu: Option<u32>,
    /// Routes that lead to it.
    pub routes: Vec<RouteSpec>,
    /// Rules about packets that came by it.
    pub rules: Vec<RuleSpec>,
    /// Neighbours that need no resolution.
    pub neighbours: Vec<NeighbourSpec>,
    /// Whether the host forwards between it and its other interfaces.
    pub forward: bool,
    /// What is translated; nothing if none.
    pub masquerade: Option<MasqueradeConfig>,
}

/// The masquerade of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasqueradeConfig {
    /// The networks inside.
    pub inside: Vec<IpNet>,
    /// The addresses that take the place of theirs on the link to the host, at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// Destinations that are reached with the inside address.
    pub except: Vec<IpNet>,
    /// The ports that take the place of theirs, if they are to be of a range.
    pub ports: Option<(u16, u16)>,
    /// The zone of its connections.
    pub zone: u16,
    /// The first of its flow tables.
    pub first_table: TableId,
    /// Whether the host hides the link's addresses behind its own, by a rule of nftables.
    pub host_rule: bool,
}

impl GatewayError {
    /// Whether it is a matter of privileges.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Host { source, .. } if source.is_denied())
    }
}

impl MasqueradeConfig {
    /// The link's addresses unless others are asked for: one that no router passes on, and one of a network that nobody
    /// else makes up (RFC 4193), so that neither means anything to others if it ever got out.
    pub const fn default_addresses() -> [IpAddr; 2] {
        [IpAddr::V4(Ipv4Addr::new(169, 254, 77, 2)), IpAddr::V6(Ipv6Addr::new(0xfd73, 0x6c75, 0x6963, 0, 0, 0, 0, 2))]
    }

    fn of_family(&self, address: IpAddr) -> Masquerade {
        let same = |nets: &[IpNet]| {
            nets.iter().filter(|net| net.addr().is_ipv4() == address.is_ipv4()).copied().collect::<Vec<_>>()
        };
        Masquerade { inside: same(&self.inside), except: same(&self.except), address, ports: self.ports }
    }
}

/// The gateways that were asked for, by bridge.
#[derive(Debug, Default)]
pub(crate) struct Gateways(Mutex<BTreeMap<String, GatewayConfig>>);

impl Gateways {
    pub(crate) fn all(&self) -> BTreeMap<String, GatewayConfig> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn note(&self, bridge: &str, config: Option<&GatewayConfig>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match config {
            Some(config) => all.insert(bridge.to_owned(), config.clone()),
            None => all.remove(bridge),
        };
    }
}

/// Why a gateway cannot be made.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// The host's side.
    #[error("gateway of {bridge}: {source}")]
    Host {
        /// The bridge.
        bridge: String,
        /// Why.
        source: HostError,
    },
    /// The switch's.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The port is not there.
    #[error("gateway of {bridge}: the bridge has no port {port}; add it first")]
    NoPort {
        /// The bridge.
        bridge: String,
        /// The port.
        port: String,
    },
}

/// The MAC address of a gateway's interface unless one is asked for: the same after a restart, so that nobody has to ask
/// for it again, and different where bridge or address are.
pub fn stable_mac(bridge: &str, addresses: &[IpNet]) -> [u8; 6] {
    // FNV-1a: what matters is that it never changes from one version to the next.
    let text = addresses.iter().fold(bridge.to_owned(), |text, address| format!("{text} {}", address.addr()));
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let [a, b, c, d, e, f, ..] = hash.to_be_bytes();
    // Locally administered, not of a group.
    [a & 0xfc | 2, b, c, d, e, f]
}

/// What the host is to have for a gateway.
pub fn host_side(config: &GatewayConfig) -> HostSide {
    let masquerade = config.masquerade.as_ref();
    let link_addresses = masquerade.map(|m| m.addresses.clone()).unwrap_or_default();
    let mut routes = config.routes.clone();
    // Where the address is not on the interface's own networks, the host has to be told where it is.
    let far = link_addresses.iter().filter(|link| !config.addresses.iter().any(|net| net.contains(*link)));
    routes.extend(far.map(|address| RouteSpec::on_link(IpNet::from(*address))));
    HostSide {
        link: config.link.clone(),
        alias: Some(host::alias_of(&config.link)),
        mac: Some(config.mac),
        mtu: config.mtu,
        up: true,
        addresses: config.addresses.clone(),
        routes,
        rules: config.rules.clone(),
        neighbours: config.neighbours.clone(),
        sysctls: sysctls(config),
        masquerade: if masquerade.is_some_and(|m| m.host_rule) { link_addresses } else { Vec::new() },
    }
}

fn sysctls(config: &GatewayConfig) -> Vec<Sysctl> {
    let link = &config.link;
    let has = |v4| config.addresses.iter().any(|net| net.addr().is_ipv4() == v4);
    let mut settings = Vec::new();
    // Stations inside are no routers of the host's, and it is not to send them to each other.
    if has(false) {
        settings.push(Sysctl::new(format!("net/ipv6/conf/{link}/accept_ra"), "0"));
        settings.push(Sysctl::new(format!("net/ipv6/conf/{link}/accept_redirects"), "0"));
    }
    if has(true) {
        settings.push(Sysctl::new(format!("net/ipv4/conf/{link}/accept_redirects"), "0"));
        settings.push(Sysctl::new(format!("net/ipv4/conf/{link}/send_redirects"), "0"));
    }
    if has(true) {
        // By itself the host answers ARP on any interface for all of its addresses: a station behind a veth would send
        // to the veth's end and so past the switch.
        let own = |link: &String| Sysctl::new(format!("net/ipv4/conf/{link}/arp_ignore"), "1");
        settings.extend(config.packet_links.iter().map(own));
    }
    if config.forward && has(true) {
        settings.push(Sysctl::new("net/ipv4/ip_forward", "1"));
        settings.push(Sysctl::new(format!("net/ipv4/conf/{link}/forwarding"), "1"));
    }
    if config.forward && has(false) {
        settings.push(Sysctl::new(host::V6_FORWARDING, "1"));
        settings.push(Sysctl::new(format!("net/ipv6/conf/{link}/forwarding"), "1"));
    }
    settings
}

fn flows(config: &GatewayConfig, port: PortNo) -> Option<Gateway> {
    let masquerade = config.masquerade.as_ref()?;
    let [a, b, c, d, e, f] = config.mac;
    let mac = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    Some(Gateway {
        port,
        mac,
        link_mac: Gateway::link_mac_of(mac),
        zone: masquerade.zone,
        masquerades: masquerade.addresses.iter().map(|address| masquerade.of_family(*address)).collect(),
        first_table: masquerade.first_table,
    })
}

/// Makes the gateway of a bridge, or what is missing of it; what it has too many of its own it takes away. Returns what
/// was done to the host.
///
/// # Errors
/// [`GatewayError`]; what was done until then stays, to be taken away by [`stop`].
pub fn start(datapath: &Datapath, bridge: &str, config: &GatewayConfig) -> Result<Vec<String>, GatewayError> {
    // One that cannot be made is shown with its fault.
    datapath.note_gateway(bridge, Some(config));
    let no_port = || GatewayError::NoPort { bridge: bridge.to_owned(), port: config.port.clone() };
    let ports = datapath.ports(Some(bridge))?;
    let port = ports.iter().find(|info| *info.port.name == config.port).ok_or_else(no_port)?.port.no;
    let done = mend(bridge, config)?;
    let mut mods = vec![take_flows()];
    if let Some(gateway) = flows(config, port) {
        mods.extend(gateway.names().into_iter().map(BridgeMod::from));
        mods.extend(gateway.flows().into_iter().map(|flow| FlowMod::add(flow).into()));
    }
    datapath.apply_bundle(bridge, &mods)?;
    if config.forward {
        for chain in host::forward_obstacles() {
            tracing::warn!(
                %bridge,
                %chain,
                "another program's nftables chain drops what the host forwards unless it says otherwise; \
                 let it accept what comes in or goes out by {}",
                config.link
            );
        }
    }
    Ok(done)
}

/// Does again what others have undone on the host, and returns what that took.
///
/// # Errors
/// [`GatewayError::Host`].
pub fn mend(bridge: &str, config: &GatewayConfig) -> Result<Vec<String>, GatewayError> {
    host::apply(&host_side(config)).map_err(|source| GatewayError::Host { bridge: bridge.to_owned(), source })
}

fn take_flows() -> BridgeMod {
    let owner = Some(OwnerFilter::Is(Gateway::owner()));
    FlowMod::delete(FlowFilter { owner, ..FlowFilter::default() }).into()
}

/// Takes a gateway away: its flows, and what is ours on the host. Returns what was done to the host.
///
/// # Errors
/// [`GatewayError`]; the rest is done all the same.
pub fn stop(datapath: &Datapath, bridge: &str, config: &GatewayConfig) -> Result<Vec<String>, GatewayError> {
    datapath.note_gateway(bridge, None);
    let removed = host::remove(&config.link).map_err(|source| GatewayError::Host { bridge: bridge.to_owned(), source });
    let mut mods = vec![take_flows()];
    if let Some(gateway) = flows(config, PortNo::LOCAL) {
        let unnamed = |name: TableMod| TableMod { name: Some("".into()), ..name };
        mods.extend(gateway.names().into_iter().map(|name| BridgeMod::from(unnamed(name))));
    }
    // A bridge that is gone, or was never made, has no flows.
    if datapath.bridge(bridge).is_ok() {
        datapath.apply_bundle(bridge, &mods)?;
    }
    removed
}

/// What differs on the host from what the gateway asks for, as the steps that would mend it.
///
/// # Errors
/// [`HostError`].
pub fn drift(config: &GatewayConfig) -> Result<Vec<String>, HostError> {
    host::drift(&host_side(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stable_mac_is_a_stations_and_depends_on_bridge_and_addresses() {
        let nets = |text: &str| vec![text.parse::<IpNet>().unwrap()];
        let mac = stable_mac("br0", &nets("10.77.0.1/24"));
        assert_eq!(mac, stable_mac("br0", &nets("10.77.0.1/16")));
        assert_eq!(mac[0] & 3, 2);
        assert_ne!(mac, stable_mac("br1", &nets("10.77.0.1/24")));
        assert_ne!(mac, stable_mac("br0", &nets("10.77.1.1/24")));
    }
}
