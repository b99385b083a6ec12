//! Reading frames as far as connection tracking writes to them.

use super::End;
use super::bytes::{checksum_at, pseudo};
use sluice_flows::packet::checksum::{add, sum, verify_sctp};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// An IP header and what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    /// IP protocol number.
    pub proto: u8,
    /// Source. The port is 0 where there is none, and the identifier for ICMP.
    pub src: End,
    /// Destination likewise.
    pub dst: End,
    /// First byte of the payload within the datagram that it is a fragment of.
    pub offset: u16,
    /// It is a fragment.
    pub fragment: bool,
    /// Whether the transport checksum is right; `None` where it cannot be said.
    pub checksum: Option<bool>,
}

/// A frame taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The headers, and those of the packet that an ICMP error is about.
    pub headers: Vec<Headers>,
    /// The bytes with zeroes for everything that `headers` has and for checksums.
    pub rest: Vec<u8>,
}

impl Reading {
    /// Takes a frame apart; one that is not IP is all rest.
    pub fn of(frame: &[u8]) -> Self {
        let mut reading = Self { headers: Vec::new(), rest: frame.to_vec() };
        if matches!(frame.get(12..14), Some([8, 0] | [0x86, 0xdd])) {
            reading.read(frame, 14);
        }
        reading
    }

    /// Reads the IP header at `at` and what follows.
    fn read(&mut self, frame: &[u8], at: usize) -> Option<()> {
        let v6 = frame.get(at)? >> 4 == 6;
        let (mut proto, mut l4, addresses, end) = if v6 {
            let len = usize::from(u16::from_be_bytes([*frame.get(at + 4)?, *frame.get(at + 5)?]));
            (*frame.get(at + 6)?, at + 40, at + 8..at + 40, at + 40 + len)
        } else {
            let len = usize::from(u16::from_be_bytes([*frame.get(at + 2)?, *frame.get(at + 3)?]));
            (*frame.get(at + 9)?, at + usize::from(frame.get(at)? & 15) * 4, at + 12..at + 20, at + len)
        };
        let (mut fragment, mut offset) = (false, 0);
        if v6 && proto == 44 {
            let bits = u16::from_be_bytes([*frame.get(l4 + 2)?, *frame.get(l4 + 3)?]);
            (fragment, offset, proto, l4) = (true, bits & !7, *frame.get(l4)?, l4 + 8);
        } else if !v6 {
            let bits = u16::from_be_bytes([*frame.get(at + 6)?, *frame.get(at + 7)?]);
            (fragment, offset) = (bits & 0x3fff != 0, (bits & 0x1fff) * 8);
            self.clear(at + 10..at + 12);
        }
        let (src, dst) = frame.get(addresses.clone())?.split_at(addresses.len() / 2);
        let [src, dst] = [address(src)?, address(dst)?];
        self.clear(addresses);
        let mut headers = Headers {
            proto,
            src: End { addr: src, port: 0 },
            dst: End { addr: dst, port: 0 },
            offset,
            fragment,
            checksum: None,
        };
        let inner = !self.headers.is_empty();
        if offset == 0 {
            self.ports(frame, l4, v6, &mut headers);
        } else if let Some(at) = checksum_at(proto, v6).and_then(|at| at.checked_sub(offset.into())) {
            // A fragment that overlaps the first may hold it.
            self.fill(l4 + at..l4 + at + 2, 1);
        }
        if let Some(body) = frame.get(l4..end)
            && !fragment
            && !inner
            && let Some(place) = checksum_at(proto, v6)
        {
            let none = proto == 17 && body.get(6..8) == Some(&[0, 0]);
            if !none && body.len() >= place + 2 {
                headers.checksum = Some(add(pseudo(proto, src, dst, body.len()), sum(body)) == 0xffff);
            }
        }
        if let Some(body) = frame.get(l4..end).filter(|body| proto == 132 && body.len() >= 12 && !fragment && !inner) {
            headers.checksum = Some(verify_sctp(body));
        }
        self.headers.push(headers);
        let icmp_error = match (proto, frame.get(l4)?) {
            (1, kind) => matches!(kind, 3 | 4 | 5 | 11 | 12),
            (58, kind) => *kind < 128,
            _ => false,
        };
        if icmp_error && !inner && offset == 0 && self.read(frame, l4 + 8).is_none() {
            // Too short to say what is in it: parts of addresses that are translated outside.
            self.clear(l4 + 8..end);
        }
        Some(())
    }

    fn ports(&mut self, frame: &[u8], l4: usize, v6: bool, headers: &mut Headers) -> Option<()> {
        let word = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
        match headers.proto {
            6 | 17 | 132 => {
                (headers.src.port, headers.dst.port) = (word(l4)?, word(l4 + 2)?);
                self.clear(l4..l4 + 4);
            }
            1 | 58 if has_identifier(*frame.get(l4)?) => {
                (headers.src.port, headers.dst.port) = (word(l4 + 4)?, word(l4 + 4)?);
                self.clear(l4 + 4..l4 + 6);
            }
            _ => {}
        }
        if headers.proto == 132 {
            self.fill(l4 + 8..l4 + 12, 1);
        }
        if let Some(at) = checksum_at(headers.proto, v6) {
            // UDP's says by being zero that there is none.
            let none = headers.proto == 17 && frame.get(l4 + at..l4 + at + 2) == Some(&[0, 0]);
            if !none {
                self.fill(l4 + at..l4 + at + 2, 1);
            }
        }
        Some(())
    }

    fn clear(&mut self, range: Range<usize>) {
        self.fill(range, 0);
    }

    fn fill(&mut self, range: Range<usize>, value: u8) {
        let end = range.end.min(self.rest.len());
        if let Some(bytes) = self.rest.get_mut(range.start..end) {
            bytes.fill(value);
        }
    }
}

/// Whether an ICMP or ICMPv6 message of a type has an identifier that connections are told apart by.
pub(super) fn has_identifier(kind: u8) -> bool {
    matches!(kind, 0 | 8 | 13..=16 | 128 | 129)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    Some(match bytes.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
        _ => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
    })
}
