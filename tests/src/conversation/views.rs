//! What the ends behind a switch have seen, and how they speak because of it.

use super::bytes::{self, Ends};
use super::{About, Body, Conversation, End, Packet, Reading};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the ends of all conversations behind one switch have seen.
#[derive(Clone, Debug)]
pub struct Views {
    conversations: Vec<Conversation>,
    seen: Vec<Seen>,
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
        Self { conversations: conversations.to_vec(), seen: vec![Seen::default(); conversations.len()] }
    }

    /// The frame number `number` that a packet is, when it is sent now.
    pub fn render(&self, number: u16, packet: &Packet) -> Vec<u8> {
        let conversation = &self.conversations[packet.conversation];
        let seen = &self.seen[packet.conversation];
        let opener = Ends { src: conversation.opener, dst: conversation.answerer };
        let answerer = seen.answerer.unwrap_or(Ends { src: conversation.answerer, dst: conversation.opener });
        let mut ends = if packet.reply { answerer } else { opener };
        if let Body::Icmp { .. } = packet.body {
            // Both directions show the opener's identifier.
            let id = if packet.reply { ends.dst.port } else { ends.src.port };
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
    let port = |port: u16| if port == 0 { 0 } else { port ^ 0x5555 };
    let ends = Ends {
        src: End { addr: ends.dst.addr, port: port(ends.dst.port) },
        dst: End { addr: ends.src.addr, port: port(ends.src.port) },
    };
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
