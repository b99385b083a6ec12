//! Making one entry of all passes of a packet, so that the next one like it takes none.
//!
//! While a packet goes through its passes, what each of them does is written down: the bits it looked at, its actions,
//! whom to credit, and which connections answered. When every answer of connection tracking was one that it would give
//! again ([`Repeat`]), all of it together is an entry of the megaflow cache: for packets with the same addresses and
//! ports (and whatever else was looked at), as long as the connections are as they were ([`Guard`]). Address translation
//! is in its actions as what it came to.
//!
//! What cannot be put in front of the actions as a guard ends the recording: a meter before connection tracking is
//! asked, headers pushed or popped before the next pass reads them, a pass begun within a copy's own list.
//!
//! [`Guard`]: crate::conntrack::Guard

use super::cache::lists::Steps;
use super::cache::megaflow::{Flow, Guards, Side, widen};
use crate::conntrack::Repeat;
use sluice_flows::datapath::{DpAction, Effect, MacSighting};
use sluice_flows::field::ETH_TYPE_IPV4;
use sluice_flows::key::{PacketKey, PacketMask, Slot, slot};
use sluice_flows::rule::{Rule, RuleStats, TableSet};
use sluice_flows::{DpPort, DropReason, Verdict};
use smallvec::SmallVec;
use std::sync::Arc;

/// What connection tracking knows a packet by, beside its addresses.
const TUPLE: [Slot; 5] = [slot::ETH_TYPE, slot::IP_PROTO, slot::IP_FRAG, slot::TP_SRC, slot::TP_DST];

/// The addresses of a packet. Fewer words are cheaper to hash and to compare: those of the other family are zero.
fn addresses(key: &PacketKey) -> [Slot; 2] {
    match key.get(slot::ETH_TYPE) as u16 {
        ETH_TYPE_IPV4 => [slot::IP_SRC, slot::IP_DST],
        _ => [slot::IPV6_SRC, slot::IPV6_DST],
    }
}

/// What the passes of a packet come to, as far as it has got.
#[derive(Debug, Default)]
pub(super) struct Recording {
    on: bool,
    /// Connection tracking was asked.
    asked: bool,
    /// A meter may have kept the packet from what follows.
    metered: bool,
    /// Headers were put on or taken off.
    reshaped: bool,
    mask: PacketMask,
    /// The actions of the pass at hand last, behind those of the passes that it was begun from.
    levels: Vec<Vec<DpAction>>,
    guards: Guards,
    generation: u64,
    tables: TableSet,
    macs: SmallVec<[(u16, u32); 2]>,
    sightings: SmallVec<[MacSighting; 1]>,
    rules: Vec<Arc<Rule>>,
    buckets: Vec<Arc<RuleStats>>,
    effects: Vec<Effect>,
    patched: SmallVec<[DpPort; 2]>,
    /// Why the last pass that dropped the packet did.
    reason: Option<DropReason>,
}

impl Recording {
    /// Begins with the first pass, an entry of the megaflow cache.
    pub(super) fn begin(&mut self, mask: &PacketMask, flow: &Flow) {
        let levels = std::mem::take(&mut self.levels);
        *self = Self { on: true, generation: flow.generation, levels, ..Self::default() };
        self.levels.clear();
        self.levels.push(Vec::new());
        self.add(mask, flow);
    }

    /// Nothing is recorded until the next beginning.
    #[inline]
    pub(super) fn stop(&mut self) {
        self.on = false;
    }

    /// Whether the packet is recorded.
    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    fn add(&mut self, mask: &PacketMask, flow: &Flow) {
        widen(&mut self.mask, mask);
        // What all of them come to is as old as the oldest.
        self.generation = self.generation.min(flow.generation);
        self.tables.union(&flow.tables);
        self.macs.extend_from_slice(&flow.macs);
        self.sightings.extend_from_slice(&flow.sightings);
        self.rules.extend_from_slice(&flow.rules);
        self.buckets.extend_from_slice(flow.side.buckets());
        self.effects.extend_from_slice(flow.side.effects());
        self.patched.extend_from_slice(&flow.patched);
        if let Verdict::Drop(reason) = flow.verdict {
            self.reason = Some(reason);
        }
    }

    /// An action that is done as it stands.
    pub(super) fn action(&mut self, action: &DpAction) {
        if !self.on {
            return;
        }
        match action {
            DpAction::Meter(_) => self.metered = true,
            DpAction::PushVlan { .. }
            | DpAction::PopVlan
            | DpAction::PushMpls { .. }
            | DpAction::PopMpls(_)
            | DpAction::PushEthernet { .. }
            | DpAction::PopEthernet
            | DpAction::PushNsh(_)
            | DpAction::PopNsh => self.reshaped = true,
            _ => {}
        }
        self.push(action.clone());
    }

    fn push(&mut self, action: DpAction) {
        if let Some(level) = self.levels.last_mut() {
            level.push(action);
        }
    }

    /// Connection tracking answered; `translation` is what it changed in the frame.
    pub(super) fn tracked(&mut self, repeat: Repeat, translation: Option<DpAction>) {
        self.asked = true;
        self.on &= !self.metered && !self.reshaped;
        match repeat {
            // One that answers twice is a guard twice: it counts the packet as often.
            Repeat::Guarded(guard) => self.guards.push(guard),
            Repeat::Same => {}
            Repeat::Never => self.on = false,
        }
        if let Some(translation) = translation {
            self.push(translation);
        }
    }

    /// Another pass begins.
    pub(super) fn begin_pass(&mut self, mask: &PacketMask, flow: &Flow) {
        self.on &= !self.reshaped;
        if self.on {
            self.levels.push(Vec::new());
            self.add(mask, flow);
        }
    }

    /// The pass that was begun last has ended. `last` says that nothing follows in the list it was begun from.
    pub(super) fn end_pass(&mut self, last: bool) {
        if !self.on {
            return;
        }
        let Some(actions) = self.levels.pop() else { return };
        match self.levels.last_mut() {
            Some(before) if last => before.extend(actions),
            Some(_) => self.push(DpAction::Clone(actions.into())),
            None => self.on = false,
        }
    }

    /// The entry for `key` and everything like it, if all of it was recorded. It has no packets yet.
    pub(super) fn finish(&mut self, key: &PacketKey) -> Option<(PacketMask, Flow, Steps, Guards)> {
        let whole = std::mem::take(&mut self.on) && self.asked && !self.guards.is_empty() && self.levels.len() == 1;
        let actions = self.levels.pop().filter(|_| whole)?;
        let mut mask = self.mask;
        for slot in TUPLE.into_iter().chain(addresses(key)) {
            mask.set(slot, u128::MAX);
        }
        let verdict = match self.reason {
            Some(reason) if !actions.iter().any(delivers) => Verdict::Drop(reason),
            _ => Verdict::Forward,
        };
        let flow = Flow {
            verdict,
            generation: self.generation,
            tables: self.tables,
            macs: std::mem::take(&mut self.macs),
            sightings: std::mem::take(&mut self.sightings),
            rules: std::mem::take(&mut self.rules),
            side: Side::new(std::mem::take(&mut self.buckets), std::mem::take(&mut self.effects)),
            patched: std::mem::take(&mut self.patched),
            example: *key,
            packets: 0,
            bytes: 0,
            effected: 0,
        };
        Some((mask, flow, Steps { actions, resumes: Vec::new() }, std::mem::take(&mut self.guards)))
    }
}

/// Whether the action sends the packet somewhere.
fn delivers(action: &DpAction) -> bool {
    match action {
        DpAction::Output(_) => true,
        DpAction::Controller(about) => about.drop.is_none(),
        DpAction::Clone(list) => list.iter().any(delivers),
        DpAction::CheckPktLen { larger, otherwise, .. } => larger.iter().chain(otherwise.iter()).any(delivers),
        _ => false,
    }
}
