//! Addresses, routes, rules and neighbours of a network namespace by rtnetlink: read, added and deleted, as plain data.
//!
//! What the kernel says of them is brought into one form (a route without a metric has the one that its family gives it,
//! a host's route has the full prefix), so that what was asked for and what is there can be compared.
//!
//! # Limits
//! Routes with several next hops, encapsulation, source prefixes or next-hop objects are read as routes without a next
//! hop: enough to see that a destination is taken. Routes that are the kernel's own cache are left out.

use super::netlink::{Netlink, Result};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::fmt;
use std::net::IpAddr;

/// The routing table that ordinary routes are in.
pub const MAIN_TABLE: u32 = RouteHeader::RT_TABLE_MAIN as u32;
/// The routing table of the host's own addresses, which the kernel keeps.
const LOCAL_TABLE: u8 = 255;
/// Metric of an IPv6 route that asks for none.
const V6_METRIC: u32 = 1024;

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAddress {
    /// Index of the interface.
    pub link: u32,
    /// The address with the length of its network's prefix.
    pub address: IpNet,
    /// Who added it, 0 for nobody in particular.
    pub protocol: u8,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRoute {
    /// Where it leads to.
    pub to: IpNet,
    /// The next hop; none for what is on the link itself.
    pub via: Option<IpAddr>,
    /// Index of the interface; 0 for none (a blackhole).
    pub link: u32,
    /// The address that the host itself sends from by it.
    pub source: Option<IpAddr>,
    /// Lower is better. 0 in IPv4 and 1024 in IPv6 unless something else is asked for.
    pub metric: u32,
    /// The routing table.
    pub table: u32,
    /// Who added it.
    pub protocol: u8,
}

/// A rule of policy routing: which table is asked about which packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRule {
    /// Lower comes first.
    pub priority: u32,
    /// Of IPv6.
    pub v6: bool,
    /// Sources it is about; all if none.
    pub from: Option<IpNet>,
    /// Destinations it is about; all if none.
    pub to: Option<IpNet>,
    /// Interface that packets came by; any if none.
    pub iif: Option<String>,
    /// The table that is asked.
    pub table: u32,
    /// Who added it.
    pub protocol: u8,
}

/// A neighbour whose hardware address is known for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostNeighbour {
    /// Index of the interface.
    pub link: u32,
    /// Its address.
    pub address: IpAddr,
    /// Its hardware address.
    pub mac: [u8; 6],
}

/// The metric that a route of the family of `to` gets when `asked`.
pub fn metric_of(to: IpNet, asked: Option<u32>) -> u32 {
    asked.unwrap_or(if to.addr().is_ipv6() { V6_METRIC } else { 0 })
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

impl Netlink {
    /// The addresses of all interfaces.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn addresses(&mut self) -> Result<Vec<HostAddress>> {
        let all = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.dump(all, || "list addresses".to_owned())?;
        let one = |answer: &RouteNetlinkMessage| match answer {
            RouteNetlinkMessage::NewAddress(message) => read_address(message),
            _ => None,
        };
        Ok(answers.iter().filter_map(one).collect())
    }

    /// The unicast routes of all tables but `local`.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn routes(&mut self) -> Result<Vec<HostRoute>> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let answers = self.dump(RouteNetlinkMessage::GetRoute(message), || "list routes".to_owned())?;
            routes.extend(answers.iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(message) => read_route(message),
                _ => None,
            }));
        }
        Ok(routes)
    }

    /// The interface by which the host reaches a station itself, or why it does not.
    ///
    /// # Errors
    /// As the kernel says.
    pub(super) fn link_to(&mut self, station: IpAddr) -> Result<std::result::Result<u32, String>> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(station);
        message.header.destination_prefix_length = IpNet::from(station).prefix_len();
        message.attributes.push(RouteAttribute::Destination(route_address(station)));
        let what = || format!("tell the way to {station}");
        let answer = match self.ask(RouteNetlinkMessage::GetRoute(message), 0, what) {
            Ok(Some(RouteNetlinkMessage::NewRoute(answer))) => answer,
            Err(error) if error.source.raw_os_error() == Some(libc::EPERM) => return Err(error),
            _ => return Ok(Err(format!("the host has no route to {station}"))),
        };
        if answer.header.kind != RouteType::Unicast {
            return Ok(Err(format!("{station} is no other host")));
        }
        let next = answer.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(next) => ip(next),
            _ => None,
        });
        let link = answer.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(link) => Some(*link),
            _ => None,
        });
        Ok(match (next, link) {
            (Some(next), _) => {
                Err(format!("the host reaches {station} by {next}, and a next hop has to be a neighbour"))
            }
            (None, Some(link)) => Ok(link),
            (None, None) => Err(format!("the host has no interface towards {station}")),
        })
    }

    /// The rules that lead to a table.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn rules(&mut self) -> Result<Vec<HostRule>> {
        let mut rules = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RuleMessage::default();
            message.header.family = family;
            let answers = self.dump(RouteNetlinkMessage::GetRule(message), || "list rules".to_owned())?;
            rules.extend(answers.iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRule(message) => read_rule(message),
                _ => None,
            }));
        }
        Ok(rules)
    }

    /// The neighbours that are known for good.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn permanent_neighbours(&mut self) -> Result<Vec<HostNeighbour>> {
        let all = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let answers = self.dump(all, || "list neighbours".to_owned())?;
        let one = |answer: &RouteNetlinkMessage| match answer {
            RouteNetlinkMessage::NewNeighbour(message) => read_neighbour(message),
            _ => None,
        };
        Ok(answers.iter().filter_map(one).collect())
    }

    /// Adds a route.
    ///
    /// # Errors
    /// As the kernel says; `EEXIST` when its table has one to the same place with the same metric.
    pub fn add_route(&mut self, route: &HostRoute) -> Result<()> {
        let message = RouteNetlinkMessage::NewRoute(route_message(route));
        self.request(message, NLM_F_CREATE | NLM_F_EXCL, || format!("add the route to {}", route.to))
    }

    /// Deletes a route.
    ///
    /// # Errors
    /// As the kernel says; `ESRCH` when there is none.
    pub fn delete_route(&mut self, route: &HostRoute) -> Result<()> {
        let message = RouteNetlinkMessage::DelRoute(route_message(route));
        self.request(message, 0, || format!("delete the route to {}", route.to))
    }

    /// Adds a rule.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn add_rule(&mut self, rule: &HostRule) -> Result<()> {
        let message = RouteNetlinkMessage::NewRule(rule_message(rule));
        self.request(message, NLM_F_CREATE | NLM_F_EXCL, || format!("add rule {}", rule.priority))
    }

    /// Deletes a rule.
    ///
    /// # Errors
    /// As the kernel says; `ENOENT` when there is none.
    pub fn delete_rule(&mut self, rule: &HostRule) -> Result<()> {
        let message = RouteNetlinkMessage::DelRule(rule_message(rule));
        self.request(message, 0, || format!("delete rule {}", rule.priority))
    }

    /// Makes a neighbour's hardware address known for good, whatever was known of it.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn set_neighbour(&mut self, neighbour: &HostNeighbour) -> Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = neighbour.link;
        message.header.state = NeighbourState::Permanent;
        message.header.family = family(neighbour.address);
        let address = match neighbour.address {
            IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
            IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
        };
        message.attributes.push(NeighbourAttribute::Destination(address));
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(neighbour.mac.to_vec()));
        let flags = NLM_F_CREATE | netlink_packet_core::NLM_F_REPLACE;
        self.request(RouteNetlinkMessage::NewNeighbour(message), flags, || {
            format!("set neighbour {}", neighbour.address)
        })
    }
}

fn read_address(message: &AddressMessage) -> Option<HostAddress> {
    let (mut local, mut address, mut protocol) = (None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Protocol(owner) => protocol = u8::from(*owner),
            _ => {}
        }
    }
    let address = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    Some(HostAddress { link: message.header.index, address, protocol })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(ip) => RouteAddress::Inet(ip),
        IpAddr::V6(ip) => RouteAddress::Inet6(ip),
    }
}

fn read_route(message: &RouteMessage) -> Option<HostRoute> {
    let header = &message.header;
    let any: IpAddr = match header.address_family {
        AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    if header.flags.contains(RouteFlags::Cloned) || header.table == LOCAL_TABLE {
        return None;
    }
    if matches!(header.kind, RouteType::Local | RouteType::Broadcast | RouteType::Anycast | RouteType::Multicast) {
        return None;
    }
    let mut route = HostRoute {
        to: IpNet::new(any, 0).ok()?,
        via: None,
        link: 0,
        source: None,
        metric: 0,
        table: header.table.into(),
        protocol: header.protocol.into(),
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => {
                route.to = IpNet::new(ip(to)?, header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Gateway(via) => route.via = ip(via),
            RouteAttribute::Oif(link) => route.link = *link,
            RouteAttribute::PrefSource(source) => route.source = ip(source),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Table(table) => route.table = *table,
            _ => {}
        }
    }
    Some(route)
}

fn route_message(route: &HostRoute) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.to.addr());
    message.header.destination_prefix_length = route.to.prefix_len();
    message.header.protocol = RouteProtocol::from(route.protocol);
    message.header.kind = RouteType::Unicast;
    let on_link = route.via.is_none() && route.to.addr().is_ipv4();
    message.header.scope = if on_link { RouteScope::Link } else { RouteScope::Universe };
    match u8::try_from(route.table) {
        Ok(table) => message.header.table = table,
        Err(_) => message.attributes.push(RouteAttribute::Table(route.table)),
    }
    if route.to.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(route_address(route.to.network())));
    }
    message.attributes.extend(route.via.map(|via| RouteAttribute::Gateway(route_address(via))));
    message.attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(route_address(source))));
    message.attributes.push(RouteAttribute::Oif(route.link));
    message.attributes.push(RouteAttribute::Priority(route.metric));
    message
}

fn read_rule(message: &RuleMessage) -> Option<HostRule> {
    let header = &message.header;
    if header.action != RuleAction::ToTable {
        return None;
    }
    let mut rule = HostRule {
        priority: 0,
        v6: header.family == AddressFamily::Inet6,
        from: None,
        to: None,
        iif: None,
        table: header.table.into(),
        protocol: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Source(ip) => rule.from = IpNet::new(*ip, header.src_len).ok(),
            RuleAttribute::Destination(ip) => rule.to = IpNet::new(*ip, header.dst_len).ok(),
            RuleAttribute::Iifname(name) => rule.iif = Some(name.clone()),
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(table) => rule.table = *table,
            RuleAttribute::Protocol(protocol) => rule.protocol = u8::from(*protocol),
            _ => {}
        }
    }
    Some(rule)
}

fn rule_message(rule: &HostRule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = if rule.v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    message.header.action = RuleAction::ToTable;
    message.header.table = u8::try_from(rule.table).unwrap_or_default();
    if let Some(from) = rule.from {
        message.header.src_len = from.prefix_len();
        message.attributes.push(RuleAttribute::Source(from.network()));
    }
    if let Some(to) = rule.to {
        message.header.dst_len = to.prefix_len();
        message.attributes.push(RuleAttribute::Destination(to.network()));
    }
    message.attributes.extend(rule.iif.clone().map(RuleAttribute::Iifname));
    message.attributes.push(RuleAttribute::Priority(rule.priority));
    message.attributes.push(RuleAttribute::Table(rule.table));
    message.attributes.push(RuleAttribute::Protocol(RouteProtocol::from(rule.protocol)));
    message
}

fn read_neighbour(message: &NeighbourMessage) -> Option<HostNeighbour> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(IpAddr::V4(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address = Some(IpAddr::V6(*ip)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    Some(HostNeighbour { link: message.header.ifindex, address: address?, mac: mac? })
}

impl fmt::Display for HostRoute {
    /// As `ip route` says it, without the interface's name, which only its index stands for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to)?;
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        if self.metric != metric_of(self.to, None) {
            write!(f, " metric {}", self.metric)?;
        }
        if self.table != MAIN_TABLE {
            write!(f, " table {}", self.table)?;
        }
        Ok(())
    }
}

impl fmt::Display for HostRule {
    /// As `ip rule` says it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.priority)?;
        match self.from {
            Some(from) => write!(f, " from {from}")?,
            None => f.write_str(" from all")?,
        }
        if let Some(to) = self.to {
            write!(f, " to {to}")?;
        }
        if let Some(iif) = &self.iif {
            write!(f, " iif {iif}")?;
        }
        write!(f, " lookup {}", self.table)?;
        if self.v6 { f.write_str(" (IPv6)") } else { Ok(()) }
    }
}
