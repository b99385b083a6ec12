//! Translation: walks a bridge's tables with one packet and returns what to do with every packet like it.
//!
//! The result is a flat list of [`DpAction`]s **and** the mask of every packet bit that it depends on. The pair is a
//! megaflow: any packet that agrees under the mask would have been translated the same way. A bit too many in the mask
//! costs speed, a bit too few is wrong.
//!
//! # How the mask stays both sound and small
//!
//! Every bit of the key is either *original* (the packet's own) or *written* (a constant, or computed from bits that
//! are in the mask already). Reading an original bit puts it into the mask; reading a written bit does not. The packet
//! as it stands on the wire (after the actions emitted so far) is tracked the same way, so an output emits exactly the
//! changes between the two, without looking at values it need not know. VLAN tags are the exception: pushing and
//! popping moves bits between slots, so touching them puts all tag bits into the mask.
//!
//! # Bounds
//!
//! The walk is a loop over an explicit stack of [`Work`], so no flow table can exhaust a thread's stack. As in OVS, 64
//! nested jumps to the same or an earlier table (patch ports included), 4096 jumps in all, and 65,535 emitted actions
//! are the limits. Past them the whole packet is dropped with [`DropReason::Loop`], outputs already made included.

mod normal;
mod output;
mod set;
mod trace;

#[cfg(test)]
mod tests;

pub use trace::{NoTrace, TraceEvent, TraceLog, TraceSink, TraceStep};

use crate::action::{Action, ControllerAction, PacketInReason};
use crate::bridge::{Bridge, BridgeId, Model};
use crate::datapath::{DpAction, MacQuery, PacketIn, Translation};
use crate::field::Field;
use crate::key::{FlowKey, FlowMask, slot};
use crate::owner::Owner;
use crate::port::{DpPort, PortNo};
use crate::rule::{Rule, TableId};
use crate::verdict::{DropReason, Verdict};
use set::Wire;
use std::sync::Arc;

/// Nested jumps to the same or an earlier table.
const MAX_DEPTH: u32 = 64;
/// Jumps in all.
const MAX_JUMPS: u32 = MAX_DEPTH * MAX_DEPTH;
/// Datapath actions of one packet.
const MAX_ACTIONS: usize = 65_535;

/// The MAC addresses that NORMAL has learned.
pub trait MacLookup {
    /// The port that the address was last seen behind.
    fn port_of(&self, query: MacQuery) -> Option<PortNo>;
}

/// No address is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoMacs;

impl MacLookup for NoMacs {
    fn port_of(&self, _: MacQuery) -> Option<PortNo> {
        None
    }
}

/// Translates a packet that came in by the datapath port `ingress`.
///
/// The `in_port` of `key` is ignored: inside the bridge it is the port's OpenFlow number. A packet of a port that no
/// bridge has is dropped with [`DropReason::NoPort`].
pub fn translate(
    model: &Model,
    macs: &impl MacLookup,
    ingress: DpPort,
    key: &FlowKey,
    sink: &mut impl TraceSink,
) -> Translation {
    let entry = model.ports.get(&ingress).and_then(|(bridge, no)| Some((model.bridge(*bridge)?, *no)));
    let Some((bridge, in_port)) = entry else {
        return Translation::dropped(DropReason::NoPort);
    };
    let mut walk = Walk::new(model, macs, bridge, key, in_port, sink);
    walk.enter_bridge();
    walk.run()
}

/// Translates a packet to which `actions` are applied as if it had come in by `in_port` of `bridge` (OpenFlow's
/// packet-out). `None` if the model has no such bridge; `in_port` may be a port that the bridge does not have.
pub fn translate_packet_out(
    model: &Model,
    macs: &impl MacLookup,
    bridge: BridgeId,
    in_port: PortNo,
    key: &FlowKey,
    actions: &[Action],
    sink: &mut impl TraceSink,
) -> Option<Translation> {
    let mut walk = Walk::new(model, macs, model.bridge(bridge)?, key, in_port, sink);
    walk.stack.push(Work::Actions { actions, next: 0, rule: None, table: TableId::FIRST, deepens: false });
    Some(walk.run())
}

/// Adds the EtherType, and the IP protocol and fragment bits under any transport bits. A lookup may prove its answer by
/// bits of an address or a port alone; but a mask that does not say what protocol its bits are of cannot be written as
/// a flow, and protocols mixed in one entry make for more different masks.
fn add_protocol(mask: &mut FlowMask) {
    let words = [slot::TP_SRC, slot::ARP_SHA, slot::ARP_THA].map(|s| mask.0[usize::from(s.word)]);
    if words != [0; 3] || mask.get(slot::ND_TARGET) != 0 {
        mask.set(slot::IP_PROTO, u128::MAX);
        mask.set(Field::IpFrag.slot(), u128::MAX);
    }
    mask.set(slot::ETH_TYPE, u128::MAX);
}

/// Something left to do.
enum Work<'a> {
    /// Actions of a rule, from `next` on.
    Actions {
        actions: &'a [Action],
        next: usize,
        rule: Option<&'a Arc<Rule>>,
        table: TableId,
        /// Counts towards [`MAX_DEPTH`] until done.
        deepens: bool,
    },
    /// Ports still to be sent to, last first.
    Outputs(Vec<output::Target<'a>>),
    /// Back from the other side of a patch port.
    Return { bridge: &'a Bridge, flow: Box<Flow> },
}

/// The packet as the tables see it.
#[derive(Clone, Copy)]
struct Flow {
    key: FlowKey,
    /// Bits of `key` that are not the packet's own any more.
    written: FlowMask,
}

/// One packet on its way through the tables.
struct Walk<'a, M, S> {
    model: &'a Model,
    macs: &'a M,
    sink: &'a mut S,
    bridge: &'a Bridge,
    flow: Flow,
    wire: Wire,
    mask: FlowMask,
    stack: Vec<Work<'a>>,
    depth: u32,
    jumps: u32,
    looped: bool,
    forwarded: bool,
    /// Why the packet is dropped if nothing else happens.
    reason: DropReason,
    out: Translation,
}

impl<'a, M: MacLookup, S: TraceSink> Walk<'a, M, S> {
    fn new(model: &'a Model, macs: &'a M, bridge: &'a Bridge, key: &FlowKey, in_port: PortNo, sink: &'a mut S) -> Self {
        let mut flow = Flow { key: *key, written: FlowMask::ZERO };
        flow.key.set(slot::IN_PORT, in_port.0.into());
        Self {
            model,
            macs,
            sink,
            bridge,
            wire: Wire::new(&flow.key),
            flow,
            mask: FlowMask::ZERO,
            stack: Vec::new(),
            depth: 0,
            jumps: 0,
            looped: false,
            forwarded: false,
            reason: DropReason::NoRule,
            out: Translation::dropped(DropReason::NoRule),
        }
    }

    /// Works until nothing is left to do.
    fn run(mut self) -> Translation {
        while let Some(work) = self.stack.last_mut() {
            match work {
                Work::Actions { actions, next, rule, table, .. } => {
                    let (rule, table) = (*rule, *table);
                    match actions.get(*next) {
                        Some(action) => {
                            *next += 1;
                            self.act(action, rule, table);
                        }
                        None => _ = self.pop_list(),
                    }
                }
                Work::Outputs(targets) => match targets.pop() {
                    Some(target) => self.send(target),
                    None => drop(self.stack.pop()),
                },
                Work::Return { bridge, flow } => {
                    (self.bridge, self.flow) = (*bridge, **flow);
                    self.stack.pop();
                }
            }
            if self.looped || self.out.actions.len() > MAX_ACTIONS {
                return self.give_up();
            }
        }
        self.finish()
    }

    fn finish(mut self) -> Translation {
        self.out.mask.union(&self.mask.without_pipeline());
        add_protocol(&mut self.out.mask);
        self.out.verdict = if self.forwarded { Verdict::Forward } else { Verdict::Drop(self.reason) };
        self.out
    }

    /// A bound was reached: the packet is dropped whole.
    fn give_up(mut self) -> Translation {
        self.note("a bound on resubmits, patch ports or actions was reached: the packet is dropped");
        self.out.actions.clear();
        self.out.patched.clear();
        self.forwarded = false;
        self.reason = DropReason::Loop;
        self.finish()
    }

    /// Ends the innermost list of actions. Returns whether it counted towards the depth.
    fn pop_list(&mut self) -> bool {
        let deepens = matches!(self.stack.pop(), Some(Work::Actions { deepens: true, .. }));
        self.depth -= u32::from(deepens);
        deepens
    }

    /// Starts at the first table of the current bridge.
    fn enter_bridge(&mut self) {
        if S::ACTIVE {
            let (bridge, in_port) = (self.bridge, self.in_port());
            self.sink.event(self.stack.len(), TraceEvent::Bridge { bridge, in_port });
        }
        self.jump(TableId::FIRST, None, true);
    }

    /// Looks the packet up in `table` and starts on the actions of the rule found.
    fn jump(&mut self, table: TableId, in_port: Option<PortNo>, deepens: bool) {
        if self.depth >= MAX_DEPTH || self.jumps >= MAX_JUMPS {
            self.looped = true;
            return;
        }
        let mut read = FlowMask::ZERO;
        let found = match in_port {
            None => self.bridge.tables.lookup(table, &self.flow.key, &mut read),
            Some(port) => {
                let mut key = self.flow.key;
                key.set(slot::IN_PORT, port.0.into());
                self.bridge.tables.lookup(table, &key, &mut read)
            }
        };
        self.absorb(&read);
        if S::ACTIVE {
            self.sink.event(self.stack.len(), TraceEvent::Lookup { table, rule: found });
        }
        let Some(rule) = found else {
            self.reason = DropReason::NoRule;
            return;
        };
        self.jumps += 1;
        self.depth += u32::from(deepens);
        self.reason = rule.drop_reason();
        self.out.rules.push(Arc::clone(rule));
        self.stack.push(Work::Actions { actions: &rule.spec.actions, next: 0, rule: Some(rule), table, deepens });
    }

    /// Puts the original bits among `read` into the mask.
    fn absorb(&mut self, read: &FlowMask) {
        for ((mask, read), written) in self.mask.0.iter_mut().zip(&read.0).zip(&self.flow.written.0) {
            *mask |= read & !written;
        }
    }

    fn in_port(&self) -> PortNo {
        PortNo(self.flow.key.get(Field::InPort.slot()) as u16)
    }

    fn note(&mut self, text: &'static str) {
        if S::ACTIVE {
            self.sink.event(self.stack.len(), TraceEvent::Note(text));
        }
    }

    fn act(&mut self, action: &'a Action, rule: Option<&'a Arc<Rule>>, table: TableId) {
        if S::ACTIVE {
            self.sink.event(self.stack.len(), TraceEvent::Action(action));
        }
        match action {
            Action::Output(port) => self.output(*port, rule, table),
            Action::OutputField(source) => {
                let value = self.read_subfield(*source);
                self.output(PortNo(u16::try_from(value).unwrap_or(PortNo::NONE.0)), rule, table);
            }
            Action::Controller(options) => {
                self.send_to_controller(options, rule, table);
                self.forwarded = true;
            }
            Action::GotoTable(target) => {
                let deepens = self.pop_list();
                self.depth += u32::from(deepens);
                self.jump(*target, None, false);
                self.inherit_depth(deepens);
            }
            Action::Resubmit { port, table: target, .. } => {
                let target = target.unwrap_or(table);
                self.jump(target, *port, target <= table);
            }
            Action::SetField { field, value, mask } => self.set_field(*field, *value, *mask),
            Action::Load { value, dst } => self.set_field(dst.field, *value << dst.ofs, dst.mask()),
            Action::Move { src, dst } => {
                let value = self.read_subfield(*src);
                self.set_field(dst.field, value << dst.ofs, dst.mask());
            }
            Action::Mod(change) => self.modify(*change),
            Action::PushVlan(tpid) => self.push_vlan(*tpid),
            Action::PopVlan { .. } => self.pop_vlan(),
            Action::DecTtl(_) => self.dec_ttl(rule, table),
            _ => {}
        }
    }

    /// After a `goto_table`: the list that follows carries on the depth of the one it replaces.
    fn inherit_depth(&mut self, inherited: bool) {
        match self.stack.last_mut() {
            Some(Work::Actions { deepens, next: 0, .. }) if inherited => *deepens = true,
            _ => self.depth -= u32::from(inherited && !self.looped),
        }
    }

    fn send_to_controller(&mut self, options: &ControllerAction, rule: Option<&Arc<Rule>>, table: TableId) {
        self.commit();
        self.out.actions.push(DpAction::Controller(Box::new(PacketIn {
            reason: options.reason,
            controller_id: options.controller_id,
            max_len: options.max_len,
            bridge: self.bridge.id,
            in_port: self.in_port(),
            table,
            cookie: rule.map_or(0, |r| r.spec.cookie),
            owner: rule.map_or_else(Owner::user, |r| r.spec.owner.clone()),
            userdata: options.userdata.clone(),
            metadata: Box::default(),
            meter: None,
            resume: None,
        })));
    }

    /// The TTL ran out: the controller is told, and the list that was being worked on ends.
    fn ttl_expired(&mut self, rule: Option<&Arc<Rule>>, table: TableId) {
        self.note("the TTL ran out: this list of actions ends here");
        let options = ControllerAction { reason: PacketInReason::InvalidTtl, ..ControllerAction::default() };
        self.send_to_controller(&options, rule, table);
        self.reason = DropReason::TtlExpired;
        self.pop_list();
    }
}
