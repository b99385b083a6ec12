//! Tunnels.

use super::port::port;
use super::{Api, error, only};
use crate::TunnelInfo;
use crate::port::TunnelPeer as Peer;
use sluice_flows::tunnel::TlvMapError;
use sluice_proto::v1::tunnel_service_server::TunnelService;
use sluice_proto::v1::{
    GetTlvMapReply, GetTlvMapRequest, ListTunnelsReply, ListTunnelsRequest, SetTlvMapReply, SetTlvMapRequest, Tunnel,
    TunnelPeer,
};
use std::time::Duration;
use tonic::{Request, Response, Status};

/// Longest wait for the answer to a probe, in milliseconds.
const MAX_PROBE_MS: u32 = 5000;

#[tonic::async_trait]
impl TunnelService for Api {
    async fn list_tunnels(&self, request: Request<ListTunnelsRequest>) -> Result<Response<ListTunnelsReply>, Status> {
        let ListTunnelsRequest { bridge, probe_timeout_ms } = request.into_inner();
        if probe_timeout_ms > MAX_PROBE_MS {
            let message = format!("probe_timeout_ms: {probe_timeout_ms} is more than {MAX_PROBE_MS}");
            return Err(Status::invalid_argument(message));
        }
        let probe = (probe_timeout_ms > 0).then(|| Duration::from_millis(probe_timeout_ms.into()));
        let tunnels = self.blocking(move |datapath| datapath.tunnels(only(&bridge), probe).map_err(error::status));
        let tunnels = tunnels.await?.iter().map(tunnel).collect();
        Ok(Response::new(ListTunnelsReply { tunnels }))
    }

    async fn get_tlv_map(&self, _: Request<GetTlvMapRequest>) -> Result<Response<GetTlvMapReply>, Status> {
        let map = self.blocking(|datapath| Ok(datapath.tlv_map().to_string())).await?;
        Ok(Response::new(GetTlvMapReply { map }))
    }

    async fn set_tlv_map(&self, request: Request<SetTlvMapRequest>) -> Result<Response<SetTlvMapReply>, Status> {
        let map = request.into_inner().map.parse();
        let map = map.map_err(|error: TlvMapError| Status::invalid_argument(error.to_string()))?;
        self.blocking(move |datapath| datapath.set_tlv_map(map).map_err(error::status)).await?;
        Ok(Response::new(SetTlvMapReply {}))
    }
}

fn tunnel(info: &TunnelInfo) -> Tunnel {
    let peers = info.peers.iter().map(|(known, rtt)| peer(known, *rtt)).collect();
    Tunnel { port: Some(port(&info.port)), peers }
}

fn peer(known: &Peer, rtt: Option<Duration>) -> TunnelPeer {
    TunnelPeer {
        remote: known.remote.map(|address| address.to_string()).unwrap_or_default(),
        local: known.local.map(|address| address.to_string()).unwrap_or_default(),
        path_mtu_bytes: known.path_mtu.unwrap_or_default(),
        rtt_us: rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
        up: known.up,
        name: known.name.clone().unwrap_or_default(),
    }
}
