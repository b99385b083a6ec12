//! Which flows are selected by where they send.

use super::*;
use crate::rule::Millis;
use crate::text::{Names, parse_filter, parse_flow};

fn selects(filter: &str, flow: &str) -> bool {
    let filter = parse_filter(filter, Names::NONE).unwrap().value;
    filter.selects(&Rule::new(parse_flow(flow, Names::NONE).unwrap().value, Millis(0)))
}

#[test]
fn flows_are_selected_by_the_ports_and_groups_that_they_name() {
    for (filter, flow, selected) in [
        ("out_port=2", "actions=1,2", true),
        ("out_port=2", "actions=1", false),
        ("out_port=2", "actions=enqueue:2:7", true),
        ("out_port=2", "actions=clone(1,clone(2))", true),
        ("out_port=2", "actions=write_actions(2)", true),
        ("out_port=controller", "actions=controller(id=5)", true),
        ("out_port=local", "actions=local", true),
        ("out_port=any", "actions=drop", true),
        // As in OVS, these do not count.
        ("out_port=2", "actions=output(port=2,max_len=100)", false),
        ("out_port=2", "actions=bundle(eth_src,0,hrw,ofport,members:2)", false),
        ("out_port=2", "actions=resubmit:2", false),
        ("out_group=2", "actions=group:2", true),
        ("out_group=2", "actions=group:3,2", false),
        ("out_group=2", "actions=clone(group:2)", true),
        ("out_group=2", "actions=write_actions(group:2)", true),
        ("out_group=any", "actions=drop", true),
        ("out_port=1,out_group=2", "actions=1,group:2", true),
        ("out_port=1,out_group=2", "actions=group:2", false),
    ] {
        assert_eq!(selects(filter, flow), selected, "{filter} {flow}");
    }
}
