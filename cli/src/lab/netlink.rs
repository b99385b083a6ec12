//! The little of rtnetlink that a lab needs, one request after another on a blocking socket.
//!
//! A socket belongs to the network namespace of the thread that opened it, and stays there when the thread moves on.
//! No async runtime, because a lab's requests are a handful per host and each answers in microseconds; no `ip` binary,
//! because starting it costs more than everything it would do.

use super::topology::resolved::Mac;
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};
use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage, State as LinkState,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};

/// The loopback interface's index, in every namespace.
pub(crate) const LOOPBACK: u32 = 1;

/// What the kernel would not do.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refused to {what}: {source}")]
pub(crate) struct NetlinkError {
    what: String,
    /// Its reason.
    pub(crate) source: io::Error,
}

impl NetlinkError {
    /// The kernel would not do `what`.
    pub(crate) fn new(what: &str, source: impl Into<io::Error>) -> Self {
        Self { what: what.to_owned(), source: source.into() }
    }
}

type Result<T> = std::result::Result<T, NetlinkError>;

/// One end of a pair of virtual Ethernet interfaces that is to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VethEnd<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Its index; the kernel chooses when 0.
    pub(crate) index: u32,
    /// Its hardware address; the kernel chooses when `None`.
    pub(crate) mac: Option<Mac>,
}

/// A routing socket in the namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel gives no netlink socket.
    pub(crate) fn open() -> Result<Self> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // Answers then carry only the header of the request they refuse.
            socket.set_cap_ack(true)?;
            Ok(socket)
        };
        open()
            .map(|socket| Self { socket, sequence: 0 })
            .map_err(|source: io::Error| NetlinkError::new("open a netlink socket", source))
    }

    /// Sets an interface up.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn set_up(&mut self, index: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.request(RouteNetlinkMessage::SetLink(message), 0, || format!("set interface {index} up"))
    }

    /// Whether an interface's link is up for good: the kernel has noticed that it has a carrier and lets frames through.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn is_up(&mut self, index: u32) -> Result<bool> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let answer = self.ask(RouteNetlinkMessage::GetLink(message), 0, || format!("tell about interface {index}"))?;
        let Some(RouteNetlinkMessage::NewLink(link)) = answer else { return Ok(false) };
        Ok(link.attributes.contains(&LinkAttribute::OperState(LinkState::Up)))
    }

    /// Turns off the kernel's own IPv6 link-local address on an interface: it would not be usable for a second
    /// (duplicate address detection, RFC 4862 section 5.4).
    ///
    /// # Errors
    /// As the kernel says; a kernel without IPv6 is none.
    pub(crate) fn no_link_local(&mut self, index: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        message.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]));
        let what = || format!("turn off link-local addresses on interface {index}");
        match self.request(RouteNetlinkMessage::SetLink(message), 0, what) {
            Err(error) if error.source.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) => Ok(()),
            other => other,
        }
    }

    /// Adds an address to an interface. It is usable at once: duplicate address detection is off for it.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn add_address(&mut self, index: u32, address: IpNet) -> Result<()> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = address.prefix_len();
        message.header.scope = AddressScope::Universe;
        message.attributes.push(AddressAttribute::Local(address.addr()));
        message.attributes.push(AddressAttribute::Address(address.addr()));
        match address {
            IpNet::V4(net) => {
                message.header.family = AddressFamily::Inet;
                if net.prefix_len() < 31 && net.broadcast() != Ipv4Addr::BROADCAST {
                    message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
                }
            }
            IpNet::V6(_) => {
                message.header.family = AddressFamily::Inet6;
                message.header.flags = AddressHeaderFlags::Nodad;
                message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            }
        }
        if matches!(address.addr(), IpAddr::V6(ip) if ip.is_unicast_link_local()) {
            message.header.scope = AddressScope::Link;
        }
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.request(RouteNetlinkMessage::NewAddress(message), flags, || format!("add the address {address}"))
    }

    /// Makes a veth pair: `here` in this socket's namespace, `there` in the namespace that `netns` is open on.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn add_veth(&mut self, here: VethEnd<'_>, there: VethEnd<'_>, netns: impl AsFd, mtu: u32) -> Result<()> {
        let end = |end: VethEnd<'_>| {
            let mut message = LinkMessage::default();
            message.header.index = end.index;
            message.attributes.push(LinkAttribute::IfName(end.name.to_owned()));
            message.attributes.push(LinkAttribute::Mtu(mtu));
            message.attributes.extend(end.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
            message
        };
        let mut peer = end(there);
        peer.attributes.push(LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd()));
        let mut message = end(here);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        let what = || format!("make the veth pair {} - {}", here.name, there.name);
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, what)
    }

    /// Forgets the link-layer address of a neighbour; one that is not known is fine.
    pub(crate) fn forget_neighbour(&mut self, index: u32, ip: IpAddr) {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = index;
        let (family, address) = match ip {
            IpAddr::V4(ip) => (AddressFamily::Inet, NeighbourAddress::Inet(ip)),
            IpAddr::V6(ip) => (AddressFamily::Inet6, NeighbourAddress::Inet6(ip)),
        };
        message.header.family = family;
        message.attributes.push(NeighbourAttribute::Destination(address));
        // An entry that stays costs room and nothing else.
        _ = self.request(RouteNetlinkMessage::DelNeighbour(message), 0, String::new);
    }

    /// Deletes an interface.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn delete(&mut self, index: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.request(RouteNetlinkMessage::DelLink(message), 0, || format!("delete interface {index}"))
    }

    fn request(&mut self, message: RouteNetlinkMessage, flags: u16, what: impl Fn() -> String) -> Result<()> {
        self.ask(message, NLM_F_ACK | flags, what).map(|_| ())
    }

    /// Sends a request and returns the message that the kernel answers with, if it is not just its consent.
    fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        what: impl Fn() -> String,
    ) -> Result<Option<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.sequence_number = self.sequence;
        header.flags = NLM_F_REQUEST | flags;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.exchange(&bytes).map_err(|source| NetlinkError { what: what(), source })
    }

    fn exchange(&mut self, request: &[u8]) -> io::Result<Option<RouteNetlinkMessage>> {
        self.socket.send(request, 0)?;
        loop {
            let (answer, _) = self.socket.recv_from_full()?;
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            if message.header.sequence_number != self.sequence {
                continue;
            }
            return match message.payload {
                NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
                NetlinkPayload::InnerMessage(message) => Ok(Some(message)),
                _ => Ok(None),
            };
        }
    }
}
