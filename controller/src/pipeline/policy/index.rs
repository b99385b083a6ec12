//! Flows that rules of policies share: each flow with all the reasons for which it is there, and what has become of it since somebody
//! asked.
//!
//! A reason may hold several times (two groups of one rule that have a Pod in common), so reasons are counted. A flow says what its
//! reasons say together; it is told anew only if that has changed.

use super::super::Stage;
use super::super::text::goto;
use crate::facts::policy::{Direction, PolicyName, Tier};
use crate::flow::{Flow, FlowName, Object, Part};
use foldhash::fast::RandomState;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::hash::BuildHasher;
use std::sync::Arc;

/// Names of policies in one owner.
const NAMES: usize = 4;
/// Longest owner, in bytes, as the switch takes it.
const OWNER_LEN: usize = 255;

/// A rule of a policy, by name.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tag {
    /// Its policy.
    pub(super) policy: PolicyName,
    pub(super) direction: Direction,
    pub(super) index: u32,
    /// The policy as owners have it.
    pub(super) text: String,
    /// What is behind that: `/DIRECTION/INDEX`.
    pub(super) rest: String,
}

impl Tag {
    pub(super) fn new(policy: &PolicyName, direction: Direction, index: u32) -> Self {
        let rest = format!("/{}/{index}", direction.name());
        Self { policy: policy.clone(), direction, index, text: policy.to_string(), rest }
    }
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Accept,
    Deny,
    /// The next tier is asked.
    Pass,
}

/// Why a flow is there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// It is a clause of a conjunction, from 1 on, of so many.
    Clause { id: u32, clause: u8, of: u8, rule: Arc<Tag> },
    /// All that it matches is as a rule says.
    Says { rule: Arc<Tag>, id: u32, verdict: Verdict },
    /// A policy isolates the Pod.
    Isolates { policy: Arc<str>, direction: Direction, is_audit: bool },
}

/// A flow and its reasons.
#[derive(Debug, Default)]
struct Entry {
    /// How often each of them holds.
    reasons: BTreeMap<Reason, u32>,
    /// A hash of the flow as it was told last.
    told: Option<u64>,
}

/// All flows.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: HashMap<Arc<FlowName>, Entry, RandomState>,
    /// What has got or lost a reason since it was told.
    changed: HashSet<Arc<FlowName>, RandomState>,
    hash: RandomState,
}

impl Index {
    /// A reason holds once more (or once less).
    pub(super) fn count(&mut self, name: FlowName, reason: Reason, holds: bool) {
        let name = match self.entries.get_key_value(&name) {
            Some((known, _)) => Arc::clone(known),
            None if holds => Arc::new(name),
            None => return,
        };
        let entry = self.entries.entry(Arc::clone(&name)).or_default();
        let is_changed = if holds {
            let times = entry.reasons.entry(reason).or_default();
            *times += 1;
            *times == 1
        } else {
            match entry.reasons.get_mut(&reason) {
                Some(times) if *times > 1 => {
                    *times -= 1;
                    false
                }
                Some(_) => entry.reasons.remove(&reason).is_some(),
                None => false,
            }
        };
        if is_changed {
            self.changed.insert(name);
        }
    }

    /// What has changed since the last time: flows as they are now, none for those that are gone; in order of their names.
    pub(super) fn take(&mut self) -> Vec<(Object, Option<Part>)> {
        let mut changed: Vec<_> = self.changed.drain().collect();
        changed.sort_unstable();
        let mut all = Vec::new();
        for name in changed {
            let Some(entry) = self.entries.get_mut(&name) else { continue };
            let Some(flow) = flow(&name, &entry.reasons) else {
                if entry.told.is_some() {
                    all.push((Object::Policy(Arc::clone(&name)), None));
                }
                self.entries.remove(&name);
                continue;
            };
            let hash = self.hash.hash_one((&flow.actions, &flow.owner, flow.drop_reason));
            if entry.told != Some(hash) {
                entry.told = Some(hash);
                all.push((Object::Policy(name), Some(Part { flows: vec![flow], groups: Vec::new() })));
            }
        }
        all
    }

    /// The flows that have been told and are not gone.
    pub(super) fn told(&self) -> impl Iterator<Item = Object> {
        let told = self.entries.iter().filter(|(_, entry)| entry.told.is_some());
        told.map(|(name, _)| Object::Policy(Arc::clone(name)))
    }

    /// Number of flows.
    pub(super) fn len(&self) -> usize {
        self.entries.values().filter(|entry| !entry.reasons.is_empty()).count()
    }
}

/// The flow of these reasons; none without any.
fn flow(name: &FlowName, reasons: &BTreeMap<Reason, u32>) -> Option<Flow> {
    let (actions, drop_reason, owner) = match reasons.keys().next()? {
        Reason::Clause { .. } => (conjunctions(reasons), None, owner(&rules(reasons), "")),
        Reason::Says { rule, id, verdict } => {
            let (actions, reason) = says(name.table, *verdict, rule.direction, *id);
            (actions, reason, owner(&rules(reasons), ""))
        }
        Reason::Isolates { direction, .. } => {
            let (names, is_audit) = isolating(reasons);
            let rest = format!("/{}/default", direction.name());
            let next = if is_audit { goto(next(name.table, *direction)) } else { String::new() };
            (next, (!is_audit).then_some("policy_default_deny"), owner(&names, &rest))
        }
    };
    Some(Flow {
        table: name.table,
        priority: name.priority,
        matching: name.matching.clone(),
        actions,
        owner: owner.into(),
        drop_reason,
    })
}

fn conjunctions(reasons: &BTreeMap<Reason, u32>) -> String {
    let mut actions = String::with_capacity(28 * reasons.len());
    for reason in reasons.keys() {
        if let Reason::Clause { id, clause, of, .. } = reason {
            let comma = if actions.is_empty() { "" } else { "," };
            // Writing to a string does not fail.
            _ = write!(actions, "{comma}conjunction({id},{clause}/{of})");
        }
    }
    actions
}

fn says(table: u8, verdict: Verdict, direction: Direction, id: u32) -> (String, Option<&'static str>) {
    let (register, behind) = match direction {
        Direction::Egress => (5, Stage::Route),
        Direction::Ingress => (6, Stage::Commit),
    };
    match verdict {
        Verdict::Accept => (format!("load:{id:#x}->NXM_NX_REG{register}[],{}", goto(behind)), None),
        Verdict::Deny => (String::new(), Some("policy_deny")),
        Verdict::Pass => (goto(next(table, direction)), None),
    }
}

/// Where a tier's rules are asked.
pub(super) const fn stage(tier: Tier, direction: Direction) -> Stage {
    match (tier, direction) {
        (Tier::Admin, Direction::Egress) => Stage::EgressAdmin,
        (Tier::Network, Direction::Egress) => Stage::EgressNetwork,
        (Tier::Baseline, Direction::Egress) => Stage::EgressBaseline,
        (Tier::Admin, Direction::Ingress) => Stage::IngressAdmin,
        (Tier::Network, Direction::Ingress) => Stage::IngressNetwork,
        (Tier::Baseline, Direction::Ingress) => Stage::IngressBaseline,
    }
}

/// Where what a table's tier has not decided goes on.
fn next(table: u8, direction: Direction) -> Stage {
    let is = |tier| stage(tier, direction).table() == table;
    match direction {
        _ if is(Tier::Admin) => stage(Tier::Network, direction),
        _ if is(Tier::Network) => stage(Tier::Baseline, direction),
        Direction::Egress => Stage::Route,
        Direction::Ingress => Stage::Commit,
    }
}

/// The policy and the rest of the name of each rule, in order.
fn rules(reasons: &BTreeMap<Reason, u32>) -> Vec<(&str, &str)> {
    let mut tags: Vec<&Tag> = reasons
        .keys()
        .filter_map(|reason| match reason {
            Reason::Clause { rule, .. } | Reason::Says { rule, .. } => Some(&**rule),
            Reason::Isolates { .. } => None,
        })
        .collect();
    tags.sort_unstable();
    tags.dedup();
    tags.into_iter().map(|tag| (tag.text.as_str(), tag.rest.as_str())).collect()
}

/// Those by which a Pod is isolated, and whether that is only recorded. Where it is not, only those in force count.
fn isolating(reasons: &BTreeMap<Reason, u32>) -> (Vec<(&str, &str)>, bool) {
    let of = |wanted: bool| {
        let names = reasons.keys().filter_map(move |reason| match reason {
            Reason::Isolates { policy, is_audit, .. } if *is_audit == wanted => Some((&**policy, "")),
            _ => None,
        });
        names.collect::<Vec<_>>()
    };
    let in_force = of(false);
    if in_force.is_empty() { (of(true), true) } else { (in_force, false) }
}

/// An owner of these names, whose kind stands once if they have one in common, with `rest` behind all of them. Whatever names are
/// too many or too long are told by number.
fn owner(names: &[(&str, &str)], rest: &str) -> String {
    let Some((first, first_rest)) = names.first() else { return String::new() };
    let kind = first.find(':').map_or("", |at| &first[..=at]);
    for shown in (1..=names.len().min(NAMES)).rev() {
        let mut text = format!("{first}{first_rest}");
        for (name, own) in &names[1..shown] {
            // Writing to a string does not fail.
            _ = write!(text, "+{}{own}", name.strip_prefix(kind).unwrap_or(name));
        }
        text += &more(names.len() - shown);
        text += rest;
        if text.len() <= OWNER_LEN {
            return text;
        }
    }
    // A name that is too long alone: its end says which rule it is, its beginning whose.
    let end = format!("..{first_rest}{}{rest}", more(names.len() - 1));
    let room = first.floor_char_boundary(OWNER_LEN.saturating_sub(end.len()));
    format!("{}{end}", &first[..room])
}

fn more(count: usize) -> String {
    if count == 0 { String::new() } else { format!("+{count}more") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_name_all_while_they_are_few_and_short() {
        assert_eq!(owner(&[("np:shop/a", "/ingress/0")], ""), "np:shop/a/ingress/0");
        let names = ["np:shop/a", "np:shop/b", "np:x/c", "np:x/d", "np:x/e", "np:x/f"].map(|name| (name, ""));
        assert_eq!(owner(&names[..2], "/egress/default"), "np:shop/a+shop/b/egress/default");
        assert_eq!(owner(&names, "/egress/default"), "np:shop/a+shop/b+x/c+x/d+2more/egress/default");
    }

    #[test]
    fn owners_are_never_longer_than_the_switch_takes_and_say_the_rule_all_the_same() {
        let long = format!("np:{}/{}", "n".repeat(63), "p".repeat(253));
        let text = owner(&[(&long, "/ingress/17")], "");
        assert!(text.len() == OWNER_LEN && text.ends_with("p../ingress/17"), "{text}");
        let names = vec![(long.as_str(), ""); 5];
        let text = owner(&names, "/ingress/default");
        assert!(text.len() == OWNER_LEN && text.ends_with("p..+4more/ingress/default"), "{text}");
    }
}
