//! Routers that translate: at which interface, and the route that leads there.

use super::super::Problem;
use super::super::raw::Raw;
use super::super::resolved::uplink::Uplink;
use super::super::resolved::{Route, Router, RouterInterface, RouterNat, everywhere};
use super::nodes::Nodes;
use ipnet::IpNet;
use std::net::IpAddr;

/// Finds the interface of each router that translates. Behind an uplink that translates too, the router's default routes lead to the
/// machine, where the file has none.
pub(super) fn resolve(raw: &Raw, nodes: &mut Nodes, uplink: Option<&Uplink>, problems: &mut Vec<Problem>) {
    for raw in raw.routers.iter().flatten() {
        let (Some(line), Some(router)) = (raw.nat, nodes.router_mut(&raw.name.value)) else { continue };
        let mut refuse = |message: String| problems.push(Problem::new(line, message));
        let Some(uplink) = uplink else {
            refuse("nat: the lab has no uplink; add `uplink: {switch: .., mode: nat}`".to_owned());
            continue;
        };
        let Some(interface) = outside(router, uplink).cloned() else {
            let vlan = uplink.vlan.as_ref().map_or(String::new(), |vlan| format!(" in the VLAN {vlan}"));
            refuse(format!("nat: {} has no interface on {}{vlan}, where the uplink is", router.name, uplink.switch));
            continue;
        };
        let defaults = default_routes(router, &interface, uplink, line);
        router.routes.extend(defaults);
        if !router.routes.iter().any(|route| route.to.prefix_len() == 0 && route.vrf == interface.vrf) {
            refuse(format!(
                "nat: {} has no default route; `uplink: {{dev: ..}}` does not say one, so add it: \
                 `routes: [{{to: default, via: ..}}]`",
                router.name
            ));
        }
        router.nat = Some(RouterNat { interface: interface.name, line });
    }
}

/// The interface of a router that is in the uplink's network: on its switch, or else one that has the machine in its network.
fn outside<'a>(router: &'a Router, uplink: &Uplink) -> Option<&'a RouterInterface> {
    let mut same = router.interfaces.iter().filter(|interface| interface.vlan == uplink.vlan);
    let on_switch = |interface: &&RouterInterface| interface.peer.split(':').next() == Some(uplink.switch.as_str());
    let is_near = |interface: &&RouterInterface| {
        let machine = || uplink.addresses().iter().map(IpNet::addr);
        interface.addresses.iter().any(|net| machine().any(|ip| net.contains(&ip)))
    };
    same.clone().find(on_switch).or_else(|| same.find(is_near))
}

/// Routes to the machine, of each IP version that it and the router have there, unless there is one already.
fn default_routes(router: &Router, interface: &RouterInterface, uplink: &Uplink, line: usize) -> Vec<Route> {
    let near = |ip: &IpAddr| interface.addresses.iter().any(|net| net.contains(ip));
    let is_there = |to: &IpNet| router.routes.iter().any(|route| route.to == *to && route.vrf == interface.vrf);
    let machine = uplink.addresses().iter().map(IpNet::addr).filter(near);
    let routes = machine.map(|via| (everywhere(via), via)).filter(|(to, _)| !is_there(to));
    routes.map(|(to, via)| Route { to, via: vec![via], vrf: interface.vrf.clone(), line }).collect()
}
