//! What goes over many connections: expiring, flushing, reading.
//!
//! # Pauses
//! A walk goes from shard to shard, and through each in steps ([`STEP`](super::shards::STEP) slots under one lock);
//! what it removes it removes one by one. In the background it does one shard at a time, and after [`PASS`]
//! milliseconds it has been everywhere: a table of a million connections costs a thousand of them every ten
//! milliseconds. Nothing depends on how soon that is but events and counts, since what has expired is not found. A table
//! that is small is swept as a whole, twice a second; one that is empty not at all.

use super::conn::Conn;
use super::events::EndReason;
use super::table::Table;
use sluice_flows::rule::Millis;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Milliseconds in which the background has been everywhere in a large table.
const PASS: u64 = 10_240;

/// Connections that are swept in one go.
const SMALL: u32 = 4096;

impl Table {
    /// Removes every connection that has expired.
    pub(crate) fn expire(&self, now: Millis) {
        if self.len() > 0 {
            let mut found = Vec::new();
            (0..self.shards.count()).for_each(|index| self.expire_shard(index, &mut found, now));
        }
    }

    /// Does the part of a sweep that is to be done now, and says how long to wait until the next one. `None` if there is
    /// no hurry: the table is small, and was swept as a whole.
    pub(crate) fn expire_part(&self, now: Millis) -> Option<Duration> {
        if self.len() <= SMALL {
            self.expire(now);
            return None;
        }
        let index = self.swept.fetch_add(1, Ordering::Relaxed) % self.shards.count();
        self.expire_shard(index, &mut Vec::new(), now);
        Some(Duration::from_millis(PASS / self.shards.count() as u64))
    }

    fn expire_shard(&self, index: usize, found: &mut Vec<Arc<Conn>>, now: Millis) {
        let rules = self.in_force();
        self.shards.collect(index, found, |conn| rules.is_expired(conn, now));
        if !found.is_empty() {
            found.drain(..).for_each(|conn| _ = self.remove(&conn, EndReason::Expired));
            self.shards.trim(index);
        }
    }

    /// Removes the connections that are `wanted`. Returns how many. No lock is held while `wanted` runs.
    pub(crate) fn flush(&self, wanted: impl Fn(&Conn) -> bool) -> u64 {
        let (mut found, mut count) = (Vec::new(), 0);
        for index in 0..self.shards.count() {
            self.shards.collect(index, &mut found, |_| true);
            let removed = |conn: &Arc<Conn>| wanted(conn) && self.remove(conn, EndReason::Flushed);
            count += found.drain(..).filter(removed).count() as u64;
            self.shards.trim(index);
        }
        count
    }

    /// Shows the connections that have not expired, in no order. Those that come or go meanwhile may be shown or not;
    /// none is shown twice. No lock is held while `show` runs; it stops when `show` says so, by `false`.
    pub(crate) fn for_each(&self, now: Millis, mut show: impl FnMut(Arc<Conn>) -> bool) {
        let mut found = Vec::new();
        for index in 0..self.shards.count() {
            let rules = self.in_force();
            self.shards.collect(index, &mut found, |conn| !rules.is_expired(conn, now));
            if !found.drain(..).all(&mut show) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::conn::{Conn, Protocol};
    use super::super::table::Inserted;
    use super::super::tuple::Tuple;
    use super::*;
    use std::net::Ipv4Addr;

    const NOW: Millis = Millis(5000);
    /// When a connection expires that was seen once, at [`NOW`].
    const LATER: Millis = Millis(NOW.0 + 60_000);

    fn fill(table: &Table, zone: u16, count: u32, now: Millis) {
        let server = Ipv4Addr::new(192, 0, 2, 1).into();
        for n in 0..count {
            let tuple = Tuple::new(zone, 17, Ipv4Addr::from_bits(n).into(), server).with_ports(1000, 53);
            let protocol = Protocol::default();
            let conn = Conn::new(tuple, tuple.reversed().unwrap(), protocol, None, now);
            assert!(matches!(table.insert(conn, now), Ok(Inserted::New(_))));
        }
    }

    #[test]
    fn a_small_table_is_swept_as_a_whole() {
        let table = Table::default();
        assert_eq!(table.expire_part(LATER), None, "nothing to do");
        fill(&table, 0, SMALL, NOW);
        assert_eq!((table.expire_part(Millis(LATER.0 - 1)), table.len()), (None, SMALL));
        assert_eq!((table.expire_part(LATER), table.len()), (None, 0));
    }

    #[test]
    fn a_large_table_is_swept_in_equal_parts_that_come_round() {
        let table = Table::default();
        let (count, shards) = (20_000, table.shards.count());
        fill(&table, 0, count, NOW);
        fill(&table, 1, count, LATER);
        let mut most = 0;
        for part in 0..shards {
            let before = table.len();
            let pause = table.expire_part(LATER);
            assert_eq!(pause, Some(Duration::from_millis(10)), "part {part}");
            most = most.max(before - table.len());
        }
        assert_eq!((table.len(), table.zone_len(1)), (count, count), "each shard was swept once");
        assert!(most < 4 * count / shards as u32, "{most} in one part");
        table.expire(Millis(LATER.0 + 60_000));
        assert_eq!(table.counters().expired, u64::from(2 * count));
    }

    #[test]
    fn a_shard_that_had_many_gives_its_memory_back() {
        let table = Table::default();
        fill(&table, 0, 300_000, NOW);
        let full: usize = (0..table.shards.count()).map(|index| table.shards.capacity(index)).sum();
        table.flush(|_| true);
        let empty: usize = (0..table.shards.count()).map(|index| table.shards.capacity(index)).sum();
        assert!(full >= 300_000 && empty < full / 4, "{full} places, then {empty}");
    }

    #[test]
    fn a_flush_takes_what_it_is_asked_for_and_a_reading_shows_the_rest_once() {
        let table = Table::default();
        fill(&table, 1, 3000, NOW);
        fill(&table, 2, 3000, NOW);
        assert_eq!(table.flush(|conn| conn.original.zone == 1), 3000);
        assert_eq!((table.zone_len(1), table.zone_len(2)), (0, 3000));
        let mut shown = std::collections::HashSet::new();
        table.for_each(NOW, |conn| shown.insert(conn.original));
        assert_eq!(shown.len(), 3000);
        let mut first = 0;
        table.for_each(NOW, |_| {
            first += 1;
            first < 10
        });
        assert_eq!(first, 10, "it stops when it is told to");
        table.for_each(LATER, |conn| panic!("{conn:?} has expired"));
    }
}
