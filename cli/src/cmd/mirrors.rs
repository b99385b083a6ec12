//! `sluice mirrors`.

use crate::client::{BridgeArg, Client, Target};
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table};
use crate::watch::Watch;
use clap::{ArgGroup, Args, Subcommand};
use serde::Serialize;
use serde_json::json;
use sluice_proto::v1::mirror::Output as To;
use sluice_proto::v1::{DeleteMirrorRequest, ListMirrorsRequest, Mirror, MirrorState, SetMirrorRequest};

/// Arguments of `sluice mirrors`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  sluice mirrors                                        every mirror with its counters
  sluice mirrors add m1 --select-all --output-port p9   all that passes the bridge, to p9
  sluice mirrors add web --select-src-port p1 --select-dst-port p1 --output-port p9 --snaplen 128
  sluice mirrors del m1"
)]
pub(crate) struct Mirrors {
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
    /// Add a mirror, or change the one of its name
    Add(Add),
    /// Remove a mirror; its output port is an ordinary port again
    #[command(after_help = "Example:
  sluice mirrors del m1")]
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
#[command(
    group(ArgGroup::new("selection").required(true).multiple(true)
        .args(["select_all", "select_src_port", "select_dst_port"])),
    group(ArgGroup::new("destination").required(true).args(["output_port", "output_vlan"])),
    after_help = "Examples:
  sluice mirrors add m1 --select-all --output-port p9
  sluice mirrors add m1 --select-all --select-vlan 10,20 --output-port p9
  sluice mirrors add rspan --select-src-port p1 --output-vlan 999

A packet is copied once for each output, as it is where it is first selected. An output port takes
nothing else: nothing is flooded to it, and what comes in by it is dropped."
)]
struct Add {
    /// Its name
    name: String,
    /// Copy what enters and leaves by any port
    #[arg(long)]
    select_all: bool,
    /// Copy what enters by these ports
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    select_src_port: Vec<String>,
    /// Copy what leaves by these ports
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    select_dst_port: Vec<String>,
    /// Of these packets, only those of these VLANs; 0 for untagged ones
    #[arg(long, value_name = "VLAN", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(0..=4095))]
    select_vlan: Vec<u32>,
    /// Where copies go
    #[arg(long, value_name = "PORT")]
    output_port: Option<String>,
    /// Where copies go: every port that carries this VLAN
    #[arg(long, value_name = "VLAN", value_parser = clap::value_parser!(u32).range(1..=4095))]
    output_vlan: Option<u32>,
    /// Copy only this many bytes of each packet
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(14..=65535))]
    snaplen: Option<u32>,
    #[command(flatten)]
    bridge: BridgeArg,
    #[command(flatten)]
    target: Target,
}

#[derive(Serialize)]
struct Answer {
    mirrors: Vec<Row>,
}

/// A mirror in JSON.
#[derive(Serialize)]
struct Row {
    name: String,
    bridge: String,
    select_all: bool,
    select_src_port: Vec<String>,
    select_dst_port: Vec<String>,
    select_vlan: Vec<u32>,
    output_port: Option<String>,
    output_vlan: Option<u32>,
    snaplen: Option<u32>,
    active: bool,
    packets: u64,
    bytes: u64,
}

/// Runs the verb.
pub(crate) fn run(args: Mirrors, out: &mut Output) -> Result<Exit, Failure> {
    match args.verb {
        None => list(&args, out),
        Some(Verb::Add(add)) => {
            out.format(&[Format::Table, Format::Json])?;
            let client = Client::connect(&add.target)?;
            let added = json!({"added": add.name});
            client.call(client.mirrors().set_mirror(request(add)))?;
            out.done(&added)
        }
        Some(Verb::Del { name, bridge, target }) => {
            out.format(&[Format::Table, Format::Json])?;
            let client = Client::connect(&target)?;
            let deleted = json!({"deleted": name});
            client.call(client.mirrors().delete_mirror(DeleteMirrorRequest { bridge: bridge.bridge, name }))?;
            out.done(&deleted)
        }
    }
}

fn request(add: Add) -> SetMirrorRequest {
    let output = add.output_port.map(To::OutputPort).or(add.output_vlan.map(To::OutputVlan));
    let mirror = Mirror {
        name: add.name,
        select_all: add.select_all,
        select_src_port: add.select_src_port,
        select_dst_port: add.select_dst_port,
        select_vlan: add.select_vlan,
        output,
        snaplen: add.snaplen,
    };
    SetMirrorRequest { bridge: add.bridge.bridge, mirror: Some(mirror) }
}

fn list(args: &Mirrors, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let client = Client::connect(&args.target)?;
    args.watch.run(out, |out| {
        let request = ListMirrorsRequest { bridge: args.bridge.bridge.clone() };
        let mirrors = client.call(client.mirrors().list_mirrors(request))?.mirrors;
        let rows: Vec<Row> = mirrors.into_iter().map(row).collect();
        if format == Format::Json {
            out.json(&Answer { mirrors: rows })?;
            return Ok(Exit::Yes);
        }
        if rows.is_empty() {
            out.talk("there are no mirrors")?;
        }
        let mut table = Table::new([
            "MIRROR".into(),
            "BRIDGE".into(),
            "SELECTS".into(),
            "OUTPUT".into(),
            Cell::right("PACKETS"),
            Cell::right("BYTES"),
        ]);
        for row in rows {
            table.row([
                row.name.clone().into(),
                row.bridge.clone().into(),
                selects(&row).into(),
                output(&row).into(),
                Cell::right(row.packets.to_string()),
                Cell::right(row.bytes.to_string()),
            ]);
        }
        out.table(&table)?;
        Ok(Exit::Yes)
    })
}

fn row(state: MirrorState) -> Row {
    let mirror = state.mirror.unwrap_or_default();
    let (output_port, output_vlan) = match mirror.output {
        Some(To::OutputPort(port)) => (Some(port), None),
        Some(To::OutputVlan(vlan)) => (None, Some(vlan)),
        None => (None, None),
    };
    Row {
        name: mirror.name,
        bridge: state.bridge,
        select_all: mirror.select_all,
        select_src_port: mirror.select_src_port,
        select_dst_port: mirror.select_dst_port,
        select_vlan: mirror.select_vlan,
        output_port,
        output_vlan,
        snaplen: mirror.snaplen,
        active: state.active,
        packets: state.packets,
        bytes: state.bytes,
    }
}

/// What is copied: `all`, or `src=p1 dst=p2`, and of which VLANs.
fn selects(row: &Row) -> String {
    let mut words = Vec::new();
    if row.select_all {
        words.push("all".to_owned());
    }
    for (name, ports) in [("src", &row.select_src_port), ("dst", &row.select_dst_port)] {
        if !ports.is_empty() {
            words.push(format!("{name}={}", ports.join(",")));
        }
    }
    if !row.select_vlan.is_empty() {
        let vlans: Vec<_> = row.select_vlan.iter().map(u32::to_string).collect();
        words.push(format!("vlan={}", vlans.join(",")));
    }
    words.join(" ")
}

/// Where copies go: `p9`, `vlan 999`, how much of each packet, and whether the port is there.
fn output(row: &Row) -> String {
    let to = match (&row.output_port, row.output_vlan) {
        (Some(port), _) => port.clone(),
        (None, vlan) => format!("vlan {}", vlan.unwrap_or_default()),
    };
    let part = row.snaplen.map_or(String::new(), |len| format!(", {len} bytes"));
    let gone = if row.active { "" } else { ", gone" };
    format!("{to}{part}{gone}")
}
