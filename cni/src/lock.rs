//! One operation at a time on a container: a lock on a file of its own.
//!
//! The file is named by the container and goes with the lock. Since another process may hold the file open that is removed,
//! a lock counts only when its path still leads to the file that is locked. Whoever dies loses its lock with its descriptor.

use crate::error::{Code, Failure};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The folder of locks, in the plugin's own.
const FOLDER: &str = "locks";
/// How long another operation is waited for.
pub const PATIENCE: Duration = Duration::from_secs(45);
/// The first pause before the lock is tried again, doubled each time up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// The longest pause before the lock is tried again.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// Longest file name made of a container's ID; longer ones are cut, and may then share a lock, which is no harm.
const MAX_NAME_LEN: usize = 200;

/// The lock of a container, held while this is there.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: Flock<File>,
}

impl Lock {
    /// Takes the lock of a container, waiting for others no longer than `patience`.
    ///
    /// # Errors
    /// [`Code::TryAgainLater`] when another holds it for so long, [`Code::Io`] when the file cannot be made.
    pub fn take(data_dir: &Path, container_id: &str, patience: Duration) -> Result<Self, Failure> {
        let folder = data_dir.join(FOLDER);
        let name: String = container_id.chars().take(MAX_NAME_LEN).collect();
        let path = folder.join(name);
        let failed = |e: io::Error| Failure::new(Code::Io, format!("cannot lock {}: {e}", path.display()));
        let until = Instant::now() + patience;
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(file) = try_lock(&folder, &path).map_err(failed)? {
                return Ok(Self { path, _file: file });
            }
            if Instant::now() >= until {
                let msg = format!("another operation on container {container_id} has held {} for long", path.display());
                return Err(Failure::new(Code::TryAgainLater, msg).details("try again when it has ended"));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while it is held: who waits finds that its file is not the path's any more, and makes a new one.
        _ = fs::remove_file(&self.path);
    }
}

/// The lock, or none if it is another's or its file has just gone.
fn try_lock(folder: &Path, path: &Path) -> io::Result<Option<Flock<File>>> {
    fs::create_dir_all(folder)?;
    let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    let locked = match Flock::lock(opened, FlockArg::LockExclusiveNonblock) {
        Ok(locked) => locked,
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => return Ok(None),
        Err((_, error)) => return Err(error.into()),
    };
    let (held, named) = (locked.metadata()?, fs::metadata(path));
    Ok(named.is_ok_and(|n| (n.ino(), n.dev()) == (held.ino(), held.dev())).then_some(locked))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    #[test]
    fn a_lock_leaves_no_file() {
        let dir = folder();
        drop(Lock::take(dir.path(), "c1", PATIENCE).expect("the lock"));
        assert_eq!(fs::read_dir(dir.path().join(FOLDER)).expect("the folder").count(), 0);
    }

    #[test]
    fn who_waits_too_long_is_told_to_try_again() {
        let dir = folder();
        let _held = Lock::take(dir.path(), "c1", PATIENCE).expect("the lock");
        let refused = Lock::take(dir.path(), "c1", Duration::ZERO).expect_err("it is held");
        assert!(refused.is(Code::TryAgainLater), "{refused}");
        assert!(Lock::take(dir.path(), "c2", Duration::ZERO).is_ok(), "another container has its own");
    }

    #[test]
    fn only_one_of_many_holds_it_at_a_time() {
        let dir = folder();
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _lock = Lock::take(dir.path(), "c1", PATIENCE).expect("the lock");
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two are inside");
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_of_input_and_output() {
        let dir = folder();
        fs::write(dir.path().join(FOLDER), "a file").expect("write");
        assert!(Lock::take(dir.path(), "c1", PATIENCE).is_err_and(|e| e.is(Code::Io)));
    }
}
