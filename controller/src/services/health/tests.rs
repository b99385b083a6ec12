use super::*;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Service `shop/web` of a load balancer with this policy.
fn balanced(more: Value) -> Service {
    let mut spec = json!({
        "type": "LoadBalancer", "clusterIP": "10.96.0.7", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31_000,
        "ports": [{ "name": "http", "port": 80 }, { "name": "admin", "port": 81 }],
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(json!({ "metadata": { "namespace": "shop", "name": "web" }, "spec": spec })).unwrap()
}

fn slice(endpoints: Value) -> EndpointSlice {
    serde_json::from_value(json!({
        "metadata": { "namespace": "shop", "labels": { super::super::SERVICE_NAME_LABEL: "web" } }, "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080 }, { "name": "admin", "port": 8081 }, { "name": "other", "port": 1 }],
        "endpoints": endpoints,
    }))
    .unwrap()
}

#[test]
fn a_check_counts_the_ready_addresses_on_the_node_once() {
    let here = Here { node: "a".to_owned(), ..Here::default() };
    let endpoints = json!([
        { "addresses": ["10.244.0.1"], "nodeName": "a" },
        { "addresses": ["10.244.0.2"], "nodeName": "b" },
        { "addresses": ["10.244.0.3"], "nodeName": "a", "conditions": { "ready": false, "serving": true, "terminating": true } },
    ]);
    let check = health(&balanced(json!({})), &[&slice(endpoints)], &here).unwrap();
    assert_eq!(check, Check { port: 31_000, namespace: "shop".to_owned(), name: "web".to_owned(), local: 1 });
}

#[test]
fn only_a_load_balancer_with_the_external_policy_local_is_checked() {
    let none = [
        json!({ "type": "NodePort" }),
        json!({ "externalTrafficPolicy": "Cluster" }),
        json!({ "healthCheckNodePort": 0 }),
    ];
    for more in none {
        assert_eq!(health(&balanced(more.clone()), &[], &Here::default()), None, "{more}");
    }
    assert_eq!(health(&balanced(json!({})), &[], &Here::default()).unwrap().local, 0);
}

#[test]
fn a_node_that_is_being_deleted_is_not_eligible() {
    let node = |json: Value| is_eligible(&serde_json::from_value(json).unwrap());
    assert!(node(json!({})));
    assert!(node(
        json!({ "spec": { "taints": [{ "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" }] } })
    ));
    assert!(!node(json!({ "spec": { "taints": [{ "key": TO_BE_DELETED, "effect": "NoSchedule" }] } })));
    assert!(!node(json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } })));
}

/// Asks by real HTTP; none if nobody listens. The status, the headers in lower case, and the body.
async fn get(port: u16, path: &str) -> Option<(u16, String, Value)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: lb\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Some((status, head.to_lowercase(), serde_json::from_str(body).unwrap_or(Value::Null)))
}

/// Asks until somebody answers so, for 10 seconds.
async fn until(port: u16, path: &str, want: Option<u16>) -> (String, Value) {
    let started = Instant::now();
    loop {
        let got = get(port, path).await;
        if got.as_ref().map(|(status, ..)| *status) == want {
            return got.map(|(_, head, body)| (head, body)).unwrap_or_default();
        }
        assert!(started.elapsed() < Duration::from_secs(10), "port {port}: {got:?}, not {want:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A port that is free now.
fn free() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn check(port: u16, local: usize) -> Check {
    Check { port, namespace: "shop".to_owned(), name: "web".to_owned(), local }
}

#[tokio::test]
async fn a_load_balancer_is_told_how_many_endpoints_the_node_has() {
    let (proxy, port) = (ProxyHealth::default(), free());
    proxy.in_step();
    let mut checks = HealthChecks::start(proxy, 0);
    checks.set([check(port, 2)]);
    let (head, body) = until(port, "/", Some(200)).await;
    let service = json!({ "namespace": "shop", "name": "web" });
    assert_eq!(body, json!({ "service": service, "localEndpoints": 2, "serviceProxyHealthy": true }));
    assert!(head.contains("x-load-balancing-endpoint-weight: 2") && head.contains("application/json"), "{head}");
    checks.set([check(port, 0)]);
    let (_, body) = until(port, "/any/path", Some(503)).await;
    assert_eq!(body["localEndpoints"], 0);
    checks.set([]);
    until(port, "/", None).await;
    checks.set([check(port, 1)]);
    until(port, "/", Some(200)).await;
    drop(checks);
    until(port, "/", None).await;
}

#[tokio::test]
async fn endpoints_do_not_help_a_node_whose_switch_is_out_of_step() {
    let port = free();
    let mut checks = HealthChecks::start(ProxyHealth::default(), 0);
    checks.set([check(port, 2)]);
    let (_, body) = until(port, "/", Some(503)).await;
    assert_eq!(body["serviceProxyHealthy"], false);
}

#[tokio::test]
async fn the_proxys_health_follows_the_switch_and_the_node() {
    let (proxy, port) = (ProxyHealth::default(), free());
    let _checks = HealthChecks::start(proxy.clone(), port);
    until(port, "/healthz", Some(503)).await;
    until(port, "/livez", Some(503)).await;
    proxy.in_step();
    let (_, body) = until(port, "/healthz", Some(200)).await;
    assert_eq!(body["nodeEligible"], true);
    assert!(body["lastUpdated"].as_str().unwrap().ends_with('Z'), "{body}");
    proxy.set_eligible(false);
    until(port, "/healthz", Some(503)).await;
    until(port, "/livez", Some(200)).await;
    until(port, "/other", Some(404)).await;
}

#[test]
fn a_switch_is_out_of_step_two_minutes_after_it_was_in_step() {
    let proxy = ProxyHealth::default();
    proxy.in_step();
    let now = Instant::now();
    assert!(proxy.is_healthy(now));
    assert!(proxy.is_healthy(now + HEALTHY_FOR / 2));
    assert!(!proxy.is_healthy(now + HEALTHY_FOR));
}

#[tokio::test]
async fn a_port_that_somebody_else_has_is_tried_again() {
    let other = std::net::TcpListener::bind("[::]:0").or_else(|_| std::net::TcpListener::bind("0.0.0.0:0")).unwrap();
    let port = other.local_addr().unwrap().port();
    let proxy = ProxyHealth::default();
    proxy.in_step();
    let mut checks = HealthChecks::start_with(proxy, 0, Duration::from_millis(10));
    checks.set([check(port, 1)]);
    // The first try is over when this task is run again.
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(other);
    until(port, "/", Some(200)).await;
}
