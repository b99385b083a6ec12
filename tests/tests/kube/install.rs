//! Installing and uninstalling, by the forms that users have.

use crate::cluster::{Cluster, ROOT, SYSTEM, within};
use crate::plain;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What of a node must be gone: folders and files of ours.
const PLACES: [&str; 5] = [
    "/etc/cni/net.d/10-sluice.conflist",
    "/opt/cni/bin/sluice-cni",
    "/run/sluice",
    "/var/lib/cni/sluice",
    "/var/lib/sluice/*",
];

/// The archive that clusters are given.
static IMAGE: OnceLock<PathBuf> = OnceLock::new();

/// Finds the image, or makes it in a folder.
pub(crate) fn make_image(folder: &Path) {
    let make = || {
        let image = folder.join("sluice.tar");
        let mut command = Command::new(env!("CARGO"));
        command.args(["xtask", "image", "--debug", "--output"]).arg(&image).current_dir(ROOT);
        let made = command.output().unwrap();
        assert!(made.status.success(), "cargo xtask image: {}", String::from_utf8_lossy(&made.stderr));
        image
    };
    IMAGE.set(std::env::var_os("SLUICE_KUBE_IMAGE").map_or_else(make, PathBuf::from)).unwrap();
}

pub(crate) fn install(cluster: &Cluster) {
    if plain() {
        cluster.kubectl(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=60s"]);
        return;
    }
    cluster.load(IMAGE.get().unwrap());
    cluster.kubectl(&["apply", "-k", &format!("{ROOT}/deploy/overlays/dev")]);
    cluster.await_agents();
}

pub(crate) fn uninstall(cluster: &Cluster) {
    // As the page says: first what is on the network, then the network.
    cluster.kubectl(&["delete", "deployments", "--all", "--all-namespaces"]);
    let pods = ["delete", "pods", "--all-namespaces", "--field-selector=spec.hostNetwork=false"];
    cluster.kubectl(&[&pods[..], &["--grace-period=1", "--timeout=60s"]].concat());
    take_off(cluster);
}

/// A Pod with a port of the host.
const HOST_PORT: &str = "{apiVersion: v1, kind: Pod, metadata: {name: porter}, spec: {nodeName: node-2, \
     terminationGracePeriodSeconds: 0, containers: [{name: tools, image: 'localhost/toolbox:1', imagePullPolicy: IfNotPresent, \
     ports: [{containerPort: 80, hostPort: 8180}]}]}}";

/// Everything of ours has just been killed, and Pods are still there, one with a port of the host.
pub(crate) fn uninstall_after_faults(cluster: &Cluster) {
    cluster.apply(HOST_PORT);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/porter", "--timeout=120s"]);
    let rules = cluster.node("node-2", &["nft", "list", "ruleset"]);
    assert!(rules.contains("8180"), "the port of the host is not in the rules: {rules}");
    for node in &cluster.nodes {
        cluster.kill(node, "sluice-controller");
        cluster.kill(node, "sluiced");
    }
    take_off(cluster);
}

/// Uninstalls, and looks whether the nodes are clean.
fn take_off(cluster: &Cluster) {
    let overlay = format!("{ROOT}/deploy/overlays/uninstall");
    cluster.kubectl(&["apply", "-k", &overlay]);
    cluster.kubectl(&["-n", SYSTEM, "rollout", "status", "daemonset/sluice", "--timeout=120s"]);
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
        let said = cluster.try_kubectl(&["get", "namespace", SYSTEM]);
        if said.text.contains("NotFound") { Ok(()) } else { Err(said.text) }
    });
}
