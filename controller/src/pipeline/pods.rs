//! Pods of this node: where their packets go, and the ports of the host that lead to them.

use super::base::priority;
use super::services::arrivals;
use super::text::{EXEMPT, Family, Flows, dnat, from, goto, route, snat};
use super::{Kind, Stage, arp, policy};
use crate::facts::{Endpoint, Node, Pod};
use crate::flow::Part;

/// What a Pod's interface needs in the switch.
pub fn pod(node: &Node, pod: &Pod) -> Part {
    let mut flows = Flows::of(pod.owner.as_str());
    for address in pod.addresses.iter().copied().filter(|address| Family::of(*address).is_of(node)) {
        let family = Family::of(address);
        let (ip, src, dst) = (family.ip(), family.src(), family.dst());
        arp::of_pod(&mut flows, pod, address);
        let to = format!("{ip},{dst}={address}");
        flows.add(Stage::Route, priority::ADDRESS, to, route(pod.port, Kind::Pod, pod.mac));
        let itself = format!("{ip},{},{src}={address},{dst}={address}", from(Kind::Pod));
        let exempt = format!("load:0x1->NXM_NX_REG0[{}],{}", EXEMPT.trailing_zeros(), goto(Stage::Route));
        flows.add(Stage::EgressAdmin, policy::FIRST, itself, exempt);
        // By a Service it reached itself: nobody answers a packet with one's own source, and no answer would come by here.
        for link in family.among(&node.link).take(1) {
            let itself = format!("{ip},{src}={address},{dst}={address}");
            flows.add(Stage::Snat, priority::HAIRPIN, itself, snat(link));
        }
    }
    for port in &pod.host_ports {
        let ((address, incoming), (to, to_port)) = (port.incoming, port.to);
        let family = Family::of(address);
        if family != Family::of(to) || !family.is_of(node) {
            continue;
        }
        let endpoint = Endpoint { address: to, port: to_port };
        for at in arrivals(family, port.protocol, incoming) {
            let frontend = format!("{at},{}={address}", family.dst());
            flows.add(Stage::Service, priority::FRONTEND, frontend, dnat(endpoint));
        }
    }
    Part { flows: flows.all, groups: Vec::new() }
}
