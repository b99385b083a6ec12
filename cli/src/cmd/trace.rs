//! `sluice trace`: what would happen to a packet, and which rule decides.
//!
//! Three ways to ask: of flows in a file, without any switch ([`offline`]); of the running switch; and between two hosts
//! of a lab ([`between`]). All three come to a [`Traced`], and print alike.

mod between;
mod offline;

use super::bundle::read;
use crate::client::{BridgeArg, Client, Target};
use crate::failure::Failure;
use crate::output::{Exit, Format, Output};
use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value};
use sluice_flows::Verdict;
use sluice_flows::explain::Report;
use sluice_flows::text::{Names, show_match, show_value};
use sluice_proto::v1::{TracePacket, TraceReply, TraceRequest, trace_packet::Packet};

/// Arguments of `sluice trace`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice trace h1 h2                            between two hosts of the running lab: ICMP
  sluice trace h1 h2:80 tcp                     a TCP SYN to port 80
  sluice trace 'in_port=1,tcp,nw_dst=10.0.0.2,tp_dst=80'
  sluice trace --flows acl.flows --ports 1,2 'in_port=1,ip,nw_dst=10.0.0.2'
  generate-packets | sluice trace --flows acl.flows --ports 1,2 -o json -

Nothing is sent, counted or learned. Exit code 3 means that a packet was dropped; between two
hosts, 1 means that it went elsewhere.")]
pub(crate) struct Trace {
    /// Packets as flows in OVS's syntax, `-` for one a line on standard input; or two hosts of a lab and a protocol
    /// (icmp, tcp, udp)
    #[arg(required = true, value_name = "PACKET | SRC DST[:PORT] [PROTO]")]
    what: Vec<String>,
    /// Trace through the flows of this file, without a switch
    #[arg(long, value_name = "FILE", help_heading = "Offline")]
    flows: Option<String>,
    /// Ports of the bridge, with names if wanted: 1,2=web,3; those that flows and packets name if not given. LOCAL is
    /// always there
    #[arg(long, value_name = "N[=NAME],..", value_delimiter = ',', requires = "flows", help_heading = "Offline")]
    ports: Vec<offline::PortArg>,
    /// Groups of the flows; not supported yet
    #[arg(long, value_name = "FILE", requires = "flows", help_heading = "Offline")]
    groups: Option<String>,
    #[command(flatten)]
    bridge: BridgeArg,
    #[command(flatten)]
    target: Target,
}

/// What would happen to one packet, as every way to ask prints it.
#[derive(Debug, Serialize)]
struct Traced {
    /// The packet as it was typed.
    packet: String,
    verdict: &'static str,
    reason: Option<String>,
    rule: Option<Rule>,
    outputs: Vec<Out>,
    megaflow: String,
    datapath_actions: String,
    #[serde(skip)]
    walk: String,
}

#[derive(Debug, Serialize)]
struct Rule {
    table: u32,
    priority: u32,
    r#match: String,
    cookie: u64,
    owner: String,
}

#[derive(Debug, Serialize)]
struct Out {
    port: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bridge: Option<String>,
    /// What differs from the packet that came in; tags as `vlans`, the list of their VLAN IDs, the outer one first.
    set: Map<String, Value>,
    /// Every VLAN tag, the outer one first.
    tags: Vec<Tag>,
}

#[derive(Debug, Serialize)]
struct Tag {
    tpid: u32,
    vid: u32,
    pcp: u32,
}

impl Traced {
    fn offline(packet: &str, report: &Report) -> Self {
        let rule = report.rule.as_ref().map(|rule| Rule {
            table: rule.spec.table.get().into(),
            priority: rule.spec.priority.into(),
            r#match: show_match(&rule.spec.matches, &Names::new()).to_string(),
            cookie: rule.spec.cookie,
            owner: rule.spec.owner.to_string(),
        });
        let outputs = report.exits.iter().map(|exit| {
            let came_in = sluice_flows::explain::Exit { packet: report.packet, ..exit.clone() }.tags();
            let set = exit.changes(&report.packet).into_iter();
            let set =
                set.map(|(field, value)| (field.info().match_name.to_owned(), show_value(field, value).to_string()));
            let tags = exit.tags();
            let changed = tags != came_in;
            let tags = tags.into_iter().map(|(tpid, tci)| Tag {
                tpid: tpid.into(),
                vid: (tci & 0xfff).into(),
                pcp: (tci >> 13).into(),
            });
            Out::new(exit.port.no.0.into(), set.collect(), tags.collect(), changed)
        });
        Self {
            packet: packet.to_owned(),
            verdict: if report.verdict == Verdict::Forward { "forward" } else { "drop" },
            reason: match report.verdict {
                Verdict::Forward => None,
                Verdict::Drop(reason) => Some(reason.name().to_owned()),
            },
            rule,
            outputs: outputs.collect(),
            megaflow: report.megaflow.clone(),
            datapath_actions: report.datapath_actions.clone(),
            walk: report.walk.clone(),
        }
    }

    fn online(packet: &str, reply: TraceReply) -> Self {
        let outputs = reply.outputs.into_iter().map(|o| {
            let set = o.set.into_iter().map(|f| (f.field, f.value)).collect();
            let tags = o.vlans.into_iter().map(|t| Tag { tpid: t.tpid, vid: t.vid, pcp: t.pcp }).collect();
            let out = Out::new(o.port, set, tags, o.vlans_changed);
            Out { name: Some(o.port_name), bridge: Some(o.bridge), ..out }
        });
        Self {
            packet: packet.to_owned(),
            verdict: if reply.verdict == "forward" { "forward" } else { "drop" },
            reason: Some(reply.reason).filter(|r| !r.is_empty()),
            rule: reply.rule.map(|r| Rule {
                table: r.table,
                priority: r.priority,
                r#match: r.r#match,
                cookie: r.cookie,
                owner: r.owner,
            }),
            outputs: outputs.collect(),
            megaflow: reply.megaflow,
            datapath_actions: reply.datapath_actions,
            walk: reply.walk,
        }
    }

    fn is_dropped(&self) -> bool {
        self.verdict == "drop"
    }
}

impl Out {
    fn new(port: u32, set: Vec<(String, String)>, tags: Vec<Tag>, tags_changed: bool) -> Self {
        let mut set: Map<String, Value> = set.into_iter().map(|(name, value)| (name, number_or_text(value))).collect();
        if tags_changed {
            set.insert("vlans".to_owned(), tags.iter().map(|t| t.vid).collect());
        }
        Self { port, name: None, bridge: None, set, tags }
    }
}

/// A value as JSON has it: numbers raw, the rest as flows print it.
fn number_or_text(value: String) -> Value {
    value.parse::<u64>().map_or(Value::String(value), Value::from)
}

/// Runs the verb.
pub(crate) fn run(args: &Trace, out: &mut Output) -> Result<Exit, Failure> {
    if args.groups.is_some() {
        return Err(Failure::usage("--groups: groups are not supported yet"));
    }
    out.format(&[Format::Table, Format::Json])?;
    if let Some(file) = &args.flows {
        let packets = packets(&args.what)?;
        return show(&offline::trace(file, &args.ports, &packets)?, out);
    }
    if between::is_meant(&args.what) {
        return between::run(args, out);
    }
    let packets = packets(&args.what)?;
    let client = Client::connect(&args.target)?;
    show(&ask(&client, &args.bridge.bridge, &packets)?, out)
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
fn ask(client: &Client, bridge: &str, packets: &[String]) -> Result<Vec<Traced>, Failure> {
    let asked = packets.iter().map(|p| TracePacket { packet: Some(Packet::Flow(p.clone())), in_port: String::new() });
    let request = TraceRequest { bridge: bridge.to_owned(), packets: asked.collect() };
    let replies = client.collect(client.trace().trace(request))?;
    Ok(packets.iter().zip(replies).map(|(packet, reply)| Traced::online(packet, reply)).collect())
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
