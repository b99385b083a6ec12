//! Printing packets and megaflows as OVS's trace does.

use super::matching::Reader;
use super::{List, matching};
use crate::field::{
    ETH_TYPE_ARP, ETH_TYPE_IPV4, ETH_TYPE_IPV6, ETH_TYPE_RARP, IP_PROTO_ICMP, IP_PROTO_ICMPV6, IP_PROTO_SCTP,
    IP_PROTO_TCP, IP_PROTO_UDP, Prereq,
};
use crate::key::{FRAG_LATER, FlowKey, FlowMask, slot};
use crate::text::Names;
use std::fmt;

/// A packet as OVS's trace prints it behind `Flow: ` and `Final flow: `: every field that its protocols have.
///
/// Ingress port, mark, metadata and registers are left out when they are zero.
pub fn show_packet<'a>(key: &'a FlowKey, names: &'a Names) -> impl fmt::Display + 'a {
    fmt::from_fn(move |f| matching::write(&mut List::new(f), key, &shown_fields(key), Reader::Flow, names))
}

/// The bits of `key` under `mask` as OVS's trace prints them behind `Megaflow: `.
pub fn show_megaflow<'a>(key: &'a FlowKey, mask: &'a FlowMask, names: &'a Names) -> impl fmt::Display + 'a {
    fmt::from_fn(move |f| {
        let key = key.masked(mask);
        matching::write(&mut List::new(f), &key, mask, Reader::Megaflow, names)
    })
}

/// The slots that are printed of a packet.
fn shown_fields(key: &FlowKey) -> FlowMask {
    let mut mask = FlowMask::ZERO;
    for slot in (0..16).map(slot::reg).chain([slot::IN_PORT, slot::PKT_MARK, slot::METADATA]) {
        if key.get(slot) != 0 {
            mask.add(slot);
        }
    }
    for slot in [slot::VLAN_TCI, slot::ETH_SRC, slot::ETH_DST, slot::ETH_TYPE] {
        mask.add(slot);
    }
    if key.get(slot::VLAN_TCI) != 0 {
        mask.add(slot::INNER_VLAN_TCI);
    }
    let network: &[_] = match key.get(slot::ETH_TYPE) as u16 {
        ETH_TYPE_ARP | ETH_TYPE_RARP => &[slot::IP_SRC, slot::IP_DST, slot::IP_PROTO, slot::ARP_SHA, slot::ARP_THA],
        ETH_TYPE_IPV4 => &[slot::IP_SRC, slot::IP_DST],
        ETH_TYPE_IPV6 => &[slot::IPV6_SRC, slot::IPV6_DST, slot::IPV6_LABEL],
        _ => &[],
    };
    network.iter().for_each(|slot| mask.add(*slot));
    let mut read = FlowMask::ZERO;
    if Prereq::Ip.holds(key, &mut read) {
        show_ip(key, &mut mask);
    }
    mask
}

fn show_ip(key: &FlowKey, mask: &mut FlowMask) {
    for slot in [slot::IP_PROTO, slot::IP_TOS, slot::IP_TTL, slot::IP_FRAG] {
        mask.add(slot);
    }
    let mut read = FlowMask::ZERO;
    if Prereq::Nd.holds(key, &mut read) {
        for slot in [slot::ND_TARGET, slot::ARP_SHA, slot::ARP_THA] {
            mask.add(slot);
        }
    }
    let proto = key.get(slot::IP_PROTO) as u8;
    let known = matches!(proto, IP_PROTO_ICMP | IP_PROTO_ICMPV6 | IP_PROTO_TCP | IP_PROTO_UDP | IP_PROTO_SCTP);
    if known && key.get(slot::IP_FRAG) as u8 & FRAG_LATER == 0 {
        mask.add(slot::TP_SRC);
        mask.add(slot::TP_DST);
        if proto == IP_PROTO_TCP {
            mask.add(slot::TCP_FLAGS);
        }
    }
}
