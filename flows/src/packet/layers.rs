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
//!
//! Not read: IGMP, MPLS, NSH; ICMP inside IPv6 and ICMPv6 inside IPv4. Open vSwitch puts the first bytes of IGMP and
//! of the two mismatches into the port slots, where no match of our language can see them.

use crate::field::{
    ETH_TYPE_ARP, ETH_TYPE_IPV4, ETH_TYPE_IPV6, ETH_TYPE_NONE, ETH_TYPE_QINQ, ETH_TYPE_RARP, ETH_TYPE_VLAN,
    IP_PROTO_ICMP, IP_PROTO_ICMPV6, IP_PROTO_SCTP, IP_PROTO_TCP, IP_PROTO_UDP, ND_ADVERT, ND_SOLICIT,
};
use crate::key::{FRAG_ANY, FRAG_LATER, PACKET_WORDS, PacketKey, VLAN_PRESENT};

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
}

/// The transport header that is soundly there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// What follows the Ethernet header, its tags and an LLC/SNAP header; 0 when the frame is too short to have any.
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
fn be64(bytes: &[u8], at: usize) -> u64 {
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
    let mut layers = Layers::NONE;
    extract_into(frame, in_port, key, &mut layers);
    layers
}

/// As [`extract`], for a caller that keeps the layers in an array: the fields are written one by one, and to copy the
/// whole right after that makes the CPU wait for all of them (4 ns of 30 for a frame on a cache hit).
#[inline]
pub fn extract_into(frame: &[u8], in_port: u32, key: &mut PacketKey, layers: &mut Layers) {
    let w = &mut key.0;
    *w = [0; PACKET_WORDS];
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
    match eth_type {
        ETH_TYPE_IPV4 => ipv4(rest, w, layers),
        ETH_TYPE_IPV6 => ipv6(rest, w, layers),
        ETH_TYPE_ARP | ETH_TYPE_RARP => arp(rest, w, layers),
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
    for slot in 0..2 {
        if !is_vlan(tpid) {
            break;
        }
        let Some((tag, behind)) = rest.split_first_chunk::<VLAN_LEN>() else {
            break;
        };
        let tci = u64::from(be16(tag, 0) | VLAN_PRESENT);
        if slot == 0 {
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
struct Chain<'a> {
    proto: u8,
    rest: &'a [u8],
    frag: u8,
    routed: bool,
}

impl Chain<'_> {
    /// Walks to the first header that is no extension header, or into a later fragment. False when the bytes run out.
    /// Every step takes at least 8 bytes off, which bounds the walk.
    fn walk(&mut self) -> bool {
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
const ND_OPTIONS_OFS: usize = ND_TARGET_OFS + 16;

/// Where the link-layer address options of a neighbour discovery message have their addresses, from the start of the
/// ICMPv6 header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NdOptions {
    pub(crate) sll: Option<usize>,
    pub(crate) tll: Option<usize>,
}

/// Walks the options of a solicitation or advertisement. The walk ends at an option with an impossible length; `None`
/// when one address is given twice, which makes the whole message invalid. An all-zero address counts as not given.
/// Every step takes at least 8 bytes, which bounds the walk.
pub(crate) fn nd_options(icmpv6: &[u8]) -> Option<NdOptions> {
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
                return None;
            }
            *place = Some(at + 2);
        }
        at += len;
    }
    Some(found)
}

/// Target and link-layer addresses of a solicitation or advertisement that is long enough to have a target.
#[inline(never)]
fn neighbour_discovery(body: &[u8], w: &mut Words) {
    if body.len() < ND_OPTIONS_OFS {
        return;
    }
    let Some(options) = nd_options(body) else {
        return;
    };
    w[11] = be64(body, ND_TARGET_OFS);
    w[12] = be64(body, ND_TARGET_OFS + 8);
    w[13] = options.sll.map_or(0, |at| mac_word(body, at));
    w[14] = options.tll.map_or(0, |at| mac_word(body, at));
}
