//! Frames for tests, built byte by byte.

use super::layers::be16;
use super::{Frame, GsoKind, L3, L4, Layers, Offload, checksum, extract};
use crate::key::{FRAG_LATER, FlowKey, PacketKey, slot};
use proptest::prelude::*;

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

/// Why a frame's checksums are wrong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    Ipv4Header,
    Transport(L4),
}

/// Sums every checksum of a frame anew, from its bytes alone: the IPv4 header's, and the transport's when the
/// whole message is there (it is no fragment).
pub(crate) fn check(frame: &[u8], layers: &Layers) -> Result<(), Wrong> {
    let l3 = usize::from(layers.l3_ofs);
    let l4 = usize::from(layers.l4_ofs);
    let ip = &frame[l3..];
    let (end, mut pseudo) = match layers.l3 {
        L3::Ipv4 => {
            if !checksum::verify(&ip[..usize::from(ip[0] & 0xf) * 4], 0) {
                return Err(Wrong::Ipv4Header);
            }
            (l3 + usize::from(be16(ip, 2)), ip[12..20].to_vec())
        }
        L3::Ipv6 => (l3 + 40 + usize::from(be16(ip, 4)), ip[8..40].to_vec()),
        _ => return Ok(()),
    };
    let proto = match layers.l4 {
        L4::Tcp => 6,
        L4::Udp => 17,
        L4::Icmpv6 => 58,
        L4::Sctp => {
            return if checksum::verify_sctp(&frame[l4..end]) { Ok(()) } else { Err(Wrong::Transport(layers.l4)) };
        }
        L4::Icmp => 0,
        L4::None => return Ok(()),
    };
    let message = &frame[l4..end];
    if layers.l4 == L4::Udp && message[6..8] == [0, 0] {
        return Ok(());
    }
    pseudo.extend(((message.len()) as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, proto]);
    let pseudo = if proto == 0 { 0 } else { checksum::sum(&pseudo) };
    if checksum::verify(message, pseudo) { Ok(()) } else { Err(Wrong::Transport(layers.l4)) }
}

/// A short payload.
pub(crate) fn canonical_payload() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..64)
}

/// A key as it could come from a frame: every field that is set exists in the packet.
pub(crate) fn canonical_key() -> impl Strategy<Value = FlowKey> {
    let l2 = (any::<u32>(), any::<u64>(), any::<u64>(), 0..3usize, any::<[(bool, u16); 2]>());
    let l3 = (
        0..8u8,
        any::<[u128; 2]>(),
        any::<u32>(),
        any::<[u8; 2]>(),
        prop_oneof![3 => Just(0u8), 1 => Just(1), 1 => Just(3)],
    );
    let l4 = (0..7u8, any::<u8>(), any::<[u16; 3]>(), any::<u128>(), any::<[u64; 2]>());
    (l2, l3, l4).prop_map(|(l2, l3, l4)| {
        let mut key = FlowKey::ZERO;
        let (in_port, dst, src, tags, tcis) = l2;
        key.set(slot::IN_PORT, in_port.into());
        key.set(slot::ETH_DST, dst.into());
        key.set(slot::ETH_SRC, src.into());
        let slots = [(slot::VLAN_TPID, slot::VLAN_TCI), (slot::INNER_VLAN_TPID, slot::INNER_VLAN_TCI)];
        for ((qinq, tci), (tpid_slot, tci_slot)) in tcis.into_iter().zip(slots).take(tags) {
            key.set(tpid_slot, if qinq { 0x88a8 } else { 0x8100 });
            key.set(tci_slot, u128::from(tci | 0x1000));
        }
        set_l3(&mut key, l3, l4);
        key
    })
}

type SomeL3 = (u8, [u128; 2], u32, [u8; 2], u8);
type SomeL4 = (u8, u8, [u16; 3], u128, [u64; 2]);

fn set_l3(key: &mut FlowKey, l3: SomeL3, l4: SomeL4) {
    let (kind, addresses, label, [tos, ttl], frag) = l3;
    let eth_type = [0x05ff, 0x88cc, 0x0806, 0x0800, 0x86dd, 0x8847, 0x8848, 0x894f][usize::from(kind)];
    key.set(slot::ETH_TYPE, eth_type);
    match eth_type {
        0x8847 | 0x8848 => return set_mpls(key, addresses[0], ttl % 4),
        0x894f => return set_nsh(key, addresses, [tos, ttl]),
        _ => {}
    }
    let (src, dst) = if eth_type == 0x86dd { (slot::IPV6_SRC, slot::IPV6_DST) } else { (slot::IP_SRC, slot::IP_DST) };
    if kind >= 2 {
        key.set(src, addresses[0]);
        key.set(dst, addresses[1]);
        key.set(slot::IP_PROTO, l4.1.into());
    }
    match eth_type {
        0x0806 => {
            key.set(slot::ARP_SHA, l4.4[0].into());
            key.set(slot::ARP_THA, l4.4[1].into());
        }
        0x0800 | 0x86dd => {
            key.set(slot::IP_TOS, tos.into());
            key.set(slot::IP_TTL, ttl.into());
            key.set(slot::IP_FRAG, frag.into());
            if eth_type == 0x86dd {
                key.set(slot::IPV6_LABEL, u128::from(label & 0xf_ffff));
            }
            set_l4(key, eth_type == 0x86dd, frag, l4);
        }
        _ => {}
    }
}

/// One to three labels, or a stack that does not end among them.
fn set_mpls(key: &mut FlowKey, bits: u128, depth: u8) {
    for (i, slot) in [slot::MPLS_LSE, slot::MPLS_LSE_1, slot::MPLS_LSE_2].into_iter().enumerate() {
        let entry = bits >> (32 * i) & 0xffff_ffff;
        if i == usize::from(depth) {
            return key.set(slot, entry | 0x100);
        }
        key.set(slot, entry & !0x100);
    }
}

fn set_nsh(key: &mut FlowKey, [bits, context]: [u128; 2], [md_type, np]: [u8; 2]) {
    let md_type = md_type % 3;
    key.set(slot::NSH_PATH, bits);
    key.set(slot::NSH_FLAGS, bits >> 32 & 0x3);
    key.set(slot::NSH_TTL, bits >> 40 & 0x3f);
    key.set(slot::NSH_MDTYPE, md_type.into());
    key.set(slot::NSH_NP, np.into());
    if md_type == 1 {
        key.set(slot::NSH_CONTEXT, context);
    }
}

fn set_l4(key: &mut FlowKey, v6: bool, frag: u8, l4: SomeL4) {
    let (kind, _, [a, b, flags], target, [sll, tll]) = l4;
    let proto = [253u8, 6, 17, 132, if v6 { 58 } else { 1 }, if v6 { 58 } else { 1 }, 6][usize::from(kind)];
    if frag & FRAG_LATER != 0 {
        key.set(slot::IP_PROTO, if v6 { 44 } else { u128::from(proto) });
        return;
    }
    key.set(slot::IP_PROTO, u128::from(proto));
    let icmp = matches!(proto, 1 | 58);
    if proto != 253 {
        key.set(slot::TP_SRC, if icmp { a & 0xff } else { a }.into());
        key.set(slot::TP_DST, if icmp { b & 0xff } else { b }.into());
    }
    if proto == 6 {
        key.set(slot::TCP_FLAGS, u128::from(flags & 0xfff));
    }
    if proto == 58 && kind == 5 {
        key.set(slot::TP_SRC, 135 + u128::from(a & 1));
        key.set(slot::TP_DST, 0);
        key.set(slot::ND_TARGET, target);
        key.set(slot::ND_RESERVED, u128::from(a) << 16 | u128::from(b));
        // An address that is zero is still an option if that comes first.
        let (sll, tll) = (sll & mask_of(flags & 1), tll & mask_of(flags & 2));
        key.set(slot::ARP_SHA, sll.into());
        key.set(slot::ARP_THA, tll.into());
        let first = match flags & 0xc {
            0 if sll == 0 && tll == 0 => 0,
            0 | 4 => 1,
            _ => 2,
        };
        key.set(slot::ND_OPTIONS_TYPE, first);
    } else if proto == 58 && matches!(a & 0xff, 135 | 136) {
        key.set(slot::TP_DST, u128::from(b & 0xff | 1));
    }
}

fn mask_of(bit: u16) -> u64 {
    if bit == 0 { 0 } else { 0xffff_ffff_ffff }
}

/// Puts the sum of the pseudo-header into the transport checksum field, as a partial checksum has it.
pub(crate) fn set_partial(frame: &mut [u8], layers: &Layers) {
    let (l3, l4) = (usize::from(layers.l3_ofs), usize::from(layers.l4_ofs));
    let (proto, ofs) = match layers.l4 {
        L4::Tcp => (6, 16),
        L4::Udp => (17, 6),
        L4::Icmpv6 => (58, 2),
        _ => return,
    };
    let (addresses, end) = match layers.l3 {
        L3::Ipv4 => (&frame[l3 + 12..l3 + 20], l3 + usize::from(be16(frame, l3 + 2))),
        _ => (&frame[l3 + 8..l3 + 40], l3 + 40 + usize::from(be16(frame, l3 + 4))),
    };
    let mut pseudo = addresses.to_vec();
    pseudo.extend(((end - l4) as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, proto]);
    frame[l4 + ofs..l4 + ofs + 2].copy_from_slice(&checksum::sum(&pseudo).to_be_bytes());
}

/// A super-frame with the pseudo-header's sum in its checksum field, as a kernel sends it.
pub(crate) fn super_frame(bytes: &[u8], gso: GsoKind, gso_size: u16) -> Frame {
    let mut frame = Frame::from_bytes(bytes);
    let layers = extract(bytes, 0, &mut PacketKey::default());
    frame.offload = Offload {
        gso,
        gso_size,
        csum_partial: true,
        csum_start: layers.l4_ofs,
        csum_offset: if gso == GsoKind::Udp { 6 } else { 16 },
        ..Offload::NONE
    };
    set_partial(frame.bytes_mut(), &layers);
    frame
}

/// Any kind of super-frame: tags, IP version, TCP options, payload, segment size.
pub(crate) fn some_super_frame() -> impl Strategy<Value = (Frame, Vec<u8>)> {
    let payload = proptest::collection::vec(any::<u8>(), 0..4000);
    (0..3usize, any::<bool>(), any::<bool>(), 0..11usize, any::<u16>(), payload, 1..2000u16).prop_map(
        |(tags, v6, is_udp, options, flags, payload, size)| {
            let message = if is_udp { udp(&payload) } else { tcp(flags & 0xfff, &vec![1; options * 4], &payload) };
            let proto = if is_udp { 17 } else { 6 };
            let (eth_type, packet) = if v6 { (0x86dd, ipv6(proto, &message)) } else { (0x0800, ipv4(proto, &message)) };
            let kind = match (is_udp, v6) {
                (true, _) => GsoKind::Udp,
                (_, true) => GsoKind::Tcp6,
                _ => GsoKind::Tcp4,
            };
            let tags = &[(0x88a8, 100), (0x8100, 5)][..tags];
            (super_frame(&eth(tags, eth_type, &packet), kind, size), payload)
        },
    )
}

/// Whether etherparse takes a frame apart without complaint and computes the checksums that stand in it.
pub(crate) fn valid(frame: &[u8]) -> Result<(), String> {
    let sliced = etherparse::SlicedPacket::from_ethernet(frame).map_err(|e| e.to_string())?;
    let (payload_sum, in_frame) = match (&sliced.net, &sliced.transport) {
        (Some(net), Some(transport)) => transport_checksum(net, transport)?,
        _ => return Ok(()),
    };
    if let Some(etherparse::NetSlice::Ipv4(ip)) = &sliced.net {
        let header = ip.header().to_header();
        if header.calc_header_checksum() != header.header_checksum {
            return Err("IPv4 header checksum".into());
        }
    }
    let same = payload_sum == in_frame || (payload_sum == 0 && in_frame == 0xffff);
    if same { Ok(()) } else { Err(format!("transport checksum {in_frame:04x}, not {payload_sum:04x}")) }
}

/// The checksum that etherparse computes for a transport message, and the one that stands in it.
fn transport_checksum(
    net: &etherparse::NetSlice<'_>,
    transport: &etherparse::TransportSlice<'_>,
) -> Result<(u16, u16), String> {
    use etherparse::{NetSlice, TransportSlice};
    let text = |e: &dyn std::fmt::Debug| format!("{e:?}");
    match (net, transport) {
        (NetSlice::Ipv4(ip), TransportSlice::Tcp(tcp)) => {
            let ip = ip.header();
            let sum = tcp.calc_checksum_ipv4(ip.source(), ip.destination()).map_err(|e| text(&e))?;
            Ok((sum, tcp.checksum()))
        }
        (NetSlice::Ipv6(ip), TransportSlice::Tcp(tcp)) => {
            let ip = ip.header();
            let sum = tcp.calc_checksum_ipv6(ip.source(), ip.destination()).map_err(|e| text(&e))?;
            Ok((sum, tcp.checksum()))
        }
        (NetSlice::Ipv4(ip), TransportSlice::Udp(udp)) => {
            let (header, ip) = (udp.to_header(), ip.header());
            let sum =
                header.calc_checksum_ipv4_raw(ip.source(), ip.destination(), udp.payload()).map_err(|e| text(&e))?;
            Ok((sum, header.checksum))
        }
        (NetSlice::Ipv6(ip), TransportSlice::Udp(udp)) => {
            let (header, ip) = (udp.to_header(), ip.header());
            let sum =
                header.calc_checksum_ipv6_raw(ip.source(), ip.destination(), udp.payload()).map_err(|e| text(&e))?;
            Ok((sum, header.checksum))
        }
        _ => Ok((0, 0)),
    }
}
