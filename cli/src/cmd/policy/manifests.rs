//! Objects of a cluster from manifests: files of YAML or JSON, lists, folders of them, and standard input.
//!
//! What says nothing about who may reach whom is passed over. Of a Deployment and its like, the Pod of its template stands for
//! all that it would make: it has the name of the workload. Pods and workloads in namespaces that no file has are in namespaces
//! without labels but their names.

use super::namespaced_name;
use crate::failure::Failure;
use crate::kube::Objects;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Longest file that is read, in bytes.
const MAX_LEN: u64 = 256 << 20;
/// Most files that are read.
const MAX_FILES: usize = 10_000;
/// How deep folders are looked into, and lists in lists.
const MAX_DEPTH: usize = 8;

/// What is read.
const KINDS: [&str; 16] = [
    "Pod",
    "Namespace",
    "Node",
    "Service",
    "EndpointSlice",
    "NetworkPolicy",
    "ClusterNetworkPolicy",
    "AdminNetworkPolicy",
    "BaselineAdminNetworkPolicy",
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "ReplicaSet",
    "ReplicationController",
    "Job",
    "CronJob",
];

/// Reads manifests. A namespace that no file has is there if something is in it.
///
/// # Errors
/// A file that cannot be read, or has an object in it that is none.
pub(super) fn read(paths: &[PathBuf]) -> Result<Objects, Failure> {
    let mut objects = Objects::default();
    for file in files(paths)? {
        read_file(&file, &mut objects)?;
    }
    let known: BTreeSet<_> = objects.namespaces.iter().filter_map(|of| of.metadata.name.clone()).collect();
    let used = objects.pods.iter().map(|of| &of.metadata).chain(objects.network.iter().map(|of| &of.metadata));
    let used: BTreeSet<_> = used.map(|of| of.namespace.clone().unwrap_or_else(|| "default".to_owned())).collect();
    for name in used.difference(&known) {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.clone());
        objects.namespaces.push(namespace);
    }
    Ok(objects)
}

/// Puts the later objects in the place of those of the same name. Namespaces that only something is in do not take labels away.
pub(super) fn merge(objects: &mut Objects, later: Objects) {
    fn all<T>(known: &mut Vec<T>, later: Vec<T>, name: impl Fn(&T) -> String) {
        let names: BTreeSet<String> = later.iter().map(&name).collect();
        known.retain(|of| !names.contains(&name(of)));
        known.extend(later);
    }
    let Objects { pods, mut namespaces, nodes, services, slices, network, cluster, admin, baseline } = later;
    namespaces.retain(|of| {
        let is_bare = of.metadata.labels.is_none() && of.metadata.uid.is_none();
        !is_bare || objects.namespaces.iter().all(|known| known.metadata.name != of.metadata.name)
    });
    all(&mut objects.pods, pods, |of| namespaced_name(&of.metadata));
    all(&mut objects.namespaces, namespaces, |of| namespaced_name(&of.metadata));
    all(&mut objects.nodes, nodes, |of| namespaced_name(&of.metadata));
    all(&mut objects.services, services, |of| namespaced_name(&of.metadata));
    all(&mut objects.slices, slices, |of| namespaced_name(&of.metadata));
    all(&mut objects.network, network, |of| namespaced_name(&of.metadata));
    all(&mut objects.cluster, cluster, |of| namespaced_name(&of.metadata));
    all(&mut objects.admin, admin, |of| namespaced_name(&of.metadata));
    all(&mut objects.baseline, baseline, |of| namespaced_name(&of.metadata));
}

/// The files that paths mean, in order; those of folders whose names end as manifests' do.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut all = Vec::new();
    for path in paths {
        if path.is_dir() {
            in_folder(path, 0, &mut all)?;
        } else {
            all.push(path.clone());
        }
        if all.len() > MAX_FILES {
            return Err(Failure::usage(format!("{} has more than {MAX_FILES} files in it", path.display())));
        }
    }
    Ok(all)
}

fn in_folder(folder: &Path, depth: usize, all: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let failed = |error| Failure::usage(format!("cannot read the folder {}: {error}", folder.display()));
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        entries.push(entry.map_err(failed)?.path());
    }
    entries.sort();
    for path in entries {
        let is_manifest = path.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|of| end == *of));
        if path.is_dir() && depth < MAX_DEPTH {
            in_folder(&path, depth + 1, all)?;
        } else if is_manifest && all.len() <= MAX_FILES {
            all.push(path);
        }
    }
    Ok(())
}

fn read_file(path: &Path, objects: &mut Objects) -> Result<(), Failure> {
    let name = path.display();
    let failed = |error: std::io::Error| Failure::usage(format!("cannot read {name}: {error}"));
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin().lock().take(MAX_LEN).read_to_string(&mut text).map_err(failed)?;
    } else {
        fs::File::open(path).map_err(failed)?.take(MAX_LEN).read_to_string(&mut text).map_err(failed)?;
    }
    if text.len() as u64 >= MAX_LEN {
        return Err(Failure::usage(format!("{name} is longer than {MAX_LEN} bytes")));
    }
    let wrong = |why: String| Failure::usage(format!("{name} is no manifest")).why(why);
    let documents: Vec<Value> = if text.trim_start().starts_with('{') {
        let documents = serde_json::Deserializer::from_str(&text).into_iter().collect::<Result<_, _>>();
        documents.map_err(|error: serde_json::Error| wrong(error.to_string()))?
    } else {
        serde_saphyr::from_multiple(&text).map_err(|error| wrong(error.to_string()))?
    };
    for (index, document) in documents.into_iter().enumerate() {
        put(document, objects, 0).map_err(|why| wrong(format!("object {}: {why}", index + 1)))?;
    }
    Ok(())
}

fn of<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let kind = value["kind"].as_str().unwrap_or_default().to_owned();
    serde_json::from_value(value).map_err(|error| format!("{kind} {name}: {error}"))
}

/// Puts an object in, or each of a list.
///
/// # Errors
/// It is none of its kind.
pub(super) fn put(mut value: Value, objects: &mut Objects, depth: usize) -> Result<(), String> {
    if value.is_null() {
        return Ok(());
    }
    let kind = value["kind"].as_str().ok_or("it has no kind")?.to_owned();
    if let Some(items) = value.get_mut("items").filter(|_| kind.ends_with("List") && depth < MAX_DEPTH) {
        let Value::Array(items) = items.take() else { return Ok(()) };
        let of_kind = kind.strip_suffix("List").filter(|kind| !kind.is_empty());
        for mut item in items {
            // Items of a list of one kind need not say it.
            if let (Some(kind), Value::Object(item)) = (of_kind, &mut item) {
                item.entry("kind").or_insert_with(|| kind.into());
            }
            put(item, objects, depth + 1)?;
        }
        return Ok(());
    }
    let is_named = value["metadata"]["name"].as_str().is_some_and(|name| !name.is_empty());
    match kind.as_str() {
        kind if KINDS.contains(&kind) && !is_named => return Err(format!("the {kind} has no name")),
        "Pod" => objects.pods.push(of(value)?),
        "Namespace" => objects.namespaces.push(of(value)?),
        "Node" => objects.nodes.push(of(value)?),
        "Service" => objects.services.push(of(value)?),
        "EndpointSlice" => objects.slices.push(of(value)?),
        "NetworkPolicy" => objects.network.push(of(value)?),
        "ClusterNetworkPolicy" => objects.cluster.push(of(value)?),
        "AdminNetworkPolicy" => objects.admin.push(of(value)?),
        "BaselineAdminNetworkPolicy" => objects.baseline.push(of(value)?),
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" => {
            objects.pods.push(of_template(&value["metadata"], &value["spec"]["template"])?);
        }
        "CronJob" => {
            let template = &value["spec"]["jobTemplate"]["spec"]["template"];
            objects.pods.push(of_template(&value["metadata"], template)?);
        }
        _ => {}
    }
    Ok(())
}

/// The Pod that stands for all that a template makes.
fn of_template(metadata: &Value, template: &Value) -> Result<Pod, String> {
    let mut own = Map::new();
    own.insert("name".to_owned(), metadata["name"].clone());
    own.insert("namespace".to_owned(), metadata["namespace"].clone());
    own.insert("labels".to_owned(), template["metadata"]["labels"].clone());
    of(json!({ "kind": "Pod", "metadata": own, "spec": template["spec"] }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Objects, Failure> {
        let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        fs::write(file.path(), text).unwrap();
        read(&[file.path().to_owned()])
    }

    #[test]
    fn lists_workloads_and_several_documents_are_read_and_the_rest_is_passed_over() {
        let objects = read_text(
            "apiVersion: v1\nkind: List\nitems:\n- {kind: Pod, metadata: {name: a, namespace: x}}\n\
             - {kind: ConfigMap, metadata: {name: c}}\n---\n\
             apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\n\
             spec: {template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c}]}}}\n---\n\
             kind: NetworkPolicyList\nitems: [{metadata: {name: p}, spec: {podSelector: {}}}]\n",
        )
        .unwrap();
        let names: Vec<_> = objects.pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
        assert_eq!(names, ["a", "web"]);
        assert_eq!(objects.pods[1].metadata.labels.as_ref().unwrap()["app"], "web");
        let namespaces: Vec<_> = objects.namespaces.iter().filter_map(|of| of.metadata.name.as_deref()).collect();
        assert_eq!(namespaces, ["default", "shop", "x"]);
        assert_eq!(objects.network.len(), 1);
    }

    #[test]
    fn what_is_no_manifest_is_told_with_its_place() {
        for (text, why) in [
            ("a: [", "is no manifest"),
            ("metadata: {name: x}", "no kind"),
            ("kind: NetworkPolicy\nmetadata: {name: p}\nspec: {podSelector: 3}", "NetworkPolicy p"),
            ("kind: Pod\nmetadata: {}", "no name"),
        ] {
            let failure = read_text(text).unwrap_err();
            assert!(failure.to_string().contains(why), "{failure}");
        }
    }

    #[test]
    fn json_may_be_several_objects_one_after_another() {
        let objects = read_text(
            "{\"kind\":\"Pod\",\"metadata\":{\"name\":\"a\"}}\n{\"kind\":\"Pod\",\"metadata\":{\"name\":\"b\"}}",
        )
        .unwrap();
        assert_eq!(objects.pods.len(), 2);
    }
}
