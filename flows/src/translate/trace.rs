//! Watching a translation: every step is told to a [`TraceSink`]. The switch's own sink is silent and costs nothing.

use crate::action::Action;
use crate::bridge::{Bridge, BridgePort};
use crate::datapath::Learned;
use crate::group::{Bucket, Group};
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
    /// An action is about to be done.
    Action(&'a Action),
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
    /// What the step just told came to.
    Note(&'static str),
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
    /// An action is about to be done.
    Action(Action),
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
    /// What the step just told came to.
    Note(&'static str),
}

impl TraceSink for TraceLog {
    fn event(&mut self, depth: usize, event: TraceEvent<'_>) {
        let step = match event {
            TraceEvent::Bridge { bridge, in_port } => TraceStep::Bridge { name: Arc::clone(&bridge.name), in_port },
            TraceEvent::Lookup { table, rule } => TraceStep::Lookup { table, rule: rule.cloned() },
            TraceEvent::Action(action) => TraceStep::Action(action.clone()),
            TraceEvent::Output(port) => TraceStep::Output { no: port.no, name: Arc::clone(&port.name) },
            TraceEvent::Group { group, chosen } => {
                TraceStep::Group { group: Arc::clone(group), chosen: chosen.to_vec() }
            }
            TraceEvent::Bucket(bucket) => TraceStep::Bucket(bucket.clone()),
            TraceEvent::Learned(learned) => TraceStep::Learned(Box::new(learned.clone())),
            TraceEvent::Note(text) => TraceStep::Note(text),
        };
        self.steps.push((depth, step));
    }
}
