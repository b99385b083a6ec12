//! ICMP and ICMPv6 errors of a router. About which packets, and how much of them is quoted, is
//! [`answer`](sluice_flows::packet::answer)'s to say; "packet too big" is said even of multicast, as RFC 4443 wants it for
//! path MTU discovery.

use super::Link;
use super::read::Datagram;
use sluice_flows::field::{ETH_TYPE_IPV4, ETH_TYPE_IPV6};
use sluice_flows::packet::Frame;
use sluice_flows::packet::answer::{About, CONTROL, Headers, IcmpError, LinkHeader, TOS};
use std::net::IpAddr;

/// More than is quoted of any packet.
const QUOTED: usize = 1280;
/// Where the number of the next header stands in an IPv6 header.
const NEXT_HEADER_AT: [u8; 4] = [0, 0, 0, 6];

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
    const fn v4(self) -> IcmpError {
        let (kind, code) = match self {
            Self::NoRoute => (3, 0),
            Self::HostUnreachable => (3, 1),
            Self::ProtocolUnreachable => (3, 2),
            Self::PortUnreachable => (3, 3),
            Self::Prohibited => (3, 13),
            Self::TimeExceeded => (11, 0),
            Self::TooBig { mtu } => {
                let mtu = if mtu > 0xffff { 0xffff } else { mtu };
                return IcmpError { kind: 3, code: 4, word: mtu.to_be_bytes() };
            }
        };
        IcmpError { kind, code, word: [0; 4] }
    }

    /// The message in ICMPv6 (RFC 4443, 3). A protocol that nobody takes in is a parameter problem, "unrecognized next
    /// header", at the place of its number in the IP header.
    const fn v6(self) -> IcmpError {
        let (kind, code) = match self {
            Self::NoRoute => (1, 0),
            Self::Prohibited => (1, 1),
            Self::HostUnreachable => (1, 3),
            Self::PortUnreachable => (1, 4),
            Self::TimeExceeded => (3, 0),
            Self::ProtocolUnreachable => return IcmpError { kind: 4, code: 1, word: NEXT_HEADER_AT },
            Self::TooBig { mtu } => return IcmpError { kind: 2, code: 0, word: mtu.to_be_bytes() },
        };
        IcmpError { kind, code, word: [0; 4] }
    }
}

/// Whether the sender of this packet may be told of the problem.
pub(in crate::router) fn may_tell(about: &Datagram<'_>, problem: Problem) -> bool {
    let Datagram { eth_src, eth_dst, src, dst, is_later_fragment, .. } = *about;
    let about = About { eth_src, eth_dst, src, dst, icmp: about.icmp_type(), is_later_fragment };
    about.may_tell(matches!(problem, Problem::TooBig { .. }))
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
    let (eth_type, tos, error) = match about.src {
        IpAddr::V4(_) => (ETH_TYPE_IPV4, about.tos & TOS | CONTROL, problem.v4()),
        IpAddr::V6(_) => (ETH_TYPE_IPV6, 0, problem.v6()),
    };
    let link = LinkHeader::plain(link.src, link.dst, eth_type);
    let headers = Headers { link, src: own, dst: about.src, tos, identification: Some(identification) };
    let mut packet = Frame::from_bytes(about.bytes.get(..QUOTED).unwrap_or(about.bytes));
    headers.error(error, &mut packet).then(|| packet.bytes().to_vec())
}
