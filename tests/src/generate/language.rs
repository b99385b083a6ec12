//! Random programs over the language that OVS and we share, as text, and packets for them.

use super::program::{BRIDGES, BucketLine, FlowLine, GroupLine, METERS, Program};
use super::{PORTS, TABLES, actions, packet, pick, random_mask, words};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use sluice_flows::consistency;
use sluice_flows::field::{FIELDS, FieldInfo, Format, Maskable, Prereq};
use sluice_flows::key::{CT_EST, CT_NEW, CT_RPL, CT_TRK, FlowKey, slot};
use sluice_flows::text::{Names, parse_flow};

/// The version of OpenFlow that flows are handed to OVS in: it decides which actions there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Version {
    /// 1.0 with Nicira's extensions: `mod_vlan_vid` makes a tag, `push_vlan` and groups do not exist.
    OpenFlow10,
    /// 1.5: setters need their protocol in the match.
    #[default]
    OpenFlow15,
}

/// Packets that the flows of a program match more often than others.
pub const FEW: usize = 4;

/// A program, and what of it we refused while it was made.
#[derive(Debug)]
pub struct Generated {
    /// The program.
    pub program: Program,
    /// Flows that we refuse. OVS should as well.
    pub refused: Vec<String>,
    /// Flows and actions tried.
    pub tried: usize,
}

/// What a packet knows beside its frame: tunnel, connection, mark, registers.
pub fn with_arrival(rng: &mut StdRng, mut key: FlowKey) -> FlowKey {
    if rng.random_bool(0.3) {
        key.set(slot::TUN_ID, pick(rng, &[1, 5, 0x1_0000_0005]));
        let v6 = rng.random_bool(0.3);
        if v6 {
            key.set(slot::TUN_IPV6_SRC, pick(rng, &super::IPV6));
            key.set(slot::TUN_IPV6_DST, pick(rng, &super::IPV6));
        } else {
            key.set(slot::TUN_SRC, pick(rng, &super::IPV4));
            key.set(slot::TUN_DST, pick(rng, &super::IPV4));
        }
        key.set(slot::TUN_GBP_ID, pick(rng, &[0, 0, 7]));
    }
    let ip = matches!(key.get(slot::ETH_TYPE), 0x0800 | 0x86dd);
    if ip && rng.random_bool(0.3) {
        let state = pick(rng, &[CT_TRK | CT_NEW, CT_TRK | CT_EST, CT_TRK | CT_EST | CT_RPL]);
        key.set(slot::CT_STATE, state.into());
        key.set(slot::CT_ZONE, pick(rng, &[0, 1, 5]));
        key.set(slot::CT_MARK, pick(rng, &[0, 1, 0xff]));
        key.set(slot::CT_LABEL, pick(rng, &[0, 1, 1 << 100]));
        if key.get(slot::ETH_TYPE) == 0x0800 {
            key.set(slot::CT_NW_SRC, pick(rng, &super::IPV4));
            key.set(slot::CT_NW_DST, pick(rng, &super::IPV4));
        } else {
            key.set(slot::CT_IPV6_SRC, pick(rng, &super::IPV6));
            key.set(slot::CT_IPV6_DST, pick(rng, &super::IPV6));
        }
        key.set(slot::CT_NW_PROTO, key.get(slot::IP_PROTO));
        key.set(slot::CT_TP_SRC, pick(rng, &super::PORT_NUMBERS));
        key.set(slot::CT_TP_DST, pick(rng, &super::PORT_NUMBERS));
    }
    if rng.random_bool(0.2) {
        key.set(slot::PKT_MARK, pick(rng, &[1, 5, 0xffff_ffff]));
        key.set(slot::SKB_PRIORITY, pick(rng, &[0, 1, 7]));
    }
    if rng.random_bool(0.2) {
        key.set(slot::METADATA, rng.random_range(0..4));
        key.set(slot::reg(rng.random_range(0..4)), rng.random_range(0..4));
    }
    key
}

/// A packet with an MPLS header of one or two entries.
pub fn mpls(rng: &mut StdRng) -> FlowKey {
    let mut key = packet(rng);
    key.0[4..15].fill(0);
    key.set(slot::ETH_TYPE, pick(rng, &[0x8847, 0x8847, 0x8848]));
    let lse = |rng: &mut StdRng, bos: u128| {
        pick(rng, &[16u128, 17, 1000]) << 12 | rng.random_range(0..8u128) << 9 | bos << 8 | pick(rng, &[0, 1, 2, 64])
    };
    let bos = rng.random_range(0..2);
    key.set(slot::MPLS_LSE, lse(rng, bos));
    key
}

/// A random packet, more often than not one of `few` come in by some port: where flows match the same few, packets go
/// on through several tables.
pub fn packet_like(rng: &mut StdRng, few: &[FlowKey]) -> FlowKey {
    let fresh = if rng.random_bool(0.1) { mpls(rng) } else { packet(rng) };
    let mut key = with_arrival(rng, fresh);
    if rng.random_bool(0.6) {
        let in_port = Slot16::IN_PORT;
        let port = key.get(in_port);
        key = pick(rng, few);
        key.set(in_port, port);
    }
    key
}

/// Slots of 16 bits.
struct Slot16;

impl Slot16 {
    const IN_PORT: sluice_flows::key::Slot = sluice_flows::key::Slot::new(0, 32, 16);
}

/// A random program of `rules` flows for each bridge, whose priorities are all different.
pub fn program(rng: &mut StdRng, version: Version, rules: usize, few: &[FlowKey]) -> Generated {
    let mut made = Generated { program: Program::default(), refused: Vec::new(), tried: 0 };
    // OVS follows a packet that goes through the tracker round in circles without end: programs have the tracker, or
    // ways back to where the packet was before.
    let tracks = rng.random_bool(0.5);
    for bridge in 0..if tracks { 1 } else { BRIDGES } {
        if version == Version::OpenFlow15 {
            made.program.groups[bridge] = groups(rng);
        }
        let mut priorities: Vec<u16> = (1..=rules as u16).map(|n| n * 10).collect();
        priorities.shuffle(rng);
        for priority in priorities {
            let line = flow(rng, version, few, (priority, tracks), &mut made);
            made.program.flows[bridge].push(line);
        }
        if rng.random_bool(0.3) {
            conjunction(rng, version, few, &mut made, bridge);
        }
    }
    made
}

/// A random flow. What we refuse of it is left out.
fn flow(
    rng: &mut StdRng,
    version: Version,
    few: &[FlowKey],
    (priority, tracks): (u16, bool),
    made: &mut Generated,
) -> FlowLine {
    let table = if rng.random_bool(0.4) { 0 } else { rng.random_range(0..TABLES) };
    let template = packet_like(rng, few);
    let mut line = FlowLine { table, priority, matches: matches(rng, version, &template), actions: Vec::new() };
    if !keeps(&line, version, made) {
        line.matches = words::protocol(&template, 1);
    }
    if rng.random_bool(0.1) {
        line.matches.insert(0, format!("cookie={:#x}", rng.random_range(1..5)));
    }
    for n in (0..rng.random_range(0..7)).rev() {
        // What is done to a packet shows when it leaves.
        let shown = n == 0 && rng.random_bool(0.6);
        let place = actions::Place { table, version, tracks, template: &template };
        let action = if shown { actions::output(rng) } else { actions::any(rng, &place) };
        let last = action.starts_with("goto_table");
        line.actions.push(action);
        if !keeps(&line, version, made) {
            line.actions.pop();
        } else if last {
            break;
        }
    }
    line
}

/// Whether we take the flow. OVS is asked later about some of those that we do not.
fn keeps(line: &FlowLine, version: Version, made: &mut Generated) -> bool {
    made.tried += 1;
    let text = line.to_string();
    match parse_flow(&text, Names::NONE) {
        Ok(read) => {
            let spec = read.value;
            consistency::check(spec.table, &spec.matches, &spec.actions).is_ok()
                && super::dialect::takes(version, &spec.matches, &spec.actions)
        }
        Err(_) => {
            made.refused.push(text);
            false
        }
    }
}

/// Requirements that `template` satisfies, on up to three fields that it has.
fn matches(rng: &mut StdRng, version: Version, template: &FlowKey) -> Vec<String> {
    let depth = pick(rng, &[0, 1, 2, 2, 2]);
    let mut all = words::protocol(template, depth);
    let mut used = Vec::new();
    for _ in 0..rng.random_range(0..4) {
        let fields: Vec<_> = FIELDS.iter().filter(|info| !info.is_ours()).collect();
        let info = *fields.choose(rng).expect("the registry is not empty");
        let clash = used.iter().any(|slot: &sluice_flows::key::Slot| overlap(*slot, info.slot));
        if clash || !matchable(version, info, template, depth) {
            continue;
        }
        used.push(info.slot);
        all.extend(requirement(rng, info, template));
    }
    all
}

/// Whether two slots have a bit in common.
fn overlap(a: sluice_flows::key::Slot, b: sluice_flows::key::Slot) -> bool {
    let mut mask = sluice_flows::key::FlowMask::ZERO;
    mask.add(a);
    mask.get(b) != 0
}

/// Whether flows can say something about this field, when their protocol is said to this depth.
fn matchable(version: Version, info: &FieldInfo, template: &FlowKey, depth: usize) -> bool {
    let never =
        ["eth_type", "nw_proto", "dp_hash", "recirc_id", "conj_id", "skb_priority", "packet_type", "nsh_", "tun_"];
    let tunnel = ["tun_id", "tun_src", "tun_dst", "tun_ipv6_src", "tun_ipv6_dst", "tun_flags", "tun_gbp_id"];
    if never.iter().any(|name| info.name.starts_with(name)) && !tunnel.contains(&info.name) {
        return false;
    }
    if info.name == "actset_output" && version == Version::OpenFlow10 || info.name == "nd_options_type" {
        return false;
    }
    let needed = match info.prereq {
        Prereq::None | Prereq::Vlan => 0,
        Prereq::Arp | Prereq::Ipv4 | Prereq::Ipv6 | Prereq::Ip | Prereq::Mpls | Prereq::Nsh => 1,
        Prereq::Nd | Prereq::NdSolicit | Prereq::NdAdvert | Prereq::CtIp | Prereq::CtIpv4 | Prereq::CtIpv6 => 3,
        _ => 2,
    };
    depth >= needed && info.prereq.holds(template, &mut Default::default())
        || needed == 3 && depth > 0 && { info.prereq.holds(template, &mut Default::default()) }
}

/// The words of a requirement that `template` satisfies, with those that it needs.
fn requirement(rng: &mut StdRng, info: &FieldInfo, template: &FlowKey) -> Vec<String> {
    let mut all = Vec::new();
    match info.prereq {
        Prereq::Nd | Prereq::NdSolicit | Prereq::NdAdvert => {
            all.push(format!("icmp_type={}", template.get(slot::TP_SRC)));
            all.push("icmp_code=0".to_owned());
        }
        Prereq::CtIp | Prereq::CtIpv4 | Prereq::CtIpv6 => all.push("ct_state=+trk-inv".to_owned()),
        _ => {}
    }
    let value = template.get(info.slot);
    let bitwise = info.maskable == Maskable::Bitwise && info.format != Format::Frag;
    all.push(match info.format {
        Format::Frag => {
            let words: &[&str] = match value {
                0 => &["no", "not_later"],
                1 => &["yes", "first", "not_later"],
                _ => &["yes", "later"],
            };
            format!("ip_frag={}", pick(rng, words))
        }
        Format::TunFlags => words::requirement(info, value, 1),
        _ if info.name == "vlan_vid" || info.name == "vlan_tci" => {
            let mask = pick(rng, &[0x1000, 0x1fff, 0x1fff, 0x1001]);
            format!("vlan_tci={:#06x}/{mask:#06x}", value & mask)
        }
        _ if info.name == "nw_tos" => format!("nw_tos={}", value & 0xfc),
        _ if bitwise && rng.random_bool(0.5) => {
            let mut mask = random_mask(rng, info.slot.bits);
            while !super::dialect::ovs_reads(info.format, mask) {
                mask = random_mask(rng, info.slot.bits);
            }
            words::requirement(info, value, mask)
        }
        _ => words::requirement(info, value, u128::MAX),
    });
    all
}

/// Two or three clauses of a conjunction and its rule, at a priority of their own.
fn conjunction(rng: &mut StdRng, version: Version, few: &[FlowKey], made: &mut Generated, bridge: usize) {
    let (id, clauses) = (rng.random_range(1..4), rng.random_range(2..4));
    let priority = rng.random_range(0..200) * 10 + 5;
    let table = rng.random_range(0..TABLES);
    let mut lines: Vec<FlowLine> = Vec::new();
    for clause in 1..=clauses {
        for _ in 0..rng.random_range(1..4) {
            let template = pick(rng, few);
            let matches = matches(rng, version, &template);
            let actions = vec![format!("conjunction({id},{clause}/{clauses})")];
            lines.push(FlowLine { table, priority, matches, actions });
        }
    }
    let actions = vec![actions::output(rng)];
    lines.push(FlowLine { table, priority, matches: vec![format!("conj_id={id}")], actions });
    let mut seen: Vec<sluice_flows::Match> = Vec::new();
    for line in lines {
        let Ok(read) = parse_flow(&line.to_string(), Names::NONE) else { continue };
        if keeps(&line, version, made) && !seen.contains(&read.value.matches) {
            seen.push(read.value.matches);
            made.program.flows[bridge].push(line);
        }
    }
}

/// Groups 1 to 4 of random kinds.
fn groups(rng: &mut StdRng) -> Vec<GroupLine> {
    (1..=4)
        .map(|id| {
            let kind = pick(rng, &["all", "select", "indirect", "ff"]);
            let mut line = GroupLine { id, kind: kind.to_owned(), options: Vec::new(), buckets: Vec::new() };
            match kind {
                "indirect" => line.buckets.push(bucket(rng, id)),
                "select" => select(rng, &mut line),
                _ => line.buckets = (0..rng.random_range(1..4)).map(|_| bucket(rng, id)).collect(),
            }
            if kind == "ff" {
                for bucket in &mut line.buckets {
                    bucket.options.push(format!("watch_port:{}", rng.random_range(1..=PORTS)));
                }
            }
            line
        })
        .collect()
}

/// A select group whose live buckets do the same, as OVS hashes in its own way.
fn select(rng: &mut StdRng, line: &mut GroupLine) {
    line.options = match rng.random_range(0..3) {
        0 => vec!["selection_method=hash".to_owned()],
        1 => vec!["selection_method=hash".to_owned(), "fields(ip_src,tcp_dst)".to_owned()],
        _ => vec!["selection_method=dp_hash".to_owned()],
    };
    let live = bucket(rng, line.id);
    for _ in 0..rng.random_range(1..4) {
        let mut one = live.clone();
        match rng.random_range(0..4) {
            0 => {
                one = bucket(rng, line.id);
                one.options = vec![format!("watch_port:{PORTS}")];
            }
            1 => {
                one = bucket(rng, line.id);
                one.options = vec!["weight:0".to_owned()];
            }
            _ => one.options = vec![format!("weight:{}", rng.random_range(1..200))],
        }
        line.buckets.push(one);
    }
}

/// Actions of a bucket: of an action set, each kind once.
fn bucket(rng: &mut StdRng, group: u32) -> BucketLine {
    BucketLine { options: Vec::new(), actions: actions::members(rng, Some(group)) }
}

/// A meter of the bridge.
pub(super) fn meter(rng: &mut StdRng) -> String {
    format!("meter:{}", rng.random_range(1..=METERS))
}
