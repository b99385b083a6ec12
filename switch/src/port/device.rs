//! What every port on a kernel interface shares: its name, its link, and the MTU that its queues go by.

use super::error::PortError;
use super::link::Link;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The interface under a port.
#[derive(Debug)]
pub(crate) struct Device {
    name: String,
    link: Link,
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

impl Device {
    /// The interface `name` in the calling thread's network namespace. `mtu_range` says in words which MTUs it takes.
    pub(crate) fn open(name: &str, mtu_range: &'static str) -> Result<Self, PortError> {
        let link = Link::open(name).map_err(|e| PortError::from_io(name, "find the interface", e))?;
        let device = Self { name: name.to_owned(), link, mtu: Arc::default(), mtu_range };
        device.mtu();
        Ok(device)
    }

    pub(crate) fn set_up(&self, setup: Setup) -> Result<(), PortError> {
        let failed = |op| move |e| PortError::from_io(&self.name, op, e);
        if let Some(mac) = setup.mac {
            self.link.set_mac(mac).map_err(failed("set the hardware address"))?;
        }
        if let Some(mtu) = setup.mtu {
            self.set_mtu(mtu)?;
        }
        if setup.up {
            self.link.set_up(true).map_err(failed("set the interface up"))?;
        }
        Ok(())
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    pub(crate) fn mac(&self) -> Option<[u8; 6]> {
        self.link.mac().ok()
    }

    /// The MTU for queues to read: as it was when the control side last asked or set it.
    pub(crate) fn shared_mtu(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.mtu)
    }

    pub(crate) fn mtu(&self) -> u32 {
        if let Ok(mtu) = self.link.mtu() {
            self.mtu.store(mtu, Ordering::Relaxed);
        }
        self.mtu.load(Ordering::Relaxed)
    }

    pub(crate) fn set_mtu(&self, mtu: u32) -> Result<(), PortError> {
        self.link.set_mtu(mtu).map_err(|e| match e.raw_os_error() {
            Some(libc::EINVAL) => PortError::Mtu { port: self.name.clone(), mtu, range: self.mtu_range },
            _ => PortError::from_io(&self.name, "set the MTU", e),
        })?;
        self.mtu.store(mtu, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn link_up(&self) -> bool {
        self.link.is_running().unwrap_or(false)
    }
}
