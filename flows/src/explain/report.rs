//! The whole account of one packet, which an offline trace and a trace of a running switch print alike.

use super::conntrack::{Answer, CtKnown, answer, asked, known};
use super::walk::{Telling, show_unmatched};
use super::{CtNext, Exit, Step, effective, exits, show_steps};
use crate::bridge::Model;
use crate::datapath::{DpAction, DpCt, Effect, Resume, Translation};
use crate::key::{FlowKey, slot};
use crate::port::DpPort;
use crate::rule::Rule;
use crate::text::{Names, show_datapath_actions, show_flow, show_megaflow, show_packet};
use crate::translate::{MacLookup, TraceLog, TraceStep, translate, translate_resumed};
use crate::verdict::{DropReason, Verdict};
use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;

/// Most passes of one packet that are followed.
pub const MAX_PASSES: usize = 64;

/// How a packet is traced and told of.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Ports are written by name, also in the datapath actions; else by number, there by the datapath's number.
    pub names: bool,
    /// Tell also what each lookup looked at, and every field that changed.
    pub verbose: bool,
    /// What connection tracking says of the packet each time that it is asked, in order; after that, that the
    /// connection is new. If this is empty, a [`Translator`] that has a tracker asks it.
    pub ct_next: Vec<CtNext>,
}

/// Who translates.
pub trait Translator {
    /// Translates the packet `key` that comes in by `ingress`.
    fn first(&self, ingress: DpPort, key: &FlowKey, log: &mut TraceLog) -> Translation;

    /// Translates the next pass of a packet. `None` if its bridge is gone.
    fn next(&self, resume: &Resume, key: &FlowKey, log: &mut TraceLog) -> Option<Translation>;

    /// What the tracker says of the packet `key` when it is asked for `ct`. `None` where there is no tracker.
    fn tracked(&self, _key: &FlowKey, _ct: &DpCt) -> Option<CtKnown> {
        None
    }
}

/// Translates by a model.
struct ByModel<'a, M> {
    model: &'a Model,
    macs: &'a M,
}

impl<M: MacLookup> Translator for ByModel<'_, M> {
    fn first(&self, ingress: DpPort, key: &FlowKey, log: &mut TraceLog) -> Translation {
        translate(self.model, self.macs, ingress, key, log)
    }

    fn next(&self, resume: &Resume, key: &FlowKey, log: &mut TraceLog) -> Option<Translation> {
        translate_resumed(self.model, self.macs, resume, key, log)
    }
}

/// One pass of a packet through the tables.
#[derive(Clone, Debug)]
pub struct Pass {
    /// Why there is this pass; empty for the first.
    pub cause: String,
    /// The packet as a flow, as this pass begins.
    pub flow: String,
    /// What happened.
    pub steps: Vec<Step>,
    /// The packet as the tables see it at the end, as a flow; `unchanged` if it is as it was.
    pub final_flow: String,
    /// The flow that stands for every packet of which this pass is true.
    pub megaflow: String,
    /// What became of the packet in this pass.
    pub verdict: Verdict,
    /// What is done to it in the wording of OVS's datapath, without changes that have no effect on this very packet;
    /// `drop` when there is nothing.
    pub datapath_actions: String,
}

/// The account of one packet.
#[derive(Clone, Debug)]
pub struct Report {
    /// The packet as it came in; its `in_port` is the OpenFlow number.
    pub packet: FlowKey,
    /// The packet as a flow.
    pub flow: String,
    /// The walk through the tables, one step a line. Its last line starts with `Datapath actions: `.
    pub walk: String,
    /// What became of the packet: it is forwarded if any pass forwards it, else the last one says why not.
    pub verdict: Verdict,
    /// The rule that decided: the last that matched.
    pub rule: Option<Arc<Rule>>,
    /// Where it leaves, in order, of all passes.
    pub exits: Vec<Exit>,
    /// The flow that stands for every packet of which the last pass is true.
    pub megaflow: String,
    /// What is done to it in the last pass, in the wording of OVS's datapath.
    pub datapath_actions: String,
    /// Flows that it makes, as `ovs-ofctl` takes them.
    pub learned: Vec<String>,
    /// Every pass, in order; never empty.
    pub passes: Vec<Pass>,
}

/// A pass that is still to be made.
struct Due {
    cause: String,
    resume: Resume,
    key: FlowKey,
}

/// A report in the making.
struct Making<'a> {
    model: &'a Model,
    options: &'a Options,
    words: Names,
    ct_next: usize,
    due: VecDeque<Due>,
    /// Passes so far that `recirc(..)` numbers were given to.
    numbered: u32,
    /// The packet is handed to the controller.
    told: bool,
    report: Report,
}

impl Report {
    /// Traces the packet `key` that comes in by `ingress`. Nothing is learned, counted or sent.
    pub fn trace(model: &Model, macs: &impl MacLookup, ingress: DpPort, key: &FlowKey, options: &Options) -> Self {
        Self::make(model, &ByModel { model, macs }, ingress, key, options)
    }

    /// As [`Report::trace`], with the translations of `translator`, which are made in `model`.
    pub fn make(
        model: &Model,
        translator: &impl Translator,
        ingress: DpPort,
        key: &FlowKey,
        options: &Options,
    ) -> Self {
        let entry = model.ports.get(&ingress);
        let mut packet = *key;
        packet.set(slot::IN_PORT, entry.map_or(0, |(_, no)| no.0.into()));
        let bridge = entry.filter(|_| options.names).and_then(|(bridge, _)| model.bridge(*bridge));
        let words = bridge.map(|bridge| Names::of_bridge(bridge)).unwrap_or_default();
        let report = Self {
            packet,
            flow: show_packet(&packet, &words).to_string(),
            walk: String::new(),
            verdict: Verdict::Drop(DropReason::NoRule),
            rule: None,
            exits: Vec::new(),
            megaflow: String::new(),
            datapath_actions: String::new(),
            learned: Vec::new(),
            passes: Vec::new(),
        };
        let due = VecDeque::new();
        let mut making = Making { model, options, words, ct_next: 0, due, numbered: 0, told: false, report };
        let mut log = TraceLog::default();
        let first = translator.first(ingress, key, &mut log);
        making.pass(&first, &log, &packet, None, String::new());
        making.put_off(translator, &first);
        while let Some(due) = making.due.pop_front() {
            if making.report.passes.len() >= MAX_PASSES {
                break;
            }
            let mut log = TraceLog::default();
            if let Some(next) = translator.next(&due.resume, &due.key, &mut log) {
                making.pass(&next, &log, &due.key, Some(&due.resume), due.cause);
                making.put_off(translator, &next);
            }
        }
        making.finish()
    }
}

impl Making<'_> {
    /// Takes in a pass of the packet `packet`.
    fn pass(&mut self, made: &Translation, log: &TraceLog, packet: &FlowKey, resume: Option<&Resume>, cause: String) {
        let report = &mut self.report;
        let words = &self.words;
        let end = log.steps.iter().rev().find_map(|(_, step)| match step {
            TraceStep::End(key) => Some(**key),
            _ => None,
        });
        let mut actions = effective(&made.actions, packet);
        number(&mut actions, self.numbered);
        let (model, names) = (self.model, self.options.names);
        let name = |dp| model.port(dp).filter(|_| names).map(|(_, port)| &*port.name);
        let mut mask = made.mask;
        mask.add(slot::RECIRC_ID);
        let final_flow = end.map(|end| visible(&end)).filter(|end| *end != visible(packet));
        report.passes.push(Pass {
            cause,
            flow: show_packet(packet, words).to_string(),
            steps: Telling::new(model, packet, names).tell(log, resume),
            final_flow: final_flow.map_or_else(|| "unchanged".to_owned(), |end| show_packet(&end, words).to_string()),
            megaflow: show_megaflow(packet, &mask, words).to_string(),
            verdict: made.verdict,
            datapath_actions: show_datapath_actions(&actions, packet, name).to_string(),
        });
        self.told |= tells_controller(&made.actions);
        report.exits.extend(exits(model, &made.actions, packet));
        report.rule = made.decider().cloned().or(report.rule.take());
        report.learned.extend(made.effects.iter().filter_map(|effect| match effect {
            Effect::Learn(learned) => Some(show_flow(&learned.spec, None, words).to_string()),
            Effect::FinTimeout { .. } => None,
        }));
    }

    /// Notes the passes that follow from a translation.
    fn put_off(&mut self, translator: &impl Translator, made: &Translation) {
        for (index, resume) in (0..).zip(&made.resumes) {
            let number = self.numbered.saturating_add(index).saturating_add(1);
            let ct = asked(&made.actions, index);
            // What only the bytes of the packet could tell, such as what was under a popped label, ends the trace.
            if resume.ct_zone.is_none() && ct.is_none() {
                continue;
            }
            let (mut answer, state) = self.ask(translator, resume, ct);
            answer.key.set(slot::RECIRC_ID, number.into());
            let cause = format!("recirc({number:#x}) - resume conntrack with {state}\n{}", answer.told);
            self.due.push_back(Due { cause, resume: resume.clone(), key: answer.key });
        }
        let count = u32::try_from(made.resumes.len()).unwrap_or(u32::MAX);
        self.numbered = self.numbered.saturating_add(count);
    }

    /// What the tracker or the script says of a packet, and in words who said what of its state.
    fn ask(&mut self, translator: &impl Translator, resume: &Resume, ct: Option<&DpCt>) -> (Answer, String) {
        if let Some(next) = self.options.ct_next.get(self.ct_next).copied() {
            self.ct_next += 1;
            return (answer(resume, ct, next), format!("ct_state={next}"));
        }
        let new = CtNext::default();
        let tracked = ct.filter(|_| self.options.ct_next.is_empty());
        match tracked.and_then(|ct| translator.tracked(&resume.key, ct)) {
            Some(CtKnown::Connection { key, told }) => {
                let state = format!("ct_state={}, as the tracker says", CtNext::of(&key));
                (known(&resume.key, *key, &told), state)
            }
            Some(CtKnown::New) => {
                (answer(resume, ct, new), format!("ct_state={new}: the tracker knows no such connection"))
            }
            Some(CtKnown::Unsaid(what)) => {
                (answer(resume, ct, new), format!("default ct_state=trk|new: {what} (use --ct-next to customize)"))
            }
            None => (answer(resume, ct, new), "default ct_state=trk|new (use --ct-next to customize)".to_owned()),
        }
    }

    fn finish(mut self) -> Report {
        // A pass that only leads to the next one forwards as far as it goes; the packet is dropped if no pass sends it.
        let sent = self.told || !self.report.exits.is_empty();
        let dropped = self.report.passes.iter().map(|pass| pass.verdict).rfind(|verdict| *verdict != Verdict::Forward);
        self.report.verdict = dropped.filter(|_| !sent).unwrap_or(Verdict::Forward);
        if let Some(last) = self.report.passes.last() {
            self.report.megaflow.clone_from(&last.megaflow);
            self.report.datapath_actions.clone_from(&last.datapath_actions);
        }
        self.report.walk = self.tell();
        self.report
    }

    /// The account as lines.
    fn tell(&self) -> String {
        const RULE: &str = "===============================================================================";
        let mut out = String::new();
        let count = self.report.passes.len();
        for (index, pass) in self.report.passes.iter().enumerate() {
            // Writing to a string cannot fail.
            if index > 0 {
                _ = write!(out, "\n\n{RULE}\n{}{RULE}\n\n", pass.cause);
            }
            let verbose = self.options.verbose;
            _ = write!(out, "Flow: {}\n{}\n", pass.flow, show_steps(&pass.steps, verbose));
            if verbose {
                _ = write!(out, "{}", show_unmatched(&pass.steps));
            }
            _ = write!(out, "Final flow: {}\nMegaflow: {}\n", pass.final_flow, pass.megaflow);
            if index + 1 == count {
                _ = write!(out, "Verdict: {}", self.report.verdict);
                if let Verdict::Drop(reason) = self.report.verdict {
                    if let Some(rule) = self.report.rule.as_ref().filter(|rule| rule.drop_reason() == reason) {
                        _ = write!(out, " by {}", rule.spec.owner);
                    }
                    _ = write!(out, ":{}", reason.explanation());
                }
                out.push('\n');
            }
            _ = write!(out, "Datapath actions: {}", pass.datapath_actions);
        }
        out
    }
}

/// Whether the packet is handed to the controller. One that is dropped, of which the controller is only told, is not.
fn tells_controller(actions: &[DpAction]) -> bool {
    actions.iter().any(|action| match action {
        DpAction::Controller(about) => about.drop.is_none(),
        DpAction::Clone(list) => tells_controller(list),
        DpAction::CheckPktLen { larger, otherwise, .. } => tells_controller(larger) || tells_controller(otherwise),
        _ => false,
    })
}

/// What of the packet is printed of what the tables see.
fn visible(key: &FlowKey) -> FlowKey {
    let mut key = *key;
    key.set(slot::ACTSET_OUTPUT, 0);
    key.set(slot::CONJ_ID, 0);
    key
}

/// Gives every `recirc(..)` a number that no other pass has.
fn number(actions: &mut [DpAction], before: u32) {
    for action in actions {
        match action {
            DpAction::Recirculate(index) => *index = index.saturating_add(before),
            DpAction::Clone(list) => number(list, before),
            DpAction::CheckPktLen { larger, otherwise, .. } => {
                number(larger, before);
                number(otherwise, before);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
