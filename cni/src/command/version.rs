//! VERSION: which versions of the specification are spoken; and which of them has which command.

use crate::error::{Code, Failure};
use crate::spec::{Command, Version};
use serde_json::{Value, json};

/// The answer. What the input says does not matter: callers of old send all sorts.
pub(super) fn run() -> Value {
    json!({"cniVersion": Version::NEWEST.as_str(), "supportedVersions": Version::ALL.map(Version::as_str)})
}

/// The version that the input says, or the newest, for answers to inputs that say none that we know.
pub(super) fn of_input(input: &[u8]) -> Version {
    let value: Value = serde_json::from_slice(input).unwrap_or_default();
    value.get("cniVersion").and_then(Value::as_str).and_then(|v| v.parse().ok()).unwrap_or(Version::NEWEST)
}

/// Checks that the configuration's version has the command.
///
/// # Errors
/// [`Code::IncompatibleVersion`] if it has not. What else is wrong with the input is found later.
pub(super) fn allows(command: Command, input: &[u8]) -> Result<(), Failure> {
    let since = match command {
        Command::Add | Command::Del | Command::Version => Version::V0_1_0,
        Command::Check => Version::V0_4_0,
        Command::Gc | Command::Status => Version::V1_1_0,
    };
    let value: Value = serde_json::from_slice(input).unwrap_or_default();
    let said = value.get("cniVersion").and_then(Value::as_str).unwrap_or_default().parse::<Version>();
    match said {
        Ok(version) if version < since && value.is_object() => {
            let msg = format!("config version {version} does not allow {}", command.as_str());
            Err(Failure::new(Code::IncompatibleVersion, msg).details(format!("it came with version {since}")))
        }
        _ => Ok(()),
    }
}
