//! What nodes are told.

use super::{Cluster, Group, Members, Object};
use crate::facts::policy::{Group as Facts, GroupKey, Member, Policy, PolicyName, State, Update};
use crate::policy::nodes::Dirt;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Cluster {
    /// What has changed for whom since it was asked last, each in an order in which it can be put in.
    pub fn take(&mut self) -> BTreeMap<Arc<str>, Vec<Update>> {
        let mut all = BTreeMap::new();
        for name in self.pending() {
            let updates = self.take_node(&name);
            if !updates.is_empty() {
                all.insert(name, updates);
            }
        }
        all
    }

    /// The nodes for which something may have changed. One that does not take it costs no more than what there is.
    pub fn pending(&mut self) -> Vec<Arc<str>> {
        self.populate();
        self.nodes.pending().filter_map(|id| self.nodes.get(id)).map(|node| Arc::clone(&node.name)).collect()
    }

    /// What has changed for a node since it was asked last.
    pub fn take_node(&mut self, name: &str) -> Vec<Update> {
        self.populate();
        let Some(id) = self.nodes.id(name) else { return Vec::new() };
        let (policies, groups) = self.nodes.take(id);
        let mut updates = Vec::new();
        let mut gone = Vec::new();
        for (key, dirt) in groups {
            let is_told = self.nodes.get(id).is_some_and(|node| node.told_groups.contains(&key));
            match (self.group_on(&key, id), dirt) {
                (Some(group), Dirt::Members(members)) if is_told => {
                    let members = members.into_iter().map(|name| (Arc::clone(&name), self.member(group, id, &name)));
                    updates.push(Update::Members(key, members.collect()));
                }
                (Some(group), _) => {
                    updates.push(Update::Group(key.clone(), self.facts(group, id)));
                    self.nodes.told_group(id, &key, true);
                }
                (None, _) if is_told => {
                    self.nodes.told_group(id, &key, false);
                    gone.push(Update::GroupGone(key));
                }
                (None, _) => {}
            }
        }
        let mut removed = Vec::new();
        for name in policies {
            let is_told = self.nodes.get(id).is_some_and(|node| node.told_policies.contains(&name));
            match self.policy_on(&name, id) {
                Some(policy) => {
                    updates.push(Update::Policy((*name).clone(), Some(Arc::clone(policy))));
                    self.nodes.told_policy(id, &name, true);
                }
                None if is_told => {
                    removed.push(Update::Policy((*name).clone(), None));
                    self.nodes.told_policy(id, &name, false);
                }
                None => {}
            }
        }
        updates.append(&mut removed);
        updates.append(&mut gone);
        self.nodes.tidy(id);
        updates
    }

    /// All that a node has to know, whatever it was told.
    pub fn state(&mut self, name: &str) -> State {
        self.populate();
        let mut state = State::default();
        let Some(id) = self.nodes.id(name) else { return state };
        let Some(node) = self.nodes.get(id) else { return state };
        for name in node.told_policies.iter().chain(&node.policies) {
            if let Some(policy) = self.policy_on(name, id) {
                state.policies.insert((**name).clone(), Arc::clone(policy));
            }
        }
        for key in node.told_groups.iter().chain(node.groups.keys()) {
            if let Some(group) = self.group_on(key, id) {
                state.groups.entry(key.clone()).or_insert_with(|| self.facts(group, id));
            }
        }
        state
    }

    /// A node knows nothing any more: what is taken next is all that it has to know.
    pub fn restart(&mut self, name: &str) {
        if let Some(id) = self.nodes.id(name) {
            self.nodes.restart(id);
        }
    }

    /// The nodes that a policy is of concern to, in no order.
    pub fn span(&mut self, name: &PolicyName) -> Vec<Arc<str>> {
        self.populate();
        let Some(concern) = self.policy_ids.get(name).and_then(|id| self.policies.get(*id)) else { return Vec::new() };
        let nodes = self.span_of_subject(concern.subject).into_iter();
        nodes.filter_map(|id| self.nodes.get(id)).map(|node| Arc::clone(&node.name)).collect()
    }

    /// A policy, if it is of concern to a node.
    fn policy_on(&self, name: &PolicyName, node: u32) -> Option<&Arc<Policy>> {
        let concern = self.policy_ids.get(name).and_then(|id| self.policies.get(*id))?;
        // Every policy that is of concern there has its subject in what the node has to know.
        let subject = self.groups.get(concern.subject)?;
        subject.span.contains_key(&node).then_some(&concern.policy)
    }

    /// A group, if it is of concern to a node.
    fn group_on(&self, key: &GroupKey, node: u32) -> Option<&Group> {
        self.keys.get(key).and_then(|id| self.groups.get(*id)).filter(|group| group.span.contains_key(&node))
    }

    /// A group as a node has to know it.
    fn facts(&self, group: &Group, node: u32) -> Facts {
        let with = |object: &Object| (Arc::clone(&object.name), member_of(group, object));
        let objects =
            |ids: &mut dyn Iterator<Item = u32>| ids.filter_map(|id| self.objects.get(id)).map(with).collect();
        let members = match &group.members {
            Members::All(members) => objects(&mut members.iter().copied()),
            Members::ByNode(nodes) => objects(&mut nodes.get(&node).into_iter().flatten().copied()),
        };
        Facts { members }
    }

    /// A member of a group as a node has to know it; none if it is none there.
    fn member(&self, group: &Group, node: u32, name: &str) -> Option<Arc<Member>> {
        let id = self.names.get(name)?;
        let object = self.objects.get(*id)?;
        let is_member = match &group.members {
            Members::All(members) => members.contains(id),
            Members::ByNode(nodes) => nodes.get(&node).is_some_and(|members| members.binary_search(id).is_ok()),
        };
        is_member.then(|| member_of(group, object))
    }
}

/// An object as a member: of a group of addresses, with those alone.
fn member_of(group: &Group, object: &Object) -> Arc<Member> {
    let Some(block) = &group.selector.block else { return Arc::clone(&object.member) };
    let Member { node, addresses, ports } = &*object.member;
    let addresses = addresses.iter().copied().filter(|address| block.contains(address)).collect();
    Arc::new(Member { node: Arc::clone(node), addresses, ports: ports.clone() })
}
