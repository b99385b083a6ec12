//! Packet sequences of connections, for suites that put the same ones through two switches.
//!
//! A [`Packet`] says who sends what, and not the addresses: two switches may translate the same connection to different
//! ports, so each end answers to what it has seen. [`Views`] holds what the ends behind one switch have seen, and
//! renders packets accordingly. Everything prints as one line and reads back from it, so that failing sequences can
//! be kept as files.

use crate::generate::program::FlowLine;
use std::fmt::{self, Display};
use std::net::IpAddr;
use std::str::FromStr;

mod bytes;
mod judge;
mod make;
pub mod programs;
mod read;
mod scenario;
mod tcp;
mod tracked;
mod views;

pub use judge::{Difference, Judge, Known, Pair, Side, difference, mark, state_words};
pub use make::{Cast, sequence};
pub use read::{Headers, Reading};
pub use scenario::Scenario;
pub use tracked::{MONITOR, Out, PORTS, Tracked, deliver};
pub use views::Views;

/// TCP flags by their letters, lowest bit first.
const FLAGS: [char; 6] = ['F', 'S', 'R', 'P', 'A', 'U'];

/// An address and a port; of ICMP the port is the identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct End {
    /// The address.
    pub addr: IpAddr,
    /// The port.
    pub port: u16,
}

/// Two ends that talk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// IP protocol number.
    pub proto: u8,
    /// Who sends the first packet.
    pub opener: End,
    /// Whom it is sent to.
    pub answerer: End,
    /// The switch's port that the opener is behind.
    pub near: u16,
    /// The switch's port that the answerer is behind.
    pub far: u16,
}

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The conversation, by its place in the list.
    pub conversation: usize,
    /// It is the answerer who sends it.
    pub reply: bool,
    /// What is in it.
    pub body: Body,
    /// Its transport checksum.
    pub sum: Sum,
    /// The part of it that is sent; all if `None`.
    pub piece: Option<Piece>,
}

/// What is in a packet. `len` is the payload in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of the headers")]
pub enum Body {
    Tcp {
        flags: u8,
        seq: u32,
        ack: u32,
        window: u16,
        len: u16,
        /// The window scale option.
        scale: Option<u8>,
    },
    Udp {
        len: u16,
    },
    Icmp {
        kind: u8,
        code: u8,
        seq: u16,
        len: u16,
    },
    /// An ICMP error.
    Error {
        kind: u8,
        code: u8,
        about: About,
        /// Bytes of the packet that it is about, from its IP header on.
        len: u16,
    },
    Sctp {
        chunk: u8,
        len: u16,
    },
    /// Whatever the protocol is: bytes without meaning.
    Plain {
        len: u16,
    },
}

/// The packet that an ICMP error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// The last that its sender has received.
    Last,
    /// The same, but the error comes from a router on its way.
    Transit,
    /// One that was never sent.
    Stranger,
}

/// A transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    /// The right one.
    Good,
    /// Zero: none, for UDP over IPv4.
    Zero,
    /// A wrong one.
    Bad,
}

/// A fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Identification.
    pub id: u16,
    /// First byte, a multiple of 8.
    pub offset: u16,
    /// Bytes.
    pub len: u16,
    /// More fragments follow.
    pub more: bool,
}

/// What happens next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A packet is sent.
    Send(Packet),
    /// Time passes, in milliseconds.
    Wait(u64),
    /// A flow is added, or takes the place of the one with its match.
    Flow(FlowLine),
    /// All connections are forgotten.
    Flush,
}

impl Display for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { proto, opener, answerer, near, far } = self;
        write!(f, "{proto} {} {} {} {} {near} {far}", opener.addr, opener.port, answerer.addr, answerer.port)
    }
}

impl FromStr for Conversation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<_> = text.split(' ').collect();
        let [proto, a, ap, b, bp, near, far] = words[..] else { return Err(format!("not seven words: {text}")) };
        let end = |addr, port| Ok::<_, String>(End { addr: number(addr)?, port: number(port)? });
        Ok(Self {
            proto: number(proto)?,
            opener: end(a, ap)?,
            answerer: end(b, bp)?,
            near: number(near)?,
            far: number(far)?,
        })
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("not understood: {text}"))
}

impl Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.conversation, if self.reply { '<' } else { '>' }, self.body)?;
        match self.sum {
            Sum::Good => {}
            Sum::Zero => f.write_str(" sum=zero")?,
            Sum::Bad => f.write_str(" sum=bad")?,
        }
        if let Some(Piece { id, offset, len, more }) = self.piece {
            write!(f, " piece={id}:{offset}:{len}:{}", u8::from(more))?;
        }
        Ok(())
    }
}

impl Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { flags, seq, ack, window, len, scale } => {
                let letters: String =
                    (0..).zip(FLAGS).filter(|(bit, _)| flags >> bit & 1 == 1).map(|(_, letter)| letter).collect();
                write!(f, "tcp flags={letters} seq={seq} ack={ack} win={window} len={len}")?;
                scale.map_or(Ok(()), |scale| write!(f, " scale={scale}"))
            }
            Self::Udp { len } => write!(f, "udp len={len}"),
            Self::Icmp { kind, code, seq, len } => write!(f, "icmp type={kind} code={code} seq={seq} len={len}"),
            Self::Error { kind, code, about, len } => {
                let about = match about {
                    About::Last => "last",
                    About::Transit => "transit",
                    About::Stranger => "stranger",
                };
                write!(f, "error type={kind} code={code} about={about} len={len}")
            }
            Self::Sctp { chunk, len } => write!(f, "sctp chunk={chunk} len={len}"),
            Self::Plain { len } => write!(f, "plain len={len}"),
        }
    }
}

/// Words such as `len=4`, looked up by name.
struct Words<'a>(Vec<(&'a str, &'a str)>);

impl Words<'_> {
    fn get<T: FromStr>(&self, name: &str) -> Result<T, String> {
        self.find(name)?.ok_or_else(|| format!("no {name}="))
    }

    fn find<T: FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| number(value)).transpose()
    }
}

impl FromStr for Packet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split(' ');
        let mut next = || words.next().ok_or_else(|| format!("too short: {text}"));
        let (conversation, arrow, kind) = (number(next()?)?, next()?, next()?);
        let words = Words(words.filter_map(|word| word.split_once('=')).collect());
        let piece = words.find::<String>("piece")?.map(|text| {
            let parts: Result<Vec<u16>, _> = text.split(':').map(number).collect();
            match parts?[..] {
                [id, offset, len, more] => Ok(Piece { id, offset, len, more: more != 0 }),
                _ => Err(format!("no piece: {text}")),
            }
        });
        let sum = match words.find::<String>("sum")?.as_deref() {
            None => Sum::Good,
            Some("zero") => Sum::Zero,
            Some("bad") => Sum::Bad,
            Some(other) => return Err(format!("no checksum: {other}")),
        };
        let body = body(kind, &words)?;
        Ok(Self { conversation, reply: arrow == "<", body, sum, piece: piece.transpose()? })
    }
}

fn body(kind: &str, words: &Words<'_>) -> Result<Body, String> {
    let len = words.get("len")?;
    Ok(match kind {
        "tcp" => {
            let letters: String = words.get("flags")?;
            let bits = (0..).zip(FLAGS).filter(|(_, letter)| letters.contains(*letter)).map(|(bit, _)| 1 << bit);
            Body::Tcp {
                flags: bits.sum(),
                seq: words.get("seq")?,
                ack: words.get("ack")?,
                window: words.get("win")?,
                len,
                scale: words.find("scale")?,
            }
        }
        "udp" => Body::Udp { len },
        "icmp" => Body::Icmp { kind: words.get("type")?, code: words.get("code")?, seq: words.get("seq")?, len },
        "error" => Body::Error {
            kind: words.get("type")?,
            code: words.get("code")?,
            about: match words.get::<String>("about")?.as_str() {
                "last" => About::Last,
                "transit" => About::Transit,
                _ => About::Stranger,
            },
            len,
        },
        "sctp" => Body::Sctp { chunk: words.get("chunk")?, len },
        "plain" => Body::Plain { len },
        _ => return Err(format!("unknown body: {kind}")),
    })
}

impl Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(packet) => write!(f, "send {packet}"),
            Self::Wait(millis) => write!(f, "wait {millis}"),
            Self::Flow(flow) => write!(f, "change {flow}"),
            Self::Flush => f.write_str("flush"),
        }
    }
}

impl FromStr for Event {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(' ') {
            Some(("send", packet)) => Ok(Self::Send(packet.parse()?)),
            Some(("wait", millis)) => Ok(Self::Wait(number(millis)?)),
            Some(("change", flow)) => Ok(Self::Flow(FlowLine::read(flow)?)),
            None if text == "flush" => Ok(Self::Flush),
            _ => Err(format!("no event: {text}")),
        }
    }
}

/// What happens at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Round {
    /// Packets, none of the same conversation, by their places in the list of events.
    Packets(Vec<(usize, Packet)>),
    /// Something else.
    Other(Event),
}

/// The number in the environment variable `name`, or `default` without one.
///
/// # Panics
/// If it is no number.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value}: no number")))
}

/// The addresses in `text`, with a space between them.
///
/// # Panics
/// If one is no address.
pub fn addresses(text: &str) -> Vec<IpAddr> {
    text.split(' ').map(|word| word.parse().expect("an address")).collect()
}

/// Groups events: as many packets as may go together, at most `most`.
pub fn rounds(events: &[Event], most: usize) -> Vec<Round> {
    let mut all: Vec<Round> = Vec::new();
    for (at, event) in events.iter().enumerate() {
        match (event, all.last_mut()) {
            (Event::Send(packet), Some(Round::Packets(together)))
                if together.len() < most && together.iter().all(|(_, p)| p.conversation != packet.conversation) =>
            {
                together.push((at, packet.clone()));
            }
            (Event::Send(packet), _) => all.push(Round::Packets(vec![(at, packet.clone())])),
            (other, _) => all.push(Round::Other(other.clone())),
        }
    }
    all
}
