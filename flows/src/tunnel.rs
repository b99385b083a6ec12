//! Tunnels: what translation knows of a tunnel port, and what a packet carries of its tunnel.
//!
//! A tunnel port is a port like any other, with a [`Tunnel`] that says which parts of the outer headers it decides and
//! which the flow does (`remote_ip=flow`, `key=flow`, as in OVS). What was found in the outer headers of a packet that
//! arrived, and what is to be put into those of a packet that leaves, is a [`TunnelKey`]: the tunnel words of the flow
//! key, so that it costs one copy to match on it.
//!
//! # Limits
//! Eight Geneve options of four bytes each can be matched and set: `tun_metadata0` to `tun_metadata7`. A [`TlvMap`] says
//! which option each of them is.

mod tlv;

pub use tlv::TlvMapError;

use crate::key::{FRAME_WORDS, FlowKey, FlowMask, PACKET_WORDS, PacketKey, Slot, tun_flag_option};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Number of words that describe a packet's tunnel.
pub const TUNNEL_WORDS: usize = PACKET_WORDS - FRAME_WORDS;
/// Geneve options that can be matched and set.
pub const TUN_OPTIONS: usize = 8;

/// The encapsulation of a tunnel; `type` in a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TunnelKind {
    /// Ethernet in UDP (RFC 7348), group-based policy included.
    Vxlan,
    /// Ethernet in UDP, with options (RFC 8926).
    Geneve,
    /// Ethernet or IP in IP (RFC 2784, key and sequence of RFC 2890).
    Gre,
    /// IPv4 in IP (RFC 2003, RFC 2473).
    Ipip,
    /// IPv6 in IP (RFC 4213, RFC 2473).
    Sit,
    /// IP in UDP with no header between, as Flannel's `udp` backend and Linux's `bareudp`.
    BareUdp,
    /// IP, encrypted, in UDP.
    Wireguard,
}

impl TunnelKind {
    /// Every kind.
    pub const ALL: [Self; 7] =
        [Self::Vxlan, Self::Geneve, Self::Gre, Self::Ipip, Self::Sit, Self::BareUdp, Self::Wireguard];

    /// The name that configurations and outputs use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::Gre => "gre",
            Self::Ipip => "ipip",
            Self::Sit => "sit",
            Self::BareUdp => "bareudp",
            Self::Wireguard => "wireguard",
        }
    }

    /// The kind with this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether it carries IP packets only, never Ethernet frames. GRE carries either.
    pub const fn is_layer3(self) -> bool {
        matches!(self, Self::Ipip | Self::Sit | Self::BareUdp | Self::Wireguard)
    }

    /// Whether the port finds the other end by the packet inside, where the flow does not say one.
    pub const fn finds_remote(self) -> bool {
        matches!(self, Self::Wireguard)
    }

    /// Whether its packets have a number that says which network they belong to.
    pub const fn has_key(self) -> bool {
        matches!(self, Self::Vxlan | Self::Geneve | Self::Gre)
    }

    /// UDP port that is used unless another is asked for; `None` for what is not in UDP.
    pub const fn default_port(self) -> Option<u16> {
        match self {
            Self::Vxlan => Some(4789),
            Self::Geneve => Some(6081),
            Self::BareUdp => Some(8285),
            Self::Wireguard => Some(51820),
            Self::Gre | Self::Ipip | Self::Sit => None,
        }
    }
}

impl fmt::Display for TunnelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A part of the outer headers: decided by the port, or by each flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part<T> {
    /// The port's.
    Fixed(T),
    /// What the flow has in its tunnel field.
    Flow,
}

/// TOS or TTL of the outer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Byte {
    /// Always this.
    Fixed(u8),
    /// As the packet inside has it, if it is IP.
    Inherit,
    /// What the flow has in its tunnel field.
    Flow,
}

/// What translation has to know of a tunnel port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tunnel {
    /// The encapsulation.
    pub kind: TunnelKind,
    /// IP packets without Ethernet header are carried.
    pub layer3: bool,
    /// The other end; `tun_dst` or `tun_ipv6_dst` of the flow.
    pub remote: Part<IpAddr>,
    /// This end; unspecified leaves the choice to the host's routes. `tun_src` or `tun_ipv6_src` of the flow.
    pub local: Part<IpAddr>,
    /// The key of packets that leave; `None` for none. `tun_id` of the flow.
    pub out_key: Part<Option<u64>>,
    /// The outer TOS; its ECN bits are always those of RFC 6040.
    pub tos: Byte,
    /// The outer TTL.
    pub ttl: Byte,
}

impl Tunnel {
    /// Whether the port alone decides the outer headers, but for what flows set of group policy and options.
    pub fn is_fixed(&self) -> bool {
        !(self.remote == Part::Flow
            || self.local == Part::Flow
            || self.out_key == Part::Flow
            || self.tos == Byte::Flow
            || self.ttl == Byte::Flow)
    }
}

/// What a packet carries of its tunnel: the tunnel words of the flow key.
///
/// Of a packet that arrived, `tun_src` is the other end and `tun_dst` this one; of one that leaves, `tun_dst` is the
/// other end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TunnelKey(pub [u64; TUNNEL_WORDS]);

impl TunnelKey {
    /// No tunnel.
    pub const NONE: Self = Self([0; TUNNEL_WORDS]);

    /// The tunnel words of a key.
    #[inline]
    pub fn of(key: &PacketKey) -> Self {
        let mut words = [0; TUNNEL_WORDS];
        words.copy_from_slice(&key.0[FRAME_WORDS..PACKET_WORDS]);
        Self(words)
    }

    /// The tunnel words of a whole key.
    #[inline]
    pub fn of_flow(key: &FlowKey) -> Self {
        let mut words = [0; TUNNEL_WORDS];
        words.copy_from_slice(&key.0[FRAME_WORDS..PACKET_WORDS]);
        Self(words)
    }

    /// The tunnel words of a mask.
    pub(crate) fn written(mask: &FlowMask) -> Self {
        let mut words = [0; TUNNEL_WORDS];
        words.copy_from_slice(&mask.0[FRAME_WORDS..PACKET_WORDS]);
        Self(words)
    }

    /// The bits of both.
    pub(crate) fn union(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word |= other);
        self
    }

    /// These words with the bits in `mask` as `new` has them.
    #[inline]
    pub fn overlaid(mut self, new: &Self, mask: &Self) -> Self {
        for ((word, new), mask) in self.0.iter_mut().zip(&new.0).zip(&mask.0) {
            *word = *word & !mask | new & mask;
        }
        self
    }

    /// Puts the tunnel words into a key.
    #[inline]
    pub fn write(&self, key: &mut PacketKey) {
        key.0[FRAME_WORDS..PACKET_WORDS].copy_from_slice(&self.0);
    }

    /// Whether there is no tunnel.
    #[inline]
    pub fn is_none(&self) -> bool {
        self.0 == [0; TUNNEL_WORDS]
    }

    /// The value in `slot`, one of the tunnel slots; 0 for another one.
    pub fn get(&self, slot: Slot) -> u128 {
        let mut key = PacketKey::ZERO;
        self.write(&mut key);
        key.get(slot)
    }

    /// Replaces the value in `slot`, one of the tunnel slots.
    pub fn set(&mut self, slot: Slot, value: u128) {
        let mut key = PacketKey::ZERO;
        self.write(&mut key);
        key.set(slot, value);
        *self = Self::of(&key);
    }

    /// Outer source; `None` if it is not set.
    #[inline]
    pub fn src(&self) -> Option<IpAddr> {
        address((self.0[1] >> 32) as u32, self.0[4], self.0[5])
    }

    /// Outer destination; `None` if it is not set.
    #[inline]
    pub fn dst(&self) -> Option<IpAddr> {
        address(self.0[1] as u32, self.0[6], self.0[7])
    }

    /// Sets the outer source.
    #[inline]
    pub fn set_src(&mut self, src: IpAddr) {
        match src {
            IpAddr::V4(v4) => self.0[1] = self.0[1] & 0xffff_ffff | u64::from(u32::from(v4)) << 32,
            IpAddr::V6(v6) => (self.0[4], self.0[5]) = halves(v6),
        }
    }

    /// Sets the outer destination.
    #[inline]
    pub fn set_dst(&mut self, dst: IpAddr) {
        match dst {
            IpAddr::V4(v4) => self.0[1] = self.0[1] & !0xffff_ffff | u64::from(u32::from(v4)),
            IpAddr::V6(v6) => (self.0[6], self.0[7]) = halves(v6),
        }
    }

    /// The tunnel's key: VNI or GRE key.
    #[inline]
    pub fn id(&self) -> u64 {
        self.0[0]
    }

    /// Sets the tunnel's key.
    #[inline]
    pub fn set_id(&mut self, id: u64) {
        self.0[0] = id;
    }

    /// Outer TOS or traffic class.
    #[inline]
    pub fn tos(&self) -> u8 {
        (self.0[3] >> 8) as u8
    }

    /// Outer TTL or hop limit.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.0[3] as u8
    }

    /// Sets the outer TOS and TTL.
    #[inline]
    pub fn set_tos_ttl(&mut self, tos: u8, ttl: u8) {
        self.0[3] = self.0[3] & !0xffff | u64::from(tos) << 8 | u64::from(ttl);
    }

    /// Flags: [`TUN_FLAG_OAM`](crate::key::TUN_FLAG_OAM), and a bit for each option that is there
    /// ([`tun_flag_option`](crate::key::tun_flag_option)).
    #[inline]
    pub fn flags(&self) -> u16 {
        (self.0[2] >> 48) as u16
    }

    /// Sets the flags.
    #[inline]
    pub fn set_flags(&mut self, flags: u16) {
        self.0[2] = self.0[2] & !(0xffff << 48) | u64::from(flags) << 48;
    }

    /// VXLAN's group policy: identifier and flags.
    #[inline]
    pub fn gbp(&self) -> (u16, u8) {
        ((self.0[2] >> 32) as u16, (self.0[2] >> 24) as u8)
    }

    /// Sets VXLAN's group policy.
    #[inline]
    pub fn set_gbp(&mut self, id: u16, flags: u8) {
        self.0[2] = self.0[2] & !(0x00ff_ffff << 24) | u64::from(id) << 32 | u64::from(flags) << 24;
    }

    /// The option of `tun_metadata` number `n`, below [`TUN_OPTIONS`]; `None` if it is not there.
    #[inline]
    pub fn option(&self, n: u8) -> Option<u32> {
        let word = self.0.get(8 + usize::from(n / 2))?;
        let value = if n.is_multiple_of(2) { (word >> 32) as u32 } else { *word as u32 };
        (value != 0 || self.flags() & tun_flag_option(n) != 0).then_some(value)
    }

    /// Sets the option of `tun_metadata` number `n`, below [`TUN_OPTIONS`].
    #[inline]
    pub fn set_option(&mut self, n: u8, value: u32) {
        let Some(word) = self.0.get_mut(8 + usize::from(n / 2)) else { return };
        let shift = if n.is_multiple_of(2) { 32 } else { 0 };
        *word = *word & !(0xffff_ffff << shift) | u64::from(value) << shift;
        self.set_flags(self.flags() | tun_flag_option(n));
    }
}

fn address(v4: u32, high: u64, low: u64) -> Option<IpAddr> {
    if v4 != 0 {
        return Some(Ipv4Addr::from(v4).into());
    }
    (high | low != 0).then(|| Ipv6Addr::from(u128::from(high) << 64 | u128::from(low)).into())
}

fn halves(v6: Ipv6Addr) -> (u64, u64) {
    let bits = u128::from(v6);
    ((bits >> 64) as u64, bits as u64)
}

/// A Geneve option: its class and its type (RFC 8926, 3.5), the critical bit being part of the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tlv {
    /// Option class.
    pub class: u16,
    /// Option type.
    pub kind: u8,
}

/// Which option each of `tun_metadata0` to `tun_metadata7` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlvMap(pub [Option<Tlv>; TUN_OPTIONS]);

impl TlvMap {
    /// The number of the `tun_metadata` that this option is.
    #[inline]
    pub fn number(&self, tlv: Tlv) -> Option<u8> {
        self.0.iter().position(|known| *known == Some(tlv)).map(|n| n as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{TUN_FLAG_OAM, slot};

    #[test]
    fn what_is_set_by_name_is_what_the_slots_say() {
        let mut key = TunnelKey::NONE;
        assert!(key.is_none() && key.dst().is_none());
        key.set_id(0x1234_5678_9abc);
        key.set_src("192.0.2.1".parse().unwrap());
        key.set_dst("192.0.2.2".parse().unwrap());
        key.set_tos_ttl(0xb8, 63);
        key.set_flags(TUN_FLAG_OAM);
        key.set_gbp(0x1ff, 0x48);
        key.set_option(0, 7);
        key.set_option(3, 0);
        for (slot, value) in [
            (slot::TUN_ID, 0x1234_5678_9abc),
            (slot::TUN_SRC, 0xc000_0201),
            (slot::TUN_DST, 0xc000_0202),
            (slot::TUN_TOS, 0xb8),
            (slot::TUN_TTL, 63),
            (slot::TUN_FLAGS, u128::from(TUN_FLAG_OAM | tun_flag_option(0) | tun_flag_option(3))),
            (slot::TUN_GBP_ID, 0x1ff),
            (slot::TUN_GBP_FLAGS, 0x48),
            (slot::tun_metadata(0), 7),
        ] {
            assert_eq!(key.get(slot), value, "{slot:?}");
        }
        assert_eq!((key.option(0), key.option(1), key.option(3)), (Some(7), None, Some(0)));
        assert_eq!((key.tos(), key.ttl(), key.gbp(), key.id()), (0xb8, 63, (0x1ff, 0x48), 0x1234_5678_9abc));
    }

    #[test]
    fn both_families_have_their_place() {
        let mut key = TunnelKey::NONE;
        let (a, b) = ("2001:db8::1".parse::<IpAddr>().unwrap(), "2001:db8::2".parse::<IpAddr>().unwrap());
        key.set_src(a);
        key.set_dst(b);
        assert_eq!((key.src(), key.dst()), (Some(a), Some(b)));
        assert_eq!((key.get(slot::TUN_SRC), key.get(slot::TUN_DST)), (0, 0));
    }
}
