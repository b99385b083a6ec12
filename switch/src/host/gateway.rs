//! A bridge's gateway: the host's side of the port, and the flows that hide the inside behind one address.
//!
//! [`start`] makes both, [`stop`] takes both away, [`drift`] tells what differs on the host by now. The port itself is the
//! bridge's; its interface goes when the switch ends, whatever way that comes.

use super::desired::{HostSide, NeighbourSpec, RouteSpec, RuleSpec, Sysctl};
use super::ports::{HostPort, HostPorts};
use super::{HostError, apply as host, far, ports};
use crate::{ControlError, Datapath};
use ipnet::IpNet;
use sluice_flows::PortNo;
use sluice_flows::gateway::{FIRST_TABLE, Gateway, Masquerade, Service};
use sluice_flows::rule::TableId;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
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
    /// The VLAN that it is in, if its port is one of a VLAN.
    pub vlan: Option<u16>,
    /// What networks of containers add to it.
    pub share: Share,
}

/// What networks of containers add to a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Their names.
    pub networks: Vec<String>,
    /// What is translated, beside what the gateway's own masquerade says, to the same addresses.
    pub inside: Vec<Inside>,
    /// Networks that reach the outside as they are.
    pub routed: Vec<IpNet>,
    /// Networks that reach the gateway alone.
    pub internal: Vec<IpNet>,
    /// Such networks behind other gateways.
    pub closed: Vec<IpNet>,
    /// The addresses that the host sends to what is for its ports; none without ports.
    pub incoming: Vec<IpAddr>,
    /// Where it goes, as far as the gateway's own flows decide that.
    pub services: Vec<Service>,
    /// Networks that the host reaches by other hosts, each with its next hop.
    pub hops: Vec<(IpNet, IpAddr)>,
    /// The switch's addresses on the link, where somebody else's flows or routes of the host need them, masquerade or not.
    pub link: Vec<IpAddr>,
    /// Whether flows of somebody else's decide what becomes of what the host sends to it, and send to the host what they like.
    pub steered: bool,
    /// The host's ports, and which port of the incoming address each leads to.
    pub ports: BTreeMap<HostPort, u16>,
    /// The zone of a gateway that has no masquerade.
    pub zone: u16,
    /// The first table of a gateway that has no masquerade.
    pub first_table: Option<TableId>,
}

/// Networks that are translated, and where to they are not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// The networks.
    pub networks: Vec<IpNet>,
    /// Destinations that are reached with the inside address.
    pub except: Vec<IpNet>,
}

impl GatewayConfig {
    /// Its zone of connection tracking.
    pub fn zone(&self) -> u16 {
        self.masquerade.as_ref().map_or(self.share.zone, |masquerade| masquerade.zone)
    }

    /// Every network that is translated.
    pub fn inside(&self) -> Vec<IpNet> {
        let own = self.masquerade.iter().flat_map(|masquerade| &masquerade.inside);
        let mut all: Vec<_> = own.chain(self.share.inside.iter().flat_map(|i| &i.networks)).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Every destination that some of them reach as they are.
    pub fn except(&self) -> Vec<IpNet> {
        let own = self.masquerade.iter().flat_map(|masquerade| &masquerade.except);
        let mut all: Vec<_> = own.chain(self.share.inside.iter().flat_map(|i| &i.except)).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }
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
    /// It does not go together with something else.
    #[error("{0}")]
    Conflict(String),
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
    let link_addresses = config.masquerade.as_ref().map(|m| m.addresses.clone()).unwrap_or_default();
    let mut hidden = link_addresses.clone();
    hidden.extend(config.share.link.iter().filter(|link| !link_addresses.contains(link)));
    // Where the address is not on the interface's own networks, the host has to be told where it is.
    let link = hidden.iter().chain(&config.share.incoming);
    let far = link.filter(|link| !config.addresses.iter().any(|net| net.contains(*link)));
    // They come first: other routes may lead by them.
    let routes = far.map(|address| RouteSpec::on_link(IpNet::from(*address))).chain(config.routes.clone()).collect();
    let masquerade = with_rule(config, link_addresses, &hidden);
    let ports = HostPorts { incoming: config.share.incoming.clone(), hidden, ports: config.share.ports.clone() };
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
        masquerade,
        ports,
        accept: config.forward,
    }
}

/// The addresses of the link for which the host has one of its own when they leave it. Flows of somebody else's use those that they
/// know of, whether the gateway has a masquerade or not.
fn with_rule(config: &GatewayConfig, own: Vec<IpAddr>, all: &[IpAddr]) -> Vec<IpAddr> {
    match &config.masquerade {
        Some(masquerade) if !masquerade.host_rule => Vec::new(),
        _ if config.share.steered => all.to_vec(),
        _ => own,
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
    if config.share.incoming.iter().any(IpAddr::is_ipv4) {
        // Connections that begin at 127.0.0.1 leave by it; the table with the host's ports drops others' attempts.
        settings.push(Sysctl::new(ports::route_localnet(link), "1"));
    }
    if config.share.steered && has(true) {
        // Somebody else's flows send to the host what comes from anywhere: from clients outside, whose addresses the host
        // itself reaches by other interfaces, and from the host.
        settings.push(Sysctl::new(format!("net/ipv4/conf/{link}/rp_filter"), "2"));
        settings.push(Sysctl::new(format!("net/ipv4/conf/{link}/accept_local"), "1"));
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

/// The gateway as its flows need to know it.
pub(super) fn of_flows(config: &GatewayConfig, port: PortNo) -> Gateway {
    let [a, b, c, d, e, f] = config.mac;
    let mac = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    let share = &config.share;
    let first_table = config.masquerade.as_ref().map(|masquerade| masquerade.first_table).or(share.first_table);
    Gateway {
        port,
        mac,
        link_mac: Gateway::link_mac_of(mac),
        zone: config.zone(),
        masquerades: config.masquerade.as_ref().map(|masquerade| masquerades(masquerade, share)).unwrap_or_default(),
        routed: share.routed.clone(),
        internal: share.internal.clone(),
        closed: share.closed.clone(),
        own: config.addresses.iter().map(IpNet::addr).collect(),
        incoming: share
            .incoming
            .iter()
            .filter(|to| share.services.iter().any(|s| s.address == **to))
            .copied()
            .collect(),
        services: share.services.clone(),
        first_table: first_table.unwrap_or(FIRST_TABLE),
    }
}

/// One of each family for the gateway itself, and one for each network.
fn masquerades(config: &MasqueradeConfig, share: &Share) -> Vec<Masquerade> {
    let mut out = Vec::new();
    for address in &config.addresses {
        let same = |nets: &[IpNet]| {
            nets.iter().filter(|net| net.addr().is_ipv4() == address.is_ipv4()).copied().collect::<Vec<_>>()
        };
        let of = |inside: &[IpNet], except: &[IpNet]| Masquerade {
            inside: same(inside),
            except: same(except),
            address: *address,
            ports: config.ports,
        };
        out.push(of(&config.inside, &config.except));
        out.extend(share.inside.iter().map(|i| of(&i.networks, &i.except)).filter(|m| !m.inside.is_empty()));
    }
    out
}

/// Makes the gateway of a bridge that a configuration asks for, or what is missing of it; what it has too many of its own it
/// takes away. Returns what was done to the host.
///
/// # Errors
/// [`GatewayError`]; what was done until then stays, to be taken away by [`stop`].
pub fn start(datapath: &Datapath, bridge: &str, config: &GatewayConfig) -> Result<Vec<String>, GatewayError> {
    datapath.gateway_state().set_file(datapath, bridge, Some(config))
}

/// Does again what others have undone on the host for any gateway, and returns what that took.
pub fn mend(datapath: &Datapath) -> Vec<Result<String, GatewayError>> {
    let mut done = Vec::new();
    for (bridge, config) in datapath.gateways() {
        let steps = host::apply(&host_side(&config)).and_then(|mut steps| {
            steps.extend(far::apply(&[], &config.share.hops)?.steps);
            Ok(steps)
        });
        match steps {
            Ok(steps) => done.extend(steps.into_iter().map(Ok)),
            Err(source) => done.push(Err(GatewayError::Host { bridge, source })),
        }
    }
    done
}

/// Takes away the gateway that a configuration asked for: its flows, and what is ours on the host. Returns what was done to
/// the host. What networks of containers need of it stays.
///
/// # Errors
/// [`GatewayError`]; the rest is done all the same.
pub fn stop(datapath: &Datapath, bridge: &str) -> Result<Vec<String>, GatewayError> {
    datapath.gateway_state().set_file(datapath, bridge, None)
}

/// What differs on the host from what the gateway asks for, as the steps that would mend it.
///
/// # Errors
/// [`HostError`].
pub fn drift(config: &GatewayConfig) -> Result<Vec<String>, HostError> {
    let mut missing = host::drift(&host_side(config))?;
    missing.extend(far::drift(&config.share.hops)?);
    Ok(missing)
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
