//! Whether an attachment is as it should be, in words: what differs, where, and what to do. Nothing here mends anything.

use super::known::Record;
use super::raise::{self, vlan_mode};
use super::spec::{AttachmentSpec, Device};
use super::{device, outside};
use crate::Datapath;
use sluice_flows::bridge::Bridge;
use sluice_flows::rule::FlowSpec;
use std::fmt::Debug;

/// What mends most of it.
const AGAIN: &str = "delete the container's interface and add it again (DEL, ADD)";

impl Datapath {
    /// What differs between an attachment and what it should be; empty if nothing does.
    pub(crate) fn check_attachment(&self, wanted: &AttachmentSpec) -> Vec<String> {
        let key = &wanted.key;
        let Some(record) = self.attachments().known().attachment(key).cloned() else {
            return vec![format!("the switch knows of no attachment {key}; {AGAIN}")];
        };
        let mut problems = different(wanted, &record.spec);
        if let Some(fault) = &record.fault {
            problems.push(format!("{key} is not in force: {fault}; the switch goes on trying"));
            return problems;
        }
        if record.unconfirmed {
            problems.push(format!(
                "{key} waits for the node's controller, and what it sends is dropped; see that the controller runs"
            ));
        }
        let model = self.model();
        match model.bridge_named(&record.bridge) {
            None => problems.push(format!("bridge {} is gone; {AGAIN}", record.bridge)),
            Some(bridge) => self.check_port(bridge, &record, &mut problems),
        }
        match &record.spec.device {
            Device::Veth { interface } => problems.extend(device::wrong_settings(interface)),
            Device::Inline { .. } => problems.extend(device::wrong_settings(&record.spec.port)),
            Device::Tap { .. } => {}
        }
        let (networks, published) = self.attachments().known().outside();
        problems.extend(outside::check(self, &networks, &published));
        problems
    }

    fn check_port(&self, bridge: &Bridge, record: &Record, problems: &mut Vec<String>) {
        let name = &record.spec.port;
        let place = format!("port {name} of bridge {}", bridge.name);
        let Some(port) = record.port_no().and_then(|no| bridge.ports.get(&no)).filter(|port| *port.name == **name)
        else {
            problems.push(format!("{place} is gone; {AGAIN}"));
            return;
        };
        if !port.up {
            problems.push(format!("{place} is down; set the interface up on both ends, or {AGAIN}"));
        }
        if port.vlan != vlan_mode(&record.spec.vlan) {
            let now = &port.vlan;
            problems.push(format!("{place} has other VLANs than asked for ({now:?}); set them again, or {AGAIN}"));
        }
        if port.protected != record.spec.isolated {
            let now = if port.protected { "protected" } else { "not protected" };
            problems.push(format!("{place} is {now} from other ports, unlike asked for; {AGAIN}"));
        }
        let flows = raise::flows(record, port.no);
        let missing = flows.iter().filter(|flow| !holds(bridge, flow)).count();
        if missing > 0 {
            let (all, owner) = (flows.len(), record.owner());
            problems.push(format!("{missing} of the {all} flows owned by {owner} are missing or changed; {AGAIN}"));
        }
    }
}

/// Whether a bridge has this flow.
pub(super) fn holds(bridge: &Bridge, flow: &FlowSpec) -> bool {
    let there = bridge.tables.get_strict(flow.table, flow.priority, &flow.matches);
    there.is_some_and(|rule| rule.spec.actions == flow.actions && rule.spec.owner == flow.owner)
}

/// In what two descriptions of an attachment differ, but for labels and the path of the namespace, which change nothing.
fn different(wanted: &AttachmentSpec, there: &AttachmentSpec) -> Vec<String> {
    let mut problems = Vec::new();
    let mut compare = |what: &str, wanted: &dyn Debug, there: &dyn Debug, differs: bool| {
        if differs {
            problems.push(format!("{what} is {there:?} in the switch, and should be {wanted:?}; {AGAIN}"));
        }
    };
    macro_rules! compare {
        ($($what:literal $field:ident),+) => {
            $(compare($what, &wanted.$field, &there.$field, wanted.$field != there.$field);)+
        };
    }
    compare!("the port's name" port, "the device" device, "the guard" guard, "isolation" isolated, "hairpin" hairpin);
    compare!("what VLANs it carries" vlan, "the bandwidth" bandwidth, "the list of host ports" port_mappings);
    let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    compare("the hardware address", &mac(wanted.mac), &mac(there.mac), wanted.mac != there.mac);
    let addresses = |spec: &AttachmentSpec| {
        let mut texts: Vec<_> = spec.addresses.iter().map(ToString::to_string).collect();
        texts.sort();
        texts
    };
    let (wanted, there) = (addresses(wanted), addresses(there));
    compare("the list of addresses", &wanted, &there, wanted != there);
    problems
}
