//! On how many nodes a policy of the whole cluster is in force, in its status.
//!
//! The condition `Programmed` is true when every node that the policy is of concern to has said that this generation is in its
//! switch. NetworkPolicies have no status.
//!
//! # Rules
//! - What is written already is not written again, and nothing is written more often than every [`GATHER_FOR`], so many nodes that say
//!   one after the other that it is in force are one write.
//! - Writes go one after the other, at most [`PER_SECOND`] a second, and a policy that changes is no obstacle: what is written has
//!   the generation that it is about.
//! - Only this condition is ours: other writers' conditions stay.

use crate::facts::policy::{PolicyKind, PolicyName};
use crate::policy::crd::{AdminNetworkPolicy, BaselineAdminNetworkPolicy, ClusterNetworkPolicy};
use crate::stream::Hub;
use crate::watch::link::{Link, chain};
use crate::watch::policies::Source;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client, Resource};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

/// The condition.
const PROGRAMMED: &str = "Programmed";
/// How long is gathered what has changed.
const GATHER_FOR: Duration = Duration::from_secs(1);
/// How often it is looked though nobody has said anything: spans change too.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Writes a second.
const PER_SECOND: u32 = 20;

/// What a policy's status is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    generation: i64,
    realised: usize,
    span: usize,
}

impl Said {
    fn is_done(&self) -> bool {
        self.realised == self.span
    }

    fn condition(&self, since: Timestamp) -> Condition {
        let (status, reason) = if self.is_done() { ("True", "AllNodes") } else { ("False", "SomeNodes") };
        let message = match self.span {
            0 => "it is about no Pod".to_owned(),
            span => format!("in force on {} of {span} nodes", self.realised),
        };
        Condition {
            type_: PROGRAMMED.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: Some(self.generation),
            last_transition_time: Time(since),
        }
    }
}

/// Writes without an end.
pub(super) async fn write(link: Link, source: Arc<Source>, hub: Arc<Hub>) {
    let mut written: BTreeMap<PolicyName, (Said, Timestamp)> = BTreeMap::new();
    let mut fault = false;
    loop {
        _ = timeout(LOOK_EVERY, hub.something_realised()).await;
        sleep(GATHER_FOR).await;
        let now = wanted(&source, &hub);
        written.retain(|name, _| now.contains_key(name));
        for (name, said) in now {
            let before = written.get(&name);
            if before.is_some_and(|(before, _)| *before == said) {
                continue;
            }
            let is_same = before.is_some_and(|(before, _)| before.is_done() == said.is_done());
            let since = before.filter(|_| is_same).map(|(_, since)| *since);
            let Some(client) = link.clone().client().await else { return };
            match put(client, &name, &said, since).await {
                Ok(since) => {
                    fault = false;
                    written.insert(name, (said, since));
                }
                Err(error) => {
                    if !std::mem::replace(&mut fault, true) {
                        warn!("cannot write the status of {name}, trying on: {}", chain(&error));
                    }
                    debug!("{name}: {error}");
                }
            }
            sleep(Duration::from_secs(1) / PER_SECOND).await;
        }
    }
}

/// What all statuses are to say.
fn wanted(source: &Source, hub: &Hub) -> BTreeMap<PolicyName, Said> {
    let mut cluster = source.cluster();
    let names: Vec<PolicyName> =
        cluster.policies().filter(|name| name.kind != PolicyKind::NetworkPolicy).cloned().collect();
    let spans = names.into_iter().filter_map(|name| {
        let generation = cluster.policy(&name)?.generation;
        let span = cluster.span(&name);
        Some((name, generation, span))
    });
    let spans: Vec<_> = spans.collect();
    drop(cluster);
    let said = |(name, generation, span): (PolicyName, i64, Vec<Arc<str>>)| {
        let realised = hub.realised(&name, generation, &span);
        (name, Said { generation, realised, span: span.len() })
    };
    spans.into_iter().map(said).collect()
}

fn resource(kind: PolicyKind) -> Option<ApiResource> {
    match kind {
        PolicyKind::NetworkPolicy => None,
        PolicyKind::ClusterNetworkPolicy => Some(of::<ClusterNetworkPolicy>()),
        PolicyKind::AdminNetworkPolicy => Some(of::<AdminNetworkPolicy>()),
        PolicyKind::BaselineAdminNetworkPolicy => Some(of::<BaselineAdminNetworkPolicy>()),
    }
}

fn of<K: Resource<DynamicType = ()>>() -> ApiResource {
    ApiResource::erase::<K>(&())
}

/// Writes it; since when it is so, which another leader may have written before, if it is not known here.
async fn put(
    client: Client,
    name: &PolicyName,
    said: &Said,
    since: Option<Timestamp>,
) -> Result<Timestamp, kube::Error> {
    let now = Timestamp::now();
    let Some(resource) = resource(name.kind) else { return Ok(now) };
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    let before = match since {
        Some(_) => None,
        None => api.get_opt(&name.name).await?.and_then(|object| condition_of(&object)),
    };
    let is_same = |before: &Condition| before.status == said.condition(now).status;
    let since = since.or(before.filter(is_same).map(|before| before.last_transition_time.0)).unwrap_or(now);
    let status = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": { "name": name.name },
        "status": { "conditions": [said.condition(since)] },
    });
    let params = PatchParams::apply("sluice-cluster").force();
    match api.patch_status(&name.name, &params, &Patch::Apply(&status)).await {
        Ok(_) => Ok(since),
        // It is gone, and what it was is told some other time.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(since),
        Err(error) => Err(error),
    }
}

/// Ours, as it is there.
fn condition_of(object: &DynamicObject) -> Option<Condition> {
    let conditions = object.data.pointer("/status/conditions")?.as_array()?;
    let ours = conditions.iter().find(|one| one["type"] == PROGRAMMED)?;
    serde_json::from_value(ours.clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_condition_says_on_how_many_nodes() {
        let condition = |realised, span| Said { generation: 3, realised, span }.condition(Timestamp::UNIX_EPOCH);
        let some = condition(1, 3);
        assert_eq!((some.status.as_str(), some.reason.as_str()), ("False", "SomeNodes"));
        assert_eq!((some.message.as_str(), some.observed_generation), ("in force on 1 of 3 nodes", Some(3)));
        assert_eq!(condition(3, 3).status, "True");
        assert_eq!((condition(0, 0).status.as_str(), condition(0, 0).message.as_str()), ("True", "it is about no Pod"));
    }

    #[test]
    fn every_kind_with_a_status_has_its_resource() {
        let plural = |kind| resource(kind).map(|resource| (resource.plural, resource.version));
        assert_eq!(plural(PolicyKind::NetworkPolicy), None);
        let wanted = |plural: &str, version: &str| Some((plural.to_owned(), version.to_owned()));
        assert_eq!(plural(PolicyKind::ClusterNetworkPolicy), wanted("clusternetworkpolicies", "v1alpha2"));
        assert_eq!(plural(PolicyKind::AdminNetworkPolicy), wanted("adminnetworkpolicies", "v1alpha1"));
        assert_eq!(plural(PolicyKind::BaselineAdminNetworkPolicy), wanted("baselineadminnetworkpolicies", "v1alpha1"));
    }
}
