//! The addresses and ports that clients of a Service use, and what the host has to do so that they reach the switch.
//!
//! | address | clients inside the cluster get | clients outside get |
//! |---|---|---|
//! | the Service's own | by its internal traffic policy | the same |
//! | node port, external address, load balancer's address | all endpoints | by its external traffic policy |
//!
//! An external address that is no node's is routed to the switch as a whole. Of one that is a node's only the Service's ports are led
//! there, each by the host's own translation: everything else at that address goes on as it was. Node ports that are kept to some
//! addresses are such ports too.

use super::read::{Port, Spec};
use super::{Here, Published, PublishedPort};
use crate::facts::{Frontend, Scope};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The frontends of one port for one family, sorted, each address and port once.
pub(super) fn frontends(spec: &Spec<'_>, port: &Port<'_>, cluster_ip: IpAddr, here: &Here) -> Vec<Frontend> {
    let v6 = cluster_ip.is_ipv6();
    let internal = if spec.internal_local() { Scope::Local } else { Scope::Cluster };
    let external = if spec.external_local() { Scope::Local } else { Scope::Cluster };
    let mut all = BTreeMap::new();
    let mut add = |at: (IpAddr, u16), inside, outside, sources: &[IpNet]| {
        all.entry(at).or_insert_with(|| Frontend {
            address: at.0,
            port: at.1,
            inside,
            outside: Some(outside),
            sources: sources.to_vec(),
        });
    };
    add((cluster_ip, port.port), internal, internal, &[]);
    for at in node_ports(port, v6, here).iter().filter_map(|port| here.incoming(port)) {
        add(at, Scope::Cluster, external, &[]);
    }
    // A load balancer's address comes before an external one that is the same: the narrower one holds.
    let sources = spec.sources(v6);
    let balanced = spec.balanced(v6).into_iter().map(|address| (address, sources.as_slice()));
    let external_ips = spec.external(v6).into_iter().map(|address| (address, [].as_slice()));
    for (address, sources) in balanced.chain(external_ips) {
        add((address, port.port), Scope::Cluster, external, sources);
        if let Some(at) = here.incoming(&address_port(port, address)).filter(|_| here.is_node(address)) {
            add(at, Scope::Cluster, external, sources);
        }
    }
    all.into_values().collect()
}

/// What the host has to do for a Service.
pub(super) fn published(spec: &Spec<'_>, here: &Here) -> Published {
    let mut published = Published::default();
    let ports = spec.ports();
    for (v6, cluster_ip) in spec.families() {
        for port in &ports {
            published.ports.extend(node_ports(port, v6, here));
        }
        for address in spec.external(v6).into_iter().chain(spec.balanced(v6)) {
            if here.is_node(address) {
                published.ports.extend(ports.iter().map(|port| address_port(port, address)));
            } else if address != cluster_ip {
                published.routes.insert(address);
            }
        }
    }
    published
}

/// The node port of a port: one of all addresses of the host, or one of each of those that answer to node ports.
fn node_ports(port: &Port<'_>, v6: bool, here: &Here) -> Vec<PublishedPort> {
    let Some(number) = port.node_port else { return Vec::new() };
    let at = |address| PublishedPort { protocol: port.protocol, address, v6, port: number };
    match here.node_port_addresses.get(&v6) {
        None => vec![at(None)],
        Some(addresses) => addresses.iter().map(|address| at(Some(*address))).collect(),
    }
}

/// A port of one address of the host.
fn address_port(port: &Port<'_>, address: IpAddr) -> PublishedPort {
    PublishedPort { protocol: port.protocol, address: Some(address), v6: address.is_ipv6(), port: port.port }
}
