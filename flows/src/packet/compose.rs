//! Frame bytes from a flow key: what a trace, a packet-out or a test sends when it is given a flow instead of bytes.
//!
//! [`compose`] is the reverse of [`extract`](super::extract): for a key whose fields agree with each other, reading the
//! composed frame gives the packet part of the key back (mark and tunnel headers aside, which no frame carries). A key that could not
//! come from a frame still gives a frame, and always the same one; a field that has no place in it is left out.
//!
//! Choices where a key leaves them open: no IP options and no extension headers, identification 0, more fragments
//! follow, a later fragment starts at byte 800, TCP sequence numbers 0 and window 65,535, no padding to the Ethernet
//! minimum. Checksums are right, over what the frame holds when it is a first fragment.

use super::checksum;
use super::layers::{FRAGMENT, IPV4_LEN, IPV6_LEN, NSH_LEN, NSH_TYPE1_LEN, TCP_LEN, UDP_LEN};
use crate::field::{
    ETH_TYPE_ARP, ETH_TYPE_IPV4, ETH_TYPE_IPV6, ETH_TYPE_MPLS, ETH_TYPE_MPLS_MCAST, ETH_TYPE_NSH, ETH_TYPE_RARP,
    ETH_TYPE_VLAN, IP_PROTO_ICMP, IP_PROTO_ICMPV6, IP_PROTO_SCTP, IP_PROTO_TCP, IP_PROTO_UDP, ND_ADVERT, ND_SOLICIT,
};
use crate::key::{FRAG_ANY, FRAG_LATER, FlowKey, Slot, VLAN_PRESENT, slot};

#[cfg(test)]
mod tests;

/// Longest IP payload that is composed, in bytes: the frame stays within IPv4's total length.
const MAX_BODY: usize = 65_535 - IPV4_LEN;
/// Next header "none" (RFC 8200, 4.7): what a later IPv6 fragment is said to hold, as the key does not know.
const NO_NEXT_HEADER: u8 = 59;
/// The bit of a label stack entry that ends the stack.
const MPLS_BOTTOM: u32 = 0x100;
/// Fragment offset of a later fragment, in units of 8 bytes.
const LATER_OFFSET: u16 = 100;

/// The frame that `key` describes, with `payload` behind its last header.
///
/// The payload of ARP and of neighbour discovery messages is not written: their layout leaves no room for one. What
/// does not fit in 65,535 bytes of IPv4 is cut off.
pub fn compose(key: &FlowKey, payload: &[u8]) -> Vec<u8> {
    let payload = payload.get(..MAX_BODY - 40).unwrap_or(payload);
    let mut out = Vec::with_capacity(128 + payload.len());
    out.extend(mac(key, slot::ETH_DST));
    out.extend(mac(key, slot::ETH_SRC));
    for (tpid, tci) in [(slot::VLAN_TPID, slot::VLAN_TCI), (slot::INNER_VLAN_TPID, slot::INNER_VLAN_TCI)]
        .map(|(a, b)| (num16(key, a), num16(key, b)))
    {
        if tci & VLAN_PRESENT == 0 {
            break;
        }
        out.extend(if tpid == 0 { ETH_TYPE_VLAN } else { tpid }.to_be_bytes());
        out.extend((tci & !VLAN_PRESENT).to_be_bytes());
    }
    let eth_type = num16(key, slot::ETH_TYPE);
    if eth_type < 0x600 {
        llc(&mut out, payload);
        return out;
    }
    out.extend(eth_type.to_be_bytes());
    match eth_type {
        ETH_TYPE_IPV4 => ipv4(&mut out, key, payload),
        ETH_TYPE_IPV6 => ipv6(&mut out, key, payload),
        ETH_TYPE_ARP | ETH_TYPE_RARP => arp(&mut out, key),
        ETH_TYPE_MPLS | ETH_TYPE_MPLS_MCAST => {
            mpls(&mut out, key);
            out.extend(payload);
        }
        ETH_TYPE_NSH => {
            nsh(&mut out, key);
            out.extend(payload);
        }
        _ => out.extend(payload),
    }
    out
}

fn num8(key: &FlowKey, slot: Slot) -> u8 {
    key.get(slot) as u8
}

fn num16(key: &FlowKey, slot: Slot) -> u16 {
    key.get(slot) as u16
}

fn mac(key: &FlowKey, slot: Slot) -> [u8; 6] {
    let [_, _, mac @ ..] = (key.get(slot) as u64).to_be_bytes();
    mac
}

fn ipv4_address(key: &FlowKey, slot: Slot) -> [u8; 4] {
    (key.get(slot) as u32).to_be_bytes()
}

/// Replaces the two bytes at `at`, which are there.
fn patch(out: &mut [u8], at: usize, value: u16) {
    if let Some(place) = out.get_mut(at..).and_then(|b| b.first_chunk_mut()) {
        *place = value.to_be_bytes();
    }
}

/// An 802.3 frame: its length, then an LLC header that is not SNAP.
fn llc(out: &mut Vec<u8>, payload: &[u8]) {
    let len = (3 + payload.len()).min(0x5ff) as u16;
    out.extend(len.to_be_bytes());
    out.extend([0, 0, 3]);
    out.extend(payload);
}

fn arp(out: &mut Vec<u8>, key: &FlowKey) {
    out.extend([0, 1, 8, 0, 6, 4, 0, num8(key, slot::IP_PROTO)]);
    out.extend(mac(key, slot::ARP_SHA));
    out.extend(ipv4_address(key, slot::IP_SRC));
    out.extend(mac(key, slot::ARP_THA));
    out.extend(ipv4_address(key, slot::IP_DST));
}

/// Label stack entries up to the one that ends the stack, or three.
fn mpls(out: &mut Vec<u8>, key: &FlowKey) {
    for entry in [slot::MPLS_LSE, slot::MPLS_LSE_1, slot::MPLS_LSE_2].map(|s| key.get(s) as u32) {
        out.extend(entry.to_be_bytes());
        if entry & MPLS_BOTTOM != 0 {
            break;
        }
    }
}

/// An NSH header, with context words if its metadata is of type 1 and else without metadata.
fn nsh(out: &mut Vec<u8>, key: &FlowKey) {
    let md_type = num8(key, slot::NSH_MDTYPE);
    let context = md_type == 1;
    let words = if context { NSH_TYPE1_LEN } else { NSH_LEN } / 4;
    let (flags, ttl) = (num16(key, slot::NSH_FLAGS) & 0x3, num16(key, slot::NSH_TTL) & 0x3f);
    out.extend((flags << 12 | ttl << 6 | words as u16).to_be_bytes());
    out.extend([md_type, num8(key, slot::NSH_NP)]);
    out.extend((key.get(slot::NSH_PATH) as u32).to_be_bytes());
    if context {
        out.extend(key.get(slot::NSH_CONTEXT).to_be_bytes());
    }
}

fn ipv4(out: &mut Vec<u8>, key: &FlowKey, payload: &[u8]) {
    let start = out.len();
    let (proto, frag) = (num8(key, slot::IP_PROTO), num8(key, slot::IP_FRAG));
    let more = if frag & FRAG_ANY != 0 { 0x2000 } else { 0 };
    let offset = if frag & FRAG_LATER != 0 { LATER_OFFSET } else { 0 };
    let (src, dst) = (ipv4_address(key, slot::IP_SRC), ipv4_address(key, slot::IP_DST));
    out.extend([0x45, num8(key, slot::IP_TOS), 0, 0, 0, 0]);
    out.extend((more | offset).to_be_bytes());
    out.extend([num8(key, slot::IP_TTL), proto, 0, 0]);
    out.extend(src);
    out.extend(dst);
    let body = out.len();
    transport(out, key, payload, |len| checksum::pseudo_v4(src, dst, proto, len));
    let total_len = out.len() - start;
    patch(out, start + 2, total_len as u16);
    let header = checksum::checksum(&out[start..body]);
    patch(out, start + 10, header);
}

fn ipv6(out: &mut Vec<u8>, key: &FlowKey, payload: &[u8]) {
    let start = out.len();
    let (proto, frag) = (num8(key, slot::IP_PROTO), num8(key, slot::IP_FRAG));
    let (src, dst) = (key.get(slot::IPV6_SRC).to_be_bytes(), key.get(slot::IPV6_DST).to_be_bytes());
    let label = key.get(slot::IPV6_LABEL) as u32 & 0xf_ffff;
    out.extend((6 << 28 | u32::from(num8(key, slot::IP_TOS)) << 20 | label).to_be_bytes());
    out.extend([0, 0, if frag == 0 { proto } else { FRAGMENT }, num8(key, slot::IP_TTL)]);
    out.extend(src);
    out.extend(dst);
    if frag != 0 {
        let later = frag & FRAG_LATER != 0;
        out.extend([if later { NO_NEXT_HEADER } else { proto }, 0]);
        out.extend((if later { LATER_OFFSET << 3 } else { 0 } | 1).to_be_bytes());
        out.extend([0; 4]);
    }
    transport(out, key, payload, |len| checksum::pseudo_v6(src, dst, proto, len.into()));
    let payload_len = out.len() - start - IPV6_LEN;
    patch(out, start + 4, payload_len as u16);
}

/// The transport header and the payload. `pseudo` gives the sum of the pseudo-header of a message of some length.
fn transport(out: &mut Vec<u8>, key: &FlowKey, payload: &[u8], pseudo: impl Fn(u16) -> u16) {
    if num8(key, slot::IP_FRAG) & FRAG_LATER != 0 {
        out.extend(payload);
        return;
    }
    let start = out.len();
    let v6 = num16(key, slot::ETH_TYPE) == ETH_TYPE_IPV6;
    let ports = [num16(key, slot::TP_SRC).to_be_bytes(), num16(key, slot::TP_DST).to_be_bytes()].concat();
    let checksum_ofs = match num8(key, slot::IP_PROTO) {
        IP_PROTO_TCP => {
            out.extend(ports);
            out.extend([0; 8]);
            out.extend((((TCP_LEN / 4) as u16) << 12 | num16(key, slot::TCP_FLAGS) & 0xfff).to_be_bytes());
            out.extend([0xff, 0xff, 0, 0, 0, 0]);
            out.extend(payload);
            16
        }
        IP_PROTO_UDP => {
            out.extend(ports);
            out.extend(((UDP_LEN + payload.len()) as u16).to_be_bytes());
            out.extend([0, 0]);
            out.extend(payload);
            6
        }
        IP_PROTO_SCTP => {
            out.extend(ports);
            out.extend([0; 8]);
            out.extend(payload);
            let crc = checksum::sctp(&out[start..]);
            out[start + 8..start + 12].copy_from_slice(&crc);
            return;
        }
        IP_PROTO_ICMPV6 if v6 => {
            icmpv6(out, key, payload);
            2
        }
        IP_PROTO_ICMP if !v6 => {
            out.extend([num8(key, slot::TP_SRC), num8(key, slot::TP_DST), 0, 0, 0, 0, 0, 0]);
            out.extend(payload);
            let sum = checksum::checksum(&out[start..]);
            patch(out, start + 2, sum);
            return;
        }
        _ => {
            out.extend(payload);
            return;
        }
    };
    let message = &out[start..];
    let sum = !checksum::add(pseudo(message.len() as u16), checksum::sum(message));
    patch(out, start + checksum_ofs, if checksum_ofs == 6 { checksum::udp(sum) } else { sum });
}

/// An ICMPv6 message; a solicitation or advertisement has the target and those link-layer addresses that are not zero
/// or said to be the first option.
fn icmpv6(out: &mut Vec<u8>, key: &FlowKey, payload: &[u8]) {
    let (kind, code) = (num8(key, slot::TP_SRC), num8(key, slot::TP_DST));
    out.extend([kind, code, 0, 0]);
    if code != 0 || !matches!(kind, ND_SOLICIT | ND_ADVERT) {
        out.extend([0; 4]);
        out.extend(payload);
        return;
    }
    out.extend((key.get(slot::ND_RESERVED) as u32).to_be_bytes());
    out.extend(key.get(slot::ND_TARGET).to_be_bytes());
    let mut options = [(1, mac(key, slot::ARP_SHA)), (2, mac(key, slot::ARP_THA))];
    let first = num8(key, slot::ND_OPTIONS_TYPE);
    if first == 2 {
        options.reverse();
    }
    for (option, address) in options {
        if address != [0; 6] || option == first {
            out.extend([option, 1]);
            out.extend(address);
        }
    }
}
