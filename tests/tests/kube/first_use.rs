//! What is wrong when somebody uses Sluice for the first time: each fault is told where one looks for it (the Pod's Events, its last
//! state, its log), readiness tells the truth, and what is mended works without more.

use crate::cluster::{Cluster, SYSTEM, within};

/// Seconds within which a fault is told, and mended.
const PATIENCE: u64 = 120;

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
