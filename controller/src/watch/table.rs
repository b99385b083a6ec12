//! The objects of one kind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Where an object is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The name that is touched with it: a slice's Service, else its own.
    pub(super) owner: String,
    /// Its own name, `NAMESPACE/NAME` or `NAME`.
    pub(super) key: String,
}

/// The objects of one kind, by owner and name.
#[derive(Debug)]
pub(super) struct Table<K> {
    objects: BTreeMap<Place, Arc<K>>,
    owners: BTreeMap<String, String>,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), owners: BTreeMap::new() }
    }
}

impl<K: PartialEq> Table<K> {
    /// Puts an object in; the owners that are touched by it are returned.
    pub(super) fn put(&mut self, place: Place, object: K) -> Vec<String> {
        let mut touched = Vec::new();
        let owner = self.owners.insert(place.key.clone(), place.owner.clone());
        if let Some(before) = owner.filter(|before| *before != place.owner) {
            self.objects.remove(&Place { owner: before.clone(), key: place.key.clone() });
            touched.push(before);
        }
        if self.objects.get(&place).is_none_or(|there| **there != object) {
            touched.push(place.owner.clone());
            self.objects.insert(place, Arc::new(object));
        }
        touched
    }

    /// Takes an object out by its own name; the owner that is touched by that is returned.
    pub(super) fn remove(&mut self, key: &str) -> Vec<String> {
        let Some(owner) = self.owners.remove(key) else { return Vec::new() };
        self.objects.remove(&Place { owner: owner.clone(), key: key.to_owned() });
        vec![owner]
    }

    /// Has it become `all`; the owners that are touched by that are returned.
    pub(super) fn replace(&mut self, all: Vec<(Place, K)>) -> Vec<String> {
        let keys: BTreeSet<&String> = all.iter().map(|(place, _)| &place.key).collect();
        let gone: Vec<_> = self.owners.keys().filter(|key| !keys.contains(key)).cloned().collect();
        let mut touched: Vec<_> = gone.iter().flat_map(|key| self.remove(key)).collect();
        touched.extend(all.into_iter().flat_map(|(place, object)| self.put(place, object)));
        touched
    }

    /// The objects of an owner, sorted by their names.
    pub(super) fn of(&self, owner: &str) -> impl Iterator<Item = &Arc<K>> {
        let first = Place { owner: owner.to_owned(), key: String::new() };
        self.objects.range(first..).take_while(move |(place, _)| place.owner == owner).map(|(_, object)| object)
    }

    /// All objects, sorted.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects.values()
    }

    /// All owners, sorted, each once.
    pub(super) fn owners(&self) -> BTreeSet<String> {
        self.objects.keys().map(|place| place.owner.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(owner: &str, key: &str) -> Place {
        Place { owner: owner.to_owned(), key: key.to_owned() }
    }

    #[test]
    fn what_does_not_differ_touches_nothing() {
        let mut table = Table::default();
        assert_eq!(table.put(place("a", "a-1"), 1), ["a"]);
        assert!(table.put(place("a", "a-1"), 1).is_empty());
        assert_eq!(table.put(place("a", "a-1"), 2), ["a"]);
    }

    #[test]
    fn an_object_that_changes_its_owner_touches_both() {
        let mut table = Table::default();
        table.put(place("a", "x"), 1);
        assert_eq!(table.put(place("b", "x"), 1), ["a", "b"]);
        assert_eq!((table.of("a").count(), table.of("b").count()), (0, 1));
    }

    #[test]
    fn a_list_takes_away_what_it_does_not_have() {
        let mut table = Table::default();
        for (owner, key) in [("a", "a-1"), ("a", "a-2"), ("ab", "ab-1"), ("b", "b-1")] {
            table.put(place(owner, key), 1);
        }
        assert_eq!(table.of("a").count(), 2);
        let touched = table.replace(vec![(place("a", "a-1"), 1), (place("ab", "ab-1"), 7), (place("c", "c-1"), 1)]);
        assert_eq!(touched, ["a", "b", "ab", "c"]);
        assert_eq!(table.owners().into_iter().collect::<Vec<_>>(), ["a", "ab", "c"]);
        assert_eq!(table.all().count(), 3);
        assert_eq!(table.remove("c-1"), ["c"]);
        assert!(table.remove("c-1").is_empty());
    }
}
