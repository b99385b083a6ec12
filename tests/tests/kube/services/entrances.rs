//! The ways in: addresses of load balancers, external ones, ports of nodes and of hosts, and who is let in where.

use super::field::{DUAL, ENDPOINTS, Field, PORTS, pod, serve, with_port};
use super::place::{BOTH, Heard, Place, Proto, SETTLED, Server, all_hear_nothing, all_reach, all_refused, each};
use crate::cluster::{Cluster, host, within};
use crate::plain;
use serde_json::json;
use std::net::{IpAddr, SocketAddr};

/// Addresses of load balancers, of each test its own.
const BALANCED: [&str; 2] = ["192.0.2.10", "2001:db8::10"];
const RANGED: [&str; 2] = ["192.0.2.11", "2001:db8::11"];
const LOCAL: [&str; 2] = ["192.0.2.12", "2001:db8::12"];
/// External addresses.
const EXTERNAL: [&str; 2] = ["192.0.2.20", "2001:db8::20"];
/// Where a load balancer's port is that no Service has.
const NOBODYS: u16 = 81;

pub(crate) fn load_balancer(cluster: &Cluster) {
    let field = Field::of(cluster);
    field.service("lb", &format!("  type: LoadBalancer\n  selector: {{field: 'yes'}}\n  ports: {PORTS}"));
    let balanced = field.of_families(BALANCED);
    field.balance("lb", &balanced);
    field.route(&balanced, "node-1");
    all_reach(&field.everybody(), &BOTH, &with_port(&balanced, 80), &ENDPOINTS);
    if !plain() {
        // The plain network sends what is nobody's on by its routes.
        all_refused(&[&field.outside, &field.c1, &field.node1], &BOTH, &with_port(&balanced, NOBODYS));
    }
    // A load balancer that is a proxy keeps its address to itself.
    let proxied: Vec<_> = balanced.iter().map(|ip| json!({"ip": ip, "ipMode": "Proxy"})).collect();
    let patch = json!({"status": {"loadBalancer": {"ingress": proxied}}}).to_string();
    cluster.kubectl(&["patch", "service", "lb", "--subresource=status", "--type=merge", "-p", &patch]);
    each(with_port(&balanced, 80), |at| {
        within(SETTLED, &format!("{at} to be nobody's"), || match field.c1.ask(Proto::Tcp, at) {
            Heard::By(who, _) => Err(who),
            _ => Ok(()),
        });
    });
    field.delete(&["service/lb"]);
}

pub(crate) fn source_ranges(cluster: &Cluster) {
    let field = Field::of(cluster);
    let spec = |ranges: &str| {
        format!(
            "  type: LoadBalancer\n  selector: {{field: 'yes'}}\n  ports: {PORTS}\n  loadBalancerSourceRanges: {ranges}"
        )
    };
    field.service("ranges", &spec("[172.30.0.1/32, 'fd00:30::1/128']"));
    field.balance("ranges", &RANGED);
    field.route(&RANGED, "node-1");
    let node_port = field.node_port("ranges", "web");
    let at = with_port(&RANGED, 80);
    all_reach(&[&field.outside], &BOTH, &at, &ENDPOINTS);
    // They hold for everybody, not only for those outside.
    all_hear_nothing(&field.insiders(), &BOTH, &at);
    field.service("ranges", &spec("[10.244.0.0/24, 172.30.0.12/32, 'fd00:30::12/128', 'fd00:244::/64']"));
    all_hear_nothing(&[&field.outside], &BOTH, &at);
    all_reach(&[&field.node2], &BOTH, &at, &ENDPOINTS);
    // They are the load balancer's alone.
    all_reach(&[&field.outside], &[Proto::Tcp], &field.at_node("node-1", node_port), &ENDPOINTS);
    all_reach(&[&field.c2], &[Proto::Tcp], &field.at("ranges", 80), &ENDPOINTS);
    field.delete(&["service/ranges"]);
}

pub(crate) fn external_ips(cluster: &Cluster) {
    let field = Field::of(cluster);
    let (external, own) = (field.of_families(EXTERNAL), cluster.outside_addresses("node-2"));
    let all: Vec<String> =
        external.iter().copied().chain(own.iter().map(String::as_str)).map(|address| format!("'{address}'")).collect();
    field.service(
        "ext",
        &format!(
            "  selector: {{field: 'yes'}}\n  ports: [{{name: web, port: 8055, targetPort: web}}, \
             {{name: dns, port: 8055, protocol: UDP, targetPort: dns}}]\n  externalIPs: [{}]",
            all.join(", ")
        ),
    );
    field.route(&external, "node-2");
    let at = [with_port(&external, 8055), with_port(&own, 8055)].concat();
    all_reach(&field.everybody(), &BOTH, &at, &ENDPOINTS);
    // All else at the node's own address is as it was.
    let at = with_port(&own, 8056);
    let server = Server::start(&field.node2, "node-2", &at, &at);
    all_reach(&[&field.outside, &field.c1, &field.node1], &BOTH, &at, &["node-2"]);
    drop(server);
    field.delete(&["service/ext"]);
}

/// What the health check of a load balancer's Service says at a node.
fn health(field: &Field<'_>, node: &str, port: u16) -> Vec<(String, serde_json::Value)> {
    let addresses = field.cluster.outside_addresses(node);
    let ask = |address: &String| {
        let url = format!("http://{}:{port}/healthz", host(address));
        let said = field.cluster.try_node("control", &["curl", "-sS", "-g", "-m", "5", "-w", "\n%{http_code}", &url]);
        let (body, code) = said.text.rsplit_once('\n').unwrap_or_else(|| panic!("{url}: {}", said.text));
        (code.to_owned(), serde_json::from_str(body).unwrap_or_else(|e| panic!("{url}: {e}: {body}")))
    };
    addresses.iter().map(ask).collect()
}

pub(crate) fn external_local(cluster: &Cluster) {
    let field = Field::of(cluster);
    field.service(
        "extlocal",
        &format!("  type: LoadBalancer\n  selector: {{me: e1}}\n  ports: {PORTS}\n  externalTrafficPolicy: Local"),
    );
    let local = field.of_families(LOCAL);
    field.balance("extlocal", &local);
    field.route(&local, "node-1");
    let ports = [(Proto::Tcp, field.node_port("extlocal", "web")), (Proto::Udp, field.node_port("extlocal", "dns"))];
    let control: Vec<IpAddr> =
        field.of_families(["172.30.0.1", "fd00:30::1"]).iter().map(|text| text.parse().unwrap()).collect();
    let ways = ports.into_iter().flat_map(|way| control.iter().copied().enumerate().map(move |client| (way, client)));
    each(ways, |((proto, port), (family, client))| {
        let (near, far) = (field.at_node("node-1", port)[family], field.at_node("node-2", port)[family]);
        let balanced = with_port(&local, 80)[family];
        // Who asks is seen as they are.
        for at in [near, balanced] {
            for heard in field.outside.reaches(proto, at, &["e1"]) {
                assert_eq!(heard.seen(), client, "whom e1 sees by {proto:?} at {at}");
            }
        }
        field.outside.hears_nothing(proto, far);
        // Who is of the cluster gets every endpoint, wherever they are.
        all_reach(&field.insiders(), &[proto], &[balanced], &["e1"]);
        all_reach(&[&field.c1, &field.node1], &[proto], &[near], &["e1"]);
        all_reach(&[&field.c2, &field.node2], &[proto], &[far], &["e1"]);
    });
    let check = cluster.service("extlocal")["spec"]["healthCheckNodePort"].as_u64().unwrap().try_into().unwrap();
    for (node, code, local) in [("node-1", "200", 1), ("node-2", "503", 0)] {
        within(SETTLED, &format!("the health check of {node}"), || {
            for (said, body) in health(&field, node, check) {
                let right = said == code
                    && body["service"]["namespace"] == "default"
                    && body["service"]["name"] == "extlocal"
                    && body["localEndpoints"] == local
                    && body["serviceProxyHealthy"] == true;
                if !right {
                    return Err(format!("{said} {body}"));
                }
            }
            Ok(())
        });
    }
    field.delete(&["service/extlocal"]);
}

/// A manual endpoint of a Service without a selector.
fn slice(service: &str, at: SocketAddr, node: &str) -> String {
    let family = if at.is_ipv4() { 4 } else { 6 };
    let port = at.port();
    let node = if node.is_empty() { String::new() } else { format!("nodeName: {node}, ") };
    format!(
        "
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {service}-{family}, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: IPv{family}
ports: [{{name: web, port: {port}, protocol: TCP}}, {{name: dns, port: {port}, protocol: UDP}}]
endpoints: [{{addresses: ['{}'], {node}conditions: {{ready: true}}}}]
",
        at.ip()
    )
}

pub(crate) fn manual_endpoints(cluster: &Cluster) {
    let field = Field::of(cluster);
    let ports = "  type: NodePort\n  ports: [{name: web, port: 80}, {name: dns, port: 80, protocol: UDP}]";
    let outside = with_port(&["172.30.0.1", "fd00:30::1"], 8057);
    let hosted = field.at_node("node-2", 8057);
    let _outside = Server::start(&field.outside, "outside", &outside, &outside);
    let _hosted = Server::start(&field.node2, "node-2", &hosted, &hosted);
    for (service, ends, node) in [("far", &outside, ""), ("hosted", &hosted, "node-2")] {
        field.service(service, ports);
        cluster.apply(&ends.iter().map(|at| slice(service, *at, node)).collect::<String>());
        let who = if node.is_empty() { "outside" } else { node };
        all_reach(&field.insiders(), &BOTH, &field.at(service, 80), &[who]);
        for (proto, name) in [(Proto::Tcp, "web"), (Proto::Udp, "dns")] {
            let port = field.node_port(service, name);
            let at = [field.at_node("node-1", port), field.at_node("node-2", port)].concat();
            all_reach(&[&field.outside, &field.c1, &field.c2, &field.node1], &[proto], &at, &[who]);
        }
    }
    let slices = ["endpointslice/far-4", "endpointslice/far-6", "endpointslice/hosted-4", "endpointslice/hosted-6"];
    field.delete(&[&["service/far", "service/hosted"][..], &slices].concat());
}

pub(crate) fn hosted_and_local(cluster: &Cluster) {
    let field = Field::of(cluster);
    let hosted = field.at_node("node-2", 8058);
    let _server = Server::start(&field.node2, "node-2", &hosted, &hosted);
    let ports = "  type: NodePort\n  externalTrafficPolicy: Local\n  \
                 ports: [{name: web, port: 80}, {name: dns, port: 80, protocol: UDP}]";
    field.service("hostlocal", ports);
    cluster.apply(&hosted.iter().map(|at| slice("hostlocal", *at, "node-2")).collect::<String>());
    for (proto, name) in [(Proto::Tcp, "web"), (Proto::Udp, "dns")] {
        let port = field.node_port("hostlocal", name);
        for (at, asker) in field.at_node("node-2", port).into_iter().zip(["172.30.0.1", "fd00:30::1"]) {
            for heard in field.outside.reaches(proto, at, &["node-2"]) {
                // Behind Sluice it sees the switch.
                assert_eq!(heard.seen().to_string() == asker, plain(), "whom node-2 sees by {proto:?} at {at}");
            }
        }
    }
    field.delete(&["service/hostlocal", "endpointslice/hostlocal-4", "endpointslice/hostlocal-6"]);
}

pub(crate) fn internal_local(cluster: &Cluster) {
    let field = Field::of(cluster);
    field.service("intlocal", &format!("  selector: {{me: e1}}\n  ports: {PORTS}\n  internalTrafficPolicy: Local"));
    let at = field.at("intlocal", 80);
    all_reach(&[&field.c1, &field.node1], &BOTH, &at, &["e1"]);
    all_hear_nothing(&[&field.c2, &field.node2], &BOTH, &at);
    field.service(
        "intlocal",
        &format!("  selector: {{field: 'yes'}}\n  ports: {PORTS}\n  internalTrafficPolicy: Local"),
    );
    all_reach(&[&field.c1], &[Proto::Tcp], &at, &["e1", "e3"]);
    all_reach(&[&field.c2], &[Proto::Tcp], &at, &["e2", "e4"]);
    field.delete(&["service/intlocal"]);
}

pub(crate) fn node_ports(cluster: &Cluster) {
    let field = Field::of(cluster);
    field.service("np", &format!("  type: NodePort\n  selector: {{field: 'yes'}}\n  ports: {PORTS}"));
    for (proto, name) in [(Proto::Tcp, "web"), (Proto::Udp, "dns")] {
        let port = field.node_port("np", name);
        let at = [field.at_node("node-1", port), field.at_node("node-2", port)].concat();
        all_reach(&field.everybody(), &[proto], &at, &ENDPOINTS);
        // kube-proxy's nftables mode leaves loopback out.
        let loopback: SocketAddr = ([127, 0, 0, 1], port).into();
        if plain() {
            field.node1.is_refused(proto, loopback);
        } else {
            field.node1.reaches(proto, loopback, &ENDPOINTS);
        }
    }
    // An endpoint reaches itself by its node's port too.
    field.service("np", &format!("  type: NodePort\n  selector: {{me: e1}}\n  ports: {PORTS}"));
    let e1 = Place::pod(cluster, "e1");
    all_reach(&[&e1], &[Proto::Tcp], &field.at_node("node-1", field.node_port("np", "web")), &["e1"]);
    all_reach(&[&e1], &[Proto::Udp], &field.at_node("node-2", field.node_port("np", "dns")), &["e1"]);
    field.delete(&["service/np"]);
}

/// A Pod that has ports of its host.
fn with_host_ports(name: &str, ports: &[(u16, &str, u16, &str)]) -> String {
    let ports: Vec<String> = ports
        .iter()
        .map(|(container, proto, host, ip)| {
            let ip = if ip.is_empty() { String::new() } else { format!(", hostIP: '{ip}'") };
            format!("{{containerPort: {container}, protocol: {proto}, hostPort: {host}{ip}}}")
        })
        .collect();
    let plain = pod(name, "node-1", "field: 'no'", 8080, 5353, "");
    let (before, line) = plain.trim_end().rsplit_once('\n').unwrap();
    assert!(line.trim_start().starts_with("ports:"));
    format!("{before}\n      ports: [{}]\n", ports.join(", "))
}

pub(crate) fn host_ports(cluster: &Cluster) {
    let field = Field::of(cluster);
    let ports = [
        (8080, "TCP", 8300, ""),
        (5353, "UDP", 8300, ""),
        (8080, "TCP", 8301, "172.30.0.11"),
        (8080, "TCP", 8302, "127.0.0.1"),
        (8080, "TCP", 8303, "fd00:30::11"),
    ];
    let begin = |name: &str| {
        cluster.apply(&with_host_ports(name, &ports));
        cluster.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
        serve(cluster, name, 8080, 5353)
    };
    let _first = begin("hp1");
    let everybody = field.everybody();
    let all = field.at_node("node-1", 8300);
    all_reach(&everybody, &BOTH, &all, &["hp1"]);
    for at in all.iter().copied() {
        for heard in field.outside.reaches(Proto::Tcp, at, &["hp1"]) {
            assert!(
                ["172.30.0.1", "fd00:30::1"].contains(&heard.seen().to_string().as_str()),
                "seen as {}",
                heard.seen()
            );
        }
    }
    field.node1.reaches(Proto::Tcp, ([127, 0, 0, 1], 8300).into(), &["hp1"]);
    let [v4, v6] = [8301, 8303].map(|port| field.at_node("node-1", port));
    all_reach(&everybody, &[Proto::Tcp], &[v4[0], v6[1]], &["hp1"]);
    all_refused(&everybody, &[Proto::Tcp], &[v4[1], v6[0]]);
    field.node1.is_refused(Proto::Tcp, ([127, 0, 0, 1], 8301).into());
    field.node1.reaches(Proto::Tcp, ([127, 0, 0, 1], 8302).into(), &["hp1"]);
    field.outside.is_refused(Proto::Tcp, field.at_node("node-1", 8302)[0]);
    // The ports are the next one's as soon as the Pod is gone, for who asks from the same port too.
    let from = field.outside.datagrams(all[0]);
    assert!(super::place::ask_by(&from, b"who").unwrap().starts_with("hp1 "));
    cluster.kubectl(&["delete", "pod/hp1", "--timeout=60s"]);
    all_refused(&[&field.outside], &[Proto::Tcp], &all);
    let _second = begin("hp2");
    all_reach(&everybody, &BOTH, &all, &["hp2"]);
    within(SETTLED, "the same client to reach the next Pod", || match super::place::ask_by(&from, b"who") {
        Ok(answer) if answer.starts_with("hp2 ") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    field.delete(&["pod/hp2"]);
}

/// Services that have addresses of one family, or of both in an order.
pub(crate) fn families(cluster: &Cluster) {
    let field = Field::of(cluster);
    let service = |spec: &str| {
        let spec = format!("{spec}  selector: {{field: 'yes'}}\n  ports: {PORTS}");
        cluster.apply(&format!("apiVersion: v1\nkind: Service\nmetadata: {{name: fam}}\nspec:\n{spec}\n"));
    };
    service("  ipFamilyPolicy: SingleStack\n  ipFamilies: [IPv6]\n");
    let one = field.at("fam", 80);
    assert!(matches!(one.as_slice(), [at] if at.is_ipv6()), "{one:?}");
    service("  ipFamilyPolicy: PreferDualStack\n  ipFamilies: [IPv6, IPv4]\n");
    let two = field.at("fam", 80);
    assert!(matches!(two.as_slice(), [first, second] if *first == one[0] && second.is_ipv4()), "{two:?}");
    all_reach(&[&field.c1, &field.node2], &BOTH, &two, &ENDPOINTS);
    // Back to one: the other address is nobody's. kube-proxy drops what is sent to such a one.
    service("  ipFamilyPolicy: SingleStack\n  ipFamilies: [IPv6]\n");
    field.c1.hears(Proto::Tcp, two[1], if plain() { &Heard::Silence } else { &Heard::Refused });
    field.c1.reaches(Proto::Tcp, one[0], &ENDPOINTS);
    field.delete(&["service/fam"]);
    assert!(DUAL.contains("PreferDualStack"), "which the other tests' Services have");
}
