//! `policy.networking.k8s.io/v1alpha1`: what users still have of the version before.

use super::{Peer, Status, Subject, resource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

/// A policy of the whole cluster that is asked before all others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AdminNetworkPolicy {
    /// Its name; it has no namespace.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: AdminNetworkPolicySpec,
    /// What has become of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

resource!(AdminNetworkPolicy, "v1alpha1", "adminnetworkpolicies");

/// The policy of the whole cluster that is asked when nothing else has decided. Its name is `default`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BaselineAdminNetworkPolicy {
    /// Its name; it has no namespace.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: BaselineAdminNetworkPolicySpec,
    /// What has become of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

resource!(BaselineAdminNetworkPolicy, "v1alpha1", "baselineadminnetworkpolicies");

/// What an AdminNetworkPolicy wants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AdminNetworkPolicySpec {
    /// 0 to 1000; lower ones are asked first.
    #[serde(default)]
    pub priority: i64,
    /// The Pods that it is about.
    #[serde(default)]
    pub subject: Subject,
    /// Rules for what comes to them: the first that matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<AdminRule>,
    /// Rules for what they send: the first that matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<AdminRule>,
}

/// What a BaselineAdminNetworkPolicy wants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BaselineAdminNetworkPolicySpec {
    /// The Pods that it is about.
    #[serde(default)]
    pub subject: Subject,
    /// Rules for what comes to them: the first that matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<AdminRule>,
    /// Rules for what they send: the first that matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<AdminRule>,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AdminRule {
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `Allow`, `Deny` or, in an AdminNetworkPolicy, `Pass`.
    #[serde(default)]
    pub action: String,
    /// Sources, in a rule for ingress.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Peer>,
    /// Destinations, in a rule for egress.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<Peer>,
    /// Ports; all if it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<AdminPort>,
}

/// Ports. One field is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdminPort {
    /// One port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_number: Option<NumberedPort>,
    /// The name of a container's port, of whatever protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named_port: Option<String>,
    /// Several ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_range: Option<ProtocolRange>,
}

/// A port of a protocol.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NumberedPort {
    /// `TCP`, `UDP` or `SCTP`; TCP if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The port.
    #[serde(default)]
    pub port: i64,
}

/// From a port of a protocol to a port, both included.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProtocolRange {
    /// `TCP`, `UDP` or `SCTP`; TCP if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The first.
    #[serde(default)]
    pub start: i64,
    /// The last.
    #[serde(default)]
    pub end: i64,
}
