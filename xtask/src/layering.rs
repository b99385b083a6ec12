//! The layering check: which crate may depend on which. ARCHITECTURE.md draws the arrows; this enforces them.

use crate::command::root;
use anyhow::{Context, Result, ensure};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What one crate of the workspace may build on.
struct Layer {
    name: &'static str,
    /// Crates of the workspace it may depend on; `None` means any.
    may_use: Option<&'static [&'static str]>,
    /// Packages it must not name among its dependencies.
    not_direct: &'static [&'static str],
    /// Packages that must not be reachable at all.
    not_reachable: &'static [&'static str],
}

const KUBE: &[&str] = &["kube", "kube-client", "kube-runtime", "k8s-openapi"];
const IMPURE: &[&str] = &["tokio", "tonic", "hyper", "kube", "kube-client", "nix", "rustix", "mio", "async-trait"];

const LAYERS: &[Layer] = &[
    Layer { name: "sluice-flows", may_use: Some(&[]), not_direct: &["libc"], not_reachable: IMPURE },
    Layer { name: "sluice-proto", may_use: Some(&[]), not_direct: &["tokio"], not_reachable: KUBE },
    Layer {
        name: "sluice-switch",
        may_use: Some(&["sluice-flows", "sluice-proto"]),
        not_direct: &[],
        not_reachable: KUBE,
    },
    Layer {
        name: "sluice-controller",
        may_use: Some(&["sluice-flows", "sluice-proto", "sluice-cni"]),
        not_direct: &[],
        not_reachable: &[],
    },
    Layer { name: "sluice-cni", may_use: Some(&["sluice-proto"]), not_direct: &[], not_reachable: KUBE },
    Layer {
        name: "sluice-cli",
        may_use: Some(&["sluice-flows", "sluice-proto", "sluice-switch", "sluice-cni", "sluice-controller"]),
        not_direct: &["kube-runtime"],
        not_reachable: &[],
    },
    Layer { name: "sluice-benches", may_use: None, not_direct: &[], not_reachable: &[] },
    Layer { name: "sluice-tests", may_use: None, not_direct: &[], not_reachable: &[] },
    Layer { name: "xtask", may_use: Some(&[]), not_direct: &["tokio"], not_reachable: KUBE },
];

/// The folders of the switch where async code may live: the API server and the daemon's main.
const ASYNC_FOLDERS: &[&str] = &["switch/src/api", "switch/src/bin"];

/// Fails with every arrow that runs the wrong way.
pub(crate) fn check() -> Result<()> {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(["--locked".to_owned()])
        .exec()
        .context("cannot read the workspace with `cargo metadata`")?;
    let mut wrong = wrong_arrows(&metadata)?;
    wrong.extend(async_outside_its_folders()?);
    ensure!(wrong.is_empty(), "layering: {} wrong\n  {}", wrong.len(), wrong.join("\n  "));
    println!("layering: {} crates, every arrow runs the right way", metadata.workspace_members.len());
    Ok(())
}

fn wrong_arrows(metadata: &Metadata) -> Result<Vec<String>> {
    let names: BTreeMap<&PackageId, &str> = metadata.packages.iter().map(|p| (&p.id, p.name.as_str())).collect();
    let graph = metadata.resolve.as_ref().context("cargo metadata gave no dependency graph")?;
    let arrows: BTreeMap<&PackageId, Vec<&PackageId>> = graph
        .nodes
        .iter()
        .map(|node| {
            let used = node.deps.iter().filter(|d| d.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal));
            (&node.id, used.map(|d| &d.pkg).collect())
        })
        .collect();
    let members: BTreeSet<&str> = metadata.workspace_members.iter().map(|id| names[id]).collect();
    let mut wrong: Vec<String> = members
        .iter()
        .filter(|name| LAYERS.iter().all(|l| l.name != **name))
        .map(|name| format!("{name} has no layer: add it to xtask/src/layering.rs"))
        .collect();
    for id in &metadata.workspace_members {
        let Some(layer) = LAYERS.iter().find(|l| l.name == names[id]) else { continue };
        for used in arrows[id].iter().map(|d| names[d]) {
            let above = members.contains(used) && layer.may_use.is_some_and(|m| !m.contains(&used));
            if above || layer.not_direct.contains(&used) {
                wrong.push(format!("{} must not depend on {used}", layer.name));
            }
        }
        let reachable = reach(id, &arrows);
        for banned in reachable.iter().map(|d| names[*d]).filter(|n| layer.not_reachable.contains(n)) {
            wrong.push(format!("{} must not reach {banned}, not even through others", layer.name));
        }
    }
    Ok(wrong)
}

/// Every package that `from` is built on.
fn reach<'a>(from: &'a PackageId, arrows: &BTreeMap<&'a PackageId, Vec<&'a PackageId>>) -> BTreeSet<&'a PackageId> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from];
    while let Some(id) = open.pop() {
        for next in arrows.get(id).into_iter().flatten() {
            if seen.insert(*next) {
                open.push(next);
            }
        }
    }
    seen
}

/// Async code in the switch outside [`ASYNC_FOLDERS`]: the packet's way has none.
fn async_outside_its_folders() -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let mut folders = vec![root().join("switch/src")];
    while let Some(folder) = folders.pop() {
        if ASYNC_FOLDERS.iter().any(|f| folder == root().join(f)) {
            continue;
        }
        for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if is_async(&path)? {
                let shown = path.strip_prefix(root()).unwrap_or(&path).display();
                wrong.push(format!("{shown} uses async code: only {} may", ASYNC_FOLDERS.join(" and ")));
            }
        }
    }
    Ok(wrong)
}

fn is_async(path: &Path) -> Result<bool> {
    if path.extension().is_none_or(|e| e != "rs") {
        return Ok(false);
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.lines().any(|line| {
        let code = line.split("//").next().unwrap_or(line);
        ["tokio::", "async fn", "async move", ".await"].iter().any(|word| code.contains(word))
    }))
}
