//! The tables and the register bits that a router's flows use.
//!
//! A packet goes from [`Stage`] to stage, each of which is a table. What one stage finds out and another needs is in the
//! upper registers, so that a larger pipeline which has a router in it keeps the lower ones (0 to 9) and the metadata
//! for itself:
//!
//! | register | bits | what |
//! |---|---|---|
//! | `reg10` | 0..15 | the VRF ([`VRF`]) |
//! | `reg10` | 16 | the frame came to a group or to everybody ([`TO_MANY`]) |
//! | `reg11` | 0..15 | the interface it came in by, 0 for what the router itself sends ([`IN_INTERFACE`]) |
//! | `reg11` | 16..31 | the interface it leaves by ([`OUT_INTERFACE`]) |
//! | `reg15` | all | the next hop, for IPv4 ([`NEXT_HOP_V4`]) |
//! | `xxreg3` | all | the next hop, for IPv6 ([`NEXT_HOP_V6`]) |

use crate::action::{GroupId, Subfield};
use crate::bridge::TableMod;
use crate::field::Field;
use crate::rule::TableId;

/// The VRF.
pub const VRF: Subfield = Subfield { field: Field::Reg10, ofs: 0, bits: 16 };
/// 1 for a packet whose frame came to a group or to everybody, which is never sent on (RFC 1812, 5.3.4).
pub const TO_MANY: Subfield = Subfield { field: Field::Reg10, ofs: 16, bits: 1 };
/// The interface that a packet came in by; 0 for what the router itself sends.
pub const IN_INTERFACE: Subfield = Subfield { field: Field::Reg11, ofs: 0, bits: 16 };
/// The interface that a packet leaves by; 0 before that is known.
pub const OUT_INTERFACE: Subfield = Subfield { field: Field::Reg11, ofs: 16, bits: 16 };
/// The next hop's IPv4 address.
pub const NEXT_HOP_V4: Subfield = Subfield { field: Field::Reg15, ofs: 0, bits: 32 };
/// The next hop's IPv6 address.
pub const NEXT_HOP_V6: Subfield = Subfield { field: Field::Xxreg3, ofs: 0, bits: 128 };

/// A stage of a router: one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// Which interface a frame is for, and so which VRF; takes its tag off.
    Admit,
    /// What is for the router itself: ARP and neighbour discovery, its addresses; what must not be sent on; TTL.
    Local,
    /// The longest prefix that the destination is in: next hop and interface to leave by.
    Route,
    /// The next hop's MAC address.
    Neighbor,
    /// What an interface does with what leaves by it: MAC address, MTU, tag, port.
    Egress,
}

impl Stage {
    /// Every stage, in the order in which packets go through them.
    pub const ALL: [Self; 5] = [Self::Admit, Self::Local, Self::Route, Self::Neighbor, Self::Egress];

    /// Its name, which its table gets.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admit => "router_admit",
            Self::Local => "router_local",
            Self::Route => "router_route",
            Self::Neighbor => "router_neighbor",
            Self::Egress => "router_egress",
        }
    }
}

/// Where in a bridge a router's tables and groups are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pipeline {
    first: TableId,
    first_group: GroupId,
}

impl Default for Pipeline {
    /// From table 0 and group 1 on: a bridge that is a router and nothing else.
    fn default() -> Self {
        Self { first: TableId::FIRST, first_group: GroupId(1) }
    }
}

impl Pipeline {
    /// The stages from table `first` on, and groups from `first_group` on. `None` when the stages do not fit below
    /// table 255.
    pub const fn new(first: TableId, first_group: GroupId) -> Option<Self> {
        let last = TableId::LAST.get() - (Stage::ALL.len() as u8 - 1);
        if first.get() > last { None } else { Some(Self { first, first_group }) }
    }

    /// The table of a stage.
    pub fn table(&self, stage: Stage) -> TableId {
        // The constructor saw to it that all of them fit.
        TableId::new(self.first.get().saturating_add(stage as u8)).unwrap_or(TableId::LAST)
    }

    /// The stage of a table, if it is one of these.
    pub fn stage(&self, table: TableId) -> Option<Stage> {
        Stage::ALL.into_iter().find(|stage| self.table(*stage) == table)
    }

    /// The first group that a router may use.
    pub fn first_group(&self) -> GroupId {
        self.first_group
    }

    /// What gives the tables their names.
    pub fn names(&self) -> Vec<TableMod> {
        let named = |stage: Stage| TableMod {
            table: Some(self.table(stage)),
            name: Some(stage.name().into()),
            ..TableMod::default()
        };
        Stage::ALL.map(named).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_tables_in_a_row_from_the_first_on() {
        let pipeline = Pipeline::new(TableId::new(250).unwrap(), GroupId(7)).unwrap();
        let tables: Vec<u8> = Stage::ALL.iter().map(|stage| pipeline.table(*stage).get()).collect();
        assert_eq!(tables, [250, 251, 252, 253, 254]);
        assert_eq!(pipeline.stage(TableId::new(252).unwrap()), Some(Stage::Route));
        assert_eq!(pipeline.stage(TableId::FIRST), None);
        assert_eq!(Pipeline::new(TableId::new(251).unwrap(), GroupId(7)), None);
    }

    #[test]
    fn register_bits_do_not_overlap() {
        let parts = [VRF, TO_MANY, IN_INTERFACE, OUT_INTERFACE, NEXT_HOP_V6];
        let mut seen = crate::key::FlowMask::ZERO;
        for part in parts {
            let mut mask = crate::key::FlowMask::ZERO;
            mask.set(part.field.slot(), part.mask());
            assert!(seen.0.iter().zip(&mask.0).all(|(a, b)| a & b == 0), "{part:?}");
            seen.union(&mask);
        }
    }
}
