//! The words of a key that a mask looks at, and a keyed hash over them.
//!
//! The hash is NH, the inner hash of UMAC (RFC 4418, 5.2.1): pairs of words, each plus a secret, are multiplied and the
//! 128-bit products summed; then the sum is folded and mixed once more, so that every bit of it depends on every word.
//! The multiplications are independent, so a whole key costs little more than one of them. Without the secret, which is
//! drawn per worker, nobody can make keys collide on purpose.

use sluice_flows::key::{PACKET_WORDS, PacketKey, PacketMask};
use std::hash::{BuildHasher, RandomState};

/// Words in a secret, and the most that a lens holds: the key's, made even.
const WORDS: usize = PACKET_WORDS.next_multiple_of(2);
/// Odd and without pattern: the fractional part of the golden ratio.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// What the hash is keyed with.
#[derive(Clone, Debug)]
pub(crate) struct Secret([u64; WORDS + 1]);

impl Secret {
    /// A fresh one, from the system's randomness by way of the standard library's.
    pub(crate) fn random() -> Self {
        let state = RandomState::new();
        Self(std::array::from_fn(|i| state.hash_one(i)))
    }
}

/// The words that a mask looks at.
#[derive(Clone, Debug)]
pub(crate) struct Lens {
    /// Number of entries in use: even; a padding entry has an empty mask.
    len: u8,
    index: [u8; WORDS],
    mask: [u64; WORDS],
}

impl Lens {
    pub(crate) fn new(mask: &PacketMask) -> Self {
        let mut lens = Self { len: 0, index: [0; WORDS], mask: [0; WORDS] };
        let mut len = 0;
        for (i, word) in mask.0.iter().enumerate().filter(|(_, word)| **word != 0) {
            lens.index[len] = i as u8;
            lens.mask[len] = *word;
            len += 1;
        }
        lens.len = len.next_multiple_of(2) as u8;
        lens
    }

    /// The hash of what the lens shows of `key`.
    #[inline]
    pub(crate) fn hash(&self, key: &PacketKey, secret: &Secret) -> u64 {
        let mut sum = 0_u128;
        let len = usize::from(self.len).min(WORDS);
        let words = self.index[..len].chunks_exact(2).zip(self.mask[..len].chunks_exact(2));
        for ((index, mask), secret) in words.zip(secret.0.chunks_exact(2)) {
            let a = (key.0[usize::from(index[0])] & mask[0]).wrapping_add(secret[0]);
            let b = (key.0[usize::from(index[1])] & mask[1]).wrapping_add(secret[1]);
            sum = sum.wrapping_add(u128::from(a) * u128::from(b));
        }
        fold(u128::from(fold(sum) ^ secret.0[WORDS]) * u128::from(MIX))
    }
}

#[inline]
const fn fold(wide: u128) -> u64 {
    wide as u64 ^ (wide >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn key(words: &[(usize, u64)]) -> PacketKey {
        let mut key = PacketKey::ZERO;
        for (i, word) in words {
            key.0[*i] = *word;
        }
        key
    }

    #[test]
    fn bits_outside_the_mask_do_not_count_and_bits_inside_do() {
        let mut mask = PacketMask::ZERO;
        (mask.0[0], mask.0[4], mask.0[14]) = (u64::MAX, 0xff00, 1 << 63);
        let (lens, secret) = (Lens::new(&mask), Secret::random());
        let hash = |words: &[(usize, u64)]| lens.hash(&key(words), &secret);
        let base = hash(&[(0, 7), (4, 0x1200)]);
        assert_eq!(base, hash(&[(0, 7), (4, 0xff_12aa), (14, 5), (9, 9)]));
        assert_ne!(base, hash(&[(0, 7), (4, 0x1300)]));
        assert_ne!(base, hash(&[(0, 7), (4, 0x1200), (14, 1 << 63)]));
    }

    #[test]
    fn the_low_bits_spread_keys_that_differ_in_high_bits_only() {
        let mut mask = PacketMask::ZERO;
        mask.0[4] = 0xffff_0000_0000_0000;
        let (lens, secret) = (Lens::new(&mask), Secret::random());
        let low: HashSet<u64> = (0..4096_u64).map(|i| lens.hash(&key(&[(4, i << 52)]), &secret) & 0xffff).collect();
        assert!(low.len() > 3500, "{} of 4096 distinct", low.len());
    }

    #[test]
    fn every_word_of_a_full_mask_counts() {
        let (lens, secret) = (Lens::new(&PacketMask([u64::MAX; PACKET_WORDS])), Secret::random());
        let zero = lens.hash(&PacketKey::ZERO, &secret);
        for i in 0..PACKET_WORDS {
            assert_ne!(lens.hash(&key(&[(i, 1)]), &secret), zero, "word {i}");
        }
    }
}
