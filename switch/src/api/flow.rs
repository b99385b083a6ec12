//! Flows: bundles, dumps, deletions.

use super::bundle::Bundle;
use super::{Api, Parts, error, find_bridge};
use crate::Datapath;
use sluice_flows::DropReason;
use sluice_flows::bridge::Bridge;
use sluice_flows::filter::{FlowFilter, OwnerFilter};
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::rule::{Millis, Rule};
use sluice_flows::text::{Names, parse_filter, parse_flow_mod, show_actions, show_match};
use sluice_proto::v1::flow_service_server::FlowService;
use sluice_proto::v1::{
    self as proto, ApplyBundleReply, ApplyBundleRequest, DeleteFlowsReply, DeleteFlowsRequest, DumpFlowsReply,
    DumpFlowsRequest, Flow,
};
use std::cmp::Reverse;
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};

/// Flows in one part of a dump.
const CHUNK: usize = 500;

#[tonic::async_trait]
impl FlowService for Api {
    type DumpFlowsStream = Parts<DumpFlowsReply>;

    async fn apply_bundle(
        &self,
        request: Request<Streaming<ApplyBundleRequest>>,
    ) -> Result<Response<ApplyBundleReply>, Status> {
        let bundle = Bundle::receive(request.into_inner()).await?;
        self.blocking(move |datapath| bundle.apply(datapath)).await.map(Response::new)
    }

    async fn dump_flows(&self, request: Request<DumpFlowsRequest>) -> Result<Response<Self::DumpFlowsStream>, Status> {
        let request = request.into_inner();
        let names = request.port_names;
        let select = move |datapath: &Datapath| {
            // Workers that do not answer in time leave counters a little behind.
            _ = datapath.sync_stats();
            let bridge = find_bridge(datapath, &request.bridge)?;
            let filter = filter(&request.filter.unwrap_or_default(), &bridge)?;
            Ok((sorted(&bridge, &filter), bridge))
        };
        let (rules, bridge) = self.blocking(select).await?;
        Ok(Response::new(self.parts(move |datapath, send| {
            let names = if names { Names::of_bridge(&bridge) } else { Names::new() };
            for chunk in rules.chunks(CHUNK) {
                let now = datapath.clock().now();
                if !send(DumpFlowsReply { flows: chunk.iter().map(|rule| flow(rule, now, &names)).collect() }) {
                    break;
                }
            }
            Ok(())
        })))
    }

    async fn delete_flows(&self, request: Request<DeleteFlowsRequest>) -> Result<Response<DeleteFlowsReply>, Status> {
        let request = request.into_inner();
        let work = move |datapath: &Datapath| {
            let bridge = find_bridge(datapath, &request.bridge)?;
            let filter = filter(&request.filter.unwrap_or_default(), &bridge)?;
            let done = datapath.apply_bundle(&bridge.name, &[FlowMod::delete(filter)]).map_err(error::status)?;
            Ok(DeleteFlowsReply { deleted: done.changes.deleted })
        };
        self.blocking(work).await.map(Response::new)
    }
}

/// The rules that the filter selects: by table, then the highest priority first, then by match.
fn sorted(bridge: &Bridge, filter: &FlowFilter) -> Vec<Arc<Rule>> {
    let mut rules: Vec<_> = bridge.tables.select(filter).cloned().collect();
    let by_number = Names::new();
    rules.sort_by_cached_key(|rule| {
        let spec = &rule.spec;
        (spec.table, Reverse(spec.priority), show_match(&spec.matches, &by_number).to_string())
    });
    rules
}

/// What a request's filter selects in this bridge.
pub(super) fn filter(asked: &proto::FlowFilter, bridge: &Bridge) -> Result<FlowFilter, Status> {
    let names = Names::of_bridge(bridge);
    let invalid = |e: sluice_flows::text::ParseError| Status::invalid_argument(format!("{e:#}"));
    let mut filter = if asked.strict {
        match parse_flow_mod(&format!("delete_strict {}", asked.r#match), &names).map_err(invalid)?.value {
            FlowMod::Delete { filter } => filter,
            _ => return Err(Status::invalid_argument("a filter selects flows; it has no verb")),
        }
    } else {
        parse_filter(&asked.r#match, &names).map_err(invalid)?.value
    };
    if !asked.owner.is_empty() {
        filter.owner = Some(OwnerFilter::new(&asked.owner));
    }
    filter.generation_below = asked.generation_below;
    Ok(filter)
}

/// A rule as a dump shows it.
pub(super) fn flow(rule: &Rule, now: Millis, names: &Names) -> Flow {
    let spec = &rule.spec;
    Flow {
        table: spec.table.get().into(),
        priority: spec.priority.into(),
        cookie: spec.cookie,
        r#match: show_match(&spec.matches, names).to_string(),
        actions: show_actions(&spec.actions, names).to_string(),
        owner: spec.owner.to_string(),
        generation: spec.generation,
        drop_reason: spec.drop_reason.map_or("", DropReason::name).to_owned(),
        packets: rule.stats.packets(),
        bytes: rule.stats.bytes(),
        duration_ms: now.since(rule.created),
        idle_ms: now.since(rule.stats.used().max(rule.created)),
        idle_timeout_s: spec.idle_timeout.into(),
        hard_timeout_s: spec.hard_timeout.into(),
        importance: spec.importance.into(),
        send_flow_rem: spec.send_flow_rem,
        modified_ms: now.since(rule.modified),
        no_packet_counts: spec.no_packet_counts,
        no_byte_counts: spec.no_byte_counts,
    }
}
