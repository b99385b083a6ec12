//! A TAP by the `tun-tap` crate: no vnet header, no offloads, one queue.
//!
//! The plain form is for kernels and sandboxes whose TAPs refuse the vnet header, and as a second opinion on our own
//! ioctls. Super-frames are cut and checksums filled in before they are written, which costs TCP a factor of five.

use super::device::{Device, Setup};
use super::error::{PortError, check_name};
use super::finish::Finisher;
use super::link::Link;
use super::sys::iface_fd;
use super::tap::{MTU_RANGE, tx_outcome};
use super::{Port, PortCaps, PortKind, PortQueue, TapOptions, TxOutcome, fit};
use sluice_flows::DropReason;
use sluice_flows::packet::{Frame, Offload};
use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tun_tap::{Iface, Mode};

/// A TAP without vnet header.
#[derive(Debug)]
pub struct TapPlain {
    device: Device,
    iface: Arc<Iface>,
}

impl TapPlain {
    /// Creates the interface `name` in the calling thread's network namespace; it vanishes with the port. It has one
    /// queue, whatever `options` says.
    ///
    /// # Errors
    /// Those of [`Tap::create`](super::Tap::create).
    pub fn create(name: &str, options: &TapOptions) -> Result<Self, PortError> {
        check_name(name)?;
        if Link::open(name).is_ok() {
            return Err(PortError::NameTaken { port: name.to_owned() });
        }
        let iface = Iface::without_packet_info(name, Mode::Tap).map_err(|e| {
            if Path::new("/dev/net/tun").exists() {
                PortError::from_io(name, "make the TAP", e)
            } else {
                PortError::NoTun { port: name.to_owned() }
            }
        })?;
        iface.set_non_blocking().map_err(|e| PortError::from_io(name, "make the TAP non-blocking", e))?;
        let device = Device::open(name, MTU_RANGE)?;
        device.set_up(Setup { mac: options.mac, mtu: options.mtu, up: options.up })?;
        Ok(Self { device, iface: Arc::new(iface) })
    }

    /// The kernel's interface.
    pub fn link(&self) -> &Link {
        self.device.link()
    }
}

impl Port for TapPlain {
    fn kind(&self) -> PortKind {
        PortKind::TapPlain
    }

    fn name(&self) -> &str {
        self.device.name()
    }

    fn mac(&self) -> Option<[u8; 6]> {
        self.device.mac()
    }

    fn mtu(&self) -> u32 {
        self.device.mtu()
    }

    fn set_mtu(&self, mtu: u32) -> Result<(), PortError> {
        self.device.set_mtu(mtu)
    }

    fn link_up(&self) -> bool {
        self.device.link_up()
    }

    fn caps(&self) -> PortCaps {
        PortCaps::NONE
    }

    fn queues(&self, count: usize) -> Result<Vec<Box<dyn PortQueue>>, PortError> {
        Ok((0..count)
            .map(|i| {
                Box::new(TapPlainQueue {
                    iface: Arc::clone(&self.iface),
                    mtu: self.device.shared_mtu(),
                    finisher: Finisher::new(),
                    receives: i == 0,
                }) as Box<dyn PortQueue>
            })
            .collect())
    }
}

/// One worker's queue of a [`TapPlain`].
struct TapPlainQueue {
    iface: Arc<Iface>,
    mtu: Arc<AtomicU32>,
    finisher: Finisher,
    receives: bool,
}

impl PortQueue for TapPlainQueue {
    fn rx_fd(&self) -> Option<BorrowedFd<'_>> {
        self.receives.then(|| iface_fd(&self.iface))
    }

    fn rx_burst(&mut self, frames: &mut [Frame]) -> io::Result<usize> {
        if !self.receives {
            return Ok(0);
        }
        let mut count = 0;
        while let Some(frame) = frames.get_mut(count) {
            match self.iface.recv(frame.room()) {
                Ok(len) => {
                    frame.set_len(len);
                    frame.offload = Offload::NONE;
                    count += 1;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                // The frames before this one are good; the next call meets the error again.
                Err(_) if count > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(count)
    }

    fn tx_burst(&mut self, frames: &[&Frame], outcomes: &mut [TxOutcome]) {
        let mtu = self.mtu.load(Ordering::Relaxed);
        for (frame, outcome) in frames.iter().zip(outcomes) {
            *outcome = if fit::too_long(frame, mtu) {
                TxOutcome::Dropped(DropReason::MtuExceeded)
            } else {
                self.finisher.send(frame, |bytes| tx_outcome(|| self.iface.send(bytes)))
            };
        }
    }
}
