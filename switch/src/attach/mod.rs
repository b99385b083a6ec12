//! Networks of containers, and the attachments of containers to them.
//!
//! A network is a bridge, perhaps with a gateway to the host and masquerade behind it; an attachment is one interface of one
//! container: a port of that bridge, with flows that keep it to its own addresses. Whoever attaches makes the interface and
//! sets up the container's end; the switch takes the other end.
//!
//! # What outlives the switch
//! What is declared is on disk before a call returns ([`store`]), as one file for each network and attachment. A switch that
//! starts takes it up again ([`start`]): the devices are not its own, so they are there still, with the container's addresses
//! and routes. An attachment whose device is gone is dropped; one that cannot be taken up for another reason stays, is shown
//! with its fault, and is tried again until it can.
//!
//! # Rules
//! - One lock ([`Attachments::changes`]) is held while anything is changed. What is known is read without it, so that lists
//!   and readiness never wait for a device or a disk.
//! - A change is made as a whole or not at all: what was done before the step that failed is undone.
//! - A record is written last and removed first: what is on disk was in force, and what is not on disk is gone with the
//!   process.
//! - A port's flows are there before the port, and go after it.
//! - Who waits for something that somebody else does (a controller's word, [`confirm`]) holds no lock.

mod announce;
mod change;
mod check;
mod compare;
mod confirm;
mod device;
mod error;
mod inline;
mod known;
mod outside;
mod raise;
mod ready;
pub mod spec;
mod store;
mod take_up;

pub(crate) use error::AttachError;
pub(crate) use known::{Network, Record};
pub(crate) use outside::{IncomingPort, of_network};
pub(crate) use ready::Ready;
pub use store::StoreError;
pub(crate) use take_up::{after_reload, give_up_bridge};
pub use take_up::{start, stop};

use announce::Announcer;
use confirm::Waiting;
use known::Known;
use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};
use store::Store;

/// The networks and attachments of a switch.
#[derive(Debug, Default)]
pub(crate) struct Attachments {
    changes: Mutex<Changes>,
    known: Mutex<Known>,
    announcer: Announcer,
    waiting: Waiting,
    /// What is not in force is tried again by a thread that waits.
    is_retrying: AtomicBool,
}

/// What only those need who change something.
#[derive(Debug, Default)]
struct Changes {
    store: Store,
    /// Bridges that were made because a network wanted them.
    made: BTreeSet<String>,
    /// Why gateways and host ports are not in force.
    outside_fault: Option<String>,
}

impl Attachments {
    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
