//! What the lab's routers are asked to be, in the words of the switch.

use super::topology::resolved::{Route, Router, RouterInterface};
use sluice_flows::PortNo;
use sluice_flows::bridge::VlanId;
use sluice_flows::router::{Interface, InterfaceId, NextHop, RouteKind, RouterConfig, Vrf, VrfId};
use sluice_switch::router::{ProbeSpec, RouterSpec};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Name of the routing domain of what names none.
const OWN: &str = "default";
/// How often next hops are pinged, in milliseconds.
const PROBE_INTERVAL_MS: u32 = 200;
/// Pings in a row that have to be lost.
const PROBE_LOSSES: u8 = 3;
/// The distance of a static route.
const STATIC: u8 = 1;

/// A router as the switch takes it. The next hops of a route that has several are pinged, so that flows leave one that
/// died.
pub(crate) fn spec(router: &Router) -> RouterSpec {
    let mut probed = BTreeSet::new();
    for route in router.routes.iter().filter(|route| route.via.len() > 1) {
        probed.extend(route.via.iter().map(|via| (interface_to(router, route, via), *via)));
    }
    let probe = |next_hop| ProbeSpec { next_hop, interval_ms: PROBE_INTERVAL_MS, losses: PROBE_LOSSES };
    RouterSpec {
        bridge: router.name.clone(),
        first_table: 0,
        config: config(router),
        probes: probed.into_iter().map(probe).collect(),
    }
}

/// The configuration of a router. Interfaces count from 1 in the order of the file.
fn config(router: &Router) -> RouterConfig {
    let names = vrfs(router);
    let vrf_of = |name: Option<&str>| {
        let index = names.iter().position(|known| *known == name.unwrap_or(OWN));
        VrfId(index.and_then(|index| u16::try_from(index).ok()).unwrap_or_default())
    };
    let interfaces = router.interfaces.iter().zip(1..).map(|(interface, id)| Interface {
        id: InterfaceId(id),
        name: interface.name.clone(),
        port: PortNo(interface.port),
        vlan: interface.tag.and_then(VlanId::new),
        vrf: vrf_of(interface.vrf.as_deref()),
        mac: number(interface),
        addresses: interface.addresses.clone(),
        mtu: u16::try_from(interface.mtu).unwrap_or(u16::MAX),
        proxied: Vec::new(),
        layer3: false,
        ra: None,
    });
    let routes = router.routes.iter().map(|route| sluice_flows::router::Route {
        vrf: vrf_of(route.vrf.as_deref()),
        destination: route.to,
        kind: RouteKind::Unicast,
        next_hops: next_hops(router, route),
        distance: STATIC,
    });
    RouterConfig {
        name: router.name.clone(),
        interfaces: interfaces.collect(),
        routes: routes.collect(),
        vrfs: names.iter().map(|name| Vrf { name: (*name).to_owned(), id: vrf_of(Some(name)) }).collect(),
        neighbors: Vec::new(),
    }
}

/// The names of a router's routing domains, its own first.
fn vrfs(router: &Router) -> Vec<&str> {
    let mut names = vec![OWN];
    for name in router.interfaces.iter().filter_map(|i| i.vrf.as_deref()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The next hops of a route, each by the interface whose network it is in.
fn next_hops(router: &Router, route: &Route) -> Vec<NextHop> {
    let hop = |via: &IpAddr| NextHop { interface: interface_to(router, route, via), via: Some(*via), weight: 1 };
    route.via.iter().map(hop).collect()
}

/// The interface that a next hop is behind.
fn interface_to(router: &Router, route: &Route, via: &IpAddr) -> InterfaceId {
    let near = |interface: &RouterInterface| {
        interface.vrf == route.vrf && interface.addresses.iter().any(|net| net.contains(via))
    };
    // The file was refused if there is none.
    let index = router.interfaces.iter().position(near).unwrap_or_default();
    InterfaceId(u16::try_from(index + 1).unwrap_or(u16::MAX))
}

/// The MAC address as a number.
fn number(interface: &RouterInterface) -> u64 {
    interface.mac.0.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::super::topology;
    use super::*;

    #[test]
    fn interfaces_of_a_trunk_have_tags_and_routes_their_next_hops_interface() {
        let file = "\
lab: a
vlans:
  blue: {id: 10, subnet: 10.0.10.0/24, gateway: r1}
  green: {id: 20, subnet: 10.0.10.0/24, gateway: r1, vrf: two}
switches: {s1: {}}
hosts: {h1: {}}
routers: {r1: {routes: [{to: 10.9.0.0/16, via: [10.0.10.7, 10.0.10.8], vrf: two}]}}
links: [{ends: [h1, s1], access: blue}, {ends: [r1, s1], trunk: [blue, green]}]
";
        let topology = topology::parse(file, "t.yml").map_err(crate::failure::Failure::from).unwrap();
        let config = config(&topology.routers[0]);
        config.check().unwrap();
        let interfaces: Vec<_> = config.interfaces.iter().map(|i| (i.id.0, i.port.0, i.vlan, i.vrf.0, i.mac)).collect();
        let vlan = VlanId::new;
        assert_eq!(interfaces, [(1, 1, vlan(10), 0, 0x0200_0000_0002), (2, 1, vlan(20), 1, 0x0200_0000_0003)]);
        let hops: Vec<_> = config.routes[0].next_hops.iter().map(|hop| hop.interface.0).collect();
        assert_eq!((config.routes[0].vrf, hops), (VrfId(1), vec![2, 2]));
        assert_eq!(config.vrfs[1].name, "two");
    }
}
