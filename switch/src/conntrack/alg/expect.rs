//! Connections that are expected, because a control connection said so.
//!
//! An [`Expected`] connection comes from the peer of whoever announced it, from any port. It lies in a table by the
//! tuple that its first packet will show, with source port 0; a packet that would begin a connection is looked up there.
//! It stays after it was met, as in Open vSwitch, so that a second connection to the same port is related too.
//!
//! # Bounds
//! [`MOST`] for all and [`MOST_EACH`] for each control connection, the oldest making room; [`LIFETIME`]. It is void when
//! its control connection ends. As all live equally long, a queue in order of age finds those that are over.

use super::super::conn::Conn;
use super::super::tuple::{Direction, Tuple};
use sluice_flows::action::NatDirection;
use sluice_flows::rule::Millis;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How long a connection is expected, in milliseconds.
const LIFETIME: u64 = 300_000;
/// Most at a time.
const MOST: usize = 65_536;
/// Most at a time that one control connection announced.
pub(super) const MOST_EACH: usize = 8;
/// Ports that are tried when another connection has the one that is wanted.
const TRIES: u16 = 64;
/// Ports from here on are for everybody; others are not given instead of one another (RFC 6335, 6).
const FIRST_UNPRIVILEGED: u16 = 1024;

/// A connection that a control connection announced.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    /// The control connection.
    pub(crate) parent: Arc<Conn>,
    /// The direction of the packet that announced it: the data connection goes towards who sent that.
    pub(super) sender: Direction,
    /// The port that who sent it listens at.
    pub(super) port: u16,
    /// The control connection's mark and label when it was announced.
    pub(crate) mark: u32,
    pub(crate) label: u128,
}

impl Expected {
    /// What packets of the reply direction may show if the connection that begins with `original` is translated as its
    /// control connection is, best first: those after the first have another source port.
    pub(crate) fn replies(&self, original: &Tuple) -> impl Iterator<Item = Tuple> {
        let reply = *self.parent.tuple(self.sender);
        nearby(original.src_port).map(move |port| reply.with_ports(self.port, port))
    }

    /// Which side of the connection's original direction counts as translated, whatever the addresses are: the other one
    /// of who announced it, unless it is that one's that is translated in the control connection.
    pub(crate) fn side(&self) -> NatDirection {
        match (self.sender, self.parent.nat) {
            (Direction::Original, Some(NatDirection::Dst)) => NatDirection::Src,
            (Direction::Original, _) => NatDirection::Dst,
            (Direction::Reply, Some(NatDirection::Dst)) => NatDirection::Dst,
            (Direction::Reply, _) => NatDirection::Src,
        }
    }

    /// What its first packet will show when it comes to `port`, from port 0.
    fn tuple(&self, port: u16) -> Tuple {
        self.parent.tuple(self.sender.opposite()).with_ports(0, port)
    }

    /// What who announced it is, as it sees itself and its peer: two that lead there lead to the same.
    fn target(&self) -> Tuple {
        self.parent.tuple(self.sender).with_ports(self.port, 0)
    }

    /// Whether its first packet shows another port than who listens knows, or might: where nothing is translated, no
    /// two can want the same.
    fn is_translated(&self) -> bool {
        let seen = self.parent.tuple(self.sender.opposite());
        self.parent.tuple(self.sender).src() != seen.dst()
    }

    fn is_of(&self, parent: &Arc<Conn>) -> bool {
        Arc::ptr_eq(&self.parent, parent)
    }
}

/// All expected connections.
#[derive(Debug, Default)]
pub(crate) struct Expectations {
    /// How many there are: most packets that begin a connection need not look for one.
    count: AtomicUsize,
    all: RwLock<All>,
}

#[derive(Debug, Default)]
struct All {
    by_tuple: HashMap<Tuple, Entry>,
    /// In order of age. One whose number is not that of the entry is of an entry that was replaced.
    by_age: VecDeque<(Tuple, u64)>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    expected: Expected,
    number: u64,
    until: Millis,
}

impl Entry {
    fn is_over(&self, now: Millis) -> bool {
        self.until <= now || !self.expected.parent.is_alive()
    }
}

impl Expectations {
    /// What is expected of a connection whose first packet shows `tuple`.
    pub(crate) fn find(&self, tuple: &Tuple, now: Millis) -> Option<Expected> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let all = self.read();
        let entry = all.by_tuple.get(&tuple.with_ports(0, tuple.dst_port))?;
        (!entry.is_over(now)).then(|| entry.expected.clone())
    }

    /// Expects a connection, and says the tuple that it was promised. Its destination port is `wanted`, or if `may_move`
    /// and that was promised to a connection that leads elsewhere, one nearby. `None` if there is none.
    pub(super) fn add(&self, expected: &Expected, wanted: u16, may_move: bool, now: Millis) -> Option<Tuple> {
        let mut all = self.write();
        all.purge(now, MOST - 1);
        let tries = if may_move && expected.is_translated() { usize::MAX } else { 1 };
        let target = expected.target();
        let free = |tuple: &Tuple| {
            let taken = all.by_tuple.get(tuple);
            taken.is_none_or(|entry| entry.is_over(now) || entry.expected.target() == target)
        };
        let tuple = nearby(wanted).take(tries).map(|port| expected.tuple(port)).find(free)?;
        all.insert(tuple, expected.clone(), Millis(now.0.saturating_add(LIFETIME)));
        self.count.store(all.by_tuple.len(), Ordering::Relaxed);
        Some(tuple)
    }

    /// Removes what is over, so that nothing holds ended connections for longer than [`LIFETIME`].
    pub(crate) fn sweep(&self, now: Millis) {
        if self.count.load(Ordering::Relaxed) > 0 {
            let mut all = self.write();
            all.purge(now, MOST);
            self.count.store(all.by_tuple.len(), Ordering::Relaxed);
        }
    }

    /// Expects these no longer, as far as it was `parent` that announced them.
    pub(super) fn remove(&self, parent: &Arc<Conn>, tuples: impl IntoIterator<Item = Tuple>) {
        let mut all = self.write();
        for tuple in tuples {
            if all.by_tuple.get(&tuple).is_some_and(|entry| entry.expected.is_of(parent)) {
                all.by_tuple.remove(&tuple);
            }
        }
        self.count.store(all.by_tuple.len(), Ordering::Relaxed);
    }

    fn read(&self) -> RwLockReadGuard<'_, All> {
        self.all.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, All> {
        self.all.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `port`, and others that may stand for it.
fn nearby(port: u16) -> impl Iterator<Item = u16> {
    let lowest = if port >= FIRST_UNPRIVILEGED { FIRST_UNPRIVILEGED } else { 1 };
    (0..TRIES).map(move |step| port.checked_add(step).unwrap_or_else(|| lowest + port.wrapping_add(step)))
}

impl All {
    /// Removes what is over, as far as it is oldest, and the oldest if there are more than `most`.
    fn purge(&mut self, now: Millis, most: usize) {
        while let Some((tuple, number)) = self.by_age.front() {
            if let Some(entry) = self.by_tuple.get(tuple).filter(|entry| entry.number == *number) {
                if !entry.is_over(now) && self.by_tuple.len() <= most {
                    break;
                }
                self.by_tuple.remove(tuple);
            }
            self.by_age.pop_front();
        }
        // Each pass takes out at least as many as were put in since the one before.
        if self.by_age.len() >= 2 * MOST {
            self.by_age.retain(|(tuple, number)| self.by_tuple.get(tuple).is_some_and(|e| e.number == *number));
        }
    }

    fn insert(&mut self, tuple: Tuple, expected: Expected, until: Millis) {
        let number = self.next;
        self.next += 1;
        self.by_age.push_back((tuple, number));
        self.by_tuple.insert(tuple, Entry { expected, number, until });
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::conn::{PlainState, Protocol};
    use super::*;

    const NOW: Millis = Millis(1000);

    /// A control connection from `client` to `server`, whose packets show `nat` when they come back.
    fn control(client: &str, server: &str, nat: &str) -> Arc<Conn> {
        let address = |text: &str| text.parse().unwrap();
        let original = Tuple::new(5, 6, address(client), address(server)).with_ports(40_000, 21);
        let reply = original.reversed().unwrap().with_dst(address(nat));
        Arc::new(Conn::new(original, reply, Protocol::Plain(PlainState::default()), None, NOW))
    }

    fn active(parent: &Arc<Conn>, port: u16) -> Expected {
        Expected { parent: Arc::clone(parent), sender: Direction::Original, port, mark: 7, label: 8 }
    }

    /// What the server's first packet shows.
    fn first(parent: &Arc<Conn>, from: u16, to: u16) -> Tuple {
        parent.reply.with_ports(from, to)
    }

    #[test]
    fn a_data_connection_is_found_from_any_port_and_more_than_once() {
        let expectations = Expectations::default();
        let parent = control("10.0.0.1", "10.0.0.2", "10.0.0.9");
        let promised = expectations.add(&active(&parent, 1234), 1234, true, NOW).unwrap();
        assert_eq!(promised, first(&parent, 0, 1234));
        for from in [20, 40_001] {
            let data = first(&parent, from, 1234);
            let expected = expectations.find(&data, NOW).unwrap();
            assert_eq!((expected.mark, expected.label), (7, 8));
            assert_eq!(expected.replies(&data).next(), Some(parent.original.with_ports(1234, from)));
        }
        assert!(expectations.find(&first(&parent, 20, 1235), NOW).is_none());
        assert!(expectations.find(&parent.original.with_ports(20, 1234), NOW).is_none(), "the other way");
    }

    #[test]
    fn nothing_is_expected_after_its_time_or_its_parent() {
        let expectations = Expectations::default();
        let parent = control("10.0.0.1", "10.0.0.2", "10.0.0.1");
        let data = first(&parent, 20, 1234);
        expectations.add(&active(&parent, 1234), 1234, true, NOW).unwrap();
        assert!(expectations.find(&data, Millis(NOW.0 + LIFETIME - 1)).is_some());
        assert!(expectations.find(&data, Millis(NOW.0 + LIFETIME)).is_none());
        expectations.sweep(Millis(NOW.0 + LIFETIME - 1));
        assert_eq!(Arc::strong_count(&parent), 2);
        expectations.sweep(Millis(NOW.0 + LIFETIME));
        assert_eq!(Arc::strong_count(&parent), 1);
        expectations.add(&active(&parent, 1234), 1234, true, NOW).unwrap();
        let stranger = control("10.0.0.1", "10.0.0.2", "10.0.0.1");
        expectations.remove(&stranger, [data.with_ports(0, 1234)]);
        assert!(expectations.find(&data, NOW).is_some());
        expectations.remove(&parent, [data.with_ports(0, 1234)]);
        assert!(expectations.find(&data, NOW).is_none());
        expectations.add(&active(&parent, 1234), 1234, true, NOW).unwrap();
        assert!(expectations.find(&data, NOW).is_some());
        parent.end();
        assert!(expectations.find(&data, NOW).is_none());
    }

    #[test]
    fn a_port_promised_to_another_is_moved_only_where_it_can_be_said() {
        let expectations = Expectations::default();
        let [a, b] = ["10.0.0.1", "10.0.0.3"].map(|client| control(client, "10.0.0.2", "10.0.0.9"));
        let again = control("10.0.0.1", "10.0.0.2", "10.0.0.9");
        let port =
            |parent, may_move| expectations.add(&active(parent, 65_535), 65_535, may_move, NOW).map(|t| t.dst_port);
        assert_eq!(port(&a, true), Some(65_535));
        assert_eq!(port(&b, false), None);
        assert_eq!(port(&b, true), Some(1024));
        assert_eq!(port(&a, true), Some(65_535), "repeated");
        assert_eq!(port(&again, false), Some(65_535), "leads to the same");
        assert_eq!(expectations.find(&first(&b, 20, 1024), NOW).unwrap().port, 65_535);
        again.end();
        assert_eq!(port(&b, false), Some(65_535));
    }

    #[test]
    fn a_repeated_one_replaces_the_first_and_lives_on() {
        let expectations = Expectations::default();
        let parent = control("10.0.0.1", "10.0.0.2", "10.0.0.1");
        expectations.add(&active(&parent, 1234), 1234, true, NOW).unwrap();
        let later = Millis(NOW.0 + LIFETIME - 1);
        expectations.add(&Expected { mark: 9, ..active(&parent, 1234) }, 1234, true, later).unwrap();
        expectations.add(&active(&parent, 1235), 1235, true, Millis(NOW.0 + LIFETIME)).unwrap();
        let expected = expectations.find(&first(&parent, 20, 1234), Millis(NOW.0 + LIFETIME)).unwrap();
        assert_eq!(expected.mark, 9);
    }

    #[test]
    fn the_oldest_make_room_and_nothing_grows_without_end() {
        let expectations = Expectations::default();
        let parents: Vec<_> = (0..3).map(|n| control("10.0.0.1", &format!("10.0.1.{n}"), "10.0.0.1")).collect();
        for parent in &parents {
            for port in 1..=u16::MAX {
                expectations.add(&active(parent, port), port, true, NOW).unwrap();
            }
        }
        let all = expectations.read();
        assert_eq!(all.by_tuple.len(), MOST);
        assert!(all.by_age.len() <= 2 * MOST);
        drop(all);
        assert!(expectations.find(&first(&parents[1], 20, 1234), NOW).is_none());
        assert!(expectations.find(&first(&parents[2], 20, 1234), NOW).is_some());
        for _ in 0..3 * MOST {
            expectations.add(&active(&parents[2], 9), 9, true, NOW).unwrap();
        }
        assert!(expectations.read().by_age.len() <= 2 * MOST);
    }
}
