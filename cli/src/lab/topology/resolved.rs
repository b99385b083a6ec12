//! A topology with every default filled in: names, ports, MACs and addresses are all decided.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sluice_flows::PortNo;
use sluice_flows::text::Names;
use std::collections::BTreeMap;
use std::fmt;

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
    pub(crate) links: Vec<Link>,
}

impl Topology {
    /// The host with this name.
    pub(crate) fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|h| h.name == name)
    }

    /// The names that a rule of this switch may use.
    pub(crate) fn port_names(&self, switch: &str) -> Names {
        let mut names = Names::new();
        self.ports_of(switch).for_each(|(number, name)| names.add_port(PortNo(number), name));
        names
    }

    /// The ports of a switch by number, with their names in the datapath.
    pub(crate) fn ports_of(&self, switch: &str) -> impl Iterator<Item = (u16, String)> {
        self.links.iter().flat_map(|link| [(&link.ends[0], &link.ends[1]), (&link.ends[1], &link.ends[0])]).filter_map(
            move |(end, peer)| match end {
                End::Switch { switch: name, port } if name == switch => Some((*port, port_name(end, peer))),
                _ => None,
            },
        )
    }
}

/// A host: one network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Host {
    /// Its name, also its hostname.
    pub(crate) name: String,
    /// What its commands find in their environment.
    pub(crate) env: BTreeMap<String, String>,
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
    /// The switch at the other end.
    pub(crate) switch: String,
    /// The OpenFlow port number there.
    pub(crate) port: u16,
}

/// A switch: one bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Switch {
    /// Its name.
    pub(crate) name: String,
    /// Rules in front of ordinary switching.
    pub(crate) rules: Vec<Rule>,
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
}

impl End {
    /// The node's name.
    pub(crate) fn node(&self) -> &str {
        match self {
            Self::Host { host, .. } => host,
            Self::Switch { switch, .. } => switch,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { host, interface } => write!(f, "{host}:{interface}"),
            Self::Switch { switch, port } => write!(f, "{switch}:{port}"),
        }
    }
}

/// The name of the port at a switch's end of a link. A host's first interface gives the port the host's own name, so
/// that a rule can say `in_port=h1`; the others are `h1.eth1`. A port to another switch is `s1.s2`. No node has a dot in
/// its name and no two links join the same switches, so no two ports have the same name.
pub(crate) fn port_name(end: &End, peer: &End) -> String {
    match peer {
        End::Host { host, interface } if interface == "eth0" => host.clone(),
        End::Host { host, interface } => format!("{host}.{interface}"),
        End::Switch { switch, .. } => format!("{}.{switch}", end.node()),
    }
}
