//! TCP segments for tests, built and taken apart byte by byte.

use sluice_flows::key::PacketKey;
use sluice_flows::packet::{Frame, Layers, checksum, extract};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a segment is made of. Of IPv6, the addresses of IPv4 are mapped.
#[derive(Clone, Debug)]
pub(super) struct TestSegment<'a> {
    pub(super) v6: bool,
    pub(super) from: (Ipv4Addr, u16),
    pub(super) to: (Ipv4Addr, u16),
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) options: &'a [u8],
    pub(super) payload: &'a [u8],
    /// The checksum is left for the output to finish.
    pub(super) partial: bool,
    /// Bytes behind the datagram.
    pub(super) padding: usize,
}

impl<'a> TestSegment<'a> {
    /// From 10.0.0.1 port 40000 to 10.0.0.2 port 21.
    pub(super) fn v4(payload: &'a [u8]) -> Self {
        Self {
            v6: false,
            from: (Ipv4Addr::new(10, 0, 0, 1), 40_000),
            to: (Ipv4Addr::new(10, 0, 0, 2), 21),
            seq: 1_000_000,
            ack: 2_000_000,
            options: &[],
            payload,
            partial: false,
            padding: 0,
        }
    }

    /// Its addresses.
    pub(super) fn addresses(&self) -> (IpAddr, IpAddr) {
        match self.v6 {
            false => (self.from.0.into(), self.to.0.into()),
            true => (self.from.0.to_ipv6_mapped().into(), self.to.0.to_ipv6_mapped().into()),
        }
    }

    pub(super) fn frame(&self) -> (Frame, Layers) {
        let mut tcp = [self.from.1.to_be_bytes(), self.to.1.to_be_bytes()].concat();
        tcp.extend([self.seq.to_be_bytes(), self.ack.to_be_bytes()].concat());
        tcp.extend([((5 + self.options.len() / 4) << 4) as u8, 0x18, 1, 0, 0, 0, 0, 0]);
        tcp.extend(self.options);
        tcp.extend(self.payload);
        let pseudo = self.pseudo(tcp.len());
        let sum = if self.partial { pseudo } else { !checksum::add(pseudo, checksum::sum(&tcp)) };
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        bytes.extend(if self.v6 { self.ipv6(tcp.len()) } else { self.ipv4(tcp.len()) });
        let l4 = bytes.len();
        bytes.extend(tcp);
        bytes.extend(vec![0xee; self.padding]);
        let mut frame = Frame::from_bytes(&bytes);
        if self.partial {
            frame.offload.csum_partial = true;
            (frame.offload.csum_start, frame.offload.csum_offset) = (l4 as u16, 16);
        }
        let layers = extract(frame.bytes(), 1, &mut PacketKey::default());
        (frame, layers)
    }

    fn ipv4(&self, tcp_len: usize) -> Vec<u8> {
        let mut ip = vec![0x45, 0];
        ip.extend((20 + tcp_len as u16).to_be_bytes());
        ip.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        ip.extend([self.from.0.octets(), self.to.0.octets()].concat());
        let sum = checksum::checksum(&ip).to_be_bytes();
        ip[10..12].copy_from_slice(&sum);
        [&[8, 0], &*ip].concat()
    }

    fn ipv6(&self, tcp_len: usize) -> Vec<u8> {
        let mut ip = vec![0x86, 0xdd, 0x60, 0, 0, 0];
        ip.extend((tcp_len as u16).to_be_bytes());
        ip.extend([6, 64]);
        ip.extend([self.from.0.to_ipv6_mapped().octets(), self.to.0.to_ipv6_mapped().octets()].concat());
        ip
    }

    fn pseudo(&self, tcp_len: usize) -> u16 {
        match self.addresses() {
            (IpAddr::V4(a), IpAddr::V4(b)) => checksum::pseudo_v4(a.octets(), b.octets(), 6, tcp_len as u16),
            (a, b) => checksum::pseudo_v6(v6(a).octets(), v6(b).octets(), 6, tcp_len as u32),
        }
    }
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// What a segment says.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) options: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

/// The datagram of a frame without tags: its IP header and its TCP segment. The frame's type says which IP it is, as it does to
/// the switch; the version in the header may be broken.
fn split(frame: &Frame) -> (&[u8], &[u8]) {
    let (ethernet, ip) = frame.bytes().split_at(14);
    let number = |at: usize| usize::from(u16::from_be_bytes([ip[at], ip[at + 1]]));
    match ethernet[12..] {
        [0x08, 0x00] => (&ip[..20], &ip[20..number(2)]),
        _ => (&ip[..40], &ip[40..40 + number(4)]),
    }
}

pub(super) fn parts(frame: &Frame) -> Parts {
    let (_, tcp) = split(frame);
    let number = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
    let header = usize::from(tcp[12] >> 4) * 4;
    Parts { seq: number(4), ack: number(8), options: tcp[20..header].to_vec(), payload: tcp[header..].to_vec() }
}

/// Whether a frame's checksums are right, summed anew; the transport's may be partial.
pub(super) fn is_sound(frame: &Frame) -> bool {
    let (ip, tcp) = split(frame);
    let addresses = if ip.len() == 20 { &ip[12..20] } else { &ip[8..40] };
    let length = (tcp.len() as u32).to_be_bytes();
    let pseudo = checksum::sum(&[addresses, &length, &[0, 0, 0, 6]].concat());
    let Some(&[high, low]) = tcp.get(16..18) else { return false };
    let field = u16::from_be_bytes([high, low]);
    let transport = match frame.offload.csum_partial {
        true => field == pseudo || field == !pseudo && pseudo == 0,
        false => checksum::verify(tcp, pseudo),
    };
    transport && (ip.len() != 20 || checksum::verify(ip, 0))
}

pub(super) fn verify(frame: &Frame) {
    assert!(is_sound(frame), "{:02x?}", frame.bytes());
}
