//! Who is asked about: Pods by workload, and those outside whom changed policies name; and at which ports.

use crate::cmd::policy::snippet::labels;
use crate::cmd::policy::world::{End, PodPlace, To, World, is_selected, pod_name};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use sluice_controller::facts::Protocol;
use sluice_controller::facts::policy::{Direction, Peer, PolicyName, Port, Rule};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

/// What stands for the ports that nobody names.
pub(super) const OTHERS: [&str; 3] = ["other tcp", "other udp", "ping"];
/// All of those.
pub(super) const ELSE: &str = "all else";
/// Most nodes that are asked about, and most networks.
const MAX_OUTSIDE: usize = 20;
/// Addresses that are looked at to find one of a network that is nobody's.
const TRIES: usize = 64;
/// Addresses for documentation, which nobody has.
const OUTSIDE: [&str; 3] = ["203.0.113.77", "198.51.100.77", "2001:db8::77"];

/// Pods that policies cannot tell apart, or somebody outside.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: String,
    /// One of them.
    pub(super) end: End,
    /// Another one.
    second: Option<End>,
    /// A changed policy is about what comes to them.
    pub(super) in_ingress: bool,
    /// A changed policy is about what they send.
    pub(super) in_egress: bool,
    /// The ports that they say they have.
    ports: BTreeSet<(Protocol, u16)>,
}

impl Group {
    pub(super) const fn is_concerned(&self) -> bool {
        self.in_ingress || self.in_egress
    }

    fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }

    /// Whether there is one of the others that is not the same Pod.
    pub(super) fn can_reach(&self, to: &Self) -> bool {
        !self.is(to) || to.second.is_some()
    }

    /// The one of them whom another group's, or their own, reaches.
    pub(super) fn seen_from(&self, from: &Self) -> &End {
        if self.is(from) { self.second.as_ref().unwrap_or(&self.end) } else { &self.end }
    }
}

/// What makes Pods the same to all policies of both worlds.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    workload: String,
    labels: [Vec<(String, String)>; 2],
    ports: BTreeSet<(Protocol, u16)>,
    named: Vec<(String, Protocol, u16)>,
    families: [bool; 2],
    nets: Vec<u64>,
    concern: (bool, bool),
}

/// The rules of policies in both worlds.
fn rules<'a>(worlds: [&'a World; 2], policies: Option<&'a [PolicyName]>) -> impl Iterator<Item = &'a Rule> {
    let of = move |world: &'a World| {
        let wanted = move |name: &&PolicyName| policies.is_none_or(|policies| policies.contains(name));
        world.state.policies.iter().filter(move |(name, _)| wanted(name)).flat_map(|(_, policy)| &policy.rules)
    };
    worlds.into_iter().flat_map(of)
}

fn nets<'a>(rules: impl Iterator<Item = &'a Rule>) -> BTreeSet<IpNet> {
    let peers = rules.flat_map(|rule| rule.peers.iter().flatten());
    let of = peers.filter_map(|peer| match peer {
        Peer::Net { net, except } => Some([*net].into_iter().chain(except.iter().copied())),
        Peer::Group(_) => None,
    });
    of.flatten().collect()
}

/// Everybody who is asked about.
pub(super) fn groups(before: &World, after: &World, changed: &[PolicyName]) -> Vec<Group> {
    let concerned = concerned(before, after, changed);
    let known: Vec<IpNet> = nets(rules([before, after], None)).into_iter().take(super::MAX_NETS).collect();
    let was: HashMap<String, &Pod> = before.objects.pods.iter().map(|pod| (pod_name(pod), pod)).collect();
    let mut at: HashMap<Key, usize> = HashMap::new();
    let mut groups: Vec<Group> = Vec::new();
    for pod in &after.objects.pods {
        let name = pod_name(pod);
        let (Some(old), Some(place), Some(end)) = (was.get(&name), after.pods.get(&name), after.pod(&name)) else {
            continue;
        };
        if place.is_host || place.is_over {
            continue;
        }
        let concern = [Direction::Ingress, Direction::Egress].map(|way| concerned.contains(&(way, name.as_str())));
        let key = key(after, (old, pod, &name), place, &known, (concern[0], concern[1]));
        match at.get(&key) {
            Some(index) => {
                let group: &mut Group = &mut groups[*index];
                group.second.get_or_insert(end);
            }
            None => {
                groups.push(Group {
                    name: key.workload.clone(),
                    end,
                    second: None,
                    in_ingress: concern[0],
                    in_egress: concern[1],
                    ports: key.ports.clone(),
                });
                at.insert(key, groups.len() - 1);
            }
        }
    }
    groups.extend(outside(before, after, changed));
    groups
}

/// The Pods that changed policies are about in each direction, and those whose own labels change or their namespaces'.
fn concerned<'a>(before: &'a World, after: &'a World, changed: &[PolicyName]) -> BTreeSet<(Direction, &'a str)> {
    let mut all = BTreeSet::new();
    for world in [before, after] {
        for name in changed {
            let Some(policy) = world.cluster.policy(name) else { continue };
            for way in [Direction::Ingress, Direction::Egress] {
                if policy.isolates.contains(&way) || policy.rules.iter().any(|rule| rule.direction == way) {
                    all.extend(world.subjects(name).map(|pod| (way, pod)));
                }
            }
        }
    }
    let of = |world: &'a World| {
        let labels = |of: &'a Namespace| (of.metadata.name.clone().unwrap_or_default(), of.metadata.labels.as_ref());
        let namespaces: HashMap<String, _> = world.objects.namespaces.iter().map(labels).collect();
        let pods = world.objects.pods.iter().map(move |pod| {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
            (pod_name(pod), (pod.metadata.labels.as_ref(), namespaces.get(namespace).copied().flatten()))
        });
        pods.collect::<HashMap<_, _>>()
    };
    let (was, is) = (of(before), of(after));
    for (name, _) in after.pods.iter().filter(|(name, _)| was.get(*name).is_some_and(|of| is.get(*name) != Some(of))) {
        all.extend([(Direction::Ingress, name.as_str()), (Direction::Egress, name.as_str())]);
    }
    all
}

fn key(
    world: &World,
    (old, pod, name): (&Pod, &Pod, &str),
    place: &PodPlace,
    nets: &[IpNet],
    concern: (bool, bool),
) -> Key {
    let own: &[IpAddr] = if place.is_made_up { &[] } else { &place.addresses };
    let is_in = |net: &IpNet| own.iter().any(|address| net.contains(address));
    let bits = nets.chunks(64).map(|some| {
        let bit = |(at, net): (usize, &IpNet)| u64::from(is_in(net)) << at;
        some.iter().enumerate().map(bit).sum()
    });
    let texts = |pod: &Pod| {
        let words = labels(pod).into_iter().map(|(key, value)| (key, value.as_str().unwrap_or_default().to_owned()));
        words.collect::<Vec<_>>()
    };
    Key {
        workload: workload(pod),
        labels: [texts(old), texts(pod)],
        ports: ports(world, pod, name),
        named: world.cluster.named_ports(name).to_vec(),
        families: [true, false].map(|v4| place.addresses.iter().any(|address| address.is_ipv4() == v4)),
        nets: bits.collect(),
        concern,
    }
}

/// Who made a Pod, as people call it: the Deployment rather than its ReplicaSet; the Pod itself if nobody did.
fn workload(pod: &Pod) -> String {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let owner = pod.metadata.owner_references.iter().flatten().find(|of| of.controller == Some(true));
    let hash = pod.metadata.labels.as_ref().and_then(|labels| labels.get("pod-template-hash"));
    let Some(owner) = owner else { return pod_name(pod) };
    let of_hash = hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
    let name = of_hash.filter(|_| owner.kind == "ReplicaSet").unwrap_or(&owner.name);
    format!("{namespace}/{name}")
}

/// The ports that a Pod's containers declare, and those that Services send to.
fn ports(world: &World, pod: &Pod, name: &str) -> BTreeSet<(Protocol, u16)> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let declared = containers.flat_map(|container| container.ports.iter().flatten()).filter_map(|port| {
        Some((Protocol::of_object(port.protocol.as_deref())?, u16::try_from(port.container_port).ok()?))
    });
    let mut all: BTreeSet<_> = declared.collect();
    for service in world.objects.services.iter().filter(|of| of.metadata.namespace == pod.metadata.namespace) {
        let Some(spec) = &service.spec else { continue };
        if is_selected(spec.selector.as_ref(), pod) {
            all.extend(spec.ports.iter().flatten().filter_map(|port| world.target(name, port)));
        }
    }
    all
}

/// Somebody outside, somebody in each network that changed policies name, and nodes if they name any.
fn outside(before: &World, after: &World, changed: &[PolicyName]) -> Vec<Group> {
    let of_changed = || rules([before, after], Some(changed));
    let nets = nets(of_changed());
    let is_free = |address: &IpAddr| after.address(*address).pod.is_none() && after.address(*address).host.is_none();
    let group = |name: String, addresses: Vec<IpAddr>| Group {
        end: End { name: name.clone(), addresses, ..End::default() },
        name,
        second: None,
        in_ingress: false,
        in_egress: false,
        ports: BTreeSet::new(),
    };
    let far: Vec<IpAddr> = OUTSIDE.iter().filter_map(|text| text.parse().ok()).collect();
    let is_named = |address: &IpAddr| nets.iter().any(|net| net.prefix_len() > 0 && net.contains(address));
    let far: Vec<IpAddr> = far.into_iter().filter(|address| !is_named(address) && is_free(address)).collect();
    let mut all = vec![group("outside".to_owned(), far)];
    for net in nets.iter().filter(|net| net.prefix_len() > 0).take(MAX_OUTSIDE) {
        // One that no smaller network has.
        let is_own = |address: &IpAddr| {
            !nets.iter().any(|of| of.prefix_len() > net.prefix_len() && net.contains(of) && of.contains(address))
        };
        let free = net.hosts().take(TRIES).find(|address| is_own(address) && is_free(address));
        all.extend(free.map(|address| group(net.to_string(), vec![address])));
    }
    let names_nodes = of_changed().flat_map(|rule| rule.peers.iter().flatten()).any(|peer| match peer {
        Peer::Group(key) => key.0.starts_with("nodes("),
        Peer::Net { .. } => false,
    });
    if names_nodes {
        let nodes = after.nodes.keys().take(MAX_OUTSIDE).filter_map(|name| after.node(name));
        all.extend(nodes.map(|end| Group { name: end.name.clone(), end, ..group(String::new(), Vec::new()) }));
    }
    all
}

/// The ports that are asked about.
#[derive(Debug)]
pub(super) struct Ports {
    /// Those that changed policies name, by how people write them.
    named: BTreeMap<(Protocol, u16), String>,
    /// One that no policy names.
    other: u16,
}

impl Ports {
    pub(super) fn new(before: &World, after: &World, changed: &[PolicyName]) -> Self {
        let mut named = BTreeMap::new();
        for port in rules([before, after], Some(changed)).flat_map(|rule| rule.ports.iter().flatten()) {
            if let Port::Range(protocol, first, last) = port {
                let name = protocol.name();
                let label = if first == last { format!("{first}/{name}") } else { format!("{first}-{last}/{name}") };
                named.insert((*protocol, *first), label);
            }
        }
        let ranges: BTreeSet<(u16, u16)> = rules([before, after], None)
            .flat_map(|rule| rule.ports.iter().flatten())
            .filter_map(|port| match port {
                // What has all of them says nothing of any.
                Port::Range(_, first, last) if *last - *first < u16::MAX / 2 => Some((*first, *last)),
                _ => None,
            })
            .collect();
        let is_free = |port: &u16| !ranges.iter().any(|(first, last)| (*first..=*last).contains(port));
        let other = (1..=u16::MAX).rev().step_by(257).find(is_free).unwrap_or(u16::MAX);
        Self { named, other }
    }

    /// The questions about a destination: declared ports and named ones in order, and then what stands for all others.
    pub(super) fn of(&self, group: &Group) -> Vec<(String, To)> {
        let mut all = self.named.clone();
        for (protocol, port) in &group.ports {
            all.entry((*protocol, *port)).or_insert_with(|| format!("{port}/{}", protocol.name()));
        }
        let to = |((protocol, port), label)| (label, To { protocol: Some(protocol), port });
        let others = [Some(Protocol::Tcp), Some(Protocol::Udp), None];
        let others = OTHERS.into_iter().zip(others);
        let others = others.map(|(label, protocol)| (label.to_owned(), To { protocol, port: self.other }));
        all.into_iter().map(to).chain(others).collect()
    }
}
