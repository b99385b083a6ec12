//! Tunnel headers of every kind: written, read and measured.

use super::{geneve, gre, vxlan};
use crate::field::{ETH_TYPE_IPV4, ETH_TYPE_IPV6, ETH_TYPE_TEB};
use crate::packet::layers::{ETH_LEN, IPV4_LEN, IPV6_LEN, UDP_LEN};
use crate::tunnel::{TUN_OPTIONS, TlvMap, TunnelKey, TunnelKind};

#[cfg(test)]
mod tests;

/// Longest header that [`write()`] writes, in bytes: Geneve's with every option.
pub const MAX_HEADER_LEN: usize = geneve::BASE_LEN + TUN_OPTIONS * geneve::OPTION_LEN;
/// What WireGuard puts around a packet (data message header and authentication tag), its padding aside.
const WIREGUARD_LEN: usize = 32;

/// What a tunnel carries: an Ethernet frame, or an IP packet with nothing in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Payload {
    /// An Ethernet frame.
    Ethernet,
    /// An IPv4 packet.
    Ipv4,
    /// An IPv6 packet.
    Ipv6,
}

impl Payload {
    /// The EtherType that names it in Geneve and GRE: 0x6558 for Ethernet.
    pub const fn eth_type(self) -> u16 {
        match self {
            Self::Ethernet => ETH_TYPE_TEB,
            Self::Ipv4 => ETH_TYPE_IPV4,
            Self::Ipv6 => ETH_TYPE_IPV6,
        }
    }

    /// The payload that this EtherType names, if a tunnel may carry it.
    pub const fn of_eth_type(eth_type: u16) -> Option<Self> {
        match eth_type {
            ETH_TYPE_TEB => Some(Self::Ethernet),
            ETH_TYPE_IPV4 => Some(Self::Ipv4),
            ETH_TYPE_IPV6 => Some(Self::Ipv6),
            _ => None,
        }
    }

    /// The IP version that a packet without Ethernet header says it is of.
    pub fn of_ip(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Some(Self::Ipv4),
            6 => Some(Self::Ipv6),
            _ => None,
        }
    }

    /// The fewest bytes of it that make sense: its first header.
    const fn min_len(self) -> usize {
        match self {
            Self::Ethernet => ETH_LEN,
            Self::Ipv4 => IPV4_LEN,
            Self::Ipv6 => IPV6_LEN,
        }
    }
}

/// What a header is to be like, the tunnel's key aside.
#[derive(Clone, Copy, Debug)]
pub struct Params<'a> {
    /// The encapsulation.
    pub kind: TunnelKind,
    /// What is carried. VXLAN carries Ethernet whatever this says.
    pub payload: Payload,
    /// GRE has a key; one of VXLAN and Geneve always has.
    pub keyed: bool,
    /// GRE has a checksum: [`gre::fill`] writes it.
    pub checksum: bool,
    /// VXLAN has group policy, if the tunnel key does.
    pub gbp: bool,
    /// What the Geneve options are.
    pub tlvs: &'a TlvMap,
}

/// What a header says, and where the packet inside begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// Length of the header: the packet inside starts here, and there is at least its first header.
    pub offset: usize,
    /// What is inside.
    pub payload: Payload,
    /// There is a key, though it may be 0: [`TunnelKey::id`].
    pub keyed: bool,
    /// VXLAN has group policy: [`TunnelKey::gbp`]. A port without `gbp` must refuse it, as the kernel does.
    pub gbp: bool,
    /// Key, flags, group policy and options. Addresses, TOS and TTL, which are not in the header, are 0.
    pub key: TunnelKey,
}

impl Inner {
    /// A packet `offset` bytes into `bytes`, if it has its first header.
    pub(super) fn new(bytes: &[u8], offset: usize, payload: Payload) -> Result<Self, Refused> {
        let sound = bytes.get(offset..).is_some_and(|inner| inner.len() >= payload.min_len());
        let inner = Self { offset, payload, keyed: false, gbp: false, key: TunnelKey::NONE };
        if sound { Ok(inner) } else { Err(Refused::Truncated) }
    }
}

/// Why what a tunnel received was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// The bytes end within the header, or within the first header of the packet inside.
    #[error("the packet ends within its headers")]
    Truncated,
    /// A version other than 0.
    #[error("the header is of a version that is not known")]
    Version,
    /// VXLAN without the bit that says there is a VNI, or flags that are not known; GRE with source routing.
    #[error("the header has flags that are not known, or lacks one that it must have")]
    Flags,
    /// What is inside is neither Ethernet nor IP.
    #[error("the packet inside is of a protocol that the tunnel does not carry")]
    Protocol,
    /// Geneve options that go past their end, or a known one of another length than four bytes.
    #[error("the options do not fit the header")]
    Options,
    /// A critical Geneve option that is not in the TLV map.
    #[error("an option that must be understood is not known")]
    CriticalOption,
    /// GRE's checksum is wrong.
    #[error("the checksum is wrong")]
    Checksum,
}

/// Writes the header that stands between the outer IP or UDP header and what is carried; returns its length. Nothing
/// is written by the kinds that have none. A key that is too long for the header loses its upper bits.
#[inline]
pub fn write(key: &TunnelKey, params: &Params<'_>, out: &mut [u8; MAX_HEADER_LEN]) -> usize {
    match params.kind {
        TunnelKind::Vxlan => vxlan::write(key, params.gbp, out),
        TunnelKind::Geneve => geneve::write(key, params.payload, params.tlvs, out),
        TunnelKind::Gre => gre::write(key, params, out),
        TunnelKind::Ipip | TunnelKind::Sit | TunnelKind::BareUdp | TunnelKind::Wireguard => 0,
    }
}

/// Reads the header at the start of `bytes`, which are the payload of the outer UDP or IP packet; for WireGuard, what
/// was decrypted. Every length found is within `bytes`.
///
/// # Errors
/// [`Refused`], for what must be dropped.
#[inline]
pub fn read(kind: TunnelKind, bytes: &[u8], tlvs: &TlvMap) -> Result<Inner, Refused> {
    match kind {
        TunnelKind::Vxlan => vxlan::read(bytes),
        TunnelKind::Geneve => geneve::read(bytes, tlvs),
        TunnelKind::Gre => gre::read(bytes),
        TunnelKind::Ipip => only(Payload::Ipv4, bare(bytes)?),
        TunnelKind::Sit => only(Payload::Ipv6, bare(bytes)?),
        TunnelKind::BareUdp | TunnelKind::Wireguard => bare(bytes),
    }
}

/// An IP packet with nothing in front.
fn bare(bytes: &[u8]) -> Result<Inner, Refused> {
    if bytes.is_empty() {
        return Err(Refused::Truncated);
    }
    Inner::new(bytes, 0, Payload::of_ip(bytes).ok_or(Refused::Protocol)?)
}

/// Refuses what is not the payload wanted.
fn only(wanted: Payload, inner: Inner) -> Result<Inner, Refused> {
    if inner.payload == wanted { Ok(inner) } else { Err(Refused::Protocol) }
}

/// Bytes that a tunnel adds to a packet: outer IP header, outer UDP header, tunnel header and, where it carries
/// Ethernet, the Ethernet header inside. The path's MTU less this is the MTU inside.
///
/// `keyed` and `checksum` count for GRE alone, `options` (of four bytes each) for Geneve alone. WireGuard's padding, up
/// to 15 bytes, is not counted: it never makes a packet longer than the MTU inside.
pub fn overhead(
    kind: TunnelKind,
    outer_v6: bool,
    payload: Payload,
    (keyed, checksum): (bool, bool),
    options: usize,
) -> usize {
    let ip = if outer_v6 { IPV6_LEN } else { IPV4_LEN };
    let udp = if kind.default_port().is_some() { UDP_LEN } else { 0 };
    let header = match kind {
        TunnelKind::Vxlan => vxlan::LEN,
        TunnelKind::Geneve => geneve::BASE_LEN + options.min(TUN_OPTIONS) * geneve::OPTION_LEN,
        TunnelKind::Gre => gre::len(keyed, checksum),
        TunnelKind::Wireguard => WIREGUARD_LEN,
        TunnelKind::Ipip | TunnelKind::Sit | TunnelKind::BareUdp => 0,
    };
    let inner = match payload {
        Payload::Ethernet if !kind.is_layer3() => ETH_LEN,
        _ => 0,
    };
    ip + udp + header + inner
}
