//! The flow key: everything a flow can match on, as one array of 64-bit words.
//!
//! A key has two parts. The **packet part** (the first [`PACKET_WORDS`] words) is what one frame and the port it came
//! in by decide; it is what the caches compare. The **pipeline part** behind it (metadata, registers) is zero when a
//! packet enters and lives only while tables are walked, so no cache ever has to store it.
//!
//! Every field has a fixed [`Slot`]: a word, a shift and a width. Numbers are kept as integers, so the first bit on the
//! wire is the most significant bit of the slot, and a prefix is a run of high bits. Masks have the same layout as
//! keys: a set bit means "this bit matters".
//!
//! Protocols that cannot occur together share slots, as in OVS: ARP addresses lie over IPv4 addresses, the ARP opcode
//! over the IP protocol, ICMP type and code over the ports. The prerequisites in the [field registry](crate::field)
//! keep them apart.

use std::fmt;

/// Number of words in the packet part of a key.
pub const PACKET_WORDS: usize = 15;
/// Number of words in a whole key.
pub const KEY_WORDS: usize = PACKET_WORDS + 9;

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
    use super::{PACKET_WORDS, Slot};

    const P: u8 = PACKET_WORDS as u8;

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

    /// OpenFlow metadata.
    pub const METADATA: Slot = Slot::new(P, 0, 64);

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

impl PacketKey {
    /// The key with every bit outside `mask` cleared.
    #[inline]
    pub fn masked(&self, mask: &PacketMask) -> Self {
        let mut out = *self;
        for (o, m) in out.0.iter_mut().zip(&mask.0) {
            *o &= m;
        }
        out
    }
}

impl From<&PacketKey> for FlowKey {
    fn from(packet: &PacketKey) -> Self {
        let mut key = Self::ZERO;
        key.0[..PACKET_WORDS].copy_from_slice(&packet.0);
        key
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
