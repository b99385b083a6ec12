//! `sluice policy why-not`.

use super::answer::{Answer, Half, answers, word};
use super::explain::{exit, half_line, notes};
use super::place::Question;
use super::reasons::{Miss, nearest};
use super::snippet::{allowing, yaml};
use super::world::{World, connection};
use super::{Ends, Source, manifests};
use crate::failure::Failure;
use crate::output::{Exit, Format, Output};
use clap::Args;
use serde_json::{Value, json};
use sluice_controller::policy::{Judge, RuleLook};

/// Arguments of `sluice policy why-not`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice policy why-not shop/web-7f9 shop/db-0:5432      what the nearest rules lack, and a policy
                                                         that would allow it
  sluice policy why-not shop/web-7f9 svc/shop/db:5432    to the Pods behind a Service
  sluice policy why-not shop/web shop/db:81 --from manifests/

The policy is one that was tried: with it, the connection is allowed. It is about all Pods with the
labels of these two. Exit code 3 means that the connection is denied.")]
pub(crate) struct WhyNot {
    #[command(flatten)]
    ends: Ends,
    #[command(flatten)]
    source: Source,
}

/// Most rules that are told.
const SHOWN: usize = 3;

/// An end that denies.
struct Lack<'h, 'a> {
    half: &'h Half<'a>,
    nearest: Vec<(Miss, &'h RuleLook<'a>)>,
    /// A manifest that would allow it, or why there is none.
    manifest: Result<Value, String>,
}

/// Runs the verb.
pub(super) fn run(args: &WhyNot, out: &mut Output) -> Result<Exit, Failure> {
    let json = out.format(&[Format::Table, Format::Json])? == Format::Json;
    let world = args.source.world()?;
    let question = Question::of(&world, &args.ends.source, &args.ends.destination)?;
    let judge = Judge::new(&world.state);
    let answers = answers(&judge, &question)?;
    let mut all = Vec::new();
    for (index, answer) in answers.iter().enumerate() {
        let lacks: Vec<_> = answer.denying().map(|half| lack(&world, answer, half)).collect();
        if json {
            all.push(answer_json(answer, &lacks));
            continue;
        }
        if index > 0 {
            out.line("")?;
        }
        out.line(answer.headline(&question))?;
        for lack in &lacks {
            tell(answer, lack, out)?;
        }
        let tried: Vec<_> = lacks.iter().filter_map(|lack| lack.manifest.as_ref().ok()).collect();
        if !tried.is_empty() {
            manifest(&tried, out)?;
        }
    }
    if json {
        out.json(&json!({ "answers": all }))?;
    }
    notes(&world, &question, out)?;
    Ok(exit(&answers))
}

fn lack<'h, 'a>(world: &World, answer: &Answer<'a>, half: &'h Half<'a>) -> Lack<'h, 'a> {
    let mut nearest = nearest(world, answer, half);
    nearest.truncate(SHOWN);
    let manifest = allowing(world, answer, half).and_then(|manifest| {
        if allows(world, answer, half, &manifest) {
            Ok(manifest)
        } else {
            Err("no policy beside those that are there would allow it: they have to be changed themselves".to_owned())
        }
    });
    Lack { half, nearest, manifest }
}

/// Whether an end would allow the connection with a manifest beside what there is.
fn allows(world: &World, answer: &Answer<'_>, half: &Half<'_>, manifest: &Value) -> bool {
    let mut objects = world.objects.clone();
    if manifests::put(manifest.clone(), &mut objects, 0).is_err() {
        return false;
    }
    let with = World::new(objects);
    let judge = Judge::new(&with.state);
    answer.pairs.iter().all(|pair| {
        let connection = connection(half.direction, &answer.from, &answer.to, *pair, answer.at);
        judge.subject(&half.pod).verdict(half.direction, &connection).is_accepted
    })
}

fn tell(answer: &Answer<'_>, lack: &Lack<'_, '_>, out: &mut Output) -> Result<(), Failure> {
    out.line(half_line(lack.half))?;
    if lack.nearest.is_empty() {
        out.line("  there is no rule that could allow it")?;
    }
    for (miss, look) in &lack.nearest {
        out.line(format!("  {} would allow it, but", look.name))?;
        for why in [&miss.peer, &miss.port].into_iter().flatten() {
            out.line(format!("    - {why}"))?;
        }
    }
    if let Err(why) = &lack.manifest {
        out.line(format!("  {why}"))?;
    } else if answer.at.protocol.is_none() {
        out.line("  what has no ports cannot be allowed alone: the policy below is about every port, too")?;
    }
    Ok(())
}

fn manifest(manifests: &[&Value], out: &mut Output) -> Result<(), Failure> {
    out.line(match manifests.len() {
        1 => "this policy beside the others would allow it:",
        _ => "these policies beside the others would allow it:",
    })?;
    for manifest in manifests {
        out.line("---")?;
        out.line(yaml(manifest).trim_end())?;
    }
    Ok(())
}

fn answer_json(answer: &Answer<'_>, lacks: &[Lack<'_, '_>]) -> Value {
    let end = |lack: &Lack<'_, '_>| {
        let nearest = lack
            .nearest
            .iter()
            .map(|(miss, look)| json!({ "rule": look.name.to_string(), "no_peer": miss.peer, "no_port": miss.port }));
        json!({
            "direction": lack.half.direction.name(), "pod": lack.half.pod, "by": lack.half.by(),
            "nearest": nearest.collect::<Vec<_>>(),
            "manifest": lack.manifest.as_ref().ok(), "no_manifest": lack.manifest.as_ref().err(),
        })
    };
    json!({
        "verdict": word(answer.is_allowed()), "from": answer.from.name, "to": answer.to.name,
        "protocol": answer.at.protocol.map(|protocol| protocol.name()),
        "port": answer.at.protocol.map(|_| answer.at.port),
        "ends": lacks.iter().map(end).collect::<Vec<_>>(),
    })
}
