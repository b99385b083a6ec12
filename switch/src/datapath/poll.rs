//! Waiting: which queues can be read, and whether the control side called.

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use sluice_flows::DpPort;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

/// Descriptors reported at a time; the others are reported next time.
const EVENTS: usize = 64;
/// Stands for the eventfd among the ports.
const WAKE: u64 = u64::MAX;

/// Wakes a parked worker. Clones wake the same one.
#[derive(Clone, Debug)]
pub(crate) struct Wake(Arc<EventFd>);

impl Wake {
    /// Makes the worker turn its loop at least once more from now on.
    pub(crate) fn wake(&self) {
        // A full counter means that it is awake already.
        _ = self.0.write(1);
    }
}

/// The epoll instance of one worker.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: Epoll,
    wake: Wake,
    events: [EpollEvent; EVENTS],
}

impl Poller {
    /// A poller that waits for nothing but its [`Wake`].
    pub(crate) fn new() -> io::Result<Self> {
        let wake = Wake(Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?));
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(wake.0.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        Ok(Self { epoll, wake, events: [EpollEvent::empty(); EVENTS] })
    }

    pub(crate) fn wake(&self) -> Wake {
        self.wake.clone()
    }

    /// Reports `fd` as `port` from now on, as long as it is readable.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, port: DpPort) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, u64::from(port.0)))?)
    }

    /// Does not report `fd` any more.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) {
        // It may be closed or never have been added; either way it is not reported.
        _ = self.epoll.delete(fd);
    }

    /// Waits at most `timeout` (for ever if none) and calls `ready` with every port that can be read. Returns whether
    /// anything was reported.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>, mut ready: impl FnMut(DpPort)) -> bool {
        let timeout = timeout.map_or(EpollTimeout::NONE, |t| EpollTimeout::try_from(t).unwrap_or(EpollTimeout::MAX));
        let count = match self.epoll.wait(&mut self.events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => return true,
            // Nothing else can be wrong with a descriptor of our own; the caller's timers go on.
            Err(_) => return false,
        };
        for event in &self.events[..count] {
            match event.data() {
                WAKE => _ = self.wake.0.read(),
                port => ready(DpPort(port as u32)),
            }
        }
        count > 0
    }
}
