//! Who asked for a rule. Every rule has an [`Owner`], and everything that names a rule names its owner.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

/// Who asked for a rule, in a short text that a person can act on.
///
/// The text is `KIND:REST`. Kinds in use: `user` (typed by an operator), `file:PATH:LINE` (a flow file or topology
/// file), `lab:NAME`, `builtin:STAGE`, `port:NAME`, `pod:NAMESPACE/NAME`, `container:ID`, `router:NAME[/..]`,
/// `svc:NAMESPACE/NAME`, `np:NAMESPACE/NAME#RULE`.
/// Cloning is cheap: rules of one owner share the text, and those made by one [`FileLines`] share all but the line.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Owner {
    /// Of `file:PATH:LINE` all but the line, so that equal texts are always stored alike.
    text: Arc<str>,
    /// The line, which ends the text.
    line: Option<NonZeroU32>,
}

impl Owner {
    /// Longest accepted text, in bytes.
    pub const MAX_LEN: usize = 255;

    /// An owner with this text; cut at [`Self::MAX_LEN`] bytes (on a character boundary), control characters replaced.
    pub fn new(text: &str) -> Self {
        if text.len() <= Self::MAX_LEN && !text.chars().any(char::is_control) {
            return Self::of_clean(text);
        }
        let clean = clean(text);
        Self::of_clean(cut(&clean, Self::MAX_LEN))
    }

    fn of_clean(text: &str) -> Self {
        match split_line(text) {
            Some((text, line)) => Self { text: text.into(), line: Some(line) },
            None => Self { text: text.into(), line: None },
        }
    }

    /// Rules typed by an operator without further say.
    pub fn user() -> Self {
        Self::new("user")
    }

    /// A rule from line `line` (counted from 1) of the file `path`. For many of them, see [`FileLines`].
    pub fn file_line(path: &str, line: usize) -> Self {
        FileLines::new(path).line(line)
    }

    /// The text.
    pub fn text(&self) -> Cow<'_, str> {
        if self.line.is_some() { Cow::Owned(self.to_string()) } else { Cow::Borrowed(&self.text) }
    }
}

/// Makes the owners of a file's rules.
#[derive(Clone, Debug)]
pub struct FileLines(Arc<str>);

impl FileLines {
    /// For the file at `path`, which is cut if the owners would be longer than [`Owner::MAX_LEN`] bytes.
    pub fn new(path: &str) -> Self {
        // The line has ten digits at most.
        const MAX_PATH_LEN: usize = Owner::MAX_LEN - "file::".len() - 10;
        let path = clean(path);
        Self(format!("file:{}:", cut(&path, MAX_PATH_LEN)).into())
    }

    /// The owner of what line `line` (counted from 1) says.
    pub fn line(&self, line: usize) -> Owner {
        match u32::try_from(line).ok().and_then(NonZeroU32::new) {
            Some(line) => Owner { text: self.0.clone(), line: Some(line) },
            None => Owner::new(&format!("{}{line}", self.0)),
        }
    }
}

/// The line that ends `file:PATH:LINE`, and the text before it.
fn split_line(text: &str) -> Option<(&str, NonZeroU32)> {
    let at = text.starts_with("file:").then(|| text.rfind(':'))?? + 1;
    let digits = text.get(at..)?;
    // As it is printed, so that the text comes out as it went in.
    let printed = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    let line = digits.parse().ok().filter(|_| printed && at > "file:".len())?;
    Some((&text[..at], line))
}

fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn cut(text: &str, len: usize) -> &str {
    &text[..text.floor_char_boundary(len.min(text.len()))]
}

impl From<String> for Owner {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

impl From<Owner> for String {
    fn from(owner: Owner) -> Self {
        owner.to_string()
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        self.line.map_or(Ok(()), |line| line.fmt(f))
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Owner").field(&self.text()).finish()
    }
}

impl Ord for Owner {
    /// The order of the texts.
    fn cmp(&self, other: &Self) -> Ordering {
        self.text().cmp(&other.text())
    }
}

impl PartialOrd for Owner {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_out_as_they_went_in_and_equal_ones_are_equal() {
        for text in
            ["user", "file:a:12", "file:a:012", "file:a:0", "file:a:", "file:7", "file::7", "file:a:+1", "np:a:1"]
        {
            assert_eq!(Owner::new(text).text(), text);
        }
        assert_eq!(Owner::new("file:a:4294967296").text(), "file:a:4294967296");
        assert_eq!(Owner::new("file:a:12"), Owner::file_line("a", 12));
        assert_eq!(Owner::new("file:a:b:12"), FileLines::new("a:b").line(12));
        assert_ne!(Owner::new("file:a:12"), Owner::file_line("a", 1));
        assert_eq!(Owner::file_line("a", 0), Owner::new("file:a:0"));
        assert_eq!(Owner::file_line("a\n", 3).text(), "file:a :3");
        assert!(Owner::new("file:a:2") > Owner::new("file:a:12"), "as texts");
    }

    #[test]
    fn a_long_path_is_cut_and_not_its_line() {
        let owner = Owner::file_line(&"é".repeat(300), 4_000_000_000);
        assert!(owner.text().len() <= Owner::MAX_LEN && owner.text().ends_with("é:4000000000"));
        assert_eq!(Owner::new(&owner.text()), owner);
    }
}
