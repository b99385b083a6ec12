//! Addresses and routes as netlink messages, and back.

use crate::spec::Route;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
    RouteType,
};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The routing table that ordinary routes are in.
const MAIN_TABLE: u32 = RouteHeader::RT_TABLE_MAIN as u32;

pub(super) fn family(v4: bool) -> AddressFamily {
    if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// The request for an address on the interface `index`.
pub(super) fn address_message(index: u32, address: IpNet, dad: bool) -> AddressMessage {
    let ip = address.addr();
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.family = family(ip.is_ipv4());
    message.header.prefix_len = address.prefix_len();
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    match address {
        IpNet::V4(net) if net.prefix_len() < 31 && net.broadcast() != Ipv4Addr::BROADCAST => {
            message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
        }
        IpNet::V4(_) => {}
        IpNet::V6(net) => {
            if net.addr().is_unicast_link_local() {
                message.header.scope = AddressScope::Link;
            }
            if !dad {
                message.header.flags = AddressHeaderFlags::Nodad;
                message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            }
        }
    }
    message
}

/// An address of an interface as it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct FoundAddress {
    pub(super) index: u32,
    pub(super) address: IpNet,
    pub(super) flags: AddressFlags,
}

pub(super) fn read_address(message: &AddressMessage) -> Option<FoundAddress> {
    let (mut local, mut address, mut flags) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Flags(bits) => flags = Some(*bits),
            _ => {}
        }
    }
    let address = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    let flags = flags.unwrap_or_else(|| AddressFlags::from_bits_retain(message.header.flags.bits().into()));
    Some(FoundAddress { index: message.header.index, address, flags })
}

/// The routes in the order in which the kernel takes them: what is on the link first, because gateways are there.
pub(super) fn in_order(routes: &[Route]) -> impl Iterator<Item = &Route> {
    let by = |with: bool| routes.iter().filter(move |route| route.gw.is_some() == with);
    by(false).chain(by(true))
}

/// Whether nothing but the request's word tells the kernel that the gateway is on the link.
fn needs_onlink(gw: IpAddr, addresses: &[IpNet]) -> bool {
    let local = matches!(gw, IpAddr::V6(gw) if gw.is_unicast_link_local());
    !local && !addresses.iter().any(|net| net.contains(&gw) && net.addr() != gw)
}

/// The request for a route by the interface `index` that has `addresses`.
pub(super) fn route_message(index: u32, route: &Route, addresses: &[IpNet]) -> RouteMessage {
    let to = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => RouteAddress::Inet(ip),
        IpAddr::V6(ip) => RouteAddress::Inet6(ip),
    };
    let dst = route.dst.trunc();
    let v4 = dst.addr().is_ipv4();
    let mut message = RouteMessage::default();
    message.header.address_family = family(v4);
    message.header.destination_prefix_length = dst.prefix_len();
    message.header.protocol = RouteProtocol::Boot;
    message.header.kind = RouteType::Unicast;
    message.header.scope = match (route.scope, route.gw) {
        // IPv6 has no scopes of routes.
        (Some(scope), _) if v4 => RouteScope::from(scope),
        (_, None) if v4 => RouteScope::Link,
        _ => RouteScope::Universe,
    };
    let table = route.table.unwrap_or(MAIN_TABLE);
    // The header's field has eight bits; the attribute has the number when they are not enough.
    message.header.table = u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    message.attributes = vec![RouteAttribute::Oif(index), RouteAttribute::Table(table)];
    if dst.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(to(dst.addr())));
    }
    if let Some(gw) = route.gw {
        message.attributes.push(RouteAttribute::Gateway(to(gw)));
        if needs_onlink(gw, addresses) {
            message.header.flags = RouteFlags::Onlink;
        }
    }
    message.attributes.extend(route.priority.map(RouteAttribute::Priority));
    let mut metrics = Vec::new();
    metrics.extend(route.mtu.map(RouteMetric::Mtu));
    metrics.extend(route.advmss.map(RouteMetric::Advmss));
    if !metrics.is_empty() {
        message.attributes.push(RouteAttribute::Metrics(metrics));
    }
    message
}

/// A route on which nothing is said.
fn plain(dst: IpNet) -> Route {
    Route { dst, gw: None, mtu: None, advmss: None, priority: None, table: None, scope: None }
}

/// A unicast route as it is.
#[derive(Clone, Debug)]
pub(super) struct FoundRoute {
    /// The interface; 0 for none or several.
    pub(super) index: u32,
    /// With everything said.
    pub(super) route: Route,
}

pub(super) fn read_route(message: &RouteMessage) -> Option<FoundRoute> {
    let from = |address: &RouteAddress| match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    };
    if message.header.kind != RouteType::Unicast || message.header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let any = match message.header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let mut route = plain(IpNet::new(any, 0).ok()?);
    let mut index = 0;
    let mut dst = any;
    route.table = Some(message.header.table.into());
    route.scope = Some(message.header.scope.into());
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => dst = from(address)?,
            RouteAttribute::Gateway(address) => route.gw = from(address),
            RouteAttribute::Oif(oif) => index = *oif,
            RouteAttribute::Table(table) => route.table = Some(*table),
            RouteAttribute::Priority(priority) => route.priority = Some(*priority),
            RouteAttribute::Metrics(metrics) => {
                for metric in metrics {
                    match metric {
                        RouteMetric::Mtu(mtu) => route.mtu = Some(*mtu),
                        RouteMetric::Advmss(advmss) => route.advmss = Some(*advmss),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    route.dst = IpNet::new(dst, message.header.destination_prefix_length).ok()?;
    Some(FoundRoute { index, route })
}

/// Routes by where they lead to: thousands are looked up one by one.
pub(super) struct RouteTable(HashMap<IpNet, Vec<FoundRoute>>);

impl RouteTable {
    pub(super) fn of(found: Vec<FoundRoute>) -> Self {
        let mut table: HashMap<IpNet, Vec<FoundRoute>> = HashMap::with_capacity(found.len());
        for one in found {
            table.entry(one.route.dst).or_default().push(one);
        }
        Self(table)
    }

    /// Whether the route that was asked for is there, on the interface `index`.
    pub(super) fn has(&self, asked: &Route, index: u32) -> bool {
        let there = self.0.get(&asked.dst.trunc());
        there.is_some_and(|there| there.iter().any(|there| there.index == index && is_as_asked(asked, &there.route)))
    }
}

fn is_as_asked(asked: &Route, found: &Route) -> bool {
    let same = |asked: Option<u32>, found: Option<u32>| asked.is_none_or(|asked| found == Some(asked));
    let v4 = asked.dst.addr().is_ipv4();
    // Who asks for 0 in IPv6 gets what that family gives to everybody.
    let priority = asked.priority.map(|asked| if asked == 0 && !v4 { 1024 } else { asked });
    found.gw == asked.gw
        // A route of no table in particular may have been moved since: the reference plugin `sbr` does that.
        && same(asked.table, found.table)
        && same(priority, found.priority.or(Some(0)))
        && same(asked.mtu, found.mtu)
        && same(asked.advmss, found.advmss)
        && (!v4 || asked.scope.is_none_or(|asked| found.scope == Some(asked)))
}

/// A route in words.
pub(super) fn words(route: &Route) -> String {
    let mut text = format!("route to {}", route.dst.trunc());
    if let Some(gw) = route.gw {
        text += &format!(" by {gw}");
    }
    if let Some(table) = route.table.filter(|table| *table != MAIN_TABLE) {
        text += &format!(" in table {table}");
    }
    text
}
