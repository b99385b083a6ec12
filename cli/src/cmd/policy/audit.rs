//! `sluice policy audit`.

use super::world::World;
use super::{Source, owner};
use crate::client::Client;
use crate::failure::Failure;
use crate::kube::{Answers, Cluster, each, sorted};
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::json;
use sluice_controller::facts::policy::{Action, Policy, PolicyName};
use sluice_controller::policy::{AUDIT, RuleName};
use sluice_proto::v1::Flow;
use std::collections::BTreeMap;

/// Arguments of `sluice policy audit`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice policy audit                     what policies under audit would have dropped, by rule
  sluice policy audit shop/db             of one policy
  sluice policy audit shop/db on          it drops nothing, and counts what it would drop
  sluice policy audit shop/db off         it is in force again

A policy is under audit by its annotation sluice.dev/audit: \"true\". What it would drop goes on to
the policies that are asked next. Apply a new policy with the annotation, look, and take it away.")]
pub(crate) struct Audit {
    /// The policy: NS/NAME, cnp:NAME, anp:NAME or banp:NAME
    #[arg(value_name = "POLICY")]
    policy: Option<String>,
    /// Set or clear the annotation
    #[arg(value_enum, value_name = "on | off", hide_possible_values = true)]
    set: Option<Switch>,
    #[command(flatten)]
    source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// What a rule would have dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Row {
    policy: String,
    rule: String,
    /// None without nodes to ask.
    packets: Option<u64>,
    bytes: Option<u64>,
}

/// Packets and bytes by policy and rule.
type Counts = BTreeMap<(String, String), (u64, u64)>;

/// Runs the verb.
pub(super) fn run(args: &Audit, out: &mut Output) -> Result<Exit, Failure> {
    let json = out.format(&[Format::Table, Format::Json])? == Format::Json;
    let world = args.source.world()?;
    let only = args.policy.as_deref().map(|policy| world.policy(policy)).transpose()?;
    if let (Some(policy), Some(set)) = (&only, args.set) {
        return annotate(args, policy, set, out);
    }
    let audited = audited(&world, only.as_ref());
    if let (Some(policy), true) = (&only, audited.is_empty()) {
        return Err(
            Failure::new(format!("{policy} is not under audit")).next(format!("sluice policy audit {policy} on"))
        );
    }
    if audited.is_empty() {
        out.talk("no policy is under audit")?;
    }
    let mut answers = None;
    if !audited.is_empty() && args.source.is_cluster() {
        answers = Some(ask(&args.source.cluster()?)?);
    }
    let counts = answers.as_ref().map(|answers| total(answers.all.iter().map(|(_, counts)| counts)));
    let rows: Vec<Row> = audited.iter().flat_map(|policy| rows(policy, counts.as_ref())).collect();
    if json {
        out.json(&json!({ "audited": rows }))?;
    } else if !rows.is_empty() {
        table(&rows, out)?;
    }
    match answers {
        Some(answers) => answers.end(Exit::Yes, out),
        None => Ok(Exit::Yes),
    }
}

fn annotate(args: &Audit, policy: &PolicyName, set: Switch, out: &mut Output) -> Result<Exit, Failure> {
    if !args.source.is_cluster() {
        return Err(Failure::usage("manifests are not changed")
            .next(format!("write the annotation {AUDIT}: \"true\" into the manifest of {policy}")));
    }
    let value = (set == Switch::On).then_some("true");
    args.source.cluster()?.annotate(policy, AUDIT, value)?;
    if out.format(&[Format::Table, Format::Json])? == Format::Json {
        return out.done(&json!({ "policy": policy.to_string(), "audit": value.is_some() }));
    }
    out.line(match set {
        Switch::On => format!("{policy} drops nothing from now on; `sluice policy audit` tells what it would drop"),
        Switch::Off => format!("{policy} is in force"),
    })?;
    Ok(Exit::Yes)
}

fn audited<'w>(world: &'w World, only: Option<&PolicyName>) -> Vec<&'w Policy> {
    let mut all: Vec<&Policy> =
        world.cluster.policies().filter_map(|name| world.cluster.policy(name)).map(|of| &**of).collect();
    all.retain(|policy| policy.is_audit && only.is_none_or(|only| *only == policy.name));
    all.sort_by_key(|policy| (policy.tier, policy.priority, policy.name.clone()));
    all
}

/// What each node counts for owners that are policies'.
fn ask(cluster: &Cluster) -> Result<Answers<Counts>, Failure> {
    let members = cluster.chosen(None)?;
    let answers = each(&members, |member| {
        let client = cluster.connect(member.ready()?)?;
        counts(&client)
    });
    Ok(sorted(&members, answers))
}

fn counts(client: &Client) -> Result<Counts, Failure> {
    let mut counts = Counts::new();
    owner::flows(client, true)?.iter().for_each(|flow| count(flow, &mut counts));
    Ok(counts)
}

/// Flows that decide count; clauses of conjunctions only select.
fn count(flow: &Flow, counts: &mut Counts) {
    if flow.actions.starts_with("conjunction(") {
        return;
    }
    for rule in owner::rules(&flow.owner) {
        let (packets, bytes) = counts.entry(rule).or_default();
        *packets = packets.saturating_add(flow.packets);
        *bytes = bytes.saturating_add(flow.bytes);
    }
}

fn total<'c>(all: impl Iterator<Item = &'c Counts>) -> Counts {
    let mut total = Counts::new();
    for (rule, (packets, bytes)) in all.flatten() {
        let sum = total.entry(rule.clone()).or_default();
        *sum = (sum.0.saturating_add(*packets), sum.1.saturating_add(*bytes));
    }
    total
}

/// The rules of a policy that would drop something.
fn rows(policy: &Policy, counts: Option<&Counts>) -> Vec<Row> {
    let denying = policy.rules.iter().filter(|rule| rule.action == Action::Deny);
    let denying = denying.map(|rule| (rule.direction, Some(rule.index)));
    let default = policy.isolates.iter().map(|direction| (*direction, None));
    let row = |(direction, index)| {
        let name = RuleName { policy: &policy.name, direction, index }.to_string();
        let policy = policy.name.to_string();
        let rule = name.strip_prefix(&policy).unwrap_or(&name).trim_start_matches('/').to_owned();
        let key = (policy, rule);
        let found = counts.map(|counts| counts.get(&key).copied().unwrap_or_default());
        let (policy, rule) = key;
        Row { policy, rule, packets: found.map(|(packets, _)| packets), bytes: found.map(|(_, bytes)| bytes) }
    };
    denying.chain(default).map(row).collect()
}

fn table(rows: &[Row], out: &mut Output) -> Result<(), Failure> {
    let header: [Cell; 4] = ["POLICY".into(), "RULE".into(), Cell::right("WOULD DROP PKTS"), Cell::right("BYTES")];
    let mut table = Table::new(header);
    let number = |count: Option<u64>| {
        let text = count.map_or_else(|| "-".to_owned(), |count| count.to_string());
        Cell::right(text).tone(if count.is_some_and(|count| count > 0) { Tone::Warn } else { Tone::Plain })
    };
    for row in rows {
        table.row([Cell::from(row.policy.as_str()), row.rule.as_str().into(), number(row.packets), number(row.bytes)]);
    }
    out.table(&table)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_flows_of_an_owner_decide_counts_for_each_policy_that_it_names() {
        let flow = |owner: &str, actions: &str, packets| {
            let (owner, actions) = (owner.to_owned(), actions.to_owned());
            Flow { owner, actions, packets, bytes: 100 * packets, ..Flow::default() }
        };
        let mut counts = Counts::new();
        for flow in [
            flow("np:shop/a+shop/b/ingress/default", "goto_table:35", 3),
            flow("np:shop/a/ingress/default", "goto_table:35", 4),
            flow("cnp:g/ingress/0", "conjunction(1,1/2)", 99),
            flow("cnp:g/ingress/0", "goto_table:34", 5),
        ] {
            count(&flow, &mut counts);
        }
        let of = |policy: &str, rule: &str| counts.get(&(policy.to_owned(), rule.to_owned())).copied();
        assert_eq!(of("np:shop/a", "ingress/default"), Some((7, 700)));
        assert_eq!(of("np:shop/b", "ingress/default"), Some((3, 300)));
        assert_eq!(of("cnp:g", "ingress/0"), Some((5, 500)));
    }
}
