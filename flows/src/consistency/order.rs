//! In which order actions stand, and which may stand within others.

use super::ConsistencyError;
use crate::action::{Action, ControllerAction, ModAction};
use crate::field::Field;

/// Where an action list stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a flow: instructions may stand in it.
    Flow,
    /// In a group's bucket.
    Bucket,
    /// In `clone(..)`.
    Clone,
    /// In `write_actions(..)`.
    WriteActions,
    /// In `ct(exec(..))`.
    Ct,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::Flow => "a flow",
            Self::Bucket => "a bucket",
            Self::Clone => "clone",
            Self::WriteActions => "write_actions",
            Self::Ct => "exec",
        }
    }
}

/// OpenFlow's instructions, in the order in which they are executed and must stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Instruction {
    Meter,
    ApplyActions,
    ClearActions,
    WriteActions,
    WriteMetadata,
    GotoTable,
}

impl Instruction {
    fn of(action: &Action) -> Self {
        match action {
            Action::Meter(_) => Self::Meter,
            Action::ClearActions => Self::ClearActions,
            Action::WriteActions(_) => Self::WriteActions,
            Action::WriteMetadata { .. } => Self::WriteMetadata,
            Action::GotoTable(_) => Self::GotoTable,
            _ => Self::ApplyActions,
        }
    }
}

/// Checks the order of `actions`, and whether each may stand at `place`. Lists within them are not looked into.
///
/// # Errors
/// The first action that stands where it cannot.
pub(crate) fn verify(actions: &[Action], place: Place) -> Result<(), ConsistencyError> {
    if place != Place::Ct && actions.iter().any(|a| matches!(a, Action::Conjunction(_))) {
        let beside = |a: &Action| !matches!(a, Action::Conjunction(_) | Action::Note(_));
        if let Some((i, action)) = actions.iter().enumerate().find(|(_, action)| beside(action)) {
            return Err(ConsistencyError::BesideConjunction { action: i + 1, name: word(action) });
        }
    }
    let mut last: Option<(Instruction, &Action)> = None;
    for (i, action) in actions.iter().enumerate() {
        nested(action, place, i + 1)?;
        let now = Instruction::of(action);
        match last {
            Some((before, earlier)) if now < before => {
                let (name, before) = (word(action), word(earlier));
                return Err(ConsistencyError::Order { action: i + 1, name, before });
            }
            Some((before, _)) if now == before && now != Instruction::ApplyActions => {
                return Err(ConsistencyError::Twice { action: i + 1, name: word(action) });
            }
            _ => last = Some((now, action)),
        }
    }
    Ok(())
}

/// Whether `action`, the list's `n`th, may stand at `place`.
fn nested(action: &Action, place: Place, n: usize) -> Result<(), ConsistencyError> {
    let set = match action {
        Action::SetField { field, .. } => Some(*field),
        Action::Load { dst, .. } | Action::Move { dst, .. } => Some(dst.field),
        _ => None,
    };
    let of_connection = |field| matches!(field, Field::CtMark | Field::CtLabel);
    let elsewhere = || ConsistencyError::NotHere { action: n, name: word(action), place: place.name() };
    match (place, set) {
        (Place::Ct, None) => return Err(elsewhere()),
        (Place::Ct, Some(field)) if !of_connection(field) => {
            return Err(ConsistencyError::NotOfConnection { action: n, field: field.info().name });
        }
        (Place::Ct, Some(_)) => return Ok(()),
        (_, Some(field)) if of_connection(field) => {
            return Err(ConsistencyError::OutsideCt { action: n, field: field.info().name });
        }
        _ => {}
    }
    let fits = match Instruction::of(action) {
        Instruction::Meter => matches!(place, Place::Flow | Place::Bucket),
        Instruction::ApplyActions => place != Place::WriteActions || fits_action_set(action),
        _ => place == Place::Flow,
    };
    if fits { Ok(()) } else { Err(elsewhere()) }
}

/// Whether an action set can hold it: OpenFlow's actions that change a packet, and those that end a set.
fn fits_action_set(action: &Action) -> bool {
    match action {
        Action::Controller(to) => {
            ControllerAction { max_len: u16::MAX, extended: false, ..(**to).clone() } == ControllerAction::default()
        }
        Action::Output(_)
        | Action::Group(_)
        | Action::Resubmit { .. }
        | Action::Ct(_)
        | Action::CtClear
        | Action::SetField { .. }
        | Action::Load { .. }
        | Action::Move { .. }
        | Action::Mod(_)
        | Action::PushVlan(_)
        | Action::PopVlan { .. }
        | Action::PushMpls(_)
        | Action::PopMpls(_)
        | Action::SetMplsLabel(_)
        | Action::SetMplsTc(_)
        | Action::SetMplsTtl(_)
        | Action::DecMplsTtl
        | Action::DecTtl(_)
        | Action::DecNshTtl
        | Action::SetTunnel { .. }
        | Action::SetQueue(_)
        | Action::Encap(_)
        | Action::Decap(_) => true,
        _ => false,
    }
}

/// The word that an action is written with.
pub(super) fn word(action: &Action) -> &'static str {
    match action {
        Action::Output(_) | Action::OutputField(_) | Action::OutputTruncated { .. } => "output",
        Action::Controller(_) => "controller",
        Action::Enqueue { .. } => "enqueue",
        Action::Group(_) => "group",
        Action::Bundle(bundle) if bundle.dst.is_some() => "bundle_load",
        Action::Bundle(_) => "bundle",
        Action::GotoTable(_) => "goto_table",
        Action::Resubmit { .. } => "resubmit",
        Action::SetField { .. } => "set_field",
        Action::Load { .. } => "load",
        Action::Move { .. } => "move",
        Action::Push(_) => "push",
        Action::Pop(_) => "pop",
        Action::Mod(setter) => setter_word(setter),
        Action::PushVlan(_) => "push_vlan",
        Action::PopVlan { modern: true } => "pop_vlan",
        Action::PopVlan { modern: false } => "strip_vlan",
        Action::PushMpls(_) => "push_mpls",
        Action::PopMpls(_) => "pop_mpls",
        Action::SetMplsLabel(_) => "set_mpls_label",
        Action::SetMplsTc(_) => "set_mpls_tc",
        Action::SetMplsTtl(_) => "set_mpls_ttl",
        Action::DecMplsTtl => "dec_mpls_ttl",
        Action::DecTtl(_) => "dec_ttl",
        Action::DecNshTtl => "dec_nsh_ttl",
        Action::SetTunnel { .. } => "set_tunnel",
        Action::SetQueue(_) => "set_queue",
        Action::PopQueue => "pop_queue",
        Action::DeleteField(_) => "delete_field",
        Action::Learn(_) => "learn",
        Action::Conjunction(_) => "conjunction",
        Action::Multipath(_) => "multipath",
        Action::Meter(_) => "meter",
        Action::Clone(_) => "clone",
        Action::Exit => "exit",
        Action::Reject => "reject",
        Action::Note(_) => "note",
        Action::Sample(_) => "sample",
        Action::CheckPktLarger { .. } => "check_pkt_larger",
        Action::FinTimeout { .. } => "fin_timeout",
        Action::Fragment(_) => "fragment",
        Action::Ct(_) => "ct",
        Action::CtClear => "ct_clear",
        Action::Encap(_) => "encap",
        Action::Decap(_) => "decap",
        Action::WriteActions(_) => "write_actions",
        Action::ClearActions => "clear_actions",
        Action::WriteMetadata { .. } => "write_metadata",
    }
}

fn setter_word(setter: &ModAction) -> &'static str {
    match setter {
        ModAction::DlSrc(_) => "mod_dl_src",
        ModAction::DlDst(_) => "mod_dl_dst",
        ModAction::NwSrc(_) => "mod_nw_src",
        ModAction::NwDst(_) => "mod_nw_dst",
        ModAction::NwTos(_) => "mod_nw_tos",
        ModAction::NwEcn(_) => "mod_nw_ecn",
        ModAction::NwTtl(_) => "mod_nw_ttl",
        ModAction::TpSrc(_) => "mod_tp_src",
        ModAction::TpDst(_) => "mod_tp_dst",
        ModAction::VlanVid(_) => "mod_vlan_vid",
        ModAction::VlanPcp(_) => "mod_vlan_pcp",
        ModAction::SetVlanVid(_) => "set_vlan_vid",
        ModAction::SetVlanPcp(_) => "set_vlan_pcp",
    }
}
