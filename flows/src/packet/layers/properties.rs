//! Properties of [`extract`](super::extract): total and repeatable on any bytes, and of one mind with etherparse on
//! valid packets.

use super::{L3, L4, Layers, extract};
use crate::key::{FRAG_ANY, FRAG_LATER, PACKET_WORDS, PacketKey, VLAN_PRESENT, slot};
use crate::packet::compose::compose;
use crate::packet::testing::*;
use etherparse::{ArpPacketSlice, LinkExtSlice, LinkSlice, NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

/// Extracts twice, into keys that held something else, and checks that the outcome is the same and holds together.
fn read(frame: &[u8]) -> (PacketKey, Layers) {
    let mut key = PacketKey([u64::MAX; PACKET_WORDS]);
    let layers = extract(frame, 7, &mut key);
    let mut again = PacketKey([0x5555; PACKET_WORDS]);
    assert_eq!(extract(frame, 7, &mut again), layers);
    assert_eq!(key, again);
    let [l3, l4, payload] = [layers.l3_ofs, layers.l4_ofs, layers.payload_ofs].map(usize::from);
    assert!([l3, l4, payload].iter().all(|ofs| *ofs <= frame.len()), "{layers:?} past {}", frame.len());
    assert!(l4 == 0 || l3 < l4);
    assert!(payload == 0 || l4 < payload);
    assert_eq!(l3 == 0, frame.len() < 14);
    (key, layers)
}

/// Valid frames of every kind: composed from canonical keys, or with IPv4 options and IPv6 extension headers.
fn some_frame() -> impl Strategy<Value = Vec<u8>> {
    let composed = (canonical_key(), canonical_payload()).prop_map(|(key, payload)| compose(&key, &payload));
    prop_oneof![2 => composed, 1 => with_options(), 1 => with_extensions()]
}

fn message() -> impl Strategy<Value = (u8, Vec<u8>)> {
    (0..4u8, any::<u16>(), 0..11usize, canonical_payload()).prop_map(|(kind, flags, options, payload)| match kind {
        0 => (6, tcp(flags & 0xfff, &vec![1; options * 4], &payload)),
        1 => (17, udp(&payload)),
        // No ICMP: its number depends on the IP version.
        2 => (132, sctp(&payload)),
        _ => (253, payload),
    })
}

fn with_options() -> impl Strategy<Value = Vec<u8>> {
    let frag = prop_oneof![Just(0x4000u16), Just(0), Just(0x2000), 1..0x4000u16];
    (message(), 0..11usize, frag, proptest::collection::vec(any::<u8>(), 0..20)).prop_map(
        |((proto, message), options, frag, padding)| {
            let mut frame = eth(&[(0x8100, 7)], 0x0800, &ipv4_frag(proto, frag, &vec![1; options * 4], &message));
            frame.extend(padding);
            frame
        },
    )
}

/// Extension headers in an order that RFC 8200 allows, so that etherparse takes them too.
fn with_extensions() -> impl Strategy<Value = Vec<u8>> {
    let sizes = proptest::array::uniform5(proptest::option::of(0..4u8));
    (message(), sizes, any::<u16>(), any::<bool>()).prop_map(|((proto, message), sizes, offset_flags, routed)| {
        let order = [0u8, 60, 43, 44, 51];
        let mut packet = message;
        let mut next = proto;
        for (header, size) in order.into_iter().zip(sizes).rev() {
            let Some(size) = size else { continue };
            let bytes = extension(header, next, size, offset_flags & 0xfff9, routed);
            packet = [bytes, packet].concat();
            next = header;
        }
        eth(&[], 0x86dd, &ipv6(next, &packet))
    })
}

fn extension(header: u8, next: u8, size: u8, offset_flags: u16, routed: bool) -> Vec<u8> {
    let len = match header {
        44 => 8,
        51 => (usize::from(size) + 3) * 4,
        _ => (usize::from(size) + 1) * 8,
    };
    let mut bytes = vec![0; len];
    bytes[0] = next;
    match header {
        44 => bytes[2..4].copy_from_slice(&offset_flags.to_be_bytes()),
        51 => bytes[1] = size + 1,
        _ => bytes[1] = size,
    }
    if header == 43 {
        bytes[3] = routed.into();
    }
    bytes
}

/// The key that etherparse's reading of a frame amounts to; `None` where the two are known to differ.
fn key_of(sliced: &SlicedPacket<'_>) -> Option<PacketKey> {
    let mut key = PacketKey::ZERO;
    key.set(slot::IN_PORT, 7);
    let Some(LinkSlice::Ethernet2(link)) = &sliced.link else { return None };
    key.set(slot::ETH_DST, mac(link.destination()));
    key.set(slot::ETH_SRC, mac(link.source()));
    let mut eth_type = link.ether_type().0;
    let slots = [(slot::VLAN_TPID, slot::VLAN_TCI), (slot::INNER_VLAN_TPID, slot::INNER_VLAN_TCI)];
    for (ext, (tpid, tci)) in sliced.link_exts.iter().zip(slots) {
        let LinkExtSlice::Vlan(tag) = ext else { return None };
        key.set(tpid, eth_type.into());
        let pcp = u16::from(tag.priority_code_point().value());
        key.set(tci, u128::from(pcp << 13 | VLAN_PRESENT | tag.vlan_identifier().value()));
        eth_type = tag.ether_type().0;
    }
    if matches!(eth_type, 0x8847 | 0x8848 | 0x894f) {
        return None;
    }
    key.set(slot::ETH_TYPE, if eth_type < 0x600 { 0x05ff } else { eth_type.into() });
    match &sliced.net {
        Some(NetSlice::Arp(arp)) => set_arp(&mut key, arp),
        Some(net) => set_ip(&mut key, net)?,
        None => {}
    }
    if let Some(transport) = &sliced.transport {
        set_transport(&mut key, transport)?;
    }
    Some(key)
}

fn mac(bytes: [u8; 6]) -> u128 {
    bytes.iter().fold(0, |acc, b| acc << 8 | u128::from(*b))
}

fn set_arp(key: &mut PacketKey, arp: &ArpPacketSlice<'_>) {
    key.set(slot::IP_PROTO, arp.operation().0.into());
    key.set(slot::ARP_SHA, mac(arp.sender_hw_addr().try_into().unwrap()));
    key.set(slot::ARP_THA, mac(arp.target_hw_addr().try_into().unwrap()));
    key.set(slot::IP_SRC, u32::from_be_bytes(arp.sender_protocol_addr().try_into().unwrap()).into());
    key.set(slot::IP_DST, u32::from_be_bytes(arp.target_protocol_addr().try_into().unwrap()).into());
}

fn set_ip(key: &mut PacketKey, net: &NetSlice<'_>) -> Option<()> {
    let set = |key: &mut PacketKey, proto: u8, dscp: u8, ecn: u8, ttl: u8, frag: u8| {
        key.set(slot::IP_PROTO, proto.into());
        key.set(slot::IP_DSCP, dscp.into());
        key.set(slot::IP_ECN, ecn.into());
        key.set(slot::IP_TTL, ttl.into());
        key.set(slot::IP_FRAG, frag.into());
    };
    let later = |is_later| if is_later { FRAG_ANY | FRAG_LATER } else { FRAG_ANY };
    match net {
        NetSlice::Ipv4(ip) => {
            let ip = ip.header();
            let frag = if ip.is_fragmenting_payload() { later(ip.fragments_offset().value() != 0) } else { 0 };
            set(key, ip.protocol().0, ip.dcp().value(), ip.ecn().value(), ip.ttl(), frag);
            key.set(slot::IP_SRC, u32::from(ip.source_addr()).into());
            key.set(slot::IP_DST, u32::from(ip.destination_addr()).into());
        }
        NetSlice::Ipv6(ip) => {
            let (header, mut frag) = (ip.header(), 0);
            for ext in ip.extensions().clone() {
                if let etherparse::Ipv6ExtensionSlice::Fragment(f) = ext
                    && f.is_fragmenting_payload()
                {
                    frag = later(f.fragment_offset().value() != 0);
                }
            }
            let proto = if frag & FRAG_LATER != 0 { 44 } else { ip.payload().ip_number.0 };
            set(key, proto, header.dscp().value(), header.ecn().value(), header.hop_limit(), frag);
            key.set(slot::IPV6_LABEL, header.flow_label().value().into());
            key.set(slot::IPV6_SRC, u128::from(header.source_addr()));
            key.set(slot::IPV6_DST, u128::from(header.destination_addr()));
        }
        NetSlice::Arp(_) => return None,
    }
    Some(())
}

fn set_transport(key: &mut PacketKey, transport: &TransportSlice<'_>) -> Option<()> {
    let (src, dst) = match transport {
        TransportSlice::Tcp(tcp) => {
            let bits =
                [tcp.fin(), tcp.syn(), tcp.rst(), tcp.psh(), tcp.ack(), tcp.urg(), tcp.ece(), tcp.cwr(), tcp.ns()];
            let flags = bits.iter().rev().fold(0, |acc, bit| acc << 1 | u128::from(*bit));
            // The three reserved bits have no accessor.
            let reserved = tcp.header_slice()[12] & 0x0e;
            key.set(slot::TCP_FLAGS, flags | u128::from(reserved) << 8);
            (tcp.source_port(), tcp.destination_port())
        }
        TransportSlice::Udp(udp) => (udp.source_port(), udp.destination_port()),
        TransportSlice::Icmpv4(icmp) => (icmp.type_u8().into(), icmp.code_u8().into()),
        TransportSlice::Icmpv6(icmp) => {
            if matches!((icmp.type_u8(), icmp.code_u8()), (135 | 136, 0)) {
                return None;
            }
            (icmp.type_u8().into(), icmp.code_u8().into())
        }
        TransportSlice::Igmp(_) => return None,
    };
    key.set(slot::TP_SRC, src.into());
    key.set(slot::TP_DST, dst.into());
    Some(())
}

proptest! {
    #[test]
    fn any_bytes_give_one_key(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
        read(&frame);
    }

    #[test]
    fn any_bytes_behind_a_known_type_give_one_key(
        eth_type in prop_oneof![Just(0x0800u16), Just(0x86dd), Just(0x0806), Just(0x8100), Just(0x8847), Just(0x894f), 0..0x600u16],
        mut body in proptest::collection::vec(any::<u8>(), 0..200),
        proto in prop_oneof![Just(0u8), Just(43), Just(44), Just(51), Just(58), Just(60), Just(6)],
    ) {
        // Lengths that fit, so that more than the first header is looked at.
        let len = body.len();
        if eth_type == 0x86dd && len >= 40 {
            body[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
            body[6] = proto;
        } else if eth_type == 0x0800 && len >= 20 {
            body[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            (body[0], body[9]) = (0x45, proto);
        }
        read(&eth(&[], eth_type, &body));
    }

    #[test]
    fn a_damaged_frame_gives_one_key(
        mut frame in some_frame(), damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
    ) {
        for (at, byte) in damage {
            *at.get_mut(&mut frame) = byte;
        }
        read(&frame);
    }

    #[test]
    fn a_frame_cut_anywhere_keeps_the_layers_in_front_of_the_cut(frame in some_frame()) {
        let (key, layers) = read(&frame);
        for len in 0..frame.len() {
            let (short, cut) = read(&frame[..len]);
            for (found, whole) in
                [(cut.l3_ofs, layers.l3_ofs), (cut.l4_ofs, layers.l4_ofs), (cut.payload_ofs, layers.payload_ofs)]
            {
                prop_assert!(found <= whole);
            }
            if len >= 14 {
                prop_assert_eq!(short.get(slot::ETH_DST), key.get(slot::ETH_DST));
            }
            if cut.l3 == L3::Ipv4 {
                // Only padding is gone.
                prop_assert_eq!((short, cut), (key, layers));
            }
        }
    }

    #[test]
    fn valid_frames_read_as_etherparse_reads_them(frame in some_frame()) {
        let Ok(sliced) = SlicedPacket::from_ethernet(&frame) else {
            return Err(TestCaseError::fail(format!("etherparse refuses {frame:02x?}")));
        };
        if let Some(want) = key_of(&sliced) {
            let (mut key, layers) = read(&frame);
            if sliced.transport.is_none() {
                // etherparse reads no transport header in a first fragment, nor SCTP at all.
                key.set(slot::TP_SRC, 0);
                key.set(slot::TP_DST, 0);
                key.set(slot::TCP_FLAGS, 0);
            }
            if layers.l4 == L4::Icmpv6 {
                // Nor what neighbour discovery says.
                key.set(slot::ND_RESERVED, 0);
            }
            for word in [11, 12, 13, 14] {
                prop_assert!(key.0[word] == want.0[word] || sliced.transport.is_none());
                key.0[word] = want.0[word];
            }
            prop_assert_eq!(key, want, "layers {:?}", layers);
        }
    }
}
