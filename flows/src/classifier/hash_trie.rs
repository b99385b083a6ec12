//! A persistent hash table: items found by a 32-bit hash, in a tree of eight-way branches over small leaves.
//!
//! A clone is one pointer. A change copies the branches and the one leaf on the way to the item, or nothing when no
//! clone holds them. Leaves of up to [`LEAF_MAX`] items keep the overhead near 8 bytes an item, and a table of a few
//! items is one leaf that is scanned.
//!
//! Several items may have one hash. Who looks an item up compares it; the table only narrows down where it can be.

use std::sync::Arc;

/// Something that knows its hash, and always gives the same.
pub(crate) trait Hashed {
    /// The hash.
    fn hash(&self) -> u32;
}

/// Most items in a leaf, as long as their hashes differ.
const LEAF_MAX: usize = 64;
/// A branch whose leaves hold this few items in all becomes a leaf again.
const MERGE_MAX: usize = LEAF_MAX / 4;
/// Bits of the hash that a branch uses.
const BITS: u32 = 3;
/// Children of a branch.
const FANOUT: usize = 1 << BITS;
/// Room that a full leaf grows by: small, because there are many leaves.
const GROWTH: usize = 4;

/// The table.
#[derive(Clone, Debug)]
pub(crate) struct HashTrie<T> {
    root: Node<T>,
}

#[derive(Clone, Debug)]
enum Node<T> {
    Empty,
    Leaf(Arc<Vec<T>>),
    Branch(Arc<[Node<T>; FANOUT]>),
}

impl<T> Default for HashTrie<T> {
    fn default() -> Self {
        Self { root: Node::Empty }
    }
}

impl<T> HashTrie<T> {
    /// A few items, among them all those with this hash.
    #[inline]
    pub(crate) fn find(&self, hash: u32) -> &[T] {
        let mut node = &self.root;
        let mut rest = hash;
        loop {
            match node {
                Node::Empty => return &[],
                Node::Leaf(items) => return items,
                Node::Branch(kids) => {
                    node = &kids[child(rest)];
                    rest >>= BITS;
                }
            }
        }
    }

    /// The item, if there is only one.
    #[inline]
    pub(crate) fn single(&self) -> Option<&T> {
        match &self.root {
            Node::Leaf(items) if items.len() == 1 => items.first(),
            _ => None,
        }
    }

    /// Whether there are no items.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // A branch never outlives its items: it becomes a leaf, and that nothing.
        matches!(self.root, Node::Empty)
    }

    /// Every item, in no particular order.
    pub(crate) fn iter(&self) -> Iter<'_, T> {
        Iter { leaf: [].iter(), nodes: vec![&self.root] }
    }

    /// Bytes of heap memory, not counting what items point to.
    pub(crate) fn heap_size(&self) -> usize {
        self.root.heap_size()
    }
}

impl<T: Hashed + Clone> HashTrie<T> {
    /// The item with this hash for which `is_it` holds, to be changed in place; its hash must stay.
    pub(crate) fn find_mut(&mut self, hash: u32, is_it: impl Fn(&T) -> bool) -> Option<&mut T> {
        // Looked for first, so that nothing is copied for an item that is not there.
        let index = self.position(hash, &is_it)?;
        let mut node = &mut self.root;
        let mut rest = hash;
        loop {
            match node {
                Node::Empty => return None,
                Node::Leaf(items) => return Arc::make_mut(items).get_mut(index),
                Node::Branch(kids) => {
                    node = &mut Arc::make_mut(kids)[child(rest)];
                    rest >>= BITS;
                }
            }
        }
    }

    /// Adds an item, besides those with its hash that are there.
    pub(crate) fn insert(&mut self, item: T) {
        let hash = item.hash();
        let (mut node, mut depth) = (&mut self.root, 0);
        while let Node::Branch(kids) = node {
            node = &mut Arc::make_mut(kids)[child(hash >> depth)];
            depth += BITS;
        }
        node.add(item, depth);
    }

    /// The item with the hash of `item` for which `is_it` holds, to be changed in place, and `item` back; if there is
    /// none, adds `item`.
    pub(crate) fn find_or_insert(&mut self, item: T, is_it: impl Fn(&T) -> bool) -> Option<(&mut T, T)> {
        let hash = item.hash();
        let (mut node, mut depth) = (&mut self.root, 0);
        while let Node::Branch(kids) = node {
            node = &mut Arc::make_mut(kids)[child(hash >> depth)];
            depth += BITS;
        }
        let found = match node {
            Node::Leaf(items) => items.iter().position(|item| item.hash() == hash && is_it(item)),
            _ => None,
        };
        match (found, node) {
            (Some(index), Node::Leaf(items)) => Arc::make_mut(items).get_mut(index).map(|found| (found, item)),
            (_, node) => {
                node.add(item, depth);
                None
            }
        }
    }

    /// Removes the item with this hash for which `is_it` holds.
    pub(crate) fn remove(&mut self, hash: u32, is_it: impl Fn(&T) -> bool) -> Option<T> {
        let index = self.position(hash, &is_it)?;
        self.root.remove(hash, index)
    }

    fn position(&self, hash: u32, is_it: &impl Fn(&T) -> bool) -> Option<usize> {
        self.find(hash).iter().position(|item| item.hash() == hash && is_it(item))
    }
}

/// The child of a branch that the lowest bits of `rest` choose.
#[inline]
fn child(rest: u32) -> usize {
    rest as usize % FANOUT
}

impl<T> Node<T> {
    fn heap_size(&self) -> usize {
        // Two counters stand before what an Arc holds.
        const COUNTERS: usize = 2 * size_of::<usize>();
        match self {
            Self::Empty => 0,
            Self::Leaf(items) => COUNTERS + size_of::<Vec<T>>() + items.capacity() * size_of::<T>(),
            Self::Branch(kids) => {
                COUNTERS + size_of_val::<[Self]>(&**kids) + kids.iter().map(Self::heap_size).sum::<usize>()
            }
        }
    }

    /// Number of items, if this is no branch.
    fn leaf_len(&self) -> Option<usize> {
        match self {
            Self::Empty => Some(0),
            Self::Leaf(items) => Some(items.len()),
            Self::Branch(_) => None,
        }
    }
}

impl<T: Hashed + Clone> Node<T> {
    /// Adds an item to a leaf that `depth` bits of the hash led to.
    fn add(&mut self, item: T, depth: u32) {
        let Self::Leaf(items) = self else {
            *self = Self::Leaf(Arc::new(vec![item]));
            return;
        };
        // Below the last level all hashes are equal, and a leaf takes whatever comes.
        if items.len() < LEAF_MAX || depth >= u32::BITS {
            let items = Arc::make_mut(items);
            if items.len() == items.capacity() {
                items.reserve_exact(GROWTH);
            }
            items.push(item);
            return;
        }
        let mut kids = [const { Self::Empty }; FANOUT];
        for item in items.iter().cloned().chain([item]) {
            kids[child(item.hash() >> depth)].add(item, depth + BITS);
        }
        *self = Self::Branch(Arc::new(kids));
    }

    /// Removes item `index` of the leaf that `rest` leads to.
    fn remove(&mut self, rest: u32, index: usize) -> Option<T> {
        match self {
            Self::Empty => None,
            Self::Leaf(items) => {
                let items = Arc::make_mut(items);
                let item = (index < items.len()).then(|| items.swap_remove(index));
                if items.is_empty() {
                    *self = Self::Empty;
                }
                item
            }
            Self::Branch(kids) => {
                let kids = Arc::make_mut(kids);
                let kid = &mut kids[child(rest)];
                let item = kid.remove(rest >> BITS, index);
                if kid.leaf_len().is_some_and(|len| len <= 1) {
                    self.merge();
                }
                item
            }
        }
    }

    /// Makes a branch of few items a leaf again.
    fn merge(&mut self) {
        let Self::Branch(kids) = self else { return };
        let Some(len) = kids.iter().map(Self::leaf_len).sum::<Option<usize>>() else { return };
        if len > MERGE_MAX {
            return;
        }
        let mut all = Vec::with_capacity(len);
        for kid in kids.iter() {
            if let Self::Leaf(items) = kid {
                all.extend(items.iter().cloned());
            }
        }
        *self = if all.is_empty() { Self::Empty } else { Self::Leaf(Arc::new(all)) };
    }
}

/// Every item of a [`HashTrie`].
pub(crate) struct Iter<'a, T> {
    leaf: std::slice::Iter<'a, T>,
    nodes: Vec<&'a Node<T>>,
}

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        loop {
            if let Some(item) = self.leaf.next() {
                return Some(item);
            }
            match self.nodes.pop()? {
                Node::Empty => {}
                Node::Leaf(items) => self.leaf = items.iter(),
                Node::Branch(kids) => self.nodes.extend(kids.iter()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    struct Item(u32, u8);

    impl Hashed for Item {
        fn hash(&self) -> u32 {
            self.0
        }
    }

    fn sorted(trie: &HashTrie<Item>) -> Vec<Item> {
        let mut all: Vec<_> = trie.iter().copied().collect();
        all.sort();
        all
    }

    /// Hashes that share long runs of low bits, as well as ones that do not.
    fn hashes() -> impl Strategy<Value = u32> {
        prop_oneof![0..200u32, (0..64u32).prop_map(|h| h << 26), Just(7), any::<u32>()]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]

        #[test]
        fn behaves_as_a_vector_does(steps in vec((any::<bool>(), hashes(), 0..3u8), 0..400)) {
            let (mut trie, mut list) = (HashTrie::default(), Vec::new());
            let mut snapshots = Vec::new();
            for (i, (add, hash, tag)) in steps.into_iter().enumerate() {
                let item = Item(hash, tag);
                if add && hash % 2 == 0 && list.contains(&item) {
                    prop_assert_eq!(trie.find_or_insert(item, |x| *x == item), Some((&mut item.clone(), item)));
                } else if add && hash % 2 == 0 {
                    prop_assert_eq!(trie.find_or_insert(item, |x| *x == item), None);
                    list.push(item);
                } else if add {
                    trie.insert(item);
                    list.push(item);
                } else {
                    let index = list.iter().position(|x| *x == item);
                    prop_assert_eq!(trie.remove(hash, |x| *x == item), index.map(|i| list.swap_remove(i)));
                }
                prop_assert_eq!(trie.find(hash).contains(&item), list.contains(&item));
                if i % 50 == 0 {
                    let mut list = list.clone();
                    list.sort();
                    snapshots.push((trie.clone(), list));
                }
            }
            list.sort();
            prop_assert_eq!(sorted(&trie), list);
            for (trie, list) in snapshots {
                prop_assert_eq!(sorted(&trie), list);
            }
        }
    }

    #[test]
    fn shrinks_to_nothing_when_everything_is_removed() {
        let mut trie = HashTrie::default();
        let hash = |i: u32| i.wrapping_mul(0x9e37_79b9);
        for i in 0..1000 {
            trie.insert(Item(hash(i), 0));
        }
        assert!(trie.heap_size() < 1000 * (size_of::<Item>() + 16));
        for i in 0..999 {
            assert!(trie.remove(hash(i), |_| true).is_some());
        }
        assert_eq!(trie.single(), Some(&Item(hash(999), 0)));
        assert!(trie.remove(hash(999), |_| true).is_some());
        assert_eq!(trie.heap_size(), 0);
    }

    #[test]
    fn items_of_one_hash_stay_together_however_many() {
        let mut trie = HashTrie::default();
        for tag in 0..200 {
            trie.insert(Item(42, tag));
        }
        assert_eq!(trie.find(42).len(), 200);
        trie.find_mut(42, |x| x.1 == 9).unwrap().1 = 250;
        assert!(trie.remove(42, |x| x.1 == 9).is_none());
        assert!(trie.remove(42, |x| x.1 == 250).is_some());
    }
}
