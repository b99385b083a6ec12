//! Makes a failing case small: what is still different without a flow, an action or a part of a match goes without it.

use crate::case::{Case, Difference, Flows, compare, lines};
use crate::ovs::Ovs;
use sluice_flows::field::FIELDS;
use sluice_flows::rule::FlowSpec;
use sluice_tests::generate::without;

/// Rounds over the whole case; each makes it smaller, or is the last.
const ROUNDS: usize = 10;

/// Installs the flows and looks whether the case still fails. A table that OVS refuses does not.
fn fails(ovs: &mut Ovs, case: &Case) -> Option<Difference> {
    for (bridge, flows) in (0..).zip(&case.flows) {
        ovs.replace_flows(bridge, case.dialect, &lines(flows)).ok()?;
    }
    compare(ovs, &case.flows, &case.packet).difference
}

/// The smallest case found that fails as this one does, and how; `None` if it does not fail twice.
pub(crate) fn shrink(ovs: &mut Ovs, mut case: Case) -> Option<(Case, Difference)> {
    let mut difference = fails(ovs, &case)?;
    for _ in 0..ROUNDS {
        let mut smaller = false;
        for bridge in 0..case.flows.len() {
            let mut at = 0;
            while let Some(flow) = case.flows[bridge].get(at).cloned() {
                let mut gone = case.flows.clone();
                gone[bridge].remove(at);
                if replaces(ovs, &mut case, gone, &mut difference) {
                    smaller = true;
                    continue;
                }
                for less in reduced(&flow) {
                    let mut flows = case.flows.clone();
                    flows[bridge][at] = less;
                    if replaces(ovs, &mut case, flows, &mut difference) {
                        smaller = true;
                        break;
                    }
                }
                at += 1;
            }
        }
        if !smaller {
            break;
        }
    }
    Some((case, difference))
}

/// Takes `flows` into the case if it still fails with them.
fn replaces(ovs: &mut Ovs, case: &mut Case, flows: Flows, difference: &mut Difference) -> bool {
    let tried = Case { flows, ..case.clone() };
    let Some(found) = fails(ovs, &tried) else { return false };
    (*case, *difference) = (tried, found);
    true
}

/// The flow without one of its actions, or without one of the fields it matches.
fn reduced(flow: &FlowSpec) -> Vec<FlowSpec> {
    let mut all = Vec::new();
    for at in 0..flow.actions.len() {
        let mut actions = flow.actions.to_vec();
        actions.remove(at);
        all.push(FlowSpec { actions: actions.into(), ..flow.clone() });
    }
    for info in FIELDS.iter().filter(|info| flow.matches.get(info.slot).1 != 0) {
        all.push(FlowSpec { matches: without(&flow.matches, info.slot), ..flow.clone() });
    }
    all
}
