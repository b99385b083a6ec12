//! How many connections each zone has, exactly, and which of them may make room.
//!
//! # Candidates
//! A zone that has a limit notes the hash of each connection that is committed to it, in a ring. When the zone is full,
//! the oldest notes are read, each once: what was answered meanwhile, or is gone, is passed over. So a flood of a zone
//! pushes out its own oldest connections that nobody answered, at a cost that does not grow with the table. A note is
//! a hint: one that is lost, overwritten or wrong removes nothing that may not be removed.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Zones in a page.
const PAGE: usize = 256;
/// Most notes of a zone, 8 bytes each.
const MAX_NOTES: u32 = 1 << 16;
/// A zone with a smaller limit has its ring from the first connection on, others when they are half full.
const SMALL: u32 = 1 << 10;

/// One zone.
#[derive(Debug, Default)]
pub(crate) struct Zone {
    count: AtomicU32,
    notes: OnceLock<Notes>,
}

/// The last hashes, oldest first.
#[derive(Debug)]
struct Notes {
    /// A power of two of them.
    slots: Box<[AtomicU64]>,
    /// How many were read.
    read: AtomicU64,
    /// How many were written.
    written: AtomicU64,
}

/// All zones; those that never had a connection cost 16 bytes for each [`PAGE`].
#[derive(Debug)]
pub(crate) struct Zones {
    pages: Box<[OnceLock<Box<[Zone]>>]>,
}

impl Default for Zones {
    fn default() -> Self {
        Self { pages: (0..PAGE).map(|_| OnceLock::new()).collect() }
    }
}

impl Zones {
    /// The zone with this number.
    #[inline]
    pub(crate) fn zone(&self, zone: u16) -> &Zone {
        let page = &self.pages[usize::from(zone >> 8)];
        &page.get_or_init(|| (0..PAGE).map(|_| Zone::default()).collect())[usize::from(zone & 0xff)]
    }

    /// Connections of a zone.
    #[cfg(test)]
    pub(crate) fn len(&self, zone: u16) -> u32 {
        let page = self.pages[usize::from(zone >> 8)].get();
        page.map_or(0, |page| page[usize::from(zone & 0xff)].len())
    }

    /// The zones that have connections, and how many.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, u32)> {
        let pages = self.pages.iter().enumerate().filter_map(|(no, page)| Some((no, page.get()?)));
        let zones = pages.flat_map(|(no, page)| page.iter().enumerate().map(move |(i, zone)| (no * PAGE + i, zone)));
        zones.map(|(no, zone)| (no as u16, zone.len())).filter(|(_, len)| *len > 0)
    }
}

impl Zone {
    /// Connections that are there or about to be.
    pub(crate) fn len(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// Counts one more, unless there are `limit` already; 0 is no limit.
    #[inline]
    pub(crate) fn enter(&self, limit: u32) -> bool {
        let limit = if limit == 0 { u32::MAX } else { limit };
        raise_below(&self.count, limit)
    }

    /// Counts one less.
    #[inline]
    pub(crate) fn leave(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Notes that a connection with this hash may make room one day, if the zone has a limit.
    #[inline]
    pub(crate) fn note(&self, hash: u64, limit: u32) {
        if limit > 0 && (limit < SMALL || self.len() > limit / 2 || self.notes.get().is_some()) {
            self.notes.get_or_init(|| Notes::new(limit)).write(hash);
        }
    }

    /// Takes the oldest note.
    pub(crate) fn take_note(&self) -> Option<u64> {
        self.notes.get()?.read()
    }
}

/// Adds one to a number that is below `limit`. False if it is not.
#[inline]
pub(crate) fn raise_below(number: &AtomicU32, limit: u32) -> bool {
    let one_more = |n| (n < limit).then_some(n + 1);
    number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
}

impl Notes {
    fn new(limit: u32) -> Self {
        let size = limit.min(MAX_NOTES).next_power_of_two();
        Self {
            slots: (0..size).map(|_| AtomicU64::new(0)).collect(),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
        }
    }

    fn slot(&self, no: u64) -> &AtomicU64 {
        &self.slots[no as usize & (self.slots.len() - 1)]
    }

    fn write(&self, hash: u64) {
        let no = self.written.fetch_add(1, Ordering::Relaxed);
        self.slot(no).store(hash, Ordering::Relaxed);
    }

    fn read(&self) -> Option<u64> {
        let oldest = |read: u64| {
            let written = self.written.load(Ordering::Relaxed);
            let oldest = read.max(written.saturating_sub(self.slots.len() as u64));
            (oldest < written).then_some(oldest)
        };
        let taken = |read| oldest(read).map(|no| no + 1);
        let read = self.read.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).ok()?;
        Some(self.slot(oldest(read)?).load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_takes_as_many_as_its_limit_says() {
        let zones = Zones::default();
        let zone = zones.zone(258);
        assert!(zone.enter(2) && zone.enter(2) && !zone.enter(2));
        zone.leave();
        assert!(zone.enter(2), "room again");
        assert!(zone.enter(0), "no limit");
        assert!(!zone.enter(1), "the limit was lowered");
        assert_eq!((zones.len(258), zones.len(2), zones.len(1000)), (3, 0, 0));
        zones.zone(65535).enter(0);
        assert_eq!(zones.iter().collect::<Vec<_>>(), [(258, 3), (65535, 1)]);
    }

    #[test]
    fn notes_come_back_once_oldest_first() {
        let zone = Zone::default();
        zone.note(1, 0);
        assert_eq!(zone.take_note(), None, "without a limit none are made");
        (1..=6).for_each(|hash| zone.note(hash, 4));
        let notes: Vec<_> = std::iter::from_fn(|| zone.take_note()).collect();
        assert_eq!(notes, [3, 4, 5, 6], "the ring holds four");
        zone.note(7, 4);
        assert_eq!((zone.take_note(), zone.take_note()), (Some(7), None));
    }
}
