//! Traces between two places of a cluster: the packet is made of what the first one's switch knows of it, and where it leaves for
//! another node, the trace goes on in the switch there.
//!
//! On a node, only that node's switch can be asked; elsewhere, a kubeconfig leads to all of them. A packet that comes to a node by
//! the host, not by the tunnel, comes in by `LOCAL`; where it is for a port of the host that leads to Pods, as the host sends it on
//! ([`host`]).

mod host;
mod place;
mod story;

use super::json::{Out, Traced};
use super::{Trace, ask};
use crate::client::{Client, Reach};
use crate::cmd::svc::Services;
use crate::failure::Failure;
use crate::kube::{self, Cluster, Member};
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
    /// The host's ports that lead to Pods.
    ports: host::Ports,
    /// The switch's own addresses on the link to the host, which the host hides behind its own.
    links: Vec<IpAddr>,
    /// The host's addresses on it.
    gateways: Vec<IpAddr>,
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
    /// What the host did with it before, if anything.
    host: Option<String>,
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
    let redirected = from.port.is_none().then(|| nodes.redirected(&first, &packet)).flatten();
    let (packet, host) = redirected.map_or((packet, None), |(packet, host)| (packet, Some(host)));
    let options = args.options(!args.no_names);
    let mut hops: Vec<Hop> = Vec::new();
    let mut due = Some(Arriving { node: first, by: "", packet, host });
    let mut lost = None;
    while let Some(Arriving { node, by, packet, host }) = due.take() {
        let Some(traced) = ask(&node.client, &node.bridge, &[packet], &options)?.pop() else { break };
        let next = if hops.len() + 1 < MAX_HOPS { nodes.next(&node, &traced, &to) } else { None };
        hops.push(node.into_hop(by, host, traced));
        match next {
            Some(Ok(next)) => due = Some(next),
            Some(Err(why)) => lost = Some(why),
            None => {}
        }
    }
    Story { question: &question, hops: &hops, lost, places: nodes.named() }.tell(args.verbose, out)
}

/// A packet on its way to a node.
struct Arriving {
    node: Node,
    by: &'static str,
    packet: String,
    host: Option<String>,
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
    /// The nodes of the cluster, as far as they have a Pod of Sluice.
    members: Vec<Member>,
    /// The node of the source; none where there is but one switch.
    first: Option<String>,
    /// Where Pods that the API server knows are.
    places: BTreeMap<String, kube::PodPlace>,
}

impl<'a> Nodes<'a> {
    fn reach(args: &'a Trace, question: &Question) -> Result<Self, Failure> {
        let cluster = match args.target.reach()? {
            Reach::Socket(_) => {
                return Ok(Self { args, cluster: None, members: Vec::new(), first: None, places: BTreeMap::new() });
            }
            Reach::Cluster(cluster) => cluster,
        };
        let mut places = BTreeMap::new();
        for named in [&question.from, &question.to] {
            let Named::Pod(name) = named else { continue };
            let (namespace, last) = name.split_once('/').unwrap_or(("default", name));
            let place = cluster.pod(namespace, last)?.ok_or_else(|| kube::no_pod(name, namespace))?;
            places.insert(name.clone(), place);
        }
        let members = cluster.members()?;
        let mut nodes = Self { args, cluster: Some(cluster), members, first: None, places };
        nodes.first = nodes.begin(question)?;
        Ok(nodes)
    }

    /// The node that the packet comes to first: that of its source; for a source outside, that whose address it is sent to.
    fn begin(&self, question: &Question) -> Result<Option<String>, Failure> {
        if let Named::Pod(name) = &question.from {
            return Ok(self.places.get(name).map(|place| place.node.clone()));
        }
        if self.args.target.cluster.node.is_some() {
            return Ok(self.args.target.cluster.node.clone());
        }
        let of = |named: &Named| match named {
            Named::Address(address) => self.with_address(*address),
            _ => None,
        };
        if let Some(member) = of(&question.from) {
            return Ok(Some(member.node.clone()));
        }
        if let (Named::Address(address), Some(cluster)) = (&question.from, &self.cluster)
            && let Some(node) = cluster.node_with_pod(*address)?
        {
            return Ok(Some(node));
        }
        Ok(of(&question.to).map(|member| member.node.clone()))
    }

    fn with_address(&self, address: IpAddr) -> Option<&Member> {
        self.members.iter().find(|member| member.addresses.contains(&address))
    }

    /// What addresses are that are no Pods': nodes, and Pods in the network of their node.
    fn named(&self) -> BTreeMap<IpAddr, String> {
        let of_nodes = self.members.iter().flat_map(|m| m.addresses.iter().map(|a| (*a, m.node.clone())));
        let mut named: BTreeMap<_, _> = of_nodes.collect();
        for (name, place) in self.places.iter().filter(|(_, place)| place.host_network) {
            named.extend(place.addresses.iter().map(|a| (*a, format!("{}, in whose network {name} is", place.node))));
        }
        named
    }

    fn first(&self) -> Result<Node, Failure> {
        match &self.cluster {
            None => Node::of(String::new(), Client::connect(&self.args.target)?, &self.args.bridge.bridge),
            Some(cluster) => self.connect(&cluster.member(self.first.as_deref())?),
        }
    }

    fn connect(&self, member: &Member) -> Result<Node, Failure> {
        let cluster = self.cluster.as_ref().ok_or_else(|| Failure::new("there is no cluster to ask"))?;
        Node::of(member.node.clone(), cluster.connect(member.ready()?)?, &self.args.bridge.bridge)
    }

    /// The packet as the host of a node sends it on, if it is for one of its ports that lead to Pods; and what the host did.
    fn redirected(&self, node: &Node, packet: &str) -> Option<(String, String)> {
        let addresses = self.members.iter().find(|m| m.node == node.name).map(|m| m.addresses.as_slice());
        node.ports.redirected(packet, |address| addresses.map_or_else(|| host::has(address), |a| a.contains(&address)))
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
    fn next(&self, node: &Node, traced: &Traced, to: &End) -> Option<Result<Arriving, String>> {
        let out = traced.outputs.first()?;
        let tunnel = node.tunnels.contains(&out.port);
        let place = self.place_of(to).filter(|place| place.node != node.name && !place.host_network);
        let end = ["tun_dst", "tun_ipv6_dst"].iter().find_map(|name| out.set.get(*name)?.as_str()?.parse().ok());
        let (member, by) = if tunnel {
            (end.and_then(|end| self.with_address(end)), "by the tunnel")
        } else if out.port == LOCAL {
            let target = host::destination(&out.packet).and_then(|address| self.with_address(address));
            (self.members.iter().find(|m| place.is_some_and(|place| place.node == m.node)).or(target), "by the host")
        } else {
            return None;
        };
        if self.cluster.is_none() && (tunnel || place.is_some()) {
            let whom = traced.rule_owner("node:").map_or(String::new(), |name| format!(" to {name}"));
            return Some(Err(format!("it goes on{whom} {by}: ask from where there is a kubeconfig to follow it")));
        }
        if member.is_none() && !tunnel {
            return None;
        }
        let follow = || -> Result<Option<Arriving>, Failure> {
            let member = member.ok_or_else(|| {
                let end = end.map_or_else(|| "-".to_owned(), |address: IpAddr| address.to_string());
                Failure::new(format!("no node with a Pod of Sluice has the address {end}"))
            })?;
            let next = self.connect(member)?;
            let sender = self.members.iter().find(|m| m.node == node.name);
            if let (true, Some(end)) = (tunnel, end) {
                let same = |a: &IpAddr| a.is_ipv4() == end.is_ipv4();
                let sender = sender.and_then(|m| m.addresses.iter().copied().find(same));
                let packet = arriving(out, &next, sender, end)?;
                return Ok(Some(Arriving { node: next, by, packet, host: None }));
            }
            let packet = format!("in_port={LOCAL},{}", inner(out));
            let masked = match sender {
                Some(sender) if sender.node != member.node => host::behind(&packet, &node.links, &sender.addresses),
                // What comes back to the switch gets the gateway's address, unless the switch has translated it.
                _ => host::from_gateway(&packet, &node.links, &node.gateways),
            };
            Ok(match self.redirected(&next, &masked) {
                Some((packet, host)) => Some(Arriving { node: next, by, packet, host: Some(host) }),
                None => place.is_some().then(|| Arriving { node: next, by, packet, host: None }),
            })
        };
        follow().map_err(|failure| failure.to_string().replace("error: ", "").replace('\n', ";")).transpose()
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
        let ports = network.as_ref().map(host::Ports::of).unwrap_or_default();
        let links = network.as_ref().map(|n| host::addresses(&n.link)).unwrap_or_default();
        let gateways = network.as_ref().and_then(|n| n.spec.as_ref()).map(|spec| host::addresses(&spec.gateway));
        let gateways = gateways.unwrap_or_default();
        let of_network = network.and_then(|n| n.spec).map(|spec| spec.bridge).unwrap_or_default();
        let bridge = if bridge.is_empty() { of_network } else { bridge.to_owned() };
        let request = ListTunnelsRequest { bridge: bridge.clone(), probe_timeout_ms: 0 };
        let tunnels = client.call(client.tunnels().list_tunnels(request))?.tunnels;
        let tunnels = tunnels.into_iter().filter_map(|t| Some(t.port?.spec?.number)).collect();
        let tables =
            client.call(client.tables().list_tables(ListTablesRequest { bridge: bridge.clone(), all: false }))?;
        let tables = tables.tables.into_iter().filter(|t| !t.name.is_empty()).map(|t| (t.table, t.name)).collect();
        Ok(Self { name, client, attachments, bridge, gateway_mac, ports, links, gateways, tunnels, tables })
    }

    fn into_hop(self, by: &'static str, host: Option<String>, traced: Traced) -> Hop {
        let pods = self.attachments.iter().filter_map(|a| Some((a.number, kube::pod_of(a)?))).collect();
        Hop { node: self.name, by, host, traced, tables: self.tables, pods, tunnels: self.tunnels }
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
