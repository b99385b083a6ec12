//! Printing actions as OVS does.

use super::List;
use super::value::{hex, mac, name_or_quoted, of_field, port};
use crate::action::{Action, ControllerAction, ModAction, PacketInReason, Subfield};
use crate::port::PortNo;
use crate::rule::TableId;
use crate::text::Names;
use std::fmt::{self, Display};
use std::net::Ipv4Addr;

/// Writes one action.
pub(crate) fn write(f: &mut fmt::Formatter<'_>, action: &Action, names: &Names) -> fmt::Result {
    match action {
        Action::Output(no) if no.0 <= PortNo::MAX.0 => write!(f, "output:{}", port(*no, names)),
        Action::Output(no) => write!(f, "{no}"),
        Action::OutputField(part) => write!(f, "output:{}", subfield(*part)),
        Action::Controller(to) => write_controller(f, to),
        Action::GotoTable(id) => write!(f, "goto_table:{}", table(*id, names)),
        Action::Resubmit { port: Some(no), table: None, .. } => write!(f, "resubmit:{}", port(*no, names)),
        Action::Resubmit { port: no, table: id, .. } => write_resubmit(f, *no, *id, names),
        Action::SetField { field, value, mask } => {
            write!(f, "set_field:{}->{}", of_field(*field, *value, *mask, names), field.info().name)
        }
        Action::Load { value, dst } => write!(f, "load:{}->{}", hex(*value), subfield(*dst)),
        Action::Move { src, dst } => write!(f, "move:{}->{}", subfield(*src), subfield(*dst)),
        Action::Mod(setter) => write_setter(f, setter),
        Action::PushVlan(tpid) => write!(f, "push_vlan:{tpid:#x}"),
        Action::PopVlan { modern } => f.write_str(if *modern { "pop_vlan" } else { "strip_vlan" }),
        Action::DecTtl(_) => f.write_str("dec_ttl"),
        Action::Note(bytes) => write_note(f, bytes),
        _ => Ok(()),
    }
}

/// A subfield by its field's NXM name, or OXM name if that is the only one it has.
fn subfield(part: Subfield) -> impl Display {
    let info = part.field.info();
    let name = info.nxm.first().copied().unwrap_or(info.name);
    fmt::from_fn(move |f| {
        if part == Subfield::whole(part.field) {
            write!(f, "{name}[]")
        } else if part.bits == 1 {
            write!(f, "{name}[{}]", part.ofs)
        } else {
            write!(f, "{name}[{}..{}]", part.ofs, u16::from(part.ofs) + u16::from(part.bits) - 1)
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

fn write_controller(f: &mut fmt::Formatter<'_>, to: &ControllerAction) -> fmt::Result {
    if to.reason == PacketInReason::Action && to.controller_id == 0 {
        return write!(f, "CONTROLLER:{}", to.max_len);
    }
    f.write_str("controller(")?;
    let mut list = List::new(f);
    match to.reason {
        PacketInReason::NoMatch => list.item(format_args!("reason=no_match"))?,
        PacketInReason::InvalidTtl => list.item(format_args!("reason=invalid_ttl"))?,
        _ => {}
    }
    if to.max_len != u16::MAX {
        list.item(format_args!("max_len={}", to.max_len))?;
    }
    if to.controller_id != 0 {
        list.item(format_args!("id={}", to.controller_id))?;
    }
    f.write_str(")")
}

fn write_resubmit(f: &mut fmt::Formatter<'_>, no: Option<PortNo>, id: Option<TableId>, names: &Names) -> fmt::Result {
    f.write_str("resubmit(")?;
    if let Some(no) = no {
        port(no, names).fmt(f)?;
    }
    f.write_str(",")?;
    if let Some(id) = id {
        table(id, names).fmt(f)?;
    }
    f.write_str(")")
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

fn write_note(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    f.write_str("note:")?;
    for (i, byte) in bytes.iter().enumerate() {
        write!(f, "{}{byte:02x}", if i == 0 { "" } else { "." })?;
    }
    Ok(())
}
