//! Receiving bursts, with what the kernel read from the headers that it took off.

use super::{CMSG_ALIGN, CONTROL_WORDS, Name, Socket, address, check, controls};
use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::ptr;

/// Messages in one burst.
pub(crate) const BURST: usize = 16;
/// Bytes for each: the longest datagram, or as many joined as the kernel joins.
const SIZE: usize = 1 << 16;

/// What is known of a message beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Where it came from.
    pub(crate) remote: IpAddr,
    /// The address of ours that it was sent to; unspecified if the kernel did not say.
    pub(crate) local: IpAddr,
    /// TOS or traffic class.
    pub(crate) tos: u8,
    /// TTL or hop limit.
    pub(crate) ttl: u8,
    /// Length of each of the datagrams that the kernel joined, but for the last; 0 when it is one datagram.
    pub(crate) segment: usize,
}

/// The buffers and message headers of a burst.
///
/// The pointers in them are set anew from borrows at the start of each call, and nothing follows them afterwards.
pub(crate) struct Receiver {
    messages: Box<[libc::mmsghdr; BURST]>,
    vectors: Box<[libc::iovec; BURST]>,
    names: Box<[Name; BURST]>,
    controls: Box<[[u64; CONTROL_WORDS]; BURST]>,
    buffers: Box<[u8]>,
}

// SAFETY: the pointers inside are followed only by the system call of a method that has `&mut self` and set them itself.
unsafe impl Send for Receiver {}

impl Receiver {
    pub(crate) fn new() -> Self {
        // SAFETY: mmsghdr, iovec and sockaddr_in6 are plain data, for which all zero bytes are valid.
        let (message, vector, name) = unsafe { (std::mem::zeroed(), std::mem::zeroed(), std::mem::zeroed()) };
        Self {
            messages: Box::new([message; BURST]),
            vectors: Box::new([vector; BURST]),
            names: Box::new([name; BURST]),
            controls: Box::new([[0; CONTROL_WORDS]; BURST]),
            buffers: vec![0; BURST * SIZE].into_boxed_slice(),
        }
    }

    /// Receives without waiting, and returns how many messages came; 0 when there is none.
    ///
    /// # Errors
    /// The system's, but for "nothing there".
    pub(crate) fn receive(&mut self, socket: &Socket) -> io::Result<usize> {
        for (i, buffer) in self.buffers.chunks_exact_mut(SIZE).enumerate() {
            self.vectors[i] = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: SIZE };
            let message = &mut self.messages[i].msg_hdr;
            message.msg_name = (&raw mut self.names[i]).cast();
            message.msg_namelen = size_of::<Name>() as libc::socklen_t;
            message.msg_iov = &raw mut self.vectors[i];
            message.msg_iovlen = 1;
            message.msg_control = self.controls[i].as_mut_ptr().cast();
            message.msg_controllen = (CONTROL_WORDS * CMSG_ALIGN) as _;
            message.msg_flags = 0;
        }
        let messages = self.messages.as_mut_ptr();
        let fd = socket.0.as_raw_fd();
        // SAFETY: the messages point to names, vectors, controls and buffers in our own boxes, all borrowed mutably until
        // the call returns.
        let got = unsafe { libc::recvmmsg(fd, messages, BURST as _, libc::MSG_DONTWAIT as _, ptr::null_mut()) };
        match check(got) {
            Ok(()) => Ok(got as usize),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => Ok(0),
            Err(e) => Err(e),
        }
    }

    /// The bytes of message `i` of the last burst; `None` when they did not all fit.
    pub(crate) fn bytes_mut(&mut self, i: usize) -> Option<&mut [u8]> {
        let message = self.messages.get(i)?;
        let whole = message.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
        let len = (message.msg_len as usize).min(SIZE);
        self.buffers.get_mut(i * SIZE..i * SIZE + len).filter(|_| whole)
    }

    /// What is known of message `i`, below [`BURST`], of the last burst.
    pub(crate) fn arrival(&self, i: usize) -> Arrival {
        let remote = address(&self.names[i]);
        let local = if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let mut arrival = Arrival { remote, local, tos: 0, ttl: 0, segment: 0 };
        let mut bytes = [0; CONTROL_WORDS * 8];
        for (to, from) in bytes.chunks_exact_mut(8).zip(&self.controls[i]) {
            to.copy_from_slice(&from.to_ne_bytes());
        }
        let len = self.messages[i].msg_hdr.msg_controllen.min(CONTROL_WORDS * CMSG_ALIGN);
        for (level, kind, data) in controls(&bytes[..len]) {
            let int =
                || data.first_chunk().map_or(data.first().map_or(0, |b| i32::from(*b)), |b| i32::from_ne_bytes(*b));
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    if let Some(octets) = data.get(8..).and_then(|b| b.first_chunk::<4>()) {
                        arrival.local = Ipv4Addr::from(*octets).into();
                    }
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    if let Some(octets) = data.first_chunk::<16>() {
                        arrival.local = Ipv6Addr::from(*octets).into();
                    }
                }
                (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => arrival.tos = int() as u8,
                (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                    arrival.ttl = int() as u8;
                }
                (libc::SOL_UDP, libc::UDP_GRO) => arrival.segment = int().max(0) as usize,
                _ => {}
            }
        }
        arrival
    }
}
