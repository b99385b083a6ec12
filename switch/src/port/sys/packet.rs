//! Packet sockets (packet(7)): options, and bursts by `recvmmsg` and `sendmmsg`.
#![expect(unsafe_code, reason = "packet sockets have no safe form in the standard library")]

use super::check;
use crate::port::coalesce::{Head, coalesce};
use crate::port::vnet;
use sluice_flows::packet::Frame;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// Most frames in one burst.
pub(crate) const BURST: usize = 64;
/// Two of each message, and one of each frame that is joined with others.
const VECTORS: usize = 3 * BURST;
/// Length of the vnet header that packet sockets use: the one without `num_buffers`.
const VNET_LEN: usize = 10;

/// A raw, non-blocking packet socket that receives nothing before it is bound.
#[derive(Debug)]
pub(crate) struct PacketSocket(OwnedFd);

impl PacketSocket {
    pub(crate) fn new() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        check(fd)?;
        // SAFETY: socket returned a new descriptor that nothing else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sends by the interface of this index and, if it `receives`, starts receiving everything that comes in by it.
    pub(crate) fn bind(&self, index: i32, receives: bool) -> io::Result<()> {
        // SAFETY: sockaddr_ll is plain data, for which all zero bytes are valid.
        let mut addr: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        addr.sll_family = libc::AF_PACKET as libc::c_ushort;
        addr.sll_protocol = if receives { (libc::ETH_P_ALL as u16).to_be() } else { 0 };
        addr.sll_ifindex = index;
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: `addr` is a sockaddr_ll of `len` bytes.
        check(unsafe { libc::bind(self.0.as_raw_fd(), (&raw const addr).cast(), len) })
    }

    /// Sets an option of `SOL_PACKET` that is an int.
    pub(crate) fn set_option(&self, option: libc::c_int, value: i32) -> io::Result<()> {
        self.set(libc::SOL_PACKET, option, &value)
    }

    /// Asks for buffers of `size` bytes each way; the kernel gives what it allows.
    pub(crate) fn set_buffer_sizes(&self, size: i32) -> io::Result<()> {
        for (force, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
            // Past the system's limit only with privilege outside any user namespace.
            self.set(libc::SOL_SOCKET, force, &size).or_else(|_| self.set(libc::SOL_SOCKET, plain, &size))?;
        }
        Ok(())
    }

    /// Has the interface receive frames for every address while this socket is open.
    pub(crate) fn set_promiscuous(&self, index: i32) -> io::Result<()> {
        let request = libc::packet_mreq {
            mr_ifindex: index,
            mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        self.set(libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)
    }

    /// Frames that found the receive buffer full since the last call.
    pub(crate) fn take_drops(&self) -> io::Result<u64> {
        let stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        Ok(u64::from(self.get(libc::PACKET_STATISTICS, stats)?.tp_drops))
    }

    /// The value of an option of `SOL_PACKET` that is an int.
    pub(crate) fn option(&self, option: libc::c_int) -> io::Result<i32> {
        self.get(option, 0)
    }

    fn set<T: Copy>(&self, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
        let len = size_of::<T>() as libc::socklen_t;
        // SAFETY: the kernel reads at most the `len` bytes that `value` has.
        check(unsafe { libc::setsockopt(self.0.as_raw_fd(), level, option, ptr::from_ref(value).cast(), len) })
    }

    /// Private, because `T` must be valid whatever bytes the kernel writes: only plain integers and structs of them.
    fn get<T: Copy>(&self, option: libc::c_int, mut value: T) -> io::Result<T> {
        let mut len = size_of::<T>() as libc::socklen_t;
        let to = (&raw mut value).cast();
        // SAFETY: the kernel writes at most the `len` bytes that `value` has.
        check(unsafe { libc::getsockopt(self.0.as_raw_fd(), libc::SOL_PACKET, option, to, &raw mut len) })?;
        Ok(value)
    }

    /// Waits until the socket can send, `milliseconds` at most.
    pub(crate) fn wait_writable(&self, milliseconds: i32) -> bool {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        // SAFETY: one pollfd is passed, as said.
        unsafe { libc::poll(&raw mut poll, 1, milliseconds) == 1 && poll.revents & libc::POLLOUT != 0 }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What came with one received frame.
pub(crate) struct Received {
    /// Bytes written into the frame's room.
    pub(crate) len: usize,
    /// The frame was longer than its room.
    pub(crate) truncated: bool,
    /// The vnet header, `num_buffers` 0.
    pub(crate) header: [u8; vnet::LEN],
    /// The VLAN tag that the kernel took out of the frame, as the four bytes to put back.
    pub(crate) tag: Option<[u8; 4]>,
}

/// The one control message asked for, as the kernel lays it out.
#[derive(Clone, Copy)]
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    aux: libc::tpacket_auxdata,
}

/// The message headers of a burst, kept so that a burst allocates nothing.
///
/// The pointers in them are set anew from borrows at the start of each call, and nothing follows them afterwards.
pub(crate) struct Burst {
    messages: Box<[libc::mmsghdr; BURST]>,
    vectors: Box<[libc::iovec; VECTORS]>,
    headers: Box<[[u8; vnet::LEN]; BURST]>,
    /// Of messages to send, the headers of several frames in one.
    heads: Box<[Head; BURST]>,
    /// Frames in each message to send.
    counts: Box<[usize; BURST]>,
    /// Whether frames are joined.
    joins: bool,
    controls: Box<[Control; BURST]>,
}

// SAFETY: the pointers inside are followed only by the system call of a method that has `&mut self` and set them itself.
unsafe impl Send for Burst {}

impl Burst {
    pub(crate) fn new() -> Self {
        // SAFETY: mmsghdr, iovec, cmsghdr and tpacket_auxdata are plain data, for which all zero bytes are valid.
        let (message, vector, control) = unsafe { (std::mem::zeroed(), std::mem::zeroed(), std::mem::zeroed()) };
        Self {
            messages: Box::new([message; BURST]),
            vectors: Box::new([vector; VECTORS]),
            headers: Box::new([[0; vnet::LEN]; BURST]),
            heads: Box::new([Head::EMPTY; BURST]),
            counts: Box::new([0; BURST]),
            joins: true,
            controls: Box::new([control; BURST]),
        }
    }

    /// Receives into the first frames of `frames` without waiting, and returns how many; [`Self::received`] has the
    /// rest about each.
    pub(crate) fn receive(&mut self, socket: &PacketSocket, frames: &mut [Frame]) -> io::Result<usize> {
        let count = frames.len().min(BURST);
        for (i, frame) in frames[..count].iter_mut().enumerate() {
            let room = frame.room();
            let vectors = &mut self.vectors[2 * i..2 * i + 2];
            vectors[0] = libc::iovec { iov_base: self.headers[i].as_mut_ptr().cast(), iov_len: VNET_LEN };
            vectors[1] = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
            let message = &mut self.messages[i].msg_hdr;
            message.msg_iov = vectors.as_mut_ptr();
            message.msg_iovlen = 2;
            message.msg_control = (&raw mut self.controls[i]).cast();
            message.msg_controllen = size_of::<Control>() as _;
            message.msg_flags = 0;
        }
        let messages = self.messages.as_mut_ptr();
        // SAFETY: the first `count` messages point to vectors, headers and controls in our own boxes and to the rooms of
        // as many frames, all borrowed mutably until the call returns.
        let got = unsafe {
            libc::recvmmsg(socket.0.as_raw_fd(), messages, count as _, libc::MSG_DONTWAIT as _, ptr::null_mut())
        };
        check(got)?;
        Ok(got as usize)
    }

    /// About the frame `i` of the last [`Self::receive`].
    pub(crate) fn received(&self, i: usize) -> Received {
        let message = &self.messages[i];
        let control = &self.controls[i];
        let has_aux = message.msg_hdr.msg_controllen >= size_of::<libc::cmsghdr>() + size_of::<libc::tpacket_auxdata>()
            && control.header.cmsg_level == libc::SOL_PACKET
            && control.header.cmsg_type == libc::PACKET_AUXDATA;
        let tagged = has_aux && control.aux.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
        Received {
            len: (message.msg_len as usize).saturating_sub(VNET_LEN),
            truncated: message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            header: self.headers[i],
            tag: tagged.then(|| {
                let named = control.aux.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
                let tpid = if named { control.aux.tp_vlan_tpid } else { libc::ETH_P_8021Q as u16 };
                let ([a, b], [c, d]) = (tpid.to_be_bytes(), control.aux.tp_vlan_tci.to_be_bytes());
                [a, b, c, d]
            }),
        }
    }

    /// Sends the first frames of `frames` without waiting, and returns how many the kernel took: at least one.
    ///
    /// # Errors
    /// What stopped the first of them.
    pub(crate) fn send(&mut self, socket: &PacketSocket, frames: &[&Frame]) -> io::Result<usize> {
        let mut left = &frames[..frames.len().min(BURST)];
        let (mut count, mut free) = (0, 0);
        while let Some(first) = left.first() {
            let head = &mut self.heads[count];
            let joined = if self.joins { coalesce(left, head) } else { 1 };
            let header = &mut self.headers[count];
            let begin = free;
            let mut gather = |bytes: &[u8]| {
                self.vectors[free] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
                free += 1;
            };
            if joined == 1 {
                *header = vnet::encode(&first.offload, first.len());
                gather(&header[..VNET_LEN]);
                gather(first.bytes());
            } else {
                *header = vnet::encode(&head.offload, head.total);
                gather(&header[..VNET_LEN]);
                gather(head.bytes());
                left[..joined].iter().for_each(|frame| gather(head.payload(frame)));
            }
            let message = &mut self.messages[count].msg_hdr;
            message.msg_iov = self.vectors[begin..].as_mut_ptr();
            message.msg_iovlen = (free - begin) as _;
            message.msg_control = ptr::null_mut();
            message.msg_controllen = 0;
            self.counts[count] = joined;
            count += 1;
            left = &left[joined..];
        }
        let messages = self.messages.as_mut_ptr();
        // SAFETY: as in `receive`, and to our own heads; sendmmsg only reads what the vectors point to, so shared borrows of
        // the frames do.
        let sent = unsafe { libc::sendmmsg(socket.0.as_raw_fd(), messages, count as _, libc::MSG_DONTWAIT as _) };
        check(sent)?;
        Ok(self.counts[..sent as usize].iter().sum())
    }

    /// Joins no frames any more, if those at the front of the last [`Self::send`] were joined: what that says.
    pub(crate) fn part(&mut self) -> bool {
        let joined = self.counts[0] > 1;
        self.joins &= !joined;
        joined
    }
}
