//! Who asked for a rule. Every rule has an [`Owner`], and everything that names a rule names its owner.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Who asked for a rule, in a short text that a person can act on.
///
/// The text is `KIND:REST`. Kinds in use: `user` (typed by an operator), `file:PATH:LINE` (a flow file or topology
/// file), `lab:NAME`, `builtin:STAGE`, `port:NAME`, `svc:NAMESPACE/NAME`, `np:NAMESPACE/NAME#RULE`.
/// Cloning is cheap: rules of one owner share the text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Owner(Arc<str>);

impl Owner {
    /// Longest accepted text, in bytes.
    pub const MAX_LEN: usize = 255;

    /// An owner with this text; cut at [`Self::MAX_LEN`] bytes (on a character boundary), control characters replaced.
    pub fn new(text: &str) -> Self {
        if text.len() <= Self::MAX_LEN && !text.chars().any(char::is_control) {
            return Self(text.into());
        }
        let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let end = clean.floor_char_boundary(Self::MAX_LEN.min(clean.len()));
        Self(clean[..end].into())
    }

    /// Rules typed by an operator without further say.
    pub fn user() -> Self {
        Self::new("user")
    }

    /// A rule from line `line` (counted from 1) of the file `path`.
    pub fn file_line(path: &str, line: usize) -> Self {
        Self::new(&format!("file:{path}:{line}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Owner {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

impl From<Owner> for String {
    fn from(owner: Owner) -> Self {
        owner.as_str().to_owned()
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
