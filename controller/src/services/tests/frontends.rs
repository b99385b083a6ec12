//! The addresses and ports that clients use, and what the host has to do.

use super::*;

/// A frontend in short: address and port, what clients inside get, what those outside get, where they may come from.
type Short = (String, Scope, Scope, Vec<String>);

fn short(frontends: &[Frontend]) -> Vec<Short> {
    let one = |f: &Frontend| {
        let sources = f.sources.iter().map(ToString::to_string).collect();
        (std::net::SocketAddr::new(f.address, f.port).to_string(), f.inside, f.outside.unwrap(), sources)
    };
    frontends.iter().map(one).collect()
}

fn plain(at: &str, inside: Scope, outside: Scope) -> Short {
    (at.to_owned(), inside, outside, Vec::new())
}

/// The frontends of [`http`].
fn of(more: Value) -> Vec<Short> {
    short(&only(&http(more), &[], &here()).frontends)
}

/// A load balancer's Service with this status.
fn balanced(more: Value, ingress: Value) -> Service {
    let mut made = http(more);
    made.spec.as_mut().unwrap().type_ = Some("LoadBalancer".to_owned());
    made.status = Some(object(json!({ "loadBalancer": { "ingress": ingress } })));
    made
}

const ALL: Scope = Scope::Cluster;
const NEAR: Scope = Scope::Local;

#[test]
fn services_that_are_none_of_ours_are_passed_over() {
    let none = [
        json!({ "spec": { "clusterIP": "None", "clusterIPs": ["None"], "ports": [{ "port": 80 }] } }),
        json!({ "spec": { "clusterIP": "", "ports": [{ "port": 80 }] } }),
        json!({ "spec": { "ports": [{ "port": 80 }] } }),
        json!({ "spec": { "type": "ExternalName", "externalName": "example.org" } }),
        json!({ "metadata": { "labels": { PROXY_NAME_LABEL: "mesh" } }, "spec": { "clusterIP": "10.96.0.7" } }),
        json!({}),
    ];
    for json in none {
        let made: Service = object(json.clone());
        assert_eq!(service(&made, &[], &here()), None, "{json}");
        assert_eq!(published(&made, &here()), Published::default(), "{json}");
        assert_eq!(health::health(&made, &[], &here()), None, "{json}");
    }
    assert!(service(&http(json!({ "loadBalancerClass": "example.org/any" })), &[], &here()).is_some());
}

#[test]
fn the_own_address_follows_the_internal_policy_for_everyone() {
    assert_eq!(of(json!({})), [plain("10.96.0.7:80", ALL, ALL)]);
    assert_eq!(of(json!({ "internalTrafficPolicy": "Local" })), [plain("10.96.0.7:80", NEAR, NEAR)]);
    assert_eq!(
        of(json!({ "externalTrafficPolicy": "Local" })),
        [plain("10.96.0.7:80", ALL, ALL)],
        "nothing is external"
    );
}

#[test]
fn a_node_port_follows_the_external_policy_and_clients_inside_get_all() {
    let ports = json!([{ "name": "http", "port": 80, "nodePort": 30_080 }]);
    let with = |internal: &str, external: &str| {
        of(
            json!({ "type": "NodePort", "ports": ports, "internalTrafficPolicy": internal, "externalTrafficPolicy": external }),
        )
    };
    let own = |scope| plain("10.96.0.7:80", scope, scope);
    let node = |scope| plain("169.254.77.3:30080", ALL, scope);
    assert_eq!(with("Cluster", "Cluster"), [own(ALL), node(ALL)]);
    assert_eq!(with("Cluster", "Local"), [own(ALL), node(NEAR)]);
    assert_eq!(with("Local", "Cluster"), [own(NEAR), node(ALL)]);
    assert_eq!(with("Local", "Local"), [own(NEAR), node(NEAR)]);
}

#[test]
fn node_ports_that_are_kept_to_some_addresses_are_ports_of_those() {
    let made = http(json!({
        "type": "NodePort", "clusterIPs": ["10.96.0.7", "fd00:96::7"],
        "ports": [{ "name": "http", "port": 80, "nodePort": 30_080 }],
    }));
    let key = |address| PublishedPort { protocol: Protocol::Tcp, address, v6: false, port: 30_080 };
    let own = |text| key(Some(ip(text)));
    let all6 = PublishedPort { v6: true, ..key(None) };
    let here = |addresses: &[&str]| Here {
        node_port_addresses: [(false, addresses.iter().map(|text| ip(text)).collect())].into(),
        incoming_ports: [(own("192.0.2.1"), 30_080), (own("192.0.2.9"), 1024)].into(),
        ..here()
    };
    let at = |addresses: &[&str]| {
        let made = service(&made, &[], &here(addresses)).unwrap();
        let of =
            |v6| short(&port(&made, "http", Protocol::Tcp, v6).frontends).into_iter().map(|f| f.0).collect::<Vec<_>>();
        (of(false), of(true))
    };
    let v6 = ["[fd00::77:3]:30080", "[fd00:96::7]:80"].map(str::to_owned).to_vec();
    let v4 = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    assert_eq!(published(&made, &here(&[])).ports, [all6].into(), "no address of IPv4, and all of IPv6");
    assert_eq!(at(&[]), (v4(&["10.96.0.7:80"]), v6.clone()));
    let two = ["192.0.2.1", "192.0.2.9"];
    assert_eq!(published(&made, &here(&two)).ports, [own("192.0.2.1"), own("192.0.2.9"), all6].into());
    assert_eq!(at(&two), (v4(&["10.96.0.7:80", "169.254.77.3:1024", "169.254.77.3:30080"]), v6));
}

#[test]
fn a_load_balancer_without_node_ports_has_its_addresses_alone() {
    let made = balanced(json!({ "allocateLoadBalancerNodePorts": false }), json!([{ "ip": "203.0.113.7" }]));
    let port = only(&made, &[], &here());
    assert_eq!(short(&port.frontends), [plain("10.96.0.7:80", ALL, ALL), plain("203.0.113.7:80", ALL, ALL)]);
    assert_eq!(published(&made, &here()), Published { routes: [ip("203.0.113.7")].into(), ports: BTreeSet::new() });
}

#[test]
fn addresses_of_a_load_balancer_that_is_a_proxy_are_left_to_it() {
    let ingress = json!([
        { "ip": "203.0.113.7", "ipMode": "Proxy" }, { "ip": "203.0.113.8", "ipMode": "VIP" }, { "ip": "203.0.113.9" },
        { "hostname": "lb.example" }, { "ip": "nonsense" }, { "ip": "127.0.0.1" }, { "ip": "224.0.0.1" }, { "ip": "0.0.0.0" },
        { "ip": "2001:db8::7" },
    ]);
    let made = balanced(json!({}), ingress);
    let addresses: Vec<_> = only(&made, &[], &here()).frontends.iter().map(|f| f.address).collect();
    assert_eq!(addresses, ["10.96.0.7", "203.0.113.8", "203.0.113.9"].map(ip));
    assert_eq!(published(&made, &here()).routes, ["203.0.113.8", "203.0.113.9"].map(ip).into());
}

#[test]
fn source_ranges_hold_for_the_load_balancer_alone_and_for_their_family() {
    let ranges = json!([" 198.51.100.77/24 ", "198.51.100.0/24", "2001:db8:1::/48", "nonsense"]);
    let more = json!({
        "clusterIPs": ["10.96.0.7", "fd00:96::7"], "loadBalancerSourceRanges": ranges,
        "externalIPs": ["203.0.113.9", "203.0.113.7"], "ports": [{ "name": "http", "port": 80, "nodePort": 30_080 }],
    });
    let made = balanced(more, json!([{ "ip": "203.0.113.7" }, { "ip": "2001:db8::7" }]));
    let made = service(&made, &[], &here()).unwrap();
    let limited = |at: &str, range: &str| (at.to_owned(), ALL, ALL, vec![range.to_owned()]);
    assert_eq!(
        short(&port(&made, "http", Protocol::Tcp, false).frontends),
        [
            plain("10.96.0.7:80", ALL, ALL),
            plain("169.254.77.3:30080", ALL, ALL),
            limited("203.0.113.7:80", "198.51.100.0/24"),
            plain("203.0.113.9:80", ALL, ALL),
        ],
        "an address that is external and the load balancer's has the limit"
    );
    assert_eq!(
        short(&port(&made, "http", Protocol::Tcp, true).frontends),
        [
            limited("[2001:db8::7]:80", "2001:db8:1::/48"),
            plain("[fd00::77:3]:30080", ALL, ALL),
            plain("[fd00:96::7]:80", ALL, ALL),
        ]
    );
}

#[test]
fn a_source_range_of_everything_is_no_limit() {
    let made = balanced(
        json!({ "loadBalancerSourceRanges": ["198.51.100.0/24", "0.0.0.0/0"] }),
        json!([{ "ip": "203.0.113.7" }]),
    );
    assert!(only(&made, &[], &here()).frontends.iter().all(|f| f.sources.is_empty()));
}

#[test]
fn external_addresses_follow_the_external_policy() {
    let local = json!({ "externalIPs": ["203.0.113.9"], "externalTrafficPolicy": "Local" });
    assert_eq!(of(local), [plain("10.96.0.7:80", ALL, ALL), plain("203.0.113.9:80", ALL, NEAR)]);
}

#[test]
fn of_an_external_address_that_is_a_nodes_only_the_ports_are_led_to_the_switch() {
    let made = http(json!({ "externalIPs": ["192.0.2.1", "192.0.2.2", "203.0.113.9", "10.96.0.7"] }));
    let key = |address| PublishedPort { protocol: Protocol::Tcp, address: Some(ip(address)), v6: false, port: 80 };
    let want = Published { routes: [ip("203.0.113.9")].into(), ports: [key("192.0.2.1"), key("192.0.2.2")].into() };
    assert_eq!(published(&made, &here()), want);
    // The switch has not said yet where they arrive: Pods reach them all the same.
    let before: Vec<_> = short(&only(&made, &[], &here()).frontends).into_iter().map(|f| f.0).collect();
    assert_eq!(before, ["10.96.0.7:80", "192.0.2.1:80", "192.0.2.2:80", "203.0.113.9:80"]);
    let here = Here { incoming_ports: [(key("192.0.2.1"), 41_000), (key("192.0.2.2"), 41_001)].into(), ..here() };
    let after: Vec<_> = short(&only(&made, &[], &here).frontends).into_iter().map(|f| f.0).collect();
    let want =
        ["10.96.0.7:80", "169.254.77.3:41000", "169.254.77.3:41001", "192.0.2.1:80", "192.0.2.2:80", "203.0.113.9:80"];
    assert_eq!(after, want);
}

#[test]
fn a_service_of_two_families_has_each_of_its_ports_in_both() {
    let made = web(json!({
        "type": "NodePort", "clusterIP": "fd00:96::7", "clusterIPs": ["fd00:96::7", "10.96.0.7"],
        "externalIPs": ["203.0.113.9", "2001:db8::9"],
        "ports": [{ "name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30_053 },
                  { "name": "dns-tcp", "port": 53, "protocol": "TCP", "nodePort": 30_053 },
                  { "name": "tunnel", "port": 53, "protocol": "SCTP" },
                  { "name": "odd", "port": 54, "protocol": "QUIC" }],
    }));
    let got = service(&made, &[], &here()).unwrap();
    let ports: Vec<_> = got.ports.iter().map(|p| (p.name.as_str(), p.protocol, p.v6)).collect();
    let want = [("dns", Protocol::Udp), ("dns-tcp", Protocol::Tcp), ("tunnel", Protocol::Sctp)];
    assert_eq!(ports, want.map(|(name, protocol)| [(name, protocol, false), (name, protocol, true)]).concat());
    let v6: Vec<_> = short(&port(&got, "dns", Protocol::Udp, true).frontends).into_iter().map(|f| f.0).collect();
    assert_eq!(v6, ["[2001:db8::9]:53", "[fd00::77:3]:30053", "[fd00:96::7]:53"]);
    let host = published(&made, &here());
    let key = |protocol, v6| PublishedPort { protocol, address: None, v6, port: 30_053 };
    let both = |protocol| [key(protocol, false), key(protocol, true)];
    assert_eq!(host.ports, [both(Protocol::Udp), both(Protocol::Tcp)].concat().into_iter().collect());
    assert_eq!(host.routes, [ip("203.0.113.9"), ip("2001:db8::9")].into());
}

#[test]
fn a_service_of_one_family_has_nothing_of_the_other() {
    let made = http(
        json!({ "type": "NodePort", "externalIPs": ["2001:db8::9"], "ports": [{ "port": 80, "nodePort": 30_080 }] }),
    );
    assert!(only(&made, &[], &here()).frontends.iter().all(|f| f.address.is_ipv4()));
    let host = published(&made, &here());
    assert!(host.routes.is_empty() && host.ports.iter().all(|p| !p.v6), "{host:?}");
}

#[test]
fn affinity_has_its_default_and_is_cut_where_the_switch_ends() {
    let with = |config: Value| {
        let made = http(json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": config }));
        (service(&made, &[], &here()).unwrap().affinity_s, notes(&made).len())
    };
    let seconds = |s: i32| json!({ "clientIP": { "timeoutSeconds": s } });
    assert_eq!(with(Value::Null), (Some(10_800), 0));
    assert_eq!(with(seconds(60)), (Some(60), 0));
    assert_eq!(with(seconds(65_535)), (Some(65_535), 0));
    assert_eq!(with(seconds(86_400)), (Some(65_535), 1), "and it is said");
    assert_eq!(with(seconds(-1)), (Some(1), 0));
    let made = http(json!({ "sessionAffinity": "None", "sessionAffinityConfig": seconds(60) }));
    assert_eq!(service(&made, &[], &here()).unwrap().affinity_s, None);
}

#[test]
fn old_addresses_with_zeros_in_front_are_decimal() {
    let zeros = http(json!({ "externalIPs": ["203.000.113.010", "0.0.0.0", "1.2.3", "1..2.3"] }));
    let addresses: Vec<_> = only(&zeros, &[], &here()).frontends.iter().map(|f| f.address).collect();
    assert_eq!(addresses, ["10.96.0.7", "203.0.113.10"].map(ip));
}
