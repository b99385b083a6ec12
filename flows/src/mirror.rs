//! Mirrors: ports that get copies of what enters and leaves other ports (SPAN), or VLANs that do (RSPAN).
//!
//! Words and semantics are those of Open vSwitch 3.1, whose `Mirror` table has the same columns; see
//! `docs/ovs-compatibility.md` for what differs. A copy is part of a packet's translation, so that it costs nothing where there
//! is no mirror, and where there is one it is one more output of the cached answer.
//!
//! A mirror names ports. [`Bridge::place_mirrors`] turns the names into numbers whenever ports come and go: a mirror whose output port
//! is gone does nothing until the port is back.

use crate::bridge::{Bridge, BridgePort, NAME_RULE, VlanId, is_name};
use crate::port::PortNo;
use crate::rule::RuleStats;
use std::collections::BTreeSet;
use std::sync::Arc;
use thiserror::Error;

/// Most mirrors of a bridge, as in OVS.
pub const MAX_MIRRORS: usize = 32;
/// Least bytes of a packet that a mirror may be cut to: an Ethernet header.
pub const MIN_SNAPLEN: u16 = 14;

/// A mirror as it is asked for. Fields have the names of OVS's columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorSpec {
    /// Its name, unique in the bridge.
    pub name: Arc<str>,
    /// Every packet that enters or leaves by any port is selected.
    pub select_all: bool,
    /// Packets that enter by these ports are selected.
    pub select_src_port: BTreeSet<Arc<str>>,
    /// Packets that leave by these ports are selected.
    pub select_dst_port: BTreeSet<Arc<str>>,
    /// Of these, packets of these VLANs only; of all VLANs if empty.
    pub select_vlan: BTreeSet<VlanId>,
    /// Where copies go.
    pub output: MirrorOutput,
    /// Bytes of each packet that are copied, at least [`MIN_SNAPLEN`]; all if none.
    pub snaplen: Option<u16>,
}

/// Where the copies of a mirror go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MirrorOutput {
    /// To this port, which is reserved for them: nothing else is flooded to it, and what comes in by it is dropped.
    Port(Arc<str>),
    /// To every port that carries this VLAN, as packets of it.
    Vlan(VlanId),
}

/// A mirror of a bridge.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// What was asked for.
    pub spec: Arc<MirrorSpec>,
    /// Packets and bytes copied.
    pub stats: Arc<RuleStats>,
    /// The numbers of the ports selected, for packets that enter and that leave.
    selected: [BTreeSet<PortNo>; 2],
    /// The output port, if it is one and is there.
    port: Option<PortNo>,
    /// Bits of the mirrors of the bridge with the same output, this one's included.
    same_output: u32,
}

/// Why a mirror was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MirrorError {
    /// The name cannot be one.
    #[error("{0:?} cannot be the name of a mirror: {NAME_RULE}")]
    Name(Arc<str>),
    /// It would never copy anything.
    #[error("it selects no packets: name ports in select_src_port or select_dst_port, or set select_all")]
    SelectsNothing,
    /// The VLAN for copies cannot be one.
    #[error("output_vlan is 1 to 4095")]
    OutputVlan,
    /// Packets would be cut below their Ethernet header.
    #[error("snaplen is {MIN_SNAPLEN} to 65535")]
    Snaplen,
    /// The bridge has no such port.
    #[error("the bridge has no port {0:?}")]
    NoPort(Arc<str>),
    /// No room for another.
    #[error("a bridge has at most {MAX_MIRRORS} mirrors")]
    TooMany,
}

/// Which way a packet passes a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Into the bridge.
    In,
    /// Out of it.
    Out,
}

impl MirrorSpec {
    /// A mirror of all that enters or leaves by any port, whole.
    pub fn all(name: impl Into<Arc<str>>, output: MirrorOutput) -> Self {
        let (select_src_port, select_dst_port, select_vlan) = Default::default();
        Self {
            name: name.into(),
            select_all: true,
            select_src_port,
            select_dst_port,
            select_vlan,
            output,
            snaplen: None,
        }
    }

    /// Checks what can be checked without knowing the bridge.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), MirrorError> {
        if !is_name(&self.name) {
            return Err(MirrorError::Name(Arc::clone(&self.name)));
        }
        if !self.select_all && self.select_src_port.is_empty() && self.select_dst_port.is_empty() {
            return Err(MirrorError::SelectsNothing);
        }
        if self.output == MirrorOutput::Vlan(VlanId::NONE) {
            return Err(MirrorError::OutputVlan);
        }
        if self.snaplen.is_some_and(|len| len < MIN_SNAPLEN) {
            return Err(MirrorError::Snaplen);
        }
        Ok(())
    }

    /// The ports that it names.
    fn ports(&self) -> impl Iterator<Item = &Arc<str>> {
        let output = if let MirrorOutput::Port(port) = &self.output { Some(port) } else { None };
        self.select_src_port.iter().chain(&self.select_dst_port).chain(output)
    }
}

impl Mirror {
    /// Whether copies can be made: not while the output port is gone.
    pub fn is_active(&self) -> bool {
        self.port.is_some() || matches!(self.spec.output, MirrorOutput::Vlan(_))
    }

    /// Whether a packet of this VLAN that passes the port this way is to be copied.
    pub(crate) fn selects(&self, way: Way, port: PortNo, vlan: VlanId) -> bool {
        let vlans = &self.spec.select_vlan;
        self.is_active() && self.watches(way, port) && (vlans.is_empty() || vlans.contains(&vlan))
    }

    /// Whether copies could be made of packets that pass the port this way.
    pub(crate) fn watches(&self, way: Way, port: PortNo) -> bool {
        self.spec.select_all || self.selected[way as usize].contains(&port)
    }

    /// The output port, if it is one and is there.
    pub fn port(&self) -> Option<PortNo> {
        self.port
    }

    /// Bits of the mirrors of the bridge with the same output, by their places; a packet is copied to one of them only.
    pub(crate) fn same_output(&self) -> u32 {
        self.same_output
    }
}

impl Bridge {
    /// Adds a mirror, or changes the one of its name, which goes on counting where it was.
    ///
    /// # Errors
    /// Why not; nothing was changed then.
    pub fn set_mirror(&mut self, spec: MirrorSpec) -> Result<(), MirrorError> {
        spec.check()?;
        if let Some(unknown) = spec.ports().find(|name| self.port_named(name).is_none()) {
            return Err(MirrorError::NoPort(Arc::clone(unknown)));
        }
        let mut mirrors = self.mirrors.to_vec();
        match mirrors.iter().position(|mirror| mirror.spec.name == spec.name) {
            Some(known) => mirrors[known].spec = Arc::new(spec),
            None if mirrors.len() == MAX_MIRRORS => return Err(MirrorError::TooMany),
            None => mirrors.push(Mirror {
                spec: Arc::new(spec),
                stats: Arc::default(),
                selected: Default::default(),
                port: None,
                same_output: 0,
            }),
        }
        self.mirrors = mirrors.into();
        self.place_mirrors();
        Ok(())
    }

    /// Removes the mirror of this name; whether there was one.
    pub fn remove_mirror(&mut self, name: &str) -> bool {
        let left: Arc<[Mirror]> = self.mirrors.iter().filter(|mirror| &*mirror.spec.name != name).cloned().collect();
        let found = left.len() < self.mirrors.len();
        self.mirrors = left;
        self.place_mirrors();
        found
    }

    /// Finds the ports that mirrors name, after ports came or went.
    pub fn place_mirrors(&mut self) {
        if self.mirrors.is_empty() {
            return;
        }
        let mut mirrors = self.mirrors.to_vec();
        for mirror in &mut mirrors {
            let spec = Arc::clone(&mirror.spec);
            let number = |name: &Arc<str>| self.port_named(name).map(|port| port.no);
            mirror.selected =
                [&spec.select_src_port, &spec.select_dst_port].map(|names| names.iter().filter_map(number).collect());
            mirror.port = if let MirrorOutput::Port(name) = &spec.output { number(name) } else { None };
            let same = self.mirrors.iter().map(|other| other.spec.output == spec.output);
            mirror.same_output = same.enumerate().fold(0, |bits, (place, same)| bits | u32::from(same) << place);
        }
        self.mirrors = mirrors.into();
    }

    /// Whether a port is reserved for copies.
    pub(crate) fn is_mirror_output(&self, no: PortNo) -> bool {
        self.mirrors.iter().any(|mirror| mirror.port == Some(no))
    }

    fn port_named(&self, name: &str) -> Option<&Arc<BridgePort>> {
        self.ports.values().find(|port| &*port.name == name)
    }
}
