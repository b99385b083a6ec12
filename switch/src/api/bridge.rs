//! Bridges.

use super::{Api, error};
use crate::FailMode;
use crate::config::add_bridge;
use sluice_proto::v1::bridge_service_server::BridgeService;
use sluice_proto::v1::{
    AddBridgeReply, AddBridgeRequest, Bridge, DeleteBridgeReply, DeleteBridgeRequest, ListBridgesReply,
    ListBridgesRequest, SetBridgeReply, SetBridgeRequest,
};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl BridgeService for Api {
    async fn list_bridges(&self, _: Request<ListBridgesRequest>) -> Result<Response<ListBridgesReply>, Status> {
        let list = |datapath: &crate::Datapath| {
            let bridges = datapath.bridges().into_iter().map(|bridge| Bridge {
                name: bridge.name.to_string(),
                ports: u32::try_from(bridge.ports.len()).unwrap_or(u32::MAX),
                flows: bridge.tables.len() as u64,
                // A bridge that was removed meanwhile has none.
                fdb_entries: datapath.fdb(&bridge.name).map_or(0, |entries| entries.len() as u64),
                mcast_snooping: bridge.mcast_snooping,
            });
            Ok(ListBridgesReply { bridges: bridges.collect() })
        };
        self.blocking(list).await.map(Response::new)
    }

    async fn add_bridge(&self, request: Request<AddBridgeRequest>) -> Result<Response<AddBridgeReply>, Status> {
        let request = request.into_inner();
        let mode = if request.no_default_flow { FailMode::Secure } else { FailMode::Standalone };
        let work = move |datapath: &crate::Datapath| {
            add_bridge(datapath, &request.name, mode, !request.no_local_port).map_err(error::setup_status)
        };
        self.blocking(work).await?;
        Ok(Response::new(AddBridgeReply {}))
    }

    async fn set_bridge(&self, request: Request<SetBridgeRequest>) -> Result<Response<SetBridgeReply>, Status> {
        let SetBridgeRequest { name, mcast_snooping } = request.into_inner();
        let work = move |datapath: &crate::Datapath| {
            let on = mcast_snooping.unwrap_or(datapath.bridge(&name).map_err(error::status)?.mcast_snooping);
            datapath.set_mcast_snooping(&name, on).map_err(error::status)
        };
        self.blocking(work).await?;
        Ok(Response::new(SetBridgeReply {}))
    }

    async fn delete_bridge(
        &self,
        request: Request<DeleteBridgeRequest>,
    ) -> Result<Response<DeleteBridgeReply>, Status> {
        let name = request.into_inner().name;
        self.blocking(move |datapath| datapath.remove_bridge(&name).map_err(error::status)).await?;
        Ok(Response::new(DeleteBridgeReply {}))
    }
}
