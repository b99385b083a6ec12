//! A descriptor that becomes readable when it is time, for queues whose frames are not all due at once.
//!
//! Timer and due times are of one clock (`CLOCK_MONOTONIC`): when the timer says so, the frame is due. What it is set to
//! is kept by whoever sets it, so that setting it to the same again costs no system call.

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::clock_gettime;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Alarm(TimerFd);

impl Alarm {
    /// One that is not set.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?))
    }

    /// Makes the descriptor readable at `due`, in nanoseconds of [`now`], or not at all. `set` is what it is set to; it
    /// stays readable from then on until it is set anew.
    pub(crate) fn set(&self, set: &mut Option<u64>, due: Option<u64>) {
        if *set == due {
            return;
        }
        *set = due;
        // The only thing that the kernel could find wrong is a time out of range, which a sum of nanoseconds in 64 bits
        // cannot be; 0 would stop the timer.
        _ = match due {
            Some(due) => {
                let at = TimeSpec::from_duration(Duration::from_nanos(due.max(1)));
                self.0.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)
            }
            None => self.0.unset(),
        };
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Nanoseconds of the clock that alarms go by.
pub(crate) fn now() -> u64 {
    // The clock exists on every Linux.
    clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| u64::try_from(Duration::from(time).as_nanos()).unwrap_or(u64::MAX))
}
