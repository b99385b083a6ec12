//! A server's thread: messages in, what [`Leases`] decides, messages out.
//!
//! An answer goes to the address that the client has or is to have, as RFC 2131 (section 4.1) asks for; the kernel, which would
//! ask who has that address, is told the client's MAC address before. It goes to everybody on the link where the client wants
//! that, or is to give its address up.

use super::leases::{Answer, Leases};
use super::message::{CLIENT_PORT, Message, SERVER_PORT, option};
use super::record::Record;
use crate::lab::topology::resolved::Mac;
use ipnet::Ipv4Net;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{setsockopt, sockopt};
use sluice_switch::host::netlink::Netlink;
use sluice_switch::host::routing::HostNeighbour;
use smoltcp::wire::DhcpMessageType as Kind;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

/// Longest message that is read.
const MESSAGE_MAX: usize = 1500;

/// What clients of one network are told besides their addresses.
pub(super) struct Network {
    /// The VLAN, for the log.
    pub(super) vlan: String,
    /// The server's address and the network's prefix length.
    pub(super) server: Ipv4Net,
    pub(super) router: Option<Ipv4Addr>,
    /// The domain of the lab's names.
    pub(super) domain: String,
    pub(super) lease: Duration,
    /// Largest packet, for those who are not below.
    pub(super) mtu: u32,
    /// The nodes by their MAC addresses: name and largest packet.
    pub(super) nodes: BTreeMap<Mac, (String, u32)>,
}

/// A server of DHCP.
pub(super) struct Server {
    socket: UdpSocket,
    netlink: Netlink,
    /// Index of the interface.
    link: u32,
    network: Network,
    leases: Leases,
    record: Record,
    begin: Instant,
}

impl Server {
    /// Opens the server's port at an interface of the calling thread's network namespace.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn open(interface: &str, network: Network, leases: Leases, record: Record) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, SERVER_PORT))?;
        // What goes to everybody needs an interface to go by, since no route says which.
        setsockopt(&socket, sockopt::BindToDevice, &OsString::from(interface))?;
        socket.set_broadcast(true)?;
        let link = if_nametoindex(interface)?;
        let netlink = Netlink::open().map_err(|error| error.source)?;
        Ok(Self { socket, netlink, link, network, leases, record, begin: Instant::now() })
    }

    /// Answers until the socket fails, which it does when the lab ends.
    pub(super) fn run(mut self) {
        let mut bytes = [0; MESSAGE_MAX];
        while let Ok((count, _)) = self.socket.recv_from(&mut bytes) {
            let message = bytes.get(..count).and_then(Message::decode);
            if let Some((answer, to)) = message.and_then(|message| self.answer(&message, self.begin.elapsed())) {
                self.send(&answer, to);
            }
        }
    }

    /// Sends an answer. One that cannot be sent is lost, and the client asks again.
    fn send(&mut self, answer: &Message, to: To) {
        let send = |ip| _ = self.socket.send_to(&answer.encode(), SocketAddrV4::new(ip, CLIENT_PORT));
        match to {
            To::All => send(Ipv4Addr::BROADCAST),
            To::Known(ip) => send(ip),
            To::Fresh(ip) => {
                let neighbour = HostNeighbour { link: self.link, address: IpAddr::V4(ip), mac: answer.mac.0 };
                let known = self.netlink.set_neighbour(&neighbour).is_ok();
                send(if known { ip } else { Ipv4Addr::BROADCAST });
                // Another may have the address later.
                self.netlink.forget_neighbour(self.link, neighbour.address);
            }
        }
    }

    /// The answer to a message, and where it goes.
    fn answer(&mut self, message: &Message, now: Duration) -> Option<(Message, To)> {
        // Of another network, by a relay: there is none in a lab, whose servers are in their networks.
        if !message.relay.is_unspecified() {
            return None;
        }
        let answer = self.leases.answer(message, now);
        self.record(message, answer);
        let answer = answer?;
        self.log(message, answer);
        Some((self.network.message(message, answer), To::of(message, answer)))
    }

    fn record(&mut self, message: &Message, answer: Option<Answer>) {
        let node = self.network.nodes.get(&message.mac).map(|(name, _)| name.as_str());
        let recorded = match answer {
            Some(Answer::Ack(address)) => self.record.hold(address, message.mac, node, self.network.lease),
            _ if matches!(message.kind, Kind::Release | Kind::Decline) => self.record.release(message.mac),
            _ => Ok(()),
        };
        if let Err(error) = recorded {
            tracing::warn!(vlan = self.network.vlan, %error, "cannot write down who has which address");
        }
    }

    fn log(&self, message: &Message, answer: Answer) {
        let (vlan, mac) = (&self.network.vlan, message.mac);
        let host = self.network.nodes.get(&mac).map_or("-", |(name, _)| name);
        match answer {
            Answer::Ack(address) => tracing::info!(%vlan, %mac, host, %address, "leased"),
            Answer::Nak => tracing::info!(%vlan, %mac, host, "refused the address that was asked for"),
            Answer::Offer(_) | Answer::Inform => {}
        }
    }
}

impl Network {
    fn message(&self, request: &Message, answer: Answer) -> Message {
        let kind = match answer {
            Answer::Offer(_) => Kind::Offer,
            Answer::Ack(_) | Answer::Inform => Kind::Ack,
            Answer::Nak => Kind::Nak,
        };
        let mut message = Message::new(kind, request.exchange, request.mac);
        message.broadcast = request.broadcast;
        let message = message.with(option::SERVER, self.server.addr().octets());
        match answer {
            Answer::Nak => message,
            Answer::Inform => Message { client: request.client, ..self.add_options(message, request) },
            Answer::Offer(address) | Answer::Ack(address) => {
                let client = if kind == Kind::Ack { request.client } else { Ipv4Addr::UNSPECIFIED };
                let lease = u32::try_from(self.lease.as_secs()).unwrap_or(u32::MAX);
                let [renewal, rebinding] = [lease / 2, lease - lease / 8].map(u32::to_be_bytes);
                let message = self.add_options(message, request).with(option::LEASE, lease.to_be_bytes());
                let message = message.with(option::RENEWAL, renewal).with(option::REBINDING, rebinding);
                Message { client, yours: address, ..message }
            }
        }
    }

    /// Adds what the client wants to know, or all there is if it does not say.
    fn add_options(&self, mut message: Message, request: &Message) -> Message {
        let node = self.nodes.get(&request.mac);
        let mtu = node.map_or(self.mtu, |(_, mtu)| *mtu);
        let options = [
            (option::MASK, Some(self.server.netmask().octets().to_vec())),
            (option::ROUTER, self.router.map(|router| router.octets().to_vec())),
            (option::DNS, Some(self.server.addr().octets().to_vec())),
            (option::HOST_NAME, node.map(|(name, _)| name.clone().into_bytes())),
            (option::DOMAIN, Some(self.domain.clone().into_bytes())),
            (option::MTU, u16::try_from(mtu).ok().map(|mtu| mtu.to_be_bytes().to_vec())),
            (option::BROADCAST, Some(self.server.broadcast().octets().to_vec())),
        ];
        let wanted = request.options.get(&option::WANTED);
        for (number, data) in options {
            if let Some(data) = data.filter(|_| wanted.is_none_or(|wanted| wanted.contains(&number))) {
                message.options.insert(number, data);
            }
        }
        message
    }
}

/// Where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    /// Everybody on the link.
    All,
    /// A client that has this address.
    Known(Ipv4Addr),
    /// A client that is to have it.
    Fresh(Ipv4Addr),
}

impl To {
    fn of(request: &Message, answer: Answer) -> Self {
        match answer {
            // A client that must give its address up does not hear what is sent there.
            Answer::Nak => Self::All,
            _ if !request.client.is_unspecified() => Self::Known(request.client),
            Answer::Offer(address) | Answer::Ack(address) if !request.broadcast => Self::Fresh(address),
            _ => Self::All,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 99]);

    fn network() -> Network {
        Network {
            vlan: "blue".to_owned(),
            server: "10.0.10.254/24".parse().unwrap(),
            router: Some([10, 0, 10, 1].into()),
            domain: "office".to_owned(),
            lease: Duration::from_secs(3600),
            mtu: 1500,
            nodes: BTreeMap::from([(NODE, ("h1".to_owned(), 9000))]),
        }
    }

    #[test]
    fn an_offer_says_all_that_a_host_needs() {
        let offer = network().message(&Message::new(Kind::Discover, 9, NODE), Answer::Offer([10, 0, 10, 2].into()));
        assert_eq!((offer.kind, offer.exchange, offer.yours), (Kind::Offer, 9, Ipv4Addr::new(10, 0, 10, 2)));
        let option = |number| offer.options.get(&number).map_or(&[][..], Vec::as_slice);
        assert_eq!(option(option::MASK), [255, 255, 255, 0]);
        assert_eq!(option(option::ROUTER), [10, 0, 10, 1]);
        assert_eq!(option(option::DNS), [10, 0, 10, 254]);
        assert_eq!((option(option::HOST_NAME), option(option::DOMAIN)), (&b"h1"[..], &b"office"[..]));
        assert_eq!(option(option::MTU), 9000_u16.to_be_bytes());
        let times = [option::LEASE, option::RENEWAL, option::REBINDING].map(|number| offer.number(number));
        assert_eq!(times, [3600, 1800, 3150].map(Some));
    }

    #[test]
    fn a_client_is_told_what_it_asks_for() {
        let request = Message::new(Kind::Discover, 9, OTHER).with(option::WANTED, [option::MASK, option::MTU]);
        let offer = network().message(&request, Answer::Offer([10, 0, 10, 3].into()));
        let numbers: Vec<_> = offer.options.keys().copied().collect();
        let always = [option::LEASE, option::SERVER, option::RENEWAL, option::REBINDING];
        assert_eq!(numbers, [[option::MASK, option::MTU].as_slice(), &always].concat());
        let nak = network().message(&request, Answer::Nak);
        assert_eq!(nak.options.keys().copied().collect::<Vec<_>>(), [option::SERVER]);
        let asking = Message { client: [10, 0, 10, 77].into(), ..Message::new(Kind::Inform, 9, OTHER) };
        let told = network().message(&asking, Answer::Inform);
        assert_eq!((told.kind, told.yours, told.number(option::LEASE)), (Kind::Ack, Ipv4Addr::UNSPECIFIED, None));
    }

    #[test]
    fn an_answer_goes_where_the_client_hears_it() {
        let address = Ipv4Addr::new(10, 0, 10, 3);
        let new = Message::new(Kind::Request, 9, OTHER);
        assert_eq!(To::of(&new, Answer::Ack(address)), To::Fresh(address));
        assert_eq!(To::of(&Message { broadcast: true, ..new.clone() }, Answer::Offer(address)), To::All);
        let renewing = Message { client: address, ..new };
        assert_eq!(To::of(&renewing, Answer::Ack(address)), To::Known(address));
        assert_eq!(To::of(&renewing, Answer::Inform), To::Known(address));
        assert_eq!(To::of(&renewing, Answer::Nak), To::All);
    }
}
