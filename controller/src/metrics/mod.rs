//! The metrics of a node, for Prometheus.
//!
//! Numbers of the switch are asked for when somebody scrapes, over the connection that the program has ([`Switch`]); numbers of the controller itself
//! are kept as they come. Names begin with `sluice_`, units are base units, and what only grows ends in `_total`.
//!
//! # Limits
//! No label holds an address or a Pod unless that was asked for ([`Options::pods`]): series of Pods that come and go are what brings
//! Prometheus down. Even then there are at most [`MAX_POD_PORTS`] Pods; those beyond are counted
//! (`sluice_metric_series_capped_total`). One scrape is served at a time, and another within [`FRESH_FOR`] gets the same numbers. A
//! switch that does not answer within [`ANSWER_WITHIN`] is a metric too: `sluice_switch_up` is 0, and its numbers are missing.

mod encode;
mod process;
mod switch;
#[cfg(test)]
mod tests;

use crate::http::Health;
use crate::program::Switch;
use encode::SwitchNumbers;
pub(crate) use process::Process;
use prometheus_client::encoding::text;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use switch::Source;

/// What [`Metrics::page`] is written in.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How long the switch may take to answer.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long the numbers of the switch are used again.
pub const FRESH_FOR: Duration = Duration::from_secs(1);
/// How many Pods have series of their own, where they have.
pub const MAX_POD_PORTS: usize = 1_000;
/// The shortest time of a change that is told apart, in seconds; each step is twice the one before.
const SHORTEST_S: f64 = 0.001;
/// Number of these steps: up to 65 s.
const STEPS: u16 = 17;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// The bridge of the Pods.
    pub bridge: String,
    /// Whether each Pod's port has series of its own, with its namespace and name.
    pub pods: bool,
}

/// What the controller knows of the cluster and of its own work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Whether an API server answers.
    pub api_server: bool,
    /// Services that are programmed.
    pub services: usize,
    /// Of these, ports without any endpoint.
    pub ports_without_endpoints: usize,
    /// Endpoints that are chosen from, over all ports of Services.
    pub endpoints: usize,
    /// Endpoints of these that are on this node.
    pub local_endpoints: usize,
    /// Other nodes.
    pub peers: usize,
    /// The names of other nodes by the addresses that tunnels lead to.
    pub names: HashMap<IpAddr, String>,
    /// Objects whose change is not in the switch yet.
    pub pending: usize,
    /// Objects whose flows the switch refuses.
    pub refused: usize,
    /// Bundles of changes that the switch has taken.
    pub bundles: u64,
    /// Changes of flows and groups in them.
    pub changes: u64,
    /// How long these bundles took, summed up.
    pub bundle_time: Duration,
    /// Times that flows which others had changed were put right.
    pub mended: u64,
}

/// Adds to what the controller knows what is looked at when it is asked for.
type Look = Box<dyn Fn(&mut Known) + Send + Sync>;

/// The metrics.
pub struct Metrics {
    registry: Registry,
    numbers: Arc<SwitchNumbers>,
    source: tokio::sync::Mutex<(Source, Option<Instant>)>,
    delay: Histogram,
    known: Mutex<Known>,
    look: Look,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl Metrics {
    /// Nothing is asked for before the first scrape. `look` adds at each scrape to what [`Metrics::know`] was told, and must not block.
    #[must_use]
    pub fn new(
        switch: Switch,
        options: &Options,
        health: Health,
        look: impl Fn(&mut Known) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let mut registry = Registry::default();
        let delay = Histogram::new(exponential_buckets(SHORTEST_S, 2.0, STEPS));
        registry.register(
            "sluice_rule_sync_delay_seconds",
            "Time from a change in the cluster, as this node learned of it, to flows in force in the switch",
            delay.clone(),
        );
        let numbers = Arc::new(SwitchNumbers::new(options.pods, health));
        registry.register_collector(Box::new(Arc::clone(&numbers)));
        registry.register_collector(Box::new(Process));
        let source = tokio::sync::Mutex::new((Source::new(switch, options), None));
        Arc::new(Self { registry, numbers, source, delay, known: Mutex::default(), look: Box::new(look) })
    }

    /// Says what the controller knows from now on.
    pub fn know(&self, tell: impl FnOnce(&mut Known)) {
        tell(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Notes how long a change took from the time that this node learned of it until it was in force in the switch.
    pub fn synced(&self, took: Duration) {
        self.delay.observe(took.as_secs_f64());
    }

    /// All metrics as text.
    pub async fn page(&self) -> String {
        {
            let mut source = self.source.lock().await;
            if source.1.is_none_or(|at| at.elapsed() >= FRESH_FOR) {
                self.numbers.set_switch(source.0.ask().await);
                source.1 = Some(Instant::now());
            }
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.look)(&mut known);
        self.numbers.set_known(known);
        let mut page = String::new();
        if text::encode(&mut page, &self.registry).is_err() {
            tracing::warn!("metrics cannot be written");
        }
        page
    }
}
