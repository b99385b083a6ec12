//! A thread that stays in the machine's network namespace, for tunnels to other machines and the uplink.
//!
//! The supervisor leaves the machine's namespace before it makes anything. A namespace that was left cannot be entered
//! again without privilege, but a thread that was started before stays in it: an unprivileged lab may open UDP sockets
//! there.

use crate::failure::Failure;
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::thread;

type Job = Box<dyn FnOnce() + Send>;

/// The thread. It ends when this is dropped.
pub(crate) struct Machine {
    jobs: Sender<Job>,
}

impl Machine {
    /// Starts the thread in the calling thread's namespace.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start() -> io::Result<Self> {
        let (jobs, todo) = channel::<Job>();
        let work = move || todo.into_iter().for_each(|job| job());
        thread::Builder::new().name("sluice-machine".to_owned()).spawn(work)?;
        Ok(Self { jobs })
    }

    /// Does something there, and waits for it.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (done, result) = channel();
        let ended = || Failure::new("the thread in the machine's network namespace has ended");
        self.jobs.send(Box::new(move || _ = done.send(job()))).map_err(|_| ended())?;
        result.recv().map_err(|_| ended())?
    }
}
