//! Services: one look finds the address and port that a client uses, and a select group chooses an endpoint.
//!
//! All frontends of a port of a Service share its groups: one for each [`Scope`] that any of them has. A group's buckets have numbers
//! that are the endpoints' own, so that an endpoint that goes takes only its own clients with it.

use super::Stage;
use super::affinity;
use super::base::priority;
use super::ids::{Ids, next, preferred};
use super::text::{FROM_OUTSIDE, Family, Flows, dnat, net};
use crate::facts::{Endpoint, Frontend, Node, Protocol, Scope, Service, ServicePort};
use crate::flow::{Group, Part};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

/// What a Service needs in the switch. Its groups keep their numbers in `ids`, until [`Ids::release`].
pub fn service(node: &Node, service: &Service, ids: &mut Ids) -> Part {
    let owner: Arc<str> = format!("svc:{}", service.name).into();
    let ports = || service.ports.iter().filter(|port| family(port).is_of(node));
    let numbers = ids.of(&service.name, ports().flat_map(|port| scopes(port).map(|scope| group_name(port, scope))));
    let (mut flows, mut groups) = (Flows::of(Arc::clone(&owner)), Vec::new());
    for port in ports() {
        for scope in scopes(port) {
            let Some(&id) = numbers.get(&group_name(port, scope)) else { continue };
            let ends = numbered(endpoints(port, scope));
            let text = match service.affinity_s {
                None => group_text(port, id, &ends),
                Some(seconds) => {
                    affinity::add(&mut flows, port, id, &ends, seconds);
                    affinity::group_text(port, id, &ends)
                }
            };
            groups.push(Group { id, text, owner: Arc::clone(&owner) });
        }
        for frontend in &port.frontends {
            add_frontend(&mut flows, service, port, frontend, &numbers);
        }
    }
    Part { flows: flows.all, groups }
}

pub(super) const fn family(port: &ServicePort) -> Family {
    if port.v6 { Family::V6 } else { Family::V4 }
}

/// The endpoints of a scope.
fn endpoints(port: &ServicePort, scope: Scope) -> &[Endpoint] {
    match scope {
        Scope::Cluster => &port.cluster,
        Scope::Local => &port.local,
    }
}

/// The scopes that a port has a group for: those that a frontend has and that have endpoints.
fn scopes(port: &ServicePort) -> impl Iterator<Item = Scope> + '_ {
    [Scope::Cluster, Scope::Local].into_iter().filter(|scope| {
        let uses = |frontend: &Frontend| frontend.inside == *scope || frontend.outside == Some(*scope);
        !endpoints(port, *scope).is_empty() && port.frontends.iter().any(uses)
    })
}

/// What a group is called among those of its Service.
fn group_name(port: &ServicePort, scope: Scope) -> String {
    let protocol = port.protocol.name();
    let family = if port.v6 { 6 } else { 4 };
    let scope = match scope {
        Scope::Cluster => "cluster",
        Scope::Local => "local",
    };
    format!("{}/{protocol}/{family}/{scope}", port.name)
}

/// Endpoints with numbers of their own, in the order of the numbers.
fn numbered(endpoints: &[Endpoint]) -> BTreeMap<u32, Endpoint> {
    let mut out = BTreeMap::new();
    let endpoints: BTreeSet<Endpoint> = endpoints.iter().copied().collect();
    for endpoint in endpoints {
        let mut id = preferred(format!("{} {}", endpoint.address, endpoint.port).as_bytes());
        while out.contains_key(&id) {
            id = next(id);
        }
        out.insert(id, endpoint);
    }
    out
}

/// A group's text: how it chooses, and its buckets. Connections of one client to one Service spread over its source ports, where
/// `fields` has them; the group's own number keeps one Service's choices apart from another's.
pub(super) fn select_text(id: u32, fields: &str, buckets: impl Iterator<Item = (u32, String)>) -> String {
    let mut text = format!("type=select,selection_method=hash,selection_method_param={id},fields({fields})");
    for (number, actions) in buckets {
        // Writing to a string does not fail.
        let _ = write!(text, ",bucket=bucket_id:{number},actions={actions}");
    }
    text
}

fn group_text(port: &ServicePort, id: u32, ends: &BTreeMap<u32, Endpoint>) -> String {
    let source_port = match port.protocol {
        Protocol::Tcp => "tcp_src",
        Protocol::Udp => "udp_src",
        Protocol::Sctp => "sctp_src",
    };
    let fields = format!("{},{source_port}", source_field(port));
    select_text(id, &fields, ends.iter().map(|(number, endpoint)| (*number, dnat(*endpoint))))
}

/// The field of a port's clients, as selections name it.
pub(super) const fn source_field(port: &ServicePort) -> &'static str {
    if port.v6 { "ipv6_src" } else { "ip_src" }
}

fn add_frontend(
    flows: &mut Flows,
    service: &Service,
    port: &ServicePort,
    frontend: &Frontend,
    numbers: &BTreeMap<String, u32>,
) {
    let family = family(port);
    if Family::of(frontend.address) != family {
        return;
    }
    let protocol = family.protocol(port.protocol);
    let to = format!("{protocol},{}={},tp_dst={}", family.dst(), frontend.address, frontend.port);
    let has_affinity = service.affinity_s.is_some();
    let mut choose = |matching: String, scope: Scope| match numbers.get(&group_name(port, scope)) {
        Some(id) if has_affinity => flows.add(Stage::Service, priority::FRONTEND, matching, affinity::enter(*id)),
        Some(id) => flows.add(Stage::Service, priority::FRONTEND, matching, format!("group:{id}")),
        // Those of other nodes get what comes to them; whoever balances load has to learn that this node has none.
        None if scope == Scope::Local && !port.cluster.is_empty() => {
            flows.drop(Stage::Service, priority::FRONTEND, matching, "service_no_endpoint");
        }
        None => flows.reject(Stage::Service, priority::FRONTEND, matching, "service_no_endpoint"),
    };
    if frontend.outside == Some(frontend.inside) && frontend.sources.is_empty() {
        choose(to, frontend.inside);
        return;
    }
    let outside = format!("{to},reg0={FROM_OUTSIDE:#x}/{FROM_OUTSIDE:#x}");
    choose(format!("{to},reg0=0x0/{FROM_OUTSIDE:#x}"), frontend.inside);
    match frontend.outside {
        Some(scope) if frontend.sources.is_empty() => choose(outside, scope),
        Some(scope) => {
            let sources: BTreeSet<String> = family.nets(&frontend.sources).map(|source| net(&source)).collect();
            for source in sources {
                choose(format!("{outside},{}={source}", family.src()), scope);
            }
            flows.drop(Stage::Service, priority::REFUSED, outside, "rule_drop");
        }
        None => flows.reject(Stage::Service, priority::REFUSED, outside, "service_no_endpoint"),
    }
}
