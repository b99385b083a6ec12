//! Reading flow text.
//!
//! [`token`] cuts a line into keys and values and remembers where each stood; [`value`] reads values; [`matching`],
//! [`action`], [`subfield`] and [`flow`] give them meaning. Every step fails with a [`Fault`](error::Fault), which says where and why; the public functions add
//! the text, and so make a [`ParseError`] of it.

mod action;
mod bundle;
mod error;
mod flow;
mod group;
mod matching;
mod meter;
mod order;
mod packet;
mod subfield;
mod suggest;
mod table;
mod token;
mod value;
mod words;

pub(crate) use action::{BUNDLE_ALGORITHMS, MULTIPATH_ALGORITHMS, REASONS};
pub(crate) use value::{CT_FLAGS, FRAGS, TCP_FLAGS, TUN_FLAGS};

pub(crate) use meter::VIRTUAL_METERS;

pub use bundle::parse_bundle_file;
pub use error::{ErrorKind, ParseError, Parsed, Warning};
pub use flow::{flow_lines, parse_filter, parse_flow, parse_flow_file, parse_flow_mod, parse_flow_mod_of};
pub use group::{GroupCommand, parse_group, parse_group_file, parse_group_line, parse_group_mod};
pub use meter::{MeterCommand, parse_meter, parse_meter_mod};
pub use packet::parse_packet;
pub use table::parse_table_mod;

use super::Names;
use crate::action::Action;
use crate::matching::Match;
use token::Word;

/// Reads a match, such as `tcp,nw_dst=10.0.0.0/8,tp_dst=80`. The empty text matches every packet.
///
/// # Errors
/// When a word is unknown, or a value is none of its field's.
pub fn parse_match(text: &str, names: &Names) -> Result<Parsed<Match>, ParseError> {
    match matching::read_all(Word::whole(text), names) {
        Ok(built) => Ok(built.in_text(text)),
        Err(fault) => Err(fault.in_text(text)),
    }
}

/// Reads an action list, such as `mod_dl_dst:02:00:00:00:00:01,output:2`. The empty text and `drop` are the empty list.
///
/// Whether the actions suit a match is not looked at: [`parse_flow`](super::parse_flow) does that.
///
/// # Errors
/// When a word is unknown, an argument is wrong, or the order is one that no flow can have.
pub fn parse_actions(text: &str, names: &Names) -> Result<Box<[Action]>, ParseError> {
    match action::read_list(Word::whole(text), names) {
        Ok(list) => Ok(list.actions.into()),
        Err(fault) => Err(fault.in_text(text)),
    }
}
