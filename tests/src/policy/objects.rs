//! The Kubernetes objects that policy reads. Those that `k8s-openapi` does not know are written out here: the resources of
//! network-policy-api, field by field as their CRDs have them.
//!
//! Peers take unknown fields without a word, as the API server prunes them: such a peer then has nothing set, and fails
//! closed. Everything else refuses unknown fields, so that a misspelled test is no test that passes.

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// ClusterNetworkPolicy, `policy.networking.k8s.io/v1alpha2`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNetworkPolicy {
    /// Its name; it has no namespace.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: ClusterPolicySpec,
}

/// What a ClusterNetworkPolicy wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterPolicySpec {
    /// `Admin` or `Baseline`.
    pub tier: String,
    /// 0 to 1000; lower comes first.
    pub priority: i32,
    /// The Pods that it is about.
    pub subject: Subject,
    /// Rules for what comes in, the first that matches decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<ClusterRule>,
    /// Rules for what goes out, the first that matches decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<ClusterRule>,
}

/// AdminNetworkPolicy, `policy.networking.k8s.io/v1alpha1`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdminNetworkPolicy {
    /// Its name; it has no namespace.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: AdminPolicySpec,
}

/// BaselineAdminNetworkPolicy, `policy.networking.k8s.io/v1alpha1`: one object, named `default`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BaselineAdminNetworkPolicy {
    /// Its name; it has no namespace.
    pub metadata: ObjectMeta,
    /// What is wanted, without a priority.
    pub spec: AdminPolicySpec,
}

/// What an AdminNetworkPolicy or a BaselineAdminNetworkPolicy wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdminPolicySpec {
    /// 0 to 1000; lower comes first. Absent in a BaselineAdminNetworkPolicy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// The Pods that it is about.
    pub subject: Subject,
    /// Rules for what comes in, the first that matches decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<AdminRule>,
    /// Rules for what goes out, the first that matches decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<AdminRule>,
}

/// The Pods that a policy is about: one of the fields is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Subject {
    /// All Pods of the namespaces with these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// Some Pods of some namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamedSelector>,
}

/// Pods with these labels in namespaces with those (`NamespacedPod`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamedSelector {
    /// Empty: all namespaces.
    #[serde(default)]
    pub namespace_selector: LabelSelector,
    /// Empty: all Pods of them.
    pub pod_selector: LabelSelector,
}

/// A rule of a ClusterNetworkPolicy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterRule {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `Accept`, `Deny` or `Pass`.
    pub action: String,
    /// Sources of an ingress rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<ClusterPeer>,
    /// Destinations of an egress rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<ClusterPeer>,
    /// Protocols and ports; none: all traffic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<ClusterProtocol>,
}

/// A rule of an AdminNetworkPolicy or a BaselineAdminNetworkPolicy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdminRule {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `Allow`, `Deny` or `Pass`.
    pub action: String,
    /// Sources of an ingress rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<ClusterPeer>,
    /// Destinations of an egress rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<ClusterPeer>,
    /// Ports; none: all traffic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<AdminPort>,
}

/// Who is at the other end: one of the fields is set. Ingress knows the first two alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterPeer {
    /// All Pods of the namespaces with these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// Some Pods of some namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamedSelector>,
    /// Addresses of the nodes with these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<LabelSelector>,
    /// Addresses in these CIDRs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<String>,
    /// Names of DNS: not supported.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domain_names: Vec<String>,
}

/// Traffic that a rule of a ClusterNetworkPolicy is about: one of the fields is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterProtocol {
    /// TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<ProtocolMatch>,
    /// UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<ProtocolMatch>,
    /// SCTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sctp: Option<ProtocolMatch>,
    /// A container port's name, whatever its protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_named_port: Option<String>,
}

/// Ports of one protocol.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProtocolMatch {
    /// None: every port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<ClusterPort>,
}

/// A port or a range: one of the fields is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterPort {
    /// One port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<i32>,
    /// First to last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<PortRange>,
}

/// A port of v1alpha1: one of the fields is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdminPort {
    /// One port of one protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_number: Option<NumberedPort>,
    /// A container port's name, whatever its protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named_port: Option<String>,
    /// A range of ports of one protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_range: Option<PortRange>,
}

/// One port of one protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NumberedPort {
    /// `TCP`, `UDP` or `SCTP`; none: TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The port.
    pub port: i32,
}

/// Ports from the first to the last, both included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortRange {
    /// v1alpha1 alone: `TCP`, `UDP` or `SCTP`; none: TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The first.
    pub start: i32,
    /// The last.
    pub end: i32,
}

const GROUP: &str = "policy.networking.k8s.io";

/// One object of a cluster, of a kind that policy reads.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there are few, and boxes would be in everyone's way")]
pub enum Object {
    /// v1
    Namespace(Namespace),
    /// v1
    Pod(Pod),
    /// v1
    Node(Node),
    /// networking.k8s.io/v1
    NetworkPolicy(NetworkPolicy),
    /// policy.networking.k8s.io/v1alpha2
    ClusterNetworkPolicy(ClusterNetworkPolicy),
    /// policy.networking.k8s.io/v1alpha1
    AdminNetworkPolicy(AdminNetworkPolicy),
    /// policy.networking.k8s.io/v1alpha1
    BaselineAdminNetworkPolicy(BaselineAdminNetworkPolicy),
}

impl Object {
    /// Reads one object.
    ///
    /// # Errors
    ///
    /// Another kind or version, or fields that it does not have.
    pub fn read(value: Value) -> Result<Self, String> {
        let word = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (version, kind) = (word("apiVersion"), word("kind"));
        let read = match (version.as_str(), kind.as_str()) {
            ("v1", "Namespace") => serde_json::from_value(value).map(Self::Namespace),
            ("v1", "Pod") => serde_json::from_value(value).map(Self::Pod),
            ("v1", "Node") => serde_json::from_value(value).map(Self::Node),
            ("networking.k8s.io/v1", "NetworkPolicy") => serde_json::from_value(value).map(Self::NetworkPolicy),
            ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy") => {
                serde_json::from_value(value).map(Self::ClusterNetworkPolicy)
            }
            ("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy") => {
                serde_json::from_value(value).map(Self::AdminNetworkPolicy)
            }
            ("policy.networking.k8s.io/v1alpha1", "BaselineAdminNetworkPolicy") => {
                serde_json::from_value(value).map(Self::BaselineAdminNetworkPolicy)
            }
            _ => return Err(format!("{version} {kind}: no kind that policy reads")),
        };
        read.map_err(|error| format!("{version} {kind}: {error}"))
    }

    /// The object as the API server takes it.
    pub fn write(&self) -> Value {
        let (version, value) = match self {
            Self::Namespace(of) => (String::new(), serde_json::to_value(of)),
            Self::Pod(of) => (String::new(), serde_json::to_value(of)),
            Self::Node(of) => (String::new(), serde_json::to_value(of)),
            Self::NetworkPolicy(of) => (String::new(), serde_json::to_value(of)),
            Self::ClusterNetworkPolicy(of) => (format!("{GROUP}/v1alpha2"), serde_json::to_value(of)),
            Self::AdminNetworkPolicy(of) => (format!("{GROUP}/v1alpha1"), serde_json::to_value(of)),
            Self::BaselineAdminNetworkPolicy(of) => (format!("{GROUP}/v1alpha1"), serde_json::to_value(of)),
        };
        let mut value = value.expect("objects are values");
        // k8s-openapi writes its own kinds' names.
        if !version.is_empty() {
            value["apiVersion"] = version.into();
            value["kind"] = self.kind().into();
        }
        value
    }

    /// Its kind, as in `kind:`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Namespace(_) => "Namespace",
            Self::Pod(_) => "Pod",
            Self::Node(_) => "Node",
            Self::NetworkPolicy(_) => "NetworkPolicy",
            Self::ClusterNetworkPolicy(_) => "ClusterNetworkPolicy",
            Self::AdminNetworkPolicy(_) => "AdminNetworkPolicy",
            Self::BaselineAdminNetworkPolicy(_) => "BaselineAdminNetworkPolicy",
        }
    }

    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Namespace(of) => &of.metadata,
            Self::Pod(of) => &of.metadata,
            Self::Node(of) => &of.metadata,
            Self::NetworkPolicy(of) => &of.metadata,
            Self::ClusterNetworkPolicy(of) => &of.metadata,
            Self::AdminNetworkPolicy(of) => &of.metadata,
            Self::BaselineAdminNetworkPolicy(of) => &of.metadata,
        }
    }

    /// Its metadata, to be changed.
    pub fn metadata_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Namespace(of) => &mut of.metadata,
            Self::Pod(of) => &mut of.metadata,
            Self::Node(of) => &mut of.metadata,
            Self::NetworkPolicy(of) => &mut of.metadata,
            Self::ClusterNetworkPolicy(of) => &mut of.metadata,
            Self::AdminNetworkPolicy(of) => &mut of.metadata,
            Self::BaselineAdminNetworkPolicy(of) => &mut of.metadata,
        }
    }

    /// Kind, namespace (empty for objects of the whole cluster) and name: what there is one of.
    pub fn key(&self) -> (&'static str, String, String) {
        let metadata = self.metadata();
        let namespace = metadata.namespace.clone().unwrap_or_default();
        (self.kind(), namespace, metadata.name.clone().unwrap_or_default())
    }

    /// Whether it is a policy of one of the four kinds.
    pub fn is_policy(&self) -> bool {
        !matches!(self, Self::Namespace(_) | Self::Pod(_) | Self::Node(_))
    }
}
