//! How many receive queues an interface has, by ethtool's ioctl.
#![expect(unsafe_code, reason = "ioctl has no safe form in the standard library")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// linux/sockios.h and linux/ethtool.h.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// Queues that the interface `name`, of the namespace of `socket`, receives by: 1 for a driver that does not say.
pub(in super::super) fn receive_queues(socket: BorrowedFd<'_>, name: &str) -> io::Result<u32> {
    let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
    // SAFETY: ifreq is plain data, for which all zero bytes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut channels).cast();
    // SAFETY: the request reads and writes one ifreq and the channels that it points to, both owned here.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
    if result >= 0 {
        return Ok((channels.rx + channels.combined).max(1));
    }
    match io::Error::last_os_error() {
        e if e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(1),
        e => Err(e),
    }
}
