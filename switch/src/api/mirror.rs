//! Mirrors.

use super::{Api, error, find_bridge, only};
use crate::Datapath;
use sluice_flows::bridge::{Bridge, VlanId};
use sluice_flows::mirror::{Mirror, MirrorError, MirrorOutput, MirrorSpec};
use sluice_proto::v1::mirror::Output;
use sluice_proto::v1::mirror_service_server::MirrorService;
use sluice_proto::v1::{
    self as proto, DeleteMirrorReply, DeleteMirrorRequest, ListMirrorsReply, ListMirrorsRequest, MirrorState,
    SetMirrorReply, SetMirrorRequest,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl MirrorService for Api {
    async fn list_mirrors(&self, request: Request<ListMirrorsRequest>) -> Result<Response<ListMirrorsReply>, Status> {
        let name = request.into_inner().bridge;
        let list = move |datapath: &Datapath| {
            // Counters as they are now; a worker that does not answer has those of its last round.
            _ = datapath.sync_stats();
            let bridges = match only(&name) {
                Some(name) => vec![datapath.bridge(name).map_err(error::status)?],
                None => datapath.bridges(),
            };
            let mirrors = bridges.iter().flat_map(|bridge| bridge.mirrors.iter().map(move |m| state(bridge, m)));
            Ok(ListMirrorsReply { mirrors: mirrors.collect() })
        };
        self.blocking(list).await.map(Response::new)
    }

    async fn set_mirror(&self, request: Request<SetMirrorRequest>) -> Result<Response<SetMirrorReply>, Status> {
        let SetMirrorRequest { bridge, mirror } = request.into_inner();
        let spec = spec(mirror.unwrap_or_default()).map_err(Status::invalid_argument)?;
        let set = move |datapath: &Datapath| {
            let bridge = find_bridge(datapath, &bridge)?;
            datapath.set_mirror(&bridge.name, spec).map_err(error::status)
        };
        self.blocking(set).await?;
        Ok(Response::new(SetMirrorReply {}))
    }

    async fn delete_mirror(
        &self,
        request: Request<DeleteMirrorRequest>,
    ) -> Result<Response<DeleteMirrorReply>, Status> {
        let DeleteMirrorRequest { bridge, name } = request.into_inner();
        let remove = move |datapath: &Datapath| {
            let bridge = find_bridge(datapath, &bridge)?;
            datapath.remove_mirror(&bridge.name, &name).map_err(error::status)
        };
        self.blocking(remove).await?;
        Ok(Response::new(DeleteMirrorReply {}))
    }
}

fn state(bridge: &Bridge, mirror: &Mirror) -> MirrorState {
    let spec = &mirror.spec;
    let names = |ports: &BTreeSet<Arc<str>>| ports.iter().map(|port| port.to_string()).collect();
    let output = match &spec.output {
        MirrorOutput::Port(port) => Output::OutputPort(port.to_string()),
        MirrorOutput::Vlan(vlan) => Output::OutputVlan(vlan.get().into()),
    };
    MirrorState {
        bridge: bridge.name.to_string(),
        mirror: Some(proto::Mirror {
            name: spec.name.to_string(),
            select_all: spec.select_all,
            select_src_port: names(&spec.select_src_port),
            select_dst_port: names(&spec.select_dst_port),
            select_vlan: spec.select_vlan.iter().map(|vlan| vlan.get().into()).collect(),
            output: Some(output),
            snaplen: spec.snaplen.map(u32::from),
        }),
        packets: mirror.stats.packets(),
        bytes: mirror.stats.bytes(),
        active: mirror.is_active(),
    }
}

fn spec(asked: proto::Mirror) -> Result<MirrorSpec, String> {
    let vlan = |id: u32| {
        let vlan = u16::try_from(id).ok().and_then(VlanId::new);
        vlan.ok_or_else(|| format!("there is no VLAN {id}; VLANs are 0 to 4095"))
    };
    let names = |names: Vec<String>| names.into_iter().map(Into::into).collect();
    let output = match asked.output {
        Some(Output::OutputPort(port)) => MirrorOutput::Port(port.into()),
        Some(Output::OutputVlan(id)) => MirrorOutput::Vlan(vlan(id)?),
        None => return Err("the mirror has no output: neither output_port nor output_vlan".to_owned()),
    };
    let snaplen = |len: u32| u16::try_from(len).map_err(|_| MirrorError::Snaplen.to_string());
    Ok(MirrorSpec {
        name: asked.name.into(),
        select_all: asked.select_all,
        select_src_port: names(asked.select_src_port),
        select_dst_port: names(asked.select_dst_port),
        select_vlan: asked.select_vlan.into_iter().map(vlan).collect::<Result<_, _>>()?,
        output,
        snaplen: asked.snaplen.map(snaplen).transpose()?,
    })
}
