//! One router as it runs: what it is asked to be, what it has found out, and its flows made of both.

mod interfaces;
mod receive;
mod resolve;
mod routing;
mod tell;

use super::advertise::{Advertiser, Dice};
use super::event::{RouterEventKind, RouterEvents};
use super::health::{CHECK_EVERY, Probes};
use super::limits::Limits;
use super::neighbors::Neighbors;
use super::outbox::Outbox;
use super::routes::Routes;
use super::{RouterCounters, RouterSpec};
use crate::Datapath;
use sluice_flows::bridge::{Bridge, BridgeId};
use sluice_flows::router::{InterfaceId, Neighbor, NextHops, Pipeline, RouterState, Stages};
use sluice_flows::rule::{FlowSpec, Millis};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// What a router needs of the switch while it thinks: the bridge as it is, the time, and where events go.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) bridge: &'a Bridge,
    pub(super) events: &'a RouterEvents,
    pub(super) now: Millis,
}

/// A router that runs.
pub(super) struct Running {
    pub(super) name: Arc<str>,
    /// What was asked for; its routes are in `routes`.
    pub(super) spec: RouterSpec,
    pub(super) bridge: BridgeId,
    pub(super) stages: Stages,
    hops: NextHops,
    pub(super) state: RouterState,
    pub(super) routes: Routes,
    pub(super) neighbors: Neighbors,
    limits: Limits,
    advertiser: Advertiser,
    probes: Probes,
    /// Interfaces that are still to say who they are, and when.
    announcements: BTreeMap<InterfaceId, (Millis, u8)>,
    /// Addresses that somebody else has, and when that was last told.
    duplicates: HashMap<(InterfaceId, IpAddr), Millis>,
    /// Interfaces whose port was up when it was last looked at.
    up: BTreeSet<InterfaceId>,
    checked: Millis,
    pub(super) counters: RouterCounters,
    /// Of its flows: raised whenever it is set anew.
    pub(super) generation: u64,
    dice: Dice,
    /// Of its next IPv4 datagram.
    identification: u16,
}

impl Running {
    /// A router that has found out nothing yet. `spec` has been checked.
    pub(super) fn new(spec: RouterSpec, pipeline: Pipeline, bridge: BridgeId, seed: u64, now: Millis) -> Self {
        let stages = Stages::new(pipeline, &spec.config);
        let mut dice = Dice::new(seed);
        let id = dice.below(1 << 16) as u16;
        Self {
            name: spec.config.name.as_str().into(),
            bridge,
            hops: NextHops::new(&pipeline),
            stages,
            state: RouterState::default(),
            routes: Routes::default(),
            neighbors: Neighbors::default(),
            limits: Limits::new(now),
            advertiser: Advertiser::default(),
            probes: Probes::new(&spec.probes, id, now),
            announcements: BTreeMap::new(),
            duplicates: HashMap::new(),
            up: BTreeSet::new(),
            checked: now,
            counters: RouterCounters::default(),
            generation: 1,
            dice,
            identification: id,
            spec,
        }
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, around: Surroundings<'_>, out: &mut Outbox) {
        let now = around.now;
        self.watch_ports(around, out);
        let mut todo = Vec::new();
        let stages = &self.stages;
        let used = |key: &(InterfaceId, IpAddr)| {
            let spec = stages.neighbor_flow(key.0, key.1, Neighbor::Failed);
            let rule = around.bridge.tables.get_strict(spec.table, spec.priority, &spec.matches);
            rule.map_or(Millis(0), |rule| rule.stats.used())
        };
        self.neighbors.tick(now, used, &mut todo);
        if now.since(self.checked) >= CHECK_EVERY {
            self.checked = now;
            let alive: Vec<_> = self.routes.gateways().filter(|(interface, _)| self.up.contains(interface)).collect();
            alive.into_iter().for_each(|key| self.neighbors.check(key, now, &mut todo));
        }
        self.resolve(todo, around, out);
        self.announce(around, out);
        self.advertise(now, out);
        self.probe(around, out);
    }

    /// When [`tick`](Self::tick) has something to do beside looking at ports and next hops.
    pub(super) fn next(&self) -> Option<Millis> {
        let announcement = self.announcements.values().map(|(due, _)| *due).min();
        [self.neighbors.next(), self.advertiser.next(), self.probes.next(), announcement].into_iter().flatten().min()
    }

    /// The flow as one of this generation.
    fn own(&self, spec: FlowSpec) -> FlowSpec {
        FlowSpec { generation: self.generation, ..spec }
    }

    fn publish(&self, around: Surroundings<'_>, kind: RouterEventKind) {
        around.events.publish(&self.name, kind);
    }

    /// An interface's name, for events.
    fn interface_name(&self, id: InterfaceId) -> String {
        self.stages.interface(id).map_or_else(|| id.to_string(), |interface| interface.name.clone())
    }

    /// The bridge that it is in, if that is still the one it was made in.
    pub(super) fn bridge_of(&self, datapath: &Datapath) -> Option<Arc<Bridge>> {
        let model = datapath.model();
        model.bridge(self.bridge).filter(|bridge| *bridge.name == *self.spec.bridge).cloned()
    }
}

/// A hardware address as the bytes of the number that flows have for it.
pub(crate) fn mac_bytes(mac: u64) -> [u8; 6] {
    let [_, _, mac @ ..] = mac.to_be_bytes();
    mac
}

/// A hardware address as the number that flows have for it.
pub(super) fn mac_number(mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}
