//! Thin safe wrappers around the system calls that the standard library does not have.
#![expect(unsafe_code, reason = "ioctl and eventfd have no safe form in the standard library")]

pub(crate) mod packet;

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};

/// An `ifreq`: an interface's name and one value.
pub(crate) struct IfReq(libc::ifreq);

impl IfReq {
    /// A request about the interface `name`, cut at 15 bytes, with value 0.
    pub(crate) fn named(name: &str) -> Self {
        // SAFETY: ifreq is plain data, for which all zero bytes are valid.
        let mut req: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in req.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
            *to = from as libc::c_char;
        }
        Self(req)
    }

    /// The interface's name.
    pub(crate) fn name(&self) -> String {
        let bytes = self.0.ifr_name.iter().map(|&c| c as u8).take_while(|&b| b != 0).collect::<Vec<_>>();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The value as interface flags.
    pub(crate) fn flags(&self) -> u16 {
        // SAFETY: all of the union was initialised in `named`, and any bits are a valid integer.
        unsafe { self.0.ifr_ifru.ifru_flags as u16 }
    }

    /// Makes the value interface flags.
    pub(crate) fn set_flags(&mut self, flags: u16) {
        self.0.ifr_ifru.ifru_flags = flags as libc::c_short;
    }

    /// The value as a number: an index or an MTU.
    pub(crate) fn number(&self) -> i32 {
        // SAFETY: as in `flags`.
        unsafe { self.0.ifr_ifru.ifru_ifindex }
    }

    /// Makes the value a number.
    pub(crate) fn set_number(&mut self, number: i32) {
        self.0.ifr_ifru.ifru_ifindex = number;
    }

    /// The value as an Ethernet address.
    pub(crate) fn mac(&self) -> [u8; 6] {
        // SAFETY: as in `flags`.
        let data = unsafe { self.0.ifr_ifru.ifru_hwaddr.sa_data };
        std::array::from_fn(|i| data[i] as u8)
    }

    /// Makes the value an Ethernet address.
    pub(crate) fn set_mac(&mut self, mac: [u8; 6]) {
        let mut addr = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data: [0; 14] };
        for (to, from) in addr.sa_data.iter_mut().zip(mac) {
            *to = from as libc::c_char;
        }
        self.0.ifr_ifru.ifru_hwaddr = addr;
    }
}

/// What to ask or tell about an interface.
#[derive(Clone, Copy, Debug)]
pub(crate) enum IfOp {
    GetFlags,
    SetFlags,
    GetIndex,
    GetName,
    GetMtu,
    SetMtu,
    GetMac,
    SetMac,
    TunGetIff,
    TunSetIff,
    TunSetQueue,
}

/// Asks or tells the kernel something about an interface.
pub(crate) fn if_ioctl(fd: BorrowedFd<'_>, op: IfOp, req: &mut IfReq) -> io::Result<()> {
    let request = match op {
        IfOp::GetFlags => libc::SIOCGIFFLAGS,
        IfOp::SetFlags => libc::SIOCSIFFLAGS,
        IfOp::GetIndex => libc::SIOCGIFINDEX,
        IfOp::GetName => libc::SIOCGIFNAME,
        IfOp::GetMtu => libc::SIOCGIFMTU,
        IfOp::SetMtu => libc::SIOCSIFMTU,
        IfOp::GetMac => libc::SIOCGIFHWADDR,
        IfOp::SetMac => libc::SIOCSIFHWADDR,
        IfOp::TunGetIff => libc::TUNGETIFF as _,
        IfOp::TunSetIff => libc::TUNSETIFF as _,
        IfOp::TunSetQueue => libc::TUNSETQUEUE as _,
    };
    // SAFETY: every request in `IfOp` reads and writes one ifreq, which `req` owns for the length of the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), request as _, &raw mut req.0) })
}

/// Length of the vnet header in front of every frame on this TAP.
pub(crate) fn tun_set_vnet_header_len(fd: BorrowedFd<'_>, len: usize) -> io::Result<()> {
    let len = len as libc::c_int;
    // SAFETY: TUNSETVNETHDRSZ reads one int.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ as _, &raw const len) })
}

/// Which `TUN_F_*` forms of frames the reader of this TAP takes.
pub(crate) fn tun_set_offload(fd: BorrowedFd<'_>, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD as _, libc::c_ulong::from(flags)) })
}

/// A non-blocking eventfd with count 0.
pub(crate) fn eventfd() -> io::Result<File> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    check(fd)?;
    // SAFETY: eventfd returned a new descriptor that nothing else owns.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// The descriptor of a TAP made by the tun-tap crate.
pub(crate) fn iface_fd(iface: &tun_tap::Iface) -> BorrowedFd<'_> {
    // SAFETY: the interface owns an open descriptor and is borrowed for as long as what is returned.
    unsafe { BorrowedFd::borrow_raw(iface.as_raw_fd()) }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
