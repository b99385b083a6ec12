//! Wires that are put in while frames flow.
//!
//! Where nothing happens to frames on their way, two bridges are joined by a patch, and a device is a port of the bridge that it is
//! plugged into: neither costs anything. What is to delay or lose frames later needs a wire there, and gets one without
//! a frame being lost or overtaken:
//!
//! - Of a patch, each end becomes one of the wire, with its name, number and place.
//! - A device is moved as it is, with its queues and its captures, into a bridge of two ports; the other one is the far end of the
//!   wire, and the near end takes the device's place. One published model does all of it.
//!
//! Such a wire carries frames at once until it is [told otherwise](crate::port::WireSettings).

use super::bridges::check_name;
use super::hands::when_done;
use super::limits::Held;
use super::ports::{Device, PortState};
use super::{ControlError, Datapath, FailMode, Inner, State};
use crate::datapath::{Command, WireEnd};
use crate::event::EventKind;
use crate::port::{Port, PortKind, Wire, WireOptions};
use crate::stats::PortCounters;
use sluice_flows::bridge::{BridgePort, VlanMode};
use sluice_flows::{DpPort, PortNo};
use std::sync::Arc;
use std::time::Instant;

/// A wire that is to be put in at a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splice {
    /// The port: an end of a patch, or one with a device.
    pub port: String,
    /// Where its device is then; of no use for a patch.
    pub far: Far,
    /// The wire's MTU in bytes.
    pub mtu: u32,
    /// What the fates of frames follow from, with the names of both ends.
    pub seed: u64,
}

/// The bridge of two ports that a device is moved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Far {
    /// Its name; there must be none of it.
    pub bridge: String,
    /// What the device's port is called there; its number is 1.
    pub device: String,
    /// What the far end of the wire is called; its number is 2.
    pub wire: String,
}

impl Datapath {
    /// Puts a wire in at a port, so that what happens to frames there can be set. Returns whether it did: it does nothing where
    /// there is one already.
    ///
    /// # Errors
    /// There is no such port, it is a tunnel or a bridge's own, its patch leads nowhere, or a name is taken or cannot be one.
    pub fn splice(&self, splice: &Splice) -> Result<bool, ControlError> {
        let inner = &self.inner;
        let mut state = inner.lock_for_change()?;
        let near = state.port_named(&splice.port)?;
        let refused = |why| Err(ControlError::Splice { port: splice.port.clone(), why });
        let kind = match state.ports.get(&near).map(|known| &known.device) {
            Some(Device::Port(device)) => device.kind(),
            _ => PortKind::Patch,
        };
        match kind {
            PortKind::Wire => return Ok(false),
            PortKind::Patch => {
                let Some(far) = state.far_end(near) else { return refused("the other end of its patch is not there") };
                inner.splice_patch(&mut state, [near, far], splice)?;
            }
            PortKind::Local | PortKind::Tunnel(_) => return refused("it is a tunnel, or the bridge's own"),
            _ => inner.splice_device(&mut state, near, splice)?,
        }
        Ok(true)
    }
}

impl Inner {
    /// Has both ends of a patch be those of a wire.
    fn splice_patch(&self, state: &mut State, ends: [DpPort; 2], splice: &Splice) -> Result<(), ControlError> {
        let name = |port: DpPort| state.ports.get(&port).map_or_else(|| Arc::from(""), |known| Arc::clone(&known.name));
        let wires = self.wires([&name(ends[0]), &name(ends[1])], splice)?;
        let [near, far] = [wires[0].queues(self.workers.len())?, wires[1].queues(self.workers.len())?];
        // Frames may be sent to the queues when all workers have them.
        when_done(|done| {
            for (worker, (near, far)) in self.workers.iter().zip(near.into_iter().zip(far)) {
                let ends = [WireEnd { port: ends[0], queue: near }, WireEnd { port: ends[1], queue: far }];
                worker.send(Command::SplicePatch { ends, done: done.clone() });
            }
        });
        drop(state.take_lent(ends.into_iter()));
        for (port, wire) in ends.into_iter().zip(wires) {
            wire.joined(port);
            if let Some(known) = state.ports.get_mut(&port) {
                known.device = Device::Port(Arc::new(wire));
            }
            let at = state.model.ports.get(&port).copied();
            if let Some((bridge, no)) = at
                && let Some(bridge) = state.bridge_mut(bridge)
                && let Some(port) = bridge.ports.get(&no)
            {
                let port = BridgePort { peer: None, ..(**port).clone() };
                bridge.ports.insert(no, Arc::new(port));
            }
        }
        state.link_patches();
        self.publish(state);
        Ok(())
    }

    /// Puts a wire between a device and its bridge.
    fn splice_device(&self, state: &mut State, device: DpPort, splice: &Splice) -> Result<(), ControlError> {
        let Far { bridge: small, device: device_name, wire: wire_name } = &splice.far;
        for name in [device_name, wire_name] {
            check_name(name)?;
            if let Some(holder) = state.bridge_of_port(name) {
                return Err(ControlError::PortExists { name: name.clone(), bridge: holder.name.to_string() });
            }
        }
        let wires = self.wires([&splice.port, wire_name], splice)?;
        let workers = self.workers.len();
        let queues = [wires[0].queues(workers)?, wires[1].queues(workers)?];
        let unknown = || ControlError::UnknownPort { name: splice.port.clone() };
        let (bridge, was) =
            state.model.port(device).map(|(bridge, port)| (bridge.id, Arc::clone(port))).ok_or_else(unknown)?;
        // Nothing can be refused from here on.
        let small = self.make_bridge(state, small, FailMode::Standalone)?;
        let known = state.ports.get_mut(&device).ok_or_else(unknown)?;
        known.name = device_name.as_str().into();
        let admin_up = std::mem::replace(&mut known.admin_up, true);
        let up = known.link_up && !known.gone;
        let alone = |no, name: &str, dp, up| BridgePort {
            no: PortNo(no),
            name: name.into(),
            dp,
            vlan: VlanMode::default(),
            up,
            no_flood: false,
            protected: false,
            peer: None,
            tunnel: None,
        };
        state.put(small, alone(1, device_name, device, up));
        let names = [splice.port.as_str(), wire_name];
        for (index, (wire, queues)) in wires.into_iter().zip(queues).enumerate() {
            let dp = state.free_port();
            wire.joined(dp);
            let counters = Arc::new(PortCounters::new(workers));
            self.hand_out(dp, queues.into_iter().map(Some), &counters, false);
            let name: Arc<str> = names[index].into();
            let known = PortState {
                name: Arc::clone(&name),
                device: Device::Port(Arc::new(wire)),
                counters,
                held: Held::default(),
                admin_up,
                link_up: true,
                gone: false,
                added: Instant::now(),
            };
            state.ports.insert(dp, known);
            let (bridge, port) = match index {
                0 => (bridge, BridgePort { dp, up: admin_up, ..(*was).clone() }),
                _ => (small, alone(2, wire_name, dp, admin_up)),
            };
            let no = port.no;
            state.put(bridge, port);
            self.shared.events.publish(Some(bridge), EventKind::PortAdded { name, no, dp });
        }
        state.link_patches();
        self.publish(state);
        self.workers.iter().for_each(crate::datapath::WorkerHandle::wake);
        Ok(())
    }

    /// Both ends of a wire that carries frames at once.
    fn wires(&self, names: [&str; 2], splice: &Splice) -> Result<[Wire; 2], ControlError> {
        let options =
            WireOptions { mtu: splice.mtu, seed: splice.seed, queues: self.workers.len(), ..WireOptions::to("") };
        Ok(Wire::pair(names, [&options, &options])?)
    }
}

impl State {
    /// The port at the other end of a patch, whether or not a capture looks at it.
    fn far_end(&self, near: DpPort) -> Option<DpPort> {
        let known = self.ports.get(&near)?;
        let Device::Patch { peer } = &known.device else { return None };
        let far = self.port_named(peer).ok()?;
        let Device::Patch { peer: back } = &self.ports.get(&far)?.device else { return None };
        (**back == *known.name).then_some(far)
    }
}
