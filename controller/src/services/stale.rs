//! Connections of UDP and SCTP that have to end when a Service changes.
//!
//! A connection keeps the endpoint that it got with its first packet. Clients of TCP notice when theirs is gone and begin anew; those
//! of UDP may send from the same port for ever, so that without help they would never get another endpoint (SCTP associations that
//! are begun anew from the same ports likewise).
//!
//! # Rules
//! - An endpoint that neither gets new connections nor still serves: connections to it end.
//! - A frontend that is gone: all connections to it end.
//! - A frontend that is new, or whose port had no endpoint and has one: connections end that were begun there while nobody translated
//!   them. Those that have an endpoint go on, so that it does not matter whether what was there before is known: after a restart
//!   nothing is lost.
//! - Ports of the host that lead to Pods likewise: they are frontends of one endpoint ([`stale_host_ports`]).
//! - After a restart, [`left_over`] finds the connections whose frontend or endpoint went meanwhile.

use crate::facts::{Endpoint, HostPort, Protocol, Service, ServicePort};
use crate::pipeline::{Family, SERVICE_MARK, ZONE};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

/// Some connections that have to end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stale {
    /// Their protocol.
    pub protocol: Protocol,
    /// The address and port that their clients use.
    pub frontend: (IpAddr, u16),
    /// Which of them.
    pub which: Which,
}

/// Which connections to a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    /// All.
    All,
    /// Those that an endpoint answers.
    To(Endpoint),
    /// Those that no endpoint was chosen for.
    Untranslated,
}

impl Stale {
    /// The connections, as a filter of the switch's connections.
    #[must_use]
    pub fn filter(&self) -> String {
        let family = Family::of(self.frontend.0);
        let (protocol, dst, src) = (family.protocol(self.protocol), family.dst(), family.src());
        let (address, port) = self.frontend;
        let which = match self.which {
            Which::All => String::new(),
            Which::To(to) => format!(",reply_{src}={},reply_tp_src={}", to.address, to.port),
            Which::Untranslated => format!(",ct_mark=0/{SERVICE_MARK:#x}"),
        };
        format!("zone={ZONE},{protocol},{dst}={address},tp_dst={port}{which}")
    }
}

/// Whether a protocol's connections have to be ended.
fn is_concerned(protocol: Protocol) -> bool {
    protocol != Protocol::Tcp
}

/// The ports of a Service that are concerned, by name, protocol and family.
fn ports(service: Option<&Service>) -> BTreeMap<(&str, Protocol, bool), &ServicePort> {
    let ports = service.into_iter().flat_map(|service| &service.ports).filter(|port| is_concerned(port.protocol));
    ports.map(|port| ((port.name.as_str(), port.protocol, port.v6), port)).collect()
}

/// The address and port of each frontend.
fn frontends(port: &ServicePort) -> impl Iterator<Item = (IpAddr, u16)> {
    port.frontends.iter().map(|frontend| (frontend.address, frontend.port))
}

/// The endpoints that new connections get.
fn chosen_from(port: &ServicePort) -> impl Iterator<Item = Endpoint> {
    port.cluster.iter().chain(&port.local).copied()
}

/// What has to end when a Service that was `old` is `new`, once the flows of the new one are there. `serving` is what
/// [`super::serving`] says of the new one. Sorted, each once.
#[must_use]
pub fn stale(old: Option<&Service>, new: Option<&Service>, serving: &BTreeSet<(Protocol, Endpoint)>) -> Vec<Stale> {
    let (before, after) = (ports(old), ports(new));
    let kept: HashSet<_> = after.values().flat_map(|port| frontends(port).map(|at| (port.protocol, at))).collect();
    let mut stale = BTreeSet::new();
    for (key, port) in &before {
        let protocol = port.protocol;
        let now = after.get(key);
        let alive: HashSet<_> = now.into_iter().flat_map(|port| chosen_from(port)).collect();
        let gone =
            chosen_from(port).filter(|e| !alive.contains(e) && (now.is_none() || !serving.contains(&(protocol, *e))));
        let gone: BTreeSet<_> = gone.collect();
        for frontend in frontends(port) {
            if kept.contains(&(protocol, frontend)) {
                stale.extend(gone.iter().map(|endpoint| Stale { protocol, frontend, which: Which::To(*endpoint) }));
            } else {
                stale.insert(Stale { protocol, frontend, which: Which::All });
            }
        }
    }
    for (key, port) in &after {
        let protocol = port.protocol;
        let was = before.get(key);
        let had_some = was.is_some_and(|port| chosen_from(port).next().is_some());
        let first = !had_some && chosen_from(port).next().is_some();
        let there: HashSet<_> = was.into_iter().flat_map(|port| frontends(port)).collect();
        let news = frontends(port).filter(|at| first || !there.contains(at));
        stale.extend(news.map(|frontend| Stale { protocol, frontend, which: Which::Untranslated }));
    }
    stale.into_iter().collect()
}

/// What has to end when the host ports of a Pod that were `old` are `new`, once the flows of the new ones are there.
#[must_use]
pub fn stale_host_ports(old: &[HostPort], new: &[HostPort]) -> Vec<Stale> {
    let only = |these: &[HostPort], others: &[HostPort], which: Which| {
        let only = these.iter().filter(|port| is_concerned(port.protocol) && !others.contains(port));
        only.map(|port| Stale { protocol: port.protocol, frontend: port.incoming, which }).collect::<Vec<_>>()
    };
    [only(old, new, Which::All), only(new, old, Which::Untranslated)].concat()
}

/// A connection that an endpoint was chosen for, as the switch lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its protocol.
    pub protocol: Protocol,
    /// Where its client sends to.
    pub frontend: SocketAddr,
    /// Where its answers come from.
    pub endpoint: SocketAddr,
}

/// The filter for [`Connection`]s: those that an endpoint was chosen for.
#[must_use]
pub fn translated() -> String {
    format!("zone={ZONE},ct_mark={SERVICE_MARK:#x}/{SERVICE_MARK:#x}")
}

/// What of the connections that the switch kept over a restart has to end, by what the Services are now. `serving` is what
/// [`super::serving`] says of each, by its name. Sorted, each once.
#[must_use]
pub fn left_over<'a>(
    connections: impl IntoIterator<Item = Connection>,
    services: impl IntoIterator<Item = (&'a Service, &'a BTreeSet<(Protocol, Endpoint)>)>,
) -> Vec<Stale> {
    let mut by_frontend = HashMap::new();
    for (service, serving) in services {
        for port in service.ports.iter().filter(|port| is_concerned(port.protocol)) {
            by_frontend.extend(frontends(port).map(|at| ((port.protocol, at), (port, serving))));
        }
    }
    let mut stale = BTreeSet::new();
    for Connection { protocol, frontend, endpoint } in connections {
        if !is_concerned(protocol) {
            continue;
        }
        let frontend = (frontend.ip(), frontend.port());
        let endpoint = Endpoint { address: endpoint.ip(), port: endpoint.port() };
        match by_frontend.get(&(protocol, frontend)) {
            None => _ = stale.insert(Stale { protocol, frontend, which: Which::All }),
            Some((port, serving)) => {
                let alive = serving.contains(&(protocol, endpoint)) || chosen_from(port).any(|e| e == endpoint);
                if !alive {
                    stale.insert(Stale { protocol, frontend, which: Which::To(endpoint) });
                }
            }
        }
    }
    stale.into_iter().collect()
}
