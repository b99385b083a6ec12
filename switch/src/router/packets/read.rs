//! The datagram in a frame.

use super::Mac;
use sluice_flows::field::{IP_PROTO_ICMP, IP_PROTO_ICMPV6};
use sluice_flows::key::{FRAG_ANY, FRAG_LATER, PacketKey, slot};
use sluice_flows::packet::rewrite::datagram_end;
use sluice_flows::packet::{L3, L4, checksum, extract};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP datagram as it lies in a frame.
#[derive(Clone, Copy, Debug)]
pub(in crate::router) struct Datagram<'a> {
    /// Who sent the frame.
    pub(in crate::router) eth_src: Mac,
    /// Whom the frame was for.
    pub(in crate::router) eth_dst: Mac,
    /// Source address.
    pub(in crate::router) src: IpAddr,
    /// Destination address, of the same version.
    pub(in crate::router) dst: IpAddr,
    /// TTL or hop limit.
    pub(in crate::router) hop_limit: u8,
    /// TOS or traffic class.
    pub(in crate::router) tos: u8,
    /// Protocol of the message; behind extension headers where they could be followed.
    pub(in crate::router) protocol: u8,
    /// It is a fragment, but not the first one.
    pub(in crate::router) is_later_fragment: bool,
    /// It is a fragment.
    pub(in crate::router) is_fragment: bool,
    /// All of it, from the IP header on and without padding.
    pub(in crate::router) bytes: &'a [u8],
    /// What follows the IP header and its extension headers; empty where those could not be followed.
    pub(in crate::router) message: &'a [u8],
    /// The protocol is ICMP or ICMPv6, of the right IP version, and the message has its header of 8 bytes.
    is_icmp: bool,
}

/// An ICMP or ICMPv6 message whose checksum is right.
#[derive(Clone, Copy, Debug)]
pub(in crate::router) struct IcmpMessage<'a> {
    /// Its type.
    pub(in crate::router) kind: u8,
    /// Its code.
    pub(in crate::router) code: u8,
    /// Its second word.
    pub(in crate::router) word: [u8; 4],
    /// What follows.
    pub(in crate::router) body: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// The datagram in a frame; `None` if there is none with a sound IP header.
    pub(in crate::router) fn read(frame: &'a [u8]) -> Option<Self> {
        let mut key = PacketKey::ZERO;
        let layers = extract(frame, 0, &mut key);
        let (src, dst): (IpAddr, IpAddr) = match layers.l3 {
            L3::Ipv4 => {
                let address = |s| Ipv4Addr::from_bits(key.get(s) as u32);
                (address(slot::IP_SRC).into(), address(slot::IP_DST).into())
            }
            L3::Ipv6 => {
                let address = |s| Ipv6Addr::from_bits(key.get(s));
                (address(slot::IPV6_SRC).into(), address(slot::IPV6_DST).into())
            }
            _ => return None,
        };
        let end = datagram_end(frame, &layers);
        let start = usize::from(layers.l3_ofs);
        let message = match usize::from(layers.l4_ofs) {
            0 => &[],
            at => frame.get(at..end).unwrap_or_default(),
        };
        let fragment = key.get(slot::IP_FRAG) as u8;
        Some(Self {
            eth_src: mac(&key, slot::ETH_SRC),
            eth_dst: mac(&key, slot::ETH_DST),
            src,
            dst,
            hop_limit: key.get(slot::IP_TTL) as u8,
            tos: key.get(slot::IP_TOS) as u8,
            protocol: key.get(slot::IP_PROTO) as u8,
            is_later_fragment: fragment & FRAG_LATER != 0,
            is_fragment: fragment & FRAG_ANY != 0,
            bytes: frame.get(start..end)?,
            message,
            is_icmp: matches!(layers.l4, L4::Icmp | L4::Icmpv6),
        })
    }

    /// The type of the ICMP or ICMPv6 message that it says it has; `None` within if the message is too short to have one,
    /// `None` if it has another protocol.
    pub(in crate::router) fn icmp_type(&self) -> Option<Option<u8>> {
        let icmp = if self.src.is_ipv4() { IP_PROTO_ICMP } else { IP_PROTO_ICMPV6 };
        (self.protocol == icmp).then(|| self.message.first().copied().filter(|_| !self.is_later_fragment))
    }

    /// The ICMP or ICMPv6 message that it has, if it is whole and its checksum is right.
    pub(in crate::router) fn icmp(&self) -> Option<IcmpMessage<'a>> {
        if !self.is_icmp || self.is_fragment {
            return None;
        }
        let (head, body) = self.message.split_first_chunk::<8>()?;
        let pseudo = match (self.src, self.dst) {
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let len = u32::try_from(self.message.len()).ok()?;
                checksum::pseudo_v6(src.octets(), dst.octets(), IP_PROTO_ICMPV6, len)
            }
            _ => 0,
        };
        let [kind, code, _, _, word @ ..] = *head;
        checksum::verify(self.message, pseudo).then_some(IcmpMessage { kind, code, word, body })
    }
}

fn mac(key: &PacketKey, slot: sluice_flows::key::Slot) -> Mac {
    let [_, _, mac @ ..] = (key.get(slot) as u64).to_be_bytes();
    mac
}
