//! `sluice policy list` and `sluice policy show`.

use super::Source;
use super::place::unknown;
use super::reasons::{peer_text, port_text};
use super::world::World;
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use clap::Args;
use serde_json::{Value, json};
use sluice_controller::facts::policy::{Direction, GroupKey, Policy, PolicyName, Rule, Tier};
use sluice_controller::policy::{Judge, RuleName};

/// Arguments of `sluice policy list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice policy list                          every policy, in the order in which they are asked
  sluice policy list shop/db-0                those that are about a Pod
  sluice policy list --from manifests/        of files, without a cluster
  sluice policy list -o json | jq -r '.policies[] | select(.notes != []) | .name'")]
pub(crate) struct List {
    /// Only policies that are about this Pod: NS/POD
    #[arg(value_name = "POD")]
    pod: Option<String>,
    #[command(flatten)]
    source: Source,
}

/// Arguments of `sluice policy show`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice policy show shop/db                  a NetworkPolicy, by namespace and name
  sluice policy show cnp:guard                a ClusterNetworkPolicy; also anp:NAME and banp:NAME
  sluice policy show shop/db --from manifests/")]
pub(crate) struct Show {
    /// The policy: NS/NAME, or np:NS/NAME, cnp:NAME, anp:NAME, banp:NAME
    #[arg(value_name = "POLICY")]
    policy: String,
    #[command(flatten)]
    source: Source,
}

/// Most Pods that are named.
const SHOWN: usize = 20;

/// Runs `sluice policy list`.
pub(super) fn run(args: &List, out: &mut Output) -> Result<Exit, Failure> {
    let json = out.format(&[Format::Table, Format::Json])? == Format::Json;
    let world = args.source.world()?;
    let names = match &args.pod {
        Some(pod) => about(&world, pod)?,
        None => in_order(&world),
    };
    if names.is_empty() {
        out.talk(match &args.pod {
            Some(pod) => format!("no policy is about {pod}: everything that it sends and gets is accepted"),
            None => "there are no policies: everything is accepted".to_owned(),
        })?;
    }
    if json {
        let all: Vec<_> = names.iter().map(|name| policy_json(&world, name)).collect();
        out.json(&json!({ "policies": all }))?;
    } else {
        table(&world, &names, out)?;
    }
    Ok(Exit::Yes)
}

/// The policies that are about a Pod, in the order in which they are asked.
fn about(world: &World, pod: &str) -> Result<Vec<PolicyName>, Failure> {
    let pod = pod.strip_prefix("pod:").unwrap_or(pod);
    if !world.pods.contains_key(pod) {
        return Err(unknown("Pod", pod, world.pods.keys()));
    }
    let judge = Judge::new(&world.state);
    Ok(judge.subject(pod).policies().iter().map(|policy| policy.name.clone()).collect())
}

/// All policies: those that are about somebody in the order in which they are asked, and then the others.
fn in_order(world: &World) -> Vec<PolicyName> {
    let mut names: Vec<PolicyName> = world.cluster.policies().cloned().collect();
    names.sort_by_cached_key(|name| {
        let policy = world.cluster.policy(name);
        let order = policy.map(|policy| (policy.tier, policy.priority));
        (order.is_none(), order, name.clone())
    });
    names
}

fn table(world: &World, names: &[PolicyName], out: &mut Output) -> Result<(), Failure> {
    let mut table = Table::new([
        "NAME".into(),
        "TIER".into(),
        Cell::right("PRIO"),
        "ABOUT".into(),
        Cell::right("PODS"),
        "INGRESS".into(),
        "EGRESS".into(),
        "MODE".into(),
    ]);
    for name in names {
        let Some(policy) = world.cluster.policy(name) else {
            let nobody = Cell::from("nobody").tone(Tone::Warn);
            let dashes = || Cell::from("-");
            table.row([
                Cell::from(name.to_string()),
                dashes(),
                Cell::right("-"),
                nobody,
                Cell::right("0"),
                dashes(),
                dashes(),
                dashes(),
            ]);
            continue;
        };
        let count = world.subjects(name).count();
        table.row([
            Cell::from(name.to_string()),
            policy.tier.name().into(),
            Cell::right(priority(policy)),
            subject_text(&policy.subject).into(),
            Cell::right(count.to_string()),
            says(policy, Direction::Ingress).into(),
            says(policy, Direction::Egress).into(),
            mode(policy).into(),
        ]);
    }
    if !names.is_empty() {
        out.table(&table)?;
    }
    for name in names {
        for note in world.cluster.notes(name) {
            out.line(format!("note: {name}: {note}"))?;
        }
    }
    Ok(())
}

fn priority(policy: &Policy) -> String {
    if policy.tier == Tier::Network { "-".to_owned() } else { policy.priority.to_string() }
}

/// What selects a policy's Pods, without the words around it.
fn subject_text(key: &GroupKey) -> String {
    let text = key.0.strip_prefix("subjects(").and_then(|text| text.strip_suffix(')')).unwrap_or(&key.0);
    text.trim_end_matches(';').to_owned()
}

/// What it says for a direction, in short.
fn says(policy: &Policy, direction: Direction) -> String {
    let rules = policy.rules.iter().filter(|rule| rule.direction == direction).count();
    let noun = if rules == 1 { "rule" } else { "rules" };
    match (policy.isolates.contains(&direction), rules) {
        (true, 0) => "denies all".to_owned(),
        (true, _) => format!("{rules} {noun}, denies the rest"),
        (false, 0) => "-".to_owned(),
        (false, _) => format!("{rules} {noun}"),
    }
}

fn mode(policy: &Policy) -> &'static str {
    match (policy.is_audit, policy.logs) {
        (true, true) => "audit, log",
        (true, false) => "audit",
        (false, true) => "log",
        (false, false) => "-",
    }
}

fn policy_json(world: &World, name: &PolicyName) -> Value {
    let notes: Vec<_> = world.cluster.notes(name).iter().map(ToString::to_string).collect();
    let Some(policy) = world.cluster.policy(name) else {
        return json!({ "name": name.to_string(), "pods": 0, "notes": notes });
    };
    let isolates: Vec<_> = policy.isolates.iter().map(|direction| direction.name()).collect();
    let rules = policy.rules.iter().map(|rule| rule_json(policy, rule));
    json!({
        "name": name.to_string(), "tier": policy.tier.name(), "priority": policy.priority,
        "subject": subject_text(&policy.subject), "pods": world.subjects(name).count(),
        "isolates": isolates, "audit": policy.is_audit, "log": policy.logs,
        "rules": rules.collect::<Vec<_>>(), "notes": notes,
    })
}

fn rule_json(policy: &Policy, rule: &Rule) -> Value {
    let name = RuleName { policy: &policy.name, direction: rule.direction, index: Some(rule.index) };
    json!({
        "rule": name.to_string(), "name": rule.name, "action": rule.action.name(),
        "peers": rule.peers.as_ref().map(|peers| peers.iter().map(peer_text).collect::<Vec<_>>()),
        "ports": rule.ports.as_ref().map(|ports| ports.iter().map(port_text).collect::<Vec<_>>()),
    })
}

/// Runs `sluice policy show`.
pub(super) fn show(args: &Show, out: &mut Output) -> Result<Exit, Failure> {
    let json = out.format(&[Format::Table, Format::Json])? == Format::Json;
    let world = args.source.world()?;
    let name = world.policy(&args.policy)?;
    let pods: Vec<&str> = world.subjects(&name).collect();
    if json {
        let mut value = policy_json(&world, &name);
        value["members"] = pods.iter().map(|pod| Value::from(*pod)).collect();
        out.json(&value)?;
        return Ok(Exit::Yes);
    }
    out.line(name.to_string())?;
    if let Some(policy) = world.cluster.policy(&name) {
        about_lines(policy, &pods, out)?;
        for direction in [Direction::Ingress, Direction::Egress] {
            rule_lines(policy, direction, out)?;
        }
    }
    for note in world.cluster.notes(&name) {
        out.line(format!("note: {note}"))?;
    }
    Ok(Exit::Yes)
}

fn about_lines(policy: &Policy, pods: &[&str], out: &mut Output) -> Result<(), Failure> {
    let priority = if policy.tier == Tier::Network { String::new() } else { format!(", priority {}", policy.priority) };
    out.line(format!("  tier   {}{priority}", policy.tier.name()))?;
    if mode(policy) != "-" {
        out.line(format!("  mode   {}", mode(policy)))?;
    }
    out.line(format!("  about  {}", subject_text(&policy.subject)))?;
    let shown: Vec<_> = pods.iter().take(SHOWN).copied().collect();
    let more = if pods.len() > SHOWN { format!(" ... ({} Pods)", pods.len()) } else { String::new() };
    let shown = if shown.is_empty() { "none".to_owned() } else { shown.join(" ") };
    out.line(format!("  Pods   {shown}{more}"))?;
    Ok(())
}

fn rule_lines(policy: &Policy, direction: Direction, out: &mut Output) -> Result<(), Failure> {
    let (from, direction_name) = match direction {
        Direction::Ingress => ("from", "ingress"),
        Direction::Egress => ("to", "egress"),
    };
    for rule in policy.rules.iter().filter(|rule| rule.direction == direction) {
        let peers = match rule.peers.as_deref() {
            None => "everybody".to_owned(),
            Some([]) => "nobody".to_owned(),
            Some(peers) => peers.iter().map(peer_text).collect::<Vec<_>>().join(" or "),
        };
        let ports = match rule.ports.as_deref() {
            None => String::new(),
            Some([]) => ", no port".to_owned(),
            Some(ports) => {
                let texts: Vec<_> = ports.iter().map(port_text).collect();
                format!(", port {}", texts.join(" or "))
            }
        };
        let name = if rule.name.is_empty() { String::new() } else { format!(" ({})", rule.name) };
        out.line(format!("  {direction_name}/{}{name}  {} {from} {peers}{ports}", rule.index, rule.action.name()))?;
    }
    if policy.isolates.contains(&direction) {
        out.line(format!("  {direction_name}/default  Deny {from} everybody else"))?;
    }
    Ok(())
}
