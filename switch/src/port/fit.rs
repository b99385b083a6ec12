//! Whether a frame fits an output's MTU.

use super::TxOutcome;
use sluice_flows::DropReason;
use sluice_flows::packet::{Frame, GsoKind, Offload};
use std::sync::atomic::{AtomicU32, Ordering};

/// Greatest MTU of a port without a device: the longest IP packet.
pub(crate) const MAX_MTU: u32 = 65_535;
/// The range of such a port's MTU, in words.
pub(crate) const MTU_RANGE: &str = "this port takes up to 65535";
const ETH_LEN: usize = 14;
const TAG_LEN: usize = 4;
/// Tags that do not count against the MTU: Linux reserves room for as many.
const MAX_TAGS: usize = 2;

/// Whether `frame`, or a segment of it if it is a super-frame, is longer than `mtu` bytes behind its link header. Up to
/// two VLAN tags belong to the link header.
#[inline]
pub(crate) fn too_long(frame: &Frame, mtu: u32) -> bool {
    let mtu = mtu as usize;
    if frame.offload.gso == GsoKind::None && frame.len() <= ETH_LEN + mtu {
        return false;
    }
    let link_len = link_len(frame.bytes());
    if frame.offload.gso == GsoKind::None {
        return frame.len() > link_len + mtu;
    }
    let header_len = transport_end(frame.bytes(), link_len, &frame.offload);
    header_len.saturating_sub(link_len) + usize::from(frame.offload.gso_size) > mtu
}

/// Length in bytes of the longest frame that will be on the wire: the frame's, or that of a segment if it is a
/// super-frame.
pub(crate) fn longest(frame: &Frame) -> usize {
    match frame.offload.gso {
        GsoKind::None => frame.len(),
        _ => {
            let header_len = transport_end(frame.bytes(), link_len(frame.bytes()), &frame.offload);
            frame.len().min(header_len + usize::from(frame.offload.gso_size))
        }
    }
}

/// Gives every frame that fits `mtu` to `send`, and notes what became of each.
pub(crate) fn send_each(
    frames: &[&Frame],
    outcomes: &mut [TxOutcome],
    mtu: &AtomicU32,
    mut send: impl FnMut(&Frame) -> TxOutcome,
) {
    let mtu = mtu.load(Ordering::Relaxed);
    for (frame, outcome) in frames.iter().zip(outcomes) {
        *outcome = if too_long(frame, mtu) { TxOutcome::Dropped(DropReason::MtuExceeded) } else { send(frame) };
    }
}

/// Length of the Ethernet header with its tags.
pub(crate) fn link_len(bytes: &[u8]) -> usize {
    let mut len = ETH_LEN;
    for _ in 0..MAX_TAGS {
        match bytes.get(len - 2..len) {
            Some([0x81, 0x00] | [0x88, 0xa8]) => len += TAG_LEN,
            _ => break,
        }
    }
    len
}

/// Where the transport header of a super-frame ends.
pub(crate) fn transport_end(bytes: &[u8], link_len: usize, offload: &Offload) -> usize {
    let start = if offload.csum_partial {
        usize::from(offload.csum_start)
    } else {
        let version_ihl = bytes.get(link_len).copied().unwrap_or(0);
        link_len + if version_ihl >> 4 == 4 { usize::from(version_ihl & 15) * 4 } else { 40 }
    };
    match offload.gso {
        GsoKind::Udp => start + 8,
        _ => start + bytes.get(start + 12).map_or(20, |b| usize::from(b >> 4) * 4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(tags: usize, payload: usize) -> Frame {
        let mut bytes = vec![0; 12];
        for _ in 0..tags {
            bytes.extend([0x81, 0x00, 0x00, 0x64]);
        }
        bytes.extend([0x08, 0x00]);
        bytes.resize(bytes.len() + payload, 0x45);
        Frame::from_bytes(&bytes)
    }

    #[test]
    fn tags_do_not_count_against_the_mtu() {
        for tags in 0..=2 {
            assert!(!too_long(&tagged(tags, 1500), 1500), "{tags} tags");
            assert!(too_long(&tagged(tags, 1501), 1500), "{tags} tags");
        }
        assert!(too_long(&tagged(3, 1500), 1500), "a third tag is payload");
    }

    #[test]
    fn a_super_frame_is_as_long_as_its_segments() {
        let mut frame = tagged(1, 40_000);
        let tcp = 18 + 20;
        frame.bytes_mut()[tcp + 12] = 0x80;
        frame.offload = Offload {
            gso: GsoKind::Tcp4,
            gso_size: 1448,
            csum_partial: true,
            csum_start: tcp as u16,
            csum_offset: 16,
            ..Offload::NONE
        };
        assert!(!too_long(&frame, 1500));
        assert!(too_long(&frame, 1499));
        frame.offload.csum_partial = false;
        assert!(!too_long(&frame, 1500), "without a partial checksum the IP header says where TCP starts");
        assert!(too_long(&frame, 1499));
    }

    #[test]
    fn metadata_that_points_outside_the_frame_is_survived() {
        let mut frame = tagged(0, 0);
        frame.offload = Offload {
            gso: GsoKind::Tcp6,
            gso_size: u16::MAX,
            csum_partial: true,
            csum_start: u16::MAX,
            csum_offset: u16::MAX,
            ..Offload::NONE
        };
        assert!(too_long(&frame, 1500));
        assert!(!too_long(&Frame::from_bytes(&[]), 0));
    }
}
