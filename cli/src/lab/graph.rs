//! `sluice lab graph`: a lab as a drawing.

mod ascii;
mod page;
mod svg;
mod text;

use super::topology::resolved::{Carried, End, IMPAIRMENTS, Impairment, Link};
use super::topology::{self, Topology};
use crate::failure::Failure;
use crate::output::{Exit, Format, Output};
use clap::Args;
use serde::Serialize;
use sluice_switch::api::page::{Join, NodeKind};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Arguments of `sluice lab graph`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice lab graph                                  lines of text
  sluice lab graph -o mermaid                       for a page in Markdown
  sluice lab graph -o svg > office.svg              for a browser, light or dark as it is
  sluice lab graph -o dot | dot -Tpdf > office.pdf
  sluice lab graph --file office.lab.yml            of a file; no lab need run
  sluice lab graph office --serve                   live, in a browser; Ctrl-C ends it
  sluice lab graph office --serve --ui-write        links can be taken down and slowed there

-- is a link of a host, == one of switches and routers, ~~ a tunnel.

--serve is a page with what happens: links and their traffic, drops and whose rules they are,
connections, latencies, and a trace between two hosts that are clicked. It is for this machine
alone; ssh -L 8484:localhost:8484 THIS-MACHINE brings it to another.")]
pub(crate) struct Graph {
    /// The lab; may be left out when one is running
    #[arg(conflicts_with = "lab")]
    name: Option<String>,
    /// A topology file instead of a running lab
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "lab"])]
    file: Option<PathBuf>,
    /// Serve the lab as a live page for a browser here, until Ctrl-C; port 0 takes any
    #[arg(long, value_name = "ADDR", num_args = 0..=1, default_missing_value = page::ADDRESS, conflicts_with = "file")]
    serve: Option<SocketAddr>,
    /// With --serve: links may be taken down, delayed and made lossy from the page
    #[arg(long, requires = "serve")]
    ui_write: bool,
    /// With --serve: ADDR may be one that other machines reach. Whoever reaches it sees the lab's traffic
    #[arg(long, requires = "serve")]
    ui_remote: bool,
    #[command(flatten)]
    target: super::Target,
}

/// How a drawing may be written.
const FORMATS: [Format; 6] = [Format::Table, Format::Ascii, Format::Mermaid, Format::Dot, Format::Svg, Format::Json];

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Node {
    name: String,
    kind: NodeKind,
    addresses: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Edge {
    name: String,
    kind: Join,
    /// Places in the list of nodes.
    #[serde(skip)]
    ends: [usize; 2],
    #[serde(rename = "ends")]
    names: [String; 2],
    /// What a drawing says of it.
    label: String,
}

#[derive(Debug, Serialize)]
struct Drawing {
    lab: String,
    nodes: Vec<Node>,
    links: Vec<Edge>,
}

/// Draws a lab.
pub(crate) fn run(args: &Graph, out: &mut Output) -> Result<Exit, Failure> {
    use Format::{Dot, Json, Mermaid, Svg};
    let format = out.format(&FORMATS)?;
    if let Some(address) = args.serve {
        return page::run(args, address, out);
    }
    let topology = match &args.file {
        Some(file) => topology::load(file)?,
        None => {
            let wanted = args.name.as_deref().or(args.target.lab.as_deref());
            let (_, mut state) = super::joined(wanted)?;
            super::link::refresh(&mut state.topology, state.socket)?;
            state.topology
        }
    };
    let drawing = Drawing::of(&topology);
    let text = match format {
        Json => {
            out.json(&drawing)?;
            return Ok(Exit::Yes);
        }
        Mermaid => text::mermaid(&drawing),
        Dot => text::dot(&drawing),
        Svg => svg::draw(&drawing),
        _ => ascii::draw(&drawing),
    };
    text.lines().try_for_each(|line| out.line(line))?;
    Ok(Exit::Yes)
}

impl Drawing {
    fn of(topology: &Topology) -> Self {
        let mut drawing = Self { lab: topology.name.clone(), nodes: Vec::new(), links: Vec::new() };
        let mut places = BTreeMap::new();
        // Nodes in the order in which links name them, which is that of their author.
        for link in &topology.links {
            let ends = link.ends.each_ref().map(|end| drawing.place(&mut places, topology, end.node()));
            let is_host = link.ends.iter().any(|end| matches!(end, End::Host { .. }));
            drawing.join(&link.name, if is_host { Join::Host } else { Join::Trunk }, ends, label(link));
        }
        for tunnel in &topology.tunnels {
            let mut ends = tunnel.ends.iter().map(|end| drawing.place(&mut places, topology, &end.switch));
            let (Some(first), second) = (ends.next(), ends.next()) else { continue };
            let remote = tunnel.ends.first().map(|end| end.remote.to_string()).unwrap_or_default();
            let second = second.unwrap_or_else(|| drawing.place(&mut places, topology, &remote));
            let label = format!("{} {}", tunnel.name, tunnel.kind.name());
            drawing.join(&tunnel.name, Join::Tunnel, [first, second], label);
        }
        if let Some(uplink) = &topology.uplink {
            let ends = [uplink.switch.clone(), uplink.title()];
            let ends = ends.map(|name| drawing.place(&mut places, topology, &name));
            drawing.join(&uplink.port_name(), Join::Trunk, ends, uplink.vlan.clone().unwrap_or_default());
        }
        // Those without links.
        let hosts = topology.hosts.iter().map(|host| host.name.as_str());
        let switches = topology.switches.iter().map(|switch| switch.name.as_str());
        for name in hosts.chain(switches) {
            drawing.place(&mut places, topology, name);
        }
        drawing
    }

    fn place(&mut self, places: &mut BTreeMap<String, usize>, topology: &Topology, name: &str) -> usize {
        *places.entry(name.to_owned()).or_insert_with(|| {
            self.nodes.push(node(topology, name));
            self.nodes.len() - 1
        })
    }

    fn join(&mut self, name: &str, kind: Join, ends: [usize; 2], label: String) {
        let names = ends.map(|end| self.nodes.get(end).map(|node| node.name.clone()).unwrap_or_default());
        self.links.push(Edge { name: name.to_owned(), kind, ends, names, label });
    }
}

fn node(topology: &Topology, name: &str) -> Node {
    let router = topology.routers.iter().find(|router| router.name == name);
    let (kind, nets) = match (topology.host(name), router) {
        (Some(host), _) => (NodeKind::Host, host.interfaces.iter().flat_map(|i| &i.addresses).copied().collect()),
        (_, Some(router)) => (NodeKind::Router, router.interfaces.iter().flat_map(|i| &i.addresses).copied().collect()),
        _ if topology.switches.iter().any(|switch| switch.name == name) => (NodeKind::Switch, Vec::new()),
        _ => {
            let uplink = topology.uplink.iter().find(|uplink| uplink.title() == name);
            (NodeKind::Remote, uplink.map(|uplink| uplink.addresses().to_vec()).unwrap_or_default())
        }
    };
    Node { name: name.to_owned(), kind, addresses: nets.iter().map(ToString::to_string).collect() }
}

/// `wan 20/60ms`, `blue,green`: the name or the VLANs, and what happens to frames.
fn label(link: &Link) -> String {
    let mut parts = Vec::from_iter(Some(title(link)).filter(|title| !title.is_empty()));
    parts.extend(impairment(&link.impairment));
    parts.join(" ")
}

/// The name or the VLANs, if there is something to say.
fn title(link: &Link) -> String {
    let [a, b] = link.ends.each_ref().map(End::node);
    if link.name != format!("{a}-{b}") {
        link.name.clone()
    } else if link.carried != Carried::All {
        link.carried.names()
    } else {
        String::new()
    }
}

/// What happens to frames, there and back: `20/60ms`, `+-3ms`, `5%`, `50mbit`, `corrupt 1%`.
fn impairment(ways: &[Impairment; 2]) -> Vec<String> {
    let set = ways.each_ref().map(|way| way.differing(&Impairment::default()));
    let label = |key: &&str| {
        let of = |way: &[(&str, String)]| way.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
        let values = set.each_ref().map(|way| of(way));
        if values == [None, None] {
            return None;
        }
        let none = if ["delay", "jitter"].contains(key) { "0ms" } else { "-" };
        let value = pair(values.map(|value| value.unwrap_or_else(|| none.to_owned())));
        Some(match *key {
            "delay" | "loss" | "rate" => value,
            "jitter" => format!("+-{value}"),
            key => format!("{key} {value}"),
        })
    };
    IMPAIRMENTS.iter().filter_map(label).collect()
}

/// One value for both ways, or both; the unit once if they have the same.
fn pair([there, back]: [String; 2]) -> String {
    if there == back {
        return there;
    }
    let unit = |text: &str| text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').to_owned();
    let bare = there.trim_end_matches(|c: char| c.is_alphabetic() || c == '%');
    let there = if unit(&there) == unit(&back) { bare } else { &there };
    format!("{there}/{back}")
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn office() -> Drawing {
        let text = "lab: office\nvlans:\n  blue: {id: 10, subnet: 10.0.10.0/24, gateway: r1}\n  \
            green: {id: 20, subnet: 10.0.20.0/24, gateway: r1}\n\
            switches: {s1: {}, s2: {}}\nrouters: {r1: {}}\nhosts: {h1: {}, h2: {}, web: {}}\nlinks:\n\
            - {ends: [h1, s1], access: blue}\n- {ends: [h2, s2], access: blue}\n- {ends: [web, s2], access: green}\n\
            - {ends: [r1, s1], trunk: [blue, green]}\n\
            - {ends: [s1, s2], name: wan, trunk: [blue, green], delay: 20ms, back: {delay: 60ms}}\n";
        Drawing::of(&topology::parse(text, "office.yml").unwrap())
    }

    pub(super) fn of(text: &str) -> Drawing {
        Drawing::of(&topology::parse(text, "t.yml").unwrap())
    }

    #[test]
    fn a_label_says_what_is_peculiar_to_a_link() {
        let labels: Vec<_> = office().links.into_iter().map(|edge| edge.label).collect();
        assert_eq!(labels, ["blue", "blue", "green", "blue,green", "wan 20/60ms"]);
        let drawing = of("lab: a\nlinks:\n- {ends: [h1, s1], delay: 500us, jitter: 1ms, back: {delay: 1ms}}\n");
        assert_eq!(drawing.links[0].label, "500us/1ms +-1ms");
        let drawing = of(
            "lab: a\nlinks:\n- {ends: [h1, s1], loss: 5%, rate: 50mbit, corrupt: 1%, back: {loss: 2%, corrupt: 0%}}\n",
        );
        assert_eq!(drawing.links[0].label, "5/2% 50mbit corrupt 1%/-");
    }

    #[test]
    fn the_uplink_is_a_node_behind_its_switch() {
        let drawing = of("lab: a\nlinks: [[h1, s1]]\nuplink: {switch: s1, mode: nat}\n");
        let node = drawing.nodes.last().unwrap();
        assert_eq!((node.name.as_str(), node.kind, node.addresses.join(",")), {
            ("uplink (nat)", NodeKind::Remote, "10.0.0.1/24".to_owned())
        });
        let edge = drawing.links.last().unwrap();
        assert_eq!((edge.kind, edge.names.clone()), (Join::Trunk, ["s1".to_owned(), "uplink (nat)".to_owned()]));
        assert_eq!(ascii::draw(&drawing), "h1 -- s1 == uplink (nat)\n");
        let drawing = of("lab: a\nvlans: {blue: {}}\nswitches: {s1: {}}\nhosts: {h1: {ip: 192.0.2.7/24}}\n\
             links: [{ends: [h1, s1], access: blue}]\nuplink: {switch: s1, vlan: blue, dev: eth0}\n");
        assert_eq!(drawing.links.last().unwrap().label, "blue");
        assert_eq!(drawing.nodes.last().unwrap().name, "uplink (eth0)");
    }

    #[test]
    fn a_tunnel_to_another_machine_ends_at_its_address() {
        let drawing = of("lab: a\nlinks: [[h1, s1]]\n\
             tunnels: [{name: t1, type: vxlan, ends: [s1], vni: 7, remote: 192.0.2.9}]\n");
        assert_eq!(
            drawing.nodes.last().map(|node| (node.name.as_str(), node.kind)),
            Some(("192.0.2.9", NodeKind::Remote))
        );
        assert_eq!(drawing.links.last().map(|edge| (edge.kind, edge.names.clone())), {
            Some((Join::Tunnel, ["s1".to_owned(), "192.0.2.9".to_owned()]))
        });
    }
}
