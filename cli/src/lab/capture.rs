//! `sluice lab capture`: what crosses a link, or all links of a node, by their names.
//!
//! A link is looked at where its first end is, so frames from the other end are seen after the link's delay. A host's
//! interface is the port of the switch that it is plugged into.

use super::topology::Topology;
use super::topology::resolved::{End, Link};
use super::wiring::Wiring;
use crate::client::Client;
use crate::cmd::capture::{ALL, How, Label, record};
use crate::failure::Failure;
use crate::output::{Exit, Output};
use clap::Args;

/// Arguments of `sluice lab capture`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice lab capture core -w core.pcapng -c 20  a link, 20 packets into a file
  sluice lab capture h1 icmp                    what a host sends and receives, a line a packet
  sluice lab capture s1:3                       one port of a switch
  sluice lab capture s1 --dropped               what a switch drops: why, and by which rule
  sluice lab capture all icmp --point in        every link of the lab, each packet as it comes in
  sluice lab capture core --inner -w in.pcapng  what is in the tunnels that take this link
  sluice lab capture h1 --wireshark             live in Wireshark, until that is closed
  sluice lab capture h1 -w - | wireshark -k -i -
In a file the comment of each packet says its verdict, to be filtered by:
  tshark -r core.pcapng -Y 'frame.comment contains \"verdict=drop\"'
A super-frame is written whole, as it crossed, with a second comment that says so.")]
pub(crate) struct Capture {
    /// A link, a node, one interface or port of a node, or `all` links
    #[arg(value_name = "LINK|NODE[:IF]")]
    what: String,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    target: super::Target,
}

/// Runs the verb.
pub(crate) fn run(args: &Capture, out: &mut Output) -> Result<Exit, Failure> {
    let (_, state) = super::joined(args.target.lab.as_deref())?;
    let labels = labels(&state.topology, &args.what)?;
    record(&Client::connect_to(state.socket)?, &labels, &args.how, out)
}

/// The links and nodes that a capture can be of, with what they are.
pub(crate) fn subjects(topology: &Topology) -> Vec<(String, String)> {
    let links = topology.links.iter().map(|link| (link.name.clone(), of_link(topology, link).about));
    let hosts = topology.hosts.iter().map(|host| (host.name.clone(), format!("host {}", host.name)));
    let switches = topology.switches.iter().map(|switch| (switch.name.clone(), format!("switch {}", switch.name)));
    let routers = topology.own_routers().map(|router| (router.name.clone(), format!("router {}", router.name)));
    links.chain(hosts).chain(switches).chain(routers).collect()
}

/// The ports that a name stands for.
///
/// # Errors
/// The lab has nothing of this name.
pub(crate) fn labels(topology: &Topology, what: &str) -> Result<Vec<Label>, Failure> {
    if what == ALL {
        return Ok(topology.links.iter().map(|link| of_link(topology, link)).collect());
    }
    if let Some(link) = topology.links.iter().find(|link| link.name == what) {
        return Ok(vec![of_link(topology, link)]);
    }
    let (node, pin) = what.split_once(':').map_or((what, None), |(node, pin)| (node, Some(pin)));
    let found: Vec<_> = of_node(topology, node).into_iter().filter(|(at, _)| pin.is_none_or(|pin| at == pin)).collect();
    if found.is_empty() {
        return Err(unknown(topology, what, node));
    }
    Ok(found.into_iter().map(|(_, label)| label).collect())
}

/// A link as its first end sees it.
fn of_link(topology: &Topology, link: &Link) -> Label {
    let [first, second] = &link.ends;
    Label { name: link.name.clone(), ..seen_from(topology, link, first, second) }
}

/// A link at one of its ends, called like that end.
fn seen_from(topology: &Topology, link: &Link, end: &End, peer: &End) -> Label {
    let (near, far) = (end.node(), peer.node());
    let (out, back) = (format!("{near}>{far}"), format!("{far}>{near}"));
    let plugged = match end {
        End::Host { interface, .. } | End::Stack { interface, .. } => {
            let devices = Wiring::of(topology).devices;
            devices.into_iter().find(|d| d.host == near && d.interface == *interface).map(|d| d.place.name)
        }
        End::Switch { .. } | End::Router { .. } => None,
    };
    // What an interface sends, the port that it is plugged into receives; what a switch sends, its port sends.
    let (port, ways) = match plugged {
        Some(port) => (port, [out, back]),
        None => (link.port_name(end, peer), [back, out]),
    };
    let [a, b] = &link.ends;
    Label { port, name: end.to_string(), about: format!("link {}: {a} - {b}", link.name), ways }
}

/// The ports at a node by what they are called there.
fn of_node(topology: &Topology, node: &str) -> Vec<(String, Label)> {
    let ends = topology.links.iter().flat_map(|link| [(link, 0), (link, 1)]);
    let at_links = ends.filter(|(link, i)| link.ends[*i].node() == node).map(|(link, i)| {
        let (end, peer) = (&link.ends[i], &link.ends[1 - i]);
        let at = match end {
            End::Host { interface, .. } | End::Stack { interface, .. } => interface.clone(),
            End::Switch { port, .. } | End::Router { port, .. } => port.to_string(),
        };
        (at, seen_from(topology, link, end, peer))
    });
    let tunnels = topology.tunnels.iter().flat_map(|tunnel| tunnel.ends.iter().map(move |end| (tunnel, end)));
    let tunnels = tunnels.filter(|(_, end)| end.switch == node).map(|(tunnel, end)| {
        let label = Label {
            port: tunnel.port_name(end),
            name: format!("{node}:{}", end.port),
            about: format!("tunnel {} to {}, inside", tunnel.name, end.remote),
            ways: [format!("{}>{node}", tunnel.name), format!("{node}>{}", tunnel.name)],
        };
        (end.port.to_string(), label)
    });
    at_links.chain(tunnels).collect()
}

fn unknown(topology: &Topology, what: &str, node: &str) -> Failure {
    let at = of_node(topology, node);
    if !at.is_empty() {
        let known: Vec<_> = at.iter().map(|(at, _)| format!("{node}:{at}")).collect();
        return Failure::usage(format!("{node} has no such interface or port: {what}"))
            .next(super::one_of(known.iter().map(String::as_str)));
    }
    let links = topology.links.iter().map(|link| link.name.as_str());
    Failure::usage(format!("the lab {} has no link or node named {what}", topology.name))
        .next(super::one_of(topology.node_names().chain(links)))
}
