//! From what a file says to what will be made: nodes, ports, interfaces, MACs and addresses.
//!
//! Everything is decided by the order of the file, so the same file always makes the same lab: ports count from 1,
//! interfaces from `eth0`, MACs from `02:00:00:00:00:01` (bytes 2 and 3 are the seed less one), addresses from the
//! subnet's first. A host's `ip:` goes to its first interface; further interfaces of it have no address.

use super::Problem;
use super::raw::{Raw, RawEnd, RawHost, nearest};
use super::resolved::{End, Host, Interface, Link, Mac, Rule, Switch, Topology};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sluice_flows::text::parse_flow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The seed of a file that names none.
const SEED: u64 = 1;
const MTU: u32 = 1500;
/// Most links of a lab; far more than a machine carries, and port numbers cannot run out.
pub(crate) const MAX_LINKS: usize = 4096;
/// Highest OpenFlow port number that can be given to a port (OFPP_MAX less one).
const PORT_MAX: u16 = 0xfeff;

/// Resolves a topology; `None` when something in it is wrong, which is then in `problems`.
pub(super) fn resolve(raw: &Raw, source: &str, problems: &mut Vec<Problem>) -> Option<Topology> {
    if raw.links.len() > MAX_LINKS {
        let message = format!("the lab has {} links, the most is {MAX_LINKS}", raw.links.len());
        problems.push(Problem::new(1, message));
        return None;
    }
    let mut nodes = Nodes::find(raw, problems);
    let pins = Pins::collect(raw, &nodes, problems);
    let mut links = Vec::new();
    if problems.is_empty() {
        let mut numbering = Numbering::new(&pins);
        links = raw.links.iter().enumerate().map(|(i, _)| numbering.link(raw, i, &mut nodes)).collect();
        check_link_names(raw, &links, problems);
        check_loops(raw, &nodes, problems);
        set_macs(raw, &mut nodes, problems);
        set_addresses(raw, &mut nodes, problems);
    }
    let topology = Topology {
        name: raw.name.clone(),
        source: source.to_owned(),
        seed: raw.seed.unwrap_or(SEED),
        hosts: nodes.hosts,
        switches: nodes.switches,
        links,
    };
    check_rules(&topology, problems);
    problems.is_empty().then_some(topology)
}

/// Reads every rule as the switch will, with the names of the switch's ports. What flow text would only warn of is a
/// mistake here: a lab does what its file says or does not come up.
fn check_rules(topology: &Topology, problems: &mut Vec<Problem>) {
    for switch in &topology.switches {
        let names = topology.port_names(&switch.name);
        for rule in &switch.rules {
            let mistakes = match parse_flow(&rule.flow, &names) {
                Ok(flow) => flow.warnings.iter().map(|w| w.message.to_string()).collect(),
                Err(error) => vec![error.to_string()],
            };
            let message = |mistake| format!("rule {}: `{}`: {mistake}", rule.name, rule.flow);
            problems.extend(mistakes.into_iter().map(|mistake| Problem::new(rule.line, message(mistake))));
        }
    }
}

/// The nodes of a lab, and which name is which.
struct Nodes {
    hosts: Vec<Host>,
    switches: Vec<Switch>,
    index: BTreeMap<String, Index>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Index {
    Host(usize),
    Switch(usize),
}

impl Nodes {
    fn find(raw: &Raw, problems: &mut Vec<Problem>) -> Self {
        let mut nodes = Self { hosts: Vec::new(), switches: Vec::new(), index: BTreeMap::new() };
        if raw.switches.is_none() && raw.hosts.is_none() {
            raw.links.iter().flat_map(|l| &l.ends).for_each(|end| nodes.infer(end, problems));
            return nodes;
        }
        for switch in raw.switches.iter().flatten() {
            nodes.add_switch(&switch.name.value);
            let rules = switch.rules.iter().map(|rule| {
                let comma = if rule.matches.is_empty() { "" } else { "," };
                let flow = format!("priority={}{comma}{} actions={}", rule.priority, rule.matches, rule.action);
                Rule { name: rule.name.clone(), flow, line: rule.line }
            });
            if let Some(last) = nodes.switches.last_mut() {
                last.rules = rules.collect();
            }
        }
        for host in raw.hosts.iter().flatten() {
            if nodes.index.contains_key(&host.name.value) {
                let message = format!("`{}` is a switch already", host.name.value);
                problems.push(Problem::new(host.name.line, message));
            }
            nodes.add_host(&host.name.value);
            if let Some(last) = nodes.hosts.last_mut() {
                last.env.clone_from(&host.env);
            }
        }
        for end in raw.links.iter().flat_map(|l| &l.ends) {
            if !nodes.index.contains_key(&end.node) {
                let known = nearest(&end.node, nodes.index.keys().map(String::as_str));
                let message = format!("`{}` is in no section of nodes{known}", end.node);
                problems.push(Problem::new(end.line, message));
            }
        }
        nodes
    }

    /// Without any section of nodes, a name's first letter says what it is.
    fn infer(&mut self, end: &RawEnd, problems: &mut Vec<Problem>) {
        if self.index.contains_key(&end.node) {
            return;
        }
        match end.node.as_bytes().first() {
            Some(b's') => self.add_switch(&end.node),
            Some(b'r') => {
                let message = format!(
                    "`{}` would be a router: not supported yet by this version; name hosts in a `hosts:` section if it is a host",
                    end.node
                );
                problems.push(Problem::new(end.line, message));
            }
            _ => self.add_host(&end.node),
        }
    }

    fn add_switch(&mut self, name: &str) {
        self.index.insert(name.to_owned(), Index::Switch(self.switches.len()));
        self.switches.push(Switch { name: name.to_owned(), rules: Vec::new() });
    }

    fn add_host(&mut self, name: &str) {
        self.index.insert(name.to_owned(), Index::Host(self.hosts.len()));
        self.hosts.push(Host { name: name.to_owned(), env: BTreeMap::new(), interfaces: Vec::new() });
    }

    fn is_host(&self, name: &str) -> bool {
        matches!(self.index.get(name), Some(Index::Host(_)))
    }
}

/// Numbers that the file pins, checked.
#[derive(Default)]
struct Pins {
    taken: BTreeSet<(String, u16)>,
}

impl Pins {
    fn collect(raw: &Raw, nodes: &Nodes, problems: &mut Vec<Problem>) -> Self {
        let mut pins = Self::default();
        for link in &raw.links {
            let [a, b] = &link.ends;
            if a.node == b.node {
                problems.push(Problem::new(link.line, format!("`{}` cannot be linked to itself", a.node)));
            } else if nodes.is_host(&a.node) && nodes.is_host(&b.node) {
                let message = format!(
                    "a link between two hosts ({}, {}): not supported yet by this version; put a switch between them",
                    a.node, b.node
                );
                problems.push(Problem::new(link.line, message));
            }
            for end in &link.ends {
                let Some(pin) = &end.pin else { continue };
                match pinned(end, nodes.is_host(&end.node)) {
                    None => {
                        let wanted = match nodes.is_host(&end.node) {
                            true => "an interface of a host is eth0 to eth999".to_owned(),
                            false => format!("a port of a switch is a number from 1 to {PORT_MAX}"),
                        };
                        problems.push(Problem::new(end.line, format!("`{}:{pin}`: {wanted}", end.node)));
                    }
                    Some(number) if !pins.taken.insert((end.node.clone(), number)) => {
                        problems.push(Problem::new(end.line, format!("`{}:{pin}` is used by another link", end.node)));
                    }
                    Some(_) => {}
                }
            }
        }
        pins
    }
}

fn pinned(end: &RawEnd, host: bool) -> Option<u16> {
    let pin = end.pin.as_deref()?;
    let digits = if host { pin.strip_prefix("eth")? } else { pin };
    let number: u16 = digits.parse().ok()?;
    let canonical = number.to_string() == digits;
    (canonical && if host { number <= 999 } else { (1..=PORT_MAX).contains(&number) }).then_some(number)
}

/// Hands out interface and port numbers.
struct Numbering<'a> {
    pins: &'a Pins,
    next: BTreeMap<String, u16>,
    names: BTreeMap<String, u16>,
}

impl<'a> Numbering<'a> {
    fn new(pins: &'a Pins) -> Self {
        Self { pins, next: BTreeMap::new(), names: BTreeMap::new() }
    }

    fn number(&mut self, end: &RawEnd, host: bool) -> u16 {
        if let Some(number) = pinned(end, host) {
            return number;
        }
        let next = self.next.entry(end.node.clone()).or_insert(u16::from(!host));
        while self.pins.taken.contains(&(end.node.clone(), *next)) {
            *next += 1;
        }
        *next += 1;
        *next - 1
    }

    fn link(&mut self, raw: &Raw, index: usize, nodes: &mut Nodes) -> Link {
        let link = &raw.links[index];
        let mtu = link.mtu.or(raw.mtu).unwrap_or(MTU);
        let ends = [0, 1].map(|i| {
            let end = &link.ends[i];
            let host = nodes.is_host(&end.node);
            let number = self.number(end, host);
            match host {
                true => End::Host { host: end.node.clone(), interface: format!("eth{number}") },
                false => End::Switch { switch: end.node.clone(), port: number },
            }
        });
        for (end, peer) in [(&ends[0], &ends[1]), (&ends[1], &ends[0])] {
            if let (End::Host { host, interface }, End::Switch { switch, port }) = (end, peer) {
                let found = nodes.hosts.iter_mut().find(|h| h.name == *host);
                let (name, switch) = (interface.clone(), switch.clone());
                let mac = Mac([0; 6]);
                let interface = Interface { name, mac, mtu, addresses: Vec::new(), switch, port: *port };
                found.into_iter().for_each(|h| h.interfaces.push(interface.clone()));
            }
        }
        let base = link.name.clone().unwrap_or_else(|| format!("{}-{}", link.ends[0].node, link.ends[1].node));
        let count = self.names.entry(base.clone()).or_insert(0);
        *count += 1;
        let name = if *count > 1 && link.name.is_none() { format!("{base}-{count}") } else { base };
        Link { name, mtu, ends }
    }
}

fn check_link_names(raw: &Raw, links: &[Link], problems: &mut Vec<Problem>) {
    let mut seen = BTreeMap::new();
    for (link, raw) in links.iter().zip(&raw.links) {
        if let Some(first) = seen.insert(&link.name, raw.line) {
            let message = format!("another link is named `{}` (line {first})", link.name);
            problems.push(Problem::new(raw.line, message));
        }
    }
}

/// Refuses links that close a circle of switches: a broadcast would go round for ever.
fn check_loops(raw: &Raw, nodes: &Nodes, problems: &mut Vec<Problem>) {
    let mut group: Vec<usize> = (0..nodes.switches.len()).collect();
    for link in &raw.links {
        let [Some(Index::Switch(a)), Some(Index::Switch(b))] =
            [0, 1].map(|i| nodes.index.get(&link.ends[i].node).copied())
        else {
            continue;
        };
        let (a, b) = (group[a], group[b]);
        if a == b {
            let message = format!(
                "the link {} - {} closes a loop of switches; spanning tree (stp) is not supported yet by this version",
                link.ends[0].node, link.ends[1].node
            );
            problems.push(Problem::new(link.line, message));
        }
        group.iter_mut().filter(|g| **g == b).for_each(|g| *g = a);
    }
}

fn raw_host<'a>(raw: &'a Raw, name: &str) -> Option<&'a RawHost> {
    raw.hosts.iter().flatten().find(|h| h.name.value == name)
}

fn set_macs(raw: &Raw, nodes: &mut Nodes, problems: &mut Vec<Problem>) {
    let mut used = BTreeMap::new();
    for host in raw.hosts.iter().flatten() {
        let Some(mac) = &host.mac else { continue };
        if let Some(first) = used.insert(mac.value, mac.line) {
            problems.push(Problem::new(mac.line, format!("mac {} is given twice; first on line {first}", mac.value)));
        }
    }
    let [seed_high, seed_low] = (raw.seed.unwrap_or(SEED).wrapping_sub(1) as u16).to_be_bytes();
    let mut count = 0u32;
    for host in &mut nodes.hosts {
        let given = raw_host(raw, &host.name).and_then(|h| h.mac.as_ref());
        if let (Some(given), true) = (given, host.interfaces.is_empty()) {
            problems.push(Problem::new(given.line, format!("`{}` has a mac but no link", host.name)));
        }
        for (index, interface) in host.interfaces.iter_mut().enumerate() {
            count += 1;
            interface.mac = match given.filter(|_| index == 0) {
                Some(mac) => mac.value,
                None => loop {
                    let [_, a, b, c] = count.to_be_bytes();
                    let mac = Mac([2, seed_high, seed_low, a, b, c]);
                    if !used.contains_key(&mac) {
                        break mac;
                    }
                    count += 1;
                },
            };
        }
    }
}

/// Gives every host its addresses: those of the file, or the next free ones of the subnets.
fn set_addresses(raw: &Raw, nodes: &mut Nodes, problems: &mut Vec<Problem>) {
    let subnet = raw.subnet.as_ref().map_or_else(default_subnet, |s| s.value);
    let subnet6 = raw.subnet6.as_ref().map(|s| s.value);
    let mut used: BTreeMap<IpAddr, usize> = BTreeMap::new();
    let mut given: BTreeMap<&str, Vec<IpNet>> = BTreeMap::new();
    for host in raw.hosts.iter().flatten() {
        for address in &host.addresses {
            let (ip, prefix) = address.value;
            if let Some(first) = used.insert(ip, address.line) {
                problems.push(Problem::new(address.line, format!("ip {ip} is given twice; first on line {first}")));
            }
            match with_prefix(ip, prefix, subnet, subnet6) {
                Ok(net) => given.entry(&host.name.value).or_default().push(net),
                Err(message) => problems.push(Problem::new(address.line, message)),
            }
        }
    }
    let mut free4 = subnet.hosts().filter(|ip| !used.contains_key(&IpAddr::V4(*ip)));
    let mut free6 = subnet6.map(addresses6).into_iter().flatten().filter(|ip| !used.contains_key(&IpAddr::V6(*ip)));
    for host in &mut nodes.hosts {
        let line = raw_host(raw, &host.name).map_or(0, |h| h.name.line);
        let Some(first) = host.interfaces.first_mut() else {
            let message = format!("`{}` is in no link", host.name);
            problems.push(Problem::new(line, message));
            continue;
        };
        if let Some(addresses) = given.remove(host.name.as_str()) {
            first.addresses = addresses;
        } else if let Some(ip) = free4.next() {
            first.addresses.extend(Ipv4Net::new(ip, subnet.prefix_len()).ok().map(IpNet::V4));
            let six = subnet6.and_then(|s| Ipv6Net::new(free6.next()?, s.prefix_len()).ok());
            first.addresses.extend(six.map(IpNet::V6));
        } else {
            let message =
                format!("no address of {subnet} is left for `{}`; set a larger `defaults: {{subnet: ..}}`", host.name);
            problems.push(Problem::new(raw.subnet.as_ref().map_or(line, |s| s.line), message));
            return;
        }
        if first.mtu < 1280 && first.addresses.iter().any(|a| a.addr().is_ipv6()) {
            let message = format!("`{}` has an IPv6 address but an mtu of {}; IPv6 needs 1280", host.name, first.mtu);
            problems.push(Problem::new(line, message));
        }
    }
}

fn default_subnet() -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 24)
}

/// Addresses of an IPv6 subnet from ::1 on, at most as many as a lab can have hosts.
fn addresses6(subnet: Ipv6Net) -> impl Iterator<Item = Ipv6Addr> {
    let base = subnet.network().to_bits();
    (1u128..=65_536)
        .map_while(move |n| base.checked_add(n).map(Ipv6Addr::from_bits))
        .take_while(move |ip| subnet.contains(ip))
}

/// An address without a prefix length takes that of the subnet it lies in.
fn with_prefix(ip: IpAddr, prefix: Option<u8>, v4: Ipv4Net, v6: Option<Ipv6Net>) -> Result<IpNet, String> {
    let prefix = prefix.or(match ip {
        IpAddr::V4(ip) => v4.contains(&ip).then(|| v4.prefix_len()),
        IpAddr::V6(ip) => match v6 {
            Some(v6) => v6.contains(&ip).then(|| v6.prefix_len()),
            None => Some(64),
        },
    });
    let outside = || {
        let subnet = if ip.is_ipv4() { v4.to_string() } else { v6.map(|s| s.to_string()).unwrap_or_default() };
        let prefix = if ip.is_ipv4() { 24 } else { 64 };
        format!("ip: {ip} is not in the subnet {subnet}; write its prefix length too, as {ip}/{prefix}")
    };
    prefix.and_then(|prefix| IpNet::new(ip, prefix).ok()).ok_or_else(outside)
}
