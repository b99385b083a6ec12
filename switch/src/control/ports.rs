//! Ports: added and removed while traffic flows, changed, listed.

use super::bridges::{check_name, list};
use super::limits::{self, Held, Target, others};
use super::{ControlError, Datapath, Inner, State};
use crate::datapath::Notice;
use crate::event::EventKind;
use crate::port::{Limits, Port, PortCaps, PortDevice, PortKind, PortSpec, RxLoss, WireCounts, WireQueue, no_options};
use crate::stats::{PortCounters, PortStats};
use sluice_flows::bridge::{Bridge, BridgeId, BridgePort, VlanMode};
use sluice_flows::{DpPort, PortNo};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

/// A port as it is asked for.
pub struct PortRequest {
    /// Its name, unique in the switch.
    pub name: String,
    /// Its number in the bridge; `None` takes the lowest that no port had in the last hour, or this port's last one.
    pub number: Option<PortNo>,
    /// What it is made of.
    pub device: PortDevice,
    /// Which VLANs it carries under NORMAL.
    pub vlan: VlanMode,
    /// Left out of FLOOD and of NORMAL's flooding.
    pub no_flood: bool,
    /// Whether nothing that came by a protected port leaves by it.
    pub protected: bool,
    /// Administratively up.
    pub up: bool,
    /// Limits of its rate.
    pub limits: Limits,
}

impl PortRequest {
    /// A trunk of all VLANs, up, with any number.
    pub fn new(name: &str, device: PortDevice) -> Self {
        Self {
            name: name.to_owned(),
            number: None,
            device,
            vlan: VlanMode::default(),
            no_flood: false,
            protected: false,
            up: true,
            limits: Limits::default(),
        }
    }
}

/// What to change of a port; `None` leaves it as it is.
#[derive(Clone, Debug, Default)]
pub struct PortChange {
    /// Which VLANs it carries under NORMAL.
    pub vlan: Option<VlanMode>,
    /// Left out of FLOOD and of NORMAL's flooding.
    pub no_flood: Option<bool>,
    /// Whether nothing that came by a protected port leaves by it.
    pub protected: Option<bool>,
    /// Administratively up.
    pub up: Option<bool>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// Limits of its rate, both ways at once.
    pub limits: Option<Limits>,
    /// Options of its kind that can be changed while it runs, and those of its limits.
    pub options: Vec<(String, String)>,
}

/// A port as it is.
#[derive(Clone, Debug)]
pub struct PortInfo {
    /// Its bridge.
    pub bridge: BridgeId,
    /// Its bridge's name.
    pub bridge_name: Arc<str>,
    /// Its place in the bridge: number, name, VLANs.
    pub port: Arc<BridgePort>,
    /// What it is made of.
    pub kind: PortKind,
    /// Name of the port at the other end, for a patch port.
    pub peer: Option<String>,
    /// What its device goes by now, by the names of its kind's options.
    pub options: Vec<(&'static str, String)>,
    /// Administratively up.
    pub admin_up: bool,
    /// Its device is there and has a carrier; for a patch port, its peer is there.
    pub link_up: bool,
    /// Its device is gone for good.
    pub gone: bool,
    /// MTU in bytes; 0 when it has none.
    pub mtu: u32,
    /// Hardware address.
    pub mac: Option<[u8; 6]>,
    /// What the device takes without help from software.
    pub caps: PortCaps,
    /// Counters since it was added.
    pub stats: PortStats,
    /// Frames lost before a worker saw them.
    pub rx_loss: RxLoss,
    /// For the end of a wire, what became of the frames that it sent, and what waits.
    pub wire: Option<(WireCounts, WireQueue)>,
}

/// What the control side knows of a port.
pub(super) struct PortState {
    pub(super) name: Arc<str>,
    pub(super) device: Device,
    pub(super) counters: Arc<PortCounters>,
    pub(super) held: Held,
    pub(super) admin_up: bool,
    pub(super) link_up: bool,
    pub(super) gone: bool,
    pub(super) added: Instant,
}

pub(super) enum Device {
    Port(Arc<dyn Port>),
    Patch { peer: String },
}

/// Most threads that close ports at once.
const CLOSERS: usize = 32;

/// Closes ports that no worker holds any more, side by side: the close of a packet socket waits some 15 ms until no
/// processor can still be using it, and those that are closed at the same time share the wait.
pub(super) fn close(ports: Vec<PortState>) {
    let threads = ports.len().min(CLOSERS);
    let ports = Mutex::new(ports);
    let next = || ports.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let close = || {
        while let Some(port) = next() {
            drop(port);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // What no other thread can be had for is done by this one.
            _ = thread::Builder::new().name("sluice-close".to_owned()).spawn_scoped(scope, close);
        }
        close();
    });
}

/// Devices of ports that nobody has any more. They are closed when this is dropped, which takes a moment: without a lock, if
/// possible.
#[must_use]
pub(crate) struct Closing(Vec<PortState>);

impl Drop for Closing {
    fn drop(&mut self) {
        close(std::mem::take(&mut self.0));
    }
}

impl Datapath {
    /// Adds a port to a bridge. Frames flow when this returns.
    ///
    /// # Errors
    /// When there is no such bridge, the name or number is taken or cannot be one, or the device refuses.
    pub fn add_port(&self, bridge: &str, request: PortRequest) -> Result<DpPort, ControlError> {
        check_name(&request.name)?;
        let inner = &self.inner;
        let mut state = inner.lock_for_change()?;
        let bridge = state.bridge(bridge)?;
        if let Some(holder) = state.bridge_of_port(&request.name) {
            return Err(ControlError::PortExists { name: request.name, bridge: holder.name.to_string() });
        }
        let no = inner.pick_number(&mut state, &bridge, &request)?;
        limits::check(request.device.kind(), &request.name, request.limits)?;
        let dp = state.free_port();
        let workers = inner.workers.len();
        let counters = Arc::new(PortCounters::new(workers));
        let mut held = Held::default();
        let (device, queues) = match request.device {
            PortDevice::Patch { peer } => (Device::Patch { peer }, (0..workers).map(|_| None).collect::<Vec<_>>()),
            PortDevice::Device(port) => {
                port.joined(dp);
                let target = Target { device: &*port, dp, counters: &counters };
                let queues;
                (held, queues) = Held::begin(&target, request.limits, port.queues(workers)?)?;
                (Device::Port(Arc::from(port)), queues.into_iter().map(Some).collect())
            }
            PortDevice::Tunnel(port) => {
                let port = inner.join_endpoint(&mut state, *port, dp)?;
                let queues = port.queues(workers)?.into_iter().map(Some).collect();
                (Device::Port(Arc::from(port)), queues)
            }
        };
        let name: Arc<str> = request.name.into();
        let tunnel = if let Device::Port(port) = &device { port.tunnel() } else { None };
        let link_up = matches!(&device, Device::Port(port) if port.link_up());
        let admin_up = request.up;
        inner.hand_out(dp, queues, &counters, false);
        let known = PortState {
            name: Arc::clone(&name),
            device,
            counters,
            held,
            admin_up,
            link_up,
            gone: false,
            added: Instant::now(),
        };
        let is_awaited = known.is_awaited(known.added);
        state.ports.insert(dp, known);
        let port = BridgePort {
            no,
            name: Arc::clone(&name),
            dp,
            vlan: request.vlan,
            up: admin_up && link_up,
            no_flood: request.no_flood,
            protected: request.protected,
            peer: None,
            tunnel,
        };
        state.put(bridge.id, port);
        state.link_patches();
        inner.publish(&mut state);
        inner.workers.iter().for_each(crate::datapath::WorkerHandle::wake);
        if is_awaited {
            // Nobody listens only when the switch is ending.
            _ = inner.shared.notices.send(Notice::New);
        }
        inner.shared.events.publish(Some(bridge.id), EventKind::PortAdded { name, no, dp });
        Ok(dp)
    }

    /// Removes a port. Its device is closed when this returns; frames on their way to it are dropped as `no_port`.
    ///
    /// # Errors
    /// When there is no such bridge or port.
    pub fn remove_port(&self, bridge: &str, name: &str) -> Result<(), ControlError> {
        self.take_port(bridge, name).map(drop)
    }

    /// As [`remove_port`](Self::remove_port), but that the device is closed by dropping what is returned.
    ///
    /// # Errors
    /// When there is no such bridge or port.
    pub(crate) fn take_port(&self, bridge: &str, name: &str) -> Result<Closing, ControlError> {
        let mut state = self.inner.lock_for_change()?;
        let bridge = state.bridge(bridge)?;
        let port = find(&bridge, name)?;
        Ok(self.inner.remove_from(&mut state, &bridge, &[port]))
    }

    /// Changes a port.
    ///
    /// # Errors
    /// When there is no such bridge or port, or the device refuses the MTU.
    pub fn set_port(&self, bridge: &str, name: &str, change: &PortChange) -> Result<(), ControlError> {
        let mut state = self.inner.lock_for_change()?;
        let bridge = state.bridge(bridge)?;
        let port = find(&bridge, name)?;
        if let Some(known) = state.ports.get_mut(&port.dp) {
            match &known.device {
                Device::Port(device) => {
                    let target = Target { device: &**device, dp: port.dp, counters: &known.counters };
                    let planned = known.held.plan(&target, change)?;
                    device.set_options(&others(&change.options))?;
                    if let Some(mtu) = change.mtu {
                        device.set_mtu(mtu)?;
                    }
                    if let Some(planned) = planned {
                        known.held.carry_out(&self.inner, port.dp, planned);
                    }
                }
                Device::Patch { .. } => {
                    no_options(PortKind::Patch, name, &change.options)?;
                    limits::check(PortKind::Patch, name, change.limits.unwrap_or_default())?;
                }
            }
            known.admin_up = change.up.unwrap_or(known.admin_up);
        }
        let mut next = (*port).clone();
        next.vlan = change.vlan.clone().unwrap_or(next.vlan);
        next.no_flood = change.no_flood.unwrap_or(next.no_flood);
        next.protected = change.protected.unwrap_or(next.protected);
        self.inner.update_port(&mut state, bridge.id, next);
        Ok(())
    }

    /// Has a port become what `spec` says, while frames flow, if its kind can. Whether it did: if not, it is as it was.
    ///
    /// # Errors
    /// When there is no such bridge or port, or the device refuses.
    pub fn set_port_spec(&self, bridge: &str, name: &str, spec: &PortSpec) -> Result<bool, ControlError> {
        let state = self.inner.lock_for_change()?;
        let bridge = state.bridge(bridge)?;
        let port = find(&bridge, name)?;
        match state.ports.get(&port.dp).map(|known| &known.device) {
            Some(Device::Port(device)) => Ok(device.set_spec(spec)?),
            _ => Ok(false),
        }
    }

    /// The ports of one bridge, or of all if none is named, sorted by bridge name and number.
    ///
    /// # Errors
    /// When there is no such bridge.
    pub fn ports(&self, bridge: Option<&str>) -> Result<Vec<PortInfo>, ControlError> {
        let state = self.inner.lock();
        let bridges = match bridge {
            Some(name) => vec![state.bridge(name)?],
            None => {
                let mut all: Vec<_> = state.model.bridges.values().cloned().collect();
                all.sort_by(|a, b| a.name.cmp(&b.name));
                all
            }
        };
        let ports = bridges.iter().flat_map(|b| b.ports.values().map(move |port| (b, port)));
        Ok(ports.filter_map(|(bridge, port)| Some(info(bridge, port, state.ports.get(&port.dp)?))).collect())
    }
}

impl Datapath {
    /// The device of a port; `None` for a patch port.
    pub(crate) fn device(&self, dp: DpPort) -> Option<Arc<dyn Port>> {
        self.inner.device(dp)
    }
}

impl Inner {
    pub(super) fn device(&self, dp: DpPort) -> Option<Arc<dyn Port>> {
        match &self.lock().ports.get(&dp)?.device {
            Device::Port(device) => Some(Arc::clone(device)),
            Device::Patch { .. } => None,
        }
    }

    /// The number that the port gets.
    fn pick_number(&self, state: &mut State, bridge: &Bridge, request: &PortRequest) -> Result<PortNo, ControlError> {
        let name = || request.name.clone();
        match request.number {
            Some(no) if !no.is_ordinary() && no != PortNo::LOCAL => Err(ControlError::BadNumber { name: name(), no }),
            Some(no) => match bridge.ports.get(&no) {
                None => Ok(no),
                Some(holder) => Err(ControlError::NumberTaken {
                    name: name(),
                    no,
                    bridge: bridge.name.to_string(),
                    holder: holder.name.to_string(),
                }),
            },
            None => {
                let numbers = state.numbers.entry(bridge.id).or_default();
                let picked = numbers.pick(&request.name, |no| bridge.ports.contains_key(&no), self.shared.clock.now());
                picked.ok_or_else(|| ControlError::NoNumberLeft { name: name(), bridge: bridge.name.to_string() })
            }
        }
    }

    /// Takes ports out of model and workers, in this order: no packet is sent to them when the workers let go of them.
    /// Tunnels are closed at once, before their endpoints; the devices of other ports when what is returned is dropped.
    pub(super) fn remove_from(&self, state: &mut State, bridge: &Bridge, ports: &[Arc<BridgePort>]) -> Closing {
        let mut closing = Vec::new();
        for port in ports {
            state.model.ports.remove(&port.dp);
            if let Some(bridge) = state.bridge_mut(bridge.id) {
                bridge.ports.remove(&port.no);
            }
            state.numbers.entry(bridge.id).or_default().rest(port.no, &port.name, self.shared.clock.now());
            closing.extend(state.ports.remove(&port.dp));
        }
        if let Some(bridge) = state.bridge_mut(bridge.id) {
            bridge.place_mirrors();
        }
        let lent = state.take_lent(ports.iter().map(|port| port.dp));
        state.link_patches();
        self.publish(state);
        self.take_back(ports.iter().map(|port| port.dp));
        self.return_patches(state, lent);
        let mut closing = Closing(closing);
        if ports.iter().any(|port| port.tunnel.is_some()) {
            drop(std::mem::replace(&mut closing, Closing(Vec::new())));
        }
        self.leave_endpoints(state, ports);
        for port in ports {
            self.shared.macs.flush(bridge.id, Some(port.no));
            self.shared.macs.flush_groups(bridge.id, Some(port.no));
            let (name, no, dp) = (Arc::clone(&port.name), port.no, port.dp);
            self.shared.events.publish(Some(bridge.id), EventKind::PortRemoved { name, no, dp });
        }
        closing
    }

    /// Puts `port` in the place of the one with its number, its state as its device has it.
    pub(super) fn update_port(&self, state: &mut State, bridge: BridgeId, mut port: BridgePort) {
        let Some(known) = state.ports.get(&port.dp) else { return };
        let gone = known.gone;
        if matches!(known.device, Device::Port(_)) {
            port.up = known.admin_up && known.link_up && !gone;
        }
        let (no, dp) = (port.no, port.dp);
        if let Some(bridge) = state.bridge_mut(bridge) {
            bridge.ports.insert(no, Arc::new(port));
        }
        state.link_patches();
        self.publish(state);
        let Some((_, port)) = state.model.port(dp) else { return };
        let (name, up) = (Arc::clone(&port.name), port.up);
        if !up {
            self.shared.macs.flush(bridge, Some(no));
            self.shared.macs.flush_groups(bridge, Some(no));
        }
        self.shared.events.publish(Some(bridge), EventKind::PortChanged { name, no, up, gone });
    }
}

impl State {
    /// The lowest datapath number that no port has.
    pub(super) fn free_port(&self) -> DpPort {
        self.free_port_but(DpPort(u32::MAX))
    }

    /// The lowest datapath number that neither a port nor an endpoint has, and that is not `reserved`.
    pub(super) fn free_port_but(&self, reserved: DpPort) -> DpPort {
        let taken = |dp: DpPort| {
            dp == reserved || self.ports.contains_key(&dp) || self.endpoints.iter().any(|open| open.lane == dp)
        };
        (0..).map(DpPort).find(|dp| !taken(*dp)).unwrap_or(reserved)
    }

    /// Puts a port into a bridge of the model: the caller publishes.
    pub(super) fn put(&mut self, bridge: BridgeId, port: BridgePort) {
        self.model.ports.insert(port.dp, (bridge, port.no));
        if let Some(bridge) = self.bridge_mut(bridge) {
            bridge.ports.insert(port.no, Arc::new(port));
            bridge.place_mirrors();
        }
    }

    pub(super) fn bridge_of_port(&self, name: &str) -> Option<&Arc<Bridge>> {
        let (dp, _) = self.ports.iter().find(|(_, p)| &*p.name == name)?;
        self.model.port(*dp).map(|(bridge, _)| bridge)
    }

    /// The port of this name.
    pub(super) fn port_named(&self, name: &str) -> Result<DpPort, ControlError> {
        let found = self.ports.iter().find(|(_, known)| &*known.name == name);
        found.map(|(dp, _)| *dp).ok_or_else(|| ControlError::UnknownPort { name: name.to_owned() })
    }

    /// The counters of a port, if it is one end of a patch.
    pub(super) fn patch(&self, dp: DpPort) -> Option<&Arc<PortCounters>> {
        let known = self.ports.get(&dp).filter(|known| matches!(known.device, Device::Patch { .. }))?;
        Some(&known.counters)
    }

    /// The ends of wires, with their names.
    pub(super) fn wires(&self) -> impl Iterator<Item = (DpPort, Arc<str>, Arc<dyn Port>)> {
        self.ports.iter().filter_map(|(dp, known)| match &known.device {
            Device::Port(port) if port.wire().is_some() => Some((*dp, Arc::clone(&known.name), Arc::clone(port))),
            _ => None,
        })
    }

    /// Connects every patch port with its peer, if each names the other, and takes the others down; and so with wires.
    pub(super) fn link_patches(&mut self) {
        let patches: Vec<_> = self
            .ports
            .iter()
            .filter_map(|(dp, p)| match &p.device {
                Device::Patch { peer } => Some((*dp, Arc::clone(&p.name), peer.clone(), p.admin_up)),
                Device::Port(_) => None,
            })
            .collect();
        self.link_wires();
        for (dp, name, peer, admin_up) in &patches {
            let other = patches.iter().find(|(_, other, back, _)| **other == **peer && **back == **name);
            let far = other.and_then(|(dp, ..)| self.model.ports.get(dp).copied());
            let up = *admin_up && far.is_some();
            if let Some(known) = self.ports.get_mut(dp) {
                known.link_up = far.is_some();
            }
            let peer = far.filter(|_| !self.is_lent(*dp));
            let Some((bridge, no)) = self.model.ports.get(dp).copied() else { continue };
            let Some(bridge) = self.bridge_mut(bridge) else { continue };
            if let Some(port) = bridge.ports.get(&no).filter(|p| p.peer != peer || p.up != up) {
                let port = BridgePort { peer, up, ..(**port).clone() };
                bridge.ports.insert(no, Arc::new(port));
            }
        }
    }
}

fn find(bridge: &Bridge, name: &str) -> Result<Arc<BridgePort>, ControlError> {
    bridge.ports.values().find(|p| &*p.name == name).cloned().ok_or_else(|| no_port(bridge, name))
}

/// The bridge has no such port.
pub(super) fn no_port(bridge: &Bridge, name: &str) -> ControlError {
    ControlError::NoPort {
        bridge: bridge.name.to_string(),
        name: name.to_owned(),
        known: list(bridge.ports.values().map(|p| &*p.name)),
    }
}

fn info(bridge: &Arc<Bridge>, port: &Arc<BridgePort>, known: &PortState) -> PortInfo {
    let (device, peer) = match &known.device {
        Device::Port(device) => (Some(device), None),
        Device::Patch { peer } => (None, Some(peer.clone())),
    };
    PortInfo {
        bridge: bridge.id,
        bridge_name: Arc::clone(&bridge.name),
        port: Arc::clone(port),
        kind: device.map_or(PortKind::Patch, |d| d.kind()),
        peer,
        options: device.map_or_else(Vec::new, |d| d.options()).into_iter().chain(known.held.options()).collect(),
        admin_up: known.admin_up,
        link_up: known.link_up,
        gone: known.gone,
        mtu: device.map_or(0, |d| d.mtu()),
        mac: device.and_then(|d| d.mac()),
        caps: device.map_or(PortCaps::ALL, |d| d.caps()),
        stats: known.counters.total(),
        rx_loss: device.map_or_else(RxLoss::default, |d| d.rx_loss()),
        wire: device.and_then(|d| d.wire()).map(|wire| (wire.counts(), wire.waiting())),
    }
}
