//! Makes a container's interface.

use super::error::{LinkError, ON_HOST, inside};
use super::look::{Found, find};
use super::netlink::{Netlink, Request};
use super::netns::{Netns, apart};
use super::routes::{address_message, in_order, read_address, route_message, words};
use super::{Interface, LinkKind, LinkPlan, Made, sys, sysctl};
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::sys::socket::{AddressFamily as SocketFamily, SockFlag, SockType, socket};
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// The loopback interface's index, in every namespace.
const LOOPBACK: u32 = 1;
/// How long duplicate address detection is waited for.
const SETTLED: Duration = Duration::from_secs(10);
/// How long the link is waited for.
const CARRIER: Duration = Duration::from_millis(2500);
/// How often the link is looked at.
const CARRIER_LOOK: Duration = Duration::from_millis(2);
/// How often duplicate address detection is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Makes the container's interface and sets it up as planned.
///
/// # Errors
/// Everything that was made is undone. [`LinkError::Exists`] and [`LinkError::HostExists`] when a name is taken,
/// [`LinkError::NetnsGone`], [`LinkError::NotNetns`] and [`LinkError::HostNetns`] when there is no namespace for it, and
/// what the kernel refuses.
pub fn create(plan: &LinkPlan) -> Result<Made, LinkError> {
    check_name(&plan.ifname)?;
    let netns = Netns::open_foreign(&plan.netns)?;
    match plan.kind {
        LinkKind::Veth => {
            check_name(&plan.host_name)?;
            apart(|| create_veth(plan, &netns))
        }
        LinkKind::Tap if !plan.tx_checksum => Err(LinkError::TapChecksum { ifname: plan.ifname.clone() }),
        LinkKind::Tap => apart(|| create_tap(plan, &netns)),
    }
}

/// As the kernel has it (`dev_valid_name`).
pub(super) fn check_name(name: &str) -> Result<(), LinkError> {
    let bad = name.is_empty()
        || name.len() > 15
        || name == "."
        || name == ".."
        || name.contains(['/', ':', '\0'])
        || name.contains(char::is_whitespace);
    if bad { Err(LinkError::Name { name: name.to_owned() }) } else { Ok(()) }
}

fn create_veth(plan: &LinkPlan, netns: &Netns) -> Result<Made, LinkError> {
    let mut host = Netlink::open(ON_HOST)?;
    // Before the batch, whose second request would otherwise write our alias on somebody else's interface.
    if let Some(found) = find(&mut host, &plan.host_name)? {
        return Err(LinkError::HostExists { name: plan.host_name.clone(), alias: found.alias });
    }
    host.batch(vec![veth_request(plan, netns), mark_request(plan)]).map_err(|error| {
        if error.os() == Some(libc::EEXIST) {
            // Made by nobody here: if the host's name has been taken just now, it is not ours to delete.
            return LinkError::Exists { netns: plan.netns.clone(), ifname: plan.ifname.clone() };
        }
        undo(&mut host, &plan.host_name);
        error
    })?;
    let mut finish = || {
        let end = find(&mut host, &plan.host_name)?.ok_or_else(|| vanished(&plan.host_name, ON_HOST))?;
        netns.enter()?;
        let mut container = Netlink::open(inside(&plan.netns))?;
        let made = set_up(plan, &mut container)?;
        Ok(Made { host: Some(end.interface), container: made })
    };
    finish().inspect_err(|_| undo(&mut host, &plan.host_name))
}

/// Deletes what was made; the first error is the one to tell.
fn undo(host: &mut Netlink, name: &str) {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    _ = host.one(RouteNetlinkMessage::DelLink(message), 0, String::new());
}

/// Both ends under their final names, with their MTU, the container's end with its hardware address.
fn veth_request(plan: &LinkPlan, netns: &Netns) -> Request {
    let mut there = LinkMessage::default();
    there.attributes = vec![
        LinkAttribute::IfName(plan.ifname.clone()),
        LinkAttribute::Address(plan.mac.to_vec()),
        LinkAttribute::Mtu(plan.mtu),
        LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd()),
    ];
    let mut here = LinkMessage::default();
    here.attributes = vec![
        LinkAttribute::IfName(plan.host_name.clone()),
        LinkAttribute::Mtu(plan.mtu),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(there))),
        ]),
    ];
    let what = format!("make the veth pair {} - {} (MTU {})", plan.host_name, plan.ifname, plan.mtu);
    Request::new(RouteNetlinkMessage::NewLink(here), NLM_F_CREATE | NLM_F_EXCL, what)
}

/// The alias as the kernel counts it: 255 bytes, without the zero byte that the crate's own attribute ends with.
fn alias(plan: &LinkPlan) -> LinkAttribute {
    LinkAttribute::Other(DefaultNla::new(libc::IFLA_IFALIAS, plan.alias.clone().into_bytes()))
}

/// The alias, and no IPv6 link-local address, of the host's end.
fn mark_request(plan: &LinkPlan) -> Request {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(plan.host_name.clone()), alias(plan)];
    if Path::new("/proc/sys/net/ipv6").exists() {
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        message.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]));
    }
    let what = format!("write the alias on {}", plan.host_name);
    Request::new(RouteNetlinkMessage::SetLink(message), 0, what)
}

fn create_tap(plan: &LinkPlan, netns: &Netns) -> Result<Made, LinkError> {
    netns.enter()?;
    // From inside, because a TAP is made in the namespace in which the file was opened.
    let tun =
        File::options().read(true).write(true).open("/dev/net/tun").map_err(|source| LinkError::NoTun { source })?;
    let mut container = Netlink::open(inside(&plan.netns))?;
    let exists = || LinkError::Exists { netns: plan.netns.clone(), ifname: plan.ifname.clone() };
    if find(&mut container, &plan.ifname)?.is_some() {
        return Err(exists());
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
    let failed = |what: &str, source: io::Error| {
        LinkError::kernel(format!("{what} the TAP {}", plan.ifname), inside(&plan.netns), source)
    };
    sys::make_tap(&tun, &plan.ifname, flags).map_err(|source| match source.raw_os_error() {
        Some(libc::EBUSY) => exists(),
        _ => failed("make", source),
    })?;
    // Until the last request the TAP goes with `tun`, so there is nothing to undo.
    let made = set_up(plan, &mut container)?;
    sys::persist(&tun).map_err(|source| failed("keep", source))?;
    Ok(Made { host: None, container: made })
}

/// Sets up the interface that is in the calling thread's namespace.
fn set_up(plan: &LinkPlan, netlink: &mut Netlink) -> Result<Interface, LinkError> {
    let found = find(netlink, &plan.ifname)?.ok_or_else(|| vanished(&plan.ifname, &inside(&plan.netns)))?;
    set_sysctls(plan)?;
    if !plan.tx_checksum {
        let set = any_socket().and_then(|socket| sys::set_tx_checksum(socket.as_fd(), &plan.ifname, false));
        let what = format!("turn off transmit checksum offload of {}", plan.ifname);
        set.map_err(|source| LinkError::kernel(what, inside(&plan.netns), source))?;
    }
    netlink.batch(requests(plan, &found))?;
    Ok(Interface { name: plan.ifname.clone(), mac: plan.mac, mtu: plan.mtu })
}

/// What the kernel does by default for a new interface may be off in the namespace, or slow.
fn set_sysctls(plan: &LinkPlan) -> Result<(), LinkError> {
    let set = |key: &str, value: &str| sysctl::set(key, value, &plan.ifname, &plan.netns);
    if plan.addresses.iter().any(|net| net.addr().is_ipv6()) {
        set("net/ipv6/conf/IFNAME/disable_ipv6", "0")?;
    }
    if !plan.dad && Path::new("/proc/sys/net/ipv6").exists() {
        set("net/ipv6/conf/IFNAME/accept_dad", "0")?;
    }
    plan.sysctls.iter().try_for_each(|(key, value)| set(key, value))
}

/// Everything that netlink does in the container, in order.
fn requests(plan: &LinkPlan, found: &Found) -> Vec<Request> {
    let mut requests = Vec::with_capacity(3 + plan.addresses.len() + plan.routes.len());
    requests.push(up_request(LOOPBACK, "set lo up"));
    let mut message = LinkMessage::default();
    message.header.index = found.index;
    message.attributes.push(alias(plan));
    if found.interface.mac != plan.mac {
        message.attributes.push(LinkAttribute::Address(plan.mac.to_vec()));
    }
    if found.interface.mtu != plan.mtu {
        message.attributes.push(LinkAttribute::Mtu(plan.mtu));
    }
    let what = format!("set hardware address, MTU {} and alias of {}", plan.mtu, plan.ifname);
    requests.push(Request::new(RouteNetlinkMessage::SetLink(message), 0, what));
    for address in &plan.addresses {
        let message = RouteNetlinkMessage::NewAddress(address_message(found.index, *address, plan.dad));
        let what = format!("give {} the address {address}", plan.ifname);
        requests.push(Request::new(message, NLM_F_CREATE | NLM_F_EXCL, what));
    }
    if plan.up {
        requests.push(up_request(found.index, format!("set {} up", plan.ifname)));
        for route in in_order(&plan.routes) {
            let message = RouteNetlinkMessage::NewRoute(route_message(found.index, route, &plan.addresses));
            requests.push(Request::new(
                message,
                NLM_F_CREATE | NLM_F_EXCL,
                format!("add the {} on {}", words(route), plan.ifname),
            ));
        }
    }
    requests
}

fn up_request(index: u32, what: impl Into<String>) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    Request::new(RouteNetlinkMessage::SetLink(message), 0, what)
}

/// Waits until frames pass the interface, which the kernel lets them up to a second after both ends are up (2.5 s at most,
/// and then it is left to the kernel), and until duplicate address detection is done with the planned addresses (10 s at
/// most). Call it when the switch has attached the port; at once, it would wait for a link that nobody has set up.
///
/// # Errors
/// [`LinkError::Duplicate`], [`LinkError::Unsettled`], and the namespace's and the kernel's own.
pub fn settle(plan: &LinkPlan) -> Result<(), LinkError> {
    let v6: Vec<IpAddr> = plan.addresses.iter().map(|net| net.addr()).filter(IpAddr::is_ipv6).collect();
    if !plan.up {
        return Ok(());
    }
    let netns = Netns::open(&plan.netns)?;
    apart(|| {
        netns.enter()?;
        let mut netlink = Netlink::open(inside(&plan.netns))?;
        wait_for_carrier(&mut netlink, &plan.ifname)?;
        if !plan.dad || v6.is_empty() {
            return Ok(());
        }
        let end = Instant::now() + SETTLED;
        loop {
            let mut waiting = false;
            for (address, flags) in v6_addresses(&mut netlink)? {
                if !v6.contains(&address) {
                    continue;
                }
                if flags.contains(AddressFlags::Dadfailed) {
                    return Err(LinkError::Duplicate {
                        address,
                        ifname: plan.ifname.clone(),
                        netns: plan.netns.clone(),
                    });
                }
                waiting |= flags.contains(AddressFlags::Tentative);
            }
            if !waiting {
                return Ok(());
            }
            if Instant::now() >= end {
                let seconds = SETTLED.as_secs();
                return Err(LinkError::Unsettled { ifname: plan.ifname.clone(), netns: plan.netns.clone(), seconds });
            }
            thread::sleep(LOOK);
        }
    })
}

fn wait_for_carrier(netlink: &mut Netlink, ifname: &str) -> Result<(), LinkError> {
    let end = Instant::now() + CARRIER;
    while find(netlink, ifname)?.is_some_and(|found| !found.running) && Instant::now() < end {
        thread::sleep(CARRIER_LOOK);
    }
    Ok(())
}

fn v6_addresses(netlink: &mut Netlink) -> Result<Vec<(IpAddr, AddressFlags)>, LinkError> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet6;
    let mut found = Vec::new();
    netlink.dump(&RouteNetlinkMessage::GetAddress(message), "list the addresses", |answer| {
        if let RouteNetlinkMessage::NewAddress(address) = answer {
            found.extend(read_address(&address).map(|found| (found.address.addr(), found.flags)));
        }
    })?;
    Ok(found)
}

/// A socket for requests about interfaces of the calling thread's namespace.
pub(super) fn any_socket() -> io::Result<std::os::fd::OwnedFd> {
    Ok(socket(SocketFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?)
}

fn vanished(name: &str, place: &str) -> LinkError {
    LinkError::kernel(format!("find {name}, which was just made,"), place, io::Error::from_raw_os_error(libc::ENODEV))
}
