//! The other ends of a tunnel port, as the host's routes have them.

use super::namespace::Namespace;
use super::sys::{Family, Socket};
use crate::echo::Echo;
use crate::port::TunnelPeer;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

/// Any port: nothing is sent there, the kernel only looks for a route.
const DISCARD: u16 = 9;

/// What is known of the way to `remote`, from our address `local` if the port says one.
pub(super) fn peer(namespace: &Namespace, remote: IpAddr, local: Option<IpAddr>) -> TunnelPeer {
    let ask = || {
        let path_mtu = Socket::udp(Family::of(remote))?.path_mtu(remote, local)?;
        let any = if remote.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((local.unwrap_or(any), 0))?;
        socket.connect((remote, DISCARD))?;
        Ok((path_mtu, socket.local_addr()?.ip()))
    };
    let way = namespace.run(ask).ok();
    let (path_mtu, local) = (way.map(|(mtu, _)| mtu), way.map(|(_, local)| local));
    TunnelPeer { remote: Some(remote), local, path_mtu, up: way.is_some(), name: None }
}

/// Asks each of them for an ICMP echo.
pub(super) fn probe(namespace: &Namespace, remotes: &[IpAddr], timeout: Duration) -> io::Result<Vec<Option<Duration>>> {
    let wanted = [remotes.iter().any(IpAddr::is_ipv4), remotes.iter().any(IpAddr::is_ipv6)];
    namespace.run(|| Echo::open(wanted)?.probe(remotes, timeout))
}
