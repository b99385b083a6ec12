//! Packet-out and packet-in.

use super::trace::port_number;
use super::watch::Watched;
use super::{Api, error, find_bridge};
use crate::Datapath;
use sluice_flows::PortNo;
use sluice_flows::action::{Action, PacketInReason};
use sluice_flows::field::Field;
use sluice_flows::packet::{Frame, MAX_FRAME_LEN};
use sluice_flows::text::{Names, parse_actions, show_value};
use sluice_proto::v1::packet_service_server::PacketService;
use sluice_proto::v1::{PacketField, PacketIn, PacketOutReply, PacketOutRequest, WatchPacketInsRequest};
use tonic::{Request, Response, Status};

/// Length of an Ethernet header: a shorter frame is none.
const MIN_FRAME_LEN: usize = 14;
/// Packets that wait for a slow reader.
const DEPTH: usize = 1024;

#[tonic::async_trait]
impl PacketService for Api {
    type WatchPacketInsStream = Watched<PacketIn>;

    async fn packet_out(&self, request: Request<PacketOutRequest>) -> Result<Response<PacketOutReply>, Status> {
        let request = request.into_inner();
        self.blocking(move |datapath| packet_out(datapath, &request)).await?;
        Ok(Response::new(PacketOutReply {}))
    }

    async fn watch_packet_ins(
        &self,
        request: Request<WatchPacketInsRequest>,
    ) -> Result<Response<Self::WatchPacketInsStream>, Status> {
        let WatchPacketInsRequest { bridge, controller_id } = request.into_inner();
        let packets = self.datapath.packet_ins(DEPTH);
        let datapath = self.datapath.clone();
        // Packets that this caller does not want carry the word of lost ones all the same.
        let mut lost = 0;
        let stream = self.watch(packets, move |packet: crate::PacketIn| {
            lost += packet.lost;
            let found = packet_in(&datapath, packet);
            let wanted = (bridge.is_empty() || found.bridge == bridge)
                && controller_id.is_none_or(|id| id == found.controller_id);
            wanted.then(|| PacketIn { lost: std::mem::take(&mut lost), ..found })
        })?;
        Ok(Response::new(stream))
    }
}

fn packet_out(datapath: &Datapath, request: &PacketOutRequest) -> Result<(), Status> {
    let bridge = find_bridge(datapath, &request.bridge)?;
    let names = Names::of_bridge(&bridge);
    if !(MIN_FRAME_LEN..=MAX_FRAME_LEN).contains(&request.frame.len()) {
        let len = request.frame.len();
        return Err(Status::invalid_argument(format!(
            "the frame has {len} bytes; it must have {MIN_FRAME_LEN} to {MAX_FRAME_LEN}"
        )));
    }
    let in_port = if request.in_port.is_empty() { PortNo::NONE } else { port_number(&request.in_port, &names)? };
    let actions = if request.actions.is_empty() {
        Box::from([Action::Output(PortNo::TABLE)])
    } else {
        parse_actions(&request.actions, &names).map_err(|e| Status::invalid_argument(format!("{e:#}")))?
    };
    bridge.check_references(&actions).map_err(|e| Status::invalid_argument(e.to_string()))?;
    datapath.packet_out(&bridge.name, in_port, Frame::from_bytes(&request.frame), actions).map_err(error::status)
}

fn packet_in(datapath: &Datapath, packet: crate::PacketIn) -> PacketIn {
    let about = packet.about;
    let model = datapath.model();
    let bridge = model.bridge(about.bridge);
    let port = bridge.and_then(|b| b.ports.get(&about.in_port));
    PacketIn {
        bridge: bridge.map_or_else(String::new, |b| b.name.to_string()),
        in_port_number: about.in_port.0.into(),
        in_port: port.map_or_else(String::new, |p| p.name.to_string()),
        reason: match about.reason {
            PacketInReason::NoMatch => "no_match",
            PacketInReason::Action => "action",
            PacketInReason::InvalidTtl => "invalid_ttl",
            PacketInReason::ActionSet => "action_set",
            PacketInReason::Group => "group",
            PacketInReason::PacketOut => "packet_out",
        }
        .to_owned(),
        table: about.table.get().into(),
        cookie: about.cookie,
        owner: about.owner.to_string(),
        controller_id: about.controller_id.into(),
        frame: packet.frame.to_vec(),
        frame_len: u32::try_from(packet.frame_len).unwrap_or(u32::MAX),
        lost: packet.lost,
        userdata: about.userdata.to_vec(),
        metadata: about.metadata.iter().map(|(field, value)| metadata(*field, *value)).collect(),
    }
}

/// A field as flows print it.
fn metadata(field: Field, value: u128) -> PacketField {
    PacketField { name: field.info().name.to_owned(), value: show_value(field, value).to_string() }
}
