//! UDP sockets that send trains of datagrams (`UDP_SEGMENT`) and receive them (`UDP_GRO`), for both IP versions.
//!
//! One socket of IPv6 takes IPv4 too, as mapped addresses; where there is no IPv6, it is one of IPv4. Whoever uses it
//! sees IPv4 addresses as such.
#![expect(unsafe_code, reason = "control messages have no safe form in the standard library")]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// Bytes asked for as the socket's buffers, each way.
const BUFFER_SIZE: libc::c_int = 8 << 20;
/// Room for the control messages of one call.
const CONTROL_SIZE: usize = 128;

/// A bound, non-blocking UDP socket.
#[derive(Debug)]
pub(super) struct UdpSocket {
    fd: OwnedFd,
    v6: bool,
}

/// What came with one receive call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    /// Bytes received.
    pub(super) len: usize,
    /// Length of each datagram but the last, which may be shorter.
    pub(super) segment: usize,
    /// Where they came from.
    pub(super) from: SocketAddr,
    /// TOS or traffic class that they had.
    pub(super) tos: u8,
}

/// Control messages, laid out as the kernel wants them.
#[repr(C, align(8))]
struct Control([u8; CONTROL_SIZE]);

impl UdpSocket {
    /// A socket on `port` of every address. `shared` lets others that are shared, of this user, be on the same port:
    /// the kernel spreads what comes over them by its addresses.
    pub(super) fn bind(port: u16, shared: bool) -> io::Result<Self> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers are passed.
        let mut fd = unsafe { libc::socket(libc::AF_INET6, kind, 0) };
        let v6 = fd >= 0;
        if !v6 {
            // SAFETY: no pointers are passed.
            fd = unsafe { libc::socket(libc::AF_INET, kind, 0) };
        }
        check(fd as isize)?;
        // SAFETY: socket returned a new descriptor that nothing else owns.
        let socket = Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, v6 };
        if v6 {
            socket.set(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0)?;
            socket.set(libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
        }
        socket.set(libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
        if shared {
            socket.share()?;
        }
        // Without it each datagram is received by itself.
        _ = socket.set(libc::IPPROTO_UDP, libc::UDP_GRO, 1);
        for (force, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
            // Past the system's limit only with privilege outside any user namespace.
            socket
                .set(libc::SOL_SOCKET, force, BUFFER_SIZE)
                .or_else(|_| socket.set(libc::SOL_SOCKET, plain, BUFFER_SIZE))?;
        }
        let (address, len) = socket.address(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port));
        // SAFETY: `address` is a socket address of `len` bytes.
        check(unsafe { libc::bind(fd, (&raw const address).cast(), len) } as isize)?;
        Ok(socket)
    }

    /// Lets other shared sockets be on the same port.
    pub(super) fn share(&self) -> io::Result<()> {
        self.set(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)
    }

    /// Sends `bytes` as one datagram, or as several of `segment` bytes and a last one that may be shorter.
    pub(super) fn send(&self, bytes: &[u8], segment: Option<u16>, tos: u8, to: SocketAddr) -> io::Result<()> {
        let (mut address, address_len) = self.address(to);
        let mut control = Control([0; CONTROL_SIZE]);
        let mut used = 0;
        if let Some(segment) = segment {
            used += control.put(used, (libc::IPPROTO_UDP, libc::UDP_SEGMENT), &segment.to_ne_bytes());
        }
        if tos != 0 {
            let v6 = self.v6 && to.is_ipv6();
            let kind = if v6 { (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) } else { (libc::IPPROTO_IP, libc::IP_TOS) };
            used += control.put(used, kind, &i32::from(tos).to_ne_bytes());
        }
        let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        // SAFETY: msghdr is plain data, for which all zero bytes are valid.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_name = (&raw mut address).cast();
        message.msg_namelen = address_len;
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        if used > 0 {
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = used as _;
        }
        loop {
            // SAFETY: all that the message points to lives until the call returns; sendmsg only reads it.
            match check(unsafe { libc::sendmsg(self.fd.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) }) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map(|_| ()),
            }
        }
    }

    /// Waits until the socket can send, `milliseconds` at most.
    pub(super) fn wait_writable(&self, milliseconds: i32) -> bool {
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        // SAFETY: one pollfd is passed, as said.
        unsafe { libc::poll(&raw mut poll, 1, milliseconds) == 1 && poll.revents & libc::POLLOUT != 0 }
    }

    /// Receives one datagram, or several of one length from one sender, without waiting.
    pub(super) fn receive(&self, room: &mut [u8]) -> io::Result<Received> {
        // SAFETY: these are plain data, for which all zero bytes are valid.
        let (mut address, mut message): (libc::sockaddr_storage, libc::msghdr) = unsafe { (zeroed(), zeroed()) };
        let mut control = Control([0; CONTROL_SIZE]);
        let mut vector = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
        message.msg_name = (&raw mut address).cast();
        message.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = CONTROL_SIZE as _;
        // SAFETY: the message points to an address, a control buffer and a room that are borrowed mutably until the call
        // returns, with their lengths.
        let len = check(unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) })? as usize;
        let mut received = Received { len, segment: len, from: read_address(&address)?, tos: 0 };
        let used = message.msg_controllen.min(CONTROL_SIZE);
        control.each(used, |kind, data| match (kind, data) {
            ((libc::IPPROTO_UDP, libc::UDP_GRO), [a, b, ..]) => {
                let segment = usize::from(u16::from_ne_bytes([*a, *b]));
                received.segment = if segment == 0 { len } else { segment };
            }
            ((libc::IPPROTO_IP, libc::IP_TOS), [tos, ..]) => received.tos = *tos,
            ((libc::IPPROTO_IPV6, libc::IPV6_TCLASS), &[a, b, c, d, ..]) => {
                received.tos = i32::from_ne_bytes([a, b, c, d]) as u8;
            }
            _ => {}
        });
        Ok(received)
    }

    fn set(&self, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
        let len = size_of::<libc::c_int>() as libc::socklen_t;
        let value = ptr::from_ref(&value).cast();
        // SAFETY: the kernel reads at most the `len` bytes that `value` has.
        check(unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, option, value, len) } as isize).map(|_| ())
    }

    /// An address in the form that this socket takes.
    fn address(&self, address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
        // SAFETY: sockaddr_storage is plain data, for which all zero bytes are valid.
        let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
        let to = &raw mut storage;
        if self.v6 {
            let (ip, scope) = match address {
                SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), 0),
                SocketAddr::V6(v6) => (*v6.ip(), v6.scope_id()),
            };
            let v6 = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: ip.octets() },
                sin6_scope_id: scope,
            };
            // SAFETY: sockaddr_storage has room for every kind of socket address, and is aligned for it.
            unsafe { to.cast::<libc::sockaddr_in6>().write(v6) };
            return (storage, size_of::<libc::sockaddr_in6>() as libc::socklen_t);
        }
        // An IPv6 address cannot be reached: the kernel says so for the unspecified address that stands for it.
        let ip = if let SocketAddr::V4(v4) = address { u32::from(*v4.ip()) } else { 0 };
        let v4 = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: address.port().to_be(),
            sin_addr: libc::in_addr { s_addr: ip.to_be() },
            sin_zero: [0; 8],
        };
        // SAFETY: as above.
        unsafe { to.cast::<libc::sockaddr_in>().write(v4) };
        (storage, size_of::<libc::sockaddr_in>() as libc::socklen_t)
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// An address that the kernel wrote, IPv4 as such.
fn read_address(storage: &libc::sockaddr_storage) -> io::Result<SocketAddr> {
    let from = &raw const *storage;
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET6 => {
            // SAFETY: the family says which kind of address it is.
            let v6 = unsafe { from.cast::<libc::sockaddr_in6>().read() };
            let (ip, port) = (Ipv6Addr::from(v6.sin6_addr.s6_addr), u16::from_be(v6.sin6_port));
            Ok(match ip.to_ipv4_mapped() {
                Some(v4) => SocketAddrV4::new(v4, port).into(),
                None => SocketAddrV6::new(ip, port, 0, v6.sin6_scope_id).into(),
            })
        }
        libc::AF_INET => {
            // SAFETY: the family says which kind of address it is.
            let v4 = unsafe { from.cast::<libc::sockaddr_in>().read() };
            Ok(SocketAddrV4::new(u32::from_be(v4.sin_addr.s_addr).into(), u16::from_be(v4.sin_port)).into())
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Length of a control message's header.
const HEADER_LEN: usize = size_of::<libc::cmsghdr>();
/// Control messages start at multiples of this.
const ALIGN: usize = size_of::<usize>();

impl Control {
    /// Writes a control message at `at` and returns the room that it takes; 0 if it does not fit.
    fn put(&mut self, at: usize, (level, kind): (libc::c_int, libc::c_int), data: &[u8]) -> usize {
        let len = HEADER_LEN + data.len();
        let Some(room) = self.0.get_mut(at..at + len.next_multiple_of(ALIGN)) else { return 0 };
        let (length, rest) = room.split_at_mut(ALIGN);
        length.copy_from_slice(&len.to_ne_bytes());
        rest[..4].copy_from_slice(&level.to_ne_bytes());
        rest[4..8].copy_from_slice(&kind.to_ne_bytes());
        rest[8..8 + data.len()].copy_from_slice(data);
        len.next_multiple_of(ALIGN)
    }

    /// Calls `visit` with level, type and data of each control message in the first `used` bytes.
    fn each(&self, used: usize, mut visit: impl FnMut((libc::c_int, libc::c_int), &[u8])) {
        let mut rest = self.0.get(..used).unwrap_or_default();
        while let Some((length, fields)) = rest.split_first_chunk::<ALIGN>() {
            let len = usize::from_ne_bytes(*length);
            let (Some(message), Some([a, b, c, d, e, f, g, h])) = (rest.get(HEADER_LEN..len), fields.first_chunk())
            else {
                break;
            };
            visit((i32::from_ne_bytes([*a, *b, *c, *d]), i32::from_ne_bytes([*e, *f, *g, *h])), message);
            rest = rest.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
        }
    }
}

const _: () = assert!(HEADER_LEN == ALIGN + 8, "a control message's header is a length, a level and a type");

fn check(result: isize) -> io::Result<isize> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some datagrams between two sockets on loopback; `None` where that cannot be.
    fn pair() -> Option<(UdpSocket, UdpSocket, u16)> {
        let port = |socket: &UdpSocket| {
            // SAFETY: sockaddr_storage is plain data, for which all zero bytes are valid.
            let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
            let mut len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            // SAFETY: the kernel writes at most `len` bytes.
            unsafe { libc::getsockname(socket.fd.as_raw_fd(), (&raw mut storage).cast(), &raw mut len) };
            read_address(&storage).unwrap().port()
        };
        let (a, b) = (UdpSocket::bind(0, false).ok()?, UdpSocket::bind(0, false).ok()?);
        let to = port(&b);
        Some((a, b, to))
    }

    #[test]
    fn a_train_arrives_whole_with_its_sender_and_tos() {
        let (a, b, port) = pair().expect("UDP on loopback");
        for to in ["127.0.0.1", "::1"] {
            let to = SocketAddr::new(to.parse().unwrap(), port);
            let sent: Vec<u8> = (0..2500).map(|i| i as u8).collect();
            if a.send(&sent, Some(1000), 2, to).is_err() && to.is_ipv6() {
                continue;
            }
            let mut got = Vec::new();
            let mut room = vec![0; 65_535];
            while got.len() < sent.len() {
                assert!(b.wait_readable());
                let received = b.receive(&mut room).unwrap();
                assert_eq!(received.tos, 2);
                assert_eq!(received.from.ip(), to.ip(), "an IPv4 address is told as such");
                assert!(received.segment == 1000 || received.segment == received.len);
                got.extend_from_slice(&room[..received.len]);
            }
            assert_eq!(got, sent);
        }
    }

    #[test]
    fn a_port_in_use_is_refused_unless_both_share_it() {
        let (_a, b, port) = pair().expect("UDP on loopback");
        assert!(UdpSocket::bind(port, false).is_err());
        assert!(UdpSocket::bind(port, true).is_err());
        b.share().unwrap();
        assert!(UdpSocket::bind(port, true).is_ok());
    }

    impl UdpSocket {
        fn wait_readable(&self) -> bool {
            let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd is passed, as said.
            unsafe { libc::poll(&raw mut poll, 1, 10_000) == 1 }
        }
    }
}
