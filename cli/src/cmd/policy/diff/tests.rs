//! What is told of workloads is what there is for each of their Pods.

use super::*;
use serde_json::Value;

/// Choices, one after another, by one number.
struct Choices(u64);

impl Choices {
    fn below(&mut self, count: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) as usize % count
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    fn selector(&mut self) -> Value {
        match self.below(3) {
            0 => json!({}),
            _ => json!({ "matchLabels": { "app": self.of(&["web", "db", "api"]) } }),
        }
    }

    fn peer(&mut self) -> Value {
        match self.below(4) {
            0 => json!({ "podSelector": self.selector() }),
            1 => json!({ "namespaceSelector": {}, "podSelector": self.selector() }),
            2 => json!({ "ipBlock": { "cidr": "10.0.0.0/24", "except": ["10.0.0.0/30"] } }),
            _ => json!({ "ipBlock": { "cidr": "192.0.2.0/28" } }),
        }
    }

    fn policy(&mut self, name: &str) -> Value {
        let mut spec = json!({ "podSelector": self.selector(), "policyTypes": [self.of(&["Ingress", "Egress"])] });
        for (section, side) in [("ingress", "from"), ("egress", "to")] {
            let mut rule = json!({ side: [self.peer(), self.peer()] });
            if self.below(2) == 0 {
                rule["ports"] = json!([{ "port": self.of(&[json!("http"), json!(80), json!(443)]) }]);
            }
            spec[section] = json!([rule]);
        }
        json!({ "kind": "NetworkPolicy", "metadata": { "name": name, "namespace": self.of(&["x", "y"]) }, "spec": spec })
    }

    fn pod(&mut self, number: usize) -> Value {
        let app = *self.of(&["web", "db", "api"]);
        let owner =
            json!({ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": app, "uid": "1", "controller": true });
        let ports = json!([{ "name": "http", "containerPort": 80 }]);
        json!({
            "kind": "Pod",
            "metadata": {
                "name": format!("{app}-{number}"), "namespace": self.of(&["x", "y"]), "labels": { "app": app },
                "ownerReferences": [owner],
            },
            "spec": { "nodeName": "n", "containers": [{ "name": "c", "ports": ports }] },
            "status": { "phase": "Running", "podIPs": [{ "ip": format!("10.0.0.{number}") }] },
        })
    }
}

fn world(values: &[Value]) -> World {
    let mut objects = Objects::default();
    for value in values {
        manifests::put(value.clone(), &mut objects, 0).unwrap();
    }
    World::new(objects)
}

/// What opens and closes between two Pods, asked of these Pods alone.
fn between(worlds: [&World; 2], from: &str, to: &str, questions: &[(String, To)]) -> Change {
    let judges = worlds.map(|world| Judge::new(&world.state));
    let (source, target) = (worlds[1].pod(from).unwrap(), worlds[1].pod(to).unwrap());
    let mut change = Change::default();
    for (label, at) in questions {
        let pair = pairs(&source, &target)[0];
        let asked = judges.each_ref().map(|judge| {
            let (out, into) = (judge.subject(from), judge.subject(to));
            allows((&source, Some(&out)), (&target, Some(&into)), pair, *at)
        });
        match asked {
            [false, true] => change.opens.push(label.clone()),
            [true, false] => change.closes.push(label.clone()),
            _ => {}
        }
    }
    Change { opens: table::gathered(change.opens, questions), closes: table::gathered(change.closes, questions) }
}

#[test]
fn what_is_told_of_workloads_is_what_each_pair_of_their_pods_would_see() {
    let mut found = 0;
    for seed in 0..60 {
        let mut choices = Choices(seed);
        let mut objects: Vec<Value> = (1..12).map(|number| choices.pod(number)).collect();
        objects.extend(["x", "y"].map(|name| json!({ "kind": "Namespace", "metadata": { "name": name } })));
        objects.extend((0..choices.below(3)).map(|number| choices.policy(&format!("old-{number}"))));
        let mut later = objects.clone();
        later.push(choices.policy("new"));
        let (before, after) = (world(&objects), world(&later));
        let difference = difference(&before, &after);
        let changed: Vec<_> = difference.policies.keys().cloned().collect();
        let ports = Ports::new(&before, &after, &changed);
        let groups = ends::groups(&before, &after, &changed);
        let questions = ports.of(groups.iter().find(|group| group.end.pod.is_some()).unwrap());
        let is_pod = |name: &str| name.starts_with("x/") || name.starts_with("y/");
        let told: BTreeSet<_> =
            difference.changes.iter().filter(|(from, to, _)| is_pod(from) && is_pod(to)).cloned().collect();
        let mut each = BTreeSet::new();
        for from in after.pods.keys() {
            for to in after.pods.keys().filter(|to| *to != from) {
                let change = between([&before, &after], from, to, &questions);
                let workload = |name: &str| name.rsplit_once('-').unwrap().0.to_owned();
                if change != Change::default() {
                    each.insert((workload(from), workload(to), change));
                }
            }
        }
        found += each.len();
        assert_eq!(told, each, "seed {seed}: {:?}", difference.policies);
    }
    assert!(found > 100, "{found} changes are too few to show anything");
}

#[test]
fn nothing_opens_or_closes_without_a_change_and_a_deletion_undoes_what_was_applied() {
    let mut choices = Choices(7);
    let mut objects: Vec<Value> = (1..8).map(|number| choices.pod(number)).collect();
    objects.extend(["x", "y"].map(|name| json!({ "kind": "Namespace", "metadata": { "name": name } })));
    let without = world(&objects);
    let deny = json!({ "kind": "NetworkPolicy", "metadata": { "name": "deny", "namespace": "x" }, "spec": { "podSelector": {} } });
    objects.push(deny);
    let with = world(&objects);
    assert!(difference(&with, &with).changes.is_empty());
    let (applied, deleted) = (difference(&without, &with), difference(&with, &without));
    let turned = |changes: &[(String, String, Change)]| {
        let turn = |(from, to, change): &(String, String, Change)| {
            let Change { opens, closes } = change.clone();
            (from.clone(), to.clone(), Change { opens: closes, closes: opens })
        };
        changes.iter().map(turn).collect::<BTreeSet<_>>()
    };
    assert!(!applied.changes.is_empty());
    assert_eq!(turned(&applied.changes), deleted.changes.iter().cloned().collect());
    assert_eq!(deleted.policies.values().copied().collect::<Vec<_>>(), [How::Deleted]);
}
