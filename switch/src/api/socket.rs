//! The socket: made so that nobody else can ever connect, and never taken from a switch that is alive.
//!
//! The socket is bound under a name of its own, made private (mode 0600), and renamed into place: at its final name it
//! is never open to others and never absent. What is at that name before decides: somebody answers, and we give up;
//! nobody does, and it is what a killed process left, which the rename replaces.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use thiserror::Error;

/// How long a socket has to answer to be another switch's.
const LINGER: Duration = Duration::from_secs(1);

/// Why there is no socket.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Another switch has it.
    #[error("another sluiced answers on {path}; stop it, or give this one another place with --socket")]
    Busy {
        /// The socket.
        path: PathBuf,
    },
    /// The name is taken by something that is not a socket.
    #[error("{path} is there and is not a socket; move it away, or give another place with --socket")]
    NotSocket {
        /// What is there.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot listen on {path}: {source}")]
    Refused {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// A listening socket; its name is removed on drop, if it is still ours.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode that the name had when it was made.
    identity: (u64, u64),
}

impl Socket {
    /// Listens on `path`, whose folder is made if it is missing.
    ///
    /// # Errors
    /// [`SocketError`]; nothing is left behind.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let refused = |source| SocketError::Refused { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(refused)?;
        }
        check_free(path)?;
        let mut own_name = path.as_os_str().to_owned();
        own_name.push(format!(".{}", std::process::id()));
        let own_name = PathBuf::from(own_name);
        // A process of this number that was killed in between may have left it.
        let _ = fs::remove_file(&own_name);
        let placed = place(&own_name, path);
        if placed.is_err() {
            let _ = fs::remove_file(&own_name);
        }
        let (listener, identity) = placed.map_err(refused)?;
        Ok(Self { listener, path: path.to_owned(), identity })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Another handle on the listening socket, that does not block.
    ///
    /// # Errors
    /// The system is out of descriptors.
    pub fn listener(&self) -> io::Result<UnixListener> {
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|m| identity(&m) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn place(own_name: &Path, path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    let listener = UnixListener::bind(own_name)?;
    fs::set_permissions(own_name, Permissions::from_mode(0o600))?;
    let identity = identity(&fs::symlink_metadata(own_name)?);
    fs::rename(own_name, path)?;
    Ok((listener, identity))
}

fn check_free(path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Ok(m) if !m.file_type().is_socket() => return Err(SocketError::NotSocket { path: path.to_owned() }),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(SocketError::Refused { path: path.to_owned(), source }),
    }
    // A switch that was killed while it started a program is heard for another moment, until that program has closed the socket.
    let until = Instant::now() + LINGER;
    let mut answer = UnixStream::connect(path);
    while answer.is_ok() && Instant::now() < until {
        thread::sleep(LINGER / 20);
        answer = UnixStream::connect(path);
    }
    match answer {
        Ok(_) => Err(SocketError::Busy { path: path.to_owned() }),
        Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(()),
        Err(source) => Err(SocketError::Refused { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_private_and_gone_after_drop() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/folder/s.sock");
        let socket = Socket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }

    #[test]
    fn a_socket_that_answers_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let first = Socket::bind(&path).unwrap();
        let error = Socket::bind(&path).unwrap_err();
        assert!(error.to_string().starts_with("another sluiced answers on "), "{error}");
        UnixStream::connect(&path).unwrap();
        drop(first);
    }

    #[test]
    fn a_socket_left_by_a_killed_process_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        // The standard library's listener leaves its name behind, as a killed process does.
        drop(UnixListener::bind(&path).unwrap());
        let _socket = Socket::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_file_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(Socket::bind(&path), Err(SocketError::NotSocket { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_name_that_another_took_meanwhile_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let first = Socket::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _second = Socket::bind(&path).unwrap();
        drop(first);
        UnixStream::connect(&path).unwrap();
    }
}
