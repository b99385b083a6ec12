//! Routing as stages of a pipeline: flows and groups made of a router's configuration and of what it knows.
//!
//! [`RouterConfig`] is what is asked for, [`RouterState`] what a running router has found out, [`Pipeline`] where in a
//! bridge its tables are. What flows cannot do (resolution, ICMP errors, advertisements) they hand to the running side
//! as a [`Punt`].

mod config;
pub(crate) mod flow;
mod groups;
mod pipeline;
mod punt;
mod stages;
mod state;
#[cfg(test)]
mod testing;

pub use config::{
    AdvertisedPrefix, ConfigError, Fault, Interface, InterfaceId, MIN_MTU_V6, NextHop, Route, RouteKey, RouteKind,
    RouterAdvertisement, RouterConfig, StaticNeighbor, Vrf, VrfId, link_local_of,
};
pub use groups::{NextHops, Set};
pub use pipeline::{IN_INTERFACE, NEXT_HOP_V4, NEXT_HOP_V6, OUT_INTERFACE, Pipeline, Stage, TO_MANY, VRF};
pub use punt::{Punt, PuntKind, go_on, send_by_interface, send_by_route, send_to_neighbor};
pub use stages::{Program, Stages};
pub use state::{Neighbor, RouterState};
