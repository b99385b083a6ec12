//! Which endpoints of a Service are chosen from.
//!
//! # Rules
//! - An endpoint that is in several slices is one endpoint: on this node if one of them says so, and in the best state of all.
//! - Ready endpoints are chosen from. Only if there is none, those that still serve while they terminate.
//! - Hints count only if each ready endpoint has one and one of them is for this node, or this zone; for the node comes first.
//! - Those on this node are chosen by the same rule among themselves, and hints do not count.

use super::Here;
use super::read;
use crate::facts::{Endpoint, Protocol};
use k8s_openapi::api::discovery::v1::{Endpoint as Listed, EndpointSlice};
use std::collections::{BTreeMap, btree_map::Entry};

/// An endpoint in some state. The order is that of preference among entries of the same endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate<'a> {
    /// On this node.
    pub(super) local: bool,
    /// Gets new connections.
    pub(super) ready: bool,
    /// Answers, be it terminating or not.
    pub(super) serving: bool,
    /// Is going.
    pub(super) terminating: bool,
    /// The zones that it is hinted for.
    zones: Vec<&'a str>,
    /// The nodes that it is hinted for.
    nodes: Vec<&'a str>,
    /// Its address and port.
    pub(super) endpoint: Endpoint,
}

/// A port's name and protocol, and whether it is of IPv6.
pub(super) type PortKey<'a> = (&'a str, Protocol, bool);

/// The endpoints of a Service in all states, by port, each once and sorted by address and port.
pub(super) fn candidates<'a>(
    service: &str,
    slices: &[&'a EndpointSlice],
    node: &str,
) -> BTreeMap<PortKey<'a>, Vec<Candidate<'a>>> {
    let mut all: BTreeMap<PortKey<'a>, BTreeMap<Endpoint, Candidate<'a>>> = BTreeMap::new();
    for slice in slices.iter().filter(|slice| read::service_of(slice).as_deref() == Some(service)) {
        let v6 = match slice.address_type.as_str() {
            "IPv4" => false,
            "IPv6" => true,
            _ => continue,
        };
        // A port without a number stands for all ports, which Services cannot have.
        for port in slice.ports.iter().flatten() {
            let (Some(number), Some(protocol)) = (read::port(port.port), Protocol::of_object(port.protocol.as_deref()))
            else {
                continue;
            };
            let found = all.entry((port.name.as_deref().unwrap_or_default(), protocol, v6)).or_default();
            for listed in &slice.endpoints {
                add(found, listed, number, v6, node);
            }
        }
    }
    all.into_iter().map(|(key, found)| (key, found.into_values().collect())).collect()
}

/// Adds an endpoint as a slice lists it. Only its first address counts.
fn add<'a>(found: &mut BTreeMap<Endpoint, Candidate<'a>>, listed: &'a Listed, port: u16, v6: bool, node: &str) {
    let address = listed.addresses.first().and_then(|address| read::address(address));
    let Some(address) = address.filter(|address| address.is_ipv6() == v6) else { return };
    let conditions = listed.conditions.as_ref();
    let endpoint = Endpoint { address, port };
    let mut candidate = Candidate {
        local: listed.node_name.as_deref() == Some(node),
        ready: conditions.and_then(|c| c.ready).unwrap_or(true),
        serving: conditions.and_then(|c| c.serving).unwrap_or(true),
        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
        zones: Vec::new(),
        nodes: Vec::new(),
        endpoint,
    };
    if let Some(hints) = &listed.hints {
        candidate.zones = hints.for_zones.iter().flatten().map(|zone| zone.name.as_str()).collect();
        candidate.nodes = hints.for_nodes.iter().flatten().map(|node| node.name.as_str()).collect();
        candidate.zones.sort_unstable();
        candidate.nodes.sort_unstable();
    }
    match found.entry(endpoint) {
        Entry::Vacant(vacant) => {
            vacant.insert(candidate);
        }
        Entry::Occupied(mut there) => {
            if candidate > *there.get() {
                there.insert(candidate);
            }
        }
    }
}

/// Those of the whole cluster. None only if there is none that is ready or still serves.
pub(super) fn cluster(found: &[Candidate<'_>], here: &Here) -> Vec<Endpoint> {
    let (for_node, for_zone) = hints(found, here);
    let near = |c: &Candidate<'_>| match (for_node, for_zone) {
        (true, _) => c.nodes.contains(&here.node.as_str()),
        (false, true) => here.zone.as_deref().is_some_and(|zone| c.zones.contains(&zone)),
        (false, false) => true,
    };
    let ready = endpoints(found, |c| c.ready && near(c));
    if ready.is_empty() { endpoints(found, is_last_resort) } else { ready }
}

/// Those on this node.
pub(super) fn local(found: &[Candidate<'_>]) -> Vec<Endpoint> {
    let ready = endpoints(found, |c| c.local && c.ready);
    if ready.is_empty() { endpoints(found, |c| c.local && is_last_resort(c)) } else { ready }
}

/// Whether an endpoint is used if there is no ready one.
fn is_last_resort(candidate: &Candidate<'_>) -> bool {
    candidate.serving && candidate.terminating
}

/// The addresses and ports of some.
fn endpoints(found: &[Candidate<'_>], which: impl Fn(&Candidate<'_>) -> bool) -> Vec<Endpoint> {
    found.iter().filter(|c| which(c)).map(|c| c.endpoint).collect()
}

/// Whether hints for nodes count, and whether those for zones do.
fn hints(found: &[Candidate<'_>], here: &Here) -> (bool, bool) {
    let ready = || found.iter().filter(|c| c.ready);
    let for_node = ready().all(|c| !c.nodes.is_empty()) && ready().any(|c| c.nodes.contains(&here.node.as_str()));
    let zone = here.zone.as_deref();
    let for_zone =
        ready().all(|c| !c.zones.is_empty()) && zone.is_some_and(|zone| ready().any(|c| c.zones.contains(&zone)));
    (for_node, for_zone)
}
