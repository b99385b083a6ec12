//! Servers of VLANs, and hosts that have their addresses by them.

use super::*;
use crate::lab::topology::write;

const BLUE: &str = "\
lab: a
vlans:
  blue: {id: 10, subnet: 10.0.10.0/29, gateway: r1, dhcp: true}
switches: {s1: {}, s2: {}}
routers: {r1: {}}
hosts: {h1: {}, h2: {dhcp: true}, h3: {dhcp: true, ip: 10.0.10.5}}
links:
  - {ends: [h1, s1], access: blue}
  - {ends: [h2, s1], access: blue}
  - {ends: [h3, s1], access: blue}
  - [s1, s2]
  - {ends: [r1, s2], access: blue}
";

#[test]
fn a_server_is_at_the_gateways_switch_with_the_last_address() {
    let topology = good(BLUE);
    let [server] = topology.dhcp.as_slice() else { panic!("{:?}", topology.dhcp) };
    // Behind the ports of the links: two of s2, so nothing else moves because of it.
    assert_eq!((server.switch.as_str(), server.port, server.vlan.as_str()), ("s2", 3, "blue"));
    assert_eq!(server.address.map(|net| net.to_string()).as_deref(), Some("10.0.10.6/29"));
    assert_eq!(server.gateways, ["10.0.10.1".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(server.mac.to_string(), "02:00:00:00:00:05");
    assert_eq!(server.lease_s, 3600);
    let hosts = topology.hosts.iter().flat_map(|h| &h.interfaces);
    let hosts: Vec<_> = hosts.map(|i| (i.dhcp, i.addresses[0].to_string())).collect();
    let wanted = [(false, "10.0.10.2/29"), (true, "10.0.10.3/29"), (true, "10.0.10.5/29")];
    assert_eq!(hosts, wanted.map(|(dhcp, address)| (dhcp, address.to_owned())));
    let names: Vec<_> = topology.ports_of("s2").collect();
    assert!(names.contains(&(3, "s2.dhcp.blue".to_owned())), "{names:?}");
}

#[test]
fn the_gateway_itself_or_any_switch_of_the_vlan_will_do() {
    let own = good(
        &BLUE
            .replace("gateway: r1", "gateway: s1")
            .replace("routers: {r1: {}}\n", "")
            .replace("  - {ends: [r1, s2], access: blue}\n", ""),
    );
    assert_eq!(own.dhcp[0].switch, "s1");
    let none = good(&BLUE.replace("gateway: r1, ", ""));
    assert_eq!((none.dhcp[0].switch.as_str(), none.dhcp[0].gateways.len()), ("s1", 0));
}

#[test]
fn what_is_saved_has_its_servers_and_clients() {
    for lease in ["true", "{lease: 90s}", "{lease: 12h}"] {
        let topology = good(&BLUE.replace("dhcp: true}\nswitches", &format!("dhcp: {lease}}}\nswitches")));
        let text = write::write(&topology).expect("it can be written");
        assert!(text.contains(&format!("dhcp: {lease}}}")), "{text}");
        assert_eq!(good(&text).dhcp, topology.dhcp);
    }
}

#[test]
fn a_host_without_a_server_is_told_what_to_do() {
    let without = BLUE.replace(", dhcp: true}\nswitches", "}\nswitches");
    let told = "which has no server; add `dhcp: true` to blue";
    bad(
        &without,
        &[
            (6, &format!("dhcp: `h2` is in the VLAN blue, {told}")),
            (6, &format!("dhcp: `h3` is in the VLAN blue, {told}")),
        ],
    );
    bad(
        "lab: a\nhosts: {h1: {dhcp: true}}\nswitches: {s1: {}}\nlinks: [[h1, s1]]\n",
        &[(
            2,
            "dhcp: eth0 of `h1` is in no VLAN, and servers are a VLAN's: `vlans: {lan: {subnet: 10.0.0.0/24, dhcp: true}}`",
        )],
    );
}

#[test]
fn a_server_needs_a_subnet_a_switch_and_an_address() {
    bad(
        "lab: a\nvlans: {blue: {subnet6: 'fd00::/64', dhcp: true}}\nlinks: [{ends: [h1, s1], access: blue}]\n",
        &[(2, "dhcp: `blue` has no `subnet:` that addresses could be given of")],
    );
    bad(
        "lab: a\nvlans: {blue: {subnet: 10.0.0.0/24, dhcp: true}, red: {}}\nlinks: [{ends: [h1, s1], access: red}]\n",
        &[(2, "dhcp: no link of a switch carries the VLAN blue")],
    );
    bad(
        "lab: a\nvlans: {blue: {subnet: 10.0.0.0/30, dhcp: true}}\nlinks: [{ends: [h1, s1], access: blue}, {ends: [h2, s1], access: blue}]\n",
        &[(2, "no address of 10.0.0.0/30 is left for `DHCP server`; give the VLAN blue a larger subnet")],
    );
}

#[test]
fn values_that_make_no_sense_are_refused() {
    let file = "lab: a\nvlans: {blue: {subnet: 10.0.0.0/24, dhcp: DHCP}}\nlinks: [{ends: [h1, s1], access: blue}]\n";
    let told = |dhcp: &str, message: &str| bad(&file.replace("DHCP", dhcp), &[(2, message)]);
    told("maybe", "dhcp: `maybe` is not true, false or {lease: 10m}");
    told("[true]", "dhcp: expected true, false or {lease: 10m}, found a list");
    told("{lease: 10}", "lease: `10` is not a time from 2s on, like 30s, 10m or 12h");
    told("{leas: 10m}", "unknown key `leas` in dhcp; did you mean `lease`?");
    let hosts = |h3: &str| BLUE.replace("{dhcp: true, ip: 10.0.10.5}", h3);
    bad(&hosts("{dhcp: blue}"), &[(6, "dhcp: `blue` is not true or false")]);
    bad(&hosts("{dhcp: true, ip: [10.0.10.4, 10.0.10.5]}"), &[(6, "dhcp: `h3` has several IPv4 addresses")]);
    bad(&hosts("{dhcp: true, ip: 10.9.0.1/24}"), &[(6, "ip: 10.9.0.1/24 is not in 10.0.10.0/29")]);
}
