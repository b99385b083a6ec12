//! The cluster's objects, and what they come to for each node.

mod groups;
mod told;

use super::index::Index;
use super::nodes::Nodes;
use super::objects::{self, Fact};
use super::read::{self, Note, Reading};
use super::selector::{Labels, Selector};
use super::slots::Slots;
use super::{Map, Set, crd};
use crate::facts::policy::{GroupKey, Member, Policy, PolicyKind, PolicyName};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A cluster's Pods, namespaces, nodes and policies, and what each node has to know of them.
///
/// Objects may come in any order. Nothing is worked out for policies that are new until something is asked for, so it is best to
/// put in all that is listed and to ask then.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// The one node that somebody asks for; all if it is none.
    only: Option<Arc<str>>,
    index: Index,
    namespaces: Map<Arc<str>, Place>,
    /// Nodes as members of groups.
    node_objects: Set<u32>,
    objects: Slots<Object>,
    /// Objects by `NAMESPACE/NAME` of Pods, `NAME` of nodes.
    names: Map<Arc<str>, u32>,
    groups: Slots<Group>,
    keys: Map<GroupKey, u32>,
    policies: Slots<Concern>,
    policy_ids: Map<Arc<PolicyName>, u32>,
    notes: BTreeMap<PolicyName, Vec<Note>>,
    nodes: Nodes,
    /// Groups whose members have not been looked for; their numbers may be others' by now.
    fresh: Vec<u32>,
}

/// A Pod or a node, to be looked at.
pub(super) struct Known<'a> {
    /// None for a node.
    pub(super) namespace: Option<&'a str>,
    pub(super) labels: &'a Labels,
    pub(super) member: &'a Member,
}

/// A namespace.
#[derive(Clone, Debug, Default)]
struct Place {
    /// None for one that Pods are in, but that we have not seen.
    labels: Option<Labels>,
    pods: Set<u32>,
}

/// A Pod or a node.
#[derive(Clone, Debug)]
struct Object {
    name: Arc<str>,
    /// None for a node.
    namespace: Option<Arc<str>>,
    labels: Labels,
    member: Arc<Member>,
    /// The number of the node that it is on; none for a node.
    on: Option<u32>,
    /// The groups that it is a member of, in order.
    groups: Vec<u32>,
    /// Which of all Pods of its name it is.
    uid: Option<u128>,
}

/// A group.
#[derive(Clone, Debug)]
struct Group {
    key: GroupKey,
    selector: Selector,
    members: Members,
    /// How many policies name it.
    policies: usize,
    /// The policies that are about it.
    subject_of: Vec<u32>,
    /// The nodes that it is of concern to, with how many policies name it that are of concern there.
    span: Map<u32, u32>,
    /// Its members have not been looked for.
    is_fresh: bool,
}

#[derive(Clone, Debug)]
enum Members {
    All(Set<u32>),
    /// Of subjects: by node, in order.
    ByNode(Map<u32, Vec<u32>>),
}

/// A policy.
#[derive(Clone, Debug)]
struct Concern {
    name: Arc<PolicyName>,
    policy: Arc<Policy>,
    subject: u32,
    /// All groups that it names, its subject among them, each once.
    groups: Vec<u32>,
}

fn pod_name(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

impl Cluster {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing yet, for one node alone if it is said which: others hear of nothing.
    #[must_use]
    pub fn for_nodes(only: Option<&str>) -> Self {
        Self { only: only.map(Arc::from), ..Self::default() }
    }

    /// A Pod is as this says.
    pub fn put_pod(&mut self, pod: &Pod) {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let name = pod_name(namespace, pod.metadata.name.as_deref().unwrap_or_default());
        match objects::pod(pod) {
            Some(fact) => self.put_object(&name, Some(namespace), fact),
            None => self.remove_object(&name),
        }
    }

    /// A Pod is gone.
    pub fn remove_pod(&mut self, namespace: &str, name: &str) {
        self.remove_object(&pod_name(namespace, name));
    }

    /// Whether a Pod is on a node and may be a member of groups. `NAMESPACE/NAME` is whichever has that name now,
    /// `NAMESPACE/NAME/UID` is that Pod alone.
    #[must_use]
    pub fn is_on(&self, node: &str, pod: &str) -> bool {
        let (name, uid) = match pod.rsplit_once('/') {
            Some((name, uid)) if name.contains('/') => (name, objects::uid(uid)),
            _ => (pod, None),
        };
        let object = self.names.get(name).and_then(|id| self.objects.get(*id));
        let is_it = |object: &Object| uid.is_none() || object.uid.is_none() || uid == object.uid;
        object.is_some_and(|object| object.on.is_some() && *object.member.node == *node && is_it(object))
    }

    /// A node is as this says.
    pub fn put_node(&mut self, node: &Node) {
        let fact = objects::node(node);
        self.put_object(&fact.node.clone(), None, fact);
    }

    /// A node is gone.
    pub fn remove_node(&mut self, name: &str) {
        self.remove_object(name);
    }

    /// A namespace is as this says.
    pub fn put_namespace(&mut self, namespace: &Namespace) {
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        self.label_namespace(name, Some(Labels::of_namespace(name, namespace.metadata.labels.as_ref())));
    }

    /// A namespace is gone.
    pub fn remove_namespace(&mut self, name: &str) {
        self.label_namespace(name, None);
    }

    /// A NetworkPolicy is as this says.
    pub fn put_network_policy(&mut self, policy: &NetworkPolicy) {
        let namespace = policy.metadata.namespace.as_deref().unwrap_or("default");
        let name = named(PolicyKind::NetworkPolicy, namespace, policy.metadata.name.as_deref());
        self.put_policy(name, read::network(policy));
    }

    /// A ClusterNetworkPolicy is as this says.
    pub fn put_cluster_network_policy(&mut self, policy: &crd::ClusterNetworkPolicy) {
        let name = named(PolicyKind::ClusterNetworkPolicy, "", policy.metadata.name.as_deref());
        self.put_policy(name, read::cluster(policy));
    }

    /// An AdminNetworkPolicy is as this says.
    pub fn put_admin_network_policy(&mut self, policy: &crd::AdminNetworkPolicy) {
        let name = named(PolicyKind::AdminNetworkPolicy, "", policy.metadata.name.as_deref());
        self.put_policy(name, read::admin(policy));
    }

    /// A BaselineAdminNetworkPolicy is as this says.
    pub fn put_baseline_admin_network_policy(&mut self, policy: &crd::BaselineAdminNetworkPolicy) {
        let name = named(PolicyKind::BaselineAdminNetworkPolicy, "", policy.metadata.name.as_deref());
        self.put_policy(name, read::baseline(policy));
    }

    /// A policy is gone.
    pub fn remove_policy(&mut self, name: &PolicyName) {
        self.notes.remove(name);
        if let Some(id) = self.policy_ids.remove(name)
            && let Some(concern) = self.policies.remove(id)
        {
            self.detach(id, &concern);
        }
    }

    /// A policy as nodes have it, if it is about anybody.
    #[must_use]
    pub fn policy(&self, name: &PolicyName) -> Option<&Arc<Policy>> {
        self.policy_ids.get(name).and_then(|id| self.policies.get(*id)).map(|concern| &concern.policy)
    }

    /// The names of all policies, in no order; also of those that are about nobody and have notes.
    pub fn policies(&self) -> impl Iterator<Item = &PolicyName> {
        let unread = self.notes.keys().filter(|name| !self.policy_ids.contains_key(*name));
        self.policy_ids.keys().map(|name| &**name).chain(unread)
    }

    /// What of a policy is not as it may seem.
    #[must_use]
    pub fn notes(&self, name: &PolicyName) -> &[Note] {
        self.notes.get(name).map_or(&[], Vec::as_slice)
    }

    /// What a group selects that a policy names.
    pub(super) fn selector(&self, key: &GroupKey) -> Option<&Selector> {
        self.keys.get(key).and_then(|id| self.groups.get(*id)).map(|group| &group.selector)
    }

    /// A Pod that may be a member of groups, by `NAMESPACE/NAME`, or a node, by `NAME`.
    pub(super) fn object(&self, name: &str) -> Option<Known<'_>> {
        let object = self.names.get(name).and_then(|id| self.objects.get(*id))?;
        Some(Known { namespace: object.namespace.as_deref(), labels: &object.labels, member: &object.member })
    }

    /// The labels of a namespace that we have seen.
    pub(super) fn namespace_labels(&self, name: &str) -> Option<&Labels> {
        self.namespaces.get(name).and_then(|place| place.labels.as_ref())
    }

    /// How much there is: objects, namespaces, groups, policies, nodes.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 5] {
        [self.objects.len(), self.namespaces.len(), self.groups.len(), self.policies.len(), self.nodes.len()]
    }

    fn put_object(&mut self, name: &str, namespace: Option<&str>, fact: Fact) {
        if let Some(&id) = self.names.get(name)
            && let Some(object) = self.objects.get_mut(id)
        {
            object.uid = fact.uid;
            let Fact { labels, node, addresses, ports, .. } = &fact;
            let member = &object.member;
            if *member.node == **node {
                let is_changed = member.addresses != *addresses || member.ports != *ports;
                if is_changed || object.labels != *labels {
                    object.labels = fact.labels;
                    if is_changed {
                        let node = Arc::clone(&member.node);
                        object.member = Arc::new(Member { node, addresses: fact.addresses, ports: fact.ports });
                    }
                    self.refresh(id, is_changed);
                }
                return;
            }
            self.remove_object(name);
        }
        let (on, node) = match namespace {
            Some(_) => {
                let (id, name) = self.nodes.enter(&fact.node);
                (Some(id), name)
            }
            None => (None, fact.node.into()),
        };
        let name: Arc<str> = name.into();
        let namespace = namespace.map(|namespace| self.place(namespace));
        let id = self.objects.insert(Object {
            name: Arc::clone(&name),
            namespace: namespace.clone(),
            labels: fact.labels,
            member: Arc::new(Member { node, addresses: fact.addresses, ports: fact.ports }),
            on,
            groups: Vec::new(),
            uid: fact.uid,
        });
        self.names.insert(name, id);
        match namespace.and_then(|namespace| self.namespaces.get_mut(&namespace)) {
            Some(place) => place.pods.insert(id),
            None => self.node_objects.insert(id),
        };
        self.refresh(id, false);
    }

    fn remove_object(&mut self, name: &str) {
        let Some(&id) = self.names.get(name) else { return };
        let groups = self.objects.get_mut(id).map(|object| std::mem::take(&mut object.groups));
        for group in groups.into_iter().flatten() {
            self.leave(group, id);
        }
        self.names.remove(name);
        self.node_objects.remove(&id);
        let Some(object) = self.objects.remove(id) else { return };
        if let Some(on) = object.on {
            self.nodes.leave(on);
        }
        if let Some(namespace) = object.namespace
            && let Some(place) = self.namespaces.get_mut(&namespace)
        {
            place.pods.remove(&id);
            if place.pods.is_empty() && place.labels.is_none() {
                self.namespaces.remove(&namespace);
            }
        }
    }

    /// The name of a namespace, which is there then.
    fn place(&mut self, name: &str) -> Arc<str> {
        if let Some((name, _)) = self.namespaces.get_key_value(name) {
            return Arc::clone(name);
        }
        let name: Arc<str> = name.into();
        self.namespaces.insert(Arc::clone(&name), Place::default());
        name
    }

    fn label_namespace(&mut self, name: &str, labels: Option<Labels>) {
        let name = self.place(name);
        let Some(place) = self.namespaces.get_mut(&name) else { return };
        if place.labels != labels {
            self.index.relabel(&name, place.labels.as_ref(), labels.as_ref());
            place.labels = labels;
            let pods: Vec<u32> = place.pods.iter().copied().collect();
            for id in pods {
                self.refresh(id, false);
            }
        }
        if self.namespaces.get(&name).is_some_and(|place| place.pods.is_empty() && place.labels.is_none()) {
            self.namespaces.remove(&name);
        }
    }

    fn put_policy(&mut self, name: PolicyName, reading: Reading) {
        let Reading { policy, groups, notes } = reading;
        let Some(policy) = policy else {
            self.remove_policy(&name);
            self.notes.insert(name, notes);
            return;
        };
        if notes.is_empty() {
            self.notes.remove(&name)
        } else {
            self.notes.insert(name.clone(), notes)
        };
        let known = self.policy_ids.get(&name).copied();
        if known.and_then(|id| self.policies.get(id)).is_some_and(|concern| *concern.policy == policy) {
            return;
        }
        let subject = policy.subject.clone();
        let mut ids = Vec::with_capacity(groups.len());
        let mut subject_id = None;
        for (key, selector) in groups {
            let is_subject = key == subject;
            let id = self.group(key, selector);
            ids.push(id);
            subject_id = if is_subject { Some(id) } else { subject_id };
        }
        // The reader puts the subject among the groups.
        let Some(subject) = subject_id else { return };
        let (name, policy) = (Arc::new(name), Arc::new(policy));
        let concern = Concern { name: Arc::clone(&name), policy, subject, groups: ids };
        let (id, old) = match known {
            Some(id) => (id, self.policies.get_mut(id).map(|old| std::mem::replace(old, concern.clone()))),
            None => {
                let id = self.policies.insert(concern.clone());
                self.policy_ids.insert(name, id);
                (id, None)
            }
        };
        // The new ones first, so that groups that stay are not taken away in between.
        self.attach(id, &concern);
        if let Some(old) = old {
            self.detach(id, &old);
        }
    }
}

fn named(kind: PolicyKind, namespace: &str, name: Option<&str>) -> PolicyName {
    PolicyName { kind, namespace: namespace.to_owned(), name: name.unwrap_or_default().to_owned() }
}
