//! Routers: those inside of switches, static routes, and that addresses of one routing domain do not overlap.

use super::super::Problem;
use super::super::raw::{Raw, RawRoute, nearest};
use super::super::resolved::{Carried, Inside, Link, Mac, Route, Router, RouterInterface, Vlan, everywhere};
use super::MTU;
use super::links::Numbering;
use super::nodes::Nodes;
use ipnet::IpNet;

/// Adds the routers inside of switches that are gateways. A switch must carry the VLAN that it is the gateway of.
pub(super) fn add_inside(
    raw: &Raw,
    links: &[Link],
    vlans: &[Vlan],
    nodes: &mut Nodes,
    numbering: &mut Numbering<'_>,
    problems: &mut Vec<Problem>,
) {
    let names: Vec<_> = nodes.switches.iter().map(|s| s.name.clone()).collect();
    for switch in names {
        let own: Vec<_> = vlans.iter().filter(|v| v.gateway.as_deref() == Some(&switch)).collect();
        if own.is_empty() {
            continue;
        }
        for vlan in &own {
            let at = |link: &&Link| link.underlay.is_none() && link.ends.iter().any(|end| end.node() == switch);
            let mut carried = links.iter().filter(at).map(|l| &l.carried);
            let by_tunnel = |name: &str| {
                let ends = raw.tunnels.iter().filter(|t| t.ends.iter().any(|e| e.value == switch));
                ends.into_iter().any(|t| t.vlans.is_empty() || t.vlans.iter().any(|v| v.value == name))
            };
            if !carried.any(|c: &Carried| c.carries(Some(&vlan.name))) && !by_tunnel(&vlan.name) {
                not_there(raw, vlan, &switch, problems);
            }
        }
        let port = numbering.port(&switch);
        let mtu = raw.mtu.unwrap_or(MTU);
        let interfaces = own.iter().map(|vlan| RouterInterface {
            name: vlan.name.clone(),
            port: 1,
            peer: format!("{switch}:{port}"),
            vlan: Some(vlan.name.clone()),
            tag: Some(vlan.id),
            vrf: vlan.vrf.clone(),
            mac: Mac([0; 6]),
            mtu: mtu.max(largest_in(nodes, &vlan.name)),
            addresses: Vec::new(),
            line: gateway_line(raw, &vlan.name),
        });
        let interfaces = interfaces.collect();
        let inside = Some(Inside { switch: switch.clone(), port });
        nodes.routers.push(Router {
            name: format!("{switch}.router"),
            inside,
            interfaces,
            routes: Vec::new(),
            nat: None,
        });
    }
    for vlan in vlans {
        let Some(gateway) = &vlan.gateway else { continue };
        let router = nodes.routers.iter().find(|r| r.name == *gateway);
        if router.is_some_and(|r| r.interfaces.iter().all(|i| i.vlan.as_ref() != Some(&vlan.name))) {
            not_there(raw, vlan, gateway, problems);
        }
    }
}

/// The largest MTU of a host in the VLAN.
fn largest_in(nodes: &Nodes, vlan: &str) -> u32 {
    let interfaces = nodes.hosts.iter().flat_map(|h| &h.interfaces);
    interfaces.filter(|i| i.vlan.as_deref() == Some(vlan)).map(|i| i.mtu).max().unwrap_or(0)
}

fn gateway_line(raw: &Raw, vlan: &str) -> usize {
    let found = raw.vlans.iter().find(|v| v.name.value == vlan);
    found.map_or(0, |v| v.gateway.as_ref().map_or(v.name.line, |g| g.line))
}

fn not_there(raw: &Raw, vlan: &Vlan, gateway: &str, problems: &mut Vec<Problem>) {
    let message = format!("gateway: no link of `{gateway}` carries the VLAN {}", vlan.name);
    problems.push(Problem::new(gateway_line(raw, &vlan.name), message));
}

/// Gives routers their routes.
pub(super) fn add_routes(raw: &Raw, nodes: &mut Nodes, problems: &mut Vec<Problem>) {
    for raw in raw.routers.iter().flatten() {
        let Some(router) = nodes.router_mut(&raw.name.value) else { continue };
        if router.interfaces.is_empty() {
            problems.push(Problem::new(raw.name.line, format!("`{}` is in no link", router.name)));
        }
        let routes: Vec<_> = raw.routes.iter().filter_map(|route| resolve(route, router, problems)).collect();
        for (index, route) in routes.iter().enumerate() {
            if let Some(first) = routes[..index].iter().find(|r| (r.to, &r.vrf) == (route.to, &route.vrf)) {
                let message = format!(
                    "{} has a route already (line {}); several next hops are a list: `via: [.., ..]`",
                    route.to, first.line
                );
                problems.push(Problem::new(route.line, message));
            }
        }
        router.routes = routes;
    }
}

fn resolve(route: &RawRoute, router: &Router, problems: &mut Vec<Problem>) -> Option<Route> {
    let vrf = route.vrf.as_ref().map(|v| v.value.clone());
    if let (Some(line), Some(name)) = (route.vrf.as_ref().map(|v| v.line), &vrf) {
        let mut vrfs: Vec<_> = router.interfaces.iter().filter_map(|i| i.vrf.as_deref()).collect();
        vrfs.sort_unstable();
        vrfs.dedup();
        if !vrfs.contains(&name.as_str()) {
            let near = nearest(name, vrfs.into_iter());
            problems.push(Problem::new(line, format!("vrf: no interface of {} is in `{name}`{near}", router.name)));
            return None;
        }
    }
    let nets = router.interfaces.iter().filter(|i| i.vrf == vrf).flat_map(|i| &i.addresses);
    for via in &route.via {
        let message = match nets.clone().find(|net| net.contains(&via.value)) {
            None => format!("via: {} is in no network of {}{}", via.value, router.name, in_vrf(vrf.as_deref())),
            Some(_) if nets.clone().any(|net| net.addr() == via.value) => {
                format!("via: {} is {} itself", via.value, router.name)
            }
            Some(_) => continue,
        };
        problems.push(Problem::new(via.line, message));
        return None;
    }
    let to = route.to.value.or_else(|| route.via.first().map(|via| everywhere(via.value)))?;
    Some(Route { to, via: route.via.iter().map(|v| v.value).collect(), vrf, line: route.line })
}

fn in_vrf(vrf: Option<&str>) -> String {
    vrf.map_or(String::new(), |vrf| format!(" in VRF {vrf}"))
}

/// Refuses two interfaces of a router whose networks overlap in one routing domain.
pub(super) fn check_overlaps(nodes: &Nodes, problems: &mut Vec<Problem>) {
    for router in &nodes.routers {
        for (index, interface) in router.interfaces.iter().enumerate() {
            for other in router.interfaces[..index].iter().filter(|other| other.vrf == interface.vrf) {
                let pairs = interface.addresses.iter().flat_map(|a| other.addresses.iter().map(move |b| (a, b)));
                let overlap = |(a, b): &(&IpNet, &IpNet)| a.contains(&b.network()) || b.contains(&a.network());
                for (a, b) in pairs.filter(overlap) {
                    let message = format!(
                        "{}: the networks of {} ({a}) and {} ({b}) overlap; put one of them in another `vrf:`",
                        router.name, interface.name, other.name
                    );
                    problems.push(Problem::new(interface.line, message));
                }
            }
        }
    }
}
