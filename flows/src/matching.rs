//! What a rule matches: values and masks, stored for the words that it looks at and no others.

use crate::field::Field;
use crate::key::{FlowKey, FlowMask, KEY_WORDS, Slot};
use std::fmt;

/// A match: for each word of the key that it looks at, a value and a mask.
///
/// Invariants: a stored mask is never 0, and a value has no bit outside its mask; so equal matches are equal bit for
/// bit. An ordinary rule looks at four to six words, which keeps 100,000 rules small.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Match {
    /// Bit N is set when word N is looked at.
    map: u64,
    /// Value and mask of each such word, in order.
    words: Box<[[u64; 2]]>,
}

const _: () = assert!(KEY_WORDS <= 64, "the map of a match has 64 bits");

impl Match {
    /// The match that every packet satisfies.
    pub fn any() -> Self {
        Self::default()
    }

    /// The match on `value` under `mask`; value bits outside the mask are ignored.
    pub fn new(value: &FlowKey, mask: &FlowMask) -> Self {
        let map = (0..KEY_WORDS).fold(0, |map, i| map | u64::from(mask.0[i] != 0) << i);
        let mut words = Vec::with_capacity(map.count_ones() as usize);
        let mut rest = map;
        while rest != 0 {
            let i = rest.trailing_zeros() as usize;
            words.push([value.0[i] & mask.0[i], mask.0[i]]);
            rest &= rest - 1;
        }
        Self { map, words: words.into() }
    }

    /// Whether every packet satisfies it.
    pub fn is_any(&self) -> bool {
        self.map == 0
    }

    /// Index, value and mask of each word looked at, in ascending order.
    pub fn words(&self) -> impl Iterator<Item = (usize, u64, u64)> + '_ {
        let mut map = self.map;
        self.words.iter().map(move |[value, mask]| {
            let index = map.trailing_zeros() as usize;
            map &= map - 1;
            (index, *value, *mask)
        })
    }

    /// Which words are looked at: bit N stands for word N.
    pub(crate) fn map(&self) -> u64 {
        self.map
    }

    /// Value and mask of the word that comes `rank`th (from 0) among those looked at.
    #[inline]
    pub(crate) fn word(&self, rank: usize) -> Option<[u64; 2]> {
        self.words.get(rank).copied()
    }

    /// Value and mask of word `index`; zeros if it is not looked at.
    #[inline]
    fn at(&self, index: usize) -> [u64; 2] {
        if self.map >> index & 1 == 0 {
            return [0, 0];
        }
        let rank = (self.map & ((1 << index) - 1)).count_ones() as usize;
        self.word(rank).unwrap_or_default()
    }

    /// The values, as a key.
    pub fn value(&self) -> FlowKey {
        let mut key = FlowKey::ZERO;
        for (i, value, _) in self.words() {
            key.0[i] = value;
        }
        key
    }

    /// The masks.
    pub fn mask(&self) -> FlowMask {
        let mut out = FlowMask::ZERO;
        for (i, _, mask) in self.words() {
            out.0[i] = mask;
        }
        out
    }

    /// Value and mask of `slot`, right-aligned.
    pub fn get(&self, slot: Slot) -> (u128, u128) {
        let word = usize::from(slot.word);
        let high = self.at(word);
        let low = if slot.bits == 128 { self.at(word + 1) } else { [0, 0] };
        let part = |which: usize| match slot.bits {
            128 => u128::from(high[which]) << 64 | u128::from(low[which]),
            _ => u128::from(high[which] >> slot.shift) & slot.max(),
        };
        (part(0), part(1))
    }

    /// Value and mask of `field`, right-aligned.
    pub fn field(&self, field: Field) -> (u128, u128) {
        self.get(field.slot())
    }

    /// Also requires the bits of `slot` that are set in `mask` to be those of `value`.
    pub fn set(&mut self, slot: Slot, value: u128, mask: u128) {
        let (mut values, mut masks) = (self.value(), self.mask());
        values.set_masked(slot, value, mask);
        let old = masks.get(slot);
        masks.set(slot, old | mask);
        *self = Self::new(&values, &masks);
    }

    /// Also requires `field` to be `value`.
    pub fn set_field(&mut self, field: Field, value: u128) {
        self.set(field.slot(), value, u128::MAX);
    }

    /// Whether the key satisfies the match.
    pub fn matches(&self, key: &FlowKey) -> bool {
        self.words().all(|(i, value, mask)| key.0[i] & mask == value)
    }

    /// Whether every packet that satisfies `self` also satisfies `other`: OpenFlow's non-strict selection.
    pub fn is_within(&self, other: &Self) -> bool {
        other.words().all(|(i, v, m)| {
            let [value, mask] = self.at(i);
            mask & m == m && value & m == v
        })
    }

    /// Whether some packet could satisfy both.
    pub fn overlaps(&self, other: &Self) -> bool {
        other.words().all(|(i, v, m)| {
            let [value, mask] = self.at(i);
            (value ^ v) & m & mask == 0
        })
    }

    /// Bytes of heap memory it holds.
    pub fn heap_size(&self) -> usize {
        size_of_val::<[[u64; 2]]>(&self.words)
    }
}

impl fmt::Debug for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Match[")?;
        for (i, value, mask) in self.words() {
            write!(f, " {i}:{value:x}/{mask:x}")?;
        }
        f.write_str(" ]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::FIELDS;

    fn port_80() -> Match {
        let mut m = Match::any();
        m.set_field(Field::EthType, 0x0800);
        m.set_field(Field::IpProto, 6);
        m.set_field(Field::TcpDst, 80);
        m
    }

    #[test]
    fn matches_only_what_it_says() {
        let m = port_80();
        let mut key = m.value();
        key.set(Field::EthSrc.slot(), 0x0200_0000_0001);
        assert!(m.matches(&key));
        key.set(Field::TcpDst.slot(), 81);
        assert!(!m.matches(&key));
        assert!(Match::any().matches(&key));
    }

    #[test]
    fn a_narrower_match_is_within_a_wider_one() {
        let mut narrow = port_80();
        narrow.set(Field::IpSrc.slot(), 0x0a00_0000, 0xff00_0000);
        assert!(narrow.is_within(&port_80()));
        assert!(!port_80().is_within(&narrow));
        assert!(port_80().overlaps(&narrow));
        let mut other = Match::any();
        other.set_field(Field::TcpDst, 81);
        assert!(!other.overlaps(&narrow));
    }

    #[test]
    fn every_field_is_read_from_the_words_as_from_the_whole_key() {
        let mut m = port_80();
        m.set(Field::Ipv6Dst.slot(), 0x2001_0db8 << 96 | 7, u128::MAX << 1);
        m.set(Field::Metadata.slot(), 5, 0xff);
        for info in FIELDS {
            assert_eq!(m.get(info.slot), (m.value().get(info.slot), m.mask().get(info.slot)), "{}", info.name);
        }
    }

    #[test]
    fn value_bits_outside_the_mask_do_not_count() {
        let (mut a, mut b) = (Match::any(), Match::any());
        a.set(Field::IpSrc.slot(), 0x0a00_0001, 0xff00_0000);
        b.set(Field::IpSrc.slot(), 0x0a00_0002, 0xff00_0000);
        assert_eq!(a, b);
        assert_eq!(a.field(Field::IpSrc), (0x0a00_0000, 0xff00_0000));
    }
}
