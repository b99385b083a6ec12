//! The data path: workers, their caches, and what they do with a frame.
//!
//! # A frame's way
//! `rx_burst` -> [`extract`](sluice_flows::packet::extract) -> exact cache -> megaflow cache -> miss:
//! [`upcall`] translates and installs -> [`execute`] -> one list per output port -> `tx_burst` -> accounting.
//!
//! # Rules
//! - A worker runs each burst to completion: when it polls again, no frame is on its way any more. So frames are
//!   allocated once, a burst of them and some more for copies. One that has too much to do hands frames on before it has
//!   looked at them, and gets as many buffers back ([`steering`]).
//! - On a hit: no lock, no allocation, no system call but the ports' own, no log line. Time is read once per burst.
//! - What workers share they read: the model, an immutable snapshot picked up between bursts, and the MAC table's
//!   versions. What they write is theirs alone (see [`stats`](crate::stats)).
//! - Each frame received is counted exactly once, as forwarded or as dropped for one reason; a fragment that waits for
//!   the rest of its datagram when it goes on ([`fragments`]).

mod burst;
mod cache;
mod capture;
mod cut;
mod drops;
mod execute;
mod fragments;
mod handover;
mod indirection;
mod lanes;
mod laps;
mod ledger;
mod passes;
mod poll;
mod punt;
mod recording;
mod reject;
mod shape;
mod shared;
mod spin;
mod steering;
mod upcall;
mod witness;
mod worker;

pub(crate) use burst::NO_INGRESS;
pub use capture::{Captured, CapturedVerdict, Condition, Direction, Sight};
pub(crate) use capture::{Copies, Probe, capture};
pub(crate) use handover::Handover;
pub use indirection::Steering;
pub use punt::PacketIn;
pub(crate) use shape::Reshape;
pub(crate) use shared::{Notice, Settings, Shared};
pub(crate) use upcall::receive;
pub(crate) use worker::{Command, PacketOut, WireEnd, WorkerHandle, spawn};

use sluice_flows::Verdict;
use sluice_flows::datapath::DpAction;
use sluice_flows::key::{FlowKey, FlowMask};
use sluice_flows::rule::{Millis, Rule};
use std::sync::Arc;

/// Frames received at a time.
pub(crate) const BURST: usize = 32;

/// A megaflow as dumps show it.
#[derive(Clone, Debug)]
pub struct MegaflowStats {
    /// The worker whose cache holds it.
    pub worker: usize,
    /// The packets that it is for, under the mask. `in_port` is the datapath's port number; in an entry of another pass
    /// than the first, which has a `recirc_id`, it is the bridge's.
    pub key: FlowKey,
    /// The bits that count.
    pub mask: FlowMask,
    /// What is done with them.
    pub actions: Vec<DpAction>,
    /// What becomes of them.
    pub verdict: Verdict,
    /// Packets answered.
    pub packets: u64,
    /// Bytes of those packets.
    pub bytes: u64,
    /// When the last of them was.
    pub used: Millis,
    /// The rule that decided; `None` when none matched.
    pub rule: Option<Arc<Rule>>,
}
