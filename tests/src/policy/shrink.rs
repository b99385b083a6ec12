//! Making a cluster small while a fault stays.

use super::objects::Object;
use super::probes::Probe;
use super::world::{End, World, name_of, pod_addresses};
use serde_json::Value;

impl World {
    /// The smallest cluster that is reached by taking away objects, then parts of policies, then labels, one at a time,
    /// such that `fails` still says so of it. The ends of `probe` are always there.
    pub fn shrunk(&self, probe: &Probe, mut fails: impl FnMut(&Self) -> bool) -> Self {
        let mut world = self.clone();
        loop {
            let smaller = world
                .smaller()
                .into_iter()
                .find(|candidate| candidate.has(&probe.from) && candidate.has(&probe.to) && fails(candidate));
            match smaller {
                Some(smaller) => world = smaller,
                None => return world,
            }
        }
    }

    /// Whether an end can be asked about.
    pub fn has(&self, end: &End) -> bool {
        match end {
            End::Pod { namespace, name, address } => self.pods().any(|pod| {
                name_of(&pod.metadata.namespace) == namespace
                    && name_of(&pod.metadata.name) == name
                    && pod_addresses(pod).contains(address)
            }),
            End::Host { node, .. } => self.nodes().any(|of| name_of(&of.metadata.name) == node),
            End::Address(_) => true,
        }
    }

    /// All clusters that have one thing less.
    fn smaller(&self) -> Vec<Self> {
        let mut found = Vec::new();
        for index in 0..self.objects.len() {
            let inhabited = |name: &str| self.objects.iter().any(|of| of.metadata().namespace.as_deref() == Some(name));
            let object = &self.objects[index];
            // A namespace goes last: nothing lives outside one.
            if !matches!(object, Object::Namespace(_)) || !inhabited(name_of(&object.metadata().name)) {
                let mut world = self.clone();
                world.objects.remove(index);
                found.push(world);
            }
        }
        for (index, object) in self.objects.iter().enumerate() {
            for smaller in without_a_part(&object.write()) {
                if let Ok(smaller) = Object::read(smaller) {
                    let mut world = self.clone();
                    world.objects[index] = smaller;
                    found.push(world);
                }
            }
        }
        found
    }
}

/// Lists that may become empty: an empty one is none, and where none says more than some it is tried all the same.
const MAY_BE_EMPTY: [&str; 6] = ["ingress", "egress", "except", "matchExpressions", "ports", "protocols"];
/// Maps that are tried without each of their keys.
const MAPS: [&str; 2] = ["labels", "matchLabels"];

/// All values that have an element of a list or a label less.
fn without_a_part(value: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    without("", value, &mut found);
    found
}

fn without(key: &str, value: &Value, found: &mut Vec<Value>) {
    match value {
        Value::Object(fields) => {
            if MAPS.contains(&key) {
                for gone in fields.keys().filter(|key| *key != "kubernetes.io/metadata.name") {
                    let mut fields = fields.clone();
                    fields.remove(gone);
                    found.push(Value::Object(fields));
                }
                return;
            }
            for (name, field) in fields.iter().filter(|(name, _)| *name != "status") {
                let mut parts = Vec::new();
                without(name, field, &mut parts);
                for part in parts {
                    let mut fields = fields.clone();
                    fields.insert(name.clone(), part);
                    found.push(Value::Object(fields));
                }
            }
        }
        Value::Array(items) => {
            if items.len() > 1 || MAY_BE_EMPTY.contains(&key) {
                for index in 0..items.len() {
                    let mut items = items.clone();
                    items.remove(index);
                    found.push(Value::Array(items));
                }
            }
            for (index, item) in items.iter().enumerate() {
                let mut parts = Vec::new();
                without("", item, &mut parts);
                for part in parts {
                    let mut items = items.clone();
                    items[index] = part;
                    found.push(Value::Array(items));
                }
            }
        }
        _ => {}
    }
}
