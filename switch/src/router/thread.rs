//! The thread that serves all routers.

use super::outbox::Outbox;
use super::running::{Running, Surroundings};
use super::{LOOK, Routers};
use crate::router::event::RouterEventKind;
use crate::{ControlError, Datapath, PacketIn};
use crossbeam::channel::{Receiver, RecvTimeoutError};
use sluice_flows::router::Punt;
use std::io;
use std::time::Duration;

/// Packets that wait for the thread.
pub(super) const DEPTH: usize = 1024;
/// Packets that are worked on before what they ask for is done in one step.
const BATCH: usize = 64;

/// Starts the thread. It ends with the data path.
pub(super) fn spawn(datapath: &Datapath) -> io::Result<()> {
    let packets = datapath.router_packets(DEPTH);
    let weak = datapath.downgrade();
    std::thread::Builder::new().name("sluice-router".to_owned()).spawn(move || {
        let mut wait = LOOK;
        loop {
            let first = match packets.recv_timeout(wait) {
                Ok(packet) => Some(packet),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let Some(datapath) = weak.upgrade() else { return };
            wait = serve(&datapath, first, &packets);
        }
    })?;
    Ok(())
}

/// Does what packets ask for and what is due. Returns how long until something is.
fn serve(datapath: &Datapath, first: Option<PacketIn>, packets: &Receiver<PacketIn>) -> Duration {
    let batch: Vec<_> = first.into_iter().chain(packets.try_iter()).take(BATCH).collect();
    datapath.routers().run(datapath, &batch);
    let next = datapath.routers().next_due();
    next.map_or(LOOK, |due| Duration::from_millis(due.since(datapath.clock().now())).min(LOOK))
}

impl Routers {
    /// Does what these packets ask for, and what is due.
    pub(super) fn run(&self, datapath: &Datapath, batch: &[PacketIn]) {
        let mut state = self.lock();
        let mut gone = Vec::new();
        for (name, router) in &mut state.routers {
            if self.run_one(router, datapath, batch).is_err() {
                gone.push(name.clone());
            }
        }
        for name in gone {
            if let Some(router) = state.routers.remove(&name) {
                self.events.publish(&router.name, RouterEventKind::Removed);
            }
        }
    }

    /// Does what is asked of one router. An error means that its bridge is gone.
    fn run_one(&self, router: &mut Running, datapath: &Datapath, batch: &[PacketIn]) -> Result<(), ControlError> {
        let gone = || ControlError::NoBridge { name: router.spec.bridge.clone(), known: String::new() };
        let bridge = router.bridge_of(datapath).ok_or_else(gone)?;
        let around = Surroundings { bridge: &bridge, events: &self.events, now: datapath.clock().now() };
        let mut out = Outbox::default();
        for packet in batch {
            let about = &packet.about;
            let is_own = about.bridge == router.bridge && router.stages.pipeline().stage(about.table).is_some();
            if let Some(punt) = Punt::read(about).filter(|_| is_own) {
                router.receive(packet, punt, around, &mut out);
            }
        }
        router.tick(around, &mut out);
        match deliver(router, datapath, out) {
            Err(error @ (ControlError::NoBridge { .. } | ControlError::Ending)) => Err(error),
            _ => Ok(()),
        }
    }

    fn next_due(&self) -> Option<sluice_flows::rule::Millis> {
        self.lock().routers.values().filter_map(Running::next).min()
    }
}

/// Has the switch do what a router wants done.
pub(super) fn deliver(router: &Running, datapath: &Datapath, out: Outbox) -> Result<(), ControlError> {
    if out.is_empty() {
        return Ok(());
    }
    let result = out.deliver(datapath, &router.spec.bridge);
    if let Err(error) = &result {
        tracing::warn!(router = &*router.name, %error, "a router's flows could not be changed");
    }
    result
}
