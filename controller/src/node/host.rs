//! What the host has: addresses and interfaces, read again every few seconds, because nodes change address.

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;

/// What an interface carries if nothing says otherwise, in bytes.
const DEFAULT_MTU: u16 = 1500;

/// An address of the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HostAddress {
    /// The interface that it is on.
    pub(super) interface: String,
    /// The address, with the prefix of its subnet.
    pub(super) address: IpNet,
}

/// The addresses of the host that others can send to, sorted: none of the loopback, none that hold for one link only.
///
/// # Errors
/// What the system says.
pub(super) fn addresses() -> io::Result<Vec<HostAddress>> {
    let mut all = BTreeSet::new();
    for entry in getifaddrs()? {
        if entry.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
            continue;
        }
        let Some(address) = entry.address.as_ref().and_then(ip) else { continue };
        let is_of_link = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if is_of_link || address.is_loopback() {
            continue;
        }
        let prefix = entry.netmask.as_ref().and_then(ip).and_then(|mask| ipnet::ip_mask_to_prefix(mask).ok());
        let prefix = prefix.unwrap_or(if address.is_ipv6() { 128 } else { 32 });
        if let Ok(address) = IpNet::new(address, prefix) {
            all.insert(HostAddress { interface: entry.interface_name, address });
        }
    }
    Ok(all.into_iter().collect())
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(IpAddr::V4(v4.ip()));
    }
    address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()))
}

/// The MTU of an interface, in bytes; Ethernet's if the system does not say.
#[must_use]
pub(super) fn mtu(interface: &str) -> u16 {
    let text = fs::read_to_string(format!("/sys/class/net/{interface}/mtu"));
    // The loopback and some tunnels carry more than an IP packet can be long.
    let mtu = text.ok().and_then(|text| text.trim().parse::<u32>().ok());
    mtu.map_or(DEFAULT_MTU, |mtu| u16::try_from(mtu).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_not_among_the_addresses() {
        let all = addresses().unwrap();
        assert!(all.iter().all(|one| !one.address.addr().is_loopback()), "{all:?}");
    }

    #[test]
    fn an_interface_that_is_not_there_has_the_mtu_of_ethernet() {
        assert_eq!(mtu("none-such"), 1500);
    }
}
