//! The Services of the cluster as this node has them: facts, claims, numbers, and what has to end when they change.

use crate::facts::{self, Endpoint, Protocol};
use crate::flow::{Object, Part};
use crate::pipeline::{self, Ids};
use crate::services::claims::Claims;
use crate::services::health::{Check, health};
use crate::services::stale::{Connection, Stale, left_over, stale};
use crate::services::{self, Here, Published};
use crate::watch::Store;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::{BTreeMap, BTreeSet};
use tracing::warn;

/// What is known of one Service.
#[derive(Debug)]
struct Known {
    facts: facts::Service,
    serving: BTreeSet<(Protocol, Endpoint)>,
    /// Matches of the flows that the switch learns for its affinity.
    learned: BTreeSet<String>,
}

/// All Services.
#[derive(Debug, Default)]
pub(super) struct Services {
    known: BTreeMap<String, Known>,
    published: BTreeMap<String, Published>,
    checks: BTreeMap<String, Check>,
    claims: Claims,
    ids: Ids,
    /// Warnings that have been given, by Service.
    told: BTreeMap<String, BTreeSet<String>>,
    /// Connections that have to end, once what replaces them is in force.
    pub(super) stale: BTreeSet<Stale>,
    /// Matches of learned flows that have to go, once nothing learns them any more.
    pub(super) unlearned: BTreeSet<String>,
}

impl Services {
    /// What all Services have published.
    pub(super) fn published(&self) -> Published {
        let mut all = Published::default();
        for one in self.published.values() {
            all.routes.extend(&one.routes);
            all.ports.extend(&one.ports);
        }
        all
    }

    /// The health checks of all Services.
    pub(super) fn checks(&self) -> impl Iterator<Item = &Check> {
        self.checks.values()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Their endpoints, those of them on this node where that matters, and how many ports have none.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let ports = self.known.values().flat_map(|known| &known.facts.ports);
        ports.fold((0, 0, 0), |(all, local, none), port| {
            (all + port.cluster.len(), local + port.local.len(), none + usize::from(port.cluster.is_empty()))
        })
    }

    /// The names of all Services that are known.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.published.keys().chain(self.known.keys())
    }

    /// Looks at what these Services publish; whether it differs from before.
    pub(super) fn publish(&mut self, names: &BTreeSet<String>, store: &Store, here: &Here) -> bool {
        let mut differs = false;
        for name in names {
            let published = store.service(name).map(|(service, _)| services::published(&service, here));
            let published = published.unwrap_or_default();
            let before = self.published.get(name);
            if before.is_some_and(|before| *before == published)
                || (before.is_none() && published == Published::default())
            {
                continue;
            }
            differs = true;
            if published == Published::default() {
                self.published.remove(name);
            } else {
                self.published.insert(name.clone(), published);
            }
        }
        differs
    }

    /// Looks at these Services; what the switch needs for them, and for others that win or lose something by it.
    pub(super) fn update(
        &mut self,
        names: &BTreeSet<String>,
        store: &Store,
        node: &facts::Node,
        here: &Here,
    ) -> Vec<(Object, Option<Part>)> {
        let mut all = names.clone();
        for name in names {
            all.extend(self.claim(name, store, here));
        }
        // Numbers are given back before others may take them.
        let (gone, there): (Vec<_>, Vec<_>) =
            all.iter().map(|name| (name, self.look(name, store, here))).partition(|(_, found)| found.is_none());
        let mut changes = Vec::new();
        for (name, _) in gone {
            self.ids.release(name);
            self.told.remove(name);
            if let Some(before) = self.known.remove(name) {
                self.stale.extend(stale(Some(&before.facts), None, &BTreeSet::new()));
                self.unlearned.extend(before.learned);
                changes.push((Object::Service(name.clone()), None));
            }
        }
        for (name, mut known) in there.into_iter().filter_map(|(name, found)| Some((name, found?))) {
            let part = pipeline::service(node, &known.facts, &mut self.ids);
            known.learned = pipeline::learned_of(&known.facts, &part).collect();
            let before = self.known.remove(name);
            self.stale.extend(stale(before.as_ref().map(|b| &b.facts), Some(&known.facts), &known.serving));
            let learned = before.into_iter().flat_map(|before| before.learned);
            self.unlearned.extend(learned.filter(|matching| !known.learned.contains(matching)));
            self.known.insert(name.clone(), known);
            changes.push((Object::Service(name.clone()), Some(part)));
        }
        changes
    }

    /// Looks at the connections that the switch kept from an earlier start: those to what is gone have to end.
    pub(super) fn kept(&mut self, connections: Vec<Connection>) {
        let known = self.known.values().map(|known| (&known.facts, &known.serving));
        self.stale.extend(left_over(connections, known));
    }

    /// Says what a Service claims; the others that this concerns.
    fn claim(&mut self, name: &str, store: &Store, here: &Here) -> BTreeSet<String> {
        let Some((service, slices)) = store.service(name) else { return self.claims.remove(name) };
        let slices: Vec<&EndpointSlice> = slices.iter().map(AsRef::as_ref).collect();
        match services::service(&service, &slices, here) {
            Some(facts) => self.claims.put(&service, &facts),
            None => self.claims.remove(name),
        }
    }

    /// What a Service is, with what it may claim.
    fn look(&mut self, name: &str, store: &Store, here: &Here) -> Option<Known> {
        self.checks.remove(name);
        let (service, slices) = store.service(name)?;
        let slices: Vec<&EndpointSlice> = slices.iter().map(AsRef::as_ref).collect();
        let mut facts = services::service(&service, &slices, here)?;
        let lost = self.claims.settle(&mut facts);
        let notes = services::notes(&service).into_iter().chain(lost.iter().map(ToString::to_string));
        self.tell(name, notes.collect());
        if let Some(check) = health(&service, &slices, here) {
            self.checks.insert(name.to_owned(), check);
        }
        let serving = services::serving(&service, &slices, here);
        Some(Known { facts, serving, learned: BTreeSet::new() })
    }

    /// Warns of what has not been warned of.
    fn tell(&mut self, name: &str, notes: BTreeSet<String>) {
        let before = self.told.remove(name).unwrap_or_default();
        for note in notes.difference(&before) {
            warn!("{note}");
        }
        if !notes.is_empty() {
            self.told.insert(name.to_owned(), notes);
        }
    }
}
