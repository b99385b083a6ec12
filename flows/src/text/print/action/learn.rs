//! Printing `learn(..)`.

use super::{subfield, table};
use crate::action::{Learn, LearnSource, LearnSpec, Subfield};
use crate::rule::DEFAULT_PRIORITY;
use crate::text::Names;
use crate::text::print::List;
use crate::text::print::value::{hex, of_field};
use std::fmt;

/// Writes `learn(..)`.
pub(super) fn write(f: &mut fmt::Formatter<'_>, learn: &Learn, names: &Names) -> fmt::Result {
    f.write_str("learn(")?;
    let mut list = List::new(f);
    list.item(format_args!("table={}", table(learn.table, names)))?;
    for (name, seconds) in [
        ("idle_timeout", learn.idle_timeout),
        ("hard_timeout", learn.hard_timeout),
        ("fin_idle_timeout", learn.fin_idle_timeout),
        ("fin_hard_timeout", learn.fin_hard_timeout),
    ] {
        if seconds != 0 {
            list.item(format_args!("{name}={seconds}"))?;
        }
    }
    if learn.priority != DEFAULT_PRIORITY {
        list.item(format_args!("priority={}", learn.priority))?;
    }
    if learn.send_flow_rem {
        list.item(format_args!("send_flow_rem"))?;
    }
    if learn.delete_learned {
        list.item(format_args!("delete_learned"))?;
    }
    if learn.cookie != 0 {
        list.item(format_args!("cookie={:#x}", learn.cookie))?;
    }
    if learn.limit != 0 {
        list.item(format_args!("limit={}", learn.limit))?;
    }
    if let Some(dst) = learn.result_dst {
        list.item(format_args!("result_dst={}", subfield(dst)))?;
    }
    learn.specs.iter().try_for_each(|spec| write_spec(&mut list, spec, names))?;
    f.write_str(")")
}

fn write_spec(list: &mut List<'_, '_>, spec: &LearnSpec, names: &Names) -> fmt::Result {
    match *spec {
        LearnSpec::Match { dst, src: LearnSource::Value(value) } if dst == Subfield::whole(dst.field) => {
            let field = dst.field;
            list.item(format_args!("{}={}", field.info().name, of_field(field, value, u128::MAX, names)))
        }
        LearnSpec::Match { dst, src: LearnSource::Value(value) } => {
            list.item(format_args!("{}={}", subfield(dst), hex(value)))
        }
        LearnSpec::Match { dst, src: LearnSource::Field(src) } if src == dst => {
            list.item(format_args!("{}", subfield(dst)))
        }
        LearnSpec::Match { dst, src: LearnSource::Field(src) } => {
            list.item(format_args!("{}={}", subfield(dst), subfield(src)))
        }
        LearnSpec::Load { dst, src: LearnSource::Value(value) } => {
            list.item(format_args!("load:{}->{}", hex(value), subfield(dst)))
        }
        LearnSpec::Load { dst, src: LearnSource::Field(src) } => {
            list.item(format_args!("load:{}->{}", subfield(src), subfield(dst)))
        }
        LearnSpec::Output(src) => list.item(format_args!("output:{}", subfield(src))),
    }
}
