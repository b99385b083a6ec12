//! Where the cluster role is: a ConfigMap that its leader writes, and that nodes watch.
//!
//! The ConfigMap comes with the cluster role's manifests and goes with them, so that it is there says that there is a cluster role,
//! and what is in it says who leads. Its name and those of its keys are the contract.

use super::Place;
use crate::watch::link::{Complaints, Link, chain};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use std::collections::BTreeMap;
use tokio::sync::watch;
use tracing::{info, warn};

/// The name of the ConfigMap, the Secret and the Lease of the cluster role.
pub const NAME: &str = "sluice-cluster";
/// The key with address and port of who leads.
pub const ADDRESS: &str = "address";
/// The key with the certificates of the authorities, in PEM.
pub const BUNDLE: &str = "ca.crt";

/// What is known of the cluster role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    /// Nobody has been asked yet.
    #[default]
    Unknown,
    /// There is none.
    Absent,
    /// There is one, and nobody has led yet.
    Nobody,
    /// It is there.
    At(Place),
}

fn read(data: Option<&BTreeMap<String, String>>) -> Seen {
    let get = |key| data.and_then(|data| data.get(key)).filter(|text| !text.is_empty());
    match (get(ADDRESS), get(BUNDLE)) {
        (Some(address), Some(bundle)) => Seen::At(Place { address: address.clone(), bundle: bundle.clone() }),
        _ => Seen::Nobody,
    }
}

/// Keeps `seen` as the API server says, without an end.
pub async fn look(mut link: Link, namespace: String, seen: watch::Sender<Seen>) {
    let complaints = link.complaints();
    while let Some(client) = link.client().await {
        tokio::select! {
            () = watch_one(client, &namespace, &complaints, &seen) => {}
            () = link.changed() => {}
        }
    }
}

async fn watch_one(client: Client, namespace: &str, complaints: &Complaints, seen: &watch::Sender<Seen>) {
    let config = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
    let mut events = watcher(Api::<ConfigMap>::namespaced(client, namespace), config).default_backoff().boxed();
    let mut listed = Seen::Absent;
    let mut fault = false;
    while let Some(event) = events.next().await {
        let now = match event {
            Ok(Event::Init) => {
                listed = Seen::Absent;
                continue;
            }
            Ok(Event::InitApply(object)) => {
                listed = read(object.data.as_ref());
                continue;
            }
            Ok(Event::InitDone) => listed.clone(),
            Ok(Event::Apply(object)) => read(object.data.as_ref()),
            Ok(Event::Delete(_)) => Seen::Absent,
            Err(error) => {
                if !std::mem::replace(&mut fault, true) {
                    warn!(
                        "cannot look for the ConfigMap {namespace}/{NAME} of the cluster role, trying on: {}",
                        chain(&error)
                    );
                }
                complaints.complain();
                continue;
            }
        };
        fault = false;
        let is_new = seen.send_if_modified(|seen| {
            let is_new = *seen != now;
            *seen = now.clone();
            is_new
        });
        if is_new {
            match &now {
                Seen::At(place) => info!("the cluster role is at {}", place.address),
                Seen::Nobody => info!("there is a cluster role, and nobody of it has led yet"),
                Seen::Absent | Seen::Unknown => info!("there is no cluster role"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leads_is_known_by_address_and_authorities_together() {
        let data = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(read(None), Seen::Nobody);
        assert_eq!(read(Some(&data(&[(ADDRESS, "192.0.2.1:9478")]))), Seen::Nobody);
        assert_eq!(read(Some(&data(&[(ADDRESS, "192.0.2.1:9478"), (BUNDLE, "")]))), Seen::Nobody);
        let place = Place { address: "192.0.2.1:9478".to_owned(), bundle: "PEM".to_owned() };
        assert_eq!(read(Some(&data(&[(ADDRESS, "192.0.2.1:9478"), (BUNDLE, "PEM")]))), Seen::At(place));
    }
}
