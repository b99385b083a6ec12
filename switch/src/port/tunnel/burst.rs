//! Datagrams gathered for one socket after the other.
//!
//! Datagrams of one flow that follow each other and are as long as each other go to the kernel as one, a *train*, which
//! it cuts (`UDP_SEGMENT`): the segments of a super-frame, and small frames in a row as well. The kernel then takes its
//! way from the socket to the device once for all of them. The last datagram of a train may be shorter.

use super::sys::Socket;
use super::sys::send::{Batch, Departure, MESSAGES, Store};
use crate::port::TxOutcome;
use sluice_flows::DropReason;
use std::io;

/// Datagrams in a train: as many as every kernel with `UDP_SEGMENT` cuts.
const TRAIN_DATAGRAMS: usize = 64;
/// Bytes in a train: less than what fits an IP packet of either family.
const TRAIN_SIZE: usize = 65_000;
/// Pieces of a datagram: headers, and the rest.
const PIECES: usize = 2;
/// How long a full send buffer is waited for, once a burst.
const TX_WAIT_MS: i32 = 1;

/// The last message, while datagrams may be added to it.
#[derive(Clone, Copy, Debug)]
struct Train {
    departure: Departure,
    /// Length of each datagram.
    size: usize,
    datagrams: usize,
    /// It can grow: nothing in it is shorter, and its datagrams are of a kind that the kernel cuts.
    open: bool,
}

/// A burst on its way to the kernel.
pub(crate) struct Sending<'s, 'f, 'a> {
    batch: Batch<'s, 'f>,
    /// The first and the last frame that each message has something of.
    spans: [(usize, usize); MESSAGES],
    socket: Option<&'a Socket>,
    train: Option<Train>,
    outcomes: &'a mut [TxOutcome],
    cuts: &'a mut bool,
    waited: bool,
}

/// One datagram: the frame that it is of, where it goes, and how long it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Datagram<'d> {
    pub(crate) frame: usize,
    pub(crate) departure: &'d Departure,
    pub(crate) len: usize,
    /// Bytes of it that are written for it.
    pub(crate) headers: usize,
    /// It can be part of a train.
    pub(crate) trains: bool,
}

impl<'s, 'f, 'a> Sending<'s, 'f, 'a> {
    /// Nothing yet; what becomes of each frame is noted in `outcomes`, where each counts as sent at first. Trains are
    /// made while `cuts` is true, which the kernel may say is wrong.
    pub(crate) fn new(store: &'s mut Store, outcomes: &'a mut [TxOutcome], cuts: &'a mut bool) -> Self {
        let batch = Batch::new(store);
        Self { batch, spans: [(0, 0); MESSAGES], socket: None, train: None, outcomes, cuts, waited: false }
    }

    /// Has what follows go by this socket.
    pub(crate) fn by(&mut self, socket: &'a Socket) {
        if !self.socket.is_some_and(|now| std::ptr::eq(now, socket)) {
            self.flush();
            self.socket = Some(socket);
        }
    }

    /// Begins a datagram: its headers, and the rest of it as one piece, are added to what is returned, at once. `None` if
    /// there can be no room for its headers.
    pub(crate) fn datagram(&mut self, datagram: &Datagram<'_>) -> Option<&mut Batch<'s, 'f>> {
        let Datagram { frame, departure, len, headers, trains } = *datagram;
        let trains = trains && *self.cuts;
        let fits = |train: &&mut Train| {
            train.open
                && trains
                && len <= train.size
                && train.datagrams < TRAIN_DATAGRAMS
                && (train.datagrams + 1) * train.size <= TRAIN_SIZE
                && train.departure == *departure
        };
        if self.batch.can_grow(PIECES, headers)
            && let Some(train) = self.train.as_mut().filter(fits)
        {
            train.datagrams += 1;
            train.open = len == train.size;
            self.spans[self.batch.len() - 1].1 = frame;
            return Some(&mut self.batch);
        }
        self.close();
        if !self.batch.has_room(PIECES, headers) {
            self.flush();
            if !self.batch.has_room(PIECES, headers) {
                return None;
            }
        }
        self.spans[self.batch.len()] = (frame, frame);
        self.batch.begin(departure);
        self.train = Some(Train { departure: *departure, size: len, datagrams: 1, open: trains });
        Some(&mut self.batch)
    }

    /// Ends the last message.
    fn close(&mut self) {
        if let Some(train) = self.train.take().filter(|train| train.datagrams > 1) {
            self.batch.cut(train.size as u16);
        }
    }

    /// Notes that a frame does not leave.
    pub(crate) fn drop_frame(&mut self, frame: usize, reason: DropReason) {
        if let Some(outcome) = self.outcomes.get_mut(frame) {
            *outcome = TxOutcome::Dropped(reason);
        }
    }

    /// Sends what was gathered.
    pub(crate) fn flush(&mut self) {
        self.close();
        let Some(socket) = self.socket else { return self.batch.clear() };
        let mut first = 0;
        while first < self.batch.len() {
            match self.batch.send(socket, first) {
                Ok(count) => first += count.max(1),
                Err(e) if e.raw_os_error() == Some(libc::EINTR) => {}
                Err(e) if e.raw_os_error() == Some(libc::EAGAIN) && !self.waited => {
                    self.waited = true;
                    socket.wait_writable(TX_WAIT_MS);
                }
                Err(e) => {
                    // A device without checksum offload, before Linux 6.11, or IPsec on the way.
                    *self.cuts &= e.raw_os_error() != Some(libc::EIO);
                    // The frames of the first message did not leave; the next may.
                    let (from, to) = self.spans[first];
                    self.outcomes[from..=to].fill(TxOutcome::Dropped(reason(&e)));
                    first += 1;
                }
            }
        }
        self.batch.clear();
    }
}

/// Why a message did not leave.
fn reason(error: &io::Error) -> DropReason {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => DropReason::QueueFull,
        Some(libc::EMSGSIZE) => DropReason::MtuExceeded,
        // No route, no such address of ours, or a route that forbids it.
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EADDRNOTAVAIL | libc::EACCES | libc::EINVAL) => {
            DropReason::TunnelDown
        }
        _ => DropReason::PortDown,
    }
}
