//! Links: which nodes they may join, the numbers of their ports, their names, and that they form no loop.

use super::super::Problem;
use super::super::raw::{Raw, RawEnd, RawLink};
use super::super::resolved::{
    Carried, End, INTERFACE_NAME_MAX, Interface, Link, Mac, RouterInterface, Tunnel, Underlay, Vlan,
};
use super::nodes::{Index, Nodes};
use super::{MTU, PORT_MAX};
use std::collections::{BTreeMap, BTreeSet};

/// Numbers that the file pins, checked.
#[derive(Default)]
pub(super) struct Pins {
    taken: BTreeSet<(String, u16)>,
}

impl Pins {
    pub(super) fn collect(raw: &Raw, nodes: &Nodes, problems: &mut Vec<Problem>) -> Self {
        let mut pins = Self::default();
        let mut routed = BTreeMap::new();
        for link in &raw.links {
            check_kinds(link, nodes, problems);
            check_twice(link, nodes, &mut routed, problems);
            for end in &link.ends {
                let Some(pin) = &end.pin else { continue };
                if is_underlay(link, nodes) {
                    let message = format!("`{}:{pin}`: a link with `ips:` between switches has no ports", end.node);
                    problems.push(Problem::new(end.line, message));
                    continue;
                }
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

/// Refuses links of nodes that cannot be joined, and keys that make no sense between those nodes.
fn check_kinds(link: &RawLink, nodes: &Nodes, problems: &mut Vec<Problem>) {
    let [a, b] = &link.ends;
    if a.node == b.node {
        problems.push(Problem::new(link.line, format!("`{}` cannot be linked to itself", a.node)));
        return;
    }
    let (Some(first), Some(second)) = (nodes.kind(&a.node), nodes.kind(&b.node)) else { return };
    let vlan_line = [&link.access, &link.native].into_iter().flatten().map(|v| v.line);
    let vlan_line = vlan_line.chain(link.trunk.as_ref().map(|t| t.line)).next();
    let has_host = first == Index::Host || second == Index::Host;
    let has_router = first == Index::Router || second == Index::Router;
    let has_switch = matches!(first, Index::Switch(_)) || matches!(second, Index::Switch(_));
    if first == Index::Host && second == Index::Host {
        let message = format!(
            "a link between two hosts ({}, {}): not supported yet by this version; put a switch between them",
            a.node, b.node
        );
        problems.push(Problem::new(link.line, message));
    } else if has_host && has_router && vlan_line.is_some() {
        let message = "a link of a router and a host carries no VLAN; give both addresses by `ips: [.., ..]`";
        problems.push(Problem::new(vlan_line.unwrap_or(link.line), message));
    } else if has_router && !has_switch && vlan_line.is_none() && link.ips.is_none() {
        let message = format!("the link {} - {} needs `ips: [.., ..]`, the addresses of its two ends", a.node, b.node);
        problems.push(Problem::new(link.line, message));
    }
    if let (true, false, Some(trunk), None) = (has_host, has_router, &link.trunk, &link.native) {
        let message = "trunk: a host is in one VLAN: `access:`, or `native:` besides the trunk";
        problems.push(Problem::new(trunk.line, message));
    }
    check_ips(link, first, second, problems);
    if let (Some(vrf), false) = (link.vrf.iter().flatten().next(), has_router) {
        problems.push(Problem::new(vrf.line, "vrf: neither end of the link is a router"));
    }
}

fn check_ips(link: &RawLink, first: Index, second: Index, problems: &mut Vec<Problem>) {
    let Some(ips) = &link.ips else { return };
    let mut refuse = |message: String| problems.push(Problem::new(ips.line, message));
    let given = ips.value.each_ref().map(|addresses| !addresses.is_empty());
    match (first, second) {
        (Index::Host, Index::Switch(_)) | (Index::Switch(_), Index::Host) => {
            refuse("ips: a host on a switch has its addresses by `ip:` under `hosts:`".to_owned());
        }
        (Index::Router, Index::Switch(_)) | (Index::Switch(_), Index::Router) => {
            let router = usize::from(second == Index::Router);
            if !given[router] || given[1 - router] {
                refuse("ips: only the router's end has addresses here, the switch's is `null`".to_owned());
            } else if link.trunk.is_some() {
                refuse("ips: a link that carries several VLANs has its addresses by their subnets".to_owned());
            }
        }
        _ if given != [true, true] => refuse("ips: both ends of this link need an address".to_owned()),
        (Index::Switch(_), Index::Switch(_))
            if link.access.is_some() || link.trunk.is_some() || link.native.is_some() =>
        {
            refuse("ips: a link with addresses carries packets of tunnels, no VLANs".to_owned());
        }
        _ => {}
    }
    let [a, b] = &ips.value;
    for address in a.iter().filter(|_| given == [true, true]) {
        if !b.iter().any(|other| other.value.trunc() == address.value.trunc()) {
            let message = format!(
                "ips: no address of the other end is in {}, the network of {}",
                address.value.trunc(),
                address.value
            );
            problems.push(Problem::new(address.line, message));
        }
        if b.iter().any(|other| other.value.addr() == address.value.addr()) {
            problems
                .push(Problem::new(address.line, format!("ips: both ends have the address {}", address.value.addr())));
        }
    }
}

/// Refuses a second link of the same two switches or routers: their ports would have the same names.
fn check_twice<'a>(
    link: &'a RawLink,
    nodes: &Nodes,
    seen: &mut BTreeMap<(&'a str, &'a str), usize>,
    problems: &mut Vec<Problem>,
) {
    let [a, b] = link.ends.each_ref().map(|end| end.node.as_str());
    let is_router = |name: &str| nodes.kind(name) == Some(Index::Router);
    // Two switches without a router are told of the loop that this makes.
    if nodes.is_host(a) || nodes.is_host(b) || !(is_router(a) || is_router(b)) {
        return;
    }
    if let Some(first) = seen.insert((a.min(b), a.max(b)), link.line) {
        let message =
            format!("{a} and {b} are linked already (line {first}); let one link carry several VLANs as a trunk");
        problems.push(Problem::new(link.line, message));
    }
}

/// Whether the link joins namespaces of two switches, for tunnels to go over.
pub(super) fn is_underlay(link: &RawLink, nodes: &Nodes) -> bool {
    link.ips.is_some() && link.ends.iter().all(|end| matches!(nodes.kind(&end.node), Some(Index::Switch(_))))
}

fn pinned(end: &RawEnd, host: bool) -> Option<u16> {
    let pin = end.pin.as_deref()?;
    let digits = if host { pin.strip_prefix("eth")? } else { pin };
    let number: u16 = digits.parse().ok()?;
    let canonical = number.to_string() == digits;
    (canonical && if host { number <= 999 } else { (1..=PORT_MAX).contains(&number) }).then_some(number)
}

/// Hands out interface and port numbers.
pub(super) struct Numbering<'a> {
    pins: &'a Pins,
    next: BTreeMap<String, u16>,
    names: BTreeMap<String, u16>,
}

impl<'a> Numbering<'a> {
    pub(super) fn new(pins: &'a Pins) -> Self {
        Self { pins, next: BTreeMap::new(), names: BTreeMap::new() }
    }

    /// The next free port of a switch or router.
    pub(super) fn port(&mut self, node: &str) -> u16 {
        self.number(&RawEnd { node: node.to_owned(), ..RawEnd::default() }, false)
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

    /// Resolves a link, and gives the hosts and routers at its ends their interfaces.
    pub(super) fn link(
        &mut self,
        raw: &Raw,
        index: usize,
        carried: Carried,
        nodes: &mut Nodes,
        vlans: &[Vlan],
    ) -> Link {
        let link = &raw.links[index];
        let mtu = link.mtu.or(raw.mtu).unwrap_or(MTU);
        let name = self.link_name(link);
        let underlay = is_underlay(link, nodes);
        let ends = [0, 1].map(|i| self.end(&link.ends[i], underlay.then_some((&name, index)), nodes));
        for i in [0, 1] {
            let (end, peer) = (&ends[i], &ends[1 - i]);
            match end {
                End::Host { host, interface } => {
                    let (End::Switch { switch: node, port } | End::Router { router: node, port }) = peer else {
                        continue;
                    };
                    let vlan = match &carried {
                        Carried::Access(vlan) => Some(vlan.clone()),
                        Carried::Trunk { native, .. } => native.clone(),
                        Carried::All => None,
                    };
                    let addresses = given(link, i);
                    let (name, mac, switch, port) = (interface.clone(), Mac([0; 6]), node.clone(), *port);
                    let interface =
                        Interface { name, mac, mtu, addresses, switch, port, vlan, gateways: Vec::new(), dhcp: false };
                    nodes.host_mut(host).into_iter().for_each(|h| h.interfaces.push(interface.clone()));
                }
                End::Router { router, port } => {
                    let interfaces = router_interfaces(link, i, *port, peer, mtu, &carried, vlans);
                    nodes.router_mut(router).into_iter().for_each(|r| r.interfaces.extend(interfaces.clone()));
                }
                End::Switch { .. } | End::Stack { .. } => {}
            }
        }
        let mac = Mac([0; 6]);
        let underlay = underlay.then(|| [0, 1].map(|i| Underlay { mac, addresses: given(link, i) }));
        Link {
            name,
            mtu,
            ends,
            carried,
            impairment: link.impairment,
            down: link.down,
            wire: false,
            attached: None,
            underlay,
        }
    }

    fn end(&mut self, end: &RawEnd, underlay: Option<(&String, usize)>, nodes: &Nodes) -> End {
        let node = end.node.clone();
        match (nodes.kind(&node), underlay) {
            (_, Some((link, index))) => {
                let interface = if link.len() <= INTERFACE_NAME_MAX { link.clone() } else { format!("link{index}") };
                End::Stack { stack: node, interface }
            }
            (Some(Index::Host), _) => {
                let number = self.number(end, true);
                End::Host { host: node, interface: format!("eth{number}") }
            }
            (Some(Index::Router), _) => End::Router { router: node, port: self.number(end, false) },
            _ => End::Switch { switch: node, port: self.number(end, false) },
        }
    }

    fn link_name(&mut self, link: &RawLink) -> String {
        let base = link.name.clone().unwrap_or_else(|| format!("{}-{}", link.ends[0].node, link.ends[1].node));
        let count = self.names.entry(base.clone()).or_insert(0);
        *count += 1;
        if *count > 1 && link.name.is_none() { format!("{base}-{count}") } else { base }
    }
}

/// The addresses that the link gives its end `index`.
fn given(link: &RawLink, index: usize) -> Vec<ipnet::IpNet> {
    link.ips.iter().flat_map(|ips| &ips.value[index]).map(|address| address.value).collect()
}

/// A router's interfaces at its end of a link: one for each VLAN, or one.
fn router_interfaces(
    link: &RawLink,
    index: usize,
    port: u16,
    peer: &End,
    mtu: u32,
    carried: &Carried,
    vlans: &[Vlan],
) -> Vec<RouterInterface> {
    let interface = |name: String, vlan: Option<&String>, tagged: bool| {
        let known = vlan.and_then(|name| vlans.iter().find(|v| v.name == *name));
        RouterInterface {
            name,
            port,
            peer: peer.to_string(),
            vlan: vlan.cloned(),
            tag: known.filter(|_| tagged).map(|v| v.id),
            vrf: link.vrf[index].as_ref().map(|v| v.value.clone()).or_else(|| known.and_then(|v| v.vrf.clone())),
            mac: Mac([0; 6]),
            mtu,
            addresses: given(link, index),
            line: link.line,
        }
    };
    let name = peer.node();
    match carried {
        Carried::All => vec![interface(name.to_owned(), None, false)],
        Carried::Access(vlan) => vec![interface(name.to_owned(), Some(vlan), false)],
        Carried::Trunk { vlans, native } => {
            let native = native.iter().map(|vlan| interface(format!("{name}.{vlan}"), Some(vlan), false));
            native.chain(vlans.iter().map(|vlan| interface(format!("{name}.{vlan}"), Some(vlan), true))).collect()
        }
    }
}

pub(super) fn check_names(raw: &Raw, links: &[Link], problems: &mut Vec<Problem>) {
    let mut seen = BTreeMap::new();
    for (link, raw) in links.iter().zip(&raw.links) {
        if let Some(first) = seen.insert(&link.name, raw.line) {
            let message = format!("another link is named `{}` (line {first})", link.name);
            problems.push(Problem::new(raw.line, message));
        }
    }
}

/// What could be one side of a loop.
struct Edge<'a> {
    line: usize,
    what: String,
    ends: [usize; 2],
    carried: &'a Carried,
    told: bool,
}

/// Refuses links and tunnels that close a circle of switches in one VLAN: a broadcast would go round for ever.
pub(super) fn check_loops(
    raw: &Raw,
    links: &[Link],
    tunnels: &[Tunnel],
    nodes: &Nodes,
    vlans: &[Vlan],
    problems: &mut Vec<Problem>,
) {
    let switches = |a: &str, b: &str| match (nodes.kind(a), nodes.kind(b)) {
        (Some(Index::Switch(a)), Some(Index::Switch(b))) => Some([a, b]),
        _ => None,
    };
    let links = links.iter().zip(&raw.links).filter(|(link, _)| link.underlay.is_none());
    let mut edges: Vec<_> = links
        .filter_map(|(link, raw)| {
            let [a, b] = raw.ends.each_ref().map(|end| end.node.as_str());
            let what = format!("the link {a} - {b}");
            Some(Edge { line: raw.line, what, ends: switches(a, b)?, carried: &link.carried, told: false })
        })
        .collect();
    edges.extend(tunnels.iter().filter_map(|tunnel| {
        let [a, b] = tunnel.ends.as_slice() else { return None };
        let ends = switches(&a.switch, &b.switch)?;
        let what = format!("the tunnel {}", tunnel.name);
        Some(Edge { line: tunnel.line, what, ends, carried: &tunnel.carried, told: false })
    }));
    for vlan in std::iter::once(None).chain(vlans.iter().map(|v| Some(v.name.as_str()))) {
        let mut group: Vec<usize> = (0..nodes.switches.len()).collect();
        for edge in edges.iter_mut().filter(|edge| edge.carried.carries(vlan)) {
            let [a, b] = edge.ends.map(|switch| group[switch]);
            if a == b && !edge.told {
                edge.told = true;
                let what = &edge.what;
                let inside = vlan.map_or_else(String::new, |vlan| format!(" in the VLAN {vlan}"));
                let message = format!(
                    "{what} closes a loop of switches{inside}, in which frames would go round for ever (there is no \
                     spanning tree); leave a link out, or have its `trunk:` carry other VLANs, or make the switches routers"
                );
                problems.push(Problem::new(edge.line, message));
            }
            group.iter_mut().filter(|g| **g == b).for_each(|g| *g = a);
        }
    }
}
