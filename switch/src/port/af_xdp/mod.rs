//! AF_XDP sockets on an existing interface: a NIC, or a veth.
//!
//! A program at the interface hands every frame of a receive queue to the socket that is joined to it, before the host's
//! stack sees it. `sys` talks to the kernel, `ring` is the two ends of a shared ring, `channel` one socket, `queue` what a
//! worker holds, `received` what is known of a frame that the kernel does not tell.
//!
//! # Rules
//! - The interface belongs to the network namespace that the calling thread is in when it is opened.
//! - Program, sockets and memory belong to descriptors: when the port is dropped, or the process dies in whatever way,
//!   the interface is as it was.
//! - Every receive queue of the interface has a socket, or those asked for; workers share them out. What comes by another
//!   queue goes to the host's stack. A worker that is left without one sends by a packet socket.
//!
//! # Limits
//! - Partial checksums are left to the kernel from Linux 6.11 on, where frames are copied; else they are filled in here.
//! - AF_XDP knows no super-frames: they are cut here before they are sent, and a native program keeps the other end of a
//!   veth from making any (the kernel turns its segmentation off and on again).
//! - A VLAN tag that a driver, or the stack at the other end of a veth, keeps beside the frame is not seen: `ethtool -K
//!   NIC rxvlan off`, at the other end of a veth `txvlan off`.
//! - Before Linux 6.6 a frame has to fit one chunk, 4096 bytes without 256.

mod channel;
mod queue;
mod received;
mod ring;
mod sys;

use super::af_packet::{sender, sending_socket};
use super::device::{Device, Setup, find};
use super::error::{PortError, check_name};
use super::sys::packet::PacketSocket;
use super::{Port, PortCaps, PortKind, PortQueue, RxLoss};
use channel::{Channel, Join, room_in};
use queue::AfXdpQueue;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use sys::{Attach, Link, Program, SocketMap, Xsk};

/// The range is the driver's.
const MTU_RANGE: &str = "`ip -d link show` says what the interface takes (minmtu, maxmtu)";
/// The range where frames cannot have several pieces.
const MTU_RANGE_ONE_CHUNK: &str = "before Linux 6.6 this port takes up to 3818";
/// Sizes of chunks that the kernel takes everywhere.
const CHUNKS: [u32; 2] = [2048, 4096];
/// What is in front of the network layer: the Ethernet header and two tags.
const LINK_LEN: u32 = 14 + 2 * 4;

/// How frames come from the interface and go to it; Open vSwitch has the same modes by the same names (`xdp-mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// The first of the others that the driver can.
    #[default]
    BestEffort,
    /// The program runs in the driver, which reads and writes the socket's memory itself.
    NativeWithZerocopy,
    /// The program runs in the driver, frames are copied.
    Native,
    /// The program runs in the kernel's stack, frames are copied. For any driver.
    Generic,
}

impl XdpMode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::BestEffort, Self::NativeWithZerocopy, Self::Native, Self::Generic];

    /// The name that configurations and outputs use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BestEffort => "best-effort",
            Self::NativeWithZerocopy => "native-with-zerocopy",
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    /// The mode with this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// What it comes down to, best first.
    fn ways(self) -> &'static [Self] {
        match self {
            Self::BestEffort => &[Self::NativeWithZerocopy, Self::Native, Self::Generic],
            Self::NativeWithZerocopy => &[Self::NativeWithZerocopy],
            Self::Native => &[Self::Native],
            Self::Generic => &[Self::Generic],
        }
    }
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How to open AF_XDP sockets on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AfXdpOptions {
    /// MTU in bytes to set on the interface; left as it is when `None`.
    pub mtu: Option<u32>,
    /// How frames come and go.
    pub mode: XdpMode,
    /// The interface's receive queues to take, each once; all of them when empty.
    pub queues: Vec<u32>,
    /// Whether to set the interface up.
    pub up: bool,
}

impl Default for AfXdpOptions {
    fn default() -> Self {
        Self { mtu: None, mode: XdpMode::default(), queues: Vec::new(), up: true }
    }
}

/// AF_XDP sockets on an existing interface.
#[derive(Debug)]
pub struct AfXdp {
    /// First, so that it is the first to go: no frame is handed to a socket that is closed.
    taken: Taken,
    device: Device,
    index: i32,
    loss: Arc<AtomicU64>,
    sockets: Vec<Arc<Xsk>>,
    /// Until they are given to workers.
    channels: Mutex<Vec<Channel>>,
    /// By which workers send that have no queue of the interface. Opened with the port: workers' queues are made by threads that may be
    /// in another network namespace.
    sends: Arc<PacketSocket>,
    /// Has the interface receive frames for every address.
    _promiscuous: PacketSocket,
}

/// The program at the interface.
#[derive(Debug)]
struct Taken {
    _link: Link,
    mode: XdpMode,
    /// Frames may have several pieces.
    pieces: bool,
    /// The kernel completes checksums.
    checksums: bool,
}

impl AfXdp {
    /// Opens the interface `name` of the calling thread's network namespace.
    ///
    /// # Errors
    /// [`PortError::NoDevice`], [`PortError::NoBpf`], [`PortError::NoPrivilege`], [`PortError::XdpTaken`],
    /// [`PortError::QueueTaken`], [`PortError::NoQueue`], [`PortError::NoXdp`], [`PortError::LockedMemory`],
    /// [`PortError::Name`], [`PortError::Mtu`].
    pub fn open(name: &str, options: &AfXdpOptions) -> Result<Self, PortError> {
        check_name(name)?;
        let link = find(name)?;
        let index = link.index();
        let promiscuous = PacketSocket::new().map_err(|e| PortError::from_io(name, "open a packet socket", e))?;
        promiscuous
            .set_promiscuous(index)
            .map_err(|e| PortError::from_io(name, "make the interface promiscuous", e))?;
        let sends = sending_socket(index).map_err(|e| PortError::from_io(name, "open a packet socket", e))?;
        let queues = queues(name, &promiscuous, &options.queues)?;
        let setup = Setup { mac: None, mtu: options.mtu, up: options.up };
        let device = Device::on_link(name, link, MTU_RANGE, setup)?;
        let (taken, channels) = take(name, index, device.mtu(), options.mode, &queues)?;
        let sockets = channels.iter().map(|channel| Arc::clone(channel.socket())).collect();
        let (channels, sends) = (Mutex::new(channels), Arc::new(sends));
        Ok(Self { taken, device, index, loss: Arc::default(), sockets, channels, sends, _promiscuous: promiscuous })
    }

    /// The mode that is in force.
    pub fn mode(&self) -> XdpMode {
        self.taken.mode
    }
}

/// The interface's receive queues to take.
fn queues(name: &str, socket: &PacketSocket, wanted: &[u32]) -> Result<Vec<u32>, PortError> {
    let count = sys::receive_queues(socket.as_fd(), name)
        .map_err(|e| PortError::from_io(name, "ask for the interface's queues", e))?;
    match wanted.iter().find(|queue| **queue >= count) {
        Some(&queue) => Err(PortError::NoQueue { port: name.to_owned(), queue, count }),
        None if wanted.is_empty() => Ok((0..count).collect()),
        None => Ok(wanted.to_vec()),
    }
}

/// Takes the interface in the first way that it can be.
fn take(name: &str, index: i32, mtu: u32, mode: XdpMode, queues: &[u32]) -> Result<(Taken, Vec<Channel>), PortError> {
    let mut refusal = None;
    for &way in mode.ways() {
        match take_by(name, index, mtu, way, queues) {
            Ok(taken) => return Ok(taken),
            // Another way would be refused for the same reason, or take what is another program's.
            Err(Refused::Always(error)) => return Err(error),
            Err(Refused::Way(op, source)) => {
                tracing::debug!(port = name, mode = %way, op, %source, "this AF_XDP mode is not to be had");
                refusal = Some((way, op, source));
            }
        }
    }
    let port = name.to_owned();
    match refusal {
        Some((mode, op, source)) => Err(PortError::NoXdp { port, mode: mode.name(), op, source }),
        None => Err(PortError::NoDevice { port }),
    }
}

/// Why an interface could not be taken.
enum Refused {
    /// In no way.
    Always(PortError),
    /// Not in this one.
    Way(&'static str, io::Error),
}

fn take_by(name: &str, index: i32, mtu: u32, mode: XdpMode, queues: &[u32]) -> Result<(Taken, Vec<Channel>), Refused> {
    let refused = |op| move |e| refusal(name, None, op, e);
    let size = queues.iter().max().map_or(1, |last| last + 1);
    let map = SocketMap::new(size).map_err(refused("make a map of sockets"))?;
    let program = Program::load(&map, true).or_else(|e| match e.raw_os_error() {
        // Before Linux 5.18.
        Some(libc::EINVAL) => Program::load(&map, false),
        _ => Err(e),
    });
    let program = program.map_err(refused("load the XDP program"))?;
    let attach = if mode == XdpMode::Generic { Attach::Generic } else { Attach::Native };
    let link = Link::attach(&program, index, attach).map_err(refused("attach the XDP program"))?;
    let len = mtu.saturating_add(LINK_LEN);
    let chunk = CHUNKS.into_iter().find(|chunk| room_in(*chunk) >= len).unwrap_or(CHUNKS[1]);
    let fits = room_in(chunk) >= len;
    // A driver that takes pieces in its own memory may not do so without a copy: asked for only where it must.
    let ways: &[u16] = match (mode, fits) {
        (XdpMode::NativeWithZerocopy, true) => &[libc::XDP_ZEROCOPY],
        (XdpMode::NativeWithZerocopy, false) => &[libc::XDP_ZEROCOPY | libc::XDP_USE_SG],
        (_, true) => &[libc::XDP_COPY | libc::XDP_USE_SG, libc::XDP_COPY],
        (_, false) => &[libc::XDP_COPY | libc::XDP_USE_SG],
    };
    let mut pieces = true;
    let mut channels = Vec::new();
    for &queue in queues {
        let join = |flags| Channel::new(Join { index, queue, chunk, flags: flags | libc::XDP_USE_NEED_WAKEUP });
        let mut joined = join(ways[0]);
        let mut way = ways[0];
        if let (Err((_, e)), Some(&plain)) = (&joined, ways.get(1))
            && e.raw_os_error() == Some(libc::EINVAL)
        {
            (joined, way) = (join(plain), plain);
        }
        let channel = joined.map_err(|(op, e)| refusal(name, Some(queue), op, e))?;
        map.insert(queue, channel.socket()).map_err(refused("put the socket into the map"))?;
        pieces &= way & libc::XDP_USE_SG != 0;
        channels.push(channel);
    }
    let checksums = channels.iter().all(Channel::completes_checksums);
    Ok((Taken { _link: link, mode, pieces, checksums }, channels))
}

/// What an error means, when it came from `op`, on a socket of `queue` or before there was one.
fn refusal(name: &str, queue: Option<u32>, op: &'static str, source: io::Error) -> Refused {
    let port = name.to_owned();
    Refused::Always(match (source.raw_os_error(), queue) {
        (Some(libc::EPERM | libc::EACCES), _) => PortError::NoBpf { port, op, source },
        (Some(libc::EBUSY), Some(queue)) => PortError::QueueTaken { port, queue },
        (Some(libc::EBUSY | libc::EEXIST), None) => PortError::XdpTaken { port },
        (Some(libc::ENOBUFS), _) => PortError::LockedMemory { port },
        (Some(libc::ENODEV | libc::ENXIO), _) => PortError::NoDevice { port },
        _ => return Refused::Way(op, source),
    })
}

impl Port for AfXdp {
    fn kind(&self) -> PortKind {
        PortKind::AfXdp
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn set_mtu(&self, mtu: u32) -> Result<(), PortError> {
        if !self.taken.pieces && mtu.saturating_add(LINK_LEN) > room_in(CHUNKS[1]) {
            return Err(PortError::Mtu { port: self.name().to_owned(), mtu, range: MTU_RANGE_ONE_CHUNK });
        }
        self.device.set_mtu(mtu)
    }

    fn caps(&self) -> PortCaps {
        PortCaps { csum: self.taken.checksums, ..PortCaps::NONE }
    }

    fn rx_loss(&self) -> RxLoss {
        let counted = self.sockets.iter().filter_map(|socket| socket.statistics().ok());
        // With as many entries as chunks, what is dropped found no chunk.
        let queue_full = counted.map(|counts| counts.rx_dropped + counts.rx_ring_full).sum();
        RxLoss { queue_full, invalid: self.loss.load(Ordering::Relaxed) }
    }

    fn options(&self) -> Vec<(&'static str, String)> {
        vec![("mode", self.taken.mode.to_string())]
    }

    fn queues(&self, count: usize) -> Result<Vec<Box<dyn PortQueue>>, PortError> {
        let failed = |op| move |e| PortError::from_io(self.name(), op, e);
        let mut shares: Vec<Vec<Channel>> = (0..count.max(1)).map(|_| Vec::new()).collect();
        let channels = std::mem::take(&mut *self.channels.lock().unwrap_or_else(PoisonError::into_inner));
        for (i, channel) in channels.into_iter().enumerate() {
            shares[i % count.max(1)].push(channel);
        }
        let mut queues: Vec<Box<dyn PortQueue>> = Vec::new();
        for share in shares {
            queues.push(if share.is_empty() {
                sender(&self.sends, self.index, self.device.shared_mtu())
            } else {
                let (mtu, loss) = (self.device.shared_mtu(), Arc::clone(&self.loss));
                Box::new(AfXdpQueue::new(share, mtu, loss).map_err(failed("watch several sockets"))?)
            });
        }
        Ok(queues)
    }
}
