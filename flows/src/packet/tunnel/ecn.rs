//! What inner and outer IP headers share: congestion notification (RFC 6040), TOS and TTL.
//!
//! Frames are looked into behind their Ethernet header and up to two VLAN tags. What is not IP has none of this: it is
//! sent as not ECN-capable, and nothing of the outer header is carried over to it.

use super::header::Payload;
use crate::field::{ETH_TYPE_IPV4, ETH_TYPE_IPV6, ETH_TYPE_QINQ, ETH_TYPE_VLAN};
use crate::packet::checksum;
use crate::packet::layers::{ETH_LEN, IPV4_LEN, IPV6_LEN, VLAN_LEN, be16};

/// The ECN field, in the two low bits of TOS or traffic class (RFC 3168).
const ECN: u8 = 0x03;
const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;

/// Where the IP header is, and its version: never [`Payload::Ethernet`]. It is wholly within `bytes`.
#[inline]
pub(super) fn ip_at(bytes: &[u8], payload: Payload) -> Option<(usize, Payload)> {
    let (at, version) = match payload {
        Payload::Ethernet => {
            let mut at = ETH_LEN;
            let mut eth_type = be16(bytes, at - 2);
            for _ in 0..2 {
                if matches!(eth_type, ETH_TYPE_VLAN | ETH_TYPE_QINQ) {
                    at += VLAN_LEN;
                    eth_type = be16(bytes, at - 2);
                }
            }
            match eth_type {
                ETH_TYPE_IPV4 => (at, Payload::Ipv4),
                ETH_TYPE_IPV6 => (at, Payload::Ipv6),
                _ => return None,
            }
        }
        ip => (0, ip),
    };
    let len = if version == Payload::Ipv4 { IPV4_LEN } else { IPV6_LEN };
    (bytes.len() >= at + len).then_some((at, version))
}

/// TOS or traffic class, and TTL or hop limit, of the IP header inside: what outer headers inherit. `None` when there
/// is none.
#[inline]
pub fn tos_ttl(bytes: &[u8], payload: Payload) -> Option<(u8, u8)> {
    let (at, version) = ip_at(bytes, payload)?;
    Some(if version == Payload::Ipv4 {
        (*bytes.get(at + 1)?, *bytes.get(at + 8)?)
    } else {
        ((be16(bytes, at) >> 4) as u8, *bytes.get(at + 7)?)
    })
}

/// The outer TOS: `tos` with the ECN field of the TOS inside, as the normal mode of RFC 6040 (4.1) has it. `inner` is
/// 0 for what is not IP.
#[inline]
pub const fn encapsulate(tos: u8, inner: u8) -> u8 {
    tos & !ECN | inner & ECN
}

/// Carries the ECN field of the outer TOS over to the packet inside (RFC 6040, figure 4). False for what must be
/// dropped: congestion was experienced, and the packet inside could not say so.
#[inline]
pub fn decapsulate(tos: u8, bytes: &mut [u8], payload: Payload) -> bool {
    // With these nothing changes, whatever is inside.
    if matches!(tos & ECN, NOT_ECT | ECT_0) {
        return true;
    }
    let Some((at, version)) = ip_at(bytes, payload) else { return true };
    let Some((inner, _)) = tos_ttl(bytes, payload) else { return true };
    let new = match (inner & ECN, tos & ECN) {
        (NOT_ECT, CE) => return false,
        (ECT_0, ECT_1) => ECT_1,
        (ECT_0 | ECT_1, CE) => CE,
        _ => return true,
    };
    set(bytes, at, version, inner & !ECN | new);
    true
}

/// Writes TOS or traffic class of the IP header at `at`.
fn set(bytes: &mut [u8], at: usize, version: Payload, tos: u8) {
    let Some(first) = bytes.get_mut(at..).and_then(|b| b.first_chunk_mut::<2>()) else { return };
    let old = u16::from_be_bytes(*first);
    if version == Payload::Ipv6 {
        *first = (old & 0xf00f | u16::from(tos) << 4).to_be_bytes();
        return;
    }
    let new = old & 0xff00 | u16::from(tos);
    *first = new.to_be_bytes();
    let diff = checksum::diff(old.into(), new.into());
    if let Some(field) = bytes.get_mut(at + 10..).and_then(|b| b.first_chunk_mut::<2>()) {
        *field = checksum::update(u16::from_be_bytes(*field), diff).to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::testing::{eth, ipv4, ipv6, udp};

    /// An IP packet with this TOS, in IPv4 with the right checksum.
    fn packet(v6: bool, tos: u8) -> Vec<u8> {
        let mut packet = if v6 { ipv6(17, &udp(b"data")) } else { ipv4(17, &udp(b"data")) };
        let version = if v6 { Payload::Ipv6 } else { Payload::Ipv4 };
        set(&mut packet, 0, version, tos);
        packet
    }

    #[test]
    fn decapsulation_follows_the_table_of_rfc_6040() {
        // Rows: inner; columns: outer not-ECT, ECT(0), ECT(1), CE. `None` is a drop.
        let columns = [NOT_ECT, ECT_0, ECT_1, CE];
        let table = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for (inner, row) in table {
            for (outer, want) in columns.into_iter().zip(row) {
                for v6 in [false, true] {
                    let before = packet(v6, 0xb8 | inner);
                    for (payload, head) in
                        [(if v6 { Payload::Ipv6 } else { Payload::Ipv4 }, 0), (Payload::Ethernet, 22)]
                    {
                        let mut bytes = before.clone();
                        if payload == Payload::Ethernet {
                            let eth_type = if v6 { 0x86dd } else { 0x0800 };
                            bytes = eth(&[(0x88a8, 1), (0x8100, 2)], eth_type, &before);
                        }
                        assert_eq!(decapsulate(0x20 | outer, &mut bytes, payload), want.is_some());
                        let after = packet(v6, 0xb8 | want.unwrap_or(inner));
                        assert_eq!(bytes[head..], after, "{inner} in {outer}, {payload:?}, v6 {v6}");
                        assert!(v6 || checksum::verify(&bytes[head..head + 20], 0));
                    }
                }
            }
        }
    }

    #[test]
    fn the_outer_field_is_that_inside_and_the_rest_of_the_tos_its_own() {
        assert_eq!(encapsulate(0xb8, 0x23), 0xbb);
        assert_eq!(encapsulate(0xbb, 0x20), 0xb8);
        assert_eq!(tos_ttl(&ipv6(17, b""), Payload::Ipv6), Some((0xab, 63)));
        assert_eq!(tos_ttl(&eth(&[(0x8100, 2)], 0x0800, &ipv4(17, b"")), Payload::Ethernet), Some((0xb9, 64)));
    }

    #[test]
    fn what_is_not_ip_or_is_cut_short_is_left_alone() {
        let arp = eth(&[], 0x0806, &[0; 28]);
        let short = eth(&[], 0x0800, &ipv4(17, b"")[..19]);
        let tags = eth(&[(0x8100, 1), (0x8100, 1), (0x8100, 1)], 0x0800, &ipv4(17, b""));
        for before in [&arp[..], &short, &tags, &[]] {
            let mut after = before.to_vec();
            assert!(decapsulate(CE, &mut after, Payload::Ethernet));
            assert_eq!(after, before);
            assert_eq!(tos_ttl(before, Payload::Ethernet), None);
        }
    }
}
