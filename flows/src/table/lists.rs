//! The distinct action lists of rules, so that rules that do the same share one list.

use crate::action::Action;
use crate::classifier::hash_trie::{HashTrie, Hashed};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Action lists, each held once however many rules have it. A clone shares all of it.
#[derive(Clone, Debug, Default)]
pub struct ActionLists {
    lists: HashTrie<Shared>,
}

#[derive(Clone, Debug)]
struct Shared {
    hash: u32,
    /// How many times it is held.
    holders: u32,
    actions: Arc<[Action]>,
}

impl Hashed for Shared {
    fn hash(&self) -> u32 {
        self.hash
    }
}

impl ActionLists {
    /// The list equal to this one that is shared: this one, if it is the first.
    pub fn hold(&mut self, actions: &Arc<[Action]>) -> Arc<[Action]> {
        let hash = hash(actions);
        let first = Shared { hash, holders: 1, actions: actions.clone() };
        match self.lists.find_or_insert(first, |s| same(&s.actions, actions)) {
            Some((shared, _)) => {
                shared.holders = shared.holders.saturating_add(1);
                shared.actions.clone()
            }
            None => actions.clone(),
        }
    }

    /// Takes back one [`hold`](Self::hold) of a list equal to this one; the last one forgets it.
    pub fn release(&mut self, actions: &Arc<[Action]>) {
        let hash = hash(actions);
        let Some(shared) = self.lists.find_mut(hash, |s| same(&s.actions, actions)) else { return };
        shared.holders -= 1;
        if shared.holders == 0 {
            self.lists.remove(hash, |s| same(&s.actions, actions));
        }
    }

    /// Bytes of memory that the lists and their index take.
    pub(super) fn heap_size(&self) -> usize {
        self.lists.heap_size() + self.lists.iter().map(|s| list_size(&s.actions)).sum::<usize>()
    }
}

/// Bytes of memory that a list takes, with its two counters.
fn list_size(actions: &[Action]) -> usize {
    let notes = actions.iter().map(|a| if let Action::Note(bytes) = a { bytes.len() } else { 0 });
    2 * size_of::<usize>() + size_of_val::<[Action]>(actions) + notes.sum::<usize>()
}

fn same(a: &Arc<[Action]>, b: &Arc<[Action]>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

fn hash(actions: &[Action]) -> u32 {
    let mut hash = WordHasher(0x243f_6a88_85a3_08d3);
    actions.hash(&mut hash);
    (hash.finish() >> 32) as u32
}

/// A fast hash of words, without a secret.
struct WordHasher(u64);

impl WordHasher {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for WordHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.add(n.into());
    }

    fn write_u16(&mut self, n: u16) {
        self.add(n.into());
    }

    fn write_u32(&mut self, n: u32) {
        self.add(n.into());
    }

    fn write_u64(&mut self, n: u64) {
        self.add(n);
    }

    fn write_usize(&mut self, n: usize) {
        self.add(n as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 29
    }
}
