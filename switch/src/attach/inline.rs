//! Putting the switch between a container and the network that another program has attached it to, so that policy can be
//! applied to what passes; the other program goes on as if nothing had happened.
//!
//! ```text
//! before:  container eth0 ------- veth1 (address, routes; or a port of a bridge)
//! after:   container eth0 ------- PORT =[switch]= END ------- veth1 (all that was veth1's)
//! ```
//!
//! The other program's interface gets the name of the attachment's port and becomes a packet port; so does one end of a new
//! veth pair, whose other end has all that the first one was to the host (see
//! [`Identity`](crate::host::identity::Identity)): name, hardware address, MTU, bridge, addresses, routes, settings. The
//! container's end is not touched: its neighbours have the same hardware addresses as before.
//!
//! # Use
//! [`take`] does it, and says which interface is the second packet port; what was interrupted is finished, and what is done is
//! left as it is, so it is called after a restart too. [`release`] undoes it, once both ports are closed. [`strays`] finds what a
//! switch that was killed has left half done. [`is_gone`] tells whether the container's interface is still there.
//!
//! # After a crash
//! What an interface is here is written on it, with the name that the other program gave it: `sluice-inline:NAME:KEY` on the
//! container's side, `sluice-inline-end:NAME:KEY` on the new pair's end. The end is up once the other end has everything;
//! before that the old interface still has it, so either direction can be taken from any step.
//!
//! # Limits
//! - The alias of the other program's interface goes to the one that takes its place, and comes back.
//! - Whoever shapes or redirects what comes in by the interface itself (`tc` on its ingress) before it is taken sees nothing
//!   of the container any more: let such programs come after this one.
//! - The CHECK of the reference plugin `bridge` compares the index of the container's other end with that of the interface it
//!   made, and so fails while that is taken. The CHECK of `ptp` passes.

use super::device::{DeviceError, alias_of, leave_alone};
use super::spec::AttachmentKey;
use crate::host::identity::{BareLink, Identity, take_off};
use crate::host::netlink::{LinkChange, Netlink, NetlinkError, VethEnd};
use std::fs::File;
use std::io;

/// What is written on the container's side, and on the end of the new pair that is a port.
const INSIDE: &str = "sluice-inline:";
const END: &str = "sluice-inline-end:";
/// Longest text that is written on an interface, in bytes: as the kernel takes it with a zero byte behind it.
const ALIAS_MAX: usize = 254;

/// An interface that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// What is written on the container's side, which has the name of the port.
    pub(super) alias: String,
    /// The interface that is the second packet port.
    pub(super) end: String,
}

/// The name of the second packet port of an attachment whose port is `port`.
pub(super) fn end_of(port: &str) -> String {
    format!("si{:012x}", number_of(port))
}

/// The name of the other end of that pair, until it has the other program's.
fn waiting_name(port: &str) -> String {
    format!("sj{:012x}", number_of(port))
}

/// FNV-1a: the same in every build, as the names have to be.
fn number_of(port: &str) -> u64 {
    let hash = port
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    hash & 0xffff_ffff_ffff
}

/// What is written on an interface of the attachment.
fn mark(prefix: &str, interface: &str, key: &AttachmentKey) -> String {
    let own = alias_of(key);
    let mut text = format!("{prefix}{interface}:{}", own.strip_prefix("sluice:").unwrap_or(&own));
    text.truncate(text.floor_char_boundary(ALIAS_MAX));
    text
}

/// The name in what is written on an interface, if it is one of the attachment's.
fn name_in<'a>(alias: &'a str, prefix: &str, key: &AttachmentKey) -> Option<&'a str> {
    // Names have no colon.
    let (name, _) = alias.strip_prefix(prefix)?.split_once(':')?;
    (mark(prefix, name, key) == alias).then_some(name)
}

/// The interfaces of an attachment, as far as they are there.
#[derive(Debug, Default)]
struct Parts {
    /// The container's side.
    inside: Option<BareLink>,
    /// The end of the new pair that is a port.
    end: Option<BareLink>,
    /// The other one, which takes the place of the container's side.
    outside: Option<BareLink>,
    /// The name that the other program knows.
    name: Option<String>,
}

impl Parts {
    fn find(links: &[BareLink], key: &AttachmentKey) -> Self {
        let find =
            |prefix| links.iter().find_map(|link| Some((link.clone(), name_in(&link.alias, prefix, key)?.to_owned())));
        let (inside, end) = (find(INSIDE), find(END));
        let peer = end.as_ref().and_then(|(end, _)| end.peer);
        let outside = links.iter().find(|link| Some(link.index) == peer && link.index != 0).cloned();
        let name = inside.as_ref().or(end.as_ref()).map(|(_, name)| name.clone());
        Self { inside: inside.map(|(link, _)| link), end: end.map(|(link, _)| link), outside, name }
    }
}

/// Takes another program's interface, `interface`, for the attachment's port `port`.
///
/// # Errors
/// [`DeviceError`]. What was done by then is undone by [`release`].
pub(super) fn take(key: &AttachmentKey, interface: &str, port: &str) -> Result<Taken, DeviceError> {
    let mut netlink = Netlink::open()?;
    let links = netlink.bare_links()?;
    let mut parts = Parts::find(&links, key);
    if parts.inside.is_none() {
        let is_outside = |link: &BareLink| parts.outside.as_ref().is_some_and(|other| other.index == link.index);
        let there = links.iter().find(|link| link.name == interface && !is_outside(link));
        let there = there.ok_or_else(|| DeviceError::NoLink { interface: interface.to_owned() })?;
        if there.alias.starts_with("sluice") {
            let (interface, alias) = (interface.to_owned(), there.alias.clone());
            return Err(DeviceError::NotOurs { interface, alias });
        }
        parts.inside = Some(there.clone());
    }
    let (Some(inside), name) = (parts.inside, parts.name.unwrap_or_else(|| interface.to_owned())) else {
        return Err(DeviceError::NoLink { interface: interface.to_owned() });
    };
    let (end, outside) = match (parts.end, parts.outside) {
        (Some(end), Some(outside)) => (end, outside),
        _ => make_pair(&mut netlink, &links, &inside, port)?,
    };
    let alias = mark(INSIDE, &name, key);
    if !end.up {
        let swap = Swap { inside: &inside, outside: &outside, name: &name, alias: &alias };
        swap.copy(&mut netlink)?;
        write_alias(&mut netlink, end.index, &mark(END, &name, key))?;
        leave_alone(&end.name)?;
        // From now on the outside has everything.
        netlink.set_flag(end.index, true)?;
    }
    take_off(&mut netlink, inside.index)?;
    if inside.name != port {
        netlink.rename(inside.index, port)?;
    }
    if outside.name != name {
        netlink.rename(outside.index, &name)?;
    }
    leave_alone(port)?;
    netlink.set_flag(inside.index, true)?;
    Ok(Taken { alias, end: end.name })
}

/// The container's side while another interface takes its place.
struct Swap<'a> {
    inside: &'a BareLink,
    outside: &'a BareLink,
    name: &'a str,
    alias: &'a str,
}

impl Swap<'_> {
    /// The outside gets all that the inside has, and the inside says what it is.
    fn copy(&self, netlink: &mut Netlink) -> Result<(), NetlinkError> {
        if self.inside.alias != self.alias {
            write_alias(netlink, self.outside.index, &self.inside.alias)?;
            write_alias(netlink, self.inside.index, self.alias)?;
        }
        Identity::read(netlink, self.inside.index)?.put_on(netlink, self.outside.index, self.name)
    }
}

/// Makes the new pair: the end that is a port, and the one that takes the place of `inside`.
fn make_pair(
    netlink: &mut Netlink,
    links: &[BareLink],
    inside: &BareLink,
    port: &str,
) -> Result<(BareLink, BareLink), NetlinkError> {
    let (end, outside) = (end_of(port), waiting_name(port));
    // One that was made and not yet marked.
    if let Some(link) = links.iter().find(|link| link.name == end) {
        netlink.delete(link.index)?;
    }
    let netns =
        File::open("/proc/thread-self/ns/net").map_err(|e| NetlinkError::new("open the network namespace", e))?;
    let here = VethEnd { name: &end, index: 0, mac: None };
    let mac = inside.mac.as_slice().try_into().ok();
    netlink.add_veth(here, VethEnd { name: &outside, index: 0, mac }, &netns, inside.mtu)?;
    let links = netlink.bare_links()?;
    let find = |name: &str| {
        let found = links.iter().find(|link| link.name == name).cloned();
        found.ok_or_else(|| {
            NetlinkError::new(
                &format!("find the interface {name} that was made"),
                io::Error::from_raw_os_error(libc::ENODEV),
            )
        })
    };
    Ok((find(&end)?, find(&outside)?))
}

fn write_alias(netlink: &mut Netlink, index: u32, alias: &str) -> Result<(), NetlinkError> {
    netlink.set_link(index, &LinkChange { alias: Some(alias.to_owned()), ..LinkChange::default() })
}

/// Gives the other program's interface back as it was before [`take`], or as it has become since, and removes the new pair.
/// Both ports are to be closed. Whether there was anything to do.
///
/// # Errors
/// [`DeviceError`]; it can be called again then.
pub(super) fn release(key: &AttachmentKey) -> Result<bool, DeviceError> {
    let mut netlink = Netlink::open()?;
    let links = netlink.bare_links()?;
    Ok(give_back(&mut netlink, Parts::find(&links, key))?)
}

fn give_back(netlink: &mut Netlink, parts: Parts) -> Result<bool, NetlinkError> {
    let Some(name) = parts.name else { return Ok(false) };
    let identity = match (&parts.end, &parts.outside) {
        (Some(end), Some(outside)) if end.up => Some(Identity::read(netlink, outside.index)?),
        _ => None,
    };
    if let Some(inside) = &parts.inside {
        let alias = parts.outside.as_ref().map(|outside| outside.alias.clone()).unwrap_or_default();
        if let Some(outside) = parts.outside.as_ref().filter(|outside| outside.name == name) {
            // Any name will do that nobody has.
            netlink.rename(outside.index, &waiting_name(&name))?;
        }
        if inside.name != name {
            netlink.rename(inside.index, &name)?;
        }
        if let Some(identity) = &identity {
            identity.put_on(netlink, inside.index, &name)?;
        }
        write_alias(netlink, inside.index, &alias)?;
    }
    if let Some(end) = &parts.end {
        netlink.delete(end.index)?;
    }
    Ok(true)
}

/// Gives back what has no attachment and was not taken as a whole: a switch that was killed had begun with it. What was taken
/// as a whole, and not written down, is given back when it is detached. Returns the names that other programs
/// know them by.
///
/// # Errors
/// As the kernel says.
pub(super) fn strays<'a>(keys: impl Iterator<Item = &'a AttachmentKey>) -> Result<Vec<String>, NetlinkError> {
    let mut netlink = Netlink::open()?;
    let links = netlink.bare_links()?;
    let known: Vec<_> = keys.map(|key| Parts::find(&links, key)).collect();
    let is_known = |link: &BareLink| {
        let same = |part: &Option<BareLink>| part.as_ref().is_some_and(|part| part.index == link.index);
        known.iter().any(|parts| same(&parts.inside) || same(&parts.end))
    };
    let mut given_back = Vec::new();
    for link in links.iter().filter(|link| !is_known(link)) {
        let marked = |prefix: &str| link.alias.strip_prefix(prefix)?.split_once(':');
        let (parts, name) = match (marked(INSIDE), marked(END)) {
            (Some((name, key)), _) => (of_text(&links, name, key), name),
            // With its other side there, it is done with that.
            (None, Some((name, key))) if of_text(&links, name, key).inside.is_none() => {
                (of_text(&links, name, key), name)
            }
            _ => continue,
        };
        // One that is whole may be another switch's.
        if parts.inside.is_some() && parts.end.as_ref().is_some_and(|end| end.up) {
            continue;
        }
        give_back(&mut netlink, parts)?;
        given_back.push(name.to_owned());
    }
    Ok(given_back)
}

/// The interfaces with these words on them.
fn of_text(links: &[BareLink], name: &str, key: &str) -> Parts {
    let find = |prefix: &str| links.iter().find(|link| link.alias == format!("{prefix}{name}:{key}")).cloned();
    let (inside, end) = (find(INSIDE), find(END));
    let peer = end.as_ref().and_then(|end| end.peer);
    let outside = links.iter().find(|link| Some(link.index) == peer).cloned();
    Parts { inside, end, outside, name: Some(name.to_owned()) }
}

/// Why the container's interface is gone, if it is.
///
/// # Errors
/// [`DeviceError`], when it cannot be told.
pub(super) fn is_gone(key: &AttachmentKey, interface: &str) -> Result<Option<String>, DeviceError> {
    let links = Netlink::open()?.bare_links()?;
    let parts = Parts::find(&links, key);
    Ok(match parts.inside {
        Some(_) => None,
        None => Some(format!("the interface that was {interface} is not there any more")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(container: &str) -> AttachmentKey {
        AttachmentKey { network: "n".into(), container_id: container.into(), ifname: "eth0".into() }
    }

    #[test]
    fn what_is_written_tells_the_name_and_whose_it_is() {
        let text = mark(INSIDE, "veth1", &key("c1"));
        assert_eq!(text, "sluice-inline:veth1:n:c1:eth0");
        assert_eq!(name_in(&text, INSIDE, &key("c1")), Some("veth1"));
        assert_eq!(name_in(&text, END, &key("c1")), None);
        assert_eq!(name_in(&text, INSIDE, &key("c10")), None);
        let long = key(&"é".repeat(200));
        assert_eq!(name_in(&mark(END, "veth1", &long), END, &long), Some("veth1"));
    }

    #[test]
    fn names_of_the_pair_are_names_of_interfaces_and_differ_by_port() {
        assert_eq!(end_of("sl0123456789ab").len(), 14);
        assert_ne!(end_of("sl0123456789ab"), end_of("sl0123456789ac"));
        assert_ne!(end_of("p"), waiting_name("p"));
    }
}
