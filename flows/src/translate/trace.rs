//! Watching a translation: every step is told to a [`TraceSink`]. The switch's own sink is silent and costs nothing.

use crate::action::Action;
use crate::bridge::{Bridge, BridgePort};
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
            TraceEvent::Note(text) => TraceStep::Note(text),
        };
        self.steps.push((depth, step));
    }
}
