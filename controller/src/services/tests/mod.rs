//! Services as JSON, and what comes out.

mod claims;
mod endpoints;
mod frontends;
mod order;
mod stale;

use super::*;
use crate::facts::{Frontend, Scope, ServicePort};
use serde_json::{Value, json};

/// Service `shop/web` with this specification.
fn web(spec: Value) -> Service {
    object(json!({ "metadata": { "namespace": "shop", "name": "web" }, "spec": spec }))
}

/// An object from JSON.
fn object<T: serde::de::DeserializeOwned>(json: Value) -> T {
    serde_json::from_value(json).unwrap()
}

/// A Service with one port, 80 of TCP, named `http`, and what else is said.
fn http(more: Value) -> Service {
    let mut spec =
        json!({ "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ports": [{ "name": "http", "port": 80 }] });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    web(spec)
}

/// A slice of `shop/web`, with port 8080 named `http`.
fn slice(endpoints: Value) -> EndpointSlice {
    slice_of("IPv4", json!([{ "name": "http", "port": 8080, "protocol": "TCP" }]), endpoints)
}

fn slice_of(kind: &str, ports: Value, endpoints: Value) -> EndpointSlice {
    object(json!({
        "metadata": { "namespace": "shop", "name": "web-1", "labels": { SERVICE_NAME_LABEL: "web" } },
        "addressType": kind,
        "ports": ports,
        "endpoints": endpoints,
    }))
}

/// Node `a` in zone `east`, at 192.0.2.1 and 2001:db8::1, beside node `b`.
fn here() -> Here {
    Here {
        node: "a".to_owned(),
        zone: Some("east".to_owned()),
        addresses: ["192.0.2.1", "2001:db8::1", "10.244.0.1"].map(ip).into(),
        node_port_addresses: BTreeMap::new(),
        other_nodes: [ip("192.0.2.2")].into(),
        incoming: ["169.254.77.3", "fd00::77:3"].map(ip).into(),
        incoming_ports: HashMap::new(),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str) -> Endpoint {
    let at: std::net::SocketAddr = text.parse().unwrap();
    Endpoint { address: at.ip(), port: at.port() }
}

/// The port of a Service's facts by name, protocol and family.
fn port(service: &facts::Service, name: &str, protocol: Protocol, v6: bool) -> ServicePort {
    let found = service.ports.iter().find(|p| (p.name.as_str(), p.protocol, p.v6) == (name, protocol, v6));
    found.unwrap_or_else(|| panic!("no port {name:?} of {protocol:?}, v6 {v6}, in {service:?}")).clone()
}

/// What [`http`] has as its only port.
fn only(made: &Service, slices: &[EndpointSlice], here: &Here) -> ServicePort {
    let made = service(made, &slices.iter().collect::<Vec<_>>(), here).unwrap();
    assert_eq!(made.ports.len(), 1, "{made:?}");
    made.ports[0].clone()
}
