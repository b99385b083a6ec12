//! Neighbour discovery (RFC 4861): neighbour solicitations and advertisements, and router solicitations.
//!
//! A message counts only if it is as sections 6.1.1, 7.1.1 and 7.1.2 say it must be: hop limit 255, a right checksum,
//! code 0, no target that is a group, no option without a length. Options that are not known are passed over.

use super::read::Datagram;
use super::{ALL_NODES, Icmp, Link, Mac, ND_HOP_LIMIT, icmpv6, is_group, multicast_mac, solicited_node};
use std::net::{IpAddr, Ipv6Addr};

/// Type numbers (RFC 4861, 4).
pub(super) const ROUTER_SOLICITATION: u8 = 133;
pub(super) const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Options with the sender's and the target's hardware address.
const SOURCE_ADDRESS: u8 = 1;
const TARGET_ADDRESS: u8 = 2;
/// The first byte behind the checksum of a neighbour advertisement.
const FROM_ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// A message of neighbour discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::router) enum Nd {
    /// Who has an address?
    NeighbourSolicitation {
        /// Who asks; unspecified if it looks whether the address is free.
        src: Ipv6Addr,
        /// The address.
        target: Ipv6Addr,
        /// Hardware address of who asks.
        mac: Option<Mac>,
    },
    /// Who has an address.
    NeighbourAdvertisement {
        /// Who says so.
        src: Ipv6Addr,
        /// The address.
        target: Ipv6Addr,
        /// The hardware address of who has it.
        mac: Option<Mac>,
        /// It answers a solicitation.
        is_solicited: bool,
        /// It replaces what was known.
        is_override: bool,
    },
    /// Who is a router?
    RouterSolicitation {
        /// Who asks; unspecified if it has no address yet.
        src: Ipv6Addr,
        /// Hardware address of who asks.
        mac: Option<Mac>,
    },
}

impl Nd {
    /// Reads a datagram. `None` unless it is a sound message of one of these kinds.
    pub(in crate::router) fn read(datagram: &Datagram<'_>) -> Option<Self> {
        let (IpAddr::V6(src), IpAddr::V6(dst)) = (datagram.src, datagram.dst) else { return None };
        if datagram.hop_limit != ND_HOP_LIMIT || src.is_multicast() {
            return None;
        }
        let message = datagram.icmp().filter(|message| message.code == 0)?;
        if message.kind == ROUTER_SOLICITATION {
            let mac = link_address(message.body, SOURCE_ADDRESS)?;
            return (mac.is_none() || !src.is_unspecified()).then_some(Self::RouterSolicitation { src, mac });
        }
        let (target, options) = message.body.split_first_chunk::<16>()?;
        let target = Ipv6Addr::from(*target);
        if target.is_multicast() {
            return None;
        }
        match message.kind {
            NEIGHBOUR_SOLICITATION => {
                let mac = link_address(options, SOURCE_ADDRESS)?;
                let looks = mac.is_none() && dst == solicited_node(target);
                (!src.is_unspecified() || looks).then_some(Self::NeighbourSolicitation { src, target, mac })
            }
            NEIGHBOUR_ADVERTISEMENT => {
                let [flags, ..] = message.word;
                let mac = link_address(options, TARGET_ADDRESS)?;
                let is_solicited = flags & SOLICITED != 0;
                let is_override = flags & OVERRIDE != 0;
                let is_unsound = src.is_unspecified() || dst.is_multicast() && is_solicited;
                (!is_unsound).then_some(Self::NeighbourAdvertisement { src, target, mac, is_solicited, is_override })
            }
            _ => None,
        }
    }
}

/// The hardware address in the first option of this type; `None` if an option is not sound.
fn link_address(mut options: &[u8], wanted: u8) -> Option<Option<Mac>> {
    let mut found = None;
    while let [kind, units, ..] = *options {
        let (option, rest) = options.split_at_checked(usize::from(units) * 8).filter(|(o, _)| !o.is_empty())?;
        if kind == wanted && units == 1 && found.is_none() {
            found = option.last_chunk::<6>().copied().filter(|mac| !is_group(*mac));
        }
        options = rest;
    }
    options.is_empty().then_some(found)
}

/// An option with a hardware address.
pub(super) fn address_option(kind: u8, mac: Mac) -> [u8; 8] {
    let [a, b, c, d, e, f] = mac;
    [kind, 1, a, b, c, d, e, f]
}

/// The option with the sender's hardware address.
pub(super) fn source_option(mac: Mac) -> [u8; 8] {
    address_option(SOURCE_ADDRESS, mac)
}

/// Asks who has `target`, of its solicited-node group, or only of whoever is believed to have it.
pub(in crate::router) fn solicitation(mac: Mac, own: Ipv6Addr, target: Ipv6Addr, believed: Option<Mac>) -> Vec<u8> {
    let group = solicited_node(target);
    let (to, dst) = match believed {
        Some(mac) => (mac, target),
        None => (multicast_mac(group), group),
    };
    let mut body = target.octets().to_vec();
    body.extend(source_option(mac));
    message(Link { src: mac, dst: to }, (own, dst), NEIGHBOUR_SOLICITATION, [0; 4], &body)
}

/// Looks whether somebody else has `target`, as a host does that is about to take it (RFC 4862, 5.4.2). For tests.
#[cfg(test)]
pub(in crate::router) fn duplicate_probe(mac: Mac, target: Ipv6Addr) -> Vec<u8> {
    let group = solicited_node(target);
    let link = Link { src: mac, dst: multicast_mac(group) };
    message(link, (Ipv6Addr::UNSPECIFIED, group), NEIGHBOUR_SOLICITATION, [0; 4], &target.octets())
}

/// Whom an advertisement answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::router) struct Asker {
    /// Its address; unspecified if it has none yet.
    pub(in crate::router) address: Ipv6Addr,
    /// Its hardware address.
    pub(in crate::router) mac: Mac,
}

/// Says that this router has `target`, to whoever asked, or unasked to everybody (RFC 4861, 7.2.4 and 7.2.6).
pub(in crate::router) fn advertisement(mac: Mac, target: Ipv6Addr, asker: Option<Asker>) -> Vec<u8> {
    let asker = asker.filter(|asker| !asker.address.is_unspecified());
    let (to, dst, solicited) = match asker {
        Some(Asker { address, mac }) => (mac, address, SOLICITED),
        None => (multicast_mac(ALL_NODES), ALL_NODES, 0),
    };
    let mut body = target.octets().to_vec();
    body.extend(address_option(TARGET_ADDRESS, mac));
    let flags = [FROM_ROUTER | OVERRIDE | solicited, 0, 0, 0];
    message(Link { src: mac, dst: to }, (target, dst), NEIGHBOUR_ADVERTISEMENT, flags, &body)
}

/// Asks for routers: what a host does. For tests.
#[cfg(test)]
pub(in crate::router) fn router_solicitation(mac: Mac, own: Ipv6Addr) -> Vec<u8> {
    let link = Link { src: mac, dst: multicast_mac(super::ALL_ROUTERS) };
    message(link, (own, super::ALL_ROUTERS), ROUTER_SOLICITATION, [0; 4], &source_option(mac))
}

pub(super) fn message(link: Link, ends: (Ipv6Addr, Ipv6Addr), kind: u8, word: [u8; 4], body: &[u8]) -> Vec<u8> {
    icmpv6(link, ends, ND_HOP_LIMIT, Icmp { kind, code: 0, word }, body)
}
