//! ARP and neighbour discovery: every question of a Pod or the host is answered with [`ROUTER_MAC`], because the switch routes whatever
//! they have to say to each other. What looks for duplicates of an address is not answered, and what announces one goes nowhere.

use super::text::{Family, Flows, GUARDED, goto, host_addresses, mac};
use super::{ROUTER_MAC, Stage};
use crate::facts::{Node, Pod};
use std::net::IpAddr;

/// Questions about one's own address: announcements.
const ANNOUNCED: u16 = 210;
/// Questions of somebody without an address: a search for duplicates.
const PROBE: u16 = 220;
/// Questions.
const ASKED: u16 = 200;

/// Every flow that answers.
pub(super) fn all(node: &Node) -> Flows {
    let mut flows = Flows::of_stage(Stage::Arp);
    for family in Family::all(node) {
        match family {
            Family::V4 => arp(&mut flows),
            Family::V6 => neighbor(&mut flows),
        }
        for own in family.among(&node.gateways).chain(host_addresses(node, family)) {
            announcement(&mut flows, "in_port=LOCAL", own);
        }
    }
    flows
}

fn arp(flows: &mut Flows) {
    flows.drop(Stage::Arp, PROBE, "arp,arp_spa=0.0.0.0", "rule_drop");
    let router = mac(ROUTER_MAC);
    let answer = format!(
        "move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],mod_dl_src:{router},load:0x2->NXM_OF_ARP_OP[],\
         move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],load:{ROUTER_MAC:#x}->NXM_NX_ARP_SHA[],\
         move:NXM_OF_ARP_SPA[]->NXM_NX_REG1[],move:NXM_OF_ARP_TPA[]->NXM_OF_ARP_SPA[],\
         move:NXM_NX_REG1[]->NXM_OF_ARP_TPA[],IN_PORT"
    );
    flows.add(Stage::Arp, ASKED, "arp,arp_op=1", answer);
    flows.drop(Stage::Arp, 0, "", "rule_drop");
}

fn neighbor(flows: &mut Flows) {
    let router = mac(ROUTER_MAC);
    flows.drop(Stage::Neighbor, PROBE, "icmp6,icmp_type=135,ipv6_src=::", "rule_drop");
    // Router, solicited, override (RFC 4861, 4.4); the option is the target's address (4.6.1).
    let answer = format!(
        "move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],mod_dl_src:{router},move:NXM_NX_IPV6_SRC[]->NXM_NX_IPV6_DST[],\
         move:NXM_NX_ND_TARGET[]->NXM_NX_IPV6_SRC[],set_field:136->icmpv6_type,set_field:0xe0000000->nd_reserved,\
         set_field:2->nd_options_type,{}",
        goto(Stage::Advertise)
    );
    flows.add(Stage::Neighbor, ASKED, "icmp6,icmp_type=135,icmp_code=0,nw_ttl=255", answer);
    flows.drop(Stage::Neighbor, 0, "", "rule_drop");
    // Only now that it is an advertisement has it the field for the address.
    let complete = format!("set_field:{router}->nd_tll,IN_PORT");
    flows.add(Stage::Advertise, ASKED, "icmp6,icmp_type=136", complete);
    flows.drop(Stage::Advertise, 0, "", "rule_drop");
}

fn announcement(flows: &mut Flows, port: &str, own: IpAddr) {
    match own {
        IpAddr::V4(v4) => flows.drop(Stage::Arp, ANNOUNCED, format!("arp,{port},arp_tpa={v4}"), "rule_drop"),
        IpAddr::V6(v6) => {
            let asked = format!("icmp6,{port},icmp_type=135,nd_target={v6}");
            flows.drop(Stage::Neighbor, ANNOUNCED, asked, "rule_drop");
        }
    }
}

/// A Pod asks for its own address only to announce it.
pub(super) fn of_pod(flows: &mut Flows, pod: &Pod, address: IpAddr) {
    announcement(flows, &format!("in_port={}", pod.port), address);
}

/// The ways into these stages; `priority` is above that of all IP.
pub(super) fn entrance(flows: &mut Flows, family: Family, priority: u16) {
    for from in ["in_port=LOCAL", GUARDED] {
        match family {
            Family::V4 => flows.add(Stage::Classify, priority, format!("arp,{from}"), goto(Stage::Arp)),
            Family::V6 => {
                let asked = format!("icmp6,{from},icmp_type=135");
                flows.add(Stage::Classify, priority, asked, goto(Stage::Neighbor));
            }
        }
    }
    if family == Family::V6 {
        // Solicitations and advertisements of routers, advertisements, redirects; and solicitations that came by the tunnel.
        for kind in 133..=137 {
            flows.drop(Stage::Classify, priority - 1, format!("icmp6,icmp_type={kind}"), "rule_drop");
        }
    }
}
