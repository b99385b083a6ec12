//! Labs that are joined to the network of their machine.

use super::machine::Machine;
use super::*;

/// A machine with a neighbour that knows nothing of labs.
fn machine_and_neighbour() -> (Machine, Machine) {
    let (machine, neighbour) = (Machine::new(), Machine::new());
    machine.join(&neighbour, 1500, &[["198.51.100.2/24", "198.51.100.1/24"], ["2001:db8:1::2/64", "2001:db8:1::1/64"]]);
    machine.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    (machine, neighbour)
}

/// What `nft` and `ip` have of the machine.
fn left(machine: &Machine) -> String {
    let said = |command| String::from_utf8(machine.output(command).stdout).unwrap();
    format!("{}{}", said("nft list ruleset"), said("ip -o link show type tun"))
}

const NAT: &str = "\
lab: outward
defaults: {subnet6: 'fd00:5::/64'}
uplink: {switch: s1, mode: nat}
links: [[h1, s1], [h2, s1]]
";

#[test]
fn hosts_reach_what_the_machine_reaches_behind_its_addresses_and_nobody_reaches_them() {
    if !is_root("hosts_reach_what_the_machine_reaches_behind_its_addresses_and_nobody_reaches_them") {
        return;
    }
    let (machine, neighbour) = machine_and_neighbour();
    let user = machine.user();
    user.up(NAT, "");
    let table = user.ok("lab inspect");
    assert!(table.contains("s1    3     uplink (nat)  10.0.0.1/24,fd00:5::1/64"), "{table}");
    user.reaches("", 4);
    for to in ["10.0.0.1", "198.51.100.1", "fd00:5::1", "2001:db8:1::1"] {
        user.ok(&format!("lab exec h1 -- ping -q -c 1 -W 5 {to}"));
    }
    let trace = user.ok("trace h1 198.51.100.1 icmp");
    assert!(trace.starts_with("DELIVERED  h1 -> s1:1 -> s1:3 -> uplink (nat)"), "{trace}");
    assert!(user.ok("lab graph").contains("s1 == uplink (nat)"));
    // The neighbour could not answer the hosts' own addresses before this.
    neighbour.run("ip route add 10.0.0.0/24 via 198.51.100.2");
    assert!(!neighbour.output("ping -q -c 1 -W 1 10.0.0.2").status.success(), "nobody outside begins");
    machine.run("ping -q -c 1 -W 5 10.0.0.2");
    assert_eq!(user.ok("lab save outward").matches("uplink: {switch: s1, mode: nat}").count(), 1);
    user.ok("lab down");
    assert_eq!(left(&machine), "");
}

/// Hosts behind a router, in a network that nobody outside knows a way to.
const BEHIND: &str = "\
lab: behind
defaults: {subnet6: 'fd00:5::/64'}
vlans: {blue: {id: 10, subnet: 10.5.0.0/24, subnet6: 'fd00:6::/64', gateway: r1}}
switches: {s1: {}, s2: {}}
routers: {r1: {nat: uplink}}
hosts: {h1: {}, h2: {}, near: {}}
uplink: {switch: s1, mode: nat}
links:
- {ends: [h1, s2], access: blue}
- {ends: [h2, s2], access: blue}
- {ends: [r1, s2], access: blue}
- [r1, s1]
- [near, s1]
";

#[test]
fn hosts_behind_a_router_that_translates_are_its_address_to_the_outside() {
    if !is_root("hosts_behind_a_router_that_translates_are_its_address_to_the_outside") {
        return;
    }
    let (machine, _neighbour) = machine_and_neighbour();
    let user = machine.user();
    // By a patch, and by a wire.
    for link in ["- [r1, s1]\n", "- {ends: [s1, r1], delay: 1ms}\n"] {
        user.up(&BEHIND.replace("- [r1, s1]\n", link), "");
        // The machine has no route to 10.5.0.0/24: without the router's own address nothing would come back.
        for to in ["10.0.0.2", "198.51.100.1", "fd00:5::2", "2001:db8:1::1"] {
            user.ok(&format!("lab exec h1 -- ping -q -c 1 -W 5 {to}"));
        }
        user.ok("lab exec h2 -- ping -q -c 1 -W 5 198.51.100.1");
        user.ok("lab exec near -- ping -q -c 1 -W 5 198.51.100.1");
        let tracked = user.ok("ct -o ofctl");
        assert!(tracked.contains("src=10.5.0.2,dst=198.51.100.1") && tracked.contains("dst=10.0.0.1,"), "{tracked}");
        let trace = user.ok("trace h1 198.51.100.1 icmp");
        assert!(trace.starts_with("DELIVERED  h1 -> ") && trace.contains("-> uplink (nat)"), "{trace}");
        assert!(user.ok("lab save behind").contains("nat: uplink}"));
        user.ok("lab down");
    }
    assert_eq!(left(&machine), "");
}

#[test]
fn a_router_that_cannot_translate_is_refused_with_what_it_lacks() {
    let user = User::new();
    for (file, said) in [
        (BEHIND.replace("uplink: {switch: s1, mode: nat}\n", ""), "lab.yml:5: nat: the lab has no uplink"),
        (BEHIND.replace("nat: uplink", "nat: uplnk"), "nat: there is no `uplnk`; did you mean `uplink`?"),
        (BEHIND.replace("switch: s1, mode: nat", "switch: s1, dev: eth0"), "nat: r1 has no default route"),
        (BEHIND.replace("- [r1, s1]\n", ""), "nat: r1 has no interface on s1, where the uplink is"),
    ] {
        fs::write(user.folder.path().join("lab.yml"), file).unwrap();
        let told = user.run("lab validate lab.yml");
        assert!(told.code == 1 && told.out.contains(said), "no {said:?} in {told:#?}");
    }
}

#[test]
fn nothing_is_left_of_an_uplink_when_the_supervisor_is_killed() {
    if !is_root("nothing_is_left_of_an_uplink_when_the_supervisor_is_killed") {
        return;
    }
    let (machine, _neighbour) = machine_and_neighbour();
    let user = machine.user();
    user.up(NAT, "");
    assert!(left(&machine).contains("masquerade"));
    kill(user.state("outward")["supervisor"]["pid"].as_i64().unwrap());
    let begin = Instant::now();
    while !left(&machine).is_empty() {
        assert!(begin.elapsed() < PATIENCE, "{}", left(&machine));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn hosts_are_in_the_network_of_an_interface_of_the_machine() {
    if !is_root("hosts_are_in_the_network_of_an_interface_of_the_machine") {
        return;
    }
    let (machine, neighbour) = machine_and_neighbour();
    let user = machine.user();
    user.up("lab: inside\nhosts: {h1: {ip: 198.51.100.9/24}}\nswitches: {s1: {}}\nuplink: {switch: s1, dev: wire}\nlinks: [[h1, s1]]\n", "");
    user.ok("lab exec h1 -- ping -q -c 1 -W 5 198.51.100.1");
    neighbour.run("ping -q -c 1 -W 5 198.51.100.9");
}

#[test]
fn an_uplink_that_cannot_work_makes_no_lab() {
    if !is_root("an_uplink_that_cannot_work_makes_no_lab") {
        return;
    }
    let (machine, _neighbour) = machine_and_neighbour();
    let user = machine.user();
    fs::write(user.folder.path().join("lab.yml"), NAT).unwrap();
    machine.run("sysctl -qw net.ipv4.ip_forward=0");
    user.fails("lab up lab.yml", 1, &["net.ipv4.ip_forward is 0", "sudo sysctl -w net.ipv4.ip_forward=1"]);
    machine.run("sysctl -qw net.ipv4.ip_forward=1");
    machine.run("nft add table ip filter");
    machine.run("nft add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }");
    user.fails("lab up lab.yml", 1, &["nftables chain ip filter FORWARD", "-i up-+"]);
    machine.run("nft delete table ip filter");
    machine.run("ip addr add 10.0.0.77/8 dev wire");
    user.fails("lab up lab.yml", 1, &["the machine has the address 10.0.0.77/8 already", "subnet: 10.77.0.0/24"]);
    fs::write(user.folder.path().join("lab.yml"), NAT.replace("mode: nat", "dev: nowhere")).unwrap();
    user.fails("lab up lab.yml", 1, &["nowhere"]);
    assert_eq!(left(&machine), "");
    assert_eq!(user.ok("lab ls").lines().count(), 0);
    let other = User::without_privilege();
    fs::write(other.folder.path().join("lab.yml"), NAT).unwrap();
    other.fails("lab up lab.yml", 77, &["an uplink needs the right to change the machine's network", "sudo sluice"]);
}
