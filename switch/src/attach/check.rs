//! Whether what is asked for can be at all, whatever else there is.

use super::AttachError;
use super::known::overlap;
use super::spec::{AttachmentSpec, Device, NetworkSpec, Vlans};
use ipnet::IpNet;
use std::collections::HashSet;
use std::path::Path;

/// Longest name of a network or ID of a container, in bytes.
const NAME_MAX: usize = 255;
/// Longest name of an interface, in bytes.
const INTERFACE_MAX: usize = 15;
/// Longest packet that a link of ours carries, in bytes: 65,535 less the Ethernet header.
const MTU_MAX: u32 = 65_521;
/// RFC 791: what every IPv4 link must carry, in bytes.
const MTU_MIN: u32 = 68;
/// Most of anything that a list of a request has.
const LIST_MAX: usize = 4096;
/// Most ports of the host that lead to a network's flows; with [`ROUTES_MAX`], a network's record stays below what is read.
const SERVICE_PORTS_MAX: usize = 16_384;
/// Most routes of a network.
const ROUTES_MAX: usize = 16_384;

fn invalid<T>(what: String) -> Result<T, AttachError> {
    Err(AttachError::Invalid(what))
}

/// Whether `name` is letters, digits, `_`, `.` and `-`, beginning with a letter or digit, as CNI's names of networks and IDs
/// of containers are.
fn name(what: &str, name: &str) -> Result<(), AttachError> {
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let begins = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if begins && name.len() <= NAME_MAX && name.bytes().all(word) {
        return Ok(());
    }
    invalid(format!(
        "{name:?} cannot be {what}: it has 1 to {NAME_MAX} letters, digits, `_`, `.` and `-`, the first a letter or digit"
    ))
}

fn interface(what: &str, name: &str) -> Result<(), AttachError> {
    let bad = |b: u8| b == b'/' || b == b':' || b.is_ascii_whitespace() || b.is_ascii_control();
    if name.is_empty() || name.len() > INTERFACE_MAX || name == "." || name == ".." || name.bytes().any(bad) {
        return invalid(format!(
            "{name:?} cannot be {what}: it has 1 to {INTERFACE_MAX} bytes, none of them a slash, a colon or a blank"
        ));
    }
    Ok(())
}

fn short(what: &str, len: usize) -> Result<(), AttachError> {
    if len > LIST_MAX { invalid(format!("there are {len} {what}; {LIST_MAX} are the most")) } else { Ok(()) }
}

/// A station's address: not unspecified, of no group.
fn station(what: &str, address: &IpNet) -> Result<(), AttachError> {
    let ip = address.addr();
    let broadcast = matches!(ip, std::net::IpAddr::V4(v4) if v4.is_broadcast());
    if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || broadcast {
        return invalid(format!("{ip} cannot be {what}; it is one station's address"));
    }
    Ok(())
}

/// Checks a network.
///
/// # Errors
/// [`AttachError::Invalid`].
pub(super) fn network(spec: &NetworkSpec) -> Result<(), AttachError> {
    name("a network's name", &spec.name)?;
    interface("a bridge's name", &spec.bridge)?;
    short("gateway addresses", spec.gateway.len())?;
    short("networks to masquerade", spec.masquerade.len().max(spec.masquerade_except.len()))?;
    spec.gateway.iter().try_for_each(|address| station("a gateway's address", address))?;
    if let Some(mtu) = spec.mtu.filter(|mtu| !(MTU_MIN..=MTU_MAX).contains(mtu)) {
        return invalid(format!(
            "MTU {mtu} is out of range; it is {MTU_MIN} to {MTU_MAX} bytes, or 0 for the bridge's"
        ));
    }
    if let Some(vlan) = spec.vlan.filter(|vlan| !(1..=4094).contains(vlan)) {
        return invalid(format!("VLAN {vlan} of a gateway is out of range; it is 1 to 4094, or 0 for none"));
    }
    if spec.gateway.is_empty() && !spec.masquerade.is_empty() {
        let what = "there is no gateway that could masquerade; give the network a gateway";
        return invalid(format!("network {}: {what}", spec.name));
    }
    routes(spec)?;
    service_ports(spec)?;
    if spec.kind.len() > NAME_MAX {
        return invalid(format!("the kind of network {} has more than {NAME_MAX} bytes", spec.name));
    }
    Ok(())
}

fn has_gateway(spec: &NetworkSpec, v4: bool) -> bool {
    spec.gateway.iter().any(|address| address.addr().is_ipv4() == v4)
}

const fn family(v4: bool) -> &'static str {
    if v4 { "IPv4" } else { "IPv6" }
}

fn routes(spec: &NetworkSpec) -> Result<(), AttachError> {
    let (name, len) = (&spec.name, spec.routes.len());
    if len > ROUTES_MAX {
        return invalid(format!("network {name} has {len} routes; {ROUTES_MAX} are the most"));
    }
    let mut seen = HashSet::new();
    for route in &spec.routes {
        let to = route.to;
        let v4 = to.addr().is_ipv4();
        let why = if to != to.trunc() {
            format!("has bits beyond its prefix: write {}", to.trunc())
        } else if to.addr().is_multicast() || to.addr().is_loopback() {
            "leads to no station: take the addresses of a network".to_owned()
        } else if !seen.insert(to) {
            "is there twice: one is enough".to_owned()
        } else if !has_gateway(spec, v4) {
            format!("is of a network without an {} gateway, which the host would send from: give it one", family(v4))
        } else if route.via.is_some_and(|via| via.is_ipv4() != v4) {
            "has a next hop of the other family: take one of the same".to_owned()
        } else if let Some(via) = route.via {
            station("a route's next hop", &IpNet::from(via))?;
            continue;
        } else {
            continue;
        };
        return invalid(format!("the route of network {name} to {to} {why}"));
    }
    Ok(())
}

fn service_ports(spec: &NetworkSpec) -> Result<(), AttachError> {
    let (name, len) = (&spec.name, spec.service_ports.len());
    if len > SERVICE_PORTS_MAX {
        return invalid(format!("network {name} has {len} service ports; {SERVICE_PORTS_MAX} are the most"));
    }
    let mut seen = HashSet::new();
    for port in &spec.service_ports {
        let why = if port.port == 0 {
            "is out of range: it is 1 to 65535"
        } else if !seen.insert(*port) {
            "is there twice: one is enough"
        } else if !has_gateway(spec, !port.v6) {
            "is of a family that the network has no gateway of: give it one"
        } else {
            continue;
        };
        let address = port.address.map_or_else(|| format!("all {} addresses", family(!port.v6)), |ip| ip.to_string());
        return invalid(format!(
            "the service port {}/{} of {address} of network {name} {why}",
            port.port, port.protocol
        ));
    }
    Ok(())
}

/// Checks an attachment.
///
/// # Errors
/// [`AttachError::Invalid`].
pub(super) fn attachment(spec: &AttachmentSpec) -> Result<(), AttachError> {
    name("a network's name", &spec.key.network)?;
    name("a container's ID", &spec.key.container_id)?;
    interface("an interface's name", &spec.key.ifname)?;
    interface("a port's name", &spec.port)?;
    match &spec.device {
        Device::Veth { interface: link } | Device::Inline { interface: link } => {
            interface("an interface's name", link)?
        }
        Device::Tap { netns, interface: link } => {
            interface("an interface's name", link)?;
            path(netns)?;
        }
    }
    spec.netns.as_deref().map_or(Ok(()), path)?;
    if spec.mac[0] & 1 != 0 || spec.mac == [0; 6] {
        return invalid(format!("{}: its hardware address must be one station's, and not of a group", spec.key));
    }
    short("addresses", spec.addresses.len())?;
    let mut seen = HashSet::new();
    for address in &spec.addresses {
        station("a container's address", address)?;
        if !seen.insert(address.addr()) {
            return invalid(format!("{}: the address {} is there twice", spec.key, address.addr()));
        }
    }
    vlans(&spec.vlan)?;
    mappings(spec)?;
    short("labels", spec.labels.len())
}

fn path(path: &Path) -> Result<(), AttachError> {
    if !path.is_absolute() {
        return invalid(format!("{} is no absolute path of a network namespace", path.display()));
    }
    Ok(())
}

fn vlans(vlans: &Vlans) -> Result<(), AttachError> {
    let ids = match vlans {
        Vlans::All => Vec::new(),
        Vlans::Access(id) => vec![*id],
        Vlans::Trunk { trunks, native } => trunks.iter().copied().chain(*native).collect(),
    };
    match ids.iter().find(|id| **id > 4094) {
        Some(id) => invalid(format!("{id} is no VLAN ID; it is 0 to 4094")),
        None => short("VLANs", ids.len()),
    }
}

/// Checks the ports of the host that are to lead to an attachment.
///
/// # Errors
/// [`AttachError::Invalid`].
pub(super) fn mappings(spec: &AttachmentSpec) -> Result<(), AttachError> {
    let mappings = &spec.port_mappings;
    short("port mappings", mappings.len())?;
    let mut by_port = std::collections::HashMap::new();
    for mapping in mappings {
        let what = format!("host port {}/{}", mapping.host_port, mapping.protocol);
        if mapping.host_port == 0 || mapping.container_port == 0 {
            return invalid(format!("{}: a mapped port is 1 to 65535", spec.key));
        }
        let family = mapping.host_address.map(|address| address.is_ipv4());
        if !spec.addresses.iter().any(|address| family.is_none_or(|v4| address.addr().is_ipv4() == v4)) {
            return invalid(format!("{}: {what} has no address of its family to lead to", spec.key));
        }
        let others: &mut Vec<_> = by_port.entry((mapping.protocol, mapping.host_port)).or_default();
        if others.iter().any(|other| overlap(*other, mapping.host_address)) {
            return invalid(format!("{}: {what} is mapped twice", spec.key));
        }
        others.push(mapping.host_address);
    }
    Ok(())
}
