//! Why a verb failed: what happened, where, why, and what to type next.

use crate::output::Exit;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;

/// An error as the person at the terminal reads it, with the exit code it leads to.
///
/// ```text
/// error: a lab named hello is already running
///   why: its supervisor is process 4711
///   next: sluice lab down hello
/// ```
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Failure {
    exit: Exit,
    what: String,
    why: Option<String>,
    next: Option<String>,
    #[serde(skip)]
    closed_pipe: bool,
}

impl Failure {
    /// Something failed.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { exit: Exit::No, what: what.into(), why: None, next: None, closed_pipe: false }
    }

    /// What was asked for makes no sense.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(what).exit(Exit::Usage)
    }

    /// The cause.
    pub(crate) fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// The command to type, or the thing to change, next.
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Sets the exit code.
    pub(crate) fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The exit code.
    pub(crate) fn exit_code(&self) -> Exit {
        self.exit
    }

    /// What happened.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// The cause, if it is known.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.why.as_deref()
    }

    /// What to do next; nothing if there is no advice.
    pub(crate) fn next_step(&self) -> &str {
        self.next.as_deref().unwrap_or_default()
    }

    /// Whether nobody reads our output any more, which is no error.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        self.closed_pipe
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let closed_pipe = error.kind() == io::ErrorKind::BrokenPipe;
        Self { closed_pipe, ..Self::new(format!("cannot write the answer: {error}")) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        if let Some(why) = &self.why {
            write!(f, "\n  why: {why}")?;
        }
        if let Some(next) = &self.next {
            write!(f, "\n  next: {next}")?;
        }
        Ok(())
    }
}
