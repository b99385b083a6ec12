//! Packets as bytes.

use super::{Body, End, Packet, Piece, Sum};
use sluice_flows::packet::checksum::{add, pseudo_v4, pseudo_v6, sctp, sum};
use std::net::IpAddr;

const IP_PROTO_ICMP: u8 = 1;
const IP_PROTO_FRAGMENT: u8 = 44;
const IP_PROTO_ICMPV6: u8 = 58;
const HOP_LIMIT: u8 = 64;

/// Two ends, as a packet has them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) src: End,
    pub(super) dst: End,
}

/// The frame number `number`: it stands in the source address, where switches leave it alone.
pub(super) fn frame(number: u16, proto: u8, ends: Ends, packet: &Packet, about: &[u8]) -> Vec<u8> {
    let v6 = ends.src.addr.is_ipv6();
    let proto = match (&packet.body, v6) {
        (Body::Error { .. }, false) => IP_PROTO_ICMP,
        (Body::Error { .. }, true) => IP_PROTO_ICMPV6,
        _ => proto,
    };
    let mut transport = transport(ends, &packet.body, about);
    set_checksum(&mut transport, proto, ends, packet.sum);
    let [hi, lo] = number.to_be_bytes();
    let mut out = vec![2, 0, 0, 0, 0xaa, 1, 2, 0, 0, 0, hi, lo];
    out.extend(if v6 { [0x86, 0xdd] } else { [8, 0] });
    match packet.piece {
        Some(piece) => {
            let from = usize::from(piece.offset).min(transport.len());
            let to = (from + usize::from(piece.len)).min(transport.len());
            datagram(&mut out, proto, ends, &transport[from..to], Some(piece));
        }
        None => datagram(&mut out, proto, ends, &transport, None),
    }
    out
}

fn datagram(out: &mut Vec<u8>, proto: u8, ends: Ends, payload: &[u8], piece: Option<Piece>) {
    match (ends.src.addr, ends.dst.addr) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let start = out.len();
            out.extend([0x45, 0]);
            out.extend((20 + payload.len() as u16).to_be_bytes());
            let (id, fragment) = piece.map_or((0, 0x4000), |p| (p.id, (u16::from(p.more) << 13) | (p.offset / 8)));
            out.extend(id.to_be_bytes());
            out.extend(fragment.to_be_bytes());
            out.extend([HOP_LIMIT, proto, 0, 0]);
            out.extend(src.octets());
            out.extend(dst.octets());
            let checksum = (!sum(&out[start..])).to_be_bytes();
            out[start + 10..start + 12].copy_from_slice(&checksum);
        }
        (src, dst) => {
            let [src, dst] = [src, dst].map(octets);
            let header = if piece.is_some() { 8 } else { 0 };
            out.extend([0x60, 0, 0, 0]);
            out.extend((header + payload.len() as u16).to_be_bytes());
            out.extend([if piece.is_some() { IP_PROTO_FRAGMENT } else { proto }, HOP_LIMIT]);
            out.extend(src);
            out.extend(dst);
            if let Some(piece) = piece {
                out.extend([proto, 0]);
                out.extend((piece.offset | u16::from(piece.more)).to_be_bytes());
                out.extend(u32::from(piece.id).to_be_bytes());
            }
        }
    }
    out.extend(payload);
}

fn octets(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    }
}

/// Header and payload, checksum 0.
fn transport(ends: Ends, body: &Body, about: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let ports = |out: &mut Vec<u8>| out.extend([ends.src.port.to_be_bytes(), ends.dst.port.to_be_bytes()].concat());
    let len = match *body {
        Body::Tcp { flags, seq, ack, window, len, scale } => {
            ports(&mut out);
            out.extend([seq.to_be_bytes(), ack.to_be_bytes()].concat());
            out.extend([if scale.is_some() { 0x60 } else { 0x50 }, flags]);
            out.extend(window.to_be_bytes());
            out.extend([0; 4]);
            out.extend(scale.map(|scale| [1, 3, 3, scale]).into_iter().flatten());
            len
        }
        Body::Udp { len } => {
            ports(&mut out);
            out.extend((8 + len).to_be_bytes());
            out.extend([0; 2]);
            len
        }
        Body::Icmp { kind, code, seq, len } => {
            out.extend([kind, code, 0, 0]);
            // The identifier is the opener's port, which both ends show.
            out.extend(ends.src.port.to_be_bytes());
            out.extend(seq.to_be_bytes());
            len
        }
        Body::Error { kind, code, len, .. } => {
            out.extend([kind, code, 0, 0, 0, 0, 0, 0]);
            out.extend(&about[..about.len().min(len.into())]);
            0
        }
        Body::Sctp { chunk, len } => {
            ports(&mut out);
            out.extend([0, 0, 0, 9, 0, 0, 0, 0, chunk, 0]);
            out.extend((4 + len).to_be_bytes());
            len
        }
        Body::Plain { len } => len,
    };
    out.extend((0..len).map(|n| n as u8));
    out
}

/// Where the checksum of a protocol stands in its header.
pub(super) fn checksum_at(proto: u8, v6: bool) -> Option<usize> {
    match (proto, v6) {
        (6, _) => Some(16),
        (17, _) => Some(6),
        (IP_PROTO_ICMP, false) | (IP_PROTO_ICMPV6, true) => Some(2),
        _ => None,
    }
}

/// The sum that a protocol's checksum begins with.
pub(super) fn pseudo(proto: u8, src: IpAddr, dst: IpAddr, len: usize) -> u16 {
    match (src, dst) {
        (IpAddr::V4(_), _) if proto == IP_PROTO_ICMP => 0,
        (IpAddr::V4(src), IpAddr::V4(dst)) => pseudo_v4(src.octets(), dst.octets(), proto, len as u16),
        (src, dst) => pseudo_v6(octets(src), octets(dst), proto, len as u32),
    }
}

fn set_checksum(transport: &mut [u8], proto: u8, ends: Ends, kind: Sum) {
    if proto == 132 && transport.len() >= 12 {
        let mut crc = sctp(transport);
        crc[0] ^= if kind == Sum::Bad { 1 } else { 0 };
        transport[8..12].copy_from_slice(&crc);
    }
    let Some(at) = checksum_at(proto, ends.src.addr.is_ipv6()) else { return };
    let start = pseudo(proto, ends.src.addr, ends.dst.addr, transport.len());
    let checksum = match (kind, !add(start, sum(transport))) {
        (Sum::Zero, _) => 0,
        (Sum::Bad, right) => right ^ 0x1111,
        (Sum::Good, 0) if proto == 17 => 0xffff,
        (Sum::Good, right) => right,
    };
    if let Some(place) = transport.get_mut(at..at + 2) {
        place.copy_from_slice(&checksum.to_be_bytes());
    }
}
