//! Changing a frame in place: fields, VLAN tags, and the checksums that cover them.
//!
//! Everything here runs per packet on a cache hit: no allocation, and every access is checked against the frame, so
//! [`Layers`] that do not belong to it can at worst change the wrong bytes.
//!
//! Checksums are updated incrementally (RFC 1624), which keeps a wrong checksum wrong: a frame that was damaged on its
//! way here is still found out by its receiver. The rules:
//!
//! - IPv4 addresses, TOS and TTL are covered by the header's own checksum. Addresses are also covered, as part of the
//!   pseudo-header, by TCP, UDP and ICMPv6 checksums; in a fragment that is the first one's business alone.
//! - A UDP checksum of 0 stays 0 (there is none); one that becomes 0 is written as 0xffff.
//! - A partial checksum ([`Offload::csum_partial`](super::Offload::csum_partial)) holds the pseudo-header's sum only:
//!   addresses change it, the message's own fields do not.
//! - SCTP has a CRC32c over the message alone. Its change depends on the bits that flip and on how far from the end of
//!   the message they are; it takes as long to compute as a CRC over the message.
//! - While an IPv6 routing header has segments left, the destination is not the one in the pseudo-header (RFC 8200,
//!   8.1), so changing it leaves the transport checksum alone.
//!
//! UDP-Lite and DCCP checksums are not known here and go stale when addresses change, as in Open vSwitch.

use super::checksum;
use super::layers::{
    ETH_LEN, ICMP_LEN, IPV6_LEN, ND_OPTIONS_OFS, ND_TARGET_OFS, VLAN_LEN, be16, be32, is_nd, nd_options,
};
use super::{Frame, L3, L4, Layers};
use crate::field::Field;
use crate::key::VLAN_PRESENT;

#[cfg(test)]
mod tests;

/// Writes the bits of `field` that are set in `mask` from `value` (both right-aligned, as in the field's
/// [`Slot`](crate::key::Slot)) and updates the checksums over them.
///
/// Returns whether the header that holds the field is soundly there; if not, nothing changes. `layers` are those of
/// the frame as it is now. Fields that are not in the frame's bytes (registers, metadata, marks, tunnel headers)
/// and those that actions may not set give false.
///
/// `VlanTci` and `VlanVid` ignore the tag-present bit and keep the DEI bit of the wire: a tag comes and goes with
/// [`push_vlan`] and [`pop_vlan`]. `NwTos` is the whole TOS byte as far as `mask` says so. An ND address can be
/// written only where the message already has that option. MPLS fields are those of the outermost label; of NSH flags
/// the wire has two bits, of its TTL six.
#[inline]
pub fn set_field(frame: &mut Frame, layers: &Layers, field: Field, value: u128, mask: u128) -> bool {
    let offload = &frame.offload;
    let partial = offload.csum_partial && offload.csum_start == layers.l4_ofs;
    let mut packet = Packet { bytes: frame.bytes_mut(), layers, partial };
    packet.set(field, value, mask).is_some()
}

/// Inserts a VLAN tag in front of all others and moves `layers` and the offload offsets along. The tag-present bit of
/// `tci` is not written. False, and nothing changes, without an Ethernet header or without headroom.
pub fn push_vlan(frame: &mut Frame, layers: &mut Layers, tpid: u16, tci: u16) -> bool {
    if usize::from(layers.l3_ofs) < ETH_LEN {
        return false;
    }
    let Some(gap) = frame.open_gap(12, VLAN_LEN) else {
        return false;
    };
    let [t0, t1] = tpid.to_be_bytes();
    let [c0, c1] = (tci & !VLAN_PRESENT).to_be_bytes();
    gap.copy_from_slice(&[t0, t1, c0, c1]);
    frame.offload.shift(VLAN_LEN as i16);
    layers.shift(VLAN_LEN as i16);
    layers.vlans = layers.vlans.saturating_add(1);
    true
}

/// Removes the outer VLAN tag and moves `layers` and the offload offsets along. False, and nothing changes, when there
/// is none.
pub fn pop_vlan(frame: &mut Frame, layers: &mut Layers) -> bool {
    if layers.vlans == 0 || !frame.close_gap(12, VLAN_LEN) {
        return false;
    }
    frame.offload.shift(-(VLAN_LEN as i16));
    layers.shift(-(VLAN_LEN as i16));
    layers.vlans -= 1;
    true
}

/// Where the IP datagram at `l3_ofs` ends: what follows is padding. Within the frame when `layers` are the frame's own.
pub fn datagram_end(bytes: &[u8], layers: &Layers) -> usize {
    let l3 = usize::from(layers.l3_ofs);
    match layers.l3 {
        L3::Ipv4 => l3 + usize::from(be16(bytes, l3 + 2)),
        L3::Ipv6 => l3 + IPV6_LEN + usize::from(be16(bytes, l3 + 4)),
        _ => bytes.len(),
    }
}

/// A frame's bytes with what is needed to find and fix its fields.
struct Packet<'a> {
    bytes: &'a mut [u8],
    layers: &'a Layers,
    /// The checksum of the transport header at `l4_ofs` is partial.
    partial: bool,
}

impl Packet<'_> {
    /// `None` when the field's header is not there.
    #[inline]
    fn set(&mut self, field: Field, value: u128, mask: u128) -> Option<()> {
        let l3 = usize::from(self.layers.l3_ofs);
        match field {
            Field::EthDst => self.eth(0, value, mask),
            Field::EthSrc => self.eth(6, value, mask),
            Field::VlanTci => self.vlan(value, mask),
            Field::VlanVid => self.vlan(value, mask & 0xfff),
            Field::VlanPcp => self.vlan(value << 13, mask << 13),
            Field::IpSrc => self.ipv4_address(l3 + 12, value, mask),
            Field::IpDst => self.ipv4_address(l3 + 16, value, mask),
            Field::Ipv6Src => self.ipv6_address(l3 + 8, value, mask, true),
            Field::Ipv6Dst => self.ipv6_address(l3 + 24, value, mask, !self.layers.routed),
            Field::Ipv6Label => {
                self.l3(L3::Ipv6)?;
                self.write::<4>(l3, value, mask & 0xf_ffff).map(drop)
            }
            Field::NwTos => self.tos(value, mask & 0xff),
            Field::IpDscp => self.tos(value << 2, (mask & 0x3f) << 2),
            Field::IpEcn => self.tos(value, mask & 3),
            Field::IpTtl => self.ttl(value, mask & 0xff),
            Field::ArpOp => self.arp_op(value, mask & 0xff),
            Field::ArpSha => self.arp::<6>(8, value, mask),
            Field::ArpSpa => self.arp::<4>(14, value, mask),
            Field::ArpTha => self.arp::<6>(18, value, mask),
            Field::ArpTpa => self.arp::<4>(24, value, mask),
            Field::TcpSrc => self.port(L4::Tcp, 0, value, mask),
            Field::TcpDst => self.port(L4::Tcp, 2, value, mask),
            Field::UdpSrc => self.port(L4::Udp, 0, value, mask),
            Field::UdpDst => self.port(L4::Udp, 2, value, mask),
            Field::SctpSrc => self.sctp_port(0, value, mask),
            Field::SctpDst => self.sctp_port(2, value, mask),
            Field::IcmpType => self.icmp(L4::Icmp, value << 8, (mask & 0xff) << 8),
            Field::IcmpCode => self.icmp(L4::Icmp, value, mask & 0xff),
            Field::Icmpv6Type => self.icmp(L4::Icmpv6, value << 8, (mask & 0xff) << 8),
            Field::Icmpv6Code => self.icmp(L4::Icmpv6, value, mask & 0xff),
            Field::NdTarget | Field::NdSll | Field::NdTll | Field::NdReserved | Field::NdOptionsType => {
                self.nd(field, value, mask)
            }
            Field::MplsLabel => self.mpls(value << 12, (mask & 0xf_ffff) << 12),
            Field::MplsTc => self.mpls(value << 9, (mask & 0x7) << 9),
            Field::MplsTtl => self.mpls(value, mask & 0xff),
            Field::NshFlags => self.nsh::<2>(0, value << 12, (mask & 0x3) << 12),
            Field::NshTtl => self.nsh::<2>(0, value << 6, (mask & 0x3f) << 6),
            Field::NshSpi => self.nsh::<4>(4, value << 8, (mask & 0xff_ffff) << 8),
            Field::NshSi => self.nsh::<4>(4, value, mask & 0xff),
            Field::NshC1 => self.nsh_context(8, value, mask),
            Field::NshC2 => self.nsh_context(12, value, mask),
            Field::NshC3 => self.nsh_context(16, value, mask),
            Field::NshC4 => self.nsh_context(20, value, mask),
            _ => None,
        }
    }

    /// Writes the low `N` bytes of `value` where `mask` says so; the change of the sum over them, or `None` when the
    /// frame does not reach that far.
    #[inline(always)]
    fn write<const N: usize>(&mut self, at: usize, value: u128, mask: u128) -> Option<u16> {
        let place = self.bytes.get_mut(at..)?.first_chunk_mut::<N>()?;
        let mut wide = [0; 16];
        *wide.last_chunk_mut()? = *place;
        let old = u128::from_be_bytes(wide);
        let mask = mask & (u128::MAX >> (128 - 8 * N));
        let new = old & !mask | value & mask;
        *place = *new.to_be_bytes().last_chunk()?;
        Some(checksum::diff(old, new))
    }

    /// Whether the network header is `l3`.
    #[inline(always)]
    fn l3(&self, l3: L3) -> Option<()> {
        (self.layers.l3 == l3).then_some(())
    }

    /// Whether the transport header is `l4`.
    #[inline(always)]
    fn l4(&self, l4: L4) -> Option<()> {
        (self.layers.l4 == l4).then_some(())
    }

    fn eth(&mut self, at: usize, value: u128, mask: u128) -> Option<()> {
        if usize::from(self.layers.l3_ofs) < ETH_LEN {
            return None;
        }
        self.write::<6>(at, value, mask).map(drop)
    }

    fn vlan(&mut self, tci: u128, mask: u128) -> Option<()> {
        if self.layers.vlans == 0 {
            return None;
        }
        self.write::<2>(ETH_LEN, tci, mask & !u128::from(VLAN_PRESENT)).map(drop)
    }

    fn ipv4_address(&mut self, at: usize, value: u128, mask: u128) -> Option<()> {
        self.l3(L3::Ipv4)?;
        let diff = self.write::<4>(at, value, mask)?;
        self.ipv4_checksum(diff);
        self.pseudo_header(diff);
        Some(())
    }

    fn ipv6_address(&mut self, at: usize, value: u128, mask: u128, in_pseudo_header: bool) -> Option<()> {
        self.l3(L3::Ipv6)?;
        let diff = self.write::<16>(at, value, mask)?;
        if in_pseudo_header {
            self.pseudo_header(diff);
        }
        Some(())
    }

    fn tos(&mut self, value: u128, mask: u128) -> Option<()> {
        let l3 = usize::from(self.layers.l3_ofs);
        match self.layers.l3 {
            L3::Ipv4 => {
                let diff = self.write::<2>(l3, value, mask)?;
                self.ipv4_checksum(diff);
            }
            L3::Ipv6 => {
                self.write::<4>(l3, value << 20, mask << 20)?;
            }
            _ => return None,
        }
        Some(())
    }

    fn ttl(&mut self, value: u128, mask: u128) -> Option<()> {
        let l3 = usize::from(self.layers.l3_ofs);
        match self.layers.l3 {
            L3::Ipv4 => {
                let diff = self.write::<2>(l3 + 8, value << 8, mask << 8)?;
                self.ipv4_checksum(diff);
            }
            L3::Ipv6 => {
                self.write::<2>(l3 + 6, value, mask)?;
            }
            _ => return None,
        }
        Some(())
    }

    /// The key holds opcodes up to 255 and 0 for all others, so a write starts from that.
    fn arp_op(&mut self, value: u128, mask: u128) -> Option<()> {
        let at = usize::from(self.layers.l3_ofs) + 6;
        let old = match u128::from(be16(self.bytes, at)) {
            op @ ..=0xff => op,
            _ => 0,
        };
        self.arp::<2>(6, old & !mask | value & mask, 0xffff)
    }

    fn arp<const N: usize>(&mut self, at: usize, value: u128, mask: u128) -> Option<()> {
        self.l3(L3::Arp)?;
        self.write::<N>(usize::from(self.layers.l3_ofs) + at, value, mask).map(drop)
    }

    fn port(&mut self, l4: L4, at: usize, value: u128, mask: u128) -> Option<()> {
        self.l4(l4)?;
        let diff = self.write::<2>(usize::from(self.layers.l4_ofs) + at, value, mask)?;
        self.message(diff);
        Some(())
    }

    fn icmp(&mut self, l4: L4, value: u128, mask: u128) -> Option<()> {
        self.port(l4, 0, value, mask)
    }

    fn sctp_port(&mut self, at: usize, value: u128, mask: u128) -> Option<()> {
        self.l4(L4::Sctp)?;
        let start = usize::from(self.layers.l4_ofs);
        let end = datagram_end(self.bytes, self.layers);
        let ports = be32(self.bytes.get(start..end)?, 0);
        self.write::<2>(start + at, value, mask)?;
        if !self.partial {
            let flips = ports ^ be32(self.bytes, start);
            let flips = checksum::sctp_flips(flips.to_be_bytes(), (end - start).saturating_sub(4));
            let field = self.bytes.get_mut(start + 8..)?.first_chunk_mut::<4>()?;
            *field = (u32::from_be_bytes(*field) ^ u32::from_be_bytes(flips)).to_be_bytes();
        }
        Some(())
    }

    fn nd(&mut self, field: Field, value: u128, mask: u128) -> Option<()> {
        self.l4(L4::Icmpv6)?;
        let start = usize::from(self.layers.l4_ofs);
        let end = datagram_end(self.bytes, self.layers);
        let message = self.bytes.get(start..end)?;
        if !is_nd(message) || message.len() < ICMP_LEN {
            return None;
        }
        let (options, len) = (nd_options(message), message.len());
        let diff = match field {
            Field::NdReserved => self.write::<4>(start + 4, value, mask)?,
            // The type of whatever option comes first, as in Open vSwitch.
            Field::NdOptionsType if len >= ND_OPTIONS_OFS + 8 => {
                self.write::<2>(start + ND_OPTIONS_OFS, value << 8, (mask & 0xff) << 8)?
            }
            Field::NdOptionsType => return None,
            _ if options.twice || len < ND_OPTIONS_OFS => return None,
            Field::NdTarget => self.write::<16>(start + ND_TARGET_OFS, value, mask)?,
            Field::NdSll => self.write::<6>(start + options.sll?, value, mask)?,
            _ => self.write::<6>(start + options.tll?, value, mask)?,
        };
        self.message(diff);
        Some(())
    }

    /// The outermost label stack entry.
    fn mpls(&mut self, value: u128, mask: u128) -> Option<()> {
        self.l3(L3::Mpls)?;
        self.write::<4>(self.layers.l3_ofs.into(), value, mask).map(drop)
    }

    fn nsh<const N: usize>(&mut self, at: usize, value: u128, mask: u128) -> Option<()> {
        self.l3(L3::Nsh)?;
        self.write::<N>(usize::from(self.layers.l3_ofs) + at, value, mask).map(drop)
    }

    /// A context word, which only metadata of type 1 has.
    fn nsh_context(&mut self, at: usize, value: u128, mask: u128) -> Option<()> {
        let md_type = *self.bytes.get(usize::from(self.layers.l3_ofs) + 2)?;
        if md_type == 1 { self.nsh::<4>(at, value, mask) } else { None }
    }

    /// Updates the IPv4 header's checksum.
    #[inline(always)]
    fn ipv4_checksum(&mut self, diff: u16) {
        let at = usize::from(self.layers.l3_ofs) + 10;
        if let Some(field) = self.bytes.get_mut(at..).and_then(|b| b.first_chunk_mut::<2>()) {
            *field = checksum::update(u16::from_be_bytes(*field), diff).to_be_bytes();
        }
    }

    /// Updates the transport checksum after an address in the pseudo-header changed.
    #[inline(always)]
    fn pseudo_header(&mut self, diff: u16) {
        if self.layers.l4 != L4::Icmp {
            self.transport_checksum(diff, true);
        }
    }

    /// Updates the transport checksum after something in the message itself changed.
    #[inline(always)]
    fn message(&mut self, diff: u16) {
        if !self.partial {
            self.transport_checksum(diff, false);
        }
    }

    #[inline(always)]
    fn transport_checksum(&mut self, diff: u16, pseudo: bool) {
        let ofs = match self.layers.l4 {
            L4::Tcp => 16,
            L4::Udp => 6,
            L4::Icmp | L4::Icmpv6 => 2,
            L4::Sctp | L4::None => return,
        };
        let at = usize::from(self.layers.l4_ofs) + ofs;
        let Some(field) = self.bytes.get_mut(at..).and_then(|b| b.first_chunk_mut::<2>()) else {
            return;
        };
        let old = u16::from_be_bytes(*field);
        let new = match self.layers.l4 {
            _ if pseudo && self.partial => checksum::add(old, diff),
            L4::Udp if old == 0 => 0,
            L4::Udp => checksum::udp(checksum::update(old, diff)),
            _ => checksum::update(old, diff),
        };
        *field = new.to_be_bytes();
    }
}
