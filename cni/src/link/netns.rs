//! Network namespaces by path: what they are, and doing something in one.
//!
//! A namespace is entered by a thread of its own which ends there, because a thread that comes back might not: the way
//! back can fail, and everything that it did afterwards would happen in the container.

use super::error::LinkError;
use super::sys;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

/// A network namespace that is held open: it stays while this does, even when its path goes.
#[derive(Debug)]
pub(super) struct Netns {
    file: File,
    path: PathBuf,
}

impl Netns {
    /// Opens the namespace at `path`.
    pub(super) fn open(path: &Path) -> Result<Self, LinkError> {
        // Without waiting, should somebody have put a pipe there.
        let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = opened.map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => LinkError::NetnsGone { path: path.to_owned() },
            // What the kernel says of /proc/PID/ns/net when the process has just ended.
            _ if error.raw_os_error() == Some(libc::ESRCH) => LinkError::NetnsGone { path: path.to_owned() },
            _ => LinkError::kernel("open the network namespace", path.display().to_string(), error),
        })?;
        if is_network(&file) {
            return Ok(Self { file, path: path.to_owned() });
        }
        let found = described(&file).unwrap_or_else(|| kind(&file));
        Err(LinkError::NotNetns { path: path.to_owned(), found })
    }

    /// Opens the namespace at `path`, which must not be the caller's own.
    pub(super) fn open_foreign(path: &Path) -> Result<Self, LinkError> {
        let netns = Self::open(path)?;
        if netns.is_own() { Err(LinkError::HostNetns { path: path.to_owned() }) } else { Ok(netns) }
    }

    /// Its path, when it was opened.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the calling thread is in it.
    fn is_own(&self) -> bool {
        let own = fs::metadata("/proc/thread-self/ns/net");
        let this = self.file.metadata();
        matches!((own, this), (Ok(own), Ok(this)) if own.ino() == this.ino() && own.dev() == this.dev())
    }

    /// Has the calling thread enter it, for good.
    pub(super) fn enter(&self) -> Result<(), LinkError> {
        setns(&self.file, CloneFlags::CLONE_NEWNET)
            .map_err(|error| LinkError::kernel("enter the network namespace", self.path.display().to_string(), error))
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Does `work` on a thread of its own, which may change its namespace.
pub(super) fn apart<T: Send>(work: impl FnOnce() -> Result<T, LinkError> + Send) -> Result<T, LinkError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| LinkError::kernel("start a thread", "for the namespace", error))?;
        let died =
            || LinkError::kernel("finish the work", "on the namespace's thread", io::Error::other("it panicked"));
        thread.join().unwrap_or_else(|_| Err(died()))
    })
}

/// Whether an open file is a network namespace, wherever it is mounted.
fn is_network(file: &File) -> bool {
    let is_namespace = fstatfs(file).is_ok_and(|fs| fs.filesystem_type() == NSFS_MAGIC);
    is_namespace && sys::namespace_kind(file).is_ok_and(|kind| kind == libc::CLONE_NEWNET)
}

/// What the kernel calls a file of its namespace file system, such as `net:[4026531840]`; `None` for any other file.
fn described(file: &File) -> Option<String> {
    let target = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    let name = target.to_str()?;
    // A path begins with a slash; `user:[...]` and `net:[...]` are what is not a path.
    (!name.starts_with('/')).then(|| name.to_owned())
}

fn kind(file: &File) -> String {
    let kind = file.metadata().map(|meta| meta.file_type());
    let word = match kind {
        Ok(kind) if kind.is_dir() => "a directory",
        Ok(kind) if kind.is_file() => "an ordinary file",
        _ => "something else",
    };
    word.to_owned()
}

/// Whether there is a network namespace at `path`.
pub fn is_netns(path: &Path) -> bool {
    Netns::open(path).is_ok()
}

/// Whether the network namespace at `path` is the calling thread's own; false if it is none.
pub fn same_netns(path: &Path) -> bool {
    Netns::open(path).is_ok_and(|netns| netns.is_own())
}
