//! The file as TOML gives it: every key there is, each value with its place. Nothing is checked here but types.

use crate::router::NamedRouter;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use toml::Spanned;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawConfig {
    pub(super) socket: Option<PathBuf>,
    pub(super) state: Option<PathBuf>,
    pub(super) workers: Option<Spanned<i64>>,
    pub(super) spin_us: Option<Spanned<i64>>,
    pub(super) mac_age: Option<Spanned<i64>>,
    pub(super) tlv_map: Option<Spanned<String>>,
    pub(super) pin: Option<Spanned<Vec<Spanned<i64>>>>,
    pub(super) log: RawLog,
    pub(super) conntrack: RawConntrack,
    pub(super) bridges: BTreeMap<Spanned<String>, RawBridge>,
    pub(super) router: Vec<Spanned<NamedRouter>>,
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
    pub(super) mcast_snooping: Option<bool>,
    pub(super) flows: Option<Vec<Spanned<String>>>,
    pub(super) flow_files: Option<Vec<Spanned<PathBuf>>>,
    pub(super) groups: Option<Vec<Spanned<String>>>,
    pub(super) group_files: Option<Vec<Spanned<PathBuf>>>,
    pub(super) meters: Option<Vec<Spanned<String>>>,
    pub(super) tables: BTreeMap<Spanned<String>, RawTable>,
    pub(super) ports: BTreeMap<Spanned<String>, RawPort>,
    pub(super) mirrors: BTreeMap<Spanned<String>, RawMirror>,
    pub(super) gateway: Option<Spanned<RawGateway>>,
}

/// Copies of what passes ports.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawMirror {
    pub(super) select_all: bool,
    pub(super) select_src_port: Vec<Spanned<String>>,
    pub(super) select_dst_port: Vec<Spanned<String>>,
    pub(super) select_vlan: Vec<Spanned<i64>>,
    pub(super) output_port: Option<Spanned<String>>,
    pub(super) output_vlan: Option<Spanned<i64>>,
    pub(super) snaplen: Option<Spanned<i64>>,
}

/// The host behind a port of the bridge.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawGateway {
    pub(super) port: Option<Spanned<String>>,
    pub(super) addresses: Vec<Spanned<String>>,
    pub(super) mac: Option<Spanned<String>>,
    pub(super) mtu: Option<Spanned<i64>>,
    pub(super) forward: Option<bool>,
    pub(super) routes: Vec<RawRoute>,
    pub(super) rules: Vec<RawRule>,
    pub(super) neighbours: Vec<RawNeighbour>,
    pub(super) masquerade: Option<Spanned<RawMasquerade>>,
}

/// A route of the host's.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRoute {
    pub(super) to: Spanned<String>,
    pub(super) via: Option<Spanned<String>>,
    pub(super) src: Option<Spanned<String>>,
    pub(super) metric: Option<Spanned<i64>>,
    pub(super) table: Option<Spanned<i64>>,
}

/// A rule of the host's.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRule {
    pub(super) priority: Spanned<i64>,
    pub(super) from: Option<Spanned<String>>,
    pub(super) to: Option<Spanned<String>>,
    pub(super) table: Spanned<i64>,
}

/// A neighbour of the host's.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNeighbour {
    pub(super) address: Spanned<String>,
    pub(super) mac: Spanned<String>,
}

/// What the outside does not see.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawMasquerade {
    pub(super) inside: Option<Vec<Spanned<String>>>,
    pub(super) addresses: Vec<Spanned<String>>,
    pub(super) except: Vec<Spanned<String>>,
    pub(super) ports: Option<Spanned<String>>,
    pub(super) zone: Option<Spanned<i64>>,
    pub(super) first_table: Option<Spanned<i64>>,
    pub(super) host_rule: Option<bool>,
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
    pub(super) protected: Option<bool>,
    #[serde(default)]
    pub(super) options: BTreeMap<Spanned<String>, Spanned<RawOption>>,
}

/// A port option's value, in whichever type is natural for it.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a string, a whole number, true/false, a list of strings or a table of these")]
pub(super) enum RawOption {
    Text(String),
    Number(i64),
    Flag(bool),
    List(Vec<String>),
    /// Options whose names begin alike: `peer.a.endpoint` is `endpoint` in the table `a` in the table `peer`.
    Table(BTreeMap<String, RawOption>),
}

impl RawOption {
    /// As the names and texts that the API's options are.
    pub(super) fn flatten(&self, name: &str, into: &mut BTreeMap<String, String>) {
        let text = match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::List(list) => list.join(","),
            // TOML bounds how deep tables lie in each other.
            Self::Table(table) => {
                return table.iter().for_each(|(below, value)| value.flatten(&format!("{name}.{below}"), into));
            }
        };
        into.insert(name.to_owned(), text);
    }
}
