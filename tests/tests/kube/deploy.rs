//! What is shipped beside the DaemonSet: other overlays, and the numbers that Prometheus asks for.

use crate::cluster::{Cluster, ROOT};

/// Overlays for clusters of other kinds.
const OVERLAYS: [&str; 5] = ["kind", "k3s", "kubeadm", "uninstall", "k3s-uninstall"];

pub(crate) fn overlays(cluster: &Cluster) {
    for overlay in OVERLAYS {
        let folder = format!("{ROOT}/deploy/overlays/{overlay}");
        let said = cluster.kubectl(&["apply", "--dry-run=server", "-k", &folder]);
        assert!(said.contains("daemonset.apps/sluice"), "{overlay}: {said}");
        assert!(!said.contains("Warning"), "{overlay}: {said}");
    }
}

/// The value of a metric without labels.
fn value(page: &str, name: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.split(' ').next() == Some(name))?;
    line.split(' ').nth(1)?.parse().ok()
}

pub(crate) fn metrics(cluster: &Cluster) {
    let others = (cluster.nodes.len() - 1) as f64;
    for node in &cluster.nodes {
        // By the address that Prometheus asks.
        let address = &cluster.outside_addresses(node)[0];
        let url = format!("http://{}:9477/metrics", crate::cluster::host(address));
        let page = cluster.node("control", &["curl", "-sSg", "-m", "10", &url]);
        assert_eq!(value(&page, "sluice_switch_up"), Some(1.0), "{node}: {page}");
        assert_eq!(value(&page, "sluice_peers"), Some(others), "{node}: {page}");
        assert!(value(&page, "sluice_services").is_some_and(|count| count > 0.0), "{node}: {page}");
    }
}
