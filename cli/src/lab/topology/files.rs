//! Files of groups and flows that a topology names: read where the topology file is, and understood as the switch will.

use super::Problem;
use super::resolved::{Switch, Topology};
use sluice_flows::bridge_mod::BridgeMod;
use sluice_flows::text::{ParseError, Parsed, parse_flow_file, parse_group_file};

/// Reads every file into the topology. What is wrong with one is in `problems` then.
pub(super) fn read(topology: &mut Topology, problems: &mut Vec<Problem>) {
    let mut switches = topology.switches.clone();
    for switch in &mut switches {
        for file in switch.groups.iter_mut().chain(&mut switch.flows) {
            let path = topology.beside(&file.path);
            match std::fs::read_to_string(&path) {
                Ok(text) => file.text = text,
                Err(error) => problems.push(Problem::new(file.line, format!("cannot read {path}: {error}"))),
            }
        }
        let line = switch.groups.iter().chain(&switch.flows).map(|file| file.line).next().unwrap_or_default();
        // What flow text would only warn of is a mistake, as in a rule.
        let mistakes = match changes(topology, switch) {
            Ok(changes) => changes.warnings.iter().map(|warning| warning.to_string()).collect(),
            Err(error) => vec![format!("{error:#}")],
        };
        problems.extend(mistakes.into_iter().map(|mistake| Problem::new(line, mistake)));
    }
    topology.switches = switches;
}

/// What the files of a switch ask for, in order. Each group and flow is owned by its line.
///
/// # Errors
/// The first line that cannot be understood.
pub(crate) fn changes(topology: &Topology, switch: &Switch) -> Result<Parsed<Vec<BridgeMod>>, ParseError> {
    let names = topology.port_names(&switch.name);
    let mut changes = Parsed { value: Vec::new(), warnings: Vec::new() };
    if let Some(file) = &switch.groups {
        let groups = parse_group_file(&topology.beside(&file.path), &file.text, &names)?;
        changes.value.extend(groups.into_iter().map(BridgeMod::from));
    }
    if let Some(file) = &switch.flows {
        let flows = parse_flow_file(&topology.beside(&file.path), &file.text, &names)?;
        changes.value.extend(flows.value.into_iter().map(BridgeMod::from));
        changes.warnings = flows.warnings;
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::super::{TopologyError, examine};
    use super::*;
    use sluice_flows::flow_mod::FlowMod;
    use std::fs;

    /// A lab whose switch has these files, in a folder of its own.
    fn lab(groups: &str, flows: &str) -> Result<Topology, String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.groups"), groups).unwrap();
        fs::write(folder.path().join("a.flows"), flows).unwrap();
        let text =
            "lab: a\nhosts: {h1: {}}\nswitches:\n  s1: {groups: a.groups,\n    flows: a.flows}\nlinks: [[h1, s1]]\n";
        let source = folder.path().join("a.lab.yml").display().to_string();
        let told = |error: TopologyError| error.lines().join("\n");
        examine(text, &source).map_err(|error| told(error).replace(&folder.path().display().to_string(), "DIR"))
    }

    #[test]
    fn groups_come_first_and_each_line_owns_what_it_asks_for() {
        let lab = lab("# Two ways.\ngroup_id=1,type=all,bucket=output:1\n", "in_port=h1 actions=group:1\n").unwrap();
        let changes = changes(&lab, &lab.switches[0]).unwrap().value;
        assert!(matches!(&changes[0], BridgeMod::Group(_)), "{changes:?}");
        let BridgeMod::Flow(FlowMod::Add { spec, .. }) = &changes[1] else { panic!("{changes:?}") };
        assert_eq!(spec.owner.text(), format!("file:{}:1", lab.beside("a.flows")));
    }

    #[test]
    fn mistakes_in_a_file_are_told_with_its_line_and_the_topologys() {
        let wrong = lab("", "priority=1,tcp actions=drop\ntcp_dts=80 actions=drop\n").unwrap_err();
        assert!(wrong.starts_with("DIR/a.lab.yml:4: DIR/a.flows:2:1: `tcp_dts`: unknown"), "{wrong}");
        let wrong = lab("group_id=1,type=some\n", "").unwrap_err();
        assert!(wrong.starts_with("DIR/a.lab.yml:4: DIR/a.groups:1:"), "{wrong}");
        let missing = "lab: a\nhosts: {h1: {}}\nswitches: {s1: {flows: none.flows}}\nlinks: [[h1, s1]]\n";
        let wrong = examine(missing, "some/a.yml").unwrap_err().lines();
        assert_eq!(wrong, ["some/a.yml:3: cannot read some/none.flows: No such file or directory (os error 2)"]);
    }
}
