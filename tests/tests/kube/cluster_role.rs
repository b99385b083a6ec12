//! The cluster role: policies by its stream, without it, and from one source to the other while traffic flows.

use crate::cluster::{Cluster, ROOT, SYSTEM, within};
use crate::faults::end;
use crate::policies::{at, hear_nothing, ingress, put, reach};
use crate::services::field::Field;
use crate::services::place::{Place, Proto, all_hear_nothing, all_reach};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a change of the source may take, in seconds: a lease has to run out, and a machine is loaded.
const TAKEN_OVER: u64 = 90;

/// The Pod that leads, as the Lease says.
fn leader(cluster: &Cluster) -> String {
    let lease = cluster.get(&format!("/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/sluice-cluster"));
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

/// The node that a Pod of the cluster role is on.
fn node_of(cluster: &Cluster, pod: &str) -> String {
    let pod = cluster.get(&format!("/api/v1/namespaces/{SYSTEM}/pods/{pod}"));
    pod["spec"]["nodeName"].as_str().unwrap().to_owned()
}

/// A number of the leader's metrics.
fn number(cluster: &Cluster, name: &str) -> Result<f64, String> {
    let path = format!("/api/v1/namespaces/{SYSTEM}/pods/{}:9479/proxy/metrics", leader(cluster));
    let page = cluster.try_kubectl(&["get", "--raw", &path]);
    let value = page.text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.ok_or(page.text)
}

/// Kills the cluster role on a node without a warning.
fn kill_on(cluster: &Cluster, node: &str) {
    cluster.node(node, &["pkill", "-KILL", "-f", "sluice-controller cluster"]);
}

fn await_streams(cluster: &Cluster) {
    within(TAKEN_OVER, "a stream to every node", || match number(cluster, "sluice_cluster_nodes") {
        Ok(nodes) if nodes == cluster.nodes.len() as f64 => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn scale(cluster: &Cluster, replicas: u32) {
    cluster.kubectl(&["-n", SYSTEM, "scale", "deployment/sluice-cluster", &format!("--replicas={replicas}")]);
    within(60, "the cluster role's Pods", || {
        let label = ["-n", SYSTEM, "get", "pods", "-l", "app.kubernetes.io/name=sluice-cluster", "--output", "name"];
        let pods = cluster.kubectl(&label);
        if pods.lines().count() == replicas as usize { Ok(()) } else { Err(pods) }
    });
}

fn apply(cluster: &Cluster) {
    cluster.kubectl(&["apply", "-k", &format!("{ROOT}/deploy/overlays/dev-cluster")]);
    await_streams(cluster);
}

/// What the manifests of the cluster role have brought goes.
fn take_away(cluster: &Cluster) {
    let objects =
        ["deployment/sluice-cluster", "configmap/sluice-cluster", "secret/sluice-cluster", "lease/sluice-cluster"];
    cluster.kubectl(&[&["-n", SYSTEM, "delete"][..], &objects].concat());
}

/// Lines of the node role's log on a node that have some words.
fn said(cluster: &Cluster, node: &str, words: &str) -> usize {
    let agent = cluster.agent(node);
    let log = cluster.kubectl(&["-n", SYSTEM, "logs", &agent, "-c", "node"]);
    log.lines().filter(|line| line.contains(words)).count()
}

/// All that policies say holds when the cluster role says it.
pub(crate) fn by_stream(cluster: &Cluster) {
    apply(cluster);
    ingress(cluster);
    for node in &cluster.nodes {
        assert_eq!(said(cluster, node, "policies are told by the cluster role"), 1, "{node}");
    }
    let sent = number(cluster, "sluice_cluster_updates_total").unwrap();
    assert!(sent > 0.0, "nothing came by the stream");
}

/// Policies of the whole cluster say when they are in force.
pub(crate) fn status(cluster: &Cluster) {
    let field = Field::of(cluster);
    cluster.kubectl(&["apply", "--server-side", "-k", &format!("{ROOT}/deploy/crds")]);
    let kinds = ["clusternetworkpolicies", "adminnetworkpolicies", "baselineadminnetworkpolicies"];
    for kind in kinds {
        let name = format!("crd/{kind}.policy.networking.k8s.io");
        cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", &name]);
    }
    let policy = "
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: guard}
spec:
  tier: Admin
  priority: 10
  subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {field: 'yes'}}}}
  ingress: [{action: Deny, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {field: 'no'}}}}]}]
";
    // Kinds that were not there are looked for again now and then.
    cluster.apply(policy);
    within(180, "the policy to be in force and to say so", || {
        let words =
            ["get", "clusternetworkpolicy", "guard", "--output=jsonpath={.status.conditions[?(@.type=='Programmed')]}"];
        let said = cluster.kubectl(&words);
        let is_told = said.contains("\"status\":\"True\"") && said.contains("in force on 2 of 2 nodes");
        if is_told && said.contains("\"observedGeneration\":1") { Ok(()) } else { Err(said) }
    });
    for place in [&field.c1, &field.c2] {
        for pod in ["e1", "e2"] {
            at(cluster, pod, Proto::Tcp).into_iter().for_each(|to| assert!(place.ask(Proto::Tcp, to).who().is_err()));
        }
    }
    cluster.kubectl(&["delete", "clusternetworkpolicy", "guard"]);
    reach(cluster, &[&field.c1, &field.c2], &["e1", "e2"], &[Proto::Tcp]);
    cluster.kubectl(&["delete", "--wait=false", "-k", &format!("{ROOT}/deploy/crds")]);
}

/// Without the cluster role all stays in force; a policy that was deleted meanwhile is gone when it is back.
pub(crate) fn killed(cluster: &Cluster) {
    let field = Field::of(cluster);
    put(cluster, "stays", "{podSelector: {matchLabels: {me: e1}}, policyTypes: [Ingress]}");
    put(cluster, "goes", "{podSelector: {matchLabels: {me: e2}}, policyTypes: [Ingress]}");
    hear_nothing(cluster, &[&field.c1], &["e1", "e2"], &[Proto::Tcp]);
    let stays = Denied::watch(&field.c2, cluster, "e1");
    // A leader that is killed comes back as another process, which has told nobody anything.
    kill_on(cluster, &node_of(cluster, &leader(cluster)));
    await_streams(cluster);
    hear_nothing(cluster, &[&field.c1], &["e1", "e2"], &[Proto::Tcp]);
    // It goes, and so does a policy; nobody tells that yet.
    scale(cluster, 0);
    cluster.kubectl(&["delete", "networkpolicy", "goes"]);
    hear_nothing(cluster, &[&field.c1], &["e1", "e2"], &[Proto::Tcp]);
    scale(cluster, 1);
    reach(cluster, &[&field.c1], &["e3"], &[Proto::Tcp]);
    within(TAKEN_OVER, "the deleted policy to be gone", || {
        let to = at(cluster, "e2", Proto::Tcp)[0];
        field.c1.ask(Proto::Tcp, to).who().map(drop)
    });
    hear_nothing(cluster, &[&field.c1], &["e1"], &[Proto::Tcp]);
    stays.held();
    cluster.kubectl(&["delete", "networkpolicy", "stays"]);
    reach(cluster, &[&field.c1], &["e1"], &[Proto::Tcp]);
}

/// Without an API server, and then without a cluster role that could tell anything, all stays in force; a policy that is deleted
/// before all are back is gone then.
pub(crate) fn without_api_server(cluster: &Cluster) {
    let field = Field::of(cluster);
    put(cluster, "stays", "{podSelector: {matchLabels: {me: e1}}, policyTypes: [Ingress]}");
    put(cluster, "goes", "{podSelector: {matchLabels: {me: e2}}, policyTypes: [Ingress]}");
    hear_nothing(cluster, &[&field.c1], &["e1", "e2"], &[Proto::Tcp]);
    let stays = Denied::watch(&field.c2, cluster, "e1");
    let [denied, open] = [&["e1", "e2"][..], &["e3"]]
        .map(|pods| pods.iter().flat_map(|pod| at(cluster, pod, Proto::Tcp)).collect::<Vec<_>>());
    let check = || {
        all_hear_nothing(&[&field.c1], &[Proto::Tcp], &denied);
        all_reach(&[&field.c1], &[Proto::Tcp], &open, &["e3"]);
    };
    let node = node_of(cluster, &leader(cluster));
    end(cluster, "control", "kube-apiserver", "STOP");
    check();
    // It starts again, and there is nobody whom it could ask.
    kill_on(cluster, &node);
    check();
    end(cluster, "control", "kube-apiserver", "KILL");
    within(TAKEN_OVER, "the API server to delete a policy", || {
        let said = cluster.try_kubectl(&["delete", "networkpolicy", "goes", "--ignore-not-found"]);
        if said.good { Ok(()) } else { Err(said.text) }
    });
    await_streams(cluster);
    reach(cluster, &[&field.c1], &["e2", "e3"], &[Proto::Tcp]);
    stays.held();
    cluster.kubectl(&["delete", "networkpolicy", "stays"]);
    reach(cluster, &[&field.c1], &["e1"], &[Proto::Tcp]);
}

/// Of two instances the one that leads is killed and does not come back: the other one leads, and nodes are told only what they lack.
pub(crate) fn failover(cluster: &Cluster) {
    let field = Field::of(cluster);
    scale(cluster, 2);
    cluster.kubectl(&["-n", SYSTEM, "rollout", "status", "deployment/sluice-cluster", "--timeout=100s"]);
    put(cluster, "stays", "{podSelector: {matchLabels: {me: e1}}, policyTypes: [Ingress]}");
    hear_nothing(cluster, &[&field.c1], &["e1"], &[Proto::Tcp]);
    let stays = Denied::watch(&field.c2, cluster, "e1");
    let updates = || number(cluster, "sluice_cluster_updates_total");
    assert!(updates().unwrap() > 0.0, "there is something that could be sent again");
    let first = leader(cluster);
    let node = node_of(cluster, &first);
    // Nobody starts it again.
    end(cluster, &node, "kubelet", "STOP");
    kill_on(cluster, &node);
    let begin = Instant::now();
    within(TAKEN_OVER, "another instance to lead", || {
        let now = leader(cluster);
        if now == first { Err(format!("{now} does")) } else { Ok(()) }
    });
    let led = begin.elapsed().as_secs_f64();
    await_streams(cluster);
    println!(
        "another instance led {led:.1} s after the kill, and had all nodes after {:.1} s",
        begin.elapsed().as_secs_f64()
    );
    assert_eq!(updates(), Ok(0.0), "nodes had everything already");
    stays.held();
    cluster.kubectl(&["delete", "networkpolicy", "stays"]);
    reach(cluster, &[&field.c1], &["e1"], &[Proto::Tcp]);
    assert!(updates().unwrap() > 0.0, "this was told by the other instance");
    end(cluster, &node, "kubelet", "CONT");
    scale(cluster, 1);
    await_streams(cluster);
}

/// Without a cluster role for good a node looks itself, though it is said that there is one; when it is back, it tells again.
pub(crate) fn gone(cluster: &Cluster) {
    let field = Field::of(cluster);
    put(cluster, "stays", "{podSelector: {matchLabels: {me: e1}}, policyTypes: [Ingress]}");
    hear_nothing(cluster, &[&field.c1], &["e1"], &[Proto::Tcp]);
    let stays = Denied::watch(&field.c2, cluster, "e1");
    let told = |by: &str| {
        let words = format!("policies are told by the {by}");
        cluster.nodes.iter().map(|node| said(cluster, node, &words)).collect::<Vec<_>>()
    };
    let await_told = |by: &str, before: &[usize]| {
        within(TAKEN_OVER, &format!("policies to be told by the {by}"), || {
            let now = told(by);
            if now.iter().zip(before).all(|(now, before)| now > before) { Ok(()) } else { Err(format!("{now:?}")) }
        });
    };
    let (own, stream) = (told("API server"), told("cluster role"));
    scale(cluster, 0);
    await_told("API server", &own);
    put(cluster, "comes", "{podSelector: {matchLabels: {me: e3}}, policyTypes: [Ingress]}");
    hear_nothing(cluster, &[&field.c1], &["e1", "e3"], &[Proto::Tcp]);
    scale(cluster, 1);
    await_told("cluster role", &stream);
    cluster.kubectl(&["delete", "networkpolicy", "comes"]);
    reach(cluster, &[&field.c1], &["e3"], &[Proto::Tcp]);
    stays.held();
    cluster.kubectl(&["delete", "networkpolicy", "stays"]);
    reach(cluster, &[&field.c1], &["e1"], &[Proto::Tcp]);
}

/// From the cluster role to the node's own look and back, what is denied stays denied, and what is allowed is not cut.
pub(crate) fn off_and_on(cluster: &Cluster) {
    let field = Field::of(cluster);
    put(cluster, "deny", "{podSelector: {matchLabels: {me: e1}}, policyTypes: [Ingress]}");
    let from =
        "{podSelector: {matchLabels: {me: e2}}, ingress: [{from: [{podSelector: {matchLabels: {field: 'no'}}}]}]}";
    put(cluster, "allow", from);
    hear_nothing(cluster, &[&field.c1, &field.c2], &["e1"], &[Proto::Tcp]);
    reach(cluster, &[&field.c1], &["e2"], &[Proto::Tcp]);
    let denied = Denied::watch(&field.c2, cluster, "e1");
    let mut open: Vec<_> = at(cluster, "e2", Proto::Tcp).into_iter().map(|to| field.c1.connect(to).unwrap()).collect();
    let mut answers = 0;
    let mut goes_on = || {
        for connection in &mut open {
            assert_eq!(connection.who().as_deref(), Ok("e2"), "after {answers} answers");
            answers += 1;
        }
    };
    let before: Vec<usize> =
        cluster.nodes.iter().map(|node| said(cluster, node, "policies are told by the API server")).collect();
    take_away(cluster);
    for (node, before) in cluster.nodes.iter().zip(before) {
        within(TAKEN_OVER, "the node's own look", || {
            goes_on();
            let now = said(cluster, node, "policies are told by the API server");
            if now > before { Ok(()) } else { Err(format!("{node} does not look itself")) }
        });
    }
    hear_nothing(cluster, &[&field.c1], &["e1"], &[Proto::Tcp]);
    goes_on();
    apply(cluster);
    goes_on();
    hear_nothing(cluster, &[&field.c1], &["e1"], &[Proto::Tcp]);
    denied.held();
    cluster.kubectl(&["delete", "networkpolicy", "deny", "allow"]);
    reach(cluster, &[&field.c1], &["e1"], &[Proto::Tcp]);
    goes_on();
    take_away(cluster);
    cluster.kubectl(&["-n", SYSTEM, "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=sluice-cluster"]);
}

/// Asks a Pod again and again that is not to be reached.
struct Denied {
    ended: &'static AtomicBool,
    asking: thread::JoinHandle<(usize, Vec<String>)>,
}

impl Denied {
    fn watch(place: &Place, cluster: &Cluster, pod: &str) -> Self {
        let to = at(cluster, pod, Proto::Tcp)[0];
        let place = place.clone();
        let ended: &'static AtomicBool = Box::leak(Box::default());
        let asking = thread::spawn(move || {
            let (mut asked, mut heard) = (0, Vec::new());
            while !ended.load(Ordering::Relaxed) {
                asked += 1;
                heard.extend(place.ask(Proto::Tcp, to).who().ok());
                thread::sleep(Duration::from_millis(20));
            }
            (asked, heard)
        });
        Self { ended, asking }
    }

    /// It has never been.
    fn held(self) {
        self.ended.store(true, Ordering::Relaxed);
        let (asked, heard) = self.asking.join().unwrap();
        // Each question waits for its answer.
        assert!(asked > 1 && heard.is_empty(), "{} of {asked} came through what is denied", heard.len());
    }
}
