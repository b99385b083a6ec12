//! What the words of a question name: Pods, Services, nodes and addresses, and where a connection goes there.

use super::namespaced_name;
use super::world::{End, To, World, is_selected, pod_name};
use crate::failure::Failure;
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointPort;
use sluice_controller::facts::Protocol;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// An end as it is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Named {
    /// `NAMESPACE/NAME`.
    Pod(String),
    /// `svc/NAMESPACE/NAME`.
    Service(String),
    /// `node/NAME`.
    Node(String),
    Address(IpAddr),
}

/// A port as it is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Number(u16),
    Name(String),
}

/// What was asked: from where to where.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) from: End,
    /// The places that it may go to, each with the port there: more than one for a Service.
    pub(super) to: Vec<(End, To)>,
    /// The Service, as it is called.
    pub(super) service: Option<String>,
}

impl Question {
    /// # Errors
    /// Words that name nothing, or nothing that is there.
    pub(super) fn of(world: &World, from: &str, to: &str) -> Result<Self, Failure> {
        let (from, None, _) = parse(from)? else {
            return Err(Failure::usage(format!("`{from}`: a source has no port")));
        };
        let (to, port, protocol) = parse(to)?;
        let from = match from {
            Named::Service(_) => return Err(Failure::usage("a Service sends nothing").next("name one of its Pods")),
            named => end(world, &named)?,
        };
        if let Named::Service(name) = &to {
            let to = endpoints(world, name, port.as_ref(), protocol)?;
            return Ok(Self { from, to, service: Some(name.clone()) });
        }
        let to = end(world, &to)?;
        let at = match port {
            None if protocol.is_some() => return Err(Failure::usage("a protocol needs a port: NS/POD:80/udp")),
            None => To { protocol: None, port: 0 },
            Some(Asked::Number(port)) => To { protocol: Some(protocol.unwrap_or(Protocol::Tcp)), port },
            Some(Asked::Name(name)) => named_port(world, &to, &name, protocol)?,
        };
        Ok(Self { from, to: vec![(to, at)], service: None })
    }
}

/// An end with the port and the protocol behind it, if they are said.
fn parse(word: &str) -> Result<(Named, Option<Asked>, Option<Protocol>), Failure> {
    if let Ok(address) = word.trim_start_matches('[').trim_end_matches(']').parse() {
        return Ok((Named::Address(address), None, None));
    }
    // The protocol is behind the port, so behind the last colon that is not an address's.
    let (place, behind) = match word.rsplit_once(']') {
        Some((address, rest)) => (address, rest.strip_prefix(':')),
        None => {
            let start =
                ["svc:", "pod:", "node:"].iter().find(|start| word.starts_with(*start)).map_or(0, |of| of.len());
            match word[start..].split_once(':') {
                Some((place, behind)) => (&word[..start + place.len()], Some(behind)),
                None => (word, None),
            }
        }
    };
    let (port, protocol) = match behind.map(|behind| behind.split_once('/').unwrap_or((behind, ""))) {
        None => (None, None),
        Some((port, protocol)) => {
            let known = Protocol::named(&protocol.to_ascii_lowercase());
            if known.is_none() && !protocol.is_empty() {
                return Err(Failure::usage(format!("`{protocol}` is no protocol")).next("tcp, udp or sctp"));
            }
            let port = match port.parse::<u32>().map(u16::try_from) {
                Ok(Ok(number)) if number > 0 => Asked::Number(number),
                Ok(_) => return Err(Failure::usage(format!("{port} is no port: they are from 1 to 65535"))),
                Err(_) if port.is_empty() => {
                    return Err(Failure::usage(format!("`{word}` has no port behind its colon")));
                }
                Err(_) => Asked::Name(port.to_owned()),
            };
            (Some(port), known)
        }
    };
    Ok((named(place, word)?, port, protocol))
}

fn named(place: &str, word: &str) -> Result<Named, Failure> {
    if let Ok(address) = place.trim_start_matches('[').parse() {
        return Ok(Named::Address(address));
    }
    let (kind, name) = ["svc", "node", "pod"]
        .into_iter()
        .find_map(|kind| Some((kind, place.strip_prefix(kind)?.strip_prefix([':', '/'])?)))
        .unwrap_or(("", place));
    let has_parts = |count: usize| {
        let parts: Vec<_> = name.split('/').collect();
        parts.len() == count && parts.iter().all(|part| !part.is_empty())
    };
    match kind {
        "node" if has_parts(1) => Ok(Named::Node(name.to_owned())),
        "svc" if has_parts(2) => Ok(Named::Service(name.to_owned())),
        "pod" if has_parts(2) => Ok(Named::Pod(name.to_owned())),
        // Namespaces may be called as kinds are.
        _ if place.split('/').count() == 2 && place.split('/').all(|part| !part.is_empty()) => {
            Ok(Named::Pod(place.to_owned()))
        }
        _ => Err(Failure::usage(format!("`{word}` is no place of a cluster")).next(
            "NAMESPACE/POD, svc/NAMESPACE/SERVICE, node/NAME, or an address; with :PORT[/PROTOCOL] behind the second",
        )),
    }
}

fn end(world: &World, named: &Named) -> Result<End, Failure> {
    match named {
        Named::Pod(name) => world.pod(name).ok_or_else(|| unknown("Pod", name, world.pods.keys())),
        Named::Node(name) => world.node(name).ok_or_else(|| unknown("node", name, world.nodes.keys())),
        Named::Address(address) => Ok(world.address(*address)),
        Named::Service(name) => Err(Failure::usage(format!("{name} is a Service"))),
    }
}

/// Nothing of this kind is called so; what is called most alike is offered.
pub(super) fn unknown<'a>(kind: &str, name: &str, known: impl Iterator<Item = &'a String>) -> Failure {
    let failure = Failure::new(format!("there is no {kind} {name}"));
    // What begins so is what a workload's Pods are called.
    let distance = |known: &&String| match known.strip_prefix(name) {
        Some(_) => 0,
        None => strsim::damerau_levenshtein(known, name),
    };
    match known.min_by_key(distance) {
        Some(near) => failure.next(format!("did you mean {near}?")),
        None => failure.why(format!("there is no {kind} at all")),
    }
}

/// The port that a Pod calls so.
fn named_port(world: &World, to: &End, name: &str, protocol: Option<Protocol>) -> Result<To, Failure> {
    let ports = to.pod.as_deref().map_or(&[][..], |pod| world.cluster.named_ports(pod));
    let is_it = |(has, its, _): &&(String, Protocol, u16)| has == name && protocol.is_none_or(|of| of == *its);
    if let Some((_, protocol, port)) = ports.iter().find(is_it) {
        return Ok(To { protocol: Some(*protocol), port: *port });
    }
    let known: Vec<_> = ports.iter().map(|(name, ..)| name.as_str()).collect();
    let failure = Failure::new(format!("{} has no port named {name}", to.name));
    Err(if known.is_empty() { failure.next("give its number") } else { failure.next(known.join(" or ")) })
}

/// The Pods behind a Service, with the port there.
fn endpoints(
    world: &World,
    name: &str,
    asked: Option<&Asked>,
    protocol: Option<Protocol>,
) -> Result<Vec<(End, To)>, Failure> {
    let is_it = |service: &&Service| namespaced_name(&service.metadata) == name;
    let service = world.objects.services.iter().find(is_it);
    let names: Vec<String> = world.objects.services.iter().map(|of| namespaced_name(&of.metadata)).collect();
    let service = service.ok_or_else(|| unknown("Service", name, names.iter()))?;
    let spec = service.spec.clone().unwrap_or_default();
    let of_port = |port: &&ServicePort| {
        let is_protocol = protocol.is_none_or(|of| Protocol::of_object(port.protocol.as_deref()) == Some(of));
        is_protocol
            && match asked {
                None => true,
                Some(Asked::Number(number)) => port.port == i32::from(*number),
                Some(Asked::Name(name)) => port.name.as_deref() == Some(name),
            }
    };
    let ports = spec.ports.unwrap_or_default();
    let mut chosen = ports.iter().filter(of_port);
    let port = match (chosen.next(), chosen.next()) {
        (Some(port), None) => port,
        (Some(_), Some(_)) => {
            let known: Vec<_> = ports.iter().map(|port| format!("svc/{name}:{}", port.port)).collect();
            return Err(
                Failure::usage(format!("the Service {name} has several ports: which one?")).next(known.join(" or "))
            );
        }
        (None, _) => {
            let known: Vec<_> = ports.iter().map(|port| port.port.to_string()).collect();
            return Err(Failure::new(format!("the Service {name} has no such port")).next(known.join(" or ")));
        }
    };
    let Some(protocol) = Protocol::of_object(port.protocol.as_deref()) else {
        return Err(Failure::new(format!("the Service {name} has a port of a protocol that has none")));
    };
    let sliced = of_slices(world, name, port, protocol);
    let all = if sliced.is_empty() { of_selector(world, name, spec.selector.as_ref(), port) } else { sliced };
    if all.is_empty() {
        return Err(Failure::new(format!("the Service {name} has no endpoints"))
            .why("no Pod that its selector selects is ready, or it has no selector"));
    }
    Ok(all)
}

fn of_slices(world: &World, name: &str, port: &ServicePort, protocol: Protocol) -> Vec<(End, To)> {
    let (namespace, service) = name.split_once('/').unwrap_or(("default", name));
    let mut all: Vec<(End, To)> = Vec::new();
    for slice in &world.objects.slices {
        let labels = slice.metadata.labels.as_ref();
        let of = labels.and_then(|labels| labels.get("kubernetes.io/service-name"));
        if of.map(String::as_str) != Some(service) || slice.metadata.namespace.as_deref() != Some(namespace) {
            continue;
        }
        let is_it =
            |of: &&EndpointPort| of.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default();
        let number = slice.ports.iter().flatten().find(is_it).and_then(|of| of.port);
        let Some(number) = number.and_then(|number| u16::try_from(number).ok()) else { continue };
        let to = To { protocol: Some(protocol), port: number };
        for address in slice.endpoints.iter().flat_map(|of| &of.addresses).filter_map(|of| of.parse().ok()) {
            let end = world.address(address);
            match all.iter_mut().find(|(known, at)| known.name == end.name && *at == to) {
                Some((known, _)) => known.addresses.extend(end.addresses),
                None => all.push((end, to)),
            }
        }
    }
    all
}

fn of_selector(
    world: &World,
    name: &str,
    selector: Option<&BTreeMap<String, String>>,
    port: &ServicePort,
) -> Vec<(End, To)> {
    let namespace = name.split_once('/').map_or("default", |(namespace, _)| namespace);
    let is_in = |pod: &&Pod| pod.metadata.namespace.as_deref().unwrap_or("default") == namespace;
    let selected = world.objects.pods.iter().filter(is_in).filter(|pod| is_selected(selector, pod));
    let reached = |pod: &Pod| {
        let name = pod_name(pod);
        let (protocol, port) = world.target(&name, port)?;
        Some((world.pod(&name)?, To { protocol: Some(protocol), port }))
    };
    selected.filter_map(reached).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_ports_and_protocols_are_told_apart() {
        let address = |text: &str| Named::Address(text.parse().unwrap());
        let pod = |name: &str| Named::Pod(name.to_owned());
        let number = |port| Some(Asked::Number(port));
        for (word, want) in [
            ("shop/web", (pod("shop/web"), None, None)),
            ("shop/web:80", (pod("shop/web"), number(80), None)),
            ("shop/web:http", (pod("shop/web"), Some(Asked::Name("http".to_owned())), None)),
            ("shop/web:53/UDP", (pod("shop/web"), number(53), Some(Protocol::Udp))),
            ("pod:shop/web:80", (pod("shop/web"), number(80), None)),
            ("svc/shop/db:5432", (Named::Service("shop/db".to_owned()), number(5432), None)),
            ("svc:shop/db", (Named::Service("shop/db".to_owned()), None, None)),
            ("node/n1:10250", (Named::Node("n1".to_owned()), number(10250), None)),
            ("10.0.0.1", (address("10.0.0.1"), None, None)),
            ("10.0.0.1:53/udp", (address("10.0.0.1"), number(53), Some(Protocol::Udp))),
            ("fd00::1", (address("fd00::1"), None, None)),
            ("[fd00::1]:80", (address("fd00::1"), number(80), None)),
        ] {
            assert_eq!(parse(word).unwrap(), want, "{word}");
        }
        for wrong in ["web", "shop/", "/web", "a/b/c", "shop/web:", "shop/web:0", "shop/web:70000", "shop/web:80/icmp"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
