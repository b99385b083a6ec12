//! One connection, shared between the workers.
//!
//! # What a hit does
//! A cached answer holds a [`Guard`]: the connection and the [`Conn::version`] that the answer was made with. Whatever
//! could change what a later packet is told (the other side answered, mark or label were written, the connection
//! ended) raises the version, so one comparison says that the answer still holds. What every packet moves (the time
//! it was seen, TCP windows) lies in atomics beside it. So a hit takes no lock, and the two directions may be on
//! different workers.
//!
//! Everything else is done under the connection's own lock, by packets that no cache has an answer for.

use super::alg::Helper;
use super::packet::{Packet, Segment};
pub(crate) use super::plain::{PlainState, Seen};
use super::sctp::{SctpPacket, SctpState};
use super::shards::TwoKeyed;
use super::tcp::{TcpEnd, TcpState};
use super::timeouts::TimeoutClass;
use super::tuple::{Direction, Tuple};
use sluice_flows::Owner;
use sluice_flows::action::NatDirection;
use sluice_flows::field::{IP_PROTO_SCTP, IP_PROTO_TCP};
use sluice_flows::rule::Millis;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// No timeout is shorter, in milliseconds.
const SHORTEST: u64 = 1000;

/// What is known of the two ends beside their addresses.
#[derive(Debug)]
pub(crate) enum Protocol {
    /// TCP.
    Tcp(TcpState),
    /// SCTP.
    Sctp(SctpState),
    /// UDP, ICMP and everything without states of its own.
    Plain(PlainState),
}

impl Protocol {
    /// Of a connection that `packet` begins. With `liberal`, TCP sequence numbers are not looked at.
    pub(crate) fn begin(packet: &Packet<'_>, liberal: bool) -> Self {
        match (packet.tuple.proto, &packet.segment) {
            (IP_PROTO_TCP, Some(Segment::Tcp(segment))) => {
                Self::Tcp(TcpState::begin(segment, packet.tcp_options(), liberal))
            }
            (IP_PROTO_SCTP, _) => SctpPacket::read(packet.message)
                .map_or_else(Self::default, |packet| Self::Sctp(SctpState::begin(&packet))),
            _ => Self::default(),
        }
    }
}

impl Default for Protocol {
    fn default() -> Self {
        Self::Plain(PlainState::default())
    }
}

/// What a packet is to a connection that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Update {
    /// It does not belong there.
    Invalid,
    /// It belongs to the beginning: the other side has not answered, or it is a SYN.
    New,
    /// It belongs to the connection.
    Valid,
    /// It belongs to the connection as well as one can tell, but does not keep it alive.
    Tolerated,
    /// It begins another connection in the place of this one, which is over.
    Replaced,
}

/// Packets and bytes of one direction. Credited in the background where caches answer.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) packets: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

/// What only changes under the connection's lock.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    pub(crate) mark: u32,
    pub(crate) label: u128,
    /// Who owns the rule that committed it or wrote mark or label last.
    pub(crate) owner: Option<Owner>,
}

/// A connection. What a hit looks at comes first, together.
#[derive(Debug)]
#[repr(C)]
pub struct Conn {
    version: AtomicU32,
    ended: AtomicBool,
    /// When the last valid packet was seen.
    seen: AtomicU64,
    pub(crate) protocol: Protocol,
    /// What packets of the original direction show on arrival.
    pub original: Tuple,
    /// What packets of the reply direction show on arrival: the original reversed, but for translated ends.
    pub reply: Tuple,
    /// When it was committed.
    pub created: Millis,
    /// The connection that it belongs to, as FTP's data to its commands.
    pub parent: Option<Arc<Conn>>,
    /// Which side of packets of the original direction is translated.
    pub nat: Option<NatDirection>,
    /// Who follows what it says, if it was committed with `alg`.
    pub(crate) helper: Option<Box<Helper>>,
    counts: [Counts; 2],
    marks: Mutex<Marks>,
}

impl Conn {
    pub(crate) fn new(
        original: Tuple,
        reply: Tuple,
        protocol: Protocol,
        parent: Option<Arc<Self>>,
        now: Millis,
    ) -> Self {
        Self {
            original,
            reply,
            created: now,
            parent,
            nat: None,
            protocol,
            helper: None,
            version: AtomicU32::new(0),
            ended: AtomicBool::new(false),
            seen: AtomicU64::new(now.0),
            counts: Default::default(),
            marks: Mutex::default(),
        }
    }

    /// The same with a helper.
    pub(crate) fn with_helper(self, helper: Option<Box<Helper>>) -> Self {
        Self { helper, ..self }
    }

    /// The same with a side of its original direction translated.
    pub(crate) fn with_nat(self, nat: Option<NatDirection>) -> Self {
        Self { nat, ..self }
    }

    /// Raised by everything that could change what a packet of this connection is told.
    #[inline]
    pub(crate) fn version(&self) -> u32 {
        self.version.load(Ordering::Acquire)
    }

    /// What was just changed makes cached answers void.
    pub(crate) fn changed(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Whether it is still in the table.
    pub fn is_alive(&self) -> bool {
        !self.ended.load(Ordering::Acquire)
    }

    /// It is not in the table any more. False if it was not before either. Only the table ends connections.
    pub(crate) fn end(&self) -> bool {
        let first = !self.ended.swap(true, Ordering::AcqRel);
        self.changed();
        first
    }

    /// When the last valid packet was seen.
    pub fn seen(&self) -> Millis {
        Millis(self.seen.load(Ordering::Relaxed))
    }

    /// A valid packet was seen. Written only when time has moved, so that workers do not take turns for it.
    #[inline]
    pub(crate) fn see(&self, now: Millis) {
        if self.seen.load(Ordering::Relaxed) != now.0 {
            self.seen.store(now.0, Ordering::Relaxed);
        }
    }

    /// What decides how long it lives without packets.
    #[inline]
    pub fn timeout_class(&self) -> TimeoutClass {
        match &self.protocol {
            Protocol::Tcp(tcp) => tcp.timeout_class(),
            Protocol::Sctp(sctp) => sctp.timeout_class(),
            Protocol::Plain(plain) => match (plain.get(), self.original.is_icmp()) {
                (Seen::Both, true) => TimeoutClass::IcmpReply,
                (_, true) => TimeoutClass::IcmpFirst,
                (Seen::First, false) => TimeoutClass::UdpFirst,
                (Seen::Multiple, false) => TimeoutClass::UdpSingle,
                (Seen::Both, false) => TimeoutClass::UdpMultiple,
            },
        }
    }

    /// What packets of `direction` show on arrival.
    pub const fn tuple(&self, direction: Direction) -> &Tuple {
        match direction {
            Direction::Original => &self.original,
            Direction::Reply => &self.reply,
        }
    }

    /// Packets and bytes of `direction` so far.
    pub fn counted(&self, direction: Direction) -> (u64, u64) {
        let counts = &self.counts[direction as usize];
        (counts.packets.load(Ordering::Relaxed), counts.bytes.load(Ordering::Relaxed))
    }

    /// Counts packets of `direction`.
    pub(crate) fn count(&self, direction: Direction, packets: u64, bytes: u64) {
        let counts = &self.counts[direction as usize];
        counts.packets.fetch_add(packets, Ordering::Relaxed);
        counts.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Mark, label and what else changes under the lock. Whoever changes what packets are told calls
    /// [`Self::changed`] before letting go.
    pub(crate) fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an answer that was made at `version` holds for a packet of `direction`. Changes nothing. After a pause as
    /// long as the shortest timeout it does not: the connection may have expired, which only the table can tell.
    #[inline]
    pub(crate) fn admits(&self, direction: Direction, version: u32, segment: Option<&Segment>, now: Millis) -> bool {
        self.version() == version
            && now.0.saturating_sub(self.seen.load(Ordering::Relaxed)) < SHORTEST
            && match (&self.protocol, segment) {
                (Protocol::Tcp(tcp), Some(Segment::Tcp(segment))) => tcp.admits(direction, segment),
                (Protocol::Sctp(sctp), Some(Segment::Sctp(tag))) => sctp.admits(direction, *tag),
                (Protocol::Plain(seen), _) => seen.admits(direction),
                _ => false,
            }
    }

    /// Takes in any packet, and what it does to the connection's state. Also whether it is what makes the connection
    /// [answered](Self::is_answered). Counting it and [`Self::see`] are left. With `liberal`, TCP sequence numbers are
    /// not looked at, from now on.
    pub(crate) fn update(&self, direction: Direction, packet: &Packet<'_>, liberal: bool) -> (Update, bool) {
        let _lock = self.marks();
        let answered = self.is_answered();
        let update = match (&self.protocol, &packet.segment) {
            (Protocol::Tcp(tcp), Some(Segment::Tcp(segment))) => {
                tcp.liberal.store(liberal, Ordering::Relaxed);
                tcp.update(direction, segment, packet.tcp_options())
            }
            (Protocol::Sctp(sctp), _) => match SctpPacket::read(packet.message) {
                Some(packet) => sctp.update(direction, &packet),
                None => Update::Invalid,
            },
            (Protocol::Plain(seen), _) => seen.update(direction),
            (Protocol::Tcp(_), _) => Update::Invalid,
        };
        let answers = !answered && self.is_answered();
        if answers {
            self.changed();
        }
        (update, answers)
    }

    /// Whether the other side has answered. Of TCP: both ends are established, or were.
    pub(crate) fn is_answered(&self) -> bool {
        match &self.protocol {
            Protocol::Tcp(tcp) => tcp.ends.iter().all(|end| end.state() >= TcpEnd::Established),
            Protocol::Sctp(sctp) => sctp.is_replied(),
            Protocol::Plain(seen) => seen.get() == Seen::Both,
        }
    }

    /// What a packet that was admitted is to the connection.
    pub(crate) fn settled(&self) -> Update {
        if self.is_answered() { Update::Valid } else { Update::New }
    }

    /// Takes in a packet that was admitted.
    #[inline]
    pub(crate) fn pass(&self, direction: Direction, segment: Option<&Segment>, now: Millis) {
        self.see(now);
        if let (Protocol::Tcp(tcp), Some(Segment::Tcp(segment))) = (&self.protocol, segment) {
            tcp.advance(direction, segment);
        }
    }
}

impl Guard {
    /// Whether nothing has changed what packets of the connection are told.
    pub(crate) fn is_current(&self) -> bool {
        self.conn.version() == self.version
    }
}

impl TwoKeyed for Conn {
    #[inline]
    fn tuple(&self, direction: Direction) -> &Tuple {
        self.tuple(direction)
    }

    #[inline]
    fn is_alive(&self) -> bool {
        self.is_alive()
    }

    fn end(&self) -> bool {
        self.end()
    }
}

/// What must hold for a cached answer to be used.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    pub(crate) conn: Arc<Conn>,
    pub(crate) direction: Direction,
    /// [`Conn::version`] when the answer was made.
    pub(crate) version: u32,
}
