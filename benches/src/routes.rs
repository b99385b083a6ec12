//! Routing tables of the shape that the Internet's have, and packets for them.

use ipnet::IpNet;
use sluice_flows::PortNo;
use sluice_flows::key::{FlowKey, slot};
use sluice_flows::router::{Interface, InterfaceId, NextHop, Route, RouteKind, RouterConfig, VRF, Vrf, VrfId};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Interfaces of the router; each has some routers behind it.
const INTERFACES: u16 = 8;
/// Routers on the link of an interface.
const ROUTERS: u64 = 8;

/// Random numbers (SplitMix64), the same in every run.
pub struct Draws(u64);

impl Draws {
    /// From this seed on.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }
}

/// A router with [`INTERFACES`] interfaces and `count` routes, a fifth of them of IPv6. Of the lengths of prefixes more
/// than half are /24, as among the routes of the Internet (and /48 for IPv6), the others spread from /8 to /32 (/20 to
/// /64).
pub fn router(count: usize) -> RouterConfig {
    let interfaces = (1..=INTERFACES).map(|id| Interface {
        id: InterfaceId(id),
        name: format!("eth{id}"),
        port: PortNo(id),
        vlan: None,
        vrf: VrfId(0),
        mac: 0x0200_0000_0000 | u64::from(id),
        addresses: [format!("172.31.{id}.1/24"), format!("fd00:{id}::1/64")].iter().flat_map(|a| a.parse()).collect(),
        mtu: 1500,
        proxied: Vec::new(),
        layer3: false,
        ra: None,
    });
    let (mut draws, mut keys, mut routes) = (Draws::new(1), HashSet::new(), Vec::with_capacity(count));
    while routes.len() < count {
        let route = route(&mut draws);
        let unused = !route.destination.addr().is_multicast() && route.destination.trunc() == route.destination;
        if unused && keys.insert(route.key()) {
            routes.push(route);
        }
    }
    RouterConfig {
        name: "bench".into(),
        vrfs: vec![Vrf { name: "main".into(), id: VrfId(0) }],
        interfaces: interfaces.collect(),
        routes,
        neighbors: Vec::new(),
    }
}

fn route(draws: &mut Draws) -> Route {
    let (bits, kind) = (draws.draw(), draws.draw());
    let id = 1 + (kind >> 8) as u16 % INTERFACES;
    let router = 2 + (kind >> 16) % ROUTERS;
    let usual = kind >> 32 & 0xff < 150;
    let (address, len, via) = if kind % 5 == 0 {
        // 2000::/4, with the rest at random as far as prefixes reach.
        let address = Ipv6Addr::from(0x2 << 124 | u128::from(bits >> 4) << 64);
        let via = Ipv6Addr::new(0xfd00, id, 0, 0, 0, 0, 0, router as u16);
        (IpAddr::V6(address), if usual { 48 } else { 20 + (kind >> 40) as u8 % 45 }, IpAddr::V6(via))
    } else {
        let via = Ipv4Addr::new(172, 31, id as u8, router as u8);
        let len = if usual { 24 } else { 8 + (kind >> 40) as u8 % 25 };
        (IpAddr::V4(Ipv4Addr::from(bits as u32)), len, IpAddr::V4(via))
    };
    let destination = IpNet::new(address, len).unwrap_or_default().trunc();
    let next_hops = vec![NextHop { interface: InterfaceId(id), via: Some(via), weight: 1 }];
    Route { vrf: VrfId(0), destination, kind: RouteKind::Unicast, next_hops, distance: 20 }
}

/// Packets as the Route stage sees them: most to an address that some route leads to, some to any.
pub fn packets(config: &RouterConfig, count: usize) -> Vec<FlowKey> {
    let mut draws = Draws::new(2);
    let packet = |_| {
        let (n, host) = (draws.draw(), u128::from(draws.draw()) << 64 | u128::from(draws.draw()));
        let route = config.routes.get(n as usize % config.routes.len().max(1));
        let mut key = FlowKey::ZERO;
        key.set(VRF.field.slot(), 0);
        match route.map(|route| route.destination).filter(|_| n >> 60 != 0) {
            Some(IpNet::V6(net)) => {
                let host = host & u128::from(net.hostmask());
                key.set(slot::ETH_TYPE, 0x86dd);
                key.set(slot::IPV6_DST, u128::from(net.network()) | host);
            }
            Some(IpNet::V4(net)) => {
                let host = host as u32 & u32::from(net.hostmask());
                key.set(slot::ETH_TYPE, 0x0800);
                key.set(slot::IP_DST, (u32::from(net.network()) | host).into());
            }
            None => {
                key.set(slot::ETH_TYPE, 0x0800);
                key.set(slot::IP_DST, host & 0xffff_ffff);
            }
        }
        key
    };
    (0..count).map(packet).collect()
}
