//! Handing packets to the controllers.

use super::{At, MacLookup, TraceSink, Walk};
use crate::action::{ControllerAction, Fragment, PacketInReason};
use crate::datapath::{DpAction, MeterRef, PacketIn};
use crate::field::{FIELDS, Field, Prereq};
use crate::key::{FRAME_WORDS, FlowMask, PACKET_WORDS, PIPELINE_WORD, slot};
use crate::owner::Owner;
use crate::verdict::DropReason;
use std::sync::Arc;

impl<'a, M: MacLookup, S: TraceSink> Walk<'a, M, S> {
    /// Hands the packet to a controller; `drop` is the reason for which it is dropped all the same.
    pub(super) fn send_to_controller(&mut self, options: &ControllerAction, drop: Option<DropReason>, at: At<'a>) {
        self.commit();
        let packet_in = self.packet_in(options, drop, at);
        self.out.actions.push(DpAction::Controller(Box::new(packet_in)));
    }

    /// What goes with the packet to a controller.
    fn packet_in(&mut self, options: &ControllerAction, drop: Option<DropReason>, at: At<'a>) -> PacketIn {
        let meter = options.meter.and_then(|id| self.bridge.meters.get(&id));
        let reason = if options.reason == PacketInReason::Action { at.reason } else { None };
        PacketIn {
            reason: reason.unwrap_or(options.reason),
            controller_id: options.controller_id,
            max_len: options.max_len,
            bridge: self.bridge.id,
            in_port: self.in_port(),
            table: at.table,
            cookie: at.rule.map_or(0, |r| r.spec.cookie),
            owner: at.rule.map_or_else(Owner::user, |r| r.spec.owner.clone()),
            userdata: options.userdata.clone(),
            metadata: self.metadata(),
            meter: meter.map(|meter| MeterRef(Arc::clone(meter))),
            drop,
            resume: None,
        }
    }

    /// Keeps what follows to an MTU; the length of the packet is not known before it is there.
    pub(super) fn fragment(&mut self, fragment: &Fragment, at: At<'a>) {
        if !self.has(Prereq::Ip) {
            return;
        }
        self.commit();
        let Fragment { mtu, controller_id, ref userdata } = *fragment;
        let options = ControllerAction { controller_id, userdata: userdata.clone(), ..ControllerAction::default() };
        let too_long = Box::new(self.packet_in(&options, Some(DropReason::MtuExceeded), at));
        self.out.actions.push(DpAction::Fragment { mtu, too_long });
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
            self.send_to_controller(&options, Some(DropReason::TtlExpired), at);
        }
        self.reason = DropReason::TtlExpired;
        self.pop_list();
    }
}
