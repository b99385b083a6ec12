//! The field registry: every word of the flow language that names a field, in one table.
//!
//! Adding a field is adding one row to the `fields!` table below: its name, aliases and NXM/OXM names, where it lives
//! in the key, how its values are written, which masks it takes, whether actions may set it, what a packet must be for
//! it to exist, and the lookup stage it belongs to. Parsing, printing, matching and setting all read this table.

use crate::key::{CT_EST, CT_NEW, CT_RPL, FlowKey, FlowMask, Slot, VLAN_PRESENT, slot};

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
    /// `+new-est`, or `new|trk` in a packet, or a number.
    CtState,
    /// `+oam` or a number.
    TunFlags,
    /// `(NS,TYPE)`.
    PacketType,
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
    /// MPLS, unicast or multicast.
    Mpls,
    /// NSH.
    Nsh,
    /// A tracked IPv4 packet: one whose connection's first packet is known.
    CtIpv4,
    /// A tracked IPv6 packet.
    CtIpv6,
    /// A tracked packet of IPv4 or IPv6.
    CtIp,
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
/// EtherType of MPLS unicast.
pub const ETH_TYPE_MPLS: u16 = 0x8847;
/// EtherType of MPLS multicast.
pub const ETH_TYPE_MPLS_MCAST: u16 = 0x8848;
/// EtherType: Ethernet in another protocol ("transparent Ethernet bridging").
pub const ETH_TYPE_TEB: u16 = 0x6558;
/// EtherType of NSH (RFC 8300).
pub const ETH_TYPE_NSH: u16 = 0x894f;
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
    #[doc = "Registers 0 and 1 as one, the former the more significant half."]
    Xreg0: "xreg0", "xreg0", [], ["OXM_OF_PKT_REG0"], Slot::new(slot::reg(0).word, 0, 64), Hex, Bitwise, true, None, Metadata;
    #[doc = "Registers 2 and 3 as one, the former the more significant half."]
    Xreg1: "xreg1", "xreg1", [], ["OXM_OF_PKT_REG1"], Slot::new(slot::reg(2).word, 0, 64), Hex, Bitwise, true, None, Metadata;
    #[doc = "Registers 4 and 5 as one, the former the more significant half."]
    Xreg2: "xreg2", "xreg2", [], ["OXM_OF_PKT_REG2"], Slot::new(slot::reg(4).word, 0, 64), Hex, Bitwise, true, None, Metadata;
    #[doc = "Registers 6 and 7 as one, the former the more significant half."]
    Xreg3: "xreg3", "xreg3", [], ["OXM_OF_PKT_REG3"], Slot::new(slot::reg(6).word, 0, 64), Hex, Bitwise, true, None, Metadata;
    #[doc = "Registers 8 and 9 as one, the former the more significant half."]
    Xreg4: "xreg4", "xreg4", [], ["OXM_OF_PKT_REG4"], Slot::new(slot::reg(8).word, 0, 64), Hex, Bitwise, true, None, Metadata;
    #[doc = "Registers 10 and 11 as one, the former the more significant half."]
    Xreg5: "xreg5", "xreg5", [], ["OXM_OF_PKT_REG5"], Slot::new(slot::reg(10).word, 0, 64), Hex, Bitwise, true, None, Metadata;
    #[doc = "Registers 12 and 13 as one, the former the more significant half."]
    Xreg6: "xreg6", "xreg6", [], ["OXM_OF_PKT_REG6"], Slot::new(slot::reg(12).word, 0, 64), Hex, Bitwise, true, None, Metadata;
    #[doc = "Registers 14 and 15 as one, the former the more significant half."]
    Xreg7: "xreg7", "xreg7", [], ["OXM_OF_PKT_REG7"], Slot::new(slot::reg(14).word, 0, 64), Hex, Bitwise, true, None, Metadata;
    #[doc = "Registers 0 to 3 as one, the first the most significant part."]
    Xxreg0: "xxreg0", "xxreg0", [], ["NXM_NX_XXREG0"], Slot::new(slot::reg(0).word, 0, 128), Hex, Bitwise, true, None, Metadata;
    #[doc = "Registers 4 to 7 as one, the first the most significant part."]
    Xxreg1: "xxreg1", "xxreg1", [], ["NXM_NX_XXREG1"], Slot::new(slot::reg(4).word, 0, 128), Hex, Bitwise, true, None, Metadata;
    #[doc = "Registers 8 to 11 as one, the first the most significant part."]
    Xxreg2: "xxreg2", "xxreg2", [], ["NXM_NX_XXREG2"], Slot::new(slot::reg(8).word, 0, 128), Hex, Bitwise, true, None, Metadata;
    #[doc = "Registers 12 to 15 as one, the first the most significant part."]
    Xxreg3: "xxreg3", "xxreg3", [], ["NXM_NX_XXREG3"], Slot::new(slot::reg(12).word, 0, 128), Hex, Bitwise, true, None, Metadata;
    #[doc = "Tunnel key."]
    TunId: "tun_id", "tun_id", ["tunnel_id"], ["NXM_NX_TUN_ID", "OXM_OF_TUNNEL_ID"], slot::TUN_ID, Hex, Bitwise, true, None, Metadata;
    #[doc = "Outer IPv4 source."]
    TunSrc: "tun_src", "tun_src", [], ["NXM_NX_TUN_IPV4_SRC"], slot::TUN_SRC, Ipv4, Bitwise, true, None, Metadata;
    #[doc = "Outer IPv4 destination."]
    TunDst: "tun_dst", "tun_dst", [], ["NXM_NX_TUN_IPV4_DST"], slot::TUN_DST, Ipv4, Bitwise, true, None, Metadata;
    #[doc = "Outer IPv6 source."]
    TunIpv6Src: "tun_ipv6_src", "tun_ipv6_src", [], ["NXM_NX_TUN_IPV6_SRC"], slot::TUN_IPV6_SRC, Ipv6, Bitwise, true, None, Metadata;
    #[doc = "Outer IPv6 destination."]
    TunIpv6Dst: "tun_ipv6_dst", "tun_ipv6_dst", [], ["NXM_NX_TUN_IPV6_DST"], slot::TUN_IPV6_DST, Ipv6, Bitwise, true, None, Metadata;
    #[doc = "Tunnel flags."]
    TunFlags: "tun_flags", "tun_flags", [], ["NXM_NX_TUN_FLAGS"], Slot::new(slot::TUN_FLAGS.word, 48, 1), TunFlags, Bitwise, true, None, Metadata;
    #[doc = "Outer TOS or traffic class."]
    TunTos: "tun_tos", "tun_tos", [], ["SLUICE_TUN_TOS"], slot::TUN_TOS, Decimal, Exact, true, None, Metadata;
    #[doc = "Outer TTL or hop limit."]
    TunTtl: "tun_ttl", "tun_ttl", [], ["SLUICE_TUN_TTL"], slot::TUN_TTL, Decimal, Exact, true, None, Metadata;
    #[doc = "VXLAN group policy identifier."]
    TunGbpId: "tun_gbp_id", "tun_gbp_id", [], ["NXM_NX_TUN_GBP_ID"], slot::TUN_GBP_ID, Decimal, Bitwise, true, None, Metadata;
    #[doc = "VXLAN group policy flags."]
    TunGbpFlags: "tun_gbp_flags", "tun_gbp_flags", [], ["NXM_NX_TUN_GBP_FLAGS"], slot::TUN_GBP_FLAGS, Hex, Bitwise, true, None, Metadata;
    #[doc = "ERSPAN index, 20 bits."]
    TunErspanIdx: "tun_erspan_idx", "tun_erspan_idx", [], ["NXOXM_ET_ERSPAN_IDX"], Slot::new(slot::TUN_ERSPAN_IDX.word, 32, 20), Hex, Bitwise, true, None, Metadata;
    #[doc = "ERSPAN version."]
    TunErspanVer: "tun_erspan_ver", "tun_erspan_ver", [], ["NXOXM_ET_ERSPAN_VER"], Slot::new(slot::TUN_ERSPAN_VER.word, 0, 4), Decimal, Bitwise, true, None, Metadata;
    #[doc = "ERSPAN direction."]
    TunErspanDir: "tun_erspan_dir", "tun_erspan_dir", [], ["NXOXM_ET_ERSPAN_DIR"], Slot::new(slot::TUN_ERSPAN_DIR.word, 24, 1), Decimal, Bitwise, true, None, Metadata;
    #[doc = "ERSPAN hardware identifier."]
    TunErspanHwid: "tun_erspan_hwid", "tun_erspan_hwid", [], ["NXOXM_ET_ERSPAN_HWID"], Slot::new(slot::TUN_ERSPAN_HWID.word, 16, 6), Hex, Bitwise, true, None, Metadata;
    #[doc = "GTP-U flags."]
    TunGtpuFlags: "tun_gtpu_flags", "gtpu_flags", ["gtpu_flags"], ["NXOXM_ET_GTPU_FLAGS"], slot::TUN_GTPU_FLAGS, Hex, Bitwise, false, None, Metadata;
    #[doc = "GTP-U message type."]
    TunGtpuMsgtype: "tun_gtpu_msgtype", "gtpu_msgtype", ["gtpu_msgtype"], ["NXOXM_ET_GTPU_MSGTYPE"], slot::TUN_GTPU_MSGTYPE, Decimal, Bitwise, false, None, Metadata;
    #[doc = "Geneve option 0."]
    TunMetadata0: "tun_metadata0", "tun_metadata0", [], ["NXM_NX_TUN_METADATA0"], slot::tun_metadata(0), Hex, Bitwise, true, None, Metadata;
    #[doc = "Geneve option 1."]
    TunMetadata1: "tun_metadata1", "tun_metadata1", [], ["NXM_NX_TUN_METADATA1"], slot::tun_metadata(1), Hex, Bitwise, true, None, Metadata;
    #[doc = "Geneve option 2."]
    TunMetadata2: "tun_metadata2", "tun_metadata2", [], ["NXM_NX_TUN_METADATA2"], slot::tun_metadata(2), Hex, Bitwise, true, None, Metadata;
    #[doc = "Geneve option 3."]
    TunMetadata3: "tun_metadata3", "tun_metadata3", [], ["NXM_NX_TUN_METADATA3"], slot::tun_metadata(3), Hex, Bitwise, true, None, Metadata;
    #[doc = "Geneve option 4."]
    TunMetadata4: "tun_metadata4", "tun_metadata4", [], ["NXM_NX_TUN_METADATA4"], slot::tun_metadata(4), Hex, Bitwise, true, None, Metadata;
    #[doc = "Geneve option 5."]
    TunMetadata5: "tun_metadata5", "tun_metadata5", [], ["NXM_NX_TUN_METADATA5"], slot::tun_metadata(5), Hex, Bitwise, true, None, Metadata;
    #[doc = "Geneve option 6."]
    TunMetadata6: "tun_metadata6", "tun_metadata6", [], ["NXM_NX_TUN_METADATA6"], slot::tun_metadata(6), Hex, Bitwise, true, None, Metadata;
    #[doc = "Geneve option 7."]
    TunMetadata7: "tun_metadata7", "tun_metadata7", [], ["NXM_NX_TUN_METADATA7"], slot::tun_metadata(7), Hex, Bitwise, true, None, Metadata;
    #[doc = "Connection state."]
    CtState: "ct_state", "ct_state", [], ["NXM_NX_CT_STATE"], slot::CT_STATE, CtState, Bitwise, false, None, Metadata;
    #[doc = "Connection tracking zone."]
    CtZone: "ct_zone", "ct_zone", [], ["NXM_NX_CT_ZONE"], slot::CT_ZONE, Decimal, Exact, false, None, Metadata;
    #[doc = "Connection mark."]
    CtMark: "ct_mark", "ct_mark", [], ["NXM_NX_CT_MARK"], slot::CT_MARK, Hex, Bitwise, true, None, Metadata;
    #[doc = "Connection label."]
    CtLabel: "ct_label", "ct_label", [], ["NXM_NX_CT_LABEL"], slot::CT_LABEL, Hex, Bitwise, true, None, Metadata;
    #[doc = "IP protocol of the connection's first packet."]
    CtNwProto: "ct_nw_proto", "ct_nw_proto", [], ["NXM_NX_CT_NW_PROTO"], slot::CT_NW_PROTO, Decimal, Exact, false, CtIp, Metadata;
    #[doc = "IPv4 source of the connection's first packet."]
    CtNwSrc: "ct_nw_src", "ct_nw_src", [], ["NXM_NX_CT_NW_SRC"], slot::CT_NW_SRC, Ipv4, Bitwise, false, CtIpv4, Metadata;
    #[doc = "IPv4 destination of the connection's first packet."]
    CtNwDst: "ct_nw_dst", "ct_nw_dst", [], ["NXM_NX_CT_NW_DST"], slot::CT_NW_DST, Ipv4, Bitwise, false, CtIpv4, Metadata;
    #[doc = "IPv6 source of the connection's first packet."]
    CtIpv6Src: "ct_ipv6_src", "ct_ipv6_src", [], ["NXM_NX_CT_IPV6_SRC"], slot::CT_IPV6_SRC, Ipv6, Bitwise, false, CtIpv6, Metadata;
    #[doc = "IPv6 destination of the connection's first packet."]
    CtIpv6Dst: "ct_ipv6_dst", "ct_ipv6_dst", [], ["NXM_NX_CT_IPV6_DST"], slot::CT_IPV6_DST, Ipv6, Bitwise, false, CtIpv6, Metadata;
    #[doc = "Transport source port of the connection's first packet."]
    CtTpSrc: "ct_tp_src", "ct_tp_src", [], ["NXM_NX_CT_TP_SRC"], slot::CT_TP_SRC, Decimal, Bitwise, false, CtIp, Metadata;
    #[doc = "Transport destination port of the connection's first packet."]
    CtTpDst: "ct_tp_dst", "ct_tp_dst", [], ["NXM_NX_CT_TP_DST"], slot::CT_TP_DST, Decimal, Bitwise, false, CtIp, Metadata;
    #[doc = "Hash that the datapath computed."]
    DpHash: "dp_hash", "dp_hash", [], ["NXM_NX_DP_HASH"], slot::DP_HASH, Hex, Bitwise, false, None, Metadata;
    #[doc = "Recirculation identifier."]
    RecircId: "recirc_id", "recirc_id", [], ["NXM_NX_RECIRC_ID"], slot::RECIRC_ID, Hex, Exact, false, None, Metadata;
    #[doc = "Identifier of the conjunction that matched."]
    ConjId: "conj_id", "conj_id", [], ["NXM_NX_CONJ_ID"], slot::CONJ_ID, Decimal, Exact, false, None, Metadata;
    #[doc = "Priority for quality of service."]
    SkbPriority: "skb_priority", "skb_priority", [], [], slot::SKB_PRIORITY, Hex, Exact, false, None, Metadata;
    #[doc = "Output port in the action set."]
    ActsetOutput: "actset_output", "actset_output", [], ["ONFOXM_ET_ACTSET_OUTPUT", "OXM_OF_ACTSET_OUTPUT"], Slot::new(slot::ACTSET_OUTPUT.word, 0, 16), Port, Exact, false, None, Metadata;
    #[doc = "Packet type: name space and type within it."]
    PacketType: "packet_type", "packet_type", [], ["OXM_OF_PACKET_TYPE"], slot::PACKET_TYPE, PacketType, Exact, false, None, Metadata;
    #[doc = "Label of the outermost MPLS entry."]
    MplsLabel: "mpls_label", "mpls_label", [], ["OXM_OF_MPLS_LABEL"], Slot::new(4, 44, 20), Decimal, Exact, true, Mpls, L3;
    #[doc = "Traffic class of the outermost MPLS entry."]
    MplsTc: "mpls_tc", "mpls_tc", [], ["OXM_OF_MPLS_TC"], Slot::new(4, 41, 3), Decimal, Exact, true, Mpls, L3;
    #[doc = "Bottom-of-stack bit of the outermost MPLS entry."]
    MplsBos: "mpls_bos", "mpls_bos", [], ["OXM_OF_MPLS_BOS"], Slot::new(4, 40, 1), Decimal, Exact, false, Mpls, L3;
    #[doc = "TTL of the outermost MPLS entry."]
    MplsTtl: "mpls_ttl", "mpls_ttl", [], ["NXM_NX_MPLS_TTL"], Slot::new(4, 32, 8), Decimal, Exact, true, Mpls, L3;
    #[doc = "NSH flags."]
    NshFlags: "nsh_flags", "nsh_flags", [], ["NXOXM_NSH_FLAGS"], slot::NSH_FLAGS, Decimal, Bitwise, true, Nsh, L3;
    #[doc = "NSH TTL."]
    NshTtl: "nsh_ttl", "nsh_ttl", [], ["NXOXM_NSH_TTL"], Slot::new(slot::NSH_TTL.word, slot::NSH_TTL.shift, 6), Decimal, Exact, true, Nsh, L3;
    #[doc = "NSH metadata type."]
    NshMdtype: "nsh_mdtype", "nsh_mdtype", [], ["NXOXM_NSH_MDTYPE"], slot::NSH_MDTYPE, Decimal, Exact, false, Nsh, L3;
    #[doc = "NSH next protocol."]
    NshNp: "nsh_np", "nsh_np", [], ["NXOXM_NSH_NP"], slot::NSH_NP, Decimal, Exact, false, Nsh, L3;
    #[doc = "NSH service path identifier."]
    NshSpi: "nsh_spi", "nsh_spi", ["nsp"], ["NXOXM_NSH_SPI"], Slot::new(4, 40, 24), Hex, Exact, true, Nsh, L3;
    #[doc = "NSH service index."]
    NshSi: "nsh_si", "nsh_si", ["nsi"], ["NXOXM_NSH_SI"], Slot::new(4, 32, 8), Decimal, Exact, true, Nsh, L3;
    #[doc = "NSH context word 1."]
    NshC1: "nsh_c1", "nsh_c1", ["nshc1"], ["NXOXM_NSH_C1"], Slot::new(7, 32, 32), Hex, Bitwise, true, Nsh, L3;
    #[doc = "NSH context word 2."]
    NshC2: "nsh_c2", "nsh_c2", ["nshc2"], ["NXOXM_NSH_C2"], Slot::new(7, 0, 32), Hex, Bitwise, true, Nsh, L3;
    #[doc = "NSH context word 3."]
    NshC3: "nsh_c3", "nsh_c3", ["nshc3"], ["NXOXM_NSH_C3"], Slot::new(8, 32, 32), Hex, Bitwise, true, Nsh, L3;
    #[doc = "NSH context word 4."]
    NshC4: "nsh_c4", "nsh_c4", ["nshc4"], ["NXOXM_NSH_C4"], Slot::new(8, 0, 32), Hex, Bitwise, true, Nsh, L3;
    #[doc = "Reserved field of a neighbour solicitation or advertisement."]
    NdReserved: "nd_reserved", "nd_reserved", [], ["ERICOXM_OF_ICMPV6_ND_RESERVED"], slot::ND_RESERVED, Decimal, Exact, true, Nd, L4;
    #[doc = "Type of the first option of a neighbour solicitation or advertisement."]
    NdOptionsType: "nd_options_type", "nd_options_type", [], ["ERICOXM_OF_ICMPV6_ND_OPTIONS_TYPE"], slot::ND_OPTIONS_TYPE, Decimal, Exact, true, Nd, L4;
}

impl FieldInfo {
    /// Whether Open vSwitch's flow language does not have the field: TOS and TTL of the outer header, which its flows
    /// cannot name.
    pub fn is_ours(&self) -> bool {
        matches!(self.field, Field::TunTos | Field::TunTtl)
    }
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
            Self::Mpls => matches!(read(slot::ETH_TYPE) as u16, ETH_TYPE_MPLS | ETH_TYPE_MPLS_MCAST),
            Self::Nsh => read(slot::ETH_TYPE) as u16 == ETH_TYPE_NSH,
            Self::CtIpv4 => read(slot::ETH_TYPE) as u16 == ETH_TYPE_IPV4 && original_tuple_is_known(key, mask),
            Self::CtIpv6 => read(slot::ETH_TYPE) as u16 == ETH_TYPE_IPV6 && original_tuple_is_known(key, mask),
            Self::CtIp => Self::Ip.holds(key, mask) && original_tuple_is_known(key, mask),
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

/// Whether the tracker says what the first packet of the connection was: the packet begins, belongs to or answers one.
fn original_tuple_is_known(key: &FlowKey, mask: &mut FlowMask) -> bool {
    const KNOWN: u8 = CT_NEW | CT_EST | CT_RPL;
    mask.set_masked(slot::CT_STATE, u128::MAX, KNOWN.into());
    key.get(slot::CT_STATE) as u8 & KNOWN != 0
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
