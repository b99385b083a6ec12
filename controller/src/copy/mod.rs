//! The copy of the cluster's objects on disk: what a node starts from while the API server is away.
//!
//! One file, written as a whole and put in place by a rename, so that it is always one state or another. Nothing else reads
//! it; what is in it is what [`crate::watch`] keeps, in Kubernetes' own JSON, so that what another version of ours wrote is
//! understood as far as it goes. A file that cannot be used is no fault: the start waits for the API server then.

use crate::watch::{Objects, Store};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use tracing::warn;

/// Its name in the folder.
const NAME: &str = "objects.json";
/// What this version writes. A file with another number is not used.
const VERSION: u32 = 1;
/// How long changes are gathered before they are written.
const GATHER: Duration = Duration::from_secs(1);

/// Why a copy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// It cannot be read or written.
    #[error("cannot {what} {}: {source}", .file.display())]
    File {
        /// What was to be done with it.
        what: &'static str,
        /// Where.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What is in it is not ours.
    #[error("{} is no copy of the cluster's objects: {what}", .file.display())]
    Content {
        /// Where.
        file: PathBuf,
        /// Why.
        what: String,
    },
}

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    #[serde(flatten)]
    objects: &'a Objects,
}

#[derive(Deserialize)]
struct Read {
    version: u32,
    #[serde(flatten)]
    objects: Objects,
}

/// The copy in a folder.
#[derive(Debug)]
pub struct Copy {
    folder: PathBuf,
    last: Vec<u8>,
}

impl Copy {
    /// The copy in `folder`, which is made with the first one that is written.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), last: Vec::new() }
    }

    fn file(&self) -> PathBuf {
        self.folder.join(NAME)
    }

    /// Reads it; none if there is none.
    ///
    /// # Errors
    /// [`CopyError`] when it is there and cannot be used.
    pub fn load(&self) -> Result<Option<Objects>, CopyError> {
        let file = self.file();
        let bytes = match fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CopyError::File { what: "read", file, source }),
        };
        let read: Read = serde_json::from_slice(&bytes)
            .map_err(|error| CopyError::Content { file: file.clone(), what: error.to_string() })?;
        if read.version != VERSION {
            let what = format!("it is of version {}, and this program writes {VERSION}", read.version);
            return Err(CopyError::Content { file, what });
        }
        Ok(Some(read.objects))
    }

    /// Writes it if it is not what was written last; whether it was written.
    ///
    /// # Errors
    /// [`CopyError`]; what was there before is still there then.
    pub fn save(&mut self, objects: &Objects) -> Result<bool, CopyError> {
        let file = self.file();
        let wrong = |what, source| CopyError::File { what, file: file.clone(), source };
        let bytes = serde_json::to_vec(&Written { version: VERSION, objects })
            .map_err(|error| wrong("write", io::Error::other(error)))?;
        if bytes == self.last {
            return Ok(false);
        }
        fs::create_dir_all(&self.folder).map_err(|e| wrong("make the folder of", e))?;
        write_renamed(&file, &bytes).map_err(|e| wrong("write", e))?;
        self.last = bytes;
        Ok(true)
    }
}

/// Writes a file by a rename, so that it is as before or as wanted, whatever happens.
///
/// # Errors
/// What the system says.
pub(crate) fn write_renamed(file: &Path, bytes: &[u8]) -> io::Result<()> {
    write_renamed_with(file, bytes, 0o644)
}

/// The same, with permissions.
///
/// # Errors
/// What the system says.
pub(crate) fn write_renamed_with(file: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let name = file.file_name().ok_or_else(|| io::Error::other("no name of a file"))?;
    let temporary = file.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let write = || {
        let mut to = fs::File::create(&temporary)?;
        to.write_all(bytes)?;
        // Whatever the umask says.
        to.set_permissions(fs::Permissions::from_mode(mode))?;
        to.sync_all()?;
        fs::rename(&temporary, file)
    };
    write().inspect_err(|_| _ = fs::remove_file(&temporary))
}

/// Keeps the copy as the store is, as soon as every kind has been listed once: what is there before is an older copy, or less.
pub async fn keep(mut copy: Copy, store: Arc<Store>) {
    let mut changes = store.changes();
    store.complete().await;
    let mut told = false;
    loop {
        changes.mark_unchanged();
        let store = Arc::clone(&store);
        let written = tokio::task::spawn_blocking(move || {
            let result = copy.save(&store.objects());
            (copy, result)
        });
        let result;
        (copy, result) = match written.await {
            Ok(done) => done,
            Err(error) => return warn!("no copy of the cluster's objects is kept any more: {error}"),
        };
        match result {
            Ok(_) => told = false,
            Err(error) if !std::mem::replace(&mut told, true) => {
                warn!("{error}; a start without an API server will not know what has changed since");
            }
            Err(_) => {}
        }
        sleep(GATHER).await;
        if changes.changed().await.is_err() {
            return;
        }
        sleep(GATHER).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Node;
    use serde_json::json;

    fn objects() -> Objects {
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": {"podCIDRs": ["10.0.0.0/24"]}})).unwrap();
        Objects { nodes: vec![node], ..Objects::default() }
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("node");
        let mut copy = Copy::new(&place);
        assert_eq!(copy.load().unwrap(), None);
        assert!(copy.save(&objects()).unwrap());
        assert!(!copy.save(&objects()).unwrap(), "nothing has changed");
        assert_eq!(Copy::new(&place).load().unwrap(), Some(objects()));
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1, "nothing but the copy is left");
    }

    #[test]
    fn what_is_not_a_copy_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let copy = Copy::new(folder.path());
        for (text, wanted) in [
            ("", "is no copy of the cluster's objects: EOF"),
            ("{\"version\": 1, \"nodes\": [{\"meta", "is no copy of the cluster's objects: EOF"),
            ("{\"version\": 1, \"nodes\": 7}", "is no copy of the cluster's objects: invalid type"),
            ("{\"version\": 2, \"nodes\": []}", "it is of version 2, and this program writes 1"),
        ] {
            fs::write(copy.file(), text).unwrap();
            let error = copy.load().unwrap_err().to_string();
            assert!(error.contains(wanted) && error.contains("objects.json"), "{error}");
        }
    }

    #[test]
    fn what_an_older_or_newer_version_has_more_or_less_is_borne() {
        let folder = tempfile::tempdir().unwrap();
        let copy = Copy::new(folder.path());
        fs::write(copy.file(), r#"{"version": 1, "nodes": [], "pools": [1]}"#).unwrap();
        assert_eq!(copy.load().unwrap(), Some(Objects::default()));
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("file");
        fs::write(&place, "").unwrap();
        let error = Copy::new(&place).save(&objects()).unwrap_err().to_string();
        assert!(error.starts_with("cannot make the folder of "), "{error}");
    }
}
