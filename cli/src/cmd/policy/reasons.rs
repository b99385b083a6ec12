//! What keeps rules from matching, in words: the nearest peer of a rule, and its ports.

use super::answer::{Answer, Half};
use super::world::{End, World};
use sluice_controller::facts::Protocol;
use sluice_controller::facts::policy::{Action, Direction, GroupKey, Peer, Port};
use sluice_controller::policy::{RuleLook, Unmet};
use std::net::IpAddr;

/// What keeps a rule from matching.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Miss {
    /// How far it is from matching: things that would have to be otherwise.
    pub(super) distance: usize,
    /// Why the other end is none of its peers; none if it is one.
    pub(super) peer: Option<String>,
    /// Why the connection goes to none of its ports; none if it does.
    pub(super) port: Option<String>,
}

/// How far somebody is from being selected whom no selector can select.
const FAR: usize = 100;

impl Miss {
    /// What keeps a rule from matching; nothing if it matches.
    pub(super) fn of(world: &World, answer: &Answer<'_>, half: &Half<'_>, look: &RuleLook<'_>) -> Self {
        let (other, address) = match half.direction {
            Direction::Ingress => (&answer.from, half.connection.source),
            Direction::Egress => (&answer.to, half.connection.destination),
        };
        let peers = look.peers.as_deref().filter(|_| !look.is_peer());
        let (far, peer) = peers.map_or((0, None), |peers| {
            let (far, text) = nearest_peer(world, peers, other, address);
            (far, Some(text))
        });
        let ports = look.ports.as_deref().filter(|_| !look.is_port());
        let port = ports.map(|ports| no_port(world, ports, answer));
        Self { distance: far + usize::from(port.is_some()), peer, port }
    }

    /// All of it.
    pub(super) fn text(&self) -> String {
        let both = [&self.peer, &self.port];
        both.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join("; ")
    }
}

/// The rules that would allow a connection that is denied here, if they matched, the nearest first.
pub(super) fn nearest<'h, 'a>(world: &World, answer: &Answer<'a>, half: &'h Half<'a>) -> Vec<(Miss, &'h RuleLook<'a>)> {
    let rules = half.explanation.policies.iter().flat_map(|policy| &policy.rules);
    let would = rules.filter(|look| look.rule.action == Action::Accept && look.is_asked && !look.is_match);
    let mut all: Vec<_> = would.map(|look| (Miss::of(world, answer, half, look), look)).collect();
    all.sort_by_key(|(miss, _)| miss.distance);
    all
}

/// Of the peers the one that is nearest to having the other end, and why it has not.
fn nearest_peer(world: &World, peers: &[(&Peer, bool)], other: &End, address: IpAddr) -> (usize, String) {
    let misses = peers.iter().map(|(peer, _)| no_peer(world, peer, other, address));
    let Some((far, mut text)) = misses.min_by_key(|(far, _)| *far) else {
        return (FAR, "it is about nobody".to_owned());
    };
    match peers.len() - 1 {
        0 => {}
        1 => text.push_str(", and not the other peer"),
        more => text.push_str(&format!(", and none of {more} other peers")),
    }
    (far, text)
}

fn no_peer(world: &World, peer: &Peer, other: &End, address: IpAddr) -> (usize, String) {
    match peer {
        Peer::Group(key) => {
            let Some(name) = other.pod.as_ref().or(other.host.as_ref()) else {
                return (FAR, format!("{address} is none of {}", group_text(key)));
            };
            let unmet = world.cluster.unmet(key, name);
            let far = unmet.iter().map(|of| if is_hopeless(of) { FAR } else { 1 }).sum::<usize>().max(1);
            let texts: Vec<_> = unmet.iter().map(ToString::to_string).collect();
            match texts.is_empty() {
                true => (far, format!("{} has not the address {address}", other.name)),
                false => (far, format!("{} is none of {}: {}", other.name, group_text(key), texts.join(", and "))),
            }
        }
        Peer::Net { net, except } => match except.iter().find(|part| part.contains(&address)) {
            Some(part) if net.contains(&address) => (1, format!("{address} is in {part}, which {net} is without")),
            _ => (2, format!("{address} is not in {net}")),
        },
    }
}

fn is_hopeless(unmet: &Unmet) -> bool {
    matches!(unmet, Unmet::Nobody | Unmet::NoNode | Unmet::NoPod)
}

fn no_port(world: &World, ports: &[(&Port, bool)], answer: &Answer<'_>) -> String {
    let names = answer.to.pod.as_deref().map_or(&[][..], |pod| world.cluster.named_ports(pod));
    let texts: Vec<_> = ports.iter().map(|(port, _)| port_there(port, names)).collect();
    match (answer.at.protocol, texts.as_slice()) {
        (_, []) => "it is about no port".to_owned(),
        (None, _) => format!("it is about ports alone: {}", texts.join(" or ")),
        (Some(_), _) => format!("{} is not {}", answer.at.text(), texts.join(" or ")),
    }
}

/// A port as people write it.
pub(super) fn port_text(port: &Port) -> String {
    match port {
        Port::All(protocol) => format!("any port of {}", protocol.name()),
        Port::Range(protocol, first, last) if first == last => format!("{first}/{}", protocol.name()),
        Port::Range(protocol, first, last) => format!("{first}-{last}/{}", protocol.name()),
        Port::Named(of, name) => format!("{name:?}{}", of.map_or(String::new(), |of| format!("/{}", of.name()))),
    }
}

/// The same, with what a Pod calls so.
pub(super) fn port_there(port: &Port, names: &[(String, Protocol, u16)]) -> String {
    let Port::Named(of, name) = port else { return port_text(port) };
    let is_it = |(has, its, _): &&(String, Protocol, u16)| has == name && of.is_none_or(|of| of == *its);
    match names.iter().find(is_it) {
        Some((_, protocol, number)) => format!("{name:?} ({number}/{})", protocol.name()),
        None => format!("{} (which the Pod has not)", port_text(port)),
    }
}

/// A group by its selectors; without a selector that asks for nothing.
fn group_text(key: &GroupKey) -> String {
    key.0.replace(";)", ")")
}

/// A peer as people write it.
pub(super) fn peer_text(peer: &Peer) -> String {
    match peer {
        Peer::Group(key) => group_text(key),
        Peer::Net { net, except } if except.is_empty() => net.to_string(),
        Peer::Net { net, except } => {
            let except: Vec<_> = except.iter().map(ToString::to_string).collect();
            format!("{net} without {}", except.join(", "))
        }
    }
}
