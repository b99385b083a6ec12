//! Ports.

use super::{Api, Parts, error, find_bridge, mac_text, only};
use crate::config::{PortConfig, add_port};
use crate::port::{PortKind, WireCounts, WireQueue};
use crate::{Datapath, Far, PortChange, PortInfo, Splice};
use sluice_flows::PortNo;
use sluice_flows::bridge::{VlanId, VlanMode};
use sluice_proto::v1::port_service_server::PortService;
use sluice_proto::v1::port_vlan::Mode;
use sluice_proto::v1::{
    AddPortReply, AddPortRequest, DeletePortReply, DeletePortRequest, ListPortsReply, ListPortsRequest, Port,
    PortCounters, PortSpec, PortVlan, SetPortReply, SetPortRequest, SplicePortReply, SplicePortRequest, WireCounters,
};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Ports in one part of a list.
const CHUNK: usize = 256;

#[tonic::async_trait]
impl PortService for Api {
    type ListPortsStream = Parts<ListPortsReply>;

    async fn list_ports(&self, request: Request<ListPortsRequest>) -> Result<Response<Self::ListPortsStream>, Status> {
        let bridge = request.into_inner().bridge;
        let ports = self.blocking(move |datapath| datapath.ports(only(&bridge)).map_err(error::status)).await?;
        Ok(Response::new(self.parts(move |_, send| {
            for chunk in ports.chunks(CHUNK) {
                if !send(ListPortsReply { ports: chunk.iter().map(port).collect() }) {
                    break;
                }
            }
            Ok(())
        })))
    }

    async fn add_port(&self, request: Request<AddPortRequest>) -> Result<Response<AddPortReply>, Status> {
        let spec = request.into_inner().spec.ok_or_else(|| Status::invalid_argument("no port is described"))?;
        let config = asked(&spec)?;
        let work = move |datapath: &Datapath| {
            let bridge = find_bridge(datapath, &spec.bridge)?.name.to_string();
            add_port(datapath, &bridge, &config).map_err(error::setup_status)?;
            Ok(AddPortReply { port: Some(named(datapath, &bridge, &config.name)?) })
        };
        self.blocking(work).await.map(Response::new)
    }

    async fn set_port(&self, request: Request<SetPortRequest>) -> Result<Response<SetPortReply>, Status> {
        let request = request.into_inner();
        let change = PortChange {
            vlan: request.vlan.as_ref().map(vlan_mode).transpose()?,
            no_flood: request.no_flood,
            protected: request.protected,
            up: request.admin_down.map(|down| !down),
            options: request.options.clone().into_iter().collect(),
            ..PortChange::default()
        };
        let work = move |datapath: &Datapath| {
            let bridge = bridge_of(datapath, &request.bridge, &request.name)?;
            datapath.set_port(&bridge, &request.name, &change).map_err(error::status)?;
            Ok(SetPortReply { port: Some(named(datapath, &bridge, &request.name)?) })
        };
        self.blocking(work).await.map(Response::new)
    }

    async fn splice_port(&self, request: Request<SplicePortRequest>) -> Result<Response<SplicePortReply>, Status> {
        let request = request.into_inner();
        let mtu = Some(request.mtu_bytes).filter(|mtu| (1..=u32::from(u16::MAX)).contains(mtu));
        let mtu = mtu.ok_or_else(|| Status::invalid_argument("the MTU of a wire is 1 to 65535 bytes"))?;
        let (bridge, device, wire) = (request.bridge, request.device_port, request.wire_port);
        let splice = Splice { port: request.name, far: Far { bridge, device, wire }, mtu, seed: request.seed };
        let work = move |datapath: &Datapath| {
            datapath.splice(&splice).map_err(error::status)?;
            let bridge = bridge_of(datapath, "", &splice.port)?;
            Ok(SplicePortReply { port: Some(named(datapath, &bridge, &splice.port)?) })
        };
        self.blocking(work).await.map(Response::new)
    }

    async fn delete_port(&self, request: Request<DeletePortRequest>) -> Result<Response<DeletePortReply>, Status> {
        let request = request.into_inner();
        let work = move |datapath: &Datapath| {
            let bridge = bridge_of(datapath, &request.bridge, &request.name)?;
            datapath.remove_port(&bridge, &request.name).map_err(error::status)
        };
        self.blocking(work).await?;
        Ok(Response::new(DeletePortReply {}))
    }
}

/// The port that a request describes.
fn asked(spec: &PortSpec) -> Result<PortConfig, Status> {
    let known = PortKind::ALL.iter().filter(|k| **k != PortKind::Local).map(|k| k.name()).collect::<Vec<_>>();
    let kind = PortKind::from_name(&spec.r#type).filter(|k| known.contains(&k.name())).ok_or_else(|| {
        Status::invalid_argument(format!("unknown port type `{}`; types: {}", spec.r#type, known.join(", ")))
    })?;
    let number = match spec.number {
        0 => None,
        n => Some(PortNo(u16::try_from(n).map_err(|_| {
            Status::invalid_argument(format!("port {}: {n} cannot be a port's number; it is 1 to 65279", spec.name))
        })?)),
    };
    Ok(PortConfig {
        number,
        vlan: spec.vlan.as_ref().map(vlan_mode).transpose()?.unwrap_or_default(),
        up: !spec.admin_down,
        flood: !spec.no_flood,
        protected: spec.protected,
        options: spec.options.clone().into_iter().collect(),
        ..PortConfig::new(&spec.name, kind)
    })
}

fn vlan_mode(vlan: &PortVlan) -> Result<VlanMode, Status> {
    let id = |id: u32| {
        let valid = u16::try_from(id).ok().and_then(VlanId::new);
        valid.ok_or_else(|| Status::invalid_argument(format!("{id} is no VLAN ID; it is 0 to 4095")))
    };
    let trunks: Arc<[VlanId]> = vlan.trunks.iter().map(|v| id(*v)).collect::<Result<_, _>>()?;
    match vlan.mode() {
        Mode::Access => Ok(VlanMode::Access(id(vlan.tag)?)),
        Mode::Unspecified if vlan.tag != 0 => Ok(VlanMode::Access(id(vlan.tag)?)),
        Mode::Trunk | Mode::Unspecified => Ok(VlanMode::Trunk { trunks }),
        mode @ (Mode::NativeTagged | Mode::NativeUntagged) => {
            Ok(VlanMode::Native { trunks, native: id(vlan.tag)?, tagged: mode == Mode::NativeTagged })
        }
    }
}

/// The name of the bridge that has the port: port names are unique in the switch.
fn bridge_of(datapath: &Datapath, bridge: &str, port: &str) -> Result<String, Status> {
    if !bridge.is_empty() {
        return Ok(bridge.to_owned());
    }
    let bridges = datapath.bridges();
    let holder = bridges.iter().find(|b| b.ports.values().any(|p| &*p.name == port));
    match holder {
        Some(bridge) => Ok(bridge.name.to_string()),
        None => Err(Status::not_found(format!("there is no port {port:?}; `sluice ports` lists those there are"))),
    }
}

fn named(datapath: &Datapath, bridge: &str, name: &str) -> Result<Port, Status> {
    let ports = datapath.ports(Some(bridge)).map_err(error::status)?;
    let found = ports.iter().find(|p| &*p.port.name == name).map(port);
    found.ok_or_else(|| Status::aborted(format!("port {name} was removed meanwhile")))
}

pub(super) fn port(info: &PortInfo) -> Port {
    let peer = info.peer.clone().map(|peer| ("peer".to_owned(), peer));
    let options = info.options.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    Port {
        spec: Some(PortSpec {
            bridge: info.bridge_name.to_string(),
            name: info.port.name.to_string(),
            r#type: info.kind.name().to_owned(),
            options: peer.into_iter().chain(options).collect(),
            number: info.port.no.0.into(),
            vlan: Some(port_vlan(&info.port.vlan)),
            no_flood: info.port.no_flood,
            protected: info.port.protected,
            admin_down: !info.admin_up,
        }),
        datapath_port: info.port.dp.0,
        link_up: info.link_up,
        mtu_bytes: info.mtu,
        mac: info.mac.map(mac_text).unwrap_or_default(),
        counters: Some(PortCounters {
            rx_packets: info.stats.rx_packets,
            rx_bytes: info.stats.rx_bytes,
            rx_dropped: info.stats.rx_dropped,
            rx_errors: info.rx_loss.queue_full + info.rx_loss.invalid,
            tx_packets: info.stats.tx_packets,
            tx_bytes: info.stats.tx_bytes,
            tx_dropped: info.stats.tx_dropped,
            tx_errors: info.stats.tx_errors,
        }),
        gone: info.gone,
        wire: info.wire.as_ref().map(|(counts, queue)| wire_counters(counts, queue)),
    }
}

fn wire_counters(counts: &WireCounts, queue: &WireQueue) -> WireCounters {
    WireCounters {
        sent: counts.sent,
        lost: counts.lost,
        queue_full: counts.queue_full,
        duplicated: counts.duplicated,
        corrupted: counts.corrupted,
        reordered: counts.reordered,
        queued_packets: queue.packets,
        queued_ns: u64::try_from(queue.wait.as_nanos()).unwrap_or(u64::MAX),
    }
}

fn port_vlan(mode: &VlanMode) -> PortVlan {
    let list = |trunks: &[VlanId]| trunks.iter().map(|v| v.get().into()).collect();
    match mode {
        VlanMode::Access(vlan) => PortVlan { mode: Mode::Access.into(), tag: vlan.get().into(), trunks: Vec::new() },
        VlanMode::Trunk { trunks } => PortVlan { mode: Mode::Trunk.into(), tag: 0, trunks: list(trunks) },
        VlanMode::Native { trunks, native, tagged } => {
            let mode = if *tagged { Mode::NativeTagged } else { Mode::NativeUntagged };
            PortVlan { mode: mode.into(), tag: native.get().into(), trunks: list(trunks) }
        }
    }
}
