//! Traces: what would happen to a packet, from the same code that decides what happens to packets.

use super::{Api, Parts, find_bridge};
use crate::Datapath;
use sluice_flows::bridge::{Bridge, BridgePort};
use sluice_flows::datapath::{DpCt, Resume, Translation};
use sluice_flows::explain::{self, CtKnown, CtNextError, Exit, Options, Pass, Report, Translator};
use sluice_flows::key::{FlowKey, PacketKey, slot};
use sluice_flows::packet::extract;
use sluice_flows::rule::Rule;
use sluice_flows::text::{Names, parse_packet, show_actions, show_match, show_packet, show_value};
use sluice_flows::translate::TraceLog;
use sluice_flows::tunnel::TunnelKey;
use sluice_flows::{DpPort, PortNo, Verdict};
use sluice_proto::v1::trace_packet::Packet;
use sluice_proto::v1::trace_service_server::TraceService;
use sluice_proto::v1::{
    FieldValue, TraceOutput, TracePacket, TracePass, TraceReply, TraceRequest, TraceRule, TraceStep, VlanTag,
};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Most packets in one request.
const MAX_PACKETS: usize = 100_000;

#[tonic::async_trait]
impl TraceService for Api {
    type TraceStream = Parts<TraceReply>;

    async fn trace(&self, request: Request<TraceRequest>) -> Result<Response<Self::TraceStream>, Status> {
        let TraceRequest { bridge, packets, ct_next, verbose, numbers } = request.into_inner();
        if packets.len() > MAX_PACKETS {
            return Err(Status::resource_exhausted(format!("a request traces at most {MAX_PACKETS} packets")));
        }
        let ct_next: Result<_, CtNextError> = ct_next.iter().map(|state| state.parse()).collect();
        let ct_next = ct_next.map_err(|e| Status::invalid_argument(format!("ct_next: {e}")))?;
        let options = Options { names: !numbers, verbose, ct_next };
        let bridge = self.blocking(move |datapath| find_bridge(datapath, &bridge)).await?;
        Ok(Response::new(self.parts(move |datapath, send| {
            for packet in &packets {
                if !send(trace(datapath, &bridge, packet, &options)?) {
                    break;
                }
            }
            Ok(())
        })))
    }
}

/// Translates as the switch does, and asks its tracker.
struct Live<'a>(&'a Datapath);

impl Translator for Live<'_> {
    fn first(&self, ingress: DpPort, key: &FlowKey, log: &mut TraceLog) -> Translation {
        self.0.trace(ingress, key, log)
    }

    fn next(&self, resume: &Resume, key: &FlowKey, log: &mut TraceLog) -> Option<Translation> {
        self.0.trace_resumed(resume, key, log)
    }

    fn tracked(&self, key: &FlowKey, ct: &DpCt) -> Option<CtKnown> {
        Some(self.0.peek_connection(key, ct))
    }
}

fn trace(datapath: &Datapath, bridge: &Bridge, packet: &TracePacket, options: &Options) -> Result<TraceReply, Status> {
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
    let model = datapath.model();
    let report = Report::make(&model, &Live(datapath), port.dp, &key, options);
    Ok(trace_reply(&report, model.generation))
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

/// A verdict in words: `forward` or `drop`, and the reason's name, which is empty for `forward`.
fn words(verdict: Verdict) -> (String, String) {
    match verdict {
        Verdict::Forward => ("forward".to_owned(), String::new()),
        Verdict::Drop(reason) => ("drop".to_owned(), reason.name().to_owned()),
    }
}

fn rule(rule: &Rule) -> TraceRule {
    let spec = &rule.spec;
    TraceRule {
        table: spec.table.get().into(),
        priority: spec.priority.into(),
        r#match: show_match(&spec.matches, &Names::new()).to_string(),
        cookie: spec.cookie,
        owner: spec.owner.to_string(),
        actions: show_actions(&spec.actions, &Names::new()).to_string(),
    }
}

/// The answer that tells a report, of a model of this generation.
pub fn trace_reply(report: &Report, generation: u64) -> TraceReply {
    let (verdict, reason) = words(report.verdict);
    TraceReply {
        packet: report.flow.clone(),
        walk: report.walk.clone(),
        verdict,
        reason,
        rule: report.rule.as_deref().map(rule),
        outputs: report.exits.iter().map(|exit| output(exit, &report.packet)).collect(),
        megaflow: report.megaflow.clone(),
        datapath_actions: report.datapath_actions.clone(),
        model_generation: generation,
        learned: report.learned.clone(),
        passes: report.passes.iter().map(pass).collect(),
    }
}

fn pass(pass: &Pass) -> TracePass {
    let (verdict, reason) = words(pass.verdict);
    let steps = pass.steps.iter().map(|step| TraceStep {
        depth: u32::try_from(step.depth).unwrap_or(u32::MAX),
        kind: step.kind.name().to_owned(),
        text: step.text.clone(),
        table: step.table.map(|table| table.get().into()),
        rule: step.rule.as_deref().map(rule),
        read: step.read.clone(),
    });
    TracePass {
        cause: pass.cause.clone(),
        packet: pass.flow.clone(),
        steps: steps.collect(),
        final_flow: pass.final_flow.clone(),
        megaflow: pass.megaflow.clone(),
        verdict,
        reason,
        datapath_actions: pass.datapath_actions.clone(),
    }
}

fn output(exit: &Exit, before: &FlowKey) -> TraceOutput {
    let set = exit.changes(before).into_iter().map(|(field, value)| FieldValue {
        field: field.info().match_name.to_owned(),
        value: show_value(field, value).to_string(),
    });
    let tags = exit.tags();
    let vlans_changed = tags != explain::tags(before);
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
        when: exit.when.iter().map(ToString::to_string).collect(),
        max_len: exit.cut,
        packet: beyond(exit),
    }
}

/// The packet as the other end of the port gets it: without what only this switch knows of it.
fn beyond(exit: &Exit) -> String {
    let mut packet = exit.packet.packet();
    packet.set(slot::IN_PORT, 0);
    if exit.port.tunnel.is_none() {
        TunnelKey::NONE.write(&mut packet);
    }
    show_packet(&FlowKey::from(&packet), &Names::new()).to_string()
}
