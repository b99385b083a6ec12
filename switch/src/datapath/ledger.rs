//! Crediting: what a cache entry has counted goes to the rules, the groups, the patch ports, the MAC table and the drops.
//!
//! What packets do to the tables (`learn`, `fin_timeout`) is done by the translation at once, and done again here for
//! packets that a cache answered since, so that a learned flow lives as long as there are packets that would learn it.
//! Not for an entry that is out of date: what its packets learned may have been deleted meanwhile, and the next packet
//! is translated anyway.

use super::cache::megaflow::{Flow, Hot, Parts};
use super::lanes::Lanes;
use super::shared::Shared;
use sluice_flows::bridge::Model;
use sluice_flows::key::{PacketKey, slot};
use sluice_flows::rule::Millis;
use sluice_flows::{DpPort, Verdict};

/// Where one worker credits to.
pub(super) struct Ledger<'a> {
    shared: &'a Shared,
    lanes: &'a Lanes,
    /// The model in force.
    model: &'a Model,
}

impl<'a> Ledger<'a> {
    /// That of the worker with these lanes, for this model.
    pub(super) fn new(shared: &'a Shared, lanes: &'a Lanes, model: &'a Model) -> Self {
        Self { shared, lanes, model }
    }

    /// Credits what the entry counted since the last time.
    pub(super) fn settle(&self, Parts { hot, flow, guards }: Parts<'_>) {
        let (packets, bytes) = (hot.packets, hot.bytes);
        if packets == 0 {
            return;
        }
        guards.all(|guard| {
            guard.conn.count(guard.direction, packets, bytes);
            true
        });
        self.settle_pass(hot, flow);
        self.credit_drop(flow, packets, hot.used);
    }

    /// The same for an entry of another pass than the first, which says nothing of what becomes of the packet.
    pub(super) fn settle_pass(&self, hot: &mut Hot, flow: &mut Flow) {
        if hot.packets != 0 {
            let (packets, bytes) = (std::mem::take(&mut hot.packets), std::mem::take(&mut hot.bytes));
            let effected = std::mem::take(&mut flow.effected);
            if packets > effected
                && !flow.side.effects().is_empty()
                && self.model.is_unchanged_since(flow.generation, &flow.tables)
            {
                self.shared.apply_effects(flow.side.effects(), hot.used);
            }
            self.credit(flow, packets, bytes, hot.used);
        }
    }

    /// Credits packets that a translation was used for.
    pub(super) fn credit(&self, flow: &mut Flow, packets: u64, bytes: u64, used: Millis) {
        flow.packets += packets;
        flow.bytes += bytes;
        for rule in &flow.rules {
            let counted = |no: bool, count: u64| if no { 0 } else { count };
            let (packets, bytes) =
                (counted(rule.spec.no_packet_counts, packets), counted(rule.spec.no_byte_counts, bytes));
            rule.stats.credit(packets, bytes, used);
        }
        for stats in flow.side.buckets() {
            stats.credit(packets, bytes, used);
        }
        for pair in flow.patched.chunks_exact(2) {
            if let Some(left) = self.lanes.cells(pair[0]) {
                left.tx_packets.add(packets);
                left.tx_bytes.add(bytes);
            }
            if let Some(entered) = self.lanes.cells(pair[1]) {
                entered.rx_packets.add(packets);
                entered.rx_bytes.add(bytes);
            }
        }
        for sighting in &flow.sightings {
            self.shared.macs.refresh(sighting, used);
        }
    }

    /// Counts packets that a translation was used for as dropped, if that is what became of them.
    pub(super) fn credit_drop(&self, flow: &Flow, packets: u64, used: Millis) {
        if let Verdict::Drop(reason) = flow.verdict {
            let ingress = ingress(&flow.example);
            self.shared.drops[self.lanes.worker()].add(
                reason,
                ingress,
                flow.rules.last(),
                packets,
                used,
                Some(&flow.example),
            );
        }
    }
}

/// The datapath port in a key of the caches.
pub(super) fn ingress(key: &PacketKey) -> DpPort {
    DpPort(key.get(slot::IN_PORT) as u32)
}
