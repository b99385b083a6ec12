//! NetworkPolicy: what selects a Pod, and which rules match.

use super::ports::{self, Target};
use super::selector::{labels_of, selects};
use super::verdict::{Direction, PolicyKind, PolicyName, RuleName};
use super::world::{Place, World, name_of};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use std::net::IpAddr;

/// Whether a policy is about what a Pod gets, or sends. A Pod that is of no concern to any has no limits.
pub(super) fn isolates(policy: &NetworkPolicy, pod: &Pod, direction: Direction) -> bool {
    let Some(spec) = &policy.spec else { return false };
    policy.metadata.namespace == pod.metadata.namespace
        && spec.pod_selector.as_ref().is_none_or(|selector| selects(selector, labels_of(&pod.metadata)))
        && is_about(spec, direction)
}

fn is_about(spec: &NetworkPolicySpec, direction: Direction) -> bool {
    let types = listed(&spec.policy_types);
    match direction {
        _ if !types.is_empty() => types.contains(&format!("{direction:?}")),
        Direction::Ingress => true,
        Direction::Egress => spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
    }
}

/// The name of a policy.
pub(super) fn name(policy: &NetworkPolicy) -> PolicyName {
    PolicyName {
        kind: PolicyKind::NetworkPolicy,
        namespace: name_of(&policy.metadata.namespace).to_owned(),
        name: name_of(&policy.metadata.name).to_owned(),
    }
}

/// The rules of a policy that match a packet: `peer` is the end that is not the policy's Pod.
pub(super) fn matching_rules(
    world: &World,
    policy: &NetworkPolicy,
    direction: Direction,
    peer: Place<'_>,
    target: Target<'_>,
) -> Vec<RuleName> {
    let namespace = name_of(&policy.metadata.namespace);
    let mut found = Vec::new();
    for (index, (peers, ports)) in rules(policy, direction).into_iter().enumerate() {
        let by_peer = peers.is_empty() || peers.iter().any(|of| is_peer(world, of, namespace, peer));
        let by_port = ports.is_empty() || ports.iter().any(|of| ports::matches(of, target));
        if by_peer && by_port {
            found.push(RuleName { policy: name(policy), direction, index });
        }
    }
    found
}

/// The rules of one direction: peers and ports. A list that is not there is an empty one.
fn rules(policy: &NetworkPolicy, direction: Direction) -> Vec<(&[NetworkPolicyPeer], &[NetworkPolicyPort])> {
    let Some(spec) = &policy.spec else { return Vec::new() };
    match direction {
        Direction::Ingress => {
            let rules = spec.ingress.iter().flatten();
            rules.map(|rule| (listed(&rule.from), listed(&rule.ports))).collect()
        }
        Direction::Egress => {
            let rules = spec.egress.iter().flatten();
            rules.map(|rule| (listed(&rule.to), listed(&rule.ports))).collect()
        }
    }
}

fn listed<T>(list: &Option<Vec<T>>) -> &[T] {
    list.as_deref().unwrap_or_default()
}

fn is_peer(world: &World, peer: &NetworkPolicyPeer, policy_namespace: &str, place: Place<'_>) -> bool {
    match (&peer.ip_block, &peer.namespace_selector, &peer.pod_selector) {
        (Some(block), None, None) => is_in_block(block, place.address()),
        (Some(_), _, _) | (None, None, None) => false,
        (None, namespaces, pods) => {
            let Some(pod) = place.pod() else { return false };
            let namespace = name_of(&pod.metadata.namespace);
            let by_namespace = match namespaces {
                Some(selector) => world.namespace_labels(namespace).is_some_and(|labels| selects(selector, &labels)),
                None => namespace == policy_namespace,
            };
            by_namespace && pods.as_ref().is_none_or(|selector| selects(selector, labels_of(&pod.metadata)))
        }
    }
}

fn is_in_block(block: &IPBlock, address: IpAddr) -> bool {
    is_in_cidr(&block.cidr, address) && !block.except.iter().flatten().any(|cidr| is_in_cidr(cidr, address))
}

/// Whether an address is in a CIDR: none of the other family is, and none is in what is no CIDR.
pub(super) fn is_in_cidr(cidr: &str, address: IpAddr) -> bool {
    cidr.parse::<IpNet>().is_ok_and(|network| network.contains(&address))
}
