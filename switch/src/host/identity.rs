//! What an interface is to its host: what another interface has to have to take its place.
//!
//! [`Identity::read`] notes it, [`Identity::put_on`] gives it to another interface, [`take_off`] takes it from the first. In
//! between both have it, so nothing that passes finds neither: a route to the same place is appended to the first one's and
//! stands alone once that is deleted. Each can be done again after it was interrupted.
//!
//! Belongs to it: hardware address, MTU, group, queue length and alias; the bridge that it is a port of, with the port's flags and
//! VLANs; addresses, routes of all tables but the kernel's own, permanent and proxied neighbours; the settings below
//! `/proc/sys/net`. Messages of the kernel are kept as they are and sent back with another index, so that what is not known
//! here (metrics of a route, lifetimes of an address) is kept too.
//!
//! # Limits
//! Names are another matter, as two interfaces cannot have the same. Queueing disciplines, static entries of a bridge's
//! forwarding table, routes by next-hop objects, and rules of packet filters that name the index stay behind.

use super::netlink::{Netlink, NetlinkError, Result};
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecBridge, BridgeVlanInfo, BridgeVlanInfoFlags, InfoBridgePort, InfoPortData, InfoPortKind, LinkAttribute,
    LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// The routing table of the host's own addresses, which the kernel keeps.
const LOCAL_TABLE: u8 = 255;
/// The mode in which the kernel makes no link-local address.
const NO_LINK_LOCAL: &str = "1";
/// The setting that says so; only kernels with IPv6 have it.
const GEN_MODE: &str = "ipv6/addr_gen_mode";
/// Settings that follow from others, or from what the interface does.
const DERIVED: [&str; 3] = ["ipv6/stable_secret", "ipv4/mc_forwarding", "ipv6/mc_forwarding"];

/// What an interface is to its host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity {
    link: BareLink,
    group: Option<u32>,
    queue_len: Option<u32>,
    port: Vec<InfoBridgePort>,
    vlans: Vec<BridgeVlanInfo>,
    addresses: Vec<AddressMessage>,
    routes: Vec<RouteMessage>,
    neighbours: Vec<NeighbourMessage>,
    /// Values by family and name, as `ipv4/rp_filter`.
    settings: BTreeMap<String, String>,
}

/// An interface, as far as taking its place needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BareLink {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Empty if nothing is written on it.
    pub(crate) alias: String,
    pub(crate) mac: Vec<u8>,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    /// What it is a port of.
    pub(crate) controller: Option<u32>,
    /// The other end of a veth pair, as an index in its namespace.
    pub(crate) peer: Option<u32>,
}

impl BareLink {
    fn of(message: &LinkMessage) -> Self {
        let up = message.header.flags.contains(LinkFlags::Up);
        let mut link = Self { index: message.header.index, up, ..Self::default() };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::IfAlias(alias) => link.alias.clone_from(alias),
                LinkAttribute::Address(mac) => link.mac.clone_from(mac),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Controller(index) => link.controller = Some(*index).filter(|index| *index != 0),
                LinkAttribute::Link(index) => link.peer = Some(*index),
                _ => {}
            }
        }
        link
    }
}

impl Netlink {
    /// Every interface of the namespace.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn bare_links(&mut self) -> Result<Vec<BareLink>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let answers = self.dump(RouteNetlinkMessage::GetLink(message), || "list interfaces".to_owned())?;
        let link = |answer: &RouteNetlinkMessage| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(BareLink::of(link)),
            _ => None,
        };
        Ok(answers.iter().filter_map(link).collect())
    }

    /// Gives an interface another name. Kernels before 6.2 rename only interfaces that are down: it is set down for that
    /// moment, and loses routes and IPv6 addresses then.
    ///
    /// # Errors
    /// As the kernel says; `EEXIST` when the name is taken.
    pub(crate) fn rename(&mut self, index: u32, name: &str) -> Result<()> {
        match self.set_name(index, name) {
            Err(error) if error.source.raw_os_error() == Some(libc::EBUSY) => {
                self.set_flag(index, false)?;
                let renamed = self.set_name(index, name);
                self.set_flag(index, true)?;
                renamed
            }
            other => other,
        }
    }

    fn set_name(&mut self, index: u32, name: &str) -> Result<()> {
        let attributes = vec![LinkAttribute::IfName(name.to_owned())];
        self.change(index, attributes, || format!("rename interface {index} to {name}"))
    }

    /// Sets an interface up or down.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn set_flag(&mut self, index: u32, up: bool) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        let what = || format!("set interface {index} {}", if up { "up" } else { "down" });
        self.request(RouteNetlinkMessage::SetLink(message), 0, what)
    }

    fn change(&mut self, index: u32, attributes: Vec<LinkAttribute>, what: impl Fn() -> String) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes = attributes;
        self.request(RouteNetlinkMessage::SetLink(message), 0, what)
    }

    /// The interface as the kernel tells it.
    fn whole(&mut self, index: u32) -> Result<LinkMessage> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let what = || format!("tell about interface {index}");
        match self.ask(RouteNetlinkMessage::GetLink(message), 0, what)? {
            Some(RouteNetlinkMessage::NewLink(link)) => Ok(link),
            _ => Err(NetlinkError::new(&what(), std::io::Error::from_raw_os_error(libc::ENODEV))),
        }
    }

    /// The VLANs of a bridge's port.
    fn vlans_of(&mut self, index: u32) -> Result<Vec<BridgeVlanInfo>> {
        let mut message = LinkMessage::default();
        message.header.interface_family = AddressFamily::Bridge;
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::Brvlan]));
        let answers = match self.dump(RouteNetlinkMessage::GetLink(message), || "list VLANs of bridges".to_owned()) {
            // A kernel whose bridges know no VLANs.
            Err(error) if error.source.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Vec::new()),
            answers => answers?,
        };
        let of_port = answers.iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) if link.header.index == index => Some(link),
            _ => None,
        });
        let specs = of_port.flat_map(|link| &link.attributes).filter_map(|attribute| match attribute {
            LinkAttribute::AfSpecBridge(specs) => Some(specs),
            _ => None,
        });
        let vlans = specs.flatten().filter_map(|spec| match spec {
            AfSpecBridge::VlanInfo(vlan) => Some(*vlan),
            _ => None,
        });
        Ok(vlans.collect())
    }

    fn change_vlan(&mut self, index: u32, vlan: &BridgeVlanInfo, add: bool) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.interface_family = AddressFamily::Bridge;
        message.header.index = index;
        message.attributes.push(LinkAttribute::AfSpecBridge(vec![AfSpecBridge::VlanInfo(*vlan)]));
        let what = || format!("change VLAN {} of interface {index}", vlan.vid);
        match add {
            true => self.request(RouteNetlinkMessage::SetLink(message), 0, what),
            false => self.request(RouteNetlinkMessage::DelLink(message), 0, what),
        }
    }

    fn addresses_of(&mut self, index: u32) -> Result<Vec<AddressMessage>> {
        let all = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.dump(all, || "list addresses".to_owned())?;
        let own = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(message) if message.header.index == index => Some(message),
            _ => None,
        });
        Ok(own.collect())
    }

    /// Routes by the interface that somebody added.
    fn routes_of(&mut self, index: u32) -> Result<Vec<RouteMessage>> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let answers = self.dump(RouteNetlinkMessage::GetRoute(message), || "list routes".to_owned())?;
            routes.extend(answers.into_iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(message) if is_added(&message) && leads_by(&message, index) => {
                    Some(message)
                }
                _ => None,
            }));
        }
        // What others need to be reached is there first.
        routes.sort_by_key(|route| route.attributes.iter().any(|a| matches!(a, RouteAttribute::Gateway(_))));
        Ok(routes)
    }

    /// Neighbours that somebody wrote down.
    fn neighbours_of(&mut self, index: u32) -> Result<Vec<NeighbourMessage>> {
        let mut found = Vec::new();
        for flags in [NeighbourFlags::empty(), NeighbourFlags::Proxy] {
            let mut message = NeighbourMessage::default();
            message.header.flags = flags;
            let answers = self.dump(RouteNetlinkMessage::GetNeighbour(message), || "list neighbours".to_owned())?;
            found.extend(answers.into_iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewNeighbour(message) if message.header.ifindex == index => Some(message),
                _ => None,
            }));
        }
        found.retain(|message| {
            let of_hosts = matches!(message.header.family, AddressFamily::Inet | AddressFamily::Inet6);
            let kept = message.header.state == NeighbourState::Permanent
                || message.header.flags.contains(NeighbourFlags::Proxy);
            // Those of groups are the kernel's own.
            of_hosts && kept && message.header.kind != RouteType::Multicast
        });
        Ok(found)
    }
}

impl Identity {
    /// What the interface is now.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn read(netlink: &mut Netlink, index: u32) -> Result<Self> {
        let whole = netlink.whole(index)?;
        let mut own = Self { link: BareLink::of(&whole), ..Self::default() };
        for attribute in &whole.attributes {
            match attribute {
                LinkAttribute::Group(group) => own.group = Some(*group),
                LinkAttribute::TxQueueLen(len) => own.queue_len = Some(*len),
                LinkAttribute::LinkInfo(infos) => own.port.extend(infos.iter().flat_map(port_flags).cloned()),
                _ => {}
            }
        }
        if own.link.controller.is_some() {
            own.vlans = netlink.vlans_of(index)?;
        }
        own.addresses = netlink.addresses_of(index)?;
        own.routes = netlink.routes_of(index)?;
        own.neighbours = netlink.neighbours_of(index)?;
        own.settings = settings(&own.link.name);
        Ok(own)
    }

    /// Gives all of it, but for the name, to another interface. `name` is the name that the interface is to have in the end:
    /// labels of addresses are made of it.
    ///
    /// # Errors
    /// As the kernel says; some of it may have been given then.
    pub(crate) fn put_on(&self, netlink: &mut Netlink, index: u32, name: &str) -> Result<()> {
        let there = Self::read(netlink, index)?;
        // Addresses are added as they are: the kernel makes none meanwhile.
        set(&there.link.name, GEN_MODE, NO_LINK_LOCAL)?;
        for (setting, value) in &self.settings {
            if setting != GEN_MODE && there.settings.get(setting) != Some(value) {
                set(&there.link.name, setting, value)?;
            }
        }
        let mut change = Vec::new();
        change.extend((self.link.mac != there.link.mac).then(|| LinkAttribute::Address(self.link.mac.clone())));
        change.extend((self.link.mtu != there.link.mtu).then_some(LinkAttribute::Mtu(self.link.mtu)));
        change.extend(self.group.filter(|_| self.group != there.group).map(LinkAttribute::Group));
        change.extend(self.queue_len.filter(|_| self.queue_len != there.queue_len).map(LinkAttribute::TxQueueLen));
        if self.link.controller != there.link.controller {
            change.push(LinkAttribute::Controller(self.link.controller.unwrap_or_default()));
        }
        netlink.change(index, change, || format!("make interface {index} what another was"))?;
        self.put_port(netlink, index)?;
        if self.link.up {
            netlink.set_flag(index, true)?;
        }
        for address in &self.addresses {
            let message = address_for(address, index, &self.link.name, name);
            let what = || format!("give an address to interface {index}");
            netlink.request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE, what)?;
        }
        for route in &self.routes {
            let message = RouteNetlinkMessage::NewRoute(route_for(route, self.link.index, index));
            let what = || format!("give a route to interface {index}");
            unless(libc::EEXIST, netlink.request(message, NLM_F_CREATE | NLM_F_APPEND, what))?;
        }
        for neighbour in &self.neighbours {
            let message = RouteNetlinkMessage::NewNeighbour(neighbour_for(neighbour, index));
            let what = || format!("give a neighbour to interface {index}");
            netlink.request(message, NLM_F_CREATE | NLM_F_REPLACE, what)?;
        }
        self.settings.get(GEN_MODE).map_or(Ok(()), |mode| set(&there.link.name, GEN_MODE, mode))
    }

    /// Flags and VLANs of a bridge's port.
    fn put_port(&self, netlink: &mut Netlink, index: u32) -> Result<()> {
        if self.link.controller.is_none() {
            return Ok(());
        }
        let there = Self::read(netlink, index)?;
        let flags: Vec<_> = self.port.iter().filter(|flag| !there.port.contains(flag)).cloned().collect();
        if !flags.is_empty() {
            let mut message = LinkMessage::default();
            message.header.index = index;
            message.attributes.push(LinkAttribute::LinkInfo(vec![
                LinkInfo::PortKind(InfoPortKind::Bridge),
                LinkInfo::PortData(InfoPortData::BridgePort(flags)),
            ]));
            let what = || format!("set the flags of interface {index} as a bridge's port");
            netlink.request(RouteNetlinkMessage::NewLink(message), 0, what)?;
        }
        for vlan in &there.vlans {
            if !self.vlans.contains(vlan) {
                netlink.change_vlan(index, &BridgeVlanInfo { flags: BridgeVlanInfoFlags::empty(), ..*vlan }, false)?;
            }
        }
        for vlan in &self.vlans {
            if !there.vlans.contains(vlan) {
                netlink.change_vlan(index, vlan, true)?;
            }
        }
        Ok(())
    }
}

/// Takes from an interface what another one has from it by now: addresses, routes, and its place in a bridge.
///
/// # Errors
/// As the kernel says; some of it may have been taken then.
pub(crate) fn take_off(netlink: &mut Netlink, index: u32) -> Result<()> {
    for route in netlink.routes_of(index)? {
        let is_shared = route.attributes.iter().any(|a| matches!(a, RouteAttribute::MultiPath(_)));
        if !is_shared {
            let message = RouteNetlinkMessage::DelRoute(route_for(&route, index, index));
            unless(libc::ESRCH, netlink.request(message, 0, || format!("take a route from interface {index}")))?;
        }
    }
    for address in netlink.addresses_of(index)? {
        let message = RouteNetlinkMessage::DelAddress(address);
        let what = || format!("take an address from interface {index}");
        unless(libc::EADDRNOTAVAIL, netlink.request(message, 0, what))?;
    }
    if netlink.whole(index).map(|link| BareLink::of(&link))?.controller.is_some() {
        let none = vec![LinkAttribute::Controller(0)];
        netlink.change(index, none, || format!("take interface {index} out of its bridge"))?;
    }
    Ok(())
}

/// What was done already is done.
fn unless(done: i32, result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.source.raw_os_error() == Some(done) => Ok(()),
        other => other,
    }
}

/// The flags of a bridge's port that can be set.
fn port_flags(info: &LinkInfo) -> impl Iterator<Item = &InfoBridgePort> {
    let flags = match info {
        LinkInfo::PortData(InfoPortData::BridgePort(flags)) => flags.as_slice(),
        _ => &[],
    };
    flags.iter().filter(|flag| {
        matches!(
            flag,
            InfoBridgePort::Priority(_)
                | InfoBridgePort::Cost(_)
                | InfoBridgePort::HairpinMode(_)
                | InfoBridgePort::Guard(_)
                | InfoBridgePort::Protect(_)
                | InfoBridgePort::FastLeave(_)
                | InfoBridgePort::Learning(_)
                | InfoBridgePort::UnicastFlood(_)
                | InfoBridgePort::ProxyARP(_)
                | InfoBridgePort::ProxyARPWifi(_)
                | InfoBridgePort::MulticastFlood(_)
                | InfoBridgePort::MulticastToUnicast(_)
                | InfoBridgePort::VlanTunnel(_)
                | InfoBridgePort::BroadcastFlood(_)
                | InfoBridgePort::GroupFwdMask(_)
                | InfoBridgePort::NeighSupress(_)
                | InfoBridgePort::Isolated(_)
                | InfoBridgePort::Locked(_)
                | InfoBridgePort::NeighVlanSuppress(_)
        )
    })
}

/// Whether somebody added the route: connected ones come with addresses by themselves.
fn is_added(route: &RouteMessage) -> bool {
    let header = &route.header;
    header.kind == RouteType::Unicast
        && header.protocol != RouteProtocol::Kernel
        && header.table != LOCAL_TABLE
        && !header.flags.contains(RouteFlags::Cloned)
        && !route.attributes.iter().any(|attribute| matches!(attribute, RouteAttribute::NhId(_)))
}

fn leads_by(route: &RouteMessage, index: u32) -> bool {
    route.attributes.iter().any(|attribute| match attribute {
        RouteAttribute::Oif(oif) => *oif == index,
        RouteAttribute::MultiPath(hops) => hops.iter().any(|hop| hop.interface_index == index),
        _ => false,
    })
}

fn address_for(address: &AddressMessage, index: u32, from: &str, to: &str) -> AddressMessage {
    let mut message = address.clone();
    let v6 = message.header.family == AddressFamily::Inet6;
    let lasting = AddressFlags::Noprefixroute | AddressFlags::Mcautojoin | AddressFlags::Managetempaddr;
    message.header.index = index;
    message.header.flags = if v6 { AddressHeaderFlags::Nodad } else { AddressHeaderFlags::empty() };
    message.attributes.retain_mut(|attribute| match attribute {
        AddressAttribute::Flags(flags) => {
            *flags &= lasting;
            *flags |= if v6 { AddressFlags::Nodad } else { AddressFlags::empty() };
            true
        }
        AddressAttribute::Label(label) => {
            if let Some(rest) = label.strip_prefix(from) {
                *label = format!("{to}{rest}");
            }
            true
        }
        AddressAttribute::Address(_)
        | AddressAttribute::Local(_)
        | AddressAttribute::Broadcast(_)
        | AddressAttribute::CacheInfo(_)
        | AddressAttribute::RoutePriority(_)
        | AddressAttribute::Protocol(_) => true,
        _ => false,
    });
    message
}

fn route_for(route: &RouteMessage, from: u32, to: u32) -> RouteMessage {
    let mut message = route.clone();
    message.header.flags &= RouteFlags::Onlink;
    message.attributes.retain_mut(|attribute| {
        match attribute {
            RouteAttribute::Oif(oif) if *oif == from => *oif = to,
            RouteAttribute::MultiPath(hops) => {
                hops.iter_mut().filter(|hop| hop.interface_index == from).for_each(|hop| hop.interface_index = to);
            }
            _ => {}
        }
        // What the kernel only tells.
        !matches!(attribute, RouteAttribute::CacheInfo(_) | RouteAttribute::Uid(_) | RouteAttribute::MfcStats(_))
    });
    message
}

fn neighbour_for(neighbour: &NeighbourMessage, index: u32) -> NeighbourMessage {
    let mut message = neighbour.clone();
    message.header.ifindex = index;
    message.attributes.retain(|attribute| {
        matches!(
            attribute,
            NeighbourAttribute::Destination(_)
                | NeighbourAttribute::LinkLayerAddress(_)
                | NeighbourAttribute::Protocol(_)
        )
    });
    message
}

/// Where the settings of an interface are, by family.
fn folder(family: &str, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/sys/net/{family}/conf/{name}"))
}

/// The settings of an interface that can be read; `ipv6` has none in a kernel without it.
fn settings(name: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for family in ["ipv4", "ipv6"] {
        for entry in fs::read_dir(folder(family, name)).into_iter().flatten().flatten() {
            let setting = format!("{family}/{}", entry.file_name().to_string_lossy());
            if DERIVED.contains(&setting.as_str()) {
                continue;
            }
            if let Ok(value) = fs::read_to_string(entry.path()) {
                found.insert(setting, value.trim().to_owned());
            }
        }
    }
    found
}

/// Sets one of them.
fn set(name: &str, setting: &str, value: &str) -> Result<()> {
    let Some((family, last)) = setting.split_once('/') else { return Ok(()) };
    let path = folder(family, name).join(last);
    match fs::write(&path, value) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(NetlinkError::new(&format!("set {} to {value}", path.display()), error)),
        Ok(()) => Ok(()),
    }
}
