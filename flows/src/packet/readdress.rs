//! New addresses and ports for the packets of one connection and direction, all of them in one step.
//!
//! # Why
//! Address translation does the same to every packet of a connection and direction: it is known beforehand what stands
//! in the headers and what will, and with that by how much each checksum changes. [`Readdress`] keeps the bytes to write
//! and those differences, so that a packet takes two or three stores and as many additions, where
//! [`set_field`](super::rewrite::set_field) reads, masks and sums each of up to four fields.
//!
//! # Rules
//! - It must be applied only to packets that show what it was made for; a checksum goes wrong otherwise. Whatever is
//!   applied, no byte outside the headers changes.
//! - Checksums are kept as [rewrite](super::rewrite) says: updated, so that a wrong one stays wrong; partial ones change
//!   by the addresses only; a UDP checksum of 0 stays 0; a destination that a routing header still leads to is not in
//!   the pseudo-header. Super-frames are rewritten whole.
//! - A later fragment has addresses only. The first one has ports and the checksum of the whole datagram, which is
//!   updated as if all were there. Not so with SCTP: its CRC changes by where the message ends, so a fragmented one must
//!   be rewritten before it is cut.
//! - Of ICMP and ICMPv6 the source port is the identifier; the destination port is not written.
//! - [`Readdress::apply_quoted`] does the same to the packet that an ICMP error quotes, as far as it is there.

use super::layers::{Chain, FRAGMENT, ICMP_LEN, IPV4_LEN, IPV6_LEN, be16};
use super::rewrite::datagram_end;
use super::{Frame, L3, L4, Layers, checksum};
use crate::datapath::Change;
use crate::field::{
    ETH_TYPE_IPV4, ETH_TYPE_IPV6, Field, IP_PROTO_ICMP, IP_PROTO_ICMPV6, IP_PROTO_SCTP, IP_PROTO_TCP, IP_PROTO_UDP,
};
use crate::key::{PacketKey, slot};
use smallvec::SmallVec;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[cfg(test)]
mod tests;

/// Where a packet comes from and goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// Source port; the identifier of an ICMP or ICMPv6 message.
    pub src_port: u16,
    /// Destination port; not looked at for ICMP and ICMPv6.
    pub dst_port: u16,
}

impl Ends {
    /// Those of a packet with this key; the ports of ICMP and ICMPv6 are 0. `None` if it is not IP.
    pub(super) fn of(key: &PacketKey) -> Option<Self> {
        let (src, dst) = match key.get(slot::ETH_TYPE) as u16 {
            ETH_TYPE_IPV4 => {
                let address = |slot| IpAddr::from(Ipv4Addr::from_bits(key.get(slot) as u32));
                (address(slot::IP_SRC), address(slot::IP_DST))
            }
            ETH_TYPE_IPV6 => {
                let address = |slot| IpAddr::from(Ipv6Addr::from_bits(key.get(slot)));
                (address(slot::IPV6_SRC), address(slot::IPV6_DST))
            }
            _ => return None,
        };
        let port = |slot| match l4_of(key.get(slot::IP_PROTO) as u8, src.is_ipv6()) {
            L4::Tcp | L4::Udp | L4::Sctp => key.get(slot) as u16,
            L4::Icmp | L4::Icmpv6 | L4::None => 0,
        };
        Some(Self { src, dst, src_port: port(slot::TP_SRC), dst_port: port(slot::TP_DST) })
    }
}

/// The bits of [`Readdress::changed`].
const SRC: u8 = 1;
const DST: u8 = 2;
const SRC_PORT: u8 = 4;
const DST_PORT: u8 = 8;

/// New addresses and ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Readdress {
    /// Source and destination as they lie in the IP header; of IPv4 the first 8 bytes.
    addresses: [u8; 32],
    /// Source and destination port as they lie in the transport header.
    ports: [u8; 4],
    /// What the ports add to a sum.
    ports_diff: u16,
    /// What the source address adds.
    src_diff: u16,
    /// What both addresses add.
    addresses_diff: u16,
    /// What addresses and ports add.
    diff: u16,
    v6: bool,
    l4: L4,
    changed: u8,
}

impl Readdress {
    /// What makes packets of IP protocol `proto` that show `old` show `new`. `None` when that changes nothing, or when
    /// addresses are of different families.
    pub fn new(proto: u8, old: &Ends, new: &Ends) -> Option<Self> {
        let v6 = old.src.is_ipv6();
        if [old.dst, new.src, new.dst].iter().any(|address| address.is_ipv6() != v6) {
            return None;
        }
        let l4 = l4_of(proto, v6);
        let icmp = matches!(l4, L4::Icmp | L4::Icmpv6);
        let ported = l4 != L4::None;
        let changed = [
            (old.src != new.src, SRC),
            (old.dst != new.dst, DST),
            (old.src_port != new.src_port && ported, SRC_PORT),
            (old.dst_port != new.dst_port && ported && !icmp, DST_PORT),
        ];
        let changed = changed.iter().filter(|(is, _)| *is).fold(0, |bits, (_, bit)| bits | bit);
        if changed == 0 {
            return None;
        }
        let ports = |ends: &Ends| {
            let dst_port = if icmp { 0 } else { ends.dst_port };
            u32::from(ends.src_port) << 16 | u32::from(dst_port)
        };
        let mut addresses = [0; 32];
        put(&mut addresses, 0, new.src);
        put(&mut addresses, if v6 { 16 } else { 4 }, new.dst);
        let src_diff = checksum::diff(bits(old.src), bits(new.src));
        let addresses_diff = checksum::add(src_diff, checksum::diff(bits(old.dst), bits(new.dst)));
        let ports_diff = match l4 {
            L4::None => 0,
            _ => checksum::diff(ports(old).into(), ports(new).into()),
        };
        Some(Self {
            addresses,
            ports: ports(new).to_be_bytes(),
            ports_diff,
            src_diff,
            addresses_diff,
            diff: checksum::add(addresses_diff, ports_diff),
            v6,
            l4,
            changed,
        })
    }

    /// What makes packets with the key `before` show the addresses and ports of `after`. Both are those of whole packets
    /// of one protocol; an ICMP identifier is in no key and stays. `None` when that changes nothing.
    pub fn between(before: &PacketKey, after: &PacketKey) -> Option<Self> {
        Self::new(before.get(slot::IP_PROTO) as u8, &Ends::of(before)?, &Ends::of(after)?)
    }

    /// Rewrites a frame with these layers. False, and nothing changes, if it is of another family or transport protocol.
    #[inline]
    pub fn apply(&self, frame: &mut Frame, layers: &Layers) -> bool {
        let offload = &frame.offload;
        let partial = offload.csum_partial && offload.csum_start == layers.l4_ofs;
        self.write(frame.bytes_mut(), layers, partial).is_some()
    }

    /// The fields that change, and to what; an ICMP identifier, which is no field, is not among them.
    pub fn changes(&self) -> SmallVec<[Change; 4]> {
        let [src_field, dst_field] =
            if self.v6 { [Field::Ipv6Src, Field::Ipv6Dst] } else { [Field::IpSrc, Field::IpDst] };
        let number = |at: usize| self.addresses[at..at + 4].iter().fold(0, |n, byte| n << 8 | u128::from(*byte));
        let wide = |at: usize| (0..4).fold(0, |n, word| n << 32 | number(at + 4 * word));
        let (src, dst) = if self.v6 { (wide(0), wide(16)) } else { (number(0), number(4)) };
        let [s0, s1, d0, d1] = self.ports;
        let (src_port, dst_port) = (u16::from_be_bytes([s0, s1]).into(), u16::from_be_bytes([d0, d1]).into());
        let ports = match self.l4 {
            L4::Tcp => Some([Field::TcpSrc, Field::TcpDst]),
            L4::Udp => Some([Field::UdpSrc, Field::UdpDst]),
            L4::Sctp => Some([Field::SctpSrc, Field::SctpDst]),
            L4::Icmp | L4::Icmpv6 | L4::None => None,
        };
        let addresses = [(SRC, src_field, src), (DST, dst_field, dst)];
        let ports = ports.map(|[src, dst]| [(SRC_PORT, src, src_port), (DST_PORT, dst, dst_port)]);
        (addresses.into_iter().chain(ports.into_iter().flatten()))
            .filter(|(bit, ..)| self.changed & bit != 0)
            .map(|(_, field, value)| Change { field, value, mask: field.slot().max() })
            .collect()
    }

    /// Rewrites the packet that the ICMP or ICMPv6 error in a frame with these layers quotes, and the error's own
    /// checksum. What the quotation lacks of the transport header is left out. False, and nothing changes, if the
    /// message quotes no such packet.
    pub fn apply_quoted(&self, frame: &mut Frame, layers: &Layers) -> bool {
        let offload = &frame.offload;
        let partial = offload.csum_partial && offload.csum_start == layers.l4_ofs;
        let bytes = frame.bytes_mut();
        let end = datagram_end(bytes, layers).min(bytes.len());
        let Some(bytes) = bytes.get_mut(..end) else { return false };
        let Some(quoted) = quoted(bytes, layers) else { return false };
        // All that may change lies between these, an even number of bytes from the start of what is summed.
        let headers = usize::from(quoted.l3_ofs)..end.min(usize::from(quoted.l4_ofs) + 20);
        let before = checksum::sum(&bytes[headers.clone()]);
        if self.write(bytes, &quoted, false).is_none() {
            return false;
        }
        let after = checksum::sum(&bytes[headers]);
        if !partial && before != after {
            update(bytes, usize::from(layers.l4_ofs) + 2, |sum| checksum::update(sum, checksum::add(!before, after)));
        }
        true
    }

    /// `None` if the packet is another one.
    #[inline(always)]
    fn write(&self, bytes: &mut [u8], layers: &Layers, partial: bool) -> Option<()> {
        if layers.l4 != self.l4 && layers.l4 != L4::None {
            return None;
        }
        let l3 = usize::from(layers.l3_ofs);
        if self.v6 {
            if layers.l3 != L3::Ipv6 {
                return None;
            }
            *bytes.get_mut(l3 + 8..)?.first_chunk_mut::<32>()? = self.addresses;
        } else {
            if layers.l3 != L3::Ipv4 {
                return None;
            }
            let header = bytes.get_mut(l3..)?.first_chunk_mut::<IPV4_LEN>()?;
            let sum = checksum::update(u16::from_be_bytes([header[10], header[11]]), self.addresses_diff);
            [header[10], header[11]] = sum.to_be_bytes();
            *header.last_chunk_mut::<8>()? = *self.addresses.first_chunk::<8>()?;
        }
        let l4 = usize::from(layers.l4_ofs);
        match layers.l4 {
            L4::Tcp => self.ports_and_sum(bytes, l4, 16, layers.routed, partial),
            L4::Udp => self.ports_and_sum(bytes, l4, 6, layers.routed, partial),
            L4::Sctp => self.sctp(bytes, layers, partial),
            L4::Icmp | L4::Icmpv6 => self.identifier(bytes, layers, partial),
            L4::None => {}
        }
        Some(())
    }

    /// Writes the ports of TCP or UDP, and the checksum `sum_ofs` bytes behind them.
    #[inline(always)]
    fn ports_and_sum(&self, bytes: &mut [u8], l4: usize, sum_ofs: usize, routed: bool, partial: bool) {
        if let Some(ports) = bytes.get_mut(l4..).and_then(|b| b.first_chunk_mut::<4>()) {
            *ports = self.ports;
        }
        let pseudo = if routed { self.src_diff } else { self.addresses_diff };
        let diff = if routed { checksum::add(self.src_diff, self.ports_diff) } else { self.diff };
        let udp = sum_ofs == 6;
        update(bytes, l4 + sum_ofs, |sum| match sum {
            sum if partial => checksum::add(sum, pseudo),
            0 if udp => 0,
            sum if udp => checksum::udp(checksum::update(sum, diff)),
            sum => checksum::update(sum, diff),
        });
    }

    /// Writes SCTP's ports and its CRC32c, which covers nothing else that changes. The CRC of a packet that is not whole
    /// stays as it is.
    #[cold]
    fn sctp(&self, bytes: &mut [u8], layers: &Layers, partial: bool) {
        let l4 = usize::from(layers.l4_ofs);
        let end = datagram_end(bytes, layers);
        let Some(message) = bytes.get_mut(l4..) else { return };
        let Some(ports) = message.first_chunk_mut::<4>() else { return };
        let old = u32::from_be_bytes(std::mem::replace(ports, self.ports));
        let change = old ^ u32::from_be_bytes(self.ports);
        let whole = end.checked_sub(l4).filter(|len| *len <= message.len());
        if let (Some(len), Some((_, crc)), false) = (whole, message.split_at_mut_checked(8), partial)
            && let Some(crc) = crc.first_chunk_mut::<4>()
        {
            let flips = checksum::sctp_flips(change.to_be_bytes(), len.saturating_sub(4));
            crc.iter_mut().zip(flips).for_each(|(byte, flip)| *byte ^= flip);
        }
    }

    /// Writes an ICMP or ICMPv6 message's identifier. Only the latter's checksum covers the addresses.
    #[cold]
    fn identifier(&self, bytes: &mut [u8], layers: &Layers, partial: bool) {
        let l4 = usize::from(layers.l4_ofs);
        if self.changed & SRC_PORT != 0
            && let Some(place) = bytes.get_mut(l4 + 4..).and_then(|b| b.first_chunk_mut::<2>())
        {
            *place = [self.ports[0], self.ports[1]];
        }
        let pseudo = match layers.l4 {
            L4::Icmp => 0,
            _ if layers.routed => self.src_diff,
            _ => self.addresses_diff,
        };
        update(bytes, l4 + 2, |sum| match partial {
            true => checksum::add(sum, pseudo),
            false => checksum::update(sum, checksum::add(pseudo, self.ports_diff)),
        });
    }
}

/// Replaces the 16-bit number at `at`, if it is there.
#[inline(always)]
fn update(bytes: &mut [u8], at: usize, new: impl FnOnce(u16) -> u16) {
    if let Some(field) = bytes.get_mut(at..).and_then(|b| b.first_chunk_mut::<2>()) {
        *field = new(u16::from_be_bytes(*field)).to_be_bytes();
    }
}

fn l4_of(proto: u8, v6: bool) -> L4 {
    match proto {
        IP_PROTO_TCP => L4::Tcp,
        IP_PROTO_UDP => L4::Udp,
        IP_PROTO_SCTP => L4::Sctp,
        IP_PROTO_ICMP if !v6 => L4::Icmp,
        IP_PROTO_ICMPV6 if v6 => L4::Icmpv6,
        _ => L4::None,
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn put(bytes: &mut [u8; 32], at: usize, address: IpAddr) {
    match address {
        IpAddr::V4(address) => bytes[at..at + 4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes[at..at + 16].copy_from_slice(&address.octets()),
    }
}

/// Where the headers of the packet that an ICMP error quotes are. The transport header may be there in part only; `bytes`
/// end where the error ends.
fn quoted(bytes: &[u8], layers: &Layers) -> Option<Layers> {
    let start = usize::from(layers.l4_ofs) + ICMP_LEN;
    let ip = bytes.get(start..)?;
    let (l3, header_len, proto, routed) = match layers.l4 {
        L4::Icmp => {
            let header_len = usize::from(ip.first()? & 0xf) * 4;
            if header_len < IPV4_LEN || header_len > ip.len() {
                return None;
            }
            // Only the first fragment has a transport header.
            let proto = if be16(ip, 6) & 0x1fff == 0 { ip[9] } else { FRAGMENT };
            (L3::Ipv4, header_len, proto, false)
        }
        L4::Icmpv6 => {
            let (header, body) = ip.split_first_chunk::<IPV6_LEN>()?;
            let body = body.get(..usize::from(be16(header, 4))).unwrap_or(body);
            let mut chain = Chain { proto: header[6], rest: body, frag: 0, routed: false };
            if !chain.walk() {
                return None;
            }
            (L3::Ipv6, IPV6_LEN + body.len() - chain.rest.len(), chain.proto, chain.routed)
        }
        _ => return None,
    };
    let l4_ofs = u16::try_from(start + header_len).ok()?;
    let l4 = l4_of(proto, l3 == L3::Ipv6);
    Some(Layers { l3_ofs: start as u16, l4_ofs, payload_ofs: 0, vlans: 0, l3, l4, routed })
}
