//! Limits of ports' rates, set when a port is added and changed while frames flow.

use super::ports::PortChange;
use super::{ControlError, Inner};
use crate::datapath::{Command, Reshape};
use crate::port::{Limits, Port, PortError, PortKind, PortQueue, Shaped, Shaper, Shaping, SpecError, is_limit};
use crate::stats::PortCounters;
use sluice_flows::DpPort;
use std::sync::Arc;

/// What the control side knows of the limits of a port's rate.
#[derive(Default)]
pub(super) struct Held {
    limits: Limits,
    /// While there are limits.
    shaper: Option<Arc<Shaper>>,
}

/// A change of limits that nothing can be in the way of any more.
pub(super) struct Planned {
    limits: Limits,
    /// A shaper, and what the workers' queues are wrapped with, for a port that had no limits.
    new: Option<(Arc<Shaper>, Vec<Shaping>)>,
}

/// A port of which limits are changed.
pub(super) struct Target<'a> {
    pub(super) device: &'a dyn Port,
    pub(super) dp: DpPort,
    pub(super) counters: &'a Arc<PortCounters>,
}

impl Target<'_> {
    fn failed(&self) -> impl Fn(std::io::Error) -> PortError {
        |error| PortError::from_io(self.device.name(), "limit its rate", error)
    }
}

/// Refuses limits of a port of a kind that can have none.
pub(super) fn check(kind: PortKind, port: &str, limits: Limits) -> Result<(), PortError> {
    if limits.is_none() || Limits::are_for(kind) {
        return Ok(());
    }
    let option = Limits::NAMES[if limits.in_force().rx.is_some() { 0 } else { 2 }].to_owned();
    Err(PortError::Option { port: port.to_owned(), why: SpecError::UnknownOption { kind, option } })
}

impl Held {
    /// For a port that is being added: its `queues` are wrapped if there are limits.
    pub(super) fn begin(
        target: &Target<'_>,
        limits: Limits,
        queues: Vec<Box<dyn PortQueue>>,
    ) -> Result<(Self, Vec<Box<dyn PortQueue>>), PortError> {
        let limits = limits.in_force();
        if limits.is_none() {
            return Ok((Self::default(), queues));
        }
        let shaper = Shaper::new(target.device, target.dp, target.counters, limits);
        let shapings = shaper.shapings().map_err(target.failed())?;
        let wrap = |(queue, shaping)| Shaped::wrap(queue, shaping).map_err(|(_, error)| target.failed()(error));
        let queues = queues.into_iter().zip(shapings).map(wrap).collect::<Result<_, PortError>>()?;
        Ok((Self { limits, shaper: Some(shaper) }, queues))
    }

    /// The limits in force, by the names of their options.
    pub(super) fn options(&self) -> Vec<(&'static str, String)> {
        self.limits.options()
    }

    /// What `change` wants of the limits; `None` when it leaves them. Nothing has changed yet.
    pub(super) fn plan(&self, target: &Target<'_>, change: &PortChange) -> Result<Option<Planned>, ControlError> {
        let options = change.options.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let named = |why| PortError::Option { port: target.device.name().to_owned(), why };
        let limits = change.limits.unwrap_or(self.limits).with(options).map_err(named)?;
        if limits == self.limits {
            return Ok(None);
        }
        check(target.device.kind(), target.device.name(), limits)?;
        if self.shaper.is_some() || limits.is_none() {
            return Ok(Some(Planned { limits, new: None }));
        }
        let shaper = Shaper::new(target.device, target.dp, target.counters, limits);
        let shapings = shaper.shapings().map_err(target.failed())?;
        Ok(Some(Planned { limits, new: Some((shaper, shapings)) }))
    }

    /// Has the workers go by what was planned.
    pub(super) fn carry_out(&mut self, inner: &Inner, port: DpPort, planned: Planned) {
        let Planned { limits, new } = planned;
        self.limits = limits;
        let tell = |changes: &mut dyn Iterator<Item = Reshape>| {
            for (worker, change) in inner.workers.iter().zip(changes) {
                worker.send(Command::Shape { port, change });
            }
        };
        match (new, &self.shaper) {
            (Some((shaper, shapings)), _) => {
                self.shaper = Some(shaper);
                tell(&mut shapings.into_iter().map(Reshape::Wrap));
            }
            (None, Some(shaper)) => {
                shaper.set(limits);
                if limits.is_none() {
                    tell(&mut std::iter::repeat_with(|| Reshape::Unwrap));
                    self.shaper = None;
                } else {
                    tell(&mut std::iter::repeat_with(|| Reshape::Look));
                }
            }
            (None, None) => {}
        }
    }
}

/// The options of a change that are the device's own.
pub(super) fn others(options: &[(String, String)]) -> Vec<(String, String)> {
    options.iter().filter(|(name, _)| !is_limit(name)).cloned().collect()
}
