//! Reading action lists.
//!
//! [`read_list`] cuts a list into `word:ARGUMENT` pairs and looks each word up; the modules below read the arguments, one
//! topic each. Lists stand within actions (`clone(..)`, `write_actions(..)`), down to [`DEEPEST`] levels. In which order
//! actions may stand, and which may stand within others, is [`consistency::verify`]'s to say.

mod ct;
mod encap;
mod fields;
mod learn;
mod output;
mod select;
mod simple;
mod words;

pub(crate) use output::REASONS;
pub(crate) use select::{BUNDLE_ALGORITHMS, MULTIPATH_ALGORITHMS};

use super::error::{ErrorKind, Fault};
use super::token::{Pair, Pairs, Word};
use super::{suggest, value};
use crate::action::Action;
use crate::consistency::{self, Place};
use crate::text::Names;
use std::ops::Range;
use std::sync::Arc;

/// How many lists may stand within each other.
const DEEPEST: u8 = 64;

/// An action list that was read.
#[derive(Debug, Default)]
pub(crate) struct List {
    /// The actions.
    pub(crate) actions: Vec<Action>,
    /// Where each was written.
    pub(crate) ranges: Vec<Range<usize>>,
}

/// Reads a whole text as the action list of a flow.
pub(crate) fn read_list(text: Word<'_>, names: &Names) -> Result<List, Fault> {
    Reader { names, depth: 0 }.list(text, Place::Flow)
}

/// Reads a whole text as the action list of a group's bucket.
pub(crate) fn read_bucket(text: Word<'_>, names: &Names) -> Result<List, Fault> {
    Reader { names, depth: 0 }.list(text, Place::Bucket)
}

/// What reading an action depends on.
#[derive(Clone, Copy)]
struct Reader<'a> {
    names: &'a Names,
    /// How many lists this one stands in.
    depth: u8,
}

impl Reader<'_> {
    /// Reads `text` as an action list at `place`.
    fn list(self, text: Word<'_>, place: Place) -> Result<List, Fault> {
        let mut list = List::default();
        let mut drop = None;
        for pair in Pairs::new(text) {
            let range = whole(&pair, text);
            if pair.key.text.eq_ignore_ascii_case("drop") {
                no_argument(&pair)?;
                drop = Some(range);
                continue;
            }
            list.actions.push(self.action(&pair)?);
            list.ranges.push(range);
        }
        if let Some(range) = drop.filter(|_| !list.actions.is_empty()) {
            return Err(Fault::new(range, ErrorKind::DropNotAlone));
        }
        verify(&list.actions, &list.ranges, text, place)?;
        Ok(list)
    }

    /// Reads the list that stands in the argument of `pair`.
    fn nested(self, pair: &Pair<'_>, place: Place) -> Result<Arc<[Action]>, Fault> {
        if self.depth >= DEEPEST {
            return Err(pair.key.fault(ErrorKind::TooDeep(DEEPEST)));
        }
        Ok(Self { depth: self.depth + 1, ..self }.list(pair.value, place)?.actions.into())
    }

    fn action(self, pair: &Pair<'_>) -> Result<Action, Fault> {
        let (arg, names) = (pair.value, self.names);
        let word = pair.key.text.to_ascii_lowercase();
        Ok(match word.as_str() {
            "output" | "output_reg" => output::output(arg, names)?,
            "controller" => output::controller(arg)?,
            "enqueue" => output::enqueue(arg, names)?,
            "group" => output::group(arg)?,
            "resubmit" => output::resubmit(pair.key, arg, names)?,
            "goto_table" => output::goto_table(arg, names)?,
            "bundle" => select::bundle(arg, names, false)?,
            "bundle_load" => select::bundle(arg, names, true)?,
            "multipath" => select::multipath(arg)?,
            "set_field" => fields::set_field(arg, names)?,
            "load" => fields::load(arg)?,
            "move" => fields::move_bits(arg)?,
            "push" => fields::push(arg)?,
            "pop" => fields::pop(arg)?,
            "delete_field" => fields::delete_field(arg)?,
            "fragment" => output::fragment(arg)?,
            "check_pkt_larger" => fields::check_pkt_larger(arg)?,
            "write_metadata" => fields::write_metadata(arg)?,
            "learn" => learn::learn(arg, names)?,
            "ct" => ct::ct(self, arg)?,
            "clone" => Action::Clone(self.nested(pair, Place::Clone)?),
            "write_actions" => Action::WriteActions(self.nested(pair, Place::WriteActions)?),
            "encap" => encap::encap(pair.key, arg)?,
            "decap" => encap::decap(arg)?,
            _ => match simple::without_argument(pair, &word)? {
                Some(action) => action,
                None => match simple::with_argument(&word, arg, names)? {
                    Some(action) => action,
                    None => other(pair, &word, names)?,
                },
            },
        })
    }
}

/// All that a pair of `text` was written with, its closing parenthesis too.
fn whole(pair: &Pair<'_>, text: Word<'_>) -> Range<usize> {
    let end = pair.value.range().end.max(pair.key.range().end);
    let closed = pair.delimiter == Some(b'(') && text.text.as_bytes().get(end - text.at) == Some(&b')');
    pair.key.at..end + usize::from(closed)
}

/// Checks the order and the place of `actions`, which were written at `ranges` within `text`.
fn verify(actions: &[Action], ranges: &[Range<usize>], text: Word<'_>, place: Place) -> Result<(), Fault> {
    consistency::verify(actions, place).map_err(|error| {
        let range = error.action().checked_sub(1).and_then(|i| ranges.get(i)).cloned();
        Fault::new(range.unwrap_or(text.range()), error.into())
    })
}

/// A port as an action, or nothing that there is.
fn other(pair: &Pair<'_>, word: &str, names: &Names) -> Result<Action, Fault> {
    if let Some(advice) = words::NOT_ALONE.iter().find(|(name, _)| *name == word).map(|(_, advice)| *advice) {
        return Err(pair.key.fault(ErrorKind::NotAllowed(advice)));
    }
    match value::port(pair.key, names) {
        Ok(port) => {
            no_argument(pair)?;
            output::to(pair.key, port)
        }
        Err(_) => {
            let words = words::ACTIONS.iter().copied().chain(names.port_words());
            Err(pair.key.fault(ErrorKind::UnknownAction).suggest(suggest::nearest(pair.key.text, words)))
        }
    }
}

fn no_argument(pair: &Pair<'_>) -> Result<(), Fault> {
    if pair.value.text.is_empty() { Ok(()) } else { Err(pair.value.fault(ErrorKind::UnexpectedValue)) }
}

/// What stands before and behind `->`.
fn arrow(arg: Word<'_>) -> Result<(Word<'_>, Word<'_>), Fault> {
    match arg.split_once("->") {
        Some((left, right)) if !right.text.is_empty() => Ok((left, right)),
        _ => Err(arg.fault(ErrorKind::MissingArrow)),
    }
}

/// The fault of a key within an action's parentheses that is none of `keys`.
fn unknown_key(key: Word<'_>, what: &'static str, want: &'static str, keys: &[&'static str]) -> Fault {
    key.fault(ErrorKind::BadValue { what, want }).suggest(suggest::nearest(key.text, keys.iter().copied()))
}

/// Reads a decimal number of at most `max`: where OVS reads one with C's `atoi`, `0x10` would be 0 to it.
fn decimal(word: Word<'_>, what: &'static str, max: u32) -> Result<u32, Fault> {
    let digits = !word.text.is_empty() && word.text.bytes().all(|b| b.is_ascii_digit());
    if !digits {
        return Err(word.fault(ErrorKind::BadValue { what, want: "a decimal number" }));
    }
    let fits = word.text.parse::<u32>().ok().filter(|n| *n <= max);
    fits.ok_or_else(|| word.fault(ErrorKind::TooLarge { what, max: max.into() }))
}

/// Reads a decimal number of 16 bits.
fn decimal_u16(word: Word<'_>, what: &'static str) -> Result<u16, Fault> {
    decimal(word, what, u16::MAX.into()).map(|n| n as u16)
}

/// Reads a 32-bit number.
fn number_u32(word: Word<'_>, what: &'static str) -> Result<u32, Fault> {
    value::number_to(word, what, u32::MAX.into()).map(|n| n as u32)
}

/// Bytes in hexadecimal; dots and blanks may stand between them.
fn bytes(arg: Word<'_>, what: &'static str) -> Result<Box<[u8]>, Fault> {
    let bad = || arg.fault(ErrorKind::BadValue { what, want: "bytes in hexadecimal, such as 01.02.ff" });
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

/// The words between commas and blanks.
fn words(arg: Word<'_>) -> impl Iterator<Item = Word<'_>> {
    let is_gap = |c: char| c == ',' || c == ' ';
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = from + arg.text[from..].find(|c| !is_gap(c))?;
        let end = arg.text[start..].find(is_gap).map_or(arg.text.len(), |n| start + n);
        from = end;
        Some(arg.part(start, end))
    })
}
