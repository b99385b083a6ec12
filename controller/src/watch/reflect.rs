//! Reflectors: they keep the store as the API server has it.
//!
//! Each kind has one task. It lists, watches from there on, and lists again whenever the watch cannot go on; a list replaces all
//! that was there, so that what was deleted meanwhile goes too. When [`Link`] gives another way to the API server, every task
//! starts again on that.

use super::link::{Complaints, Link};
use super::store::{Kept, Store};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;
use tokio::task::JoinSet;
use tracing::{info, warn};

/// Services and slices that others take care of: headless ones have no address, and a `service-proxy-name` names another program.
const SERVICES: &str = "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless";
/// How many objects are asked for at a time.
pub(super) const PAGE_SIZE: u32 = 500;

/// Starts all reflectors; they end with the set.
#[must_use]
pub fn start(link: &Link, store: &Arc<Store>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let config = watcher::Config::default().page_size(PAGE_SIZE);
    let services = config.clone().labels(SERVICES);
    tasks.spawn(run::<Node>("Nodes", link.clone(), Arc::clone(store), config.clone()));
    tasks.spawn(run::<Service>("Services", link.clone(), Arc::clone(store), services.clone()));
    tasks.spawn(run::<EndpointSlice>("EndpointSlices", link.clone(), Arc::clone(store), services));
    tasks.spawn(run::<ServiceCIDR>("ServiceCIDRs", link.clone(), Arc::clone(store), config));
    tasks
}

async fn run<K>(what: &'static str, mut link: Link, store: Arc<Store>, config: watcher::Config)
where
    K: Kept + Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let complaints = link.complaints();
    while let Some(client) = link.client().await {
        tokio::select! {
            () = follow::<K>(what, client, &complaints, &store, &config) => {}
            () = link.changed() => {}
        }
    }
}

/// Keeps the store as `client` says, without an end.
async fn follow<K>(what: &'static str, client: Client, complaints: &Complaints, store: &Store, config: &watcher::Config)
where
    K: Kept + Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = watcher(Api::<K>::all(client), config.clone()).default_backoff().boxed();
    let mut list = Vec::new();
    let mut fault = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                // A list that begins says nothing of what comes of it.
                if !matches!(event, Event::Init) && std::mem::take(&mut fault) {
                    info!("{what} are listed again");
                }
                take(event, &mut list, store);
            }
            // Clusters before 1.33 have no ServiceCIDRs.
            Err(error) if K::INDEX == ServiceCIDR::INDEX && is_missing(&error) => {
                warn!("the cluster has no {what}: say service_cidrs in the configuration");
                store.replace::<K>(Vec::new());
                std::future::pending::<()>().await;
            }
            Err(error) => {
                if !std::mem::replace(&mut fault, true) {
                    warn!("cannot list {what}, trying on: {}", super::link::chain(&error));
                }
                complaints.complain();
            }
        }
    }
}

fn take<K: Kept>(event: Event<K>, list: &mut Vec<K>, store: &Store) {
    match event {
        Event::Init => list.clear(),
        Event::InitApply(object) => list.push(object.trimmed()),
        Event::InitDone => store.replace(std::mem::take(list)),
        Event::Apply(object) => store.put(object),
        Event::Delete(object) => store.remove(&object),
    }
}

pub(super) fn is_missing(error: &watcher::Error) -> bool {
    let error = match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => error,
        _ => return false,
    };
    matches!(error, kube::Error::Api(status) if status.code == 404)
}
