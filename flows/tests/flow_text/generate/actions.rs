//! Random actions, each as its text is read.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use sluice_flows::PortNo;
use sluice_flows::action::*;
use sluice_flows::field::{Field, Maskable};
use sluice_flows::rule::TableId;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{fields, mask, number};

/// Fields of the connection, which are set within `ct` only.
const OF_CONNECTION: [Field; 2] = [Field::CtMark, Field::CtLabel];

fn all() -> Vec<Field> {
    fields().map(|info| info.field).collect()
}

fn writable() -> Vec<Field> {
    let mut fields = all();
    fields.retain(|field| field.info().writable && !OF_CONNECTION.contains(field));
    fields
}

/// Fields that OVS prints alike in every version of OpenFlow.
fn alike(mut fields: Vec<Field>) -> Vec<Field> {
    fields.retain(|field| {
        let info = field.info();
        !info.nxm.is_empty() && !info.name.starts_with("tun_erspan") && !info.name.starts_with("tun_metadata")
    });
    fields
}

/// Fields that an OpenFlow message has room for where names must be short.
fn short(mut fields: Vec<Field>) -> Vec<Field> {
    const LONG: [&str; 3] = ["NXOXM", "ONFOXM", "ERICOXM"];
    fields.retain(|field| {
        field.info().nxm.first().is_some_and(|name| LONG.iter().all(|experimenter| !name.starts_with(experimenter)))
    });
    fields
}

fn port() -> impl Strategy<Value = PortNo> {
    prop_oneof![
        (0..=PortNo::MAX.0).prop_map(PortNo),
        select(vec![PortNo::IN_PORT, PortNo::TABLE, PortNo::NORMAL, PortNo::FLOOD, PortNo::ALL, PortNo::LOCAL]),
    ]
}

/// Ports that packets go to in no other way than by a queue of theirs.
fn real_port() -> impl Strategy<Value = PortNo> {
    prop_oneof![(0..=PortNo::MAX.0).prop_map(PortNo), select(vec![PortNo::IN_PORT, PortNo::LOCAL])]
}

pub(super) fn table() -> impl Strategy<Value = TableId> {
    (0..=254u8).prop_map(|n| TableId::new(n).unwrap_or(TableId::FIRST))
}

/// Bits of one of `fields`.
fn subfield(fields: Vec<Field>) -> impl Strategy<Value = Subfield> {
    (select(fields), any::<bool>(), any::<u8>(), any::<u8>()).prop_map(|(field, whole, ofs, bits)| {
        let ofs = ofs % field.width();
        let part = Subfield { field, ofs, bits: bits % (field.width() - ofs) + 1 };
        if whole { Subfield::whole(field) } else { part }
    })
}

/// One bit of one of `fields`.
fn bit(fields: Vec<Field>) -> impl Strategy<Value = Subfield> {
    subfield(fields).prop_map(|part| Subfield { bits: 1, ..part })
}

fn set_field_of(fields: Vec<Field>) -> impl Strategy<Value = Action> {
    (select(fields), number(), any::<(u8, u8, u128)>()).prop_map(|(field, value, (kind, len, any))| {
        let info = field.info();
        let slot = info.slot;
        let mask = mask(kind, len, any, slot.bits);
        let whole = info.maskable == Maskable::Exact || field == Field::VlanVid || mask == slot.max() || mask == 0;
        let mask = if whole { u128::MAX } else { mask };
        let value = match field {
            Field::VlanVid => value | 0x1000,
            Field::NwTos => value & 0xfc,
            Field::NshTtl => value & 63,
            _ => value,
        };
        Action::SetField { field, value: value & mask & slot.max(), mask }
    })
}

/// Loads of at most `most` bits into `fields`.
fn load_of(fields: Vec<Field>, most: u8) -> impl Strategy<Value = Action> {
    (subfield(fields), number()).prop_map(move |(part, value)| {
        let dst = Subfield { bits: part.bits.min(most), ..part };
        Action::Load { value: value & dst.mask() >> dst.ofs, dst }
    })
}

/// A subfield of `from` and one of `to`, of one width.
fn ends(from: Vec<Field>, to: Vec<Field>) -> impl Strategy<Value = (Subfield, Subfield)> {
    (subfield(from), subfield(to)).prop_map(|(mut src, mut dst)| {
        src.bits = src.bits.min(dst.bits);
        dst.bits = src.bits;
        (src, dst)
    })
}

fn move_of(from: Vec<Field>, to: Vec<Field>) -> impl Strategy<Value = Action> {
    ends(from, to).prop_map(|(src, dst)| Action::Move { src, dst })
}

fn setter() -> impl Strategy<Value = ModAction> {
    let mac = 0..1u64 << 48;
    prop_oneof![
        mac.clone().prop_map(ModAction::DlSrc),
        mac.prop_map(ModAction::DlDst),
        any::<u32>().prop_map(ModAction::NwSrc),
        any::<u32>().prop_map(ModAction::NwDst),
        any::<u8>().prop_map(|tos| ModAction::NwTos(tos & 0xfc)),
        any::<u16>().prop_map(ModAction::TpSrc),
        any::<u16>().prop_map(ModAction::TpDst),
        (0..4096u16).prop_map(ModAction::VlanVid),
        (0..8u8).prop_map(ModAction::VlanPcp),
    ]
}

fn plain_controller() -> impl Strategy<Value = Action> {
    let reason = select(vec![PacketInReason::NoMatch, PacketInReason::Action, PacketInReason::InvalidTtl]);
    (any::<u16>(), reason, prop_oneof![Just(0), any::<u16>()])
        .prop_map(|(max_len, reason, id)| controller_of(max_len, reason, id, Vec::new(), false, None))
}

fn controller_of(
    max_len: u16,
    reason: PacketInReason,
    controller_id: u16,
    userdata: Vec<u8>,
    pause: bool,
    meter: Option<MeterId>,
) -> Action {
    let plain = reason == PacketInReason::Action && controller_id == 0 && userdata.is_empty() && !pause;
    let extended = !plain || meter.is_some();
    let userdata = userdata.into();
    Action::Controller(Box::new(ControllerAction { max_len, reason, controller_id, userdata, pause, meter, extended }))
}

fn meter() -> impl Strategy<Value = MeterId> {
    (1..=MeterId::MAX.0).prop_map(MeterId)
}

fn controller() -> impl Strategy<Value = Action> {
    let reason = select(vec![
        PacketInReason::NoMatch,
        PacketInReason::Action,
        PacketInReason::InvalidTtl,
        PacketInReason::ActionSet,
        PacketInReason::Group,
        PacketInReason::PacketOut,
    ]);
    let userdata = vec(any::<u8>(), 0..6);
    (any::<u16>(), reason, any::<u16>(), userdata, any::<bool>(), option::of(meter())).prop_map(
        |(max_len, reason, id, userdata, pause, meter)| controller_of(max_len, reason, id, userdata, pause, meter),
    )
}

fn resubmit(with_ct: impl Strategy<Value = bool>) -> impl Strategy<Value = Action> {
    (option::of(port()), table(), any::<bool>(), with_ct).prop_map(|(port, table, with_table, ct)| {
        let port = port.filter(|p| *p != PortNo::IN_PORT);
        let table = Some(table).filter(|_| with_table || port.is_none());
        Action::Resubmit { port, table, ct, extended: table.is_some() || ct }
    })
}

/// Actions that print alike in every version of OpenFlow, if notes have the lengths that fit its messages.
fn common() -> impl Strategy<Value = Action> {
    prop_oneof![
        port().prop_map(Action::Output),
        // OpenFlow cannot say more than 64 bits here.
        subfield(alike(all())).prop_map(|part| Action::OutputField(Subfield { bits: part.bits.min(64), ..part })),
        plain_controller(),
        resubmit(Just(false)),
        move_of(alike(all()), alike(writable())),
        prop_oneof![vec(any::<u8>(), 6), vec(any::<u8>(), 14)].prop_map(|bytes| Action::Note(bytes.into())),
    ]
}

/// Actions as OpenFlow 1.0 with Nicira's extensions says them.
pub(crate) fn old_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        2 => common(),
        // OpenFlow loads at most 64 bits at a time.
        2 => load_of(alike(writable()), 64),
        2 => setter().prop_map(Action::Mod),
        1 => select(vec![Action::DecTtl(Box::default()), Action::PopVlan { modern: false }]),
    ]
}

/// Actions as OpenFlow 1.5 says them, whatever the match.
pub(crate) fn modern_action() -> impl Strategy<Value = Action> {
    let push = select(vec![0x8100, 0x88a8]).prop_map(Action::PushVlan);
    prop_oneof![2 => common(), 3 => set_field_of(alike(writable())), 1 => push]
}

fn small() -> impl Strategy<Value = Action> {
    prop_oneof![
        any::<u8>().prop_map(|n| Action::Mod(ModAction::NwTtl(n))),
        (0..4u8).prop_map(|n| Action::Mod(ModAction::NwEcn(n))),
        (0..4096u16).prop_map(|n| Action::Mod(ModAction::SetVlanVid(n))),
        (0..8u8).prop_map(|n| Action::Mod(ModAction::SetVlanPcp(n))),
        select(vec![0x8847, 0x8848]).prop_map(Action::PushMpls),
        any::<u16>().prop_map(Action::PopMpls),
        (0..1u32 << 20).prop_map(Action::SetMplsLabel),
        (0..8u8).prop_map(Action::SetMplsTc),
        any::<u8>().prop_map(Action::SetMplsTtl),
        vec(any::<u16>(), 1..4).prop_map(|ids| Action::DecTtl(ids.into())),
        (any::<u64>(), any::<bool>())
            .prop_map(|(id, wide)| Action::SetTunnel { id, wide: wide || id > u32::MAX.into() }),
        any::<u32>().prop_map(|id| Action::SetTunnel { id: id.into(), wide: false }),
        any::<u32>().prop_map(Action::SetQueue),
        vec(any::<u8>(), 0..20).prop_map(|bytes| Action::Note(bytes.into())),
        (any::<u16>(), any::<u16>()).prop_map(|(idle, hard)| Action::FinTimeout { idle, hard }),
        select(vec![Field::TunMetadata0, Field::TunMetadata7]).prop_map(Action::DeleteField),
        (any::<u16>(), bit(writable())).prop_map(|(len, dst)| Action::CheckPktLarger { len, dst }),
        select(vec![
            Action::PopVlan { modern: true },
            Action::DecMplsTtl,
            Action::DecNshTtl,
            Action::PopQueue,
            Action::Exit,
            Action::Reject,
            Action::CtClear,
        ]),
    ]
}

fn outputs() -> impl Strategy<Value = Action> {
    prop_oneof![
        (real_port(), 14..=u32::MAX).prop_map(|(port, max_len)| Action::OutputTruncated { port, max_len }),
        (real_port(), any::<u32>()).prop_map(|(port, queue)| Action::Enqueue { port, queue }),
        (0..=GroupId::MAX.0).prop_map(|id| Action::Group(GroupId(id))),
        controller(),
        resubmit(any::<bool>()),
        sample(),
    ]
}

fn sample() -> impl Strategy<Value = Action> {
    (1..=u16::MAX, any::<[u32; 3]>(), option::of(port()), option::of(any::<bool>())).prop_map(
        |(probability, [set, domain, point], sampling_port, egress)| {
            Action::Sample(Box::new(Sample {
                probability,
                collector_set_id: set,
                obs_domain_id: domain,
                obs_point_id: point,
                sampling_port,
                egress,
            }))
        },
    )
}

fn hash_fields() -> impl Strategy<Value = HashFields> {
    select(HashFields::NAMES.to_vec()).prop_map(|(fields, _)| fields)
}

fn wide() -> Vec<Field> {
    let mut fields = short(writable());
    fields.retain(|field| field.width() >= 16);
    fields
}

fn bundle() -> impl Strategy<Value = Action> {
    let algorithm = select(vec![BundleAlgorithm::ActiveBackup, BundleAlgorithm::Hrw]);
    let member = prop_oneof![4 => port(), 1 => Just(PortNo::NONE)];
    let dst = option::of(select(wide()).prop_map(Subfield::whole));
    (hash_fields(), any::<u16>(), algorithm, vec(member, 0..5), dst).prop_map(
        |(fields, basis, algorithm, members, dst)| {
            Action::Bundle(Box::new(Bundle { fields, basis, algorithm, members: members.into(), dst }))
        },
    )
}

fn multipath() -> impl Strategy<Value = Action> {
    let algorithm = select(vec![
        MultipathAlgorithm::ModuloN,
        MultipathAlgorithm::HashThreshold,
        MultipathAlgorithm::Hrw,
        MultipathAlgorithm::IterHash,
    ]);
    (hash_fields(), any::<u16>(), algorithm, any::<u16>(), any::<u32>(), subfield(short(writable()))).prop_map(
        |(fields, basis, algorithm, links, arg, dst)| {
            let links = u32::from(links) % (1 << dst.bits.min(16)) + 1;
            Action::Multipath(Box::new(Multipath { fields, basis, algorithm, links, arg, dst }))
        },
    )
}

fn learn_spec() -> impl Strategy<Value = LearnSpec> {
    let value = |(dst, value): (Subfield, u128)| (dst, LearnSource::Value(value & dst.mask() >> dst.ofs));
    let field = |(src, dst)| (dst, LearnSource::Field(src));
    prop_oneof![
        (subfield(short(all())), number())
            .prop_filter("flags print in other ways than they are learned", |(dst, _)| !matches!(
                dst.field,
                Field::IpFrag | Field::TunFlags
            ))
            .prop_map(value)
            .prop_map(|(dst, src)| LearnSpec::Match { dst, src }),
        ends(all(), short(all())).prop_map(field).prop_map(|(dst, src)| LearnSpec::Match { dst, src }),
        (subfield(short(writable())), number()).prop_map(value).prop_map(|(dst, src)| LearnSpec::Load { dst, src }),
        ends(all(), writable()).prop_map(field).prop_map(|(dst, src)| LearnSpec::Load { dst, src }),
        subfield(all()).prop_map(LearnSpec::Output),
    ]
}

fn learn() -> impl Strategy<Value = Action> {
    let numbers = (any::<[u16; 5]>(), any::<u64>(), any::<u32>());
    (table(), numbers, any::<[bool; 2]>(), option::of(bit(writable())), vec(learn_spec(), 0..5)).prop_map(
        |(table, ([idle, hard, priority, fin_idle, fin_hard], cookie, limit), [tell, delete], result_dst, specs)| {
            Action::Learn(Box::new(Learn {
                table,
                idle_timeout: idle,
                hard_timeout: hard,
                priority,
                cookie,
                fin_idle_timeout: fin_idle,
                fin_hard_timeout: fin_hard,
                send_flow_rem: tell,
                delete_learned: delete,
                limit,
                result_dst,
                specs: specs.into(),
            }))
        },
    )
}

fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    let v4 = |n: u32| IpAddr::from(Ipv4Addr::from(n));
    let v6 = |n: u128| IpAddr::from(Ipv6Addr::from(n));
    prop_oneof![
        (1..=u32::MAX, any::<u32>()).prop_map(move |(a, b)| (v4(a.min(b).max(1)), v4(a.max(b)))),
        (1..=u128::MAX, any::<u128>()).prop_map(move |(a, b)| (v6(a.min(b).max(1)), v6(a.max(b)))),
    ]
}

fn nat() -> impl Strategy<Value = Nat> {
    let direction = select(vec![NatDirection::Src, NatDirection::Dst]);
    let choice = select(vec![NatChoice::Any, NatChoice::Hash, NatChoice::Random]);
    let ports = (1..=u16::MAX, 1..=u16::MAX).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let with = (direction, option::of(addresses()), option::of(ports), choice, any::<bool>()).prop_map(
        |(direction, addresses, ports, choice, persistent)| Nat {
            direction: Some(direction),
            addresses,
            ports: ports.filter(|_| addresses.is_some()),
            choice,
            persistent,
        },
    );
    prop_oneof![1 => Just(Nat::default()), 4 => with]
}

fn exec() -> impl Strategy<Value = Action> {
    let fields = OF_CONNECTION.to_vec();
    prop_oneof![set_field_of(fields.clone()), load_of(fields.clone(), 128), move_of(all(), fields)]
}

fn ct() -> impl Strategy<Value = Action> {
    let zone = prop_oneof![
        any::<u16>().prop_map(CtZone::Number),
        select(all()).prop_filter_map("16 bits", |field| {
            let part = Subfield { field, ofs: field.width().saturating_sub(16), bits: 16 };
            (field.width() >= 16).then_some(CtZone::Field(part))
        }),
    ];
    let alg = option::of(select(vec![CtAlg::Ftp, CtAlg::Tftp]));
    let what = (option::of(nat()), alg, vec(exec(), 0..3));
    (any::<[bool; 2]>(), zone, option::of(table()), what).prop_map(
        |([commit, force], zone, table, (nat, alg, exec))| {
            let commit = commit || force || !exec.is_empty() || nat.is_some_and(|nat| nat.direction.is_some());
            Action::Ct(Box::new(Ct { commit, force, zone, table, nat, alg, exec: exec.into() }))
        },
    )
}

fn encap() -> impl Strategy<Value = Action> {
    let value = vec(any::<u8>(), 1..9);
    let tlv = (any::<u16>(), any::<u8>(), value).prop_map(|(class, ty, v)| NshTlv { class, ty, value: v.into() });
    let nsh =
        (option::of(1..=2u8), vec(tlv, 0..3)).prop_map(|(md_type, tlvs)| Encap::Nsh { md_type, tlvs: tlvs.into() });
    let under = (0..=1u16, any::<u16>()).prop_map(|(ns, ty)| PacketType { ns, ty });
    prop_oneof![
        select(vec![Encap::Ethernet, Encap::Mpls, Encap::MplsMulticast]).prop_map(Action::Encap),
        nsh.prop_map(Action::Encap),
        option::of(under).prop_map(Action::Decap),
    ]
}

/// Actions that a list holds in any order, without lists within them.
fn flat() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => old_action(),
        3 => modern_action(),
        2 => load_of(writable(), 128),
        4 => small(),
        4 => outputs(),
        1 => set_field_of(writable()),
        1 => move_of(all(), writable()),
        1 => subfield(all()).prop_map(Action::OutputField),
        1 => subfield(all()).prop_map(Action::Push),
        1 => subfield(writable()).prop_map(Action::Pop),
        1 => bundle(),
        1 => multipath(),
        3 => learn(),
        3 => ct(),
        2 => encap(),
    ]
}

/// What may stand in an action set.
fn in_set() -> impl Strategy<Value = Action> {
    prop_oneof![
        port().prop_map(Action::Output),
        set_field_of(writable()),
        load_of(writable(), 128),
        ct(),
        encap(),
        resubmit(any::<bool>()),
        (0..=GroupId::MAX.0).prop_map(|id| Action::Group(GroupId(id))),
    ]
}

fn conjunctions() -> impl Strategy<Value = Vec<Action>> {
    let part = (any::<u32>(), 2..=64u8, any::<u8>())
        .prop_map(|(id, clauses, clause)| Action::Conjunction(Conjunction { id, clause: clause % clauses, clauses }));
    let note = vec(any::<u8>(), 0..9).prop_map(|bytes| Action::Note(bytes.into()));
    (part.clone(), vec(prop_oneof![part, note], 0..3)).prop_map(|(first, mut rest)| {
        rest.push(first);
        rest
    })
}

/// Any action list.
pub(crate) fn actions() -> impl Strategy<Value = Vec<Action>> {
    let list = || vec(flat(), 0..6);
    let nested = (list(), option::of(list()), 0..6usize).prop_map(|(mut actions, inner, at)| {
        if let Some(inner) = inner {
            let twice = Action::Clone([Action::Clone(inner.into())].into());
            actions.insert(at.min(actions.len()), twice);
        }
        actions
    });
    let metadata = (any::<u64>(), prop_oneof![Just(u64::MAX), any::<u64>()]);
    let set = vec(in_set(), 0..4).prop_map(|list| Action::WriteActions(list.into()));
    let last = (
        any::<bool>(),
        option::weighted(0.2, set),
        option::weighted(0.2, metadata),
        option::weighted(0.2, table()),
        option::weighted(0.1, meter()),
    );
    let whole = (nested, last).prop_map(|(mut actions, (clear, set, metadata, goto, meter))| {
        if let Some(meter) = meter {
            actions.insert(0, Action::Meter(meter));
        }
        actions.extend(clear.then_some(Action::ClearActions));
        actions.extend(set);
        actions.extend(metadata.map(|(value, mask)| Action::WriteMetadata { value, mask }));
        actions.extend(goto.map(Action::GotoTable));
        actions
    });
    prop_oneof![8 => whole, 1 => conjunctions()]
}
