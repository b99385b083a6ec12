//! What policies are about, as the API server lists it: Pods, namespaces, nodes, Services with their endpoints, and the policies.
//!
//! Policies are of four kinds, of which a cluster may lack those whose CRDs are not installed; then there are none.

use super::error::failed;
use super::{Cluster, runtime};
use crate::failure::Failure;
use crate::output::Exit;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sluice_controller::facts::policy::{PolicyKind, PolicyName};
use sluice_controller::policy::{LOG, crd};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::IpAddr;

/// Objects that are asked for at once.
const PAGE: u32 = 500;
/// How often a list is begun anew whose rest the API server has forgotten.
const TRIES: usize = 3;

/// Objects of a cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    pub(crate) pods: Vec<Pod>,
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) services: Vec<Service>,
    pub(crate) slices: Vec<EndpointSlice>,
    pub(crate) network: Vec<NetworkPolicy>,
    pub(crate) cluster: Vec<crd::ClusterNetworkPolicy>,
    pub(crate) admin: Vec<crd::AdminNetworkPolicy>,
    pub(crate) baseline: Vec<crd::BaselineAdminNetworkPolicy>,
}

impl Cluster {
    /// All of it.
    ///
    /// # Errors
    /// [`Exit::NoPrivilege`] naming the right that is missing; the API server does not answer.
    pub(crate) fn objects(&self) -> Result<Objects, Failure> {
        runtime()?.block_on(async {
            let client = self.kube()?;
            let all = Objects {
                pods: self.list(&client, "pods").await?,
                namespaces: self.list(&client, "namespaces").await?,
                nodes: self.list(&client, "nodes").await?,
                services: self.list(&client, "services").await?,
                slices: self.list(&client, "endpointslices.discovery.k8s.io").await?,
                ..Objects::default()
            };
            self.policies(&client, all).await
        })
    }

    /// The same objects with all policies.
    async fn policies(&self, client: &kube::Client, others: Objects) -> Result<Objects, Failure> {
        Ok(Objects {
            network: self.list(client, "networkpolicies.networking.k8s.io").await?,
            cluster: self.list(client, "clusternetworkpolicies.policy.networking.k8s.io").await?,
            admin: self.list(client, "adminnetworkpolicies.policy.networking.k8s.io").await?,
            baseline: self.list(client, "baselineadminnetworkpolicies.policy.networking.k8s.io").await?,
            ..others
        })
    }

    /// Who has an address: `NAMESPACE/NAME` of Pods, `node/NAME` of nodes; and the policies that are to be logged, as owners of flows
    /// have them.
    ///
    /// # Errors
    /// As [`Self::objects`].
    pub(crate) fn names(&self) -> Result<(BTreeMap<IpAddr, String>, BTreeSet<String>), Failure> {
        let Objects { pods, nodes, network, cluster, admin, baseline, .. } = runtime()?.block_on(async {
            let client = self.kube()?;
            self.policies(
                &client,
                Objects {
                    pods: self.list(&client, "pods").await?,
                    nodes: self.list(&client, "nodes").await?,
                    ..Objects::default()
                },
            )
            .await
        })?;
        let mut names = BTreeMap::new();
        for node in nodes {
            let listed = node.status.and_then(|status| status.addresses).unwrap_or_default();
            let name = format!("node/{}", node.metadata.name.unwrap_or_default());
            names.extend(listed.iter().filter_map(|of| Some((of.address.parse().ok()?, name.clone()))));
        }
        let has_own = |pod: &Pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            let is_host = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
            !is_host && !matches!(phase, Some("Succeeded" | "Failed"))
        };
        for pod in pods.into_iter().filter(has_own) {
            let ips = pod.status.and_then(|status| status.pod_ips).unwrap_or_default();
            let namespace = pod.metadata.namespace.unwrap_or_default();
            let name = format!("{namespace}/{}", pod.metadata.name.unwrap_or_default());
            names.extend(ips.iter().filter_map(|of| Some((of.ip.parse().ok()?, name.clone()))));
        }
        let named = |kind, metadata: &ObjectMeta| {
            let is_logged = metadata.annotations.as_ref().and_then(|all| all.get(LOG)).is_some_and(|is| is == "true");
            let namespace = metadata.namespace.clone().unwrap_or_default();
            let name = PolicyName { kind, namespace, name: metadata.name.clone().unwrap_or_default() };
            is_logged.then(|| name.to_string())
        };
        let network = network.iter().filter_map(|of| named(PolicyKind::NetworkPolicy, &of.metadata));
        let cluster = cluster.iter().filter_map(|of| named(PolicyKind::ClusterNetworkPolicy, &of.metadata));
        let admin = admin.iter().filter_map(|of| named(PolicyKind::AdminNetworkPolicy, &of.metadata));
        let baseline = baseline.iter().filter_map(|of| named(PolicyKind::BaselineAdminNetworkPolicy, &of.metadata));
        Ok((names, network.chain(cluster).chain(admin).chain(baseline).collect()))
    }

    /// Every object of a kind; none of a kind that the cluster does not have.
    async fn list<K>(&self, client: &kube::Client, resource: &str) -> Result<Vec<K>, Failure>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let api = Api::<K>::all(client.clone());
        let mut tries = 0;
        'anew: loop {
            let mut all = Vec::new();
            let mut params = ListParams::default().limit(PAGE);
            loop {
                match api.list(&params).await {
                    Ok(list) => {
                        all.extend(list.items);
                        match list.metadata.continue_.filter(|token| !token.is_empty()) {
                            Some(token) => params = params.continue_token(&token),
                            None => return Ok(all),
                        }
                    }
                    Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Vec::new()),
                    // It took so long that what the rest was of is no more.
                    Err(kube::Error::Api(status)) if status.code == 410 && tries < TRIES => {
                        tries += 1;
                        continue 'anew;
                    }
                    Err(kube::Error::Api(status)) if status.code == 403 => {
                        return Err(Failure::new(format!("not allowed to list {resource} of the whole cluster"))
                            .why(status.message)
                            .next(format!(
                                "ask for a ClusterRole with: list {resource}; or give what `kubectl get ... -o yaml` \
                                 prints to --from"
                            ))
                            .exit(Exit::NoPrivilege));
                    }
                    Err(error) => {
                        return Err(failed(
                            &self.server(),
                            &format!("list {resource}"),
                            &format!("list {resource}"),
                            error,
                        ));
                    }
                }
            }
        }
    }

    /// Sets an annotation of a policy, or takes it away.
    ///
    /// # Errors
    /// There is no such policy; [`Exit::NoPrivilege`] without the right to patch it.
    pub(crate) fn annotate(&self, policy: &PolicyName, key: &str, value: Option<&str>) -> Result<(), Failure> {
        let patch = json!({ "metadata": { "annotations": { key: value } } });
        let resource = match policy.kind {
            PolicyKind::NetworkPolicy => "networkpolicies",
            PolicyKind::ClusterNetworkPolicy => "clusternetworkpolicies",
            PolicyKind::AdminNetworkPolicy => "adminnetworkpolicies",
            PolicyKind::BaselineAdminNetworkPolicy => "baselineadminnetworkpolicies",
        };
        let patched = runtime()?.block_on(async {
            let client = self.kube()?;
            let name = &policy.name;
            Ok::<_, Failure>(match policy.kind {
                PolicyKind::NetworkPolicy => {
                    patch_in(&Api::<NetworkPolicy>::namespaced(client, &policy.namespace), name, &patch).await
                }
                PolicyKind::ClusterNetworkPolicy => {
                    patch_in(&Api::<crd::ClusterNetworkPolicy>::all(client), name, &patch).await
                }
                PolicyKind::AdminNetworkPolicy => {
                    patch_in(&Api::<crd::AdminNetworkPolicy>::all(client), name, &patch).await
                }
                PolicyKind::BaselineAdminNetworkPolicy => {
                    patch_in(&Api::<crd::BaselineAdminNetworkPolicy>::all(client), name, &patch).await
                }
            })
        })?;
        patched.map_err(|error| match error {
            kube::Error::Api(status) if status.code == 403 => Failure::new(format!("not allowed to annotate {policy}"))
                .why(status.message)
                .next(format!("ask for a role with: patch {resource}"))
                .exit(Exit::NoPrivilege),
            error => failed(&self.server(), &format!("annotate {policy}"), &format!("patch {resource}"), error),
        })
    }
}

async fn patch_in<K>(api: &Api<K>, name: &str, patch: &Value) -> Result<(), kube::Error>
where
    K: Clone + Debug + DeserializeOwned,
{
    api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ())
}
