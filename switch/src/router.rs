//! Routers: what flows cannot do for them.
//!
//! The flows of a router are made in [`sluice_flows::router`] from its configuration and from what is known of its
//! neighbours and next hops. They answer ARP, neighbour solicitations and pings, route and rewrite; whatever they cannot
//! do they hand over, with a word on what is asked. Here is what does it, and keeps the flows up to date:
//!
//! - [`neighbors`]: who has which address, found out by asking; packets wait for the answer.
//! - [`running`]: ICMP errors within [`limits`], advertisements ([`advertise`]), announcements when an interface comes up,
//!   which next hops are alive ([`health`]).
//! - [`program`]: flows and groups as one step of changes, through the same functions as everybody's.
//! - [`packets`]: what goes over the wire.
//!
//! # Threads
//! One thread serves all routers, and there is none without a router. It takes what is handed over and looks at clocks
//! and ports [`LOOK`] times apart or when something is due; calls of others work on the same state under its lock. No
//! packet that a flow can forward waits for it. A packet that is handed over costs a worker a copy, at most
//! [`Config::packet_in_rate`](crate::Config::packet_in_rate) times a second; what does not fit is dropped and counted there.
//!
//! # Limits
//! A bridge has one router. Its tables and groups are those of its pipeline, its flows are owned by `router:NAME` and what
//! follows it; removing it leaves none of them. Neighbours, waiting packets and errors are bounded, see the parts.

mod advertise;
mod control;
mod error;
mod event;
mod health;
mod limits;
pub(crate) mod named;
mod neighbors;
mod outbox;
mod packets;
mod program;
mod routes;
mod running;
mod thread;

pub use control::{RouteFilter, RouteInfo, RouterInfo};
pub use error::RouterError;
pub use event::{RouterEvent, RouterEventKind};
pub use health::ProbeSpec;
pub use named::{
    DEFAULT_VRF, NameError, NamedAdvertisement, NamedHop, NamedInterface, NamedNeighbor, NamedProbe, NamedRoute,
    NamedRouter,
};
pub use neighbors::{Key as NeighborKey, NeighborInfo, NeighborState};
pub(crate) use running::mac_bytes;

use crossbeam::channel::Receiver;
use event::RouterEvents;
use running::Running;
use sluice_flows::router::RouterConfig;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often ports are looked at.
const LOOK: Duration = Duration::from_millis(200);

/// A router as it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterSpec {
    /// The bridge that it is in.
    pub bridge: String,
    /// The first of its tables.
    pub first_table: u8,
    /// What it is asked to be.
    pub config: RouterConfig,
    /// Next hops that are pinged.
    pub probes: Vec<ProbeSpec>,
}

/// What a router has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouterCounters {
    /// Packets that its flows handed over.
    pub punted: u64,
    /// Questions for neighbours sent.
    pub asked: u64,
    /// Neighbours that did not answer.
    pub failed: u64,
    /// Packets dropped because too many waited for a neighbour.
    pub overflowed: u64,
    /// ICMP errors sent.
    pub errors: u64,
    /// ICMP errors that were not sent because there were too many.
    pub errors_limited: u64,
    /// Router advertisements sent.
    pub advertisements: u64,
    /// Times that another station was found to have one of its addresses.
    pub duplicates: u64,
}

/// The routers of a switch.
#[derive(Default)]
pub(crate) struct Routers {
    state: Mutex<State>,
    events: RouterEvents,
}

#[derive(Default)]
struct State {
    routers: BTreeMap<String, Running>,
    /// There is a thread.
    is_served: bool,
}

impl Routers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn subscribe(&self, depth: usize) -> Receiver<RouterEvent> {
        self.events.subscribe(depth)
    }
}
