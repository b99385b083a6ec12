//! A gateway's flows: the way from the stations of a bridge to the host's own stack and back, with masquerade.
//!
//! The host has an interface on the bridge (a local port or a TAP), which the stations inside use as their router: what they
//! send there for the outside is routed by the host. With a [`Masquerade`] the switch gives it the source address of the
//! link first, which belongs to the switch: the host sees one station, whatever is inside, and answers come back to it.
//! Where several addresses would have to be hidden by the host, one is left.
//!
//! # Stages
//! Table 0 sends what concerns the gateway to tables of its own and leaves the rest to the rules that are there. What
//! goes on ends in `NORMAL`, so VLANs and learning work as without a gateway.
//!
//! | stage | what happens there |
//! |---|---|
//! | [`Stage::FromHost`] | answers ARP and neighbour solicitations for the link addresses; asks the tracker about answers |
//! | [`Stage::Answer`] | translated back, an answer goes to the MAC address that its connection began with |
//! | [`Stage::ToHost`] | what stays as it is, what is translated, and what has a source that nobody inside has |
//! | [`Stage::Begin`] | a new connection gets the link's address and remembers where it came from |
//! | [`Stage::Out`] | nothing leaves with an inside address by mistake |
//! | [`Stage::Advertise`] | completes a neighbour advertisement |
//! | [`Stage::Served`] | of what stations with [services](Service) send: answers are translated, the rest is as in [`Stage::ToHost`] |
//!
//! # Rules
//! - The MAC address that a connection began with is in the low 48 bits of its label, so there is no table of neighbours
//!   that could be incomplete or old. The zone is the gateway's own.
//! - Connections that the outside begins with an inside address (the host routes them) are remembered without
//!   translation, so that their answers leave as they are.
//! - Frames with the gateway's own MAC addresses that come by other ports are dropped as `spoof_guard`.
//!
//! - A connection to a [`Service`] remembers the station's MAC address in the same place, so its packets, and the errors about
//!   them, take the same way as answers.
//! - All gateways of a bridge share its tables: [`flows_of`] makes the flows of all of them at once. Stations behind different
//!   gateways of one bridge see each other as they are.
//!
//! # Limits
//! ICMP errors of the stations about packets that no connection stands for are dropped. Networks of a bridge do not overlap.

mod flows;
mod masquerade;
mod service;

pub use masquerade::{Masquerade, SourceNat};
pub use service::Service;

use crate::bridge::TableMod;
use crate::owner::Owner;
use crate::port::PortNo;
use crate::rule::{FlowSpec, TableId};
use ipnet::IpNet;
use std::collections::HashSet;
use std::net::IpAddr;

/// A gateway, as its flows need to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// The bridge's port with the host behind it.
    pub port: PortNo,
    /// The MAC address of the host's interface, in the low 48 bits.
    pub mac: u64,
    /// The MAC address that the switch answers for link addresses with, in the low 48 bits; of no station.
    pub link_mac: u64,
    /// The zone of the tracker that is the gateway's own.
    pub zone: u16,
    /// What is translated: at most one address of each family, for any number of networks.
    pub masquerades: Vec<Masquerade>,
    /// Networks of stations that reach the outside as they are.
    pub routed: Vec<IpNet>,
    /// Networks of stations that reach nothing but the host's own addresses on the link.
    pub internal: Vec<IpNet>,
    /// Such networks behind other gateways of the host: nothing is sent there.
    pub closed: Vec<IpNet>,
    /// The host's own addresses on the link.
    pub own: Vec<IpAddr>,
    /// The addresses that the host sends to what is for services; at most one of each family, of no station and no interface.
    pub incoming: Vec<IpAddr>,
    /// What the host reaches by them.
    pub services: Vec<Service>,
    /// The first of [`Stage::ALL`]'s tables.
    pub first_table: TableId,
}

/// A table of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// What comes from the host.
    FromHost,
    /// What comes from the host, and what the tracker says of it.
    Answer,
    /// What goes to the host.
    ToHost,
    /// What goes to the host, and what the tracker says of it.
    Begin,
    /// What goes to the host, translated.
    Out,
    /// Neighbour advertisements that were solicitations.
    Advertise,
    /// What stations with services send to the host, and what the tracker says of it. The table is there only with services.
    Served,
}

impl Stage {
    /// Every stage that each gateway has, in the order of their tables.
    pub const ALL: [Self; 6] = [Self::FromHost, Self::Answer, Self::ToHost, Self::Begin, Self::Out, Self::Advertise];

    /// The name of its table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FromHost => "gw_from_host",
            Self::Answer => "gw_answer",
            Self::ToHost => "gw_to_host",
            Self::Begin => "gw_begin",
            Self::Out => "gw_out",
            Self::Advertise => "gw_advertise",
            Self::Served => "gw_served",
        }
    }
}

/// The first table of a gateway's unless something else is asked for.
pub const FIRST_TABLE: TableId = match TableId::new(200) {
    Some(table) => table,
    None => TableId::FIRST,
};

impl Gateway {
    /// Who owns a gateway's flows.
    pub fn owner() -> Owner {
        Owner::new("builtin:gateway")
    }

    /// The MAC address for a gateway's link addresses: that of the host's interface with one bit changed, so that it is
    /// of no other interface and the same after a restart.
    pub const fn link_mac_of(mac: u64) -> u64 {
        // Locally administered, as no vendor's is.
        (mac | 1 << 41) ^ 1 << 47
    }

    /// The table of a stage.
    pub fn table(&self, stage: Stage) -> TableId {
        // Tables that there are not are those behind the last one: the last, then.
        let number = usize::from(self.first_table.get()) + stage as usize;
        u8::try_from(number).ok().and_then(TableId::new).unwrap_or(TableId::LAST)
    }

    /// Whether all its tables are there: the first may be 1 to 249.
    pub fn fits(first_table: TableId) -> bool {
        first_table != TableId::FIRST
            && usize::from(first_table.get()) + Stage::ALL.len() - 1 <= usize::from(TableId::LAST.get())
    }

    /// The names of its tables.
    pub fn names(&self) -> Vec<TableMod> {
        let name = |stage: Stage| TableMod {
            table: Some(self.table(stage)),
            name: Some(stage.name().into()),
            ..TableMod::default()
        };
        let served = (!self.services.is_empty()).then_some(Stage::Served);
        Stage::ALL.into_iter().chain(served).map(name).collect()
    }

    /// Its flows; none where all that comes passes as it is.
    pub fn flows(&self) -> Vec<FlowSpec> {
        flows_of(std::slice::from_ref(self))
    }

    /// Whether there is room for [`Stage::Served`] too: the first may be 1 to 248.
    pub fn serves(first_table: TableId) -> bool {
        Self::fits(first_table) && usize::from(first_table.get()) + Stage::ALL.len() <= usize::from(TableId::LAST.get())
    }
}

/// The flows of all gateways of one bridge, which have the same first table.
pub fn flows_of(gateways: &[Gateway]) -> Vec<FlowSpec> {
    let serves = gateways.iter().any(|gateway| !gateway.services.is_empty());
    let mut flows: Vec<FlowSpec> = gateways.iter().flat_map(|gateway| flows::all(gateway, serves)).collect();
    // What all of them need is made by each.
    let mut seen = HashSet::new();
    flows.retain(|flow| seen.insert((flow.table, flow.priority, flow.matches.clone())));
    flows
}

#[cfg(test)]
mod tests;
