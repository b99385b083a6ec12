//! The pipeline: what becomes of a packet on a node's switch, as named stages.
//!
//! # Stages
//! | stage | what happens there |
//! |---|---|
//! | table 0 | the switch's own guards come first; all else goes on to [`Stage::Classify`] |
//! | [`Stage::Classify`] | where a packet comes from: a Pod (that the guard let pass), the host, the tunnel; from inside the cluster or not |
//! | [`Stage::Arp`], [`Stage::Neighbor`] | every question is answered with [`ROUTER_MAC`]: Pods and the host send all they have to the switch, which routes it |
//! | [`Stage::Unsnat`] | answers to what left with an address of the node |
//! | [`Stage::Conntrack`] | the tracker is asked, and puts back what it had translated |
//! | [`Stage::State`] | connections that are there skip the choice of an endpoint; invalid packets end |
//! | [`Stage::Service`] | a Service's address is found by one look; a group chooses an endpoint, and the connection is made with it |
//! | [`Stage::Affinity`], [`Stage::Select`], [`Stage::Endpoint`] | the same for clients that keep their endpoint |
//! | [`Stage::EgressAdmin`], [`Stage::EgressNetwork`], [`Stage::EgressBaseline`] | whether policies let it leave its Pod, tier by tier |
//! | [`Stage::Route`] | where it goes: a Pod here, a peer, the host, the outside |
//! | [`Stage::IngressAdmin`], [`Stage::IngressNetwork`], [`Stage::IngressBaseline`] | whether policies let it come to its Pod |
//! | [`Stage::Commit`] | new connections are remembered, and which rules let them pass |
//! | [`Stage::Snat`] | what has to come back here leaves with an address of the node |
//! | [`Stage::Output`] | out |
//!
//! # Rules
//! - A connection is in [`ZONE`] with its first addresses; in [`SNAT_ZONE`] only if it got another source. What comes back passes the
//!   second before the first.
//! - Which side a connection was begun from is in its mark, so that what answers the host goes back to the host, whatever address
//!   the client outside has.
//! - Flows depend on facts alone: the same facts give the same text, before and after a restart.
//! - Each object has a [`Part`](crate::flow::Part) of its own, made without looking at any other object: [`base`], [`peer`], [`pod`],
//!   [`service`]. What they share is the numbers of groups ([`Ids`]). Rules of policies do share flows: [`Policies`] makes a part of each flow.
//!
//! # Registers and marks
//! | where | what |
//! |---|---|
//! | `reg0[0..3]` | where the packet comes from: a [`Kind`] |
//! | `reg0[4..7]` | where it goes, from [`Stage::Route`] on: a [`Kind`] |
//! | `reg0[8]` | it comes from outside the cluster |
//! | `reg0[9]` | policies for ingress are not asked |
//! | `reg0[10]` | it begins a connection to a Service, from [`Stage::Commit`] on |
//! | `reg1` | the port it leaves by, from [`Stage::Route`] on |
//! | `reg3`, `reg7` | the endpoint and the group of a Service with affinity |
//! | `reg5`, `reg6` | the rules that let it leave its Pod and come to its Pod; 0 for none |
//! | `reg10[31]` | the switch's guard has compared its source |
//! | `ct_mark[0..3]` | the [`Kind`] that the connection was begun by; 0 for one that is not remembered yet |
//! | `ct_mark[4]` | the connection is to a Service |
//! | `ct_label[0..31]`, `ct_label[32..63]` | `reg5` and `reg6` of its first packet |
//! | `ct_label[64]` | policies have denied it since: its answers are dropped |

mod affinity;
mod arp;
mod base;
mod ids;
mod peers;
mod pods;
mod policy;
mod services;
mod text;

#[cfg(test)]
mod tests;

pub use affinity::learned_of;
pub(crate) use base::CUT;
pub use base::base;
pub use ids::Ids;
pub use peers::peer;
pub use pods::pod;
pub use policy::{LocalPod, Policies, RuleName};
pub use services::service;
pub(crate) use text::{Family, SERVICE_MARK};

/// The tables of the pipeline, in the order of a packet's way. Gaps are for stages to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// Where it comes from.
    Classify = 10,
    /// ARP (RFC 826).
    Arp = 11,
    /// Neighbour discovery (RFC 4861).
    Neighbor = 12,
    /// A neighbour solicitation that has become an advertisement is completed.
    Advertise = 13,
    /// Answers to translated sources.
    Unsnat = 14,
    /// The tracker is asked.
    Conntrack = 15,
    /// What the tracker says.
    State = 16,
    /// Addresses of Services.
    Service = 18,
    /// Clients that have an endpoint.
    Affinity = 19,
    /// Clients that get one.
    Select = 20,
    /// Endpoints of Services with affinity.
    Endpoint = 21,
    /// From a Pod: rules before all others.
    EgressAdmin = 23,
    /// From a Pod: NetworkPolicies.
    EgressNetwork = 24,
    /// From a Pod: rules for what nothing has decided.
    EgressBaseline = 25,
    /// Where it goes.
    Route = 30,
    /// To a Pod: rules before all others.
    IngressAdmin = 33,
    /// To a Pod: NetworkPolicies.
    IngressNetwork = 34,
    /// To a Pod: rules for what nothing has decided.
    IngressBaseline = 35,
    /// New connections.
    Commit = 40,
    /// Sources that are translated.
    Snat = 41,
    /// Out.
    Output = 50,
}

impl Stage {
    /// Every stage, in the order of their tables.
    pub const ALL: [Self; 21] = [
        Self::Classify,
        Self::Arp,
        Self::Neighbor,
        Self::Advertise,
        Self::Unsnat,
        Self::Conntrack,
        Self::State,
        Self::Service,
        Self::Affinity,
        Self::Select,
        Self::Endpoint,
        Self::EgressAdmin,
        Self::EgressNetwork,
        Self::EgressBaseline,
        Self::Route,
        Self::IngressAdmin,
        Self::IngressNetwork,
        Self::IngressBaseline,
        Self::Commit,
        Self::Snat,
        Self::Output,
    ];

    /// The number of its table.
    pub const fn table(self) -> u8 {
        self as u8
    }

    /// The name of its table, and what owners of flows call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Classify => "classify",
            Self::Arp => "arp_responder",
            Self::Neighbor => "nd_responder",
            Self::Advertise => "nd_advertise",
            Self::Unsnat => "unsnat",
            Self::Conntrack => "conntrack",
            Self::State => "ct_state",
            Self::Service => "service",
            Self::Affinity => "affinity",
            Self::Select => "select",
            Self::Endpoint => "endpoint",
            Self::EgressAdmin => "egress_admin",
            Self::EgressNetwork => "egress_network",
            Self::EgressBaseline => "egress_baseline",
            Self::Route => "route",
            Self::IngressAdmin => "ingress_admin",
            Self::IngressNetwork => "ingress_network",
            Self::IngressBaseline => "ingress_baseline",
            Self::Commit => "commit",
            Self::Snat => "snat",
            Self::Output => "output",
        }
    }
}

/// The tables of the pipeline and their names.
pub fn table_names() -> impl Iterator<Item = (u8, &'static str)> {
    Stage::ALL.into_iter().map(|stage| (stage.table(), stage.name()))
}

/// What a packet comes from or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A Pod of this node.
    Pod = 1,
    /// The host, or what the host routes from or to another node.
    Host = 2,
    /// The tunnel to other nodes.
    Tunnel = 3,
    /// Whatever is not of the cluster, by the host. Only a destination is of this kind.
    Outside = 4,
}

/// The priority, in table 0, of the flow that sends everything to the pipeline: below the guards of attachments (31,000), above
/// the gateway's own flows (30,300).
pub const ENTRY_PRIORITY: u16 = 30_900;

/// The zone of the tracker where every connection is, with the addresses that its client used.
pub const ZONE: u16 = 65_000;
/// The zone of connections whose source is translated.
pub const SNAT_ZONE: u16 = 65_001;

/// The hardware address that the switch routes with, the same on all nodes: locally administered, of no station.
pub const ROUTER_MAC: u64 = 0x0273_6c75_6963;
