//! The directory that the reference's `host-local` keeps for a network: a file for each address, named by it, that says whose
//! it is. Addresses there are not given out, so containers from before a change of plugins keep theirs.
//!
//! The list of the directory is read again only when its time of change is another one; what is in it is kept in the store.
//! A directory that changed within the last second is not believed, since a second change may have the same time. DEL and
//! GC remove files of containers that only the directory knows. All of it under `host-local`'s own lock.

use super::address::Address;
use super::error::IpamError;
use super::store::{self, Tables};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What the store knows of directories is noted under this kind.
const NOTE: &str = "host-local";
/// The longest file that is read, in bytes: two names.
const MAX_FILE_LEN: u64 = 4096;
/// Nanoseconds after a change in which another may have the same time.
const SETTLED_NS: i128 = 1_000_000_000;

/// A network's directory, which need not be there.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    path: PathBuf,
}

/// Whose an address is, as a file says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) ip: IpAddr,
    pub(crate) container_id: String,
    /// Empty in files of old versions.
    pub(crate) ifname: String,
}

/// The state in which the list was read.
#[derive(Default, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    path: PathBuf,
    inode: u64,
    changed_s: i64,
    changed_ns: i64,
}

impl Directory {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes `host-local`'s lock; `None` if there is no directory.
    pub(crate) fn lock(&self) -> Result<Option<File>, IpamError> {
        let path = self.path.join("lock");
        if !self.path.is_dir() {
            return Ok(None);
        }
        match OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path) {
            Ok(file) => store::lock(&file, &path, store::LOCK_WAIT).map(|()| Some(file)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(IpamError::File { path, source }),
        }
    }

    /// Brings the store up to date with the directory.
    pub(crate) fn refresh(&self, tables: &mut Tables<'_>, network: &str, now_ms: u64) -> Result<(), IpamError> {
        let known = tables.note(NOTE, network)?;
        let seen: Seen = known.as_deref().and_then(|n| serde_json::from_slice(n).ok()).unwrap_or_default();
        let state = match fs::metadata(&self.path) {
            Ok(state) if state.is_dir() => state,
            Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Err(self.wrong(&self.path, e));
            }
            _ if known.is_none() => return Ok(()),
            _ => {
                set_foreign(tables, network, &BTreeSet::new())?;
                return tables.set_note(NOTE, network, None);
            }
        };
        let (inode, changed_s, changed_ns) = (state.ino(), state.mtime(), state.mtime_nsec());
        let mut state = Seen { path: self.path.clone(), inode, changed_s, changed_ns };
        if state == seen {
            return Ok(());
        }
        set_foreign(tables, network, &self.addresses()?.into_iter().map(Address::from).collect())?;
        let changed = i128::from(changed_s) * 1_000_000_000 + i128::from(changed_ns);
        if i128::from(now_ms) * 1_000_000 - changed < SETTLED_NS {
            state.inode = 0;
        }
        let note = serde_json::to_vec(&state).map_err(|e| IpamError::Decode(e.to_string()))?;
        tables.set_note(NOTE, network, Some(&note))
    }

    /// Whether there is a file of this address now.
    pub(crate) fn has(&self, ip: IpAddr) -> bool {
        self.path.join(ip.to_string()).exists()
    }

    /// The addresses that there are files of.
    fn addresses(&self) -> Result<Vec<IpAddr>, IpamError> {
        let list = match fs::read_dir(&self.path) {
            Ok(list) => list,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(self.wrong(&self.path, e)),
        };
        let mut ips = Vec::new();
        for entry in list {
            let entry = entry.map_err(|e| self.wrong(&self.path, e))?;
            ips.extend(entry.file_name().to_str().and_then(|n| n.parse::<IpAddr>().ok()));
        }
        ips.sort_unstable();
        Ok(ips)
    }

    /// All that the directory says, in order of addresses. A file that is gone in between is left out.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>, IpamError> {
        let mut entries = Vec::new();
        for ip in self.addresses()? {
            let path = self.path.join(ip.to_string());
            let mut text = Vec::new();
            match File::open(&path).and_then(|f| f.take(MAX_FILE_LEN).read_to_end(&mut text)) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) => return Err(self.wrong(&path, e)),
            }
            let text = String::from_utf8_lossy(&text);
            let mut lines = text.trim().lines().map(str::trim);
            let mut next = || lines.next().unwrap_or_default().to_owned();
            entries.push(Entry { ip, container_id: next(), ifname: next() });
        }
        Ok(entries)
    }

    /// Whether a file says that the attachment has an address.
    pub(crate) fn knows(&self, id: &str, ifname: &str) -> Result<Vec<IpAddr>, IpamError> {
        Ok(of(self.entries()?, id, ifname).into_iter().map(|e| e.ip).collect())
    }

    /// Removes the files of an attachment; the addresses that it had.
    pub(crate) fn release(&self, id: &str, ifname: &str) -> Result<Vec<IpAddr>, IpamError> {
        let Some(_lock) = self.lock()? else { return Ok(Vec::new()) };
        let theirs = of(self.entries()?, id, ifname);
        theirs.iter().try_for_each(|e| self.remove(e.ip))?;
        Ok(theirs.into_iter().map(|e| e.ip).collect())
    }

    /// Removes the files of all that `valid` does not name.
    pub(crate) fn keep_only(&self, valid: impl Fn(&str, &str) -> bool) -> Result<Vec<Entry>, IpamError> {
        let Some(_lock) = self.lock()? else { return Ok(Vec::new()) };
        let mut entries = self.entries()?;
        entries.retain(|e| !valid(&e.container_id, &e.ifname));
        entries.iter().try_for_each(|e| self.remove(e.ip))?;
        Ok(entries)
    }

    /// Removes the file of an address, which may be gone.
    pub(crate) fn remove(&self, ip: IpAddr) -> Result<(), IpamError> {
        let path = self.path.join(ip.to_string());
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(self.wrong(&path, e)),
            _ => Ok(()),
        }
    }

    /// The address that a set gave last, by the set's number.
    pub(crate) fn last_of(&self, set: usize) -> Option<IpAddr> {
        fs::read_to_string(self.path.join(format!("last_reserved_ip.{set}"))).ok()?.trim().parse().ok()
    }

    /// Removes the directory if it has no address any more; whether it is gone.
    pub(crate) fn remove_empty(&self) -> Result<bool, IpamError> {
        if !self.addresses()?.is_empty() {
            return Ok(false);
        }
        let list = fs::read_dir(&self.path).map_err(|e| self.wrong(&self.path, e))?;
        for entry in list.filter_map(Result::ok) {
            let name = entry.file_name();
            if name == "lock" || name.to_string_lossy().starts_with("last_reserved_ip.") {
                let path = entry.path();
                fs::remove_file(&path).map_err(|e| self.wrong(&path, e))?;
            }
        }
        Ok(fs::remove_dir(&self.path).is_ok())
    }

    fn wrong(&self, path: &Path, source: std::io::Error) -> IpamError {
        IpamError::File { path: path.to_owned(), source }
    }
}

/// The entries of an attachment; those without an interface only if none has it, as `host-local` does.
fn of(mut entries: Vec<Entry>, id: &str, ifname: &str) -> Vec<Entry> {
    entries.retain(|e| e.container_id == id && (e.ifname == ifname || e.ifname.is_empty()));
    if entries.iter().any(|e| !e.ifname.is_empty()) {
        entries.retain(|e| !e.ifname.is_empty());
    }
    entries
}

/// Makes the store's list of the directory's addresses this one.
fn set_foreign(tables: &mut Tables<'_>, network: &str, now: &BTreeSet<Address>) -> Result<(), IpamError> {
    let before: BTreeSet<Address> = tables.all_foreign(network)?.into_iter().collect();
    before.difference(now).try_for_each(|a| tables.remove_foreign(network, *a))?;
    now.difference(&before).try_for_each(|a| tables.add_foreign(network, *a))
}
