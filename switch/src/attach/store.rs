//! What is kept on disk: one JSON file for each network and attachment, in a directory that is there only while there is
//! something to keep.
//!
//! A file is written beside its place, flushed, and renamed, so that it is there as a whole or not at all, whenever the
//! machine stops. `NETWORK.json` is a network, `NETWORK@CONTAINER@INTERFACE.json` an attachment.
//!
//! What cannot be read is renamed to `*.bad` and told, and the rest is taken up: one damaged file must not keep a node's
//! containers from their network.

use super::known::Record;
use super::spec::{AttachmentKey, NetworkSpec};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The form of the files that this switch writes, and the only one that it reads.
const VERSION: u32 = 1;
/// Longest name of a file before it is cut, in bytes; file systems take 255.
const NAME_MAX: usize = 200;
/// How files begin that are being written.
const UNFINISHED: &str = ".new-";
/// Longest file that is read, in bytes.
const SIZE_MAX: u64 = 8 << 20;

/// Why something could not be kept.
#[derive(Debug, Error)]
#[error(
    "cannot {what} {}: {source}; see that it can be written and has room, or choose another place with --state",
    path.display()
)]
pub struct StoreError {
    what: &'static str,
    path: PathBuf,
    /// The system's word.
    pub source: io::Error,
}

/// A directory of records, or none: then nothing outlives the switch.
#[derive(Debug, Default)]
pub(super) struct Store {
    dir: Option<PathBuf>,
}

/// What was found in a directory.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) networks: Vec<NetworkSpec>,
    pub(super) attachments: Vec<Record>,
}

/// What a file says.
#[derive(Debug, Serialize, Deserialize)]
struct Kept<T> {
    version: u32,
    #[serde(flatten)]
    what: T,
}

fn network_file(name: &str) -> String {
    file_name(name)
}

fn attachment_file(key: &AttachmentKey) -> String {
    file_name(&format!("{}@{}@{}", key.network, key.container_id, key.ifname))
}

/// The file's name for what is called `name`. One that is too long is cut, and told from others by a hash.
fn file_name(name: &str) -> String {
    if name.len() <= NAME_MAX {
        return format!("{name}.json");
    }
    // FNV-1a: what matters is that it never changes from one version to the next.
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, hash);
    let start: String = name.chars().take(NAME_MAX / 2).collect();
    format!("{start}~{hash:016x}.json")
}

impl Store {
    /// Records in `dir`, which need not be there.
    pub(super) fn at(dir: &Path) -> Self {
        Self { dir: Some(dir.to_owned()) }
    }

    /// Keeps a network.
    ///
    /// # Errors
    /// The system's; what was kept before stays then, as with all that follow.
    pub(super) fn put_network(&self, spec: &NetworkSpec) -> Result<(), StoreError> {
        self.put(&network_file(&spec.name), spec)
    }

    /// Forgets a network. None is fine.
    pub(super) fn remove_network(&self, name: &str) -> Result<(), StoreError> {
        self.remove(&network_file(name))
    }

    /// Keeps an attachment.
    pub(super) fn put_attachment(&self, record: &Record) -> Result<(), StoreError> {
        self.put(&attachment_file(&record.spec.key), record)
    }

    /// Forgets an attachment. None is fine.
    pub(super) fn remove_attachment(&self, key: &AttachmentKey) -> Result<(), StoreError> {
        self.remove(&attachment_file(key))
    }

    fn put<T: Serialize>(&self, name: &str, what: &T) -> Result<(), StoreError> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let path = dir.join(name);
        let written = || {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
            let mut text = serde_json::to_vec_pretty(&Kept { version: VERSION, what })?;
            text.push(b'\n');
            let unfinished = dir.join(format!("{UNFINISHED}{name}"));
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
            let done =
                file.write_all(&text).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&unfinished, &path));
            if done.is_err() {
                // It would be removed at the next start too.
                _ = fs::remove_file(&unfinished);
            }
            done.and_then(|()| File::open(dir)?.sync_all())
        };
        let result = written();
        if result.is_err() {
            // Not if there is something in it.
            _ = fs::remove_dir(dir);
        }
        result.map_err(|source: io::Error| StoreError { what: "write", path, source })
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let path = dir.join(name);
        match fs::remove_file(&path) {
            Err(source) if !matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Err(StoreError { what: "remove", path, source })
            }
            _ => {
                // Not if there is something in it.
                _ = fs::remove_dir(dir);
                Ok(())
            }
        }
    }

    /// Why nothing could be kept, if so. Finds out by writing a file.
    pub(super) fn fault(&self) -> Option<StoreError> {
        let dir = self.dir.as_ref()?;
        let path = dir.join(format!("{UNFINISHED}probe"));
        let written = || {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
            fs::write(&path, b"probe\n")?;
            fs::remove_file(&path)
        };
        let result = written();
        // Not if there is something in it.
        _ = fs::remove_dir(dir);
        result.err().map(|source| StoreError { what: "write", path, source })
    }

    /// Reads what is kept. What cannot be read is set aside, and told in the log.
    ///
    /// # Errors
    /// The directory is there and cannot be read.
    pub(super) fn load(&self) -> Result<Found, StoreError> {
        let mut found = Found::default();
        let Some(dir) = &self.dir else { return Ok(found) };
        let failed = |source| StoreError { what: "read", path: dir.clone(), source };
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
            entries => entries.map_err(failed)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        for name in names {
            let path = dir.join(&name);
            if name.starts_with(UNFINISHED) {
                // Its change was never answered for.
                _ = fs::remove_file(&path);
            } else if !name.ends_with(".bad")
                && let Err(why) = found.take(&name, &path)
            {
                let aside = dir.join(format!("{name}.bad"));
                tracing::error!(file = %path.display(), aside = %aside.display(), %why, "a record was set aside");
                if let Err(why) = fs::rename(&path, &aside) {
                    tracing::error!(file = %path.display(), %why, "it could not be renamed");
                }
            }
        }
        // Not if there is something in it.
        _ = fs::remove_dir(dir);
        Ok(found)
    }
}

impl Found {
    /// Reads the file `name` at `path`.
    fn take(&mut self, name: &str, path: &Path) -> Result<(), String> {
        if name.contains('@') {
            let record: Record = read(path)?;
            super::check::attachment(&record.spec).map_err(|error| error.to_string())?;
            same(name, attachment_file(&record.spec.key))?;
            self.attachments.push(record);
        } else {
            let spec: NetworkSpec = read(path)?;
            super::check::network(&spec).map_err(|error| error.to_string())?;
            same(name, network_file(&spec.name))?;
            self.networks.push(spec);
        }
        Ok(())
    }
}

fn same(name: &str, expected: String) -> Result<(), String> {
    if expected == name { Ok(()) } else { Err(format!("it says what belongs into {expected}")) }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let text = |path: &Path| {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() || meta.len() > SIZE_MAX {
            return Err(io::Error::other("it is no file of ours"));
        }
        io::read_to_string(file)
    };
    let text = text(path).map_err(|error| error.to_string())?;
    let kept: Kept<T> = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    match kept.version {
        VERSION => Ok(kept.what),
        other => Err(format!("it has form {other}, and this switch knows form {VERSION}")),
    }
}
