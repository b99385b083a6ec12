//! The configuration file of `sluiced`: TOML, checked as a whole before anything is done with it.
//!
//! Every fault is told with its file, line and column, what is allowed there and the nearest valid name. A name stands
//! as a key (`[bridges.br0.ports.tap1]`), so that it cannot be given twice; bridges and ports keep the order in which
//! they stand in the file, since ports without a number are numbered in that order.
//!
//! Flows, groups and meters in the file are text, checked here as far as that is possible without the bridge: a flow may name a port that
//! comes later.

mod check;
mod conntrack;
mod error;
mod gateway;
mod lines;
mod mirrors;
mod raw;
mod routers;
mod setup;

pub use check::log_filter;
pub(crate) use error::did_you_mean;
pub use error::{Complaint, ConfigError};
pub use setup::{Change, SetupError, add_bridge, add_port, check, reload, start, stop};

use crate::conntrack::CtSettings;
use crate::host::gateway::GatewayConfig;
use crate::port::{Limits, PortKind, is_limit};
use crate::router::NamedRouter;
use sluice_flows::PortNo;
use sluice_flows::bridge::{TableConfig, VlanMode};
use sluice_flows::mirror::MirrorSpec;
use sluice_flows::rule::TableId;
use sluice_flows::tunnel::TlvMap;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where the switch's socket is unless something else is asked for.
pub const DEFAULT_SOCKET: &str = "/run/sluice/switch.sock";

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The socket of the control API; `None` leaves the choice to the command line.
    pub socket: Option<PathBuf>,
    /// The directory where networks of containers and their attachments are kept; `None` leaves the choice to the command
    /// line.
    pub state: Option<PathBuf>,
    /// Number of workers, 1 to 64; `None` for one.
    pub workers: Option<usize>,
    /// CPUs of the workers, in order; empty leaves the choice to the scheduler.
    pub pin: Vec<usize>,
    /// Microseconds for which a worker goes on asking its ports at most after the last frame before it sleeps; `None` for the
    /// switch's own choice.
    pub spin_us: Option<u32>,
    /// Seconds until a learned MAC address that is no longer seen is forgotten; `None` for the switch's own choice.
    pub mac_age_s: Option<u32>,
    /// Which Geneve option each `tun_metadata` field is.
    pub tlv_map: TlvMap,
    /// What is logged: a level (`info`) or `tracing` directives (`info,sluice_switch=debug`).
    pub log_level: Option<String>,
    /// How it is written.
    pub log_format: Option<LogFormat>,
    /// How connections are tracked.
    pub conntrack: CtSettings,
    /// The bridges, in the file's order.
    pub bridges: Vec<BridgeConfig>,
    /// The routers, in the file's order.
    pub routers: Vec<NamedRouter>,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A bridge. The default is a learning bridge without a name, a port of its own or any other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BridgeConfig {
    /// Its name.
    pub name: String,
    /// Whether the host has an interface of the bridge's name.
    pub local_port: bool,
    /// Whether multicast packets go only to the ports behind which somebody wants them.
    pub mcast_snooping: bool,
    /// Its flows; `None` for a learning switch's.
    pub flows: Option<Vec<FlowLine>>,
    /// Its groups.
    pub groups: Vec<FlowLine>,
    /// Its meters.
    pub meters: Vec<FlowLine>,
    /// What is said of its flow tables.
    pub tables: BTreeMap<TableId, TableConfig>,
    /// Its ports, in the file's order.
    pub ports: Vec<PortConfig>,
    /// Its mirrors, in the file's order.
    pub mirrors: Vec<MirrorSpec>,
    /// The host behind one of them.
    pub gateway: Option<GatewayConfig>,
}

/// A flow, group or meter, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowLine {
    /// The flow, group or meter, in OVS's syntax.
    pub text: String,
    /// The file.
    pub path: PathBuf,
    /// Its line, from 1.
    pub line: usize,
    /// Column where the text starts, from 1.
    pub column: usize,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// Its name.
    pub name: String,
    /// What it is made of.
    pub kind: PortKind,
    /// Its OpenFlow number; `None` for the lowest one that no port had in the last hour.
    pub number: Option<PortNo>,
    /// Which VLANs it carries.
    pub vlan: VlanMode,
    /// Administratively up.
    pub up: bool,
    /// Takes part in flooding.
    pub flood: bool,
    /// Sends nothing to other protected ports, nor gets anything from them.
    pub protected: bool,
    /// Options of its kind, and of limits of its rate.
    pub options: BTreeMap<String, String>,
}

impl Default for Config {
    /// What `sluiced` does without a file: one learning bridge, `br0`, with its own port and no other.
    fn default() -> Self {
        Self {
            socket: None,
            state: None,
            workers: None,
            pin: Vec::new(),
            spin_us: None,
            mac_age_s: None,
            tlv_map: TlvMap::default(),
            log_level: None,
            log_format: None,
            conntrack: CtSettings::default(),
            bridges: vec![BridgeConfig::new("br0")],
            routers: Vec::new(),
        }
    }
}

impl BridgeConfig {
    /// A learning bridge with its own port and no other.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), local_port: true, ..Self::default() }
    }
}

impl PortConfig {
    /// The options of its kind: all but those of its limits, if it can have some.
    pub(crate) fn own_options(&self) -> impl Iterator<Item = (&String, &String)> {
        self.options.iter().filter(|(name, _)| !(Limits::are_for(self.kind) && is_limit(name)))
    }

    /// A port of this kind without options: a trunk of all VLANs, up, with any number.
    pub fn new(name: &str, kind: PortKind) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            number: None,
            vlan: VlanMode::default(),
            up: true,
            flood: true,
            protected: false,
            options: BTreeMap::new(),
        }
    }
}

impl Config {
    /// Reads and checks a file, and the flow files that it names (relative to its folder).
    ///
    /// # Errors
    /// [`ConfigError`], for the first fault found.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&read(path)?, path)
    }

    /// Checks the text of a file; `path` is what errors and flow owners call it, and where relative names start.
    ///
    /// # Errors
    /// [`ConfigError`], for the first fault found.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let source = error::Source { path, text };
        let raw = toml::from_str(text).map_err(|e| source.complain_toml(&e))?;
        check::config(source, raw)
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
