//! The switch: ports, poll loops, caches, and the control side that changes what they do.
//!
//! [`Datapath`] is the way in. It starts the workers, holds bridges, ports and flows, and answers questions; the
//! crate's gRPC server is one user of it, tests and benches are others.

pub mod api;
pub mod attach;
mod clock;
pub mod config;
pub mod conntrack;
mod control;
mod datapath;
pub mod echo;
pub mod event;
pub mod host;
pub mod mac_table;
pub mod port;
pub mod replay;
pub mod router;
pub mod stats;
pub mod systemd;
mod ticks;

pub use clock::Clock;
pub use control::{
    BundleResult, Capture, Config, ConnectionKeeper, ControlError, Datapath, FailMode, Far, Made, OtherChanges,
    PortChange, PortInfo, PortRequest, ResumeError, Resumed, Splice, TunnelInfo,
};
pub use datapath::{Captured, CapturedVerdict, Condition, Direction, MegaflowStats, PacketIn, Sight, Steering};
pub use port::PortDevice;
