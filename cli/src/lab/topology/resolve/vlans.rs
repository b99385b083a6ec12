//! VLANs: their numbers, and the names of them that links and tunnels use.

use super::super::Problem;
use super::super::raw::{Raw, RawLink, Spot, nearest};
use super::super::resolved::{Carried, Vlan};
use super::nodes::{Index, Nodes};
use std::collections::BTreeMap;

/// Every VLAN with its number; one that has none gets the lowest that is free.
pub(super) fn resolve(raw: &Raw, nodes: &Nodes, problems: &mut Vec<Problem>) -> Vec<Vlan> {
    let mut taken = BTreeMap::new();
    for vlan in &raw.vlans {
        let Some(id) = &vlan.id else { continue };
        if let Some(first) = taken.insert(id.value, &vlan.name.value) {
            problems.push(Problem::new(id.line, format!("id {} is the VLAN {first}'s already", id.value)));
        }
    }
    let mut free = (1..=4094u64).filter(|id| !taken.contains_key(id));
    let mut vlans = Vec::new();
    for vlan in &raw.vlans {
        let name = vlan.name.value.clone();
        let id = vlan.id.as_ref().map(|id| id.value).or_else(|| free.next()).and_then(|id| u16::try_from(id).ok());
        let Some(id) = id else {
            problems.push(Problem::new(vlan.name.line, format!("no number from 1 to 4094 is left for `{name}`")));
            continue;
        };
        if let Some(gateway) = &vlan.gateway {
            check_gateway(gateway, nodes, problems);
            if vlan.subnet.is_none() && vlan.subnet6.is_none() {
                let message =
                    format!("`{name}` has a gateway, which needs a `subnet:` or `subnet6:` to have an address of");
                problems.push(Problem::new(gateway.line, message));
            }
        }
        vlans.push(Vlan {
            name,
            id,
            subnet: vlan.subnet.as_ref().map(|s| s.value),
            subnet6: vlan.subnet6.as_ref().map(|s| s.value),
            gateway: vlan.gateway.as_ref().map(|g| g.value.clone()),
            vni: vlan.vni.as_ref().and_then(|v| u32::try_from(v.value).ok()),
            vrf: vlan.vrf.as_ref().map(|v| v.value.clone()),
        });
    }
    vlans
}

fn check_gateway(gateway: &Spot<String>, nodes: &Nodes, problems: &mut Vec<Problem>) {
    let message = match nodes.kind(&gateway.value) {
        Some(Index::Host) => format!("gateway: `{}` is a host; a gateway is a router or a switch", gateway.value),
        None => {
            let known = nodes.index.iter().filter(|(_, index)| **index != Index::Host).map(|(name, _)| name.as_str());
            format!("gateway: there is no `{}`{}", gateway.value, nearest(&gateway.value, known))
        }
        Some(_) => return,
    };
    problems.push(Problem::new(gateway.line, message));
}

/// The VLANs that a link carries.
pub(super) fn carried(raw: &Raw, link: &RawLink, problems: &mut Vec<Problem>) -> Carried {
    let native = link.native.as_ref().and_then(|name| known(raw, "native", name, problems));
    if let Some(access) = &link.access {
        return known(raw, "access", access, problems).map_or(Carried::All, Carried::Access);
    }
    match (&link.trunk, native) {
        (None, None) => Carried::All,
        (None, native) => Carried::Trunk { vlans: Vec::new(), native },
        (Some(trunk), native) => {
            if trunk.value.is_empty() {
                problems
                    .push(Problem::new(trunk.line, "trunk: the list is empty; without the key, all VLANs are carried"));
            }
            let vlans = trunk.value.iter().filter_map(|name| known(raw, "trunk", name, problems));
            let vlans: Vec<_> = vlans.filter(|name| Some(name) != native.as_ref()).collect();
            // A list that is empty by now would mean all.
            if vlans.is_empty() {
                native.map_or(Carried::All, Carried::Access)
            } else {
                Carried::Trunk { vlans, native }
            }
        }
    }
}

/// The name of a VLAN, if there is one.
pub(super) fn known(raw: &Raw, key: &str, name: &Spot<String>, problems: &mut Vec<Problem>) -> Option<String> {
    if raw.vlans.iter().any(|v| v.name.value == name.value) {
        return Some(name.value.clone());
    }
    let near = nearest(&name.value, raw.vlans.iter().map(|v| v.name.value.as_str()));
    problems.push(Problem::new(name.line, format!("{key}: there is no VLAN `{}`{near}", name.value)));
    None
}
