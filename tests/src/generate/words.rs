//! Words of the flow language, from values: written here once more, so that what we print is not what decides what is
//! tried.

use sluice_flows::field::{FieldInfo, Format, Prereq};
use sluice_flows::key::{FlowKey, VLAN_PRESENT, slot};
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Bits of `ct_state`, lowest first.
const CT_STATES: [&str; 8] = ["new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"];

/// A value as OVS reads it for a field of this format.
pub fn value(info: &FieldInfo, value: u128) -> String {
    match info.format {
        Format::Decimal | Format::Port => value.to_string(),
        Format::Hex | Format::TcpFlags | Format::TunFlags | Format::PacketType => format!("{value:#x}"),
        Format::Mac => mac(value),
        Format::Ipv4 => Ipv4Addr::from_bits(value as u32).to_string(),
        Format::Ipv6 => Ipv6Addr::from_bits(value).to_string(),
        Format::Frag => ["no", "first", "no", "later"][value as usize & 3].to_owned(),
        Format::CtState => ct_state(value, value),
    }
}

fn mac(value: u128) -> String {
    let bytes = value.to_be_bytes();
    bytes[10..].iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// `+trk-new`.
fn ct_state(value: u128, mask: u128) -> String {
    let named = CT_STATES.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 != 0);
    let text: String = named.map(|(bit, name)| format!("{}{name}", ["-", "+"][(value >> bit & 1) as usize])).collect();
    if text.is_empty() { "0/0".to_owned() } else { text }
}

/// A requirement on a field: `name=value/mask`.
pub fn requirement(info: &FieldInfo, v: u128, mask: u128) -> String {
    let max = info.slot.max();
    let (v, mask) = (v & mask & max, mask & max);
    match info.format {
        Format::CtState => format!("{}={}", info.name, ct_state(v, mask)),
        Format::TunFlags => format!("{}={}", info.name, if v == 0 { "-oam" } else { "+oam" }),
        _ if mask == max => format!("{}={}", info.name, value(info, v)),
        Format::Decimal | Format::TcpFlags => format!("{}={v:#x}/{mask:#x}", info.name),
        _ => format!("{}={}/{}", info.name, value(info, v), value(info, mask)),
    }
}

/// The words that say a packet's protocols: as many of them as `depth`.
pub fn protocol(key: &FlowKey, depth: usize) -> Vec<String> {
    let (eth_type, proto) = (key.get(slot::ETH_TYPE), key.get(slot::IP_PROTO));
    let word = |word: &str| vec![word.to_owned()];
    match (eth_type, if depth > 1 { proto } else { 0 }) {
        _ if depth == 0 => Vec::new(),
        (0x0806, _) => word("arp"),
        (0x8035, _) => word("rarp"),
        (0x8847, _) => word("mpls"),
        (0x8848, _) => word("mplsm"),
        (0x0800, 1) => word("icmp"),
        (0x86dd, 58) => word("icmp6"),
        (0x0800, 6) => word("tcp"),
        (0x0800, 17) => word("udp"),
        (0x0800, 132) => word("sctp"),
        (0x86dd, 6) => word("tcp6"),
        (0x86dd, 17) => word("udp6"),
        (0x86dd, 132) => word("sctp6"),
        (0x0800, 0) => word("ip"),
        (0x86dd, 0) => word("ipv6"),
        (0x0800, proto) => vec!["ip".to_owned(), format!("nw_proto={proto}")],
        (0x86dd, proto) => vec!["ipv6".to_owned(), format!("nw_proto={proto}")],
        (other, _) => vec![format!("dl_type={other:#06x}")],
    }
}

/// A packet as OVS reads it: every field that it has and that is not zero.
///
/// Fields of a second tag are left out: OVS prints, but does not read them.
pub fn packet(key: &FlowKey) -> Vec<String> {
    let mut words = vec![format!("in_port={}", key.get(slot::IN_PORT) as u32)];
    words.extend(protocol(key, 2));
    let tci = key.get(slot::VLAN_TCI) as u16;
    if tci & VLAN_PRESENT != 0 {
        words.push(format!("dl_vlan={}", tci & 0xfff));
        words.push(format!("dl_vlan_pcp={}", tci >> 13));
    }
    let skipped = ["in_port", "eth_type", "nw_proto", "vlan_tci", "vlan_vid", "vlan_pcp", "ip_dscp", "nd_options_type"];
    for info in sluice_flows::field::FIELDS {
        let wide = info.name.starts_with("xreg") || info.name.starts_with("xxreg");
        let mut value_of = key.get(info.slot);
        if info.name == "nw_tos" {
            value_of &= 0xfc;
        }
        let there = info.prereq == Prereq::None || info.prereq.holds(key, &mut Default::default());
        if wide || value_of == 0 || !there || skipped.contains(&info.name) || info.name == "packet_type" {
            continue;
        }
        let mut word = String::new();
        let text = if info.format == Format::CtState {
            let named = CT_STATES.iter().enumerate().filter(|(bit, _)| value_of >> bit & 1 != 0);
            named.map(|(_, name)| *name).collect::<Vec<_>>().join("|")
        } else if info.format == Format::TunFlags {
            "+oam".to_owned()
        } else {
            value(info, value_of)
        };
        let _ = write!(word, "{}={text}", info.name);
        words.push(word);
    }
    words
}
