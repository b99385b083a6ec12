//! The outer source port: a number that is the same for all packets of one flow inside, and spread over flows.
//!
//! Routers on the way and receivers' queues choose by the outer ports (RFC 7348, 5). Fragments are told by their
//! addresses alone, all of them, so that those of one datagram stay together; so are IPv6 packets with extension
//! headers, whose flow label counts too. What is not IP is told by its MAC addresses and EtherType.

use super::ecn::ip_at;
use super::header::Payload;
use crate::field::{IP_PROTO_SCTP, IP_PROTO_TCP, IP_PROTO_UDP};
use crate::packet::layers::{IPV4_LEN, IPV6_LEN, be16, be32, be64};

/// Odd constants with their bits spread.
const A: u64 = 0x9e37_79b9_7f4a_7c15;
const B: u64 = 0xd6e8_feb8_6659_fd93;

/// A hash of the flow that a packet belongs to, before it is put into a tunnel.
#[inline]
pub fn flow_hash(bytes: &[u8], payload: Payload) -> u32 {
    match ip_at(bytes, payload) {
        Some((at, Payload::Ipv4)) => ipv4(bytes.get(at..).unwrap_or_default()),
        Some((at, _)) => ipv6(bytes.get(at..).unwrap_or_default()),
        None => finish(mix(be64(bytes, 0) ^ A, u64::from(be32(bytes, 8)) << 16 | u64::from(be16(bytes, 12)))),
    }
}

/// The port of `low..=high` that a hash chooses; `low` when `high` is not above it.
#[inline]
pub fn port(hash: u32, low: u16, high: u16) -> u16 {
    let count = u64::from(high.saturating_sub(low)) + 1;
    // The upper bits choose, without a division. The result is below `count`.
    low.saturating_add(((u64::from(hash) * count) >> 32) as u16)
}

fn ipv4(ip: &[u8]) -> u32 {
    let proto = ip.get(9).copied().unwrap_or_default();
    let whole = be16(ip, 6) & 0x3fff == 0;
    let header_len = usize::from(ip.first().copied().unwrap_or_default() & 0xf) * 4;
    let ports = if whole { ports(proto, ip, header_len.max(IPV4_LEN)) } else { 0 };
    // The protocol of a fragment is told by no port, but it is the same in all of them.
    finish(mix(be64(ip, 12) ^ A, u64::from(ports) << 8 | u64::from(proto)))
}

fn ipv6(ip: &[u8]) -> u32 {
    let proto = ip.get(6).copied().unwrap_or_default();
    let tail = match ports(proto, ip, IPV6_LEN) {
        // The flow label is the sender's hash (RFC 6437); a flow that has ports needs none.
        0 => u64::from(be32(ip, 0) & 0x000f_ffff),
        ports => u64::from(ports) << 8 | u64::from(proto),
    };
    let sources = mix(be64(ip, 8) ^ A, be64(ip, 16) ^ B);
    finish(mix(sources ^ be64(ip, 24), be64(ip, 32) ^ tail.wrapping_mul(A)))
}

/// Both ports of a transport that has some; 0 for another.
#[inline(always)]
fn ports(proto: u8, ip: &[u8], at: usize) -> u32 {
    if matches!(proto, IP_PROTO_TCP | IP_PROTO_UDP | IP_PROTO_SCTP) { be32(ip, at) } else { 0 }
}

/// Both halves of a product, so that every bit of both counts.
#[inline(always)]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b ^ B);
    product as u64 ^ (product >> 64) as u64
}

#[inline(always)]
fn finish(hash: u64) -> u32 {
    (hash.wrapping_mul(A) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::testing::{eth, ipv4, ipv4_frag, ipv6, tcp, udp};

    fn with_port(v6: bool, port: u16) -> Vec<u8> {
        let mut message = udp(b"data");
        message[..2].copy_from_slice(&port.to_be_bytes());
        if v6 { eth(&[], 0x86dd, &ipv6(17, &message)) } else { eth(&[], 0x0800, &ipv4(17, &message)) }
    }

    #[test]
    fn flows_spread_evenly_over_ports() {
        for v6 in [false, true] {
            let mut counts = [0; 16];
            for n in 0..16_000 {
                let port = port(flow_hash(&with_port(v6, n), Payload::Ethernet), 32768, 32783);
                counts[usize::from(port - 32768)] += 1;
            }
            // 1000 each, give or take six standard deviations.
            assert!(counts.iter().all(|count| (820..1180).contains(count)), "{counts:?}");
        }
    }

    #[test]
    fn a_flow_keeps_its_hash_whatever_it_carries_and_however_it_is_framed() {
        let hash = |bytes: &[u8], payload| flow_hash(bytes, payload);
        let one = tcp(0x02, &[1; 4], b"");
        let mut other = tcp(0x10, &[], b"data");
        other[4] = 9;
        assert_eq!(hash(&eth(&[], 0x0800, &ipv4(6, &one)), Payload::Ethernet), hash(&ipv4(6, &other), Payload::Ipv4));
        assert_eq!(
            hash(&eth(&[(0x8100, 3)], 0x86dd, &ipv6(6, &one)), Payload::Ethernet),
            hash(&ipv6(6, &other), Payload::Ipv6)
        );
    }

    #[test]
    fn all_fragments_of_a_datagram_have_one_hash() {
        let first = ipv4_frag(17, 0x2000, &[], &udp(b"data"));
        let later = ipv4_frag(17, 0x0010, &[], b"other bytes");
        assert_eq!(flow_hash(&first, Payload::Ipv4), flow_hash(&later, Payload::Ipv4));
    }

    #[test]
    fn what_is_not_ip_is_told_by_its_addresses() {
        let arp = eth(&[], 0x0806, &[0; 28]);
        let mut other = arp.clone();
        other[20] = 1;
        assert_eq!(flow_hash(&arp, Payload::Ethernet), flow_hash(&other, Payload::Ethernet));
        other[11] ^= 1;
        assert_ne!(flow_hash(&arp, Payload::Ethernet), flow_hash(&other, Payload::Ethernet));
    }

    #[test]
    fn ports_stay_in_their_range() {
        for hash in [0, 1, 0x8000_0000, u32::MAX] {
            assert!((1000..=1003).contains(&port(hash, 1000, 1003)));
            assert_eq!(port(hash, 7, 7), 7);
            assert_eq!(port(hash, 9, 3), 9);
            assert!(port(hash, 0, u16::MAX) >= (hash >> 16) as u16);
        }
    }
}
