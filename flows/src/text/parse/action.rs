//! Reading action lists.

use super::error::{ErrorKind, Fault};
use super::token::{Pair, Pairs, Word};
use super::{subfield, suggest, value};
use crate::action::{Action, ControllerAction, ModAction, PacketInReason};
use crate::field::{ETH_TYPE_QINQ, ETH_TYPE_VLAN, Field};
use crate::key::VLAN_PRESENT;
use crate::port::PortNo;
use crate::text::Names;
use std::ops::Range;

/// An action list that was read.
#[derive(Debug, Default)]
pub(crate) struct List {
    /// The actions.
    pub(crate) actions: Vec<Action>,
    /// Where each was written.
    pub(crate) ranges: Vec<Range<usize>>,
}

/// Words of actions, in lower case.
const WORDS: [&str; 31] = [
    "output",
    "controller",
    "set_field",
    "load",
    "move",
    "mod_dl_src",
    "mod_dl_dst",
    "mod_nw_src",
    "mod_nw_dst",
    "mod_nw_tos",
    "mod_nw_ecn",
    "mod_nw_ttl",
    "set_nw_ttl",
    "mod_tp_src",
    "mod_tp_dst",
    "mod_vlan_vid",
    "mod_vlan_pcp",
    "push_vlan",
    "pop_vlan",
    "strip_vlan",
    "dec_ttl",
    "resubmit",
    "goto_table",
    "note",
    "drop",
    "normal",
    "flood",
    "all",
    "local",
    "in_port",
    "table",
];

/// Words of OVS's actions that the model has not.
const LATER_WORDS: [&str; 41] = [
    "group",
    "enqueue",
    "bundle",
    "bundle_load",
    "set_vlan_vid",
    "set_vlan_pcp",
    "push",
    "pop",
    "set_mpls_label",
    "set_mpls_tc",
    "set_mpls_ttl",
    "dec_mpls_ttl",
    "push_mpls",
    "pop_mpls",
    "set_tunnel",
    "set_tunnel64",
    "set_queue",
    "pop_queue",
    "fin_timeout",
    "learn",
    "conjunction",
    "multipath",
    "exit",
    "sample",
    "unroll_xlate",
    "ct",
    "ct_clear",
    "nat",
    "clone",
    "check_pkt_larger",
    "delete_field",
    "write_metadata",
    "meter",
    "clear_actions",
    "write_actions",
    "encap",
    "decap",
    "dec_nsh_ttl",
    "debug_recirc",
    "debug_slow",
    "output_trunc",
];

/// Reads a whole text as an action list.
pub(crate) fn read_list(text: Word<'_>, names: &Names) -> Result<List, Fault> {
    let mut list = List::default();
    let mut drop = None;
    for pair in Pairs::new(text) {
        let range = pair.key.at..pair.value.range().end.max(pair.key.range().end);
        if pair.key.text.eq_ignore_ascii_case("drop") {
            no_argument(&pair)?;
            drop = Some(range);
            continue;
        }
        let action = read(&pair, names)?;
        if matches!(list.actions.last(), Some(Action::GotoTable(_))) {
            return Err(Fault::new(range, ErrorKind::AfterGoto));
        }
        list.actions.push(action);
        list.ranges.push(range);
    }
    match drop {
        Some(range) if !list.actions.is_empty() => Err(Fault::new(range, ErrorKind::DropNotAlone)),
        _ => Ok(list),
    }
}

fn read(pair: &Pair<'_>, names: &Names) -> Result<Action, Fault> {
    let arg = pair.value;
    let word = pair.key.text.to_ascii_lowercase();
    Ok(match word.as_str() {
        "output" | "output_reg" => output(arg, names)?,
        "controller" => controller(arg)?,
        "set_field" => set_field(arg, names)?,
        "load" => load(arg)?,
        "move" => move_bits(arg)?,
        "resubmit" => resubmit(pair.key, arg, names)?,
        "goto_table" => {
            let table = value::table(arg, names)?;
            Action::GotoTable(table.ok_or_else(|| arg.fault(ErrorKind::UnknownTable))?)
        }
        "push_vlan" => match value::number_u16(arg, "push_vlan")? {
            tpid @ (ETH_TYPE_VLAN | ETH_TYPE_QINQ) => Action::PushVlan(tpid),
            _ => return Err(arg.fault(ErrorKind::BadValue { what: "push_vlan", want: "0x8100 or 0x88a8" })),
        },
        "pop_vlan" | "strip_vlan" => {
            no_argument(pair)?;
            Action::PopVlan { modern: word == "pop_vlan" }
        }
        "dec_ttl" if arg.text.is_empty() => Action::DecTtl(Box::default()),
        "dec_ttl" => return Err(arg.fault(ErrorKind::Unsupported)),
        "note" => Action::Note(note(arg)?),
        _ => match set_old(&word, arg)? {
            Some(action) => Action::Mod(action),
            None => other(pair, &word, names)?,
        },
    })
}

/// `mod_*`.
fn set_old(word: &str, arg: Word<'_>) -> Result<Option<ModAction>, Fault> {
    let bad = |what, want| Err(arg.fault(ErrorKind::BadValue { what, want }));
    Ok(Some(match word {
        "mod_dl_src" => ModAction::DlSrc(value::mac(arg, "mod_dl_src")?),
        "mod_dl_dst" => ModAction::DlDst(value::mac(arg, "mod_dl_dst")?),
        "mod_nw_src" => ModAction::NwSrc(value::ipv4(arg, "mod_nw_src", "an IPv4 address")?),
        "mod_nw_dst" => ModAction::NwDst(value::ipv4(arg, "mod_nw_dst", "an IPv4 address")?),
        "mod_nw_tos" => match value::number_u8(arg, "mod_nw_tos")? {
            tos if tos & 3 == 0 => ModAction::NwTos(tos),
            _ => return bad("mod_nw_tos", "a multiple of 4 up to 252"),
        },
        "mod_nw_ecn" => ModAction::NwEcn(value::number_to(arg, "mod_nw_ecn", 3)? as u8),
        "mod_nw_ttl" | "set_nw_ttl" => ModAction::NwTtl(value::number_u8(arg, "mod_nw_ttl")?),
        "mod_tp_src" => ModAction::TpSrc(value::number_u16(arg, "mod_tp_src")?),
        "mod_tp_dst" => ModAction::TpDst(value::number_u16(arg, "mod_tp_dst")?),
        "mod_vlan_vid" => ModAction::VlanVid(value::number_to(arg, "mod_vlan_vid", 0xfff)? as u16),
        "mod_vlan_pcp" => ModAction::VlanPcp(value::number_to(arg, "mod_vlan_pcp", 7)? as u8),
        _ => return Ok(None),
    }))
}

/// A port as an action, or nothing that there is.
fn other(pair: &Pair<'_>, word: &str, names: &Names) -> Result<Action, Fault> {
    if LATER_WORDS.contains(&word) {
        return Err(pair.key.fault(ErrorKind::Unsupported));
    }
    if word == "apply_actions" {
        return Err(pair.key.fault(ErrorKind::NotAllowed("actions are applied without saying so")));
    }
    match value::port(pair.key, names) {
        Ok(port) => {
            no_argument(pair)?;
            output_to(pair.key, port)
        }
        Err(_) => {
            let words = WORDS.into_iter().chain(names.port_words());
            Err(pair.key.fault(ErrorKind::UnknownAction).suggest(suggest::nearest(pair.key.text, words)))
        }
    }
}

fn no_argument(pair: &Pair<'_>) -> Result<(), Fault> {
    if pair.value.text.is_empty() { Ok(()) } else { Err(pair.value.fault(ErrorKind::UnexpectedValue)) }
}

fn output_to(word: Word<'_>, port: PortNo) -> Result<Action, Fault> {
    if port == PortNo::CONTROLLER {
        return Ok(Action::Controller(to_controller(u16::MAX, PacketInReason::Action, 0)));
    }
    if port > PortNo::MAX && port.reserved_name().is_none() || port == PortNo::NONE || port == PortNo::UNSET {
        return Err(word.fault(ErrorKind::BadOutputPort));
    }
    Ok(Action::Output(port))
}

fn output(arg: Word<'_>, names: &Names) -> Result<Action, Fault> {
    if arg.text.is_empty() {
        return Err(arg.fault(ErrorKind::MissingValue("a port or a field that holds one")));
    }
    if arg.text.contains("port") && arg.text.contains("max_len") {
        return Err(arg.fault(ErrorKind::Unsupported));
    }
    match value::port(arg, names) {
        Ok(port) => output_to(arg, port),
        Err(fault) => match subfield::read(arg) {
            Ok(part) => Ok(Action::OutputField(part)),
            Err(bits) if arg.text.contains('[') => Err(bits),
            Err(_) => Err(fault),
        },
    }
}

fn to_controller(max_len: u16, reason: PacketInReason, controller_id: u16) -> Box<ControllerAction> {
    let extended = reason != PacketInReason::Action || controller_id != 0;
    Box::new(ControllerAction { max_len, reason, controller_id, extended, ..ControllerAction::default() })
}

fn controller(arg: Word<'_>) -> Result<Action, Fault> {
    let (mut max_len, mut reason, mut id) = (u16::MAX, PacketInReason::Action, 0);
    if !arg.text.is_empty() && arg.text.bytes().all(|b| b.is_ascii_digit()) {
        max_len = value::number_u16(arg, "max_len")?;
        return Ok(Action::Controller(to_controller(max_len, reason, id)));
    }
    for pair in Pairs::new(arg) {
        match pair.key.text {
            "max_len" => max_len = value::number_u16(pair.value, "max_len")?,
            "id" => id = value::number_u16(pair.value, "id")?,
            "reason" => reason = packet_in_reason(pair.value)?,
            "userdata" | "pause" | "meter_id" => return Err(pair.key.fault(ErrorKind::Unsupported)),
            word => {
                let kind = ErrorKind::BadValue { what: "controller", want: "a length, or max_len=, id= or reason=" };
                return Err(pair.key.fault(kind).suggest(suggest::nearest(word, ["max_len", "id", "reason"])));
            }
        }
    }
    Ok(Action::Controller(to_controller(max_len, reason, id)))
}

fn packet_in_reason(word: Word<'_>) -> Result<PacketInReason, Fault> {
    let known = [
        ("no_match", PacketInReason::NoMatch),
        ("action", PacketInReason::Action),
        ("invalid_ttl", PacketInReason::InvalidTtl),
    ];
    if let Some((_, reason)) = known.iter().find(|(name, _)| name.eq_ignore_ascii_case(word.text)) {
        return Ok(*reason);
    }
    if ["action_set", "group", "packet_out"].iter().any(|name| name.eq_ignore_ascii_case(word.text)) {
        return Err(word.fault(ErrorKind::Unsupported));
    }
    let kind = ErrorKind::BadValue { what: "reason", want: "no_match, action or invalid_ttl" };
    Err(word.fault(kind).suggest(suggest::nearest(word.text, known.iter().map(|(name, _)| *name))))
}

/// What stands before and behind `->`.
fn arrow<'a>(arg: Word<'a>) -> Result<(Word<'a>, Word<'a>), Fault> {
    match arg.split_once("->") {
        Some((left, right)) if !right.text.is_empty() => Ok((left, right)),
        _ => Err(arg.fault(ErrorKind::MissingArrow)),
    }
}

fn set_field(arg: Word<'_>, names: &Names) -> Result<Action, Fault> {
    let (text, name) = arrow(arg)?;
    if name.text == "dl_vlan" {
        return Err(name.fault(ErrorKind::NotAllowed("write mod_vlan_vid:VID or set_field:0x1000+VID->vlan_vid")));
    }
    let field = subfield::field_named(name.text).ok_or_else(|| suggest::unknown_field(name))?;
    let info = field.info();
    if !info.writable {
        return Err(name.fault(ErrorKind::ReadOnly(info.name)));
    }
    let (mut value, mask) = value::field_value(field, text, names)?;
    let max = if field == Field::VlanVid { 0x1fff } else { field.slot().max() };
    if value > max {
        return Err(text.fault(ErrorKind::TooLarge { what: info.name, max }));
    }
    if field == Field::NwTos && value & 3 != 0 {
        return Err(text.fault(ErrorKind::BadValue { what: "nw_tos", want: "a multiple of 4 up to 252" }));
    }
    if field == Field::VlanVid {
        if mask & max != max {
            return Err(text.fault(ErrorKind::BadMask("vlan_vid")));
        }
        value |= u128::from(VLAN_PRESENT);
    }
    let mask = if mask & max == max { u128::MAX } else { mask & max };
    Ok(Action::SetField { field, value: value & mask, mask })
}

fn load(arg: Word<'_>) -> Result<Action, Fault> {
    let (text, name) = arrow(arg)?;
    let dst = subfield::read(name)?;
    let value = value::number_to(text, dst.field.info().name, dst.mask() >> dst.ofs)?;
    writable(name, dst.field)?;
    Ok(Action::Load { value, dst })
}

fn move_bits(arg: Word<'_>) -> Result<Action, Fault> {
    let (from, to) = arrow(arg)?;
    let (src, dst) = (subfield::read(from)?, subfield::read(to)?);
    if src.bits != dst.bits {
        return Err(arg.fault(ErrorKind::WidthMismatch { src: src.bits, dst: dst.bits }));
    }
    writable(to, dst.field)?;
    Ok(Action::Move { src, dst })
}

fn writable(word: Word<'_>, field: Field) -> Result<(), Fault> {
    let info = field.info();
    if info.writable { Ok(()) } else { Err(word.fault(ErrorKind::ReadOnly(info.name))) }
}

/// `word` without blanks around, if anything is left.
fn given(word: Option<Word<'_>>) -> Option<Word<'_>> {
    word.map(Word::trim).filter(|w| !w.text.is_empty())
}

fn resubmit(key: Word<'_>, arg: Word<'_>, names: &Names) -> Result<Action, Fault> {
    let (first, rest) = arg.split_once(",").map_or((arg, None), |(a, b)| (a, Some(b)));
    let (second, third) = match rest {
        Some(rest) => rest.split_once(",").map_or((Some(rest), None), |(a, b)| (Some(a), Some(b))),
        None => (None, None),
    };
    if let Some(word) = given(third) {
        let kind = ErrorKind::BadValue { what: "resubmit", want: "[PORT],[TABLE]" };
        return Err(word.fault(if word.text == "ct" { ErrorKind::Unsupported } else { kind }));
    }
    let port = match given(Some(first)) {
        Some(word) => Some(value::port(word, names)?).filter(|p| *p != PortNo::IN_PORT),
        None => None,
    };
    let table = match given(second) {
        Some(word) => value::table(word, names)?,
        None => None,
    };
    if port.is_none() && table.is_none() {
        let word = if arg.text.is_empty() { key } else { arg };
        return Err(word.fault(ErrorKind::BadValue { what: "resubmit", want: "a port, a table or both" }));
    }
    Ok(Action::Resubmit { port, table, ct: false, extended: table.is_some() })
}

/// Bytes in hexadecimal; dots and blanks may stand between them.
fn note(arg: Word<'_>) -> Result<Box<[u8]>, Fault> {
    let bad = || arg.fault(ErrorKind::BadValue { what: "note", want: "bytes in hexadecimal, such as 01.02.ff" });
    let is_gap = |c: char| matches!(c, '.' | ' ' | '\t' | '\r' | '\n');
    let mut bytes = Vec::new();
    let mut rest = arg.text.trim_start_matches(is_gap);
    while !rest.is_empty() {
        let digits = rest.get(..2).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit())).ok_or_else(bad)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| bad())?);
        rest = rest[2..].trim_start_matches(is_gap);
    }
    Ok(bytes.into())
}
