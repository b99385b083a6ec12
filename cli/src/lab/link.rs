//! `sluice lab link`: what happens to frames on links, now.
//!
//! A link with a delay is a wire, and each of its ends says what happens to the frames that it sends. A link that came up
//! without one is a patch or a plain port, on which nothing happens.

use super::Target;
use super::topology::Topology;
use super::topology::resolved::{End, Impairment, Link, port_name};
use super::wiring::small_bridge;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;
use sluice_proto::v1::{ListPortsRequest, Port, SetPortRequest};
use sluice_switch::port::parse_time;
use std::collections::HashMap;
use std::path::PathBuf;

/// The verbs of `sluice lab link`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show what happens on links, each way
    Show(Show),
    /// Change a link with a delay, both ways or one
    Set(Set),
}

/// Arguments of `sluice lab link show`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice lab link show
  sluice lab link show wan -o json")]
pub(crate) struct Show {
    /// The link; all that have a delay if not given
    link: Option<String>,
    #[command(flatten)]
    target: Target,
}

/// Arguments of `sluice lab link set`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice lab link set wan delay=40ms jitter=2ms
  sluice lab link set wan delay=60ms --from s2   only what s2 sends")]
pub(crate) struct Set {
    /// The link
    link: String,
    /// What to change: delay, jitter, queue (packets under way), queue_bytes
    #[arg(required = true, value_name = "NAME=VALUE", value_parser = option)]
    options: Vec<(String, String)>,
    /// Only the frames that this end sends
    #[arg(long, value_name = "NODE")]
    from: Option<String>,
    #[command(flatten)]
    target: Target,
}

fn option(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// Runs a verb.
pub(crate) fn run(verb: Verb, out: &mut Output) -> Result<Exit, Failure> {
    match verb {
        Verb::Show(args) => show(&args, out),
        Verb::Set(args) => set(&args, out),
    }
}

/// The ports at both ends of a link that is a wire; each sends as is set on it.
fn wire(link: &Link) -> Option<[String; 2]> {
    let [a, b] = &link.ends;
    let port = |end: &End, peer: &End| match end {
        End::Host { .. } | End::Stack { .. } => format!("{}.wire", small_bridge(link, end)),
        End::Switch { .. } | End::Router { .. } => port_name(end, peer),
    };
    link.is_impaired().then(|| [port(a, b), port(b, a)])
}

/// The link with this name.
fn find<'a>(topology: &'a Topology, name: &str) -> Result<&'a Link, Failure> {
    topology.links.iter().find(|link| link.name == name).ok_or_else(|| {
        let known: Vec<_> = topology.links.iter().map(|link| link.name.as_str()).collect();
        Failure::usage(format!("the lab {} has no link named {name}", topology.name))
            .next(format!("one of: {}", known.join(", ")))
    })
}

fn is_wire(link: &Link) -> Result<[String; 2], Failure> {
    wire(link).ok_or_else(|| {
        Failure::new(format!("the link {} came up without a delay, so it has nothing to change", link.name))
            .next("give it `delay:` or `jitter:` in the topology file and bring the lab up again")
    })
}

/// All ports of the lab by name.
fn ports(client: &Client) -> Result<HashMap<String, Port>, Failure> {
    let parts = client.collect(client.ports().list_ports(ListPortsRequest::default()))?;
    let ports = parts.into_iter().flat_map(|part| part.ports);
    Ok(ports.filter_map(|port| Some((port.spec.as_ref()?.name.clone(), port))).collect())
}

/// What is set on a port.
fn set_on(port: &Port, option: &str) -> String {
    port.spec.as_ref().and_then(|spec| spec.options.get(option)).cloned().unwrap_or_default()
}

/// Puts what the wires go by now into the topology that the lab came up with.
///
/// # Errors
/// What the switch says.
pub(super) fn refresh(topology: &mut Topology, socket: PathBuf) -> Result<(), Failure> {
    if !topology.links.iter().any(Link::is_impaired) {
        return Ok(());
    }
    let ports = ports(&Client::connect_to(socket)?)?;
    for link in &mut topology.links {
        let Some(ends) = wire(link) else { continue };
        for (impairment, port) in link.impairment.iter_mut().zip(ends.iter().map(|name| ports.get(name))) {
            let time = |option| parse_time(&set_on(port?, option));
            *impairment = Impairment {
                delay: time("delay").unwrap_or(impairment.delay),
                jitter: time("jitter").unwrap_or(impairment.jitter),
            };
        }
    }
    Ok(())
}

/// One way of a link.
#[derive(Serialize)]
struct Way<'a> {
    link: &'a str,
    from: &'a str,
    to: &'a str,
    delay: String,
    jitter: String,
    queue_packets: String,
    sent_packets: u64,
    lost_packets: u64,
    up: bool,
}

fn show(args: &Show, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let (_, state) = super::running(args.target.lab.as_deref())?;
    let topology = &state.topology;
    let links: Vec<_> = match &args.link {
        Some(name) => vec![find(topology, name)?],
        None => topology.links.iter().filter(|link| link.is_impaired()).collect(),
    };
    let ports = ports(&Client::connect_to(state.socket)?)?;
    let mut ways = Vec::new();
    for link in links {
        let ends = match &args.link {
            Some(_) => is_wire(link)?,
            None => wire(link).unwrap_or_default(),
        };
        for (i, name) in ends.iter().enumerate() {
            let Some(port) = ports.get(name) else { continue };
            let counters = port.counters.unwrap_or_default();
            ways.push(Way {
                link: &link.name,
                from: link.ends[i].node(),
                to: link.ends[1 - i].node(),
                delay: set_on(port, "delay"),
                jitter: set_on(port, "jitter"),
                queue_packets: set_on(port, "queue"),
                sent_packets: counters.tx_packets,
                lost_packets: counters.tx_dropped,
                up: port.link_up && !port.spec.as_ref().is_some_and(|spec| spec.admin_down),
            });
        }
    }
    if format == Format::Json {
        out.json(&json!({"links": ways}))?;
        return Ok(Exit::Yes);
    }
    let mut header: Vec<Cell> = vec!["LINK".into(), "DIR".into()];
    header.extend(["DELAY", "JITTER", "QUEUE", "SENT", "LOST"].map(Cell::right));
    header.push("STATE".into());
    let mut table = Table::new(header);
    for way in ways {
        let mut row: Vec<Cell> = vec![way.link.into(), format!("{}>{}", way.from, way.to).into()];
        let numbers = [way.delay, way.jitter, format!("{}p", way.queue_packets)];
        row.extend(numbers.map(Cell::right));
        row.extend([way.sent_packets, way.lost_packets].map(|n| Cell::right(n.to_string())));
        row.push(if way.up { Cell::from("up").tone(Tone::Good) } else { Cell::from("down").tone(Tone::Bad) });
        table.row(row);
    }
    out.table(&table)?;
    Ok(Exit::Yes)
}

fn set(args: &Set, out: &mut Output) -> Result<Exit, Failure> {
    out.format(&[Format::Table, Format::Json])?;
    let (_, state) = super::running(args.target.lab.as_deref())?;
    let link = find(&state.topology, &args.link)?;
    let ends = is_wire(link)?;
    let [a, b] = link.ends.each_ref().map(End::node);
    let chosen: Vec<_> = match args.from.as_deref() {
        None => ends.iter().collect(),
        Some(node) if node == a => vec![&ends[0]],
        Some(node) if node == b => vec![&ends[1]],
        Some(node) => {
            return Err(
                Failure::usage(format!("{node} is no end of the link {}", link.name)).next(format!("one of: {a}, {b}"))
            );
        }
    };
    let client = Client::connect_to(state.socket)?;
    for name in chosen {
        let options = args.options.iter().cloned().collect();
        client.call(client.ports().set_port(SetPortRequest { name: name.clone(), options, ..Default::default() }))?;
    }
    out.done(&json!({"changed": args.link}))
}
