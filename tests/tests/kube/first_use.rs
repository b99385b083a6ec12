//! What is wrong when somebody uses Sluice for the first time: each fault is told where one looks for it (the Pod's Events, its last
//! state, its log), readiness tells the truth, and what is mended works without more.

use crate::cluster::{Cluster, ROOT, SYSTEM, within};
use std::fs;
use std::path::Path;

/// Seconds within which a fault is told, and mended.
const PATIENCE: u64 = 120;

/// Installs the overlay of these clusters with a changed file of `deploy`.
fn install_with(cluster: &Cluster, file: &str, change: impl Fn(&str) -> String) {
    let folder = tempfile::tempdir().unwrap();
    copy(&Path::new(ROOT).join("deploy"), folder.path());
    let file = folder.path().join(file);
    let before = fs::read_to_string(&file).unwrap();
    let after = change(&before);
    assert_ne!(before, after, "{} has what is changed", file.display());
    fs::write(file, after).unwrap();
    cluster.kubectl(&["apply", "-k", &folder.path().join("overlays/dev").to_string_lossy()]);
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&to).unwrap();
            copy(&entry.path(), &to);
        } else if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Installs it as it is shipped, and waits until all is well.
fn mend(cluster: &Cluster) {
    cluster.kubectl(&["apply", "-k", &format!("{ROOT}/deploy/overlays/dev")]);
    cluster.await_agents();
}

/// What the Events of Sluice's Pods say, and why their containers ended last.
fn told(cluster: &Cluster) -> String {
    let said = |words: &[&str]| cluster.try_kubectl(&[&["-n", SYSTEM, "get"][..], words].concat()).text;
    let events = said(&["events", "--output=jsonpath={range .items[*]}{.message}{\"\\n\"}{end}"]);
    let ends =
        "--output=jsonpath={range .items[*]}{.status.containerStatuses[*].lastState.terminated.message}{\"\\n\"}{end}";
    events + "\n" + &said(&["pods", ends])
}

/// Waits until each of the words is told.
fn await_told(cluster: &Cluster, words: &[&str]) {
    for word in words {
        within(PATIENCE, &format!("{word:?} to be told"), || {
            let told = told(cluster);
            if told.contains(word) { Ok(()) } else { Err(told) }
        });
    }
}

/// How many of Sluice's Pods are Ready.
fn ready(cluster: &Cluster) -> usize {
    let path = "{.status.numberReady}";
    cluster.jsonpath(&["-n", SYSTEM, "daemonset/sluice"], path).first().map_or(0, |text| text.parse().unwrap())
}

pub(crate) fn wrong_configuration(cluster: &Cluster) {
    let toml = "overlays/dev/node.toml";
    for (added, words) in [
        // The program waits, and its probe tells what for; of the second one it ends.
        ("service_cidrs = [\"10.244.0.0/16\"]", ["overlaps the podCIDR 10.244.", "--service-cluster-ip-range"]),
        ("mode = \"tunnel\"", ["mode = \"tunnel\" in /etc/sluice/node.toml", "one of encap, no-encap, hybrid"]),
    ] {
        install_with(cluster, toml, |text| format!("{text}\n{added}\n"));
        await_told(cluster, &words);
        // The rollout stops at the first node.
        assert_eq!(ready(cluster), cluster.nodes.len() - 1, "with {added}");
    }
    mend(cluster);
}

pub(crate) fn missing_privilege(cluster: &Cluster) {
    install_with(cluster, "base/daemonset.yaml", |text| text.replace("privileged: true", "privileged: false"));
    await_told(cluster, &["port sluice0: ", "/dev/net/tun"]);
    assert_eq!(ready(cluster), cluster.nodes.len() - 1);
    mend(cluster);
}

pub(crate) fn second_network(cluster: &Cluster) {
    let node = &cluster.nodes[1];
    let file = "/etc/cni/net.d/05-other.conflist";
    let text = r#"{"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "bridge"}]}"#;
    cluster.node(node, &["sh", "-c", &format!("echo '{text}' >{file}")]);
    await_told(cluster, &["/etc/cni/net.d/05-other.conflist comes before 10-sluice.conflist"]);
    within(PATIENCE, "the Pod of that node not to be Ready", || match ready(cluster) {
        1 => Ok(()),
        ready => Err(format!("{ready} are Ready")),
    });
    cluster.node(node, &["rm", file]);
    // One that comes later is none of our business.
    cluster.node(node, &["sh", "-c", &format!("echo '{text}' >/etc/cni/net.d/99-other.conflist")]);
    within(PATIENCE, "the Pod of that node to be Ready again", || match ready(cluster) {
        2 => Ok(()),
        ready => Err(format!("{ready} are Ready")),
    });
    cluster.node(node, &["rm", "/etc/cni/net.d/99-other.conflist"]);
}

pub(crate) fn foreign_interface(cluster: &Cluster) {
    let node = &cluster.nodes[0];
    cluster.kubectl(&["-n", SYSTEM, "delete", "daemonset/sluice", "--timeout=60s"]);
    within(60, "Sluice's Pods to be gone", || {
        let left = cluster.kubectl(&["-n", SYSTEM, "get", "pods", "--output=name"]);
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    cluster.node(node, &["ip", "link", "add", "sluice0", "type", "veth", "peer", "name", "other"]);
    cluster.kubectl(&["apply", "-k", &format!("{ROOT}/deploy/overlays/dev")]);
    await_told(cluster, &["port sluice0: an interface of this name exists already", "ip link del sluice0"]);
    let kind = cluster.node(node, &["ip", "-details", "link", "show", "sluice0"]);
    assert!(kind.contains("sluice0@other"), "it is as it was: {kind}");
    cluster.node(node, &["ip", "link", "del", "sluice0"]);
    mend(cluster);
}
