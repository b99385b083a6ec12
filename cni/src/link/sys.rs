//! The requests that netlink does not have: making a TAP, checksum offload, and what kind of namespace a file is.
#![expect(unsafe_code, reason = "ioctl has no safe form")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// An `ifreq` about the interface `name`, which is cut at 15 bytes, with value 0.
fn request(name: &str) -> libc::ifreq {
    // SAFETY: ifreq is plain data, for which all zero bytes are valid.
    let mut req: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in req.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    req
}

/// `NS_GET_NSTYPE` of ioctl_ns(2).
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

/// Which kind of namespace (`CLONE_NEW*`) a file of the namespace file system is.
pub(super) fn namespace_kind(file: &File) -> io::Result<libc::c_int> {
    // SAFETY: NS_GET_NSTYPE takes no argument.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE as _) };
    if kind < 0 { Err(io::Error::last_os_error()) } else { Ok(kind) }
}

/// Makes `tun` a queue of a new TAP `name` in the calling thread's namespace, with the flags `IFF_*` given.
///
/// # Errors
/// `EBUSY` or `EINVAL` when there is an interface of that name.
pub(super) fn make_tap(tun: &File, name: &str, flags: libc::c_int) -> io::Result<()> {
    let mut req = request(name);
    req.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives through the call.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF as _, &raw mut req) })
}

/// Has the TAP that `tun` is a queue of stay when the last queue is closed.
pub(super) fn persist(tun: &File) -> io::Result<()> {
    // SAFETY: TUNSETPERSIST takes its argument by value.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETPERSIST as _, 1 as libc::c_ulong) })
}

/// `struct ethtool_value` (linux/ethtool.h): a command and one value.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

const ETHTOOL_GTXCSUM: u32 = 0x16;
const ETHTOOL_STXCSUM: u32 = 0x17;

fn ethtool(socket: BorrowedFd<'_>, name: &str, cmd: u32, data: u32) -> io::Result<u32> {
    let mut value = EthtoolValue { cmd, data };
    let mut req = request(name);
    req.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: SIOCETHTOOL reads one ifreq; both commands read and write one ethtool_value, to which it points and which
    // lives through the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut req) })?;
    Ok(value.data)
}

/// Whether the interface leaves transmit checksums to whoever gets its frames. `socket` is any socket of its namespace.
pub(super) fn tx_checksum(socket: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
    ethtool(socket, name, ETHTOOL_GTXCSUM, 0).map(|on| on != 0)
}

/// Turns transmit checksum offload on or off. `socket` is any socket of the interface's namespace.
pub(super) fn set_tx_checksum(socket: BorrowedFd<'_>, name: &str, on: bool) -> io::Result<()> {
    ethtool(socket, name, ETHTOOL_STXCSUM, on.into()).map(|_| ())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
