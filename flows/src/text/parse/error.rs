//! What can be wrong with flow text, and how it is said.

use crate::consistency::ConsistencyError;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A word in a match or flow that names nothing.
    #[error("unknown field or keyword")]
    UnknownKeyword,
    /// A word in an action list that names neither an action nor a port.
    #[error("unknown action")]
    UnknownAction,
    /// A word where a field has to stand, that names none.
    #[error("unknown field")]
    UnknownField,
    /// Part of OVS's language that this release does not have.
    #[error("not supported yet")]
    Unsupported,
    /// A word with a meaning, but not here.
    #[error("not allowed here: {0}")]
    NotAllowed(&'static str),
    /// A key without its value.
    #[error("value missing: want {0}")]
    MissingValue(&'static str),
    /// A value where none can be.
    #[error("takes no value")]
    UnexpectedValue,
    /// A value of the wrong form.
    #[error("bad value for {what}: want {want}")]
    BadValue {
        /// What the value is for.
        what: &'static str,
        /// What is allowed.
        want: &'static str,
    },
    /// A number that is too large.
    #[error("too large for {what}: the most is {max}")]
    TooLarge {
        /// What the number is for.
        what: &'static str,
        /// The largest number allowed.
        max: u128,
    },
    /// A mask on a field that is matched whole or not at all.
    #[error("{0} takes no mask")]
    BadMask(&'static str),
    /// A port that is neither a number nor a name that is known.
    #[error("unknown port: want a number, a reserved name or the name of a port")]
    UnknownPort,
    /// A port number that packets cannot be sent to.
    #[error("no port to send to: want 0 to 65279 or IN_PORT, TABLE, NORMAL, FLOOD, ALL, CONTROLLER, LOCAL")]
    BadOutputPort,
    /// A table that is neither a number nor a name that is known.
    #[error("unknown table: want 0 to 254 or the name of a table")]
    UnknownTable,
    /// Something wrong between a subfield's brackets.
    #[error("bad bits: want [], [BIT] or [FIRST..LAST], and {field} has bits 0 to {last}")]
    BadBits {
        /// The field.
        field: &'static str,
        /// Its last bit.
        last: u8,
    },
    /// `move` between subfields of different widths.
    #[error("source has {src} bits but destination has {dst}")]
    WidthMismatch {
        /// Bits of the source.
        src: u8,
        /// Bits of the destination.
        dst: u8,
    },
    /// A field that actions cannot change.
    #[error("{0} is read-only")]
    ReadOnly(&'static str),
    /// `->` is missing.
    #[error("`->` and a field missing")]
    MissingArrow,
    /// A subfield that is too narrow for the numbers that go into it.
    #[error("has {bits} bits, too few for numbers up to {most}")]
    TooNarrow {
        /// Its bits.
        bits: u8,
        /// The largest number.
        most: u32,
    },
    /// Lists of actions within lists of actions, too many of them.
    #[error("too deep: at most {0} lists of actions can stand within each other")]
    TooDeep(u8),
    /// `drop` beside other actions.
    #[error("drop cannot stand beside other actions")]
    DropNotAlone,
    /// A field of a packet that has not the protocol for it.
    #[error("{field} is there only in packets that are `{needs}`: say that too")]
    MissingProtocol {
        /// The field.
        field: &'static str,
        /// What the packet has to be.
        needs: &'static str,
    },
    /// Actions that do not fit the match or the table.
    #[error(transparent)]
    Inconsistent(#[from] ConsistencyError),
    /// A key that has to be there.
    #[error("missing: {0}")]
    MissingKey(&'static str),
    /// A bucket that says no actions.
    #[error("the bucket has no actions: say some, or actions=drop")]
    MissingBucketActions,
    /// A flow without `actions=`.
    #[error("no `actions=`: every flow needs it (actions=drop drops)")]
    MissingActions,
}

/// Why a text could not be read: the place, what is wrong there, and what would have done.
///
/// `{}` is one line; `{:#}` adds the text with a mark under the place.
#[derive(Clone, PartialEq, Eq)]
pub struct ParseError(Box<Inner>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    text: Box<str>,
    range: Range<usize>,
    kind: ErrorKind,
    suggestion: Option<Box<str>>,
    place: Option<(Arc<str>, usize)>,
}

impl ParseError {
    /// What is wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// The text that was read: one line.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The word that is wrong; empty where something is missing.
    pub fn word(&self) -> &str {
        self.0.text.get(self.0.range.clone()).unwrap_or_default()
    }

    /// The word's first column and the column behind it, in characters counted from 1.
    pub fn columns(&self) -> Range<usize> {
        let column = |byte: usize| self.0.text.get(..byte).unwrap_or(&self.0.text).chars().count() + 1;
        column(self.0.range.start)..column(self.0.range.end)
    }

    /// The nearest word that would have done.
    pub fn suggestion(&self) -> Option<&str> {
        self.0.suggestion.as_deref()
    }

    /// The file and the line in it, counted from 1, if the text came from a file.
    pub fn place(&self) -> Option<(&str, usize)> {
        self.0.place.as_ref().map(|(path, line)| (&**path, *line))
    }

    /// The error as one of line `line` of the file `path`.
    pub(crate) fn at(mut self, path: &Arc<str>, line: usize) -> Self {
        self.0.place = Some((path.clone(), line));
        self
    }
}

/// Longest word and text that messages show, in characters.
const SHOWN: usize = 60;

/// `word` between back quotes, cut when it is long.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.0.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let more = if self.0.chars().nth(SHOWN).is_some() { "..." } else { "" };
        write!(f, "`{shown}{more}`")
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.columns();
        match self.place() {
            Some((path, line)) => write!(f, "{path}:{line}:{}: ", columns.start)?,
            None => write!(f, "column {}: ", columns.start)?,
        }
        if !self.word().is_empty() {
            write!(f, "{}: ", Quoted(self.word()))?;
        }
        write!(f, "{}", self.0.kind)?;
        if let Some(word) = self.suggestion() {
            write!(f, "; did you mean `{word}`?")?;
        }
        if f.alternate() {
            write_marked(f, &self.0.text, &columns)?;
        }
        Ok(())
    }
}

/// The text and a mark under its `columns`, each on a line of its own; a long text is cut around the mark.
fn write_marked(f: &mut fmt::Formatter<'_>, text: &str, columns: &Range<usize>) -> fmt::Result {
    const BEFORE: usize = 40;
    let skip = (columns.start - 1).saturating_sub(BEFORE);
    let line: String = text.chars().skip(skip).take(2 * SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let width = (columns.end - columns.start).clamp(1, 2 * SHOWN - BEFORE);
    write!(f, "\n  {line}\n  {}{}", " ".repeat(columns.start - 1 - skip), "^".repeat(width))
}

impl fmt::Debug for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for ParseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        None
    }
}

/// Something in the text that was read otherwise than it looks, as OVS does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The word's first column and the column behind it, in characters counted from 1.
    pub columns: Range<usize>,
    /// What was done, in one sentence.
    pub message: Box<str>,
    /// The file and the line in it, counted from 1, if the text came from a file.
    pub place: Option<(Arc<str>, usize)>,
}

impl Warning {
    /// The warning as one of line `line` of the file `path`.
    pub(crate) fn at(mut self, path: &Arc<str>, line: usize) -> Self {
        self.place = Some((path.clone(), line));
        self
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some((path, line)) => write!(f, "{path}:{line}:{}: {}", self.columns.start, self.message),
            None => write!(f, "column {}: {}", self.columns.start, self.message),
        }
    }
}

/// What was read, and what is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed<T> {
    /// What was read.
    pub value: T,
    /// What was read otherwise than it looks.
    pub warnings: Vec<Warning>,
}

impl<T> Deref for Parsed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// A [`ParseError`] that does not know its text yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault(Box<(Range<usize>, ErrorKind, Option<Box<str>>)>);

impl Fault {
    /// A fault at `range`.
    pub(crate) fn new(range: Range<usize>, kind: ErrorKind) -> Self {
        Self(Box::new((range, kind, None)))
    }

    /// What is wrong, for those who want to say it better.
    pub(crate) fn kind(&self) -> &ErrorKind {
        &self.0.1
    }

    /// The fault with the nearest word that would have done, if there is one.
    pub(crate) fn suggest(mut self, word: Option<impl Into<Box<str>>>) -> Self {
        self.0.2 = word.map(Into::into);
        self
    }

    /// The error that it is in `text`.
    pub(crate) fn in_text(self, text: &str) -> ParseError {
        let (range, kind, suggestion) = *self.0;
        ParseError(Box::new(Inner { text: text.into(), range, kind, suggestion, place: None }))
    }
}

/// A [`Warning`] that does not know its text yet.
#[derive(Clone, Debug)]
pub(crate) struct Notice {
    /// Bytes of the text it is about.
    pub(crate) range: Range<usize>,
    /// What was done.
    pub(crate) message: Box<str>,
}

impl Notice {
    /// The warnings that they are in `text`.
    pub(crate) fn all_in_text(notices: Vec<Self>, text: &str) -> Vec<Warning> {
        // Where characters begin: looked up, not counted, for there may be as many warnings as words.
        let starts: Vec<usize> =
            if notices.is_empty() { Vec::new() } else { text.char_indices().map(|(i, _)| i).collect() };
        let column = |byte: usize| starts.partition_point(|start| *start < byte) + 1;
        let warning = |n: Self| {
            let columns = column(n.range.start)..column(n.range.end);
            Warning { columns, message: n.message, place: None }
        };
        notices.into_iter().map(warning).collect()
    }
}
