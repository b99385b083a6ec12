//! What the shell shows by itself: nodes, links, and what can be typed.

use super::line::{OWN, Own};
use super::substitute::nets;
use super::verbs::Verbs;
use crate::failure::Failure;
use crate::lab::topology::Topology;
use crate::output::{Output, Table};

const LINES: &[(&str, &str)] = &[
    ("h1 ping h2", "ping between hosts, both ways"),
    ("h1 COMMAND...", "a command line in a host; nodes' names in it become addresses: h1 curl http://h2:80/"),
    ("all COMMAND...", "in every host at once"),
    ("s1 flows", "what is asked of one switch: flows, ports, fdb, groups, meters, tables, mdb, trace; also r1 routes"),
    ("link h1 s1 down", "links by their ends or their name: show, set loss=5%, down, up, flap"),
];

/// Shows it.
pub(super) fn show(own: Own, topology: &Topology, verbs: &Verbs, out: &mut Output) -> Result<(), Failure> {
    let table = match own {
        Own::Nodes => nodes(topology),
        Own::Links => links(topology),
        Own::Help => return help(verbs, out),
        Own::Leave => return Ok(()),
    };
    Ok(out.table(&table)?)
}

fn nodes(topology: &Topology) -> Table {
    let mut table = Table::new(["NODE", "KIND", "ADDRESSES"]);
    for name in topology.node_names() {
        let kind = match () {
            () if topology.host(name).is_some() => "host",
            () if topology.switches.iter().any(|switch| switch.name == name) => "switch",
            () => "router",
        };
        let addresses: Vec<_> = nets(topology, name).iter().map(ToString::to_string).collect();
        let addresses = if addresses.is_empty() { "-".to_owned() } else { addresses.join(", ") };
        table.row([name, kind, &addresses]);
    }
    table
}

fn links(topology: &Topology) -> Table {
    let mut table = Table::new(["LINK", "ENDS", "", "VLANS", "MTU"]);
    for link in &topology.links {
        let [a, b] = link.ends.each_ref().map(ToString::to_string);
        let vlans = if link.underlay.is_some() { "-".to_owned() } else { link.carried.names() };
        table.row([&link.name, &a, &b, &vlans, &link.mtu.to_string()]);
    }
    table
}

fn help(verbs: &Verbs, out: &mut Output) -> Result<(), Failure> {
    let mut table = Table::default();
    LINES.iter().for_each(|(line, about)| table.row([*line, *about]));
    table.row(["", ""]);
    let own = OWN.iter().filter(|(_, _, about)| !about.is_empty());
    own.for_each(|(word, _, about)| table.row([*word, *about]));
    verbs.all().for_each(|(verb, about)| table.row([verb, about.as_str()]));
    Ok(out.table(&table)?)
}
