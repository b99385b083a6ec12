//! How nodes reach each other: which address, which interface, how long packets may be, and which way for each peer.

use super::host::HostAddress;
use crate::config::{Config, Mode};
use crate::facts::{Peer, Way};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use std::net::IpAddr;

/// The annotation of a node whose traffic to other nodes takes addresses that the Node object does not have: with commas between, at
/// most one of each family counts.
pub(super) const TRANSPORT_ADDRESSES: &str = "sluice.network/transport-addresses";
/// Bytes that a tunnel puts in front of a packet over IPv4: IP 20, UDP 8, Geneve or VXLAN 8, Ethernet 14.
const OVERHEAD_V4: u16 = 50;
/// The same over IPv6, whose header is 40 bytes.
const OVERHEAD_V6: u16 = 70;

/// What the node is to the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Transport {
    /// Its address.
    pub(super) address: IpAddr,
    /// The interface with that address and its subnet; none if no interface has it, as behind a translation.
    pub(super) interface: Option<(String, IpNet)>,
    /// The subnets of all addresses of the host.
    pub(super) subnets: Vec<IpNet>,
}

/// The networks of a node's Pods, at most one of each family.
#[must_use]
pub(super) fn pod_cidrs(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let texts = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
    let mut all: Vec<IpNet> = Vec::new();
    for network in texts.filter_map(|text| text.parse::<IpNet>().ok()) {
        let is_v6 = network.addr().is_ipv6();
        if all.iter().all(|there| there.addr().is_ipv6() != is_v6) {
            all.push(network.trunc());
        }
    }
    all
}

/// The first address of a network: the gateway of its Pods. None for a network of a single address.
#[must_use]
pub(super) fn gateway(network: &IpNet) -> Option<IpNet> {
    let address = match network {
        IpNet::V4(v4) if v4.prefix_len() < 31 => IpAddr::from((u32::from(v4.network()) + 1).to_be_bytes()),
        IpNet::V6(v6) if v6.prefix_len() < 127 => IpAddr::from((u128::from(v6.network()) + 1).to_be_bytes()),
        _ => return None,
    };
    IpNet::new(address, network.prefix_len()).ok()
}

/// The addresses that the annotation of a node names; what is no address there is passed over.
fn annotated(node: &Node) -> Vec<IpAddr> {
    let text = node.metadata.annotations.as_ref().and_then(|all| all.get(TRANSPORT_ADDRESSES));
    text.into_iter().flat_map(|text| text.split(',')).filter_map(|address| address.trim().parse().ok()).collect()
}

/// The addresses of a node that other nodes may use, the best first: those of the annotation [`TRANSPORT_ADDRESSES`] if it has any,
/// else internal ones, then external ones, and of these only those in `transport_cidrs` if there are any.
#[must_use]
pub(super) fn node_addresses(node: &Node, config: &Config) -> Vec<IpAddr> {
    let annotated = annotated(node);
    if !annotated.is_empty() {
        return annotated;
    }
    let cidrs = &config.transport_cidrs;
    let is_allowed = |address: &IpAddr| cidrs.is_empty() || cidrs.iter().any(|cidr| cidr.contains(address));
    reported(node).into_iter().filter(is_allowed).collect()
}

/// What the Node object says: internal addresses, then external ones.
pub(super) fn reported(node: &Node) -> Vec<IpAddr> {
    let all = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    let of = |kind: &'static str| {
        let all = all.into_iter().flatten().filter(move |address| address.type_ == kind);
        all.filter_map(|address| address.address.parse::<IpAddr>().ok())
    };
    of("InternalIP").chain(of("ExternalIP")).collect()
}

/// Every address of a node.
pub(super) fn all_addresses(node: &Node) -> impl Iterator<Item = IpAddr> {
    annotated(node).into_iter().chain(reported(node))
}

impl Transport {
    /// What `node`, which we are on, is to the others.
    ///
    /// # Errors
    /// Why there is no address, in words.
    pub(super) fn find(node: &Node, host: &[HostAddress], config: &Config) -> Result<Self, String> {
        let addresses = node_addresses(node, config);
        let at = |address: &IpAddr| host.iter().find(|there| there.address.addr() == *address);
        let found = match &config.transport_interface {
            Some(name) => {
                addresses.iter().find(|address| at(address).is_some_and(|there| there.interface == *name)).ok_or_else(
                    || format!("none of the node's addresses {addresses:?} is on transport_interface {name}"),
                )?
            }
            // An address that an interface has is better than one that none has.
            None => addresses.iter().find(|address| at(address).is_some()).or(addresses.first()).ok_or_else(|| {
                let all = node_addresses(node, &Config::default());
                match all.is_empty() {
                    true => "the Node has no InternalIP; its kubelet tells the cluster (--node-ip)".to_owned(),
                    false => format!(
                        "none of the Node's addresses {all:?} is in transport_cidrs {:?}; mend that key in the configuration",
                        config.transport_cidrs
                    ),
                }
            })?,
        };
        let interface = at(found).map(|there| (there.interface.clone(), there.address.trunc()));
        let subnets = host.iter().map(|there| there.address.trunc()).collect();
        Ok(Self { address: *found, interface, subnets })
    }

    /// The MTU of Pods in bytes, `link` being that of the transport interface.
    #[must_use]
    pub(super) fn mtu(&self, link: u16, config: &Config) -> u16 {
        let overhead = match (config.mode, self.address) {
            (Mode::NoEncap, _) => 0,
            (_, IpAddr::V4(_)) => OVERHEAD_V4,
            (_, IpAddr::V6(_)) => OVERHEAD_V6,
        };
        config.mtu.unwrap_or_else(|| link.saturating_sub(overhead))
    }

    fn is_neighbour(&self, address: IpAddr) -> bool {
        self.subnets.iter().any(|subnet| subnet.contains(&address))
    }

    /// How the Pods' network `cidr` of a node with these addresses is reached, and the route that the host needs for that.
    fn way(&self, cidr: IpNet, addresses: &[IpAddr], mode: Mode) -> Option<(Way, Option<Route>)> {
        let of_family = |v6: bool| addresses.iter().copied().find(|address| address.is_ipv6() == v6);
        let direct = of_family(cidr.addr().is_ipv6());
        let by_host = match mode {
            Mode::Encap => None,
            Mode::NoEncap => Some(direct.filter(|address| self.is_neighbour(*address))),
            Mode::Hybrid => direct.filter(|address| self.is_neighbour(*address)).map(Some),
        };
        if let Some(via) = by_host {
            // Without a neighbour to send to, the network between the nodes has the route, and the host its default one.
            return Some((Way::Host, via.map(|via| Route { to: cidr, via: Some(via) })));
        }
        let end = of_family(self.address.is_ipv6())?;
        Some((Way::Tunnel(end), Some(Route { to: cidr, via: None })))
    }

    /// What another node is to this one, with the routes of the host that lead to its Pods.
    #[must_use]
    pub(super) fn peer(&self, name: &str, node: &Node, config: &Config) -> (Peer, Vec<Route>) {
        let addresses = node_addresses(node, config);
        let mut routes = Vec::new();
        let mut cidrs = Vec::new();
        for cidr in pod_cidrs(node) {
            let Some((way, route)) = self.way(cidr, &addresses, config.mode) else { continue };
            cidrs.push((cidr, way));
            routes.extend(route);
        }
        (Peer { name: name.to_owned(), addresses: all_addresses(node).collect(), pod_cidrs: cidrs }, routes)
    }
}

/// A route of the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Route {
    /// Where it leads.
    pub(super) to: IpNet,
    /// The next hop; none for the switch.
    pub(super) via: Option<IpAddr>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, cidrs: &[&str], addresses: &[&str]) -> Node {
        let addresses: Vec<_> =
            addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"podCIDR": cidrs.first(), "podCIDRs": cidrs},
            "status": {"addresses": addresses},
        }))
        .unwrap()
    }

    fn host() -> Vec<HostAddress> {
        let at = |interface: &str, address: &str| HostAddress {
            interface: interface.to_owned(),
            address: address.parse().unwrap(),
        };
        vec![at("eth0", "172.30.0.11/24"), at("eth0", "fd00:30::11/64"), at("eth1", "192.0.2.1/24")]
    }

    fn config(mode: Mode) -> Config {
        Config { mode, ..Config::default() }
    }

    fn here(config: &Config) -> Transport {
        let own = node("n1", &[], &["172.30.0.11", "fd00:30::11"]);
        Transport::find(&own, &host(), config).unwrap()
    }

    /// The ways and routes to a dual-stack peer with these addresses, as text.
    fn peer(mode: Mode, addresses: &[&str]) -> (Vec<String>, Vec<String>) {
        let config = config(mode);
        let there = node("n2", &["10.244.1.0/24", "fd00:244:0:1::/64"], addresses);
        let (peer, routes) = here(&config).peer("n2", &there, &config);
        let ways = peer.pod_cidrs.iter().map(|(cidr, way)| match way {
            Way::Tunnel(end) => format!("{cidr} tunnel {end}"),
            Way::Host => format!("{cidr} host"),
        });
        let routes = routes.iter().map(|route| match route.via {
            Some(via) => format!("{} via {via}", route.to),
            None => format!("{} switch", route.to),
        });
        (ways.collect(), routes.collect())
    }

    #[test]
    fn in_a_tunnel_both_families_go_to_one_address() {
        let (ways, routes) = peer(Mode::Encap, &["172.30.0.12", "fd00:30::12"]);
        assert_eq!(ways, ["10.244.1.0/24 tunnel 172.30.0.12", "fd00:244:0:1::/64 tunnel 172.30.0.12"]);
        assert_eq!(routes, ["10.244.1.0/24 switch", "fd00:244:0:1::/64 switch"]);
    }

    #[test]
    fn without_a_tunnel_each_family_goes_by_a_neighbour_of_its_own() {
        let (ways, routes) = peer(Mode::NoEncap, &["172.30.0.12", "fd00:30::12"]);
        assert_eq!(ways, ["10.244.1.0/24 host", "fd00:244:0:1::/64 host"]);
        assert_eq!(routes, ["10.244.1.0/24 via 172.30.0.12", "fd00:244:0:1::/64 via fd00:30::12"]);
        let (ways, routes) = peer(Mode::NoEncap, &["172.31.0.12"]);
        assert_eq!((ways.len(), routes.len()), (2, 0), "the network between has the routes");
    }

    #[test]
    fn hybrid_takes_the_tunnel_only_to_other_subnets() {
        let (ways, routes) = peer(Mode::Hybrid, &["172.30.0.12"]);
        assert_eq!(ways, ["10.244.1.0/24 host", "fd00:244:0:1::/64 tunnel 172.30.0.12"]);
        assert_eq!(routes, ["10.244.1.0/24 via 172.30.0.12", "fd00:244:0:1::/64 switch"]);
        let (ways, _) = peer(Mode::Hybrid, &["172.31.0.12"]);
        assert_eq!(ways, ["10.244.1.0/24 tunnel 172.31.0.12", "fd00:244:0:1::/64 tunnel 172.31.0.12"]);
    }

    #[test]
    fn a_peer_without_an_address_of_the_family_cannot_be_reached() {
        assert_eq!(peer(Mode::Encap, &["fd00:30::12"]), (vec![], vec![]));
        assert_eq!(peer(Mode::Encap, &[]), (vec![], vec![]));
    }

    #[test]
    fn the_mtu_is_the_links_less_the_headers() {
        for (mode, address, wanted) in [
            (Mode::Encap, "172.30.0.11", 1450),
            (Mode::Hybrid, "172.30.0.11", 1450),
            (Mode::Encap, "fd00:30::11", 1430),
            (Mode::NoEncap, "172.30.0.11", 1500),
        ] {
            let config = config(mode);
            let transport = Transport::find(&node("n", &[], &[address]), &host(), &config).unwrap();
            assert_eq!(transport.interface.as_ref().unwrap().0, "eth0");
            assert_eq!(transport.mtu(1500, &config), wanted, "{mode} {address}");
            assert_eq!(transport.mtu(1500, &Config { mtu: Some(1400), ..config }), 1400);
        }
    }

    #[test]
    fn interface_and_networks_choose_the_address() {
        let own = node("n1", &[], &["203.0.113.1", "172.30.0.11", "192.0.2.1"]);
        let found =
            |config: Config| Transport::find(&own, &host(), &config).map(|transport| transport.address.to_string());
        assert_eq!(found(Config::default()).unwrap(), "172.30.0.11", "one that an interface has");
        let eth1 = Config { transport_interface: Some("eth1".to_owned()), ..Config::default() };
        assert_eq!(found(eth1).unwrap(), "192.0.2.1");
        let cidrs = |text: &str| Config { transport_cidrs: vec![text.parse().unwrap()], ..Config::default() };
        assert_eq!(found(cidrs("192.0.2.0/24")).unwrap(), "192.0.2.1");
        assert_eq!(
            found(cidrs("203.0.113.0/24")).unwrap(),
            "203.0.113.1",
            "no interface has it, as behind a translation"
        );
        assert!(found(cidrs("10.0.0.0/8")).unwrap_err().contains("is in transport_cidrs [10.0.0.0/8]"));
        let none = Config { transport_interface: Some("eth7".to_owned()), ..Config::default() };
        assert!(found(none).unwrap_err().contains("transport_interface eth7"));
    }

    #[test]
    fn an_annotation_takes_the_place_of_the_nodes_addresses_for_the_node_and_its_peers() {
        let config = config(Mode::Encap);
        let mut own = node("n1", &[], &["172.30.0.11"]);
        let annotation = [(TRANSPORT_ADDRESSES.to_owned(), "nonsense, 192.0.2.1,fd00:30::11".to_owned())];
        own.metadata.annotations = Some(annotation.into());
        let transport = Transport::find(&own, &host(), &config).unwrap();
        assert_eq!(transport.address.to_string(), "192.0.2.1");
        assert_eq!(transport.interface.as_ref().unwrap().0, "eth1");
        let mut there = node("n2", &["10.244.1.0/24"], &["172.30.0.12"]);
        there.metadata.annotations = Some([(TRANSPORT_ADDRESSES.to_owned(), "192.0.2.2".to_owned())].into());
        let (peer, _) = transport.peer("n2", &there, &config);
        assert_eq!(peer.pod_cidrs[0].1, Way::Tunnel("192.0.2.2".parse().unwrap()));
        there.metadata.annotations = Some([(TRANSPORT_ADDRESSES.to_owned(), "none".to_owned())].into());
        assert_eq!(node_addresses(&there, &config), ["172.30.0.12".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn the_gateway_is_the_first_address() {
        for (network, wanted) in [
            ("10.244.3.0/24", Some("10.244.3.1/24")),
            ("fd00:244:0:3::/64", Some("fd00:244:0:3::1/64")),
            ("10.0.0.1/32", None),
            ("255.255.255.254/31", None),
        ] {
            let found = gateway(&network.parse().unwrap()).map(|found| found.to_string());
            assert_eq!(found.as_deref(), wanted);
        }
    }

    #[test]
    fn a_node_has_at_most_one_network_of_each_family() {
        let cidrs = pod_cidrs(&node("n", &["10.0.0.0/24", "x", "fd00::/64", "10.1.0.0/24"], &[]));
        assert_eq!(cidrs.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/24", "fd00::/64"]);
    }
}
