//! Whether the actions of a flow fit its table and its match: what Open vSwitch checks when a flow is added.
//!
//! `set_field`, `load`, `move` and `output:FIELD` need the match to guarantee that their fields exist: a flow that sets
//! `ip_src` must match `ip`. OpenFlow 1.0's actions (`mod_*`, `strip_vlan`, `pop_vlan`, `dec_ttl`) are accepted under
//! any match and do nothing to a packet that lacks the header, as under `ovs-ofctl` with its default protocols.

use crate::action::{Action, ModAction, Subfield};
use crate::field::{ETH_TYPE_QINQ, ETH_TYPE_VLAN, Field, Prereq};
use crate::key::{FlowKey, FlowMask, VLAN_PRESENT, slot};
use crate::matching::Match;
use crate::port::PortNo;
use crate::rule::TableId;
use thiserror::Error;

/// Why actions do not fit. Actions are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
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
    /// Something stands behind `goto_table`.
    #[error("action {action}: goto_table must be the last action")]
    GotoNotLast {
        /// Which action.
        action: usize,
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
}

impl ConsistencyError {
    /// Which action does not fit, counted from 1.
    pub fn action(&self) -> usize {
        match self {
            Self::GotoNotLater { action, .. }
            | Self::GotoNotLast { action }
            | Self::FieldMissing { action, .. }
            | Self::NotWritable { action, .. }
            | Self::NoSuchBits { action, .. }
            | Self::MoveWidths { action, .. }
            | Self::TooManyTags { action }
            | Self::BadTpid { action, .. }
            | Self::BadPort { action, .. } => *action,
        }
    }
}

/// Checks the actions of a flow in `table` that matches `matches`.
///
/// # Errors
/// The first action that does not fit, and why.
pub fn check(table: TableId, matches: &Match, actions: &[Action]) -> Result<(), ConsistencyError> {
    // Most flows have no action that depends on the match, and then its key is never made.
    let mut state = State { table, matches, key: None, action: 0 };
    for (i, action) in actions.iter().enumerate() {
        state.action = i + 1;
        state.check(action, i + 1 == actions.len())?;
    }
    Ok(())
}

/// What is known about every packet of the flow, after the actions so far.
struct State<'a> {
    table: TableId,
    matches: &'a Match,
    key: Option<FlowKey>,
    action: usize,
}

impl State<'_> {
    fn check(&mut self, action: &Action, last: bool) -> Result<(), ConsistencyError> {
        match action {
            Action::Output(port) => self.port(*port),
            Action::OutputField(src) => self.readable(*src),
            Action::GotoTable(to) => self.goto_table(*to, last),
            Action::SetField { field, value, mask } => self.set(Subfield::whole(*field), *value, *mask),
            Action::Load { value, dst } => {
                self.bits(*dst)?;
                self.set(*dst, value << dst.ofs, dst.mask())
            }
            Action::Move { src, dst } => {
                self.readable(*src)?;
                self.readable(*dst)?;
                self.writable(dst.field)?;
                if src.bits == dst.bits {
                    Ok(())
                } else {
                    Err(ConsistencyError::MoveWidths { action: self.action, from: src.bits, to: dst.bits })
                }
            }
            Action::Mod(ModAction::VlanVid(_) | ModAction::VlanPcp(_)) => {
                self.key().set(TAG_PRESENT, 1);
                Ok(())
            }
            Action::PushVlan(tpid) => self.push_vlan(*tpid),
            Action::PopVlan { .. } => {
                let inner = self.key().get(slot::INNER_VLAN_TCI);
                self.key().set(slot::VLAN_TCI, inner);
                self.key().set(slot::INNER_VLAN_TCI, 0);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The bits that the match asks for, changed by VLAN actions.
    fn key(&mut self) -> &mut FlowKey {
        self.key.get_or_insert_with(|| self.matches.value())
    }

    fn port(&self, port: PortNo) -> Result<(), ConsistencyError> {
        if port.0 > PortNo::MAX.0 && port.0 < PortNo::IN_PORT.0 || port == PortNo::NONE {
            return Err(ConsistencyError::BadPort { action: self.action, port });
        }
        Ok(())
    }

    fn goto_table(&self, to: TableId, last: bool) -> Result<(), ConsistencyError> {
        if to <= self.table {
            return Err(ConsistencyError::GotoNotLater { action: self.action, from: self.table, to });
        }
        if last { Ok(()) } else { Err(ConsistencyError::GotoNotLast { action: self.action }) }
    }

    fn set(&mut self, dst: Subfield, value: u128, mask: u128) -> Result<(), ConsistencyError> {
        self.exists(dst.field)?;
        // OVS asks more of a set of vlan_vid than of a move to it: only the tag actions may make a tag.
        if dst.field == Field::VlanVid && self.key().get(TAG_PRESENT) == 0 {
            return Err(self.missing(dst.field, Prereq::Vlan));
        }
        self.writable(dst.field)?;
        if dst.field == Field::VlanTci {
            self.key().set_masked(slot::VLAN_TCI, value, mask);
        }
        Ok(())
    }

    fn push_vlan(&mut self, tpid: u16) -> Result<(), ConsistencyError> {
        if !matches!(tpid, ETH_TYPE_VLAN | ETH_TYPE_QINQ) {
            return Err(ConsistencyError::BadTpid { action: self.action, tpid });
        }
        let (outer, inner) = (self.key().get(slot::VLAN_TCI), self.key().get(slot::INNER_VLAN_TCI));
        if inner & u128::from(VLAN_PRESENT) != 0 {
            return Err(ConsistencyError::TooManyTags { action: self.action });
        }
        self.key().set(slot::INNER_VLAN_TCI, outer);
        self.key().set(slot::VLAN_TCI, u128::from(VLAN_PRESENT));
        Ok(())
    }

    /// Whether a subfield has its bits, and every packet of the flow has its field.
    fn readable(&mut self, part: Subfield) -> Result<(), ConsistencyError> {
        self.bits(part)?;
        self.exists(part.field)
    }

    fn bits(&self, part: Subfield) -> Result<(), ConsistencyError> {
        let (width, end) = (part.field.width(), u16::from(part.ofs) + u16::from(part.bits));
        if part.bits == 0 || end > u16::from(width) {
            return Err(ConsistencyError::NoSuchBits {
                action: self.action,
                field: part.field.info().name,
                width,
                ofs: part.ofs,
                last: end.saturating_sub(1),
            });
        }
        Ok(())
    }

    fn exists(&mut self, field: Field) -> Result<(), ConsistencyError> {
        let prereq = field.info().prereq;
        if prereq == Prereq::None || prereq.holds(self.key(), &mut FlowMask::default()) {
            return Ok(());
        }
        Err(self.missing(field, prereq))
    }

    fn writable(&self, field: Field) -> Result<(), ConsistencyError> {
        let info = field.info();
        if info.writable {
            Ok(())
        } else {
            Err(ConsistencyError::NotWritable { action: self.action, field: info.name })
        }
    }

    fn missing(&self, field: Field, prereq: Prereq) -> ConsistencyError {
        let (needs, advice) = describe(prereq);
        ConsistencyError::FieldMissing { action: self.action, field: field.info().name, needs, advice }
    }
}

/// The tag-present bit of the outer VLAN tag.
const TAG_PRESENT: crate::key::Slot = crate::key::Slot::new(slot::VLAN_TCI.word, 12, 1);

/// The packets that a prerequisite is about, and how to ask for them.
fn describe(prereq: Prereq) -> (&'static str, &'static str) {
    match prereq {
        Prereq::None => ("every packet", "nothing to do"),
        Prereq::Vlan => ("packets with a VLAN tag", "match dl_vlan, or push_vlan before"),
        Prereq::Arp => ("ARP and RARP packets", "add arp to the match"),
        Prereq::Ipv4 => ("IPv4 packets", "add ip to the match"),
        Prereq::Ipv6 => ("IPv6 packets", "add ipv6 to the match"),
        Prereq::Ip => ("IPv4 and IPv6 packets", "add ip or ipv6 to the match"),
        Prereq::Tcp => ("TCP packets that are no later fragments", "add tcp or tcp6 to the match"),
        Prereq::Udp => ("UDP packets that are no later fragments", "add udp or udp6 to the match"),
        Prereq::Sctp => ("SCTP packets that are no later fragments", "add sctp or sctp6 to the match"),
        Prereq::Icmpv4 => ("ICMP packets that are no later fragments", "add icmp to the match"),
        Prereq::Icmpv6 => ("ICMPv6 packets that are no later fragments", "add icmp6 to the match"),
        Prereq::Nd => ("neighbour discovery packets", "add icmp6,icmp_type=135 or icmp6,icmp_type=136 to the match"),
        Prereq::NdSolicit => ("neighbour solicitations", "add icmp6,icmp_type=135 to the match"),
        Prereq::NdAdvert => ("neighbour advertisements", "add icmp6,icmp_type=136 to the match"),
        Prereq::Mpls => ("MPLS packets", "add mpls or mplsm to the match"),
        Prereq::Nsh => ("NSH packets", "add dl_type=0x894f to the match"),
        Prereq::CtIpv4 => ("tracked IPv4 packets", "add ct_state=+trk,ip to the match"),
        Prereq::CtIpv6 => ("tracked IPv6 packets", "add ct_state=+trk,ipv6 to the match"),
        Prereq::CtIp => ("tracked IPv4 and IPv6 packets", "add ct_state=+trk and ip or ipv6 to the match"),
    }
}

#[cfg(test)]
mod tests;
