//! NetworkPolicy, `networking.k8s.io/v1`.

use super::{AUDIT, LOG, Reader, Reading, is_annotated, network_of, port_number, port_range};
use crate::facts::Protocol;
use crate::facts::policy::{Action, Direction, Peer, Policy, PolicyKind, PolicyName, Port, Rule, Tier};
use crate::policy::selector::{Requirements, Scope, Selector};
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Reads a NetworkPolicy. Without a specification it is what an empty one is: no Pod of its namespace gets anything.
pub(in crate::policy) fn network(object: &NetworkPolicy) -> Reading {
    let mut reader = Reader::default();
    let default = NetworkPolicySpec::default();
    let spec = object.spec.as_ref().unwrap_or(&default);
    let namespace = object.metadata.namespace.as_deref().unwrap_or("default");
    let subject = match labels(spec.pod_selector.as_ref()) {
        Ok(labels) => reader.group(Selector::new(Scope::Namespace(namespace.into()), labels).subjects()),
        Err(why) => {
            reader.note(format!("{why}: the policy is about nobody"));
            return reader.done(None);
        }
    };
    let isolates = isolates(spec);
    let mut rules = Vec::new();
    for (index, rule) in (0..).zip(spec.ingress.iter().flatten()) {
        let (direction, parts) = (Direction::Ingress, (rule.from.as_deref(), rule.ports.as_deref()));
        rules.extend(read_rule(&mut reader, namespace, &isolates, (direction, index), parts));
    }
    for (index, rule) in (0..).zip(spec.egress.iter().flatten()) {
        let (direction, parts) = (Direction::Egress, (rule.to.as_deref(), rule.ports.as_deref()));
        rules.extend(read_rule(&mut reader, namespace, &isolates, (direction, index), parts));
    }
    let policy = Policy {
        name: PolicyName {
            kind: PolicyKind::NetworkPolicy,
            namespace: namespace.to_owned(),
            name: object.metadata.name.clone().unwrap_or_default(),
        },
        generation: object.metadata.generation.unwrap_or_default(),
        tier: Tier::Network,
        priority: 0,
        subject,
        isolates,
        is_audit: is_annotated(&object.metadata, AUDIT),
        logs: is_annotated(&object.metadata, LOG),
        rules,
    };
    reader.done(Some(policy))
}

fn labels(selector: Option<&LabelSelector>) -> Result<Requirements, String> {
    selector.map_or_else(|| Ok(Requirements::default()), Requirements::read)
}

/// What it says, or else ingress, and egress if it has rules for it.
fn isolates(spec: &NetworkPolicySpec) -> Vec<Direction> {
    let types = spec.policy_types.as_deref().unwrap_or_default();
    let has = |name: &str| types.iter().any(|of| of == name);
    let ingress = types.is_empty() || has("Ingress");
    let egress =
        if types.is_empty() { spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()) } else { has("Egress") };
    let both = [(ingress, Direction::Ingress), (egress, Direction::Egress)];
    both.into_iter().filter(|(is, _)| *is).map(|(_, direction)| direction).collect()
}

/// Peers and ports of a rule, as they are written.
type Parts<'a> = (Option<&'a [NetworkPolicyPeer]>, Option<&'a [NetworkPolicyPort]>);

/// A rule; none if the policy is not about its direction.
fn read_rule(
    reader: &mut Reader,
    namespace: &str,
    isolates: &[Direction],
    at: (Direction, u32),
    (peers, ports): Parts<'_>,
) -> Option<Rule> {
    let (direction, index) = at;
    reader.rule = Some(at);
    if !isolates.contains(&direction) {
        reader.note("policyTypes leaves this direction out: the rule does nothing".to_owned());
        reader.rule = None;
        return None;
    }
    let mut read_peers = None;
    if let Some(peers) = peers.filter(|peers| !peers.is_empty()) {
        let mut all = Vec::new();
        for peer in peers {
            match read_peer(reader, namespace, peer) {
                Ok(peer) => all.extend(peer),
                Err(why) => reader.note(format!("{why}: the peer matches nothing")),
            }
        }
        all.sort();
        all.dedup();
        read_peers = Some(all);
    }
    let mut read_ports = None;
    if let Some(ports) = ports.filter(|ports| !ports.is_empty()) {
        let mut all = Vec::new();
        for port in ports {
            match read_port(port) {
                Ok(port) => all.push(port),
                Err(why) => reader.note(format!("{why}: the port matches nothing")),
            }
        }
        all.sort();
        all.dedup();
        read_ports = Some(all);
    }
    if direction == Direction::Egress {
        read_peers = reader.resolve_names(read_peers, read_ports.as_deref());
    }
    reader.rule = None;
    Some(Rule { direction, index, name: String::new(), action: Action::Accept, peers: read_peers, ports: read_ports })
}

/// A peer; none if there is nothing left of its network.
fn read_peer(reader: &mut Reader, namespace: &str, peer: &NetworkPolicyPeer) -> Result<Option<Peer>, String> {
    match (&peer.ip_block, &peer.namespace_selector, &peer.pod_selector) {
        (Some(block), None, None) => read_block(block),
        (None, None, None) => Err("nothing is set that is known".to_owned()),
        (Some(_), _, _) => Err("ipBlock is set beside a selector".to_owned()),
        (None, namespaces, pods) => {
            let scope = match namespaces {
                Some(selector) => Scope::Namespaces(Requirements::read(selector)?),
                None => Scope::Namespace(namespace.into()),
            };
            let selector = Selector::new(scope, labels(pods.as_ref())?);
            Ok(Some(reader.peer(selector)))
        }
    }
}

fn read_block(block: &IPBlock) -> Result<Option<Peer>, String> {
    let read = |text: &str| network_of(text).ok_or_else(|| format!("{text:?} is no network"));
    let net = read(&block.cidr)?;
    let except = block.except.iter().flatten().map(|text| read(text)).collect::<Result<Vec<IpNet>, _>>()?;
    if except.iter().any(|part| part.contains(&net)) {
        return Ok(None);
    }
    // What lies elsewhere takes nothing away.
    let except = IpNet::aggregate(&except.into_iter().filter(|part| net.contains(part)).collect());
    Ok(if except.contains(&net) { None } else { Some(Peer::Net { net, except }) })
}

fn read_port(port: &NetworkPolicyPort) -> Result<Port, String> {
    let name = port.protocol.as_deref();
    let protocol =
        Protocol::of_object(name).ok_or_else(|| format!("protocol {:?} has no ports", name.unwrap_or_default()))?;
    match (&port.port, port.end_port) {
        (None, None) => Ok(Port::All(protocol)),
        (Some(IntOrString::Int(number)), None) => {
            let number = port_number((*number).into())?;
            Ok(Port::Range(protocol, number, number))
        }
        (Some(IntOrString::Int(first)), Some(last)) => {
            let (first, last) = port_range((*first).into(), last.into())?;
            Ok(Port::Range(protocol, first, last))
        }
        (Some(IntOrString::String(name)), None) => Ok(Port::Named(Some(protocol), name.clone())),
        (None | Some(IntOrString::String(_)), Some(_)) => Err("endPort needs a port that is a number".to_owned()),
    }
}
