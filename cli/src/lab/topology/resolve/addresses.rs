//! Addresses: those of the file, and the next free ones of each network's subnets.
//!
//! A network is a VLAN with a subnet of its own, or what is left: hosts without a VLAN, and VLANs without a subnet. In
//! each, the gateway takes the first address; then routers, then hosts get the next that is free, in the order of the
//! file. A server of DHCP gets the last.

use super::super::Problem;
use super::super::raw::{Raw, RawHost};
use super::super::resolved::dhcp::DhcpServer;
use super::super::resolved::uplink::{Outside, Uplink};
use super::super::resolved::{RouterInterface, Vlan};
use super::mirrors;
use super::nodes::Nodes;
use ipnet::{IpNet, Ipv4AddrRange, Ipv4Net, Ipv6Net};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Most addresses of an IPv6 subnet that are handed out: as many as a lab can have nodes.
const IPV6_COUNT: u128 = 65_536;

/// The subnets of one network, and which of their addresses are taken, by what.
struct Pool {
    v4: Option<Ipv4Net>,
    v6: Option<Ipv6Net>,
    used: BTreeMap<IpAddr, String>,
    next4: Option<Ipv4AddrRange>,
    next6: u128,
}

impl Pool {
    fn new(v4: Option<Ipv4Net>, v6: Option<Ipv6Net>) -> Self {
        Self { v4, v6, used: BTreeMap::new(), next4: v4.map(|net| net.hosts()), next6: 1 }
    }

    /// The next free addresses, one of each IP version that the network has; `None` when one has none left.
    fn take(&mut self, what: &str) -> Option<Vec<IpNet>> {
        let mut taken = Vec::new();
        if let (Some(net), Some(range)) = (self.v4, &mut self.next4) {
            let ip = range.find(|ip| !self.used.contains_key(&IpAddr::V4(*ip)))?;
            taken.extend(Ipv4Net::new(ip, net.prefix_len()).map(IpNet::V4));
        }
        if let Some(net) = self.v6 {
            let ip = loop {
                let ip = net.network().to_bits().checked_add(self.next6).map(Ipv6Addr::from_bits)?;
                self.next6 += 1;
                if !net.contains(&ip) || self.next6 > IPV6_COUNT {
                    return None;
                }
                if !self.used.contains_key(&IpAddr::V6(ip)) {
                    break ip;
                }
            };
            taken.extend(Ipv6Net::new(ip, net.prefix_len()).map(IpNet::V6));
        }
        self.used.extend(taken.iter().map(|net| (net.addr(), what.to_owned())));
        Some(taken)
    }

    /// The last free IPv4 address.
    fn take_last(&mut self, what: &str) -> Option<Ipv4Net> {
        let net = self.v4?;
        let ip = net.hosts().rev().find(|ip| !self.used.contains_key(&IpAddr::V4(*ip)))?;
        self.used.insert(IpAddr::V4(ip), what.to_owned());
        Ipv4Net::new(ip, net.prefix_len()).ok()
    }

    /// An address without a prefix length takes that of the subnet it lies in.
    fn with_prefix(&self, ip: IpAddr, prefix: Option<u8>) -> Result<IpNet, String> {
        let prefix = prefix.or(match (ip, self.v4, self.v6) {
            (IpAddr::V4(ip), Some(net), _) => net.contains(&ip).then(|| net.prefix_len()),
            (IpAddr::V6(ip), _, Some(net)) => net.contains(&ip).then(|| net.prefix_len()),
            (IpAddr::V6(_), _, None) => Some(64),
            (IpAddr::V4(_), None, _) => None,
        });
        let outside = || {
            let subnet = if ip.is_ipv4() { self.v4.map(|s| s.to_string()) } else { self.v6.map(|s| s.to_string()) };
            let prefix = if ip.is_ipv4() { 24 } else { 64 };
            let subnet = subnet.map_or_else(|| "a subnet".to_owned(), |subnet| format!("the subnet {subnet}"));
            format!("ip: {ip} is not in {subnet}; write its prefix length too, as {ip}/{prefix}")
        };
        prefix.and_then(|prefix| IpNet::new(ip, prefix).ok()).ok_or_else(outside)
    }
}

/// The networks of a lab.
struct Pools {
    /// By VLAN.
    own: BTreeMap<String, Pool>,
    rest: Pool,
}

impl Pools {
    fn new(raw: &Raw, vlans: &[Vlan]) -> Self {
        let v4 = raw.subnet.as_ref().map_or_else(default_subnet, |s| s.value);
        let own = vlans.iter().filter(|v| has_subnet(v));
        let own = own.map(|v| (v.name.clone(), Pool::new(v.subnet, v.subnet6)));
        Self { own: own.collect(), rest: Pool::new(Some(v4), raw.subnet6.as_ref().map(|s| s.value)) }
    }

    fn of(&mut self, vlan: Option<&str>) -> &mut Pool {
        vlan.and_then(|name| self.own.get_mut(name)).unwrap_or(&mut self.rest)
    }
}

fn has_subnet(vlan: &Vlan) -> bool {
    vlan.subnet.is_some() || vlan.subnet6.is_some()
}

fn default_subnet() -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 24)
}

/// Gives every router and host its addresses, and hosts their gateways.
pub(super) fn set(
    raw: &Raw,
    nodes: &mut Nodes,
    vlans: &[Vlan],
    uplink: &mut Option<Uplink>,
    dhcp: &mut [DhcpServer],
    problems: &mut Vec<Problem>,
) {
    let mut pools = Pools::new(raw, vlans);
    set_gateways(nodes, vlans, &mut pools);
    if let Some(uplink) = uplink {
        set_uplink(uplink, &mut pools);
    }
    let mut given = given(raw, nodes, &mut pools, problems);
    set_routers(raw, nodes, vlans, &mut pools, problems);
    for index in 0..nodes.hosts.len() {
        let (addresses, raw_host) = (given.remove(&nodes.hosts[index].name), raw_host(raw, &nodes.hosts[index].name));
        set_host(raw, raw_host, index, addresses, nodes, &mut pools, problems);
    }
    for server in dhcp.iter_mut() {
        server.address = pools.of(Some(&server.vlan)).take_last(&format!("it is the DHCP server's of {}", server.vlan));
        if server.address.is_none() {
            none_left(raw, Some(&server.vlan), "DHCP server", 0, &mut pools, problems);
        }
    }
    point_to_gateways(nodes, vlans, uplink.as_ref(), dhcp);
}

/// Gives gateways the first addresses.
fn set_gateways(nodes: &mut Nodes, vlans: &[Vlan], pools: &mut Pools) {
    for vlan in vlans {
        let Some(gateway) = &vlan.gateway else { continue };
        let interface = gateway_of(nodes, vlan).filter(|interface| interface.addresses.is_empty());
        // One that is not there has been told of.
        if let (Some(interface), true) = (interface, has_subnet(vlan)) {
            let what = format!("it is the gateway's, {gateway}");
            interface.addresses = pools.of(Some(&vlan.name)).take(&what).unwrap_or_default();
        }
    }
    let mut plain = nodes.routers.iter_mut().flat_map(|r| &mut r.interfaces).filter(|i| i.vlan.is_none());
    if let Some(interface) = plain.find(|i| i.addresses.is_empty()) {
        interface.addresses = pools.of(None).take("it is the router's").unwrap_or_default();
    }
}

/// Gives the machine the next addresses of the network that it translates for.
fn set_uplink(uplink: &mut Uplink, pools: &mut Pools) {
    if let Outside::Nat { addresses, .. } = &mut uplink.outside {
        *addresses = pools.of(uplink.vlan.as_deref()).take("it is the uplink's").unwrap_or_default();
    }
}

/// The gateway's interface in a VLAN.
fn gateway_of<'a>(nodes: &'a mut Nodes, vlan: &Vlan) -> Option<&'a mut RouterInterface> {
    let name = vlan.gateway.as_deref()?;
    let is_it = |router: &&mut super::Router| {
        router.inside.as_ref().map_or(router.name == name, |inside| inside.switch == name)
    };
    let router = nodes.routers.iter_mut().find(is_it)?;
    router.interfaces.iter_mut().find(|i| i.vlan.as_ref() == Some(&vlan.name))
}

/// The addresses that the file gives hosts, and routers on switches.
fn given(raw: &Raw, nodes: &Nodes, pools: &mut Pools, problems: &mut Vec<Problem>) -> BTreeMap<String, Vec<IpNet>> {
    let mut given: BTreeMap<String, Vec<IpNet>> = BTreeMap::new();
    for interface in nodes.routers.iter().flat_map(|r| &r.interfaces) {
        let pool = pools.of(interface.vlan.as_deref());
        let what = format!("first on line {}", interface.line);
        interface.addresses.iter().for_each(|net| _ = pool.used.entry(net.addr()).or_insert_with(|| what.clone()));
    }
    for host in raw.hosts.iter().flatten() {
        let name = &host.name.value;
        let first = nodes.hosts.iter().find(|h| h.name == *name).and_then(|h| h.interfaces.first());
        let pool = pools.of(first.and_then(|i| i.vlan.as_deref()));
        for address in &host.addresses {
            let (ip, prefix) = address.value;
            if let Some(what) = pool.used.insert(ip, format!("first on line {}", address.line)) {
                problems.push(Problem::new(address.line, format!("ip {ip} is given twice; {what}")));
            }
            match pool.with_prefix(ip, prefix) {
                Ok(net) => given.entry(name.clone()).or_default().push(net),
                Err(message) => problems.push(Problem::new(address.line, message)),
            }
        }
    }
    given
}

fn set_routers(raw: &Raw, nodes: &mut Nodes, vlans: &[Vlan], pools: &mut Pools, problems: &mut Vec<Problem>) {
    for router in &mut nodes.routers {
        for interface in router.interfaces.iter_mut().filter(|i| i.addresses.is_empty()) {
            let known = interface.vlan.as_ref().and_then(|name| vlans.iter().find(|v| v.name == *name));
            if let Some(vlan) = known.filter(|v| !has_subnet(v)) {
                let message = format!(
                    "the VLAN {} has no `subnet:`, which {} needs to have an address of",
                    vlan.name, router.name
                );
                problems.push(Problem::new(interface.line, message));
                continue;
            }
            match pools.of(interface.vlan.as_deref()).take(&router.name) {
                Some(addresses) => interface.addresses = addresses,
                None => none_left(raw, interface.vlan.as_deref(), &router.name, interface.line, pools, problems),
            }
        }
        for interface in &router.interfaces {
            check_ipv6(&router.name, interface.mtu, &interface.addresses, interface.line, problems);
        }
    }
}

fn set_host(
    raw: &Raw,
    raw_host: Option<&RawHost>,
    index: usize,
    given: Option<Vec<IpNet>>,
    nodes: &mut Nodes,
    pools: &mut Pools,
    problems: &mut Vec<Problem>,
) {
    let host = &mut nodes.hosts[index];
    let line = raw_host.map_or(0, |h| h.name.line);
    let is_mirror = mirrors::is_for_copies(raw, &host.name, &host.interfaces, 0);
    let Some(first) = host.interfaces.first_mut() else {
        let message = format!("`{}` is in no link", host.name);
        problems.push(Problem::new(line, message));
        return;
    };
    match given {
        Some(_) if is_mirror => {
            let message = format!(
                "ip: {} of `{}` is where {} sends copies and takes nothing from it; put another link first for an address",
                first.name, host.name, first.switch
            );
            problems.push(Problem::new(line, message));
        }
        None if is_mirror => {}
        // Besides those that its link gives it.
        Some(addresses) => first.addresses.extend(addresses),
        None if !first.addresses.is_empty() => {}
        None => match pools.of(first.vlan.as_deref()).take(&host.name) {
            Some(addresses) => first.addresses = addresses,
            None => none_left(raw, first.vlan.as_deref(), &host.name, line, pools, problems),
        },
    }
    for interface in &host.interfaces {
        check_ipv6(&host.name, interface.mtu, &interface.addresses, line, problems);
    }
}

fn check_ipv6(node: &str, mtu: u32, addresses: &[IpNet], line: usize, problems: &mut Vec<Problem>) {
    if mtu < 1280 && addresses.iter().any(|a| a.addr().is_ipv6()) {
        let message = format!("`{node}` has an IPv6 address but an mtu of {mtu}; IPv6 needs 1280");
        problems.push(Problem::new(line, message));
    }
}

/// Tells once per network that it is full.
fn none_left(raw: &Raw, vlan: Option<&str>, node: &str, line: usize, pools: &mut Pools, problems: &mut Vec<Problem>) {
    let own = vlan.filter(|name| pools.own.contains_key(*name));
    let at = match own {
        Some(name) => raw.vlans.iter().find(|v| v.name.value == name).map(|v| v.name.line),
        None => raw.subnet.as_ref().map(|s| s.line),
    };
    let pool = pools.of(vlan);
    let (v4, v6) = (pool.v4.map(IpNet::V4), pool.v6.map(IpNet::V6));
    let nets: Vec<_> = v4.iter().chain(&v6).map(ToString::to_string).collect();
    let next = match own {
        Some(name) => format!("give the VLAN {name} a larger subnet"),
        None => "set a larger `defaults: {subnet: ..}`".to_owned(),
    };
    let message = format!("no address of {} is left for `{node}`; {next}", nets.join(" and "));
    if pool.used.insert(IpAddr::V4(Ipv4Addr::UNSPECIFIED), "full".to_owned()).is_none() {
        problems.push(Problem::new(at.unwrap_or(line), message));
    }
}

/// Tells every host and server where packets to other networks go: by its first interface that has a gateway.
fn point_to_gateways(nodes: &mut Nodes, vlans: &[Vlan], uplink: Option<&Uplink>, dhcp: &mut [DhcpServer]) {
    let mut by_vlan: BTreeMap<Option<String>, Vec<IpAddr>> = BTreeMap::new();
    let ips = |interface: &RouterInterface| interface.addresses.iter().map(IpNet::addr).collect::<Vec<_>>();
    for vlan in vlans {
        let gateways = gateway_of(nodes, vlan).map(|interface| ips(interface)).unwrap_or_default();
        by_vlan.insert(Some(vlan.name.clone()), gateways);
    }
    let routers = &nodes.routers;
    let is_switch = |interface: &RouterInterface| {
        let node = interface.peer.split(':').next().unwrap_or_default();
        nodes.switches.iter().any(|s| s.name == node)
    };
    let mut plain = routers.iter().flat_map(|r| &r.interfaces).filter(|i| i.vlan.is_none() && is_switch(i));
    by_vlan.insert(None, plain.next().map(ips).unwrap_or_default());
    if let Some(uplink) = uplink {
        let machine = uplink.addresses().iter().map(IpNet::addr);
        by_vlan.entry(uplink.vlan.clone()).or_default().extend(machine);
    }
    for server in dhcp {
        let all = by_vlan.get(&Some(server.vlan.clone())).into_iter().flatten().copied();
        server.gateways = all.filter(IpAddr::is_ipv4).take(1).collect();
    }
    for host in &mut nodes.hosts {
        let mut found = false;
        for interface in &mut host.interfaces {
            let router = routers.iter().find(|r| r.name == interface.switch);
            let own = router.and_then(|r| r.interfaces.iter().find(|i| i.port == interface.port)).map(ips);
            let all = own.unwrap_or_else(|| by_vlan.get(&interface.vlan).cloned().unwrap_or_default());
            let nets = &interface.addresses;
            let near: Vec<_> = all.into_iter().filter(|ip| nets.iter().any(|net| net.contains(ip))).collect();
            let first = |v4: bool| near.iter().copied().find(|ip| ip.is_ipv4() == v4);
            if !found && !near.is_empty() {
                interface.gateways = first(true).into_iter().chain(first(false)).collect();
                found = true;
            }
        }
    }
}

pub(super) fn raw_host<'a>(raw: &'a Raw, name: &str) -> Option<&'a RawHost> {
    raw.hosts.iter().flatten().find(|h| h.name.value == name)
}
