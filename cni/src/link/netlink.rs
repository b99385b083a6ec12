//! A blocking netlink socket that sends several requests at once.
//!
//! One datagram holds as many requests as the kernel's answers leave room for: it does them all, in order, before `send`
//! returns. That makes an interface of ten routes two system calls and not forty; and a process that is killed was killed
//! before all of them or after.
//!
//! The crates' own messages are used, but no async connection on top of them: nothing here waits for anything but the
//! kernel, which answers within the call.
//!
//! # Rules
//! The kernel goes on with the next request of a datagram when one fails, so a batch must be harmless after each of its
//! failures: it only says what failed first.

use super::error::LinkError;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use std::io;

/// Requests in one datagram: each answer takes about 1 KiB of the socket's receive buffer, which has 208 KiB.
const BATCH: usize = 64;
/// The kernel's longest answer datagram is 32 KiB.
const ANSWER: usize = 64 << 10;
/// How often a list is asked for again that changed while it was read.
const RETRIES: usize = 8;

/// A request and what it does, in words that go after "cannot".
pub(super) struct Request {
    message: RouteNetlinkMessage,
    flags: u16,
    what: String,
}

impl Request {
    pub(super) fn new(message: RouteNetlinkMessage, flags: u16, what: impl Into<String>) -> Self {
        Self { message, flags, what: what.into() }
    }
}

/// A routing socket in the namespace of the thread that opened it; it stays there when the thread moves on.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
    place: String,
    answer: Vec<u8>,
}

impl Netlink {
    /// Opens a socket in the calling thread's namespace, which errors call `place`.
    pub(super) fn open(place: impl Into<String>) -> Result<Self, LinkError> {
        let place = place.into();
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // Answers then carry only the header of the request they refuse.
            socket.set_cap_ack(true)?;
            // Lists then are of what was asked for. Linux before 4.20 gives more, which callers bear.
            _ = socket.set_netlink_get_strict_chk(true);
            Ok(socket)
        };
        match open() {
            Ok(socket) => Ok(Self { socket, sequence: 0, place, answer: Vec::with_capacity(ANSWER) }),
            Err(error) => Err(LinkError::kernel("open a netlink socket", place, error)),
        }
    }

    /// Does the requests in order; the first that fails is the error.
    pub(super) fn batch(&mut self, requests: Vec<Request>) -> Result<(), LinkError> {
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let some: Vec<Request> = requests.by_ref().take(BATCH).collect();
            self.send_batch(some)?;
        }
        Ok(())
    }

    /// Does one request.
    pub(super) fn one(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        what: impl Into<String>,
    ) -> Result<(), LinkError> {
        self.send_batch(vec![Request::new(message, flags, what)])
    }

    fn send_batch(&mut self, requests: Vec<Request>) -> Result<(), LinkError> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::with_capacity(requests.len() * 128);
        let mut whats = Vec::with_capacity(requests.len());
        for Request { message, flags, what } in requests {
            self.append(&mut bytes, message, NLM_F_ACK | flags);
            whats.push(what);
        }
        let mut failed: Option<(usize, io::Error)> = None;
        let mut answered = 0;
        let sent = self.socket.send(&bytes, 0);
        let mut outcome = sent.map(|_| ());
        while outcome.is_ok() && answered < whats.len() {
            outcome = self.receive(|message| {
                let at = message.header.sequence_number.wrapping_sub(first) as usize;
                let NetlinkPayload::Error(error) = message.payload else { return };
                if at < whats.len() {
                    answered += 1;
                    if error.code.is_some() && failed.is_none() {
                        failed = Some((at, error.to_io()));
                    }
                }
            });
        }
        let what = |at: usize| whats.get(at).cloned().unwrap_or_default();
        match (failed, outcome) {
            (Some((at, error)), _) => Err(LinkError::kernel(what(at), &self.place, error)),
            (None, Err(error)) => Err(LinkError::kernel(what(0), &self.place, error)),
            (None, Ok(())) => Ok(()),
        }
    }

    /// Asks for one thing; `None` when the kernel says that there is no such device.
    pub(super) fn get(
        &mut self,
        message: RouteNetlinkMessage,
        what: impl Into<String>,
    ) -> Result<Option<RouteNetlinkMessage>, LinkError> {
        let mut bytes = Vec::with_capacity(128);
        self.append(&mut bytes, message, 0);
        let sequence = self.sequence;
        let mut answer = None;
        let mut outcome = self.socket.send(&bytes, 0).map(|_| ());
        while outcome.is_ok() && answer.is_none() {
            outcome = self.receive(|message| {
                if message.header.sequence_number != sequence {
                    return;
                }
                answer = match message.payload {
                    NetlinkPayload::Error(error) if error.code.is_some() => Some(Err(error.to_io())),
                    NetlinkPayload::InnerMessage(message) => Some(Ok(message)),
                    _ => answer.take(),
                };
            });
        }
        match (answer, outcome) {
            (Some(Ok(message)), _) => Ok(Some(message)),
            (Some(Err(error)), _) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            (Some(Err(error)), _) | (None, Err(error)) => Err(LinkError::kernel(what, &self.place, error)),
            (None, Ok(())) => Ok(None),
        }
    }

    /// Asks for all of something, and gives each to `take`. When the list changed while it was read, some are given again.
    pub(super) fn dump(
        &mut self,
        message: &RouteNetlinkMessage,
        what: &str,
        mut take: impl FnMut(RouteNetlinkMessage),
    ) -> Result<(), LinkError> {
        for _ in 0..RETRIES {
            let whole = self.dump_once(message.clone(), &mut take);
            if whole.map_err(|error| LinkError::kernel(what, &self.place, error))? {
                break;
            }
        }
        Ok(())
    }

    /// Whether the list was whole: it may have changed under the reader.
    fn dump_once(
        &mut self,
        message: RouteNetlinkMessage,
        take: &mut impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<bool> {
        /// `NLM_F_DUMP_INTR` (linux/netlink.h).
        const INTERRUPTED: u16 = 0x10;
        let mut bytes = Vec::with_capacity(128);
        self.append(&mut bytes, message, NLM_F_DUMP);
        let sequence = self.sequence;
        self.socket.send(&bytes, 0)?;
        let (mut done, mut whole, mut failed) = (false, true, None);
        while !done {
            self.receive(|message| {
                if message.header.sequence_number != sequence {
                    return;
                }
                whole &= message.header.flags & INTERRUPTED == 0;
                match message.payload {
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        failed = Some(error.to_io());
                        done = true;
                    }
                    NetlinkPayload::Done(_) => done = true,
                    NetlinkPayload::InnerMessage(message) => take(message),
                    _ => {}
                }
            })?;
        }
        failed.map_or(Ok(whole), Err)
    }

    /// Receives one datagram and gives each message of it to `take`.
    fn receive(&mut self, mut take: impl FnMut(NetlinkMessage<RouteNetlinkMessage>)) -> io::Result<()> {
        self.answer.clear();
        while let Err(error) = self.socket.recv(&mut self.answer, 0) {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        let mut rest = &self.answer[..];
        while let Some(len) = rest.first_chunk::<4>().map(|len| u32::from_ne_bytes(*len) as usize) {
            // A message is padded to four bytes; one that is shorter than its header would have this go on for ever.
            let end = len.max(16).next_multiple_of(4).min(rest.len());
            let (message, after) = rest.split_at(end);
            // What the crate cannot read (an attribute that a later kernel has changed) is as if it had not come, except
            // that answers to requests are always readable.
            if let Ok(message) = NetlinkMessage::deserialize(message) {
                take(message);
            }
            rest = after;
        }
        Ok(())
    }

    fn append(&mut self, bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.sequence_number = self.sequence;
        header.flags = NLM_F_REQUEST | flags;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let at = bytes.len();
        bytes.resize(at + request.buffer_len().next_multiple_of(4), 0);
        request.serialize(&mut bytes[at..]);
    }
}
