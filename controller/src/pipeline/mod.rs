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
//! | [`Stage::Route`] | where it goes: a Pod here, a peer, the host, the outside |
//! | [`Stage::Commit`] | new connections that are no Service's are remembered |
//! | [`Stage::Snat`] | what has to come back here leaves with an address of the node |
//! | [`Stage::Output`] | out |
//!
//! # Rules
//! - A connection is in [`ZONE`] with its first addresses; in [`SNAT_ZONE`] only if it got another source. What comes back passes the
//!   second before the first.
//! - Which side a connection was begun from is in its mark, so that what answers the host goes back to the host, whatever address
//!   the client outside has.
//! - Flows depend on facts alone: the same facts give the same text, before and after a restart.

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
    /// Where it goes.
    Route = 30,
    /// New connections.
    Commit = 40,
    /// Sources that are translated.
    Snat = 41,
    /// Out.
    Output = 50,
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
