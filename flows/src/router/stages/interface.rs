//! The flows of an interface.

use super::{Stages, priority};
use crate::action::{Action, Fragment};
use crate::field::{ETH_TYPE_VLAN, Field};
use crate::key::VLAN_PRESENT;
use crate::port::PortNo;
use crate::router::config::Interface;
use crate::router::flow::{Matching, Writer, set};
use crate::router::pipeline::{OUT_INTERFACE, Stage};
use crate::router::punt::PuntKind;
use crate::rule::FlowSpec;

impl Stages {
    /// The flows of an interface, but for its connected routes.
    pub fn interface_flows(&self, interface: &Interface) -> Vec<FlowSpec> {
        let to = self.writer(self.interface_owner(interface));
        let mut flows = Vec::new();
        admit(&to, interface, &mut flows);
        self.local_of(&to, interface, &mut flows);
        if interface.layer3 {
            let matching = Matching::any().part(OUT_INTERFACE, interface.id.0.into());
            let actions = vec![set(Field::EthDst, 0_u8), to.go(Stage::Egress)];
            flows.push(to.flow(Stage::Neighbor, priority::NEIGHBOR, matching, actions));
        }
        flows.push(egress(&to, interface));
        flows
    }
}

/// Which frames the interface takes: those to its MAC address, to groups and to everybody.
fn admit(to: &Writer<'_>, interface: &Interface, flows: &mut Vec<FlowSpec>) {
    // An untagged interface takes frames whose tag has a priority only (IEEE 802.1Q, 6.9).
    let tags: &[Option<u16>] = match interface.vlan {
        Some(vlan) => &[Some(vlan.get())],
        None => &[None, Some(0)],
    };
    for tag in tags {
        let from = Matching::any().is(Field::InPort, interface.port.0).tag(*tag);
        let one = from.is(Field::EthDst, interface.mac);
        let many = from.group_mac(Field::EthDst);
        for (matching, to_many) in [(one, false), (many, true)] {
            let mut actions = Vec::with_capacity(4);
            if tag.is_some() {
                actions.push(Action::PopVlan { modern: false });
            }
            // The registers whole, so that nothing is left in them of what came before.
            actions.push(set(Field::Reg10, u32::from(interface.vrf.0) | u32::from(to_many) << 16));
            actions.push(set(Field::Reg11, u32::from(interface.id.0)));
            actions.push(to.go(Stage::Local));
            flows.push(to.flow(Stage::Admit, priority::ADMITTED, matching, actions));
        }
    }
}

/// What is done with everything that leaves by the interface.
fn egress(to: &Writer<'_>, interface: &Interface) -> FlowSpec {
    let too_big = Fragment { mtu: interface.mtu, controller_id: 0, userdata: PuntKind::TooBig.userdata() };
    let mut actions = vec![set(Field::EthSrc, interface.mac), Action::Fragment(Box::new(too_big))];
    actions.extend(tagged(interface));
    // A packet may leave by the port that it came by; only then is it not the ingress port's own.
    actions.push(set(Field::InPort, PortNo::NONE.0));
    actions.push(Action::Output(interface.port));
    let matching = Matching::any().part(OUT_INTERFACE, interface.id.0.into());
    to.flow(Stage::Egress, priority::EGRESS, matching, actions)
}

/// The actions that put the interface's tag on.
pub(super) fn tagged(interface: &Interface) -> Vec<Action> {
    interface.vlan.map_or_else(Vec::new, |vlan| {
        vec![Action::PushVlan(ETH_TYPE_VLAN), set(Field::VlanVid, vlan.get() | VLAN_PRESENT)]
    })
}
