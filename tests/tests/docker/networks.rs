//! Networks and what containers reach in them.

use crate::machine::{Daemon, Machine};

#[test]
fn containers_reach_each_other_by_address_and_name_and_the_outside() {
    let Some(machine) = Machine::new("containers_reach_each_other_by_address_and_name_and_the_outside") else { return };
    machine.ok("docker network create -d sluice --subnet 10.9.0.0/24 -o mtu=1400 net1");
    let inspected = machine.ok("docker network inspect net1");
    for part in [r#""Driver": "sluice""#, r#""Subnet": "10.9.0.0/24""#, r#""mtu": "1400""#, r#""Scope": "local""#] {
        assert!(inspected.contains(part), "{part}\n{inspected}");
    }
    machine.sleeper("c1", "--network net1");
    machine.sleeper("c2", "--network net1");
    machine.ping("c1", "10.9.0.3");
    machine.ping("c1", "c2");
    machine.ping("c2", "10.9.0.1");
    let inside = machine.ok("docker exec c1 ip addr show eth0");
    assert!(inside.contains("mtu 1400") && inside.contains("02:42:0a:09:00:02"), "{inside}");
    machine.ok("docker exec -d c2 nc -ll -p 7000 -e echo answer");
    assert_eq!(machine.comes_to("docker exec c1 nc -w 5 c2 7000"), "answer\n");
    // The outside knows no way to 10.9.0.0/24: what it answers was hidden behind the machine's address.
    machine.ping("c1", "192.0.2.10");
    let status = machine.ok("sluice docker status");
    assert_eq!(status.matches("joined").count(), 2, "{status}");
    machine.ok("docker rm -f c1 c2");
    machine.ok("docker network rm net1");
    machine.is_clean();
}

#[test]
fn containers_join_and_leave_networks() {
    let Some(machine) = Machine::new("containers_join_and_leave_networks") else { return };
    machine.ok("docker network create -d sluice --subnet 10.9.0.0/24 net1");
    machine.ok("docker network create -d sluice --internal --subnet 10.10.0.0/24 inner");
    machine.sleeper("c1", "--network net1");
    machine.sleeper("c2", "--network inner");
    let routes = machine.ok("docker exec c2 ip route");
    assert!(!routes.contains("default"), "{routes}");
    machine.no_ping("c2", "192.0.2.10");
    machine.ok("docker network connect inner c1");
    machine.ping("c1", "c2");
    assert!(machine.ok("docker exec c1 ip route").contains("default via 10.9.0.1"));
    machine.ok("docker network disconnect inner c1");
    machine.fails("docker exec c1 ip addr show eth1");
    machine.ok("docker network connect --ip 10.10.0.77 inner c1");
    machine.ping("c2", "10.10.0.77");
    assert!(machine.fails("docker network rm inner").contains("active endpoints"));
    machine.ok("docker rm -f c1 c2");
    machine.ok("docker network rm net1 inner");
    machine.is_clean();
}

#[test]
fn vlans_keep_networks_of_one_bridge_apart_in_both_families() {
    let Some(machine) = Machine::new("vlans_keep_networks_of_one_bridge_apart_in_both_families") else { return };
    for (n, vlan) in [(1, 10), (2, 20)] {
        machine.ok(&format!(
            "docker network create -d sluice -o bridge=br0 -o vlan={vlan} --subnet 10.{vlan}.0.0/24 --ipv6 \
             --subnet fd{vlan}::/64 net{n}"
        ));
        machine.sleeper(&format!("a{n}"), &format!("--network net{n}"));
        machine.sleeper(&format!("b{n}"), &format!("--network net{n}"));
        machine.ping(&format!("a{n}"), &format!("10.{vlan}.0.3"));
        machine.ping(&format!("a{n}"), &format!("fd{vlan}::3"));
        machine.ping(&format!("a{n}"), &format!("10.{vlan}.0.1"));
        machine.ping(&format!("a{n}"), &format!("fd{vlan}::1"));
    }
    machine.ping("a1", "192.0.2.10");
    machine.ping("a2", "2001:db8::10");
    let ports = machine.ok("sluice ports");
    assert_eq!((ports.matches("access 10").count(), ports.matches("access 20").count()), (3, 3), "{ports}");
    // The other network's address, put on this one's link: nobody of the other VLAN answers it.
    machine.ok("docker run --rm --network net1 --cap-add NET_ADMIN box sh -c 'ip addr add 10.20.0.99/24 dev eth0; ! arping -c 2 -I eth0 10.20.0.2'");
    machine.ok("docker rm -f a1 b1 a2 b2");
    machine.ok("docker network rm net1 net2");
    machine.is_clean();
}

#[test]
fn containers_of_an_isolated_network_reach_the_outside_but_not_each_other() {
    let test = "containers_of_an_isolated_network_reach_the_outside_but_not_each_other";
    let Some(machine) = Machine::new(test) else { return };
    machine.ok("docker network create -d sluice --subnet 10.9.0.0/24 -o isolated net1");
    machine.sleeper("c1", "--network net1");
    machine.sleeper("c2", "--network net1");
    machine.ping("c1", "192.0.2.10");
    machine.no_ping("c1", "10.9.0.3");
    machine.ok("docker rm -f c1 c2");
    machine.ok("docker network rm net1");
    machine.is_clean();
}

#[test]
fn a_network_goes_on_over_vxlan() {
    let Some(machine) = Machine::new("a_network_goes_on_over_vxlan") else { return };
    machine
        .ok("docker network create -d sluice --subnet 10.9.0.0/24 -o vxlan.vni=100 -o vxlan.remotes=192.0.2.10 net1");
    machine.sleeper("c1", "--network net1");
    machine.outside("ip link add vx0 type vxlan id 100 dstport 4789 remote 192.0.2.1 local 192.0.2.10");
    machine.outside("ip addr add 10.9.0.200/24 dev vx0; ip link set vx0 up");
    machine.ping("c1", "10.9.0.200");
    machine.outside("ping -c 1 -W 5 10.9.0.2");
    machine.restart(Daemon::Sluiced, "KILL");
    machine.comes_to("docker exec c1 ping -c 1 -W 1 10.9.0.200");
    machine.ok("docker rm -f c1");
    machine.ok("docker network rm net1");
    machine.is_clean();
}

#[test]
fn addresses_come_from_the_driver_as_well() {
    let Some(machine) = Machine::new("addresses_come_from_the_driver_as_well") else { return };
    machine.ok("docker network create -d sluice --ipam-driver sluice net1");
    machine
        .ok("docker network create -d sluice --ipam-driver sluice --subnet 10.9.0.0/24 --ip-range 10.9.0.64/26 net2");
    let overlaps = machine.fails("docker network create -d sluice --ipam-driver sluice --subnet 10.9.0.0/25 net3");
    assert!(overlaps.contains("overlaps"), "{overlaps}");
    machine.sleeper("c1", "--network net1");
    machine.sleeper("c2", "--network net1");
    machine.ping("c1", "c2");
    machine.sleeper("c3", "--network net2");
    machine.sleeper("c4", "--network net2 --ip 10.9.0.7");
    assert!(machine.ok("docker exec c3 ip addr").contains("10.9.0.6"));
    machine.ping("c3", "10.9.0.7");
    machine.restart(Daemon::Driver, "KILL");
    let taken = machine.fails("docker run --rm --network net2 --ip 10.9.0.7 box sleep 0");
    assert!(taken.contains("10.9.0.7"), "{taken}");
    machine.ok("docker rm -f c1 c2 c3 c4");
    machine.ok("docker network rm net1 net2");
    machine.is_clean();
}

#[test]
fn other_kinds_of_networks_go_on_working_beside() {
    let Some(machine) = Machine::with("other_kinds_of_networks_go_on_working_beside", "--bip 172.30.0.1/24") else {
        return;
    };
    machine.ok("docker network create -d sluice --subnet 10.9.0.0/24 net1");
    machine.sleeper("ours", "--network net1");
    machine.sleeper("bridged", "");
    machine.sleeper("other", "");
    machine.sleeper("hosted", "--network host");
    machine.sleeper("lonely", "--network none");
    machine.sleeper("guest", "--network container:ours");
    machine.ping("bridged", "172.30.0.3");
    machine.ping("bridged", "192.0.2.10");
    machine.ping("hosted", "192.0.2.10");
    assert!(!machine.ok("docker exec lonely ip addr").contains("eth0"));
    assert_eq!(machine.ok("docker exec guest ip addr"), machine.ok("docker exec ours ip addr"));
    machine.ping("ours", "10.9.0.1");
    machine.ping("guest", "192.0.2.10");
    machine.ok("docker rm -f guest ours bridged other hosted lonely");
    machine.ok("docker network rm net1");
    machine.is_clean();
    machine.ok("docker run --rm box ping -c 1 -W 5 192.0.2.10");
}

#[test]
fn what_cannot_be_is_refused_with_what_can() {
    let Some(machine) = Machine::new("what_cannot_be_is_refused_with_what_can") else { return };
    let said = machine.fails("docker network create -d sluice -o vlna=10 net1");
    assert!(said.contains("`vlna`") && said.contains("vlan"), "{said}");
    let said = machine.fails("docker network create -d sluice -o vlan=5000 net1");
    assert!(said.contains("1 to 4094"), "{said}");
    let said = machine.fails("docker network create -d sluice -o bridge=nobody net1");
    assert!(said.contains("nobody"), "{said}");
    machine.is_clean();
    machine.end(Daemon::Sluiced, "TERM");
    let said = machine.fails("docker network create -d sluice net1");
    assert!(said.contains("systemctl start sluiced"), "{said}");
    machine.start(Daemon::Sluiced);
    machine.ok("docker network create -d sluice net1");
    machine.ok("docker network rm net1");
    machine.is_clean();
}
