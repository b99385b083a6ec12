//! What a gateway's interface is to have on the host, as plain data, and how it is marked as ours.
//!
//! Everything that the kernel lets us mark is marked, so that what is ours can be told from what others put there, by us
//! after a crash and by whoever looks: addresses, routes and rules by [`PROTOCOL`], the interface by its alias, nftables
//! rules by a comment. All of it hangs on one interface: routes and neighbours lead to it, rules ask about packets that
//! came by it, the nftables table is named after it. So several switches on one host never mistake each other's things.

use super::ports::HostPorts;
use super::routing::{MAIN_TABLE, metric_of};
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;

/// The number by which the host's addresses, routes and rules are known as ours (`proto 83` in what `ip` prints).
pub const PROTOCOL: u8 = 83;

/// What an interface of the host is to be and to have. An empty one is what is left when all of ours is removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSide {
    /// The interface, which exists.
    pub link: String,
    /// What is written on it, `None` to leave that.
    pub alias: Option<String>,
    /// Its hardware address; `None` leaves it as it is.
    pub mac: Option<[u8; 6]>,
    /// Longest network-layer packet, in bytes; `None` leaves it as it is.
    pub mtu: Option<u32>,
    /// Whether it is to be set up.
    pub up: bool,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Routes that lead to it.
    pub routes: Vec<RouteSpec>,
    /// Rules about packets that came by it.
    pub rules: Vec<RuleSpec>,
    /// Neighbours behind it whose hardware addresses are known for good.
    pub neighbours: Vec<NeighbourSpec>,
    /// Settings of the kernel, in order.
    pub sysctls: Vec<Sysctl>,
    /// Source addresses that the host hides behind its own when their packets leave by another interface.
    pub masquerade: Vec<IpAddr>,
    /// The host's ports that lead to it.
    pub ports: HostPorts,
    /// Whether firewalls that ask others are to let pass what comes in or goes out by it.
    pub accept: bool,
}

/// A route to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteSpec {
    /// Where it leads to.
    pub to: IpNet,
    /// The next hop; none for what is on the link itself.
    pub via: Option<IpAddr>,
    /// The address that the host itself sends from by it.
    pub source: Option<IpAddr>,
    /// Lower is better; the kernel's own choice if none.
    pub metric: Option<u32>,
    /// The routing table; the main one if none.
    pub table: Option<u32>,
}

impl RouteSpec {
    /// A route to what is on the link.
    pub fn on_link(to: IpNet) -> Self {
        Self { to, via: None, source: None, metric: None, table: None }
    }

    /// Its metric, said or not.
    pub fn metric(&self) -> u32 {
        metric_of(self.to, self.metric)
    }

    /// Its table, said or not.
    pub fn table(&self) -> u32 {
        self.table.unwrap_or(MAIN_TABLE)
    }
}

/// A rule of policy routing to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSpec {
    /// Lower comes first.
    pub priority: u32,
    /// Of IPv6.
    pub v6: bool,
    /// Sources it is about; all if none.
    pub from: Option<IpNet>,
    /// Destinations it is about; all if none.
    pub to: Option<IpNet>,
    /// The table that is asked.
    pub table: u32,
}

/// A neighbour to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourSpec {
    /// Its address.
    pub address: IpAddr,
    /// Its hardware address.
    pub mac: [u8; 6],
}

/// A setting of the kernel that is to have a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// Its path below `/proc/sys`, as `net/ipv4/ip_forward`.
    pub path: String,
    /// Its value.
    pub value: &'static str,
}

impl Sysctl {
    /// The setting at `path` is to be `value`.
    pub fn new(path: impl Into<String>, value: &'static str) -> Self {
        Self { path: path.into(), value }
    }
}

impl fmt::Display for Sysctl {
    /// As `sysctl` says it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.path, self.value)
    }
}
