//! What happens to connections, told to whoever watches.
//!
//! Watchers have a bounded queue each. One that reads too slowly loses events and is told how many; nobody waits for it.
//! Where nobody watches, telling is one look at a number. Only packets that no cache answers, and the background, tell.

use super::Conn;
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Why a connection is not in the table any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// No packet was seen for as long as its state allows.
    Expired,
    /// Somebody asked for it.
    Flushed,
    /// It made room for another when the table was full.
    EarlyDrop,
    /// A packet began the connection anew, or in the other direction.
    Replaced,
}

impl EndReason {
    /// Its name in the API: `expired`, `flushed`, `early_drop` or `replaced`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Flushed => "flushed",
            Self::EarlyDrop => "early_drop",
            Self::Replaced => "replaced",
        }
    }
}

/// What happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnChange {
    /// It was committed.
    New,
    /// The first answer was seen. Of TCP: both ends have become established.
    Replied,
    /// Its mark or label was written.
    Marked {
        /// The mark since then.
        mark: u32,
        /// The label since then.
        label: u128,
    },
    /// It is over; its counters are final.
    Ended(EndReason),
}

/// Something that a watcher is told.
#[derive(Clone, Debug)]
pub enum ConnEvent {
    /// Something happened to a connection.
    Changed {
        /// Its number, from 1; one more for each event that was told to anybody.
        sequence: u64,
        /// When.
        time: SystemTime,
        /// The connection.
        conn: Arc<Conn>,
        /// What.
        change: ConnChange,
    },
    /// Events were lost just before the next one, because the watcher read too slowly.
    Lost {
        /// How many.
        count: u64,
    },
}

#[derive(Debug)]
struct Watcher {
    sender: Sender<ConnEvent>,
    lost: u64,
}

/// Where changes of connections are told. Shared by the workers and the background.
#[derive(Debug, Default)]
pub(crate) struct ConnEvents {
    watchers: Mutex<Vec<Watcher>>,
    /// Length of `watchers`, to be read without the lock.
    watched: AtomicUsize,
    count: AtomicU64,
}

impl ConnEvents {
    /// Events from now on, at most `depth` of them waiting.
    pub(crate) fn subscribe(&self, depth: usize) -> Receiver<ConnEvent> {
        let (sender, receiver) = bounded(depth.max(2));
        let mut watchers = self.lock();
        watchers.push(Watcher { sender, lost: 0 });
        self.watched.store(watchers.len(), Ordering::Relaxed);
        receiver
    }

    /// Tells every watcher; those that went away are forgotten. Takes no lock of the connection.
    #[inline]
    pub(crate) fn tell(&self, conn: &Arc<Conn>, change: ConnChange) {
        if self.watched.load(Ordering::Relaxed) > 0 {
            self.tell_watchers(conn, change);
        }
    }

    #[cold]
    fn tell_watchers(&self, conn: &Arc<Conn>, change: ConnChange) {
        let mut watchers = self.lock();
        let sequence = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let event = ConnEvent::Changed { sequence, time: SystemTime::now(), conn: Arc::clone(conn), change };
        watchers.retain_mut(|watcher| watcher.tell(&event));
        self.watched.store(watchers.len(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Watcher>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher {
    /// Returns whether the watcher is still there.
    fn tell(&mut self, event: &ConnEvent) -> bool {
        if self.lost > 0 {
            match self.sender.try_send(ConnEvent::Lost { count: self.lost }) {
                Ok(()) => self.lost = 0,
                Err(TrySendError::Full(_)) => {
                    self.lost = self.lost.saturating_add(1);
                    return true;
                }
                Err(TrySendError::Disconnected(_)) => return false,
            }
        }
        match self.sender.try_send(event.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.lost = self.lost.saturating_add(1);
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::conn::{PlainState, Protocol};
    use super::super::{Direction, Tuple};
    use super::*;
    use sluice_flows::rule::Millis;

    fn conn() -> Arc<Conn> {
        let (a, b) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let tuple = Tuple::new(5, 17, a, b).with_ports(1000, 53);
        let protocol = Protocol::Plain(PlainState::default());
        Arc::new(Conn::new(tuple, tuple.reversed().unwrap(), protocol, None, Millis(0)))
    }

    fn sequences(events: &[ConnEvent]) -> Vec<Option<u64>> {
        let sequence = |event: &ConnEvent| match event {
            ConnEvent::Changed { sequence, .. } => Some(*sequence),
            ConnEvent::Lost { .. } => None,
        };
        events.iter().map(sequence).collect()
    }

    #[test]
    fn a_slow_watcher_loses_events_and_is_told_how_many() {
        let events = ConnEvents::default();
        let (slow, conn) = (events.subscribe(2), conn());
        for _ in 0..4 {
            events.tell(&conn, ConnChange::New);
        }
        assert_eq!(sequences(&slow.try_iter().collect::<Vec<_>>()), [Some(1), Some(2)]);
        events.tell(&conn, ConnChange::Ended(EndReason::Flushed));
        let next: Vec<_> = slow.try_iter().collect();
        assert!(matches!(next[0], ConnEvent::Lost { count: 2 }), "{next:?}");
        assert_eq!(sequences(&next), [None, Some(5)]);
    }

    #[test]
    fn where_nobody_watches_nothing_is_kept_of_the_connection() {
        let events = ConnEvents::default();
        let conn = conn();
        events.tell(&conn, ConnChange::New);
        assert_eq!(events.count.load(Ordering::Relaxed), 0);
        drop(events.subscribe(4));
        events.tell(&conn, ConnChange::Replied);
        assert_eq!((Arc::strong_count(&conn), events.watched.load(Ordering::Relaxed)), (1, 0), "forgotten");
        assert_eq!(conn.tuple(Direction::Original).zone, 5);
    }
}
