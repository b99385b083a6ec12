//! Flows that frames are replayed through, from port 1 to port 2.

use crate::acl;
use sluice_flows::action::Action;
use sluice_flows::field::Field;
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::rule::FlowSpec;
use sluice_flows::text::{Names, Parsed, parse_flow_mod};
use sluice_flows::{Match, Owner, PortNo};

/// `in_port=1 actions=output:2`.
pub fn port_to_port() -> Vec<FlowSpec> {
    let mut matches = Match::any();
    matches.set_field(Field::InPort, 1);
    vec![FlowSpec::new(matches, [Action::Output(PortNo(2))], Owner::user())]
}

/// A learning switch.
pub fn normal() -> Vec<FlowSpec> {
    vec![FlowSpec::new(Match::any(), [Action::Output(PortNo::NORMAL)], Owner::user())]
}

/// Connections are committed, and then matched.
pub fn tracked() -> Vec<FlowSpec> {
    let flows = "priority=100,ip,ct_state=-trk,actions=ct(table=1)\n\
         table=1,priority=100,ip,ct_state=+trk+new,actions=ct(commit),output:2\n\
         table=1,priority=100,ip,ct_state=+trk+est,actions=output:2";
    let flow = |line| match parse_flow_mod(line, &Names::new()) {
        Ok(Parsed { value: FlowMod::Add { spec, .. }, .. }) => Some(spec),
        _ => None,
    };
    flows.lines().filter_map(flow).collect()
}

/// Those of the name `l2`, `normal`, `acl` (1000 policy rules) or `ct`.
pub fn named(name: &str) -> Option<Vec<FlowSpec>> {
    match name {
        "l2" => Some(port_to_port()),
        "normal" => Some(normal()),
        "acl" => Some(acl::pipeline(1000)),
        "ct" => Some(tracked()),
        _ => None,
    }
}
