//! The routes of one router, by key and by next hop.
//!
//! When a next hop dies or comes back, only the routes that have it are looked at: those with one next hop lose their
//! flow or get it back; those with several have a group, of which one bucket changes.

use sluice_flows::router::{InterfaceId, NextHop, Route, RouteKey};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Where a next hop is: the interface and, if it is a router, its address.
pub(super) type Hop = (InterfaceId, Option<IpAddr>);

/// A route, and whether it has its flow.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) route: Arc<Route>,
    /// Its flow is there: one of its next hops is alive, or it has none.
    pub(super) is_installed: bool,
    /// It comes with an interface's address.
    pub(super) is_connected: bool,
}

/// The routes of a router.
#[derive(Clone, Debug, Default)]
pub(super) struct Routes {
    routes: BTreeMap<RouteKey, Entry>,
    by_hop: BTreeMap<Hop, BTreeSet<RouteKey>>,
}

impl Routes {
    /// Adds a route, in place of the one with its key, which is returned.
    pub(super) fn insert(&mut self, route: Arc<Route>, is_connected: bool, is_installed: bool) -> Option<Entry> {
        let key = route.key();
        let old = self.remove(&key);
        for hop in &route.next_hops {
            self.by_hop.entry(place(hop)).or_default().insert(key);
        }
        self.routes.insert(key, Entry { route, is_installed, is_connected });
        old
    }

    /// Removes a route.
    pub(super) fn remove(&mut self, key: &RouteKey) -> Option<Entry> {
        let entry = self.routes.remove(key)?;
        for hop in &entry.route.next_hops {
            if let Some(keys) = self.by_hop.get_mut(&place(hop)) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_hop.remove(&place(hop));
                }
            }
        }
        Some(entry)
    }

    /// The route with this key.
    pub(super) fn get(&self, key: &RouteKey) -> Option<&Entry> {
        self.routes.get(key)
    }

    /// The route with this key, to note whether it has its flow.
    pub(super) fn get_mut(&mut self, key: &RouteKey) -> Option<&mut Entry> {
        self.routes.get_mut(key)
    }

    /// The routes in the order of VRF, destination and distance; those behind `after`, if that is given.
    pub(super) fn after(&self, after: Option<&RouteKey>) -> impl Iterator<Item = &Entry> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, |key| Excluded(*key));
        self.routes.range((from, Unbounded)).map(|(_, entry)| entry)
    }

    /// The routes that have a next hop there.
    pub(super) fn by(&self, hop: &Hop) -> Vec<RouteKey> {
        self.by_hop.get(hop).map(|keys| keys.iter().copied().collect()).unwrap_or_default()
    }

    /// The next hops by an interface.
    pub(super) fn hops_by(&self, interface: InterfaceId) -> Vec<Hop> {
        self.by_hop.range((interface, None)..).map(|(hop, _)| *hop).take_while(|hop| hop.0 == interface).collect()
    }

    /// The routers that routes lead to.
    pub(super) fn gateways(&self) -> impl Iterator<Item = (InterfaceId, IpAddr)> + '_ {
        self.by_hop.keys().filter_map(|(interface, via)| Some((*interface, (*via)?)))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.routes.len()
    }
}

fn place(hop: &NextHop) -> Hop {
    (hop.interface, hop.via)
}
