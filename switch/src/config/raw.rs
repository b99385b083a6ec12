//! The file as TOML gives it: every key there is, each value with its place. Nothing is checked here but types.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use toml::Spanned;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawConfig {
    pub(super) socket: Option<PathBuf>,
    pub(super) workers: Option<Spanned<i64>>,
    pub(super) mac_age: Option<Spanned<i64>>,
    pub(super) pin: Option<Spanned<Vec<Spanned<i64>>>>,
    pub(super) log: RawLog,
    pub(super) conntrack: RawConntrack,
    pub(super) bridges: BTreeMap<Spanned<String>, RawBridge>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawLog {
    pub(super) level: Option<Spanned<String>>,
    pub(super) format: Option<Spanned<String>>,
}

/// Connection tracking.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawConntrack {
    pub(super) max_connections: Option<Spanned<i64>>,
    pub(super) default_zone_limit: Option<Spanned<i64>>,
    pub(super) tcp_liberal: Option<bool>,
    pub(super) timeouts: BTreeMap<Spanned<String>, Spanned<i64>>,
    pub(super) fragments: RawFragments,
    pub(super) zones: BTreeMap<Spanned<String>, RawZone>,
}

/// In what a zone differs.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawZone {
    pub(super) limit: Option<Spanned<i64>>,
    pub(super) tcp_liberal: Option<bool>,
    pub(super) timeouts: BTreeMap<Spanned<String>, Spanned<i64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawFragments {
    pub(super) v4: Option<bool>,
    pub(super) v6: Option<bool>,
    pub(super) max: Option<Spanned<i64>>,
    pub(super) min_v4: Option<Spanned<i64>>,
    pub(super) min_v6: Option<Spanned<i64>>,
    pub(super) timeout_ms: Option<Spanned<i64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawBridge {
    pub(super) local_port: Option<bool>,
    pub(super) flows: Option<Vec<Spanned<String>>>,
    pub(super) flow_files: Option<Vec<Spanned<PathBuf>>>,
    pub(super) groups: Option<Vec<Spanned<String>>>,
    pub(super) group_files: Option<Vec<Spanned<PathBuf>>>,
    pub(super) meters: Option<Vec<Spanned<String>>>,
    pub(super) tables: BTreeMap<Spanned<String>, RawTable>,
    pub(super) ports: BTreeMap<Spanned<String>, RawPort>,
}

/// What is said of a flow table beside its flows.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawTable {
    pub(super) name: Option<Spanned<String>>,
    pub(super) miss: Option<Spanned<String>>,
    pub(super) max_flows: Option<Spanned<i64>>,
    pub(super) evict: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPort {
    #[serde(default)]
    pub(super) r#type: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) number: Option<Spanned<i64>>,
    #[serde(default)]
    pub(super) access: Option<Spanned<i64>>,
    #[serde(default)]
    pub(super) trunk: Option<Spanned<Vec<Spanned<i64>>>>,
    #[serde(default)]
    pub(super) native: Option<Spanned<i64>>,
    #[serde(default)]
    pub(super) native_tagged: Option<Spanned<bool>>,
    #[serde(default)]
    pub(super) up: Option<bool>,
    #[serde(default)]
    pub(super) flood: Option<bool>,
    #[serde(default)]
    pub(super) options: BTreeMap<Spanned<String>, Spanned<RawOption>>,
}

/// A port option's value, in whichever type is natural for it.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a string, a whole number or true/false")]
pub(super) enum RawOption {
    Text(String),
    Number(i64),
    Flag(bool),
}

impl RawOption {
    /// As the text that the API's options are.
    pub(super) fn to_text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
        }
    }
}
