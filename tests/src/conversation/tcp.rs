//! TCP connections that mostly go as they should.

use super::{Body, FLAGS};
use crate::generate::pick;
use rand::RngExt;
use rand::rngs::StdRng;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;

const WINDOWS: [u16; 6] = [0, 1, 100, 1_000, 29_200, 65_535];
/// How far odd sequence numbers are off.
const OFF: [u32; 12] = [1, 2, 100, 1_000, 65_535, 67_035, 67_036, 1 << 20, 1 << 30, 1 << 31, u32::MAX, u32::MAX - 999];

/// Whether a segment begins or ends something.
pub(super) fn is_special(body: &Body) -> bool {
    matches!(body, Body::Tcp { flags, .. } if flags & (SYN | FIN | RST) != 0)
}

/// One end.
#[derive(Clone, Debug)]
struct Tcp {
    /// The next sequence number that it sends.
    next: u32,
    /// What it acknowledges.
    heard: u32,
    scale: Option<u8>,
    syn: bool,
    fin: bool,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Talk {
    ends: [Tcp; 2],
    sent: Vec<(bool, Body)>,
    window: u16,
}

fn start(rng: &mut StdRng) -> Tcp {
    let next = if rng.random_bool(0.2) { u32::MAX - 50 } else { rng.random() };
    let scale = rng.random_bool(0.6).then(|| pick(rng, &[0, 2, 7, 14]));
    Tcp { next, heard: 0, scale, syn: false, fin: false }
}

impl Talk {
    /// A connection that is about to begin, or that was there before the switch.
    pub(super) fn new(rng: &mut StdRng) -> Self {
        let mut talk = Self { ends: [start(rng), start(rng)], sent: Vec::new(), window: 29_200 };
        if rng.random_bool(0.15) {
            let heard = [talk.ends[1].next, talk.ends[0].next];
            for (end, heard) in talk.ends.iter_mut().zip(heard) {
                (end.syn, end.heard) = (true, heard);
            }
        }
        talk
    }

    /// The next packet, and whether the answerer sends it.
    pub(super) fn next(&mut self, rng: &mut StdRng) -> (bool, Body) {
        if rng.random_bool(0.15) {
            self.window = pick(rng, &WINDOWS);
        }
        let packet = if rng.random_bool(0.2) { self.odd(rng) } else { self.sensible(rng) };
        self.sent.push(packet.clone());
        packet
    }

    fn sensible(&mut self, rng: &mut StdRng) -> (bool, Body) {
        let [opener, answerer] = &self.ends;
        match (opener.syn, answerer.syn) {
            (false, false) => {
                let reply = rng.random_bool(0.05);
                self.send(reply, SYN, 0)
            }
            (false, true) | (true, false) => {
                let reply = opener.syn;
                match rng.random_range(0..10) {
                    0 => self.send(reply, SYN, 0),
                    1 => self.send(reply, RST | ACK, 0),
                    2 => self.sent.last().cloned().unwrap_or_else(|| self.send(reply, SYN, 0)),
                    _ => self.send(reply, SYN | ACK, 0),
                }
            }
            (true, true) if opener.fin && answerer.fin && rng.random_bool(0.4) => {
                self.ends = [start(rng), start(rng)];
                self.send(false, SYN, 0)
            }
            (true, true) => {
                let reply = rng.random_bool(0.5);
                let fin = self.ends[usize::from(reply)].fin;
                match rng.random_range(0..20) {
                    0 => self.send(reply, RST, 0),
                    1 => self.send(reply, RST | ACK, 0),
                    2..=5 if !fin => self.send(reply, FIN | ACK, 0),
                    6..=12 if !fin => {
                        let len = pick(rng, &[1, 10, 200, 1_000]);
                        self.send(reply, ACK | if rng.random_bool(0.5) { PSH } else { 0 }, len)
                    }
                    _ => self.send(reply, ACK, 0),
                }
            }
        }
    }

    /// A segment that is in order, and that arrives.
    fn send(&mut self, reply: bool, flags: u8, len: u16) -> (bool, Body) {
        let end = &mut self.ends[usize::from(reply)];
        let ack = if flags & ACK == 0 { 0 } else { end.heard };
        let scale = end.scale.filter(|_| flags & SYN != 0);
        let body = Body::Tcp { flags, seq: end.next, ack, window: self.window, len, scale };
        let numbers = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0) + u32::from(len);
        end.next = end.next.wrapping_add(numbers);
        end.syn |= flags & SYN != 0;
        end.fin |= flags & (FIN | RST) != 0;
        let heard = end.next;
        let other = &mut self.ends[usize::from(!reply)];
        other.heard = heard;
        other.fin |= flags & RST != 0;
        (reply, body)
    }

    /// A segment that comes again, late, or from nowhere.
    fn odd(&mut self, rng: &mut StdRng) -> (bool, Body) {
        let reply = rng.random_bool(0.5);
        let end = &self.ends[usize::from(reply)];
        let (next, heard, scale) = (end.next, end.heard, end.scale);
        let segment = |flags, seq, ack, len| Body::Tcp { flags, seq, ack, window: WINDOWS[4], len, scale: None };
        let off = pick(rng, &OFF);
        match rng.random_range(0..10) {
            0..=2 if !self.sent.is_empty() => self.sent[rng.random_range(0..self.sent.len())].clone(),
            // A keep-alive.
            3 => (reply, segment(ACK, next.wrapping_sub(1), heard, u16::from(rng.random_bool(0.5)))),
            4 => (reply, segment(ACK, next.wrapping_add(off), heard, pick(rng, &[0, 1, 100]))),
            5 => (reply, segment(ACK, next, heard.wrapping_add(off), pick(rng, &[0, 1, 100]))),
            6 => (reply, segment(RST, next.wrapping_add(off), 0, 0)),
            7 => (reply, Body::Tcp { flags: SYN, seq: rng.random(), ack: 0, window: 1_000, len: 0, scale }),
            8 => (reply, segment(pick(rng, &[SYN | ACK, FIN, FIN | ACK, ACK | RST, 0, PSH]), next, heard, 0)),
            _ => (reply, segment(rng.random_range(0..1 << FLAGS.len()), next, heard, pick(rng, &[0, 1]))),
        }
    }
}
