//! Manifests of policies that would allow a connection.

use super::answer::{Answer, Half};
use super::world::{End, World, pod_name};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value, json};
use sluice_controller::facts::policy::{Direction, Tier};
use sluice_controller::policy::{Because, RuleName};
use std::fmt::Write;
use std::net::IpAddr;

/// Labels that controllers give each Pod, or each generation of Pods, for themselves.
const OF_CONTROLLERS: [&str; 6] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
];

/// Longest name of an object.
const NAME_LEN: usize = 63;

/// The Pod's labels that say what it is, rather than which one.
pub(super) fn labels(pod: &Pod) -> Map<String, Value> {
    let labels = pod.metadata.labels.iter().flatten().filter(|(key, _)| !OF_CONTROLLERS.contains(&key.as_str()));
    labels.map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect()
}

/// A manifest that would allow what is denied at an end.
///
/// # Errors
/// Why there is none.
pub(super) fn allowing(world: &World, answer: &Answer<'_>, half: &Half<'_>) -> Result<Value, String> {
    match &half.verdict().because {
        Because::Default(_) => network(world, answer, half),
        Because::Rule(rule) => before(world, answer, half, rule),
        _ => Err("nothing denies it".to_owned()),
    }
}

fn ends<'e>(answer: &'e Answer<'_>, half: &Half<'_>) -> (&'e End, &'e End) {
    match half.direction {
        Direction::Ingress => (&answer.to, &answer.from),
        Direction::Egress => (&answer.from, &answer.to),
    }
}

fn labels_of(world: &World, name: &str) -> Map<String, Value> {
    let pod = world.objects.pods.iter().find(|pod| pod_name(pod) == name);
    pod.map(labels).unwrap_or_default()
}

/// `matchLabels`, or the empty selector without any.
fn selector(labels: Map<String, Value>) -> Value {
    if labels.is_empty() { json!({}) } else { json!({ "matchLabels": labels }) }
}

fn namespace_selector(pod: &str) -> Value {
    let namespace = pod.split('/').next().unwrap_or_default();
    json!({ "matchLabels": { "kubernetes.io/metadata.name": namespace } })
}

/// A name that says what it allows, and at which end.
fn name(answer: &Answer<'_>, direction: Direction) -> String {
    let last = |end: &End| end.name.rsplit('/').next().unwrap_or_default().to_owned();
    let port = answer.at.protocol.map_or(String::new(), |_| format!("-{}", answer.at.port));
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let name = match direction {
        Direction::Egress => format!("allow-{}-to-{}{port}", last(&answer.from), last(&answer.to)),
        Direction::Ingress => format!("allow-{}-from-{}{port}", last(&answer.to), last(&answer.from)),
    };
    let name: String = name.chars().map(|c| if is_plain(c) { c } else { '-' }).take(NAME_LEN).collect();
    name.trim_end_matches('-').to_owned()
}

/// The addresses of an end, as networks.
fn nets(end: &End) -> Vec<String> {
    let bits = |address: &IpAddr| if address.is_ipv4() { 32 } else { 128 };
    end.addresses.iter().map(|address| format!("{address}/{}", bits(address))).collect()
}

/// A NetworkPolicy: what isolates the Pod is not taken away, but this is allowed beside it.
fn network(world: &World, answer: &Answer<'_>, half: &Half<'_>) -> Result<Value, String> {
    let (_, other) = ends(answer, half);
    let namespace = half.pod.split('/').next().unwrap_or_default();
    let peers: Vec<Value> = match &other.pod {
        Some(pod) => vec![json!({
            "namespaceSelector": namespace_selector(pod), "podSelector": selector(labels_of(world, pod)),
        })],
        None => nets(other).into_iter().map(|net| json!({ "ipBlock": { "cidr": net } })).collect(),
    };
    let (section, side, types) = match half.direction {
        Direction::Ingress => ("ingress", "from", "Ingress"),
        Direction::Egress => ("egress", "to", "Egress"),
    };
    let mut rule = json!({ side: peers });
    if let Some(protocol) = answer.at.protocol {
        rule["ports"] = json!([{ "port": answer.at.port, "protocol": protocol.name().to_uppercase() }]);
    }
    Ok(json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": { "name": name(answer, half.direction), "namespace": namespace },
        "spec": {
            "podSelector": selector(labels_of(world, &half.pod)), "policyTypes": [types], section: [rule],
        },
    }))
}

/// A ClusterNetworkPolicy that is asked before a rule that denies.
fn before(world: &World, answer: &Answer<'_>, half: &Half<'_>, rule: &RuleName<'_>) -> Result<Value, String> {
    let (_, other) = ends(answer, half);
    let policy = half.explanation.policies.iter().map(|of| of.policy).find(|of| of.name == *rule.policy);
    let policy = policy.ok_or("the policy is not known")?;
    let Some(priority) = policy.priority.checked_sub(1) else {
        return Err(format!(
            "{} has priority 0, before which nothing is asked: it has to be changed itself",
            policy.name
        ));
    };
    let peer = match (&other.pod, half.direction) {
        (Some(pod), _) => json!({ "pods": {
            "namespaceSelector": namespace_selector(pod), "podSelector": selector(labels_of(world, pod)),
        } }),
        (None, Direction::Egress) => json!({ "networks": nets(other) }),
        (None, Direction::Ingress) => {
            return Err("rules for ingress of the whole cluster's policies have Pods alone as peers".to_owned());
        }
    };
    let (section, side) = match half.direction {
        Direction::Ingress => ("ingress", "from"),
        Direction::Egress => ("egress", "to"),
    };
    let mut rule = json!({ "action": "Accept", side: [peer] });
    if let Some(protocol) = answer.at.protocol {
        let of = protocol.name();
        rule["protocols"] = json!([{ of: { "destinationPort": { "number": answer.at.port } } }]);
    }
    let tier = if policy.tier == Tier::Admin { "Admin" } else { "Baseline" };
    let subject = json!({ "pods": {
        "namespaceSelector": namespace_selector(&half.pod), "podSelector": selector(labels_of(world, &half.pod)),
    } });
    Ok(json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": { "name": name(answer, half.direction) },
        "spec": { "tier": tier, "priority": priority, "subject": subject, section: [rule] },
    }))
}

/// A manifest as YAML.
pub(super) fn yaml(value: &Value) -> String {
    let mut text = String::new();
    write_yaml(value, 0, &mut text);
    text
}

/// Writes a value from the beginning of a line on, or behind a dash or a key where it is a scalar.
fn write_yaml(value: &Value, depth: usize, to: &mut String) {
    let indent = |to: &mut String| to.push_str(&"  ".repeat(depth));
    match value {
        Value::Object(map) => {
            for (index, (key, value)) in map.iter().enumerate() {
                // The first key of an item stands behind its dash.
                if index > 0 || !to.ends_with("- ") {
                    indent(to);
                }
                // Writing to a string does not fail.
                _ = write!(to, "{}:", scalar(key));
                match value {
                    Value::Object(map) if !map.is_empty() => {
                        to.push('\n');
                        write_yaml(value, depth + 1, to);
                    }
                    Value::Array(list) if !list.is_empty() => {
                        to.push('\n');
                        write_yaml(value, depth, to);
                    }
                    _ => {
                        to.push(' ');
                        write_yaml(value, depth, to);
                    }
                }
            }
            if map.is_empty() {
                to.push_str("{}\n");
            }
        }
        Value::Array(list) => {
            for (index, item) in list.iter().enumerate() {
                if index > 0 || !to.ends_with("- ") {
                    indent(to);
                }
                to.push_str("- ");
                write_yaml(item, depth + 1, to);
            }
            if list.is_empty() {
                to.push_str("[]\n");
            }
        }
        Value::String(text) => _ = writeln!(to, "{}", scalar(text)),
        other => _ = writeln!(to, "{other}"),
    }
}

/// A word as it is, or in quotes where YAML would read something else.
fn scalar(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let is_word = text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(is_plain);
    let means_else = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    if is_word && !means_else.contains(&text.to_ascii_lowercase().as_str()) {
        text.to_owned()
    } else {
        Value::from(text).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_is_read_as_what_was_written() {
        let value = json!({
            "a": { "b": [{ "c": 1, "d": ["x", { "e": {} }] }, "no", "10.0.0.0/8", "1.5", ""], "kubernetes.io/x": true },
            "f": [], "g": [[1, 2], []], "h": null,
        });
        let read: Value = serde_saphyr::from_str(&yaml(&value)).unwrap();
        assert_eq!(read, value, "{}", yaml(&value));
    }
}
