//! The node role: it watches the cluster and programs the switch of its node.
//!
//! # The order at the start
//! The switch, the lists (or, if no API server answers within [`ANSWER_WITHIN`], their copy on disk), network and tunnel, all parts
//! at once, the attachments that wait, and then the description for the container runtime. Until the lists are there nothing of the
//! switch is touched: what an earlier start has programmed is in force, and stays so when this program ends or is killed.
//!
//! # What it keeps on disk
//! The copy ([`crate::copy`]), the policies that it was told and the number of the start ([`crate::program`]). All may be deleted: the
//! first two cost a start without API server, the last nothing.

mod conflist;
mod connections;
mod host;
mod network;
mod pods;
mod policies;
mod reconcile;
mod services;
mod sources;
mod transport;
mod view;

pub use conflist::{NAME as CONFLIST, NETWORK, PLUGIN, is_ours};

use crate::config::{Config, DEFAULT_NAMESPACE, NAMESPACE, NODE_NAME};
use crate::copy::{self, Copy};
use crate::http::{self, Health};
use crate::metrics::{self, Metrics};
use crate::program::{self, SwitchError};
use crate::services::health::{HealthChecks, PROXY_PORT, ProxyHealth};
use crate::watch::link::{Candidate, Link};
use crate::watch::{Store, reflect};
use policies::Policies;
use reconcile::Reconciler;
use sources::Sources;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tracing::{info, warn};

/// How long the lists may take before the copy is used.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Why not everything is in force. All of it is tried again.
#[derive(Debug, thiserror::Error)]
enum Fault {
    /// The cluster does not say yet what is needed.
    #[error("waiting: {0}")]
    Waiting(String),
    /// The network.
    #[error("the switch does not take the network: {0}")]
    Network(String),
    /// The tunnel.
    #[error("the switch does not make the tunnel: {0}")]
    Tunnel(String),
    /// Another call.
    #[error("the switch: {0}")]
    Switch(#[from] SwitchError),
    /// Flows.
    #[error("flows are not in force: {0}")]
    Unsettled(String),
    /// Flows of one object.
    #[error("the switch refuses flows of {0}: {1}")]
    Refused(String, String),
}

/// Why the node role does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Which node it is on is not known.
    #[error("the name of the node is not known: set {NODE_NAME}, or node_name in the configuration")]
    NoName,
    /// The state on disk.
    #[error("cannot keep state in {folder}: {source}")]
    State {
        /// Where.
        folder: String,
        /// What the system says.
        source: std::io::Error,
    },
}

/// The name of the node: of the configuration, the environment, or the host.
fn node_name(config: &Config) -> Result<String, StartError> {
    let environment = || std::env::var(NODE_NAME).ok().filter(|name| !name.is_empty());
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = config.node_name.clone().or_else(environment).or_else(host);
    let name = name.map(|name| name.trim().to_lowercase()).filter(|name| !name.is_empty());
    name.ok_or(StartError::NoName)
}

/// The namespace of the node role and of the cluster role, which the manifests set.
fn namespace() -> String {
    std::env::var(NAMESPACE).ok().filter(|name| !name.is_empty()).unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned())
}

/// Runs the node role without an end. Whoever drops the future ends it, at any moment, and leaves everything in force.
///
/// # Errors
/// [`StartError`].
pub async fn run(config: Config, candidates: Vec<Candidate>) -> Result<(), StartError> {
    let name = node_name(&config)?;
    info!("node {name}: mode {}, switch {}, bridge {}", config.mode, config.socket.display(), config.bridge);
    let program = program::Config {
        socket: config.socket.clone(),
        bridge: config.bridge.clone(),
        round_file: config.state.join("round"),
    };
    let state = |source| StartError::State { folder: config.state.display().to_string(), source };
    let (program, switch, events) = program::start(program).map_err(state)?;
    let store = Arc::new(Store::default());
    let (link, _looking) = Link::start(candidates);
    let sources = Arc::new(Sources::new(&name));
    let _reflectors = reflect::start(&link, &store);
    // With what was kept, so that a stream brings what has changed since.
    let mut policies = Policies::new(Arc::clone(&sources), &config.state);
    policies.load();
    let telling = sources::keep(Arc::clone(&sources), link.clone(), config.policy_source, namespace());
    let _telling = Aborting(tokio::spawn(telling));
    let health = ProxyHealth::default();
    let checks = HealthChecks::start(health.clone(), PROXY_PORT);
    let (parts, metrics) = told(&config, (&program, &switch), &link);
    let looking = Arc::clone(&sources);
    parts.tell("cluster-role", move || looking.state());
    let answering = http::answer_at(config.metrics_address, parts.clone(), Arc::clone(&metrics));
    let _answering = Aborting(tokio::spawn(answering));
    let copy = Copy::new(&config.state);
    lists(&store, &sources, &copy).await;
    let _copying = Aborting(tokio::spawn(copy::keep(copy, Arc::clone(&store))));
    Reconciler::new(config, name, (store, policies, link), (program, switch), (checks, health), (parts, metrics))
        .run(events)
        .await;
    Ok(())
}

/// What probes and metrics tell.
fn told(
    config: &Config,
    (program, switch): (&program::Program, &program::Switch),
    link: &Link,
) -> (Health, Arc<Metrics>) {
    let parts = Health::default();
    parts.set(
        "node",
        Err("the cluster has not been looked at yet; the log says whether an API server answers".to_owned()),
    );
    let (program, looked, link) = (program.clone(), program.clone(), link.clone());
    parts.look("switch", move || {
        let status = program.status();
        let why = || status.last_error.map_or_else(|| "nobody has answered yet".to_owned(), |(_, why)| why);
        if status.connected { Ok(()) } else { Err(why()) }
    });
    let looking = link.clone();
    parts.tell("api-server", move || looking.state());
    let options = metrics::Options { bridge: config.bridge.clone(), pods: config.metrics_pods };
    let metrics = Metrics::new(switch.clone(), &options, parts.clone(), move |known| {
        let status = looked.status();
        known.api_server = link.is_up();
        (known.pending, known.refused) = (status.pending, status.refused.len());
        (known.bundles, known.changes, known.mended) = (status.bundles, status.changes, status.mended);
        known.bundle_time = status.bundle_time;
    });
    (parts, metrics)
}

/// A task that ends when this is dropped.
struct Aborting(tokio::task::JoinHandle<()>);

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Waits for the lists, or takes their copy.
async fn lists(store: &Store, sources: &Sources, copy: &Copy) {
    let complete = async { tokio::join!(store.complete(), sources.complete()) };
    if timeout(ANSWER_WITHIN, complete).await.is_ok() || store.is_complete() {
        return;
    }
    match copy.load() {
        Ok(Some(objects)) => {
            info!(
                "no API server yet; starting with the copy on disk: nodes {}, Services {}",
                objects.nodes.len(),
                objects.services.len()
            );
            store.preload(objects);
            return;
        }
        Ok(None) => info!("no API server yet, and no copy on disk: waiting for the API server"),
        Err(error) => warn!("{error}; waiting for the API server"),
    }
    store.complete().await;
}
