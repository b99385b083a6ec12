//! Printing packets and megaflows as OVS's trace does.

use super::matching::Reader;
use super::{List, matching};
use crate::field::{
    ETH_TYPE_ARP, ETH_TYPE_IPV4, ETH_TYPE_IPV6, ETH_TYPE_MPLS, ETH_TYPE_MPLS_MCAST, ETH_TYPE_NSH, ETH_TYPE_RARP,
    IP_PROTO_ICMP, IP_PROTO_ICMPV6, IP_PROTO_SCTP, IP_PROTO_TCP, IP_PROTO_UDP, Prereq,
};
use crate::key::{FRAG_LATER, FlowKey, FlowMask, Slot, slot};
use crate::text::Names;
use std::fmt;

/// A packet as OVS's trace prints it behind `Flow: ` and `Final flow: `: every field that its protocols have.
///
/// Ingress port, mark, metadata, registers, what is known of the connection and the like are left out when they are zero;
/// the headers of a tunnel are there when it has an end. What only tables know (`conj_id`, `actset_output`) is left out.
pub fn show_packet<'a>(key: &'a FlowKey, names: &'a Names) -> impl fmt::Display + 'a {
    fmt::from_fn(move |f| matching::write(&mut List::new(f), key, &shown_fields(key), Reader::Packet, names))
}

/// The bits of `key` under `mask` as OVS's trace prints them behind `Megaflow: `.
pub fn show_megaflow<'a>(key: &'a FlowKey, mask: &'a FlowMask, names: &'a Names) -> impl fmt::Display + 'a {
    fmt::from_fn(move |f| {
        let key = key.masked(mask);
        matching::write(&mut List::new(f), &key, mask, Reader::Megaflow, names)
    })
}

/// Slots that are printed unless they are zero.
const CONTEXT: [Slot; 10] = [
    slot::IN_PORT,
    slot::PKT_MARK,
    slot::METADATA,
    slot::RECIRC_ID,
    slot::DP_HASH,
    slot::SKB_PRIORITY,
    slot::CT_STATE,
    slot::CT_ZONE,
    slot::CT_MARK,
    slot::CT_LABEL,
];

/// The headers of a tunnel.
const TUNNEL: [Slot; 12] = [
    slot::TUN_SRC,
    slot::TUN_DST,
    slot::TUN_IPV6_SRC,
    slot::TUN_IPV6_DST,
    slot::TUN_GBP_ID,
    slot::TUN_GBP_FLAGS,
    slot::TUN_TOS,
    slot::TUN_TTL,
    slot::TUN_ERSPAN_VER,
    slot::TUN_GTPU_FLAGS,
    slot::TUN_GTPU_MSGTYPE,
    slot::TUN_FLAGS,
];

/// The slots that are printed of a packet.
fn shown_fields(key: &FlowKey) -> FlowMask {
    let mut mask = FlowMask::ZERO;
    let tunnel_fields = (0..8).map(slot::tun_metadata).chain(TUNNEL).chain([
        slot::TUN_ID,
        slot::TUN_ERSPAN_IDX,
        slot::TUN_ERSPAN_DIR,
        slot::TUN_ERSPAN_HWID,
    ]);
    for slot in (0..16).map(slot::reg).chain(CONTEXT).chain(tunnel_fields) {
        if key.get(slot) != 0 {
            mask.add(slot);
        }
    }
    if key.get(slot::TUN_DST) != 0 || key.get(slot::TUN_IPV6_DST) != 0 {
        TUNNEL.iter().for_each(|slot| mask.add(*slot));
    }
    if key.get(slot::CT_NW_PROTO) != 0 {
        for slot in [slot::CT_NW_PROTO, slot::CT_IPV6_SRC, slot::CT_IPV6_DST, slot::CT_TP_SRC, slot::CT_TP_DST] {
            mask.add(slot);
        }
    }
    if key.get(slot::PACKET_TYPE) == 0 {
        for slot in [slot::VLAN_TCI, slot::ETH_SRC, slot::ETH_DST, slot::ETH_TYPE] {
            mask.add(slot);
        }
    } else {
        mask.add(slot::PACKET_TYPE);
    }
    if key.get(slot::VLAN_TCI) != 0 {
        mask.add(slot::INNER_VLAN_TCI);
    }
    let network: &[_] = match key.get(slot::ETH_TYPE) as u16 {
        ETH_TYPE_ARP | ETH_TYPE_RARP => &[slot::IP_SRC, slot::IP_DST, slot::IP_PROTO, slot::ARP_SHA, slot::ARP_THA],
        ETH_TYPE_IPV4 => &[slot::IP_SRC, slot::IP_DST],
        ETH_TYPE_IPV6 => &[slot::IPV6_SRC, slot::IPV6_DST, slot::IPV6_LABEL],
        ETH_TYPE_MPLS | ETH_TYPE_MPLS_MCAST => mpls_entries(key),
        ETH_TYPE_NSH if key.get(slot::NSH_MDTYPE) == 1 || key.get(slot::NSH_CONTEXT) != 0 => {
            &[slot::NSH_PATH, slot::NSH_MDTYPE, slot::NSH_FLAGS, slot::NSH_NP, slot::NSH_TTL, slot::NSH_CONTEXT]
        }
        ETH_TYPE_NSH => &[slot::NSH_PATH, slot::NSH_MDTYPE, slot::NSH_FLAGS, slot::NSH_NP, slot::NSH_TTL],
        _ => &[],
    };
    network.iter().for_each(|slot| mask.add(*slot));
    let mut read = FlowMask::ZERO;
    if Prereq::Ip.holds(key, &mut read) {
        show_ip(key, &mut mask);
    }
    mask
}

/// The label stack entries down to the bottom of the stack, three at most.
fn mpls_entries(key: &FlowKey) -> &'static [Slot] {
    const ENTRIES: [Slot; 3] = [slot::MPLS_LSE, slot::MPLS_LSE_1, slot::MPLS_LSE_2];
    const BOTTOM: u128 = 0x100;
    let last = ENTRIES.iter().position(|entry| key.get(*entry) & BOTTOM != 0).unwrap_or(2);
    &ENTRIES[..=last]
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
        for slot in [slot::ND_RESERVED, slot::ND_OPTIONS_TYPE].into_iter().filter(|slot| key.get(*slot) != 0) {
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
