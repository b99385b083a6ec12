//! `sluice tunnels`.

use super::ports::vlan_text;
use crate::client::{BridgeArg, Client, Target};
use crate::failure::Failure;
use crate::kube;
use crate::lab::State;
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use crate::watch::Watch;
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;
use sluice_proto::v1::{
    GetTlvMapRequest, ListTunnelsRequest, Port, PortVlan, SetTlvMapRequest, Tunnel, TunnelPeer, port_vlan,
};

/// How long each other end has to answer, in milliseconds.
const PROBE_MS: u32 = 1000;

/// Arguments of `sluice tunnels`.
#[derive(Debug, Args)]
#[command(
    after_help = "\
Each other end is sent one ICMP echo request, which measures the round trip (RTT; `-` if there was
no answer in a second). MTU is the longest packet that the way there carries, outer headers and all.
STATE says whether the host has a route there and, for an encrypted tunnel, a session. Tunnels are
ports: add and delete them with `sluice ports`. In a lab they have the names of its file, and one
row for both ends; `-o wide` has a row for each.

Examples:
  sluice tunnels                                        every tunnel
  sluice tunnels --node node-1                          of one node of a cluster, not of all
  sluice tunnels --no-probe -o json                     for a program, at once
  sluice ports add vx0 --type vxlan --option remote_ip=192.0.2.2 --option key=100
  sluice ports add vx1 --type vxlan --option remote_ip=flow --option key=flow

Exit code 5 if a tunnel is down.",
    args_conflicts_with_subcommands = true
)]
pub(crate) struct Tunnels {
    /// Do not ask the other ends for an answer
    #[arg(long)]
    no_probe: bool,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    bridge: BridgeArg,
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show or say which Geneve option each tun_metadata field is
    #[command(after_help = "\
Flows match and set Geneve options as tun_metadata0 to tun_metadata7. Each is one option of four
bytes, named by its class and type.

Examples:
  sluice tunnels tlv-map
  sluice tunnels tlv-map '{class=0x102,type=0x80,len=4}->tun_metadata0'
  sluice tunnels tlv-map ''                             none")]
    TlvMap {
        /// The whole map in OVS's syntax, with commas between; shows the one there is if not given
        map: Option<String>,
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Serialize)]
struct Answer {
    tunnels: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    /// Its node, where every node of a cluster was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    name: String,
    bridge: String,
    number: u32,
    r#type: String,
    key: Option<String>,
    vlan: String,
    admin_up: bool,
    link_up: bool,
    rx_packets: u64,
    rx_bytes: u64,
    tx_packets: u64,
    tx_bytes: u64,
    drops: u64,
    peers: Vec<Peer>,
}

#[derive(Serialize)]
struct Peer {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    local: Option<String>,
    remote: Option<String>,
    path_mtu_bytes: Option<u32>,
    rtt_us: Option<u64>,
    up: bool,
}

impl From<TunnelPeer> for Peer {
    fn from(peer: TunnelPeer) -> Self {
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            name: text(peer.name),
            local: text(peer.local),
            remote: text(peer.remote),
            path_mtu_bytes: Some(peer.path_mtu_bytes).filter(|mtu| *mtu > 0),
            rtt_us: peer.rtt_us,
            up: peer.up,
        }
    }
}

impl From<Tunnel> for Row {
    fn from(tunnel: Tunnel) -> Self {
        let Port { spec, counters, link_up, .. } = tunnel.port.unwrap_or_default();
        let (spec, counters) = (spec.unwrap_or_default(), counters.unwrap_or_default());
        let option = |name: &str| spec.options.get(name).cloned();
        Self {
            node: None,
            key: option("key").or_else(|| option("out_key")),
            vlan: carried(spec.vlan.as_ref()),
            name: spec.name,
            bridge: spec.bridge,
            number: spec.number,
            r#type: spec.r#type,
            admin_up: !spec.admin_down,
            link_up,
            rx_packets: counters.rx_packets,
            rx_bytes: counters.rx_bytes,
            tx_packets: counters.tx_packets,
            tx_bytes: counters.tx_bytes,
            drops: counters.rx_dropped + counters.tx_dropped + counters.tx_errors + counters.rx_errors,
            peers: tunnel.peers.into_iter().map(Peer::from).collect(),
        }
    }
}

impl Row {
    fn is_up(&self) -> bool {
        self.admin_up && self.link_up && self.peers.iter().all(|peer| peer.up)
    }
}

/// The VLAN of an access port, else what the port carries in the words of `sluice ports`.
fn carried(vlan: Option<&PortVlan>) -> String {
    match vlan {
        Some(vlan) if vlan.mode() == port_vlan::Mode::Access => vlan.tag.to_string(),
        _ => vlan_text(vlan),
    }
}

/// The tunnels by the names that the lab's file gives them. Of one with both ends in the lab, the first end is shown; what
/// is lost at either counts, and it is up if both are.
fn joined(mut rows: Vec<Row>, lab: &State) -> Vec<Row> {
    let mut all = Vec::new();
    for tunnel in &lab.topology.tunnels {
        let names: Vec<_> = tunnel.ends.iter().map(|end| tunnel.port_name(end)).collect();
        let mut ends = names.iter().filter_map(|name| {
            let at = rows.iter().position(|row| row.name == *name)?;
            Some(rows.remove(at))
        });
        let Some(first) = ends.next() else { continue };
        let mut row = ends.fold(first, |row, other| Row {
            drops: row.drops + other.drops,
            link_up: row.link_up && other.is_up(),
            ..row
        });
        row.name.clone_from(&tunnel.name);
        row.vlan = tunnel.carried.names();
        all.push(row);
    }
    // Those that were added since.
    all.append(&mut rows);
    all
}

/// Runs the verb.
pub(crate) fn run(args: &Tunnels, out: &mut Output) -> Result<Exit, Failure> {
    if let Some(Verb::TlvMap { map, target }) = &args.verb {
        return tlv_map(map.clone(), target, out);
    }
    let format = out.format(&[Format::Table, Format::Wide, Format::Json])?;
    let probe_timeout_ms = if args.no_probe { 0 } else { PROBE_MS };
    // Without one, or where another switch is meant, the ports are shown as they are.
    let lab = args.target.lab().ok().filter(|_| format == Format::Table);
    args.watch.run(out, |out| {
        let mut answers = kube::ask(&args.target, kube::Unless::All, |client: &Client| {
            let request = ListTunnelsRequest { bridge: args.bridge.bridge.clone(), probe_timeout_ms };
            let reply = client.call(client.tunnels().list_tunnels(request))?;
            let tunnels: Vec<Row> = reply.tunnels.into_iter().map(Row::from).collect();
            Ok(match lab.as_ref().filter(|lab| client.is_of(&lab.socket)) {
                Some(lab) => joined(tunnels, lab),
                None => tunnels,
            })
        })?;
        let named = |(node, rows): &mut (Option<String>, Vec<Row>)| {
            let rows = std::mem::take(rows).into_iter();
            rows.map(|row| Row { node: node.clone(), ..row }).collect::<Vec<_>>()
        };
        let tunnels: Vec<Row> = answers.all.iter_mut().flat_map(named).collect();
        let up = tunnels.iter().all(Row::is_up);
        if format == Format::Json {
            out.json(&Answer { tunnels })?;
        } else {
            out.table(&table(&tunnels, format == Format::Wide))?;
        }
        answers.end(if up { Exit::Yes } else { Exit::Unhealthy }, out)
    })
}

fn tlv_map(map: Option<String>, target: &Target, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let client = Client::connect(target)?;
    if let Some(map) = map {
        client.call(client.tunnels().set_tlv_map(SetTlvMapRequest { map }))?;
    }
    let map = client.call(client.tunnels().get_tlv_map(GetTlvMapRequest {}))?.map;
    if format == Format::Json {
        out.json(&json!({"tlv_map": map}))?;
    } else {
        out.line(if map.is_empty() { "no option is mapped" } else { map.as_str() })?;
    }
    Ok(Exit::Yes)
}

fn table(tunnels: &[Row], wide: bool) -> Table {
    let by_node = tunnels.iter().any(|tunnel| tunnel.node.is_some());
    let mut header: Vec<Cell> = if by_node { vec!["NODE".into()] } else { Vec::new() };
    header.extend(["NAME", "TYPE", "LOCAL", "REMOTE"].map(Cell::from));
    header.push(Cell::right("VNI"));
    header.push("VLANS".into());
    header.extend(["MTU", "RTT", "TX", "RX", "DROPS"].map(Cell::right));
    header.push("STATE".into());
    if wide {
        header.extend(["BRIDGE", "PEER"].map(Cell::from));
        header.extend(["TX-PACKETS", "RX-PACKETS"].map(Cell::right));
    }
    let mut table = Table::new(header);
    for tunnel in tunnels {
        // A port that leads to nobody yet has a row too.
        let peers = tunnel.peers.iter().map(Some).chain(tunnel.peers.is_empty().then_some(None));
        for (index, peer) in peers.enumerate() {
            let mut cells = row(tunnel, peer, index == 0, wide);
            if by_node {
                cells.insert(0, tunnel.node.as_deref().unwrap_or("-").into());
            }
            table.row(cells);
        }
    }
    table
}

fn row(tunnel: &Row, peer: Option<&Peer>, first: bool, wide: bool) -> Vec<Cell> {
    let dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    // Counters are the port's: they stand once.
    let once = |text: String| if first { text } else { String::new() };
    let state = match (tunnel.admin_up, tunnel.link_up && peer.is_none_or(|peer| peer.up)) {
        (false, _) => Cell::from("down (set)").tone(Tone::Warn),
        (true, false) => Cell::from("down").tone(Tone::Bad),
        (true, true) => Cell::from("up").tone(Tone::Good),
    };
    let mut cells: Vec<Cell> = vec![tunnel.name.as_str().into(), tunnel.r#type.as_str().into()];
    cells.push(dash(peer.and_then(|peer| peer.local.clone())).into());
    cells.push(dash(peer.and_then(|peer| peer.remote.clone())).into());
    cells.push(Cell::right(dash(tunnel.key.clone())));
    cells.push(tunnel.vlan.as_str().into());
    cells.push(Cell::right(dash(peer.and_then(|peer| peer.path_mtu_bytes).map(|mtu| mtu.to_string()))));
    cells.push(Cell::right(dash(peer.and_then(|peer| peer.rtt_us).map(milliseconds))));
    cells.push(Cell::right(once(size(tunnel.tx_bytes))));
    cells.push(Cell::right(once(size(tunnel.rx_bytes))));
    cells.push(Cell::right(once(tunnel.drops.to_string())));
    cells.push(state);
    if wide {
        cells.push(tunnel.bridge.as_str().into());
        cells.push(dash(peer.and_then(|peer| peer.name.clone())).into());
        cells.push(Cell::right(once(tunnel.tx_packets.to_string())));
        cells.push(Cell::right(once(tunnel.rx_packets.to_string())));
    }
    cells
}

/// `0.2ms`, `10.1ms`.
fn milliseconds(us: u64) -> String {
    format!("{:.1}ms", us as f64 / 1000.0)
}

/// Bytes with a binary unit: `640 B`, `84 KiB`, `1.5 GiB`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    while value >= 1023.5 {
        let Some(next) = units.next() else { break };
        (value, unit) = (value / 1024.0, Some(next));
    }
    let unit = unit.copied().unwrap_or_default();
    if value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_unit_that_reads_best() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (86_016, "84 KiB"),
            (1_048_575, "1.0 MiB"),
            (1_610_612_736, "1.5 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
