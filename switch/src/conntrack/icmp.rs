//! ICMP and ICMPv6: queries, which are connections of their own, and errors, which belong to the connection of the packet
//! that they quote (RFC 792; RFC 4443).
//!
//! An error never begins a connection. Its receiver must have sent the quoted packet: outer destination and quoted source
//! are the same address. Quoted are at least eight bytes of transport header; of ICMPv6 errors, which have room for
//! more, the whole one. As in Open vSwitch, everything else is invalid: queries with a code, neighbour discovery, errors
//! about errors, about fragments, and of unknown types.

use super::packet::be16;
use super::tuple::{Tuple, icmp_answer};
use sluice_flows::field::{IP_PROTO_ICMP, IP_PROTO_SCTP, IP_PROTO_TCP, IP_PROTO_UDP};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[cfg(test)]
mod tests;

/// Length of the header of a query or an error.
const HEADER_LEN: usize = 8;
/// Length of an IPv4 header without options.
const IPV4_LEN: usize = 20;
/// Length of an IPv6 header without extension headers.
const IPV6_LEN: usize = 40;

/// The packet that an error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quoted {
    /// Where its IP header starts in the frame.
    pub(crate) l3_ofs: usize,
    /// Where its transport header starts. At least eight bytes of it are there, if its protocol has ports.
    pub(crate) l4_ofs: usize,
}

/// Whether a message of this type asks something.
pub(crate) const fn is_question(proto: u8, kind: u8) -> bool {
    match proto {
        IP_PROTO_ICMP => matches!(kind, 8 | 13 | 15),
        _ => kind == 128,
    }
}

/// Whether a message of this type is an error.
const fn is_error(proto: u8, kind: u8) -> bool {
    match proto {
        IP_PROTO_ICMP => matches!(kind, 3 | 4 | 5 | 11 | 12),
        _ => matches!(kind, 1..=4),
    }
}

/// What a message between the addresses of `outer` is known by, and the packet that it quotes. The message is at `at` in
/// its frame.
pub(crate) fn read(outer: &Tuple, message: &[u8], at: usize) -> Option<(Tuple, Option<Quoted>)> {
    let kind = *message.first()?;
    if !is_error(outer.proto, kind) {
        return Some((query(outer, message)?, None));
    }
    let inner = message.get(HEADER_LEN..)?;
    let (tuple, ofs) = if outer.is_v6() { quoted_v6(outer.zone, inner)? } else { quoted_v4(outer.zone, inner)? };
    if tuple.src() != outer.dst() {
        return None;
    }
    let l3_ofs = at + HEADER_LEN;
    Some((tuple.reversed()?, Some(Quoted { l3_ofs, l4_ofs: l3_ofs + ofs })))
}

/// `tuple` with the identifier and type of a query.
fn query(tuple: &Tuple, message: &[u8]) -> Option<Tuple> {
    let &[kind, code, _, _, id_high, id_low, _, _] = message.first_chunk::<HEADER_LEN>()?;
    let id = u16::from_be_bytes([id_high, id_low]);
    (code == 0 && icmp_answer(tuple.proto, kind).is_some())
        .then(|| tuple.with_ports(id, u16::from_be_bytes([kind, code])))
}

/// What a quoted IPv4 packet is known by, and where its transport header starts.
fn quoted_v4(zone: u16, packet: &[u8]) -> Option<(Tuple, usize)> {
    let header = packet.first_chunk::<IPV4_LEN>()?;
    let header_len = usize::from(header[0] & 0xf) * 4;
    if header_len < IPV4_LEN || be16(header, 6) & 0x3fff != 0 {
        return None;
    }
    let body = packet.get(header_len..)?;
    let address = |at: usize| IpAddr::from(Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]));
    let tuple = Tuple::new(zone, header[9], address(12), address(16));
    Some((quoted_ports(tuple, body, HEADER_LEN)?, header_len))
}

/// What a quoted IPv6 packet is known by, and where its transport header starts.
fn quoted_v6(zone: u16, packet: &[u8]) -> Option<(Tuple, usize)> {
    let (header, mut rest) = packet.split_first_chunk::<IPV6_LEN>()?;
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&header[at..at + 16]);
        IpAddr::from(Ipv6Addr::from(octets))
    };
    let mut proto = header[6];
    // Every extension header takes at least eight bytes, which bounds the walk.
    while matches!(proto, 0 | 43 | 44 | 51 | 60) {
        let extension = rest.first_chunk::<8>()?;
        let len = match proto {
            44 => 8,
            51 => (usize::from(extension[1]) + 2) * 4,
            _ => (usize::from(extension[1]) + 1) * 8,
        };
        if proto == 44 && be16(extension, 2) != 0 {
            return None;
        }
        (proto, rest) = (extension[0], rest.get(len..)?);
    }
    let least = match proto {
        IP_PROTO_TCP => 20,
        IP_PROTO_SCTP => 12,
        _ => HEADER_LEN,
    };
    let tuple = Tuple::new(zone, proto, address(8), address(24));
    Some((quoted_ports(tuple, rest, least)?, packet.len() - rest.len()))
}

/// `tuple` with the ports of a quoted transport header, of which `least` bytes have to be there.
fn quoted_ports(tuple: Tuple, header: &[u8], least: usize) -> Option<Tuple> {
    if tuple.is_icmp() {
        return query(&tuple, header);
    }
    if !matches!(tuple.proto, IP_PROTO_TCP | IP_PROTO_UDP | IP_PROTO_SCTP) {
        return Some(tuple);
    }
    let (src_port, dst_port) = (be16(header, 0), be16(header, 2));
    (header.len() >= least && src_port != 0 && dst_port != 0).then(|| tuple.with_ports(src_port, dst_port))
}
