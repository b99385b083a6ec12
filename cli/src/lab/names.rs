//! The names of a lab's nodes, and the files by which commands in hosts find them.
//!
//! Every command in a host sees an `/etc/hosts` of the lab's nodes in front of the machine's own, so names are there in every
//! lab. Where a server of DHCP can be reached, which also answers DNS, it sees an `/etc/resolv.conf` that leads to it too: for
//! programs that ask by themselves.

use super::topology::Topology;
use super::topology::resolved::{Host, Interface, RouterInterface};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The machine's file of names.
pub(crate) const HOSTS: &str = "/etc/hosts";
/// The machine's file of servers.
pub(crate) const RESOLVER: &str = "/etc/resolv.conf";

/// Names that every machine has.
const LOCAL: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// The addresses of every node that has some, by its name. A router inside of a switch goes by the switch's name.
pub(crate) fn of(topology: &Topology) -> BTreeMap<&str, Vec<IpAddr>> {
    let mut names = BTreeMap::new();
    for host in &topology.hosts {
        host.interfaces.iter().for_each(|interface| add(&mut names, &host.name, &interface.addresses));
    }
    for router in &topology.routers {
        let name = router.inside.as_ref().map_or(&router.name, |inside| &inside.switch);
        router.interfaces.iter().for_each(|interface| add(&mut names, name, &interface.addresses));
    }
    names
}

fn add<'a>(names: &mut BTreeMap<&'a str, Vec<IpAddr>>, name: &'a str, addresses: &[IpNet]) {
    for ip in addresses.iter().map(IpNet::addr) {
        let known = names.entry(name).or_default();
        if !known.contains(&ip) {
            known.push(ip);
        }
    }
}

/// The file of names that hosts see, in the folder of a lab.
pub(crate) fn hosts_file(folder: &Path) -> PathBuf {
    folder.join("hosts")
}

/// The file of servers that a host sees, in the folder of a lab; there is none for a host that no server is near to.
pub(crate) fn resolver_file(folder: &Path, host: &str) -> PathBuf {
    folder.join("resolv").join(host)
}

/// Writes the files of a lab into its folder.
///
/// # Errors
/// The system's.
pub(crate) fn write(topology: &Topology, folder: &Path) -> io::Result<()> {
    let machine = std::fs::read_to_string(HOSTS).unwrap_or_default();
    write_for_all(&hosts_file(folder), &hosts(topology, &machine))?;
    let servers: Vec<_> = topology.hosts.iter().filter_map(|host| Some((host, server_of(topology, host)?))).collect();
    if !servers.is_empty() {
        DirBuilder::new().mode(0o700).create(folder.join("resolv"))?;
    }
    servers.iter().try_for_each(|(host, server)| {
        let text = format!("search {}\nnameserver {server}\n", topology.name);
        write_for_all(&resolver_file(folder, &host.name), &text)
    })
}

/// Writes a file that programs without privilege can read too, once it is where they look for it.
fn write_for_all(path: &Path, text: &str) -> io::Result<()> {
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o644))
}

/// The lab's names in front of those that the machine knows.
fn hosts(topology: &Topology, machine: &str) -> String {
    let mut out = LOCAL.to_owned();
    for (name, addresses) in of(topology) {
        for address in addresses {
            // Writing to a string cannot fail.
            _ = writeln!(out, "{address}\t{name} {name}.{}", topology.name);
        }
    }
    out + machine
}

/// The server that a host asks for names: that of a VLAN it is in, or one that its gateway has an interface to.
fn server_of(topology: &Topology, host: &Host) -> Option<IpAddr> {
    let own = host.interfaces.iter().filter_map(|interface| topology.dhcp_server(interface.vlan.as_deref()?));
    let near = host.interfaces.iter().flat_map(|interface| behind_gateway(topology, interface));
    let server = own.chain(near.filter_map(|vlan| topology.dhcp_server(vlan))).next()?;
    server.address.map(|address| IpAddr::V4(address.addr()))
}

/// The VLANs that the IPv4 gateway of an interface is in, and from which there is a way back.
fn behind_gateway<'a>(topology: &'a Topology, interface: &'a Interface) -> impl Iterator<Item = &'a str> {
    let via = interface.gateways.iter().find(|gateway| gateway.is_ipv4());
    let has = move |own: &RouterInterface| own.addresses.iter().any(|net| Some(&net.addr()) == via);
    let router = topology.routers.iter().find_map(|router| Some((router, router.interfaces.iter().find(|i| has(i))?)));
    let others = router.into_iter().flat_map(|(router, own)| router.interfaces.iter().filter(|i| i.vrf == own.vrf));
    let back = |vlan: &str, other: &RouterInterface| {
        let server = topology.dhcp_server(vlan);
        server.is_some_and(|server| other.addresses.iter().any(|net| server.gateways.contains(&net.addr())))
    };
    others.filter_map(move |other| other.vlan.as_deref().filter(|vlan| back(vlan, other)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::topology;

    const OFFICE: &str = "\
lab: office
vlans:
  blue: {id: 10, subnet: 10.0.10.0/24, subnet6: \"fd00:10::/64\", gateway: r1, dhcp: true}
  green: {id: 20, subnet: 10.0.20.0/24, gateway: r1}
  red: {id: 30, subnet: 10.0.30.0/24}
switches: {s1: {}}
routers: {r1: {}}
hosts: {h1: {dhcp: true}, web: {}, lone: {}}
links:
  - {ends: [h1, s1], access: blue}
  - {ends: [web, s1], access: green}
  - {ends: [lone, s1], access: red}
  - {ends: [r1, s1], trunk: [blue, green]}
";

    fn office() -> Topology {
        topology::parse(OFFICE, "t.yml").map_err(crate::failure::Failure::from).unwrap()
    }

    #[test]
    fn every_node_has_a_name_in_front_of_the_machines() {
        let text = hosts(&office(), "127.0.0.1 localhost\n192.0.2.1 web\n");
        let at = |line: &str| text.find(line).unwrap_or_else(|| panic!("{line} in {text}"));
        for line in ["10.0.10.2\th1 h1.office\n", "fd00:10::2\th1 h1.office\n", "10.0.20.1\tr1 r1.office\n"] {
            at(line);
        }
        assert!(at("10.0.20.2\tweb web.office\n") < at("192.0.2.1 web\n"));
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
    }

    #[test]
    fn a_host_asks_its_vlans_server_or_one_behind_its_gateway() {
        let topology = office();
        let servers = topology.hosts.iter().map(|host| server_of(&topology, host));
        let own = Some(IpAddr::from([10, 0, 10, 254]));
        assert_eq!(servers.collect::<Vec<_>>(), [own, own, None]);
    }
}
