//! What is there whatever the cluster has: the ways between the stages, the host's addresses, and what ends nowhere.

use super::text::{
    EXEMPT, FROM_OUTSIDE, Family, Flows, GUARDED, LOCAL, SERVICE_MARK, between, from, goto, host_addresses, net, route,
    snat,
};
use super::{ENTRY_PRIORITY, Kind, SNAT_ZONE, Stage, ZONE, arp, policy};
use crate::facts::Node;
use crate::flow::{Flow, Part};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Priorities that the parts of other objects have to know.
pub(super) mod priority {
    /// [`Classify`](super::Stage::Classify): the host sends for somebody of the cluster.
    pub(in crate::pipeline) const INSIDE: u16 = 210;
    /// [`Service`](super::Stage::Service): an address and port that clients use.
    pub(in crate::pipeline) const FRONTEND: u16 = 200;
    /// [`Service`](super::Stage::Service): the same, from the host, which is not let in.
    pub(in crate::pipeline) const NOT_LET_IN: u16 = 205;
    /// [`Service`](super::Stage::Service): the same, from where nobody is let in.
    pub(in crate::pipeline) const REFUSED: u16 = 190;
    /// [`Route`](super::Stage::Route): an address.
    pub(in crate::pipeline) const ADDRESS: u16 = 210;
    /// [`Route`](super::Stage::Route): a network of Pods.
    pub(in crate::pipeline) const NETWORK: u16 = 200;
    /// [`Route`](super::Stage::Route): answers to what began somewhere else.
    pub(in crate::pipeline) const ANSWER: u16 = 220;
    /// [`Snat`](super::Stage::Snat): a Pod reaches itself.
    pub(in crate::pipeline) const HAIRPIN: u16 = 210;
}

/// The bit of `reg0` that says what [`SERVICE_MARK`] said until a connection was written to.
const TO_SERVICE: u32 = 0x400;
/// The bit of the label of connections that policies have denied since they began.
pub(crate) const CUT: u128 = 1 << 64;

/// Everything that is there whatever the cluster has.
pub fn base(node: &Node) -> Part {
    let mut flows = vec![entry()];
    flows.extend(arp::all(node).all);
    let stages =
        [classify, unsnat, conntrack, state, services, affinity, policy::stages, routes, commit, source, output];
    flows.extend(stages.into_iter().flat_map(|stage| stage(node).all));
    Part { flows, groups: Vec::new() }
}

/// From table 0 to the pipeline.
fn entry() -> Flow {
    Flow {
        table: 0,
        priority: ENTRY_PRIORITY,
        matching: String::new(),
        actions: goto(Stage::Classify),
        owner: Arc::from("builtin:classify"),
        drop_reason: None,
    }
}

fn classify(node: &Node) -> Flows {
    let mut flows = Flows::of_stage(Stage::Classify);
    let source = |value: u32| format!("load:{value:#x}->NXM_NX_REG0[],{}", goto(Stage::Unsnat));
    flows.drop(Stage::Classify, 250, "vlan_tci=0x1000/0x1000", "vlan_filter");
    for family in Family::all(node) {
        let ip = family.ip();
        arp::entrance(&mut flows, family, 240);
        let everybody: &[&str] = match family {
            Family::V4 => &["224.0.0.0/4", "255.255.255.255"],
            Family::V6 => &["ff00::/8"],
        };
        for many in everybody {
            flows.drop(Stage::Classify, 220, format!("{ip},{}={many}", family.dst()), "rule_drop");
        }
        // The node may reach its Pods whatever policies say: that is how the kubelet probes them.
        let own = host_addresses(node, family).chain(family.among(&node.gateways)).chain(family.among(&node.link));
        let own: BTreeSet<String> = own.map(|address| address.to_string()).collect();
        let inside = |near: &str| format!("{ip},in_port=LOCAL,{}={near}", family.src());
        for own in own {
            flows.add(Stage::Classify, priority::INSIDE, inside(&own), source(EXEMPT | Kind::Host as u32));
        }
        for cidr in family.nets(&node.pod_cidrs) {
            flows.add(Stage::Classify, priority::INSIDE, inside(&net(&cidr)), source(Kind::Host as u32));
        }
        let host = source(FROM_OUTSIDE | Kind::Host as u32);
        flows.add(Stage::Classify, 200, format!("{ip},in_port=LOCAL"), host);
        if let Some(tunnel) = node.tunnel {
            let matching = format!("{ip},in_port={tunnel}");
            flows.add(Stage::Classify, 200, matching, source(Kind::Tunnel as u32));
        }
        flows.add(Stage::Classify, 200, format!("{ip},{GUARDED}"), source(Kind::Pod as u32));
    }
    flows.drop(Stage::Classify, 0, "", "rule_drop");
    flows
}

fn unsnat(node: &Node) -> Flows {
    let mut flows = Flows::of_stage(Stage::Unsnat);
    let back = format!("ct(table={},zone={SNAT_ZONE},nat)", Stage::Conntrack.table());
    for family in Family::all(node) {
        let (ip, dst) = (family.ip(), family.dst());
        for link in family.among(&node.link) {
            flows.add(Stage::Unsnat, 200, format!("{ip},{dst}={link}"), back.clone());
        }
        // What left with a gateway's address left by the tunnel.
        for (gateway, tunnel) in family.among(&node.gateways).zip(node.tunnel) {
            flows.add(Stage::Unsnat, 200, format!("{ip},in_port={tunnel},{dst}={gateway}"), back.clone());
        }
    }
    flows.add(Stage::Unsnat, 0, "", goto(Stage::Conntrack));
    flows
}

fn conntrack(node: &Node) -> Flows {
    let mut flows = Flows::of_stage(Stage::Conntrack);
    for family in Family::all(node) {
        let ask = format!("ct(table={},zone={ZONE},nat)", Stage::State.table());
        flows.add(Stage::Conntrack, 200, family.ip(), ask);
    }
    flows.drop(Stage::Conntrack, 0, "", "rule_drop");
    flows
}

fn state(_: &Node) -> Flows {
    let mut flows = Flows::of_stage(Stage::State);
    flows.drop(Stage::State, 220, format!("ct_state=+rpl+trk,ct_label={CUT:#x}/{CUT:#x}"), "policy_deny");
    flows.drop(Stage::State, 210, "ct_state=+inv+trk", "ct_invalid");
    // Where it came from, its endpoint was chosen.
    flows.add(Stage::State, 200, from(Kind::Tunnel), goto(Stage::Route));
    // One that nobody has answered yet is new too, but has a mark.
    flows.add(Stage::State, 190, "ct_state=+new+trk,ct_mark=0x0/0xf", goto(Stage::Service));
    // Policies are asked about every packet that way, so that what they say of a connection changes with them.
    let sent = format!("{},ct_state=-rpl-rel+trk", from(Kind::Pod));
    flows.add(Stage::State, 180, sent, goto(Stage::EgressAdmin));
    flows.add(Stage::State, 0, "", goto(Stage::Route));
    flows
}

fn services(node: &Node) -> Flows {
    let mut flows = Flows::of_stage(Stage::Service);
    for family in Family::all(node) {
        let cidrs = family.nets(&node.service_cidrs).map(|cidr| net(&cidr));
        for nobody in cidrs.chain(family.among(&node.incoming).map(|address| address.to_string())) {
            let matching = format!("{},{}={nobody}", family.ip(), family.dst());
            flows.reject(Stage::Service, 100, matching, "service_no_endpoint");
        }
    }
    flows.add(Stage::Service, 0, "", goto(Stage::EgressAdmin));
    flows
}

/// What is the same for all Services with affinity.
fn affinity(_: &Node) -> Flows {
    let mut flows = Flows::of_stage(Stage::Affinity);
    // Nothing is learned: the endpoint stays 0, which is nobody's.
    flows.drop(Stage::Affinity, 0, "", "service_no_endpoint");
    flows.drop(Stage::Select, 0, "", "service_no_endpoint");
    flows.add(Stage::Endpoint, 0, "", format!("resubmit(,{})", Stage::Select.table()));
    flows
}

fn routes(node: &Node) -> Flows {
    let mut flows = Flows::of_stage(Stage::Route);
    let to_host = route(LOCAL, Kind::Host, node.gateway_mac);
    let to_outside = route(LOCAL, Kind::Outside, node.gateway_mac);
    for family in Family::all(node) {
        let (ip, dst) = (family.ip(), family.dst());
        // The link's addresses are of no station: what is still for them belongs to nobody.
        for link in family.among(&node.link).chain(family.among(&node.incoming)) {
            flows.drop(Stage::Route, 230, format!("{ip},{dst}={link}"), "no_route");
        }
        if family == Family::V6 {
            flows.drop(Stage::Route, 230, "ipv6,ipv6_dst=fe80::/10", "no_route");
        }
        let answers = format!("{ip},ct_state=+rpl+trk,ct_mark={:#x}/0xf", Kind::Host as u8);
        flows.add(Stage::Route, priority::ANSWER, answers, to_host.clone());
        let own: BTreeSet<_> = family.among(&node.gateways).chain(host_addresses(node, family)).collect();
        for own in own {
            flows.add(Stage::Route, priority::ADDRESS, format!("{ip},{dst}={own}"), to_host.clone());
        }
        for cidr in family.nets(&node.pod_cidrs) {
            flows.drop(Stage::Route, priority::NETWORK, format!("{ip},{dst}={}", net(&cidr)), "no_route");
        }
        flows.add(Stage::Route, 100, ip, to_outside.clone());
    }
    flows.drop(Stage::Route, 0, "", "no_route");
    flows
}

fn commit(node: &Node) -> Flows {
    let mut flows = Flows::of_stage(Stage::Commit);
    // What came by the tunnel ends here: the sender knows a nearer way to everybody else.
    for to in [Kind::Tunnel, Kind::Outside] {
        flows.drop(Stage::Commit, 220, between(Kind::Tunnel, to), "no_route");
    }
    // The host would only send it here again; connections to Services get a source that comes back.
    for to in [Kind::Host, Kind::Outside] {
        let matching = format!("ct_state=-rpl+trk,ct_mark=0x0/{SERVICE_MARK:#x},{}", between(Kind::Host, to));
        flows.reject(Stage::Commit, 220, matching, "no_route");
    }
    let rules = "move:NXM_NX_REG5[]->NXM_NX_CT_LABEL[0..31],move:NXM_NX_REG6[]->NXM_NX_CT_LABEL[32..63]";
    let begun = "move:NXM_NX_REG0[0..3]->NXM_NX_CT_MARK[0..3]";
    let remember = format!("ct(commit,zone={ZONE},exec({begun},{rules})),{}", goto(Stage::Snat));
    // A Service has made it, before policies were asked. Behind this, the mark is not seen any more.
    let (kept, next) = (TO_SERVICE.trailing_zeros(), goto(Stage::Snat));
    let judge = format!("ct(commit,zone={ZONE},exec({rules})),load:0x1->NXM_NX_REG0[{kept}],{next}");
    for family in Family::all(node) {
        let new = format!("{},ct_state=+new+trk", family.ip());
        flows.add(Stage::Commit, 200, format!("{new},ct_mark=0x0/0xf"), remember.clone());
        let made = format!("{new},ct_mark={SERVICE_MARK:#x}/{SERVICE_MARK:#x}");
        flows.add(Stage::Commit, 190, made, judge.clone());
    }
    flows.add(Stage::Commit, 0, "", goto(Stage::Snat));
    flows
}

/// Who gets another source. Answers have what their connection got already.
fn source(node: &Node) -> Flows {
    let mut flows = Flows::of_stage(Stage::Snat);
    flows.add(Stage::Snat, 220, "ct_state=+rpl+trk", goto(Stage::Output));
    for family in Family::all(node) {
        let ip = family.ip();
        // What the node sends with an address that the others know it by: they send answers back by the tunnel.
        let ways = (Kind::Tunnel as u32) << 4 | Kind::Host as u32;
        for known in family.among(&node.known) {
            let own = format!("reg0={ways:#x}/{:#x},ct_mark=0x0/{SERVICE_MARK:#x}", TO_SERVICE | FROM_OUTSIDE | 0xff);
            flows.add(Stage::Snat, 210, format!("{ip},{own},{}={known}", family.src()), goto(Stage::Output));
        }
        for gateway in family.among(&node.gateways).take(1) {
            // Whatever else the host sends for itself or for a Service, so that answers come back by the tunnel and no two
            // connections are alike. Others outside are routed here: their answers find their way.
            flows.add(Stage::Snat, 200, format!("{ip},reg0={ways:#x}/{:#x}", FROM_OUTSIDE | 0xff), snat(gateway));
            let service =
                format!("{ip},ct_mark={SERVICE_MARK:#x}/{SERVICE_MARK:#x},{}", between(Kind::Host, Kind::Tunnel));
            flows.add(Stage::Snat, 190, service, snat(gateway));
            let begun = format!("reg0={:#x}/{:#x}", TO_SERVICE | ways, TO_SERVICE | 0xff);
            flows.add(Stage::Snat, 190, format!("{ip},{begun}"), snat(gateway));
        }
        for link in family.among(&node.link).take(1) {
            for to in [Kind::Host, Kind::Outside] {
                flows.add(Stage::Snat, 200, format!("{ip},{}", between(Kind::Host, to)), snat(link));
            }
            if node.masquerade {
                let outside = between(Kind::Pod, Kind::Outside);
                for except in family.nets(&node.masquerade_except) {
                    let matching = format!("{ip},{outside},{}={}", family.dst(), net(&except));
                    flows.add(Stage::Snat, 205, matching, goto(Stage::Output));
                }
                flows.add(Stage::Snat, 200, format!("{ip},{outside}"), snat(link));
            }
        }
    }
    flows.add(Stage::Snat, 0, "", goto(Stage::Output));
    flows
}

fn output(_: &Node) -> Flows {
    let mut flows = Flows::of_stage(Stage::Output);
    // Without the port that it came by, it may go back there.
    flows.add(Stage::Output, 0, "", "load:0->NXM_OF_IN_PORT[],output:NXM_NX_REG1[]");
    flows
}
