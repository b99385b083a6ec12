//! Actions with no argument, or with a few numbers.

use super::{bytes, decimal_u16, number_u32, output, unknown_key, words};
use crate::action::{Action, Conjunction, ModAction, Sample};
use crate::field::{ETH_TYPE_MPLS, ETH_TYPE_MPLS_MCAST, ETH_TYPE_QINQ, ETH_TYPE_VLAN};
use crate::text::Names;
use crate::text::parse::error::{ErrorKind, Fault};
use crate::text::parse::token::{Pair, Pairs, Word};
use crate::text::parse::value;

/// The action that `word` alone says, if it is one.
pub(super) fn without_argument(pair: &Pair<'_>, word: &str) -> Result<Option<Action>, Fault> {
    let action = match word {
        "pop_vlan" => Action::PopVlan { modern: true },
        "strip_vlan" => Action::PopVlan { modern: false },
        "dec_mpls_ttl" => Action::DecMplsTtl,
        "dec_nsh_ttl" => Action::DecNshTtl,
        "pop_queue" => Action::PopQueue,
        "exit" => Action::Exit,
        "reject" => Action::Reject,
        "ct_clear" => Action::CtClear,
        "clear_actions" => Action::ClearActions,
        _ => return Ok(None),
    };
    super::no_argument(pair)?;
    Ok(Some(action))
}

/// The action that `word` says with `arg`, if it is one.
pub(super) fn with_argument(word: &str, arg: Word<'_>, names: &Names) -> Result<Option<Action>, Fault> {
    let number = |what, max| value::number_to(arg, what, max);
    Ok(Some(match word {
        "push_vlan" => match value::number_u16(arg, "push_vlan")? {
            tpid @ (ETH_TYPE_VLAN | ETH_TYPE_QINQ) => Action::PushVlan(tpid),
            _ => return Err(arg.fault(ErrorKind::BadValue { what: "push_vlan", want: "0x8100 or 0x88a8" })),
        },
        "push_mpls" => match value::number_u16(arg, "push_mpls")? {
            ethertype @ (ETH_TYPE_MPLS | ETH_TYPE_MPLS_MCAST) => Action::PushMpls(ethertype),
            _ => return Err(arg.fault(ErrorKind::BadValue { what: "push_mpls", want: "0x8847 or 0x8848" })),
        },
        "pop_mpls" => Action::PopMpls(value::number_u16(arg, "pop_mpls")?),
        "set_mpls_label" => Action::SetMplsLabel(number("set_mpls_label", 0xf_ffff)? as u32),
        "set_mpls_tc" => Action::SetMplsTc(number("set_mpls_tc", 7)? as u8),
        "set_mpls_ttl" => Action::SetMplsTtl(value::number_u8(arg, "set_mpls_ttl")?),
        "set_tunnel" | "set_tunnel64" => {
            let id = value::number_u64(arg, "a tunnel key")?;
            Action::SetTunnel { id, wide: word == "set_tunnel64" || id > u32::MAX.into() }
        }
        "set_queue" => Action::SetQueue(number_u32(arg, "set_queue")?),
        "meter" => Action::Meter(output::meter(arg, "meter")?),
        "dec_ttl" => dec_ttl(arg)?,
        "note" => Action::Note(bytes(arg, "note")?),
        "conjunction" => conjunction(arg)?,
        "fin_timeout" => fin_timeout(arg)?,
        "sample" => sample(arg, names)?,
        _ => return setter(word, arg).map(|setter| setter.map(Action::Mod)),
    }))
}

/// `mod_*` and `set_vlan_*`.
fn setter(word: &str, arg: Word<'_>) -> Result<Option<ModAction>, Fault> {
    let ipv4 = |what| value::ipv4(arg, what, "an IPv4 address");
    let vid = |what| value::number_to(arg, what, 0xfff).map(|vid| vid as u16);
    let pcp = |what| value::number_to(arg, what, 7).map(|pcp| pcp as u8);
    Ok(Some(match word {
        "mod_dl_src" => ModAction::DlSrc(value::mac(arg, "mod_dl_src")?),
        "mod_dl_dst" => ModAction::DlDst(value::mac(arg, "mod_dl_dst")?),
        "mod_nw_src" => ModAction::NwSrc(ipv4("mod_nw_src")?),
        "mod_nw_dst" => ModAction::NwDst(ipv4("mod_nw_dst")?),
        "mod_nw_tos" => match value::number_u8(arg, "mod_nw_tos")? {
            tos if tos & 3 == 0 => ModAction::NwTos(tos),
            _ => {
                let want = "a multiple of 4 up to 252";
                return Err(arg.fault(ErrorKind::BadValue { what: "mod_nw_tos", want }));
            }
        },
        "mod_nw_ecn" => ModAction::NwEcn(value::number_to(arg, "mod_nw_ecn", 3)? as u8),
        "mod_nw_ttl" | "set_nw_ttl" => ModAction::NwTtl(value::number_u8(arg, "mod_nw_ttl")?),
        "mod_tp_src" => ModAction::TpSrc(value::number_u16(arg, "mod_tp_src")?),
        "mod_tp_dst" => ModAction::TpDst(value::number_u16(arg, "mod_tp_dst")?),
        "mod_vlan_vid" => ModAction::VlanVid(vid("mod_vlan_vid")?),
        "mod_vlan_pcp" => ModAction::VlanPcp(pcp("mod_vlan_pcp")?),
        "set_vlan_vid" => ModAction::SetVlanVid(vid("set_vlan_vid")?),
        "set_vlan_pcp" => ModAction::SetVlanPcp(pcp("set_vlan_pcp")?),
        _ => return Ok(None),
    }))
}

/// `dec_ttl`, `dec_ttl(ID,..)`.
fn dec_ttl(arg: Word<'_>) -> Result<Action, Fault> {
    let ids = words(arg).map(|word| decimal_u16(word, "a controller")).collect::<Result<Box<[_]>, _>>()?;
    if ids.is_empty() && !arg.text.is_empty() {
        return Err(arg.fault(ErrorKind::BadValue { what: "dec_ttl", want: "numbers of controllers, or nothing" }));
    }
    Ok(Action::DecTtl(ids))
}

/// `conjunction(ID,CLAUSE/CLAUSES)`.
fn conjunction(arg: Word<'_>) -> Result<Action, Fault> {
    const WANT: &str = "ID,K/N, clause K of N";
    let bad = |word: Word<'_>, want| word.fault(ErrorKind::BadValue { what: "conjunction", want });
    let (id, clause) = arg.split_once(",").ok_or_else(|| bad(arg, WANT))?;
    let (clause, clauses) = clause.split_once("/").ok_or_else(|| bad(clause, WANT))?;
    let id = number_u32(id.trim(), "conjunction")?;
    let (k, n) = (super::decimal(clause.trim(), "a clause", 64)?, super::decimal(clauses.trim(), "clauses", 64)?);
    if n < 2 {
        return Err(bad(clauses, "2 to 64 clauses"));
    }
    if k < 1 || k > n {
        return Err(bad(clause, "a clause from 1 to the number of clauses"));
    }
    Ok(Action::Conjunction(Conjunction { id, clause: (k - 1) as u8, clauses: n as u8 }))
}

/// `fin_timeout([idle_timeout=SECONDS][,hard_timeout=SECONDS])`.
fn fin_timeout(arg: Word<'_>) -> Result<Action, Fault> {
    const KEYS: [&str; 2] = ["idle_timeout", "hard_timeout"];
    let (mut idle, mut hard) = (0, 0);
    for pair in Pairs::new(arg) {
        match pair.key.text {
            "idle_timeout" => idle = value::number_u16(pair.value, "idle_timeout")?,
            "hard_timeout" => hard = value::number_u16(pair.value, "hard_timeout")?,
            _ => return Err(unknown_key(pair.key, "fin_timeout", "idle_timeout= and hard_timeout=", &KEYS)),
        }
    }
    Ok(Action::FinTimeout { idle, hard })
}

/// `sample(probability=N,..)`.
fn sample(arg: Word<'_>, names: &Names) -> Result<Action, Fault> {
    const KEYS: [&str; 7] =
        ["probability", "collector_set_id", "obs_domain_id", "obs_point_id", "sampling_port", "ingress", "egress"];
    let mut sample = Sample {
        probability: 0,
        collector_set_id: 0,
        obs_domain_id: 0,
        obs_point_id: 0,
        sampling_port: None,
        egress: None,
    };
    let share =
        |word: Word<'_>| word.fault(ErrorKind::BadValue { what: "probability", want: "1 to 65535, of 65535 packets" });
    for pair in Pairs::new(arg) {
        match pair.key.text {
            "probability" => match value::number_u16(pair.value, "probability")? {
                0 => return Err(share(pair.value)),
                some => sample.probability = some,
            },
            "collector_set_id" => sample.collector_set_id = number_u32(pair.value, "collector_set_id")?,
            "obs_domain_id" => sample.obs_domain_id = number_u32(pair.value, "obs_domain_id")?,
            "obs_point_id" => sample.obs_point_id = number_u32(pair.value, "obs_point_id")?,
            "sampling_port" => {
                let port = value::port(pair.value, names)?;
                sample.sampling_port = Some(port).filter(|p| *p != crate::port::PortNo::NONE);
            }
            "ingress" | "egress" => {
                super::no_argument(&pair)?;
                sample.egress = Some(pair.key.text == "egress");
            }
            _ => return Err(unknown_key(pair.key, "sample", "probability= and what it goes with", &KEYS)),
        }
    }
    if sample.probability == 0 {
        return Err(arg.end().fault(ErrorKind::MissingValue("probability=, 1 to 65535 of 65535 packets")));
    }
    Ok(Action::Sample(Box::new(sample)))
}
