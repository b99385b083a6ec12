//! What a running router knows beside its configuration: neighbours and which next hops are alive.
//!
//! Plain data that the running side changes and the stages read. What is not in it is unknown: such a neighbour has to
//! be resolved, and such a next hop counts as alive.

use super::config::{InterfaceId, NextHop};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What is known of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Neighbor {
    /// It has this MAC address, in the low 48 bits.
    Resolved(u64),
    /// It does not answer: packets to it are dropped, and their senders told.
    Failed,
}

/// What a running router knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterState {
    /// Neighbours by interface and address. One that is being resolved is not here.
    pub neighbors: BTreeMap<(InterfaceId, IpAddr), Neighbor>,
    /// Interfaces that carry nothing: every next hop by them is dead.
    pub down: BTreeSet<InterfaceId>,
    /// Routers that are not to be sent to, by interface and address.
    pub dead: BTreeSet<(InterfaceId, IpAddr)>,
}

impl RouterState {
    /// Whether packets may be sent to a next hop.
    pub fn is_alive(&self, hop: &NextHop) -> bool {
        !self.down.contains(&hop.interface) && hop.via.is_none_or(|via| !self.dead.contains(&(hop.interface, via)))
    }
}
