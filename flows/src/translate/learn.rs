//! What a packet does to the tables: flows that it makes, and timeouts that it shortens. Translation only says so; who
//! translates for a running switch does it.

use super::{At, MacLookup, TraceEvent, TraceSink, Walk};
use crate::action::{Action, Learn, LearnSource, LearnSpec, Subfield};
use crate::datapath::{Effect, Learned};
use crate::field::{Field, Prereq};
use crate::filter::FlowFilter;
use crate::matching::Match;
use crate::owner::Owner;
use crate::port::PortNo;
use crate::rule::{FlowSpec, Rule};

/// TCP's FIN and RST flags.
const FIN_OR_RST: u128 = 0x5;

impl<'a, M: MacLookup, S: TraceSink> Walk<'a, M, S> {
    pub(super) fn learn(&mut self, learn: &Learn, at: At<'a>) {
        let learned = Learned { bridge: self.bridge.id, spec: self.learned_flow(learn, at), limit: learn.limit };
        self.out.tables.insert(learned.spec.table);
        let fits = learn.limit == 0 || self.fits(&learned);
        if let Some(dst) = learn.result_dst {
            self.set_field(dst.field, u128::from(fits) << dst.ofs, dst.mask());
        }
        if !fits {
            return self.note("the limit of learned flows is reached: nothing is learned");
        }
        if S::ACTIVE {
            self.tell(TraceEvent::Learned(&learned));
        }
        self.out.effects.push(Effect::Learn(Box::new(learned)));
    }

    /// Whether the flow is there already, or its table has room for it under its limit.
    fn fits(&self, learned: &Learned) -> bool {
        let (tables, spec) = (&self.bridge.tables, &learned.spec);
        let filter =
            FlowFilter { table: Some(spec.table), cookie: spec.cookie, cookie_mask: u64::MAX, ..FlowFilter::all() };
        tables.get_strict(spec.table, spec.priority, &spec.matches).is_some()
            || tables.select(&filter).take(learned.limit as usize).count() < learned.limit as usize
    }

    /// The flow that the packet makes.
    fn learned_flow(&mut self, learn: &Learn, at: At<'a>) -> FlowSpec {
        let mut matches = Match::any();
        let mut actions = Vec::new();
        if learn.fin_idle_timeout != 0 || learn.fin_hard_timeout != 0 {
            actions.push(Action::FinTimeout { idle: learn.fin_idle_timeout, hard: learn.fin_hard_timeout });
        }
        for spec in &learn.specs {
            match spec {
                LearnSpec::Match { dst, src } => {
                    let value = self.source(*src);
                    matches.set(dst.field.slot(), value << dst.ofs, dst.mask());
                }
                LearnSpec::Load { dst, src } => actions.push(Action::Load { value: self.source(*src), dst: *dst }),
                LearnSpec::Output(src) => {
                    let port = PortNo(u16::try_from(self.read_subfield(*src)).unwrap_or(PortNo::NONE.0));
                    let reserved = [PortNo::IN_PORT, PortNo::FLOOD, PortNo::ALL, PortNo::LOCAL];
                    if port <= PortNo::MAX || reserved.contains(&port) {
                        actions.push(Action::Output(port));
                    }
                }
            }
        }
        FlowSpec {
            table: learn.table,
            priority: learn.priority,
            cookie: learn.cookie,
            idle_timeout: learn.idle_timeout,
            hard_timeout: learn.hard_timeout,
            send_flow_rem: learn.send_flow_rem,
            generation: at.rule.map_or(0, |rule| rule.spec.generation),
            ..FlowSpec::new(matches, actions, at.rule.map_or_else(Owner::user, |rule| rule.spec.owner.clone()))
        }
    }

    fn source(&mut self, source: LearnSource) -> u128 {
        match source {
            LearnSource::Value(value) => value,
            LearnSource::Field(src) => self.read_subfield(src),
        }
    }

    /// Shortens the rule's timeouts if the packet ends a TCP connection.
    pub(super) fn fin_timeout(&mut self, idle: u16, hard: u16, at: At<'a>) {
        let Some(rule) = at.rule else { return };
        if self.has(Prereq::Tcp)
            && self.read_subfield(Subfield { field: Field::TcpFlags, ofs: 0, bits: 3 }) & FIN_OR_RST != 0
        {
            let longer = |rule: &Rule| {
                let exceeds = |has: u16, limit: u16| limit != 0 && (has == 0 || has > limit);
                exceeds(rule.spec.idle_timeout, idle) || exceeds(rule.spec.hard_timeout, hard)
            };
            if longer(rule) {
                let (bridge, rule) = (self.bridge.id, std::sync::Arc::clone(rule));
                self.out.effects.push(Effect::FinTimeout { bridge, rule, idle, hard });
            }
        }
    }
}
