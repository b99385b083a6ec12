//! A packet socket (packet(7)) on an existing interface: a veth, or a NIC.
//!
//! `recvmmsg` and `sendmmsg` and not memory-mapped rings: measured on a veth they carry the most TCP and have the least
//! latency, and a ring wins only for small packets (docs/dependencies.md). The vnet header carries offloads both ways.
//!
//! # Rules
//! - The kernel takes the outermost VLAN tag out of a frame before a packet socket sees it; it comes beside the frame
//!   and is put back here.
//! - The interface belongs to the network namespace that the calling thread is in when it is opened; the sockets work
//!   from any namespace afterwards.
//! - Several queues are a fanout group: frames of one flow go to one queue.
//!
//! # Limits
//! The kernel's own stack sees the frames too: leave the interface without addresses. A super-frame inside a tunnel that
//! the kernel itself terminates has no form in a vnet header; the kernel then gives an error in place of the frame, and
//! it is counted in [`RxLoss::invalid`].

use super::device::{Device, Setup, find};
use super::error::{PortError, check_name};
use super::sys::packet::{BURST, Burst, PacketSocket};
use super::sys::{IfOp, IfReq, if_ioctl};
use super::{Port, PortCaps, PortKind, PortQueue, RxLoss, TxOutcome, fit, vnet};
use sluice_flows::DropReason;
use sluice_flows::packet::Frame;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bytes of a socket's buffer each way: a hundred 64 KiB super-frames. With 1 MB, four TCP streams lose enough of them
/// for 50,000 retransmits in two seconds; from 4 MB on, a hundred.
const BUFFER_SIZE: i32 = 8 << 20;
/// The range is the driver's.
const MTU_RANGE: &str = "`ip -d link show` says what the interface takes (minmtu, maxmtu)";
/// Where the outermost VLAN tag goes: behind the two addresses.
const TAG_AT: usize = 12;
/// How long a full send buffer is waited for, once a burst.
const TX_WAIT_MS: i32 = 1;

/// How to open a packet socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AfPacketOptions {
    /// MTU in bytes to set on the interface; left as it is when `None`.
    pub mtu: Option<u32>,
    /// Queues, 1 to 256: as many as there are workers.
    pub queues: usize,
    /// Whether to set the interface up.
    pub up: bool,
    /// Whether to send past the interface's queueing discipline. On a veth, which has none, that saves a few per cent of
    /// a packet's cost; on a NIC it also gives up the queue that absorbs bursts, so turn it off there. What is sent past
    /// it is not seen by tc's egress hooks nor by captures on this interface.
    pub qdisc_bypass: bool,
}

impl Default for AfPacketOptions {
    fn default() -> Self {
        Self { mtu: None, queues: 1, up: true, qdisc_bypass: true }
    }
}

/// A packet socket on an existing interface.
#[derive(Debug)]
pub struct AfPacket {
    device: Device,
    index: i32,
    sockets: Vec<Arc<PacketSocket>>,
    loss: Arc<Loss>,
}

#[derive(Debug, Default)]
struct Loss {
    queue_full: AtomicU64,
    invalid: AtomicU64,
}

impl AfPacket {
    /// Opens the interface `name` of the calling thread's network namespace.
    ///
    /// # Errors
    /// [`PortError::NoDevice`], [`PortError::NoPrivilege`], [`PortError::Name`], [`PortError::Mtu`].
    pub fn open(name: &str, options: &AfPacketOptions) -> Result<Self, PortError> {
        check_name(name)?;
        let failed = |op| move |e| PortError::from_io(name, op, e);
        let link = find(name)?;
        let index = link.index();
        let mut sockets = Vec::new();
        for _ in 0..options.queues.max(1) {
            let socket = PacketSocket::new().map_err(failed("open a packet socket"))?;
            let set = |option, value| socket.set_option(option, value).map_err(failed("set up the packet socket"));
            set(libc::PACKET_VNET_HDR, 1)?;
            set(libc::PACKET_AUXDATA, 1)?;
            set(libc::PACKET_IGNORE_OUTGOING, 1)?;
            set(libc::PACKET_QDISC_BYPASS, i32::from(options.qdisc_bypass))?;
            socket.set_buffer_sizes(BUFFER_SIZE).map_err(failed("size the socket's buffers"))?;
            socket.set_promiscuous(index).map_err(failed("make the interface promiscuous"))?;
            sockets.push(Arc::new(socket));
        }
        let setup = Setup { mac: None, mtu: options.mtu, up: options.up };
        let device = Device::on_link(name, link, MTU_RANGE, setup)?;
        Ok(Self { device, index, sockets, loss: Arc::default() })
    }

    /// Binds the first `count` sockets, as a fanout group if they are several.
    fn bind(&self, count: usize) -> io::Result<()> {
        let mut group = None;
        for socket in self.sockets.iter().take(count) {
            socket.bind(self.index, true)?;
            if count > 1 {
                // A group has a hook of its own, which has to be told again not to listen to what we send.
                let flags = (libc::PACKET_FANOUT_HASH | libc::PACKET_FANOUT_FLAG_IGNORE_OUTGOING) << 16;
                match group {
                    Some(id) => socket.set_option(libc::PACKET_FANOUT, flags as i32 | id)?,
                    None => {
                        let unique = libc::PACKET_FANOUT_FLAG_UNIQUEID << 16;
                        socket.set_option(libc::PACKET_FANOUT, (flags | unique) as i32)?;
                        group = Some(socket.option(libc::PACKET_FANOUT)? & 0xffff);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Port for AfPacket {
    fn kind(&self) -> PortKind {
        PortKind::AfPacket
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn caps(&self) -> PortCaps {
        PortCaps::ALL
    }

    fn rx_loss(&self) -> RxLoss {
        let new: u64 = self.sockets.iter().filter_map(|socket| socket.take_drops().ok()).sum();
        RxLoss {
            queue_full: self.loss.queue_full.fetch_add(new, Ordering::Relaxed) + new,
            invalid: self.loss.invalid.load(Ordering::Relaxed),
        }
    }

    fn queues(&self, count: usize) -> Result<Vec<Box<dyn PortQueue>>, PortError> {
        let usable = self.sockets.len().min(count.max(1));
        self.bind(usable).map_err(|e| PortError::from_io(self.name(), "bind the packet socket", e))?;
        let sockets = self.sockets.iter().take(usable).cycle().take(count).enumerate();
        Ok(sockets
            .map(|(i, socket)| {
                Box::new(AfPacketQueue {
                    socket: Arc::clone(socket),
                    index: self.index,
                    mtu: self.device.shared_mtu(),
                    loss: Arc::clone(&self.loss),
                    burst: Burst::new(),
                    receives: i < usable,
                }) as Box<dyn PortQueue>
            })
            .collect())
    }
}

/// A socket that only sends, by the interface of this index in the calling thread's network namespace.
///
/// # Errors
/// The system's.
pub(super) fn sending_socket(index: i32) -> io::Result<PacketSocket> {
    let socket = PacketSocket::new()?;
    socket.set_option(libc::PACKET_VNET_HDR, 1)?;
    socket.set_option(libc::PACKET_QDISC_BYPASS, 1)?;
    socket.set_buffer_sizes(BUFFER_SIZE)?;
    socket.bind(index, false)?;
    Ok(socket)
}

/// A queue that only sends by such a socket: for a worker that has no other means to.
pub(super) fn sender(socket: &Arc<PacketSocket>, index: i32, mtu: Arc<AtomicU32>) -> Box<dyn PortQueue> {
    let (socket, loss) = (Arc::clone(socket), Arc::default());
    Box::new(AfPacketQueue { socket, index, mtu, loss, burst: Burst::new(), receives: false })
}

/// One worker's queue of an [`AfPacket`].
struct AfPacketQueue {
    socket: Arc<PacketSocket>,
    index: i32,
    mtu: Arc<AtomicU32>,
    loss: Arc<Loss>,
    burst: Burst,
    receives: bool,
}

impl AfPacketQueue {
    /// What an error of `recvmmsg` means: true when a frame was lost and the next may be good, false when there is none
    /// to receive; else the end.
    fn rx_error(&self, error: io::Error) -> io::Result<bool> {
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Ok(false),
            Some(libc::EBADF | libc::ENODEV | libc::ENXIO) => Err(error),
            // Said once, when the interface goes down and also when it goes away.
            Some(libc::ENETDOWN) => {
                let mut req = IfReq::named("");
                req.set_number(self.index);
                if_ioctl(self.socket.as_fd(), IfOp::GetName, &mut req).map(|()| false)
            }
            _ => {
                self.loss.invalid.fetch_add(1, Ordering::Relaxed);
                Ok(true)
            }
        }
    }

    /// Sends frames that fit the MTU.
    fn send_run(&mut self, mut frames: &[&Frame], mut outcomes: &mut [TxOutcome], waited: &mut bool) {
        while !frames.is_empty() {
            let (count, outcome) = match self.burst.send(&self.socket, frames) {
                Ok(count) => (count.max(1), TxOutcome::Sent),
                Err(e) => match e.raw_os_error() {
                    Some(libc::EINTR) => continue,
                    // Linux before 6.2 takes no super-frames of UDP.
                    Some(libc::EINVAL) if self.burst.part() => continue,
                    Some(libc::EAGAIN) if !*waited => {
                        *waited = true;
                        _ = self.socket.wait_writable(TX_WAIT_MS);
                        continue;
                    }
                    Some(libc::EAGAIN) => (frames.len(), TxOutcome::Dropped(DropReason::QueueFull)),
                    Some(libc::ENOBUFS | libc::ENOMEM) => (1, TxOutcome::Dropped(DropReason::QueueFull)),
                    Some(libc::EMSGSIZE) => (1, TxOutcome::Dropped(DropReason::MtuExceeded)),
                    Some(libc::EINVAL) => (1, TxOutcome::Dropped(DropReason::ParseError)),
                    _ => (frames.len(), TxOutcome::Dropped(DropReason::PortDown)),
                },
            };
            let (done, left) = outcomes.split_at_mut(count);
            done.fill(outcome);
            outcomes = left;
            frames = &frames[count..];
        }
    }
}

impl PortQueue for AfPacketQueue {
    fn rx_fd(&self) -> Option<BorrowedFd<'_>> {
        self.receives.then(|| self.socket.as_fd())
    }

    fn rx_burst(&mut self, frames: &mut [Frame]) -> io::Result<usize> {
        if !self.receives || frames.is_empty() {
            return Ok(0);
        }
        let mut lost = 0;
        let messages = loop {
            match self.burst.receive(&self.socket, frames) {
                Ok(messages) => break messages,
                Err(e) => {
                    lost += 1;
                    if !self.rx_error(e)? || lost == BURST {
                        return Ok(0);
                    }
                }
            }
        };
        let mut count = 0;
        for i in 0..messages {
            let received = self.burst.received(i);
            if received.truncated {
                self.loss.invalid.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            frames.swap(count, i);
            let frame = &mut frames[count];
            count += 1;
            frame.set_len(received.len);
            frame.offload = vnet::decode(&received.header);
            if let Some(tag) = received.tag
                && let Some(gap) = frame.open_gap(TAG_AT, tag.len())
            {
                gap.copy_from_slice(&tag);
                frame.offload.shift(tag.len() as i16);
            }
        }
        Ok(count)
    }

    fn tx_burst(&mut self, frames: &[&Frame], outcomes: &mut [TxOutcome]) {
        let mtu = self.mtu.load(Ordering::Relaxed);
        let count = frames.len().min(outcomes.len());
        let (frames, outcomes) = (&frames[..count], &mut outcomes[..count]);
        let mut waited = false;
        let mut at = 0;
        while at < count {
            let fitting = frames[at..].iter().take(BURST).take_while(|frame| !fit::too_long(frame, mtu)).count();
            if fitting == 0 {
                outcomes[at] = TxOutcome::Dropped(DropReason::MtuExceeded);
                at += 1;
                continue;
            }
            self.send_run(&frames[at..at + fitting], &mut outcomes[at..at + fitting], &mut waited);
            at += fitting;
        }
    }
}
