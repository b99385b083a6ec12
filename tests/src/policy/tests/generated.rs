//! Random clusters, and making them small.

use crate::policy::{Because, End, Object, PolicyKind, Probe, Protocol, Verdict, World};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const WORLDS: u64 = 60;

#[test]
fn equal_seeds_give_equal_clusters_and_questions() {
    assert_eq!(World::random(7, 5), World::random(7, 5));
    assert_eq!(World::random(7, 5).probes(1, 50), World::random(7, 5).probes(1, 50));
    assert_ne!(World::random(7, 5), World::random(8, 5));
}

#[test]
fn what_is_written_can_be_read() {
    for seed in 0..WORLDS {
        let world = World::random(seed, 6);
        assert_eq!(World::read(vec![world.write()]), Ok(world), "seed {seed}");
    }
}

#[test]
fn clusters_are_of_the_size_that_is_said() {
    for seed in 0..WORLDS {
        let world = World::random(seed, 4);
        assert!((3..=8).contains(&world.pods().count()), "seed {seed}");
        assert_eq!(world.nodes().count(), 2);
        assert!(world.network_policies().count() <= 4 && world.cluster_network_policies().count() <= 4);
        assert!(world.admin_network_policies().count() <= 4 && world.baseline_admin_network_policies().count() <= 1);
        let keys: BTreeSet<_> = world.objects.iter().map(Object::key).collect();
        assert_eq!(keys.len(), world.objects.len());
    }
}

/// What answers there are, by a word for each.
fn seen() -> BTreeMap<String, usize> {
    let mut seen = BTreeMap::new();
    let mut count = |word: String| *seen.entry(word).or_default() += 1;
    for seed in 0..WORLDS {
        let world = World::random(seed, 8);
        for probe in world.probes(seed, 100) {
            let verdict = probe.verdict(&world);
            for half in [&verdict.egress, &verdict.ingress] {
                count(match &half.because {
                    Because::Rules(rules) => {
                        let kind: PolicyKind = rules[0].policy.kind;
                        format!("{kind:?} {}", half.allowed)
                    }
                    Because::DefaultDeny(_) => "default deny".to_owned(),
                    other => format!("{other:?}"),
                });
                if !half.passed.is_empty() {
                    count("passed".to_owned());
                }
            }
            count(format!("allowed {}", verdict.allowed()));
            count(format!("ambiguous {}", verdict.ambiguous()));
            count(if probe.to.address().is_ipv4() { "IPv4" } else { "IPv6" }.to_owned());
        }
    }
    seen
}

#[test]
fn questions_find_every_answer_often_enough() {
    let seen = seen();
    let questions: usize = seen["allowed true"] + seen["allowed false"];
    // One in so many questions has this answer at least.
    for (word, one_in) in [
        ("allowed true", 5),
        ("allowed false", 5),
        ("IPv4", 4),
        ("IPv6", 4),
        ("default deny", 8),
        ("NetworkPolicy true", 12),
        ("ClusterNetworkPolicy true", 25),
        ("ClusterNetworkPolicy false", 25),
        ("AdminNetworkPolicy true", 25),
        ("AdminNetworkPolicy false", 25),
        ("BaselineAdminNetworkPolicy true", 150),
        ("BaselineAdminNetworkPolicy false", 400),
        ("NoPolicy", 4),
        ("NotAPod", 6),
        ("OwnNode", 60),
        ("Itself", 150),
        ("passed", 20),
    ] {
        let found = seen.get(word).copied().unwrap_or_default();
        assert!(found * one_in >= questions, "{word}: {found} of {questions} in {seen:?}");
    }
    assert!(seen["ambiguous true"] * 20 < questions, "{seen:?}");
}

#[test]
fn every_feature_appears() {
    let mut text = String::new();
    for seed in 0..WORLDS {
        text.push_str(&World::random(seed, 8).write().to_string());
    }
    for word in [
        "In",
        "NotIn",
        "Exists",
        "DoesNotExist",
        "endPort",
        "except",
        "ipBlock",
        "hostNetwork",
        "Succeeded",
        "Failed",
        "Pending",
        "namespaceSelector",
        "podSelector",
        "Accept",
        "Allow",
        "Deny",
        "Pass",
        "nodes",
        "networks",
        "domainNames",
        "destinationNamedPort",
        "namedPort",
        "portRange",
        "portNumber",
        "range",
        "number",
        "SCTP",
        "UDP",
        "TCP",
        "sctp",
        "udp",
        "tcp",
        "Ingress",
        "Egress",
        "ExternalIP",
        "initContainers",
    ] {
        assert!(text.contains(&format!("\"{word}\"")), "{word}");
    }
}

#[test]
fn a_failing_cluster_becomes_small_and_goes_on_failing() {
    // The fault: something denies a Pod's packet.
    let (world, probe) = (0..WORLDS)
        .find_map(|seed| {
            let world = World::random(seed, 8);
            let denied = |probe: &Probe| !probe.verdict(&world).allowed();
            let found = world.probes(seed, 50).into_iter().find(denied);
            found.map(|probe| (world, probe))
        })
        .expect("something is denied");
    let small = world.shrunk(&probe, |world| !probe.verdict(world).allowed());
    assert!(!probe.verdict(&small).allowed());
    assert_eq!(small.objects.iter().filter(|of| of.is_policy()).count(), 1, "{}", small.write());
    assert!(small.pods().count() <= 2, "{}", small.write());
}

#[test]
fn what_a_question_is_about_is_not_taken_away() {
    let world = World::random(3, 4);
    let ends = world.pod_ends();
    let probe = Probe { from: ends[0].clone(), to: ends[0].clone(), protocol: Protocol::Tcp, port: 80 };
    let small = world.shrunk(&probe, |_| true);
    let End::Pod { name, .. } = &ends[0] else { panic!("an end of a Pod") };
    assert_eq!(small.pods().count(), 1);
    assert!(small.pods().any(|pod| pod.metadata.name.as_ref() == Some(name)));
}

/// Questions about random clusters, and the same clusters changed: the answers before and after.
fn compare(change: impl Fn(&World) -> World, check: impl Fn(&Probe, Verdict, Verdict)) {
    for seed in 0..WORLDS {
        let world = World::random(seed, 8);
        let changed = change(&world);
        for probe in world.probes(seed, 40) {
            check(&probe, probe.verdict(&world), probe.verdict(&changed));
        }
    }
}

#[test]
fn the_order_of_objects_says_nothing() {
    let turned = |world: &World| {
        let mut objects = world.objects.clone();
        objects.reverse();
        World { objects }
    };
    compare(turned, |probe, before, after| assert_eq!(before, after, "{probe}"));
}

#[test]
fn without_policies_nothing_is_denied() {
    let without = |world: &World| {
        let mut objects = world.objects.clone();
        objects.retain(|of| !of.is_policy());
        World { objects }
    };
    compare(without, |probe, _, after| assert!(after.allowed(), "{probe}: {after}"));
}

#[test]
fn one_network_policy_more_that_allows_all_can_only_open() {
    let opened = |world: &World| {
        let mut world = world.clone();
        let names: Vec<Option<String>> = world.namespaces().map(|of| of.metadata.name.clone()).collect();
        for name in names {
            let policy = json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": { "name": "all", "namespace": name },
                "spec": { "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}] },
            });
            world.apply(Object::read(policy).expect("it is a policy"));
        }
        world
    };
    compare(opened, |probe, before, after| {
        for (before, after) in [(before.egress, after.egress), (before.ingress, after.ingress)] {
            assert!(!matches!(after.because, Because::DefaultDeny(_)), "{probe}: {after}");
            assert!(after.allowed || !before.allowed, "{probe}: {before}, then {after}");
        }
    });
}

/// A rule of v1alpha1 as one of v1alpha2.
fn renewed(mut rule: Value) -> Value {
    if rule["action"] == "Allow" {
        rule["action"] = "Accept".into();
    }
    let Some(fields) = rule.as_object_mut() else { panic!("a rule") };
    if let Some(Value::Array(ports)) = fields.remove("ports") {
        let protocol = |port: &Value| port["protocol"].as_str().expect("it is generated").to_lowercase();
        let renewed = ports.into_iter().map(|port| {
            if port["namedPort"].is_string() {
                json!({ "destinationNamedPort": port["namedPort"] })
            } else if port["portNumber"].is_object() {
                let of = &port["portNumber"];
                json!({ protocol(of): { "destinationPort": { "number": of["port"] } } })
            } else {
                let of = &port["portRange"];
                let range = json!({ "start": of["start"], "end": of["end"] });
                json!({ protocol(of): { "destinationPort": { "range": range } } })
            }
        });
        fields.insert("protocols".to_owned(), renewed.collect());
    }
    rule
}

#[test]
fn the_first_generation_says_what_the_second_says_in_other_words() {
    let in_new_words = |world: &World| {
        let mut renewed_world = World::default();
        for object in &world.objects {
            let (tier, priority) = match object {
                Object::AdminNetworkPolicy(of) => ("Admin", of.spec.priority),
                // It has none and comes last, which no number of v1alpha2 says; here there is no bound.
                Object::BaselineAdminNetworkPolicy(_) => ("Baseline", Some(1001)),
                _ => {
                    renewed_world.apply(object.clone());
                    continue;
                }
            };
            let mut value = object.write();
            value["apiVersion"] = "policy.networking.k8s.io/v1alpha2".into();
            value["kind"] = "ClusterNetworkPolicy".into();
            value["spec"]["tier"] = tier.into();
            value["spec"]["priority"] = priority.into();
            for section in ["ingress", "egress"] {
                if let Some(rules) = value["spec"].get(section).cloned() {
                    let rules = rules.as_array().expect("a list").iter().cloned().map(renewed);
                    value["spec"][section] = rules.collect();
                }
            }
            renewed_world.apply(Object::read(value).expect("it is a policy of v1alpha2"));
        }
        renewed_world
    };
    compare(in_new_words, |probe, before, after| {
        for (before, after) in [(before.egress, after.egress), (before.ingress, after.ingress)] {
            assert_eq!((before.allowed, before.ambiguous), (after.allowed, after.ambiguous), "{probe}");
        }
    });
}
