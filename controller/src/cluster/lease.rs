//! Who leads: a Lease, which one instance holds and renews.
//!
//! While no API server answers, this instance goes on as it was: nobody could tell another one that it may lead, unless that
//! one is answered, and then nodes go by the ConfigMap, which the other one writes.

use super::{Config, PAUSE};
use crate::stream::places::NAME;
use crate::watch::link::{Link, chain};
use kube::Client;
use kube_lease_manager::{LeaseCreateMode, LeaseManagerBuilder};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

/// How long a lease is good for without being renewed, in seconds.
const LEASE_S: u64 = 15;
/// How much earlier than that it is renewed, in seconds; clocks of nodes may differ by as much.
const EARLIER_S: u64 = 10;
/// How long it may take to find that the lease is ours still.
const OURS_WITHIN: Duration = Duration::from_secs(10);
/// How long giving it up may take.
const GIVE_UP_WITHIN: Duration = Duration::from_secs(3);

/// Says in `leads` whether this instance leads, until `end` is true; then the lease is given up.
pub(super) async fn hold(mut link: Link, config: Config, leads: watch::Sender<bool>, mut end: watch::Receiver<bool>) {
    loop {
        let client = tokio::select! {
            client = link.client() => client,
            _ = end.wait_for(|is| *is) => return,
        };
        let Some(client) = client else { return };
        let is_over = tokio::select! {
            is_over = with(client, &config, &leads, &mut end) => is_over,
            () = link.changed() => false,
        };
        if is_over {
            return;
        }
        sleep(PAUSE).await;
    }
}

/// Holds it by one client; whether the end has come.
async fn with(client: Client, config: &Config, leads: &watch::Sender<bool>, end: &mut watch::Receiver<bool>) -> bool {
    let manager = LeaseManagerBuilder::new(client, NAME)
        .with_namespace(&config.namespace)
        .with_create_mode(LeaseCreateMode::UseExistent)
        .with_identity(&config.name)
        .with_field_manager(format!("{NAME}-{}", config.name))
        .with_duration(LEASE_S)
        .with_grace(EARLIER_S)
        .build();
    let manager = match manager.await {
        Ok(manager) => manager,
        Err(error) => {
            warn!(
                "cannot read the Lease {}/{NAME}: {}; apply the manifests of the cluster role again; trying on",
                config.namespace,
                chain(&error)
            );
            return false;
        }
    };
    let (mut channel, task) = manager.watch().await;
    // It says nothing as long as another instance holds the lease.
    if timeout(OURS_WITHIN, channel.wait_for(|leads| *leads)).await.is_err() {
        tell(leads, false);
    }
    loop {
        tell(leads, *channel.borrow_and_update());
        tokio::select! {
            changed = channel.changed() => if changed.is_err() {
                debug!("the lease is not looked after any more, beginning again");
                return false;
            },
            _ = end.wait_for(|is| *is) => break,
        }
    }
    drop(channel);
    _ = timeout(GIVE_UP_WITHIN, task).await;
    true
}

fn tell(leads: &watch::Sender<bool>, now: bool) {
    leads.send_if_modified(|before| std::mem::replace(before, now) != now);
}
