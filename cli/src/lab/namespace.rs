//! Hosts as anonymous network namespaces.
//!
//! A namespace is made by a throw-away thread that leaves the one it was born in, and lives as long as somebody holds a
//! descriptor of it: the supervisor does. It has no name in the file system, so nothing of it can outlive the
//! supervisor.
//!
//! A host's TAP is created *inside* its namespace: moving a device from one namespace to another costs 34 ms in the
//! kernel, being born in the right one costs nothing. The same holds for veth, whose far end is made directly in the
//! host's namespace.

use super::enter::enter_network;
use super::state::Attachment;
use super::topology;
use super::topology::resolved::{Host, Interface, Mac, everywhere};
use crate::failure::Failure;
use crate::output::Exit;
use ipnet::{IpNet, Ipv6Net};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};
use sluice_switch::host::netlink::{LOOPBACK, Netlink, NetlinkError, VethEnd};
use sluice_switch::host::routing::{HostRoute, MAIN_TABLE, metric_of};
use sluice_switch::port::{AfPacket, AfPacketOptions, AfXdp, AfXdpOptions, Port, PortError, PortKind, Tap, TapOptions};
use std::fs::{File, OpenOptions};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

/// Why a host could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostError {
    /// The kernel gives no network namespace.
    #[error("cannot make a network namespace for {host}: {source}")]
    Namespace {
        /// The host.
        host: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Its interface could not be made.
    #[error("cannot make {interface} of {host}: {source}")]
    Port {
        /// The host.
        host: String,
        /// The interface.
        interface: String,
        /// Why.
        source: Box<PortError>,
    },
    /// The link of its interface does not come up.
    #[error("the link of {interface} of {host} does not come up")]
    Link {
        /// The host.
        host: String,
        /// The interface.
        interface: String,
    },
    /// Its interface could not be set up.
    #[error("cannot set up {interface} of {host}: {source}")]
    Interface {
        /// The host.
        host: String,
        /// The interface.
        interface: String,
        /// Why.
        source: NetlinkError,
    },
}

impl From<HostError> for Failure {
    fn from(error: HostError) -> Self {
        let denied = match &error {
            HostError::Namespace { source, .. } => source.raw_os_error() == Some(Errno::EPERM as i32),
            HostError::Port { source, .. } => {
                matches!(**source, PortError::NoPrivilege { .. } | PortError::NoBpf { .. })
            }
            HostError::Link { .. } => false,
            HostError::Interface { source, .. } => source.source.raw_os_error() == Some(Errno::EPERM as i32),
        };
        let failure = Self::new(error.to_string());
        if denied { failure.exit(Exit::NoPrivilege).next("run it as root, or allow user namespaces") } else { failure }
    }
}

/// Index below those of the switch's veths. The kernel tells at once that a link is up when the indexes of its two ends
/// differ, and else after up to a second, because it takes the veth for a device of its own.
const VETH_INDEX: u32 = 1 << 20;

/// What `ip route add` gives routes as their origin.
const RTPROT_BOOT: u8 = 3;

/// How long links may take to come up.
const LINK_PATIENCE: Duration = Duration::from_secs(5);

/// The switch's end of a host's link.
pub(crate) struct HostPort {
    /// The host.
    pub(crate) host: String,
    /// Its interface.
    pub(crate) interface: Interface,
    /// What the switch reads and writes.
    pub(crate) port: Box<dyn Port>,
}

/// A host that was made.
pub(crate) struct Made {
    /// The host.
    pub(crate) host: String,
    /// Keeps its namespace.
    pub(crate) namespace: OwnedFd,
    ends: Vec<(Interface, SwitchEnd)>,
}

enum SwitchEnd {
    Tap(Tap),
    /// Name of the veth's end in the switch's namespace.
    Veth(String),
    /// The same, for AF_XDP.
    AfXdp(String),
}

/// How hosts can be joined to switches here: by TAP if `/dev/net/tun` may be opened, else by veth.
pub(crate) fn attachment() -> Attachment {
    match OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => Attachment::Tap,
        Err(_) => Attachment::Veth,
    }
}

/// Makes every host: namespace, interfaces, addresses. `queues` is the number of the switch's workers.
///
/// # Errors
/// The first host that could not be made, and why. What was made before it goes when the result is dropped.
pub(crate) fn make(hosts: &[Host], attachment: Attachment, queues: usize) -> Result<Vec<Made>, HostError> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(8);
    let share = hosts.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        let make_share = |(index, hosts): (usize, &[Host])| {
            let hosts = hosts.to_vec();
            let first = u32::try_from(index * topology::MAX_LINKS).unwrap_or(0);
            scope.spawn(move || make_some(&hosts, attachment, queues, first))
        };
        let threads: Vec<_> = hosts.chunks(share).enumerate().map(make_share).collect();
        let mut made = Vec::new();
        for thread in threads {
            match thread.join() {
                Ok(some) => made.extend(some?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(made)
    })
}

/// Makes hosts one after another on the calling thread, which ends up in the namespace of the last. Veths are numbered
/// from `first` on, by which they do not meet those of another thread.
fn make_some(hosts: &[Host], attachment: Attachment, queues: usize, first: u32) -> Result<Vec<Made>, HostError> {
    // Opened before the thread leaves the switch's namespace, and stays there.
    let mut switch_side: Option<Netlink> = None;
    if let (Attachment::Veth | Attachment::AfXdp, Some(host)) = (attachment, hosts.first()) {
        switch_side = Some(Netlink::open().map_err(interface_error(host, "lo"))?);
    }
    let mut number = first;
    let mut made = Vec::new();
    let (mut insides, mut links) = (Vec::new(), Vec::new());
    for host in hosts {
        let namespace_error = |source| HostError::Namespace { host: host.name.clone(), source };
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| namespace_error(errno.into()))?;
        let namespace = File::open("/proc/thread-self/ns/net").map_err(namespace_error)?;
        let mut inside = Netlink::open().map_err(interface_error(host, "lo"))?;
        inside.set_up(LOOPBACK).map_err(interface_error(host, "lo"))?;
        let mut ends = Vec::new();
        for interface in &host.interfaces {
            let failed = interface_error(host, &interface.name);
            let end = match &mut switch_side {
                None => SwitchEnd::Tap(tap(host, interface, queues)?),
                Some(switch_side) => {
                    number += 1;
                    let name = veth(switch_side, number, interface, &namespace).map_err(&failed)?;
                    if attachment == Attachment::AfXdp { SwitchEnd::AfXdp(name) } else { SwitchEnd::Veth(name) }
                }
            };
            let index = configure(&mut inside, interface).map_err(failed)?;
            if switch_side.is_some() {
                links.push(VethLink { host, interface, near: VETH_INDEX + number, inside: made.len(), far: index });
            }
            ends.push((interface.clone(), end));
        }
        insides.push(inside);
        made.push(Made { host: host.name.clone(), namespace: namespace.into(), ends });
    }
    if let Some(mut switch_side) = switch_side {
        links.iter().try_for_each(|link| link.wait(&mut switch_side, &mut insides))?;
    }
    Ok(made)
}

/// A veth pair that was made.
struct VethLink<'a> {
    host: &'a Host,
    interface: &'a Interface,
    /// Index of the switch's end.
    near: u32,
    /// Which of the namespaces has the far end.
    inside: usize,
    /// Index of the far end there.
    far: u32,
}

impl VethLink<'_> {
    fn wait(&self, switch_side: &mut Netlink, insides: &mut [Netlink]) -> Result<(), HostError> {
        let near = wait_for_link(switch_side, self.near);
        let both = near.and_then(|up| Ok(up && wait_for_link(&mut insides[self.inside], self.far)?));
        match both.map_err(interface_error(self.host, &self.interface.name))? {
            true => Ok(()),
            false => Err(HostError::Link { host: self.host.name.clone(), interface: self.interface.name.clone() }),
        }
    }
}

/// Waits until the kernel has noticed that a veth's link is up, which it does a moment after both ends are set up. Until
/// then it drops what the interface sends.
fn wait_for_link(netlink: &mut Netlink, index: u32) -> Result<bool, NetlinkError> {
    let begin = Instant::now();
    while !netlink.is_up(index)? {
        if begin.elapsed() > LINK_PATIENCE {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(true)
}

/// Makes a veth pair with its far end in the host's namespace; returns the name of the near end, which is set up.
fn veth(
    switch_side: &mut Netlink,
    number: u32,
    interface: &Interface,
    namespace: &File,
) -> Result<String, NetlinkError> {
    let name = format!("v{number}");
    let here = VethEnd { name: &name, index: VETH_INDEX + number, mac: None };
    let there = VethEnd { name: &interface.name, index: 0, mac: Some(interface.mac.0) };
    switch_side.add_veth(here, there, namespace, interface.mtu)?;
    switch_side.no_link_local(here.index)?;
    switch_side.set_up(here.index)?;
    Ok(name)
}

fn interface_error(host: &Host, interface: &str) -> impl Fn(NetlinkError) -> HostError {
    let (host, interface) = (host.name.clone(), interface.to_owned());
    move |source| HostError::Interface { host: host.clone(), interface: interface.clone(), source }
}

fn tap(host: &Host, interface: &Interface, queues: usize) -> Result<Tap, HostError> {
    let options =
        TapOptions { mac: Some(interface.mac.0), mtu: Some(interface.mtu), queues, up: false, kind: PortKind::Tap };
    Tap::create(&interface.name, &options).map_err(port_error(&host.name, &interface.name))
}

fn port_error(host: &str, interface: &str) -> impl Fn(PortError) -> HostError {
    let (host, interface) = (host.to_owned(), interface.to_owned());
    move |source| HostError::Port { host: host.clone(), interface: interface.clone(), source: Box::new(source) }
}

/// Sets the interface up with its addresses, all usable at once; returns its index.
fn configure(netlink: &mut Netlink, interface: &Interface) -> Result<u32, NetlinkError> {
    let index =
        if_nametoindex(interface.name.as_str()).map_err(|errno| NetlinkError::new("find the interface", errno))?;
    netlink.no_link_local(index)?;
    netlink.set_up(index)?;
    // What comes by DHCP is the client's to put in.
    let ours = |ip: IpAddr| !(interface.dhcp && ip.is_ipv4());
    for address in interface.addresses.iter().filter(|address| ours(address.addr())) {
        netlink.add_address(index, *address)?;
    }
    if interface.addresses.iter().any(|a| matches!(a, IpNet::V6(_))) {
        netlink.add_address(index, link_local(interface.mac))?;
    }
    for gateway in interface.gateways.iter().filter(|gateway| ours(**gateway)) {
        netlink.add_route(&default_route(*gateway, index))?;
    }
    Ok(index)
}

/// Everything goes to the gateway.
pub(super) fn default_route(gateway: IpAddr, link: u32) -> HostRoute {
    let to = everywhere(gateway);
    let (metric, protocol) = (metric_of(to, None), RTPROT_BOOT);
    HostRoute { to, via: Some(gateway), link, source: None, metric, table: MAIN_TABLE, protocol }
}

/// The link-local address that a MAC gives (RFC 4291, appendix A).
fn link_local(mac: Mac) -> IpNet {
    let [a, b, c, d, e, f] = mac.0;
    let octets = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from(octets), 64))
}

impl Made {
    /// Opens the switch's ends of the host's links. Must be called in the switch's namespace.
    ///
    /// # Errors
    /// A packet socket or an AF_XDP socket cannot be opened.
    pub(crate) fn into_ports(self, queues: usize) -> Result<(OwnedFd, Vec<HostPort>), HostError> {
        let Self { host, namespace, ends } = self;
        let mut ports = Vec::new();
        for (interface, end) in ends {
            let port: Box<dyn Port> = match end {
                SwitchEnd::Tap(tap) => Box::new(tap),
                SwitchEnd::Veth(name) => {
                    let options = AfPacketOptions { queues, up: false, ..AfPacketOptions::default() };
                    let opened = AfPacket::open(&name, &options);
                    Box::new(opened.map_err(port_error(&host, &interface.name))?)
                }
                SwitchEnd::AfXdp(name) => {
                    let opened = AfXdp::open(&name, &AfXdpOptions { up: false, ..AfXdpOptions::default() });
                    Box::new(opened.map_err(port_error(&host, &interface.name))?)
                }
            };
            ports.push(HostPort { host: host.clone(), interface, port });
        }
        Ok((namespace, ports))
    }
}

/// Threads that take devices away at once.
const UNMAKERS: usize = 32;

/// Deletes the hosts' interfaces, many at once.
///
/// The kernel would do it by itself when the supervisor ends, but one after another, and it waits some 30 ms for each
/// TAP until no processor can still be using it; those that are deleted at the same time share the wait.
pub(crate) fn unmake(hosts: &[(&Host, OwnedFd)]) {
    thread::scope(|scope| {
        for some in hosts.chunks(hosts.len().div_ceil(UNMAKERS).max(1)) {
            scope.spawn(move || {
                for (host, namespace) in some {
                    // Whatever fails here is done by the kernel later.
                    let Ok(mut netlink) = enter_network(namespace).map(|()| Netlink::open()) else { continue };
                    for interface in &host.interfaces {
                        let index = if_nametoindex(interface.name.as_str());
                        let _ = index.is_ok_and(|index| netlink.as_mut().is_ok_and(|n| n.delete(index).is_ok()));
                    }
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_gives_the_link_local_address_of_rfc_4291() {
        let mac = Mac::parse("02:00:00:00:00:0b").unwrap();
        assert_eq!(link_local(mac).to_string(), "fe80::ff:fe00:b/64");
    }
}
