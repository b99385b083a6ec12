//! Counters, drops, and what is in the caches.

use super::{Api, Parts, only};
use crate::stats::{DropGroup, Stage, WorkerStats};
use crate::{Datapath, MegaflowStats};
use sluice_flows::bridge::Model;
use sluice_flows::key::{FlowKey, PacketKey, slot};
use sluice_flows::rule::{FlowSpec, Millis};
use sluice_flows::text::{Names, show_datapath_actions, show_match, show_megaflow, show_packet};
use sluice_flows::{DpPort, DropReason};
use sluice_proto::v1::stats_service_server::StatsService;
use sluice_proto::v1::{
    self as proto, Drop, DumpMegaflowsReply, DumpMegaflowsRequest, GetStatsReply, GetStatsRequest, ListDropsReply,
    ListDropsRequest, Megaflow, ReasonCount, StageTime,
};
use tonic::{Request, Response, Status};

/// Entries in one part of a list.
const CHUNK: usize = 500;

#[tonic::async_trait]
impl StatsService for Api {
    type ListDropsStream = Parts<ListDropsReply>;
    type DumpMegaflowsStream = Parts<DumpMegaflowsReply>;

    async fn get_stats(&self, _: Request<GetStatsRequest>) -> Result<Response<GetStatsReply>, Status> {
        self.blocking(|datapath| Ok(totals(&datapath.worker_stats()))).await.map(Response::new)
    }

    async fn list_drops(&self, request: Request<ListDropsRequest>) -> Result<Response<Self::ListDropsStream>, Status> {
        let bridge = request.into_inner().bridge;
        Ok(Response::new(self.parts(move |datapath, send| {
            // Workers that do not answer in time leave counters a little behind.
            _ = datapath.sync_stats();
            let (model, now) = (datapath.model(), datapath.clock().now());
            let drops = datapath.drops().into_iter().map(|group| drop_group(&model, group, now));
            let drops: Vec<_> = drops.filter(|d| only(&bridge).is_none_or(|b| d.bridge == b)).collect();
            for chunk in drops.chunks(CHUNK) {
                if !send(ListDropsReply { drops: chunk.to_vec() }) {
                    break;
                }
            }
            Ok(())
        })))
    }

    async fn dump_megaflows(
        &self,
        request: Request<DumpMegaflowsRequest>,
    ) -> Result<Response<Self::DumpMegaflowsStream>, Status> {
        let worker = request.into_inner().worker.map(|w| w as usize);
        Ok(Response::new(self.parts(move |datapath: &Datapath, send| {
            let (model, now) = (datapath.model(), datapath.clock().now());
            for chunk in datapath.megaflows(worker).chunks(CHUNK) {
                if !send(DumpMegaflowsReply { megaflows: chunk.iter().map(|m| megaflow(&model, m, now)).collect() }) {
                    break;
                }
            }
            Ok(())
        })))
    }
}

fn totals(workers: &[WorkerStats]) -> GetStatsReply {
    let drops = DropReason::ALL.iter().enumerate().map(|(i, reason)| ReasonCount {
        reason: reason.name().to_owned(),
        packets: workers.iter().filter_map(|w| w.dropped.get(i)).sum(),
    });
    GetStatsReply {
        received_packets: workers.iter().map(|w| w.received).sum(),
        forwarded_packets: workers.iter().map(|w| w.forwarded).sum(),
        dropped_packets: workers.iter().map(WorkerStats::dropped_total).sum(),
        drops: drops.filter(|d| d.packets > 0).collect(),
        workers: workers.iter().map(worker_stats).collect(),
    }
}

fn worker_stats(w: &WorkerStats) -> proto::WorkerStats {
    proto::WorkerStats {
        worker: u32::try_from(w.worker).unwrap_or(u32::MAX),
        packets: w.received,
        bursts: w.bursts,
        exact_hits: w.cache.exact_hits,
        megaflow_hits: w.cache.megaflow_hits,
        misses: w.cache.misses + w.cache.stale,
        exact_entries: w.cache.exact_entries,
        megaflow_entries: w.cache.megaflow_entries,
        megaflow_masks: u32::try_from(w.cache.megaflow_masks).unwrap_or(u32::MAX),
        parks: w.parks,
        busy_us: w.busy_us,
        uptime_us: w.uptime_us,
        packet_ins_lost: w.packet_ins_lost,
        connection_hits: w.cache.connection_hits,
        pass_hits: w.cache.pass_hits,
        pass_misses: w.cache.pass_misses,
        pass_entries: w.cache.pass_entries,
        held_packets: w.held,
        released_packets: w.released,
        bursts_by_size: w.bursts_by_size.to_vec(),
        ticks_hz: w.timing.ticks_hz,
        timed_packets: w.timing.packets,
        stages: Stage::ALL.iter().zip(w.timing.stages).map(stage_time).collect(),
        translation_ticks: w.timing.translation,
        handed_on_packets: w.handed_on,
        taken_over_packets: w.taken_over,
    }
}

fn stage_time((stage, ticks): (&Stage, u64)) -> StageTime {
    StageTime { stage: stage.name().to_owned(), ticks }
}

/// The key with its ingress port's OpenFlow number in the place of the datapath's.
fn in_bridge(model: &Model, key: &PacketKey) -> FlowKey {
    let mut key = FlowKey::from(key);
    let dp = DpPort(u32::try_from(key.get(slot::IN_PORT)).unwrap_or(u32::MAX));
    key.set(slot::IN_PORT, model.port(dp).map_or(0, |(_, port)| port.no.0.into()));
    key
}

fn drop_group(model: &Model, group: DropGroup, now: Millis) -> Drop {
    let port = model.port(group.ingress);
    let rule = group.rule.as_ref().map(|rule| &rule.spec);
    Drop {
        reason: group.reason.name().to_owned(),
        explanation: group.reason.explanation().trim().to_owned(),
        bridge: port.map_or_else(String::new, |(bridge, _)| bridge.name.to_string()),
        port: port.map_or_else(String::new, |(_, port)| port.name.to_string()),
        owner: rule.map_or_else(String::new, |spec| spec.owner.to_string()),
        packets: group.packets,
        last_packet: group
            .example
            .map_or_else(String::new, |key| show_packet(&in_bridge(model, &key), &Names::new()).to_string()),
        last_ms: Some(now.since(group.last)),
        hint: hint(group.reason).to_owned(),
        rule: rule.map_or_else(String::new, rule_text),
    }
}

/// A rule as `table=T,priority=P,MATCH`.
pub(super) fn rule_text(spec: &FlowSpec) -> String {
    let matches = show_match(&spec.matches, &Names::new()).to_string();
    let comma = if matches.is_empty() { "" } else { "," };
    format!("table={},priority={}{comma}{matches}", spec.table, spec.priority)
}

/// What to look at next.
fn hint(reason: DropReason) -> &'static str {
    match reason {
        DropReason::RuleDrop | DropReason::PolicyDeny | DropReason::PolicyDefaultDeny => {
            "The owner is who to ask; `sluice trace` with the last packet shows the way to the rule."
        }
        DropReason::NoRule => "`sluice trace` with the last packet shows the table that had no rule for it.",
        DropReason::VlanFilter | DropReason::PortDown | DropReason::NoPort => {
            "`sluice ports` shows VLANs and states of the ports."
        }
        DropReason::Loop => "`sluice trace` with the last packet shows which tables go round in circles.",
        DropReason::MtuExceeded => "`sluice ports` shows MTUs; the sender has a larger one, or offloads too much.",
        DropReason::QueueFull | DropReason::Overload => "The receiver is slower than the sender.",
        _ => "",
    }
}

fn megaflow(model: &Model, m: &MegaflowStats, now: Millis) -> Megaflow {
    // A packet that goes on in another pass has its bridge's port number already.
    let key = if m.key.get(slot::RECIRC_ID) == 0 { in_bridge(model, &m.key.packet()) } else { m.key };
    let name = |dp| model.port(dp).map(|(_, port)| &*port.name);
    Megaflow {
        worker: u32::try_from(m.worker).unwrap_or(u32::MAX),
        r#match: show_megaflow(&key, &m.mask, &Names::new()).to_string(),
        actions: show_datapath_actions(&m.actions, &key, name).to_string(),
        packets: m.packets,
        bytes: m.bytes,
        idle_ms: (m.packets > 0).then(|| now.since(m.used)),
        owner: m.rule.as_ref().map_or_else(String::new, |rule| rule.spec.owner.to_string()),
    }
}
