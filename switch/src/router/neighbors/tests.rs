//! What becomes of neighbours as time passes and things are heard.

use super::NeighborState::{Failed, Incomplete, Permanent, Probe, Reachable, Stale};
use super::*;
use sluice_flows::router::{PuntKind, VrfId};
use std::net::Ipv4Addr;

const A: Mac = [2, 0, 0, 0, 0, 0xa];
const B: Mac = [2, 0, 0, 0, 0, 0xb];
const ANSWER: Heard = Heard::Answer { replaces: true };

fn host(n: u32) -> Key {
    (InterfaceId(1), Ipv4Addr::from_bits(0x0a00_0000 + n).into())
}

fn packet(len: usize) -> Waiting {
    let punt = Punt {
        kind: PuntKind::Resolve,
        vrf: VrfId(0),
        in_interface: Some(InterfaceId(2)),
        out_interface: Some(InterfaceId(1)),
        next_hop: Some(host(1).1),
        to_many: false,
    };
    Waiting { frame: Frame::from_bytes(&vec![0; len]), punt }
}

/// A table with a clock and what is to be done in words.
#[derive(Default)]
struct World {
    neighbors: Neighbors,
    now: u64,
    used: BTreeMap<Key, Millis>,
}

impl World {
    fn wanted(&mut self, n: u32) -> Vec<String> {
        self.run(|neighbors, now, todo| neighbors.wanted(host(n), Some(packet(100)), now, todo))
    }

    fn heard(&mut self, n: u32, mac: Mac, heard: Heard) -> Vec<String> {
        self.run(|neighbors, now, todo| neighbors.heard(host(n), mac, heard, now, todo))
    }

    fn pass(&mut self, millis: u64) -> Vec<String> {
        self.now += millis;
        let used = std::mem::take(&mut self.used);
        let lookup = |key: &Key| used.get(key).copied().unwrap_or_default();
        let said = self.run(|neighbors, now, todo| neighbors.tick(now, lookup, todo));
        self.used = used;
        said
    }

    fn run(&mut self, work: impl FnOnce(&mut Neighbors, Millis, &mut Vec<Todo>)) -> Vec<String> {
        let mut todo = Vec::new();
        work(&mut self.neighbors, Millis(self.now), &mut todo);
        self.check();
        todo.into_iter().map(said).collect()
    }

    fn state(&self, n: u32) -> Option<NeighborState> {
        self.neighbors.list(Millis(self.now)).find(|info| info.address == host(n).1).map(|info| info.state)
    }

    /// The sums agree with what they are the sums of.
    fn check(&self) {
        let n = &self.neighbors;
        let of = |state| n.table.values().filter(|entry| entry.state == state).count();
        assert_eq!(n.incomplete, of(Incomplete));
        assert_eq!(n.waiting, n.table.values().map(|entry| entry.waiting.len()).sum::<usize>());
        let bytes = n.table.values().flat_map(|entry| &entry.waiting).map(|packet| packet.frame.len()).sum::<usize>();
        assert_eq!(n.waiting_bytes, bytes);
        assert_eq!(n.due.len(), n.table.len() - of(Permanent), "everybody has a day");
        assert!(n.table.iter().all(|(key, entry)| entry.due.is_none_or(|due| n.due.contains(&(due, *key)))));
    }
}

fn said(todo: Todo) -> String {
    let last = |key: Key| key.1.to_string();
    let mac = |mac: Mac| format!("{:x}", mac[5]);
    match todo {
        Todo::Ask(key, None) => format!("ask {}", last(key)),
        Todo::Ask(key, Some(at)) => format!("ask {} at {}", last(key), mac(at)),
        Todo::Resolved(key, at) => format!("{} is {}", last(key), mac(at)),
        Todo::Release(packets) => format!("release {}", packets.len()),
        Todo::Failed(key, packets) => format!("{} failed, {} waited", last(key), packets.len()),
        Todo::Forgotten(key) => format!("forget {}", last(key)),
        Todo::Overflow(packets) => format!("drop {}", packets.len()),
    }
}

#[test]
fn packets_wait_until_the_neighbour_answers() {
    let mut world = World::default();
    assert_eq!(world.wanted(1), ["ask 10.0.0.1"]);
    assert!(world.wanted(1).is_empty());
    assert_eq!(world.pass(999), [""; 0]);
    assert_eq!(world.pass(1), ["ask 10.0.0.1"]);
    assert_eq!(world.heard(1, A, ANSWER), ["10.0.0.1 is a", "release 2"]);
    assert_eq!(world.state(1), Some(Reachable));
    assert_eq!(world.wanted(1), ["release 1"], "a packet that crossed the flow");
}

#[test]
fn after_three_questions_it_has_failed_and_after_a_while_is_asked_for_anew() {
    let mut world = World::default();
    world.wanted(1);
    assert_eq!([world.pass(1000), world.pass(1000)], [["ask 10.0.0.1"], ["ask 10.0.0.1"]]);
    assert_eq!(world.pass(1000), ["10.0.0.1 failed, 1 waited"]);
    assert_eq!(world.state(1), Some(Failed));
    assert_eq!(world.pass(2999), [""; 0]);
    assert_eq!(world.pass(1), ["forget 10.0.0.1"]);
    assert_eq!(world.wanted(1), ["ask 10.0.0.1"]);
}

#[test]
fn one_that_failed_comes_back_by_a_packet_or_by_itself() {
    let mut world = World::default();
    let fail = |world: &mut World, n| {
        world.wanted(n);
        (0..3).for_each(|_| drop(world.pass(1000)));
        assert_eq!(world.state(n), Some(Failed));
    };
    fail(&mut world, 1);
    assert_eq!(world.wanted(1), ["forget 10.0.0.1", "ask 10.0.0.1"], "its drop goes");
    world.pass(9000);
    fail(&mut world, 2);
    assert_eq!(world.heard(2, A, Heard::Announcement { replaces: true }), [""; 0]);
    assert_eq!(world.heard(2, A, Heard::Question), ["10.0.0.2 is a"]);
    assert_eq!(world.state(2), Some(Stale));
}

#[test]
fn a_neighbour_that_is_used_is_asked_at_its_address_and_one_that_is_not_is_forgotten() {
    let mut world = World::default();
    for n in [1, 2] {
        world.wanted(n);
        world.heard(n, A, ANSWER);
    }
    world.pass(45_000);
    assert_eq!([world.state(1), world.state(2)], [Some(Stale); 2]);
    world.used.insert(host(1), Millis(world.now + 1));
    assert_eq!(world.pass(5000), ["ask 10.0.0.1 at a"]);
    assert_eq!(world.state(1), Some(Probe));
    assert_eq!(world.heard(1, A, ANSWER), [""; 0], "nothing new");
    assert_eq!(world.state(1), Some(Reachable));
    let all: Vec<_> = (0..12).flat_map(|_| world.pass(5000)).collect();
    assert!(all.contains(&"forget 10.0.0.2".to_owned()), "{all:?}");
}

#[test]
fn a_probe_that_nobody_answers_fails() {
    let mut world = World::default();
    world.heard(1, A, Heard::Question);
    world.used.insert(host(1), Millis(1));
    assert_eq!(world.pass(5000), ["ask 10.0.0.1 at a"]);
    assert_eq!([world.pass(1000), world.pass(1000)], [["ask 10.0.0.1 at a"], ["ask 10.0.0.1 at a"]]);
    assert_eq!(world.pass(1000), ["10.0.0.1 failed, 0 waited"]);
}

#[test]
fn only_questions_for_us_make_somebody_known_that_nobody_asked_for() {
    let mut world = World::default();
    assert_eq!(world.heard(1, A, ANSWER), [""; 0]);
    assert_eq!(world.heard(1, A, Heard::Announcement { replaces: true }), [""; 0]);
    assert_eq!(world.neighbors.len(), 0);
    assert_eq!(world.heard(1, A, Heard::Question), ["10.0.0.1 is a"]);
    assert_eq!(world.state(1), Some(Stale));
}

#[test]
fn a_new_address_takes_the_place_of_the_old_one_but_not_at_once() {
    let mut world = World::default();
    world.wanted(1);
    world.heard(1, A, ANSWER);
    assert_eq!(world.heard(1, B, ANSWER), [""; 0], "the first of two answers counts");
    world.pass(1000);
    assert_eq!(world.heard(1, B, Heard::Announcement { replaces: true }), ["10.0.0.1 is b"]);
    assert_eq!(world.state(1), Some(Stale), "to be confirmed");
    world.pass(1000);
    assert_eq!(world.heard(1, A, Heard::Answer { replaces: false }), [""; 0]);
    assert_eq!(world.heard(1, A, ANSWER), ["10.0.0.1 is a"]);
    assert_eq!(world.heard(1, B, Heard::Answer { replaces: false }), [""; 0]);
    assert_eq!(world.state(1), Some(Stale), "somebody contradicts (RFC 4861, 7.2.5)");
}

#[test]
fn what_is_configured_stays() {
    let mut world = World::default();
    let said = world.run(|neighbors, now, todo| neighbors.set_permanent(host(1), A, now, todo));
    assert_eq!(said, ["10.0.0.1 is a"]);
    for heard in [ANSWER, Heard::Question, Heard::Announcement { replaces: true }] {
        world.pass(5000);
        assert_eq!(world.heard(1, B, heard), [""; 0]);
    }
    assert_eq!(world.pass(10_000_000), [""; 0]);
    assert_eq!((world.state(1), world.neighbors.mac(&host(1))), (Some(Permanent), Some(A)));
}

#[test]
fn a_configured_neighbour_takes_the_packets_that_waited_for_it() {
    let mut world = World::default();
    world.wanted(1);
    let said = world.run(|neighbors, now, todo| neighbors.set_permanent(host(1), A, now, todo));
    assert_eq!(said, ["10.0.0.1 is a", "release 1"]);
}

#[test]
fn of_many_packets_the_last_wait() {
    let mut world = World::default();
    let dropped: usize = (0..200).flat_map(|_| world.wanted(1)).filter(|said| said == "drop 1").count();
    assert_eq!((dropped, world.neighbors.waiting), (200 - MAX_WAITING, MAX_WAITING));
    assert_eq!(world.heard(1, A, ANSWER), ["10.0.0.1 is a", "release 101"]);
}

#[test]
fn packets_wait_up_to_a_limit_in_all() {
    let mut world = World::default();
    for n in 1..=200 {
        (0..MAX_WAITING).for_each(|_| drop(world.wanted(n)));
    }
    assert_eq!(world.neighbors.waiting, MAX_WAITING_TOTAL);
    let mut world = World::default();
    for n in 1..=200 {
        world.run(|neighbors, now, todo| neighbors.wanted(host(n), Some(packet(65_000)), now, todo));
    }
    assert!(world.neighbors.waiting_bytes <= MAX_WAITING_BYTES && world.neighbors.waiting == 64);
}

#[test]
fn a_scan_is_asked_for_up_to_a_limit() {
    let mut world = World::default();
    let said: Vec<_> = (0..2000).flat_map(|n| world.wanted(n)).collect();
    assert_eq!(said.iter().filter(|said| said.starts_with("ask")).count(), MAX_INCOMPLETE);
    assert_eq!((world.neighbors.incomplete, world.neighbors.len()), (MAX_INCOMPLETE, MAX_INCOMPLETE));
    (0..4).for_each(|_| drop(world.pass(1000)));
    assert_eq!(world.wanted(5000), ["ask 10.0.19.136"], "there is room again");
}

#[test]
fn a_flood_of_questions_fills_the_table_and_no_more() {
    let mut world = World::default();
    for n in 0..10 {
        world.wanted(n);
        world.heard(n, A, ANSWER);
    }
    let mut todo = Vec::new();
    for n in 0..3 * MAX_NEIGHBORS as u32 {
        world.neighbors.heard(host(100 + n), B, Heard::Question, Millis(1), &mut todo);
        assert!(world.neighbors.len() <= MAX_NEIGHBORS);
    }
    world.check();
    assert!((0..10).all(|n| world.state(n) == Some(Reachable)), "those in use stay");
}
