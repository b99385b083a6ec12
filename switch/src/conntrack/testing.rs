//! Packets for the tracker's tests, and a tracker to put them through.

use super::{Repeat, Tracked, Tracker};
use sluice_flows::DropReason;
use sluice_flows::datapath::DpCt;
use sluice_flows::field::{IP_PROTO_ICMP, IP_PROTO_ICMPV6, IP_PROTO_SCTP, IP_PROTO_TCP, IP_PROTO_UDP};
use sluice_flows::key::{CT_DNAT, CT_EST, CT_INV, CT_NEW, CT_REL, CT_RPL, CT_SNAT, CT_TRK, PacketKey};
use sluice_flows::packet::{Frame, checksum, extract};
use sluice_flows::rule::Millis;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who sends to whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
}

/// 10.0.0.1:1000 to 10.0.0.2:80.
pub(crate) const V4: Ends = Ends {
    src: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
    dst: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)),
    src_port: 1000,
    dst_port: 80,
};

/// 2001:db8::1:1000 to 2001:db8::2:80.
pub(crate) const V6: Ends = Ends {
    src: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    dst: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)),
    src_port: 1000,
    dst_port: 80,
};

/// A TCP segment that is to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tcp<'a> {
    pub(crate) flags: u8,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) window: u16,
    pub(crate) options: &'a [u8],
    /// Bytes of payload.
    pub(crate) len: usize,
}

impl Tcp<'_> {
    /// A segment without options and payload, that allows 1000 bytes.
    pub(crate) const fn new(flags: u8, seq: u32, ack: u32) -> Self {
        Self { flags, seq, ack, window: 1000, options: &[], len: 0 }
    }
}

impl Ends {
    /// The other way.
    pub(crate) fn back(self) -> Self {
        Self { src: self.dst, dst: self.src, src_port: self.dst_port, dst_port: self.src_port }
    }

    /// An IP packet in an Ethernet frame, with right checksums.
    pub(crate) fn frame(&self, proto: u8, message: &[u8]) -> Frame {
        let eth_type: [u8; 2] = if self.src.is_ipv4() { [8, 0] } else { [0x86, 0xdd] };
        let ethernet = [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], &eth_type].concat();
        Frame::from_bytes(&[ethernet, self.packet(proto, message)].concat())
    }

    /// An IP packet with right checksums.
    pub(crate) fn packet(&self, proto: u8, message: &[u8]) -> Vec<u8> {
        let len = message.len() as u16;
        let (mut header, pseudo) = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let mut header =
                    [&[0x45, 0][..], &(20 + len).to_be_bytes(), &[0, 1, 0x40, 0, 64, proto, 0, 0]].concat();
                header.extend(src.octets());
                header.extend(dst.octets());
                let sum = checksum::checksum(&header).to_be_bytes();
                header[10..12].copy_from_slice(&sum);
                (header, checksum::pseudo_v4(src.octets(), dst.octets(), proto, len))
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let mut header = [&[0x60, 0, 0, 0][..], &len.to_be_bytes(), &[proto, 64]].concat();
                header.extend(src.octets());
                header.extend(dst.octets());
                (header, checksum::pseudo_v6(src.octets(), dst.octets(), proto, len.into()))
            }
            _ => panic!("{self:?} are of one family"),
        };
        let at = header.len();
        header.extend(message);
        let message = &mut header[at..];
        let (field, pseudo) = match proto {
            IP_PROTO_TCP => (16, pseudo),
            IP_PROTO_UDP => (6, pseudo),
            IP_PROTO_ICMPV6 => (2, pseudo),
            IP_PROTO_ICMP => (2, 0),
            IP_PROTO_SCTP => {
                let crc = checksum::sctp(message);
                message[8..12].copy_from_slice(&crc);
                return header;
            }
            _ => return header,
        };
        let sum = !checksum::add(checksum::sum(message), pseudo);
        message[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        header
    }

    fn ports(&self) -> Vec<u8> {
        [self.src_port.to_be_bytes(), self.dst_port.to_be_bytes()].concat()
    }

    /// A TCP segment without its checksum.
    pub(crate) fn tcp_message(&self, tcp: &Tcp<'_>) -> Vec<u8> {
        let mut message = self.ports();
        message.extend(tcp.seq.to_be_bytes());
        message.extend(tcp.ack.to_be_bytes());
        message.extend([((20 + tcp.options.len()) / 4 * 16) as u8, tcp.flags]);
        message.extend(tcp.window.to_be_bytes());
        message.extend([0; 4]);
        message.extend(tcp.options);
        message.resize(message.len() + tcp.len, b'x');
        message
    }

    /// A UDP datagram without its checksum.
    pub(crate) fn udp_message(&self, len: usize) -> Vec<u8> {
        let mut message = self.ports();
        message.extend(((8 + len) as u16).to_be_bytes());
        message.extend([0, 0]);
        message.resize(message.len() + len, b'x');
        message
    }

    /// A frame with a TCP segment.
    pub(crate) fn tcp(&self, tcp: &Tcp<'_>) -> Frame {
        self.frame(IP_PROTO_TCP, &self.tcp_message(tcp))
    }

    /// A frame with a UDP datagram of `len` bytes.
    pub(crate) fn udp(&self, len: usize) -> Frame {
        self.frame(IP_PROTO_UDP, &self.udp_message(len))
    }

    /// A frame with an SCTP packet of these chunks: kind, flags, value.
    pub(crate) fn sctp(&self, tag: u32, chunks: &[(u8, u8, &[u8])]) -> Frame {
        let mut message = self.ports();
        message.extend(tag.to_be_bytes());
        message.extend([0; 4]);
        for (kind, flags, value) in chunks {
            message.extend([*kind, *flags]);
            message.extend(((4 + value.len()) as u16).to_be_bytes());
            message.extend(*value);
            message.resize(message.len().next_multiple_of(4), 0);
        }
        self.frame(IP_PROTO_SCTP, &message)
    }

    /// A frame with an ICMP or ICMPv6 message: the second word of its header, and what follows.
    pub(crate) fn icmp(&self, kind: u8, code: u8, word: [u8; 4], body: &[u8]) -> Frame {
        let proto = if self.src.is_ipv4() { IP_PROTO_ICMP } else { IP_PROTO_ICMPV6 };
        self.frame(proto, &[&[kind, code, 0, 0][..], &word, body].concat())
    }

    /// A frame with an echo request, or a reply, with this identifier.
    pub(crate) fn echo(&self, reply: bool, id: u16) -> Frame {
        let kind = match (self.src.is_ipv4(), reply) {
            (true, false) => 8,
            (true, true) => 0,
            (false, false) => 128,
            (false, true) => 129,
        };
        let [high, low] = id.to_be_bytes();
        self.icmp(kind, 0, [high, low, 0, 1], b"abcdefgh")
    }
}

/// A ct action that only looks.
pub(crate) fn look(zone: u16) -> DpCt {
    DpCt { commit: false, force: false, zone, mark: None, label: None, nat: None, alg: None, owner: None }
}

/// A ct action that commits.
pub(crate) fn commit(zone: u16) -> DpCt {
    DpCt { commit: true, ..look(zone) }
}

/// One pass of a frame through the tracker, after the passes that `tracked` is from.
pub(crate) fn pass(
    tracker: &Tracker,
    frame: &mut Frame,
    ask: &DpCt,
    tracked: &mut Tracked,
    now: Millis,
) -> Result<Repeat, DropReason> {
    let mut key = PacketKey::ZERO;
    let layers = extract(frame.bytes(), 0, &mut key);
    tracker.track((frame, &layers, &key), ask, tracked, now)
}

/// The only pass of a frame through the tracker.
pub(crate) fn once(tracker: &Tracker, mut frame: Frame, ask: &DpCt) -> (Tracked, Repeat) {
    let mut tracked = Tracked::default();
    let repeat = pass(tracker, &mut frame, ask, &mut tracked, Millis(0)).unwrap();
    (tracked, repeat)
}

/// State bits in words, without `trk`, which has to be there.
pub(crate) fn words(state: u8) -> String {
    assert_ne!(state & CT_TRK, 0, "not tracked");
    let names = [
        (CT_NEW, "new"),
        (CT_EST, "est"),
        (CT_REL, "rel"),
        (CT_RPL, "rpl"),
        (CT_INV, "inv"),
        (CT_SNAT, "snat"),
        (CT_DNAT, "dnat"),
    ];
    let set: Vec<_> = names.iter().filter(|(bit, _)| state & bit != 0).map(|(_, name)| *name).collect();
    set.join(" ")
}

/// What the tracker says of a frame, in words.
pub(crate) fn said(tracker: &Tracker, frame: Frame, ask: &DpCt) -> String {
    words(once(tracker, frame, ask).0.state)
}
