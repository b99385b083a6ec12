//! Reading `learn(..)`.

use super::fields::{bit, both_ends, writable};
use super::{decimal, decimal_u16, no_argument};
use crate::action::{Action, Learn, LearnSource, LearnSpec, Subfield};
use crate::rule::{DEFAULT_PRIORITY, TableId};
use crate::text::Names;
use crate::text::parse::error::{ErrorKind, Fault};
use crate::text::parse::token::{Pair, Pairs, Word};
use crate::text::parse::{subfield, suggest, value};

/// Keys that are no specification of a field.
const KEYS: [&str; 13] = [
    "table",
    "priority",
    "idle_timeout",
    "hard_timeout",
    "fin_idle_timeout",
    "fin_hard_timeout",
    "cookie",
    "send_flow_rem",
    "delete_learned",
    "limit",
    "result_dst",
    "load",
    "output",
];

/// `learn(..)`.
pub(super) fn learn(arg: Word<'_>, names: &Names) -> Result<Action, Fault> {
    let mut learn = Learn {
        table: TableId::new(1).unwrap_or_default(),
        idle_timeout: 0,
        hard_timeout: 0,
        priority: DEFAULT_PRIORITY,
        cookie: 0,
        fin_idle_timeout: 0,
        fin_hard_timeout: 0,
        send_flow_rem: false,
        delete_learned: false,
        limit: 0,
        result_dst: None,
        specs: Box::default(),
    };
    let mut specs = Vec::new();
    for pair in Pairs::new(arg) {
        if !option(&mut learn, &pair, names)? {
            specs.push(spec(&pair, names)?);
        }
    }
    learn.specs = specs.into();
    Ok(Action::Learn(Box::new(learn)))
}

/// Takes in what says how the flow is learned; false if `pair` says what it is.
fn option(learn: &mut Learn, pair: &Pair<'_>, names: &Names) -> Result<bool, Fault> {
    let at = pair.value;
    match pair.key.text {
        "table" => {
            let table = value::table(at, names)?;
            learn.table = table.ok_or_else(|| at.fault(ErrorKind::UnknownTable))?;
        }
        "priority" => learn.priority = decimal_u16(at, "priority")?,
        "idle_timeout" => learn.idle_timeout = decimal_u16(at, "idle_timeout")?,
        "hard_timeout" => learn.hard_timeout = decimal_u16(at, "hard_timeout")?,
        "fin_idle_timeout" => learn.fin_idle_timeout = decimal_u16(at, "fin_idle_timeout")?,
        "fin_hard_timeout" => learn.fin_hard_timeout = decimal_u16(at, "fin_hard_timeout")?,
        "cookie" => learn.cookie = value::number_u64(at, "cookie")?,
        "limit" => learn.limit = decimal(at, "limit", u32::MAX)?,
        "result_dst" => learn.result_dst = Some(bit(at, "result_dst")?),
        "send_flow_rem" => {
            no_argument(pair)?;
            learn.send_flow_rem = true;
        }
        "delete_learned" => {
            no_argument(pair)?;
            learn.delete_learned = true;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// `FIELD[..]`, `FIELD[..]=VALUE`, `FIELD[..]=FIELD[..]`, `load:..->FIELD[..]`, `output:FIELD[..]`.
fn spec(pair: &Pair<'_>, names: &Names) -> Result<LearnSpec, Fault> {
    let (key, arg) = (pair.key, pair.value);
    match key.text {
        "load" => return load(arg),
        "output" => return subfield::read(arg).map(LearnSpec::Output),
        _ => {}
    }
    let dst = subfield::read_short(key).map_err(|fault| match fault.kind() {
        ErrorKind::UnknownField => {
            let words = suggest::field_words().chain(KEYS);
            fault.clone().suggest(suggest::nearest(key.text, words))
        }
        _ => fault,
    })?;
    if arg.text.is_empty() {
        return Ok(LearnSpec::Match { dst, src: LearnSource::Field(dst) });
    }
    if let Ok(src) = subfield::read(arg) {
        if src.bits != dst.bits {
            return Err(arg.fault(ErrorKind::WidthMismatch { src: src.bits, dst: dst.bits }));
        }
        return Ok(LearnSpec::Match { dst, src: LearnSource::Field(src) });
    }
    Ok(LearnSpec::Match { dst, src: LearnSource::Value(constant(dst, arg, names)?) })
}

/// The value that `word` says for `dst`, right-aligned.
fn constant(dst: Subfield, word: Word<'_>, names: &Names) -> Result<u128, Fault> {
    let (what, max) = (dst.field.info().name, dst.mask() >> dst.ofs);
    if dst != Subfield::whole(dst.field) {
        return value::number_to(word, what, max);
    }
    // What begins with a field's name and goes on with brackets was meant to be bits of that field.
    if let Err(fault) = subfield::read(word)
        && matches!(fault.kind(), ErrorKind::BadBits { .. })
    {
        return Err(fault);
    }
    match value::field_value(dst.field, word, names)? {
        (value, u128::MAX) if value <= max => Ok(value),
        (_, u128::MAX) => Err(word.fault(ErrorKind::TooLarge { what, max })),
        _ => Err(word.fault(ErrorKind::NotAllowed("a learned flow matches a value or a field, without a mask"))),
    }
}

/// `load:VALUE->FIELD[..]`, `load:FIELD[..]->FIELD[..]`.
fn load(arg: Word<'_>) -> Result<LearnSpec, Fault> {
    let (text, name) = super::arrow(arg)?;
    if !text.text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+')) {
        let (src, dst) = both_ends(arg)?;
        return Ok(LearnSpec::Load { dst, src: LearnSource::Field(src) });
    }
    let dst = subfield::read_short(name)?;
    let value = value::number_to(text, dst.field.info().name, dst.mask() >> dst.ofs)?;
    writable(name, dst.field)?;
    Ok(LearnSpec::Load { dst, src: LearnSource::Value(value) })
}
