//! `sluice policy diff`: what changed manifests would open and close.
//!
//! Both worlds, as it is and as it would be, are asked about every pair of workloads that a changed policy is about, at every port
//! that counts there. Pods that policies cannot tell apart, by what there is and by what there would be, are one workload, so
//! the answer for one of them is that for all.
//!
//! # Limits
//! [`MAX_WORKLOADS`] workloads and [`MAX_QUESTIONS`] questions; what is left out is told. Networks in rules tell Pods apart up to
//! [`MAX_NETS`] of them.

mod ends;
mod table;
#[cfg(test)]
mod tests;

use super::world::{End, To, World, connection, pairs};
use super::{Source, manifests, namespaced_name};
use crate::failure::Failure;
use crate::kube::Objects;
use crate::output::{Exit, Format, Output};
use clap::Args;
use ends::{Group, Ports};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use sluice_controller::facts::policy::{Direction, Policy, PolicyKind, PolicyName};
use sluice_controller::policy::{Judge, Subject};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Arguments of `sluice policy diff`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice policy diff db.yaml                        what applying it would open and close
  sluice policy diff policies/                      the manifests of a folder
  sluice policy diff --delete shop/db               what deleting a policy would do
  sluice policy diff db.yaml --delete cnp:guard     both at once
  sluice policy diff db.yaml --from cluster.yaml    of files, without a cluster

Workloads stand for all Pods of theirs that policies cannot tell apart; `all else` is every port
that is not named, and ping. Exit code 1 means that something would open or close.")]
pub(crate) struct Diff {
    /// Manifests that would be applied
    #[arg(value_name = "FILE", required_unless_present = "delete")]
    files: Vec<PathBuf>,
    /// A policy that would be deleted: NS/NAME, cnp:NAME, anp:NAME or banp:NAME; may be said again
    #[arg(long, value_name = "POLICY")]
    delete: Vec<String>,
    #[command(flatten)]
    source: Source,
}

/// Most workloads that are looked at.
const MAX_WORKLOADS: usize = 2_000;
/// Most questions that are asked of each world.
const MAX_QUESTIONS: usize = 1_000_000;
/// Most networks that tell Pods apart.
const MAX_NETS: usize = 512;

/// How a policy differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    New,
    Changed,
    Deleted,
}

impl How {
    const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Changed => "changed",
            Self::Deleted => "deleted",
        }
    }
}

/// What opens and what closes from one workload to another.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Change {
    opens: Vec<String>,
    closes: Vec<String>,
}

/// All that differs.
#[derive(Debug, Default)]
struct Difference {
    policies: BTreeMap<PolicyName, How>,
    /// From, to, what.
    changes: Vec<(String, String, Change)>,
    /// Pairs that were looked at.
    pairs: usize,
    /// What was left out, in words.
    cut: Vec<String>,
}

/// Runs the verb.
pub(super) fn run(args: &Diff, out: &mut Output) -> Result<Exit, Failure> {
    let json = out.format(&[Format::Table, Format::Json])? == Format::Json;
    let before = args.source.world()?;
    let mut objects = before.objects.clone();
    for name in &args.delete {
        delete(&mut objects, &before.policy(name)?);
    }
    manifests::merge(&mut objects, manifests::read(&args.files)?);
    let after = World::new(objects);
    let difference = difference(&before, &after);
    let notes = difference.policies.keys().flat_map(|name| {
        let notes = after.cluster.notes(name).iter();
        notes.map(move |note| format!("{name}: {note}"))
    });
    let notes: Vec<String> = notes.collect();
    let (opens, closes) = (count(&difference, |of| &of.opens), count(&difference, |of| &of.closes));
    let rows = table::rows(&difference.changes);
    if json {
        let policies = difference.policies.iter().map(|(name, how)| (name.to_string(), how.name()));
        out.json(&json!({
            "policies": policies.collect::<BTreeMap<_, _>>(),
            "changes": rows.iter().map(table::Row::json).collect::<Vec<_>>(),
            "pairs": difference.pairs, "opens": opens, "closes": closes,
            "left_out": difference.cut, "notes": notes,
        }))?;
    } else {
        for (name, how) in &difference.policies {
            out.line(format!("{name}: {}", how.name()))?;
        }
        if difference.policies.is_empty() {
            out.line("no policy would change")?;
        }
        table::write(&rows, out)?;
        out.line(format!(
            "{} pairs of workloads: {opens} would open something, {closes} close something",
            difference.pairs
        ))?;
        for note in &notes {
            out.line(format!("note: {note}"))?;
        }
        for cut in &difference.cut {
            out.talk(format!("left out: {cut}"))?;
        }
    }
    Ok(if difference.changes.is_empty() { Exit::Yes } else { Exit::No })
}

fn count(difference: &Difference, of: impl Fn(&Change) -> &Vec<String>) -> usize {
    difference.changes.iter().filter(|(_, _, change)| !of(change).is_empty()).count()
}

fn delete(objects: &mut Objects, name: &PolicyName) {
    let is_it = |metadata: &ObjectMeta| metadata.name.as_deref() == Some(&name.name);
    match name.kind {
        PolicyKind::NetworkPolicy => {
            let full = format!("{}/{}", name.namespace, name.name);
            objects.network.retain(|of| namespaced_name(&of.metadata) != full);
        }
        PolicyKind::ClusterNetworkPolicy => objects.cluster.retain(|of| !is_it(&of.metadata)),
        PolicyKind::AdminNetworkPolicy => objects.admin.retain(|of| !is_it(&of.metadata)),
        PolicyKind::BaselineAdminNetworkPolicy => objects.baseline.retain(|of| !is_it(&of.metadata)),
    }
}

fn policies(before: &World, after: &World) -> BTreeMap<PolicyName, How> {
    let names: BTreeSet<_> = before.cluster.policies().chain(after.cluster.policies()).cloned().collect();
    let how = |name: PolicyName| {
        // A policy without a reading is about nobody, and only its notes can differ.
        let (was, is) = (before.cluster.policy(&name), after.cluster.policy(&name));
        let was_there = was.is_some() || !before.cluster.notes(&name).is_empty();
        let is_there = is.is_some() || !after.cluster.notes(&name).is_empty();
        let how = match (was_there, is_there) {
            (false, _) => How::New,
            (_, false) => How::Deleted,
            _ if was.map(gist) == is.map(gist) => return None,
            _ => How::Changed,
        };
        Some((name, how))
    };
    names.into_iter().filter_map(how).collect()
}

/// A policy but for its generation.
fn gist(policy: &Arc<Policy>) -> Policy {
    Policy { generation: 0, ..(**policy).clone() }
}

fn difference(before: &World, after: &World) -> Difference {
    let mut all = Difference { policies: policies(before, after), ..Difference::default() };
    let changed: Vec<PolicyName> = all.policies.keys().cloned().collect();
    let mut groups = ends::groups(before, after, &changed);
    if groups.len() > MAX_WORKLOADS {
        // Those that a changed policy is about first.
        groups.sort_by_key(|group| !group.is_concerned());
        all.cut.push(format!("{} of {} workloads", groups.len() - MAX_WORKLOADS, groups.len()));
        groups.truncate(MAX_WORKLOADS);
    }
    let ports = Ports::new(before, after, &changed);
    let (was, is) = (Judge::new(&before.state), Judge::new(&after.state));
    let sides: Vec<Side<'_>> = groups.iter().map(|group| Side::new(&was, &is, group)).collect();
    let mut left = MAX_QUESTIONS;
    let mut skipped = 0;
    for from in &sides {
        for to in &sides {
            if !(from.group.in_egress || to.group.in_ingress) || !from.group.can_reach(to.group) {
                continue;
            }
            let questions = ports.of(to.group);
            let Some(rest) = left.checked_sub(questions.len()) else {
                skipped += 1;
                continue;
            };
            left = rest;
            all.pairs += 1;
            let change = change(from, to, &questions);
            if change != Change::default() {
                all.changes.push((from.group.name.clone(), to.group.name.clone(), change));
            }
        }
    }
    if skipped > 0 {
        all.cut.push(format!("{skipped} pairs of workloads, as there are too many questions"));
    }
    all
}

/// A workload in both worlds; without subjects where it is no Pod.
struct Side<'a> {
    group: &'a Group,
    was: Option<Subject<'a>>,
    is: Option<Subject<'a>>,
}

impl<'a> Side<'a> {
    fn new(was: &'a Judge<'a>, is: &'a Judge<'a>, group: &'a Group) -> Self {
        let of = |judge: &'a Judge<'a>| group.end.pod.as_ref().map(|pod| judge.subject(pod));
        Self { group, was: of(was), is: of(is) }
    }
}

/// What of the questions is answered otherwise.
fn change(from: &Side<'_>, to: &Side<'_>, questions: &[(String, To)]) -> Change {
    let (source, target) = (&from.group.end, to.group.seen_from(from.group));
    let pairs = pairs(source, target);
    let mut change = Change::default();
    for (label, at) in questions {
        let (mut opened, mut closed) = (Vec::new(), Vec::new());
        for pair in &pairs {
            let was = allows((source, from.was.as_ref()), (target, to.was.as_ref()), *pair, *at);
            let is = allows((source, from.is.as_ref()), (target, to.is.as_ref()), *pair, *at);
            match (was, is) {
                (false, true) => opened.push(pair.0),
                (true, false) => closed.push(pair.0),
                _ => {}
            }
        }
        for (labels, by) in [(&mut change.opens, opened), (&mut change.closes, closed)] {
            match by.as_slice() {
                [] => {}
                [one] if pairs.len() > 1 => {
                    labels.push(format!("{label} by {}", if one.is_ipv4() { "IPv4" } else { "IPv6" }));
                }
                _ => labels.push(label.clone()),
            }
        }
    }
    Change { opens: table::gathered(change.opens, questions), closes: table::gathered(change.closes, questions) }
}

/// An end, and the policies that are about it.
type Asked<'s, 'a> = (&'s End, Option<&'s Subject<'a>>);

fn allows(from: Asked<'_, '_>, to: Asked<'_, '_>, pair: (IpAddr, IpAddr), at: To) -> bool {
    let accepts = |direction, subject: &Subject<'_>| {
        subject.verdict(direction, &connection(direction, from.0, to.0, pair, at)).is_accepted
    };
    from.1.is_none_or(|subject| accepts(Direction::Egress, subject))
        && to.1.is_none_or(|subject| accepts(Direction::Ingress, subject))
}
