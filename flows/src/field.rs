//! The field registry: every word of the flow language that names a field, in one table.
//!
//! Adding a field is adding one row to the `fields!` table below: its name, aliases and NXM/OXM names, where it lives
//! in the key, how its values are written, which masks it takes, whether actions may set it, what a packet must be for
//! it to exist, and the lookup stage it belongs to. Parsing, printing, matching and setting all read this table.

use crate::key::{FlowKey, FlowMask, Slot, VLAN_PRESENT, slot};

/// How a field's values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A number, printed in decimal.
    Decimal,
    /// A number, printed in hexadecimal with `0x`.
    Hex,
    /// A port number or one of the reserved port names.
    Port,
    /// `aa:bb:cc:dd:ee:ff`.
    Mac,
    /// Dotted quad; masks as a prefix length where they are one.
    Ipv4,
    /// RFC 5952 text; masks as a prefix length where they are one.
    Ipv6,
    /// `no`, `yes`, `first`, `later`, `not_later`.
    Frag,
    /// `+syn-ack` or a number.
    TcpFlags,
}

/// Which masks a match on a field may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maskable {
    /// None: the field is matched whole.
    Exact,
    /// Any.
    Bitwise,
}

/// What a packet must be for a field to exist in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prereq {
    /// Nothing.
    None,
    /// A VLAN tag is present.
    Vlan,
    /// ARP or RARP.
    Arp,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// IPv4 or IPv6.
    Ip,
    /// TCP, not a later fragment.
    Tcp,
    /// UDP, not a later fragment.
    Udp,
    /// SCTP, not a later fragment.
    Sctp,
    /// ICMP, not a later fragment.
    Icmpv4,
    /// ICMPv6, not a later fragment.
    Icmpv6,
    /// Neighbour solicitation or advertisement.
    Nd,
    /// Neighbour solicitation.
    NdSolicit,
    /// Neighbour advertisement.
    NdAdvert,
}

/// The part of a key that a staged lookup reads before it goes on to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Ingress port, mark, metadata, registers.
    Metadata,
    /// Ethernet and VLAN.
    L2,
    /// ARP, IPv4 and IPv6.
    L3,
    /// Transport, ICMP and neighbour discovery.
    L4,
}

/// EtherType of IPv4.
pub const ETH_TYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ETH_TYPE_ARP: u16 = 0x0806;
/// EtherType of RARP.
pub const ETH_TYPE_RARP: u16 = 0x8035;
/// EtherType of IPv6.
pub const ETH_TYPE_IPV6: u16 = 0x86dd;
/// TPID of a customer VLAN tag (IEEE 802.1Q).
pub const ETH_TYPE_VLAN: u16 = 0x8100;
/// TPID of a service VLAN tag (IEEE 802.1ad).
pub const ETH_TYPE_QINQ: u16 = 0x88a8;
/// The `eth_type` of an 802.3 frame that carries no EtherType.
pub const ETH_TYPE_NONE: u16 = 0x05ff;
/// IP protocol number of ICMP.
pub const IP_PROTO_ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const IP_PROTO_TCP: u8 = 6;
/// IP protocol number of UDP.
pub const IP_PROTO_UDP: u8 = 17;
/// IP protocol number of ICMPv6.
pub const IP_PROTO_ICMPV6: u8 = 58;
/// IP protocol number of SCTP.
pub const IP_PROTO_SCTP: u8 = 132;
/// ICMPv6 type of a neighbour solicitation.
pub const ND_SOLICIT: u8 = 135;
/// ICMPv6 type of a neighbour advertisement.
pub const ND_ADVERT: u8 = 136;

/// One row of the registry.
#[derive(Debug)]
pub struct FieldInfo {
    /// The field.
    pub field: Field,
    /// Its name in `set_field` and in messages.
    pub name: &'static str,
    /// The name that matches are printed with, which is OVS's.
    pub match_name: &'static str,
    /// Other words that mean the same field.
    pub aliases: &'static [&'static str],
    /// NXM or OXM names; the first is what `move` and `load` print.
    pub nxm: &'static [&'static str],
    /// Where it lives in the key.
    pub slot: Slot,
    /// How its values are written.
    pub format: Format,
    /// Which masks it takes.
    pub maskable: Maskable,
    /// Whether actions may change it.
    pub writable: bool,
    /// What a packet must be for it to exist.
    pub prereq: Prereq,
    /// The lookup stage it belongs to.
    pub stage: Stage,
}

macro_rules! fields {
    ($($(#[doc = $doc:literal])+ $variant:ident: $name:literal, $match_name:literal, [$($alias:literal),*], [$($nxm:literal),*],
       $slot:expr, $format:ident, $maskable:ident, $writable:literal, $prereq:ident, $stage:ident;)+) => {
        /// A field of the flow language.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Field { $($(#[doc = $doc])+ $variant),+ }

        /// The registry, in the order in which matches are printed.
        pub static FIELDS: &[FieldInfo] = &[$(FieldInfo {
            field: Field::$variant,
            name: $name,
            match_name: $match_name,
            aliases: &[$($alias),*],
            nxm: &[$($nxm),*],
            slot: $slot,
            format: Format::$format,
            maskable: Maskable::$maskable,
            writable: $writable,
            prereq: Prereq::$prereq,
            stage: Stage::$stage,
        }),+];
    };
}

fields! {
    // Field: name, printed in matches as, [aliases], [NXM, OXM], slot, format, masks, settable, needs, stage;
    #[doc = "Packet mark."]
    PktMark: "pkt_mark", "pkt_mark", [], ["NXM_NX_PKT_MARK"], slot::PKT_MARK, Hex, Bitwise, true, None, Metadata;
    #[doc = "Register 0."]
    Reg0: "reg0", "reg0", [], ["NXM_NX_REG0"], slot::reg(0), Hex, Bitwise, true, None, Metadata;
    #[doc = "Register 1."]
    Reg1: "reg1", "reg1", [], ["NXM_NX_REG1"], slot::reg(1), Hex, Bitwise, true, None, Metadata;
    #[doc = "Register 2."]
    Reg2: "reg2", "reg2", [], ["NXM_NX_REG2"], slot::reg(2), Hex, Bitwise, true, None, Metadata;
    #[doc = "Register 3."]
    Reg3: "reg3", "reg3", [], ["NXM_NX_REG3"], slot::reg(3), Hex, Bitwise, true, None, Metadata;
    #[doc = "Register 4."]
    Reg4: "reg4", "reg4", [], ["NXM_NX_REG4"], slot::reg(4), Hex, Bitwise, true, None, Metadata;
    #[doc = "Register 5."]
    Reg5: "reg5", "reg5", [], ["NXM_NX_REG5"], slot::reg(5), Hex, Bitwise, true, None, Metadata;
    #[doc = "Register 6."]
    Reg6: "reg6", "reg6", [], ["NXM_NX_REG6"], slot::reg(6), Hex, Bitwise, true, None, Metadata;
    #[doc = "Register 7."]
    Reg7: "reg7", "reg7", [], ["NXM_NX_REG7"], slot::reg(7), Hex, Bitwise, true, None, Metadata;
    #[doc = "Register 8."]
    Reg8: "reg8", "reg8", [], ["NXM_NX_REG8"], slot::reg(8), Hex, Bitwise, true, None, Metadata;
    #[doc = "Register 9."]
    Reg9: "reg9", "reg9", [], ["NXM_NX_REG9"], slot::reg(9), Hex, Bitwise, true, None, Metadata;
    #[doc = "Register 10."]
    Reg10: "reg10", "reg10", [], ["NXM_NX_REG10"], slot::reg(10), Hex, Bitwise, true, None, Metadata;
    #[doc = "Register 11."]
    Reg11: "reg11", "reg11", [], ["NXM_NX_REG11"], slot::reg(11), Hex, Bitwise, true, None, Metadata;
    #[doc = "Register 12."]
    Reg12: "reg12", "reg12", [], ["NXM_NX_REG12"], slot::reg(12), Hex, Bitwise, true, None, Metadata;
    #[doc = "Register 13."]
    Reg13: "reg13", "reg13", [], ["NXM_NX_REG13"], slot::reg(13), Hex, Bitwise, true, None, Metadata;
    #[doc = "Register 14."]
    Reg14: "reg14", "reg14", [], ["NXM_NX_REG14"], slot::reg(14), Hex, Bitwise, true, None, Metadata;
    #[doc = "Register 15."]
    Reg15: "reg15", "reg15", [], ["NXM_NX_REG15"], slot::reg(15), Hex, Bitwise, true, None, Metadata;
    #[doc = "OpenFlow metadata."]
    Metadata: "metadata", "metadata", [], ["OXM_OF_METADATA"], slot::METADATA, Hex, Bitwise, true, None, Metadata;
    #[doc = "Ingress port."]
    InPort: "in_port", "in_port", ["in_port_oxm"], ["NXM_OF_IN_PORT", "OXM_OF_IN_PORT"], Slot::new(0, 32, 16), Port, Exact, true, None, Metadata;
    #[doc = "Whole outer TCI, tag-present bit included; 0 means untagged."]
    VlanTci: "vlan_tci", "vlan_tci", [], ["NXM_OF_VLAN_TCI"], slot::VLAN_TCI, Hex, Bitwise, true, None, L2;
    #[doc = "Outer VLAN ID with the tag-present bit 0x1000."]
    VlanVid: "vlan_vid", "vlan_vid", [], ["OXM_OF_VLAN_VID"], Slot::new(2, 0, 13), Decimal, Bitwise, true, None, L2;
    #[doc = "Outer VLAN priority."]
    VlanPcp: "vlan_pcp", "dl_vlan_pcp", ["dl_vlan_pcp"], ["OXM_OF_VLAN_PCP"], Slot::new(2, 13, 3), Decimal, Exact, true, Vlan, L2;
    #[doc = "Ethernet source."]
    EthSrc: "eth_src", "dl_src", ["dl_src"], ["NXM_OF_ETH_SRC", "OXM_OF_ETH_SRC"], slot::ETH_SRC, Mac, Bitwise, true, None, L2;
    #[doc = "Ethernet destination."]
    EthDst: "eth_dst", "dl_dst", ["dl_dst"], ["NXM_OF_ETH_DST", "OXM_OF_ETH_DST"], slot::ETH_DST, Mac, Bitwise, true, None, L2;
    #[doc = "EtherType."]
    EthType: "eth_type", "dl_type", ["dl_type"], ["NXM_OF_ETH_TYPE", "OXM_OF_ETH_TYPE"], slot::ETH_TYPE, Hex, Exact, false, None, L2;
    #[doc = "IPv4 source."]
    IpSrc: "ip_src", "nw_src", ["nw_src"], ["NXM_OF_IP_SRC", "OXM_OF_IPV4_SRC"], slot::IP_SRC, Ipv4, Bitwise, true, Ipv4, L3;
    #[doc = "IPv4 destination."]
    IpDst: "ip_dst", "nw_dst", ["nw_dst"], ["NXM_OF_IP_DST", "OXM_OF_IPV4_DST"], slot::IP_DST, Ipv4, Bitwise, true, Ipv4, L3;
    #[doc = "IPv6 source."]
    Ipv6Src: "ipv6_src", "ipv6_src", [], ["NXM_NX_IPV6_SRC", "OXM_OF_IPV6_SRC"], slot::IPV6_SRC, Ipv6, Bitwise, true, Ipv6, L3;
    #[doc = "IPv6 destination."]
    Ipv6Dst: "ipv6_dst", "ipv6_dst", [], ["NXM_NX_IPV6_DST", "OXM_OF_IPV6_DST"], slot::IPV6_DST, Ipv6, Bitwise, true, Ipv6, L3;
    #[doc = "IPv6 flow label."]
    Ipv6Label: "ipv6_label", "ipv6_label", [], ["NXM_NX_IPV6_LABEL", "OXM_OF_IPV6_FLABEL"], Slot::new(5, 0, 20), Hex, Bitwise, true, Ipv6, L3;
    #[doc = "ARP sender protocol address."]
    ArpSpa: "arp_spa", "arp_spa", [], ["NXM_OF_ARP_SPA", "OXM_OF_ARP_SPA"], slot::IP_SRC, Ipv4, Bitwise, true, Arp, L3;
    #[doc = "ARP target protocol address."]
    ArpTpa: "arp_tpa", "arp_tpa", [], ["NXM_OF_ARP_TPA", "OXM_OF_ARP_TPA"], slot::IP_DST, Ipv4, Bitwise, true, Arp, L3;
    #[doc = "IP protocol, or the last header of IPv6's chain."]
    IpProto: "nw_proto", "nw_proto", ["ip_proto"], ["NXM_OF_IP_PROTO", "OXM_OF_IP_PROTO"], slot::IP_PROTO, Decimal, Exact, false, Ip, L3;
    #[doc = "ARP opcode (low 8 bits)."]
    ArpOp: "arp_op", "arp_op", [], ["NXM_OF_ARP_OP", "OXM_OF_ARP_OP"], slot::IP_PROTO, Decimal, Exact, true, Arp, L3;
    #[doc = "DSCP as the upper six bits of the TOS byte: a multiple of 4."]
    NwTos: "nw_tos", "nw_tos", [], ["NXM_OF_IP_TOS"], slot::IP_TOS, Decimal, Exact, true, Ip, L3;
    #[doc = "DSCP, 0 to 63."]
    IpDscp: "ip_dscp", "ip_dscp", [], ["OXM_OF_IP_DSCP"], slot::IP_DSCP, Decimal, Exact, true, Ip, L3;
    #[doc = "ECN bits."]
    IpEcn: "nw_ecn", "nw_ecn", ["ip_ecn"], ["NXM_NX_IP_ECN", "OXM_OF_IP_ECN"], slot::IP_ECN, Decimal, Exact, true, Ip, L3;
    #[doc = "TTL or hop limit."]
    IpTtl: "nw_ttl", "nw_ttl", [], ["NXM_NX_IP_TTL"], slot::IP_TTL, Decimal, Exact, true, Ip, L3;
    #[doc = "Fragment state."]
    IpFrag: "ip_frag", "nw_frag", ["nw_frag"], ["NXM_NX_IP_FRAG"], Slot::new(5, 32, 2), Frag, Bitwise, false, Ip, L3;
    #[doc = "ARP sender hardware address."]
    ArpSha: "arp_sha", "arp_sha", [], ["NXM_NX_ARP_SHA", "OXM_OF_ARP_SHA"], slot::ARP_SHA, Mac, Bitwise, true, Arp, L3;
    #[doc = "ARP target hardware address."]
    ArpTha: "arp_tha", "arp_tha", [], ["NXM_NX_ARP_THA", "OXM_OF_ARP_THA"], slot::ARP_THA, Mac, Bitwise, true, Arp, L3;
    #[doc = "TCP source port."]
    TcpSrc: "tcp_src", "tp_src", ["tp_src"], ["NXM_OF_TCP_SRC", "OXM_OF_TCP_SRC"], slot::TP_SRC, Decimal, Bitwise, true, Tcp, L4;
    #[doc = "TCP destination port."]
    TcpDst: "tcp_dst", "tp_dst", ["tp_dst"], ["NXM_OF_TCP_DST", "OXM_OF_TCP_DST"], slot::TP_DST, Decimal, Bitwise, true, Tcp, L4;
    #[doc = "UDP source port."]
    UdpSrc: "udp_src", "tp_src", [], ["NXM_OF_UDP_SRC", "OXM_OF_UDP_SRC"], slot::TP_SRC, Decimal, Bitwise, true, Udp, L4;
    #[doc = "UDP destination port."]
    UdpDst: "udp_dst", "tp_dst", [], ["NXM_OF_UDP_DST", "OXM_OF_UDP_DST"], slot::TP_DST, Decimal, Bitwise, true, Udp, L4;
    #[doc = "SCTP source port."]
    SctpSrc: "sctp_src", "tp_src", [], ["OXM_OF_SCTP_SRC"], slot::TP_SRC, Decimal, Bitwise, true, Sctp, L4;
    #[doc = "SCTP destination port."]
    SctpDst: "sctp_dst", "tp_dst", [], ["OXM_OF_SCTP_DST"], slot::TP_DST, Decimal, Bitwise, true, Sctp, L4;
    #[doc = "TCP flags."]
    TcpFlags: "tcp_flags", "tcp_flags", [], ["NXM_NX_TCP_FLAGS", "OXM_OF_TCP_FLAGS"], Slot::new(6, 16, 12), TcpFlags, Bitwise, false, Tcp, L4;
    #[doc = "ICMP type."]
    IcmpType: "icmp_type", "icmp_type", [], ["NXM_OF_ICMP_TYPE", "OXM_OF_ICMPV4_TYPE"], Slot::new(6, 48, 8), Decimal, Exact, true, Icmpv4, L4;
    #[doc = "ICMP code."]
    IcmpCode: "icmp_code", "icmp_code", [], ["NXM_OF_ICMP_CODE", "OXM_OF_ICMPV4_CODE"], Slot::new(6, 32, 8), Decimal, Exact, true, Icmpv4, L4;
    #[doc = "ICMPv6 type."]
    Icmpv6Type: "icmpv6_type", "icmp_type", [], ["NXM_NX_ICMPV6_TYPE", "OXM_OF_ICMPV6_TYPE"], Slot::new(6, 48, 8), Decimal, Exact, true, Icmpv6, L4;
    #[doc = "ICMPv6 code."]
    Icmpv6Code: "icmpv6_code", "icmp_code", [], ["NXM_NX_ICMPV6_CODE", "OXM_OF_ICMPV6_CODE"], Slot::new(6, 32, 8), Decimal, Exact, true, Icmpv6, L4;
    #[doc = "Neighbour discovery target address."]
    NdTarget: "nd_target", "nd_target", [], ["NXM_NX_ND_TARGET", "OXM_OF_IPV6_ND_TARGET"], slot::ND_TARGET, Ipv6, Bitwise, true, Nd, L4;
    #[doc = "Neighbour discovery source link-layer address option."]
    NdSll: "nd_sll", "nd_sll", [], ["NXM_NX_ND_SLL", "OXM_OF_IPV6_ND_SLL"], slot::ARP_SHA, Mac, Bitwise, true, NdSolicit, L4;
    #[doc = "Neighbour discovery target link-layer address option."]
    NdTll: "nd_tll", "nd_tll", [], ["NXM_NX_ND_TLL", "OXM_OF_IPV6_ND_TLL"], slot::ARP_THA, Mac, Bitwise, true, NdAdvert, L4;
}

impl Field {
    /// The field's row in the registry.
    pub fn info(self) -> &'static FieldInfo {
        &FIELDS[self as usize]
    }

    /// Where the field lives in the key.
    pub fn slot(self) -> Slot {
        self.info().slot
    }

    /// Width in the flow language, in bits: what subfields count.
    ///
    /// That of its slot but for the two fields whose slot is not what OpenFlow says: `vlan_vid` has its tag-present bit
    /// beside its 12 bits, and of the ARP opcode's 16 bits the key keeps 8.
    pub fn width(self) -> u8 {
        match self {
            Self::VlanVid => 12,
            Self::ArpOp => 16,
            _ => self.slot().bits,
        }
    }

    /// The field that a word of the language names: its name, an alias, or an NXM/OXM name (in any case).
    pub fn from_name(word: &str) -> Option<Self> {
        FIELDS
            .iter()
            .find(|i| i.name == word || i.aliases.contains(&word) || i.nxm.iter().any(|n| n.eq_ignore_ascii_case(word)))
            .map(|i| i.field)
    }

    /// Register `n`, 0 to 15.
    pub fn reg(n: u8) -> Option<Self> {
        FIELDS.get(Self::Reg0 as usize + usize::from(n)).filter(|_| n < 16).map(|i| i.field)
    }

    /// True when the field lives in the packet part of the key.
    pub fn in_packet(self) -> bool {
        usize::from(self.slot().word) < crate::key::PACKET_WORDS
    }
}

impl Prereq {
    /// Whether the packet with this key has the fields that need `self`. Adds to `mask` every bit that the answer
    /// depends on.
    pub fn holds(self, key: &FlowKey, mask: &mut FlowMask) -> bool {
        let mut read = |s: Slot| {
            mask.add(s);
            key.get(s) as u64
        };
        match self {
            Self::None => true,
            Self::Vlan => read(Slot::new(slot::VLAN_TCI.word, 12, 1)) != 0,
            Self::Arp => matches!(read(slot::ETH_TYPE) as u16, ETH_TYPE_ARP | ETH_TYPE_RARP),
            Self::Ipv4 => read(slot::ETH_TYPE) as u16 == ETH_TYPE_IPV4,
            Self::Ipv6 => read(slot::ETH_TYPE) as u16 == ETH_TYPE_IPV6,
            Self::Ip => matches!(read(slot::ETH_TYPE) as u16, ETH_TYPE_IPV4 | ETH_TYPE_IPV6),
            Self::Tcp | Self::Udp | Self::Sctp => {
                let proto = match self {
                    Self::Tcp => IP_PROTO_TCP,
                    Self::Udp => IP_PROTO_UDP,
                    _ => IP_PROTO_SCTP,
                };
                Self::Ip.holds(key, mask) && l4_is(key, mask, proto)
            }
            Self::Icmpv4 => Self::Ipv4.holds(key, mask) && l4_is(key, mask, IP_PROTO_ICMP),
            Self::Icmpv6 => Self::Ipv6.holds(key, mask) && l4_is(key, mask, IP_PROTO_ICMPV6),
            Self::Nd | Self::NdSolicit | Self::NdAdvert => {
                if !Self::Icmpv6.holds(key, mask) {
                    return false;
                }
                mask.add(slot::TP_SRC);
                mask.add(slot::TP_DST);
                let (kind, code) = (key.get(slot::TP_SRC), key.get(slot::TP_DST));
                let (solicit, advert) = (u128::from(ND_SOLICIT), u128::from(ND_ADVERT));
                code == 0
                    && match self {
                        Self::NdSolicit => kind == solicit,
                        Self::NdAdvert => kind == advert,
                        _ => kind == solicit || kind == advert,
                    }
            }
        }
    }
}

/// Whether the transport header of protocol `proto` is there: the protocol fits and this is no later fragment.
fn l4_is(key: &FlowKey, mask: &mut FlowMask, proto: u8) -> bool {
    mask.add(slot::IP_PROTO);
    mask.add(slot::IP_FRAG);
    key.get(slot::IP_PROTO) == u128::from(proto) && key.get(slot::IP_FRAG) as u8 & crate::key::FRAG_LATER == 0
}

/// The tag-present bit as a match on `vlan_tci`: value and mask.
pub const VLAN_PRESENT_MATCH: (u128, u128) = (VLAN_PRESENT as u128, VLAN_PRESENT as u128);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn rows_stand_at_their_index_and_names_are_unique() {
        let mut seen = HashSet::new();
        for (i, info) in FIELDS.iter().enumerate() {
            assert_eq!(info.field as usize, i);
            for word in [info.name].iter().chain(info.aliases).chain(info.nxm) {
                assert!(seen.insert(word.to_ascii_lowercase()), "{word} names two fields");
                assert_eq!(Field::from_name(word), Some(info.field));
            }
        }
    }

    #[test]
    fn registers_are_found_by_number() {
        assert_eq!(Field::reg(15), Some(Field::Reg15));
        assert_eq!(Field::reg(16), None);
        assert_eq!(Field::Reg7.slot(), slot::reg(7));
    }
}
