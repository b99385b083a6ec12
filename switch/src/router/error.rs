//! Why a router, route or neighbour is refused.

use crate::ControlError;
use sluice_flows::router::{ConfigError, RouteKey};
use std::io;
use std::net::IpAddr;
use thiserror::Error;

/// Why something about routers was refused. Nothing was changed then.
#[derive(Debug, Error)]
pub enum RouterError {
    /// There is no such router.
    #[error("there is no router {name:?}; routers: {known}")]
    NoRouter {
        /// The name asked for.
        name: String,
        /// Those there are.
        known: String,
    },
    /// The bridge has a router.
    #[error("bridge {bridge} has router {other} already; a bridge has one router: use VRFs, or another bridge")]
    BridgeTaken {
        /// The bridge.
        bridge: String,
        /// Its router.
        other: String,
    },
    /// The router is in another bridge.
    #[error("router {name} is in bridge {bridge}; remove it there first")]
    Elsewhere {
        /// The router.
        name: String,
        /// Its bridge.
        bridge: String,
    },
    /// Its tables do not fit.
    #[error("a router cannot begin at table {first}: its {count} tables would not fit below 255")]
    Table {
        /// The first table.
        first: u8,
        /// How many it has.
        count: usize,
    },
    /// The configuration has a fault.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A probe that cannot be.
    #[error("the probe of next hop {address}: {what}")]
    Probe {
        /// What it would probe.
        address: IpAddr,
        /// What is wrong.
        what: &'static str,
    },
    /// There is no such route.
    #[error("router {router} has no route to {} in VRF {} with distance {}; `sluice routes` shows those it has", .key.destination, .key.vrf, .key.distance)]
    NoRoute {
        /// The router.
        router: String,
        /// The route.
        key: Box<RouteKey>,
    },
    /// A route comes with an interface's address.
    #[error("the route to {} is connected: it comes and goes with an interface's address", .key.destination)]
    Connected {
        /// The route.
        key: Box<RouteKey>,
    },
    /// There is no such neighbour.
    #[error("router {router} knows no neighbour {address} there; `sluice neighbors` shows those it knows")]
    NoNeighbor {
        /// The router.
        router: String,
        /// Its address.
        address: IpAddr,
    },
    /// A neighbour that cannot be.
    #[error("{address} cannot be a neighbour: {what}")]
    BadNeighbor {
        /// Its address.
        address: IpAddr,
        /// What is wrong.
        what: &'static str,
    },
    /// The switch refused.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The thread that serves routers could not be started.
    #[error("cannot start the routers' thread: {0}; the system is out of threads (`ulimit -u`)")]
    Thread(#[from] io::Error),
}
