//! Address translation: what a new connection's replies show, and what that does to its packets.
//!
//! # The choice
//! A translated connection is one whose [reply tuple](Conn::reply) is not its original one reversed. [`Chooser::choose`]
//! goes through the reply tuples that `nat(..)` allows and has each tried: whoever tries looks whether the table has it
//! and puts the connection in. It may be taken in between by another worker; then the next one is tried. The rules are
//! those of Open vSwitch's user-space tracker:
//!
//! - One address of the range, by a hash of the connection and the range. With `persistent` the hash takes the source
//!   address in place of the connection and has no secret in it: a client keeps its address, after a restart too. The
//!   null address, as no address, leaves the address as it is.
//! - `src` with ports: from a port of the range on, chosen by hash (or at random), one by one. `src` without: the port
//!   that the packet has; if it is taken, another one of its class (1 to 511, 600 to 1023, 1024 to 65535).
//! - `dst` with ports: the same with the destination port. If all are taken, and without ports, the address and port
//!   are kept, and the source port moves as for `src` without ports.
//! - Protocols without ports have the address only. An ICMP or ICMPv6 identifier is a source port; as the two ends
//!   share it, destination ports are not for ICMP.
//!
//! # Bounds
//! A choice takes at most [`TRIES`] tries, however large or full the range. A range with no more than that is tried as a
//! whole. Of a larger one, first ports in a row, then shorter rows from random places; where there are more addresses,
//! each row is on the next of them (Open vSwitch stays on the first; so does `persistent`). Once a pool had nothing left,
//! the next connections get fewer tries, down to [`TRIES`]` >> `[`TIGHTEST`], until one finds something: a flood against
//! an exhausted pool costs little, and a pool that is only nearly full is still searched well.
//!
//! # Differences
//! Open vSwitch 3.1 leaves SCTP ports and ICMP identifiers alone, no version of it translates ICMPv6 identifiers, and
//! connections that would then collide are not committed.

use super::conn::Conn;
use super::tuple::{Direction, Tuple};
use sluice_flows::DropReason;
use sluice_flows::action::{Nat, NatChoice, NatDirection};
use sluice_flows::field::{Field, IP_PROTO_ICMP, IP_PROTO_ICMPV6, IP_PROTO_SCTP, IP_PROTO_TCP, IP_PROTO_UDP};
use sluice_flows::key::{CT_DNAT, CT_SNAT};
use sluice_flows::packet::readdress::{Ends, Readdress};
use sluice_flows::packet::{Frame, Layers, rewrite};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

#[cfg(test)]
mod tests;

/// Reply tuples that are tried at most for a connection.
pub(crate) const TRIES: u32 = 256;
/// How often [`TRIES`] is halved for a pool that has nothing left.
const TIGHTEST: u8 = 5;
/// Tries in a row, at first: with one address and with several.
const ROW_OF_ONE: u32 = 128;
const ROW_OF_MANY: u32 = 32;
/// Tries in a row at last.
const SHORTEST_ROW: u32 = 8;
/// Pools are told apart by so many bits of a hash.
const POOLS: usize = 64;

/// Nothing of what `nat` allows is left for the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no address and port is left to translate the connection to: give nat a larger range, or shorten timeouts")]
pub(crate) struct Exhausted;

impl From<Exhausted> for DropReason {
    fn from(_: Exhausted) -> Self {
        Self::CtFull
    }
}

/// Chooses reply tuples.
#[derive(Debug)]
pub(crate) struct Chooser {
    secret: RandomState,
    /// Random numbers drawn so far.
    drawn: AtomicU64,
    /// Choices that found nothing.
    exhausted: AtomicU64,
    /// By pool: how often the tries are halved.
    tightness: [AtomicU8; POOLS],
}

impl Default for Chooser {
    fn default() -> Self {
        Self {
            secret: RandomState::new(),
            drawn: AtomicU64::new(0),
            exhausted: AtomicU64::new(0),
            tightness: [const { AtomicU8::new(0) }; POOLS],
        }
    }
}

impl Chooser {
    /// Goes through reply tuples for a connection with this original tuple until `attempt` takes one, which gives what
    /// the caller wants of it; `None` says that the tuple is taken.
    ///
    /// # Errors
    /// None that was tried was free.
    pub(crate) fn choose<T>(
        &self,
        original: &Tuple,
        nat: &Nat,
        attempt: impl FnMut(&Tuple) -> Option<T>,
    ) -> Result<T, Exhausted> {
        let Some(reply) = original.reversed() else { return Err(Exhausted) };
        let pool = self.secret.hash_one((nat.direction.is_some(), nat.addresses, nat.ports, original.zone)) as usize;
        let tightness = &self.tightness[pool % POOLS];
        let halved = tightness.load(Ordering::Relaxed);
        let mut search = Search { original, left: TRIES >> halved.min(TIGHTEST), attempt, chooser: self };
        let found = match nat.direction {
            Some(NatDirection::Src) => search.source(reply, nat),
            Some(NatDirection::Dst) => search.destination(reply, nat),
            None => search.attempt(&reply),
        };
        match found {
            Some(_) if halved > 0 => tightness.store(0, Ordering::Relaxed),
            Some(_) => {}
            None => {
                self.exhausted.fetch_add(1, Ordering::Relaxed);
                tightness.store((halved + 1).min(TIGHTEST), Ordering::Relaxed);
            }
        }
        found.ok_or(Exhausted)
    }

    /// How often [`Self::choose`] found nothing.
    pub(crate) fn exhausted(&self) -> u64 {
        self.exhausted.load(Ordering::Relaxed)
    }

    /// The address that comes first, as a distance from the start of the range.
    fn address_offset(&self, original: &Tuple, nat: &Nat) -> u64 {
        if nat.persistent { stable_hash(original, nat) } else { self.hash(original, nat) }
    }

    /// The port that comes first, likewise.
    fn port_offset(&self, original: &Tuple, nat: &Nat) -> u64 {
        if nat.choice == NatChoice::Random { self.random() } else { self.hash(original, nat) >> 32 }
    }

    fn hash(&self, original: &Tuple, nat: &Nat) -> u64 {
        self.secret.hash_one((original, nat.addresses, nat.ports))
    }

    /// A number that nobody else can foretell.
    fn random(&self) -> u64 {
        self.secret.hash_one(self.drawn.fetch_add(1, Ordering::Relaxed))
    }
}

/// One choice.
struct Search<'a, F> {
    original: &'a Tuple,
    /// Tries left.
    left: u32,
    attempt: F,
    chooser: &'a Chooser,
}

impl<T, F: FnMut(&Tuple) -> Option<T>> Search<'_, F> {
    /// Tries one reply tuple.
    fn attempt(&mut self, reply: &Tuple) -> Option<T> {
        self.left = self.left.checked_sub(1)?;
        if reply == self.original { None } else { (self.attempt)(reply) }
    }

    /// Translates the source: the reply's destination.
    fn source(&mut self, reply: Tuple, nat: &Nat) -> Option<T> {
        let pool = Pool::new(nat, self.original.src());
        let first = self.chooser.address_offset(self.original, nat);
        let addresses = if nat.persistent { 1 } else { pool.size };
        if !has_ports(self.original.proto) {
            return (0..addresses.min(TRIES.into())).find_map(|n| self.attempt(&reply.with_dst(pool.get(first, n))));
        }
        let (start, range) = match nat.ports {
            Some((low, high)) => {
                let size = u64::from(high.saturating_sub(low)) + 1;
                (low + (self.chooser.port_offset(self.original, nat) % size) as u16, low..=high.max(low))
            }
            None => (self.original.src_port, class(self.original.src_port)),
        };
        self.rows(start, range, addresses, |n, port| set_dst_port(reply.with_dst(pool.get(first, n)), port))
    }

    /// Translates the destination: the reply's source.
    fn destination(&mut self, reply: Tuple, nat: &Nat) -> Option<T> {
        let pool = Pool::new(nat, self.original.dst());
        let reply = reply.with_src(pool.get(self.chooser.address_offset(self.original, nat), 0));
        if !has_ports(self.original.proto) {
            return self.attempt(&reply);
        }
        let mut reply = reply;
        if let Some((low, high)) = nat.ports.filter(|_| !reply.is_icmp()) {
            let size = u64::from(high.saturating_sub(low)) + 1;
            let start = low + (self.chooser.port_offset(self.original, nat) % size) as u16;
            reply.src_port = start;
            // Half of the tries are for the source ports.
            let half = self.left / 2;
            self.left -= half;
            let found = self.rows(start, low..=high.max(low), 1, |_, port| reply.with_ports(port, reply.dst_port));
            if found.is_some() {
                return found;
            }
            self.left += half;
        }
        let port = self.original.src_port;
        self.rows(port, class(port), 1, |_, port| set_dst_port(reply, port))
    }

    /// Tries ports in rows: from `start` on, which need not be in `range`, then from elsewhere in the range, each time on
    /// the next of `addresses` addresses.
    fn rows(
        &mut self,
        start: u16,
        range: RangeInclusive<u16>,
        addresses: u64,
        tuple: impl Fn(u64, u16) -> Tuple,
    ) -> Option<T> {
        let (low, size) = (*range.start(), u32::from(range.end() - range.start()) + 1);
        let outside = !range.contains(&start);
        let mut at = if outside { 0 } else { u32::from(start - low) };
        // All of a small pool is tried, on one address after the other; of a large one some.
        let small = u64::from(size).saturating_mul(addresses) <= u64::from(self.left);
        let mut row = match addresses {
            _ if small => size,
            1 => ROW_OF_ONE,
            _ => ROW_OF_MANY,
        };
        let mut address = 0;
        if outside && let Some(found) = self.attempt(&tuple(0, start)) {
            return Some(found);
        }
        loop {
            for step in 0..row.min(size).min(self.left) {
                let port = low + ((at + step) % size) as u16;
                if let Some(found) = self.attempt(&tuple(address, port)) {
                    return Some(found);
                }
            }
            let last = address + 1 >= addresses;
            if self.left == 0 || last && row >= size {
                return None;
            }
            address = if last { 0 } else { address + 1 };
            if !small {
                row = (row / 2).max(SHORTEST_ROW);
            }
            at = (self.chooser.random() % u64::from(size)) as u32;
        }
    }
}

/// The addresses to choose from.
struct Pool {
    first: IpAddr,
    /// How many there are, 1 to 2^32.
    size: u64,
}

impl Pool {
    /// Those of `nat`; only `own`, the address that the packet has, if there are none.
    fn new(nat: &Nat, own: IpAddr) -> Self {
        let (first, size) = match (nat.addresses, own) {
            (Some((IpAddr::V4(first), IpAddr::V4(last))), IpAddr::V4(_)) if !first.is_unspecified() => {
                (IpAddr::V4(first), u64::from(last.to_bits().saturating_sub(first.to_bits())) + 1)
            }
            (Some((IpAddr::V6(first), IpAddr::V6(last))), IpAddr::V6(_)) if !first.is_unspecified() => {
                // No more than a hash of 32 bits can spread over.
                let behind = last.to_bits().saturating_sub(first.to_bits()).min(u32::MAX.into());
                (IpAddr::V6(first), behind as u64 + 1)
            }
            _ => (own, 1),
        };
        Self { first, size }
    }

    /// The one that is `offset` and `n` more from the first, round and round.
    fn get(&self, offset: u64, n: u64) -> IpAddr {
        let ahead = (offset % self.size + n) % self.size;
        match self.first {
            IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits().saturating_add(ahead as u32)).into(),
            IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits().saturating_add(ahead.into())).into(),
        }
    }
}

fn has_ports(proto: u8) -> bool {
    matches!(proto, IP_PROTO_TCP | IP_PROTO_UDP | IP_PROTO_SCTP | IP_PROTO_ICMP | IP_PROTO_ICMPV6)
}

/// The ports that may stand for this one.
fn class(port: u16) -> RangeInclusive<u16> {
    match port {
        0..=511 => 1..=511,
        512..=1023 => 600..=1023,
        1024.. => 1024..=u16::MAX,
    }
}

/// A reply with the port at which the original source receives it.
fn set_dst_port(reply: Tuple, port: u16) -> Tuple {
    if reply.is_icmp() { reply.with_ports(port, reply.dst_port) } else { reply.with_ports(reply.src_port, port) }
}

/// A hash of the source address and of what is chosen from, the same at all times and everywhere (FNV-1a).
fn stable_hash(original: &Tuple, nat: &Nat) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut take = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    let range = nat.addresses.map_or([original.src(); 2], |(first, last)| [first, last]);
    for address in [original.src()].into_iter().chain(range) {
        match address {
            IpAddr::V4(address) => take(&address.octets()),
            IpAddr::V6(address) => take(&address.octets()),
        }
    }
    let (low, high) = nat.ports.unwrap_or_default();
    for number in [low, high, original.zone, original.proto.into()] {
        take(&number.to_be_bytes());
    }
    // The last bytes have not reached all bits yet.
    hash ^= hash >> 32;
    hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16
}

/// What a tuple says of the ends of its packets.
fn ends(tuple: &Tuple) -> Ends {
    Ends { src: tuple.src(), dst: tuple.dst(), src_port: tuple.src_port, dst_port: tuple.dst_port }
}

/// What the packets that are answered by those with this tuple show.
fn answered(tuple: &Tuple) -> Ends {
    let (src_port, dst_port) =
        if tuple.is_icmp() { (tuple.src_port, tuple.src_port) } else { (tuple.dst_port, tuple.src_port) };
    Ends { src: tuple.dst(), dst: tuple.src(), src_port, dst_port }
}

/// What translation does to the connection's packets of `direction`. `None` if they stay as they are.
pub(crate) fn readdress(conn: &Conn, direction: Direction) -> Option<Readdress> {
    let new = answered(conn.tuple(direction.opposite()));
    Readdress::new(conn.original.proto, &ends(conn.tuple(direction)), &new)
}

/// What translation does to the packets that ICMP errors of `direction` quote: those of the other direction, as they
/// were sent on.
pub(crate) fn readdress_quoted(conn: &Conn, direction: Direction) -> Option<Readdress> {
    let old = answered(conn.tuple(direction));
    Readdress::new(conn.original.proto, &old, &ends(conn.tuple(direction.opposite())))
}

/// What is translated of the connection's packets of `direction`; `None` without translation.
pub(crate) fn side(conn: &Conn, direction: Direction) -> Option<NatDirection> {
    match (conn.nat?, direction) {
        (side, Direction::Original) => Some(side),
        (NatDirection::Src, Direction::Reply) => Some(NatDirection::Dst),
        (NatDirection::Dst, Direction::Reply) => Some(NatDirection::Src),
    }
}

/// The bits that translation adds to a packet's connection state.
pub(crate) fn state_bits(conn: &Conn, direction: Direction) -> u8 {
    match side(conn, direction) {
        Some(NatDirection::Src) => CT_SNAT,
        Some(NatDirection::Dst) => CT_DNAT,
        None => 0,
    }
}

/// Translates a packet of a connection; `related` says that it is an ICMP error about a packet of the other direction.
/// Returns the bits that this adds to its connection state.
///
/// Of an error the address that is translated becomes that of the connection's end, whoever sent it: a source in between
/// stays hidden, as in Open vSwitch.
pub(crate) fn translate(
    (frame, layers): (&mut Frame, &Layers),
    conn: &Conn,
    direction: Direction,
    related: bool,
) -> u8 {
    let Some(side) = side(conn, direction) else { return 0 };
    if !related {
        if let Some(new) = readdress(conn, direction) {
            new.apply(frame, layers);
        }
        return state_bits(conn, direction);
    }
    let outer = answered(conn.tuple(direction.opposite()));
    let address = if side == NatDirection::Src { outer.src } else { outer.dst };
    let (field, value) = match (address, side) {
        (IpAddr::V4(address), NatDirection::Src) => (Field::IpSrc, address.to_bits().into()),
        (IpAddr::V4(address), NatDirection::Dst) => (Field::IpDst, address.to_bits().into()),
        (IpAddr::V6(address), NatDirection::Src) => (Field::Ipv6Src, address.to_bits()),
        (IpAddr::V6(address), NatDirection::Dst) => (Field::Ipv6Dst, address.to_bits()),
    };
    rewrite::set_field(frame, layers, field, value, u128::MAX);
    if let Some(new) = readdress_quoted(conn, direction) {
        new.apply_quoted(frame, layers);
    }
    state_bits(conn, direction)
}
