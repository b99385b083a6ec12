//! The status of a cluster: what `sluice status` says on every node, a line for each, and what only the API server knows: nodes
//! without a Pod of Sluice, nodes that are not Ready, containers that do not run, versions that differ.

use super::node::POD;
use super::{Answer, Part, StatusArgs};
use crate::failure::Failure;
use crate::kube::{self, Answers, Cluster, DAEMON_SET, Member, NAMESPACE, NodeState};
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What runs beside each switch.
const COMMAND: &[&str] = &["sluice", "status", "-o", "json"];
/// What is told of a node that is well.
const FACTS: [&str; 5] = ["pods", "flows", "tunnels", "conntrack", "drops"];

/// All that is known of a cluster.
pub(super) struct Look {
    answers: Answers<Answer>,
    asked: usize,
    /// What the API server knows is wrong, by node; for the cluster as a whole without one.
    faults: Vec<(Option<String>, Part)>,
}

#[derive(Serialize)]
struct All<'a> {
    nodes: Vec<Node<'a>>,
    /// What is wrong with the cluster as a whole.
    parts: Vec<&'a Part>,
    answered: usize,
    asked: usize,
}

#[derive(Serialize)]
struct Node<'a> {
    node: &'a str,
    well: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    parts: Vec<&'a Part>,
}

/// What the switch beside a Pod says.
pub(super) fn ask(cluster: &Cluster, member: &Member) -> Result<Answer, Failure> {
    let said = cluster.run(member, COMMAND)?;
    let mut answer: Answer = serde_json::from_str(&said.out).map_err(|error| {
        let why = said.why().unwrap_or_else(|| error.to_string());
        Failure::new(format!("node {} gave no status", member.node))
            .why(why)
            .next(format!("kubectl -n {NAMESPACE} logs {} -c sluiced", member.pod))
            .exit(Exit::NoDaemon)
    })?;
    for next in answer.parts.iter_mut().filter_map(|part| part.next.as_mut()) {
        *next = next.replace(POD, &member.pod);
    }
    Ok(answer)
}

impl Look {
    /// Asks all nodes that are meant, and the API server of them.
    pub(super) fn at(args: &StatusArgs, cluster: &Cluster) -> Result<Self, Failure> {
        let node = args.target.cluster.node.as_deref().filter(|node| *node != "all");
        let members = cluster.chosen(node)?;
        let answers = kube::sorted(&members, kube::each(&members, |member| ask(cluster, member)));
        let nodes = cluster.nodes()?.unwrap_or_default();
        let nodes: Vec<_> = nodes.into_iter().filter(|one| node.is_none_or(|node| one.name == node)).collect();
        let mut faults = of_nodes(&nodes, &members);
        faults.extend(of_pods(&members));
        let versions =
            |(node, answer): &(Option<String>, Answer)| (node.clone().unwrap_or_default(), answer.version.clone());
        faults.extend(skew(&members, &answers.all.iter().map(versions).collect()).map(|part| (None, part)));
        Ok(Self { answers, asked: members.len(), faults })
    }

    pub(super) fn is_well(&self) -> bool {
        self.faults.is_empty() && self.answers.silent.is_empty() && self.answers.all.iter().all(|(_, a)| a.is_well())
    }

    /// Prints a line for each node, and gives the exit code.
    pub(super) fn tell(self, out: &mut Output) -> Result<Exit, Failure> {
        let unwell = !self.faults.is_empty() || self.answers.all.iter().any(|(_, answer)| !answer.is_well());
        let exit = if unwell { Exit::Unhealthy } else { Exit::Yes };
        if out.format(&[Format::Table, Format::Json])? == Format::Json {
            out.json(&self.json())?;
        } else {
            out.table(&self.table())?;
        }
        let answered = self.answers.all.len();
        out.talk(format!("{answered}/{} nodes answered", self.asked))?;
        Ok(match (answered, self.answers.silent.len()) {
            (_, 0) => exit,
            (0, _) => Exit::NoDaemon,
            _ => Exit::Partial,
        })
    }

    fn faults_of<'a>(&'a self, node: Option<&'a str>) -> impl Iterator<Item = &'a Part> {
        self.faults.iter().filter(move |(of, _)| of.as_deref() == node).map(|(_, part)| part)
    }

    fn json(&self) -> All<'_> {
        let mut nodes: BTreeMap<&str, Node<'_>> = BTreeMap::new();
        for (node, answer) in &self.answers.all {
            let node = node.as_deref().unwrap_or_default();
            nodes
                .insert(node, Node { node, well: answer.is_well(), error: None, parts: answer.parts.iter().collect() });
        }
        for (node, failure) in &self.answers.silent {
            nodes.insert(node, Node { node, well: false, error: Some(failure.to_string()), parts: Vec::new() });
        }
        for (node, part) in &self.faults {
            let Some(node) = node.as_deref() else { continue };
            let entry = nodes.entry(node).or_insert(Node { node, well: false, error: None, parts: Vec::new() });
            entry.well = false;
            entry.parts.push(part);
        }
        let parts = self.faults_of(None).collect();
        All { nodes: nodes.into_values().collect(), parts, answered: self.answers.all.len(), asked: self.asked }
    }

    /// What is not well first: of the cluster, then of nodes, each thing on a line with what to do below it.
    fn table(&self) -> Table {
        let mut table = Table::new(["NODE", "STATE", ""]);
        let mut bad = |name: &str, state: &str, text: &str, next: Option<&str>| {
            table.row([Cell::from(name), Cell::from(state).tone(Tone::Bad), text.into()]);
            if let Some(next) = next {
                table.row(["".to_owned(), String::new(), format!("next: {next}")]);
            }
        };
        for part in self.faults_of(None) {
            bad("", "bad", &format!("{}: {}", part.name, part.detail), part.next.as_deref());
        }
        let answered = |node: &Option<String>| node.as_deref().unwrap_or("-").to_owned();
        let with_faults: BTreeSet<String> = self
            .answers
            .silent
            .iter()
            .map(|(node, _)| node.clone())
            .chain(self.faults.iter().filter_map(|(node, _)| node.clone()))
            .chain(self.answers.all.iter().filter(|(_, answer)| !answer.is_well()).map(|(node, _)| answered(node)))
            .collect();
        for node in &with_faults {
            let mut name = node.as_str();
            for (_, failure) in self.answers.silent.iter().filter(|(silent, _)| silent == node) {
                let why = failure.to_string().replace("error: ", "");
                let mut lines = why.lines().map(str::trim);
                bad(name, "silent", lines.next().unwrap_or_default(), None);
                lines.for_each(|line| bad("", "", line, None));
                name = "";
            }
            let answer = self.answers.all.iter().find(|(of, _)| of.as_ref() == Some(node));
            let parts = answer.iter().flat_map(|(_, answer)| answer.parts.iter().filter(|part| !part.ok));
            for part in self.faults_of(Some(node)).chain(parts) {
                bad(name, "bad", &format!("{}: {}", part.name, part.detail), part.next.as_deref());
                name = "";
            }
        }
        for (node, answer) in &self.answers.all {
            let name = answered(node);
            if with_faults.contains(&name) {
                continue;
            }
            let told = answer.parts.iter().filter(|part| FACTS.contains(&part.name.as_str()));
            let told: Vec<_> = told.map(|part| format!("{}: {}", part.name, part.detail)).collect();
            table.row([Cell::from(name), Cell::from("ok").tone(Tone::Good), told.join("; ").into()]);
        }
        table
    }
}

/// Nodes that are not Ready, and those that have no Pod of ours.
fn of_nodes(nodes: &[NodeState], members: &[Member]) -> Vec<(Option<String>, Part)> {
    let mut faults = Vec::new();
    for node in nodes {
        if !members.iter().any(|member| member.node == node.name) {
            let what = "no Pod of Sluice is on it: its Pods have no network".to_owned();
            let next =
                format!("kubectl -n {NAMESPACE} describe daemonset {DAEMON_SET}; is it selected (kubernetes.io/os)?");
            faults.push((Some(node.name.clone()), Part::bad("pod", what, &next)));
        }
        if !node.unready.is_empty() {
            let next = format!("kubectl describe node {}", node.name);
            let part = Part::bad("node", format!("not Ready: {}", node.unready), &next);
            faults.push((Some(node.name.clone()), part));
        }
    }
    faults
}

/// Containers that do not run beside the switch's, which are told as silence.
fn of_pods(members: &[Member]) -> Vec<(Option<String>, Part)> {
    let of = |member: &Member, container: &str, why: &str| {
        let next = format!("kubectl -n {NAMESPACE} logs {} -c {container} --previous", member.pod);
        let part = Part::bad("pod", format!("the container {container} does not run: {why}"), &next);
        (Some(member.node.clone()), part)
    };
    members.iter().flat_map(|m| m.beside.iter().map(move |(container, why)| of(m, container, why))).collect()
}

/// Nodes that run another version, or another image of the same.
fn skew(members: &[Member], versions: &BTreeMap<String, String>) -> Option<Part> {
    let mut kinds: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for member in members.iter().filter(|member| member.ready().is_ok()) {
        let Some(version) = versions.get(&member.node) else { continue };
        kinds.entry((version, &member.image)).or_default().push(&member.node);
    }
    if kinds.len() < 2 {
        return None;
    }
    let told = kinds.iter().map(|((version, image), nodes)| {
        let digest = image.rsplit_once("sha256:").map_or(*image, |(_, digest)| digest.get(..12).unwrap_or(digest));
        format!("{version} ({digest}) on {}", few(nodes))
    });
    let what = format!("nodes run different images: {}", told.collect::<Vec<_>>().join(", "));
    let next = format!("an update under way? kubectl -n {NAMESPACE} rollout status daemonset/{DAEMON_SET}");
    Some(Part::bad("version", what, &next))
}

/// The first of many names.
fn few(names: &[&str]) -> String {
    match names {
        [a, b, c, _, ..] => format!("{a}, {b}, {c} and {} more", names.len() - 3),
        names => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: &str, image: &str) -> Member {
        Member { image: format!("localhost/sluice@sha256:{image}"), ..Member::named(node) }
    }

    #[test]
    fn a_node_without_a_pod_of_sluice_and_one_that_is_not_ready_are_named() {
        let node = |name: &str, unready: &str| NodeState { name: name.to_owned(), unready: unready.to_owned() };
        let nodes = [node("node-1", ""), node("node-2", "Kubelet stopped posting"), node("node-3", "")];
        let faults = of_nodes(&nodes, &[member("node-1", "1"), member("node-2", "1")]);
        let told: Vec<_> = faults.iter().map(|(node, part)| (node.as_deref().unwrap(), part.told())).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].0 == "node-2" && told[0].1.contains("Kubelet stopped posting"), "{told:?}");
        assert!(told[1].0 == "node-3" && told[1].1.contains("no Pod of Sluice"), "{told:?}");
    }

    #[test]
    fn nodes_with_different_images_are_told_apart_and_silent_ones_are_not_counted() {
        let versions = |all: &[(&str, &str)]| all.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let members = [member("node-1", "aa"), member("node-2", "aa"), member("node-3", "bb")];
        assert_eq!(skew(&members, &versions(&[("node-1", "1"), ("node-2", "1")])).map(|p| p.told()), None);
        let told = skew(&members, &versions(&[("node-1", "1"), ("node-2", "1"), ("node-3", "1")])).unwrap().told();
        assert!(told.contains("1 (aa) on node-1, node-2, 1 (bb) on node-3"), "{told}");
        assert!(skew(&members[..2], &versions(&[("node-1", "1"), ("node-2", "2")])).is_some());
    }
}
