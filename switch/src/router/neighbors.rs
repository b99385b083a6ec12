//! The neighbours of one router: who has which address on its links, found out by ARP and neighbour discovery.
//!
//! [`Neighbors`] is a state machine without clock and wire: it is told what was heard and what time it is, and says what
//! is [to be done](Todo). The states are those of RFC 4861, 7.3.2 and of Linux, for both IP versions:
//!
//! - *incomplete*: it was asked for, at most [`TRIES`] times, [`RETRY`] ms apart; packets to it wait.
//! - *reachable*: it was heard of in an answer, less than some [`REACHABLE`] ms ago.
//! - *stale*: it was heard of longer ago, or has only said something unasked. Packets go to it.
//! - *probe*: packets were sent to it since it became stale, and now it is asked again, at its believed address alone.
//! - *failed*: it did not answer. Packets to it are dropped for a while; then the next one has it asked for anew.
//! - *permanent*: it is configured.
//!
//! # Limits
//! Whoever scans a network makes a router ask for each of its addresses (RFC 6583). So at most [`MAX_INCOMPLETE`] are asked
//! for at a time, and at most [`MAX_NEIGHBORS`] are known; a full table forgets what has failed or is stale, else the new
//! one is not taken in. At most [`MAX_WAITING`] packets wait for a neighbour, the oldest gives way; in all
//! [`MAX_WAITING_TOTAL`] packets of [`MAX_WAITING_BYTES`] bytes.

use super::packets::Mac;
use sluice_flows::packet::Frame;
use sluice_flows::router::{InterfaceId, Punt};
use sluice_flows::rule::Millis;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

/// Times that a neighbour is asked for (RFC 4861, 10).
const TRIES: u8 = 3;
/// Milliseconds between two questions (RFC 4861, 10).
pub(super) const RETRY: u64 = 1000;
/// Milliseconds that a neighbour counts as reachable, more or less a half of it by chance (RFC 4861, 10).
const REACHABLE: u64 = 30_000;
/// Milliseconds between two looks at whether packets were sent to a stale neighbour.
const LOOK: u64 = 5000;
/// Milliseconds without a packet after which a stale neighbour is forgotten.
const FORGET: u64 = 60_000;
/// Milliseconds that packets to a neighbour that failed are dropped for.
const FAILED: u64 = 3000;
/// Milliseconds that a new hardware address is kept before another one takes its place, as Linux has it: of several
/// answers to one question the first counts.
const LOCKED: u64 = 1000;
/// Most neighbours.
pub(super) const MAX_NEIGHBORS: usize = 8192;
/// Most neighbours that are asked for at a time.
pub(super) const MAX_INCOMPLETE: usize = 512;
/// Most packets that wait for one neighbour: as many as Linux keeps (`unres_qlen`). In a network that has just come up everybody
/// may talk to somebody at once, before who that is was asked for.
pub(super) const MAX_WAITING: usize = 101;
/// Most packets that wait in all.
pub(super) const MAX_WAITING_TOTAL: usize = 1024;
/// Most bytes that wait in all.
pub(super) const MAX_WAITING_BYTES: usize = 4 << 20;
/// Entries that are looked at for one that may be forgotten.
const EVICTION_LOOKS: usize = 64;

/// A neighbour by the interface that it is behind and its address.
pub type Key = (InterfaceId, IpAddr);

/// What is known of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NeighborState {
    /// It is being asked for.
    Incomplete,
    /// It has answered a while ago at most.
    Reachable,
    /// Nothing was heard of it for longer.
    Stale,
    /// It is asked whether it is still there.
    Probe,
    /// It does not answer.
    Failed,
    /// It is configured.
    Permanent,
}

impl NeighborState {
    /// The state's name, as every output spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::Reachable => "reachable",
            Self::Stale => "stale",
            Self::Probe => "probe",
            Self::Failed => "failed",
            Self::Permanent => "permanent",
        }
    }
}

/// How a neighbour was heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It answered what it was asked.
    Answer {
        /// What it says replaces what was known.
        replaces: bool,
    },
    /// It asked for one of our addresses.
    Question,
    /// It said so unasked.
    Announcement {
        /// What it says replaces what was known.
        replaces: bool,
    },
}

/// A packet that waits for its neighbour.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The packet.
    pub(super) frame: Frame,
    /// What the flows say of it.
    pub(super) punt: Punt,
}

/// What is to be done about a neighbour.
#[derive(Debug)]
pub(super) enum Todo {
    /// Ask for it: everybody, or only whoever has this hardware address.
    Ask(Key, Option<Mac>),
    /// Send packets to this hardware address.
    Resolved(Key, Mac),
    /// Packets may go on.
    Release(Vec<Waiting>),
    /// It does not answer; these packets waited for it.
    Failed(Key, Vec<Waiting>),
    /// Nothing is known of it any more.
    Forgotten(Key),
    /// Drop these packets: there is no room for them.
    Overflow(Vec<Waiting>),
}

/// A neighbour.
#[derive(Debug)]
struct Entry {
    state: NeighborState,
    mac: Mac,
    /// Questions asked in this state.
    tries: u8,
    /// When the state began, or was confirmed.
    since: Millis,
    /// When its hardware address was learned or changed.
    learned: Millis,
    /// When it is to be looked at; none for one that is permanent.
    due: Option<Millis>,
    waiting: VecDeque<Waiting>,
}

/// A neighbour as it is told to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighborInfo {
    /// The interface that it is behind.
    pub interface: InterfaceId,
    /// Its address.
    pub address: IpAddr,
    /// Its hardware address, if it is known.
    pub mac: Option<[u8; 6]>,
    /// What is known of it.
    pub state: NeighborState,
    /// Milliseconds since it was last confirmed, or since its state began.
    pub age_ms: u64,
    /// Packets that wait for it.
    pub waiting: usize,
}

/// The neighbours of a router.
#[derive(Debug, Default)]
pub(super) struct Neighbors {
    table: BTreeMap<Key, Entry>,
    due: BTreeSet<(Millis, Key)>,
    incomplete: usize,
    waiting: usize,
    waiting_bytes: usize,
    /// Neighbours and packets that there was no room for.
    pub(super) refused: u64,
}

impl Neighbors {
    /// A packet has to go to a neighbour that no flow sends it to.
    pub(super) fn wanted(&mut self, key: Key, packet: Option<Waiting>, now: Millis, todo: &mut Vec<Todo>) {
        match self.table.get(&key).map(|entry| entry.state) {
            None | Some(NeighborState::Failed) => {
                if !self.begin(key, now, todo) {
                    self.refused += 1;
                    todo.extend(packet.map(|packet| Todo::Overflow(vec![packet])));
                    return;
                }
                todo.push(Todo::Ask(key, None));
            }
            Some(NeighborState::Incomplete) => {}
            // The flow came in the meantime.
            Some(_) => {
                todo.extend(packet.map(|packet| Todo::Release(vec![packet])));
                return;
            }
        }
        if let Some(packet) = packet {
            self.wait(key, packet, todo);
        }
    }

    /// A neighbour was heard of.
    pub(super) fn heard(&mut self, key: Key, mac: Mac, heard: Heard, now: Millis, todo: &mut Vec<Todo>) {
        let Some(entry) = self.table.get(&key) else {
            // Whoever asks for us will be sent to. What nobody asked for is not worth an entry (RFC 4861, 7.2.5).
            if heard == Heard::Question && self.has_room(todo) {
                self.insert(key, mac, now);
                self.turn(key, NeighborState::Stale, now);
                todo.push(Todo::Resolved(key, mac));
            }
            return;
        };
        let is_known = !matches!(entry.state, NeighborState::Incomplete | NeighborState::Failed);
        let is_other = is_known && entry.mac != mac;
        let replaces = match heard {
            Heard::Answer { replaces } | Heard::Announcement { replaces } => replaces,
            Heard::Question => true,
        };
        match entry.state {
            NeighborState::Permanent => return,
            // What is not solicited does not bring back who failed: packets do.
            NeighborState::Failed if !matches!(heard, Heard::Question | Heard::Answer { .. }) => return,
            _ if is_other && !replaces => {
                if entry.state == NeighborState::Reachable {
                    self.turn(key, NeighborState::Stale, now);
                }
                return;
            }
            _ if is_other && now.since(entry.learned) < LOCKED => return,
            _ => {}
        }
        let next = match heard {
            Heard::Answer { .. } => NeighborState::Reachable,
            // Words that change nothing confirm nothing either.
            _ if is_known && !is_other => return,
            _ => NeighborState::Stale,
        };
        self.learn(key, mac, next, !is_known || is_other, now, todo);
    }

    /// Does what is due. `used` tells when a packet was last sent to a neighbour.
    pub(super) fn tick(&mut self, now: Millis, used: impl Fn(&Key) -> Millis, todo: &mut Vec<Todo>) {
        while let Some((due, key)) = self.due.first().copied() {
            if due > now {
                return;
            }
            self.due.pop_first();
            let Some(entry) = self.table.get_mut(&key) else { continue };
            entry.due = None;
            match entry.state {
                NeighborState::Incomplete | NeighborState::Probe if entry.tries < TRIES => {
                    entry.tries += 1;
                    let believed = (entry.state == NeighborState::Probe).then_some(entry.mac);
                    todo.push(Todo::Ask(key, believed));
                    self.schedule(key, Millis(now.0 + RETRY));
                }
                NeighborState::Incomplete | NeighborState::Probe => self.fail(key, now, todo),
                NeighborState::Reachable => self.turn(key, NeighborState::Stale, now),
                NeighborState::Stale => {
                    let (since, used) = (entry.since, used(&key));
                    if used > since {
                        todo.push(Todo::Ask(key, Some(entry.mac)));
                        self.turn(key, NeighborState::Probe, now);
                    } else if now.since(since) >= FORGET {
                        self.remove(key, todo);
                    } else {
                        self.schedule(key, Millis(now.0 + LOOK));
                    }
                }
                NeighborState::Failed => self.remove(key, todo),
                NeighborState::Permanent => {}
            }
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(super) fn next(&self) -> Option<Millis> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Makes a neighbour known for good.
    pub(super) fn set_permanent(&mut self, key: Key, mac: Mac, now: Millis, todo: &mut Vec<Todo>) {
        if !self.table.contains_key(&key) {
            self.insert(key, mac, now);
        }
        self.learn(key, mac, NeighborState::Permanent, true, now, todo);
    }

    /// Asks whether a neighbour is there, unless that is known or being found out.
    pub(super) fn check(&mut self, key: Key, now: Millis, todo: &mut Vec<Todo>) {
        match self.table.get(&key).map(|entry| (entry.state, entry.mac)) {
            None | Some((NeighborState::Failed, _)) => self.wanted(key, None, now, todo),
            Some((NeighborState::Stale, mac)) => {
                todo.push(Todo::Ask(key, Some(mac)));
                self.turn(key, NeighborState::Probe, now);
            }
            Some(_) => {}
        }
    }

    /// Forgets a neighbour. Returns whether it was known.
    pub(super) fn forget(&mut self, key: Key, todo: &mut Vec<Todo>) -> bool {
        let is_known = self.table.contains_key(&key);
        self.remove(key, todo);
        is_known
    }

    /// The neighbours that `wanted` selects.
    pub(super) fn keys(&self, wanted: impl Fn(&Key, NeighborState) -> bool) -> Vec<Key> {
        self.table.iter().filter(|(key, entry)| wanted(key, entry.state)).map(|(key, _)| *key).collect()
    }

    /// The hardware address of a neighbour, if it is known.
    pub(super) fn mac(&self, key: &Key) -> Option<Mac> {
        self.table.get(key).filter(|entry| entry.is_known()).map(|entry| entry.mac)
    }

    /// What is known of a neighbour.
    pub(super) fn state(&self, key: &Key) -> Option<NeighborState> {
        self.table.get(key).map(|entry| entry.state)
    }

    /// Every neighbour, by interface and address.
    pub(super) fn list(&self, now: Millis) -> impl Iterator<Item = NeighborInfo> + '_ {
        self.table.iter().map(move |((interface, address), entry)| NeighborInfo {
            interface: *interface,
            address: *address,
            mac: entry.is_known().then_some(entry.mac),
            state: entry.state,
            age_ms: now.since(entry.since),
            waiting: entry.waiting.len(),
        })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Begins to ask for a neighbour. Returns whether there was room.
    fn begin(&mut self, key: Key, now: Millis, todo: &mut Vec<Todo>) -> bool {
        if self.incomplete >= MAX_INCOMPLETE {
            return false;
        }
        if let Some(entry) = self.table.get(&key) {
            if entry.state == NeighborState::Failed {
                // The flow that drops its packets is not wanted any more.
                todo.push(Todo::Forgotten(key));
            }
        } else if self.has_room(todo) {
            self.insert(key, [0; 6], now);
        } else {
            return false;
        }
        self.turn(key, NeighborState::Incomplete, now);
        true
    }

    /// Makes room for one more, if need be by forgetting one that has failed or is stale.
    fn has_room(&mut self, todo: &mut Vec<Todo>) -> bool {
        if self.table.len() < MAX_NEIGHBORS {
            return true;
        }
        let may_go = |key: &Key| {
            let state = self.table.get(key).map(|entry| entry.state);
            matches!(state, Some(NeighborState::Failed | NeighborState::Stale))
        };
        let found = self.due.iter().map(|(_, key)| *key).take(EVICTION_LOOKS).find(may_go);
        match found {
            Some(key) => self.remove(key, todo),
            None => self.refused += 1,
        }
        found.is_some()
    }

    fn insert(&mut self, key: Key, mac: Mac, now: Millis) {
        let entry = Entry {
            state: NeighborState::Stale,
            mac,
            tries: 0,
            since: now,
            learned: now,
            due: None,
            waiting: VecDeque::new(),
        };
        self.table.insert(key, entry);
    }

    /// Puts a neighbour into a state, and says when it is to be looked at next.
    fn turn(&mut self, key: Key, state: NeighborState, now: Millis) {
        let Some(entry) = self.table.get_mut(&key) else { return };
        let asking = |state| usize::from(state == NeighborState::Incomplete);
        self.incomplete = self.incomplete + asking(state) - asking(entry.state);
        entry.state = state;
        entry.since = now;
        // Whoever turns to one of the states that ask has asked once.
        entry.tries = 1;
        let wait = match state {
            NeighborState::Incomplete | NeighborState::Probe => RETRY,
            NeighborState::Reachable => spread(&key, now),
            NeighborState::Stale => LOOK,
            NeighborState::Failed => FAILED,
            NeighborState::Permanent => return self.unschedule(key),
        };
        self.schedule(key, Millis(now.0.saturating_add(wait)));
    }

    fn schedule(&mut self, key: Key, due: Millis) {
        self.unschedule(key);
        if let Some(entry) = self.table.get_mut(&key) {
            entry.due = Some(due);
            self.due.insert((due, key));
        }
    }

    fn unschedule(&mut self, key: Key) {
        if let Some(due) = self.table.get_mut(&key).and_then(|entry| entry.due.take()) {
            self.due.remove(&(due, key));
        }
    }

    /// Has a packet wait. One that there is no room for is dropped, or the oldest that waits for the same neighbour.
    fn wait(&mut self, key: Key, packet: Waiting, todo: &mut Vec<Todo>) {
        let Some(entry) = self.table.get_mut(&key) else { return };
        let len = packet.frame.len();
        let mut dropped = Vec::new();
        if entry.waiting.len() >= MAX_WAITING
            && let Some(oldest) = entry.waiting.pop_front()
        {
            self.waiting -= 1;
            self.waiting_bytes -= oldest.frame.len();
            dropped.push(oldest);
        }
        if self.waiting < MAX_WAITING_TOTAL && self.waiting_bytes + len <= MAX_WAITING_BYTES {
            self.waiting += 1;
            self.waiting_bytes += len;
            entry.waiting.push_back(packet);
        } else {
            dropped.push(packet);
        }
        if !dropped.is_empty() {
            self.refused += dropped.len() as u64;
            todo.push(Todo::Overflow(dropped));
        }
    }

    /// Takes the packets that wait.
    fn take_waiting(&mut self, key: &Key) -> Vec<Waiting> {
        let Some(entry) = self.table.get_mut(key) else { return Vec::new() };
        let packets: Vec<_> = std::mem::take(&mut entry.waiting).into();
        self.waiting -= packets.len();
        self.waiting_bytes -= packets.iter().map(|packet| packet.frame.len()).sum::<usize>();
        packets
    }

    fn learn(&mut self, key: Key, mac: Mac, state: NeighborState, is_new: bool, now: Millis, todo: &mut Vec<Todo>) {
        let Some(entry) = self.table.get_mut(&key) else { return };
        if is_new {
            entry.mac = mac;
            entry.learned = now;
            todo.push(Todo::Resolved(key, mac));
        }
        self.turn(key, state, now);
        let packets = self.take_waiting(&key);
        if !packets.is_empty() {
            todo.push(Todo::Release(packets));
        }
    }

    fn fail(&mut self, key: Key, now: Millis, todo: &mut Vec<Todo>) {
        let packets = self.take_waiting(&key);
        self.turn(key, NeighborState::Failed, now);
        todo.push(Todo::Failed(key, packets));
    }

    fn remove(&mut self, key: Key, todo: &mut Vec<Todo>) {
        let packets = self.take_waiting(&key);
        self.unschedule(key);
        if let Some(entry) = self.table.remove(&key) {
            self.incomplete -= usize::from(entry.state == NeighborState::Incomplete);
            todo.push(Todo::Forgotten(key));
            if !packets.is_empty() {
                todo.push(Todo::Overflow(packets));
            }
        }
    }
}

impl Entry {
    fn is_known(&self) -> bool {
        !matches!(self.state, NeighborState::Incomplete | NeighborState::Failed)
    }
}

/// How long a neighbour counts as reachable: [`REACHABLE`], a half of it more or less, so that those that were found
/// together are not asked again together.
fn spread(key: &Key, now: Millis) -> u64 {
    let bits = match key.1 {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits() as u64,
    };
    let mixed = (bits ^ now.0 ^ u64::from(key.0.0) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    REACHABLE / 2 + mixed % REACHABLE
}

#[cfg(test)]
mod tests;
