//! AF_XDP sockets (the kernel's Documentation/networking/af_xdp.rst).
#![expect(unsafe_code, reason = "AF_XDP sockets have no safe form in the standard library")]

use super::{Area, Entry, Ring};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// A socket's four rings.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum RingKind {
    /// Frames received.
    Rx,
    /// Frames to send.
    Tx,
    /// Chunks for the kernel to receive into.
    Fill,
    /// Chunks that the kernel has sent.
    Completion,
}

/// An AF_XDP socket of the calling thread's network namespace.
#[derive(Debug)]
pub(in super::super) struct Xsk(OwnedFd);

impl Xsk {
    pub(in super::super) fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        check(fd)?;
        // SAFETY: socket returned a new descriptor that nothing else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Makes `umem` the memory of its frames, in chunks of `chunk` bytes, which begin with `tx_metadata` bytes about a
    /// frame to be sent if that is not 0.
    pub(in super::super) fn register(&self, umem: &Area, chunk: u32, tx_metadata: u32) -> io::Result<()> {
        let flags = if tx_metadata == 0 { 0 } else { libc::XDP_UMEM_TX_METADATA_LEN };
        let request = libc::xdp_umem_reg {
            addr: umem.base().as_ptr() as u64,
            len: umem.len() as u64,
            chunk_size: chunk,
            headroom: 0,
            flags,
            tx_metadata_len: tx_metadata,
        };
        self.set(libc::SOL_XDP, libc::XDP_UMEM_REG, &request)
    }

    /// Makes one of its rings, with `size` entries, and maps it.
    pub(in super::super) fn ring<T: Entry>(&self, kind: RingKind, size: u32) -> io::Result<Ring<T>> {
        let (option, page) = match kind {
            RingKind::Rx => (libc::XDP_RX_RING, libc::XDP_PGOFF_RX_RING),
            RingKind::Tx => (libc::XDP_TX_RING, libc::XDP_PGOFF_TX_RING),
            RingKind::Fill => (libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t),
            RingKind::Completion => {
                (libc::XDP_UMEM_COMPLETION_RING, libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t)
            }
        };
        self.set(libc::SOL_XDP, option, &size)?;
        let offsets: libc::xdp_mmap_offsets = self.get(libc::XDP_MMAP_OFFSETS)?;
        let at = match kind {
            RingKind::Rx => offsets.rx,
            RingKind::Tx => offsets.tx,
            RingKind::Fill => offsets.fr,
            RingKind::Completion => offsets.cr,
        };
        let len = at.desc as usize + size as usize * size_of::<T>();
        Ring::new(Area::of_file(self.as_fd(), page, len)?, &at, size)
    }

    /// Joins the socket to one queue of an interface. `flags` are the kernel's `XDP_*` flags of bind.
    pub(in super::super) fn bind(&self, index: i32, queue: u32, flags: u16) -> io::Result<()> {
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: flags,
            sxdp_ifindex: index.unsigned_abs(),
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        let len = size_of::<libc::sockaddr_xdp>() as libc::socklen_t;
        // SAFETY: `address` is a sockaddr_xdp of `len` bytes.
        check(unsafe { libc::bind(self.0.as_raw_fd(), (&raw const address).cast(), len) })
    }

    /// Whether the driver reads and writes the chunks itself.
    pub(in super::super) fn is_zero_copy(&self) -> io::Result<bool> {
        let options: libc::xdp_options = self.get(libc::XDP_OPTIONS)?;
        Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
    }

    /// What the kernel has counted since the socket was made.
    pub(in super::super) fn statistics(&self) -> io::Result<libc::xdp_statistics> {
        self.get(libc::XDP_STATISTICS)
    }

    /// Bytes that frames under way may take in the kernel; it gives what it allows.
    pub(in super::super) fn set_send_buffer(&self, size: i32) -> io::Result<()> {
        // Past the system's limit only with privilege outside any user namespace.
        self.set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &size)
            .or_else(|_| self.set(libc::SOL_SOCKET, libc::SO_SNDBUF, &size))
    }

    /// Has the kernel send what is in the ring.
    ///
    /// # Errors
    /// `EAGAIN` when there is more to do, `EBUSY` when the device took one frame and dropped it, `ENETDOWN`, `ENXIO`
    /// when the device is gone.
    pub(in super::super) fn kick_tx(&self) -> io::Result<()> {
        // SAFETY: a message without bytes and without an address.
        let sent = unsafe { libc::sendto(self.0.as_raw_fd(), ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0) };
        check_len(sent)
    }

    /// Tells a driver that waits for chunks that there are some, and asks whether the device is there.
    ///
    /// # Errors
    /// `ENETDOWN`, `ENXIO` when the device is gone.
    pub(in super::super) fn kick_rx(&self) -> io::Result<()> {
        let (none, flags) = (ptr::null_mut(), libc::MSG_DONTWAIT);
        // SAFETY: no room is given, and no address is asked for.
        let got = unsafe { libc::recvfrom(self.0.as_raw_fd(), none, 0, flags, ptr::null_mut(), ptr::null_mut()) };
        check_len(got)
    }

    /// Waits until there is room to send, `milliseconds` at most. In copy mode the kernel also sends meanwhile.
    pub(in super::super) fn wait_writable(&self, milliseconds: i32) {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        // SAFETY: one pollfd is passed, as said.
        unsafe { libc::poll(&raw mut poll, 1, milliseconds) };
    }

    fn set<T: Copy>(&self, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
        let len = size_of::<T>() as libc::socklen_t;
        // SAFETY: the kernel reads at most the `len` bytes that `value` has.
        check(unsafe { libc::setsockopt(self.0.as_raw_fd(), level, option, ptr::from_ref(value).cast(), len) })
    }

    /// Private, because all bytes must be valid for `T`: only structs of plain integers.
    fn get<T: Copy>(&self, option: libc::c_int) -> io::Result<T> {
        // SAFETY: the structs asked for are plain integers, for which all zero bytes are valid.
        let mut value: T = unsafe { std::mem::zeroed() };
        let mut len = size_of::<T>() as libc::socklen_t;
        let to = (&raw mut value).cast();
        // SAFETY: the kernel writes at most the `len` bytes that `value` has.
        check(unsafe { libc::getsockopt(self.0.as_raw_fd(), libc::SOL_XDP, option, to, &raw mut len) })?;
        Ok(value)
    }
}

impl AsFd for Xsk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn check_len(result: isize) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
