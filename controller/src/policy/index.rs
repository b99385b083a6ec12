//! Which groups an object may be a member of, and which namespaces a selector may select, without a look at all of them.
//!
//! A group is filed under one thing that its members must have: of the namespace (its name, a label's value, a label) and of
//! the object (a label's value, a label), the best of what its selector asks for. An object looks under what it has. What is found
//! is a candidate: whether it matches is looked at then. Keys are hashes, so that a look needs no new strings; two
//! things with one hash are only more candidates.

use super::selector::{Labels, NAMESPACE_NAME, Requirement, Requirements, Scope, Selector};
use super::{Map, Set};
use foldhash::fast::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

/// A hash of what something is filed under.
type Anchor = u64;

/// What there is to be filed under.
#[derive(Hash)]
enum Under<'a> {
    Anything,
    Nodes,
    Namespace(&'a str),
    Key(&'a str),
    Value(&'a str, &'a str),
}

/// Groups and namespaces, filed.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    hasher: RandomState,
    /// Groups, by what their members' namespace has, and by what they have themselves.
    groups: Map<Anchor, Map<Anchor, Vec<u32>>>,
    /// Namespaces, by each label and by its value.
    namespaces: Map<Anchor, Set<Arc<str>>>,
}

/// The namespaces that a selector may select.
pub(super) enum Candidates<'a> {
    All,
    These(Vec<&'a Arc<str>>),
}

impl Index {
    fn hash(&self, under: &Under<'_>) -> Anchor {
        self.hasher.hash_one(under)
    }

    /// Under what selectors are filed: several values of a label are as many places.
    fn places(&self, requirements: &Requirements) -> Vec<Anchor> {
        // The fewer values the better, and best of all the name; that a label is there is worse than any value.
        let worth = |requirement: &&Requirement| match requirement {
            Requirement::In(key, _) if **key == *NAMESPACE_NAME => Some(0),
            Requirement::In(_, values) => Some(values.len()),
            Requirement::Exists(_) => Some(usize::MAX),
            Requirement::NotIn(..) | Requirement::Missing(_) => None,
        };
        match requirements.iter().filter(|of| worth(of).is_some()).min_by_key(worth) {
            Some(Requirement::In(key, values)) => {
                values.iter().map(|value| self.hash(&Under::Value(key, value))).collect()
            }
            Some(Requirement::Exists(key)) => vec![self.hash(&Under::Key(key))],
            _ => vec![self.hash(&Under::Anything)],
        }
    }

    /// Where an object with labels looks.
    fn looks<'a>(&'a self, labels: &'a Labels) -> impl Iterator<Item = Anchor> + 'a {
        let of_label = |(key, value)| [self.hash(&Under::Key(key)), self.hash(&Under::Value(key, value))];
        labels.iter().flat_map(of_label).chain([self.hash(&Under::Anything)])
    }

    fn scope_places(&self, scope: &Scope) -> Vec<Anchor> {
        match scope {
            Scope::Nodes => vec![self.hash(&Under::Nodes)],
            Scope::Namespace(name) => vec![self.hash(&Under::Namespace(name))],
            Scope::Namespaces(requirements) => self.places(requirements),
        }
    }

    pub(super) fn add(&mut self, id: u32, selector: &Selector) {
        let labels = self.places(&selector.labels);
        for scope in self.scope_places(&selector.scope) {
            let filed = self.groups.entry(scope).or_default();
            for anchor in &labels {
                filed.entry(*anchor).or_default().push(id);
            }
        }
    }

    pub(super) fn remove(&mut self, id: u32, selector: &Selector) {
        let labels = self.places(&selector.labels);
        for scope in self.scope_places(&selector.scope) {
            let Some(filed) = self.groups.get_mut(&scope) else { continue };
            for anchor in &labels {
                let Some(ids) = filed.get_mut(anchor) else { continue };
                ids.retain(|of| *of != id);
                if ids.is_empty() {
                    filed.remove(anchor);
                }
            }
            if filed.is_empty() {
                self.groups.remove(&scope);
            }
        }
    }

    /// The groups that a Pod may be a member of. `of_namespace` is none for a namespace that we have not seen.
    pub(super) fn for_pod(&self, namespace: &str, of_namespace: Option<&Labels>, labels: &Labels) -> Vec<u32> {
        let by_name = self.hash(&Under::Namespace(namespace));
        let by_label = of_namespace.into_iter().flat_map(|labels| self.looks(labels));
        self.find([by_name].into_iter().chain(by_label), labels)
    }

    /// The groups that a node may be a member of.
    pub(super) fn for_node(&self, labels: &Labels) -> Vec<u32> {
        self.find([self.hash(&Under::Nodes)].into_iter(), labels)
    }

    fn find(&self, scopes: impl Iterator<Item = Anchor>, labels: &Labels) -> Vec<u32> {
        let mut found = Vec::new();
        let mut looks = None;
        for filed in scopes.filter_map(|scope| self.groups.get(&scope)) {
            let looks = looks.get_or_insert_with(|| self.looks(labels).collect::<Vec<_>>());
            found.extend(looks.iter().filter_map(|anchor| filed.get(anchor)).flatten());
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Files a namespace under its labels instead of those that it had.
    pub(super) fn relabel(&mut self, name: &Arc<str>, old: Option<&Labels>, new: Option<&Labels>) {
        let anything = self.hash(&Under::Anything);
        let anchors = |labels: Option<&Labels>| -> Vec<Anchor> {
            let looks = labels.into_iter().flat_map(|labels| self.looks(labels));
            looks.filter(|anchor| *anchor != anything).collect()
        };
        let (old, new) = (anchors(old), anchors(new));
        for anchor in old {
            if let Some(filed) = self.namespaces.get_mut(&anchor) {
                filed.remove(name);
                if filed.is_empty() {
                    self.namespaces.remove(&anchor);
                }
            }
        }
        for anchor in new {
            self.namespaces.entry(anchor).or_default().insert(Arc::clone(name));
        }
    }

    /// The namespaces that have what such a selector is filed under.
    pub(super) fn namespaces(&self, requirements: &Requirements) -> Candidates<'_> {
        let places = self.places(requirements);
        if places.contains(&self.hash(&Under::Anything)) {
            return Candidates::All;
        }
        Candidates::These(places.iter().filter_map(|anchor| self.namespaces.get(anchor)).flatten().collect())
    }
}
