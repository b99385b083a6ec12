//! VLANs, routers, routed links and tunnels of topology files.

use super::*;
use crate::lab::topology::resolved::{Carried, Tunnel};

/// Worked out by hand; the page on labs and `examples/overlay` have it too.
const OVERLAY: &str = "\
lab: overlay
vlans: {red: {id: 5, vni: 100, subnet: 10.5.0.0/24}}
switches: {s1: {}, s2: {}}
hosts: {h1: {}, h2: {}}
links:
  - {ends: [h1, s1], access: red}
  - {ends: [h2, s2], access: red}
  - {ends: [s1, s2], name: core, ips: [192.0.2.1/30, 192.0.2.2/30], mtu: 1550, delay: 5ms}
tunnels: [{name: t1, type: vxlan, ends: [s1, s2], vni: 100, vlans: [red], over: core}]
";

fn edited(from: &str, to: &str) -> String {
    assert!(OVERLAY.contains(from), "{from}");
    OVERLAY.replace(from, to)
}

fn core(lab: &Topology) -> &resolved::Link {
    lab.links.iter().find(|l| l.name == "core").unwrap()
}

/// Delay and jitter of both ways of the link core, in milliseconds.
fn times(lab: &Topology) -> [(u128, u128); 2] {
    core(lab).impairment.map(|i| (i.delay.as_millis(), i.jitter.as_millis()))
}

fn router_addresses(topology: &Topology, router: &str) -> Vec<String> {
    let router = topology.routers.iter().find(|r| r.name == router).unwrap();
    let tag = |tag: Option<u16>| tag.map_or(String::new(), |tag| format!(".{tag}"));
    let interface = |i: &resolved::RouterInterface| {
        let addresses: Vec<_> = i.addresses.iter().map(ToString::to_string).collect();
        format!("{}{} {}", i.port, tag(i.tag), addresses.join(" "))
    };
    router.interfaces.iter().map(interface).collect()
}

#[test]
fn a_tunnel_goes_over_the_addresses_of_its_link() {
    let lab = good(OVERLAY);
    assert_eq!(addresses(&lab, "h2"), ["10.5.0.2/24"]);
    assert_eq!(lab.host("h1").unwrap().interfaces[0].vlan.as_deref(), Some("red"));
    let Tunnel { vni, carried, ends, mtu, .. } = &lab.tunnels[0];
    assert_eq!((*vni, carried, *mtu), (Some(100), &Carried::Access("red".to_owned()), Some(1550)));
    let ends: Vec<_> =
        ends.iter().map(|e| format!("{}:{} {} {}", e.switch, e.port, e.local.unwrap(), e.remote)).collect();
    assert_eq!(ends, ["s1:2 192.0.2.1 192.0.2.2", "s2:2 192.0.2.2 192.0.2.1"]);
    let core = core(&lab);
    assert_eq!(core.ends.each_ref().map(ToString::to_string), ["s1:core", "s2:core"]);
    assert_eq!(times(&lab), [(5, 0), (5, 0)]);
    assert_eq!(lab.ports_of("s1").collect::<Vec<_>>(), [(1, "h1".to_owned()), (2, "s1.t1".to_owned())]);
    assert_eq!(lab.stacks(), ["s1", "s2"]);
}

#[test]
fn the_other_end_may_be_named_first_and_the_other_way_has_its_own_delay() {
    let lab = good(
        &edited("ends: [s1, s2], vni", "ends: [s2, s1], vni")
            .replace("delay: 5ms", "delay: 5ms, jitter: 1ms, back: {delay: 60ms}"),
    );
    let locals: Vec<_> = lab.tunnels[0].ends.iter().map(|e| e.local.unwrap().to_string()).collect();
    assert_eq!(locals, ["192.0.2.2", "192.0.2.1"]);
    assert_eq!(times(&lab), [(5, 1), (60, 1)]);
}

#[test]
fn a_tunnel_that_does_not_fit_its_link_is_refused_with_the_numbers() {
    let says = |file: &str, what: &str| {
        let error = parse(file, "overlay.yml").unwrap_err();
        assert_eq!(error.lines(), [what]);
    };
    says(&edited("1550", "1500"), "t1 needs 1550 on core (1500 + 50), has 1500 (overlay.yml:8)");
    says(&edited(", mtu: 1550", ""), "t1 needs 1550 on core (1500 + 50), has 1500 (overlay.yml:8)");
    let v6 = edited("192.0.2.1/30, 192.0.2.2/30", "'2001:db8::1/64', '2001:db8::2/64'");
    says(&v6, "t1 needs 1570 on core (1500 + 70), has 1550 (overlay.yml:8)");
    let with = |kind: &str, mtu: u32| edited("vxlan", kind).replace("1550", &mtu.to_string());
    says(&with("geneve", 1549), "t1 needs 1550 on core (1500 + 50), has 1549 (overlay.yml:8)");
    says(&with("gre", 1541), "t1 needs 1542 on core (1500 + 42), has 1541 (overlay.yml:8)");
    good(&with("gre", 1542));
    let no_key = with("gre", 1537).replace("vni: 100, ", "");
    says(&no_key, "t1 needs 1538 on core (1500 + 38), has 1537 (overlay.yml:8)");
    // Tags within take four bytes more.
    let two =
        edited("vlans: {red:", "vlans: {blue: {id: 7}, red:").replace("vlans: [red], over", "vlans: [red, blue], over");
    says(&two, "t1 needs 1554 on core (1500 + 54), has 1550 (overlay.yml:8)");
    // What is larger is a host in the VLAN; one elsewhere does not matter.
    let large = edited("access: red}\n  - {ends: [h2", "access: red, mtu: 9000}\n  - {ends: [h2");
    says(&large, "t1 needs 9050 on core (9000 + 50), has 1550 (overlay.yml:8)");
    good(
        &edited("hosts: {h1: {},", "hosts: {h3: {}, h1: {},")
            .replace("links:\n", "links:\n  - {ends: [h3, s1], mtu: 9000}\n"),
    );
}

#[test]
fn a_tunnel_takes_number_and_link_where_there_is_one_choice() {
    let lab = good(&edited("vni: 100, vlans: [red], over: core", "vlans: [red]").replace("name: t1, ", ""));
    assert_eq!((lab.tunnels[0].name.as_str(), lab.tunnels[0].vni), ("t1", Some(100)));
    assert_eq!(lab.tunnels[0].over.as_deref(), Some("core"));
    let remote =
        good(&edited("ends: [s1, s2], vni: 100, vlans: [red], over: core", "ends: [s1], remote: 203.0.113.9, vni: 9"));
    assert_eq!(
        remote.tunnels[0].ends.iter().map(|e| (e.local, e.remote.to_string())).collect::<Vec<_>>(),
        [(None, "203.0.113.9".to_owned())]
    );
    assert_eq!(remote.tunnels[0].carried, Carried::All);
}

#[test]
fn mistakes_in_tunnels_are_told_with_their_line() {
    let tunnel =
        |text: &str| edited("{name: t1, type: vxlan, ends: [s1, s2], vni: 100, vlans: [red], over: core}", text);
    bad(&tunnel("{type: vxlam, ends: [s1, s2], vni: 1}"), &[(9, "type: there is no `vxlam`; did you mean `vxlan`?")]);
    bad(&tunnel("{type: ipip, ends: [s1, s2]}"), &[(9, "carries packets and no frames")]);
    bad(&tunnel("{ends: [s1], vnj: 1}"), &[(9, "did you mean `vni`?"), (9, "needs `type:`"), (9, "this one has 1")]);
    bad(&tunnel("{type: geneve, ends: [s1, h1], vni: 1}"), &[(9, "`h1` is no switch")]);
    bad(
        &tunnel("{type: geneve, ends: [s1, s3], vlans: [rde]}"),
        &[(9, "no switch `s3`; did you mean `s1`?"), (9, "no VLAN `rde`; did you mean `red`?"), (9, "needs `vni:`")],
    );
    bad(&tunnel("{type: geneve, ends: [s1, s2], vni: 20000000}"), &[(9, "vni: `20000000`")]);
    bad(
        &tunnel("{type: vxlan, ends: [s1, s2], vni: 7, vlans: [red]}"),
        &[(9, "vni: 7, but the VLAN red has 100 (line 2)")],
    );
    bad(&tunnel("{type: vxlan, ends: [s1, s2], vni: 7, over: cora}"), &[(9, "no link `cora`; did you mean `core`?")]);
    bad(&tunnel("{type: vxlan, ends: [s1, s2], vni: 7, over: h1-s1}"), &[(9, "`h1-s1` has no addresses")]);
    bad(&tunnel("{type: vxlan, ends: [s1, s2], vni: 7, remote: 1.2.3.4}"), &[(9, "has one end here, this one has 2")]);
    bad(&tunnel("{name: h1, type: vxlan, ends: [s1, s2], vlans: [red]}"), &[(9, "cannot be named `h1`")]);
    bad(
        &tunnel("{type: vxlan, ends: [s1, s2], vlans: [red]}, {type: vxlan, ends: [s2, s1], vni: 100, vlans: [red]}"),
        &[(9, "the tunnel t2 closes a loop")],
    );
    let lab = edited("tunnels:", "  - {ends: [s1, s2], trunk: [red]}\ntunnels:");
    bad(&lab, &[(10, "the tunnel t1 closes a loop of switches")]);
}

#[test]
fn routed_links_say_what_their_addresses_must_be() {
    let ips = |text: &str| edited("ips: [192.0.2.1/30, 192.0.2.2/30]", text);
    bad(&ips("ips: [192.0.2.1/30]"), &[(8, "each of the two ends, found 1")]);
    bad(&ips("ips: [192.0.2.1/30, null]"), &[(8, "both ends of this link need an address")]);
    bad(&ips("ips: [192.0.2.1, 192.0.2.2/30]"), &[(8, "`192.0.2.1` is not an address with its prefix length")]);
    bad(&ips("ips: [192.0.2.1/30, 192.0.2.9/30]"), &[(8, "no address of the other end is in 192.0.2.0/30")]);
    bad(&ips("ips: [192.0.2.1/30, 192.0.2.1/30]"), &[(8, "both ends have the address 192.0.2.1")]);
    bad(&ips("ips: [192.0.2.1/30, 192.0.2.2/30], access: red"), &[(8, "carries packets of tunnels, no VLANs")]);
    bad(&edited("[h1, s1], access: red", "[h1, s1], ips: [10.5.0.9/24, null]"), &[(6, "addresses by `ip:`")]);
    bad(&edited("ends: [s1, s2], name", "ends: ['s1:4', s2], name"), &[(8, "has no ports")]);
    bad(&edited("delay: 5ms", "delay: 5"), &[(8, "delay: `5` is not a time like 20ms")]);
}

#[test]
fn vlans_are_checked_by_name_and_number() {
    bad(
        "lab: a\nvlans: {blue: {id: 10}, green: {id: 10}}\nlinks: [{ends: [h1, s1], access: bleu}]\n",
        &[(2, "id 10 is the VLAN blue's already"), (3, "there is no VLAN `bleu`; did you mean `blue`?")],
    );
    bad(
        "lab: a\nvlans: {blue: {id: 4095, gatway: r1}}\nlinks: []\n",
        &[(2, "did you mean `gateway`?"), (2, "id: `4095`")],
    );
    bad("lab: a\nvlans: {blue: {}}\nlinks: [{ends: [h1, s1], trunk: [blue]}]\n", &[(3, "a host is in one VLAN")]);
    bad("lab: a\nvlans: {blue: {}}\nlinks: [{ends: [h1, s1], access: blue, native: blue}]\n", &[(3, "not both")]);
    bad("lab: a\nvlans: {blue: {}}\nlinks: [{ends: [s1, s2], trunk: []}]\n", &[(3, "the list is empty")]);
    let lab = good(
        "lab: a\nvlans: {blue: {}, green: {id: 1}}\nlinks: [{ends: [h1, s1], access: blue}, {ends: [s1, s2], trunk: [blue], native: green}]\n",
    );
    assert_eq!(lab.vlans.iter().map(|v| v.id).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(addresses(&lab, "h1"), ["10.0.0.1/24"], "a VLAN without a subnet has the default one");
    assert_eq!(lab.links[1].carried.to_string(), "blue,green (native)");
}

#[test]
fn links_in_different_vlans_form_no_loop() {
    let file = |second: &str| {
        format!(
            "lab: a\nvlans: {{blue: {{}}, green: {{}}}}\nlinks:\n  - {{ends: [s1, s2], access: blue, name: one}}\n  - {{ends: [s1, s3], access: {second}}}\n  - {{ends: [s2, s3], access: {second}}}\n"
        )
    };
    good(&file("green"));
    bad(&file("blue"), &[(6, "closes a loop")]);
}

const OFFICE: &str = "\
lab: office
vlans:
  blue: {id: 10, subnet: 10.0.10.0/24, subnet6: 'fd00:10::/64', gateway: r1}
  green: {id: 20, subnet: 10.0.20.0/24, gateway: r1}
switches: {s1: {}}
routers: {r1: {routes: [{to: 10.9.0.0/16, via: 10.0.10.2}]}, r2: {}}
hosts: {h1: {}, h2: {ip: 10.0.20.80}}
links:
  - {ends: [h1, s1], access: blue}
  - {ends: [h2, s1], access: green}
  - {ends: [r1, s1], trunk: [blue, green]}
  - {ends: [r2, s1], access: blue}
";

#[test]
fn a_router_on_a_trunk_has_an_interface_for_each_vlan_and_the_gateway_takes_the_first_address() {
    let lab = good(OFFICE);
    assert_eq!(router_addresses(&lab, "r1"), ["1.10 10.0.10.1/24 fd00:10::1/64", "1.20 10.0.20.1/24"]);
    assert_eq!(router_addresses(&lab, "r2"), ["1 10.0.10.2/24 fd00:10::2/64"]);
    assert_eq!(addresses(&lab, "h1"), ["10.0.10.3/24", "fd00:10::3/64"]);
    let gateways =
        |name: &str| lab.host(name).unwrap().interfaces[0].gateways.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(gateways("h1"), ["10.0.10.1", "fd00:10::1"]);
    assert_eq!(
        (addresses(&lab, "h2"), gateways("h2")),
        (vec!["10.0.20.80/24".to_owned()], vec!["10.0.20.1".to_owned()])
    );
    let macs: Vec<_> = lab.routers[0].interfaces.iter().map(|i| i.mac.to_string()).collect();
    assert_eq!(macs, ["02:00:00:00:00:03", "02:00:00:00:00:04"], "behind those of the hosts");
    assert_eq!(lab.routers[0].routes[0].to.to_string(), "10.9.0.0/16");
}

#[test]
fn a_switch_may_be_the_gateway() {
    let lab = good(
        &OFFICE.replace("gateway: r1", "gateway: s1").replace("{routes: [{to: 10.9.0.0/16, via: 10.0.10.2}]}", "{}"),
    );
    assert_eq!(router_addresses(&lab, "s1.router"), ["1.10 10.0.10.1/24 fd00:10::1/64", "1.20 10.0.20.1/24"]);
    assert!(lab.ports_of("s1").any(|port| port == (5, "s1.gw".to_owned())));
}

#[test]
fn mistakes_about_routers_are_told_with_their_line() {
    let with = |from: &str, to: &str| OFFICE.replacen(from, to, 1);
    bad(&with("gateway: r1", "gateway: r3"), &[(3, "there is no `r3`; did you mean `r1`?")]);
    bad(&with("gateway: r1", "gateway: h1"), &[(3, "`h1` is a host")]);
    bad(&with("trunk: [blue, green]", "trunk: [blue]"), &[(4, "no link of `r1` carries the VLAN green")]);
    bad(&with("via: 10.0.10.2", "via: 10.7.0.2"), &[(6, "via: 10.7.0.2 is in no network of r1")]);
    bad(&with("via: 10.0.10.2", "via: 10.0.10.1"), &[(6, "via: 10.0.10.1 is r1 itself")]);
    bad(&with("via: 10.0.10.2", "via: 'fd00:10::2'"), &[(6, "one IP version")]);
    bad(&with("to: 10.9.0.0/16", "to: 10.9.0.1/16"), &[(6, "`10.9.0.1/16` is not a network")]);
    bad(&with("to: 10.9.0.0/16, ", ""), &[(6, "a route needs `to:`")]);
    bad(&with("via: 10.0.10.2", "via: 10.0.10.2, vrf: red"), &[(6, "no interface of r1 is in `red`")]);
    bad(&with("ip: 10.0.20.80", "ip: 10.0.20.1"), &[(7, "ip 10.0.20.1 is given twice; it is the gateway's, r1")]);
    bad(
        &with("20.0/24", "10.0/24").replace("ip: 10.0.20.80", ""),
        &[(11, "overlap; put one of them in another `vrf:`")],
    );
    bad("lab: a\nlinks: [[h1, r1]]\n", &[(2, "the link h1 - r1 needs `ips: [.., ..]`")]);
    bad("lab: a\nlinks: [[r1, s1], [s1, r1]]\n", &[(2, "are linked already (line 2)")]);
}

#[test]
fn routers_are_chained_by_links_with_addresses() {
    let lab = good(
        "lab: a\nlinks:\n  - {ends: [h1, r1], ips: [10.1.0.2/24, 10.1.0.1/24]}\n  \
         - {ends: [r1, r2], ips: [[192.0.2.1/30, '2001:db8::1/64'], [192.0.2.2/30, '2001:db8::2/64']], vrf: [red, null]}\n  - [r2, s1]\n  - [h2, s1]\n",
    );
    assert_eq!(router_addresses(&lab, "r1"), ["1 10.1.0.1/24", "2 192.0.2.1/30 2001:db8::1/64"]);
    assert_eq!(lab.routers[0].interfaces[1].vrf.as_deref(), Some("red"));
    assert_eq!(router_addresses(&lab, "r2"), ["1 192.0.2.2/30 2001:db8::2/64", "2 10.0.0.1/24"]);
    assert_eq!(
        (addresses(&lab, "h1"), addresses(&lab, "h2")),
        (vec!["10.1.0.2/24".to_owned()], vec!["10.0.0.2/24".to_owned()])
    );
    let gateway = |host: &str| lab.host(host).unwrap().interfaces[0].gateways[0].to_string();
    assert_eq!((gateway("h1"), gateway("h2")), ("10.1.0.1".to_owned(), "10.0.0.1".to_owned()));
}

#[test]
fn a_route_has_several_next_hops() {
    let lab = good(
        "lab: a\nrouters:\n  r1: {routes: [{to: 10.9.0.0/16, via: [192.0.2.2, 192.0.2.6]}]}\n  r2: {}\n  r3: {}\nlinks:\n  \
         - {ends: [r1, r2], ips: [192.0.2.1/30, 192.0.2.2/30]}\n  - {ends: [r1, r3], ips: [192.0.2.5/30, 192.0.2.6/30]}\n",
    );
    let via: Vec<_> = lab.routers[0].routes[0].via.iter().map(ToString::to_string).collect();
    assert_eq!(via, ["192.0.2.2", "192.0.2.6"]);
}

#[test]
fn networks_of_two_routing_domains_may_overlap() {
    let file = |vrf: &str| {
        format!(
            "lab: a\nvlans:\n  blue: {{subnet: 10.0.0.0/24, gateway: r1, vrf: one}}\n  \
             green: {{subnet: 10.0.0.0/24, gateway: r1, vrf: {vrf}}}\n\
             routers: {{r1: {{routes: [{{to: default, via: 10.0.0.9, vrf: one}}]}}}}\nhosts: {{h1: {{}}, h2: {{}}}}\nswitches: {{s1: {{}}}}\n\
             links:\n  - {{ends: [h1, s1], access: blue}}\n  - {{ends: [h2, s1], access: green}}\n  - {{ends: [r1, s1], trunk: [blue, green]}}\n"
        )
    };
    let lab = good(&file("two"));
    assert_eq!(addresses(&lab, "h1"), addresses(&lab, "h2"));
    assert_eq!(lab.routers[0].routes[0].to.to_string(), "0.0.0.0/0");
    bad(&file("one"), &[(11, "overlap")]);
}
