//! Services as they stand in a switch: from the flows and groups that a node's controller makes for each, whose owner is
//! `svc:NAMESPACE/NAME`.
//!
//! A flow that matches a protocol, an address and a port is a frontend. It sends to a group, or names one in `reg7` where clients
//! keep their endpoint; each bucket is an endpoint. Where it does neither, nobody is there.

use crate::client::Client;
use crate::failure::Failure;
use crate::kube;
use serde::Serialize;
use sluice_proto::v1::{
    Attachment, Connection, DumpFlowsRequest, Flow, FlowFilter, Group, ListConnectionsRequest, ListGroupsRequest,
    ListNetworksRequest, Network,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

/// The bit of `reg0` of what comes from outside the cluster.
const FROM_OUTSIDE: u64 = 0x100;
/// The connections of Services: the zone that has the addresses that clients used, and the bit of their mark.
const CONNECTIONS: &str = "zone=65000,ct_mark=0x10/0x10";

/// An address and port that clients of a Service use.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Frontend {
    /// `NAMESPACE/NAME`.
    pub(super) service: String,
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) protocol: &'static str,
    /// `ClusterIP`, `NodePort` or `External`.
    pub(super) kind: &'static str,
    /// Who gets these endpoints: `any`, `inside`, `outside`, or a network.
    pub(super) from: String,
    /// What happens to packets where there is no endpoint: `reject` or `drop`.
    pub(super) refused: Option<&'static str>,
    pub(super) affinity_s: Option<u32>,
    pub(super) group: Option<u32>,
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

impl Frontend {
    /// Address and port.
    pub(super) fn shown(&self) -> String {
        SocketAddr::new(self.address, self.port).to_string()
    }

    /// Takes in another one for the same clients: an external address that is the node's own has two, for those by the host and for
    /// Pods.
    fn takes_in(&mut self, other: &Self) -> bool {
        let key = |f: &Self| (f.service.clone(), f.protocol, f.address, f.port, f.from.clone());
        let is_same = key(self) == key(other);
        if is_same {
            self.packets = self.packets.saturating_add(other.packets);
            self.bytes = self.bytes.saturating_add(other.bytes);
        }
        is_same
    }
}

/// Where the ports of the node's host arrive at the switch.
#[derive(Debug, Default)]
struct Arrivals {
    /// The addresses that the host sends to.
    addresses: BTreeSet<IpAddr>,
    /// The ports of single addresses of the host, by protocol, family and where they arrive.
    single: HashMap<(String, bool, u32), SocketAddr>,
}

impl Arrivals {
    fn of(networks: &[Network]) -> Self {
        let addresses = networks.iter().flat_map(|n| &n.incoming).filter_map(|address| address.parse().ok()).collect();
        let single = networks.iter().flat_map(|n| &n.incoming_ports).filter_map(|arrival| {
            let port = arrival.port.as_ref()?;
            let address: IpAddr = port.address.parse().ok()?;
            let at = SocketAddr::new(address, u16::try_from(port.port).ok()?);
            Some(((port.protocol.clone(), address.is_ipv6(), arrival.incoming_port), at))
        });
        Self { addresses, single: single.collect() }
    }

    /// The port of the host that arrives here; of a port of all its addresses, with the unspecified one.
    fn port(&self, protocol: &str, address: IpAddr, port: u16) -> Option<SocketAddr> {
        let any = match address {
            IpAddr::V4(_) => IpAddr::from([0u8; 4]),
            IpAddr::V6(_) => IpAddr::from([0u16; 8]),
        };
        self.addresses.contains(&address).then(|| {
            let single = self.single.get(&(protocol.to_owned(), address.is_ipv6(), u32::from(port)));
            single.copied().unwrap_or(SocketAddr::new(any, port))
        })
    }
}

/// Where connections go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Endpoint {
    /// With its port.
    pub(super) address: String,
    /// `NAMESPACE/NAME`, if it is a Pod of this node.
    pub(super) pod: Option<String>,
    /// How many connections got it.
    pub(super) chosen: u64,
    /// Those that are tracked.
    pub(super) connections: u64,
    /// The packets of these, in both directions.
    pub(super) packets: u64,
}

/// The Services of a switch.
#[derive(Debug, Default)]
pub(crate) struct Services {
    /// Sorted by Service, protocol, address and port.
    pub(super) frontends: Vec<Frontend>,
    groups: BTreeMap<u32, (Vec<Endpoint>, Option<u32>)>,
}

impl Services {
    /// The Services of a switch, or the one that is named.
    pub(crate) fn read(client: &Client, bridge: &str, name: Option<&str>) -> Result<Self, Failure> {
        let owner = name.map_or("svc:*".to_owned(), |name| format!("svc:{name}"));
        let flows = flows(client, bridge, &owner)?;
        let request = ListGroupsRequest { bridge: bridge.to_owned(), ..ListGroupsRequest::default() };
        let groups = client.collect(client.groups().list_groups(request))?;
        let groups = groups.into_iter().flat_map(|part| part.groups).filter(|group| group.owner.starts_with("svc:"));
        let groups: Vec<_> = groups.collect();
        let networks = client.call(client.attachments().list_networks(ListNetworksRequest {}))?.networks;
        let cidrs = self::flows(client, bridge, "builtin:service")?;
        let mut services = Self::of(&flows, &groups, &Arrivals::of(&networks), &networks_of(&cidrs));
        if name.is_some() && !services.frontends.is_empty() {
            let request = ListConnectionsRequest { filter: CONNECTIONS.to_owned() };
            let connections = client.collect(client.connections().list_connections(request))?;
            services.count(connections.into_iter().flat_map(|part| part.connections));
            services.name(&kube::attachments(client)?);
        }
        Ok(services)
    }

    fn of(flows: &[Flow], groups: &[Group], arrivals: &Arrivals, cidrs: &[ipnet::IpNet]) -> Self {
        // Endpoints of Services whose clients keep theirs have flows of their own, by the group's number and theirs.
        let kept: HashMap<(u32, u32), (&Flow, &str)> = flows
            .iter()
            .filter_map(|f| {
                let matching = Match::of(&f.r#match);
                let key = (matching.value("reg7")?, matching.value("reg3")?);
                Some((key, (f, translated(&f.actions)?)))
            })
            .collect();
        let groups: BTreeMap<u32, _> = groups.iter().map(|g| (g.id, endpoints(g, &kept))).collect();
        let mut frontends: Vec<_> = flows.iter().filter_map(|f| frontend(f, arrivals, cidrs, &groups)).collect();
        frontends.sort_by(|a, b| {
            (&a.service, a.protocol, a.address, a.port, &a.from, a.kind)
                .cmp(&(&b.service, b.protocol, b.address, b.port, &b.from, b.kind))
        });
        frontends.dedup_by(|later, first| first.takes_in(later));
        // What most people look for comes first.
        frontends.sort_by(|a, b| (&a.service, a.kind != "ClusterIP").cmp(&(&b.service, b.kind != "ClusterIP")));
        Self { frontends, groups }
    }

    /// The addresses of a Service inside the cluster, for clients of a protocol and port.
    ///
    /// # Errors
    /// It has no such port, or is not there.
    pub(crate) fn addresses(&self, name: &str, protocol: &str, port: Option<u16>) -> Result<Vec<IpAddr>, Failure> {
        let ports = self.frontends.iter().filter(|f| f.kind != "NodePort");
        let ports: BTreeSet<_> = ports.map(|f| (f.protocol, f.port)).collect();
        let known = ports.iter().map(|(protocol, port)| format!("{port} {protocol}")).collect::<Vec<_>>().join(", ");
        if known.is_empty() {
            return Err(Failure::new(format!("there is no Service {name} in the switch"))
                .why("headless Services have no address, and no flows")
                .next("sluice svc; kubectl get services -A"));
        }
        let wrong = |what: &str| Failure::usage(format!("{what} svc:{name}")).next(format!("it has: {known}"));
        let Some(port) = port else { return Err(wrong("say a port of")) };
        let mut found: Vec<_> = self
            .frontends
            .iter()
            .filter(|f| f.protocol == protocol && f.port == port && f.kind != "NodePort")
            .collect();
        found.sort_by_key(|f| (f.kind != "ClusterIP", f.address.is_ipv6()));
        if found.is_empty() {
            Err(wrong("there is no such port of"))
        } else {
            Ok(found.iter().map(|f| f.address).collect())
        }
    }

    /// The endpoints that clients of a frontend get.
    pub(super) fn endpoints_of(&self, frontend: &Frontend) -> &[Endpoint] {
        let group = frontend.group.and_then(|group| self.groups.get(&group));
        group.map_or(&[], |(endpoints, _)| endpoints)
    }

    /// Credits connections to the endpoints that they go to.
    fn count(&mut self, connections: impl Iterator<Item = Connection>) {
        let mut groups: HashMap<(&'static str, IpAddr, u16), BTreeSet<u32>> = HashMap::new();
        for f in &self.frontends {
            groups.entry((f.protocol, f.address, f.port)).or_default().extend(f.group);
        }
        for c in connections {
            let (Some(original), Some(reply)) = (c.original, c.reply) else { continue };
            let (Ok(address), Ok(end)) = (original.dst.parse::<IpAddr>(), reply.src.parse::<IpAddr>()) else {
                continue;
            };
            let (Ok(port), Ok(end_port)) = (u16::try_from(original.dst_port), u16::try_from(reply.src_port)) else {
                continue;
            };
            let endpoint = SocketAddr::new(end, end_port).to_string();
            let packets = |count: Option<sluice_proto::v1::TrafficCount>| count.map_or(0, |c| c.packets);
            let packets = packets(c.original_count) + packets(c.reply_count);
            for group in groups.get(&(protocol_of(c.proto), address, port)).into_iter().flatten() {
                let endpoints = self.groups.get_mut(group).into_iter().flat_map(|(endpoints, _)| endpoints);
                for e in endpoints.filter(|e| e.address == endpoint) {
                    e.connections += 1;
                    e.packets += packets;
                }
            }
        }
    }

    /// Says which endpoints are Pods of this node.
    fn name(&mut self, attachments: &[Attachment]) {
        let mut pods = HashMap::new();
        for attachment in attachments {
            let (Some(pod), Some(spec)) = (kube::pod_of(attachment), &attachment.spec) else { continue };
            for address in spec.addresses.iter().filter_map(|a| a.parse::<ipnet::IpNet>().ok()) {
                pods.insert(address.addr(), pod.clone());
            }
        }
        for endpoint in self.groups.values_mut().flat_map(|(endpoints, _)| endpoints) {
            let address = endpoint.address.parse::<SocketAddr>().ok();
            endpoint.pod = address.and_then(|address| pods.get(&address.ip()).cloned());
        }
    }
}

fn flows(client: &Client, bridge: &str, owner: &str) -> Result<Vec<Flow>, Failure> {
    let filter = FlowFilter { owner: owner.to_owned(), ..FlowFilter::default() };
    let request = DumpFlowsRequest { bridge: bridge.to_owned(), filter: Some(filter), ..DumpFlowsRequest::default() };
    Ok(client.collect(client.flows().dump_flows(request))?.into_iter().flat_map(|part| part.flows).collect())
}

/// The networks that are rejected where no Service is: those that Services get their addresses from.
fn networks_of(flows: &[Flow]) -> Vec<ipnet::IpNet> {
    let destination = |f: &Flow| Match::of(&f.r#match).destination().and_then(|text| text.parse().ok());
    flows.iter().filter_map(destination).collect()
}

/// A match's words.
struct Match<'a> {
    words: Vec<(&'a str, &'a str)>,
}

impl<'a> Match<'a> {
    fn of(text: &'a str) -> Self {
        let words = text.split(',').map(|word| word.trim().split_once('=').unwrap_or((word.trim(), "")));
        Self { words: words.collect() }
    }

    fn text(&self, names: &[&str]) -> Option<&'a str> {
        self.words.iter().find(|(name, _)| names.contains(name)).map(|(_, value)| *value)
    }

    fn destination(&self) -> Option<&'a str> {
        self.text(&["nw_dst", "ip_dst", "ipv6_dst"])
    }

    fn value(&self, name: &str) -> Option<u32> {
        u32::try_from(number(self.text(&[name])?)?).ok()
    }

    fn protocol(&self) -> Option<&'static str> {
        self.words.iter().find_map(|(name, _)| match *name {
            "tcp" | "tcp6" => Some("tcp"),
            "udp" | "udp6" => Some("udp"),
            "sctp" | "sctp6" => Some("sctp"),
            _ => None,
        })
    }
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn frontend(
    f: &Flow,
    arrivals: &Arrivals,
    cidrs: &[ipnet::IpNet],
    groups: &BTreeMap<u32, (Vec<Endpoint>, Option<u32>)>,
) -> Option<Frontend> {
    let matching = Match::of(&f.r#match);
    let address: IpAddr = matching.destination()?.parse().ok()?;
    let port = matching.text(&["tp_dst", "tcp_dst", "udp_dst", "sctp_dst"])?.parse().ok()?;
    let group = chosen_group(&f.actions);
    let from = match (matching.text(&["nw_src", "ip_src", "ipv6_src"]), outside(matching.text(&["reg0"]))) {
        (Some(source), _) => source,
        (None, None) => "any",
        (None, Some(false)) => "inside",
        (None, Some(true)) => "outside",
    };
    let protocol = matching.protocol()?;
    let of_host = arrivals.port(protocol, address, port);
    let kind = if of_host.is_some() {
        "NodePort"
    } else if cidrs.iter().any(|cidr| cidr.contains(&address)) {
        "ClusterIP"
    } else {
        "External"
    };
    let refused = match group {
        Some(_) => None,
        None if f.actions.contains("reject") => Some("reject"),
        None => Some("drop"),
    };
    Some(Frontend {
        service: f.owner.strip_prefix("svc:")?.to_owned(),
        address: of_host.map_or(address, |at| at.ip()),
        port: of_host.map_or(port, |at| at.port()),
        protocol,
        kind,
        from: from.to_owned(),
        refused,
        affinity_s: group.and_then(|group| groups.get(&group)).and_then(|(_, affinity)| *affinity),
        group,
        packets: f.packets,
        bytes: f.bytes,
    })
}

/// What the bit of `reg0` has to be: set for what comes from outside.
fn outside(reg0: Option<&str>) -> Option<bool> {
    let (value, mask) = reg0?.split_once('/')?;
    (number(mask)? & FROM_OUTSIDE != 0).then(|| number(value).is_some_and(|value| value & FROM_OUTSIDE != 0))
}

/// The group that actions send to, or name in `reg7`.
fn chosen_group(actions: &str) -> Option<u32> {
    let digits = |text: &str| text.split(|c: char| !c.is_ascii_alphanumeric()).next().and_then(number);
    let direct = actions.split_once("group:").and_then(|(_, rest)| digits(rest));
    let kept = || {
        let before =
            ["->NXM_NX_REG7[]", "->reg7"].iter().find_map(|to| actions.split_once(to)).map(|(before, _)| before)?;
        before.rsplit_once(':').and_then(|(_, value)| number(value))
    };
    direct.or_else(kept).and_then(|id| u32::try_from(id).ok())
}

/// The endpoint that connections are translated to: `nat(dst=ADDRESS:PORT)`.
fn translated(actions: &str) -> Option<&str> {
    let (_, rest) = actions.split_once("nat(dst=")?;
    rest.split_once(')').map(|(endpoint, _)| endpoint)
}

/// A group's endpoints, and how long its clients keep theirs.
fn endpoints(group: &Group, kept: &HashMap<(u32, u32), (&Flow, &str)>) -> (Vec<Endpoint>, Option<u32>) {
    let mut affinity = None;
    let mut all = Vec::new();
    for bucket in &group.buckets {
        let found = match translated(&bucket.actions) {
            Some(address) => Some((address, bucket.packets)),
            None => {
                let seconds = bucket.actions.split_once("idle_timeout=").map(|(_, rest)| rest);
                affinity = seconds.and_then(|s| s.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
                kept.get(&(group.id, bucket.id)).map(|(flow, address)| (*address, flow.packets))
            }
        };
        let Some((address, chosen)) = found else { continue };
        all.push(Endpoint { address: address.to_owned(), chosen, ..Endpoint::default() });
    }
    all.sort_by(|a, b| a.address.cmp(&b.address));
    (all, affinity)
}

fn protocol_of(number: u32) -> &'static str {
    match number {
        6 => "tcp",
        17 => "udp",
        132 => "sctp",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_proto::v1::{Bucket, ConnectionTuple, IncomingPort, ServicePort, TrafficCount};

    fn flow(r#match: &str, actions: &str) -> Flow {
        let owner = "svc:shop/web".to_owned();
        Flow { table: 18, r#match: r#match.to_owned(), actions: actions.to_owned(), owner, ..Flow::default() }
    }

    fn group(id: u32, buckets: &[(u32, &str)]) -> Group {
        let buckets = buckets.iter().map(|(id, actions)| Bucket {
            id: *id,
            actions: (*actions).to_owned(),
            packets: 3,
            ..Bucket::default()
        });
        Group { id, owner: "svc:shop/web".to_owned(), buckets: buckets.collect(), ..Group::default() }
    }

    fn read(flows: &[Flow], groups: &[Group]) -> Services {
        let single = |address: &str, port, incoming_port| {
            let (protocol, address) = ("tcp".to_owned(), address.to_owned());
            IncomingPort {
                port: Some(ServicePort { protocol, address, port, v6: false }),
                incoming_port,
                ..IncomingPort::default()
            }
        };
        let network = Network {
            incoming: vec!["169.254.77.3".to_owned()],
            incoming_ports: vec![
                single("192.0.2.1", 30_081, 1024),
                single("192.0.2.1", 80, 1025),
                single("", 30_080, 30_080),
            ],
            ..Network::default()
        };
        Services::of(flows, groups, &Arrivals::of(&[network]), &["10.96.0.0/16".parse().unwrap()])
    }

    const DNAT: &str = "ct(commit,table=30,zone=65000,nat(dst=10.244.1.5:8080),exec(load:0x1->NXM_NX_CT_MARK[4]))";

    #[test]
    fn the_kind_is_told_by_the_address_and_the_scope_by_the_bit() {
        let services = read(
            &[
                flow("tcp,nw_dst=10.96.0.9,tp_dst=80", "group:7"),
                flow("tcp,reg0=0/0x100,nw_dst=169.254.77.3,tp_dst=30080", "group:7"),
                flow("tcp,reg0=0x100/0x100,nw_src=192.0.2.0/24,nw_dst=198.51.100.1,tp_dst=80", "group:7"),
            ],
            &[group(7, &[(1, DNAT)])],
        );
        let shown: Vec<_> = services.frontends.iter().map(|f| (f.shown(), f.kind, f.from.as_str())).collect();
        assert_eq!(
            shown,
            [
                ("10.96.0.9:80".to_owned(), "ClusterIP", "any"),
                ("0.0.0.0:30080".to_owned(), "NodePort", "inside"),
                ("198.51.100.1:80".to_owned(), "External", "192.0.2.0/24"),
            ]
        );
        assert_eq!(services.endpoints_of(&services.frontends[0])[0].address, "10.244.1.5:8080");
    }

    #[test]
    fn a_port_of_one_address_of_the_host_is_shown_as_clients_know_it() {
        let counted = |f: Flow, packets| Flow { packets, ..f };
        let services = read(
            &[
                flow("tcp,nw_dst=169.254.77.3,tp_dst=1024", "group:7"),
                counted(flow("tcp,nw_dst=169.254.77.3,tp_dst=1025", "group:7"), 3),
                counted(flow("tcp,nw_dst=192.0.2.1,tp_dst=80", "group:7"), 4),
            ],
            &[group(7, &[(1, DNAT)])],
        );
        let shown: Vec<_> = services.frontends.iter().map(|f| (f.shown(), f.kind, f.packets)).collect();
        let wanted = [("192.0.2.1:80".to_owned(), "External", 7), ("192.0.2.1:30081".to_owned(), "NodePort", 0)];
        assert_eq!(shown, wanted);
    }

    #[test]
    fn an_address_without_endpoints_says_what_it_does_instead() {
        let services = read(
            &[flow("udp,nw_dst=10.96.0.9,tp_dst=53", "reject()"), flow("tcp,nw_dst=10.96.0.9,tp_dst=53", "drop")],
            &[],
        );
        let refused: Vec<_> = services.frontends.iter().map(|f| f.refused).collect();
        assert_eq!(refused, [Some("drop"), Some("reject")]);
    }

    #[test]
    fn endpoints_of_clients_that_keep_theirs_are_found_by_their_flows() {
        let services = read(
            &[
                flow("tcp,nw_dst=10.96.0.9,tp_dst=80", "load:0x7->NXM_NX_REG7[],load:0->NXM_NX_REG3[],resubmit(,19)"),
                flow("ip,reg3=0x2a,reg7=0x7", DNAT),
            ],
            &[group(
                7,
                &[(42, "load:0x2a->NXM_NX_REG3[],learn(table=19,idle_timeout=10800,priority=200),resubmit(,21)")],
            )],
        );
        assert_eq!(services.frontends.len(), 1);
        let f = &services.frontends[0];
        assert_eq!((f.group, f.affinity_s), (Some(7), Some(10_800)));
        assert_eq!(services.endpoints_of(f)[0].address, "10.244.1.5:8080");
    }

    #[test]
    fn connections_count_for_the_endpoint_that_answers_them() {
        let mut services = read(&[flow("tcp,nw_dst=10.96.0.9,tp_dst=80", "group:7")], &[group(7, &[(1, DNAT)])]);
        let tuple = |src: &str, src_port, dst: &str, dst_port| {
            Some(ConnectionTuple { src: src.to_owned(), src_port, dst: dst.to_owned(), dst_port, ..Default::default() })
        };
        let connection = |end: &str| Connection {
            proto: 6,
            original: tuple("10.244.1.2", 4000, "10.96.0.9", 80),
            reply: tuple(end, 8080, "10.244.1.2", 4000),
            original_count: Some(TrafficCount { packets: 4, bytes: 0 }),
            reply_count: Some(TrafficCount { packets: 3, bytes: 0 }),
            ..Connection::default()
        };
        services.count([connection("10.244.1.5"), connection("10.244.1.6")].into_iter());
        let endpoint = &services.endpoints_of(&services.frontends[0])[0];
        assert_eq!((endpoint.chosen, endpoint.connections, endpoint.packets), (3, 1, 7));
    }
}
