//! Labs of several networks: VLANs, tunnels, routers.

use super::machine::Machine;
use super::*;

const OVERLAY: &str = include_str!("../../../examples/overlay/overlay.lab.yml");

#[test]
fn a_vlan_goes_through_every_kind_of_tunnel() {
    if !is_root("a_vlan_goes_through_every_kind_of_tunnel") {
        return;
    }
    let user = User::new();
    let v6 =
        OVERLAY.replace("192.0.2.1/30, 192.0.2.2/30", "'2001:db8::1/64', '2001:db8::2/64'").replace("1550", "1570");
    let files = [
        OVERLAY.to_owned(),
        OVERLAY.replace("vxlan", "geneve"),
        v6.replace("vxlan", "geneve"),
        v6,
        OVERLAY.replace("vxlan", "gre"),
    ];
    for file in files {
        user.up(&file, "");
        user.reaches("", 2);
        // The largest packet fits, as the size of the link promises.
        user.ok("lab exec h1 -- ping -q -c 1 -W 5 -M do -s 1472 10.5.0.2");
        let trace = user.ok("trace h1 h2 icmp");
        assert!(
            trace.starts_with("DELIVERED  h1 -> s1 [port 1, vlan red, learned h2 via t1] -> core 5ms -> s2"),
            "{trace}"
        );
        user.ok("lab down");
    }
}

#[test]
fn several_vlans_go_through_one_tunnel_to_a_switch_that_is_their_gateway() {
    if !is_root("several_vlans_go_through_one_tunnel_to_a_switch_that_is_their_gateway") {
        return;
    }
    let user = User::new();
    let file = "\
lab: vlans
vlans:
  red: {subnet: 10.5.0.0/24, subnet6: 'fd00:0:0:5::/64', gateway: s1}
  blue: {subnet: 10.6.0.0/24, subnet6: 'fd00:0:0:6::/64', gateway: s1}
links:
  - {ends: [h1, s1], access: red}
  - {ends: [h2, s2], access: red}
  - {ends: [h3, s2], access: blue}
  - {ends: [s1, s2], name: core, ips: [192.0.2.1/30, 192.0.2.2/30], mtu: 1554}
tunnels: [{name: t1, type: vxlan, ends: [s1, s2], vni: 100, vlans: [red, blue]}]
";
    user.up(file, "");
    user.reaches("", 12);
    user.ok("lab exec h2 -- ping -q -c 1 -W 5 -M do -s 1472 10.6.0.2");
    user.fails("lab exec s3 -- true", 2, &["has no host named s3"]);
    assert_eq!(user.ok("lab exec s1 -- ls /sys/class/net"), "core\nlo\n");
}

#[test]
fn tunnels_and_routers_need_no_privilege() {
    const NAME: &str = "tunnels_and_routers_need_no_privilege";
    if !is_root(NAME) {
        return;
    }
    let user = User::without_privilege();
    fs::write(user.folder.path().join("lab.yml"), OVERLAY).unwrap();
    let said = user.run("lab up lab.yml --attach veth");
    if said.code == 77 {
        return eprintln!("skipped: {NAME}: {}", said.err.lines().next().unwrap_or_default());
    }
    assert!(said.code == 0 && said.out.contains("rootless"), "{said:#?}");
    user.reaches("", 2);
    let said = user.run("lab cni s1");
    assert!(said.code == 77 && said.err.contains("containers cannot join it"), "{said:#?}");
    user.ok("lab down");
    user.up(include_str!("../../../examples/routed/routed.lab.yml"), "--attach veth");
    user.reaches("", 12);
}

#[test]
fn networks_and_tunnels_go_with_a_killed_supervisor() {
    if !is_root("networks_and_tunnels_go_with_a_killed_supervisor") {
        return;
    }
    let user = User::new();
    let before = interfaces();
    user.up(OVERLAY, "");
    let traces = Traces::of(&user, "overlay");
    assert_eq!(user.state("overlay")["namespaces"].as_array().unwrap().len(), 4);
    kill(traces.supervisor);
    // At once: it waits for a supervisor that is ending.
    let gc = user.ok("lab gc");
    assert!(gc.starts_with("overlay: the supervisor"), "{gc}");
    traces.are_gone();
    assert_eq!(interfaces(), before);
}

#[test]
fn a_tunnel_that_does_not_fit_makes_nothing() {
    let user = User::new();
    fs::write(user.folder.path().join("overlay.yml"), OVERLAY.replace("1550", "1500")).unwrap();
    user.fails("lab up overlay.yml", 2, &["error: t1 needs 1550 on core (1500 + 50), has 1500 (overlay.yml:8)"]);
    assert!(!user.runtime().exists());
}

#[test]
fn labs_on_two_machines_are_one_network() {
    if !is_root("labs_on_two_machines_are_one_network") {
        return;
    }
    let (a, b) = (Machine::new(), Machine::new());
    a.join(&b, 1550, &[["198.51.100.1/24", "198.51.100.2/24"]]);
    let users = [(a.user(), 1, 2), (b.user(), 2, 1)];
    for (user, own, other) in &users {
        let file = format!(
            "lab: part{own}\nseed: {own}\nvlans: {{red: {{vni: 7}}}}\nhosts: {{h{own}: {{ip: 10.0.0.{own}}}}}\nswitches: {{s1: {{}}}}\n\
             links: [{{ends: [h{own}, s1], access: red}}]\n\
             tunnels: [{{type: vxlan, ends: [s1], vlans: [red], remote: 198.51.100.{other}}}]\n"
        );
        user.up(&file, "");
    }
    users[0].0.ok("lab exec h1 -- ping -q -c 2 -W 5 -M do -s 1472 10.0.0.2");
    users[1].0.ok("lab exec h2 -- ping -q -c 1 -W 5 10.0.0.1");
    for (user, ..) in &users {
        user.ok("lab down");
    }
}
