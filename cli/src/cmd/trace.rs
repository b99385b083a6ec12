//! `sluice trace`: what would happen to a packet, and which rule decides.
//!
//! Four ways to ask: of flows in a file, without any switch ([`offline`]); of the running switch; between two hosts of a lab
//! ([`between`]); and between two places of a cluster ([`cluster`]). All come to the same reply.

mod between;
mod cluster;
mod json;
mod offline;

pub(crate) use between::{Fate, Sent, decide, draw};

use super::bridge_files::Files;
use super::bundle::read;
use crate::client::{BridgeArg, Client, Target};
use crate::failure::Failure;
use crate::output::{Exit, Format, Output};
use clap::Args;
use json::Traced;
use sluice_flows::explain::{CtNext, Options};
use sluice_proto::v1::{TracePacket, TraceReply, TraceRequest, trace_packet::Packet};

/// Arguments of `sluice trace`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice trace h1 h2                            between two hosts of the running lab: ICMP
  sluice trace h1 h2:80 tcp                     a TCP SYN to port 80
  sluice trace h1 192.0.2.1:443 tcp             to an address beyond the lab's uplink
  sluice trace shop/web-7f9 svc:shop/db:5432    from a Pod to a Service of a cluster
  sluice trace shop/web-7f9 shop/db-0:5432 tcp  to another Pod; followed to its node
  sluice trace 192.0.2.9 198.51.100.11:30080    from outside to a port of a node
  sluice trace 'in_port=1,tcp,nw_dst=10.0.0.2,tp_dst=80'
  sluice trace --flows acl.flows --ports 1,2 'in_port=1,ip,nw_dst=10.0.0.2'
  sluice trace --flows nat.flows --ct-next trk,est 'in_port=1,tcp,nw_src=10.0.0.1'
  generate-packets | sluice trace --flows acl.flows --ports 1,2 -o json -

Each time that connection tracking is asked, --ct-next says what it answers; without it the running
switch looks for the connection, and is not told of the packet.
Nothing is sent, counted or learned. Exit code 3 means that a packet was dropped; between two
hosts or Pods, 1 means that it went elsewhere.")]
pub(crate) struct Trace {
    /// Packets as flows in OVS's syntax, `-` for one a line on standard input; or two hosts of a lab, or two of NS/POD,
    /// svc:NS/SERVICE and addresses, and a protocol (icmp, tcp, udp, sctp)
    #[arg(required = true, value_name = "PACKET | SRC DST[:PORT] [PROTO]")]
    what: Vec<String>,
    /// Trace through the flows of this file, without a switch
    #[arg(long, value_name = "FILE", help_heading = "Offline")]
    flows: Option<String>,
    /// Ports of the bridge, with names if wanted: 1,2=web,3; those that flows and packets name if not given. LOCAL is
    /// always there
    #[arg(long, value_name = "N[=NAME],..", value_delimiter = ',', requires = "flows", help_heading = "Offline")]
    ports: Vec<offline::PortArg>,
    /// Groups that the flows send to, one a line as `ovs-ofctl add-groups` takes them
    #[arg(long, value_name = "FILE", requires = "flows", help_heading = "Offline")]
    groups: Option<String>,
    /// Meters that the flows go through, one a line as `ovs-ofctl add-meter` takes them
    #[arg(long, value_name = "FILE", requires = "flows", help_heading = "Offline")]
    meters: Option<String>,
    /// What connection tracking says of the packet: flags such as trk,est. Once for each time that it is asked; after
    /// that the connection is new. Without any, the tracker of the running switch is asked
    #[arg(long, value_name = "FLAGS")]
    ct_next: Vec<CtNext>,
    /// Write ports by name, as is done where they have names
    #[arg(long, overrides_with = "no_names")]
    names: bool,
    /// Write ports by number
    #[arg(long, overrides_with = "names")]
    no_names: bool,
    /// Tell also what each table looked at beyond the rule that matched, and every header field that changed
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    bridge: BridgeArg,
    #[command(flatten)]
    target: Target,
}

/// Runs the verb.
pub(crate) fn run(args: &Trace, out: &mut Output) -> Result<Exit, Failure> {
    out.format(&[Format::Table, Format::Json])?;
    if let Some(file) = &args.flows {
        let packets = packets(&args.what)?;
        let files = Files { flows: file, groups: args.groups.as_deref(), meters: args.meters.as_deref() };
        let by_name = args.names || !args.no_names && args.ports.iter().any(offline::PortArg::is_named);
        return show(&offline::trace(&files, &args.ports, &packets, &args.options(by_name))?, out);
    }
    if cluster::is_meant(&args.what) {
        return cluster::run(args, out);
    }
    if between::is_meant(&args.what) {
        return between::run(args, out);
    }
    let packets = packets(&args.what)?;
    let client = Client::connect(&args.target)?;
    show(&ask(&client, &args.bridge.bridge, &packets, &args.options(!args.no_names))?, out)
}

impl Trace {
    fn options(&self, names: bool) -> Options {
        Options { names, verbose: self.verbose, ct_next: self.ct_next.clone() }
    }
}

/// The packets that the words mean: themselves, or the lines of standard input for `-`.
fn packets(words: &[String]) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    for word in words {
        if word == "-" {
            let text = read("-")?;
            let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
            all.extend(lines.map(str::to_owned));
        } else {
            all.push(word.clone());
        }
    }
    Ok(all)
}

/// Has the running switch trace packets.
fn ask(client: &Client, bridge: &str, packets: &[String], options: &Options) -> Result<Vec<Traced>, Failure> {
    let asked = packets.iter().map(|p| TracePacket { packet: Some(Packet::Flow(p.clone())), in_port: String::new() });
    let request = TraceRequest {
        bridge: bridge.to_owned(),
        packets: asked.collect(),
        ct_next: options.ct_next.iter().map(ToString::to_string).collect(),
        verbose: options.verbose,
        numbers: !options.names,
    };
    let replies: Vec<TraceReply> = client.collect(client.trace().trace(request))?;
    Ok(packets.iter().zip(replies).map(|(packet, reply)| Traced::new(packet, reply)).collect())
}

fn show(all: &[Traced], out: &mut Output) -> Result<Exit, Failure> {
    let json = out.format(&[Format::Table, Format::Json])? == Format::Json;
    for (index, traced) in all.iter().enumerate() {
        if json {
            out.json(traced)?;
        } else {
            if index > 0 {
                out.line("")?;
            }
            out.line(&traced.walk)?;
        }
    }
    Ok(if all.iter().any(Traced::is_dropped) { Exit::Dropped } else { Exit::Yes })
}
