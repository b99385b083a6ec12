//! Policies: flows for what a node is told of them, changed as that changes.
//!
//! # Flows of a rule
//! A rule is a conjunctive match (ovs-fields(7)) of up to three clauses: 1 its subject, by the Pod's port; 2 the other end, by address;
//! 3 protocol and port. What a rule does not ask for is no clause; with its subject alone it is one plain flow for each Pod. What it
//! says stands in the flow of its number (`conj_id`), the number that a connection keeps of it, too.
//!
//! Rules that ask for the same at the same priority share that flow, so each flow is an [`Object`] of its own. A member of a group is one
//! flow for each of its addresses, however many rules name the group, and its change touches no other.
//!
//! Ports with names split a rule: what a name says on a Pod (its subject for ingress, the other end for egress) is a conjunction for
//! each protocol and number, beside the one of the ports that need no name.
//!
//! # Rules
//! - NetworkPolicies have one priority in their tier's table, as none of their rules denies; below them, a flow for each Pod that any of
//!   them isolates drops. In the other tiers each rule has its own priority ([`order`]).
//! - Flows and numbers depend on what is told alone, not on its history (but for numbers whose hashes meet, see [`Ids`]).
//! - A policy under audit drops nothing: what it would drop goes on to the next tier, and counts under its name.
//! - A Pod of this node has the addresses that the node knows, where a group does not know any yet.
//!
//! # Limits
//! 64,999 rules for a direction in each of the tiers beside NetworkPolicies' are in order; those behind them share one priority. About 38,000
//! rules may share a flow: it has to fit into the switch's longest.

mod index;
mod install;
mod matches;
mod order;
mod stages;

#[cfg(test)]
mod tests;

pub(super) use stages::stages;

use super::ids::Ids;
use super::text::Family;
use crate::facts::Node;
use crate::facts::policy::{Direction, GroupKey, Member, Policy, PolicyName, State, Tier, Update};
use crate::flow::{Object, Part};
use foldhash::fast::RandomState;
use index::{Index, Tag};
use install::{Installed, Subject};
use order::Priorities;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// The priority of what is decided before any policy is asked.
pub(super) const FIRST: u16 = 65_000;
/// Rules of NetworkPolicies about their subject alone: no conjunctions.
const PLAIN: u16 = 210;
/// Other rules of NetworkPolicies.
const CLAUSE: u16 = 200;
/// Isolated Pods.
const ISOLATED: u16 = 100;

/// A Pod of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPod {
    /// Its port on the bridge.
    pub port: u32,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// A rule, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleName {
    /// Its policy.
    pub policy: PolicyName,
    /// Its direction.
    pub direction: Direction,
    /// Its place among the rules of its direction, from 0.
    pub index: u32,
}

/// The policies of a node, and their flows.
#[derive(Debug)]
pub struct Policies {
    installed: BTreeMap<PolicyName, Installed>,
    users: HashMap<GroupKey, Users, RandomState>,
    shared: Shared,
}

/// Who names a group.
#[derive(Debug, Default)]
struct Users {
    as_subject: BTreeSet<PolicyName>,
    as_peer: BTreeSet<PolicyName>,
}

/// What all policies have in common.
#[derive(Debug)]
struct Shared {
    /// The families that Pods have.
    families: Vec<Family>,
    state: State,
    pods: BTreeMap<Arc<str>, LocalPod>,
    /// Of rules in the tiers where each has its own.
    priorities: Priorities,
    ids: Ids,
    /// The rules of the numbers.
    rules: HashMap<u32, Arc<Tag>, RandomState>,
    index: Index,
}

impl Policies {
    /// No policies, on this node.
    #[must_use]
    pub fn new(node: &Node) -> Self {
        let shared = Shared {
            families: Family::all(node).collect(),
            state: State::default(),
            pods: BTreeMap::new(),
            priorities: Priorities::default(),
            ids: Ids::new(),
            rules: HashMap::default(),
            index: Index::default(),
        };
        Self { installed: BTreeMap::new(), users: HashMap::default(), shared }
    }

    /// What it has been told.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.shared.state
    }

    /// The rule of a number that a connection has, while it is in force.
    #[must_use]
    pub fn rule(&self, number: u32) -> Option<RuleName> {
        let tag = self.shared.rules.get(&number)?;
        Some(RuleName { policy: tag.policy.clone(), direction: tag.direction, index: tag.index })
    }

    /// The flows that [`Self::take`] has given and that are not gone, in no order.
    pub fn objects(&self) -> impl Iterator<Item = Object> {
        self.shared.index.told()
    }

    /// Number of flows.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.shared.index.len()
    }

    /// Flows that have changed since the last call, and those that are gone (none). They belong into one step for packets, with all else
    /// that goes with the change, a Pod's own part for one.
    #[must_use]
    pub fn take(&mut self) -> Vec<(Object, Option<Part>)> {
        self.shared.index.take()
    }

    /// Takes in what has changed.
    pub fn update(&mut self, updates: &[Update]) {
        let is_reordered = self.order(updates);
        for update in updates {
            match update {
                Update::Policy(name, Some(policy)) => self.put_policy(name, policy),
                Update::Policy(name, None) => self.remove_policy(name),
                Update::Group(key, group) => {
                    let state = &mut self.shared.state;
                    let had = state.groups.entry(key.clone()).or_default();
                    let gone = had.members.keys().filter(|name| !group.members.contains_key(*name));
                    let gone: Vec<(Arc<str>, Option<Arc<Member>>)> =
                        gone.map(|name| (Arc::clone(name), None)).collect();
                    let put = group.members.iter().map(|(name, member)| (Arc::clone(name), Some(Arc::clone(member))));
                    self.members(key, gone.into_iter().chain(put));
                }
                Update::Members(key, members) if self.shared.state.groups.contains_key(key) => {
                    self.members(key, members.iter().map(|(name, member)| (Arc::clone(name), member.clone())));
                }
                Update::Members(..) => {}
                Update::GroupGone(key) => {
                    let had = self.shared.state.groups.get(key);
                    let gone: Vec<_> = had.iter().flat_map(|group| group.members.keys().cloned()).collect();
                    self.members(key, gone.into_iter().map(|name| (name, None)));
                    self.shared.state.groups.remove(key);
                }
            }
        }
        if is_reordered {
            let Self { installed, shared, .. } = self;
            let ordered = installed.values_mut().filter(|one| one.policy.tier != Tier::Network);
            ordered.for_each(|one| one.reorder(shared));
        }
    }

    /// A Pod of this node is there, or is another one than before; by `NAMESPACE/NAME`.
    pub fn put_pod(&mut self, name: &Arc<str>, pod: LocalPod) {
        if self.shared.pods.get(name) != Some(&pod) {
            self.set_pod(name, Some(pod));
        }
    }

    /// A Pod of this node is gone.
    pub fn remove_pod(&mut self, name: &str) {
        if let Some((name, _)) = self.shared.pods.get_key_value(name) {
            let name = Arc::clone(name);
            self.set_pod(&name, None);
        }
    }

    /// Finds the priorities that rules will have once all this is in; whether any may have changed.
    fn order(&mut self, updates: &[Update]) -> bool {
        let named = |update: &Update| match update {
            Update::Policy(name, policy) => {
                let is_ordered = |policy: &Arc<Policy>| policy.tier != Tier::Network;
                let before = self.shared.state.policies.get(name);
                before.is_some_and(is_ordered) || policy.as_ref().is_some_and(is_ordered)
            }
            _ => false,
        };
        if !updates.iter().any(named) {
            return false;
        }
        let mut policies: BTreeMap<&PolicyName, &Policy> =
            self.shared.state.policies.iter().map(|(name, policy)| (name, &**policy)).collect();
        for update in updates {
            match update {
                Update::Policy(name, Some(policy)) => drop(policies.insert(name, policy)),
                Update::Policy(name, None) => drop(policies.remove(name)),
                _ => {}
            }
        }
        self.shared.priorities = order::priorities(policies.into_values());
        true
    }

    fn put_policy(&mut self, name: &PolicyName, policy: &Arc<Policy>) {
        if self.installed.get(name).is_some_and(|one| one.policy == *policy) {
            return;
        }
        let old = self.installed.remove(name);
        if let Some(old) = &old {
            self.forget_uses(name, &old.policy);
        }
        let users = &mut self.users;
        users.entry(policy.subject.clone()).or_default().as_subject.insert(name.clone());
        for key in install::groups(policy) {
            users.entry(key.clone()).or_default().as_peer.insert(name.clone());
        }
        let new = Installed::new(name, policy, old, &mut self.shared);
        self.installed.insert(name.clone(), new);
        self.shared.state.policies.insert(name.clone(), Arc::clone(policy));
    }

    fn remove_policy(&mut self, name: &PolicyName) {
        self.shared.state.policies.remove(name);
        if let Some(old) = self.installed.remove(name) {
            self.forget_uses(name, &old.policy);
            old.remove(&mut self.shared);
        }
    }

    fn forget_uses(&mut self, name: &PolicyName, policy: &Policy) {
        for key in install::groups(policy).chain([&policy.subject]) {
            let Some(users) = self.users.get_mut(key) else { continue };
            users.as_subject.remove(name);
            users.as_peer.remove(name);
            if users.as_subject.is_empty() && users.as_peer.is_empty() {
                self.users.remove(key);
            }
        }
    }

    /// Some members of a group, which is there, are as this says.
    fn members(&mut self, key: &GroupKey, members: impl Iterator<Item = (Arc<str>, Option<Arc<Member>>)>) {
        for (name, new) in members {
            let Some(group) = self.shared.state.groups.get(key) else { return };
            let old = group.members.get(&name).cloned();
            if old != new {
                self.member(key, &name, old.as_deref(), new);
            }
        }
    }

    fn member(&mut self, key: &GroupKey, name: &Arc<str>, old: Option<&Member>, new: Option<Arc<Member>>) {
        let Self { installed, users, shared } = self;
        let users = users.get(key);
        let pod = shared.pods.get(name).cloned();
        let subject = |member: Option<&Member>| Some(Subject::new(pod.as_ref()?, member?));
        let (was, is) = (subject(old), subject(new.as_deref()));
        let subjects = users.iter().flat_map(|users| &users.as_subject).filter(|_| was != is);
        let peers = users.iter().flat_map(|users| &users.as_peer);
        // Whoever goes takes what is there with it, whoever comes finds what there will be.
        if let Some(was) = &was {
            for policy in subjects.clone() {
                installed.get_mut(policy).into_iter().for_each(|one| one.leave(name, was, shared));
            }
        }
        let (before, after) = (old, new.as_deref());
        for policy in peers {
            let Some(one) = installed.get_mut(policy) else { continue };
            one.peer(key, name, before, after, shared);
        }
        let Some(group) = shared.state.groups.get_mut(key) else { return };
        match new {
            Some(new) => group.members.insert(Arc::clone(name), new),
            None => group.members.remove(name),
        };
        if let Some(is) = &is {
            for policy in subjects {
                installed.get_mut(policy).into_iter().for_each(|one| one.join(name, is, shared));
            }
        }
    }

    fn set_pod(&mut self, name: &Arc<str>, pod: Option<LocalPod>) {
        let groups = self.shared.state.groups.iter();
        let of: Vec<(GroupKey, Arc<Member>)> = groups
            .filter_map(|(key, group)| Some((key.clone(), Arc::clone(group.members.get(name)?))))
            .filter(|(key, _)| self.users.contains_key(key))
            .collect();
        // Out of all groups with the old one, and in with the new.
        for (key, _) in &of {
            self.members(key, [(Arc::clone(name), None)].into_iter());
        }
        match pod {
            Some(pod) => self.shared.pods.insert(Arc::clone(name), pod),
            None => self.shared.pods.remove(name),
        };
        for (key, member) in of {
            self.members(&key, [(Arc::clone(name), Some(member))].into_iter());
        }
    }
}
