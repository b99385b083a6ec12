//! Printing matches, in OVS's order and with its words.

use super::value::{flags, frag, hex, ipv4_masked, ipv6_masked, mac_masked, port};
use super::{List, connection, tunnel};
use crate::field::{
    ETH_TYPE_ARP, ETH_TYPE_IPV4, ETH_TYPE_IPV6, ETH_TYPE_MPLS, ETH_TYPE_MPLS_MCAST, ETH_TYPE_NSH, ETH_TYPE_RARP, Field,
    IP_PROTO_ICMP, IP_PROTO_ICMPV6, IP_PROTO_SCTP, IP_PROTO_TCP, IP_PROTO_UDP,
};
use crate::key::{FlowKey, FlowMask, Slot, VLAN_PRESENT, slot};
use crate::port::PortNo;
use crate::text::Names;
use crate::text::parse::TCP_FLAGS;
use std::fmt;
use std::ops::Range;

/// What is printed of: values and the bits of them that count.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    key: &'a FlowKey,
    mask: &'a FlowMask,
}

impl Source<'_> {
    pub(super) fn value(&self, slot: Slot) -> u128 {
        self.key.get(slot)
    }

    /// Whether any bit of these words counts.
    pub(super) fn any(&self, words: Range<u8>) -> bool {
        self.mask.0[usize::from(words.start)..usize::from(words.end)].iter().any(|word| *word != 0)
    }

    /// Value and mask of `slot`, if any bit of it counts.
    pub(super) fn counts(&self, slot: Slot) -> Option<(u128, u128)> {
        Some((self.key.get(slot), self.mask.get(slot))).filter(|(_, mask)| *mask != 0)
    }
}

/// Who a match is written for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// Someone who reads flows.
    Flow,
    /// Someone who reads a packet.
    Packet,
    /// Someone who reads a megaflow: it says what the packet's type is and that it was not recirculated.
    Megaflow,
}

/// Writes the bits of `key` in `mask`.
pub(crate) fn write(
    list: &mut List<'_, '_>,
    key: &FlowKey,
    mask: &FlowMask,
    reader: Reader,
    names: &Names,
) -> fmt::Result {
    let from = Source { key, mask };
    write_hex(list, from, slot::PKT_MARK, "pkt_mark")?;
    if reader == Reader::Megaflow {
        list.item(format_args!("recirc_id={}", hex(from.value(slot::RECIRC_ID))))?;
    } else {
        write_hex(list, from, slot::RECIRC_ID, "recirc_id")?;
    }
    if from.any(slot::CT_STATE.word..slot::SKB_PRIORITY.word + 1) {
        write_hex(list, from, slot::DP_HASH, "dp_hash")?;
    }
    if from.any(slot::CONJ_ID.word..slot::CONJ_ID.word + 1) {
        write_decimal(list, from, slot::CONJ_ID, "conj_id")?;
    }
    write_hex(list, from, slot::SKB_PRIORITY, "skb_priority")?;
    if from.counts(slot::ACTSET_OUTPUT).is_some() {
        list.item(format_args!("actset_output={}", port(PortNo(from.value(slot::ACTSET_OUTPUT) as u16), names)))?;
    }
    if from.any(slot::CT_STATE.word..slot::DP_HASH.word + 1) {
        connection::write(list, from)?;
    }
    let eth_type = write_packet_type(list, from, reader)?;
    let (word, with_proto) = protocol(from, eth_type);
    if let Some(word) = word {
        list.item(format_args!("{word}"))?;
    }
    write_registers(list, from)?;
    if from.any(slot::TUN_ID.word..slot::CT_STATE.word) {
        tunnel::write(list, from, reader)?;
    }
    write_hex(list, from, slot::METADATA, "metadata")?;
    if from.counts(slot::IN_PORT).is_some() {
        let no = PortNo(from.value(slot::IN_PORT) as u16);
        list.item(format_args!("in_port={}", port(no, names)))?;
    }
    if from.any(slot::ETH_DST.word..slot::IP_SRC.word) {
        if write_vlan(list, from, slot::VLAN_TCI, "")? {
            write_vlan(list, from, slot::INNER_VLAN_TCI, "1")?;
        }
        write_mac(list, from, slot::ETH_SRC, "dl_src")?;
        write_mac(list, from, slot::ETH_DST, "dl_dst")?;
        if let (None, Some((eth_type, _))) = (word, from.counts(slot::ETH_TYPE)) {
            list.item(format_args!("dl_type=0x{eth_type:04x}"))?;
        }
    }
    if !from.any(slot::IP_SRC.word..slot::TUN_ID.word) {
        return Ok(());
    }
    match eth_type {
        ETH_TYPE_MPLS | ETH_TYPE_MPLS_MCAST => return write_mpls(list, from),
        ETH_TYPE_NSH => return write_nsh(list, from),
        _ => {}
    }
    write_network(list, from, eth_type, with_proto)?;
    write_transport(list, from, eth_type)
}

/// Writes the type of a packet without an Ethernet header. Returns the EtherType that the packet has.
fn write_packet_type(list: &mut List<'_, '_>, from: Source<'_>, reader: Reader) -> Result<u16, fmt::Error> {
    let packet_type = from.value(slot::PACKET_TYPE) as u32;
    if packet_type == 0 || from.counts(slot::PACKET_TYPE).is_none() {
        let ethernet = from.any(slot::ETH_DST.word..slot::IP_SRC.word);
        if reader == Reader::Megaflow || ethernet && from.counts(slot::RECIRC_ID).is_some() {
            list.item(format_args!("eth"))?;
        }
        return Ok(from.value(slot::ETH_TYPE) as u16);
    }
    list.item(format_args!("packet_type={}", super::value::packet_type(packet_type)))?;
    Ok(if packet_type >> 16 == 1 { packet_type as u16 } else { 0 })
}

fn write_registers(list: &mut List<'_, '_>, from: Source<'_>) -> fmt::Result {
    let first = slot::reg(0).word;
    for word in first..first + 8 {
        if !from.any(word..word + 1) {
            continue;
        }
        for n in [2 * (word - first), 2 * (word - first) + 1] {
            if let Some((value, mask)) = from.counts(slot::reg(n)) {
                write_hex_masked(list, format_args!("reg{n}"), value, mask, slot::reg(n))?;
            }
        }
    }
    Ok(())
}

fn write_mpls(list: &mut List<'_, '_>, from: Source<'_>) -> fmt::Result {
    for (field, name) in [
        (Field::MplsLabel, "mpls_label"),
        (Field::MplsTc, "mpls_tc"),
        (Field::MplsTtl, "mpls_ttl"),
        (Field::MplsBos, "mpls_bos"),
    ] {
        write_decimal(list, from, field.slot(), name)?;
    }
    for (slot, name) in [(slot::MPLS_LSE_1, "mpls_lse1"), (slot::MPLS_LSE_2, "mpls_lse2")] {
        write_hex(list, from, slot, name)?;
    }
    Ok(())
}

fn write_nsh(list: &mut List<'_, '_>, from: Source<'_>) -> fmt::Result {
    for (slot, name) in [
        (slot::NSH_FLAGS, "nsh_flags"),
        (slot::NSH_TTL, "nsh_ttl"),
        (slot::NSH_MDTYPE, "nsh_mdtype"),
        (slot::NSH_NP, "nsh_np"),
    ] {
        let whole = if slot == slot::NSH_TTL { 0x3f } else { 0xff };
        match from.counts(slot) {
            Some((value, mask)) if mask & whole == whole => list.item(format_args!("{name}={value}"))?,
            Some((value, mask)) => list.item(format_args!("{name}=0x{value:02x}/0x{mask:02x}"))?,
            None => {}
        }
    }
    for (field, name) in [(Field::NshSpi, "nsh_spi"), (Field::NshSi, "nsh_si")] {
        match (from.counts(field.slot()), field) {
            (Some((value, _)), Field::NshSpi) => list.item(format_args!("{name}={value:#x}"))?,
            (Some((value, _)), _) => list.item(format_args!("{name}={value}"))?,
            _ => {}
        }
    }
    for (field, name) in
        [(Field::NshC1, "nsh_c1"), (Field::NshC2, "nsh_c2"), (Field::NshC3, "nsh_c3"), (Field::NshC4, "nsh_c4")]
    {
        if let Some((value, mask)) = from.counts(field.slot()) {
            let whole = mask == field.slot().max();
            match whole {
                true => list.item(format_args!("{name}={value:#x}"))?,
                false => list.item(format_args!("{name}={value:#x}/{mask:#x}"))?,
            }
        }
    }
    Ok(())
}

/// The word for the packet's protocols, if there is one; and whether it says the IP protocol.
fn protocol(from: Source<'_>, eth_type: u16) -> (Option<&'static str>, bool) {
    if from.counts(slot::ETH_TYPE).is_none() {
        return (None, false);
    }
    let proto = from.counts(slot::IP_PROTO).map(|(proto, _)| proto as u8);
    match (eth_type, proto) {
        (ETH_TYPE_IPV4, Some(IP_PROTO_ICMP)) => (Some("icmp"), true),
        (ETH_TYPE_IPV4, Some(IP_PROTO_TCP)) => (Some("tcp"), true),
        (ETH_TYPE_IPV4, Some(IP_PROTO_UDP)) => (Some("udp"), true),
        (ETH_TYPE_IPV4, Some(IP_PROTO_SCTP)) => (Some("sctp"), true),
        (ETH_TYPE_IPV4, _) => (Some("ip"), false),
        (ETH_TYPE_IPV6, Some(IP_PROTO_ICMPV6)) => (Some("icmp6"), true),
        (ETH_TYPE_IPV6, Some(IP_PROTO_TCP)) => (Some("tcp6"), true),
        (ETH_TYPE_IPV6, Some(IP_PROTO_UDP)) => (Some("udp6"), true),
        (ETH_TYPE_IPV6, Some(IP_PROTO_SCTP)) => (Some("sctp6"), true),
        (ETH_TYPE_IPV6, _) => (Some("ipv6"), false),
        (ETH_TYPE_ARP, _) => (Some("arp"), false),
        (ETH_TYPE_RARP, _) => (Some("rarp"), false),
        (ETH_TYPE_MPLS, _) => (Some("mpls"), false),
        (ETH_TYPE_MPLS_MCAST, _) => (Some("mplsm"), false),
        _ => (None, false),
    }
}

pub(super) fn write_decimal(list: &mut List<'_, '_>, from: Source<'_>, slot: Slot, name: &str) -> fmt::Result {
    match from.counts(slot) {
        Some((value, mask)) if mask == slot.max() => list.item(format_args!("{name}={value}")),
        Some((value, mask)) => list.item(format_args!("{name}={value:#x}/{mask:#x}")),
        None => Ok(()),
    }
}

pub(super) fn write_hex(list: &mut List<'_, '_>, from: Source<'_>, slot: Slot, name: &str) -> fmt::Result {
    match from.counts(slot) {
        Some((value, mask)) => write_hex_masked(list, format_args!("{name}"), value, mask, slot),
        None => Ok(()),
    }
}

fn write_hex_masked(
    list: &mut List<'_, '_>,
    name: fmt::Arguments<'_>,
    value: u128,
    mask: u128,
    slot: Slot,
) -> fmt::Result {
    if mask == slot.max() {
        return list.item(format_args!("{name}={}", hex(value)));
    }
    list.item(format_args!("{name}={}/{}", hex(value), hex(mask)))
}

/// Writes a tag's TCI, in the words of VLAN ID and priority where they can say it. Returns whether any bit counts.
fn write_vlan(list: &mut List<'_, '_>, from: Source<'_>, slot: Slot, n: &str) -> Result<bool, fmt::Error> {
    const PRESENT: u128 = VLAN_PRESENT as u128;
    let Some((value, mask)) = from.counts(slot) else {
        return Ok(false);
    };
    let (vid, pcp) = (mask & 0xfff, mask & 0xe000);
    let whole_or_none = matches!(vid, 0 | 0xfff) && matches!(pcp, 0 | 0xe000);
    if mask & value & PRESENT != 0 && whole_or_none && (vid, pcp) != (0, 0) {
        if vid != 0 {
            list.item(format_args!("dl_vlan{n}={}", value & 0xfff))?;
        }
        if pcp != 0 {
            list.item(format_args!("dl_vlan_pcp{n}={}", value >> 13))?;
        }
    } else if mask == 0xffff {
        list.item(format_args!("vlan_tci{n}=0x{value:04x}"))?;
    } else {
        list.item(format_args!("vlan_tci{n}=0x{value:04x}/0x{mask:04x}"))?;
    }
    Ok(true)
}

fn write_mac(list: &mut List<'_, '_>, from: Source<'_>, slot: Slot, name: &str) -> fmt::Result {
    match from.counts(slot) {
        Some((value, mask)) => list.item(format_args!("{name}={}", mac_masked(value, mask))),
        None => Ok(()),
    }
}

pub(super) fn write_ipv4(list: &mut List<'_, '_>, from: Source<'_>, slot: Slot, name: &str) -> fmt::Result {
    match from.counts(slot) {
        Some((value, mask)) => list.item(format_args!("{name}={}", ipv4_masked(value, mask))),
        None => Ok(()),
    }
}

pub(super) fn write_ipv6(list: &mut List<'_, '_>, from: Source<'_>, slot: Slot, name: &str) -> fmt::Result {
    match from.counts(slot) {
        Some((value, mask)) => list.item(format_args!("{name}={}", ipv6_masked(value, mask))),
        None => Ok(()),
    }
}

/// Writes the fields of the network layer; the IP protocol too, unless `with_proto` the protocol word said it.
fn write_network(list: &mut List<'_, '_>, from: Source<'_>, eth_type: u16, with_proto: bool) -> fmt::Result {
    let arp = matches!(eth_type, ETH_TYPE_ARP | ETH_TYPE_RARP);
    if eth_type == ETH_TYPE_IPV6 {
        write_ipv6(list, from, slot::IPV6_SRC, "ipv6_src")?;
        write_ipv6(list, from, slot::IPV6_DST, "ipv6_dst")?;
        write_label(list, from)?;
    } else {
        write_ipv4(list, from, slot::IP_SRC, if arp { "arp_spa" } else { "nw_src" })?;
        write_ipv4(list, from, slot::IP_DST, if arp { "arp_tpa" } else { "nw_dst" })?;
    }
    if let (false, Some((proto, _))) = (with_proto, from.counts(slot::IP_PROTO)) {
        list.item(format_args!("{}={proto}", if arp { "arp_op" } else { "nw_proto" }))?;
    }
    if arp {
        write_mac(list, from, slot::ARP_SHA, "arp_sha")?;
        write_mac(list, from, slot::ARP_THA, "arp_tha")?;
    }
    if from.counts(slot::IP_DSCP).is_some() {
        list.item(format_args!("nw_tos={}", from.value(slot::IP_DSCP) << 2))?;
    }
    if from.counts(slot::IP_ECN).is_some() {
        list.item(format_args!("nw_ecn={}", from.value(slot::IP_ECN)))?;
    }
    if from.counts(slot::IP_TTL).is_some() {
        list.item(format_args!("nw_ttl={}", from.value(slot::IP_TTL)))?;
    }
    match from.counts(slot::IP_FRAG) {
        Some((value, mask)) if mask & 3 != 0 => list.item(format_args!("nw_frag={}", frag(value, mask))),
        _ => Ok(()),
    }
}

fn write_label(list: &mut List<'_, '_>, from: Source<'_>) -> fmt::Result {
    const WHOLE: u128 = 0xf_ffff;
    match from.counts(slot::IPV6_LABEL) {
        Some((value, mask)) if mask & WHOLE == WHOLE => list.item(format_args!("ipv6_label=0x{value:05x}")),
        Some((value, mask)) => list.item(format_args!("ipv6_label=0x{value:05x}/0x{mask:05x}")),
        None => Ok(()),
    }
}

fn write_transport(list: &mut List<'_, '_>, from: Source<'_>, eth_type: u16) -> fmt::Result {
    let proto = from.value(slot::IP_PROTO) as u8;
    let icmp6 = (eth_type, proto) == (ETH_TYPE_IPV6, IP_PROTO_ICMPV6);
    let icmp = icmp6 || (eth_type, proto) == (ETH_TYPE_IPV4, IP_PROTO_ICMP);
    let whole = if icmp { 0xff } else { 0xffff };
    let words = if icmp { ["icmp_type", "icmp_code"] } else { ["tp_src", "tp_dst"] };
    for (slot, name) in [slot::TP_SRC, slot::TP_DST].into_iter().zip(words) {
        match from.counts(slot) {
            Some((value, mask)) if mask & whole == whole => list.item(format_args!("{name}={value}"))?,
            Some((value, mask)) => list.item(format_args!("{name}={value:#x}/{mask:#x}"))?,
            None => {}
        }
    }
    if icmp6 {
        write_ipv6(list, from, slot::ND_TARGET, "nd_target")?;
        write_mac(list, from, slot::ARP_SHA, "nd_sll")?;
        write_mac(list, from, slot::ARP_THA, "nd_tll")?;
        write_decimal(list, from, slot::ND_RESERVED, "nd_reserved")?;
        write_decimal(list, from, slot::ND_OPTIONS_TYPE, "nd_options_type")?;
    }
    match from.counts(slot::TCP_FLAGS) {
        Some((value, mask)) if matches!(eth_type, ETH_TYPE_IPV4 | ETH_TYPE_IPV6) && proto == IP_PROTO_TCP => {
            list.item(format_args!("tcp_flags={}", flags(value, mask, &TCP_FLAGS)))
        }
        _ => Ok(()),
    }
}
