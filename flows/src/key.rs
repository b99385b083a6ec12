//! The flow key: everything a flow can match on, as one array of 64-bit words.
//!
//! A key has three parts. The **packet part** (the first [`PACKET_WORDS`] words) is what one frame and the port it came
//! in by decide, its tunnel headers included; it is what the caches compare. The **arrival part** behind it is what is
//! known of a packet beside its bytes: its connection, its priority, hashes. The **pipeline part** at the end (from
//! [`PIPELINE_WORD`]; metadata, registers, scratch of the tables) is zero when a packet enters and lives only while
//! tables are walked, so no cache ever has to store it.
//!
//! Every field has a fixed [`Slot`]: a word, a shift and a width. Numbers are kept as integers, so the first bit on the
//! wire is the most significant bit of the slot, and a prefix is a run of high bits. Masks have the same layout as
//! keys: a set bit means "this bit matters".
//!
//! Protocols that cannot occur together share slots, as in OVS: ARP addresses lie over IPv4 addresses, the ARP opcode
//! over the IP protocol, ICMP type and code over the ports, MPLS labels and NSH over the IP header. The prerequisites in the [field registry](crate::field)
//! keep them apart.

use std::fmt;

/// Number of words that the frame itself decides, without its tunnel headers; the first words of a key.
pub const FRAME_WORDS: usize = 15;
/// Number of words in the packet part of a key.
pub const PACKET_WORDS: usize = FRAME_WORDS + 12;
/// First word of the pipeline part of a key.
pub const PIPELINE_WORD: usize = PACKET_WORDS + 10;
/// Number of words in a whole key.
pub const KEY_WORDS: usize = PIPELINE_WORD + 10;

/// Where a field lives in a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Index of the word; of the more significant word for a 128-bit field.
    pub word: u8,
    /// Number of bits below the field in its word; 0 for a 128-bit field.
    pub shift: u8,
    /// Width in bits: 1 to 64, or 128.
    pub bits: u8,
}

impl Slot {
    /// A slot of `bits` bits, `shift` bits above the end of word `word`.
    pub const fn new(word: u8, shift: u8, bits: u8) -> Self {
        Self { word, shift, bits }
    }

    /// All-ones value of this width.
    pub const fn max(self) -> u128 {
        if self.bits == 128 { u128::MAX } else { (1u128 << self.bits) - 1 }
    }

    /// The bits of the slot in its own word; meaningful for slots of at most 64 bits.
    pub const fn word_mask(self) -> u64 {
        (self.max() as u64) << self.shift
    }
}

/// Slots of the key, by name. The [field registry](crate::field) maps the words of the flow language onto them.
pub mod slot {
    use super::{FRAME_WORDS, PACKET_WORDS, PIPELINE_WORD, Slot};

    /// First word of the tunnel headers.
    const T: u8 = FRAME_WORDS as u8;
    /// First word of the arrival part.
    const A: u8 = PACKET_WORDS as u8;
    /// First word of the pipeline part.
    const P: u8 = PIPELINE_WORD as u8;

    /// Ingress port number.
    pub const IN_PORT: Slot = Slot::new(0, 32, 32);
    /// Packet mark: zero on entry, settable.
    pub const PKT_MARK: Slot = Slot::new(0, 0, 32);
    /// Ethernet destination.
    pub const ETH_DST: Slot = Slot::new(1, 16, 48);
    /// EtherType behind the parsed VLAN tags; 0x05ff for an 802.3 frame without SNAP, as in OVS.
    pub const ETH_TYPE: Slot = Slot::new(1, 0, 16);
    /// Ethernet source.
    pub const ETH_SRC: Slot = Slot::new(2, 16, 48);
    /// Outer VLAN TCI; bit 0x1000 is set whenever a tag is present.
    pub const VLAN_TCI: Slot = Slot::new(2, 0, 16);
    /// TPID of the outer VLAN tag, 0 without one.
    pub const VLAN_TPID: Slot = Slot::new(3, 48, 16);
    /// Inner VLAN TCI; bit 0x1000 is set whenever a second tag is present.
    pub const INNER_VLAN_TCI: Slot = Slot::new(3, 32, 16);
    /// TPID of the inner VLAN tag, 0 without one.
    pub const INNER_VLAN_TPID: Slot = Slot::new(3, 16, 16);
    /// IPv4 source; ARP sender address.
    pub const IP_SRC: Slot = Slot::new(4, 32, 32);
    /// IPv4 destination; ARP target address.
    pub const IP_DST: Slot = Slot::new(4, 0, 32);
    /// IP protocol (the last header of IPv6's chain); low 8 bits of the ARP opcode.
    pub const IP_PROTO: Slot = Slot::new(5, 56, 8);
    /// IPv4 TOS or IPv6 traffic class, ECN included.
    pub const IP_TOS: Slot = Slot::new(5, 48, 8);
    /// The DSCP bits of the TOS.
    pub const IP_DSCP: Slot = Slot::new(5, 50, 6);
    /// The ECN bits of the TOS.
    pub const IP_ECN: Slot = Slot::new(5, 48, 2);
    /// IPv4 TTL or IPv6 hop limit.
    pub const IP_TTL: Slot = Slot::new(5, 40, 8);
    /// Fragment state: [`FRAG_ANY`](super::FRAG_ANY) and [`FRAG_LATER`](super::FRAG_LATER).
    pub const IP_FRAG: Slot = Slot::new(5, 32, 8);
    /// IPv6 flow label (20 bits used).
    pub const IPV6_LABEL: Slot = Slot::new(5, 0, 32);
    /// Transport source port; ICMP or ICMPv6 type.
    pub const TP_SRC: Slot = Slot::new(6, 48, 16);
    /// Transport destination port; ICMP or ICMPv6 code.
    pub const TP_DST: Slot = Slot::new(6, 32, 16);
    /// TCP flags, 12 bits.
    pub const TCP_FLAGS: Slot = Slot::new(6, 16, 16);
    /// IPv6 source.
    pub const IPV6_SRC: Slot = Slot::new(7, 0, 128);
    /// IPv6 destination.
    pub const IPV6_DST: Slot = Slot::new(9, 0, 128);
    /// Neighbour discovery target.
    pub const ND_TARGET: Slot = Slot::new(11, 0, 128);
    /// ARP sender hardware address; ND source link-layer option.
    pub const ARP_SHA: Slot = Slot::new(13, 16, 48);
    /// ARP target hardware address; ND target link-layer option.
    pub const ARP_THA: Slot = Slot::new(14, 16, 48);

    /// Outermost MPLS label stack entry: label (20 bits), traffic class (3), bottom of stack (1), TTL (8).
    pub const MPLS_LSE: Slot = Slot::new(4, 32, 32);
    /// Second MPLS label stack entry, 0 without one.
    pub const MPLS_LSE_1: Slot = Slot::new(4, 0, 32);
    /// Third MPLS label stack entry, 0 without one.
    pub const MPLS_LSE_2: Slot = Slot::new(5, 0, 32);
    /// NSH service path header: path identifier (24 bits), service index (8).
    pub const NSH_PATH: Slot = Slot::new(4, 32, 32);
    /// NSH metadata type.
    pub const NSH_MDTYPE: Slot = Slot::new(4, 8, 8);
    /// NSH flags.
    pub const NSH_FLAGS: Slot = Slot::new(5, 48, 8);
    /// NSH next protocol.
    pub const NSH_NP: Slot = Slot::new(5, 56, 8);
    /// NSH TTL, 6 bits.
    pub const NSH_TTL: Slot = Slot::new(5, 40, 8);
    /// The four context words of NSH metadata type 1, the first in the most significant bits.
    pub const NSH_CONTEXT: Slot = Slot::new(7, 0, 128);
    /// Reserved field of a neighbour solicitation or advertisement.
    pub const ND_RESERVED: Slot = Slot::new(6, 0, 32);
    /// Type of the first option of a neighbour solicitation or advertisement.
    pub const ND_OPTIONS_TYPE: Slot = Slot::new(13, 0, 8);

    /// Tunnel key.
    pub const TUN_ID: Slot = Slot::new(T, 0, 64);
    /// Outer IPv4 source.
    pub const TUN_SRC: Slot = Slot::new(T + 1, 32, 32);
    /// Outer IPv4 destination.
    pub const TUN_DST: Slot = Slot::new(T + 1, 0, 32);
    /// Tunnel flags: [`TUN_FLAG_OAM`](super::TUN_FLAG_OAM), [`tun_flag_option`](super::tun_flag_option).
    pub const TUN_FLAGS: Slot = Slot::new(T + 2, 48, 16);
    /// VXLAN group-based policy identifier.
    pub const TUN_GBP_ID: Slot = Slot::new(T + 2, 32, 16);
    /// VXLAN group-based policy flags.
    pub const TUN_GBP_FLAGS: Slot = Slot::new(T + 2, 24, 8);
    /// GTP-U flags.
    pub const TUN_GTPU_FLAGS: Slot = Slot::new(T + 2, 16, 8);
    /// GTP-U message type.
    pub const TUN_GTPU_MSGTYPE: Slot = Slot::new(T + 2, 8, 8);
    /// ERSPAN version.
    pub const TUN_ERSPAN_VER: Slot = Slot::new(T + 2, 0, 8);
    /// ERSPAN index.
    pub const TUN_ERSPAN_IDX: Slot = Slot::new(T + 3, 32, 32);
    /// ERSPAN direction.
    pub const TUN_ERSPAN_DIR: Slot = Slot::new(T + 3, 24, 8);
    /// ERSPAN hardware identifier.
    pub const TUN_ERSPAN_HWID: Slot = Slot::new(T + 3, 16, 8);
    /// Outer TOS or traffic class.
    pub const TUN_TOS: Slot = Slot::new(T + 3, 8, 8);
    /// Outer TTL or hop limit.
    pub const TUN_TTL: Slot = Slot::new(T + 3, 0, 8);
    /// Outer IPv6 source.
    pub const TUN_IPV6_SRC: Slot = Slot::new(T + 4, 0, 128);
    /// Outer IPv6 destination.
    pub const TUN_IPV6_DST: Slot = Slot::new(T + 6, 0, 128);

    /// Slot of the Geneve option `n`, 0 to 7, 32 bits each.
    pub const fn tun_metadata(n: u8) -> Slot {
        assert!(n < 8);
        Slot::new(T + 8 + n / 2, if n.is_multiple_of(2) { 32 } else { 0 }, 32)
    }

    /// Connection state: [`CT_NEW`](super::CT_NEW) and others; 0 for a packet that was not tracked.
    pub const CT_STATE: Slot = Slot::new(A, 56, 8);
    /// IP protocol of the connection's first packet.
    pub const CT_NW_PROTO: Slot = Slot::new(A, 48, 8);
    /// Connection tracking zone.
    pub const CT_ZONE: Slot = Slot::new(A, 32, 16);
    /// Connection mark.
    pub const CT_MARK: Slot = Slot::new(A, 0, 32);
    /// Connection label.
    pub const CT_LABEL: Slot = Slot::new(A + 1, 0, 128);
    /// IPv4 source of the connection's first packet.
    pub const CT_NW_SRC: Slot = Slot::new(A + 3, 32, 32);
    /// IPv4 destination of the connection's first packet.
    pub const CT_NW_DST: Slot = Slot::new(A + 3, 0, 32);
    /// IPv6 source of the connection's first packet.
    pub const CT_IPV6_SRC: Slot = Slot::new(A + 3, 0, 128);
    /// IPv6 destination of the connection's first packet.
    pub const CT_IPV6_DST: Slot = Slot::new(A + 5, 0, 128);
    /// Transport source port of the connection's first packet.
    pub const CT_TP_SRC: Slot = Slot::new(A + 7, 48, 16);
    /// Transport destination port of the connection's first packet.
    pub const CT_TP_DST: Slot = Slot::new(A + 7, 32, 16);
    /// Hash that the datapath computed.
    pub const DP_HASH: Slot = Slot::new(A + 7, 0, 32);
    /// Priority for quality of service; what `set_queue` sets.
    pub const SKB_PRIORITY: Slot = Slot::new(A + 8, 32, 32);
    /// Recirculation identifier; 0 for a packet from a port.
    pub const RECIRC_ID: Slot = Slot::new(A + 8, 0, 32);
    /// Packet type: name space and type within it; 0 for Ethernet.
    pub const PACKET_TYPE: Slot = Slot::new(A + 9, 32, 32);

    /// OpenFlow metadata.
    pub const METADATA: Slot = Slot::new(P, 0, 64);
    /// Identifier of the conjunction that matched.
    pub const CONJ_ID: Slot = Slot::new(P + 9, 32, 32);
    /// Output port in the action set.
    pub const ACTSET_OUTPUT: Slot = Slot::new(P + 9, 0, 32);

    /// Slot of register `n`, 0 to 15. Even registers are the high half of their word, so that `xregN` is word N.
    pub const fn reg(n: u8) -> Slot {
        assert!(n < 16);
        Slot::new(P + 1 + n / 2, if n.is_multiple_of(2) { 32 } else { 0 }, 32)
    }
}

/// Bit of [`slot::IP_FRAG`]: the packet is a fragment.
pub const FRAG_ANY: u8 = 1;
/// Bit of [`slot::IP_FRAG`]: the packet is a fragment other than the first.
pub const FRAG_LATER: u8 = 2;
/// Bit of [`slot::CT_STATE`]: the packet would begin a connection.
pub const CT_NEW: u8 = 0x01;
/// Bit of [`slot::CT_STATE`]: the packet belongs to a connection that has seen both directions.
pub const CT_EST: u8 = 0x02;
/// Bit of [`slot::CT_STATE`]: the packet belongs to something that a known connection caused.
pub const CT_REL: u8 = 0x04;
/// Bit of [`slot::CT_STATE`]: the packet goes in the reply direction.
pub const CT_RPL: u8 = 0x08;
/// Bit of [`slot::CT_STATE`]: the tracker can make nothing of the packet.
pub const CT_INV: u8 = 0x10;
/// Bit of [`slot::CT_STATE`]: the packet went through the tracker.
pub const CT_TRK: u8 = 0x20;
/// Bit of [`slot::CT_STATE`]: the source address or port was translated.
pub const CT_SNAT: u8 = 0x40;
/// Bit of [`slot::CT_STATE`]: the destination address or port was translated.
pub const CT_DNAT: u8 = 0x80;
/// Bit of [`slot::TUN_FLAGS`]: Geneve's OAM flag.
pub const TUN_FLAG_OAM: u16 = 1;
/// Bit of [`slot::TUN_FLAGS`]: the option of `tun_metadata` number `n`, below 8, is there, though it may be 0.
pub const fn tun_flag_option(n: u8) -> u16 {
    0x100 << (n & 7)
}
/// Bit of the VLAN TCI that says "a tag is present" (the wire's CFI/DEI bit, as OVS uses it).
pub const VLAN_PRESENT: u16 = 0x1000;

macro_rules! words_type {
    ($(#[$doc:meta])* $name:ident, $len:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(transparent)]
        pub struct $name(pub [u64; $len]);

        impl $name {
            /// All words zero.
            pub const ZERO: Self = Self([0; $len]);

            /// The value in `slot`, right-aligned.
            pub const fn get(&self, slot: Slot) -> u128 {
                let w = slot.word as usize;
                if slot.bits == 128 {
                    (self.0[w] as u128) << 64 | self.0[w + 1] as u128
                } else {
                    (self.0[w] >> slot.shift) as u128 & slot.max()
                }
            }

            /// Replaces the value in `slot`; bits above the slot's width are ignored.
            pub const fn set(&mut self, slot: Slot, value: u128) {
                self.set_masked(slot, value, u128::MAX);
            }

            /// Replaces those bits of `slot` that are set in `mask`.
            pub const fn set_masked(&mut self, slot: Slot, value: u128, mask: u128) {
                let w = slot.word as usize;
                let mask = mask & slot.max();
                if slot.bits == 128 {
                    let (hi, lo) = ((mask >> 64) as u64, mask as u64);
                    self.0[w] = self.0[w] & !hi | (value >> 64) as u64 & hi;
                    self.0[w + 1] = self.0[w + 1] & !lo | value as u64 & lo;
                } else {
                    let m = (mask as u64) << slot.shift;
                    self.0[w] = self.0[w] & !m | (value as u64) << slot.shift & m;
                }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::ZERO
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "["))?;
                for (i, w) in self.0.iter().enumerate().filter(|(_, w)| **w != 0) {
                    write!(f, " {i}:{w:016x}")?;
                }
                f.write_str(" ]")
            }
        }
    };
}

words_type! {
    /// What one frame and its ingress port decide: the part of a key that caches compare.
    PacketKey, PACKET_WORDS
}
words_type! {
    /// The bits of a [`PacketKey`] that matter.
    PacketMask, PACKET_WORDS
}
words_type! {
    /// A whole key: the packet part, then metadata and registers.
    FlowKey, KEY_WORDS
}
words_type! {
    /// The bits of a [`FlowKey`] that matter.
    FlowMask, KEY_WORDS
}

macro_rules! masked {
    ($key:ident, $mask:ident) => {
        impl $key {
            /// The key with every bit outside `mask` cleared.
            #[inline]
            pub fn masked(&self, mask: &$mask) -> Self {
                let mut out = *self;
                for (o, m) in out.0.iter_mut().zip(&mask.0) {
                    *o &= m;
                }
                out
            }
        }
    };
}

masked!(PacketKey, PacketMask);
masked!(FlowKey, FlowMask);

impl From<&PacketKey> for FlowKey {
    fn from(packet: &PacketKey) -> Self {
        let mut key = Self::ZERO;
        key.0[..PACKET_WORDS].copy_from_slice(&packet.0);
        key
    }
}

impl From<&PacketMask> for FlowMask {
    fn from(packet: &PacketMask) -> Self {
        let mut mask = Self::ZERO;
        mask.0[..PACKET_WORDS].copy_from_slice(&packet.0);
        mask
    }
}

impl FlowKey {
    /// The packet part.
    pub fn packet(&self) -> PacketKey {
        let mut out = PacketKey::ZERO;
        out.0.copy_from_slice(&self.0[..PACKET_WORDS]);
        out
    }
}

impl FlowMask {
    /// The packet part.
    pub fn packet(&self) -> PacketMask {
        let mut out = PacketMask::ZERO;
        out.0.copy_from_slice(&self.0[..PACKET_WORDS]);
        out
    }

    /// Adds every bit of `other`.
    pub fn union(&mut self, other: &Self) {
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a |= b;
        }
    }

    /// The bits that are not in `other`.
    pub fn without(&self, other: &Self) -> Self {
        let mut out = *self;
        for (a, b) in out.0.iter_mut().zip(&other.0) {
            *a &= !b;
        }
        out
    }

    /// The mask without the pipeline part, whose bits no packet brings along.
    pub fn without_pipeline(&self) -> Self {
        let mut out = *self;
        out.0[PIPELINE_WORD..].fill(0);
        out
    }

    /// Marks the whole of `slot` as mattering.
    pub const fn add(&mut self, slot: Slot) {
        self.set(slot, u128::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_read_back_what_was_set_and_touch_nothing_else() {
        let slots = [
            slot::IN_PORT,
            slot::ETH_DST,
            slot::ETH_TYPE,
            slot::ETH_SRC,
            slot::VLAN_TCI,
            slot::IP_SRC,
            slot::IP_DST,
            slot::IPV6_SRC,
            slot::IPV6_DST,
            slot::ND_TARGET,
            slot::TP_SRC,
            slot::TUN_ID,
            slot::TUN_IPV6_DST,
            slot::tun_metadata(0),
            slot::tun_metadata(7),
            slot::CT_STATE,
            slot::CT_LABEL,
            slot::CT_IPV6_SRC,
            slot::CT_IPV6_DST,
            slot::CT_TP_DST,
            slot::PACKET_TYPE,
            slot::CONJ_ID,
            slot::METADATA,
            slot::reg(0),
            slot::reg(1),
            slot::reg(15),
        ];
        for (i, a) in slots.iter().enumerate() {
            let mut key = FlowKey::ZERO;
            key.set(*a, u128::MAX);
            assert_eq!(key.get(*a), a.max());
            for (j, b) in slots.iter().enumerate() {
                assert!(i == j || key.get(*b) == 0, "{a:?} runs into {b:?}");
            }
        }
    }

    #[test]
    fn xreg_is_the_even_register_high() {
        let mut key = FlowKey::ZERO;
        key.set(slot::reg(4), 0x1);
        key.set(slot::reg(5), 0x2);
        assert_eq!(key.0[usize::from(slot::reg(4).word)], 0x1_0000_0002);
    }

    #[test]
    fn masked_set_keeps_the_other_bits() {
        let mut key = FlowKey::ZERO;
        key.set(slot::IPV6_SRC, u128::MAX);
        key.set_masked(slot::IPV6_SRC, 0, 0xffff);
        assert_eq!(key.get(slot::IPV6_SRC), u128::MAX << 16);
    }
}
