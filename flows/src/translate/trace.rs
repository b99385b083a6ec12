//! Watching a translation: every step is told to a [`TraceSink`]. The switch's own sink is silent and costs nothing.

use super::{MacLookup, Walk};
use crate::action::{Action, Conjunction, Subfield};
use crate::bridge::{Bridge, BridgePort};
use crate::datapath::Learned;
use crate::field::{FIELDS, Field};
use crate::group::{Bucket, Group};
use crate::key::{FlowKey, FlowMask};
use crate::port::PortNo;
use crate::rule::{Rule, TableId};
use std::sync::Arc;

/// A step of a translation.
#[derive(Clone, Copy, Debug)]
pub enum TraceEvent<'a> {
    /// The packet enters a bridge.
    Bridge {
        /// The bridge.
        bridge: &'a Bridge,
        /// The port it enters by.
        in_port: PortNo,
    },
    /// A table was looked up.
    Lookup {
        /// The table.
        table: TableId,
        /// The rule that matched, if any did.
        rule: Option<&'a Arc<Rule>>,
    },
    /// Bits of the packet itself that the lookup just told depends on, and that nothing before it depended on.
    Read(&'a FlowMask),
    /// A rule that satisfies one clause of the conjunction that the lookup just told found.
    Clause {
        /// The clause.
        clause: Conjunction,
        /// The rule.
        rule: &'a Arc<Rule>,
    },
    /// An action is about to be done.
    Action(&'a Action),
    /// The action just told gave a field another value.
    Changed(FieldChange),
    /// The packet is sent.
    Output(&'a BridgePort),
    /// The packet comes to a group.
    Group {
        /// The group.
        group: &'a Arc<Group>,
        /// Which of its buckets are done, by index.
        chosen: &'a [usize],
    },
    /// A bucket is about to be done.
    Bucket(&'a Bucket),
    /// The packet makes a flow.
    Learned(&'a Learned),
    /// The action set is now this, in the order in which it is done if nothing is added.
    ActionSet(&'a [Action]),
    /// The action set is about to be done.
    ActionSetDone,
    /// A copy of the packet goes through the connection tracker, and on in this table.
    Forked(TableId),
    /// What the step just told came to.
    Note(&'static str),
    /// Why the step just told came to nothing.
    Warning(&'static str),
    /// The walk is over: the packet as the tables see it.
    End(&'a FlowKey),
}

/// A field that got another value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldChange {
    /// The field, whole.
    pub field: Field,
    /// Its value before.
    pub before: u128,
    /// Its value now.
    pub after: u128,
}

/// Who is told of each step.
pub trait TraceSink {
    /// False for a sink that does nothing, so that events are not even made.
    const ACTIVE: bool = true;

    /// Takes a step; `depth` is the number of lists, floods and bridges that it is nested in.
    fn event(&mut self, depth: usize, event: TraceEvent<'_>);
}

/// The silent sink.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTrace;

impl TraceSink for NoTrace {
    const ACTIVE: bool = false;

    fn event(&mut self, _: usize, _: TraceEvent<'_>) {}
}

/// A sink that keeps every step.
#[derive(Clone, Debug, Default)]
pub struct TraceLog {
    /// The steps with their depths, in order.
    pub steps: Vec<(usize, TraceStep)>,
}

/// A [`TraceEvent`] that owns what it names.
#[derive(Clone, Debug)]
pub enum TraceStep {
    /// The packet enters a bridge.
    Bridge {
        /// Its name.
        name: Arc<str>,
        /// The port it enters by.
        in_port: PortNo,
    },
    /// A table was looked up.
    Lookup {
        /// The table.
        table: TableId,
        /// The rule that matched, if any did.
        rule: Option<Arc<Rule>>,
    },
    /// Bits of the packet itself that the lookup just told depends on, and that nothing before it depended on.
    Read(Box<FlowMask>),
    /// A rule that satisfies one clause of the conjunction that the lookup just told found.
    Clause {
        /// The clause.
        clause: Conjunction,
        /// The rule.
        rule: Arc<Rule>,
    },
    /// An action is about to be done.
    Action(Action),
    /// The action just told gave a field another value.
    Changed(FieldChange),
    /// The packet is sent by this port.
    Output {
        /// Its number in the bridge.
        no: PortNo,
        /// Its name.
        name: Arc<str>,
    },
    /// The packet comes to a group.
    Group {
        /// The group.
        group: Arc<Group>,
        /// Which of its buckets are done, by index.
        chosen: Vec<usize>,
    },
    /// A bucket is about to be done.
    Bucket(Bucket),
    /// The packet makes a flow.
    Learned(Box<Learned>),
    /// The action set is now this, in the order in which it is done if nothing is added.
    ActionSet(Vec<Action>),
    /// The action set is about to be done.
    ActionSetDone,
    /// A copy of the packet goes through the connection tracker, and on in this table.
    Forked(TableId),
    /// What the step just told came to.
    Note(&'static str),
    /// Why the step just told came to nothing.
    Warning(&'static str),
    /// The walk is over: the packet as the tables see it.
    End(Box<FlowKey>),
}

impl TraceSink for TraceLog {
    fn event(&mut self, depth: usize, event: TraceEvent<'_>) {
        let step = match event {
            TraceEvent::Bridge { bridge, in_port } => TraceStep::Bridge { name: Arc::clone(&bridge.name), in_port },
            TraceEvent::Lookup { table, rule } => TraceStep::Lookup { table, rule: rule.cloned() },
            TraceEvent::Read(mask) => TraceStep::Read(Box::new(*mask)),
            TraceEvent::Clause { clause, rule } => TraceStep::Clause { clause, rule: Arc::clone(rule) },
            TraceEvent::Action(action) => TraceStep::Action(action.clone()),
            TraceEvent::Changed(change) => TraceStep::Changed(change),
            TraceEvent::ActionSet(actions) => TraceStep::ActionSet(actions.to_vec()),
            TraceEvent::ActionSetDone => TraceStep::ActionSetDone,
            TraceEvent::Forked(table) => TraceStep::Forked(table),
            TraceEvent::End(key) => TraceStep::End(Box::new(*key)),
            TraceEvent::Output(port) => TraceStep::Output { no: port.no, name: Arc::clone(&port.name) },
            TraceEvent::Group { group, chosen } => {
                TraceStep::Group { group: Arc::clone(group), chosen: chosen.to_vec() }
            }
            TraceEvent::Bucket(bucket) => TraceStep::Bucket(bucket.clone()),
            TraceEvent::Learned(learned) => TraceStep::Learned(Box::new(learned.clone())),
            TraceEvent::Note(text) => TraceStep::Note(text),
            TraceEvent::Warning(text) => TraceStep::Warning(text),
        };
        self.steps.push((depth, step));
    }
}

impl<M: MacLookup, S: TraceSink> Walk<'_, M, S> {
    /// Tells what the lookup of `table` came to besides its rule: the bits of the packet that it was the first to look
    /// at (`read`), and, if it found a conjunction, a rule for each of its clauses. `key` is what was looked up.
    pub(super) fn tell_lookup(&mut self, table: TableId, found: Option<&Arc<Rule>>, key: &FlowKey, read: &FlowMask) {
        if *read != FlowMask::ZERO {
            self.tell(TraceEvent::Read(read));
        }
        let Some((id, _)) = found.map(|rule| rule.spec.matches.field(Field::ConjId)).filter(|(_, mask)| *mask != 0)
        else {
            return;
        };
        let mut told = 0_u64;
        let mut rules: Vec<_> =
            self.bridge.tables.iter_table(table).filter(|rule| rule.spec.matches.matches(key)).collect();
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.spec.priority));
        for rule in rules {
            let clause = rule.spec.actions.iter().find_map(|action| match action {
                Action::Conjunction(clause) if u128::from(clause.id) == id => Some(*clause),
                _ => None,
            });
            let Some(clause) = clause.filter(|clause| told >> (clause.clause & 63) & 1 == 0) else { continue };
            told |= 1 << (clause.clause & 63);
            self.tell(TraceEvent::Clause { clause, rule });
        }
    }

    /// Tells why a step came to nothing.
    pub(super) fn warn(&mut self, text: &'static str) {
        if S::ACTIVE {
            self.tell(TraceEvent::Warning(text));
        }
    }

    /// Tells which fields have another value than `before`; the field that `action` copies bits into in any case. An
    /// action that began something new (a list, a bridge), so that more than `depth` works are left, is told by what
    /// it began.
    pub(super) fn tell_changes(&mut self, action: &Action, (before, depth): (FlowKey, usize)) {
        let copied = action.copies_into().map(|dst| dst.field);
        if before == self.flow.key && copied.is_none() || self.stack.len() > depth {
            return;
        }
        for info in FIELDS.iter().filter(|info| is_told(info.field)) {
            let (old, new) = (before.get(info.slot), self.flow.key.get(info.slot));
            let told = old != new || copied == Some(info.field);
            if told && info.prereq.holds(&self.flow.key, &mut { FlowMask::ZERO }) {
                self.tell(TraceEvent::Changed(FieldChange { field: info.field, before: old, after: new }));
            }
        }
    }
}

impl Action {
    /// Where an action puts bits that it does not say itself.
    pub(crate) fn copies_into(&self) -> Option<Subfield> {
        match self {
            Self::Move { dst, .. } | Self::Pop(dst) => Some(*dst),
            Self::Multipath(multipath) => Some(multipath.dst),
            Self::Bundle(bundle) => bundle.dst,
            _ => None,
        }
    }
}

/// Whether changes are told by this field's name: of fields that share bits, one is.
fn is_told(field: Field) -> bool {
    let name = field.info().name;
    let wide = name.starts_with("xreg") || name.starts_with("xxreg");
    !wide && !matches!(field, Field::VlanVid | Field::VlanPcp | Field::IpDscp | Field::ActsetOutput | Field::InPort)
}
