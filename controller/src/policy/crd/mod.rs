//! The resources of the Network Policy API (`policy.networking.k8s.io`), field by field as their CRDs have them.
//!
//! Values are read as loosely as the CRDs' types allow: a tier, an action or a number that is none of those we know is no reason for
//! a whole list not to be read. What is wrong with it is said where policies are read. Fields that we do not know are passed over:
//! a peer with such a field alone has nothing set, and the specification says what that means.

mod v1alpha1;
mod v1alpha2;

pub use v1alpha1::{
    AdminNetworkPolicy, AdminNetworkPolicySpec, AdminPort, AdminRule, BaselineAdminNetworkPolicy,
    BaselineAdminNetworkPolicySpec, NumberedPort, ProtocolRange,
};
pub use v1alpha2::{
    ClusterNetworkPolicy, ClusterNetworkPolicySpec, ClusterRule, PortMatch, PortRange, ProtocolMatch, Protocols,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use serde::{Deserialize, Serialize};

/// The group of all of them.
pub const GROUP: &str = "policy.networking.k8s.io";

/// The Pods that a policy is about. One field is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// All Pods of these namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// Some Pods of some namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
}

/// Some Pods of some namespaces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespacedPod {
    /// Of which namespaces; of all if it is empty.
    #[serde(default)]
    pub namespace_selector: LabelSelector,
    /// Which Pods of them; all if it is empty.
    #[serde(default)]
    pub pod_selector: LabelSelector,
}

/// Other ends. One field is set; rules for ingress know the first two alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// All Pods of these namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// Some Pods of some namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
    /// The addresses of these nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<LabelSelector>,
    /// Networks (CIDR).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<String>,
    /// Names of DNS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domain_names: Vec<String>,
}

/// What has become of a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// By type.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// Makes a resource of the whole cluster known to clients.
macro_rules! resource {
    ($of:ident, $version:literal, $plural:literal) => {
        impl k8s_openapi::Resource for $of {
            const API_VERSION: &'static str = concat!("policy.networking.k8s.io/", $version);
            const GROUP: &'static str = $crate::policy::crd::GROUP;
            const KIND: &'static str = stringify!($of);
            const VERSION: &'static str = $version;
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = k8s_openapi::ClusterResourceScope;
        }

        impl k8s_openapi::Metadata for $of {
            type Ty = ObjectMeta;

            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}
use resource;
