//! Which endpoints are chosen from.

use super::*;

const READY: (bool, bool, bool) = (true, true, false);
const NOT_READY: (bool, bool, bool) = (false, false, false);
const TERMINATING: (bool, bool, bool) = (false, true, true);
const GONE: (bool, bool, bool) = (false, false, true);

/// An endpoint 10.244.0.N on a node in a state.
fn endpoint(n: u8, node: &str, (ready, serving, terminating): (bool, bool, bool)) -> Value {
    json!({
        "addresses": [format!("10.244.0.{n}")],
        "nodeName": node,
        "conditions": { "ready": ready, "serving": serving, "terminating": terminating },
    })
}

/// The last bytes of addresses.
fn numbers(endpoints: &[Endpoint]) -> Vec<u8> {
    let byte = |e: &Endpoint| match e.address {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => ip.octets()[15],
    };
    endpoints.iter().map(byte).collect()
}

/// What a Service whose internal policy is `Local` chooses from: of the cluster, and of the node.
fn chosen(endpoints: Vec<Value>) -> (Vec<u8>, Vec<u8>) {
    let made = only(&http(json!({ "internalTrafficPolicy": "Local" })), &[slice(Value::Array(endpoints))], &here());
    (numbers(&made.cluster), numbers(&made.local))
}

#[test]
fn ready_endpoints_come_first_and_terminating_ones_that_serve_only_without_them() {
    type Case = (&'static str, Vec<Value>, &'static [u8], &'static [u8]);
    let cases: &[Case] = &[
        ("ready ones alone", vec![endpoint(1, "b", READY), endpoint(2, "b", NOT_READY)], &[1], &[]),
        ("ready beats terminating", vec![endpoint(1, "b", TERMINATING), endpoint(2, "b", READY)], &[2], &[]),
        ("terminating without ready ones", vec![endpoint(1, "b", TERMINATING), endpoint(2, "b", GONE)], &[1], &[]),
        ("nothing that serves", vec![endpoint(1, "a", NOT_READY), endpoint(2, "a", GONE)], &[], &[]),
        ("local ready", vec![endpoint(1, "a", READY), endpoint(2, "b", READY)], &[1, 2], &[1]),
        (
            "local terminating though another node has a ready one",
            vec![endpoint(1, "a", TERMINATING), endpoint(2, "b", READY)],
            &[2],
            &[1],
        ),
        (
            "local ready beats local terminating",
            vec![endpoint(1, "a", TERMINATING), endpoint(2, "a", READY)],
            &[2],
            &[2],
        ),
        ("local not ready is nothing", vec![endpoint(1, "a", NOT_READY), endpoint(2, "b", READY)], &[2], &[]),
        ("published though not ready", vec![endpoint(1, "a", (true, false, false))], &[1], &[1]),
        ("ready wins over terminating in itself", vec![endpoint(1, "a", (true, true, true))], &[1], &[1]),
    ];
    for (what, endpoints, cluster, local) in cases {
        let (got_cluster, got_local) = chosen(endpoints.clone());
        assert_eq!((got_cluster.as_slice(), got_local.as_slice()), (*cluster, *local), "{what}");
    }
}

#[test]
fn conditions_that_are_not_said_are_ready_serving_and_not_terminating() {
    let (cluster, local) = chosen(vec![
        json!({ "addresses": ["10.244.0.1"], "nodeName": "a" }),
        json!({ "addresses": ["10.244.0.2"], "nodeName": "a", "conditions": {} }),
    ]);
    assert_eq!((cluster, local), (vec![1, 2], vec![1, 2]));
    let (cluster, _) = chosen(vec![
        json!({ "addresses": ["10.244.0.3"], "conditions": { "ready": false, "terminating": true } }),
        json!({ "addresses": ["10.244.0.4"], "conditions": { "ready": false } }),
    ]);
    assert_eq!(cluster, [3], "it serves, since nothing else is said, and is used as the last resort");
}

#[test]
fn endpoints_on_the_node_are_listed_only_where_a_frontend_gives_them() {
    let endpoints = json!([endpoint(1, "a", READY)]);
    assert_eq!(only(&http(json!({})), &[slice(endpoints.clone())], &here()).local, []);
    let node_port = json!({ "type": "NodePort", "externalTrafficPolicy": "Local" });
    assert_eq!(
        only(&http(node_port), &[slice(endpoints.clone())], &here()).local,
        [],
        "without a node port nobody from outside comes"
    );
    let with_port = json!({
        "type": "NodePort", "externalTrafficPolicy": "Local", "ports": [{ "name": "http", "port": 80, "nodePort": 30_080 }],
    });
    assert_eq!(only(&http(with_port), &[slice(endpoints)], &here()).local, [at("10.244.0.1:8080")]);
}

/// An endpoint that is ready, with hints.
fn hinted(n: u8, zones: &[&str], nodes: &[&str]) -> Value {
    let names = |names: &[&str]| names.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>();
    let mut endpoint = endpoint(n, "b", READY);
    endpoint["hints"] = json!({ "forZones": names(zones), "forNodes": names(nodes) });
    endpoint
}

#[test]
fn hints_count_if_each_ready_endpoint_has_one_and_one_is_for_this_node_or_zone() {
    type Case = (&'static str, Option<&'static str>, Vec<Value>, &'static [u8]);
    let (east, west) = (["east"].as_slice(), ["west"].as_slice());
    let cases: &[Case] = &[
        ("the zone's own", Some("east"), vec![hinted(1, east, &[]), hinted(2, west, &[])], &[1]),
        ("for two zones", Some("east"), vec![hinted(1, east, &[]), hinted(2, &["west", "east"], &[])], &[1, 2]),
        ("one without", Some("east"), vec![hinted(1, east, &[]), hinted(2, &[], &[])], &[1, 2]),
        ("one without hints at all", Some("east"), vec![hinted(1, east, &[]), endpoint(2, "b", READY)], &[1, 2]),
        ("none for the zone", Some("east"), vec![hinted(1, west, &[]), hinted(2, west, &[])], &[1, 2]),
        ("a node without a zone", None, vec![hinted(1, east, &[]), hinted(2, west, &[])], &[1, 2]),
        (
            "one not ready without is passed over",
            Some("east"),
            vec![hinted(1, east, &[]), endpoint(2, "b", NOT_READY)],
            &[1],
        ),
        ("for the node before the zone", Some("east"), vec![hinted(1, east, &["b"]), hinted(2, west, &["a"])], &[2]),
        ("none for the node: the zone", Some("east"), vec![hinted(1, east, &["b"]), hinted(2, west, &["b"])], &[1]),
        (
            "not all for nodes: the zone",
            Some("east"),
            vec![hinted(1, east, &["a"]), hinted(2, east, &[]), hinted(3, west, &[])],
            &[1, 2],
        ),
        ("for the node without any zone", None, vec![hinted(1, &[], &["a"]), hinted(2, &[], &["b"])], &[1]),
    ];
    for (what, zone, endpoints, want) in cases {
        let here = Here { zone: zone.map(str::to_owned), ..here() };
        let got = only(&http(json!({})), &[slice(Value::Array(endpoints.clone()))], &here);
        assert_eq!(numbers(&got.cluster), *want, "{what}");
    }
}

#[test]
fn hints_are_for_ready_endpoints_and_not_for_those_of_the_node() {
    let mut terminating = hinted(1, &["west"], &[]);
    terminating["conditions"] = json!({ "ready": false, "serving": true, "terminating": true });
    assert_eq!(numbers(&only(&http(json!({})), &[slice(json!([terminating]))], &here()).cluster), [1]);
    let mut far = hinted(2, &["west"], &[]);
    far["nodeName"] = json!("a");
    let (cluster, local) = chosen(vec![far, hinted(3, &["east"], &[])]);
    assert_eq!((cluster, local), (vec![3], vec![2]));
}

#[test]
fn an_endpoint_in_several_slices_is_one_in_its_best_state() {
    let slices = [
        slice(json!([endpoint(1, "b", NOT_READY), endpoint(2, "b", READY)])),
        slice(json!([endpoint(1, "b", READY)])),
        slice(json!([endpoint(2, "a", READY)])),
    ];
    let got = only(&http(json!({ "internalTrafficPolicy": "Local" })), &slices, &here());
    assert_eq!((numbers(&got.cluster), numbers(&got.local)), (vec![1, 2], vec![2]));
}

#[test]
fn slices_of_other_services_namespaces_kinds_and_proxies_are_passed_over() {
    let endpoints = json!([endpoint(1, "b", READY)]);
    let ports = json!([{ "name": "http", "port": 8080, "protocol": "TCP" }]);
    let others = [
        json!({ "namespace": "shop", "name": "x", "labels": { SERVICE_NAME_LABEL: "db" } }),
        json!({ "namespace": "office", "name": "x", "labels": { SERVICE_NAME_LABEL: "web" } }),
        json!({ "namespace": "shop", "name": "web" }),
        json!({ "namespace": "shop", "name": "x", "labels": { SERVICE_NAME_LABEL: "web", PROXY_NAME_LABEL: "other" } }),
    ];
    for metadata in others {
        let slice =
            object(json!({ "metadata": metadata, "addressType": "IPv4", "ports": ports, "endpoints": endpoints }));
        assert_eq!(only(&http(json!({})), &[slice], &here()).cluster, [], "{metadata}");
    }
    let names = slice_of("FQDN", ports.clone(), json!([{ "addresses": ["web.example"] }]));
    assert_eq!(only(&http(json!({})), &[names], &here()).cluster, []);
    let wrong_family = slice_of("IPv6", ports, endpoints);
    assert_eq!(only(&http(json!({})), &[wrong_family], &here()).cluster, []);
}

#[test]
fn each_slice_says_which_number_a_named_port_has() {
    let one = slice_of("IPv4", json!([{ "name": "http", "port": 8080 }]), json!([endpoint(1, "b", READY)]));
    let two = slice_of(
        "IPv4",
        json!([{ "name": "http", "port": 9090 }, { "name": "admin", "port": 9 }]),
        json!([endpoint(2, "b", READY)]),
    );
    let got = only(&http(json!({})), &[one, two], &here());
    assert_eq!(got.cluster, [at("10.244.0.1:8080"), at("10.244.0.2:9090")]);
}

#[test]
fn ports_without_a_number_of_other_protocols_and_endpoints_that_are_no_addresses_are_passed_over() {
    let odd = slice_of(
        "IPv4",
        json!([
            { "name": "http" }, { "name": "http", "port": 0 }, { "name": "http", "port": 70_000 },
            { "name": "http", "port": 1, "protocol": "UDP" }, { "name": "http", "port": 2, "protocol": "QUIC" },
        ]),
        json!([endpoint(1, "b", READY)]),
    );
    assert_eq!(only(&http(json!({})), &[odd], &here()).cluster, []);
    let endpoints =
        json!([{ "addresses": [] }, { "addresses": ["nobody"] }, { "addresses": ["10.244.0.9", "10.244.0.10"] }]);
    let got = only(&http(json!({})), &[slice(endpoints)], &here());
    assert_eq!(numbers(&got.cluster), [9], "only the first address counts");
}

#[test]
fn a_port_without_a_name_takes_the_ports_without_a_name() {
    let unnamed = web(json!({ "clusterIP": "10.96.0.7", "ports": [{ "port": 80 }] }));
    let slices = [
        slice_of("IPv4", json!([{ "name": "", "port": 8080 }]), json!([endpoint(1, "b", READY)])),
        slice_of("IPv4", json!([{ "port": 8081 }]), json!([endpoint(1, "b", READY)])),
        slice(json!([endpoint(2, "b", READY)])),
    ];
    assert_eq!(only(&unnamed, &slices, &here()).cluster, [at("10.244.0.1:8080"), at("10.244.0.1:8081")]);
}

#[test]
fn what_serves_is_said_whether_it_is_chosen_or_not() {
    let endpoints = json!([
        endpoint(1, "b", TERMINATING),
        endpoint(2, "b", READY),
        endpoint(3, "b", NOT_READY),
        endpoint(4, "b", GONE)
    ]);
    let got = serving(&http(json!({})), &[&slice(endpoints)], &here());
    assert_eq!(got, [(Protocol::Tcp, at("10.244.0.1:8080")), (Protocol::Tcp, at("10.244.0.2:8080"))].into());
}
