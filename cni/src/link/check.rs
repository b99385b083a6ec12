//! Compares a container's interface with its plan. Mends nothing.

use super::error::{LinkError, ON_HOST, inside};
use super::look::{Found, find, routes};
use super::make::any_socket;
use super::netlink::Netlink;
use super::netns::{Netns, apart};
use super::routes::{FoundAddress, RouteTable, read_address, words};
use super::{LinkKind, LinkPlan, sys, sysctl};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressFlags, AddressMessage};
use std::os::fd::AsFd;

/// What of the container's interface is not as planned, in words: what, where, and what it should be. Empty if all is.
///
/// # Errors
/// The kernel does not tell. A namespace that is gone is a difference, and no error.
pub fn check(plan: &LinkPlan) -> Result<Vec<String>, LinkError> {
    let netns = match Netns::open(&plan.netns) {
        Ok(netns) => netns,
        Err(error) if error.is_gone() => return Ok(vec![error.to_string()]),
        Err(error) => return Err(error),
    };
    apart(|| {
        let mut problems = Vec::new();
        let host =
            if plan.kind == LinkKind::Veth { find(&mut Netlink::open(ON_HOST)?, &plan.host_name)? } else { None };
        netns.enter()?;
        let mut netlink = Netlink::open(inside(&plan.netns))?;
        match find(&mut netlink, &plan.ifname)? {
            None => problems.push(format!("there is no interface {} {}", plan.ifname, inside(&plan.netns))),
            Some(found) => {
                check_link(plan, &found, &mut problems);
                check_addresses(plan, &found, &mut netlink, &mut problems)?;
                check_routes(plan, &found, &mut netlink, &mut problems)?;
                check_settings(plan, &mut problems);
                if plan.kind == LinkKind::Veth {
                    check_host(plan, host.as_ref(), Some(&found), &mut problems);
                }
                return Ok(problems);
            }
        }
        if plan.kind == LinkKind::Veth {
            check_host(plan, host.as_ref(), None, &mut problems);
        }
        Ok(problems)
    })
}

fn mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn check_link(plan: &LinkPlan, found: &Found, problems: &mut Vec<String>) {
    let mut problem = |what: String| problems.push(format!("{} {} {what}", plan.ifname, inside(&plan.netns)));
    let word = |kind| match kind {
        LinkKind::Veth => "a veth interface",
        LinkKind::Tap => "a TAP",
    };
    if found.kind != Some(plan.kind) {
        problem(format!("is {}, not {}", found.kind.map_or("another kind of interface", word), word(plan.kind)));
    }
    if found.interface.mac != plan.mac {
        problem(format!("has the hardware address {}, not {}", mac(found.interface.mac), mac(plan.mac)));
    }
    if found.interface.mtu != plan.mtu {
        problem(format!("has the MTU {}, not {}", found.interface.mtu, plan.mtu));
    }
    if found.up != plan.up {
        let (is, wanted) = if plan.up { ("down", "up") } else { ("up", "down") };
        problem(format!("is {is}, not {wanted}"));
    }
}

/// The host's end, and that it is the other end of the container's.
fn check_host(plan: &LinkPlan, host: Option<&Found>, container: Option<&Found>, problems: &mut Vec<String>) {
    let Some(host) = host else {
        problems.push(format!("there is no interface {} {ON_HOST}", plan.host_name));
        return;
    };
    let mut problem = |what: String| problems.push(format!("{} {ON_HOST} {what}", plan.host_name));
    if host.kind != Some(LinkKind::Veth) {
        problem("is no veth interface".to_owned());
    }
    if host.alias.as_deref() != Some(plan.alias.as_str()) {
        let is = host.alias.as_ref().map_or("no alias".to_owned(), |alias| format!("the alias `{alias}`"));
        problem(format!("has {is}, not `{}`", plan.alias));
    }
    if host.interface.mtu != plan.mtu {
        problem(format!("has the MTU {}, not {}", host.interface.mtu, plan.mtu));
    }
    if let Some(container) = container
        && (host.peer != Some(container.index) || container.peer != Some(host.index))
    {
        problem(format!("is not the other end of {} {}", plan.ifname, inside(&plan.netns)));
    }
}

fn check_addresses(
    plan: &LinkPlan,
    link: &Found,
    netlink: &mut Netlink,
    problems: &mut Vec<String>,
) -> Result<(), LinkError> {
    let mut found: Vec<FoundAddress> = Vec::new();
    let all = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    netlink.dump(&all, "list the addresses", |answer| {
        if let RouteNetlinkMessage::NewAddress(address) = answer {
            found.extend(read_address(&address).filter(|address| address.index == link.index));
        }
    })?;
    for wanted in &plan.addresses {
        let place = inside(&plan.netns);
        match found.iter().find(|found| found.address == *wanted) {
            None => problems.push(format!("{} {place} does not have the address {wanted}", plan.ifname)),
            Some(found) if found.flags.contains(AddressFlags::Dadfailed) => problems
                .push(format!("the address {wanted} of {} {place} is somebody else's on the network", plan.ifname)),
            Some(_) => {}
        }
    }
    Ok(())
}

fn check_routes(
    plan: &LinkPlan,
    link: &Found,
    netlink: &mut Netlink,
    problems: &mut Vec<String>,
) -> Result<(), LinkError> {
    if plan.routes.is_empty() || !plan.up {
        return Ok(());
    }
    let found = RouteTable::of(routes(netlink, None)?);
    for route in plan.routes.iter().filter(|route| !found.has(route, link.index)) {
        problems.push(format!("there is no {} on {} {}", words(route), plan.ifname, inside(&plan.netns)));
    }
    Ok(())
}

/// Sysctls and checksum offload, of the calling thread's namespace.
fn check_settings(plan: &LinkPlan, problems: &mut Vec<String>) {
    for (key, value) in &plan.sysctls {
        if let Some(differs) = sysctl::differs(key, value, &plan.ifname) {
            problems.push(format!("the sysctl {key} {} {differs}", inside(&plan.netns)));
        }
    }
    let offloaded = || any_socket().and_then(|socket| sys::tx_checksum(socket.as_fd(), &plan.ifname));
    if !plan.tx_checksum && offloaded().is_ok_and(|on| on) {
        problems.push(format!("{} {} leaves checksums to the switch", plan.ifname, inside(&plan.netns)));
    }
}
