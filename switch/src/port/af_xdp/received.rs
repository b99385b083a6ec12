//! What the sender of a received frame left undone. AF_XDP does not say; the bytes do.
//!
//! On a veth, frames come as the other end's stack made them: their checksums partial, and in generic mode as
//! super-frames. A partial checksum is the sum of the pseudo-header. One that is complete has that value once in 65,536
//! times, and is none the worse for being taken for a partial one: completed, it comes out as it was.
//!
//! # Limits
//! - Checksums inside a tunnel are not looked at: a host that tunnels by a veth has to finish them itself (`ethtool -K
//!   DEV tx off`).
//! - How a super-frame was to be cut is lost. TCP's bounds mean nothing to who receives it, so it is cut to the MTU; a
//!   UDP super-frame cannot be told from a long datagram, and is dropped.

use crate::port::fit;
use sluice_flows::key::{FRAG_ANY, PacketKey, slot};
use sluice_flows::packet::rewrite::datagram_end;
use sluice_flows::packet::{Frame, GsoKind, L3, L4, Layers, Offload, checksum, extract};

const IP_PROTO_TCP: u8 = 6;
const IP_PROTO_UDP: u8 = 17;
/// Where the flags are in a TCP header, and CWR among them.
const TCP_FLAGS: usize = 13;
const CWR: u8 = 0x80;

/// Gives the frame, received by a port of this `mtu`, its metadata. False when it is a super-frame that nobody can cut.
#[inline]
pub(super) fn restore(frame: &mut Frame, mtu: u32) -> bool {
    let bytes = frame.bytes();
    let mut key = PacketKey::default();
    let layers = extract(bytes, 0, &mut key);
    let whole = key.get(slot::IP_FRAG) as u8 & FRAG_ANY == 0;
    let partial = if whole { partial_checksum(bytes, &layers) } else { None };
    let mut offload = Offload::NONE;
    if let Some(offset) = partial {
        (offload.csum_partial, offload.csum_start, offload.csum_offset) = (true, layers.l4_ofs, offset);
    }
    if fit::too_long(frame, mtu) {
        let headers = layers.payload_ofs.checked_sub(layers.l3_ofs);
        let size = headers
            .and_then(|headers| mtu.checked_sub(headers.into()))
            .and_then(|size| u16::try_from(size).ok())
            .filter(|size| *size > 0);
        let (L4::Tcp, Some(size), true) = (layers.l4, size, offload.csum_partial) else { return false };
        offload.gso = if layers.l3 == L3::Ipv4 { GsoKind::Tcp4 } else { GsoKind::Tcp6 };
        (offload.gso_size, offload.hdr_len) = (size, layers.payload_ofs);
        offload.gso_ecn = bytes.get(usize::from(layers.l4_ofs) + TCP_FLAGS).is_some_and(|flags| flags & CWR != 0);
    }
    frame.offload = offload;
    true
}

/// Where the checksum field is, from the transport header on, if the checksum is partial.
#[inline]
fn partial_checksum(bytes: &[u8], layers: &Layers) -> Option<u16> {
    let (l3, l4) = (usize::from(layers.l3_ofs), usize::from(layers.l4_ofs));
    let (protocol, offset) = match layers.l4 {
        L4::Tcp => (IP_PROTO_TCP, 16),
        L4::Udp => (IP_PROTO_UDP, 6),
        // All of a CRC is left to the output, and the field is zero.
        L4::Sctp => return (chunk::<4>(bytes, l4 + 8)? == [0; 4]).then_some(8),
        _ => return None,
    };
    let field = u16::from_be_bytes(chunk(bytes, l4 + offset)?);
    // A frame that a stack has left to the device is not padded.
    if field == 0 || layers.routed || datagram_end(bytes, layers) != bytes.len() {
        return None;
    }
    let len = bytes.len() - l4;
    let pseudo = match layers.l3 {
        L3::Ipv4 => {
            checksum::pseudo_v4(chunk(bytes, l3 + 12)?, chunk(bytes, l3 + 16)?, protocol, u16::try_from(len).ok()?)
        }
        L3::Ipv6 => checksum::pseudo_v6(chunk(bytes, l3 + 8)?, chunk(bytes, l3 + 24)?, protocol, len as u32),
        _ => return None,
    };
    (field == pseudo).then_some(offset as u16)
}

fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sluice_flows::packet::segment::fill_checksum;

    const MTU: u32 = 1500;

    /// TCP or UDP over IPv4 or IPv6 with `payload` bytes, and the sum of the pseudo-header as its checksum.
    fn frame(v6: bool, tcp: bool, payload: usize) -> Frame {
        let (protocol, header) = if tcp { (IP_PROTO_TCP, 20) } else { (IP_PROTO_UDP, 8) };
        let len = header + payload;
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        let pseudo = if v6 {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            bytes.extend((len as u16).to_be_bytes());
            bytes.extend([protocol, 64]);
            bytes.extend([1; 16].into_iter().chain([2; 16]));
            checksum::pseudo_v6([1; 16], [2; 16], protocol, len as u32)
        } else {
            bytes.extend([0x08, 0, 0x45, 0]);
            bytes.extend((20 + len as u16).to_be_bytes());
            bytes.extend([0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            checksum::pseudo_v4([10, 0, 0, 1], [10, 0, 0, 2], protocol, len as u16)
        };
        let l4 = bytes.len();
        bytes.resize(l4 + len, 0x5a);
        if tcp {
            bytes[l4 + 12..l4 + 14].copy_from_slice(&[0x50, 0x18]);
        } else {
            bytes[l4 + 4..l4 + 6].copy_from_slice(&(len as u16).to_be_bytes());
        }
        let field = l4 + if tcp { 16 } else { 6 };
        bytes[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
        Frame::from_bytes(&bytes)
    }

    fn kinds() -> impl Iterator<Item = (bool, bool)> {
        [(false, false), (false, true), (true, false), (true, true)].into_iter()
    }

    #[test]
    fn a_partial_checksum_is_recognised_and_a_complete_one_is_left_alone() {
        for (v6, tcp) in kinds() {
            let mut received = frame(v6, tcp, 100);
            assert!(restore(&mut received, MTU));
            let offload = received.offload;
            assert_eq!((offload.csum_partial, offload.gso), (true, GsoKind::None), "{v6} {tcp}");
            assert_eq!(offload.csum_start, if v6 { 54 } else { 34 });
            assert_eq!(offload.csum_offset, if tcp { 16 } else { 6 });
            fill_checksum(&mut received).unwrap();
            assert!(restore(&mut received, MTU));
            assert_eq!(received.offload, Offload::NONE, "{v6} {tcp}");
        }
    }

    #[test]
    fn a_complete_checksum_of_a_partial_one_s_value_comes_out_as_it_was() {
        for (v6, tcp) in kinds() {
            let mut sent = frame(v6, tcp, 100);
            // The payload's last word makes up for the rest, so that the sum is the pseudo-header's.
            let start = if v6 { 54 } else { 34 };
            let end = sent.len();
            let pseudo = u16::from_be_bytes(chunk(sent.bytes(), start + if tcp { 16 } else { 6 }).unwrap());
            sent.bytes_mut()[end - 2..].fill(0);
            let missing = !checksum::add(checksum::sum(&sent.bytes()[start..]), pseudo);
            sent.bytes_mut()[end - 2..].copy_from_slice(&missing.to_be_bytes());
            assert!(checksum::verify(&sent.bytes()[start..], pseudo));
            let before = sent.bytes().to_vec();
            assert!(restore(&mut sent, MTU) && sent.offload.csum_partial);
            fill_checksum(&mut sent).unwrap();
            assert_eq!(sent.bytes(), before);
        }
    }

    #[test]
    fn a_tcp_super_frame_is_to_be_cut_to_the_mtu_and_a_udp_one_is_dropped() {
        for v6 in [false, true] {
            let mut sent = frame(v6, true, 40_000);
            assert!(restore(&mut sent, MTU));
            let kind = if v6 { GsoKind::Tcp6 } else { GsoKind::Tcp4 };
            assert_eq!((sent.offload.gso, sent.offload.gso_size), (kind, if v6 { 1440 } else { 1460 }));
            assert!(!fit::too_long(&sent, MTU));
            assert!(!restore(&mut frame(v6, false, 40_000), MTU));
            assert!(!restore(&mut frame(v6, true, 40_000), 40), "no room for a payload");
        }
    }

    #[test]
    fn a_long_frame_with_a_complete_checksum_is_no_super_frame() {
        let mut sent = frame(false, true, 1461);
        fill_checksum(&mut {
            let mut whole = Frame::with_capacity(2000);
            whole.clone_from_frame(&sent);
            whole
        })
        .unwrap();
        sent.bytes_mut()[50] ^= 1;
        assert!(!restore(&mut sent, MTU));
    }

    #[test]
    fn fragments_and_padded_frames_are_left_alone() {
        let mut fragment = frame(false, false, 100);
        fragment.bytes_mut()[20] = 0x20;
        assert!(restore(&mut fragment, MTU));
        assert_eq!(fragment.offload, Offload::NONE);
        let mut padded = Frame::with_capacity(100);
        padded.clone_from_frame(&frame(false, false, 1));
        assert!(padded.extend(&[0; 20]));
        assert!(restore(&mut padded, MTU));
        assert_eq!(padded.offload, Offload::NONE);
    }

    proptest! {
        /// Any bytes are survived, and what is said of them can be done.
        #[test]
        fn metadata_lies_within_the_frame(
            (v6, tcp, payload) in (any::<bool>(), any::<bool>(), 0_usize..3000),
            noise in proptest::collection::vec((0_usize..200, any::<u8>()), 0..8),
            mtu in 0_u32..2000,
        ) {
            let mut sent = frame(v6, tcp, payload);
            let len = sent.len();
            for (at, byte) in noise {
                sent.bytes_mut()[at % len] = byte;
            }
            if restore(&mut sent, mtu) && sent.offload.csum_partial {
                let end = usize::from(sent.offload.csum_start) + usize::from(sent.offload.csum_offset) + 2;
                prop_assert!(end <= sent.len());
                prop_assert!(fill_checksum(&mut sent).is_ok());
            }
        }
    }
}
