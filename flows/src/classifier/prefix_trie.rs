//! Which prefixes of a field the rules of a table look at, in a persistent binary tree with compressed paths.
//!
//! The classifier asks it two things about a packet's value: which lengths of prefix are worth looking up at all, and
//! how many bits of the value had to be read to know that. A subtable whose prefix length is not among the former holds
//! no rule for the packet, and the packet's mask needs no more bits than the latter.

use std::sync::Arc;

/// The prefixes of a field, each counted as often as it was inserted. Values are kept left-aligned in 128 bits.
#[derive(Clone, Debug, Default)]
pub(super) struct PrefixTrie {
    root: Link,
}

type Link = Option<Arc<Node>>;

#[derive(Clone, Debug)]
struct Node {
    /// The prefix, left-aligned; the bits behind it are 0.
    bits: u128,
    /// Its length.
    len: u8,
    /// How often it was inserted; 0 if it is only where two others part.
    count: u32,
    /// Longer prefixes, by the bit that follows this one.
    kids: [Link; 2],
}

/// What is known about a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Walk {
    /// Bit `n - 1` is set when the prefix of `n` bits of the value is there.
    lens: u128,
    /// How many bits of the value tell that no longer prefix is there.
    read: u8,
}

impl Walk {
    /// Whether the value's prefix of `len` bits, at least 1, is there.
    pub(super) fn has(self, len: u8) -> bool {
        self.lens >> (len - 1) & 1 != 0
    }

    /// How many bits of the value tell that its prefix of `len` bits is not there.
    pub(super) fn bits_to_refute(self, len: u8) -> u8 {
        self.read.min(len)
    }
}

/// The first `len` bits of a left-aligned value.
fn prefix(value: u128, len: u8) -> u128 {
    if len == 0 { 0 } else { value & u128::MAX << (128 - u32::from(len)) }
}

/// Bit `n` of a left-aligned value, counted from the left.
fn bit(value: u128, n: u8) -> usize {
    (value >> (127 - u32::from(n)) & 1) as usize
}

impl PrefixTrie {
    /// Follows a left-aligned value down the tree.
    pub(super) fn walk(&self, value: u128) -> Walk {
        let (mut lens, mut read) = (0, 0);
        let mut link = &self.root;
        while let Some(node) = link {
            let same = (value ^ node.bits).leading_zeros() as u8;
            if same < node.len {
                // The bit behind those that are the same tells them apart.
                return Walk { lens, read: same + 1 };
            }
            if node.count != 0 && node.len != 0 {
                lens |= 1 << (node.len - 1);
            }
            read = node.len;
            if node.kids.iter().all(Option::is_none) {
                break;
            }
            // Which way to go, or that there is none, takes one more bit.
            read += 1;
            link = &node.kids[bit(value, node.len)];
        }
        Walk { lens, read }
    }

    /// Counts the prefix of `len` bits, at most 128, of a left-aligned value once more.
    #[cfg(test)]
    fn insert(&mut self, value: u128, len: u8) {
        self.insert_often(value, len, 1);
    }

    /// Counts the prefix of `len` bits, at most 128, of a left-aligned value `count` times more.
    pub(super) fn insert_often(&mut self, value: u128, len: u8, count: u32) {
        let bits = prefix(value, len);
        let leaf = || Some(Arc::new(Node { bits, len, count, kids: [None, None] }));
        let mut link = &mut self.root;
        while let Some(old) = link.take() {
            let same = ((bits ^ old.bits).leading_zeros() as u8).min(len).min(old.len);
            if same < old.len {
                // They part here, or the old one lies within the new one.
                let mut node = Node { bits: prefix(bits, same), len: same, count: 0, kids: [None, None] };
                if same == len {
                    node.count = count;
                } else {
                    node.kids[bit(bits, same)] = leaf();
                }
                let side = bit(old.bits, same);
                node.kids[side] = Some(old);
                *link = Some(Arc::new(node));
                return;
            }
            let node = Arc::make_mut(link.insert(old));
            if node.len == len {
                node.count += count;
                return;
            }
            link = &mut node.kids[bit(bits, node.len)];
        }
        *link = leaf();
    }

    /// Takes back one of the times that the same was counted.
    pub(super) fn remove(&mut self, value: u128, len: u8) {
        remove(&mut self.root, prefix(value, len), len);
    }

    /// Bytes of heap memory.
    pub(super) fn heap_size(&self) -> usize {
        fn nodes(link: &Link) -> usize {
            link.as_ref().map_or(0, |n| 1 + nodes(&n.kids[0]) + nodes(&n.kids[1]))
        }
        nodes(&self.root) * (size_of::<Node>() + 2 * size_of::<usize>())
    }
}

/// Counts the prefix once less below `link`, and takes out nodes that are no longer needed. At most 129 levels deep.
fn remove(link: &mut Link, bits: u128, len: u8) {
    let Some(arc) = link else { return };
    if arc.len > len || prefix(bits, arc.len) != arc.bits {
        return;
    }
    let node = Arc::make_mut(arc);
    if node.len == len {
        node.count = node.count.saturating_sub(1);
    } else {
        remove(&mut node.kids[bit(bits, node.len)], bits, len);
    }
    if node.count == 0 && node.kids.iter().any(Option::is_none) {
        let [left, right] = &mut node.kids;
        *link = left.take().or_else(|| right.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn v4(a: u8, b: u8, c: u8, d: u8) -> u128 {
        u128::from(u32::from_be_bytes([a, b, c, d])) << 96
    }

    fn trie(prefixes: &[(u128, u8)]) -> PrefixTrie {
        let mut trie = PrefixTrie::default();
        for (value, len) in prefixes {
            trie.insert(*value, *len);
        }
        trie
    }

    #[test]
    fn the_first_bit_that_differs_is_the_last_that_is_read() {
        let trie = trie(&[(v4(10, 1, 2, 0), 24)]);
        let inside = trie.walk(v4(10, 1, 2, 9));
        assert!(inside.has(24) && !inside.has(23) && !inside.has(25));
        let outside = trie.walk(v4(192, 168, 0, 1));
        assert!(!outside.has(24));
        assert_eq!(outside.bits_to_refute(24), 1);
        assert_eq!(trie.walk(v4(10, 1, 3, 0)).bits_to_refute(24), 24);
        assert_eq!(trie.walk(v4(10, 1, 2, 9)).bits_to_refute(32), 24);
    }

    #[test]
    fn a_prefix_within_another_is_found_with_it() {
        let trie = trie(&[(v4(10, 0, 0, 0), 8), (v4(10, 1, 0, 0), 16), (v4(10, 1, 2, 3), 32)]);
        let walk = trie.walk(v4(10, 1, 2, 3));
        assert!(walk.has(8) && walk.has(16) && walk.has(32));
        let walk = trie.walk(v4(10, 2, 0, 0));
        assert!(walk.has(8) && !walk.has(16));
        assert_eq!(walk.bits_to_refute(32), 15);
    }

    #[test]
    fn an_empty_tree_needs_no_bit() {
        assert_eq!(PrefixTrie::default().walk(v4(1, 2, 3, 4)), Walk { lens: 0, read: 0 });
    }

    fn prefixes() -> impl Strategy<Value = (u128, u8)> {
        let values = prop_oneof![0..8u128, Just(u128::MAX), (0..4u128).prop_map(|v| v << 126), any::<u128>()];
        (values, prop_oneof![1..=4u8, 30..=34u8, 125..=128u8])
    }

    proptest! {
        #[test]
        fn agrees_with_a_list_of_prefixes(
            steps in vec((any::<bool>(), prefixes()), 1..100),
            values in vec(prefixes(), 1..20),
            noise in any::<u128>(),
        ) {
            let (mut trie, mut list) = (PrefixTrie::default(), Vec::new());
            for (add, (value, len)) in steps {
                if add {
                    trie.insert(value, len);
                    list.push((prefix(value, len), len));
                } else if let Some(i) = list.iter().position(|x| *x == (prefix(value, len), len)) {
                    trie.remove(value, len);
                    list.swap_remove(i);
                }
            }
            for (value, _) in values {
                let walk = trie.walk(value);
                for len in 1..=128 {
                    prop_assert_eq!(walk.has(len), list.contains(&(prefix(value, len), len)), "length {}", len);
                    if !walk.has(len) {
                        // Whatever the bits behind those read are, the prefix is not there.
                        let read = walk.bits_to_refute(len);
                        let other = prefix(value, read) | noise & !prefix(u128::MAX, read);
                        prop_assert!(!list.contains(&(prefix(other, len), len)), "length {}", len);
                    }
                }
            }
            for (value, len) in std::mem::take(&mut list) {
                trie.remove(value, len);
            }
            prop_assert_eq!(trie.heap_size(), 0);
        }
    }
}
