//! What programs ask of routers.

use super::neighbors::{Key, NeighborInfo, NeighborState};
use super::outbox::Outbox;
use super::packets::{Mac, is_group};
use super::running::{Running, Surroundings, mac_bytes};
use super::thread::deliver;
use super::{
    ProbeSpec, RouterCounters, RouterError, RouterEvent, RouterEventKind, RouterSpec, Routers, State, program,
};
use crate::Datapath;
use crossbeam::channel::Receiver;
use sluice_flows::PortNo;
use sluice_flows::action::GroupId;
use sluice_flows::bridge::Bridge;
use sluice_flows::router::{InterfaceId, Neighbor, Pipeline, Route, RouteKey, Stage, VrfId};
use sluice_flows::rule::TableId;
use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;

/// A router as it is.
#[derive(Clone, Debug)]
pub struct RouterInfo {
    /// What it is asked to be; its routes are told by [`Datapath::routes`].
    pub spec: RouterSpec,
    /// The names of the ports of its bridge.
    pub ports: BTreeMap<PortNo, String>,
    /// Interfaces that carry nothing.
    pub down: Vec<InterfaceId>,
    /// Next hops that are dead.
    pub dead: Vec<(InterfaceId, IpAddr)>,
    /// How many routes it has, with the connected ones.
    pub routes: usize,
    /// How many neighbours it knows, or asks for.
    pub neighbors: usize,
    /// What it has done.
    pub counters: RouterCounters,
}

/// A route as it is.
#[derive(Clone, Debug)]
pub struct RouteInfo {
    /// The route.
    pub route: Arc<Route>,
    /// It comes with an interface's address.
    pub is_connected: bool,
    /// It has a flow: one of its next hops is alive, or it has none.
    pub is_active: bool,
    /// Whether each of its next hops is alive.
    pub alive: Vec<bool>,
    /// Packets that took it.
    pub packets: u64,
    /// Bytes of those.
    pub bytes: u64,
}

/// Which routes to tell of.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouteFilter {
    /// Only those of this VRF.
    pub vrf: Option<VrfId>,
    /// Only those that this address is in.
    pub covers: Option<IpAddr>,
}

impl RouteFilter {
    fn selects(&self, route: &Route) -> bool {
        self.vrf.is_none_or(|vrf| vrf == route.vrf)
            && self.covers.is_none_or(|address| route.destination.contains(&address))
    }
}

impl Datapath {
    /// Makes a router, or makes one anew that is there. Neighbours that it knows, and counters of flows that stay, are
    /// kept.
    ///
    /// # Errors
    /// When the configuration has a fault, the bridge has another router or is not there, or refuses the flows.
    pub fn set_router(&self, spec: RouterSpec) -> Result<(), RouterError> {
        let pipeline = check(&spec)?;
        let bridge = self.bridge(&spec.bridge)?;
        let mut state = self.routers().lock();
        let name = spec.config.name.clone();
        if let Some(other) = state.routers.values().find(|r| r.spec.bridge == spec.bridge && *r.name != *name) {
            return Err(RouterError::BridgeTaken { bridge: spec.bridge, other: other.name.to_string() });
        }
        if let Some(there) = state.routers.get(&name).filter(|there| there.spec.bridge != spec.bridge) {
            return Err(RouterError::Elsewhere { name, bridge: there.spec.bridge.clone() });
        }
        if !state.is_served {
            super::thread::spawn(self)?;
            state.is_served = true;
        }
        let seed = foldhash::fast::RandomState::default().hash_one(&name);
        let now = self.clock().now();
        let mut router = Running::new(spec, pipeline, bridge.id, seed, now);
        if let Some(old) = state.routers.get_mut(&name) {
            router.inherit(old);
        }
        let around = Surroundings { bridge: &bridge, events: &self.routers().events, now };
        // What was found out before the flows are there is in them.
        let mut early = Outbox::default();
        router.begin(around, &mut early);
        let program = router.program();
        let owner = router.stages.owner();
        program::replace(self, &router.spec.bridge, &owner.text(), program)?;
        around.events.publish(&router.name, RouterEventKind::Set);
        let mut out = Outbox::default();
        if let Some(mut old) = state.routers.remove(&name) {
            old.retire(&router, &mut out);
        }
        router.tick(around, &mut out);
        _ = deliver(&router, self, out);
        state.routers.insert(name, router);
        Ok(())
    }

    /// Removes a router with all its flows and groups.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn remove_router(&self, name: &str) -> Result<(), RouterError> {
        let mut state = self.routers().lock();
        state.router(name)?;
        if let Some(mut router) = state.routers.remove(name) {
            let mut out = Outbox::default();
            router.say_goodbye(&mut out);
            // It is going: what cannot be said is not worth a word.
            _ = out.deliver(self, &router.spec.bridge);
            // The words go by its flows.
            self.sync_stats();
            program::remove(self, &router.spec.bridge, &router.stages.owner().text(), *router.stages.pipeline())?;
            self.routers().events.publish(&router.name, RouterEventKind::Removed);
        }
        Ok(())
    }

    /// Every router, by name.
    pub fn router_list(&self) -> Vec<RouterInfo> {
        let state = self.routers().lock();
        state.routers.values().map(|router| router.info(router.bridge_of(self).as_deref())).collect()
    }

    /// Adds routes to a router, all or none, each in the place of one to the same destination with the same distance.
    /// Returns how many are new.
    ///
    /// # Errors
    /// When there is no such router, or a route has a fault.
    pub fn add_routes(&self, router: &str, routes: Vec<Route>) -> Result<usize, RouterError> {
        self.change_router(router, |router, out| {
            for route in &routes {
                router.spec.config.check_route(route)?;
                if router.routes.get(&route.key()).is_some_and(|entry| entry.is_connected) {
                    return Err(RouterError::Connected { key: Box::new(route.key()) });
                }
            }
            let before = router.routes.len();
            routes.into_iter().for_each(|route| router.add_route(route, out));
            Ok(router.routes.len() - before)
        })
    }

    /// Removes routes from a router, all or none.
    ///
    /// # Errors
    /// When there is no such router, it has no such route, or it is connected.
    pub fn remove_routes(&self, router: &str, keys: &[RouteKey]) -> Result<(), RouterError> {
        self.change_router(router, |router, out| {
            for key in keys {
                match router.routes.get(key) {
                    None => return Err(RouterError::NoRoute { router: router.name.to_string(), key: Box::new(*key) }),
                    Some(entry) if entry.is_connected => {
                        return Err(RouterError::Connected { key: Box::new(*key) });
                    }
                    Some(_) => {}
                }
            }
            for key in keys {
                router.remove_route(key, out);
            }
            Ok(())
        })
    }

    /// Tells of a router's routes, at most `count` of them behind `after`, in the order of VRF, destination and distance.
    ///
    /// # Errors
    /// When there is no such router.
    pub fn routes(
        &self,
        router: &str,
        filter: &RouteFilter,
        after: Option<&RouteKey>,
        count: usize,
    ) -> Result<Vec<RouteInfo>, RouterError> {
        let state = self.routers().lock();
        let router = state.router(router)?;
        let bridge = router.bridge_of(self);
        let selected = router.routes.after(after).filter(|entry| filter.selects(&entry.route));
        Ok(selected.take(count).map(|entry| router.route_info(entry, bridge.as_deref())).collect())
    }

    /// The neighbours of a router, by interface and address.
    ///
    /// # Errors
    /// When there is no such router.
    pub fn neighbors(&self, router: &str) -> Result<Vec<NeighborInfo>, RouterError> {
        let now = self.clock().now();
        Ok(self.routers().lock().router(router)?.neighbors.list(now).collect())
    }

    /// Makes a neighbour known for good.
    ///
    /// # Errors
    /// When there is no such router, or the neighbour cannot be one.
    pub fn set_neighbor(&self, router: &str, key: Key, mac: [u8; 6]) -> Result<(), RouterError> {
        self.change_router_at(router, |router, around, out| {
            router.check_neighbor(key, mac)?;
            let mut todo = Vec::new();
            router.neighbors.set_permanent(key, mac, around.now, &mut todo);
            router.resolve(todo, around, out);
            Ok(())
        })
    }

    /// Forgets a neighbour, whatever is known of it.
    ///
    /// # Errors
    /// When there is no such router or neighbour.
    pub fn remove_neighbor(&self, router: &str, key: Key) -> Result<(), RouterError> {
        self.change_router_at(router, |router, around, out| {
            let mut todo = Vec::new();
            if !router.neighbors.forget(key, &mut todo) {
                return Err(RouterError::NoNeighbor { router: router.name.to_string(), address: key.1 });
            }
            router.resolve(todo, around, out);
            Ok(())
        })
    }

    /// Forgets the neighbours that were found, of one interface or of all; configured ones stay. Returns how many.
    ///
    /// # Errors
    /// When there is no such router.
    pub fn flush_neighbors(&self, router: &str, interface: Option<InterfaceId>) -> Result<usize, RouterError> {
        self.change_router_at(router, |router, around, out| {
            let found =
                |key: &Key, state| interface.is_none_or(|only| only == key.0) && state != NeighborState::Permanent;
            let mut todo = Vec::new();
            let keys = router.neighbors.keys(found);
            for key in &keys {
                router.neighbors.forget(*key, &mut todo);
            }
            router.resolve(todo, around, out);
            Ok(keys.len())
        })
    }

    /// What happens to routers from now on, at most `depth` events waiting.
    pub fn router_events(&self, depth: usize) -> Receiver<RouterEvent> {
        self.routers().subscribe(depth)
    }

    /// Does what is due by the clock for all routers. Done by itself several times a second; tests that move the clock call
    /// it instead of waiting.
    pub fn maintain_routers(&self) {
        self.routers().run(self, &[]);
    }

    fn change_router<T>(
        &self,
        name: &str,
        change: impl FnOnce(&mut Running, &mut Outbox) -> Result<T, RouterError>,
    ) -> Result<T, RouterError> {
        self.change_router_at(name, |router, _, out| change(router, out))
    }

    fn change_router_at<T>(
        &self,
        name: &str,
        change: impl FnOnce(&mut Running, Surroundings<'_>, &mut Outbox) -> Result<T, RouterError>,
    ) -> Result<T, RouterError> {
        let mut state = self.routers().lock();
        let router = state.router_mut(name)?;
        let bridge = self.bridge(&router.spec.bridge)?;
        let around = Surroundings { bridge: &bridge, events: &self.routers().events, now: self.clock().now() };
        let mut out = Outbox::default();
        let done = change(router, around, &mut out)?;
        deliver(router, self, out)?;
        Ok(done)
    }
}

impl State {
    fn router(&self, name: &str) -> Result<&Running, RouterError> {
        self.routers.get(name).ok_or_else(|| self.no_router(name))
    }

    fn router_mut(&mut self, name: &str) -> Result<&mut Running, RouterError> {
        if !self.routers.contains_key(name) {
            return Err(self.no_router(name));
        }
        self.routers.get_mut(name).ok_or_else(|| RouterError::NoRouter { name: name.to_owned(), known: String::new() })
    }

    fn no_router(&self, name: &str) -> RouterError {
        let known: Vec<_> = self.routers.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        RouterError::NoRouter { name: name.to_owned(), known }
    }
}

/// Looks for faults of a router that is asked for; where its tables are.
fn check(spec: &RouterSpec) -> Result<Pipeline, RouterError> {
    spec.config.check()?;
    let misplaced = || RouterError::Table { first: spec.first_table, count: Stage::ALL.len() };
    let first = TableId::new(spec.first_table).ok_or_else(misplaced)?;
    for probe in &spec.probes {
        let address = probe.next_hop.1;
        let interface = spec.config.interface(probe.next_hop.0);
        let what = if interface.is_none_or(|interface| !interface.layer3 && !interface.is_on_link(address)) {
            "it is on no network of that interface"
        } else if !ProbeSpec::INTERVALS_MS.contains(&probe.interval_ms) {
            "the interval is 100 to 3600000 milliseconds"
        } else if !ProbeSpec::LOSSES.contains(&probe.losses) {
            "the number of losses is 1 to 100"
        } else {
            continue;
        };
        return Err(RouterError::Probe { address, what });
    }
    Pipeline::new(first, GroupId(1)).ok_or_else(misplaced)
}

impl Running {
    /// Takes over what the router knew that this one takes the place of: the neighbours of interfaces that are the same.
    fn inherit(&mut self, old: &mut Running) {
        self.generation = old.generation + 1;
        self.counters = old.counters;
        let changed = |id: InterfaceId| old.stages.interface(id) != self.stages.interface(id);
        let mut gone = Vec::new();
        for key in old.neighbors.keys(|key, state| changed(key.0) || state == NeighborState::Permanent) {
            old.neighbors.forget(key, &mut gone);
        }
        for todo in gone {
            if let super::neighbors::Todo::Forgotten(key) = todo {
                old.state.neighbors.remove(&key);
            }
        }
        self.neighbors = std::mem::take(&mut old.neighbors);
        self.state.neighbors = std::mem::take(&mut old.state.neighbors);
        self.state.dead = old.state.dead.iter().copied().filter(|(id, _)| !changed(*id)).collect();
    }

    /// Looks at ports, and takes in configured neighbours, before the flows are made.
    fn begin(&mut self, around: Surroundings<'_>, out: &mut Outbox) {
        self.watch_ports(around, out);
        let ids = self.spec.config.interfaces.iter().map(|interface| interface.id);
        let down: Vec<_> = ids.filter(|id| !self.is_up(*id)).collect();
        self.state.down.extend(down);
        let mut todo = Vec::new();
        for neighbor in &self.spec.config.neighbors {
            let (key, mac) = ((neighbor.interface, neighbor.address), mac_bytes(neighbor.mac));
            self.neighbors.set_permanent(key, mac, around.now, &mut todo);
            self.state.neighbors.insert(key, Neighbor::Resolved(neighbor.mac));
        }
    }

    /// Says goodbye on interfaces that advertised and that `next` does not have.
    fn retire(&mut self, next: &Running, out: &mut Outbox) {
        let stays = |id: InterfaceId| next.stages.interface(id).is_some_and(|interface| interface.ra.is_some());
        if self.spec.config.interfaces.iter().any(|interface| interface.ra.is_some() && !stays(interface.id)) {
            // Its flows are those of the next one: only an interface of that one can still be sent by.
            self.say_goodbye(out);
        }
    }

    fn check_neighbor(&self, (interface, address): Key, mac: Mac) -> Result<(), RouterError> {
        let bad = |what| Err(RouterError::BadNeighbor { address, what });
        match self.stages.interface(interface) {
            None => bad("there is no such interface"),
            Some(interface) if interface.layer3 => bad("the interface has no neighbours with hardware addresses"),
            Some(interface) if !interface.is_on_link(address) => bad("it is on no network of that interface"),
            Some(interface) if interface.own_addresses().any(|own| own == address) => bad("it is the router's own"),
            Some(_) if is_group(mac) || mac == [0; 6] => bad("its hardware address is not one of a single station"),
            Some(_) => Ok(()),
        }
    }

    fn info(&self, bridge: Option<&Bridge>) -> RouterInfo {
        let ports = bridge.into_iter().flat_map(|bridge| bridge.ports.values());
        RouterInfo {
            spec: self.spec.clone(),
            ports: ports.map(|port| (port.no, port.name.to_string())).collect(),
            down: self.state.down.iter().copied().collect(),
            dead: self.state.dead.iter().copied().collect(),
            routes: self.routes.len(),
            neighbors: self.neighbors.len(),
            counters: self.counters,
        }
    }

    fn route_info(&self, entry: &super::routes::Entry, bridge: Option<&Bridge>) -> RouteInfo {
        let route = &entry.route;
        let place = self.place_of(route).filter(|_| entry.is_installed);
        let rule = place.and_then(|spec| bridge?.tables.get_strict(spec.table, spec.priority, &spec.matches).cloned());
        RouteInfo {
            route: Arc::clone(route),
            is_connected: entry.is_connected,
            is_active: entry.is_installed,
            alive: route.next_hops.iter().map(|hop| self.state.is_alive(hop)).collect(),
            packets: rule.as_ref().map_or(0, |rule| rule.stats.packets()),
            bytes: rule.as_ref().map_or(0, |rule| rule.stats.bytes()),
        }
    }
}

impl Routers {
    /// Forgets all routers: the switch is ending.
    pub(crate) fn end(&self) {
        self.lock().routers.clear();
    }
}
