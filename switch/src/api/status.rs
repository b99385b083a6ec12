//! How the switch is.

use super::Api;
use crate::{Datapath, PortInfo};
use sluice_proto::v1::status_service_server::StatusService;
use sluice_proto::v1::{GetStatusReply, GetStatusRequest, PartStatus};
use std::time::Instant;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl StatusService for Api {
    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusReply>, Status> {
        let started = self.started;
        self.blocking(move |datapath| Ok(status(datapath, started))).await.map(Response::new)
    }
}

fn status(datapath: &Datapath, started: Instant) -> GetStatusReply {
    let model = datapath.model();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let ports = datapath.ports(None).unwrap_or_default();
    let workers_answer = datapath.sync_stats();
    let mut parts = vec![
        PartStatus { name: "api".to_owned(), ok: true, detail: "answers".to_owned() },
        PartStatus {
            name: "workers".to_owned(),
            ok: workers_answer,
            detail: if workers_answer { "all answer" } else { "at least one did not answer in 100 ms" }.to_owned(),
        },
        ports_part(&ports),
        effects_part(datapath.effects_lost()),
        connections_part(datapath),
    ];
    parts.sort_by_key(|p| p.ok);
    GetStatusReply {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        workers: count(datapath.worker_stats().len()),
        bridges: count(model.bridges.len()),
        ports: count(ports.len()),
        flows: model.bridges.values().map(|b| b.tables.len() as u64).sum(),
        fdb_entries: datapath.fdb_len() as u64,
        model_generation: model.generation,
        parts,
        connections: datapath.connections_len().into(),
        max_connections: datapath.connection_settings().max_connections.into(),
    }
}

/// Flows that packets could not make are a fault: the switch changes more slowly than packets ask for it.
fn effects_part(lost: u64) -> PartStatus {
    let detail = match lost {
        0 => "all made".to_owned(),
        lost => format!("{lost} changes that packets asked for were lost because too many waited; they ask again"),
    };
    PartStatus { name: "learned flows".to_owned(), ok: lost == 0, detail }
}

/// Fill of a table or zone in percent from which on it is a fault: soon connections will be refused.
const ALMOST_FULL: u64 = 85;

/// A table or a zone of connections that is almost full is a fault.
fn connections_part(datapath: &Datapath) -> PartStatus {
    let is_almost_full =
        |connections: u32, limit: u32| limit > 0 && u64::from(connections) * 100 >= u64::from(limit) * ALMOST_FULL;
    let (connections, max) = (datapath.connections_len(), datapath.connection_settings().max_connections);
    let zones = datapath.connection_zones().into_iter().filter(|z| is_almost_full(z.connections, z.limit));
    let zones: Vec<_> = zones.map(|z| format!("zone {} has {} of {}", z.zone, z.connections, z.limit)).collect();
    let mut detail = format!("{connections} of {max}");
    // A long list says no more than its beginning.
    for zone in zones.iter().take(3) {
        detail += &format!("; {zone}");
    }
    if zones.len() > 3 {
        detail += &format!("; and {} more zones", zones.len() - 3);
    }
    let ok = zones.is_empty() && !is_almost_full(connections, max);
    PartStatus { name: "connections".to_owned(), ok, detail }
}

/// Ports whose device is gone are a fault; ports that are down are somebody's will, or a cable.
fn ports_part(ports: &[PortInfo]) -> PartStatus {
    let names = |wanted: &dyn Fn(&PortInfo) -> bool| {
        ports.iter().filter(|p| wanted(p)).map(|p| &*p.port.name).collect::<Vec<_>>().join(", ")
    };
    let gone = names(&|p| p.gone);
    let down = names(&|p| !p.gone && !p.port.up);
    let up = ports.iter().filter(|p| p.port.up).count();
    let mut detail = format!("{up} of {} up", ports.len());
    for (what, names) in [("device gone", &gone), ("down", &down)] {
        if !names.is_empty() {
            detail += &format!("; {what}: {names}");
        }
    }
    PartStatus { name: "ports".to_owned(), ok: gone.is_empty(), detail }
}
