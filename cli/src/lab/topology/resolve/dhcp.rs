//! Servers of DHCP: the switch that each is a part of, and the hosts that have their addresses by them.

use super::super::Problem;
use super::super::raw::{Raw, RawHost, RawVlan};
use super::super::resolved::dhcp::DhcpServer;
use super::super::resolved::{End, Link, Mac, Vlan};
use super::MTU;
use super::links::Numbering;
use super::nodes::Nodes;
use ipnet::IpNet;

/// Resolves the servers but for their MAC addresses, addresses and gateways, and marks the interfaces of hosts with
/// `dhcp: true`.
pub(super) fn resolve(
    raw: &Raw,
    nodes: &mut Nodes,
    (links, vlans): (&[Link], &[Vlan]),
    numbering: &mut Numbering<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<DhcpServer> {
    let mut servers = Vec::new();
    for (raw_vlan, vlan) in raw.vlans.iter().zip(vlans) {
        let Some(dhcp) = &raw_vlan.dhcp else { continue };
        if vlan.subnet.is_none() {
            let message = format!("dhcp: `{}` has no `subnet:` that addresses could be given of", vlan.name);
            problems.push(Problem::new(dhcp.line, message));
            continue;
        }
        let Some(switch) = switch_of(links, vlan) else {
            let message = format!("dhcp: no link of a switch carries the VLAN {}", vlan.name);
            problems.push(Problem::new(dhcp.line, message));
            continue;
        };
        servers.push(DhcpServer {
            vlan: vlan.name.clone(),
            port: numbering.port(&switch),
            switch,
            mac: Mac([0; 6]),
            mtu: raw.mtu.unwrap_or(MTU),
            address: None,
            gateways: Vec::new(),
            lease_s: dhcp.value.as_secs(),
        });
    }
    for host in raw.hosts.iter().flatten() {
        let Some(line) = host.dhcp else { continue };
        match mark(host, &raw.vlans, nodes) {
            Ok(()) => {}
            Err(message) => problems.push(Problem::new(line, message)),
        }
    }
    servers
}

/// The switch that a server is a part of: the gateway, or the one that the gateway is linked to, or the first that carries
/// the VLAN.
fn switch_of(links: &[Link], vlan: &Vlan) -> Option<String> {
    let gateway = vlan.gateway.as_deref();
    let ends = |link: &Link| link.ends.iter().map(|end| end.node().to_owned()).collect::<Vec<_>>();
    let carrying = links.iter().filter(|link| link.underlay.is_none() && link.carried.carries(Some(&vlan.name)));
    let carrying: Vec<_> = carrying.collect();
    let by_gateway = carrying.iter().find(|link| ends(link).iter().any(|node| Some(node.as_str()) == gateway));
    let switches = by_gateway.into_iter().chain(&carrying).flat_map(|link| &link.ends);
    let switches: Vec<_> = switches.filter(|end| matches!(end, End::Switch { .. })).map(End::node).collect();
    let own = switches.iter().find(|switch| Some(**switch) == gateway);
    own.or(switches.first()).map(|switch| (*switch).to_owned())
}

/// Marks a host's first interface, in whose VLAN there must be a server.
fn mark(host: &RawHost, vlans: &[RawVlan], nodes: &mut Nodes) -> Result<(), String> {
    let name = &host.name.value;
    let example = "vlans: {lan: {subnet: 10.0.0.0/24, dhcp: true}}";
    // A host in no link is told of elsewhere.
    let Some(first) = nodes.host_mut(name).and_then(|h| h.interfaces.first_mut()) else { return Ok(()) };
    let Some(vlan) = &first.vlan else {
        let interface = &first.name;
        return Err(format!(
            "dhcp: {interface} of `{name}` is in no VLAN, and servers are a VLAN's: `{example}`, and `access: lan` on the link"
        ));
    };
    if vlans.iter().any(|v| v.name.value == *vlan && v.dhcp.is_none()) {
        return Err(format!("dhcp: `{name}` is in the VLAN {vlan}, which has no server; add `dhcp: true` to {vlan}"));
    }
    if host.addresses.iter().filter(|address| address.value.0.is_ipv4()).count() > 1 {
        return Err(format!("dhcp: `{name}` has several IPv4 addresses, and a server gives one"));
    }
    first.dhcp = true;
    Ok(())
}

/// Refuses addresses that a server cannot give.
pub(super) fn check_addresses(raw: &Raw, vlans: &[Vlan], nodes: &Nodes, problems: &mut Vec<Problem>) {
    for host in raw.hosts.iter().flatten() {
        let found = nodes.hosts.iter().find(|h| h.name == host.name.value).and_then(|h| h.interfaces.first());
        let Some(interface) = found.filter(|interface| interface.dhcp) else { continue };
        let subnet = vlans.iter().find(|v| Some(&v.name) == interface.vlan.as_ref()).and_then(|v| v.subnet);
        for address in &host.addresses {
            let own = interface.addresses.iter().find(|net| net.addr() == address.value.0);
            if let (Some(IpNet::V4(own)), Some(subnet)) = (own, subnet)
                && own.trunc() != subnet
            {
                let message = format!("ip: {own} is not in {subnet}, of which the server gives addresses");
                problems.push(Problem::new(address.line, message));
            }
        }
    }
}
