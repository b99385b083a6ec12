//! Answers that the switch gives in place of a packet's receiver: ICMP and ICMPv6 errors, and the headers in front of them
//! and of other short messages.
//!
//! A packet is told of an error only if that cannot go on for ever or reach many (RFC 1122, 3.2.2; RFC 1812, 4.3.2.7;
//! RFC 4443, 2.4): not one that is an error itself, or may be; not a fragment but the first; not one that was sent to
//! several, on the link or by its address; not one whose source is not a single node.
//!
//! As much is quoted as fits in 576 bytes of IPv4 (RFC 1812, 4.3.2.3) or 1280 bytes of IPv6 (RFC 4443, 2.4).
//!
//! Nothing is allocated: a message is written into a [`Frame`], and its headers go into the headroom.

use super::{Frame, L4, Layers, Offload, checksum};
use crate::field::{ETH_TYPE_IPV4, ETH_TYPE_IPV6, IP_PROTO_ICMP, IP_PROTO_ICMPV6};
use crate::key::{FRAG_LATER, PacketKey, Slot, VLAN_PRESENT, slot};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest error in IPv4, with its IP header.
const MAX_V4: usize = 576;
/// Longest error in IPv6, with its IP header.
const MAX_V6: usize = 1280;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const ICMP_LEN: usize = 8;
/// Longest link header that is read or written: Ethernet with two tags.
const MAX_LINK: usize = 14 + 2 * 4;
/// The TTL and hop limit of answers.
const HOP_LIMIT: u8 = 64;
/// "Don't fragment", in bytes 6 and 7 of an IPv4 header.
const DF: u16 = 0x4000;
/// Precedence "internetwork control", of errors (RFC 1812, 4.3.2.5).
pub const CONTROL: u8 = 0xc0;
/// The bits of the TOS that an error takes over from the packet that it is about.
pub const TOS: u8 = 0x1e;

/// Type, code and second word of an ICMP or ICMPv6 error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// Its type.
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// What follows the checksum.
    pub word: [u8; 4],
}

/// What decides whether the sender of a packet is told of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// Source of the frame.
    pub eth_src: [u8; 6],
    /// Destination of the frame.
    pub eth_dst: [u8; 6],
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same version.
    pub dst: IpAddr,
    /// The type of the ICMP or ICMPv6 message that it says it has; `None` within if the message is too short to have
    /// one.
    pub icmp: Option<Option<u8>>,
    /// It is a fragment, but not the first one.
    pub is_later_fragment: bool,
}

impl About {
    /// What a packet with this key and these layers is; `None` if it is not IP.
    pub fn read(key: &PacketKey, layers: &Layers) -> Option<Self> {
        let proto = key.get(slot::IP_PROTO) as u8;
        let (src, dst, icmp) = match key.get(slot::ETH_TYPE) as u16 {
            ETH_TYPE_IPV4 => {
                let address = |slot| IpAddr::from(Ipv4Addr::from_bits(key.get(slot) as u32));
                (address(slot::IP_SRC), address(slot::IP_DST), IP_PROTO_ICMP)
            }
            ETH_TYPE_IPV6 => {
                let address = |slot| IpAddr::from(Ipv6Addr::from_bits(key.get(slot)));
                (address(slot::IPV6_SRC), address(slot::IPV6_DST), IP_PROTO_ICMPV6)
            }
            _ => return None,
        };
        let kind = matches!(layers.l4, L4::Icmp | L4::Icmpv6).then(|| key.get(slot::TP_SRC) as u8);
        Some(Self {
            eth_src: mac(key, slot::ETH_SRC),
            eth_dst: mac(key, slot::ETH_DST),
            src,
            dst,
            icmp: (proto == icmp).then_some(kind),
            is_later_fragment: key.get(slot::IP_FRAG) as u8 & FRAG_LATER != 0,
        })
    }

    /// Whether the sender may be told. Of IPv6, `even_of_many` lets it be told of a packet that was for several nodes, as
    /// "packet too big" is for path MTU discovery.
    pub fn may_tell(&self, even_of_many: bool) -> bool {
        if self.is_later_fragment || is_group(self.eth_src) {
            return false;
        }
        let is_for_many = is_group(self.eth_dst) || self.dst.is_multicast();
        let is_error = match self.icmp {
            None => false,
            // Too short to tell: it may be one.
            Some(None) => true,
            Some(Some(kind)) if self.src.is_ipv4() => !is_query_v4(kind),
            // Redirects are of neighbour discovery, but say something unasked.
            Some(Some(kind)) => kind < 128 || kind == 137,
        };
        let is_single_source = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => is_host_v4(src) && !dst.is_broadcast() && !is_for_many,
            (IpAddr::V6(src), _) => {
                let is_told = !is_for_many || even_of_many;
                !src.is_unspecified() && !src.is_multicast() && !src.is_loopback() && is_told
            }
            _ => false,
        };
        is_single_source && !is_error
    }
}

fn mac(key: &PacketKey, slot: Slot) -> [u8; 6] {
    let [_, _, mac @ ..] = (key.get(slot) as u64).to_be_bytes();
    mac
}

/// Whether frames to this address are for several stations.
const fn is_group(mac: [u8; 6]) -> bool {
    mac[0] & 1 != 0
}

/// Whether an address is one that a single host can have, on another link than the loopback.
const fn is_host_v4(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first != 0 && first != 127 && first < 224
}

/// Whether an ICMP message is not an error, as the list of those stands (RFC 792, 950, 1256, 8335).
const fn is_query_v4(kind: u8) -> bool {
    matches!(kind, 0 | 8 | 9 | 10 | 13..=18 | 42 | 43)
}

/// A link header: Ethernet addresses, at most two tags, EtherType.
#[derive(Clone, Copy, Debug)]
pub struct LinkHeader {
    bytes: [u8; MAX_LINK],
    len: usize,
}

impl LinkHeader {
    /// The way back of a packet that arrived with this key: addresses swapped, the same tags.
    pub fn back(key: &PacketKey) -> Self {
        let mut link = Self { bytes: [0; MAX_LINK], len: 0 };
        link.push(&mac(key, slot::ETH_SRC));
        link.push(&mac(key, slot::ETH_DST));
        let tags = [(slot::VLAN_TPID, slot::VLAN_TCI), (slot::INNER_VLAN_TPID, slot::INNER_VLAN_TCI)];
        for (tpid, tci) in tags {
            let (tpid, tci) = (key.get(tpid) as u16, key.get(tci) as u16);
            if tci & VLAN_PRESENT != 0 {
                link.push(&tpid.to_be_bytes());
                // A key does not tell the bit "drop eligible".
                link.push(&(tci & !VLAN_PRESENT).to_be_bytes());
            }
        }
        link.push(&(key.get(slot::ETH_TYPE) as u16).to_be_bytes());
        link
    }

    /// Without tags.
    pub fn plain(src: [u8; 6], dst: [u8; 6], eth_type: u16) -> Self {
        let mut link = Self { bytes: [0; MAX_LINK], len: 0 };
        link.push(&dst);
        link.push(&src);
        link.push(&eth_type.to_be_bytes());
        link
    }

    fn push(&mut self, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.len..).and_then(|room| room.get_mut(..bytes.len())) {
            room.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// What goes in front of a message.
#[derive(Clone, Copy, Debug)]
pub struct Headers {
    /// The link header; its EtherType says which IP version follows.
    pub link: LinkHeader,
    /// Who answers.
    pub src: IpAddr,
    /// Who is answered; of the same version.
    pub dst: IpAddr,
    /// TOS or traffic class.
    pub tos: u8,
    /// Of IPv4: the datagram's identification if it may be fragmented on its way.
    pub identification: Option<u16>,
}

impl Headers {
    /// Puts the headers in front of the message of protocol `proto` that the frame holds. False if there is no room, or if
    /// the addresses are of two versions.
    pub fn enclose(&self, message: &mut Frame, proto: u8) -> bool {
        let link = self.link.bytes();
        let len = message.len();
        let mut header = [0; MAX_LINK + IPV6_LEN];
        let ip = &mut header[link.len()..];
        let ip_len = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let Ok(total) = u16::try_from(IPV4_LEN + len) else { return false };
                let (id, flags) = self.identification.map_or((0, DF), |id| (id, 0));
                (ip[0], ip[1], ip[8], ip[9]) = (0x45, self.tos, HOP_LIMIT, proto);
                ip[2..4].copy_from_slice(&total.to_be_bytes());
                ip[4..6].copy_from_slice(&id.to_be_bytes());
                ip[6..8].copy_from_slice(&flags.to_be_bytes());
                ip[12..16].copy_from_slice(&src.octets());
                ip[16..20].copy_from_slice(&dst.octets());
                let sum = checksum::checksum(&ip[..IPV4_LEN]);
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
                IPV4_LEN
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let Ok(payload) = u16::try_from(len) else { return false };
                (ip[0], ip[1], ip[6], ip[7]) = (0x60 | self.tos >> 4, self.tos << 4, proto, HOP_LIMIT);
                ip[4..6].copy_from_slice(&payload.to_be_bytes());
                ip[8..24].copy_from_slice(&src.octets());
                ip[24..40].copy_from_slice(&dst.octets());
                IPV6_LEN
            }
            _ => return false,
        };
        header[..link.len()].copy_from_slice(link);
        let header = &header[..link.len() + ip_len];
        let Some(gap) = message.open_gap(0, header.len()) else { return false };
        gap.copy_from_slice(header);
        (message.offload, message.tunnel) = (Offload::NONE, None);
        true
    }

    /// The sum of the pseudo-header of a message of `len` bytes between these addresses; 0 if they are of two versions.
    pub fn pseudo(&self, proto: u8, len: usize) -> u16 {
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => checksum::pseudo_v4(src.octets(), dst.octets(), proto, len as u16),
            (IpAddr::V6(src), IpAddr::V6(dst)) => checksum::pseudo_v6(src.octets(), dst.octets(), proto, len as u32),
            _ => 0,
        }
    }

    /// Makes the packet that the frame holds, from its IP header on and without padding, an error that quotes it. False
    /// if there is no room for the headers, or if the addresses are of two versions.
    pub fn error(&self, error: IcmpError, packet: &mut Frame) -> bool {
        let (max, proto) = match self.src {
            IpAddr::V4(_) => (MAX_V4 - IPV4_LEN - ICMP_LEN, IP_PROTO_ICMP),
            IpAddr::V6(_) => (MAX_V6 - IPV6_LEN - ICMP_LEN, IP_PROTO_ICMPV6),
        };
        packet.set_len(packet.len().min(max));
        let Some(gap) = packet.open_gap(0, ICMP_LEN) else { return false };
        let [a, b, c, d] = error.word;
        gap.copy_from_slice(&[error.kind, error.code, 0, 0, a, b, c, d]);
        let pseudo = if self.src.is_ipv4() { 0 } else { self.pseudo(proto, packet.len()) };
        let sum = !checksum::add(checksum::sum(packet.bytes()), pseudo);
        if let Some(field) = packet.bytes_mut().get_mut(2..4) {
            field.copy_from_slice(&sum.to_be_bytes());
        }
        self.enclose(packet, proto)
    }
}
