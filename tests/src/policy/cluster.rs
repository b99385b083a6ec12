//! ClusterNetworkPolicy, AdminNetworkPolicy and BaselineAdminNetworkPolicy: tiers of rules that are read in order.

use super::namespaced::is_in_cidr;
use super::objects::{
    AdminPort, AdminRule, ClusterPeer, ClusterProtocol, ClusterRule, NamedSelector, ProtocolMatch, Subject,
};
use super::ports::{Target, protocol_or_tcp};
use super::selector::{labels_of, selects};
use super::verdict::{Direction, PolicyKind, PolicyName, Protocol, RuleName};
use super::world::{Place, World, name_of, node_addresses};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

/// Where in the order of tiers: NetworkPolicy is between the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tier {
    Admin,
    Baseline,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Accept,
    Deny,
    Pass,
}

/// The rule of a tier that decides.
#[derive(Clone, Debug)]
pub(super) struct Decision {
    pub(super) action: Action,
    pub(super) rule: RuleName,
    /// A policy of the same priority would have acted otherwise.
    pub(super) ambiguous: bool,
}

/// A policy of a tier, whatever its kind.
struct Tiered<'a> {
    /// BaselineAdminNetworkPolicy has none and comes last.
    priority: i32,
    name: PolicyName,
    subject: &'a Subject,
    rules: Vec<TieredRule<'a>>,
}

/// A rule of such a policy.
struct TieredRule<'a> {
    action: &'a str,
    peers: &'a [ClusterPeer],
    ports: Ports<'a>,
}

/// What a rule says of ports; an empty list is no list.
enum Ports<'a> {
    Cluster(&'a [ClusterProtocol]),
    Admin(&'a [AdminPort]),
}

/// What a tier says about a packet at the Pod that its policies select; none if nothing.
pub(super) fn decide(
    world: &World,
    tier: Tier,
    direction: Direction,
    subject: &Pod,
    peer: Place<'_>,
    target: Target<'_>,
) -> Option<Decision> {
    let mut policies = policies(world, tier, direction);
    policies.retain(|policy| is_subject(world, policy.subject, subject));
    policies.sort_by(|a, b| (a.priority, &a.name.name, a.name.kind).cmp(&(b.priority, &b.name.name, b.name.kind)));
    let mut deciding: Option<(i32, Decision)> = None;
    for policy in &policies {
        let Some((action, index)) = first_match(world, policy, direction, peer, target) else { continue };
        match &mut deciding {
            None => {
                let rule = RuleName { policy: policy.name.clone(), direction, index };
                deciding = Some((policy.priority, Decision { action, rule, ambiguous: false }));
            }
            Some((priority, decision)) if *priority == policy.priority => {
                decision.ambiguous |= decision.action != action
            }
            Some(_) => {}
        }
    }
    deciding.map(|(_, decision)| decision)
}

fn first_match(
    world: &World,
    policy: &Tiered<'_>,
    direction: Direction,
    peer: Place<'_>,
    target: Target<'_>,
) -> Option<(Action, usize)> {
    let actions = policy.rules.iter().map(|rule| rule_action(world, rule, direction, peer, target));
    actions.enumerate().find_map(|(index, action)| Some((action?, index)))
}

/// What a rule does with a packet; none if it does not match.
fn rule_action(
    world: &World,
    rule: &TieredRule<'_>,
    direction: Direction,
    peer: Place<'_>,
    target: Target<'_>,
) -> Option<Action> {
    let action = match rule.action {
        "Accept" | "Allow" => Action::Accept,
        "Deny" => Action::Deny,
        "Pass" => Action::Pass,
        _ => return None,
    };
    if rule.peers.iter().any(|of| !is_readable(of, direction)) {
        return if action == Action::Accept { None } else { Some(Action::Deny) };
    }
    let by_peer = rule.peers.iter().any(|of| is_peer(world, of, peer));
    let by_port = match rule.ports {
        Ports::Cluster(protocols) => protocols.is_empty() || protocols.iter().any(|of| is_protocol(of, target)),
        Ports::Admin(ports) => ports.is_empty() || ports.iter().any(|of| is_port(of, target)),
    };
    (by_peer && by_port).then_some(action)
}

/// The policies of a tier, with their rules for a direction.
fn policies(world: &World, tier: Tier, direction: Direction) -> Vec<Tiered<'_>> {
    let mut found = Vec::new();
    for policy in world.cluster_network_policies() {
        if policy.spec.tier == format!("{tier:?}") {
            let rules = if direction == Direction::Ingress { &policy.spec.ingress } else { &policy.spec.egress };
            found.push(Tiered {
                priority: policy.spec.priority,
                name: name(PolicyKind::ClusterNetworkPolicy, &policy.metadata),
                subject: &policy.spec.subject,
                rules: rules.iter().map(|rule| cluster_rule(rule, direction)).collect(),
            });
        }
    }
    let admin = world.admin_network_policies().map(|of| (PolicyKind::AdminNetworkPolicy, &of.metadata, &of.spec));
    let baseline = world.baseline_admin_network_policies();
    let baseline = baseline.map(|of| (PolicyKind::BaselineAdminNetworkPolicy, &of.metadata, &of.spec));
    for (kind, metadata, spec) in admin.chain(baseline) {
        if (kind == PolicyKind::AdminNetworkPolicy) == (tier == Tier::Admin) {
            let rules = if direction == Direction::Ingress { &spec.ingress } else { &spec.egress };
            found.push(Tiered {
                priority: if tier == Tier::Admin { spec.priority.unwrap_or(0) } else { i32::MAX },
                name: name(kind, metadata),
                subject: &spec.subject,
                rules: rules.iter().map(|rule| admin_rule(rule, direction)).collect(),
            });
        }
    }
    found
}

fn cluster_rule(rule: &ClusterRule, direction: Direction) -> TieredRule<'_> {
    let peers = if direction == Direction::Ingress { &rule.from } else { &rule.to };
    TieredRule { action: &rule.action, peers, ports: Ports::Cluster(&rule.protocols) }
}

fn admin_rule(rule: &AdminRule, direction: Direction) -> TieredRule<'_> {
    let peers = if direction == Direction::Ingress { &rule.from } else { &rule.to };
    TieredRule { action: &rule.action, peers, ports: Ports::Admin(&rule.ports) }
}

fn name(kind: PolicyKind, metadata: &ObjectMeta) -> PolicyName {
    PolicyName { kind, namespace: String::new(), name: name_of(&metadata.name).to_owned() }
}

fn is_subject(world: &World, subject: &Subject, pod: &Pod) -> bool {
    match subject {
        Subject { namespaces: Some(namespaces), pods: None } => is_in_namespaces(world, namespaces, pod),
        Subject { namespaces: None, pods: Some(pods) } => is_selected(world, pods, pod),
        _ => false,
    }
}

/// Whether just one field is set, of those that there are in this direction.
fn is_readable(peer: &ClusterPeer, direction: Direction) -> bool {
    let everywhere = [peer.namespaces.is_some(), peer.pods.is_some()];
    let of_egress = [peer.nodes.is_some(), !peer.networks.is_empty()];
    let unsupported = !peer.domain_names.is_empty();
    let known = everywhere.iter().chain(of_egress.iter().filter(|_| direction == Direction::Egress));
    !unsupported && known.filter(|set| **set).count() == 1
}

fn is_peer(world: &World, peer: &ClusterPeer, place: Place<'_>) -> bool {
    let address = place.address();
    let by_namespace = |selector: &LabelSelector| place.pod().is_some_and(|pod| is_in_namespaces(world, selector, pod));
    let by_labels = |selector: &NamedSelector| place.pod().is_some_and(|pod| is_selected(world, selector, pod));
    let by_node = |selector: &LabelSelector| {
        world
            .nodes()
            .any(|node| selects(selector, labels_of(&node.metadata)) && node_addresses(node).contains(&address))
    };
    peer.namespaces.as_ref().is_some_and(by_namespace)
        || peer.pods.as_ref().is_some_and(by_labels)
        || peer.nodes.as_ref().is_some_and(by_node)
        || peer.networks.iter().any(|cidr| is_in_cidr(cidr, address))
}

fn is_in_namespaces(world: &World, selector: &LabelSelector, pod: &Pod) -> bool {
    world.namespace_labels(name_of(&pod.metadata.namespace)).is_some_and(|labels| selects(selector, &labels))
}

fn is_selected(world: &World, selector: &NamedSelector, pod: &Pod) -> bool {
    is_in_namespaces(world, &selector.namespace_selector, pod)
        && selects(&selector.pod_selector, labels_of(&pod.metadata))
}

fn is_protocol(of: &ClusterProtocol, target: Target<'_>) -> bool {
    let has = |protocol: Protocol, ports: &Option<ProtocolMatch>| {
        let Some(ports) = ports else { return false };
        match &ports.destination_port {
            None => target.protocol == protocol,
            Some(port) => {
                let range = port.range.as_ref();
                port.number.is_some_and(|number| target.is_within(Some(protocol), number, number))
                    || range.is_some_and(|range| target.is_within(Some(protocol), range.start, range.end))
            }
        }
    };
    has(Protocol::Tcp, &of.tcp)
        || has(Protocol::Udp, &of.udp)
        || has(Protocol::Sctp, &of.sctp)
        || of.destination_named_port.as_ref().is_some_and(|name| target.is_named(name))
}

fn is_port(of: &AdminPort, target: Target<'_>) -> bool {
    let by_number = of.port_number.as_ref();
    let by_range = of.port_range.as_ref();
    by_number.is_some_and(|of| target.is_within(protocol_or_tcp(&of.protocol), of.port, of.port))
        || by_range.is_some_and(|of| target.is_within(protocol_or_tcp(&of.protocol), of.start, of.end))
        || of.named_port.as_ref().is_some_and(|name| target.is_named(name))
}
