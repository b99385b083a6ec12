//! The flows, groups, meters and table settings of a configuration: read, and put into their bridge in one step.

use super::{BridgeConfig, FlowLine, SetupError};
use crate::Datapath;
use sluice_flows::Owner;
use sluice_flows::bridge::{TableConfig, TableMod};
use sluice_flows::bridge_mod::BridgeMod;
use sluice_flows::filter::{FlowFilter, OwnerFilter};
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::group::{GroupMod, GroupSpec};
use sluice_flows::meter::{MeterMod, MeterSpec};
use sluice_flows::rule::TableId;
use sluice_flows::text::{Names, ParseError, parse_flow_mod_of, parse_group, parse_meter};

/// Puts what a bridge is to have into it; it has nothing yet but its ports.
pub(super) fn start(datapath: &Datapath, bridge: &BridgeConfig) -> Result<(), SetupError> {
    let mut names = Names::of_bridge(&*datapath.bridge(&bridge.name)?);
    name_tables(bridge, &mut names);
    let mut mods: Vec<_> = bridge.tables.iter().map(|(id, config)| set_table(*id, config)).collect();
    for meter in &bridge.meters {
        mods.push(MeterMod::Add(read_meter(meter)?).into());
    }
    for group in &bridge.groups {
        mods.push(GroupMod::Add(read_group(group, &names)?).into());
    }
    for flow in bridge.flows.iter().flatten() {
        mods.push(read_flow(flow, &names)?.into());
    }
    datapath.apply_bundle(&bridge.name, &mods)?;
    Ok(())
}

/// Checks that all of it can be read; `names` are those of the bridge's ports.
pub(super) fn check(bridge: &BridgeConfig, names: &mut Names) -> Result<(), SetupError> {
    name_tables(bridge, names);
    bridge.meters.iter().try_for_each(|meter| read_meter(meter).map(drop))?;
    bridge.groups.iter().try_for_each(|group| read_group(group, names).map(drop))?;
    bridge.flows.iter().flatten().try_for_each(|flow| read_flow(flow, names).map(drop))
}

/// Takes out what the old file has and the new one has not, and puts in what is new. What is in both, and what others
/// put in, stays with its counters.
pub(super) fn reload(datapath: &Datapath, old: &BridgeConfig, new: &BridgeConfig) -> Result<(), SetupError> {
    let bridge = datapath.bridge(&new.name)?;
    let (mut old_names, mut names) = (Names::of_bridge(&bridge), Names::of_bridge(&bridge));
    name_tables(old, &mut old_names);
    name_tables(new, &mut names);
    let mut mods = reset_tables(old, new);
    let (old_meters, meters) = (read_meters(old)?, read_meters(new)?);
    let (old_groups, groups) = (read_groups(old, &old_names)?, read_groups(new, &names)?);
    for spec in meters.iter().filter(|spec| !old_meters.contains(spec)) {
        let there = bridge.meters.contains_key(&spec.id);
        mods.push(if there { MeterMod::Modify(spec.clone()) } else { MeterMod::Add(spec.clone()) }.into());
    }
    for spec in groups.iter().filter(|spec| !old_groups.contains(spec)) {
        mods.push(GroupMod::Modify { spec: spec.clone(), may_create: true }.into());
    }
    let (before, after) = (listed(old), listed(new));
    for flow in before.iter().filter(|flow| !after.contains(flow)) {
        if let FlowMod::Add { spec, .. } = read_flow(flow, &old_names)? {
            let owner = Some(OwnerFilter::Is(spec.owner.clone()));
            mods.push(FlowMod::delete(FlowFilter { owner, ..FlowFilter::strictly(&spec) }).into());
        }
    }
    for flow in after.iter().filter(|flow| !before.contains(flow)) {
        mods.push(read_flow(flow, &names)?.into());
    }
    // Last, because the flows that name them go too.
    let gone = old_groups.iter().filter(|old| groups.iter().all(|new| new.id != old.id));
    mods.extend(gone.map(|spec| BridgeMod::from(GroupMod::Delete(Some(spec.id)))));
    let gone = old_meters.iter().filter(|old| meters.iter().all(|new| new.id != old.id));
    mods.extend(gone.map(|spec| BridgeMod::from(MeterMod::Delete(Some(spec.id)))));
    datapath.apply_bundle(&new.name, &mods)?;
    Ok(())
}

/// The settings of tables that differ. Names that are to go go first, as another table may get them.
fn reset_tables(old: &BridgeConfig, new: &BridgeConfig) -> Vec<BridgeMod> {
    let changed = |id: &&TableId| old.tables.get(id) != new.tables.get(id);
    let unnamed = |id: &TableId| TableMod { table: Some(*id), name: Some("".into()), ..TableMod::default() };
    let gone = old.tables.keys().filter(changed).map(|id| unnamed(id).into());
    let ids = old.tables.keys().filter(|id| !new.tables.contains_key(id)).chain(new.tables.keys());
    let set = ids.filter(changed).map(|id| set_table(*id, &new.tables.get(id).cloned().unwrap_or_default()));
    gone.chain(set).collect()
}

/// Makes everything that is said of a table what `config` says.
fn set_table(id: TableId, config: &TableConfig) -> BridgeMod {
    let change = TableMod {
        table: Some(id),
        name: Some(config.name.clone().unwrap_or_default()),
        miss: Some(config.miss),
        max_flows: Some(config.max_flows.unwrap_or(0)),
        evict: Some(config.evict),
    };
    change.into()
}

fn name_tables(bridge: &BridgeConfig, names: &mut Names) {
    for (id, config) in &bridge.tables {
        if let Some(name) = &config.name {
            names.add_table(*id, name.clone());
        }
    }
}

fn read_groups(bridge: &BridgeConfig, names: &Names) -> Result<Vec<GroupSpec>, SetupError> {
    bridge.groups.iter().map(|line| read_group(line, names)).collect()
}

fn read_meters(bridge: &BridgeConfig) -> Result<Vec<MeterSpec>, SetupError> {
    bridge.meters.iter().map(read_meter).collect()
}

fn read_flow(line: &FlowLine, names: &Names) -> Result<FlowMod, SetupError> {
    parse_flow_mod_of(&owner(line), &line.text, names).map(|read| read.value).map_err(|e| wrong(line, e))
}

fn read_group(line: &FlowLine, names: &Names) -> Result<GroupSpec, SetupError> {
    let spec = parse_group(&line.text, names).map_err(|e| wrong(line, e))?.value;
    let own = if spec.owner == Owner::user() { owner(line) } else { spec.owner.clone() };
    Ok(GroupSpec { owner: own, ..spec })
}

fn read_meter(line: &FlowLine) -> Result<MeterSpec, SetupError> {
    let spec = parse_meter(&line.text).map_err(|e| wrong(line, e))?;
    let own = if spec.owner == Owner::user() { owner(line) } else { spec.owner.clone() };
    Ok(MeterSpec { owner: own, ..spec })
}

fn owner(line: &FlowLine) -> Owner {
    Owner::file_line(&line.path.display().to_string(), line.line)
}

fn wrong(line: &FlowLine, error: ParseError) -> SetupError {
    SetupError::Flow {
        line: Box::new(line.clone()),
        column: line.column + error.columns().start - 1,
        error: Box::new(error),
    }
}

/// The error without its own column, which counts from the start of the text and not of the file's line.
pub(super) fn without_column(error: &ParseError) -> String {
    let text = format!("{error:#}");
    let own = format!("column {}: ", error.columns().start);
    text.strip_prefix(&own).unwrap_or(&text).to_owned()
}

/// The flows of a bridge; those of a learning switch when the file does not say.
fn listed(bridge: &BridgeConfig) -> Vec<FlowLine> {
    bridge.flows.clone().unwrap_or_else(|| {
        let text = "priority=0,owner=builtin:default actions=NORMAL".to_owned();
        vec![FlowLine { text, path: "builtin".into(), line: 1, column: 1 }]
    })
}
