//! The walk through the tables as steps, and as lines in the shape of OVS's `ofproto/trace`.
//!
//! The steps of a translation come with the number of works that each is nested in; here they become a tree: bridges,
//! tables, buckets and the action set hold what happened in them, and a table that `goto_table` leads to stands in the
//! table that it was left by, as in OVS. The tree is kept flat, as steps with their depths, so that no table can make
//! it too deep to print.

use crate::action::Action;
use crate::bridge::{Bridge, Model};
use crate::datapath::Resume;
use crate::group::{Bucket, Group, GroupKind};
use crate::key::{FRAME_WORDS, FlowKey, FlowMask};
use crate::matching::Match;
use crate::rule::{Rule, TableId};
use crate::text::{Names, show_action, show_actions, show_flow, show_match, show_value};
use crate::translate::{FieldChange, TraceLog, TraceStep};
use std::fmt;
use std::sync::Arc;

/// Widest indentation: deeper steps are not printed further to the right.
const MAX_INDENT: usize = 256;

/// What a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A bridge is entered.
    Bridge,
    /// Where a later pass begins.
    Thaw,
    /// A table was looked up, or the action set is done.
    Table,
    /// An action is done.
    Action,
    /// A group's bucket is done.
    Bucket,
    /// What the step before came to.
    Detail,
    /// Why the step before came to nothing.
    Warning,
    /// A field that the step before changed, which is only printed when details are asked for.
    Change,
}

impl Kind {
    /// The word for it in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Thaw => "thaw",
            Self::Table => "table",
            Self::Action => "action",
            Self::Bucket => "bucket",
            Self::Detail => "detail",
            Self::Warning => "warning",
            Self::Change => "change",
        }
    }

    /// Whether steps of this kind are indented even when nothing follows beside them.
    const fn is_leaf(self) -> bool {
        !matches!(self, Self::Bridge | Self::Thaw | Self::Table)
    }
}

/// A step of the walk.
#[derive(Clone, Debug)]
pub struct Step {
    /// Number of steps that it is nested in.
    pub depth: usize,
    /// What it is.
    pub kind: Kind,
    /// Its line, without indentation.
    pub text: String,
    /// The table that was looked up.
    pub table: Option<TableId>,
    /// The rule that matched there.
    pub rule: Option<Arc<Rule>>,
    /// What the lookup was the first to look at, and the rule does not match on; as a match.
    pub read: String,
}

impl Step {
    fn new(depth: usize, kind: Kind, text: impl Into<String>) -> Self {
        Self { depth, kind, text: text.into(), table: None, rule: None, read: String::new() }
    }
}

/// Makes the tree of steps.
pub(super) struct Telling<'a> {
    model: &'a Model,
    /// The packet as it came in.
    packet: &'a FlowKey,
    /// Ports are told by name.
    names: bool,
    /// The names of the bridge at hand.
    words: Names,
    bridge: Option<Arc<Bridge>>,
    steps: Vec<Step>,
    /// What is open: number of works that it is nested in, and depth in the tree.
    open: Vec<(usize, usize)>,
    /// The action that was told last.
    action: Option<Action>,
}

impl<'a> Telling<'a> {
    pub(super) fn new(model: &'a Model, packet: &'a FlowKey, names: bool) -> Self {
        let (words, steps, open) = (Names::new(), Vec::new(), Vec::new());
        Self { model, packet, names, words, bridge: None, steps, open, action: None }
    }

    /// The steps of a translation; of one that goes on at `resume`, if that is given.
    pub(super) fn tell(mut self, log: &TraceLog, resume: Option<&Resume>) -> Vec<Step> {
        if let Some(resume) = resume {
            if let Some(bridge) = self.model.bridge(resume.bridge) {
                self.enter(1, &Arc::clone(&bridge.name));
            }
            let depth = self.push(Kind::Thaw, "thaw");
            let place = if resume.lists.is_empty() { "from" } else { "the actions of" };
            self.steps.push(Step::new(depth + 1, Kind::Thaw, format!("Resuming {place} table {}", resume.table)));
        }
        for (works, step) in &log.steps {
            // The first bridge is nested in nothing and holds everything: it counts as one work.
            self.step(works + 1, step);
        }
        self.steps
    }

    fn step(&mut self, works: usize, step: &TraceStep) {
        match step {
            TraceStep::Bridge { name, .. } => self.enter(works, name),
            TraceStep::Lookup { table, rule } => self.lookup(works, *table, rule.as_ref()),
            TraceStep::Read(mask) => self.read(mask),
            TraceStep::Clause { clause, rule } => {
                let (id, number, count) = (clause.id, u16::from(clause.clause) + 1, clause.clauses);
                let text = format!("conjunction {id}, clause {number}/{count}: {}", self.rule_line(rule));
                self.inside(text);
            }
            TraceStep::Action(action) => {
                let text = show_action(action, &self.words).to_string();
                self.action = Some(action.clone());
                self.add(works, Kind::Action, text);
            }
            TraceStep::Changed(change) => self.changed(works, change),
            TraceStep::Output { no, name } => {
                // Where the action says the port, there is nothing to add.
                let said = matches!(&self.action, Some(
                    Action::Output(to) | Action::OutputTruncated { port: to, .. } | Action::Enqueue { port: to, .. }
                ) if to == no);
                if !said {
                    self.add(works, Kind::Detail, format!("output to port {no} ({name})"));
                }
            }
            TraceStep::Group { group, chosen } => self.group(works, group, chosen),
            TraceStep::Bucket(bucket) => {
                self.close(works);
                let depth = self.push(Kind::Bucket, format!("bucket {}", bucket.id));
                self.open.push((works, depth));
            }
            TraceStep::Learned(learned) => {
                let text = format!("learns: {}", show_flow(&learned.spec, None, &self.words));
                self.add(works, Kind::Detail, text);
            }
            TraceStep::ActionSet(actions) if actions.is_empty() => {
                self.add(works, Kind::Detail, "action set has no output");
            }
            TraceStep::ActionSet(actions) => {
                let text = format!("action set is: {}", show_actions(actions, &self.words));
                self.add(works, Kind::Detail, text);
            }
            TraceStep::ActionSetDone => {
                // It belongs to the first table of its bridge, whatever led on from there.
                let bridge = self.open.iter().rposition(|(_, depth)| {
                    self.steps.iter().rev().find(|step| step.depth == *depth).is_some_and(|s| s.kind == Kind::Bridge)
                });
                self.open.truncate(bridge.map_or(0, |bridge| bridge + 2));
                let depth = self.push(Kind::Table, "--. Executing action set:");
                self.open.push((works, depth));
            }
            TraceStep::Forked(table) => {
                let text =
                    "A clone of the packet is forked to recirculate. The forked pipeline will be resumed at table";
                self.add(works, Kind::Detail, format!("{text} {table}."));
            }
            TraceStep::Note(text) => self.add(works, Kind::Detail, *text),
            TraceStep::Warning(text) => self.add(works, Kind::Warning, *text),
            TraceStep::End(_) => {}
        }
    }

    /// Ends what is not around a step that is nested in so many works.
    fn close(&mut self, works: usize) {
        while self.open.last().is_some_and(|(open, _)| *open >= works) {
            self.open.pop();
        }
    }

    /// Adds a step to what is open. Returns its depth.
    fn push(&mut self, kind: Kind, text: impl Into<String>) -> usize {
        let depth = self.open.last().map_or(0, |(_, depth)| depth + 1);
        self.steps.push(Step::new(depth, kind, text));
        depth
    }

    /// Adds a step that nothing is nested in.
    fn add(&mut self, works: usize, kind: Kind, text: impl Into<String>) {
        // What is said right behind the opening of something belongs there.
        let opened = self.steps.last().is_some_and(|last| matches!(last.kind, Kind::Table | Kind::Bucket));
        let is_first = kind != Kind::Action && opened && self.open.last().is_some_and(|(open, _)| *open == works);
        if !is_first {
            self.close(works);
        }
        self.push(kind, text);
    }

    /// Adds a detail of the lookup told last.
    fn inside(&mut self, text: String) {
        self.push(Kind::Detail, text);
    }

    fn enter(&mut self, works: usize, name: &Arc<str>) {
        self.close(works);
        self.bridge = self.model.bridge_named(name).cloned();
        if self.names
            && let Some(bridge) = &self.bridge
        {
            self.words = Names::of_bridge(bridge);
        }
        let depth = self.push(Kind::Bridge, format!("bridge(\"{name}\")"));
        // The lookup that follows is nested in as many works.
        self.open.push((works.saturating_sub(1), depth));
    }

    fn lookup(&mut self, works: usize, table: TableId, rule: Option<&Arc<Rule>>) {
        let follows_goto = matches!(self.action, Some(Action::GotoTable(_)))
            && self.steps.last().is_some_and(|last| last.kind == Kind::Action);
        if !follows_goto {
            self.close(works);
        }
        let text = match rule {
            Some(rule) => format!("{table:>2}. {}", self.rule_line(rule)),
            None => format!("{table:>2}. No match."),
        };
        let depth = self.push(Kind::Table, text);
        if let Some(step) = self.steps.last_mut() {
            (step.table, step.rule) = (Some(table), rule.cloned());
        }
        self.open.push((works, depth));
        self.action = None;
        if rule.is_none_or(|rule| rule.spec.actions.is_empty()) {
            self.push(Kind::Action, "drop");
        }
    }

    /// A rule in a line: what it matches, its priority, its cookie if it has one, and its owner.
    fn rule_line(&self, rule: &Rule) -> String {
        let spec = &rule.spec;
        let mut text = String::new();
        if !spec.matches.is_any() {
            text = format!("{}, ", show_match(&spec.matches, &self.words));
        }
        text += &format!("priority {}", spec.priority);
        if spec.cookie != 0 {
            text += &format!(", cookie {:#x}", spec.cookie);
        }
        text + &format!("  [{}]", spec.owner)
    }

    fn read(&mut self, mask: &FlowMask) {
        let Some(step) = self.steps.iter_mut().rev().find(|step| step.kind == Kind::Table) else { return };
        let beyond = match &step.rule {
            Some(rule) => mask.without(&rule.spec.matches.mask()),
            None => *mask,
        };
        step.read = show_match(&Match::new(self.packet, &beyond), &self.words).to_string();
    }

    fn changed(&mut self, works: usize, change: &FieldChange) {
        let FieldChange { field, before, after } = *change;
        let destination = self.action.as_ref().and_then(Action::copies_into);
        if let Some(dst) = destination.filter(|dst| dst.field == field) {
            let value = show_value(field, (after & dst.mask()) >> dst.ofs).to_string();
            return self.add(works, Kind::Detail, format!("{} is now {value}", subfield(&Action::Pop(dst))));
        }
        let (old, new) = (show_value(field, before), show_value(field, after));
        let text = format!("{}={new} (was {old})", field.info().match_name);
        // What becomes of headers is told at the end, as the packet; registers are gone by then. That the packet is
        // untracked is told in words.
        let header = (1..FRAME_WORDS).contains(&usize::from(field.slot().word)) || field.info().name.starts_with("ct_");
        self.add(works, if header { Kind::Change } else { Kind::Detail }, text);
    }

    fn group(&mut self, works: usize, group: &Group, chosen: &[usize]) {
        if matches!(group.kind, GroupKind::All | GroupKind::Indirect) {
            return;
        }
        for (index, bucket) in group.buckets.iter().enumerate() {
            if chosen.contains(&index) {
                continue;
            }
            let why = match self.why_dead(bucket) {
                Some(why) => format!("bucket {}: not live due to {why}", bucket.id),
                None if group.kind == GroupKind::Select && bucket.weight == 0 => {
                    format!("bucket {}: weight 0, never chosen", bucket.id)
                }
                None => format!("bucket {}: live, not chosen", bucket.id),
            };
            self.add(works, Kind::Detail, why);
        }
        for bucket in chosen.iter().filter_map(|index| group.buckets.get(*index)) {
            self.add(works, Kind::Detail, format!("using bucket {}", bucket.id));
        }
    }

    /// What a bucket watches, if it is not live because of that.
    fn why_dead(&self, bucket: &Bucket) -> Option<String> {
        let bridge = self.bridge.as_ref()?;
        if let Some(no) = bucket.watch_port
            && !bridge.ports.get(&no).is_some_and(|port| port.up)
            && bucket.watch_group.is_none()
        {
            return Some(format!("port {no}"));
        }
        let id = bucket.watch_group?;
        let alive = |bucket: &Bucket| match bucket.watch_port {
            Some(no) => bridge.ports.get(&no).is_some_and(|port| port.up),
            None => true,
        };
        let live = bridge.groups.get(&id).is_some_and(|group| group.buckets.iter().any(alive));
        (!live).then(|| format!("group {id}"))
    }
}

/// The subfield that a `pop` names.
fn subfield(pop: &Action) -> String {
    show_action(pop, Names::NONE).to_string().trim_start_matches("pop:").to_owned()
}

/// The steps as lines, each ended by a line break; those of [`Kind::Change`] only where `verbose` is true.
pub fn show_steps(steps: &[Step], verbose: bool) -> impl fmt::Display + '_ {
    fmt::from_fn(move |f| {
        let shown: Vec<&Step> = steps.iter().filter(|step| verbose || step.kind != Kind::Change).collect();
        let followed = followed(&shown);
        // The level of what is nested in the steps around the one at hand.
        let mut levels: Vec<usize> = Vec::new();
        for (step, followed) in shown.iter().zip(followed) {
            levels.truncate(step.depth);
            let level = levels.last().copied().unwrap_or(0);
            let further = usize::from(followed || step.kind.is_leaf());
            levels.resize(step.depth, level);
            levels.push(level + 2 * further);
            if step.kind == Kind::Bridge {
                f.write_str("\n")?;
            }
            let indent = ((level + further) * 4).min(MAX_INDENT);
            let arrow = match step.kind {
                Kind::Detail | Kind::Change => " -> ",
                Kind::Warning => " >> ",
                _ => "",
            };
            writeln!(f, "{:indent$}{arrow}{}", "", step.text)?;
            if step.kind == Kind::Bridge {
                writeln!(f, "{:-<1$}", "", step.text.chars().count())?;
            }
        }
        Ok(())
    })
}

/// For each step, whether another one follows beside it.
fn followed(steps: &[&Step]) -> Vec<bool> {
    let mut open = Vec::new();
    let mut followed: Vec<bool> = steps
        .iter()
        .rev()
        .map(|step| {
            open.resize(step.depth + 1, false);
            std::mem::replace(&mut open[step.depth], true)
        })
        .collect();
    followed.reverse();
    followed
}

/// The fields that lookups looked at although no rule that they found matches on them, by table; a line each.
pub(super) fn show_unmatched(steps: &[Step]) -> impl fmt::Display + '_ {
    fmt::from_fn(move |f| {
        let read = steps.iter().filter(|step| !step.read.is_empty());
        read.clone().next().map_or(Ok(()), |_| writeln!(f, "Looked at but not matched on:"))?;
        for step in read {
            if let Some(table) = step.table {
                writeln!(f, "{table:>2}. {}", step.read)?;
            }
        }
        Ok(())
    })
}
