//! How a topology is shown: the node table, those of VLANs and tunnels, and its size in words.

use super::topology::Topology;
use super::topology::resolved::uplink::Outside;
use super::topology::resolved::{Carried, End, Link, RouterInterface};
use crate::failure::Failure;
use crate::output::{Output, Table};
use ipnet::IpNet;

/// Prints the tables that `lab up` and `lab inspect` have: nodes, and VLANs and tunnels if there are any.
pub(crate) fn tables(topology: &Topology, out: &mut Output) -> Result<(), Failure> {
    out.table(&nodes(topology))?;
    if !topology.vlans.is_empty() {
        out.line("")?;
        out.table(&vlans(topology))?;
    }
    if !topology.tunnels.is_empty() {
        out.line("")?;
        out.table(&tunnels(topology))?;
    }
    Ok(())
}

/// One row per interface of a host or router, then one per link of two switches: its ports, or its addresses.
fn nodes(topology: &Topology) -> Table {
    let mut table = Table::new(["NODE", "PORT", "PEER", "ADDRESS", "MAC", "VLAN"]);
    for host in &topology.hosts {
        for interface in &host.interfaces {
            let peer = format!("{}:{}", interface.switch, interface.port);
            let mac = interface.mac.to_string();
            let (addresses, vlan) = (addresses(&interface.addresses), interface.vlan.as_deref().unwrap_or("-"));
            table.row([host.name.as_str(), &interface.name, &peer, &addresses, &mac, vlan]);
        }
    }
    for router in &topology.routers {
        for interface in &router.interfaces {
            let (port, mac) = (interface.port.to_string(), interface.mac.to_string());
            let addresses = addresses(&interface.addresses);
            table.row([router.name.as_str(), &port, &interface.peer, &addresses, &mac, &vlan_of(interface)]);
        }
    }
    if let Some(uplink) = &topology.uplink {
        let (port, addresses) = (uplink.port.to_string(), addresses(uplink.addresses()));
        let mac = match &uplink.outside {
            Outside::Nat { mac, .. } => mac.to_string(),
            Outside::Device(_) => "-".to_owned(),
        };
        let peer = format!("uplink ({})", uplink.mode());
        table.row([uplink.switch.as_str(), &port, &peer, &addresses, &mac, uplink.vlan.as_deref().unwrap_or("-")]);
    }
    for link in &topology.links {
        match &link.ends {
            [End::Switch { switch, port }, peer @ End::Switch { .. }] => {
                table.row([switch.as_str(), &port.to_string(), &peer.to_string(), "-", "-", &link.carried.to_string()]);
            }
            [End::Stack { .. }, End::Stack { .. }] => routed(link, &mut table),
            _ => {}
        }
    }
    table
}

fn vlan_of(interface: &RouterInterface) -> String {
    let vlan = interface.vlan.as_deref().unwrap_or("-");
    interface.vrf.as_ref().map_or_else(|| vlan.to_owned(), |vrf| format!("{vlan} (vrf {vrf})"))
}

/// The two ends of a routed link.
fn routed(link: &Link, table: &mut Table) {
    for (index, own) in link.underlay.iter().flatten().enumerate() {
        let (end, peer) = (&link.ends[index], &link.ends[1 - index]);
        let End::Stack { stack, interface } = end else { continue };
        let mac = own.mac.to_string();
        table.row([stack.as_str(), interface, &peer.to_string(), &addresses(&own.addresses), &mac, "-"]);
    }
}

fn addresses(addresses: &[IpNet]) -> String {
    let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    if texts.is_empty() { "-".to_owned() } else { texts.join(",") }
}

fn vlans(topology: &Topology) -> Table {
    let dhcp = (!topology.dhcp.is_empty()).then_some("DHCP");
    let mut table =
        Table::new(["VLAN", "ID", "SUBNET", "GATEWAY", "VNI", "VRF"].into_iter().chain(dhcp).collect::<Vec<_>>());
    for vlan in &topology.vlans {
        let subnets = vlan.subnet.map(IpNet::V4).into_iter().chain(vlan.subnet6.map(IpNet::V6)).collect::<Vec<_>>();
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let vni = vlan.vni.map(|vni| vni.to_string());
        let cells = [vlan.name.clone(), vlan.id.to_string(), addresses(&subnets), text(&vlan.gateway), text(&vni)];
        let server = topology.dhcp_server(&vlan.name).and_then(|server| server.address);
        let server = dhcp.map(|_| server.map_or_else(|| "-".to_owned(), |server| server.addr().to_string()));
        table.row(cells.into_iter().chain([text(&vlan.vrf)]).chain(server).collect::<Vec<_>>());
    }
    table
}

fn tunnels(topology: &Topology) -> Table {
    let mut table = Table::new(["TUNNEL", "TYPE", "ENDS", "OVER", "VNI", "VLANS"]);
    for tunnel in &topology.tunnels {
        let mut ends: Vec<_> = tunnel.ends.iter().map(|end| format!("{}:{}", end.switch, end.port)).collect();
        // The other end of one that leaves the machine.
        ends.extend(tunnel.ends.iter().filter(|_| tunnel.over.is_none()).map(|end| end.remote.to_string()));
        let vni = tunnel.vni.map_or("-".to_owned(), |vni| vni.to_string());
        let vlans = if tunnel.carried == Carried::All { "all".to_owned() } else { tunnel.carried.to_string() };
        let over = tunnel.over.as_deref().unwrap_or("-");
        table.row([tunnel.name.as_str(), tunnel.kind.name(), &ends.join(" "), over, &vni, &vlans]);
    }
    table
}

/// `2 hosts, 1 switch, 2 links`, and routers and tunnels if there are any.
pub(crate) fn size(topology: &Topology) -> String {
    let parts = [
        (topology.hosts.len(), "host", true),
        (topology.switches.len(), "switch", true),
        (topology.routers.len(), "router", false),
        (topology.links.len(), "link", true),
        (topology.tunnels.len(), "tunnel", false),
    ];
    let parts = parts.into_iter().filter(|(count, _, always)| *count > 0 || *always);
    parts.map(|(count, what, _)| counted(count, what)).collect::<Vec<_>>().join(", ")
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
