//! Flows: bundles, dumps, deletions.

mod lines;

use super::bundle::Bundle;
use super::{Api, Parts, error, find_bridge};
use crate::Datapath;
use foldhash::fast::RandomState;
use sluice_flows::DropReason;
use sluice_flows::bridge::Bridge;
use sluice_flows::filter::{FlowFilter, OwnerFilter};
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::rule::{Millis, Rule};
use sluice_flows::text::{Names, parse_filter, parse_flow_mod, show_actions, show_match};
use sluice_proto::v1::flow_service_server::FlowService;
use sluice_proto::v1::{
    self as proto, ApplyBundleReply, ApplyBundleRequest, DeleteFlowsReply, DeleteFlowsRequest, DumpFlowsReply,
    DumpFlowsRequest, Flow, FlowLineStyle,
};
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};

/// Flows in one part of a dump.
const CHUNK: usize = 1_000;
/// Most texts of action lists that a dump keeps, for lists that many flows share.
const KEPT_TEXTS: usize = 1_000;

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
        let style = request.lines();
        let select = move |datapath: &Datapath| {
            // Workers that do not answer in time leave counters a little behind.
            _ = datapath.sync_stats();
            let bridge = find_bridge(datapath, &request.bridge)?;
            let filter = filter(&request.filter.unwrap_or_default(), &bridge)?;
            Ok((bridge, filter))
        };
        let (bridge, filter) = self.blocking(select).await?;
        Ok(Response::new(self.parts(move |datapath, send| {
            let names = if request.port_names { Names::of_bridge(&bridge) } else { Names::new() };
            let now = datapath.clock().now();
            if style == FlowLineStyle::None {
                return dump(&bridge, &filter, &names, (request.nonzero, now), send);
            }
            let style = lines::Style { stats: style == FlowLineStyle::Stats, nonzero: request.nonzero, now };
            lines::dump(&bridge, &filter, &names, style, send)
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

/// Sends the flows that `filter` selects, only those that a packet has matched if `nonzero`.
fn dump(
    bridge: &Bridge,
    filter: &FlowFilter,
    names: &Names,
    (nonzero, now): (bool, Millis),
    send: &dyn Fn(DumpFlowsReply) -> bool,
) -> Result<(), Status> {
    let mut texts = ActionTexts::default();
    let mut flows = Vec::with_capacity(CHUNK);
    let rules = in_order(bridge, filter, nonzero);
    // What has been made is sent and printed while the rest is made.
    for rules in rules.chunk_by(|a, b| a.0 == b.0) {
        for (rule, by_number) in by_match(rules) {
            let matches = if names.is_empty() { by_number } else { show_match(&rule.spec.matches, names).to_string() };
            let actions = texts.text(rule, names).to_owned();
            flows.push(flow_of(rule, now, matches, actions));
            let whole = |flows| DumpFlowsReply { flows, ..DumpFlowsReply::default() };
            if flows.len() == CHUNK && !send(whole(std::mem::take(&mut flows))) {
                return Ok(());
            }
        }
    }
    send(DumpFlowsReply { flows, ..DumpFlowsReply::default() });
    Ok(())
}

/// The rules that the filter selects, by table, then the highest priority first; each behind a number for both.
fn in_order<'a>(bridge: &'a Bridge, filter: &'a FlowFilter, nonzero: bool) -> Vec<(u32, &'a Rule)> {
    let place = |rule: &Rule| u32::from(rule.spec.table.get()) << 16 | u32::from(u16::MAX - rule.spec.priority);
    let rules = bridge.tables.select(filter).filter(|rule| !nonzero || rule.stats.packets() > 0);
    let mut rules: Vec<_> = rules.map(|rule| (place(rule), &**rule)).collect();
    rules.sort_unstable_by_key(|(place, _)| *place);
    rules
}

/// The rules in the order of their matches' texts, with these.
fn by_match<'a>(rules: &[(u32, &'a Rule)]) -> Vec<(&'a Rule, String)> {
    let by_number = Names::new();
    let text = |rule: &Rule| show_match(&rule.spec.matches, &by_number).to_string();
    let mut all: Vec<_> = rules.iter().map(|(_, rule)| (*rule, text(rule))).collect();
    all.sort_unstable_by(|a, b| a.1.cmp(&b.1));
    all
}

/// Texts of action lists, each made once for the flows that share it.
#[derive(Default)]
struct ActionTexts {
    /// By the address of the list, which the rules of the dump keep where it is.
    texts: HashMap<usize, String, RandomState>,
    /// The text of a list that no other flow shares.
    own: String,
}

impl ActionTexts {
    fn text(&mut self, rule: &Rule, names: &Names) -> &str {
        let actions = &rule.spec.actions;
        // The list's own holder and one rule are two; a third is a rule that shares it, or a snapshot.
        if Arc::strong_count(actions) < 3 {
            self.own.clear();
            // Writing to a string cannot fail.
            _ = write!(self.own, "{}", show_actions(actions, names));
            return &self.own;
        }
        if self.texts.len() >= KEPT_TEXTS {
            self.texts.clear();
        }
        let make = || show_actions(actions, names).to_string();
        self.texts.entry(actions.as_ptr().addr()).or_insert_with(make)
    }
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
    let matches = show_match(&rule.spec.matches, names).to_string();
    flow_of(rule, now, matches, show_actions(&rule.spec.actions, names).to_string())
}

fn flow_of(rule: &Rule, now: Millis, r#match: String, actions: String) -> Flow {
    let spec = &rule.spec;
    Flow {
        table: spec.table.get().into(),
        priority: spec.priority.into(),
        cookie: spec.cookie,
        r#match,
        actions,
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
