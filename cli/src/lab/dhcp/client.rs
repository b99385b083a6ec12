//! The client of a host with `dhcp: true`: it gets an address, keeps it for as long as the server lets it, and begins
//! again when it does not (RFC 2131, section 4.4).
//!
//! It is a thread in the host's network namespace. What it was given is the kernel's from then on; between two messages
//! the client has no socket open.

use super::line::{Line, To};
use super::message::{CLIENT_PORT, Message, option};
use crate::lab::namespace::default_route;
use crate::lab::topology::resolved::Mac;
use ipnet::{IpNet, Ipv4Net};
use nix::net::if_::if_nametoindex;
use sluice_switch::host::netlink::{Netlink, NetlinkError};
use smoltcp::wire::DhcpMessageType as Kind;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// How long the first answer is waited for; every further attempt waits twice as long, up to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(16);
/// How often an address is asked for that was offered.
const REQUESTS: usize = 4;
/// The lease that a server means which names none.
const LEASE: Duration = Duration::from_secs(3600);
/// Pause before a client begins again.
const PAUSE: Duration = Duration::from_secs(1);
/// Least time between two attempts to renew a lease (RFC 2131 has 60 seconds, for leases of days).
const RENEWAL_WAIT: Duration = Duration::from_secs(1);

/// A host's interface that has its address by DHCP.
#[derive(Clone, Debug)]
pub(super) struct Client {
    /// The host, which tells the server its name.
    pub(super) host: String,
    /// The interface.
    pub(super) interface: String,
    /// Its MAC address.
    pub(super) mac: Mac,
}

/// What a server has given.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lease {
    address: Ipv4Net,
    router: Option<Ipv4Addr>,
    server: To,
    /// When to ask the server for more time, when everybody, and when it is over.
    renew: Duration,
    rebind: Duration,
    end: Duration,
}

/// How asking for more time ended.
enum Renewed {
    Lease(Lease),
    Refused,
    Unanswered,
}

impl Client {
    /// Asks for an address after a pause and keeps it, for ever; to be called in the host's network namespace. `told` is called
    /// each time there is an address or something is in the way that waiting does not help.
    pub(super) fn run(&self, pause: Duration, told: impl Fn(Result<Ipv4Net, String>)) {
        thread::sleep(pause);
        loop {
            match self.ask() {
                Ok(lease) => match self.put_in(&lease) {
                    Ok(()) => {
                        told(Ok(lease.address));
                        self.keep(lease);
                    }
                    Err(error) => told(Err(error.to_string())),
                },
                Err(problem) => told(Err(problem)),
            }
            thread::sleep(PAUSE);
        }
    }

    /// Asks until a server has given an address.
    fn ask(&self) -> Result<Lease, String> {
        let mut line = Line::open(&self.interface, self.mac).map_err(|error| error.to_string())?;
        let exchange = random();
        let discover = self.message(Kind::Discover, exchange);
        let mut wait = FIRST_WAIT;
        loop {
            line.send(&discover, To::ALL);
            let end = Instant::now() + wait + some_of(FIRST_WAIT);
            wait = (wait * 2).min(LONGEST_WAIT);
            while let Some((offer, _)) = receive(&mut line, exchange, self.mac, end) {
                let server = offer.address(option::SERVER);
                if let (Kind::Offer, Some(server)) = (offer.kind, server)
                    && let Some(lease) = self.request(&mut line, exchange, offer.yours, server)
                {
                    return Ok(lease);
                }
            }
        }
    }

    /// Asks for the address that was offered; `None` if the server does not give it after all.
    fn request(&self, line: &mut Line, exchange: u32, address: Ipv4Addr, server: Ipv4Addr) -> Option<Lease> {
        let request = self.message(Kind::Request, exchange);
        let request = request.with(option::REQUESTED, address.octets()).with(option::SERVER, server.octets());
        let mut wait = FIRST_WAIT;
        for _ in 0..REQUESTS {
            line.send(&request, To::ALL);
            let end = Instant::now() + wait + some_of(FIRST_WAIT);
            wait *= 2;
            while let Some((answer, from)) = receive(line, exchange, self.mac, end) {
                match answer.kind {
                    Kind::Ack => return read_lease(&answer, from),
                    Kind::Nak => return None,
                    _ => {}
                }
            }
        }
        None
    }

    /// Keeps an address for as long as there are leases for it, and takes it out then.
    fn keep(&self, mut lease: Lease) {
        let mut begin = Instant::now();
        loop {
            thread::sleep(lease.renew.saturating_sub(begin.elapsed()));
            // It counts from when it was asked for (RFC 2131, section 4.4.5).
            let asked = Instant::now();
            match self.renew(&lease, begin) {
                Renewed::Lease(next) => {
                    if next.address != lease.address || next.router != lease.router {
                        self.take_out(&lease);
                        if self.put_in(&next).is_err() {
                            return;
                        }
                    }
                    (lease, begin) = (next, asked);
                }
                Renewed::Refused => return self.take_out(&lease),
                Renewed::Unanswered if begin.elapsed() >= lease.end => return self.take_out(&lease),
                Renewed::Unanswered => {}
            }
        }
    }

    /// Asks once for more time: the server that gave the lease, or everybody once that has not answered for long.
    fn renew(&self, lease: &Lease, begin: Instant) -> Renewed {
        let passed = begin.elapsed();
        let (to, until) = if passed < lease.rebind { (lease.server, lease.rebind) } else { (To::ALL, lease.end) };
        // Half of what is left, then half of that (RFC 2131, section 4.4.5).
        let wait = (until.saturating_sub(passed) / 2).max(RENEWAL_WAIT).min(lease.end.saturating_sub(passed));
        let end = Instant::now() + wait;
        let Ok(mut line) = Line::open(&self.interface, self.mac) else {
            thread::sleep(wait);
            return Renewed::Unanswered;
        };
        // Somebody has to be at the port, or the kernel tells the server that nobody is. The messages come by the line.
        let _listener = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, CLIENT_PORT));
        let exchange = random();
        line.send(&Message { client: lease.address.addr(), ..self.message(Kind::Request, exchange) }, to);
        while let Some((answer, from)) = receive(&mut line, exchange, self.mac, end) {
            match (answer.kind, read_lease(&answer, from)) {
                (Kind::Ack, Some(lease)) => return Renewed::Lease(lease),
                (Kind::Nak, _) => return Renewed::Refused,
                _ => {}
            }
        }
        Renewed::Unanswered
    }

    fn message(&self, kind: Kind, exchange: u32) -> Message {
        let wanted = [option::MASK, option::ROUTER, option::DNS, option::HOST_NAME, option::DOMAIN, option::MTU];
        Message::new(kind, exchange, self.mac)
            .with(option::WANTED, wanted)
            .with(option::HOST_NAME, self.host.as_bytes())
    }

    /// Gives the interface what was leased.
    fn put_in(&self, lease: &Lease) -> Result<(), NetlinkError> {
        let (mut netlink, index) = self.netlink()?;
        netlink.add_address(index, IpNet::V4(lease.address))?;
        lease.router.map_or(Ok(()), |router| netlink.add_route(&default_route(IpAddr::V4(router), index)))
    }

    /// Takes it away; the kernel takes its routes with it.
    fn take_out(&self, lease: &Lease) {
        tracing::warn!(host = self.host, address = %lease.address, "its lease is over");
        let gone =
            self.netlink().and_then(|(mut netlink, index)| netlink.delete_address(index, IpNet::V4(lease.address)));
        if let Err(error) = gone {
            tracing::warn!(host = self.host, %error, "cannot take its address away");
        }
    }

    fn netlink(&self) -> Result<(Netlink, u32), NetlinkError> {
        let index = if_nametoindex(self.interface.as_str());
        let index = index.map_err(|errno| NetlinkError::new("find the interface", errno))?;
        Ok((Netlink::open()?, index))
    }
}

/// The next answer to this exchange.
fn receive(line: &mut Line, exchange: u32, mac: Mac, end: Instant) -> Option<(Message, Mac)> {
    loop {
        let (message, from) = line.receive(end)?;
        if message.exchange == exchange && message.mac == mac {
            return Some((message, from));
        }
    }
}

/// What an acknowledgement says; `None` if it lacks what a lease needs.
fn read_lease(ack: &Message, from: Mac) -> Option<Lease> {
    let mask = ack.address(option::MASK)?;
    let server = To { mac: from, ip: ack.address(option::SERVER)? };
    let end = ack.number(option::LEASE).map_or(LEASE, |seconds| Duration::from_secs(seconds.into()));
    let time = |option, usual: Duration| {
        ack.number(option).map_or(usual, |seconds| Duration::from_secs(seconds.into())).min(end)
    };
    let rebind = time(option::REBINDING, end * 7 / 8);
    let renew = time(option::RENEWAL, end / 2).min(rebind);
    let address = Ipv4Net::with_netmask(ack.yours, mask).ok()?;
    Some(Lease { address, router: ack.address(option::ROUTER), server, renew, rebind, end })
}

/// Up to half of a time, so that clients that begin together do not go on together.
fn some_of(time: Duration) -> Duration {
    time * (random() >> 16) / (1 << 17)
}

/// A number that no other client has at the same time.
fn random() -> u32 {
    let bytes = RandomState::new().build_hasher().finish().to_ne_bytes();
    u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_has_its_times_from_the_server_or_shares_of_the_whole() {
        let from = Mac([2, 0, 0, 0, 0, 1]);
        let ack = Message { yours: [10, 0, 0, 2].into(), ..Message::new(Kind::Ack, 1, from) };
        assert_eq!(read_lease(&ack, from), None, "no mask, no server");
        let ack = ack.with(option::MASK, [255, 255, 255, 0]).with(option::SERVER, [10, 0, 0, 254]);
        let times =
            |ack: &Message| read_lease(ack, from).map(|l| [l.renew, l.rebind, l.end].map(|time| time.as_secs()));
        assert_eq!(times(&ack), Some([1800, 3150, 3600]));
        let ack = ack.with(option::LEASE, 80_u32.to_be_bytes());
        assert_eq!(times(&ack), Some([40, 70, 80]));
        // Times behind the end are not the server's to give.
        let ack = ack.with(option::RENEWAL, 200_u32.to_be_bytes()).with(option::REBINDING, 60_u32.to_be_bytes());
        assert_eq!(times(&ack), Some([60, 60, 80]));
        let ack = ack.with(option::ROUTER, [10, 0, 0, 1]);
        let read = read_lease(&ack, from).unwrap();
        assert_eq!((read.address.to_string(), read.router), ("10.0.0.2/24".to_owned(), Some([10, 0, 0, 1].into())));
    }
}
