//! ICMP and ICMPv6 errors: about what, and how much of it they quote.
//!
//! A packet is told of an error only if that cannot go on for ever or reach many (RFC 1122, 3.2.2; RFC 1812, 4.3.2.7;
//! RFC 4443, 2.4): not one that is an error itself, or may be; not a fragment but the first; not one that was sent to
//! several, on the link or by its address; not one whose source is not a single node. Only "packet too big" is said of
//! multicast, as RFC 4443 wants it for path MTU discovery.
//!
//! As much is quoted as fits in 576 bytes of IPv4 (RFC 1812, 4.3.2.3) or 1280 bytes of IPv6 (RFC 4443, 2.4).

use super::read::Datagram;
use super::{HOP_LIMIT, Icmp, Link, icmpv4, icmpv6, ipv4_header, is_group};
use std::net::{IpAddr, Ipv4Addr};

/// Longest error in IPv4, with its IP header.
const MAX_V4: usize = 576;
/// Longest error in IPv6, with its IP header.
const MAX_V6: usize = 1280;
/// Lengths of the headers in front of the quote: of IP without options, and of the message.
const HEADERS_V4: usize = 20 + 8;
const HEADERS_V6: usize = 40 + 8;
/// Where the number of the next header stands in an IPv6 header.
const NEXT_HEADER_AT: [u8; 4] = [0, 0, 0, 6];
/// Precedence "internetwork control", of errors (RFC 1812, 4.3.2.5).
const CONTROL: u8 = 0xc0;
/// The bits of the TOS that an error takes over from the packet that it is about.
const TOS: u8 = 0x1e;

/// What is wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::router) enum Problem {
    /// No route leads to its destination.
    NoRoute,
    /// The next hop, or the destination itself, does not answer address resolution.
    HostUnreachable,
    /// Nobody of the destination takes in this protocol.
    ProtocolUnreachable,
    /// Nobody of the destination takes in what is sent to this port.
    PortUnreachable,
    /// It is not allowed.
    Prohibited,
    /// Its TTL or hop limit ran out on the way.
    TimeExceeded,
    /// It is larger than the next link takes, and may not be fragmented.
    TooBig {
        /// What that link takes, in bytes with the IP header.
        mtu: u32,
    },
}

impl Problem {
    /// The message in ICMP (RFC 792, RFC 1191, RFC 1812).
    const fn v4(self) -> Icmp {
        let (kind, code) = match self {
            Self::NoRoute => (3, 0),
            Self::HostUnreachable => (3, 1),
            Self::ProtocolUnreachable => (3, 2),
            Self::PortUnreachable => (3, 3),
            Self::Prohibited => (3, 13),
            Self::TimeExceeded => (11, 0),
            Self::TooBig { mtu } => {
                let mtu = if mtu > 0xffff { 0xffff } else { mtu };
                return Icmp { kind: 3, code: 4, word: mtu.to_be_bytes() };
            }
        };
        Icmp { kind, code, word: [0; 4] }
    }

    /// The message in ICMPv6 (RFC 4443, 3). A protocol that nobody takes in is a parameter problem, "unrecognized next
    /// header", at the place of its number in the IP header.
    const fn v6(self) -> Icmp {
        let (kind, code) = match self {
            Self::NoRoute => (1, 0),
            Self::Prohibited => (1, 1),
            Self::HostUnreachable => (1, 3),
            Self::PortUnreachable => (1, 4),
            Self::TimeExceeded => (3, 0),
            Self::ProtocolUnreachable => return Icmp { kind: 4, code: 1, word: NEXT_HEADER_AT },
            Self::TooBig { mtu } => return Icmp { kind: 2, code: 0, word: mtu.to_be_bytes() },
        };
        Icmp { kind, code, word: [0; 4] }
    }
}

/// Whether the sender of this packet may be told of the problem.
pub(in crate::router) fn may_tell(about: &Datagram<'_>, problem: Problem) -> bool {
    if about.is_later_fragment || is_group(about.eth_src) {
        return false;
    }
    let is_for_many = is_group(about.eth_dst) || about.dst.is_multicast();
    let is_error = match about.icmp_type() {
        None => false,
        // Too short to tell: it may be one.
        Some(None) => true,
        Some(Some(kind)) if about.src.is_ipv4() => !is_query_v4(kind),
        // Redirects are of neighbour discovery, but say something unasked.
        Some(Some(kind)) => kind < 128 || kind == 137,
    };
    let is_single_source = match (about.src, about.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => is_host_v4(src) && !dst.is_broadcast() && !is_for_many,
        (IpAddr::V6(src), _) => {
            let is_told = !is_for_many || matches!(problem, Problem::TooBig { .. });
            !src.is_unspecified() && !src.is_multicast() && !src.is_loopback() && is_told
        }
        _ => false,
    };
    is_single_source && !is_error
}

/// Whether an address is one that a single host can have, on another link than the loopback.
const fn is_host_v4(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first != 0 && first != 127 && first < 224
}

/// Whether an ICMP message is not an error, as the list of those stands (RFC 792, 950, 1256, 8335).
const fn is_query_v4(kind: u8) -> bool {
    matches!(kind, 0 | 8 | 9 | 10 | 13..=18 | 42 | 43)
}

/// The error, from `own`. `None` if the sender may not be told, or the addresses are not of one IP version.
///
/// `identification` is that of the IPv4 datagram; it should differ from one to the next.
pub(in crate::router) fn frame(
    about: &Datagram<'_>,
    problem: Problem,
    own: IpAddr,
    link: Link,
    identification: u16,
) -> Option<Vec<u8>> {
    if !may_tell(about, problem) {
        return None;
    }
    let frame = match (own, about.src) {
        (IpAddr::V4(own), IpAddr::V4(to)) => {
            let quote = cut(about.bytes, MAX_V4 - HEADERS_V4);
            let ip = ipv4_header((own, to), about.tos & TOS | CONTROL, identification);
            icmpv4(link, ip, problem.v4(), quote)
        }
        (IpAddr::V6(own), IpAddr::V6(to)) => {
            let quote = cut(about.bytes, MAX_V6 - HEADERS_V6);
            icmpv6(link, (own, to), HOP_LIMIT, problem.v6(), quote)
        }
        _ => return None,
    };
    Some(frame).filter(|frame| !frame.is_empty())
}

fn cut(bytes: &[u8], len: usize) -> &[u8] {
    bytes.get(..len).unwrap_or(bytes)
}
