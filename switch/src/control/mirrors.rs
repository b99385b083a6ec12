//! Mirrors: set, removed, listed.

use super::ports::no_port;
use super::{ControlError, Datapath};
use sluice_flows::bridge::Bridge;
use sluice_flows::mirror::{Mirror, MirrorError, MirrorSpec};
use std::sync::Arc;

impl Datapath {
    /// Adds a mirror to a bridge, or changes the one of its name, which goes on counting where it was.
    ///
    /// # Errors
    /// When there is no such bridge or port, or the mirror cannot be.
    pub fn set_mirror(&self, bridge: &str, spec: MirrorSpec) -> Result<(), ControlError> {
        let mut state = self.inner.lock_for_change()?;
        let bridge = state.bridge(bridge)?;
        let name = Arc::clone(&spec.name);
        let Some(changed) = state.bridge_mut(bridge.id) else { return Ok(()) };
        changed.set_mirror(spec).map_err(|error| refused(&bridge, &name, error))?;
        let reserved = changed.mirrors.iter().find(|mirror| mirror.spec.name == name).and_then(Mirror::port);
        self.inner.publish(&mut state);
        drop(state);
        if let Some(port) = reserved {
            // Nobody can be reached behind it any more.
            self.inner.shared.macs.flush(bridge.id, Some(port));
            self.inner.shared.macs.flush_groups(bridge.id, Some(port));
        }
        Ok(())
    }

    /// Removes a mirror.
    ///
    /// # Errors
    /// When there is no such bridge or mirror.
    pub fn remove_mirror(&self, bridge: &str, name: &str) -> Result<(), ControlError> {
        let mut state = self.inner.lock_for_change()?;
        let bridge = state.bridge(bridge)?;
        if !state.bridge_mut(bridge.id).is_some_and(|bridge| bridge.remove_mirror(name)) {
            let known = super::bridges::list(bridge.mirrors.iter().map(|mirror| &*mirror.spec.name));
            return Err(ControlError::NoMirror { bridge: bridge.name.to_string(), name: name.to_owned(), known });
        }
        self.inner.publish(&mut state);
        Ok(())
    }
}

fn refused(bridge: &Bridge, name: &str, error: MirrorError) -> ControlError {
    match error {
        MirrorError::NoPort(port) => no_port(bridge, &port),
        source => ControlError::Mirror { bridge: bridge.name.to_string(), name: name.to_owned(), source },
    }
}
