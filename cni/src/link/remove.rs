//! Deletes a container's interface.

use super::LinkKind;
use super::error::{LinkError, ON_HOST, inside};
use super::look::{Found, find};
use super::make::check_name;
use super::netlink::Netlink;
use super::netns::{Netns, apart};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkMessage;
use std::path::Path;

/// What is written on another plugin's interface that the switch has taken: the switch gives it back, or its plugin deletes it.
const TAKEN: &str = "sluice-inline:";

/// Deletes the interface of the attachment that `alias` names: the veth pair whose host end is `host_name`, or else the
/// interface `ifname` of the container. Returns whether there was one. A namespace that is gone is no error: what was in it
/// is gone too.
///
/// # Errors
/// [`LinkError::Foreign`] when the host's interface of that name has another alias, or is no veth; what the kernel refuses.
pub fn delete(host_name: &str, alias: &str, netns: Option<&Path>, ifname: &str) -> Result<bool, LinkError> {
    check_name(host_name)?;
    let mut host = Netlink::open(ON_HOST)?;
    if let Some(found) = find(&mut host, host_name)? {
        if found.alias.as_deref().is_some_and(|found| found.starts_with(TAKEN)) {
            return Ok(false);
        }
        let marked = found.alias.as_deref().is_none_or(|found| found == alias);
        if !marked || found.kind != Some(LinkKind::Veth) {
            let place = ON_HOST.to_owned();
            return Err(LinkError::Foreign { name: host_name.to_owned(), place, alias: found.alias });
        }
        return delete_found(&mut host, &found);
    }
    let Some(netns) = netns else { return Ok(false) };
    check_name(ifname)?;
    let netns = match Netns::open_foreign(netns) {
        Ok(netns) => netns,
        Err(LinkError::HostNetns { .. }) => return Ok(false),
        Err(error) if error.is_gone() => return Ok(false),
        Err(error) => return Err(error),
    };
    apart(|| {
        netns.enter()?;
        let mut container = Netlink::open(inside(netns.path()))?;
        match find(&mut container, ifname)? {
            // Somebody else's interface of the same name is none of our business.
            Some(found) if found.kind.is_some() && found.alias.as_deref() == Some(alias) => {
                delete_found(&mut container, &found)
            }
            _ => Ok(false),
        }
    })
}

/// Deletes an interface; one that has gone meanwhile is as good.
fn delete_found(netlink: &mut Netlink, found: &Found) -> Result<bool, LinkError> {
    let mut message = LinkMessage::default();
    message.header.index = found.index;
    let what = format!("delete the interface {}", found.interface.name);
    match netlink.one(RouteNetlinkMessage::DelLink(message), 0, what) {
        Ok(()) => Ok(true),
        Err(error) if error.os() == Some(libc::ENODEV) => Ok(false),
        Err(error) => Err(error),
    }
}
