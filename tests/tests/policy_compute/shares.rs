//! What the controller computes of a cluster, and the words of the two sides for the same.

use serde_json::Value;
use sluice_controller::facts::Protocol;
use sluice_controller::facts::policy::{PolicyKind, PolicyName, State};
use sluice_controller::policy::{Because, Cluster, RuleName};
use sluice_tests::computed::put;
use sluice_tests::policy as oracle;
use sluice_tests::policy::{End, Object, World};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Who has an address.
#[derive(Clone, PartialEq)]
pub(crate) enum Who {
    /// A Pod, and its node.
    Pod(String, String),
    /// A node's host.
    Host(String),
    Outside,
}

/// What each node is told, by its name; none where nothing is.
pub(crate) fn computed(world: &World) -> BTreeMap<String, State> {
    let mut cluster = Cluster::new();
    world.objects.iter().for_each(|object| put(&mut cluster, object));
    let mut states = BTreeMap::new();
    for (node, updates) in cluster.take() {
        let state: &mut State = states.entry(node.to_string()).or_default();
        updates.iter().for_each(|update| state.apply(update));
    }
    states
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Who has which address, as the objects say it.
pub(crate) fn whos(world: &World) -> Vec<(IpAddr, Who)> {
    let mut whos = Vec::new();
    for object in world.objects.iter().map(Object::write) {
        let name = text(&object["metadata"]["name"]);
        let (addresses, who) = match object["kind"].as_str() {
            Some("Pod") => {
                let is_over = ["Succeeded", "Failed"].contains(&&*text(&object["status"]["phase"]));
                if is_over || object["spec"]["hostNetwork"] == true {
                    continue;
                }
                let name = format!("{}/{name}", text(&object["metadata"]["namespace"]));
                (&object["status"]["podIPs"], Who::Pod(name, text(&object["spec"]["nodeName"])))
            }
            Some("Node") => (&object["status"]["addresses"], Who::Host(name)),
            _ => continue,
        };
        for address in addresses.as_array().into_iter().flatten() {
            let address = address.get("ip").or_else(|| address.get("address")).map(text).unwrap_or_default();
            whos.extend(address.parse().map(|address| (address, who.clone())));
        }
    }
    // Pods first.
    whos.sort_by_key(|(_, who)| matches!(who, Who::Host(_)));
    whos
}

pub(crate) fn who(whos: &[(IpAddr, Who)], end: &End) -> Who {
    if let End::Host { node, .. } = end {
        return Who::Host(node.clone());
    }
    let found = whos.iter().find(|(address, _)| *address == end.address());
    found.map_or(Who::Outside, |(_, who)| who.clone())
}

fn name(name: &PolicyName) -> oracle::PolicyName {
    let kind = match name.kind {
        PolicyKind::NetworkPolicy => oracle::PolicyKind::NetworkPolicy,
        PolicyKind::ClusterNetworkPolicy => oracle::PolicyKind::ClusterNetworkPolicy,
        PolicyKind::AdminNetworkPolicy => oracle::PolicyKind::AdminNetworkPolicy,
        PolicyKind::BaselineAdminNetworkPolicy => oracle::PolicyKind::BaselineAdminNetworkPolicy,
    };
    oracle::PolicyName { kind, namespace: name.namespace.clone(), name: name.name.clone() }
}

fn is_rule(of: &oracle::RuleName, rule: &RuleName<'_>) -> bool {
    of.policy == name(rule.policy) && Some(of.index) == rule.index.map(|index| index as usize)
}

/// Whether two policies may be asked in any order.
fn is_equal(state: &State, of: &oracle::PolicyName, other: &PolicyName) -> bool {
    let order = |name: &PolicyName| state.policies.get(name).map(|policy| (policy.tier, policy.priority));
    let of = state.policies.keys().find(|known| name(known) == *of);
    other.kind != PolicyKind::NetworkPolicy && of.is_some_and(|of| order(of) == order(other))
}

/// A protocol in the controller's words.
pub(crate) fn protocol(of: oracle::Protocol) -> Protocol {
    match of {
        oracle::Protocol::Tcp => Protocol::Tcp,
        oracle::Protocol::Udp => Protocol::Udp,
        oracle::Protocol::Sctp => Protocol::Sctp,
    }
}

/// Whether both give the same reason, or one that is as good.
pub(crate) fn is_reason(state: Option<&State>, of: &oracle::Because, because: &Because<'_>) -> bool {
    match (of, because) {
        (oracle::Because::Rules(rules), Because::Rule(rule)) => rules
            .iter()
            .any(|of| is_rule(of, rule) || state.is_some_and(|state| is_equal(state, &of.policy, rule.policy))),
        (oracle::Because::DefaultDeny(policies), Because::Default(names)) => {
            names.iter().map(|of| name(of)).collect::<Vec<_>>() == *policies
        }
        (oracle::Because::NoPolicy, Because::Nothing)
        | (oracle::Because::Itself, Because::Itself)
        | (oracle::Because::OwnNode, Because::OwnNode) => true,
        // To its own node, NetworkPolicies are not asked at all.
        (oracle::Because::OwnNode, Because::Nothing) => true,
        _ => false,
    }
}
