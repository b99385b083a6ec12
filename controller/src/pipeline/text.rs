//! How flows of the pipeline are written: the words of OVS's syntax that differ between families and protocols, and the parts of
//! matches and actions that several stages use.

use super::{Kind, ROUTER_MAC, Stage};
use crate::facts::{Endpoint, Node, Protocol};
use crate::flow::Flow;
use ipnet::IpNet;
use std::fmt::{Display, Write};
use std::net::IpAddr;
use std::sync::Arc;

/// The bit of `reg0` of what comes from outside the cluster.
pub(super) const FROM_OUTSIDE: u32 = 0x100;
/// The bit of `reg0` of what policies for ingress are not asked about.
pub(super) const EXEMPT: u32 = 0x200;
/// The bit of the mark of connections to Services.
pub(crate) const SERVICE_MARK: u32 = 0x10;
/// `LOCAL`, the port with the host behind it, as a number.
pub(super) const LOCAL: u32 = 0xfffe;
/// Matches frames that the switch's guard let pass.
pub(super) const GUARDED: &str = "reg10=0x80000000/0x80000000";
/// Drops a packet and tells its sender.
pub(super) const REJECT: &str = "reject";

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub(super) const fn of_net(net: &IpNet) -> Self {
        match net {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }

    /// The families that a node's Pods have.
    pub(crate) fn all(node: &Node) -> impl Iterator<Item = Self> + '_ {
        [Self::V4, Self::V6].into_iter().filter(|family| family.is_of(node))
    }

    /// Whether a node's Pods have addresses of this family.
    pub(super) fn is_of(self, node: &Node) -> bool {
        node.pod_cidrs.iter().any(|net| Self::of_net(net) == self)
    }

    /// Those of these addresses that are of this family.
    pub(super) fn among(self, addresses: &[IpAddr]) -> impl Iterator<Item = IpAddr> + '_ {
        addresses.iter().copied().filter(move |address| Self::of(*address) == self)
    }

    /// Those of these networks that are of this family.
    pub(super) fn nets(self, nets: &[IpNet]) -> impl Iterator<Item = IpNet> + '_ {
        nets.iter().copied().filter(move |net| Self::of_net(net) == self)
    }

    /// The word for its packets.
    pub(crate) const fn ip(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ipv6",
        }
    }

    /// The field of its sources.
    pub(crate) const fn src(self) -> &'static str {
        match self {
            Self::V4 => "nw_src",
            Self::V6 => "ipv6_src",
        }
    }

    /// The field of its destinations.
    pub(crate) const fn dst(self) -> &'static str {
        match self {
            Self::V4 => "nw_dst",
            Self::V6 => "ipv6_dst",
        }
    }

    /// The word for its packets of a protocol.
    pub(crate) const fn protocol(self, protocol: Protocol) -> &'static str {
        match (self, protocol) {
            (Self::V4, Protocol::Tcp) => "tcp",
            (Self::V4, Protocol::Udp) => "udp",
            (Self::V4, Protocol::Sctp) => "sctp",
            (Self::V6, Protocol::Tcp) => "tcp6",
            (Self::V6, Protocol::Udp) => "udp6",
            (Self::V6, Protocol::Sctp) => "sctp6",
        }
    }
}

/// The host's own addresses of a family that are seen on a network: neither the loopback's nor those of one link.
pub(super) fn host_addresses(node: &Node, family: Family) -> impl Iterator<Item = IpAddr> + '_ {
    family.among(&node.addresses).filter(|address| match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unspecified() && !v6.is_unicast_link_local(),
    })
}

/// A network without what is beyond its prefix; one address is written without one.
pub(super) fn net(net: &IpNet) -> String {
    let net = net.trunc();
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

/// A hardware address as text.
pub(super) fn mac(mac: u64) -> String {
    let [_, _, bytes @ ..] = mac.to_be_bytes();
    let mut out = String::with_capacity(17);
    for (at, byte) in bytes.iter().enumerate() {
        let colon = if at == 0 { "" } else { ":" };
        // Writing to a string does not fail.
        let _ = write!(out, "{colon}{byte:02x}");
    }
    out
}

/// Matches where a packet comes from.
pub(super) fn from(kind: Kind) -> String {
    format!("reg0={:#x}/0xf", kind as u8)
}

/// Matches where a packet comes from and where it goes.
pub(super) fn between(from: Kind, to: Kind) -> String {
    format!("reg0={:#x}/0xff", (to as u8) << 4 | from as u8)
}

/// Sends a packet out by a port, to the host or a Pod or the tunnel, with these addresses: to the stages behind [`Stage::Route`].
pub(super) fn route(port: u32, kind: Kind, dst: u64) -> String {
    let next = if kind == Kind::Pod { Stage::IngressAdmin } else { Stage::Commit };
    format!(
        "mod_dl_src:{},mod_dl_dst:{},load:{port:#x}->NXM_NX_REG1[],load:{:#x}->NXM_NX_REG0[4..7],{}",
        mac(ROUTER_MAC),
        mac(dst),
        kind as u8,
        goto(next)
    )
}

/// Goes on in a later stage.
pub(super) fn goto(stage: Stage) -> String {
    format!("goto_table:{}", stage.table())
}

/// Makes a connection to an endpoint: it is remembered with its Service's address, and policies are asked about the endpoint's.
pub(super) fn dnat(to: Endpoint) -> String {
    let to = match to.address {
        IpAddr::V4(v4) => format!("{v4}:{}", to.port),
        IpAddr::V6(v6) => format!("[{v6}]:{}", to.port),
    };
    format!(
        "ct(commit,table={},zone={},nat(dst={to}),exec(load:0x1->NXM_NX_CT_MARK[4],\
         move:NXM_NX_REG0[0..3]->NXM_NX_CT_MARK[0..3]))",
        Stage::EgressAdmin.table(),
        super::ZONE,
    )
}

/// Gives a connection another source, or its packets the one that it got.
pub(super) fn snat(source: IpAddr) -> String {
    let source = match source {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => v6.to_string(),
    };
    format!("ct(commit,table={},zone={},nat(src={source}))", Stage::Output.table(), super::SNAT_ZONE)
}

/// Flows of one owner.
pub(super) struct Flows {
    owner: Arc<str>,
    /// What was added.
    pub(super) all: Vec<Flow>,
}

impl Flows {
    pub(super) fn of(owner: impl Into<Arc<str>>) -> Self {
        Self { owner: owner.into(), all: Vec::new() }
    }

    /// The flows of a stage that are there whatever the cluster has.
    pub(super) fn of_stage(stage: Stage) -> Self {
        Self::of(format!("builtin:{}", stage.name()))
    }

    pub(super) fn add(&mut self, stage: Stage, priority: u16, matching: impl Display, actions: impl Into<String>) {
        self.push(stage, priority, matching.to_string(), actions.into(), None);
    }

    pub(super) fn drop(&mut self, stage: Stage, priority: u16, matching: impl Display, reason: &'static str) {
        self.push(stage, priority, matching.to_string(), String::new(), Some(reason));
    }

    /// Drops, and tells the sender.
    pub(super) fn reject(&mut self, stage: Stage, priority: u16, matching: impl Display, reason: &'static str) {
        self.push(stage, priority, matching.to_string(), REJECT.to_owned(), Some(reason));
    }

    fn push(&mut self, stage: Stage, priority: u16, matching: String, actions: String, reason: Option<&'static str>) {
        let owner = Arc::clone(&self.owner);
        self.all.push(Flow { table: stage.table(), priority, matching, actions, owner, drop_reason: reason });
    }
}
