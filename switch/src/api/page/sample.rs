//! What the switch says of itself, asked over its control API. However many look, it is asked [`EVERY`] at most.

use super::history::{self, History};
use super::shape::{
    BucketRow, ConnectionRow, Drawing, DropRow, Edge, GroupRow, Health, Join, Line, Part, Traced, View, Way, Worker,
};
use super::{Page, PageError, Scene, talks};
use crate::port::{WireSettings, parse_time};
use axum::body::Bytes;
use sluice_proto::MAX_MESSAGE_LEN;
use sluice_proto::v1::bridge_service_client::BridgeServiceClient;
use sluice_proto::v1::connection_service_client::ConnectionServiceClient;
use sluice_proto::v1::group_service_client::GroupServiceClient;
use sluice_proto::v1::port_service_client::PortServiceClient;
use sluice_proto::v1::stats_service_client::StatsServiceClient;
use sluice_proto::v1::status_service_client::StatusServiceClient;
use sluice_proto::v1::trace_packet::Packet;
use sluice_proto::v1::trace_service_client::TraceServiceClient;
use sluice_proto::v1::tunnel_service_client::TunnelServiceClient;
use sluice_proto::v1::{
    Connection, Drop, DumpMegaflowsRequest, GetStatsReply, GetStatsRequest, GetStatusReply, GetStatusRequest,
    ListBridgesRequest, ListConnectionsRequest, ListDropsRequest, ListGroupsRequest, ListPortsRequest,
    ListTunnelsRequest, Port, TracePacket, TraceRequest,
};
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status, Streaming};

/// Version of the JSON.
const VERSION: u32 = 1;
/// How long an answer is good.
const EVERY: Duration = Duration::from_millis(500);
/// How long the switch may take to answer all.
const WITHIN: Duration = Duration::from_secs(5);
/// How often tunnels are asked how far away their other ends are, and how long those may take.
const PROBE_EVERY: Duration = Duration::from_secs(5);
const PROBE_WITHIN_MS: u32 = 2000;
/// Most of each kind of thing that a page is told of.
const MOST: usize = 1000;

type Answer = Result<Bytes, String>;

/// Asks the switch, and keeps the answer for a moment.
pub(super) struct Sampler {
    channel: Channel,
    scene: Arc<dyn Scene>,
    writes: bool,
    last: tokio::sync::Mutex<Option<(Instant, Answer)>>,
    probes: Arc<Mutex<Probes>>,
    history: Mutex<History>,
}

/// How far away the other ends of tunnels were.
#[derive(Default)]
struct Probes {
    begun: Option<Instant>,
    rtt_us: HashMap<String, u64>,
}

impl Sampler {
    pub(super) fn new(page: &Page) -> Result<Self, PageError> {
        let path = page.socket.to_str().ok_or_else(|| PageError::Socket(page.socket.clone()))?;
        let endpoint = Endpoint::from_shared(format!("unix://{path}"));
        let endpoint = endpoint.map_err(|_| PageError::Socket(page.socket.clone()))?;
        Ok(Self {
            channel: endpoint.connect_lazy(),
            scene: Arc::clone(&page.scene),
            writes: page.writes,
            last: tokio::sync::Mutex::default(),
            probes: Arc::default(),
            history: Mutex::default(),
        })
    }

    /// The control API.
    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Everything, as JSON.
    pub(super) async fn view(&self) -> Answer {
        let mut last = self.last.lock().await;
        if let Some((_, answer)) = last.as_ref().filter(|(at, _)| at.elapsed() < EVERY) {
            return answer.clone();
        }
        let taken = tokio::time::timeout(WITHIN, self.take()).await;
        let answer = taken.unwrap_or_else(|_| Err(format!("the switch has not answered for {WITHIN:?}")));
        let now = Instant::now();
        if let Ok(json) = &answer {
            self.history.lock().unwrap_or_else(PoisonError::into_inner).push(now, json.clone());
        }
        *last = Some((now, answer.clone()));
        answer
    }

    /// Asks from time to time, whether somebody looks or not, so that there is a past to look back to.
    pub(super) async fn record(&self) -> Infallible {
        let mut times = tokio::time::interval(history::EVERY);
        times.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            times.tick().await;
            // Without an answer there is a gap; who looks is told why.
            _ = self.view().await;
        }
    }

    /// What was so in the last ten minutes, as a JSON array.
    pub(super) fn history(&self) -> Vec<u8> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).json()
    }

    /// Has the scene answer, where it may block.
    pub(super) async fn with_scene<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Scene) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let scene = Arc::clone(&self.scene);
        let done = tokio::task::spawn_blocking(move || work(&*scene)).await;
        done.unwrap_or_else(|error| Err(format!("the request failed inside: {error}")))
    }

    /// Traces a packet as it came to a bridge.
    pub(super) async fn trace(&self, bridge: String, packet: String) -> Result<Traced, String> {
        let asked = TracePacket { packet: Some(Packet::Flow(packet.clone())), in_port: String::new() };
        let request = TraceRequest { bridge: bridge.clone(), packets: vec![asked], ..TraceRequest::default() };
        let call = async {
            let mut client = TraceServiceClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE_LEN);
            client.trace(request).await?.into_inner().message().await
        };
        let reply = call.await.map_err(said)?.ok_or("there is no answer")?;
        let verdict = if reply.verdict == "drop" { "dropped" } else { "elsewhere" };
        let to: Vec<_> = reply.outputs.iter().map(|out| format!("{}:{}", out.bridge, out.port_name)).collect();
        let headline = match (&reply.rule, verdict) {
            (Some(rule), "dropped") => format!("DROPPED at {bridge}: {} by {}", reply.reason, rule.owner),
            (None, "dropped") => format!("DROPPED at {bridge}: {}", reply.reason),
            _ => format!("SENT from {bridge} to {}", to.join(", ")),
        };
        let nodes = std::iter::once(bridge).chain(reply.outputs.into_iter().map(|out| out.bridge)).collect();
        let command = format!("sluice trace '{packet}'");
        Ok(Traced { verdict, headline, nodes, walk: reply.walk, command })
    }

    async fn take(&self) -> Answer {
        let ports = self.ports().await.map_err(said)?;
        let (drawing, ports) = self
            .with_scene(move |scene| {
                let drawing = scene.drawing(&ports)?;
                Ok((drawing, ports))
            })
            .await?;
        let view = self.ask(drawing, ports).await.map_err(said)?;
        serde_json::to_vec(&view).map(Bytes::from).map_err(|error| error.to_string())
    }

    pub(super) async fn ports(&self) -> Result<Vec<Port>, Status> {
        let mut client = PortServiceClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE_LEN);
        some(client.list_ports(ListPortsRequest::default()).await, usize::MAX, |part| part.ports).await
    }

    async fn ask(&self, drawing: Drawing, ports: Vec<Port>) -> Result<View, Status> {
        let channel = || self.channel();
        let mut stats = StatsServiceClient::new(channel()).max_decoding_message_size(MAX_MESSAGE_LEN);
        let mut connections = ConnectionServiceClient::new(channel()).max_decoding_message_size(MAX_MESSAGE_LEN);
        let status = StatusServiceClient::new(channel()).get_status(GetStatusRequest {}).await?.into_inner();
        let totals = stats.get_stats(GetStatsRequest {}).await?.into_inner();
        let drops = some(stats.list_drops(ListDropsRequest::default()).await, MOST, |part| part.drops).await?;
        let megaflows = stats.dump_megaflows(DumpMegaflowsRequest::default()).await;
        let megaflows = some(megaflows, MOST, |part| part.megaflows).await?;
        let connections = connections.list_connections(ListConnectionsRequest::default()).await;
        let connections = some(connections, MOST, |part| part.connections).await?;
        let groups = self.groups().await?;
        let rtt_us =
            if drawing.links.iter().any(|link| link.kind == Join::Tunnel) { self.probe() } else { HashMap::new() };

        let talks = talks::talks(&drawing.nodes, &megaflows, &drops, &connections);
        let by_name: HashMap<&str, &Port> =
            ports.iter().filter_map(|port| Some((port.spec.as_ref()?.name.as_str(), port))).collect();
        let links = drawing.links.iter().map(|edge| line(edge, &by_name, &rtt_us)).collect();
        let drops = drops.into_iter().map(|drop| drop_row(&drawing, drop)).collect();
        Ok(View {
            v: VERSION,
            time_ms: now_ms(),
            title: drawing.title,
            lab: drawing.lab,
            writes: self.writes,
            nodes: drawing.nodes,
            links,
            talks,
            drops,
            connections: connections.into_iter().map(connection_row).collect(),
            groups,
            health: health(status, &totals),
        })
    }

    async fn groups(&self) -> Result<Vec<GroupRow>, Status> {
        let mut client = BridgeServiceClient::new(self.channel());
        let bridges = client.list_bridges(ListBridgesRequest {}).await?.into_inner().bridges;
        let mut client = GroupServiceClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE_LEN);
        let mut rows = Vec::new();
        for bridge in bridges {
            let request =
                ListGroupsRequest { bridge: bridge.name.clone(), port_names: true, ..ListGroupsRequest::default() };
            let groups = some(client.list_groups(request).await, MOST, |part| part.groups).await?;
            rows.extend(groups.into_iter().map(|group| {
                GroupRow {
                    bridge: bridge.name.clone(),
                    id: group.id,
                    kind: group.r#type,
                    owner: group.owner,
                    packets: group.packets,
                    buckets: group
                        .buckets
                        .into_iter()
                        .map(|of| BucketRow { actions: of.actions, weight: of.weight, packets: of.packets })
                        .collect(),
                }
            }));
        }
        rows.truncate(MOST);
        Ok(rows)
    }

    /// How far away other ends were when they were last asked, by port; asks them again in the background when it is time.
    fn probe(&self) -> HashMap<String, u64> {
        let mut probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        if probes.begun.is_none_or(|begun| begun.elapsed() >= PROBE_EVERY) {
            probes.begun = Some(Instant::now());
            let (kept, mut client) = (Arc::clone(&self.probes), TunnelServiceClient::new(self.channel()));
            tokio::spawn(async move {
                let request = ListTunnelsRequest { bridge: String::new(), probe_timeout_ms: PROBE_WITHIN_MS };
                // What is wrong with the switch is said by what else is asked.
                let Ok(reply) = client.list_tunnels(request).await else { return };
                let rtt = reply.into_inner().tunnels.into_iter().filter_map(|tunnel| {
                    let rtt = tunnel.peers.iter().filter_map(|peer| peer.rtt_us).max()?;
                    Some((tunnel.port?.spec?.name, rtt))
                });
                kept.lock().unwrap_or_else(PoisonError::into_inner).rtt_us = rtt.collect();
            });
        }
        probes.rtt_us.clone()
    }
}

/// What comes of a stream, up to so many.
async fn some<P, T>(
    stream: Result<Response<Streaming<P>>, Status>,
    most: usize,
    items: impl Fn(P) -> Vec<T>,
) -> Result<Vec<T>, Status> {
    let mut stream = stream?.into_inner();
    let mut all = Vec::new();
    while all.len() < most
        && let Some(part) = stream.message().await?
    {
        all.extend(items(part));
    }
    all.truncate(most);
    Ok(all)
}

pub(super) fn said(status: Status) -> String {
    match status.code() {
        tonic::Code::Unavailable => "the switch does not answer".to_owned(),
        _ => status.message().to_owned(),
    }
}

fn now_ms() -> u64 {
    let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}

/// A link with what its ports say of it.
fn line(edge: &Edge, ports: &HashMap<&str, &Port>, rtt_us: &HashMap<String, u64>) -> Line {
    let at = edge.ports.each_ref().map(|name| name.as_deref().and_then(|name| ports.get(name).copied()));
    let is_up = |port: &Port| port.link_up && !port.gone && !port.spec.as_ref().is_some_and(|spec| spec.admin_down);
    let up = at.iter().flatten().all(|port| is_up(port)) && at.iter().any(Option::is_some);
    let ways = [(0, 1), (1, 0)].map(|(from, to)| match (at[from], at[to]) {
        (Some(port), _) => sent(port),
        (None, Some(port)) => received(port),
        (None, None) => Way::default(),
    });
    let rtt_us = edge.ports.iter().flatten().filter_map(|name| rtt_us.get(name)).max().copied();
    Line { edge: edge.clone(), up, ways, rtt_us }
}

/// What a port sends.
fn sent(port: &Port) -> Way {
    let (counters, wire) = (port.counters.unwrap_or_default(), port.wire.unwrap_or_default());
    let options = port.spec.iter().flat_map(|spec| &spec.options);
    let set: BTreeMap<_, _> = options
        .filter(|(name, _)| WireSettings::IMPAIRMENTS.contains(&name.as_str()))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    let delay = set.get("delay").and_then(|delay| parse_time(delay)).unwrap_or_default();
    Way {
        packets: counters.tx_packets,
        bytes: counters.tx_bytes,
        lost_packets: wire.lost + wire.queue_full,
        latency_ns: u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX).saturating_add(wire.queued_ns),
        set,
    }
}

/// What comes to a port whose other end is none of the switch.
fn received(port: &Port) -> Way {
    let counters = port.counters.unwrap_or_default();
    Way { packets: counters.rx_packets, bytes: counters.rx_bytes, ..Way::default() }
}

fn drop_row(drawing: &Drawing, drop: Drop) -> DropRow {
    DropRow {
        name: drawing.rule_name(&drop.owner, &drop.rule),
        reason: drop.reason,
        explanation: drop.explanation,
        hint: drop.hint,
        bridge: drop.bridge,
        port: drop.port,
        owner: drop.owner,
        rule: drop.rule,
        packets: drop.packets,
        last_ms: drop.last_ms,
        last_packet: drop.last_packet,
    }
}

fn connection_row(connection: Connection) -> ConnectionRow {
    let (original, reply) = (connection.original.unwrap_or_default(), connection.reply.unwrap_or_default());
    let counts = [connection.original_count.unwrap_or_default(), connection.reply_count.unwrap_or_default()];
    ConnectionRow {
        protocol: connection.proto,
        src: original.src,
        src_port: original.src_port,
        dst: original.dst,
        dst_port: original.dst_port,
        answers: reply.src,
        state: connection.state,
        zone: connection.zone,
        owner: connection.owner,
        packets: counts.iter().map(|of| of.packets).sum(),
        bytes: counts.iter().map(|of| of.bytes).sum(),
    }
}

fn health(status: GetStatusReply, totals: &GetStatsReply) -> Health {
    Health {
        version: status.version,
        uptime_ms: status.uptime_ms,
        flows: status.flows,
        fdb_entries: status.fdb_entries,
        connections: status.connections,
        max_connections: status.max_connections,
        received_packets: totals.received_packets,
        forwarded_packets: totals.forwarded_packets,
        dropped_packets: totals.dropped_packets,
        parts: status.parts.into_iter().map(|of| Part { name: of.name, ok: of.ok, detail: of.detail }).collect(),
        workers: totals
            .workers
            .iter()
            .map(|of| Worker {
                packets: of.packets,
                exact_hits: of.exact_hits,
                megaflow_hits: of.megaflow_hits,
                misses: of.misses,
                busy_us: of.busy_us,
                uptime_us: of.uptime_us,
                packet_ins_lost: of.packet_ins_lost,
            })
            .collect(),
    }
}
