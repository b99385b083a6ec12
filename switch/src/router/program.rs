//! A router's flows and groups in its bridge: as a whole, and as one step of changes.

use crate::{BundleResult, ControlError, Datapath, Made};
use sluice_flows::Match;
use sluice_flows::action::GroupId;
use sluice_flows::bridge::{Bridge, TableMod};
use sluice_flows::bridge_mod::{BridgeMod, ModError};
use sluice_flows::filter::{FlowFilter, OwnerFilter};
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::group::GroupMod;
use sluice_flows::router::{Pipeline, Program};
use sluice_flows::rule::{FlowSpec, Millis, Rule, TableId};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Makes all the changes to a bridge, or none of them.
///
/// # Errors
/// When there is no such bridge, or a change is refused.
pub(super) fn apply(datapath: &Datapath, bridge: &str, mods: Vec<BridgeMod>) -> Result<BundleResult, ControlError> {
    datapath.edit(bridge, |edited, now| {
        let mut made = Made::default();
        make_all(edited, bridge, mods, now, &mut made)?;
        Ok(made)
    })
}

fn make_all(
    bridge: &mut Bridge,
    name: &str,
    mods: Vec<BridgeMod>,
    now: Millis,
    made: &mut Made,
) -> Result<(), ControlError> {
    for (number, change) in (1..).zip(mods) {
        made.add(bridge.make(change, now).map_err(|source| refused(name, number, source))?);
    }
    Ok(())
}

fn refused(bridge: &str, number: usize, source: ModError) -> ControlError {
    ControlError::Change { bridge: bridge.to_owned(), number, source }
}

/// Makes a router's flows and groups these, in one step; `owner` is the start of the owners of all of them. What is there
/// already stays, with its counters.
///
/// # Errors
/// When there is no such bridge, or a change is refused.
pub(super) fn replace(
    datapath: &Datapath,
    bridge: &str,
    owner: &str,
    program: Program,
) -> Result<BundleResult, ControlError> {
    datapath.edit(bridge, |edited, now| {
        let mods = difference(edited, owner, program);
        let mut made = Made::default();
        make_all(edited, bridge, mods, now, &mut made)?;
        Ok(made)
    })
}

/// Whether a rule is one of the router with this owner.
fn is_own(owner: &str, text: &str) -> bool {
    text.strip_prefix(owner).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

type Place = (TableId, u16, Match);

fn place(spec: &FlowSpec) -> Place {
    (spec.table, spec.priority, spec.matches.clone())
}

/// The changes that lead to `program`.
fn difference(bridge: &Bridge, owner: &str, program: Program) -> Vec<BridgeMod> {
    let there = own_rules(bridge, owner);
    let mut there: HashMap<Place, &Rule> = there.map(|rule| (place(&rule.spec), &**rule)).collect();
    let mut mods: Vec<BridgeMod> = program.tables.into_iter().map(BridgeMod::from).collect();
    let wanted: HashSet<GroupId> = program.groups.iter().map(|group| group.id).collect();
    mods.extend(program.groups.into_iter().map(|spec| GroupMod::Modify { spec, may_create: true }.into()));
    for spec in program.flows {
        let same = |rule: &&Rule| FlowSpec { generation: spec.generation, ..rule.spec.clone() } == spec;
        if there.remove(&place(&spec)).filter(same).is_none() {
            mods.push(FlowMod::Add { spec, check_overlap: false, reset_counts: false }.into());
        }
    }
    let mut stale: Vec<_> = there.into_keys().collect();
    stale.sort_unstable_by_key(|(table, priority, _)| (*table, *priority));
    mods.extend(stale.into_iter().map(|(table, priority, matches)| {
        let filter = FlowFilter { table: Some(table), strict: Some(priority), matches, ..FlowFilter::all() };
        FlowMod::delete(filter).into()
    }));
    let groups = bridge.groups.values().filter(|group| is_own(owner, &group.owner.text()));
    let stale = groups.map(|group| group.id).filter(|id| !wanted.contains(id));
    mods.extend(stale.map(|id| GroupMod::Delete(Some(id)).into()));
    mods
}

/// The rules of a router.
fn own_rules<'a>(bridge: &'a Bridge, owner: &'a str) -> impl Iterator<Item = &'a Arc<Rule>> {
    bridge.tables.iter().filter(move |rule| is_own(owner, &rule.spec.owner.text()))
}

/// Deletes everything that a router has in its bridge.
///
/// # Errors
/// When there is no such bridge.
pub(super) fn remove(
    datapath: &Datapath,
    bridge: &str,
    owner: &str,
    pipeline: Pipeline,
) -> Result<BundleResult, ControlError> {
    datapath.edit(bridge, |edited, now| {
        let owners = [OwnerFilter::new(owner), OwnerFilter::Prefix(format!("{owner}/"))];
        let flows = owners.map(|owner| FlowFilter { owner: Some(owner), ..FlowFilter::all() });
        let mut mods: Vec<BridgeMod> = flows.into_iter().map(|filter| FlowMod::delete(filter).into()).collect();
        let groups = edited.groups.values().filter(|group| is_own(owner, &group.owner.text()));
        mods.extend(groups.map(|group| BridgeMod::from(GroupMod::Delete(Some(group.id)))));
        mods.extend(pipeline.names().into_iter().map(|named| TableMod { name: Some("".into()), ..named }.into()));
        let mut made = Made::default();
        make_all(edited, bridge, mods, now, &mut made)?;
        Ok(made)
    })
}
