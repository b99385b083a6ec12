use crate::facts::Protocol;
use crate::facts::policy::{Action, Direction, Peer, Policy, Port, Rule, Tier};
use crate::policy::tests::{network_policy, read_policy};
use serde_json::{Value, json};

/// A NetworkPolicy of `shop`, and what is said of it.
fn network(spec: &Value) -> (Policy, Vec<String>) {
    let reading = read_policy(&network_policy("shop", "p", spec)).unwrap();
    (reading.policy.unwrap(), reading.notes.iter().map(ToString::to_string).collect())
}

/// The rule of an egress rule's peers and ports in a ClusterNetworkPolicy, and what is said of it.
fn cluster(action: &str, to: &Value, protocols: &Value) -> (Rule, Vec<String>) {
    let spec = json!({ "tier": "Admin", "priority": 7, "subject": { "namespaces": {} },
        "egress": [{ "name": "r", "action": action, "to": to, "protocols": protocols }] });
    let object = json!({ "kind": "ClusterNetworkPolicy", "metadata": { "name": "c" }, "spec": spec });
    let reading = read_policy(&object).unwrap();
    let policy = reading.policy.unwrap();
    assert_eq!((policy.tier, policy.priority, policy.rules.len()), (Tier::Admin, 7, 1));
    (policy.rules[0].clone(), reading.notes.iter().map(ToString::to_string).collect())
}

/// Peers as texts.
fn peers(rule: &Rule) -> Option<Vec<String>> {
    let text = |peer: &Peer| match peer {
        Peer::Group(key) => key.0.to_string(),
        Peer::Net { net, except } => format!("{net} but {except:?}"),
    };
    rule.peers.as_ref().map(|peers| peers.iter().map(text).collect())
}

#[test]
fn a_network_policy_is_about_ingress_and_about_egress_if_it_says_so_or_has_rules() {
    use Direction::{Egress, Ingress};
    for (spec, expected) in [
        (json!({}), vec![Ingress]),
        (json!({ "egress": [] }), vec![Ingress]),
        (json!({ "egress": [{}] }), vec![Ingress, Egress]),
        (json!({ "policyTypes": ["Egress"] }), vec![Egress]),
        (json!({ "policyTypes": ["Egress", "Ingress"] }), vec![Ingress, Egress]),
    ] {
        assert_eq!(network(&spec).0.isolates, expected, "{spec}");
    }
    let (policy, notes) = network(&json!({ "policyTypes": ["Egress"], "ingress": [{}] }));
    assert!(policy.rules.is_empty());
    assert_eq!(notes.len(), 1, "a rule that does nothing is told");
}

#[test]
fn lists_that_are_empty_or_not_there_are_everybody_and_everything() {
    for rule in [json!({}), json!({ "from": [], "ports": [] })] {
        let (policy, _) = network(&json!({ "ingress": [rule] }));
        assert_eq!((&policy.rules[0].peers, &policy.rules[0].ports), (&None, &None));
    }
}

#[test]
fn selectors_are_within_the_namespace_unless_namespaces_are_selected() {
    for (peer, expected) in [
        (json!({ "podSelector": {} }), "pods(ns=shop;)"),
        (json!({ "namespaceSelector": {} }), "pods(ns:;)"),
        (
            json!({ "namespaceSelector": { "matchLabels": { "t": "a" } },
                "podSelector": { "matchExpressions": [{ "key": "k", "operator": "NotIn", "values": ["2", "1"] }] } }),
            "pods(ns:t=a;k notin (1,2))",
        ),
    ] {
        let (policy, _) = network(&json!({ "ingress": [{ "from": [peer] }] }));
        assert_eq!(peers(&policy.rules[0]).unwrap(), [expected]);
    }
}

#[test]
fn what_is_left_out_of_a_network_lies_in_it() {
    for (block, expected) in [
        (json!({ "cidr": "10.1.2.3/8" }), vec!["10.0.0.0/8 but []"]),
        (
            json!({ "cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "192.0.2.0/24"] }),
            vec!["10.0.0.0/8 but [10.1.0.0/16]"],
        ),
        (json!({ "cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"] }), vec![]),
        (json!({ "cidr": "10.0.0.0/8", "except": ["10.0.0.0/9", "10.128.0.0/9"] }), vec![]),
        (json!({ "cidr": "10.0.0.0/8", "except": ["huh"] }), vec![]),
        (json!({ "cidr": "::ffff:10.0.0.0/104" }), vec!["10.0.0.0/8 but []"]),
    ] {
        let (policy, _) = network(&json!({ "ingress": [{ "from": [{ "ipBlock": block }] }] }));
        assert_eq!(peers(&policy.rules[0]).unwrap(), expected, "{block}");
    }
}

#[test]
fn ports_that_cannot_be_match_nothing() {
    for (port, expected) in [
        (json!({}), Some(Port::All(Protocol::Tcp))),
        (json!({ "protocol": "SCTP" }), Some(Port::All(Protocol::Sctp))),
        (json!({ "port": 80 }), Some(Port::Range(Protocol::Tcp, 80, 80))),
        (json!({ "port": 80, "endPort": 90, "protocol": "UDP" }), Some(Port::Range(Protocol::Udp, 80, 90))),
        (json!({ "port": "web" }), Some(Port::Named(Some(Protocol::Tcp), "web".to_owned()))),
        (json!({ "port": 90, "endPort": 80 }), None),
        (json!({ "port": "web", "endPort": 80 }), None),
        (json!({ "endPort": 80 }), None),
        (json!({ "port": 0 }), None),
        (json!({ "port": 65536 }), None),
        (json!({ "protocol": "ICMP" }), None),
    ] {
        let (policy, notes) = network(&json!({ "ingress": [{ "ports": [port] }] }));
        assert_eq!(policy.rules[0].ports, Some(expected.iter().cloned().collect()), "{port}");
        assert_eq!(notes.is_empty(), expected.is_some(), "{notes:?}");
    }
}

#[test]
fn names_of_ports_for_egress_come_with_the_pods_that_have_them() {
    let named = json!([{ "port": "web" }]);
    let mixed = json!([{ "port": "web" }, { "port": 80 }]);
    let block = json!([{ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"] } }]);
    for (rule, expected) in [
        (json!({ "ports": named }), vec!["pods(ns:;)"]),
        (json!({ "ports": mixed }), vec!["pods(ns:;)", "0.0.0.0/0 but []", "::/0 but []"]),
        (
            json!({ "ports": named, "to": block }),
            vec!["pods(ns:;;in 10.0.0.0/8 but 10.1.0.0/16)", "10.0.0.0/8 but [10.1.0.0/16]"],
        ),
    ] {
        let (policy, _) = network(&json!({ "egress": [rule] }));
        let mut found = peers(&policy.rules[0]).unwrap();
        let mut expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{rule}");
    }
    let (policy, _) = network(&json!({ "ingress": [{ "ports": named }] }));
    assert_eq!(policy.rules[0].peers, None, "for ingress the subject has the names");
}

#[test]
fn a_rule_that_cannot_be_read_accepts_nothing_or_denies_everything() {
    let good = json!([{ "namespaces": {} }]);
    let none = json!([]);
    for (to, protocols) in [
        (json!([{ "namespaces": {} }, { "domainNames": ["a.example"] }]), &none),
        (json!([{}]), &none),
        (json!([]), &none),
        (json!([{ "namespaces": {}, "networks": ["10.0.0.0/8"] }]), &none),
        (json!([{ "networks": ["10.0.0.0/33"] }]), &none),
        (
            json!([{ "pods": { "namespaceSelector": { "matchExpressions": [{ "key": "a", "operator": "In" }] } } }]),
            &none,
        ),
        (good.clone(), &json!([{}])),
        (good.clone(), &json!([{ "tcp": {} }])),
        (good.clone(), &json!([{ "tcp": { "destinationPort": { "number": 0 } } }])),
        (good.clone(), &json!([{ "udp": { "destinationPort": { "range": { "start": 2, "end": 1 } } } }])),
    ] {
        let (rule, notes) = cluster("Accept", &to, protocols);
        assert_eq!((rule.action, rule.peers, rule.ports), (Action::Accept, Some(vec![]), None), "{to} {protocols}");
        assert!(notes[0].starts_with("egress/0: "), "{notes:?}");
        for action in ["Deny", "Pass"] {
            let (rule, notes) = cluster(action, &to, protocols);
            assert_eq!((rule.action, rule.peers, rule.ports), (Action::Deny, None, None), "{to} {protocols}");
            assert_eq!(notes.len(), 1);
        }
    }
}

#[test]
fn a_rule_of_the_cluster_is_read_with_all_that_it_may_have() {
    let to = json!([
        { "namespaces": { "matchLabels": { "a": "b" } } },
        { "nodes": {} },
        { "networks": ["10.0.0.0/8", "fd00::/8"] },
    ]);
    let protocols = json!([
        { "udp": { "destinationPort": { "range": { "start": 1, "end": 9 } } } },
        { "tcp": { "destinationPort": { "number": 443 } } },
    ]);
    let (rule, notes) = cluster("Pass", &to, &protocols);
    assert_eq!(peers(&rule).unwrap(), ["nodes()", "pods(ns:a=b;)", "10.0.0.0/8 but []", "fd00::/8 but []"]);
    let ports = vec![Port::Range(Protocol::Tcp, 443, 443), Port::Range(Protocol::Udp, 1, 9)];
    assert_eq!((rule.action, rule.ports, &*rule.name, notes.len()), (Action::Pass, Some(ports), "r", 0));
}

#[test]
fn the_old_baseline_comes_after_all_others_and_allows_by_another_word() {
    let rule = json!({ "action": "Allow", "from": [{ "namespaces": {} }], "ports": [{ "namedPort": "web" }] });
    let spec = json!({ "subject": { "namespaces": {} }, "ingress": [rule] });
    let object = json!({ "kind": "BaselineAdminNetworkPolicy", "metadata": { "name": "default" }, "spec": spec });
    let policy = read_policy(&object).unwrap().policy.unwrap();
    assert_eq!((policy.tier, policy.priority, policy.rules[0].action), (Tier::Baseline, 1000, Action::Accept));
    assert_eq!(policy.rules[0].ports, Some(vec![Port::Named(None, "web".to_owned())]));
}

#[test]
fn a_policy_whose_subject_or_tier_cannot_be_read_is_about_nobody() {
    for spec in [
        json!({ "tier": "Later", "subject": { "namespaces": {} } }),
        json!({ "tier": "Admin", "subject": {} }),
        json!({ "tier": "Admin", "subject": { "namespaces": {}, "pods": {} } }),
    ] {
        let object = json!({ "kind": "ClusterNetworkPolicy", "metadata": { "name": "c" }, "spec": spec });
        let reading = read_policy(&object).unwrap();
        assert!(reading.policy.is_none() && reading.notes.len() == 1, "{spec}");
    }
}

#[test]
fn annotations_say_what_is_recorded() {
    let mut object = network_policy("shop", "p", &json!({}));
    object["metadata"]["annotations"] = json!({ "sluice.dev/audit": "true", "sluice.dev/log": "false" });
    let policy = read_policy(&object).unwrap().policy.unwrap();
    assert!(policy.is_audit && !policy.logs);
}
