//! SCTP (RFC 9260): the state of an association, and the verification tags that its packets must carry.
//!
//! Each end chooses the tag that packets towards it carry, and says it in its INIT or INIT ACK. Tags count from the
//! COOKIE ECHO on, which proves that both ends have them; so a restarted end (RFC 9260, 5.2) takes an association over
//! with the handshake's packets in order, and a forged INIT does no harm to one that is established.
//!
//! # Sharing
//! Data, acknowledgements, heartbeats and what else moves no state of an established association are admitted by their
//! tag, without the connection's lock ([`SctpState::admits`]). Everything else goes through [`SctpState::update`] under
//! the lock.
//!
//! # Choices
//! - The states are those of the Linux kernel's tracker. An INIT begins an association, and so does a HEARTBEAT: one
//!   that was not seen from its start (a second path above all) is picked up with it. Other packets are invalid then.
//! - A packet is valid if all of its chunks are. Chunks of unknown types count as data.
//! - Open vSwitch 3.1 has no states for SCTP, and tells its connections apart by addresses only.

use super::conn::Update;
use super::timeouts::TimeoutClass;
use super::tuple::Direction;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

#[cfg(test)]
mod tests;

/// Length of the common header.
pub(crate) const HEADER_LEN: usize = 12;
/// Length of a chunk header.
const CHUNK_LEN: usize = 4;
/// Length of INIT and INIT ACK without their options.
const INIT_LEN: usize = 20;

/// Chunk types (RFC 9260, 3.2).
mod kind {
    pub(super) const INIT: u8 = 1;
    pub(super) const INIT_ACK: u8 = 2;
    pub(super) const HEARTBEAT: u8 = 4;
    pub(super) const ABORT: u8 = 6;
    pub(super) const SHUTDOWN: u8 = 7;
    pub(super) const SHUTDOWN_ACK: u8 = 8;
    pub(super) const COOKIE_ECHO: u8 = 10;
    pub(super) const COOKIE_ACK: u8 = 11;
    pub(super) const SHUTDOWN_COMPLETE: u8 = 14;
}

/// Flag of ABORT and SHUTDOWN COMPLETE: the tag is the one of the packet that is answered (RFC 9260, 3.3.7).
const REFLECTED: u8 = 1;

/// A chunk, as far as the tracker looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chunk {
    kind: u8,
    flags: u8,
    /// The tag that an INIT or INIT ACK announces; 0 for other chunks.
    announced: u32,
}

/// What the tracker reads of an SCTP packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SctpPacket<'a> {
    /// The verification tag.
    tag: u32,
    chunks: &'a [u8],
}

impl<'a> SctpPacket<'a> {
    /// Of a packet whose common header is at the start of `bytes`, and whose last chunk is at the end. `None` if it is
    /// shorter than the header.
    #[inline]
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let (header, chunks) = bytes.split_first_chunk::<HEADER_LEN>()?;
        Some(Self { tag: u32::from_be_bytes([header[4], header[5], header[6], header[7]]), chunks })
    }

    /// The verification tag, if the packet has only chunks that move no state.
    #[inline]
    pub(crate) fn plain_tag(&self) -> Option<u32> {
        let mut plain = !self.chunks.is_empty();
        for chunk in Chunks(self.chunks) {
            plain &= is_plain(chunk?.kind);
        }
        plain.then_some(self.tag)
    }

    /// Whether its chunks have lengths that fit, and those that have to be alone are.
    pub(crate) fn is_sound(&self) -> bool {
        let (mut count, mut alone) = (0, false);
        for chunk in Chunks(self.chunks) {
            let Some(chunk) = chunk else { return false };
            alone |= matches!(chunk.kind, kind::INIT | kind::INIT_ACK | kind::SHUTDOWN_COMPLETE);
            count += 1;
        }
        count == 1 || count > 1 && !alone
    }

    /// Whether it may begin an association.
    pub(crate) fn may_begin(&self) -> bool {
        self.is_sound() && Known::begun_by(self).is_some()
    }
}

/// Chunks from first to last; `None` at the end if one has no sound length. Each takes at least four bytes, which bounds
/// the walk. The padding of the last one may be missing.
struct Chunks<'a>(&'a [u8]);

impl Iterator for Chunks<'_> {
    type Item = Option<Chunk>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.0);
        let Some(&[kind, flags, high, low]) = rest.first_chunk::<CHUNK_LEN>() else {
            return Some(None);
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        if len < CHUNK_LEN || len > rest.len() {
            return Some(None);
        }
        self.0 = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        let announced = match (kind, rest[..len].get(CHUNK_LEN..INIT_LEN)) {
            (kind::INIT | kind::INIT_ACK, Some(&[a, b, c, d, ..])) => u32::from_be_bytes([a, b, c, d]),
            _ => 0,
        };
        Some(Some(Chunk { kind, flags, announced }))
    }
}

/// Whether a chunk moves no state of an established association.
const fn is_plain(kind: u8) -> bool {
    use kind::*;
    !matches!(kind, INIT | INIT_ACK | ABORT | SHUTDOWN | SHUTDOWN_ACK | COOKIE_ECHO | COOKIE_ACK | SHUTDOWN_COMPLETE)
}

/// State of an association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Association {
    /// It was aborted, or shut down.
    Closed = 0,
    /// INIT was seen.
    CookieWait = 1,
    /// COOKIE ECHO was seen.
    CookieEchoed = 2,
    /// COOKIE ACK was seen.
    Established = 3,
    /// SHUTDOWN was seen, from the end that began.
    ShutdownSent = 4,
    /// SHUTDOWN was seen, from the other end.
    ShutdownReceived = 5,
    /// SHUTDOWN ACK was seen.
    ShutdownAckSent = 6,
    /// It was picked up with a HEARTBEAT that was not answered yet.
    HeartbeatSent = 7,
}

impl Association {
    const fn of(number: u8) -> Self {
        match number {
            1 => Self::CookieWait,
            2 => Self::CookieEchoed,
            3 => Self::Established,
            4 => Self::ShutdownSent,
            5 => Self::ShutdownReceived,
            6 => Self::ShutdownAckSent,
            7 => Self::HeartbeatSent,
            _ => Self::Closed,
        }
    }
}

/// What is known of an association.
#[derive(Debug)]
pub(crate) struct SctpState {
    association: AtomicU8,
    /// By direction: the tag that its packets carry; 0 if it is not known.
    tags: [AtomicU32; 2],
    /// By direction: the tag that was announced for its packets in a handshake.
    announced: [AtomicU32; 2],
    /// The other side has answered.
    replied: AtomicBool,
}

/// A copy of [`SctpState`], on which the chunks of a packet are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    association: Association,
    tags: [u32; 2],
    announced: [u32; 2],
}

impl SctpState {
    /// An association that `packet` begins. One that it cannot begin is closed.
    pub(crate) fn begin(packet: &SctpPacket<'_>) -> Self {
        let known = Known::begun_by(packet).unwrap_or(Known::NONE);
        Self {
            association: AtomicU8::new(known.association as u8),
            tags: known.tags.map(AtomicU32::new),
            announced: known.announced.map(AtomicU32::new),
            replied: AtomicBool::new(false),
        }
    }

    /// The tags of an association that is established, by direction.
    pub(super) fn kept(&self) -> Option<[u32; 2]> {
        let is_established = self.association() == Association::Established && self.is_replied();
        is_established.then(|| self.known().tags)
    }

    /// An established association with these tags.
    pub(super) fn resumed(tags: [u32; 2]) -> Self {
        Self {
            association: AtomicU8::new(Association::Established as u8),
            tags: tags.map(AtomicU32::new),
            announced: Default::default(),
            replied: AtomicBool::new(true),
        }
    }

    /// Whether a packet with this tag and no chunk that moves a state belongs to the association, which is established.
    #[inline]
    pub(crate) fn admits(&self, direction: Direction, tag: u32) -> bool {
        self.association.load(Ordering::Relaxed) == Association::Established as u8
            && self.tags[direction as usize].load(Ordering::Relaxed) == tag
            && self.is_replied()
    }

    /// Takes in any packet of an association that is known. To be called under the connection's lock.
    pub(crate) fn update(&self, direction: Direction, packet: &SctpPacket<'_>) -> Update {
        let mut known = self.known();
        if !packet.is_sound() {
            return Update::Invalid;
        }
        for chunk in Chunks(packet.chunks).flatten() {
            if chunk.kind == kind::INIT && known.association == Association::Closed {
                return if packet.may_begin() { Update::Replaced } else { Update::Invalid };
            }
            if !known.take(direction, packet.tag, chunk) {
                return Update::Invalid;
            }
        }
        let was_closed = known.association == Association::Closed && self.association() == Association::Closed;
        self.set(&known);
        if direction == Direction::Reply {
            self.replied.store(true, Ordering::Relaxed);
        }
        match self.is_replied() {
            _ if was_closed => Update::Tolerated,
            true => Update::Valid,
            false => Update::New,
        }
    }

    /// What decides how long the connection lives without packets.
    pub(crate) fn timeout_class(&self) -> TimeoutClass {
        match self.association() {
            Association::Closed => TimeoutClass::SctpClosed,
            Association::CookieWait => TimeoutClass::SctpCookieWait,
            Association::CookieEchoed => TimeoutClass::SctpCookieEchoed,
            Association::Established => TimeoutClass::SctpEstablished,
            Association::ShutdownSent => TimeoutClass::SctpShutdownSent,
            Association::ShutdownReceived => TimeoutClass::SctpShutdownRecd,
            Association::ShutdownAckSent => TimeoutClass::SctpShutdownAckSent,
            Association::HeartbeatSent => TimeoutClass::SctpHeartbeatSent,
        }
    }

    /// The state.
    #[inline]
    pub(crate) fn association(&self) -> Association {
        Association::of(self.association.load(Ordering::Relaxed))
    }

    /// Whether the other side has answered.
    #[inline]
    pub(crate) fn is_replied(&self) -> bool {
        self.replied.load(Ordering::Relaxed)
    }

    fn known(&self) -> Known {
        let read = |tags: &[AtomicU32; 2]| [tags[0].load(Ordering::Relaxed), tags[1].load(Ordering::Relaxed)];
        Known { association: self.association(), tags: read(&self.tags), announced: read(&self.announced) }
    }

    fn set(&self, known: &Known) {
        for direction in 0..2 {
            self.tags[direction].store(known.tags[direction], Ordering::Relaxed);
            self.announced[direction].store(known.announced[direction], Ordering::Relaxed);
        }
        self.association.store(known.association as u8, Ordering::Relaxed);
    }
}

impl Known {
    const NONE: Self = Self { association: Association::Closed, tags: [0; 2], announced: [0; 2] };

    /// What a packet of the original direction says that begins an association.
    fn begun_by(packet: &SctpPacket<'_>) -> Option<Self> {
        let mut plain = true;
        let mut heartbeat = false;
        for chunk in Chunks(packet.chunks).flatten() {
            if chunk.kind == kind::INIT {
                let begun =
                    Self { association: Association::CookieWait, announced: [0, chunk.announced], ..Self::NONE };
                return (packet.tag == 0 && chunk.announced != 0).then_some(begun);
            }
            plain &= is_plain(chunk.kind);
            heartbeat |= chunk.kind == kind::HEARTBEAT;
        }
        let begun = Self { association: Association::HeartbeatSent, tags: [packet.tag, 0], ..Self::NONE };
        (plain && heartbeat && packet.tag != 0).then_some(begun)
    }

    /// Takes in a chunk of a packet with this tag. False if it does not belong to the association.
    fn take(&mut self, direction: Direction, tag: u32, chunk: Chunk) -> bool {
        use Association::*;
        let (own, other) = (direction as usize, direction.opposite() as usize);
        // The tag of the end that is being asked, as it is or as a handshake is about to make it.
        let matches = |end: usize| tag != 0 && (tag == self.tags[end] || tag == self.announced[end]);
        let settled = tag != 0 && tag == self.tags[own];
        match chunk.kind {
            kind::INIT => {
                let sound = tag == 0 && chunk.announced != 0;
                if sound {
                    self.announced[other] = chunk.announced;
                    if self.association == HeartbeatSent {
                        self.association = CookieWait;
                    }
                }
                sound
            }
            kind::INIT_ACK => {
                let sound = tag != 0 && tag == self.announced[own] && chunk.announced != 0;
                if sound {
                    self.announced[other] = chunk.announced;
                }
                sound
            }
            kind::COOKIE_ECHO => self.cookie_echo(own, other, tag),
            kind::COOKIE_ACK => {
                if settled && self.association == CookieEchoed {
                    self.association = Established;
                }
                settled
            }
            kind::ABORT | kind::SHUTDOWN_COMPLETE => {
                let sound = matches(own) || chunk.flags & REFLECTED != 0 && matches(other);
                if sound && (chunk.kind == kind::ABORT || self.association == ShutdownAckSent) {
                    self.association = Closed;
                }
                sound
            }
            kind::SHUTDOWN | kind::SHUTDOWN_ACK => {
                if settled {
                    self.association = shutting_down(self.association, direction, chunk.kind);
                }
                settled
            }
            _ => self.plain(own, tag),
        }
    }

    /// The COOKIE ECHO proves that its sender has the tags of the handshake: from here on they count.
    fn cookie_echo(&mut self, own: usize, other: usize, tag: u32) -> bool {
        if tag == 0 || self.announced[own] != tag || self.announced[other] == 0 {
            return false;
        }
        self.tags = self.announced;
        if self.association == Association::CookieWait {
            self.association = Association::CookieEchoed;
        }
        true
    }

    /// Data and the like.
    fn plain(&mut self, own: usize, tag: u32) -> bool {
        if self.association == Association::HeartbeatSent && own == Direction::Reply as usize {
            // What answers tells the tag that the first packet could not know.
            self.tags[own] = tag;
            self.association = Association::Established;
        }
        tag != 0 && tag == self.tags[own]
    }
}

/// The state after SHUTDOWN or SHUTDOWN ACK.
const fn shutting_down(association: Association, direction: Direction, chunk: u8) -> Association {
    use Association::*;
    match (association, chunk, direction) {
        (Established | CookieEchoed, kind::SHUTDOWN, Direction::Original) => ShutdownSent,
        (Established | CookieEchoed, kind::SHUTDOWN, Direction::Reply) => ShutdownReceived,
        (ShutdownSent | ShutdownReceived, kind::SHUTDOWN_ACK, _) => ShutdownAckSent,
        (other, ..) => other,
    }
}
