//! The rules of a table that look at the very same bits, found by a hash of those bits.

use super::conjunction::is_soft;
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

/// Rules with one mask. What every lookup reads is in one piece, so that a subtable that is passed over costs little.
#[derive(Clone, Debug)]
pub(super) struct Subtable {
    shape: Shape,
    /// For each stage but the last: how many rules have which hash of the words up to its end.
    stages: SmallVec<[StageCounts; 2]>,
    rules: HashTrie<Entry>,
    /// How many rules have which priority.
    priorities: OrdMap<u16, u32>,
    /// How many rules are no soft matches.
    hard: u32,
}

/// What the mask says, laid out for lookups.
#[derive(Clone, Debug)]
struct Shape {
    /// Which words are looked at, as in a match.
    map: u64,
    /// Number of bits in the mask.
    bits: u32,
    /// The words looked at, by stage.
    words: SmallVec<[Word; 5]>,
    /// Tracked prefixes, by stage: index in [`PREFIX_SLOTS`], and length.
    prefixes: SmallVec<[(u8, u8); 4]>,
    /// The stages that have words, in order.
    stages: SmallVec<[StageEnd; 4]>,
}

#[derive(Clone, Copy, Debug)]
struct Word {
    /// Its index in the key.
    index: u8,
    /// Its place among the words of a match with this mask.
    rank: u8,
    mask: u64,
}

#[derive(Clone, Copy, Debug)]
struct StageEnd {
    /// Number of words up to the end of this stage.
    words: u8,
    /// Number of tracked prefixes up to the end of this stage.
    prefixes: u8,
}

/// A rule, with what a lookup compares before it looks at the rule.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    hash: u32,
    pub(super) priority: u16,
    /// Whether it is a soft match.
    pub(super) soft: bool,
    pub(super) rule: Arc<Rule>,
}

#[derive(Clone, Copy, Debug)]
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
        let mut words: SmallVec<[Word; 5]> = (0..)
            .zip(matches.words())
            .map(|(rank, (index, _, mask))| Word { index: index as u8, rank, mask })
            .collect();
        words.sort_by_key(|w| w.stage());
        let mask = matches.mask();
        let (mut prefixes, mut stages) = (SmallVec::new(), SmallVec::new());
        for words_of_stage in words.chunk_by(|a, b| a.stage() == b.stage()) {
            let tracked =
                (0..).zip(PREFIX_SLOTS).filter(|(_, slot)| words_of_stage[0].stage() == word_stage(slot.word));
            let tracked = tracked.map(|(i, slot)| (i, prefix_len(mask.get(slot), slot)));
            prefixes.extend(tracked.filter(|(_, len)| *len != 0));
            let before = stages.last().map_or(0, |s: &StageEnd| s.words);
            stages.push(StageEnd { words: before + words_of_stage.len() as u8, prefixes: prefixes.len() as u8 });
        }
        let bits = words.iter().map(|w| w.mask.count_ones()).sum();
        Self { map: matches.map(), bits, words, prefixes, stages }
    }

    fn mask(&self) -> FlowMask {
        let mut mask = FlowMask::ZERO;
        self.unwildcard(self.words.len(), &mut mask);
        mask
    }

    /// Each stage's words and prefixes, in order, and the number of words up to the end of the stage.
    #[inline]
    fn stages(&self) -> impl Iterator<Item = (&[Word], &[(u8, u8)], usize)> {
        let (mut words, mut prefixes) = (0, 0);
        self.stages.iter().map(move |end| {
            let (word_end, prefix_end) = (usize::from(end.words), usize::from(end.prefixes));
            let stage = (&self.words[words..word_end], &self.prefixes[prefixes..prefix_end], word_end);
            (words, prefixes) = (word_end, prefix_end);
            stage
        })
    }

    /// The hash at the end of each stage, for the values of a match with this mask.
    fn hashes(&self, matches: &Match) -> SmallVec<[u32; 4]> {
        let mut hash = RunningHash::START;
        let hashes = self.stages().map(|(words, ..)| {
            words.iter().for_each(|w| hash.add(matches.word(w.rank.into()).map_or(0, |[value, _]| value)));
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

impl Word {
    fn stage(self) -> Stage {
        word_stage(self.index)
    }

    /// What a key has in this word.
    #[inline]
    fn of(self, key: &FlowKey) -> u64 {
        key.0[usize::from(self.index)] & self.mask
    }
}

fn word_stage(index: u8) -> Stage {
    STAGE_OF_WORD[usize::from(index)]
}

/// How many rules have which hash at the end of a stage. Most stages but the last have a few hashes (an EtherType or
/// two), which are kept at hand.
#[derive(Clone, Debug)]
enum StageCounts {
    Few(SmallVec<[Count; 4]>),
    Many(HashTrie<Count>),
}

/// Most hashes that are kept at hand.
const FEW: usize = 4;

impl StageCounts {
    #[inline]
    fn has(&self, hash: u32) -> bool {
        let counts = match self {
            Self::Few(counts) => counts,
            Self::Many(counts) => counts.find(hash),
        };
        counts.iter().any(|c| c.hash == hash)
    }

    fn get_mut(&mut self, hash: u32) -> Option<&mut Count> {
        match self {
            Self::Few(counts) => counts.iter_mut().find(|c| c.hash == hash),
            Self::Many(counts) => counts.find_mut(hash, |_| true),
        }
    }

    fn add(&mut self, hash: u32) {
        if let Self::Few(few) = self {
            if let Some(count) = few.iter_mut().find(|c| c.hash == hash) {
                count.rules += 1;
                return;
            }
            if few.len() < FEW {
                few.push(Count { hash, rules: 1 });
                return;
            }
            let mut many = HashTrie::default();
            few.drain(..).for_each(|count| many.insert(count));
            *self = Self::Many(many);
        }
        if let Self::Many(many) = self
            && let Some((count, _)) = many.find_or_insert(Count { hash, rules: 1 }, |_| true)
        {
            count.rules += 1;
        }
    }

    fn subtract(&mut self, hash: u32) {
        let Some(count) = self.get_mut(hash) else { return };
        count.rules -= 1;
        if count.rules == 0 {
            match self {
                Self::Few(counts) => counts.retain(|c| c.hash != hash),
                Self::Many(counts) => drop(counts.remove(hash, |_| true)),
            }
        }
    }

    fn heap_size(&self) -> usize {
        match self {
            Self::Few(_) => 0,
            Self::Many(counts) => counts.heap_size(),
        }
    }
}

impl Subtable {
    /// A subtable without rules for matches with the mask of this one.
    pub(super) fn new(matches: &Match) -> Self {
        let shape = Shape::new(matches);
        let stages = shape.stages.iter().skip(1).map(|_| StageCounts::Few(SmallVec::new())).collect();
        Self { shape, stages, rules: HashTrie::default(), priorities: OrdMap::new(), hard: 0 }
    }

    /// Whether the match has this subtable's mask.
    pub(super) fn fits(&self, matches: &Match) -> bool {
        let same = |w: &Word| matches.word(w.rank.into()).is_some_and(|[_, mask]| mask == w.mask);
        matches.map() == self.shape.map && self.shape.words.iter().all(same)
    }

    /// Whether matches with this subtable's mask can be within this match.
    pub(super) fn may_be_within(&self, matches: &Match) -> bool {
        let own = self.shape.mask();
        matches.words().all(|(i, _, mask)| own.0[i] & mask == mask)
    }

    /// The order of [`precedence`](super::precedence) among rules of one priority.
    pub(super) fn cmp_specificity(&self, other: &Self) -> Ordering {
        let order = self.shape.bits.cmp(&other.shape.bits);
        order.then_with(|| self.shape.mask().0.cmp(&other.shape.mask().0))
    }

    /// The highest priority of a rule.
    pub(super) fn max_priority(&self) -> Option<u16> {
        self.priorities.get_max().map(|(priority, _)| *priority)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.priorities.is_empty()
    }

    /// Whether every rule is a soft match.
    #[inline]
    pub(super) fn is_all_soft(&self) -> bool {
        self.hard == 0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules.iter().map(|e| &e.rule)
    }

    /// The tracked prefixes: index in [`PREFIX_SLOTS`], and length.
    pub(super) fn prefixes(&self) -> &[(u8, u8)] {
        &self.shape.prefixes
    }

    /// Calls `hit` with every rule that matches `key`. Adds to `mask` bits that prove the answer.
    #[inline]
    pub(super) fn lookup<'a>(
        &'a self,
        key: &FlowKey,
        walks: &mut Walks<'_>,
        mask: &mut FlowMask,
        mut hit: impl FnMut(&'a Entry),
    ) {
        if let Some(entry) = self.rules.single() {
            if self.single_matches(&entry.rule.spec.matches, key, walks, mask) {
                hit(entry);
            }
            return;
        }
        let mut hash = RunningHash::START;
        let mut counts = self.stages.iter();
        for (words, prefixes, end) in self.shape.stages() {
            if walks.refute(prefixes, mask) {
                return;
            }
            words.iter().for_each(|w| hash.add(w.of(key)));
            if counts.next().is_some_and(|counts| !counts.has(hash.finish())) {
                self.shape.unwildcard(end, mask);
                return;
            }
        }
        self.shape.unwildcard(self.shape.words.len(), mask);
        let hash = hash.finish();
        let found = self.rules.find(hash).iter();
        found.filter(|e| e.hash == hash && e.rule.spec.matches.matches(key)).for_each(hit);
    }

    /// Whether the only rule matches: compared word by word, a word that differs is proof enough.
    fn single_matches(&self, matches: &Match, key: &FlowKey, walks: &mut Walks<'_>, mask: &mut FlowMask) -> bool {
        for (words, prefixes, _) in self.shape.stages() {
            if walks.refute(prefixes, mask) {
                return false;
            }
            let differs = |w: &&Word| matches.word(w.rank.into()).is_none_or(|[value, _]| value != w.of(key));
            if let Some(word) = words.iter().find(differs) {
                mask.0[usize::from(word.index)] |= word.mask;
                return false;
            }
        }
        self.shape.unwildcard(self.shape.words.len(), mask);
        true
    }

    /// The rule with this priority and this match, which must fit.
    pub(super) fn get(&self, priority: u16, matches: &Match) -> Option<&Arc<Rule>> {
        let hash = self.hash(&self.shape.hashes(matches));
        let mut found = self.rules.find(hash).iter();
        found.find(|e| e.hash == hash && is_rule(e, priority, matches)).map(|e| &e.rule)
    }

    /// Adds a rule that fits; one with the same priority and match is replaced and returned.
    pub(super) fn insert(&mut self, rule: Arc<Rule>) -> Option<Arc<Rule>> {
        let (priority, soft) = (rule.spec.priority, is_soft(&rule.spec.actions));
        let hashes = self.shape.hashes(&rule.spec.matches);
        let hash = self.hash(&hashes);
        self.hard += u32::from(!soft);
        let new = rule.clone();
        let same = |e: &Entry| is_rule(e, priority, &new.spec.matches);
        if let Some((entry, rule)) = self.rules.find_or_insert(Entry { hash, priority, soft, rule }, same) {
            let old = std::mem::replace(entry, rule);
            self.hard -= u32::from(!old.soft);
            return Some(old.rule);
        }
        self.stages.iter_mut().zip(&hashes).for_each(|(counts, hash)| counts.add(*hash));
        *self.priorities.entry(priority).or_insert(0) += 1;
        None
    }

    /// Removes the rule with this priority and this match, which must fit.
    pub(super) fn remove(&mut self, priority: u16, matches: &Match) -> Option<Arc<Rule>> {
        let hashes = self.shape.hashes(matches);
        let entry = self.rules.remove(self.hash(&hashes), |e| is_rule(e, priority, matches))?;
        self.hard -= u32::from(!entry.soft);
        self.stages.iter_mut().zip(&hashes).for_each(|(counts, hash)| counts.subtract(*hash));
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
        let stages: usize = self.stages.iter().map(StageCounts::heap_size).sum();
        stages + self.rules.heap_size() + priorities
    }
}

fn is_rule(entry: &Entry, priority: u16, matches: &Match) -> bool {
    entry.priority == priority && entry.rule.spec.matches == *matches
}
