//! Making a running switch what a configuration says: at the start, and again when the file has changed.
//!
//! What has to change is found by comparing two configurations, not by looking at the switch: what others added through
//! the API is not ours to remove. A bridge or port that is in both but is made differently is removed and made anew;
//! VLANs, flooding and state are changed in place. A bridge's flows, groups and meters are compared as text and
//! replaced in one step.

use super::{BridgeConfig, Config, FlowLine, PortConfig, lines, mirrors};
use crate::attach;
use crate::conntrack::SettingsError;
use crate::host::gateway::{self, GatewayError};
use crate::port::{Limits, PortKind, PortSpec, SpecError};
use crate::router::{NameError, RouterError};
use crate::{ControlError, Datapath, FailMode, PortChange, PortRequest};
use sluice_flows::PortNo;
use sluice_flows::text::{Names, ParseError};
use std::fmt;
use thiserror::Error;

/// Why the switch cannot be made what was asked for.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The switch or the system refused.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Settings of connection tracking are wrong.
    #[error("conntrack: {0}")]
    Conntrack(#[from] SettingsError),
    /// A gateway cannot be made.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// A port's options are wrong.
    #[error("port {port}: {source}")]
    Spec {
        /// The port.
        port: String,
        /// What is wrong.
        source: SpecError,
    },
    /// A name in a router means nothing.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A router was refused.
    #[error(transparent)]
    Router(#[from] RouterError),
    /// A flow, group or meter is wrong. Prints as `FILE:LINE:COLUMN: WHAT`, with the text below it.
    #[error("{}:{}:{column}: {}", .line.path.display(), .line.line, lines::without_column(error))]
    Flow {
        /// Where it stands.
        line: Box<FlowLine>,
        /// Column of the fault, from 1.
        column: usize,
        /// What is wrong.
        error: Box<ParseError>,
    },
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A bridge was made.
    BridgeAdded(String),
    /// A bridge was removed.
    BridgeRemoved(String),
    /// A bridge was changed in place.
    BridgeChanged(String),
    /// A port was added.
    PortAdded(String),
    /// A port was removed.
    PortRemoved(String),
    /// A port was changed in place.
    PortChanged(String),
    /// A bridge's flows, groups, meters and what is said of its tables were replaced.
    FlowsReplaced(String),
    /// A mirror was made or changed.
    MirrorSet(String),
    /// A mirror was removed.
    MirrorRemoved(String),
    /// A bridge's gateway was made, changed or taken away.
    GatewayChanged(String),
    /// Something that others had undone on the host was done again.
    GatewayMended(String),
    /// Limits, timeouts and other settings of connection tracking were changed.
    ConntrackChanged,
    /// A router was made, or made anew.
    RouterSet(String),
    /// A router was removed.
    RouterRemoved(String),
    /// Other Geneve options can be matched and set.
    TlvMapChanged,
    /// A setting differs that takes effect only at the next start.
    NeedsRestart(&'static str),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BridgeAdded(name) => write!(f, "bridge {name} added"),
            Self::BridgeRemoved(name) => write!(f, "bridge {name} removed"),
            Self::BridgeChanged(name) => write!(f, "bridge {name} changed"),
            Self::PortAdded(name) => write!(f, "port {name} added"),
            Self::PortRemoved(name) => write!(f, "port {name} removed"),
            Self::PortChanged(name) => write!(f, "port {name} changed"),
            Self::FlowsReplaced(name) => write!(f, "flows of bridge {name} replaced"),
            Self::MirrorSet(name) => write!(f, "mirror {name} set"),
            Self::MirrorRemoved(name) => write!(f, "mirror {name} removed"),
            Self::GatewayChanged(name) => write!(f, "gateway of bridge {name} changed"),
            Self::GatewayMended(what) => write!(f, "gateway: {what}"),
            Self::ConntrackChanged => f.write_str("settings of connection tracking changed"),
            Self::RouterSet(name) => write!(f, "router {name} set"),
            Self::RouterRemoved(name) => write!(f, "router {name} removed"),
            Self::TlvMapChanged => f.write_str("the map of Geneve options changed"),
            Self::NeedsRestart(what) => write!(f, "`{what}` takes effect at the next start"),
        }
    }
}

/// Makes everything that `config` names in a switch that has nothing yet.
///
/// # Errors
/// [`SetupError`] for the first thing that cannot be made; what was made before it is there.
pub fn start(datapath: &Datapath, config: &Config) -> Result<(), SetupError> {
    set_conntrack(datapath, config)?;
    datapath.set_tlv_map(config.tlv_map)?;
    config.bridges.iter().try_for_each(|bridge| start_bridge(datapath, bridge))?;
    super::routers::start(datapath, config)
}

/// Has the switch track connections as the configuration says.
fn set_conntrack(datapath: &Datapath, config: &Config) -> Result<(), SetupError> {
    datapath.set_connection_settings(|settings| {
        settings.clone_from(&config.conntrack);
        Ok::<(), SettingsError>(())
    })?;
    Ok(())
}

fn start_bridge(datapath: &Datapath, bridge: &BridgeConfig) -> Result<(), SetupError> {
    let mode = if bridge.flows.is_some() { FailMode::Secure } else { FailMode::Standalone };
    add_bridge(datapath, &bridge.name, mode, bridge.local_port)?;
    datapath.set_mcast_snooping(&bridge.name, bridge.mcast_snooping)?;
    for port in &bridge.ports {
        add_port(datapath, &bridge.name, port)?;
    }
    mirrors::start(datapath, bridge)?;
    lines::start(datapath, bridge)?;
    start_gateway(datapath, bridge)
}

fn start_gateway(datapath: &Datapath, bridge: &BridgeConfig) -> Result<(), SetupError> {
    let Some(config) = &bridge.gateway else { return Ok(()) };
    let done = gateway::start(datapath, &bridge.name, config)?;
    done.iter().for_each(|what| tracing::info!(bridge = bridge.name, "gateway: {what}"));
    Ok(())
}

/// Takes the gateway of a bridge away. Nothing can be done about what fails, so it is said in the log.
fn stop_gateway(datapath: &Datapath, bridge: &BridgeConfig) {
    if bridge.gateway.is_none() {
        return;
    }
    match gateway::stop(datapath, &bridge.name) {
        Ok(done) => done.iter().for_each(|what| tracing::info!(bridge = bridge.name, "gateway: {what}")),
        Err(what) => tracing::error!(bridge = bridge.name, %what, "something of the gateway is left on the host"),
    }
}

/// Takes away what the configuration's gateways have put on the host.
pub fn stop(datapath: &Datapath, config: &Config) {
    config.bridges.iter().for_each(|bridge| stop_gateway(datapath, bridge));
}

/// Makes a bridge, with its own port if that is wanted; or neither.
///
/// # Errors
/// [`SetupError::Control`].
pub fn add_bridge(datapath: &Datapath, name: &str, mode: FailMode, local_port: bool) -> Result<(), SetupError> {
    datapath.add_bridge(name, mode)?;
    if local_port {
        let port = PortConfig { number: Some(PortNo::LOCAL), ..PortConfig::new(name, PortKind::Local) };
        if let Err(error) = add_port(datapath, name, &port) {
            datapath.remove_bridge(name)?;
            return Err(error);
        }
    }
    Ok(())
}

/// Opens a port and adds it to a bridge.
///
/// # Errors
/// [`SetupError`]; no port is added then.
pub fn add_port(datapath: &Datapath, bridge: &str, port: &PortConfig) -> Result<(), SetupError> {
    let (spec, limits) = spec(port)?;
    // The name and the bridge are checked first, so that no device is made in vain.
    datapath.bridge(bridge)?;
    let workers = datapath.worker_stats().len();
    let device = spec.open(&port.name, workers).map_err(ControlError::from)?;
    let request = PortRequest {
        name: port.name.clone(),
        number: port.number,
        device,
        vlan: port.vlan.clone(),
        no_flood: !port.flood,
        protected: port.protected,
        up: port.up,
        limits,
    };
    datapath.add_port(bridge, request)?;
    Ok(())
}

fn spec(port: &PortConfig) -> Result<(PortSpec, Limits), SetupError> {
    let options = port.options.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let spec = PortSpec::parse_with_limits(port.kind, options);
    spec.map_err(|source| SetupError::Spec { port: port.name.clone(), source })
}

/// Checks what can be checked without making anything: port options, and flows, groups and meters against the
/// names of their bridge.
///
/// # Errors
/// [`SetupError::Spec`] or [`SetupError::Flow`].
pub fn check(config: &Config) -> Result<(), SetupError> {
    for bridge in &config.bridges {
        let mut names = Names::new();
        names.add_port(PortNo::LOCAL, bridge.name.as_str());
        for (number, port) in (1..).zip(&bridge.ports) {
            spec(port)?;
            // Which number a port gets does not matter here, but that its name is one does.
            names.add_port(port.number.unwrap_or(PortNo(number)), port.name.as_str());
        }
        lines::check(bridge, &mut names)?;
    }
    Ok(())
}

/// Makes a switch that is as `old` says what `new` says. `new` is [checked](check) first, so that a file with a fault
/// changes nothing. What the system refuses (a device that is not there) is told, and the rest is done.
///
/// # Errors
/// [`SetupError`] when `new` has a fault: nothing was changed.
pub fn reload(datapath: &Datapath, old: &Config, new: &Config) -> Result<(Vec<Change>, Vec<SetupError>), SetupError> {
    check(new)?;
    let mut work = Reload { datapath, done: Vec::new(), failed: Vec::new() };
    for (differs, what) in [
        (old.workers != new.workers, "workers"),
        (old.pin != new.pin, "pin"),
        (old.spin_us != new.spin_us, "spin_us"),
        (old.mac_age_s != new.mac_age_s, "mac_age"),
        (old.socket != new.socket, "socket"),
        (old.state != new.state, "state"),
        (old.log_format != new.log_format, "log.format"),
    ] {
        if differs {
            work.done.push(Change::NeedsRestart(what));
        }
    }
    if old.tlv_map != new.tlv_map {
        work.note(datapath.set_tlv_map(new.tlv_map).map_err(SetupError::from), Change::TlvMapChanged);
    }
    if old.conntrack != new.conntrack {
        work.note(set_conntrack(datapath, new), Change::ConntrackChanged);
    }
    for bridge in &old.bridges {
        if !new.bridges.iter().any(|b| b.name == bridge.name && b.local_port == bridge.local_port) {
            stop_gateway(datapath, bridge);
            let result = datapath.remove_bridge(&bridge.name).map_err(SetupError::from);
            work.note(result, Change::BridgeRemoved(bridge.name.clone()));
        }
    }
    for bridge in &new.bridges {
        match old.bridges.iter().find(|b| b.name == bridge.name && b.local_port == bridge.local_port) {
            Some(before) => work.bridge(before, bridge),
            None => {
                attach::give_up_bridge(datapath, &bridge.name);
                work.note(start_bridge(datapath, bridge), Change::BridgeAdded(bridge.name.clone()));
            }
        }
    }
    for result in gateway::mend(datapath) {
        match result {
            Ok(done) => work.done.push(Change::GatewayMended(done)),
            Err(error) => work.failed.push(error.into()),
        }
    }
    super::routers::reload(datapath, old, new, &mut |result, change| work.note(result, change));
    attach::after_reload(datapath);
    Ok((work.done, work.failed))
}

/// Whether the port of a gateway is made as it was, so that its interface stays.
fn gateway_port_stays(old: &BridgeConfig, new: &BridgeConfig) -> bool {
    let Some(config) = &new.gateway else { return true };
    let port = |bridge: &BridgeConfig| bridge.ports.iter().find(|port| port.name == config.port).cloned();
    match (port(old), port(new)) {
        (Some(a), Some(b)) => made_alike(&a, &b),
        (None, None) => true,
        _ => false,
    }
}

/// Whether two ports need not be made anew to become each other.
fn made_alike(a: &PortConfig, b: &PortConfig) -> bool {
    (&a.name, a.kind, a.number) == (&b.name, b.kind, b.number) && a.own_options().eq(b.own_options())
}

struct Reload<'a> {
    datapath: &'a Datapath,
    done: Vec<Change>,
    failed: Vec<SetupError>,
}

impl Reload<'_> {
    fn note(&mut self, result: Result<(), SetupError>, change: Change) {
        match result {
            Ok(()) => self.done.push(change),
            Err(error) => self.failed.push(error),
        }
    }

    /// Has a port that is there take its options as they now are, if its kind can while frames flow. Options may refer to
    /// files that have changed, so this is done for options that read the same too.
    fn adapt(&mut self, old: &BridgeConfig, bridge: &str, port: &PortConfig) -> bool {
        let alike =
            |before: &&PortConfig| (&before.name, before.kind, before.number) == (&port.name, port.kind, port.number);
        let Some(_) = old.ports.iter().find(alike) else { return false };
        let done = spec(port).and_then(|(spec, _)| Ok(self.datapath.set_port_spec(bridge, &port.name, &spec)?));
        done.unwrap_or_else(|error| {
            self.failed.push(error);
            // It stays as it was.
            true
        })
    }

    fn bridge(&mut self, old: &BridgeConfig, new: &BridgeConfig) {
        let gateway = old.gateway != new.gateway || !gateway_port_stays(old, new);
        if gateway {
            stop_gateway(self.datapath, old);
        }
        if old.mcast_snooping != new.mcast_snooping {
            let result = self.datapath.set_mcast_snooping(&new.name, new.mcast_snooping).map_err(SetupError::from);
            self.note(result, Change::BridgeChanged(new.name.clone()));
        }
        self.ports_and_flows(old, new);
        mirrors::reload(self.datapath, (old, new), &mut |result, change| self.note(result, change));
        if gateway {
            let result = start_gateway(self.datapath, new);
            self.note(result, Change::GatewayChanged(new.name.clone()));
        }
    }

    /// Has a port that stays take what may change while it runs.
    fn change(&self, bridge: &str, port: &PortConfig) -> Result<(), SetupError> {
        let change = PortChange {
            vlan: Some(port.vlan.clone()),
            no_flood: Some(!port.flood),
            protected: Some(port.protected),
            up: Some(port.up),
            limits: Some(spec(port)?.1),
            ..PortChange::default()
        };
        Ok(self.datapath.set_port(bridge, &port.name, &change)?)
    }

    fn ports_and_flows(&mut self, old: &BridgeConfig, new: &BridgeConfig) {
        let adapted: Vec<_> = new.ports.iter().filter(|port| self.adapt(old, &new.name, port)).collect();
        for port in &old.ports {
            let adapted = adapted.iter().any(|p| p.name == port.name);
            if !adapted && !new.ports.iter().any(|p| made_alike(p, port)) {
                let result = self.datapath.remove_port(&new.name, &port.name).map_err(SetupError::from);
                self.note(result, Change::PortRemoved(port.name.clone()));
            }
        }
        for port in &new.ports {
            let adapted = adapted.iter().any(|p| p.name == port.name);
            match old.ports.iter().find(|p| made_alike(p, port) || adapted && p.name == port.name) {
                None => {
                    let result = add_port(self.datapath, &new.name, port);
                    self.note(result, Change::PortAdded(port.name.clone()));
                }
                Some(before) if before != port => {
                    let result = self.change(&new.name, port);
                    self.note(result, Change::PortChanged(port.name.clone()));
                }
                Some(_) => {}
            }
        }
        let lines = |b: &BridgeConfig| (b.flows.clone(), b.groups.clone(), b.meters.clone(), b.tables.clone());
        if lines(old) != lines(new) {
            let result = lines::reload(self.datapath, old, new);
            self.note(result, Change::FlowsReplaced(new.name.clone()));
        }
    }
}
