//! A policy with what it has put into the flows: which parts of it there are, and what comes and goes with a Pod.
//!
//! Everything is done in steps of one subject or one member, each of which has an inverse; what is put in is the sum of those of all that
//! are there. So what a step has to look at is what it changes: a member that comes looks at no other member, a subject only looks at
//! the members if it is the first of its kind.

use super::super::Stage;
use super::super::text::Family;
use super::index::{Reason, Tag, Verdict, stage};
use super::{CLAUSE, ISOLATED, LocalPod, PLAIN, Shared, matches};
use crate::facts::Protocol;
use crate::facts::policy::{Action, Direction, Group, GroupKey, Member, Peer, Policy, PolicyName, Port, Rule, Tier};
use crate::flow::FlowName;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// A policy that is in force.
#[derive(Debug)]
pub(super) struct Installed {
    pub(super) policy: Arc<Policy>,
    /// Of each rule of the policy, at its place.
    rules: Vec<Placed>,
    /// The Pods of this node that it is about.
    subjects: BTreeMap<Arc<str>, Subject>,
}

/// A Pod of this node that a policy is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    port: u32,
    /// The ports that have names.
    named: Vec<(String, Protocol, u16)>,
}

/// A rule that is in force.
#[derive(Debug)]
struct Placed {
    tag: Arc<Tag>,
    stage: Stage,
    priority: u16,
    verdict: Verdict,
    /// It says nothing about anything.
    is_void: bool,
    /// Its conjunctions.
    splits: BTreeMap<Split, Use>,
    /// The ports of the Pods of this node that it is about.
    subjects: BTreeMap<Arc<str>, u32>,
}

/// Which ports a conjunction of a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Split {
    /// All that need no name, or every one.
    Fixed,
    /// What names are on some Pod.
    Named(Protocol, u16),
}

/// A conjunction that is there.
#[derive(Clone, Copy, Debug)]
struct Use {
    id: u32,
    /// How many Pods it is there for.
    pods: u32,
}

/// The groups that the rules of a policy name.
pub(super) fn groups(policy: &Policy) -> impl Iterator<Item = &GroupKey> {
    policy.rules.iter().flat_map(groups_of)
}

fn groups_of(rule: &Rule) -> impl Iterator<Item = &GroupKey> {
    rule.peers.iter().flatten().filter_map(|peer| match peer {
        Peer::Group(key) => Some(key),
        Peer::Net { .. } => None,
    })
}

/// Whether a rule is about nobody or nothing, or of a direction that its policy is not about.
fn is_void(policy: &Policy, rule: &Rule) -> bool {
    let is_asked = policy.tier != Tier::Network || policy.isolates.contains(&rule.direction);
    !is_asked || rule.peers.as_ref().is_some_and(Vec::is_empty) || rule.ports.as_ref().is_some_and(Vec::is_empty)
}

fn has_fixed(rule: &Rule) -> bool {
    rule.ports.as_ref().is_none_or(|ports| ports.iter().any(|port| !matches!(port, Port::Named(..))))
}

/// Whether its ports are what the other end calls them.
fn asks_peers(rule: &Rule) -> bool {
    rule.direction == Direction::Egress && rule.ports.iter().flatten().any(|port| matches!(port, Port::Named(..)))
}

/// What the names that a rule has are on a Pod with these.
fn resolve(rule: &Rule, named: &[(String, Protocol, u16)]) -> BTreeSet<Split> {
    let wanted = rule.ports.iter().flatten().filter_map(|port| match port {
        Port::Named(protocol, name) => Some((protocol, name)),
        _ => None,
    });
    let of = |(protocol, name): (&Option<Protocol>, &String)| {
        let (protocol, name) = (*protocol, name.clone());
        named.iter().filter(move |(n, p, _)| *n == name && protocol.is_none_or(|wanted| wanted == *p))
    };
    wanted.flat_map(of).map(|(_, protocol, port)| Split::Named(*protocol, *port)).collect()
}

impl Subject {
    pub(super) fn new(pod: &LocalPod, member: &Member) -> Self {
        Self { port: pod.port, named: member.ports.clone() }
    }
}

impl Installed {
    /// Puts a policy in the place of what was there; rules that are the same stay as they are.
    pub(super) fn new(name: &PolicyName, policy: &Arc<Policy>, old: Option<Self>, shared: &mut Shared) -> Self {
        let mut new =
            Self { policy: Arc::clone(policy), rules: Vec::new(), subjects: subjects(&policy.subject, shared) };
        let alike = |old: &Policy| {
            let is_same = (&old.subject, old.tier, old.is_audit) == (&policy.subject, policy.tier, policy.is_audit);
            is_same && old.isolates == policy.isolates
        };
        let mut kept = BTreeMap::new();
        if let Some(old) = old {
            old.isolate_all(false, shared);
            let Self { policy: before, rules, .. } = old;
            for (rule, mut placed) in before.rules.iter().zip(rules) {
                if alike(&before) && policy.rules.contains(rule) {
                    kept.insert((rule.direction, rule.index), placed);
                } else {
                    placed.remove(rule, shared);
                }
            }
        }
        for rule in &policy.rules {
            let placed = kept.remove(&(rule.direction, rule.index));
            let placed = placed.unwrap_or_else(|| Placed::new(name, policy, rule, &new.subjects, shared));
            new.rules.push(placed);
        }
        new.isolate_all(true, shared);
        new
    }

    /// Takes all of it away.
    pub(super) fn remove(mut self, shared: &mut Shared) {
        self.isolate_all(false, shared);
        for (rule, placed) in self.policy.rules.iter().zip(&mut self.rules) {
            placed.remove(rule, shared);
        }
    }

    /// Moves the rules whose priorities have changed.
    pub(super) fn reorder(&mut self, shared: &mut Shared) {
        for (rule, placed) in self.policy.rules.iter().zip(&mut self.rules) {
            if placed.priority != priority(&self.policy, rule, shared) {
                placed.remove(rule, shared);
                *placed = Placed::new(&self.policy.name, &self.policy, rule, &self.subjects, shared);
            }
        }
    }

    /// A Pod of this node is one of its subject.
    pub(super) fn join(&mut self, name: &Arc<str>, pod: &Subject, shared: &mut Shared) {
        for (rule, placed) in self.policy.rules.iter().zip(&mut self.rules) {
            placed.join(rule, name, pod, shared);
        }
        self.isolate(pod.port, true, shared);
        self.subjects.insert(Arc::clone(name), pod.clone());
    }

    /// A Pod of this node is no longer one of its subject.
    pub(super) fn leave(&mut self, name: &Arc<str>, pod: &Subject, shared: &mut Shared) {
        self.subjects.remove(name);
        self.isolate(pod.port, false, shared);
        for (rule, placed) in self.policy.rules.iter().zip(&mut self.rules) {
            placed.leave(rule, name, pod, shared);
        }
    }

    /// A member of a group that its rules name was as the one says, and will be as the other.
    pub(super) fn peer(
        &mut self,
        key: &GroupKey,
        name: &str,
        was: Option<&Member>,
        is: Option<&Member>,
        shared: &mut Shared,
    ) {
        for (rule, placed) in self.policy.rules.iter().zip(&mut self.rules) {
            for _ in groups_of(rule).filter(|group| *group == key) {
                // First what comes, so that what stays does not go in between.
                is.into_iter().for_each(|is| placed.member(rule, (name, is), true, shared));
                was.into_iter().for_each(|was| placed.member(rule, (name, was), false, shared));
            }
        }
    }

    fn isolate_all(&self, holds: bool, shared: &mut Shared) {
        self.subjects.values().for_each(|pod| self.isolate(pod.port, holds, shared));
    }

    fn isolate(&self, port: u32, holds: bool, shared: &mut Shared) {
        for direction in &self.policy.isolates {
            let name = FlowName {
                table: stage(Tier::Network, *direction).table(),
                priority: ISOLATED,
                matching: matches::subject(*direction, port),
            };
            let reason = Reason::Isolates {
                policy: self.policy.name.to_string().into(),
                direction: *direction,
                is_audit: self.policy.is_audit,
            };
            shared.index.count(name, reason, holds);
        }
    }
}

/// The Pods of this node that are in a group.
fn subjects(key: &GroupKey, shared: &Shared) -> BTreeMap<Arc<str>, Subject> {
    let Some(Group { members }) = shared.state.groups.get(key) else { return BTreeMap::new() };
    let pods = &shared.pods;
    if members.len() < pods.len() {
        let both = members.iter().filter_map(|(name, member)| Some((name, pods.get(name)?, member)));
        return both.map(|(name, pod, member)| (Arc::clone(name), Subject::new(pod, member))).collect();
    }
    let both = pods.iter().filter_map(|(name, pod)| Some((name, pod, members.get(name)?)));
    both.map(|(name, pod, member)| (Arc::clone(name), Subject::new(pod, member))).collect()
}

/// Calls with each member of a group; `act` does not look at the group.
fn each_member(key: &GroupKey, shared: &mut Shared, mut act: impl FnMut(&str, &Member, &mut Shared)) {
    let Some(group) = shared.state.groups.get_mut(key) else { return };
    let members = std::mem::take(&mut group.members);
    members.iter().for_each(|(name, member)| act(name, member, shared));
    if let Some(group) = shared.state.groups.get_mut(key) {
        group.members = members;
    }
}

fn priority(policy: &Policy, rule: &Rule, shared: &Shared) -> u16 {
    match policy.tier {
        Tier::Network if rule.peers.is_none() && rule.ports.is_none() => PLAIN,
        Tier::Network => CLAUSE,
        // Every rule that is told has one.
        _ => {
            let name = (policy.name.clone(), rule.direction, rule.index);
            shared.priorities.get(&name).copied().unwrap_or(1)
        }
    }
}

impl Placed {
    fn new(
        name: &PolicyName,
        policy: &Policy,
        rule: &Rule,
        subjects: &BTreeMap<Arc<str>, Subject>,
        shared: &mut Shared,
    ) -> Self {
        let mut placed = Self {
            tag: Arc::new(Tag::new(name, rule.direction, rule.index)),
            stage: stage(policy.tier, rule.direction),
            priority: priority(policy, rule, shared),
            verdict: match rule.action {
                Action::Accept => Verdict::Accept,
                Action::Deny if policy.is_audit => Verdict::Pass,
                Action::Deny => Verdict::Deny,
                Action::Pass => Verdict::Pass,
            },
            is_void: is_void(policy, rule),
            splits: BTreeMap::new(),
            subjects: BTreeMap::new(),
        };
        if asks_peers(rule) {
            placed.all_members(rule, true, shared);
        }
        for (name, pod) in subjects {
            placed.join(rule, name, pod, shared);
        }
        placed
    }

    /// Takes all of it away. Its number is free then.
    fn remove(&mut self, rule: &Rule, shared: &mut Shared) {
        let splits: Vec<(Split, Use)> = self.splits.iter().map(|(split, of)| (*split, *of)).collect();
        for (split, of) in splits {
            self.end(rule, split, of.id, false, shared);
            for port in self.subjects.values() {
                self.subject(rule, of.id, *port, false, shared);
            }
            self.peers(rule, split, of.id, false, shared);
        }
        self.splits.clear();
        self.subjects.clear();
        self.numbers(shared);
    }

    /// The conjunctions that a Pod makes there be: of those that ask for names of the other end it makes none.
    fn splits_of(rule: &Rule, pod: &Subject) -> BTreeSet<Split> {
        let mut splits = match rule.direction {
            Direction::Ingress => resolve(rule, &pod.named),
            Direction::Egress => BTreeSet::new(),
        };
        splits.extend(has_fixed(rule).then_some(Split::Fixed));
        splits
    }

    fn join(&mut self, rule: &Rule, name: &Arc<str>, pod: &Subject, shared: &mut Shared) {
        if self.is_void {
            return;
        }
        self.subjects.insert(Arc::clone(name), pod.port);
        let own = Self::splits_of(rule, pod);
        for split in &own {
            let id = self.begin(rule, *split, shared);
            self.subject(rule, id, pod.port, true, shared);
        }
        self.for_others(rule, pod, true, shared);
    }

    fn leave(&mut self, rule: &Rule, name: &Arc<str>, pod: &Subject, shared: &mut Shared) {
        if self.is_void {
            return;
        }
        self.subjects.remove(name);
        for split in Self::splits_of(rule, pod) {
            let Some(of) = self.splits.get(&split).copied() else { continue };
            self.subject(rule, of.id, pod.port, false, shared);
            self.cease(rule, split, shared);
        }
        self.for_others(rule, pod, false, shared);
    }

    /// A subject in the conjunctions that are there for the other end's names.
    fn for_others(&self, rule: &Rule, pod: &Subject, holds: bool, shared: &mut Shared) {
        if asks_peers(rule) {
            let named = self.splits.iter().filter(|(split, _)| **split != Split::Fixed);
            named.for_each(|(_, of)| self.subject(rule, of.id, pod.port, holds, shared));
        }
    }

    /// A Pod makes there be a conjunction; its number. One that comes by a subject comes with all the other ends.
    fn begin(&mut self, rule: &Rule, split: Split, shared: &mut Shared) -> u32 {
        if let Some(of) = self.splits.get_mut(&split) {
            of.pods += 1;
            return of.id;
        }
        self.splits.insert(split, Use { id: 0, pods: 1 });
        let id = self.numbers(shared).get(&split_name(split)).copied().unwrap_or_default();
        self.splits.insert(split, Use { id, pods: 1 });
        shared.rules.insert(id, Arc::clone(&self.tag));
        self.end(rule, split, id, true, shared);
        if split == Split::Fixed || !asks_peers(rule) {
            self.peers(rule, split, id, true, shared);
        } else {
            for port in self.subjects.values() {
                self.subject(rule, id, *port, true, shared);
            }
        }
        id
    }

    /// The inverse of [`Self::begin`].
    fn cease(&mut self, rule: &Rule, split: Split, shared: &mut Shared) {
        let Some(of) = self.splits.get_mut(&split) else { return };
        of.pods = of.pods.saturating_sub(1);
        if of.pods > 0 {
            return;
        }
        let id = of.id;
        self.end(rule, split, id, false, shared);
        if split == Split::Fixed || !asks_peers(rule) {
            self.peers(rule, split, id, false, shared);
        } else {
            for port in self.subjects.values() {
                self.subject(rule, id, *port, false, shared);
            }
        }
        self.splits.remove(&split);
        self.numbers(shared);
    }

    /// Settles the numbers of its conjunctions with all others'.
    fn numbers(&self, shared: &mut Shared) -> BTreeMap<String, u32> {
        let name = format!("{}{}", self.tag.text, self.tag.rest);
        shared.ids.of(&name, self.splits.keys().map(|split| split_name(*split)))
    }

    /// What is behind a conjunction, and its ports.
    fn end(&self, rule: &Rule, split: Split, id: u32, holds: bool, shared: &mut Shared) {
        if !holds {
            shared.rules.remove(&id);
        }
        let clauses = clauses(rule);
        if clauses > 1 {
            shared.index.count(self.name(format!("conj_id={id}")), self.says(id), holds);
        }
        if rule.ports.is_none() {
            return;
        }
        let add = |shared: &mut Shared, protocol, first, last| {
            for family in shared.families.clone() {
                for matching in matches::ports(family, protocol, first, last) {
                    let reason = self.clause(id, clauses, clauses);
                    shared.index.count(self.name(matching), reason, holds);
                }
            }
        };
        match split {
            Split::Named(protocol, port) => add(shared, protocol, port, port),
            Split::Fixed => {
                for port in rule.ports.iter().flatten() {
                    match port {
                        Port::All(protocol) => add(shared, *protocol, 0, u16::MAX),
                        Port::Range(protocol, first, last) => add(shared, *protocol, *first, *last),
                        Port::Named(..) => {}
                    }
                }
            }
        }
    }

    /// A Pod in a conjunction, or alone.
    fn subject(&self, rule: &Rule, id: u32, port: u32, holds: bool, shared: &mut Shared) {
        let clauses = clauses(rule);
        let reason = if clauses == 1 { self.says(id) } else { self.clause(id, 1, clauses) };
        shared.index.count(self.name(matches::subject(rule.direction, port)), reason, holds);
    }

    /// All other ends of a conjunction, as they are now.
    fn peers(&self, rule: &Rule, split: Split, id: u32, holds: bool, shared: &mut Shared) {
        let Some(peers) = &rule.peers else { return };
        let is_by_name = split != Split::Fixed && asks_peers(rule);
        for peer in peers {
            match peer {
                Peer::Net { net, except } if !is_by_name => {
                    for net in matches::without(net, except) {
                        self.other_end(rule, id, &net, holds, shared);
                    }
                }
                Peer::Net { .. } => {}
                Peer::Group(key) => each_member(key, shared, |name, member, shared| {
                    if !is_by_name || resolve(rule, &member.ports).contains(&split) {
                        self.addresses(rule, id, (name, member), holds, shared);
                    }
                }),
            }
        }
    }

    fn all_members(&mut self, rule: &Rule, holds: bool, shared: &mut Shared) {
        for key in groups_of(rule) {
            each_member(key, shared, |name, member, shared| self.member(rule, (name, member), holds, shared));
        }
    }

    /// A member of a group comes or goes.
    fn member(&mut self, rule: &Rule, (name, member): (&str, &Member), holds: bool, shared: &mut Shared) {
        if self.is_void {
            return;
        }
        if !asks_peers(rule) {
            for of in self.splits.values() {
                self.addresses(rule, of.id, (name, member), holds, shared);
            }
            return;
        }
        if let Some(of) = self.splits.get(&Split::Fixed) {
            self.addresses(rule, of.id, (name, member), holds, shared);
        }
        for split in resolve(rule, &member.ports) {
            if holds {
                let id = self.begin(rule, split, shared);
                self.addresses(rule, id, (name, member), true, shared);
            } else if let Some(of) = self.splits.get(&split).copied() {
                self.addresses(rule, of.id, (name, member), false, shared);
                self.cease(rule, split, shared);
            }
        }
    }

    fn addresses(&self, rule: &Rule, id: u32, (name, member): (&str, &Member), holds: bool, shared: &mut Shared) {
        let known = shared.pods.get(name).filter(|_| member.addresses.is_empty());
        let addresses: BTreeSet<IpAddr> =
            known.map_or(&member.addresses, |pod| &pod.addresses).iter().copied().collect();
        for address in addresses {
            self.other_end(rule, id, &matches::host(address), holds, shared);
        }
    }

    fn other_end(&self, rule: &Rule, id: u32, net: &ipnet::IpNet, holds: bool, shared: &mut Shared) {
        if shared.families.contains(&Family::of_net(net)) {
            let name = self.name(matches::peer(rule.direction, net));
            shared.index.count(name, self.clause(id, 2, clauses(rule)), holds);
        }
    }

    fn name(&self, matching: String) -> FlowName {
        FlowName { table: self.stage.table(), priority: self.priority, matching }
    }

    fn clause(&self, id: u32, clause: u8, of: u8) -> Reason {
        Reason::Clause { id, clause, of, rule: Arc::clone(&self.tag) }
    }

    fn says(&self, id: u32) -> Reason {
        Reason::Says { rule: Arc::clone(&self.tag), id, verdict: self.verdict }
    }
}

/// How many clauses a rule has.
fn clauses(rule: &Rule) -> u8 {
    1 + u8::from(rule.peers.is_some()) + u8::from(rule.ports.is_some())
}

/// What a conjunction is called among those of its rule.
fn split_name(split: Split) -> String {
    match split {
        Split::Fixed => String::new(),
        Split::Named(protocol, port) => format!("{}:{port}", protocol.name()),
    }
}
