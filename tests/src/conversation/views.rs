//! What the ends behind a switch have seen, and how they speak because of it.

use super::bytes::{self, Ends};
use super::read::has_identifier;
use super::{About, Body, Conversation, End, Packet, Reading};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A port that nobody uses.
const NOBODY: u16 = 0x5555;

/// What the ends of all conversations behind one switch have seen.
#[derive(Clone, Debug)]
pub struct Views {
    conversations: Vec<Conversation>,
    seen: Vec<Seen>,
    /// Packets by number: fragments come out late.
    sent: HashMap<u16, Packet>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    /// Whom the answerer thinks it talks to, and as whom.
    answerer: Option<Ends>,
    /// The last datagram received by the opener and by the answerer.
    last: [Vec<u8>; 2],
}

impl Views {
    /// The views of ends that have seen nothing.
    pub fn new(conversations: &[Conversation]) -> Self {
        Self {
            conversations: conversations.to_vec(),
            seen: vec![Seen::default(); conversations.len()],
            sent: HashMap::new(),
        }
    }

    /// The frame number `number` that a packet is, when it is sent now.
    pub fn render(&self, number: u16, packet: &Packet) -> Vec<u8> {
        let conversation = &self.conversations[packet.conversation];
        let seen = &self.seen[packet.conversation];
        let opener = Ends { src: conversation.opener, dst: conversation.answerer };
        let answerer = seen.answerer.unwrap_or(Ends { src: conversation.answerer, dst: conversation.opener });
        let mut ends = if packet.reply { answerer } else { opener };
        if let Body::Icmp { kind, .. } = packet.body {
            // Both directions show the opener's identifier; other messages have none that is translated.
            let id = match packet.reply {
                true if has_identifier(kind) => ends.dst.port,
                true => conversation.opener.port,
                false => ends.src.port,
            };
            (ends.src.port, ends.dst.port) = (id, id);
        }
        if let Body::Error { about: About::Transit, .. } = packet.body {
            ends.src.addr = router(ends.src.addr);
        }
        let about = match &packet.body {
            Body::Error { about: About::Last | About::Transit, .. } => seen.last[usize::from(packet.reply)].clone(),
            Body::Error { about: About::Stranger, .. } => stranger(ends),
            _ => Vec::new(),
        };
        bytes::frame(number, conversation.proto, ends, packet, &about)
    }

    /// The port that a packet comes in by.
    pub fn port(&self, packet: &Packet) -> u16 {
        let conversation = &self.conversations[packet.conversation];
        if packet.reply { conversation.far } else { conversation.near }
    }

    /// Packets were sent.
    pub fn sent(&mut self, packets: &[(u16, &Packet)]) {
        self.sent.extend(packets.iter().map(|(number, packet)| (*number, (*packet).clone())));
    }

    /// The other end has received `frame`, which was sent by this number.
    pub fn came_out(&mut self, number: u16, frame: &[u8]) {
        if let Some(packet) = self.sent.get(&number).cloned() {
            self.delivered(&packet, frame);
        }
    }

    /// The other end has received `frame`, which began as `packet`.
    pub fn delivered(&mut self, packet: &Packet, frame: &[u8]) {
        let conversation = &self.conversations[packet.conversation];
        let seen = &mut self.seen[packet.conversation];
        let Some(datagram) = frame.get(14..) else { return };
        let reading = Reading::of(frame);
        let [headers] = &reading.headers[..] else { return };
        if headers.offset != 0 || headers.proto != conversation.proto {
            return;
        }
        seen.last[usize::from(!packet.reply)] = datagram.to_vec();
        if !packet.reply {
            seen.answerer = Some(Ends { src: headers.dst, dst: headers.src });
        }
    }
}

/// A datagram that nobody sent, from the end that is told of it.
fn stranger(ends: Ends) -> Vec<u8> {
    let ends = Ends { src: End { addr: ends.dst.addr, port: NOBODY }, dst: End { addr: ends.src.addr, port: NOBODY } };
    let packet =
        Packet { conversation: 0, reply: false, body: Body::Udp { len: 64 }, sum: super::Sum::Good, piece: None };
    let frame = bytes::frame(0, 17, ends, &packet, &[]);
    frame[14..].to_vec()
}

/// A router's address, of the family of `addr`.
fn router(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(_) => Ipv4Addr::new(10, 9, 9, 9).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 9).into(),
    }
}
