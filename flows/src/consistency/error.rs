//! Why actions do not fit.

use crate::port::PortNo;
use crate::rule::TableId;
use thiserror::Error;

/// Why actions do not fit. Actions are counted from 1; of one that stands within another, it is the outer one's number.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConsistencyError {
    /// `goto_table` goes back or stays.
    #[error(
        "action {action}: goto_table:{to} must lead to a later table than the flow's own, {from}; resubmit(,{to}) may go anywhere"
    )]
    GotoNotLater {
        /// Which action.
        action: usize,
        /// The flow's table.
        from: TableId,
        /// The table named.
        to: TableId,
    },
    /// An action stands behind one that it must precede.
    #[error(
        "action {action}: {name} must stand before {before}: OpenFlow's order is meter, actions, clear_actions, write_actions, write_metadata, goto_table"
    )]
    Order {
        /// Which action.
        action: usize,
        /// Its word.
        name: &'static str,
        /// The word of the one before it.
        before: &'static str,
    },
    /// An instruction stands twice.
    #[error("action {action}: {name} can stand once only")]
    Twice {
        /// Which action.
        action: usize,
        /// Its word.
        name: &'static str,
    },
    /// An action within another that does not take it.
    #[error("action {action}: {name} cannot stand within {place}")]
    NotHere {
        /// Which action.
        action: usize,
        /// Its word.
        name: &'static str,
        /// The word of the other.
        place: &'static str,
    },
    /// Something beside `conjunction`.
    #[error(
        "action {action}: {name} cannot stand beside conjunction: what is done stands in the flow that matches its conj_id"
    )]
    BesideConjunction {
        /// Which action.
        action: usize,
        /// Its word.
        name: &'static str,
    },
    /// The connection's fields are set where there is no connection.
    #[error("action {action}: {field} is the connection's: set it within ct(commit,exec(..))")]
    OutsideCt {
        /// Which action.
        action: usize,
        /// The field's name.
        field: &'static str,
    },
    /// Within `ct(exec(..))`, a field that is not the connection's.
    #[error("action {action}: exec sets ct_mark and ct_label only, not {field}")]
    NotOfConnection {
        /// Which action.
        action: usize,
        /// The field's name.
        field: &'static str,
    },
    /// The match does not guarantee that a field exists.
    #[error("action {action}: {field} exists only in {needs}, which the match does not ask for: {advice}")]
    FieldMissing {
        /// Which action.
        action: usize,
        /// The field's name.
        field: &'static str,
        /// The packets that have it.
        needs: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// The match does not guarantee that the action can be done.
    #[error("action {action}: {name} is for {needs} only, which the match does not ask for: {advice}")]
    NeedsMatch {
        /// Which action.
        action: usize,
        /// What cannot be done.
        name: &'static str,
        /// The packets for which it can.
        needs: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// Invalid packets have no connection to commit.
    #[error("action {action}: the match asks for ct_state=+inv, and an invalid packet has no connection to commit")]
    CommitOfInvalid {
        /// Which action.
        action: usize,
    },
    /// The field cannot be set.
    #[error("action {action}: {field} can be matched but not set")]
    NotWritable {
        /// Which action.
        action: usize,
        /// The field's name.
        field: &'static str,
    },
    /// Bits outside a field.
    #[error("action {action}: {field} has {width} bits, so it has no bits {ofs}..{last}")]
    NoSuchBits {
        /// Which action.
        action: usize,
        /// The field's name.
        field: &'static str,
        /// The field's width.
        width: u8,
        /// First bit named.
        ofs: u8,
        /// Last bit named.
        last: u16,
    },
    /// The two ends of a `move`.
    #[error("action {action}: move takes {from} bits to {to} bits; both sides must be of one width")]
    MoveWidths {
        /// Which action.
        action: usize,
        /// Width of the source.
        from: u8,
        /// Width of the destination.
        to: u8,
    },
    /// A third tag.
    #[error("action {action}: push_vlan would make a third VLAN tag; a packet has at most two")]
    TooManyTags {
        /// Which action.
        action: usize,
    },
    /// A TPID that no VLAN tag has.
    #[error("action {action}: push_vlan:{tpid:#06x}: a VLAN tag has the TPID 0x8100 or 0x88a8")]
    BadTpid {
        /// Which action.
        action: usize,
        /// The TPID.
        tpid: u16,
    },
    /// A port number that cannot be output to.
    #[error("action {action}: cannot output to port {port}: ordinary ports are 1 to 65279")]
    BadPort {
        /// Which action.
        action: usize,
        /// The port.
        port: PortNo,
    },
    /// An argument that the action cannot have. No text says it: it is for actions made otherwise.
    #[error("action {action}: {name} wants {want}")]
    BadArgument {
        /// Which action.
        action: usize,
        /// Its word.
        name: &'static str,
        /// What it can have.
        want: &'static str,
    },
}

/// The pattern that every error fits: it says which action.
macro_rules! of_action {
    ($action:ident) => {
        Self::GotoNotLater { action: $action, .. }
            | Self::Order { action: $action, .. }
            | Self::Twice { action: $action, .. }
            | Self::NotHere { action: $action, .. }
            | Self::BesideConjunction { action: $action, .. }
            | Self::OutsideCt { action: $action, .. }
            | Self::NotOfConnection { action: $action, .. }
            | Self::FieldMissing { action: $action, .. }
            | Self::NeedsMatch { action: $action, .. }
            | Self::CommitOfInvalid { action: $action }
            | Self::NotWritable { action: $action, .. }
            | Self::NoSuchBits { action: $action, .. }
            | Self::MoveWidths { action: $action, .. }
            | Self::TooManyTags { action: $action }
            | Self::BadTpid { action: $action, .. }
            | Self::BadPort { action: $action, .. }
            | Self::BadArgument { action: $action, .. }
    };
}

impl ConsistencyError {
    /// Which action does not fit, counted from 1.
    pub fn action(&self) -> usize {
        let (of_action!(action)) = self;
        *action
    }

    /// The same of the `n`th action.
    pub(super) fn at(mut self, n: usize) -> Self {
        let (of_action!(action)) = &mut self;
        *action = n;
        self
    }
}
