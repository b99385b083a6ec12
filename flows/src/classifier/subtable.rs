//! The rules of a table that look at the very same bits, found by a hash of those bits.

use super::hash_trie::{HashTrie, Hashed};
use super::prefixes::{PREFIX_SLOTS, Walks, prefix_len};
use crate::field::{FIELDS, Stage};
use crate::key::{FlowKey, FlowMask, KEY_WORDS};
use crate::matching::Match;
use crate::rule::Rule;
use imbl::OrdMap;
use smallvec::SmallVec;
use std::cmp::Ordering;
use std::sync::{Arc, LazyLock};

/// Rules with one mask.
#[derive(Clone, Debug)]
pub(super) struct Subtable {
    shape: Arc<Shape>,
    /// For each stage but the last: how many rules have which hash of the words up to its end.
    stages: SmallVec<[HashTrie<Count>; 2]>,
    rules: HashTrie<Entry>,
    /// How many rules have which priority.
    priorities: OrdMap<u16, u32>,
}

/// What the mask says, laid out for lookups.
#[derive(Debug)]
struct Shape {
    mask: FlowMask,
    /// Number of bits in the mask.
    bits: u32,
    /// The words looked at, by stage.
    words: Box<[Word]>,
    /// The stages that have words, in order.
    stages: SmallVec<[StageEnd; 2]>,
}

#[derive(Debug)]
struct Word {
    /// Its index in the key.
    index: u8,
    /// Its place among the words of a match with this mask.
    rank: u8,
    mask: u64,
}

#[derive(Debug)]
struct StageEnd {
    /// Number of words up to the end of this stage.
    end: usize,
    /// Fields of this stage whose prefixes are tracked: index in [`PREFIX_SLOTS`], and length of the prefix.
    prefixes: SmallVec<[(u8, u8); 2]>,
}

#[derive(Clone, Debug)]
struct Entry {
    hash: u32,
    /// The rule's priority, so that comparing it needs no look at the rule.
    priority: u16,
    rule: Arc<Rule>,
}

#[derive(Clone, Debug)]
struct Count {
    hash: u32,
    rules: u32,
}

impl Hashed for Entry {
    fn hash(&self) -> u32 {
        self.hash
    }
}

impl Hashed for Count {
    fn hash(&self) -> u32 {
        self.hash
    }
}

/// A hash that grows word by word, so that each stage goes on from the one before.
#[derive(Clone, Copy)]
struct RunningHash(u64);

impl RunningHash {
    const START: Self = Self(0x243f_6a88_85a3_08d3);

    #[inline]
    fn add(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * 0x9e37_79b9_7f4a_7c15_u128;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    #[inline]
    fn finish(self) -> u32 {
        (self.0 >> 32) as u32 ^ self.0 as u32
    }
}

/// The stage that each word of the key belongs to: the last of those that its fields belong to, because the earlier
/// stages exist to spare the bits of the later ones.
static STAGE_OF_WORD: LazyLock<[Stage; KEY_WORDS]> = LazyLock::new(|| {
    let mut stages = [None; KEY_WORDS];
    for info in FIELDS {
        let first = usize::from(info.slot.word);
        for stage in &mut stages[first..=first + usize::from(info.slot.bits == 128)] {
            *stage = (*stage).max(Some(info.stage));
        }
    }
    stages.map(|stage| stage.unwrap_or(Stage::L4))
});

impl Shape {
    fn new(matches: &Match) -> Self {
        let mut words: Vec<_> = (0..).zip(matches.words()).collect();
        words.sort_by_key(|(_, (index, ..))| STAGE_OF_WORD[*index]);
        let mask = matches.mask();
        let mut stages = SmallVec::<[StageEnd; 2]>::new();
        for (end, (_, (index, ..))) in words.iter().enumerate() {
            let stage = STAGE_OF_WORD[*index];
            if end == 0 || STAGE_OF_WORD[words[end - 1].1.0] != stage {
                let tracked = (0..).zip(PREFIX_SLOTS).filter(|(_, s)| STAGE_OF_WORD[usize::from(s.word)] == stage);
                let prefixes = tracked.map(|(i, slot)| (i, prefix_len(mask.get(slot), slot)));
                stages.push(StageEnd { end: 0, prefixes: prefixes.filter(|(_, len)| *len != 0).collect() });
            }
            if let Some(stage) = stages.last_mut() {
                stage.end = end + 1;
            }
        }
        let word = |(rank, (index, _, mask)): (u8, (usize, u64, u64))| Word { index: index as u8, rank, mask };
        Self {
            mask,
            bits: mask.0.iter().map(|m| m.count_ones()).sum(),
            words: words.into_iter().map(word).collect(),
            stages,
        }
    }

    /// The hash at the end of each stage, for a key or the values of a match.
    fn hashes(&self, values: &FlowKey) -> SmallVec<[u32; 4]> {
        let mut hash = RunningHash::START;
        let mut start = 0;
        let hashes = self.stages.iter().map(|stage| {
            for word in &self.words[start..stage.end] {
                hash.add(values.0[usize::from(word.index)] & word.mask);
            }
            start = stage.end;
            hash.finish()
        });
        hashes.collect()
    }

    /// Adds the first `words` words of the mask to `mask`.
    #[inline]
    fn unwildcard(&self, words: usize, mask: &mut FlowMask) {
        for word in &self.words[..words] {
            mask.0[usize::from(word.index)] |= word.mask;
        }
    }
}

impl Subtable {
    /// A subtable without rules for matches with the mask of this one.
    pub(super) fn new(matches: &Match) -> Self {
        let shape = Shape::new(matches);
        let stages = shape.stages.iter().skip(1).map(|_| HashTrie::default()).collect();
        Self { shape: Arc::new(shape), stages, rules: HashTrie::default(), priorities: OrdMap::new() }
    }

    /// Whether the match has this subtable's mask.
    pub(super) fn fits(&self, matches: &Match) -> bool {
        matches.mask() == self.shape.mask
    }

    /// Whether matches with this subtable's mask can be within this match.
    pub(super) fn may_be_within(&self, matches: &Match) -> bool {
        matches.words().all(|(i, _, mask)| self.shape.mask.0[i] & mask == mask)
    }

    /// The order of [`precedence`](super::precedence) among rules of one priority.
    pub(super) fn cmp_specificity(&self, other: &Self) -> Ordering {
        let order = self.shape.bits.cmp(&other.shape.bits);
        order.then_with(|| self.shape.mask.0.cmp(&other.shape.mask.0))
    }

    /// The highest priority of a rule.
    pub(super) fn max_priority(&self) -> Option<u16> {
        self.priorities.get_max().map(|(priority, _)| *priority)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.priorities.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules.iter().map(|e| &e.rule)
    }

    /// The tracked prefixes: index in [`PREFIX_SLOTS`], and length.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = (u8, u8)> + '_ {
        self.shape.stages.iter().flat_map(|s| s.prefixes.iter().copied())
    }

    /// The rule of highest priority that matches `key`. Adds to `mask` bits that prove the answer.
    #[inline]
    pub(super) fn lookup(&self, key: &FlowKey, walks: &mut Walks<'_>, mask: &mut FlowMask) -> Option<&Arc<Rule>> {
        if let Some(entry) = self.rules.single() {
            return self.lookup_single(&entry.rule, key, walks, mask);
        }
        let shape = &*self.shape;
        let mut hash = RunningHash::START;
        let mut start = 0;
        for (i, stage) in shape.stages.iter().enumerate() {
            if walks.refute(&stage.prefixes, mask) {
                return None;
            }
            for word in &shape.words[start..stage.end] {
                hash.add(key.0[usize::from(word.index)] & word.mask);
            }
            start = stage.end;
            if let Some(counts) = self.stages.get(i) {
                let hash = hash.finish();
                if !counts.find(hash).iter().any(|c| c.hash == hash) {
                    shape.unwildcard(stage.end, mask);
                    return None;
                }
            }
        }
        shape.unwildcard(shape.words.len(), mask);
        let hash = hash.finish();
        let found = self.rules.find(hash).iter().filter(|e| e.hash == hash && e.rule.spec.matches.matches(key));
        found.max_by_key(|e| e.priority).map(|e| &e.rule)
    }

    /// As [`lookup`](Self::lookup) when there is one rule: compared word by word, a word that differs is proof enough.
    fn lookup_single<'a>(
        &self,
        rule: &'a Arc<Rule>,
        key: &FlowKey,
        walks: &mut Walks<'_>,
        mask: &mut FlowMask,
    ) -> Option<&'a Arc<Rule>> {
        let shape = &*self.shape;
        let mut start = 0;
        for stage in &shape.stages {
            if walks.refute(&stage.prefixes, mask) {
                return None;
            }
            for word in &shape.words[start..stage.end] {
                let index = usize::from(word.index);
                if rule.spec.matches.word_value(word.rank.into()) != Some(key.0[index] & word.mask) {
                    mask.0[index] |= word.mask;
                    return None;
                }
            }
            start = stage.end;
        }
        shape.unwildcard(shape.words.len(), mask);
        Some(rule)
    }

    /// The rule with this priority and this match, which must fit.
    pub(super) fn get(&self, priority: u16, matches: &Match) -> Option<&Arc<Rule>> {
        let hash = self.hash(&self.shape.hashes(&matches.value()));
        let mut found = self.rules.find(hash).iter();
        found.find(|e| e.hash == hash && is_rule(e, priority, matches)).map(|e| &e.rule)
    }

    /// Adds a rule that fits; one with the same priority and match is replaced and returned.
    pub(super) fn insert(&mut self, rule: Arc<Rule>) -> Option<Arc<Rule>> {
        let priority = rule.spec.priority;
        let hashes = self.shape.hashes(&rule.spec.matches.value());
        let hash = self.hash(&hashes);
        let same = |e: &Entry| is_rule(e, priority, &rule.spec.matches);
        if let Some(entry) = self.rules.find_mut(hash, same) {
            return Some(std::mem::replace(&mut entry.rule, rule));
        }
        self.rules.insert(Entry { hash, priority, rule });
        for (counts, &hash) in self.stages.iter_mut().zip(&hashes) {
            match counts.find_mut(hash, |_| true) {
                Some(count) => count.rules += 1,
                None => counts.insert(Count { hash, rules: 1 }),
            }
        }
        *self.priorities.entry(priority).or_insert(0) += 1;
        None
    }

    /// Removes the rule with this priority and this match, which must fit.
    pub(super) fn remove(&mut self, priority: u16, matches: &Match) -> Option<Arc<Rule>> {
        let hashes = self.shape.hashes(&matches.value());
        let entry = self.rules.remove(self.hash(&hashes), |e| is_rule(e, priority, matches))?;
        for (counts, &hash) in self.stages.iter_mut().zip(&hashes) {
            if let Some(count) = counts.find_mut(hash, |_| true) {
                count.rules -= 1;
                if count.rules == 0 {
                    counts.remove(hash, |_| true);
                }
            }
        }
        if let Some(rules) = self.priorities.get_mut(&priority) {
            *rules -= 1;
            if *rules == 0 {
                self.priorities.remove(&priority);
            }
        }
        Some(entry.rule)
    }

    /// The hash of the last stage; that of a match without words is the hash of nothing.
    fn hash(&self, hashes: &[u32]) -> u32 {
        hashes.last().copied().unwrap_or(RunningHash::START.finish())
    }

    /// Bytes of heap memory, rules not included.
    pub(super) fn heap_size(&self) -> usize {
        let priorities = self.priorities.len() * (size_of::<(u16, u32)>() + size_of::<(u16, u32)>() / 2);
        let stages: usize = self.stages.iter().map(HashTrie::heap_size).sum();
        size_of::<Shape>() + size_of_val::<[Word]>(&self.shape.words) + stages + self.rules.heap_size() + priorities
    }
}

fn is_rule(entry: &Entry, priority: u16, matches: &Match) -> bool {
    entry.priority == priority && entry.rule.spec.matches == *matches
}
