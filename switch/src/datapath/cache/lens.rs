//! The words of a key that a mask looks at, and a keyed hash over them.
//!
//! The hash is NH, the inner hash of UMAC (RFC 4418, 5.2.1): pairs of words, each plus a secret, are multiplied and the
//! 128-bit products summed; then the sum is folded and mixed once more, so that every bit of it depends on every word.
//! The multiplications are independent, so a whole key costs little more than one of them. Without the secret, which is
//! drawn per worker, nobody can make keys collide on purpose.

use sluice_flows::key::{FlowKey, FlowMask, KEY_WORDS, PacketKey, PacketMask};
use std::hash::{BuildHasher, RandomState};

/// Words in a secret, and the most that a lens holds: the longest key's, made even.
const WORDS: usize = KEY_WORDS.next_multiple_of(2);
/// Words of a view that are kept where a hit looks first: enough for IPv4 and most of IPv6.
pub(crate) const INLINE: usize = 10;
/// Odd and without pattern: the fractional part of the golden ratio.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// A key that lenses look at, or a mask.
pub(crate) trait Words: Copy + PartialEq {
    /// All zero.
    const ZERO: Self;

    /// Its words, [`KEY_WORDS`] at most.
    fn words(&self) -> &[u64];

    /// The same, to be changed.
    fn words_mut(&mut self) -> &mut [u64];
}

macro_rules! words {
    ($($name:ident),+) => {
        $(impl Words for $name {
            const ZERO: Self = Self::ZERO;

            #[inline(always)]
            fn words(&self) -> &[u64] {
                &self.0
            }

            #[inline(always)]
            fn words_mut(&mut self) -> &mut [u64] {
                &mut self.0
            }
        })+
    };
}

words!(PacketKey, PacketMask, FlowKey, FlowMask);

/// A key that a cache compares.
pub(crate) trait Key: Words {
    /// The bits of it that matter.
    type Mask: Words;
}

impl Key for PacketKey {
    type Mask = PacketMask;
}

impl Key for FlowKey {
    type Mask = FlowMask;
}

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

/// What a lens shows of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) first: [u64; INLINE],
    /// What does not fit in there; most lenses are narrower.
    pub(crate) rest: Box<[u64]>,
}

/// The words that a mask looks at.
#[derive(Clone, Debug)]
pub(crate) struct Lens {
    /// Number of words looked at.
    count: u8,
    /// The same made even: the word more is the first again.
    len: u8,
    index: [u8; WORDS],
    mask: [u64; WORDS],
}

impl Lens {
    pub(crate) fn new(mask: &impl Words) -> Self {
        let mut lens = Self { count: 0, len: 0, index: [0; WORDS], mask: [0; WORDS] };
        let mut len = 0;
        for (i, word) in mask.words().iter().enumerate().filter(|(_, word)| **word != 0) {
            lens.index[len] = i as u8;
            lens.mask[len] = *word;
            len += 1;
        }
        lens.count = len as u8;
        if len % 2 == 1 {
            lens.index[len] = lens.index[0];
            lens.mask[len] = lens.mask[0];
            len += 1;
        }
        lens.len = len as u8;
        lens
    }

    /// What the lens shows of `key`: a word for each word it looks at, then zeros.
    pub(crate) fn view(&self, key: &impl Words) -> View {
        let shown = || self.words().map(|(word, mask)| key.words()[word] & mask);
        let mut first = [0; INLINE];
        for (place, word) in first.iter_mut().zip(shown()) {
            *place = word;
        }
        View { first, rest: shown().skip(INLINE).collect() }
    }

    /// The key of which the lens shows these words, the rest zero.
    pub(crate) fn key<K: Words>(&self, first: &[u64; INLINE], rest: &[u64]) -> K {
        let mut key = K::ZERO;
        for ((word, _), shown) in self.words().zip(first.iter().chain(rest)) {
            key.words_mut()[word] = *shown;
        }
        key
    }

    /// Whether the lens shows of `key` the first words of `view`, as many as [`INLINE`].
    #[inline]
    pub(crate) fn shows_first(&self, key: &impl Words, first: &[u64; INLINE]) -> bool {
        let mut differs = 0;
        for ((index, mask), word) in self.words().zip(first) {
            differs |= key.words()[index] & mask ^ word;
        }
        differs == 0
    }

    /// Whether the lens looks at more words than [`INLINE`].
    #[inline]
    pub(crate) fn is_wide(&self) -> bool {
        usize::from(self.count) > INLINE
    }

    /// Whether the lens shows of `key` the words of `view` behind the first.
    pub(crate) fn shows_rest(&self, key: &impl Words, rest: &[u64]) -> bool {
        self.words().skip(INLINE).zip(rest).all(|((index, mask), word)| key.words()[index] & mask == *word)
    }

    /// Index and mask of each word.
    #[inline]
    fn words(&self) -> impl Iterator<Item = (usize, u64)> {
        let count = usize::from(self.count).min(WORDS);
        self.index[..count].iter().zip(&self.mask[..count]).map(|(index, mask)| (usize::from(*index), *mask))
    }

    /// The hash of what the lens shows of `key`.
    #[inline]
    pub(crate) fn hash(&self, key: &impl Words, secret: &Secret) -> u64 {
        let key = key.words();
        let mut sum = 0_u128;
        let len = usize::from(self.len).min(WORDS);
        let words = self.index[..len].chunks_exact(2).zip(self.mask[..len].chunks_exact(2));
        for ((index, mask), secret) in words.zip(secret.0.chunks_exact(2)) {
            let a = (key[usize::from(index[0])] & mask[0]).wrapping_add(secret[0]);
            let b = (key[usize::from(index[1])] & mask[1]).wrapping_add(secret[1]);
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
    use sluice_flows::key::PACKET_WORDS;
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
    fn a_key_is_shown_if_it_agrees_in_every_word() {
        let every: Vec<usize> = (0..PACKET_WORDS).collect();
        for words in [&[0, 4, 14][..], &[0, 4], &every] {
            let mut mask = PacketMask::ZERO;
            words.iter().for_each(|i| mask.0[*i] = 0xff00);
            let lens = Lens::new(&mask);
            let base = key(&[(0, 0x1234), (4, 0x5678), (14, 0x9abc)]);
            let view = lens.view(&base);
            let shows = |key: &PacketKey| lens.shows_first(key, &view.first) && lens.shows_rest(key, &view.rest);
            assert!(shows(&base));
            assert_eq!(lens.is_wide(), words.len() > INLINE);
            for i in 0..PACKET_WORDS {
                let mut other = base;
                other.0[i] ^= 1;
                assert!(shows(&other), "a bit outside, word {i}");
                other.0[i] ^= 1 << 8;
                assert_eq!(shows(&other), !words.contains(&i), "a bit of word {i}");
            }
        }
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
