//! ClusterNetworkPolicy, AdminNetworkPolicy and BaselineAdminNetworkPolicy, `policy.networking.k8s.io`.

use super::{AUDIT, LOG, Reader, Reading, is_annotated, namespaced, network_of, port_number, port_range};
use crate::facts::Protocol;
use crate::facts::policy::{Action, Direction, Peer, Policy, PolicyKind, PolicyName, Port, Rule, Tier};
use crate::policy::crd;
use crate::policy::selector::{Requirements, Scope, Selector};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

/// The last priority of a tier.
const LAST: u16 = 1000;

/// Reads a ClusterNetworkPolicy.
pub(in crate::policy) fn cluster(object: &crd::ClusterNetworkPolicy) -> Reading {
    let mut reader = Reader::default();
    let spec = &object.spec;
    let tier = match spec.tier.as_str() {
        "Admin" => Tier::Admin,
        "Baseline" => Tier::Baseline,
        other => {
            reader.note(format!("tier {other:?} is neither Admin nor Baseline: the policy is about nobody"));
            return reader.done(None);
        }
    };
    let rules = |direction| match direction {
        Direction::Ingress => spec.ingress.iter().map(|rule| written_cluster(rule, &rule.from)).collect(),
        Direction::Egress => spec.egress.iter().map(|rule| written_cluster(rule, &rule.to)).collect(),
    };
    let priority = priority(&mut reader, spec.priority);
    let of = (PolicyKind::ClusterNetworkPolicy, tier, priority);
    read(reader, &object.metadata, of, &spec.subject, rules)
}

/// Reads an AdminNetworkPolicy.
pub(in crate::policy) fn admin(object: &crd::AdminNetworkPolicy) -> Reading {
    let mut reader = Reader::default();
    let spec = &object.spec;
    let priority = priority(&mut reader, spec.priority);
    let of = (PolicyKind::AdminNetworkPolicy, Tier::Admin, priority);
    read(reader, &object.metadata, of, &spec.subject, |direction| written_admin(direction, &spec.ingress, &spec.egress))
}

/// Reads a BaselineAdminNetworkPolicy. It is asked after all ClusterNetworkPolicies of its tier, whose names come before its own
/// where their priority is the last as well.
pub(in crate::policy) fn baseline(object: &crd::BaselineAdminNetworkPolicy) -> Reading {
    let spec = &object.spec;
    let of = (PolicyKind::BaselineAdminNetworkPolicy, Tier::Baseline, LAST);
    let rules = |direction| written_admin(direction, &spec.ingress, &spec.egress);
    read(Reader::default(), &object.metadata, of, &spec.subject, rules)
}

fn priority(reader: &mut Reader, priority: i64) -> u16 {
    let fits = priority.clamp(0, LAST.into());
    if fits != priority {
        reader.note(format!("priority {priority} is not from 0 to {LAST}: it is taken as {fits}"));
    }
    // It is in range.
    fits as u16
}

/// A rule as it is written.
struct Written<'a> {
    name: &'a str,
    action: Option<Action>,
    peers: &'a [crd::Peer],
    ports: Result<Option<Vec<Port>>, String>,
}

fn written_cluster<'a>(rule: &'a crd::ClusterRule, peers: &'a [crd::Peer]) -> Written<'a> {
    let action = match rule.action.as_str() {
        "Accept" => Some(Action::Accept),
        "Deny" => Some(Action::Deny),
        "Pass" => Some(Action::Pass),
        _ => None,
    };
    Written { name: &rule.name, action, peers, ports: all(&rule.protocols, cluster_port) }
}

fn written_admin<'a>(
    direction: Direction,
    ingress: &'a [crd::AdminRule],
    egress: &'a [crd::AdminRule],
) -> Vec<Written<'a>> {
    let rules = if direction == Direction::Ingress { ingress } else { egress };
    let written = rules.iter().map(|rule| {
        let action = match rule.action.as_str() {
            "Allow" => Some(Action::Accept),
            "Deny" => Some(Action::Deny),
            "Pass" => Some(Action::Pass),
            _ => None,
        };
        let peers = if direction == Direction::Ingress { &rule.from } else { &rule.to };
        Written { name: &rule.name, action, peers, ports: all(&rule.ports, admin_port) }
    });
    written.collect()
}

/// Ports of a list; none for an empty list, which is one that was not written.
fn all<T>(written: &[T], read: impl Fn(&T) -> Result<Port, String>) -> Result<Option<Vec<Port>>, String> {
    if written.is_empty() {
        return Ok(None);
    }
    let mut ports = written.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    ports.sort();
    ports.dedup();
    Ok(Some(ports))
}

fn read<'a>(
    mut reader: Reader,
    metadata: &ObjectMeta,
    (kind, tier, priority): (PolicyKind, Tier, u16),
    subject: &crd::Subject,
    rules_of: impl Fn(Direction) -> Vec<Written<'a>>,
) -> Reading {
    let subject = match read_subject(subject) {
        Ok(selector) => reader.group(selector.subjects()),
        Err(why) => {
            reader.note(format!("subject: {why}: the policy is about nobody"));
            return reader.done(None);
        }
    };
    let mut rules = Vec::new();
    for direction in [Direction::Ingress, Direction::Egress] {
        for (index, written) in (0..).zip(rules_of(direction)) {
            reader.rule = Some((direction, index));
            rules.extend(read_rule(&mut reader, (direction, index), written));
        }
    }
    reader.rule = None;
    let name = PolicyName { kind, namespace: String::new(), name: metadata.name.clone().unwrap_or_default() };
    let policy = Policy {
        name,
        generation: metadata.generation.unwrap_or_default(),
        tier,
        priority,
        subject,
        isolates: Vec::new(),
        is_audit: is_annotated(metadata, AUDIT),
        logs: is_annotated(metadata, LOG),
        rules,
    };
    reader.done(Some(policy))
}

fn read_subject(subject: &crd::Subject) -> Result<Selector, String> {
    match (&subject.namespaces, &subject.pods) {
        (Some(namespaces), None) => namespaced(namespaces, &LabelSelector::default()),
        (None, Some(pods)) => namespaced(&pods.namespace_selector, &pods.pod_selector),
        (None, None) => Err("nothing is set that is known".to_owned()),
        (Some(_), Some(_)) => Err("namespaces and pods are both set".to_owned()),
    }
}

/// A rule; none if it does nothing that we know.
fn read_rule(reader: &mut Reader, (direction, index): (Direction, u32), written: Written<'_>) -> Option<Rule> {
    let Some(action) = written.action else {
        reader.note("its action is none that is known: the rule is left out".to_owned());
        return None;
    };
    let rule = |action, peers, ports| Rule { direction, index, name: written.name.to_owned(), action, peers, ports };
    match read_peers(reader, direction, written.peers).and_then(|peers| Ok((peers, written.ports?))) {
        Ok((peers, ports)) if direction == Direction::Egress => {
            let peers = reader.resolve_names(Some(peers), ports.as_deref());
            Some(rule(action, peers, ports))
        }
        Ok((peers, ports)) => Some(rule(action, Some(peers), ports)),
        Err(why) if action == Action::Accept => {
            reader.note(format!("{why}: the rule accepts nothing"));
            Some(rule(action, Some(Vec::new()), None))
        }
        Err(why) => {
            reader.note(format!("{why}: the rule denies everything"));
            Some(rule(Action::Deny, None, None))
        }
    }
}

fn read_peers(reader: &mut Reader, direction: Direction, written: &[crd::Peer]) -> Result<Vec<Peer>, String> {
    if written.is_empty() {
        return Err("it has no peers".to_owned());
    }
    let mut selectors = Vec::new();
    let mut peers = Vec::new();
    for peer in written {
        match read_peer(direction, peer)? {
            Ends::Selected(selector) => selectors.push(selector),
            Ends::Nets(nets) => peers.extend(nets),
        }
    }
    // Groups only of rules that are read as a whole.
    peers.extend(selectors.into_iter().map(|selector| reader.peer(selector)));
    peers.sort();
    peers.dedup();
    Ok(peers)
}

/// What a peer is.
enum Ends {
    Selected(Selector),
    Nets(Vec<Peer>),
}

fn read_peer(direction: Direction, peer: &crd::Peer) -> Result<Ends, String> {
    let is_set = [
        peer.namespaces.is_some(),
        peer.pods.is_some(),
        peer.nodes.is_some(),
        !peer.networks.is_empty(),
        !peer.domain_names.is_empty(),
    ];
    if is_set.into_iter().filter(|is| *is).count() > 1 {
        return Err("a peer has more than one field set".to_owned());
    }
    if !peer.domain_names.is_empty() {
        return Err("domainNames peers are not supported".to_owned());
    }
    if let Some(namespaces) = &peer.namespaces {
        return namespaced(namespaces, &LabelSelector::default()).map(Ends::Selected);
    }
    if let Some(pods) = &peer.pods {
        return namespaced(&pods.namespace_selector, &pods.pod_selector).map(Ends::Selected);
    }
    match (direction, &peer.nodes) {
        (Direction::Ingress, _) => Err("a peer for ingress has neither namespaces nor pods".to_owned()),
        (Direction::Egress, Some(nodes)) => {
            let labels = Requirements::read(nodes)?;
            Ok(Ends::Selected(Selector::new(Scope::Nodes, labels)))
        }
        (Direction::Egress, None) if peer.networks.is_empty() => Err("a peer has nothing set that is known".to_owned()),
        (Direction::Egress, None) => {
            let read = |text: &String| {
                let net = network_of(text).ok_or_else(|| format!("{text:?} is no network"))?;
                Ok(Peer::Net { net, except: Vec::new() })
            };
            peer.networks.iter().map(read).collect::<Result<_, _>>().map(Ends::Nets)
        }
    }
}

/// A port of v1alpha2.
fn cluster_port(written: &crd::Protocols) -> Result<Port, String> {
    let name = &written.destination_named_port;
    let of = [(Protocol::Tcp, &written.tcp), (Protocol::Udp, &written.udp), (Protocol::Sctp, &written.sctp)];
    let mut of = of.into_iter().filter_map(|(protocol, of)| Some((protocol, of.as_ref()?)));
    match (of.next(), of.next(), name.is_empty()) {
        (None, _, false) => Ok(Port::Named(None, name.clone())),
        (Some((protocol, of)), None, true) => {
            let port = of.destination_port.as_ref();
            let port = port.ok_or_else(|| format!("{} has nothing set that is known", protocol.name()))?;
            let (first, last) = match (port.number, &port.range) {
                (Some(number), None) => port_number(number).map(|number| (number, number))?,
                (None, Some(range)) => port_range(range.start, range.end)?,
                _ => return Err("a destinationPort has not just one of number and range".to_owned()),
            };
            Ok(Port::Range(protocol, first, last))
        }
        _ => Err("an item of protocols has not just one field set that is known".to_owned()),
    }
}

/// A port of v1alpha1.
fn admin_port(written: &crd::AdminPort) -> Result<Port, String> {
    let protocol = |name: &Option<String>| {
        let name = name.as_deref();
        Protocol::of_object(name).ok_or_else(|| format!("protocol {:?} has no ports", name.unwrap_or_default()))
    };
    match (&written.port_number, &written.named_port, &written.port_range) {
        (Some(of), None, None) => {
            let number = port_number(of.port)?;
            Ok(Port::Range(protocol(&of.protocol)?, number, number))
        }
        (None, Some(name), None) => Ok(Port::Named(None, name.clone())),
        (None, None, Some(of)) => {
            let (first, last) = port_range(of.start, of.end)?;
            Ok(Port::Range(protocol(&of.protocol)?, first, last))
        }
        _ => Err("an item of ports has not just one field set that is known".to_owned()),
    }
}
