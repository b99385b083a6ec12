//! What a router says for itself, and what it reads of what others say: ARP, neighbour discovery, ICMP and ICMPv6.
//!
//! Everything here is a function of bytes: nothing is sent, and time does not come in. Reading is total; what is not
//! sound is `None`. Frames are built without VLAN tags, which the flows behind an interface put on, and without
//! padding; etherparse writes IP headers and checksums.
//!
//! - [`read`] finds the datagram in a frame.
//! - [`arp`] is RFC 826 with the announcements of RFC 5227.
//! - [`nd`] is the neighbour and router solicitations and advertisements of RFC 4861, checked as its sections 6.1 and 7.1
//!   ask for; [`advert`] writes the router's.
//! - [`error`] are the errors that a router sends, about which packets, and how much of them it quotes.
//! - [`echo`] are echo requests and replies.

pub(super) mod advert;
pub(super) mod arp;
pub(super) mod echo;
pub(super) mod error;
pub(super) mod nd;
pub(super) mod read;

use etherparse::{IpHeaders, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder};
use std::net::{Ipv4Addr, Ipv6Addr};

/// A hardware address.
pub(super) type Mac = [u8; 6];

/// All stations on a link.
pub(super) const BROADCAST: Mac = [0xff; 6];
/// The hop limit of neighbour discovery: proof that a message was not forwarded (RFC 4861, 11.2).
pub(super) const ND_HOP_LIMIT: u8 = 255;
/// The TTL and hop limit of other messages.
pub(super) const HOP_LIMIT: u8 = 64;
/// Every node on the link.
pub(super) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Every router on the link.
#[cfg(test)]
pub(super) const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// Length of an Ethernet header without tags.
pub(super) const ETH_LEN: usize = 14;

/// The Ethernet addresses of a frame to be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// Who sends it.
    pub(super) src: Mac,
    /// Whom it is for.
    pub(super) dst: Mac,
}

/// Whether frames to this address are for several stations.
pub(super) const fn is_group(mac: Mac) -> bool {
    mac[0] & 1 != 0
}

/// The hardware address that packets to a multicast address go to (RFC 2464, 7; RFC 1112, 6.4).
pub(super) const fn multicast_mac(address: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = address.octets();
    [0x33, 0x33, a, b, c, d]
}

/// The group that the owner of an address listens to (RFC 4291, 2.7.1).
pub(super) const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from_bits(0xff02_0000_0000_0000_0000_0001_ff00_0000 | u32::from_be_bytes([0, a, b, c]) as u128)
}

/// Type, code and second word of an ICMP or ICMPv6 message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Icmp {
    pub(super) kind: u8,
    pub(super) code: u8,
    pub(super) word: [u8; 4],
}

/// An IPv4 datagram with an ICMP message. Empty if `body` is too long for one.
fn icmpv4(link: Link, ip: Ipv4Header, icmp: Icmp, body: &[u8]) -> Vec<u8> {
    let ip = IpHeaders::Ipv4(ip, Default::default());
    let builder = PacketBuilder::ethernet2(link.src, link.dst).ip(ip).icmpv4_raw(icmp.kind, icmp.code, icmp.word);
    let mut frame = Vec::with_capacity(builder.size(body.len()));
    if builder.write_to_vec(&mut frame, body).is_err() {
        frame.clear();
    }
    frame
}

/// An IPv6 packet with an ICMPv6 message. Empty if `body` is too long for one.
fn icmpv6(link: Link, (src, dst): (Ipv6Addr, Ipv6Addr), hop_limit: u8, icmp: Icmp, body: &[u8]) -> Vec<u8> {
    let ip = Ipv6Header {
        source: src.octets(),
        destination: dst.octets(),
        hop_limit,
        next_header: IpNumber::IPV6_ICMP,
        ..Ipv6Header::default()
    };
    let ip = IpHeaders::Ipv6(ip, Default::default());
    let builder = PacketBuilder::ethernet2(link.src, link.dst).ip(ip).icmpv6_raw(icmp.kind, icmp.code, icmp.word);
    let mut frame = Vec::with_capacity(builder.size(body.len()));
    if builder.write_to_vec(&mut frame, body).is_err() {
        frame.clear();
    }
    frame
}

/// The header of an IPv4 datagram of our own that may be fragmented.
fn ipv4_header((src, dst): (Ipv4Addr, Ipv4Addr), tos: u8, identification: u16) -> Ipv4Header {
    Ipv4Header {
        dscp: etherparse::IpDscp::try_new(tos >> 2).unwrap_or_default(),
        ecn: etherparse::IpEcn::try_new(tos & 3).unwrap_or_default(),
        identification,
        dont_fragment: false,
        time_to_live: HOP_LIMIT,
        protocol: IpNumber::ICMP,
        source: src.octets(),
        destination: dst.octets(),
        ..Ipv4Header::default()
    }
}

#[cfg(test)]
mod tests;
