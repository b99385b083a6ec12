//! Handing packets to the controllers.

use super::{At, MacLookup, TraceSink, Walk};
use crate::action::{ControllerAction, PacketInReason};
use crate::datapath::{DpAction, MeterRef, PacketIn};
use crate::field::{FIELDS, Field};
use crate::key::{FRAME_WORDS, FlowMask, PACKET_WORDS, PIPELINE_WORD, slot};
use crate::owner::Owner;
use crate::verdict::DropReason;
use std::sync::Arc;

impl<'a, M: MacLookup, S: TraceSink> Walk<'a, M, S> {
    pub(super) fn send_to_controller(&mut self, options: &ControllerAction, at: At<'a>) {
        self.commit();
        let meter = options.meter.and_then(|id| self.bridge.meters.get(&id));
        let metadata = self.metadata();
        let reason = if options.reason == PacketInReason::Action { at.reason } else { None };
        self.out.actions.push(DpAction::Controller(Box::new(PacketIn {
            reason: reason.unwrap_or(options.reason),
            controller_id: options.controller_id,
            max_len: options.max_len,
            bridge: self.bridge.id,
            in_port: self.in_port(),
            table: at.table,
            cookie: at.rule.map_or(0, |r| r.spec.cookie),
            owner: at.rule.map_or_else(Owner::user, |r| r.spec.owner.clone()),
            userdata: options.userdata.clone(),
            metadata,
            meter: meter.map(|meter| MeterRef(Arc::clone(meter))),
            resume: None,
        })));
    }

    /// What a controller is told of the packet beside its bytes: its tunnel, connection, metadata and registers, as far
    /// as they are not 0.
    fn metadata(&mut self) -> Box<[(Field, u128)]> {
        let is_tunneled = [slot::TUN_DST, slot::TUN_IPV6_DST].iter().any(|dst| self.flow.key.get(*dst) != 0);
        let (mut values, mut unread) = (Vec::new(), FlowMask::ZERO);
        for info in FIELDS {
            let (field, word) = (info.field, usize::from(info.slot.word));
            let is_scratch = matches!(field, Field::ConjId | Field::ActsetOutput);
            let is_wide_register = word >= PIPELINE_WORD && info.slot.bits > 32 && field != Field::Metadata;
            let value = if (FRAME_WORDS..PACKET_WORDS).contains(&word) {
                // The ingress port decides whether a packet has a tunnel.
                if is_tunneled { self.read(info.slot) } else { 0 }
            } else if word >= PACKET_WORDS && !is_scratch && !is_wide_register || field == Field::PktMark {
                // What a packet did not bring along is decided by what is in the mask already.
                let exists = info.prereq.holds(&self.flow.key, &mut unread);
                if exists { self.flow.key.get(info.slot) } else { 0 }
            } else {
                0
            };
            if value != 0 {
                values.push((field, value));
            }
        }
        values.into()
    }

    /// A TTL ran out: these controllers are told (controller 0 if there are none), and the list that was being worked
    /// on ends.
    pub(super) fn ttl_expired(&mut self, controllers: &[u16], at: At<'a>) {
        self.note("the TTL ran out: this list of actions ends here");
        for controller_id in if controllers.is_empty() { &[0] } else { controllers } {
            let reason = PacketInReason::InvalidTtl;
            let options = ControllerAction { reason, controller_id: *controller_id, ..ControllerAction::default() };
            self.send_to_controller(&options, at);
        }
        self.reason = DropReason::TtlExpired;
        self.pop_list();
    }
}
