//! Making the host what it is to be, and telling what differs.
//!
//! Everything is read, compared ([`plan`](super::plan)), and only what differs is done; a second call does nothing. All of
//! it is about the network namespace of the calling thread.

use super::HostError;
use super::desired::{HostSide, PROTOCOL, RouteSpec, Sysctl};
use super::netlink::{LinkState, Netlink, NetlinkError};
use super::plan::{self, Actual, Step, plan};
use super::{accept, nft, ports, sysctl};
use std::collections::{BTreeMap, HashSet};

/// Settings of the kernel that a host which forwards IPv6 needs so that it goes on listening to routers: by themselves,
/// interfaces that forward ignore router advertisements, and a host that got its default route by one would lose it.
fn keep_listening(links: &[LinkState], ours: &str) -> Result<Vec<Sysctl>, HostError> {
    let mut settings = Vec::new();
    for link in links.iter().filter(|link| link.name != "lo" && link.name != ours) {
        let path = format!("net/ipv6/conf/{}/accept_ra", link.name);
        if sysctl::read(&path)?.as_deref() == Some("1") {
            settings.push(Sysctl::new(path, "2"));
        }
    }
    Ok(settings)
}

/// Path of the setting that makes a host forward IPv6.
pub(super) const V6_FORWARDING: &str = "net/ipv6/conf/all/forwarding";

fn read(netlink: &mut Netlink, desired: &HostSide) -> Result<Actual, HostError> {
    Ok(Actual {
        links: netlink.links()?,
        addresses: netlink.addresses()?,
        routes: netlink.routes()?,
        rules: netlink.rules()?,
        neighbours: netlink.permanent_neighbours()?,
        sysctls: desired.sysctls.iter().map(|setting| sysctl::read(&setting.path)).collect::<Result<_, _>>()?,
        table: nft::find(&desired.link, &desired.masquerade)?,
        ports: ports::find(&desired.link, &desired.ports)?,
        accept: [accept::find(&desired.link, accept::FAMILIES[0])?, accept::find(&desired.link, accept::FAMILIES[1])?],
    })
}

/// The steps that are missing.
fn missing(netlink: &mut Netlink, desired: &HostSide) -> Result<Vec<Step>, HostError> {
    let actual = read(netlink, desired)?;
    let mut steps = plan(desired, &actual)?;
    if steps.iter().any(|step| matches!(step, Step::Set(setting) if setting.path == V6_FORWARDING)) {
        let before = keep_listening(&actual.links, &desired.link)?;
        steps.splice(..0, before.into_iter().map(Step::Set));
    }
    Ok(steps)
}

/// What differs from what the host's side is to be, as the steps that would mend it; empty when nothing does.
///
/// # Errors
/// [`HostError`]; something in the way of another program's among them.
pub fn drift(desired: &HostSide) -> Result<Vec<String>, HostError> {
    let mut netlink = Netlink::open()?;
    Ok(missing(&mut netlink, desired)?.iter().map(Step::to_string).collect())
}

/// Makes the host's side what it is to be, and says what that took. A second call takes nothing.
///
/// # Errors
/// [`HostError`] for the first thing that cannot be done; what was done before it stays, marked as ours.
pub fn apply(desired: &HostSide) -> Result<Vec<String>, HostError> {
    let mut netlink = Netlink::open()?;
    let steps = missing(&mut netlink, desired)?;
    steps.iter().try_for_each(|step| take(&mut netlink, desired, step))?;
    Ok(steps.iter().map(Step::to_string).collect())
}

/// Makes only what differs between two states of a host's side, where that is no more than routes and ports of the host, and
/// what was made before is taken to be there: a change of one costs the same however many there are. `None` where more differs.
pub(super) fn change(before: &HostSide, after: &HostSide) -> Option<Result<Vec<String>, HostError>> {
    let had_ports = !before.ports.ports.is_empty();
    let rest = |side: &HostSide| {
        let ports = ports::HostPorts { ports: BTreeMap::new(), ..side.ports.clone() };
        HostSide { routes: Vec::new(), ports, ..side.clone() }
    };
    if had_ports == after.ports.ports.is_empty() || rest(before) != rest(after) {
        return None;
    }
    let run = || {
        let mut netlink = Netlink::open()?;
        // One that was made anew has no alias of ours yet, and nothing else either.
        let link = netlink.link(&after.link)?.filter(|link| link.up && link.alias == after.alias);
        let Some(link) = link else { return Err(HostError::NoLink { link: after.link.clone() }) };
        let (old, new): (HashSet<_>, HashSet<_>) = (before.routes.iter().collect(), after.routes.iter().collect());
        let of = |spec: &RouteSpec| (link.name.clone(), plan::route(spec, link.index));
        let gone = before.routes.iter().filter(|route| !new.contains(route)).map(of);
        let mut steps: Vec<_> = gone.map(|(link, route)| Step::DeleteRoute { link, route }).collect();
        let came = after.routes.iter().filter(|route| !old.contains(route)).map(of);
        steps.extend(came.map(|(link, route)| Step::AddRoute { link, route }));
        let found = if had_ports { ports::Found::Has(before.ports.ports.clone()) } else { ports::Found::Nothing };
        let change = ports::change(&after.link, &after.ports, &found)?;
        steps.extend(change.map(|change| Step::Ports { name: ports::table_name(&after.link), change }));
        steps.iter().try_for_each(|step| take(&mut netlink, after, step))?;
        Ok(steps.iter().map(Step::to_string).collect())
    };
    Some(run())
}

/// Takes away all that is ours of the host's side on `link`; what others put there stays. Settings of the kernel stay as
/// they are: others may rely on them by now.
///
/// # Errors
/// [`HostError`] for the first thing that cannot be done. That the interface is gone, and what hung on it, is none.
pub fn remove(link: &str) -> Result<Vec<String>, HostError> {
    let mut netlink = Netlink::open()?;
    let nothing = HostSide { link: link.to_owned(), ..HostSide::default() };
    let mut actual = read(&mut netlink, &nothing)?;
    if actual.links.iter().all(|there| there.name != link) {
        // Rules and the table outlive it. No other interface has index 0.
        actual.links.push(LinkState { name: link.to_owned(), ..LinkState::default() });
    }
    let alias = actual.links.iter().find(|there| there.name == link).and_then(|there| there.alias.clone());
    let alias = alias.filter(|alias| *alias == alias_of(link)).map(|_| String::new());
    let nothing = HostSide { alias, ..nothing };
    let steps = plan(&nothing, &actual)?;
    steps.iter().try_for_each(|step| take(&mut netlink, &nothing, step))?;
    Ok(steps.iter().map(Step::to_string).collect())
}

/// What is written on an interface of ours.
pub fn alias_of(link: &str) -> String {
    format!("sluiced: gateway {link}")
}

fn take(netlink: &mut Netlink, desired: &HostSide, step: &Step) -> Result<(), HostError> {
    let mut index = |name: &str| match netlink.link(name) {
        Ok(Some(link)) => Ok(link.index),
        Ok(None) => Err(HostError::NoLink { link: name.to_owned() }),
        Err(error) => Err(error.into()),
    };
    match step {
        Step::Change { link, change } => {
            let index = index(link)?;
            netlink.set_link(index, change)?;
        }
        Step::SetUp { link } => {
            let index = index(link)?;
            netlink.set_up(index)?;
        }
        Step::AddAddress { link, address } => {
            let index = index(link)?;
            netlink.add_address_of(index, *address, Some(PROTOCOL))?;
        }
        Step::DeleteAddress { link, address } => {
            let index = index(link)?;
            netlink.delete_address(index, *address)?;
        }
        Step::AddRoute { route, .. } => netlink.add_route(route)?,
        Step::DeleteRoute { route, .. } => gone(netlink.delete_route(route))?,
        Step::AddRule(rule) => netlink.add_rule(rule)?,
        Step::DeleteRule(rule) => gone(netlink.delete_rule(rule))?,
        Step::SetNeighbour { neighbour, .. } => netlink.set_neighbour(neighbour)?,
        Step::Set(setting) => sysctl::write(setting)?,
        Step::Table { .. } => nft::replace(&desired.link, &desired.masquerade)?,
        Step::Ports { change, .. } => ports::take(&desired.link, &desired.ports, change)?,
        Step::Accept { family, link, wanted } => accept::take(link, family, *wanted)?,
    }
    Ok(())
}

/// That something is gone before it is deleted is no fault: an address takes its routes with it.
fn gone(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result {
        Err(error) if matches!(error.source.raw_os_error(), Some(libc::ESRCH | libc::ENOENT)) => Ok(()),
        other => other,
    }
}

/// Whose chains drop what is forwarded unless they say otherwise, as `FAMILY TABLE CHAIN`: they have to let a gateway's
/// packets pass by themselves.
pub fn forward_obstacles() -> Vec<String> {
    nft::dropping_forward_chains()
}

/// Interfaces that had gateways of a switch that did not end by itself: their tables and rules are left. Of interfaces that
/// are there, only those in `own` are looked at; those that are gone may have been another switch's, which writes it
/// again when it starts.
pub(super) fn left_behind(own: &[String]) -> Vec<String> {
    let Ok(links) = Netlink::open().and_then(|mut netlink| netlink.links()) else { return Vec::new() };
    let of_table = |name: String| {
        let link = name.strip_prefix(ports::TABLE).or_else(|| name.strip_prefix(nft::TABLE))?;
        Some(link.to_owned())
    };
    let mut found: Vec<String> = nft::tables().into_iter().filter_map(of_table).collect();
    for family in accept::FAMILIES {
        found.extend(accept::links(family).unwrap_or_default());
    }
    found.sort_unstable();
    found.dedup();
    let is = |name: &str, link: &str| nft::plain(name) == link || name == link;
    found.retain(|link| own.iter().any(|own| is(own, link)) || !links.iter().any(|there| is(&there.name, link)));
    found
}

/// Has firewalls that ask others let pass what comes in or goes out by these interfaces, where they do not yet. Returns what
/// that took; what fails is told in the log.
pub(super) fn accept_again(links: &[&str]) -> Vec<String> {
    let mut done = Vec::new();
    for family in accept::FAMILIES.into_iter().filter(|_| !links.is_empty()) {
        match accept::again(links, family) {
            Ok(missing) => done.extend(
                missing
                    .into_iter()
                    .map(|link| Step::Accept { family, link: link.to_owned(), wanted: true }.to_string()),
            ),
            Err(error) => {
                tracing::warn!(family, %error, "Docker's firewall is not told to let containers' packets pass")
            }
        }
    }
    done
}
