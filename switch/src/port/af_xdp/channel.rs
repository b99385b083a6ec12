//! One AF_XDP socket with its memory and its four rings.
//!
//! Chunks of the memory go round: those of the first half from us by the fill ring to the kernel and back by the receive
//! ring, those of the second by the transmit ring and back by the completion ring. Frames are copied between chunks and
//! the worker's own, because one frame may leave by many ports and outlive the burst in none.

use super::received::restore;
use super::ring::{Consumer, Producer};
use super::sys::{Area, RingKind, Xsk};
use crate::port::TxOutcome;
use sluice_flows::DropReason;
use sluice_flows::packet::Frame;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Chunks for each direction, and entries in each ring. A ring is never short of room for the chunks there are.
const CHUNKS: u32 = 2048;
/// Frames that are handed to the kernel at a time: in copy mode it takes no more for one call.
const BATCH: usize = 32;
/// Most chunks that one frame is sent in: the kernel's packets have no more pieces (MAX_SKB_FRAGS).
const PIECES: usize = 17;
/// How long a full queue is waited for, once a burst.
const TX_WAIT_MS: i32 = 1;
/// Bytes in front of a frame to be sent that tell the kernel about it: `struct xsk_tx_metadata`.
const METADATA_LEN: usize = 24;
/// Bytes that the kernel reserves in front of every frame that it receives (XDP_PACKET_HEADROOM).
const HEADROOM: usize = 256;
/// How often, and after which pause, a queue that is taken is tried again: the kernel gives one back in the background,
/// after its socket was closed.
const BIND_TRIES: u32 = 200;
const BIND_PAUSE: Duration = Duration::from_millis(1);
/// Bytes that frames under way may take in the kernel: more than all chunks with the kernel's own data about each.
const SEND_BUFFER: i32 = 32 << 20;

/// What a socket is joined to, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Join {
    /// Index of the interface.
    pub(super) index: i32,
    /// Its receive queue.
    pub(super) queue: u32,
    /// Bytes in a chunk: 2048 or 4096.
    pub(super) chunk: u32,
    /// The kernel's `XDP_*` flags of bind.
    pub(super) flags: u16,
}

/// A socket in use.
#[derive(Debug)]
pub(super) struct Channel {
    socket: Arc<Xsk>,
    umem: Area,
    chunk: usize,
    rx: Consumer<libc::xdp_desc>,
    fill: Producer<u64>,
    tx: Producer<libc::xdp_desc>,
    completion: Consumer<u64>,
    /// Chunks to send from, the one used last on top: it is still in the CPU's cache.
    free: Vec<u64>,
    /// Of each entry of the transmit ring that the kernel was not told of yet, which frame of the burst it belongs to.
    batch: Vec<usize>,
    /// The kernel sends only when asked, on our thread.
    copies: bool,
    /// Bytes of metadata in front of every frame to be sent; 0 where the kernel takes none.
    metadata: usize,
    /// The device was down when last asked to send.
    down: bool,
    /// A full queue was waited for in this burst.
    waited: bool,
}

/// Longest frame that fits one chunk of this many bytes.
pub(super) const fn room_in(chunk: u32) -> u32 {
    chunk - HEADROOM as u32
}

impl Channel {
    /// Makes a socket with its memory and joins it.
    ///
    /// # Errors
    /// What was being done, and the system's word.
    pub(super) fn new(join: Join) -> Result<Self, (&'static str, io::Error)> {
        let failed = |op| move |e| (op, e);
        let chunk = join.chunk as usize;
        let socket = Xsk::new().map_err(failed("open an AF_XDP socket"))?;
        let umem = Area::anonymous(2 * CHUNKS as usize * chunk).map_err(failed("get memory for frames"))?;
        let register = |metadata: usize| socket.register(&umem, join.chunk, metadata as u32).map(|()| metadata);
        let registered = register(METADATA_LEN).or_else(|e| match e.raw_os_error() {
            // Before Linux 6.11.
            Some(libc::EINVAL) => register(0),
            _ => Err(e),
        });
        let metadata = registered.map_err(failed("register memory for frames"))?;
        let ring = "make the socket's rings";
        let mut fill = Producer::new(socket.ring(RingKind::Fill, CHUNKS).map_err(failed(ring))?);
        let completion = Consumer::new(socket.ring(RingKind::Completion, CHUNKS).map_err(failed(ring))?);
        let rx = Consumer::new(socket.ring(RingKind::Rx, CHUNKS).map_err(failed(ring))?);
        let tx = Producer::new(socket.ring(RingKind::Tx, CHUNKS).map_err(failed(ring))?);
        socket.set_send_buffer(SEND_BUFFER).map_err(failed("size the socket's buffer"))?;
        let address = |number: u32| u64::from(number) * u64::from(join.chunk);
        for number in 0..CHUNKS {
            fill.push(address(number));
        }
        fill.publish();
        bind(&socket, join).map_err(failed("bind the AF_XDP socket"))?;
        let copies = !socket.is_zero_copy().map_err(failed("ask for the socket's mode"))?;
        Ok(Self {
            socket: Arc::new(socket),
            umem,
            chunk,
            rx,
            fill,
            tx,
            completion,
            free: (CHUNKS..2 * CHUNKS).map(address).collect(),
            batch: Vec::with_capacity(BATCH),
            copies,
            metadata,
            down: false,
            waited: false,
        })
    }

    pub(super) fn socket(&self) -> &Arc<Xsk> {
        &self.socket
    }

    /// Receives into the first frames of `frames`. Returns how many, and how many more came that are of no use.
    pub(super) fn receive(&mut self, frames: &mut [Frame], mtu: u32) -> (usize, u64) {
        let (mut got, mut invalid) = (0, 0);
        while let Some(frame) = frames.get_mut(got) {
            let Some(pieces) = self.pieces() else { break };
            let mut good = true;
            let mut len = 0;
            let room = frame.room();
            for piece in 0..pieces {
                let Some(entry) = self.rx.peek(piece) else { break };
                let bytes = self.umem.bytes(entry.addr as usize, entry.len as usize);
                match bytes.and_then(|bytes| Some((room.get_mut(len..len + bytes.len())?, bytes))) {
                    Some((to, bytes)) => {
                        to.copy_from_slice(bytes);
                        len += bytes.len();
                    }
                    None => good = false,
                }
                self.fill.push(entry.addr & !(self.chunk as u64 - 1));
            }
            self.rx.take(pieces);
            frame.set_len(len);
            if good && restore(frame, mtu) {
                got += 1;
            } else {
                invalid += 1;
            }
        }
        if got > 0 || invalid > 0 {
            self.rx.release();
            self.fill.publish();
            if self.fill.needs_wakeup() {
                // What is wrong with the device comes out when there is nothing to receive.
                _ = self.socket.kick_rx();
            }
        }
        (got, invalid)
    }

    /// Entries that the next frame in the receive ring takes, once all of it is there.
    fn pieces(&mut self) -> Option<u32> {
        let mut count = 0;
        loop {
            let entry = self.rx.peek(count)?;
            count += 1;
            if entry.options & libc::XDP_PKT_CONTD == 0 {
                return Some(count);
            }
        }
    }

    /// Whether the device is there, while there is nothing to receive. Frames that the kernel had no room for are tried
    /// again.
    ///
    /// # Errors
    /// It is gone. One that is only down is there.
    pub(super) fn check(&mut self) -> io::Result<()> {
        if self.copies && self.tx.waiting() > 0 {
            _ = self.socket.kick_tx();
        }
        match self.socket.kick_rx() {
            Err(e) if e.raw_os_error() == Some(libc::ENXIO) => Err(e),
            _ => Ok(()),
        }
    }

    /// A burst of frames is to be sent.
    pub(super) fn begin_burst(&mut self) {
        self.waited = false;
        if self.down {
            // Only to learn whether it still is: nothing new may wait for a device that stays down.
            self.down = self.socket.kick_tx().is_err_and(|e| is_down(&e));
        }
    }

    /// Whether the kernel completes checksums. Drivers that send from the chunks themselves need not be able to.
    pub(super) fn completes_checksums(&self) -> bool {
        self.copies && self.metadata > 0
    }

    /// Sends the bytes of frame `owner` of the burst, or keeps them for [`Self::flush`], which says in `outcomes` what
    /// did not leave. If there is a `checksum` to complete, it is the 16-bit one whose field is so many bytes behind where
    /// it starts, inside the frame.
    pub(super) fn send(
        &mut self,
        bytes: &[u8],
        checksum: Option<(u16, u16)>,
        owner: usize,
        outcomes: &mut [TxOutcome],
    ) -> TxOutcome {
        let room = self.chunk - self.metadata;
        let pieces = bytes.len().div_ceil(room);
        if pieces > PIECES {
            return TxOutcome::Dropped(DropReason::MtuExceeded);
        }
        if self.batch.len() + pieces > BATCH {
            self.flush(outcomes);
        }
        if self.free.len() < pieces {
            self.flush(outcomes);
            self.wait();
            self.reclaim();
        }
        if self.down {
            return TxOutcome::Dropped(DropReason::PortDown);
        }
        if self.free.len() < pieces {
            return TxOutcome::Dropped(DropReason::QueueFull);
        }
        let last = pieces.saturating_sub(1);
        for (i, piece) in bytes.chunks(room).enumerate() {
            let Some(chunk) = self.free.pop() else { break };
            let len = self.metadata + piece.len();
            let Some((metadata, to)) =
                self.umem.bytes_mut(chunk as usize, len).and_then(|bytes| bytes.split_at_mut_checked(self.metadata))
            else {
                break;
            };
            to.copy_from_slice(piece);
            let mut options = if i < last { libc::XDP_PKT_CONTD } else { 0 };
            if let (0, Some((start, offset)), Some(request)) = (i, checksum, metadata.first_chunk_mut::<12>()) {
                request[..8].copy_from_slice(&u64::from(libc::XDP_TXMD_FLAGS_CHECKSUM).to_ne_bytes());
                request[8..10].copy_from_slice(&start.to_ne_bytes());
                request[10..].copy_from_slice(&offset.to_ne_bytes());
                options |= libc::XDP_TX_METADATA;
            }
            let addr = chunk + self.metadata as u64;
            self.tx.push(libc::xdp_desc { addr, len: piece.len() as u32, options });
            self.batch.push(owner);
        }
        TxOutcome::Sent
    }

    /// Has the kernel send what was kept.
    pub(super) fn flush(&mut self, outcomes: &mut [TxOutcome]) {
        self.tx.publish();
        if self.copies || self.tx.needs_wakeup() {
            self.kick(outcomes);
        }
        self.batch.clear();
        self.reclaim();
    }

    /// Asks the kernel to send until it has taken everything or can take no more. What it has not taken then stays in the
    /// ring and leaves with the next burst.
    fn kick(&mut self, outcomes: &mut [TxOutcome]) {
        let mut left = self.tx.waiting();
        while left > 0 {
            let Err(error) = self.socket.kick_tx() else { return };
            let before = std::mem::replace(&mut left, self.tx.waiting());
            match error.raw_os_error() {
                // The last one that it took was dropped by the device.
                Some(libc::EBUSY) if left < before => self.fail(left + 1..left + 2, DropReason::QueueFull, outcomes),
                Some(libc::EINTR) => {}
                _ if is_down(&error) => {
                    self.down = true;
                    return self.fail(1..left + 1, DropReason::PortDown, outcomes);
                }
                _ if left < before => {}
                _ if self.waited => return,
                _ => self.wait(),
            }
        }
    }

    /// Notes that entries of the batch, counted from the end of the ring, did not leave.
    fn fail(&self, from_end: std::ops::Range<u32>, reason: DropReason, outcomes: &mut [TxOutcome]) {
        for i in from_end {
            let owner = self.batch.len().checked_sub(i as usize).and_then(|at| self.batch.get(at));
            if let Some(outcome) = owner.and_then(|owner| outcomes.get_mut(*owner)) {
                *outcome = TxOutcome::Dropped(reason);
            }
        }
    }

    fn wait(&mut self) {
        if !std::mem::replace(&mut self.waited, true) {
            self.socket.wait_writable(TX_WAIT_MS);
        }
    }

    /// Takes back the chunks that were sent.
    fn reclaim(&mut self) {
        while let Some(addr) = self.completion.peek(0) {
            self.completion.take(1);
            self.free.push(addr & !(self.chunk as u64 - 1));
        }
        self.completion.release();
    }
}

/// Joins the socket to its queue, which may be one that was just given up.
fn bind(socket: &Xsk, join: Join) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match socket.bind(join.index, join.queue, join.flags) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && tries < BIND_TRIES => tries += 1,
            result => return result,
        }
        thread::sleep(BIND_PAUSE);
    }
}

/// Whether the device is down or gone.
fn is_down(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV | libc::EBADF))
}
