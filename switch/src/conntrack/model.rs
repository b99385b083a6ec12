//! The shards under a model checker: every order in which threads may take locks and see each other's writes.
//!
//! Here `shards.rs` is compiled a second time, on loom's locks in place of the standard library's; the items are as
//! small as can be. What is not looked at: more than two threads, more than two items at once, and the tables within
//! shards, which are plain data under a lock.

mod sync {
    pub(crate) use loom::sync::{Arc, Mutex, MutexGuard};
    pub(crate) use loom::thread::yield_now;
    pub(crate) use std::sync::PoisonError;
}

#[path = "shards.rs"]
#[expect(clippy::duplicate_mod, reason = "on other locks it is another module")]
#[expect(dead_code, reason = "walks are not part of the model")]
mod shards;

use super::tuple::{Direction, Tuple};
use foldhash::quality::SeedableRandomState;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use shards::{Put, Shards, TwoKeyed};
use std::net::Ipv4Addr;
use sync::Arc;

#[derive(Debug)]
struct Item {
    tuples: [Tuple; 2],
    ended: AtomicBool,
}

impl TwoKeyed for Item {
    fn tuple(&self, direction: Direction) -> &Tuple {
        &self.tuples[direction as usize]
    }

    fn is_alive(&self) -> bool {
        !self.ended.load(Ordering::Acquire)
    }

    fn end(&self) -> bool {
        !self.ended.swap(true, Ordering::AcqRel)
    }
}

fn shards() -> Arc<Shards<Item>> {
    Arc::new(Shards::new(2, SeedableRandomState::fixed()))
}

fn item(original: Tuple, reply: Tuple) -> Arc<Item> {
    Arc::new(Item { tuples: [original, reply], ended: AtomicBool::new(false) })
}

/// A tuple that stands in this shard, another for each `n`.
fn tuple(shards: &Shards<Item>, shard: usize, n: usize) -> Tuple {
    let tuple = |port| {
        let (src, dst) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        Tuple::new(0, 17, src.into(), dst.into()).with_ports(port, 53)
    };
    (1000..).map(tuple).filter(|tuple| shards.index(shards.hash(tuple)) == shard).nth(n).unwrap()
}

fn reversed(tuple: Tuple) -> Tuple {
    tuple.reversed().unwrap()
}

fn insert(shards: &Shards<Item>, item: &Arc<Item>) -> Put<Item> {
    shards.insert(item, |_| false)
}

fn entries(shards: &Shards<Item>) -> usize {
    (0..shards.count()).map(|index| shards.entries(index)).sum()
}

#[test]
fn two_that_insert_the_same_end_with_one() {
    loom::model(|| {
        let shards = shards();
        let original = tuple(&shards, 0, 0);
        let there = {
            let shards = Arc::clone(&shards);
            thread::spawn(move || {
                let item = item(reversed(original), original);
                (insert(&shards, &item), item)
            })
        };
        let here = item(original, reversed(original));
        let put = insert(&shards, &here);
        let (other_put, other) = there.join().unwrap();
        match (put, other_put) {
            (Put::Done, Put::Exists(found, Direction::Reply)) => assert!(Arc::ptr_eq(&found, &here)),
            (Put::Exists(found, Direction::Reply), Put::Done) => assert!(Arc::ptr_eq(&found, &other)),
            puts => panic!("{puts:?}"),
        }
        assert_eq!(entries(&shards), 1);
    });
}

#[test]
fn two_shards_are_locked_without_a_deadlock_and_a_reply_tuple_is_given_once() {
    loom::model(|| {
        let shards = shards();
        let (a, b) = (tuple(&shards, 0, 0), tuple(&shards, 1, 0));
        let (to_a, to_b) = (item(b, reversed(a)), item(a, reversed(b)));
        let there = {
            let (shards, item) = (Arc::clone(&shards), Arc::clone(&to_a));
            thread::spawn(move || matches!(insert(&shards, &item), Put::Done))
        };
        let here = matches!(insert(&shards, &to_b), Put::Done);
        assert!(here && there.join().unwrap(), "they differ");
        assert_eq!(entries(&shards), 4);
    });
    loom::model(|| {
        let shards = shards();
        let (a, b, shared) = (tuple(&shards, 0, 0), tuple(&shards, 1, 0), tuple(&shards, 1, 1));
        let there = {
            let shards = Arc::clone(&shards);
            thread::spawn(move || insert(&shards, &item(a, reversed(shared))))
        };
        let puts = (insert(&shards, &item(b, reversed(shared))), there.join().unwrap());
        assert!(matches!(puts, (Put::Done, Put::Taken) | (Put::Taken, Put::Done)), "{puts:?}");
        assert_eq!(entries(&shards), 2);
    });
}

#[test]
fn what_two_remove_is_removed_once_and_leaves_nothing() {
    loom::model(|| {
        let shards = shards();
        let translated = item(tuple(&shards, 0, 0), reversed(tuple(&shards, 1, 0)));
        assert!(matches!(insert(&shards, &translated), Put::Done));
        let there = {
            let (shards, item) = (Arc::clone(&shards), Arc::clone(&translated));
            thread::spawn(move || shards.remove(&item))
        };
        let found = shards.find(&translated.tuples[0]);
        let here = shards.remove(&translated);
        assert!(here != there.join().unwrap());
        assert!(found.is_none_or(|(item, direction)| Arc::ptr_eq(&item, &translated) && direction as u8 == 0));
        assert!(shards.find(&translated.tuples[0]).is_none() && shards.find(&translated.tuples[1]).is_none());
        assert_eq!(entries(&shards), 0);
    });
}

#[test]
fn what_is_inserted_while_its_like_is_removed_is_there() {
    loom::model(|| {
        let shards = shards();
        let original = tuple(&shards, 1, 0);
        let (old, new) = (item(original, reversed(original)), item(original, reversed(original)));
        assert!(matches!(insert(&shards, &old), Put::Done));
        let there = {
            let (shards, old) = (Arc::clone(&shards), Arc::clone(&old));
            thread::spawn(move || assert!(shards.remove(&old), "nobody else does"))
        };
        let put = insert(&shards, &new);
        there.join().unwrap();
        let found = shards.find(&original).map(|(item, _)| item);
        match put {
            Put::Done => assert!(Arc::ptr_eq(&found.unwrap(), &new)),
            Put::Exists(other, _) => assert!(Arc::ptr_eq(&other, &old) && found.is_none()),
            put => panic!("{put:?}"),
        }
    });
}

#[test]
fn two_that_replace_what_is_stale_end_with_one() {
    loom::model(|| {
        let shards = shards();
        let original = tuple(&shards, 0, 0);
        let stale = item(original, reversed(original));
        assert!(matches!(insert(&shards, &stale), Put::Done));
        let replace = move |shards: &Shards<Item>, stale: &Arc<Item>| {
            let new = item(original, reversed(original));
            loop {
                match shards.insert(&new, |item| std::ptr::eq(item, &**stale)) {
                    Put::Stale(item) => _ = shards.remove(&item),
                    put => return (put, new),
                }
            }
        };
        let there = {
            let (shards, stale) = (Arc::clone(&shards), Arc::clone(&stale));
            thread::spawn(move || replace(&shards, &stale))
        };
        let (here, here_item) = replace(&shards, &stale);
        let (there, there_item) = there.join().unwrap();
        match (here, there) {
            (Put::Done, Put::Exists(item, _)) => assert!(Arc::ptr_eq(&item, &here_item)),
            (Put::Exists(item, _), Put::Done) => assert!(Arc::ptr_eq(&item, &there_item)),
            puts => panic!("{puts:?}"),
        }
        assert_eq!(entries(&shards), 1);
    });
}
