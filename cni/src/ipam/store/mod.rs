//! The store: what addresses are taken, by whom, in all networks of a data directory.
//!
//! One file, `addresses.redb`, a copy-on-write B-tree with checksums. A commit is on the disk before an operation answers, in
//! two phases, and has what is needed to open the file after a crash without reading it through: a process killed at any point leaves the file
//! as the last commit left it. Processes take turns by a lock on the file beside it, `addresses.lock`, for which they wait no
//! longer than [`LOCK_WAIT`]; the file is open only for one operation, so a long-running process (the Docker driver) and
//! plugins share it.
//!
//! Every operation is one transaction: several addresses of one attachment are there together or not at all.
//!
//! Tables: who has an address (`reserved`), what an attachment has (`owners`), the addresses that rest after a release
//! (`cooling`, and in order of time `cooling_queue`), those that `host-local` has given (`foreign`), and the joined spans of
//! all of these (`taken`), with which the next free address is found in two steps whatever is taken.

mod taken;

use super::address::{Address, Span};
use super::error::IpamError;
use nix::unistd::AccessFlags;
use redb::{
    Database, DatabaseError, Key, ReadOnlyTable, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError,
    Value, WriteTransaction,
};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a process waits for its turn.
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(20);
/// The longest pause between two tries to get the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(4);
/// Bytes of the file that are kept in memory during an operation.
const CACHE_SIZE: usize = 4 << 20;
/// Cooled addresses that one operation makes free at most: each takes one, so that many at once keep up with any load.
const COOLED_AT_ONCE: usize = 64;

/// A network, a family, an address's bits.
type AddressKey = (&'static str, u8, u128);
/// A network, a container's ID, an interface's name, a family, an address's bits.
type OwnerKey = (&'static str, &'static str, &'static str, u8, u128);
/// A kind or network, and a name.
type NameKey = (&'static str, &'static str);

const RESERVED: TableDefinition<'_, AddressKey, &[u8]> = TableDefinition::new("reserved");
const OWNERS: TableDefinition<'_, OwnerKey, ()> = TableDefinition::new("owners");
/// The first address of a span to its last.
const TAKEN: TableDefinition<'_, AddressKey, u128> = TableDefinition::new("taken");
/// Since when, in milliseconds since 1970.
const COOLING: TableDefinition<'_, AddressKey, u64> = TableDefinition::new("cooling");
const COOLING_QUEUE: TableDefinition<'_, (&str, u8, u64, u128), ()> = TableDefinition::new("cooling_queue");
const FOREIGN: TableDefinition<'_, AddressKey, ()> = TableDefinition::new("foreign");
/// By network and set.
const LAST: TableDefinition<'_, NameKey, (u8, u128)> = TableDefinition::new("last");
/// Small things by kind and name: the boot ID, what is known of directories, pools of Docker.
const NOTES: TableDefinition<'_, NameKey, &[u8]> = TableDefinition::new("notes");

/// Who has an address, and since when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The container's ID.
    pub container_id: String,
    /// The interface's name in the container; empty where `host-local` did not write it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ifname: String,
    /// The path of the container's network namespace; empty if it is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub netns: String,
    /// The boot of the kernel that it was reserved under; empty if it is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot_id: String,
    /// When it was reserved, in seconds since 1970.
    #[serde(default)]
    pub time_s: u64,
    /// The name that the attachment is known by: the pod's, or the one that it was reserved by.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Of Docker's: the run of its daemon that it was last asked for in; 0 for others.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) run: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Record {
    /// The owner in a sentence.
    pub(crate) fn owner(&self) -> String {
        let mut text = format!("container {}", self.container_id);
        if !self.ifname.is_empty() {
            text.push_str(&format!(", {}", self.ifname));
        }
        if !self.name.is_empty() && self.name != self.container_id {
            text.push_str(&format!(" ({})", self.name));
        }
        text
    }
}

/// The file and its lock. Nothing is open between operations.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    dir: PathBuf,
    wait: Duration,
}

impl Store {
    /// The store of a data directory; nothing is touched yet.
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), wait: LOCK_WAIT }
    }

    /// With another bound of the wait for a turn.
    #[cfg(test)]
    pub(crate) fn waiting(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    /// The file.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join("addresses.redb")
    }

    /// Runs one transaction. What it did is on the disk when this returns `Ok`, and nothing of it if not.
    pub(crate) fn write<T>(&self, body: impl FnOnce(&mut Tables<'_>) -> Result<T, IpamError>) -> Result<T, IpamError> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(|e| self.file(&self.dir, e))?;
        let _turn = self.lock()?;
        let path = self.path();
        if !path.exists() {
            self.make()?;
        }
        let database = open_database(&path).map_err(|e| self.wrong(e))?;
        let mut transaction = database.begin_write().map_err(|e| self.wrong(e))?;
        transaction.set_quick_repair(true);
        let mut tables = Tables::open(&transaction, self)?;
        let answer = body(&mut tables);
        drop(tables);
        match answer.map_err(|e| self.located(e)) {
            Ok(answer) => transaction.commit().map(|()| answer).map_err(|e| self.wrong(e)),
            Err(error) => {
                transaction.abort().map_err(|e| self.wrong(e))?;
                Err(error)
            }
        }
    }

    /// Makes an empty store with all of its tables, under another name until it is whole on the disk.
    fn make(&self) -> Result<(), IpamError> {
        let (path, new) = (self.path(), self.dir.join("addresses.new"));
        // The database would make its file readable by all.
        let made = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new);
        made.map_err(|e| self.file(&new, e))?;
        let database = open_database(&new).map_err(|e| self.wrong(e))?;
        let transaction = database.begin_write().map_err(|e| self.wrong(e))?;
        drop(Tables::open(&transaction, self)?);
        transaction.commit().map_err(|e| self.wrong(e))?;
        drop(database);
        std::fs::rename(&new, &path).map_err(|e| self.file(&new, e))?;
        File::open(&self.dir).and_then(|d| d.sync_all()).map_err(|e| self.file(&self.dir, e))
    }

    /// Reads, without writing to the disk where the file was left in order. `None` if there is no store yet.
    pub(crate) fn read<T>(&self, body: impl FnOnce(&View) -> Result<T, IpamError>) -> Result<Option<T>, IpamError> {
        let path = self.path();
        if !path.exists() {
            return Ok(None);
        }
        let _turn = self.lock()?;
        let read_only = || Database::builder().set_cache_size(CACHE_SIZE).open_read_only(&path);
        let database = match read_only() {
            // A process was killed in the middle, and the file has to be opened for writing once.
            Err(DatabaseError::RepairAborted) => {
                drop(open_database(&path).map_err(|e| self.wrong(e))?);
                read_only()
            }
            other => other,
        };
        let view = View::open(&database.map_err(|e| self.wrong(e))?, self)?;
        body(&view).map(Some).map_err(|e| self.located(e))
    }

    /// Whether the store can be written, or made if it is not there; without writing.
    pub(crate) fn is_usable(&self) -> Result<(), IpamError> {
        let path = self.path();
        if path.exists() {
            return OpenOptions::new().read(true).write(true).open(&path).map(drop).map_err(|e| self.file(&path, e));
        }
        let there = self.dir.ancestors().find(|d| d.exists()).unwrap_or(Path::new("/"));
        nix::unistd::access(there, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|e| self.file(there, e.into()))
    }

    /// Waits for this process's turn, which ends when the file is dropped.
    fn lock(&self) -> Result<File, IpamError> {
        let path = self.dir.join("addresses.lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(|e| self.file(&path, e))?;
        lock(&file, &path, self.wait)?;
        Ok(file)
    }

    /// With the store's path, which what failed inside does not know.
    fn located(&self, error: IpamError) -> IpamError {
        match error {
            IpamError::Store { path, why } if path.as_os_str().is_empty() => self.wrong(why),
            other => other,
        }
    }

    fn wrong(&self, error: impl std::fmt::Display) -> IpamError {
        IpamError::Store { path: self.path(), why: error.to_string() }
    }

    fn file(&self, path: &Path, source: std::io::Error) -> IpamError {
        IpamError::File { path: path.to_owned(), source }
    }
}

fn open_database(path: &Path) -> Result<Database, DatabaseError> {
    Database::builder().set_cache_size(CACHE_SIZE).create(path)
}

/// Takes the lock of a file, waiting no longer than this.
pub(crate) fn lock(file: &File, path: &Path, wait: Duration) -> Result<(), IpamError> {
    let start = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if start.elapsed() < wait => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(LOCK_PAUSE);
            }
            Err(TryLockError::WouldBlock) => {
                return Err(IpamError::Busy { path: path.to_owned(), seconds: wait.as_secs() });
            }
            Err(TryLockError::Error(source)) => return Err(IpamError::File { path: path.to_owned(), source }),
        }
    }
}

/// All tables of a transaction.
pub(crate) struct Tables<'t> {
    reserved: Table<'t, AddressKey, &'static [u8]>,
    owners: Table<'t, OwnerKey, ()>,
    taken: Table<'t, AddressKey, u128>,
    cooling: Table<'t, AddressKey, u64>,
    queue: Table<'t, (&'static str, u8, u64, u128), ()>,
    foreign: Table<'t, AddressKey, ()>,
    last: Table<'t, NameKey, (u8, u128)>,
    notes: Table<'t, NameKey, &'static [u8]>,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction, store: &Store) -> Result<Self, IpamError> {
        Ok(Self {
            reserved: open(transaction, RESERVED, store)?,
            owners: open(transaction, OWNERS, store)?,
            taken: open(transaction, TAKEN, store)?,
            cooling: open(transaction, COOLING, store)?,
            queue: open(transaction, COOLING_QUEUE, store)?,
            foreign: open(transaction, FOREIGN, store)?,
            last: open(transaction, LAST, store)?,
            notes: open(transaction, NOTES, store)?,
        })
    }

    /// Who has the address.
    pub(crate) fn owner(&self, network: &str, a: Address) -> Result<Option<Record>, IpamError> {
        Ok(self.reserved.get((network, a.family, a.bits))?.and_then(|v| decode(v.value())))
    }

    /// The addresses of an attachment, in order.
    pub(crate) fn of_owner(&self, network: &str, id: &str, ifname: &str) -> Result<Vec<Address>, IpamError> {
        of_owner(&self.owners, network, id, ifname)
    }

    /// Whether the address is `host-local`'s.
    pub(crate) fn is_foreign(&self, network: &str, a: Address) -> Result<bool, IpamError> {
        Ok(self.foreign.get((network, a.family, a.bits))?.is_some())
    }

    /// The first address from this one on that is not taken.
    pub(crate) fn next_free(&self, network: &str, from: Address) -> Result<Option<Address>, IpamError> {
        Ok(taken::next_free(&self.taken, network, from)?)
    }

    /// Gives the address to an owner. It must not be another's; that it cools or is `host-local`'s no longer counts.
    pub(crate) fn reserve(&mut self, network: &str, a: Address, record: &Record) -> Result<(), IpamError> {
        let value = serde_json::to_vec(record).map_err(|e| IpamError::Decode(e.to_string()))?;
        self.reserved.insert((network, a.family, a.bits), value.as_slice())?;
        self.owners.insert((network, record.container_id.as_str(), record.ifname.as_str(), a.family, a.bits), ())?;
        self.forget_cooling(network, a)?;
        self.foreign.remove((network, a.family, a.bits))?;
        taken::take(&mut self.taken, network, a)?;
        Ok(())
    }

    /// Takes the address from its owner. It rests from `now` on, in milliseconds since 1970, or if that is `None`, is free.
    pub(crate) fn release(&mut self, network: &str, a: Address, now: Option<u64>) -> Result<Option<Record>, IpamError> {
        let Some(record) = self.reserved.remove((network, a.family, a.bits))?.map(|v| decode(v.value())) else {
            return Ok(None);
        };
        let record = record.unwrap_or_default();
        self.owners.remove((network, record.container_id.as_str(), record.ifname.as_str(), a.family, a.bits))?;
        match now {
            Some(now) => {
                self.cooling.insert((network, a.family, a.bits), now)?;
                self.queue.insert((network, a.family, now, a.bits), ())?;
            }
            None => taken::free(&mut self.taken, network, a)?,
        }
        Ok(Some(record))
    }

    fn forget_cooling(&mut self, network: &str, a: Address) -> Result<bool, IpamError> {
        let Some(since) = self.cooling.remove((network, a.family, a.bits))?.map(|v| v.value()) else {
            return Ok(false);
        };
        self.queue.remove((network, a.family, since, a.bits))?;
        Ok(true)
    }

    /// Makes free what has rested for `cooldown` milliseconds, at most [`COOLED_AT_ONCE`] addresses of a family.
    pub(crate) fn cooled(&mut self, network: &str, family: u8, now: u64, cooldown: u64) -> Result<(), IpamError> {
        for _ in 0..COOLED_AT_ONCE {
            let all = (network, family, 0, 0)..=(network, family, u64::MAX, u128::MAX);
            let (oldest, newest) = {
                let mut queue = self.queue.range(all)?;
                let oldest = queue.next().transpose()?.map(|(k, _)| (k.value().2, k.value().3));
                (oldest, queue.next_back().transpose()?.map(|(k, _)| (k.value().2, k.value().3)))
            };
            let over = |at: &(u64, u128)| at.0 > now || at.0.saturating_add(cooldown) <= now;
            // What was released in the future was released before the clock was set back.
            let Some((_, bits)) = oldest.filter(over).or(newest.filter(|at| at.0 > now)) else { return Ok(()) };
            let address = Address { family, bits };
            self.forget_cooling(network, address)?;
            taken::free(&mut self.taken, network, address)?;
        }
        Ok(())
    }

    /// The address that has rested the longest of those that `fits` lets pass.
    pub(crate) fn longest_cooling(
        &self,
        network: &str,
        family: u8,
        fits: impl Fn(Address) -> bool,
    ) -> Result<Option<Address>, IpamError> {
        for entry in self.queue.range((network, family, 0, 0)..=(network, family, u64::MAX, u128::MAX))? {
            let address = Address { family, bits: entry?.0.value().3 };
            if fits(address) {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }

    /// Notes that `host-local` has given the address, unless it is ours.
    pub(crate) fn add_foreign(&mut self, network: &str, a: Address) -> Result<(), IpamError> {
        if self.reserved.get((network, a.family, a.bits))?.is_some() {
            return Ok(());
        }
        self.foreign.insert((network, a.family, a.bits), ())?;
        self.forget_cooling(network, a)?;
        taken::take(&mut self.taken, network, a)?;
        Ok(())
    }

    /// Notes that `host-local` has released the address.
    pub(crate) fn remove_foreign(&mut self, network: &str, a: Address) -> Result<(), IpamError> {
        if self.foreign.remove((network, a.family, a.bits))?.is_some() {
            taken::free(&mut self.taken, network, a)?;
        }
        Ok(())
    }

    /// All addresses that `host-local` has, as last seen.
    pub(crate) fn all_foreign(&self, network: &str) -> Result<Vec<Address>, IpamError> {
        keys_of(&self.foreign, network)
    }

    /// The address of the set that was given last.
    pub(crate) fn last(&self, network: &str, set: &str) -> Result<Option<Address>, IpamError> {
        Ok(self.last.get((network, set))?.map(|v| Address { family: v.value().0, bits: v.value().1 }))
    }

    /// Remembers it.
    pub(crate) fn set_last(&mut self, network: &str, set: &str, a: Address) -> Result<(), IpamError> {
        self.last.insert((network, set), (a.family, a.bits))?;
        Ok(())
    }

    /// A small thing by kind and name.
    pub(crate) fn note(&self, kind: &str, name: &str) -> Result<Option<Vec<u8>>, IpamError> {
        Ok(self.notes.get((kind, name))?.map(|v| v.value().to_vec()))
    }

    /// All small things of a kind, by name.
    pub(crate) fn notes(&self, kind: &str) -> Result<Vec<(String, Vec<u8>)>, IpamError> {
        notes(&self.notes, kind)
    }

    /// Sets a small thing, or removes it.
    pub(crate) fn set_note(&mut self, kind: &str, name: &str, value: Option<&[u8]>) -> Result<(), IpamError> {
        match value {
            Some(value) => drop(self.notes.insert((kind, name), value)?),
            None => drop(self.notes.remove((kind, name))?),
        }
        Ok(())
    }

    /// Everything that is reserved, in one network or all.
    pub(crate) fn reservations(&self, network: Option<&str>) -> Result<Vec<(String, Address, Record)>, IpamError> {
        reservations(&self.reserved, network)
    }

    /// Forgets that addresses of a network rest, and which was given last.
    pub(crate) fn forget_network(&mut self, network: &str) -> Result<(), IpamError> {
        for address in keys_of(&self.cooling, network)? {
            self.forget_cooling(network, address)?;
            taken::free(&mut self.taken, network, address)?;
        }
        let sets: Vec<String> = {
            let mut sets = Vec::new();
            for entry in self.last.range((network, "")..)? {
                let key = entry?.0;
                if key.value().0 != network {
                    break;
                }
                sets.push(key.value().1.to_owned());
            }
            sets
        };
        for set in sets {
            self.last.remove((network, set.as_str()))?;
        }
        Ok(())
    }
}

/// All tables, to read.
pub(crate) struct View {
    reserved: ReadOnlyTable<AddressKey, &'static [u8]>,
    owners: ReadOnlyTable<OwnerKey, ()>,
    taken: ReadOnlyTable<AddressKey, u128>,
    cooling: ReadOnlyTable<AddressKey, u64>,
    notes: ReadOnlyTable<NameKey, &'static [u8]>,
}

impl View {
    fn open(database: &impl ReadableDatabase, store: &Store) -> Result<Self, IpamError> {
        let transaction = database.begin_read().map_err(|e| store.wrong(e))?;
        let wrong = |e: TableError| store.wrong(e);
        Ok(Self {
            reserved: transaction.open_table(RESERVED).map_err(wrong)?,
            owners: transaction.open_table(OWNERS).map_err(wrong)?,
            taken: transaction.open_table(TAKEN).map_err(wrong)?,
            cooling: transaction.open_table(COOLING).map_err(wrong)?,
            notes: transaction.open_table(NOTES).map_err(wrong)?,
        })
    }

    /// The addresses of an attachment, in order.
    pub(crate) fn of_owner(&self, network: &str, id: &str, ifname: &str) -> Result<Vec<Address>, IpamError> {
        of_owner(&self.owners, network, id, ifname)
    }

    /// Who has the address.
    pub(crate) fn owner(&self, network: &str, a: Address) -> Result<Option<Record>, IpamError> {
        Ok(self.reserved.get((network, a.family, a.bits))?.and_then(|v| decode(v.value())))
    }

    /// Spans of taken addresses, in order, cut to this one.
    pub(crate) fn taken_in(&self, network: &str, within: Span) -> Result<Vec<Span>, IpamError> {
        Ok(taken::spans_in(&self.taken, network, within)?)
    }

    /// The first address from this one on that is not taken.
    pub(crate) fn next_free(&self, network: &str, from: Address) -> Result<Option<Address>, IpamError> {
        Ok(taken::next_free(&self.taken, network, from)?)
    }

    /// The addresses of a span that rest.
    pub(crate) fn cooling_in(&self, network: &str, within: Span) -> Result<Vec<Address>, IpamError> {
        let family = within.family;
        let mut all = Vec::new();
        for entry in self.cooling.range((network, family, within.first)..=(network, family, within.last))? {
            all.push(Address { family, bits: entry?.0.value().2 });
        }
        Ok(all)
    }

    /// A small thing by kind and name.
    pub(crate) fn note(&self, kind: &str, name: &str) -> Result<Option<Vec<u8>>, IpamError> {
        Ok(self.notes.get((kind, name))?.map(|v| v.value().to_vec()))
    }

    /// All small things of a kind, by name.
    pub(crate) fn notes(&self, kind: &str) -> Result<Vec<(String, Vec<u8>)>, IpamError> {
        notes(&self.notes, kind)
    }

    /// Everything that is reserved, in one network or all.
    pub(crate) fn reservations(&self, network: Option<&str>) -> Result<Vec<(String, Address, Record)>, IpamError> {
        reservations(&self.reserved, network)
    }
}

fn open<'t, K: Key + 'static, V: Value + 'static>(
    transaction: &'t WriteTransaction,
    table: TableDefinition<'_, K, V>,
    store: &Store,
) -> Result<Table<'t, K, V>, IpamError> {
    transaction.open_table(table).map_err(|e| store.wrong(e))
}

/// A record that cannot be read counts as one of nobody: its address stays taken until GC.
fn decode(value: &[u8]) -> Option<Record> {
    Some(serde_json::from_slice(value).unwrap_or_default())
}

fn of_owner(
    owners: &impl ReadableTable<OwnerKey, ()>,
    network: &str,
    id: &str,
    ifname: &str,
) -> Result<Vec<Address>, IpamError> {
    let mut all = Vec::new();
    for entry in owners.range((network, id, ifname, 0, 0)..=(network, id, ifname, u8::MAX, u128::MAX))? {
        let key = entry?.0;
        all.push(Address { family: key.value().3, bits: key.value().4 });
    }
    Ok(all)
}

fn keys_of<V: Value + 'static>(
    table: &impl ReadableTable<AddressKey, V>,
    network: &str,
) -> Result<Vec<Address>, IpamError> {
    let mut all = Vec::new();
    for entry in table.range((network, 0, 0)..=(network, u8::MAX, u128::MAX))? {
        let key = entry?.0;
        all.push(Address { family: key.value().1, bits: key.value().2 });
    }
    Ok(all)
}

fn reservations(
    reserved: &impl ReadableTable<AddressKey, &'static [u8]>,
    network: Option<&str>,
) -> Result<Vec<(String, Address, Record)>, IpamError> {
    let mut all = Vec::new();
    let from = network.unwrap_or_default();
    for entry in reserved.range((from, 0, 0)..)? {
        let (key, value) = entry?;
        let (net, family, bits) = key.value();
        if network.is_some_and(|n| n != net) {
            break;
        }
        all.push((net.to_owned(), Address { family, bits }, decode(value.value()).unwrap_or_default()));
    }
    Ok(all)
}

fn notes(table: &impl ReadableTable<NameKey, &'static [u8]>, kind: &str) -> Result<Vec<(String, Vec<u8>)>, IpamError> {
    let mut all = Vec::new();
    for entry in table.range((kind, "")..)? {
        let (key, value) = entry?;
        if key.value().0 != kind {
            break;
        }
        all.push((key.value().1.to_owned(), value.value().to_vec()));
    }
    Ok(all)
}

#[cfg(test)]
impl Tables<'_> {
    /// Compares the tables with each other: every address has one state, its owner's entry, and its place in a span.
    pub(crate) fn audit(&self) -> Result<(), IpamError> {
        use std::collections::BTreeSet;
        let mut all = BTreeSet::new();
        for (network, a, record) in self.reservations(None)? {
            assert!(all.insert((network.clone(), a)));
            let theirs = self.of_owner(&network, &record.container_id, &record.ifname)?;
            assert!(theirs.contains(&a), "{a} is not in the list of {}", record.owner());
        }
        assert_eq!(self.owners.iter()?.count(), all.len(), "each entry of an owner is one of an address");
        for entry in self.cooling.iter()? {
            let (key, since) = entry?;
            let (network, family, bits) = key.value();
            assert!(all.insert((network.to_owned(), Address { family, bits })), "an address rests and is taken");
            assert!(self.queue.get((network, family, since.value(), bits))?.is_some());
        }
        assert_eq!(self.queue.iter()?.count(), self.cooling.iter()?.count());
        for entry in self.foreign.iter()? {
            let key = entry?.0;
            let (network, family, bits) = key.value();
            assert!(all.insert((network.to_owned(), Address { family, bits })), "an address is foreign and ours");
        }
        let mut spans = Vec::new();
        for entry in self.taken.iter()? {
            let (first, last) = entry?;
            let (network, family, first) = first.value();
            spans.push((network.to_owned(), Span { family, first, last: last.value() }));
        }
        for pair in spans.windows(2) {
            let touch = pair[0].0 == pair[1].0
                && pair[0].1.family == pair[1].1.family
                && pair[0].1.last.checked_add(1).is_none_or(|next| next >= pair[1].1.first);
            assert!(!touch, "{pair:?} touch");
        }
        let spanned: u128 = spans.iter().map(|(_, s)| s.count()).sum();
        assert_eq!(spanned, all.len() as u128);
        assert!(all.iter().all(|(net, a)| spans.iter().any(|(n, s)| n == net && s.contains(*a))));
        Ok(())
    }
}
