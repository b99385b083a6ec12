//! Hosts: network namespaces, each behind a port, of every kind that a kernel's network stack can be behind.

use crate::netns::Netns;
use crate::switch::wait_until;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use sluice_flows::DropReason;
use sluice_flows::packet::{Frame, MAX_FRAME_LEN};
use sluice_switch::port::link::Link;
use sluice_switch::port::{
    AfPacket, AfPacketOptions, AfXdp, AfXdpOptions, Port, PortQueue, Tap, TapOptions, TapPlain, TxOutcome,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

/// How long a socket waits before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Name of every host's interface.
pub const LINK: &str = "eth0";
/// Name of the switch's end of a veth pair.
const PORT: &str = "port";
/// The flags of a route to the host itself, as the kernel prints them.
const LOCAL: &str = " 80200001 ";
/// Frames that a [`Capture`] takes at a time.
const CAPTURED: usize = 32;

/// What is between a host and the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A TAP with offloads: the host has the interface, the switch its descriptor.
    Tap,
    /// A TAP without offloads.
    TapPlain,
    /// A packet socket on one end of a veth pair; the host has the other.
    AfPacket,
    /// An AF_XDP socket on one end of a veth pair; the host has the other.
    AfXdp,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Tap, Self::TapPlain, Self::AfPacket, Self::AfXdp];

    /// Whether super-frames cross it as they are.
    pub fn offloads(self) -> bool {
        matches!(self, Self::Tap | Self::AfPacket)
    }

    /// Whether a host's partial checksums come in by it as they are.
    pub fn partial_checksums(self) -> bool {
        self != Self::TapPlain
    }

    /// Whether it is at one end of a veth pair.
    fn on_veth(self) -> bool {
        matches!(self, Self::AfPacket | Self::AfXdp)
    }
}

/// A host.
#[derive(Debug)]
pub struct Host {
    /// Where it lives.
    pub netns: Netns,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Its IPv4 address, of a /24.
    pub v4: IpAddr,
    /// Its IPv6 address, of a /64.
    pub v6: IpAddr,
    kind: Kind,
    mtu: u32,
    queues: usize,
    /// Where the switch's end of a veth pair is.
    switch: Netns,
}

impl Host {
    /// Host number `n` and the port that leads to it, with a queue for one worker.
    pub fn new(n: u8, kind: Kind, mtu: u32) -> (Self, Box<dyn Port>) {
        Self::with_queues(n, kind, mtu, 1)
    }

    /// Host number `n`, and the port that leads to it, with queues for so many workers. Its addresses are in
    /// 10.99.0.0/24 and `fd99::/64`.
    pub fn with_queues(n: u8, kind: Kind, mtu: u32, queues: usize) -> (Self, Box<dyn Port>) {
        let v4 = Ipv4Addr::new(10, 99, 0, n);
        let v6 = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, n.into());
        Self::with_addresses([2, 0, 0, 0, 0, n], v4, v6, kind, mtu, queues)
    }

    /// A host with these addresses, and the port that leads to it, with queues for so many workers.
    pub fn with_addresses(
        mac: [u8; 6],
        v4: Ipv4Addr,
        v6: Ipv6Addr,
        kind: Kind,
        mtu: u32,
        queues: usize,
    ) -> (Self, Box<dyn Port>) {
        let netns = Netns::new().expect("a namespace");
        // Addresses are there at once, without looking for duplicates first.
        let no_dad = || std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0");
        netns.run(no_dad).expect("set accept_dad");
        let host = Self {
            netns,
            mac,
            v4: v4.into(),
            v6: v6.into(),
            kind,
            mtu,
            queues,
            switch: Netns::without_ipv6().expect("a namespace"),
        };
        let port = host.plug();
        (host, port)
    }

    /// The port that leads to the host, again after the one before was closed, or its interface removed.
    pub fn plug(&self) -> Box<dyn Port> {
        let (mac, mtu, queues) = (Some(self.mac), Some(self.mtu), self.queues);
        let tap = TapOptions { mac, mtu, queues, up: false, ..TapOptions::default() };
        let new = self.netns.run(|| Link::open(LINK)).is_err();
        if new && self.kind.on_veth() {
            self.netns.add_veth(LINK, &self.switch, PORT).expect("a veth pair");
            let set_mac = || Link::open(LINK).and_then(|link| link.set_mac(self.mac));
            self.netns.run(set_mac).expect("set the address");
            self.netns.set_mtu(LINK, self.mtu).expect("set the MTU");
        }
        let port: Box<dyn Port> = match self.kind {
            Kind::Tap => Box::new(self.netns.run(|| Tap::create(LINK, &tap)).expect("a TAP")),
            Kind::TapPlain => Box::new(self.netns.run(|| TapPlain::create(LINK, &tap)).expect("a plain TAP")),
            Kind::AfPacket => {
                let options = AfPacketOptions { mtu, queues, ..AfPacketOptions::default() };
                Box::new(self.switch.run(|| AfPacket::open(PORT, &options)).expect("a packet socket"))
            }
            Kind::AfXdp => {
                let options = AfXdpOptions { mtu, ..AfXdpOptions::default() };
                Box::new(self.switch.run(|| AfXdp::open(PORT, &options)).expect("an AF_XDP socket"))
            }
        };
        if new {
            self.netns.add_address(LINK, self.v4, 24).expect("add the IPv4 address");
            self.netns.set_up(LINK, true).expect("set the interface up");
            wait_for_carrier(&[(&self.netns, LINK)]);
            if self.kind.on_veth() {
                wait_for_carrier(&[(&self.switch, PORT)]);
            }
            self.netns.add_address(LINK, self.v6, 64).expect("add the IPv6 address");
            // The kernel takes its time to make it a source, and then to take in what is sent to it.
            wait_until("the IPv6 address is used", || self.source_to_v6().is_ok_and(|source| source == self.v6));
            wait_until("the IPv6 address is the host's own", || self.takes_in_v6().unwrap_or(false));
        }
        port
    }

    /// The address that the host would send from, to another one of its IPv6 network.
    fn source_to_v6(&self) -> std::io::Result<IpAddr> {
        let IpAddr::V6(own) = self.v6 else { return Ok(self.v6) };
        let neighbour = Ipv6Addr::from_bits(own.to_bits() | 0xffff);
        self.netns.run(|| {
            let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
            socket.connect((neighbour, 9))?;
            Ok(socket.local_addr()?.ip())
        })
    }

    /// Whether there is a route that leads to the host itself.
    fn takes_in_v6(&self) -> std::io::Result<bool> {
        let IpAddr::V6(own) = self.v6 else { return Ok(true) };
        let routes = self.netns.run(|| std::fs::read_to_string("/proc/thread-self/net/ipv6_route"))?;
        let own = format!("{:032x} 80 ", own.to_bits());
        Ok(routes.lines().any(|route| route.starts_with(&own) && route.contains(LOCAL)))
    }

    /// A UDP socket of this host, on the address that is of the same version as `like`.
    pub fn udp(&self, like: IpAddr) -> UdpSocket {
        self.udp_at((self.address_like(like), 0).into())
    }

    /// A UDP socket of this host.
    pub fn udp_at(&self, address: SocketAddr) -> UdpSocket {
        let socket = self.netns.run(|| UdpSocket::bind(address)).expect("bind");
        patient(socket)
    }

    /// A listening TCP socket of this host.
    pub fn listen(&self, address: IpAddr, port: u16) -> TcpListener {
        self.netns.run(|| TcpListener::bind((address, port))).expect("listen")
    }

    /// A raw ICMP or ICMPv6 socket of this host. Datagrams of std's type carry what raw sockets do.
    pub fn icmp(&self, like: IpAddr) -> UdpSocket {
        let (family, protocol) = match like {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let open = || socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol);
        patient(self.netns.run(open).expect("a raw socket").into())
    }

    /// The host's address that is of the same version as `like`.
    pub fn address_like(&self, like: IpAddr) -> IpAddr {
        if like.is_ipv4() { self.v4 } else { self.v6 }
    }

    /// Sees what the host's interface receives from now on.
    pub fn capture(&self) -> Capture {
        let port = self.netns.run(|| AfPacket::open(LINK, &AfPacketOptions::default())).expect("a packet socket");
        let queue = port.queues(1).expect("bind the packet socket").pop().expect("a queue");
        Capture { queue }
    }
}

fn patient(socket: UdpSocket) -> UdpSocket {
    socket.set_read_timeout(Some(PATIENCE)).expect("set the timeout");
    socket
}

/// Waits until frames pass the links, which the kernel lets them a moment after they are up.
pub fn wait_for_carrier(links: &[(&Netns, &str)]) {
    for (netns, link) in links {
        let opened = netns.run(|| Link::open(link)).expect("open the link");
        wait_until("the link is up", || opened.is_running().expect("the link is there"));
        // The kernel says so before it is done; a change of the link waits until then.
        netns.set_up(link, true).expect("set the link up");
    }
}

/// A raw packet socket on a host's interface.
pub struct Capture {
    queue: Box<dyn PortQueue>,
}

impl Capture {
    /// Sends a frame as if the host had; false if there was no room for it.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        let mut outcomes = [TxOutcome::Dropped(DropReason::QueueFull)];
        self.queue.tx_burst(&[&Frame::from_bytes(bytes)], &mut outcomes);
        matches!(outcomes, [TxOutcome::Sent])
    }

    /// The frames received since the last time.
    pub fn take(&mut self) -> Vec<Frame> {
        let mut all = Vec::new();
        loop {
            let mut frames: Vec<_> = (0..CAPTURED).map(|_| Frame::with_capacity(MAX_FRAME_LEN)).collect();
            let count = self.queue.rx_burst(&mut frames).expect("the interface is there");
            if count == 0 {
                return all;
            }
            all.extend(frames.into_iter().take(count));
        }
    }
}
