//! `sluice lab link`: what happens to frames on links, now.
//!
//! A link with impairments is a wire, and each of its ends says what happens to the frames that it sends. A link that came
//! up without any is a patch or a plain port, which costs nothing; a wire is put in there when it is given the first one, while
//! frames flow, and the state file says so from then on.

mod carrier;
mod show;

pub(super) use carrier::carry;

use super::topology::Topology;
use super::topology::resolved::{End, IMPAIRMENTS, Impairment, Link};
use super::wiring::{device_port, small_bridge, wire_port};
use super::{State, Target};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Exit, Format, Output};
use clap::{Args, Subcommand};
use serde_json::json;
use sluice_proto::v1::{ListPortsRequest, Port, SetPortRequest, SplicePortRequest};
use std::collections::HashMap;
use std::path::PathBuf;

/// The verbs of `sluice lab link`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show what happens on links, each way
    Show(show::Show),
    /// Change what happens on a link, both ways or one
    Set(Set),
    /// Take a link down: nothing crosses it
    #[command(after_help = "Example:
  sluice lab link down wan")]
    Down(carrier::Of),
    /// Bring a link up again
    #[command(after_help = "Example:
  sluice lab link up wan")]
    Up(carrier::Of),
    /// Take a link down and up again, several times
    Flap(carrier::Flap),
}

/// Arguments of `sluice lab link set`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice lab link set wan loss=5% rate=10mbit    what is not named stays as it is
  sluice lab link set wan delay=40ms jitter=2ms
  sluice lab link set wan delay=60ms --from s2   only what s2 sends
  sluice lab link set wan loss=1% --back         only the way back, as `back:` in a file
  sluice lab link set wan rate=0 loss=0%         no limit, no losses")]
pub(crate) struct Set {
    /// The link
    link: String,
    /// What to change: delay, jitter, loss, rate, queue, duplicate, corrupt, reorder
    #[arg(required = true, value_name = "NAME=VALUE", value_parser = option)]
    options: Vec<(String, String)>,
    /// Only the frames that this end sends
    #[arg(long, value_name = "NODE")]
    from: Option<String>,
    /// Only the frames that the second end sends
    #[arg(long, conflicts_with = "from")]
    back: bool,
    #[command(flatten)]
    target: Target,
}

fn option(text: &str) -> Result<(String, String), String> {
    let Some((name, value)) = text.split_once('=') else { return Err("expected NAME=VALUE".to_owned()) };
    if !IMPAIRMENTS.contains(&name) {
        return Err(format!("there is no `{name}` to be set; there is {}", IMPAIRMENTS.join(", ")));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// Runs a verb.
pub(crate) fn run(verb: Verb, out: &mut Output) -> Result<Exit, Failure> {
    match verb {
        Verb::Show(args) => show::run(&args, out),
        Verb::Set(args) => set(&args, out),
        Verb::Down(args) => carrier::set(&args, true, out),
        Verb::Up(args) => carrier::set(&args, false, out),
        Verb::Flap(args) => carrier::flap(&args, out),
    }
}

/// The port at each end of a link. A host that is plugged into a switch has none of its own: the switch's is for both.
pub(super) fn ports_of(link: &Link) -> [Option<String>; 2] {
    let [a, b] = &link.ends;
    let port = |end: &End, peer: &End| match end {
        End::Host { .. } if !link.is_wire() => None,
        End::Host { .. } | End::Stack { .. } => Some(wire_port(&small_bridge(link, end))),
        End::Switch { .. } | End::Router { .. } => Some(link.port_name(end, peer)),
    };
    [port(a, b), port(b, a)]
}

/// The ports at both ends of a link that is a wire; each sends as is set on it.
fn wire(link: &Link) -> Option<[String; 2]> {
    let [Some(a), Some(b)] = ports_of(link) else { return None };
    link.is_wire().then_some([a, b])
}

/// The link with this name.
fn find<'a>(topology: &'a Topology, name: &str) -> Result<&'a Link, Failure> {
    topology.links.iter().find(|link| link.name == name).ok_or_else(|| {
        Failure::usage(format!("the lab {} has no link named {name}", topology.name))
            .next(super::one_of(topology.links.iter().map(|link| link.name.as_str())))
    })
}

/// All ports of the lab by name.
fn ports(client: &Client) -> Result<HashMap<String, Port>, Failure> {
    let parts = client.collect(client.ports().list_ports(ListPortsRequest::default()))?;
    let ports = parts.into_iter().flat_map(|part| part.ports);
    Ok(ports.filter_map(|port| Some((port.spec.as_ref()?.name.clone(), port))).collect())
}

/// What an end of a wire goes by now.
fn set_on(port: &Port) -> Impairment {
    let mut settings = Impairment::default();
    for (option, value) in port.spec.iter().flat_map(|spec| &spec.options) {
        // Options that are not of this kind, like the peer, are refused.
        _ = settings.take(option, value);
    }
    settings
}

/// Whether a port was taken down.
fn is_down(port: &Port) -> bool {
    port.spec.as_ref().is_some_and(|spec| spec.admin_down)
}

/// Puts what the links go by now into the topology that the lab came up with.
///
/// # Errors
/// What the switch says.
pub(super) fn refresh(topology: &mut Topology, socket: PathBuf) -> Result<(), Failure> {
    let ports = ports(&Client::connect_to(socket)?)?;
    for link in &mut topology.links {
        let at: Vec<_> = ports_of(link).into_iter().flatten().filter_map(|name| ports.get(&name)).collect();
        link.down = at.iter().any(|port| is_down(port));
        let Some(ends) = wire(link) else { continue };
        for (impairment, port) in link.impairment.iter_mut().zip(ends.iter().map(|name| ports.get(name))) {
            *impairment = port.map_or(*impairment, set_on);
        }
    }
    Ok(())
}

fn set(args: &Set, out: &mut Output) -> Result<Exit, Failure> {
    out.format(&[Format::Table, Format::Json])?;
    let (_, state) = super::joined(args.target.lab.as_deref())?;
    let link = find(&state.topology, &args.link)?;
    let from = if args.back { Some(link.ends[1].node()) } else { args.from.as_deref() };
    change(&state, &args.link, from, &args.options)?;
    out.done(&json!({"changed": args.link}))
}

/// Changes what happens to the frames that one end of a link sends, or both. A link that has had no impairments gets a wire.
///
/// # Errors
/// There is no such link, an option is wrong, or what the switch says.
pub(super) fn change(
    state: &State,
    link: &str,
    from: Option<&str>,
    options: &[(String, String)],
) -> Result<(), Failure> {
    let link = find(&state.topology, link)?;
    if link.attached.is_some() {
        return Err(Failure::new(format!(
            "the link {} is a container's, which cannot be given impairments",
            link.name
        ))
        .why("its port comes and goes with the container, and a wire in between would stay behind")
        .next("give them to a link of its switch: `sluice lab link show` has those; or take it down and up: lab link down"));
    }
    let nodes = link.ends.each_ref().map(End::node);
    let chosen = nodes.map(|node| from.is_none_or(|from| from == node));
    if chosen == [false; 2] {
        let asked = from.unwrap_or_default();
        return Err(Failure::usage(format!("{asked} is no end of the link {}", link.name))
            .next(format!("one of: {}", nodes.join(", "))));
    }
    let client = Client::connect_to(state.socket.clone())?;
    // Both ways, or none: what one of them would refuse is found before the other is changed.
    let ports = ports(&client)?;
    let mut wired = link.clone();
    wired.wire = true;
    let Some(ends) = wire(&wired) else { return Err(Failure::new(format!("the link {} has no ports", link.name))) };
    for (index, node) in nodes.iter().enumerate().filter(|(index, _)| chosen[*index]) {
        let mut settings = ports.get(&ends[index]).map(set_on).unwrap_or_default();
        let taken = options.iter().try_for_each(|(option, value)| settings.take(option, value));
        taken.and_then(|()| settings.check()).map_err(|error| {
            Failure::usage(error.to_string()).why(format!("what {node} sends by the link {}", link.name))
        })?;
        wired.impairment[index] = settings;
    }
    if !link.is_wire() {
        splice(&client, link, &wired, &ends, state.topology.seed)?;
    }
    for (name, _) in ends.iter().zip(chosen).filter(|(_, chosen)| *chosen) {
        let options = options.iter().cloned().collect();
        client.call(client.ports().set_port(SetPortRequest { name: name.clone(), options, ..Default::default() }))?;
    }
    super::change(&state.topology.name, |state| {
        let found = state.topology.links.iter_mut().find(|other| other.name == link.name);
        found.into_iter().for_each(|found| *found = wired.clone());
        Ok(())
    })
}

/// Puts a wire in where a link is a patch or a plain port.
fn splice(client: &Client, link: &Link, wired: &Link, ends: &[String; 2], seed: u64) -> Result<(), Failure> {
    // A device is at the end that has no port of its own yet.
    let device = link.ends.iter().zip(ports_of(link)).position(|(_, port)| port.is_none());
    let near = &ends[device.map_or(0, |device| 1 - device)];
    let far = device.map(|device| small_bridge(wired, &wired.ends[device])).unwrap_or_default();
    let request = SplicePortRequest {
        name: near.clone(),
        device_port: device_port(&far),
        wire_port: wire_port(&far),
        bridge: far,
        mtu_bytes: link.mtu,
        seed,
    };
    client.call(client.ports().splice_port(request)).map(|_| ())
}
