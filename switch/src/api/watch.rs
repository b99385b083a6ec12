//! Watching: what the switch tells over a channel of its own, as a stream to a caller.
//!
//! The channel is one of threads, so each watcher has a thread that waits for it. The thread ends when the caller goes
//! away, when the switch does, or when the server is to end; it looks at the latter two a few times a second.

use super::Api;
use crossbeam::channel::{Receiver, RecvTimeoutError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// How often a watcher's thread looks whether anybody still listens.
const LOOK: Duration = Duration::from_millis(100);
/// Messages on their way to the caller, besides those that the switch keeps for it.
const ON_THE_WAY: usize = 16;

/// The stream that a watch answers with.
pub(super) type Watched<T> = ReceiverStream<Result<T, Status>>;

impl Api {
    /// Leave for one more watcher's thread.
    pub(super) fn watch_permit(&self) -> Result<OwnedSemaphorePermit, Status> {
        self.watchers
            .clone()
            .try_acquire_owned()
            .map_err(|_| Status::resource_exhausted("too many watchers of events and packets; end one of them first"))
    }

    /// Sends what `source` tells, as `message` makes it known, or not.
    pub(super) fn watch<S: Send + 'static, T: Send + 'static>(
        &self,
        source: Receiver<S>,
        mut message: impl FnMut(S) -> Option<T> + Send + 'static,
    ) -> Result<Watched<T>, Status> {
        let permit = self.watch_permit()?;
        let (sender, receiver) = mpsc::channel(ON_THE_WAY);
        let ended = self.ended.clone();
        tokio::task::spawn_blocking(move || {
            while !sender.is_closed() && !*ended.borrow() {
                match source.recv_timeout(LOOK) {
                    Ok(said) => {
                        if message(said).is_some_and(|m| sender.blocking_send(Ok(m)).is_err()) {
                            break;
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            drop(permit);
        });
        Ok(ReceiverStream::new(receiver))
    }
}
