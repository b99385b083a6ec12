//! Mirrors: the hosts that get copies of what passes a switch.
//!
//! The port of a switch that leads to such a host takes nothing else, so the host's interface there has no address.

use super::super::Problem;
use super::super::raw::{Raw, nearest};
use super::super::resolved::Interface;
use super::nodes::Nodes;

/// Refuses mirrors to what is no host of the switch, and addresses of interfaces that are for copies.
pub(super) fn check(raw: &Raw, nodes: &Nodes, problems: &mut Vec<Problem>) {
    for switch in raw.switches.iter().flatten() {
        let (Some(mirror), switch) = (&switch.mirror, &switch.name.value) else { continue };
        let mut refuse = |message: String| problems.push(Problem::new(mirror.line, message));
        if !nodes.is_host(&mirror.value) {
            let known = nearest(&mirror.value, nodes.hosts.iter().map(|host| host.name.as_str()));
            refuse(format!("mirror: there is no host `{}`{known}", mirror.value));
            continue;
        }
        let linked = raw.links.iter().any(|link| {
            let ends = link.ends.each_ref().map(|end| end.node.as_str());
            ends.contains(&switch.as_str()) && ends.contains(&mirror.value.as_str())
        });
        if !linked {
            refuse(format!(
                "mirror: no link joins `{}` and {switch}; add `[{}, {switch}]`",
                mirror.value, mirror.value
            ));
        }
    }
}

/// Whether an interface of a host is for copies: the first that leads to a switch which mirrors to the host.
pub(super) fn is_for_copies(raw: &Raw, host: &str, interfaces: &[Interface], index: usize) -> bool {
    let Some(interface) = interfaces.get(index) else { return false };
    let first = interfaces[..index].iter().all(|other| other.switch != interface.switch);
    let is_it = |switch: &super::super::raw::RawSwitch| {
        switch.name.value == interface.switch && switch.mirror.as_ref().is_some_and(|mirror| mirror.value == host)
    };
    first && raw.switches.iter().flatten().any(is_it)
}
