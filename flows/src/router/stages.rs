//! The flows of each stage: of the router as such, of an interface, of a route and of a neighbour.
//!
//! Each part is made by a function of its own, so that a change of one interface, route or neighbour makes only the
//! flows of that one, however many there are. Which flow wins where is said by the priorities of [`priority`].

mod interface;
mod local;

use super::config::{Interface, InterfaceId, Route, RouteKind, RouterConfig, VrfId};
use super::flow::{DST, Matching, Writer, bits, copy_part, set};
use super::groups::NextHops;
use super::pipeline::{NEXT_HOP_V4, NEXT_HOP_V6, OUT_INTERFACE, Pipeline, Stage, VRF};
use super::punt::{PuntKind, load, resubmit};
use super::state::{Neighbor, RouterState};
use crate::action::{Action, Subfield};
use crate::bridge::TableMod;
use crate::field::Field;
use crate::group::{BucketSpec, GroupSpec};
use crate::owner::Owner;
use crate::rule::FlowSpec;
use crate::verdict::DropReason;
use ipnet::IpNet;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

/// The priorities of a router's flows, table by table.
mod priority {
    /// Admit: what no station sends.
    pub(super) const REFUSED: u16 = 110;
    /// Admit: what an interface takes.
    pub(super) const ADMITTED: u16 = 100;

    /// Local: the router's own advertisements on their way out.
    pub(super) const ADVERTISE: u16 = 220;
    /// Local: duplicate address detection, which flows cannot answer.
    pub(super) const PROBE: u16 = 210;
    /// Local: what flows answer for an interface's addresses.
    pub(super) const ANSWER: u16 = 200;
    /// Local: what flows answer for others.
    pub(super) const PROXY: u16 = 190;
    /// Local: ARP and ICMPv6 that the running side has to see.
    pub(super) const PROTOCOL: u16 = 150;
    /// Local: ICMPv6 that must not go on.
    pub(super) const PROTOCOL_REST: u16 = 149;
    /// Local: packets to everybody.
    pub(super) const BROADCAST: u16 = 149;
    /// Local: addresses that no packet may have.
    pub(super) const MARTIAN: u16 = 148;
    /// Local: pings of the group of all routers or nodes.
    pub(super) const GROUP_PING: u16 = 145;
    /// Local: groups and the broadcasts of networks.
    pub(super) const GROUPS: u16 = 140;
    /// Local: frames to a group with a packet to one host.
    pub(super) const TO_MANY: u16 = 130;
    /// Local: pings by link-local addresses, which no route leads to.
    pub(super) const PING_ON_LINK: u16 = 121;
    /// Local: pings.
    pub(super) const PING: u16 = 120;
    /// Local: everything else for an address of the router.
    pub(super) const OWN: u16 = 110;
    /// Local: what never leaves its link.
    pub(super) const LINK_LOCAL: u16 = 105;
    /// Local: packets that have come too far.
    pub(super) const TTL: u16 = 50;
    /// Local: what is routed.
    pub(super) const ROUTED: u16 = 10;

    /// Neighbor: a next hop that is known.
    pub(super) const NEIGHBOR: u16 = 100;
    /// Egress: an interface.
    pub(super) const EGRESS: u16 = 100;
    /// What nothing else matches.
    pub(super) const REST: u16 = 0;

    /// Route: the longest prefix wins, then the lowest distance; 1 to 33,024.
    pub(super) const fn route(prefix_len: u8, distance: u8) -> u16 {
        1 + prefix_len as u16 * 256 + (255 - distance) as u16
    }
}

/// Everything that a router consists of in a bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Names of tables.
    pub tables: Vec<TableMod>,
    /// Groups, which have to be there before the flows.
    pub groups: Vec<GroupSpec>,
    /// Flows.
    pub flows: Vec<FlowSpec>,
}

/// Makes the flows of one router.
#[derive(Clone, Debug)]
pub struct Stages {
    pipeline: Pipeline,
    name: String,
    vrfs: HashMap<VrfId, String>,
    interfaces: HashMap<InterfaceId, Interface>,
}

impl Stages {
    /// For this router, whose configuration has been [checked](RouterConfig::check). Its routes and neighbours are not
    /// looked at.
    pub fn new(pipeline: Pipeline, config: &RouterConfig) -> Self {
        Self {
            pipeline,
            name: config.name.clone(),
            vrfs: config.vrfs.iter().map(|vrf| (vrf.id, vrf.name.clone())).collect(),
            interfaces: config.interfaces.iter().map(|interface| (interface.id, interface.clone())).collect(),
        }
    }

    /// Where its tables are.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// An interface.
    pub fn interface(&self, id: InterfaceId) -> Option<&Interface> {
        self.interfaces.get(&id)
    }

    /// Adds an interface, or puts it in the place of the one with its number, which is returned.
    pub fn insert_interface(&mut self, interface: Interface) -> Option<Interface> {
        self.interfaces.insert(interface.id, interface)
    }

    /// Takes an interface away.
    pub fn remove_interface(&mut self, id: InterfaceId) -> Option<Interface> {
        self.interfaces.remove(&id)
    }

    /// Adds a VRF, or gives it another name.
    pub fn insert_vrf(&mut self, id: VrfId, name: String) {
        self.vrfs.insert(id, name);
    }

    /// The start of the owners of all its flows: `router:NAME`.
    pub fn owner(&self) -> Owner {
        Owner::new(&format!("router:{}", self.name))
    }

    /// The owner of an interface's flows: `router:NAME/INTERFACE`.
    pub fn interface_owner(&self, interface: &Interface) -> Owner {
        Owner::new(&format!("router:{}/{}", self.name, interface.name))
    }

    /// The owner of a route's flow: `router:NAME/VRF/DESTINATION`.
    pub fn route_owner(&self, route: &Route) -> Owner {
        match self.vrfs.get(&route.vrf) {
            Some(vrf) => Owner::new(&format!("router:{}/{vrf}/{}", self.name, route.destination)),
            None => Owner::new(&format!("router:{}/{}/{}", self.name, route.vrf, route.destination)),
        }
    }

    /// The owner of a neighbour's flow: `router:NAME/INTERFACE/ADDRESS`.
    pub fn neighbor_owner(&self, interface: InterfaceId, address: IpAddr) -> Owner {
        match self.interfaces.get(&interface) {
            Some(interface) => Owner::new(&format!("router:{}/{}/{address}", self.name, interface.name)),
            None => Owner::new(&format!("router:{}/{interface}/{address}", self.name)),
        }
    }

    fn writer(&self, owner: Owner) -> Writer<'_> {
        Writer { pipeline: &self.pipeline, owner }
    }

    /// The whole router, with its connected routes. Groups are taken from `hops`.
    pub fn program(&self, config: &RouterConfig, state: &RouterState, hops: &mut NextHops) -> Program {
        let mut flows = self.base();
        flows.extend(config.interfaces.iter().flat_map(|interface| self.interface_flows(interface)));
        let connected: Vec<Route> = config.interfaces.iter().flat_map(Interface::connected).collect();
        for route in connected.iter().chain(&config.routes) {
            hops.hold(route);
            flows.extend(self.route_flow(route, state, hops));
        }
        let fixed: HashSet<_> =
            config.neighbors.iter().map(|neighbor| (neighbor.interface, neighbor.address)).collect();
        for neighbor in &config.neighbors {
            flows.push(self.neighbor_flow(neighbor.interface, neighbor.address, Neighbor::Resolved(neighbor.mac)));
        }
        let found = state.neighbors.iter().filter(|(key, _)| !fixed.contains(key));
        flows.extend(found.map(|((interface, address), found)| self.neighbor_flow(*interface, *address, *found)));
        let groups = hops.iter().filter_map(|set| self.group(set, state, hops)).collect();
        Program { tables: self.pipeline.names(), groups, flows }
    }

    /// The flows of the router as such.
    pub fn base(&self) -> Vec<FlowSpec> {
        let to = self.writer(self.owner());
        let mut flows = vec![
            to.drop(Stage::Admit, priority::REFUSED, Matching::any().group_mac(Field::EthSrc), DropReason::SpoofGuard),
            // A frame for another station.
            to.flow(Stage::Admit, priority::REST, Matching::any(), Vec::new()),
        ];
        self.local_base(&to, &mut flows);
        let (no_route, any) = (PuntKind::NoRoute, Matching::any());
        flows.push(to.refuse(Stage::Route, priority::REST, any, no_route, DropReason::NoRoute));
        flows.push(to.punt(Stage::Neighbor, priority::REST, any, PuntKind::Resolve));
        flows.push(to.drop(Stage::Egress, priority::REST, any, DropReason::NoPort));
        flows
    }

    /// The flow of a route; none while none of its next hops is alive. Next hops of a route that has several are those of
    /// its group in `hops`.
    pub fn route_flow(&self, route: &Route, state: &RouterState, hops: &NextHops) -> Option<FlowSpec> {
        let to = self.writer(self.route_owner(route));
        let v4 = route.destination.addr().is_ipv4();
        let priority = priority::route(route.destination.prefix_len(), route.distance);
        let matching = Matching::ip(v4).part(VRF, route.vrf.0.into()).within(DST, route.destination);
        let at = Stage::Route;
        Some(match route.kind {
            RouteKind::Blackhole => to.flow(at, priority, matching, Vec::new()),
            RouteKind::Unreachable => to.refuse(at, priority, matching, PuntKind::NoRoute, DropReason::NoRoute),
            RouteKind::Prohibit => to.refuse(at, priority, matching, PuntKind::Prohibited, DropReason::PolicyDeny),
            RouteKind::Unicast => {
                let mut alive = route.next_hops.iter().filter(|hop| state.is_alive(hop));
                let first = alive.next()?;
                let actions = match hops.group(route) {
                    Some(group) => vec![Action::Group(group)],
                    None => {
                        let mut actions = next_hop(first.interface, first.via, v4);
                        actions.push(to.go(Stage::Neighbor));
                        actions
                    }
                };
                to.flow(at, priority, matching, actions)
            }
        })
    }

    /// The group of a set of next hops: one bucket for each that is alive. A bucket keeps its number whatever becomes of
    /// the others, and a select group takes the bucket whose number hashes highest with the packet; so when a next
    /// hop goes or comes, only its own flows move.
    pub fn group(&self, set: super::groups::Set<'_>, state: &RouterState, hops: &NextHops) -> Option<GroupSpec> {
        let id = hops.id_of(set)?;
        let numbered = (0..).zip(set.next_hops).filter(|(_, hop)| state.is_alive(hop));
        let buckets = numbered.map(|(id, hop)| {
            let mut actions = next_hop(hop.interface, hop.via, set.v4);
            actions.push(resubmit(&self.pipeline, Stage::Neighbor));
            BucketSpec {
                id: Some(id),
                weight: hop.weight,
                watch_port: self.interfaces.get(&hop.interface).map(|interface| interface.port),
                watch_group: None,
                actions: actions.into(),
            }
        });
        Some(GroupSpec {
            id,
            kind: crate::group::GroupKind::Select,
            selection: super::groups::selection(&self.name, set.v4),
            buckets: buckets.collect(),
            owner: Owner::new(&format!("router:{}/next_hops", self.name)),
        })
    }

    /// The flow of a neighbour.
    pub fn neighbor_flow(&self, interface: InterfaceId, address: IpAddr, neighbor: Neighbor) -> FlowSpec {
        let to = self.writer(self.neighbor_owner(interface, address));
        let v4 = address.is_ipv4();
        let next_hop = if v4 { NEXT_HOP_V4 } else { NEXT_HOP_V6 };
        let matching = Matching::ip(v4).part(OUT_INTERFACE, interface.0.into()).part(next_hop, bits(address));
        let (at, priority) = (Stage::Neighbor, priority::NEIGHBOR);
        match neighbor {
            Neighbor::Resolved(mac) => {
                to.flow(at, priority, matching, vec![set(Field::EthDst, mac), to.go(Stage::Egress)])
            }
            Neighbor::Failed => to.refuse(at, priority, matching, PuntKind::NoNeighbor, DropReason::NoNeighbor),
        }
    }
}

/// The actions that note where a packet goes next: straight to its destination if `via` is none.
fn next_hop(interface: InterfaceId, via: Option<IpAddr>, v4: bool) -> Vec<Action> {
    let out = load(OUT_INTERFACE, interface.0.into());
    let (register, destination) = if v4 { (NEXT_HOP_V4, Field::IpDst) } else { (NEXT_HOP_V6, Field::Ipv6Dst) };
    let hop = match via {
        Some(via) => set(register.field, bits(via)),
        None => copy_part(Subfield::whole(destination), register),
    };
    vec![out, hop]
}

/// The network of an address, all of whose bits count.
fn host(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

#[cfg(test)]
mod tests;
