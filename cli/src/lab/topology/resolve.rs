//! From what a file says to what will be made: nodes, ports, interfaces, MACs and addresses.
//!
//! Everything is decided by the order of the file, so the same file always makes the same lab: ports count from 1,
//! interfaces from `eth0`, MACs from `02:00:00:00:00:01` (bytes 2 and 3 are the seed less one), addresses from the
//! subnet's first. A host's `ip:` goes to its first interface; further interfaces of it have no address but what a link
//! with `ips:` gives them.

mod addresses;
mod dhcp;
mod links;
mod mirrors;
mod nat;
mod nodes;
mod routers;
mod tests;
mod tunnels;
mod uplink;
mod vlans;

use super::Problem;
use super::raw::Raw;
use super::resolved::dhcp::DhcpServer;
use super::resolved::uplink::{Outside, Uplink};
use super::resolved::{Link, Mac, Router, Topology};
use links::{Numbering, Pins};
use nodes::Nodes;
use sluice_flows::text::parse_flow;
use std::collections::BTreeMap;

/// The seed of a file that names none.
const SEED: u64 = 1;
const MTU: u32 = 1500;
/// Most links of a lab; far more than a machine carries, and port numbers cannot run out.
pub(crate) const MAX_LINKS: usize = 4096;
/// Highest OpenFlow port number that can be given to a port (OFPP_MAX less one).
const PORT_MAX: u16 = 0xfeff;

/// Resolves a topology; `None` when something in it is wrong, which is then in `problems`.
pub(super) fn resolve(raw: &Raw, source: &str, problems: &mut Vec<Problem>) -> Option<Topology> {
    if raw.links.len() > MAX_LINKS {
        let message = format!("the lab has {} links, the most is {MAX_LINKS}", raw.links.len());
        problems.push(Problem::new(1, message));
        return None;
    }
    let mut nodes = Nodes::find(raw, problems);
    mirrors::check(raw, &nodes, problems);
    let vlans = vlans::resolve(raw, &nodes, problems);
    let carried: Vec<_> = raw.links.iter().map(|link| vlans::carried(raw, link, problems)).collect();
    let pins = Pins::collect(raw, &nodes, problems);
    let tests = tests::resolve(raw, &nodes, problems);
    let (mut links, mut tunnels, mut uplink, mut dhcp) = (Vec::new(), Vec::new(), None, Vec::new());
    if problems.is_empty() {
        let mut numbering = Numbering::new(&pins);
        for (index, carried) in carried.into_iter().enumerate() {
            links.push(numbering.link(raw, index, carried, &mut nodes, &vlans));
        }
        links::check_names(raw, &links, problems);
        tunnels = tunnels::resolve(raw, &links, &nodes, &mut numbering, problems);
        links::check_loops(raw, &links, &tunnels, &nodes, &vlans, problems);
        routers::add_inside(raw, &links, &vlans, &mut nodes, &mut numbering, problems);
        uplink = uplink::resolve(raw, &nodes, &mut numbering, problems);
        dhcp = dhcp::resolve(raw, &mut nodes, (&links, &vlans), &mut numbering, problems);
        set_macs(raw, &mut nodes, &mut links, &mut uplink, &mut dhcp, problems);
        addresses::set(raw, &mut nodes, &vlans, &mut uplink, &mut dhcp, problems);
        dhcp::check_addresses(raw, &vlans, &nodes, problems);
        routers::check_overlaps(&nodes, problems);
        routers::add_routes(raw, &mut nodes, problems);
        nat::resolve(raw, &mut nodes, uplink.as_ref(), problems);
        tunnels::check_sizes(raw, &tunnels, &nodes, &links, problems);
    }
    let topology = Topology {
        name: raw.name.clone(),
        source: source.to_owned(),
        seed: raw.seed.unwrap_or(SEED),
        hosts: nodes.hosts,
        switches: nodes.switches,
        vlans,
        routers: nodes.routers,
        links,
        tunnels,
        uplink,
        dhcp,
        tests,
    };
    check_rules(&topology, problems);
    problems.is_empty().then_some(topology)
}

/// Reads every rule as the switch will, with the names of the switch's ports. What flow text would only warn of is a
/// mistake here: a lab does what its file says or does not come up.
fn check_rules(topology: &Topology, problems: &mut Vec<Problem>) {
    for switch in &topology.switches {
        let names = topology.port_names(&switch.name);
        for rule in &switch.rules {
            let mistakes = match parse_flow(&rule.flow, &names) {
                Ok(flow) => flow.warnings.iter().map(|w| w.message.to_string()).collect(),
                Err(error) => vec![error.to_string()],
            };
            let message = |mistake| format!("rule {}: `{}`: {mistake}", rule.name, rule.flow);
            problems.extend(mistakes.into_iter().map(|mistake| Problem::new(rule.line, message(mistake))));
        }
    }
}

/// Gives every interface its MAC address: those of hosts first, then those of routers, of routed links, of the uplink and
/// of servers.
fn set_macs(
    raw: &Raw,
    nodes: &mut Nodes,
    links: &mut [Link],
    uplink: &mut Option<Uplink>,
    dhcp: &mut [DhcpServer],
    problems: &mut Vec<Problem>,
) {
    let mut used = BTreeMap::new();
    for host in raw.hosts.iter().flatten() {
        let Some(mac) = &host.mac else { continue };
        if let Some(first) = used.insert(mac.value, mac.line) {
            problems.push(Problem::new(mac.line, format!("mac {} is given twice; first on line {first}", mac.value)));
        }
    }
    let [seed_high, seed_low] = (raw.seed.unwrap_or(SEED).wrapping_sub(1) as u16).to_be_bytes();
    let mut count = 0u32;
    let mut next = || loop {
        count += 1;
        let [_, a, b, c] = count.to_be_bytes();
        let mac = Mac([2, seed_high, seed_low, a, b, c]);
        if !used.contains_key(&mac) {
            break mac;
        }
    };
    for host in &mut nodes.hosts {
        let given = addresses::raw_host(raw, &host.name).and_then(|h| h.mac.as_ref());
        if let (Some(given), true) = (given, host.interfaces.is_empty()) {
            problems.push(Problem::new(given.line, format!("`{}` has a mac but no link", host.name)));
        }
        for (index, interface) in host.interfaces.iter_mut().enumerate() {
            interface.mac = given.filter(|_| index == 0).map_or_else(&mut next, |mac| mac.value);
        }
    }
    nodes.routers.iter_mut().flat_map(|r| &mut r.interfaces).for_each(|interface| interface.mac = next());
    links.iter_mut().flat_map(|l| &mut l.underlay).flatten().for_each(|end| end.mac = next());
    if let Some(Outside::Nat { mac, .. }) = uplink.as_mut().map(|uplink| &mut uplink.outside) {
        *mac = next();
    }
    dhcp.iter_mut().for_each(|server| server.mac = next());
}
