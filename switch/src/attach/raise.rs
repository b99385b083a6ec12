//! Bringing an attachment into force and out of it: its port, and the flows that belong to the port.

use super::known::Record;
use super::spec::{Bandwidth, Guard, Vlans};
use super::{AttachError, device, inline};
use crate::control::Closing;
use crate::port::{Limits, PortDevice, Rate};
use crate::{ControlError, Datapath, FailMode, PortRequest, config};
use sluice_flows::PortNo;
use sluice_flows::bridge::{VlanId, VlanMode};
use sluice_flows::bridge_mod::BridgeMod;
use sluice_flows::filter::{FlowFilter, OwnerFilter};
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::rule::FlowSpec;
use sluice_flows::station::{self, Stage, Station};

/// How often another number is tried when somebody else takes the one that was chosen.
const TRIES: usize = 8;

impl Datapath {
    /// Opens the device of an attachment and makes it a port of its bridge, with its flows. Notes number and alias in the
    /// record. All of it or nothing.
    ///
    /// # Errors
    /// [`AttachError`].
    pub(super) fn raise(&self, record: &mut Record) -> Result<(), AttachError> {
        let workers = self.worker_stats().len();
        for left in (0..TRIES).rev() {
            let number = self.choose_number(record)?;
            let key = &record.spec.key;
            let opened = device::open(&record.spec, workers)
                .map_err(|source| AttachError::Device { key: Box::new(key.clone()), source })?;
            record.end = match &opened.end {
                Some(_) => Some(self.choose_end(record, number)?.0),
                None => None,
            };
            let flows = flows(record, number);
            self.add_flows(&record.bridge, &flows)?;
            let request = PortRequest {
                number: Some(number),
                vlan: vlan_mode(&record.spec.vlan),
                // What came in by one side of an interface that is taken over leaves by the other, and nothing else does.
                no_flood: opened.end.is_some(),
                protected: record.spec.isolated && opened.end.is_none(),
                limits: limits(&record.spec.bandwidth),
                ..PortRequest::new(&record.spec.port, opened.device)
            };
            let added = self.add_port(&record.bridge, request).and_then(|_| match opened.end {
                Some((name, device)) => self.add_end(record, &name, device),
                None => Ok(()),
            });
            match added {
                Ok(()) => {
                    record.number = Some(number.0);
                    record.alias = opened.alias;
                    return Ok(());
                }
                Err(error) => {
                    self.remove_flows(&record.bridge, &flows)?;
                    if !matches!(error, ControlError::NumberTaken { .. }) || left == 0 {
                        return Err(error.into());
                    }
                }
            }
        }
        Ok(())
    }

    /// The number that the port had before, or the lowest that nobody has and nobody is to have again.
    fn choose_number(&self, record: &Record) -> Result<PortNo, AttachError> {
        let bridge = self.bridge(&record.bridge)?;
        if let Some(number) = record.port_no().filter(|no| no.is_ordinary() && !bridge.ports.contains_key(no)) {
            return Ok(number);
        }
        let known = self.attachments().known();
        let free = |no: &PortNo| !bridge.ports.contains_key(no) && !known.has_number(&record.bridge, no.0);
        let none = || ControlError::NoNumberLeft { name: record.spec.port.clone(), bridge: record.bridge.clone() };
        Ok((1..=PortNo::MAX.0).map(PortNo).find(free).ok_or_else(none)?)
    }

    /// A number for the other side, which had it before or which nobody has.
    fn choose_end(&self, record: &Record, first: PortNo) -> Result<PortNo, AttachError> {
        let bridge = self.bridge(&record.bridge)?;
        if let Some(number) = record.end.map(PortNo).filter(|no| *no != first && !bridge.ports.contains_key(no)) {
            return Ok(number);
        }
        let known = self.attachments().known();
        let free =
            |no: &PortNo| *no != first && !bridge.ports.contains_key(no) && !known.has_number(&record.bridge, no.0);
        let none = || ControlError::NoNumberLeft { name: record.spec.port.clone(), bridge: record.bridge.clone() };
        Ok((1..=PortNo::MAX.0).map(PortNo).find(free).ok_or_else(none)?)
    }

    /// Adds the other side of an interface that is taken over; without it, the first side goes too.
    fn add_end(&self, record: &Record, name: &str, device: PortDevice) -> Result<(), ControlError> {
        let number = record.end.map(PortNo);
        let request = PortRequest { number, no_flood: true, ..PortRequest::new(name, device) };
        let added = self.add_port(&record.bridge, request).map(|_| ());
        if added.is_err() {
            self.remove_port(&record.bridge, &record.spec.port)?;
        }
        added
    }

    /// Takes an attachment's ports and flows away. What is gone already is fine; what fails is told in the log. What is
    /// returned closes the devices: to be dropped without a lock, as the kernel takes its time for it.
    pub(super) fn lower(&self, record: &Record) -> Vec<Closing> {
        let mut closing = Vec::new();
        let Some(bridge) = self.model().bridge_named(&record.bridge).cloned() else { return closing };
        let mut take = |name: &str| self.take_port(&record.bridge, name).map(|taken| closing.push(taken));
        let mut done = Ok(());
        if record.port_in(&self.model()).is_some() {
            done = take(&record.spec.port);
        }
        let end = inline::end_of(&record.spec.port);
        if record.end.is_some() && bridge.ports.values().any(|port| *port.name == *end) {
            done = done.and_then(|()| take(&end));
        }
        let flows = record.port_no().map(|number| flows(record, number)).unwrap_or_default();
        if let Err(error) = done.and_then(|()| self.remove_flows(&record.bridge, &flows)) {
            tracing::error!(attachment = %record.spec.key, %error, "something of it is left in the switch");
        }
        closing
    }

    /// Adds flows of an attachment, and names the tables that they are in.
    pub(super) fn add_flows(&self, bridge: &str, flows: &[FlowSpec]) -> Result<(), ControlError> {
        if flows.is_empty() {
            return Ok(());
        }
        let is_named = self.model().bridge_named(bridge).is_some_and(|bridge| {
            bridge.table_configs.get(&Stage::Guard.table()).is_some_and(|config| config.name.is_some())
        });
        let names = if is_named { Vec::new() } else { Stage::names() };
        let names = names.into_iter().map(BridgeMod::from);
        let mods: Vec<_> = names.chain(flows.iter().cloned().map(|flow| FlowMod::add(flow).into())).collect();
        self.apply_bundle(bridge, &mods)?;
        Ok(())
    }

    fn remove_flows(&self, bridge: &str, flows: &[FlowSpec]) -> Result<(), ControlError> {
        let remove = |flow: &FlowSpec| {
            let owner = Some(OwnerFilter::Is(flow.owner.clone()));
            FlowMod::delete(FlowFilter { owner, ..FlowFilter::strictly(flow) })
        };
        let mods: Vec<_> = flows.iter().map(remove).collect();
        if !mods.is_empty() {
            self.apply_bundle(bridge, &mods)?;
        }
        Ok(())
    }

    /// Makes a bridge as a network wants it: a learning switch with an interface of its name.
    pub(super) fn make_bridge(&self, name: &str) -> Result<(), AttachError> {
        config::add_bridge(self, name, FailMode::Standalone, true)?;
        if let Err(error) = device::set_all(name, &device::BRIDGE_SETTINGS) {
            self.remove_bridge(name)?;
            return Err(AttachError::Bridge { bridge: name.to_owned(), source: Box::new(error) });
        }
        Ok(())
    }
}

/// The flows that belong to an attachment with this port.
pub(super) fn flows(record: &Record, port: PortNo) -> Vec<FlowSpec> {
    let spec = &record.spec;
    let [a, b, c, d, e, f] = spec.mac;
    let station = Station {
        port,
        mac: u64::from_be_bytes([0, 0, a, b, c, d, e, f]),
        addresses: spec.addresses.iter().map(|address| address.addr()).collect(),
        guard: match spec.guard {
            Guard::None => station::Guard::None,
            Guard::Mac => station::Guard::Mac,
            Guard::Full => station::Guard::Full,
        },
        hairpin: spec.hairpin,
        held: record.unconfirmed,
        owner: record.owner(),
    };
    let joined = record.end.map(|end| station.joined(PortNo(end))).unwrap_or_default();
    [station.flows(), joined].concat()
}

/// The limits of an attachment's port: what a container sends, the switch receives.
pub(super) fn limits(bandwidth: &Bandwidth) -> Limits {
    let rate = |bits_per_s, burst_bits| (bits_per_s != 0).then_some(Rate { bits_per_s, burst_bits });
    Limits {
        rx: rate(bandwidth.egress_rate, bandwidth.egress_burst),
        tx: rate(bandwidth.ingress_rate, bandwidth.ingress_burst),
    }
}

/// Which VLANs the port of an attachment carries.
pub(super) fn vlan_mode(vlans: &Vlans) -> VlanMode {
    // What is out of range was refused.
    let id = |id: u16| VlanId::new(id).unwrap_or_default();
    match vlans {
        Vlans::All => VlanMode::default(),
        Vlans::Access(vlan) => VlanMode::Access(id(*vlan)),
        Vlans::Trunk { trunks, native } => {
            let trunks = trunks.iter().map(|vlan| id(*vlan)).collect();
            match native {
                None => VlanMode::Trunk { trunks },
                Some(native) => VlanMode::Native { trunks, native: id(*native), tagged: false },
            }
        }
    }
}
