//! What went wrong, as CNI says it: a number that a runtime can act on, a sentence, and what to do next.
//!
//! Numbers below 100 are the specification's; those from 100 on are our own, and all of them are here.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What kind of failure it is. `docs/` explains each with what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Code {
    /// The configuration's version, or that of a previous result, is not one that we speak.
    IncompatibleVersion = 1,
    /// A key of the configuration has a value that we cannot do; the message names both.
    UnsupportedField = 2,
    /// The container is not known; there is nothing to clean up.
    UnknownContainer = 3,
    /// A variable of the environment is missing or wrong.
    BadEnvironment = 4,
    /// Reading or writing failed.
    Io = 5,
    /// What should be JSON is not, or not of the right form.
    Decode = 6,
    /// The configuration is wrong; the message names the key.
    InvalidConfig = 7,
    /// The container's network namespace is not there, or none.
    InvalidNetns = 8,
    /// For now it cannot be done: the switch is away, or another operation on the container takes long.
    TryAgainLater = 11,
    /// STATUS: no container can be attached now.
    NotAvailable = 50,
    /// STATUS: no container can be attached now, and those that are may be limited.
    NotAvailableLimited = 51,
    /// No address is left in a range.
    PoolExhausted = 100,
    /// The address asked for is taken, or in no range.
    AddressUnavailable = 101,
    /// The interface or the attachment is there already.
    NameTaken = 102,
    /// A port of the host belongs to another container.
    HostPortTaken = 103,
    /// CHECK: something is not as ADD left it.
    Differs = 104,
    /// The switch refused.
    SwitchRefused = 105,
    /// The kernel refused to make, change or remove an interface.
    Link = 106,
    /// The program that manages addresses failed without saying why, or is not there.
    Delegate = 107,
    /// The store of addresses cannot be read or written.
    Store = 108,
    /// GC: some of what was to be removed could not be.
    Incomplete = 109,
    /// The operation was ended by a signal, and was undone.
    Interrupted = 110,
    /// The plugin itself is at fault, and ended in the middle of the operation.
    Internal = 999,
}

/// A failure of an operation, as it is printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Failure {
    /// One of [`Code`], or what another plugin answered.
    pub code: u32,
    /// What is wrong, where and why, in a sentence.
    pub msg: String,
    /// What to do next, or more of why; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl Failure {
    /// A failure without details.
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        Self { code: code as u32, msg: msg.into(), details: String::new() }
    }

    /// With what to do next.
    #[must_use]
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// Whether it is of this kind.
    pub fn is(&self, code: Code) -> bool {
        self.code == code as u32
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.msg)?;
        if self.details.is_empty() { Ok(()) } else { write!(f, "; {}", self.details) }
    }
}
