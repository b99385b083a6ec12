//! The evaluator against what the specification says by example, and what it says in words.

use super::{End, Object, Protocol, World};
use serde_json::Value;
use std::net::IpAddr;

mod cluster;
mod generated;
mod namespaced;

/// The cases' cluster, with these objects as well.
fn world(objects: &str) -> World {
    let mut world = World::default();
    for text in [include_str!("../../policies/world.yaml"), objects] {
        if !text.is_empty() {
            let values: Vec<Value> = serde_saphyr::from_multiple(text).expect("it is YAML");
            for value in values {
                world.apply(Object::read(value).expect("it is an object"));
            }
        }
    }
    world
}

/// `NAMESPACE/POD` (by IPv4), `@NODE` or an address.
fn end(world: &World, text: &str) -> End {
    if let Some((namespace, name)) = text.split_once('/') {
        return world.pod_end(namespace, name, "ipv4").expect("there is such a Pod");
    }
    match text.strip_prefix('@') {
        Some(name) => {
            let is = |end: &End| matches!(end, End::Host { node, .. } if node == name) && end.address().is_ipv4();
            world.host_ends().into_iter().find(is).expect("there is such a node")
        }
        None => End::Address(address(text)),
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("it is an address")
}

/// The answer as text.
fn ask(world: &World, from: &str, to: &str, protocol: Protocol, port: u16) -> String {
    world.verdict(&end(world, from), &end(world, to), protocol, port).to_string()
}

/// What happens at the source, on TCP port 80.
fn egress(world: &World, from: &str, to: &str) -> String {
    world.verdict(&end(world, from), &end(world, to), Protocol::Tcp, 80).egress.to_string()
}

/// What happens at the destination, on TCP port 80.
fn ingress(world: &World, from: &str, to: &str) -> String {
    world.verdict(&end(world, from), &end(world, to), Protocol::Tcp, 80).ingress.to_string()
}
