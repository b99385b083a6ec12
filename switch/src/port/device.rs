//! What every port has: a name, an MTU that its queues go by, and perhaps an interface of the kernel's under it.

use super::error::PortError;
use super::fit;
use super::link::Link;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Name, MTU and interface of a port.
#[derive(Debug)]
pub struct Device {
    name: String,
    link: Option<Link>,
    mac: Option<[u8; 6]>,
    mtu: Arc<AtomicU32>,
    mtu_range: &'static str,
}

/// What to set on an interface when a port is opened on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) mtu: Option<u32>,
    pub(crate) up: bool,
}

/// The interface `name` in the calling thread's network namespace.
pub(crate) fn find(name: &str) -> Result<Link, PortError> {
    Link::open(name).map_err(|e| PortError::from_io(name, "find the interface", e))
}

impl Device {
    /// For a port without an interface: always up, with an `mtu` in bytes of up to 65,535 (more counts as that).
    pub fn without_link(name: &str, mac: Option<[u8; 6]>, mtu: u32) -> Self {
        let mtu = Arc::new(AtomicU32::new(mtu.min(fit::MAX_MTU)));
        Self { name: name.to_owned(), link: None, mac, mtu, mtu_range: fit::MTU_RANGE }
    }

    /// For a port on `link`, which is set up as `setup` says. `mtu_range` says in words which MTUs it takes.
    pub(crate) fn on_link(name: &str, link: Link, mtu_range: &'static str, setup: Setup) -> Result<Self, PortError> {
        let failed = |op| move |e| PortError::from_io(name, op, e);
        if let Some(mac) = setup.mac {
            link.set_mac(mac).map_err(failed("set the hardware address"))?;
        }
        let device = Self { name: name.to_owned(), link: Some(link), mac: None, mtu: Arc::default(), mtu_range };
        device.mtu();
        if let Some(mtu) = setup.mtu {
            device.set_mtu(mtu)?;
        }
        if let Some(link) = device.link.as_ref().filter(|_| setup.up) {
            link.set_up(true).map_err(failed("set the interface up"))?;
        }
        Ok(device)
    }

    /// The interface's name when the port was opened, or the name given to a port without one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The hardware address, if there is one.
    pub fn mac(&self) -> Option<[u8; 6]> {
        match &self.link {
            Some(link) => link.mac().ok(),
            None => self.mac,
        }
    }

    /// The MTU in bytes, for queues to read: as it was when the control side last asked or set it.
    pub fn shared_mtu(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.mtu)
    }

    /// The MTU in bytes, as the interface says now.
    pub fn mtu(&self) -> u32 {
        if let Some(Ok(mtu)) = self.link.as_ref().map(Link::mtu) {
            self.mtu.store(mtu, Ordering::Relaxed);
        }
        self.mtu.load(Ordering::Relaxed)
    }

    /// Sets the MTU, of the interface too if there is one.
    ///
    /// # Errors
    /// [`PortError::Mtu`] when the value is out of range.
    pub fn set_mtu(&self, mtu: u32) -> Result<(), PortError> {
        let set = match &self.link {
            Some(link) => link.set_mtu(mtu),
            None if mtu > fit::MAX_MTU => Err(io::Error::from_raw_os_error(libc::EINVAL)),
            None => Ok(()),
        };
        set.map_err(|e| match e.raw_os_error() {
            Some(libc::EINVAL) => PortError::Mtu { port: self.name.clone(), mtu, range: self.mtu_range },
            _ => PortError::from_io(&self.name, "set the MTU", e),
        })?;
        self.mtu.store(mtu, Ordering::Relaxed);
        Ok(())
    }

    /// Whether there is no such interface any more in the namespace that it was opened in.
    pub(crate) fn is_missing(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.name().is_err_and(|e| e.raw_os_error() == Some(libc::ENODEV)))
    }

    /// Whether the interface is up and has a carrier. Asks it.
    pub fn link_up(&self) -> bool {
        self.link.as_ref().is_none_or(|link| link.is_running().unwrap_or(false))
    }
}
