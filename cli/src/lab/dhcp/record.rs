//! Who has which address of a server, as a file of the lab's folder for `sluice lab leases`.
//!
//! The file is written anew with every lease, beside the old one and then in its place: a reader sees the one or the other.

use crate::lab::topology::resolved::Mac;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An address that a client has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    /// The address.
    pub(crate) address: Ipv4Addr,
    /// The client's.
    pub(crate) mac: Mac,
    /// The node that has this MAC address, if one has.
    pub(crate) node: Option<String>,
    /// When the lease is over, in seconds since the Unix epoch.
    pub(crate) until_unix_s: u64,
}

/// The leases of one server.
pub(super) struct Record {
    path: PathBuf,
    held: BTreeMap<Ipv4Addr, Held>,
}

/// The file of a VLAN's server.
fn path(folder: &Path, vlan: &str) -> PathBuf {
    folder.join(format!("leases-{vlan}.json"))
}

/// The leases of a VLAN's server that are not over, by address.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn read(folder: &Path, vlan: &str) -> io::Result<Vec<Held>> {
    let text = match std::fs::read(path(folder, vlan)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut held: Vec<Held> = serde_json::from_slice(&text)?;
    let now = now();
    held.retain(|lease| lease.until_unix_s > now);
    Ok(held)
}

/// Seconds since the Unix epoch.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Record {
    /// Of a VLAN's server, without leases.
    pub(super) fn new(folder: &Path, vlan: &str) -> Self {
        Self { path: path(folder, vlan), held: BTreeMap::new() }
    }

    /// A client has an address for so long from now.
    pub(super) fn hold(&mut self, address: Ipv4Addr, mac: Mac, node: Option<&str>, lease: Duration) -> io::Result<()> {
        let now = now();
        // A client has one address, and what is over is nobody's.
        self.held.retain(|_, other| other.mac != mac && other.until_unix_s > now);
        let until_unix_s = now.saturating_add(lease.as_secs());
        self.held.insert(address, Held { address, mac, node: node.map(str::to_owned), until_unix_s });
        self.write()
    }

    /// A client gives its address up.
    pub(super) fn release(&mut self, mac: Mac) -> io::Result<()> {
        let before = self.held.len();
        self.held.retain(|_, held| held.mac != mac);
        if self.held.len() == before { Ok(()) } else { self.write() }
    }

    fn write(&self) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        std::fs::write(&beside, serde_json::to_vec(&self.held.values().collect::<Vec<_>>())?)?;
        std::fs::rename(&beside, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_read_again_until_it_is_over_or_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let mac = |last| Mac([2, 0, 0, 0, 0, last]);
        let ip = |last| Ipv4Addr::new(10, 0, 10, last);
        assert_eq!(read(folder.path(), "blue").unwrap(), []);
        let mut record = Record::new(folder.path(), "blue");
        record.hold(ip(2), mac(1), Some("h1"), Duration::from_secs(600)).unwrap();
        record.hold(ip(3), mac(9), None, Duration::from_secs(600)).unwrap();
        record.hold(ip(4), mac(8), None, Duration::ZERO).unwrap();
        let held = read(folder.path(), "blue").unwrap();
        let shown: Vec<_> = held.iter().map(|held| (held.address, held.mac, held.node.as_deref())).collect();
        assert_eq!(shown, [(ip(2), mac(1), Some("h1")), (ip(3), mac(9), None)]);
        assert!(held.iter().all(|held| (1..=600).contains(&(held.until_unix_s - now()))));
        record.hold(ip(5), mac(9), None, Duration::from_secs(600)).unwrap();
        record.release(mac(1)).unwrap();
        let left: Vec<_> = read(folder.path(), "blue").unwrap().into_iter().map(|held| held.address).collect();
        assert_eq!(left, [ip(5)], "a client has one address");
        assert_eq!(read(folder.path(), "green").unwrap(), []);
    }
}
