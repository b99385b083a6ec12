//! Traces between two places of a cluster: the packet is made of what the first one's switch knows of it, and where it leaves for
//! another node, the trace goes on in the switch there.
//!
//! On a node, only that node's switch can be asked; elsewhere, a kubeconfig leads to all of them. A packet that comes to a node by
//! the host, not by the tunnel, comes in by `LOCAL`.

mod place;
mod story;

use super::json::{Out, Traced};
use super::{Trace, ask};
use crate::client::{Client, Reach};
use crate::cmd::svc::Services;
use crate::failure::Failure;
use crate::kube::{self, Cluster};
use crate::output::{Exit, Output};
use ipnet::IpNet;
pub(super) use place::is_meant;
use place::{Named, parse};
use sluice_proto::v1::{Attachment, ListNetworksRequest, ListTablesRequest, ListTunnelsRequest};
use std::collections::BTreeMap;
use std::net::IpAddr;
use story::Story;

/// The hardware address that every node's switch routes with.
const ROUTER_MAC: &str = "02:73:6c:75:69:63";
/// Source port of the traced packet.
const SOURCE_PORT: u16 = 40_000;
/// Most nodes that a packet is followed to.
const MAX_HOPS: usize = 8;
/// The port with the host behind it.
const LOCAL: u32 = 65_534;

/// What was asked.
struct Question {
    from: Named,
    to: Named,
    port: Option<u16>,
    proto: String,
}

/// A node's switch, and what is known of it.
struct Node {
    name: String,
    client: Client,
    attachments: Vec<Attachment>,
    bridge: String,
    /// The hardware address of the host's interface there.
    gateway_mac: String,
    /// Ports that are tunnels.
    tunnels: Vec<u32>,
    tables: BTreeMap<u32, String>,
}

/// Where a packet begins or ends.
#[derive(Clone, Debug, Default)]
struct End {
    addresses: Vec<IpAddr>,
    /// The port that it comes in by, and its hardware address; none for what comes by the host.
    port: Option<(u32, String)>,
}

/// A trace on one node.
struct Hop {
    node: String,
    /// How it came there.
    by: &'static str,
    traced: Traced,
    tables: BTreeMap<u32, String>,
    /// Ports of Pods, by number.
    pods: BTreeMap<u32, String>,
    tunnels: Vec<u32>,
}

/// Runs the verb.
pub(super) fn run(args: &Trace, out: &mut Output) -> Result<Exit, Failure> {
    let question = Question::of(&args.what)?;
    let nodes = Nodes::reach(args, &question)?;
    let first = nodes.first()?;
    let (from, to) = (nodes.source(&first, &question.from)?, nodes.destination(&first, &question)?);
    let packet = packet(&question, &from, &to, &first)?;
    let options = args.options(!args.no_names);
    let mut hops: Vec<Hop> = Vec::new();
    let mut due = Some((first, "", packet));
    let mut lost = None;
    while let Some((node, by, packet)) = due.take() {
        let Some(traced) = ask(&node.client, &node.bridge, &[packet], &options)?.pop() else { break };
        let next = if hops.len() + 1 < MAX_HOPS { nodes.next(&node, &traced, &to) } else { None };
        hops.push(node.into_hop(by, traced));
        match next {
            Some(Ok(next)) => due = Some(next),
            Some(Err(why)) => lost = Some(why),
            None => {}
        }
    }
    Story { question: &question, hops: &hops, lost }.tell(args.verbose, out)
}

impl Question {
    fn of(words: &[String]) -> Result<Self, Failure> {
        let [from, to, proto @ ..] = words else { return Err(Failure::usage("two places are needed")) };
        let ((from, _), (to, port)) = (parse(from)?, parse(to)?);
        if matches!(from, Named::Service(_)) {
            return Err(Failure::usage("a Service sends nothing").next("sluice trace NS/POD svc:NS/SERVICE:80"));
        }
        let has_ports = port.is_some() || matches!(to, Named::Service(_));
        let proto = proto.first().map_or(if has_ports { "tcp" } else { "icmp" }, String::as_str);
        match proto {
            "icmp" if has_ports => Err(Failure::usage("icmp has no ports")),
            "tcp" | "udp" | "sctp" if !has_ports => Err(Failure::usage(format!("{proto} needs a port to send to"))
                .next(format!("sluice trace {from} {to}:80 {proto}"))),
            "icmp" | "tcp" | "udp" | "sctp" => Ok(Self { from, to, port, proto: proto.to_owned() }),
            other => Err(Failure::usage(format!("unknown protocol `{other}`")).next("icmp, tcp, udp or sctp")),
        }
    }
}

/// The switches that can be asked.
struct Nodes<'a> {
    args: &'a Trace,
    /// None on a node.
    cluster: Option<Cluster>,
    /// The node of the source; none where there is but one switch.
    first: Option<String>,
    /// Where Pods that the API server knows are.
    places: BTreeMap<String, kube::PodPlace>,
}

impl<'a> Nodes<'a> {
    fn reach(args: &'a Trace, question: &Question) -> Result<Self, Failure> {
        let cluster = match args.target.reach()? {
            Reach::Socket(_) => return Ok(Self { args, cluster: None, first: None, places: BTreeMap::new() }),
            Reach::Cluster(cluster) => cluster,
        };
        let mut places = BTreeMap::new();
        for named in [&question.from, &question.to] {
            let Named::Pod(name) = named else { continue };
            let (namespace, last) = name.split_once('/').unwrap_or(("default", name));
            let place = cluster.pod(namespace, last)?.ok_or_else(|| {
                Failure::new(format!("there is no Pod {name}, or it has no address yet"))
                    .next(format!("kubectl -n {namespace} get pods -o wide"))
            })?;
            places.insert(name.clone(), place);
        }
        let first = match &question.from {
            Named::Pod(name) => places.get(name).map(|place: &kube::PodPlace| place.node.clone()),
            _ => args.target.cluster.node.clone(),
        };
        Ok(Self { args, cluster: Some(cluster), first, places })
    }

    fn first(&self) -> Result<Node, Failure> {
        let (name, client) = match &self.cluster {
            None => (String::new(), Client::connect(&self.args.target)?),
            Some(cluster) => {
                let member = cluster.member(self.first.as_deref())?;
                (member.node.clone(), cluster.connect(member.ready()?)?)
            }
        };
        Node::of(name, client, &self.args.bridge.bridge)
    }

    fn source(&self, node: &Node, named: &Named) -> Result<End, Failure> {
        match named {
            Named::Pod(name) => match self.places.get(name) {
                Some(place) if place.host_network => Ok(End { addresses: place.addresses.clone(), port: None }),
                _ => kube::find_pod(&node.client, name).map(|attachment| End::of(&attachment)),
            },
            Named::Address(address) => {
                let has_it = |a: &&Attachment| End::of(a).addresses.contains(address);
                let found = node.attachments.iter().find(has_it).map(End::of);
                Ok(End { addresses: vec![*address], port: found.and_then(|end| end.port) })
            }
            Named::Service(_) => Err(Failure::usage("a Service sends nothing")),
        }
    }

    fn destination(&self, node: &Node, question: &Question) -> Result<End, Failure> {
        let addresses = match &question.to {
            Named::Address(address) => vec![*address],
            Named::Pod(name) => match self.places.get(name) {
                Some(place) => place.addresses.clone(),
                None => {
                    let next = "give its address instead, or ask from where there is a kubeconfig";
                    kube::find_pod(&node.client, name).map(|a| End::of(&a).addresses).map_err(|e| e.next(next))?
                }
            },
            Named::Service(name) => {
                let services = Services::read(&node.client, &node.bridge, Some(name))?;
                services.addresses(name, &question.proto, question.port)?
            }
        };
        Ok(End { addresses, port: None })
    }

    /// Where the packet goes on after a node: the node there, how it comes, and as what. `None` where it ends.
    fn next(&self, node: &Node, traced: &Traced, to: &End) -> Option<Result<(Node, &'static str, String), String>> {
        let out = traced.outputs.first()?;
        let (address, by) = if node.tunnels.contains(&out.port) {
            let end = ["tun_dst", "tun_ipv6_dst"].iter().find_map(|name| out.set.get(*name)?.as_str()?.parse().ok());
            (end, "by the tunnel")
        } else if out.port == LOCAL
            && self.place_of(to).is_some_and(|place| place.node != node.name && !place.host_network)
        {
            (None, "by the host")
        } else {
            return None;
        };
        let Some(cluster) = &self.cluster else {
            let whom = traced.rule_owner("node:").map_or(String::new(), |name| format!(" to {name}"));
            return Some(Err(format!("it goes on{whom} {by}: ask from where there is a kubeconfig to follow it")));
        };
        let follow = || -> Result<_, Failure> {
            let members = cluster.members()?;
            let place = self.place_of(to);
            let found = members.into_iter().find(|m| match address {
                Some(address) => m.addresses.contains(&address),
                None => place.is_some_and(|place| place.node == m.node),
            });
            let member = found.ok_or_else(|| {
                let end = address.map_or_else(|| "-".to_owned(), |address: IpAddr| address.to_string());
                Failure::new(format!("no node with a Pod of Sluice has the address {end}"))
            })?;
            let next = Node::of(member.node.clone(), cluster.connect(member.ready()?)?, &self.args.bridge.bridge)?;
            let sender = cluster.members()?.into_iter().find(|m| m.node == node.name);
            let packet = match address {
                Some(end) => {
                    let same = |a: &IpAddr| a.is_ipv4() == end.is_ipv4();
                    let sender = sender.and_then(|m| m.addresses.iter().copied().find(same));
                    arriving(out, &next, sender, end)?
                }
                None => format!("in_port={LOCAL},{}", inner(out)),
            };
            Ok((next, by, packet))
        };
        Some(follow().map_err(|failure| failure.to_string().replace("error: ", "").replace('\n', ";")))
    }

    fn place_of(&self, to: &End) -> Option<&kube::PodPlace> {
        self.places.values().find(|place| place.addresses.iter().any(|address| to.addresses.contains(address)))
    }
}

impl Node {
    fn of(name: String, client: Client, bridge: &str) -> Result<Self, Failure> {
        let attachments = kube::attachments(&client)?;
        let networks = client.call(client.attachments().list_networks(ListNetworksRequest {}))?.networks;
        let network = networks.into_iter().find(|n| n.spec.as_ref().is_some_and(|s| s.kind == "kubernetes"));
        let gateway_mac = network.as_ref().map(|n| n.gateway_mac.clone()).unwrap_or_default();
        let of_network = network.and_then(|n| n.spec).map(|spec| spec.bridge).unwrap_or_default();
        let bridge = if bridge.is_empty() { of_network } else { bridge.to_owned() };
        let request = ListTunnelsRequest { bridge: bridge.clone(), probe_timeout_ms: 0 };
        let tunnels = client.call(client.tunnels().list_tunnels(request))?.tunnels;
        let tunnels = tunnels.into_iter().filter_map(|t| Some(t.port?.spec?.number)).collect();
        let tables =
            client.call(client.tables().list_tables(ListTablesRequest { bridge: bridge.clone(), all: false }))?;
        let tables = tables.tables.into_iter().filter(|t| !t.name.is_empty()).map(|t| (t.table, t.name)).collect();
        Ok(Self { name, client, attachments, bridge, gateway_mac, tunnels, tables })
    }

    fn into_hop(self, by: &'static str, traced: Traced) -> Hop {
        let pods = self.attachments.iter().filter_map(|a| Some((a.number, kube::pod_of(a)?))).collect();
        Hop { node: self.name, by, traced, tables: self.tables, pods, tunnels: self.tunnels }
    }
}

impl End {
    fn of(attachment: &Attachment) -> Self {
        let spec = attachment.spec.clone().unwrap_or_default();
        let addresses = spec.addresses.iter().filter_map(|a| a.parse::<IpNet>().ok()).map(|net| net.addr());
        Self { addresses: addresses.collect(), port: Some((attachment.number, spec.mac)) }
    }
}

/// The packet as a flow, where it comes in first.
fn packet(question: &Question, from: &End, to: &End, node: &Node) -> Result<String, Failure> {
    let of = |end: &End, v4: bool| end.addresses.iter().copied().find(|a| a.is_ipv4() == v4);
    let pair = |v4| of(from, v4).zip(of(to, v4));
    let (src, dst) = pair(true).or_else(|| pair(false)).ok_or_else(|| {
        Failure::usage(format!("{} and {} have no addresses of one IP version", question.from, question.to))
    })?;
    let (six, source, target) = if src.is_ipv4() { ("", "nw_src", "nw_dst") } else { ("6", "ipv6_src", "ipv6_dst") };
    let port = question.port.unwrap_or(0);
    let upper = match question.proto.as_str() {
        "icmp" if src.is_ipv4() => "icmp,icmp_type=8".to_owned(),
        "icmp" => "icmp6,icmp_type=128".to_owned(),
        "tcp" => format!("tcp{six},tp_src={SOURCE_PORT},tp_dst={port},tcp_flags=syn"),
        other => format!("{other}{six},tp_src={SOURCE_PORT},tp_dst={port}"),
    };
    let (in_port, mac) = match &from.port {
        Some((port, mac)) => (*port, mac.as_str()),
        None => (LOCAL, node.gateway_mac.as_str()),
    };
    let mac = if mac.is_empty() { "00:00:00:00:00:00" } else { mac };
    Ok(format!("in_port={in_port},dl_src={mac},dl_dst={ROUTER_MAC},{source}={src},{target}={dst},nw_ttl=64,{upper}"))
}

/// The packet as it comes in by a node's tunnel.
fn arriving(out: &Out, node: &Node, sender: Option<IpAddr>, end: IpAddr) -> Result<String, Failure> {
    let Some(port) = node.tunnels.first() else {
        return Err(Failure::new(format!("node {} has no tunnel that it could come by", node.name))
            .next(format!("sluice tunnels --node {}", node.name)));
    };
    let (source, target) = if end.is_ipv4() { ("tun_src", "tun_dst") } else { ("tun_ipv6_src", "tun_ipv6_dst") };
    let sender = sender.map_or(String::new(), |sender| format!("{source}={sender},"));
    Ok(format!("in_port={port},{sender}{target}={end},{}", inner(out)))
}

/// The packet without what the switch that sent it had noted with it.
fn inner(out: &Out) -> String {
    let noted = ["tun_", "reg", "xreg", "ct_", "metadata", "recirc_id", "in_port", "pkt_mark", "skb_priority"];
    let words = out.packet.split(',').filter(|word| !noted.iter().any(|start| word.starts_with(start)));
    words.collect::<Vec<_>>().join(",")
}
