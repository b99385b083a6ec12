//! The little of rtnetlink that labs and gateways need, one request after another on a blocking socket.
//!
//! A socket belongs to the network namespace of the thread that opened it, and stays there when the thread moves on.
//! No async runtime, because requests are a handful and each answers in microseconds; no `ip` binary, because starting
//! it costs more than everything it would do.
//!
//! Here are interfaces and what they need to come to life; [`routing`](super::routing) has what decides where packets
//! go.

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST};
use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage, State,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};

/// The loopback interface's index, in every namespace.
pub const LOOPBACK: u32 = 1;

/// What the kernel would not do.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refused to {what}: {source}")]
pub struct NetlinkError {
    what: String,
    /// Its reason.
    pub source: io::Error,
}

impl NetlinkError {
    /// The kernel would not do `what`.
    pub fn new(what: &str, source: impl Into<io::Error>) -> Self {
        Self { what: what.to_owned(), source: source.into() }
    }
}

pub(super) type Result<T> = std::result::Result<T, NetlinkError>;

/// One end of a pair of virtual Ethernet interfaces that is to be made.
#[derive(Clone, Copy, Debug)]
pub struct VethEnd<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its index; the kernel chooses when 0.
    pub index: u32,
    /// Its hardware address; the kernel chooses when `None`.
    pub mac: Option<[u8; 6]>,
}

/// An interface as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What somebody wrote on it.
    pub alias: Option<String>,
    /// Its hardware address.
    pub mac: Option<[u8; 6]>,
    /// Longest network-layer packet, in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Up, and with a carrier.
    pub running: bool,
}

impl LinkState {
    fn of(link: &LinkMessage) -> Self {
        let flags = link.header.flags;
        let mut state = Self {
            index: link.header.index,
            up: flags.contains(LinkFlags::Up),
            running: flags.contains(LinkFlags::Up | LinkFlags::Running),
            ..Self::default()
        };
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::IfName(name) => state.name.clone_from(name),
                LinkAttribute::IfAlias(alias) => state.alias = Some(alias.clone()),
                LinkAttribute::Address(bytes) => state.mac = bytes.as_slice().try_into().ok(),
                LinkAttribute::Mtu(mtu) => state.mtu = *mtu,
                _ => {}
            }
        }
        state
    }
}

/// What to change of an interface; `None` leaves it as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// Its hardware address.
    pub mac: Option<[u8; 6]>,
    /// Longest network-layer packet, in bytes.
    pub mtu: Option<u32>,
    /// What is written on it.
    pub alias: Option<String>,
}

/// A routing socket in the namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel gives no netlink socket.
    pub fn open() -> Result<Self> {
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
    pub fn set_up(&mut self, index: u32) -> Result<()> {
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
    pub fn is_up(&mut self, index: u32) -> Result<bool> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let answer = self.ask(RouteNetlinkMessage::GetLink(message), 0, || format!("tell about interface {index}"))?;
        let Some(RouteNetlinkMessage::NewLink(link)) = answer else { return Ok(false) };
        Ok(link.attributes.contains(&LinkAttribute::OperState(State::Up)))
    }

    /// What there is to know of the interface `name`; `None` if there is none.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn link(&mut self, name: &str) -> Result<Option<LinkState>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.ask(RouteNetlinkMessage::GetLink(message), 0, || format!("tell about the interface {name}")) {
            Ok(Some(RouteNetlinkMessage::NewLink(link))) => Ok(Some(LinkState::of(&link))),
            Ok(_) => Ok(None),
            Err(error) if error.source.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every interface of the namespace.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn links(&mut self) -> Result<Vec<LinkState>> {
        let answers =
            self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), || "list interfaces".to_owned())?;
        let links = answers.iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(LinkState::of(link)),
            _ => None,
        });
        Ok(links.collect())
    }

    /// Changes an interface: what is `None` stays.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn set_link(&mut self, index: u32, change: &LinkChange) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.extend(change.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
        message.attributes.extend(change.mtu.map(LinkAttribute::Mtu));
        message.attributes.extend(change.alias.clone().map(LinkAttribute::IfAlias));
        self.request(RouteNetlinkMessage::SetLink(message), 0, || format!("change interface {index}"))
    }

    /// Turns off the kernel's own IPv6 link-local address on an interface: it would not be usable for a second
    /// (duplicate address detection, RFC 4862 section 5.4).
    ///
    /// # Errors
    /// As the kernel says; a kernel without IPv6 is none.
    pub fn no_link_local(&mut self, index: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        message.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]));
        let what = || format!("turn off link-local addresses on interface {index}");
        match self.request(RouteNetlinkMessage::SetLink(message), 0, what) {
            Err(error) if error.source.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(()),
            other => other,
        }
    }

    /// Adds an address to an interface. It is usable at once: duplicate address detection is off for it.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn add_address(&mut self, index: u32, address: IpNet) -> Result<()> {
        self.add_address_of(index, address, None)
    }

    /// As [`add_address`](Self::add_address), with a note of who added it, which kernels before 5.18 forget.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn add_address_of(&mut self, index: u32, address: IpNet, protocol: Option<u8>) -> Result<()> {
        let mut message = address_message(index, address);
        message.attributes.extend(protocol.map(|owner| AddressAttribute::Protocol(owner.into())));
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.request(RouteNetlinkMessage::NewAddress(message), flags, || format!("add the address {address}"))
    }

    /// Takes an address from an interface.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn delete_address(&mut self, index: u32, address: IpNet) -> Result<()> {
        let message = address_message(index, address);
        self.request(RouteNetlinkMessage::DelAddress(message), 0, || format!("take away the address {address}"))
    }

    /// Makes a veth pair: `here` in this socket's namespace, `there` in the namespace that `netns` is open on.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn add_veth(&mut self, here: VethEnd<'_>, there: VethEnd<'_>, netns: impl AsFd, mtu: u32) -> Result<()> {
        let end = |end: VethEnd<'_>| {
            let mut message = LinkMessage::default();
            message.header.index = end.index;
            message.attributes.push(LinkAttribute::IfName(end.name.to_owned()));
            message.attributes.push(LinkAttribute::Mtu(mtu));
            message.attributes.extend(end.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
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
    pub fn forget_neighbour(&mut self, index: u32, ip: IpAddr) {
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
    pub fn delete(&mut self, index: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.request(RouteNetlinkMessage::DelLink(message), 0, || format!("delete interface {index}"))
    }

    pub(super) fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        what: impl Fn() -> String,
    ) -> Result<()> {
        self.ask(message, NLM_F_ACK | flags, what).map(|_| ())
    }

    /// Sends a request and returns the message that the kernel answers with, if it is not just its consent.
    pub(super) fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        what: impl Fn() -> String,
    ) -> Result<Option<RouteNetlinkMessage>> {
        let bytes = self.serialize(message, flags);
        self.exchange(&bytes).map_err(|source| NetlinkError { what: what(), source })
    }

    /// Sends a request for all of something and returns what comes.
    pub(super) fn dump(
        &mut self,
        message: RouteNetlinkMessage,
        what: impl Fn() -> String,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        let bytes = self.serialize(message, NLM_F_DUMP);
        self.collect(&bytes).map_err(|source| NetlinkError { what: what(), source })
    }

    fn collect(&mut self, request: &[u8]) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.socket.send(request, 0)?;
        let mut all = Vec::new();
        loop {
            let (answer, _) = self.socket.recv_from_full()?;
            let mut rest = &answer[..];
            while !rest.is_empty() {
                let message = parse(rest)?;
                // A message is padded to four bytes.
                let len = (message.header.length as usize).next_multiple_of(4).clamp(16, rest.len().max(16));
                rest = rest.get(len..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(message) => all.push(message),
                    NetlinkPayload::Done(_) => return Ok(all),
                    _ => {}
                }
            }
        }
    }

    fn serialize(&mut self, message: RouteNetlinkMessage, flags: u16) -> Vec<u8> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.sequence_number = self.sequence;
        header.flags = NLM_F_REQUEST | flags;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        bytes
    }

    fn exchange(&mut self, request: &[u8]) -> io::Result<Option<RouteNetlinkMessage>> {
        self.socket.send(request, 0)?;
        loop {
            let (answer, _) = self.socket.recv_from_full()?;
            let message = parse(&answer)?;
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

fn address_message(index: u32, address: IpNet) -> AddressMessage {
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
    message
}

fn parse(bytes: &[u8]) -> io::Result<NetlinkMessage<RouteNetlinkMessage>> {
    NetlinkMessage::deserialize(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}
