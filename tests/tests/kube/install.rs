//! Installing and uninstalling, by the forms that users have.

use crate::cluster::{Cluster, ROOT, within};
use crate::plain;
use std::path::PathBuf;
use std::process::Command;

/// What of a node must be gone: folders and files of ours.
const PLACES: [&str; 5] = [
    "/etc/cni/net.d/10-sluice.conflist",
    "/opt/cni/bin/sluice-cni",
    "/run/sluice",
    "/var/lib/cni/sluice",
    "/var/lib/sluice/*",
];

pub(crate) fn install(cluster: &Cluster) {
    if plain() {
        cluster.kubectl(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=60s"]);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = std::env::var_os("SLUICE_KUBE_IMAGE").map_or_else(
        || {
            let image = folder.path().join("sluice.tar");
            let made = Command::new(env!("CARGO"))
                .args(["xtask", "image", "--debug", "--output"])
                .arg(&image)
                .current_dir(ROOT)
                .output()
                .unwrap();
            assert!(made.status.success(), "cargo xtask image: {}", String::from_utf8_lossy(&made.stderr));
            image
        },
        PathBuf::from,
    );
    cluster.load(&image);
    cluster.kubectl(&["apply", "-k", &format!("{ROOT}/deploy/overlays/dev")]);
    cluster.await_agents();
}

pub(crate) fn uninstall(cluster: &Cluster) {
    let overlay = format!("{ROOT}/deploy/overlays/uninstall");
    // As the page says: first what is on the network, then the network.
    cluster.kubectl(&["delete", "deployments", "--all", "--all-namespaces"]);
    let pods = ["delete", "pods", "--all-namespaces", "--field-selector=spec.hostNetwork=false"];
    cluster.kubectl(&[&pods[..], &["--grace-period=1", "--timeout=60s"]].concat());
    cluster.kubectl(&["apply", "-k", &overlay]);
    cluster.kubectl(&["-n", "sluice-system", "rollout", "status", "daemonset/sluice", "--timeout=60s"]);
    for node in &cluster.nodes {
        for place in PLACES {
            let left = cluster.node(node, &["sh", "-c", &format!("ls -d {place} 2>/dev/null || true")]);
            assert_eq!(left, "", "{node} still has it");
        }
        let links = cluster.node(node, &["ip", "-brief", "link"]);
        let left: Vec<_> = links.lines().filter(|line| !line.starts_with("lo ") && !line.starts_with("eth0")).collect();
        assert!(left.is_empty(), "{node} has interfaces: {left:?}");
        let rules = cluster.node(node, &["nft", "list", "tables"]);
        assert!(!rules.contains("sluice"), "{node} has tables: {rules}");
        let routes = cluster.node(node, &["sh", "-c", "ip route; ip -6 route"]);
        assert!(!routes.contains("sluice"), "{node} has routes: {routes}");
    }
    cluster.kubectl(&["delete", "-k", &overlay, "--wait=false"]);
    within(120, "the namespace to be gone", || {
        let said = cluster.try_kubectl(&["get", "namespace", "sluice-system"]);
        if said.text.contains("NotFound") { Ok(()) } else { Err(said.text) }
    });
}
