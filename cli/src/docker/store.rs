//! What survives: one file for each network and each endpoint, below one folder.
//!
//! A file is written beside its place and renamed into it, so that it is the old one or the new one whatever happens.
//! Files hold JSON and are small; all of them are read at the start, and from then on the memory is what is asked.

use super::endpoint::Endpoint;
use super::error::DriverError;
use super::network::Network;
use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Longest ID of a network or an endpoint.
const MAX_ID: usize = 128;
/// Largest file that is read.
const MAX_FILE: u64 = 1 << 20;
/// What files end with.
const ENDING: &str = "json";
/// The folder of networks.
const NETWORKS: &str = "networks";
/// The folder of endpoints.
const ENDPOINTS: &str = "endpoints";

/// Files of one kind, each named after what it is about.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

/// Networks and endpoints, on disk and in memory.
#[derive(Debug)]
pub(crate) struct Store {
    network_files: Folder,
    endpoint_files: Folder,
    networks: BTreeMap<String, Network>,
    endpoints: BTreeMap<String, Endpoint>,
    /// Held as long as this is the folder's only user.
    _lock: Option<Flock<File>>,
}

impl Store {
    /// Opens the folder, which is made if it is not there, and keeps others from doing so.
    ///
    /// # Errors
    /// It is another process's, or not ours to write.
    pub(crate) fn open(folder: &Path) -> Result<Self, DriverError> {
        for part in [NETWORKS, ENDPOINTS] {
            Folder::open(&folder.join(part))?;
        }
        let path = folder.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(|e| failed("open", &path, e))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, e)| failed("lock (another `sluice docker` has it)", &path, e.into()))?;
        Ok(Self { _lock: Some(lock), ..Self::read(folder)? })
    }

    /// Reads what is there, without keeping others out.
    ///
    /// # Errors
    /// A file that cannot be read, or does not say what it should.
    pub(crate) fn read(folder: &Path) -> Result<Self, DriverError> {
        let [network_files, endpoint_files] = [NETWORKS, ENDPOINTS].map(|part| Folder(folder.join(part)));
        let (networks, endpoints) = (network_files.read()?, endpoint_files.read()?);
        Ok(Self { network_files, endpoint_files, networks, endpoints, _lock: None })
    }

    /// A network.
    ///
    /// # Errors
    /// There is none of this ID.
    pub(crate) fn network(&self, id: &str) -> Result<&Network, DriverError> {
        self.networks.get(id).ok_or_else(|| DriverError::NoNetwork(id.to_owned()))
    }

    /// An endpoint.
    ///
    /// # Errors
    /// There is none of this ID.
    pub(crate) fn endpoint(&self, id: &str) -> Result<&Endpoint, DriverError> {
        self.endpoints.get(id).ok_or_else(|| DriverError::NoEndpoint(id.to_owned()))
    }

    /// All networks, sorted by ID.
    pub(crate) fn networks(&self) -> impl Iterator<Item = &Network> {
        self.networks.values()
    }

    /// All endpoints, sorted by ID.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.values()
    }

    /// Writes a network.
    ///
    /// # Errors
    /// As the system says; then nothing is changed.
    pub(crate) fn put_network(&mut self, network: Network) -> Result<(), DriverError> {
        self.network_files.write(&network.id, &network)?;
        self.networks.insert(network.id.clone(), network);
        Ok(())
    }

    /// Writes an endpoint.
    ///
    /// # Errors
    /// As the system says; then nothing is changed.
    pub(crate) fn put_endpoint(&mut self, endpoint: Endpoint) -> Result<(), DriverError> {
        self.endpoint_files.write(&endpoint.id, &endpoint)?;
        self.endpoints.insert(endpoint.id.clone(), endpoint);
        Ok(())
    }

    /// Forgets a network; fine if there is none.
    ///
    /// # Errors
    /// As the system says.
    pub(crate) fn remove_network(&mut self, id: &str) -> Result<(), DriverError> {
        if self.networks.contains_key(id) {
            self.network_files.remove(id)?;
            self.networks.remove(id);
        }
        Ok(())
    }

    /// Forgets an endpoint; fine if there is none.
    ///
    /// # Errors
    /// As the system says.
    pub(crate) fn remove_endpoint(&mut self, id: &str) -> Result<(), DriverError> {
        if self.endpoints.contains_key(id) {
            self.endpoint_files.remove(id)?;
            self.endpoints.remove(id);
        }
        Ok(())
    }
}

/// Checks that a file may be named after an ID.
///
/// # Errors
/// It may not.
pub(crate) fn check_id(id: &str) -> Result<(), DriverError> {
    let good = (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric());
    if good { Ok(()) } else { Err(DriverError::Id(id.chars().take(MAX_ID).collect())) }
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> DriverError {
    DriverError::File { what, path: path.to_owned(), source }
}

impl Folder {
    /// A folder, which is made if it is not there.
    ///
    /// # Errors
    /// As the system says.
    pub(crate) fn open(path: &Path) -> Result<Self, DriverError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| failed("make", path, e))?;
        Ok(Self(path.to_owned()))
    }

    fn place(&self, id: &str) -> PathBuf {
        self.0.join(format!("{id}.{ENDING}"))
    }

    /// Writes the file of this ID.
    ///
    /// # Errors
    /// As the system says; then the old file is there.
    pub(crate) fn write(&self, id: &str, record: &impl Serialize) -> Result<(), DriverError> {
        check_id(id)?;
        let (path, beside) = (self.place(id), self.0.join(format!("{id}.new")));
        let mut text = serde_json::to_vec_pretty(record)?;
        text.push(b'\n');
        let put = || {
            let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            File::open(&self.0)?.sync_all()
        };
        put().map_err(|e| failed("write", &path, e))
    }

    /// Removes the file of this ID; fine if there is none.
    ///
    /// # Errors
    /// As the system says.
    pub(crate) fn remove(&self, id: &str) -> Result<(), DriverError> {
        check_id(id)?;
        let path = self.place(id);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(failed("remove", &path, e)),
            _ => Ok(()),
        }
    }

    /// Reads all files. What was being written when its writer was killed is passed over: its place is unchanged.
    ///
    /// # Errors
    /// A file that cannot be read, or does not say what it should.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<BTreeMap<String, T>, DriverError> {
        let mut all = BTreeMap::new();
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(all),
            Err(e) => return Err(failed("read", &self.0, e)),
        };
        for entry in entries {
            let path = entry.map_err(|e| failed("read", &self.0, e))?.path();
            let id = path.file_stem().and_then(|stem| stem.to_str()).filter(|id| check_id(id).is_ok());
            let Some(id) = id.filter(|_| path.extension().is_some_and(|ending| ending == ENDING)) else { continue };
            let size = fs::metadata(&path).map_err(|e| failed("read", &path, e))?.len();
            if size > MAX_FILE {
                return Err(failed("read", &path, io::Error::new(ErrorKind::FileTooLarge, "it is too large")));
            }
            let text = fs::read(&path).map_err(|e| failed("read", &path, e))?;
            let record = serde_json::from_slice(&text);
            let record = record.map_err(|source| DriverError::Damaged { path: path.clone(), source })?;
            all.insert(id.to_owned(), record);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(id: &str) -> Endpoint {
        let (addresses, published) = (vec!["10.9.0.2/16".parse().unwrap()], Vec::new());
        let mac = "02:42:0a:09:00:02".to_owned();
        Endpoint { id: id.into(), network: "n1".into(), addresses, mac, sandbox: None, published }
    }

    #[test]
    fn what_was_written_is_read_again_and_what_was_removed_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path()).unwrap();
        store.put_endpoint(endpoint("e1")).unwrap();
        store.put_endpoint(endpoint("e2")).unwrap();
        store.remove_endpoint("e2").unwrap();
        store.remove_endpoint("e2").unwrap();
        let read = Store::read(folder.path()).unwrap();
        assert_eq!(read.endpoints().collect::<Vec<_>>(), [&endpoint("e1")]);
    }

    #[test]
    fn a_folder_has_one_user() {
        let folder = tempfile::tempdir().unwrap();
        let first = Store::open(folder.path()).unwrap();
        assert!(Store::open(folder.path()).unwrap_err().to_string().contains("another `sluice docker`"));
        drop(first);
        Store::open(folder.path()).unwrap();
    }

    #[test]
    fn half_written_files_are_passed_over_and_damaged_ones_are_named() {
        let folder = tempfile::tempdir().unwrap();
        drop(Store::open(folder.path()).unwrap());
        fs::write(folder.path().join("endpoints/e1.new"), "{").unwrap();
        assert_eq!(Store::read(folder.path()).unwrap().endpoints().count(), 0);
        fs::write(folder.path().join("endpoints/e1.json"), "{").unwrap();
        assert!(Store::read(folder.path()).unwrap_err().to_string().contains("e1.json is damaged"));
    }

    #[test]
    fn an_id_that_leads_out_of_the_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path()).unwrap();
        for id in ["../x", "", ".", "a/b", &"a".repeat(MAX_ID + 1)] {
            assert!(matches!(store.put_endpoint(endpoint(id)), Err(DriverError::Id(_))), "{id}");
        }
    }
}
