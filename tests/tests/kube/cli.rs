//! `sluice` from a machine that is none of the nodes: a kubeconfig is all that it has.

use crate::cluster::{Cluster, within};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// What `sluice` says, and how it ends.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) code: i32,
    pub(crate) text: String,
}

/// Where `sluice` is: beside the folder of the suites, where the image's programs are built too.
fn program() -> PathBuf {
    let suite = std::env::current_exe().unwrap();
    let program = suite.parent().and_then(Path::parent).unwrap().join("sluice");
    assert!(program.exists(), "{} is not built: cargo build --workspace --bins", program.display());
    program
}

/// Runs a program on the machine beside the nodes, whose KUBECONFIG is an administrator's.
fn run(cluster: &Cluster, program: &str, words: &[&str]) -> Told {
    let script = ["timeout", "90", "sh", "-c", "\"$@\" 2>&1; code=$?; echo; echo \"ended with $code\"", "sh", program];
    let all: Vec<&str> = script.iter().chain(words).copied().collect();
    let said = cluster.try_node("control", &all);
    let (text, code) = said.text.rsplit_once("\nended with ").unwrap_or_else(|| panic!("{words:?}: {}", said.text));
    Told { code: code.trim().parse().unwrap(), text: text.trim_end().to_owned() }
}

pub(crate) fn sluice(cluster: &Cluster, words: &[&str]) -> Told {
    run(cluster, &program().to_string_lossy(), words)
}

/// What it says, which ends with 0.
pub(crate) fn good(cluster: &Cluster, words: &[&str]) -> String {
    let told = sluice(cluster, words);
    assert_eq!(told.code, 0, "sluice {}:\n{}", words.join(" "), told.text);
    told.text
}

/// Every word is in the text.
pub(crate) fn has(text: &str, words: &[&str]) {
    let missing: Vec<_> = words.iter().filter(|word| !text.contains(**word)).collect();
    assert!(missing.is_empty(), "{missing:?} are not in:\n{text}");
}

pub(crate) fn every_verb(cluster: &Cluster) {
    let nodes: Vec<&str> = cluster.nodes.iter().map(String::as_str).collect();
    let status = good(cluster, &["status", "--wait", "60s"]);
    has(&status, &nodes);
    has(&status, &[&format!("{}/{} nodes answered", nodes.len(), nodes.len()), "pods:", "tunnels:"]);
    has(&good(cluster, &["status", "--node", nodes[0]]), &["controller: api-server", "network", "cni", "flows"]);
    has(&good(cluster, &["svc"]), &["default/web", "ClusterIP", "NodePort", "as node-"]);
    has(&good(cluster, &["svc", "default/web", "--node", "all"]), &nodes);
    let addresses = cluster.addresses("b1");
    let flows = good(cluster, &["flows", "dump", "--pod", "default/b1"]);
    has(&flows, &["route", "station_source", "pod:default/b1", &addresses[0]]);
    has(&good(cluster, &["flows", "dump", "--svc", "default/web"]), &["service", "svc:default/web", "select"]);
    has(&good(cluster, &["flows", "dump", "--builtin", "table=50"]), &["output", "builtin:output"]);
    has(&good(cluster, &["tables", "--node", nodes[0]]), &["classify", "ct_state", "route", "snat"]);
    good(cluster, &["ct", "--pod", "default/a1"]);
    let ports = good(cluster, &["ports", "--pod", "default/a1"]);
    assert_eq!(ports.lines().filter(|line| line.contains("default/a1")).count(), 1, "{ports}");
    assert_eq!(ports.lines().count(), 2, "{ports}");
    has(&good(cluster, &["drops"]), &[&format!("{} nodes answered", nodes.len())]);
    has(&good(cluster, &["tunnels"]), &nodes);
    has(&good(cluster, &["cni", "status"]), &["ready, declared by the controller", nodes[0]]);
    has(&good(cluster, &["cni", "list", "--node", nodes[0]]), &["default/a1", "default/a2"]);
    has(&good(cluster, &["gateway", "--node", nodes[0]]), &["as asked for"]);
    good(cluster, &["routes", "--node", nodes[0]]);
    let which = sluice(cluster, &["ports"]);
    assert_eq!(which.code, 2, "{which:?}");
    has(&which.text, &["there are several nodes", "--node node-1"]);
    let none = sluice(cluster, &["flows", "dump", "--pod", "default/none"]);
    has(&none.text, &["there is no Pod default/none", "kubectl -n default get pods"]);
}

pub(crate) fn traces(cluster: &Cluster) {
    let (b1, outside) = (cluster.addresses("b1"), cluster.outside_addresses("node-2"));
    let told = good(cluster, &["trace", "default/a1", "default/b1:80"]);
    has(&told, &["DELIVERED  default/a1 -> node-1 -> node-2 -> default/b1", "(by the tunnel)", "route", "output"]);
    let told = good(cluster, &["trace", &cluster.addresses("a1")[0], &b1[0], "icmp"]);
    has(&told, &["DELIVERED", "-> node-2 -> default/b1"]);
    has(&good(cluster, &["trace", "default/a2", "svc:default/web:8080"]), &["DELIVERED", "svc:default/web", "dnat"]);
    // From outside, by the host of the node whose port it is.
    for address in &outside {
        let to = format!("{}:30080", crate::cluster::host(address));
        let told = good(cluster, &["trace", if address.contains(':') { "fd00:30::1" } else { "172.30.0.1" }, &to]);
        has(&told, &["DELIVERED", "node-2", "(host)", "svc:default/web"]);
    }
    let told = good(cluster, &["trace", "default/a1", &format!("{}:30080", crate::cluster::host(&outside[0]))]);
    has(&told, &["DELIVERED", "node-1", "svc:default/web"]);
    has(&good(cluster, &["trace", "default/a1", "192.0.2.7"]), &["LEFT", "the host -> 192.0.2.7", "snat"]);
    has(&good(cluster, &["trace", "default/a1", "default/h2:80"]), &["LEFT", "node-2, in whose network default/h2 is"]);
    let told = sluice(cluster, &["trace", "default/a1", "default/b1:80", "-o", "json"]);
    has(&told.text, &["\"verdict\":\"DELIVERED\"", "\"node\":\"node-2\""]);
    // An address of the second node that no Pod has.
    let nobody = b1[0].rsplit_once('.').map(|(net, _)| format!("{net}.250:80")).unwrap();
    let told = sluice(cluster, &["trace", "default/a1", &nobody]);
    assert_eq!(told.code, 3, "{told:?}");
    has(&told.text, &["DROPPED on node-2 by builtin:route (no_route)", "hint:"]);
    let told = sluice(cluster, &["trace", "default/a1", "svc:default/none:80"]);
    assert_eq!(told.code, 1, "{told:?}");
    has(&told.text, &["there is no Service default/none"]);
}

pub(crate) fn capture(cluster: &Cluster) {
    let address = &cluster.addresses("a1")[0];
    let told = thread::scope(|scope| {
        let capture =
            scope.spawn(|| good(cluster, &["capture", "--pod", "default/a1", "icmp", "-c", "2", "-t", "60s"]));
        while !capture.is_finished() {
            _ = cluster.try_exec("a2", &["/usr/bin/ping", "-q", "-c", "1", "-W", "1", address]);
        }
        capture.join().unwrap()
    });
    has(&told, &["capturing default/a1", "default/a1  to ", "default/a1  from ", "icmp"]);
}

/// What is said of a node: its line, and those below it that are of no other.
fn of_node(text: &str, node: &str) -> String {
    let lines = text.lines().skip_while(|line| line.split(' ').next() != Some(node));
    let own = lines.enumerate().take_while(|(n, line)| *n == 0 || line.starts_with(' '));
    own.map(|(_, line)| format!("{line}\n")).collect()
}

/// Waits until `sluice status` ends with this code and says these words of each node.
fn status(cluster: &Cluster, code: i32, words: &[(&String, &[&str])]) {
    within(60, &format!("a status of {code} with {words:?}"), || {
        let told = sluice(cluster, &["status"]);
        let says = |(node, words): &(&String, &[&str])| {
            let said = of_node(&told.text, node);
            words.iter().all(|word| said.contains(word))
        };
        let is_right = told.code == code && words.iter().all(says);
        if is_right { Ok(()) } else { Err(format!("ended with {}:\n{}", told.code, told.text)) }
    });
}

pub(crate) fn faults(cluster: &Cluster) {
    let [first, second, third] = &cluster.nodes[..] else { panic!("there are {} nodes", cluster.nodes.len()) };
    // A network of somebody else's before ours; the node role has stopped, so that it neither answers nor ends; the tunnel is shut.
    let other = "/etc/cni/net.d/05-other.conflist";
    cluster.node(first, &["sh", "-c", &format!("echo '{{}}' >{other}")]);
    cluster.node(second, &["pkill", "-STOP", "-x", "sluice-controll"]);
    good(cluster, &["ports", "set", "tunnel0", "--down", "--node", third]);
    status(
        cluster,
        5,
        &[
            (first, &["cni: ", "05-other.conflist comes before 10-sluice.conflist", "next: "]),
            (second, &["the node's controller does not answer", "next: "]),
            (third, &["tunnel0 is down", "next: ", "sluice ports set tunnel0 --up"]),
        ],
    );
    cluster.node(first, &["rm", other]);
    cluster.node(second, &["pkill", "-CONT", "-x", "sluice-controll"]);
    good(cluster, &["ports", "set", "tunnel0", "--up", "--node", third]);
    // The switch does not answer.
    let node = first;
    cluster.node(node, &["pkill", "-STOP", "-x", "sluiced"]);
    let told = sluice(cluster, &["status"]);
    cluster.node(node, &["pkill", "-CONT", "-x", "sluiced"]);
    assert!([4, 5].contains(&told.code), "{told:?}");
    has(&told.text, &[node.as_str()]);
    thread::sleep(Duration::from_secs(1));
    good(cluster, &["status", "--wait", "60s"]);
}

pub(crate) fn plugin(cluster: &Cluster) {
    let folder = tempfile::tempdir().unwrap();
    symlink(program(), folder.path().join("kubectl-sluice")).unwrap();
    let path = format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", folder.path().display());
    let kube = cluster.folder().join("programs/kube");
    let told = run(cluster, "env", &[&path, &kube.to_string_lossy(), "kubectl", "sluice", "svc", "default/web"]);
    assert_eq!(told.code, 0, "{told:?}");
    has(&told.text, &["default/web", "ENDPOINT"]);
    let told = run(cluster, "env", &[&path, &kube.to_string_lossy(), "kubectl", "sluice", "svc", "--help"]);
    has(&told.text, &["Usage: kubectl sluice svc"]);
}
