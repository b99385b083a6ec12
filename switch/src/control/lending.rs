//! Patches that somebody looks at.
//!
//! A frame crosses a patch in translation and is never sent to it, so there is nothing to copy. While a capture asks for
//! one of its ports, a patch is therefore a wire without delay: its ports get queues, and the model says that they have
//! no peer, so that frames are sent and received. It costs a copy and a second translation as long as it lasts, and a
//! trace ends at the port meanwhile. Afterwards the patch is one again.
//!
//! Traffic never stops, and stays in order: workers have the queues before the model sends frames to them, and each lets
//! what is on its lanes of the wire through before it goes by a model that has the patch again. A wire that is to stay is
//! put in by [`splice`](super::splice).

use super::hands::when_done;
use super::{ControlError, Inner, State};
use crate::datapath::Command;
use crate::port::{Port, Wire, WireOptions};
use sluice_flows::DpPort;
use std::sync::Arc;

/// A patch that is a wire.
pub(super) struct Lent {
    ends: [DpPort; 2],
    /// Joined as long as they are there.
    _wires: [Wire; 2],
    /// The captures that look at it.
    captures: Vec<u64>,
}

impl State {
    /// Whether a patch port is one end of a wire for now.
    pub(super) fn is_lent(&self, port: DpPort) -> bool {
        self.lent.iter().any(|lent| lent.ends.contains(&port))
    }

    /// Takes out the patches of which one of these ports is an end.
    pub(super) fn take_lent(&mut self, ports: impl Iterator<Item = DpPort> + Clone) -> Vec<Lent> {
        self.lent.extract_if(.., |lent| ports.clone().any(|port| lent.ends.contains(&port))).collect()
    }
}

impl Inner {
    /// Makes the patch of which `port` is an end a wire, as long as the capture `id` looks at it.
    pub(super) fn lend_wire(&self, state: &mut State, id: u64, port: DpPort) -> Result<(), ControlError> {
        if let Some(lent) = state.lent.iter_mut().find(|lent| lent.ends.contains(&port)) {
            lent.captures.push(id);
            return Ok(());
        }
        let far = state.model.port(port).and_then(|(_, port)| port.peer);
        let far = far.and_then(|(bridge, no)| state.model.bridge(bridge)?.ports.get(&no).map(|port| port.dp));
        let Some((near, far)) = Some(port).filter(|port| state.patch(*port).is_some()).zip(far) else {
            return Err(ControlError::Capture { why: "a patch leads nowhere: its other end is not there".to_owned() });
        };
        let workers = self.workers.len();
        let options = WireOptions { mtu: 65_535, queues: workers, ..WireOptions::to("") };
        // Nobody asks for the names of ports that are in no list.
        let wires = Wire::pair(["near", "far"], [&options, &options])?;
        let ends = [near, far];
        let queues = [wires[0].queues(workers)?, wires[1].queues(workers)?];
        when_done(|done| {
            for (port, queues) in ends.into_iter().zip(queues) {
                let Some(counters) = state.patch(port) else { continue };
                for (worker, queue) in self.workers.iter().zip(queues) {
                    let (counters, done) = (Arc::clone(counters), done.clone());
                    worker.send(Command::LendPatch { port, queue, counters, done });
                }
            }
        });
        state.lent.push(Lent { ends, _wires: wires, captures: vec![id] });
        state.link_patches();
        self.publish(state);
        Ok(())
    }

    /// Makes wires patches again that only the capture `id` looked at.
    pub(super) fn end_lending(&self, state: &mut State, id: u64) {
        state.lent.iter_mut().for_each(|lent| lent.captures.retain(|capture| *capture != id));
        let idle: Vec<_> = state.lent.extract_if(.., |lent| lent.captures.is_empty()).collect();
        if !idle.is_empty() {
            state.link_patches();
            self.publish(state);
            self.return_patches(state, idle);
        }
    }

    /// Takes the queues away from patch ports that are no wires in the model any more.
    pub(super) fn return_patches(&self, state: &State, back: Vec<Lent>) {
        when_done(|done| {
            for port in back.iter().flat_map(|lent| lent.ends).filter(|port| state.patch(*port).is_some()) {
                for worker in &self.workers {
                    worker.send(Command::ReturnPatch { port, done: done.clone() });
                }
            }
        });
    }
}
