//! Who is a member of which group, and which nodes policies and groups are of concern to.

use super::{Cluster, Concern, Group, Members, Object};
use crate::facts::policy::GroupKey;
use crate::policy::index::Candidates;
use crate::policy::selector::{Scope, Selector};
use crate::policy::{Map, Set};

/// How many more objects than there are may be looked at for the sake of single new groups, before all are looked at once.
const FEW: usize = 1000;

impl Members {
    fn insert(&mut self, id: u32, on: Option<u32>) {
        match (self, on) {
            (Self::All(members), _) => {
                members.insert(id);
            }
            (Self::ByNode(nodes), Some(on)) => {
                let members = nodes.entry(on).or_default();
                if let Err(at) = members.binary_search(&id) {
                    members.insert(at, id);
                }
            }
            (Self::ByNode(_), None) => {}
        }
    }

    fn remove(&mut self, id: u32, on: Option<u32>) {
        match (self, on) {
            (Self::All(members), _) => {
                members.remove(&id);
            }
            (Self::ByNode(nodes), Some(on)) => {
                let Some(members) = nodes.get_mut(&on) else { return };
                members.retain(|member| *member != id);
                if members.is_empty() {
                    nodes.remove(&on);
                }
            }
            (Self::ByNode(_), None) => {}
        }
    }

    /// Whether some of them are on a node; of subjects.
    fn is_on(&self, node: u32) -> bool {
        matches!(self, Self::ByNode(nodes) if nodes.contains_key(&node))
    }

    /// All of them.
    fn ids(&self) -> Vec<u32> {
        match self {
            Self::All(members) => members.iter().copied().collect(),
            Self::ByNode(nodes) => nodes.values().flatten().copied().collect(),
        }
    }
}

impl Cluster {
    /// Whether an object is what a selector selects.
    fn is_member(&self, selector: &Selector, object: &Object) -> bool {
        let in_scope = match (&selector.scope, &object.namespace) {
            (Scope::Nodes, None) => true,
            (Scope::Namespace(name), Some(namespace)) => **name == **namespace,
            (Scope::Namespaces(requirements), Some(namespace)) => {
                let labels = self.namespaces.get(namespace).and_then(|place| place.labels.as_ref());
                labels.is_some_and(|labels| requirements.matches(labels))
            }
            _ => false,
        };
        in_scope && selector.matches(&object.labels, &object.member.addresses)
    }

    /// Looks again which groups an object is a member of. `is_changed` if what they know of it is another.
    pub(super) fn refresh(&mut self, id: u32, is_changed: bool) {
        let Some(object) = self.objects.get(id) else { return };
        let mut has = match &object.namespace {
            Some(namespace) => {
                let labels = self.namespaces.get(namespace).and_then(|place| place.labels.as_ref());
                self.index.for_pod(namespace, labels, &object.labels)
            }
            None => self.index.for_node(&object.labels),
        };
        has.retain(|group| self.groups.get(*group).is_some_and(|group| self.is_member(&group.selector, object)));
        has.shrink_to_fit();
        let Some(object) = self.objects.get_mut(id) else { return };
        let had = std::mem::replace(&mut object.groups, has.clone());
        for group in &had {
            if has.binary_search(group).is_err() {
                self.leave(*group, id);
            }
        }
        for group in has {
            if had.binary_search(&group).is_err() {
                self.join(group, id);
            } else if is_changed {
                self.touch(group, id);
            }
        }
    }

    /// An object is a member of a group now.
    fn join(&mut self, group_id: u32, id: u32) {
        let (Some(group), Some(object)) = (self.groups.get_mut(group_id), self.objects.get(id)) else { return };
        let on = object.on;
        let is_first = on.is_some_and(|on| !group.members.is_on(on));
        group.members.insert(id, on);
        if let Some(on) = on.filter(|on| is_first && self.concerns(*on)) {
            for policy in self.subjects_of(group_id) {
                if let Some(concern) = self.policies.get(policy).cloned() {
                    self.reach(&concern, on);
                }
            }
        }
        self.touch(group_id, id);
    }

    /// An object, which is still there, is no member of a group any more.
    pub(super) fn leave(&mut self, group_id: u32, id: u32) {
        let (Some(group), Some(object)) = (self.groups.get_mut(group_id), self.objects.get(id)) else { return };
        let on = object.on;
        let was_there = on.is_some_and(|on| group.members.is_on(on));
        group.members.remove(id, on);
        let is_last = was_there && on.is_some_and(|on| !group.members.is_on(on));
        if let Some(on) = on.filter(|on| is_last && self.concerns(*on)) {
            for policy in self.subjects_of(group_id) {
                if let Some(concern) = self.policies.get(policy).cloned() {
                    self.unreach(&concern, on);
                }
            }
        }
        self.touch(group_id, id);
    }

    /// A member of a group is to be told again to those who know the group.
    fn touch(&mut self, group: u32, id: u32) {
        let (Some(group), Some(object)) = (self.groups.get(group), self.objects.get(id)) else { return };
        match (&group.members, object.on) {
            (Members::ByNode(_), Some(on)) if group.span.contains_key(&on) => {
                self.nodes.member(on, &group.key, &object.name);
            }
            (Members::ByNode(_), _) => {}
            (Members::All(_), _) => {
                for node in group.span.keys() {
                    self.nodes.member(*node, &group.key, &object.name);
                }
            }
        }
    }

    fn subjects_of(&self, group: u32) -> Vec<u32> {
        self.groups.get(group).map(|group| group.subject_of.clone()).unwrap_or_default()
    }

    /// Whether somebody asks for a node.
    fn concerns(&self, node: u32) -> bool {
        let Some(only) = &self.only else { return true };
        self.nodes.get(node).is_some_and(|node| node.name == *only)
    }

    /// A policy is of concern to a node, once more.
    fn reach(&mut self, concern: &Concern, node: u32) {
        for id in &concern.groups {
            let Some(group) = self.groups.get_mut(*id) else { continue };
            let count = group.span.entry(node).or_default();
            *count += 1;
            if *count == 1 {
                self.nodes.group(node, &group.key);
            }
        }
        self.nodes.policy(node, &concern.name);
    }

    /// A policy is of concern to a node, once less.
    fn unreach(&mut self, concern: &Concern, node: u32) {
        for id in &concern.groups {
            let Some(group) = self.groups.get_mut(*id) else { continue };
            let Some(count) = group.span.get_mut(&node) else { continue };
            *count -= 1;
            if *count == 0 {
                group.span.remove(&node);
                self.nodes.group(node, &group.key);
            }
        }
        self.nodes.policy(node, &concern.name);
    }

    /// The nodes that a policy about a group is of concern to.
    pub(super) fn span_of_subject(&self, group: u32) -> Vec<u32> {
        let Some(Group { members: Members::ByNode(nodes), .. }) = self.groups.get(group) else { return Vec::new() };
        nodes.keys().copied().filter(|node| self.concerns(*node)).collect()
    }

    /// The number of a group, which is there then.
    pub(super) fn group(&mut self, key: GroupKey, selector: Selector) -> u32 {
        if let Some(id) = self.keys.get(&key) {
            return *id;
        }
        let members = if selector.is_subject { Members::ByNode(Map::default()) } else { Members::All(Set::default()) };
        let group = Group {
            key: key.clone(),
            selector,
            members,
            policies: 0,
            subject_of: Vec::new(),
            span: Map::default(),
            is_fresh: true,
        };
        let id = self.groups.insert(group);
        if let Some(group) = self.groups.get(id) {
            self.index.add(id, &group.selector);
        }
        self.keys.insert(key, id);
        self.fresh.push(id);
        id
    }

    /// A policy names its groups.
    pub(super) fn attach(&mut self, id: u32, concern: &Concern) {
        for group in &concern.groups {
            if let Some(group) = self.groups.get_mut(*group) {
                group.policies += 1;
            }
        }
        if let Some(group) = self.groups.get_mut(concern.subject) {
            group.subject_of.push(id);
        }
        for node in self.span_of_subject(concern.subject) {
            self.reach(concern, node);
        }
    }

    /// A policy names its groups no more; those that nobody names go.
    pub(super) fn detach(&mut self, id: u32, concern: &Concern) {
        for node in self.span_of_subject(concern.subject) {
            self.unreach(concern, node);
        }
        if let Some(group) = self.groups.get_mut(concern.subject)
            && let Some(at) = group.subject_of.iter().position(|of| *of == id)
        {
            group.subject_of.swap_remove(at);
        }
        for group_id in &concern.groups {
            let Some(group) = self.groups.get_mut(*group_id) else { continue };
            group.policies -= 1;
            if group.policies == 0
                && let Some(group) = self.groups.remove(*group_id)
            {
                self.keys.remove(&group.key);
                self.index.remove(*group_id, &group.selector);
                for member in group.members.ids() {
                    if let Some(object) = self.objects.get_mut(member) {
                        object.groups.retain(|of| of != group_id);
                    }
                }
            }
        }
    }

    /// Looks for the members of groups that are new.
    pub(super) fn populate(&mut self) {
        let mut fresh = std::mem::take(&mut self.fresh);
        fresh.retain(|id| self.groups.get_mut(*id).is_some_and(|group| std::mem::take(&mut group.is_fresh)));
        let most = self.objects.len() * 2 + FEW;
        let mut looks = Vec::with_capacity(fresh.len());
        let mut count = 0;
        for id in fresh {
            let objects = self.candidates(id);
            count += objects.len();
            if count > most {
                drop(looks);
                for id in self.objects.ids().collect::<Vec<_>>() {
                    self.refresh(id, false);
                }
                return;
            }
            looks.push((id, objects));
        }
        for (group_id, objects) in looks {
            for id in objects {
                let (Some(group), Some(object)) = (self.groups.get(group_id), self.objects.get(id)) else { continue };
                let Err(at) = object.groups.binary_search(&group_id) else { continue };
                if self.is_member(&group.selector, object)
                    && let Some(object) = self.objects.get_mut(id)
                {
                    object.groups.insert(at, group_id);
                    self.join(group_id, id);
                }
            }
        }
    }

    /// The objects that may be members of a group.
    fn candidates(&self, group: u32) -> Vec<u32> {
        let Some(group) = self.groups.get(group) else { return Vec::new() };
        let pods = |name: &str| self.namespaces.get(name).into_iter().flat_map(|place| place.pods.iter().copied());
        match &group.selector.scope {
            Scope::Nodes => self.node_objects.iter().copied().collect(),
            Scope::Namespace(name) => pods(name).collect(),
            Scope::Namespaces(requirements) => match self.index.namespaces(requirements) {
                Candidates::These(namespaces) => namespaces.into_iter().flat_map(|name| pods(name)).collect(),
                Candidates::All => self.namespaces.values().flat_map(|place| place.pods.iter().copied()).collect(),
            },
        }
    }
}
