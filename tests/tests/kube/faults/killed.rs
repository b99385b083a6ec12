//! Each program of a cluster is killed without a warning, one after the other, under traffic between Pods of two nodes.

use super::traffic::{Outcome, Servers, Traffic};
use crate::cluster::{Cluster, SYSTEM, within};
use crate::pods::{ask, make_server};
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The port that the servers of traffic have, and their Service.
const PORT: u16 = 7000;
/// How long traffic flows before a kill, and goes on after everything has come back.
const AROUND: Duration = Duration::from_secs(2);
/// Seconds that a connection has to go on within, once everything is back.
const GOES_ON_WITHIN: u64 = 30;
/// The Service of the servers: `b1` alone, so that its node is known.
const STREAM: &str = "{apiVersion: v1, kind: Service, metadata: {name: stream}, spec: {ipFamilyPolicy: PreferDualStack, \
     selector: {stream: yes-please}, ports: [{name: t, port: 7000}, {name: u, port: 7000, protocol: UDP}]}}";
/// A Service that comes when the fault is over; its Pod is that of `make_server`.
const LATER: &str =
    "{apiVersion: v1, kind: Service, metadata: {name: later}, spec: {selector: {app: later}, ports: [{port: 80}]}}";

/// From `a2` on the first node to `b1` on the second: to the Pod and through its Service, in both families.
pub(super) struct Lines {
    _servers: Servers,
    traffic: Traffic,
}

impl Lines {
    pub(super) fn start(cluster: &Cluster) -> Self {
        cluster.kubectl(&["label", "--overwrite", "pod", "b1", "stream=yes-please"]);
        cluster.apply(STREAM);
        let (from, to) = (cluster.netns_of("a2"), cluster.netns_of("b1"));
        let servers = Servers::start(&to, PORT);
        let socket = |address: &String| SocketAddr::new(address.parse::<IpAddr>().unwrap(), PORT);
        let pods: Vec<_> = cluster.addresses("b1").iter().map(socket).collect();
        let services: Vec<_> = cluster.cluster_ips("stream").iter().map(socket).collect();
        within(30, "the Service to be there", || {
            from.run(|| std::net::TcpStream::connect_timeout(&services[0], Duration::from_secs(2)))
                .map(drop)
                .map_err(|error| error.to_string())
        });
        let names = |what: [&'static str; 2]| cluster.of_families(what[0], what[1]).into_iter();
        let pods = names(["to a Pod, IPv4", "to a Pod, IPv6"]).zip(pods);
        let targets: Vec<_> = pods.chain(names(["to a Service, IPv4", "to a Service, IPv6"]).zip(services)).collect();
        let traffic = Traffic::start(&from, &targets);
        sleep(AROUND);
        Self { _servers: servers, traffic }
    }

    /// What became of the lines, some time after everything has come back.
    pub(super) fn end(self) -> Vec<Outcome> {
        self.traffic.await_progress(GOES_ON_WITHIN);
        sleep(AROUND);
        self.traffic.end()
    }
}

/// Prints what became of the lines, as a row of the table in `docs/reliability.md`.
pub(super) fn row(what: &str, back: Duration, outcomes: &[Outcome]) {
    println!("| {what} | back after {:.1} s |", back.as_secs_f64());
    for Outcome { name, sent, lost, pause, broken } in outcomes {
        let broken = broken.as_ref().map_or(String::new(), |why| format!("; BROKEN: {why}"));
        println!("|   {name}: {lost} of {sent} lost, longest pause {:.2} s{broken}", pause.as_secs_f64());
    }
}

/// What may be lost.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// Nothing.
    None,
    /// Datagrams to Services: a kubelet that starts takes Pods as not Ready until it has probed them, and Kubernetes takes them out of
    /// their Services so long.
    Services,
    /// Any datagrams.
    Any,
}

/// Nothing more was lost than may be, and no connection has ended.
pub(super) fn check(what: &str, outcomes: &[Outcome], loss: Loss) {
    let broken: Vec<_> = outcomes.iter().filter(|outcome| outcome.broken.is_some()).collect();
    assert!(broken.is_empty(), "{what}: these broke: {broken:#?}");
    let may_lose = |outcome: &Outcome| match loss {
        Loss::None => false,
        Loss::Services => outcome.name.contains("Service"),
        Loss::Any => true,
    };
    let lossy: Vec<_> = outcomes.iter().filter(|outcome| outcome.lost > 0 && !may_lose(outcome)).collect();
    assert!(lossy.is_empty(), "{what}: packets were lost: {lossy:#?}");
}

/// Sends a signal to a program that the machines' own supervisor keeps, by its number there.
pub(crate) fn end(cluster: &Cluster, machine: &str, program: &str, signal: &str) {
    let file = cluster.folder().join(machine).join(format!("{program}.pid"));
    cluster.node(machine, &["sh", "-c", &format!("kill -{signal} $(cat {})", file.display())]);
}

/// Pods and Services that are made now work.
pub(super) fn new_ones_work(cluster: &Cluster) {
    within(60, "the API server", || {
        let said = cluster.try_kubectl(&["get", "--raw", "/readyz"]);
        if said.good { Ok(()) } else { Err(said.text) }
    });
    cluster.apply(LATER);
    make_server(cluster, "later", &cluster.nodes[1]);
    cluster.kubectl(&["label", "pod", "later", "app=later"]);
    let address = &cluster.cluster_ips("later")[0];
    within(30, "a Service that was made after the fault", || ask(cluster, "a2", address, 80).map(drop));
    cluster.kubectl(&["delete", "service/later", "pod/later", "--timeout=60s"]);
}

/// Kills something under traffic, waits until what is made later works, and returns what became of the lines.
fn under_traffic(cluster: &Cluster, what: &str, kill: impl FnOnce()) -> Vec<Outcome> {
    let lines = Lines::start(cluster);
    let begin = Instant::now();
    kill();
    new_ones_work(cluster);
    let back = begin.elapsed();
    let outcomes = lines.end();
    row(what, back, &outcomes);
    outcomes
}

pub(crate) fn node_role(cluster: &Cluster) {
    let outcomes = under_traffic(cluster, "the node role, on both nodes", || {
        super::kill_and_await(cluster, super::ROLE, "node");
    });
    check("the node role was killed", &outcomes, Loss::None);
}

pub(crate) fn switch(cluster: &Cluster) {
    let outcomes = under_traffic(cluster, "sluiced, on both nodes", || {
        super::kill_and_await(cluster, "sluiced", "sluiced");
    });
    check("sluiced was killed", &outcomes, Loss::Any);
}

/// The DaemonSet's Pods are replaced, one node after the other.
pub(crate) fn rolling_update(cluster: &Cluster) {
    let outcomes = under_traffic(cluster, "rolling update of the DaemonSet", || {
        cluster.kubectl(&["-n", SYSTEM, "rollout", "restart", "daemonset/sluice"]);
        cluster.kubectl(&["-n", SYSTEM, "rollout", "status", "daemonset/sluice", "--timeout=100s"]);
    });
    check("the DaemonSet was updated", &outcomes, Loss::Any);
}

pub(crate) fn kubelet(cluster: &Cluster) {
    let outcomes = under_traffic(cluster, "the kubelet, on both nodes", || {
        cluster.nodes.iter().for_each(|node| end(cluster, node, "kubelet", "KILL"));
    });
    check("the kubelet was killed", &outcomes, Loss::Services);
}

/// Programs that the network does not need: nothing is lost while each is away, and what is made later works.
pub(crate) fn others(cluster: &Cluster) {
    let outcomes =
        under_traffic(cluster, "containerd on both nodes, etcd, the API server, one after the other", || {
            cluster.nodes.iter().for_each(|node| end(cluster, node, "containerd", "KILL"));
            for program in ["etcd", "kube-apiserver"] {
                new_ones_work(cluster);
                end(cluster, "control", program, "KILL");
            }
        });
    check("containerd, etcd and the API server were killed", &outcomes, Loss::None);
}

/// The node role starts from its copy on disk while no API server answers.
pub(crate) fn without_api_server(cluster: &Cluster) {
    let outcomes = under_traffic(cluster, "the API server does not answer, and the node role is killed", || {
        end(cluster, "control", "kube-apiserver", "STOP");
        cluster.nodes.iter().for_each(|node| cluster.kill(node, super::ROLE));
        let answers = |node: &String| {
            let said = cluster.try_node(node, &["curl", "-sS", "-m", "5", "http://localhost:9477/readyz?verbose"]);
            // Only the API server is missed.
            let failed: Vec<_> = said.text.lines().filter(|line| line.starts_with("[-]")).collect();
            let good =
                said.good && failed.len() == 1 && failed[0].starts_with("[-]api-server failed: no API server answers");
            if good { Ok(()) } else { Err(format!("{node}: {}", said.text)) }
        };
        cluster.nodes.iter().for_each(|node| within(90, "the node role to work from its copy", || answers(node)));
        end(cluster, "control", "kube-apiserver", "CONT");
    });
    check("the node role started without the API server", &outcomes, Loss::None);
}
