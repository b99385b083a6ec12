//! The objects of the cluster that a node looks at.

use super::table::{Place, Table};
use super::touched::{Kind, Touched};
use super::trim;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;

/// The label of an EndpointSlice with its Service's name.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// How many kinds are listed.
const KINDS: usize = 4;

/// All objects as lists, trimmed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Objects {
    /// Nodes.
    #[serde(default)]
    pub nodes: Vec<Node>,
    /// Services.
    #[serde(default)]
    pub services: Vec<Service>,
    /// EndpointSlices.
    #[serde(default)]
    pub slices: Vec<EndpointSlice>,
    /// ServiceCIDRs.
    #[serde(default)]
    pub service_cidrs: Vec<ServiceCIDR>,
}

#[derive(Debug, Default)]
pub(super) struct Tables {
    nodes: Table<Node>,
    services: Table<Service>,
    slices: Table<EndpointSlice>,
    service_cidrs: Table<ServiceCIDR>,
}

/// A kind of object that is kept.
pub(super) trait Kept: Sized + PartialEq {
    /// What is touched with it.
    const KIND: Kind;
    /// Its place in the list of kinds, below [`KINDS`].
    const INDEX: usize;
    fn trimmed(self) -> Self;
    fn metadata(&self) -> &ObjectMeta;
    fn table(tables: &mut Tables) -> &mut Table<Self>;

    /// Its own name.
    fn key(&self) -> String {
        let metadata = self.metadata();
        let name = metadata.name.as_deref().unwrap_or_default();
        match &metadata.namespace {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name.to_owned(),
        }
    }

    /// The name that is touched with it.
    fn owner(&self) -> String {
        self.key()
    }
}

impl Kept for Node {
    const KIND: Kind = Kind::Node;
    const INDEX: usize = 0;

    fn trimmed(self) -> Self {
        trim::node(self)
    }

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn table(tables: &mut Tables) -> &mut Table<Self> {
        &mut tables.nodes
    }
}

impl Kept for Service {
    const KIND: Kind = Kind::Service;
    const INDEX: usize = 1;

    fn trimmed(self) -> Self {
        trim::service(self)
    }

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn table(tables: &mut Tables) -> &mut Table<Self> {
        &mut tables.services
    }
}

impl Kept for EndpointSlice {
    const KIND: Kind = Kind::Service;
    const INDEX: usize = 2;

    fn trimmed(self) -> Self {
        trim::slice(self)
    }

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn table(tables: &mut Tables) -> &mut Table<Self> {
        &mut tables.slices
    }

    fn owner(&self) -> String {
        let name = self.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
        let namespace = self.metadata.namespace.as_deref().unwrap_or_default();
        format!("{namespace}/{}", name.map_or("", String::as_str))
    }
}

impl Kept for ServiceCIDR {
    const KIND: Kind = Kind::ServiceCidrs;
    const INDEX: usize = 3;

    fn trimmed(self) -> Self {
        trim::service_cidr(self)
    }

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn table(tables: &mut Tables) -> &mut Table<Self> {
        &mut tables.service_cidrs
    }

    fn owner(&self) -> String {
        String::new()
    }
}

/// The objects, who is told of changes, and which kinds have been listed.
#[derive(Debug)]
pub struct Store {
    tables: RwLock<Tables>,
    /// What has to be looked at.
    pub touched: Touched,
    listed: watch::Sender<[bool; KINDS]>,
    changes: watch::Sender<u64>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            tables: RwLock::default(),
            touched: Touched::default(),
            listed: watch::Sender::new([false; KINDS]),
            changes: watch::Sender::new(0),
        }
    }
}

impl Store {
    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, kind: Kind, touched: Vec<String>) {
        if !touched.is_empty() {
            self.touched.touch(kind, touched);
            self.changes.send_modify(|count| *count += 1);
        }
    }

    pub(super) fn put<K: Kept>(&self, object: K) {
        let object = object.trimmed();
        let place = Place { owner: object.owner(), key: object.key() };
        let touched = K::table(&mut self.write()).put(place, object);
        self.note(K::KIND, touched);
    }

    pub(super) fn remove<K: Kept>(&self, object: &K) {
        let touched = K::table(&mut self.write()).remove(&object.key());
        self.note(K::KIND, touched);
    }

    fn replace_untold<K: Kept>(&self, objects: Vec<K>) {
        let all = objects
            .into_iter()
            .map(|object| {
                let object = object.trimmed();
                (Place { owner: object.owner(), key: object.key() }, object)
            })
            .collect();
        let touched = K::table(&mut self.write()).replace(all);
        self.note(K::KIND, touched);
    }

    /// The list as the API server has it.
    pub(super) fn replace<K: Kept>(&self, objects: Vec<K>) {
        self.replace_untold(objects);
        self.listed.send_modify(|listed| {
            if let Some(one) = listed.get_mut(K::INDEX) {
                *one = true;
            }
        });
    }

    /// Puts in what a copy has, of those kinds that have not been listed yet.
    pub fn preload(&self, objects: Objects) {
        let listed = *self.listed.borrow();
        if !listed[Node::INDEX] {
            self.replace_untold(objects.nodes);
        }
        if !listed[Service::INDEX] {
            self.replace_untold(objects.services);
        }
        if !listed[EndpointSlice::INDEX] {
            self.replace_untold(objects.slices);
        }
        if !listed[ServiceCIDR::INDEX] {
            self.replace_untold(objects.service_cidrs);
        }
    }

    /// Waits until every kind has been listed once.
    pub async fn complete(&self) {
        // The sender is ours, so there is no end of it while we wait.
        _ = self.listed.subscribe().wait_for(|listed| listed.iter().all(|one| *one)).await;
    }

    /// Whether every kind has been listed once.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.listed.borrow().iter().all(|one| *one)
    }

    /// A count that grows with every change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// All objects, sorted.
    #[must_use]
    pub fn objects(&self) -> Objects {
        let tables = self.read();
        Objects {
            nodes: tables.nodes.all().map(|object| (**object).clone()).collect(),
            services: tables.services.all().map(|object| (**object).clone()).collect(),
            slices: tables.slices.all().map(|object| (**object).clone()).collect(),
            service_cidrs: tables.service_cidrs.all().map(|object| (**object).clone()).collect(),
        }
    }

    /// A node.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<Arc<Node>> {
        self.read().nodes.of(name).next().cloned()
    }

    /// The names of all nodes.
    #[must_use]
    pub fn node_names(&self) -> BTreeSet<String> {
        self.read().nodes.owners()
    }

    /// A Service, as `NAMESPACE/NAME`, with its slices.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<(Arc<Service>, Vec<Arc<EndpointSlice>>)> {
        let tables = self.read();
        let service = tables.services.of(name).next()?.clone();
        Some((service, tables.slices.of(name).cloned().collect()))
    }

    /// The names of all Services, as `NAMESPACE/NAME`.
    #[must_use]
    pub fn service_names(&self) -> BTreeSet<String> {
        self.read().services.owners()
    }

    /// The networks of Services' addresses, sorted.
    #[must_use]
    pub fn service_cidrs(&self) -> Vec<IpNet> {
        let tables = self.read();
        let specs = tables.service_cidrs.all().filter_map(|cidr| cidr.spec.as_ref()?.cidrs.as_ref());
        let all: BTreeSet<IpNet> = specs.flatten().filter_map(|text| text.parse().ok()).collect();
        all.into_iter().collect()
    }
}
