//! Dumps of flows as lines, as `ovs-ofctl dump-flows` prints them.
//!
//! Most dumps are read by people and by scripts that want the lines, and a large one is several times faster as lines
//! than as messages of twenty fields for each flow. The lines are made on a few threads, which take turns.

use super::{ActionTexts, in_order};
use sluice_flows::bridge::Bridge;
use sluice_flows::filter::FlowFilter;
use sluice_flows::rule::{DEFAULT_PRIORITY, Millis, Rule};
use sluice_flows::text::{Names, show_match};
use sluice_proto::v1::DumpFlowsReply;
use std::fmt::{self, Write};
use std::ops::Range;
use std::sync::mpsc::sync_channel;
use std::thread;
use tonic::Status;

/// Least flows that one thread prints in its turn, unless they are the last.
const TURN: usize = 1_000;
/// Most bytes of lines in one message, more or less.
const MESSAGE_LEN: usize = 256 << 10;
/// Most threads that print.
const MAX_THREADS: usize = 4;
/// Messages that a thread may be ahead of its turn.
const AHEAD: usize = 4;

/// What lines show.
#[derive(Clone, Copy)]
pub(super) struct Style {
    /// Counters and times too.
    pub(super) stats: bool,
    /// Only flows that a packet has matched.
    pub(super) nonzero: bool,
    /// The moment that times are told for.
    pub(super) now: Millis,
}

/// What a thread has printed; the last of its turn says so.
struct Printed {
    lines: String,
    last: bool,
}

/// Sends the lines of the flows that `filter` selects, in the order of dumps, until `send` does not take more.
pub(super) fn dump(
    bridge: &Bridge,
    filter: &FlowFilter,
    names: &Names,
    style: Style,
    send: &dyn Fn(DumpFlowsReply) -> bool,
) -> Result<(), Status> {
    let rules = in_order(bridge, filter, style.nonzero);
    let turns = turns(&rules);
    let send = |lines: String| send(DumpFlowsReply { lines, ..DumpFlowsReply::default() });
    let count = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS).min(turns.len());
    if count < 2 {
        let mut printer = Printer::new(names, style);
        for turn in turns {
            if !printer.print(&rules[turn], |printed| send(printed.lines)) {
                break;
            }
        }
        return Ok(());
    }
    thread::scope(|scope| {
        let mut receivers = Vec::with_capacity(count);
        for own in 0..count {
            let (sender, receiver) = sync_channel(AHEAD);
            let (rules, turns) = (&rules, &turns);
            let print = move || {
                let mut printer = Printer::new(names, style);
                for turn in turns.iter().skip(own).step_by(count) {
                    // Nobody takes them any more when the caller is gone.
                    if !printer.print(&rules[turn.clone()], |printed| sender.send(printed).is_ok()) {
                        break;
                    }
                }
            };
            let spawned = thread::Builder::new().name("sluice-print".to_owned()).spawn_scoped(scope, print);
            spawned.map_err(|e| Status::resource_exhausted(format!("no thread to print flows: {e}")))?;
            receivers.push(receiver);
        }
        for (receiver, _) in receivers.iter().cycle().zip(&turns) {
            for printed in receiver {
                if !printed.lines.is_empty() && !send(printed.lines) {
                    return Ok(());
                }
                if printed.last {
                    break;
                }
            }
        }
        Ok(())
    })
}

/// Cuts the rules between priorities.
fn turns(rules: &[(u32, &Rule)]) -> Vec<Range<usize>> {
    let (mut turns, mut begin, mut end) = (Vec::new(), 0, 0);
    for same in rules.chunk_by(|a, b| a.0 == b.0) {
        end += same.len();
        if end - begin >= TURN || end == rules.len() {
            turns.push(begin..end);
            begin = end;
        }
    }
    turns
}

/// Prints rules, with memory that it uses again.
struct Printer<'a> {
    names: &'a Names,
    style: Style,
    by_number: Names,
    /// The matches of the rules of one priority, one behind the other.
    matches: String,
    order: Vec<(Range<usize>, &'a Rule)>,
    actions: ActionTexts,
    lines: String,
}

impl<'a> Printer<'a> {
    fn new(names: &'a Names, style: Style) -> Self {
        let (matches, lines) = (String::new(), String::new());
        Self {
            names,
            style,
            by_number: Names::new(),
            matches,
            order: Vec::new(),
            actions: ActionTexts::default(),
            lines,
        }
    }

    /// Prints a turn; whether `send` took all of it.
    fn print(&mut self, rules: &[(u32, &'a Rule)], send: impl Fn(Printed) -> bool) -> bool {
        for same in rules.chunk_by(|a, b| a.0 == b.0) {
            self.sort(same);
            for (text, rule) in &self.order {
                let named;
                let matches = if self.names.is_empty() {
                    &self.matches[text.clone()]
                } else {
                    named = show_match(&rule.spec.matches, self.names).to_string();
                    &named
                };
                let actions = self.actions.text(rule, self.names);
                // Writing to a string cannot fail.
                _ = write_line(&mut self.lines, rule, matches, actions, self.style);
                if self.lines.len() >= MESSAGE_LEN {
                    let full =
                        std::mem::replace(&mut self.lines, String::with_capacity(MESSAGE_LEN + MESSAGE_LEN / 64));
                    if !send(Printed { lines: full, last: false }) {
                        return false;
                    }
                }
            }
        }
        send(Printed { lines: std::mem::take(&mut self.lines), last: true })
    }

    /// Puts rules of one priority in the order of their matches' texts.
    fn sort(&mut self, rules: &[(u32, &'a Rule)]) {
        self.matches.clear();
        self.order.clear();
        for (_, rule) in rules {
            let begin = self.matches.len();
            // Writing to a string cannot fail.
            _ = write!(self.matches, "{}", show_match(&rule.spec.matches, &self.by_number));
            self.order.push((begin..self.matches.len(), rule));
        }
        let matches = &self.matches;
        self.order.sort_unstable_by(|a, b| matches[a.0.clone()].cmp(&matches[b.0.clone()]));
    }
}

/// Writes a flow as `ovs-ofctl dump-flows` does.
fn write_line(out: &mut String, rule: &Rule, matches: &str, actions: &str, style: Style) -> fmt::Result {
    let (spec, now) = (&rule.spec, style.now);
    let age = now.since(rule.created);
    out.push(' ');
    if style.stats || spec.cookie != 0 {
        write!(out, "cookie={:#x}, ", spec.cookie)?;
    }
    if style.stats {
        match age % 1000 {
            0 => write!(out, "duration={}s, ", age / 1000)?,
            ms => write!(out, "duration={}.{ms:03}s, ", age / 1000)?,
        }
    }
    if style.stats || spec.table.get() != 0 {
        write!(out, "table={}, ", spec.table.get())?;
    }
    if style.stats {
        write!(out, "n_packets={}, n_bytes={}, ", rule.stats.packets(), rule.stats.bytes())?;
    }
    for (name, value) in [("idle_timeout", spec.idle_timeout), ("hard_timeout", spec.hard_timeout)] {
        if value != 0 {
            write!(out, "{name}={value}, ")?;
        }
    }
    if spec.send_flow_rem {
        out.push_str("send_flow_rem ");
    }
    if spec.importance != 0 {
        write!(out, "importance={}, ", spec.importance)?;
    }
    if style.stats {
        write!(out, "idle_age={}, ", now.since(rule.stats.used().max(rule.created)) / 1000)?;
        let modified = now.since(rule.modified) / 1000;
        if modified != age / 1000 {
            write!(out, "hard_age={modified}, ")?;
        }
    }
    if spec.priority != DEFAULT_PRIORITY {
        write!(out, "priority={}", spec.priority)?;
        out.push_str(if matches.is_empty() { " " } else { "," });
    }
    out.push_str(matches);
    out.push_str(if matches.is_empty() { "actions=" } else { " actions=" });
    out.push_str(actions);
    out.push('\n');
    Ok(())
}
