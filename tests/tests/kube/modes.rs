//! Ways between nodes, changed on a cluster that is up as a user changes them: another `node.toml`, which is a rolling update.
//!
//! The third node is in another network, behind a router that knows nothing of Pods unless it is told. Each test changes the mode
//! and leaves it so; the last one goes back to what the suite began with.

use crate::cluster::{Cluster, ROOT, host, within};
use crate::pods::{make_servers, servers};
use crate::services::place::{Place, Proto, all_refused, each};
use crate::{pods, services};
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

/// The configuration of `deploy/overlays/dev`, to which modes are added.
const DEV: &str = include_str!("../../../deploy/overlays/dev/node.toml");
/// Pods' MTU without a tunnel on links of 1500 bytes.
const DIRECT: usize = 1500;
/// Pods that begin where there is no tunnel, one on each node.
const DIRECT_PODS: [&str; 3] = ["n1", "n2", "n3"];
/// The port of datagrams.
const UDP_PORT: u16 = 7007;
/// The node port of the Service `web`.
const NODE_PORT: u16 = 30_080;

/// Changes the configuration of the node role, and waits until every node has it.
fn change(cluster: &Cluster, keys: &str) {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().canonicalize().unwrap();
    let up = "../".repeat(own.components().count() - 1);
    let dev = Path::new(ROOT).join("deploy/overlays/dev").canonicalize().unwrap();
    let base = dev.strip_prefix("/").unwrap().display();
    // All nodes at once: what goes on during a rolling update is not asked here.
    let kustomization = format!(
        "namespace: sluice-system
resources: ['{up}{base}']
configMapGenerator: [{{name: sluice, behavior: merge, files: [node.toml]}}]
patches:
  - target: {{kind: DaemonSet}}
    patch: '- {{op: replace, path: /spec/updateStrategy/rollingUpdate/maxUnavailable, value: 100%}}'
"
    );
    fs::write(own.join("kustomization.yaml"), kustomization).unwrap();
    fs::write(own.join("node.toml"), format!("{DEV}\n{keys}")).unwrap();
    cluster.kubectl(&["apply", "-k", &own.to_string_lossy()]);
    cluster.await_update();
}

/// What a Pod does for each address: a ping as long as its MTU that may not be cut, one that has to be, a name, and a megabyte.
const ASK: &str = r#"
mtu=$1; shift
for a; do
  case $a in *:*) h="[$a]"; len=$((mtu - 48)) ;; *) h=$a; len=$((mtu - 28)) ;; esac
  /usr/bin/ping -q -c 2 -i 0.2 -W 3 -M do -s $len $a >/dev/null || echo "$a: no answer to $mtu bytes that may not be cut"
  /usr/bin/ping -q -c 2 -i 0.2 -W 3 -s 4000 $a >/dev/null || echo "$a: no answer to 4000 bytes"
  got=$(curl -sS -g -m 10 -o /dev/null -w '%{size_download}' http://$h/big) || echo "$a: curl fails"
  [ "$got" = 1000000 ] || echo "$a: $got bytes of 1000000"
done
"#;

/// All ways between Pods, each with an MTU of `mtu`.
fn between(cluster: &Cluster, pods: &[&str], mtu: usize) {
    let addresses: Vec<Vec<String>> = pods.iter().map(|pod| cluster.addresses(pod)).collect();
    let wrong = Mutex::new(String::new());
    each(pods.iter().enumerate(), |(at, pod)| {
        let others = addresses.iter().enumerate().filter(|(other, _)| *other != at);
        let others: Vec<&str> = others.flat_map(|(_, addresses)| addresses).map(String::as_str).collect();
        let mtu = mtu.to_string();
        let said = cluster.try_exec(pod, &[&["sh", "-c", ASK, "sh", &mtu][..], &others].concat());
        if !said.text.is_empty() || !said.good {
            writeln!(wrong.lock().unwrap(), "{pod}: {}", said.text).unwrap();
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{wrong}");
    for (from, to) in [(0, 1), (0, pods.len() - 1), (pods.len() - 1, 0)] {
        for (own, address) in addresses[from].iter().zip(&addresses[to]) {
            datagrams(cluster, (pods[from], own), (pods[to], address));
        }
    }
}

/// Datagrams there and back, short ones and such as have to be cut.
fn datagrams(cluster: &Cluster, (from, own): (&str, &str), (to, address): (&str, &str)) {
    let at = |pod: &str, address: &str, port| {
        let address = SocketAddr::new(address.parse().unwrap(), port);
        let socket = cluster.netns_of(pod).run(|| UdpSocket::bind(address)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        socket
    };
    let (server, client) = (at(to, address, UDP_PORT), at(from, own, 0));
    for len in [1, 1000, 3000] {
        let (sent, mut buffer) = (vec![len as u8; len], [0; 4000]);
        let what = format!("{len} bytes of UDP from {from} to {to} at {address}");
        client.send_to(&sent, server.local_addr().unwrap()).unwrap();
        let (got, seen) = server.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((got, seen), (len, client.local_addr().unwrap()), "{what}");
        server.send_to(&buffer[..got], seen).unwrap();
        let (back, _) = client.recv_from(&mut buffer).unwrap_or_else(|error| panic!("the answer to {what}: {error}"));
        assert_eq!(back, len, "the answer to {what}");
    }
}

/// What is asked in every mode.
fn everything(cluster: &Cluster, all: &[&str], mtu: usize) {
    between(cluster, all, mtu);
    pods::hosts(cluster);
    services::cluster_ip(cluster);
    services::node_port(cluster);
}

/// Pods' MTU in a tunnel: over IPv6 a header is 20 bytes longer.
fn tunnelled(cluster: &Cluster) -> usize {
    cluster.of_families(1450, 1430)[0]
}

fn mtu_of(cluster: &Cluster, pod: &str) -> usize {
    cluster.exec(pod, &["cat", "/sys/class/net/eth0/mtu"]).parse().unwrap()
}

/// The Pods of the suite that have servers, and one that has none beside one that has.
fn suite(cluster: &Cluster) -> Vec<&'static str> {
    servers(cluster).collect()
}

/// The routes of the first node that lead to the networks of Pods of the others.
fn routes(cluster: &Cluster) -> Vec<String> {
    let text = cluster.node(&cluster.nodes[0], &["sh", "-c", "ip route; ip -6 route"]);
    let cidrs: Vec<String> = cluster.nodes[1..].iter().flat_map(|node| cluster.pod_cidrs(node)).collect();
    let is_to = |line: &&str| cidrs.iter().any(|cidr| line.starts_with(&format!("{cidr} ")));
    text.lines().filter(is_to).map(str::to_owned).collect()
}

/// The kinds of ports of the first node's switch.
fn has_port_of(cluster: &Cluster, kind: &str) -> bool {
    let said = cluster.sluice(&cluster.nodes[0], &["ports"]);
    assert!(said.good, "{}", said.text);
    said.text.contains(kind)
}

pub(crate) fn geneve(cluster: &Cluster) {
    for pod in suite(cluster) {
        assert_eq!(mtu_of(cluster, pod), tunnelled(cluster), "{pod}");
    }
    assert!(has_port_of(cluster, "geneve"));
    between(cluster, &suite(cluster), tunnelled(cluster));
}

pub(crate) fn vxlan(cluster: &Cluster) {
    change(cluster, "tunnel = \"vxlan\"\n");
    assert!(has_port_of(cluster, "vxlan") && !has_port_of(cluster, "geneve"));
    everything(cluster, &suite(cluster), tunnelled(cluster));
}

/// Has the router between the nodes' networks know where Pods are, or forget it.
fn route_pods(cluster: &Cluster, verb: &str) {
    for node in &cluster.nodes {
        let by = cluster.outside_addresses(node);
        for (cidr, via) in cluster.pod_cidrs(node).iter().zip(&by) {
            cluster.node("control", &["ip", "route", verb, cidr, "via", via]);
        }
    }
}

/// Pods that begin in this mode have the whole of the link, and are seen outside with their own addresses.
pub(crate) fn no_encap(cluster: &Cluster) {
    route_pods(cluster, "replace");
    change(cluster, "mode = \"no-encap\"\nno_snat = true\n");
    assert!(!has_port_of(cluster, "geneve") && !has_port_of(cluster, "vxlan"));
    let second = cluster.outside_addresses(&cluster.nodes[1]);
    for (route, via) in routes(cluster).iter().zip(&second) {
        assert!(route.contains(&format!("via {via} ")), "{route}");
    }
    everything(cluster, &suite(cluster), tunnelled(cluster));
    let on: Vec<(&str, &str)> = DIRECT_PODS.into_iter().zip(cluster.nodes.iter().map(String::as_str)).collect();
    make_servers(cluster, &on);
    let new: Vec<&str> = on.iter().map(|(pod, _)| *pod).collect();
    new.iter().for_each(|pod| assert_eq!(mtu_of(cluster, pod), DIRECT, "{pod}"));
    between(cluster, &new, DIRECT);
    for pod in ["a1", new[new.len() - 1]] {
        for (address, seen) in cluster.of_families("172.30.0.1", "fd00:30::1").into_iter().zip(cluster.addresses(pod)) {
            assert_eq!(pods::seen_outside(cluster, pod, address), seen.parse::<IpAddr>().unwrap(), "{pod}");
        }
    }
}

/// Neighbours are reached without a tunnel, the third node by one; a router that knows nothing of Pods is no hindrance.
pub(crate) fn hybrid(cluster: &Cluster) {
    change(cluster, "mode = \"hybrid\"\n");
    _ = cluster
        .try_node("control", &["sh", "-c", "ip route flush root 10.244.0.0/16; ip -6 route flush root fd00:244::/48"]);
    let (second, third) = (cluster.pod_cidrs(&cluster.nodes[1]), cluster.pod_cidrs(&cluster.nodes[2]));
    for route in routes(cluster) {
        let of = |cidrs: &[String]| cidrs.iter().any(|cidr| route.starts_with(cidr.as_str()));
        assert!(
            of(&second) == route.contains(" dev eth0 ") && of(&third) == route.contains(" dev sluice0 "),
            "{route}"
        );
    }
    everything(cluster, &suite(cluster), tunnelled(cluster));
    pods::outside(cluster);
}

/// Only the first network's nodes answer to node ports, and none on its loopback.
pub(crate) fn node_port_addresses(cluster: &Cluster) {
    change(cluster, "mode = \"hybrid\"\nnode_port_addresses = [\"172.30.0.0/24\", \"fd00:30::/64\"]\n");
    let (inside, outside) = (Place::pod(cluster, "a2"), Place::node(cluster, "control"));
    let first = Place::node(cluster, &cluster.nodes[0]);
    for node in &cluster.nodes[..2] {
        for address in cluster.outside_addresses(node) {
            for place in [&inside, &outside, &first] {
                within(20, "the node port", || pods::ask_from(place, &address, NODE_PORT).map(drop));
            }
        }
    }
    let far = services::field::with_port(&cluster.outside_addresses(&cluster.nodes[2]), NODE_PORT);
    all_refused(&[&inside, &outside, &first], &[Proto::Tcp], &far);
    all_refused(&[&first], &[Proto::Tcp], &[([127, 0, 0, 1], NODE_PORT).into()]);
}

/// Pods that began without a tunnel are told that packets have become shorter.
pub(crate) fn back(cluster: &Cluster) {
    change(cluster, "");
    assert!(has_port_of(cluster, "geneve") && !has_port_of(cluster, "vxlan"));
    for route in routes(cluster) {
        assert!(route.contains(" dev sluice0 "), "{route}");
    }
    everything(cluster, &suite(cluster), tunnelled(cluster));
    let left: Vec<_> = DIRECT_PODS.into_iter().filter(|pod| cluster.try_kubectl(&["get", "pod", pod]).good).collect();
    for (at, pod) in left.iter().enumerate().filter(|_| left.len() > 1) {
        let to = left[(at + 1) % left.len()];
        for address in cluster.addresses(to) {
            let url = format!("http://{}/big", host(&address));
            let command = ["curl", "-sS", "-g", "-m", "10", "-o", "/dev/null", "-w", "%{size_download}", &url];
            within(20, &format!("{pod} to have all of {url}"), || match cluster.try_exec(pod, &command) {
                said if said.text == "1000000" => Ok(()),
                said => Err(said.text),
            });
        }
    }
    if !left.is_empty() {
        cluster.kubectl(&[&["delete", "pods", "--wait=false"][..], &left].concat());
    }
}
