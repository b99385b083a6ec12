//! Gateways.

use super::{Api, only};
use crate::Datapath;
use crate::host::gateway::{self, GatewayConfig, MasqueradeConfig};
use crate::host::{HostPort, forward_obstacles};
use sluice_flows::gateway::Service;
use sluice_proto::v1::gateway_service_server::GatewayService;
use sluice_proto::v1::{Gateway, GatewayHostPort, GatewayMasquerade, ListGatewaysReply, ListGatewaysRequest};
use std::net::SocketAddr;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl GatewayService for Api {
    async fn list_gateways(
        &self,
        request: Request<ListGatewaysRequest>,
    ) -> Result<Response<ListGatewaysReply>, Status> {
        let ListGatewaysRequest { bridge } = request.into_inner();
        let gateways = self.blocking(move |datapath| list(datapath, only(&bridge))).await?;
        Ok(Response::new(ListGatewaysReply { gateways }))
    }
}

fn list(datapath: &Datapath, bridge: Option<&str>) -> Result<Vec<Gateway>, Status> {
    if let Some(bridge) = bridge {
        datapath.bridge(bridge).map_err(super::error::status)?;
    }
    let gateways = datapath.gateways().into_iter().filter(|(name, _)| bridge.is_none_or(|bridge| bridge == name));
    Ok(gateways.map(|(name, config)| show(name, &config)).collect())
}

fn show(bridge: String, config: &GatewayConfig) -> Gateway {
    let (missing, fault) = match gateway::drift(config) {
        Ok(missing) => (missing, String::new()),
        Err(fault) => (Vec::new(), fault.to_string()),
    };
    let mac: Vec<_> = config.mac.iter().map(|byte| format!("{byte:02x}")).collect();
    Gateway {
        bridge,
        port: config.port.clone(),
        interface: config.link.clone(),
        addresses: config.addresses.iter().map(ToString::to_string).collect(),
        mac: mac.join(":"),
        forward: config.forward,
        masquerade: config.masquerade.as_ref().map(|m| masquerade(config, m)),
        missing,
        fault,
        vlan: config.vlan.unwrap_or_default().into(),
        networks: config.share.networks.clone(),
        host_ports: host_ports(config),
        obstacles: if config.forward { forward_obstacles() } else { Vec::new() },
    }
}

/// Each port of the host and where it leads to.
fn host_ports(config: &GatewayConfig) -> Vec<GatewayHostPort> {
    let of = |(port, number): (&HostPort, &u16)| {
        let same = |s: &&Service| s.protocol == port.protocol && s.port == *number && s.to.is_ipv6() == port.v6;
        let service = config.share.services.iter().find(same)?;
        Some(GatewayHostPort { port: port.to_string(), to: SocketAddr::new(service.to, service.to_port).to_string() })
    };
    config.share.ports.iter().filter_map(of).collect()
}

fn masquerade(gateway: &GatewayConfig, config: &MasqueradeConfig) -> GatewayMasquerade {
    let (first_port, last_port) = config.ports.unwrap_or_default();
    GatewayMasquerade {
        inside: gateway.inside().iter().map(ToString::to_string).collect(),
        addresses: config.addresses.iter().map(ToString::to_string).collect(),
        except: gateway.except().iter().map(ToString::to_string).collect(),
        first_port: first_port.into(),
        last_port: last_port.into(),
        zone: config.zone.into(),
        host_rule: config.host_rule,
    }
}
