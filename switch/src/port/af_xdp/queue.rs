//! One worker's queue of an AF_XDP port: one or more sockets, each joined to one receive queue of the interface.

use super::channel::Channel;
use crate::port::finish::Finisher;
use crate::port::{PortQueue, TxOutcome, fit};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use sluice_flows::DropReason;
use sluice_flows::packet::{Frame, GsoKind, Offload};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Shortest frame that the kernel sends: an Ethernet header.
const MIN_LEN: usize = 14;

/// Where SCTP has its checksum, which is a CRC: no other protocol has one there.
const SCTP_CHECKSUM: u16 = 8;

/// A worker's sockets.
pub(super) struct AfXdpQueue {
    /// At least one; frames are sent by the first.
    channels: Vec<Channel>,
    /// Which is asked first: none is to starve.
    turn: usize,
    /// Readable when one of several is.
    any: Option<Epoll>,
    mtu: Arc<AtomicU32>,
    invalid: Arc<AtomicU64>,
    finisher: Finisher,
}

impl AfXdpQueue {
    /// # Errors
    /// The system's, when there is no descriptor left.
    pub(super) fn new(channels: Vec<Channel>, mtu: Arc<AtomicU32>, invalid: Arc<AtomicU64>) -> io::Result<Self> {
        let any = if channels.len() > 1 {
            let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
            for channel in &channels {
                epoll.add(channel.socket(), EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
            }
            Some(epoll)
        } else {
            None
        };
        Ok(Self { channels, turn: 0, any, mtu, invalid, finisher: Finisher::new() })
    }
}

/// Start and field of a checksum that the kernel can complete: not the CRC of SCTP, not in a super-frame, and nothing that
/// lies outside.
#[inline]
fn completable(frame: &Frame) -> Option<(u16, u16)> {
    let Offload { gso: GsoKind::None, csum_partial: true, csum_start, csum_offset, .. } = frame.offload else {
        return None;
    };
    let end = usize::from(csum_start) + usize::from(csum_offset) + 2;
    (csum_offset != SCTP_CHECKSUM && end <= frame.len()).then_some((csum_start, csum_offset))
}

impl PortQueue for AfXdpQueue {
    fn rx_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.any {
            Some(epoll) => Some(epoll.0.as_fd()),
            None => self.channels.first().map(|channel| channel.socket().as_fd()),
        }
    }

    fn rx_burst(&mut self, frames: &mut [Frame]) -> io::Result<usize> {
        let mtu = self.mtu.load(Ordering::Relaxed);
        let count = self.channels.len();
        let mut got = 0;
        for i in 0..count {
            let channel = &mut self.channels[(self.turn + i) % count];
            let (received, invalid) = channel.receive(&mut frames[got..], mtu);
            got += received;
            if invalid > 0 {
                self.invalid.fetch_add(invalid, Ordering::Relaxed);
            }
        }
        self.turn = (self.turn + 1) % count.max(1);
        if got == 0 && !frames.is_empty() {
            // The socket of a device that is gone is never readable again, and nothing else says so.
            self.channels.iter_mut().try_for_each(Channel::check)?;
        }
        Ok(got)
    }

    fn tx_burst(&mut self, frames: &[&Frame], outcomes: &mut [TxOutcome]) {
        let Some(channel) = self.channels.first_mut() else { return };
        let mtu = self.mtu.load(Ordering::Relaxed);
        let count = frames.len().min(outcomes.len());
        let (frames, outcomes) = (&frames[..count], &mut outcomes[..count]);
        outcomes.fill(TxOutcome::Sent);
        channel.begin_burst();
        for (i, frame) in frames.iter().enumerate() {
            let outcome = if fit::too_long(frame, mtu) {
                TxOutcome::Dropped(DropReason::MtuExceeded)
            } else if frame.len() < MIN_LEN {
                TxOutcome::Dropped(DropReason::ParseError)
            } else if channel.completes_checksums()
                && let Some(checksum) = completable(frame)
            {
                channel.send(frame.bytes(), Some(checksum), i, outcomes)
            } else {
                self.finisher.send(frame, |bytes| channel.send(bytes, None, i, outcomes))
            };
            if outcome != TxOutcome::Sent {
                outcomes[i] = outcome;
            }
        }
        channel.flush(outcomes);
    }
}
