//! What Open vSwitch takes in one version of OpenFlow, beyond what we check.

use super::language::Version;
use sluice_flows::Match;
use sluice_flows::action::{Action, ModAction};
use sluice_flows::field::{Field, Format, Prereq};

/// Fields that OpenFlow 1.0 has actions for.
const OLD_SETTERS: [Field; 10] = [
    Field::EthSrc,
    Field::EthDst,
    Field::IpSrc,
    Field::IpDst,
    Field::VlanTci,
    Field::TcpSrc,
    Field::TcpDst,
    Field::UdpSrc,
    Field::UdpDst,
    Field::SctpSrc,
];

/// Whether OVS reads the mask as one: an IPv6 mask that begins with a decimal digit is a prefix length to it.
pub(super) fn ovs_reads(format: Format, mask: u128) -> bool {
    let prefix = mask.leading_ones() + mask.trailing_zeros() >= 128;
    let first = format!("{:x}", mask >> 112);
    format != Format::Ipv6 || prefix || first.len() == 4 && !first.starts_with(|c: char| c.is_ascii_digit())
}

/// Whether OVS takes the last of these actions, of a flow with this match, in this version.
pub(super) fn takes(version: Version, matches: &Match, actions: &[Action]) -> bool {
    let key = matches.value();
    let has = |prereq: Prereq| prereq.holds(&key, &mut Default::default());
    let modern = version == Version::OpenFlow15;
    let known = |field: Field| modern || field.info().nxm.iter().any(|n| n.starts_with("NXM"));
    let tags = |list: &[Action]| {
        list.iter().fold(i32::from(has(Prereq::Vlan)), |tags, action| match action {
            Action::PushVlan(_) => tags + 1,
            Action::PopVlan { .. } => tags - 1,
            _ => tags,
        })
    };
    let labels = |list: &[Action]| {
        list.iter().fold(i32::from(has(Prereq::Mpls)), |labels, action| match action {
            Action::PushMpls(_) => labels + 1,
            Action::PopMpls(under) if !matches!(under, 0x8847 | 0x8848) => 0,
            _ => labels,
        })
    };
    let Some((last, before)) = actions.split_last() else { return true };
    if modern && labels(before) > 0 && !has(Prereq::Mpls) {
        // Behind a pushed label OVS looks for the fields of MPLS.
        let sets = matches!(last, Action::Mod(_) | Action::SetField { .. } | Action::Load { .. } | Action::Move { .. });
        if sets || matches!(last, Action::Push(_) | Action::Pop(_) | Action::Ct(_)) {
            return false;
        }
    }
    match last {
        // Written for OpenFlow 1.0 it is a resubmit, and nothing may come after write_metadata.
        Action::GotoTable(_) => modern || !before.iter().any(|a| matches!(a, Action::WriteMetadata { .. })),
        Action::PushVlan(_) => modern && tags(actions) <= 2,
        Action::PopVlan { .. } => !modern || tags(before) > 0,
        Action::DecTtl(_) => !modern || has(Prereq::Ip) && labels(before) == 0,
        Action::FinTimeout { .. } => !modern || has(Prereq::Tcp),
        Action::SetMplsLabel(_)
        | Action::SetMplsTc(_)
        | Action::SetMplsTtl(_)
        | Action::DecMplsTtl
        | Action::PopMpls(_) => !modern || labels(before) > 0,
        Action::Mod(change) => match change {
            _ if !modern => !matches!(change, ModAction::NwEcn(_) | ModAction::NwTtl(_)),
            ModAction::DlSrc(_) | ModAction::DlDst(_) => true,
            ModAction::NwSrc(_) | ModAction::NwDst(_) => has(Prereq::Ipv4),
            ModAction::NwTos(_) | ModAction::NwEcn(_) | ModAction::NwTtl(_) => has(Prereq::Ip),
            ModAction::TpSrc(_) | ModAction::TpDst(_) => has(Prereq::Tcp) || has(Prereq::Udp) || has(Prereq::Sctp),
            ModAction::VlanVid(_) | ModAction::VlanPcp(_) | ModAction::SetVlanVid(_) | ModAction::SetVlanPcp(_) => {
                tags(before) > 0
            }
        },
        Action::SetField { field: Field::VlanVid, mask, .. } => known(Field::VlanVid) && *mask & 0xfff == 0xfff,
        Action::SetField { field, mask, .. } => {
            // OVS forgets the mask when OpenFlow 1.0 has an action of its own for the field.
            let whole = *mask & field.slot().max() == field.slot().max();
            known(*field) && (modern || whole || !OLD_SETTERS.contains(field))
        }
        Action::Load { dst, .. } => known(dst.field),
        Action::Move { src, dst } => known(src.field) && known(dst.field),
        Action::Push(part) | Action::Pop(part) | Action::OutputField(part) => known(part.field),
        _ => true,
    }
}
