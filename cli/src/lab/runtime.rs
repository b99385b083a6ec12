//! Where running labs are kept on disk: one folder per lab, with its state, its log and its socket.
//!
//! ```text
//! /run/sluice/            $XDG_RUNTIME_DIR/sluice/ or /tmp/sluice-UID/ when not root; SLUICE_RUNTIME_DIR moves it
//!   lock                  held while a name is taken or freed
//!   labs/NAME/state.json  what runs: see `state`
//!   labs/NAME/switch.sock the switch's control API
//!   labs/NAME/supervisor.log
//!   labs/NAME/logs/HOST.log what the host's command writes
//! ```
//! The folder belongs to one user and nobody else can look into it.

use crate::failure::Failure;
use crate::output::Exit;
use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Names the runtime folder, for tests and for several worlds side by side.
const ENVIRONMENT: &str = "SLUICE_RUNTIME_DIR";
/// Longest path of the socket: a unix socket's (108 bytes in `sockaddr_un`), less the terminating zero and the `.1` that
/// its name ends in while it is made.
const SOCKET_PATH_MAX: usize = 105;

/// The runtime folder.
#[derive(Debug)]
pub(crate) struct Runtime {
    root: PathBuf,
}

impl Runtime {
    /// This user's runtime folder; it need not exist yet.
    pub(crate) fn of_user() -> Self {
        let uid = nix::unistd::geteuid();
        let given = |name: &str| std::env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from);
        let root = given(ENVIRONMENT).unwrap_or_else(|| match given("XDG_RUNTIME_DIR") {
            _ if uid.is_root() => PathBuf::from("/run/sluice"),
            Some(folder) => folder.join("sluice"),
            None => PathBuf::from(format!("/tmp/sluice-{uid}")),
        });
        // The supervisor's working folder is not the user's.
        Self { root: std::path::absolute(&root).unwrap_or(root) }
    }

    /// The runtime folder at a path.
    pub(crate) fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.root
    }

    /// The folder of the lab `name`, which need not exist.
    pub(crate) fn lab(&self, name: &str) -> PathBuf {
        self.root.join("labs").join(name)
    }

    /// Names of the labs that have a folder, sorted.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(crate) fn labs(&self) -> Result<Vec<String>, Failure> {
        let labs = self.root.join("labs");
        let entries = match std::fs::read_dir(&labs) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(Failure::new(format!("cannot list {}: {error}", labs.display()))
                    .next(format!("set {ENVIRONMENT} to a folder that you may read"))
                    .exit(exit_of(&error)));
            }
        };
        let mut names: Vec<_> = entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names)
    }

    /// Makes the runtime folder, private to this user.
    ///
    /// # Errors
    /// It cannot be made, belongs to somebody else, or its path is too long for a socket.
    pub(crate) fn create(&self, lab: &str) -> Result<(), Failure> {
        let failed = |error: io::Error| {
            Failure::new(format!("cannot make the runtime folder {}: {error}", self.root.display()))
                .next(format!("set {ENVIRONMENT} to a folder that you may write to"))
                .exit(exit_of(&error))
        };
        let socket = self.lab(lab).join("switch.sock");
        if socket.as_os_str().len() > SOCKET_PATH_MAX {
            let length = socket.as_os_str().len();
            return Err(Failure::new(format!("the path {} is too long for a socket", socket.display()))
                .why(format!("it has {length} bytes, the most is {SOCKET_PATH_MAX}"))
                .next(format!("set {ENVIRONMENT} to a shorter path")));
        }
        DirBuilder::new().recursive(true).mode(0o700).create(self.root.join("labs")).map_err(failed)?;
        // /tmp is everybody's: a folder that somebody else put there must not be trusted.
        let metadata = std::fs::symlink_metadata(&self.root).map_err(failed)?;
        let mine = metadata.uid() == nix::unistd::geteuid().as_raw();
        if !mine || !metadata.is_dir() || metadata.mode() & 0o022 != 0 {
            return Err(Failure::new(format!("the runtime folder {} is not safe to use", self.root.display()))
                .why("it is not yours, is no folder, or others may write to it")
                .next(format!("remove it, or set {ENVIRONMENT}")));
        }
        Ok(())
    }

    /// Waits until no other command of this user takes or frees a name, and keeps others waiting until dropped.
    ///
    /// # Errors
    /// The lock file cannot be opened.
    pub(crate) fn lock(&self) -> Result<File, Failure> {
        let path = self.root.join("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let lock = lock.and_then(|file| file.lock().map(|()| file));
        lock.map_err(|error| Failure::new(format!("cannot lock {}: {error}", path.display())))
    }

    /// Removes what a lab left in its folder, and the folder. What is not there is fine.
    ///
    /// # Errors
    /// Something is there and cannot be removed.
    pub(crate) fn remove(&self, lab: &str) -> Result<(), Failure> {
        let folder = self.lab(lab);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Failure::new(format!("cannot remove {}: {error}", folder.display())))
            }
            _ => Ok(()),
        }
    }
}

/// What a fault of the file system leads to.
fn exit_of(error: &io::Error) -> Exit {
    if error.kind() == ErrorKind::PermissionDenied { Exit::NoPrivilege } else { Exit::No }
}
