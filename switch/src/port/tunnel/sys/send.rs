//! Sending bursts of messages, each gathered from pieces of frames and headers made for it.

use super::{CONTROL_WORDS, Name, Socket, check, name, put_control};
use std::io;
use std::marker::PhantomData;
use std::mem::size_of;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::ptr;

/// Messages in one burst.
pub(crate) const MESSAGES: usize = 32;
/// Pieces that the messages of a burst have together.
const PIECES: usize = 2048;
/// Pieces that one message can have (Linux's `UIO_MAXIOV`).
const MESSAGE_PIECES: usize = 1024;
/// Bytes of headers that a burst can have.
const HEADERS_SIZE: usize = 1 << 16;

/// What the kernel is told of a message beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Departure {
    /// Where it goes; the port is 0 for a raw socket.
    pub(crate) to: SocketAddr,
    /// The source address; the route's if `None`.
    pub(crate) local: Option<IpAddr>,
    /// TOS or traffic class.
    pub(crate) tos: u8,
    /// TTL or hop limit; the system's default if 0.
    pub(crate) ttl: u8,
}

/// The message headers of a burst, kept so that a burst allocates nothing.
///
/// The pointers in them are followed only by [`Batch::send`], while the borrows that a [`Batch`] stands for last.
pub(crate) struct Store {
    messages: Box<[libc::mmsghdr; MESSAGES]>,
    names: Box<[Name; MESSAGES]>,
    controls: Box<[[u64; CONTROL_WORDS]; MESSAGES]>,
    pieces: Box<[libc::iovec; PIECES]>,
    headers: Box<[u8]>,
}

// SAFETY: the pointers inside are followed only by `Batch::send`, whose batch has set them itself.
unsafe impl Send for Store {}

impl Store {
    pub(crate) fn new() -> Self {
        // SAFETY: mmsghdr, iovec and sockaddr_in6 are plain data, for which all zero bytes are valid.
        let (message, piece, name) = unsafe { (std::mem::zeroed(), std::mem::zeroed(), std::mem::zeroed()) };
        Self {
            messages: Box::new([message; MESSAGES]),
            names: Box::new([name; MESSAGES]),
            controls: Box::new([[0; CONTROL_WORDS]; MESSAGES]),
            pieces: Box::new([piece; PIECES]),
            headers: vec![0; HEADERS_SIZE].into_boxed_slice(),
        }
    }
}

/// Messages gathered to be sent by one socket; `'f` is how long the frames that they are gathered from stay.
pub(crate) struct Batch<'s, 'f> {
    store: &'s mut Store,
    messages: usize,
    pieces: usize,
    headers: usize,
    /// Pieces of the last message.
    open: usize,
    frames: PhantomData<&'f [u8]>,
}

impl<'s, 'f> Batch<'s, 'f> {
    pub(crate) fn new(store: &'s mut Store) -> Self {
        Self { store, messages: 0, pieces: 0, headers: 0, open: 0, frames: PhantomData }
    }

    /// Messages gathered.
    pub(crate) fn len(&self) -> usize {
        self.messages
    }

    /// Whether another message of this many pieces and bytes of headers has room.
    pub(crate) fn has_room(&self, pieces: usize, headers: usize) -> bool {
        self.messages < MESSAGES && self.pieces + pieces <= PIECES && self.headers + headers <= HEADERS_SIZE
    }

    /// Whether the last message can have this many pieces and bytes of headers more.
    pub(crate) fn can_grow(&self, pieces: usize, headers: usize) -> bool {
        self.open + pieces <= MESSAGE_PIECES && self.pieces + pieces <= PIECES && self.headers + headers <= HEADERS_SIZE
    }

    /// Begins a message; [`Self::has_room`] said that there is room.
    pub(crate) fn begin(&mut self, departure: &Departure) {
        let i = self.messages.min(MESSAGES - 1);
        let (address, address_len) = name(departure.to);
        self.store.names[i] = address;
        let mut control = [0; CONTROL_WORDS * 8];
        let control_len = write_controls(&mut control, departure);
        put_words(&mut self.store.controls[i], &control);
        let message = &mut self.store.messages[i].msg_hdr;
        message.msg_name = (&raw mut self.store.names[i]).cast();
        message.msg_namelen = address_len;
        message.msg_iov = (&raw mut self.store.pieces[self.pieces.min(PIECES - 1)]).cast();
        message.msg_iovlen = 0;
        message.msg_control =
            if control_len == 0 { ptr::null_mut() } else { self.store.controls[i].as_mut_ptr().cast() };
        message.msg_controllen = control_len as _;
        message.msg_flags = 0;
        self.messages = i + 1;
        self.open = 0;
    }

    /// Adds bytes of a frame to the last message.
    pub(crate) fn payload(&mut self, bytes: &'f [u8]) {
        if !bytes.is_empty() {
            self.piece(bytes.as_ptr(), bytes.len());
        }
    }

    /// Adds `len` bytes of header to the last message, to be written now; fewer if there is no room, which
    /// [`Self::has_room`] or [`Self::can_grow`] said there is.
    pub(crate) fn header(&mut self, len: usize) -> &mut [u8] {
        let start = self.headers;
        let end = (start + len).min(HEADERS_SIZE);
        self.headers = end;
        let at = self.store.headers[start..end].as_ptr();
        if end > start {
            self.piece(at, end - start);
        }
        &mut self.store.headers[start..end]
    }

    fn piece(&mut self, at: *const u8, len: usize) {
        let (Some(piece), Some(message)) =
            (self.store.pieces.get_mut(self.pieces), self.store.messages[..self.messages].last_mut())
        else {
            return;
        };
        *piece = libc::iovec { iov_base: at.cast_mut().cast(), iov_len: len };
        self.pieces += 1;
        self.open += 1;
        message.msg_hdr.msg_iovlen = self.open as _;
    }

    /// Has the kernel cut the last message into datagrams of `size` bytes.
    pub(crate) fn cut(&mut self, size: u16) {
        let i = self.messages.saturating_sub(1);
        let message = &mut self.store.messages[i].msg_hdr;
        let at = message.msg_controllen;
        let mut one = [0; 24];
        let len = put_control(&mut one, 0, libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
        put_words(&mut self.store.controls[i][at / 8..], &one[..len]);
        message.msg_control = self.store.controls[i].as_mut_ptr().cast();
        message.msg_controllen = (at + len) as _;
    }

    /// Sends the messages from number `first` on without waiting, and returns how many the kernel took: at least one.
    ///
    /// # Errors
    /// What stopped the first of them.
    pub(crate) fn send(&mut self, socket: &Socket, first: usize) -> io::Result<usize> {
        let messages = &mut self.store.messages[first.min(self.messages)..self.messages];
        let (at, count) = (messages.as_mut_ptr(), messages.len());
        // SAFETY: the messages point to names and controls in the store, and their pieces to headers in the store and to
        // frames, all of which are borrowed as long as this batch; sendmmsg only reads them.
        let sent = unsafe { libc::sendmmsg(socket.0.as_raw_fd(), at, count as _, libc::MSG_DONTWAIT as _) };
        check(sent)?;
        Ok(sent as usize)
    }

    /// Forgets every message.
    pub(crate) fn clear(&mut self) {
        (self.messages, self.pieces, self.headers, self.open) = (0, 0, 0, 0);
    }
}

fn put_words(to: &mut [u64], bytes: &[u8]) {
    for (to, from) in to.iter_mut().zip(bytes.as_chunks().0) {
        *to = u64::from_ne_bytes(*from);
    }
}

/// Writes the control messages for TOS, TTL and source, and returns their length.
fn write_controls(buffer: &mut [u8], departure: &Departure) -> usize {
    let v4 = departure.to.is_ipv4();
    let (tos, ttl) = (i32::from(departure.tos).to_ne_bytes(), i32::from(departure.ttl).to_ne_bytes());
    let (level, tos_kind, ttl_kind) = if v4 {
        (libc::IPPROTO_IP, libc::IP_TOS, libc::IP_TTL)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, libc::IPV6_HOPLIMIT)
    };
    let mut at = 0;
    if departure.tos != 0 {
        at = put_control(buffer, at, level, tos_kind, &tos);
    }
    if departure.ttl != 0 {
        at = put_control(buffer, at, level, ttl_kind, &ttl);
    }
    match departure.local {
        Some(IpAddr::V4(source)) if v4 => {
            let mut info = [0; size_of::<libc::in_pktinfo>()];
            info[4..8].copy_from_slice(&source.octets());
            put_control(buffer, at, level, libc::IP_PKTINFO, &info)
        }
        Some(IpAddr::V6(source)) if !v4 => {
            let mut info = [0; size_of::<libc::in6_pktinfo>()];
            info[..16].copy_from_slice(&source.octets());
            put_control(buffer, at, level, libc::IPV6_PKTINFO, &info)
        }
        _ => at,
    }
}
