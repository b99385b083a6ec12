//! A port in memory: a program puts frames in at one end and takes what the switch sent out at the other.
//!
//! For tests and benches: no privilege, no device, no loss but by a full ring. An eventfd makes it readable like any
//! other port, so that a parked worker wakes. Both rings are crossbeam's `ArrayQueue`; frames move through them whole,
//! and emptied ones come back through a third, so that nothing is allocated once it is warm.

use super::{Device, Port, PortCaps, PortError, PortKind, PortQueue, TxOutcome, fit, sys};
use crossbeam::queue::ArrayQueue;
use sluice_flows::DropReason;
use sluice_flows::packet::Frame;
use sluice_flows::tunnel::Tunnel;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Least room of a frame made for a ring, so that it can be used again for most frames.
const ROOM: usize = 2048;

/// How to make a memory port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemOptions {
    /// Hardware address.
    pub mac: Option<[u8; 6]>,
    /// MTU in bytes, up to 65,535.
    pub mtu: u32,
    /// Frames that each ring holds, at least 1.
    pub depth: usize,
    /// Receive queues, at least 1: queue `i` belongs to worker `i`.
    pub queues: usize,
    /// The port is one of a tunnel: frames have the tunnel that they arrived by, or are to leave by.
    pub tunnel: Option<Tunnel>,
}

impl Default for MemOptions {
    fn default() -> Self {
        Self { mac: None, mtu: 1500, depth: 1024, queues: 1, tunnel: None }
    }
}

/// A port in memory.
pub struct MemPort {
    device: Device,
    tunnel: Option<Arc<Tunnel>>,
    shared: Arc<Shared>,
}

/// The program's end of a [`MemPort`]; clones are the same end.
#[derive(Clone)]
pub struct MemHandle {
    shared: Arc<Shared>,
}

struct Shared {
    up: AtomicBool,
    gone: AtomicBool,
    rx: Vec<RxRing>,
    tx: ArrayQueue<Frame>,
    spare: ArrayQueue<Frame>,
}

struct RxRing {
    ring: ArrayQueue<Frame>,
    event: File,
    /// Whether the eventfd was written since it was last drained: spares a system call per frame.
    signalled: AtomicBool,
}

impl MemPort {
    /// A port and the program's end of it.
    ///
    /// # Errors
    /// The system's, when it has no descriptor left for an eventfd.
    pub fn new(name: &str, options: &MemOptions) -> Result<(Self, MemHandle), PortError> {
        let depth = options.depth.max(1);
        let ring = || {
            let event = sys::eventfd().map_err(|e| PortError::from_io(name, "make an eventfd", e))?;
            Ok(RxRing { ring: ArrayQueue::new(depth), event, signalled: AtomicBool::new(false) })
        };
        let shared = Arc::new(Shared {
            up: AtomicBool::new(true),
            gone: AtomicBool::new(false),
            rx: (0..options.queues.max(1)).map(|_| ring()).collect::<Result<_, PortError>>()?,
            tx: ArrayQueue::new(depth),
            spare: ArrayQueue::new(depth),
        });
        let device = Device::without_link(name, options.mac, options.mtu);
        let tunnel = options.tunnel.clone().map(Arc::new);
        let port = Self { device, tunnel, shared: Arc::clone(&shared) };
        Ok((port, MemHandle { shared }))
    }

    /// The program's end.
    pub fn handle(&self) -> MemHandle {
        MemHandle { shared: Arc::clone(&self.shared) }
    }
}

impl MemHandle {
    /// Puts a frame with these bytes into receive queue 0. Returns whether there was room.
    pub fn inject(&self, bytes: &[u8]) -> bool {
        let mut frame = self.shared.spare(bytes.len());
        frame.copy_from(bytes);
        self.inject_frame(0, frame)
    }

    /// Puts a frame, metadata included, into a receive queue. Returns whether there is such a queue and it had room.
    pub fn inject_frame(&self, queue: usize, frame: Frame) -> bool {
        let Some(rx) = self.shared.rx.get(queue) else { return false };
        if let Err(frame) = rx.ring.push(frame) {
            self.recycle(frame);
            return false;
        }
        // Pushed before the swap: whoever clears the flag after it finds the frame.
        if !rx.signalled.swap(true, Ordering::AcqRel) {
            rx.signal();
        }
        true
    }

    /// Takes the oldest frame that the switch sent.
    pub fn take(&self) -> Option<Frame> {
        self.shared.tx.pop()
    }

    /// Gives a frame's buffer back for another frame; optional.
    pub fn recycle(&self, frame: Frame) {
        // With enough spares, this one is freed.
        _ = self.shared.spare.push(frame);
    }

    /// Frames injected and not yet received.
    pub fn pending(&self) -> usize {
        self.shared.rx.iter().map(|rx| rx.ring.len()).sum()
    }

    /// Sets the link up or down; while it is down, frames sent are dropped as `port_down`.
    pub fn set_link(&self, up: bool) {
        self.shared.up.store(up, Ordering::Relaxed);
    }

    /// Takes the device away under its queues, as when an interface is deleted: receiving fails from then on.
    pub fn vanish(&self) {
        self.shared.gone.store(true, Ordering::Relaxed);
        self.set_link(false);
        self.shared.rx.iter().for_each(RxRing::signal);
    }
}

impl Shared {
    /// An empty frame with room for `len` bytes: a used one if there is one large enough.
    fn spare(&self, len: usize) -> Frame {
        match self.spare.pop() {
            Some(frame) if frame.capacity() >= len => frame,
            _ => Frame::with_capacity(len.max(ROOM)),
        }
    }
}

impl RxRing {
    fn signal(&self) {
        // A full count leaves it readable, which is all that is wanted.
        _ = (&self.event).write(&1_u64.to_ne_bytes());
    }

    fn pop(&self) -> Option<Frame> {
        if let Some(frame) = self.ring.pop() {
            return Some(frame);
        }
        // Drained, then cleared, then looked again: a frame pushed after the clearing signals by itself, and one pushed
        // before it is found here. Then more may have come without a signal, so one is made for them.
        _ = (&self.event).read(&mut [0; 8]);
        self.signalled.swap(false, Ordering::AcqRel);
        self.ring.pop().inspect(|_| {
            self.signalled.store(true, Ordering::Release);
            self.signal();
        })
    }
}

impl Port for MemPort {
    fn kind(&self) -> PortKind {
        PortKind::Memory
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn link_up(&self) -> bool {
        self.shared.up.load(Ordering::Relaxed)
    }

    fn caps(&self) -> PortCaps {
        PortCaps::ALL
    }

    fn tunnel(&self) -> Option<Arc<Tunnel>> {
        self.tunnel.clone()
    }

    fn queues(&self, count: usize) -> Result<Vec<Box<dyn PortQueue>>, PortError> {
        let (shared, mtu) = (&self.shared, self.device.shared_mtu());
        let queue = |index| MemQueue { shared: Arc::clone(shared), mtu: Arc::clone(&mtu), index };
        Ok((0..count).map(|index| Box::new(queue(index)) as Box<dyn PortQueue>).collect())
    }
}

/// One worker's queue of a [`MemPort`].
struct MemQueue {
    shared: Arc<Shared>,
    mtu: Arc<AtomicU32>,
    index: usize,
}

impl PortQueue for MemQueue {
    fn rx_fd(&self) -> Option<BorrowedFd<'_>> {
        self.shared.rx.get(self.index).map(|rx| rx.event.as_fd())
    }

    fn rx_burst(&mut self, frames: &mut [Frame]) -> io::Result<usize> {
        let Some(rx) = self.shared.rx.get(self.index) else { return Ok(0) };
        let mut count = 0;
        while let Some(frame) = frames.get_mut(count) {
            let Some(received) = rx.pop() else { break };
            // Copied and not swapped: the worker's frames must keep their full room.
            frame.clone_from_frame(&received);
            _ = self.shared.spare.push(received);
            count += 1;
        }
        if count == 0 && self.shared.gone.load(Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        Ok(count)
    }

    fn tx_burst(&mut self, frames: &[&Frame], outcomes: &mut [TxOutcome]) {
        if !self.shared.up.load(Ordering::Relaxed) {
            return outcomes.iter_mut().take(frames.len()).for_each(|o| *o = TxOutcome::Dropped(DropReason::PortDown));
        }
        fit::send_each(frames, outcomes, &self.mtu, |frame| {
            let mut copy = self.shared.spare(frame.len());
            copy.clone_from_frame(frame);
            match self.shared.tx.push(copy) {
                Ok(()) => TxOutcome::Sent,
                Err(_) => TxOutcome::Dropped(DropReason::QueueFull),
            }
        });
    }
}
