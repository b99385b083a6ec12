//! Services: one look finds the address and port that a client uses, and a select group chooses an endpoint.
//!
//! All frontends of a port of a Service share its groups: one for each [`Scope`] that any of them has. A group's buckets have numbers
//! that are the endpoints' own, so that an endpoint that goes takes only its own clients with it.

use super::Stage;
use super::affinity;
use super::base::priority;
use super::ids::{Ids, next, preferred};
use super::text::{FROM_OUTSIDE, Family, Flows, dnat, host_addresses, net};
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
        let choices = Choices { port, has_affinity: service.affinity_s.is_some(), numbers: &numbers };
        for frontend in &port.frontends {
            add_frontend(&mut flows, node, &choices, frontend);
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

/// A port of a Service and its groups.
struct Choices<'a> {
    port: &'a ServicePort,
    has_affinity: bool,
    numbers: &'a BTreeMap<String, u32>,
}

impl Choices<'_> {
    /// Chooses an endpoint of a scope.
    fn add(&self, flows: &mut Flows, matching: String, scope: Scope) {
        match self.numbers.get(&group_name(self.port, scope)) {
            Some(id) if self.has_affinity => {
                flows.add(Stage::Service, priority::FRONTEND, matching, affinity::enter(*id));
            }
            Some(id) => flows.add(Stage::Service, priority::FRONTEND, matching, format!("group:{id}")),
            // Those of other nodes get what comes to them; whoever balances load has to learn that this node has none.
            None if scope == Scope::Local && !self.port.cluster.is_empty() => {
                flows.drop(Stage::Service, priority::FRONTEND, matching, "service_no_endpoint");
            }
            None => flows.reject(Stage::Service, priority::FRONTEND, matching, "service_no_endpoint"),
        }
    }
}

fn add_frontend(flows: &mut Flows, node: &Node, choices: &Choices<'_>, frontend: &Frontend) {
    let family = family(choices.port);
    if Family::of(frontend.address) != family {
        return;
    }
    for at in arrivals(family, choices.port.protocol, frontend.port) {
        let to = format!("{at},{}={}", family.dst(), frontend.address);
        if frontend.outside == Some(frontend.inside) && frontend.sources.is_empty() {
            choices.add(flows, to, frontend.inside);
            continue;
        }
        for (side, scope) in [(0, Some(frontend.inside)), (FROM_OUTSIDE, frontend.outside)] {
            let side = format!("{to},reg0={side:#x}/{FROM_OUTSIDE:#x}");
            match scope {
                None => flows.reject(Stage::Service, priority::REFUSED, side, "service_no_endpoint"),
                Some(scope) if frontend.sources.is_empty() => choices.add(flows, side, scope),
                Some(scope) => {
                    for source in sources(node, frontend, family) {
                        choices.add(flows, format!("{side},{}={source}", family.src()), scope);
                    }
                    flows.drop(Stage::Service, priority::REFUSED, side, "rule_drop");
                }
            }
        }
        if !frontend.sources.is_empty() && !is_host_let_in(node, frontend, family) {
            for gateway in family.among(&node.gateways) {
                let host = format!("{to},{}={gateway}", family.src());
                flows.drop(Stage::Service, priority::NOT_LET_IN, host, "rule_drop");
            }
        }
    }
}

/// What the first packets to a port look like behind the tracker. Tables see neither the ports of fragments nor, in IPv6, the
/// protocol of any but the first; the tracker has seen those of the whole datagram.
pub(super) fn arrivals(family: Family, protocol: Protocol, port: u16) -> Vec<String> {
    let mut all = vec![format!("{},tp_dst={port}", family.protocol(protocol))];
    if protocol == Protocol::Udp {
        all.push(format!("{},ip_frag=yes,ct_state=+new+trk,ct_nw_proto=17,ct_tp_dst={port}", family.ip()));
    }
    all
}

/// Whom a frontend lets in: what is listed, and the host by the address that it sends to the switch with, if one of its others is.
fn sources(node: &Node, frontend: &Frontend, family: Family) -> BTreeSet<String> {
    let listed = family.nets(&frontend.sources).map(|source| net(&source));
    let host = family.among(&node.gateways).filter(|_| is_host_let_in(node, frontend, family));
    listed.chain(host.map(|gateway| gateway.to_string())).collect()
}

/// Whether one of the host's addresses by which others know it is let in.
fn is_host_let_in(node: &Node, frontend: &Frontend, family: Family) -> bool {
    host_addresses(node, family).any(|address| frontend.sources.iter().any(|source| source.contains(&address)))
}
