//! Echo requests and replies (RFC 792; RFC 4443, 4).

use super::read::Datagram;
use super::{HOP_LIMIT, Icmp, Link, icmpv4, icmpv6, ipv4_header};
use std::net::IpAddr;

/// Types of requests and replies: ICMP, then ICMPv6.
const REQUEST: [u8; 2] = [8, 128];
const REPLY: [u8; 2] = [0, 129];

/// What an echo message is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::router) struct Echo {
    /// Who asks.
    pub(in crate::router) id: u16,
    /// Which of its questions.
    pub(in crate::router) sequence: u16,
}

impl Echo {
    fn of(word: [u8; 4]) -> Self {
        let [a, b, c, d] = word;
        Self { id: u16::from_be_bytes([a, b]), sequence: u16::from_be_bytes([c, d]) }
    }

    fn word(self) -> [u8; 4] {
        let ([a, b], [c, d]) = (self.id.to_be_bytes(), self.sequence.to_be_bytes());
        [a, b, c, d]
    }
}

/// An echo request. `None` if the addresses are not of one IP version.
pub(in crate::router) fn request(link: Link, src: IpAddr, dst: IpAddr, echo: Echo, payload: &[u8]) -> Option<Vec<u8>> {
    frame(link, (src, dst), REQUEST, echo.word(), payload)
}

/// The answer to an echo request, from `own`: the address that was asked, or one of ours if it was a group. `None` if it
/// is no sound request, or was not sent by a single node.
pub(in crate::router) fn reply(asked: &Datagram<'_>, own: IpAddr, link: Link) -> Option<Vec<u8>> {
    let message = asked.icmp()?;
    let is_request = message.kind == REQUEST[usize::from(asked.src.is_ipv6())] && message.code == 0;
    if !is_request || asked.src.is_unspecified() || asked.src.is_multicast() {
        return None;
    }
    frame(link, (own, asked.src), REPLY, message.word, message.body)
}

/// What an echo reply is known by; `None` if it is none.
pub(in crate::router) fn read_reply(answer: &Datagram<'_>) -> Option<Echo> {
    let message = answer.icmp()?;
    let is_reply = message.kind == REPLY[usize::from(answer.src.is_ipv6())] && message.code == 0;
    is_reply.then(|| Echo::of(message.word))
}

fn frame(link: Link, ends: (IpAddr, IpAddr), kinds: [u8; 2], word: [u8; 4], payload: &[u8]) -> Option<Vec<u8>> {
    let [v4, v6] = kinds.map(|kind| Icmp { kind, code: 0, word });
    let frame = match ends {
        (IpAddr::V4(src), IpAddr::V4(dst)) => icmpv4(link, ipv4_header((src, dst), 0, 0), v4, payload),
        (IpAddr::V6(src), IpAddr::V6(dst)) => icmpv6(link, (src, dst), HOP_LIMIT, v6, payload),
        _ => return None,
    };
    Some(frame).filter(|frame| !frame.is_empty())
}
