//! The veth pairs of endpoints: one end stays in the host's namespace and is the switch's, the other is for Docker to
//! move into the container. What is inside the container is Docker's to set up.

use super::endpoint::{ALIAS_PREFIX, Endpoint, octets};
use super::error::DriverError;
use super::network::KIND;
use sluice_switch::host::netlink::{LinkChange, LinkState, Netlink, NetlinkError, VethEnd};
use std::collections::BTreeMap;
use std::fs::File;

/// MTU of a pair whose network says nothing.
const DEFAULT_MTU: u32 = 1500;

/// Where a pair is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pair {
    /// There is none: it was never made, or went with the container.
    Gone,
    /// Both ends are in the host's namespace.
    Here,
    /// The other end is in a container.
    Joined,
}

/// The host's interfaces.
pub(crate) struct Links {
    netlink: Netlink,
    by_name: BTreeMap<String, LinkState>,
}

impl Links {
    /// Reads them.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn read() -> Result<Self, DriverError> {
        let mut netlink = Netlink::open()?;
        let by_name = netlink.links()?.into_iter().map(|link| (link.name.clone(), link)).collect();
        Ok(Self { netlink, by_name })
    }

    /// Where an endpoint's pair is.
    pub(crate) fn pair(&self, endpoint: &Endpoint) -> Pair {
        match (self.by_name.contains_key(&endpoint.link()), self.by_name.contains_key(&endpoint.peer())) {
            (false, false) => Pair::Gone,
            (_, true) => Pair::Here,
            (true, false) => Pair::Joined,
        }
    }

    /// Deletes the pairs that are marked as this driver's and that nobody knows. Returns their names.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn sweep(&mut self, known: impl Fn(&str) -> bool) -> Result<Vec<String>, DriverError> {
        let prefix = format!("{ALIAS_PREFIX}{KIND}-");
        let ours = |link: &&LinkState| link.alias.as_ref().is_some_and(|alias| alias.starts_with(&prefix));
        let lost: Vec<_> = self.by_name.values().filter(ours).filter(|link| !known(&link.name)).cloned().collect();
        for link in &lost {
            delete(&mut self.netlink, &link.name)?;
        }
        Ok(lost.into_iter().map(|link| link.name).collect())
    }
}

/// Makes an endpoint's pair, in place of one that may be there. The host's end is up, the other is not.
///
/// # Errors
/// As the kernel says; then there is no pair.
pub(crate) fn make(endpoint: &Endpoint, mtu: u32) -> Result<(), DriverError> {
    remove(endpoint)?;
    let mut netlink = Netlink::open()?;
    let (here, there) = (endpoint.link(), endpoint.peer());
    let own = File::open("/proc/thread-self/ns/net").map_err(|e| NetlinkError::new("open the network namespace", e))?;
    let mac = octets(&endpoint.mac)?;
    let end = |name, mac| VethEnd { name, index: 0, mac };
    let mtu = if mtu == 0 { DEFAULT_MTU } else { mtu };
    netlink.add_veth(end(&here, None), end(&there, Some(mac)), own, mtu)?;
    let set = |netlink: &mut Netlink| {
        let missing = || NetlinkError::new("find the interface just made", nix::Error::ENODEV);
        let index = netlink.link(&here)?.ok_or_else(missing)?.index;
        netlink.set_link(index, &LinkChange { alias: Some(endpoint.alias()), ..LinkChange::default() })?;
        netlink.no_link_local(index)?;
        netlink.set_up(index)
    };
    set(&mut netlink).map_err(|error| {
        // The first error is the one to tell; the next start finds what is left.
        _ = remove(endpoint);
        error.into()
    })
}

/// Deletes an endpoint's pair; fine if there is none.
///
/// # Errors
/// As the kernel says.
pub(crate) fn remove(endpoint: &Endpoint) -> Result<(), DriverError> {
    let mut netlink = Netlink::open()?;
    // The other end goes with it, wherever it is; alone it is only found by its own name.
    delete(&mut netlink, &endpoint.link())?;
    delete(&mut netlink, &endpoint.peer())
}

fn delete(netlink: &mut Netlink, name: &str) -> Result<(), DriverError> {
    let Some(link) = netlink.link(name)? else { return Ok(()) };
    match netlink.delete(link.index) {
        Err(error) if error.source.raw_os_error() != Some(nix::libc::ENODEV) => Err(error.into()),
        _ => Ok(()),
    }
}
