//! VERSION: which versions of the specification are spoken.

use crate::spec::Version;
use serde_json::{Value, json};

/// The answer. What the input says does not matter: callers of old send all sorts.
pub(super) fn run() -> Value {
    let supported = Version::ALL.map(Version::as_str);
    json!({"cniVersion": Version::NEWEST.as_str(), "supportedVersions": supported})
}

/// The version that the input says, or the newest, for answers to inputs that say none that we know.
pub(super) fn of_input(input: &[u8]) -> Version {
    let value: Value = serde_json::from_slice(input).unwrap_or_default();
    value.get("cniVersion").and_then(Value::as_str).and_then(|v| v.parse().ok()).unwrap_or(Version::NEWEST)
}
