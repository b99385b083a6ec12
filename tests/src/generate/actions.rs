//! Random actions as text.

use super::language::{Version, meter};
use super::{IPV4, IPV6, MACS, PORT_NUMBERS, PORTS, TABLES, pick, random_mask, words};
use rand::RngExt;
use rand::rngs::StdRng;
use sluice_flows::action::Subfield;
use sluice_flows::field::{FIELDS, Field, FieldInfo, Format, Maskable, Prereq};
use sluice_flows::key::FlowKey;

/// Where an action stands.
pub(super) struct Place<'a> {
    /// The flow's table.
    pub(super) table: u8,
    /// The dialect.
    pub(super) version: Version,
    /// There is connection tracking, and no way back.
    pub(super) tracks: bool,
    /// A packet that the flow matches.
    pub(super) template: &'a FlowKey,
}

/// Sends to a port, or back.
pub(super) fn output(rng: &mut StdRng) -> String {
    if rng.random_bool(0.8) { format!("output:{}", port(rng)) } else { "in_port".to_owned() }
}

fn port(rng: &mut StdRng) -> u16 {
    rng.random_range(1..=PORTS)
}

/// Any action.
pub(super) fn any(rng: &mut StdRng, place: &Place<'_>) -> String {
    match rng.random_range(0..100) {
        0..10 => output(rng),
        10..16 => elsewhere(rng, place.version),
        16..34 => set(rng, place),
        34..48 => jump(rng, place),
        48..58 => header(rng, place),
        58..64 => stack(rng, place),
        68..82 if place.tracks => ct(rng, place),
        64..72 if place.version == Version::OpenFlow15 => format!("group:{}", rng.random_range(1..5)),
        64..76 => moved(rng, place),
        76..82 => action_set(rng, place),
        82..86 => choice(rng),
        86..90 => learn(rng, place),
        94..96 => clone(rng, place),
        _ => rest(rng, place),
    }
}

/// Sends to something else than a port by its number.
fn elsewhere(rng: &mut StdRng, version: Version) -> String {
    match rng.random_range(0..10) {
        0 => format!("output:reg{}[0..15]", rng.random_range(0..3)),
        1 => format!("output(port={},max_len={})", port(rng), pick(rng, &[14, 60, 100])),
        // From OpenFlow 1.1 on OVS takes it apart into actions that forget an earlier queue.
        2 if version == Version::OpenFlow10 => format!("enqueue:{}:{}", port(rng), rng.random_range(0..4)),
        3 => "flood".to_owned(),
        4 => "all".to_owned(),
        5 => "normal".to_owned(),
        6 => "LOCAL".to_owned(),
        7 => format!("output:{}", PORTS + 1),
        8 => "controller".to_owned(),
        _ => {
            let options = ["max_len=100", "id=3", "userdata=01.02", "reason=no_match", "meter_id=1"];
            let some: Vec<_> = options.into_iter().filter(|_| rng.random_bool(0.4)).collect();
            format!("controller({})", some.join(","))
        }
    }
}

fn jump(rng: &mut StdRng, place: &Place<'_>) -> String {
    let table = place.table;
    if place.tracks && table + 1 >= TABLES {
        return output(rng);
    }
    // Seldom back to an earlier table: round trips of thousands of jumps are slow to trace.
    let later = rng.random_range(table.min(TABLES - 2) + 1..TABLES);
    let to = if place.tracks || rng.random_bool(0.9) { later } else { rng.random_range(0..TABLES) };
    match rng.random_range(0..10) {
        0..4 => format!("goto_table:{later}"),
        4 => format!("resubmit({},{to})", port(rng)),
        5 if rng.random_bool(0.5) => format!("resubmit(,{to},ct)"),
        6 if !place.tracks && rng.random_bool(0.2) => format!("resubmit:{}", port(rng)),
        _ => format!("resubmit(,{to})"),
    }
}

/// Whether actions can write this field of a packet like the template.
fn writable(place: &Place<'_>, info: &FieldInfo) -> bool {
    let tunnel = ["tun_id", "tun_src", "tun_dst", "tun_ipv6_src", "tun_ipv6_dst", "tun_gbp_id"];
    let strange = info.name.starts_with("tun_") && !tunnel.contains(&info.name) || info.name.starts_with("nsh_");
    let ct = matches!(info.field, Field::CtMark | Field::CtLabel);
    let unlike = matches!(info.field, Field::NdOptionsType | Field::NdReserved);
    info.writable && !strange && !ct && !unlike && info.prereq.holds(place.template, &mut Default::default())
}

/// A field to write: often a register or one of the packet's own.
fn target(rng: &mut StdRng, place: &Place<'_>) -> &'static FieldInfo {
    if rng.random_bool(0.3) {
        return Field::reg(rng.random_range(0..4)).expect("a small number").info();
    }
    let all: Vec<&FieldInfo> = FIELDS.iter().filter(|info| writable(place, info)).collect();
    let own: Vec<_> = all.iter().copied().filter(|info| info.prereq != Prereq::None).collect();
    let any = own.is_empty() || rng.random_bool(0.4);
    pick(rng, if any { &all } else { &own })
}

fn random_value(rng: &mut StdRng, info: &FieldInfo) -> u128 {
    let value = match (info.field, info.format) {
        (Field::InPort, _) => rng.random_range(0..=PORTS.into()),
        (Field::NwTos, _) => u128::from(rng.random::<u8>() & 0xfc),
        (Field::VlanTci | Field::VlanVid, _) => 0x1000 | pick(rng, &[0, 10, 20, 4095]),
        (_, Format::Mac) => pick(rng, &MACS),
        (_, Format::Ipv4) => pick(rng, &IPV4),
        (_, Format::Ipv6) => pick(rng, &IPV6),
        _ if !info.field.in_packet() => rng.random_range(0..8),
        _ => pick(rng, &PORT_NUMBERS),
    };
    value & info.slot.max()
}

fn subfield(rng: &mut StdRng, info: &FieldInfo) -> Subfield {
    let whole = Subfield::whole(info.field);
    if rng.random_bool(0.4) {
        return whole;
    }
    let ofs = rng.random_range(0..whole.bits);
    Subfield { ofs, bits: rng.random_range(1..=whole.bits - ofs), ..whole }
}

fn named(part: Subfield) -> String {
    let name = part.field.info().name;
    match part {
        whole if whole == Subfield::whole(part.field) => format!("{name}[]"),
        Subfield { ofs, bits: 1, .. } => format!("{name}[{ofs}]"),
        Subfield { ofs, bits, .. } => format!("{name}[{ofs}..{}]", ofs + bits - 1),
    }
}

fn set_field(rng: &mut StdRng, info: &FieldInfo) -> String {
    let mut mask = info.slot.max();
    if info.maskable == Maskable::Bitwise && rng.random_bool(0.4) {
        mask = random_mask(rng, Subfield::whole(info.field).bits);
        while !super::dialect::ovs_reads(info.format, mask) {
            mask = random_mask(rng, info.slot.bits);
        }
    }
    let text = words::requirement(info, random_value(rng, info), mask);
    let text = text.split_once('=').map_or("", |(_, value)| value);
    format!("set_field:{text}->{}", info.name)
}

fn load(rng: &mut StdRng, info: &FieldInfo) -> String {
    let dst = subfield(rng, info);
    let value = random_value(rng, info) & (dst.mask() >> dst.ofs) & u128::from(u64::MAX);
    format!("load:{value:#x}->{}", named(dst))
}

fn set(rng: &mut StdRng, place: &Place<'_>) -> String {
    let info = target(rng, place);
    match rng.random_range(0..10) {
        0..6 => set_field(rng, info),
        6..8 => load(rng, info),
        8 => modification(rng),
        _ if rng.random_bool(0.3) => format!("set_tunnel:{}", rng.random_range(0..6)),
        _ if rng.random_bool(0.3) => "set_tunnel64:0x100000005".to_owned(),
        _ if rng.random_bool(0.7) => format!("set_queue:{}", rng.random_range(0..4)),
        _ => "pop_queue".to_owned(),
    }
}

fn modification(rng: &mut StdRng) -> String {
    let mac = words::value(Field::EthSrc.info(), pick(rng, &MACS));
    let ip = words::value(Field::IpSrc.info(), pick(rng, &IPV4));
    match rng.random_range(0..12) {
        0 => format!("mod_dl_src:{mac}"),
        1 => format!("mod_dl_dst:{mac}"),
        2 => format!("mod_nw_src:{ip}"),
        3 => format!("mod_nw_dst:{ip}"),
        4 => format!("mod_nw_tos:{}", rng.random::<u8>() & 0xfc),
        5 => format!("mod_nw_ecn:{}", rng.random_range(0..4)),
        6 => format!("mod_nw_ttl:{}", rng.random::<u8>()),
        7 => format!("mod_tp_src:{}", pick(rng, &PORT_NUMBERS)),
        8 => format!("mod_tp_dst:{}", pick(rng, &PORT_NUMBERS)),
        9 => format!("mod_vlan_vid:{}", pick(rng, &super::VLANS)),
        _ => format!("mod_vlan_pcp:{}", rng.random_range(0..8)),
    }
}

fn moved(rng: &mut StdRng, place: &Place<'_>) -> String {
    let (a, b) = (target(rng, place), target(rng, place));
    let (mut a, mut b) = (subfield(rng, a), subfield(rng, b));
    let bits = a.bits.min(b.bits);
    (a.bits, b.bits) = (bits, bits);
    format!("move:{}->{}", named(a), named(b))
}

fn stack(rng: &mut StdRng, place: &Place<'_>) -> String {
    let word = if rng.random_bool(0.6) { "push" } else { "pop" };
    let info = target(rng, place);
    format!("{word}:{}", named(subfield(rng, info)))
}

/// Changes the headers that a packet has.
fn header(rng: &mut StdRng, place: &Place<'_>) -> String {
    match rng.random_range(0..16) {
        0..3 => format!("push_vlan:{}", pick(rng, &["0x8100", "0x88a8"])),
        3..5 => pick(rng, &["pop_vlan", "strip_vlan"]).to_owned(),
        5..8 => "dec_ttl".to_owned(),
        8 => "dec_ttl(1,2)".to_owned(),
        9 | 10 => format!("push_mpls:{}", pick(rng, &["0x8847", "0x8848"])),
        11 => format!("pop_mpls:{}", pick(rng, &["0x8847", "0x8848"])),
        12 => format!("set_mpls_label:{}", pick(rng, &[16, 17, 1000])),
        13 => format!("set_mpls_tc:{}", rng.random_range(0..8)),
        14 => format!("set_mpls_ttl:{}", pick(rng, &[0, 1, 64])),
        _ if Prereq::Mpls.holds(place.template, &mut Default::default()) => "dec_mpls_ttl".to_owned(),
        _ => modification(rng),
    }
}

/// Actions of an action set: at most one of a kind. A bucket may name groups with greater numbers than its own.
pub(super) fn members(rng: &mut StdRng, bucket_of: Option<u32>) -> Vec<String> {
    let mut all = Vec::new();
    if rng.random_bool(0.2) {
        all.push(set_field(rng, Field::EthSrc.info()));
    }
    if rng.random_bool(0.2) {
        all.push(set_field(rng, Field::Reg0.info()));
    }
    if rng.random_bool(0.1) {
        all.push(format!("set_queue:{}", rng.random_range(0..4)));
    }
    if rng.random_bool(0.1) {
        all.push("push_vlan:0x8100".to_owned());
    }
    let first = bucket_of.map_or(1, |group| group + 1);
    match rng.random_range(0..10) {
        0 | 1 if first < 5 => all.push(format!("group:{}", rng.random_range(first..5))),
        3 => all.push(format!("resubmit(,{TABLES})")),
        4 => {}
        _ => all.push(output(rng)),
    }
    all
}

fn action_set(rng: &mut StdRng, place: &Place<'_>) -> String {
    match rng.random_range(0..4) {
        0 => format!("write_metadata:{:#x}/{:#x}", rng.random_range(0..4), pick(rng, &[0xff, 0x3, 0xffff])),
        1 if rng.random_bool(0.4) => "clear_actions".to_owned(),
        _ if place.version == Version::OpenFlow10 => output(rng),
        _ => {
            let list = members(rng, None);
            if list.is_empty() { "clear_actions".to_owned() } else { format!("write_actions({})", list.join(",")) }
        }
    }
}

/// Chooses by a hash that is not OVS's: so that every choice is the same.
fn choice(rng: &mut StdRng) -> String {
    let fields = pick(rng, &["eth_src", "symmetric_l4", "symmetric_l3l4", "symmetric_l3l4+udp", "nw_src", "nw_dst"]);
    let one = port(rng);
    match rng.random_range(0..5) {
        0 => {
            let how = pick(rng, &["modulo_n", "hash_threshold", "hrw", "iter_hash"]);
            format!("multipath({fields},50,{how},1,0,reg1[0..7])")
        }
        1 => format!("bundle({fields},0,hrw,ofport,members:{one},{PORTS})"),
        2 => format!("bundle_load({fields},0,hrw,ofport,reg2[0..15],members:{one},{PORTS})"),
        3 => format!("bundle_load({fields},0,active_backup,ofport,reg2[0..15],members:{},{one})", port(rng)),
        _ => format!("bundle({fields},0,active_backup,ofport,members:{},{one})", port(rng)),
    }
}

fn learn(rng: &mut StdRng, place: &Place<'_>) -> String {
    let mut words = vec![format!("table={}", rng.random_range(0..TABLES))];
    let options = ["idle_timeout=10", "hard_timeout=20", "priority=77", "cookie=0x9", "send_flow_rem"];
    words.extend(options.into_iter().filter(|_| rng.random_bool(0.3)).map(str::to_owned));
    if rng.random_bool(0.1) {
        words.push("fin_idle_timeout=3,fin_hard_timeout=5".to_owned());
    }
    if rng.random_bool(0.1) {
        words.push("delete_learned".to_owned());
    }
    let eth_type = place.template.get(sluice_flows::key::slot::ETH_TYPE);
    for _ in 0..rng.random_range(1..4) {
        words.push(match rng.random_range(0..9) {
            0 => "NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[]".to_owned(),
            1 => "NXM_OF_VLAN_TCI[0..11]".to_owned(),
            2 => format!("eth_type={eth_type:#x}"),
            3 if eth_type == 0x0800 => "eth_type=0x800,NXM_OF_IP_SRC[]=NXM_OF_IP_DST[]".to_owned(),
            4 => "reg3=5".to_owned(),
            5 => "load:NXM_OF_ETH_SRC[0..15]->NXM_NX_REG0[0..15]".to_owned(),
            6 => "load:0x7->NXM_NX_REG1[4..7]".to_owned(),
            7 => "output:NXM_OF_IN_PORT[]".to_owned(),
            _ => "NXM_OF_IN_PORT[]".to_owned(),
        });
    }
    words.dedup();
    format!("learn({})", words.join(","))
}

fn ct(rng: &mut StdRng, place: &Place<'_>) -> String {
    if rng.random_bool(0.2) {
        return "ct_clear".to_owned();
    }
    let mut words = Vec::new();
    let commit = rng.random_bool(0.5);
    if commit {
        words.push(pick(rng, &["commit", "commit", "commit,force"]).to_owned());
    }
    if rng.random_bool(0.5) {
        words.push(pick(rng, &["zone=5", "zone=1", "zone=reg0[0..15]"]).to_owned());
    }
    if rng.random_bool(0.6) && place.table + 1 < TABLES {
        words.push(format!("table={}", rng.random_range(place.table + 1..TABLES)));
    }
    let v6 = Prereq::Ipv6.holds(place.template, &mut Default::default());
    if rng.random_bool(0.3) {
        words.push(match (commit, v6) {
            (false, _) => "nat".to_owned(),
            (true, false) => {
                let nats =
                    ["src=10.0.0.9", "dst=10.0.0.9-10.0.0.12:5-6", "src=10.0.0.9:5,random", "dst=10.0.0.8,persistent"];
                format!("nat({})", pick(rng, &nats))
            }
            (true, true) => format!("nat({})", pick(rng, &["src=fd00::9", "dst=[fd00::9]-[fd00::12]:5-6"])),
        });
    }
    if commit && rng.random_bool(0.3) {
        let sets = ["set_field:0x1->ct_mark", "set_field:0x1/0xff->ct_label", "move:reg0[]->ct_mark[]"];
        words.push(format!("exec({})", pick(rng, &sets)));
    }
    if commit && rng.random_bool(0.1) {
        words.push(pick(rng, &["alg=ftp", "alg=tftp"]).to_owned());
    }
    format!("ct({})", words.join(","))
}

fn clone(rng: &mut StdRng, place: &Place<'_>) -> String {
    let list: Vec<_> = (0..rng.random_range(1..4))
        .map(|_| match rng.random_range(0..5) {
            0 | 1 => output(rng),
            2 | 3 => {
                let info = target(rng, place);
                set_field(rng, info)
            }
            // Nothing that may lead to an exit: in OVS one in a clone ends what is around it too.
            _ => moved(rng, place),
        })
        .collect();
    format!("clone({})", list.join(","))
}

fn rest(rng: &mut StdRng, place: &Place<'_>) -> String {
    match rng.random_range(0..12) {
        0..2 if place.version == Version::OpenFlow15 => meter(rng),
        0..3 => "note:01.02.03".to_owned(),
        3..5 => "exit".to_owned(),
        5..8 => format!("check_pkt_larger({})->reg0[{}]", pick(rng, &[100, 1500]), rng.random_range(0..3)),
        8..10 => "fin_timeout(idle_timeout=5,hard_timeout=10)".to_owned(),
        _ => "note:ff".to_owned(),
    }
}
