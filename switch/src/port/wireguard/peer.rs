//! A peer: who it is, where it is, and the sessions with it. No sockets and no clock but the library's own.
//!
//! # Keys that change
//! A [`Link`] is one pair of static keys: this end's and the peer's. When either changes, a new link is made and the
//! old one goes on, sending and receiving, until the new one has a session; [`GRACE`] longer for packets on their way,
//! and never longer than [`OVERLAP`]. So both ends can be told of a new key one after the other without a packet lost.

use super::identity::Identity;
use super::key::PublicKey;
use boringtun::noise::errors::WireGuardError;
use boringtun::noise::{Tunn, TunnResult};
use sluice_flows::DropReason;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long keys that were replaced work on, while the new ones have no session: no session lives longer.
pub(super) const OVERLAP: Duration = Duration::from_secs(180);
/// How long they work on when the new ones have a session.
pub(super) const GRACE: Duration = Duration::from_secs(10);
/// Packets that wait for the first session; the library keeps as many.
const MAX_WAITING: usize = 256;
/// Bytes that a data message is longer than the packet in it.
pub(super) const OVERHEAD: usize = 32;
/// Room that every message needs which is not data.
pub(super) const HANDSHAKE_ROOM: usize = 148;
/// The message types (WireGuard, 5.4).
pub(super) const INITIATION: u8 = 1;
pub(super) const RESPONSE: u8 = 2;
pub(super) const COOKIE: u8 = 3;
pub(super) const DATA: u8 = 4;
/// Counters from here on are refused (`REJECT_AFTER_MESSAGES`): no honest sender gets there, and the library's
/// arithmetic is not made for more.
const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// A peer.
pub(super) struct Peer {
    /// Its name in the options.
    pub(super) name: Arc<str>,
    /// Its number, `tun_id` of packets from it; from 1 on.
    pub(super) number: u32,
    state: Mutex<PeerState>,
}

/// What of a peer changes with every packet.
pub(super) struct PeerState {
    current: Link,
    previous: Option<(Link, Instant)>,
    /// Where it is, as far as known.
    pub(super) endpoint: Option<SocketAddr>,
    /// Packets that wait for a session.
    waiting: usize,
    /// Totals: bytes of packets received and sent.
    pub(super) rx_bytes: u64,
    pub(super) tx_bytes: u64,
}

/// The sessions under one pair of static keys.
pub(super) struct Link {
    tunn: Box<Tunn>,
    /// The upper 24 bits of the receiver indexes of its messages.
    index: u32,
    keys: LinkKeys,
    keepalive: u16,
    /// It has a session to send by.
    ready: bool,
}

/// What makes two links the same.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct LinkKeys {
    /// Which identity of this end.
    pub(super) identity: u64,
    /// The peer's.
    pub(super) public: PublicKey,
    /// The secret they share.
    pub(super) preshared: Option<[u8; 32]>,
}

/// What became of a packet to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sealed {
    /// A data message of this length.
    Data(usize),
    /// It waits for a session; a handshake message of this length (0 for none) is to be sent.
    Waits(usize),
    /// It was dropped; a handshake message as with [`Self::Waits`].
    Dropped(DropReason, usize),
}

/// What became of a message received.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// A packet of this length, the first byte of which says which IP version it is.
    Packet(usize),
    /// An answer of this length is to be sent back.
    Answer(usize),
    /// It was for the protocol alone.
    Nothing,
    /// It is not good.
    Dropped(DropReason),
}

impl Link {
    /// A link without a session. `index` is below 2^24 and unique in the port.
    pub(super) fn new(identity: &Identity, keys: LinkKeys, keepalive: u16, index: u32) -> Self {
        let tunn = Tunn::new(
            identity.private(),
            keys.public.to_x25519(),
            keys.preshared,
            (keepalive != 0).then_some(keepalive),
            index,
            Some(Arc::clone(&identity.limiter)),
        );
        Self { tunn: Box::new(tunn), index, keys, keepalive, ready: false }
    }
}

impl Peer {
    pub(super) fn new(name: &str, number: u32, link: Link, endpoint: Option<SocketAddr>) -> Self {
        let state = PeerState { current: link, previous: None, endpoint, waiting: 0, rx_bytes: 0, tx_bytes: 0 };
        Self { name: name.into(), number, state: Mutex::new(state) }
    }

    /// Takes hold of the peer for one packet. The lock costs some 20 ns beside the 700 ns or more of the packet's
    /// cryptography; the sessions, which count every packet, leave no other way.
    pub(super) fn lock(&self) -> MutexGuard<'_, PeerState> {
        // A session is never left half changed: at worst a packet is missing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PeerState {
    /// Receiver indexes and keys of the links.
    pub(super) fn links(&self) -> impl Iterator<Item = (u32, &LinkKeys)> {
        let previous = self.previous.as_ref().map(|(link, _)| link);
        std::iter::once(&self.current).chain(previous).map(|link| (link.index, &link.keys))
    }

    /// Whether the current link has these keys and this keepalive.
    pub(super) fn is(&self, keys: &LinkKeys, keepalive: u16) -> bool {
        self.current.keys == *keys && self.current.keepalive == keepalive
    }

    /// Puts a new link in the place of the current one, which goes on for a while if it has a session.
    pub(super) fn replace(&mut self, link: Link, now: Instant) {
        let old = std::mem::replace(&mut self.current, link);
        // What waited for a session of the old link has lost it with the link.
        self.waiting = 0;
        if old.ready {
            self.previous = Some((old, now + OVERLAP));
        }
    }

    /// Its public key.
    pub(super) const fn public_key(&self) -> PublicKey {
        self.current.keys.public
    }

    /// Time since the last handshake, of the link that is sent by; `None` before the first.
    pub(super) fn handshake_age(&self) -> Option<Duration> {
        let previous = self.previous.as_ref().and_then(|(link, _)| link.tunn.time_since_last_handshake());
        self.current.tunn.time_since_last_handshake().or(previous)
    }

    /// Encrypts a packet into `out`, which has room for it and [`OVERHEAD`], and for [`HANDSHAKE_ROOM`].
    pub(super) fn seal(&mut self, packet: &[u8], out: &mut [u8]) -> Sealed {
        if self.endpoint.is_none() {
            return Sealed::Dropped(DropReason::TunnelDown, 0);
        }
        let link = match &mut self.previous {
            Some((link, _)) if !self.current.ready && link.ready => link,
            _ => &mut self.current,
        };
        if !link.ready && self.waiting >= MAX_WAITING {
            let len = handshake(link.tunn.format_handshake_initiation(out, false));
            return Sealed::Dropped(DropReason::QueueFull, len);
        }
        match link.tunn.encapsulate(packet, out) {
            TunnResult::WriteToNetwork(message) if message.first() == Some(&DATA) => {
                link.ready = true;
                self.tx_bytes += packet.len() as u64;
                Sealed::Data(message.len())
            }
            TunnResult::WriteToNetwork(message) => {
                link.ready = false;
                self.waiting += 1;
                Sealed::Waits(message.len())
            }
            TunnResult::Done => {
                link.ready = false;
                self.waiting += 1;
                Sealed::Waits(0)
            }
            _ => Sealed::Dropped(DropReason::TunnelDown, 0),
        }
    }

    /// Handles a message for the link with this index, or an initiation of the peer with these keys, that came from
    /// `from`. `out` has room for the whole message, and for [`HANDSHAKE_ROOM`].
    pub(super) fn open(
        &mut self,
        to: To<'_>,
        from: SocketAddr,
        message: &[u8],
        out: &mut [u8],
        now: Instant,
    ) -> Opened {
        let is_current = to.is(&self.current);
        let link = match &mut self.previous {
            _ if is_current => &mut self.current,
            Some((link, _)) if to.is(link) => link,
            _ => return Opened::Dropped(DropReason::TunnelDown),
        };
        let kind = message.first().copied().unwrap_or(0);
        if kind == DATA && counter(message).is_none_or(|counter| counter >= REJECT_AFTER_MESSAGES) {
            return Opened::Dropped(DropReason::ParseError);
        }
        let opened = match link.tunn.decapsulate(Some(from.ip()), message, out) {
            TunnResult::Done => Opened::Nothing,
            TunnResult::WriteToNetwork(answer) if answer.first() == Some(&COOKIE) => {
                return Opened::Answer(answer.len());
            }
            TunnResult::WriteToNetwork(answer) => Opened::Answer(answer.len()),
            TunnResult::WriteToTunnelV4(packet, _) => Opened::Packet(packet.len()),
            TunnResult::WriteToTunnelV6(packet, _) => Opened::Packet(packet.len()),
            TunnResult::Err(error) => return Opened::Dropped(reason(&error)),
        };
        if kind == COOKIE {
            return opened;
        }
        // The message was the peer's own: that is where it is now.
        self.endpoint = Some(from);
        if kind != INITIATION {
            link.ready = true;
            if is_current && let Some((_, until)) = &mut self.previous {
                *until = (*until).min(now + GRACE);
            }
        }
        if let Opened::Packet(len) = opened {
            self.rx_bytes += len as u64;
        }
        opened
    }

    /// Encrypts one of the packets that waited for a session. Returns the message's length; `None` when none waits, or
    /// there still is no session.
    pub(super) fn release(&mut self, out: &mut [u8]) -> Option<usize> {
        if !self.current.ready || self.waiting == 0 {
            return None;
        }
        match self.current.tunn.decapsulate(None, &[], out) {
            TunnResult::WriteToNetwork(message) => {
                self.tx_bytes += message.len().saturating_sub(OVERHEAD) as u64;
                Some(message.len())
            }
            _ => {
                self.waiting = 0;
                None
            }
        }
    }

    /// Does what is due by now: handshakes, keepalives, and the end of old keys. Gives `send` every message. Call it
    /// several times a second.
    pub(super) fn tick(&mut self, now: Instant, out: &mut [u8], mut send: impl FnMut(&[u8], SocketAddr)) {
        if self.previous.as_ref().is_some_and(|(_, until)| *until <= now) {
            self.previous = None;
        }
        // A new link under the keys' overlap makes its session without waiting for traffic, and so does one that is to be
        // kept alive.
        let eager = self.endpoint.is_some() && (self.previous.is_some() || self.current.keepalive != 0);
        let mut lost = false;
        let previous = self.previous.as_mut().map(|(link, _)| (link, false));
        for (link, eager) in std::iter::once((&mut self.current, eager)).chain(previous) {
            let result = link.tunn.update_timers(out);
            let expired = matches!(result, TunnResult::Err(WireGuardError::ConnectionExpired));
            if let (TunnResult::WriteToNetwork(message), Some(to)) = (result, self.endpoint) {
                send(message, to);
            }
            link.ready = link.tunn.time_since_last_handshake().is_some();
            if eager
                && !link.ready
                && let TunnResult::WriteToNetwork(message) = link.tunn.format_handshake_initiation(out, false)
                && let Some(to) = self.endpoint
            {
                send(message, to);
            }
            lost |= expired;
        }
        if lost && !self.current.ready {
            self.waiting = 0;
        }
    }

    /// Makes a new session now, whatever the age of the one there is. Returns the length of the message to send.
    #[cfg(test)]
    pub(super) fn rekey(&mut self, out: &mut [u8]) -> usize {
        handshake(self.current.tunn.format_handshake_initiation(out, true))
    }
}

/// Which link a message is for.
#[derive(Clone, Copy)]
pub(super) enum To<'a> {
    /// The one with this index.
    Index(u32),
    /// The one of this identity and public key.
    Keys(u64, &'a PublicKey),
}

impl To<'_> {
    fn is(self, link: &Link) -> bool {
        match self {
            Self::Index(index) => link.index == index,
            Self::Keys(identity, public) => link.keys.identity == identity && link.keys.public == *public,
        }
    }
}

/// Length of a handshake message, 0 if none is due.
fn handshake(result: TunnResult<'_>) -> usize {
    if let TunnResult::WriteToNetwork(message) = result { message.len() } else { 0 }
}

/// The counter of a data message.
fn counter(message: &[u8]) -> Option<u64> {
    message.get(8..16)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// Why a message was dropped.
pub(super) fn reason(error: &WireGuardError) -> DropReason {
    match error {
        WireGuardError::NoCurrentSession | WireGuardError::WrongIndex | WireGuardError::ConnectionExpired => {
            DropReason::TunnelDown
        }
        WireGuardError::UnderLoad => DropReason::Overload,
        WireGuardError::IncorrectPacketLength
        | WireGuardError::InvalidPacket
        | WireGuardError::UnexpectedPacket
        | WireGuardError::WrongPacketType
        | WireGuardError::DestinationBufferTooSmall => DropReason::ParseError,
        // A tag that does not fit, a message that was here before, keys that are nobody's.
        _ => DropReason::Checksum,
    }
}

#[cfg(test)]
mod tests;
