//! Routes of the host by other hosts: networks of containers elsewhere that are reached without encapsulation.
//!
//! They lead by whatever interface the host reaches their next hop with, so they do not hang on a gateway's interface as all
//! else of ours does. What tells that one is ours is [`PROTOCOL`], its destination and its next hop together.
//!
//! # Rules
//! - A next hop that the host does not reach by itself now is no failure of the others: its route waits, is told, and is tried
//!   again.
//! - Only routes that were asked for before are taken away: others of the same protocol may be another switch's.

use super::desired::PROTOCOL;
use super::netlink::{Netlink, NetlinkError};
use super::routing::{HostRoute, MAIN_TABLE, metric_of};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Where a route leads, and its next hop.
pub(super) type Hop = (IpNet, IpAddr);

/// From what the host has to what it is to have.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    delete: Vec<HostRoute>,
    add: Vec<HostRoute>,
    /// What waits, and why.
    waits: Vec<String>,
}

/// What was done, and what waits and why.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) steps: Vec<String>,
    pub(super) waits: Vec<String>,
}

/// `links`: by which interface the host reaches each next hop, or why it does not.
fn plan(gone: &[Hop], wanted: &[Hop], routes: &[HostRoute], links: &BTreeMap<IpAddr, Result<u32, String>>) -> Plan {
    let mut plan = Plan::default();
    let kept: BTreeSet<&Hop> = wanted.iter().collect();
    let places: BTreeSet<&IpNet> = gone.iter().chain(wanted).map(|(to, _)| to).collect();
    let mut there: BTreeMap<IpNet, Vec<&HostRoute>> = BTreeMap::new();
    for route in routes.iter().filter(|route| route.table == MAIN_TABLE && places.contains(&route.to)) {
        if route.metric == metric_of(route.to, None) {
            there.entry(route.to).or_default().push(route);
        }
    }
    let at = |to: &IpNet| there.get(to).into_iter().flatten().copied();
    let is_ours = |route: &HostRoute, via: &IpAddr| route.protocol == PROTOCOL && route.via == Some(*via);
    for (to, via) in gone.iter().filter(|hop| !kept.contains(hop)) {
        plan.delete.extend(at(to).filter(|route| is_ours(route, via)).cloned());
    }
    for (to, via) in wanted {
        let link = match links.get(via) {
            Some(Ok(link)) => *link,
            Some(Err(why)) => {
                plan.waits.push(format!("route {to} via {via}: {why}"));
                continue;
            }
            None => continue,
        };
        if at(to).any(|route| is_ours(route, via) && route.link == link) {
            continue;
        }
        // The same way by an interface that does not lead there any more.
        plan.delete.extend(at(to).filter(|route| is_ours(route, via)).cloned());
        if let Some(other) = at(to).find(|route| !plan.delete.contains(route)) {
            plan.waits.push(format!(
                "route {to} via {via}: there is `{other} proto {}` already, which is not ours; delete it",
                other.protocol
            ));
            continue;
        }
        let metric = metric_of(*to, None);
        let (via, source, table) = (Some(*via), None, MAIN_TABLE);
        plan.add.push(HostRoute { to: *to, via, link, source, metric, table, protocol: PROTOCOL });
    }
    plan
}

fn read(netlink: &mut Netlink, gone: &[Hop], wanted: &[Hop]) -> Result<Plan, NetlinkError> {
    if gone.is_empty() && wanted.is_empty() {
        return Ok(Plan::default());
    }
    let hops: BTreeSet<IpAddr> = wanted.iter().map(|(_, via)| *via).collect();
    let links = hops.into_iter().map(|via| Ok((via, netlink.link_to(via)?))).collect::<Result<_, NetlinkError>>()?;
    Ok(plan(gone, wanted, &netlink.routes()?, &links))
}

/// What was asked for before and is not any more.
pub(super) fn left(had: &[Hop], wanted: &[Hop]) -> Vec<Hop> {
    let kept: BTreeSet<&Hop> = wanted.iter().collect();
    had.iter().filter(|hop| !kept.contains(hop)).copied().collect()
}

/// What is missing, in words.
///
/// # Errors
/// As the kernel says.
pub(super) fn drift(wanted: &[Hop]) -> Result<Vec<String>, NetlinkError> {
    let plan = read(&mut Netlink::open()?, &[], wanted)?;
    let delete = plan.delete.iter().map(|route| format!("delete route {route}"));
    Ok(delete.chain(plan.add.iter().map(|route| format!("add route {route}"))).chain(plan.waits).collect())
}

/// Takes away the routes of `gone` that are not wanted, and adds those of `wanted` that are not there.
///
/// # Errors
/// The kernel does not tell what there is, or does not delete.
pub(super) fn apply(gone: &[Hop], wanted: &[Hop]) -> Result<Done, NetlinkError> {
    if gone.is_empty() && wanted.is_empty() {
        return Ok(Done::default());
    }
    let mut netlink = Netlink::open()?;
    let plan = read(&mut netlink, gone, wanted)?;
    let mut done = Done { steps: Vec::new(), waits: plan.waits };
    for route in plan.delete {
        match netlink.delete_route(&route) {
            Err(error) if error.source.raw_os_error() != Some(libc::ESRCH) => return Err(error),
            _ => done.steps.push(format!("delete route {route}")),
        }
    }
    for route in plan.add {
        match netlink.add_route(&route) {
            Ok(()) => done.steps.push(format!("add route {route}")),
            Err(error) => done.waits.push(format!("route {route}: {error}")),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(to: &str, via: &str) -> Hop {
        (to.parse().unwrap(), via.parse().unwrap())
    }

    fn route((to, via): Hop, link: u32, protocol: u8) -> HostRoute {
        HostRoute { to, via: Some(via), link, source: None, metric: metric_of(to, None), table: MAIN_TABLE, protocol }
    }

    #[test]
    fn routes_by_other_hosts_are_compared_and_only_what_was_asked_for_is_taken_away() {
        let [a, b, c, d] = [("10.1.0.0/24", 11), ("10.2.0.0/24", 12), ("10.3.0.0/24", 13), ("fd01::/64", 14)]
            .map(|(to, n)| hop(to, &if to.starts_with("fd") { format!("fd30::{n}") } else { format!("172.30.0.{n}") }));
        let foreign = hop("10.9.0.0/24", "172.30.0.19");
        let links: BTreeMap<_, _> = [(a.1, Ok(2)), (b.1, Ok(2)), (c.1, Err("no way".to_owned())), (d.1, Ok(2))].into();
        let there = [route(a, 2, PROTOCOL), route(b, 3, PROTOCOL), route(foreign, 2, PROTOCOL)];
        let changes = plan(&[], &[a, b, c, d], &there, &links);
        assert_eq!(changes.delete, [route(b, 3, PROTOCOL)], "the interface changed");
        assert_eq!(changes.add, [route(b, 2, PROTOCOL), route(d, 2, PROTOCOL)]);
        assert_eq!(changes.waits, ["route 10.3.0.0/24 via 172.30.0.13: no way"]);
        let changes = plan(&[a, foreign], &[a], &there, &links);
        assert_eq!((changes.delete, changes.add), (vec![route(foreign, 2, PROTOCOL)], vec![]));
        let changes = plan(&[foreign], &[], &[route(foreign, 2, 4)], &links);
        assert_eq!(changes, Plan::default(), "another program's");
        let changes = plan(&[], &[a], &[route(a, 2, 4)], &links);
        assert!(changes.add.is_empty() && changes.waits[0].contains("proto 4"), "{changes:?}");
        // Another next hop for the same network.
        let moved = (a.0, b.1);
        let changes = plan(&[a], &[moved], &there, &links);
        assert_eq!((changes.delete, changes.add), (vec![route(a, 2, PROTOCOL)], vec![route(moved, 2, PROTOCOL)]));
    }
}
