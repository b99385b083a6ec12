//! Traces: what would happen to a packet, from the same code that decides what happens to packets.

use super::{Api, Parts, find_bridge};
use crate::Datapath;
use sluice_flows::bridge::{Bridge, BridgePort, Model};
use sluice_flows::explain::{Exit, Report};
use sluice_flows::key::{FlowKey, PacketKey, slot};
use sluice_flows::packet::extract;
use sluice_flows::text::{Names, parse_packet, show_actions, show_match, show_value};
use sluice_flows::translate::TraceLog;
use sluice_flows::{PortNo, Verdict};
use sluice_proto::v1::trace_packet::Packet;
use sluice_proto::v1::trace_service_server::TraceService;
use sluice_proto::v1::{FieldValue, TraceOutput, TracePacket, TraceReply, TraceRequest, TraceRule, VlanTag};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Most packets in one request.
const MAX_PACKETS: usize = 100_000;

#[tonic::async_trait]
impl TraceService for Api {
    type TraceStream = Parts<TraceReply>;

    async fn trace(&self, request: Request<TraceRequest>) -> Result<Response<Self::TraceStream>, Status> {
        let TraceRequest { bridge, packets } = request.into_inner();
        if packets.len() > MAX_PACKETS {
            return Err(Status::resource_exhausted(format!("a request traces at most {MAX_PACKETS} packets")));
        }
        let bridge = self.blocking(move |datapath| find_bridge(datapath, &bridge)).await?;
        Ok(Response::new(self.parts(move |datapath, send| {
            for packet in &packets {
                if !send(trace(datapath, &bridge, packet)?) {
                    break;
                }
            }
            Ok(())
        })))
    }
}

fn trace(datapath: &Datapath, bridge: &Bridge, packet: &TracePacket) -> Result<TraceReply, Status> {
    let names = Names::of_bridge(bridge);
    let (key, port) = match &packet.packet {
        Some(Packet::Flow(text)) => {
            let key = parse_packet(text, &names).map_err(|e| Status::invalid_argument(format!("{e:#}")))?;
            let no = PortNo(u16::try_from(key.get(slot::IN_PORT)).unwrap_or(0));
            (key, find_port(bridge, &names, no)?)
        }
        Some(Packet::Frame(frame)) => {
            let port = find_port(bridge, &names, port_number(&packet.in_port, &names)?)?;
            let mut key = PacketKey::ZERO;
            extract(frame, port.no.0.into(), &mut key);
            (FlowKey::from(&key), port)
        }
        None => return Err(Status::invalid_argument("a packet to trace is missing")),
    };
    let mut log = TraceLog::default();
    let translation = datapath.trace(port.dp, &key, &mut log);
    let model = datapath.model();
    Ok(reply(&Report::new(&model, port.dp, &key, &translation, &log, true), &model))
}

/// The port of a bridge with this number.
fn find_port(bridge: &Bridge, names: &Names, no: PortNo) -> Result<Arc<BridgePort>, Status> {
    bridge.ports.get(&no).cloned().ok_or_else(|| {
        let said = if no == PortNo::NONE || no.0 == 0 {
            "say by which port the packet comes in: in_port=PORT".to_owned()
        } else {
            format!("there is no port {no}")
        };
        let ports = bridge.ports.keys().map(|no| match names.port_name(*no) {
            Some(name) => format!("{no} ({name})"),
            None => no.to_string(),
        });
        let ports: Vec<_> = ports.collect();
        Status::invalid_argument(format!("{said}; ports of bridge {}: {}", bridge.name, ports.join(", ")))
    })
}

/// The port that a text names: by name, reserved name or number.
pub(super) fn port_number(text: &str, names: &Names) -> Result<PortNo, Status> {
    let number = || text.parse().ok().map(PortNo);
    names
        .port(text)
        .or_else(number)
        .or_else(|| PortNo::from_reserved_name(text))
        .ok_or_else(|| Status::invalid_argument(format!("`{text}` is no port: give a name or a number")))
}

fn reply(report: &Report, model: &Model) -> TraceReply {
    let reason = match report.verdict {
        Verdict::Forward => "",
        Verdict::Drop(reason) => reason.name(),
    };
    TraceReply {
        packet: report.flow.clone(),
        walk: report.walk.clone(),
        verdict: if reason.is_empty() { "forward" } else { "drop" }.to_owned(),
        reason: reason.to_owned(),
        rule: report.rule.as_ref().map(|rule| {
            let spec = &rule.spec;
            TraceRule {
                table: spec.table.get().into(),
                priority: spec.priority.into(),
                r#match: show_match(&spec.matches, &Names::new()).to_string(),
                cookie: spec.cookie,
                owner: spec.owner.to_string(),
                actions: show_actions(&spec.actions, &Names::new()).to_string(),
            }
        }),
        outputs: report.exits.iter().map(|exit| output(exit, &report.packet)).collect(),
        megaflow: report.megaflow.clone(),
        datapath_actions: report.datapath_actions.clone(),
        model_generation: model.generation,
    }
}

fn output(exit: &Exit, before: &FlowKey) -> TraceOutput {
    let set = exit.changes(before).into_iter().map(|(field, value)| FieldValue {
        field: field.info().match_name.to_owned(),
        value: show_value(field, value).to_string(),
    });
    let came_in = Exit { packet: *before, ..exit.clone() }.tags();
    let tags = exit.tags();
    let vlans_changed = tags != came_in;
    let vlans = tags.into_iter().map(|(tpid, tci)| VlanTag {
        tpid: tpid.into(),
        vid: (tci & 0xfff).into(),
        pcp: (tci >> 13).into(),
    });
    TraceOutput {
        port: exit.port.no.0.into(),
        port_name: exit.port.name.to_string(),
        bridge: exit.bridge.name.to_string(),
        set: set.collect(),
        vlans: vlans.collect(),
        vlans_changed,
    }
}
