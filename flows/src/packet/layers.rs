//! From bytes to the flow key: one pass over the headers, in place.
//!
//! [`extract`] is total. Whatever the bytes are, it fills the whole key and says in [`Layers`] how far the frame could
//! be followed; it stops at the last sound layer, and what lies behind has its fields zero. "Sound" is what Open
//! vSwitch takes for sound, because a flow table written for it must see the same key:
//!
//! - Two VLAN tags (0x8100 or 0x88a8) are taken off; a third is the `eth_type`. A tag needs its TCI and the type behind
//!   it (6 bytes from the TPID on), or it is no tag.
//! - A type below 0x600 is a length: SNAP with OUI 0 gives its own type, anything else 0x05ff.
//! - An IP header counts when its lengths fit the frame. The version nibble is not looked at. Bytes behind the
//!   datagram are padding and never read.
//! - A later fragment has no transport header. A later IPv6 fragment has `nw_proto` 44, as nothing vouches for what
//!   its header names.
//! - An IPv6 extension header chain that runs out of bytes leaves the addresses and nothing else.
//! - TCP needs its whole header, options included; UDP 8 bytes, SCTP 12, ICMP and ICMPv6 8.
//! - Up to three MPLS label stack entries are read, the last of them at the latest the one that ends the stack. What is
//!   under the labels is not: no EtherType says what it is.
//! - An NSH header counts when its version is 0 and its length fits the frame; one of metadata type 1 is 24 bytes long.
//! - The neighbour discovery option that counts as the first is the first source or target link-layer address of the
//!   right length; it counts also when the message is not sound otherwise.
//! - Of IGMP the type is read, into the slot of ICMP's, where no match of our language can see it.
//!
//! Not read: ICMP inside IPv6 and ICMPv6 inside IPv4. Open vSwitch puts the first bytes of the two mismatches into the
//! port slots, where no match of our language can see them.

use super::membership::IP_PROTO_IGMP;
use crate::field::{
    ETH_TYPE_ARP, ETH_TYPE_IPV4, ETH_TYPE_IPV6, ETH_TYPE_MPLS, ETH_TYPE_MPLS_MCAST, ETH_TYPE_NONE, ETH_TYPE_NSH,
    ETH_TYPE_QINQ, ETH_TYPE_RARP, ETH_TYPE_VLAN, IP_PROTO_ICMP, IP_PROTO_ICMPV6, IP_PROTO_SCTP, IP_PROTO_TCP,
    IP_PROTO_UDP, ND_ADVERT, ND_SOLICIT,
};
use crate::key::{FRAG_ANY, FRAG_LATER, FRAME_WORDS, PACKET_WORDS, PacketKey, Slot, VLAN_PRESENT, slot};

#[cfg(test)]
mod labels;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

/// Length of an Ethernet header without tags.
pub(crate) const ETH_LEN: usize = 14;
/// Length of a VLAN tag.
pub(crate) const VLAN_LEN: usize = 4;
/// Length of an IPv4 header without options.
pub(crate) const IPV4_LEN: usize = 20;
/// Length of an IPv6 header without extension headers.
pub(crate) const IPV6_LEN: usize = 40;
/// Length of an ARP packet for Ethernet and IPv4.
pub(crate) const ARP_LEN: usize = 28;
/// Length of a TCP header without options.
pub(crate) const TCP_LEN: usize = 20;
/// Length of a UDP header.
pub(crate) const UDP_LEN: usize = 8;
/// Length of an SCTP common header.
pub(crate) const SCTP_LEN: usize = 12;
/// Length of an ICMP or ICMPv6 header.
pub(crate) const ICMP_LEN: usize = 8;
/// Length of an MPLS label stack entry.
pub(crate) const MPLS_LEN: usize = 4;
/// The bit of a label stack entry's third byte that ends the stack.
const MPLS_BOTTOM: u8 = 1;
/// The label stack entries that the key has room for.
const MPLS_SLOTS: [Slot; 3] = [slot::MPLS_LSE, slot::MPLS_LSE_1, slot::MPLS_LSE_2];
/// Length of an NSH header without metadata.
pub(crate) const NSH_LEN: usize = 8;
/// Length of an NSH header with metadata of type 1.
pub(crate) const NSH_TYPE1_LEN: usize = 24;
/// NSH next-protocol numbers (RFC 8300, 11.2.5).
pub(crate) const NSH_IPV4: u8 = 1;
pub(crate) const NSH_IPV6: u8 = 2;
pub(crate) const NSH_ETHERNET: u8 = 3;
pub(crate) const NSH_NSH: u8 = 4;
pub(crate) const NSH_MPLS: u8 = 5;
/// How far into a frame headers are followed behind labels and NSH, in bytes.
const INNER_LIMIT: usize = 1024;
/// IPv6 next-header numbers of the extension headers that are walked.
pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const AUTHENTICATION: u8 = 51;
pub(crate) const DESTINATION: u8 = 60;

/// The network header that is soundly there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum L3 {
    /// None that is understood.
    #[default]
    None,
    /// ARP or RARP, for Ethernet and IPv4.
    Arp,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// MPLS: at least one label stack entry.
    Mpls,
    /// NSH.
    Nsh,
}

/// The transport header that is soundly there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum L4 {
    /// None that is understood: another protocol, a truncated header, a later fragment.
    #[default]
    None,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMP, in IPv4.
    Icmp,
    /// ICMPv6, in IPv6.
    Icmpv6,
}

/// Where the headers of a frame are, as far as they are sound. Offsets count from the frame's first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// What follows the Ethernet header, its tags and an LLC/SNAP header; 0 when the frame is too short to have any, or
    /// its Ethernet header was taken off.
    pub l3_ofs: u16,
    /// What follows the IP header and its extension headers; 0 when there is no sound IP header.
    pub l4_ofs: u16,
    /// What follows the transport header; 0 when `l4` is [`L4::None`].
    pub payload_ofs: u16,
    /// VLAN tags in front of `l3_ofs`.
    pub vlans: u8,
    /// The network header at `l3_ofs`.
    pub l3: L3,
    /// The transport header at `l4_ofs`.
    pub l4: L4,
    /// An IPv6 routing header has segments left: the destination address is not yet the one that transport checksums
    /// cover (RFC 8200, 8.1).
    pub routed: bool,
}

impl Layers {
    /// Nothing is there: the frame is shorter than an Ethernet header.
    pub const NONE: Self =
        Self { l3_ofs: 0, l4_ofs: 0, payload_ofs: 0, vlans: 0, l3: L3::None, l4: L4::None, routed: false };

    /// Moves every offset by `delta` bytes, after a gap was opened or closed in front of the network header.
    pub(crate) fn shift(&mut self, delta: i16) {
        for ofs in [&mut self.l3_ofs, &mut self.l4_ofs, &mut self.payload_ofs] {
            if *ofs != 0 {
                *ofs = ofs.saturating_add_signed(delta);
            }
        }
    }

    /// The layers of a packet that lies `at` bytes into a frame, of which they were read as if it were one.
    fn within(mut self, at: u16) -> Self {
        self.l3_ofs = self.l3_ofs.saturating_add(at);
        for ofs in [&mut self.l4_ofs, &mut self.payload_ofs] {
            if *ofs != 0 {
                *ofs = ofs.saturating_add(at);
            }
        }
        self
    }
}

type Words = [u64; PACKET_WORDS];

/// `N` bytes at `at`; zeros past the end. On arrays with a constant `at` this is a plain load.
#[inline(always)]
pub(crate) fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|b| b.first_chunk()).copied().unwrap_or([0; N])
}

/// The big-endian 16-bit number at `at`; 0 past the end.
#[inline(always)]
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(bytes_at(bytes, at))
}

/// The big-endian 32-bit number at `at`; 0 past the end.
#[inline(always)]
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes_at(bytes, at))
}

/// The big-endian 64-bit number at `at`; 0 past the end.
#[inline(always)]
pub(crate) fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes_at(bytes, at))
}

/// The six bytes at `at` where the key holds MAC addresses: above 16 zero bits.
#[inline(always)]
fn mac_word(bytes: &[u8], at: usize) -> u64 {
    u64::from(be32(bytes, at)) << 32 | u64::from(be16(bytes, at + 4)) << 16
}

/// Reads the headers of `frame`, which came in by `in_port`, into `key`. Every word of the key is overwritten.
///
/// The packet mark is 0. A frame shorter than 14 bytes has only its port; see the [module](self) for the rest.
#[inline]
pub fn extract(frame: &[u8], in_port: u32, key: &mut PacketKey) -> Layers {
    key.0[FRAME_WORDS..].fill(0);
    let mut layers = Layers::NONE;
    extract_into(frame, in_port, key, &mut layers);
    layers
}

/// As [`extract`], for a caller that keeps keys and layers in arrays. Of the key, the words of the tunnel headers (from
/// [`FRAME_WORDS`] on) are left as they are: zero, unless whoever took the frame out of a tunnel has written them.
///
/// The fields of the layers are written one by one, and to copy the whole right after that makes the CPU wait for all
/// of them (4 ns of 30 for a frame on a cache hit).
#[inline]
pub fn extract_into(frame: &[u8], in_port: u32, key: &mut PacketKey, layers: &mut Layers) {
    let w = &mut key.0;
    w[..FRAME_WORDS].fill(0);
    w[0] = u64::from(in_port) << 32;
    *layers = Layers::NONE;
    let Some((eth, mut rest)) = frame.split_first_chunk::<ETH_LEN>() else {
        return;
    };
    layers.l3_ofs = ETH_LEN as u16;
    w[1] = be64(eth, 0) & !0xffff;
    w[2] = be64(eth, 6) & !0xffff;
    let mut eth_type = be16(eth, 12);
    if is_vlan(eth_type) {
        (eth_type, rest) = tags(eth_type, rest, w, layers);
    }
    if eth_type < 0x600 {
        let snap_len;
        (eth_type, snap_len) = llc(rest);
        rest = rest.get(snap_len..).unwrap_or_default();
        layers.l3_ofs += snap_len as u16;
    }
    w[1] |= u64::from(eth_type);
    network(eth_type, rest, w, layers);
}

/// The network header of type `eth_type`, which `rest` starts with.
#[inline(always)]
fn network(eth_type: u16, rest: &[u8], w: &mut Words, layers: &mut Layers) {
    match eth_type {
        ETH_TYPE_IPV4 => ipv4(rest, w, layers),
        ETH_TYPE_IPV6 => ipv6(rest, w, layers),
        ETH_TYPE_ARP | ETH_TYPE_RARP => arp(rest, w, layers),
        ETH_TYPE_MPLS | ETH_TYPE_MPLS_MCAST => *layers = mpls(rest, w, *layers),
        ETH_TYPE_NSH => *layers = nsh(rest, w, *layers),
        _ => {}
    }
}

#[inline(always)]
fn is_vlan(eth_type: u16) -> bool {
    matches!(eth_type, ETH_TYPE_VLAN | ETH_TYPE_QINQ)
}

/// Takes up to two tags off; `rest` starts behind the first TPID. Returns the type behind them and what follows it.
#[inline(always)]
fn tags<'a>(mut tpid: u16, mut rest: &'a [u8], w: &mut Words, layers: &mut Layers) -> (u16, &'a [u8]) {
    for place in 0..2 {
        if !is_vlan(tpid) {
            break;
        }
        let Some((tag, behind)) = rest.split_first_chunk::<VLAN_LEN>() else {
            break;
        };
        let tci = u64::from(be16(tag, 0) | VLAN_PRESENT);
        if place == 0 {
            w[2] |= tci;
            w[3] = u64::from(tpid) << 48;
        } else {
            w[3] |= tci << 32 | u64::from(tpid) << 16;
        }
        tpid = be16(tag, 2);
        rest = behind;
        layers.vlans += 1;
        layers.l3_ofs += VLAN_LEN as u16;
    }
    (tpid, rest)
}

/// The type of an 802.3 frame whose LLC header `rest` starts with, and the length of its LLC/SNAP header; 0 when it is
/// not SNAP with OUI 0.
#[cold]
fn llc(rest: &[u8]) -> (u16, usize) {
    match rest.first_chunk::<8>() {
        Some(&[0xaa, 0xaa, 0x03, 0, 0, 0, hi, lo]) => {
            let eth_type = u16::from_be_bytes([hi, lo]);
            (if eth_type >= 0x600 { eth_type } else { ETH_TYPE_NONE }, 8)
        }
        _ => (ETH_TYPE_NONE, 0),
    }
}

#[inline(always)]
fn arp(rest: &[u8], w: &mut Words, layers: &mut Layers) {
    let Some(arp) = rest.first_chunk::<ARP_LEN>() else {
        return;
    };
    // Hardware type Ethernet, protocol IPv4, address lengths 6 and 4.
    if be64(arp, 0) >> 16 != 0x0001_0800_0604 {
        return;
    }
    layers.l3 = L3::Arp;
    w[4] = u64::from(be32(arp, 14)) << 32 | u64::from(be32(arp, 24));
    let op = be16(arp, 6);
    if op <= 0xff {
        w[5] = u64::from(op) << 56;
    }
    w[13] = mac_word(arp, 8);
    w[14] = mac_word(arp, 18);
}

/// Label stack entries up to the bottom of the stack, as many as the key holds.
#[inline(never)]
fn mpls(rest: &[u8], w: &mut Words, mut layers: Layers) -> Layers {
    for (entry, slot) in rest.chunks_exact(MPLS_LEN).zip(MPLS_SLOTS) {
        layers.l3 = L3::Mpls;
        w[usize::from(slot.word)] |= u64::from(be32(entry, 0)) << slot.shift;
        if entry[2] & MPLS_BOTTOM != 0 {
            break;
        }
    }
    layers
}

/// Length of the NSH header that `rest` starts with; `None` when it is not sound.
pub(crate) fn nsh_len(rest: &[u8]) -> Option<usize> {
    let base = rest.first_chunk::<NSH_LEN>()?;
    let len = usize::from(base[1] & 0x3f) * 4;
    let sound = base[0] & 0xc0 == 0 && len <= rest.len() && (base[2] != 1 || len == NSH_TYPE1_LEN);
    // Open vSwitch lets a length pass that is shorter than the header, but for type 2.
    (sound && (base[2] != 2 || len >= NSH_LEN)).then_some(len.max(NSH_LEN))
}

#[inline(never)]
fn nsh(rest: &[u8], w: &mut Words, mut layers: Layers) -> Layers {
    if nsh_len(rest).is_none() {
        return layers;
    }
    layers.l3 = L3::Nsh;
    let base = be16(rest, 0);
    let (flags, ttl) = (base >> 12 & 0x3, base >> 6 & 0x3f);
    let [_, _, md_type, np, ..] = bytes_at::<NSH_LEN>(rest, 0);
    w[4] = u64::from(be32(rest, 4)) << 32 | u64::from(md_type) << 8;
    w[5] = u64::from(np) << 56 | u64::from(flags) << 48 | u64::from(ttl) << 40;
    if md_type == 1 {
        (w[7], w[8]) = (be64(rest, 8), be64(rest, 16));
    }
    layers
}

/// What lies behind a label stack or an NSH header: where, and its EtherType, 0 for an Ethernet frame.
fn behind(bytes: &[u8], layers: &Layers) -> Option<(usize, u16)> {
    let at = usize::from(layers.l3_ofs);
    let rest = bytes.get(at..)?;
    match layers.l3 {
        L3::Mpls => {
            let bottom = rest.chunks_exact(MPLS_LEN).position(|entry| entry[2] & MPLS_BOTTOM != 0)?;
            let ofs = (bottom + 1) * MPLS_LEN;
            let eth_type = match rest.get(ofs)? >> 4 {
                4 => ETH_TYPE_IPV4,
                6 => ETH_TYPE_IPV6,
                _ => return None,
            };
            Some((at + ofs, eth_type))
        }
        L3::Nsh => Some((at + nsh_len(rest)?, nsh_eth_type(*rest.get(3)?)?)),
        _ => None,
    }
}

/// The EtherType of what an NSH header says it has behind it, 0 for an Ethernet frame.
pub(crate) fn nsh_eth_type(np: u8) -> Option<u16> {
    Some(match np {
        NSH_IPV4 => ETH_TYPE_IPV4,
        NSH_IPV6 => ETH_TYPE_IPV6,
        NSH_ETHERNET => 0,
        NSH_NSH => ETH_TYPE_NSH,
        NSH_MPLS => ETH_TYPE_MPLS,
        _ => return None,
    })
}

/// The layers of a packet without an Ethernet header, which starts with a header of type `eth_type`; 0 stands for an
/// Ethernet frame after all. What is read goes to `key`.
pub(crate) fn extract_bare(packet: &[u8], eth_type: u16, key: &mut PacketKey) -> Layers {
    if eth_type == 0 {
        return extract(packet, 0, key);
    }
    let mut layers = Layers::NONE;
    *key = PacketKey::ZERO;
    network(eth_type, packet, &mut key.0, &mut layers);
    layers
}

/// The layers of the innermost packet: that behind all labels and NSH headers, as far as they can be followed. What is
/// read of it goes to `key`. Under labels is what its first four bits say, IPv4 or IPv6, as nothing else tells.
pub(crate) fn innermost(bytes: &[u8], key: &mut PacketKey) -> Layers {
    let mut layers = extract(bytes, 0, key);
    // Each turn goes at least four bytes on, which bounds the walk.
    while let Some((at, eth_type)) = behind(bytes, &layers).filter(|(at, _)| *at <= INNER_LIMIT) {
        layers = extract_bare(bytes.get(at..).unwrap_or_default(), eth_type, key).within(at as u16);
    }
    layers
}

/// The bits of an IPv4 header's first eight bytes that tell its length and whether it is a fragment, and their value
/// in the common header: 20 bytes, whole.
const IPV4_SHAPE: u64 = 0x0f00_0000_0000_3fff;
const IPV4_PLAIN: u64 = 0x0500_0000_0000_0000;

#[inline(always)]
fn ipv4(rest: &[u8], w: &mut Words, layers: &mut Layers) {
    let Some(ip) = rest.first_chunk::<IPV4_LEN>() else {
        return;
    };
    if be64(ip, 0) & IPV4_SHAPE != IPV4_PLAIN {
        *layers = ipv4_other(rest, ip, w, *layers);
    } else if let Some(body) = rest.get(IPV4_LEN..usize::from(be16(ip, 2))) {
        ipv4_sound(ip, body, 0, w, layers);
    }
}

/// IPv4 with options, a fragment, or with a header length that is no length.
#[inline(never)]
fn ipv4_other(rest: &[u8], ip: &[u8; IPV4_LEN], w: &mut Words, mut layers: Layers) -> Layers {
    let header_len = usize::from(ip[0] & 0xf) * 4;
    if header_len < IPV4_LEN {
        return layers;
    }
    if let Some(body) = rest.get(header_len..usize::from(be16(ip, 2))) {
        let frag = match be16(ip, 6) & 0x3fff {
            0 => 0,
            0x2000 => FRAG_ANY,
            _ => FRAG_ANY | FRAG_LATER,
        };
        layers.l4_ofs = (header_len - IPV4_LEN) as u16;
        ipv4_sound(ip, body, frag, w, &mut layers);
    }
    layers
}

/// A sound IPv4 header with `body` behind it; `layers.l4_ofs` is the length of its options.
#[inline(always)]
fn ipv4_sound(ip: &[u8; IPV4_LEN], body: &[u8], frag: u8, w: &mut Words, layers: &mut Layers) {
    layers.l3 = L3::Ipv4;
    layers.l4_ofs += layers.l3_ofs + IPV4_LEN as u16;
    w[4] = be64(ip, 12);
    let proto = ip[9];
    w[5] = l3_word(proto, ip[1], ip[8], frag);
    if frag & FRAG_LATER != 0 {
        return;
    }
    match proto {
        IP_PROTO_TCP => tcp(body, w, layers),
        IP_PROTO_UDP => ports::<UDP_LEN>(L4::Udp, body, w, layers),
        IP_PROTO_ICMP => icmp(L4::Icmp, body, w, layers),
        IP_PROTO_SCTP => ports::<SCTP_LEN>(L4::Sctp, body, w, layers),
        // Its type alone, where that of ICMP is.
        IP_PROTO_IGMP => w[6] = u64::from(body.first().copied().unwrap_or_default()) << 48,
        _ => {}
    }
}

/// Word 5 of the key, its label still 0.
#[inline(always)]
fn l3_word(proto: u8, tos: u8, ttl: u8, frag: u8) -> u64 {
    u64::from(proto) << 56 | u64::from(tos) << 48 | u64::from(ttl) << 40 | u64::from(frag) << 32
}

#[inline(always)]
fn ipv6(rest: &[u8], w: &mut Words, layers: &mut Layers) {
    let Some((ip, behind)) = rest.split_first_chunk::<IPV6_LEN>() else {
        return;
    };
    // A payload length of 0 is no payload: jumbograms (RFC 2675) are not followed.
    let Some(body) = behind.get(..usize::from(be16(ip, 4))) else {
        return;
    };
    layers.l3 = L3::Ipv6;
    for (i, word) in w[7..11].iter_mut().enumerate() {
        *word = be64(ip, 8 + i * 8);
    }
    let proto = ip[6];
    if is_extension(proto) {
        *layers = ipv6_extended(ip, body, w, *layers);
    } else {
        layers.l4_ofs = layers.l3_ofs + IPV6_LEN as u16;
        ipv6_sound(ip, proto, body, 0, w, layers);
    }
}

/// IPv6 with extension headers, which `body` starts with.
#[inline(never)]
fn ipv6_extended(ip: &[u8; IPV6_LEN], body: &[u8], w: &mut Words, mut layers: Layers) -> Layers {
    let mut chain = Chain { proto: ip[6], rest: body, frag: 0, routed: false };
    if !chain.walk() {
        return layers;
    }
    let ofs = usize::from(layers.l3_ofs) + IPV6_LEN + body.len() - chain.rest.len();
    if let Ok(ofs) = u16::try_from(ofs) {
        layers.l4_ofs = ofs;
        layers.routed = chain.routed;
        ipv6_sound(ip, chain.proto, chain.rest, chain.frag, w, &mut layers);
    }
    layers
}

/// A sound IPv6 header whose chain ends with `proto` at the start of `body`.
#[inline(always)]
fn ipv6_sound(ip: &[u8; IPV6_LEN], proto: u8, body: &[u8], frag: u8, w: &mut Words, layers: &mut Layers) {
    let first = be32(ip, 0);
    w[5] = l3_word(proto, (first >> 20) as u8, ip[7], frag) | u64::from(first & 0x000f_ffff);
    if frag & FRAG_LATER != 0 {
        return;
    }
    match proto {
        IP_PROTO_TCP => tcp(body, w, layers),
        IP_PROTO_UDP => ports::<UDP_LEN>(L4::Udp, body, w, layers),
        IP_PROTO_ICMPV6 => {
            icmp(L4::Icmpv6, body, w, layers);
            if is_nd(body) {
                neighbour_discovery(body, w);
            }
        }
        IP_PROTO_SCTP => ports::<SCTP_LEN>(L4::Sctp, body, w, layers),
        _ => {}
    }
}

#[inline(always)]
fn is_extension(proto: u8) -> bool {
    matches!(proto, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION)
}

/// A walk along IPv6 extension headers.
pub(super) struct Chain<'a> {
    pub(super) proto: u8,
    pub(super) rest: &'a [u8],
    pub(super) frag: u8,
    pub(super) routed: bool,
}

impl Chain<'_> {
    /// Walks to the first header that is no extension header, or into a later fragment. False when the bytes run out.
    /// Every step takes at least 8 bytes off, which bounds the walk.
    pub(super) fn walk(&mut self) -> bool {
        while is_extension(self.proto) {
            let Some(header) = self.rest.first_chunk::<8>() else {
                return false;
            };
            let len = match self.proto {
                FRAGMENT => 8,
                AUTHENTICATION => (usize::from(header[1]) + 2) * 4,
                _ => (usize::from(header[1]) + 1) * 8,
            };
            let Some(rest) = self.rest.get(len..) else {
                return false;
            };
            let here = self.proto;
            (self.proto, self.rest) = (header[0], rest);
            if here == ROUTING {
                self.routed |= header[3] != 0;
            } else if here == FRAGMENT {
                // Reserved bits count as a fragment, as in Open vSwitch; an atomic fragment (RFC 6946) does not.
                let offset_flags = be16(header, 2);
                if offset_flags != 0 {
                    self.frag = FRAG_ANY;
                }
                if offset_flags & 0xfff8 != 0 {
                    self.frag = FRAG_ANY | FRAG_LATER;
                    self.proto = FRAGMENT;
                    return true;
                }
            }
        }
        true
    }
}

/// Notes a transport header of `len` bytes.
#[inline(always)]
fn transport(l4: L4, len: usize, layers: &mut Layers) {
    layers.l4 = l4;
    layers.payload_ofs = layers.l4_ofs.saturating_add(len as u16);
}

#[inline(always)]
fn tcp(body: &[u8], w: &mut Words, layers: &mut Layers) {
    let Some(tcp) = body.first_chunk::<TCP_LEN>() else {
        return;
    };
    let header_len = usize::from(tcp[12] >> 4) * 4;
    if header_len < TCP_LEN || header_len > body.len() {
        return;
    }
    w[6] = u64::from(be32(tcp, 0)) << 32 | u64::from(be16(tcp, 12) & 0x0fff) << 16;
    transport(L4::Tcp, header_len, layers);
}

/// A transport header of `LEN` bytes that starts with its two ports.
#[inline(always)]
fn ports<const LEN: usize>(l4: L4, body: &[u8], w: &mut Words, layers: &mut Layers) {
    if let Some(header) = body.first_chunk::<LEN>() {
        w[6] = u64::from(be32(header, 0)) << 32;
        transport(l4, LEN, layers);
    }
}

/// Type and code.
#[inline(always)]
fn icmp(l4: L4, body: &[u8], w: &mut Words, layers: &mut Layers) {
    if let Some(header) = body.first_chunk::<ICMP_LEN>() {
        w[6] = u64::from(header[0]) << 48 | u64::from(header[1]) << 32;
        transport(l4, ICMP_LEN, layers);
    }
}

/// Whether an ICMPv6 message is a neighbour solicitation or advertisement.
#[inline]
pub(crate) fn is_nd(icmpv6: &[u8]) -> bool {
    matches!(icmpv6, [ND_SOLICIT | ND_ADVERT, 0, ..])
}

/// Offset of the target address in a neighbour solicitation or advertisement.
pub(crate) const ND_TARGET_OFS: usize = ICMP_LEN;
/// Offset of the first option.
pub(crate) const ND_OPTIONS_OFS: usize = ND_TARGET_OFS + 16;

/// Where the link-layer address options of a neighbour discovery message have their addresses, from the start of the
/// ICMPv6 header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NdOptions {
    pub(crate) sll: Option<usize>,
    pub(crate) tll: Option<usize>,
    /// The type of the first of them; 0 without any.
    pub(crate) first: u8,
    /// One address is given twice, which makes the whole message invalid.
    pub(crate) twice: bool,
}

/// Walks the options of a solicitation or advertisement. The walk ends at an option with an impossible length, and where
/// one address is given twice. An all-zero address counts as not given.
/// Every step takes at least 8 bytes, which bounds the walk.
pub(crate) fn nd_options(icmpv6: &[u8]) -> NdOptions {
    let mut found = NdOptions::default();
    let mut at = ND_OPTIONS_OFS;
    while let Some(&[kind, units]) = icmpv6.get(at..).and_then(|b| b.first_chunk::<2>()) {
        let len = usize::from(units) * 8;
        if len == 0 || len > icmpv6.len() - at {
            break;
        }
        let place = match (kind, units) {
            (1, 1) => Some(&mut found.sll),
            (2, 1) => Some(&mut found.tll),
            _ => None,
        };
        if let Some(place) = place {
            if place.is_some_and(|old| mac_word(icmpv6, old) != 0) {
                found.twice = true;
                break;
            }
            *place = Some(at + 2);
            if found.first == 0 {
                found.first = kind;
            }
        }
        at += len;
    }
    found
}

/// The reserved field of a solicitation or advertisement; target and link-layer addresses of one that is long enough to
/// have a target.
#[inline(never)]
fn neighbour_discovery(body: &[u8], w: &mut Words) {
    if body.len() < ICMP_LEN {
        return;
    }
    w[6] |= u64::from(be32(body, 4));
    if body.len() < ND_OPTIONS_OFS {
        return;
    }
    let options = nd_options(body);
    w[13] = options.first.into();
    if options.twice {
        return;
    }
    w[11] = be64(body, ND_TARGET_OFS);
    w[12] = be64(body, ND_TARGET_OFS + 8);
    w[13] |= options.sll.map_or(0, |at| mac_word(body, at));
    w[14] = options.tll.map_or(0, |at| mac_word(body, at));
}
