//! A station's flows: what keeps an interface of a container, or of a machine, to the addresses that are its own.
//!
//! # Stages
//! Table 0 sends what comes from a guarded station through tables of the guard. What passes gets the bit [`GUARDED`] and
//! goes through table 0 once more, where now the other flows see it: routers, gateways, flows of users, `NORMAL`. None of
//! them has to know of the guard. Each flow of a station has the station's owner, also those that drop.
//!
//! | stage | what happens there |
//! |---|---|
//! | [`Stage::Guard`] | the source MAC address is the station's |
//! | [`Stage::Source`] | so are the IP source address, and the sender's addresses in ARP |
//! | [`Stage::Neighbor`] | so are the addresses that neighbour discovery speaks of |
//!
//! # Rules
//! What [`Guard::Full`] lets pass:
//! - IPv4 and IPv6 from the station's addresses, and from the link-local address made of its MAC address (RFC 4291,
//!   appendix A). Fragments are told by their addresses, as every packet.
//! - From 0.0.0.0, a DHCP client's packets to 255.255.255.255 and IGMP. From `::`, router solicitations, MLD reports, and
//!   the search for duplicates of its own addresses.
//! - ARP with its MAC and IP address as the sender's. Without a sender's address (RFC 5227), for its own addresses only.
//! - Neighbour solicitations for whatever it likes, with no link-layer address but its own. Advertisements of its own
//!   addresses alone, likewise. No router advertisements and no redirects.
//! - Nothing else: what a frame of another EtherType claims to be (MPLS, PPPoE, LLC, LLDP) cannot be told here. Link protocols
//!   (LLDP, STP, LACP) end at a bridge anyway; a station that needs others has [`Guard::Mac`].
//!
//! Of a station that is held, nothing passes, whatever its guard: it is there, and reached, but cannot be heard. The flow that
//! drops is in the place of the one that sends to the guard, so that letting go is one change of one flow.
//!
//! Up to two tags are looked through; which VLANs a station may use is its port's affair.
//!
//! # What is cached
//! An entry of the cache looks at source MAC and IP address whole, for IPv6 at the protocol too, and for ARP and neighbour
//! discovery at what is named above; not at ports, and not at what the rest of the pipeline does not ask for. All
//! stations share these masks: there are as many for a thousand as for one.
//!
//! # Limits
//! - Flows of table 0 with a priority above [`PRIORITY`] see frames before the guard does, and may let them pass.
//! - What is inside a tunnel that a station makes itself is not looked at.
//! - Fragmented neighbour discovery is not recognized: receivers ignore it (RFC 6980).
//! - A station without addresses sends no IP but from its link-local address, and DHCP.

mod flows;

use crate::action::Subfield;
use crate::bridge::TableMod;
use crate::field::Field;
use crate::owner::Owner;
use crate::port::PortNo;
use crate::rule::{FlowSpec, TableId};
use std::net::{IpAddr, Ipv6Addr};

/// 1 for a packet that has passed the guard. Routers keep the lower bits of this register.
pub const GUARDED: Subfield = Subfield { field: Field::Reg10, ofs: 31, bits: 1 };

/// The priority in table 0 of the flows that send to the guard.
pub const PRIORITY: u16 = 31_000;

/// The first of the guard's tables.
pub const FIRST_TABLE: u8 = 190;

/// A station, as its flows need to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Station {
    /// The bridge's port with the station behind it.
    pub port: PortNo,
    /// Its MAC address, in the low 48 bits.
    pub mac: u64,
    /// Its addresses, without the link-local one that is made of the MAC address.
    pub addresses: Vec<IpAddr>,
    /// What its frames are compared with.
    pub guard: Guard,
    /// Whether frames to its own MAC address are sent back to it.
    pub hairpin: bool,
    /// Whether nothing that it sends passes yet.
    pub held: bool,
    /// Who owns its flows.
    pub owner: Owner,
}

/// What a frame that a station sends is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guard {
    /// Nothing.
    None,
    /// The source MAC address.
    Mac,
    /// The source MAC and IP addresses, and those in ARP and neighbour discovery.
    #[default]
    Full,
}

/// A table of the guard's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The source MAC address.
    Guard,
    /// The IP source address, and the sender in ARP.
    Source,
    /// What neighbour discovery says.
    Neighbor,
}

impl Stage {
    /// Every stage, in the order of their tables.
    pub const ALL: [Self; 3] = [Self::Guard, Self::Source, Self::Neighbor];

    /// The name of its table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Guard => "station_guard",
            Self::Source => "station_source",
            Self::Neighbor => "station_neighbor",
        }
    }

    /// Its table, which is the same in every bridge.
    pub const fn table(self) -> TableId {
        match TableId::new(FIRST_TABLE + self as u8) {
            Some(table) => table,
            None => TableId::LAST,
        }
    }

    /// What gives the tables their names.
    pub fn names() -> Vec<TableMod> {
        let named = |stage: Self| TableMod {
            table: Some(stage.table()),
            name: Some(stage.name().into()),
            ..TableMod::default()
        };
        Self::ALL.map(named).into()
    }
}

impl Station {
    /// The owner of the flows of an attachment: of the pod if namespace and name are known, else of the container, of
    /// whose ID the first twelve characters count.
    pub fn owner_of(pod: Option<(&str, &str)>, container_id: &str) -> Owner {
        match pod {
            Some((namespace, name)) => Owner::new(&format!("pod:{namespace}/{name}")),
            None => Owner::new(&format!("container:{}", container_id.chars().take(12).collect::<String>())),
        }
    }

    /// Its flows: those of the guard, and that of the hairpin.
    pub fn flows(&self) -> Vec<FlowSpec> {
        flows::all(self)
    }

    /// The flows that join its port with another one, `outside`, and with no third: what the guard lets pass leaves by that,
    /// and what comes by that is for the station.
    pub fn joined(&self, outside: PortNo) -> Vec<FlowSpec> {
        flows::joined(self, outside)
    }

    /// The link-local address made of its MAC address (RFC 4291, appendix A).
    pub fn link_local(&self) -> Ipv6Addr {
        let (high, low) = (u128::from(self.mac >> 24 & 0xff_ffff), u128::from(self.mac & 0xff_ffff));
        // The bit that says "locally administered" is turned.
        let identifier = (high ^ 0x02_0000) << 40 | 0xff_fe00_0000 | low;
        Ipv6Addr::from(0xfe80 << 112 | identifier)
    }
}

#[cfg(test)]
mod tests;
