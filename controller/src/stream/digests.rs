//! What a node has, as digests: what it says of itself, and what it lacks by that.

use super::words::{self, Digest, WordError};
use crate::facts::policy::{GroupKey, PolicyName, State, Update};
use sluice_proto::v1::{GroupDigest, PolicyDigest, PolicyHello};
use std::collections::BTreeMap;

/// What a node has.
#[derive(Debug, Default)]
pub(crate) struct Digests {
    policies: BTreeMap<PolicyName, Digest>,
    groups: BTreeMap<GroupKey, Digest>,
}

/// What is said of a state.
pub(crate) fn hello(state: &State) -> PolicyHello {
    let policies = state.policies.iter().map(|(name, policy)| PolicyDigest {
        name: Some(words::write_name(name)),
        digest: words::policy_digest(policy).to_vec(),
    });
    let groups = state
        .groups
        .iter()
        .map(|(key, group)| GroupDigest { key: key.0.to_string(), digest: words::group_digest(key, group).to_vec() });
    PolicyHello { policies: policies.collect(), groups: groups.collect() }
}

/// One that is none is like no other: what it is of is sent again.
fn digest(bytes: &[u8]) -> Digest {
    Digest::try_from(bytes).unwrap_or_default()
}

impl Digests {
    pub(crate) fn read(hello: PolicyHello) -> Result<Self, WordError> {
        let mut all = Self::default();
        for policy in hello.policies {
            let name = words::read_name(policy.name.ok_or(WordError::Missing("name"))?)?;
            all.policies.insert(name, digest(&policy.digest));
        }
        all.groups = hello.groups.into_iter().map(|of| (GroupKey(of.key.into()), digest(&of.digest))).collect();
        Ok(all)
    }

    /// What has to be told to a node that has these to know all of `whole`, in an order in which it can be put in.
    pub(crate) fn lack(mut self, whole: Vec<Update>) -> Vec<Update> {
        let mut updates: Vec<Update> = whole
            .into_iter()
            .filter(|update| match update {
                Update::Policy(name, Some(policy)) => {
                    self.policies.remove(name).is_none_or(|has| has != words::policy_digest(policy))
                }
                Update::Group(key, group) => {
                    self.groups.remove(key).is_none_or(|has| has != words::group_digest(key, group))
                }
                _ => true,
            })
            .collect();
        updates.extend(self.policies.into_keys().map(|name| Update::Policy(name, None)));
        updates.extend(self.groups.into_keys().map(Update::GroupGone));
        updates
    }
}
