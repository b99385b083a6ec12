//! Routes against oracles: the longest prefix, VRFs, and which flows move between next hops.

use crate::key::{FlowKey, slot};
use crate::port::PortNo;
use crate::router::testing::{Router, config, interface, knowing, route};
use crate::router::{Interface, InterfaceId, Neighbor, NextHop, Route, RouteKind, RouterConfig, RouterState, VrfId};
use crate::verdict::{DropReason, Verdict};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Interfaces 1 to 3 of VRF 0 and 4 to 6 of VRF 1, which have the same addresses; each has two routers as neighbours.
fn interfaces() -> Vec<Interface> {
    let of = |id: u16| {
        let link = (id - 1) % 3 + 1;
        let addresses = [format!("172.16.{link}.1/24"), format!("fd00:{link}::1/64")];
        let mut interface = interface(id, &[&addresses[0], &addresses[1]]);
        interface.vrf = VrfId((id - 1) / 3);
        interface
    };
    (1..=6).map(of).collect()
}

/// Router 2 or 3 on the link of interface `id`.
fn neighbor(id: u16, host: u8, v4: bool) -> IpAddr {
    let link = (id - 1) % 3 + 1;
    match v4 {
        true => IpAddr::V4(Ipv4Addr::new(172, 16, link as u8, host)),
        false => IpAddr::V6(Ipv6Addr::new(0xfd00, link, 0, 0, 0, 0, 0, host.into())),
    }
}

fn known() -> RouterState {
    let all = (1..=6)
        .flat_map(|id| [2, 3].into_iter().flat_map(move |host| [true, false].map(|v4| (id, neighbor(id, host, v4)))));
    let mut state = RouterState::default();
    for (id, address) in all {
        let mac = crate::router::testing::mac_of(id, address);
        state.neighbors.insert((InterfaceId(id), address), Neighbor::Resolved(mac));
    }
    state
}

/// Few bits, so that prefixes nest and addresses meet them.
fn destination() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (any::<u8>(), 0..=12_u8).prop_map(|(bits, len)| {
            let address = Ipv4Addr::from(u32::from(bits) << 20 | 0x0a00_0000);
            IpNet::V4(Ipv4Net::new(address, len).unwrap().trunc())
        }),
        (any::<u8>(), 0..=24_u8).prop_map(|(bits, len)| {
            let address = Ipv6Addr::from(u128::from(bits) << 104 | 0x20 << 120);
            IpNet::V6(Ipv6Net::new(address, len).unwrap().trunc())
        }),
    ]
    .prop_filter("no group", |net| net.prefix_len() == 0 || !net.addr().is_multicast())
}

fn any_route() -> impl Strategy<Value = Route> {
    (0..2_u16, destination(), 0..3_u8, 0..5_u8, 1..=3_u16, 2..4_u8).prop_map(
        |(vrf, destination, distance, kind, link, host)| {
            let (id, v4) = (vrf * 3 + link, destination.addr().is_ipv4());
            let hop = NextHop { interface: InterfaceId(id), via: Some(neighbor(id, host, v4)), weight: 1 };
            let kind = if kind == 0 { RouteKind::Unreachable } else { RouteKind::Unicast };
            let next_hops = if kind == RouteKind::Unicast { vec![hop] } else { Vec::new() };
            Route { vrf: VrfId(vrf), destination, kind, next_hops, distance: distance + 1 }
        },
    )
}

/// Routes without two of one key.
fn routes() -> impl Strategy<Value = Vec<Route>> {
    prop::collection::vec(any_route(), 0..60).prop_map(|all| {
        let keyed: BTreeMap<_, _> = all.into_iter().map(|route| (route.key(), route)).collect();
        keyed.into_values().collect()
    })
}

fn packet(port: u16, dst: IpAddr, mac: u64) -> FlowKey {
    let mut key = FlowKey::ZERO;
    key.set(slot::IN_PORT, port.into());
    key.set(slot::ETH_DST, mac.into());
    key.set(slot::ETH_SRC, 0x0a00_0000_0099);
    key.set(slot::IP_TTL, 64);
    key.set(slot::IP_PROTO, 17);
    match dst {
        IpAddr::V4(dst) => {
            key.set(slot::ETH_TYPE, 0x0800);
            key.set(slot::IP_SRC, 0xc633_6401);
            key.set(slot::IP_DST, u32::from(dst).into());
        }
        IpAddr::V6(dst) => {
            key.set(slot::ETH_TYPE, 0x86dd);
            key.set(slot::IPV6_SRC, 0x2001_0db8 << 96 | 1);
            key.set(slot::IPV6_DST, dst.into());
        }
    }
    key
}

/// Where the packet goes by the rules: none if nowhere.
fn oracle(routes: &[Route], state: &RouterState, vrf: VrfId, dst: IpAddr) -> Option<NextHop> {
    let usable = routes.iter().filter(|route| route.vrf == vrf && route.destination.contains(&dst));
    let usable = usable.filter(|r| r.kind != RouteKind::Unicast || r.next_hops.iter().any(|hop| state.is_alive(hop)));
    let best = usable.max_by_key(|route| (route.destination.prefix_len(), 255 - route.distance))?;
    best.next_hops.first().copied()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn the_longest_prefix_with_a_next_hop_alive_wins_and_vrfs_never_mix(
        routes in routes(),
        targets in prop::collection::vec((any::<u8>(), any::<u8>(), any::<bool>()), 30),
        dead in prop::collection::vec((1..=6_u16, 2..4_u8), 0..4),
        down in prop::collection::vec(1..=6_u16, 0..2),
    ) {
        let mut state = known();
        state.down = down.into_iter().map(InterfaceId).collect();
        for (id, host) in dead {
            state.dead.extend([true, false].map(|v4| (InterfaceId(id), neighbor(id, host, v4))));
        }
        let router = Router::new(config(interfaces(), routes.clone()), state.clone());
        for (high, low, v4) in targets {
            let dst = match v4 {
                true => IpAddr::V4(Ipv4Addr::from(0x0a00_0000 | u32::from(high) << 20 | u32::from(low))),
                false => IpAddr::V6(Ipv6Addr::from(0x20 << 120 | u128::from(high) << 104 | u128::from(low))),
            };
            for id in [1_u16, 4] {
                let vrf = VrfId((id - 1) / 3);
                let want = oracle(&routes, &state, vrf, dst);
                let outcome = router.send_key(&packet(id, dst, 0x0200_0000_0000 | u64::from(id)));
                match want {
                    Some(hop) => {
                        let (port, sent) = outcome.left[0];
                        prop_assert_eq!(outcome.left.len(), 1);
                        prop_assert_eq!(port, hop.interface.0);
                        prop_assert_eq!((port - 1) / 3, vrf.0, "it left by another VRF");
                        let mac = crate::router::testing::mac_of(hop.interface.0, hop.via.unwrap());
                        prop_assert_eq!(sent.get(slot::ETH_DST), u128::from(mac));
                    }
                    None => prop_assert_eq!(outcome.verdict(), Verdict::Drop(DropReason::NoRoute)),
                }
            }
        }
    }
}

/// A router with one route by four next hops, of which the last counts double.
fn spread() -> Router {
    spread_of("r1")
}

fn spread_of(name: &str) -> Router {
    let hops = [(2, "172.16.2.2"), (2, "172.16.2.3"), (3, "172.16.3.2"), (3, "172.16.3.3")];
    let mut route = route("10.0.0.0/8", &hops);
    route.next_hops[3].weight = 2;
    Router::new(RouterConfig { name: name.into(), ..config(interfaces(), vec![route]) }, known())
}

/// The next hop of each of 2000 connections, by its MAC address.
fn ways(router: &Router) -> Vec<u128> {
    let way = |n: u32| {
        let mut key = packet(1, Ipv4Addr::from(0x0a00_0000 | (n % 7)).into(), 0x0200_0000_0001);
        key.set(slot::TP_SRC, (1000 + n).into());
        router.send_key(&key).left[0].1.get(slot::ETH_DST)
    };
    (0..2000).map(way).collect()
}

#[test]
fn connections_are_spread_by_weight_and_only_those_of_a_dead_next_hop_move() {
    let all = spread();
    let before = ways(&all);
    let mut counts: BTreeMap<u128, usize> = BTreeMap::new();
    before.iter().for_each(|mac| *counts.entry(*mac).or_default() += 1);
    let counts: Vec<usize> = counts.into_values().collect();
    assert_eq!(counts.len(), 4);
    // 400 each, and 800 for the last; far from what chance would do in 2000 draws.
    assert!(counts[..3].iter().all(|n| (320..480).contains(n)) && (700..900).contains(&counts[3]), "{counts:?}");
    for (id, host) in [(2, 2), (2, 3), (3, 2), (3, 3)] {
        let gone = neighbor(id, host, true);
        let after = ways(&all.with(|state| _ = state.dead.insert((InterfaceId(id), gone))));
        let dead = u128::from(crate::router::testing::mac_of(id, gone));
        let mut heirs = BTreeSet::new();
        for (old, new) in before.iter().zip(&after) {
            assert_ne!(*new, dead);
            if *old == dead {
                heirs.insert(*new);
            } else {
                assert_eq!(old, new, "a connection of a next hop that lives has moved");
            }
        }
        assert_eq!(heirs.len(), 3, "all that live take over");
    }
}

#[test]
fn routers_in_a_row_choose_independently() {
    let (first, second) = (ways(&spread_of("r1")), ways(&spread_of("r2")));
    let mut pairs: BTreeMap<(u128, u128), usize> = BTreeMap::new();
    first.iter().zip(&second).for_each(|pair| *pairs.entry((*pair.0, *pair.1)).or_default() += 1);
    // Of 2000, 80 are expected where each has weight 1, 160 where one has 2, 320 where both have.
    assert!(pairs.len() == 16 && pairs.values().all(|n| *n > 40), "{pairs:?}");
}

#[test]
fn a_port_that_goes_down_takes_its_next_hops_with_it_at_once() {
    let mut router = spread();
    let before = ways(&router);
    let bridge = router.model.bridges.get_mut(&crate::bridge::BridgeId(0)).unwrap();
    let bridge = std::sync::Arc::make_mut(bridge);
    std::sync::Arc::make_mut(bridge.ports.get_mut(&PortNo(2)).unwrap()).up = false;
    for (old, new) in before.iter().zip(ways(&router)) {
        assert_eq!(new >> 8 & 0xff, 3);
        assert!(old >> 8 & 0xff == 2 || *old == new);
    }
}

#[test]
fn fragments_of_one_packet_take_one_way() {
    let router = spread();
    for id in 0..50 {
        let way = |frag: u8, port: u16| {
            let mut key = packet(1, Ipv4Addr::from(0x0a00_0000 | id).into(), 0x0200_0000_0001);
            key.set(slot::IP_FRAG, frag.into());
            key.set(slot::TP_SRC, port.into());
            router.send_key(&key).left[0].1.get(slot::ETH_DST)
        };
        assert_eq!(way(1, 1234), way(3, 0), "the first fragment has ports, the others have none");
    }
}

#[test]
fn routes_by_the_same_next_hops_share_a_group() {
    let hops = [(2, "172.16.2.2"), (3, "172.16.3.2")];
    let turned = [hops[1], hops[0]];
    let routes = vec![route("10.0.0.0/8", &hops), route("11.0.0.0/8", &turned), route("12.0.0.0/8", &hops[..1])];
    let router = Router::new(config(interfaces(), routes), known());
    assert_eq!(router.model.bridge_named("r1").unwrap().groups.len(), 1);
    let only = router.with(|state| _ = state.down.insert(InterfaceId(3)));
    assert_eq!(only.model.bridge_named("r1").unwrap().groups.values().next().unwrap().buckets.len(), 1);
    let none = only.with(|state| _ = state.down.insert(InterfaceId(2)));
    let key = packet(1, "10.1.1.1".parse().unwrap(), 0x0200_0000_0001);
    assert_eq!(none.send_key(&key).verdict(), Verdict::Drop(DropReason::NoRoute));
}

#[test]
fn a_next_hop_on_the_link_is_the_destination() {
    let interfaces = vec![interface(1, &["10.0.1.1/24"]), interface(2, &["10.0.2.1/24"])];
    let router = Router::new(config(interfaces, Vec::new()), knowing(&[(2, "10.0.2.9")]));
    let outcome = router.send_key(&packet(1, "10.0.2.9".parse().unwrap(), 0x0200_0000_0001));
    assert_eq!(outcome.left[0].0, 2);
    let down = router.with(|state| _ = state.down.insert(InterfaceId(2)));
    let outcome = down.send_key(&packet(1, "10.0.2.9".parse().unwrap(), 0x0200_0000_0001));
    assert_eq!(outcome.verdict(), Verdict::Drop(DropReason::NoRoute));
}
