//! Policies as flows are made from them: who is concerned, who may reach whom, in plain data, without Kubernetes' types and without
//! selectors.
//!
//! Selectors have become [`Group`]s: sets of Pods or nodes that are kept up to date, each computed once however many rules name it. A
//! node's share of a cluster is a [`State`]; what changes in it comes as [`Update`]s, from the cluster role's stream or from
//! the node's own look at the cluster, in the same words.
//!
//! # Verdict
//! A connection is judged by its first packet's addresses, after a Service has chosen the endpoint: going out of its source Pod by
//! the rules for egress of policies that have that Pod as a subject, and going in to its destination Pod by those for ingress. Each way:
//! 1. Rules of [`Tier::Admin`], by the policies' priority, then by the policies' names, then in order of the rules; the first that
//!    matches says [`Action::Accept`] or [`Action::Deny`], or [`Action::Pass`]: on to the next.
//! 2. [`Tier::Network`] (NetworkPolicy): if any of them selects the Pod for this way, a rule of any of them has to match; else it is
//!    denied by default.
//! 3. Rules of [`Tier::Baseline`], likewise by order; a [`Action::Pass`] ends the look.
//! 4. What nothing has decided is accepted.
//!
//! Always accepted: answers of accepted connections and the ICMP errors about them; what a Pod sends to itself; what the node sends to its
//! own Pods (the kubelet's probes). What a Pod sends to its own node is not touched by [`Tier::Network`].

use crate::facts::Protocol;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// What a policy is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PolicyName {
    /// Its kind.
    pub kind: PolicyKind,
    /// Its namespace; empty for kinds that have none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// As owners of flows have it: `np:NAMESPACE/NAME`, `cnp:NAME`, `anp:NAME`, `banp:NAME`.
impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.prefix();
        match self.namespace.as_str() {
            "" => write!(f, "{kind}{}", self.name),
            namespace => write!(f, "{kind}{namespace}/{}", self.name),
        }
    }
}

/// The kinds of policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PolicyKind {
    /// `networking.k8s.io/v1`.
    NetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha2`.
    ClusterNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1`.
    AdminNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1`.
    BaselineAdminNetworkPolicy,
}

impl PolicyKind {
    /// Every kind.
    pub const ALL: [Self; 4] =
        [Self::NetworkPolicy, Self::ClusterNetworkPolicy, Self::AdminNetworkPolicy, Self::BaselineAdminNetworkPolicy];

    /// What names of this kind begin with in owners of flows.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "np:",
            Self::ClusterNetworkPolicy => "cnp:",
            Self::AdminNetworkPolicy => "anp:",
            Self::BaselineAdminNetworkPolicy => "banp:",
        }
    }

    /// The kind that a name begins with, and what stands behind it.
    #[must_use]
    pub fn of_prefix(name: &str) -> Option<(Self, &str)> {
        Self::ALL.into_iter().find_map(|kind| Some((kind, name.strip_prefix(kind.prefix())?)))
    }
}

/// When a policy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Tier {
    /// Before all others.
    Admin,
    /// NetworkPolicies.
    Network,
    /// When nothing else has decided.
    Baseline,
}

impl Tier {
    /// As policies have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "Admin",
            Self::Network => "Network",
            Self::Baseline => "Baseline",
        }
    }
}

/// The way that a connection takes as seen from a Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Direction {
    /// To the Pod.
    Ingress,
    /// From the Pod.
    Egress,
}

impl Direction {
    /// As owners of flows and texts have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// Let it pass, and ask nobody else.
    Accept,
    /// Drop it, and ask nobody else.
    Deny,
    /// Skip the rest of the tier.
    Pass,
}

impl Action {
    /// As policies have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accept => "Accept",
            Self::Deny => "Deny",
            Self::Pass => "Pass",
        }
    }
}

/// A policy, as a node needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// What it is called.
    pub name: PolicyName,
    /// `metadata.generation`, which is reported when the policy is in force.
    pub generation: i64,
    /// When it is asked.
    pub tier: Tier,
    /// Its priority in its tier, 0 to 1000: lower ones are asked first. 0 in [`Tier::Network`].
    pub priority: u16,
    /// The Pods that it is about.
    pub subject: GroupKey,
    /// The ways for which its subject is denied what no rule allows; of NetworkPolicies alone.
    pub isolates: Vec<Direction>,
    /// Nothing is dropped by it: what it would drop is only recorded.
    pub is_audit: bool,
    /// What it decides is recorded for `sluice log`: accepted connections, and dropped ones.
    pub logs: bool,
    /// Its rules, of both directions, in order.
    pub rules: Vec<Rule>,
}

/// A rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its direction.
    pub direction: Direction,
    /// Its place among the policy's rules of this direction, from 0.
    pub index: u32,
    /// Its name, if it has one.
    pub name: String,
    /// What it says.
    pub action: Action,
    /// The other ends that it is about; none for everybody. An empty list is nobody.
    pub peers: Option<Vec<Peer>>,
    /// What it is about at the destination; none for every protocol and port. An empty list is nothing.
    pub ports: Option<Vec<Port>>,
}

/// Other ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Peer {
    /// Pods or nodes.
    Group(GroupKey),
    /// A network but for parts of it, which all lie in it. It may be of Pods' and nodes' addresses too.
    Net {
        /// The network.
        net: IpNet,
        /// What of it is left out.
        except: Vec<IpNet>,
    },
}

/// Ports of a destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Port {
    /// Every port of a protocol.
    All(Protocol),
    /// From a port to a port, both included.
    Range(Protocol, u16, u16),
    /// The ports of Pods' containers that have this name, of this protocol or of every one.
    Named(Option<Protocol>, String),
}

/// What a group is called: its selectors in a fixed form, so that equal ones are one group.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupKey(pub Arc<str>);

/// Pods or nodes that a selector selects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// By `NAMESPACE/NAME` of Pods, `NAME` of nodes.
    pub members: BTreeMap<Arc<str>, Arc<Member>>,
}

/// A Pod or node of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node that it is on.
    pub node: Arc<str>,
    /// Its addresses. None for a Pod that has none yet; of a subject on this node the switch knows them, whatever is here.
    pub addresses: Vec<IpAddr>,
    /// The ports of its containers that have names, in order, each once.
    pub ports: Vec<(String, Protocol, u16)>,
}

/// What changes for a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Update {
    /// A policy is as this says, or is gone.
    Policy(PolicyName, Option<Arc<Policy>>),
    /// A group has exactly these members. It comes before the first policy that names it.
    Group(GroupKey, Group),
    /// Some members of a group are as this says, or have gone.
    Members(GroupKey, BTreeMap<Arc<str>, Option<Arc<Member>>>),
    /// Nobody names a group any more. It comes after the last policy that named it.
    GroupGone(GroupKey),
}

/// All that a node has to know of policies. What is written or sent is the [`Update`]s since nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The policies that have a subject on the node.
    pub policies: BTreeMap<PolicyName, Arc<Policy>>,
    /// The groups that they name.
    pub groups: BTreeMap<GroupKey, Group>,
}

impl State {
    /// Puts a change in. Members of a group that is not there are passed over.
    pub fn apply(&mut self, update: &Update) {
        match update {
            Update::Policy(name, Some(policy)) => {
                self.policies.insert(name.clone(), Arc::clone(policy));
            }
            Update::Policy(name, None) => {
                self.policies.remove(name);
            }
            Update::Group(key, group) => {
                self.groups.insert(key.clone(), group.clone());
            }
            Update::Members(key, members) => {
                let Some(group) = self.groups.get_mut(key) else { return };
                for (name, member) in members {
                    match member {
                        Some(member) => group.members.insert(Arc::clone(name), Arc::clone(member)),
                        None => group.members.remove(name),
                    };
                }
            }
            Update::GroupGone(key) => {
                self.groups.remove(key);
            }
        }
    }

    /// What has to be told to somebody who has `before` to have this: groups before policies that name them, and policies before
    /// groups that go.
    #[must_use]
    pub fn since(&self, before: &Self) -> Vec<Update> {
        let mut updates = Vec::new();
        for (key, group) in &self.groups {
            match before.groups.get(key) {
                Some(old) if old == group => {}
                Some(old) => updates.push(Update::Members(key.clone(), changed(old, group))),
                None => updates.push(Update::Group(key.clone(), group.clone())),
            }
        }
        let put = self.policies.iter().filter(|(name, policy)| before.policies.get(*name) != Some(*policy));
        updates.extend(put.map(|(name, policy)| Update::Policy(name.clone(), Some(Arc::clone(policy)))));
        let gone = before.policies.keys().filter(|name| !self.policies.contains_key(*name));
        updates.extend(gone.map(|name| Update::Policy(name.clone(), None)));
        let gone = before.groups.keys().filter(|key| !self.groups.contains_key(*key));
        updates.extend(gone.map(|key| Update::GroupGone(key.clone())));
        updates
    }
}

/// The members that differ.
fn changed(old: &Group, new: &Group) -> BTreeMap<Arc<str>, Option<Arc<Member>>> {
    let put = new.members.iter().filter(|(name, member)| old.members.get(*name) != Some(*member));
    let put = put.map(|(name, member)| (Arc::clone(name), Some(Arc::clone(member))));
    let gone = old.members.keys().filter(|name| !new.members.contains_key(*name));
    put.chain(gone.map(|name| (Arc::clone(name), None))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> GroupKey {
        GroupKey(text.into())
    }

    fn group(members: &[(&str, u8)]) -> Group {
        let member = |last: u8| Member { addresses: vec![IpAddr::from([10, 0, 0, last])], ..Member::default() };
        Group { members: members.iter().map(|(name, last)| ((*name).into(), Arc::new(member(*last)))).collect() }
    }

    fn state(policies: &[(&str, &str, i64)], groups: &[(&str, Group)]) -> State {
        let policy = |name: &PolicyName, subject: &str, generation| Policy {
            name: name.clone(),
            generation,
            tier: Tier::Network,
            priority: 0,
            subject: key(subject),
            isolates: vec![Direction::Ingress],
            is_audit: false,
            logs: false,
            rules: Vec::new(),
        };
        let named = |(name, subject, generation): &(&str, &str, i64)| {
            let kind = PolicyKind::NetworkPolicy;
            let name = PolicyName { kind, namespace: "shop".to_owned(), name: (*name).to_owned() };
            (name.clone(), Arc::new(policy(&name, subject, *generation)))
        };
        State {
            policies: policies.iter().map(named).collect(),
            groups: groups.iter().map(|(name, group)| (key(name), group.clone())).collect(),
        }
    }

    #[test]
    fn what_is_told_since_a_state_makes_the_new_one_of_it() {
        let before = state(
            &[("a", "g1", 1), ("b", "g2", 1)],
            &[("g1", group(&[("x/a", 1), ("x/b", 2)])), ("g2", group(&[("x/a", 1)]))],
        );
        let after =
            state(&[("a", "g1", 2), ("c", "g3", 1)], &[("g1", group(&[("x/a", 7), ("x/c", 3)])), ("g3", group(&[]))]);
        for (from, to) in [(&State::default(), &before), (&before, &after), (&after, &before), (&after, &after)] {
            let mut state = from.clone();
            let updates = to.since(from);
            updates.iter().for_each(|update| state.apply(update));
            assert_eq!(&state, to);
            assert_eq!(updates.is_empty(), from == to);
        }
    }

    #[test]
    fn no_policy_is_told_before_its_group_or_after_it_is_gone() {
        let before = state(&[("a", "g1", 1)], &[("g1", group(&[]))]);
        let after = state(&[("a", "g2", 2)], &[("g2", group(&[]))]);
        let mut state = before.clone();
        for update in after.since(&before) {
            state.apply(&update);
            assert!(state.policies.values().all(|policy| state.groups.contains_key(&policy.subject)), "{update:?}");
        }
    }

    #[test]
    fn owners_are_names_that_people_know() {
        let name = |kind, namespace: &str| {
            PolicyName { kind, namespace: namespace.to_owned(), name: "db".to_owned() }.to_string()
        };
        assert_eq!(name(PolicyKind::NetworkPolicy, "shop"), "np:shop/db");
        assert_eq!(name(PolicyKind::ClusterNetworkPolicy, ""), "cnp:db");
    }
}
