//! What a lab is to be: the tests of its file.

use serde::{Deserialize, Serialize};
use sluice_switch::port::show_time;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// A test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Test {
    /// Its name: given, or made of what it does.
    pub(crate) name: String,
    /// The host that asks.
    pub(crate) from: String,
    /// Whom it asks.
    pub(crate) to: Target,
    /// What it sends.
    pub(crate) probe: Probe,
    /// What is to come of it.
    pub(crate) want: Want,
    /// The name or the owner of the rule that is to drop it.
    pub(crate) by: Option<String>,
    /// How long it is tried again until it passes.
    pub(crate) within: Option<Duration>,
    /// Line in the file.
    pub(crate) line: usize,
}

impl Test {
    /// The name of a test that has none of its own.
    pub(crate) fn default_name(from: &str, to: &Target, probe: &Probe) -> String {
        match probe {
            Probe::Ping { .. } => format!("ping-{from}-{to}"),
            Probe::Tcp { port } => format!("tcp-{from}-{to}-{port}"),
        }
    }

    /// Whom it asks, as files and answers write it: `h2`, `h2:22` or `[fd00::2]:22`.
    pub(crate) fn target(&self) -> String {
        match (&self.probe, &self.to) {
            (Probe::Ping { .. }, to) => to.to_string(),
            (Probe::Tcp { port }, Target::Address(IpAddr::V6(ip))) => format!("[{ip}]:{port}"),
            (Probe::Tcp { port }, to) => format!("{to}:{port}"),
        }
    }
}

/// Whom a test asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    /// A host, at the first address of its first interface: IPv4 if both have one.
    Host(String),
    /// An address, whoever has it.
    Address(IpAddr),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => f.write_str(name),
            Self::Address(ip) => ip.fmt(f),
        }
    }
}

/// What a test sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Probe {
    /// ICMP echo requests.
    Ping {
        /// What the middle one of their round trips is to be.
        rtt: Option<Range>,
        /// How many may be lost; all but one without.
        max_loss: Option<Loss>,
    },
    /// A TCP connection.
    Tcp {
        /// To this port.
        port: u16,
    },
}

/// A range of times, with its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Range {
    /// Least.
    pub(crate) least: Option<Duration>,
    /// Most.
    pub(crate) most: Option<Duration>,
}

impl Range {
    /// Whether a time is in it.
    pub(crate) fn contains(self, time: Duration) -> bool {
        self.least.is_none_or(|least| least <= time) && self.most.is_none_or(|most| time <= most)
    }

    /// Its ends in milliseconds, for a person: `74..90`.
    pub(crate) fn millis(self) -> String {
        let end = |end: Option<Duration>| end.map(|t| (t.as_nanos() as f64 / 1e6).to_string()).unwrap_or_default();
        format!("{}..{}", end(self.least), end(self.most))
    }
}

/// As files have it.
impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |end: Option<Duration>| end.map(show_time).unwrap_or_default();
        write!(f, "{}..{}", end(self.least), end(self.most))
    }
}

/// A share of probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Loss {
    /// In millionths.
    pub(crate) millionths: u32,
}

impl Loss {
    /// Whether `lost` of `sent` are more.
    pub(crate) fn is_exceeded(self, lost: u32, sent: u32) -> bool {
        u64::from(lost) * 1_000_000 > u64::from(self.millionths) * u64::from(sent)
    }
}

/// As files have it.
impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.millionths) / 1e4)
    }
}

/// What is to come of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Want {
    /// An answer.
    Ok,
    /// Nothing.
    Drop,
    /// A refusal by the other end: nobody listens there.
    Refused,
}

impl Want {
    /// Every one with its name.
    pub(crate) const NAMES: [(&'static str, Self); 3] =
        [("ok", Self::Ok), ("drop", Self::Drop), ("refused", Self::Refused)];

    /// The one with this name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, want)| *want)
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Drop => "drop",
            Self::Refused => "refused",
        }
    }
}
