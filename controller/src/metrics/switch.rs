//! What the switch is asked for at a scrape.

use super::{ANSWER_WITHIN, Options};
use hyper_util::rt::TokioIo;
use sluice_proto::v1;
use sluice_proto::v1::attachment_service_client::AttachmentServiceClient;
use sluice_proto::v1::connection_service_client::ConnectionServiceClient;
use sluice_proto::v1::port_service_client::PortServiceClient;
use sluice_proto::v1::stats_service_client::StatsServiceClient;
use sluice_proto::v1::status_service_client::StatusServiceClient;
use sluice_proto::v1::table_service_client::TableServiceClient;
use sluice_proto::v1::tunnel_service_client::TunnelServiceClient;
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// Most ports, and most attachments, that are taken from the switch.
const MAX_LISTED: usize = 10_000;
/// How often the other ends of tunnels are asked how long the way to them is.
const PROBE_EVERY: Duration = Duration::from_secs(60);
/// How long each has to answer, in milliseconds.
const PROBE_WITHIN_MS: u32 = 1_000;
/// Longest answer, in bytes: ten thousand ports and more.
const MAX_ANSWER: usize = 64 << 20;

/// All answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    pub(super) status: v1::GetStatusReply,
    pub(super) stats: v1::GetStatsReply,
    pub(super) connections: v1::GetConnectionStatsReply,
    pub(super) tables: Vec<v1::Table>,
    pub(super) ports: Vec<v1::Port>,
    pub(super) tunnels: Vec<v1::Tunnel>,
    pub(super) networks: Vec<v1::Network>,
    pub(super) attachments: Vec<v1::Attachment>,
    /// Ports and attachments beyond the limit.
    pub(super) unlisted: u64,
}

/// Where they come from.
#[derive(Debug)]
pub(super) struct Source {
    channel: Channel,
    bridge: String,
    /// When tunnels were probed last, and what came of it: round trips by port and other end, in microseconds.
    probed: Option<Instant>,
    round_trips: Vec<((String, String), u64)>,
}

impl Source {
    /// Connects when it is needed, and again whenever the connection is lost.
    pub(super) fn new(options: &Options) -> Self {
        let socket = options.socket.clone();
        let connector = service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://switch")
            .connect_timeout(ANSWER_WITHIN)
            .connect_with_connector_lazy(connector);
        Self { channel, bridge: options.bridge.clone(), probed: None, round_trips: Vec::new() }
    }

    /// Asks for everything at once.
    ///
    /// # Errors
    /// What the switch says, or that it says nothing in time.
    pub(super) async fn ask(&mut self) -> Result<Answers, Status> {
        let probe = self.probed.is_none_or(|at| at.elapsed() >= PROBE_EVERY);
        let late =
            |_| Status::deadline_exceeded(format!("the switch does not answer within {} s", ANSWER_WITHIN.as_secs()));
        let mut answers = tokio::time::timeout(ANSWER_WITHIN, self.all(probe)).await.map_err(late)??;
        if probe {
            self.probed = Some(Instant::now());
            let peers = answers.tunnels.iter().flat_map(|tunnel| tunnel.peers.iter().map(|peer| (port(tunnel), peer)));
            self.round_trips =
                peers.filter_map(|(port, peer)| Some(((port, peer.remote.clone()), peer.rtt_us?))).collect();
        } else {
            for tunnel in &mut answers.tunnels {
                let port = port(tunnel);
                for peer in &mut tunnel.peers {
                    let known = self.round_trips.iter().find(|((p, remote), _)| *p == port && *remote == peer.remote);
                    peer.rtt_us = known.map(|(_, rtt)| *rtt);
                }
            }
        }
        Ok(answers)
    }

    async fn all(&self, probe: bool) -> Result<Answers, Status> {
        let channel = || self.channel.clone();
        let mut status = StatusServiceClient::new(channel());
        let mut stats = StatsServiceClient::new(channel());
        let mut connections = ConnectionServiceClient::new(channel());
        let mut tables = TableServiceClient::new(channel());
        let mut tunnels = TunnelServiceClient::new(channel()).max_decoding_message_size(MAX_ANSWER);
        let mut networks = AttachmentServiceClient::new(channel()).max_decoding_message_size(MAX_ANSWER);
        let probe_timeout_ms = if probe { PROBE_WITHIN_MS } else { 0 };
        let (bridge, everything) = (self.bridge.clone(), String::new());
        let (status, stats, connections, tables, tunnels, networks, ports, attachments) = tokio::join!(
            status.get_status(v1::GetStatusRequest {}),
            stats.get_stats(v1::GetStatsRequest {}),
            connections.get_connection_stats(v1::GetConnectionStatsRequest { filter: everything }),
            tables.list_tables(v1::ListTablesRequest { bridge: bridge.clone(), all: false }),
            tunnels.list_tunnels(v1::ListTunnelsRequest { bridge, probe_timeout_ms }),
            networks.list_networks(v1::ListNetworksRequest {}),
            self.ports(),
            self.attachments(),
        );
        let ((ports, ports_left), (attachments, attachments_left)) = (ports?, attachments?);
        Ok(Answers {
            status: status?.into_inner(),
            stats: stats?.into_inner(),
            connections: connections?.into_inner(),
            // The bridge comes with the network, so it may not be there yet.
            tables: tables.map(|reply| reply.into_inner().tables).unwrap_or_default(),
            tunnels: tunnels.map(|reply| reply.into_inner().tunnels).unwrap_or_default(),
            networks: networks?.into_inner().networks,
            ports,
            attachments,
            unlisted: ports_left + attachments_left,
        })
    }

    /// The ports of all bridges, and how many there are beyond the limit.
    async fn ports(&self) -> Result<(Vec<v1::Port>, u64), Status> {
        let request = v1::ListPortsRequest { bridge: String::new() };
        let mut stream = PortServiceClient::new(self.channel.clone()).list_ports(request).await?.into_inner();
        let (mut ports, mut left) = (Vec::new(), 0);
        while let Some(reply) = stream.message().await? {
            left += take(&mut ports, reply.ports);
        }
        Ok((ports, left))
    }

    /// The attachments of all networks, and how many there are beyond the limit.
    async fn attachments(&self) -> Result<(Vec<v1::Attachment>, u64), Status> {
        let request = v1::ListAttachmentsRequest { network: String::new() };
        let mut client = AttachmentServiceClient::new(self.channel.clone());
        let mut stream = client.list_attachments(request).await?.into_inner();
        let (mut attachments, mut left) = (Vec::new(), 0);
        while let Some(reply) = stream.message().await? {
            left += take(&mut attachments, reply.attachments);
        }
        Ok((attachments, left))
    }
}

/// Takes what there is room for, and says how many there is none for.
fn take<T>(all: &mut Vec<T>, some: Vec<T>) -> u64 {
    let room = MAX_LISTED.saturating_sub(all.len());
    let left = some.len().saturating_sub(room);
    all.extend(some.into_iter().take(room));
    left as u64
}

/// The name of a tunnel's port.
pub(super) fn port(tunnel: &v1::Tunnel) -> String {
    let spec = tunnel.port.as_ref().and_then(|port| port.spec.as_ref());
    spec.map(|spec| spec.name.clone()).unwrap_or_default()
}
