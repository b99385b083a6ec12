//! Other nodes: how the networks of their Pods are reached.

use super::base::priority;
use super::text::{Family, Flows, LOCAL, goto, net, route};
use super::{Kind, ROUTER_MAC, Stage};
use crate::facts::{Node, Peer, Way};
use crate::flow::Part;
use std::net::IpAddr;

/// What another node needs in the switch.
pub fn peer(node: &Node, peer: &Peer) -> Part {
    let mut flows = Flows::of(format!("node:{}", peer.name));
    for (cidr, way) in &peer.pod_cidrs {
        let family = Family::of_net(cidr);
        if !family.is_of(node) {
            continue;
        }
        let (ip, cidr) = (family.ip(), net(cidr));
        let to = format!("{ip},{}={cidr}", family.dst());
        match (way, node.tunnel) {
            (Way::Tunnel(end), Some(tunnel)) => {
                let field = if end.is_ipv4() { "tun_dst" } else { "tun_ipv6_dst" };
                let far = match end {
                    IpAddr::V4(v4) => v4.to_string(),
                    IpAddr::V6(v6) => v6.to_string(),
                };
                let actions = format!("set_field:{far}->{field},{}", route(tunnel, Kind::Tunnel, ROUTER_MAC));
                for address in family.among(&peer.addresses) {
                    let answers = format!("{ip},ct_state=+rpl+trk,ct_mark={:#x}/0xf", Kind::Tunnel as u8);
                    let matching = format!("{answers},{}={address}", family.dst());
                    flows.add(Stage::Route, priority::ANSWER, matching, actions.clone());
                }
                flows.add(Stage::Route, priority::NETWORK, to, actions);
            }
            (Way::Tunnel(_), None) => flows.drop(Stage::Route, priority::NETWORK, to, "tunnel_down"),
            (Way::Host, _) => {
                let actions = route(LOCAL, Kind::Host, node.gateway_mac);
                flows.add(Stage::Route, priority::NETWORK, to, actions);
                let source = format!("load:{:#x}->NXM_NX_REG0[],{}", Kind::Host as u8, goto(Stage::Unsnat));
                let matching = format!("{ip},in_port=LOCAL,{}={cidr}", family.src());
                flows.add(Stage::Classify, priority::INSIDE, matching, source);
            }
        }
    }
    Part { flows: flows.all, groups: Vec::new() }
}
