//! What a rule does with a packet: the actions of the flow language, kept as they were written so that they print as
//! they were written.

use crate::field::Field;
use crate::port::PortNo;
use crate::rule::TableId;

/// Bits `ofs` to `ofs + bits - 1` of a field, counted from its least significant bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subfield {
    /// The field.
    pub field: Field,
    /// First bit.
    pub ofs: u8,
    /// Number of bits, at least 1; `ofs + bits` is at most the field's width.
    pub bits: u8,
}

impl Subfield {
    /// The whole of `field`.
    pub fn whole(field: Field) -> Self {
        Self { field, ofs: 0, bits: field.width() }
    }

    /// The field's bits that belong to this subfield.
    pub fn mask(self) -> u128 {
        let low = if self.bits >= 128 { u128::MAX } else { (1 << self.bits) - 1 };
        low << self.ofs
    }
}

/// One action. OVS's `ofp-actions` names them; [`crate::text`] reads and prints them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send to a port; reserved numbers mean what OpenFlow says (`NORMAL`, `FLOOD`, `ALL`, `LOCAL`, `IN_PORT`).
    Output(PortNo),
    /// Send to the port whose number a subfield holds.
    OutputField(Subfield),
    /// Hand the packet to the controller.
    Controller(ControllerAction),
    /// Go on in a later table, after the other actions.
    GotoTable(TableId),
    /// Look the packet up again, then go on here.
    Resubmit {
        /// Ingress port to look up with; the packet's own if none.
        port: Option<PortNo>,
        /// Table to look up in; the current one if none.
        table: Option<TableId>,
        /// Written as `resubmit(..)`, not as `resubmit:PORT`.
        extended: bool,
    },
    /// `set_field:VALUE[/MASK]->FIELD`.
    SetField {
        /// What is set.
        field: Field,
        /// Its new value.
        value: u128,
        /// The bits to set; all ones for the whole field.
        mask: u128,
    },
    /// `load:VALUE->SUBFIELD`.
    Load {
        /// Right-aligned value.
        value: u128,
        /// Where it goes.
        dst: Subfield,
    },
    /// `move:SUBFIELD->SUBFIELD`, of equal widths.
    Move {
        /// Where the bits come from.
        src: Subfield,
        /// Where they go.
        dst: Subfield,
    },
    /// `mod_*`: OpenFlow 1.0's setters.
    Mod(ModAction),
    /// `push_vlan:TPID`.
    PushVlan(u16),
    /// `pop_vlan` (true) or its older name `strip_vlan` (false).
    PopVlan {
        /// Written as `pop_vlan`.
        modern: bool,
    },
    /// Decrement the TTL or hop limit; at 0 or 1 the list ends here.
    DecTtl,
    /// Bytes that mean nothing to the switch.
    Note(Box<[u8]>),
}

/// The `controller` action's options.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ControllerAction {
    /// Bytes of the packet to send; 65,535 means all.
    pub max_len: u16,
    /// Why it is sent.
    pub reason: PacketInReason,
    /// Which controller.
    pub controller_id: u16,
    /// Written with parentheses rather than as `CONTROLLER:LEN`.
    pub extended: bool,
}

/// Why a packet is handed to the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum PacketInReason {
    /// A rule without a match of its own (table miss).
    NoMatch,
    /// A rule's action.
    #[default]
    Action,
    /// The TTL ran out.
    InvalidTtl,
}

/// OpenFlow 1.0's setters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModAction {
    /// `mod_dl_src`.
    DlSrc(u64),
    /// `mod_dl_dst`.
    DlDst(u64),
    /// `mod_nw_src`.
    NwSrc(u32),
    /// `mod_nw_dst`.
    NwDst(u32),
    /// `mod_nw_tos`: the upper six bits; ECN stays.
    NwTos(u8),
    /// `mod_nw_ecn`.
    NwEcn(u8),
    /// `mod_nw_ttl`.
    NwTtl(u8),
    /// `mod_tp_src`.
    TpSrc(u16),
    /// `mod_tp_dst`.
    TpDst(u16),
    /// `mod_vlan_vid`: pushes a tag when there is none.
    VlanVid(u16),
    /// `mod_vlan_pcp`: pushes a tag when there is none.
    VlanPcp(u8),
}
