//! Printing flow text as OVS prints it.

mod action;
mod connection;
mod datapath;
mod flow;
mod group;
mod matching;
mod meter;
mod packet;
mod table;
mod tunnel;
mod value;

pub use datapath::show_datapath_actions;
pub use flow::{FlowStats, show_flow};
pub use group::{show_group, show_group_stats};
pub use meter::{show_meter, show_meter_stats};
pub use packet::{show_megaflow, show_packet};
pub use table::{show_table_desc, show_table_stats};

use super::Names;
use crate::action::Action;
use crate::field::Field;
use crate::matching::Match;
use matching::Reader;
use std::fmt;

/// A match as `dump-flows` prints it, in its fixed order; nothing for the match of every packet.
pub fn show_match<'a>(matches: &'a Match, names: &'a Names) -> impl fmt::Display + 'a {
    fmt::from_fn(move |f| matching::write(&mut List::new(f), &matches.value(), &matches.mask(), Reader::Flow, names))
}

/// An action list as `dump-flows` prints it; `drop` for the empty one.
pub fn show_actions<'a>(actions: &'a [Action], names: &'a Names) -> impl fmt::Display + 'a {
    fmt::from_fn(move |f| {
        if actions.is_empty() {
            return f.write_str("drop");
        }
        let mut list = List::new(f);
        actions.iter().try_for_each(|a| list.item(format_args!("{}", show_action(a, names))))
    })
}

/// One action as `dump-flows` prints it.
pub fn show_action<'a>(action: &'a Action, names: &'a Names) -> impl fmt::Display + 'a {
    fmt::from_fn(move |f| action::write(f, action, names))
}

/// Writes items with commas between them.
pub(crate) struct List<'a, 'f> {
    out: &'a mut fmt::Formatter<'f>,
    begun: bool,
}

impl<'a, 'f> List<'a, 'f> {
    pub(crate) fn new(out: &'a mut fmt::Formatter<'f>) -> Self {
        Self { out, begun: false }
    }

    /// Writes one item.
    pub(crate) fn item(&mut self, item: fmt::Arguments<'_>) -> fmt::Result {
        if std::mem::replace(&mut self.begun, true) {
            self.out.write_str(",")?;
        }
        self.out.write_fmt(item)
    }
}

/// A value of `field`, as matches and `set_field` print it.
pub fn show_value(field: Field, value: u128) -> impl fmt::Display {
    value::of_field(field, value, u128::MAX, Names::NONE)
}
