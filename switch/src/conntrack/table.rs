//! The connections by what their packets show.

use super::conn::Conn;
use super::tuple::{Direction, Tuple};
use hashbrown::HashTable;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Parts that are locked one by one; a power of two.
const SHARDS: usize = 256;

/// A connection under one of its two tuples.
type Entry = (Arc<Conn>, Direction);

/// All connections.
#[derive(Debug)]
pub(crate) struct Table {
    shards: Box<[Mutex<HashTable<Entry>>]>,
    hasher: RandomState,
}

impl Default for Table {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }
}

impl Table {
    /// The connection that a packet with this tuple belongs to, and the packet's direction.
    pub(crate) fn find(&self, tuple: &Tuple) -> Option<Entry> {
        let hash = self.hasher.hash_one(tuple);
        let shard = self.shard(hash);
        shard.find(hash, |(conn, direction)| conn.tuple(*direction) == tuple).cloned()
    }

    /// Adds a connection. `None` if one of its tuples is taken.
    pub(crate) fn insert(&self, conn: Conn) -> Option<Arc<Conn>> {
        let conn = Arc::new(conn);
        if self.insert_one(&conn, Direction::Reply) {
            if self.insert_one(&conn, Direction::Original) {
                return Some(conn);
            }
            self.remove_one(&conn, Direction::Reply);
        }
        None
    }

    /// Takes a connection out.
    pub(crate) fn remove(&self, conn: &Arc<Conn>) {
        if conn.end() {
            self.remove_one(conn, Direction::Original);
            self.remove_one(conn, Direction::Reply);
        }
    }

    fn insert_one(&self, conn: &Arc<Conn>, direction: Direction) -> bool {
        let tuple = conn.tuple(direction);
        let hash = self.hasher.hash_one(tuple);
        let mut shard = self.shard(hash);
        if shard.find(hash, |(conn, direction)| conn.tuple(*direction) == tuple).is_some() {
            return false;
        }
        shard.insert_unique(hash, (Arc::clone(conn), direction), |(conn, d)| self.hasher.hash_one(conn.tuple(*d)));
        true
    }

    fn remove_one(&self, conn: &Arc<Conn>, direction: Direction) {
        let hash = self.hasher.hash_one(conn.tuple(direction));
        let mut shard = self.shard(hash);
        if let Ok(found) = shard.find_entry(hash, |(other, d)| *d == direction && Arc::ptr_eq(other, conn)) {
            found.remove();
        }
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, HashTable<Entry>> {
        let index = (hash >> 48) as usize & (SHARDS - 1);
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
