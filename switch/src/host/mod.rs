//! The host as a neighbour: what a gateway port's other side is to be in the network namespace that the switch runs in.
//!
//! [`HostSide`] says what is wanted: addresses, routes, rules, neighbours, settings of the kernel, and which of the
//! switch's addresses the host hides behind its own. [`apply`] makes it so and does only what is missing, [`drift`] tells
//! what is missing, [`remove`] takes away what is ours. Everything is marked as ours where the kernel allows it, so that a
//! switch which was killed finds its things again, and what others put on the host is never touched: in the way, it is
//! reported.
//!
//! [`gateway`] puts it together with the flows of a bridge, `gateways` decides what gateways a switch has; [`netlink`] and
//! [`routing`] are the requests, for labs too.
//!
//! # Limits
//! Drift is told and mended when somebody asks ([`apply`] again), not watched for.

mod accept;
mod apply;
mod desired;
mod error;
mod far;
mod flush;
pub mod gateway;
mod gateways;
pub(crate) mod identity;
pub mod netlink;
mod nft;
mod plan;
mod ports;
pub mod routing;
mod sysctl;

pub use apply::{alias_of, apply, drift, forward_obstacles, remove};
pub use desired::{HostSide, NeighbourSpec, PROTOCOL, RouteSpec, RuleSpec, Sysctl};
pub use error::HostError;
pub(crate) use gateways::Gateways;
pub(crate) use gateways::NetworkLink;
pub use gateways::{Leads, NetworkGateway, NetworkPort, apply_networks, check_networks};
pub use nft::table_name;
pub use ports::{HostPort, HostPorts};
