//! The Helm chart makes what the kustomize base says.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use serde_json::{Map, Value};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The version of Kubernetes that templates are for.
const KUBERNETES: &str = "1.34.0";

/// Helm and the clusters' multi-call program; `None` where they are not, which is said.
fn programs(test: &str) -> Option<(PathBuf, PathBuf)> {
    let suite = std::env::current_exe().unwrap();
    let helm = suite.parent().and_then(Path::parent).unwrap().join("../tools/helm");
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"));
    let kube = cache.join("sluice-cluster/kit/kube");
    let missing = [&helm, &kube].into_iter().find(|program| !program.exists());
    if let Some(missing) = missing {
        let missing = missing.display();
        _ = writeln!(io::stderr(), "skipped: {test}: no {missing}: `xtask/setup.sh` builds it where it finds Go");
        return None;
    }
    Some((helm, kube))
}

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

/// What a program prints; it succeeds.
fn say(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The objects of a text by kind and name, without what the two ways of installing name differently.
fn objects(text: &str) -> Map<String, Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    let mut out = Map::new();
    for mut object in documents.into_iter().filter(Value::is_object) {
        let kind = object["kind"].as_str().unwrap().to_owned();
        // Helm makes the namespace itself (`--create-namespace`), and what is in it says so only where it must.
        if kind == "Namespace" {
            continue;
        }
        object["metadata"].as_object_mut().unwrap().remove("namespace");
        // Kustomize says by a name, Helm by an annotation that the files have changed.
        if kind == "ConfigMap" && object.get("data").is_some() {
            object["metadata"]["name"] = "sluice".into();
            for file in object["data"].as_object_mut().unwrap().values_mut() {
                *file = file.as_str().unwrap().trim().into();
            }
        }
        if let Some(pod) = object.pointer_mut("/spec/template") {
            let metadata = pod["metadata"].as_object_mut().unwrap();
            if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.remove("sluice/config");
                if annotations.is_empty() {
                    metadata.remove("annotations");
                }
            }
            for list in ["initContainers", "containers"] {
                for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                    container["image"] =
                        container["image"].as_str().unwrap().replace("localhost/sluice:dev", "sluice").into();
                }
            }
            for volume in pod["spec"]["volumes"].as_array_mut().unwrap() {
                if volume["name"] == "config" {
                    volume["configMap"]["name"] = "sluice".into();
                }
            }
        }
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        out.insert(format!("{kind} {name}"), object);
    }
    out
}

fn template(helm: &Path, more: &[&str]) -> String {
    let mut command = Command::new(helm);
    command.args(["template", "sluice"]).arg(deploy("chart"));
    say(command.args(["--namespace", "sluice-system", "--kube-version", KUBERNETES]).args(more))
}

#[test]
fn the_chart_makes_what_the_base_says() {
    let Some((helm, kube)) = programs("the_chart_makes_what_the_base_says") else { return };
    say(Command::new(&helm).args(["lint", "--strict"]).arg(deploy("chart")));
    let base = objects(&say(Command::new(kube).args(["kubectl", "kustomize"]).arg(deploy("base"))));
    let chart = objects(&template(&helm, &[]));
    assert_eq!(chart.keys().collect::<Vec<_>>(), base.keys().collect::<Vec<_>>());
    for (name, object) in &base {
        assert_eq!(&chart[name], object, "{name}");
    }
}

#[test]
fn the_cluster_role_of_the_chart_is_what_the_component_says() {
    let Some((helm, kube)) = programs("the_cluster_role_of_the_chart_is_what_the_component_says") else { return };
    let folder = tempfile::tempdir_in(deploy("overlays")).unwrap();
    let overlay = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: sluice-system\n\
                   resources: [../../base]\ncomponents: [../../components/cluster]\n";
    std::fs::write(folder.path().join("kustomization.yaml"), overlay).unwrap();
    let made = say(Command::new(kube).args(["kubectl", "kustomize"]).arg(folder.path()));
    // The Pod has the nodes' configuration, by whatever name that has.
    let config =
        made.lines().find_map(|line| line.trim().strip_prefix("name: sluice-").filter(|name| name.len() == 10));
    assert!(config.is_some_and(|hash| made.matches(&format!("name: sluice-{hash}")).count() >= 3), "{made}");
    let component = objects(&made);
    let chart = objects(&template(&helm, &["--set", "cluster.enabled=true"]));
    assert_eq!(chart.keys().collect::<Vec<_>>(), component.keys().collect::<Vec<_>>());
    for (name, object) in &component {
        assert_eq!(&chart[name], object, "{name}");
    }
    let without = objects(&template(&helm, &[]));
    assert!(without.keys().all(|name| !name.ends_with("sluice-cluster")), "{:?}", without.keys());
}

#[test]
fn values_of_the_chart_arrive() {
    let Some((helm, _)) = programs("values_of_the_chart_arrive") else { return };
    let said = ["--set", "image.tag=1.2", "--set", "node.mode=hybrid", "--set", "paths.cniBin=/var/lib/cni/bin"];
    let made = objects(&template(&helm, &said));
    let config = &made["ConfigMap sluice"]["data"]["node.toml"];
    assert!(config.as_str().unwrap().contains("mode = \"hybrid\""), "{config}");
    let pod = &made["DaemonSet sluice"]["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["image"], "localhost/sluice:1.2");
    let bin = pod["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == "cni-bin").unwrap();
    assert_eq!(bin["hostPath"]["path"], "/var/lib/cni/bin");

    let mut wrong = Command::new(&helm);
    wrong.args(["template", "sluice"]).arg(deploy("chart")).args([
        "--kube-version",
        KUBERNETES,
        "--set",
        "node.mode=fast",
    ]);
    let output = wrong.output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("mode"), "{output:?}");
}
