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

    /// Removes the connections that are `wanted`. Returns how many.
    pub(crate) fn flush(&self, wanted: impl Fn(&Conn) -> bool) -> u64 {
        let (mut found, mut count) = (Vec::new(), 0);
        for index in 0..self.shards.count() {
            self.shards.collect(index, &mut found, &wanted);
            count += found.drain(..).filter(|conn| self.remove(conn, EndReason::Flushed)).count() as u64;
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
