//! Packets as they are, out of a network and into it.

use crate::sctp::{header, sender};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use sluice_flows::packet::checksum::{add, pseudo_v4, pseudo_v6, sum};
use sluice_tests::netns::Netns;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// The port that packets come from and go to, at which nobody listens.
pub(super) const PORT: u16 = 9;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// A packet of UDP, or the first one of a TCP connection.
pub(super) fn packet(protocol: u8, from: IpAddr, to: IpAddr) -> Vec<u8> {
    let mut body = [PORT.to_be_bytes(), PORT.to_be_bytes()].concat();
    let at = if protocol == TCP {
        body.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0x20, 0, 0, 0, 0, 0]);
        16
    } else {
        body.extend([0, 12, 0, 0]);
        body.extend(b"race");
        6
    };
    let pseudo = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => pseudo_v4(from.octets(), to.octets(), protocol, body.len() as u16),
        (IpAddr::V6(from), IpAddr::V6(to)) => pseudo_v6(from.octets(), to.octets(), protocol, body.len() as u32),
        _ => panic!("{from} and {to} are of two families"),
    };
    let check = !add(sum(&body), pseudo);
    body[at..at + 2].copy_from_slice(&check.to_be_bytes());
    [header(protocol, from, to, body.len() as u16), body].concat()
}

/// Where a packet comes from; none for what neighbours ask each other for (ICMPv6 133 to 137).
fn source(packet: &[u8]) -> Option<IpAddr> {
    let is_of_neighbours = || packet.get(6) == Some(&58) && matches!(packet.get(40), Some(133..=137));
    match packet.first()? >> 4 {
        4 => Some(<[u8; 4]>::try_from(packet.get(12..16)?).ok()?.into()),
        6 if is_of_neighbours() => None,
        6 => Some(<[u8; 16]>::try_from(packet.get(8..24)?).ok()?.into()),
        _ => None,
    }
}

/// What a packet is: a probe, or an answer to one.
pub(super) fn kind(packet: &[u8]) -> String {
    let (protocol, body) = if packet[0] >> 4 == 4 { (packet.get(9), 20) } else { (packet.get(6), 40) };
    let byte = |at: usize| packet.get(body + at).copied().unwrap_or_default();
    match protocol.copied() {
        Some(TCP) => format!("TCP with flags {:#04x}", byte(13)),
        Some(UDP) => "UDP".to_owned(),
        other => format!("protocol {}, type {}", other.unwrap_or_default(), byte(0)),
    }
}

/// A network's end: packets out of it, and the sources of those that come.
pub(super) struct Wire {
    out: [UdpSocket; 2],
    incoming: [UdpSocket; 2],
}

impl Wire {
    pub(super) fn new(netns: &Netns) -> Self {
        let families = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
        // Other than one that sees everything, such a socket does not see what goes out.
        let incoming = |protocol| -> UdpSocket {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            socket(AddressFamily::Packet, SockType::Datagram, flags, protocol).unwrap().into()
        };
        let (out, incoming) =
            netns.run(|| (families.map(sender), [SockProtocol::EthIp, SockProtocol::EthIpv6].map(incoming)));
        out.iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
        Self { out, incoming }
    }

    pub(super) fn send(&self, to: IpAddr, packet: &[u8]) -> bool {
        self.out[usize::from(to.is_ipv6())].send_to(packet, SocketAddr::new(to, 0)).is_ok()
    }

    /// Gives where packets come from, with the packets.
    pub(super) fn sources(&self, mut take: impl FnMut(IpAddr, &[u8])) {
        let mut buffer = [0; 2048];
        for socket in &self.incoming {
            while let Ok(len) = socket.recv(&mut buffer) {
                source(&buffer[..len]).into_iter().for_each(|from| take(from, &buffer[..len]));
            }
        }
    }
}
