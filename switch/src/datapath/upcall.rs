//! What happens to a packet that no cache has an answer for: it is translated, here and now, by the worker itself.

use super::cache::lists::Steps;
use super::cache::megaflow::{Flow, Side};
use super::passes::{Continuation, Passes};
use super::shared::Shared;
use crate::event::EventKind;
use crate::mac_table::{MacChange, MacEntry, MacTable};
use sluice_flows::action::Action;
use sluice_flows::bridge::{BridgeId, Model};
use sluice_flows::datapath::{DpAction, MacQuery, MacSighting, McastQuery, Resume, Translation};
use sluice_flows::key::{FlowKey, FlowMask, PacketKey};
use sluice_flows::rule::Millis;
use sluice_flows::translate::{
    MacLookup, NoTrace, TraceEvent, TraceSink, translate, translate_packet_out, translate_resumed,
};
use sluice_flows::{DpPort, DropReason, PortNo};
use smallvec::SmallVec;
use std::cell::RefCell;

/// The MAC table, and which of its version counters the answers depended on.
struct Watched<'a> {
    macs: &'a MacTable,
    seen: RefCell<SmallVec<[(u16, u32); 2]>>,
}

impl<'a> Watched<'a> {
    fn new(macs: &'a MacTable) -> Self {
        Self { macs, seen: RefCell::default() }
    }

    fn note(&self, bridge: BridgeId, vlan: sluice_flows::bridge::VlanId, mac: u64) {
        let slot = self.macs.slot(bridge, vlan, mac);
        self.seen.borrow_mut().push((slot, self.macs.version(slot)));
    }
}

impl MacLookup for Watched<'_> {
    fn port_of(&self, query: MacQuery) -> Option<PortNo> {
        // The version is read first: see the table's module documentation.
        self.note(query.bridge, query.vlan, query.mac);
        self.macs.port_of(query)
    }

    fn members(&self, query: McastQuery) -> Option<SmallVec<[PortNo; 4]>> {
        // The answer has the routers in it too.
        for group in [query.group, None] {
            let slot = self.macs.group_slot(McastQuery { group, ..query });
            self.seen.borrow_mut().push((slot, self.macs.version(slot)));
        }
        self.macs.members(query)
    }
}

/// What comes of a packet.
pub(super) struct Answer {
    /// The bits that were looked at.
    pub(super) mask: FlowMask,
    pub(super) flow: Flow,
    /// What is done with it.
    pub(super) actions: Vec<DpAction>,
    /// Where it goes on.
    pub(super) resumes: Vec<Resume>,
}

impl Answer {
    /// What is done with a packet that no cache is asked about.
    pub(super) fn unnumbered(self) -> (Flow, Steps) {
        let resumes = self.resumes.into_iter().map(Continuation::unnumbered).collect();
        (self.flow, Steps { actions: self.actions, resumes })
    }

    /// What is done with it, with the numbers that a worker gives to where it goes on.
    pub(super) fn numbered(self, passes: &mut Passes) -> (Flow, Steps) {
        (self.flow, Steps { actions: self.actions, resumes: passes.number(self.resumes) })
    }
}

/// Translates a packet that came in by `ingress`, and learns where its source is.
pub(super) fn upcall(shared: &Shared, model: &Model, key: &PacketKey, ingress: DpPort, now: Millis) -> Answer {
    let watched = Watched::new(&shared.macs);
    let translation = receive(model, &watched, &key.into(), ingress, &mut NoTrace);
    finish(shared, model, key, translation, watched, now)
}

/// Translates a packet-out. `None` when the bridge is gone.
pub(super) fn packet_out(
    shared: &Shared,
    model: &Model,
    key: &PacketKey,
    (bridge, in_port): (BridgeId, PortNo),
    actions: &[Action],
    now: Millis,
) -> Option<Answer> {
    let watched = Watched::new(&shared.macs);
    let translation = translate_packet_out(model, &watched, bridge, in_port, &key.into(), actions, &mut NoTrace)?;
    Some(finish(shared, model, key, translation, watched, now))
}

/// Translates the next pass of a packet, which by then is `key`. `None` when the bridge is gone.
pub(super) fn resumed(shared: &Shared, model: &Model, resume: &Resume, key: &FlowKey, now: Millis) -> Option<Answer> {
    let watched = Watched::new(&shared.macs);
    let translation = translate_resumed(model, &watched, resume, key, &mut NoTrace)?;
    Some(finish(shared, model, &key.packet(), translation, watched, now))
}

fn finish(
    shared: &Shared,
    model: &Model,
    key: &PacketKey,
    translation: Translation,
    watched: Watched<'_>,
    now: Millis,
) -> Answer {
    for sighting in &translation.sightings {
        learn(shared, sighting, now);
        // After learning: the entry is out of date as soon as the address is somewhere else or forgotten.
        watched.note(sighting.bridge, sighting.vlan, sighting.mac);
    }
    if !translation.effects.is_empty() {
        shared.apply_effects(&translation.effects, now);
    }
    let flow = Flow {
        verdict: translation.verdict,
        generation: model.generation,
        tables: translation.tables,
        macs: watched.seen.into_inner(),
        sightings: translation.sightings,
        rules: translation.rules,
        side: Side::new(translation.buckets, translation.effects),
        patched: translation.patched,
        example: *key,
        packets: 0,
        bytes: 0,
        effected: 1,
    };
    Answer { mask: translation.mask, flow, actions: translation.actions, resumes: translation.resumes }
}

fn learn(shared: &Shared, sighting: &MacSighting, now: Millis) {
    let change = shared.macs.learn(sighting, now);
    if change != MacChange::None {
        let MacSighting { bridge, vlan, mac, port } = *sighting;
        let entry = MacEntry { bridge, vlan, mac, port, seen: now };
        shared.events.publish(Some(bridge), EventKind::MacLearned { entry, change });
    }
}

/// Translates a packet that came in by `ingress`; one that came in by a port that is down is dropped.
pub(crate) fn receive(
    model: &Model,
    macs: &impl MacLookup,
    key: &FlowKey,
    ingress: DpPort,
    sink: &mut impl TraceSink,
) -> Translation {
    if model.port(ingress).is_none_or(|(_, port)| port.up) {
        return translate(model, macs, ingress, key, sink);
    }
    sink.event(0, TraceEvent::Note("the ingress port is down"));
    Translation::dropped(DropReason::PortDown)
}
