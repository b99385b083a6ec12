//! Datagrams of one length to one address, sent by one system call.

use super::sys::UdpSocket;
use crate::port::TxOutcome;
use sluice_flows::DropReason;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

/// Most datagrams in one call: what every Linux that has `UDP_SEGMENT` takes.
const MAX_COUNT: usize = 64;
/// Most bytes in one call: an IPv6 packet's, less its own headers.
pub(super) const MAX_LEN: usize = 65_535 - 48;
/// Room behind them for a message that is none of the train.
const SPARE: usize = 256;
/// Milliseconds to wait for room in the socket, before what is sent is lost.
const PATIENCE_MS: i32 = 10;

/// Datagrams that wait to be sent together.
pub(super) struct Train {
    bytes: Box<[u8]>,
    len: usize,
    /// Length of the first; only the last may be shorter.
    segment: usize,
    count: usize,
    /// The last is shorter, so no more fit behind it.
    closed: bool,
    to: Option<SocketAddr>,
    tos: u8,
    /// The frames that they carry: first and last, as numbers in the burst.
    frames: (usize, usize),
}

impl Train {
    pub(super) fn new() -> Self {
        let bytes = vec![0; MAX_LEN + SPARE].into_boxed_slice();
        Self { bytes, len: 0, segment: 0, count: 0, closed: false, to: None, tos: 0, frames: (0, 0) }
    }

    /// Whether a datagram of `len` bytes can be added.
    #[inline]
    pub(super) fn takes(&self, len: usize, to: SocketAddr, tos: u8) -> bool {
        self.count == 0
            || !self.closed
                && self.to == Some(to)
                && self.tos == tos
                && len <= self.segment
                && self.count < MAX_COUNT
                && self.len + len <= MAX_LEN
    }

    /// Room for a datagram of up to [`MAX_LEN`] bytes less those that are there, and a little more.
    #[inline]
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.len..]
    }

    /// Adds the first `len` bytes of the room, which carry frame number `frame`.
    #[inline]
    pub(super) fn push(&mut self, len: usize, to: SocketAddr, tos: u8, frame: usize) {
        if self.count == 0 {
            (self.segment, self.to, self.tos, self.frames.0) = (len, Some(to), tos, frame);
        }
        self.closed = len < self.segment;
        self.len += len;
        self.count += 1;
        self.frames.1 = frame;
    }

    /// Sends what is there. Frames that do not leave are dropped in `outcomes`.
    pub(super) fn flush(&mut self, socket: &UdpSocket, outcomes: &mut [TxOutcome]) {
        let (Some(to), 1..) = (self.to, self.count) else { return };
        let bytes = &self.bytes[..self.len];
        let segment = (self.count > 1).then_some(self.segment as u16);
        let mut result = send(socket, bytes, segment, self.tos, to);
        if segment.is_some() && result.as_ref().is_err_and(is_refused) {
            // A path with a smaller MTU than the segments, or a device without checksums: one by one the host's stack
            // fragments and sums them.
            result = bytes.chunks(self.segment).try_for_each(|one| send(socket, one, None, self.tos, to));
        }
        if let Err(error) = result {
            let (first, last) = self.frames;
            for outcome in outcomes.iter_mut().take(last + 1).skip(first).filter(|o| **o == TxOutcome::Sent) {
                *outcome = TxOutcome::Dropped(reason(&error));
            }
        }
        (self.len, self.count, self.closed, self.to) = (0, 0, false, None);
    }
}

fn send(socket: &UdpSocket, bytes: &[u8], segment: Option<u16>, tos: u8, to: SocketAddr) -> io::Result<()> {
    match socket.send(bytes, segment, tos, to) {
        Err(e) if e.kind() == ErrorKind::WouldBlock && socket.wait_writable(PATIENCE_MS) => {
            socket.send(bytes, segment, tos, to)
        }
        result => result,
    }
}

/// Whether the kernel did not want the datagrams in one call.
fn is_refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EMSGSIZE | libc::EIO | libc::EOPNOTSUPP))
}

fn reason(error: &io::Error) -> DropReason {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => DropReason::QueueFull,
        Some(libc::EMSGSIZE) => DropReason::MtuExceeded,
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => DropReason::NoRoute,
        _ => DropReason::TunnelDown,
    }
}
