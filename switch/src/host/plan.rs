//! From what the host has and what it is to have to the steps between, without touching anything.
//!
//! The same comparison makes the changes, shows the drift, and finds that there is nothing to do. What is ours and not
//! wanted any more (a route of a file that was changed, a rule of a switch that was killed) is taken away; what others
//! own is never changed, and where it stands in the way the plan fails and says whose it is.

use super::HostError;
use super::desired::{HostSide, PROTOCOL, RouteSpec, RuleSpec, Sysctl};
use super::netlink::{LinkChange, LinkState};
use super::routing::{HostAddress, HostNeighbour, HostRoute, HostRule};
use super::{accept, nft, ports};
use ipnet::IpNet;
use std::fmt;

/// What the host has, as far as a plan looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Actual {
    pub(super) links: Vec<LinkState>,
    pub(super) addresses: Vec<HostAddress>,
    pub(super) routes: Vec<HostRoute>,
    pub(super) rules: Vec<HostRule>,
    pub(super) neighbours: Vec<HostNeighbour>,
    /// The values of the settings asked for, in their order; `None` for those that the kernel has not.
    pub(super) sysctls: Vec<Option<String>>,
    pub(super) table: nft::Found,
    pub(super) ports: ports::Found,
    /// Of Docker's chains, by family.
    pub(super) accept: [accept::Found; 2],
}

/// One change to the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Change {
        link: String,
        change: LinkChange,
    },
    SetUp {
        link: String,
    },
    AddAddress {
        link: String,
        address: IpNet,
    },
    DeleteAddress {
        link: String,
        address: IpNet,
    },
    AddRoute {
        link: String,
        route: HostRoute,
    },
    DeleteRoute {
        link: String,
        route: HostRoute,
    },
    AddRule(HostRule),
    DeleteRule(HostRule),
    SetNeighbour {
        link: String,
        neighbour: HostNeighbour,
    },
    Set(Sysctl),
    /// The nftables table is put in the place of what is there, or taken away.
    Table {
        name: String,
        wanted: bool,
    },
    /// What is to be done about the nftables table with the host's ports.
    Ports {
        name: String,
        change: ports::Change,
    },
    /// Our rules go into Docker's chain, or out of it.
    Accept {
        family: &'static str,
        link: String,
        wanted: bool,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Change { link, change } => {
                write!(f, "interface {link}")?;
                if let Some([a, b, c, d, e, g]) = change.mac {
                    write!(f, " mac {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")?;
                }
                if let Some(mtu) = change.mtu {
                    write!(f, " mtu {mtu}")?;
                }
                change.alias.as_ref().map_or(Ok(()), |alias| write!(f, " alias \"{alias}\""))
            }
            Self::SetUp { link } => write!(f, "interface {link} up"),
            Self::AddAddress { link, address } => write!(f, "add address {address} dev {link}"),
            Self::DeleteAddress { link, address } => write!(f, "delete address {address} dev {link}"),
            Self::AddRoute { link, route } => write!(f, "add route {route} dev {link}"),
            Self::DeleteRoute { link, route } => write!(f, "delete route {route} dev {link}"),
            Self::AddRule(rule) => write!(f, "add rule {rule}"),
            Self::DeleteRule(rule) => write!(f, "delete rule {rule}"),
            Self::SetNeighbour { link, neighbour } => write!(f, "set neighbour {} dev {link}", neighbour.address),
            Self::Set(setting) => write!(f, "set {setting}"),
            Self::Table { name, wanted: true } => write!(f, "write nftables table inet {name}"),
            Self::Table { name, wanted: false } => write!(f, "delete nftables table inet {name}"),
            Self::Ports { name, change } => write!(f, "{change} nftables table inet {name}"),
            Self::Accept { family, link, wanted } => {
                let (verb, where_) = if *wanted { ("add", "to") } else { ("delete", "from") };
                write!(f, "{verb} rules that accept {link} {where_} nftables chain {family} filter DOCKER-USER")
            }
        }
    }
}

/// The steps from `actual` to `desired`, in the order in which they are to be done.
///
/// # Errors
/// The interface is missing, or something of somebody else's is in the way.
pub(super) fn plan(desired: &HostSide, actual: &Actual) -> Result<Vec<Step>, HostError> {
    let Some(link) = actual.links.iter().find(|link| link.name == desired.link) else {
        return Err(HostError::NoLink { link: desired.link.clone() });
    };
    let mut steps = Vec::new();
    // First of all what makes the host take part: an address brings routes and router solicitations with it.
    steps.extend(sysctls(desired, actual));
    steps.extend(interface(desired, link));
    addresses(desired, actual, link, &mut steps)?;
    neighbours(desired, actual, link, &mut steps);
    routes(desired, actual, link, &mut steps)?;
    rules(desired, actual, &mut steps)?;
    steps.extend(table(desired, &actual.table)?);
    let change = ports::change(&desired.link, &desired.ports, &actual.ports)?;
    let route_localnet = ports::route_localnet(&desired.link);
    if change == Some(ports::Change::Delete) && link.index > 0 {
        // Only the table keeps what is behind the interface from the host's loopback.
        steps.push(Step::Set(Sysctl::new(route_localnet.clone(), "0")));
    }
    // And it is there before the loopback is let out.
    let opens = |step: &mut Step| matches!(step, Step::Set(set) if set.path == route_localnet && set.value == "1");
    let opened: Vec<_> = steps.extract_if(.., opens).collect();
    steps.extend(change.map(|change| Step::Ports { name: ports::table_name(&desired.link), change }));
    for (family, found) in accept::FAMILIES.into_iter().zip(&actual.accept) {
        let differs = if desired.accept { found.there && !found.good } else { !found.ours.is_empty() };
        let step = Step::Accept { family, link: desired.link.clone(), wanted: desired.accept };
        steps.extend(differs.then_some(step));
    }
    steps.extend(opened);
    Ok(steps)
}

fn sysctls(desired: &HostSide, actual: &Actual) -> Vec<Step> {
    let pairs = desired.sysctls.iter().zip(&actual.sysctls);
    let differing = pairs.filter(|(wanted, there)| there.as_deref().is_some_and(|there| there != wanted.value));
    differing.map(|(wanted, _)| Step::Set(wanted.clone())).collect()
}

fn interface(desired: &HostSide, link: &LinkState) -> Vec<Step> {
    let change = LinkChange {
        mac: desired.mac.filter(|mac| link.mac != Some(*mac)),
        mtu: desired.mtu.filter(|mtu| link.mtu != *mtu),
        // No alias and an empty one are the same to the kernel.
        alias: desired.alias.clone().filter(|alias| link.alias.as_deref().unwrap_or_default() != alias),
    };
    let mut steps = Vec::new();
    if change != LinkChange::default() {
        steps.push(Step::Change { link: link.name.clone(), change });
    }
    if desired.up && !link.up {
        steps.push(Step::SetUp { link: link.name.clone() });
    }
    steps
}

fn addresses(desired: &HostSide, actual: &Actual, link: &LinkState, steps: &mut Vec<Step>) -> Result<(), HostError> {
    for there in &actual.addresses {
        if there.link == link.index && there.protocol == PROTOCOL && !desired.addresses.contains(&there.address) {
            steps.push(Step::DeleteAddress { link: link.name.clone(), address: there.address });
        }
    }
    for wanted in &desired.addresses {
        if let Some(other) = actual.addresses.iter().find(|a| a.link != link.index && a.address.addr() == wanted.addr())
        {
            return Err(HostError::AddressTaken {
                address: *wanted,
                holder: name(actual, other.link),
                link: link.name.clone(),
            });
        }
        if !actual.addresses.iter().any(|there| there.link == link.index && there.address == *wanted) {
            steps.push(Step::AddAddress { link: link.name.clone(), address: *wanted });
        }
    }
    Ok(())
}

fn name(actual: &Actual, index: u32) -> String {
    let link = actual.links.iter().find(|link| link.index == index);
    link.map_or_else(|| format!("interface {index}"), |link| link.name.clone())
}

fn neighbours(desired: &HostSide, actual: &Actual, link: &LinkState, steps: &mut Vec<Step>) {
    for wanted in &desired.neighbours {
        let neighbour = HostNeighbour { link: link.index, address: wanted.address, mac: wanted.mac };
        if !actual.neighbours.contains(&neighbour) {
            steps.push(Step::SetNeighbour { link: link.name.clone(), neighbour });
        }
    }
}

fn routes(desired: &HostSide, actual: &Actual, link: &LinkState, steps: &mut Vec<Step>) -> Result<(), HostError> {
    let wanted: Vec<_> = desired.routes.iter().map(|spec| route(spec, link.index)).collect();
    for there in &actual.routes {
        if there.link == link.index && there.protocol == PROTOCOL && !wanted.contains(there) {
            steps.push(Step::DeleteRoute { link: link.name.clone(), route: there.clone() });
        }
    }
    for route in wanted {
        if actual.routes.contains(&route) {
            continue;
        }
        let same_place =
            |there: &&HostRoute| (there.to, there.table, there.metric) == (route.to, route.table, route.metric);
        let ours = |there: &HostRoute| there.link == link.index && there.protocol == PROTOCOL;
        if let Some(other) = actual.routes.iter().filter(same_place).find(|there| !ours(there)) {
            let there = format!("{other} dev {} proto {}", name(actual, other.link), other.protocol);
            return Err(HostError::RouteTaken { wanted: route.to, there });
        }
        steps.push(Step::AddRoute { link: link.name.clone(), route });
    }
    Ok(())
}

pub(super) fn route(spec: &RouteSpec, link: u32) -> HostRoute {
    HostRoute {
        to: spec.to.trunc(),
        via: spec.via,
        link,
        source: spec.source,
        metric: spec.metric(),
        table: spec.table(),
        protocol: PROTOCOL,
    }
}

fn rules(desired: &HostSide, actual: &Actual, steps: &mut Vec<Step>) -> Result<(), HostError> {
    let wanted: Vec<_> = desired.rules.iter().map(|spec| rule(spec, &desired.link)).collect();
    let ours = |there: &HostRule| there.protocol == PROTOCOL && there.iif.as_deref() == Some(&desired.link);
    for there in actual.rules.iter().filter(|there| ours(there) && !wanted.contains(there)) {
        steps.push(Step::DeleteRule(there.clone()));
    }
    for rule in wanted {
        if actual.rules.contains(&rule) {
            continue;
        }
        let same_place = |there: &&HostRule| (there.priority, there.v6) == (rule.priority, rule.v6);
        if let Some(other) = actual.rules.iter().filter(same_place).find(|there| !ours(there)) {
            return Err(HostError::RuleTaken { priority: rule.priority, there: other.to_string() });
        }
        steps.push(Step::AddRule(rule));
    }
    Ok(())
}

fn rule(spec: &RuleSpec, link: &str) -> HostRule {
    HostRule {
        priority: spec.priority,
        v6: spec.v6,
        from: spec.from.map(|net| net.trunc()),
        to: spec.to.map(|net| net.trunc()),
        iif: Some(link.to_owned()),
        table: spec.table,
        protocol: PROTOCOL,
    }
}

fn table(desired: &HostSide, found: &nft::Found) -> Result<Option<Step>, HostError> {
    let name = nft::table_name(&desired.link);
    let wanted = !desired.masquerade.is_empty();
    match found {
        nft::Found::Foreign if wanted => Err(HostError::TableTaken { table: name }),
        nft::Found::Good | nft::Found::Foreign => Ok(None),
        nft::Found::Nothing if !wanted => Ok(None),
        nft::Found::Nothing | nft::Found::Differs => Ok(Some(Step::Table { name, wanted })),
    }
}

#[cfg(test)]
mod tests;
