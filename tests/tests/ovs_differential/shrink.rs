//! Makes a failing case small: what is still different without a flow, an action, a word of a match, a group, a bucket or
//! a field of the packet goes without it.

use crate::case::{Case, Difference, Packet, compare, compare_learned};
use crate::ovs::Ovs;
use sluice_flows::field::FIELDS;
use sluice_flows::key::slot;
use sluice_tests::generate::program::Program;

/// Rounds over the whole case; each makes it smaller, or is the last.
const ROUNDS: usize = 6;

/// Installs the program and looks whether the case still fails. A program that OVS or we refuse does not.
pub(crate) fn fails(ovs: &mut Ovs, case: &Case) -> Option<Difference> {
    let model = case.program.model().ok()?;
    ovs.install(case.version, &case.program).ok()?;
    let difference = compare(ovs, &model, &case.packet).difference;
    difference.or_else(|| compare_learned(ovs, &model, &case.packet).difference)
}

/// The smallest case found that fails as this one does, and how; `None` if it does not fail twice.
pub(crate) fn shrink(ovs: &mut Ovs, mut case: Case) -> Option<(Case, Difference)> {
    let mut difference = fails(ovs, &case)?;
    for _ in 0..ROUNDS {
        let mut smaller = false;
        // Each case comes with one part less than the last that failed; a part that was taken moves the others up.
        let mut at = 0;
        while let Some(tried) = without_part(&case, at) {
            match fails(ovs, &tried) {
                Some(found) => {
                    (case, difference, smaller) = (tried, found, true);
                }
                None => at += 1,
            }
        }
        if !smaller {
            break;
        }
    }
    Some((case, difference))
}

/// The case without its part number `at`; `None` if it has no more parts.
fn without_part(case: &Case, at: usize) -> Option<Case> {
    let mut less = case.clone();
    let mut at = at;
    if remove(&mut less.program, &mut at) {
        return Some(less);
    }
    let packet = &case.packet;
    if packet.frame.is_some() {
        return None;
    }
    let whole = ["eth_type", "nw_proto", "in_port"];
    let fields = FIELDS.iter().filter(|info| packet.key.get(info.slot) != 0 && !whole.contains(&info.name));
    let info = fields.into_iter().nth(at)?;
    let mut key = packet.key;
    key.set(info.slot, 0);
    if key.get(slot::VLAN_TCI) == 0 {
        key.set(slot::VLAN_TPID, 0);
    }
    less.packet = Packet::of(key, packet.ct);
    Some(less)
}

/// Takes part number `at` of a program out; counts `at` down by the number of parts if it has fewer.
fn remove(program: &mut Program, at: &mut usize) -> bool {
    for flows in &mut program.flows {
        if *at < flows.len() {
            flows.remove(*at);
            return true;
        }
        *at -= flows.len();
    }
    for groups in &mut program.groups {
        if *at < groups.len() {
            groups.remove(*at);
            return true;
        }
        *at -= groups.len();
    }
    for flow in program.flows.iter_mut().flatten() {
        for list in [&mut flow.actions, &mut flow.matches] {
            if *at < list.len() {
                list.remove(*at);
                return true;
            }
            *at -= list.len();
        }
    }
    for group in program.groups.iter_mut().flatten() {
        if *at < group.buckets.len() {
            group.buckets.remove(*at);
            return true;
        }
        *at -= group.buckets.len();
        for bucket in &mut group.buckets {
            if *at < bucket.actions.len() {
                bucket.actions.remove(*at);
                return true;
            }
            *at -= bucket.actions.len();
        }
    }
    false
}
