//! How containers reach the outside, and the outside reaches them.
//!
//! From all networks of the switch and all host ports of their containers follows what gateways its bridges have, and what
//! the host sends to them. [`apply`] makes it so, and does only what differs from before; [`check`] tells what differs on the
//! host by now, and mends nothing. What gateways are, and how they are made, is [`host`](crate::host)'s.
//!
//! # Rules
//! - A host port without an address is one of all of the host's addresses, of each family that the container has an address
//!   and its network a gateway of.
//! - A service port that is a container's host port too is that container's; so it is after a restart as well.
//! - Of one that is of a single address, and of one that is of all, the first wins for its address.

use super::spec::{AttachmentKey, NetworkSpec, PortMapping, Protocol, ServicePort};
use crate::Datapath;
use crate::host::gateway::GatewayError;
use crate::host::{HostPort, Leads, NetworkGateway, NetworkLink, NetworkPort, apply_networks, check_networks};
use ipnet::IpNet;
use sluice_flows::field::{IP_PROTO_SCTP, IP_PROTO_TCP, IP_PROTO_UDP};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use thiserror::Error;

/// A port of the host that leads to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    /// Which port leads to which.
    pub(crate) mapping: PortMapping,
    /// Whose it is, in words for whoever wants the same one: the attachment's key.
    pub(crate) owner: String,
    /// The name of the network that the container is reached by.
    pub(crate) network: String,
    /// The container's addresses there; the first of each family is used.
    pub(crate) addresses: Vec<IpNet>,
    /// The container's hardware address there.
    pub(crate) mac: [u8; 6],
}

/// Why containers cannot reach the outside, or the outside not them.
#[derive(Debug, Error)]
pub(crate) enum OutsideError {
    /// A gateway or the host's side of host ports cannot be made, or what is asked for does not go together.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// A host port that leads nowhere.
    #[error("host port {port}/{protocol} of {owner}: {why}")]
    Nowhere {
        /// The host's port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
        /// Whose it is.
        owner: String,
        /// Why it leads nowhere.
        why: &'static str,
    },
}

/// Makes what all of `networks` and `published` need, and takes away what they do not need any more. A second call does
/// nothing. After an error it is to be called again with what was before.
///
/// # Errors
/// [`OutsideError`] for the first thing that cannot be done.
pub(crate) fn apply(
    datapath: &Datapath,
    networks: &[NetworkSpec],
    published: &[Published],
) -> Result<(), OutsideError> {
    let ports = ports(networks, published)?;
    for step in apply_networks(datapath, gateways(networks), ports)? {
        tracing::info!("gateway: {step}");
    }
    Ok(())
}

/// What differs on the host from what [`apply`] would make, in words; empty if nothing does. Looks at the gateways of
/// `networks` alone.
pub(crate) fn check(datapath: &Datapath, networks: &[NetworkSpec], published: &[Published]) -> Vec<String> {
    match ports(networks, published) {
        Ok(ports) => check_networks(datapath, gateways(networks), ports),
        Err(error) => vec![error.to_string()],
    }
}

fn gateways(networks: &[NetworkSpec]) -> Vec<NetworkGateway> {
    let of = |network: &NetworkSpec| NetworkGateway {
        name: network.name.clone(),
        bridge: network.bridge.clone(),
        vlan: network.vlan,
        addresses: network.gateway.clone(),
        masquerade: network.masquerade.iter().map(IpNet::trunc).collect(),
        except: network.masquerade_except.iter().map(IpNet::trunc).collect(),
        mtu: network.mtu,
        internal: network.internal,
        routes: network.routes.iter().filter(|route| route.via.is_none()).map(|route| route.to).collect(),
        hops: network.routes.iter().filter_map(|route| Some((route.to, route.via?))).collect(),
        steered: network.confirm,
    };
    networks.iter().map(of).collect()
}

fn ports(networks: &[NetworkSpec], published: &[Published]) -> Result<Vec<NetworkPort>, OutsideError> {
    let mut out: Vec<NetworkPort> = Vec::new();
    for port in published {
        let network = networks.iter().find(|network| network.name == port.network);
        let before = out.len();
        out.extend([true, false].into_iter().filter_map(|v4| of_family(port, network?, v4)));
        if out.len() == before {
            return Err(OutsideError::Nowhere {
                port: port.mapping.host_port,
                protocol: port.mapping.protocol,
                owner: port.owner.clone(),
                why: "the container has no address of the family asked for with a gateway in its network",
            });
        }
    }
    let held: HashSet<HostPort> = out.iter().map(|port| port.port).collect();
    for network in networks {
        for service in &network.service_ports {
            let port = HostPort {
                v6: service.v6,
                address: service.address,
                protocol: number(service.protocol),
                port: service.port,
            };
            if held.contains(&port) {
                tracing::warn!(network = network.name, %port, "no service port: it is a container's host port");
                continue;
            }
            let owner = format!("network {}", network.name);
            out.push(NetworkPort { network: network.name.clone(), owner, port, leads: None });
        }
    }
    Ok(out)
}

/// The protocol's number in IP.
const fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => IP_PROTO_TCP,
        Protocol::Udp => IP_PROTO_UDP,
        Protocol::Sctp => IP_PROTO_SCTP,
    }
}

/// The protocol of a number in IP.
const fn protocol(number: u8) -> Option<Protocol> {
    match number {
        IP_PROTO_TCP => Some(Protocol::Tcp),
        IP_PROTO_UDP => Some(Protocol::Udp),
        IP_PROTO_SCTP => Some(Protocol::Sctp),
        _ => None,
    }
}

/// The ports of the host that a mapping asks for in a network, one for each family that container and gateway have.
fn of_family(port: &Published, spec: &NetworkSpec, v4: bool) -> Option<NetworkPort> {
    let mapping = &port.mapping;
    let to = port.addresses.iter().map(IpNet::addr).find(|address| address.is_ipv4() == v4)?;
    // Where a controller decides, the gateway's own flows would be in its way.
    let leads = (!spec.confirm).then_some(Leads { to, port: mapping.container_port, mac: port.mac });
    let (network, owner) = (port.network.clone(), port.owner.clone());
    Some(NetworkPort { network, owner, port: host_port(mapping, spec, v4)?, leads })
}

/// The port of the host of one family that a mapping asks for, if the network has a gateway of that.
fn host_port(mapping: &PortMapping, network: &NetworkSpec, v4: bool) -> Option<HostPort> {
    let same = |address: &IpAddr| address.is_ipv4() == v4;
    let has = network.gateway.iter().any(|net| same(&net.addr()));
    if mapping.host_address.is_some_and(|address| !same(&address)) || !has {
        return None;
    }
    Some(HostPort {
        v6: !v4,
        address: mapping.host_address.filter(|address| !address.is_unspecified()),
        protocol: number(mapping.protocol),
        port: mapping.host_port,
    })
}

/// A port of the host, where it arrives, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IncomingPort {
    /// The port of the host.
    pub(crate) port: ServicePort,
    /// The port of the incoming address.
    pub(crate) number: u16,
    /// The attachment's key and its port; none for a service port.
    pub(crate) mapping: Option<(AttachmentKey, u16)>,
}

/// What somebody who makes flows for a network has to know of its gateway, if it has one, and its ports of the host.
pub(crate) fn of_network(datapath: &Datapath, network: &NetworkSpec) -> Option<(NetworkLink, Vec<IncomingPort>)> {
    let link = datapath.gateway_state().of_network(&network.name)?;
    let records = datapath.attachments().list(Some(&network.name));
    let mut owners = HashMap::new();
    for record in &records {
        for mapping in &record.spec.port_mappings {
            for port in [true, false].into_iter().filter_map(|v4| host_port(mapping, network, v4)) {
                owners.insert(port, (record.spec.key.clone(), mapping.container_port));
            }
        }
    }
    let incoming = |(port, number): &(HostPort, u16)| {
        let mapping = owners.remove(port);
        let protocol = protocol(port.protocol)?;
        let port = ServicePort { protocol, address: port.address, port: port.port, v6: port.v6 };
        Some(IncomingPort { port, number: *number, mapping })
    };
    let ports = link.ports.iter().filter_map(incoming).collect();
    Some((link, ports))
}
