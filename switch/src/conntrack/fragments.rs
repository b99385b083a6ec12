//! Fragments that wait until their datagram is whole.
//!
//! A transport header is in the first fragment only, and its checksum covers all of them, so no fragment can be tracked
//! alone. One that meets `ct` is put away; the one that completes the datagram takes the others out again. The whole is
//! tracked once, in a copy, and the fragments go on as they came, in the order of their arrival, with what was said of
//! the whole: its addresses in each, its ports where they are (OVS's `lib/ipf.c` does the same).
//!
//! # Rules
//! - Fragments of one datagram are those of one zone with the same addresses, identification and, in IPv4, protocol,
//!   that ask at the same place of the packet's way.
//! - A fragment that can be part of no datagram, is smaller than the smallest allowed and not the last, or comes twice,
//!   is refused: it goes on alone, as invalid. So a first fragment too small to hold the headers that rules look at is
//!   none that could get past them.
//! - Fragments that overlap without being equal are an attack (RFC 5722): the datagram is given up, those that waited
//!   are dropped, and what comes later of it is refused until the datagram's time is over (RFC 8200, 4.5). OVS refuses
//!   only the fragment that overlaps.
//! - A datagram has [`FragmentLimits::timeout`] from its first fragment's arrival on; then its fragments are dropped.
//! - At most [`FragmentLimits::max_fragments`] wait, with [`BYTES_PER_FRAGMENT`] bytes each in the mean. When there are
//!   as many, the oldest datagram gives way, so that under a flood of fragments that are never completed, those of
//!   honest senders, which come close together, still find each other. OVS refuses the new one.
//!
//! # Sharing
//! Fragments of one datagram may come to different workers, so all use one store under one lock. Only fragments take
//! it; how many there are and when the next are due can be read without.
//!
//! # Counting
//! A fragment that waits has an [`Origin`]. Whoever takes it out, or is told by [`Fragments::reap`] that it was dropped,
//! counts it.

mod piece;
#[cfg(test)]
mod tests;

use super::settings::FragmentSettings;
use hashbrown::HashMap;
use piece::{Fit, Incomplete, Key, Part, Piece, hand_down};
use sluice_flows::DpPort;
use sluice_flows::packet::{Frame, Layers};
use sluice_flows::rule::Millis;
use std::collections::BTreeMap;
use std::hash::RandomState;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes that a fragment may have in the mean when as many wait as may.
pub const BYTES_PER_FRAGMENT: usize = 4096;
/// Bytes that may wait even when few fragments may: one datagram and its headers.
const MIN_BYTES: usize = 128 << 10;
/// Most that [`FragmentLimits::max_fragments`] can be.
pub const MAX_FRAGMENTS: u32 = 5000;
/// Nothing is due.
const NEVER: u64 = u64::MAX;

/// What bounds the fragments that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentLimits {
    /// Fragments of all datagrams together, at most [`MAX_FRAGMENTS`]. 0 refuses every fragment.
    pub max_fragments: u32,
    /// Bytes of the smallest IPv4 fragment that is not the last of its datagram, IP header included. 0 allows all.
    pub min_v4: u16,
    /// The same of IPv6.
    pub min_v6: u16,
    /// Milliseconds from a datagram's first fragment until it is given up.
    pub timeout: u64,
}

impl Default for FragmentLimits {
    fn default() -> Self {
        Self { max_fragments: 1000, min_v4: 1200, min_v6: 1280, timeout: 15_000 }
    }
}

/// Fragments of one family since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentCounts {
    /// Taken in, whatever became of them.
    pub accepted: u64,
    /// Of these, sent on because their datagram was whole.
    pub completed: u64,
    /// Of these, dropped because their datagram's time was over.
    pub expired: u64,
    /// Of these, dropped because others of their datagram overlapped, or it was longer than IP allows.
    pub rejected: u64,
    /// Of these, dropped to make room for others.
    pub evicted: u64,
    /// Refused because they were too small.
    pub too_small: u64,
    /// Refused because they overlapped, or their datagram had been given up for that.
    pub overlapped: u64,
    /// Refused because they came twice.
    pub duplicate: u64,
    /// Refused because they could be part of no datagram.
    pub malformed: u64,
    /// Refused because there was no room, or those of this family are not put together.
    pub full: u64,
}

/// The fragments that wait and what became of those before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentStats {
    /// Fragments that wait.
    pub waiting: usize,
    /// Datagrams that they are of, those included that were given up and not forgotten yet.
    pub datagrams: usize,
    /// Of IPv4.
    pub v4: FragmentCounts,
    /// Of IPv6.
    pub v6: FragmentCounts,
}

/// Where a fragment that waited is to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The port that it came in by.
    pub(crate) ingress: DpPort,
    /// It is the frame that was received, or what is left of it; not one of several copies.
    pub(crate) counted: bool,
}

/// What became of a fragment.
#[derive(Debug)]
pub(crate) enum Taken {
    /// It waits for the others; a copy of it was kept.
    Held,
    /// It completes its datagram.
    Whole(Box<Datagram>),
    /// It goes on alone, as invalid.
    Refused,
}

/// A datagram whose last missing fragment has come.
#[derive(Debug)]
pub(crate) struct Datagram {
    /// The whole, for the tracker.
    pub(crate) whole: Frame,
    first: Piece,
    last: Piece,
    parts: Vec<Part>,
}

impl Datagram {
    /// Gives the fragments what became of the whole; `frame` is the one that completed it. Returns the others in the
    /// order of their arrival.
    ///
    /// # Errors
    /// The whole has another length now and cannot be cut as it was. All fragments are lost; these are the others.
    pub(crate) fn divide(self, frame: &mut Frame) -> Result<Vec<(Frame, Origin)>, Vec<Origin>> {
        let Self { whole, first, last, mut parts } = self;
        let total = parts.iter().map(|part| &part.piece).chain([&last]).map(|piece| piece.end).max().unwrap_or(0);
        let mut fits = whole.len() == first.data + total && hand_down(&whole, &first, &last, frame).is_some();
        for part in &mut parts {
            fits = fits && hand_down(&whole, &first, &part.piece, &mut part.frame).is_some();
        }
        if fits { Ok(parts.into_iter().map(|part| (part.frame, part.origin)).collect()) } else { Err(origins(parts)) }
    }

    /// The fragments that had waited, when the whole is dropped.
    pub(crate) fn origins(self) -> Vec<Origin> {
        origins(self.parts)
    }
}

fn origins(parts: Vec<Part>) -> Vec<Origin> {
    parts.into_iter().map(|part| part.origin).collect()
}

/// The fragments of all workers.
#[derive(Debug)]
pub(crate) struct Fragments {
    store: Mutex<Store>,
    /// Fragments that wait.
    waiting: AtomicUsize,
    /// When [`Self::reap`] has something to do, in milliseconds.
    due: AtomicU64,
}

impl Default for Fragments {
    fn default() -> Self {
        Self { store: Mutex::default(), waiting: AtomicUsize::new(0), due: AtomicU64::new(NEVER) }
    }
}

impl Fragments {
    /// Takes in a fragment, of which `layers` are known, in `zone` at `place` of its packet's way.
    pub(crate) fn take(
        &self,
        (frame, layers): (&Frame, &Layers),
        (zone, place): (u16, u64),
        origin: Origin,
        now: Millis,
    ) -> Taken {
        let read = Piece::read(frame, layers, zone, place);
        self.locked(|store| match read {
            Some((key, piece)) => store.take(key, piece, (frame, origin), now),
            None => {
                let v6 = layers.l3 == sluice_flows::packet::L3::Ipv6;
                store.refuse(v6, |counts| &mut counts.malformed)
            }
        })
    }

    /// The fragments that were dropped since the last time, those whose time is over included.
    pub(crate) fn reap(&self, now: Millis) -> Vec<Origin> {
        self.locked(|store| {
            store.expire(now);
            std::mem::take(&mut store.lost)
        })
    }

    /// Whether [`Self::reap`] has something to do.
    #[inline]
    pub(crate) fn is_due(&self, now: Millis) -> bool {
        self.due.load(Ordering::Relaxed) <= now.0
    }

    /// Fragments that wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Replaces the settings, for fragments that come from now on.
    pub(crate) fn set(&self, settings: FragmentSettings) {
        self.locked(|store| store.settings = settings);
    }

    /// The counters.
    pub(crate) fn stats(&self) -> FragmentStats {
        self.locked(|store| {
            let [v4, v6] = store.counts;
            FragmentStats { waiting: store.waiting, datagrams: store.lists.len(), v4, v6 }
        })
    }

    fn locked<T>(&self, work: impl FnOnce(&mut Store) -> T) -> T {
        let mut store: MutexGuard<'_, Store> = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut store);
        self.waiting.store(store.waiting, Ordering::Relaxed);
        self.due.store(store.due(), Ordering::Relaxed);
        result
    }
}

/// What is under the lock.
#[derive(Debug, Default)]
struct Store {
    settings: FragmentSettings,
    lists: HashMap<Key, Incomplete, RandomState>,
    /// The lists from the oldest on, by number.
    ages: BTreeMap<u64, Key>,
    next_number: u64,
    waiting: usize,
    bytes: usize,
    /// Lists without fragments, which were given up.
    empty: usize,
    counts: [FragmentCounts; 2],
    /// Dropped, and nobody was told yet.
    lost: Vec<Origin>,
}

impl Store {
    fn take(&mut self, key: Key, piece: Piece, (frame, origin): (&Frame, Origin), now: Millis) -> Taken {
        let FragmentSettings { v4, v6, limits } = self.settings;
        let (on, min) = if key.v6 { (v6, limits.min_v6) } else { (v4, limits.min_v4) };
        if !on {
            return self.refuse(key.v6, |counts| &mut counts.full);
        }
        if !piece.last && piece.packet_len < min.into() {
            return self.refuse(key.v6, |counts| &mut counts.too_small);
        }
        // One whose time is over must not be completed, though nobody looked at the clock since.
        if self.lists.get(&key).is_some_and(|list| list.expires <= now) {
            let lost = self.remove(&key);
            self.counts[usize::from(key.v6)].expired += lost as u64;
        }
        let fit = match self.lists.get(&key) {
            Some(list) if list.rejected => return self.refuse(key.v6, |counts| &mut counts.overlapped),
            Some(list) => list.fit(&piece, frame),
            None => Incomplete::new(0, now).fit(&piece, frame),
        };
        match fit {
            Fit::New(at) => self.hold(key, at, Part { frame: copy_of(frame), piece, origin }, now),
            Fit::Completes(at) => self.complete(key, at, piece, frame),
            Fit::Duplicate => self.refuse(key.v6, |counts| &mut counts.duplicate),
            Fit::Overlap => {
                self.reject(&key);
                self.refuse(key.v6, |counts| &mut counts.overlapped)
            }
        }
    }

    fn refuse(&mut self, v6: bool, which: impl FnOnce(&mut FragmentCounts) -> &mut u64) -> Taken {
        *which(&mut self.counts[usize::from(v6)]) += 1;
        Taken::Refused
    }

    /// Puts a fragment away, `at` this place in the order of its datagram's bytes.
    fn hold(&mut self, key: Key, at: usize, part: Part, now: Millis) -> Taken {
        let size = part.frame.len();
        if !self.make_room(&key, size) {
            return self.refuse(key.v6, |counts| &mut counts.full);
        }
        let (number, expires) = (self.next_number, Millis(now.0.saturating_add(self.settings.limits.timeout)));
        let ages = &mut self.ages;
        let next = &mut self.next_number;
        let list = self.lists.entry(key).or_insert_with(|| {
            *next += 1;
            ages.insert(number, key);
            Incomplete::new(number, expires)
        });
        list.add(at, part);
        self.waiting += 1;
        self.bytes += size;
        self.counts[usize::from(key.v6)].accepted += 1;
        Taken::Held
    }

    /// Drops old datagrams, but not that of `key`, until a fragment of `size` bytes has room. False if it has none.
    fn make_room(&mut self, key: &Key, size: usize) -> bool {
        let max = self.settings.limits.max_fragments.min(MAX_FRAGMENTS) as usize;
        let max_bytes = (max * BYTES_PER_FRAGMENT).max(MIN_BYTES);
        while self.waiting + self.empty >= max || self.bytes + size > max_bytes {
            let Some(oldest) = self.ages.values().find(|other| *other != key).copied() else { return false };
            let lost = self.remove(&oldest);
            self.counts[usize::from(oldest.v6)].evicted += lost as u64;
        }
        true
    }

    /// The datagram is whole with `frame`.
    fn complete(&mut self, key: Key, at: usize, last: Piece, frame: &Frame) -> Taken {
        let alone = Incomplete::new(0, Millis::default());
        let list = self.lists.get(&key).unwrap_or(&alone);
        let Some(whole) = list.assemble(at, &last, frame) else {
            self.reject(&key);
            return self.refuse(key.v6, |counts| &mut counts.malformed);
        };
        let parts = self.take_out(&key);
        let first = parts.iter().map(|part| part.piece).find(|piece| piece.start == 0).unwrap_or(last);
        let counts = &mut self.counts[usize::from(key.v6)];
        counts.accepted += 1;
        counts.completed += parts.len() as u64 + 1;
        Taken::Whole(Box::new(Datagram { whole, first, last, parts }))
    }

    /// Gives a datagram up. What comes later of it is refused.
    fn reject(&mut self, key: &Key) {
        let Some(list) = self.lists.get_mut(key) else { return };
        let parts = list.give_up();
        self.empty += 1;
        self.counts[usize::from(key.v6)].rejected += parts.len() as u64;
        self.lose(parts);
    }

    /// Forgets the datagrams whose time is over.
    fn expire(&mut self, now: Millis) {
        while let Some((_, key)) = self.ages.first_key_value() {
            let key = *key;
            if self.lists.get(&key).is_some_and(|list| list.expires > now) {
                break;
            }
            let lost = self.remove(&key);
            self.counts[usize::from(key.v6)].expired += lost as u64;
        }
    }

    /// Drops a datagram. Returns how many fragments it had.
    fn remove(&mut self, key: &Key) -> usize {
        let rejected = self.lists.get(key).is_some_and(|list| list.rejected);
        self.empty -= usize::from(rejected);
        let parts = match self.lists.remove(key) {
            Some(list) => {
                self.ages.remove(&list.number);
                list.parts
            }
            None => Vec::new(),
        };
        self.lose(parts)
    }

    fn lose(&mut self, parts: Vec<Part>) -> usize {
        let count = parts.len();
        self.waiting -= count;
        self.bytes -= parts.iter().map(|part| part.frame.len()).sum::<usize>();
        self.lost.extend(origins(parts).iter().filter(|origin| origin.counted));
        count
    }

    /// Takes out the fragments of a datagram that is whole.
    fn take_out(&mut self, key: &Key) -> Vec<Part> {
        let Some(list) = self.lists.remove(key) else { return Vec::new() };
        self.ages.remove(&list.number);
        self.waiting -= list.parts.len();
        self.bytes -= list.parts.iter().map(|part| part.frame.len()).sum::<usize>();
        list.parts
    }

    /// When [`Fragments::reap`] has something to do.
    fn due(&self) -> u64 {
        let oldest = self.ages.first_key_value().and_then(|(_, key)| self.lists.get(key));
        match oldest {
            _ if !self.lost.is_empty() => 0,
            Some(list) => list.expires.0,
            None => NEVER,
        }
    }
}

/// A frame of its own with room for headers in front.
fn copy_of(frame: &Frame) -> Frame {
    let mut copy = Frame::with_capacity(frame.len());
    copy.clone_from_frame(frame);
    copy
}
