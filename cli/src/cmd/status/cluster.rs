//! The status of every node of a cluster: what `sluice status` says there, a line for each.

use super::{Answer, Part, StatusArgs};
use crate::failure::Failure;
use crate::kube::{self, Cluster, Member};
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use serde::Serialize;

/// What runs beside each switch.
const COMMAND: &[&str] = &["sluice", "status", "-o", "json"];

#[derive(Serialize)]
struct All<'a> {
    nodes: Vec<Node<'a>>,
    answered: usize,
    asked: usize,
}

#[derive(Serialize)]
struct Node<'a> {
    node: &'a str,
    well: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    parts: &'a [Part],
}

/// What the switch beside a Pod says.
pub(super) fn ask(cluster: &Cluster, member: &Member) -> Result<Answer, Failure> {
    let said = cluster.run(member, COMMAND)?;
    serde_json::from_str(&said.out).map_err(|error| {
        let why = if said.err.trim().is_empty() { error.to_string() } else { said.err.trim().replace('\n', ";") };
        Failure::new(format!("node {} gave no status", member.node)).why(why).exit(Exit::NoDaemon)
    })
}

/// Prints a line for each node.
pub(super) fn run(args: &StatusArgs, cluster: &Cluster, out: &mut Output) -> Result<Exit, Failure> {
    let json = out.format(&[Format::Table, Format::Json])? == Format::Json;
    let members = cluster.chosen(args.target.cluster.node.as_deref())?;
    let answers = kube::sorted(&members, kube::each(&members, |member| ask(cluster, member)));
    let unwell = answers.all.iter().any(|(_, answer)| !answer.is_well());
    let exit = if unwell { Exit::Unhealthy } else { Exit::Yes };
    if json {
        let nodes = answers.all.iter().map(|(node, answer)| Node {
            node: node.as_deref().unwrap_or_default(),
            well: answer.is_well(),
            error: None,
            parts: &answer.parts,
        });
        let silent = answers.silent.iter().map(|(node, failure)| Node {
            node,
            well: false,
            error: Some(failure.to_string()),
            parts: &[],
        });
        let (answered, asked) = (answers.all.len(), members.len());
        out.json(&All { nodes: nodes.chain(silent).collect(), answered, asked })?;
    } else {
        out.table(&table(&answers))?;
    }
    answers.end(exit, out)
}

/// Nodes that are not well first, each of their bad parts on a line.
fn table(answers: &kube::Answers<Answer>) -> Table {
    let mut table = Table::new(["NODE", "STATE", ""]);
    for (node, failure) in &answers.silent {
        let why = failure.to_string().replace("error: ", "").replace("\n  ", "; ");
        table.row([Cell::from(node.as_str()), Cell::from("silent").tone(Tone::Bad), why.into()]);
    }
    let (well, unwell): (Vec<_>, Vec<_>) = answers.all.iter().partition(|(_, answer)| answer.is_well());
    for (node, answer) in unwell {
        let mut name = node.as_deref().unwrap_or("-");
        for part in answer.parts.iter().filter(|part| !part.ok) {
            table.row([Cell::from(name), Cell::from("bad").tone(Tone::Bad), part.told().into()]);
            name = "";
        }
    }
    for (node, answer) in well {
        let facts = ["pods", "flows", "tunnels", "conntrack", "drops"];
        let told = answer.parts.iter().filter(|part| facts.contains(&part.name.as_str()));
        let told: Vec<_> = told.map(|part| format!("{}: {}", part.name, part.detail)).collect();
        let name = node.as_deref().unwrap_or("-");
        table.row([Cell::from(name), Cell::from("ok").tone(Tone::Good), told.join("; ").into()]);
    }
    table
}
