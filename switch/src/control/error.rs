//! Why the control side refused something: what, where, why, and what to do next.

use crate::port::PortError;
use sluice_flows::PortNo;
use sluice_flows::bridge::NAME_RULE;
use sluice_flows::bridge_mod::ModError;
use sluice_flows::mirror::MirrorError;
use std::io;
use thiserror::Error;

/// Why the control side refused something. Nothing was changed then. None is worth a retry as it is.
#[derive(Debug, Error)]
pub enum ControlError {
    /// A thread or its descriptors could not be made.
    #[error(
        "cannot start worker {worker}: {source}; the system is out of threads or descriptors (`ulimit -u`, `ulimit -n`)"
    )]
    Worker {
        /// The worker's number.
        worker: usize,
        /// The system's word.
        source: io::Error,
    },
    /// There is no such bridge.
    #[error("there is no bridge {name:?}; bridges: {known}")]
    NoBridge {
        /// The name asked for.
        name: String,
        /// Those there are.
        known: String,
    },
    /// There is a bridge of this name.
    #[error("there is a bridge {name:?} already; choose another name")]
    BridgeExists {
        /// The name.
        name: String,
    },
    /// No number is left for another bridge.
    #[error("there are 65536 bridges already; remove one first")]
    TooManyBridges,
    /// A name that cannot be a bridge's or port's.
    #[error("{name:?} cannot be a name: {NAME_RULE}")]
    BadName {
        /// The name.
        name: String,
    },
    /// There is no such port.
    #[error("bridge {bridge} has no port {name:?}; its ports: {known}")]
    NoPort {
        /// The bridge.
        bridge: String,
        /// The name asked for.
        name: String,
        /// Those there are.
        known: String,
    },
    /// No bridge has such a port.
    #[error("there is no port {name:?}; `sluice ports` lists those there are")]
    UnknownPort {
        /// The name asked for.
        name: String,
    },
    /// What was asked for cannot be captured.
    #[error("cannot capture: {why}")]
    Capture {
        /// What is wrong with it.
        why: String,
    },
    /// No wire can be put in at a port.
    #[error("port {port}: no wire can be put in: {why}")]
    Splice {
        /// The port.
        port: String,
        /// Why.
        why: &'static str,
    },
    /// There is a port of this name.
    #[error(
        "there is a port {name:?} already, on bridge {bridge}; port names are unique in the switch, choose another"
    )]
    PortExists {
        /// The name.
        name: String,
        /// The bridge that has it.
        bridge: String,
    },
    /// The port number is taken.
    #[error(
        "port {name}: number {no} is taken by port {holder} of bridge {bridge}; choose another, or none to get a free one"
    )]
    NumberTaken {
        /// The port asked for.
        name: String,
        /// The number asked for.
        no: PortNo,
        /// The bridge.
        bridge: String,
        /// Who has it.
        holder: String,
    },
    /// The port number cannot be a port's.
    #[error("port {name}: {no} cannot be a port's number; it is 1 to 65279, or LOCAL")]
    BadNumber {
        /// The port asked for.
        name: String,
        /// The number asked for.
        no: PortNo,
    },
    /// All numbers are in use.
    #[error("port {name}: bridge {bridge} has no free port number left; remove a port first")]
    NoNumberLeft {
        /// The port asked for.
        name: String,
        /// The bridge.
        bridge: String,
    },
    /// The device refused.
    #[error(transparent)]
    Port(#[from] PortError),
    /// A change was refused, and with it all of its bundle.
    #[error("bridge {bridge}, change {number} of the bundle: {source}")]
    Change {
        /// The bridge.
        bridge: String,
        /// Which change, counted from 1.
        number: usize,
        /// Why.
        source: ModError,
    },
    /// A mirror cannot be as it was asked for.
    #[error("mirror {name} of bridge {bridge}: {source}")]
    Mirror {
        /// The bridge.
        bridge: String,
        /// The mirror.
        name: String,
        /// Why.
        source: MirrorError,
    },
    /// There is no such mirror.
    #[error("bridge {bridge} has no mirror {name:?}; its mirrors: {known}")]
    NoMirror {
        /// The bridge.
        bridge: String,
        /// The name asked for.
        name: String,
        /// Those there are.
        known: String,
    },
    /// The switch is ending.
    #[error("the switch is ending")]
    Ending,
}
