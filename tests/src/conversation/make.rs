//! Random conversations, and their packets in a random order.

use super::tcp::{self, Talk};
use super::{About, Body, Conversation, End, Event, Packet, Piece, Sum};
use crate::generate::pick;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt};
use std::net::IpAddr;

/// Milliseconds that pass: short times, and those around the timeouts of the protocols' states.
const WAITS: [u64; 12] = [1, 500, 5_000, 20_000, 29_999, 30_000, 30_001, 45_001, 60_000, 60_001, 900_001, 86_400_001];
/// The same where fragments may be waiting: they are not to grow too old, as what becomes of those is nobody's promise.
const SHORT_WAITS: [u64; 3] = [1, 100, 500];
/// Bytes of a fragment of a datagram that is sent in pieces, but for the last: what Open vSwitch takes.
const PIECE: u16 = 1_240;

/// Who may talk to whom.
#[derive(Clone, Debug)]
pub struct Cast {
    /// Addresses behind port 1, with those of one family first or not.
    pub near: Vec<IpAddr>,
    /// Addresses that they talk to.
    pub far: Vec<IpAddr>,
    /// IP protocols.
    pub protocols: Vec<u8>,
    /// Share of conversations that someone behind port 2 opens.
    pub inbound: f64,
    /// Share of packets that come in fragments.
    pub fragments: f64,
    /// Some fragments overlap. We give up their datagrams, Open vSwitch does not.
    pub overlaps: bool,
    /// Share of rounds after which time passes.
    pub waits: f64,
    /// ICMP errors may hold no more of TCP than the first 8 bytes, as routers of old send them. Open vSwitch 3.1 writes
    /// behind the end of such a packet when it translates it, and dies sooner or later.
    pub short_errors: bool,
    /// Packets of connections that are under way may have wrong checksums. We do not look, Open vSwitch does.
    pub late_bad_sums: bool,
}

impl Cast {
    /// As many conversations as `count`, of different ends.
    pub fn conversations(&self, rng: &mut StdRng, count: usize) -> Vec<Conversation> {
        let mut all: Vec<Conversation> = Vec::new();
        for _ in 0..count * 4 {
            if all.len() == count {
                break;
            }
            let made = self.conversation(rng, all.len() as u16);
            if !all.iter().any(|other| collides(other, &made)) {
                all.push(made);
            }
        }
        all
    }

    fn conversation(&self, rng: &mut StdRng, index: u16) -> Conversation {
        let near = pick(rng, &self.near);
        let v6 = near.is_ipv6();
        let far: Vec<_> = self.far.iter().copied().filter(|far| far.is_ipv6() == v6).collect();
        let far = pick(rng, &far);
        let proto = match (pick(rng, &self.protocols), v6) {
            (1, true) => 58,
            (58, false) => 1,
            (proto, _) => proto,
        };
        let (mut client, mut server) = match proto {
            // Each its own, so that what is translated to the same address does not meet there.
            6 | 17 | 132 => (index + pick(rng, &[1000, 40_000, 200, 700]), pick(rng, &[80, 53, 443, 8080])),
            _ => (0, 0),
        };
        if matches!(proto, 1 | 58) {
            client = rng.random_range(1..50);
            server = client;
        }
        let (a, b) = (End { addr: near, port: client }, End { addr: far, port: server });
        if rng.random_bool(self.inbound) {
            let (opener, answerer) = (End { addr: far, port: client }, End { addr: near, port: server });
            return Conversation { proto, opener, answerer, near: 2, far: 1 };
        }
        Conversation { proto, opener: a, answerer: b, near: 1, far: 2 }
    }
}

/// Whether a tracker could take one conversation for the other, or not tell them apart once they are translated.
fn collides(a: &Conversation, b: &Conversation) -> bool {
    a.proto == b.proto
        && match a.proto {
            6 | 17 => {
                let ends = [(a.opener, a.answerer), (a.answerer, a.opener)];
                ends.contains(&(b.opener, b.answerer))
            }
            1 | 58 => a.opener.port == b.opener.port,
            // Nothing but addresses, which may be translated to the same.
            _ => a.opener.addr.is_ipv6() == b.opener.addr.is_ipv6(),
        }
}

/// Packets of all conversations, about `most` of each, in an order that keeps that of each conversation.
pub fn sequence(rng: &mut StdRng, cast: &Cast, conversations: &[Conversation], most: usize) -> Vec<Event> {
    let mut queues: Vec<_> = (0..)
        .zip(conversations)
        .map(|(index, conversation)| {
            let mut packets = packets(rng, cast, index, conversation, most);
            packets.reverse();
            packets
        })
        .collect();
    let mut events = Vec::new();
    let mut order: Vec<usize> = (0..queues.len()).collect();
    while queues.iter().any(|queue| !queue.is_empty()) {
        order.shuffle(rng);
        for index in &order {
            if rng.random_bool(0.7) {
                events.extend(queues[*index].pop().map(Event::Send));
            }
        }
        if rng.random_bool(cast.waits) {
            let millis = if cast.fragments > 0.0 { pick(rng, &SHORT_WAITS) } else { pick(rng, &WAITS) };
            events.push(Event::Wait(millis));
        }
    }
    events
}

fn packets(rng: &mut StdRng, cast: &Cast, index: usize, conversation: &Conversation, most: usize) -> Vec<Packet> {
    let mut talk = Talk::new(rng);
    let mut all = Vec::new();
    let v6 = conversation.opener.addr.is_ipv6();
    for n in 0..rng.random_range(1..=most) {
        let (reply, body) = match conversation.proto {
            _ if n > 0 && rng.random_bool(0.08) => (rng.random_bool(0.5), error(rng, v6, cast.short_errors)),
            6 => talk.next(rng),
            proto => {
                let reply = n > 0 && rng.random_bool(0.5);
                (reply, plain(rng, proto, v6, reply))
            }
        };
        let early = n == 0 || matches!(body, Body::Icmp { .. } | Body::Error { .. }) || tcp::is_special(&body);
        let sum = match rng.random_range(0..40) {
            0 if early || cast.late_bad_sums => Sum::Bad,
            // Over IPv6 this is wrong.
            1 | 2 if conversation.proto == 17 && (!v6 || early || cast.late_bad_sums) => Sum::Zero,
            _ => Sum::Good,
        };
        let packet = Packet { conversation: index, reply, body, sum, piece: None };
        if rng.random_bool(cast.fragments) && !matches!(packet.body, Body::Error { .. }) {
            let id = (index * 64 + n + 1) as u16;
            all.extend(pieces(rng, packet, id, cast.overlaps));
        } else {
            all.push(packet);
        }
    }
    all
}

fn plain(rng: &mut StdRng, proto: u8, v6: bool, reply: bool) -> Body {
    let len = pick(rng, &[0, 4, 64, 100, 1_000]);
    let (seq, odd) = (rng.random_range(1..5), rng.random_bool(0.05));
    match (proto, v6) {
        (1, _) if odd => Body::Icmp { kind: pick(rng, &[9, 10, 17, 40]), code: 0, seq, len },
        (58, _) if odd => Body::Icmp { kind: pick(rng, &[130, 133, 135, 143, 200]), code: 0, seq, len },
        // With the same identifier, questions both ways would be two connections that take each other's place.
        (1, _) => Body::Icmp { kind: if reply { 0 } else { 8 }, code: u8::from(rng.random_bool(0.03)), seq, len },
        (58, _) => Body::Icmp { kind: 128 + u8::from(reply), code: u8::from(rng.random_bool(0.03)), seq, len },
        (17, _) => Body::Udp { len },
        (132, _) => Body::Sctp { chunk: pick(rng, &[0, 1, 2, 3, 4, 6, 7, 8, 10, 11, 14]), len },
        _ => Body::Plain { len },
    }
}

fn error(rng: &mut StdRng, v6: bool, short: bool) -> Body {
    let (kind, code) = if v6 {
        pick(rng, &[(1, 0), (1, 4), (2, 0), (3, 0), (4, 0)])
    } else {
        pick(rng, &[(3, 1), (3, 3), (3, 4), (11, 0), (12, 0), (4, 0), (5, 1)])
    };
    let about = pick(rng, &[About::Last, About::Last, About::Last, About::Transit, About::Stranger]);
    let header = if v6 { 40 } else { 20 };
    let transport = pick(rng, if short { &[0, 7, 8, 20, 40, 100, 500] } else { &[0, 7, 20, 40, 100, 500] });
    Body::Error { kind, code, about, len: header + transport }
}

/// The fragments of a packet, which is made long enough for some: mostly in order, mostly all, mostly once.
fn pieces(rng: &mut StdRng, mut packet: Packet, id: u16, overlaps: bool) -> Vec<Packet> {
    let count = rng.random_range(2..=4);
    let total = PIECE * (count - 1) + pick(rng, &[8, 100, 1_000]);
    match &mut packet.body {
        Body::Tcp { len, .. } => *len = total - 20,
        Body::Udp { len } | Body::Icmp { len, .. } => *len = total - 8,
        Body::Sctp { len, .. } => *len = total - 16,
        Body::Plain { len } => *len = total,
        Body::Error { .. } => {}
    }
    let mut all: Vec<_> = (0..count)
        .map(|n| Piece { id, offset: n * PIECE, len: PIECE, more: n + 1 < count })
        .map(|piece| Packet { piece: Some(piece), ..packet.clone() })
        .collect();
    if rng.random_bool(0.5) {
        all.shuffle(rng);
    }
    if rng.random_bool(0.1) {
        all.remove(rng.random_range(0..all.len()));
    }
    if rng.random_bool(0.1) {
        all.push(all[rng.next_u32() as usize % all.len()].clone());
    }
    if overlaps
        && rng.random_bool(0.05)
        && let Some(piece) = &mut all[0].piece
    {
        piece.offset = piece.offset.saturating_add_signed(8);
    }
    all
}
