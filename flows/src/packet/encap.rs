//! Headers put in front of a packet and taken off again: MPLS labels, NSH, Ethernet.
//!
//! As [`rewrite`](super::rewrite), this runs per packet on a cache hit: no allocation, every access checked. Offload
//! metadata moves along, so a partial checksum stays where it is in the packet. What a super-frame is cut as is still
//! the packet under the new headers, and [`Segmenter`](super::segment::Segmenter) finds it there; an output that leaves
//! the cutting to the kernel cannot be given one (see [`is_plain`]).
//!
//! A label goes behind the Ethernet header and its VLAN tags, an NSH header in front of everything, as in Open vSwitch.
//! A packet without an Ethernet header has [`Layers::l3_ofs`] 0 and no tags: it is on its way from one header to the
//! next, and no port can send it.

use super::layers::{ETH_LEN, MPLS_LEN, NSH_LEN, NSH_TYPE1_LEN, extract_bare, nsh_eth_type, nsh_len};
use super::{Frame, GsoKind, L3, Layers, extract};
use crate::datapath::NshHeader;
use crate::field::{ETH_TYPE_MPLS, ETH_TYPE_MPLS_MCAST};
use crate::key::PacketKey;

#[cfg(test)]
mod tests;

/// Longest NSH header, in bytes: its length has six bits, in words.
const NSH_MAX_LEN: usize = 63 * 4;

/// Whether an output may leave the rest of the work on this frame to the kernel: it is no super-frame, or one whose
/// packet directly follows the Ethernet header.
#[inline]
pub fn is_plain(frame: &Frame, layers: &Layers) -> bool {
    frame.offload.gso == GsoKind::None || matches!(layers.l3, L3::Ipv4 | L3::Ipv6)
}

/// Puts a label stack entry in front of the network header, behind the VLAN tags, and gives the packet the EtherType
/// `eth_type`. False, and nothing changes, when that is none of MPLS or there is no room.
pub fn push_mpls(frame: &mut Frame, layers: &mut Layers, eth_type: u16, lse: u32) -> bool {
    if !matches!(eth_type, ETH_TYPE_MPLS | ETH_TYPE_MPLS_MCAST) {
        return false;
    }
    let at = usize::from(layers.l3_ofs);
    let Some(gap) = frame.open_gap(at, MPLS_LEN) else {
        return false;
    };
    gap.copy_from_slice(&lse.to_be_bytes());
    set_eth_type(frame, at, eth_type);
    frame.offload.shift(MPLS_LEN as i16);
    *layers = Layers { l3_ofs: layers.l3_ofs, vlans: layers.vlans, l3: L3::Mpls, ..Layers::NONE };
    true
}

/// Takes the outermost label stack entry off; `eth_type` is that of what is under it. False, and nothing changes,
/// without one.
pub fn pop_mpls(frame: &mut Frame, layers: &mut Layers, eth_type: u16) -> bool {
    let at = usize::from(layers.l3_ofs);
    if layers.l3 != L3::Mpls || !frame.close_gap(at, MPLS_LEN) {
        return false;
    }
    set_eth_type(frame, at, eth_type);
    frame.offload.shift(-(MPLS_LEN as i16));
    let key = &mut PacketKey::default();
    *layers = if at == 0 { extract_bare(frame.bytes(), eth_type.max(1), key) } else { extract(frame.bytes(), 0, key) };
    true
}

/// Writes the EtherType in front of the network header at `l3_ofs`, if there is an Ethernet header.
fn set_eth_type(frame: &mut Frame, l3_ofs: usize, eth_type: u16) {
    if l3_ofs >= ETH_LEN
        && let Some(place) = frame.bytes_mut().get_mut(l3_ofs - 2..l3_ofs)
    {
        place.copy_from_slice(&eth_type.to_be_bytes());
    }
}

/// Puts an Ethernet header in front of the packet; addresses in the low 48 bits. False, and nothing changes, when there
/// is no room.
pub fn push_ethernet(frame: &mut Frame, layers: &mut Layers, src: u64, dst: u64, eth_type: u16) -> bool {
    let Some(gap) = frame.open_gap(0, ETH_LEN) else {
        return false;
    };
    let ([_, _, dst @ ..], [_, _, src @ ..]) = (dst.to_be_bytes(), src.to_be_bytes());
    let parts = [&dst[..], &src, &eth_type.to_be_bytes()];
    for (place, byte) in gap.iter_mut().zip(parts.into_iter().flatten()) {
        *place = *byte;
    }
    frame.offload.shift(ETH_LEN as i16);
    if layers.l3_ofs == 0 {
        layers.shift(ETH_LEN as i16);
    } else {
        // An Ethernet frame in an Ethernet frame: nothing of it is looked at.
        *layers = Layers::NONE;
    }
    layers.l3_ofs = ETH_LEN as u16;
    true
}

/// Takes the Ethernet header off, VLAN tags and an LLC/SNAP header included. False, and nothing changes, without one.
pub fn pop_ethernet(frame: &mut Frame, layers: &mut Layers) -> bool {
    let len = layers.l3_ofs;
    if usize::from(len) < ETH_LEN || !frame.close_gap(0, len.into()) {
        return false;
    }
    let delta = -(len as i16);
    frame.offload.shift(delta);
    layers.shift(delta);
    (layers.l3_ofs, layers.vlans) = (0, 0);
    true
}

/// Puts an NSH header (RFC 8300) in front of the packet, its Ethernet header included. False, and nothing changes, when
/// there is no room or the metadata is longer than a header can say.
pub fn push_nsh(frame: &mut Frame, layers: &mut Layers, header: &NshHeader) -> bool {
    let tlvs = if header.md_type == 2 { &*header.tlvs } else { &[] };
    let tlvs_len: usize = tlvs.iter().map(|tlv| 4 + tlv.value.len().next_multiple_of(4)).sum();
    let len = if header.md_type == 1 { NSH_TYPE1_LEN } else { NSH_LEN.saturating_add(tlvs_len) };
    if len > NSH_MAX_LEN {
        return false;
    }
    let Some(gap) = frame.open_gap(0, len) else {
        return false;
    };
    gap.fill(0);
    let (flags, ttl) = (u16::from(header.flags & 0x3), u16::from(header.ttl & 0x3f));
    let mut rest = gap;
    put(&mut rest, &(flags << 12 | ttl << 6 | (len / 4) as u16).to_be_bytes());
    put(&mut rest, &[header.md_type, header.np]);
    put(&mut rest, &header.path.to_be_bytes());
    if header.md_type == 1 {
        for word in header.context {
            put(&mut rest, &word.to_be_bytes());
        }
    }
    for tlv in tlvs {
        put(&mut rest, &tlv.class.to_be_bytes());
        put(&mut rest, &[tlv.ty, tlv.value.len() as u8]);
        put(&mut rest, &tlv.value);
        let padding = tlv.value.len().next_multiple_of(4) - tlv.value.len();
        put(&mut rest, &[0; 3][..padding]);
    }
    frame.offload.shift(len as i16);
    *layers = Layers { l3: L3::Nsh, ..Layers::NONE };
    true
}

/// Writes `bytes` to the front of `place`, which is then what is behind them.
fn put(place: &mut &mut [u8], bytes: &[u8]) {
    if let Some((front, rest)) = std::mem::take(place).split_at_mut_checked(bytes.len()) {
        front.copy_from_slice(bytes);
        *place = rest;
    }
}

/// Takes the NSH header off that the packet starts with; what is behind it is what it says. False, and nothing changes,
/// when the packet starts with none.
pub fn pop_nsh(frame: &mut Frame, layers: &mut Layers) -> bool {
    if layers.l3 != L3::Nsh || layers.l3_ofs != 0 {
        return false;
    }
    let Some(len) = nsh_len(frame.bytes()) else {
        return false;
    };
    let eth_type = frame.bytes().get(3).and_then(|np| nsh_eth_type(*np));
    if !frame.close_gap(0, len) {
        return false;
    }
    frame.offload.shift(-(len as i16));
    // A protocol that is not known is one that nothing is read of.
    *layers = extract_bare(frame.bytes(), eth_type.unwrap_or(1), &mut PacketKey::default());
    true
}
