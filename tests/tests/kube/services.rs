//! Services: the ways to them, and names.

pub(crate) mod changes;
pub(crate) mod entrances;
pub(crate) mod field;
pub(crate) mod place;

use crate::cluster::{Cluster, TOOLBOX, host, within};
use crate::pods::{answer, ask, ask_from};
use place::{Place, Proto, each};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// A Service whose only endpoint is `a1`.
const SELF: &str = "
apiVersion: v1
kind: Service
metadata: {name: self}
spec:
  ipFamilyPolicy: PreferDualStack
  ports: [{port: 80}]
";
/// Its endpoint of one family.
const SELF_SLICE: &str = "
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: self-FAMILY, labels: {kubernetes.io/service-name: self}}
addressType: IPvFAMILY
ports: [{name: '', port: 80, protocol: TCP}]
endpoints: [{addresses: ['ADDRESS'], nodeName: node-1, conditions: {ready: true}}]
";

/// Asks until both endpoints have answered; changes take a moment.
fn both_answer(mut ask: impl FnMut() -> Result<String, String>, what: &str) {
    let mut seen = BTreeSet::new();
    within(20, what, || {
        seen.insert(ask()?);
        let missing: Vec<_> = ["a1", "b1"].into_iter().filter(|name| !seen.contains(*name)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} did not answer")) }
    });
}

pub(crate) fn cluster_ip(cluster: &Cluster) {
    for address in cluster.cluster_ips("web") {
        both_answer(|| ask(cluster, "a2", &address, 8080).map(|(name, _)| name), &format!("a2 to {address}"));
        // Whoever answers sees the Pod's own address.
        let (_, seen) = ask(cluster, "a2", &address, 8080).unwrap();
        assert!(cluster.addresses("a2").contains(&seen), "seen as {seen} by {address}");
    }
}

pub(crate) fn from_hosts(cluster: &Cluster) {
    let addresses = cluster.cluster_ips("web");
    each(&cluster.nodes, |node| {
        let place = Place::node(cluster, node);
        for address in &addresses {
            both_answer(|| ask_from(&place, address, 8080).map(|(name, _)| name), &format!("{node} to {address}"));
        }
    });
}

pub(crate) fn node_port(cluster: &Cluster) {
    let outside = Place::node(cluster, "control");
    each(&cluster.nodes, |node| {
        for address in cluster.outside_addresses(node) {
            let ask = || ask_from(&outside, &address, 30080).map(|(name, _)| name);
            both_answer(ask, &format!("outside to {node} at {address}"));
        }
    });
}

pub(crate) fn hairpin(cluster: &Cluster) {
    let slice = |address: &String| {
        let family = if address.contains(':') { "6" } else { "4" };
        SELF_SLICE.replace("FAMILY", family).replace("ADDRESS", address)
    };
    let slices: String = cluster.addresses("a1").iter().map(slice).collect();
    cluster.apply(&format!("{SELF}{slices}"));
    for address in cluster.cluster_ips("self") {
        within(20, &format!("a1 to itself by {address}"), || ask(cluster, "a1", &address, 80).map(drop));
    }
}

pub(crate) fn without_endpoints(cluster: &Cluster) {
    cluster.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: empty}, spec: {selector: {app: none}, ports: [{port: 80}]}}",
    );
    let address = &cluster.cluster_ips("empty")[0];
    Place::pod(cluster, "a2").is_refused(Proto::Tcp, SocketAddr::new(address.parse().unwrap(), 80));
}

pub(crate) fn api_server(cluster: &Cluster) {
    let address = &cluster.cluster_ips("kubernetes")[0];
    for pod in ["a2", "b1"] {
        let said = cluster.try_exec(pod, &["curl", "-sSkg", "-m", "5", &format!("https://{}/version", host(address))]);
        assert!(said.text.contains("gitVersion") || said.text.contains("Unauthorized"), "{pod}: {}", said.text);
    }
}

pub(crate) fn names(cluster: &Cluster) {
    let address = cluster.of_families("10.96.0.10", "fd00:96::a")[0];
    cluster.apply(&include_str!("coredns.yaml").replace("TOOLBOX", TOOLBOX).replace("ADDRESS", address));
    cluster.kubectl(&["-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=60s"]);
    for (pod, name) in [("a2", "web"), ("b1", "web.default.svc.cluster.local")] {
        within(20, "names to resolve", || {
            let said = cluster.try_exec(pod, &["curl", "-sS", "-m", "5", &format!("http://{name}:8080/cgi-bin/who")]);
            answer(&said.text).map(drop).ok_or(said.text)
        });
    }
    let said = cluster.try_exec("a2", &["nslookup", "no-such.default.svc.cluster.local"]);
    assert!(said.text.contains("NXDOMAIN"), "{}", said.text);
}
