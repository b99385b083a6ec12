//! Printing actions as OVS does, each as it was written.

mod ct;
mod learn;

use super::value::{hex, mac, name_or_quoted, of_field, port};
use super::{List, show_actions};
use crate::action::{
    Action, Bundle, ControllerAction, Encap, HashFields, ModAction, Multipath, PacketInReason, Sample,
};
use crate::action::{Fragment, NshTlv, Subfield};
use crate::port::PortNo;
use crate::rule::TableId;
use crate::text::Names;
use crate::text::parse::{BUNDLE_ALGORITHMS, MULTIPATH_ALGORITHMS, REASONS};
use std::fmt::{self, Display};
use std::net::Ipv4Addr;

/// Writes one action.
pub(crate) fn write(f: &mut fmt::Formatter<'_>, action: &Action, names: &Names) -> fmt::Result {
    match action {
        Action::Output(_)
        | Action::OutputField(_)
        | Action::OutputTruncated { .. }
        | Action::Controller(_)
        | Action::Enqueue { .. }
        | Action::Group(_)
        | Action::Bundle(_)
        | Action::GotoTable(_)
        | Action::Resubmit { .. } => write_output(f, action, names),
        Action::SetField { field, value, mask } => {
            write!(f, "set_field:{}->{}", of_field(*field, *value, *mask, names), field.info().name)
        }
        Action::Load { value, dst } => write!(f, "load:{}->{}", hex(*value), subfield(*dst)),
        Action::Move { src, dst } => write!(f, "move:{}->{}", subfield(*src), subfield(*dst)),
        Action::Push(part) => write!(f, "push:{}", subfield(*part)),
        Action::Pop(part) => write!(f, "pop:{}", subfield(*part)),
        Action::Mod(setter) => write_setter(f, setter),
        Action::DeleteField(field) => write!(f, "delete_field:{}", field.info().name),
        Action::CheckPktLarger { len, dst } => write!(f, "check_pkt_larger({len})->{}", subfield(*dst)),
        Action::Learn(learn) => learn::write(f, learn, names),
        Action::Conjunction(part) => {
            write!(f, "conjunction({},{}/{})", part.id, u16::from(part.clause) + 1, part.clauses)
        }
        Action::Multipath(multipath) => write_multipath(f, multipath),
        Action::Ct(ct) => ct::write(f, ct, names),
        Action::Clone(list) => write!(f, "clone({})", show_actions(list, names)),
        Action::WriteActions(list) => write!(f, "write_actions({})", show_actions(list, names)),
        Action::WriteMetadata { value, mask: u64::MAX } => write!(f, "write_metadata:{}", hex((*value).into())),
        Action::WriteMetadata { value, mask } => {
            write!(f, "write_metadata:{}/{}", hex((*value).into()), hex((*mask).into()))
        }
        Action::Sample(sample) => write_sample(f, sample, names),
        Action::Fragment(fragment) => write_fragment(f, fragment),
        Action::FinTimeout { idle, hard } => write_fin_timeout(f, *idle, *hard),
        Action::Encap(encap) => write_encap(f, encap),
        _ => write_header_action(f, action),
    }
}

/// What sends the packet somewhere.
fn write_output(f: &mut fmt::Formatter<'_>, action: &Action, names: &Names) -> fmt::Result {
    match action {
        Action::Output(no) if no.0 <= PortNo::MAX.0 => write!(f, "output:{}", port(*no, names)),
        Action::Output(no) => write!(f, "{no}"),
        Action::OutputField(part) => write!(f, "output:{}", subfield(*part)),
        Action::OutputTruncated { port: no, max_len } => {
            write!(f, "output(port={},max_len={max_len})", port(*no, names))
        }
        Action::Controller(to) => write_controller(f, to),
        Action::Enqueue { port: no, queue } => write!(f, "enqueue:{}:{queue}", port(*no, names)),
        Action::Group(id) => write!(f, "group:{id}"),
        Action::Bundle(bundle) => write_bundle(f, bundle, names),
        Action::GotoTable(id) => write!(f, "goto_table:{}", table(*id, names)),
        Action::Resubmit { port: Some(no), table: None, ct: false, .. } => {
            write!(f, "resubmit:{}", port(*no, names))
        }
        Action::Resubmit { port: no, table: id, ct, .. } => write_resubmit(f, *no, *id, *ct, names),
        _ => Ok(()),
    }
}

fn write_fragment(f: &mut fmt::Formatter<'_>, fragment: &Fragment) -> fmt::Result {
    write!(f, "fragment(mtu={}", fragment.mtu)?;
    if fragment.controller_id != 0 {
        write!(f, ",id={}", fragment.controller_id)?;
    }
    if !fragment.userdata.is_empty() {
        write!(f, ",userdata={}", dotted(&fragment.userdata))?;
    }
    f.write_str(")")
}

/// What makes, takes and changes headers, and what has no argument.
fn write_header_action(f: &mut fmt::Formatter<'_>, action: &Action) -> fmt::Result {
    match action {
        Action::PushVlan(tpid) => write!(f, "push_vlan:{tpid:#x}"),
        Action::PopVlan { modern } => f.write_str(if *modern { "pop_vlan" } else { "strip_vlan" }),
        Action::PushMpls(ethertype) => write!(f, "push_mpls:{ethertype:#06x}"),
        Action::PopMpls(ethertype) => write!(f, "pop_mpls:{ethertype:#06x}"),
        Action::SetMplsLabel(label) => write!(f, "set_mpls_label({label})"),
        Action::SetMplsTc(tc) => write!(f, "set_mpls_tc({tc})"),
        Action::SetMplsTtl(ttl) => write!(f, "set_mpls_ttl({ttl})"),
        Action::DecMplsTtl => f.write_str("dec_mpls_ttl"),
        Action::DecTtl(ids) if ids.is_empty() => f.write_str("dec_ttl"),
        Action::DecTtl(ids) => {
            f.write_str("dec_ttl(")?;
            let mut list = List::new(f);
            ids.iter().try_for_each(|id| list.item(format_args!("{id}")))?;
            f.write_str(")")
        }
        Action::DecNshTtl => f.write_str("dec_nsh_ttl"),
        Action::SetTunnel { id, wide } => {
            let wide = if *wide || *id > u32::MAX.into() { "64" } else { "" };
            write!(f, "set_tunnel{wide}:{}", hex((*id).into()))
        }
        Action::SetQueue(queue) => write!(f, "set_queue:{queue}"),
        Action::PopQueue => f.write_str("pop_queue"),
        Action::Meter(id) => write!(f, "meter:{id}"),
        Action::Exit => f.write_str("exit"),
        Action::Reject => f.write_str("reject"),
        Action::Note(bytes) => write!(f, "note:{}", dotted(bytes)),
        Action::CtClear => f.write_str("ct_clear"),
        Action::ClearActions => f.write_str("clear_actions"),
        Action::Decap(None) => f.write_str("decap()"),
        Action::Decap(Some(under)) => {
            write!(f, "decap(packet_type(ns={},type={}))", under.ns, hex(under.ty.into()))
        }
        _ => Ok(()),
    }
}

/// A subfield by its field's NXM name, or OXM name if that is the only one it has.
pub(crate) fn subfield(part: Subfield) -> impl Display {
    let info = part.field.info();
    let name = info.nxm.first().copied().unwrap_or(info.name);
    fmt::from_fn(move |f| {
        if part == Subfield::whole(part.field) {
            write!(f, "{name}[]")
        } else if part.bits == 1 {
            write!(f, "{name}[{}]", part.ofs)
        } else {
            write!(f, "{name}[{}..{}]", part.ofs, (u16::from(part.ofs) + u16::from(part.bits)).saturating_sub(1))
        }
    })
}

/// A table: its name or its number.
pub(crate) fn table(id: TableId, names: &Names) -> impl Display + '_ {
    fmt::from_fn(move |f| match names.table_name(id) {
        Some(name) => name_or_quoted(name).fmt(f),
        None => id.fmt(f),
    })
}

/// Bytes in hexadecimal with dots between them.
fn dotted(bytes: &[u8]) -> impl Display + '_ {
    fmt::from_fn(move |f| {
        let with_dot = |i| if i == 0 { "" } else { "." };
        bytes.iter().enumerate().try_for_each(|(i, byte)| write!(f, "{}{byte:02x}", with_dot(i)))
    })
}

/// The word for `meaning`.
fn word<T: PartialEq + Copy>(words: &[(&'static str, T)], meaning: T) -> &'static str {
    words.iter().find(|(_, m)| *m == meaning).map_or("", |(word, _)| word)
}

fn write_controller(f: &mut fmt::Formatter<'_>, to: &ControllerAction) -> fmt::Result {
    if (ControllerAction { max_len: u16::MAX, extended: false, ..to.clone() }) == ControllerAction::default() {
        return write!(f, "CONTROLLER:{}", to.max_len);
    }
    f.write_str("controller(")?;
    let mut list = List::new(f);
    if to.reason != PacketInReason::Action {
        list.item(format_args!("reason={}", word(&REASONS, to.reason)))?;
    }
    if to.max_len != u16::MAX {
        list.item(format_args!("max_len={}", to.max_len))?;
    }
    if to.controller_id != 0 {
        list.item(format_args!("id={}", to.controller_id))?;
    }
    if !to.userdata.is_empty() {
        list.item(format_args!("userdata={}", dotted(&to.userdata)))?;
    }
    if to.pause {
        list.item(format_args!("pause"))?;
    }
    if let Some(meter) = to.meter {
        list.item(format_args!("meter_id={meter}"))?;
    }
    f.write_str(")")
}

fn write_resubmit(
    f: &mut fmt::Formatter<'_>,
    no: Option<PortNo>,
    id: Option<TableId>,
    ct: bool,
    names: &Names,
) -> fmt::Result {
    f.write_str("resubmit(")?;
    if let Some(no) = no {
        port(no, names).fmt(f)?;
    }
    f.write_str(",")?;
    if let Some(id) = id {
        table(id, names).fmt(f)?;
    }
    f.write_str(if ct { ",ct)" } else { ")" })
}

fn hash_fields(fields: HashFields) -> &'static str {
    HashFields::NAMES.iter().find(|(f, _)| *f == fields).map_or("", |(_, name)| name)
}

fn write_bundle(f: &mut fmt::Formatter<'_>, bundle: &Bundle, names: &Names) -> fmt::Result {
    let (action, fields) = (if bundle.dst.is_some() { "bundle_load" } else { "bundle" }, hash_fields(bundle.fields));
    let algorithm = word(&BUNDLE_ALGORITHMS, bundle.algorithm);
    write!(f, "{action}({fields},{},{algorithm},ofport,", bundle.basis)?;
    if let Some(dst) = bundle.dst {
        write!(f, "{},", subfield(dst))?;
    }
    f.write_str("members:")?;
    let mut list = List::new(f);
    bundle.members.iter().try_for_each(|no| list.item(format_args!("{}", port(*no, names))))?;
    f.write_str(")")
}

fn write_multipath(f: &mut fmt::Formatter<'_>, multipath: &Multipath) -> fmt::Result {
    let Multipath { fields, basis, algorithm, links, arg, dst } = *multipath;
    let algorithm = word(&MULTIPATH_ALGORITHMS, algorithm);
    write!(f, "multipath({},{basis},{algorithm},{links},{arg},{})", hash_fields(fields), subfield(dst))
}

fn write_sample(f: &mut fmt::Formatter<'_>, sample: &Sample, names: &Names) -> fmt::Result {
    write!(f, "sample(probability={},collector_set_id={}", sample.probability, sample.collector_set_id)?;
    write!(f, ",obs_domain_id={},obs_point_id={}", sample.obs_domain_id, sample.obs_point_id)?;
    if let Some(no) = sample.sampling_port {
        write!(f, ",sampling_port={}", port(no, names))?;
    }
    f.write_str(match sample.egress {
        None => ")",
        Some(false) => ",ingress)",
        Some(true) => ",egress)",
    })
}

fn write_fin_timeout(f: &mut fmt::Formatter<'_>, idle: u16, hard: u16) -> fmt::Result {
    f.write_str("fin_timeout(")?;
    let mut list = List::new(f);
    if idle != 0 {
        list.item(format_args!("idle_timeout={idle}"))?;
    }
    if hard != 0 {
        list.item(format_args!("hard_timeout={hard}"))?;
    }
    f.write_str(")")
}

fn write_encap(f: &mut fmt::Formatter<'_>, encap: &Encap) -> fmt::Result {
    match encap {
        Encap::Ethernet => f.write_str("encap(ethernet)"),
        Encap::Mpls => f.write_str("encap(mpls)"),
        Encap::MplsMulticast => f.write_str("encap(mpls_mc)"),
        Encap::Nsh { md_type: None, tlvs } if tlvs.is_empty() => f.write_str("encap(nsh)"),
        Encap::Nsh { md_type, tlvs } => {
            f.write_str("encap(nsh(")?;
            let mut list = List::new(f);
            if let Some(md_type) = md_type {
                list.item(format_args!("md_type={md_type}"))?;
            }
            tlvs.iter().try_for_each(|item| list.item(format_args!("{}", tlv(item))))?;
            f.write_str("))")
        }
    }
}

fn tlv(item: &NshTlv) -> impl Display + '_ {
    fmt::from_fn(move |f| {
        write!(f, "tlv({:#06x},{},0x", item.class, item.ty)?;
        item.value.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    })
}

fn write_setter(f: &mut fmt::Formatter<'_>, setter: &ModAction) -> fmt::Result {
    match *setter {
        ModAction::DlSrc(address) => write!(f, "mod_dl_src:{}", mac(address)),
        ModAction::DlDst(address) => write!(f, "mod_dl_dst:{}", mac(address)),
        ModAction::NwSrc(address) => write!(f, "mod_nw_src:{}", Ipv4Addr::from_bits(address)),
        ModAction::NwDst(address) => write!(f, "mod_nw_dst:{}", Ipv4Addr::from_bits(address)),
        ModAction::NwTos(tos) => write!(f, "mod_nw_tos:{tos}"),
        ModAction::NwEcn(ecn) => write!(f, "mod_nw_ecn:{ecn}"),
        ModAction::NwTtl(ttl) => write!(f, "mod_nw_ttl:{ttl}"),
        ModAction::TpSrc(port) => write!(f, "mod_tp_src:{port}"),
        ModAction::TpDst(port) => write!(f, "mod_tp_dst:{port}"),
        ModAction::VlanVid(vid) => write!(f, "mod_vlan_vid:{vid}"),
        ModAction::VlanPcp(pcp) => write!(f, "mod_vlan_pcp:{pcp}"),
        ModAction::SetVlanVid(vid) => write!(f, "set_vlan_vid:{vid}"),
        ModAction::SetVlanPcp(pcp) => write!(f, "set_vlan_pcp:{pcp}"),
    }
}
