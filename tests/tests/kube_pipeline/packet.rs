//! Packets as bytes and back: what the ends of a connection say, and the ICMP errors about it. What is read has right checksums.

use sluice_flows::packet::checksum::{add, checksum, pseudo_v4, pseudo_v6, sctp, sum, verify, verify_sctp};
use std::net::{IpAddr, SocketAddr};

/// A transport protocol, or ping; the numbers are those of IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Proto {
    Tcp,
    Udp,
    Sctp,
    /// Echo: of both ends' ports, the opener's is the identifier.
    Ping,
}

/// A step of a conversation: even ones are the opener's, odd ones the answerer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) proto: Proto,
    pub(crate) step: u8,
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
}

/// What comes out of a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Packet(Packet),
    /// A port, host or whatever is unreachable; and what it is about.
    Error {
        src: IpAddr,
        dst: IpAddr,
        about: Packet,
    },
}

const UNREACHABLE: [[u8; 2]; 2] = [[3, 3], [1, 4]];

impl Packet {
    pub(crate) fn new(proto: Proto, step: u8, src: SocketAddr, dst: SocketAddr) -> Self {
        Self { proto, step, src, dst }
    }

    fn v6(&self) -> bool {
        self.src.is_ipv6()
    }

    fn number(&self) -> u8 {
        match self.proto {
            Proto::Tcp => 6,
            Proto::Udp => 17,
            Proto::Sctp => 132,
            Proto::Ping if self.v6() => 58,
            Proto::Ping => 1,
        }
    }

    /// From the IP header on.
    pub(crate) fn ip(&self) -> Vec<u8> {
        let (src, dst) = (self.src.port().to_be_bytes(), self.dst.port().to_be_bytes());
        let mut body = Vec::new();
        match self.proto {
            Proto::Tcp => {
                // The numbers of a handshake, and of data behind it.
                let (flags, seq, ack): (u8, u32, u32) = match self.step {
                    0 => (2, 100, 0),
                    1 => (0x12, 300, 101),
                    2 => (0x18, 101, 301),
                    3 => (0x18, 301, 106),
                    _ => (0x18, 106, 306),
                };
                body.extend([src, dst].concat());
                body.extend([seq.to_be_bytes(), ack.to_be_bytes()].concat());
                body.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
                body.extend_from_slice(if self.step < 2 { b"" } else { b"hello" });
            }
            Proto::Udp => {
                body.extend([src, dst].concat());
                body.extend([0, 13, 0, 0]);
                body.extend(b"step");
                body.push(self.step);
            }
            Proto::Sctp => {
                let tag = [0_u32, 7, 8, 7, 8][usize::from(self.step.min(4))];
                body.extend([src, dst].concat());
                body.extend(tag.to_be_bytes());
                body.extend([0; 4]);
                match self.step {
                    0 => body.extend([1, 0, 0, 20, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]),
                    1 => body.extend([2, 0, 0, 20, 0, 0, 0, 8, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]),
                    2 => body.extend([10, 0, 0, 8, 1, 2, 3, 4]),
                    3 => body.extend([11, 0, 0, 4]),
                    _ => body.extend([0, 3, 0, 20, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]),
                }
            }
            Proto::Ping => {
                let kind = [[8, 0], [128, 129]][usize::from(self.v6())][usize::from(self.step % 2)];
                let id = if self.step.is_multiple_of(2) { src } else { dst };
                body.extend([kind, 0, 0, 0, id[0], id[1], 0, self.step]);
            }
        }
        self.finish(&mut body);
        header(self.src.ip(), self.dst.ip(), self.number(), &body)
    }

    fn finish(&self, body: &mut [u8]) {
        match self.proto {
            Proto::Sctp => {
                let crc = sctp(body);
                body[8..12].copy_from_slice(&crc);
            }
            proto => {
                let at = match proto {
                    Proto::Tcp => 16,
                    Proto::Udp => 6,
                    _ => 2,
                };
                let right = !add(pseudo(self.src.ip(), self.dst.ip(), self.number(), body.len()), sum(body));
                body[at..at + 2].copy_from_slice(&right.to_be_bytes());
            }
        }
    }

    /// Reads from the IP header on; `quoted` ones may be cut off and are not summed.
    fn read(bytes: &[u8], quoted: bool) -> Self {
        let (src, dst, number, body) = read_header(bytes);
        let right = match number {
            132 => verify_sctp(body),
            _ => verify(body, pseudo(src, dst, number, body.len())),
        };
        assert!(quoted || right, "wrong checksum: {src} > {dst} {body:x?}");
        let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
        let step = |proto| match proto {
            Proto::Tcp => match (body[13], port(6)) {
                (2, _) => 0,
                (0x12, _) => 1,
                (_, 101) => 2,
                (_, 301) => 3,
                _ => 4,
            },
            Proto::Udp => body[12],
            Proto::Sctp => match body[12] {
                1 => 0,
                2 => 1,
                10 => 2,
                11 => 3,
                _ => 4,
            },
            Proto::Ping => body[7],
        };
        let proto = match number {
            6 => Proto::Tcp,
            17 => Proto::Udp,
            132 => Proto::Sctp,
            1 | 58 => Proto::Ping,
            other => panic!("protocol {other}: {bytes:x?}"),
        };
        let (from, to) = match proto {
            Proto::Ping if matches!(body[0], 8 | 128) => (port(4), 0),
            Proto::Ping => (0, port(4)),
            _ => (port(0), port(2)),
        };
        Self { proto, step: step(proto), src: (src, from).into(), dst: (dst, to).into() }
    }
}

/// An ICMP error of `src` to `dst` about a packet, from the IP header on.
pub(crate) fn error(src: IpAddr, dst: IpAddr, about: &Packet) -> Vec<u8> {
    let v6 = src.is_ipv6();
    let number = if v6 { 58 } else { 1 };
    let mut body = UNREACHABLE[usize::from(v6)].to_vec();
    body.extend([0; 6]);
    body.extend(about.ip());
    let right = !add(pseudo(src, dst, number, body.len()), sum(&body));
    body[2..4].copy_from_slice(&right.to_be_bytes());
    header(src, dst, number, &body)
}

impl Seen {
    /// Reads from the IP header on.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let (src, dst, number, body) = read_header(bytes);
        let kinds = if src.is_ipv6() { 1..=4 } else { 3..=3 };
        if matches!(number, 1 | 58) && kinds.contains(&body[0]) {
            assert!(verify(body, pseudo(src, dst, number, body.len())), "wrong checksum of an error: {body:x?}");
            return Self::Error { src, dst, about: Packet::read(&body[8..], true) };
        }
        Self::Packet(Packet::read(bytes, false))
    }
}

fn pseudo(src: IpAddr, dst: IpAddr, number: u8, len: usize) -> u16 {
    match (src, dst) {
        (IpAddr::V4(_), _) if number == 1 => 0,
        (IpAddr::V4(src), IpAddr::V4(dst)) => pseudo_v4(src.octets(), dst.octets(), number, len as u16),
        (IpAddr::V6(src), IpAddr::V6(dst)) => pseudo_v6(src.octets(), dst.octets(), number, len as u32),
        _ => panic!("{src} and {dst} are of two families"),
    }
}

fn header(src: IpAddr, dst: IpAddr, number: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let len = (20 + body.len() as u16).to_be_bytes();
            out.extend([0x45, 0, len[0], len[1], 0, 1, 0x40, 0, 64, number, 0, 0]);
            out.extend([src.octets(), dst.octets()].concat());
            let right = checksum(&out).to_be_bytes();
            out[10..12].copy_from_slice(&right);
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let len = (body.len() as u16).to_be_bytes();
            out.extend([0x60, 0, 0, 0, len[0], len[1], number, 64]);
            out.extend([src.octets(), dst.octets()].concat());
        }
        _ => panic!("{src} and {dst} are of two families"),
    }
    out.extend_from_slice(body);
    out
}

fn read_header(bytes: &[u8]) -> (IpAddr, IpAddr, u8, &[u8]) {
    if bytes[0] >> 4 == 4 {
        assert!(verify(&bytes[..20], 0), "wrong checksum of an IP header: {bytes:x?}");
        let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap());
        let end = usize::from(u16::from_be_bytes([bytes[2], bytes[3]])).min(bytes.len());
        return (address(12), address(16), bytes[9], &bytes[20..end]);
    }
    let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&bytes[at..at + 16]).unwrap());
    let end = (40 + usize::from(u16::from_be_bytes([bytes[4], bytes[5]]))).min(bytes.len());
    (address(8), address(24), bytes[6], &bytes[40..end])
}
