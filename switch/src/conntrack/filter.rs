//! Which connections: the words that `sluice ct` and the API select by.
//!
//! A filter is a list such as `zone=5,tcp,nw_dst=10.0.0.0/8,tp_dst=80,!nat`. All of it has to be true of a connection. The
//! words are those of flows, and `!` in front of one turns it round. Addresses and ports are those of the original
//! direction, as `ct_nw_src` and its fellows are in flows; with `reply_` in front of them, of the reply's packets as they
//! arrive; `addr` and `port` are true of either end of either direction. `src` and `dst` are an address of either IP version.
//! An address may be one of several: `addr=10.0.0.1|fd00::1`.
//!
//! # Limits
//! At most 64 words.

mod parse;

pub use parse::FilterError;

use super::conn::Conn;
use super::tuple::{Direction, Tuple};
use sluice_flows::filter::OwnerFilter;
use std::net::IpAddr;

/// Most words of a filter.
pub(crate) const MAX_TERMS: usize = 64;

/// Selects connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnFilter {
    terms: Vec<Term>,
}

/// One word of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    /// It has to be false.
    negated: bool,
    test: Test,
}

/// A number under a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Masked<T> {
    value: T,
    mask: T,
}

/// An address under a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    v6: bool,
    bits: Masked<u128>,
}

/// Which end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Src,
    Dst,
}

/// What is asked of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Zone(u16),
    /// IPv6, or IPv4; and of this protocol.
    Kind {
        v6: bool,
        proto: Option<u8>,
    },
    Proto(u8),
    Address(Direction, End, Network),
    AnyAddress(Network),
    /// One of them holds.
    Or(Vec<Test>),
    Port(Direction, End, Masked<u16>),
    AnyPort(Masked<u16>),
    IcmpType(u8),
    IcmpCode(u8),
    IcmpId(u16),
    Mark(Masked<u32>),
    Label(Masked<u128>),
    State(&'static str),
    Owner(OwnerFilter),
    Snat,
    Dnat,
    Nat,
    Replied,
    Related,
}

impl ConnFilter {
    /// Whether it selects every connection.
    pub fn is_all(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether it selects this one. Takes the connection's lock if it asks for mark, label or owner.
    pub fn selects(&self, conn: &Conn) -> bool {
        self.terms.iter().all(|term| term.test.holds(conn) != term.negated)
    }
}

impl Network {
    fn holds(&self, address: IpAddr) -> bool {
        address.is_ipv6() == self.v6 && self.bits.value == bits(address) & self.bits.mask
    }
}

/// The address as a number, IPv4 in the low 32 bits.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl End {
    fn address(self, tuple: &Tuple) -> IpAddr {
        match self {
            Self::Src => tuple.src(),
            Self::Dst => tuple.dst(),
        }
    }

    /// `None` where there are no ports.
    fn port(self, tuple: &Tuple) -> Option<u16> {
        let port = match self {
            Self::Src => tuple.src_port,
            Self::Dst => tuple.dst_port,
        };
        (!tuple.is_icmp()).then_some(port)
    }
}

impl Test {
    fn holds(&self, conn: &Conn) -> bool {
        const ENDS: [(Direction, End); 4] = [
            (Direction::Original, End::Src),
            (Direction::Original, End::Dst),
            (Direction::Reply, End::Src),
            (Direction::Reply, End::Dst),
        ];
        let original = &conn.original;
        let port_is = |direction, end: End, port: &Masked<u16>| {
            end.port(conn.tuple(direction)).is_some_and(|found| found & port.mask == port.value)
        };
        match self {
            Self::Zone(zone) => original.zone == *zone,
            Self::Kind { v6, proto } => original.is_v6() == *v6 && proto.is_none_or(|p| p == original.proto),
            Self::Proto(proto) => original.proto == *proto,
            Self::Address(direction, end, network) => network.holds(end.address(conn.tuple(*direction))),
            Self::AnyAddress(network) => ENDS.iter().any(|(d, end)| network.holds(end.address(conn.tuple(*d)))),
            Self::Or(tests) => tests.iter().any(|test| test.holds(conn)),
            Self::Port(direction, end, port) => port_is(*direction, *end, port),
            Self::AnyPort(port) => ENDS.iter().any(|(direction, end)| port_is(*direction, *end, port)),
            Self::IcmpType(kind) => original.is_icmp() && original.icmp_type() == *kind,
            Self::IcmpCode(code) => original.is_icmp() && original.icmp_code() == *code,
            Self::IcmpId(id) => original.is_icmp() && original.src_port == *id,
            Self::Mark(mark) => conn.marks().mark & mark.mask == mark.value,
            Self::Label(label) => conn.marks().label & label.mask == label.value,
            Self::State(name) => conn.state().name() == *name,
            Self::Owner(owner) => conn.marks().owner.as_ref().is_some_and(|o| owner.selects(o)),
            Self::Snat => conn.is_snat(),
            Self::Dnat => conn.is_dnat(),
            Self::Nat => conn.is_snat() || conn.is_dnat(),
            Self::Replied => conn.state().is_replied(),
            Self::Related => conn.parent.is_some(),
        }
    }
}

#[cfg(test)]
mod tests;
