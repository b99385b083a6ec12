//! Flows that packets make.

use super::Run;
use sluice_flows::action::{Action, Learn, LearnSource, LearnSpec, Subfield};
use sluice_flows::rule::FlowSpec;
use sluice_flows::{Match, Owner, PortNo};

impl Run<'_> {
    pub(super) fn learn(&mut self, learn: &Learn) {
        let mut matches = Match::any();
        let mut actions = Vec::new();
        if learn.fin_idle_timeout != 0 || learn.fin_hard_timeout != 0 {
            actions.push(Action::FinTimeout { idle: learn.fin_idle_timeout, hard: learn.fin_hard_timeout });
        }
        for spec in &learn.specs {
            match spec {
                LearnSpec::Match { dst, src } => {
                    let value = self.source(*src, *dst);
                    matches.set(dst.field.slot(), value << dst.ofs, dst.mask());
                }
                LearnSpec::Load { dst, src } => {
                    actions.push(Action::Load { value: self.source(*src, *dst), dst: *dst });
                }
                LearnSpec::Output(source) => actions.push(Action::Output(PortNo(self.subfield(*source) as u16))),
            }
        }
        self.fate.learned.push(FlowSpec {
            table: learn.table,
            priority: learn.priority,
            cookie: learn.cookie,
            idle_timeout: learn.idle_timeout,
            hard_timeout: learn.hard_timeout,
            send_flow_rem: learn.send_flow_rem,
            ..FlowSpec::new(matches, actions, Owner::user())
        });
    }

    fn source(&self, src: LearnSource, dst: Subfield) -> u128 {
        let value = match src {
            LearnSource::Value(value) => value,
            LearnSource::Field(source) => self.subfield(source),
        };
        value & (dst.mask() >> dst.ofs)
    }
}
