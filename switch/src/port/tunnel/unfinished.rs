//! What a peer on the same machine leaves for us to do.
//!
//! Between namespaces of one machine the kernel puts off work that a network card would do, and hands packets over
//! without it: the checksum inside is left partial, and a TCP super-frame that went into the kernel's own tunnel comes
//! out as one datagram, longer than the path's MTU. A socket is told nothing of that. So a TCP or UDP checksum that is
//! not right is compared with the sum of the pseudo-header, which is what a partial one holds; one that the network
//! broke matches it as rarely as a broken one is taken for a right one.
//!
//! # Limits
//! Where one datagram of a UDP super-frame ended cannot be known; such a super-frame is dropped.

use sluice_flows::packet::{Frame, GsoKind, Offload, checksum};

const ETH_LEN: usize = 14;
const TAG_LEN: usize = 4;
const MAX_TAGS: usize = 2;
/// Length of the IP packets that super-frames are cut into: what every IPv6 link carries.
const SEGMENT_MTU: usize = 1280;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Sets the metadata of a frame whose checksum was found not to be right, where it is partial. `room` tells how long a
/// frame may be to be sent as one packet. False for what must be dropped.
pub(super) fn complete(frame: &mut Frame, room: impl FnOnce() -> usize) -> bool {
    let Some(partial) = partial(frame.bytes()) else { return true };
    let Partial { l3, l4, tcp, v6, payload } = partial;
    frame.offload =
        Offload { csum_partial: true, csum_start: l4 as u16, csum_offset: if tcp { 16 } else { 6 }, ..Offload::NONE };
    // Every link carries that much behind its link header.
    if frame.len() <= l4.max(576) {
        return true;
    }
    let room = room();
    if frame.len() <= room {
        return true;
    }
    // The sender's segments are not known. Smaller ones carry the same stream, and have to fit the links behind.
    let size = room.min(l3 + SEGMENT_MTU).saturating_sub(payload);
    if !tcp || size == 0 {
        return false;
    }
    frame.offload.gso = if v6 { GsoKind::Tcp6 } else { GsoKind::Tcp4 };
    frame.offload.gso_size = size as u16;
    frame.offload.hdr_len = payload as u16;
    true
}

/// Where things are in a frame with a partial checksum.
struct Partial {
    l3: usize,
    l4: usize,
    tcp: bool,
    v6: bool,
    payload: usize,
}

fn partial(bytes: &[u8]) -> Option<Partial> {
    let mut l3 = ETH_LEN;
    for _ in 0..MAX_TAGS {
        if let [0x81, 0x00] | [0x88, 0xa8] = bytes.get(l3 - 2..l3)? {
            l3 += TAG_LEN;
        }
    }
    let ip = bytes.get(l3..)?;
    let (header_len, proto, len, v6) = match bytes.get(l3 - 2..l3)? {
        [0x08, 0x00] => {
            let header = ip.first_chunk::<20>()?;
            let whole = u16::from_be_bytes([header[6], header[7]]) & 0x3fff == 0;
            let header_len = usize::from(header[0] & 15) * 4;
            (header_len, *header.get(9).filter(|_| whole)?, be16(header, 2)?.checked_sub(header_len)?, false)
        }
        [0x86, 0xdd] => (40, *ip.get(6)?, be16(ip, 4)?, true),
        _ => return None,
    };
    let (tcp, field) = match proto {
        TCP => (true, 16),
        UDP => (false, 6),
        _ => return None,
    };
    let message = ip.get(header_len..header_len.checked_add(len)?)?;
    let pseudo = if v6 {
        let (src, dst) = (ip.get(8..)?.first_chunk()?, ip.get(24..)?.first_chunk()?);
        checksum::pseudo_v6(*src, *dst, proto, len as u32)
    } else {
        let (src, dst) = (ip.get(12..)?.first_chunk()?, ip.get(16..)?.first_chunk()?);
        checksum::pseudo_v4(*src, *dst, proto, len as u16)
    };
    let l4 = l3 + header_len;
    let l4_len = if tcp { usize::from(*message.get(12)? >> 4) * 4 } else { 8 };
    (be16(message, field)? == usize::from(pseudo)).then_some(Partial { l3, l4, tcp, v6, payload: l4 + l4_len })
}

fn be16(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*word).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A TCP frame with a checksum field of this value.
    fn tcp(field: u16, payload: usize) -> Frame {
        let mut bytes = vec![0; 12];
        bytes.extend([0x08, 0x00, 0x45, 0]);
        bytes.extend((40 + payload as u16).to_be_bytes());
        bytes.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        let mut message = vec![0; 20 + payload];
        message[12] = 0x50;
        message[16..18].copy_from_slice(&field.to_be_bytes());
        bytes.extend(message);
        Frame::from_bytes(&bytes)
    }

    fn pseudo(payload: usize) -> u16 {
        checksum::pseudo_v4([10, 0, 0, 1], [10, 0, 0, 2], 6, 20 + payload as u16)
    }

    #[test]
    fn a_partial_checksum_is_known_by_its_pseudo_header() {
        let mut frame = tcp(pseudo(100), 100);
        assert!(complete(&mut frame, || 1500));
        let Offload { csum_partial, csum_start, csum_offset, gso, .. } = frame.offload;
        assert_eq!((csum_partial, csum_start, csum_offset, gso), (true, 34, 16, GsoKind::None));
        let mut broken = tcp(pseudo(100) ^ 1, 100);
        assert!(complete(&mut broken, || 1500));
        assert_eq!(broken.offload, Offload::NONE, "what is broken stays as it is");
    }

    #[test]
    fn what_is_longer_than_the_path_is_a_super_frame_again() {
        let mut frame = tcp(pseudo(20_000), 20_000);
        assert!(complete(&mut frame, || 1464));
        assert_eq!((frame.offload.gso, frame.offload.gso_size, frame.offload.hdr_len), (GsoKind::Tcp4, 1240, 54));
    }

    #[test]
    fn any_bytes_are_survived() {
        let whole = tcp(pseudo(4), 4);
        for len in 0..whole.len() {
            assert!(complete(&mut Frame::from_bytes(&whole.bytes()[..len]), || 0));
        }
    }
}
