//! Whether the devices of ports are up: asked now and then, and more often of new ports.

use super::ports::{Device, PortState};
use super::{Datapath, Inner, State};
use crate::port::PortKind;
use sluice_flows::DpPort;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// For how long a port without a carrier is new: who adds one sets its interface up soon after.
const NEW: Duration = Duration::from_secs(30);

impl PortState {
    /// Whether it is new, and its interface has not been set up yet.
    pub(super) fn is_awaited(&self, now: Instant) -> bool {
        let is_interface = matches!(&self.device, Device::Port(port)
            if matches!(port.kind(), PortKind::Tap | PortKind::TapPlain | PortKind::AfPacket | PortKind::AfXdp));
        is_interface && !self.link_up && !self.gone && now.saturating_duration_since(self.added) < NEW
    }
}

impl Datapath {
    /// Asks the device of a port whether it is up, and makes known what changed. Whether it is.
    pub(crate) fn watch_port(&self, dp: DpPort) -> bool {
        self.inner.watch_port(dp)
    }
}

impl Inner {
    fn watch_port(&self, dp: DpPort) -> bool {
        // Asked without the lock: a device may take its time.
        let Some(device) = self.device(dp) else { return false };
        let up = device.link_up();
        let mut state = self.lock();
        let Some(known) = state.ports.get_mut(&dp).filter(|known| !known.gone) else { return false };
        // The number may be another port's by now.
        if known.link_up != up && matches!(&known.device, Device::Port(port) if Arc::ptr_eq(port, &device)) {
            known.link_up = up;
            self.refresh_port(&mut state, dp);
        }
        up
    }

    /// Notes that a port's device is gone for good.
    pub(super) fn port_gone(&self, dp: DpPort) {
        let mut state = self.lock();
        let Some(known) = state.ports.get_mut(&dp).filter(|p| !p.gone) else { return };
        known.gone = true;
        known.link_up = false;
        self.refresh_port(&mut state, dp);
    }

    /// Asks every device whether it is up, and makes known what changed.
    pub(super) fn watch_links(&self) {
        self.watch(|known| !known.gone);
    }

    /// The same of new ports whose interface has not been set up. Whether there are any left.
    pub(super) fn watch_new_links(&self, now: Instant) -> bool {
        self.watch(|known| known.is_awaited(now));
        self.lock().ports.values().any(|known| known.is_awaited(now))
    }

    fn watch(&self, counts: impl Fn(&PortState) -> bool) {
        let state = self.lock();
        let ports: Vec<DpPort> = state.ports.iter().filter(|(_, known)| counts(known)).map(|(dp, _)| *dp).collect();
        drop(state);
        ports.into_iter().for_each(|dp| _ = self.watch_port(dp));
    }

    fn refresh_port(&self, state: &mut State, dp: DpPort) {
        if let Some((bridge, port)) = state.model.port(dp).map(|(b, p)| (b.id, (**p).clone())) {
            self.update_port(state, bridge, port);
        }
    }
}

impl State {
    /// Notes whether a port's device is up. Returns whether the port is; `None` when there is no such port.
    pub(super) fn set_link(&mut self, dp: DpPort, link_up: bool) -> Option<bool> {
        let known = self.ports.get_mut(&dp)?;
        known.link_up = link_up;
        Some(known.admin_up && link_up && !known.gone)
    }
}
