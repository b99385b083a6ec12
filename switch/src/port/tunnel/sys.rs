//! UDP and raw IP sockets, and what comes and goes with each message beside its bytes.
#![expect(unsafe_code, reason = "control messages and bursts of them have no safe form in the standard library")]

pub(crate) mod receive;
pub(crate) mod send;

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// Bytes of control messages that one message has room for, as words for their alignment.
const CONTROL_WORDS: usize = 24;
/// Length of a control message's header, and what everything in a control buffer is aligned to.
const CMSG_LEN: usize = size_of::<libc::cmsghdr>();
const CMSG_ALIGN: usize = size_of::<usize>();
/// Where drops stand in what `SO_MEMINFO` tells.
const MEMINFO_DROPS: usize = 8;
const MEMINFO_LEN: usize = 9;
const _: () = assert!(size_of::<libc::in_pktinfo>() == 12 && size_of::<libc::in6_pktinfo>() == 20);

/// Which of the two internet protocols a socket speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

/// A non-blocking datagram socket.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// A UDP socket that is not bound.
    pub(crate) fn udp(family: Family) -> io::Result<Self> {
        Self::new(family, libc::SOCK_DGRAM, libc::IPPROTO_UDP)
    }

    /// A raw socket, which receives every packet of this protocol.
    pub(crate) fn raw(family: Family, protocol: u8) -> io::Result<Self> {
        Self::new(family, libc::SOCK_RAW, protocol.into())
    }

    fn new(family: Family, kind: libc::c_int, protocol: libc::c_int) -> io::Result<Self> {
        let domain = if family == Family::V4 { libc::AF_INET } else { libc::AF_INET6 };
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::socket(domain, kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, protocol) };
        check(fd)?;
        // SAFETY: socket returned a new descriptor that nothing else owns.
        let socket = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        // Raw sockets of IPv6 never see IPv4.
        if family == Family::V6 && kind == libc::SOCK_DGRAM {
            socket.set(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
        }
        Ok(socket)
    }

    /// Sets an option that is an int.
    pub(crate) fn set(&self, level: libc::c_int, option: libc::c_int, value: i32) -> io::Result<()> {
        self.set_value(level, option, &value)
    }

    /// Private, because `T` must be what the option is.
    fn set_value<T: Copy>(&self, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
        let len = size_of::<T>() as libc::socklen_t;
        // SAFETY: the kernel reads at most the `len` bytes that `value` has.
        check(unsafe { libc::setsockopt(self.0.as_raw_fd(), level, option, ptr::from_ref(value).cast(), len) })
    }

    /// An option that is an int.
    fn get(&self, level: libc::c_int, option: libc::c_int) -> io::Result<i32> {
        let mut value = 0_i32;
        let mut len = size_of::<i32>() as libc::socklen_t;
        let to = (&raw mut value).cast();
        // SAFETY: the kernel writes at most the `len` bytes that `value` has.
        check(unsafe { libc::getsockopt(self.0.as_raw_fd(), level, option, to, &raw mut len) })?;
        Ok(value)
    }

    /// Asks for buffers of these sizes; the kernel gives what it allows.
    pub(crate) fn set_buffer_sizes(&self, receive: i32, send: i32) -> io::Result<()> {
        for (force, plain, size) in
            [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, receive), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, send)]
        {
            // Past the system's limit only with privilege outside any user namespace.
            self.set(libc::SOL_SOCKET, force, size).or_else(|_| self.set(libc::SOL_SOCKET, plain, size))?;
        }
        Ok(())
    }

    /// Has the socket receive nothing.
    pub(crate) fn deafen(&self) -> io::Result<()> {
        let mut refuse = libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 };
        let program = libc::sock_fprog { len: 1, filter: &raw mut refuse };
        self.set_value(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
    }

    /// Binds to a port of every address; 0 leaves the choice to the kernel.
    pub(crate) fn bind(&self, family: Family, port: u16) -> io::Result<()> {
        let (name, len) = name(SocketAddr::new(family.unspecified(), port));
        // SAFETY: `name` is an address of `len` bytes.
        check(unsafe { libc::bind(self.0.as_raw_fd(), (&raw const name).cast(), len) })
    }

    /// Takes a route to `remote` from `local`, if that is said, and returns its MTU. An error means that there is no
    /// route.
    pub(crate) fn path_mtu(&self, remote: IpAddr, local: Option<IpAddr>) -> io::Result<u32> {
        // A connection made before would hold on to its source address and its route.
        self.disconnect()?;
        if let Some(local) = local {
            let (name, len) = name(SocketAddr::new(local, 0));
            // SAFETY: `name` is an address of `len` bytes.
            check(unsafe { libc::bind(self.0.as_raw_fd(), (&raw const name).cast(), len) })?;
        }
        // Any port does: nothing is sent.
        let (name, len) = name(SocketAddr::new(remote, 9));
        // SAFETY: `name` is an address of `len` bytes.
        check(unsafe { libc::connect(self.0.as_raw_fd(), (&raw const name).cast(), len) })?;
        let (level, option) = match Family::of(remote) {
            Family::V4 => (libc::IPPROTO_IP, libc::IP_MTU),
            Family::V6 => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
        };
        let mtu = self.get(level, option)?;
        self.disconnect()?;
        Ok(mtu.max(0) as u32)
    }

    fn disconnect(&self) -> io::Result<()> {
        // SAFETY: sockaddr is plain data, for which all zero bytes are valid: AF_UNSPEC, which ends a connection.
        let nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
        let len = size_of::<libc::sockaddr>() as libc::socklen_t;
        // SAFETY: `nowhere` is an address of `len` bytes.
        check(unsafe { libc::connect(self.0.as_raw_fd(), &raw const nowhere, len) })
    }

    /// Messages that found the receive buffer full since the socket was opened.
    pub(crate) fn drops(&self) -> u64 {
        let mut info = [0_u32; MEMINFO_LEN];
        let mut len = size_of_val(&info) as libc::socklen_t;
        let to = info.as_mut_ptr().cast();
        // SAFETY: the kernel writes at most the `len` bytes that `info` has.
        let got = unsafe { libc::getsockopt(self.0.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, to, &raw mut len) };
        if got < 0 { 0 } else { info[MEMINFO_DROPS].into() }
    }

    /// Waits until the socket can send, `milliseconds` at most.
    pub(crate) fn wait_writable(&self, milliseconds: i32) {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        // SAFETY: one pollfd is passed, as said. Whether it can send, the next attempt tells.
        unsafe { libc::poll(&raw mut poll, 1, milliseconds) };
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// An address as the kernel lays it out, and its length.
type Name = libc::sockaddr_in6;

fn name(address: SocketAddr) -> (Name, libc::socklen_t) {
    // SAFETY: sockaddr_in6 is plain data, for which all zero bytes are valid.
    let mut name: Name = unsafe { std::mem::zeroed() };
    let len = match address {
        SocketAddr::V4(v4) => {
            let short = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: a sockaddr_in6 is longer than a sockaddr_in and no less aligned, and takes any bytes.
            unsafe { (&raw mut name).cast::<libc::sockaddr_in>().write(short) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            name.sin6_port = v6.port().to_be();
            name.sin6_addr.s6_addr = v6.ip().octets();
            name.sin6_scope_id = v6.scope_id();
            size_of::<Name>()
        }
    };
    (name, len as libc::socklen_t)
}

/// The address in a name that the kernel has filled.
fn address(name: &Name) -> IpAddr {
    if i32::from(name.sin6_family) == libc::AF_INET6 {
        return Ipv6Addr::from(name.sin6_addr.s6_addr).into();
    }
    // An IPv4 address lies where the flow label of an IPv6 name is.
    Ipv4Addr::from(name.sin6_flowinfo.to_ne_bytes()).into()
}

/// Writes a control message at `at` of a zeroed buffer and returns where the next goes; the buffer is large enough for
/// all that are ever written.
fn put_control(buffer: &mut [u8], at: usize, level: libc::c_int, kind: libc::c_int, data: &[u8]) -> usize {
    let len = CMSG_LEN + data.len();
    let Some(place) = buffer.get_mut(at..at + len) else { return at };
    place[..CMSG_ALIGN].copy_from_slice(&len.to_ne_bytes());
    place[CMSG_ALIGN..CMSG_ALIGN + 4].copy_from_slice(&level.to_ne_bytes());
    place[CMSG_ALIGN + 4..CMSG_ALIGN + 8].copy_from_slice(&kind.to_ne_bytes());
    place[CMSG_LEN..].copy_from_slice(data);
    at + len.next_multiple_of(CMSG_ALIGN)
}

/// The control messages in a buffer: level, kind and data of each.
fn controls(mut buffer: &[u8]) -> impl Iterator<Item = (libc::c_int, libc::c_int, &[u8])> {
    std::iter::from_fn(move || {
        let (header, _) = buffer.split_at_checked(CMSG_LEN)?;
        let len = usize::from_ne_bytes(*header.first_chunk()?);
        let int = |at: usize| header.get(at..)?.first_chunk().map(|bytes| libc::c_int::from_ne_bytes(*bytes));
        let (level, kind) = (int(CMSG_ALIGN)?, int(CMSG_ALIGN + 4)?);
        let data = buffer.get(CMSG_LEN..len)?;
        buffer = buffer.get(len.next_multiple_of(CMSG_ALIGN)..).unwrap_or_default();
        Some((level, kind, data))
    })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_messages_read_back_as_they_were_written() {
        let mut buffer = [0; CONTROL_WORDS * 8];
        let at = put_control(&mut buffer, 0, 1, 2, &[9]);
        let end = put_control(&mut buffer, at, 3, 4, &[5; 20]);
        let read: Vec<_> = controls(&buffer[..end]).collect();
        assert_eq!(read, [(1, 2, &[9][..]), (3, 4, &[5; 20][..])]);
    }

    #[test]
    fn addresses_read_back_as_they_were_written() {
        for text in ["192.0.2.1:7", "[2001:db8::1]:7"] {
            let wanted: SocketAddr = text.parse().unwrap();
            assert_eq!(address(&name(wanted).0), wanted.ip());
        }
    }
}
