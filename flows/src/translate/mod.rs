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
//! # Passes
//!
//! What the datapath has to find out first (what connection tracking says of the packet) splits the way of a packet into
//! passes: the translation ends with a [`Resume`](crate::datapath::Resume) for each place where the packet goes on, and
//! [`translate_resumed`] makes the next pass. Each pass has a mask of its own.
//!
//! # Bounds
//!
//! The walk is a loop over an explicit stack of [`Work`], so no flow table can exhaust a thread's stack. As in OVS, 64
//! nested jumps to the same or an earlier table (groups and patch ports included), 4096 jumps in all, 65,535 emitted
//! actions and 8192 pushed values are the limits. Past them the whole packet is dropped with [`DropReason::Loop`],
//! outputs already made included.

mod action_set;
mod branch;
mod choice;
mod controller;
mod ct;
mod encap;
mod group;
mod learn;
mod mirror;
mod normal;
mod output;
mod set;
mod snoop;
mod trace;
mod tunnel;
mod wire;

#[cfg(test)]
mod tests;

pub use trace::{FieldChange, NoTrace, TraceEvent, TraceLog, TraceSink, TraceStep};

use crate::action::{Action, ControllerAction, PacketInReason};
use crate::bridge::{Bridge, BridgeId, Model, TableMiss};
use crate::datapath::{DpAction, MacQuery, McastQuery, MeterRef, Resume, Suspended, Translation};
use crate::field::{Field, Prereq};
use crate::key::{FlowKey, FlowMask, Slot, slot};
use crate::port::{DpPort, PortNo};
use crate::rule::{Rule, TableId};
use crate::tunnel::TunnelKey;
use crate::verdict::{DropReason, Verdict};
use smallvec::SmallVec;
use std::sync::Arc;
use wire::Wire;

/// Nested jumps to the same or an earlier table.
const MAX_DEPTH: u32 = 64;
/// Jumps in all.
const MAX_JUMPS: u32 = MAX_DEPTH * MAX_DEPTH;
/// Datapath actions of one packet.
const MAX_ACTIONS: usize = 65_535;
/// Values pushed and not yet popped.
const MAX_STACK: usize = 8192;

/// The MAC addresses that NORMAL has learned.
pub trait MacLookup {
    /// The port that the address was last seen behind.
    fn port_of(&self, query: MacQuery) -> Option<PortNo>;

    /// The ports that packets to a multicast group are to be sent to, those of routers included; `None` if nobody is
    /// known to want it.
    fn members(&self, _query: McastQuery) -> Option<SmallVec<[PortNo; 4]>> {
        None
    }
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
    walk.stack.push(Work::ActionSet);
    walk.enter_bridge();
    walk.run()
}

/// Translates the next pass of a packet: from `resume` on, with `key` as the packet is by then: the key of `resume` with
/// what the datapath has found out. `None` if the bridge is gone.
pub fn translate_resumed(
    model: &Model,
    macs: &impl MacLookup,
    resume: &Resume,
    key: &FlowKey,
    sink: &mut impl TraceSink,
) -> Option<Translation> {
    let in_port = PortNo(key.get(Field::InPort.slot()) as u16);
    let mut walk = Walk::new(model, macs, model.bridge(resume.bridge)?, key, in_port, sink);
    walk.flow.key.set(slot::ACTSET_OUTPUT, resume.key.get(slot::ACTSET_OUTPUT));
    walk.values.clone_from(&resume.stack);
    walk.action_set.clone_from(&resume.action_set);
    walk.tracked = resume.ct_zone.is_some();
    walk.wire.tunnel = None;
    walk.tunnel_written = resume.tunnel_written;
    walk.mirrored = resume.mirrored;
    walk.stack.push(Work::ActionSet);
    for Suspended { list, next, table, rule, reason } in &resume.lists {
        let at = At { rule: rule.as_ref(), table: *table, reason: *reason };
        walk.stack.push(Work::Actions { list: Arc::clone(list), next: *next, at, deepens: false });
    }
    if resume.lists.is_empty() {
        walk.jump(resume.table, None, false, true);
    }
    Some(walk.run())
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
    walk.stack.push(Work::ActionSet);
    walk.stack.push(Work::Actions { list: actions.into(), next: 0, at: At::PACKET_OUT, deepens: false });
    walk.mirror_ingress();
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

/// What a list of actions belongs to.
#[derive(Clone, Copy)]
struct At<'a> {
    rule: Option<&'a Arc<Rule>>,
    table: TableId,
    /// Why packets are handed to the controller from here, if it is not because of an action of a rule.
    reason: Option<PacketInReason>,
}

impl At<'_> {
    const PACKET_OUT: Self = At { rule: None, table: TableId::FIRST, reason: Some(PacketInReason::PacketOut) };
}

/// Something left to do.
enum Work<'a> {
    /// Actions, from `next` on.
    Actions {
        list: Arc<[Action]>,
        next: usize,
        at: At<'a>,
        /// Counts towards [`MAX_DEPTH`] until done.
        deepens: bool,
    },
    /// Ports still to be sent to, last first.
    Outputs(Vec<output::Target<'a>>),
    /// The action set, as it is by then.
    ActionSet,
    /// Back from the other side of a patch port.
    Return { bridge: &'a Bridge, flow: Box<Flow>, values: Vec<u128>, action_set: Vec<Action>, mirrored: u32 },
    /// Copies for mirrors still to be made, last first.
    Copies(Vec<mirror::Copied<'a>>),
    /// The packet as it was before a list that worked on a copy of it.
    Restore(Box<branch::Saved>),
    /// The first or the second branch of `check_pkt_larger` is done.
    Branch(Box<branch::Fork<'a>>),
    /// Buckets of a group that are still to be done, last first.
    Buckets { group: &'a Arc<crate::group::Group>, left: Vec<usize>, at: At<'a> },
}

/// The packet as the tables see it.
#[derive(Clone, Copy)]
struct Flow {
    key: FlowKey,
    /// Bits of `key` that are not the packet's own any more.
    written: FlowMask,
}

impl Flow {
    /// Replaces the value in `slot` by one that is not the packet's own.
    fn set(&mut self, slot: Slot, value: u128) {
        self.key.set(slot, value);
        self.written.add(slot);
    }
}

/// One packet on its way through the tables.
struct Walk<'a, M, S> {
    model: &'a Model,
    macs: &'a M,
    sink: &'a mut S,
    bridge: &'a Bridge,
    /// The packet as it came.
    entered: FlowKey,
    flow: Flow,
    wire: Wire,
    mask: FlowMask,
    stack: Vec<Work<'a>>,
    /// The stack of `push` and `pop`.
    values: Vec<u128>,
    action_set: Vec<Action>,
    depth: u32,
    jumps: u32,
    looped: bool,
    forwarded: bool,
    /// The packet comes from the connection tracker and still has what it said.
    tracked: bool,
    /// What is under the outermost header, taken off before, has not been read.
    unread: bool,
    /// The bits of the tunnel words that flows wrote in passes before this one.
    tunnel_written: TunnelKey,
    /// The mirrors of the current bridge that have their copy, by the bits of their places.
    mirrored: u32,
    /// Why the packet is dropped if nothing else happens.
    reason: DropReason,
    out: Translation,
}

impl<'a, M: MacLookup, S: TraceSink> Walk<'a, M, S> {
    fn new(model: &'a Model, macs: &'a M, bridge: &'a Bridge, key: &FlowKey, in_port: PortNo, sink: &'a mut S) -> Self {
        let mut flow = Flow { key: *key, written: FlowMask::ZERO };
        flow.key.set(slot::IN_PORT, in_port.0.into());
        flow.key.set(slot::ACTSET_OUTPUT, PortNo::UNSET.0.into());
        Self {
            model,
            macs,
            sink,
            bridge,
            entered: flow.key,
            wire: Wire::new(&flow.key),
            flow,
            mask: FlowMask::ZERO,
            stack: Vec::new(),
            values: Vec::new(),
            action_set: Vec::new(),
            depth: 0,
            jumps: 0,
            looped: false,
            forwarded: false,
            tracked: false,
            unread: false,
            tunnel_written: TunnelKey::NONE,
            mirrored: 0,
            reason: DropReason::NoRule,
            out: Translation::dropped(DropReason::NoRule),
        }
    }

    /// Works until nothing is left to do.
    fn run(mut self) -> Translation {
        while let Some(work) = self.stack.last_mut() {
            match work {
                Work::Actions { list, next, at, .. } => {
                    let (list, at, index) = (Arc::clone(list), *at, *next);
                    *next += 1;
                    match list.get(index) {
                        Some(action) => self.act(action, at),
                        None => _ = self.pop_list(),
                    }
                }
                Work::Outputs(targets) => match targets.pop() {
                    Some(target) => self.send(target),
                    None => drop(self.stack.pop()),
                },
                Work::Buckets { group, left, at } => match left.pop() {
                    Some(index) => {
                        let (group, at) = (*group, *at);
                        self.bucket(group, index, at);
                    }
                    None => drop(self.stack.pop()),
                },
                Work::Copies(left) => match left.pop() {
                    Some(copied) => self.copy(copied),
                    None => drop(self.stack.pop()),
                },
                _ => self.come_back(),
            }
            if self.looped || self.out.actions.len() > MAX_ACTIONS {
                return self.give_up();
            }
        }
        self.finish()
    }

    /// Takes up what was left for when the works above it are done.
    fn come_back(&mut self) {
        match self.stack.pop() {
            Some(Work::ActionSet) => self.do_action_set(),
            Some(Work::Return { bridge, flow, values, action_set, mirrored }) => {
                if self.bridge.id != bridge.id {
                    self.mirrored = mirrored;
                }
                (self.bridge, self.flow, self.values, self.action_set) = (bridge, *flow, values, action_set);
            }
            Some(Work::Restore(saved)) => self.restore(*saved),
            Some(Work::Branch(fork)) => self.next_branch(*fork),
            _ => {}
        }
    }

    fn finish(mut self) -> Translation {
        if S::ACTIVE {
            self.sink.event(0, TraceEvent::End(&self.flow.key));
        }
        branch::inline_last_copy(&mut self.out.actions);
        self.out.mask.union(&self.mask.without_pipeline());
        add_protocol(&mut self.out.mask);
        self.out.verdict = if self.forwarded { Verdict::Forward } else { Verdict::Drop(self.reason) };
        self.out
    }

    /// A bound was reached: the packet is dropped whole.
    fn give_up(mut self) -> Translation {
        self.note("a bound on resubmits, groups, patch ports, labels or actions was reached: the packet is dropped");
        self.out.actions.clear();
        self.out.patched.clear();
        self.out.resumes.clear();
        self.out.effects.clear();
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

    /// `exit`: ends every list up to the innermost one that works on a copy of the packet. As in OVS, and unlike what its
    /// manual says, the action set is not done either.
    fn exit(&mut self) {
        while let Some(Work::Actions { .. } | Work::Outputs(_) | Work::Buckets { .. }) = self.stack.last() {
            self.pop_list();
        }
        if let Some(Work::ActionSet) = self.stack.last() {
            self.stack.pop();
        }
    }

    /// `reject`: what is told is about the packet as it arrived, so nothing that was changed has to be on the wire.
    fn reject(&mut self, at: At<'a>) {
        self.note("the packet goes no further, and its sender is told");
        self.out.actions.push(DpAction::Reject);
        if let Some(rule) = at.rule {
            self.reason = rule.drop_reason();
        }
        self.action_set.clear();
        self.exit();
    }

    /// Starts at the first table of the current bridge, once the copies for mirrors are made.
    fn enter_bridge(&mut self) {
        if S::ACTIVE {
            let (bridge, in_port) = (self.bridge, self.in_port());
            self.tell(TraceEvent::Bridge { bridge, in_port });
        }
        if self.bridge.is_mirror_output(self.in_port()) {
            self.reason = DropReason::NoPort;
            return self
                .note("the ingress port is reserved for the copies of a mirror: what comes in by it is dropped");
        }
        self.jump(TableId::FIRST, None, false, true);
        self.mirror_ingress();
    }

    /// Looks the packet up in `table`, as if it had come by `in_port` if that is given, or with the addresses of its
    /// connection if `original` is true, and starts on the actions of the rule found.
    fn jump(&mut self, table: TableId, in_port: Option<PortNo>, original: bool, deepens: bool) {
        if self.depth >= MAX_DEPTH || self.jumps >= MAX_JUMPS {
            self.looped = true;
            return;
        }
        if self.unread {
            return self.read_anew(table);
        }
        let mut table = table;
        let mut found = self.look_up(table, in_port, original);
        while found.is_none() {
            let miss = self.bridge.table_configs.get(&table).map(|config| config.miss).unwrap_or_default();
            table = match (miss, table.get().checked_add(1).and_then(TableId::new)) {
                (TableMiss::Continue, Some(next)) => next,
                _ => return self.miss(table, miss),
            };
            found = self.look_up(table, in_port, original);
        }
        let Some(rule) = found else { return };
        self.jumps += 1;
        self.depth += u32::from(deepens);
        self.reason = rule.drop_reason();
        self.out.rules.push(Arc::clone(rule));
        let at = At { rule: Some(rule), table, reason: None };
        let list = Arc::clone(&rule.spec.actions);
        self.stack.push(Work::Actions { list, next: 0, at, deepens });
    }

    /// No rule of the table matches.
    fn miss(&mut self, table: TableId, miss: TableMiss) {
        self.reason = DropReason::NoRule;
        if miss == TableMiss::Controller {
            let options = ControllerAction { reason: PacketInReason::NoMatch, ..ControllerAction::default() };
            self.send_to_controller(&options, None, At { rule: None, table, reason: None });
            self.forwarded = true;
        }
    }

    fn look_up(&mut self, table: TableId, in_port: Option<PortNo>, original: bool) -> Option<&'a Arc<Rule>> {
        // Tables do not see the ports of fragments, not even those of a first one (OVS's `frags=normal`): else the parts
        // of one packet would go different ways.
        let before = S::ACTIVE.then_some(self.mask);
        self.out.tables.insert(table);
        let mut told = None;
        let hides_ports = self.is_fragment();
        let mut read = FlowMask::ZERO;
        let found = if in_port.is_none() && !original && !hides_ports {
            let found = self.bridge.tables.lookup(table, &self.flow.key, &mut read);
            self.absorb(&read);
            found
        } else {
            let mut seen = if original { self.flow.with_original_tuple() } else { self.flow };
            if let Some(port) = in_port {
                seen.set(slot::IN_PORT, port.0.into());
            }
            if hides_ports {
                seen.set(slot::TP_SRC, 0);
                seen.set(slot::TP_DST, 0);
            }
            let found = self.bridge.tables.lookup(table, &seen.key, &mut read);
            for (read, written) in read.0.iter_mut().zip(&seen.written.0) {
                *read &= !written;
            }
            if original {
                read = self.flow.of_original_tuple(&read);
            }
            self.mask.union(&read);
            told = S::ACTIVE.then_some(seen.key);
            found
        };
        if let Some(before) = before {
            self.tell(TraceEvent::Lookup { table, rule: found });
            let read = self.mask.without(&before);
            self.tell_lookup(table, found, &told.unwrap_or(self.flow.key), &read);
        }
        found
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
            self.tell(TraceEvent::Note(text));
        }
    }

    /// Tells the sink a step, with the number of lists, floods, groups and bridges that it is nested in.
    fn tell(&mut self, event: TraceEvent<'_>) {
        let is_level = |work: &&Work| {
            use Work::{Actions, Buckets, Copies, Outputs, Return};
            matches!(work, Actions { .. } | Outputs(_) | Copies(_) | Return { .. } | Buckets { .. })
        };
        self.sink.event(self.stack.iter().filter(is_level).count(), event);
    }

    fn act(&mut self, action: &Action, at: At<'a>) {
        if self.unread && encap::looks_under_labels(action) {
            return self.suspend(at.table);
        }
        if S::ACTIVE {
            self.tell(TraceEvent::Action(action));
        }
        let before = S::ACTIVE.then_some((self.flow.key, self.stack.len()));
        match action {
            Action::Output(port) => self.output(*port, at),
            Action::OutputField(source) => {
                let value = self.read_subfield(*source);
                self.output(PortNo(u16::try_from(value).unwrap_or(PortNo::NONE.0)), at);
            }
            Action::OutputTruncated { port, max_len } => self.output_truncated(*port, *max_len, at),
            Action::Controller(options) => {
                let drop = at.rule.and_then(|rule| rule.spec.drop_reason);
                self.send_to_controller(options, drop, at);
                self.forwarded |= drop.is_none();
                if options.pause {
                    self.note("the packet waits here until the controller resumes it");
                    self.action_set.clear();
                    self.exit();
                }
            }
            Action::Enqueue { port, queue } => self.enqueue(*port, *queue, at),
            Action::Group(id) => self.group(*id, at),
            Action::Bundle(bundle) => self.bundle(bundle, at),
            Action::GotoTable(target) => {
                let deepens = self.pop_list();
                self.depth += u32::from(deepens);
                self.jump(*target, None, false, false);
                self.inherit_depth(deepens);
            }
            Action::Resubmit { port, table, ct, .. } => {
                let target = table.unwrap_or(at.table);
                if *ct && !self.has(Prereq::CtIp) {
                    return self.note("the packet has no connection to look up with");
                }
                self.jump(target, *port, *ct, target <= at.table);
            }
            Action::SetField { field, value, mask } => self.set_field(*field, *value, *mask),
            Action::Load { value, dst } => self.set_field(dst.field, *value << dst.ofs, dst.mask()),
            Action::Move { src, dst } => {
                let value = self.read_subfield(*src);
                self.set_field(dst.field, value << dst.ofs, dst.mask());
            }
            Action::Push(src) => self.push(*src),
            Action::Pop(dst) => self.pop(*dst),
            Action::Mod(change) => self.modify(*change),
            Action::PushVlan(tpid) => self.push_vlan(*tpid),
            Action::PopVlan { .. } => self.pop_vlan(),
            Action::PushMpls(eth_type) => self.push_mpls(*eth_type),
            Action::PopMpls(eth_type) => self.pop_mpls(*eth_type),
            Action::SetMplsLabel(label) => self.set_field(Field::MplsLabel, (*label).into(), u128::MAX),
            Action::SetMplsTc(tc) => self.set_field(Field::MplsTc, (*tc).into(), u128::MAX),
            Action::SetMplsTtl(ttl) => self.set_field(Field::MplsTtl, (*ttl).into(), u128::MAX),
            Action::DecMplsTtl => self.dec_ttl_of(Field::MplsTtl, &[], at),
            Action::DecTtl(controllers) => self.dec_ttl_of(Field::IpTtl, controllers, at),
            Action::DecNshTtl => self.dec_ttl_of(Field::NshTtl, &[], at),
            Action::SetTunnel { id, .. } => self.set_field(Field::TunId, (*id).into(), u128::MAX),
            Action::SetQueue(queue) => self.write(slot::SKB_PRIORITY, (*queue).into(), u128::MAX),
            Action::PopQueue => self.put_back(slot::SKB_PRIORITY),
            Action::DeleteField(field) => self.delete_field(*field),
            Action::Learn(learn) => self.learn(learn, at),
            Action::Multipath(multipath) => self.multipath(multipath),
            Action::Meter(id) => match self.bridge.meters.get(id) {
                Some(meter) => self.out.actions.push(DpAction::Meter(MeterRef(Arc::clone(meter)))),
                None => self.note("the bridge has no such meter"),
            },
            Action::Clone(list) => self.clone_packet(list, at),
            Action::Exit => self.exit(),
            Action::Reject => self.reject(at),
            Action::CheckPktLarger { len, dst } => self.check_pkt_larger(*len, *dst, at),
            Action::Fragment(fragment) => self.fragment(fragment, at),
            Action::FinTimeout { idle, hard } => self.fin_timeout(*idle, *hard, at),
            Action::Ct(ct) => self.ct(ct, at.rule.map(|rule| rule.spec.owner.clone())),
            Action::CtClear => self.ct_clear(),
            Action::Encap(header) => self.encap(header),
            Action::Decap(_) => self.decap(),
            Action::WriteActions(list) => self.write_actions(list),
            Action::ClearActions => self.clear_actions(),
            Action::WriteMetadata { value, mask } => self.set_field(Field::Metadata, (*value).into(), (*mask).into()),
            // A clause of a conjunction is for the lookup, not for doing; a sample is counted with its rule.
            Action::Conjunction(_) | Action::Sample(_) | Action::Note(_) => {}
        }
        if let Some(before) = before {
            self.tell_changes(action, before);
        }
    }

    /// After a `goto_table`: the list that follows carries on the depth of the one it replaces.
    fn inherit_depth(&mut self, inherited: bool) {
        match self.stack.last_mut() {
            Some(Work::Actions { deepens, next: 0, .. }) if inherited => *deepens = true,
            _ => self.depth -= u32::from(inherited && !self.looped),
        }
    }

    fn push(&mut self, src: crate::action::Subfield) {
        let value = self.read_subfield(src);
        self.values.push(value);
        self.looped |= self.values.len() > MAX_STACK;
    }

    fn pop(&mut self, dst: crate::action::Subfield) {
        match self.values.pop() {
            Some(value) => self.set_field(dst.field, value << dst.ofs, dst.mask()),
            None => self.note("the stack is empty: nothing is popped"),
        }
    }
}
