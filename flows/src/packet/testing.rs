//! Frames for tests, built byte by byte.

use super::checksum;

pub(crate) const DST: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const SRC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(crate) const A6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub(crate) const B6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
pub(crate) const A4: [u8; 4] = [10, 0, 0, 1];
pub(crate) const B4: [u8; 4] = [10, 0, 0, 2];

/// An Ethernet frame with `tags` (TPID, TCI), outermost first.
pub(crate) fn eth(tags: &[(u16, u16)], eth_type: u16, body: &[u8]) -> Vec<u8> {
    let mut out = [DST, SRC].concat();
    for (tpid, tci) in tags {
        out.extend(tpid.to_be_bytes());
        out.extend(tci.to_be_bytes());
    }
    out.extend(eth_type.to_be_bytes());
    out.extend(body);
    out
}

/// An IPv4 packet: TOS 0xb9, TTL 64, `flags_offset` as in bytes 6 and 7, header checksum right.
pub(crate) fn ipv4_frag(proto: u8, flags_offset: u16, options: &[u8], body: &[u8]) -> Vec<u8> {
    let header_len = 20 + options.len();
    let mut out = vec![0x40 | (header_len / 4) as u8, 0xb9];
    out.extend(((header_len + body.len()) as u16).to_be_bytes());
    out.extend([0x12, 0x34]);
    out.extend(flags_offset.to_be_bytes());
    out.extend([64, proto, 0, 0]);
    out.extend(A4);
    out.extend(B4);
    out.extend(options);
    let sum = checksum::checksum(&out).to_be_bytes();
    out[10..12].copy_from_slice(&sum);
    out.extend(body);
    out
}

/// An unfragmented IPv4 packet without options.
pub(crate) fn ipv4(proto: u8, body: &[u8]) -> Vec<u8> {
    ipv4_frag(proto, 0x4000, &[], body)
}

/// An IPv6 packet: traffic class 0xab, flow label 0x12345, hop limit 63.
pub(crate) fn ipv6(next: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0x6a, 0xb1, 0x23, 0x45];
    out.extend((body.len() as u16).to_be_bytes());
    out.extend([next, 63]);
    out.extend(A6);
    out.extend(B6);
    out.extend(body);
    out
}

/// A TCP segment from port 1000 to 2000 with a zero checksum field.
pub(crate) fn tcp(flags: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x03, 0xe8, 0x07, 0xd0, 0, 0, 0, 1, 0, 0, 0, 2];
    out.extend((((5 + options.len() / 4) as u16) << 12 | flags).to_be_bytes());
    out.extend([0x20, 0, 0, 0, 0, 0]);
    out.extend(options);
    out.extend(payload);
    out
}

/// A UDP datagram from port 1000 to 2000 with a zero checksum field.
pub(crate) fn udp(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x03, 0xe8, 0x07, 0xd0];
    out.extend(((8 + payload.len()) as u16).to_be_bytes());
    out.extend([0, 0]);
    out.extend(payload);
    out
}

/// An SCTP packet from port 1000 to 2000 with its CRC32c.
pub(crate) fn sctp(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x03, 0xe8, 0x07, 0xd0, 0, 0, 0, 9, 0, 0, 0, 0];
    out.extend(payload);
    let crc = checksum::sctp(&out);
    out[8..12].copy_from_slice(&crc);
    out
}

/// A neighbour discovery message for target 2001:db8::9 with `options`, its checksum field zero.
pub(crate) fn nd(kind: u8, code: u8, options: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, code, 0, 0, 0, 0, 0, 0];
    out.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    out.extend(options);
    out
}

/// An ARP packet from 0a:..:01/10.0.0.1 to 0a:..:02/10.0.0.2.
pub(crate) fn arp(op: u16) -> Vec<u8> {
    let mut out = vec![0, 1, 8, 0, 6, 4];
    out.extend(op.to_be_bytes());
    out.extend([0x0a, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0x0a, 0, 0, 0, 0, 2, 10, 0, 0, 2]);
    out
}
