//! One host's echo requests and their answers.

use super::Pair;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, recv, sendto, socket,
};
use sluice_flows::packet::checksum::checksum;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Requests that one host has outstanding.
const WINDOW: usize = 8;
/// Bytes of an echo request: header, and a payload as long as that of `ping`.
const REQUEST_LEN: usize = 64;

/// Sends requests from the network namespace that it was opened in.
pub(super) struct Pinger {
    /// For IPv4 and IPv6, where there is anybody to ask.
    sockets: [Option<OwnedFd>; 2],
    /// Oldest first.
    waiting: VecDeque<Request>,
    sequence: u16,
    timeout: Duration,
    id: u16,
}

/// A request that waits for its answer.
struct Request {
    sequence: u16,
    pair: usize,
    sent: Instant,
}

impl Pinger {
    /// Opens raw sockets for the versions of IP that are wanted (IPv4, IPv6), in the calling thread's namespace.
    pub(super) fn open(wanted: [bool; 2], timeout: Duration) -> io::Result<Self> {
        let open = |wanted: bool, family, protocol| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            wanted.then(|| socket(family, SockType::Raw, flags, protocol)).transpose()
        };
        let sockets = [
            open(wanted[0], AddressFamily::Inet, SockProtocol::Icmp)?,
            open(wanted[1], AddressFamily::Inet6, SockProtocol::IcmpV6)?,
        ];
        let id = std::process::id() as u16;
        Ok(Self { sockets, waiting: VecDeque::new(), sequence: 0, timeout, id })
    }

    /// Sends `count` requests for each pair and waits until every one is answered or lost.
    pub(super) fn run(&mut self, pairs: &mut [Pair], count: u16) -> io::Result<()> {
        let len = pairs.len();
        let mut plan = (0..count).flat_map(|_| 0..len).peekable();
        while plan.peek().is_some() || !self.waiting.is_empty() {
            while self.waiting.len() < WINDOW {
                let Some(pair) = plan.next() else { break };
                self.send(pairs, pair);
            }
            self.wait()?;
            while self.receive(pairs, 0)? || self.receive(pairs, 1)? {}
            let (now, timeout) = (Instant::now(), self.timeout);
            self.waiting.retain(|request| now.duration_since(request.sent) < timeout);
        }
        Ok(())
    }

    fn send(&mut self, pairs: &mut [Pair], at: usize) {
        let pair = &mut pairs[at];
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = [0; REQUEST_LEN];
        request[0] = if pair.address.is_ipv4() { 8 } else { 128 };
        request[4..6].copy_from_slice(&self.id.to_be_bytes());
        request[6..8].copy_from_slice(&self.sequence.to_be_bytes());
        pair.sent += 1;
        let now = Instant::now();
        let socket = self.sockets[usize::from(pair.address.is_ipv6())].as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let sent = match pair.address {
            IpAddr::V4(ip) => {
                let sum = checksum(&request);
                request[2..4].copy_from_slice(&sum.to_be_bytes());
                sendto(socket, &request, &SockaddrIn::from(SocketAddrV4::new(ip, 0)), MsgFlags::empty())
            }
            // The kernel fills in ICMPv6's checksum.
            IpAddr::V6(ip) => {
                sendto(socket, &request, &SockaddrIn6::from(SocketAddrV6::new(ip, 0, 0, 0)), MsgFlags::empty())
            }
        };
        match sent {
            Ok(_) => self.waiting.push_back(Request { sequence: self.sequence, pair: at, sent: now }),
            Err(errno) => pair.error = Some(errno.desc().to_owned()),
        }
    }

    /// Waits for an answer, or until the oldest request is lost.
    fn wait(&self) -> io::Result<()> {
        let Some(oldest) = self.waiting.front() else { return Ok(()) };
        let left = (oldest.sent + self.timeout).saturating_duration_since(Instant::now());
        let millis = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
        let open = self.sockets.iter().flatten();
        let mut fds: Vec<_> = open.map(|s| PollFd::new(s.as_fd(), PollFlags::POLLIN)).collect();
        match poll(&mut fds, PollTimeout::from(millis)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Takes one packet from a socket; returns whether there was one.
    fn receive(&mut self, pairs: &mut [Pair], version: usize) -> io::Result<bool> {
        let Some(socket) = &self.sockets[version] else { return Ok(false) };
        let mut buffer = [0; 2048];
        let len = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(len) => len,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(false),
            // What an ICMP error about an earlier request leaves behind.
            Err(Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        };
        let now = Instant::now();
        let packet = buffer.get(..len).unwrap_or_default();
        // A raw IPv4 socket gives the IP header too.
        let skip = if version == 0 { packet.first().map_or(0, |b| usize::from(b & 15) * 4) } else { 0 };
        let reply = if version == 0 { 0 } else { 129 };
        let Some((head, _)) = packet.get(skip..).and_then(|p| p.split_first_chunk::<8>()) else { return Ok(true) };
        let [kind, _, _, _, id_high, id_low, sequence_high, sequence_low] = *head;
        if kind == reply && u16::from_be_bytes([id_high, id_low]) == self.id {
            let sequence = u16::from_be_bytes([sequence_high, sequence_low]);
            let at = self.waiting.iter().position(|request| request.sequence == sequence);
            if let Some(request) = at.and_then(|at| self.waiting.remove(at)) {
                pairs[request.pair].answered(now.duration_since(request.sent));
            }
        }
        Ok(true)
    }
}
