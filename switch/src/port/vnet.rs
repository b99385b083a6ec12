//! The virtio-net header (VIRTIO 1.2, 5.1.6) in front of frames on TAP and packet sockets, to and from [`Offload`].
//!
//! Both devices speak the legacy form: fields in the machine's own byte order. Ten bytes, and two more (`num_buffers`)
//! in the form that TAP is asked for here.

use sluice_flows::packet::{GsoKind, Offload};

/// Length of the header with `num_buffers`.
pub(crate) const LEN: usize = 12;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_TCP4: u8 = 1;
const GSO_TCP6: u8 = 4;
const GSO_UDP: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// Reads a header. Kinds of segmentation that were never asked for read as none.
#[inline]
pub(crate) fn decode(header: &[u8; LEN]) -> Offload {
    let [flags, gso, h0, h1, s0, s1, c0, c1, o0, o1, ..] = *header;
    if flags == 0 && gso == 0 {
        return Offload::NONE;
    }
    let kind = match gso & !GSO_ECN {
        GSO_TCP4 => GsoKind::Tcp4,
        GSO_TCP6 => GsoKind::Tcp6,
        GSO_UDP => GsoKind::Udp,
        _ => GsoKind::None,
    };
    let cut = kind != GsoKind::None;
    let csum_partial = flags & NEEDS_CSUM != 0;
    Offload {
        gso: kind,
        gso_ecn: cut && gso & GSO_ECN != 0,
        csum_partial,
        csum_valid: flags & DATA_VALID != 0,
        gso_size: if cut { u16::from_ne_bytes([s0, s1]) } else { 0 },
        hdr_len: if cut { u16::from_ne_bytes([h0, h1]) } else { 0 },
        csum_start: if csum_partial { u16::from_ne_bytes([c0, c1]) } else { 0 },
        csum_offset: if csum_partial { u16::from_ne_bytes([o0, o1]) } else { 0 },
    }
}

/// Writes a header for a frame of `len` bytes. `csum_valid` is not said: outputs do not take a sender's word for it.
#[inline]
pub(crate) fn encode(offload: &Offload, len: usize) -> [u8; LEN] {
    let mut header = [0; LEN];
    if offload.csum_partial {
        header[0] = NEEDS_CSUM;
        header[6..8].copy_from_slice(&offload.csum_start.to_ne_bytes());
        header[8..10].copy_from_slice(&offload.csum_offset.to_ne_bytes());
    }
    let gso = match offload.gso {
        GsoKind::None => return header,
        GsoKind::Tcp4 => GSO_TCP4,
        GsoKind::Tcp6 => GSO_TCP6,
        GsoKind::Udp => GSO_UDP,
    };
    header[1] = gso | if offload.gso_ecn { GSO_ECN } else { 0 };
    let hdr_len = usize::from(offload.hdr_len).min(len) as u16;
    header[2..4].copy_from_slice(&hdr_len.to_ne_bytes());
    header[4..6].copy_from_slice(&offload.gso_size.to_ne_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUPER: Offload = Offload {
        gso: GsoKind::Tcp6,
        gso_ecn: true,
        csum_partial: true,
        csum_valid: false,
        gso_size: 1428,
        hdr_len: 86,
        csum_start: 54,
        csum_offset: 16,
    };

    #[test]
    fn a_header_reads_back_as_it_was_written() {
        for gso in [GsoKind::None, GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp] {
            let mut offload = Offload { gso, ..SUPER };
            if gso == GsoKind::None {
                offload = Offload { gso_ecn: false, gso_size: 0, hdr_len: 0, ..offload };
            }
            assert_eq!(decode(&encode(&offload, 9000)), offload);
        }
        assert_eq!(decode(&encode(&Offload::NONE, 60)), Offload::NONE);
    }

    #[test]
    fn a_header_length_past_the_frame_is_cut_to_it() {
        assert_eq!(decode(&encode(&SUPER, 60)).hdr_len, 60);
    }

    #[test]
    fn fragmentation_nobody_asked_for_reads_as_no_super_frame() {
        let mut header = encode(&SUPER, 9000);
        header[1] = 3;
        let offload = decode(&header);
        assert_eq!((offload.gso, offload.gso_size), (GsoKind::None, 0));
        assert!(offload.csum_partial);
    }
}
