//! The network namespace that a tunnel port belongs to.

use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::thread;

/// A network namespace, kept alive by this.
#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    file: Arc<File>,
    inode: u64,
}

impl Namespace {
    /// The calling thread's.
    pub(crate) fn current() -> io::Result<Self> {
        let file = File::open("/proc/thread-self/ns/net")?;
        let inode = file.metadata()?.ino();
        Ok(Self { file: Arc::new(file), inode })
    }

    /// Its number, which no other namespace has while this lives.
    pub(crate) fn inode(&self) -> u64 {
        self.inode
    }

    /// Does `work` in the namespace, on a thread of its own: sockets belong for good to the one that they are made in.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let enter = || {
            // Entering the one that the thread is in already would ask for privilege for nothing.
            if Self::current()?.inode != self.inode {
                setns(&self.file, CloneFlags::CLONE_NEWNET)?;
            }
            work()
        };
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("sluice-netns".to_owned()).spawn_scoped(scope, enter)?;
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that opened sockets panicked")))
        })
    }
}
