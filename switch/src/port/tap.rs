//! A TAP device with vnet header, offloads and one queue per worker.
//!
//! Our own ioctls and not a crate, because the vnet header is what lets a 64 KiB super-frame cross whole, and the
//! common crates cannot ask for it or cannot carry it on a TAP. Each frame is one `readv` or `writev` with the header on
//! the stack: system calls and the kernel's copies are the cost, and io_uring or an async runtime change nothing.
//!
//! # Rules
//! The interface belongs to the network namespace that the calling thread is in when it is created or attached; the
//! descriptors work from any namespace afterwards, and in any that the interface is moved to; of a moved one, address, MTU
//! and carrier cannot be asked any more. What [`Tap::create`] makes vanishes when the port and its queues are
//! dropped.

use super::coalesce::{self, Head, coalesce};
use super::device::{Device, Setup, find};
use super::error::{PortError, check_name};
use super::link::Link;
use super::sys::{self, IfOp, IfReq, if_ioctl};
use super::{Port, PortCaps, PortKind, PortQueue, TxOutcome, fit, vnet};
use sluice_flows::DropReason;
use sluice_flows::packet::Frame;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// RFC 791: what every IPv4 link must carry; and 65,535 less the Ethernet header.
pub(crate) const MTU_RANGE: &str = "a TAP takes 68 to 65521";
const TCP_OFFLOADS: libc::c_uint = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
const UDP_OFFLOADS: libc::c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// How to open a TAP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapOptions {
    /// Hardware address; the kernel chooses when `None`.
    pub mac: Option<[u8; 6]>,
    /// MTU in bytes, 68 to 65,521; the device's own (1500 when new) when `None`.
    pub mtu: Option<u32>,
    /// Queues, 1 to 256: as many as there are workers.
    pub queues: usize,
    /// Whether to set the interface up.
    pub up: bool,
    /// [`PortKind::Tap`], or [`PortKind::Local`] for a bridge's own interface.
    pub kind: PortKind,
}

impl Default for TapOptions {
    fn default() -> Self {
        Self { mac: None, mtu: None, queues: 1, up: true, kind: PortKind::Tap }
    }
}

/// A TAP device.
#[derive(Debug)]
pub struct Tap {
    kind: PortKind,
    device: Device,
    files: Vec<Arc<File>>,
    uso: bool,
}

impl Tap {
    /// Creates the interface `name` in the calling thread's network namespace; it vanishes with the port.
    ///
    /// # Errors
    /// [`PortError::NameTaken`] when there is an interface of that name already, [`PortError::NoPrivilege`],
    /// [`PortError::NoTun`], [`PortError::Name`], [`PortError::Mtu`].
    pub fn create(name: &str, options: &TapOptions) -> Result<Self, PortError> {
        check_name(name)?;
        let first = open(name, tun_flags(options.queues > 1) | libc::IFF_TUN_EXCL).map_err(|e| match e {
            PortError::Busy { port } => PortError::NameTaken { port },
            PortError::Io { source, .. } if Link::open(name).is_ok() && source.kind() == ErrorKind::InvalidInput => {
                PortError::NameTaken { port: name.to_owned() }
            }
            other => other,
        })?;
        Self::finish(name, options, first, tun_flags(options.queues > 1))
    }

    /// Attaches to the persistent TAP `name` in the calling thread's network namespace; it stays when the port goes.
    ///
    /// # Errors
    /// [`PortError::NoDevice`], [`PortError::Busy`] when another program is attached, [`PortError::WrongDevice`] when it
    /// is no TAP, and those of [`Tap::create`].
    pub fn attach(name: &str, options: &TapOptions) -> Result<Self, PortError> {
        check_name(name)?;
        find(name)?;
        // Whether it has several queues was decided when it was made, and only the same flag opens it.
        let wrong =
            |e: &PortError| matches!(e, PortError::Io { source, .. } if source.kind() == ErrorKind::InvalidInput);
        let mut flags = tun_flags(options.queues > 1);
        let mut first = open(name, flags);
        if first.as_ref().is_err_and(wrong) {
            flags = tun_flags(options.queues <= 1);
            first = open(name, flags);
        }
        let first = first.map_err(|e| if wrong(&e) { wrong_device(name) } else { e })?;
        let single = flags & libc::IFF_MULTI_QUEUE == 0;
        let options = TapOptions { queues: if single { 1 } else { options.queues }, ..options.clone() };
        Self::finish(name, &options, first, flags)
    }

    fn finish(name: &str, options: &TapOptions, first: File, flags: libc::c_int) -> Result<Self, PortError> {
        let failed = |op| move |e| PortError::from_io(name, op, e);
        let mut files = vec![first];
        for _ in 1..options.queues {
            files.push(open(name, flags)?);
        }
        let mut uso = true;
        for file in &files {
            let fd = file.as_fd();
            sys::tun_set_vnet_header_len(fd, vnet::LEN).map_err(failed("set the vnet header's length"))?;
            if sys::tun_set_offload(fd, TCP_OFFLOADS | UDP_OFFLOADS).is_err() {
                // Linux before 6.2 does not know UDP segmentation.
                uso = false;
                sys::tun_set_offload(fd, TCP_OFFLOADS).map_err(failed("ask for offloads"))?;
            }
        }
        let setup = Setup { mac: options.mac, mtu: options.mtu, up: options.up };
        let device = Device::on_link(name, find(name)?, MTU_RANGE, setup)?;
        Ok(Self { kind: options.kind, device, files: files.into_iter().map(Arc::new).collect(), uso })
    }
}

impl Port for Tap {
    fn kind(&self) -> PortKind {
        self.kind
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn link_up(&self) -> bool {
        tap_up(&self.device, self.files.first().map(|file| file.as_fd()))
    }

    fn caps(&self) -> PortCaps {
        PortCaps { uso: self.uso, ..PortCaps::ALL }
    }

    fn queues(&self, count: usize) -> Result<Vec<Box<dyn PortQueue>>, PortError> {
        for spare in self.files.iter().skip(count.max(1)) {
            // The kernel spreads frames over all attached queues, read or not.
            let mut req = IfReq::named("");
            req.set_flags(libc::IFF_DETACH_QUEUE as u16);
            if_ioctl(spare.as_fd(), IfOp::TunSetQueue, &mut req)
                .map_err(|e| PortError::from_io(self.name(), "detach a queue", e))?;
        }
        let usable = self.files.len().min(count.max(1));
        let files = self.files.iter().take(usable).cycle().take(count).enumerate();
        Ok(files
            .map(|(i, file)| {
                let (file, mtu) = (Arc::clone(file), self.device.shared_mtu());
                let queue = TapQueue { file, mtu, receives: i < usable, uso: self.uso };
                Box::new(queue) as Box<dyn PortQueue>
            })
            .collect())
    }
}

fn wrong_device(name: &str) -> PortError {
    PortError::WrongDevice { port: name.to_owned(), wanted: "a TAP" }
}

fn tun_flags(several: bool) -> libc::c_int {
    // With the flag, the kernel sets up 256 transmit queues; without, one.
    libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | if several { libc::IFF_MULTI_QUEUE } else { 0 }
}

/// Opens one queue of the TAP `name`.
fn open(name: &str, flags: libc::c_int) -> Result<File, PortError> {
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun").map_err(|e| {
            match e.raw_os_error() {
                Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => PortError::NoTun { port: name.to_owned() },
                _ => PortError::from_io(name, "open /dev/net/tun", e),
            }
        })?;
    let mut req = IfReq::named(name);
    req.set_flags(flags as u16);
    if_ioctl(file.as_fd(), IfOp::TunSetIff, &mut req).map_err(|e| PortError::from_io(name, "make the TAP", e))?;
    Ok(file)
}

/// One worker's queue of a [`Tap`].
struct TapQueue {
    file: Arc<File>,
    mtu: Arc<AtomicU32>,
    receives: bool,
    /// The kernel takes super-frames of UDP.
    uso: bool,
}

impl PortQueue for TapQueue {
    fn rx_fd(&self) -> Option<BorrowedFd<'_>> {
        self.receives.then(|| self.file.as_fd())
    }

    fn rx_burst(&mut self, frames: &mut [Frame]) -> io::Result<usize> {
        if !self.receives {
            return Ok(0);
        }
        rx_each(frames, |frame| {
            let mut header = [0; vnet::LEN];
            let mut room = [IoSliceMut::new(&mut header), IoSliceMut::new(frame.room())];
            let len = (&*self.file).read_vectored(&mut room)?;
            frame.set_len(len.saturating_sub(vnet::LEN));
            frame.offload = vnet::decode(&header);
            Ok(())
        })
    }

    fn tx_burst(&mut self, frames: &[&Frame], outcomes: &mut [TxOutcome]) {
        let mtu = self.mtu.load(Ordering::Relaxed);
        let (mut frames, mut outcomes) = (frames, outcomes);
        let mut head = Head::EMPTY;
        while let Some(first) = frames.first() {
            let (count, outcome) = if fit::too_long(first, mtu) {
                (1, TxOutcome::Dropped(DropReason::MtuExceeded))
            } else {
                match if self.uso { coalesce(frames, &mut head) } else { 1 } {
                    1 => (1, send(&self.file, first)),
                    joined => (joined, send_joined(&self.file, &head, &frames[..joined])),
                }
            };
            let (done, left) = outcomes.split_at_mut(count.min(outcomes.len()));
            done.fill(outcome);
            (frames, outcomes) = (&frames[count..], left);
        }
    }
}

fn send(mut file: &File, frame: &Frame) -> TxOutcome {
    let header = vnet::encode(&frame.offload, frame.len());
    tx_outcome(|| file.write_vectored(&[IoSlice::new(&header), IoSlice::new(frame.bytes())]))
}

fn send_joined(mut file: &File, head: &Head, frames: &[&Frame]) -> TxOutcome {
    let header = vnet::encode(&head.offload, head.total);
    let mut parts = [IoSlice::new(&[]); 2 + coalesce::MOST];
    parts[..2].copy_from_slice(&[IoSlice::new(&header), IoSlice::new(head.bytes())]);
    for (part, frame) in parts[2..].iter_mut().zip(frames) {
        *part = IoSlice::new(head.payload(frame));
    }
    tx_outcome(|| file.write_vectored(&parts[..2 + frames.len()]))
}

/// Whether a TAP is up. One that was moved to another namespace cannot be asked there: it counts as up while it exists,
/// because its descriptor `fd` works on.
pub(crate) fn tap_up(device: &Device, fd: Option<BorrowedFd<'_>>) -> bool {
    let exists = |fd| if_ioctl(fd, IfOp::TunGetIff, &mut IfReq::named("")).is_ok();
    device.link_up() || device.is_missing() && fd.is_some_and(exists)
}

/// Fills one frame after the other by `read`, until that finds nothing more in the TAP. Returns how many.
pub(crate) fn rx_each(frames: &mut [Frame], mut read: impl FnMut(&mut Frame) -> io::Result<()>) -> io::Result<usize> {
    let mut count = 0;
    while let Some(frame) = frames.get_mut(count) {
        match read(frame) {
            Ok(()) => count += 1,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            // The frames before this one are good; the next call meets the error again.
            Err(_) if count > 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(count)
}

/// Writes one frame to a TAP and says what became of it.
pub(crate) fn tx_outcome(mut write: impl FnMut() -> io::Result<usize>) -> TxOutcome {
    loop {
        return match write() {
            Ok(_) => TxOutcome::Sent,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => TxOutcome::Dropped(match e.raw_os_error() {
                Some(libc::EAGAIN | libc::ENOMEM | libc::ENOBUFS) => DropReason::QueueFull,
                // Shorter than an Ethernet header, or offload metadata that points outside the frame.
                Some(libc::EINVAL) => DropReason::ParseError,
                // EIO: the interface is down; EBADFD: it is gone.
                _ => DropReason::PortDown,
            }),
        };
    }
}
