//! What is scraped from a switch and a controller that know something.

use super::*;
use sluice_proto::v1;
use std::collections::BTreeMap;
use switch::Answers;

fn port(name: &str, kind: &str, rx: u64) -> v1::Port {
    let spec = v1::PortSpec { bridge: "sluice0".into(), name: name.into(), r#type: kind.into(), ..Default::default() };
    let counters = v1::PortCounters { rx_packets: rx, rx_bytes: rx * 100, tx_bytes: 7, ..Default::default() };
    v1::Port { spec: Some(spec), link_up: true, counters: Some(counters), ..Default::default() }
}

fn pod(n: usize) -> v1::Attachment {
    let labels = [("k8s.namespace", "shop"), ("k8s.pod", "web")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let spec = v1::AttachmentSpec {
        port: format!("veth{n}"),
        addresses: vec![format!("10.244.0.{}/24", n % 200 + 2)],
        labels: labels.into(),
        ..Default::default()
    };
    v1::Attachment { spec: Some(spec), bridge: "sluice0".into(), ..Default::default() }
}

/// A switch with all that it can have.
pub(crate) fn answers(pods: usize) -> Answers {
    let peer = |remote: &str| v1::TunnelPeer {
        remote: remote.into(),
        path_mtu_bytes: 1500,
        rtt_us: Some(250),
        up: true,
        ..Default::default()
    };
    let mut ports = vec![port("sluice0", "internal", 10), port("tun0", "geneve", 20), port("eth1", "packet", 30)];
    ports.extend((0..pods).map(|n| port(&format!("veth{n}"), "packet", 1)));
    let worker = v1::WorkerStats {
        packets: 60,
        exact_hits: 40,
        megaflow_hits: 15,
        misses: 5,
        busy_us: 1_500_000,
        ..Default::default()
    };
    let counters = v1::ConnectionCounters { committed: 9, full: 1, zone_full: 2, ..Default::default() };
    let zone = |zone: u32, connections| v1::ZoneStats { zone, connections, limit: 0 };
    let state = v1::StateStats { state: "ESTABLISHED".into(), connections: 3 };
    Answers {
        status: v1::GetStatusReply {
            version: "0.1.0".into(),
            uptime_ms: 1_500,
            parts: vec![v1::PartStatus { name: "ports".into(), ok: true, detail: String::new() }],
            ..Default::default()
        },
        stats: v1::GetStatsReply {
            received_packets: 60,
            forwarded_packets: 58,
            dropped_packets: 2,
            drops: vec![v1::ReasonCount { reason: "ct_full".into(), packets: 2 }],
            workers: vec![worker],
        },
        connections: v1::GetConnectionStatsReply {
            connections: 7,
            limit: 1_000,
            zones: vec![zone(65_000, 4), zone(65_001, 2), zone(1, 1)],
            protocols: vec![v1::ProtocolStats { proto: 6, connections: 3, states: vec![state] }],
            counters: Some(counters),
        },
        tables: vec![
            v1::Table { table: 18, name: "service".to_owned(), flows: 4, ..Default::default() },
            v1::Table { table: 99, flows: 1, ..Default::default() },
        ],
        tunnels: vec![v1::Tunnel {
            port: Some(port("tun0", "geneve", 20)),
            peers: vec![peer("192.0.2.2"), peer("2001:db8::2"), peer("198.51.100.66")],
        }],
        networks: vec![v1::Network {
            spec: Some(v1::NetworkSpec {
                name: "sluice".into(),
                gateway: vec!["10.244.0.1/24".into()],
                ..Default::default()
            }),
            ..Default::default()
        }],
        attachments: (0..pods).map(pod).collect(),
        ports,
        unlisted: 0,
    }
}

/// What a controller may know.
fn known() -> Known {
    let names = [("192.0.2.2", "node-2"), ("2001:db8::2", "node-2")];
    let names = names.map(|(address, name)| (address.parse().unwrap(), name.to_owned())).into();
    Known { services: 3, endpoints: 9, local_endpoints: 2, pending: 1, names, ..Known::default() }
}

/// All that is exported, by name with labels.
pub(crate) fn page(answers: Option<Answers>, pods: bool) -> BTreeMap<String, f64> {
    let options = Options { bridge: "sluice0".into(), pods };
    let health = Health::default();
    health.set("switch", Ok(()));
    health.set("lists", Err("none".into()));
    let metrics = Metrics::new(Switch::away(), &options, health, |_| {});
    metrics.synced(Duration::from_millis(3));
    metrics.numbers.set_known(known());
    metrics.numbers.set_switch(
        answers.ok_or_else(|| crate::program::SwitchError::Away { socket: "/nowhere".into(), why: "gone".to_owned() }),
    );
    let mut page = String::new();
    text::encode(&mut page, &metrics.registry).unwrap();
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line:?}")))
    };
    let samples: Vec<(String, f64)> = lines.map(sample).collect();
    let number = samples.len();
    let page: BTreeMap<_, _> = samples.into_iter().collect();
    assert_eq!(page.len(), number, "no series is there twice");
    page
}

#[test]
fn the_switchs_numbers_come_out_by_name() {
    let page = page(Some(answers(2)), false);
    let want: &[(&str, f64)] = &[
        ("sluice_switch_up", 1.0),
        ("sluice_switch_uptime_seconds", 1.5),
        (r#"sluice_packets_total{verdict="forward"}"#, 58.0),
        (r#"sluice_bytes_total{direction="receive"}"#, 6_200.0),
        (r#"sluice_drops_total{reason="ct_full"}"#, 2.0),
        (r#"sluice_drops_total{reason="no_rule"}"#, 0.0),
        (r#"sluice_flows{table="service"}"#, 4.0),
        (r#"sluice_flows{table="99"}"#, 1.0),
        (r#"sluice_cache_lookups_total{cache="exact",result="hit"}"#, 40.0),
        (r#"sluice_worker_busy_seconds_total{worker="0"}"#, 1.5),
        (r#"sluice_conntrack_entries{zone_kind="main"}"#, 4.0),
        (r#"sluice_conntrack_entries{zone_kind="other"}"#, 1.0),
        (r#"sluice_conntrack_events_total{event="full"}"#, 3.0),
        (r#"sluice_conntrack_states{protocol="tcp",state="established"}"#, 3.0),
        (r#"sluice_port_receive_packets_total{port="eth1",type="uplink"}"#, 30.0),
        (r#"sluice_port_receive_packets_total{port="sluice0",type="gateway"}"#, 10.0),
        (r#"sluice_port_up{port="tun0",type="tunnel"}"#, 1.0),
        (r#"sluice_tunnel_up{peer_node="node-2",type="geneve",port="tun0"}"#, 1.0),
        (r#"sluice_tunnel_rtt_seconds{peer_node="node-2",type="geneve",port="tun0"}"#, 0.000_25),
        (r#"sluice_pods{state="ready"}"#, 2.0),
        (r#"sluice_ipam_addresses{range="10.244.0.0/24",state="used"}"#, 2.0),
        (r#"sluice_ipam_addresses{range="10.244.0.0/24",state="total"}"#, 253.0),
        ("sluice_services", 3.0),
        (r#"sluice_service_endpoints{scope="local"}"#, 2.0),
        ("sluice_rule_sync_pending", 1.0),
        ("sluice_rule_sync_delay_seconds_count", 1.0),
        (r#"sluice_ready{part="lists"}"#, 0.0),
        (r#"sluice_ready{part="switch"}"#, 1.0),
    ];
    for (name, value) in want {
        assert_eq!(page.get(*name), Some(value), "{name} in {page:#?}");
    }
}

#[test]
fn pods_and_addresses_of_strangers_have_no_series_unless_asked_for() {
    let plain = page(Some(answers(2)), false);
    assert!(plain.keys().all(|name| !name.contains("veth") && !name.contains("shop")), "{plain:#?}");
    assert!(plain.keys().all(|name| !name.contains("198.51.100.66")), "{plain:#?}");
    let pods = page(Some(answers(2)), true);
    let name = r#"sluice_port_receive_packets_total{port="veth1",type="pod",namespace="shop",pod="web"}"#;
    assert_eq!(pods.get(name), Some(&1.0));
}

#[test]
fn there_are_never_more_series_of_pods_than_the_limit() {
    let page = page(Some(answers(MAX_POD_PORTS + 5)), true);
    let ups = page.keys().filter(|name| name.starts_with("sluice_port_up") && name.contains("veth")).count();
    assert_eq!(ups, MAX_POD_PORTS);
    assert_eq!(page.get("sluice_metric_series_capped_total"), Some(&5.0));
}

#[test]
fn a_switch_that_is_away_is_said_and_has_no_numbers() {
    let page = page(None, false);
    assert_eq!(page.get("sluice_switch_up"), Some(&0.0));
    assert!(!page.keys().any(|name| name.starts_with("sluice_drops")), "{page:#?}");
    assert_eq!(page.get("sluice_services"), Some(&3.0));
}

/// The names of metrics that a text speaks of.
fn spoken_of(text: &str) -> std::collections::BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("sluice_") || word.starts_with("process_")).collect()
}

#[test]
fn every_metric_that_an_alert_or_a_dashboard_asks_for_is_exported() {
    let page = page(Some(answers(1)), true);
    let exported: std::collections::BTreeSet<&str> = page.keys().filter_map(|name| name.split('{').next()).collect();
    for file in ["alerts.yaml", "sluice.json"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/monitoring").join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        let asked = spoken_of(&text);
        assert!(asked.len() > 5, "{file} asks for next to nothing: {asked:?}");
        let missing: Vec<_> = asked.difference(&exported).collect();
        assert!(missing.is_empty(), "{file} asks for {missing:?}; there are {exported:?}");
    }
}

#[test]
fn the_page_of_metrics_names_every_metric_and_no_other() {
    let page = page(Some(answers(1)), true);
    let base = |name: &str| {
        let parts = ["_bucket", "_sum", "_count"];
        parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name).to_owned()
    };
    let names = page.keys().filter_map(|name| name.split('{').next());
    let exported: std::collections::BTreeSet<String> = names.map(base).collect();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kubernetes-metrics.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let told: std::collections::BTreeSet<String> = rows.map(str::to_owned).collect();
    let differ: Vec<_> = exported.symmetric_difference(&told).collect();
    assert!(differ.is_empty(), "these are only there, or only told: {differ:?}");
}
