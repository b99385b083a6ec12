//! `sluice ports`.

use crate::client::{BridgeArg, Client, Target};
use crate::failure::Failure;
use crate::kube;
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;
use sluice_proto::v1::{
    AddPortRequest, Attachment, DeletePortRequest, ListPortsRequest, Port, PortSpec, PortVlan, SetPortRequest,
    port_vlan,
};
use std::collections::BTreeMap;

/// Arguments of `sluice ports`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  sluice ports                                      every port with its counters
  sluice ports add tap1                             a new TAP interface
  sluice ports add eth1 --type af-packet            an interface that is there
  sluice ports add eth1 --type af-xdp --option mode=native
  sluice ports add p1 --type patch --option peer=p2
  sluice ports set tap1 --access 10                 carry VLAN 10, untagged
  sluice ports del tap1
  sluice ports --pod shop/web-7f9                   the port of a Pod of a cluster, on its node"
)]
pub(crate) struct Ports {
    /// Only the port of this Pod, on its node
    #[arg(long, value_name = "NS/POD")]
    pod: Option<String>,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    bridge: BridgeArg,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Add a port
    Add(Add),
    /// Change a port's VLANs, isolation or state
    Set(Set),
    /// Remove a port
    #[command(after_help = "Example:
  sluice ports del tap1")]
    Del {
        /// Its name
        name: String,
        #[command(flatten)]
        bridge: BridgeArg,
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice ports add tap1 --number 1 --access 10
  sluice ports add eth1 --type af-packet --trunk 10,20 --native 1")]
struct Add {
    /// Its name, which is also its interface's
    name: String,
    /// tap, tap-plain, af-packet, af-xdp, memory, pcap, null, patch, wire, or a tunnel: vxlan, geneve,
    /// gre, ipip, sit, bareudp
    #[arg(long, value_name = "TYPE", default_value = "tap")]
    r#type: String,
    /// OpenFlow number; if not given, the lowest that no port had in the last hour
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65279))]
    number: Option<u32>,
    /// An option of its type; may be given again
    #[arg(long = "option", value_name = "NAME=VALUE", value_parser = option)]
    options: Vec<(String, String)>,
    /// Start administratively down
    #[arg(long)]
    down: bool,
    /// Leave it out of flooding
    #[arg(long)]
    no_flood: bool,
    /// Protected: nothing that came by another protected port leaves by it
    #[arg(long)]
    protected: bool,
    #[command(flatten)]
    vlan: Vlan,
    #[command(flatten)]
    bridge: BridgeArg,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice ports set tap1 --access 10
  sluice ports set tap1 --trunk all
  sluice ports set w1 --option delay=20ms --option loss=1%
  sluice ports set tap1 --option tx_rate=100M       at most 100 Mbit/s towards tap1
  sluice ports set tap1 --option rx_rate=0          no limit of what comes from it
  sluice ports set tap1 --protected yes             not to other protected ports
  sluice ports set tap1 --down")]
struct Set {
    /// Its name
    name: String,
    /// Administratively up
    #[arg(long, conflicts_with = "down")]
    up: bool,
    /// Administratively down
    #[arg(long)]
    down: bool,
    /// Whether it takes part in flooding
    #[arg(long, value_name = "yes|no", value_parser = yes_no)]
    flood: Option<bool>,
    /// Whether it is protected: nothing that came by a protected port leaves by it
    #[arg(long, value_name = "yes|no", value_parser = yes_no)]
    protected: Option<bool>,
    /// An option of its type that can be changed while it runs; may be given again
    #[arg(long = "option", value_name = "NAME=VALUE", value_parser = option)]
    options: Vec<(String, String)>,
    #[command(flatten)]
    vlan: Vlan,
    #[command(flatten)]
    bridge: BridgeArg,
    #[command(flatten)]
    target: Target,
}

/// Which VLANs a port carries under NORMAL.
#[derive(Debug, Args)]
#[command(next_help_heading = "VLANs under NORMAL")]
struct Vlan {
    /// Carry this VLAN alone, untagged
    #[arg(long, value_name = "VLAN", conflicts_with_all = ["trunk", "native"])]
    access: Option<u32>,
    /// Carry these VLANs, tagged; `all` for every VLAN
    #[arg(long, value_name = "VLAN,..|all")]
    trunk: Option<String>,
    /// As a trunk, and untagged frames belong to this VLAN
    #[arg(long, value_name = "VLAN")]
    native: Option<u32>,
    /// Frames of the native VLAN leave with a tag
    #[arg(long, requires = "native")]
    native_tagged: bool,
}

impl Vlan {
    /// What was asked for, if anything was.
    fn wanted(&self) -> Result<Option<PortVlan>, Failure> {
        use port_vlan::Mode;
        let trunks = match self.trunk.as_deref() {
            None | Some("all") => Vec::new(),
            Some(list) => list
                .split(',')
                .map(|v| v.trim().parse::<u32>().ok().filter(|v| *v <= 4095))
                .collect::<Option<_>>()
                .ok_or_else(|| Failure::usage(format!("`{list}` is no list of VLAN IDs (0 to 4095, with commas)")))?,
        };
        let (mode, tag) = match (self.access, self.native) {
            (Some(tag), _) => (Mode::Access, tag),
            (None, Some(tag)) if self.native_tagged => (Mode::NativeTagged, tag),
            (None, Some(tag)) => (Mode::NativeUntagged, tag),
            (None, None) if self.trunk.is_some() => (Mode::Trunk, 0),
            (None, None) => return Ok(None),
        };
        Ok(Some(PortVlan { mode: mode.into(), tag, trunks }))
    }
}

fn option(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

pub(crate) fn yes_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("expected yes or no".to_owned()),
    }
}

/// Runs the verb.
pub(crate) fn run(args: Ports, out: &mut Output) -> Result<Exit, Failure> {
    match args.verb {
        None => list(&args.target, args.pod.as_deref(), args.bridge.bridge, out),
        Some(Verb::Add(args)) => add(args, out),
        Some(Verb::Set(args)) => set(&args, out),
        Some(Verb::Del { name, bridge, target }) => {
            out.format(&[Format::Table, Format::Json])?;
            let client = Client::connect(&target)?;
            let deleted = json!({"deleted": name});
            client.call(client.ports().delete_port(DeletePortRequest { bridge: bridge.bridge, name }))?;
            out.done(&deleted)
        }
    }
}

fn add(args: Add, out: &mut Output) -> Result<Exit, Failure> {
    let spec = PortSpec {
        bridge: args.bridge.bridge,
        name: args.name,
        r#type: args.r#type,
        options: args.options.into_iter().collect(),
        number: args.number.unwrap_or(0),
        vlan: args.vlan.wanted()?,
        no_flood: args.no_flood,
        protected: args.protected,
        admin_down: args.down,
    };
    let client = Client::connect(&args.target)?;
    let reply = client.call(client.ports().add_port(AddPortRequest { spec: Some(spec) }))?;
    show(reply.port.into_iter().collect(), &Pods::new(), out)
}

fn set(args: &Set, out: &mut Output) -> Result<Exit, Failure> {
    let admin_down = if args.up { Some(false) } else { args.down.then_some(true) };
    let request = SetPortRequest {
        bridge: args.bridge.bridge.clone(),
        name: args.name.clone(),
        vlan: args.vlan.wanted()?,
        no_flood: args.flood.map(|f| !f),
        protected: args.protected,
        admin_down,
        options: args.options.iter().cloned().collect(),
    };
    if request.vlan.is_none()
        && (request.no_flood, request.protected, request.admin_down) == (None, None, None)
        && request.options.is_empty()
    {
        return Err(Failure::usage("nothing to change was said").next("sluice ports set --help"));
    }
    out.format(&[Format::Table, Format::Json])?;
    let client = Client::connect(&args.target)?;
    client.call(client.ports().set_port(request))?;
    out.done(&json!({"changed": args.name}))
}

fn list(target: &Target, pod: Option<&str>, bridge: String, out: &mut Output) -> Result<Exit, Failure> {
    out.format(&[Format::Table, Format::Wide, Format::Json])?;
    let client = Client::connect_for(target, pod)?;
    let parts = client.collect(client.ports().list_ports(ListPortsRequest { bridge }))?;
    let mut ports: Vec<_> = parts.into_iter().flat_map(|p| p.ports).collect();
    if let Some(pod) = pod {
        let attachment = kube::find_pod(&client, pod)?;
        let name = attachment.spec.unwrap_or_default().port;
        ports.retain(|port| port.spec.as_ref().is_some_and(|s| s.name == name && s.bridge == attachment.bridge));
    }
    let pods = kube::attachments(&client)?;
    let name = |a: &Attachment| Some(((a.bridge.clone(), a.spec.as_ref()?.port.clone()), kube::pod_of(a)?));
    show(ports, &pods.iter().filter_map(name).collect(), out)
}

#[derive(Serialize)]
struct Answer {
    ports: Vec<PortRow>,
}

/// The Pods behind ports, by bridge and port.
type Pods = BTreeMap<(String, String), String>;

#[derive(Serialize)]
struct PortRow {
    bridge: String,
    number: u32,
    name: String,
    /// The Pod behind it, where there is one: `NAMESPACE/NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<String>,
    r#type: String,
    options: BTreeMap<String, String>,
    vlan: String,
    mac: String,
    mtu_bytes: u32,
    admin_up: bool,
    link_up: bool,
    flood: bool,
    protected: bool,
    gone: bool,
    datapath_port: u32,
    rx_packets: u64,
    rx_bytes: u64,
    rx_dropped: u64,
    rx_errors: u64,
    tx_packets: u64,
    tx_bytes: u64,
    tx_dropped: u64,
    tx_errors: u64,
}

impl From<Port> for PortRow {
    fn from(port: Port) -> Self {
        let spec = port.spec.unwrap_or_default();
        let counters = port.counters.unwrap_or_default();
        Self {
            vlan: vlan_text(spec.vlan.as_ref()),
            bridge: spec.bridge,
            number: spec.number,
            name: spec.name,
            pod: None,
            r#type: spec.r#type,
            options: spec.options.into_iter().collect(),
            mac: port.mac,
            mtu_bytes: port.mtu_bytes,
            admin_up: !spec.admin_down,
            link_up: port.link_up,
            flood: !spec.no_flood,
            protected: spec.protected,
            gone: port.gone,
            datapath_port: port.datapath_port,
            rx_packets: counters.rx_packets,
            rx_bytes: counters.rx_bytes,
            rx_dropped: counters.rx_dropped,
            rx_errors: counters.rx_errors,
            tx_packets: counters.tx_packets,
            tx_bytes: counters.tx_bytes,
            tx_dropped: counters.tx_dropped,
            tx_errors: counters.tx_errors,
        }
    }
}

/// How a port is, in a word.
pub(crate) const fn state(admin_up: bool, link_up: bool, gone: bool) -> (&'static str, Tone) {
    match (admin_up, link_up) {
        _ if gone => ("gone", Tone::Bad),
        (false, _) => ("down (set)", Tone::Warn),
        (true, false) => ("down", Tone::Bad),
        (true, true) => ("up", Tone::Good),
    }
}

/// `access 10`, `trunk all`, `trunk 10,20 native 5`.
pub(crate) fn vlan_text(vlan: Option<&PortVlan>) -> String {
    use port_vlan::Mode;
    let Some(vlan) = vlan else { return "trunk all".to_owned() };
    let list: Vec<_> = vlan.trunks.iter().map(ToString::to_string).collect();
    let trunk = if list.is_empty() { "trunk all".to_owned() } else { format!("trunk {}", list.join(",")) };
    match vlan.mode() {
        Mode::Access => format!("access {}", vlan.tag),
        Mode::NativeTagged => format!("{trunk} native {} tagged", vlan.tag),
        Mode::NativeUntagged => format!("{trunk} native {}", vlan.tag),
        Mode::Trunk | Mode::Unspecified => trunk,
    }
}

/// `rx 10M, tx 1G`; empty without limits.
fn limits_text(options: &BTreeMap<String, String>) -> String {
    let ways = ["rx", "tx"].into_iter();
    let limits = ways.filter_map(|way| options.get(&format!("{way}_rate")).map(|rate| format!("{way} {rate}")));
    limits.collect::<Vec<_>>().join(", ")
}

fn show(ports: Vec<Port>, pods: &Pods, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Wide, Format::Json])?;
    let mut rows: Vec<PortRow> = ports.into_iter().map(PortRow::from).collect();
    for row in &mut rows {
        row.pod = pods.get(&(row.bridge.clone(), row.name.clone())).cloned();
    }
    if format == Format::Json {
        out.json(&Answer { ports: rows })?;
        return Ok(Exit::Yes);
    }
    let wide = format == Format::Wide;
    let limited = rows.iter().any(|row| !limits_text(&row.options).is_empty());
    let mut header: Vec<Cell> = vec!["BRIDGE".into(), Cell::right("NO"), "NAME".into(), "TYPE".into(), "STATE".into()];
    header.extend(["VLAN", "MAC"].map(Cell::from));
    header.push(Cell::right("MTU"));
    header.extend(["RX", "TX", "DROPS"].map(Cell::right));
    if wide {
        header.extend(["RX-BYTES", "TX-BYTES", "RX-ERR", "TX-ERR"].map(Cell::right));
        header.push("PROTECTED".into());
    }
    header.extend(limited.then(|| "LIMITS".into()));
    let with_pods = rows.iter().any(|row| row.pod.is_some());
    header.extend(with_pods.then(|| "POD".into()));
    let mut table = Table::new(header);
    for p in rows {
        let number = if p.number == 65534 { "LOCAL".to_owned() } else { p.number.to_string() };
        let (word, tone) = state(p.admin_up, p.link_up, p.gone);
        let state = Cell::from(word).tone(tone);
        let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        let limits = limits_text(&p.options);
        let mut row: Vec<Cell> = vec![p.bridge.into(), Cell::right(number), p.name.into(), p.r#type.into(), state];
        row.extend([p.vlan, dash(p.mac)].map(Cell::from));
        row.push(Cell::right(p.mtu_bytes.to_string()));
        row.extend([p.rx_packets, p.tx_packets, p.rx_dropped + p.tx_dropped].map(|n| Cell::right(n.to_string())));
        if wide {
            let more = [p.rx_bytes, p.tx_bytes, p.rx_errors, p.tx_errors];
            row.extend(more.map(|n| Cell::right(n.to_string())));
            row.push(if p.protected { "yes" } else { "no" }.into());
        }
        row.extend(limited.then(|| dash(limits).into()));
        row.extend(with_pods.then(|| dash(p.pod.unwrap_or_default()).into()));
        table.row(row);
    }
    out.table(&table)?;
    Ok(Exit::Yes)
}
