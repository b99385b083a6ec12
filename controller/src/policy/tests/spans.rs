//! Who hears of what.

use super::*;
use crate::facts::policy::{GroupKey, Policy};

fn shop() -> Vec<Value> {
    vec![
        namespace("shop", &json!({})),
        pod("shop", "db", &json!({ "app": "db" }), "n1", &["10.0.1.2"]),
        pod("shop", "web", &json!({ "app": "web" }), "n2", &["10.0.2.2"]),
        network_policy(
            "shop",
            "db",
            &json!({
                "podSelector": { "matchLabels": { "app": "db" } },
                "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": "web" } } }] }],
            }),
        ),
    ]
}

const WEB: &str = "pods(ns=shop;app=web)";
const DB: &str = "subjects(ns=shop;app=db)";

#[test]
fn a_policy_goes_to_nodes_of_its_subjects_alone() {
    let mut cluster = cluster_of(&shop());
    let told = cluster.take();
    assert_eq!(told.keys().map(|name| &**name).collect::<Vec<_>>(), ["n1"]);
    let kinds: Vec<String> = told["n1"]
        .iter()
        .map(|update| match update {
            Update::Group(GroupKey(key), group) => format!("{key}: {:?}", group.members.keys()),
            Update::Policy(name, Some(_)) => name.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, [format!("{WEB}: [\"shop/web\"]"), format!("{DB}: [\"shop/db\"]"), "np:shop/db".to_owned()]);
    assert_eq!(cluster.state("n2"), State::default());
}

#[test]
fn a_pod_that_comes_is_told_as_a_member_and_to_nobody_else() {
    let mut cluster = cluster_of(&shop());
    cluster.take();
    put(&mut cluster, &pod("shop", "web-2", &json!({ "app": "web" }), "n3", &["10.0.3.2"]));
    let told = cluster.take();
    let [Update::Members(GroupKey(key), members)] = told["n1"].as_slice() else { panic!("{told:?}") };
    assert_eq!((&**key, members.len(), told.len()), (WEB, 1, 1));
    put(&mut cluster, &pod("shop", "cache", &json!({ "app": "cache" }), "n3", &["10.0.3.3"]));
    assert!(cluster.take().is_empty(), "a Pod of no group is nobody's concern");
}

#[test]
fn the_first_subject_on_a_node_brings_the_policy_and_the_last_takes_it_along() {
    let mut cluster = cluster_of(&shop());
    cluster.take();
    put(&mut cluster, &pod("shop", "db-2", &json!({ "app": "db" }), "n2", &[]));
    let told = cluster.take();
    assert_eq!(told.keys().map(|name| &**name).collect::<Vec<_>>(), ["n2"], "other nodes' subjects are no concern");
    let mut state = State::default();
    apply(&mut state, &told["n2"]);
    let member = &state.groups[&GroupKey(DB.into())].members["shop/db-2"];
    assert!(member.addresses.is_empty(), "it is there before its address");
    cluster.remove_pod("shop", "db-2");
    let told = cluster.take();
    apply(&mut state, &told["n2"]);
    assert_eq!(state, State::default());
}

#[test]
fn a_policy_that_is_as_before_tells_nothing() {
    let mut cluster = cluster_of(&shop());
    cluster.take();
    for object in shop() {
        put(&mut cluster, &object);
    }
    assert!(cluster.take().is_empty());
}

#[test]
fn a_node_that_knows_nothing_is_told_all() {
    let mut cluster = cluster_of(&shop());
    cluster.take();
    let before = cluster.state("n1");
    cluster.restart("n1");
    let mut state = State::default();
    apply(&mut state, &cluster.take_node("n1"));
    assert_eq!(state, before);
}

#[test]
fn equal_selectors_in_other_words_are_one_group() {
    let words = [
        json!({ "matchLabels": { "app": "web" } }),
        json!({ "matchExpressions": [{ "key": "app", "operator": "In", "values": ["web", "web"] }] }),
    ];
    let subject_of = |selector: &Value| -> Policy {
        read_policy(&network_policy("shop", "p", &json!({ "podSelector": selector }))).unwrap().policy.unwrap()
    };
    assert_eq!(subject_of(&words[0]).subject, subject_of(&words[1]).subject);
    let quoted = json!({ "matchLabels": { "app": "web,env=prod" } });
    let plain = json!({ "matchLabels": { "app": "web", "env": "prod" } });
    assert_ne!(subject_of(&quoted).subject, subject_of(&plain).subject);
}
