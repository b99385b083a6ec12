//! What each node has been told, and what it has to be told.
//!
//! Of a change only that it happened is kept, not what it was: several changes of one thing are told as one, as it is when it
//! is told. So what a node that does not listen costs is bounded by what there is.

use super::slots::Slots;
use super::{Map, Set};
use crate::facts::policy::{GroupKey, PolicyName};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What of a group has to be told.
#[derive(Clone, Debug)]
pub(super) enum Dirt {
    /// All of it, or that it is gone.
    Whole,
    /// These members.
    Members(BTreeSet<Arc<str>>),
}

/// A node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) name: Arc<str>,
    /// How many Pods are on it.
    pods: usize,
    pub(super) told_policies: Set<Arc<PolicyName>>,
    pub(super) told_groups: Set<GroupKey>,
    pub(super) policies: Set<Arc<PolicyName>>,
    pub(super) groups: Map<GroupKey, Dirt>,
}

/// The nodes that have Pods, and those that have been told something.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes {
    nodes: Slots<Node>,
    names: Map<Arc<str>, u32>,
    /// Those that have something to be told.
    pending: BTreeSet<u32>,
}

impl Nodes {
    /// A Pod is on a node: its number and its name.
    pub(super) fn enter(&mut self, name: &str) -> (u32, Arc<str>) {
        let id = match self.names.get(name) {
            Some(id) => *id,
            None => {
                let name: Arc<str> = name.into();
                let id = self.nodes.insert(Node {
                    name: Arc::clone(&name),
                    pods: 0,
                    told_policies: Set::default(),
                    told_groups: Set::default(),
                    policies: Set::default(),
                    groups: Map::default(),
                });
                self.names.insert(name, id);
                id
            }
        };
        match self.nodes.get_mut(id) {
            Some(node) => {
                node.pods += 1;
                (id, Arc::clone(&node.name))
            }
            None => (id, name.into()),
        }
    }

    /// A Pod is there no more.
    pub(super) fn leave(&mut self, id: u32) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.pods = node.pods.saturating_sub(1);
        }
        self.tidy(id);
    }

    /// Forgets a node that has no Pods and knows nothing.
    pub(super) fn tidy(&mut self, id: u32) {
        let is_over = |node: &Node| node.pods == 0 && node.told_policies.is_empty() && node.told_groups.is_empty();
        if self.nodes.get(id).is_some_and(is_over)
            && let Some(node) = self.nodes.remove(id)
        {
            self.names.remove(&node.name);
            self.pending.remove(&id);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn id(&self, name: &str) -> Option<u32> {
        self.names.get(name).copied()
    }

    pub(super) fn get(&self, id: u32) -> Option<&Node> {
        self.nodes.get(id)
    }

    /// Those that have something to be told.
    pub(super) fn pending(&self) -> impl Iterator<Item = u32> {
        self.pending.iter().copied()
    }

    pub(super) fn policy(&mut self, id: u32, name: &Arc<PolicyName>) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.policies.insert(Arc::clone(name));
            self.pending.insert(id);
        }
    }

    pub(super) fn group(&mut self, id: u32, key: &GroupKey) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.groups.insert(key.clone(), Dirt::Whole);
            self.pending.insert(id);
        }
    }

    pub(super) fn member(&mut self, id: u32, key: &GroupKey, member: &Arc<str>) {
        if let Some(node) = self.nodes.get_mut(id) {
            match node.groups.get_mut(key) {
                Some(Dirt::Whole) => {}
                Some(Dirt::Members(members)) => {
                    members.insert(Arc::clone(member));
                }
                None => {
                    node.groups.insert(key.clone(), Dirt::Members(BTreeSet::from([Arc::clone(member)])));
                }
            }
            self.pending.insert(id);
        }
    }

    /// Takes what a node has to be told: policies, and groups in order.
    pub(super) fn take(&mut self, id: u32) -> (Vec<Arc<PolicyName>>, Vec<(GroupKey, Dirt)>) {
        self.pending.remove(&id);
        let Some(node) = self.nodes.get_mut(id) else { return (Vec::new(), Vec::new()) };
        let mut policies: Vec<_> = std::mem::take(&mut node.policies).into_iter().collect();
        let mut groups: Vec<_> = std::mem::take(&mut node.groups).into_iter().collect();
        policies.sort();
        groups.sort_by(|(a, _), (b, _)| a.cmp(b));
        (policies, groups)
    }

    /// A node has been told of a policy, or that it is gone.
    pub(super) fn told_policy(&mut self, id: u32, name: &Arc<PolicyName>, is_there: bool) {
        if let Some(node) = self.nodes.get_mut(id) {
            if is_there {
                node.told_policies.insert(Arc::clone(name))
            } else {
                node.told_policies.remove(name)
            };
        }
    }

    /// A node has been told of a group, or that it is gone.
    pub(super) fn told_group(&mut self, id: u32, key: &GroupKey, is_there: bool) {
        if let Some(node) = self.nodes.get_mut(id) {
            if is_there {
                node.told_groups.insert(key.clone())
            } else {
                node.told_groups.remove(key)
            };
        }
    }

    /// A node knows nothing: all that it was told is to be told again.
    pub(super) fn restart(&mut self, id: u32) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.policies.extend(node.told_policies.drain());
            node.groups.extend(node.told_groups.drain().map(|key| (key, Dirt::Whole)));
            if !node.policies.is_empty() || !node.groups.is_empty() {
                self.pending.insert(id);
            }
        }
        self.tidy(id);
    }
}
