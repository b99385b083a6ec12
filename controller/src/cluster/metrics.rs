//! The metrics of the cluster role.

use crate::metrics::Process;
use crate::stream::{Hub, Sums};
use crate::watch::link::Link;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The metrics.
pub(super) struct ClusterMetrics {
    registry: Registry,
    numbers: Arc<Numbers>,
}

struct Numbers {
    link: Link,
    hub: Mutex<(Option<Arc<Hub>>, Sums)>,
}

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Numbers").finish_non_exhaustive()
    }
}

impl Numbers {
    fn hub(&self) -> MutexGuard<'_, (Option<Arc<Hub>>, Sums)> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of this time of leading, and of those before.
    fn sums(&self) -> (bool, Sums) {
        let hub = self.hub();
        let now = hub.0.as_ref().map(|hub| hub.sums());
        (now.is_some(), now.map_or(hub.1, |now| with(hub.1, now)))
    }
}

fn with(before: Sums, now: Sums) -> Sums {
    Sums {
        nodes: now.nodes,
        streams: before.streams.saturating_add(now.streams),
        batches: before.batches.saturating_add(now.batches),
        updates: before.updates.saturating_add(now.updates),
        bytes: before.bytes.saturating_add(now.bytes),
        computations: before.computations.saturating_add(now.computations),
        compute_time: before.compute_time.saturating_add(now.compute_time),
    }
}

impl ClusterMetrics {
    pub(super) fn new(link: Link) -> Arc<Self> {
        let numbers = Arc::new(Numbers { link, hub: Mutex::default() });
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Shared(Arc::clone(&numbers))));
        registry.register_collector(Box::new(Process));
        Arc::new(Self { registry, numbers })
    }

    /// This instance leads with these streams, or does not.
    pub(super) fn set_hub(&self, hub: Option<Arc<Hub>>) {
        let mut now = self.numbers.hub();
        if let Some(before) = now.0.take() {
            now.1 = Sums { nodes: 0, ..with(now.1, before.sums()) };
        }
        now.0 = hub;
    }

    /// Whether this instance leads.
    pub(super) fn leads(&self) -> bool {
        self.numbers.hub().0.is_some()
    }

    /// All metrics as text.
    pub(super) fn page(&self) -> String {
        let mut page = String::new();
        if text::encode(&mut page, &self.registry).is_err() {
            tracing::warn!("metrics cannot be written");
        }
        page
    }
}

#[derive(Debug)]
struct Shared(Arc<Numbers>);

#[expect(clippy::cast_precision_loss, reason = "a number that large is never reached, and would be told well enough")]
impl Collector for Shared {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (leads, sums) = self.0.sums();
        let flag = |is| if is { 1.0 } else { 0.0 };
        for (name, help, value) in [
            ("sluice_api_server_up", "Whether an API server answers", flag(self.0.link.is_up())),
            ("sluice_cluster_leader", "Whether this instance leads", flag(leads)),
            ("sluice_cluster_nodes", "Nodes that have a stream of policies", sums.nodes as f64),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        for (name, help, value) in [
            ("sluice_cluster_streams", "Streams of policies that nodes have begun", sums.streams as f64),
            ("sluice_cluster_batches", "Batches of updates that were sent to nodes", sums.batches as f64),
            ("sluice_cluster_updates", "Updates of policies and groups that were sent to nodes", sums.updates as f64),
            ("sluice_cluster_sent_bytes", "Bytes of updates that were sent to nodes", sums.bytes as f64),
            (
                "sluice_cluster_computations",
                "Times that it was worked out what nodes have to be told",
                sums.computations as f64,
            ),
            (
                "sluice_cluster_compute_seconds",
                "Time that it took to work out what nodes have to be told",
                sums.compute_time.as_secs_f64(),
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::policies::Source;
    use std::collections::BTreeSet;

    #[tokio::test]
    async fn the_page_of_policies_names_every_metric_of_the_cluster_role() {
        let (link, _looking) = Link::start(Vec::new());
        let metrics = ClusterMetrics::new(link);
        assert!(!metrics.leads());
        metrics.set_hub(Some(Hub::new(Arc::new(Source::new(None)))));
        assert!(metrics.leads());
        let page = metrics.page();
        let samples = page.lines().filter(|line| line.starts_with("sluice_"));
        let names: BTreeSet<&str> = samples.filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(names.len(), 9, "{names:?}");
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kubernetes-policy.md");
        let text = std::fs::read_to_string(&path).unwrap();
        let missing: Vec<_> = names.iter().filter(|name| !text.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty(), "{} does not have {missing:?}", path.display());
    }

    #[test]
    fn what_was_sent_is_summed_up_over_all_times_of_leading() {
        let before = Sums { nodes: 3, streams: 4, bytes: 100, ..Sums::default() };
        let now = Sums { nodes: 2, streams: 1, bytes: 10, ..Sums::default() };
        assert_eq!(with(before, now), Sums { nodes: 2, streams: 5, bytes: 110, ..Sums::default() });
    }
}
