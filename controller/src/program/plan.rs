//! What the switch is to have, and what has to be sent so that it has it.
//!
//! A plan holds the part of each object as the switch has it, once the last difference has been sent. It is by key (table, priority and
//! match of a flow, number of a group) that objects are told apart in the switch, and a plan knows whose each key is: while an object
//! moves to another number, or takes over an address, two of them may claim one key for a moment. The lesser object has it then, in
//! whatever order things happened, and when one claimant goes, the other's flow stays or comes.

use crate::flow::{Flow, Group, Object, Part};
use foldhash::fast::RandomState;
use foldhash::quality;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

/// What names a flow or group in a bridge: 128 bits of a hash that is made anew for each process, so that nobody can choose texts
/// that meet.
type Key = [u64; 2];

/// A flow or a group of a part.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Whose it is.
    pub(super) object: Arc<Object>,
    part: Arc<Part>,
    place: Place,
}

/// Where in its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Flow(usize),
    Group(usize),
}

/// A flow or a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What<'a> {
    Flow(&'a Flow),
    Group(&'a Group),
}

impl Item {
    /// The flow or group itself.
    pub(super) fn what(&self) -> Option<What<'_>> {
        match self.place {
            Place::Flow(at) => self.part.flows.get(at).map(What::Flow),
            Place::Group(at) => self.part.groups.get(at).map(What::Group),
        }
    }

    fn is_group(&self) -> bool {
        matches!(self.place, Place::Group(_))
    }
}

/// What has to be changed, in an order that leaves no gap: groups first, then flows, then the groups that nothing names any more.
#[derive(Clone, Debug, Default)]
pub(super) struct Difference {
    /// Groups that come or change.
    pub(super) groups: Vec<Item>,
    /// Flows that go.
    pub(super) leaving: Vec<Item>,
    /// Flows that come or change.
    pub(super) flows: Vec<Item>,
    /// Groups that go.
    pub(super) groups_leaving: Vec<Item>,
}

impl Difference {
    fn add(&mut self, item: Item) {
        if item.is_group() { self.groups.push(item) } else { self.flows.push(item) }
    }

    fn leave(&mut self, item: Item) {
        if item.is_group() { self.groups_leaving.push(item) } else { self.leaving.push(item) }
    }
}

/// An object, and its part from now on; none if it goes.
pub(super) type Change = (Arc<Object>, Option<Arc<Part>>);

/// What a key had before a change.
enum Before {
    Nothing,
    Item(Item),
    /// Something of an object that is not among those that change.
    Another,
}

/// What the switch is to have.
#[derive(Debug, Default)]
pub(super) struct Plan {
    parts: BTreeMap<Arc<Object>, Arc<Part>>,
    /// Whose each key is.
    owners: HashMap<Key, Arc<Object>, RandomState>,
    /// All that claim a key, where there is more than one.
    contested: HashMap<Key, BTreeSet<Arc<Object>>, RandomState>,
    hashes: [quality::RandomState; 2],
}

impl Plan {
    /// The part of an object.
    pub(super) fn part(&self, object: &Object) -> Option<&Arc<Part>> {
        self.parts.get(object)
    }

    /// Numbers of flows and groups.
    pub(super) fn sizes(&self) -> (usize, usize) {
        let sizes = self.parts.values().map(|part| (part.flows.len(), part.groups.len()));
        sizes.fold((0, 0), |(flows, groups), (f, g)| (flows + f, groups + g))
    }

    /// All objects.
    pub(super) fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.parts.keys()
    }

    /// Everything, as it is sent to a switch of which nothing is known.
    pub(super) fn all(&self) -> Difference {
        let mut all = Difference::default();
        for (object, part) in &self.parts {
            for (key, place) in self.items(part) {
                if self.owners.get(&key) == Some(object) {
                    all.add(Item { object: Arc::clone(object), part: Arc::clone(part), place });
                }
            }
        }
        all
    }

    /// Changes parts, and says what that changes in the switch. An object is named once.
    pub(super) fn change(&mut self, changes: &[Change]) -> Difference {
        let (order, mut before) = self.before(changes);
        self.claim(changes);
        let index = |part: &Arc<Part>| self.items(part).into_iter().collect::<HashMap<_, _, RandomState>>();
        let news = changes.iter().filter_map(|(object, new)| Some((object, index(new.as_ref()?))));
        let indexes: HashMap<_, _, RandomState> = news.collect();
        let mut difference = Difference::default();
        for key in order {
            let Some(before) = before.remove(&key) else { continue };
            let after = self.owners.get(&key).and_then(|owner| {
                let part = self.parts.get(owner)?;
                let place = match indexes.get(owner) {
                    Some(index) => *index.get(&key)?,
                    // What neither changes nor takes over.
                    None if matches!(before, Before::Another) => return None,
                    None => self.items(part).into_iter().find(|(k, _)| *k == key)?.1,
                };
                Some(Item { object: Arc::clone(owner), part: Arc::clone(part), place })
            });
            match (before, after) {
                (Before::Item(before), None) => difference.leave(before),
                (Before::Item(before), Some(after)) if before.what() == after.what() => {}
                (Before::Nothing | Before::Another, None) => {}
                (_, Some(after)) => difference.add(after),
            }
        }
        difference
    }

    /// The keys that a change concerns, in order, and what each of them has before it.
    fn before(&self, changes: &[Change]) -> (Vec<Key>, HashMap<Key, Before, RandomState>) {
        let mut before: HashMap<Key, Before, RandomState> = HashMap::default();
        let mut order = Vec::new();
        for (object, new) in changes {
            let old = self.parts.get(object);
            for (part, key, place) in old.iter().flat_map(|p| self.items(p).into_iter().map(move |(k, at)| (*p, k, at)))
            {
                if self.owners.get(&key) != Some(object) {
                    continue;
                }
                let item = Item { object: Arc::clone(object), part: Arc::clone(part), place };
                if before.insert(key, Before::Item(item)).is_none() {
                    order.push(key);
                }
            }
            for (key, _) in new.iter().flat_map(|part| self.items(part)) {
                before.entry(key).or_insert_with(|| {
                    order.push(key);
                    if self.owners.contains_key(&key) { Before::Another } else { Before::Nothing }
                });
            }
        }
        (order, before)
    }

    /// Notes the new parts, and whose their keys are.
    fn claim(&mut self, changes: &[Change]) {
        for (object, new) in changes {
            if let Some(old) = self.parts.remove(object) {
                for (key, _) in self.items(&old) {
                    self.give_up(key, object);
                }
            }
            let Some(new) = new else { continue };
            for (key, _) in self.items(new) {
                let Some(owner) = self.owners.get(&key).cloned() else {
                    self.owners.insert(key, Arc::clone(object));
                    continue;
                };
                if owner == *object {
                    continue;
                }
                if *object < owner {
                    self.owners.insert(key, Arc::clone(object));
                }
                self.contested.entry(key).or_insert_with(|| BTreeSet::from([owner])).insert(Arc::clone(object));
            }
            self.parts.insert(Arc::clone(object), Arc::clone(new));
        }
    }

    fn give_up(&mut self, key: Key, object: &Arc<Object>) {
        let Some(claimants) = self.contested.get_mut(&key) else {
            if self.owners.get(&key) == Some(object) {
                self.owners.remove(&key);
            }
            return;
        };
        claimants.remove(object);
        if let Some(first) = claimants.first() {
            self.owners.insert(key, Arc::clone(first));
        }
        if claimants.len() < 2 {
            self.contested.remove(&key);
        }
    }

    /// The flows and groups of a part with their keys, each key once: the last that has it counts.
    fn items(&self, part: &Part) -> Vec<(Key, Place)> {
        let flows = part.flows.iter().enumerate();
        let flows = flows.map(|(at, f)| (self.key((f.table, f.priority, f.matching.as_str())), Place::Flow(at)));
        let groups = part.groups.iter().enumerate().map(|(at, g)| (self.key(g.id), Place::Group(at)));
        let mut items: Vec<_> = flows.chain(groups).collect();
        if items.len() > 1 {
            let mut last: HashMap<Key, usize, RandomState> = HashMap::default();
            for (at, (key, _)) in items.iter().enumerate() {
                last.insert(*key, at);
            }
            if last.len() < items.len() {
                let mut at = 0;
                items.retain(|(key, _)| {
                    at += 1;
                    last.get(key) == Some(&(at - 1))
                });
            }
        }
        items
    }

    /// What is hashed differs in length and kind between flows and groups.
    fn key(&self, of: impl Hash) -> Key {
        [self.hashes[0].hash_one(&of), self.hashes[1].hash_one(&of)]
    }
}

#[cfg(test)]
mod tests;
