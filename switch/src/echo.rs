//! ICMP echo requests of the host's own stack (RFC 792, RFC 4443), by raw sockets: what `ping` does, without the program.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, recv, sendto, socket,
};
use sluice_flows::packet::checksum::checksum;
use std::io;
use std::net::{IpAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// Bytes of an echo request: header, and a payload as long as that of `ping`.
const REQUEST_LEN: usize = 64;
/// Tells apart the sockets of one process: raw sockets receive every answer.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// Sends echo requests from the network namespace that it was opened in.
#[derive(Debug)]
pub struct Echo {
    /// For IPv4 and IPv6, where there is anybody to ask.
    sockets: [Option<OwnedFd>; 2],
    id: u16,
}

impl Echo {
    /// Opens raw sockets for the versions of IP that are wanted (IPv4, IPv6), in the calling thread's namespace.
    ///
    /// # Errors
    /// The system's: raw sockets need `CAP_NET_RAW`.
    pub fn open(wanted: [bool; 2]) -> io::Result<Self> {
        let open = |wanted: bool, family, protocol| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            wanted.then(|| socket(family, SockType::Raw, flags, protocol)).transpose()
        };
        let sockets = [
            open(wanted[0], AddressFamily::Inet, SockProtocol::Icmp)?,
            open(wanted[1], AddressFamily::Inet6, SockProtocol::IcmpV6)?,
        ];
        let id = (std::process::id() as u16).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        Ok(Self { sockets, id })
    }

    /// Sends a request with this sequence number.
    ///
    /// # Errors
    /// The system's: there is no route, say.
    pub fn send(&self, to: IpAddr, sequence: u16) -> io::Result<()> {
        let mut request = [0; REQUEST_LEN];
        request[0] = if to.is_ipv4() { 8 } else { 128 };
        request[4..6].copy_from_slice(&self.id.to_be_bytes());
        request[6..8].copy_from_slice(&sequence.to_be_bytes());
        let socket = self.sockets[usize::from(to.is_ipv6())].as_ref().map_or(-1, AsRawFd::as_raw_fd);
        match to {
            IpAddr::V4(ip) => {
                let sum = checksum(&request);
                request[2..4].copy_from_slice(&sum.to_be_bytes());
                sendto(socket, &request, &SockaddrIn::from(SocketAddrV4::new(ip, 0)), MsgFlags::empty())?;
            }
            // The kernel fills in ICMPv6's checksum.
            IpAddr::V6(ip) => {
                sendto(socket, &request, &SockaddrIn6::from(SocketAddrV6::new(ip, 0, 0, 0)), MsgFlags::empty())?;
            }
        }
        Ok(())
    }

    /// Waits until there may be an answer, at most for `timeout`.
    ///
    /// # Errors
    /// The system's.
    pub fn wait(&self, timeout: Duration) -> io::Result<()> {
        let millis = u16::try_from(timeout.as_millis() + 1).unwrap_or(u16::MAX);
        let open = self.sockets.iter().flatten();
        let mut fds: Vec<_> = open.map(|s| PollFd::new(s.as_fd(), PollFlags::POLLIN)).collect();
        match poll(&mut fds, PollTimeout::from(millis)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Takes every answer that is there, and tells their sequence numbers.
    ///
    /// # Errors
    /// The system's.
    pub fn receive(&self, mut answered: impl FnMut(u16)) -> io::Result<()> {
        for (socket, is_v4) in self.sockets.iter().zip([true, false]) {
            let Some(socket) = socket else { continue };
            loop {
                let mut buffer = [0; 2048];
                match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                    Ok(len) => {
                        let packet = buffer.get(..len).unwrap_or_default();
                        if let Some(sequence) = self.sequence(packet, is_v4) {
                            answered(sequence);
                        }
                    }
                    Err(Errno::EAGAIN | Errno::EINTR) => break,
                    // What an ICMP error about an earlier request leaves behind.
                    Err(Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        Ok(())
    }

    /// The sequence number of an answer to one of ours.
    fn sequence(&self, packet: &[u8], is_v4: bool) -> Option<u16> {
        // A raw IPv4 socket gives the IP header too.
        let skip = if is_v4 { usize::from(packet.first()? & 15) * 4 } else { 0 };
        let reply = if is_v4 { 0 } else { 129 };
        let (head, _) = packet.get(skip..)?.split_first_chunk::<8>()?;
        let [kind, _, _, _, id_high, id_low, high, low] = *head;
        let is_ours = kind == reply && u16::from_be_bytes([id_high, id_low]) == self.id;
        is_ours.then(|| u16::from_be_bytes([high, low]))
    }

    /// Asks each address once, all at the same time, and says how long each took to answer; `None` for those that did
    /// not within `timeout`.
    ///
    /// # Errors
    /// The system's, when it cannot receive.
    pub fn probe(&self, addresses: &[IpAddr], timeout: Duration) -> io::Result<Vec<Option<Duration>>> {
        let start = Instant::now();
        let mut times = vec![None; addresses.len()];
        let mut waiting = 0;
        let sent: Vec<_> = (0_u16..)
            .zip(addresses)
            .map(|(sequence, address)| {
                let now = Instant::now();
                self.send(*address, sequence).ok().map(|()| now)
            })
            .inspect(|sent| waiting += usize::from(sent.is_some()))
            .collect();
        while waiting > 0 {
            let Some(left) = timeout.checked_sub(start.elapsed()) else { break };
            self.wait(left)?;
            self.receive(|sequence| {
                let at = usize::from(sequence);
                if let (Some(time @ None), Some(Some(sent))) = (times.get_mut(at), sent.get(at)) {
                    *time = Some(sent.elapsed());
                    waiting -= 1;
                }
            })?;
        }
        Ok(times)
    }
}
