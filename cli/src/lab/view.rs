//! How a topology is shown: the node table, and its size in words.

use super::topology::Topology;
use super::topology::resolved::End;
use crate::output::Table;

/// The table that `lab up` and `lab inspect` print: one row per interface of a host, then one per link of two switches.
pub(crate) fn nodes(topology: &Topology) -> Table {
    let mut table = Table::new(["NODE", "PORT", "PEER", "ADDRESS", "MAC", "VLAN"]);
    for host in &topology.hosts {
        for interface in &host.interfaces {
            let addresses: Vec<_> = interface.addresses.iter().map(ToString::to_string).collect();
            let addresses = if addresses.is_empty() { "-".to_owned() } else { addresses.join(",") };
            let peer = format!("{}:{}", interface.switch, interface.port);
            let mac = interface.mac.to_string();
            table.row([host.name.as_str(), &interface.name, &peer, &addresses, &mac, "-"]);
        }
    }
    for link in &topology.links {
        if let [End::Switch { switch, port }, peer @ End::Switch { .. }] = &link.ends {
            table.row([switch.as_str(), &port.to_string(), &peer.to_string(), "-", "-", "-"]);
        }
    }
    table
}

/// `2 hosts, 1 switch, 2 links`.
pub(crate) fn size(topology: &Topology) -> String {
    let parts = [(topology.hosts.len(), "host"), (topology.switches.len(), "switch"), (topology.links.len(), "link")];
    parts.map(|(count, what)| counted(count, what)).join(", ")
}

/// `1 switch`, `2 switches`.
pub(crate) fn counted(count: usize, what: &str) -> String {
    let plural = match what {
        _ if count == 1 => "",
        "switch" => "es",
        _ => "s",
    };
    format!("{count} {what}{plural}")
}
