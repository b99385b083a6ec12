//! The numbers of the switch and of the controller, as metrics.

use super::switch::{Answers, port as port_of};
use super::{Known, MAX_POD_PORTS};
use crate::http::Health;
use crate::pipeline::{SNAT_ZONE, ZONE};
use crate::program::SwitchError;
use ipnet::IpNet;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use sluice_flows::DropReason;
use sluice_proto::v1;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Types of tunnels that ports can be of.
const TUNNELS: [&str; 5] = ["geneve", "vxlan", "gre", "erspan", "wireguard"];

/// What was learned last.
#[derive(Debug)]
pub(super) struct SwitchNumbers {
    pods: bool,
    health: Health,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    answers: Option<Answers>,
    known: Known,
    capped: u64,
}

/// A label and its value.
type Label = (&'static str, String);
/// A value with its labels.
type Sample = (Vec<Label>, f64);

/// Writes metrics.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    /// A metric; `name` of a counter is without `_total`. One without samples is left out, and one without labels has one sample.
    fn put(
        &mut self,
        kind: MetricType,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = Sample>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let is_counter = matches!(kind, MetricType::Counter);
        let mut metric = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in samples {
            let write = |encoder: MetricEncoder<'_>| match is_counter {
                true => ConstCounter::new(value).encode(encoder),
                false => ConstGauge::new(value).encode(encoder),
            };
            if labels.is_empty() {
                return write(metric);
            }
            write(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = Sample>) -> fmt::Result {
        self.put(MetricType::Counter, name, help, samples)
    }

    fn gauge(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = Sample>) -> fmt::Result {
        self.put(MetricType::Gauge, name, help, samples)
    }
}

/// A value without labels.
fn one(value: f64) -> [Sample; 1] {
    [(Vec::new(), value)]
}

/// A value with one label.
fn with(label: &'static str, word: impl Into<String>, value: f64) -> Sample {
    (vec![(label, word.into())], value)
}

/// A flag.
fn flag(is: bool) -> f64 {
    if is { 1.0 } else { 0.0 }
}

impl SwitchNumbers {
    pub(super) fn new(pods: bool, health: Health) -> Self {
        Self { pods, health, last: Mutex::default() }
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the switch has answered.
    pub(super) fn set_switch(&self, answers: Result<Answers, SwitchError>) {
        let mut last = self.last();
        match answers {
            Ok(answers) => {
                last.capped = last.capped.saturating_add(answers.unlisted);
                if self.pods {
                    let beyond = answers.attachments.len().saturating_sub(MAX_POD_PORTS);
                    last.capped = last.capped.saturating_add(beyond as u64);
                }
                last.answers = Some(answers);
            }
            Err(error) => {
                tracing::debug!("the switch does not say its numbers: {error}");
                last.answers = None;
            }
        }
    }

    /// Takes what the controller knows.
    pub(super) fn set_known(&self, known: Known) {
        self.last().known = known;
    }
}

impl Collector for SwitchNumbers {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        let last = self.last();
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        out.gauge("sluice_build_info", "The version of the node controller; always 1", [(version, 1.0)])?;
        let parts = self.health.parts();
        let parts = parts.iter().map(|(part, state)| with("part", *part, flag(state.is_ok())));
        out.gauge("sluice_ready", "Whether a part of the node controller is well, as /readyz tells", parts)?;
        known(&mut out, &last.known)?;
        out.gauge("sluice_switch_up", "Whether the switch answers", one(flag(last.answers.is_some())))?;
        let help = "Ports and Pods that went without series of their own since there were too many";
        out.counter("sluice_metric_series_capped", help, one(last.capped as f64))?;
        let Some(answers) = &last.answers else { return Ok(()) };
        switch(&mut out, answers)?;
        traffic(&mut out, answers)?;
        caches(&mut out, &answers.stats.workers)?;
        connections(&mut out, &answers.connections)?;
        ports(&mut out, answers, self.pods)?;
        tunnels(&mut out, answers, &last.known.names)?;
        attachments(&mut out, answers)
    }
}

/// What the controller knows.
fn known(out: &mut Out<'_>, known: &Known) -> fmt::Result {
    let gauges = [
        ("sluice_api_server_up", "Whether an API server answers", usize::from(known.api_server)),
        (
            "sluice_rule_sync_pending",
            "Objects of the cluster whose change is not in force in the switch yet",
            known.pending,
        ),
        ("sluice_rule_refused", "Objects of the cluster whose flows the switch refuses", known.refused),
        ("sluice_services", "Services that this node programs", known.services),
        (
            "sluice_service_ports_without_endpoints",
            "Ports of Services without any endpoint",
            known.ports_without_endpoints,
        ),
        ("sluice_peers", "Other nodes", known.peers),
    ];
    for (name, help, value) in gauges {
        out.gauge(name, help, one(value as f64))?;
    }
    let endpoints = [("all", known.endpoints), ("local", known.local_endpoints)];
    let endpoints = endpoints.map(|(scope, count)| with("scope", scope, count as f64));
    out.gauge(
        "sluice_service_endpoints",
        "Endpoints that Services choose from: all, and those on this node",
        endpoints,
    )?;
    out.counter("sluice_flow_bundles", "Bundles of changes that the switch has taken", one(known.bundles as f64))?;
    out.counter(
        "sluice_flow_changes",
        "Changes of flows and groups that the switch has taken",
        one(known.changes as f64),
    )?;
    let help = "Time that these bundles took: to be put together, sent and done";
    out.counter("sluice_flow_bundle_seconds", help, one(known.bundle_time.as_secs_f64()))?;
    let help = "Times that flows which others had changed were put right";
    out.counter("sluice_flow_mends", help, one(known.mended as f64))
}

/// The switch as a whole.
fn switch(out: &mut Out<'_>, answers: &Answers) -> fmt::Result {
    let status = &answers.status;
    let version = vec![("version", status.version.clone())];
    out.gauge("sluice_switch_info", "The version of the switch; always 1", [(version, 1.0)])?;
    out.gauge("sluice_switch_uptime_seconds", "Time since the switch started", one(status.uptime_ms as f64 / 1e3))?;
    let parts = status.parts.iter().map(|part| with("part", part.name.as_str(), flag(part.ok)));
    out.gauge("sluice_switch_part_ok", "Whether a part of the switch is well", parts)?;
    let tables = answers.tables.iter().map(|table| with("table", table_name(table), table.flows as f64));
    out.gauge("sluice_flows", "Flows by table", tables)
}

/// A table's name, or its number.
fn table_name(table: &v1::Table) -> String {
    if table.name.is_empty() { table.table.to_string() } else { table.name.clone() }
}

/// Packets, bytes and drops.
fn traffic(out: &mut Out<'_>, answers: &Answers) -> fmt::Result {
    let stats = &answers.stats;
    let verdicts = [("forward", stats.forwarded_packets), ("drop", stats.dropped_packets)];
    let verdicts = verdicts.map(|(verdict, count)| with("verdict", verdict, count as f64));
    out.counter("sluice_packets", "Packets by what became of them", verdicts)?;
    let counters = || answers.ports.iter().filter_map(|port| port.counters.as_ref());
    let bytes = [
        ("receive", counters().fold(0, |sum: u64, c| sum.saturating_add(c.rx_bytes))),
        ("transmit", counters().fold(0, |sum: u64, c| sum.saturating_add(c.tx_bytes))),
    ];
    out.counter(
        "sluice_bytes",
        "Bytes over all ports",
        bytes.map(|(way, count)| with("direction", way, count as f64)),
    )?;
    // Those that never occurred are there too: a rate needs a value before the first one.
    let mut reasons: BTreeMap<&str, u64> = DropReason::ALL.iter().map(|reason| (reason.name(), 0)).collect();
    reasons.extend(stats.drops.iter().map(|drop| (drop.reason.as_str(), drop.packets)));
    let reasons = reasons.into_iter().map(|(reason, count)| with("reason", reason, count as f64));
    out.counter("sluice_drops", "Packets that were dropped, by reason", reasons)
}

/// Workers and their caches.
fn caches(out: &mut Out<'_>, workers: &[v1::WorkerStats]) -> fmt::Result {
    type Number = fn(&v1::WorkerStats) -> f64;
    let each = |number: Number| workers.iter().map(move |w| with("worker", w.worker.to_string(), number(w)));
    let sum = |number: Number| workers.iter().map(number).sum::<f64>();
    out.counter("sluice_worker_packets", "Frames received, by worker", each(|w| w.packets as f64))?;
    out.counter("sluice_worker_bursts", "Bursts that held at least one frame, by worker", each(|w| w.bursts as f64))?;
    out.counter("sluice_worker_busy_seconds", "Time spent on frames, by worker", each(|w| w.busy_us as f64 / 1e6))?;
    let lookup = |cache: &str, result: &str, count: f64| {
        (vec![("cache", cache.to_owned()), ("result", result.to_owned())], count)
    };
    let lookups = [
        lookup("exact", "hit", sum(|w| w.exact_hits as f64)),
        lookup("megaflow", "hit", sum(|w| w.megaflow_hits as f64)),
        lookup("megaflow", "miss", sum(|w| w.misses as f64)),
        lookup("pass", "hit", sum(|w| w.pass_hits as f64)),
        lookup("pass", "miss", sum(|w| w.pass_misses as f64)),
    ];
    out.counter(
        "sluice_cache_lookups",
        "Frames, and passes behind the first one, by the cache that answered",
        lookups,
    )?;
    let entries = [
        with("cache", "exact", sum(|w| w.exact_entries as f64)),
        with("cache", "megaflow", sum(|w| w.megaflow_entries as f64)),
        with("cache", "pass", sum(|w| w.pass_entries as f64)),
    ];
    out.gauge("sluice_cache_entries", "Entries of the workers' caches", entries)?;
    let help = "Packets for controllers that were lost because nobody took them";
    out.counter("sluice_packet_ins_lost", help, one(sum(|w| w.packet_ins_lost as f64)))
}

/// Tracked connections.
fn connections(out: &mut Out<'_>, stats: &v1::GetConnectionStatsReply) -> fmt::Result {
    let mut zones = BTreeMap::from([("main", 0u64), ("snat", 0), ("other", 0)]);
    for zone in &stats.zones {
        let kind = match u16::try_from(zone.zone) {
            Ok(ZONE) => "main",
            Ok(SNAT_ZONE) => "snat",
            _ => "other",
        };
        let sum = zones.entry(kind).or_default();
        *sum = sum.saturating_add(zone.connections);
    }
    let zones = zones.into_iter().map(|(kind, count)| with("zone_kind", kind, count as f64));
    out.gauge("sluice_conntrack_entries", "Tracked connections, by kind of zone", zones)?;
    out.gauge("sluice_conntrack_limit", "Most connections that there may be", one(stats.limit as f64))?;
    let states = stats.protocols.iter().flat_map(|protocol| {
        let name = match protocol.proto {
            1 => "icmp".to_owned(),
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            58 => "icmp6".to_owned(),
            132 => "sctp".to_owned(),
            other => other.to_string(),
        };
        let label = move |state: &str| vec![("protocol", name.clone()), ("state", state.to_lowercase())];
        protocol.states.iter().map(move |state| (label(&state.state), state.connections as f64))
    });
    out.gauge("sluice_conntrack_states", "Tracked connections, by protocol and state", states)?;
    let c = stats.counters.unwrap_or_default();
    let events = [
        ("new", c.committed),
        ("expired", c.expired),
        ("early_drop", c.early_dropped),
        ("flushed", c.flushed),
        ("full", c.full.saturating_add(c.zone_full)),
        ("nat_exhausted", c.nat_exhausted),
        ("invalid", c.invalid),
    ];
    let events = events.map(|(event, count)| with("event", event, count as f64));
    out.counter(
        "sluice_conntrack_events",
        "What became of tracked connections, and of packets that found no place",
        events,
    )
}

/// What a port is for.
fn kind(port: &v1::PortSpec, pods: &HashMap<(&str, &str), &v1::AttachmentSpec>) -> &'static str {
    if TUNNELS.contains(&port.r#type.as_str()) {
        "tunnel"
    } else if port.name == port.bridge {
        "gateway"
    } else if pods.contains_key(&(port.bridge.as_str(), port.name.as_str())) {
        "pod"
    } else {
        "uplink"
    }
}

/// Ports: those of the node by name, those of Pods only if asked for.
fn ports(out: &mut Out<'_>, answers: &Answers, pods_too: bool) -> fmt::Result {
    let specs = answers.attachments.iter().filter_map(|a| Some((a.bridge.as_str(), a.spec.as_ref()?)));
    let pods: HashMap<_, _> = specs.map(|(bridge, spec)| ((bridge, spec.port.as_str()), spec)).collect();
    let (mut series, mut of_pods) = (Vec::new(), 0);
    for port in &answers.ports {
        let Some(spec) = &port.spec else { continue };
        let kind = kind(spec, &pods);
        let mut labels = vec![("port", spec.name.clone()), ("type", kind.to_owned())];
        if kind == "pod" {
            of_pods += 1;
            if !pods_too || of_pods > MAX_POD_PORTS {
                continue;
            }
            if let Some(pod) = pods.get(&(spec.bridge.as_str(), spec.name.as_str())) {
                let label = |key| pod.labels.get(key).cloned().unwrap_or_default();
                labels.extend([("namespace", label("k8s.namespace")), ("pod", label("k8s.pod"))]);
            }
        }
        series.push((labels, flag(port.link_up && !port.gone), port.counters.unwrap_or_default()));
    }
    let ups = series.iter().map(|(labels, up, _)| (labels.clone(), *up));
    out.gauge("sluice_port_up", "Whether a port's device is there and up", ups)?;
    type Counter = (&'static str, &'static str, fn(&v1::PortCounters) -> u64);
    let counters: [Counter; 8] = [
        ("sluice_port_receive_packets", "Packets received at a port", |c| c.rx_packets),
        ("sluice_port_receive_bytes", "Bytes received at a port", |c| c.rx_bytes),
        ("sluice_port_receive_drop", "Packets lost before the switch took them from a port", |c| c.rx_dropped),
        ("sluice_port_receive_errors", "Broken packets received at a port", |c| c.rx_errors),
        ("sluice_port_transmit_packets", "Packets sent out of a port", |c| c.tx_packets),
        ("sluice_port_transmit_bytes", "Bytes sent out of a port", |c| c.tx_bytes),
        ("sluice_port_transmit_drop", "Packets that a port did not take", |c| c.tx_dropped),
        ("sluice_port_transmit_errors", "Packets that could not be sent out of a port", |c| c.tx_errors),
    ];
    for (name, help, count) in counters {
        out.counter(name, help, series.iter().map(|(labels, _, counters)| (labels.clone(), count(counters) as f64)))?;
    }
    Ok(())
}

/// Tunnels, by the other node.
fn tunnels(out: &mut Out<'_>, answers: &Answers, names: &HashMap<IpAddr, String>) -> fmt::Result {
    let mut peers = Vec::new();
    for tunnel in &answers.tunnels {
        let spec = tunnel.port.as_ref().and_then(|port| port.spec.as_ref());
        let kind = spec.map(|spec| spec.r#type.clone()).unwrap_or_default();
        for peer in &tunnel.peers {
            // Peers that are no nodes have no series: anyone can send to a tunnel's port.
            let name = peer.remote.parse().ok().and_then(|address: IpAddr| names.get(&address));
            let labels =
                name.map(|name| vec![("peer_node", name.clone()), ("type", kind.clone()), ("port", port_of(tunnel))]);
            peers.extend(labels.map(|labels| (labels, peer)));
        }
    }
    // A node can have an address of each family: its series are one each, by the way that is there.
    let mut seen = BTreeSet::new();
    peers.sort_by_key(|(labels, peer)| (labels.clone(), !peer.up));
    peers.retain(|(labels, _)| seen.insert(labels.clone()));
    let each = |number: fn(&v1::TunnelPeer) -> Option<f64>| {
        peers.iter().filter_map(move |(labels, peer)| Some((labels.clone(), number(peer)?)))
    };
    out.gauge("sluice_tunnel_up", "Whether there is a way to another node", each(|p| Some(flag(p.up))))?;
    let rtt = each(|p| p.rtt_us.map(|us| us as f64 / 1e6));
    out.gauge(
        "sluice_tunnel_rtt_seconds",
        "Time until another node answers an echo, outside of the tunnel; asked each minute",
        rtt,
    )?;
    let mtu = each(|p| Some(f64::from(p.path_mtu_bytes)).filter(|mtu| *mtu > 0.0));
    out.gauge("sluice_tunnel_path_mtu_bytes", "Largest packet that the way to another node carries", mtu)?;
    let ways = answers.tunnels.iter().filter_map(|tunnel| {
        let port = tunnel.port.as_ref()?;
        let (counters, kind) = (port.counters?, port.spec.as_ref()?.r#type.clone());
        let way = move |way: &str, count| {
            (vec![("direction", way.to_owned()), ("type", kind.clone()), ("port", port_of(tunnel))], count as f64)
        };
        Some([way("receive", counters.rx_bytes), way("transmit", counters.tx_bytes)])
    });
    out.counter("sluice_tunnel_bytes", "Bytes in tunnels, without the tunnel's headers", ways.flatten())
}

/// Pods' interfaces and their addresses.
fn attachments(out: &mut Out<'_>, answers: &Answers) -> fmt::Result {
    let mut states = BTreeMap::from([("ready", 0u64), ("waiting", 0), ("fault", 0)]);
    for attachment in &answers.attachments {
        let state = match (attachment.fault.is_empty(), attachment.unconfirmed) {
            (false, _) => "fault",
            (true, true) => "waiting",
            (true, false) => "ready",
        };
        *states.entry(state).or_default() += 1;
    }
    let states = states.into_iter().map(|(state, count)| with("state", state, count as f64));
    out.gauge("sluice_pods", "Pods' interfaces on this node, by state", states)?;
    let ranges: BTreeSet<IpNet> = answers
        .networks
        .iter()
        .filter_map(|network| network.spec.as_ref())
        .flat_map(|spec| spec.gateway.iter().filter_map(|gateway| gateway.parse::<IpNet>().ok()))
        .map(|gateway| gateway.trunc())
        .collect();
    let addresses = answers.attachments.iter().filter_map(|a| a.spec.as_ref()).flat_map(|spec| &spec.addresses);
    let addresses: BTreeSet<IpAddr> = addresses.filter_map(|a| a.parse::<IpNet>().ok()).map(|net| net.addr()).collect();
    let mut samples = Vec::new();
    for range in &ranges {
        let used = addresses.iter().filter(|address| range.contains(*address)).count();
        let label = |state: &str| vec![("range", range.to_string()), ("state", state.to_owned())];
        samples.push((label("used"), used as f64));
        samples.push((label("total"), room(range)));
    }
    out.gauge("sluice_ipam_addresses", "Addresses for Pods on this node: used, and all that there are", samples)
}

/// How many Pods a network has addresses for: not its first, not the gateway's, and of IPv4 not the last one.
fn room(range: &IpNet) -> f64 {
    let bits = f64::from(range.max_prefix_len() - range.prefix_len());
    let reserved = if range.addr().is_ipv4() { 3.0 } else { 2.0 };
    (bits.exp2() - reserved).max(0.0)
}
