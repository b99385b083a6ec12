//! A topology with every default filled in: names, ports, MACs and addresses are all decided.

pub(crate) mod dhcp;
pub(crate) mod test;
pub(crate) mod uplink;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use sluice_flows::PortNo;
use sluice_flows::bridge::{VlanId, VlanMode};
use sluice_flows::text::Names;
use sluice_switch::port::WireSettings;

use dhcp::DhcpServer;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use test::Test;
use uplink::Uplink;

/// Longest name of a network interface: `IFNAMSIZ` less the zero that ends it.
pub(crate) const INTERFACE_NAME_MAX: usize = 15;

/// A MAC address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Mac(pub(crate) [u8; 6]);

impl Mac {
    /// The address written as six hexadecimal bytes with colons.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2)?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        parts.next().is_none().then_some(Self(bytes))
    }

    /// Whether the address can belong to one interface.
    pub(crate) fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text} is not a MAC address"))
    }
}

/// A whole lab, ready to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Topology {
    /// The lab's name.
    pub(crate) name: String,
    /// Where it came from: the file's path, or the preset.
    pub(crate) source: String,
    /// What every random choice follows from.
    pub(crate) seed: u64,
    /// In the order of the file.
    pub(crate) hosts: Vec<Host>,
    /// In the order of the file.
    pub(crate) switches: Vec<Switch>,
    /// In the order of the file.
    pub(crate) vlans: Vec<Vlan>,
    /// In the order of the file, then those inside of switches.
    pub(crate) routers: Vec<Router>,
    /// In the order of the file.
    pub(crate) links: Vec<Link>,
    /// In the order of the file.
    pub(crate) tunnels: Vec<Tunnel>,
    /// The way to the machine's network, if there is one.
    #[serde(default)]
    pub(crate) uplink: Option<Uplink>,
    /// One for each VLAN with `dhcp:`.
    #[serde(default)]
    pub(crate) dhcp: Vec<DhcpServer>,
    /// In the order of the file.
    pub(crate) tests: Vec<Test>,
}

impl Topology {
    /// The host with this name.
    pub(crate) fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|h| h.name == name)
    }

    /// The path of a file that is given as seen from the topology file.
    pub(crate) fn beside(&self, path: &str) -> String {
        Path::new(&self.source).with_file_name("").join(path).display().to_string()
    }

    /// The routers that stand in the file; the others are inside of switches.
    pub(crate) fn own_routers(&self) -> impl Iterator<Item = &Router> {
        self.routers.iter().filter(|router| router.inside.is_none())
    }

    /// The names of all nodes: hosts, switches, routers.
    pub(crate) fn node_names(&self) -> impl Iterator<Item = &str> {
        let hosts = self.hosts.iter().map(|host| host.name.as_str());
        let switches = self.switches.iter().map(|switch| switch.name.as_str());
        hosts.chain(switches).chain(self.own_routers().map(|router| router.name.as_str()))
    }

    /// The names that a rule of this switch may use.
    pub(crate) fn port_names(&self, switch: &str) -> Names {
        let mut names = Names::new();
        self.ports_of(switch).for_each(|(number, name)| names.add_port(PortNo(number), name));
        names
    }

    /// The ports of a switch by number, with their names in the datapath.
    pub(crate) fn ports_of(&self, switch: &str) -> impl Iterator<Item = (u16, String)> {
        let links = self.links.iter().flat_map(|link| [(&link.ends[0], &link.ends[1]), (&link.ends[1], &link.ends[0])]);
        let links = links.filter_map(move |(end, peer)| match end {
            End::Switch { switch: name, port } if name == switch => Some((*port, port_name(end, peer))),
            _ => None,
        });
        let tunnels = self.tunnels.iter().flat_map(move |tunnel| {
            let ends = tunnel.ends.iter().filter(move |end| end.switch == switch);
            ends.map(|end| (end.port, tunnel.port_name(end)))
        });
        let inside = self.routers.iter().filter_map(|router| router.inside.as_ref());
        let inside = inside.filter(move |inside| inside.switch == switch);
        let uplink = self.uplink.iter().filter(move |uplink| uplink.switch == switch);
        let uplink = uplink.map(|uplink| (uplink.port, uplink.port_name()));
        let dhcp = self.dhcp.iter().filter(move |server| server.switch == switch);
        let dhcp = dhcp.map(|server| (server.port, server.port_name()));
        links.chain(tunnels).chain(inside.map(|inside| (inside.port, inside.port_name()))).chain(uplink).chain(dhcp)
    }

    /// The link by which the host that a switch mirrors to gets its copies: the first of the two. With it, the switch's end
    /// of it and the host's.
    pub(crate) fn mirror(&self, switch: &Switch) -> Option<(&Link, [&End; 2])> {
        let host = switch.mirror.as_deref()?;
        self.links.iter().find_map(|link| {
            let [a, b] = &link.ends;
            let ends = if a.node() == host { [b, a] } else { [a, b] };
            (ends[0].node() == switch.name && ends[1].node() == host).then_some((link, ends))
        })
    }

    /// The VLAN with this name.
    pub(crate) fn vlan(&self, name: &str) -> Option<&Vlan> {
        self.vlans.iter().find(|v| v.name == name)
    }

    /// How a port of a switch carries the VLANs of its link.
    pub(crate) fn vlan_mode(&self, carried: &Carried) -> VlanMode {
        let id = |name: &String| self.vlan(name).and_then(|v| VlanId::new(v.id));
        let ids = |names: &[String]| names.iter().filter_map(id).collect::<Arc<[VlanId]>>();
        match carried {
            Carried::All => VlanMode::default(),
            Carried::Access(name) => id(name).map_or_else(VlanMode::default, VlanMode::Access),
            Carried::Trunk { vlans, native: None } => VlanMode::Trunk { trunks: ids(vlans) },
            Carried::Trunk { vlans, native: Some(native) } => {
                let trunks = ids(vlans);
                id(native).map_or_else(VlanMode::default, |native| VlanMode::Native { trunks, native, tagged: false })
            }
        }
    }

    /// The switches that have a network namespace of their own, for their ends of routed links.
    pub(crate) fn stacks(&self) -> Vec<&str> {
        let ends = self.links.iter().flat_map(|l| &l.ends);
        let mut names: Vec<_> = ends.filter(|e| matches!(e, End::Stack { .. })).map(End::node).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// A VLAN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Vlan {
    /// Its name.
    pub(crate) name: String,
    /// Its number on the wire.
    pub(crate) id: u16,
    /// Its IPv4 addresses.
    pub(crate) subnet: Option<Ipv4Net>,
    /// Its IPv6 addresses.
    pub(crate) subnet6: Option<Ipv6Net>,
    /// The router or switch that hosts send to what is elsewhere.
    pub(crate) gateway: Option<String>,
    /// Its number in tunnels.
    pub(crate) vni: Option<u32>,
    /// The routing domain that its gateway has it in.
    pub(crate) vrf: Option<String>,
}

/// A router: a bridge of its own that routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Router {
    /// Its name, also its bridge's.
    pub(crate) name: String,
    /// The switch that it is a part of, if that is a gateway.
    pub(crate) inside: Option<Inside>,
    /// One per link, or per VLAN of a link that carries several.
    pub(crate) interfaces: Vec<RouterInterface>,
    /// Static routes.
    pub(crate) routes: Vec<Route>,
    /// Where it translates, if it does.
    #[serde(default)]
    pub(crate) nat: Option<RouterNat>,
}

impl Router {
    /// The interface that it translates at.
    pub(crate) fn nat_interface(&self) -> Option<&RouterInterface> {
        let nat = self.nat.as_ref()?;
        self.interfaces.iter().find(|interface| interface.name == nat.interface)
    }
}

/// What leaves a router by one of its interfaces does so behind the interface's addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RouterNat {
    /// The interface.
    pub(crate) interface: String,
    /// Line in the file.
    pub(crate) line: usize,
}

/// What joins a switch to the router inside of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inside {
    /// The switch.
    pub(crate) switch: String,
    /// The OpenFlow port number there. At the router it is 1.
    pub(crate) port: u16,
}

impl Inside {
    /// Name of the switch's port.
    pub(crate) fn port_name(&self) -> String {
        format!("{}.gw", self.switch)
    }

    /// Name of the router's port.
    pub(crate) fn peer_name(&self) -> String {
        format!("gw.{}", self.switch)
    }
}

/// An interface of a router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RouterInterface {
    /// Its name: that of what is at the other end, and of the VLAN if the link carries several.
    pub(crate) name: String,
    /// The OpenFlow port number in the router's bridge.
    pub(crate) port: u16,
    /// The other end, for a person.
    pub(crate) peer: String,
    /// The VLAN that it is in.
    pub(crate) vlan: Option<String>,
    /// The tag of its frames; none when they have none.
    pub(crate) tag: Option<u16>,
    /// Its routing domain; none for the router's own.
    pub(crate) vrf: Option<String>,
    /// Its MAC address.
    pub(crate) mac: Mac,
    /// Largest packet, in bytes.
    pub(crate) mtu: u32,
    /// Its addresses with their prefix lengths.
    pub(crate) addresses: Vec<IpNet>,
    /// Line in the file.
    pub(crate) line: usize,
}

/// A static route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Route {
    /// Where to.
    pub(crate) to: IpNet,
    /// The next hops.
    pub(crate) via: Vec<IpAddr>,
    /// The routing domain; none for the router's own.
    pub(crate) vrf: Option<String>,
    /// Line in the file.
    pub(crate) line: usize,
}

/// The network that every address of a next hop's IP version is in: where a default route leads.
pub(crate) fn everywhere(via: IpAddr) -> IpNet {
    match via {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
    }
}

/// Kinds of tunnels that carry frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TunnelKind {
    /// RFC 7348.
    Vxlan,
    /// RFC 8926.
    Geneve,
    /// Ethernet in GRE: RFC 2784, with the key of RFC 2890.
    Gre,
}

impl TunnelKind {
    /// Its name in files, tables and ports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::Gre => "gre",
        }
    }
}

/// A tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tunnel {
    /// Its name.
    pub(crate) name: String,
    /// What its packets look like.
    pub(crate) kind: TunnelKind,
    /// The number of the virtual network; none for GRE without a key.
    pub(crate) vni: Option<u32>,
    /// What it carries.
    pub(crate) carried: Carried,
    /// One or two; one if the other is on another machine.
    pub(crate) ends: Vec<TunnelEnd>,
    /// The link that its packets take; none to another machine.
    pub(crate) over: Option<String>,
    /// Largest packet of the link, in bytes.
    pub(crate) mtu: Option<u32>,
    /// Line in the file.
    pub(crate) line: usize,
}

impl Tunnel {
    /// Name of the port at one of its ends.
    pub(crate) fn port_name(&self, end: &TunnelEnd) -> String {
        format!("{}.{}", end.switch, self.name)
    }
}

/// One end of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TunnelEnd {
    /// The switch.
    pub(crate) switch: String,
    /// The OpenFlow port number there.
    pub(crate) port: u16,
    /// Its own address; the machine's routes choose when none.
    pub(crate) local: Option<IpAddr>,
    /// The other end's.
    pub(crate) remote: IpAddr,
}

/// A host: one network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Host {
    /// Its name, also its hostname.
    pub(crate) name: String,
    /// What its commands find in their environment.
    pub(crate) env: BTreeMap<String, String>,
    /// What it runs for as long as the lab is up, as a shell has it.
    pub(crate) run: Option<String>,
    /// One per link.
    pub(crate) interfaces: Vec<Interface>,
}

/// A host's end of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Interface {
    /// `eth0` and so on.
    pub(crate) name: String,
    /// Its MAC address.
    pub(crate) mac: Mac,
    /// Largest packet, in bytes.
    pub(crate) mtu: u32,
    /// Its addresses with their prefix lengths.
    pub(crate) addresses: Vec<IpNet>,
    /// The switch or router at the other end.
    pub(crate) switch: String,
    /// The OpenFlow port number there.
    pub(crate) port: u16,
    /// The VLAN that it is in.
    pub(crate) vlan: Option<String>,
    /// Where packets to other networks go, one of each IP version at most.
    pub(crate) gateways: Vec<IpAddr>,
    /// Its IPv4 address and gateway come by DHCP: these are what the server gives it.
    #[serde(default)]
    pub(crate) dhcp: bool,
}

/// A switch: one bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Switch {
    /// Its name.
    pub(crate) name: String,
    /// Rules in front of ordinary switching.
    pub(crate) rules: Vec<Rule>,
    /// Groups, in force before the flows.
    pub(crate) groups: Option<RuleFile>,
    /// Flows, in force before the rules.
    pub(crate) flows: Option<RuleFile>,
    /// The host that gets a copy of all that passes.
    #[serde(default)]
    pub(crate) mirror: Option<String>,
}

/// A file of groups or flows, as Open vSwitch's tools take it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RuleFile {
    /// Where it is, seen from the topology file.
    pub(crate) path: String,
    /// What is in it, once it was [read](super::files::read).
    pub(crate) text: String,
    /// Line in the topology file.
    pub(crate) line: usize,
}

/// A named rule of a switch, as flow text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rule {
    /// Its name.
    pub(crate) name: String,
    /// `priority=..,MATCH actions=..`.
    pub(crate) flow: String,
    /// Line in the file.
    pub(crate) line: usize,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Link {
    /// Its name: given, or made of the names of its ends.
    pub(crate) name: String,
    /// Largest packet, in bytes.
    pub(crate) mtu: u32,
    /// Its two ends.
    pub(crate) ends: [End; 2],
    /// The VLANs that it carries.
    pub(crate) carried: Carried,
    /// What happens to frames from the first end to the second, and the other way.
    pub(crate) impairment: [Impairment; 2],
    /// Nothing crosses it.
    #[serde(default)]
    pub(crate) down: bool,
    /// It was given impairments while it ran, whatever they are by now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) wire: bool,
    /// For a container's, the switch's port.
    #[serde(skip)]
    pub(crate) attached: Option<String>,
    /// The two ends of a link of two switches that carries packets and no frames: interfaces in namespaces of theirs.
    pub(crate) underlay: Option<[Underlay; 2]>,
}

impl Link {
    /// The name of the port that an end of it is, which is of a switch or router.
    pub(crate) fn port_name(&self, end: &End, peer: &End) -> String {
        self.attached.clone().unwrap_or_else(|| port_name(end, peer))
    }

    /// Whether something may happen to frames on their way: it is neither a patch nor a plain port.
    pub(crate) fn is_wire(&self) -> bool {
        self.wire || self.impairment.iter().any(|i| *i != Impairment::default())
    }
}

/// What happens to frames in one direction of a link.
pub(crate) type Impairment = WireSettings;

/// The keys of a link that are impairments, as files and `sluice lab link set` have them.
pub(crate) const IMPAIRMENTS: &[&str] = WireSettings::IMPAIRMENTS;

/// A switch's end of a link that carries packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Underlay {
    /// Its MAC address.
    pub(crate) mac: Mac,
    /// Its addresses with their prefix lengths.
    pub(crate) addresses: Vec<IpNet>,
}

/// Which VLANs a link or a tunnel carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Carried {
    /// All of them, tagged, and frames without a tag.
    All,
    /// One, without tags.
    Access(String),
    /// Several, tagged.
    Trunk {
        /// These; all when empty.
        vlans: Vec<String>,
        /// And this one without tags.
        native: Option<String>,
    },
}

impl Carried {
    /// Whether frames of this VLAN go through; without a name, frames that are in none.
    pub(crate) fn carries(&self, vlan: Option<&str>) -> bool {
        match (self, vlan) {
            (Self::All, _) => true,
            (Self::Access(name), Some(vlan)) => name == vlan,
            (Self::Trunk { vlans, native }, Some(vlan)) => {
                vlans.is_empty() || native.as_deref() == Some(vlan) || vlans.iter().any(|v| v == vlan)
            }
            (Self::Access(_) | Self::Trunk { .. }, None) => false,
        }
    }
}

impl Carried {
    /// The VLANs, by their names alone.
    pub(crate) fn names(&self) -> String {
        match self {
            Self::Access(name) => name.clone(),
            Self::Trunk { vlans, native } if !vlans.is_empty() => {
                vlans.iter().chain(native).map(String::as_str).collect::<Vec<_>>().join(",")
            }
            Self::All | Self::Trunk { .. } => "all".to_owned(),
        }
    }
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("-"),
            Self::Access(vlan) => f.write_str(vlan),
            Self::Trunk { vlans, native } => {
                let native = native.as_ref().map(|n| format!("{n} (native)"));
                let all = vlans.is_empty().then(|| "all".to_owned());
                f.write_str(&vlans.iter().cloned().chain(all).chain(native).collect::<Vec<_>>().join(","))
            }
        }
    }
}

/// One end of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum End {
    /// An interface of a host.
    Host {
        /// The host.
        host: String,
        /// The interface.
        interface: String,
    },
    /// A port of a switch.
    Switch {
        /// The switch.
        switch: String,
        /// The OpenFlow port number.
        port: u16,
    },
    /// A port of a router.
    Router {
        /// The router.
        router: String,
        /// The OpenFlow port number in its bridge.
        port: u16,
    },
    /// An interface in a switch's own network namespace.
    Stack {
        /// The switch.
        stack: String,
        /// The interface.
        interface: String,
    },
}

impl End {
    /// The node's name.
    pub(crate) fn node(&self) -> &str {
        match self {
            Self::Host { host, .. } => host,
            Self::Switch { switch, .. } => switch,
            Self::Router { router, .. } => router,
            Self::Stack { stack, .. } => stack,
        }
    }

    /// Whether it is this interface of this host.
    pub(crate) fn is_interface(&self, name: &str, wanted: &str) -> bool {
        matches!(self, Self::Host { host, interface } if host == name && interface == wanted)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { host, interface } => write!(f, "{host}:{interface}"),
            Self::Switch { switch: node, port } | Self::Router { router: node, port } => write!(f, "{node}:{port}"),
            Self::Stack { stack, interface } => write!(f, "{stack}:{interface}"),
        }
    }
}

/// The name of the port at a switch's end of a link. A host's first interface gives the port the host's own name, so
/// that a rule can say `in_port=h1`; the others are `h1.eth1`. A port to another switch or router is `s1.s2`, one of a tunnel
/// `s1.t1`. No node has a dot in its name, no two links join the same switches and routers, and no tunnel is called like a
/// node, so no two ports have the same name.
pub(crate) fn port_name(end: &End, peer: &End) -> String {
    match peer {
        End::Host { host, interface } if interface == "eth0" => host.clone(),
        End::Host { host, interface } => format!("{host}.{interface}"),
        End::Switch { switch: node, .. } | End::Router { router: node, .. } | End::Stack { stack: node, .. } => {
            format!("{}.{node}", end.node())
        }
    }
}
