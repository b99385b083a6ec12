//! What the controller computes of policies, against the reference evaluator: each node's share of random clusters, and what the
//! controller says of connections by it.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use serde::de::DeserializeOwned;
use serde_json::Value;
use sluice_controller::facts::Protocol;
use sluice_controller::facts::policy::{Direction, PolicyKind, PolicyName, State};
use sluice_controller::policy::{Because, Cluster, Connection, Explanation, Judge, RuleName, Verdict};
use sluice_tests::policy as oracle;
use sluice_tests::policy::{End, Object, World};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Who has an address.
#[derive(Clone, PartialEq)]
enum Who {
    /// A Pod, and its node.
    Pod(String, String),
    /// A node's host.
    Host(String),
    Outside,
}

fn of<T: DeserializeOwned>(object: &Object) -> T {
    serde_json::from_value(object.write()).unwrap()
}

fn computed(world: &World) -> BTreeMap<String, State> {
    let mut cluster = Cluster::new();
    for object in &world.objects {
        match object {
            Object::Namespace(of) => cluster.put_namespace(of),
            Object::Pod(of) => cluster.put_pod(of),
            Object::Node(of) => cluster.put_node(of),
            Object::NetworkPolicy(of) => cluster.put_network_policy(of),
            Object::ClusterNetworkPolicy(_) => cluster.put_cluster_network_policy(&of(object)),
            Object::AdminNetworkPolicy(_) => cluster.put_admin_network_policy(&of(object)),
            Object::BaselineAdminNetworkPolicy(_) => cluster.put_baseline_admin_network_policy(&of(object)),
        }
    }
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
fn whos(world: &World) -> Vec<(IpAddr, Who)> {
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

fn who(whos: &[(IpAddr, Who)], end: &End) -> Who {
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

/// Whether both give the same reason, or one that is as good.
fn is_reason(state: Option<&State>, of: &oracle::Because, because: &Because<'_>) -> bool {
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

/// What an explanation tells of each rule comes to its verdict.
fn check_explanation(explanation: &Explanation<'_>, verdict: &Verdict<'_>) {
    assert_eq!(&explanation.verdict, verdict);
    let rules = || explanation.policies.iter().flat_map(|policy| policy.rules.iter());
    for look in rules() {
        assert_eq!(look.is_match, look.is_peer() && look.is_port(), "{}", look.name);
        let counts = verdict.because == Because::Rule(look.name)
            || verdict.passed.contains(&look.name)
            || verdict.audited.contains(&look.name);
        assert_eq!(look.is_asked && look.is_match, counts, "{}: {explanation:?}", look.name);
    }
    if let Because::Rule(name) = &verdict.because {
        assert!(rules().any(|look| look.name == *name), "{name} is not told");
    }
}

fn compare(seeds: std::ops::Range<u64>, probes: usize) {
    let mut compared = 0;
    for seed in seeds {
        let world = World::random(seed, 1 + (seed % 10) as usize);
        let states = computed(&world);
        let judges: BTreeMap<&str, Judge<'_>> =
            states.iter().map(|(node, state)| (node.as_str(), Judge::new(state))).collect();
        let whos = whos(&world);
        for probe in world.probes(seed, probes) {
            let verdict = probe.verdict(&world);
            let protocol = match probe.protocol {
                oracle::Protocol::Tcp => Protocol::Tcp,
                oracle::Protocol::Udp => Protocol::Udp,
                oracle::Protocol::Sctp => Protocol::Sctp,
            };
            let ends = (who(&whos, &probe.from), who(&whos, &probe.to));
            for (direction, half, subject, other) in [
                (Direction::Egress, &verdict.egress, &ends.0, &ends.1),
                (Direction::Ingress, &verdict.ingress, &ends.1, &ends.0),
            ] {
                let Who::Pod(pod, node) = subject else { continue };
                let connection = Connection {
                    source: probe.from.address(),
                    destination: probe.to.address(),
                    protocol: Some(protocol),
                    port: probe.port,
                    is_with_own_node: *other == Who::Host(node.clone()),
                };
                let ours = match judges.get(node.as_str()) {
                    Some(judge) => {
                        let subject = judge.subject(pod);
                        let verdict = subject.verdict(direction, &connection);
                        check_explanation(&subject.explain(direction, &connection), &verdict);
                        verdict
                    }
                    None => Verdict {
                        is_accepted: true,
                        because: if subject == other { Because::Itself } else { Because::Nothing },
                        passed: Vec::new(),
                        audited: Vec::new(),
                    },
                };
                // A Pod that some NetworkPolicy isolates gets its answer there, also about its own node; we ask the next tier.
                let later = half.because == oracle::Because::OwnNode && matches!(ours.because, Because::Rule(_));
                let of_node = matches!(half.because, oracle::Because::OwnNode) && !judges.contains_key(node.as_str());
                if half.ambiguous || later || of_node {
                    continue;
                }
                compared += 1;
                assert!(
                    half.allowed == ours.is_accepted && is_reason(states.get(node), &half.because, &ours.because),
                    "seed {seed}: {probe}, {}: {half}, but {ours:?}\n{}",
                    direction.name(),
                    world.write()
                );
            }
        }
    }
    assert!(compared > probes, "{compared} answers are too few to show anything");
}

#[test]
fn verdicts_of_random_clusters_are_the_reference_evaluators() {
    compare(0..300, 40);
}

#[test]
#[ignore = "it takes minutes; the nightly run has it"]
fn verdicts_of_ten_thousand_random_clusters_are_the_reference_evaluators() {
    compare(1000..11_000, 100);
}
