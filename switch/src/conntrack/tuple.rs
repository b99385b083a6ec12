//! What a connection is known by: zone, protocol, addresses and ports, as a packet of one direction shows them.

use sluice_flows::field::{IP_PROTO_ICMP, IP_PROTO_ICMPV6};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The direction of a packet within its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// That of the packet that began the connection.
    Original = 0,
    /// The other one.
    Reply = 1,
}

impl Direction {
    /// The other direction.
    #[inline]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }
}

/// Zone, protocol, addresses and ports of a packet.
///
/// Of ICMP and ICMPv6 the source port is the identifier, and the destination port type (high byte) and code.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// The source address, most significant half first; IPv4 in the low 32 bits.
    src: [u64; 2],
    /// The destination address likewise.
    dst: [u64; 2],
    /// Source port, or ICMP identifier.
    pub src_port: u16,
    /// Destination port, or ICMP type and code.
    pub dst_port: u16,
    /// The zone.
    pub zone: u16,
    /// IP protocol number.
    pub proto: u8,
    v6: bool,
}

impl Tuple {
    /// A tuple without ports. Both addresses are of one family; if not, both count as IPv6 (RFC 4291, 2.5.5.2).
    pub fn new(zone: u16, proto: u8, src: IpAddr, dst: IpAddr) -> Self {
        let v6 = src.is_ipv6() || dst.is_ipv6();
        let words = |address: IpAddr| match address {
            IpAddr::V4(address) if v6 => halves(address.to_ipv6_mapped().to_bits()),
            IpAddr::V4(address) => [0, address.to_bits().into()],
            IpAddr::V6(address) => halves(address.to_bits()),
        };
        Self { src: words(src), dst: words(dst), src_port: 0, dst_port: 0, zone, proto, v6 }
    }

    /// The same with ports.
    #[must_use]
    pub const fn with_ports(self, src_port: u16, dst_port: u16) -> Self {
        Self { src_port, dst_port, ..self }
    }

    /// The source address.
    pub fn src(&self) -> IpAddr {
        self.address(self.src)
    }

    /// The destination address.
    pub fn dst(&self) -> IpAddr {
        self.address(self.dst)
    }

    /// Whether the addresses are of IPv6.
    pub const fn is_v6(&self) -> bool {
        self.v6
    }

    /// Whether ports are an ICMP identifier, type and code. ICMP inside IPv6 and ICMPv6 inside IPv4 are protocols
    /// without ports.
    pub const fn is_icmp(&self) -> bool {
        self.proto == if self.v6 { IP_PROTO_ICMPV6 } else { IP_PROTO_ICMP }
    }

    /// Type of an ICMP or ICMPv6 message.
    pub const fn icmp_type(&self) -> u8 {
        (self.dst_port >> 8) as u8
    }

    /// Code of an ICMP or ICMPv6 message.
    pub const fn icmp_code(&self) -> u8 {
        self.dst_port as u8
    }

    /// The same with another source address, of the same family.
    #[must_use]
    pub fn with_src(self, src: IpAddr) -> Self {
        Self { src: Self::new(0, 0, src, src).src, ..self }
    }

    /// The same with another destination address, of the same family.
    #[must_use]
    pub fn with_dst(self, dst: IpAddr) -> Self {
        Self { dst: Self::new(0, 0, dst, dst).src, ..self }
    }

    /// What a packet of the opposite direction shows. `None` for an ICMP message that has no answer.
    pub fn reversed(&self) -> Option<Self> {
        let mut reversed = Self { src: self.dst, dst: self.src, ..*self };
        if self.is_icmp() {
            let kind = icmp_answer(self.proto, self.icmp_type())?;
            reversed.dst_port = u16::from_be_bytes([kind, self.icmp_code()]);
        } else {
            (reversed.src_port, reversed.dst_port) = (self.dst_port, self.src_port);
        }
        Some(reversed)
    }

    /// What it has in common with its reverse: both ends, smaller one first, and the rest. Of an ICMP message the
    /// identifier counts for both ends, its type and code not at all.
    #[inline]
    pub(crate) fn both_ways(&self) -> ([[u64; 2]; 2], u64) {
        let dst_port = if self.is_icmp() { self.src_port } else { self.dst_port };
        let (src, dst) = ((self.src, self.src_port), (self.dst, dst_port));
        let ((a, a_port), (b, b_port)) = if src <= dst { (src, dst) } else { (dst, src) };
        let ports = u64::from(a_port) << 48 | u64::from(b_port) << 32;
        ([a, b], ports | u64::from(self.zone) << 16 | u64::from(self.proto) << 8 | u64::from(self.v6))
    }

    fn address(&self, words: [u64; 2]) -> IpAddr {
        match self.v6 {
            true => Ipv6Addr::from_bits(u128::from(words[0]) << 64 | u128::from(words[1])).into(),
            false => Ipv4Addr::from_bits(words[1] as u32).into(),
        }
    }
}

fn halves(wide: u128) -> [u64; 2] {
    [(wide >> 64) as u64, wide as u64]
}

/// The type of the message that answers an ICMP (RFC 792, RFC 950) or ICMPv6 (RFC 4443) message of type `kind`, and of
/// the question that it answers.
pub(crate) const fn icmp_answer(proto: u8, kind: u8) -> Option<u8> {
    Some(match (proto, kind) {
        (IP_PROTO_ICMP, 8) => 0,
        (IP_PROTO_ICMP, 0) => 8,
        (IP_PROTO_ICMP, 13) => 14,
        (IP_PROTO_ICMP, 14) => 13,
        (IP_PROTO_ICMP, 15) => 16,
        (IP_PROTO_ICMP, 16) => 15,
        (IP_PROTO_ICMPV6, 128) => 129,
        (IP_PROTO_ICMPV6, 129) => 128,
        _ => return None,
    })
}

impl fmt::Debug for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { src_port, dst_port, zone, proto, .. } = self;
        write!(f, "zone {zone} proto {proto} {}.{src_port} > {}.{dst_port}", self.src(), self.dst())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reversed_twice_is_the_same() {
        let (a, b) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let udp = Tuple::new(5, 17, a, b).with_ports(1000, 53);
        let back = udp.reversed().unwrap();
        assert_eq!((back.src(), back.dst(), back.src_port, back.dst_port), (b, a, 53, 1000));
        assert_eq!(back.reversed(), Some(udp));
        let ping = Tuple::new(0, IP_PROTO_ICMP, a, b).with_ports(77, 8 << 8);
        let pong = ping.reversed().unwrap();
        assert_eq!((pong.src_port, pong.icmp_type()), (77, 0));
        assert_eq!(pong.reversed(), Some(ping));
        assert_eq!(Tuple::new(0, IP_PROTO_ICMP, a, b).with_ports(0, 3 << 8).reversed(), None, "no answer");
    }

    #[test]
    fn a_connection_has_a_small_tuple() {
        assert_eq!(size_of::<Tuple>(), 40);
    }
}
