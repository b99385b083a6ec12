//! A TAP by the `tun-tap` crate: no vnet header, no offloads, one queue.
//!
//! The plain form is for kernels and sandboxes whose TAPs refuse the vnet header, and as a second opinion on our own
//! ioctls. Super-frames are cut and checksums filled in before they are written, which costs TCP a factor of five.

use super::device::{Device, Setup, find};
use super::error::{PortError, check_name};
use super::finish::Finisher;
use super::link::Link;
use super::sys::iface_fd;
use super::tap::{MTU_RANGE, rx_each, tap_up, tx_outcome};
use super::{Port, PortCaps, PortKind, PortQueue, TapOptions, TxOutcome, fit};
use sluice_flows::packet::{Frame, Offload};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
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
        let setup = Setup { mac: options.mac, mtu: options.mtu, up: options.up };
        let device = Device::on_link(name, find(name)?, MTU_RANGE, setup)?;
        Ok(Self { device, iface: Arc::new(iface) })
    }
}

impl Port for TapPlain {
    fn kind(&self) -> PortKind {
        PortKind::TapPlain
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn link_up(&self) -> bool {
        tap_up(&self.device, Some(iface_fd(&self.iface)))
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
        rx_each(frames, |frame| {
            let len = self.iface.recv(frame.room())?;
            frame.set_len(len);
            frame.offload = Offload::NONE;
            Ok(())
        })
    }

    fn tx_burst(&mut self, frames: &[&Frame], outcomes: &mut [TxOutcome]) {
        let Self { iface, finisher, .. } = self;
        fit::send_each(frames, outcomes, &self.mtu, |frame| {
            finisher.send(frame, |bytes| tx_outcome(|| iface.send(bytes)))
        });
    }
}
