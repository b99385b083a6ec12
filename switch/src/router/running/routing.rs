//! Routes and next hops: which flows and groups there are while which next hops are alive.

use super::{Running, Surroundings};
use crate::router::event::RouterEventKind;
use crate::router::health::{Found, PAYLOAD};
use crate::router::neighbors::{Key, NeighborState};
use crate::router::outbox::Outbox;
use crate::router::packets::{Link, echo};
use crate::router::routes::Hop;
use sluice_flows::group::GroupMod;
use sluice_flows::router::{Program, Route, RouteKey, Set, send_to_neighbor};
use sluice_flows::rule::FlowSpec;
use std::sync::Arc;

impl Running {
    /// The whole router as flows and groups, with its connected routes and those of its configuration.
    pub(in crate::router) fn program(&mut self) -> Program {
        let mut flows = self.stages.base();
        for interface in &self.spec.config.interfaces {
            flows.extend(self.stages.interface_flows(interface));
        }
        let connected: Vec<_> = self.spec.config.interfaces.iter().flat_map(|i| i.connected()).collect();
        // They are kept apart, since they come and go by the hundred thousand.
        let listed = std::mem::take(&mut self.spec.config.routes);
        let all =
            connected.into_iter().map(|route| (route, true)).chain(listed.into_iter().map(|route| (route, false)));
        for (route, is_connected) in all {
            self.hops.hold(&route);
            let flow = self.stages.route_flow(&route, &self.state, &self.hops);
            self.routes.insert(Arc::new(route), is_connected, flow.is_some());
            flows.extend(flow);
        }
        for ((interface, address), neighbor) in &self.state.neighbors {
            flows.push(self.stages.neighbor_flow(*interface, *address, *neighbor));
        }
        let groups = self.hops.iter().filter_map(|set| self.stages.group(set, &self.state, &self.hops)).collect();
        flows.iter_mut().for_each(|flow| flow.generation = self.generation);
        Program { tables: self.stages.pipeline().names(), groups, flows }
    }

    /// Adds a route, in place of the one with its key. It has been checked.
    pub(in crate::router) fn add_route(&mut self, route: Route, out: &mut Outbox) {
        let route = Arc::new(route);
        if let Some(next_hops) = self.hops.hold(&route) {
            let set = Set { v4: route.destination.addr().is_ipv4(), next_hops: &next_hops };
            if let Some(spec) = self.stages.group(set, &self.state, &self.hops) {
                out.change_group(GroupMod::Modify { spec, may_create: true });
            }
        }
        let flow = self.route_flow(&route);
        let is_installed = flow.is_some();
        let old = self.routes.insert(Arc::clone(&route), false, is_installed);
        match flow {
            Some(flow) => out.add_flow(flow),
            None => {
                if let Some(flow) = old.as_ref().filter(|old| old.is_installed).and_then(|_| self.place_of(&route)) {
                    out.delete_flow(&flow);
                }
            }
        }
        // Behind the flow, which may have sent to its group.
        if let Some(group) = old.and_then(|old| self.hops.release(&old.route)) {
            out.change_group(GroupMod::Delete(Some(group)));
        }
    }

    /// Removes a route. Returns whether there was one that is not connected.
    pub(in crate::router) fn remove_route(&mut self, key: &RouteKey, out: &mut Outbox) -> bool {
        if self.routes.get(key).is_none_or(|entry| entry.is_connected) {
            return false;
        }
        let Some(entry) = self.routes.remove(key) else { return false };
        if entry.is_installed
            && let Some(flow) = self.place_of(&entry.route)
        {
            out.delete_flow(&flow);
        }
        if let Some(group) = self.hops.release(&entry.route) {
            out.change_group(GroupMod::Delete(Some(group)));
        }
        true
    }

    /// The flow of a route; none while no next hop is alive.
    fn route_flow(&self, route: &Route) -> Option<FlowSpec> {
        self.stages.route_flow(route, &self.state, &self.hops).map(|flow| self.own(flow))
    }

    /// A flow with the table, priority and match of a route's.
    pub(in crate::router) fn place_of(&self, route: &Route) -> Option<FlowSpec> {
        self.stages.route_flow(route, &sluice_flows::router::RouterState::default(), &self.hops)
    }

    /// These next hops died or came back: changes the groups that have them, and the routes that have no other.
    pub(super) fn refresh(&mut self, hops: &[Hop], out: &mut Outbox) {
        for set in self.hops.iter() {
            let is_in = set.next_hops.iter().any(|hop| hops.contains(&(hop.interface, hop.via)));
            if let Some(spec) = is_in.then(|| self.stages.group(set, &self.state, &self.hops)).flatten() {
                out.change_group(GroupMod::Modify { spec, may_create: true });
            }
        }
        for hop in hops {
            for key in self.routes.by(hop) {
                self.refresh_route(&key, out);
            }
        }
    }

    fn refresh_route(&mut self, key: &RouteKey, out: &mut Outbox) {
        let Some(entry) = self.routes.get(key) else { return };
        let is_alive = entry.route.next_hops.iter().any(|hop| self.state.is_alive(hop));
        if is_alive == entry.is_installed {
            return;
        }
        if is_alive {
            if let Some(flow) = self.route_flow(&entry.route) {
                out.add_flow(flow);
            }
        } else if let Some(flow) = self.place_of(&entry.route) {
            out.delete_flow(&flow);
        }
        if let Some(entry) = self.routes.get_mut(key) {
            entry.is_installed = is_alive;
        }
    }

    /// Decides whether a next hop is alive by what its neighbour and the probes say.
    pub(super) fn judge(&mut self, key: Key, around: Surroundings<'_>, out: &mut Outbox) {
        let hop: Hop = (key.0, Some(key.1));
        let has_failed = self.neighbors.state(&key) == Some(NeighborState::Failed);
        let is_pinged_dead = self.probes.is_dead(&key);
        // One that is asked for again stays dead until it answers.
        let unknown = matches!(self.neighbors.state(&key), None | Some(NeighborState::Incomplete));
        let was_dead = self.state.dead.contains(&key);
        let is_dead = has_failed || is_pinged_dead || was_dead && unknown;
        if is_dead == was_dead || self.routes.by(&hop).is_empty() {
            return;
        }
        if is_dead {
            self.state.dead.insert(key);
        } else {
            self.state.dead.remove(&key);
        }
        self.refresh(&[hop], out);
        let (interface, address, alive) = (self.interface_name(key.0), key.1, !is_dead);
        let cause = if is_pinged_dead { "probe" } else { "neighbor" };
        tracing::info!(router = &*self.name, interface, %address, alive, cause, "a next hop changed");
        self.publish(around, RouterEventKind::NextHopChanged { interface, address, alive, cause });
    }

    /// Pings the next hops that are due, and judges those that have lost too many.
    pub(super) fn probe(&mut self, around: Surroundings<'_>, out: &mut Outbox) {
        for found in self.probes.tick(around.now) {
            self.found(found, around, out);
        }
    }

    /// Does what a probe found.
    pub(super) fn found(&mut self, found: Found, around: Surroundings<'_>, out: &mut Outbox) {
        match found {
            Found::Dead(key) | Found::Alive(key) => self.judge(key, around, out),
            Found::Ping(key, echo) => {
                let Some(interface) = self.stages.interface(key.0) else { return };
                let Some(own) = super::resolve::source(interface, key.1) else { return };
                let link = Link { src: [0; 6], dst: [0; 6] };
                let actions = send_to_neighbor(self.stages.pipeline(), interface.vrf, key.0, key.1);
                if let Some(frame) = echo::request(link, own, key.1, echo, &PAYLOAD) {
                    out.send(&frame, actions);
                }
            }
        }
    }
}
