//! What `sluice` tells of policies by a kubeconfig, while real connections are made: who decided, by the names of the cluster.

use crate::cli::{good, has, sluice};
use crate::cluster::{Cluster, within};
use crate::services::field::with_port;
use crate::services::place::{Place, Proto, SETTLED, Server};
use std::net::SocketAddr;
use std::thread;

/// The shop of `examples/policies`, with an interface for each Pod and two rules that decide.
const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: db}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: sql}]}]
";
const POD: &str = "
---
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: NAME, labels: {app: APP}}
spec:
  nodeName: NODE
  terminationGracePeriodSeconds: 0
  containers:
    - name: tools
      image: localhost/toolbox:1
      imagePullPolicy: IfNotPresent
      ports: [{name: sql, containerPort: 5432}]
";
/// What is allowed, and what is not, on the line of a log.
const ALLOWED: &str = "shop/api-1 -> shop/db-0:5432  tcp  ALLOW  np:shop/db/ingress/0";
const DROPPED: &str = "shop/web-1 -> shop/db-0:5432  tcp  DROP  np:shop/db/ingress/default";

/// What the log of some words says first while somebody asks.
fn log(cluster: &Cluster, words: &[&str], ask: impl Fn() + Sync) -> String {
    thread::scope(|scope| {
        let log = scope.spawn(|| good(cluster, &[&["log", "-n", "1"][..], words].concat()));
        while !log.is_finished() {
            ask();
        }
        log.join().unwrap()
    })
}

pub(crate) fn by_every_verb(cluster: &Cluster) {
    let pods = [("api-1", "api", "node-1"), ("web-1", "web", "node-1"), ("db-0", "db", "node-2")];
    let pod = |(name, app, node)| POD.replace("NAME", name).replace("APP", app).replace("NODE", node);
    cluster.apply(&[SHOP.to_owned()].into_iter().chain(pods.map(pod)).collect::<String>());
    cluster.kubectl(&["-n", "shop", "wait", "--for=condition=Ready", "--timeout=100s", "pod", "--all"]);
    let [api, web, db] = pods.map(|(name, ..)| Place::pod_of(cluster, "shop", name));
    let list = cluster.get("/api/v1/namespaces/shop/pods/db-0");
    let ips = list["status"]["podIPs"].as_array().unwrap().iter().map(|of| of["ip"].as_str().unwrap().to_owned());
    let at: Vec<SocketAddr> = with_port(&ips.collect::<Vec<_>>(), 5432);
    let _server = Server::start(&db, "db-0", &at, &[]);
    let to = at[0];
    api.reaches(Proto::Tcp, to, &["db-0"]);
    web.hears_nothing(Proto::Tcp, to);
    let (from_api, from_web) = (|| drop(api.ask(Proto::Tcp, to)), || drop(web.ask(Proto::Tcp, to)));

    // As it happens.
    has(&log(cluster, &["--policy", "shop/db", "--verdict", "allow"], from_api), &[ALLOWED]);
    has(&log(cluster, &["--all", "--verdict", "drop", "--pod", "shop/web-1"], from_web), &[DROPPED]);
    // Of policies that are not annotated nothing is told, unless it is asked for.
    cluster.kubectl(&["-n", "shop", "annotate", "networkpolicy", "db", "sluice.dev/log=true"]);
    has(&log(cluster, &["--verdict", "drop"], from_web), &[DROPPED]);

    // Afterwards.
    let drops = good(cluster, &["drops", "--policy", "shop/db"]);
    has(&drops, &["node-2", "policy_default_deny", "np:shop/db/ingress/default", "2/2 nodes answered"]);
    let by_policy = good(cluster, &["drops", "--by", "policy"]);
    assert!(by_policy.lines().any(|line| line.starts_with("np:shop/db ")), "{by_policy}");
    let flows = good(cluster, &["flows", "dump", "--policy", "shop/db", "--nonzero"]);
    has(&flows, &["node-2", "np:shop/db/ingress/0", "np:shop/db/ingress/default"]);
    assert!(!flows.contains("node-1  "), "no Pod of its subject is there:\n{flows}");

    // Why.
    let allowed = good(cluster, &["policy", "explain", "shop/api-1", "shop/db-0:5432"]);
    has(&allowed, &["ALLOWED  shop/api-1 -> shop/db-0:5432/tcp  by np:shop/db/ingress/0", "MATCHES, accepts"]);
    let denied = sluice(cluster, &["policy", "explain", "shop/web-1", "shop/db-0:sql"]);
    assert_eq!(denied.code, 3, "{denied:?}");
    has(&denied.text, &["DENIED  shop/web-1 -> shop/db-0:5432/tcp  by np:shop/db/ingress/default", "it has app=web"]);

    // Under audit it drops nothing, and counts.
    has(&good(cluster, &["policy", "audit", "shop/db", "on"]), &["np:shop/db drops nothing from now on"]);
    web.reaches(Proto::Tcp, to, &["db-0"]);
    let audited = good(cluster, &["policy", "audit"]);
    let line = audited.lines().find(|line| line.starts_with("np:shop/db")).unwrap_or_default();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words.get(1), Some(&"ingress/default"), "{audited}");
    assert!(words.get(2).is_some_and(|count| count.parse::<u64>().is_ok_and(|count| count > 0)), "{audited}");
    has(&good(cluster, &["policy", "audit", "shop/db", "off"]), &["np:shop/db is in force"]);
    web.hears_nothing(Proto::Tcp, to);
    for (what, said) in [("drops", drops), ("by policy", by_policy), ("flows", flows), ("audit", audited)] {
        println!("---- {what}\n{said}");
    }
    cluster.kubectl(&["delete", "namespace", "shop", "--wait=false"]);
    within(SETTLED, "the policy to be gone", || {
        let left = good(cluster, &["flows", "dump", "--policy", "shop/db"]);
        if left.contains("np:shop/db") { Err(left) } else { Ok(()) }
    });
}
