//! What is wrong with a configuration file, and where.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Something in it is wrong. Prints as `FILE:LINE:COLUMN: WHAT`, then what to do on lines of its own.
    #[error("{0}")]
    Invalid(Complaint),
}

/// One fault of a file, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The file.
    pub path: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub what: String,
    /// What is allowed, or what to do next.
    pub advice: Option<String>,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.path.display(), self.line, self.column, self.what)?;
        if let Some(advice) = &self.advice {
            write!(f, "\n  {advice}")?;
        }
        Ok(())
    }
}

/// A file's text with its name: turns byte ranges into lines and columns.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) path: &'a Path,
    pub(crate) text: &'a str,
}

impl Source<'_> {
    /// Line and column, both from 1, of a byte offset; of the end for an offset behind it.
    pub(crate) fn place(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..self.text.floor_char_boundary(offset)];
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |i| i + 1);
        (line, before[start..].chars().count() + 1)
    }

    /// A fault at the start of `span`.
    pub(crate) fn complain(&self, span: &Range<usize>, what: impl Into<String>) -> Complaint {
        let (line, column) = self.place(span.start);
        Complaint { path: self.path.to_owned(), line, column, what: what.into(), advice: None }
    }

    /// The fault that the TOML reader found.
    pub(crate) fn complain_toml(&self, error: &toml::de::Error) -> Complaint {
        let span = error.span().unwrap_or(0..0);
        let (first, rest) = error.message().split_once('\n').unwrap_or((error.message(), ""));
        let complaint = self.complain(&span, first);
        if !rest.trim().is_empty() {
            return complaint.advice(rest.trim().replace('\n', "\n  "));
        }
        match unknown_name(first) {
            Some((word, known)) => {
                let what = format!("unknown key `{word}`{}", did_you_mean(word, known.iter().copied()));
                Complaint { what, ..complaint }.advice(format!("allowed here: {}", known.join(", ")))
            }
            None => complaint,
        }
    }
}

impl Complaint {
    /// Adds what is allowed, or what to do.
    pub(crate) fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

impl From<Complaint> for ConfigError {
    fn from(complaint: Complaint) -> Self {
        Self::Invalid(complaint)
    }
}

/// The word and the known names in serde's "unknown field `x`, expected one of `a`, `b`", whose wording is the only
/// place where serde gives them.
fn unknown_name(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (word, rest) = rest.split_once('`')?;
    Some((word, rest.split('`').skip(1).step_by(2).collect()))
}

/// `; did you mean ...?` if one of `known` is close to `word`.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let near = known.into_iter().map(|k| (strsim::damerau_levenshtein(word, k), k)).min_by_key(|(d, _)| *d);
    match near {
        Some((distance, name)) if distance <= 1 + word.chars().count() / 3 => format!("; did you mean `{name}`?"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let source = Source { path: Path::new("x"), text: "ab\nç d\n" };
        assert_eq!(source.place(0), (1, 1));
        assert_eq!(source.place(3), (2, 1));
        // Inside the two bytes of the ç, and behind it.
        assert_eq!(source.place(4), (2, 1));
        assert_eq!(source.place(5), (2, 2));
        assert_eq!(source.place(999), (3, 1));
    }

    #[test]
    fn only_near_names_are_offered() {
        assert_eq!(did_you_mean("sokcet", ["socket", "workers"]), "; did you mean `socket`?");
        assert_eq!(did_you_mean("banana", ["socket", "workers"]), "");
    }
}
