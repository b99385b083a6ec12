//! What the tracker reads of a packet.
//!
//! [`Packet::read`] finds what the packet is known by; [`Packet::is_sound`] checks the rest of its headers, and its
//! checksums. The second is left out for packets that a cached answer would do for: they are told the same whether a
//! cache has the answer or not. (Open vSwitch's user-space tracker sums every packet. A segment of an established
//! connection with a wrong checksum is dropped by whoever it is for.)
//!
//! Where the sender has left a transport checksum to be filled in, or vouches for it, there is nothing to check.

use super::icmp::{self, Quoted};
use super::sctp::SctpPacket;
use super::tcp::TcpSegment;
use super::tuple::Tuple;
use sluice_flows::field::{IP_PROTO_ICMP, IP_PROTO_ICMPV6, IP_PROTO_SCTP, IP_PROTO_TCP, IP_PROTO_UDP};
use sluice_flows::key::{FRAG_ANY, PacketKey, slot};
use sluice_flows::packet::rewrite::datagram_end;
use sluice_flows::packet::{Frame, L3, L4, Layers, Offload, checksum};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[cfg(test)]
mod tests;

/// Length of a UDP header.
const UDP_LEN: usize = 8;

/// What the guards of a cached answer look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// A TCP segment.
    Tcp(TcpSegment),
    /// An SCTP packet that moves no state, by its verification tag.
    Sctp(u32),
}

impl Segment {
    /// Of a frame with these layers. `None` if its protocol has nothing to be looked at, or if it is SCTP and moves a
    /// state.
    #[inline]
    pub(crate) fn read(bytes: &[u8], layers: &Layers) -> Option<Self> {
        if !matches!(layers.l4, L4::Tcp | L4::Sctp) {
            return None;
        }
        let message = bytes.get(usize::from(layers.l4_ofs)..datagram_end(bytes, layers))?;
        if layers.l4 == L4::Tcp {
            let header_len = layers.payload_ofs.saturating_sub(layers.l4_ofs);
            let len = message.len().saturating_sub(header_len.into()) as u32;
            return TcpSegment::read(message, len).map(Self::Tcp);
        }
        SctpPacket::read(message)?.plain_tag().map(Self::Sctp)
    }
}

/// What the tracker reads of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    /// What it is known by. Of an ICMP error, what the quoted packet's answer is known by.
    pub(crate) tuple: Tuple,
    /// The packet that an ICMP error quotes.
    pub(crate) quoted: Option<Quoted>,
    /// What guards look at.
    pub(crate) segment: Option<Segment>,
    /// Its own addresses and protocol.
    outer: Tuple,
    /// The IP header with its options and extension headers.
    network: &'a [u8],
    /// The transport header and what follows it in the datagram.
    pub(crate) message: &'a [u8],
    /// Length of the transport header with its options.
    header_len: usize,
    l4: L4,
    offload: Offload,
}

impl<'a> Packet<'a> {
    /// Of a frame from which `layers` and `key` were read. `None` if the tracker can make nothing of it: it is not IP, is
    /// a fragment, or has no transport header of the protocol that it names.
    pub(crate) fn read(frame: &'a Frame, layers: &Layers, key: &PacketKey, zone: u16) -> Option<Self> {
        let bytes = frame.bytes();
        let (src, dst) = addresses(layers.l3, key)?;
        let (ip, l4) = (usize::from(layers.l3_ofs), usize::from(layers.l4_ofs));
        if layers.l4_ofs == 0 || key.get(slot::IP_FRAG) as u8 & FRAG_ANY != 0 {
            return None;
        }
        let end = datagram_end(bytes, layers);
        let (network, message) = (bytes.get(ip..l4)?, bytes.get(l4..end)?);
        let outer = Tuple::new(zone, key.get(slot::IP_PROTO) as u8, src, dst);
        let (mut tuple, mut quoted) = (outer, None);
        match (outer.proto, layers.l4) {
            (IP_PROTO_TCP, L4::Tcp) | (IP_PROTO_UDP, L4::Udp) | (IP_PROTO_SCTP, L4::Sctp) => {
                let [src_port, dst_port] = [slot::TP_SRC, slot::TP_DST].map(|slot| key.get(slot) as u16);
                if src_port == 0 || dst_port == 0 {
                    return None;
                }
                tuple = outer.with_ports(src_port, dst_port);
            }
            (IP_PROTO_ICMP, L4::Icmp) | (IP_PROTO_ICMPV6, L4::Icmpv6) => {
                (tuple, quoted) = icmp::read(&outer, message, l4)?;
            }
            (IP_PROTO_TCP | IP_PROTO_UDP | IP_PROTO_SCTP, _) => return None,
            _ if outer.is_icmp() => return None,
            _ => {}
        }
        Some(Self {
            tuple,
            quoted,
            segment: Segment::read(bytes, layers),
            outer,
            network,
            message,
            header_len: usize::from(layers.payload_ofs).saturating_sub(l4),
            l4: layers.l4,
            offload: frame.offload,
        })
    }

    /// The options of its TCP header.
    pub(crate) fn tcp_options(&self) -> &'a [u8] {
        self.message.get(TcpSegment::HEADER_LEN..self.header_len).unwrap_or_default()
    }

    /// Whether lengths and checksums are right.
    pub(crate) fn is_sound(&self) -> bool {
        let v4 = !self.outer.is_v6();
        if v4 && !checksum::verify(self.network, 0) {
            return false;
        }
        let vouched = self.offload.csum_valid || self.offload.csum_partial;
        match self.l4 {
            L4::Tcp => vouched || self.sums_up(),
            L4::Udp => {
                let len = usize::from(be16(self.message, 4));
                let unsummed = v4 && be16(self.message, 6) == 0;
                len >= UDP_LEN && len <= self.message.len() && (vouched || unsummed || self.sums_up())
            }
            L4::Sctp => {
                SctpPacket::read(self.message).is_some_and(|packet| packet.is_sound())
                    && (vouched || checksum::verify_sctp(self.message))
            }
            L4::Icmp => vouched || checksum::verify(self.message, 0),
            L4::Icmpv6 => vouched || self.sums_up(),
            L4::None => true,
        }
    }

    /// Whether it may begin a connection.
    pub(crate) fn may_begin(&self) -> bool {
        match (self.l4, &self.segment) {
            (L4::Tcp, Some(Segment::Tcp(segment))) => segment.may_begin(),
            (L4::Sctp, _) => SctpPacket::read(self.message).is_some_and(|packet| packet.may_begin()),
            (L4::Icmp | L4::Icmpv6, _) => icmp::is_question(self.outer.proto, self.tuple.icmp_type()),
            _ => true,
        }
    }

    /// Whether the checksum of message and pseudo-header is right.
    fn sums_up(&self) -> bool {
        let (proto, len) = (self.outer.proto, self.message.len());
        let pseudo = match (self.outer.src(), self.outer.dst()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let len = u16::try_from(len).unwrap_or(u16::MAX);
                checksum::pseudo_v4(src.octets(), dst.octets(), proto, len)
            }
            (src, dst) => {
                let octets = |address| match address {
                    IpAddr::V4(address) => Ipv4Addr::to_ipv6_mapped(&address).octets(),
                    IpAddr::V6(address) => address.octets(),
                };
                checksum::pseudo_v6(octets(src), octets(dst), proto, u32::try_from(len).unwrap_or(u32::MAX))
            }
        };
        checksum::verify(self.message, pseudo)
    }
}

/// Source and destination address. `None` if it is not IP.
fn addresses(l3: L3, key: &PacketKey) -> Option<(IpAddr, IpAddr)> {
    match l3 {
        L3::Ipv4 => {
            let address = |slot| Ipv4Addr::from_bits(key.get(slot) as u32).into();
            Some((address(slot::IP_SRC), address(slot::IP_DST)))
        }
        L3::Ipv6 => {
            let address = |slot| Ipv6Addr::from_bits(key.get(slot)).into();
            Some((address(slot::IPV6_SRC), address(slot::IPV6_DST)))
        }
        _ => None,
    }
}

/// The big-endian 16-bit number at `at`; 0 past the end.
#[inline]
pub(super) fn be16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u16::from_be_bytes(*b))
}
