//! What is there: interfaces, ours among them, and default routes.

use super::error::{LinkError, ON_HOST, inside};
use super::netlink::Netlink;
use super::netns::{Netns, apart};
use super::routes::{FoundRoute, family, read_route};
use super::{Interface, LinkKind};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::RouteMessage;
use std::path::Path;

/// An interface of the host that is an attachment's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OurLink {
    /// Its name.
    pub name: String,
    /// What is written on it.
    pub alias: String,
}

/// An interface as the kernel describes it.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) index: u32,
    pub(super) interface: Interface,
    pub(super) alias: Option<String>,
    pub(super) kind: Option<LinkKind>,
    pub(super) up: bool,
    /// Whether frames pass it.
    pub(super) running: bool,
    /// A veth's other end, as an index in that end's namespace.
    pub(super) peer: Option<u32>,
}

fn read_link(message: &LinkMessage) -> Found {
    let is = |flag| message.header.flags.contains(flag);
    let (up, running) = (is(LinkFlags::Up), is(LinkFlags::Running));
    let mut found = Found { index: message.header.index, up, running, ..Found::default() };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.interface.name.clone_from(name),
            LinkAttribute::Address(mac) => found.interface.mac = mac.as_slice().try_into().unwrap_or_default(),
            LinkAttribute::Mtu(mtu) => found.interface.mtu = *mtu,
            LinkAttribute::IfAlias(alias) => found.alias = Some(alias.clone()).filter(|alias| !alias.is_empty()),
            LinkAttribute::Link(peer) => found.peer = Some(*peer),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(InfoKind::Veth) => found.kind = Some(LinkKind::Veth),
                        LinkInfo::Kind(InfoKind::Tun) => found.kind = Some(LinkKind::Tap),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    found
}

fn without_counters() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}

/// The interface `name` of the socket's namespace.
pub(super) fn find(netlink: &mut Netlink, name: &str) -> Result<Option<Found>, LinkError> {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(name.to_owned()), without_counters()];
    let answer = netlink.get(RouteNetlinkMessage::GetLink(message), format!("look for the interface {name}"))?;
    Ok(match answer {
        Some(RouteNetlinkMessage::NewLink(link)) => Some(read_link(&link)),
        _ => None,
    })
}

/// The routes of a family, or of both, in the socket's namespace.
pub(super) fn routes(netlink: &mut Netlink, v4: Option<bool>) -> Result<Vec<FoundRoute>, LinkError> {
    let mut found = Vec::new();
    for this in [true, false] {
        if v4.is_some_and(|wanted| wanted != this) {
            continue;
        }
        let mut message = RouteMessage::default();
        message.header.address_family = family(this);
        netlink.dump(&RouteNetlinkMessage::GetRoute(message), "list the routes", |answer| {
            if let RouteNetlinkMessage::NewRoute(route) = answer {
                found.extend(read_route(&route));
            }
        })?;
    }
    Ok(found)
}

/// The veth interfaces of the host whose alias begins with `alias_prefix`, sorted by name. TAPs are not on the host: they
/// go with their container's namespace.
///
/// # Errors
/// The kernel gives no list.
pub fn ours(alias_prefix: &str) -> Result<Vec<OurLink>, LinkError> {
    let mut message = LinkMessage::default();
    message.attributes = vec![without_counters(), LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)])];
    let mut found = Vec::new();
    let all = RouteNetlinkMessage::GetLink(message);
    Netlink::open(ON_HOST)?.dump(&all, "list the interfaces", |answer| {
        let RouteNetlinkMessage::NewLink(link) = answer else { return };
        let link = read_link(&link);
        if let Some(alias) = link.alias.filter(|alias| alias.starts_with(alias_prefix)) {
            found.push(OurLink { name: link.interface.name, alias });
        }
    })?;
    found.sort();
    found.dedup();
    Ok(found)
}

/// The interface `ifname` of a container.
///
/// # Errors
/// The namespace is none, or gone; the kernel says nothing.
pub fn interface(netns: &Path, ifname: &str) -> Result<Option<Interface>, LinkError> {
    let netns = Netns::open(netns)?;
    apart(|| {
        netns.enter()?;
        Ok(find(&mut Netlink::open(inside(netns.path()))?, ifname)?.map(|found| found.interface))
    })
}

/// Whether a container has a default route of IPv4 (`v4`) or IPv6 in its main table.
///
/// # Errors
/// The namespace is none, or gone; the kernel gives no list.
pub fn has_default_route(netns: &Path, v4: bool) -> Result<bool, LinkError> {
    let netns = Netns::open(netns)?;
    apart(|| {
        netns.enter()?;
        let all = routes(&mut Netlink::open(inside(netns.path()))?, Some(v4))?;
        Ok(all.iter().any(|found| found.route.dst.prefix_len() == 0 && found.route.table == Some(254)))
    })
}
