//! What is there whatever policies there are: whom they are not asked about, and the ways from tier to tier.

use super::super::text::{EXEMPT, Family, Flows, from, goto, host_addresses};
use super::super::{Kind, Stage};
use super::FIRST;
use crate::facts::Node;
use std::collections::BTreeSet;

/// The flows of all stages of policies.
pub(in crate::pipeline) fn stages(node: &Node) -> Flows {
    let mut flows = Flows::of_stage(Stage::EgressAdmin);
    let mut add = |stage, priority, matching: String, next| {
        let mut own = Flows::of_stage(stage);
        own.add(stage, priority, matching, goto(next));
        flows.all.extend(own.all);
    };
    // Connections of the host to Services come by here.
    add(Stage::EgressAdmin, FIRST, from(Kind::Host), Stage::Route);
    for family in Family::all(node) {
        let own: BTreeSet<_> = host_addresses(node, family).chain(family.among(&node.gateways)).collect();
        for own in own {
            let matching = format!("{},{}={own}", family.ip(), family.dst());
            add(Stage::EgressNetwork, FIRST, matching, Stage::EgressBaseline);
        }
    }
    for passed in ["ct_state=+rpl+trk", "ct_state=+rel+trk"] {
        add(Stage::IngressAdmin, FIRST + 1, passed.to_owned(), Stage::Commit);
    }
    add(Stage::IngressAdmin, FIRST, format!("reg0={EXEMPT:#x}/{EXEMPT:#x}"), Stage::Commit);
    let ways = [
        (Stage::EgressAdmin, Stage::EgressNetwork),
        (Stage::EgressNetwork, Stage::EgressBaseline),
        (Stage::EgressBaseline, Stage::Route),
        (Stage::IngressAdmin, Stage::IngressNetwork),
        (Stage::IngressNetwork, Stage::IngressBaseline),
        (Stage::IngressBaseline, Stage::Commit),
    ];
    for (stage, next) in ways {
        add(stage, 0, String::new(), next);
    }
    flows
}
