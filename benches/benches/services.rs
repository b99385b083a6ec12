//! The switch at the scale of a cluster's Services: one exact flow and one select group of ten buckets for each, changed
//! over the control socket as a node controller does.
//!
//! A runner of its own and not criterion: most of what is measured happens once, or in another process's stead over a
//! socket. Memory is what the process's own allocator has handed out, the texts of the changes not included.

use sluice_benches::alloc::CountingAlloc;
use sluice_flows::action::Action;
use sluice_flows::key::{FlowKey, slot};
use sluice_flows::packet::compose::compose;
use sluice_flows::rule::TableId;
use sluice_flows::text::{Names, parse_actions};
use sluice_flows::translate::{NoMacs, NoTrace, translate_packet_out};
use sluice_proto::v1::bridge_mod::Change;
use sluice_proto::v1::connection_service_client::ConnectionServiceClient;
use sluice_proto::v1::flow_service_client::FlowServiceClient;
use sluice_proto::v1::{
    ApplyBundleReply, ApplyBundleRequest, BridgeMod, BundleHeader, FlowFilter, FlowMod, FlushConnectionsRequest,
    GroupMod, flow_mod, group_mod,
};
use sluice_switch::api;
use sluice_switch::port::Recording;
use sluice_switch::replay::{BRIDGE, IN_PORT, Measured, Replay};
use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

#[global_allocator]
static ALLOC: CountingAlloc = CountingAlloc::new();

type Outcome<T> = Result<T, Box<dyn Error>>;

const BUCKETS: usize = 10;
/// Changes of which median and 99th percentile are told.
const CHANGES: usize = 200;
/// Flows beside those of Services.
const OTHERS: usize = 100_000;
/// Flows that packets make.
const LEARNED: usize = 5_000;
/// Connections of which those of one endpoint are removed.
const CONNECTIONS: usize = 100_000;
/// Changes in one message of a bundle.
const CHUNK: usize = 1_000;
const COOKIE: &str = "cookie=0x51ce000000000001";
const TABLE: u8 = 20;
const LEARNED_TABLE: u8 = 40;

fn main() -> Outcome<()> {
    // `cargo bench` passes flags of criterion's; words that are not flags are numbers of Services.
    let wanted = std::env::args().skip(1).filter(|a| !a.starts_with('-')).map(|a| a.parse());
    let mut sizes: Vec<usize> = wanted.collect::<Result<_, _>>()?;
    if sizes.is_empty() {
        sizes = vec![10, 1_000, 10_000];
    }
    for services in sizes {
        run(services)?;
    }
    flushing()
}

/// A switch and a client of its socket.
struct Switch {
    replay: Replay,
    runtime: Runtime,
    client: FlowServiceClient<Channel>,
    connections: ConnectionServiceClient<Channel>,
    _server: api::Running,
    _folder: tempfile::TempDir,
}

impl Switch {
    fn start() -> Outcome<Self> {
        let replay = Replay::start(Some(1))?;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("s.sock");
        let server = api::spawn(replay.datapath().clone(), &path)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let endpoint = Endpoint::from_shared(format!("unix://{}", path.display()))?;
        let channel = runtime.block_on(endpoint.connect())?;
        let (client, connections) = (FlowServiceClient::new(channel.clone()), ConnectionServiceClient::new(channel));
        Ok(Self { replay, runtime, client, connections, _server: server, _folder: folder })
    }

    /// Makes the changes as one bundle. Returns what it took.
    fn bundle(&mut self, changes: Vec<BridgeMod>, replace: Option<&str>) -> Outcome<(Duration, ApplyBundleReply)> {
        let filter = replace.map(|text| FlowFilter { r#match: format!("{text}/-1"), ..FlowFilter::default() });
        let header = BundleHeader { bridge: BRIDGE.into(), replace: filter, ..BundleHeader::default() };
        let mut parts = vec![ApplyBundleRequest { header: Some(header), ..ApplyBundleRequest::default() }];
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() {
            let changes = changes.by_ref().take(CHUNK).collect();
            parts.push(ApplyBundleRequest { changes, ..ApplyBundleRequest::default() });
        }
        parts.push(ApplyBundleRequest { commit: true, ..ApplyBundleRequest::default() });
        let start = Instant::now();
        let reply = self.runtime.block_on(self.client.apply_bundle(tokio_stream::iter(parts)))?;
        Ok((start.elapsed(), reply.into_inner()))
    }
}

fn group(service: usize, buckets: usize) -> BridgeMod {
    use std::fmt::Write;
    let mut text = format!("group_id={},type=select", service + 1);
    for bucket in 0..buckets {
        // Writing to a string does not fail.
        _ = write!(
            text,
            ",bucket=bucket_id:{},weight:100,actions=ct(commit,zone=65000,nat(dst=10.244.{}.{}:8080),\
             exec(load:1->NXM_NX_CT_MARK[4]),table=30)",
            bucket + 1,
            service % 250 + 1,
            bucket + 1,
        );
    }
    let command = group_mod::Command::AddOrModify.into();
    BridgeMod { change: Some(Change::Group(GroupMod { command, group: text, ..GroupMod::default() })) }
}

fn flow(flow: String) -> BridgeMod {
    let command = flow_mod::Command::Add.into();
    BridgeMod { change: Some(Change::Flow(FlowMod { command, flow, ..FlowMod::default() })) }
}

/// All that the Services need, groups first.
fn all(services: usize) -> Vec<BridgeMod> {
    let base = [
        "table=0,priority=100,ip,actions=ct(zone=65000,nat,table=10)".to_owned(),
        format!("table=10,priority=100,ip,ct_state=+trk+new,actions=resubmit(,{TABLE})"),
        "table=10,priority=90,ip,ct_state=+trk,actions=resubmit(,30)".to_owned(),
        "table=30,priority=100,actions=output:2".to_owned(),
    ];
    let exact = (0..services).map(|n| {
        let group = n + 1;
        format!("table={TABLE},priority=100,tcp,nw_dst={},tp_dst=80,actions=group:{group}", address(n))
    });
    let flows = base.into_iter().chain(exact).map(|text| flow(format!("{COOKIE},{text}")));
    (0..services).map(|n| group(n, BUCKETS)).chain(flows).collect()
}

/// A flow of a table that is full of others.
fn other(n: usize) -> BridgeMod {
    let (a, b) = (n / 250 % 250, n % 250);
    flow(format!("table=50,priority=100,ip,nw_dst=10.{}.{a}.{b},actions=output:2", n / 62_500 + 100))
}

fn address(service: usize) -> std::net::Ipv4Addr {
    std::net::Ipv4Addr::from_bits(0x0a60_0000 + service as u32)
}

/// A TCP packet of a client's to a Service.
fn packet(client: usize, service: usize) -> FlowKey {
    let mut key = FlowKey::ZERO;
    for (slot, value) in [
        (slot::ETH_SRC, 4),
        (slot::ETH_DST, 2),
        (slot::ETH_TYPE, 0x0800),
        (slot::IP_PROTO, 6),
        (slot::IP_TTL, 64),
        (slot::IP_SRC, 0x0af0_0000 + client as u128),
        (slot::IP_DST, address(service).to_bits().into()),
        (slot::TP_SRC, 40_000 + client as u128 % 20_000),
        (slot::TP_DST, 80),
        (slot::TCP_FLAGS, 2),
    ] {
        key.set(slot, value);
    }
    key
}

/// Median and 99th percentile, in milliseconds.
fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default().as_secs_f64() * 1e3;
    format!("p50 {:.2} ms, p99 {:.2} ms", at(50), at(99))
}

fn run(services: usize) -> Outcome<()> {
    println!("{services} Services");
    let mut switch = Switch::start()?;
    let before = ALLOC.in_use();
    let (first, reply) = switch.bundle(all(services), Some(COOKIE))?;
    let memory = ALLOC.in_use().saturating_sub(before);
    println!(
        "  first bundle        {:.3} s, {} flows, {} groups",
        first.as_secs_f64(),
        reply.added,
        reply.others_added
    );
    println!("  memory              {:.1} MB, {} B a Service", memory as f64 / 1e6, memory / services.max(1));
    let (again, reply) = switch.bundle(all(services), Some(COOKIE))?;
    println!(
        "  the same again      {:.3} s, {} unchanged, {} added, {} groups modified",
        again.as_secs_f64(),
        reply.unchanged,
        reply.added,
        reply.others_modified
    );
    let mut times = Vec::new();
    for n in 0..CHANGES {
        let change = vec![group(n * 7 % services, BUCKETS - n % 2)];
        times.push(switch.bundle(change, None)?.0);
    }
    println!("  one group changed   {}", percentiles(times));
    switch.bundle((0..OTHERS).map(other).collect(), None)?;
    let mut times = Vec::new();
    for n in 0..CHANGES {
        times.push(switch.bundle(vec![other(OTHERS + n)], None)?.0);
    }
    println!("  one flow of {OTHERS} {}", percentiles(times));
    lookups(&switch, services)?;
    traffic(&switch, services)?;
    drop(switch);
    learning(services)
}

/// What it takes to remove the connections to one of 10,000 endpoints, of [`CONNECTIONS`] in all.
fn flushing() -> Outcome<()> {
    let services = 1_000;
    let mut switch = Switch::start()?;
    let flows = (0..services).map(|n| {
        let group = n + 1;
        flow(format!("table=0,priority=100,udp,nw_dst={},tp_dst=80,actions=group:{group}", address(n)))
    });
    let out = flow("table=30,priority=100,actions=output:2".to_owned());
    switch.bundle((0..services).map(|n| group(n, BUCKETS)).chain(flows).chain([out]).collect(), None)?;
    let keys = (0..CONNECTIONS).map(|n| {
        let mut key = packet(n, n % services);
        key.set(slot::IP_PROTO, 17);
        key.set(slot::TCP_FLAGS, 0);
        key
    });
    let datapath = switch.replay.datapath().clone();
    let start = Instant::now();
    switch.replay.begin(Recording::from_frames(keys.map(|key| compose(&key, &[b'x'; 18]))))?;
    while datapath.connections_len() < CONNECTIONS as u32 {
        if start.elapsed() > Duration::from_secs(60) {
            return Err(format!("only {} connections", datapath.connections_len()).into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    switch.replay.shutdown();
    let (mut times, mut flushed) = (Vec::new(), 0);
    for n in 0..50 {
        let filter = format!("zone=65000,udp,dnat,reply_nw_src=10.244.{}.{},reply_tp_src=8080", n + 1, n % BUCKETS + 1);
        let request = FlushConnectionsRequest { filter, ..FlushConnectionsRequest::default() };
        let start = Instant::now();
        let reply = switch.runtime.block_on(switch.connections.flush_connections(request))?;
        times.push(start.elapsed());
        flushed += reply.into_inner().flushed;
    }
    println!("{CONNECTIONS} connections");
    println!("  one endpoint's gone {}, {flushed} flushed by 50 filters", percentiles(times));
    Ok(())
}

/// What translation takes for the first packet of a connection: the table of Services and the choice of a bucket.
fn lookups(switch: &Switch, services: usize) -> Outcome<()> {
    let model = switch.replay.datapath().model();
    let bridge = model.bridge_named(BRIDGE).ok_or("no bridge")?.id;
    let actions: Box<[Action]> = parse_actions(&format!("resubmit(,{TABLE})"), Names::NONE)?;
    let keys: Vec<_> = (0..10_000).map(|n| packet(n, n * 7919 % services)).collect();
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        for key in &keys {
            black_box(translate_packet_out(&model, &NoMacs, bridge, IN_PORT, key, &actions, &mut NoTrace));
        }
        best = best.min(start.elapsed().as_nanos() as f64 / keys.len() as f64);
    }
    println!("  one translation     {best:.0} ns");
    Ok(())
}

/// Packets of established connections, each to another Service as far as there are some.
fn traffic(switch: &Switch, services: usize) -> Outcome<()> {
    let keys = (0..1_000).map(|n| packet(n, n * 7919 % services));
    switch.replay.begin(Recording::from_frames(keys.map(|key| compose(&key, &[b'x'; 18]))))?;
    switch.replay.measure(Duration::from_millis(500));
    let rate = |measured: &Measured| measured.packets_per_cpu_second().unwrap_or_default();
    let windows = (0..8).map(|_| switch.replay.measure(Duration::from_millis(250)));
    let best = windows.max_by(|a, b| rate(a).total_cmp(&rate(b))).ok_or("no windows")?;
    let hits = 100.0 * best.share(|stats| stats.cache.connection_hits);
    println!("  a packet            {:.0} ns, {hits:.1}% by its connection", 1e9 / rate(&best));
    switch.replay.shutdown();
    Ok(())
}

/// Packets that each make a flow of their own, while the switch has all Services and other flows.
fn learning(services: usize) -> Outcome<()> {
    let mut switch = Switch::start()?;
    switch.bundle((0..services).map(|n| group(n, BUCKETS)).collect(), None)?;
    switch.bundle((0..OTHERS).map(other).collect(), None)?;
    let learn = format!(
        "table=0,priority=200,tcp,actions=learn(table={LEARNED_TABLE},idle_timeout=600,priority=10,cookie=0x2,\
         eth_type=0x800,nw_proto=6,NXM_OF_IP_SRC[],load:7->NXM_NX_REG3[]),output:2"
    );
    switch.bundle(vec![flow(learn)], None)?;
    let keys = (0..LEARNED).map(|n| packet(n, 0));
    let table = TableId::new(LEARNED_TABLE).ok_or("no table")?;
    let datapath = switch.replay.datapath().clone();
    let there = || datapath.model().bridge_named(BRIDGE).map_or(0, |bridge| bridge.tables.table_len(table));
    let start = Instant::now();
    switch.replay.begin(Recording::from_frames(keys.map(|key| compose(&key, &[b'x'; 18]))))?;
    while there() < LEARNED {
        if start.elapsed() > Duration::from_secs(60) {
            return Err(format!("only {} of {LEARNED} flows were learned", there()).into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("  one flow learned    {:.3} ms", start.elapsed().as_secs_f64() * 1e3 / LEARNED as f64);
    switch.replay.shutdown();
    Ok(())
}
