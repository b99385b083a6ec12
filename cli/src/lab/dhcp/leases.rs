//! Who has which address: what a server of DHCP decides (RFC 2131, section 4.3), without a clock or a socket.
//!
//! The lab's nodes have the addresses that the file leads to, each by its MAC address. Whoever else asks gets one of the
//! rest, the lowest that is free, and the same one again as long as nobody else needed it.
//!
//! The server is the only one of its network, so it speaks for all of it: an address that cannot be right is refused at
//! once, and one that is free is confirmed although the server has not heard of the client.

use super::message::{Message, option};
use crate::lab::topology::resolved::Mac;
use ipnet::Ipv4Net;
use smoltcp::wire::DhcpMessageType as Kind;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

/// How long an address that was offered is kept for the client.
const OFFERED: Duration = Duration::from_secs(30);
/// How long an address that a client found in use is given to nobody.
const DECLINED: Duration = Duration::from_secs(600);
/// Most leases of clients that are no nodes of the lab.
const LEASES_MAX: usize = 65_536;

/// The addresses of one network. Times count from any moment, as long as it is the same one.
pub(super) struct Leases {
    /// The server's own address.
    server: Ipv4Addr,
    subnet: Ipv4Net,
    lease: Duration,
    /// Addresses of nodes by their MAC addresses.
    reserved: BTreeMap<Mac, Ipv4Addr>,
    /// Addresses that are not for others than their nodes: theirs, those of gateways, the server's.
    taken: BTreeSet<Ipv4Addr>,
    given: BTreeMap<Ipv4Addr, Lease>,
    declined: BTreeMap<Ipv4Addr, Duration>,
}

/// A lease of a client that is no node.
struct Lease {
    client: Vec<u8>,
    until: Duration,
}

/// What a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It may have this address.
    Offer(Ipv4Addr),
    /// It has this address now.
    Ack(Ipv4Addr),
    /// It has an address by other means; this is what else is to be known.
    Inform,
    /// It must not use the address that it asked for.
    Nak,
}

impl Leases {
    /// The addresses of `subnet`, of which `taken` are in use already, those of `reserved` among them.
    pub(super) fn new(
        server: Ipv4Addr,
        subnet: Ipv4Net,
        lease: Duration,
        reserved: BTreeMap<Mac, Ipv4Addr>,
        mut taken: BTreeSet<Ipv4Addr>,
    ) -> Self {
        taken.insert(server);
        Self { server, subnet, lease, reserved, taken, given: BTreeMap::new(), declined: BTreeMap::new() }
    }

    /// What a client is answered; nothing if it only said something, or means another server.
    pub(super) fn answer(&mut self, message: &Message, now: Duration) -> Option<Answer> {
        let named = message.address(option::SERVER);
        let requested = message.address(option::REQUESTED);
        if named.is_some_and(|server| server != self.server) {
            return None;
        }
        match message.kind {
            Kind::Discover => {
                let address = self.choose(message, now)?;
                self.give(message, address, now + OFFERED);
                Some(Answer::Offer(address))
            }
            Kind::Request => {
                // A client that renews has the address already.
                let wanted = requested.or_else(|| (!message.client.is_unspecified()).then_some(message.client))?;
                if !self.may_have(message, wanted, now) {
                    return Some(Answer::Nak);
                }
                self.give(message, wanted, now + self.lease);
                Some(Answer::Ack(wanted))
            }
            Kind::Inform => Some(Answer::Inform),
            Kind::Release => {
                if self.given.get(&message.client).is_some_and(|lease| lease.client == identity(message)) {
                    self.given.remove(&message.client);
                }
                None
            }
            Kind::Decline => {
                let address = requested.filter(|address| self.may_have(message, *address, now))?;
                self.given.remove(&address);
                self.declined.insert(address, now + DECLINED);
                None
            }
            Kind::Offer | Kind::Ack | Kind::Nak | Kind::Unknown(_) => None,
        }
    }

    /// The address for a client that has none: its node's, the one that it had, the one that it would like, or the lowest
    /// that is free.
    fn choose(&mut self, message: &Message, now: Duration) -> Option<Ipv4Addr> {
        let client = identity(message);
        let reserved = self.reserved.get(&message.mac).copied();
        let had = self.given.iter().find(|(_, lease)| lease.client == client).map(|(address, _)| *address);
        let known = [reserved, had, message.address(option::REQUESTED)];
        let known = known.into_iter().flatten().find(|address| self.may_have(message, *address, now));
        if known.is_some() {
            return known;
        }
        let fresh = self.subnet.hosts().find(|ip| !self.given.contains_key(ip) && self.may_have(message, *ip, now));
        // Then one whose time is over.
        fresh.or_else(|| self.given.keys().copied().find(|ip| self.may_have(message, *ip, now)))
    }

    /// Whether this client may use the address.
    fn may_have(&self, message: &Message, address: Ipv4Addr, now: Duration) -> bool {
        if self.declined.get(&address).is_some_and(|until| *until > now) {
            return false;
        }
        if self.reserved.get(&message.mac) == Some(&address) {
            return true;
        }
        let is_host = self.subnet.contains(&address)
            && (self.subnet.prefix_len() > 30 || ![self.subnet.network(), self.subnet.broadcast()].contains(&address));
        let free = |lease: &Lease| lease.until <= now || lease.client == identity(message);
        is_host && !self.taken.contains(&address) && self.given.get(&address).is_none_or(free)
    }

    fn give(&mut self, message: &Message, address: Ipv4Addr, until: Duration) {
        if self.reserved.get(&message.mac) == Some(&address) {
            return;
        }
        let client = identity(message);
        self.given.retain(|ip, lease| *ip == address || lease.client != client);
        if self.given.len() < LEASES_MAX || self.given.contains_key(&address) {
            self.given.insert(address, Lease { client, until });
        }
    }
}

/// What a client is known by: what it calls itself, or else its MAC address.
fn identity(message: &Message) -> Vec<u8> {
    message.options.get(&option::CLIENT).cloned().unwrap_or_else(|| message.mac.0.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 10, 6);
    const NODE: u8 = 1;

    /// A /29 with a gateway .1, a node .2 and the server .6: others have .3 to .5.
    fn leases() -> Leases {
        let reserved = BTreeMap::from([(mac(NODE), ip(2))]);
        let lease = Duration::from_secs(100);
        Leases::new(SERVER, "10.0.10.0/29".parse().unwrap(), lease, reserved, BTreeSet::from([ip(1), ip(2)]))
    }

    fn mac(last: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, last])
    }

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 10, last)
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn message(kind: Kind, client: u8) -> Message {
        Message::new(kind, 1, mac(client))
    }

    fn discover(leases: &mut Leases, client: u8, now: u64) -> Option<Answer> {
        leases.answer(&message(Kind::Discover, client), at(now))
    }

    /// As a client does that chose our offer.
    fn select(leases: &mut Leases, client: u8, address: Ipv4Addr, now: u64) -> Option<Answer> {
        let request = message(Kind::Request, client).with(option::REQUESTED, address.octets());
        leases.answer(&request.with(option::SERVER, SERVER.octets()), at(now))
    }

    fn renew(leases: &mut Leases, client: u8, address: Ipv4Addr, now: u64) -> Option<Answer> {
        leases.answer(&Message { client: address, ..message(Kind::Request, client) }, at(now))
    }

    #[test]
    fn a_node_gets_its_own_address_and_others_the_rest_until_none_is_left() {
        let mut leases = leases();
        assert_eq!(discover(&mut leases, NODE, 0), Some(Answer::Offer(ip(2))));
        assert_eq!(select(&mut leases, NODE, ip(2), 0), Some(Answer::Ack(ip(2))));
        for (client, last) in [(10, 3), (11, 4), (12, 5)] {
            assert_eq!(discover(&mut leases, client, 0), Some(Answer::Offer(ip(last))));
            assert_eq!(select(&mut leases, client, ip(last), 0), Some(Answer::Ack(ip(last))));
        }
        assert_eq!(discover(&mut leases, 13, 99), None);
        // At 100 seconds the leases are over; the node's address is still its own.
        assert_eq!(discover(&mut leases, 13, 100), Some(Answer::Offer(ip(3))));
        assert_eq!(discover(&mut leases, NODE, 100), Some(Answer::Offer(ip(2))));
    }

    #[test]
    fn an_offer_is_kept_for_a_while_and_a_lease_is_found_again() {
        let mut leases = leases();
        assert_eq!(discover(&mut leases, 10, 0), Some(Answer::Offer(ip(3))));
        assert_eq!(discover(&mut leases, 11, 1), Some(Answer::Offer(ip(4))));
        assert_eq!(select(&mut leases, 11, ip(4), 1), Some(Answer::Ack(ip(4))));
        // The lowest that was never given comes before one that was offered in vain, and a client's own before both.
        assert_eq!(discover(&mut leases, 12, 40), Some(Answer::Offer(ip(5))));
        assert_eq!(discover(&mut leases, 11, 200), Some(Answer::Offer(ip(4))));
        assert_eq!(discover(&mut leases, 13, 200), Some(Answer::Offer(ip(3))));
    }

    #[test]
    fn renewing_extends_a_lease_and_another_address_is_refused() {
        let mut leases = leases();
        assert_eq!(select(&mut leases, 10, ip(3), 0), Some(Answer::Ack(ip(3))));
        assert_eq!(renew(&mut leases, 10, ip(3), 50), Some(Answer::Ack(ip(3))));
        // Until 150 by now.
        assert_eq!(select(&mut leases, 11, ip(3), 149), Some(Answer::Nak));
        assert_eq!(select(&mut leases, 11, ip(3), 150), Some(Answer::Ack(ip(3))));
        for wrong in [ip(1), ip(2), SERVER, ip(0), ip(7), Ipv4Addr::new(192, 0, 2, 1)] {
            assert_eq!(renew(&mut leases, 10, wrong, 160), Some(Answer::Nak), "{wrong}");
        }
        assert_eq!(leases.answer(&message(Kind::Request, 10), at(160)), None, "it asks for nothing");
    }

    #[test]
    fn what_is_released_is_free_and_what_is_declined_is_nobodys() {
        let mut leases = leases();
        assert_eq!(select(&mut leases, 10, ip(3), 0), Some(Answer::Ack(ip(3))));
        let release = |client| Message { client: ip(3), ..message(Kind::Release, client) };
        assert_eq!(leases.answer(&release(11), at(1)), None, "not its own");
        assert_eq!(select(&mut leases, 11, ip(3), 1), Some(Answer::Nak));
        assert_eq!(leases.answer(&release(10), at(1)), None);
        assert_eq!(select(&mut leases, 11, ip(3), 1), Some(Answer::Ack(ip(3))));
        let decline =
            |client, address: Ipv4Addr| message(Kind::Decline, client).with(option::REQUESTED, address.octets());
        assert_eq!(leases.answer(&decline(11, ip(3)), at(2)), None);
        assert_eq!(discover(&mut leases, 11, 3), Some(Answer::Offer(ip(4))));
        // A node's too: somebody else sits on it.
        assert_eq!(leases.answer(&decline(NODE, ip(2)), at(4)), None);
        assert_eq!(discover(&mut leases, NODE, 5), Some(Answer::Offer(ip(5))));
        assert_eq!(discover(&mut leases, NODE, 605), Some(Answer::Offer(ip(2))));
    }

    #[test]
    fn a_client_is_known_by_its_own_name_for_itself_and_another_server_is_left_alone() {
        let mut leases = leases();
        let named = |name: &[u8]| message(Kind::Discover, 10).with(option::CLIENT, name);
        assert_eq!(leases.answer(&named(b"one"), at(0)), Some(Answer::Offer(ip(3))));
        assert_eq!(leases.answer(&named(b"two"), at(0)), Some(Answer::Offer(ip(4))));
        assert_eq!(leases.answer(&named(b"one"), at(0)), Some(Answer::Offer(ip(3))));
        let other =
            message(Kind::Request, 10).with(option::REQUESTED, ip(5).octets()).with(option::SERVER, [10, 9, 9, 9]);
        assert_eq!(leases.answer(&other, at(0)), None);
        assert_eq!(leases.answer(&Message { client: ip(1), ..message(Kind::Inform, 10) }, at(0)), Some(Answer::Inform));
    }
}
