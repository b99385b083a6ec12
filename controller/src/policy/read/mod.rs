//! Kubernetes' policies as [`Policy`].
//!
//! # What cannot be read
//! The API server refuses most of what makes no sense; what comes through, or is of a version that knows more, is read so
//! that nothing is opened that nobody asked for:
//! - In a NetworkPolicy, a peer or a port that cannot be read matches nothing; the policy isolates all the same.
//! - In the others, as their specification says: if a peer or a port cannot be read, a rule that accepts matches nothing, and one
//!   that denies or passes denies everything. A rule whose action cannot be read is left out.
//! - A policy whose subject or tier cannot be read is about nobody.
//!
//! Each such reading is told by a [`Note`].
//!
//! # Names of ports
//! For egress they are looked up in the destination, so a rule needs the Pods that it is about: beside a network, and where it
//! is about everybody, it has a group of the Pods there as well.

mod admin;
mod network;
#[cfg(test)]
mod tests;

pub(super) use admin::{admin, baseline, cluster};
pub(super) use network::network;

use super::selector::{Block, Requirements, Scope, Selector};
use crate::facts::policy::{Direction, GroupKey, Peer, Policy, Port};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use std::collections::BTreeMap;
use std::fmt;

/// A policy with this annotation, saying `true`, drops nothing: what it would drop is recorded.
pub const AUDIT: &str = "sluice.dev/audit";
/// What a policy with this annotation decides is recorded, if it says `true`.
pub const LOG: &str = "sluice.dev/log";

/// What of a policy is not as it may seem, and what is done instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The rule's direction, and its place among the rules of it; none if it is about the whole policy.
    pub rule: Option<(Direction, u32)>,
    /// What, and what to do about it.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((direction, index)) = self.rule {
            write!(f, "{}/{index}: ", direction.name())?;
        }
        f.write_str(&self.text)
    }
}

/// A policy that was read.
#[derive(Debug, PartialEq)]
pub(super) struct Reading {
    /// None if it is about nobody.
    pub(super) policy: Option<Policy>,
    /// The groups that it names.
    pub(super) groups: BTreeMap<GroupKey, Selector>,
    pub(super) notes: Vec<Note>,
}

/// What comes up while a policy is read.
#[derive(Default)]
struct Reader {
    groups: BTreeMap<GroupKey, Selector>,
    notes: Vec<Note>,
    /// The rule that is being read.
    rule: Option<(Direction, u32)>,
}

impl Reader {
    fn group(&mut self, selector: Selector) -> GroupKey {
        let key = selector.key();
        self.groups.insert(key.clone(), selector);
        key
    }

    fn peer(&mut self, selector: Selector) -> Peer {
        Peer::Group(self.group(selector))
    }

    fn note(&mut self, text: String) {
        self.notes.push(Note { rule: self.rule, text });
    }

    fn done(self, policy: Option<Policy>) -> Reading {
        let groups = if policy.is_some() { self.groups } else { BTreeMap::new() };
        Reading { policy, groups, notes: self.notes }
    }

    /// Gives names of ports the Pods that have them.
    fn resolve_names(&mut self, peers: Option<Vec<Peer>>, ports: Option<&[Port]>) -> Option<Vec<Peer>> {
        let ports = ports.unwrap_or_default();
        if !ports.iter().any(|port| matches!(port, Port::Named(..))) {
            return peers;
        }
        let everywhere = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        let everybody = || everywhere.map(|net| Peer::Net { net, except: Vec::new() }).to_vec();
        let mut peers = match peers {
            Some(peers) => peers,
            None => {
                let all = self.peer(Selector::all_pods(None));
                if ports.iter().all(|port| matches!(port, Port::Named(..))) {
                    return Some(vec![all]);
                }
                return Some(everybody().into_iter().chain([all]).collect());
            }
        };
        let nets = peers.iter().filter_map(|peer| match peer {
            Peer::Net { net, except } => Some(Block { net: *net, except: except.clone() }),
            Peer::Group(_) => None,
        });
        for block in nets.collect::<Vec<_>>() {
            peers.push(self.peer(Selector::all_pods(Some(block))));
        }
        peers.sort();
        peers.dedup();
        Some(peers)
    }
}

/// Pods of namespaces with such labels.
fn namespaced(namespaces: &LabelSelector, pods: &LabelSelector) -> Result<Selector, String> {
    Ok(Selector::new(Scope::Namespaces(Requirements::read(namespaces)?), Requirements::read(pods)?))
}

/// A network: without bits of hosts, and one of IPv4 addresses in IPv6's form is one of IPv4 addresses.
fn network_of(text: &str) -> Option<IpNet> {
    let net: IpNet = text.trim().parse().ok()?;
    let IpNet::V6(v6) = net.trunc() else { return Some(net.trunc()) };
    match (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
        (Some(v4), Some(bits)) => Ipv4Net::new(v4, bits).ok().map(IpNet::V4),
        _ => Some(IpNet::V6(v6)),
    }
}

/// A port that can be one.
fn port_number(number: i64) -> Result<u16, String> {
    let fits = u16::try_from(number).ok().filter(|&number| number != 0);
    fits.ok_or_else(|| format!("{number} is no port: they are from 1 to 65535"))
}

/// From a port to a port.
fn port_range(first: i64, last: i64) -> Result<(u16, u16), String> {
    let (first, last) = (port_number(first)?, port_number(last)?);
    if first > last { Err(format!("ports from {first} to {last} are none")) } else { Ok((first, last)) }
}

fn is_annotated(metadata: &ObjectMeta, key: &str) -> bool {
    metadata.annotations.as_ref().and_then(|all| all.get(key)).is_some_and(|value| value == "true")
}
