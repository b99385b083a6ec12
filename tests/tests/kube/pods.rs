//! Pods: that they come up, and whom they reach.

use crate::cluster::{Cluster, host, within};
use crate::services::place::{Place, each};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// The Pods of the suite: `a1` and `a2` on the first node, `b1` on the second, `h2` in the network of the second node itself; `web`
/// leads to `a1` and `b1`. A third node has `c1`.
const PODS: &str = include_str!("pods.yaml");
/// One more Pod with a server.
const SERVER: &str = include_str!("server.yaml");
/// The port of the outside's server.
const OUTSIDE_PORT: u16 = 8099;
/// How long an answer may take, and how long it may be in bytes.
const PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_SIZE: u64 = 10_000;

/// The suite's Pods. They are Ready only when the kubelet's HTTP probe of `a1` and TCP probe of `b1` get through.
pub(crate) fn make(cluster: &Cluster) {
    let third = cluster.nodes.get(2).map(|third| SERVER.replace("NAME", "c1").replace("NODE", third));
    cluster.apply(&[PODS.to_owned()].into_iter().chain(third).collect::<Vec<_>>().join("\n---\n"));
    let wait = ["wait", "--for=condition=Ready", "--timeout=200s", "pod/a1", "pod/a2", "pod/b1", "pod/h2", "pod/c1"];
    cluster.kubectl(&wait[..wait.len() - usize::from(cluster.nodes.len() < 3)]);
    for pod in ["a2"].into_iter().chain(servers(cluster)) {
        let addresses = cluster.addresses(pod);
        let families: Vec<_> = addresses.iter().map(|address| if address.contains(':') { '6' } else { '4' }).collect();
        assert_eq!(families, cluster.of_families('4', '6'), "{pod}: {addresses:?}");
    }
}

/// Makes one more Pod with a server on a node, and waits for it.
pub(crate) fn make_server(cluster: &Cluster, name: &str, node: &str) {
    make_servers(cluster, &[(name, node)]);
}

/// Makes more Pods with servers, each on a node, and waits for all of them.
pub(crate) fn make_servers(cluster: &Cluster, servers: &[(&str, &str)]) {
    let pods: Vec<String> =
        servers.iter().map(|(name, node)| SERVER.replace("NAME", name).replace("NODE", node)).collect();
    cluster.apply(&pods.join("\n---\n"));
    let names: Vec<String> = servers.iter().map(|(name, _)| format!("pod/{name}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    cluster.kubectl(&[&["wait", "--for=condition=Ready", "--timeout=200s"][..], &names].concat());
}

/// A Pod with a server on each node.
pub(crate) fn servers(cluster: &Cluster) -> impl Iterator<Item = &'static str> {
    ["a1", "b1", "c1"].into_iter().take(cluster.nodes.len())
}

/// What the server at an address says, asked from a Pod: the name of the Pod that answers, and who it says has asked.
pub(crate) fn ask(cluster: &Cluster, pod: &str, address: &str, port: u16) -> Result<(String, String), String> {
    ask_from(&Place::pod(cluster, pod), address, port)
}

/// The same, asked from anywhere, in HTTP by a socket there.
pub(crate) fn ask_from(place: &Place, address: &str, port: u16) -> Result<(String, String), String> {
    let to = SocketAddr::new(address.parse().unwrap(), port);
    let wrong = |what: String| format!("{} asks {to}: {what}", place.name);
    let read = || -> io::Result<String> {
        let mut stream = place.run(|| TcpStream::connect_timeout(&to, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET /cgi-bin/who HTTP/1.0\r\n\r\n")?;
        let mut said = String::new();
        stream.take(ANSWER_SIZE).read_to_string(&mut said)?;
        Ok(said)
    };
    let said = read().map_err(|error| wrong(error.to_string()))?;
    let body = said.split_once("\n\n").or_else(|| said.split_once("\r\n\r\n")).map_or("", |(_, body)| body);
    let is_good = said.split_whitespace().nth(1) == Some("200");
    answer(body).filter(|_| is_good).ok_or_else(|| wrong(format!("{said:?}")))
}

/// The two words of an answer; an IPv4 address that the server sees as a mapped one is given as it is.
pub(crate) fn answer(text: &str) -> Option<(String, String)> {
    let (name, from) = text.trim().split_once(' ')?;
    let from = from.trim_matches(['[', ']']).trim_start_matches("::ffff:");
    Some((name.to_owned(), from.to_owned()))
}

pub(crate) fn reach_each_other(cluster: &Cluster) {
    let ways = [("a2", "a1"), ("a1", "b1"), ("b1", "a1"), ("a1", "c1"), ("c1", "b1")];
    each(ways.into_iter().take(1 + 2 * (cluster.nodes.len() - 1)), |(from, to)| {
        let own = cluster.addresses(from);
        for address in cluster.addresses(to) {
            let said = cluster.try_exec(from, &["/usr/bin/ping", "-q", "-c", "5", "-i", "0.2", "-W", "2", &address]);
            assert!(
                said.good && said.text.contains(" 0% packet loss"),
                "{from} pings {to} at {address}:\n{}",
                said.text
            );
            let (name, seen) = ask(cluster, from, &address, 80).unwrap();
            assert_eq!(name, to);
            assert!(own.contains(&seen), "{to} at {address} sees {from} as {seen}, which is none of its own {own:?}");
        }
    });
}

pub(crate) fn exec_and_logs(cluster: &Cluster) {
    assert_eq!(cluster.exec("b1", &["hostname"]), "b1");
    assert_eq!(cluster.kubectl(&["logs", "a1"]), "a1 is up");
}

pub(crate) fn hosts(cluster: &Cluster) {
    let places: Vec<Place> = cluster.nodes.iter().map(|node| Place::node(cluster, node)).collect();
    for pod in servers(cluster) {
        for address in cluster.addresses(pod) {
            for place in &places {
                assert_eq!(ask_from(place, &address, 80).unwrap().0, pod);
            }
        }
    }
    // A Pod in the host's network is reached at the node's addresses, from the same node's Pods too.
    let second = &cluster.nodes[1];
    for address in cluster.outside_addresses(second) {
        for pod in servers(cluster) {
            assert_eq!(ask(cluster, pod, &address, 8098).unwrap().0, *second);
        }
    }
}

pub(crate) fn outside(cluster: &Cluster) {
    let nodes = cluster.outside_addresses(&cluster.nodes[0]);
    for (address, node_address) in cluster.of_families("172.30.0.1", "fd00:30::1").into_iter().zip(nodes) {
        let seen = seen_outside(cluster, "a1", address);
        assert_eq!(seen, node_address.parse::<IpAddr>().unwrap(), "whom the outside sees at {address}");
    }
}

/// As whom a Pod is seen by a server outside, which is at this address.
pub(crate) fn seen_outside(cluster: &Cluster, pod: &str, address: &str) -> IpAddr {
    let outside = cluster.outside();
    let listener = outside.run(|| TcpListener::bind((address.parse::<IpAddr>().unwrap(), OUTSIDE_PORT))).unwrap();
    listener.set_nonblocking(true).unwrap();
    let server = thread::spawn(move || accept_once(&listener));
    let url = format!("http://{}:{OUTSIDE_PORT}/", host(address));
    let said = cluster.try_exec(pod, &["curl", "-sS", "-g", "-m", "5", &url]);
    let seen = server.join().unwrap();
    assert!(said.good, "{pod} asks {url}: {}", said.text);
    seen.unwrap()
}

/// Who connects within 8 seconds; it gets an answer.
fn accept_once(listener: &TcpListener) -> Option<IpAddr> {
    for _ in 0..80 {
        if let Ok((mut stream, from)) = listener.accept() {
            stream.set_nonblocking(false).ok()?;
            _ = stream.read(&mut [0; 1024]);
            _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n");
            return Some(from.ip());
        }
        thread::sleep(Duration::from_millis(100));
    }
    None
}

pub(crate) fn many(cluster: &Cluster) {
    let count = std::env::var("SLUICE_KUBE_PODS").ok().and_then(|text| text.parse().ok()).unwrap_or(20_usize);
    let begin = Instant::now();
    cluster.apply(&include_str!("many.yaml").replace("COUNT", &count.to_string()));
    let patience = format!("--timeout={}s", 120 + count);
    cluster.kubectl(&["rollout", "status", "deployment/many", &patience]);
    println!("{count} Pods are Ready after {:.1} s", begin.elapsed().as_secs_f64());
    let addresses = cluster.jsonpath(&["pods", "--selector=app=many"], "{.items[*].status.podIPs[*].ip}");
    assert_eq!(addresses.len(), cluster.of_families(1, 1).len() * count, "an address of each family for each Pod");
    let each = "for a; do { /usr/bin/ping -q -c 3 -i 0.2 -W 5 $a >/dev/null || echo $a; } & done; wait";
    let words: Vec<&str> = ["sh", "-c", each, "sh"].into_iter().chain(addresses.iter().map(String::as_str)).collect();
    assert_eq!(cluster.exec("a1", &words), "", "Pods that do not answer");
    cluster.kubectl(&["delete", "deployment/many", "--wait=false"]);
    within(60, "the Pods to be gone", || {
        let left = cluster.kubectl(&["get", "pods", "--selector=app=many", "--output=name"]);
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}
