//! Any sequence of changes comes to what there is at its end, for every node.

use super::*;
use proptest::prelude::*;

const NAMESPACES: [&str; 3] = ["x", "y", "z"];
const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// Choices, one after another, by one number.
struct Choices(u64);

impl Choices {
    fn below(&mut self, count: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % count
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }

    fn selector(&mut self) -> Value {
        match self.below(9) {
            0 => json!({}),
            1 => json!({ "matchLabels": { "app": "web" } }),
            2 => json!({ "matchLabels": { "app": "db", "env": "prod" } }),
            3 => json!({ "matchExpressions": [{ "key": "app", "operator": "In", "values": ["web", "db"] }] }),
            4 => json!({ "matchExpressions": [{ "key": "app", "operator": "NotIn", "values": ["db"] }] }),
            5 => json!({ "matchExpressions": [{ "key": "env", "operator": "Exists" }] }),
            6 => json!({ "matchExpressions": [{ "key": "env", "operator": "DoesNotExist" }] }),
            7 => json!({ "matchLabels": { "kubernetes.io/metadata.name": "x" } }),
            _ => json!({ "matchExpressions": [{ "key": "app", "operator": "Huh" }] }),
        }
    }

    fn labels(&mut self) -> Value {
        let mut labels = json!({});
        match self.below(3) {
            0 => labels["app"] = "web".into(),
            1 => labels["app"] = "db".into(),
            _ => {}
        }
        if self.below(2) == 0 {
            labels["env"] = "prod".into();
        }
        labels
    }

    fn peer(&mut self) -> Value {
        match self.below(6) {
            0 => json!({ "podSelector": self.selector() }),
            1 => json!({ "namespaceSelector": self.selector() }),
            2 => json!({ "namespaceSelector": self.selector(), "podSelector": self.selector() }),
            3 => json!({ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["10.0.1.0/24"] } }),
            4 => json!({ "ipBlock": { "cidr": "fd00::/16" } }),
            _ => json!({}),
        }
    }

    fn cluster_peer(&mut self) -> Value {
        match self.below(5) {
            0 => json!({ "namespaces": self.selector() }),
            1 => json!({ "pods": { "namespaceSelector": self.selector(), "podSelector": self.selector() } }),
            2 => json!({ "nodes": self.selector() }),
            3 => json!({ "networks": ["10.0.0.0/16", "fd00::/8"] }),
            _ => json!({ "domainNames": ["*.example.org"] }),
        }
    }

    fn pod(&mut self) -> Value {
        let (namespace, name) = (*self.of(&NAMESPACES), format!("p{}", self.below(4)));
        let labels = self.labels();
        let node = self.of(&["n1", "n2", "n3", "n1", "n2", ""]);
        let (host, last) = (self.below(8) == 0, self.below(3));
        let both = [format!("10.0.{last}.1"), format!("fd00::{last}")];
        let addresses: Vec<&str> = both.iter().take(self.below(3) as usize).map(String::as_str).collect();
        let mut pod = pod(namespace, &name, &labels, node, &addresses);
        pod["spec"]["hostNetwork"] = host.into();
        let ports = json!([{ "name": "web", "containerPort": 8080 + self.below(2) }]);
        pod["spec"]["containers"] = json!([{ "name": "c", "ports": ports }]);
        pod["status"]["phase"] = (*self.of(&["Running", "Pending", "Running", "Succeeded"])).into();
        pod
    }

    fn network_policy(&mut self) -> Value {
        let (namespace, name) = (*self.of(&NAMESPACES), format!("np{}", self.below(3)));
        let mut spec = json!({ "podSelector": self.selector() });
        for (section, peers) in [("ingress", "from"), ("egress", "to")] {
            let mut rule = json!({});
            if self.below(4) > 0 {
                rule[peers] = (0..=self.below(2)).map(|_| self.peer()).collect();
            }
            match self.below(4) {
                0 => rule["ports"] = json!([{ "port": "web" }]),
                1 => rule["ports"] = json!([{ "port": "web" }, { "port": 80, "endPort": 90, "protocol": "UDP" }]),
                _ => {}
            }
            spec[section] = json!([rule]);
        }
        network_policy(namespace, &name, &spec)
    }

    fn cluster_policy(&mut self) -> Value {
        let name = format!("c{}", self.below(3));
        let subject = match self.below(3) {
            0 => json!({ "namespaces": self.selector() }),
            1 => json!({ "pods": { "namespaceSelector": self.selector(), "podSelector": self.selector() } }),
            _ => json!({ "namespaces": {} }),
        };
        let ingress = json!({ "action": self.of(&["Accept", "Deny", "Pass"]), "from": [self.cluster_peer()] });
        let egress = json!({ "action": self.of(&["Allow", "Deny", "Pass"]), "to": [self.cluster_peer()] });
        let spec = json!({ "tier": self.of(&["Admin", "Baseline"]), "priority": self.below(20),
            "subject": subject, "ingress": [ingress], "egress": [egress] });
        let kind = self.of(&["ClusterNetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy"]);
        json!({ "kind": kind, "metadata": { "name": name }, "spec": spec })
    }

    fn object(&mut self) -> Value {
        match self.below(10) {
            0..4 => self.pod(),
            4 | 5 => {
                let name = *self.of(&NAMESPACES);
                namespace(name, &self.labels())
            }
            6 => {
                let (name, labels) = (*self.of(&NODES), self.labels());
                let address = format!("192.0.2.{}", self.below(3));
                json!({ "kind": "Node", "metadata": { "name": name, "labels": labels },
                    "status": { "addresses": [{ "type": "InternalIP", "address": address }] } })
            }
            7 | 8 => self.network_policy(),
            _ => self.cluster_policy(),
        }
    }
}

fn remove(cluster: &mut Cluster, (kind, namespace, name): &(String, String, String)) {
    match kind.as_str() {
        "Pod" => cluster.remove_pod(namespace, name),
        "Namespace" => cluster.remove_namespace(name),
        "Node" => cluster.remove_node(name),
        _ => {
            let names: Vec<_> =
                cluster.policies().filter(|of| of.name == *name && of.namespace == *namespace).collect();
            let is_kind = |of: &&&crate::facts::policy::PolicyName| format!("{:?}", of.kind) == *kind;
            let found = names.iter().find(is_kind).map(|name| (**name).clone());
            // One that is about nobody and of which nothing is to be said is there all the same.
            cluster.remove_policy(&found.unwrap());
        }
    }
}

/// What nodes know who take what they are told.
#[derive(Default)]
struct Followers {
    objects: BTreeMap<(String, String, String), Value>,
    all: Cluster,
    one: Option<Cluster>,
    states: BTreeMap<Arc<str>, State>,
    of_one: State,
}

impl Followers {
    fn change(&mut self, number: u64) {
        let mut choices = Choices(number);
        let what = choices.below(12);
        let one = self.one.get_or_insert_with(|| Cluster::for_nodes(Some("n1")));
        match what {
            0..8 => {
                let object = choices.object();
                put(&mut self.all, &object);
                put(one, &object);
                self.objects.insert(key(&object), object);
            }
            8 | 9 if !self.objects.is_empty() => {
                let at = choices.below(self.objects.len() as u64) as usize;
                let key = self.objects.keys().nth(at).unwrap().clone();
                self.objects.remove(&key);
                remove(&mut self.all, &key);
                remove(one, &key);
            }
            10 => {
                let node = *choices.of(&NODES);
                self.all.restart(node);
                self.states.remove(node);
            }
            _ => self.take(),
        }
    }

    fn take(&mut self) {
        for (node, updates) in self.all.take() {
            apply(self.states.entry(node).or_default(), &updates);
        }
        if let Some(one) = &mut self.one {
            for (node, updates) in one.take() {
                assert_eq!(&*node, "n1");
                apply(&mut self.of_one, &updates);
            }
        }
    }

    fn check(&mut self) {
        self.take();
        assert!(self.all.take().is_empty(), "what was taken is not taken again");
        let mut anew = Cluster::new();
        self.objects.values().for_each(|object| put(&mut anew, object));
        let empty = State::default();
        for node in NODES {
            let expected = plain(&self.objects, node);
            assert_eq!(self.states.get(node).unwrap_or(&empty), &expected, "what {node} was told");
            assert_eq!(self.all.state(node), expected, "what {node} would be told");
            assert_eq!(anew.state(node), expected, "what {node} would be told by another");
        }
        if self.one.is_some() {
            assert_eq!(self.of_one, plain(&self.objects, "n1"));
        }
    }
}

fn run(changes: &[u64]) {
    let mut followers = Followers::default();
    for (index, change) in changes.iter().enumerate() {
        followers.change(*change);
        if index % 16 == 15 {
            followers.check();
        }
    }
    followers.check();
    // All goes, and nothing stays.
    for key in std::mem::take(&mut followers.objects).into_keys() {
        remove(&mut followers.all, &key);
        if let Some(one) = &mut followers.one {
            remove(one, &key);
        }
    }
    followers.check();
    assert_eq!(followers.all.sizes(), [0; 5]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nodes_that_follow_the_updates_know_what_there_is(changes in proptest::collection::vec(any::<u64>(), 1..120)) {
        run(&changes);
    }
}
