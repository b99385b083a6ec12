//! Questions that lie near the boundaries of a cluster's rules.

use super::objects::Object;
use super::verdict::{Protocol, Verdict};
use super::world::{End, World, has_ended, is_on_host_network, name_of, node_addresses, pod_addresses};
use crate::generate::{pick, seeded};
use ipnet::IpNet;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One question about a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Probe {
    /// Where the connection comes from.
    pub from: End,
    /// Where it goes, of the same family.
    pub to: End,
    /// Of what protocol.
    pub protocol: Protocol,
    /// To which port.
    pub port: u16,
}

impl Probe {
    /// The answer in this cluster.
    ///
    /// # Panics
    ///
    /// As [`World::verdict`].
    pub fn verdict(&self, world: &World) -> Verdict {
        world.verdict(&self.from, &self.to, self.protocol, self.port)
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} {}/{}", self.from, self.to, self.protocol, self.port)
    }
}

/// What a cluster's objects mention.
#[derive(Default)]
struct Mentioned {
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<u16>,
}

impl World {
    /// `count` questions, of which each has a Pod of the Pod network at one end at least; none if no such Pod has an
    /// address. Equal seeds give equal questions.
    pub fn probes(&self, seed: u64, count: usize) -> Vec<Probe> {
        let rng = &mut seeded(seed);
        let mentioned = self.mentioned();
        let ports: Vec<u16> = mentioned.ports.iter().copied().collect();
        let pods = self.pod_ends();
        let networked: Vec<End> = pods.iter().filter(|end| self.place(end).pod().is_some()).cloned().collect();
        let hosts = self.host_ends();
        let addresses: Vec<End> = mentioned.addresses.iter().copied().map(End::Address).collect();
        if networked.is_empty() {
            return Vec::new();
        }
        let mut probes = Vec::new();
        for _ in 0..count {
            let one = networked.choose(rng).expect("there are some").clone();
            let pool = match rng.random_range(0..20) {
                0..12 => &pods,
                12..15 => &hosts,
                _ => &addresses,
            };
            // A Pod and itself are one question; twenty are too many.
            let itself = rng.random_bool(0.05);
            let family = |end: &&End| end.address().is_ipv4() == one.address().is_ipv4() && (itself || **end != one);
            let fitting: Vec<&End> = pool.iter().filter(family).collect();
            let other = fitting.choose(rng).map_or_else(|| one.clone(), |end| (*end).clone());
            let (from, to) = if rng.random_bool(0.5) { (one, other) } else { (other, one) };
            let port = if rng.random_bool(0.1) { rng.random_range(1..=65535) } else { pick(rng, &ports) };
            probes.push(Probe { protocol: protocol(rng), from, to, port });
        }
        probes
    }

    /// Each node by the addresses that it lists.
    pub fn host_ends(&self) -> Vec<End> {
        let mut ends = Vec::new();
        for node in self.nodes() {
            for address in node_addresses(node) {
                ends.push(End::Host { node: name_of(&node.metadata.name).to_owned(), address });
            }
        }
        ends
    }

    fn mentioned(&self) -> Mentioned {
        let mut mentioned = Mentioned::default();
        mentioned.ports.extend([1, 80, 65535]);
        mentioned.addresses.extend([IpAddr::V4(Ipv4Addr::new(198, 51, 100, 9))]);
        mentioned.addresses.extend(["2001:db8:9::9".parse::<IpAddr>().expect("it is an address")]);
        for object in &self.objects {
            match object {
                Object::Pod(pod) if has_ended(pod) || is_on_host_network(pod) => {
                    mentioned.addresses.extend(pod_addresses(pod));
                }
                Object::Node(node) => mentioned.addresses.extend(node_addresses(node)),
                _ => {}
            }
            walk("", &object.write(), &mut mentioned);
        }
        mentioned
    }
}

/// TCP more often than others, as ports without a protocol are TCP's.
fn protocol(rng: &mut StdRng) -> Protocol {
    pick(rng, &[Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Sctp])
}

/// Looks for networks and ports in an object, by the names of its fields.
fn walk(key: &str, value: &Value, mentioned: &mut Mentioned) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| walk(key, value, mentioned)),
        Value::Array(items) => items.iter().for_each(|item| walk(key, item, mentioned)),
        Value::String(text) if ["cidr", "except", "networks"].contains(&key) => {
            if let Ok(network) = text.parse::<IpNet>() {
                mentioned.addresses.extend(edges(network));
            }
        }
        Value::Number(number) if ["port", "endPort", "number", "start", "end", "containerPort"].contains(&key) => {
            if let Some(port) = number.as_u64().and_then(|port| u16::try_from(port).ok()) {
                let around = [port.saturating_sub(1), port, port.saturating_add(1)];
                mentioned.ports.extend(around.into_iter().filter(|port| *port > 0));
            }
        }
        _ => {}
    }
}

/// The first and the last address of a network, and those beside them that a packet may have.
fn edges(network: IpNet) -> Vec<IpAddr> {
    let (first, last) = (network.network(), network.broadcast());
    let candidates = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let (first, last) = (u32::from(first), u32::from(last));
            let of =
                [first.wrapping_sub(1), first, first.wrapping_add(1), last.wrapping_sub(1), last, last.wrapping_add(1)];
            of.map(|bits| IpAddr::V4(Ipv4Addr::from(bits))).to_vec()
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            let (first, last) = (u128::from(first), u128::from(last));
            let of =
                [first.wrapping_sub(1), first, first.wrapping_add(1), last.wrapping_sub(1), last, last.wrapping_add(1)];
            of.map(|bits| IpAddr::V6(Ipv6Addr::from(bits))).to_vec()
        }
        _ => Vec::new(),
    };
    candidates.into_iter().filter(is_of_one_host).collect()
}

/// Whether a packet from or to one host may have the address.
fn is_of_one_host(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let first = address.octets()[0];
            first != 0 && first != 127 && first < 224 && !address.is_link_local()
        }
        IpAddr::V6(address) => {
            let bits = u128::from(*address);
            bits > 0xffff_ffff_ffff && !address.is_multicast() && !address.is_unicast_link_local()
        }
    }
}
