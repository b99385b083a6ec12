//! What a frame of a tunnel's outer network carries.
//!
//! A tunnel is known by its UDP destination port (the ones that IANA gave VXLAN and Geneve, and Linux's old one of VXLAN)
//! or by its IP protocol (GRE, IP in IP). A UDP super-frame is many datagrams, each with a packet inside.

use sluice_flows::key::{PacketKey, slot};
use sluice_flows::packet::tunnel::{Payload, read};
use sluice_flows::packet::{L3, L4, extract};
use sluice_flows::tunnel::{TlvMap, TunnelKind};
use sluice_proto::v1::CapturedFrame;

const UDP_LEN: usize = 8;

/// A tunnel's kind as people write it.
pub(super) fn shown(kind: TunnelKind) -> &'static str {
    match kind {
        TunnelKind::Vxlan => "VXLAN",
        TunnelKind::Geneve => "Geneve",
        TunnelKind::Gre => "GRE",
        other => other.name(),
    }
}

/// The packets inside of a frame, as Ethernet frames, and what carried them; `None` when it is of no tunnel. Packets that
/// a tunnel would refuse are left out.
pub(super) fn open(frame: &CapturedFrame) -> Option<(TunnelKind, Vec<Vec<u8>>)> {
    let bytes = &frame.frame[..];
    let mut key = PacketKey::ZERO;
    let layers = extract(bytes, 0, &mut key);
    if !matches!(layers.l3, L3::Ipv4 | L3::Ipv6) {
        return None;
    }
    let (kind, payload) = if layers.l4 == L4::Udp {
        let kind = match key.get(slot::TP_DST) {
            4789 | 8472 => TunnelKind::Vxlan,
            6081 => TunnelKind::Geneve,
            _ => return None,
        };
        let start = usize::from(layers.l4_ofs);
        let said = bytes.get(start + 4..start + 6).map_or(0, |len| usize::from(u16::from_be_bytes([len[0], len[1]])));
        let end = if frame.segment_len > 0 { bytes.len() } else { (start + said).min(bytes.len()) };
        (kind, bytes.get(start + UDP_LEN..end)?)
    } else {
        let kind = match key.get(slot::IP_PROTO) {
            4 => TunnelKind::Ipip,
            41 => TunnelKind::Sit,
            47 => TunnelKind::Gre,
            _ => return None,
        };
        (kind, bytes.get(usize::from(layers.l4_ofs)..).filter(|_| layers.l4_ofs > 0)?)
    };
    let datagrams = match frame.segment_len as usize {
        0 => vec![payload],
        len => payload.chunks(len).collect(),
    };
    let packets: Vec<_> = datagrams.into_iter().filter_map(|datagram| packet(kind, datagram)).collect();
    (!packets.is_empty()).then_some((kind, packets))
}

/// The packet in one datagram.
fn packet(kind: TunnelKind, datagram: &[u8]) -> Option<Vec<u8>> {
    let inner = read(kind, datagram, &TlvMap::default()).ok()?;
    let bytes = datagram.get(inner.offset..)?;
    if inner.payload == Payload::Ethernet {
        return Some(bytes.to_vec());
    }
    // A file of Ethernet frames: IP gets a header without addresses, as the switch itself has it.
    let mut frame = vec![0; 12];
    frame.extend(inner.payload.eth_type().to_be_bytes());
    frame.extend(bytes);
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An Ethernet frame with an IPv4 packet of this protocol.
    fn ipv4(proto: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        let len = (20 + payload.len()) as u16;
        frame.extend([0x45, 0, (len >> 8) as u8, len as u8, 0, 0, 0, 0, 64, proto, 0, 0]);
        frame.extend([192, 0, 2, 1, 192, 0, 2, 2]);
        frame.extend(payload);
        frame
    }

    fn udp(dst: u16, payload: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0xc0, 0, (dst >> 8) as u8, dst as u8];
        datagram.extend([((payload.len() + 8) >> 8) as u8, (payload.len() + 8) as u8, 0, 0]);
        datagram.extend(payload);
        ipv4(17, &datagram)
    }

    fn vxlan(inner: &[u8]) -> Vec<u8> {
        [&[8, 0, 0, 0, 0, 0, 100, 0][..], inner].concat()
    }

    fn opened(bytes: Vec<u8>, segment_len: u32) -> Option<(TunnelKind, Vec<Vec<u8>>)> {
        open(&CapturedFrame { frame: bytes, segment_len, ..CapturedFrame::default() })
    }

    #[test]
    fn each_kind_of_tunnel_is_opened() {
        let inner = ipv4(1, &[8; 40]);
        assert_eq!(opened(udp(4789, &vxlan(&inner)), 0), Some((TunnelKind::Vxlan, vec![inner.clone()])));
        let geneve = [&[0, 0, 0x65, 0x58, 0, 0, 100, 0][..], &inner].concat();
        assert_eq!(opened(udp(6081, &geneve), 0), Some((TunnelKind::Geneve, vec![inner.clone()])));
        let gre = [&[0, 0, 0x65, 0x58][..], &inner].concat();
        assert_eq!(opened(ipv4(47, &gre), 0), Some((TunnelKind::Gre, vec![inner.clone()])));
        let bare = [&[0; 12][..], &inner[12..]].concat();
        assert_eq!(opened(ipv4(4, &inner[14..]), 0), Some((TunnelKind::Ipip, vec![bare])));
    }

    #[test]
    fn padding_behind_a_datagram_is_not_of_the_packet() {
        let inner = ipv4(1, &[8; 40]);
        let mut frame = udp(4789, &vxlan(&inner));
        frame.extend([0; 9]);
        assert_eq!(opened(frame, 0), Some((TunnelKind::Vxlan, vec![inner])));
    }

    #[test]
    fn each_datagram_of_a_super_frame_is_opened() {
        let inner: Vec<_> = (0..3).map(|n| ipv4(17, &[n; 100])).collect();
        let last = ipv4(17, &[9; 10]);
        let all: Vec<_> = inner.iter().chain([&last]).flat_map(|inner| vxlan(inner)).collect();
        let segment = vxlan(&inner[0]).len() as u32;
        let want = inner.into_iter().chain([last]).collect();
        assert_eq!(opened(udp(4789, &all), segment), Some((TunnelKind::Vxlan, want)));
    }

    #[test]
    fn what_is_no_tunnel_s_is_left_alone() {
        let inner = ipv4(1, &[8; 40]);
        for frame in [inner.clone(), udp(53, &vxlan(&inner)), udp(4789, &[8; 3]), ipv4(47, &[]), vec![1; 20], vec![]] {
            assert_eq!(opened(frame, 0), None);
        }
        for cut in 0..50 {
            let mut frame = udp(4789, &vxlan(&inner));
            frame.truncate(cut);
            _ = opened(frame, 7);
        }
    }
}
