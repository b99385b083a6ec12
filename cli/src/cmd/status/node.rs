//! What a node of a cluster needs beside the switch itself: the controller, the network that it declares, the Pods' interfaces, its
//! flows, the other nodes, and what tells the container runtime of it.
//!
//! Each part that is not well says what to do about it.

use super::Part;
use crate::client::Client;
use crate::failure::Failure;
use crate::kube;
use sluice_proto::v1::{
    GetStatsReply, GetStatsRequest, GetStatusReply, ListNetworksRequest, ListTablesRequest, ListTunnelsRequest, Network,
};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The configuration of a node's controller, which only nodes have.
const CONTROLLER_CONFIG: &str = "/etc/sluice/node.toml";
/// Where container runtimes look for networks, and what the controller writes there.
const CNI_FOLDER: &str = "/etc/cni/net.d";
const CNI_FILE: &str = "10-sluice.conflist";
/// How long the controller, and each other node, may take to answer.
const CONTROLLER_WITHIN: Duration = Duration::from_secs(2);
const PROBE_MS: u32 = 1_000;
/// Most that is read of the controller's answer.
const ANSWER_LEN: u64 = 64 << 10;
/// How long drops are counted for their rate, at least.
const RATE_OVER: Duration = Duration::from_millis(300);
/// How long a Pod's interface may wait to be confirmed.
const CONFIRMED_WITHIN_S: i64 = 5;
/// The tables of the controller's flows.
const TABLES: std::ops::RangeInclusive<u32> = 10..=50;
/// How full the table of connections may be.
const FULL_PERCENT: u64 = 85;
/// What stands for the name of the node's Pod in what to do next: it is known where a cluster is asked.
pub(super) const POD: &str = "POD";
/// Drops that no rule wants.
const ALARMING: &[&str] = &["ct_full", "overload", "queue_full"];

/// Whether the switch is a node's: a controller has declared a network, or is there to do so.
pub(super) fn is_one(client: &Client, is_default: bool) -> Result<bool, Failure> {
    Ok(!networks(client)?.is_empty() || is_default && Path::new(CONTROLLER_CONFIG).exists())
}

/// The parts of a node.
pub(super) fn parts(client: &Client, controller: SocketAddr, status: &GetStatusReply) -> Result<Vec<Part>, Failure> {
    let (before, since) = (stats(client)?, Instant::now());
    let mut parts = asked(controller);
    let networks = networks(client)?;
    parts.push(network(&networks));
    if let Some(spec) = networks.first().and_then(|n| n.spec.as_ref()) {
        parts.push(pods(client)?);
        parts.push(flows(client, &spec.bridge)?);
        parts.push(tunnels(client, &spec.bridge)?);
    }
    parts.push(connections(status));
    std::thread::sleep(RATE_OVER.saturating_sub(since.elapsed()));
    parts.push(drops(&before, &stats(client)?, since.elapsed()));
    parts.extend(cni(Path::new(CNI_FOLDER)));
    Ok(parts)
}

fn networks(client: &Client) -> Result<Vec<Network>, Failure> {
    let all = client.call(client.attachments().list_networks(ListNetworksRequest {}))?.networks;
    Ok(all.into_iter().filter(|n| n.spec.as_ref().is_some_and(|spec| spec.kind == "kubernetes")).collect())
}

fn stats(client: &Client) -> Result<GetStatsReply, Failure> {
    client.call(client.stats().get_stats(GetStatsRequest {}))
}

/// What the controller says of its parts.
fn asked(address: SocketAddr) -> Vec<Part> {
    match readyz(address) {
        Ok(text) => answered(&text),
        Err(error) => vec![Part::bad(
            "controller",
            format!("the node's controller does not answer on {address}: {}", said_of(&error)),
            "packets go on, changes wait: kubectl -n sluice-system logs POD -c node, with --previous too",
        )],
    }
}

/// What the system says; where it only says that there is nothing to read, how long that was waited for.
fn said_of(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("silent for {} s", CONTROLLER_WITHIN.as_secs()),
        _ => error.to_string(),
    }
}

fn readyz(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, CONTROLLER_WITHIN)?;
    stream.set_read_timeout(Some(CONTROLLER_WITHIN))?;
    stream.set_write_timeout(Some(CONTROLLER_WITHIN))?;
    write!(stream, "GET /readyz?verbose HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut text = String::new();
    stream.take(ANSWER_LEN).read_to_string(&mut text)?;
    Ok(text)
}

/// Lines of the form that Kubernetes' own probes have: `[+]NAME ok`, `[-]NAME failed: WHY`.
fn answered(text: &str) -> Vec<Part> {
    let name = |name: &str| format!("controller: {name}");
    let mut parts: Vec<_> = text
        .lines()
        .filter_map(|line| {
            if let Some(rest) = line.strip_prefix("[-]") {
                let (part, why) = rest.split_once(" failed").unwrap_or((rest, ""));
                let why = why.trim_start_matches(':').trim();
                let next = match part {
                    "api-server" => "is it up, and are the URLs right? api_servers in the ConfigMap of sluice-system",
                    _ => "kubectl -n sluice-system logs POD -c node",
                };
                return Some(Part::bad(&name(part), why.to_owned(), next));
            }
            let part = line.strip_prefix("[+]")?.split(' ').next()?;
            Some(Part::well(&name(part), String::new()))
        })
        .collect();
    if parts.is_empty() {
        let line = text.lines().next().unwrap_or("nothing").to_owned();
        parts.push(Part::bad(
            "controller",
            format!("what answers there is no node controller: {line}"),
            "another program has its port: ss -ltnp",
        ));
    }
    parts
}

fn network(networks: &[Network]) -> Part {
    match networks.first() {
        Some(network) => {
            let spec = network.spec.clone().unwrap_or_default();
            let gateway = if spec.gateway.is_empty() { "no gateway".to_owned() } else { spec.gateway.join(", ") };
            let (bridge, mtu) = (spec.bridge, network.mtu_bytes);
            Part::well("network", format!("{} on {bridge}: {gateway}, MTU {mtu}", spec.name))
        }
        None => Part::bad(
            "network",
            "the controller has not declared it: Pods cannot be attached".to_owned(),
            "has the node a podCIDR? kubectl get nodes -o custom-columns=N:.metadata.name,C:.spec.podCIDRs",
        ),
    }
}

fn pods(client: &Client) -> Result<Part, Failure> {
    let now =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX));
    let all = kube::attachments(client)?;
    let late = |created: i64| now.saturating_sub(created) > CONFIRMED_WITHIN_S;
    let waiting = all.iter().filter(|a| a.unconfirmed).count();
    let stuck: Vec<_> = all.iter().filter(|a| a.unconfirmed && late(a.created_unix_s)).collect();
    let faulty: Vec<_> = all.iter().filter(|a| !a.fault.is_empty()).collect();
    let detail =
        format!("{} in force, {waiting} unconfirmed", all.len() - waiting - faulty.len().min(all.len() - waiting));
    let name = |a: &&sluice_proto::v1::Attachment| kube::pod_of(a).unwrap_or_else(|| a.owner.clone());
    Ok(if let Some(first) = faulty.first() {
        let what = format!("{detail}, {} with a fault: {}: {}", faulty.len(), name(first), first.fault);
        Part::bad("pods", what, "sluice cni list; sluice cni check")
    } else if let Some(first) = stuck.first() {
        let what = format!("{detail}: {} sends nothing until the controller has made its flows", name(first));
        Part::bad("pods", what, "see the controller's lines; kubectl -n sluice-system logs POD -c node")
    } else {
        Part::well("pods", detail)
    })
}

fn flows(client: &Client, bridge: &str) -> Result<Part, Failure> {
    let request = ListTablesRequest { bridge: bridge.to_owned(), all: false };
    let tables = client.call(client.tables().list_tables(request))?.tables;
    let ours = tables.iter().filter(|t| TABLES.contains(&t.table));
    let (count, flows) = ours.fold((0, 0), |(count, flows), t| (count + usize::from(t.flows > 0), flows + t.flows));
    Ok(if flows == 0 {
        let what = "the controller has made none: nothing is forwarded".to_owned();
        Part::bad("flows", what, "see the controller's lines; kubectl -n sluice-system logs POD -c node")
    } else {
        Part::well("flows", format!("{flows} in {count} tables"))
    })
}

fn tunnels(client: &Client, bridge: &str) -> Result<Part, Failure> {
    let request = ListTunnelsRequest { bridge: bridge.to_owned(), probe_timeout_ms: PROBE_MS };
    let tunnels = client.call(client.tunnels().list_tunnels(request))?.tunnels;
    let Some(first) = tunnels.first() else {
        return Ok(Part::well("tunnels", "none: nothing is encapsulated".to_owned()));
    };
    let port = first.port.clone().unwrap_or_default();
    let spec = port.spec.unwrap_or_default();
    if spec.admin_down || !port.link_up || port.gone {
        let what = format!("{} is down: nothing comes from or goes to the Pods of other nodes", spec.name);
        return Ok(Part::bad("tunnels", what, &format!("sluice ports set {} --up", spec.name)));
    }
    let peers: Vec<_> = tunnels.into_iter().flat_map(|tunnel| tunnel.peers).filter(|p| !p.remote.is_empty()).collect();
    if peers.is_empty() {
        return Ok(Part::well("tunnels", format!("{} is up; no other node was heard of lately", spec.r#type)));
    }
    let answered = peers.iter().filter(|p| p.up && p.rtt_us.is_some()).count();
    let detail = format!("{}: {answered}/{} nodes heard of lately answer", spec.r#type, peers.len());
    Ok(match peers.iter().find(|p| !p.up || p.rtt_us.is_none()) {
        Some(peer) => {
            let why = if peer.up { "no answer to an ICMP echo" } else { "no route" };
            Part::bad("tunnels", format!("{detail}; {}: {why}", peer.remote), "sluice tunnels; is the node up?")
        }
        None => Part::well("tunnels", detail),
    })
}

fn connections(status: &GetStatusReply) -> Part {
    let (now, most) = (status.connections, status.max_connections.max(1));
    let percent = now.saturating_mul(100) / most;
    let detail = format!("{percent} % ({now} of {most})");
    if percent > FULL_PERCENT {
        Part::bad("conntrack", detail, "sluice ct stats; sluice ct set --max raises it")
    } else {
        Part::well("conntrack", detail)
    }
}

fn drops(before: &GetStatsReply, after: &GetStatsReply, over: Duration) -> Part {
    let earlier: BTreeMap<_, _> = before.drops.iter().map(|d| (d.reason.as_str(), d.packets)).collect();
    let more = |d: &sluice_proto::v1::ReasonCount| {
        d.packets - earlier.get(d.reason.as_str()).copied().unwrap_or(0).min(d.packets)
    };
    let rate = |packets: u64| packets as f64 / over.as_secs_f64().max(0.001);
    let total: u64 = after.drops.iter().map(more).sum();
    let detail = format!("{:.0} a second", rate(total));
    match after.drops.iter().find(|d| ALARMING.contains(&d.reason.as_str()) && more(d) > 0) {
        Some(d) => {
            let what = format!("{detail}, {:.0} of them {}", rate(more(d)), d.reason);
            Part::bad("drops", what, "sluice drops; docs/drop-reasons.md")
        }
        None => Part::well("drops", detail),
    }
}

/// What the container runtime reads; nothing where that folder cannot be seen, as in a container.
fn cni(folder: &Path) -> Option<Part> {
    let entries = std::fs::read_dir(folder).ok()?;
    let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
    let kinds = [".conflist", ".conf", ".json"];
    let first = names.filter(|name| kinds.iter().any(|kind| name.ends_with(kind))).min();
    let file = folder.join(CNI_FILE);
    Some(match first {
        Some(first) if first == CNI_FILE => Part::well("cni", file.display().to_string()),
        Some(first) if file.exists() => Part::bad(
            "cni",
            format!("{} comes before {CNI_FILE}: new Pods get another network", folder.join(first).display()),
            "uninstall the other CNI plugin, or move its file away",
        ),
        _ => Part::bad(
            "cni",
            format!("{} is not there: the node is NotReady", file.display()),
            "the controller writes it when its flows are in: see its lines",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_proto::v1::ReasonCount;

    #[test]
    fn the_controllers_parts_are_read_from_its_probe() {
        let text = "HTTP/1.0 503 x\r\n\r\n[+]switch ok\n[-]api failed: connection refused\nreadyz check failed\n";
        let parts = answered(text);
        let shown: Vec<_> = parts.iter().map(|p| (p.name.as_str(), p.ok, p.detail.as_str())).collect();
        assert_eq!(shown, [("controller: switch", true, ""), ("controller: api", false, "connection refused")]);
    }

    #[test]
    fn another_program_on_its_port_is_not_taken_for_well() {
        let parts = answered("HTTP/1.1 404 Not Found\r\n\r\n");
        assert!(!parts[0].ok && parts[0].detail.contains("404"), "{:?}", parts[0]);
    }

    #[test]
    fn a_file_of_another_plugin_in_front_of_ours_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let state = || cni(folder.path()).unwrap();
        assert!(!state().ok);
        std::fs::write(folder.path().join(CNI_FILE), "{}").unwrap();
        assert!(state().ok);
        std::fs::write(folder.path().join("05-other.conflist"), "{}").unwrap();
        assert!(!state().ok && state().detail.contains("05-other.conflist"));
        assert!(cni(&folder.path().join("none")).is_none());
    }

    #[test]
    fn only_drops_that_no_rule_wants_are_bad() {
        let stats = |reason: &str, packets| GetStatsReply {
            drops: vec![ReasonCount { reason: reason.to_owned(), packets }],
            ..GetStatsReply::default()
        };
        let second = Duration::from_secs(1);
        assert!(drops(&stats("rule_drop", 5), &stats("rule_drop", 500), second).ok);
        assert!(drops(&stats("ct_full", 5), &stats("ct_full", 5), second).ok);
        let full = drops(&stats("ct_full", 5), &stats("ct_full", 15), second);
        assert!(!full.ok && full.detail.contains("10 of them ct_full"), "{full:?}");
    }
}
