//! Routers, routes, neighbours and events as messages.

use crate::api::mac_text;
use crate::router::{NeighborInfo, RouteInfo, RouterEvent as Event, RouterEventKind, RouterInfo, mac_bytes};
use sluice_flows::router::{Interface, InterfaceId, RouterConfig, VrfId};
use sluice_proto::v1::router_event::Kind;
use sluice_proto::v1::{
    DeadNextHop, DuplicateAddress, EventsLost, InterfaceChanged, InterfaceStatus, Neighbor, NeighborChanged, NextHop,
    NextHopChanged, Route, RouteStatus, RouterAdvertisement, RouterCounters, RouterEvent, RouterInterface,
    RouterRemoved, RouterSet, RouterStatus,
};
use std::time::UNIX_EPOCH;

fn interface_name(config: &RouterConfig, id: InterfaceId) -> String {
    config.interface(id).map_or_else(|| id.to_string(), |interface| interface.name.clone())
}

fn vrf_name(config: &RouterConfig, id: VrfId) -> String {
    config.vrf(id).map_or_else(|| id.to_string(), |vrf| vrf.name.clone())
}

/// A router as it is.
pub(super) fn router(info: &RouterInfo) -> RouterStatus {
    let config = &info.spec.config;
    let counters = info.counters;
    RouterStatus {
        name: config.name.clone(),
        bridge: info.spec.bridge.clone(),
        vrfs: config.vrfs.iter().map(|vrf| vrf.name.clone()).collect(),
        interfaces: config
            .interfaces
            .iter()
            .map(|i| InterfaceStatus { interface: Some(interface(info, i)), up: !info.down.contains(&i.id) })
            .collect(),
        routes: info.routes as u64,
        neighbors: info.neighbors as u64,
        dead: info
            .dead
            .iter()
            .map(|(id, address)| DeadNextHop { interface: interface_name(config, *id), address: address.to_string() })
            .collect(),
        counters: Some(RouterCounters {
            punted: counters.punted,
            asked: counters.asked,
            failed: counters.failed,
            overflowed: counters.overflowed,
            errors: counters.errors,
            errors_limited: counters.errors_limited,
            advertisements: counters.advertisements,
            duplicates: counters.duplicates,
        }),
        first_table: info.spec.first_table.into(),
    }
}

fn interface(info: &RouterInfo, i: &Interface) -> RouterInterface {
    RouterInterface {
        name: i.name.clone(),
        port: info.ports.get(&i.port).cloned().unwrap_or_else(|| i.port.to_string()),
        vlan: i.vlan.map_or(0, |vlan| vlan.get().into()),
        vrf: vrf_name(&info.spec.config, i.vrf),
        mac: if i.layer3 { String::new() } else { mac_text(mac_bytes(i.mac)) },
        addresses: i.addresses.iter().map(ToString::to_string).collect(),
        mtu: i.mtu.into(),
        proxied: i.proxied.iter().map(ToString::to_string).collect(),
        layer3: i.layer3,
        ra: i.ra.as_ref().map(|ra| RouterAdvertisement {
            max_interval_s: Some(ra.max_interval.into()),
            lifetime_s: Some(ra.lifetime.into()),
            hop_limit: Some(ra.hop_limit.into()),
            managed: ra.managed,
            other: ra.other,
            no_mtu: !ra.mtu,
            prefixes: ra.prefixes.iter().map(|told| told.prefix.to_string()).collect(),
            dns_servers: ra.dns_servers.iter().map(ToString::to_string).collect(),
            dns_search: ra.dns_search.clone(),
        }),
    }
}

/// A route as it is.
pub(super) fn route(info: &RouterInfo, found: &RouteInfo) -> RouteStatus {
    let config = &info.spec.config;
    let route = &found.route;
    let hop = |hop: &sluice_flows::router::NextHop| NextHop {
        address: hop.via.map_or_else(String::new, |via| via.to_string()),
        interface: interface_name(config, hop.interface),
        weight: hop.weight.into(),
    };
    RouteStatus {
        router: config.name.clone(),
        route: Some(Route {
            destination: route.destination.to_string(),
            vrf: vrf_name(config, route.vrf),
            next_hops: route.next_hops.iter().map(hop).collect(),
            kind: route.kind.name().to_owned(),
            distance: Some(route.distance.into()),
        }),
        connected: found.is_connected,
        active: found.is_active,
        alive: found.alive.clone(),
        packets: found.packets,
        bytes: found.bytes,
    }
}

/// A neighbour as it is.
pub(super) fn neighbor(info: &RouterInfo, neighbor: &NeighborInfo) -> Neighbor {
    Neighbor {
        router: info.spec.config.name.clone(),
        interface: interface_name(&info.spec.config, neighbor.interface),
        address: neighbor.address.to_string(),
        mac: neighbor.mac.map(mac_text).unwrap_or_default(),
        state: neighbor.state.name().to_owned(),
        age_ms: neighbor.age_ms,
        waiting: neighbor.waiting as u64,
    }
}

/// An event.
pub(super) fn event(event: Event) -> RouterEvent {
    let since = event.time.duration_since(UNIX_EPOCH).unwrap_or_default();
    RouterEvent {
        time_unix_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
        router: event.router.to_string(),
        kind: Some(kind(event.kind)),
    }
}

fn kind(kind: RouterEventKind) -> Kind {
    match kind {
        RouterEventKind::Set => Kind::Set(RouterSet {}),
        RouterEventKind::Removed => Kind::Removed(RouterRemoved {}),
        RouterEventKind::InterfaceChanged { interface, up } => Kind::Interface(InterfaceChanged { interface, up }),
        RouterEventKind::NeighborChanged { interface, address, mac, state } => Kind::Neighbor(NeighborChanged {
            interface,
            address: address.to_string(),
            mac: mac.map(mac_text).unwrap_or_default(),
            state: state.map(|state| state.name().to_owned()).unwrap_or_default(),
        }),
        RouterEventKind::NextHopChanged { interface, address, alive, cause } => {
            Kind::NextHop(NextHopChanged { interface, address: address.to_string(), alive, cause: cause.to_owned() })
        }
        RouterEventKind::DuplicateAddress { interface, address, mac } => {
            Kind::Duplicate(DuplicateAddress { interface, address: address.to_string(), mac: mac_text(mac) })
        }
        RouterEventKind::Lost { count } => Kind::Lost(EventsLost { count }),
    }
}
