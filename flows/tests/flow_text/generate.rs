//! Random matches, actions, flows, packets and texts, made from the field registry.

mod actions;

pub(crate) use actions::{actions, modern_action, old_action};

use actions::table;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use sluice_flows::action::Action;
use sluice_flows::field::{FIELDS, Field, FieldInfo, Maskable};
use sluice_flows::key::{FlowKey, FlowMask, slot};
use sluice_flows::rule::{FlowSpec, TableId};
use sluice_flows::{Match, Owner};

/// Which matches on VLAN tags are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tags {
    /// Any value under any mask, and whatever else we keep.
    Any,
    /// Any value under any mask.
    Raw,
    /// Those that OpenFlow 1.2 and later can say: untagged, tagged, a VLAN, a VLAN and a priority.
    Sayable,
}

/// EtherType, IP protocol and ICMPv6 type.
type Protocols = (u16, Option<u8>, Option<u8>);

fn protocols() -> impl Strategy<Value = Option<Protocols>> {
    select(vec![
        None,
        Some((0x1234, None, None)),
        Some((0x0806, None, None)),
        Some((0x8035, None, None)),
        Some((0x0800, None, None)),
        Some((0x0800, Some(6), None)),
        Some((0x0800, Some(17), None)),
        Some((0x0800, Some(132), None)),
        Some((0x0800, Some(1), None)),
        Some((0x0800, Some(0), None)),
        Some((0x0800, Some(89), None)),
        Some((0x8847, None, None)),
        Some((0x8848, None, None)),
        Some((0x894f, None, None)),
        Some((0x86dd, None, None)),
        Some((0x86dd, Some(6), None)),
        Some((0x86dd, Some(17), None)),
        Some((0x86dd, Some(132), None)),
        Some((0x86dd, Some(59), None)),
        Some((0x86dd, Some(58), None)),
        Some((0x86dd, Some(58), Some(1))),
        Some((0x86dd, Some(58), Some(135))),
        Some((0x86dd, Some(58), Some(136))),
    ])
}

/// Zero, ones, small or anything.
fn number() -> impl Strategy<Value = u128> {
    prop_oneof![Just(0), Just(u128::MAX), 0..256u128, any::<u128>()]
}

/// The mask that these make of a width of `bits`: whole, a prefix, or anything; of 128 bits, anything that begins with
/// four ones, because OVS takes an IPv6 mask that begins with a decimal digit for a prefix length.
fn mask(kind: u8, len: u8, any: u128, bits: u8) -> u128 {
    let whole = u128::MAX >> (128 - u32::from(bits));
    match kind % 3 {
        0 => whole,
        1 => whole & !(whole.checked_shr(u32::from(len % bits) + 1).unwrap_or(0)),
        _ if bits == 128 => any | 0xf << 124,
        _ => any & whole,
    }
}

/// What is given for a field: whether it is taken, its value, and its mask.
type Given = (bool, u128, (u8, u8, u128));

fn given() -> impl Strategy<Value = Vec<Given>> {
    let one = (prop::bool::weighted(0.25), number(), (any::<u8>(), any::<u8>(), any::<u128>()));
    vec(one, fields().count())
}

fn exists(info: &FieldInfo, key: &FlowKey) -> bool {
    let mut read = FlowMask::ZERO;
    info.prereq.holds(key, &mut read)
}

fn start(protocols: Option<Protocols>) -> (FlowKey, FlowMask) {
    let (mut key, mut mask) = (FlowKey::ZERO, FlowMask::ZERO);
    let mut set = |slot, value: u128| {
        key.set(slot, value);
        mask.set(slot, u128::MAX);
    };
    if let Some((eth_type, proto, kind)) = protocols {
        set(slot::ETH_TYPE, eth_type.into());
        if let Some(proto) = proto {
            set(slot::IP_PROTO, proto.into());
        }
        if let Some(kind) = kind {
            set(Field::Icmpv6Type.slot(), kind.into());
            set(Field::Icmpv6Code.slot(), 0);
        }
    }
    (key, mask)
}

/// The fields that OVS's flow language has too.
pub(crate) fn fields() -> impl Iterator<Item = &'static FieldInfo> {
    FIELDS.iter().filter(|info| !info.is_ours())
}

/// Matches that every switch keeps as they are.
pub(crate) fn matches(tags: Tags) -> impl Strategy<Value = Match> {
    (protocols(), given()).prop_map(move |(protocols, given)| {
        let (mut key, mut mask_of) = start(protocols);
        for (info, (taken, value, (kind, len, any))) in fields().zip(given) {
            if !taken || mask_of.get(info.slot) != 0 || !exists(info, &key) {
                continue;
            }
            let bits = info.slot.bits;
            let (value, mask) = match info.field {
                Field::EthType | Field::IpProto | Field::VlanVid | Field::VlanPcp | Field::NwTos => continue,
                // Said by other words, or of packets only.
                Field::PacketType | Field::SkbPriority | Field::CtTpSrc | Field::CtTpDst
                    if info.field == Field::PacketType
                        || info.field == Field::SkbPriority
                        || mask_of.get(slot::CT_NW_PROTO) == 0 =>
                {
                    continue;
                }
                _ if tags != Tags::Any && ovs_hides(info.field) => continue,
                Field::TunGbpFlags if tags != Tags::Any => (value, u128::MAX),
                // OVS's message loses a zero.
                Field::CtNwProto => (value | 1, u128::MAX),
                Field::NshMdtype => (value % 2 + 1, u128::MAX),
                Field::ActsetOutput | Field::InPort => (value & 0x7fff, u128::MAX),
                Field::VlanTci if tags == Tags::Sayable => sayable_tag(kind, value),
                // "no" and "later" are also words for one bit of the two, which read back as both bits.
                Field::IpFrag => [(0, 3), (1, 3), (3, 3), (1, 1), (0, 2)][usize::from(kind % 5)],
                _ if info.maskable == Maskable::Exact => (value, u128::MAX),
                _ => (value, mask(kind, len, any, bits)),
            };
            key.set(info.slot, value & mask);
            mask_of.set(info.slot, mask & info.slot.max());
        }
        Match::new(&key, &mask_of)
    })
}

/// Whether OVS leaves the field out when it prints, unless another field says that it is there.
fn ovs_hides(field: Field) -> bool {
    let name = field.info().name;
    // What it prints of GTP-U, it does not read.
    name.starts_with("tun_gtpu")
        || name.starts_with("tun_erspan")
        || name.starts_with("nsh_c")
        || name.starts_with("tun_metadata")
}

fn sayable_tag(kind: u8, value: u128) -> (u128, u128) {
    match kind % 4 {
        0 => (0, 0x1fff),
        1 => (0x1000, 0x1000),
        2 => (0x1000 | value & 0xfff, 0x1fff),
        _ => (0x1000 | value & 0xefff, 0xffff),
    }
}

/// A flow with these parts.
pub(crate) fn flow(
    matches: impl Strategy<Value = Match>,
    actions: impl Strategy<Value = Vec<Action>>,
    importance: impl Strategy<Value = u16>,
) -> impl Strategy<Value = FlowSpec> {
    let zero_or = || prop_oneof![2 => Just(0u16), 1 => any::<u16>()];
    let priority = prop_oneof![Just(0x8000u16), any::<u16>()];
    let cookie = prop_oneof![Just(0u64), any::<u64>()];
    let head = (prop_oneof![Just(TableId::FIRST), table()], priority, cookie, any::<bool>());
    (matches, actions, head, zero_or(), zero_or(), importance).prop_map(
        |(matches, actions, (table, priority, cookie, send_flow_rem), idle, hard, importance)| FlowSpec {
            table,
            priority,
            cookie,
            send_flow_rem,
            idle_timeout: idle,
            hard_timeout: hard,
            importance,
            ..FlowSpec::new(matches, actions, Owner::user())
        },
    )
}

/// Any flow; its actions need not fit its match.
pub(crate) fn flows() -> impl Strategy<Value = FlowSpec> {
    flow(matches(Tags::Any), actions(), any::<u16>())
}

/// Packets with random fields.
pub(crate) fn packets() -> impl Strategy<Value = FlowKey> {
    (protocols(), given(), 0..3u8).prop_map(|(protocols, given, tags)| {
        let (mut key, fixed) = start(protocols);
        key.set(slot::IN_PORT, 1);
        let tag = |n: usize| 0x1000 | given[n].1 & 0xffff;
        let (outer, inner) = (tag(0), tag(1));
        for (info, (_, value, _)) in fields().zip(&given) {
            let free = fixed.get(info.slot) == 0 && info.field.in_packet();
            let typed = fixed.get(slot::TP_SRC) != 0;
            let frag = (info.field == Field::IpFrag).then(|| if typed { 0 } else { [0, 1, 3][(*value % 3) as usize] });
            let tag = matches!(info.field, Field::VlanTci | Field::VlanVid | Field::VlanPcp);
            let fixed = matches!(info.field, Field::EthType | Field::IpProto | Field::InPort);
            if free && !tag && !fixed && exists(info, &key) {
                key.set(info.slot, frag.unwrap_or(*value));
            }
        }
        if tags > 0 {
            key.set(slot::VLAN_TCI, outer);
            key.set(slot::VLAN_TPID, if tags == 2 { 0x88a8 } else { 0x8100 });
        }
        if tags == 2 {
            key.set(slot::INNER_VLAN_TCI, inner);
            key.set(slot::INNER_VLAN_TPID, 0x8100);
        }
        key
    })
}

/// Texts of words and marks of the language in any order.
pub(crate) fn soup() -> impl Strategy<Value = String> {
    let mut words: Vec<&str> = fields().flat_map(|info| [info.name, info.match_name]).collect();
    words.extend(fields().filter_map(|info| info.nxm.first().copied()));
    words.extend([
        "tcp",
        "ip",
        "arp",
        "icmp6",
        "mpls",
        "dl_vlan",
        "table",
        "priority",
        "cookie",
        "actions",
        "owner",
        "output",
        "load",
        "set_field",
        "move",
        "resubmit",
        "controller",
        "note",
        "goto_table",
        "clone(",
        "write_actions(",
        "learn(",
        "ct(",
        "nat(",
        "exec(",
        "encap(",
        "bundle(",
        "multipath(",
        "conjunction(",
        "check_pkt_larger",
        "eth_src,0,hrw,ofport,members",
        "commit",
        "zone",
        "src",
        "nsh",
        "drop",
        "delete",
        "group_id",
        "type",
        "all",
        "select",
        "bucket",
        "bucket=",
        "weight",
        "watch_port",
        "selection_method",
        "hash",
        "fields",
        "command_bucket_id",
        "meter",
        "kbps",
        "burst",
        "bands=type=drop",
        "rate",
        "flow ",
        "group ",
        "table ",
        "modify_strict",
        "LOCAL",
        "mod_vlan_vid",
        "push_vlan",
        "0",
        "1",
        "80",
        "0xffff",
        "-1",
        "99999999999999999999",
        "10.0.0.1",
        "::1",
        "02:00:00:00:00:01",
        "+syn-ack",
        "later",
        "8",
        "[0..7]",
        "[3]",
        "[",
        "]",
        "=",
        "=",
        "=",
        ":",
        ":",
        ",",
        ",",
        ",",
        " ",
        "/",
        "->",
        "->",
        "(",
        ")",
        "\"",
        "#",
        "\n",
        "\t",
        "*",
        "é",
        "\u{1f980}",
        "\0",
    ]);
    vec(select(words), 0..24).prop_map(|words| words.concat())
}
