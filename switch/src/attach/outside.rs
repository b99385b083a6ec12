//! How containers reach the outside, and the outside reaches them.
//!
//! From all networks of the switch and all host ports of their containers follows what gateways its bridges have, and what
//! the host sends to them. [`apply`] makes it so, and does only what differs from before; [`check`] tells what differs on the
//! host by now, and mends nothing. What gateways are, and how they are made, is [`host`](crate::host)'s.
//!
//! # Rules
//! - A host port without an address is one of all of the host's addresses, of each family that the container has an address
//!   and its network a gateway of.
//! - Of one that is of a single address, and of one that is of all, the first wins for its address.

use super::spec::{NetworkSpec, PortMapping, Protocol};
use crate::Datapath;
use crate::host::gateway::GatewayError;
use crate::host::{HostPort, NetworkGateway, NetworkPort, apply_networks, check_networks};
use ipnet::IpNet;
use sluice_flows::field::{IP_PROTO_SCTP, IP_PROTO_TCP, IP_PROTO_UDP};
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
    };
    networks.iter().map(of).collect()
}

fn ports(networks: &[NetworkSpec], published: &[Published]) -> Result<Vec<NetworkPort>, OutsideError> {
    let mut out = Vec::new();
    for port in published {
        let gateway = networks.iter().find(|network| network.name == port.network).map(|n| n.gateway.as_slice());
        let before = out.len();
        out.extend([true, false].into_iter().filter_map(|v4| of_family(port, gateway.unwrap_or_default(), v4)));
        if out.len() == before {
            return Err(OutsideError::Nowhere {
                port: port.mapping.host_port,
                protocol: port.mapping.protocol,
                owner: port.owner.clone(),
                why: "the container has no address of the family asked for with a gateway in its network",
            });
        }
    }
    Ok(out)
}

fn of_family(port: &Published, gateway: &[IpNet], v4: bool) -> Option<NetworkPort> {
    let mapping = &port.mapping;
    let same = |address: &IpAddr| address.is_ipv4() == v4;
    if mapping.host_address.is_some_and(|address| !same(&address)) || !gateway.iter().any(|net| same(&net.addr())) {
        return None;
    }
    Some(NetworkPort {
        network: port.network.clone(),
        owner: port.owner.clone(),
        port: HostPort {
            v6: !v4,
            address: mapping.host_address.filter(|address| !address.is_unspecified()),
            protocol: match mapping.protocol {
                Protocol::Tcp => IP_PROTO_TCP,
                Protocol::Udp => IP_PROTO_UDP,
                Protocol::Sctp => IP_PROTO_SCTP,
            },
            port: mapping.host_port,
        },
        to: port.addresses.iter().map(IpNet::addr).find(same)?,
        to_port: mapping.container_port,
        mac: port.mac,
    })
}
