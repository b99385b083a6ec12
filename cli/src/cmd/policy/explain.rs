//! `sluice policy explain`.

use super::answer::{Answer, Half, answers, word};
use super::place::Question;
use super::reasons::{Miss, nearest, peer_text, port_there};
use super::world::{End, World};
use super::{Ends, Source};
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use clap::Args;
use serde_json::{Value, json};
use sluice_controller::facts::policy::{Policy, Tier};
use sluice_controller::policy::{Because, Judge, PolicyLook, RuleLook, RuleName};

/// Arguments of `sluice policy explain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice policy explain shop/web-7f9 shop/db-0:5432      may it, and by which rule
  sluice policy explain shop/web-7f9 svc/shop/db:5432    to each Pod behind a Service
  sluice policy explain shop/web-7f9 shop/dns:53/udp     another protocol than TCP
  sluice policy explain shop/web-7f9 shop/db-0           without a port: ping, say
  sluice policy explain 192.0.2.7 shop/web-7f9:http      from outside, to a port by its name
  sluice policy explain node/node-1 shop/web-7f9:80      from a node
  sluice policy explain shop/web shop/db:5432 --from manifests/    of files, without a cluster

Nothing is sent, and no node is asked: the answer is what policies come to. `sluice trace` asks the
flows that are there. Exit code 3 means that it is denied.")]
pub(crate) struct Explain {
    #[command(flatten)]
    ends: Ends,
    #[command(flatten)]
    source: Source,
}

/// Runs the verb.
pub(super) fn run(args: &Explain, out: &mut Output) -> Result<Exit, Failure> {
    let json = out.format(&[Format::Table, Format::Json])? == Format::Json;
    let world = args.source.world()?;
    let question = Question::of(&world, &args.ends.source, &args.ends.destination)?;
    let judge = Judge::new(&world.state);
    let answers = answers(&judge, &question)?;
    if json {
        let all: Vec<_> = answers.iter().map(|answer| answer_json(&world, answer)).collect();
        out.json(&json!({ "answers": all }))?;
    } else {
        for (index, answer) in answers.iter().enumerate() {
            if index > 0 {
                out.line("")?;
            }
            tell(&world, &question, answer, out)?;
        }
        if answers.iter().any(|answer| !answer.is_allowed()) {
            out.line(format!("hint: sluice policy why-not {} {}", args.ends.source, args.ends.destination))?;
        }
    }
    notes(&world, &question, out)?;
    Ok(exit(&answers))
}

/// 3 if any is denied.
pub(super) fn exit(answers: &[Answer<'_>]) -> Exit {
    if answers.iter().all(Answer::is_allowed) { Exit::Yes } else { Exit::Dropped }
}

/// What of the ends is not as it may seem.
pub(super) fn notes(world: &World, question: &Question, out: &mut Output) -> Result<(), Failure> {
    let ends = [&question.from].into_iter().chain(question.to.iter().map(|(to, _)| to));
    let mut told: Vec<&str> = Vec::new();
    for End { name, host, .. } in ends {
        let Some(place) = world.pods.get(name).filter(|_| !told.contains(&name.as_str())) else { continue };
        told.push(name);
        if place.is_over {
            out.talk(format!("note: {name} has ended: no policy is about it"))?;
        } else if host.is_some() {
            out.talk(format!(
                "note: {name} has the network of its node: no policy is about it, and it is known as its node"
            ))?;
        } else if place.is_made_up {
            let addresses: Vec<_> = place.addresses.iter().map(ToString::to_string).collect();
            out.talk(format!("note: {name} has no address yet: this is as if it had {}", addresses.join(" and ")))?;
        }
    }
    Ok(())
}

fn tell(world: &World, question: &Question, answer: &Answer<'_>, out: &mut Output) -> Result<(), Failure> {
    out.line(answer.headline(question))?;
    for half in &answer.halves {
        out.line(half_line(half))?;
        let table = table(world, answer, half);
        if !half.explanation.policies.is_empty() {
            out.table(&table)?;
        }
    }
    Ok(())
}

/// The verdict at one end: `ingress of shop/db: DENIED by np:shop/db/ingress/default`.
pub(super) fn half_line(half: &Half<'_>) -> String {
    let verdict = half.verdict();
    let by = match &verdict.because {
        Because::Default(_) => format!(" by {}: isolated, and no rule allows it", half.by()),
        Because::Rule(_) => format!(" by {}", half.by()),
        _ => format!(": {}", half.by()),
    };
    format!("{} of {}: {}{by}", half.direction.name(), half.pod, word(verdict.is_accepted))
}

fn table(world: &World, answer: &Answer<'_>, half: &Half<'_>) -> Table {
    let header: [Cell; 6] =
        ["".into(), "TIER".into(), Cell::right("PRIO"), "RULE".into(), "SAYS".into(), "RESULT".into()];
    let mut table = Table::new(header);
    let denied = !half.verdict().is_accepted;
    let nearest = nearest(world, answer, half).into_iter().next().filter(|_| denied).map(|(_, look)| look.name);
    for policy in &half.explanation.policies {
        for look in &policy.rules {
            let (mut result, tone) = result(world, answer, half, look);
            if nearest == Some(look.name) {
                result.push_str("  <- nearest");
            }
            let name = title(look);
            table.row(row(policy.policy, name, look.rule.action.name(), result, tone));
        }
        if policy.policy.isolates.contains(&half.direction) {
            let (result, tone) = default_result(half, policy);
            let name = RuleName { policy: &policy.policy.name, direction: half.direction, index: None };
            table.row(row(policy.policy, name.to_string(), "Deny", result.to_owned(), tone));
        }
    }
    table
}

/// A rule's name, and what people called it.
fn title(look: &RuleLook<'_>) -> String {
    if look.rule.name.is_empty() { look.name.to_string() } else { format!("{} ({})", look.name, look.rule.name) }
}

fn row(policy: &Policy, name: String, says: &str, result: String, tone: Tone) -> [Cell; 6] {
    let priority = if policy.tier == Tier::Network { "-".to_owned() } else { policy.priority.to_string() };
    let says = if policy.is_audit { format!("{says} (audit)") } else { says.to_owned() };
    let result = Cell::from(result).tone(tone);
    ["".into(), policy.tier.name().into(), Cell::right(priority), name.into(), says.into(), result]
}

/// What a rule made of it.
fn result(world: &World, answer: &Answer<'_>, half: &Half<'_>, look: &RuleLook<'_>) -> (String, Tone) {
    let verdict = half.verdict();
    if !look.is_match {
        return (format!("no match: {}", Miss::of(world, answer, half, look).text()), Tone::Plain);
    }
    if verdict.because == Because::Rule(look.name) {
        return match verdict.is_accepted {
            true => ("MATCHES, accepts".to_owned(), Tone::Good),
            false => ("MATCHES, denies".to_owned(), Tone::Bad),
        };
    }
    if verdict.passed.contains(&look.name) {
        return ("matches, passes on".to_owned(), Tone::Plain);
    }
    if verdict.audited.contains(&look.name) {
        return ("matches, is only recorded".to_owned(), Tone::Warn);
    }
    ("would match, is not asked".to_owned(), Tone::Plain)
}

/// What a policy's denial of what no rule allows made of it.
fn default_result(half: &Half<'_>, policy: &PolicyLook<'_>) -> (&'static str, Tone) {
    let verdict = half.verdict();
    let name = &policy.policy.name;
    match &verdict.because {
        Because::Default(policies) if policies.contains(&name) => ("DENIES what no rule allows", Tone::Bad),
        _ if verdict.audited.iter().any(|of| of.policy == name && of.index.is_none()) => {
            ("is only recorded", Tone::Warn)
        }
        Because::Rule(of) if of.policy.kind == name.kind => ("a rule allows it", Tone::Plain),
        _ => ("is not asked", Tone::Plain),
    }
}

fn answer_json(world: &World, answer: &Answer<'_>) -> Value {
    let pairs: Vec<_> = answer.pairs.iter().map(|(from, to)| json!({ "source": from, "destination": to })).collect();
    json!({
        "verdict": word(answer.is_allowed()),
        "from": answer.from.name,
        "to": answer.to.name,
        "protocol": answer.at.protocol.map(|protocol| protocol.name()),
        "port": answer.at.protocol.map(|_| answer.at.port),
        "addresses": pairs,
        "ends": answer.halves.iter().map(|half| half_json(world, answer, half)).collect::<Vec<_>>(),
    })
}

fn half_json(world: &World, answer: &Answer<'_>, half: &Half<'_>) -> Value {
    let rule = |look: &RuleLook<'_>| {
        let miss = Miss::of(world, answer, half, look);
        let names = answer.to.pod.as_deref().map_or(&[][..], |pod| world.cluster.named_ports(pod));
        let peers = look.peers.as_ref().map(|peers| {
            let of = peers.iter().map(|(peer, is)| json!({ "peer": peer_text(peer), "matches": is }));
            of.collect::<Vec<_>>()
        });
        let ports = look.ports.as_ref().map(|ports| {
            let of = ports.iter().map(|(port, is)| json!({ "port": port_there(port, names), "matches": is }));
            of.collect::<Vec<_>>()
        });
        json!({
            "rule": look.name.to_string(), "name": look.rule.name, "action": look.rule.action.name(),
            "asked": look.is_asked, "matches": look.is_match, "peers": peers, "ports": ports,
            "no_peer": miss.peer, "no_port": miss.port,
        })
    };
    let policy = |of: &PolicyLook<'_>| {
        json!({
            "policy": of.policy.name.to_string(), "tier": of.policy.tier.name(), "priority": of.policy.priority,
            "isolates": of.policy.isolates.contains(&half.direction), "audit": of.policy.is_audit,
            "rules": of.rules.iter().map(rule).collect::<Vec<_>>(),
        })
    };
    let names = |rules: &[RuleName<'_>]| rules.iter().map(ToString::to_string).collect::<Vec<_>>();
    let verdict = half.verdict();
    json!({
        "direction": half.direction.name(), "pod": half.pod, "verdict": word(verdict.is_accepted), "by": half.by(),
        "passed": names(&verdict.passed), "audited": names(&verdict.audited),
        "policies": half.explanation.policies.iter().map(policy).collect::<Vec<_>>(),
    })
}
