//! What is asked of the switch for one view: words and counters of each thing.

use super::Tab;
use crate::client::Client;
use crate::cmd::ct::{end, proto_name};
use crate::cmd::ports::state;
use crate::failure::Failure;
use sluice_proto::v1::{
    Connection, ConnectionTuple, Drop, DumpFlowsRequest, Flow, GetStatsReply, GetStatsRequest, GetStatusReply,
    GetStatusRequest, ListBridgesRequest, ListConnectionsRequest, ListDropsRequest, ListPortsRequest, Port,
    WorkerStats,
};
use std::time::Instant;

/// The switch at one time, as far as a view shows it.
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) tab: Tab,
    pub(super) status: GetStatusReply,
    pub(super) stats: GetStatsReply,
    pub(super) rows: Vec<Counted>,
}

/// One thing: its words and counters are in the places that the view's columns name.
pub(super) struct Counted {
    /// What it is known by in the next sample.
    pub(super) key: String,
    pub(super) words: Vec<String>,
    pub(super) counters: Vec<u64>,
    /// A packet that can be traced, if there is one.
    pub(super) packet: Option<Packet>,
}

/// A packet as a flow, and the bridge that it came to.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) bridge: String,
    pub(super) flow: String,
}

impl Sample {
    /// Asks the switch.
    ///
    /// # Errors
    /// When it does not answer.
    pub(super) fn take(client: &Client, tab: Tab) -> Result<Self, Failure> {
        let status = client.call(client.status().get_status(GetStatusRequest {}))?;
        let stats = client.call(client.stats().get_stats(GetStatsRequest {}))?;
        let rows = match tab {
            Tab::Ports => {
                let parts = client.collect(client.ports().list_ports(ListPortsRequest::default()))?;
                parts.into_iter().flat_map(|part| part.ports).map(port).collect()
            }
            Tab::Flows => flows(client)?,
            Tab::Drops => {
                let parts = client.collect(client.stats().list_drops(ListDropsRequest::default()))?;
                parts.into_iter().flat_map(|part| part.drops).map(drop).collect()
            }
            Tab::Connections => {
                let request = ListConnectionsRequest::default();
                let parts = client.collect(client.connections().list_connections(request))?;
                parts.into_iter().flat_map(|part| part.connections).map(connection).collect()
            }
            Tab::Workers => stats.workers.iter().map(worker).collect(),
        };
        Ok(Self { at: Instant::now(), tab, status, stats, rows })
    }
}

fn port(port: Port) -> Counted {
    let (spec, counters) = (port.spec.unwrap_or_default(), port.counters.unwrap_or_default());
    let (state, _) = state(!spec.admin_down, port.link_up, port.gone);
    let drops = [counters.rx_dropped, counters.rx_errors, counters.tx_dropped, counters.tx_errors];
    Counted {
        key: format!("{} {}", spec.bridge, spec.name),
        words: vec![spec.bridge, spec.number.to_string(), spec.name, spec.r#type, state.to_owned()],
        counters: vec![
            counters.rx_packets,
            counters.rx_bytes,
            counters.tx_packets,
            counters.tx_bytes,
            drops.iter().sum(),
        ],
        packet: None,
    }
}

fn flows(client: &Client) -> Result<Vec<Counted>, Failure> {
    let mut rows = Vec::new();
    for bridge in client.call(client.bridges().list_bridges(ListBridgesRequest {}))?.bridges {
        let request = DumpFlowsRequest { bridge: bridge.name.clone(), port_names: true, ..DumpFlowsRequest::default() };
        let parts = client.collect(client.flows().dump_flows(request))?;
        rows.extend(parts.into_iter().flat_map(|part| part.flows).map(|of| flow(&bridge.name, of)));
    }
    Ok(rows)
}

fn flow(bridge: &str, flow: Flow) -> Counted {
    let (table, priority) = (flow.table.to_string(), flow.priority.to_string());
    let matches = if flow.r#match.is_empty() { "any".to_owned() } else { flow.r#match };
    Counted {
        key: format!("{bridge} {table} {priority} {matches}"),
        words: vec![bridge.to_owned(), table, priority, flow.owner, matches, flow.actions],
        counters: vec![flow.packets, flow.bytes],
        packet: None,
    }
}

fn drop(drop: Drop) -> Counted {
    let port = format!("{}:{}", drop.bridge, drop.port);
    Counted {
        key: format!("{} {port} {} {}", drop.reason, drop.owner, drop.rule),
        words: vec![drop.reason, port, drop.owner, drop.rule, drop.last_packet.clone()],
        counters: vec![drop.packets],
        packet: Some(drop.last_packet).filter(|flow| !flow.is_empty()).map(|flow| Packet { bridge: drop.bridge, flow }),
    }
}

fn connection(connection: Connection) -> Counted {
    let (original, reply) = (connection.original.unwrap_or_default(), connection.reply.unwrap_or_default());
    let [source, answers] = [&original, &reply].map(|tuple: &ConnectionTuple| end(&tuple.src, tuple.src_port));
    let (destination, protocol) = (end(&original.dst, original.dst_port), proto_name(connection.proto));
    let zone = connection.zone.to_string();
    let counts = [connection.original_count.unwrap_or_default(), connection.reply_count.unwrap_or_default()];
    Counted {
        key: format!("{zone} {protocol} {source} {destination}"),
        words: vec![protocol, source, destination, answers, connection.state, zone, connection.owner],
        counters: vec![counts.iter().map(|of| of.packets).sum(), counts.iter().map(|of| of.bytes).sum()],
        packet: None,
    }
}

fn worker(worker: &WorkerStats) -> Counted {
    let number = worker.worker.to_string();
    Counted {
        key: number.clone(),
        words: vec![number],
        counters: vec![
            worker.packets,
            worker.busy_us,
            worker.exact_hits,
            worker.megaflow_hits,
            worker.misses,
            worker.parks,
            worker.exact_entries,
            worker.megaflow_entries,
        ],
        packet: None,
    }
}
