//! What policies are made from: Pods, namespaces, nodes and policies, as the API server lists them, in a [`Cluster`].
//!
//! The cluster itself keeps what it is given, in a form of its own, so nothing of the objects is kept beside it but their names: a
//! list takes away what it does not have. Resources that the cluster does not have (the Network Policy API is an addition) count as
//! listed and empty, and are looked for again now and then.

use super::link::{Complaints, Link, chain};
use super::reflect::{PAGE_SIZE, is_missing};
use crate::facts::policy::{PolicyKind, PolicyName, State, Update};
use crate::policy::{Cluster, crd};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{info, warn};

/// How often a kind that the cluster does not have is looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How many kinds are listed.
const KINDS: usize = 7;

/// A kind of object that policies are made from.
trait Fed: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static {
    /// Its place in the list of kinds, below [`KINDS`].
    const INDEX: usize;
    /// What people call it.
    const WHAT: &'static str;
    /// Whether a cluster may do without it.
    const IS_OPTIONAL: bool = false;
    fn put(&self, cluster: &mut Cluster);
    fn remove(name: &Name, cluster: &mut Cluster);
}

/// Namespace, empty for none, and name.
type Name = (String, String);

macro_rules! fed {
    ($($kind:ty, $index:literal, $what:literal, $optional:literal, $put:ident, |$name:ident, $cluster:ident| $remove:expr;)+) => {
        $(impl Fed for $kind {
            const INDEX: usize = $index;
            const WHAT: &'static str = $what;
            const IS_OPTIONAL: bool = $optional;

            fn put(&self, cluster: &mut Cluster) {
                cluster.$put(self);
            }

            fn remove($name: &Name, $cluster: &mut Cluster) {
                $remove;
            }
        })+
    };
}

fed! {
    Pod, 0, "Pods", false, put_pod, |name, cluster| cluster.remove_pod(&name.0, &name.1);
    Namespace, 1, "Namespaces", false, put_namespace, |name, cluster| cluster.remove_namespace(&name.1);
    Node, 2, "Nodes", false, put_node, |name, cluster| cluster.remove_node(&name.1);
    NetworkPolicy, 3, "NetworkPolicies", false, put_network_policy,
        |name, cluster| cluster.remove_policy(&policy(PolicyKind::NetworkPolicy, name));
    crd::ClusterNetworkPolicy, 4, "ClusterNetworkPolicies", true, put_cluster_network_policy,
        |name, cluster| cluster.remove_policy(&policy(PolicyKind::ClusterNetworkPolicy, name));
    crd::AdminNetworkPolicy, 5, "AdminNetworkPolicies", true, put_admin_network_policy,
        |name, cluster| cluster.remove_policy(&policy(PolicyKind::AdminNetworkPolicy, name));
    crd::BaselineAdminNetworkPolicy, 6, "BaselineAdminNetworkPolicies", true, put_baseline_admin_network_policy,
        |name, cluster| cluster.remove_policy(&policy(PolicyKind::BaselineAdminNetworkPolicy, name));
}

fn policy(kind: PolicyKind, (namespace, name): &Name) -> PolicyName {
    PolicyName { kind, namespace: namespace.clone(), name: name.clone() }
}

fn name(object: &impl Resource) -> Name {
    let meta = object.meta();
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

/// The cluster's policies, for one node or for all.
#[derive(Debug)]
pub struct Source {
    cluster: Mutex<Cluster>,
    listed: watch::Sender<[bool; KINDS]>,
    changed: Notify,
}

impl Source {
    /// Nothing yet; for one node alone if it is said which.
    #[must_use]
    pub fn new(only: Option<&str>) -> Self {
        Self {
            cluster: Mutex::new(Cluster::for_nodes(only)),
            listed: watch::Sender::new([false; KINDS]),
            changed: Notify::new(),
        }
    }

    /// What is known, to be asked what it means for whom.
    pub fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that a node has to know, which is told to it by this: [`Self::updates`] has what changes from here on.
    pub fn state(&self, node: &str) -> State {
        let mut cluster = self.cluster();
        cluster.take_node(node);
        cluster.state(node)
    }

    /// What has changed for a node since it was asked last.
    pub fn updates(&self, node: &str) -> Vec<Update> {
        self.cluster().take_node(node)
    }

    /// Waits until something may have changed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Whether every kind has been listed once.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.listed.borrow().iter().all(|one| *one)
    }

    /// Waits until every kind has been listed once.
    pub async fn complete(&self) {
        // The sender is ours, so there is no end of it while we wait.
        _ = self.listed.subscribe().wait_for(|listed| listed.iter().all(|one| *one)).await;
    }

    /// All kinds count as listed: for what does not come from an API server.
    pub fn assume_listed(&self) {
        self.listed.send_replace([true; KINDS]);
        self.changed.notify_one();
    }

    /// Changes what is known.
    pub fn change(&self, change: impl FnOnce(&mut Cluster)) {
        change(&mut self.cluster());
        self.changed.notify_one();
    }

    fn put<K: Fed>(&self, object: &K) {
        self.change(|cluster| object.put(cluster));
    }

    fn remove<K: Fed>(&self, name: &Name) {
        self.change(|cluster| K::remove(name, cluster));
    }

    /// The list as the API server has it; `known` are the names that were there, and are those of the list then.
    fn replace<K: Fed>(&self, objects: &[K], known: &mut BTreeSet<Name>) {
        let names: BTreeSet<Name> = objects.iter().map(name).collect();
        let mut cluster = self.cluster();
        objects.iter().for_each(|object| object.put(&mut cluster));
        known.difference(&names).for_each(|gone| K::remove(gone, &mut cluster));
        drop(cluster);
        *known = names;
        self.listed.send_modify(|listed| {
            if let Some(one) = listed.get_mut(K::INDEX) {
                *one = true;
            }
        });
        self.changed.notify_one();
    }
}

/// Starts all reflectors; they end with the set.
#[must_use]
pub fn start(link: &Link, source: &Arc<Source>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(run::<Pod>(link.clone(), Arc::clone(source)));
    tasks.spawn(run::<Namespace>(link.clone(), Arc::clone(source)));
    tasks.spawn(run::<Node>(link.clone(), Arc::clone(source)));
    tasks.spawn(run::<NetworkPolicy>(link.clone(), Arc::clone(source)));
    tasks.spawn(run::<crd::ClusterNetworkPolicy>(link.clone(), Arc::clone(source)));
    tasks.spawn(run::<crd::AdminNetworkPolicy>(link.clone(), Arc::clone(source)));
    tasks.spawn(run::<crd::BaselineAdminNetworkPolicy>(link.clone(), Arc::clone(source)));
    tasks
}

async fn run<K: Fed>(mut link: Link, source: Arc<Source>) {
    let complaints = link.complaints();
    let mut known = BTreeSet::new();
    while let Some(client) = link.client().await {
        tokio::select! {
            () = follow::<K>(client, &complaints, &source, &mut known) => {}
            () = link.changed() => {}
        }
    }
}

/// Keeps the cluster as `client` says, without an end.
async fn follow<K: Fed>(client: Client, complaints: &Complaints, source: &Source, known: &mut BTreeSet<Name>) {
    let config = watcher::Config::default().page_size(PAGE_SIZE);
    let mut events = watcher(Api::<K>::all(client), config).default_backoff().boxed();
    let mut list = Vec::new();
    let (mut fault, mut missing) = (false, false);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                // A list that begins says nothing of what comes of it.
                if !matches!(event, Event::Init) && (std::mem::take(&mut fault) | std::mem::take(&mut missing)) {
                    info!("{} are listed", K::WHAT);
                }
                take(event, &mut list, source, known);
            }
            Err(error) if K::IS_OPTIONAL && is_missing(&error) => {
                if !std::mem::replace(&mut missing, true) {
                    info!("the cluster has no {}: nothing is to be done for them", K::WHAT);
                    source.replace::<K>(&[], known);
                }
                // The watcher itself would ask every second: whenever it begins, it takes the fault for over.
                sleep(LOOK_AGAIN).await;
            }
            Err(error) => {
                if !std::mem::replace(&mut fault, true) {
                    warn!("cannot list {}, trying on: {}", K::WHAT, chain(&error));
                }
                complaints.complain();
            }
        }
    }
}

fn take<K: Fed>(event: Event<K>, list: &mut Vec<K>, source: &Source, known: &mut BTreeSet<Name>) {
    match event {
        Event::Init => list.clear(),
        Event::InitApply(object) => list.push(object),
        Event::InitDone => source.replace(&std::mem::take(list), known),
        Event::Apply(object) => {
            source.put(&object);
            known.insert(name(&object));
        }
        Event::Delete(object) => {
            let name = name(&object);
            source.remove::<K>(&name);
            known.remove(&name);
        }
    }
}
