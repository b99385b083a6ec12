//! The connections by what their packets show, and how many there may be.
//!
//! # Limits
//! A connection has to have a place in its zone and in the table before it is put in; both are counted exactly. When
//! there is none, another connection makes room, if there is one that may: the other side has not answered, or it is
//! over ([`TimeoutClass::is_unassured`](super::TimeoutClass::is_unassured)). Of the zone the oldest that is noted goes
//! (`zones.rs`); of the table the oldest of a few that are looked at. Established connections are never pushed out.
//!
//! # Work
//! Everything here is bounded: an insertion into a full table looks at [`MOST_LOOKED`] connections at most, and if none of
//! these may go, the next insertions within the same millisecond do not look again.

use super::conn::Conn;
use super::events::{ConnChange, ConnEvents, EndReason};
use super::settings::{CtSettings, InForce, SettingsError};
use super::shards::{Put, Shards};
use super::tuple::{Direction, Tuple};
use super::zones::{Zone, Zones, raise_below};
use arc_swap::{ArcSwap, Guard};
use foldhash::quality::SeedableRandomState;
use sluice_flows::rule::Millis;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Parts that are locked one by one: with 1,000,000 connections each has 1000.
const SHARDS: usize = 1024;
/// Connections that are looked at to make room, at most so many of one shard; if one of them may go, no more.
const SAMPLE: usize = 8;
/// Connections, or notes of a zone, that are looked at before it is given up.
const MOST_LOOKED: usize = 64;
/// How often an insertion begins again because another took the place that was made, or something stale was in its way.
const TRIES: usize = 4;

/// What became of a connection that was to be put in.
#[derive(Debug)]
pub(crate) enum Inserted {
    /// It is in.
    New(Arc<Conn>),
    /// Another worker was faster with the same connection: this is the one that counts, and the direction in which the
    /// packet belongs to it.
    Exists(Arc<Conn>, Direction),
}

/// Why a connection was not put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Its reply tuple is that of another connection: translate it to something else.
    Taken,
    /// The table is full, and no connection could make room.
    Full,
    /// Its zone is full, likewise.
    ZoneFull,
}

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CtCounters {
    /// Connections that were put in.
    pub inserted: u64,
    /// Connections that another worker had put in at the same moment.
    pub raced: u64,
    /// Connections that were refused because the table was full.
    pub full: u64,
    /// Connections that were refused because their zone was full.
    pub zone_full: u64,
    /// Connections that ended because no packet was seen for too long.
    pub expired: u64,
    /// Connections that made room for others.
    pub early_dropped: u64,
    /// Connections that somebody removed.
    pub flushed: u64,
    /// Connections that a packet began anew.
    pub replaced: u64,
}

/// How full a zone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneCount {
    /// The zone.
    pub zone: u16,
    /// Its connections, those that have expired but are not swept yet included.
    pub connections: u32,
    /// Most that it may have; 0 for as many as there is room for.
    pub limit: u32,
}

#[derive(Debug, Default)]
struct Cells {
    raced: AtomicU64,
    full: AtomicU64,
    zone_full: AtomicU64,
    /// By [`EndReason`].
    ended: [AtomicU64; 4],
}

/// All connections.
#[derive(Debug)]
pub(crate) struct Table {
    pub(super) shards: Shards<Conn>,
    in_force: ArcSwap<InForce>,
    /// Connections that are in or about to be.
    count: AtomicU32,
    zones: Zones,
    cells: Cells,
    /// One more than the millisecond in which nothing was found that may make room.
    no_room: AtomicU64,
    /// The shard that the sweep comes to next.
    pub(super) swept: AtomicUsize,
    /// Where the end of connections is told.
    events: Arc<ConnEvents>,
}

impl Default for Table {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl Table {
    /// An empty table with the default settings, which tells `events` of connections that end.
    pub(crate) fn new(events: Arc<ConnEvents>) -> Self {
        Self {
            shards: Shards::new(SHARDS, SeedableRandomState::random()),
            in_force: ArcSwap::default(),
            count: AtomicU32::new(0),
            zones: Zones::default(),
            cells: Cells::default(),
            no_room: AtomicU64::new(0),
            swept: AtomicUsize::new(0),
            events,
        }
    }

    /// The settings in force.
    #[inline]
    pub(crate) fn in_force(&self) -> Guard<Arc<InForce>> {
        self.in_force.load()
    }

    /// Replaces the settings. Limits that are lower now remove nothing; timeouts hold for all connections at once.
    ///
    /// # Errors
    /// [`SettingsError`]; nothing is changed then.
    pub(crate) fn set(&self, settings: CtSettings) -> Result<(), SettingsError> {
        self.in_force.store(Arc::new(InForce::new(settings)?));
        Ok(())
    }

    /// The connection that a packet with this tuple belongs to, and the packet's direction. One that has expired is not
    /// found, whether it was swept or not.
    #[inline]
    pub(crate) fn find(&self, tuple: &Tuple, now: Millis) -> Option<(Arc<Conn>, Direction)> {
        self.shards.find(tuple).filter(|(conn, _)| !self.in_force().is_expired(conn, now))
    }

    /// Whether no connection is known by this tuple: worth asking before one is made for it, though only
    /// [`Self::insert`] can tell for sure.
    pub(crate) fn is_free(&self, tuple: &Tuple, now: Millis) -> bool {
        self.find(tuple, now).is_none()
    }

    /// Adds a connection, under both tuples or neither.
    ///
    /// # Errors
    /// [`Refused`], counted but for [`Refused::Taken`].
    pub(crate) fn insert(&self, conn: Conn, now: Millis) -> Result<Inserted, Refused> {
        let rules = self.in_force();
        let hash = self.shards.hash(&conn.original);
        let (zone, limit) = (self.zones.zone(conn.original.zone), rules.zone(conn.original.zone).limit);
        self.enter_zone(zone, conn.original.zone, limit, now)?;
        if let Err(full) = self.enter(hash, &rules, now) {
            zone.leave();
            return Err(full);
        }
        let conn = Arc::new(conn);
        let refused = match self.put(&conn, &rules, now) {
            Put::Done => {
                zone.note(hash, limit);
                return Ok(Inserted::New(conn));
            }
            Put::Exists(other, direction) => {
                self.cells.raced.fetch_add(1, Ordering::Relaxed);
                Ok(Inserted::Exists(other, direction))
            }
            Put::Taken | Put::Stale(_) => Err(Refused::Taken),
        };
        zone.leave();
        self.count.fetch_sub(1, Ordering::Relaxed);
        refused
    }

    /// Takes a connection out. False if it was out already. Every connection that ends does so here, once.
    pub(crate) fn remove(&self, conn: &Arc<Conn>, reason: EndReason) -> bool {
        if !self.shards.remove(conn) {
            return false;
        }
        self.cells.ended[reason as usize].fetch_add(1, Ordering::Relaxed);
        self.zones.zone(conn.original.zone).leave();
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.events.tell(conn, ConnChange::Ended(reason));
        true
    }

    /// Number of connections, those that have expired but are not swept yet included.
    pub(crate) fn len(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// The same of one zone.
    #[cfg(test)]
    pub(crate) fn zone_len(&self, zone: u16) -> u32 {
        self.zones.len(zone)
    }

    /// The zones that have connections or a limit of their own, in order.
    pub(crate) fn zones(&self) -> Vec<ZoneCount> {
        let rules = self.in_force();
        let with_limit = rules.settings().zones.iter().filter(|(_, zone)| zone.limit.is_some());
        let mut counts: BTreeMap<u16, u32> = with_limit.map(|(no, _)| (*no, 0)).collect();
        counts.extend(self.zones.iter());
        let count = |(zone, connections)| ZoneCount { zone, connections, limit: rules.zone(zone).limit };
        counts.into_iter().map(count).collect()
    }

    /// Totals since the start.
    pub(crate) fn counters(&self) -> CtCounters {
        let get = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let ended = |reason| get(&self.cells.ended[reason as usize]);
        let mut counters = CtCounters {
            inserted: self.len().into(),
            raced: get(&self.cells.raced),
            full: get(&self.cells.full),
            zone_full: get(&self.cells.zone_full),
            expired: ended(EndReason::Expired),
            early_dropped: ended(EndReason::EarlyDrop),
            flushed: ended(EndReason::Flushed),
            replaced: ended(EndReason::Replaced),
        };
        // Every connection that was put in is still there or has ended for one of the reasons.
        counters.inserted += counters.expired + counters.early_dropped + counters.flushed + counters.replaced;
        counters
    }

    fn put(&self, conn: &Arc<Conn>, rules: &InForce, now: Millis) -> Put<Conn> {
        for _ in 0..TRIES {
            match self.shards.insert(conn, |other| rules.is_expired(other, now)) {
                Put::Stale(other) => _ = self.remove(&other, EndReason::Expired),
                put => return put,
            }
        }
        Put::Taken
    }

    /// Takes a place in a zone.
    fn enter_zone(&self, zone: &Zone, no: u16, limit: u32, now: Millis) -> Result<(), Refused> {
        for _ in 0..TRIES {
            if zone.enter(limit) {
                return Ok(());
            }
            if !self.make_room_in_zone(zone, no, now) {
                break;
            }
        }
        self.cells.zone_full.fetch_add(1, Ordering::Relaxed);
        Err(Refused::ZoneFull)
    }

    /// Takes a place in the table.
    fn enter(&self, hash: u64, rules: &InForce, now: Millis) -> Result<(), Refused> {
        for _ in 0..TRIES {
            if raise_below(&self.count, rules.settings().max_connections) {
                return Ok(());
            }
            if !self.make_room(hash, rules, now) {
                break;
            }
        }
        self.cells.full.fetch_add(1, Ordering::Relaxed);
        Err(Refused::Full)
    }

    fn make_room_in_zone(&self, zone: &Zone, no: u16, now: Millis) -> bool {
        let rules = self.in_force();
        let may_go = |conn: &Conn| {
            conn.original.zone == no && (conn.timeout_class().is_unassured() || rules.is_expired(conn, now))
        };
        let notes = std::iter::from_fn(|| zone.take_note()).take(MOST_LOOKED);
        let mut candidates = notes.filter_map(|hash| self.shards.find_by_hash(hash, may_go));
        candidates.any(|conn| self.remove(&conn, reason(&conn, &rules, now)))
    }

    /// Removes the oldest of a few connections that may go, from where the one with this hash would stand.
    fn make_room(&self, hash: u64, rules: &InForce, now: Millis) -> bool {
        let this_time = now.0.wrapping_add(1);
        if self.no_room.load(Ordering::Relaxed) == this_time {
            return false;
        }
        let (mut looked, mut oldest) = (0, None::<Arc<Conn>>);
        for shard in 0..self.shards.count() {
            let index = (self.shards.index(hash) + shard) % self.shards.count();
            self.shards.sample(index, hash, SAMPLE, |conn| {
                looked += 1;
                let may_go = conn.timeout_class().is_unassured() || rules.is_expired(conn, now);
                if may_go && oldest.as_ref().is_none_or(|oldest| conn.seen() < oldest.seen()) {
                    oldest = Some(Arc::clone(conn));
                }
            });
            let found = if looked >= SAMPLE { oldest.take() } else { None };
            if found.is_some_and(|conn| self.remove(&conn, reason(&conn, rules, now))) {
                return true;
            }
            if looked >= MOST_LOOKED {
                break;
            }
        }
        if oldest.is_some_and(|conn| self.remove(&conn, reason(&conn, rules, now))) {
            return true;
        }
        self.no_room.store(this_time, Ordering::Relaxed);
        false
    }
}

/// Why a connection ends that makes room.
fn reason(conn: &Conn, rules: &InForce, now: Millis) -> EndReason {
    if rules.is_expired(conn, now) { EndReason::Expired } else { EndReason::EarlyDrop }
}

#[cfg(test)]
mod tests;
